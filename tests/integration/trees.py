#!/usr/bin/env python3
"""Calls inside of tasks: their time, their tree, what ends with what, how far down they go; and why a task took as long as it did."""
import contextlib
import json
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats, waiting_calls  # noqa: E402
from meshtest import AMESH, Bus, Failed, Skipped, Tap, check, until  # noqa: E402

AGENT = os.path.join(HERE, "../support/tree.py")
tap = Tap()


class Trees(Bus):
    def start_up(self):
        self.log = self.env["TREE_LOG"] = os.path.join(self.home, "tree.log")
        open(self.log, "w").close()
        super().start_up()
        self.served = {name: self.serve(name) for name in ("a", "b", "c", "d")}
        for name in ("x", "y", "z"):
            self.agent(name, "--concurrency", "4", "--", sys.executable, AGENT)

    def serve(self, name, *options):
        return self.agent(name, "--concurrency", "4", *options, AGENT + ":agent")

    def did(self, what, task=None, agent=None):
        with open(self.log) as f:
            lines = [line.split() for line in f]
        return [words for words in lines if words[0] == what and task in (None, words[1]) and agent in (None, *words[2:3])]

    def go(self, task):
        open(os.path.join(self.home, "go-" + task), "w").close()

    def began(self, agent, n=1):
        """→ the id of the n-th task that this agent was given, once it has it"""
        return until(lambda: self.did("begin", agent=agent)[n - 1:n], f"task {n} of {agent} begins")[0][1]

    def forget(self):
        open(self.log, "w").close()

    def ended(self, task, state):
        def look():
            record = self.run("task", "show", task, "--json")
            return record.status == 0 and record.json()["status"]["state"] == "TASK_STATE_" + state
        until(look, f"{task} is {state}", 20)

    def submit(self, agent, text, *options):
        return self.run("ask", "--detach", *options, agent, text).ok().out.strip()


def numbers(text):
    return [int(word) for word in text.split()]


def time_shrinks(mesh, how, *names):
    first, *rest = names
    words = " ".join(f"{how} {name}" for name in rest)
    left = numbers(mesh.run("ask", "--timeout", "50s", first, words).ok().out)
    check(len(left) == len(names) and left[0] <= 50000, "each tells what it was given", left)
    check(all(above - below >= 50 for above, below in zip(left, left[1:])), "each has less than the one above, which had used 50 ms", left)
    check(left[-1] > 30000, "and no less than is left", left)


def time_is_over(mesh, agent, how):
    """The parent's time ends while it waits for its child."""
    mesh.forget()
    asked = mesh.spawn("ask", "--timeout", "1s", agent, f"{how} c wait")
    child = mesh.began("c")
    check(asked.wait() in (1, 6), "the parent missed its deadline, or its agent says that the child did", asked.err)
    until(lambda: mesh.did("canceled", child), "the child is told to stop")
    until(lambda: any(t["id"] == child and t["status"]["state"] in ("TASK_STATE_CANCELED", "TASK_STATE_FAILED")
                      for t in mesh.run("task", "ls", "--json").ok().json()["tasks"]), "and ends")


def detached_has_its_own_time(mesh, agent):
    mesh.forget()
    mesh.run("ask", "--timeout", "5s", agent, "detach c wait").ok()
    child = mesh.began("c")
    record = mesh.show(child)
    check("amp/deadline" not in record["metadata"] and record["metadata"]["amp/detached"] is True, "no deadline, and it says why", record["metadata"])
    mesh.go(child)
    mesh.ended(child, "COMPLETED")


def one_tree(mesh):
    """a → x (direct) → b (durable) → y (direct) → c, which waits; and a restart of the environment in the middle."""
    mesh.forget()
    root = mesh.submit("a", "direct x durable b direct y wait")
    leaf, others = mesh.began("y"), [mesh.began(name) for name in ("x", "b")]
    ids = [root, *others, leaf]
    until(lambda: all(mesh.run("task", "show", i).status == 0 for i in ids), "the environment knows all of them")
    check(all(mesh.show(i)["metadata"]["amp/root"] == root for i in ids[1:]), "each knows the root")
    for i in ids:
        out = mesh.run("task", "show", i, "--tree").ok().out.splitlines()
        check(len(out) == 4 and all(task in line for task, line in zip(ids, out)), f"the whole tree, asked for {i}", *out)
        indents = [len(line) - len(line.lstrip(" |`-│└─├")) for line in out]
        check(indents == sorted(set(indents)), "each indented more than the one above", *out)
        check(all(kind in line for kind, line in zip(("durable", "direct", "durable", "direct"), out)) and all("working" in line for line in out), "kind and state", *out)
    mesh.restart_env()
    tree = until(lambda: (lambda r: r.json()["metadata"]["amp/tree"] if r.status == 0 else None)(mesh.run("task", "show", leaf, "--tree", "--json")), "the tree after a restart")
    found = []
    while tree:
        found.append(tree["id"])
        check(tree["state"] == "working" and isinstance(tree["durable"], bool) and tree["agent"], "a node", tree)
        tree = tree["children"][0] if tree.get("children") else None
    check(found == ids, "the same", found, ids)
    mesh.go(leaf)
    mesh.ended(root, "COMPLETED")


def ends_with_parent(mesh, agent, how, end):
    """The parent is submitted or called; its child, and that one's child, wait."""
    mesh.forget()
    parent = mesh.submit(agent, f"{how} b {how} c wait")
    leaf, middle = mesh.began("c"), mesh.began("b")
    until(lambda: mesh.run("task", "show", leaf).status == 0, "the leaf is known")
    end(parent)
    until(lambda: mesh.did("canceled", leaf), "the leaf is told to stop")
    for task in (parent, middle, leaf):
        mesh.ended(task, "CANCELED")
    check(parent in json.dumps(mesh.show(middle)["status"]), "it says what it ended with", mesh.show(middle)["status"])


def death_ends_children(mesh, how):
    """The parent's sidecar and agent are killed; nobody tries it again."""
    mesh.forget()
    doomed = mesh.serve("doomed", "--retry", "never")
    parent = mesh.submit("doomed", f"{how} c wait")
    child = mesh.began("c")
    until(lambda: mesh.run("task", "show", child).status == 0, "the child is known")
    until(lambda: mesh.state(parent) == "TASK_STATE_WORKING", "the attempt is written down")
    os.killpg(doomed.child.pid, signal.SIGKILL)
    mesh.ended(parent, "FAILED")
    until(lambda: mesh.did("canceled", child), "the child is told to stop")
    mesh.ended(child, "CANCELED")


def retry_keeps_children(mesh):
    """An attempt of the parent dies: the durable child of its key is still there for the next one."""
    mesh.forget()
    first = mesh.serve("twice")
    parent = mesh.submit("twice", "durable c wait")
    child = mesh.began("c")
    os.killpg(first.child.pid, signal.SIGKILL)
    mesh.serve("twice")
    mesh.began("twice", 2)
    check(not mesh.did("canceled", child) and mesh.state(child) == "TASK_STATE_WORKING", "the child of the first attempt goes on")
    mesh.run("task", "cancel", parent).ok()
    mesh.ended(child, "CANCELED")


def completed_leaves_children(mesh):
    mesh.forget()
    parent = mesh.submit("a", "detach c wait")
    child = mesh.began("c")
    mesh.ended(parent, "COMPLETED")
    other = mesh.submit("x", "detach d wait")
    second = mesh.began("d")
    mesh.ended(other, "COMPLETED")
    for task in (child, second):
        check(mesh.state(task) in ("TASK_STATE_WORKING", "TASK_STATE_SUBMITTED"), "it goes on")
        mesh.go(task)
        mesh.ended(task, "COMPLETED")


def no_environment_is_there(mesh):
    """The environment is killed between the parent's end and its children's: the next one sees to it."""
    mesh.forget()
    parent = mesh.submit("doomed-too", "durable nobody wait")
    only = mesh.serve("doomed-too", "--retry", "never")
    mesh.began("doomed-too")
    child = until(lambda: [t["id"] for t in mesh.run("task", "ls", "--json", "--agent", "nobody").ok().json()["tasks"]], "the child waits")[0]
    until(lambda: mesh.state(parent) == "TASK_STATE_WORKING", "the attempt is written down")
    mesh.up.signal(signal.SIGSTOP)
    os.killpg(only.child.pid, signal.SIGKILL)
    mesh.restart_env()
    mesh.ended(parent, "FAILED")
    mesh.ended(child, "CANCELED")


def no_crash_leaves_children_behind(mesh):
    """The environment dies right behind one of its commits, which may be that of the parent's end: the next one sees to the children."""
    with open(AMESH, "rb") as f:
        if b"AMESH_CRASH_AT" not in f.read():
            raise Skipped("this build ends at no point")
    ended = 0
    for n in range(1, 9):
        parent = mesh.submit("nobody", "x")
        asked = mesh.spawn("ask", "--durable", "nobody", "x", env={"AMESH_TASK": parent})
        child = until(lambda: [t["id"] for t in mesh.run("task", "ls", "--parent", parent, "--json").ok().json()["tasks"]], "the child is there")[0]
        mesh.kill_env()
        with contextlib.suppress(Failed):
            mesh.start_env(env={"AMESH_CRASH_AT": f"env_committed:{n}"})
        mesh.run("task", "cancel", parent)
        mesh.restart_env()
        if mesh.state(parent) == "TASK_STATE_SUBMITTED":
            mesh.run("task", "cancel", parent).ok()
        else:
            ended += mesh.up.child.poll() is None
        for task in (parent, child):
            mesh.ended(task, "CANCELED")
        check(asked.wait() != 0, "its caller knows")
    check(ended > 0, "at least one parent had ended by then")


def fails(result, code, *words):
    check(result.status != 0 and code in result.err and all(word in result.err for word in words), f"{code}, which names the path", result.out, result.err)


def circles_name_the_path(mesh, first, second, how):
    """first → second → first"""
    result = mesh.run("ask", first, f"{how} {second} {how} {first}")
    fails(result, "", f"{first} -> {second} -> {first}")


def circles_by_skill(mesh):
    """Nobody can see it before the callee does."""
    result = mesh.run("ask", "--skill", "round", "x", env={"AMESH_TASK": "t-above", "AMESH_PATH": "one,wheel,two"})
    fails(result, "AMESH-2007", "one -> wheel -> two -> wheel")
    durable = mesh.run("ask", "--durable", "--skill", "round", "x", env={"AMESH_TASK": "t-above", "AMESH_PATH": "one,wheel,two"})
    fails(durable, "AMESH-2007", "one -> wheel -> two -> wheel")


def chains_end(mesh):
    """16 calls may stand above one, the 17th is refused where it is made."""
    names = [f"n{i}" for i in range(15)]
    inside = {"AMESH_TASK": "t-above", "AMESH_PATH": ",".join(names)}
    mesh.run("ask", "a", "", env=inside).ok()
    mesh.run("ask", "a", "direct b", env=inside).ok()
    for how in ("direct", "durable"):
        fails(mesh.run("ask", "a", f"{how} b {how} c", env=inside), "", "n0 -> n1 -> ", "-> a -> b -> c")
        fails(mesh.run("ask", "x", f"{how} y {how} z", env=inside), "", "n0 -> n1 -> ", "-> x -> y -> z")
    long = ["n" * 60 + str(i) for i in range(17)]
    for options in ((), ("--durable",)):
        fails(mesh.run("ask", *options, "a", "x", env={"AMESH_TASK": "t-above", "AMESH_PATH": ",".join(long)}), "AMESH-2008", f"{long[0]} -> {long[1]} -> ... -> ", "-> a")


def ends_at_once_below_what_ended(mesh):
    """Somebody still submits inside of a task that was cancelled."""
    parent = mesh.submit("nobody", "x")
    mesh.run("task", "cancel", parent).ok()
    mesh.ended(parent, "CANCELED")
    child = mesh.run("ask", "--durable", "--detach", "nobody", "x", env={"AMESH_TASK": parent}).ok().out.strip()
    late = mesh.run("ask", "--json", "--durable", "nobody", "x", env={"AMESH_TASK": parent})
    check(late.status != 0 and f"its parent {parent} was cancelled" in json.dumps(late.json()["status"]), "it ends with what is above it", late.out, late.err)
    check(mesh.state(child) == "TASK_STATE_SUBMITTED", "what was detached does not")


def many_children_are_counted(mesh):
    parent = mesh.submit("nobody", "x")
    for i in range(103):
        mesh.run("ask", "--detach", "nobody", f"child {i}", env={"AMESH_TASK": parent}).ok()
    out = mesh.run("task", "show", parent, "--tree").ok().out
    check(len(mesh.run("task", "ls", "--parent", parent, "--limit", "200", "--json").ok().json()["tasks"]) == 103, "task ls --parent has all")
    check("3 more" in out and "child 102" in out and "child 2 " not in out and len(out.splitlines()) == 102, "the newest hundred", out[:400])


def explain(mesh, task, *options):
    return mesh.run("explain", task, *options).ok().out


def explains_what_waits(mesh):
    task = mesh.submit("absent", "x")
    out = until(lambda: (lambda o: o if "no instance of absent" in o else None)(explain(mesh, task)), "why it waits")
    check("amesh run --name absent" in out and "waiting for an instance" in out, "what helps", out)
    mesh.agent("absent", "--concurrency", "1", AGENT + ":agent")
    mesh.ended(task, "COMPLETED")
    document = json.loads(explain(mesh, task, "--json"))
    check(document["attempts"][0]["why"] == "the only instance there: it came to the mesh, with a free slot", "why there", document)
    first = mesh.submit("absent", "wait")
    mesh.began("absent", 2)
    second = mesh.submit("absent", "wait")
    until(lambda: (lambda o: "is busy" in o and f"amesh explain {first}" in o)(explain(mesh, second)), "it is busy, and who keeps it busy")  # its beat may come later
    mesh.go(first)
    mesh.ended(first, "COMPLETED")
    mesh.began("absent", 3)
    mesh.go(second)
    mesh.ended(second, "COMPLETED")
    document = json.loads(explain(mesh, second, "--json"))
    check("this task's turn" in document["attempts"][0]["why"] and document["waits"], "its turn came", document)
    check(sum(part["ms"] for part in document["time"]) == document["totalMs"], "the parts are the whole", document)


def explains_what_a_direct_call_waited_for(mesh):
    """It waited at the environment for its turn: so that knows for what, and how long."""
    mesh.agent("one", "--", "sh", "-c", 'read name; echo >> "$TREE_LOG.$name"; until [ -e "$TREE_LOG-$name" ]; do sleep 0.02; done')
    first = mesh.begin("ask", "one", "first\n")
    until(lambda: mesh.lines_of("tree.log.first"), "the first one is at work")
    second = mesh.begin("ask", "one", "second\n")
    nats = Nats(mesh.bus)
    until(lambda: waiting_calls(nats) == 1, "the second one waits for its turn")
    open(mesh.path("tree.log-first"), "w").close()
    open(mesh.path("tree.log-second"), "w").close()
    first.join()
    second.join()
    waited, had = (json.loads(explain(mesh, t["id"], "--json")) for t in mesh.run("task", "ls", "--agent", "one", "--json").ok().json()["tasks"])
    spent = {part["what"]: part["ms"] for part in waited["time"]}
    check(had["waits"] == [] and "it had a free slot" in had["attempts"][0]["why"], "one that did not wait", had)
    check([w["reason"] for w in waited["waits"]] == ["every instance is busy"] and spent["queue"] > 0, "what it waited for", waited)
    check("it was this task's turn" in waited["attempts"][0]["why"], "why there", waited["attempts"])


def explains_what_was_slow(mesh):
    """Two attempts, a child, a question."""
    mesh.forget()
    first = mesh.serve("slow")
    task = mesh.submit("slow", "direct c wait")
    lost = mesh.began("c")
    until(lambda: mesh.state(task) == "TASK_STATE_WORKING", "the attempt is written down")
    mesh.serve("slow")
    os.killpg(first.child.pid, signal.SIGKILL)
    child = mesh.began("c", 2)
    until(lambda: child in explain(mesh, task), "it names the child that it waits for")
    mesh.go(child)
    mesh.ended(task, "COMPLETED")
    document = json.loads(explain(mesh, task, "--json"))
    parts = {part["what"]: part["ms"] for part in document["time"]}
    check(parts.get("lost") and parts.get("children") and sum(parts.values()) == document["totalMs"], "lost and children", document)
    check(document["attempts"][1]["why"].startswith("tried again elsewhere, as attempt 1 ended with instance_lost"), "why the second one", document["attempts"])
    check({c["id"] for c in document["children"]} == {lost, child}, "both children", document["children"])
    mesh.agent("asker", "--", "sh", "-c", "amesh task ask 'which colour?'")
    asking = mesh.submit("asker", "x")
    out = until(lambda: (lambda o: o if "which colour?" in o else None)(explain(mesh, asking)), "what it asks")
    check(f"amesh ask --task {asking} TEXT" in out, "and how it is answered", out)
    mesh.run("ask", "--task", asking, "blue").ok()
    out = explain(mesh, asking)
    check("an answer to: which colour?" in out and "now" not in out.splitlines()[2], "afterwards", out)
    check(mesh.run("explain", "t-none").status == 4, "no such task: 4")


def main():
    with Trees() as mesh:
        for how in ("direct", "durable"):
            tap.run(f"the time of a task shrinks over three {how} calls of the local API", time_shrinks, mesh, how, "a", "b", "c", "d")
            tap.run(f"and over three {how} calls of amesh ask inside of tasks", time_shrinks, mesh, how, "x", "y", "z", "a")
        for agent, how in (("a", "direct"), ("a", "durable"), ("x", "direct"), ("x", "durable")):
            tap.run(f"a {how} child ends with the time of its parent, called by {agent}", time_is_over, mesh, agent, how)
            tap.run(f"{how} children, and theirs, are cancelled with their parent, called by {agent}", ends_with_parent, mesh, agent, how,
                    lambda task: mesh.run("task", "cancel", task, "--reason", "no more").ok())
        for agent in ("a", "x"):
            tap.run(f"what {agent} detaches has a time of its own", detached_has_its_own_time, mesh, agent)
        tap.run("a completed parent leaves what it detached alone", completed_leaves_children, mesh)
        for how in ("direct", "durable"):
            tap.run(f"a {how} child ends with the death of its parent's agent and sidecar", death_ends_children, mesh, how)
        tap.run("a parent that is tried again keeps its durable children", retry_keeps_children, mesh)
        tap.run("children whose parent ended while the environment was away end with the next one", no_environment_is_there, mesh)
        tap.run("no crash of the environment leaves children of an ended task behind", no_crash_leaves_children_behind, mesh)
        tap.run("one tree: whole from each of its tasks, direct and durable, over a restart", one_tree, mesh)
        for first, second in (("a", "b"), ("x", "y"), ("a", "x"), ("x", "a")):
            for how in ("direct", "durable"):
                tap.run(f"a circle {first} → {second} → {first} of {how} calls is refused with its path", circles_name_the_path, mesh, first, second, how)
        mesh.agent("wheel", "--skill", "round", "--", "cat")
        tap.run("so is a circle by a skill", circles_by_skill, mesh)
        tap.run("a chain that is too long is refused with its path", chains_end, mesh)
        tap.run("what is submitted inside of a cancelled task ends at once, unless it is detached", ends_at_once_below_what_ended, mesh)
        tap.run("of many children the newest are shown, the others counted", many_children_are_counted, mesh)
        tap.run("explain says what a task waits for, what helps, and why it was its turn", explains_what_waits, mesh)
        tap.run("explain says what a direct call waited for", explains_what_a_direct_call_waited_for, mesh)
        tap.run("explain says what made a task slow: attempts, children, questions", explains_what_was_slow, mesh)
    tap.done()


if __name__ == "__main__":
    main()
