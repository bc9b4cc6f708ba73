#!/usr/bin/env python3
"""An attacker at every door of the real thing: the bus, the local socket, the terminal, the home, the disk. Everybody else goes on, and is told."""
import base64
import itertools
import json
import os
import subprocess
import sys
import threading
import tty

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import DEADLINE, AMESH, Bus, Mesh, Tap, check, terminal, until  # noqa: E402

PY = sys.executable
EVIL = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202ereversed\u2028\u2066\x7f\r\b"  # ESC, BEL, CSI of C1, bidi, separators, DEL
HIDDEN = [chr(c) for c in (*range(0x00, 0x09), *range(0x0b, 0x20), *range(0x7f, 0xa0), 0x61c, 0x200e, 0x200f, *range(0x2028, 0x202f), *range(0x2066, 0x206a))]
tap = Tap()


class Peer(Nats):
    """A peer that may say anything, in the JSON form."""

    def say(self, subject, body, reply="", sender="raw", version=1, **more):
        self.pub(subject, json.dumps({"version": version, "from": sender, **body, **more}).encode(), reply)

    def ask(self, subject, body, sender="raw", version=1):
        answer = self.request(subject, json.dumps({"version": version, "from": sender, **body}).encode())
        check(answer, f"{subject} is answered")
        return json.loads(answer[3])

    def hpub(self, subject, headers, data, reply=""):
        words = [subject] + ([reply] if reply else []) + [str(len(headers)), str(len(headers) + len(data))]
        self.sock.sendall(b"HPUB " + " ".join(words).encode() + b"\r\n" + headers + data + b"\r\n")


def request(task, text="x", context="c-raw", **more):
    return {"request": {"taskId": task, "contextId": context, "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}]}, **more}}


def frame(task, seq, events, context="c-raw", agent="steady", instance="i-forged", **more):
    return {"frame": {"taskId": task, "contextId": context, "agent": agent, "instance": instance, "attempt": 1, "seq": seq,
                      "events": [{"time": "2026-01-01T00:00:00Z", "body": e} for e in events], **more}}


def status(task, state, text, context="c-raw", **more):
    return {"statusUpdate": {"taskId": task, "contextId": context, "status": {"state": "TASK_STATE_" + state, "timestamp": "2026-01-01T00:00:00.000Z",
            "message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}}, **more}}


def beat(agent, instance, **more):
    return {"beat": {"agent": agent, "instance": instance, "state": "INSTANCE_STATE_UP", "slots": 1, "free": 1, "intervalMs": 1000, **more}}


def alive(mesh, agent="steady"):
    r = mesh.run("ask", agent, "still here?").ok()
    check(r.out.strip() == "still here?", "a healthy agent still answers", r.out)


def alive_all(mesh):
    alive(mesh)
    r = mesh.run("ask", "--durable", "steady", "kept?").ok()
    check(r.out.strip() == "kept?", "a durable task too", r.out)
    for process in mesh.processes:
        check(process.child.poll() is None or process.child.returncode >= 0, process.name + " lives", process.err[-5:])


def no_hidden(where, *texts):
    for text in texts:
        found = [f"U+{ord(c):04X}" for c in HIDDEN if c in text]
        check(not found, f"{where}: nothing raw reaches the terminal", found, repr(text[:600]))


class Screen:
    """A command whose output and errors are a terminal. screen.text: what has reached it."""

    def __init__(self, mesh, *args, cwd=None):
        ours, theirs = terminal()
        tty.setraw(theirs)
        self.child = subprocess.Popen([AMESH, *args], env=mesh.env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, start_new_session=True, cwd=cwd)
        self.fd, self.data = ours, b""
        os.close(theirs)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        try:
            while piece := os.read(self.fd, 65536):
                self.data += piece
        except OSError:
            pass  # how Linux says that nobody writes any more

    @property
    def text(self):
        return self.data.decode("utf-8", "replace")

    def end(self, signo=None):
        if signo:
            self.child.send_signal(signo)
        self.status = self.child.wait(60)
        self.reader.join(10)
        os.close(self.fd)
        return self


def shown_clean(mesh, *args, cwd=None):
    """Runs it on a terminal and into a pipe-less file of errors: nothing raw in either."""
    screen = Screen(mesh, *args, cwd=cwd).end()
    no_hidden(repr(args), screen.text)
    return screen


# ---- the bus ----------------------------------------------------------------------------------------------------------------


def reply_subjects(mesh):
    """Nobody is made to publish where the peer itself might not: not to JetStream, the system, other agents, nor to what is no inbox."""
    peer, watcher = Peer(mesh.bus), Nats(mesh.bus)
    instance = mesh.steady.instance
    watcher.sub(">")
    watcher.flush()
    traps = ["$JS.API.STREAM.DELETE.x", "$SYS.REQ.SERVER.PING", "$KV.b.k", "amp.env.submit.raw", f"amp.ctl.{instance}.t-x", "amp.evt.c.t", "_INBOX", "_INBOX_x", "_INBOXES.a", "_R_.a.b", "_GR_.a.b",
             "inbox.x", "_INBOX.$JS.API", "_INBOX.a+b", "_INBOX." + "a" * 300, "_INBOX_..a"]
    asked = [("amp.req.steady.raw", request("t-trap")), (f"amp.req.steady.{instance}.raw", request("t-trap")), ("amp.skill.steady.raw", request("t-trap")), (f"amp.ctl.{instance}.t-x", {"control": {"ping": {}}}), ("amp.who.steady", {"ping": {}}),
             ("amp.whoskill.steady", {"ping": {}}), ("amp.whoall", {"ping": {}}), ("amp.env.ping.raw", {"envRequest": {"ping": {}}}), ("amp.env.list.raw", {"envRequest": {"list": {}}}),
             ("amp.env.watch.raw", {"envRequest": {"watch": {"taskId": "t-x"}}}), ("$SRV.PING", None), ("$SRV.INFO.steady", None), ("$SRV.STATS", None)]
    for trap in traps:
        for subject, body in asked:
            peer.say(subject, body, trap) if body else peer.pub(subject, b"", trap)
    peer.flush()
    sound = f"_INBOX.sound.{os.getpid()}"
    for subject, body in (("amp.who.steady", {"ping": {}}), ("amp.env.ping.raw", {"envRequest": {"ping": {}}})):  # the same connection asks in order: their answers come last
        peer.say(subject, body, sound)
    seen, answers = [], 0
    while answers < 2:
        message = watcher.next()
        check(message, "whoever is asked at an inbox answers")
        answers += message[0] == sound
        if message[0] in traps and not message[3].startswith(b'{"version": 1, '):  # ours has spaces
            seen.append((message[0], message[3][:80]))
    check(not seen, "nothing is published on what is no inbox", *seen[:5])
    alive(mesh)


def forged_events(mesh):
    """Events and ends of a running task that come from elsewhere change neither the caller's answer nor the record; not of a durable task either."""
    peer = Peer(mesh.bus)
    gate = os.path.join(mesh.home, "gate")
    os.mkfifo(gate)
    agent = mesh.agent("slow", "--", "sh", "-c", 'echo one; read x <"$0"; echo two', gate)
    for durable in ((), ("--durable",)):
        asker = mesh.spawn("ask", "--events", *durable, "slow", "x")
        first = json.loads(asker.wait_line(lambda line: "artifactUpdate" in line))["artifactUpdate"]
        task, context = first["taskId"], first["contextId"]
        for journalled in (False, True):
            for instance in ("i-forged", agent.instance) if durable else ("i-forged",):
                for seq in (1, 2, 3, 4, 4294967295):
                    peer.say(f"amp.evt.{context}.{task}", frame(task, seq, [status(task, "COMPLETED", "forged", context)], context, "slow", instance, end={"count": seq}, journalled=journalled))
        for more in ({}, {"from": "cli-root"}):
            peer.say(f"amp.evt.{context}.{task}", frame(task, 1, [status(task, "COMPLETED", "forged", context)], context, "slow", "i-forged", end={"count": 1}, attempt=2, **more))
        peer.say(f"amp.evt.c-other.{task}", frame(task, 2, [status(task, "FAILED", "forged", "c-other")], "c-other", "slow", agent.instance, end={"count": 2}))
        peer.flush()
        with open(gate, "w") as f:
            f.write("\n")
        check(asker.wait() == 0 and "two" in "".join(asker.out), "the caller has the whole answer", asker.out, asker.err)
        shown = until(lambda: (lambda t: t["status"]["state"] == "TASK_STATE_COMPLETED" and t)(mesh.run("task", "show", task, "--json").ok().json()), "the record ends")
        check("forged" not in json.dumps(shown) and "two" in json.dumps(shown["artifacts"]), "and the record is what the agent said", durable, shown)
        check(not shown.get("metadata", {}).get("amp/incomplete"), "without a hole", shown.get("metadata"))
    agent.stop()


def untimed_events(mesh):
    """Whoever may say something of a task may leave out what need not be there, also where another attempt begins."""
    peer, twins = Peer(mesh.bus), [mesh.agent("twin", "--retry", "safe", "--", "cat").instance for _ in range(2)]

    def say(seq, attempt, state, instance, **more):
        body = {"statusUpdate": {"taskId": "t-untimed", "contextId": "c-raw", "status": {"state": "TASK_STATE_" + state}}}
        one = frame("t-untimed", seq, [body], agent="twin", instance=instance, **{"attempt": attempt, "from": "raw", "mayRetry": True, **more})
        for event in one["frame"]["events"]:
            del event["time"]
        peer.say("amp.evt.c-raw.t-untimed", one)
        peer.flush()
    say(1, 1, "WORKING", twins[0], request={"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]})
    say(2, 1, "WORKING", twins[0], end={"count": 2, "error": {"code": 3005, "name": "instance_lost", "message": "gone"}})
    say(1, 2, "COMPLETED", twins[1], end={"count": 1})
    until(lambda: mesh.run("task", "show", "t-untimed", "--json").out.count("TASK_STATE_COMPLETED"), "the record has both attempts and its end")
    attempts = mesh.run("task", "show", "t-untimed", "--json").ok().json()["metadata"]["amp/attempts"]
    check([a["attempt"] for a in attempts] == [1, 2] and attempts[0]["error"] == "AMESH-3005", "and why there were two", attempts)


def forged_beats(mesh):
    """Beats in another's name, cards, ends and deaths: what is not the subject's is refused, what is too large is bounded, and the honest beat wins in the end."""
    peer = Peer(mesh.bus)
    mine = "amp.hb.mallory.i-mallory"
    death = {"agent": "steady", "instance": mesh.steady.instance, "at": "2026-01-01T00:00:00Z", "exitCode": 1, "stderr": ["forged"]}
    peer.say(mine, beat("steady", mesh.steady.instance, state="INSTANCE_STATE_GONE"))
    peer.say(mine, beat("mallory", "i-mallory", death=death))
    peer.say(mine, beat("steady", "i-mallory", card={"name": "steady", "description": "forged", "version": "6.6.6"}))
    peer.say(f"amp.hb.steady.{mesh.steady.instance}", beat("mallory", "i-mallory", state="INSTANCE_STATE_GONE"))
    for free in (4294967295, -1, 1 << 70, "1", None, 1e99):
        peer.say(mine, beat("mallory", "i-mallory", slots=free, free=free, inflight=free, intervalMs=free))
    for i in range(200):
        peer.say(f"amp.hb.flood{i}.i-{i}", beat(f"flood{i}", f"i-{i}", state="INSTANCE_STATE_GONE", tags=["k=" + "v" * 2000] * 64, card={"name": f"flood{i}", "version": "1", "description": "d" * 4000}))
    peer.flush()
    check(peer.ask("amp.env.ping.raw", {"envRequest": {"ping": {}}})["envReply"]["info"], "the environment has read it all")
    shown = mesh.run("show", "steady", "--json").ok().json()
    check("forged" not in json.dumps(shown) and shown["instances"][0]["state"] == "up" and not shown["deaths"], "steady is what it was", shown)
    peer.say(f"amp.hb.steady.{mesh.steady.instance}", beat("steady", mesh.steady.instance, state="INSTANCE_STATE_GONE"))  # only the server's permissions can stop this one
    alive(mesh)
    until(lambda: mesh.run("show", "steady", "--json").json()["instances"][0]["state"] == "up", "its own beat makes it an instance again")
    alive_all(mesh)
    peer.say(mine, beat("mallory", "i-mallory", state="INSTANCE_STATE_GONE"))
    peer.flush()


def forged_controls(mesh):
    """Cancels, answers and confirmations for tasks that are not there, with numbers that lie."""
    peer = Peer(mesh.bus)
    instance = mesh.steady.instance
    check(peer.ask(f"amp.ctl.{instance}.t-none", {"control": {"cancel": {"reason": EVIL}}})["reply"]["error"]["name"] == "no_such_task", "cancel")
    check(peer.ask(f"amp.ctl.{instance}.t-none", {"control": {"answer": {"inputId": EVIL, "message": {"parts": [{"text": "x"}]}}}})["reply"]["error"]["code"] in (1001, 2003), "answer")
    check(peer.ask(f"amp.ctl.{instance}.t-none", {"control": {}})["reply"]["error"]["code"] in (1001, 1002, 1006, 2003), "no kind")
    agent = mesh.agent("talker", "--concurrency", "2", "--", "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x")
    for received in ("0", "18446744073709551615", "4294967296", 1e30, -5, "x"):
        inbox, task = f"_INBOX.lie.{abs(hash(str(received)))}", f"t-lie{abs(hash(str(received)))}"
        peer.sub(inbox)
        peer.say("amp.req.talker.raw", request(task, windowBytes=1000), inbox)
        first = peer.next()
        check(first and b"frame" in first[3], "the call was taken", first)
        for _ in range(20):
            peer.say(f"amp.ctl.{agent.instance}.{task}", {"control": {"ping": {"receivedBytes": received}}})
        peer.say(f"amp.ctl.{agent.instance}.{task}", {"control": {"cancel": {"reason": "enough"}}})
        taken = len(first[3])
        while b'"end"' not in first[3]:  # who then tells the truth gets the rest
            peer.say(f"amp.ctl.{agent.instance}.{task}", {"control": {"ping": {"receivedBytes": str(taken)}}})
            first = peer.next()
            check(first, "the call ends", received)
            taken += len(first[3])
    for window in (0, 1, 4294967295):
        body = json.dumps({"version": 1, "from": "raw", **request(f"t-window{window}", windowBytes=window, timeoutMs=1)}).encode()
        answer = until(lambda: peer.request("amp.req.talker.raw", body)[3], "the one before has given its slot back: somebody listens")
        check(json.loads(answer)["frame"]["taskId"], "windows", answer)
    agent.stop()
    alive(mesh)


def shown(mesh, task):
    return mesh.run("task", "show", task, "--json").ok().json()


def forged_silence(mesh):
    """Who was called by the environment knows where it takes answers. Saying there that nobody listens ends no call but his own."""
    peer, fifo = Peer(mesh.bus), os.path.join(mesh.home, "go-on")
    os.mkfifo(fifo)
    agent = mesh.agent("victim", "--", "sh", "-c", f"cat {fifo}")
    peer.sub("amp.req.evil.>")
    peer.say("amp.hb.evil.i-evil", beat("evil", "i-evil"), sender="evil")
    peer.flush()
    theirs = mesh.run("ask", "--durable", "--detach", "evil", "hello").ok().out.strip()
    called = peer.next()
    check(called and called[1].startswith("_INBOX.env."), "the peer is called", called)
    prefix, status = ".".join(called[1].split(".")[:3]), b"NATS/1.0 503\r\n\r\n"
    task = mesh.run("ask", "--durable", "--detach", "victim", "x").ok().out.strip()
    peer.sub(f"amp.ctl.{agent.instance}.{task}")
    check(peer.next(), "it runs, and is asked how it does")
    for place in ("zzz", "*", *(f"{n:x}.zzz" for n in range(1, 200))):
        peer.hpub(f"{prefix}.{place}", status, b"")
    for _ in range(2):
        peer.ask("amp.env.ping.raw", {"envRequest": {"ping": {}}})  # it has heard all of that
    with open(fifo, "w") as f:
        f.write("as asked")
    done = until(lambda: (t := shown(mesh, task))["status"]["state"] == "TASK_STATE_COMPLETED" and t, "it ends")
    check([a["outcome"] for a in done["metadata"]["amp/attempts"]] == ["completed"], "in its first attempt", done["metadata"])
    mesh.run("task", "cancel", theirs)
    agent.stop()
    alive_all(mesh)


def headers(mesh):
    """Headers are nothing to us: huge, doubled, broken, a forged status of the server."""
    peer, instance = Peer(mesh.bus), mesh.steady.instance
    many = b"NATS/1.0\r\n" + b"".join(b"K%d: v\r\n" % (i % 7) for i in range(20000)) + b"\r\n"
    kinds = [b"NATS/1.0\r\n\r\n", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 503 No Responders\r\nNats-Subject: amp.req.steady.raw\r\n\r\n", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", b"NATS/1.0 99999999999999999999\r\n\r\n", b"NATS/1.0 -1\r\nA:\r\n\r\n",
             b"NATS/1.0\r\n" + b"X: " + b"y" * 900000 + b"\r\n\r\n", many, b"NATS/9.9\r\nA\r\n:\r\n\x00\xff: \x1b\r\n\r\n", b"garbage", b"\r\n", b"NATS/1.0\r\nA: b", b"NATS/1.0\r\nNats-Expected-Stream: x\r\nNats-Msg-Id: 1\r\nNats-Msg-Id: 2\r\n\r\n"]
    for subject in ("amp.req.steady.raw", f"amp.req.steady.{instance}.raw", f"amp.ctl.{instance}.t-x", "amp.hb.steady." + instance, "amp.evt.c.t", "amp.env.list.raw", "amp.who.steady", "amp.whoall", "$SRV.PING"):
        for kind in kinds:
            for data in (b"", b"{}", json.dumps({"version": 1, "from": "raw", **request("t-h")}).encode()):
                peer.hpub(subject, kind, data, "_INBOX.headers.x")
                peer.hpub(subject, kind, data)
    peer.flush()
    # Some of these were requests, too: while an agent has no slot free, it is not there for the next one.
    until(lambda: mesh.run("show", "steady", "--json").ok().json()["instances"][0]["free"] == 4, "what was a request has been worked on")
    peer.sub("_INBOX.good.1")
    peer.hpub("amp.req.steady.raw", kinds[-1], json.dumps({"version": 1, "from": "raw", **request("t-header", "by hand")}).encode(), "_INBOX.good.1")
    answer = peer.next(DEADLINE)
    check(answer and b"frame" in answer[3], "a request with headers is a request", answer)
    alive_all(mesh)


def versions(mesh):
    """Other versions are refused by name, and so is what does not belong on a subject."""
    peer, instance = Peer(mesh.bus), mesh.steady.instance
    for version, names in ((2, ("version",)), (0, ("version",)), (4294967295, ("version",)), (-1, ("invalid", "malformed")), ("1x", ("invalid", "malformed")), (1.5, ("invalid", "malformed")), (None, ("version", "invalid", "malformed"))):
        for subject, body, kind in (("amp.req.steady.raw", request("t-v"), "reply"), (f"amp.ctl.{instance}.t-v", {"control": {"ping": {}}}, "reply"), ("amp.env.ping.raw", {"envRequest": {"ping": {}}}, "envReply")):
            error = peer.ask(subject, body, version=version)[kind]["error"]
            check(error["name"] in names, f"version {version!r} on {subject}", error)
    for subject, body, kind in (("amp.req.steady.raw", {"control": {"ping": {}}}, "reply"), ("amp.env.ping.raw", {"envRequest": {"list": {}}}, "envReply"), ("amp.env.list.raw", {"envRequest": {"list": {}, "ping": {}}}, "envReply"),
                                ("amp.env.list.raw", request("t-v"), "envReply"), (f"amp.ctl.{instance}.t-v", beat("steady", instance), "reply")):
        check(peer.ask(subject, body)[kind]["error"]["name"] in ("invalid", "malformed"), f"what does not belong on {subject}")
    check(peer.ask("amp.env.list.raw", {"envRequest": {"list": {}}}, sender="boss")["envReply"]["error"]["name"] == "denied", "the environment too holds the sender to its subject")
    check(peer.ask("amp.env.list.raw", {"envRequest": {"list": {}}}, sender=None)["envReply"]["error"]["name"] == "denied", "and wants one")
    check(peer.ask("amp.who.steady", {"ping": {}}, version=2)["reply"]["error"]["name"] == "version", "a question of existence has a version too")


def keys(mesh):
    """Keys of the memory are data: dots, wildcards, line breaks, escapes come back as they went, and none finds another's."""
    peer = Peer(mesh.bus)
    names = ["*", ">", "a.b", "a.*", "%", "_", "a%", "../../etc/passwd", "a\r\nb", "a\nPUB x 1", "'; DROP TABLE kv; --", "k" * 256, "ä\U0001f600", " ", "\t", "-x", EVIL]

    def kv(op, key, **more):
        return peer.ask("amp.env.kv.raw", {"envRequest": {"kv": {"op": "KV_" + op, "scope": "KV_SHARED", "key": key, **more}}})["envReply"]

    taken = [n for n in names if "error" not in kv("PUT", n, value=n)]
    check("error" not in kv("PUT", "evil", value={"a": EVIL, EVIL: [EVIL]}), "any text is a value")
    check(len([n for n in names if n in taken]) >= 12, "plain text is a key", taken)
    for name in taken:
        check([e["value"] for e in kv("GET", name)["entries"]] == [name], "comes back", name)
    for prefix in ("%", "_", "*", "a%"):
        found = [e["key"] for e in kv("LIST", prefix)["entries"]]
        check(found == [n for n in sorted(taken, key=lambda n: n.encode()) if n.startswith(prefix)], "a prefix is not a pattern", prefix, found)
    for bad in ("", "k" * 257, "a\u0000b", None, 5, ["a"]):
        check("error" in kv("PUT", bad, value=1), "refused", bad)
    for owner in ("*", ">", "a.b", "", "x" * 64, "a\r\nb"):
        answer = peer.ask("amp.env.kv.raw", {"envRequest": {"kv": {"op": "KV_PUT", "scope": "KV_AGENT", "owner": owner, "key": "k", "value": 1}}})["envReply"]
        check(answer["error"]["name"] == "invalid", "an owner is an id", owner, answer)
    r = shown_clean(mesh, "kv", "ls", "--shared")
    check("owned" in r.text, "the list shows them", r.text)
    check("owned" in shown_clean(mesh, "kv", "get", "--shared", "evil").text, "kv get")
    for name in taken:
        if name in ("*", "a.b"):
            check(shown_clean(mesh, "kv", "get", "--shared", name).status == 0, "kv get", name)
        check("error" not in kv("DELETE", name), "and goes", name)


# ---- the terminal --------------------------------------------------------------------------------------------------------------


def terminal_of_agents(mesh):
    """What an agent says in any way: text, notes, tools, artifacts, questions, errors, stderr, last words, names."""
    code = ("import sys, json, os\nE=" + ascii(EVIL) + "\nfor line in sys.stdin:\n f=json.loads(line)\n if f.get('method')!='task.run': continue\n p=f['params']; t=p['taskId']\n"
            " def ev(**e): print(json.dumps({'method':'task.event','params':{'taskId':t,'event':e}}),flush=True)\n"
            " if p['text']=='die':\n  print(E+'last words',file=sys.stderr,flush=True); os.kill(os.getpid(),11)\n"
            " if p['text']=='fail':\n  print(json.dumps({'id':f['id'],'error':{'code':-1,'message':E}}),flush=True); continue\n"
            " if p['text']=='ask':\n  print(json.dumps({'id':'q','method':'task.ask','params':{'taskId':t,'prompt':E,'options':[E]}}),flush=True); continue\n"
            " if p['text']=='reject':\n  print(json.dumps({'id':f['id'],'result':{'state':'rejected','message':E}}),flush=True); continue\n"
            " ev(type='status',text=E); ev(type='reasoning',text=E); ev(type='tool_call',callId='1',name=E,args={'a':E,E:1}); ev(type='tool_result',callId='1',name=E,output=E,isError=True)\n"
            " ev(type='step',name=E,phase='start',path=E); ev(type='usage',model=E,inputTokens=1); ev(type='log',level='error',text=E); ev(type='custom',name=E,value={E:E})\n"
            " ev(type='artifact',name=E,description=E,text=E); ev(type='artifact',name='plain',filename=E,mediaType=E,text=E); ev(type='nope'+E); ev(type='artifact',artifactId='f',name='f',data={E:E})\n"
            " print(E,file=sys.stderr,flush=True); print(E,flush=True); print('garbage'+E,flush=True)\n"
            " print(json.dumps({'method':'log','params':{'level':'warn','text':E}}),flush=True); print(json.dumps({'id':1,'method':E,'params':{}}),flush=True)\n"
            " ev(type='text',text=E); print(json.dumps({'id':f['id'],'result':None}),flush=True)\n")
    agent = mesh.agent("evil", "--mode", "jsonl", "--concurrency", "4", "--", PY, "-c", code)
    watching, listing = Screen(mesh, "tap"), Screen(mesh, "ls", "--watch")
    until(lambda: "evil" in listing.text, "the list is there")
    for text in ("speak", "fail", "reject", "ask", "die"):
        shown_clean(mesh, "ask", "-v", "evil", text)
        r = mesh.run("ask", "-v", "evil", text)
        no_hidden("the errors of ask", r.err.replace(r.out, ""))
    check("owned" in shown_clean(mesh, "ask", "--durable", "-v", "evil", "speak").text, "it has been said")
    tasks = mesh.run("task", "ls", "--agent", "evil", "--json").ok().json()["tasks"]
    check(len(tasks) >= 6, "the tasks are there", tasks)
    for task in tasks[:6]:
        shown_clean(mesh, "task", "show", task["id"])
        shown_clean(mesh, "history", task["contextId"])
        if task["status"]["state"] != "TASK_STATE_INPUT_REQUIRED":
            shown_clean(mesh, "task", "watch", task["id"])
    for args in (("task", "ls"), ("ls",), ("show", "evil"), ("check",)):
        shown_clean(mesh, *args)
    watching.end(2)
    listing.end(2)
    check("evil" in watching.text, "tap has seen them", watching.text[:300])
    no_hidden("tap", watching.text)
    no_hidden("ls --watch", listing.text.replace("\x1b[H", "").replace("\x1b[2J", "").replace("\x1b[J", "").replace("\x1b[K", ""))
    agent.stop()
    for process in (agent, mesh.up):
        no_hidden("the log of " + process.name, "\n".join(process.err))


def terminal_of_peers(mesh):
    """What a peer forges: beats, cards, deaths, frames, errors, answers of an agent and of the environment."""
    peer, reader = Peer(mesh.bus), Peer(mesh.bus)
    watching = Screen(mesh, "tap")
    death = {"at": "2026-01-01T00:00:00Z", "exitCode": 1, "stderr": [EVIL, "x\n" + EVIL], "tasks": [EVIL]}
    texts = {"host": EVIL, "version": EVIL, "retry": EVIL, "tags": ["k=" + EVIL], "tasks": [EVIL]}
    card = {"name": "painter", "version": EVIL, "description": "d", "skills": [{"id": "paint", "name": "p", "description": "d", "tags": ["t"]}]}
    for n in range(2):
        for key, value in list(texts.items()) + [("death", death), ("card", card), ("card", {**card, "version": "1", "provider": {"organization": EVIL, "url": EVIL}}), ("card", {**card, "version": "1", "documentationUrl": EVIL}), ("card", {**card, "version": "1"})]:
            peer.say("amp.hb.painter.i-painter", beat("painter", "i-painter", **{key: value}))
    events = [status("t-paint", "WORKING", EVIL), status("t-paint", "WORKING", "x", metadata={"amp/tool_call": {"callId": EVIL, "name": EVIL, "args": EVIL}}), status("t-paint", "WORKING", "x", metadata={EVIL: EVIL, "amp/step": {"name": EVIL, "phase": EVIL}}),
              {"artifactUpdate": {"taskId": "t-paint", "contextId": "c-raw", "artifact": {"artifactId": EVIL, "name": EVIL, "parts": [{"text": EVIL, "filename": "f"}]}}}, {"artifactUpdate": {"taskId": "t-paint", "contextId": "c-raw", "artifact": {"artifactId": "a", "name": EVIL, "description": EVIL, "parts": [{"text": EVIL}, {"data": {EVIL: EVIL}}]}}},
              {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": EVIL}]}}, {EVIL: 1}]
    error = {"code": 3001, "name": EVIL, "message": EVIL, "hint": EVIL, "field": EVIL, "death": death}
    seq = 1
    for one in events:
        peer.say("amp.evt.c-raw.t-paint", frame("t-paint", seq, [one], agent="painter", instance="i-painter", **({"from": "raw", "parent": "t-up", "request": request("t", EVIL)["request"]["message"]} if seq == 1 else {})))
        seq += 1
    peer.say("amp.evt.c-raw.t-paint", frame("t-paint", seq, [], agent="painter", instance="i-painter", end={"count": seq - 1, "error": error}))
    peer.flush()
    check(peer.ask("amp.env.ping.raw", {"envRequest": {"ping": {}}})["envReply"]["info"], "the environment has read it all")
    for argv in (("ls",), ("ls", "--all"), ("show", "painter"), ("task", "ls"), ("task", "show", "t-paint"), ("task", "watch", "t-paint"), ("history", "c-raw"), ("task", "show", EVIL), ("show", EVIL), ("ask", EVIL, EVIL), ("ask", "painter", "x", "--file", EVIL),
                 ("kv", "get", EVIL), (EVIL,), ("--" + EVIL,), ("help", EVIL), ("ls", "--tag", EVIL), ("run", "--name", "x", "--card", EVIL, "--", "cat"), ("run", "--name", "x", "--", EVIL + "/none"), ("--home", "/nowhere/" + EVIL, "ls"), ("--bus", "nats://" + EVIL, "ls"), ("task", "ls", "--state", EVIL)):
        shown_clean(mesh, *argv)
    for body in ({"reply": {"error": error}}, frame("T", 1, [], agent="painter", instance="i-painter", end={"count": 0, "error": error}), frame("T", 1, [], agent=EVIL, instance=EVIL), {"reply": {"error": {**error, "code": 7777}}}, {"reply": {"error": {"code": 2005, "message": EVIL}}}):
        reader.sub("amp.req.painter.*")
        reader.flush()
        asker = Screen(mesh, "ask", "--no-wait", "--timeout", "3s", "painter", "x")
        subject, inbox, _, data = reader.next()
        answer = json.loads(json.dumps(body).replace('"T"', json.dumps(json.loads(data)["request"]["taskId"] if data.startswith(b"{") else "t-none")))
        reader.say(inbox, answer, sender="painter")
        reader.sock.sendall(f"UNSUB {reader.sids}\r\n".encode())
        check(asker.end().status != 0, "a forged answer is a failure", asker.text)
        no_hidden("ask: forged answer", asker.text)
    watching.end(2)
    no_hidden("tap", watching.text)
    no_hidden("the log", "\n".join(mesh.up.err + mesh.steady.err))
    peer.say("amp.hb.painter.i-painter", beat("painter", "i-painter", state="INSTANCE_STATE_GONE"))
    peer.flush()


# ---- JetStream -----------------------------------------------------------------------------------------------------------------


class JetStream(threading.Thread):
    """Whoever may answer what the environment asks of JetStream. `lies`: by verb, what is answered instead, one after the other; each is a list of messages."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.nats, self.lies, self.seq, self.canaries, self.asked = Nats(url), {}, 0, {}, []
        self.state = {"messages": 10, "bytes": 100, "first_seq": 1, "last_seq": 1000}
        self.nats.sub("$JS.API.>")
        self.nats.flush()
        self.start()

    def run(self):
        try:
            while True:
                message = self.nats.next(1)
                if message and message[1]:
                    subject, reply, _, data = message
                    verb = subject.removeprefix("$JS.API.").removesuffix(".AMP_EVT")
                    self.asked.append(verb)
                    answers = next(self.lies[verb]) if verb in self.lies else [self.honest(verb, data)]
                    for answer in answers:
                        self.nats.pub(reply, answer if isinstance(answer, bytes) else json.dumps(answer).encode())
        except (EOFError, OSError):
            pass  # the test is over

    def info(self, **more):
        return {"config": {"name": "AMP_EVT", "subjects": ["amp.evt.>", "amp.canary.*"], "retention": "limits", "storage": "file", "max_bytes": 1 << 29}, "created": "2026-01-01T00:00:00Z", "state": self.state, **more}

    def honest(self, verb, data):
        if verb.startswith("amp.canary"):
            self.seq += 1
            self.canaries[self.seq] = data
            return {"stream": "AMP_EVT", "seq": self.seq}
        if verb == "STREAM.MSG.GET":
            return {"message": {"data": base64.b64encode(self.canaries.get(json.loads(data)["seq"], b"")).decode()}}
        return {"name": "reader", "num_pending": 0} if verb == "CONSUMER.CREATE" else self.info()


def jetstream(mesh):
    """What answers for JetStream may say anything, twice, or nothing: no call waits for it, and it is not asked without end."""
    mesh.agent("steady", "--", "cat")
    stream = JetStream(mesh.bus)
    numbers = (-1, -2, 0.5, 1e300, 2 ** 53, 2 ** 64, "1", None, [])
    junk = [b"", b"{", b"\xff", b"null", b"[" * 50 + b"]" * 50, b"x" * 900000, {"error": {}}, {"error": {"code": "x", "err_code": 1e300, "description": EVIL * 1000}}, {"error": 5}, {"created": "z" * 500000}]
    canary = "amp.canary.env"
    cases = {
        "it takes no canary": {},  # nobody listens to them yet
        "its stream goes back": {canary: itertools.repeat([{"stream": "AMP_EVT", "seq": 1}])},
        "as often as it likes": {"STREAM.INFO": itertools.repeat([stream.info()] * 40), "CONSUMER.CREATE": itertools.repeat([{"name": "r", "num_pending": 0}] * 40)},
        "another stream each time": {"STREAM.INFO": ([stream.info(created=str(n))] for n in itertools.count())},
        "nothing at all": {"STREAM.INFO": itertools.repeat([]), canary: itertools.repeat([])},
        "it has what it does not deliver": {"CONSUMER.CREATE": itertools.repeat([{"name": "r", "num_pending": 10}]), "CONSUMER.MSG.NEXT.AMP_EVT.r": itertools.repeat([])},
    }
    for i, one in enumerate(junk):
        cases[f"junk {i}"] = {verb: itertools.repeat([one]) for verb in (("STREAM.INFO",), (canary,), ("STREAM.MSG.GET",), ("CONSUMER.CREATE",))[i % 4]}
    for i, n in enumerate(numbers):
        cases[f"the number {n!r}"] = {"STREAM.INFO": itertools.repeat([stream.info(state={**stream.state, list(stream.state)[i % 4]: n})])} if i % 2 else {"CONSUMER.CREATE": itertools.repeat([{"name": "r", "num_pending": n}])}
    for what, lies in cases.items():
        stream.lies, stream.asked = lies, []
        mesh.restart_env()
        until(lambda: "STREAM.INFO" in stream.asked, what)
        check(mesh.run("ask", "steady", what).ok().out == what, what + ": a direct call")
        check(mesh.run("ask", "--durable", "steady", what).ok().out == what, what + ": a durable one")
        check(what in mesh.run("task", "ls").ok().out, what + ": history")
        check(stream.asked.count("STREAM.INFO") < 20, what + ": it is not asked without end", len(stream.asked), stream.asked[:20])
        if not lies:
            info = json.loads(Nats(mesh.bus).request("amp.env.ping.raw", b'{"version":1,"from":"raw","envRequest":{"ping":{}}}')[3])["envReply"]["info"]
            check(info["streamFailed"] and "none takes" in info["stream"], "that it does not store is told", info)
            stream.nats.sub("amp.canary.*")


def main():
    with Mesh() as mesh:
        mesh.steady = mesh.agent("steady", "--concurrency", "4", "--sock", os.path.join(mesh.home, "steady.sock"), "--", "cat")
        tap.run("a reply subject that is no inbox: nobody publishes there", reply_subjects, mesh)
        tap.run("forged events and ends change no answer and no record", forged_events, mesh)
        tap.run("events without a time, also where another attempt begins", untimed_events, mesh)
        tap.run("forged beats, cards and deaths", forged_beats, mesh)
        tap.run("forged cancels, answers and confirmations", forged_controls, mesh)
        tap.run("forged words of the server that nobody listens", forged_silence, mesh)
        tap.run("headers of every kind", headers, mesh)
        tap.run("other versions, and bodies in the wrong place", versions, mesh)
        tap.run("keys with wildcards, dots, line breaks", keys, mesh)
        tap.run("terminal: what an agent says", terminal_of_agents, mesh)
        tap.run("terminal: what a peer forges", terminal_of_peers, mesh)
    with Bus() as mesh:
        tap.run("an answer of JetStream is not believed, nor waited for", jetstream, mesh)


main()
tap.done()
