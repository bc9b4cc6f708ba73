#!/usr/bin/env python3
"""What scripts, pipes, narrow terminals and TAB meet: where output goes when nobody reads it, what is told to whom waits, lists of many pages, completion by
the shells themselves."""
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support")]
from meshtest import AMESH, DEADLINE, Mesh, Tap, check, terminal, until  # noqa: E402

tap = Tap()
AGENTS = '''
def asker(text, task):
    """Asks for a name, then greets.

    More that callers need not know."""
    return "hello " + task.ask("What is your name?")

def flood(text, task):
    n = 0
    while True:
        n += 1
        yield f"line {n}\\n"

def wait(text, task):
    task.status("begun")
    task.sleep(3600)
'''


def shell(mesh, command, **more):
    return subprocess.run(["bash", "-c", command], env=mesh.env, capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL, **more)


def at_terminal(mesh, columns, *args):
    """→ what `amesh ARGS` prints on a terminal of so many columns"""
    ours, theirs = terminal()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen([AMESH, *args], env=dict(mesh.env, LC_ALL="C.UTF-8", TERM="xterm"), stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    out = b""
    try:
        while True:
            out += os.read(ours, 65536)
    except OSError:  # its end
        pass
    os.close(ours)
    child.wait(DEADLINE)
    return out.decode().replace("\r\n", "\n").splitlines()


# ---- questions ---------------------------------------------------------------------------------------------


def answer(mesh, task):
    check(mesh.run("ask", "--task", task, "Ada").ok().out.strip() == "hello Ada", "and the task of the document can be answered")


def question_json(mesh):
    for way in ([], ["--durable"]):
        r = mesh.run("ask", "--json", *way, "asker", "x")
        check(r.status == 9, "a question: 9", r.status, r.err)
        task = r.json()
        check(task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED", "stdout has the task", task)
        check(task["status"]["message"]["parts"][0]["text"] == "What is your name?", "with the question", task)
        error = json.loads(r.err.splitlines()[-1])["error"]
        check(error["code"] == "AMESH-3010" and task["id"] in error["hint"], "stderr has the error and how to answer", r.err)
        answer(mesh, task["id"])
    r = mesh.run("ask", "--events", "asker", "x")
    check(r.status == 9 and "? What is your name?" in r.err and "Answer with: amesh ask --task" in r.err, "--events: the notice for people", r.err)
    answer(mesh, r.lines()[0]["statusUpdate"]["taskId"])


def direct_document(mesh):
    task = mesh.run("ask", "--json", "upper", "hi").ok().json()
    check(task["history"][0]["parts"][0]["text"] == "hi", "the document has what was asked", task)
    attempt = task["metadata"]["amp/attempts"][0]
    check({"instance", "readyAt", "startedAt", "endedAt", "waitMs", "runMs"} <= set(attempt) and attempt["outcome"] == "completed", "and wait and run times", attempt)
    r = mesh.run("ask", "--json", "--timeout", "500ms", "wait", "x")
    task = r.json()
    check(r.status == 6 and task["metadata"]["amp/error"]["name"] == "deadline", "a call that ended before its task says so", r.status, task)


def key_twice(mesh):
    first = mesh.run("ask", "--json", "--key", "k-twice", "upper", "a").ok().json()
    for _ in range(2):
        r = mesh.run("ask", "--key", "k-twice", "upper", "a").ok()
        check(r.out.strip() == "A", "the same key again prints the same answer", r.out, r.err)
    check(mesh.run("ask", "--json", "--key", "k-twice", "upper", "a").ok().json()["id"] == first["id"], "of the same task")


def waiting_is_said(mesh):
    holder = mesh.spawn("ask", "wait", "x")
    holder.wait_line(lambda l: "begun" in l, stream="err")
    for way in ([], ["--durable"]):
        p = mesh.spawn("ask", *way, "wait", "y")
        p.wait_line(lambda l: l.startswith("waiting: every instance of wait is busy"), stream="err")
        p.signal(signal.SIGINT)
        check(p.wait() == 130, "ctrl-c", p.err)
    for task in mesh.run("task", "ls", "--open", "--agent", "wait", "--json").ok().json()["tasks"]:
        mesh.run("task", "cancel", task["id"])
    holder.wait()
    check(any("the task was cancelled" in l for l in holder.err) and not any(l.count("the task was cancelled") > 1 for l in holder.err), "said once", holder.err)


# ---- names -------------------------------------------------------------------------------------------------


def did_you_mean(mesh):
    for args, meant in ((["ask", "uper", "x"], "upper"), (["show", "uper"], "upper"), (["ask", "--skill", "shuot", "x"], "shout")):
        r = mesh.run(*args)
        check(r.status == 4 and f"did you mean {meant}?" in r.err, f"{args}", r.status, r.err)
    r = mesh.run("ask", "nothing-like-it", "x")
    check(r.status == 4 and "did you mean" not in r.err, "no guess where nothing is alike", r.err)
    for args, meant in ((["help", "task", "sho"], "task show"), (["task", "sho", "--help"], "task show"), (["help", "askk"], "ask")):
        r = mesh.run(*args)
        check(r.status == 2 and f"did you mean {meant}?" in r.err and not r.out, f"{args}", r.status, r.out, r.err)
    check(mesh.run("help", "ask", "more").status == 2, "one command at a time")
    check(mesh.run("help", "task", "show").ok().out == mesh.run("task", "show", "--help").ok().out, "two words")


def explained(mesh):
    """What `help` says, as documents; and who becomes ready says so as one."""
    document = mesh.run("help", "--json").ok().json()
    check({"ask", "task show", "run"} <= {c["name"] for c in document["commands"]}, "the list", document)
    ask = mesh.run("help", "ask", "--json").ok().json()
    options = {o["name"]: o for o in ask["options"]}
    check(ask["name"] == "ask" and ask["summary"] and "Examples" in ask["details"], "a command", ask)
    check(options["--timeout"]["argument"] and options["--file"]["repeatable"] and "--json" in options, "its options, and the common ones", options)
    check({"task ls", "task show"} <= {c["name"] for c in mesh.run("help", "task", "--json").ok().json()["commands"]}, "a group has commands")
    run = mesh.spawn("run", "--json", "--name", "scripted", "--", "cat")
    ready = json.loads(run.wait_line("{"))
    check(ready["ready"] is True and ready["agent"] == "scripted" and ready["pid"] == run.child.pid and ready["instance"].startswith("i-"), "run --json", ready)
    run.stop()
    r = mesh.run("env", "--json", "--bus", mesh.bus)
    check(r.status == 8 and json.loads(r.err.splitlines()[-1])["error"]["code"] == "AMESH-4006", "env --json on a journal in use", r.status, r.err)


def nothing_silly(mesh):
    mesh.agent("plain", "--", "cat")
    text = mesh.run("show", "plain").ok().out
    check("0.0.0" not in text and "skill" not in text and text.splitlines()[1] == "", "what was made from the name is not shown", text)
    row = next(l for l in mesh.run("ls").ok().out.splitlines() if l.startswith("plain"))
    check(row.count("plain") == 1, "nor in the list", row)
    check("Asks for a name, then greets." in mesh.run("show", "asker").ok().out, "a function's docstring describes it", mesh.run("show", "asker").out)
    check("More that" not in mesh.run("show", "asker").out, "its first paragraph")
    path = os.path.join(mesh.home, "cards.mjs")
    with open(path, "w") as f:
        f.write("export const adder = (text) => text\nadder.description = 'Adds what it is told'\n"
                "export const carded = (text) => text\ncarded.card = { description: 'Has a card', skills: [{ id: 'carding', name: 'carding', description: 'cards', tags: [] }] }\n")
    mesh.agent("adder", f"{path}:adder")
    mesh.agent("carded", f"{path}:carded")
    mesh.agent("told", "--description", "the operator's word", f"{path}:adder")
    check("Adds what it is told" in mesh.run("show", "adder").ok().out, "a JavaScript function's description", mesh.run("show", "adder").out)
    check("skill carding: cards" in mesh.run("show", "carded").ok().out and mesh.run("ask", "--skill", "carding", "x").ok().out, "or card, with skills")
    check("the operator's word" in mesh.run("show", "told").ok().out, "what the operator says stands")


# ---- output ------------------------------------------------------------------------------------------------


def lost_output(mesh):
    for args in ("ask upper hi", "ls", "task ls", "help", "kv ls --shared --json"):
        r = shell(mesh, f"amesh {args} > /dev/full")
        check(r.returncode == 1 and "cannot be written" in r.stderr, f"{args} > /dev/full", r.returncode, r.stderr)


def reader_gone(mesh):
    r = shell(mesh, "set -o pipefail; amesh ask flood x | head -c 6")
    check(r.stdout == "line 1" and r.returncode == 128 + signal.SIGPIPE, "the answer's reader goes: so does the call", r.returncode, r.stdout, r.stderr)
    until(lambda: mesh.run("show", "flood", "--json").json()["instances"][0]["free"] == 1, "and the agent is told")
    for args in ("tap", "tap --json", "ls --watch", "ls --watch --json"):
        p = subprocess.Popen(["bash", "-c", f"amesh {args} | head -n 1"], env=mesh.env, stdout=subprocess.PIPE, text=True)
        until(lambda: mesh.run("ask", "upper", "x").ok() and p.poll() is not None, f"{args} | head -n 1 ends")
        check(p.stdout.read(), f"{args} showed a line")
    p = mesh.spawn("ls", "--watch")
    p.wait_line(lambda l: "upper" in l)
    p.signal(signal.SIGINT)
    check(p.wait() == 130, "ls --watch ends on ctrl-c as tap does", p.err)


def narrow(mesh):
    mesh.agent("narrow", "--description", "words " * 30, "--skill", "narrowness", "--", "cat")
    wide = at_terminal(mesh, 200, "ls")
    middle = at_terminal(mesh, 100, "ls")
    check(all(len(l) <= 100 for l in middle) and len(middle) == len(wide), "the last column gives way", *middle)
    check(any(l.startswith("narrow") and l.endswith("…") for l in middle), "visibly", *middle)
    small = at_terminal(mesh, 40, "ls")
    names = [l.split(None, 1)[1] for l in small if l.startswith("NAME")]
    check(len(names) == len(wide) - 1 and "narrow" in names, "too narrow for columns: a block per row", *small)
    at = small.index(next(l for l in small if l.split()[:2] == ["NAME", "narrow"]))
    check([l.split()[0] for l in small[at:at + 8]] == wide[0].split(), "with every column", *small[at:at + 8])
    for columns in (40, 80):
        help_text = at_terminal(mesh, columns, "help", "ask")
        prose = [l for l in help_text if not l.startswith("  amesh ") and not l.startswith("Usage")]
        check(all(len(l) <= columns for l in prose), f"help fits {columns} columns", *[l for l in prose if len(l) > columns])


def many(mesh):
    value = "v" * 200000
    for i in range(12):
        mesh.run("kv", "put", "--shared", f"big/{i:02}", "-", text=value).ok()
    entries = mesh.run("kv", "ls", "--shared", "big/", "--json").ok().json()["entries"]
    check([e["key"] for e in entries] == [f"big/{i:02}" for i in range(12)], "kv ls: more than one message holds", [e["key"] for e in entries])
    check(len(mesh.run("kv", "ls", "--shared", "big/").ok().out.splitlines()) == 13, "as a table")
    script = "for i in $(seq 230); do amesh ask --detach --context c-many nobody-there-$((i % 2)) \"$i\" & [ $((i % 16)) = 0 ] && wait; done; wait"
    check(shell(mesh, script).returncode == 0, "many tasks")
    listed = mesh.run("task", "ls", "--context", "c-many", "--limit", "1000", "--json").ok().json()
    check(len(listed["tasks"]) == 230 and listed["totalSize"] == 230, "task ls: more than one page", len(listed["tasks"]), listed["totalSize"])
    check(len({t["id"] for t in listed["tasks"]}) == 230, "each once")
    r = mesh.run("task", "ls", "--context", "c-many", "--limit", "7").ok()
    check(len(r.out.splitlines()) == 8 and "7 of 230 tasks" in r.err, "--limit", r.out, r.err)
    check(len(mesh.run("task", "ls", "--since", "1h", "--context", "c-many", "--json").ok().json()["tasks"]) == 230, "--since: those of the time")
    recent = mesh.run("task", "ls", "--since", "1ms", "--context", "c-many").ok()
    check(not recent.out and "no tasks of this kind" in recent.err, "and no others", recent.out, recent.err)
    check(len(mesh.run("history", "c-many", "--json").ok().json()["tasks"]) == 230, "history: more than one page")


# ---- completion --------------------------------------------------------------------------------------------

BASH = '''
source <(amesh completion bash)
complete -p amesh > /dev/null
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _amesh amesh "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; printf '%s\\n' "${COMPREPLY[@]}"; }
try "$@"
'''


def bash_words(mesh, *words):
    r = subprocess.run(["bash", "-c", BASH, "bash", "amesh", *words], env=mesh.env, capture_output=True, text=True, cwd=mesh.home, timeout=DEADLINE)
    check(r.returncode == 0 and not r.stderr, "the script is clean", r.stderr)
    return [w for w in r.stdout.split("\n") if w]


def fish_words(mesh, *words):
    line = "amesh " + " ".join(words)
    r = subprocess.run(["fish", "--no-config", "-c", "amesh completion fish | source; complete -C $argv[1]", line], env=dict(mesh.env, HOME=mesh.home),
                       capture_output=True, text=True, cwd=mesh.home, timeout=DEADLINE)
    check(r.returncode == 0 and not r.stderr, "the script is clean", r.stderr)
    return [l.split("\t")[0] for l in r.stdout.splitlines()]


def zsh_words(mesh, *words):
    """The script's function, with what the completion system would do with its words printed instead."""
    script = ('compdef() { :; }; _files() { print -l *(N); }; compset() { :; }\n'
              '_describe() { local w; for w in "${(@P)2}"; do print -r -- "${${w%%:*}}"; done; }\n'
              'source <(amesh completion zsh)\n'
              'words=(amesh "$@"); CURRENT=${#words}; _amesh')
    r = subprocess.run(["zsh", "-f", "-c", script, "zsh", *words], env=mesh.env, capture_output=True, text=True, cwd=mesh.home, timeout=DEADLINE)
    check(not r.stderr, "the script is clean", r.stderr)
    return [w for w in r.stdout.split("\n") if w]


def completion(mesh, complete):
    open(os.path.join(mesh.home, "zz-file.txt"), "w").close()
    task = mesh.run("ask", "--json", "upper", "for completion").ok().json()["id"]

    def has(words, wanted, unwanted=()):
        got = complete(mesh, *words)
        check(set(wanted) <= set(got) and not set(unwanted) & set(got) and len(got) == len(set(got)), " ".join(words), *got)

    has(["ta"], ["task", "tap"], ["ls"])
    has(["--json", "l"], ["ls"], ["task"])
    has(["--"], ["--json", "--bus", "--home", "--help"])
    has(["task", ""], ["ls", "show", "watch", "cancel"], ["task", "tap"])
    has(["task", "--"], ["--json"])
    has(["task", "ls", "--st"], ["--state"], ["--json"])
    has(["task", "ls", "--state", "c"], ["completed", "canceled"], ["failed"])
    has(["task", "show", ""], [task])
    has(["help", "t"], ["task", "tap"], ["ls"])
    has(["help", "task", "s"], ["show"], ["task", "tap", "ls"])
    has(["ask", "up"], ["upper"], ["asker"])
    has(["ask", "--skill", ""], ["shout"], ["upper-nobody"])
    has(["ask", "--file", "zz"], ["zz-file.txt"])
    has(["run", "--mode", ""], ["exec", "jsonl", "dial"])
    has(["run", "zz"], ["zz-file.txt"])
    has(["completion", ""], ["bash", "zsh", "fish"])
    has(["kv", "l"], ["ls"], ["get"])


def bash_splits(mesh):
    check(bash_words(mesh, "run", "--mode", "=", "js") == ["jsonl"], "bash gives --mode=js as three words")
    check(bash_words(mesh, "run", "--mode", "=") == ["exec", "jsonl", "dial"], "and --mode= as two")
    off = dict(mesh.env, AMESH_HOME=os.path.join(mesh.home, "nowhere"))
    r = subprocess.run(["bash", "-c", BASH, "bash", "amesh", "ask", ""], env=off, capture_output=True, text=True, timeout=DEADLINE)
    check(not r.stdout.strip() and not r.stderr, "without a mesh TAB says nothing", r.stdout, r.stderr)


with Mesh() as mesh:
    path = os.path.join(mesh.home, "agents.py")
    with open(path, "w") as f:
        f.write(AGENTS)
    mesh.agent("upper", "--skill", "shout:makes it loud", "--", "tr", "a-z", "A-Z")
    for name in ("asker", "flood", "wait"):
        mesh.agent(name, f"{path}:{name}")
    tap.run("ask --json: a question is a document and exit 9", question_json, mesh)
    tap.run("ask --json: history, times, the error of a call that ended", direct_document, mesh)
    tap.run("ask --key twice: one task, one answer", key_twice, mesh)
    tap.run("who waits is told why, direct and durable", waiting_is_said, mesh)
    tap.run("did you mean: agents, skills, commands of two words", did_you_mean, mesh)
    tap.run("help, run and env speak JSON too", explained, mesh)
    tap.run("defaults that say nothing are not shown; docstrings are", nothing_silly, mesh)
    tap.run("output that is lost is an error", lost_output, mesh)
    tap.run("a reader that goes away ends what it read", reader_gone, mesh)
    tap.run("narrow terminals", narrow, mesh)
    tap.run("lists of many pages", many, mesh)
    tap.run("completion in bash", completion, mesh, bash_words)
    tap.run("completion in bash: words that it splits, no mesh", bash_splits, mesh)
    for name, words in (("zsh", zsh_words), ("fish", fish_words)):
        if shutil.which(name):
            tap.run(f"completion in {name}", completion, mesh, words)
        else:
            tap.skip(f"completion in {name}", "allowed: the shell is not installed")
tap.done()
