#!/usr/bin/env python3
"""A direct call whose instance fails before it has shown anything goes to another one; whatever was shown, or must not be done twice, stays where it was. Real processes, a real nats-server."""
import http.client
import json
import os
import signal
import socket
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import Bus, Tap, check, process_state, until  # noqa: E402

PY = sys.executable
tap = Tap()

# Writes down that it has begun; waits for a gate, after some output if it is told so, and answers.
AGENT = """
import os, sys, threading
pause = threading.Event()
log, text = sys.argv[1], sys.stdin.read().strip()
words = text.split()
if 'shown' in words:
    print('so far', flush=True)
fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(fd, (str(os.getppid()) + ' ' + str(os.getpid()) + ' ' + text + '\\n').encode())
gate = words[-1]
while gate.startswith('/') and not os.path.exists(gate):
    pause.wait(0.005)
if 'crash' in words:
    sys.exit(1)
print('done by', os.getppid())
"""


class Failover(Bus):
    def instance(self, name, *options):
        """Of retry "safe" unless something else is said; "--retry", None: nothing is said."""
        options = options if "--retry" in options else ("--retry", "safe", *options)
        options = options[2:] if options[1] is None else options
        return self.agent(name, *options, "--", PY, "-c", AGENT, self.path(name + ".log"))

    def begun(self, name):
        """→ [instance, pid, text] of each beginning."""
        instances = {str(p.child.pid): p.instance for p in self.processes if hasattr(p, "instance")}
        return [(instances[parent], pid, text) for parent, pid, text in (line.split(" ", 2) for line in self.lines_of(name + ".log"))]

    def ask(self, name, text, *options):
        """In the background; → thread with .result once it has ended."""
        return self.begin("ask", *options, name, text, deadline=120)

    def taken(self, name, count=1):
        until(lambda: len(self.begun(name)) >= count, f"{name} works")
        return self.begun(name)[count - 1]

    def events(self, thread):
        thread.join()
        return thread.result.lines()

    def task_of(self, thread):
        return next(line["statusUpdate"]["taskId"] for line in thread.result.lines() if "statusUpdate" in line)

    def ended(self, task):
        until(lambda: self.state(task) in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED"), "the record has an end")
        return self.show(task)


def retries(lines):
    return [line["statusUpdate"]["metadata"]["amp/retry"] for line in lines if "amp/retry" in line.get("statusUpdate", {}).get("metadata", {})]


def ends(lines):
    return [line["statusUpdate"]["status"]["state"] for line in lines if line.get("statusUpdate", {}).get("status", {}).get("state") in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED")]


def pair(mesh, name, *options):
    return {p.instance: p for p in (mesh.instance(name, *options), mesh.instance(name, *options))}


def check_record(mesh, task, other, code):
    record = mesh.ended(task)
    check(record["status"]["state"] == "TASK_STATE_COMPLETED", "the record has the one end", record["status"])
    attempts = record["metadata"]["amp/attempts"]
    check([a["attempt"] for a in attempts] == [1, 2] and attempts[0]["error"] == code and attempts[1]["instance"] == other, "both attempts, and why there were two", attempts)
    lines = mesh.run("task", "watch", task, "--json").ok().lines()
    check(len(retries(lines)) == 1 and ends(lines) == ["TASK_STATE_COMPLETED"], "history: one retry, one end", lines)
    check("retrying" in mesh.run("task", "show", task).ok().out, "people read it too")


def sidecar_killed(mesh):
    """Taken, nothing shown, then kill -9 of the sidecar (and of its child, which would go on alone)."""
    both = pair(mesh, "mortal")
    gate = mesh.path("gate-mortal")
    thread = mesh.ask("mortal", f"work {gate}", "--events")
    victim, pid, _ = mesh.taken("mortal")
    both[victim].signal(signal.SIGKILL)
    os.kill(int(pid), signal.SIGKILL)
    other, _, _ = mesh.taken("mortal", 2)
    check(other != victim, "the other one has it")
    open(gate, "w").close()
    lines = mesh.events(thread)
    check(thread.result.status == 0 and ends(lines) == ["TASK_STATE_COMPLETED"], "it ends well", thread.result.err, lines)
    check([r["attempt"] for r in retries(lines)] == [2] and retries(lines)[0]["code"] == "AMESH-3005", "the caller is told", lines)
    check([line["seq"] for line in lines] == list(range(1, len(lines) + 1)), "one sequence of numbers", lines)
    check_record(mesh, mesh.task_of(thread), other, "AMESH-3005")


def agent_killed(mesh):
    """The agent's process dies: its sidecar says so, and the other instance has it at once."""
    pair(mesh, "frail")
    gate = mesh.path("gate-frail")
    thread = mesh.ask("frail", f"work {gate}", "-v")
    victim, pid, _ = mesh.taken("frail")
    os.kill(int(pid), signal.SIGKILL)
    other, _, _ = mesh.taken("frail", 2)
    open(gate, "w").close()
    thread.join()
    check(thread.result.status == 0 and thread.result.out.startswith("done by") and other != victim, "it ends well, elsewhere", thread.result.out, thread.result.err)
    check("retrying (agent died: SIGKILL), attempt 2" in thread.result.err, "people read why", thread.result.err)
    task = mesh.run("task", "ls", "--agent", "frail", "--json").ok().json()
    task = (task["tasks"] if isinstance(task, dict) else task)[0]
    check_record(mesh, task.get("id") or task["task"]["id"], other, "AMESH-3004")


def shown(mesh):
    """What was shown cannot be taken back: the call fails, with the report."""
    pair(mesh, "talker")
    gate = mesh.path("gate-talker")
    thread = mesh.ask("talker", f"shown {gate}")
    _, pid, _ = mesh.taken("talker")
    os.kill(int(pid), signal.SIGKILL)
    thread.join()
    check(thread.result.status == 1 and "AMESH-3004" in thread.result.err and thread.result.out == "so far\n", "it fails", thread.result.status, thread.result.err, repr(thread.result.out))
    check(len(mesh.begun("talker")) == 1, "once", mesh.begun("talker"))
    for words in ("shown crash", "crash"):
        result = mesh.run("ask", "talker", words)
        check(result.status == 1 and "AMESH-3001" in result.err, f"an agent that says that it failed has failed ({words})", result.err)
    check(len(mesh.begun("talker")) == 3, "each once", mesh.begun("talker"))


def never(mesh):
    """Neither a caller nor an agent that forbids it is disregarded, and where nobody says anything a direct call begins once."""
    for name, options, asked in (("once", ("--retry", "never"), ("--retry", "safe")), ("free", (), ("--retry", "never")), ("unsaid", ("--retry", None), ())):
        pair(mesh, name, *options)
        gate = mesh.path("gate-" + name)
        thread = mesh.ask(name, f"work {gate}", *asked)
        _, pid, _ = mesh.taken(name)
        os.kill(int(pid), signal.SIGKILL)
        thread.join()
        check(thread.result.status == 1 and "AMESH-3004" in thread.result.err, f"{name} fails with the report", thread.result.err)
        check(len(mesh.begun(name)) == 1, "and is not begun again", mesh.begun(name))


def said_by_the_caller(mesh):
    """Who asks may know that it does no harm."""
    pair(mesh, "asked", "--retry", None)
    gate = mesh.path("gate-asked")
    thread = mesh.ask("asked", f"work {gate}", "--retry", "safe")
    victim, pid, _ = mesh.taken("asked")
    os.kill(int(pid), signal.SIGKILL)
    other, _, _ = mesh.taken("asked", 2)
    open(gate, "w").close()
    thread.join()
    check(thread.result.status == 0 and other != victim, "it ends well, elsewhere", thread.result.err)


def alone(mesh):
    """Where there is no other instance the call ends at once, as it was, and so does its record."""
    mesh.instance("single")
    gate = mesh.path("gate-single")
    thread = mesh.ask("single", f"work {gate}", "--events")
    _, pid, _ = mesh.taken("single")
    os.kill(int(pid), signal.SIGKILL)
    lines = mesh.events(thread)
    check(thread.result.status == 1 and "AMESH-3004" in thread.result.err and "SIGKILL" in thread.result.err, "with the report", thread.result.err)
    check(ends(lines) == ["TASK_STATE_FAILED"] and not retries(lines), "no retry is told", lines)
    check(mesh.state(mesh.task_of(thread)) == "TASK_STATE_FAILED", "the record ends at once")


def attempts(mesh):
    """Three instances are enough to try: what kills each of them is the task."""
    for _ in range(4):
        mesh.instance("doomed")
    gate = mesh.path("gate-doomed")
    thread = mesh.ask("doomed", f"work {gate}", "--events")
    for i in range(3):
        _, pid, _ = mesh.taken("doomed", i + 1)
        os.kill(int(pid), signal.SIGKILL)
    lines = mesh.events(thread)
    check(thread.result.status == 1 and "AMESH-3004" in thread.result.err, "the last report is the end", thread.result.err)
    check([r["attempt"] for r in retries(lines)] == [2, 3] and ends(lines) == ["TASK_STATE_FAILED"], "three attempts, one end", lines)
    check(len({i for i, _, _ in mesh.begun("doomed")}) == 3, "at three instances", mesh.begun("doomed"))
    record = mesh.ended(mesh.task_of(thread))
    check(len(record["metadata"]["amp/attempts"]) == 3, "so says the record", record["metadata"]["amp/attempts"])


def unanswered(mesh):
    """A sidecar that stands still is picked by the bus all the same: the call goes elsewhere, and when it wakes nothing of its attempt reaches anybody."""
    both = pair(mesh, "still")
    stopped = mesh.instance("still2")
    for p in both.values():
        p.stop()
    other = mesh.agent("still2", "--retry", "safe", "--", PY, "-c", AGENT, mesh.path("still2.log"))
    stopped.signal(signal.SIGSTOP)
    threads = [mesh.ask("still2", f"n{i}", "--events") for i in range(4)]
    for thread in threads:
        lines = mesh.events(thread)
        check(thread.result.status == 0 and ends(lines) == ["TASK_STATE_COMPLETED"], "it ends well", thread.result.err, lines)
    check({i for i, _, _ in mesh.begun("still2")} == {other.instance}, "at the one that answers", mesh.begun("still2"))
    met = [t for t in threads if retries(t.result.lines())]
    check(all(retries(t.result.lines())[0]["code"] == "AMESH-3005" for t in met), "those that met it are told", [t.result.out for t in met])
    stopped.signal(signal.SIGCONT)
    for thread in met:
        record = mesh.ended(mesh.task_of(thread))
        check(record["status"]["state"] == "TASK_STATE_COMPLETED" and record["metadata"]["amp/attempts"][-1]["instance"] == other.instance, "one end", record)
    until(lambda: mesh.run("ask", "still2", "again").status == 0, "it serves again")


def over_http(mesh, caller, count):
    """So many calls, one after the other, by the sidecar of `caller`. → how often one was given to another instance"""
    n_retries = 0
    for i in range(count):
        link = http.client.HTTPConnection("mesh", timeout=60)
        link.sock = socket.socket(socket.AF_UNIX)
        link.sock.settimeout(60)
        link.sock.connect(os.path.join(mesh.home, "run", caller.instance + ".sock"))
        link.request("POST", "/v1/send/trio", f"{caller.instance} {i}".encode(), {"Content-Type": "text/plain", "Accept": "text/event-stream"})
        text = link.getresponse().read().decode()
        link.close()
        check("TASK_STATE_COMPLETED" in text and "event: end" in text, "it ends well", text)
        n_retries += text.count('"amp/retry"')
    return n_retries


def one_of_three(mesh):
    """Two hundred calls of four callers, while one of three sidecars stands still and is picked by the bus."""
    trio = [mesh.agent("trio", "--concurrency", "4", "--retry", "safe", "--", "cat") for _ in range(3)]
    callers = [mesh.agent(f"caller-{i}", "--", "cat") for i in range(4)]
    trio[0].signal(signal.SIGSTOP)
    paid = {}

    def run(caller):
        paid[caller.instance] = over_http(mesh, caller, 50)
    threads = [threading.Thread(target=run, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("# calls that met it, by caller:", sorted(paid.values()))
    check(len(paid) == 4, "all calls of all callers end well", paid)
    check(max(paid.values()) <= 4, "a caller that has met it avoids it", paid)
    until(lambda: any(i["state"] == "lost" for i in mesh.run("show", "trio", "--json").ok().json()["instances"]), "it is known as lost")
    trio[0].signal(signal.SIGCONT)


ECHO = """
import json, sys
for line in sys.stdin:
    frame = json.loads(line)
    if frame.get('method') == 'task.run':
        print(json.dumps({'id': frame['id'], 'result': frame['params']['text']}), flush=True)
"""


def stuck(mesh):
    """An agent whose process is stopped takes nothing, says so, and does again when it moves."""
    first = mesh.agent("statue", "--mode", "jsonl", "--", PY, "-c", ECHO)

    def instances():
        return mesh.run("show", "statue", "--json").ok().json()["instances"]
    check(mesh.run("ask", "statue", "a").ok().out.strip() == "a", "it answers")
    pid = instances()[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: instances()[0].get("stuck"), "it says that it stands still")
    check("stuck" in mesh.run("ls").ok().out and "is stopped" in mesh.run("show", "statue").ok().out, "people read it")
    second = mesh.agent("statue", "--mode", "jsonl", "--", PY, "-c", ECHO)
    for i in range(5):
        check(mesh.run("ask", "statue", f"b{i}", "--events").ok().out.count('"amp/retry"') == 0, "calls go to the other one at once")
    second.stop()
    thread = mesh.ask("statue", "c")
    os.kill(pid, signal.SIGCONT)
    thread.join()
    check(thread.result.out.strip() == "c" and first.child.poll() is None, "it is served when it moves again", thread.result.err)


def superseded(mesh):
    """A caller that goes on with another attempt has given up the one before, be it with a question: the instance stops it, and may have the next one then."""
    holder, gate = mesh.instance("former"), mesh.path("gate-former")
    mesh.instance("former")
    raw, task = Nats(mesh.bus), "t-superseded"

    def request(attempt, sender="tester"):
        body = {"taskId": task, "contextId": "c-superseded", "attempt": attempt, "ackMs": 100, "timeoutMs": 60000, "mayRetry": True, "message": {
            "messageId": "m", "role": "ROLE_USER", "parts": [{"text": f"work {gate}"}]}}
        answer = raw.request(f"amp.req.former.{holder.instance}.{sender}", json.dumps({"version": 1, "from": sender, "request": body}).encode())
        return json.loads(answer[3])

    def refused(answer):
        return answer.get("reply", {}).get("error", {}).get("name")
    check("frame" in request(1), "it is taken")
    _, pid, _ = mesh.taken("former")
    check(refused(request(1)) == "conflict" and refused(request(2, "other")) == "conflict" and process_state(int(pid)), "the same again, or somebody else, ends nothing")
    check(refused(request(2)) == "conflict", "the former one is still here")
    until(lambda: process_state(int(pid)) is None, "and is stopped")
    check("frame" in until(lambda: (answer := request(2)).get("frame") and answer, "the next one is taken"), "by the same instance")
    open(gate, "w").close()
    record = mesh.ended(task)
    check(record["status"]["state"] == "TASK_STATE_COMPLETED" and [a["error"] for a in record["metadata"]["amp/attempts"][:-1]] == ["AMESH-3005"], "one end, two attempts", record)


def canceled(mesh):
    """A call that is cancelled in its second attempt ends as cancelled; its deadline is for all attempts."""
    pair(mesh, "late")
    gate = mesh.path("gate-late")
    process = mesh.spawn("ask", "late", f"work {gate}")
    _, pid, _ = mesh.taken("late")
    os.kill(int(pid), signal.SIGKILL)
    mesh.taken("late", 2)
    process.signal(signal.SIGINT)
    check(process.wait() == 130, "interrupted", process.err)
    thread = mesh.ask("late", f"work {gate}", "--timeout", "3s")
    _, pid, _ = mesh.taken("late", 3)
    os.kill(int(pid), signal.SIGKILL)
    thread.join()
    check(thread.result.status == 6 and "AMESH-3006" in thread.result.err and "3000 ms" in thread.result.err, "the deadline of all attempts", thread.result.err)


def main():
    with Failover() as mesh:
        tap.run("a sidecar is killed: the call goes to the other instance, and its record has both attempts and one end", sidecar_killed, mesh)
        tap.run("an agent is killed: its call goes to the other instance", agent_killed, mesh)
        tap.run("what was shown is not shown twice, and what failed by itself is not tried again", shown, mesh)
        tap.run("--retry never, of the agent and of the caller", never, mesh)
        tap.run("--retry safe, of the caller", said_by_the_caller, mesh)
        tap.run("without another instance a call fails as it always did", alone, mesh)
        tap.run("three attempts, no more", attempts, mesh)
        tap.run("a sidecar that stands still", unanswered, mesh)
        tap.run("one of three sidecars stands still: all calls succeed, and few meet it", one_of_three, mesh)
        tap.run("an agent that is stopped takes nothing", stuck, mesh)
        tap.run("a further attempt ends the one before at the same instance", superseded, mesh)
        tap.run("cancel and deadline go over all attempts", canceled, mesh)
    tap.done()


main()
