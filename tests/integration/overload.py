#!/usr/bin/env python3
"""More than there is room for (amp.md 10.13): 10,000 submits at once, senders beyond their quotas, queues that are full. Everything is accepted or told when to come back,
nothing accepted is lost, and nobody's flood is another's wait."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import BUILD, TOP, Bus, Tap, check, until  # noqa: E402

# The limit of memory is the release build's; a sanitizer's shadow is not ours.
RELEASE = os.environ.get("AMESH_RELEASE", os.path.join(TOP, "build/release/amesh"))
STAMPEDE = os.path.join(os.path.dirname(RELEASE) if os.path.exists(RELEASE) else BUILD, "bench/bench_stampede")
RSS_MAX_KIB = 128 << 10
tap = Tap()


class Measured(Bus):
    def status(self, name):
        with open(f"/proc/{self.up.child.pid}/status") as f:
            return int(next(line for line in f if line.startswith(name)).split()[1])


def stampede(mesh, agent, clients, each, size, name):
    ids = os.path.join(mesh.home, "ids-" + name)
    out = subprocess.run([STAMPEDE, mesh.bus, agent, str(clients), str(each), str(size), ids], capture_output=True, text=True, timeout=200)
    check(out.returncode == 0, "the stampede came through", out.stdout, out.stderr)
    with open(ids) as f:
        return json.loads(out.stdout), [line.strip() for line in f]


def known(mesh, agent):
    return {t["id"]: t["status"]["state"] for t in mesh.run("task", "ls", "--agent", agent, "--limit", "10000", "--json", deadline=120).ok().json()["tasks"]}


def ten_thousand(mesh):
    """F21: 50 clients, 200 submits each, all at once."""
    idle = mesh.status("VmRSS")
    said, ids = stampede(mesh, "nobody-yet", 50, 200, 64, "a")
    peak = mesh.status("VmHWM")
    check(said["accepted"] == 10000 and said["failed"] == 0 and len(set(ids)) == 10000, "each is accepted, once", said)
    mesh.restart_env(program=RELEASE if os.path.exists(RELEASE) else None)
    there = known(mesh, "nobody-yet")
    check(set(ids) == set(there), "all that was accepted is in history after a kill -9, and nothing else", len(ids), len(there))
    print(f"# 10,000 at once: {said}; RSS {idle} KiB before, {peak} KiB at most")
    if os.path.exists(RELEASE):
        check(peak < RSS_MAX_KIB, "within 128 MiB", peak)


def large_ones(mesh):
    """Requests that together are larger than the memory there is for them: told to come back, and all there in the end."""
    for callers in (50, 100, 200):  # a fast disk has room for more
        said, ids = stampede(mesh, f"nobody-large{callers}", callers, 40, 48 << 10, f"b{callers}")
        check(said["accepted"] == 40 * callers, "all came through", said)
        there = known(mesh, f"nobody-large{callers}")
        check(set(ids) == set(there), "all are there", len(ids), len(there))
        if said["repeated"] > 0:
            break
    peak = mesh.status("VmHWM")
    check(said["repeated"] > 0, "some were told to come back", said)
    print(f"# {len(ids)} × 48 KiB at once: {said}; RSS {peak} KiB at most")
    if os.path.exists(RELEASE):
        check(peak < RSS_MAX_KIB + (64 << 10), "and they do not stay in memory", peak)
    agent = mesh.agent(f"nobody-large{callers}", "--concurrency", "8", "--mode", "jsonl", "--", sys.executable, "-c", "import json, sys\nfor line in sys.stdin:\n f = json.loads(line)\n if f.get('method') == 'task.run': print(json.dumps({'id': f['id'], 'result': str(len(f['params']['text']))}), flush=True)\n")
    until(lambda: all(s == "TASK_STATE_COMPLETED" for s in known(mesh, f"nobody-large{callers}").values()), "and are worked on", deadline=120)
    one = mesh.run("task", "show", ids[7], "--json").ok().json()
    check(one["artifacts"][0]["parts"][0]["text"] == str(48 << 10), "with all that was asked", one["artifacts"])
    agent.stop()


def envelope(sender, verb, body):
    return json.dumps({"version": 1, "from": sender, "envRequest": {verb: body}}).encode()


def submit(nats, sender, agent, text="x"):
    body = {"agent": agent, "request": {"taskId": "", "contextId": "", "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}]}}}
    return json.loads(nats.request(f"amp.env.submit.{sender}", envelope(sender, "submit", body))[3])["envReply"]


def info(nats):
    return json.loads(nats.request("amp.env.ping.tester", envelope("tester", "ping", {}))[3])["envReply"]["info"]


def quotas(mesh):
    """One sender's flood is refused with a time to come back, and another is served as if nothing were."""
    mesh.restart_env("--quota", "ci=200/s,20", "--quota", "rate=5/s")
    nats = Nats(mesh.bus)
    for _ in range(20):
        check("error" not in submit(nats, "ci", "nobody-quota"), "as many as it may have")
    waits = []
    for _ in range(3):
        error = submit(nats, "ci", "nobody-quota")["error"]
        check(error["code"] == 4009 and error["name"] == "quota" and "20 open" in error["message"], "then it is refused, and told why", error)
        waits.append(error["retryAfterMs"])
    check(0 < waits[0] < waits[1] < waits[2] <= 30000, "each is told a time of its own", waits)
    check("error" not in submit(nats, "other", "nobody-quota"), "others are not concerned")
    said = info(nats)
    check(said["senders"][0]["name"] == "ci" and said["senders"][0]["used"] == "20" and said["senders"][0]["refused"] == "3", "who has most is told", said["senders"])
    shown = mesh.run("check").ok()
    check("at its quota: ci" in shown.out, "also to people", shown.out)
    answers = [submit(nats, "rate", "nobody-quota") for _ in range(8)]
    late = [a["error"]["retryAfterMs"] for a in answers if "error" in a]
    check(late and late[0] <= 1000, "a rate says when its next token comes", answers)
    r = mesh.run("ask", "--durable", "--no-wait", "--detach", "nobody-quota", "x", env={"AMESH_AGENT": "ci"})
    check(r.status == 7 and "AMESH-4009" in r.err, "--no-wait: told at once", r.status, r.err)
    r = mesh.run("ask", "--detach", "--timeout", "100ms", "nobody-quota", "x", env={"AMESH_AGENT": "ci"})
    check(r.status == 7 and "AMESH-4009" in r.err, "nobody waits longer than he has time", r.status, r.err)
    agent = mesh.agent("nobody-quota", "--concurrency", "8", "--", "cat")
    r = mesh.run("ask", "--durable", "nobody-quota", "patience", env={"AMESH_AGENT": "ci"}).ok()
    check(r.out == "patience", "and with time it waits, and comes through", r.out)
    agent.stop()
    for bad in ("ci", "ci=fast", "ci=1/s,-1", "*.>=1/s", "ci=0/s"):
        r = mesh.run("env", "--quota", bad)
        check(r.status == 2 and "is not a quota" in r.err, f"--quota {bad}", r.status, r.err)


def senders_take_turns(mesh):
    """One has much waiting for an agent, another one task: that one does not wait for all of it, nor after a kill -9."""
    mesh.restart_env()
    nats, log = Nats(mesh.bus), os.path.join(mesh.home, "turns")
    for n in range(30):
        check("error" not in submit(nats, "many", "turns", f"many {n}\n"), "much waits")
    check("error" not in submit(nats, "few", "turns", "few\n"), "and one task of somebody else")
    mesh.kill_env()
    mesh.start_env()
    mesh.agent("turns", "--", "tee", "-a", log)
    lines = until(lambda: os.path.exists(log) and (found := open(log).read().splitlines()) and len(found) == 31 and found, "all of it runs")
    numbers = [int(line.split()[1]) for line in lines if line != "few"]
    check(lines.index("few") <= 2, "in turn", lines)
    # one that finds the instance not quite free may be passed by the next one
    check(sorted(numbers) == list(range(30)) and all(abs(n - i) <= 2 for i, n in enumerate(numbers)), "each in its order", lines)


def large_forks(mesh):
    """A flood of forks of a task with a long past: some are told when to come back, and do come through then."""
    agent = mesh.agent("long-past", "--", "sh", "-c", "head -c 12000000 /dev/zero | tr '\\0' x")
    task = mesh.run("ask", "--detach", "long-past", "speak").ok().out.strip()
    until(lambda: known(mesh, "long-past")[task] == "TASK_STATE_COMPLETED", "it has spoken")
    agent.stop()
    last = len(mesh.run("task", "show", task, "--events", "--json").ok().out.splitlines())
    nats = Nats(mesh.bus)
    nats.sub("_INBOX.forks")
    for _ in range(20):
        nats.pub("amp.env.fork.tester", envelope("tester", "fork", {"id": task, "seq": last - 1}), "_INBOX.forks")
    answers = [json.loads(nats.next(60)[3])["envReply"] for _ in range(20)]
    refused = [a["error"] for a in answers if "error" in a]
    check(0 < len(refused) < 20 and all(e["name"] == "overloaded" and e["retryAfterMs"] > 0 for e in refused), "they take turns with all that others want", answers)
    check(mesh.run("task", "fork", task, "--from", str(last - 1)).ok().out.startswith("t-"), "and amesh waits for its turn")


def watched_by_the_deaf(mesh, large):
    """The server waits for a subscriber that does not read, and all that the environment says waits with it: so it gets little at a time."""
    fifo, deaf, observer = os.path.join(mesh.home, "go-on"), Nats(mesh.bus), Nats(mesh.bus)
    os.mkfifo(fifo)
    agent = mesh.agent("leased", "--", "cat", fifo)
    task = mesh.run("ask", "--durable", "--detach", "leased", "x").ok().out.strip()
    observer.sub(f"amp.ctl.{agent.instance}.{task}")
    check(observer.next(), "it runs")
    deaf.sub("_INBOX.deaf.*")
    deaf.flush()
    one = envelope("deaf", "watch", {"id": large})
    deaf.sock.sendall(b"".join(b"PUB amp.env.watch.deaf _INBOX.deaf.%d %d\r\n%s\r\n" % (i, len(one), one) for i in range(9000)))
    for _ in range(6):
        check(observer.next(), "its holder is asked how it does each second")
        check(Nats(mesh.bus).request("amp.env.ping.other", envelope("other", "ping", {})), "and others are answered")
    check(mesh.run("ask", "--durable", "echo", "x").ok().out == "x", "also who watches another task")
    with open(fifo, "w") as f:
        f.write("as asked")
    done = until(lambda: (t := mesh.run("task", "show", task, "--json").ok().json())["status"]["state"] == "TASK_STATE_COMPLETED" and t, "it ends")
    check([a["outcome"] for a in done["metadata"]["amp/attempts"]] == ["completed"], "no lease has lapsed", done["metadata"])
    deaf.sock.close()
    agent.stop()


def reads_of_one(mesh):
    """A peer that asks for much more than it takes makes nobody wait but itself, and one that takes it gets all of it."""
    mesh.agent("echo", "--", "cat")
    large = mesh.run("ask", "--durable", "--json", "echo", "-", text="z" * 700000).ok().json()["id"]
    small = mesh.run("ask", "--durable", "--detach", "echo", "small").ok().out.strip()
    get = envelope("reader", "get", {"id": large, "events": True})
    for verb, body in (("get", {"id": large, "events": True}), ("list", {"pageSize": 200}), ("watch", {"id": large})):
        deaf, one = Nats(mesh.bus), envelope("deaf", verb, body)
        deaf.sub("_INBOX.deaf.*")
        deaf.flush()
        deaf.sock.sendall(b"".join(b"PUB amp.env.%s.deaf _INBOX.deaf.%d %d\r\n%s\r\n" % (verb.encode(), i, len(one), one) for i in range(300 if verb == "get" else 20)))
        for _ in range(3):
            check(Nats(mesh.bus).request("amp.env.ping.other", envelope("other", "ping", {})), "a ping is answered beside " + verb)
        for command in (["ls"], ["task", "show", small], ["task", "ls"], ["ask", "--durable", "echo", "x"]):
            mesh.run(*command).ok()
        deaf.sock.close()
    watched_by_the_deaf(mesh, large)
    reader = Nats(mesh.bus)
    reader.sub("_INBOX.reader.*")
    for i in range(60):
        reader.pub("amp.env.get.reader", get, f"_INBOX.reader.{i}")
    answered = {m[0] for m in (reader.next(60) for _ in range(60)) if m and b"z" * 1000 in m[3]}
    check(len(answered) == 60, "who reads gets every answer", len(answered))
    until(lambda: {q["name"]: q["used"] for q in info(reader)["queues"]}["read_bytes"] == "0", "nothing is counted that has left")


def queues_are_documented(mesh):
    nats = Nats(mesh.bus)
    queues = {q["name"]: q for q in info(nats)["queues"]}
    with open(os.path.join(TOP, "docs/operations.md")) as f:
        rows = {line.split("|")[1].strip(" `"): line.split("|")[2].strip() for line in f if line.startswith("| `") and line.count("|") == 5}
    for name, queue in queues.items():
        check(name in rows, f"{name} stands in docs/operations.md", rows)
        check(rows[name].split(", or")[0].replace(",", "") == queue["max"], f"with its maximum", name, rows[name], queue)


def a_loop_is_shown(mesh):
    """F24: two agents that ask each other. It ends, and each of the tasks says what happened."""
    for a, b in (("ping", "pong"), ("pong", "ping")):
        mesh.agent(a, "--concurrency", "20", "--", "sh", "-c", f"read t; amesh ask {b} \"$t\"")
    r = mesh.run("ask", "--durable", "--json", "--context", "c-loop", "ping", "round\n")
    check(r.status == 1, "it fails", r.status, r.out)
    tree = mesh.run("task", "show", r.json()["id"], "--tree").ok().out
    check(1 < len(tree.splitlines()) <= 17 and "ping" in tree and "pong" in tree, "the chain is seen", tree)
    shown = mesh.run("task", "show", r.json()["id"]).ok().out
    check("AMESH-2007" in shown or "come back to an agent" in shown, "and why it ended", shown)


def main():
    with Measured() as mesh:
        mesh.restart_env(program=RELEASE if os.path.exists(RELEASE) else None)
        tap.run("10,000 submits at once: accepted, none lost, within 128 MiB", ten_thousand, mesh)
        tap.run("requests larger than the memory for them come through", large_ones, mesh)
        tap.run("quotas of senders, with a time to come back", quotas, mesh)
        tap.run("senders take turns at an agent", senders_take_turns, mesh)
        tap.run("forks of a large task leave others their time", large_forks, mesh)
        tap.run("reads of one cost no other his answers", reads_of_one, mesh)
        tap.run("every bounded queue is told, and documented", queues_are_documented, mesh)
        tap.run("a loop of agents ends, and is shown", a_loop_is_shown, mesh)
    tap.done()


main()
