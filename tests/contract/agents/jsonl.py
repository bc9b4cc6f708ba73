#!/usr/bin/env python3
"""The eight behaviours by a program that speaks JSON lines and knows nothing but local-api.md 2–4. On stdio (mode jsonl) or, with an
argument `dial`, on AMESH_SOCK. One thread reads; each task has one of its own."""
import json
import os
import socket
import sys
import threading

lock, waiting, tasks, count = threading.Lock(), {}, {}, [0]
if sys.argv[1:] == ["dial"]:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.environ["AMESH_SOCK"])
    lines, out = sock.makefile("r", encoding="utf-8"), sock.makefile("w", encoding="utf-8")
else:
    lines, out = sys.stdin, sys.stdout


def send(frame):
    with lock:
        out.write(json.dumps({"jsonrpc": "2.0", **frame}) + "\n")
        out.flush()


def request(method, params):
    with lock:
        count[0] += 1
        number = count[0]
        waiting[number] = box = {"done": threading.Event()}
    send({"id": number, "method": method, "params": params})
    box["done"].wait()
    if "error" in box["reply"]:
        raise RuntimeError(box["reply"]["error"]["message"])
    return box["reply"]["result"]


def work(number, p):
    task, text = p["taskId"], p["text"]

    def event(**e):
        send({"method": "task.event", "params": {"taskId": task, "event": e}})

    def answer(result):
        send({"id": number, "result": result})

    if text.startswith("echo "):
        answer(text[5:])
    elif text == "stream":
        for word in ("one ", "two ", "three ", "four"):
            event(type="text", text=word)
        answer(None)
    elif text == "tool":
        event(type="tool_call", callId="c1", name="add", args={"a": 1, "b": 2})
        event(type="tool_result", callId="c1", name="add", output=3)
        answer({"text": "sum 3"})
    elif text.startswith("remember "):
        request("kv.put", {"scope": "context", "taskId": task, "key": "word", "value": text[9:]})
        answer("noted")
    elif text == "recall":
        answer("you said " + request("kv.get", {"scope": "context", "taskId": task, "key": "word"})["value"])
    elif text == "ask":
        answer("painted " + request("task.ask", {"taskId": task, "prompt": "Which colour?"})["text"])
    elif text == "form":
        questions = [{"prompt": "Which colour?", "options": [{"value": "red", "label": "Red"}, {"value": "blue", "label": "Blue"}]},
                     {"prompt": "How often?", "schema": {"type": "integer", "minimum": 1, "maximum": 9}},
                     {"prompt": "Sure?", "options": ["yes", "no"], "default": "no", "expiresMs": 300}]
        got = [None] * 3

        def one(i):
            got[i] = request("task.ask", {"taskId": task, **questions[i]})["value"]
        threads = [threading.Thread(target=one, args=(i,)) for i in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        answer(" ".join(str(v) for v in got))
    elif text == "late":
        try:
            answer(request("task.ask", {"taskId": task, "prompt": "Now?", "expiresMs": 200})["text"])
        except RuntimeError as e:
            answer(f"late: {e}")
    elif text == "hang":
        event(type="text", text="working")
        tasks[task].wait()
        answer({"state": "canceled"})
    elif text == "fail":
        send({"id": number, "error": {"code": 1, "message": "ValueError: broken as asked"}})
    elif text == "artifact":
        event(type="artifact", artifactId="report", name="report", text="forty-two", filename="report.txt", mediaType="text/plain")
        answer("made")
    else:
        answer(f"what is {text}?")


if sys.argv[1:] == ["dial"]:
    send({"id": "hello", "method": "hello", "params": {"proto": 1, "concurrency": 4}})
for line in lines:
    frame = json.loads(line)
    if frame.get("method") == "task.run":
        tasks[frame["params"]["taskId"]] = threading.Event()
        threading.Thread(target=work, args=(frame["id"], frame["params"]), daemon=True).start()
    elif frame.get("method") == "task.cancel":
        if frame["params"]["taskId"] in tasks:
            tasks[frame["params"]["taskId"]].set()
    elif frame.get("method") == "ping":
        send({"id": frame["id"], "result": {}})
    elif "method" not in frame and frame.get("id") in waiting:
        box = waiting.pop(frame["id"])
        box["reply"] = frame
        box["done"].set()
