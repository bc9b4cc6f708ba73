#!/usr/bin/env python3
"""The main job on real agents, shown: agents in shell, Python, JavaScript and C, a call by skill, a call inside a call, a question to a human, a kill -9 and
the second try. Everything printed really happened: what does not is an error and the exit status is 1."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

AMESH = os.path.abspath(sys.argv[1])
BUILT = os.path.join(os.path.dirname(AMESH), "examples")
HERE = os.path.dirname(os.path.abspath(__file__))
HOME = tempfile.mkdtemp(prefix="amesh-demo-")
ENV = dict(os.environ, AMESH_HOME=HOME, AMESH=AMESH, PATH=os.path.dirname(AMESH) + ":" + os.environ["PATH"])
ENV.pop("AMESH_BUS", None)
children = []


def say(text=""):
    print(text, flush=True)


def must(condition, what, *shown):
    if not condition:
        say(f"\nFAILED: {what}")
        for s in shown:
            say("    " + str(s))
        raise SystemExit(1)


def amesh(*args, status=0):
    say(f"$ amesh {' '.join(a if a.isalnum() or a[0] == '-' else repr(a) for a in args)}")
    done = subprocess.run([AMESH, *args], env=ENV, capture_output=True, text=True, timeout=60)
    for line in (done.stdout + ("\n" if done.stdout and not done.stdout.endswith("\n") else "") + done.stderr).splitlines():
        say("  " + line)
    must(done.returncode == status, f"exit status {status} was expected, it is {done.returncode}")
    return done


def agent(name, *args):
    child = subprocess.Popen([AMESH, "run", "--name", name, *args], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    children.append(child)
    line = child.stdout.readline()
    must(line.startswith("ready "), f"{name} joins the mesh", line)
    say(f"  + {name:10} {' '.join(os.path.relpath(a) if os.path.isabs(a) else a for a in args)[:90]}")


def show():
    say("== A mesh: nats-server, the environment with its journal, five agents\n")
    amesh("up", "--detach")
    agent("shout", "--skill", "loud:says it louder", "--", "tr", "a-z", "A-Z")
    agent("writer", os.path.join(HERE, "agents.py:writer"))
    agent("counter", "--skill", "count", os.path.join(HERE, "agents.mjs:counter"))
    agent("press", "--mode", "dial", "--", os.path.join(BUILT, "press"))
    agent("fragile", "--mode", "jsonl", "--", sys.executable, os.path.join(HERE, "fragile.py"), os.path.join(HOME, "once"))
    amesh("ls")

    say("\n== By name, and by skill\n")
    must(amesh("ask", "shout", "hello mesh").stdout.strip() == "HELLO MESH", "the shell agent answers")
    must(amesh("ask", "--skill", "count", "four words are here").stdout.strip() == "4 words", "the skill's agent answers")

    say("\n== A Python agent that asks a human and calls the others: the shell one by name, the C one by skill, which calls the JavaScript one\n")
    asked = amesh("ask", "writer", "write about sidecars", status=9)
    task = asked.stderr.split("--task", 1)[1].split()[0].strip("'\"")
    answer = amesh("ask", "--task", task, "Sidecars for all")
    must("| SIDECARS FOR ALL " in answer.stdout, "the human's title, shouted, is in the frame that the C agent has set", answer.stdout)
    inside = [line.strip("| ") for line in answer.stdout.splitlines() if line.startswith("| ")]
    words = len(" ".join(inside[:-1]).split())
    must(words > 10 and inside[-1] == f"{words} words", "with the count that the JavaScript agent has made of it", answer.stdout)
    tree = amesh("task", "show", task, "--tree")
    rows = {name: line for line in tree.stdout.splitlines() for name in ("writer", "shout", "press", "counter") if f"{name} " in line}
    must(len(rows) == 4 and rows["press"].index("press") < rows["counter"].index("counter"), "the tree shows the calls, and the C agent's own below it", tree.stdout)

    say("\n== kill -9 in mid-task: the second try says why there was one\n")
    done = amesh("ask", "--durable", "--json", "fragile", "carry this")
    attempts = json.loads(done.stdout)["metadata"]["amp/attempts"]
    must(len(attempts) == 2 and attempts[0]["outcome"] == "agent_died", "two attempts, the first ended by the agent's death", attempts)
    report = amesh("show", "fragile")
    must("SIGKILL" in report.stdout or "signal 9" in report.stdout, "the death report is kept")
    must("about to fall" in report.stdout, "with its last words")

    say("\n== Well?\n")
    amesh("check")
    say("\nTry next:  build/release/amesh up   ·   amesh help   ·   docs/concepts.md")


try:
    began = time.monotonic()
    show()
    say(f"\nAll of it happened, in {time.monotonic() - began:.1f} s.")
finally:
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
    subprocess.run([AMESH, "down"], env=ENV, capture_output=True)
    shutil.rmtree(HOME, ignore_errors=True)
