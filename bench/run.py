#!/usr/bin/env python3
"""Runs the benchmarks (make bench [ONLY=name]) and prints ratios against controls of the same run. Method: bench/README.md."""
import datetime
import json
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import time

from common import BUILD, PROGRAM, ROUNDS, TOP, cpu_us, machine, measured, median, save, table
from meshtest import Mesh, Process, free_port, until
import cost
import events
import fleet
import hostile
import join
import storm
import stream


class Parties:
    """Everything that takes part, on one nats-server. Pinned: the server on CPU 0, everything else on CPU 1."""

    def __init__(self, mesh, is_pinned):
        host, port = mesh.bus.split("//")[1].split("@")[-1].split(":")
        with open(os.path.join(mesh.home, "mesh.json")) as f:
            server = json.load(f)["natsPid"]
        if is_pinned:
            subprocess.run(["taskset", "-acp", "0", str(server)], check=True, capture_output=True)
        self.mesh, self.controls = mesh, []
        self.socket = os.path.join(mesh.home, "caller.sock")
        agent = mesh.agent("bench-echo", "--concurrency", "64", "--mode", "dial", "--", PROGRAM + "echo_agent")
        caller = mesh.agent("bench-caller", "--mode", "dial", "--sock", self.socket, "--", PROGRAM + "echo_agent")
        self.pids = {"caller's sidecar": caller.child.pid, "callee's sidecar": agent.child.pid, "environment": mesh.up.child.pid, "nats-server": server}
        pipes = [os.path.join(mesh.home, f"pipe{i}") for i in range(2)]
        for path in pipes:
            self.control("raw_pipe", path, host, port)
        self.control("raw_nats", "respond", mesh.bus)
        self.control("raw_socket", "respond", host, port)
        self.control("raw_socket", "respond", pipes[1], "-", "bench.pipe")
        self.kinds = {
            "sockets": lambda count, window: ["raw_socket", "request", host, port, count, window],
            "nats.c": lambda count, window: ["raw_nats", "request", mesh.bus, count, window],
            "sockets through two pipes": lambda count, window: ["raw_socket", "request", pipes[0], "-", count, window, "bench.pipe"],
            "mesh (two sidecars)": lambda count, window: ["mesh_call", self.socket, "bench-echo", count, window],
        }

    def control(self, program, *args):
        process = Process([PROGRAM + program, *args], os.environ, program)
        process.wait_line("ready")
        self.controls.append(process)

    def stop(self):
        for process in self.controls:
            process.stop()

    def cpu(self):
        return {name: cpu_us(pid) for name, pid in self.pids.items()}


def run_rounds(parties, count, window):
    """→ {kind: [rows]}, {process: µs of CPU per call}; the kinds take turns in each round."""
    rows, used = {kind: [] for kind in parties.kinds}, {name: [] for name in parties.pids}
    for _ in range(ROUNDS):
        for kind, argv in parties.kinds.items():
            before = parties.cpu()
            rows[kind].append(measured([PROGRAM + argv(count, window)[0], *map(str, argv(count, window)[1:])]))
            if kind.startswith("mesh"):
                parties.mesh.run("task", "ls", "--limit", "1").ok()  # the environment writes what it kept back
                after = parties.cpu()
                for name in used:
                    used[name].append((after[name] - before[name]) / (count + 200))
    return rows, {name: statistics.median(values) for name, values in used.items()}


def bench_call():
    """A call through two sidecars against raw nats.c, sockets by hand, and sockets by hand through two processes that only forward."""
    data = []
    for is_pinned in (True, False):
        os.sched_setaffinity(0, {1} if is_pinned and os.cpu_count() > 1 else set(range(os.cpu_count())))  # children inherit it
        with Mesh() as mesh:
            parties = Parties(mesh, is_pinned)
            for window, count in ((1, 3000), (64, 20000)):
                rows, used = run_rounds(parties, count, window)
                mode = "pinned" if is_pinned else "free"
                base, lines = median(rows["nats.c"], "p50_us"), []
                for kind in parties.kinds:
                    p50, p99, rate = (median(rows[kind], k) for k in ("p50_us", "p99_us", "rate"))
                    lines.append([kind, f"{p50:.0f}", f"{p99:.0f}", f"{rate:.0f}", f"{p50 / base:.2f}", f"{p50 - base:+.0f}"])
                    data.append({"mode": mode, "window": window, "kind": kind, "p50_us": p50, "p99_us": p99, "rate": rate, "p50_ratio": p50 / base})
                table(f"call, {mode}, {window} in flight", ["", "p50 µs", "p99 µs", "calls/s", "p50 ÷ nats.c", "p50 − nats.c"], lines)
                print("  CPU per mesh call: " + ", ".join(f"{name} {us:.0f} µs" for name, us in used.items()))
                data.append({"mode": mode, "window": window, "cpu_us_per_call": used})
            parties.stop()
    os.sched_setaffinity(0, set(range(os.cpu_count())))
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


def bench_stampede():
    """F21: 50 clients with 200 submits each, all at once; 2,000 large ones. What the environment's memory is at most."""
    rows, data = [], []
    for name, each, size, limit in (("10,000 × 64 B", 200, 64, 128), ("2,000 × 48 KiB", 40, 48 << 10, 192)):
        with Mesh() as mesh:
            idle = peak_mib(mesh.up.child.pid, "VmRSS")
            said = measured([PROGRAM + "stampede", mesh.bus, "nobody-home", "50", str(each), str(size)])
            peak = peak_mib(mesh.up.child.pid)
        rows.append([name, said["accepted"], said["failed"], said["repeated"], f"{said['seconds']:.2f}", f"{said['p99_ms']:.0f}", f"{idle:.0f}", f"{peak:.0f}"])
        data.append({"name": name, **said, "idle_mib": idle, "peak_mib": peak, "aim_mib": limit})
    table("stampede, 50 clients at once (amesh up)", ["", "accepted", "failed", "told to come back", "seconds", "p99 ms", "idle MiB", "peak MiB"], rows)
    save("stampede", {"rows": data})


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


class Alone(Mesh):
    """A nats-server that stays and an environment that is killed."""

    def start_up(self):
        port = free_port()
        server = Process([self.env.get("AMESH_NATS_SERVER", "nats-server"), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", os.path.join(self.home, "nats")], self.env, "nats-server")
        self.processes.append(server)
        server.wait_line(lambda line: "Server is ready" in line, stream="err")
        self.bus = self.env["AMESH_BUS"] = f"nats://127.0.0.1:{port}"
        self.start_env()

    def start_env(self):
        self.up = self.spawn("env")
        self.up.wait_line("ready ")

    def submit(self, name, agent, count):
        """Durable submits of a client; → seconds until all are acknowledged, with each on the client's disk."""
        began = time.perf_counter()
        subprocess.run([os.path.join(BUILD, "tests/chaos/chaos_load"), "--window", "256", "--again", "1", "--count", str(count), self.bus, name, os.path.join(self.home, "acks"), agent],
                       check=True, capture_output=True, timeout=600)
        return time.perf_counter() - began

    def n_open(self):
        return self.run("task", "ls", "--open", "--json", "--limit", "1").ok().json()["totalSize"]


def peak_mib(pid, key="VmHWM"):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key)) / 1024


def bench_restart():
    """kill -9 of the environment with 100,000 open and 100,000 ended tasks: from its start until a submit is acknowledged; the control is the same with an empty journal."""
    tasks, rows = int(os.environ.get("TASKS", "100000")), []
    for count in (0, tasks):
        with Alone() as mesh:
            if count:
                agent = mesh.agent("echo", "--concurrency", "64", "--mode", "dial", "--", PROGRAM + "echo_agent")
                for i in range(10):
                    mesh.submit(f"a{i}", "echo", count // 10)
                until(lambda: mesh.n_open() == 0, "they have ended", 300)
                agent.stop()
                for i in range(10):
                    mesh.submit(f"b{i}", "nobody-home", count // 10)
            times, used = [], []
            for i in range(ROUNDS):
                mesh.up.signal(signal.SIGKILL)
                mesh.up.wait()
                began = time.perf_counter()
                mesh.up = mesh.spawn("env")
                mesh.submit(f"c{i}", "nobody-home", 1)
                times.append((time.perf_counter() - began) * 1e3)
                used.append(cpu_us(mesh.up.child.pid) / 1e3)
                mesh.up.wait_line("ready ")
            rows.append([f"{count:,} open, {count:,} ended", f"{statistics.median(times):.0f}", f"{max(times):.0f}", f"{statistics.median(used):.0f}", f"{peak_mib(mesh.up.child.pid):.0f}"])
    table("kill -9 of the environment → a submit is acknowledged (the client's own start included)", ["tasks", "median ms", "max ms", "CPU ms", "peak RSS MiB"], rows)
    save("restart", {"rows": rows})


def quantiles(ms):
    rank = sorted(ms)
    return rank[len(rank) // 2], rank[min(len(rank) - 1, int(len(rank) * 0.99))], rank[-1]


class Killed:
    """One kind of agent, two instances: tasks whose agent is killed while it works on them, until another one does."""

    def __init__(self, mesh, name, *mode):
        self.mesh, self.name, self.noticed, self.times = mesh, name, [], []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(os.path.join(mesh.home, name + ".dgram"))
        self.socket.settimeout(60)
        options = ["--mode", "jsonl"] if mode else []
        self.agents = [mesh.agent(name, *options, "--", PROGRAM + "failover_agent", os.path.join(mesh.home, name + ".dgram"), *mode) for _ in range(2)]

    def working(self):
        pid, attempt = self.socket.recv(64).split()
        return int(pid), int(attempt), time.monotonic()

    def told(self):
        """When the sidecars noticed a death, by their logs."""
        moments = [datetime.datetime.fromisoformat(json.loads(l)["time"].replace("Z", "+00:00")).timestamp() for a in self.agents for l in a.err if '"agent.died"' in l]
        return sorted(moments)

    def round(self):
        before = len(self.told())
        self.mesh.run("ask", "--detach", self.name, "work").ok()
        pid, _, _ = self.working()
        select.select([], [], [], 0.3)  # so that the environment has heard who has it: else it is no failover, but a request that nobody took
        began, clock = time.monotonic(), time.time()
        os.kill(pid, signal.SIGKILL)
        _, attempt, at = self.working()
        assert attempt == 2, attempt
        self.times.append((at - began) * 1e3)
        while len(self.told()) == before:
            select.select([], [], [], 0.01)
        self.noticed.append((self.told()[-1] - clock) * 1e3)
        self.wait_idle()

    def wait_idle(self):
        """Until both instances could take a task again."""
        while True:
            instances = [i for i in self.mesh.run("show", self.name, "--json").ok().json()["instances"] if i["state"] == "up" and i["free"]]
            if len(instances) == 2:
                return
            select.select([], [], [], 0.05)


def waitpid_ms(count):
    """The control: a parent that waits for a child that is killed."""
    times = []
    for _ in range(count):
        child = subprocess.Popen(["sleep", "1000"])
        select.select([], [], [], 0.005)
        began = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        times.append((time.monotonic() - began) * 1e3)
        child.returncode = 0
    return times


def bench_failover():
    """kill -9 of an agent in the middle of a durable task, until another instance's agent works on it; the control is kill -9 until a parent's waitpid returns."""
    count = int(os.environ.get("KILLS", "200"))
    control = waitpid_ms(count)
    rows, data = [["kill → waitpid of a bare parent", *(f"{q:.1f}" for q in quantiles(control))]], []

    def add(title, times):
        rows.append([f"{title} ({len(times)} kills)", *(f"{q:.1f}" for q in quantiles(times))])
        data.append({"what": title, "ms": times})

    with Mesh() as mesh:
        kind = Killed(mesh, "per-task")
        for _ in range(count):
            kind.round()
        add("kill → noticed by its sidecar", kind.noticed)
        add("kill → running elsewhere, a process per task", kind.times)
        times = []
        for pair in range(max(count // 20, 1)):  # a process that was killed often is not started again at once
            kind = Killed(mesh, f"long-{pair}", "jsonl")
            for _ in range(2):
                kind.round()
            times += kind.times
            for agent in kind.agents:
                agent.stop()
        add("kill → running elsewhere, a long-lived process", times)
    table("failover of a durable task", ["", "p50 ms", "p99 ms", "max ms"], rows)
    save("failover", {"control_ms": control, "rows": data})


BENCHES = {"call": bench_call, "submit": bench_submit, "stampede": bench_stampede, "start": bench_start, "restart": bench_restart, "failover": bench_failover, "storm": storm.bench_storm, "stream": stream.bench_stream, "join": join.bench_join, "cost": cost.bench_cost, "fleet": fleet.bench_fleet, "hostile": hostile.bench_hostile, "events": events.bench_events}


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    if not any(only in name for name in BENCHES):
        sys.exit(f"no benchmark is called {only}; there are {', '.join(BENCHES)}")
    print("machine: " + ", ".join(f"{k} {v}" for k, v in machine().items()))
    for name, bench in BENCHES.items():
        if only in name:
            bench()


if __name__ == "__main__":
    main()
