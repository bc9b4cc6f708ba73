#!/usr/bin/env python3
"""Every command of the command line with its options, JSON forms and exit codes, as a user's scripts rely on them."""
import json
import os
import re
import signal
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import AMESH, Bus, Mesh, Tap, check, until  # noqa: E402

RELEASE = os.environ.get("AMESH_RELEASE", AMESH)  # as fast as a user's
tap = Tap()
STATES = {"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_WORKING", "TASK_STATE_SUBMITTED", "TASK_STATE_INPUT_REQUIRED", "TASK_STATE_REJECTED"}


def up_twice(mesh):
    r = mesh.run("up")
    check(r.status == 8, "a second up on the same home exits 8", r.status, r.err)
    check(mesh.bus in r.err or "runs" in r.err or "running" in r.err, "and says who runs", r.err)


def up_detach_down():
    mesh = Mesh()
    try:
        r = mesh.run("up", "--detach").ok()
        check(r.out.startswith("ready nats://"), "up --detach returns when ready", r.out)
        mesh.run("check").ok()
        r = mesh.run("down").ok()
        for n in range(3):
            env = dict(AMESH_HOME=f"{mesh.home}/fresh{n}")
            at_once = subprocess.run(["sh", "-c", f"{RELEASE} up --detach && {RELEASE} check"], env=dict(mesh.env, **env), capture_output=True, text=True)
            mesh.run("down", env=env).ok()
            check(at_once.returncode == 0 and "✗" not in at_once.stdout and "FAIL" not in at_once.stdout, "a mesh that has just begun is well", at_once.stdout, at_once.stderr)
        r = mesh.run("down")
        check(r.status == 4, "down with nothing running exits 4", r.status, r.err)
        r = mesh.run("ask", "x", "y")
        check(r.status == 7 and "amesh up" in r.err, "no bus: exit 7 with the next step", r.status, r.err)
    finally:
        mesh.run("down")
        mesh.__exit__(None, None, None)


def up_external(mesh):
    with Bus() as running:
        running.kill_env()
        with Mesh(up=["--bus", running.bus]) as other:
            check(other.bus == running.bus, "up --bus uses the running server", other.bus)
    r = mesh.run("up", "--bus", mesh.bus, env={"AMESH_HOME": os.path.join(mesh.home, "second")})
    check(r.status == 8 and "another environment serves this bus" in r.err, "a bus has one environment", r.status, r.err)


def ls(mesh):
    agents = mesh.run("ls", "--json").ok().json()["agents"]
    names = [a["name"] for a in agents]
    check("upper" in names and "tagged" in names, "all agents", names)
    check("upper" in mesh.run("ls").ok().out, "as a table")
    skilled = [a["name"] for a in mesh.run("ls", "--skill", "shout", "--json").ok().json()["agents"]]
    check(skilled == ["upper"], "--skill", skilled)
    tagged = [a["name"] for a in mesh.run("ls", "--tag", "team=red", "--json").ok().json()["agents"]]
    check(tagged == ["tagged"], "--tag", tagged)
    watch = mesh.spawn("ls", "--watch", "--json")
    watch.wait_line(lambda l: "upper" in l)
    late = mesh.agent("latecomer", "--", "cat")
    watch.wait_line(lambda l: "latecomer" in l)
    watch.signal(signal.SIGINT)
    check(watch.wait() in (0, 130), "--watch ends on ctrl-c", watch.err)
    late.stop()


def watch_a_crowd(mesh):
    """Beats that never pause, of which none is news, hide no change and are none."""
    peer, over, rounds = Nats(mesh.bus), threading.Event(), []

    def crowd():
        while not over.is_set():
            for i in range(40):
                card = {} if rounds else {"card": {"name": f"crowd-{i}", "version": "1"}}
                beat = {"agent": f"crowd-{i}", "instance": f"i-crowd-{i}", "state": "INSTANCE_STATE_UP", "slots": 1, "free": 1, "intervalMs": 60000, **card}
                peer.pub(f"amp.hb.crowd-{i}.i-crowd-{i}", json.dumps({"version": 1, "beat": beat}).encode())
                peer.flush()
            rounds.append(1)

    beating = threading.Thread(target=crowd)
    beating.start()
    try:
        until(lambda: len(mesh.run("ls", "--json").ok().json()["agents"]) >= 40, "the crowd is known")
        watch = mesh.spawn("ls", "--watch", "--json")
        watch.wait_line(lambda l: "crowd-39" in l)
        before, began = len(watch.out), len(rounds)
        until(lambda: len(rounds) > began + 20, "they go on")
        check(len(watch.out) == before, "a beat that says nothing new is no change", len(watch.out) - before)
        late = mesh.agent("latecomer", "--", "cat")
        watch.wait_line(lambda l: "latecomer" in l)
        late.stop()
        watch.wait_line(lambda l: next((a for a in json.loads(l)["agents"] if a["name"] == "latecomer"), {"state": "gone"})["state"] == "gone")
        watch.signal(signal.SIGINT)
        watch.wait()
        kind = mesh.spawn("ls", "--watch", "--json", "--skill", "shout")
        line = kind.wait_line(lambda l: "upper" in l)
        began = len(rounds)
        until(lambda: len(rounds) > began + 20, "they go on")
        check("crowd" not in line and len(kind.out) == 1, "one skill only", len(kind.out))
        kind.signal(signal.SIGINT)
        kind.wait()
    finally:
        over.set()
        beating.join()


def show(mesh):
    doc = mesh.run("show", "upper", "--json").ok().json()
    card = doc["card"]
    check(card["name"] == "upper" and card["description"] == "says it louder", "card", card)
    check([s["id"] for s in card["skills"]] == ["shout"], "skills", card["skills"])
    for key in ("version", "capabilities", "defaultInputModes", "defaultOutputModes", "supportedInterfaces"):
        check(key in card, f"A2A requires {key}", card)
    i = doc["instances"][0]
    check(set(i) >= {"id", "host", "pid", "sidecar_pid", "state", "slots", "free", "inflight", "since", "last_progress"}, "members of an instance", i)
    check(i["slots"] == 2 and i["free"] == 2 and i["inflight"] == 0 and i["state"] == "up", "load", i)
    check(doc["deaths"] == [], "no deaths", doc["deaths"])
    check("shout" in mesh.run("show", "upper").ok().out, "for people")
    check(mesh.run("show", "nobody").status == 4, "not found: 4")


def ask(mesh):
    check(mesh.run("ask", "upper", "hello").ok().out.rstrip("\n") == "HELLO", "text")
    check(mesh.run("ask", "upper", "-", text="from stdin").ok().out.rstrip("\n") == "FROM STDIN", "- reads stdin")
    check(mesh.run("ask", "--skill", "shout", "x").ok().out.rstrip("\n") == "X", "--skill")
    task = mesh.run("ask", "--json", "upper", "hello").ok().json()
    check(set(task) >= {"id", "contextId", "status", "artifacts"} and task["status"]["state"] == "TASK_STATE_COMPLETED", "--json", task)
    check(task["artifacts"][0]["artifactId"] == "response", "the answer is the artifact response", task)
    context = mesh.run("ask", "--json", "--context", "c-mine", "upper", "x").ok().json()["contextId"]
    check(context == "c-mine", "--context", context)
    path = os.path.join(mesh.home, "in.txt")
    with open(path, "w") as f:
        f.write("file body")
    mesh.run("ask", "--file", path, "upper", "see file").ok()
    r = mesh.run("ask", "--file", "/no/such/file", "upper", "x")
    check(r.status in (2, 4) and "/no/such/file" in r.err, "a file that is not there", r.status, r.err)


def durable(mesh):
    check(mesh.run("ask", "--durable", "upper", "durable").ok().out.rstrip("\n") == "DURABLE", "--durable answers")
    task = mesh.run("ask", "--detach", "upper", "later").ok().out.strip()
    check(task.startswith("t-"), "--detach prints the task id", task)
    until(lambda: mesh.run("task", "show", task, "--json").ok().json()["status"]["state"] == "TASK_STATE_COMPLETED", "it is done in the background")
    first = mesh.run("ask", "--detach", "--key", "k1", "upper", "once").ok().out.strip()
    again = mesh.run("ask", "--detach", "--key", "k1", "upper", "once").ok().out.strip()
    check(first == again, "the same key is the same task", first, again)
    r = mesh.run("ask", "--detach", "--key", "k1", "upper", "something else")
    check(r.status == 8 and "AMESH-4005" in r.err, "the same key with another request is a conflict", r.status, r.err)
    waits = mesh.run("ask", "--detach", "not-here-yet", "x").ok().out.strip()
    record = mesh.run("task", "ls", "--json").ok().json()["tasks"]
    check(any(t["id"] == waits for t in record), "it waits visibly", record[:2])
    shown = mesh.run("task", "show", waits).ok().out
    check("not-here-yet" in shown, "with its agent", shown)
    agent = mesh.agent("not-here-yet", "--", "cat")
    until(lambda: mesh.run("task", "show", waits, "--json").ok().json()["status"]["state"] == "TASK_STATE_COMPLETED", "and runs when the agent joins")
    agent.stop()
    gone = mesh.run("ask", "--detach", "never-here", "x").ok().out.strip()
    mesh.run("task", "cancel", gone).ok()
    check(mesh.run("task", "show", gone, "--json").ok().json()["status"]["state"] == "TASK_STATE_CANCELED", "cancel while it waits")
    check(mesh.run("task", "cancel", gone).status == 8, "cancel of an ended task: 8")


def tasks(mesh):
    done = mesh.run("ask", "--json", "upper", "for history").ok().json()
    listed = mesh.run("task", "ls", "--json").ok().json()["tasks"]
    check(listed and all(t["status"]["state"] in STATES for t in listed), "task ls --json", listed[:1])
    until(lambda: any(t["id"] == done["id"] for t in mesh.run("task", "ls", "--json").ok().json()["tasks"]), "direct tasks are listed too")
    check(done["id"] in mesh.run("task", "ls").ok().out, "as a table")
    shown = mesh.run("task", "show", done["id"]).ok().out
    check("upper" in shown and "completed" in shown.lower(), "task show", shown)
    record = mesh.run("task", "show", done["id"], "--json").ok().json()
    check(record["id"] == done["id"] and record["metadata"]["amp/attempts"][0]["instance"], "with attempts and instance", record)
    watched = mesh.run("task", "watch", done["id"], "--json").ok().lines()
    check([e["seq"] for e in watched] == list(range(1, len(watched) + 1)), "task watch: all events in order", watched)
    tail = mesh.run("task", "watch", done["id"], "--from", "2", "--json").ok().lines()
    check(tail[0]["seq"] == 2 and len(tail) == len(watched) - 1, "--from", tail)
    history = mesh.run("history", done["contextId"]).ok().out
    check("for history" in history and "FOR HISTORY" in history, "history has what was asked and answered", history)
    doc = mesh.run("history", done["contextId"], "--json").ok().json()
    check(doc["tasks"][0]["id"] == done["id"], "--json", doc)
    check(mesh.run("history", "c-none").status == 4, "no such context: 4")


def child_tasks(mesh):
    mesh.agent("boss", "--", "sh", "-c", f"read t; {AMESH} ask upper \"$t\"; {AMESH} ask --skill shout again")
    task = mesh.run("ask", "--json", "boss", "delegate\n").ok().json()
    tree = until(lambda: (lambda out: out if out.count("upper") >= 2 else None)(mesh.run("task", "show", task["id"], "--tree").ok().out), "the tree shows both children")
    children = [t for t in mesh.run("task", "ls", "--json").ok().json()["tasks"] if t.get("metadata", {}).get("amp/parent") == task["id"]]
    check(len(children) == 2, "both know their parent", tree, children)


def tap_command(mesh):
    watcher = mesh.spawn("tap", "--count", "2", "--json")
    answered = until(lambda: mesh.run("ask", "upper", "tapped").ok() and watcher.child.poll() is not None, "tap ends after --count")
    watcher.wait()
    lines = [json.loads(l) for l in watcher.out]
    check(answered and len(lines) == 2, "two lines", lines)


def kv(mesh):
    mesh.run("kv", "put", "--shared", "colour", '"blue"').ok()
    check(json.loads(mesh.run("kv", "get", "--shared", "colour").ok().out) == "blue", "put and get")
    check("colour" in mesh.run("kv", "ls", "--shared").ok().out, "ls")
    mesh.run("kv", "del", "--shared", "colour").ok()
    check(mesh.run("kv", "get", "--shared", "colour").status == 4, "gone: 4")


def checks(mesh):
    doc = mesh.run("check", "--json").ok().json()
    check(all(c["ok"] for c in doc["checks"]) and len(doc["checks"]) >= 5, "check --json", doc)
    r = mesh.run("check", "--bus", "nats://127.0.0.1:1")
    check(r.status == 3, "check on a bus that is not there: 3", r.status, r.out, r.err)


def help_and_usage(mesh):
    commands = "up down run ask ls show task history tap check version completion help env kv".split()
    text = mesh.run("help").ok().out
    for c in commands:
        check(c in text, f"help names {c}", text)
        one = mesh.run("help", c).ok().out
        check("Usage" in one or "usage" in one, f"help {c}", one)
        check(mesh.run(c, "--help").ok().out == one, f"{c} --help says the same")
    for bad in (["frobnicate"], ["ask"], ["ask", "--no-such", "a", "b"], ["run"], ["task", "show"], ["ask", "--timeout", "soon", "a", "b"], ["completion", "tcsh"], ["task", "watch", "t-x", "--from", "minus"]):
        r = mesh.run(*bad)
        check(r.status == 2 and r.err, f"usage error: {bad}", r.status, r.out, r.err)
    r = mesh.run("env", "verfy", "--bus", mesh.bus, deadline=10)
    check(r.status == 2 and "did you mean env verify?" in r.err and not r.out, "a typo behind env starts no environment", r.status, r.out, r.err)
    for surplus in (["env", "nope"], ["env", "--bus", mesh.bus, "--", "verify"], ["env", "verify", "x"], ["env", "prune", "x"], ["up", "now"], ["down", "now"], ["task", "ls", "x"], ["help", "env", "verfy"]):
        r = mesh.run(*surplus, deadline=10)
        check(r.status == 2 and surplus[-1] in r.err, f"an operand too many: {surplus}", r.status, r.out, r.err)
    for args in (("env",), ("up",), ("run", "--name", "x", "--", "cat"), ("ls",), ("ask", "up", "x"), ("check",)):
        for url in ("http://x", "ftp://x:4222", "nats://x:port"):
            r = mesh.run(*args[:1], "--bus", url, *args[1:], deadline=10)
            check(r.status == 2 and f"--bus: '{url}' is no bus" in r.err and "nats://" in r.err and "AMESH-1001" in r.err, f"{args[0]} --bus {url} is refused at once", r.status, r.out, r.err)
    check("did you mean" in mesh.run("aks", "x").err.lower(), "did you mean")
    version = mesh.run("version", "--json").ok().json()
    check(version["version"] and mesh.run("version").ok().out.startswith("amesh "), "version", version)
    man = mesh.run("man").ok().out
    path = os.path.join(mesh.home, "amesh.1")
    with open(path, "w") as f:
        f.write(man)
    lint = subprocess.run(["mandoc", "-Tlint", "-Werror", path], capture_output=True, text=True)
    check(lint.returncode == 0, "the man page is clean", lint.stdout[:800])


def completion(mesh):
    bash = mesh.run("completion", "bash").ok().out
    script = bash + '\nCOMP_WORDS=(amesh ta); COMP_CWORD=1; COMP_LINE="amesh ta"; COMP_POINT=8; _amesh; printf "%s\\n" "${COMPREPLY[@]}"\n'
    out = subprocess.run(["bash", "-c", script], env=mesh.env, capture_output=True, text=True)
    check({"tap", "task"} <= set(w.strip() for w in out.stdout.split()), "bash completes commands", out.stdout, out.stderr)
    for shell in ("zsh", "fish"):
        check("amesh" in mesh.run("completion", shell).ok().out, shell)


def docs_and_json_errors(mesh):
    r = mesh.run("ask", "--json", "upper")
    check(r.status == 2 and json.loads(r.err)["error"]["code"] == "AMESH-1001", "usage errors are documents with --json", r.err)


def journal_elsewhere(mesh):
    """What somebody brings to a new host: the home is made."""
    export, backup = os.path.join(mesh.home, "all.jsonl"), os.path.join(mesh.home, "copy.db")
    mesh.run("ask", "--durable", "upper", "to be kept").ok()
    mesh.run("env", "backup", backup).ok()
    mesh.run("env", "export", export).ok()
    for name, how in (("imported", ("import", "--ended", export)), ("restored", ("restore", backup))):
        home = os.path.join(mesh.home, "other", name)
        mesh.run("env", *how, env={"AMESH_HOME": home}).ok()
        mesh.run("env", "verify", env={"AMESH_HOME": home}).ok()
    for command in (("import", "/no/such"), ("restore", "/no/such"), ("backup",), ("import",), ("import", "--continue", "--ended", export), ("export", export)):
        r = mesh.run("env", *command, env={"AMESH_HOME": os.path.join(mesh.home, "nothing")})
        check(r.status != 0 and " Try: " in r.err, f"an error with a next step: env {command}", r.status, r.err)


def hints(mesh):
    """The next step that an error names is one that leads on."""
    mesh.agent("frail", "--", "sh", "-c", "cat > /dev/null; kill -9 $$")
    mesh.agent("frail-once", "--retry", "never", "--", "sh", "-c", "cat > /dev/null; kill -9 $$")
    mesh.agent("careful", "--", "sh", "-c", "cat > /dev/null; amesh task ask --option red --option blue 'Which colour?'; amesh task ask 'Which size?'")
    direct = mesh.run("ask", "frail", "x")
    check("--durable retries" in direct.err, "a direct call: durable ones are tried again", direct.err)
    once = mesh.run("ask", "--durable", "frail-once", "x")
    check("--retry never" in once.err and "amesh task retry t-" in once.err and "--durable" not in once.err, "a durable one that must not be: why, and what to do", once.err)
    spent = mesh.run("ask", "--durable", "frail", "x")
    check("AMESH-3009" in spent.err and "amesh task retry t-" in spent.err and " ID" not in spent.err, "attempts used up: with the task's id", spent.err)
    task = mesh.run("ask", "--detach", "careful", "x").ok().out.strip()
    question = until(lambda: mesh.run("inbox", "--agent", "careful", "--json").ok().json()["questions"], "it asks")[0]["id"]
    wrong = mesh.run("answer", question, "green")
    check(wrong.status == 2 and "Try: one of" in wrong.err and "blue" in wrong.err, "a wrong answer: what would be right", wrong.status, wrong.err)
    mesh.run("answer", question, "blue").ok()
    late = mesh.run("answer", question, "red")
    check(late.status == 8 and "amesh inbox" in late.err, "a second answer: what else waits", late.status, late.err)
    mesh.run("task", "cancel", task).ok()
    never = mesh.run("ask", "--durable", "--retry", "never", "frail", "x")
    check("--retry never" in never.err and "retrying" not in never.err, "the same for one task only", never.err)
    taken = mesh.run("ask", "--durable", "-v", "upper", "x").ok()
    check("taken by upper i-" in taken.err, "who took it, also of a durable task", taken.err)
    mesh.run("kv", "put", "--shared", "versioned", "1").ok()
    for command, status, words in ((("task", "show", "t-nope"), 4, ("t-nope", "amesh task ls")), (("task", "cancel", "t-nope"), 4, ("t-nope",)), (("task", "watch", "t-nope"), 4, ("t-nope",)),
                                   (("task", "retry", "t-nope"), 4, ("t-nope",)), (("answer", "q-nope", "x"), 4, ("q-nope", "amesh inbox")), (("schedule", "rm", "s-nope"), 4, ("s-nope", "amesh schedule ls")),
                                   (("history", "c-nope"), 4, ("c-nope",)), (("kv", "get", "--shared", "nope"), 4, ("nope", "amesh kv ls")), (("kv", "put", "--shared", "", "x"), 2, ("the key is empty",)),
                                   (("kv", "put", "--shared", "versioned", "2", "--if-version", "7"), 8, ("versioned", "version 1", "kv get --json")),
                                   (("ask", "--every", "500ms", "upper", "x"), 2, ("--every 500ms", "1000 ms", "amesh help ask")), (("ask", "--at", "2020-01-01T00:00:00Z", "upper", "x"), 2, ("--at", "in the past", "+90s")),
                                   (("ask", "--every", "5s", "--no-wait", "upper", "x"), 2, ("--no-wait", "--overlap")), (("ask", "--retry", "maybe", "upper", "x"), 2, ("--retry", "safe or never")),
                                   (("ask", "--cron", "@daily", "--tz", "No/Where", "upper", "x"), 2, ("--tz", "No/Where")), (("ask", "--file", "/nope", "upper"), 4, ("/nope", "can read"))):
        r = mesh.run(*command)
        check(r.status == status and all(word in r.err for word in words), f"{command}: what, where and what to do", r.status, r.err)


def hints_of_times_and_places(mesh):
    """What is wrong with a time is said with its bound; a home that cannot be made says so, and never points to lists of agents."""
    for args, wanted in ((("--in", "50d"), "at most 49 days"), (("--every", "60d"), "at most 49 days"), (("--at", "+50d"), "at most 49 days"), (("--tz", "", "--cron", "* * * * *"), "--tz must name a time zone"),
                         (("--at", "9999-12-31T23:59:59Z"), "ten years")):
        r = mesh.run("ask", *args, "upper", "x")
        check(r.status == 2 and wanted in r.err and "Try: the time is" not in r.err, f"ask {args}", r.status, r.err)
    check(mesh.run("schedule", "ls", "--json").ok().json() == {"schedules": []}, "none of them made anything")
    raw = Nats(mesh.bus)
    submit = {"agent": "upper", "request": {"taskId": "", "contextId": "", "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}}}
    asked = {"version": 1, "from": "raw", "envRequest": {"schedule": {"op": "SCHEDULE_ADD", "schedule": {"id": "s-raw", "cron": "* * * * *", "zone": "", "submit": submit}}}}
    error = json.loads(raw.request("amp.env.schedule.raw", json.dumps(asked).encode())[3])["envReply"].get("error", {})
    check(error.get("code") == 1001 and error.get("field") == "schedule.zone", "nor does the environment take a zone without a name", error)
    a_file = os.path.join(mesh.home, "a-file")
    with open(a_file, "w", encoding="utf-8") as f:
        f.write("x")
    for home in (a_file, "/proc/1/nope"):
        for command in (("up",), ("env",), ("run", "--", "cat")):
            r = mesh.run(*command, env={"AMESH_HOME": home})
            check(r.status != 0 and home in r.err and "Try: name a directory of your own" in r.err, f"{command} with the home {home}", r.status, r.err)


def pauses(mesh):
    """Between two attempts nobody waits for an instance: one is free."""
    mesh.agent("often-dead", "--", "sh", "-c", "cat > /dev/null; kill -9 $$")
    r = mesh.run("ask", "--durable", "--json", "often-dead", "x")
    task = re.search("t-[0-9a-z]{26}", r.out + r.err).group()
    told = mesh.run("explain", task, "--json").ok().json()
    spent = {each["what"]: each["ms"] for each in told["time"]}
    check(spent.get("pause", 0) > 0 and "in pauses between attempts" in mesh.run("explain", task).ok().out, "pauses are told as that", told["time"])
    check(any(w["what"] == "pause" and "before the next attempt" in w["reason"] for w in told["waits"]), "with the reason", told["waits"])
    check(not any(w["what"] == "queue" and "before the next attempt" in w["reason"] for w in told["waits"]), "and as nothing else", told["waits"])


def interrupted(mesh):
    mesh.agent("slow", "--", "sh", "-c", "echo begun; exec tail -f /dev/null")
    p = mesh.spawn("ask", "slow", "x")
    p.wait_line("begun")
    p.signal(signal.SIGINT)
    check(p.wait() == 130, "ctrl-c: 130", p.err)
    until(lambda: mesh.run("show", "slow", "--json").json()["instances"][0]["free"] == 1, "and the agent is told")
    p = mesh.spawn("ask", "--durable", "slow", "x")
    p.wait_line("begun")
    p.signal(signal.SIGINT)
    check(p.wait() == 130 and any("task watch" in l for l in p.err), "durable: detaches and says how to come back", p.err)


def watching_over_a_restart(mesh):
    """Whoever goes on and on says once that the connection is lost and once that it is back, tells nothing twice, and says what it missed."""
    gate, asking = os.path.join(mesh.home, "gate"), os.path.join(mesh.home, "asking")
    mesh.agent("ticker", "--concurrency", "2", "--", "sh", "-c", f"cat > /dev/null; while [ ! -e {gate} ]; do echo tick; sleep 0.1; done")
    mesh.agent("curious", "--", "sh", "-c", f"cat > /dev/null; while [ ! -e {asking} ]; do sleep 0.05; done; amesh task ask 'Really?'")
    tapped, ls_watch, inbox_watch = mesh.spawn("tap", "--json"), mesh.spawn("ls", "--watch"), mesh.spawn("inbox", "--watch", "--json")
    watch = mesh.spawn("task", "watch", mesh.run("ask", "--detach", "ticker", "x").ok().out.strip())
    ls_watch.wait_line(lambda line: line.startswith("ticker"))
    direct = mesh.spawn("ask", "ticker", "x")
    for process in (watch, direct):
        process.wait_line(lambda line: "tick" in line)
    mesh.run("ask", "--detach", "curious", "x").ok()
    tapped.wait_line(lambda line: "WORKING" in line and '"curious"' in line)
    mesh.up.signal(signal.SIGKILL)
    mesh.up.wait()
    for process in (tapped, ls_watch, inbox_watch, watch):
        process.wait_line(lambda line: line.startswith("connection lost: the bus is away; waiting for it, "), stream="err")
    open(asking, "w").close()
    mesh.start_up()
    for process in (tapped, ls_watch, inbox_watch, watch):
        process.wait_line(lambda line: line.startswith("connected again"), stream="err")
    asked = until(lambda: [line for line in inbox_watch.out if "Really?" in line], "what was asked meanwhile is told")  # before or behind "connected again"
    check([json.loads(line)["event"] for line in asked] == ["asked"], "as asked, once", asked)
    late = mesh.agent("late", "--", "cat")
    ls_watch.wait_line(lambda line: line.startswith("late"))
    late.stop()
    open(gate, "w").close()
    check(watch.wait() == 0, "the task ends", watch.err)
    tapped.wait_line(lambda line: "COMPLETED" in line and '"ticker"' in line)
    for process in (tapped, ls_watch, inbox_watch):
        process.signal(signal.SIGINT)
        process.wait()
    for process in (tapped, ls_watch, inbox_watch, watch):
        said = [line for line in process.err if line.startswith("connect")]
        check(len(said) == 2, "each is said once", process.name, process.err)
    seen, missed = {}, {}
    for event in map(json.loads, tapped.out):
        seen.setdefault(event["taskId"], []).append(event["seq"])
    for words in (line.split() for line in tapped.err if line.startswith("missed: ")):
        missed.setdefault(words[words.index("of") + 1], []).extend(range(int(words[2]), int(words[4] if words[3] == "to" else words[2]) + 1))
    for task, seqs in seen.items():
        check(len(seqs) == len(set(seqs)), "nothing is told twice", task, seqs, tapped.err)
        gone = set(range(seqs[0], max(seqs) + 1)) - set(seqs)
        check(gone <= set(missed.get(task, [])), "what was missed is said", task, seqs, tapped.err)
    check(len(seen) >= 3, "three tasks were seen", seen)


def env_alone(mesh):
    """The environment restarts: what it accepted is there, callers come back."""
    task = mesh.run("ask", "--detach", "restart-target", "keep me").ok().out.strip()
    watch = mesh.spawn("task", "watch", task)
    watch.wait_line(lambda line: True, stream="out")
    mesh.up.signal(signal.SIGKILL)
    mesh.up.wait()
    mesh.start_up()
    watch.stop()
    check(not any(line.startswith("{") for line in watch.err), "people get no log lines", watch.err)
    check(mesh.run("task", "show", task, "--json").ok().json()["id"] == task, "accepted tasks survive kill -9 of everything")
    mesh.agent("restart-target", "--", "cat")
    until(lambda: mesh.run("task", "show", task, "--json").json()["status"]["state"] == "TASK_STATE_COMPLETED", "and are done")


with Mesh() as mesh:
    mesh.agent("upper", "--skill", "shout:makes it loud", "--description", "says it louder", "--concurrency", "2", "--", "tr", "a-z", "A-Z")
    mesh.agent("tagged", "--tag", "team=red", "--", "cat")
    tap.run("up: once per home", up_twice, mesh)
    tap.run("up --detach, down", up_detach_down)
    tap.run("up --bus", up_external, mesh)
    tap.run("ls", ls, mesh)
    tap.run("ls --watch among beats that never pause", watch_a_crowd, mesh)
    tap.run("show", show, mesh)
    tap.run("ask", ask, mesh)
    tap.run("ask --durable --detach --key", durable, mesh)
    tap.run("task ls, show, watch; history", tasks, mesh)
    tap.run("child tasks know their parent", child_tasks, mesh)
    tap.run("tap", tap_command, mesh)
    tap.run("kv", kv, mesh)
    tap.run("check", checks, mesh)
    tap.run("help, usage errors, version, man", help_and_usage, mesh)
    tap.run("completion", completion, mesh)
    tap.run("errors as JSON", docs_and_json_errors, mesh)
    tap.run("a journal elsewhere", journal_elsewhere, mesh)
    tap.run("hints", hints, mesh)
    tap.run("a time that is too long, a zone without a name, a home that cannot be: what is wrong, and what to do", hints_of_times_and_places, mesh)
    tap.run("explain tells pauses between attempts from waits for an instance", pauses, mesh)
    tap.run("ctrl-c", interrupted, mesh)
    tap.run("who watches is told of a restart, and sees nothing twice", watching_over_a_restart, mesh)
    tap.run("kill -9 of up: accepted tasks survive", env_alone, mesh)
tap.done()
