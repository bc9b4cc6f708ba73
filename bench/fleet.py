"""make bench ONLY=fleet: what thousands of agents cost who does nothing with them. Method: bench/README.md."""
import json
import os
import select
import subprocess
import time

from common import PROGRAM, cpu_us, measured, save, table
from meshtest import Mesh, Process, until

SIZES = os.environ.get("SIZES", "0x1@1000,1000x1@1000,10000x1@1000,10000x10@10000,100000x1@10000")  # agents x instances @ milliseconds between two beats of one
STEADY_S = float(os.environ.get("STEADY", "10"))
CHANGES = 20
CALLS = 1000
FLEET_S = 300  # to come


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1]) / 1024


def has_full(line, name):
    """One of its instances says that it is full."""
    return any(agent["name"] == name and agent["free"] < agent["slots"] for agent in json.loads(line)["agents"])


class Fleet:
    def __init__(self, mesh, agents, instances, interval_ms):
        with open(os.path.join(mesh.home, "mesh.json")) as f:
            server = json.load(f)["natsPid"]
        self.mesh, self.count, self.agents = mesh, agents * instances, agents
        self.pids = {"nats-server": server, "environment": mesh.up.child.pid}
        began = time.monotonic()
        self.program = Process([PROGRAM + "fleet", mesh.bus, *map(str, (agents, instances, interval_ms))], os.environ, "fleet", stdin=subprocess.PIPE)
        mesh.processes.append(self.program)
        self.program.wait_line("ready", deadline=FLEET_S)
        if agents:
            until(lambda: self.known() == agents, "the environment knows them all", deadline=FLEET_S)
        self.joined_s = time.monotonic() - began

    def known(self):
        return sum(agent["name"].startswith("fleet-") for agent in self.mesh.run("ls", "--json").ok().json()["agents"])

    def steady(self):
        """→ CPU of each process, in percent of a core, while nobody does anything"""
        before, began = {name: cpu_us(pid) for name, pid in self.pids.items()}, time.monotonic()
        select.select([], [], [], STEADY_S)
        passed = time.monotonic() - began
        return {name: (cpu_us(pid) - before[name]) / 1e4 / passed for name, pid in self.pids.items()}

    def listed(self):
        """→ milliseconds, and bytes of what is printed"""
        best = None
        for _ in range(3):
            began = time.monotonic()
            out = self.mesh.run("ls", "--json").ok().out
            best = min(best or 1e9, time.monotonic() - began)
        return best * 1e3, len(out)

    def watched(self):
        """→ milliseconds from the moment an instance says that it is full until a watcher shows it, CPU of the watcher in percent of a core"""
        watch = self.mesh.spawn("ls", "--watch", "--json")
        until(lambda: watch.out, "the watcher begins", deadline=FLEET_S)
        took = []
        for _ in range(CHANGES if self.agents else 0):
            seen = len(watch.out)
            began = time.monotonic()
            self.program.child.stdin.write(b"change\n")
            self.program.child.stdin.flush()
            name = self.program.wait_line("changed").split()[1]
            until(lambda: any(has_full(line, name) for line in watch.out[seen:]), "the watcher shows it", deadline=30)
            took.append((time.monotonic() - began) * 1e3)
        before, began = cpu_us(watch.child.pid), time.monotonic()
        select.select([], [], [], STEADY_S / 2)
        used = (cpu_us(watch.child.pid) - before) / 1e4 / (time.monotonic() - began)
        watch.stop()
        self.mesh.processes.remove(watch)
        return sorted(took)[len(took) // 2] if took else 0, used


def one(agents, instances, interval_ms):
    with Mesh() as mesh:
        socket = os.path.join(mesh.home, "caller.sock")
        mesh.agent("bench-echo", "--concurrency", "64", "--mode", "dial", "--", PROGRAM + "echo_agent")
        mesh.agent("bench-caller", "--mode", "dial", "--sock", socket, "--", PROGRAM + "echo_agent")
        fleet = Fleet(mesh, agents, instances, interval_ms)
        row = {"agents": agents, "instances": fleet.count, "interval_ms": interval_ms, "joined_s": fleet.joined_s}
        row["cpu_percent"] = fleet.steady()
        row["rss_mib"] = {name: rss_mib(pid) for name, pid in fleet.pids.items()}
        row["ls_ms"], row["ls_bytes"] = fleet.listed()
        row["watch_ms"], row["watch_cpu_percent"] = fleet.watched()
        row["call_p50_us"] = measured([PROGRAM + "mesh_call", socket, "bench-echo", str(CALLS), "1"])["p50_us"]
        if agents:
            mesh.run("ask", f"fleet-{agents // 2}", "are you there?").ok()
        return row


def bench_fleet():
    """Agents of one process that are subscribed and beat as sidecars do; the control is a mesh without them."""
    rows = []
    for size in SIZES.split(","):
        numbers, interval_ms = size.split("@")
        rows.append(one(*map(int, numbers.split("x")), int(interval_ms)))
        print(json.dumps(rows[-1]), flush=True)
    table("fleet", ["agents", "instances", "beats/s", "environment CPU %", "MiB", "server CPU %", "MiB", "ls ms", "KiB", "watch ms", "CPU %", "call p50 µs"],
          [[r["agents"], r["instances"], f"{r['instances'] * 1000 / r['interval_ms']:.0f}", f"{r['cpu_percent']['environment']:.1f}", f"{r['rss_mib']['environment']:.0f}", f"{r['cpu_percent']['nats-server']:.1f}",
            f"{r['rss_mib']['nats-server']:.0f}", f"{r['ls_ms']:.0f}", f"{r['ls_bytes'] / 1024:.0f}", f"{r['watch_ms']:.1f}", f"{r['watch_cpu_percent']:.1f}", f"{r['call_p50_us']:.0f}"] for r in rows])
    save("fleet", {"rounds": 1, "rows": rows})
