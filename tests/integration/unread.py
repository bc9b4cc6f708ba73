#!/usr/bin/env python3
"""Short answers that nobody reads (amp.md 10.13.7). A server holds up whoever publishes to a subscriber that does not read: here one peer sends 150,000 requests over one
connection and reads no answer, and no other sender loses an answer, a connection or a lease by it; nor by one who asks no faster than he is answered, until the server waits for him."""
import contextlib
import json
import os
import re
import shutil
import socket
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
import meshtest  # noqa: E402
from lib_nats import Nats  # noqa: E402
from meshtest import Bus, Tap, check, until  # noqa: E402

AMESH = meshtest.AMESH = os.environ.get("AMESH_RELEASE") or meshtest.AMESH  # as fast as a peer finds it
FLOOD = 150000
STEP = 500  # requests, and the next ones when those are answered: as many in all, if the server does not end that connection before
STALLS_MAX = 60  # of 100 ms or more each, which Debian's server makes whoever publishes wait
tap = Tap()


class Unread(Bus):
    CONFIG = "debug: true\n"  # the server says when it holds up who publishes


def envelope(sender, verb, body):
    return json.dumps({"version": 1, "from": sender, "envRequest": {verb: body}}).encode()


def submit(i):
    return {"agent": "nobody", "key": f"k{i}", "request": {"taskId": "", "contextId": "", "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}}}


def untold(nats):
    """→ bytes that wait for their sender to take those before"""
    answer = nats.request("amp.env.ping.other", envelope("other", "ping", {}), 20)
    check(answer, "a ping is answered")
    return int(next(q.get("used", "0") for q in json.loads(answer[3])["envReply"]["info"]["queues"] if q["name"] == "untold_bytes"))


class Deaf:
    """Sends, and reads nothing. The server may end its connection: that is its own matter."""

    def __init__(self, bus, verb, body, is_in_step):
        self.verb, self.body, self.nats, self.guide = verb, body, Nats(bus), Nats(bus)
        self.nats.sub("_INBOX.deaf.*")
        self.nats.flush()
        self.thread = threading.Thread(target=self.send_in_step if is_in_step else self.send)
        self.thread.start()

    def send(self):
        with contextlib.suppress(OSError):
            for first in range(0, FLOOD, 1000):
                self.send_some(first, 1000)

    def send_in_step(self):
        with contextlib.suppress(OSError):
            for first in range(0, FLOOD, STEP):
                self.send_some(first, STEP)
                until(lambda: untold(self.guide) == 0, "it is told all of that, or gone", deadline=60)

    def send_some(self, first, n):
        bodies = ((i, envelope("deaf", self.verb, self.body(i))) for i in range(first, first + n))
        self.nats.sock.sendall(b"".join(b"PUB amp.env.%s.deaf _INBOX.deaf.%d %d\r\n%s\r\n" % (self.verb.encode(), i, len(b), b) for i, b in bodies))

    def is_sending(self):
        return self.thread.is_alive()

    def end(self):
        with contextlib.suppress(OSError):
            self.nats.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.nats.sock.close()


class Keen:
    """Asks as much, and reads all of it."""
    WINDOWS, SIZE = 40, 500

    def __init__(self, bus):
        self.nats, self.n_answered = Nats(bus), 0
        self.nats.sub("_INBOX.keen.*")
        self.nats.flush()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self):
        for _ in range(self.WINDOWS):
            for i in range(self.SIZE):
                self.nats.pub("amp.env.ping.keen", envelope("keen", "ping", {}), f"_INBOX.keen.{i}")
            told = {message[0] for message in (self.nats.next(30) for _ in range(self.SIZE)) if message and b'"info"' in message[3]}
            self.n_answered += len(told)


def one_round(mesh, other):
    """What another one does meanwhile."""
    check(other.request("amp.env.ping.other", envelope("other", "ping", {}), 20), "a ping is answered")
    check(other.request("amp.env.kv.other", envelope("other", "kv", {"op": "KV_PUT", "scope": "KV_SHARED", "key": "k", "value": {"text": "v"}}), 20), "what is to be kept is written down")
    check(mesh.run("ask", "--durable", "echo", "x").ok().out == "x", "a durable task is done")
    check(mesh.run("ask", "echo", "x").ok().out == "x", "a call comes through")


def stalls(mesh):
    """A current server waits for 5 ms at most, and is not meant here."""
    return sum(re.search(r"fast producer stall \((\d{3,}(\.\d+)?ms|[\d.]+s)\)", line) is not None for line in mesh.server.err)


def unread(verb, body, is_in_step, server):
    with Unread(nats=server) as mesh:
        fifo, other, observer = os.path.join(mesh.home, "go-on"), Nats(mesh.bus), Nats(mesh.bus)
        os.mkfifo(fifo)
        echo = mesh.agent("echo", "--", "cat")
        agent = mesh.agent("leased", "--", "cat", fifo)
        task = mesh.run("ask", "--durable", "--detach", "leased", "x").ok().out.strip()
        observer.sub(f"amp.ctl.{agent.instance}.{task}")
        check(observer.next(), "it runs")
        deaf, keen, rounds = Deaf(mesh.bus, verb, body, is_in_step), Keen(mesh.bus), 0
        while deaf.is_sending() or rounds < 12:
            one_round(mesh, other)
            rounds += 1
        for _ in range(3):
            check(observer.next(20), "its holder is asked how it does")
        keen.thread.join()
        deaf.end()
        with open(fifo, "w") as f:
            f.write("as asked")
        done = until(lambda: (t := mesh.show(task))["status"]["state"] == "TASK_STATE_COMPLETED" and t, "it ends")
        print(f"# {verb}: {rounds} rounds of another one, held up {stalls(mesh)} times")
        check([a["outcome"] for a in done["metadata"]["amp/attempts"]] == ["completed"], "no lease has lapsed", done["metadata"])
        said = [line for process in (mesh.up, echo, agent) for line in process.err if "task.lease_lapsed" in line or "env.instance_lost" in line]
        check(not said, "nobody has lost anybody", said)
        check(keen.n_answered == Keen.WINDOWS * Keen.SIZE, "who asks as much and reads it gets every answer", keen.n_answered)
        check(stalls(mesh) <= STALLS_MAX, "the server holds the environment up a few times only", stalls(mesh))


def main():
    debian = shutil.which("nats-server") or "/usr/sbin/nats-server"
    new = os.environ.get("AMESH_TEST_NATS_NEW")
    for name, server in [("Debian's nats-server", debian)] + ([("a current nats-server", new)] if new else []):
        tap.run(f"pings whose answers nobody reads, as many as go, {name}", unread, "ping", lambda i: {}, False, server)
        tap.run(f"pings whose answers nobody reads, in step, {name}", unread, "ping", lambda i: {}, True, server)
        tap.run(f"submits whose answers nobody reads, as many as go, {name}", unread, "submit", submit, False, server)
        tap.run(f"submits whose answers nobody reads, in step, {name}", unread, "submit", submit, True, server)
    tap.done()


main()
