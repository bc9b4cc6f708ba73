#!/usr/bin/env python3
"""The main job on real agents, shown: four agents in three kinds of program, a call by skill, a call inside a call, a question to a human, a kill -9 and
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
    say(f"  + {name:10} {' '.join(args)[:90]}")


def show():
    say("== A mesh: nats-server, the environment with its journal, four agents\n")
    amesh("up", "--detach")
    agent("shout", "--skill", "loud:says it louder", "--", "tr", "a-z", "A-Z")
    agent("writer", os.path.join(HERE, "agents.py:writer"))
    agent("counter", "--skill", "count", os.path.join(HERE, "agents.mjs:counter"))
    agent("fragile", "--mode", "jsonl", "--", sys.executable, os.path.join(HERE, "fragile.py"), os.path.join(HOME, "once"))
    amesh("ls")

    say("\n== By name, and by skill\n")
    must(amesh("ask", "shout", "hello mesh").stdout.strip() == "HELLO MESH", "the shell agent answers")
    must(amesh("ask", "--skill", "count", "four words are here").stdout.strip() == "4 words", "the skill's agent answers")

    say("\n== A Python agent that calls the other two and asks a human\n")
    asked = amesh("ask", "writer", "write about sidecars", status=9)
    task = asked.stderr.split("--task", 1)[1].split()[0].strip("'\"")
    answer = amesh("ask", "--task", task, "Sidecars for all")
    must("SIDECARS FOR ALL" in answer.stdout and "words" in answer.stdout, "the answer has the human's title, shouted, and the count", answer.stdout)
    tree = amesh("task", "show", task, "--tree")
    must("shout" in tree.stdout and "counter" in tree.stdout, "the tree shows both calls")

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
