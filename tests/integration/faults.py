#!/usr/bin/env python3
"""Agents and peers that misbehave, on the real thing: what a user sees, and that everybody else goes on."""
import json
import os
import signal
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import Failed, Mesh, Tap, check, process_state, until  # noqa: E402

PY = sys.executable
tap = Tap()


def alive(mesh, agent="steady"):
    r = mesh.run("ask", agent, "still here?").ok()
    check(r.out.strip() == "still here?", "a healthy agent still answers", r.out)


def show(mesh, agent):
    return mesh.run("show", agent, "--json").ok().json()


def killed_agent(mesh):
    """kill -9 of a long-lived agent in mid-task: cause, last words, tasks, at the caller, in show, and the agent comes back."""
    code = ("import sys, json, os\nprint('last words', file=sys.stderr, flush=True)\n"
            "for line in sys.stdin:\n f=json.loads(line)\n if f.get('method')!='task.run': continue\n"
            " if f['params']['text']=='die': os.kill(os.getpid(), 9)\n print(json.dumps({'id':f['id'],'result':'pong'}), flush=True)")
    agent = mesh.agent("mortal", "--mode", "jsonl", "--", PY, "-c", code)
    r = mesh.run("ask", "mortal", "die")
    check(r.status == 1, "exit code 1", r.status, r.err)
    check("signal 9" in r.err or "SIGKILL" in r.err, "the caller reads the signal", r.err)
    check("last words" in r.err, "and the last lines of stderr", r.err)
    deaths = until(lambda: show(mesh, "mortal")["deaths"], "the death is in show")
    d = deaths[0]
    check(d["signal"] == 9 and d["exit_code"] is None and d["oom"] is False, "signal, exit code, oom", d)
    check(d["instance"] == agent.instance and d["stderr"] == ["last words"] and len(d["tasks"]) == 1, "instance, stderr, tasks", d)
    check(d["rss_max_bytes"] > 100000 and d["cpu_ms"] >= 0, "resources", d)
    back = until(lambda: mesh.run("ask", "mortal", "ping").out.strip() == "pong", "the agent is started again")
    check(back, "back")
    task = json.loads(mesh.run("task", "show", d["tasks"][0], "--json").ok().out)
    check(task["status"]["state"] == "TASK_STATE_FAILED", "the task is FAILED in history", task)


def killed_while_we_stood_still(mesh):
    """The agent says something and dies while its sidecar stands still: the end of the process, what it said and the end of its connection are all there at once."""
    by_line = ("import os\nfor line in __import__('sys').stdin:\n print('{\"method\":\"task.event\",\"params\":{}}\\n' * 5000, flush=True)\n if 'die' in line: os.kill(os.getpid(), 9)\n")
    with open(os.path.join(mesh.home, "brief.py"), "w", encoding="utf-8") as f:
        f.write("import os\ndef brief(text, task):\n    for i in range(3000): yield 'a' * 100\n    if 'die' in text: os.kill(os.getpid(), 9)\n")
    for name, command in (("brief-line", ("--mode", "jsonl", "--", PY, "-c", by_line)), ("brief-dial", ("brief.py:brief",))):
        agent = mesh.agent(name, *command, cwd=mesh.home)
        for _ in range(3):
            pid = until(lambda: show(mesh, name)["instances"][0].get("pid"), "its process is there")
            caller = mesh.spawn("ask", name, "die")
            until(lambda: process_state(pid) in (None, "Z"), "it has died")
            caller.wait()
            pid = until(lambda: (found := show(mesh, name)["instances"][0].get("pid")) != pid and found, "it is started again")
            agent.signal(signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            until(lambda: process_state(pid) in (None, "Z"), "it has died")
            agent.signal(signal.SIGCONT)
            until(lambda: show(mesh, name)["instances"][0].get("pid") not in (None, pid), "it is started again")
        check(agent.child.poll() is None, "the sidecar lives")
        agent.stop()


def killed_sidecar(mesh):
    """kill -9 of a sidecar: nobody says goodbye, but the server knows that nobody listens there any more."""
    agent = mesh.agent("headless", "--concurrency", "2", "--", "tail", "-f", "/dev/null")
    task = mesh.run("ask", "--detach", "headless", "x").ok().out.strip()
    until(lambda: show(mesh, "headless")["instances"][0]["tasks"] == [task], "it has a task")
    agent.signal(signal.SIGKILL)
    line = mesh.up.wait_line(lambda line: "env.instance_lost" in line and agent.instance in line, stream="err")
    check("no responders" in line, "found out by asking, not by waiting for three beats", line)
    instances = show(mesh, "headless")["instances"]
    check([i["state"] for i in instances] == ["lost"] and instances[0]["free"] == 0, "show says lost", instances)
    check(instances[0]["inflight"] == 0 and instances[0]["tasks"] == [], "and that it has no task any more: that waits for another one", instances)
    shown, over = mesh.run("show", "headless").ok().out, time.monotonic() + 1.1
    until(lambda: time.monotonic() > over, "time goes by")
    check(mesh.run("show", "headless").ok().out == shown, "how long it was up is not counted on", shown)
    mesh.run("task", "cancel", task).ok()
    check("lost" in mesh.run("ls", "--all").out + mesh.run("ls").out, "ls says lost")
    check(mesh.run("ask", "headless", "x").status == 4, "and nobody waits for it")


def unreadable_answers(mesh):
    """What the agent writes as its answer is no frame, or is too long to be one: the caller is told at once, and the slot is free again."""
    code = ("import sys, json\nfor line in sys.stdin:\n f=json.loads(line)\n if f.get('method')!='task.run': continue\n t=f['params']['text']; i=f['id']\n"
            " a={'long':json.dumps({'id':i,'result':'a'*3000000}), 'nan':json.dumps({'id':i,'result':{'data':float('nan')}}), 'cut':json.dumps({'id':i,'result':'half'})[:-2],\n"
            "    'nobody':json.dumps({'result':'whose?'}), 'neither':json.dumps({'id':i})}\n print(a.get(t, json.dumps({'id':i,'result':'fine'})), flush=True)")
    mesh.agent("mumbler", "--mode", "jsonl", "--", PY, "-c", code)
    for text, why in (("long", "1048576 bytes"), ("nan", "AMESH-3008"), ("cut", "AMESH-3008"), ("nobody", "AMESH-3008"), ("neither", "AMESH-3008")):
        r = mesh.run("ask", "mumbler", text)
        check(r.status == 1 and "AMESH-3008" in r.err and why in r.err, f"{text}: the caller is told", r.status, r.err)
        check(mesh.run("ask", "mumbler", "and now?").ok().out.strip() == "fine", f"{text}: the slot is free, the agent goes on")


def caller_is_gone(mesh):
    """kill -9 of whoever asked: the task is cancelled with the reason and its slot is free; one that asked a question stays for anybody to answer."""
    mesh.agent("sleeper", "--", "sleep", "600")
    asker = mesh.spawn("ask", "sleeper", "x")
    task = until(lambda: [t for t in mesh.run("task", "ls", "--json", "--open", "--agent", "sleeper").ok().json()["tasks"]], "the task runs")[0]["id"]
    asker.signal(signal.SIGKILL)
    asker.wait()
    done = until(lambda: (lambda t: t["status"]["state"] == "TASK_STATE_CANCELED" and t)(mesh.run("task", "show", task, "--json").ok().json()), "it is cancelled")
    check("caller has gone" in done["status"]["message"]["parts"][0]["text"], "and says why", done["status"])
    until(lambda: show(mesh, "sleeper")["instances"][0]["free"] == 1, "the slot is free")
    asking = mesh.agent("asking", "--", "sh", "-c", '"$AMESH_BIN" task ask "which?"', env={"AMESH_BIN": mesh.env.get("AMESH", os.environ["AMESH"])})
    r = mesh.run("ask", "asking", "x")
    check(r.status == 9, "a question", r.status, r.err)
    task = r.err.split("--task ")[1].split()[0]
    mesh.run("ask", "sleeper", "y", "--timeout", "5s")  # longer than callers are looked for
    check(mesh.run("ask", "--task", task, "this one").ok().out.strip() == "this one", "the question is still open and can be answered")
    asking.stop()


def cancel_says_why(mesh):
    """The reason of a cancel reaches the caller, task show and the agent; without one nothing is said twice."""
    for durable in ((), ("--durable",)):
        for reason in (("--reason", "no need for it"), ()):
            asker = mesh.spawn("ask", *durable, "sleeper", "x")
            task = until(lambda: [t for t in mesh.run("task", "ls", "--json", "--state", "working", "--agent", "sleeper").ok().json()["tasks"]], "the task runs")[0]["id"]
            mesh.run("task", "cancel", task, *reason).ok()
            check(asker.wait() == 1, "the caller's status")
            said = "\n".join(asker.err)
            check(("cancelled: no need for it" in said) == bool(reason), "the caller reads why", durable, said)
            check("cancelled: the task was cancelled" not in said, "once", durable, said)
            status = mesh.run("task", "show", task, "--json").ok().json()["status"]
            check(status["state"] == "TASK_STATE_CANCELED" and (not reason or "no need for it" in json.dumps(status)), "the record has it", durable, status)


def never_starts(mesh):
    """An agent that cannot be started is given up with its last words; the command does not go on for ever."""
    folder = os.path.join(mesh.home, "broken")
    os.makedirs(folder)
    for name, text in (("missing.py", "import no_such_module\ndef f(text):\n    return text\n"), ("nofn.py", "x = 1\n"), ("broken.mjs", "this is no JavaScript\n")):
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)
    for target, said in (("missing.py:f", "no_such_module"), ("nofn.py:f", "f"), ("broken.mjs:f", "")):
        r = mesh.run("run", "--name", "never", os.path.join(folder, target))
        check(r.status == 1 and "AMESH-3004" in r.err and "could not be started" in r.err and said in r.err.splitlines()[-1], target, r.status, r.err[-600:])
        check("ready" not in r.out, "it was never ready", r.out)
    r = mesh.run("run", "--name", "never", "--mode", "jsonl", "--", "/no/such/program")
    check(r.status != 0 and "/no/such/program" in r.err, "a program that is not there", r.status, r.err[-600:])


def second_try(mesh):
    """A durable task survives its agent: the second try says why the first one ended."""
    flag = os.path.join(mesh.home, "tried")
    code = ("import sys, json, os\nfor line in sys.stdin:\n f=json.loads(line)\n if f.get('method')!='task.run': continue\n"
            f" if not os.path.exists({flag!r}):\n  open({flag!r},'w').close(); os.kill(os.getpid(), 9)\n"
            " print(json.dumps({'id':f['id'],'result':'attempt %d' % f['params']['attempt']}), flush=True)")
    mesh.agent("phoenix", "--mode", "jsonl", "--", PY, "-c", code)
    task = mesh.run("ask", "--durable", "--json", "phoenix", "go").ok().json()
    check(task["status"]["state"] == "TASK_STATE_COMPLETED", "completed", task)
    attempts = task["metadata"]["amp/attempts"]
    check(len(attempts) == 2, "two attempts", attempts)
    check("signal 9" in json.dumps(attempts[0]) or "SIGKILL" in json.dumps(attempts[0]), "the first says why it ended", attempts[0])


def exec_failures(mesh):
    mesh.agent("exits", "--", "sh", "-c", "echo out; echo 'disk on fire' >&2; exit 7")
    r = mesh.run("ask", "exits", "x")
    check(r.status == 1 and "disk on fire" in r.err and "7" in r.err, "exit status and stderr are the reason", r.status, r.err)
    mesh.agent("segv", "--", "sh", "-c", "kill -SEGV $$")
    r = mesh.run("ask", "segv", "x")
    check(r.status == 1 and ("SIGSEGV" in r.err or "signal 11" in r.err), "a signal is named", r.err)
    r = mesh.run("run", "--name", "nope", "--", "/no/such/program")
    check(r.status != 0 and "/no/such/program" in r.err, "a program that is not there is said at once", r.status, r.err)


def children_left_behind(mesh):
    pidfile = os.path.join(mesh.home, "left.pid")
    mesh.agent("forks", "--", "sh", "-c", f"tail -f /dev/null & echo $! > {pidfile}; echo done")
    r = mesh.run("ask", "forks", "x").ok()
    check(r.out.strip() == "done", "the answer does not wait for what was left behind", r.out)
    pid = int(open(pidfile).read())

    def gone():
        try:
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True
    until(gone, "the child left behind is killed")


def garbage_on_stdout(mesh):
    code = ("import sys, json\nprint('not a frame'); print('{\"half\":'); print('{\"id\":12345,\"result\":1}')\n"
            "sys.stdout.buffer.write(b'\\xff\\xfe\\x00{}\\n'); sys.stdout.flush()\n"
            "for line in sys.stdin:\n f=json.loads(line)\n if f.get('method')=='task.run': print('noise'); print(json.dumps({'id':f['id'],'result':'ok'})); print(json.dumps({'id':f['id'],'result':'twice'}), flush=True)")
    mesh.agent("noisy", "--mode", "jsonl", "--", PY, "-u", "-c", code)
    for _ in range(3):
        check(mesh.run("ask", "noisy", "x").ok().out.strip() == "ok", "noise around frames does no harm")


def half_line(mesh):
    code = ("import sys, json\nfor line in sys.stdin:\n f=json.loads(line)\n if f.get('method')=='task.run':\n"
            "  sys.stdout.write('{\"id\":%s,\"resu' % json.dumps(f['id'])); sys.stdout.flush(); print('cut short', file=sys.stderr); sys.exit(0)")
    mesh.agent("cutter", "--mode", "jsonl", "--", PY, "-c", code)
    r = mesh.run("ask", "cutter", "x")
    check(r.status == 1 and "cut short" in r.err, "closing in mid-line is the agent's death with its last words", r.status, r.err)


def never_answers(mesh):
    mesh.agent("mute", "--", "sh", "-c", "exec tail -f /dev/null")
    r = mesh.run("ask", "--timeout", "1s", "mute", "x")
    check(r.status == 6, "the deadline ends it with exit code 6", r.status, r.err)
    check("AMESH-3006" in r.err, "and says so", r.err)
    until(lambda: show(mesh, "mute")["instances"][0]["free"] == 1, "the slot is free again")


def stubborn(mesh):
    """Ignores SIGTERM: killed within the grace, the task ends CANCELED."""
    mesh.agent("stubborn", "--", "sh", "-c", "trap '' TERM; echo begun; while :; do read x </dev/zero; done")
    p = mesh.spawn("ask", "--events", "stubborn", "x")
    line = p.wait_line(lambda l: "begun" in l)
    mesh.run("task", "cancel", json.loads(line)["artifactUpdate"]["taskId"]).ok()
    check(p.wait() == 1 and any("CANCELED" in l for l in p.out), "canceled", p.out[-2:], p.err)


def flood(mesh):
    mesh.agent("flood", "--", "sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x")
    r = mesh.run("ask", "flood", "x", deadline=120)
    if r.status == 0:
        check(len(r.out.rstrip("\n")) == 20000000, "all of it arrived", len(r.out))
    else:
        check("AMESH-3007" in r.err or "AMESH-1003" in r.err or "AMESH-4004" in r.err, "or the caller is told what was lost", r.status, r.err[-300:])
    alive(mesh)


def no_such(mesh):
    r = mesh.run("ask", "nobody", "x", deadline=10)
    check(r.status == 4 and "AMESH-2001" in r.err and "amesh ls" in r.err, "no such agent, at once, with the next step", r.status, r.err)
    r = mesh.run("ask", "--skill", "flying", "x", deadline=10)
    check(r.status == 4 and "AMESH-2002" in r.err, "no such skill", r.status, r.err)
    r = mesh.run("ask", "--json", "nobody", "x")
    error = json.loads(r.err)["error"]
    check(error["code"] == "AMESH-2001" and error["name"] == "no_such_agent" and error["hint"], "the error document", r.err)
    r = mesh.run("task", "show", "t-none")
    check(r.status == 4, "no such task", r.status, r.err)


def busy(mesh):
    mesh.agent("single", "--", "sh", "-c", "read go; echo held; exec tail -f /dev/null")
    first = mesh.spawn("ask", "--events", "single", "hold\n")
    line = first.wait_line(lambda l: "held" in l)
    r = mesh.run("ask", "--no-wait", "single", "x")
    check(r.status == 7 and "AMESH-2005" in r.err, "all busy and --no-wait", r.status, r.err)
    waiting = mesh.spawn("ask", "single", "second\n")
    waiting.wait_line(lambda l: "busy" in l, stream="err")
    mesh.run("task", "cancel", json.loads(line)["artifactUpdate"]["taskId"]).ok()
    first.wait()
    until(lambda: show(mesh, "single")["instances"][0]["free"] == 0, "the one that waited was taken")
    waiting.signal(signal.SIGINT)
    check(waiting.wait() == 130, "interrupted", waiting.err)


def bad_names(mesh):
    for name in ("a.b", "a*", "a b", "a\r\nb", ">", "", "x" * 64, "Ä"):
        r = mesh.run("run", "--name", name, "--", "cat", deadline=20)
        check(r.status == 2, f"run --name {name!r} is a usage error", r.status, r.err)
        r = mesh.run("ask", name, "x", deadline=20)
        check(r.status == 2 and "AMESH-1001" in r.err, f"ask {name!r} is a usage error", r.status, r.err)
        r = mesh.run("ask", "--skill", name, "x", deadline=20)
        check(r.status == 2, f"skill {name!r}", r.status, r.err)


def bad_cards(mesh):
    """A card that is wrong is refused with file, line and field."""
    path = os.path.join(mesh.home, "card.yaml")
    for text, said in (("name: ok\nskills:\n  - id: a b\n    name: x\n", "card.yaml:3: skills[0].id: "), ("name: ok\nskills:\n- id: a\n  taggs: [b]\n", "card.yaml:4: skills[0].taggs: "),
                       ('{"name": "ok",\n "version": [1]}', "card.yaml:2: version: "), ("name: ok\nname: ok\n", "card.yaml:2: "), ("name: ok\nx: [\n", "card.yaml:"), ("", "the file is empty"),
                       ("name: ok\nnonsense: 1\n", "card.yaml:2: nonsense: "), ('name: "a\\0b"\n', "a NUL"), ("name: a.b\n", '"a.b" is no name'), ('name: ok\ndescription: "\\e[31m"\n', "card.yaml:2: description: ")):
        with open(path, "w") as f:
            f.write(text)
        r = mesh.run("run", "--card", path, "--", "cat", deadline=20)
        check(r.status == 2 and said in r.err, f"{text!r}: {said}", r.status, r.err)
    with open(path, "w") as f:
        f.write("name: carded\ndescription: from a file\nskills:\n- id: carded-skill\n  name: S\n  description: d\n  tags: [t]\n")
    agent = mesh.agent("over", "--card", path, "--description", "from an option", "--", "cat")
    card = show(mesh, "over")["card"]
    check(card["name"] == "over" and card["description"] == "from an option" and card["skills"][0]["id"] == "carded-skill", "options override the file", card)
    agent.stop()


def too_large(mesh):
    mesh.agent("sink", "--", "sh", "-c", "wc -c")
    r = mesh.run("ask", "sink", "-", text="x" * 900000).ok()
    check(r.out.strip() == "900000", "under the limit it goes through", r.out)
    r = mesh.run("ask", "sink", "-", text="x" * 8500000)
    check(r.status == 2 and "AMESH-1003" in r.err and "8388608" in r.err.replace(",", ""), "over the server's limit it is refused with the limit", r.status, r.err)


def bad_envelopes(mesh):
    """What no honest peer sends, to every subject: answered or counted, nobody dies."""
    nats = Nats(mesh.bus)
    steady = show(mesh, "steady")["instances"][0]["id"]
    deep = b'{"version":1,"x":' + b"[" * 20000 + b"]" * 20000 + b"}"
    payloads = [b"", b"\x00", b"{", b"{}", b"null", b"[]", deep, b'{"version":1,"version":1,"ping":{}}', b'{"version":2,"ping":{}}', b'{"version":1,"from":"a\xff","ping":{}}',
                b'{"version":1,"from":"a\\u0000b","ping":{}}', b"\x08\x01" + b"\x2a\x02" * 5000, b"\x08\x01\x22\xff\xff\xff\xff\x0f", os.urandom(512), b'{"version":1,"request":{"taskId":"a.b","contextId":"*","message":{"parts":[]}}}',
                b'{"version":1,"from":"raw","request":{"taskId":"t-1","contextId":"c-1","message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"a","url":"b"}]}}}', b'{"version":1e400,"ping":{}}', b'{"version":1,"ping":{}} trailing']
    for subject in ("amp.req.steady.raw", f"amp.req.steady.{steady}.raw", "amp.skill.none.raw", f"amp.ctl.{steady}.t-x", "amp.hb.steady.x", "amp.hb.forged.i-1", "amp.evt.c.t", "amp.env.submit.raw", "amp.env.list.raw", "amp.env.zzz.raw", "amp.who.steady", "amp.whoall"):
        for payload in payloads:
            nats.pub(subject, payload, "_INBOX.raw.1")
            nats.pub(subject, payload)
    nats.flush()
    answer = nats.request("amp.req.steady.raw", b'{"version":1,"from":"raw","request":{"taskId":"no dots","contextId":"c-1","message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"a"}]}}}')
    check(answer and b"error" in answer[3] and b"taskId" in answer[3] or b"task_id" in answer[3], "the answer names the field", answer)
    forged = nats.request("amp.req.steady.raw", b'{"version":1,"from":"boss","request":{"taskId":"t-f","contextId":"c-1","message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"a"}]}}}')
    check(forged and b"error" in forged[3] and b"from" in forged[3], "a sender that differs from the subject is refused", forged)
    good = nats.request("amp.req.steady.raw", b'{"version":1,"from":"raw","request":{"taskId":"t-good","contextId":"c-1","message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"by hand"}]}}}')
    check(good and good[3].startswith(b'{"version":1'), "a JSON request is answered in JSON", good)
    nats.pub("amp.req.steady.raw", b'{"version":1,"from":"raw","request":{"taskId":"t-r","contextId":"c-1","message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]}}}', "amp.env.command.env")
    nats.flush()
    alive(mesh)
    mesh.run("ls").ok()


def bad_local(mesh, agent):
    """Garbage on the local socket."""
    path = agent.socket
    for first in (b"\x00\x01\x02", b"{" * 70000, b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", b'{"id":1,"method":"nope"}\n', b"{}\n" * 40, b"\n\n\n", b'{"id":1,"method":"hello","params":' + b"[" * 5000 + b"\n",
                  b"POST /v1/send/steady HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"POST /v1/send/steady HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\nContent-Length: 1\r\n\r\nx"):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
            s.settimeout(15)
            try:
                s.sendall(first)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass
            except TimeoutError:
                raise Failed(f"the socket neither answers nor closes after {first[:40]!r}") from None
    import subprocess
    out = subprocess.run(["curl", "-sS", "--unix-socket", path, "http://mesh/v1/health"], capture_output=True, text=True, timeout=20).stdout
    check(json.loads(out)["agent"] == "steady", "it still answers", out)
    alive(mesh)


def server_restart(mesh):
    """nats-server killed: all come back, calls work again, nothing has to be restarted by hand."""
    with open(os.path.join(mesh.home, "mesh.json")) as f:
        was = json.load(f)
    os.kill(was["natsPid"], signal.SIGKILL)
    until(lambda: mesh.run("ask", "--timeout", "5s", "steady", "back?").out.strip() == "back?", "calls work again")
    until(lambda: mesh.run("check").status == 0, "check is green again")
    with open(os.path.join(mesh.home, "mesh.json")) as f:
        now = json.load(f)
    with open(f"/proc/{now['natsPid']}/comm") as f:
        check(now["natsPid"] != was["natsPid"] and f.read().startswith("nats"), "mesh.json has the pid of the new one", was, now)
    check(dict(now, natsPid=0) == dict(was, natsPid=0), "and is what it was otherwise", was, now)
    logged = [line for line in mesh.up.err if '"bus.lost"' in line or '"bus.reconnected"' in line]
    check(len(logged) >= 2 and '"bus.lost"' in logged[0] and '"reason"' in logged[0] and '"bus.reconnected"' in logged[-1], "the log tells of both, once", logged)


def leaving_under_load(mesh):
    """Requests that the server gave to an instance before it left its groups are answered, all of them: done, busy or stopping, so that nobody waits for nothing."""
    agent = mesh.agent("crowded", "--", "cat")
    nats = Nats(mesh.bus)
    nats.sub("_INBOX.load.*")
    nats.flush()
    agent.signal(signal.SIGSTOP)
    for i in range(3000):
        nats.pub("amp.req.crowded.raw", b'{"version":1,"from":"raw","request":{"taskId":"t-l-%d","contextId":"c-1","message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]}}}' % i, f"_INBOX.load.{i}")
    nats.flush()
    agent.signal(signal.SIGTERM)
    agent.signal(signal.SIGCONT)
    check(agent.wait() == 0, "it leaves with 0", agent.err[-5:])
    nats.flush()
    answered = set()
    while nats.queue:
        subject, _, _, data = nats.next()
        if b'"end"' in data or b"4007" in data or b"2005" in data:
            answered.add(subject)
    check(len(answered) == 3000, "everybody was answered", len(answered))
    nats.sock.close()


def calls_at_a_leaving_twin(mesh):
    """Two instances under load, one is told to leave: no call fails."""
    code = "import sys,json\nfor line in sys.stdin:\n f=json.loads(line)\n if f.get('method')=='task.run': print(json.dumps({'id':f['id'],'result':f['params']['text']}),flush=True)"
    twins = [mesh.agent("twin", "--mode", "jsonl", "--concurrency", "4", "--", PY, "-c", code) for _ in range(2)]
    hub = mesh.agent("hub", "--concurrency", "20", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do amesh ask twin \"$AMESH_TASK $i\" || exit 1; echo; done")
    calls = [mesh.spawn("ask", "hub", str(i)) for i in range(12)]
    until(lambda: any(c.out for c in calls), "the load is there")
    twins[0].signal(signal.SIGTERM)
    for c in calls:
        check(c.wait() == 0 and len(c.out) == 8, "every call was answered", c.out, c.err[-5:])
    check(twins[0].wait() == 0, "it left with 0", twins[0].err[-5:])
    twins[1].stop()
    hub.stop()


def leaving(mesh):
    agent = mesh.agent("leaver", "--", "sh", "-c", "read x; echo begun; read y <$0; echo over", os.path.join(mesh.home, "gate"))
    os.mkfifo(os.path.join(mesh.home, "gate"))
    p = mesh.spawn("ask", "leaver", "go\n")
    p.wait_line("begun")
    agent.signal(signal.SIGTERM)
    until(lambda: mesh.run("ask", "--no-wait", "leaver", "x").status in (4, 7), "a draining instance takes nothing new")
    with open(os.path.join(mesh.home, "gate"), "w") as gate:
        gate.write("\n")
    check(p.wait() == 0 and p.out[-1] == "over", "what was in hand is finished", p.out, p.err)
    check(agent.wait() == 0, "then it leaves with 0", agent.err[-5:])
    until(lambda: mesh.run("ask", "leaver", "x").status == 4, "and is gone")


def told_twice(mesh):
    """The second SIGTERM: nothing is waited for. Only it ends with 130: who had waited for what is in hand, which never ends by itself, would give it back after 9 s and leave with 0."""
    never, gate = os.path.join(mesh.home, "never"), os.path.join(mesh.home, "elsewhere")
    for path in (never, gate):
        os.mkfifo(path)
    command = ("--", "sh", "-c", "echo $$ >$0.pid; read line <$0; echo done")
    agent = mesh.agent("hasty", *command, never)
    task = mesh.run("ask", "--durable", "--detach", "hasty", "x").ok().out.strip()
    until(lambda: mesh.lines_of("never.pid"), "it works on the task")
    agent.signal(signal.SIGTERM)
    until(lambda: mesh.run("ask", "--no-wait", "hasty", "x").status in (4, 7), "it takes nothing new")
    check(agent.child.poll() is None, "and waits for what it has in hand")
    told = time.monotonic()
    agent.signal(signal.SIGTERM)
    check(agent.wait() == 130, "told again it ends as one that was interrupted", agent.child.returncode, agent.err[-5:])
    check(time.monotonic() - told < 9, "and waits for nothing", time.monotonic() - told)
    until(lambda: process_state(int(mesh.lines_of("never.pid")[0])) in (None, "Z"), "the program that it had started has ended, too")
    other = mesh.agent("hasty", *command, gate)
    until(lambda: mesh.lines_of("elsewhere.pid"), "another instance has the task")
    with open(gate, "w", encoding="utf-8") as f:
        f.write("\n")
    mesh.run("task", "watch", task).ok()
    attempts = mesh.run("task", "show", task, "--json").ok().json()["metadata"]["amp/attempts"]
    check([(a["attempt"], a["outcome"]) for a in attempts] == [(1, "stopping"), (2, "completed")], "and has done it", attempts)
    other.stop()


with Mesh() as mesh:
    steady = mesh.agent("steady", "--concurrency", "4", "--sock", os.path.join(mesh.home, "steady.sock"), "--", "cat")
    steady.socket = os.path.join(mesh.home, "steady.sock")
    tap.run("kill -9 of an agent: cause, last words, tasks, at the caller, in show and in history", killed_agent, mesh)
    tap.run("kill -9 of an agent while its sidecar stands still", killed_while_we_stood_still, mesh)
    tap.run("kill -9 of a sidecar: found out at once", killed_sidecar, mesh)
    tap.run("an answer that cannot be read is said at once", unreadable_answers, mesh)
    tap.run("a caller that is gone", caller_is_gone, mesh)
    tap.run("a cancel says why", cancel_says_why, mesh)
    tap.run("an agent that can never start", never_starts, mesh)
    tap.run("a durable task goes on after its agent was killed and says why", second_try, mesh)
    tap.run("exit status, signal and stderr of a program are the reason", exec_failures, mesh)
    tap.run("what an agent leaves behind is killed", children_left_behind, mesh)
    tap.run("garbage on stdout does no harm", garbage_on_stdout, mesh)
    tap.run("an agent that closes in mid-line", half_line, mesh)
    tap.run("an agent that never answers meets the deadline", never_answers, mesh)
    tap.run("an agent that ignores cancel is killed", stubborn, mesh)
    tap.run("an agent that floods", flood, mesh)
    tap.run("nobody of that name, skill or id: said at once", no_such, mesh)
    tap.run("busy: waits, or says so", busy, mesh)
    tap.run("names that are none are refused", bad_names, mesh)
    tap.run("cards that are wrong are refused with file, line and field", bad_cards, mesh)
    tap.run("messages over the server's limit are refused with the numbers", too_large, mesh)
    tap.run("malformed messages on every subject", bad_envelopes, mesh)
    tap.run("garbage on the local socket", bad_local, mesh, steady)
    tap.run("SIGTERM: finishes what is in hand, then leaves", leaving, mesh)
    tap.run("a second SIGTERM ends a sidecar at once: exit status 130, and its task goes on elsewhere", told_twice, mesh)
    tap.run("SIGTERM: what the server gave to a leaving instance is answered", leaving_under_load, mesh)
    tap.run("SIGTERM of one of two instances under load: no call fails", calls_at_a_leaving_twin, mesh)
    tap.run("the bus is killed: everybody comes back", server_restart, mesh)
tap.done()
