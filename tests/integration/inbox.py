#!/usr/bin/env python3
"""Questions of agents and the answers of people, with real processes that are killed while questions are open: nobody is asked twice, what was answered is not lost, exactly one
answer counts."""
import json
import os
import resource
import select
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import Bus, Process, Tap, check, terminal, until  # noqa: E402

AGENT = os.path.join(HERE, "../support/asker.py")
SERVED = AGENT + ":agent"
tap = Tap()


class Asking(Bus):
    """Every part can be killed alone; what the agents' code did stands in a file, a line each."""

    def start_up(self):
        self.log = self.env["ASKED_LOG"] = os.path.join(self.home, "asked.log")
        open(self.log, "w").close()
        super().start_up()

    @staticmethod
    def kill(process):
        process.signal(signal.SIGKILL)
        process.wait()

    def submit(self, agent, text, *args):
        return self.run("ask", "--durable", "--detach", *args, agent, text).ok().out.strip()

    def inbox(self, task=None, *args):
        questions = self.run("inbox", "--json", *args).ok().json()["questions"]
        return [q for q in questions if task in (None, q["taskId"])]

    def asked(self, task, n=1, **members):
        """→ the open questions of the task, once there are n (with these members)."""
        def look():
            q = [q for q in self.inbox(task) if all(q.get(k) == v for k, v in members.items())]
            return q if len(q) == n else None
        return until(look, f"{n} questions of {task} with {members}", 30)

    def show(self, task):
        return self.run("task", "show", task, "--json").ok().json()

    def done(self, task, wanted="COMPLETED"):
        """→ the text of its answer, once it has ended."""
        def look():
            record = self.show(task)
            return record if record["status"]["state"] not in ("TASK_STATE_WORKING", "TASK_STATE_INPUT_REQUIRED", "TASK_STATE_SUBMITTED") else None
        record = until(look, f"{task} ends", 40)
        check(record["status"]["state"] == "TASK_STATE_" + wanted, wanted, record)
        return "".join(p.get("text", "") for a in record.get("artifacts", []) for p in a["parts"]).strip()

    def events(self, task, name):
        """→ all `name` metadata of the task's history, in order"""
        lines = self.run("task", "watch", task, "--json").lines()
        check([e["seq"] for e in lines] == list(range(1, len(lines) + 1)), "no gap in the history", [e["seq"] for e in lines])
        return [e["statusUpdate"]["metadata"][name] for e in lines if name in e.get("statusUpdate", {}).get("metadata", {})]

    def pid_of(self, task):
        """→ the process in which the agent's code runs the task now"""
        lines = [line.split() for line in open(self.log) if line.startswith(f"begin {task} ")]
        return int(lines[-1][3])

    def attempts(self, task):
        return sum(1 for line in open(self.log) if line.startswith(f"begin {task} "))


# ---- one environment, one agent --------------------------------------------------------------------------------


def lists(mesh):
    task = mesh.submit("py", "two")
    first = mesh.asked(task, 2)
    q = next(q for q in first if q["prompt"] == "Which colour?")
    check(q["agent"] == "py" and q["from"].startswith("cli-") and q["request"] == "two" and q["durable"] and not q["away"], "who, what, for whom", q)
    check(q["options"] == ["red", "blue"] and q["expiresAt"] > q["askedAt"], "options and expiry", q)
    table = mesh.run("inbox").ok().out
    check(table.split()[0] == "QUESTION" and q["id"] in table and task in table and "[red|blue]" in table and "{n: integer 1..}" in table, "a table for people", table)
    check(len(mesh.inbox(task, "--agent", "py")) == 2 and not mesh.inbox(task, "--agent", "other"), "by agent")
    check(len(mesh.inbox(task, "--context", q["contextId"])) == 2 and not mesh.inbox(task, "--context", "c-none"), "by conversation")
    several = mesh.run("answer", task, "red")
    check(several.status == 8 and q["id"] in several.err, "a task that asks two things: which one?", several.status, several.err)
    mesh.run("answer", q["id"], "RED").ok()
    mesh.run("answer", task, "--json-value", '{"n": 3}').ok()
    check(mesh.done(task) == "red 3", "both answers arrive", mesh.done(task))
    said = mesh.events(task, "amp/answer")
    check([s["by"].startswith("cli-") for s in said] == [True, True] and said[0]["value"] == "red", "history says who answered what", said)


def reads_as_talk(mesh):
    task = mesh.submit("py", "two")
    colour, count = sorted(mesh.asked(task, 2), key=lambda q: q["prompt"], reverse=True)
    mesh.run("answer", colour["id"], "red").ok()
    context = colour["contextId"]
    waits = mesh.run("history", context).ok().out
    check(waits.count("py: Which colour?") == waits.count("py: How many?") == 1 and ": red\n" in waits, "while it waits each question stands once", waits)
    os.kill(mesh.pid_of(task), signal.SIGKILL)
    until(lambda: mesh.attempts(task) == 2, "a second attempt", 30)
    [count] = mesh.asked(task, 1, away=False)
    mesh.run("answer", count["id"], "--json-value", '{"n": 3}').ok()
    mesh.done(task)
    said = [line.split(": ", 1) for line in mesh.run("history", context).ok().out.splitlines()[1:]]
    check([words for _, words in said[:1] + said[3:]] == ["two", "red", '{"n":3}', "red 3"] and sorted(words for _, words in said[1:3]) == ["How many?", "Which colour?"],
          "question once, then its answer", said)
    me = said[0][0]
    check(me.startswith("cli-") and [who for who, _ in said] == [me, "py", "py", me, me, "py"], "and who gave it", said)
    [record] = mesh.run("history", context, "--json").ok().json()["tasks"]
    marks = [m.get("metadata", {}) for m in record["history"][1:]]
    check([list(m) for m in marks] == [["amp/question"]] * 2 + [["amp/answer"]] * 2 and marks[2]["amp/answer"] == {"id": colour["id"], "by": me}, "programs see which question", record["history"])


def refuses(mesh):
    task = mesh.submit("py", "two")
    colour, count = sorted(mesh.asked(task, 2), key=lambda q: q["prompt"], reverse=True)
    for args, word in ((("green",), "none of the options"), (("--option", "7"), "none of the options"), (("--json-value", "{"), "JSON")):
        r = mesh.run("answer", colour["id"], *args)
        check(r.status == 2 and word in r.err, f"{args} is refused", r.status, r.err)
    for args, word in ((("many",), "answer: an object"), (("--json-value", '{"n":"3"}'), "answer.n: an integer"), (("--json-value", '{"n":0}'), "1 or more"),
                       (("--json-value", "{}"), "answer.n: this is required"), (("--json-value", '{"n":1,"m":1}'), "answer.m: there is no property")):
        r = mesh.run("answer", count["id"], *args)
        check(r.status == 2 and word in r.err, f"{args} is refused with what and where", r.status, r.err)
    check(mesh.run("answer", "q-none", "x").status == 4, "no such question: 4")
    check(mesh.run("answer", "t-none", "x").status == 4, "no such task: 4")
    check(mesh.run("answer", colour["id"]).status == 2, "without an answer and a terminal: 2")
    check(mesh.run("answer", colour["id"], "red", "--option", "1").status == 2, "two answers in one: 2")
    mesh.run("answer", colour["id"], "-", text="blue\n").ok()
    path = os.path.join(mesh.home, "count.json")
    with open(path, "w") as f:
        f.write('{"n": 4}\n')
    mesh.run("answer", count["id"], "--file", path).ok()
    check(mesh.done(task) == "blue 4", "from standard input and from a file")
    late = mesh.run("answer", colour["id"], "red")
    check(late.status == 8 and "answered already, by cli-" in late.err and "amesh inbox" in late.err, "a question of a task that has ended: it is answered", late.status, late.err)
    said = env_reply(mesh, command={"id": task, "control": {"answer": {"inputId": colour["id"], "message": {"messageId": "m-late", "role": "ROLE_USER", "parts": [{"text": "red"}]}}}})
    check(said["error"]["code"] == 4005 and "answered already, by cli-" in said["error"]["message"], "also if it ended while the answer was on its way", said)
    ended = mesh.run("answer", task, "red")
    check(ended.status == 8 and f"{task} has ended" in ended.err and f"amesh task show {task}" in ended.err, "a task that has ended asks nothing", ended.status, ended.err)
    idle = mesh.run("answer", mesh.submit("nobody-is-called-so", "x"), "x")
    check(idle.status == 8 and "amesh inbox" in idle.err and "asks nothing now" in idle.err, "one that asks nothing: what does", idle.status, idle.err)


def one_wins(mesh):
    for _ in range(5):
        task = mesh.submit("py", "one")
        [q] = mesh.asked(task)
        results = []

        def answer(text):
            results.append((mesh.run("answer", q["id"], text), text))
        people = [threading.Thread(target=answer, args=(f"person{i}",)) for i in range(4)]
        for p in people:
            p.start()
        for p in people:
            p.join()
        won = [text for r, text in results if r.status == 0]
        check(len(won) == 1 and all(r.status == 8 and "answered already" in r.err for r, text in results if text not in won), "exactly one answer counts", [(r.status, r.err) for r, _ in results])
        check(mesh.done(task) == "said " + won[0], "and it is the one that arrives", mesh.done(task), won)


def expires(mesh):
    task = mesh.submit("py", "soon")
    check(mesh.done(task) == "default no, then expired", "a default, else an error", mesh.done(task))
    closed = mesh.events(task, "amp/question_closed")
    watched, shown = (mesh.run("task", what, task).ok().out for what in ("watch", "show"))
    check(watched.count("question expired, default taken: no") == 1 and watched.count("question expired  (q-") == 1, "who watches is told", watched)
    check(shown.count("its default counts: no") == 1 and shown.count("  expired  ") == 2 and "(open)" not in shown and "  says  " not in shown, "and who looks afterwards", shown)
    check([c["why"] for c in closed] == ["expired", "expired"] and closed[0]["default"] == "no", "history says so", closed)
    task = mesh.submit("py", "impatient")
    mesh.done(task, "FAILED")
    said = mesh.show(task)["status"]["message"]["parts"][0]["text"]
    check(said == "the question was not answered in time", "who lets that fail has it as the reason, said once", said)


def turns(mesh):
    task = mesh.submit("py", "turn")
    [q] = mesh.asked(task)
    check(q["prompt"] == "Your name?", "the end of a turn is in the inbox too", q)
    mesh.run("answer", q["id"], "Ada").ok()
    check(mesh.done(task) == "hello Ada", "the next turn has the answer")


def direct(mesh):
    r = mesh.run("ask", "py", "one")
    task = r.err.split("--task", 1)[1].split()[0]
    [q] = mesh.asked(task)
    check(not q["durable"], "a direct call asks in the same inbox", q)
    mesh.run("answer", q["id"], "directly").ok()
    check(mesh.done(task) == "said directly", "and is answered in the same way")
    check(until(lambda: not mesh.inbox(task), "it has left the inbox", 10), "closed")


def person(mesh):
    """Somebody at a terminal: asked here, told what is wrong, asked again."""
    ours, theirs = terminal()
    task = mesh.submit("py", "one-of")
    [q] = mesh.asked(task)
    process = Process([mesh.env["AMESH"], "answer", q["id"]], dict(mesh.env, TERM="dumb"), "answer", stdin=theirs)
    process.wait_line(lambda line: "2) blue" in line, stream="err")
    os.write(ours, b"green\n")
    process.wait_line(lambda line: "none of the options" in line, stream="err")
    os.write(ours, b"2\n")
    check(process.wait() == 0, "the number of an option", process.err)
    os.close(ours)
    os.close(theirs)
    check(mesh.done(task) == "chose blue", "is that option")


def person_asks(mesh):
    """The same where the task was asked for: direct and durable. Who is not at a terminal sees what there is to choose from."""
    for how in ([], ["--durable"]):
        ours, theirs = terminal()
        process = Process([mesh.env["AMESH"], "ask", *how, "py", "one-of"], dict(mesh.env, TERM="dumb"), "ask", stdin=theirs, stderr=theirs)
        for wanted, typed in ((b"2) blue", b"green\n"), (b"none of the options", b"2\n")):
            screen = b""
            while wanted not in screen or not screen.endswith(b"> "):
                check(select.select([ours], [], [], 30)[0], f"it shows {wanted}", screen)
                screen += os.read(ours, 4096)
            os.write(ours, typed)
        check(process.wait() == 0 and process.out == ["chose blue"], "the number of an option is that option", process.out)
        os.close(ours)
        os.close(theirs)
    r = mesh.run("ask", "py", "one-of")
    check("[red|blue" in r.err and "2)" not in r.err, "without numbers, which only a person can type", r.status, r.err)
    mesh.run("task", "cancel", r.err.split("--task", 1)[1].split()[0])


def watches(mesh):
    watch = mesh.spawn("inbox", "--watch", "--json", "--agent", "py")
    task = mesh.submit("py", "one")
    asked = json.loads(watch.wait_line(lambda line: task in line))
    check(asked["event"] == "asked" and asked["prompt"] == "Say something", "told when it is asked", asked)
    mesh.run("answer", asked["id"], "x").ok()
    closed = json.loads(watch.wait_line(lambda line: asked["id"] in line))
    check(closed["event"] == "closed", "and when it is closed", closed)
    watch.signal(signal.SIGINT)
    check(watch.wait() == 130, "until it is interrupted")


def cancelled(mesh):
    task = mesh.submit("py", "one")
    mesh.asked(task)
    mesh.run("task", "cancel", task).ok()
    until(lambda: not mesh.inbox(task), "a cancelled task asks nothing", 10)
    mesh.done(task, "CANCELED")


# ---- killed while questions are open ----------------------------------------------------------------------------


def again(mesh, task, q, kill):
    """Kills, and the question is there as before: one, of the same id."""
    before = mesh.attempts(task)
    kill()
    until(lambda: mesh.attempts(task) > before, "another attempt", 40)
    [same] = mesh.asked(task, away=False)
    check(same["id"] == q["id"] and same["askedAt"] == q["askedAt"], "the same question", q, same)


def agent_killed(mesh):
    task = mesh.submit("py", "one")
    [q] = mesh.asked(task)
    again(mesh, task, q, lambda: os.kill(mesh.pid_of(task), signal.SIGKILL))
    mesh.run("answer", q["id"], "after the agent").ok()
    check(mesh.done(task) == "said after the agent", "answered once", mesh.done(task))


def exec_killed(mesh):
    task = mesh.submit("exec", "one")
    [q] = mesh.asked(task)
    again(mesh, task, q, lambda: os.killpg(mesh.pid_of(task), signal.SIGKILL))
    mesh.run("answer", q["id"], "after the program").ok()
    check(mesh.done(task) == "said after the program", "answered once", mesh.done(task))


def replayed(mesh):
    """Two questions one after the other; the second attempt gets the answer of the first without asking anybody."""
    task = mesh.submit("py", "chain")
    [q] = mesh.asked(task, prompt="First?")
    mesh.run("answer", q["id"], "A").ok()
    [second] = mesh.asked(task, prompt="Second?")
    again(mesh, task, second, lambda: os.kill(mesh.pid_of(task), signal.SIGKILL))
    mesh.run("answer", second["id"], "B").ok()
    check(mesh.done(task) == "A then B", "both", mesh.done(task))
    said = mesh.events(task, "amp/answer")
    shown = mesh.run("task", "show", task).ok().out
    check(shown.count("  replayed  ") == 1 and shown.count("  answer  ") == 2 and shown.count("asked again: Second?") == 1, "the timeline too", shown)
    check([(s["text"], s.get("again", False)) for s in said] == [("A", False), ("A", True), ("B", False)], "the history shows the answer that was given again", said)


def withdrawn(mesh):
    """The second attempt asks something else: the first question goes, visibly."""
    task = mesh.submit("py", "fickle")
    [q] = mesh.asked(task, prompt="Attempt 1?")
    os.kill(mesh.pid_of(task), signal.SIGKILL)
    mesh.asked(task, prompt="Attempt 2?")
    until(lambda: q["id"] not in [o["id"] for o in mesh.inbox(task)], "the old one is withdrawn", 20)
    gone = mesh.run("answer", q["id"], "x")
    check(gone.status == 8 and "withdrawn" in gone.err, "who answers it is told", gone.status, gone.err)
    mesh.run("answer", task, "new").ok()
    check(mesh.done(task) == "said new", "the new one counts")
    check([c["id"] for c in mesh.events(task, "amp/question_closed")] == [q["id"]], "history says so")


def sidecar_killed(mesh):
    """Nobody is there: the answer is taken all the same, and reaches the next attempt."""
    lonely = mesh.agent("lonely", SERVED)
    task = mesh.submit("lonely", "one")
    [q] = mesh.asked(task)
    mesh.kill(lonely)
    mesh.asked(task, away=True)
    r = mesh.run("answer", q["id"], "to nobody")
    check(r.status == 0, "accepted while the agent is away", r.status, r.err)
    check(mesh.run("answer", q["id"], "again").status == 8, "and only once")
    mesh.agent("lonely", SERVED)
    check(mesh.done(task) == "said to nobody", "it reaches the agent when that is back", mesh.done(task))
    check(len(mesh.events(task, "amp/question")) == 1, "nobody was asked twice")


def env_killed(mesh):
    tasks = [mesh.submit("py", text) for text in ("one", "chain", "turn")]
    qs = [mesh.asked(task)[0] for task in tasks]
    mesh.run("answer", qs[1]["id"], "A").ok()
    [second] = mesh.asked(tasks[1], prompt="Second?")
    mesh.kill(mesh.up)
    mesh.start_env()
    check(sorted(q["id"] for q in mesh.inbox() if q["taskId"] in tasks) == sorted([qs[0]["id"], second["id"], qs[2]["id"]]), "the questions are there at once", mesh.inbox())
    mesh.run("answer", qs[0]["id"], "after the environment").ok()
    mesh.run("answer", second["id"], "B").ok()
    mesh.run("answer", qs[2]["id"], "Ada").ok()
    check([mesh.done(t) for t in tasks] == ["said after the environment", "A then B", "hello Ada"], "all answers arrive", [mesh.done(t) for t in tasks])
    late = [mesh.run("answer", q["id"], "late") for q in (*qs, second)]
    check(all(r.status == 8 and "answered already" in r.err for r in late), "who comes after the end is told that they are answered", [r.err for r in late])


def killed_behind_the_answer(mesh):
    """Accepted, then kill -9 of the environment at once: the answer is there."""
    lonely = mesh.agent("lonely3", SERVED)
    task = mesh.submit("lonely3", "one")
    [q] = mesh.asked(task)
    mesh.kill(lonely)
    mesh.asked(task, away=True)
    mesh.run("answer", q["id"], "kept").ok()
    mesh.kill(mesh.up)
    mesh.start_env()
    twice = mesh.run("answer", q["id"], "other")
    check(twice.status == 8 and "answered already" in twice.err, "the new environment knows of it", twice.status, twice.err)
    mesh.agent("lonely3", SERVED)
    check(mesh.done(task) == "said kept", "and gives it to the next attempt")


def oldest_first(mesh):
    """Also after a restart, also of those that were asked at once, and of those that were asked while the environment was away."""
    gates = [os.path.join(mesh.home, f"gate{n}") for n in range(4)]
    for gate in gates:
        os.mkfifo(gate)
    waiting = [mesh.submit("py", "gate " + gates[n]) for n in (3, 2, 1, 0)]
    until(lambda: sum(1 for line in open(mesh.log) if line.startswith("waits ")) == 4, "they work", 20)
    task = mesh.submit("py", "flood")
    before = mesh.asked(task, 64)
    for each in waiting:  # else it is begun once more: that it was taken is told a little later (spec/amp.md 5.2.1)
        until(lambda: mesh.run("task", "show", each, "--json").ok().json()["metadata"]["amp/attempts"][0].get("startedAt"), "it is known to be worked on", 20)
    mesh.kill(mesh.up)
    for n, gate in enumerate(gates):
        open(gate, "w").close()
        until(lambda: sum(1 for line in open(mesh.log) if line.startswith("asks ")) == n + 1, "asked", 20)
        over = time.monotonic() + 1
        until(lambda: time.monotonic() > over, "a moment")
    mesh.start_env()
    check([q["id"] for q in mesh.asked(task, 64)] == [q["id"] for q in before], "in the order of before", [q["prompt"] for q in mesh.inbox(task)], [q["prompt"] for q in before])
    late = until(lambda: [q["prompt"] for q in mesh.inbox() if q["prompt"] in gates][3:] and mesh.inbox(), "those of the meantime are there too", 20)
    check([q["prompt"] for q in late if q["prompt"] in gates] == gates, "oldest first", [(q["prompt"], q["askedAt"]) for q in late if q["prompt"] in gates])
    check([q["askedAt"] for q in late] == sorted(q["askedAt"] for q in late), "by the times that they show", late)
    for q in late:
        if q["prompt"] in gates:
            mesh.run("answer", q["id"], "x").ok()
    mesh.run("task", "cancel", task).ok()
    for each in waiting:
        mesh.done(each)


def server_killed(mesh):
    task = mesh.submit("py", "one")
    [q] = mesh.asked(task)
    mesh.kill(mesh.server)
    mesh.start_server()
    until(lambda: mesh.run("inbox").status == 0, "the environment is back on the bus", 30)
    [same] = mesh.asked(task)
    check(same["id"] == q["id"], "the same question")
    until(lambda: mesh.run("answer", q["id"], "after the bus").status == 0, "answered when everybody is back", 30)
    check(mesh.done(task) == "said after the bus", "it arrives")


def bus_and_env_killed(mesh):
    """What a live environment has heard need not be on its disk: an agent goes on under the next one, whatever was asked of it when the bus came back."""
    task = mesh.submit("py", "heard", "--retry", "never")
    first, last = (next(q for q in mesh.asked(task, 3) if q["prompt"] == prompt) for prompt in ("First?", "Last?"))

    def restart(heard):
        until(lambda: f"heard {task} {heard}\n" in open(mesh.log), "it is known to the agent", 20)
        mesh.kill(mesh.server)
        mesh.start_server()
        until(lambda: mesh.run("inbox").status == 0 and not mesh.asked(task, away=False)[1:], "the environment is back on the bus", 30)
        mesh.kill(mesh.up)
        mesh.start_env()
        until(lambda: [q for q in mesh.inbox(task) if not q["away"]] or mesh.show(task)["status"]["state"] == "TASK_STATE_FAILED", "it is found again", 30)
        check(mesh.show(task)["status"]["state"] == "TASK_STATE_INPUT_REQUIRED", "and gone on with", mesh.show(task)["status"])
    mesh.run("answer", first["id"], "A").ok()
    restart("A")
    restart("late")
    mesh.run("answer", last["id"], "B").ok()
    check(mesh.done(task) == "late, A, B" and mesh.attempts(task) == 1, "it goes on in its first attempt", mesh.done(task), mesh.attempts(task))


def all_killed(mesh):
    """Everything at once: bus, environment, sidecar, agent."""
    lonely = mesh.agent("lonely2", "--concurrency", "2", SERVED)
    task, soon = mesh.submit("lonely2", "one"), mesh.submit("lonely2", "short")
    [q] = mesh.asked(task)
    for process in (lonely, mesh.up, mesh.server):
        mesh.kill(process)
    mesh.start_server()
    mesh.start_env()
    [same] = mesh.asked(task)
    check(same["id"] == q["id"] and same["askedAt"] == q["askedAt"], "the same question, before any agent is back", same)
    mesh.run("answer", q["id"], "after all").ok()
    mesh.agent("lonely2", "--concurrency", "2", SERVED)
    check(mesh.done(task) == "said after all", "the answer too")
    check(mesh.done(soon) in ("default late",), "the other task's question ran out", mesh.done(soon))


def env_reply(mesh, **request):
    body = json.dumps({"version": 1, "from": "tester", "envRequest": request}).encode()
    return json.loads(Nats(mesh.bus).request(f"amp.env.{next(iter(request))}.tester", body)[3])["envReply"]


def query_inbox(mesh, **query):
    return env_reply(mesh, inbox=query)


def pages(mesh, size):
    """→ ids of all open questions, `size` at a time"""
    ids, token = [], {}
    while True:
        reply = query_inbox(mesh, pageSize=size, **token)
        check(len(reply.get("questions", [])) <= size, "a page", reply)
        ids += [q["id"] for q in reply.get("questions", [])]
        if not reply.get("nextPageToken"):
            return ids
        token = {"pageToken": reply["nextPageToken"]}


def read_only(mesh):
    """The journal's disk is full: what is open by it is told; nobody can answer before there is an environment that can write it down."""
    task, other, silent = mesh.submit("py", "one"), mesh.submit("py", "heard"), mesh.submit("nobody", "nothing is asked")
    [q] = mesh.asked(task)
    three = mesh.asked(other, 3)
    quick, first, last = (next(x for x in three if x["prompt"] == prompt) for prompt in ("Quick?", "First?", "Last?"))
    mesh.run("answer", first["id"], "A").ok()
    until(lambda: f"heard {other} late\n" in open(mesh.log) and f"heard {other} A\n" in open(mesh.log), "one is answered, one has expired", 20)
    before = {x["id"]: x for x in mesh.inbox()}
    check({q["id"], last["id"]} <= set(before) and not {first["id"], quick["id"]} & set(before), "what is open", list(before))
    resource.prlimit(mesh.up.child.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))  # no more than that anywhere: the log may have begun anew
    r = mesh.run("ask", "--detach", "nobody", "x" * 100000)
    check(r.status == 7 and "AMESH-4003" in r.err, "nothing more is accepted", r.status, r.err)
    resource.prlimit(mesh.up.child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    after = until(lambda: (lambda r: r.status == 0 and r)(mesh.run("inbox", "--json")), "the inbox is read", 20).json()["questions"]
    same = ("id", "taskId", "contextId", "agent", "from", "prompt", "request", "askedAt", "durable")
    check([{k: x.get(k) for k in same} for x in after] == [{k: x.get(k) for k in same} for x in before.values()], "the same, in the same order", after, list(before.values()))
    check(all(x["away"] for x in after if x["durable"]), "nobody waits for the answer who could be told", after)
    check(pages(mesh, 1) == list(before), "in pages, too", pages(mesh, 1), list(before))
    for wanted, ids in ((task, [q["id"]]), (last["id"], [last["id"]]), (silent, [])):
        check([x["id"] for x in query_inbox(mesh, id=wanted).get("questions", [])] == ids, "of a task, and one alone", wanted)
    check(mesh.inbox(None, "--agent", "nobody") == [], "and none where nothing is asked")
    for past, words in ((first["id"], "answered"), (quick["id"], "its time is over")):
        error = query_inbox(mesh, id=past)["error"]
        check(error["code"] == 4005 and words in error["message"], "what became of the others is said", error)
    check(query_inbox(mesh, id="t-nobody")["error"]["code"] != 4005, "what is unknown is unknown")
    check(q["prompt"] in mesh.run("inbox").ok().out, "for people, too")
    r = mesh.run("answer", q["id"], "too early")
    check(r.status == 7 and "AMESH-4003" in r.err, "an answer is refused", r.status, r.err)
    mesh.kill(mesh.up)
    mesh.start_env()
    until(lambda: mesh.run("answer", q["id"], "later").status == 0, "the next environment takes it", 30)
    check(mesh.done(task) == "said later", "and it arrives")
    mesh.run("answer", last["id"], "B").ok()
    check(mesh.done(other) == "late, A, B", "so do all", mesh.done(other))
    mesh.run("task", "cancel", silent).ok()


def expiry_goes_on(mesh):
    """The clock of a question runs while its environment is dead."""
    task = mesh.submit("py", "short")
    mesh.asked(task)
    check("Quick?, default: late" in mesh.run("inbox").ok().out, "what counts without an answer stands in the list")
    mesh.kill(mesh.up)
    over = time.monotonic() + 2.1
    until(lambda: time.monotonic() > over, "the time runs out")
    mesh.start_env()
    check(mesh.done(task) == "default late", "expired at once", mesh.done(task))


# ---- who must not, and too much ----------------------------------------------------------------------------------


def foreign(mesh):
    """An answer in another's name is refused, and so is one for a task that is another's question."""
    task, other = mesh.submit("py", "one"), mesh.submit("py", "one")
    [q], [o] = mesh.asked(task), mesh.asked(other)
    nats = Nats(mesh.bus)

    def command(subject_from, sender, task_id, question):
        body = {"version": 1, "from": sender, "envRequest": {"command": {"id": task_id, "control": {"answer": {
            "inputId": question, "message": {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "forged"}]}}}}}}
        return json.loads(nats.request(f"amp.env.command.{subject_from}", json.dumps(body).encode())[3])["envReply"]["error"]["name"]
    check(command("mallory", "boss", task, q["id"]) == "denied", "the name in the envelope is not the sender's")
    check(command("mallory", "mallory", task, o["id"]) == "no_question", "a question of another task")
    for each in (q, o):
        mesh.run("answer", each["id"], "real").ok()
    check([mesh.done(task), mesh.done(other)] == ["said real", "said real"], "both have the true answer")


def flood(mesh):
    """As many as are allowed, and no more."""
    task = mesh.submit("py", "flood")
    mesh.asked(task, 64)
    until(lambda: any(line.startswith(f"refused {task} overloaded") for line in open(mesh.log)), "the 65th is refused", 20)
    mesh.run("task", "cancel", task).ok()
    mesh.done(task, "CANCELED")
    check(not mesh.inbox(task), "all gone")


def bad_questions(mesh):
    task = mesh.submit("py", "bad")
    said = mesh.done(task)
    for word in ("schema.pattern", "schema.properties.a.type", "options", "default", "nested at most"):
        check(word in said, f"a wrong question is refused and says where: {word}", said)


def control_text(mesh):
    task = mesh.submit("py", "escape")
    [q] = mesh.asked(task)
    table = mesh.run("inbox").ok().out
    check("\x1b" not in table and "\\u{1B}" in table, "text of agents is made harmless", repr(table))
    mesh.run("answer", q["id"], "x").ok()


def main():
    with Asking() as mesh:
        mesh.agent("py", "--concurrency", "16", SERVED)
        mesh.agent("py", "--concurrency", "16", SERVED)
        mesh.agent("exec", "--concurrency", "4", "--", AGENT)
        mesh.agent("exec", "--concurrency", "4", "--", AGENT)
        claims = [
            ("the inbox shows what is asked, by whom, with options and expiry, and each answer arrives", lists),
            ("a conversation's history has each question once, then the answer with who gave it", reads_as_talk),
            ("an answer that does not fit is refused with what and where, and the exit codes say which kind", refuses),
            ("of several people who answer at once exactly one wins, and the others are told", one_wins),
            ("a question that nobody answers in time gives its default, or an error", expires),
            ("a turn that ends with a question is in the inbox", turns),
            ("a direct call asks and is answered in the same way", direct),
            ("at a terminal the question is asked there", person),
            ("also by amesh ask, with numbers for the options", person_asks),
            ("--watch tells what is asked and closed", watches),
            ("a cancelled task asks nothing any more", cancelled),
            ("kill -9 of the agent: the question stays the same", agent_killed),
            ("kill -9 of a program that is run once per task: the question stays the same", exec_killed),
            ("what was answered before the kill is given to the next attempt", replayed),
            ("a question that the next attempt does not ask is withdrawn, visibly", withdrawn),
            ("kill -9 of the sidecar: an answer is taken while nobody is there", sidecar_killed),
            ("kill -9 of the environment: questions and answers are there again", env_killed),
            ("kill -9 of the environment right behind an accepted answer loses nothing", killed_behind_the_answer),
            ("oldest first, also after a restart of the environment", oldest_first),
            ("kill -9 of the bus: the question goes on", server_killed),
            ("kill -9 of the bus, then of the environment, behind an answer and an expiry: the agent goes on", bus_and_env_killed),
            ("kill -9 of everything: the question goes on", all_killed),
            ("a question expires while the environment is dead", expiry_goes_on),
            ("on a disk that is full, the questions that are open by it are told", read_only),
            ("an answer in another's name, or to another's question, is refused", foreign),
            ("a flood of questions is bounded", flood),
            ("a question that is none is refused, with the place", bad_questions),
            ("a question cannot write to the terminal of who reads it", control_text),
        ]
        only = sys.argv[1:]
        for claim, function in claims:
            if not only or function.__name__ in only:
                tap.run(claim, function, mesh)
    tap.done()


if __name__ == "__main__":
    main()
