#!/usr/bin/env python3
"""The in-process shims against the far end of a socketpair: what local-api.md 2-4 asks of an agent, by real interpreters, without a mesh. The far end
checks each line that comes (length, JSON, known members) as a sidecar does. AMESH_TEST_PYTHONS: more interpreters, separated by colons."""
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../support"))
from meshtest import TOP, Failed, Process, Tap, check  # noqa: E402

AGENTS, LINE_MAX, WAIT = os.path.join(TOP, "tests/contract/agents"), 1 << 20, 20
PY_SHIM, JS_SHIM = os.path.join(TOP, "adapters/python/amesh_shim.py"), os.path.join(TOP, "adapters/js/amesh_shim.mjs")
tap, home = Tap(), tempfile.mkdtemp(prefix="amt-")


def strict(pairs):
    check(len({k for k, _ in pairs}) == len(pairs), "no key stands twice", pairs)
    return dict(pairs)


class Far:
    """The sidecar's end. `with Far(target) as far: far.run("text")` → (events, result or None, error or None)."""

    def __init__(self, target, python=sys.executable, slots=4, env=None, dial=False, greets=True):
        self.greets, self.kv, self.tasks, self.n, self.hello, self.closed = greets, {}, {}, 0, None, threading.Event()
        self.came, self.lock, self.asked = threading.Condition(), threading.Lock(), []
        is_js = ".mjs" in target or ".cjs" in target or ".js" in target
        shim = JS_SHIM if is_js else PY_SHIM
        env = {**{k: v for k, v in os.environ.items() if not k.startswith("AMESH_")}, "AMESH_CONCURRENCY": str(slots), "AMESH_AGENT": "far",
               "PYTHONPATH": os.path.dirname(PY_SHIM), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        argv = ["node" if is_js else python, shim, target]
        if dial:
            path = os.path.join(home, f"far-{len(os.listdir(home))}.sock")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                listener.listen()
                self.process = Process(argv, {**env, "AMESH_SOCK": path}, target)
                listener.settimeout(WAIT)
                self.sock = listener.accept()[0]
        else:
            self.sock, theirs = socket.socketpair()
            with theirs:
                self.process = Process(["/bin/sh", "-c", 'exec 9<&0 </dev/null "$@"', "sh", *argv], {**env, "AMESH_FD": "9"}, target, stdin=theirs)
        threading.Thread(target=self.read, daemon=True).start()

    def __enter__(self):
        self.until(lambda: self.hello, "hello")
        return self

    def __exit__(self, *exc):
        self.sock.close()
        self.process.stop()

    def until(self, probe, what):
        with self.came:
            if not self.came.wait_for(lambda: probe() or self.closed.is_set(), WAIT) or not probe():
                raise Failed(f"{what} did not come within {WAIT} s; closed {self.closed.is_set()}, stderr {self.process.err[-12:]}")
        return probe()

    def write(self, **frame):
        with self.lock:
            self.sock.sendall(json.dumps({"jsonrpc": "2.0", **frame}, ensure_ascii=False).encode() + b"\n")

    def read(self):
        try:
            for line in self.sock.makefile("rb"):
                check(len(line) <= LINE_MAX, "a line has at most 1 MiB", len(line))
                frame = json.loads(line.decode("utf-8"), object_pairs_hook=strict, parse_constant=lambda c: check(False, f"{c} is no JSON"))
                with self.came:
                    self.take(frame, frame.get("params") or {})
                    self.came.notify_all()
        except (OSError, Failed, ValueError) as e:
            self.process.err.append(f"far end: {e!r}")
        with self.came:
            self.closed.set()
            self.came.notify_all()

    def take(self, frame, p):
        method, number = frame.get("method"), frame.get("id")
        if method == "hello":
            self.hello = p
            if self.greets is not True:
                return self.greets(self)
            self.write(id=number, result={"proto": 1, "agent": "far", "instance": "i1", "version": "1", "slots": 4})
        elif method == "task.event":
            check(p["taskId"] in self.tasks and "reply" not in self.tasks[p["taskId"]], "events belong to a task in hand", p)
            self.tasks[p["taskId"]]["events"] += p.get("events") or [p["event"]]
        elif isinstance(number, str):
            self.kv["reply", number] = frame
        elif method is None:
            task = next(t for t in self.tasks.values() if t["id"] == number)
            check("reply" not in task and ("result" in frame) != ("error" in frame), "one reply per task, a result or an error", frame)
            task["reply"] = frame
        else:
            self.asked.append((method, p))
            self.answer(method, number, p)

    def answer(self, method, number, p):
        if method == "task.ask" and p["prompt"] == "expire":
            self.write(id=number, error={"code": -32000, "message": "the question was not answered in time", "data": {"code": "AMESH-3015", "name": "expired"}})
        elif method == "task.ask" and p["prompt"] != "for ever":
            self.write(id=number, result={"text": "blue", "message": {}})
        elif method == "kv.put":
            self.kv[p["scope"], p["key"]] = p["value"]
            self.write(id=number, result={"key": p["key"], "value": p["value"], "version": 7})
        elif method == "kv.get" and (p["scope"], p["key"]) in self.kv:
            self.write(id=number, result={"key": p["key"], "value": self.kv[p["scope"], p["key"]], "version": 7})
        elif method == "kv.list":
            self.write(id=number, result={"entries": [{"key": k[1], "value": v, "version": 7} for k, v in self.kv.items()]})
        elif method in ("kv.get", "kv.del"):
            self.write(id=number, error={"code": -32000, "message": "there is no such key", "data": {"code": "AMESH-2004", "name": "not_found"}})
        elif method == "send" and p.get("to") == "good":
            self.write(id=number, result={"id": "t9", "status": {"state": "TASK_STATE_COMPLETED"}, "artifacts": [{"artifactId": "response", "parts": [{"text": "sub "}, {"text": p["text"]}]}]})
        elif method == "send" and p.get("to") == "bad":
            self.write(id=number, result={"id": "t9", "status": {"state": "TASK_STATE_FAILED", "message": {"parts": [{"text": "no luck"}]}},
                                          "metadata": {"amp/error": {"code": 3004, "name": "agent_died", "hint": "try again"}}})
        elif method == "send" and p.get("to") == "deep":
            self.write(id=number, result={"id": "t9", "status": {"state": "TASK_STATE_FAILED", "message": {"parts": [{"text": "TaskFailed: RangeError: k"}]}}})
        elif method == "send" and p.get("to") == "failing":
            self.write(id=number, result={"id": "t9", "status": {"state": "TASK_STATE_REJECTED", "message": {"parts": [{"text": "not mine"}]}}})
        elif method == "send":
            self.write(id=number, error={"code": -32000, "message": "no such agent", "data": {"code": "AMESH-2001", "name": "no_such_agent", "hint": "amesh ls"}})

    def start(self, text, **params):
        self.n += 1
        name = f"t{self.n}"
        with self.came:
            self.tasks[name] = {"id": 1000 + self.n, "events": []}
        self.write(id=1000 + self.n, method="task.run", params={"taskId": name, "contextId": "c1", "text": text, "message": {"parts": [{"text": text}]}, "attempt": 1, "from": "me", **params})
        return name

    def finish(self, name):
        self.until(lambda: "reply" in self.tasks[name], f"the reply of {name}")
        task = self.tasks[name]
        return task["events"], task["reply"].get("result"), task["reply"].get("error")

    def run(self, text, **params):
        return self.finish(self.start(text, **params))

    def event(self, name, test, what):
        return self.until(lambda: next((e for e in self.tasks[name]["events"] if test(e)), None), what)


def said(events, result):
    streamed = "".join(e["text"] for e in events if e["type"] == "text")
    final = result if isinstance(result, str) else (result or {}).get("text", "")
    return streamed or final


def file(name, code):
    path = os.path.join(home, name)
    with open(path, "w", encoding="utf-8") as out:
        out.write(code)
    return path


# ---- the eight behaviours

def eight(target, python):
    with Far(target, python) as far:
        check(far.hello["proto"] == 1 and far.hello["role"] == "worker" and far.hello["concurrency"] == 4 and far.hello["framework"], "hello says what it is", far.hello)
        check(said(*far.run("echo Grüße, 世界")[:2]) == "Grüße, 世界", "echo")
        events, result, _ = far.run("stream")
        check([e["text"] for e in events] == ["one ", "two ", "three ", "four"] and result is None, "four pieces, no repetition", events, result)
        events, result, _ = far.run("tool")
        call, answer = [e for e in events if e["type"].startswith("tool")]
        check(call["type"] == "tool_call" and call["name"] == "add" and call["args"] == {"a": 1, "b": 2}, "the call", call)
        check(answer["output"] == 3 and answer["callId"] == call["callId"] and not answer.get("isError"), "its result", answer)
        check(said(events, result) == "sum 3", "the answer", events, result)
        check(said(*far.run("remember plum")[:2]) == "noted" and said(*far.run("recall")[:2]) == "you said plum", "memory")
        check(all(p["taskId"] for m, p in far.asked if m.startswith("kv")), "the context is that of the task", far.asked)
        check(said(*far.run("ask")[:2]) == "painted blue" and ("task.ask", "Which colour?") in [(m, p.get("prompt")) for m, p in far.asked], "the question", far.asked)
        name = far.start("hang")
        far.event(name, lambda e: e.get("text") == "working", "working")
        far.write(method="task.cancel", params={"taskId": name})
        check(far.finish(name)[2]["code"] == -32800, "cancelled", far.finish(name))
        check(said(*far.run("echo next")[:2]) == "next", "and goes on")
        error = far.run("fail")[2]
        check("broken as asked" in error["message"] and "Error: " in error["message"], "the reason", error)
        events, result, _ = far.run("artifact")
        made = [e for e in events if e["type"] == "artifact"]
        check(len(made) == 1 and made[0]["name"] == "report" and made[0]["text"] == "forty-two" and made[0]["filename"] == "report.txt", "the artifact", events)
        check(said(events, result) == "made", "and the answer", events, result)
        check(said(*far.run("sing")[:2]) == "what is sing?", "anything else", far.tasks)


# ---- what else a user may do, in both languages

PY = '''
import amesh, asyncio, dataclasses, gc, os, subprocess, sys, threading
barrier = threading.Barrier(20)
arrived, go = 0, None

@dataclasses.dataclass
class Point:
    x: int

def agent(text, task):
    if text == "barrier": barrier.wait(20); return "together"
    if text == "tasks": gc.collect(); return str(sum(isinstance(o, amesh.Task) for o in gc.get_objects()))
    if text == "long": return "ab\\x01é😀" * 200000
    if text == "long stream": task.emit("ab\\x01é😀" * 200000); return "ignored"
    if text == "long dict": return {"text": "x" * 1000000, "data": {"n": 1}}
    if text == "long artifact": task.artifact("a", "é" * 1000000); return None
    if text == "too long": return {"data": "x" * 2000000}
    if text.startswith("size "): return str(len(text))
    if text == "none": return None
    if text == "outcome": return {"state": "rejected", "message": "not my trade"}
    if text == "json": return [1, {"a": None}]
    if text == "dict": return {"text": "hi", "score": 3}
    if text == "point": return {"data": Point(3)}
    if text == "nan": return float("nan")
    if text == "half": return "a\\ud800b"
    if text == "busy": raise amesh.Busy("rate limit", after_ms=800)
    if text == "busy so":
        error = OSError("429"); error.amesh_busy = True
        raise error
    if text == "stop": raise StopIteration("odd")
    if text == "exit": sys.exit("bye")
    if text == "event": task.emit({"type": "nonsense"})
    if text == "artifacts":
        task.artifact("b", bytes=b"\\x00\\xff", filename="b.bin"); task.artifact("p", path=__file__); task.artifact("d", data={"k": [1]}); return
    if text == "kv": return {"data": [task.kv_get("none"), task.kv_get("none", 5, scope="shared"), task.kv_put("k", None), task.kv_get("k", 1), task.kv_delete("zz"), task.kv_list()]}
    if text == "send":
        r = task.send("good", "x")
        return {"data": [r, r.text, r.task["id"]]}
    if text == "let deep": return task.send("deep", "x")
    if text == "let bad": return task.send("bad", "x")
    if text == "let expire": return task.ask("expire")
    if text in ("send bad", "send none", "send failing"):
        try: task.send(text[5:], "x")
        except amesh.TaskFailed as e: return {"data": [str(e), e.code, e.name, e.hint]}
    if text == "tool error":
        try:
            with task.tool("t", name="n"): raise KeyError("k")
        except KeyError: pass
        with task.step("s"): task.status("going"); task.log("info", "x")
        return "on"
    if text == "ask for ever":
        try: task.ask("for ever")
        finally: task.status("cleaned up")
    if text == "poll":
        task.emit("polling")
        try:
            while True: task.status("x")
        except Exception: return "swallowed"
    if text == "about": return {"data": [task.id, task.context, task.text, task.message["parts"][0]["text"], task.attempt, task.sender, task.skill, task.parent, task.resume and task.resume["text"]]}
    if text == "current":
        same = amesh.current() is task
        async def inner(): return amesh.current() is task and await task.kv_put("k", 1) == 7
        return {"data": [same, asyncio.run(inner()), task.canceled]}
    if text == "print": print("a line of its own"); return "printed"
    if text == "env": return {"data": [os.environ.get("AMESH_FD"), subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True).stdout.count("socket:")]}

async def coroutine(text, task):
    global arrived, go
    if text == "barrier":
        go = go or asyncio.Event(); arrived += 1
        if arrived == 20: go.set()
        await go.wait(); return "together"
    if text == "current": return {"data": [amesh.current() is task, await asyncio.to_thread(lambda: amesh.current() is task and task.kv_put("k", 1) == 7)]}
    if text == "clean":
        task.emit("working")
        try: await asyncio.sleep(3600)
        finally:
            task.status("cleaned up"); await task.kv_put("cleaned", True)
    if text == "late": return (c for c in ("in ", "a ", "thread"))
    if text == "send none":
        try: await task.send(None, "x", skill="s")
        except amesh.TaskFailed as e: return {"data": [e.code, e.hint]}
    if text == "crash": await asyncio.wait_for(asyncio.sleep(9), 0.01)

def values():
    yield 1
def generator(text, task: amesh.Task):
    yield "a"; yield None; yield {"k": 1}; yield [2]; yield {"type": "status", "text": "s"}
    if text == "hang":
        try:
            while True: yield {"type": "status", "text": "x"}
        finally: task.status("closed")
    return {"data": "end"}

def one(t): return t.upper()
def annotated(thing: amesh.Task): return thing.text.upper()
def turned(thing: "amesh.Task", t): return t.upper() + thing.id[:1]
def optional(t, temperature=0.5, task=None): return t.upper() + str(temperature) + task.id[:1]
def keyword(t, *, task): return t.upper() + task.id[:1]
upper = str.upper
lam = lambda t, k: t.upper() + k.id[:1]
class Callable:
    def __init__(self): self.n = 0
    async def __call__(self, t): self.n += 1; return t.upper() + str(self.n)
class Runner:
    def run(self, t): return t.upper()
    def other(self, t): return "other " + t
runner = Runner()
def three(a, b, c): pass
def nothing(): pass
number = 5
'''

JS = '''
import { execFileSync } from "node:child_process";
let arrived = 0, go; const all = new Promise((r) => { go = r; });
export async function agent(text, task) {
  if (text === "barrier") { if (++arrived === 20) go(); await all; return "together"; }
  if (text === "long") return "ab\\x01é😀".repeat(200000);
  if (text === "long stream") { await task.emit("ab\\x01é😀".repeat(200000)); return "ignored"; }
  if (text === "long dict") return { text: "x".repeat(1000000), data: { n: 1 } };
  if (text === "long artifact") { task.artifact("a", { text: "é".repeat(1000000) }); return; }
  if (text === "too long") return { data: "x".repeat(2000000) };
  if (text.startsWith("size ")) return String([...text].length);
  if (text === "none") return;
  if (text === "outcome") return { state: "rejected", message: "not my trade" };
  if (text === "busy") throw task.busy("rate limit", 800);
  if (text === "busy so") throw Object.assign(new Error("429"), { busy: true });
  if (text === "json") return [1, { a: null }];
  if (text === "dict") return { text: "hi", score: 3 };
  if (text === "half") return "a\\ud800b";
  if (text === "event") task.emit({ type: "nonsense" });
  if (text === "artifacts") {
    task.artifact("b", { bytes: new Uint8Array([0, 255]), filename: "b.bin" }); task.artifact("p", { path: new URL(import.meta.url).pathname }); task.artifact("d", { data: { k: [1] } }); return;
  }
  if (text === "kv") return { data: [await task.kv.get("none") ?? null, await task.kv.get("none", "shared") ?? 5, await task.kv.put("k", null), await task.kv.get("k"), await task.kv.delete("zz") ?? null, await task.kv.list()] };
  if (text === "send") { const r = await task.send("good", "x"); return { data: [String(r), r.text, r.task.id] }; }
  if (text === "let deep" || text === "let bad") return await task.send(text.slice(4), "x");
  if (text === "let expire") return await task.ask("expire");
  if (["send bad", "send none", "send failing"].includes(text)) try { await task.send(text.slice(5), "x"); } catch (e) { return { data: [e.message, e.code, e.reason, e.hint] }; }
  if (text === "tool error") {
    await task.tool("t", { name: "n" }, () => { throw new RangeError("k"); }).catch(() => {});
    await task.step("s", () => { task.status("going"); task.log("info", "x"); });
    return "on";
  }
  if (text === "ask for ever") try { await task.ask("for ever"); } finally { task.status("cleaned up"); }
  if (text === "deaf") { task.emit("working"); await new Promise(() => {}); }
  if (text === "about") return { data: [task.id, task.context, task.text, task.message.parts[0].text, task.attempt, task.sender, task.skill ?? null, task.parent ?? null, task.resume?.text ?? null] };
  if (text === "print") { console.log("a line of its own"); return "printed"; }
  if (text === "env") return { data: [process.env.AMESH_FD ?? null, execFileSync("ls", ["-l", "/proc/self/fd"], { stdio: ["ignore", "pipe", "ignore"] }).toString().split("\\n").filter((l) => / [3-9]\\d* -> socket:/.test(l)).length] };
  if (text === "reject") { Promise.reject(new Error("nobody caught me")); await new Promise(() => {}); }
}
export function* generator(text, task) {
  yield "a"; yield null; yield { k: 1 }; yield [2]; yield { type: "status", text: "s" };
  if (text === "hang") try { for (;;) yield { type: "status", text: "x" }; } finally { task.status("closed"); }
  return { data: "end" };
}
export const one = (t) => t.toUpperCase();
export class Runner { run(t) { return t.toUpperCase(); } }
export const box = { upper: one };
export const stream = (t) => new ReadableStream({ start(c) { c.enqueue(t); c.enqueue("!"); c.close(); } });
export const number = 5;
export default one;
'''


def together(target, slots=20):
    with Far(target, slots=slots) as far:
        names = [far.start("barrier") for _ in range(20)]
        check([far.finish(n)[1] for n in names] == ["together"] * 20, "20 tasks at once")


def long_texts(target):
    with Far(target) as far:
        for text in ("long", "long stream"):
            events, result, error = far.run(text)
            check(said(events, result) == "ab\x01é😀" * 200000 and len(events) > 1, f"{text}: nothing is lost", len(said(events, result)), error)
        events, result, _ = far.run("long dict")
        check(said(events, None) == "x" * 1000000 and result["data"] == {"n": 1}, "the text of an outcome too", result)
        events = far.run("long artifact")[0]
        check("".join(e["text"] for e in events) == "é" * 1000000 and [e["append"] for e in events] == [False] + [True] * (len(events) - 1), "an artifact's text is appended")
        check([e["last"] for e in events] == [False] * (len(events) - 1) + [True], "and its last piece says so")
        error = far.run("too long")[2]
        check("1048576" in error["message"], "what cannot be split is refused with the limit", error)
        check(far.run("size " + "é\u2028" * 1000000)[1] == "2000005", "a task may be larger than a line")
        check(said(*far.run("half")[:2]) in ("a?b", "a\ufffdb"), "half a character is replaced")


def outcomes(target):
    with Far(target) as far:
        check(far.run("none")[1:] == (None, None), "None: what was streamed")
        check(far.run("busy")[1:] == ({"state": "busy", "message": "rate limit", "retryAfterMs": 800}, None), "an agent that can take nothing now says so", far.run("busy"))
        check(far.run("busy so")[1:] == ({"state": "busy", "message": "429"}, None), "with an error of its own, too", far.run("busy so"))
        check(not any("rate limit" in line for line in far.process.err), "which is nothing to write on stderr", far.process.err)
        check(far.run("outcome")[1] == {"state": "rejected", "message": "not my trade"}, "an outcome")
        check(far.run("json")[1] == {"data": [1, {"a": None}]}, "other JSON is data")
        check(far.run("dict")[1] == {"data": {"text": "hi", "score": 3}}, "an object with other members is data, whole")
        check("nonsense" in far.run("event")[2]["message"], "an unknown event is an error where it is made")
        events = far.run("artifacts")[0]
        check(base64.b64decode(events[0]["parts"][0]["raw"]) == b"\x00\xff" and events[0]["parts"][0]["filename"] == "b.bin", "bytes", events[0])
        check(b"barrier" in base64.b64decode(events[1]["parts"][0]["raw"]) and events[1]["parts"][0]["filename"].startswith("extra."), "a file", events[1]["name"])
        check(events[2]["data"] == {"k": [1]}, "data", events[2])
        check(far.run("kv")[1]["data"] == [None, 5, 7, None, None, [{"key": "k", "value": None, "version": 7}]], "memory", far.tasks)
        check(far.run("send")[1]["data"] == ["sub x", "sub x", "t9"], "send", far.asked)
        check(far.run("send bad")[1]["data"][1:] == ["AMESH-3004", "agent_died", "try again"] and "no luck" in far.tasks[f"t{far.n}"]["reply"]["result"]["data"][0], "a task that failed")
        check(far.run("send none")[1]["data"][1:] == ["AMESH-2001", "no_such_agent", "amesh ls"], "a task that could not be sent")
        check(far.run("send failing")[1]["data"] == ["not mine", "AMESH-3002", "rejected", None], "a task that was rejected in good order")
        whys = [far.run(f"let {what}")[2]["message"] for what in ("bad", "deep", "expire")]
        check(whys[0].startswith("TaskFailed: no luck") and whys[1:] == ["TaskFailed: RangeError: k", "the question was not answered in time"], "an error of the mesh that nobody catches is a reason that stutters not", whys)
        events = far.run("tool error")[0]
        check([e["type"] for e in events] == ["tool_call", "tool_result", "step", "status", "log", "step"] and events[0]["args"] == {"name": "n"}, "a tool and a step", events)
        check(events[1]["isError"] is True and events[5]["phase"] == "end", "an exception in a tool is its result", events)
        about = far.run("about", skill="paint", parent="p1", resume={"text": "yes", "message": {}})[1]["data"]
        check(about == [f"t{far.n}", "c1", "about", "about", 1, "me", "paint", "p1", "yes"], "what a task knows of itself", about)
        check(far.run("print")[1] == "printed", "stdout is the agent's own")
        far.process.wait_line("a line of its own")
        check(far.run("env")[1]["data"][0] is None and far.run("env")[1]["data"][1] == 0, "children do not get the connection", far.run("env"))


def generators(target):
    with Far(target) as far:
        events, result, error = far.run("x")
        check([e["type"] for e in events] == ["text", "artifact", "artifact", "status"] and [e.get("data") for e in events[1:3]] == [{"k": 1}, [2]], "texts, data, events", events)
        check(events[1]["artifactId"] != events[2]["artifactId"], "data do not replace each other", events)
        check(result == {"data": "end"}, "what is returned is the outcome", result, error)
        name = far.start("hang")
        far.event(name, lambda e: e.get("text") == "x", "a first event")
        far.write(method="task.cancel", params={"taskId": name})
        events, _, error = far.finish(name)
        check(error["code"] == -32800 and events[-1]["text"] == "closed", "a cancelled generator is closed, and its finally can still tell", events[-2:], error)


def cancels(target, text):
    with Far(target) as far:
        names = [far.start(text), far.start(text)]
        far.until(lambda: len([m for m, p in far.asked if m == "task.ask"]) == 2 or all(far.tasks[n]["events"] for n in names), "the questions")
        far.write(method="task.cancel", params={"taskId": names[0]})
        events, _, error = far.finish(names[0])
        check(error["code"] == -32800, "what waits is woken", error)
        check(text == "deaf" or text == "poll" or events[-1]["text"] == "cleaned up", "and can still tell how it cleaned up", events)
        check("reply" not in far.tasks[names[1]], "the other task goes on")
        check(not far.process.err, "a cancelled task leaves no traceback", far.process.err)


def python_only():
    with Far(extra_py + ":agent") as far:
        check(far.run("point")[1] == {"data": {"x": 3}}, "a dataclass is data")
        for text, reason in (("nan", "not JSON compliant"), ("stop", "StopIteration"), ("exit", "bye")):
            check(reason in far.run(text)[2]["message"], text, far.tasks)
        far.process.wait_line("Traceback", stream="err")
        for name in [far.start("none") for _ in range(200)]:
            far.finish(name)
        check(int(far.run("tasks")[1]) <= 5, "no task is kept after its end, beside the last of each thread", far.tasks[f"t{far.n}"])
        check(far.run("current")[1]["data"] == [True, True, False], "current() in a thread, and in a loop of its own", far.tasks)
    with Far(extra_py + ":coroutine") as far:
        check(far.run("current")[1]["data"] == [True, True], "current() in a coroutine and below it", far.tasks)
        check(said(*far.run("late")[:2]) == "in a thread", "a generator that a coroutine gives")
        check(far.run("send none")[1]["data"] == ["AMESH-2001", "amesh ls"], "errors are raised at await", far.tasks)
        check("TimeoutError" in far.run("crash")[2]["message"], "a timeout of its own is no cancelling", far.tasks)


def shapes(cases, path):
    for name, wanted in cases:
        with Far(f"{path}{name}") as far:
            check(said(*far.run("hi")[:2]) == wanted, f"{name}: {wanted}", far.tasks, far.process.err)


def refused(target, *words):
    far = Far(target)
    try:
        check(far.process.wait() == 2, "exit status 2", far.process.err)
        check(all(w in far.process.err[-1] for w in words), f"the last line of stderr says {words}", far.process.err)
    finally:
        far.sock.close()


def endings(target, hang="hang"):
    with Far(target) as far:
        far.write(id="p1", method="nonsense", params={})
        far.write(id="p2", method="ping", params={})
        check(said(*far.run("echo a")[:2]) == "a", "an unknown method does no harm")
        check(far.kv["reply", "p1"]["error"]["code"] == -32601 and far.kv["reply", "p2"]["result"] == {}, "and is answered, as is a ping", far.kv)
        name = far.start("ask")
        far.finish(name)
        far.write(method="drain", params={})
        check(far.process.wait(WAIT) == 0, "drain: exit 0", far.process.err)
    with Far(target) as far:
        name = far.start(hang)
        far.event(name, lambda e: e.get("text") == "working", "working")
        far.process.signal(signal.SIGTERM)
        check(far.process.wait(WAIT) == 0 and not far.process.err, "SIGTERM: exit 0, nothing on stderr", far.process.err)
        check("reply" not in far.tasks[name], "the task was not cancelled by its caller: no reply", far.tasks)
    with Far(target) as far:
        name = far.start(hang)
        far.event(name, lambda e: e.get("text") == "working", "working")
        far.sock.shutdown(socket.SHUT_RDWR)
        check(far.process.wait(WAIT) == 0, "the sidecar's end is the shim's", far.process.err)
    with Far(target, greets=lambda far: far.sock.shutdown(socket.SHUT_RDWR)) as far:
        check(far.process.wait(WAIT) == 0, "so it is before hello is answered", far.process.err)
    with Far(target, greets=lambda far: far.process.signal(signal.SIGTERM)) as far:
        check(far.process.wait(WAIT) == 0, "and SIGTERM then", far.process.err)
    with Far(target, greets=lambda far: far.write(id=1, error={"code": -32000, "message": "version 1 only"})) as far:
        check(far.process.wait(WAIT) != 0 and "version 1 only" in far.process.err[-1], "refused: the reason is its last word", far.process.err)
    with Far(target, dial=True) as far:
        check(said(*far.run("echo dialled")[:2]) == "dialled", "without AMESH_FD it dials AMESH_SOCK")


def rejection():
    with Far(extra_js + ":agent") as far:
        far.start("reject")
        check(far.process.wait(WAIT) == 1 and "nobody caught me" in far.process.err[-1], "ends with the reason", far.process.err)


# ---- all of it

extra_py, extra_js = file("extra.py", PY), file("extra.mjs", JS)
broken = [(file("broken.py", "import nothing_of_this_name\n"), ("broken.py", "ModuleNotFoundError", "nothing_of_this_name")), (file("syntax.py", "def f(:\n"), ("syntax.py", "SyntaxError")),
          (extra_py + ":agnet", ("extra.py", "agnet", "did you mean agent?")), (os.path.join(home, "extar.py") + ":agent", ("no such file", "did you mean extra.py?")),
          (extra_py + ":three", ("three", "(text, task)")), (extra_py + ":nothing", ("nothing", "(text, task)")), (extra_py + ":number", ("int",)),
          (file("exits.py", "import sys\nsys.exit(0)\n"), ("exits.py", "SystemExit")), (file("broken.mjs", "import 'nothing-of-this-name';\n"), ("broken.mjs", "nothing-of-this-name")),
          (file("syntax.mjs", "function (\n"), ("syntax.mjs", "SyntaxError")), (extra_js + ":agnet", ("extra.mjs", "agnet", "agent")), (extra_js + ":number", ("number",))]


def main():
    sys.stdout.reconfigure(line_buffering=True)
    shim = os.path.join(AGENTS, "shim.")
    pythons = [sys.executable] + [p for p in os.environ.get("AMESH_TEST_PYTHONS", "").split(":") if p]
    for python in pythons:
        version = subprocess.run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], check=True, capture_output=True, text=True).stdout.strip()
        for kind in ("sync_agent", "async_agent", "generator_agent", "async_generator_agent"):
            tap.run(f"python {version}: the eight behaviours of {kind}", eight, f"{shim}py:{kind}", python)
    has_node = shutil.which("node")
    if has_node:
        for kind in ("agent", "generatorAgent"):
            tap.run(f"js: the eight behaviours of {kind}", eight, f"{shim}mjs:{kind}", sys.executable)
    else:
        tap.skip("js: everything", "node is not installed")
    sides = [("python", extra_py, shim + "py:sync_agent")] + ([("js", extra_js, shim + "mjs:agent")] if has_node else [])
    for side, path, plain in sides:
        tap.run(f"{side}: twenty tasks at once", together, path + ":agent")
        tap.run(f"{side}: no line is longer than 1 MiB, whatever the text", long_texts, path + ":agent")
        tap.run(f"{side}: what is returned, told and asked is what arrives", outcomes, path + ":agent")
        tap.run(f"{side}: generators of values", generators, path + ":generator")
        tap.run(f"{side}: cancelling wakes a task that waits, and no other", cancels, path + ":agent", "ask for ever")
        tap.run(f"{side}: drain, SIGTERM, end of the connection, dialling", endings, plain)
    tap.run("python: twenty coroutines at once with one slot", together, extra_py + ":coroutine", 1)
    tap.run("python: a coroutine cleans up", cancels, extra_py + ":coroutine", "clean")
    tap.run("python: a thread that never waits is cancelled at its next call", cancels, extra_py + ":agent", "poll")
    tap.run("python: SIGTERM ends a coroutine", endings, shim + "py:async_agent")
    tap.run("python: errors, current(), values", python_only)
    tap.run("python: every shape of a callable", shapes, [(":one", "HI"), (":annotated", "HI"), (":turned", "HIt"), (":optional", "HI0.5t"), (":keyword", "HIt"), (":upper", "HI"), (":lam", "HIt"),
            (":Callable", "HI1"), (":Runner", "HI"), (":runner", "HI"), (":runner.other", "other hi")], extra_py)
    if has_node:
        tap.run("js: every shape of a callable", shapes, [("", "HI"), (":one", "HI"), (":Runner", "HI"), (":box.upper", "HI"), (":stream", "hi!")], extra_js)
        tap.run("js: a function that does not look is left alone", cancels, extra_js + ":agent", "deaf")
        tap.run("js: a rejection that nobody handles ends the process with the reason", rejection)
    for target, words in broken:
        if has_node or ".mjs" not in target:
            tap.run(f"refused with the reason: {os.path.basename(target)}", refused, target, *words)
    shutil.rmtree(home, ignore_errors=True)
    tap.done()


if __name__ == "__main__":
    main()
