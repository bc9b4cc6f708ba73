#!/usr/bin/env python3
"""Runs every command that README.md and docs/*.md show, as a reader would: one shell per page, in order, in a private home.

A fenced block ```console holds commands (`$ …`, continued by lines that start with `> `) and what they print; `…` stands for anything, also for whole
lines. A block ```sh file=NAME is written to that file first (any language: ```python file=…). Other blocks are not run."""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support")]
from meshtest import AMESH, TOP, Failed, Tap, check  # noqa: E402

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.M | re.S)
MARK = "@@mark@@"


def steps(text):
    """→ [("file", name, body) | ("command", text, expected)]"""
    for language, info, body in BLOCK.findall(text):
        name = re.search(r"file=(\S+)", info)
        if name:
            yield "file", name.group(1), body
        elif language == "console":
            command, expected = None, []
            for line in body.splitlines():
                if line.startswith("$ "):
                    if command:
                        yield "command", command, expected
                    command, expected = line[2:], []
                elif line.startswith("> ") and command and not expected:
                    command += "\n" + line[2:]
                else:
                    expected.append(line)
            if command:
                yield "command", command, expected


def matches(expected, got):
    parts = [re.escape(line).replace("…", ".*") if line.strip() != "…" else "(?:.*\n)*?.*" for line in expected]
    return re.fullmatch("\n".join(parts) + r"\s*", "\n".join(l.rstrip() for l in got), re.S) is not None


def page(path):
    todo = list(steps(open(path, encoding="utf-8").read()))
    home = tempfile.mkdtemp(prefix="amd-")
    script = ["exec 2>&1", "set +m"]
    expectations = []
    for kind, a, b in todo:
        if kind == "file":
            script.append(f"cat > {a} <<'@@EOF@@'\n{b}@@EOF@@\n")
        elif not a.startswith("make ") and not a.startswith("sudo "):
            script.append(f"{a}\nprintf '\\n{MARK}\\n'")
            expectations.append((a, b))
    env = {k: v for k, v in os.environ.items() if not k.startswith("AMESH_")}
    env.update(AMESH_HOME=os.path.join(home, "mesh"), NO_COLOR="1", PATH=os.path.dirname(AMESH) + ":" + env.get("PATH", ""), SOURCE=TOP)
    try:
        child = subprocess.Popen(["bash", "-c", "\n".join(script) + "\namesh down >/dev/null 2>&1; kill $(jobs -p) 2>/dev/null; wait"], cwd=home, env=env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
        try:
            out, _ = child.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            out, _ = child.communicate()
            raise Failed("the page's commands do not end\n" + out[-3000:]) from None
        pieces = out.split(f"\n{MARK}\n")
        check(len(pieces) > len(expectations), "all commands ran", out[-2000:])
        for (command, expected), got in zip(expectations, pieces):
            lines = got.strip("\n").splitlines()
            check(not expected or matches(expected, lines), f"$ {command}", "expected:", *expected, "got:", *lines)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return len(expectations)


def emitted(path):
    """What a table or a sentence shows of `amesh task emit` must be understood too: outside of an agent it fails only because there is none."""
    shown = re.findall(r"`(amesh task emit [^`]+)`", open(path, encoding="utf-8").read())
    for command in shown:
        with tempfile.TemporaryDirectory(prefix="amd-") as home:
            open(os.path.join(home, "r.pdf"), "w", encoding="utf-8").close()
            env = {k: v for k, v in os.environ.items() if not k.startswith("AMESH_")}
            env.update(AMESH_HOME=home, NO_COLOR="1", PATH=os.path.dirname(AMESH) + ":" + env.get("PATH", ""))
            done = subprocess.run(["bash", "-c", command], cwd=home, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        check("AMESH_SOCK is not set" in done.stderr, f"`{command}`", done.returncode, done.stderr)
    return len(shown)


tap = Tap()
for path in [os.path.join(TOP, "README.md")] + sorted(glob.glob(os.path.join(TOP, "docs/*.md"))):
    if any(kind == "command" for kind, _, _ in steps(open(path, encoding="utf-8").read())):
        tap.run(f"{os.path.relpath(path, TOP)}: every command does what it shows", page, path)
    if "`amesh task emit " in open(path, encoding="utf-8").read():
        tap.run(f"{os.path.relpath(path, TOP)}: every `amesh task emit` is understood", emitted, path)
tap.done()
