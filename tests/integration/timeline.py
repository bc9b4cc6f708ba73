#!/usr/bin/env python3
"""What happened in a task, told afterwards: waits with their reasons, attempts and deaths, tool calls, questions, child tasks; folded when there is much; a conversation as one."""
import os
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from meshtest import AMESH, Bus, Tap, check, until  # noqa: E402

tap = Tap()

# An agent that does a bit of everything; the task's text says how much of it.
WORKER = r'''
emit() { curl -s --unix-socket "$AMESH_SOCK" -H 'Content-Type: application/json' --data "$1" "http://mesh/v1/tasks/$AMESH_TASK/events" >/dev/null; }
read -r how n
case "$how" in
all)
  emit '{"type":"step","name":"plan","phase":"start"}'
  emit '{"type":"status","text":"red \u001b[31m\nand more"}'
  emit '{"type":"tool_call","callId":"c1","name":"search","args":{"q":"blue\u001b[31m"}}'
  emit '{"type":"tool_result","callId":"c1","output":"3 hits"}'
  emit '{"type":"tool_call","callId":"c2","name":"fetch","args":{"n":1}}'
  emit '{"type":"tool_result","callId":"c2","output":"not there","isError":true}'
  emit '{"type":"step","name":"plan","phase":"end"}'
  emit '{"type":"usage","model":"m-1","inputTokens":120,"outputTokens":7,"costUsd":0.01}'
  emit '{"type":"artifact","name":"report.txt","text":"twelve bytes"}'
  amesh ask upper child >/dev/null
  colour=$(amesh task ask "which colour?")
  echo "painted $colour" ;;
many)
  for part in 1 2 3; do
    seq "$((n / 3))" | sed 's/.*/{"type":"log","level":"info","text":"line &"}/' |
      curl -s --unix-socket "$AMESH_SOCK" -H 'Content-Type: application/x-ndjson' --data-binary @- "http://mesh/v1/tasks/$AMESH_TASK/events" >/dev/null
  done
  seq "$n" ;;
die)
  test "$AMESH_ATTEMPT" -gt 1 && echo survived && exit 0
  echo "out of luck" >&2
  kill -9 $$ ;;
hold)
  while ! test -e "$AMESH_HOME/go-$n"; do sleep 0.05; done
  echo "held $n" ;;
esac
'''


def agents(mesh):
    script = os.path.join(mesh.home, "worker.sh")
    with open(script, "w") as f:
        f.write(WORKER)
    mesh.agent("upper", "--", "tr", "a-z", "A-Z")
    mesh.agent("busy", "--", "sh", script)
    return mesh.agent("worker", "--concurrency", "4", "--", "sh", script)


def show(mesh, task, *options):
    return mesh.run("task", "show", task, *options).ok().out


def lines_of(text, label):
    return [line for line in text.splitlines() if line[11:].startswith(label)]


def timeline(mesh, task):
    return mesh.run("task", "show", task, "--json").ok().json()["metadata"]["amp/timeline"]


def detach(mesh, *argv):
    return mesh.run("ask", "--detach", *argv).ok().out.strip()


def done(mesh, task, state="TASK_STATE_COMPLETED"):
    until(lambda: mesh.run("task", "show", task, "--json").ok().json()["status"]["state"] == state, f"{task} is {state}")


def all_of_it(mesh):
    task = detach(mesh, "--context", "c-paint", "worker", "all")
    until(lambda: "which colour?" in show(mesh, task), "it asks")
    check(lines_of(show(mesh, task), "question")[0].rstrip().endswith("(open)"), "an open question says so", show(mesh, task))
    mesh.run("ask", "--task", task, "--timeout", "30s", "worker", "blue").ok()
    done(mesh, task)
    shown = show(mesh, task)
    for label, words in (("accepted", ["on the disk"]), ("attempt 1", ["i-", " on "]), ("step", ["plan"]), ("tool", ["search(", "= 3 hits"]), ("usage", ["m-1: 120 tokens in, 7 out, $0.01"]),
                         ("artifact", ["report.txt", "12 B"]), ("child", ["upper completed", "t-"]), ("question", ["which colour?"]), ("answer", ["q-"]), ("text", ["painted blue"]), ("completed", [])):
        found = lines_of(shown, label)
        check(found and all(word in found[0] for word in words), f"the line of {label}", shown)
    check("error: not there" in lines_of(shown, "tool")[1], "a tool that failed", shown)
    check("\x1b" not in shown and "red \\u{1B}[31m and more" in lines_of(shown, "says")[0], "what agents say is shown, not done", shown)
    order = [line[11:21].split()[0] for line in shown.splitlines() if line[8:11] == "s  "]
    wanted = ["accepted", "attempt", "step", "says", "tool", "tool", "usage", "artifact", "child", "question", "answer", "text", "completed"]
    check([word for word in order if word != "waited"] == wanted, "in the order in which it happened", order, shown)
    items = timeline(mesh, task)
    check([item["what"] for item in items if item["what"] != "waited"] == wanted[:-1] + ["end"], "the same for programs", items)
    tool = next(item for item in items if item["what"] == "tool")
    check(tool["seq"] > 1 and tool["durationMs"] >= 0 and items[-1]["state"] == "completed", "with numbers", tool)
    child = next(item["taskId"] for item in items if item["what"] == "child")
    check(mesh.run("task", "show", child, "--json").ok().json()["metadata"]["amp/parent"] == task, "the child is that task")
    raw = mesh.run("task", "show", task, "--events", "--json").ok().lines()
    check([e["seq"] for e in raw] == list(range(1, len(raw) + 1)), "--events has them all", raw)
    check(len(lines_of(show(mesh, task, "--events"), "")) > 0, "also for people")
    check(mesh.run("task", "show", task, "--events", "--tree").status == 2, "one view at a time")


def waits_have_reasons(mesh):
    first, second = detach(mesh, "busy", "hold 1"), None
    until(lambda: lines_of(show(mesh, first), "attempt 1"), "the first one runs")
    second = detach(mesh, "busy", "hold 2")
    until(lambda: "every instance of busy is busy" in "".join(lines_of(show(mesh, second), "waits")), "what waits says for what")
    early = detach(mesh, "not-yet", "x")
    until(lambda: any(second in line and "hold 2  (every instance of busy is busy" in line for line in mesh.run("task", "ls").ok().out.splitlines()), "the list has what was asked, and why it waits")
    until(lambda: "no instance of not-yet is on the mesh" in "".join(lines_of(show(mesh, early), "waits")), "and for whom")
    for n in (1, 2):
        open(os.path.join(mesh.home, f"go-{n}"), "w").close()
    done(mesh, second)
    agent = mesh.agent("not-yet", "--", "cat")
    done(mesh, early)
    agent.stop()
    mesh.restart_env()
    for task, words in ((second, "every instance of busy is busy"), (early, "no instance of not-yet")):
        shown = show(mesh, task)
        check(words in "".join(lines_of(shown, "waited")) and lines_of(shown, "completed"), "told after the fact, and after a restart", shown)
        attempt = mesh.run("task", "show", task, "--json").ok().json()["metadata"]["amp/attempts"][0]
        check(any(words in wait["reason"] and wait["from"] < wait["to"] for wait in attempt["waits"]) and attempt["host"], "with the attempt that ended it", attempt)
    gone = detach(mesh, "--timeout", "300ms", "nobody", "x")
    done(mesh, gone, "TASK_STATE_FAILED")
    task = mesh.run("task", "show", gone, "--json").ok().json()
    check("no instance of nobody" in task["metadata"]["amp/waits"][0]["reason"], "also of one whose time was over", task["metadata"])
    check("no instance of nobody" in "".join(lines_of(show(mesh, gone), "waited")), "told", show(mesh, gone))


def a_wait_with_a_reason_over_a_kill(mesh):
    """What it waited for before, how long nobody was there, and what it waits for since."""
    first = detach(mesh, "busy", "hold 3")
    until(lambda: lines_of(show(mesh, first), "attempt 1"), "the first one runs")
    second = detach(mesh, "busy", "hold 4")
    begin = time.monotonic()
    until(lambda: time.monotonic() > begin + 2.2, "it waits for a while")
    mesh.up.signal(signal.SIGKILL)
    mesh.up.wait()
    killed = time.monotonic()
    until(lambda: time.monotonic() > killed + 1.5, "nobody is there")
    mesh.start_env()
    away = time.monotonic() - killed
    running = [item for item in timeline(mesh, first) if item["what"] == "away"]
    check(len(running) == 1 and 1000 * away - 500 < running[0]["durationMs"] < 1000 * away + 1500, "the one that went on tells it too", running, away)
    mesh.restart_env()
    check(len([item for item in timeline(mesh, first) if item["what"] == "away"]) == 2, "each time", timeline(mesh, first))
    for n in (3, 4):
        open(os.path.join(mesh.home, f"go-{n}"), "w").close()
    done(mesh, second)
    check("away" in show(mesh, first) and "the environment was away" in show(mesh, first), "also after the fact", show(mesh, first))
    waits = [item for item in timeline(mesh, second) if item["what"] == "waited"]
    busy = sum(item["durationMs"] for item in waits if "every instance of busy is busy" in item["text"])
    gone = [item["durationMs"] for item in waits if "until the environment was started again" in item["text"]]
    check(busy > 1000 and len(gone) >= 1 and 1000 * away - 500 < gone[0] < 1000 * away + 1500, "each has its part", waits, away)


def a_wait_over_a_restart(mesh):
    task = detach(mesh, "late-one", "x")
    until(lambda: lines_of(show(mesh, task), "waits"), "it waits")
    mesh.restart_env()
    until(lambda: "until the environment was started again" in show(mesh, task), "what was before is told as what it was")
    mesh.run("task", "cancel", task, "--reason", "enough").ok()
    shown = show(mesh, task)
    check("enough" in lines_of(shown, "canceled")[0], "its end, with the reason", shown)


def a_story_over_restarts(mesh):
    """A restart adds no attempt that never began, and no time goes back; who waits says for what, also of the moments before the environment was stopped."""
    gate = os.path.join(mesh.home, "gate-story")
    command = ["--", "sh", "-c", f"cat >/dev/null; echo number $AMESH_ATTEMPT; while [ ! -e {gate} ]; do sleep 0.05; done"]
    first = mesh.agent("twice", *command)
    task = detach(mesh, "twice", "x")
    until(lambda: "number 1" in show(mesh, task), "it works")
    behind = detach(mesh, "twice", "y")
    until(lambda: "every instance of twice is busy" in "".join(lines_of(show(mesh, behind), "waits")), "another one waits")
    mesh.up.stop()
    mesh.start_env()
    waits = lines_of(show(mesh, behind), "waited")
    check("every instance of twice is busy" in waits[0] and not any("its turn" in line for line in waits), "what it waited for before the stop", show(mesh, behind))
    until(lambda: "every instance of twice is busy" in "".join(lines_of(show(mesh, behind), "waits")), "and waits for again")
    first.signal(signal.SIGKILL)
    first.wait()
    for _ in range(3):
        until(lambda: "no instance of twice is on the mesh" in "".join(lines_of(show(mesh, task), "waits")), "its instance is gone")
        mesh.restart_env()
    told = [item["what"] for item in timeline(mesh, task) if item["what"] not in ("waited", "away")]
    check(told == ["accepted", "attempt", "text", "attemptEnd", "retrying"], "what happened before the restarts, and no more", show(mesh, task))
    attempts = mesh.run("task", "show", task, "--json").ok().json()["metadata"]["amp/attempts"]
    check([(a["attempt"], "startedAt" in a, "endedAt" in a) for a in attempts] in ([(1, True, True)], [(1, True, True), (2, False, False)]), "the second attempt waits for somebody", attempts)
    open(gate, "w").close()
    mesh.agent("twice", *command)
    for each in (task, behind):
        done(mesh, each)
        at = [item["at"] for item in timeline(mesh, each)]
        check(at == sorted(at) and "its turn" not in show(mesh, each) and "attempt 0" not in show(mesh, each), "in the order of time, with reasons", show(mesh, each))
    check("number 2" in show(mesh, task) and "number 1" in show(mesh, behind), "agents are told their number", show(mesh, task), show(mesh, behind))
    gone = detach(mesh, "--timeout", "300ms", "nobody", "x")
    done(mesh, gone, "TASK_STATE_FAILED")
    check("amp/attempts" not in mesh.run("task", "show", gone, "--json").ok().json()["metadata"], "what nobody had is no attempt", show(mesh, gone))


def moments(mesh):
    """When a cancel was asked for; that an environment was there until its last word; who starts is not busy, and that is no error any more when it has started."""
    task = detach(mesh, "busy", "hold 5")
    until(lambda: lines_of(show(mesh, task), "attempt 1"), "it runs")
    mesh.run("task", "cancel", task).ok()
    done(mesh, task, "TASK_STATE_CANCELED")
    check("its end was asked for" in lines_of(show(mesh, task), "cancel")[0], "when somebody asked for its end", show(mesh, task))
    [attempt] = mesh.run("task", "show", task, "--json").ok().json()["metadata"]["amp/attempts"]
    check(attempt["startedAt"] <= attempt["canceledAt"] <= attempt["endedAt"], "also for programs", attempt)

    gate = os.path.join(mesh.home, "gate-moments")
    mesh.agent("asks", "--", "sh", "-c", f'cat >/dev/null; c=$(amesh task ask "which?"); while [ ! -e {gate} ]; do sleep 0.05; done; echo "$c"')
    task = detach(mesh, "asks", "x")
    until(lambda: "(open)" in show(mesh, task), "it asks")
    mesh.run("answer", task, "blue").ok()
    mesh.restart_env()
    away = until(lambda: [item for item in timeline(mesh, task) if item["what"] == "away"], "it goes on")[0]
    answer = next(item for item in timeline(mesh, task) if item["what"] == "answer")
    check(answer["at"] <= away["at"], "nobody was away who took an answer", answer, away)
    open(gate, "w").close()
    done(mesh, task)

    late = os.path.join(mesh.home, "late.py")
    with open(late, "w", encoding="utf-8") as f:
        f.write(f"open({late + '.go'!r}).close()  # a fifo: until somebody writes\n\n\ndef agent(text, task):\n    return text\n")
    os.mkfifo(late + ".go")
    mesh.spawn("run", "--name", "late", late + ":agent")
    until(lambda: mesh.run("show", "late", "--json").status == 0, "its instance is there")
    task = detach(mesh, "late", "x")
    until(lambda: "every instance of late is starting" in "".join(lines_of(show(mesh, task), "waits")), "it waits for the start")
    open(late + ".go", "w").close()
    done(mesh, task)
    check(not [line for line in show(mesh, task).splitlines() if line.startswith(("error", "hint"))], "and no error is left of that", show(mesh, task))


def deaths(mesh):
    task = detach(mesh, "worker", "die")
    done(mesh, task)
    shown = show(mesh, task)
    check("agent_died" in lines_of(shown, "attempt 1")[1] and "out of luck" in shown, "how an attempt ended, with the last words", shown)
    check("agent died" in lines_of(shown, "retrying")[0] and lines_of(shown, "attempt 2"), "and what came of it", shown)
    mesh.agent("mortal", "--", "sh", "-c", "cat >/dev/null; sleep 0.05; kill -9 $$")
    task = detach(mesh, "mortal", "x")
    done(mesh, task, "TASK_STATE_FAILED")
    items = timeline(mesh, task)
    told = [item["what"] for item in items if item["what"] != "waited"]
    check(told == ["accepted"] + ["attempt", "attemptEnd", "retrying"] * 4 + ["attempt", "attemptEnd", "end"], "death, retry, attempt", told, show(mesh, task))
    attempts = mesh.run("task", "show", task, "--json").ok().json()["metadata"]["amp/attempts"]
    for name, key in (("waited", "waitMs"), ("ran", "runMs")):
        number, unit = next(line for line in show(mesh, task).splitlines() if line.startswith(name)).split()[1:]
        wanted = sum(attempt[key] for attempt in attempts)
        check(abs(float(number) * {"ms": 1, "s": 1000}[unit] - wanted) < 100, f"the head says how long it {name} in all attempts", show(mesh, task), wanted)
    pauses = [i for i, item in enumerate(items) if "before the next attempt" in item["text"]]  # their lengths are random, the first one is next to nothing
    check(pauses and all(items[i]["what"] == "waited" and items[i - 1]["what"] == "retrying" for i in pauses), "what is between them", items)
    check(all(item["durationMs"] >= 40 for item in items if item["what"] == "attempt"), "an attempt that said nothing began with its call", items)


def much_is_folded(mesh):
    task = detach(mesh, "worker", "many 3000")
    done(mesh, task)
    shown = show(mesh, task)
    check(len(shown.splitlines()) < 40 and "2,992 more log lines" in shown, "thousands of events in a few lines", shown)
    check("pieces" in "".join(lines_of(shown, "text")) or len(lines_of(shown, "text")) == 1, "and one of text", shown)
    items = timeline(mesh, task)
    check(sum(item.get("more", 0) for item in items if item["what"] == "log") == 2992, "counted", items)
    check(len(mesh.run("task", "show", task, "--events", "--json").ok().lines()) > 3000, "--events has them all")


def narrow_terminals(mesh):
    task = detach(mesh, "worker", "a very long text that does not fit into a narrow line at all, but is said all the same")
    done(mesh, task)
    wide, narrow = (subprocess.run(["script", "-qec", f"stty cols {n}; {AMESH} task show {task}", "/dev/null"], env=mesh.env, capture_output=True, timeout=60, check=True).stdout.decode() for n in (200, 40))
    check("\x1b" not in wide, "no colours where NO_COLOR is set", wide)
    check(len([line for line in narrow.splitlines() if line.lstrip().startswith("+")]) == len([line for line in wide.splitlines() if line.lstrip().startswith("+")]), "the same lines", narrow)


def conversations(mesh):
    first = mesh.run("ask", "--durable", "--context", "c-talk", "upper", "one").ok().out
    check(first.strip() == "ONE", "an answer")
    for text in ("two", "three"):
        mesh.run("ask", "--durable", "--context", "c-talk", "upper", text).ok()
    said = mesh.run("history", "c-talk").ok().out
    check([said.index(w) for w in ("one", "ONE", "two", "TWO", "three", "THREE")] == sorted(said.index(w) for w in ("one", "ONE", "two", "TWO", "three", "THREE")), "in order", said)
    last = mesh.run("history", "c-talk", "--limit", "1").ok()
    check("three" in last.out and "two" not in last.out and "--limit" in last.err, "--limit: the last ones, and it says so", last.out, last.err)
    doc = mesh.run("history", "c-talk", "--limit", "2", "--json").ok().json()
    check([t["history"][0]["parts"][0]["text"] for t in doc["tasks"]] == ["two", "three"] and doc["totalSize"] == 3, "for programs", doc)
    paint = mesh.run("history", "c-paint").ok().out
    check(paint.count("which colour?") == 1 and paint.index("all") < paint.index("which colour?") < paint.index("painted blue"), "question and answer in their place", paint)


def forks(mesh):
    """Back to an event: what was there by then, the answers too, and another end."""
    script = os.path.join(mesh.home, "painter.sh")
    with open(script, "w") as f:
        f.write("""read -r what
amesh task emit --artifact sketch.txt "a sketch of $what" 2>/dev/null || curl -s --unix-socket "$AMESH_SOCK" -H 'Content-Type: application/json' --data '{"type":"artifact","name":"sketch.txt","text":"a sketch"}' "http://mesh/v1/tasks/$AMESH_TASK/events" >/dev/null
colour=$(amesh task ask "which colour?")
size=$(amesh task ask "which size?")
echo "$what in $colour, $size"
""")
    mesh.agent("painter", "--concurrency", "4", "--", "sh", script)
    mesh.agent("photographer", "--", "cat")
    task = detach(mesh, "--context", "c-fork", "painter", "a house")

    def answer(which, prompt, text):
        until(lambda: any(prompt in line and "(open)" in line for line in lines_of(show(mesh, which), "question")), f"it asks {prompt}")
        mesh.run("ask", "--detach", "--task", which, text).ok()

    answer(task, "which colour?", "blue")
    until(lambda: "which size?" in show(mesh, task), "the second question")
    seq = max(e["seq"] for e in mesh.run("task", "show", task, "--events", "--json").ok().lines())
    early = mesh.run("task", "fork", task, "--from", str(seq)).ok().out.strip()
    check(early != task, "an open task can be forked", early)
    answer(early, "which size?", "small")
    done(mesh, early)
    one = mesh.run("task", "show", early, "--json").ok().json()
    answers = {a["artifactId"]: a["parts"][0]["text"] for a in one["artifacts"]}
    check(answers["response"].strip() == "a house in blue, small", "the first answer was given again, the second one is its own", answers)
    check(one["metadata"]["amp/forkedFrom"] == {"task": task, "seq": seq} and one["contextId"] != "c-fork" and "amp/parent" not in one["metadata"], "it knows where it comes from", one["metadata"])
    answer(task, "which size?", "large")
    done(mesh, task)
    check("a house in blue, large" in show(mesh, task), "the first one has gone on as if nothing were")
    mesh.restart_env()
    again = mesh.run("task", "fork", early, "--from", "1", "--text", "a tree", "--agent", "photographer", "--same-context", "--json").ok().json()
    done(mesh, again["id"])
    fork = mesh.run("task", "show", again["id"], "--json").ok().json()
    said = [m["parts"][0]["text"] for m in fork["history"]]
    check(fork["contextId"] == one["contextId"] and said[0] == "a house" and said[-1] == "a tree" and "which colour?" in said, "a fork of a fork, with what was said before", said)
    told = mesh.run("task", "show", again["id"]).ok().out
    check("asked      a tree\n" in told and f"forked     from {early}, event 1\n" in told and "a tree" in mesh.run("explain", again["id"]).ok().out, "what it was asked is told", told)
    check(fork["artifacts"][-1]["parts"][0]["text"] == "a tree" and any("sketch" in a.get("name", "") for a in fork["artifacts"]), "the new text, another agent, the artifacts so far", fork["artifacts"])
    check(fork["history"][-1]["metadata"]["amp/forkedFrom"]["task"] == early, "its message says so to the agent", fork["history"][-1])
    check("forked" in show(mesh, again["id"]), "and people are told")
    waits = mesh.run("task", "fork", task, "--from", "1", "--agent", "nobody-forks").ok().out.strip()
    mesh.restart_env()
    check([m["parts"][0]["text"] for m in mesh.run("task", "show", waits, "--json").ok().json()["history"]] == ["a house"], "one that waits over a restart")
    for argv, status, words in (((task, "--from", "9999"), 2, "has the events 1 to"), (("t-nobody", "--from", "1"), 4, "no task"), ((task,), 2, "--from"), ((task, "--from", "0"), 2, "--from")):
        r = mesh.run("task", "fork", *argv)
        check(r.status == status and words in r.err, f"fork {argv}", r.status, r.err)
    later = detach(mesh, "--in", "1h", "photographer", "a boat")
    done(mesh, mesh.run("task", "fork", later, "--from", "1").ok().out.strip())
    mesh.run("task", "cancel", later).ok()
    done(mesh, mesh.run("task", "retry", later).ok().out.strip())  # what was to start in an hour, tried again or forked, starts at once
    direct = mesh.run("ask", "--json", "upper", "once").ok().json()["id"]
    until(lambda: mesh.run("task", "show", direct, "--json").status == 0, "it is recorded")
    r = mesh.run("task", "fork", direct, "--from", "1")
    check(r.status == 0 or (r.status == 2 and "--durable" in r.err), "a direct one, if its request is kept", r.status, r.err)


def main():
    with Bus() as mesh:
        agents(mesh)
        tap.run("what happened, in order, for people and for programs", all_of_it, mesh)
        tap.run("waits are told with their reasons, also afterwards", waits_have_reasons, mesh)
        tap.run("a wait over a kill keeps its reason", a_wait_with_a_reason_over_a_kill, mesh)
        tap.run("a wait over a restart of the environment", a_wait_over_a_restart, mesh)
        tap.run("restarts of the environment change nothing in the story", a_story_over_restarts, mesh)
        tap.run("moments that count: a cancel, the last word of an environment, a start", moments, mesh)
        tap.run("how attempts ended, and their agents' last words", deaths, mesh)
        tap.run("thousands of events are a few lines", much_is_folded, mesh)
        tap.run("a narrow terminal shows the same lines", narrow_terminals, mesh)
        tap.run("a conversation in its order", conversations, mesh)
        tap.run("a fork goes on from an event of another task", forks, mesh)
    tap.done()


main()
