#!/usr/bin/env python3
"""An agent that calls others, as its text says: served by the shim (agent), or run once per task (main, which calls by `amesh ask`). What it does goes into the file TREE_LOG,
a line each. Words: `direct|durable|detach NAME WORDS…` asks NAME, `wait` waits until it is told to go or to stop, `die` dies; nothing: tells how much time there is."""
import os
import select
import signal
import subprocess
import sys
import time


def log(*words):
    with open(os.environ["TREE_LOG"], "a") as f:
        f.write(" ".join(str(w) for w in words) + "\n")


def pause(seconds):
    select.select([], [], [], seconds)


def may_go(task):
    return os.path.exists(os.path.join(os.environ["AMESH_HOME"], "go-" + task))


def agent(text, task):
    import amesh
    log("begin", task.id, os.environ["AMESH_AGENT"], text)
    how, _, rest = text.partition(" ")
    try:
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        while how == "wait" and not may_go(task.id):
            task.sleep(0.02)
        if how in ("direct", "durable", "detach"):
            name, _, words = rest.partition(" ")
            pause(0.05)  # of the time that was given
            result = task.send(name, words, durable=how != "direct", **({"detach": True} if how == "detach" else {}))
            return f"{task.timeout_ms} {result.text}"
        return str(task.timeout_ms)
    except amesh.Canceled:
        log("canceled", task.id)
        raise


def main():
    task, text = os.environ["AMESH_TASK"], sys.stdin.read().strip()
    log("begin", task, os.environ["AMESH_AGENT"], text)
    how, _, rest = text.partition(" ")
    deadline = os.environ.get("AMESH_DEADLINE")
    left = int(deadline) - int(time.time() * 1000) if deadline else None

    def stop(signo, frame):
        log("canceled", task)
        sys.exit(1)
    signal.signal(signal.SIGTERM, stop)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    while how == "wait" and not may_go(task):
        pause(0.02)
    if how in ("direct", "durable", "detach"):
        name, _, words = rest.partition(" ")
        pause(0.05)
        option = [] if how == "direct" else ["--" + how]
        asked = subprocess.run([os.environ["AMESH"], "ask", *option, name, words], stdout=subprocess.PIPE, text=True)
        print(left, asked.stdout.strip())
        sys.exit(asked.returncode)
    print(left)


if __name__ == "__main__":
    main()
