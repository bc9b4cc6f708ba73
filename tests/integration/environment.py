#!/usr/bin/env python3
"""The environment as a process of its own on a real bus: killed in many moments, cancelled, on a full disk, twice on one journal. What was
accepted is there, ends once, and its events have no gap."""
import json
import os
import random
import resource
import signal
import sqlite3
import stat
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import Bus, Failed, Process, Tap, check, until  # noqa: E402

PY = sys.executable
SEED = int(os.environ.get("SEED", "20261124"))
tap = Tap()

def envelope(verb, body):
    return json.dumps({"version": 1, "from": "tester", "envRequest": {verb: body}}).encode()


def submit(agent, text, key):
    return envelope("submit", {"agent": agent, "key": key, "request": {"taskId": "", "contextId": "", "message": {
        "messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}]}}})


def ask_env(nats, verb, body):
    answer = nats.request(f"amp.env.{verb}.tester", envelope(verb, body))
    check(answer is not None, f"the environment answers {verb}")
    return json.loads(answer[3])["envReply"]


# A long-lived agent that waits for `go <file>` until the file is there, and notes each call in `log`.
WAITER = """
import json, os, sys, threading
log = sys.argv[1]
def work(frame):
    text = frame['params']['text']
    with open(log, 'a') as f:
        f.write('%s %d\\n' % (text, frame['params']['attempt']))
    word, _, path = text.partition(' ')
    if word == 'die':
        os.kill(os.getpid(), 9)
    while word == 'wait' and not os.path.exists(path) and frame['params']['taskId'] not in cancelled:
        changed.wait(0.02)
    reply = {'id': frame['id'], 'result': 'done in attempt %d' % frame['params']['attempt']}
    if frame['params']['taskId'] in cancelled:
        reply = {'id': frame['id'], 'error': {'code': -32800, 'message': 'cancelled'}}
    with lock:
        print(json.dumps(reply), flush=True)
lock, changed, cancelled = threading.Lock(), threading.Event(), set()
for line in sys.stdin:
    frame = json.loads(line)
    if frame.get('method') == 'task.run':
        cancelled.discard(frame['params']['taskId']) # that was another attempt
        threading.Thread(target=work, args=(frame,), daemon=True).start()
    elif frame.get('method') == 'task.cancel':
        cancelled.add(frame['params']['taskId'])
"""


def waiter(mesh, name, *options):
    log = os.path.join(mesh.home, name + ".log")
    mesh.agent(name, "--mode", "jsonl", *options, "--", PY, "-c", WAITER, log)
    return log


def calls(log):
    try:
        with open(log) as f:
            return f.read().splitlines()
    except FileNotFoundError:
        return []


def detach(mesh, agent, text, *options):
    return mesh.run("ask", "--detach", *options, agent, text).ok().out.strip()


def killed_at_random(mesh):
    """Submits without a pause, kill -9 in the middle of them, again and again."""
    mesh.agent("up", "--concurrency", "4", "--", "tr", "a-z", "A-Z")
    rng, accepted, stop = random.Random(SEED), {}, threading.Event()

    def submit_all():
        nats, number = Nats(mesh.bus), 0
        while not stop.is_set():
            number += 1
            for _ in range(200):  # the same key until it is answered: what a client does that lost the answer
                answer = nats.request("amp.env.submit.tester", submit("up", f"text {number}", f"k-{number}"), 1.0)
                reply = json.loads(answer[3]).get("envReply") if answer and answer[3] else None
                if reply and "error" not in reply:
                    accepted[number] = reply["tasks"][0]["task"]["id"]
                    break
                if stop.is_set():
                    return

    thread = threading.Thread(target=submit_all, daemon=True)
    thread.start()
    for _ in range(12):
        want = len(accepted) + rng.randrange(1, 25)
        until(lambda: len(accepted) >= want, "tasks are accepted again after a kill")
        mesh.restart_env()
    stop.set()
    thread.join(30)
    check(len(set(accepted.values())) == len(accepted), "each key has a task of its own")
    nats = Nats(mesh.bus)
    until(lambda: not mesh.run("task", "ls", "--open", "--json").ok().json()["tasks"], "all of them end")
    for number, task in accepted.items():
        record = ask_env(nats, "get", {"id": task, "events": True})["tasks"][0]
        text = "".join(p["text"] for a in record["task"].get("artifacts", []) for p in a["parts"])
        check(record["task"]["status"]["state"] == "TASK_STATE_COMPLETED" and f"TEXT {number}" in text, f"task {number} is done", record)
        states = [e["body"].get("statusUpdate", {}).get("status", {}).get("state") for e in record["events"]]
        ends = [s for s in states if s in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED")]
        check(ends == ["TASK_STATE_COMPLETED"] and states[-1] == ends[0], "exactly one end, and it is the last event", states)
        check(len(record["events"]) == record["eventsCount"], "no event is missing", record["eventsCount"], len(record["events"]))


def keys_after_a_kill(mesh):
    nats = Nats(mesh.bus)
    first = json.loads(nats.request("amp.env.submit.tester", submit("nobody-there", "x", "same"))[3])["envReply"]
    mesh.restart_env()
    again = json.loads(nats.request("amp.env.submit.tester", submit("nobody-there", "x", "same"))[3])["envReply"]
    check(again["tasks"][0]["task"]["id"] == first["tasks"][0]["task"]["id"] and again["duplicate"], "the same task", again)
    other = json.loads(nats.request("amp.env.submit.tester", submit("nobody-there", "y", "same"))[3])["envReply"]
    check(other["error"]["name"] == "conflict", "another request under the same key is a conflict", other)


def goes_on_with_a_busy_instance(mesh, name, is_written_down):
    """What is known to be running runs on; of what is not known a second attempt begins, which its instance, that has room for it, must not end with a conflict."""
    gate = os.path.join(mesh.home, "gate-" + name)
    log = waiter(mesh, name, "--concurrency", "2")
    task = detach(mesh, name, f"wait {gate}")
    until(lambda: calls(log), "the first attempt works")
    if is_written_down:
        until(lambda: mesh.state(task) == "TASK_STATE_WORKING", "the environment knows who has it")
    mesh.restart_env()
    open(gate, "w").close()
    until(lambda: mesh.state(task) == "TASK_STATE_COMPLETED", "it is done")
    check(len(calls(log)) <= (1 if is_written_down else 2), "and not more often than it must", calls(log))


def cancel_outlives_the_environment(mesh):
    log = waiter(mesh, "slow", "--concurrency", "2")
    task = detach(mesh, "slow", "wait /nonexistent/never")
    until(lambda: calls(log), "it works")
    mesh.run("task", "cancel", task).ok()
    mesh.restart_env()
    until(lambda: mesh.state(task) == "TASK_STATE_CANCELED", "cancelled, also by the next environment")
    check(len(calls(log)) == 1, "and not started again", calls(log))
    waiting = detach(mesh, "nobody-there", "x")
    mesh.run("task", "cancel", waiting).ok()
    mesh.restart_env()
    check(mesh.state(waiting) == "TASK_STATE_CANCELED", "one that waited too")
    r = mesh.run("task", "cancel", waiting)
    check(r.status == 8 and "AMESH-3011" in r.err, "what has ended cannot be cancelled", r.status, r.err)


def failures_count_over_restarts(mesh):
    log = waiter(mesh, "mortal")
    task = detach(mesh, "mortal", "die")
    until(lambda: len(calls(log)) >= 2, "it was tried again")
    mesh.restart_env()
    until(lambda: mesh.state(task) == "TASK_STATE_FAILED", "it is given up")
    record = mesh.show(task)
    died = [a for a in record["metadata"]["amp/attempts"] if a.get("error") == "AMESH-3004"]
    check(len(died) <= 5 and len(calls(log)) <= 6, "after five failures in all, whichever environment saw them", record["metadata"]["amp/attempts"], calls(log))


def one_environment_per_journal(mesh):
    r = mesh.run("env")
    check(r.status == 8 and "AMESH-4006" in r.err and "Try:" in r.err, "a second one on the same journal refuses", r.status, r.err)
    check(mesh.run("check").status in (0, 3) and mesh.up.child.poll() is None, "the first goes on")
    for name, mode in (("", 0o700), ("journal.db", 0o600), ("journal.db-wal", 0o600)):
        found = stat.S_IMODE(os.stat(os.path.join(mesh.home, name)).st_mode)
        check(found == mode, f"{name or 'the home'} is its user's alone", oct(found))


def newer_journal(mesh):
    mesh.kill_env()
    path = os.path.join(mesh.home, "journal.db")
    with sqlite3.connect(path) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("PRAGMA user_version = 99")
    db.close()
    r = mesh.run("env")
    check(r.status == 7 and "schema 99" in r.err and "Try:" in r.err, "a journal of a newer version is refused, and why", r.status, r.err)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    mesh.start_env()


def full_disk(mesh):
    """A real write error in the running environment: files may not be written any more."""
    log = waiter(mesh, "steady")
    before = detach(mesh, "nobody-there", "before")
    running = detach(mesh, "steady", "wait /nonexistent/never")
    until(lambda: calls(log), "a task is under way")
    until(lambda: any(a.get("startedAt") for a in mesh.show(running)["metadata"].get("amp/attempts", [])), "the environment knows who has it")
    texts = {before: "before", running: "wait /nonexistent/never"}
    known = {task: (mesh.show(task), mesh.run("task", "show", task).ok().out) for task in texts}
    resource.prlimit(mesh.up.child.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))  # no more than that anywhere: the log may have begun anew
    r = mesh.run("ask", "--detach", "steady", "x" * 100000)
    check(r.status == 7 and "AMESH-4003" in r.err and "Try:" in r.err, "what is not on the disk is not accepted; why, and what to do", r.status, r.err)
    resource.prlimit(mesh.up.child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    r = mesh.run("ask", "--detach", "steady", "later")
    check(r.status == 7 and "AMESH-4003" in r.err, "nor later: what the failed write left behind is not known", r.status, r.err)
    r = mesh.run("kv", "put", "--shared", "k", "1")
    check(r.status == 7 and "AMESH-4003" in r.err, "nor into memory", r.status, r.err)
    r = mesh.run("check", "--json")
    journal = [c for c in r.json()["checks"] if c["name"] == "journal"]
    check(r.status == 3 and journal and not journal[0]["ok"] and journal[0]["hint"], "amesh check says so", r.out)
    check(mesh.state(before) == "TASK_STATE_SUBMITTED", "reading goes on")
    check(mesh.state(running) in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"), "and shows what is on the disk")
    for task, text in texts.items():
        shown, wide = mesh.show(task), mesh.run("task", "show", task).ok().out
        check(text in wide and "asked" in wide, "complete: what was asked", wide)
        old = known[task][0]["metadata"].get("amp/attempts", [])
        check([(a["attempt"], a.get("instance")) for a in shown["metadata"].get("amp/attempts", [])] == [(a["attempt"], a.get("instance")) for a in old], "who has it", shown, known[task][0])
        check(shown.get("history") == known[task][0].get("history"), "and what was said", shown, known[task][0])
        listed = mesh.run("task", "ls", "--limit", "100").ok().out
        check(any(line.startswith(task) and text[:8] in line for line in listed.splitlines()), "a list has its text", listed)
        r = mesh.run("explain", task).ok()
        check(text in r.out and "no text" not in r.out and "on the way" not in r.out, "explain has it, too", r.out)
    r = mesh.run("inbox")
    check(r.status == 0, "so is the inbox", r.status, r.err)
    r = mesh.run("ls").ok()
    check(any(line.startswith("steady") for line in r.out.splitlines()), "agents are still listed", r.out)
    check(any("env.read_only" in line for line in mesh.up.err), "the log says so", mesh.up.err[-5:])
    r = mesh.run("task", "watch", running)
    check(r.status == 7 and "AMESH-4003" in r.err, "a watcher is told, too", r.status, r.err)
    r = mesh.run("task", "watch", "--json", running)
    check(r.status == 7 and "TASK_STATE_WORKING" in r.out, "and has what is on the disk before that", r.status, r.out)
    mesh.up.signal(signal.SIGTERM)
    check(mesh.up.wait() == 0, "it ends in good order")
    mesh.start_env()
    check("text" in mesh.run("task", "show", before, "--json").out and mesh.state(before) == "TASK_STATE_SUBMITTED", "nothing accepted is lost")
    for task in (before, running):
        mesh.run("task", "cancel", task).ok()
    until(lambda: mesh.state(running) == "TASK_STATE_CANCELED", "and it takes orders again")


def bus_comes_back(mesh_type):
    """nats-server is restarted in the middle of a durable task; the task goes on to its end."""
    with mesh_type() as mesh:
        gate = os.path.join(mesh.home, "gate")
        log = waiter(mesh, "patient")
        task = detach(mesh, "patient", f"wait {gate}")
        until(lambda: calls(log), "it works")
        watch, as_json = mesh.spawn("task", "watch", task), mesh.spawn("task", "watch", task, "--json")
        for w in (watch, as_json):
            w.wait_line(lambda line: "working" in line.lower() or "WORKING" in line)
        server = mesh.processes[0]
        port = mesh.bus.rsplit(":", 1)[1]
        server.signal(signal.SIGKILL)
        server.wait()
        again = Process([mesh.env.get("AMESH_NATS_SERVER", "nats-server"), "-a", "127.0.0.1", "-p", port], mesh.env, "nats-server")
        mesh.processes.append(again)
        again.wait_line(lambda line: "Server is ready" in line, stream="err")
        open(gate, "w").close()
        until(lambda: mesh.run("check").status == 0, "the mesh is well again")
        until(lambda: mesh.state(task) == "TASK_STATE_COMPLETED", "the task ends")
        for w in (watch, as_json):
            check(w.wait() == 0, "who watched it sees the end", w.err)
            check([line for line in w.err if "connection lost" in line] == ["connection lost: the bus is away; waiting for it, no event will be missing"], "and was told once that the bus is away", w.err)
            check([line for line in w.err if "again" in line] == ["connected again"] and len(w.err) == 2, "and once that it is back", w.err)
        seqs = [json.loads(line)["seq"] for line in as_json.out]
        check(seqs == list(range(1, len(seqs) + 1)), "stdout has the events and nothing else", as_json.out)


def watching_outlives_the_environment(mesh):
    """kill -9 of the environment: who watches is told, once, and once that a new one is there."""
    gate = os.path.join(mesh.home, "gate-watch")
    log = waiter(mesh, "watched")
    task = detach(mesh, "watched", f"wait {gate}")
    until(lambda: calls(log), "it works")
    watch = mesh.spawn("task", "watch", task)
    watch.wait_line(lambda line: "working" in line)
    mesh.kill_env()
    watch.wait_line(lambda line: "connection lost: no environment is there" in line, stream="err")
    mesh.start_env()
    watch.wait_line(lambda line: "connected again" in line, stream="err")
    open(gate, "w").close()
    check(watch.wait() == 0 and len(watch.err) == 2, "and it ends as ever", watch.err)


def larger_than_a_message(mesh):
    """3 MB of answer on a bus that carries 1 MB at once: nothing is cut in silence."""
    mesh.agent("big", "--", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
    task = mesh.run("ask", "--durable", "--json", "--key", "big", "big", "x").ok().json()
    text = "".join(p["text"] for a in task["artifacts"] for p in a["parts"])
    check(len(text) == 3000000, "ask --json has all of it", len(text))
    record = mesh.show(task["id"])
    check(record["metadata"]["amp/omitted"] == ["artifacts"], "a record says what it leaves out", record["metadata"])
    r = mesh.run("ask", "--durable", "--key", "big", "big", "x").ok()
    check(len(r.out.strip()) == 3000000, "the same key again: the same answer", len(r.out))
    events = len([line for line in mesh.run("task", "watch", task["id"], "--json").ok().out.splitlines() if line])
    shown = [line for line in mesh.run("task", "show", task["id"], "--events").ok().out.splitlines() if line[:2].isdigit() and line[2:3] == ":"]
    check(len(shown) == events and events > 40, "task show --events has all events", len(shown), events)


def dead_letters(mesh):
    """Poison is given up, listed with its reason, and tried again when somebody has mended the cause."""
    flag = os.path.join(mesh.home, "antidote")
    mesh.agent("poisoned", "--", "sh", "-c", f"test -e {flag} || kill -9 $$; cat")
    r = mesh.run("ask", "--durable", "--context", "c-dead", "poisoned", "swallow")
    check(r.status == 1 and "AMESH-3009" in r.err and "SIGKILL" in r.err and "task retry" in r.err, "given up, with the reason and the next step", r.status, r.err)
    dead = mesh.run("task", "ls", "--dead", "--agent", "poisoned", "--json").ok().json()["tasks"]
    check(len(dead) == 1 and len(dead[0]["metadata"]["amp/attempts"]) == 5, "a dead letter, after five attempts", [(a["attempt"], a["outcome"]) for a in dead[0]["metadata"]["amp/attempts"]])
    old = dead[0]["id"]
    table = mesh.run("task", "ls", "--dead").ok().out
    check(old in table and "killed by signal 9" in table, "the list says why", table)
    mesh.restart_env()
    check(old in mesh.run("task", "ls", "--dead").ok().out, "also after a kill -9 of the environment")
    open(flag, "w").close()
    both = [mesh.spawn("task", "retry", old) for _ in range(2)]
    ended = sorted((p.wait(), p) for p in both) if both[0].wait() != both[1].wait() else []
    check([status for status, _ in ended] == [0, 8], "two retries at once make one task", [p.out + p.err for p in both])
    new = ended[0][1].out[0]
    check(f"as task {new}" in " ".join(ended[1][1].err), "the other is told which", ended[1][1].err)
    mesh.restart_env()
    r = mesh.run("task", "retry", old, env={"USER": "somebody-else"})
    check(r.status == 8 and "AMESH-4005" in r.err and new in r.err, "also later, and whoever asks", r.status, r.err)
    check(new != old and mesh.run("task", "watch", new).ok(), "a new task", new)
    task = mesh.run("task", "show", new, "--json").ok().json()
    check(task["status"]["state"] == "TASK_STATE_COMPLETED" and task["metadata"]["amp/retryOf"] == old, "which knows the old one", task)
    check(task["contextId"] == "c-dead" and task["artifacts"][0]["parts"][0]["text"] == "swallow", "the same request in the same conversation", task)
    check(mesh.run("task", "ls", "--dead", "--agent", "poisoned", "--json").ok().json()["tasks"] == [], "no dead letter any more")
    for task, status, words in ((new, 8, "completed"), ("t-nobody", 4, "no such task"), ("*.>", 2, "")):
        r = mesh.run("task", "retry", task)
        check(r.status == status and words in r.err, f"retry {task}", r.status, r.err)
    mesh.run("ask", "--context", "c-direct", "poisoned", "x").ok()
    direct = mesh.run("task", "ls", "--context", "c-direct", "--json").ok().json()["tasks"][0]["id"]
    r = mesh.run("task", "retry", direct)
    check(r.status == 2 and "direct" in r.err and "--durable" in r.err, "a direct task is not kept for that", r.status, r.err)


def stops_in_good_order(mesh):
    task = detach(mesh, "nobody-there", "x")
    mesh.up.signal(signal.SIGTERM)
    check(mesh.up.wait() == 0, "exit 0", mesh.up.err[-5:])
    r = mesh.run("task", "show", task)
    check(r.status == 7 and "AMESH-4002" in r.err, "nobody answers now, which is said at once", r.status, r.err)
    mesh.start_env()
    check(mesh.state(task) == "TASK_STATE_SUBMITTED", "the task is there")


def reads_see_what_was_recorded(mesh):
    """Direct tasks are written some milliseconds later, together; who asks in between sees them all the same."""
    echo = mesh.agent("echo", "--concurrency", "4", "--", "cat")
    for n in range(20):
        done = mesh.run("ask", "echo", f"number {n}", "--json").ok().json()
        first = mesh.run("task", "ls", "--json", "--limit", "1").ok().json()["tasks"][0]
        check(first["id"] == done["id"] and first["status"]["state"] == "TASK_STATE_COMPLETED", "the newest task is the one that just ended", first, done)
        history = mesh.run("history", done["contextId"], "--json").ok().json()["tasks"]
        check(history[0]["artifacts"][0]["parts"][0]["text"] == f"number {n}", "with its answer", history)
    echo.stop()


def one_environment_per_bus(mesh):
    """With different journals each would take half of the tasks. The one that is there stays, and is not disturbed; killed, it is followed at once."""
    other = os.path.join(mesh.home, "other")
    os.mkdir(other, 0o700)
    r = mesh.run("env", env={"AMESH_HOME": other})
    check(r.status == 8 and "another environment serves this bus" in r.err and f"pid {mesh.up.child.pid} " in r.err, "the second one refuses and says who is there", r.status, r.err)
    check(mesh.run("check", "--json").status in (0, 3) and mesh.up.child.poll() is None, "the first one goes on")
    mesh.kill_env()
    second = mesh.spawn("env", env={"AMESH_HOME": other})
    second.wait_line("ready ")
    late = mesh.run("env")
    check(late.status == 8, "also when it is the other way round", late.status, late.err)
    # Stopped for a while, a first one is there again beside a second: who began later leaves.
    second.signal(signal.SIGSTOP)
    mesh.start_env()
    second.signal(signal.SIGCONT)
    check(mesh.up.wait() == 8, "the later of two leaves", mesh.up.err[-5:])
    second.stop()
    mesh.start_env()


def main():
    try:
        with Bus() as mesh:
            tap.run("kill -9 in the middle of submits: all that was accepted ends once, without a gap", killed_at_random, mesh)
            tap.run("a key means the same task after a kill -9", keys_after_a_kill, mesh)
            tap.run("an instance that works on a task goes on with it under the next environment", goes_on_with_a_busy_instance, mesh, "roomy", True)
            tap.run("and one that the old environment did not live to write down is done once more at most", goes_on_with_a_busy_instance, mesh, "roomier", False)
            tap.run("a cancel that was answered outlives the environment", cancel_outlives_the_environment, mesh)
            tap.run("failures count over restarts", failures_count_over_restarts, mesh)
            tap.run("who watches is told once that the environment is lost, and once that it is back", watching_outlives_the_environment, mesh)
            tap.run("one environment per journal, and its files are private", one_environment_per_journal, mesh)
            tap.run("one environment per bus, whatever its journal", one_environment_per_bus, mesh)
            tap.run("a journal of a newer version is refused", newer_journal, mesh)
            tap.run("a disk that takes nothing more is said everywhere, and loses nothing", full_disk, mesh)
            tap.run("a task larger than one message is whole, or says what is missing", larger_than_a_message, mesh)
            tap.run("whoever reads sees what was recorded before", reads_see_what_was_recorded, mesh)
            tap.run("dead letters: listed with their reason, tried again on demand", dead_letters, mesh)
            tap.run("SIGTERM ends it in good order", stops_in_good_order, mesh)
    except Failed as e:
        tap.run("the mesh of these tests", lambda: (_ for _ in ()).throw(e))
    tap.run("a restart of nats-server in the middle of a durable task", bus_comes_back, Bus)
    tap.done()


main()
