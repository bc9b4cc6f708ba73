"""kill -9 of a sidecar with every kind of agent behind it and callers on its socket (F3): what was in hand goes on elsewhere or after the restart, callers are told at once, nothing is
lost and nothing doubled."""
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time

import checker
from fault import Fault, pause
from world import AGENTS, PROGRAM, Failed, World, check, until

KINDS = ("c", "exec", "jsonl", "dial", "http", "python", "js", "dial-stays", "poll-stays")
CALLS = 40
TOLD_S = 2.0  # from a sidecar's death until a caller on its socket knows


class Caller(threading.Thread):
    """Durable calls with keys over a socket, one after the other; what breaks is asked again with the same key. One that is told late has failed."""

    def __init__(self, world, name, victim):
        super().__init__(daemon=True)
        self.world, self.name, self.victim = world, name, victim
        self.acks, self.broken, self.late, self.error = [], 0, 0.0, None
        self.start()

    def run(self):
        try:
            for i in range(CALLS):
                self.until_answered(f"{self.name}-{i} work 20", f"{self.name}-{i}")
        except Exception as e:  # shown by finish()
            self.error = e

    def until_answered(self, text, key):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                task = self.call(text, key)
            except (OSError, ValueError, http.client.HTTPException):
                if self.victim.died:
                    self.late = max(self.late, time.monotonic() - self.victim.died)
                self.broken += 1
                pause(0.02)
                continue
            if "error" in task:
                pause(0.02)
                continue
            check(checker.answer_of({"task": task}) == checker.digest(text), "the answer is that of the question", task)
            self.acks.append({"from": "desk", "text": text, "task": task["id"], "key": key})
            return
        raise Failed(f"{self.name}: {text} was not answered in 60 s")

    def finish(self):
        self.join(90)
        check(not self.is_alive() and self.error is None, f"{self.name}: all calls are answered", self.error)


class LineCaller(Caller):
    sock = None

    def call(self, text, key):
        try:
            if self.sock is None:
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.settimeout(30)
                self.sock.connect(self.victim.path)
                self.lines = self.sock.makefile("rb")
            params = {"to": "work", "text": text, "durable": True, "key": key, "timeoutMs": 20000}
            self.sock.sendall(json.dumps({"id": 1, "method": "send", "params": params}).encode() + b"\n")
            line = self.lines.readline()
            frame = json.loads(line)
            return frame["result"] if "result" in frame else {"error": frame["error"]}
        except (OSError, ValueError):
            self.sock = None
            raise


class HttpCaller(Caller):
    def call(self, text, key):
        link = http.client.HTTPConnection("mesh", timeout=30)
        link.sock = socket.socket(socket.AF_UNIX)
        link.sock.settimeout(30)
        link.sock.connect(self.victim.path)
        try:
            link.request("POST", f"/v1/send/work?durable=1&key={key}&timeout=20000", text, {"Content-Type": "text/plain"})
            return json.loads(link.getresponse().read())
        finally:
            link.close()


class Victim:
    """The sidecar that is killed, always on the same socket."""

    def __init__(self, world, kind):
        self.world, self.kind, self.died, self.deaths = world, kind, 0.0, 0
        self.path = os.path.join(world.folder, "desk.sock")
        is_outside = kind.endswith("stays")
        if is_outside:
            program = os.path.join(AGENTS, kind.split("-")[0] + ".py")
            world.child("outside", [sys.executable, program, "--stay"], env={"AMESH_SOCK": self.path})
        self.process = world.sidecar("desk", "--sock", self.path, kind="idle" if is_outside else kind, concurrency=8)

    def kill(self):
        self.died = time.monotonic()
        self.process.kill()
        self.deaths += 1
        pause(self.world.random.uniform(0.02, 0.3))
        self.process = self.process.again()


def with_kind(kind, kills):
    def run(base, seed):
        with World(base, seed) as world:
            world.start()
            world.sidecar("work")
            victim = Victim(world, kind)
            callers = [LineCaller(world, "lines", victim), HttpCaller(world, "http", victim)]
            library = subprocess.Popen(world.wrap([PROGRAM + "call", victim.path, "work", str(CALLS), "library"]), env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            load = world.load("c0", "desk", rate=40, window=64, work=30)
            until(lambda: load.n_acked() > 5, "the load has begun", 20)
            for _ in range(kills):
                pause(world.random.uniform(0.1, 0.5))
                victim.kill()
            for caller in callers:
                caller.finish()
            out, err = library.communicate(timeout=90)
            check(library.returncode == 0, "the client library's caller had all its answers", err)
            answers = [line.split(" ", 2) for line in out.splitlines()[:-1]]
            check(all(a[1] == checker.digest(a[2]) for a in answers) and len(answers) == CALLS, "and they are right", out[-500:])
            told = load.stop()
            world.settle(60)
            acks = [ack for c in callers for ack in c.acks] + [{"from": "desk", "text": a[2], "task": a[0], "key": a[2].split()[0]} for a in answers]
            late = max(c.late for c in callers)
            check(late < TOLD_S, f"callers are told within {TOLD_S} s", late)
            return dict(world.verify(more=acks), kills=kills, calls=3 * CALLS, calls_broken=sum(c.broken for c in callers) + int(out.split()[-1]), sent=told["sent"],
                        told_after_max_ms=round(late * 1e3))
    return run


FAULTS = [Fault("F3", f"sidecar kill -9, agent {kind}", "callers on its socket are told at once or carry on; nothing lost, nothing doubled", with_kind(kind, 4), unit="kills",
                is_quick=kind in ("c", "python")) for kind in KINDS]
