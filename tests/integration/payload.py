#!/usr/bin/env python3
"""A bus whose messages are small: what an agent gives in one piece, and no message holds, comes as a file (amp.md 15)."""
import hashlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from blobtest import digest  # noqa: E402
from meshtest import Bus, Tap, check  # noqa: E402

tap = Tap()
LEN = 600000
BYTES = hashlib.sha256(b"7" * LEN).hexdigest()
AGENT = f"""
import base64, json, sys
for line in sys.stdin:
    f = json.loads(line)
    task, text = f["params"]["taskId"], f["params"]["text"]
    raw = base64.b64encode(b"7" * {LEN}).decode()
    parts = [{{"raw": raw if text != "bad" else "?" * len(raw), "filename": "long.bin"}}]
    if text != "result":
        event = {{"type": "artifact", "name": "long", "parts": parts, "last": True}}
        print(json.dumps({{"method": "task.event", "params": {{"taskId": task, "event": event}}}}))
    print(json.dumps({{"id": f["id"], "result": {{"text": "done", **({{"parts": parts}} if text == "result" else {{}})}}}}), flush=True)
"""


class Small(Bus):
    def __init__(self, payload):
        super().__init__()
        self.CONFIG = f"max_payload: {payload}"


def given(mesh, text, *how):
    out = os.path.join(mesh.home, "out-" + text + "".join(how))
    r = mesh.run("ask", "giver", text, "--output", out, *how).ok()
    names = os.listdir(out)
    check(r.out.strip() == "done" and names == ["long.bin"] and digest(os.path.join(out, "long.bin")) == BYTES, "the same bytes", names, r.out, r.err)


def no_base64(mesh):
    r = mesh.run("ask", "giver", "bad")
    check(r.status == 1 and "base64" in r.err and "long" in r.err, "what is wrong with which artifact", r.status, r.err)


for kib in (256, 48):
    with Small(kib << 10) as mesh:
        mesh.agent("giver", "--mode", "jsonl", "--", sys.executable, "-c", AGENT)
        tap.run(f"messages of {kib} KiB: longer bytes in an event", given, mesh, "event")
        tap.run("in the answer itself", given, mesh, "result")
        tap.run("in durable tasks", lambda: (given(mesh, "event", "--durable"), given(mesh, "result", "--durable")))
        tap.run("what is no base64 fails the task, with a reason", no_base64, mesh)
tap.done()
