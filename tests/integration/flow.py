#!/usr/bin/env python3
"""Agents faster than their callers: everything arrives, in order, and nobody's memory grows (amp.md 6.2.3)."""
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import AMESH, Mesh, Tap, check, until  # noqa: E402

PY = sys.executable
tap = Tap()

# Agents that say "NUMBER SIZE" lines as fast as they can, in each way of being attached. $PROGRESS gets the number of lines written so far.
PIECES = ("import os, sys, json\nnote = os.open(os.environ['PROGRESS'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)\n"
          "def pieces(text):\n n, size = map(int, text.split())\n"
          " for i in range(n):\n  if i % 100 == 0: os.pwrite(note, b'%12d' % i, 0)\n  yield '%0*d\\n' % (size, i)\n"
          "def frames(task, text):\n for p in pieces(text): yield json.dumps({'method': 'task.event', 'params': {'taskId': task, 'event': {'type': 'text', 'text': p}}}) + '\\n'\n")
JSONL = PIECES + ("for line in sys.stdin:\n f = json.loads(line)\n if f.get('method') != 'task.run': continue\n"
                  " for x in frames(f['params']['taskId'], f['params']['text']): sys.stdout.write(x)\n print(json.dumps({'id': f['id'], 'result': None}), flush=True)\n")
DIAL = PIECES + ("import socket\ns = socket.socket(socket.AF_UNIX); s.connect(os.environ['AMESH_SOCK']); io = s.makefile('rw')\n"
                 "io.write(json.dumps({'id': 1, 'method': 'hello', 'params': {'proto': 1}}) + '\\n'); io.flush()\n"
                 "for line in io:\n f = json.loads(line)\n if f.get('method') != 'task.run': continue\n"
                 " for x in frames(f['params']['taskId'], f['params']['text']): io.write(x)\n io.write(json.dumps({'id': f['id'], 'result': None}) + '\\n'); io.flush()\n")
EXEC = PIECES + "for p in pieces(sys.stdin.read()): sys.stdout.write(p)\n"
HTTP = PIECES + ("import http.client, socket\nclass Conn(http.client.HTTPConnection):\n def connect(self):\n  self.sock = socket.socket(socket.AF_UNIX); self.sock.connect(os.environ['AMESH_SOCK'])\n"
                 "def go(method, path, body=None, kind='text/plain'):\n c.request(method, path, body, {'Content-Type': kind}); r = c.getresponse(); return r.status, r.read()\n"
                 "c = Conn('mesh')\nwhile True:\n status, body = go('GET', '/v1/work?wait=60')\n if status != 200: continue\n task = json.loads(body)\n batch = []\n"
                 " for p in pieces(task['text']):\n  batch.append(json.dumps({'type': 'text', 'text': p}))\n"
                 "  if len(batch) == 200: go('POST', '/v1/tasks/%s/events' % task['taskId'], '\\n'.join(batch), 'application/x-ndjson'); batch = []\n"
                 " if batch: go('POST', '/v1/tasks/%s/events' % task['taskId'], '\\n'.join(batch), 'application/x-ndjson')\n"
                 " go('POST', '/v1/tasks/%s/result' % task['taskId'], 'null', 'application/json')\n")
WAYS = {"jsonl": ("jsonl", JSONL), "dial": ("dial", DIAL), "http": ("dial", HTTP), "exec": ("exec", EXEC)}


def expected(n, size):
    return "".join(f"{i:0{size}d}\n" for i in range(n))


def start(mesh, way):
    progress = os.path.join(mesh.home, "progress-" + way)
    mode, code = WAYS[way]
    agent = mesh.agent("flood-" + way, "--mode", mode, "--", PY, "-c", code, env={"PROGRESS": progress})
    agent.progress = lambda: int(open(progress).read() or 0)
    return agent


def flood(mesh, way, n, size):
    r = mesh.run("ask", "flood-" + way, f"{n} {size}", deadline=200)
    check(r.status == 0 and r.out == expected(n, size), "all of it, in order", r.status, len(r.out), r.err[-500:])


def reader_stops(mesh, agent, way):
    """A reader that does not read (less, a terminal that was stopped): the agent is held back; the caller stays on the bus; when it reads on, all is there."""
    n, size = 40000, 1000
    nats = Nats(mesh.bus)
    nats.sub("amp.ctl.*.*")
    nats.flush()
    ask = subprocess.Popen([AMESH, "ask", agent.agent, f"{n} {size}"], env=mesh.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pings = []
    last = -1
    # The caller asks each second of silence whether the task still lives: five times that is longer than the bus waits for a caller that stands still.
    while len(pings) < 5:
        pings.append(nats.next(30))
        check(pings[-1] is not None, "the caller pings")
        now = agent.progress()
        pings = pings if now == last else []
        last = now
    held = agent.progress() * size
    check(held < 8 << 20, "the agent was held back after a few MiB", held)
    task = mesh.run("task", "ls", "--agent", agent.agent, "--limit", "1", "--json").ok().json()["tasks"][0]["id"]
    texts = [part["text"] for event in mesh.run("task", "show", task, "--events", "--json").ok().lines() for part in event.get("artifactUpdate", {}).get("artifact", {}).get("parts", [])]
    alone, together = [t for t in texts if t.count("\n") == 1], [t for t in texts if t.count("\n") > 1]
    # An event each as long as they can leave: a window full, and what the reader's side has taken. What comes then is put together.
    check(len(alone) * size < (1 << 20) + (512 << 10) and len(together) <= held / 65536 + 1, "pieces that wait become few events", held, len(alone), len(together))
    out, err = ask.communicate(timeout=120)
    check(ask.returncode == 0 and out.decode() == expected(n, size), "all of it, in order", ask.returncode, len(out), err[-500:])
    nats.sock.close()
    events = len(mesh.run("task", "show", task, "--events", "--json").ok().lines())
    check(n * size / 65536 < events < n - (held / size - len(alone)) / 2, "and stay so", events, held, len(alone))


def caller_dies(mesh, agent):
    """A caller that was killed while the agent was held back for it: the slot is free again."""
    ask = subprocess.Popen([AMESH, "ask", agent.agent, "100000 1000"], env=mesh.env, stdout=subprocess.PIPE)
    ask.stdout.read(1000)
    ask.kill()
    ask.wait()
    until(lambda: mesh.run("show", agent.agent, "--json").ok().json()["instances"][0]["free"] == 1, "the task of a caller that is gone ends")
    flood(mesh, "jsonl", 100, 8)


def cancelled_while_held(mesh, agent):
    ask = subprocess.Popen([AMESH, "ask", "--events", agent.agent, "100000 1000"], env=mesh.env, stdout=subprocess.PIPE)
    task = None
    while task is None:
        task = json.loads(ask.stdout.readline()).get("artifactUpdate", {}).get("taskId")
    mesh.run("task", "cancel", task).ok()
    out, _ = ask.communicate(timeout=60)
    check(ask.returncode == 1 and b"TASK_STATE_CANCELED" in out, "cancelled", ask.returncode, out[-300:])


def whole(name, server):
    with Mesh(nats=server) as mesh:
        agents = {way: start(mesh, way) for way in WAYS}
        for way in WAYS:
            tap.run(f"{name}: 100,000 text events of an agent attached by {way} arrive complete", flood, mesh, way, 100000, 8)
        for way in ("jsonl", "http"):
            tap.run(f"{name}: a reader that stops holds back the agent ({way}) and loses nothing", reader_stops, mesh, agents[way], way)
        tap.run(f"{name}: cancelled while it was held back", cancelled_while_held, mesh, agents["exec"])
        tap.run(f"{name}: a caller killed while the agent was held back", caller_dies, mesh, agents["jsonl"])


whole("Debian's nats-server", shutil.which("nats-server") or "/usr/sbin/nats-server")
new = os.environ.get("AMESH_TEST_NATS_NEW")
if new:
    with Mesh(nats=new) as mesh:
        agent = start(mesh, "jsonl")
        tap.run("a current nats-server: 100,000 text events arrive complete", flood, mesh, "jsonl", 100000, 8)
        tap.run("a current nats-server: a reader that stops", reader_stops, mesh, agent, "jsonl")
else:
    tap.skip("a current nats-server", "it could not be fetched")
tap.done()
