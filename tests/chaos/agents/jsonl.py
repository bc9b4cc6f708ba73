"""The campaign's agent on pipes (local API, one JSON document a line): the digest of what it was asked, after the milliseconds that the text names."""
import hashlib
import json
import os
import signal
import sys
import threading


def work(frame):
    text = frame["params"]["text"]
    _, word, ms = text.split()[:3]
    if word == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait(int(ms) / 1000)
    sys.stdout.write(json.dumps({"id": frame["id"], "result": hashlib.sha256(text.encode()).hexdigest()}) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    frame = json.loads(line)
    if frame.get("method") == "task.run":
        threading.Thread(target=work, args=(frame,), daemon=True).start()
