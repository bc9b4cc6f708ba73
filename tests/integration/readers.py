#!/usr/bin/env python3
"""Several readers of one task, each from its own number on: one that stands still holds back neither the others nor the agent nor the environment, and has all of it when it goes on."""
import json
import os
import shutil
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
import meshtest  # noqa: E402
from meshtest import Mesh, Tap, check  # noqa: E402

PY = sys.executable
AMESH = meshtest.AMESH = os.environ.get("AMESH_RELEASE") or meshtest.AMESH  # memory is a user's, not a sanitizer's
tap = Tap()
N = 100000

# Says "00000000", "00000001", … and as many dots as it is asked for; before the first one it waits at $GATE, a FIFO.
FLOOD = ("import os, sys, json\n"
         "for line in sys.stdin:\n f = json.loads(line)\n if f.get('method') != 'task.run': continue\n"
         " open(os.environ['GATE']).close()\n"
         " n, dots = map(int, f['params']['text'].split())\n"
         " for i in range(n):\n"
         "  sys.stdout.write(json.dumps({'method': 'task.event', 'params': {'taskId': f['params']['taskId'], 'event': {'type': 'text', 'text': '%08d%s\\n' % (i, '.' * dots)}}}) + '\\n')\n"
         " print(json.dumps({'id': f['id'], 'result': None}), flush=True)\n")


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


class Reader:
    def __init__(self, mesh, task, first):
        self.first = first
        self.child = subprocess.Popen([AMESH, "task", "watch", task, "--json", "--from", str(first)], env=mesh.env_cut_off(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def begin(self):
        """The watch stands: its first event is there."""
        self.line = self.child.stdout.readline()
        check(self.line, "the watch begins", self.child.stderr.read()[-1000:] if not self.line else "")

    def end(self):
        """All of it, each event once and in order → the text"""
        events = [json.loads(line) for line in (self.line + self.child.stdout.read()).splitlines()]
        check(self.child.wait(60) == 0, "ends well", self.child.returncode, self.child.stderr.read()[-1000:])
        numbers = [event["seq"] for event in events]
        self.last = numbers[-1]
        check(numbers == list(range(self.first, self.first + len(numbers))), "each number once, in order", numbers[:5], numbers[-5:])
        return "".join(part.get("text", "") for e in events if "artifactUpdate" in e for part in e["artifactUpdate"]["artifact"]["parts"])


def several(mesh, how, n, dots):
    gate = mesh.gate
    if not os.path.exists(gate):
        os.mkfifo(gate)
    asking = None
    if how == "durable":
        task = mesh.run("ask", "--durable", "--detach", "flood", f"{n} {dots}").ok().out.split()[0]
    else:
        asking = subprocess.Popen([AMESH, "ask", "--events", "flood", f"{n} {dots}"], env=mesh.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        first = asking.stdout.readline()
        check(first, "the call begins", asking.stderr.read()[-1000:] if not first else "")
        task = json.loads(first)["statusUpdate"]["taskId"]
    readers = [Reader(mesh, task, 1) for _ in range(3)]
    for reader in readers:
        reader.begin()
    before = rss_kib(mesh.env_pid)
    readers[0].child.send_signal(signal.SIGSTOP)
    open(gate, "w").close()
    whole = "".join(f"{i:08d}{'.' * dots}\n" for i in range(n))
    if asking:
        events = [json.loads(line) for line in asking.stdout.read().splitlines()]
        text = "".join(part.get("text", "") for e in events if "artifactUpdate" in e for part in e["artifactUpdate"]["artifact"]["parts"])
        check(asking.wait(60) == 0 and text == whole, "the caller is not held back", asking.returncode, len(text), asking.stderr.read()[-500:])
    for reader in readers[1:]:
        check(reader.end() == whole, "who reads has all of it")
    grown = rss_kib(mesh.env_pid) - before
    later = Reader(mesh, task, readers[1].last // 2)  # of pieces that were put together there are fewer than were said
    later.begin()
    check(len(later.end()) < len(whole), "one from a number on")
    readers[0].child.send_signal(signal.SIGCONT)
    check(readers[0].end() == whole, "who stood still has all of it, too")
    print(f"# {how}: the environment grew by {grown} KiB")
    check(grown < 160 << 10, "the environment keeps nothing for who stands still", grown)


def all_of(name, server):
    with Mesh(nats=server) as mesh:
        mesh.gate = os.path.join(mesh.home, "gate")
        mesh.env_pid = mesh.up.child.pid
        mesh.agent("flood", "--mode", "jsonl", "--", PY, "-c", FLOOD, env={"GATE": mesh.gate})
        for how in ("direct", "durable"):
            tap.run(f"{name}: three readers of a {how} task of {N} events, one of which stands still", several, mesh, how, N, 0)
        # More than a server keeps for one connection (64 MiB): it ends that, and who stood still asks again from where it was.
        tap.run(f"{name}: of a durable task of 70 MB", several, mesh, "durable", 32000, 1900)


all_of("Debian's nats-server", shutil.which("nats-server") or "/usr/sbin/nats-server")
if os.environ.get("AMESH_TEST_NATS_NEW"):
    all_of("a current nats-server", os.environ["AMESH_TEST_NATS_NEW"])
else:
    tap.skip("a current nats-server", "it could not be fetched")
tap.done()
