#!/usr/bin/env python3
"""Runs every test and counts them: unit programs and fuzz corpora (ctest's list), lint, integration, contract.

Everything speaks TAP: a line `ok N - name`, `not ok N - name`, `ok N - name # SKIP why`. A program that fails without saying
`not ok` counts as one failure. The last line printed is `N passed, N failed, N skipped`. Under CI=true a skip is a failure unless
its reason starts with "allowed:".
"""
import concurrent.futures as futures
import json
import os
import re
import signal
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TAP = re.compile(r"^\s*(not )?ok\b\s*\d*\s*-?\s*(.*?)(?:\s+#\s*(SKIP|TODO)\b\s*(.*))?$", re.I)
CI = os.environ.get("CI") == "true"


class Item:
    def __init__(self, name, argv, timeout=300, cwd=TOP, env=None, alone=False):
        self.name, self.argv, self.timeout, self.cwd, self.env, self.alone = name, argv, timeout, cwd, env or {}, alone


def ctest_items(build):
    listing = subprocess.run(["ctest", "--show-only=json-v1"], cwd=build, check=True, capture_output=True, text=True)
    for test in json.loads(listing.stdout)["tests"]:
        if "command" not in test:
            raise SystemExit(f"{test['name']}: not built")
        yield Item(test["name"], test["command"], cwd=build)


def script_items(folder, timeout):
    path = os.path.join(TOP, "tests", folder)
    for name in sorted(os.listdir(path)):
        full = os.path.join(path, name)
        if not name.endswith((".py", ".sh")) or name.startswith("lib"):
            continue
        if not os.access(full, os.X_OK):
            raise SystemExit(f"tests/{folder}/{name} is not executable, and would not be run")
        yield Item(f"{folder}/{name}", [full], timeout)


def run(item):
    """→ (item, passed, failures, skips, seconds, output)"""
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=0",
               UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1", **item.env)
    started = time.monotonic()
    child = subprocess.Popen(item.argv, cwd=item.cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, errors="replace", start_new_session=True)
    try:
        output, _ = child.communicate(timeout=item.timeout)
        status = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, _ = child.communicate()
        output += f"\n(killed after {item.timeout} s)\n"
        status = -9
    try:
        os.killpg(child.pid, signal.SIGKILL)  # what a test left behind
    except ProcessLookupError:
        pass
    passed, failures, skips = 0, [], []
    for line in output.splitlines():
        m = TAP.match(line)
        if not m or m.group(3) and m.group(3).upper() == "TODO":
            continue
        name = m.group(2) or item.name
        if m.group(3):
            reason = m.group(4)
            if CI and not reason.startswith("allowed:"):
                failures.append(f"{name} (skipped under CI: {reason})")
            else:
                skips.append(f"{name}: {reason}")
        elif m.group(1):
            failures.append(name)
        else:
            passed += 1
    if status != 0 and not failures:
        failures.append(f"exit status {status}")
    if status == 0 and not passed and not skips and not failures:
        passed = 1
    return item, passed, failures, skips, time.monotonic() - started, output


def main():
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    env = {"AMESH": os.path.join(TOP, "build/asan/amesh"), "AMESH_RELEASE": os.path.join(TOP, "build/release/amesh"), "AMESH_BUILD": os.path.join(TOP, "build/asan")}
    fetch = subprocess.run([os.path.join(TOP, "scripts/fetch-nats-server.sh")], capture_output=True, text=True)
    skips_all, failures_all, passed_all = [], [], 0
    if fetch.returncode == 0:
        env["AMESH_TEST_NATS_NEW"] = fetch.stdout.strip()
    else:
        reason = f"no current nats-server: {fetch.stderr.strip()}"
        print(f"SKIP  tests on a current nats-server: {reason}")
        (failures_all if CI else skips_all).append(reason)
    os.environ.update(env)
    items = list(ctest_items(os.path.join(TOP, "build/asan"))) + list(script_items("lint", 1800)) + list(script_items("integration", 900)) + list(script_items("contract", 900))
    items = [i for i in items if only in i.name]
    if not items:
        raise SystemExit(f"no test's name contains {only!r}")
    os.makedirs(os.path.join(TOP, "build/test-logs"), exist_ok=True)
    with futures.ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2)) as pool:
        for future in futures.as_completed([pool.submit(run, i) for i in items]):
            item, passed, failures, skips, seconds, output = future.result()
            with open(os.path.join(TOP, "build/test-logs", item.name.replace("/", "_") + ".log"), "w") as log:
                log.write(output)
            passed_all += passed
            failures_all += [f"{item.name}: {f}" for f in failures]
            skips_all += [f"{item.name}: {s}" for s in skips]
            print(f"{'FAIL' if failures else 'ok':4}  {item.name:40} {passed:4} passed {len(failures):3} failed {len(skips):3} skipped  {seconds:6.1f} s", flush=True)
            if failures:
                print("\n".join("      | " + l for l in output.splitlines()[-60:]), flush=True)
    for s in skips_all:
        print(f"SKIP  {s}")
    for f in failures_all:
        print(f"FAIL  {f}")
    print(f"{passed_all} passed, {len(failures_all)} failed, {len(skips_all)} skipped")
    return 1 if failures_all or not passed_all else 0


sys.exit(main())
