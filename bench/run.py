#!/usr/bin/env python3
"""Runs the benchmarks (make bench [ONLY=name]) and prints ratios against controls of the same run. Method: bench/README.md."""
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests/support"))
BUILD = os.path.join(TOP, "build/release")
os.environ["AMESH"] = os.path.join(BUILD, "amesh")
os.environ["AMESH_BUILD"] = BUILD
from meshtest import Mesh, Process, free_port  # noqa: E402

PROGRAM = os.path.join(BUILD, "bench/bench_")
ROUNDS = int(os.environ.get("ROUNDS", "5"))


def pinned(cpu, argv):
    return ["taskset", "-c", str(cpu), *argv] if cpu is not None else argv


def cpu_us(pid):
    """CPU time of all threads of a process, from the scheduler (ns resolution)."""
    total = 0
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/schedstat") as f:
            total += int(f.read().split()[0])
    return total / 1e3


def measured(argv):
    out = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300).stdout
    return json.loads(out.splitlines()[-1])


def median(rows, key):
    return statistics.median(r[key] for r in rows)


def table(title, header, rows):
    widths = [max(len(str(r[i])) for r in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for r in [header, *rows]:
        print("  " + "  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(r, widths))))


def save(name, data):
    os.makedirs(os.path.join(TOP, "build/bench"), exist_ok=True)
    with open(os.path.join(TOP, f"build/bench/{name}.json"), "w") as f:
        json.dump({"machine": machine(), "rounds": ROUNDS, **data}, f, indent=1)


def machine():
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    server = subprocess.run([shutil.which("nats-server"), "--version"], capture_output=True, text=True).stdout.strip()
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "nats_server": server}


def bench_call():
    """A call through two sidecars against raw nats.c and against sockets by hand, on one server."""
    results = {}
    for pin in (True, False):
        rest_cpu = 1 if pin else None
        os.sched_setaffinity(0, {1} if pin else set(range(os.cpu_count())))  # children inherit it
        with Mesh() as mesh:
            host, port = mesh.bus.split("//")[1].split("@")[-1].split(":")
            if pin:
                with open(os.path.join(mesh.home, "mesh.json")) as f:
                    subprocess.run(["taskset", "-acp", "0", str(json.load(f)["natsPid"])], check=True, capture_output=True)
            agent = mesh.agent("bench-echo", "--concurrency", "64", "--mode", "dial", "--", PROGRAM + "echo_agent")
            caller = mesh.agent("bench-caller", "--mode", "dial", "--sock", os.path.join(mesh.home, "caller.sock"), "--", PROGRAM + "echo_agent")
            natsc = Process(pinned(rest_cpu, [PROGRAM + "raw_nats", "respond", mesh.bus]), os.environ, "raw nats")
            natsc.wait_line("ready")
            sock = Process(pinned(rest_cpu, [PROGRAM + "raw_socket", "respond", host, port]), os.environ, "raw socket")
            sock.wait_line("ready")
            for window, count in ((1, 3000), (64, 20000)):
                rows = {"sockets": [], "nats.c": [], "mesh": []}
                side = {"caller sidecar": [], "callee sidecar": []}
                for _ in range(ROUNDS):
                    rows["sockets"].append(measured(pinned(rest_cpu, [PROGRAM + "raw_socket", "request", host, port, str(count), str(window)])))
                    rows["nats.c"].append(measured(pinned(rest_cpu, [PROGRAM + "raw_nats", "request", mesh.bus, str(count), str(window)])))
                    before = cpu_us(caller.child.pid), cpu_us(agent.child.pid)
                    rows["mesh"].append(measured(pinned(rest_cpu, [PROGRAM + "mesh_call", os.path.join(mesh.home, "caller.sock"), "bench-echo", str(count), str(window)])))
                    after = cpu_us(caller.child.pid), cpu_us(agent.child.pid)
                    side["caller sidecar"].append((after[0] - before[0]) / (count + 200))
                    side["callee sidecar"].append((after[1] - before[1]) / (count + 200))
                results[("pinned" if pin else "free", window)] = (rows, {k: statistics.median(v) for k, v in side.items()})
            natsc.stop()
            sock.stop()
    os.sched_setaffinity(0, set(range(os.cpu_count())))
    data = []
    for (mode, window), (rows, side) in results.items():
        base = median(rows["nats.c"], "p50_us")
        lines = []
        for name in ("sockets", "nats.c", "mesh"):
            p50, p99, rate = (median(rows[name], k) for k in ("p50_us", "p99_us", "rate"))
            lines.append([name, f"{p50:.0f}", f"{p99:.0f}", f"{rate:.0f}", f"{p50 / base:.2f}", f"{p50 - base:+.0f}", f"{rate / median(rows['sockets'], 'rate'):.2f}"])
            data.append({"mode": mode, "window": window, "name": name, "p50_us": p50, "p99_us": p99, "rate": rate})
        table(f"call, {mode}, {window} in flight (medians of {ROUNDS} rounds)", ["", "p50 µs", "p99 µs", "calls/s", "p50 ÷ nats.c", "p50 − nats.c", "rate ÷ sockets"], lines)
        print("  CPU per call: " + ", ".join(f"{k} {v:.1f} µs" for k, v in side.items()))
        data.append({"mode": mode, "window": window, "name": "cpu_us_per_call", **side})
    save("call", {"rows": data})


def bench_submit():
    """Durable submit: one client and 64 in flight; the control is one fdatasync of the same disk."""
    with Mesh() as mesh:
        rows = {1: [], 64: []}
        fsync = []
        for _ in range(ROUNDS):
            fsync.append(fsync_us(mesh.home))
            rows[1].append(measured([PROGRAM + "submit", mesh.bus, "nobody-home", "1000", "1"]))
            rows[64].append(measured([PROGRAM + "submit", mesh.bus, "nobody-home", "20000", "64"]))
        control = statistics.median(fsync)
        table(f"durable submit → accepted (control: write + fdatasync of 512 bytes, {control:.0f} µs)", ["in flight", "p50 µs", "p99 µs", "submits/s", "p50 ÷ control"],
              [[w, f"{median(r, 'p50_us'):.0f}", f"{median(r, 'p99_us'):.0f}", f"{median(r, 'rate'):.0f}", f"{median(r, 'p50_us') / control:.2f}"] for w, r in rows.items()])
        save("submit", {"fdatasync_us": control, "rows": [{"window": w, "p50_us": median(r, "p50_us"), "p99_us": median(r, "p99_us"), "rate": median(r, "rate")} for w, r in rows.items()]})


def fsync_us(folder, count=300):
    path, costs = os.path.join(folder, "control"), []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    for _ in range(count):
        began = time.perf_counter()
        os.write(fd, b"x" * 512)
        os.fdatasync(fd)
        costs.append((time.perf_counter() - began) * 1e6)
    os.close(fd)
    os.unlink(path)
    return statistics.median(costs)


def smaps(pid):
    keys = {}
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f.readlines()[1:]:
            k, v = line.split(":")
            keys[k] = int(v.split()[0])
    return keys["Rss"] / 1024, keys["Private_Dirty"] / 1024


def bench_start():
    """Start-up until callable, and idle memory of a sidecar; the control is a program that does nothing but connect with nats.c."""
    with Mesh() as mesh:
        starts, controls, memory, control_memory = [], [], [], []
        for i in range(max(ROUNDS, 7)):
            began = time.perf_counter()
            agent = mesh.agent(f"idle{i}", "--", "cat")
            starts.append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            raw = Process([PROGRAM + "raw_nats", "respond", mesh.bus], os.environ, "raw")
            raw.wait_line("ready")
            controls.append((time.perf_counter() - began) * 1e3)
            memory.append(smaps(agent.child.pid))
            control_memory.append(smaps(raw.child.pid))
            raw.stop()
        rows = []
        for name, ms, mem in (("bare nats.c program", controls, control_memory), ("sidecar", starts, memory)):
            rows.append([name, f"{statistics.median(ms):.1f}", f"{statistics.median(m[0] for m in mem):.1f}", f"{statistics.median(m[1] for m in mem):.1f}"])
        table("start-up and idle memory (medians; the time includes Python's own fork and pipe)", ["", "started ms", "RSS MiB", "private dirty MiB"], rows)
        save("start", {"rows": rows})


BENCHES = {"call": bench_call, "submit": bench_submit, "start": bench_start}


def main():
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    print("machine: " + ", ".join(f"{k} {v}" for k, v in machine().items()))
    for name, bench in BENCHES.items():
        if only in name:
            bench()


main()
