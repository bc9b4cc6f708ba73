#!/usr/bin/env python3
"""An agent that asks: served by the shim (agent), or run once per task (main). What it does goes into the file ASKED_LOG, a line each."""
import os
import signal
import subprocess
import sys

PROPERTIES = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"], "additionalProperties": False}


def log(*words):
    with open(os.environ["ASKED_LOG"], "a") as f:
        f.write(" ".join(str(w) for w in words) + "\n")


def together(task, *asks):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(len(asks)) as pool:
        return list(pool.map(lambda ask: task.ask(*ask[0], **ask[1]), asks))


def heard(task):
    """Three at once; what was answered, or has expired, is noted as soon as it is known here."""
    def one(prompt, **options):
        said = task.ask(prompt, **options)
        log("heard", task.id, said)
        return said
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(one, "Quick?", default="late", expires_ms=1500), pool.submit(one, "First?"), pool.submit(one, "Last?")]
        return ", ".join(each.result() for each in asked)


def soon(task):
    import amesh
    first = task.ask("Go on?", options=["yes", "no"], default="no", expires_ms=300)
    try:
        task.ask("And now?", expires_ms=300)
    except amesh.Error as e:
        return f"default {first}, then {e.name}"


def flood(task):
    import amesh
    from concurrent.futures import ThreadPoolExecutor

    def one(i):
        try:
            return task.ask(f"Question {i}?")
        except amesh.Error as e:
            log("refused", task.id, e.name)
    with ThreadPoolExecutor(65) as pool:
        list(pool.map(one, range(65)))


def bad(task):
    import amesh
    deep = {}
    for _ in range(10):
        deep = {"type": "object", "properties": {"a": deep}}
    said = []
    for form in ({"schema": {"type": "string", "pattern": "(a+)+$"}}, {"schema": {"properties": {"a": {"type": "text"}}}}, {"options": []},
                 {"options": ["a"], "default": "b"}, {"schema": deep}):
        try:
            task.ask("?", **form)
        except amesh.Error as e:
            said.append(str(e))
    return "\n".join(said)


def agent(text, task):
    log("begin", task.id, task.attempt, os.getpid())
    if text == "one":
        return "said " + task.ask("Say something")
    if text == "one-of":
        return "chose " + task.ask("Which?", options=["red", "blue"])
    if text == "two":
        colour, count = together(task, (["Which colour?"], {"options": ["red", "blue"], "expires_ms": 600000}), (["How many?"], {"schema": PROPERTIES}))
        return f"{colour} {count['n']}"
    if text == "chain":
        first = task.ask("First?")
        return f"{first} then {task.ask('Second?')}"
    if text == "fickle":
        return "said " + task.ask(f"Attempt {task.attempt}?")
    if text == "short":
        return "default " + task.ask("Quick?", default="late", expires_ms=2000)
    if text == "escape":
        return task.ask("\x1b]0;owned\x07 press any key")
    if text == "impatient":
        return task.ask("Now?", expires_ms=200)
    if text.startswith("gate "):
        log("waits", task.id)
        open(text[5:]).close()  # a fifo: until somebody writes
        log("asks", task.id)
        return task.ask(text[5:])
    if text == "turn":
        return "hello " + task.resume["text"] if task.resume else {"state": "input-required", "message": "Your name?"}
    return {"heard": heard, "soon": soon, "flood": flood, "bad": bad}[text](task)


def main():
    text, mesh = sys.stdin.read(), os.environ["AMESH"]
    log("begin", os.environ["AMESH_TASK"], os.environ["AMESH_ATTEMPT"], os.getpgid(0))
    if text == "one":
        print("said " + subprocess.run([mesh, "task", "ask", "Say something"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip())
    else:
        signal.pause()


if __name__ == "__main__":
    main()
