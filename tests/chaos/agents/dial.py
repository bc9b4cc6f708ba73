"""The campaign's agent on the socket by hand (local API, one JSON document a line). With --stay it outlives its sidecar: it dials again as soon as somebody listens."""
import hashlib
import json
import os
import socket
import sys
import threading

CONCURRENCY = 8


def work(sock, lock, frame):
    text = frame["params"]["text"]
    threading.Event().wait(int(text.split()[2]) / 1000)
    line = json.dumps({"id": frame["id"], "result": hashlib.sha256(text.encode()).hexdigest()}) + "\n"
    try:
        with lock:
            sock.sendall(line.encode())
    except OSError:
        pass  # whoever gave it is gone; the task goes on elsewhere


def serve():
    sock, lock = socket.socket(socket.AF_UNIX), threading.Lock()
    sock.connect(os.environ["AMESH_SOCK"])
    sock.sendall(json.dumps({"id": 1, "method": "hello", "params": {"proto": 1, "concurrency": CONCURRENCY}}).encode() + b"\n")
    for line in sock.makefile("rb"):
        frame = json.loads(line)
        if frame.get("method") == "task.run":
            threading.Thread(target=work, args=(sock, lock, frame), daemon=True).start()
        elif frame.get("method") == "drain":
            return


while True:
    try:
        serve()
    except (OSError, ValueError):
        pass
    if "--stay" not in sys.argv:
        break
    threading.Event().wait(0.02)
