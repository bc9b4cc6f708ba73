#!/usr/bin/env python3
"""One queue with n servers: direct calls that find everybody busy wait for their turn, in order, and each is worked on once, whoever is killed meanwhile. Real processes, a real nats-server."""
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats, waiting_calls  # noqa: E402
from meshtest import Bus, Tap, check, until  # noqa: E402

PY = sys.executable
tap = Tap()

# Says on a log when it begins, waits for a gate or a time, and answers with what it was asked.
AGENT = """
import os, sys, threading
pause = threading.Event()
log, text = sys.argv[1], sys.stdin.read().strip()
fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(fd, (text + '\\n').encode())
gate, ms = text.split()[-1].split('=')[0], text.split('=')[-1]
if '=' in text:
    pause.wait(int(ms) / 1000)
else:
    while not os.path.exists(gate):
        pause.wait(0.005)
print(text)
"""


class Turns(Bus):
    def instance(self, name, *options):
        return self.agent(name, *options, "--", PY, "-c", AGENT, self.path(name + ".log"))

    def begun(self, name):
        return self.lines_of(name + ".log")

    def ask(self, name, text, *options):
        """In the background; → thread with .result once it has ended."""
        return self.begin("ask", *options, *([name] if name else []), text, deadline=120)

    def waiting(self, count):
        until(lambda: waiting_calls(self.raw) == count, f"{count} wait for their turn")


def answers(threads):
    for thread in threads:
        thread.join()
    return [(t.result.status, t.result.out.strip()) for t in threads]


def in_order(mesh):
    mesh.instance("one")
    gate = mesh.path("gate-one")
    first = mesh.ask("one", f"first {gate}")
    until(lambda: mesh.begun("one"), "somebody works")
    others = []
    for i in range(8):
        others.append(mesh.ask("one", f"n{i} t=1"))
        mesh.waiting(i + 1)
    open(gate, "w").close()
    got = answers([first, *others])
    check(got == [(0, f"first {gate}"), *[(0, f"n{i} t=1") for i in range(8)]], "each has its answer", got)
    check([line.split()[0] for line in mesh.begun("one")] == ["first", *[f"n{i}" for i in range(8)]], "in the order in which they came, each once", mesh.begun("one"))


def by_priority(mesh):
    mesh.instance("ranked")
    gate = mesh.path("gate-ranked")
    threads = [mesh.ask("ranked", f"first {gate}")]
    until(lambda: mesh.begun("ranked"), "somebody works")
    for i, priority in enumerate(("low", "normal", "high")):
        threads.append(mesh.ask("ranked", f"{priority} t=1", "--priority", priority))
        mesh.waiting(i + 1)
    open(gate, "w").close()
    answers(threads)
    check([line.split()[0] for line in mesh.begun("ranked")] == ["first", "high", "normal", "low"], "high, normal, low", mesh.begun("ranked"))
    bad = mesh.run("ask", "--priority", "urgent", "ranked", "x")
    check(bad.status == 2 and "high, normal or low" in bad.err, "another one is refused", bad.err)


def several(mesh):
    """Three instances, forty calls at once, by name and by skill: each is worked on once, and nobody stands idle for long while others wait."""
    card = mesh.path("card.json")
    with open(card, "w", encoding="utf-8") as f:
        f.write('{"name": "crew", "description": "c", "skills": [{"id": "row", "name": "row", "description": "d", "tags": []}]}')
    for _ in range(3):
        mesh.instance("crew", "--card", card)
    threads = [mesh.ask(None, f"c{i} t=20", "--skill", "row") if i % 2 else mesh.ask("crew", f"c{i} t=20") for i in range(40)]
    got = answers(threads)
    check(sorted(got) == sorted((0, f"c{i} t=20") for i in range(40)), "all are answered", got)
    check(sorted(mesh.begun("crew")) == sorted(f"c{i} t=20" for i in range(40)), "each once", mesh.begun("crew"))


def environment_killed(mesh):
    """What an environment keeps of it may be lost: the calls are with their callers."""
    mesh.instance("patient")
    gate = mesh.path("gate-patient")
    threads = [mesh.ask("patient", f"first {gate}")]
    until(lambda: mesh.begun("patient"), "somebody works")
    threads += [mesh.ask("patient", f"p{i} t=1") for i in range(6)]
    mesh.waiting(6)
    mesh.kill_env()
    open(gate, "w").close()
    until(lambda: len(mesh.begun("patient")) >= 3, "they go on without an environment")
    mesh.start_env()
    got = answers(threads)
    check(sorted(got) == sorted([(0, f"first {gate}"), *[(0, f"p{i} t=1") for i in range(6)]]), "all are answered", got)
    check(len(mesh.begun("patient")) == 7, "each once", mesh.begun("patient"))


def instance_killed(mesh):
    """Its own call, which has shown nothing, and those that wait go to the other one."""
    gate = mesh.path("gate-mortal")
    victim, _ = mesh.instance("mortal", "--retry", "safe"), mesh.instance("mortal", "--retry", "safe")
    held = [mesh.ask("mortal", f"held{i} {gate}") for i in range(2)]
    until(lambda: len(mesh.begun("mortal")) == 2, "both work")
    waiting = [mesh.ask("mortal", f"m{i} t=1") for i in range(5)]
    mesh.waiting(5)
    victim.signal(signal.SIGKILL)
    open(gate, "w").close()
    got = answers(waiting)
    check(got == [(0, f"m{i} t=1") for i in range(5)], "those that waited are answered", got)
    check([status for status, _ in answers(held)] == [0, 0], "what it had goes there too", [t.result.err for t in held])


def leaving_caller(mesh):
    """A caller that is killed while it waits holds up nobody."""
    mesh.instance("calm")
    gate = mesh.path("gate-calm")
    threads = [mesh.ask("calm", f"first {gate}")]
    until(lambda: mesh.begun("calm"), "somebody works")
    gone = [mesh.spawn("ask", "calm", f"gone{i} t=1") for i in range(3)]
    mesh.waiting(3)
    threads.append(mesh.ask("calm", "last t=1"))
    mesh.waiting(4)
    for process in gone:
        process.signal(signal.SIGKILL)
        process.wait()
    begun = time.monotonic()
    open(gate, "w").close()
    got = answers(threads)
    check(got[1] == (0, "last t=1") and time.monotonic() - begun < 30, "who is there is served", got)
    check([line.split()[0] for line in mesh.begun("calm")] == ["first", "last"], "nothing is done for those that are gone", mesh.begun("calm"))


def in_vain(mesh):
    """A turn that cannot come in time is refused at once, with how many wait and how long that takes."""
    mesh.instance("slow")
    answers([mesh.ask("slow", f"w{i} t=200") for i in range(12)])
    gate = mesh.path("gate-slow")
    threads = [mesh.ask("slow", f"first {gate}")]
    until(lambda: any("first" in line for line in mesh.begun("slow")), "somebody works")
    threads += [mesh.ask("slow", f"s{i} t=200") for i in range(20)]
    mesh.waiting(20)
    begun = time.monotonic()
    refused = mesh.run("ask", "--timeout", "2s", "slow", "late t=1")
    check(refused.status != 0 and "AMESH-3006" in refused.err and "calls wait for agent slow" in refused.err, "it says so", refused.err)
    check(time.monotonic() - begun < 2, "before its time is over", time.monotonic() - begun)
    open(gate, "w").close()
    check(all(status == 0 for status, _ in answers(threads)), "the others are served")


LIMITED = """
import os, sys, threading
log, limit, text = sys.argv[1], sys.argv[2], sys.stdin.read().strip()
fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
is_limited = os.path.exists(limit)
os.write(fd, ('busy' if is_limited else 'done').encode() + b'\\n')
if is_limited:
    print('rate limit of the model', file=sys.stderr)
    sys.exit(75)
print(text)
"""


def limited_agent(mesh):
    """An agent that can take nothing now: its calls wait or go elsewhere, nothing fails, and it is not asked all the time."""
    limit = mesh.path("limit")
    open(limit, "w").close()
    mesh.agent("limited", "--", PY, "-c", LIMITED, mesh.path("limited.log"), limit)
    direct = [mesh.ask("limited", f"d{i}") for i in range(3)]
    durable = mesh.run("ask", "--detach", "limited", "later").ok().out.strip()
    until(lambda: len(mesh.begun("limited")) >= 3, "it is asked now and then")
    os.unlink(limit)
    check(answers(direct) == [(0, f"d{i}") for i in range(3)], "all are answered", [t.result.err for t in direct])
    until(lambda: mesh.state(durable) == "TASK_STATE_COMPLETED", "the durable one, too")
    attempts = mesh.show(durable)["metadata"]["amp/attempts"]
    check(len(attempts) == 1, "that it was busy was no attempt", attempts)
    begun = mesh.begun("limited")
    check(begun.count("done") == 4, "each was done once", begun)
    open(limit, "w").close()
    second = mesh.agent("limited", "--", "cat")
    got = answers([mesh.ask("limited", f"e{i}") for i in range(6)])
    check(got == [(0, f"e{i}") for i in range(6)], "with another instance the calls go there", got)
    second.stop()


LATE = """
import os, sys, threading
log, limit, text = sys.argv[1], sys.argv[2], sys.stdin.read().strip()
threading.Event().wait(0.4)
fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
is_limited = os.path.exists(limit)
os.write(fd, ('busy ' if is_limited else 'done ').encode() + text.encode() + b'\\n')
if is_limited:
    sys.exit(75)
print(text)
"""


def late_limit(mesh):
    """Said after its caller was told that it is worked on, but before anything else: load all the same."""
    limit = mesh.path("late-limit")
    open(limit, "w").close()
    mesh.agent("late", "--retry", "never", "--", PY, "-c", LATE, mesh.path("late.log"), limit)
    direct = [mesh.ask("late", f"d{i}", "--events") for i in range(2)]
    until(lambda: len(mesh.begun("late")) >= 5, "it is asked now and then")
    os.unlink(limit)
    for i, thread in enumerate(direct):
        thread.join()
        check(thread.result.status == 0, "it is answered", thread.result.err)
        lines = thread.result.lines()
        said = [line["statusUpdate"]["metadata"]["amp/retry"]["cause"] for line in lines if "amp/retry" in line.get("statusUpdate", {}).get("metadata", {})]
        check(set(said) <= {"busy"}, "with what it waited for", lines)
        task = lines[0]["statusUpdate"]["taskId"]
        until(lambda t=task: mesh.state(t) == "TASK_STATE_COMPLETED", "the record has the one end")
        check(mesh.begun("late").count(f"done d{i}") == 1, "it was done once", mesh.begun("late"))
    open(limit, "w").close()
    second = mesh.agent("late", "--", "cat")
    got = answers([mesh.ask("late", f"e{i}") for i in range(4)])
    check(got == [(0, f"e{i}") for i in range(4)], "with another instance the calls go there", got)
    second.stop()


def main():
    with Turns() as mesh:
        mesh.raw = Nats(mesh.bus)
        tap.run("who waits for a busy agent has its turn in order, each once", in_order, mesh)
        tap.run("priorities", by_priority, mesh)
        tap.run("forty calls, three instances: each is worked on once", several, mesh)
        tap.run("the environment is killed while calls wait: they go on without it, and with the next one", environment_killed, mesh)
        tap.run("an instance is killed while calls wait: the others serve them", instance_killed, mesh)
        tap.run("callers that are killed while they wait hold up nobody", leaving_caller, mesh)
        tap.run("a turn that cannot come in time is refused at once", in_vain, mesh)
        tap.run("an agent that is busy by itself: load, and no failure", limited_agent, mesh)
        tap.run("… also when it says so late", late_limit, mesh)
    tap.done()


main()
