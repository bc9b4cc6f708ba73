"""make bench ONLY=events: what one event of a stream costs in counts, which are the same on a busy machine: as fast as an agent may write, and one at a time, as a model makes its text."""
import glob
import json
import os
import shutil
import subprocess

import cost
from common import PROGRAM, TOP, save, table
from meshtest import AMESH, until

PARTIES = ("caller's sidecar", "callee's sidecar", "environment")
# name, bytes of a record, records a second (0: as fast as it may), records
KINDS = (("as fast as it may, 64 bytes", 64, 0, 20000), ("as fast as it may, 4 KiB", 4096, 0, 3000), ("one at a time, 64 bytes", 64, 200, 1000))


class Streams(cost.Wire):
    def start_parties(self):
        self.socket = os.path.join(self.home, "caller.sock")
        self.party("callee's sidecar", AMESH, "run", "--name", "bench-stream", "--concurrency", "8", "--mode", "dial", "--", PROGRAM + "stream_agent")
        self.party("caller's sidecar", AMESH, "run", "--name", "bench-caller", "--mode", "dial", "--sock", self.socket, "--", PROGRAM + "echo_agent")
        return self

    def stream(self, size, rate, count):
        plain = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "BENCH_COUNT")}
        out = subprocess.run([PROGRAM + "stream_call", "one", self.socket, "bench-stream", str(count), str(size), str(rate)], check=True, capture_output=True, text=True, env=plain, timeout=600).stdout
        told = json.loads(out)
        if told["lost"] or told["out_of_order"]:
            raise SystemExit(f"a stream is broken: {out}")
        until(lambda: self.run("ls").status == 0, "the environment answers")
        self.settle(self.up.child.pid)


def plain(size, rate, count):
    """→ {party: own allocations, those of nats.c, waits, CPU per record}, what the bus carried per record"""
    with Streams(preload=True) as mesh:
        mesh.start_parties().stream(size, rate, count // 4)

        def look():
            return {p: (cost.allocations(mesh.home, pid), cost.switches(pid), cost.cpu_us(pid)) for p, pid in mesh.pids.items()}, mesh.carried()

        before, carried_before = look()
        mesh.stream(size, rate, count)
        after, carried_after = look()
    rows = {}
    for party in PARTIES:
        made = cost.per_call(after[party][0], before[party][0], count)
        rows[party] = {"allocations": {w: sum(v for m, v in made.items() if cost.whose(m) == w) for w in ("own", "nats.c")},
                       "switches": (after[party][1] - before[party][1]) / count, "cpu_us": (after[party][2] - before[party][2]) / count}
    return rows, cost.per_call(carried_after, carried_before, count)


def instructions(party, size, rate, count, keep):
    """Per record, of one party; the others run at their own speed."""
    with Streams(wrap={party: cost.CALLGRIND}) as mesh:
        mesh.start_parties().stream(size, rate, max(count // 20, 50))
        pid = str(mesh.pids[party])
        subprocess.run(["callgrind_control", "-z", pid], check=True, capture_output=True)
        pieces = 10 if party == "environment" else 1  # one that is seconds behind reads the bus's stream too, and handles everything twice
        for _ in range(pieces):
            mesh.stream(size, rate, count // pieces)
        subprocess.run(["callgrind_control", "-d", pid], check=True, capture_output=True)
        dump = max(glob.glob(f"{mesh.home}/callgrind.{pid}.*"), key=os.path.getmtime)
        with open(dump) as f:
            total = next(int(l.split()[1]) for l in f if l.startswith(("summary:", "totals:")))
        shutil.copy(dump, keep)
    return total / count


def bench_events():
    os.makedirs(os.path.join(TOP, "build/bench"), exist_ok=True)
    has_valgrind, data = bool(shutil.which("valgrind")), []
    for kind, (name, size, rate, count) in enumerate(KINDS):
        rows, carried = plain(size, rate, count)
        for party, row in rows.items():
            keep = os.path.join(TOP, "build/bench", f"callgrind.events.{party.split()[0].removesuffix(chr(39) + 's')}.{kind}")
            row.update(kind=name, party=party, size=size, instructions=instructions(party, size, rate, count, keep) if has_valgrind else None)
            data.append(row)
        table(f"per record, {name}", ["", "instructions", "allocations, own", "of nats.c", "waits", "CPU µs"],
              [[p, f"{r['instructions']:,.0f}" if r["instructions"] else "", f"{r['allocations']['own']:.2f}", f"{r['allocations']['nats.c']:.2f}", f"{r['switches']:.2f}", f"{r['cpu_us']:.1f}"] for p, r in rows.items()])
        print(f"  on the bus: {carried.get('messages', 0):.2f} messages, {carried.get('bytes', 0):,.0f} bytes")
        data.append({"kind": name, "size": size, "bus": carried})
    save("events", {"rows": data})
