#!/usr/bin/env python3
"""Direct calls are in history though the environment was away, and what happens to the stream that keeps them: wiped, rolled back, full, not there, not permitted.
On the system's nats-server and, where there is one, on a current one."""
import base64
import concurrent.futures
import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats  # noqa: E402
from meshtest import AMESH, Failed, Process, Skipped, Tap, check, free_port, until  # noqa: E402

tap = Tap()
PY = sys.executable
CALLS = 200
AGENT = """
import sys, json, os
hanging = {}
for line in sys.stdin:
    f = json.loads(line)
    if f.get('method') == 'task.cancel' and hanging.get(f['params']['taskId']):
        print(json.dumps({'id': hanging.pop(f['params']['taskId']), 'result': {'state': 'canceled'}}), flush=True)
    if f.get('method') != 'task.run': continue
    text, id = f['params']['text'], f['id']
    if text == 'die': os.kill(os.getpid(), 9)
    if text == 'hang':
        hanging[f['params']['taskId']] = id
        continue
    if text == 'fail': print(json.dumps({'id': id, 'error': {'message': 'on purpose'}}), flush=True)
    else: print(json.dumps({'id': id, 'result': text.upper()}), flush=True)
"""


class World:
    """A bus, an environment and agents, each a process of its own that can be killed."""

    def __init__(self, nats, jetstream="", more="", through=None):
        self.nats, self.dir, self.port = nats, tempfile.mkdtemp(prefix="ams-"), free_port()
        self.store = os.path.join(self.dir, "store")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AMESH_")}
        self.bus = f"nats://127.0.0.1:{self.port}"
        self.env.update(AMESH_HOME=os.path.join(self.dir, "home"), NO_COLOR="1", AMESH_BUS=self.bus)
        with open(os.path.join(self.dir, "nats.conf"), "w") as f:
            f.write(f'listen: "127.0.0.1:{self.port}"\n' + (jetstream or f'jetstream {{ store_dir: "{self.store}" }}\n') + more)
        self.processes, self.hanging = [], []
        self.through = through
        self.start_server()
        self.start_environment()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for process in reversed(self.processes):
            if process.name == "run many" and process in self.hanging:
                process.signal(signal.SIGKILL)  # it would wait for its task
            process.stop()
        leaks = [line for p in self.processes for line in p.err if "ERROR: AddressSanitizer" in line or "runtime error:" in line or "LeakSanitizer" in line]
        if exc[0] is not None:
            for p in self.processes:
                sys.stdout.write("".join(f"# {p.name}: {line}\n" for line in p.err[-12:]))
        shutil.rmtree(self.dir, ignore_errors=True)
        check(not leaks or exc[0] is not None, "sanitizer", leaks)

    def spawn(self, argv, name, env=None):
        process = Process(argv, env or self.env, name)
        self.processes.append(process)
        return process

    def start_server(self):
        self.server = self.spawn([self.nats, "-c", os.path.join(self.dir, "nats.conf")], "nats-server")
        self.server.wait_line(lambda line: "Server is ready" in line, stream="err")

    def start_environment(self):
        bus = self.through or self.bus
        self.environment = self.spawn([AMESH, "env"], "env", dict(self.env, AMESH_BUS=bus, AMESH_LOG="info"))
        self.environment.wait_line("ready")

    def kill(self, process):
        process.signal(signal.SIGKILL)
        process.wait()

    def agent(self, name, slots="8"):
        agent = self.spawn([AMESH, "run", "--name", name, "--mode", "jsonl", "--concurrency", slots, "--", PY, "-c", AGENT], "run " + name)
        agent.wait_line("ready ")
        return agent

    def run(self, *args):
        return subprocess.run([AMESH, *args], env=self.env, capture_output=True, text=True, timeout=60)

    def json(self, *args):
        r = self.run(*args, "--json")
        check(r.returncode in (0, 3), " ".join(args), r.stdout[-500:], r.stderr[-500:])
        return json.loads(r.stdout)

    def ask_env(self, verb, **query):
        body = json.dumps({"version": 1, "from": "raw", "envRequest": {verb: query}}).encode()
        nats = Nats(self.bus)
        reply = until(lambda: (lambda r: r and r[3] and r)(nats.request(f"amp.env.{verb}.raw", body, 15)), f"the environment answers {verb}")  # it may be on its way back
        return json.loads(reply[3])["envReply"]

    def record(self, task):
        return self.ask_env("get", id=task)["tasks"][0]

    def info(self):
        return self.ask_env("ping")["info"]

    def said(self, event):
        return [line for p in self.processes if p.name == "env" for line in p.err if f'"event":"{event}"' in line]

    def wait_stream(self, wanted="ok", deadline=20):
        return until(lambda: (lambda i: i["stream"].startswith(wanted) and i)(self.info()), f"the stream is {wanted}", deadline)

    def checked(self, name):
        items = [c for c in self.json("check")["checks"] if c["name"] == name]
        return items[0] if items else None


def call(bus, agent, text, context="c-many"):
    """A direct call as any client of the bus makes it. → (task, error's name or None)"""
    nats, task = Nats(bus), "t-" + uuid.uuid4().hex
    nats.sub("_INBOX.x." + task)
    request = {"version": 1, "from": "raw", "request": {"taskId": task, "contextId": context, "message": {"messageId": task, "role": "ROLE_USER", "parts": [{"text": text}]}}}
    nats.pub(f"amp.req.{agent}.raw", json.dumps(request).encode(), "_INBOX.x." + task)
    while True:
        message = nats.next(20)
        check(message, f"an answer to {text}")
        if b"503" in message[2]:
            nats.pub(f"amp.req.{agent}.raw", json.dumps(request).encode(), "_INBOX.x." + task)  # the last slot is taken
            continue
        body = json.loads(message[3])
        if body.get("reply", {}).get("error", {}).get("name") == "busy":
            nats.pub(f"amp.req.{agent}.raw", json.dumps(request).encode(), "_INBOX.x." + task)
            continue
        end = body.get("frame", {}).get("end")
        if end:
            nats.sock.close()
            return task, (end.get("error") or {}).get("name") or ("failed" if text == "fail" else None)


def many(world, count):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        return list(pool.map(lambda i: call(world.bus, "many", "fail" if i % 10 == 9 else f"text {i}"), range(count)))


def records(world, context="c-many"):
    found, token = [], ""
    while True:
        page = world.ask_env("history", contextId=context, pageSize=200, pageToken=token)
        found += page.get("tasks", [])
        token = page.get("nextPageToken")
        if not token:
            return {r["task"]["id"]: r for r in found}


def check_whole(world, calls):
    have = records(world)
    missing = [t for t, _ in calls if t not in have]
    check(not missing, f"{len(missing)} of {len(calls)} calls are missing from history")
    part = [t for t, _ in calls if have[t].get("incomplete")]
    check(not part, f"{len(part)} of {len(calls)} are incomplete", have[part[0]] if part else "")
    for task, error in calls:
        state = have[task]["task"]["status"]["state"]
        check(state == ("TASK_STATE_FAILED" if error else "TASK_STATE_COMPLETED"), "as it ended", error, have[task])
        check(error or have[task]["task"]["artifacts"][0]["parts"][0]["text"].startswith("TEXT "), "with its answer", have[task])


def check_times(world, task, record, back):
    """What it took is what its callee says, whenever that was read: the environment was not there, and nothing of that is in it."""
    events = frames_of(world, task)
    times = [events[seq]["time"] for seq in sorted(events)]
    attempt = record["task"]["metadata"]["amp/attempts"][0]
    check(attempt["startedAt"] == times[0] and attempt["endedAt"] == times[-1], "from its first event to its last", attempt, times)
    check(datetime.datetime.fromisoformat(attempt["endedAt"].replace("Z", "+00:00")) < back and "away" not in attempt, "before the environment was back", attempt, back)


def environment_killed(nats):
    """kill -9 of the environment, 200 direct calls without it, some that fail, some whose caller, agent or sidecar is killed."""
    with World(nats) as world:
        world.agent("many")
        world.agent("mortal", "1")
        frail = world.agent("frail", "1")
        world.wait_stream()
        first = call(world.bus, "many", "text before")
        check_whole(world, [first])
        tasks = Nats(world.bus)
        tasks.sub("amp.evt.>")
        tasks.flush()

        def begin(agent):
            """A call that hangs → its process and its task"""
            asker = world.spawn([AMESH, "ask", agent, "hang"], "ask " + agent)
            while True:
                frame = json.loads(tasks.next()[3])["frame"]
                if frame.get("agent") == agent and "hang" in json.dumps(frame.get("request")):
                    return asker, frame["taskId"]
        _, before = begin("frail")  # begun while the environment listens, ended while it does not
        world.kill(world.environment)
        calls = [first] + many(world, CALLS)
        died = call(world.bus, "mortal", "die")
        check(died[1] == "agent_died", "the agent died", died)
        world.kill(frail)
        asker, left = begin("many")
        world.kill(asker)
        while True:  # its callee finds out
            frame = json.loads(tasks.next(20)[3])["frame"]
            if frame["taskId"] == left and frame.get("end"):
                break
        back = datetime.datetime.now(datetime.timezone.utc)
        world.start_environment()
        check_whole(world, calls)
        found = records(world)
        for task, _ in calls:
            check_times(world, task, found[task], back)
        dead = world.record(died[0])
        check(dead["error"]["name"] == "agent_died" and dead["error"]["death"]["signal"] == 9 and not dead.get("incomplete"), "with the death report", dead)
        gone = world.record(left)
        check(gone["task"]["status"]["state"] == "TASK_STATE_CANCELED" and "caller has gone" in json.dumps(gone) and not gone.get("incomplete"), "the caller went", gone)
        lost = until(lambda: (lambda r: r.get("ended") and r)(world.record(before)), "the task of the sidecar that was killed is closed")
        check(lost["error"]["name"] == "instance_lost" and not lost.get("incomplete"), "with the reason", lost)
        shown = world.json("task", "ls", "--limit", "1000")["tasks"]
        check({t for t, _ in calls} <= {t["id"] for t in shown}, "task ls has them too")
        check(world.checked("stream")["result"] == "ok", "the stream is well", world.checked("stream"))


class Wire:
    """Between the environment and the bus: can be cut."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self.listener.getsockname()[1]}"
        self.to, self.is_cut, self.sockets = None, False, []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            if self.is_cut or not self.to:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.to))
            self.sockets += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, a, b):
        with contextlib.suppress(OSError):
            while True:
                data = a.recv(1 << 16)
                if not data:
                    break
                if not self.is_cut:  # else it is lost on the way, and nobody is told
                    b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.is_cut = True

    def heal(self):
        for s in self.sockets:
            s.close()
        self.sockets, self.is_cut = [], False


def partition(nats):
    wire = Wire()

    class Behind(World):
        def start_server(self):
            super().start_server()
            wire.to = self.port
    with Behind(nats, through=wire.url) as world:
        world.agent("many")
        world.wait_stream()
        calls = [call(world.bus, "many", "text near")]
        wire.cut()
        calls += many(world, 40)
        wire.heal()
        until(lambda: (Nats(world.bus).request("amp.env.ping.raw", b'{"version":1,"from":"raw","envRequest":{"ping":{}}}', 1) or [b""])[-1], "the environment is back")
        check_whole(world, calls)


def frames_of(world, task):
    """All that the stream has of a task, as an observer reads it. → {number: event}"""
    nats, seq, events = Nats(world.bus), 1, {}
    while True:
        body = json.dumps({"seq": seq, "next_by_subj": "amp.evt.*." + task}).encode()
        reply = json.loads(nats.request("$JS.API.STREAM.MSG.GET.AMP_EVT", body, 5)[3])
        if "error" in reply:
            return events
        frame = json.loads(base64.b64decode(reply["message"]["data"]))["frame"]
        events.update({frame["seq"] + i: e for i, e in enumerate(frame.get("events", []))})
        seq = reply["message"]["seq"] + 1


def open_tasks(world):
    durable = world.json("ask", "--durable", "--detach", "nobody-home", "wait")["id"]
    asker = world.spawn([AMESH, "ask", "many", "hang"], "ask")
    world.hanging += [p for p in world.processes if p.name == "run many"]
    direct = until(lambda: [t["id"] for t in world.json("task", "ls", "--open", "--agent", "many")["tasks"]], "a direct task is open")[0]
    return durable, direct, asker


def check_found_again(world, durable, direct):
    for task in (durable, direct):
        wanted = world.record(task)["eventsCount"]
        until(lambda: len(frames_of(world, task)) >= wanted, f"all of the open task {task} is in the new stream")


def wiped(nats):
    with World(nats) as world:
        world.agent("many")
        world.wait_stream()
        check_whole(world, [call(world.bus, "many", "text before")])
        durable, direct, _ = open_tasks(world)
        check(len(frames_of(world, direct)) > 0, "an observer finds it in the stream")
        world.kill(world.server)
        shutil.rmtree(world.store)
        world.start_server()
        until(lambda: world.said("stream.lost"), "it is noticed that the store is gone")
        world.wait_stream()
        check(world.info()["streamLost"] == 1, "and counted", world.info())
        check_found_again(world, durable, direct)
        world.kill(world.environment)
        calls = many(world, 20)
        world.start_environment()
        check_whole(world, calls)
        check(world.record(durable)["task"]["status"]["state"] == "TASK_STATE_SUBMITTED", "the durable task waits on")
        # Deleted by somebody while all is up.
        Nats(world.bus).request("$JS.API.STREAM.DELETE.AMP_EVT", b"", 5)
        until(lambda: world.info()["streamLost"] == 1, "noticed by the periodic look")
        world.wait_stream()
        check_found_again(world, durable, direct)


def last_seq(world):
    return json.loads(Nats(world.bus).request("$JS.API.STREAM.INFO.AMP_EVT", b"", 5)[3])["state"]["last_seq"]


def rolled_back(nats):
    with World(nats) as world:
        world.agent("many")
        is_in_memory = "memory" in world.wait_stream()["stream"]
        many(world, 5)
        durable, direct, _ = open_tasks(world)
        if is_in_memory:  # such a store has no copies; it is gone with its server
            world.kill(world.environment)
            world.kill(world.server)
            world.start_server()
            world.start_environment()
            check_found_again(world, durable, direct)
            return
        world.kill(world.server)
        old = os.path.join(world.dir, "old")
        shutil.copytree(world.store, old)
        world.start_server()
        world.wait_stream()
        check_whole(world, many(world, 30))
        seq = last_seq(world)
        until(lambda: last_seq(world) > seq + 2, "canaries have gone on, and the mark with them")
        world.kill(world.environment)
        world.kill(world.server)
        shutil.rmtree(world.store)
        shutil.copytree(old, world.store)
        world.start_server()
        calls = until(lambda: many(world, 60), "calls go on")  # so many that the new end is beyond the mark
        world.start_environment()
        until(lambda: world.said("stream.lost"), "noticed, although its last number is beyond the mark")
        check_whole(world, calls)
        check_found_again(world, durable, direct)


def not_there(nats):
    with World(nats, jetstream="# none\n") as world:
        world.agent("many")
        calls = many(world, 10)
        check_whole(world, calls)
        check(world.run("ask", "--durable", "many", "text durable").returncode == 0, "durable tasks work")
        item = world.checked("jetstream")
        check(item["result"] == "warning" and "jetstream { store_dir:" in item["hint"], "check says which line to add", item)
        check("has no JetStream" in world.info()["stream"], "EnvInfo says so", world.info())
        check(len(world.said("stream.off")) == 1, "the log says it once", world.said("stream.off"))
        check(world.run("check").returncode == 0, "it is a warning")


def not_permitted(nats):
    """The environment's user may not use JetStream; and with just what docs/operations.md names it may."""
    with open(os.path.join(HERE, "../../docs/operations.md")) as f:
        text = f.read()
    block = text.split("<!-- environment -->")[1].split("<!-- /environment -->")[0]
    publish = [w for line in block.splitlines() if line.startswith(("publish:", "         ")) for w in line.replace("publish:", "").split()]
    subscribe = [w for line in block.splitlines() if line.startswith("subscribe:") for w in line.replace("subscribe:", "").split()]
    for is_allowed in (False, True):
        allow = publish if is_allowed else [w for w in publish if not w.startswith("$JS")]
        users = (f"authorization {{ users = [ {{user: env, password: e, permissions: {{publish: {json.dumps(allow)}, subscribe: {json.dumps(subscribe)}}}}}, {{user: all, password: a}} ] }}\n"
                 "no_auth_user: all\n")
        with UserWorld(nats, users) as world:
            world.agent("many")
            if is_allowed:
                world.wait_stream()
            calls = many(world, 5)
            check_whole(world, calls)
            world.kill(world.environment)
            calls = many(world, 5)
            world.start_environment()
            if is_allowed:
                check_whole(world, calls)
                check(world.run("ask", "--durable", "many", "text durable").returncode == 0, "durable tasks work")
                check(not [line for p in world.processes for line in p.err if "denied" in line and p.name == "env"], "nothing is denied to it")
            else:
                until(lambda: "ermission" in world.info()["stream"], "EnvInfo says that it is not permitted")
                item = world.checked("stream")
                check(item["result"] == "warning" and "Permissions on the bus" in item["hint"], "check says where to read", item)


class UserWorld(World):
    """Its environment is the user `env`; everybody else may do anything."""

    def __init__(self, nats, users):
        super().__init__(nats, more=users)

    def start_environment(self):
        self.through = f"nats://env:e@127.0.0.1:{self.port}"
        super().start_environment()


def disk_full(nats):
    place = tempfile.mkdtemp(prefix="amf-")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        os.rmdir(place)
        raise Skipped("allowed: no file system can be mounted here: " + mounted.stderr.strip())
    try:
        with World(nats, jetstream=f'jetstream {{ store_dir: "{place}", max_file_store: 1073741824 }}\n') as world:
            world.agent("many")
            is_in_memory = "memory" in world.wait_stream()["stream"]
            many(world, 5)
            filler = os.open(os.path.join(place, "filler"), os.O_WRONLY | os.O_CREAT)
            with contextlib.suppress(OSError):
                while True:
                    os.write(filler, b"x" * 4096)
            os.close(filler)
            if is_in_memory:  # on a server that would hang its publishers
                world.kill(world.environment)
                calls = many(world, 20)
                world.start_environment()
                check_whole(world, calls)
                check(world.run("check").returncode == 0, "a full disk is nothing to it")
                return
            info = until(lambda: (lambda i: i["stream"] not in ("ok", "catching up") and i)(world.info()), "red", 10)
            check(info["streamFailed"], "with a reason", info)
            check(world.run("check").returncode == 3 and world.checked("stream")["result"] == "failed" and "disk" in world.checked("stream")["hint"], "check says it", world.checked("stream"))
            check_whole(world, many(world, 20))
            check(world.run("ask", "--durable", "many", "text durable").returncode == 0, "durable tasks go on")
            os.unlink(os.path.join(place, "filler"))
            check("start nats-server again" in world.checked("stream")["hint"], "the hint says what to do", world.checked("stream"))
            world.kill(world.server)
            world.start_server()
            until(lambda: world.run("check").returncode == 0, "green again")
            check(world.checked("stream")["result"] == "ok", "green again", world.checked("stream"))
            check_whole(world, many(world, 5))
    finally:
        subprocess.run(["umount", "-l", place], capture_output=True)
        os.rmdir(place)


def main():
    debian = shutil.which("nats-server") or "/usr/sbin/nats-server"
    new = os.environ.get("AMESH_TEST_NATS_NEW")
    claims = (("200 direct calls while the environment was killed are in history, whole", environment_killed), ("the same for a partition between it and the bus", partition),
              ("a store that was wiped is noticed, made again, and has the open tasks again", wiped), ("so is one that was rolled back, even with a later end than before", rolled_back),
              ("without JetStream all works, and it is said with the line to add", not_there), ("not permitted: said; permitted what the page names: enough", not_permitted),
              ("a full store turns the canary red, calls and durable tasks go on, and it is green again", disk_full))
    only = sys.argv[1:]
    for name, server in [("Debian's nats-server", debian)] + ([("a current nats-server", new)] if new else []):
        for claim, function in claims:
            if not only or function.__name__ in only:
                tap.run(f"{name}: {claim}", function, server)
    if not new:
        tap.skip("a current nats-server", "it could not be fetched")
    tap.done()


main()
