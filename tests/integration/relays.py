#!/usr/bin/env python3
"""Readers at a sidecar's own socket that do not read: an agent that hands another one's stream on, curl with SSE or text, a program on JSON lines. Whoever writes is held back, nothing is lost, and no other stream waits (amp.md 6.2.3)."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from meshtest import AMESH, Mesh, Tap, check, until  # noqa: E402

PY = sys.executable
tap = Tap()
N, SIZE = 100000, 130  # as events far more than may wait anywhere; as text less than the answer of a send may have

# Writes lines as fast as it may; $PROGRESS-<task's name> gets their number.
FLOOD = """
import json, os, sys
for line in sys.stdin:
    f = json.loads(line)
    if f.get('method') != 'task.run':
        continue
    name, n, size = f['params']['text'].split()
    note = os.open(os.environ['PROGRESS'] + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for i in range(int(n)):
        if i % 100 == 0:
            os.pwrite(note, b'%12d' % i, 0)
        sys.stdout.write(json.dumps({'method': 'task.event', 'params': {'taskId': f['params']['taskId'], 'event': {'type': 'text', 'text': '%0*d\\n' % (int(size), i)}}}) + '\\n')
    print(json.dumps({'id': f['id'], 'result': None}), flush=True)
"""
# Asks the flood and hands on what comes, event by event, on one connection and one thread.
RELAY = """
import json, os, socket, sys
if os.environ['MODE'] == 'dial':
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ['AMESH_SOCK'])
    read, write = s.makefile('r'), s.makefile('w')
    write.write('{"id":1,"method":"hello","params":{"proto":1}}\\n')
    write.flush()
else:
    read, write = sys.stdin, sys.stdout
def say(**frame):
    write.write(json.dumps(frame) + '\\n')
    write.flush()
for line in read:
    f = json.loads(line)
    if f.get('method') == 'task.run':
        run = f
        say(id=7, method='send', params={'to': 'flood', 'text': f['params']['text'], 'stream': True, 'taskId': f['params']['taskId'], **json.loads(os.environ['HOW'])})
    elif f.get('method') == 'send.event':
        for part in f['params']['event'].get('artifactUpdate', {}).get('artifact', {}).get('parts', []):
            say(method='task.event', params={'taskId': run['params']['taskId'], 'event': {'type': 'text', 'text': part['text']}})
    elif f.get('id') == 7:
        say(id=run['id'], result=None if 'result' in f else {'state': 'failed', 'message': f['error']['message']})
"""


def whole(n=N, size=SIZE):
    return "".join(f"{i:0{size}d}\n" for i in range(n))


class Flood:
    """One task of the flood: how many lines it has written."""
    n_made = 0

    def __init__(self, mesh):
        Flood.n_made += 1
        self.name, self.mesh = f"t{Flood.n_made}", mesh
        self.text = f"{self.name} {N} {SIZE}"

    def written(self):
        try:
            with open(self.mesh.progress + self.name, encoding="ascii") as f:
                return int(f.read() or 0)
        except FileNotFoundError:
            return 0

    def stands_still(self):
        """While who reads it does not read: no line more for longer than anybody waits for who stands still."""
        seen = []

        def is_still():
            seen.append(self.written())
            return len(seen) > 60 and 0 < seen[-1] == seen[-60]  # 3 s

        until(is_still, "who writes is held back")
        check(self.written() * SIZE < 8 << 20, "after some MiB", self.written())

    def has_written(self):
        """Of a durable task, which the environment keeps: nobody who reads holds it back."""
        until(lambda: self.written() >= N - 100, "all is written")


def start(mesh):
    mesh.progress = mesh.path("progress-")
    for _ in range(4):
        mesh.agent("flood", "--mode", "jsonl", "--", PY, "-c", FLOOD, env={"PROGRESS": mesh.progress})


def dial(path, small=True):
    s = socket.socket(socket.AF_UNIX)
    if small:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(path)
    s.settimeout(120)
    return s


def http(path, flood, accept, more=""):
    s = dial(path)
    body = flood.text.encode()
    s.sendall(f"POST /v1/send/flood{more} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return s


def read_http(s):
    """→ the body, without its chunks"""
    with s.makefile("rb") as f:
        status = f.readline()
        check(b" 200 " in status, "it is answered", status)
        while f.readline().strip():
            pass
        pieces = []
        while True:
            line = f.readline()
            check(line, "the answer ends with its last chunk", len(pieces))
            size = int(line, 16)
            pieces.append(f.read(size))
            f.readline()
            if size == 0:
                return b"".join(pieces).decode()


def text_of(events):
    return "".join(part.get("text", "") for e in events if "artifactUpdate" in e for part in e["artifactUpdate"]["artifact"]["parts"])


def read_sse(s):
    body = read_http(s)
    numbers = [int(n) for n in re.findall(r"^id: (\d+)$", body, re.M)]
    check("event: end\n" in body, "a good end", body[-300:])
    return numbers, text_of(json.loads(line) for line in re.findall(r"^data: (\{.*)$", body, re.M))


def by_sse(mesh, path, more=""):
    flood = Flood(mesh)
    s = http(path, flood, "text/event-stream", more)
    flood.has_written() if more else flood.stands_still()
    numbers, text = read_sse(s)
    check(numbers == list(range(1, len(numbers) + 1)), "each number once, in order", numbers[:5], numbers[-5:])
    check(text == whole(), "all of it", len(text))


def by_text(mesh, path):
    flood = Flood(mesh)
    s = http(path, flood, "text/plain")
    flood.stands_still()
    check(read_http(s) == whole(), "all of it")


def ask_lines(s, number, flood, **more):
    s.sendall((json.dumps({"id": number, "method": "send", "params": {"to": "flood", "text": flood.text, "stream": True, **more}}) + "\n").encode())


def by_lines(mesh, path, **more):
    """Three streams to one connection that does not read; another connection of the same sidecar has its own meanwhile."""
    floods = [Flood(mesh) for _ in range(3)]
    s = dial(path)
    for i, flood in enumerate(floods):
        ask_lines(s, i, flood, **more)
    for flood in floods:
        flood.has_written() if more else flood.stands_still()
    other = Flood(mesh)
    with dial(path, small=False) as beside:
        ask_lines(beside, 9, other)
        check(lines(beside, {9})[9] == whole(), "a stream beside them has all of its own")
    got = lines(s, {0, 1, 2})
    check(all(text == whole() for text in got.values()), "all of it", [len(text) for text in got.values()])


def lines(s, wanted):
    """→ {number: text} of the sends of these numbers"""
    texts, last, open_ones = {n: [] for n in wanted}, {n: 0 for n in wanted}, set(wanted)
    with s.makefile("rb") as f:
        while open_ones:
            line = f.readline()
            check(line, "the connection stands", {n: last[n] for n in open_ones})
            frame = json.loads(line)
            if frame.get("method") == "send.event":
                p = frame["params"]
                check(p["seq"] == last[p["id"]] + 1, "each number once, in order", p["id"], p["seq"], last[p["id"]])
                last[p["id"]] = p["seq"]
                texts[p["id"]].append(text_of([p["event"]]))
            elif frame.get("id") in open_ones:
                check("result" in frame, "it ends well", line[:600])
                open_ones.discard(frame["id"])
    return {n: "".join(t) for n, t in texts.items()}


def relayed(mesh, name, mode, how):
    """The reader at the end of a chain stops: all of it stands, and the agent in the middle lives."""
    mesh.agent(name, "--mode", mode, "--", PY, "-c", RELAY, env={"MODE": mode, "HOW": json.dumps(how)})
    flood = Flood(mesh)
    ask = subprocess.Popen([AMESH, "ask", name, flood.text], env=mesh.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    flood.has_written() if how else flood.stands_still()
    out, err = ask.communicate(timeout=120)
    check(ask.returncode == 0 and out.decode() == whole(), "all of it", ask.returncode, len(out), err[-800:])


def goes_on(mesh, path):
    """curl that was cut off says what it has, under the same key: the rest comes, once; nothing is done twice."""
    flood = Flood(mesh)
    s = http(path, flood, "text/event-stream", "?durable=1&key=once")
    with s.makefile("rb") as f:
        while f.readline().strip() != b"id: 20":
            pass
    s.close()
    numbers, text = read_sse(http(path, flood, "text/event-stream\r\nLast-Event-ID: 20", "?durable=1&key=once"))
    check(numbers == list(range(21, 21 + len(numbers))), "from the next one on", numbers[:5], numbers[-5:])
    check(text and whole().endswith(text), "all the rest of it", len(text))
    with dial(path, small=False) as beside:
        ask_lines(beside, 1, flood, durable=True, key="once", fromSeq=numbers[-1] - 1)
        last, seen = None, []
        with beside.makefile("rb") as f:
            while last is None:
                frame = json.loads(f.readline())
                seen += [frame["params"]["seq"]] if frame.get("method") == "send.event" else []
                last = frame if frame.get("id") == 1 else None
        check(seen == numbers[-2:] and text_of([{"artifactUpdate": {"artifact": a}} for a in last["result"]["artifacts"]]) == whole(), "JSON lines, too, and the whole as the result", seen, numbers[-3:])
        for more, what in (({"fromSeq": 2}, "fromSeq"), ({"fromSeq": 2, "durable": True}, "fromSeq"), ({"fromSeq": -1, "durable": True, "key": "k"}, "fromSeq")):
            ask_lines(beside, 2, flood, **more)
            answer = json.loads(beside.makefile("rb").readline())
            check("AMESH-1001" == answer["error"]["data"]["code"] and what in answer["error"]["message"], "only what can be gone on with", more, answer)
    for header in ("x", "-1", "99999999999"):
        with http(path, flood, f"text/event-stream\r\nLast-Event-ID: {header}", "?durable=1&key=once") as s, s.makefile("rb") as f:
            check(b" 400 " in f.readline(), "a number", header)
    check(len(mesh.run("task", "ls", "--agent", "flood", "--limit", "500", "--json").ok().json()["tasks"]) == Flood.n_made, "nothing was done twice")


def asker_is_killed(mesh):
    """Who reads, and does not, is killed: the one in the middle knows that he has gone, and everything above him is cancelled."""
    flood = Flood(mesh)
    ask = subprocess.Popen([AMESH, "ask", "relay-dial", flood.text], env=mesh.env, stdout=subprocess.PIPE)
    flood.stands_still()
    ask.kill()
    ask.wait()
    for agent in ("relay-dial", "flood"):
        until(lambda a=agent: all(i["free"] == i["slots"] for i in mesh.run("show", a, "--json").ok().json()["instances"]), agent + " is free again")
    tasks = {t["agent"]: t for t in (mesh.run("explain", t["id"], "--json").ok().json() for t in mesh.run("task", "ls", "--limit", "2", "--json").ok().json()["tasks"])}
    check(tasks["relay-dial"]["state"] == "canceled" and tasks["flood"]["state"] == "canceled", "both are cancelled", tasks)


def all_of(name, server):
    with Mesh(nats=server) as mesh:
        start(mesh)
        path = mesh.path("own.sock")
        mesh.agent("own", "--sock", path, "--", "true")
        for what, more in (("a direct task", ""), ("a durable one", "?durable=1")):
            tap.run(f"{name}: curl that does not read an SSE stream of {what}", by_sse, mesh, path, more)
        tap.run(f"{name}: curl that does not read a text", by_text, mesh, path)
        for what, more in (("direct", {}), ("durable", {"durable": True})):
            tap.run(f"{name}: JSON lines that are not read, three {what} streams, and one beside them", lambda m=more: by_lines(mesh, path, **m))
        tap.run(f"{name}: an SSE stream that was cut off goes on from a number", goes_on, mesh, path)
        for mode in ("dial", "jsonl"):
            tap.run(f"{name}: an agent ({mode}) that hands on a direct stream to who does not read", relayed, mesh, "relay-" + mode, mode, {})
        tap.run(f"{name}: who asked is killed while all are held back", asker_is_killed, mesh)
        tap.run(f"{name}: a durable stream", relayed, mesh, "relay-durable", "dial", {"durable": True})


all_of("Debian's nats-server", shutil.which("nats-server") or "/usr/sbin/nats-server")
tap.done()
