#!/usr/bin/env python3
"""Leases: a task is with one instance, and when that is cut off, stopped or dead with another one; what the first says later does not count, and is shown. An
environment that is killed finds its running tasks again. Real processes, a real nats-server."""
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import AMESH, Bus, Mesh, Tap, check, process_state, terminal, until  # noqa: E402
from proxy import Proxy  # noqa: E402

PY = sys.executable
ENDS = ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED")
tap = Tap()

# One process per task: notes its pid, then does what it is told.
AGENT = """
import os, signal, sys, threading
log, pause = sys.argv[1], threading.Event()
word, _, rest = sys.stdin.read().strip().partition(' ')
with open(log, 'a') as f:
    f.write('%d\\n' % os.getpid())
if word == 'stream':
    for i in range(int(rest)):
        print('piece %d' % i, flush=True)
        with open(log + '.at', 'w') as f:
            f.write(str(i))
        pause.wait(0.02)
elif word == 'wait':
    while not os.path.exists(rest):
        pause.wait(0.02)
    print('answer of %d' % os.getpid(), flush=True)
elif word == 'halves':
    print('the first half', flush=True)
    while not os.path.exists(rest):
        pause.wait(0.02)
    print('the second half', flush=True)
"""


class Leases(Bus):
    def instance(self, name, *options, **more):
        return self.agent(name, *options, "--", PY, "-c", AGENT, self.path(name + ".log"), **more)

    def calls(self, name):
        try:
            with open(self.path(name + ".log"), encoding="utf-8") as f:
                return [int(line) for line in f.read().split()]
        except FileNotFoundError:
            return []

    def detach(self, agent, text, *options):
        return self.run("ask", "--detach", *options, agent, text).ok().out.strip()

    def attempts(self, task):
        return self.show(task)["metadata"]["amp/attempts"]

    def ended(self, task, state="TASK_STATE_COMPLETED"):
        until(lambda: self.show(task)["status"]["state"] in ENDS, "the task ends")
        shown = self.show(task)
        check(shown["status"]["state"] == state, f"as {state}", shown)
        lines = [json.loads(line) for line in self.run("task", "show", task, "--events", "--json").ok().out.splitlines()]
        check([line["seq"] for line in lines] == list(range(1, len(lines) + 1)), "its events have no gap", lines)
        states = [line.get("event", line).get("statusUpdate", {}).get("status", {}).get("state") for line in lines]
        check([s for s in states if s in ENDS] == [state] and states[-1] == state, "exactly one end, and it is the last event", states)
        return shown


def text_of(task):
    return "".join(p.get("text", "") for a in task.get("artifacts", []) for p in a["parts"])


def zombie(mesh):
    """F2: stopped past its lease, another one completes the task, and then the first one's result comes."""
    gate = mesh.path("gate-zombie")
    first = mesh.instance("zombie")
    task = mesh.detach("zombie", f"wait {gate}")
    pid = until(lambda: mesh.calls("zombie"), "the first one works")[0]
    until(lambda: mesh.attempts(task)[0].get("startedAt"), "the environment knows who has it")
    mesh.instance("zombie")
    first.signal(signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)
    second = until(lambda: mesh.calls("zombie")[1:], "another one gets the task")[0]
    open(gate, "w").close()
    done = mesh.ended(task)
    check(text_of(done).strip() == f"answer of {second}", "its answer counts", text_of(done))
    os.kill(pid, signal.SIGCONT)
    until(lambda: process_state(pid) in ("Z", None), "the agent that was stopped has an answer, too")
    first.signal(signal.SIGCONT)
    until(lambda: claimed(mesh, task), "which comes, and is kept as ignored")
    lost, won = mesh.attempts(task)
    late = lost["ignored"][0]
    check(lost["outcome"] == "instance_lost" and lost["instance"] == first.instance and late["instance"] == first.instance, "of whom", lost)
    check("lease" in lost["reason"], "with the reason in words", lost["reason"])
    # Its sidecar hears of the loss and of the answer in the same moment: if of the loss first, the agent was cancelled.
    said = late["answer"].strip()
    check(said == f"answer of {pid}" or late["state"] == "canceled" and "another instance" in said, "what it says", late)
    check(late["at"] > lost["endedAt"], "when it came", late)
    check(won["attempt"] == 2 and won["outcome"] == "completed" and won["epoch"] != lost["epoch"], "another lease", won)
    after = mesh.ended(task)
    check(text_of(after) == text_of(done), "nothing is changed by it", after)
    shown = mesh.run("task", "show", task).ok().out
    check("came too late" in shown and said in shown, "people see it", shown)
    check(mesh.run("ask", "zombie", "hello").status == 0, "and the one that came back is well")


def field(data, *path):
    """A field of a message in protobuf's encoding, by the numbers that lead to it → bytes, a number or None"""
    at, found = 0, None

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
            if data[at - 1] < 128:
                return value

    while at < len(data):
        tag = varint()
        value = varint()
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        found = value if tag >> 3 == path[0] else found
    return field(found, *path[1:]) if found and path[1:] else found


def zombie_half_known(mesh):
    """Its answer is told from its beginning, also what the environment had confirmed before and the instance need not keep (amp.md 10.7.4)."""
    gate, raw = mesh.path("gate-halves"), Nats(mesh.bus)
    first = mesh.instance("halves")
    raw.sub(f"amp.ctl.{first.instance}.*")
    raw.flush()
    task = mesh.detach("halves", f"halves {gate}")
    until(lambda: "first half" in text_of(mesh.show(task)), "the environment has the first half")
    confirmed = 0
    while confirmed < 2:  # behind the first the instance has dropped it
        said = raw.next(10)
        check(said, "the environment confirms it")
        confirmed += (field(said[3], 6, 3, 10) or 0) >= 2  # control.ping.committed
    pid = mesh.calls("halves")[0]
    mesh.instance("halves")
    first.signal(signal.SIGSTOP)
    until(lambda: mesh.calls("halves")[1:], "another one gets the task")
    open(gate, "w").close()
    mesh.ended(task)
    until(lambda: process_state(pid) in ("Z", None), "the agent that was cut off has an answer, too")
    first.signal(signal.SIGCONT)
    until(lambda: claimed(mesh, task), "which comes, and is kept as ignored")
    late = mesh.attempts(task)[0]["ignored"][0]
    check(late["answer"].startswith("the first half"), "from its beginning", late)
    check(late["state"] == "canceled" or late["answer"].split("\n")[1] == "the second half", "to what came last", late)
    check("the first half" in mesh.run("task", "show", task).ok().out.split("came too late")[1], "people see it")


def report(mesh, sender, task, epoch, instance, state="FAILED", answer="forged answer"):
    """A report that no sidecar sends → the error's name"""
    boot, number = (int(part) for part in epoch.split("."))
    body = {"taskId": task, "epoch": str(boot << 32 | number), "attempt": 9, "instance": instance, "state": "TASK_STATE_" + state, "answer": answer}
    said = mesh.raw.request("amp.env.report." + sender, json.dumps({"version": 1, "from": sender, "envRequest": {"report": body}}).encode())
    return json.loads(said[3])["envReply"]["error"]["name"]


def forged(mesh):
    """Reports of leases that their sender never had, or has told of already, change nothing and write nothing."""
    def row(task):
        with sqlite3.connect(mesh.path("journal.db")) as db:
            return db.execute("SELECT entry, attempts FROM tasks WHERE id = ?", (task,)).fetchone()

    mesh.raw, gate = Nats(mesh.bus), mesh.path("gate-forged")
    first = mesh.instance("smith", "--skill", "forge")
    ended = mesh.run("ask", "--detach", "--skill", "forge", "stream 1").ok().out.strip()
    mesh.ended(ended)
    true = mesh.attempts(ended)[0]["epoch"]
    before = row(ended)
    for sender, epoch, instance in (("evil", true.split(".")[0] + ".999", "i-evil"), ("evil", true, first.instance), ("smith", true, "i-evil")):
        check(report(mesh, sender, ended, epoch, instance) in ("stale_lease", "task_ended"), "refused", sender, epoch)
    check(row(ended) == before, "an ended task by skill is as it was", before, row(ended))
    task = mesh.run("ask", "--detach", "--skill", "forge", f"wait {gate}").ok().out.strip()
    pid = until(lambda: mesh.calls("smith")[1:], "another is under way")[0]
    true = until(lambda: mesh.attempts(task)[0].get("epoch"), "under its lease")
    check(report(mesh, "smith", task, true, "i-evil", "WORKING") == "stale_lease", "it is not another instance's")
    first.signal(signal.SIGSTOP)
    mesh.instance("smith", "--skill", "forge")
    until(lambda: mesh.calls("smith")[2:], "a second instance gets it")
    open(gate, "w").close()
    mesh.ended(task)
    row_of_end = row(task)
    check(report(mesh, "smith", task, true, first.instance, "WORKING") == "stale_lease" and row(task) == row_of_end, "of an ended task, who works on says nothing that is kept")
    for i, state in enumerate(("FAILED", "COMPLETED") * 10):
        check(report(mesh, "smith", task, true, first.instance, state, f"claim {i}") in ("stale_lease", "busy"), "refused")
    until(lambda: row(task) != row_of_end, "the first end that it tells is kept")
    kept = row(task)
    check("claim 0" in kept[1] and "forged" not in kept[1] and len(mesh.attempts(task)) == 2, "as one line of its attempt", kept)
    for state in ("WORKING", "COMPLETED", "FAILED") * 5:
        check(report(mesh, "smith", task, true, first.instance, state, "again") == "stale_lease", "refused")
    ask = mesh.run("ask", "--durable", "smith", "stream 1").ok()  # committed behind all of it
    check(row(task) == kept, "and never written again", kept, row(task), ask.out)
    first.signal(signal.SIGCONT)
    until(lambda: process_state(pid) in ("Z", None), "the one that was late stops")


def usurped(mesh):
    """Who may call an agent, or guesses an epoch, ends nobody's attempt and takes nobody's answer."""
    def say(subject, body, sender="evil"):
        answer = mesh.raw.request(subject, json.dumps({"version": 1, "from": sender, **body}).encode())
        return json.loads(answer[3])

    mesh.raw, gate = Nats(mesh.bus), mesh.path("gate-usurped")
    holder = mesh.instance("victim", "--concurrency", "2")
    task = mesh.detach("victim", f"wait {gate}")
    boot, number = (int(n) for n in until(lambda: mesh.attempts(task)[0].get("startedAt") and mesh.attempts(task)[0]["epoch"], "it works").split("."))
    epoch, ctl = boot << 32 | number, f"amp.ctl.{holder.instance}.{task}"
    for other in (epoch + 1, 1 << 63, (1 << 64) - 1):
        request = {"taskId": task, "contextId": "c-evil", "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "stream 1"}]}, "epoch": str(other), "leaseMs": 3000}
        check(say(f"amp.req.victim.{holder.instance}.evil", {"request": request})["reply"]["error"]["name"] == "conflict", "another's request for it is refused", other)
    for other in (0, 1, epoch - 1, epoch + 1, (1 << 64) - 1):
        check(say(ctl, {"control": {"attach": {"epoch": str(other), "fromSeq": 1}}})["reply"]["error"]["name"] == "stale_lease", "so is a reader with another epoch", other)
    for seq in (0, 9, (1 << 32) - 1):
        check(say(ctl, {"control": {"attach": {"epoch": str(epoch), "fromSeq": seq}}})["reply"]["error"]["name"] in ("invalid", "frames_lost"), "or one of what is not there", seq)
    check("frame" in say(ctl, {"control": {"attach": {"epoch": str(epoch), "fromSeq": 1}}}), "who knows the epoch reads, as whoever may control the task may")
    open(gate, "w").close()
    done = mesh.ended(task)
    check(len(done["metadata"]["amp/attempts"]) == 1 and text_of(done).startswith("answer of "), "but the environment gets all of it, in the one attempt", done)


def control(mesh, instance, task, body):
    """What an environment says to the holder of a lease → the first thing that comes back"""
    return json.loads(mesh.raw.request(f"amp.ctl.{instance}.{task}", json.dumps({"version": 1, "from": "tester", "control": body}).encode())[3])


def given_up(mesh):
    """An environment that gave an attempt up and died before it wrote that down: the next one must not take what its agent said of the cancel for the end of the task."""
    holder = mesh.instance("patient", "--concurrency", "2")
    for n, (epoch, is_kept) in enumerate((("9", False), ("8", True))):
        task, begun = f"t-given-up-{n}", len(mesh.calls("patient"))
        request = {"taskId": task, "contextId": "c-given-up", "epoch": "8", "leaseMs": 60000, "ackMs": 100, "message": {
            "messageId": "m", "role": "ROLE_USER", "parts": [{"text": "wait /nowhere"}]}}
        taken = json.loads(mesh.raw.request("amp.req.patient.tester", json.dumps({"version": 1, "from": "tester", "request": request}).encode())[3])
        check(taken.get("frame", {}).get("instance") == holder.instance, "it is taken", taken)
        pid = until(lambda: mesh.calls("patient")[begun:], "and worked on")[0]
        late = control(mesh, holder.instance, task, {"ping": {"epoch": "6", "done": True}})
        check(late.get("reply", {}).get("error", {}).get("name") == "stale_lease", "what is said of an attempt before it does not concern it", late)
        check("error" not in control(mesh, holder.instance, task, {"cancel": {"epoch": epoch}}).get("reply", {}), "the cancel is taken")
        until(lambda: process_state(pid) is None, "the agent is stopped")
        attached = control(mesh, holder.instance, task, {"attach": {"epoch": "8", "fromSeq": 1}})
        if is_kept:
            check("frame" in attached, "the end of a task that was cancelled is there to be read", attached)
        else:
            check(attached.get("reply", {}).get("error", {}).get("name") in ("stale_lease", "no_such_task"), "an attempt that was given up is not gone on with", attached)


def zombie_at_work(mesh):
    """It comes back and is still at it: it is told to stop."""
    gate = mesh.path("gate-busy")
    first = mesh.instance("busy")
    task = mesh.detach("busy", f"wait {gate}")
    pid = until(lambda: mesh.calls("busy"), "the first one works")[0]
    until(lambda: mesh.attempts(task)[0].get("startedAt"), "the environment knows who has it")
    mesh.instance("busy")
    first.signal(signal.SIGSTOP)
    until(lambda: mesh.calls("busy")[1:], "another one gets the task")
    first.signal(signal.SIGCONT)
    until(lambda: process_state(pid) is None, "the one that lost its lease is stopped")
    open(gate, "w").close()
    done = mesh.ended(task)
    check(text_of(done).strip() == f"answer of {mesh.calls('busy')[1]}", "the other one goes on", done)


def claimed(mesh, task):
    """It has ended there; what was on its way out of the agent may have met the order to stop."""
    return mesh.attempts(task)[0].get("ignored", [{}])[0].get("state") in ("completed", "canceled")


def partition(mesh):
    """Cut off from the bus: it stops its agent by itself, so that no two work on the task for long."""
    gate, proxy = mesh.path("gate-island"), Proxy(mesh.port)
    first = mesh.instance("island", env={"AMESH_BUS": proxy.url})
    task = mesh.detach("island", f"wait {gate}")
    pid = until(lambda: mesh.calls("island"), "it works")[0]
    mesh.instance("island")
    proxy.open.clear()
    second = until(lambda: mesh.calls("island")[1:], "another one gets the task")[0]
    until(lambda: process_state(pid) is None, "the one that is cut off has stopped its agent")
    open(gate, "w").close()
    done = mesh.ended(task)
    check(text_of(done).strip() == f"answer of {second}", "the other one ends it", done)
    proxy.open.set()
    until(lambda: any(i["id"] == first.instance and i["state"] == "up" for i in mesh.run("show", "island", "--json").ok().json()["instances"]), "it comes back")
    check(len(mesh.calls("island")) == 2, "nobody else was asked", mesh.calls("island"))


def bus_restarts(mesh):
    """The server is killed and is away for longer than a lease: the attempts go on."""
    gate = mesh.path("gate-outage")
    mesh.instance("steadfast")
    waiting = mesh.detach("steadfast", f"wait {gate}")
    mesh.instance("flowing")
    streaming = mesh.detach("flowing", "stream 500")
    until(lambda: mesh.calls("steadfast") and mesh.calls("flowing"), "they work")
    mesh.server.signal(signal.SIGKILL)
    mesh.server.wait()
    threading.Event().wait(6)  # twice the lease
    mesh.start_server()
    until(lambda: mesh.run("show", "steadfast", "--json").status == 0, "the bus is back")
    open(gate, "w").close()
    done = mesh.ended(waiting)
    check(len(mesh.calls("steadfast")) == 1 and text_of(done).strip() == f"answer of {mesh.calls('steadfast')[0]}", "the first attempt ended it", mesh.calls("steadfast"), done)
    pieces = text_of(mesh.ended(streaming)).split()
    check(len(mesh.calls("flowing")) == 1 and pieces == [w for i in range(500) for w in ("piece", str(i))], "and all that was said meanwhile is there", mesh.calls("flowing"), len(pieces))


def everything_restarts():
    """`amesh up` is stopped for longer than a lease, as for an upgrade, and once killed, with its nats-server: agents work on, and their tasks go on, also if they come back to the bus as late
    as they may (2 s)."""
    with Mesh() as mesh:
        gate, log = os.path.join(mesh.home, "gate"), os.path.join(mesh.home, "log")
        agent = mesh.agent("steadfast", "--", PY, "-c", AGENT, log)
        task = mesh.run("ask", "--detach", "steadfast", f"wait {gate}").ok().out.strip()
        until(lambda: mesh.run("task", "show", task, "--json").ok().json()["metadata"]["amp/attempts"][0].get("startedAt"), "it works")
        for signo in (signal.SIGTERM, signal.SIGKILL):
            mesh.up.signal(signo)
            mesh.up.wait()
            threading.Event().wait(5)
            agent.signal(signal.SIGSTOP)
            mesh.start_up()
            threading.Event().wait(1.8)
            agent.signal(signal.SIGCONT)
        open(gate, "w").close()
        done = until(lambda: (lambda t: t["status"]["state"] in ENDS and t)(mesh.run("task", "show", task, "--json").ok().json()), "it ends")
        with open(log, encoding="utf-8") as f:
            calls = f.read().split()
        check(len(calls) == 1 and text_of(done).strip() == f"answer of {calls[0]}", "by the first attempt", calls, done)


def environment_killed_twice(mesh):
    """200 pieces over some seconds while the environment dies twice: one attempt, all events, one end."""
    mesh.instance("stream")
    task = mesh.detach("stream", "stream 200")

    def at():
        try:
            with open(mesh.path("stream.log.at"), encoding="utf-8") as f:
                return int(f.read() or 0)
        except FileNotFoundError:
            return 0

    for piece in (40, 110):
        until(lambda: at() >= piece, "it streams")
        mesh.kill_env()
        until(lambda: at() >= piece + 15, "and does not stop for want of an environment")
        mesh.start_env()
    done = mesh.ended(task)
    check(text_of(done) == "".join(f"piece {i}\n" for i in range(200)), "every piece is there once", text_of(done)[-200:])
    attempts = done["metadata"]["amp/attempts"]
    check(len(attempts) == 1 and len(mesh.calls("stream")) == 1, "in one attempt", attempts, mesh.calls("stream"))
    check(len([l for l in mesh.run("task", "watch", task, "--json").ok().out.splitlines() if "piece" in l]) > 50, "as it was streamed")


def done_without_environment(mesh):
    """It ends while no environment is there: the result is kept, and taken. With --retry never, too."""
    gate = mesh.path("gate-alone")
    mesh.instance("alone", "--concurrency", "2", "--retry", "never")
    tasks = [mesh.detach("alone", f"wait {gate}") for _ in range(2)]
    until(lambda: len(mesh.calls("alone")) == 2, "it works")
    until(lambda: all(mesh.show(t)["status"]["state"] == "TASK_STATE_WORKING" for t in tasks), "the environment knows it")
    mesh.kill_env()
    open(gate, "w").close()
    until(lambda: all(process_state(pid) is None for pid in mesh.calls("alone")), "it is done")
    mesh.start_env()
    for task in tasks:
        done = mesh.ended(task)
        check(text_of(done).startswith("answer of ") and len(done["metadata"]["amp/attempts"]) == 1, "in one attempt", done)
    check(len(mesh.calls("alone")) == 2, "nothing was done twice", mesh.calls("alone"))


def holder_died_meanwhile(mesh):
    """Nobody has it any more when the next environment looks: it is tried again and says why, or fails with the reason."""
    gate, never = mesh.path("gate-heir"), mesh.path("never")
    holders = [mesh.instance("heir"), mesh.instance("once-only", "--retry", "never")]
    safe, fixed = mesh.detach("heir", f"wait {gate}"), mesh.detach("once-only", f"wait {never}")
    until(lambda: all(mesh.attempts(t)[0].get("startedAt") for t in (safe, fixed)), "both are under way")
    mesh.kill_env()
    for process in holders:
        process.signal(signal.SIGKILL)
        process.wait()
    mesh.instance("heir")
    mesh.instance("once-only")
    mesh.start_env()
    open(gate, "w").close()
    lost, won = mesh.ended(safe)["metadata"]["amp/attempts"]
    check(lost["outcome"] == "instance_lost" and lost["reason"] and won["attempt"] == 2, "tried again, with the cause", lost, won)
    failed = mesh.ended(fixed, "TASK_STATE_FAILED")
    text = failed["status"]["message"]["parts"][0]["text"]
    check(len(failed["metadata"]["amp/attempts"]) == 1 and "once-only" in text, "failed, with the reason", failed)
    check(len(mesh.calls("once-only")) == 1, "and not done twice", mesh.calls("once-only"))


def never_again(mesh):
    """--retry never: an agent that dies, or an instance that is cut off, ends the task, with what is known of it."""
    mesh.agent("fragile", "--retry", "never", "--", "sh", "-c", "echo last words >&2; kill -9 $$")
    r = mesh.run("ask", "--durable", "fragile", "x")
    check(r.status == 1 and "AMESH-3004" in r.err and "SIGKILL" in r.err and "last words" in r.err, "with the death report", r.status, r.err)
    holder = mesh.instance("single", "--retry", "never")
    task = mesh.detach("single", f"wait {mesh.path('gate-single')}")
    until(lambda: mesh.attempts(task)[0].get("startedAt"), "it works")
    holder.signal(signal.SIGSTOP)
    failed = mesh.ended(task, "TASK_STATE_FAILED")
    check("its lease is over" in failed["status"]["message"]["parts"][0]["text"], "with the reason", failed["status"])
    open(mesh.path("gate-single"), "w").close()
    until(lambda: process_state(mesh.calls("single")[0]) in ("Z", None), "its agent ends")
    holder.signal(signal.SIGCONT)
    until(lambda: claimed(mesh, task), "a late result does not change that")
    mesh.ended(task, "TASK_STATE_FAILED")


def hung(mesh):
    """Processes that live and do nothing: stopped, or silent for longer than they may be."""
    gate = mesh.path("gate-hung")
    mesh.instance("hung")
    task = mesh.detach("hung", f"wait {gate}")
    pid = until(lambda: mesh.calls("hung"), "it works")[0]
    mesh.instance("hung")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: mesh.calls("hung")[1:], "another one gets the task")
    open(gate, "w").close()
    lost, won = mesh.ended(task)["metadata"]["amp/attempts"]
    check(lost["outcome"] == "hung" and lost["error"] == "AMESH-3013" and "stopped" in lost["reason"] and won["attempt"] == 2, "as hung, and why", lost, won)
    until(lambda: process_state(pid) is None, "the one that stood still is killed")
    code = "import signal,sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nfor line in sys.stdin: signal.pause()"
    mesh.agent("mute", "--mode", "jsonl", "--progress-timeout", "300ms", "--retry", "never", "--", PY, "-c", code)
    check("AMESH-3013" in mesh.run("ask", "mute", "x").err, "an agent that holds its connection is found silent, too")
    deaths = until(lambda: mesh.run("show", "mute", "--json").ok().json()["deaths"], "its end is reported")
    check(deaths[0]["signal"] == 9 and deaths[0]["by_sidecar"] is True and "killed by SIGKILL by its sidecar" in mesh.run("show", "mute").ok().out, "with who ended it", deaths)
    mesh.instance("silent", "--progress-timeout", "700ms", "--retry", "never")
    r = mesh.run("ask", "silent", f"wait {mesh.path('never')}")
    check(r.status == 1 and "AMESH-3013" in r.err and "said nothing" in r.err, "silence is told to a caller, too", r.status, r.err)
    r = mesh.run("ask", "silent", "stream 100")
    check(r.status == 0 and "piece 99" in r.out, "one that goes on saying something may take its time", r.status, r.err)
    r = mesh.run("run", "--progress-timeout", "soon", "--", "cat")
    check(r.status == 2 and "--progress-timeout" in r.err, "which must be a time", r.status, r.err)


def again_at_once(mesh):
    """Of an attempt that has ended its environment asks for the frames once more, needs it no longer, and gives the task to the same instance again: all in one breath. An attempt of
    which it does not say that it has its end is reported, and holds nobody up either."""
    peer, holder, task, said = Nats(mesh.bus), mesh.instance("again"), "t-again", []
    reports = []

    def message(subject, inbox, **body):
        data = json.dumps({"version": 1, "from": "boss", **body}).encode()
        return f"PUB {subject} {inbox} {len(data)}\r\n".encode() + data + b"\r\n"

    def request(epoch):
        asked = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "stream 1"}]}
        return message("amp.req.again.boss", f"_INBOX.again.{epoch}", request={"taskId": task, "contextId": "c-again", "message": asked, "attempt": epoch, "epoch": str(epoch), "leaseMs": 3000})

    def is_over(epoch):
        heard = peer.next(0.1)
        if heard and heard[0].startswith("amp.env"):
            reports.append(heard[3])
        elif heard:
            said.append((heard[0], json.loads(heard[3])))
        return [body for inbox, body in said if inbox == f"_INBOX.again.{epoch}" and ("reply" in body or "end" in body["frame"])]

    def control(**what):
        return message(f"amp.ctl.{holder.instance}.{task}", "_INBOX.again.1", control=what)

    peer.sub("_INBOX.again.*")
    peer.sub("amp.env.report.again")
    peer.sock.sendall(request(1))
    until(lambda: is_over(1), "the first attempt ends")
    peer.sock.sendall(control(attach={"epoch": "1", "fromSeq": 1}) + control(ping={"done": True}) + request(2))
    end = until(lambda: is_over(2), "the second one is answered")[0]
    check("frame" in end and len(mesh.calls("again")) == 2, "by work, and not by a conflict with the first one", end)
    check(not reports, "and the first one, which nobody needs any more, is not reported", reports)
    peer.sock.sendall(request(3))
    end = until(lambda: is_over(3), "the third one is answered")[0]
    check("frame" in end and len(mesh.calls("again")) == 3, "by work, too", end)
    check([task.encode() in data and b"piece 0" in data for data in reports] == [True], "and how the second one ended is reported", reports)


def retry_in_words(mesh):
    """An agent that dies: who watches reads what happens, and why."""
    flag = mesh.path("died")
    mesh.agent("once", "--", "sh", "-c", f"test -e {flag} || {{ touch {flag}; kill -9 $$; }}; cat")
    words = "retrying (agent died: SIGKILL), attempt 2"
    ours, theirs = terminal()
    child = subprocess.Popen([AMESH, "ask", "--durable", "once", "hello"], env=mesh.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
    out, _ = child.communicate(timeout=60)
    said = os.read(ours, 4096).decode()
    check(child.returncode == 0 and out.strip() == b"hello" and words in said, "at a terminal", child.returncode, out, said)
    task = mesh.run("task", "ls", "--agent", "once", "--json").ok().json()["tasks"][0]["id"]
    check(words in mesh.run("task", "watch", task).ok().out, "task watch says it", mesh.run("task", "watch", task).out)
    check(words in mesh.run("task", "show", task).ok().out, "task show says it", mesh.run("task", "show", task).out)
    died, mesh.raw = mesh.attempts(task)[0], Nats(mesh.bus)
    check(report(mesh, "once", task, died["epoch"], died["instance"], answer="") == "stale_lease", "who died may say once more that it did")
    mesh.run("ask", "--durable", "once", "hello").ok()  # committed behind it
    check("ignored" not in mesh.attempts(task)[0], "it is no news, and nothing that came too late", mesh.attempts(task))


def main():
    with Leases() as mesh:
        tap.run("a late result of an instance that was stopped past its lease is refused, and shown", zombie, mesh)
        tap.run("what is told of it begins with what had been confirmed before", zombie_half_known, mesh)
        tap.run("reports of a lease that their sender never had, or has told of, change nothing", forged, mesh)
        tap.run("another's requests, readers and epochs end no attempt and take no answer", usurped, mesh)
        tap.run("an attempt that was given up is over for every environment", given_up, mesh)
        tap.run("an instance that comes back to a lost lease stops its agent", zombie_at_work, mesh)
        tap.run("an instance that is cut off stops its agent by itself; another one goes on", partition, mesh)
        tap.run("the bus is away for longer than a lease: the attempts go on", bus_restarts, mesh)
        tap.run("kill -9 of the environment, twice, in the middle of a stream: one attempt and every event", environment_killed_twice, mesh)
        tap.run("what ends while no environment is there is kept for the next one", done_without_environment, mesh)
        tap.run("a holder that died meanwhile: tried again with the cause, or failed with it", holder_died_meanwhile, mesh)
        tap.run("--retry never: one attempt, and the reason", never_again, mesh)
        tap.run("an agent that stands still, stopped or silent, is found out and stopped", hung, mesh)
        tap.run("a task that ended here and is given here again at once is taken", again_at_once, mesh)
        tap.run("a retry is told in words", retry_in_words, mesh)
    tap.run("amesh up stopped and killed, with its server, and away for longer than a lease: tasks go on", everything_restarts)
    tap.done()


main()
