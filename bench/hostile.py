"""make bench ONLY=hostile: what those who do nothing wrong have of it when somebody else does. Method: bench/README.md."""
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time

import meshtest
from common import PROGRAM, TOP, save, table
from meshtest import Mesh, until

SECONDS = float(os.environ.get("SECONDS", "60"))
RATE = int(os.environ.get("RATE", "10000"))
DRIPS = int(os.environ.get("DRIPS", "2000"))
REQUESTS = 1000  # connections a second
ATTACKER = [sys.executable, os.path.join(TOP, "bench/attacker.py")]
SANITIZED = os.path.join(TOP, "build/asan")


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmRSS"))


class Siege:
    """A mesh of the sanitizers' build; calls go through two of its sidecars while something else goes on."""

    def __init__(self, mesh):
        self.mesh, self.socket = mesh, os.path.join(mesh.home, "caller.sock")
        self.agent = mesh.agent("steady", "--concurrency", "64", "--mode", "dial", "--", PROGRAM + "echo_agent")
        self.caller = mesh.agent("caller", "--mode", "dial", "--sock", self.socket, "--", PROGRAM + "echo_agent")
        self.parties = {"environment": mesh.up, "callee's sidecar": self.agent, "caller's sidecar": self.caller}

    def calls(self, attack):
        """→ medians of runs of 200 calls, for as long as the attack goes on"""
        rows = []
        while True:
            out = subprocess.run([PROGRAM + "mesh_call", self.socket, "steady", "200", "1"], check=True, capture_output=True, text=True, timeout=300).stdout
            rows.append(json.loads(out.splitlines()[-1]))
            if not attack.is_alive():
                return {key: statistics.median(r[key] for r in rows) for key in ("p50_us", "p99_us")}

    def lines(self):
        return {name: len(p.err) for name, p in self.parties.items()}

    def under(self, name, argv):
        """`argv` goes on for SECONDS. → a row"""
        said, before, memory = {}, self.lines(), {n: rss_mib(p.child.pid) for n, p in self.parties.items()}

        def run():
            if argv:
                said.update(json.loads(subprocess.run([*ATTACKER, *map(str, argv)], check=True, capture_output=True, text=True).stdout))
            else:
                threading.Event().wait(SECONDS)
        attack = threading.Thread(target=run)
        begin = time.monotonic()
        attack.start()
        row = {"what": name, **self.calls(attack), "per_s": said.get("per_s", 0)}
        attack.join()
        took = time.monotonic() - begin
        for party, process in self.parties.items():
            assert process.child.poll() is None, f"{party} has ended: {process.err[-20:]}"
        row["log_per_s"] = {n: (len(p.err) - before[n]) / took for n, p in self.parties.items()}
        row["grown_mib"] = {n: rss_mib(p.child.pid) - memory[n] for n, p in self.parties.items()}
        until(lambda: self.mesh.run("ask", "steady", "still here?").status == 0, "it answers afterwards")
        until(lambda: self.mesh.run("task", "ls", "--limit", "1").status == 0, "the environment answers afterwards")
        return row


def build():
    subprocess.run(["cmake", "--preset", "asan"], cwd=TOP, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", SANITIZED, "--target", "amesh"], cwd=TOP, check=True, capture_output=True)


def bench_hostile():
    """Broken messages on every subject and socket, clients that drip; the sanitizers watch, the control is as much traffic that concerns nobody."""
    build()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    kept, meshtest.AMESH = meshtest.AMESH, os.path.join(SANITIZED, "amesh")
    os.environ["ASAN_OPTIONS"] = "detect_leaks=1:detect_stack_use_after_return=0:quarantine_size_mb=16"
    try:
        with Mesh() as mesh:
            siege = Siege(mesh)
            bus = lambda kind: ["bus", mesh.bus, kind, RATE, SECONDS, "steady", siege.agent.instance]
            rows = [siege.under("nothing else", None),
                    siege.under("control: as many messages to nobody", bus("control")),
                    siege.under("broken messages to the environment", bus("environment")),
                    siege.under("broken messages to the sidecars", bus("sidecars")),
                    siege.under("broken lines on the local socket of the caller", ["lines", siege.socket, RATE, SECONDS]),
                    siege.under("broken HTTP on it, a connection each", ["requests", siege.socket, REQUESTS, SECONDS]),
                    siege.under(f"{DRIPS} HTTP clients on it that send a byte a second", ["drips", siege.socket, DRIPS, SECONDS]),
                    siege.under("nothing else, again", None)]
    finally:
        meshtest.AMESH = kept
    base, control = rows[0]["p99_us"], rows[1]["p99_us"]
    table(f"calls under attack, the sanitizers' build, {SECONDS:.0f} s each",
          ["", "per s", "p50 µs", "p99 µs", "p99 ÷ nothing", "p99 ÷ control", "log lines/s: environment, callee, caller", "grown MiB"],
          [[r["what"], f"{r['per_s']:.0f}", f"{r['p50_us']:.0f}", f"{r['p99_us']:.0f}", f"{r['p99_us'] / base:.2f}", f"{r['p99_us'] / control:.2f}",
            ", ".join(f"{v:.1f}" for v in r["log_per_s"].values()), ", ".join(f"{v:.0f}" for v in r["grown_mib"].values())] for r in rows])
    save("hostile", {"seconds": SECONDS, "rate": RATE, "drips": DRIPS, "rows": rows})
