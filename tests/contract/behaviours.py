#!/usr/bin/env python3
"""Every way of attaching an agent through the same ten behaviours: echo, token stream, tool call, two turns in a context, input required,
several questions at once, a question that expires, cancel, failure, artifact. Real processes, a real nats-server, the real command line."""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from meshtest import BUILD, Mesh, Process, Tap, check, until  # noqa: E402

AGENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "agents")


def texts(task):
    return "".join(p.get("text", "") for a in task.get("artifacts", []) if a["artifactId"] == "response" for p in a["parts"])


def echo(mesh, agent):
    r = mesh.run("ask", agent, "echo Grüße, 世界").ok()
    check(r.out.rstrip("\n") == "Grüße, 世界", "the answer is what was sent", repr(r.out), r.err)
    task = mesh.run("ask", "--json", agent, "echo x").ok().json()
    check(task["status"]["state"] == "TASK_STATE_COMPLETED" and texts(task) == "x", "--json is the final task", task)


def stream(mesh, agent):
    events = mesh.run("ask", "--events", agent, "stream").ok().lines()
    check([e["seq"] for e in events] == list(range(1, len(events) + 1)), "events are numbered from 1 without gaps", events)
    chunks = [e["artifactUpdate"] for e in events if "artifactUpdate" in e]
    said = "".join(p.get("text", "") for c in chunks if c["artifact"]["artifactId"] == "response" for p in c["artifact"]["parts"])
    check(said == "one two three four", "the chunks make the answer", said)
    check(sum(1 for c in chunks if c["artifact"]["parts"]) >= 2, "the text came in more than one piece", chunks)
    check(chunks[-1].get("lastChunk") is True, "the last chunk says so", chunks[-1])
    check(events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED", "completed at the end", events[-1])


def tool(mesh, agent):
    events = mesh.run("ask", "--events", agent, "tool").ok().lines()
    meta = [e["statusUpdate"].get("metadata", {}) for e in events if "statusUpdate" in e]
    call = [m["amp/tool_call"] for m in meta if "amp/tool_call" in m]
    result = [m["amp/tool_result"] for m in meta if "amp/tool_result" in m]
    check(call and call[0]["name"] == "add" and call[0]["args"] == {"a": 1, "b": 2}, "the call is seen", meta)
    check(result and result[0]["output"] == 3 and result[0]["callId"] == call[0]["callId"], "its result is seen", meta)


def two_turns(mesh, agent):
    first = mesh.run("ask", "--json", agent, "remember plum").ok().json()
    r = mesh.run("ask", "--context", first["contextId"], agent, "recall").ok()
    check(r.out.strip() == "you said plum", "the second turn knows the first", r.out, r.err)


def input_required(mesh, agent):
    r = mesh.run("ask", agent, "ask")
    check(r.status == 9, "a question ends with exit code 9", r.status, r.out, r.err)
    check("Which colour?" in r.err and "--task" in r.err, "the question and how to answer it are on stderr", r.err)
    task = r.err.split("--task", 1)[1].split()[0].strip("'\"")
    answered = mesh.run("ask", "--task", task, agent, "blue").ok()
    check(answered.out.strip().endswith("painted blue"), "the answer arrives and the task goes on", answered.out, answered.err)


def several_questions(mesh, agent):
    r = mesh.run("ask", agent, "form")
    check(r.status == 9 and "--task" in r.err, "the first question ends the command, the task goes on", r.status, r.err)
    task = r.err.split("--task", 1)[1].split()[0].strip("'\"")
    mine = lambda: [q for q in mesh.run("inbox", "--json").ok().json()["questions"] if q["taskId"] == task]  # noqa: E731
    asked = until(lambda: (lambda q: q if {"Which colour?", "How often?"} == {x["prompt"] for x in q} else None)(mine()), "two wait, the third has expired", 20)
    colour, count = (next(q for q in asked if q["prompt"] == p) for p in ("Which colour?", "How often?"))
    check(colour["options"][0] == {"value": "red", "label": "Red"} and count["schema"]["maximum"] == 9, "options and schema are shown", asked)
    bad = mesh.run("answer", count["id"], "ten")
    check(bad.status == 2 and "answer" in bad.err and "integer" in bad.err, "a value that does not fit is refused with the reason", bad.status, bad.err)
    check(mesh.run("answer", colour["id"], "green").status == 2, "what is no option too")
    mesh.run("answer", count["id"], "7").ok()
    twice = mesh.run("answer", count["id"], "8")
    check(twice.status == 8, "the second answer is told", twice.status, twice.err)
    mesh.run("answer", colour["id"], "--option", "1").ok()
    record = until(lambda: (lambda t: t if t["status"]["state"] == "TASK_STATE_COMPLETED" else None)(mesh.run("task", "show", task, "--json").ok().json()), "it completes", 20)
    check(texts(record).strip() == "red 7 no", "each question has its own answer, the one that nobody answered its default", texts(record))


def expired_question(mesh, agent):
    out = mesh.run("ask", "--durable", "--detach", agent, "late").ok().out.strip()
    record = until(lambda: (lambda t: t if t["status"]["state"] == "TASK_STATE_COMPLETED" else None)(mesh.run("task", "show", out, "--json").ok().json()), "it completes", 20)
    check(any(word in texts(record) for word in ("expired", "not answered in time", "exit 6")), "the agent is told that its question has expired", texts(record))


def cancel(mesh, agent):
    process = mesh.spawn("ask", "--events", agent, "hang")
    line = process.wait_line(lambda l: "working" in l and "artifactUpdate" in l)
    import json
    task = json.loads(line)["artifactUpdate"]["taskId"]
    mesh.run("task", "cancel", task).ok()
    status = process.wait()
    check(status == 1, "the caller's command ends with 1", status, process.out[-3:], process.err)
    check(any("TASK_STATE_CANCELED" in l for l in process.out), "the task is CANCELED", process.out[-3:])
    after = mesh.run("ask", agent, "echo still here").ok()
    check(after.out.strip() == "still here", "the agent takes the next task", after.out)


def failure(mesh, agent):
    r = mesh.run("ask", "--json", agent, "fail")
    check(r.status == 1, "exit code 1", r.status, r.out, r.err)
    task = r.json()
    check(task["status"]["state"] == "TASK_STATE_FAILED", "FAILED", task)
    check("broken as asked" in task["status"]["message"]["parts"][0]["text"], "the status message has the agent's reason", task)
    check("broken as asked" in mesh.run("ask", agent, "fail").err, "people see the reason")


def artifact(mesh, agent):
    task = mesh.run("ask", "--json", agent, "artifact").ok().json()
    found = [a for a in task["artifacts"] if a["artifactId"] != "response"]
    check(len(found) == 1 and found[0].get("name") == "report", "the artifact is there", task)
    part = found[0]["parts"][0]
    import base64
    body = part["text"] if "text" in part else base64.b64decode(part["raw"]).decode()
    check(body == "forty-two" and part.get("filename") == "report.txt", "with its content and file name", part)


BEHAVIOURS = [("echo", echo), ("token stream", stream), ("tool call", tool), ("two turns in a context", two_turns),
              ("input required", input_required), ("several questions at once", several_questions), ("a question expires", expired_question), ("cancel", cancel), ("failure", failure), ("artifact", artifact)]

shim = os.path.join(AGENTS, "shim.py")
c_agent = os.path.join(BUILD, "tests/contract_agent_c")
WAYS = [
    ("exec", ["--", os.path.join(AGENTS, "exec.sh")]),
    ("jsonl", ["--mode", "jsonl", "--", sys.executable, os.path.join(AGENTS, "jsonl.py")]),
    ("dial", ["--mode", "dial", "--", sys.executable, os.path.join(AGENTS, "jsonl.py"), "dial"]),
    ("http", ["--mode", "dial", "--", os.path.join(AGENTS, "http.sh")]),
    ("py-sync", [shim + ":sync_agent"]),
    ("py-async", [shim + ":async_agent"]),
    ("py-generator", [shim + ":generator_agent"]),
    ("py-async-generator", [shim + ":async_generator_agent"]),
    ("js", [os.path.join(AGENTS, "shim.mjs") + ":agent"]),
    ("js-async-generator", [os.path.join(AGENTS, "shim.mjs") + ":generatorAgent"]),
    ("c-client", ["--mode", "dial", "--", c_agent]),
    ("c-client-fd", ["--mode", "dial", "--", os.path.join(AGENTS, "inherit.py"), c_agent]),
    ("c-client-outside", ["--mode", "dial"]),
]
OUTSIDE = {"c-client-outside": [c_agent]}  # programs that nobody spawns: they are running and dial


def join(mesh, agent, args, outside, processes):
    sock = os.path.join(mesh.home, agent + ".sock")
    processes.append(mesh.spawn("run", "--name", agent, "--concurrency", "2", "--sock", sock, *args))
    if outside:
        until(lambda: os.path.exists(sock), "the sidecar listens")
        processes.append(Process(outside, dict(mesh.env, AMESH_SOCK=sock), agent + "'s program"))
        mesh.processes.append(processes[1])
    processes[0].wait_line("ready ")


def main():
    tap, only = Tap(), sys.argv[1:]
    with Mesh() as mesh:
        for way, args in WAYS:
            if only and way not in only:
                continue
            agent = "b-" + way
            processes = []
            if not tap.run(f"{way}: joins the mesh", join, mesh, agent, args, OUTSIDE.get(way), processes):
                continue
            for name, behaviour in BEHAVIOURS:
                tap.run(f"{way}: {name}", behaviour, mesh, agent)

            def leave():
                processes[0].signal(signal.SIGTERM)
                for process in processes:
                    check(process.wait() == 0, "exit code 0", process.name, process.err[-10:])
            tap.run(f"{way}: leaves on SIGTERM", leave)
    tap.done()


if __name__ == "__main__":
    main()
