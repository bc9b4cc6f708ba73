#!/usr/bin/env python3
"""A direct call whose connections break in the middle of a fast stream: every event comes, once and in order; nobody else can have it (amp.md 6.8)."""
import json
import os
import shutil
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import AMESH, Bus, Tap, check, until  # noqa: E402
from proxy import Proxy  # noqa: E402

PY = sys.executable
tap = Tap()
N = 100000

# Says "00000000\n", "00000001\n", … as fast as it can: as many as it is asked for. Behind the last one it waits at $GATE, a FIFO, if that is there.
FLOOD = ("import os, sys, json\n"
         "for line in sys.stdin:\n f = json.loads(line)\n if f.get('method') != 'task.run': continue\n"
         " for i in range(int(f['params']['text'])):\n"
         "  sys.stdout.write(json.dumps({'method': 'task.event', 'params': {'taskId': f['params']['taskId'], 'event': {'type': 'text', 'text': '%08d\\n' % i}}}) + '\\n')\n"
         " sys.stdout.flush()\n"
         " if os.path.exists(os.environ['GATE']): open(os.environ['GATE']).close()\n"
         " print(json.dumps({'id': f['id'], 'result': None}), flush=True)\n")


def expected(n):
    return "".join(f"{i:08d}\n" for i in range(n)).encode()


class Stream:
    """A call that is read as it comes."""

    def __init__(self, mesh, agent, n, env=None):
        env = dict(mesh.env_cut_off(), **(env or {}))
        self.child = subprocess.Popen([AMESH, "ask", agent, str(n)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out = b""

    def read(self, size):
        while len(self.out) < size:
            data = self.child.stdout.read1(size - len(self.out))
            if not data:
                check(False, "the call goes on", self.child.wait(), self.child.stderr.read()[-1000:])
            self.out += data

    def end(self, n):
        rest, err = self.child.communicate(timeout=120)
        self.out += rest
        check(self.child.returncode == 0 and self.out == expected(n), "each event once, in order", self.child.returncode, len(self.out), err[-1000:])


def flood(mesh, name, url=None):
    mesh.gate = os.path.join(mesh.home, "gate")
    env = {"GATE": mesh.gate}
    return mesh.agent(name, "--mode", "jsonl", "--concurrency", "4", "--", PY, "-c", FLOOD, env=dict(env, AMESH_BUS=url) if url else env)


def open_gate(mesh):
    open(mesh.gate, "w").close()  # as soon as the agent is there
    os.unlink(mesh.gate)


def restarted(mesh):
    stream = Stream(mesh, "flood", N)
    for place in (20000, 400000):
        stream.read(place)
        mesh.server.signal(signal.SIGKILL)
        mesh.server.wait()
        mesh.start_server()
    stream.end(N)


def kicked(mesh, agent, proxy, env):
    stream, broken = Stream(mesh, agent, N, env), 0
    for place in range(20000, 9 * N - 100000, 130000):
        stream.read(place)
        before = proxy.made
        broken += proxy.reset() > 0
        until(lambda: proxy.made > before, "it connects again")
    stream.end(N)
    check(broken >= 4, "its connection was broken in the middle", broken)


def silent_end(mesh, proxy):
    """What is lost at the end of what is said, with nothing after it: it is found out all the same."""
    os.mkfifo(mesh.gate)
    stream = Stream(mesh, "far", 1000)
    stream.read(4500)
    proxy.reset()
    stream.read(9000)
    open_gate(mesh)
    stream.end(1000)


def lost_attach(mesh, agent):
    """A caller whose Attach was lost counts anew what it receives; the instance, which never heard of that, does not wait for ever for what it has counted itself."""
    raw, inbox, task, n, window, attached = Nats(mesh.bus), "_INBOX.raw.1", "t-anew", 2000, 4000, {}
    last, texts = 0, []

    def fill():
        """What comes until the window is full → its bytes."""
        nonlocal last
        size = 0
        while size < window and not texts[-1:] == ["end"]:
            got = raw.next(10)
            check(got, "more comes", last, size)
            frame = json.loads(got[3])["frame"]
            size += len(got[3])
            last = frame["seq"] + len(frame.get("events", [])) - 1
            texts.extend(e["body"]["artifactUpdate"]["artifact"]["parts"][0]["text"] for e in frame.get("events", []) if "artifactUpdate" in e.get("body", {}))
            texts.extend(["end"] if "end" in frame else [])
        return size

    def confirm(received):
        body = {"version": 1, "from": "raw", "control": {"ping": {"receivedBytes": str(received), "committed": last, **attached}}}
        raw.pub(f"amp.ctl.{agent.instance}.{task}", json.dumps(body).encode())

    raw.sub(inbox)
    asked = {"taskId": task, "contextId": "c-anew", "windowBytes": str(window), "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": str(n)}]}}
    raw.pub(f"amp.req.{agent.agent}.raw", json.dumps({"version": 1, "from": "raw", "request": asked}).encode(), inbox)
    received = fill()
    confirm(received)
    received += fill()
    confirm(received)
    received, attached = 0, {"attached": 1}  # it has attached, and that is lost
    while texts[-1:] != ["end"]:
        received += fill()
        confirm(received)
    check("".join(texts[:-1]).encode() == expected(n), "each event once, in order", len(texts))


def stolen(mesh, agent):
    """Who knows a task's id cannot have its events sent to himself, nor under another's name."""
    raw, me, stolen = Nats(mesh.bus), "_INBOX_thief.1", []
    raw.sub(me)
    raw.sub("amp.evt.>")
    raw.flush()
    os.mkfifo(mesh.gate)
    stream = Stream(mesh, agent.agent, 1000)
    seen = raw.next(10)
    task = json.loads(seen[3])["frame"]["taskId"]
    stream.read(9000)
    for sender in ("thief", "user", json.loads(seen[3])["frame"].get("from", "user")):
        for epoch in (0, 1):
            raw.pub(f"amp.ctl.{agent.instance}.{task}", json.dumps({"version": 1, "from": sender, "control": {"attach": {"epoch": str(epoch), "fromSeq": 1}}}).encode(), me)
            while (got := raw.next(10))[0] != me:
                pass
            stolen.append(json.loads(got[3]))
    check(all(s.get("reply", {}).get("error", {}).get("name") in ("denied", "stale_lease") for s in stolen), "refused", stolen)
    open_gate(mesh)
    stream.end(1000)


def whole(name, server):
    with Bus(nats=server) as mesh:
        proxy = Proxy(mesh.port)
        near = flood(mesh, "flood")
        flood(mesh, "far", proxy.url)
        tap.run(f"{name}: restarted twice in the middle of {N} events", restarted, mesh)
        tap.run(f"{name}: the caller's connection is reset in the middle of {N} events", kicked, mesh, "flood", proxy, {"AMESH_BUS": proxy.url})
        tap.run(f"{name}: the callee's connection is reset in the middle of {N} events", kicked, mesh, "far", proxy, {})
        tap.run(f"{name}: the callee's connection is reset when it has said all", silent_end, mesh, proxy)
        tap.run(f"{name}: a caller that counts anew, since its Attach was lost, gets all", lost_attach, mesh, near)
        tap.run(f"{name}: nobody else gets the events", stolen, mesh, near)
        proxy.close()


whole("Debian's nats-server", shutil.which("nats-server") or "/usr/sbin/nats-server")
if os.environ.get("AMESH_TEST_NATS_NEW"):
    whole("a current nats-server", os.environ["AMESH_TEST_NATS_NEW"])
else:
    tap.skip("a current nats-server", "it could not be fetched")
tap.done()
