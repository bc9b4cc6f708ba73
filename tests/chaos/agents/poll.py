"""The campaign's agent on the HTTP side of the socket: it asks for work and posts the digest of it."""
import hashlib
import http.client
import json
import os
import socket
import sys
import threading


class Unix(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("mesh", timeout=60)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["AMESH_SOCK"])


def serve():
    link = Unix()
    while True:
        link.request("GET", "/v1/work?wait=30")
        answer = link.getresponse()
        body = answer.read()
        if answer.status not in (200, 204):
            return
        if answer.status == 200:
            task = json.loads(body)
            threading.Event().wait(int(task["text"].split()[2]) / 1000)
            link.request("POST", f"/v1/tasks/{task['taskId']}/result", hashlib.sha256(task["text"].encode()).hexdigest(), {"Content-Type": "text/plain"})
            link.getresponse().read()


while True:
    try:
        serve()
    except (OSError, http.client.HTTPException):
        pass
    if "--stay" not in sys.argv:
        break
    threading.Event().wait(0.02)
