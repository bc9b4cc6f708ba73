"""make bench ONLY=join: from the moment an agent joins until everybody can call it. Method: bench/README.md."""
import json
import os
import subprocess
import time

from common import PROGRAM, save, table
from meshtest import Mesh, Process

JOINS = int(os.environ.get("JOINS", "300"))
CALLERS = 4


def quantiles(us):
    rank = sorted(us)
    return [rank[len(rank) // 2] / 1e3, rank[min(len(rank) - 1, int(len(rank) * 0.99))] / 1e3, rank[-1] / 1e3]


class Callers:
    """A sidecar each, one program for all."""

    def __init__(self, mesh):
        sockets = [os.path.join(mesh.home, f"caller{k}.sock") for k in range(CALLERS)]
        for k, path in enumerate(sockets):
            mesh.agent(f"caller{k}", "--mode", "dial", "--sock", path, "--", PROGRAM + "echo_agent")
        self.program = Process([PROGRAM + "join_call", *sockets], os.environ, "join_call", stdin=subprocess.PIPE)
        mesh.processes.append(self.program)
        self.program.wait_line("ready")

    def call(self, agent, start):
        """`start` is called when the callers have begun to call. → the program's report"""
        self.program.child.stdin.write(f"{agent} {time.monotonic_ns()}\n".encode())
        self.program.child.stdin.flush()
        started = start()
        return json.loads(self.program.wait_line("{")), started


def bench_join():
    """Agents of a new name that join while four callers at four sidecars want to call them; the control is a call to one that is there."""
    with Mesh() as mesh:
        callers = Callers(mesh)
        rows, calls = [], []
        for n in range(JOINS):
            report, agent = callers.call(f"new{n}", lambda: mesh.spawn("run", "--name", f"new{n}", "--concurrency", "64", "--mode", "dial", "--", PROGRAM + "join_agent"))
            rows.append(report)
            calls.append(callers.call(f"new{n}", lambda: None)[0]["fork_us"])
            agent.stop()
            mesh.processes.remove(agent)
    data = [
        {"what": "control: it is there → four callers are answered", "ms": quantiles(calls)},
        {"what": "joined → the first of four callers is answered", "ms": quantiles([r["first_us"] for r in rows])},
        {"what": "joined → the last one is answered", "ms": quantiles([r["last_us"] for r in rows])},
        {"what": "fork of `amesh run` → the last one is answered", "ms": quantiles([r["fork_us"] for r in rows])},
    ]
    table(f"join, {JOINS} times", ["", "p50 ms", "p99 ms", "max ms"], [[r["what"], *(f"{x:.2f}" for x in r["ms"])] for r in data])
    save("join", {"joins": JOINS, "callers": CALLERS, "rows": data})
