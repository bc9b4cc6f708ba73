#!/usr/bin/env python3
"""Files in the answer to a question (amp.md 15.6.6): of any size, by `amesh answer --file`, to durable tasks and to direct calls, to Python and JavaScript agents and to turns; whoever dies where,
an answer that was accepted arrives."""
import os
import shutil
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
import meshtest  # noqa: E402
from blobtest import BIG, MEDIUM, SMALL, digest, ended, fill, has_begun, stored  # noqa: E402
from meshtest import Bus, Skipped, Tap, check, until  # noqa: E402

tap = Tap()
RELEASE = os.environ.get("AMESH_RELEASE")

PYTHON = """
import hashlib, os
def agent(text, task):
    said = task.ask("which file?")
    files = task.files
    if not files:
        return "text %d" % len(said)
    given = files[0].get("bytes")
    if given is None:
        with open(files[0]["path"], "rb") as f:
            given = f.read()
    if text == "die once" and task.attempt == 1:
        os.kill(os.getpid(), 9)
    return "%s %s %r" % (files[0]["name"], hashlib.sha256(given).hexdigest(), said)
"""
JS = """
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
export default async function agent(text, task) {
  const said = await task.ask("which file?"), [file] = task.files;
  return `${file.name} ${createHash("sha256").update(file.bytes ?? readFileSync(file.path)).digest("hex")} '${said}'`;
}
"""
TURNS = r"""
import hashlib, json, sys
for line in sys.stdin:
    f = json.loads(line)
    if f.get("method") != "task.run":
        continue
    resume = f["params"].get("resume")
    result = {"state": "input-required", "message": "which file?"}
    if resume:
        [part] = resume["message"]["parts"]
        with open(part["url"][7:], "rb") as file:
            result = hashlib.sha256(file.read()).hexdigest()
    print(json.dumps({"id": f["id"], "result": result}), flush=True)
"""
CHOICE = """
def agent(text, task):
    return task.ask("which one?", options=["red", "blue"])
"""


def program(mesh, name, text):
    path = os.path.join(mesh.home, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def asked(mesh, task):
    return until(lambda: [q["id"] for q in mesh.run("inbox", "--json").ok().json()["questions"] if q["taskId"] == task], f"{task} asks")[0]


def said(shown):
    return "".join(p.get("text", "") for a in shown.get("artifacts", []) for p in a["parts"])


def whole(path):
    return f"{os.path.basename(path)} {digest(path)} ''"


def begin(mesh, agent, text="x", *options):
    task = mesh.run("ask", "--detach", *options, agent, text).ok().out.strip()
    return task, asked(mesh, task)


def to_a_durable_task(mesh):
    for path in (mesh.tiny, mesh.small, mesh.big):
        task, question = begin(mesh, "py")
        r = mesh.run("answer", question, "--file", path, deadline=180)
        check(r.status == 0, f"{path} is taken", r.status, r.err)
        check(said(ended(mesh, task)) == whole(path), "and arrives", said(mesh.show(task)))
    check("sha256-" + digest(mesh.big) in stored(mesh), "the environment keeps it with the task", stored(mesh))
    shown = mesh.run("task", "show", task).ok().out
    check(str(BIG) in mesh.run("task", "show", task, "--events", "--json").ok().out, "history has how large it was", shown)


def to_a_direct_call(mesh):
    task = mesh.run("ask", "py", "x").err.split("--task", 1)[1].split()[0]
    mesh.run("answer", asked(mesh, task), "--file", mesh.big, deadline=180).ok()
    check(said(ended(mesh, task)) == whole(mesh.big), "its agent has it", said(mesh.show(task)))


def to_a_turn(mesh):
    """The end of a turn asks, too: the next one begins with the file."""
    mesh.agent("turns", "--mode", "jsonl", "--", sys.executable, program(mesh, "turns.py", TURNS))
    for options in (("--detach",), ()):
        r = mesh.run("ask", *options, "turns", "x")
        task = r.out.strip() if options else r.err.split("--task", 1)[1].split()[0]
        mesh.run("answer", asked(mesh, task), "--file", mesh.medium).ok()
        check(said(ended(mesh, task)) == digest(mesh.medium), "the file", said(mesh.show(task)))


def to_javascript(mesh):
    if not shutil.which("node"):
        raise Skipped("node is not installed")
    mesh.agent("js", program(mesh, "agent.mjs", JS))
    for path in (mesh.tiny, mesh.medium):
        task, question = begin(mesh, "js")
        mesh.run("answer", question, "--file", path).ok()
        check(said(ended(mesh, task)) == whole(path), "the file", said(mesh.show(task)))


def texts_are_texts(mesh):
    """A file that is a text is the answer's text up to 248 KiB; above it, it is a file."""
    for size, wanted in ((100 << 10, f"text {100 << 10}"), (1 << 20, None)):
        path = os.path.join(mesh.home, f"{size}.txt")
        with open(path, "w") as f:
            f.write("a" * size)
        task, question = begin(mesh, "py")
        mesh.run("answer", question, "--file", path).ok()
        check(said(ended(mesh, task)) == (wanted or whole(path)), "as it is", said(mesh.show(task)))


def no_choice(mesh):
    mesh.agent("choice", program(mesh, "choice.py", CHOICE))
    task, question = begin(mesh, "choice")
    before = stored(mesh)
    r = mesh.run("answer", question, "--file", mesh.medium)
    check(r.status == 2 and "red" in r.err and stored(mesh) == before, "a choice is no file: what would be right", r.status, r.err)
    mesh.run("answer", question, "red").ok()
    check(said(ended(mesh, task)) == "red", "it goes on")


def killed_while_it_is_open(mesh):
    """kill -9 of the environment while the question is open, while it fetches the file, and right after it has accepted it."""
    task, question = begin(mesh, "py")
    mesh.restart_env()
    check(asked(mesh, task) == question, "it is open still")
    caller = mesh.spawn("answer", question, "--file", mesh.big)
    until(lambda: has_begun(mesh), "it is being fetched")
    mesh.kill_env()
    mesh.start_env()
    if caller.wait(120) != 0:  # it was told that the environment is gone
        mesh.run("answer", asked(mesh, task), "--file", mesh.big, deadline=180).ok()
    check(said(ended(mesh, task)) == whole(mesh.big), "whole", said(mesh.show(task)))
    check(not has_begun(mesh), "and no half file is left", stored(mesh))


def killed_when_it_is_accepted(mesh):
    """The sidecar stands still, so that nobody has the file but the environment, which is killed: the next one hands it on."""
    holder = mesh.agent("still", os.path.join(mesh.home, "agent.py"))
    task, question = begin(mesh, "still")
    holder.signal(signal.SIGSTOP)
    mesh.run("answer", question, "--file", mesh.medium).ok()
    mesh.kill_env()
    mesh.start_env()
    holder.signal(signal.SIGCONT)
    check(said(ended(mesh, task)) == whole(mesh.medium), "it arrives", said(mesh.show(task)))
    check(mesh.run("answer", question, "again").status == 8, "and is the answer")


def told_again(mesh):
    """The agent dies after it was answered: the next attempt, which asks the same, has the file, also from a new environment."""
    task, question = begin(mesh, "py", "die once")
    mesh.run("answer", question, "--file", mesh.medium).ok()
    shown = ended(mesh, task)
    check(said(shown) == whole(mesh.medium) and len(shown["metadata"]["amp/attempts"]) == 2, "without a second question", said(shown))


def main():
    meshtest.AMESH = RELEASE or meshtest.AMESH
    with Bus() as mesh:
        mesh.big, mesh.medium, mesh.small, mesh.tiny = (fill(os.path.join(mesh.home, name + ".bin"), size) for name, size in (("big", BIG), ("medium", MEDIUM), ("small", SMALL), ("tiny", 1000)))
        mesh.agent("py", "--concurrency", "2", program(mesh, "agent.py", PYTHON))
        tap.run("a durable task is answered with files of any size", to_a_durable_task, mesh)
        tap.run("so is a direct call", to_a_direct_call, mesh)
        tap.run("and what ends a turn", to_a_turn, mesh)
        tap.run("and a JavaScript agent", to_javascript, mesh)
        tap.run("a file that is a text", texts_are_texts, mesh)
        tap.run("where one of several answers is wanted a file is none, and is not read", no_choice, mesh)
        tap.run("kill -9 of the environment while the question is open, and while the file is fetched", killed_while_it_is_open, mesh)
        tap.run("kill -9 of the environment right after the answer was accepted", killed_when_it_is_accepted, mesh)
        tap.run("a further attempt gets the file, too", told_again, mesh)
    tap.done()


main()
