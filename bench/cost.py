"""What one call costs in counts, which are the same on a busy machine: instructions, allocations, system calls, switches, messages and bytes on the bus. The control is a pair on plain nats.c."""
import glob
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import urllib.request

from common import BUILD, PROGRAM, TOP, cpu_us, save, table
from meshtest import AMESH, Bus, Process, free_port, until

CALLS = int(os.environ.get("CALLS", "2000"))
WARM = 200  # the client's own
COUNTER = os.path.join(BUILD, "bench/bench_count_alloc.so")
MODULE = struct.Struct("48sQQ")  # struct module of count_alloc.c
PARTIES = ("caller's sidecar", "callee's sidecar", "environment", "agent (C library)", "nats.c responder", "nats-server")
CALLGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file={folder}/callgrind.%p", "--compress-strings=no", "--compress-pos=no"]


class Wire(Bus):
    """Two sidecars, an environment, and the control's responder, on a nats-server that tells what it carried. `wrap`: party → what stands before its command line."""

    def __init__(self, wrap=None, preload=False):
        super().__init__()
        self.wrap, self.pids = wrap or {}, {}
        if preload:
            self.env.update(LD_PRELOAD=COUNTER, BENCH_COUNT=self.home)

    def start_server(self):
        self.watch = free_port()
        plain = {k: v for k, v in self.env.items() if k not in ("LD_PRELOAD", "BENCH_COUNT")}
        self.server = Process([plain.get("AMESH_NATS_SERVER", "nats-server"), "-a", "127.0.0.1", "-p", str(self.port), "-m", str(self.watch), "-js", "-sd", os.path.join(self.home, "nats")], plain, "nats-server")
        self.processes.append(self.server)
        self.server.wait_line(lambda line: "Server is ready" in line, stream="err")

    def party(self, name, *argv):
        process = Process([*(a.format(folder=self.home) for a in self.wrap.get(name, [])), *argv], self.env, name)
        self.processes.append(process)
        process.wait_line("ready")
        self.pids[name] = process.child.pid
        return process

    def start_env(self):
        self.up = self.party("environment", AMESH, "env")

    def start_parties(self):
        self.socket = os.path.join(self.home, "caller.sock")
        agent = [PROGRAM + "echo_agent"]
        self.party("callee's sidecar", AMESH, "run", "--name", "bench-echo", "--concurrency", "64", "--mode", "dial", "--", *agent)
        self.party("caller's sidecar", AMESH, "run", "--name", "bench-caller", "--mode", "dial", "--sock", self.socket, "--", *agent)
        self.party("nats.c responder", PROGRAM + "raw_nats", "respond", self.bus)
        self.pids["nats-server"] = self.server.child.pid
        child = subprocess.run(["pgrep", "-P", str(self.pids["callee's sidecar"]), "-f", "echo_agent"], capture_output=True, text=True).stdout.split()
        if child:
            self.pids["agent (C library)"] = int(child[0])
        return self

    def calls(self, kind, count, window):
        argv = ["mesh_call", self.socket, "bench-echo", count, window] if kind == "mesh" else ["raw_nats", "request", self.bus, count, window]
        plain = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "BENCH_COUNT")}
        subprocess.run([PROGRAM + argv[0], *map(str, argv[1:])], check=True, capture_output=True, env=plain, timeout=600)
        if kind == "mesh":
            until(lambda: self.run("task", "ls", "--limit", "1").status == 0, "the environment answers")  # under valgrind it is behind for a while
            self.settle(self.up.child.pid)

    def settle(self, pid):
        """Until it has done what it kept back: it hardly runs any more."""
        used = [cpu_us(pid)]

        def rests():
            select.select([], [], [], 0.3)
            used.append(cpu_us(pid))
            return used[-1] - used[-2] < 10000

        until(rests, "the environment has nothing left to do")

    def carried(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.watch}/varz", timeout=10) as answer:
            v = json.load(answer)
        return {"messages": v["in_msgs"], "bytes": v["in_bytes"], "deliveries": v["out_msgs"]}


def allocations(folder, pid):
    """→ {module: allocations so far} of a process that runs with count_alloc.c in it."""
    with open(os.path.join(folder, str(pid)), "rb") as f:
        rows = MODULE.iter_unpack(f.read())
    return {name.rstrip(b"\0").decode() or "elsewhere": n for name, n, _ in rows if n}


def switches(pid):
    total = 0
    for status in glob.glob(f"/proc/{pid}/task/*/status"):
        with open(status) as f:
            total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M)[1])
    return total


def whose(module):
    """nats.c's own allocations are what its users pay anyway."""
    return "nats.c" if module.startswith("libnats") else "own"


def per_call(after, before, count):
    return {k: (v - before.get(k, 0)) / count for k, v in after.items() if v != before.get(k, 0)}


def count_plain(kind, window):
    """Allocations, switches, CPU and what the bus carried."""
    with Wire(preload=True) as wire:
        wire.start_parties()
        wire.calls(kind, 1000, window)

        def look():
            return {p: (allocations(wire.home, pid) if p != "nats-server" else {}, switches(pid), cpu_us(pid)) for p, pid in wire.pids.items()}, wire.carried()

        before, carried_before = look()
        wire.calls(kind, CALLS, window)
        after, carried_after = look()
    n, rows = CALLS + (WARM if kind == "mesh" or window == 1 else 0), {}
    for party in after:
        made = per_call(after[party][0], before[party][0], n)
        rows[party] = {"allocations": {w: sum(v for m, v in made.items() if whose(m) == w) for w in ("own", "nats.c")}, "by_module": made,
                       "switches": (after[party][1] - before[party][1]) / n, "cpu_us": (after[party][2] - before[party][2]) / n}
    return rows, per_call(carried_after, carried_before, n)


def count_system_calls(kind, window):
    if not shutil.which("strace"):
        return {}
    rows = {}
    with Wire() as wire:
        wire.start_parties()
        wire.calls(kind, 500, window)
        watchers = {}
        for party, pid in wire.pids.items():
            if party != "nats-server":
                watchers[party] = subprocess.Popen(["strace", "-f", "-c", "-q", "-o", os.path.join(wire.home, f"strace.{pid}"), "-p", str(pid)], stderr=subprocess.DEVNULL)
        for party, watcher in watchers.items():
            until(lambda pid=wire.pids[party]: re.search(r"TracerPid:\s+[1-9]", open(f"/proc/{pid}/status").read()), "strace watches")
        wire.calls(kind, CALLS, window)
        for party, watcher in watchers.items():
            watcher.send_signal(signal.SIGINT)
            watcher.wait()
            with open(os.path.join(wire.home, f"strace.{wire.pids[party]}")) as f:
                lines = [l.split() for l in f if re.match(r"\s+[\d.]+\s", l) and not l.rstrip().endswith("total")]
            rows[party] = {l[-1]: int(l[3]) / (CALLS + WARM) for l in lines if int(l[3]) > CALLS // 50}
    return rows


def count_instructions(kind, party, window, keep=None):
    """Of one party, the others run at their own speed: else it would see fewer calls at once than it does in truth."""
    with Wire(wrap={party: CALLGRIND}) as wire:
        wire.start_parties()
        pid = str(wire.pids[party])
        wire.calls(kind, 500, window)
        subprocess.run(["callgrind_control", "-z", pid], check=True, capture_output=True)
        counts = [100] * 5 if party == "environment" else [CALLS]  # one that is seconds behind reads the bus's stream too, and handles everything twice
        for count in counts:
            wire.calls(kind, count, window)
        subprocess.run(["callgrind_control", "-d", pid], check=True, capture_output=True)
        dump = max(glob.glob(f"{wire.home}/callgrind.{pid}.*"), key=os.path.getmtime)
        with open(dump) as f:
            total = next(int(l.split()[1]) for l in f if l.startswith(("summary:", "totals:")))
        if keep:
            shutil.copy(dump, keep)
    return total / (sum(counts) + len(counts) * (WARM if kind == "mesh" or window == 1 else 0))


def profile_path(party, window):
    os.makedirs(os.path.join(TOP, "build/bench"), exist_ok=True)
    return os.path.join(TOP, "build/bench", f"callgrind.{party.split()[0].removesuffix(chr(39) + 's')}.{window}")


def bench_cost():
    has_valgrind, data = bool(shutil.which("valgrind")), []
    for window in (1, 64):
        mesh, carried = count_plain("mesh", window)
        raw, raw_carried = count_plain("nats.c", window)
        system = count_system_calls("mesh", window)
        system.update({"nats.c responder": count_system_calls("nats.c", window).get("nats.c responder", {})})
        mesh["nats.c responder"] = raw["nats.c responder"]
        rows = []
        for party in (p for p in PARTIES if p in mesh and p != "nats-server"):
            row = mesh[party]
            kind = "nats.c" if party == "nats.c responder" else "mesh"
            row["instructions"] = count_instructions(kind, party, window, profile_path(party, window)) if has_valgrind and not party.startswith("agent") else None
            row["system_calls"] = system.get(party, {})
            rows.append([party, f"{row['instructions']:,.0f}" if row["instructions"] else "", f"{row['allocations']['own']:.1f}", f"{row['allocations']['nats.c']:.1f}",
                         f"{sum(row['system_calls'].values()):.1f}", f"{row['switches']:.2f}", f"{row['cpu_us']:.0f}"])
            data.append({"window": window, "party": party, **row})
        table(f"per call, {window} in flight", ["", "instructions", "allocations, own", "of nats.c", "system calls", "waits", "CPU µs"], rows)
        print(f"  on the bus: {carried.get('messages', 0):.1f} messages, {carried.get('bytes', 0):.0f} bytes, delivered {carried.get('deliveries', 0):.1f}; nats.c: {raw_carried.get('messages', 0):.1f}, {raw_carried.get('bytes', 0):.0f}")
        for row in (r for r in data if r["window"] == window):
            print(f"  {row['party']}: " + ", ".join(f"{k} {v:.1f}" for k, v in sorted(row["by_module"].items(), key=lambda x: -x[1]))
                  + " | " + ", ".join(f"{k} {v:.2f}" for k, v in sorted(row["system_calls"].items(), key=lambda x: -x[1])))
        data.append({"window": window, "bus": carried, "bus_nats_c": raw_carried})
    save("cost", {"calls": CALLS, "rows": data})
