"""What the benchmarks share: where the programs are, how they are measured, how tables and results are written."""
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests/support"))
BUILD = os.path.join(TOP, "build/release")
os.environ["AMESH"] = os.path.join(BUILD, "amesh")
os.environ["AMESH_BUILD"] = BUILD
PROGRAM = os.path.join(BUILD, "bench/bench_")
ROUNDS = int(os.environ.get("ROUNDS", "5"))


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
    library = subprocess.run(["pkg-config", "--modversion", "libnats"], capture_output=True, text=True).stdout.strip()
    policy = {os.SCHED_OTHER: "", os.SCHED_FIFO: "real time, fifo", os.SCHED_RR: "real time, round robin"}.get(os.sched_getscheduler(0), "")
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "nats_server": server.removeprefix("nats-server: "), "nats_c": library, "scheduler": policy or "ordinary",
            "load": f"{os.getloadavg()[0]:.1f}", "amesh": revision()}


def revision():
    """The commit that is measured."""
    return subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip() or "unknown"
