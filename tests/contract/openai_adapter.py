#!/usr/bin/env python3
"""`amesh run --openai URL`: a model as an agent. Against the scripted model of this project, and against servers that lie, stall, flood, redirect or die. tests/contract/openai_sdk.py shows that the scripted model is
what OpenAI's own clients take for the real thing."""
import json
import os
import socket
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../support"))
from meshtest import AMESH, Mesh, Process, Tap, check, free_port, until  # noqa: E402

tap = Tap()
RULES = r"""
models: [m]
rules:
  - {when: {user: '^stream'}, say: one two three four, pace: 20ms}
  - {when: {user: '^hang'}, say: working for ever and ever and ever, pace: 300ms}
  - {when: {user: '^stall'}, say: half of it, stall: 1}
  - {when: {user: '^think'}, think: let me see, say: done}
  - {when: {user: '^fail'}, fail: {status: 500, message: broken as asked}}
  - {when: {user: '^bad'}, fail: {status: 400, message: too many tokens}}
  - {when: {user: '^secret'}, fail: {status: 401, message: who are you}}
  - {when: {user: '^busy'}, times: 2, fail: {status: 429, message: slow down, retryAfter: 0.1}}
  - {when: {user: '^cut'}, say: one two three, cut: 2}
  - {when: {user: '^long'}, say: and so on, finish: length}
  - {when: {user: '^filter'}, say: ' ', finish: content_filter}
  - {when: {user: '^tool'}, call: {name: rm, arguments: {path: /}}}
  - {when: {user: '^remember (\w+)'}, say: 'you said {{1}}'}
  - {when: {user: '^recall', turn: 2}, say: 'this is turn {{turn}}'}
  - {when: {user: '^recall', turn: 3}, say: 'this is turn {{turn}}'}
  - {when: {user: '^who', system: 'be (\w+)'}, say: 'I am {{1}}'}
  - {say: '{{user}}'}
"""


def text_of(task):
    return "".join(p.get("text", "") for a in task.get("artifacts", []) if a["artifactId"] == "response" for p in a["parts"])


def reason_of(task):
    return "".join(p.get("text", "") for p in task["status"].get("message", {}).get("parts", []))


class World:
    """A mesh, the scripted model, and an agent that is that model."""

    def __init__(self, mesh):
        self.mesh = mesh
        rules, key = os.path.join(mesh.home, "rules.yaml"), os.path.join(mesh.home, "key")
        self.record = os.path.join(mesh.home, "record.jsonl")
        for path, text in ((rules, RULES), (key, "sk-test-key\n")):
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        self.port, self.key = free_port(), key
        self.model = Process([AMESH, "mockllm", "--port", str(self.port), "--key-file", key, "--record", self.record, rules], dict(os.environ), "mockllm")
        mesh.processes.append(self.model)
        self.url = self.model.wait_line("http://").strip()
        self.agent = mesh.agent("model", "--concurrency", "20", "--openai", self.url, "--model", "m", "--key-file", key, "--system", "be brief", "--skill", "chat")

    def ask(self, text, *args, agent="model"):
        return self.mesh.run("ask", "--json", *args, agent, text)

    def last(self):
        with open(self.record, encoding="utf-8") as f:
            return json.loads(f.read().splitlines()[-1])


def echo(world):
    check(world.mesh.run("ask", "model", "Grüße, 世界").ok().out.rstrip("\n") == "Grüße, 世界", "the answer is what the model said")
    check(text_of(world.ask("x").ok().json()) == "x", "also as a document")
    check(world.mesh.run("ask", "model", "who are you?").ok().out.strip() == "I am brief", "it is told its system text")
    check(text_of(world.ask("durable", "--durable").ok().json()) == "durable", "durable tasks, too")


def stream(world):
    events = world.mesh.run("ask", "--events", "model", "stream").ok().lines()
    chunks = [e["artifactUpdate"] for e in events if "artifactUpdate" in e]
    said = "".join(p.get("text", "") for c in chunks for p in c["artifact"]["parts"])
    check(said == "one two three four" and sum(1 for c in chunks if c["artifact"]["parts"]) >= 2, "tokens come as they are said", chunks)
    meta = [e["statusUpdate"].get("metadata", {}) for e in events if "statusUpdate" in e]
    usage = [m["amp/usage"] for m in meta if "amp/usage" in m]
    check(usage and usage[0]["model"] == "m" and usage[0]["inputTokens"] > 0 and usage[0]["outputTokens"] > 0, "and what they cost", meta)
    events = world.mesh.run("ask", "--events", "model", "think").ok().lines()
    check(any("let me see"[:3] in json.dumps(e.get("statusUpdate", {}).get("metadata", {})) for e in events), "thoughts are events of their own", events)


def turns(world):
    first = world.ask("remember plum").ok().json()
    for turn in (2, 3):
        out = world.mesh.run("ask", "--context", first["contextId"], "model", "recall").ok().out.strip()
        check(out == f"this is turn {turn}", "the model is told what was said in the context", out)
    said = [m["content"] for m in world.last()["request"]["messages"]]
    check(said == ["be brief", "remember plum", "you said plum", "recall", "this is turn 2", "recall"], "in its order", said)
    check(world.mesh.run("ask", "model", "recall").ok().out.strip() == "recall", "and nothing of other contexts")


def failures(world):
    for text, status, state, words in (("fail", 1, "FAILED", "broken as asked"), ("bad", 1, "REJECTED", "too many tokens"), ("secret", 5, "FAILED", "who are you"), ("cut", 1, "FAILED", "broke off"),
                                       ("filter", 1, "REJECTED", "content_filter"), ("tool", 1, "FAILED", "called a tool")):
        out = world.ask(text)
        task = out.json()
        check(out.status == status and task["status"]["state"] == "TASK_STATE_" + state, f"{text}: exit status {out.status}, {task['status']}")
        check(any(w in reason_of(task) for w in words.split("|")), f"{text}: the reason is told", reason_of(task))
    long = world.ask("long").ok().json()
    check(text_of(long) == "and so on" and "cut off" in reason_of(long), "an answer that was cut off says so", long)
    check("sk-test-key" not in "".join(world.agent.err) + "".join(world.agent.out), "no key in the log")


def busy(world):
    before = len(open(world.record, encoding="utf-8").read().splitlines())
    check(text_of(world.ask("busy").ok().json()) == "busy", "429 means later, and not failed")
    check(len(open(world.record, encoding="utf-8").read().splitlines()) == before + 3, "it was tried again, so often as it took")


def cancel(world):
    process = world.mesh.spawn("ask", "--events", "model", "hang")
    line = process.wait_line(lambda l: "working" in l and "artifactUpdate" in l)
    world.mesh.run("task", "cancel", json.loads(line)["artifactUpdate"]["taskId"]).ok()
    check(process.wait() == 1 and any("TASK_STATE_CANCELED" in l for l in process.out), "cancelled in mid-token", process.out[-3:])
    check(world.mesh.run("ask", "model", "still here").ok().out.strip() == "still here", "the agent takes the next task")


def many(world):
    asked = [world.mesh.spawn("ask", "--json", "model", f"stream {i}") for i in range(20)]
    check([p.wait() for p in asked] == [0] * 20, "20 tasks at once")
    check(all(text_of(json.loads("".join(p.out))) == "one two three four" for p in asked), "each has its answer")


def stalls(world):
    world.mesh.agent("impatient", "--openai", world.url, "--model", "m", "--key-file", world.key, "--progress-timeout", "1s")
    out = world.ask("stall", agent="impatient")
    check(out.status == 1 and "said nothing" in reason_of(out.json()) and out.json()["status"]["state"] == "TASK_STATE_FAILED", "a server that stalls is given up", out.out, out.err)
    check(world.mesh.run("ask", "impatient", "and now").ok().out.strip() == "and now", "and the slot is free again")


def gone(world):
    world.model.stop()
    world.mesh.processes.remove(world.model)
    out = world.ask("x")
    check(out.status != 0 and "cannot be reached" in reason_of(out.json()), "a server that is away is named", out.out)
    world.model = Process([AMESH, "mockllm", "--port", str(world.port), os.path.join(world.mesh.home, "rules.yaml")], dict(os.environ), "mockllm")
    world.mesh.processes.append(world.model)
    world.model.wait_line("http://")
    check(world.mesh.run("ask", "model", "back").ok().out.strip() == "back", "and found again when it is back")


EVENT = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNK = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n'
HOSTILE = {
    "junk": (b"\x00\xff\x17 this is no HTTP\r\n\r\n", "BAD_ANSWER"),
    "closes": (b"", "BAD_ANSWER"),
    "head": (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 900) for i in range(200)) + b"\r\n", "BAD_ANSWER"),
    "redirects": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/steal\r\nContent-Length: 0\r\n\r\n", "redirects are not followed"),
    "html": (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", "no JSON object"),
    "event": (EVENT + b"data: {\n\n", "no JSON object"),
    "event without end": (EVENT + b"data: " + b"x" * (2 << 20), "longer than|larger than"),
    "no utf-8": (EVENT + CHUNK % b"\xff\xfe", "not UTF-8"),
    "half": (EVENT + CHUNK % b"half", "ended in the middle"),
    "error in it": (EVENT + CHUNK % b"half" + b'data: {"error":{"message":"out of GPUs"}}\n\n', "out of GPUs"),
    "deep": (EVENT + b"data: " + b"[" * 100000 + b"\n\n", "no JSON object"),
    "odd shapes": (EVENT + b'data: {"choices":7}\n\ndata: {"choices":[7]}\n\ndata: {"choices":[{"delta":[],"finish_reason":{}}],"usage":"x"}\n\ndata: [DONE]\n\n', None),
    "without end": (EVENT + (CHUNK % (b"x" * 60000)) * 200, "longer than|larger than|too large|over"),
    "comments": (EVENT.replace(b"\r\n\r\n", b"\r\n\r\n\xef\xbb\xbf") + b": ping\r\n\r\nretry: 1\r\nid: 7\r\ndata:" + (CHUNK % b"fine")[6:].rstrip() + b"\r\n\r\ndata: [DONE]\r\n\r\n", None),
}


class Hostile(threading.Thread):
    """Answers each request with the same bytes, and closes."""

    def __init__(self, answer):
        super().__init__(daemon=True)
        self.answer, self.socket = answer, socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass


def hostile(mesh):
    for i, (name, (answer, words)) in enumerate(HOSTILE.items()):
        server, agent = Hostile(answer), f"hostile-{i}"
        sidecar = mesh.agent(agent, "--openai", f"http://127.0.0.1:{server.port}", "--model", "m")
        out = mesh.run("ask", "--json", agent, "x")
        task = out.json()
        if words:
            said = out.out + out.err
            check(out.status != 0 and task["status"]["state"] in ("TASK_STATE_FAILED", "TASK_STATE_REJECTED"), f"{name}: refused", out.out, out.err)
            check(any(w.lower() in said.lower() for w in words.split("|")), f"{name}: says {words}", said)
        else:
            check(out.status == 0, f"{name}: taken", out.out, out.err)
        check(sidecar.child.poll() is None, f"{name}: the sidecar lives")
        server.socket.close()


def usage(mesh):
    for args, words in ((["--openai", "127.0.0.1:80", "--model", "m"], "base URL"), (["--openai", "http://x"], "which model"), (["--openai", "http://x", "--model", "m", "--", "cat"], "no command"),
                        (["--openai", "http://x", "--model", "m", "--key-file", "/nope"], "/nope")):
        out = mesh.run("run", *args)
        check(out.status in (2, 4) and words in out.err, f"{args}: {words}", out.status, out.err)


with Mesh() as home:
    it = World(home)
    for claim, function in (("what the model says is the answer", echo), ("its tokens, thoughts and usage come as events", stream), ("it is told what was said in the context before", turns),
                            ("what it refuses, and how it fails, is told", failures), ("429 is load, and no failure", busy), ("a task is cancelled in mid-token", cancel), ("20 tasks at once", many),
                            ("a server that stalls is given up", stalls), ("a server that is away is named, and found again", gone)):
        tap.run(claim, function, it)
    tap.run("servers that lie, flood, redirect or break off are a named error, and cost no slot", hostile, home)
    tap.run("wrong use is told", usage, home)
tap.done()
