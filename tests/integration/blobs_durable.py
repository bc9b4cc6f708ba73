#!/usr/bin/env python3
"""Files of any size in durable tasks (amp.md 15.6): the environment has them before it accepts, and before it commits what names them; whoever dies where, nothing that was accepted is lost."""
import base64
import hashlib
import json
import os
import re
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
import meshtest  # noqa: E402
from blobtest import BIG, COPY, GIVE, MEDIUM, SMALL, digest, ended, fetched, fill, has_begun, one, parts_of, peak_kb, store, stored  # noqa: E402
from lib_nats import Nats  # noqa: E402
from meshtest import Bus, Skipped, Tap, check, until  # noqa: E402

tap = Tap()
RELEASE = os.environ.get("AMESH_RELEASE")
ROOM_KB = 32 << 10  # what a file of 100 MB may add to a process


# ---- there and back ---------------------------------------------------------------------------------------------------


def there_and_back(mesh, copier):
    out = os.path.join(mesh.home, "out-1")
    r = mesh.run("ask", "--durable", "cp", "hello", "--file", mesh.big, "--output", out, deadline=180)
    check(r.status == 0 and r.out == "hello" and digest(one(out)) == digest(mesh.big), "the same bytes come back", r.status, r.out, r.err)
    check(stored(mesh) == ["sha256-" + digest(mesh.big)], "once on the disk of the environment, though two parts name it", stored(mesh))
    info = os.stat(os.path.join(store(mesh), stored(mesh)[0]))
    check(info.st_mode & 0o777 == 0o400 and os.stat(store(mesh)).st_mode & 0o777 == 0o700, "for this user alone", oct(info.st_mode))
    if not RELEASE:
        raise Skipped("memory: needs a release build: AMESH_RELEASE")
    idle = mesh.agent("idle", "--", "cat")
    mesh.run("ask", "idle", "x").ok()
    peaks = {"env": peak_kb(mesh.up.child.pid), "cp": peak_kb(copier.child.pid), "idle": peak_kb(idle.child.pid)}
    print("# VmHWM in KB: " + json.dumps(peaks), flush=True)
    check(max(peaks["env"], peaks["cp"]) < peaks["idle"] + ROOM_KB, "memory stays flat", peaks)


# Hands its files on by a durable send, and gives the files of its answer.
RELAY = r"""
import json, sys
def say(**what):
    print(json.dumps(what), flush=True)
for line in sys.stdin:
    f = json.loads(line)
    if f.get("method") == "task.run":
        p = f["params"]
        run = f["id"]
        files = [part for part in p["message"]["parts"] if "url" in part]
        say(id="s-1", method="send", params={"to": "cp", "durable": True, "taskId": p["taskId"], "message": {"parts": [{"text": "x"}] + files}})
    elif f.get("id") == "s-1":
        artifacts = [{"name": "back", "parts": a["parts"]} for a in f.get("result", {}).get("artifacts", []) if any("url" in q for q in a["parts"])]
        say(id=run, result={"text": json.dumps(f.get("error", "fine")), "artifacts": artifacts})
"""


def sent_by_agents(mesh):
    relay = mesh.agent("relay", "--mode", "jsonl", "--", sys.executable, "-c", RELAY)
    out = os.path.join(mesh.home, "out-relay")
    r = mesh.run("ask", "--durable", "relay", "x", "--file", mesh.big, "--output", out, deadline=180)
    check(r.status == 0 and "fine" in r.out and digest(one(out)) == digest(mesh.big), "through a durable send and back", r.status, r.out, r.err)
    check(not RELEASE or peak_kb(relay.child.pid) < (48 << 10), "memory stays flat", peak_kb(relay.child.pid))


def small_ones(mesh):
    out = os.path.join(mesh.home, "out-2")
    tiny = fill(os.path.join(mesh.home, "tiny.bin"), 1000)
    empty = os.path.join(mesh.home, "empty.bin")
    open(empty, "w").close()
    mesh.run("ask", "--durable", "cp", "x", "--file", tiny, "--file", empty, "--file", mesh.small, "--output", out).ok()
    check({n: digest(os.path.join(out, n)) for n in os.listdir(out)} == {"copy-tiny.bin": digest(tiny), "copy-empty.bin": digest(empty), "copy-small.bin": digest(mesh.small)}, "all of them", os.listdir(out))


def a_long_text(mesh):
    text = "".join(f"{i:07d}\n" for i in range(300000))  # 2.4 MB
    r = mesh.run("ask", "--durable", "cat", "-", text=text)
    check(r.status == 0 and r.out == text, "as long as it is", r.status, len(r.out), r.err[-500:])


def larger_answers(mesh):
    """Many files, each of which fits a message, and all of them together do not."""
    out = os.path.join(mesh.home, "out-3")
    mesh.agent("many", "--", "sh", "-c", 'for i in 1 2 3 4 5; do head -c 2000000 /dev/zero | tr "\\0" $i > "$AMESH_OUT/f$i"; done')
    mesh.run("ask", "--durable", "many", "x", "--output", out).ok()
    check(sorted(os.listdir(out)) == ["f1", "f2", "f3", "f4", "f5"] and all(os.path.getsize(os.path.join(out, n)) == 2000000 for n in os.listdir(out)), "all of them", os.listdir(out))


# ---- accepted is durable ------------------------------------------------------------------------------------------------


def killed_before_dispatch(mesh):
    """Nobody is there for it yet; its caller is gone, and the environment is killed: the next one has the file."""
    task = mesh.run("ask", "--detach", "later", "x", "--file", mesh.medium).ok().out.strip()
    mesh.restart_env()
    check("sha256-" + digest(mesh.medium) in stored(mesh), "it is there", stored(mesh))
    mesh.agent("later", "--", "sh", "-c", COPY)
    ended(mesh, task)
    mesh.restart_env()
    check(digest(one(fetched(mesh, task, "out-4"))) == digest(mesh.medium), "and so is the answer's, after one more")


def killed_caller(mesh):
    """kill -9 of who asked, as soon as it knows that the task is accepted."""
    caller = mesh.spawn("ask", "--durable", "--verbose", "absent", "x", "--file", mesh.medium)
    task = re.search(r"t-[0-9a-z]{26}", caller.wait_line(lambda line: "accepted as" in line, stream="err"))[0]
    caller.signal(signal.SIGKILL)
    caller.wait()
    mesh.agent("absent", "--", "sh", "-c", COPY)
    check(parts_of(ended(mesh, task))[0]["metadata"]["amp/blob"]["holder"] == "env", "the environment is the holder")
    check(digest(one(fetched(mesh, task, "out-5"))) == digest(mesh.medium), "whole")


def killed_caller_in_the_middle(mesh):
    count = mesh.run("task", "ls", "--json").ok().out.count('"id"')
    caller = mesh.spawn("ask", "--durable", "cp", "x", "--file", fill(os.path.join(mesh.home, "other.bin"), BIG))
    until(lambda: has_begun(mesh), "it has begun")
    caller.signal(signal.SIGKILL)
    caller.wait()
    until(lambda: not has_begun(mesh), "half a file is thrown away")
    check(mesh.run("task", "ls", "--json").ok().out.count('"id"') == count, "nothing was accepted")
    check("sha256-" + digest(os.path.join(mesh.home, "other.bin")) not in stored(mesh), "and nothing is kept", stored(mesh))


def killed_env_in_the_middle(mesh):
    """The environment dies while it fetches: its caller asks the next one, and is accepted once."""
    path, out = fill(os.path.join(mesh.home, "third.bin"), BIG), os.path.join(mesh.home, "out-6")
    caller = mesh.spawn("ask", "--durable", "--key", "k-third", "cp", "x", "--file", path, "--output", out)
    until(lambda: has_begun(mesh), "it has begun")
    mesh.restart_env()
    check(caller.wait(180) == 0 and digest(one(out)) == digest(path), "it is whole", caller.err)
    check(not has_begun(mesh), "and no half file is left", stored(mesh))
    again = mesh.run("ask", "--durable", "--key", "k-third", "--verbose", "cp", "x", "--file", path, deadline=180)
    check(again.status == 0 and "the key is known" in again.err, "the same file from somebody else is the same request", again.status, again.err)


# ---- answers ----------------------------------------------------------------------------------------------------------------

def killed_holder(mesh):
    """The instance dies while the environment fetches what it answered: the attempt is lost like any other."""
    first, second = mesh.agent("giver", "--", "sh", "-c", GIVE), mesh.agent("giver", "--", "sh", "-c", GIVE)
    task = mesh.run("ask", "--detach", "giver", "x").ok().out.strip()
    until(lambda: has_begun(mesh), "it has begun")
    instance = mesh.show(task)["metadata"]["amp/attempts"][-1]["instance"]
    (first if first.instance == instance else second).signal(signal.SIGKILL)
    shown = ended(mesh, task)
    attempts = shown["metadata"]["amp/attempts"]
    check(len(attempts) == 2 and attempts[0]["outcome"] == "instance_lost" and attempts[1]["instance"] != instance, "another one did it", attempts)
    said = "".join(p.get("text", "") for a in shown["artifacts"] for p in a["parts"])
    check(len(parts_of(shown)) == 1 and digest(one(fetched(mesh, task, "out-7"))) == said.strip(), "the file and the words are of one attempt", said, shown)


def killed_env_at_the_answer(mesh):
    """The environment dies while it fetches the answer: the next one goes on with the same attempt."""
    mesh.agent("lasting", "--", "sh", "-c", GIVE)
    task = mesh.run("ask", "--detach", "lasting", "x").ok().out.strip()
    until(lambda: has_begun(mesh), "it has begun")
    mesh.restart_env()
    shown = ended(mesh, task)
    check(len(shown["metadata"]["amp/attempts"]) == 1, "one attempt", shown["metadata"]["amp/attempts"])
    said = "".join(p.get("text", "") for a in shown["artifacts"] for p in a["parts"])
    check(digest(one(fetched(mesh, task, "out-8"))) == said.strip(), "whole", said, shown)


def stopped_in_the_middle(mesh):
    """SIGTERM of the environment while it fetches, for a submit and for an answer: it ends in good order, who waits is told, the attempt goes on."""
    mesh.agent("steady", "--", "sh", "-c", GIVE)
    task = mesh.run("ask", "--detach", "steady", "x").ok().out.strip()
    until(lambda: has_begun(mesh), "the answer is being fetched")
    caller = mesh.spawn("ask", "--durable", "cp", "x", "--file", mesh.big)
    until(lambda: len(has_begun(mesh)) > 1 or len([n for n in stored(mesh) if n.startswith("sha256")]) > 0, "and the file of a submit")
    mesh.up.signal(signal.SIGTERM)
    check(mesh.up.wait() == 0, "it ends", mesh.up.err[-10:])
    mesh.start_env()
    check(caller.wait(120) in (0, 7), "its caller is told, or was quick enough", caller.err)
    check(len(ended(mesh, task)["metadata"]["amp/attempts"]) == 1, "one attempt")


def others_go_on(mesh):
    """While the holder of one answer stands still, other tasks of the environment go on; it is given up, and the task is done by another."""
    still = mesh.agent("still", "--", "sh", "-c", GIVE)
    task = mesh.run("ask", "--detach", "still", "x").ok().out.strip()
    until(lambda: has_begun(mesh), "it has begun")
    still.signal(signal.SIGSTOP)
    mesh.run("ask", "--durable", "cat", "meanwhile").ok()
    mesh.run("ask", "--durable", "cp", "x", "--file", mesh.small).ok()
    mesh.agent("still", "--", "sh", "-c", GIVE)
    shown = ended(mesh, task)
    still.signal(signal.SIGCONT)
    check(len(shown["metadata"]["amp/attempts"]) == 2 and len(parts_of(shown)) == 1, "by another one", shown["metadata"]["amp/attempts"])


def canceled(mesh):
    mesh.agent("stoppable", "--", "sh", "-c", GIVE)
    task = mesh.run("ask", "--detach", "stoppable", "x").ok().out.strip()
    until(lambda: has_begun(mesh), "it has begun")
    r = mesh.run("task", "cancel", task)
    check(r.status in (0, 8), "told", r.status, r.err)
    until(lambda: mesh.state(task) in ("TASK_STATE_CANCELED", "TASK_STATE_COMPLETED"), "it ends, as it is quicker")


# ---- by hand: holders that lie ------------------------------------------------------------------------------------------------

BYTES = b"abc"
DIGEST = hashlib.sha256(BYTES).hexdigest()


def submit_by_hand(nats, holder, agent="cat", digest_of=DIGEST, size=3, **more):
    """→ (inbox, task)"""
    submit_by_hand.n = n = getattr(submit_by_hand, "n", 0) + 1
    inbox = f"_INBOX.hand{os.getpid()}.{n}"
    nats.sub(inbox)
    part = {"url": "amp-blob:sha256-" + digest_of, "filename": "x.bin", "metadata": {"amp/blob": {"size": size, "holder": holder}}}
    request = {"taskId": f"t-hand-{n}", "contextId": "", "message": {"role": "ROLE_USER", "messageId": f"m-{n}", "parts": [{"text": "x"}, part]}}
    request.update(more.pop("request", {}))
    body = {"version": 1, "from": "me", "envRequest": {"submit": {"agent": agent, "request": request, **more}}}
    nats.pub("amp.env.submit.me", json.dumps(body).encode(), inbox)
    return inbox, request["taskId"]


def serve(nats, message, data=BYTES, digest_of=DIGEST, size=None):
    answer = {"version": 1, "from": "me", "blob": {"digest": "sha256-" + digest_of, "offset": "0", "size": str(len(data) if size is None else size), "data": base64.b64encode(data).decode()}}
    nats.pub(message[1], json.dumps(answer).encode())


def answered(nats, inbox, on_read=None, seconds=60.0):
    while True:
        message = nats.next(seconds)
        check(message, "an answer within %s s" % seconds)
        if message[0] == inbox:
            return json.loads(message[3])["envReply"]
        if on_read:
            on_read(message)


def holders_that_lie(mesh):
    nats = Nats(mesh.bus)
    nats.sub("amp.blob.i-hand.*")
    nats.sub("amp.blob.i-mute.*")
    before = stored(mesh)

    def refused(name, *words, holder="i-hand", on_read=None, **more):
        error = answered(nats, submit_by_hand(nats, holder, **more)[0], on_read).get("error")
        check(error and error["name"] == name and all(w in error["message"] + error.get("hint", "") for w in words), "refused", name, words, error)
        check(stored(mesh) == before, "nothing of it stays", stored(mesh))

    refused("instance_lost", DIGEST, "i-nobody", holder="i-nobody")
    refused("bad_answer", DIGEST, "i-hand", on_read=lambda m: serve(nats, m, b"abd"))
    refused("bad_answer", DIGEST, "i-hand", on_read=lambda m: serve(nats, m, size=4))
    refused("bad_answer", DIGEST, "i-hand", on_read=lambda m: serve(nats, m, b""))
    refused("bad_answer", DIGEST, "i-hand", on_read=lambda m: serve(nats, m, b"abcd", size=3))
    refused("not_found", DIGEST, on_read=lambda m: nats.pub(m[1], json.dumps({"version": 1, "from": "me", "blob": {"error": {"code": 2004, "message": "none"}}}).encode()))
    refused("invalid", "environment itself", holder="env")
    refused("invalid", digest_of="../../../../etc/passwd")
    refused("too_large", size=3 << 30)
    inbox, task = submit_by_hand(nats, "i-mute")
    later = answered(nats, inbox)["error"]
    check(later["name"] == "overloaded" and later["retryAfterMs"], "who waits is told to come back", later)


def known_is_not_had(mesh):
    """The environment has the bytes of a digest; who knows the digest alone is not given them by a task."""
    task = mesh.run("ask", "--detach", "cp", "x", "--file", mesh.small).ok().out.strip()
    ended(mesh, task)
    known = digest(mesh.small)
    check("sha256-" + known in stored(mesh), "it is here")
    nats = Nats(mesh.bus)
    error = answered(nats, submit_by_hand(nats, "i-nobody", digest_of=known, size=SMALL)[0]).get("error")
    check(error and error["name"] == "instance_lost", "it must be given", error)


def pulled_once(mesh):
    """Asked twice under one key while it comes: one pull, one task."""
    nats = Nats(mesh.bus)
    nats.sub("amp.blob.i-once.*")
    data = os.urandom(1000)
    name = hashlib.sha256(data).hexdigest()
    (first, _), (second, _) = (submit_by_hand(nats, "i-once", digest_of=name, size=1000, key="k-once", request={"taskId": ""}) for _ in range(2))
    third, _ = submit_by_hand(nats, "i-once", digest_of=DIGEST, key="k-once", request={"taskId": ""})
    reads, answers = [], {}
    while len(answers) < 3 or not reads:
        message = nats.next(30)
        check(message, "something comes", reads, answers)
        if message[0].startswith("amp.blob"):
            reads.append(message)
            if third in answers:
                serve(nats, message, data, name)
        else:
            answers[message[0]] = json.loads(message[3])["envReply"]
            if message[0] == third and reads:
                serve(nats, reads[0], data, name)
    check(answers[third].get("error", {}).get("name") == "conflict", "another file under the same key", answers[third])
    ids = {answers[i]["tasks"][0]["task"]["id"] for i in (first, second)}
    check(len(ids) == 1 and len(reads) == 1 and answers[second].get("duplicate"), "one task, one pull", answers, len(reads))


def a_thousand(mesh):
    """Each with a file of its own, at once: all are accepted, whoever has to come back."""
    nats, n = Nats(mesh.bus), 1000
    nats.sub("amp.blob.i-flood.*")
    files = {hashlib.sha256(b"file %d" % i).hexdigest(): b"file %d" % i for i in range(n)}
    waiting = {}
    for name, data in files.items():
        inbox, task = submit_by_hand(nats, "i-flood", agent="nobody-yet", digest_of=name, size=len(data))
        waiting[inbox] = (name, task)
    accepted, most = set(), 0
    while waiting:
        message = nats.next(120)
        check(message, "all are answered", len(waiting))
        if message[0].startswith("amp.blob"):
            name = re.search(rb"sha256-([0-9a-f]{64})", message[3])[1].decode()
            serve(nats, message, files[name], name)
            continue
        name, task = waiting.pop(message[0])
        reply = json.loads(message[3])["envReply"]
        if reply.get("error", {}).get("retryAfterMs"):
            inbox, _ = submit_by_hand(nats, "i-flood", agent="nobody-yet", digest_of=name, size=len(files[name]), request={"taskId": task})
            waiting[inbox] = (name, task)
        else:
            check("error" not in reply, "accepted", reply)
            accepted.add(task)
    check(len(accepted) == n and all("sha256-" + name in stored(mesh) for name in files), "with their files", len(accepted))


def refused_at_the_start(mesh):
    for name, value in (("AMESH_ENV_SPOOL_BYTES", "8G"), ("AMESH_ENV_SPOOL_BYTES", "0"), ("AMESH_ENV_SPOOL_GRACE", "soon")):
        for command in ("env", "up"):
            r = mesh.run(command, env={name: value})
            check(r.status == 2 and name in r.err and f'"{value}"' in r.err, "the variable and its value", command, r.status, r.err)


def main():
    meshtest.AMESH = RELEASE or meshtest.AMESH
    with Bus() as mesh:
        mesh.big, mesh.medium, mesh.small = (fill(os.path.join(mesh.home, name + ".bin"), size) for name, size in (("big", BIG), ("medium", MEDIUM), ("small", SMALL)))
        copier = mesh.agent("cp", "--", "sh", "-c", COPY)
        mesh.agent("cat", "--", "cat")
        tap.run("100 MB go through a durable task and back, and the memory of environment and sidecar stays flat", there_and_back, mesh, copier)
        tap.run("an agent's durable send has files of any size, too", sent_by_agents, mesh)
        tap.run("small, empty and larger files in one message", small_ones, mesh)
        tap.run("a text longer than a message is a text for its agent", a_long_text, mesh)
        tap.run("files of an answer that together are more than a message", larger_answers, mesh)
        tap.run("kill -9 of the environment between acceptance and dispatch: the next one has the file", killed_before_dispatch, mesh)
        tap.run("kill -9 of the caller right after the acceptance", killed_caller, mesh)
        tap.run("a caller that dies while its file is fetched leaves nothing", killed_caller_in_the_middle, mesh)
        tap.run("an environment that dies while it fetches: accepted once, by the next one", killed_env_in_the_middle, mesh)
        tap.run("an instance that dies while its answer is fetched: another attempt, and its answer alone", killed_holder, mesh)
        tap.run("an environment that dies while it fetches an answer: the next one goes on with the attempt", killed_env_at_the_answer, mesh)
        tap.run("SIGTERM of the environment while it fetches", stopped_in_the_middle, mesh)
        tap.run("a holder that stands still holds up nobody else", others_go_on, mesh)
        tap.run("a task whose answer is being fetched can be cancelled", canceled, mesh)
        tap.run("holders that lie, give nothing or are gone: refused with digest and holder, nothing stays", holders_that_lie, mesh)
        tap.run("a digest alone gives nobody the bytes", known_is_not_had, mesh)
        tap.run("asked twice under one key: one pull, one task", pulled_once, mesh)
        tap.run("a thousand submits with files at once", a_thousand, mesh)
        tap.run("variables that say what they may not are refused at the start", refused_at_the_start, mesh)
    tap.done()


main()
