#!/usr/bin/env python3
"""Files of any size (amp.md 15): 100 MB through two sidecars and back with flat memory, passed on, read by two at once; and holders that are slow, gone, full or lie."""
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
import meshtest  # noqa: E402
from blobtest import digest, fill, peak_kb  # noqa: E402
from lib_nats import Nats  # noqa: E402
from meshtest import Mesh, Skipped, Tap, check, until  # noqa: E402

tap = Tap()
RELEASE = os.environ.get("AMESH_RELEASE")
BIG, SMALL = 100 << 20, 300 << 10
ROOM_KB = 32 << 10  # what a file of 100 MB may add to a process

COPY = 'for f in "$AMESH_IN"/*; do cat "$f" > "$AMESH_OUT/copy-${f##*/}"; done; cat'
# Hands its file on to the agents of the text, all at once, and their files back.
RELAY = r"""
import json, sys
def say(**what):
    print(json.dumps(what), flush=True)
runs, sends = {}, {}
for line in sys.stdin:
    f = json.loads(line)
    if f.get("method") == "task.run":
        p = f["params"]
        files = [part for part in p["message"]["parts"] if "url" in part]
        run = runs[f["id"]] = {"left": len(p["text"].split()), "artifacts": [], "seen": [part["url"] for part in files]}
        for to in p["text"].split():
            sends["s-%s-%s" % (f["id"], to)] = f["id"]
            say(id="s-%s-%s" % (f["id"], to), method="send", params={"to": to, "taskId": p["taskId"], "message": {"parts": [{"text": "x"}] + files}})
    elif f.get("id") in sends:
        run = runs[sends[f["id"]]]
        run["left"] -= 1
        if "error" in f:
            run["artifacts"].append({"name": "error", "text": json.dumps(f["error"])})
        else:
            for a in f["result"].get("artifacts", []):
                run["artifacts"] += [{"name": "back-%d" % (len(run["artifacts"])), "parts": a["parts"]}] if any("url" in q for q in a["parts"]) else []
        if run["left"] == 0:
            say(id=sends[f["id"]], result={"text": " ".join(run["seen"]), "artifacts": run["artifacts"]})
"""


def ask(mesh, *args, env=None):
    """→ (Result, peak of its memory in KB: at least what this program had when it forked)"""
    process = mesh.spawn("ask", *args, env=env)
    _, status, usage = os.wait4(process.child.pid, 0)
    process.child.returncode = os.waitstatus_to_exitcode(status)
    for t in process.threads:
        t.join(60)
    return meshtest.Result(["ask", *args], process.child.returncode, "\n".join(process.out), "\n".join(process.err)), usage.ru_maxrss


def one(directory):
    names = sorted(os.listdir(directory))
    check(len(names) == 1, "one file", names)
    return os.path.join(directory, names[0])


# ---- through and back -------------------------------------------------------------------------------------------------


def there_and_back(mesh, file):
    out = os.path.join(mesh.home, "out-1")
    r, _ = ask(mesh, "cp", "hello", "--file", file, "--output", out)
    check(r.status == 0 and r.out == "hello", "the answer", r.status, r.out, r.err)
    check(os.path.basename(one(out)) == "copy-" + os.path.basename(file) and digest(one(out)) == digest(file), "the same bytes come back", os.listdir(out), r.err)
    check(f"({BIG} bytes)" in r.err, "the size is told", r.err)


def flat(mesh, file, relay, copier):
    if not RELEASE:
        raise Skipped("needs a release build: AMESH_RELEASE")
    idle = mesh.agent("idle", "--", "cat")
    r, asked_idle_kb = ask(mesh, "idle", "x")
    r.ok()
    out = os.path.join(mesh.home, "out-2")
    r, asked_kb = ask(mesh, "relay", "cp", "--file", file, "--output", out)
    r.ok()
    check(digest(one(out)) == digest(file), "the same bytes come back through two sidecars")
    peaks = {"relay": peak_kb(relay.child.pid), "cp": peak_kb(copier.child.pid), "idle": peak_kb(idle.child.pid), "ask": asked_kb, "ask idle": asked_idle_kb}
    print("# VmHWM in KB: " + json.dumps(peaks), flush=True)
    check(max(peaks["relay"], peaks["cp"]) < peaks["idle"] + ROOM_KB and peaks["ask"] < peaks["ask idle"] + ROOM_KB, "memory stays flat", peaks)


def two_readers(mesh, file):
    out = os.path.join(mesh.home, "out-3")
    r, _ = ask(mesh, "relay", "cp cp2", "--file", file, "--output", out, "--json")
    r.ok()
    check({digest(os.path.join(out, name)) for name in os.listdir(out)} == {digest(file)} and len(os.listdir(out)) == 2, "both copies are whole", os.listdir(out))
    parts = [p for a in json.loads(r.out)["artifacts"] for p in a["parts"] if "url" in p]
    check(all(p["url"].startswith("file://") and os.path.exists(p["url"][7:]) for p in parts), "the document names the files", parts)


def small_ones_stand_in_the_message(mesh):
    path, out = fill(os.path.join(mesh.home, "tiny.bin"), 1000), os.path.join(mesh.home, "out-4")
    r, _ = ask(mesh, "cp", "x", "--file", path, "--output", out)
    r.ok()
    check(digest(one(out)) == digest(path), "it comes back")
    r, _ = ask(mesh, "cp", "x", "--file", path, "--json")
    raw = [p for a in json.loads(r.out)["artifacts"] for p in a["parts"] if "raw" in p]
    check(len(raw) == 1, "in the document itself", r.out)


def not_fetched_is_said(mesh, file):
    r, _ = ask(mesh, "cp", "x", "--file", file)
    check(r.status == 0 and "--output DIR" in r.err and f"{SMALL} bytes" in r.err, "name, size and what to do", r.err)
    task = json.loads(ask(mesh, "cp", "x", "--file", file, "--json")[0].out)
    shown = mesh.run("task", "show", task["id"]).ok()
    check(str(SMALL) in shown.out + shown.err or "copy-" in shown.out, "the task shows it", shown.out)


def a_long_text_is_a_text(mesh):
    text = "".join(f"{i:07d}\n" for i in range(300000))  # 2.4 MB
    r = mesh.run("ask", "cat", "-", text=text)
    check(r.status == 0 and r.out == text, "as long as it is", r.status, len(r.out), r.err[-500:])


def files_of_many_names(mesh):
    out = os.path.join(mesh.home, "out-5")
    r, _ = ask(mesh, "names", "x", "--output", out)
    r.ok()
    check(sorted(os.listdir(out)) == ["a.txt", "b c.bin"], "the regular files, by name", os.listdir(out), r.err)
    r, _ = ask(mesh, "names", "x", "--output", out)
    check(sorted(os.listdir(out)) == ["2-a.txt", "2-b c.bin", "a.txt", "b c.bin"], "nothing is overwritten", os.listdir(out))


def no_file_is_an_empty_directory(mesh):
    mesh.agent("lists", "--", "sh", "-c", 'ls -lad "$AMESH_IN"; for f in "$AMESH_IN"/*; do [ -e "$f" ] && echo "saw $f"; done; true')
    first, second = (ask(mesh, "lists", "x")[0] for _ in range(2))
    check(first.status == 0 and first.out.startswith("dr-x------") and "saw" not in first.out, "an empty directory, never / of the host", first.out, first.err)
    check(first.out.split()[-1] == second.out.split()[-1], "one for all", first.out, second.out)
    r, _ = ask(mesh, "lists", "x", "--file", mesh.small)
    check("saw" in r.out and "small.bin" in r.out, "with a file its own", r.out)


def a_changed_file_is_fetched_again(mesh):
    """The agent writes into what it was given; who asks next with the same file gets what was sent."""
    mesh.agent("scribbler", "--", "sh", "-c", 'f="$AMESH_IN/small.bin"; sha256sum < "$f"; chmod u+w "$f" && printf XXXX | dd of="$f" conv=notrunc 2>/dev/null')
    for n in (1, 2, 3):
        r, _ = ask(mesh, "scribbler", "x", "--file", mesh.small)
        check(r.status == 0 and r.out.split()[0] == digest(mesh.small), "the bytes that were sent, each time", n, r.status, r.out, r.err)


def names_that_make_one_id(mesh):
    mesh.agent("alike", "--", "sh", "-c", 'cd "$AMESH_OUT" && for f in UPPER upper "a b" a-b response; do echo "of $f" > "$f"; done; head -c 200000 /dev/zero > "a+b"; echo said')
    out = os.path.join(mesh.home, "out-9")
    r, _ = ask(mesh, "alike", "x", "--output", out, "--json")
    check(r.status == 0 and sorted(os.listdir(out)) == sorted(["UPPER", "upper", "a b", "a-b", "a+b", "response"]), "all of them, by their own names", r.status, r.err, os.listdir(out))
    check(all(open(os.path.join(out, f)).read() == f"of {f}\n" for f in ("UPPER", "upper", "a b", "a-b", "response")), "each with its own bytes")
    ids = [a["artifactId"] for a in json.loads(r.out)["artifacts"]]
    check(len(ids) == len(set(ids)) and {"upper", "upper-2", "a-b", "a-b-2", "a-b-3", "response-2"} <= set(ids), "ids are unique", ids)


def a_name_that_cannot_be_sent(mesh):
    for n, (name, wanted) in enumerate((("tab\\there", "tab?here"), ("bad\\377end", "bad?end"))):
        mesh.agent(f"odd{n}", "--", "sh", "-c", f'cd "$AMESH_OUT" && echo x > good && echo y > "$(printf "{name}")"; echo done')
        r, _ = ask(mesh, f"odd{n}", "x")
        check(r.status != 0 and wanted in r.err and "cannot be sent" in r.err, "the task fails, and the file is named", r.status, r.out, r.err)


def output_comes_first(mesh):
    """A directory that cannot be had is told before the agent works; its parents are made."""
    file, out = fill(os.path.join(mesh.home, "plain"), 10), os.path.join(mesh.home, "deep", "er", "out")
    for bad, why in ((file, "is no directory"), (os.path.join(file, "x"), "Not a directory"), ("/proc/no/where", "/proc/no/where"), ("", "--output")):
        r = mesh.run("ask", "nobody-of-this-name", "x", "--output", bad)
        check(r.status == 2 and "--output" in r.err and why in r.err and "nobody" not in r.err, "what and where, before the call", bad, r.status, r.err)
    mesh.run("ask", "names", "x", "--output", out + "/").ok()
    check(sorted(os.listdir(out)) == ["a.txt", "b c.bin"], "with its parents", os.listdir(out))


def files_stand_alone(mesh):
    """One that cannot be written or had is named and costs the exit code; the others are written. The agent is played by hand: a sidecar offers only what it has."""
    out, nats = os.path.join(mesh.home, "out-apart"), Nats(mesh.bus)
    nats.sub("amp.req.hand.*")
    caller = mesh.spawn("ask", "hand", "x", "--output", out, "--timeout", "60s")
    _, inbox, _, asked = nats.next(30.0)[:4]
    ids = {"taskId": re.search(rb"t-[0-9a-z]{26}", asked)[0].decode(), "contextId": re.search(rb"c-[0-9a-z]{26}", asked)[0].decode()}
    lost = {"url": "amp-blob:sha256-" + DIGEST, "filename": "lost.bin", "metadata": {"amp/blob": {"size": 3, "holder": "i-nobody"}}}
    parts = ([{"text": "1", "filename": "first.txt"}], [{"url": lost["url"], "filename": "bare.bin"}], [lost, {"text": "2", "filename": "last.txt"}])
    artifacts = [{"artifactUpdate": {**ids, "artifact": {"artifactId": f"a-{i}", "parts": each}, "lastChunk": True}} for i, each in enumerate(parts)]
    status = {"statusUpdate": {**ids, "status": {"state": "TASK_STATE_COMPLETED", "timestamp": "2026-01-01T00:00:00Z"}}}
    events = [{"time": "2026-01-01T00:00:00Z", "body": body} for body in (*artifacts, status)]
    frame = {**ids, "agent": "hand", "instance": "i-hand", "attempt": 1, "seq": 1, "events": events, "end": {"count": len(events)}}
    nats.pub(inbox, json.dumps({"version": 1, "from": "hand", "frame": frame}).encode())
    status, told = caller.wait(), "\n".join(caller.err)
    check(status != 0 and sorted(os.listdir(out)) == ["first.txt", "last.txt"], "the others are written", status, os.listdir(out), told)
    check("lost.bin" in told and "i-nobody" in told, "what its holder has not any more", told)
    check("bare.bin" in told and "amp/blob" in told, "what says nothing of where it is", told)
    check("wrote" in told and "first.txt" in told and "last.txt" in told, "what was written", told)


def changed(mesh):
    """A file that is cut off or written while it is read is not sent torn."""
    spools = os.path.join(mesh.home, "spool")
    for cut in (True, False):
        file, before = fill(os.path.join(mesh.home, "moving.bin"), BIG), set(os.listdir(spools))
        caller = mesh.spawn("ask", "cat", "x", "--file", file)
        until(lambda: [d for d in set(os.listdir(spools)) - before if "in-0" in os.listdir(os.path.join(spools, d))], "it has begun")
        caller.signal(signal.SIGSTOP)
        if cut:
            os.truncate(file, 1 << 20)
        else:
            os.utime(file, (1, 1))
        caller.signal(signal.SIGCONT)
        status, told = caller.wait(), "\n".join(caller.err)
        check(status == 2 and "moving.bin was changed while it was read" in told, "it is refused by name", cut, status, told)


def fifo(mesh):
    path = os.path.join(mesh.home, "pipe")
    os.mkfifo(path)
    for args in ((), ("--durable",)):
        r = mesh.run("ask", *args, "cat", "x", "--file", path)
        check(r.status == 2 and path in r.err and "not a regular file" in r.err, "it is said at once", r.status, r.err)
    r = subprocess.run(["bash", "-c", f"{meshtest.AMESH} ask cp x --file <(printf abc) --output {mesh.home}/out-fifo"], env=mesh.env, capture_output=True, text=True, timeout=60)
    check(r.returncode == 0, "what a shell has opened is read", r.stderr)
    with open(one(os.path.join(mesh.home, "out-fifo"))) as f:
        check(f.read() == "abc", "whole")


# ---- what goes wrong ----------------------------------------------------------------------------------------------------


def request(nats, agent, digest_of, holder, size, wait=30.0):
    """A request by hand, with a blob. → the end of its stream"""
    n = request.n = getattr(request, "n", 0) + 1
    inbox = f"_INBOX.by-hand.{n}"
    nats.sub(inbox)
    part = {"url": "amp-blob:sha256-" + digest_of, "filename": "x.bin", "metadata": {"amp/blob": {"size": size, "holder": holder}}}
    body = {"version": 1, "from": "me", "request": {"taskId": f"t-hand-{n}", "contextId": "c-1", "message": {"role": "ROLE_USER", "messageId": "m-1", "parts": [{"text": "x"}, part]}}}
    nats.pub(f"amp.req.{agent}.me", json.dumps(body).encode(), inbox)
    return inbox, wait


def ended(nats, asked, serve=None):
    inbox, wait = asked
    while True:
        message = nats.next(wait)
        check(message, "an answer within %s s" % wait)
        if message[0] == inbox:
            body = json.loads(message[3])
            if "reply" in body:
                return body["reply"]["error"]
            if "end" in body["frame"]:
                return body["frame"]["end"].get("error")
        elif serve:
            serve(message)


DIGEST = hashlib.sha256(b"abc").hexdigest()


def gone(mesh):
    nats = Nats(mesh.bus)
    error = ended(nats, request(nats, "cp", DIGEST, "i-nobody", 3))
    check(error and error["name"] == "instance_lost" and "i-nobody" in error["message"] and DIGEST in error["message"], "digest and holder are named", error)


def lying(mesh):
    nats = Nats(mesh.bus)
    nats.sub("amp.blob.i-liar.*")

    def serve(message):
        read = json.loads(message[3])["blobRead"] if message[3][:1] == b"{" else None
        answer = {"version": 1, "from": "me", "blob": {"digest": "sha256-" + DIGEST, "offset": "0", "size": "3", "data": "YWJk"}}  # abd
        check(message[0] == "amp.blob.i-liar.cp" and (read is None or read["digest"].endswith(DIGEST)), "the reader names itself", message)
        nats.pub(message[1], json.dumps(answer).encode())
    error = ended(nats, request(nats, "cp", DIGEST, "i-liar", 3), serve)
    check(error and error["name"] == "bad_answer" and DIGEST in error["message"] and "i-liar" in error["message"], "other bytes are refused", error)


def paths_of_others(mesh, relay):
    """A path that comes over the bus is one of another host: no agent is made to open its own file by it, neither who is asked nor who gets an answer."""
    nats = Nats(mesh.bus)
    for n, url in enumerate(("file:///etc/passwd", "FILE:/etc/passwd", "file://localhost/etc/passwd")):
        nats.sub(f"_INBOX.path.{n}")
        body = {"version": 1, "from": "me", "request": {"taskId": f"t-path-{n}", "contextId": "c-1", "message": {"role": "ROLE_USER", "messageId": "m-1", "parts": [{"text": "x"}, {"url": url, "filename": "x"}]}}}
        nats.pub("amp.req.cp.me", json.dumps(body).encode(), f"_INBOX.path.{n}")
        error = ended(nats, (f"_INBOX.path.{n}", 30.0))
        check(error and error["name"] == "invalid" and "file: url" in error["message"], "refused", url, error)
        submit = {"version": 1, "from": "me", "envRequest": {"submit": {"agent": "cp", "request": {**body["request"], "taskId": "", "contextId": ""}}}}
        nats.sub(f"_INBOX.kept.{n}")
        nats.pub("amp.env.submit.me", json.dumps(submit).encode(), f"_INBOX.kept.{n}")
        answer = json.loads(nats.next(30.0)[3])["envReply"]
        check(answer.get("error", {}).get("name") == "invalid", "and not kept", answer)
    evil = Nats(mesh.bus)
    evil.sub("amp.req.evil.*")
    evil.flush()

    def answer(ask):
        asking = threading.Thread(target=ask)
        asking.start()
        message = evil.next(30.0)
        task, context = (re.search(kind + rb"-[a-z0-9]{26}", message[3]).group().decode() for kind in (b"t", b"c"))
        ids = {"taskId": task, "contextId": context}
        events = [{"artifactUpdate": {**ids, "artifact": {"artifactId": "a", "parts": [{"url": "file:///etc/passwd", "filename": "x"}]}}}, {"statusUpdate": {**ids, "status": {"state": "TASK_STATE_COMPLETED"}}}]
        frame = {**ids, "agent": "evil", "instance": "i-evil", "attempt": 1, "seq": 1, "events": [{"body": e} for e in events], "end": {"count": len(events)}}
        evil.pub(message[1], json.dumps({"version": 1, "from": "evil", "frame": frame}).encode())
        asking.join()

    said = []
    answer(lambda: said.append(mesh.run("ask", "evil", "x", "--json")))
    check(said[0].status != 0 and "/etc/passwd" not in said[0].out, "an answer, too", said[0].out, said[0].err)
    for kind in ("application/json", "text/event-stream"):
        answer(lambda: said.append(subprocess.run(["curl", "-sS", "--unix-socket", os.path.join(mesh.home, "run", relay.instance + ".sock"), "-H", f"Accept: {kind}", "-H", "Content-Type: text/plain", "-d", "x", "http://mesh/v1/send/evil"],
                                                  capture_output=True, timeout=60).stdout.decode()))  # noqa: B023
        check("/etc/passwd" not in said[-1] and said[-1], "nor one for an agent", said[-1])


def too_large(mesh):
    nats = Nats(mesh.bus)
    error = ended(nats, request(nats, "cp", DIGEST, "i-x", 3 << 30))
    check(error and error["name"] == "too_large", "over the limit", error)
    error = ended(nats, request(nats, "cp", "zz", "i-x", 3))
    check(error and error["name"] == "invalid" and "parts[1].url" in error["field"], "no digest", error)


def guesses(mesh):
    """Who asks a holder for what it did not offer gets nothing, and no answer goes to what is no inbox."""
    nats = Nats(mesh.bus)
    r, _ = ask(mesh, "cp", "x", "--file", mesh.small, "--json")
    blob = next(p["metadata"]["amp/blob"] for a in json.loads(r.out)["artifacts"] for p in a["parts"] if "url" in p)
    url = next(p["url"] for a in json.loads(r.out)["artifacts"] for p in a["parts"] if "url" in p)
    read = {"version": 1, "from": "me", "blobRead": {"digest": url.split(":")[1], "offset": "0", "length": 1 << 31}}
    subject = f"amp.blob.{blob['holder']}.me"
    answer = json.loads(nats.request(subject, json.dumps(read).encode())[3])["blob"]
    check(answer["size"] == str(SMALL) and len(answer["data"]) <= (128 << 10) * 4 // 3 + 4, "one piece", answer.get("size"))
    read["blobRead"]["digest"] = "sha256-" + DIGEST
    answer = json.loads(nats.request(subject, json.dumps(read).encode())[3])["blob"]
    check(answer["error"]["name"] == "not_found", "nothing else", answer)
    read["from"] = "somebody"
    check(json.loads(nats.request(subject, json.dumps(read).encode())[3])["blob"]["error"]["name"] == "denied", "not as somebody else")
    nats.pub(subject, json.dumps(read).encode(), "amp.req.cp.me")
    nats.pub(subject, b"{")
    ask(mesh, "cp", "still there")[0].ok()


def full(mesh):
    mesh.agent("narrow", "--", "sh", "-c", COPY, env={"AMESH_SPOOL_BYTES": "100000"})
    r, _ = ask(mesh, "narrow", "x", "--file", mesh.small)
    check(r.status == 7 and "spool" in r.err and "no room" in r.err, "it says what is full", r.status, r.err)
    r, _ = ask(mesh, "narrow", "y")
    check(r.status == 0 and r.out == "y", "and works on", r.err)
    r, _ = ask(mesh, "cp", "x", "--file", mesh.small, env={"AMESH_SPOOL_BYTES": "100000"})
    check(r.status == 7 and "no room" in r.err, "so does the caller", r.status, r.err)


def refused_at_the_start(mesh):
    """What is no size of a spool, and names that no part may have."""
    for size in ("abc", "-1", "0", "8G", "99999999999999999999"):
        for args in (("ask", "cp", "x"), ("run", "--name", "never", "--", "cat")):
            r = mesh.run(*args, env={"AMESH_SPOOL_BYTES": size})
            check(r.status == 2 and "AMESH_SPOOL_BYTES" in r.err and f'"{size}"' in r.err, "the variable and its value", args, size, r.status, r.err)
    for name, what in ((b"two\nlines", "U+000A"), (b"latin-\xe4", "not UTF-8")):
        path = os.path.join(mesh.home.encode(), name)
        with open(path, "wb") as f:
            f.write(b"x")
        for args in ((), ("--durable",)):
            r = subprocess.run([meshtest.AMESH, "ask", *args, "cp", "x", "--file", path], env=mesh.env, capture_output=True, timeout=60)
            check(r.returncode == 2 and b"the name of the file" in r.stderr and name[:3] in r.stderr and what.encode() in r.stderr, "the file is named", name, r.stderr)
    r = mesh.run("ask", "--task", "t-01hq3c0000000000000000000a", "x", "--file", fill(os.path.join(mesh.home, "widest.bin"), 9 << 20))
    check(r.status == 2 and "widest.bin" in r.err and "without --task" in r.err, "a file too large for an answer: what to do", r.err)


def slow(mesh, file, copier):
    """The reader stands still in the middle: its holder serves others meanwhile, and it goes on."""
    spool = os.path.join(mesh.home, "spool", copier.instance)
    out = os.path.join(mesh.home, "out-6")
    caller = mesh.spawn("ask", "cp3", "x", "--file", file, "--output", out)
    until(lambda: os.path.isdir(spool) and any(n.startswith("in-") and os.path.getsize(os.path.join(spool, n)) for n in os.listdir(spool)), "it has begun")
    copier.signal(signal.SIGSTOP)
    ask(mesh, "cat", "meanwhile")[0].ok()
    copier.signal(signal.SIGCONT)
    check(caller.wait() == 0 and digest(one(out)) == digest(file), "it is whole", caller.err)


def stopped_holder(mesh, file):
    """The agent's sidecar is told to stop while its caller fetches the answer."""
    agent, spools, out = mesh.agent("brief", "--", "sh", "-c", COPY), os.path.join(mesh.home, "spool"), os.path.join(mesh.home, "out-8")
    before = set(os.listdir(spools))
    caller = mesh.spawn("ask", "brief", "x", "--file", file, "--output", out)
    until(lambda: [d for d in set(os.listdir(spools)) - before - {agent.instance} if any(n.startswith("in-") and n != "in-0" for n in os.listdir(os.path.join(spools, d)))] or (os.path.isdir(out) and os.listdir(out)),
          "it fetches")
    agent.signal(signal.SIGTERM)
    check(caller.wait() == 0 and digest(one(out)) == digest(file), "it is whole", caller.err)
    check(agent.wait() == 0, "the sidecar ends", agent.err)


def killed_leaves_nothing(mesh):
    agent = mesh.agent("short", "--", "sh", "-c", COPY)
    ask(mesh, "short", "x", "--file", mesh.small)[0].ok()
    spool = os.path.join(mesh.home, "spool", agent.instance)
    check(os.path.isdir(spool), "it has a spool", os.listdir(os.path.join(mesh.home, "spool")))
    agent.signal(signal.SIGKILL)
    agent.wait()
    next_one = mesh.agent("after", "--", "cat")
    check(not os.path.exists(spool), "the next one removes it")
    next_one.signal(signal.SIGTERM)
    check(next_one.wait() == 0 and not os.path.exists(os.path.join(mesh.home, "spool", next_one.instance)), "and leaves nothing itself")


def killed_holder(mesh, file):
    """The caller, which holds the file, dies in the middle."""
    agent = mesh.agent("late", "--", "sh", "-c", COPY)
    spool = os.path.join(mesh.home, "spool", agent.instance)
    caller = mesh.spawn("ask", "late", "x", "--file", file)
    until(lambda: os.path.isdir(spool) and any(n.startswith("in-") and os.path.getsize(os.path.join(spool, n)) for n in os.listdir(spool)), "it has begun")
    caller.signal(signal.SIGKILL)
    caller.wait()
    until(lambda: not any(n.startswith("in-") for n in os.listdir(spool)), "half a file is thrown away")
    ask(mesh, "late", "y")[0].ok()


def missing(mesh):
    r, _ = ask(mesh, "liar", "x")
    check(r.status != 0 and "/nowhere/at/all" in r.err, "the file is named", r.status, r.err)
    r, _ = ask(mesh, "cp", "x", "--file", "/nowhere/at/all")
    check(r.status == 4 and "/nowhere/at/all" in r.err, "the caller's too", r.status, r.err)


def by_curl(mesh, file, relay):
    """Up, into a message, back, down: over the local socket alone."""
    def curl(*args):
        r = subprocess.run(["curl", "-sS", "--unix-socket", os.path.join(mesh.home, "run", relay.instance + ".sock"), *args], capture_output=True, timeout=120)
        check(r.returncode == 0, "curl", args, r.stderr)
        return r.stdout
    before = peak_kb(relay.child.pid)
    up = json.loads(curl("-T", file, "http://mesh/v1/blob"))
    check(up["size"] == BIG and up["url"].endswith(digest(file)), "its digest", up)
    message = {"message": {"parts": [{"text": "x"}, {"url": up["url"], "filename": "up.bin"}]}}
    task = json.loads(curl("-H", "Content-Type: application/json", "-d", json.dumps(message), "http://mesh/v1/send/cp"))
    part = next(p for a in task.get("artifacts", []) for p in a["parts"] if "url" in p)
    check(part["filename"] == "copy-up.bin" and digest(part["url"][7:]) == digest(file), "the answer's file", task)
    down = os.path.join(mesh.home, "down.bin")
    curl("-o", down, "http://mesh/v1/blob/" + up["digest"])
    check(digest(down) == digest(file), "the same bytes")
    check(not RELEASE or peak_kb(relay.child.pid) < before + ROOM_KB, "memory stays flat", before, peak_kb(relay.child.pid))
    for args, wanted in ((["-X", "PUT", "-H", "Transfer-Encoding: chunked", "-d", "x"], "Content-Length"), (["-T", file, "-H", "Origin: http://evil"], "web pages"), (["-X", "PUT", "-d", "abc"], DIGEST)):
        check(wanted in curl(*args, "http://mesh/v1/blob").decode(), "the answer has", wanted)
    check("not here" in curl("http://mesh/v1/blob/sha256-" + "0" * 64).decode(), "a digest that is not here")


PYTHON = """
def answer(text, task):
    file, = task.files
    with open(file["path"], "rb") as f, open("turned.bin", "wb") as out:
        out.write(f.read()[::-1])
    task.artifact("turned", path="turned.bin")
    open("turned.bin", "w").close()  # it has been taken in
    return file["name"]
"""
SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
export default async function answer(text, task) {
  const [file] = task.files;
  writeFileSync("turned.bin", readFileSync(file.path).reverse());
  await task.artifact("turned", { path: "turned.bin" });
  writeFileSync("turned.bin", "");
  return file.name;
}
"""


PY_BYTES = """
import asyncio, os, random, tempfile

def left():
    return sum(name.startswith("amesh-") for name in os.listdir(tempfile.gettempdir()))

def agent(text, task):
    task.artifact("turned", bytes=random.Random(text).randbytes(5 << 20), filename="turned.bin")
    return f"{left()} left"

async def later(text, task):
    for name in "first", "second":
        task.artifact(name, bytes=random.Random(text + name).randbytes(5 << 20))
    return text
"""

JS_BYTES = """
import { createHash } from "node:crypto";
const bytes = (seed) => Buffer.concat(Array.from({ length: 5 << 15 }, (_, i) => createHash("sha256").update(`${seed} ${i}`).digest()));
export default async function agent(text, task) {
  await task.artifact("turned", { bytes: bytes(text), filename: "turned.bin" });
  return text;
}
export function now(text, task) { task.artifact("turned", { bytes: bytes(text) }); return text; }
"""


def bytes_of_any_size(mesh):
    """What has no file yet is given as bytes, in a plain function and in one that waits for nothing."""
    folder = os.path.join(mesh.home, "bytes-tmp")
    os.makedirs(folder)
    for name, code in (("giver.py", PY_BYTES), ("giver.mjs", JS_BYTES)):
        with open(os.path.join(mesh.home, name), "w") as f:
            f.write(code)
    wanted = {"py-plain": {random.Random("x").randbytes(5 << 20)}, "py-later": {random.Random("x" + n).randbytes(5 << 20) for n in ("first", "second")}}
    wanted["js-plain"] = wanted["js-now"] = {b"".join(hashlib.sha256(b"x %d" % i).digest() for i in range(5 << 15))}
    for name, target in (("py-plain", "giver.py"), ("py-later", "giver.py:later"), ("js-plain", "giver.mjs"), ("js-now", "giver.mjs:now")):
        if name.startswith("js") and not shutil.which("node"):
            continue
        mesh.agent(name, target, cwd=mesh.home, env={"TMPDIR": folder})
        out = os.path.join(mesh.home, "bytes-" + name)
        r = mesh.run("ask", name, "x", "--output", out).ok()
        check(r.out.strip() == ("0 left" if name == "py-plain" else "x"), "the answer, and no file of the agent's stays behind", name, r.out, r.err)
        check({digest(os.path.join(out, f)) for f in os.listdir(out)} == {hashlib.sha256(b).hexdigest() for b in wanted[name]}, "the same bytes", name, os.listdir(out))
        until(lambda: not [f for _, _, files in os.walk(folder) for f in files], "nothing of it stays in the agent's temporary files")


def shims(mesh):
    for kind, code in (("py", PYTHON), ("mjs", SCRIPT)):
        if kind == "mjs" and not shutil.which("node"):
            continue
        folder = os.path.join(mesh.home, kind)
        os.mkdir(folder)
        with open(os.path.join(folder, "app." + kind), "w") as f:
            f.write(code)
        mesh.agent("turn-" + kind, "app." + kind + (":answer" if kind == "py" else ""), cwd=folder)
        out = os.path.join(mesh.home, "out-" + kind)
        r, _ = ask(mesh, "turn-" + kind, "x", "--file", mesh.small, "--output", out)
        check(r.status == 0 and r.out == "small.bin", "the name", r.status, r.out, r.err)
        with open(one(out), "rb") as got, open(mesh.small, "rb") as given:
            check(got.read() == given.read()[::-1], "what was taken in at that moment", kind)


def main():
    meshtest.AMESH = RELEASE or meshtest.AMESH
    with Mesh() as mesh:
        big, mesh.small = fill(os.path.join(mesh.home, "big.bin"), BIG), fill(os.path.join(mesh.home, "small.bin"), SMALL)
        copier, _, slow_one = (mesh.agent(name, "--", "sh", "-c", COPY) for name in ("cp", "cp2", "cp3"))
        mesh.agent("cat", "--", "cat")
        mesh.agent("names", "--", "sh", "-c", 'cd "$AMESH_OUT" && echo a > a.txt && head -c 200000 /dev/zero > "b c.bin" && mkdir d && ln -s /etc/passwd e')
        relay = mesh.agent("relay", "--mode", "jsonl", "--concurrency", "4", "--", sys.executable, "-c", RELAY)
        mesh.agent("liar", "--mode", "jsonl", "--", sys.executable, "-c",
                   "import json, sys\nfor line in sys.stdin:\n f = json.loads(line)\n if f.get('method') == 'task.run': print(json.dumps({'id': f['id'], 'result': {'artifacts': [{'file': '/nowhere/at/all'}]}}), flush=True)")
        tap.run("100 MB go to an agent and come back", there_and_back, mesh, big)
        tap.run("100 MB through two sidecars and back, and the memory of all three processes stays flat", flat, mesh, big, relay, copier)
        tap.run("two agents read one file at once", two_readers, mesh, mesh.small)
        tap.run("PUT and GET /v1/blob stream; a message may name what was put", by_curl, mesh, big, relay)
        tap.run("Python and JavaScript: task.files, and artifact(path) has taken it in when it returns", shims, mesh)
        tap.run("Python and JavaScript: artifact(bytes) of any size", bytes_of_any_size, mesh)
        tap.run("small files stand in the message", small_ones_stand_in_the_message, mesh)
        tap.run("files that nobody fetches are told with name and size", not_fetched_is_said, mesh, mesh.small)
        tap.run("a text longer than a message is a text for its agent", a_long_text_is_a_text, mesh)
        tap.run("AMESH_OUT: regular files become artifacts; --output overwrites nothing", files_of_many_names, mesh)
        tap.run("without files AMESH_IN is an empty directory, one for all tasks", no_file_is_an_empty_directory, mesh)
        tap.run("a file that an agent wrote into is fetched again for the next task", a_changed_file_is_fetched_again, mesh)
        tap.run("AMESH_OUT: files whose names make one id are artifacts of their own", names_that_make_one_id, mesh)
        tap.run("AMESH_OUT: a file whose name cannot be sent fails the task, and is named", a_name_that_cannot_be_sent, mesh)
        tap.run("--output: made with its parents or refused before the call", output_comes_first, mesh)
        tap.run("--output: each file by itself", files_stand_alone, mesh)
        tap.run("a file that changes while it is read is refused", changed, mesh)
        tap.run("a FIFO is refused at once, a pipe of the shell is read", fifo, mesh)
        tap.run("a holder that is gone is named with the digest", gone, mesh)
        tap.run("bytes of another digest never reach the agent", lying, mesh)
        tap.run("a path that comes over the bus is nobody's file", paths_of_others, mesh, relay)
        tap.run("a blob over the limit and one without a digest are refused", too_large, mesh)
        tap.run("a holder serves what it offered, piece by piece, to inboxes only", guesses, mesh)
        tap.run("sizes of a spool and names of files that are none are refused at the start", refused_at_the_start, mesh)
        tap.run("a full spool says so, and hurts nothing else", full, mesh)
        tap.run("a reader that stands still goes on; others are served", slow, mesh, big, slow_one)
        tap.run("a holder that dies in the middle leaves no half file and no stuck agent", killed_holder, mesh, big)
        tap.run("a sidecar that is told to stop lets who fetches its files finish", stopped_holder, mesh, big)
        tap.run("a killed sidecar's spool is removed by the next one, a stopped one's by itself", killed_leaves_nothing, mesh)
        tap.run("a file that cannot be read fails with its name", missing, mesh)
    tap.done()


main()
