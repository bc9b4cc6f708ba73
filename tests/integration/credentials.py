#!/usr/bin/env python3
"""A bus with users, tokens, permissions and TLS: who may in is in, who may not is told at once why, and never by a timeout."""
import base64
import binascii
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
import meshtest  # noqa: E402
from lib_nats import Nats, waiting_calls  # noqa: E402
from meshtest import AMESH, TOP, Process, Tap, check, free_port, until  # noqa: E402

tap = Tap()
NATS = shutil.which("nats-server") or "/usr/sbin/nats-server"


class Bus:
    """nats-server with a configuration of the test's, and amesh as one of its users."""

    def __init__(self, conf):
        self.dir = tempfile.mkdtemp(prefix="amc-")
        self.port = free_port()
        with open(os.path.join(self.dir, "nats.conf"), "w") as f:
            f.write(f"listen: \"127.0.0.1:{self.port}\"\n" + conf(self.dir))
        self.server = Process([NATS, "-c", os.path.join(self.dir, "nats.conf")], dict(os.environ), "nats-server")
        self.server.wait_line(lambda line: "Server is ready" in line, stream="err")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AMESH_")}
        self.env.update(AMESH_HOME=os.path.join(self.dir, "home"), NO_COLOR="1")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def environment(self, who, scheme="nats", **more):
        return dict(self.env, AMESH_BUS=f"{scheme}://{who}localhost:{self.port}", **more)

    def amesh(self, who, *args, scheme="nats", **more):
        return subprocess.run([AMESH, *args], env=self.environment(who, scheme, **more), capture_output=True, text=True, timeout=30)

    def agent(self, who, name, scheme="nats", options=(), **more):
        process = Process([AMESH, "run", "--name", name, *options, "--", "tr", "a-z", "A-Z"], self.environment(who, scheme, **more), "run " + name)
        process.wait_line("ready ")
        return process


def users(directory):
    return """authorization { users = [
      {user: all, password: secret}
      {user: mute, password: secret, permissions: {publish: ["none"], subscribe: [">"]}}
      {user: deaf, password: secret, permissions: {publish: [">"], subscribe: ["none"]}}
      {user: plain, password: secret, permissions: {publish: [">"], subscribe: {allow: [">"], deny: ["amp.blob.>"]}}}
      {user: other, password: secret, permissions: {publish: [">"], subscribe: {allow: [">"], deny: ["amp.req.boss.>"]}}}
    ] }\n"""


def with_users():
    with Bus(users) as bus:
        agent = bus.agent("all:secret@", "up")
        r = bus.amesh("all:secret@", "ask", "up", "hello")
        check(r.returncode == 0 and r.stdout.strip() == "HELLO", "user and password in the URL", r)
        r = bus.amesh("all:wrong@", "ask", "up", "hello")
        check(r.returncode == 7 and "Authorization Violation" in r.stderr and "wrong" not in r.stderr, "a wrong password is said, without saying it", r.stderr)
        for args in (["ask", "up", "hello"], ["ask", "--durable", "up", "hello"], ["ls"]):
            r = bus.amesh("mute:secret@", *args)
            check(r.returncode == 5 and "AMESH-2006" in r.stderr, f"{args}: publishing is not permitted", r.stderr)
            r = bus.amesh("deaf:secret@", *args)
            check(r.returncode == 5 and "AMESH-2006" in r.stderr, f"{args}: the answer could not come", r.stderr)
        large = os.path.join(bus.dir, "large")
        with open(large, "wb") as f:
            f.write(bytes(300 << 10))
        r = bus.amesh("plain:secret@", "ask", "up", "x", "--file", large)
        check(r.returncode == 5 and "AMESH-2006" in r.stderr and "to amp.blob.*.*" in r.stderr, "a file that nobody could read", r.stderr)
        check(bus.amesh("plain:secret@", "ask", "up", "x", "--file", __file__).returncode == 0, "a small one needs no permission")
        r = bus.amesh("other:secret@", "run", "--name", "boss", "--", "cat")
        check(r.returncode == 5 and "AMESH-2006" in r.stderr and "amp.req.boss" in r.stderr, "an agent under a name that is not its own", r.stderr)
        agent.stop()
        check(not any("secret" in line for line in agent.err), "no password in the log", agent.err)


def tls(directory):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], cwd=directory, check=True, capture_output=True)
    return f'tls {{ cert_file: "{directory}/cert.pem", key_file: "{directory}/key.pem" }}\nauthorization {{ token: "t0ken" }}\n'


def with_tls():
    with Bus(tls) as bus:
        trust = {"SSL_CERT_FILE": os.path.join(bus.dir, "cert.pem")}
        agent = bus.agent("t0ken@", "up", "tls", **trust)
        r = bus.amesh("t0ken@", "ask", "up", "x", scheme="tls", **trust)
        check(r.returncode == 0 and r.stdout.strip() == "X", "TLS and a token in the URL", r)
        r = bus.amesh("t0ken@", "ask", "up", "x", scheme="tls")
        check(r.returncode == 7 and "certificate" in r.stderr, "a certificate that nobody vouches for", r.stderr)
        r = bus.amesh("bad@", "ask", "up", "x", scheme="tls", **trust)
        check(r.returncode == 7 and "Authorization Violation" in r.stderr, "a wrong token", r.stderr)
        r = bus.amesh("t0ken@", "ask", "up", "x", AMESH_CREDS="/no/such/file", scheme="tls", **trust)
        check(r.returncode != 0 and "/no/such/file" in r.stderr, "credentials that are not there are named", r.stderr)
        agent.stop()


class Signer:
    """An nkey: what `nsc` makes. Prefix, 32 bytes, CRC-16, in base32."""
    KINDS = {"O": 14 << 3, "A": 0, "U": 20 << 3}

    def __init__(self, kind):
        self.key, self.prefix = Ed25519PrivateKey.generate(), self.KINDS[kind]
        self.public = self.encode(bytes([self.prefix]), self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        secret = self.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self.seed = self.encode(bytes([18 << 3 | self.prefix >> 5, (self.prefix & 31) << 3]), secret)

    @staticmethod
    def encode(prefix, data):
        raw = prefix + data
        return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")

    def jwt(self, subject, name, nats):
        def part(document):
            return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
        claims = {"jti": name, "iat": 1700000000, "iss": self.public, "name": name, "sub": subject.public, "nats": dict(nats, version=2)}
        body = part({"typ": "JWT", "alg": "ed25519-nkey"}) + "." + part(claims)
        return body + "." + base64.urlsafe_b64encode(self.key.sign(body.encode())).decode().rstrip("=")


def creds_file(path, account, pub=None):
    user = Signer("U")
    jwt = account.jwt(user, "somebody", {"type": "user", "pub": pub or {}, "sub": {}, "subs": -1, "data": -1, "payload": -1})
    with open(path, "w") as f:
        f.write(f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
                f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n")
    os.chmod(path, 0o600)
    return path, user.seed


def with_creds():
    operator, account, stranger = Signer("O"), Signer("A"), Signer("A")
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    own = operator.jwt(operator, "operator", {"type": "operator"})
    acc = operator.jwt(account, "agents", {"type": "account", "limits": limits, "default_permissions": {"pub": {}, "sub": {}}})
    with Bus(lambda _: f'operator: "{own}"\nresolver: MEMORY\nresolver_preload {{ {account.public}: "{acc}" }}\n') as bus:
        good, seed = creds_file(os.path.join(bus.dir, "good.creds"), account)
        mute, _ = creds_file(os.path.join(bus.dir, "mute.creds"), account, {"allow": ["_INBOX_nothing"]})
        bad, bad_seed = creds_file(os.path.join(bus.dir, "bad.creds"), stranger)
        half = os.path.join(bus.dir, "half.creds")
        with open(good) as f, open(half, "w") as g:
            g.write(f.read().split("-----BEGIN USER NKEY SEED")[0])
        agent = bus.agent("", "up", AMESH_CREDS=good)
        r = bus.amesh("", "ask", "up", "x", AMESH_CREDS=good)
        check(r.returncode == 0 and r.stdout.strip() == "X", "in with a credentials file", r)
        r = bus.amesh("", "ask", "up", "x", AMESH_CREDS=mute)
        check(r.returncode == 5 and "AMESH-2006" in r.stderr, "its permissions hold", r)
        said = []
        for why, args in (("without credentials", {}), ("another account's", {"AMESH_CREDS": bad}), ("half a file", {"AMESH_CREDS": half})):
            r = bus.amesh("", "ask", "up", "x", **args)
            check(r.returncode == 7 and "AMESH-4001" in r.stderr, why, r)
            said.append(r.stderr)
        with open(f"/proc/{agent.child.pid}/cmdline") as f:
            said.append(f.read())
        agent.stop()
        check(not any(s in text for text in said + agent.err for s in (seed, bad_seed)), "no seed is shown", said)


# ---- the lists of docs/operations.md, as they stand -----------------------------------------------------------------

AGENT = """
import os, sys, threading
text = sys.stdin.read().strip()
if text.startswith("gate "):
    open(text[5:]).close()
print("did", text, "by", os.getppid())
"""


def lists():
    """→ {role: (publish, subscribe)} from the page."""
    with open(os.path.join(TOP, "docs/operations.md"), encoding="utf-8") as f:
        page = f.read()
    found = {}
    for role in ("agent", "caller", "environment"):
        block = page.split(f"<!-- {role} -->")[1].split(f"<!-- /{role} -->")[0].strip().strip("`")
        publish, subscribe = block.split("subscribe:")
        found[role] = publish.split("publish:")[1].split(), subscribe.split()
    return found


class Permitted(meshtest.Bus):
    """Every part has the permissions that the page gives it. `planner` with `plan`, and `cli-ann`, are the page's own; others are put in their place. `all` is for looking on."""
    USERS = {"env": ("environment", "env", ""), "planner": ("agent", "planner", "plan"), "writer": ("agent", "writer", "write"), "asker": ("agent", "asker", "ask"),
             "ann": ("caller", "cli-ann", ""), "bob": ("caller", "cli-bob", "")}

    def start_server(self):
        found, users = lists(), ["{user: all, password: x}"]
        for user, (role, name, skill) in self.USERS.items():
            instead = {"planner": name, "plan": skill} if role == "agent" else {"cli-ann": name}
            publish, subscribe = ([".".join(instead.get(token, token) for token in subject.split(".")) for subject in subjects] for subjects in found[role])
            users.append(f"{{user: {user}, password: x, permissions: {{publish: {{allow: {json.dumps(publish)}}}, subscribe: {{allow: {json.dumps(subscribe)}}}}}}}")
        conf = os.path.join(self.home, "test.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self.home}/js" }}\nauthorization {{ users: [ {", ".join(users)} ] }}\n')
        self.server = Process([self.env["AMESH_NATS_SERVER"], "-c", conf], self.env, "nats-server")
        self.processes.append(self.server)
        self.server.wait_line(lambda line: "Server is ready" in line, stream="err")

    def url(self, user):
        return f"nats://{user}:x@127.0.0.1:{self.port}"

    def be(self, user):
        return dict(self.env, AMESH_BUS=self.url(user), USER=user)

    def start_env(self, *options, **how):
        super().start_env(*options, **dict(how, env=self.be("env")))

    def instance(self, name, *program):
        return self.agent(name, "--retry", "safe", "--skill", self.USERS[name][2], *(program or ("--", sys.executable, "-c", AGENT)), env=self.be(name))

    def ann(self, *args, user="ann"):
        return self.run(*args, env=self.be(user))

    def ask(self, *args):
        """In the background."""
        return self.spawn("ask", *args, env=self.be("ann"))

    def answered(self, process, text):
        check(process.wait() == 0 and text in " ".join(process.out), text, process.out, process.err)

    def gate(self, name):
        path = os.path.join(self.home, name)
        os.mkfifo(path)
        return path


def permitted(nats, function):
    with Permitted(nats) as mesh:
        function(mesh)
        violations = [line for line in mesh.server.err if "Violation" in line]
        check(not violations, "nothing was asked for that is not permitted", *violations[:10])


def children(process):
    with open(f"/proc/{process.child.pid}/task/{process.child.pid}/children", encoding="ascii") as f:
        return [int(child) for child in f.read().split()]


def calls(mesh):
    mesh.instance("planner")
    for how in (("planner",), ("--skill", "plan"), ("--durable", "planner"), ("--durable", "--skill", "plan")):
        check("did it" in mesh.ann("ask", *how, "it").ok().out, f"{how}")
    lines = mesh.ann("ask", "--events", "planner", "stream").ok().lines()
    check(any("artifactUpdate" in line for line in lines) and [line["seq"] for line in lines] == list(range(1, len(lines) + 1)), "a stream, whole", lines)
    r = mesh.ann("ask", "nobody", "x")
    check(r.status == 4 and "AMESH-2001" in r.err, "no responders come to its inbox", r.err)
    mesh.instance("writer", "--", "sh", "-c", 'amesh ask planner "$(cat)"')
    check("did handed on" in mesh.ann("ask", "writer", "handed on").ok().out, "an agent calls another one under its own name")


def views(mesh):
    mesh.instance("planner")
    check("planner" in mesh.ann("ls").ok().out and "planner" in mesh.ann("show", "planner").ok().out, "ls and show")
    task = mesh.ann("ask", "--detach", "planner", "watched").ok().out.strip()
    lines = mesh.ann("task", "watch", task, "--json").ok().lines()
    check(lines[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED", "watched to its end", lines)
    for args in (("task", "show", task), ("explain", task), ("task", "ls")):
        check(task in mesh.ann(*args).ok().out, f"{args}")


def kept(mesh):
    mesh.instance("planner")
    def say(text):
        lines = mesh.ann("ask", "--events", "planner", text).ok().lines()
        return next(line["statusUpdate"]["taskId"] for line in lines if "statusUpdate" in line)
    until(lambda: [c for c in mesh.ann("check", "--json", user="all").json()["checks"] if c["name"] == "stream" and c["result"] == "ok"], "the stream works")
    told = [say("heard")]
    mesh.kill_env()
    told.append(say("unheard"))
    mesh.start_env()
    for task in told:
        shown = mesh.ann("task", "show", task, "--json").ok().json()
        check(shown["status"]["state"] == "TASK_STATE_COMPLETED" and not shown["metadata"].get("amp/incomplete"), "in history, whole", shown)


def questions(mesh):
    mesh.env["ASKED_LOG"] = os.path.join(mesh.home, "asked.log")
    mesh.instance("asker", os.path.join(HERE, "../support/asker.py") + ":agent")
    task = mesh.ann("ask", "--detach", "asker", "one").ok().out.strip()
    until(lambda: task in mesh.ann("inbox", "--json").ok().out, "the question is in the inbox")
    mesh.ann("answer", task, "so", user="bob").ok()
    until(lambda: "said so" in mesh.ann("task", "show", task).ok().out, "answered by another caller")
    r = mesh.ann("ask", "asker", "one")
    check(r.status == 9, "a direct call asks", r.err)
    check("said directly" in mesh.ann("ask", "--task", r.err.split("--task", 1)[1].split()[0], "directly").ok().out, "and is answered")


def files(mesh):
    mesh.instance("planner", "--", "sh", "-c", 'for f in "$AMESH_IN"/*; do cat "$f" > "$AMESH_OUT/copy"; done; cat')
    given = os.path.join(mesh.home, "given")
    with open(given, "wb") as f:
        f.write(os.urandom(5 << 20))  # more than one message holds
    for n, how in enumerate(((), ("--durable",))):
        out = os.path.join(mesh.home, f"out{n}")
        mesh.ann("ask", *how, "--file", given, "--output", out, "planner", "copy it").ok()
        with open(given, "rb") as f, open(os.path.join(out, os.listdir(out)[0]), "rb") as g:
            check(f.read() == g.read(), f"{how}: there and back")


def failover(mesh):
    for how in ((), ("--durable",)):
        first, gate = mesh.instance("planner"), mesh.gate(f"gate{len(how)}")
        call = mesh.ask(*how, "planner", "gate " + gate)
        until(lambda at=first: children(at), "one works on it")
        second, left = mesh.instance("planner"), children(first)
        first.signal(signal.SIGKILL)
        for child in left:
            os.kill(child, signal.SIGKILL)
        until(lambda at=second: children(at), "the other one works on it")
        open(gate, "w").close()
        mesh.answered(call, f"by {second.child.pid}")
        second.stop()


def turns(mesh):
    mesh.instance("planner")
    gate, looker = mesh.gate("gate"), Nats(mesh.url("all"))
    waiting = [mesh.ask("planner", f"gate {gate}") for _ in range(3)]
    until(lambda: waiting_calls(looker) == 2, "two wait for their turn")
    for n in (1, 0, 0):
        open(gate, "w").close()
        until(lambda n=n: waiting_calls(looker) == n, "the next one has its turn")
    for call in waiting:
        mesh.answered(call, "did gate")


def frame(task, context, instance, seq, text, attempt=1, **more):
    events = [{"artifactUpdate": {"taskId": task, "contextId": context, "artifact": {"artifactId": "response", "parts": [{"text": text}]}, "lastChunk": True}},
              {"statusUpdate": {"taskId": task, "contextId": context, "status": {"state": "TASK_STATE_COMPLETED"}}}]
    return json.dumps({"version": 1, "from": "writer", "frame": {"taskId": task, "contextId": context, "agent": "planner", "instance": instance, "attempt": attempt, "seq": seq,
                                                                 "events": [{"time": "2026-11-29T00:00:00Z", "body": body} for body in events], "end": {"count": seq + 1}, **more}}).encode()


def forged(mesh):
    """What docs/security.md says of who may publish amp.evt.>: which records hold, and which do not."""
    planner, writer = mesh.instance("planner"), Nats(mesh.url("writer"))

    def say(task, context, *what, **more):
        for attempt in (1, 2, 4294967295):
            writer.pub(f"amp.evt.{context}.{task}", frame(task, context, *what, attempt=attempt, **more))
        writer.flush()
        mesh.ann("ls").ok()  # it has been read

    def texts(task):
        shown = mesh.ann("task", "show", task, "--json").ok().json()
        return [p.get("text", "").split(" by ")[0] for a in shown.get("artifacts", []) for p in a["parts"]], shown

    for how in ((), ("--durable",)):
        gate = mesh.gate(f"gate{len(how)}")
        call = mesh.ask("--events", *how, "planner", f"gate {gate}")
        working = json.loads(call.wait_line(lambda line: "WORKING" in line))["statusUpdate"]
        task, context = working["taskId"], working["contextId"]
        say(task, context, "i-other", 1, "A LIE")  # another instance; of a call that may be tried again it would be believed with a higher attempt
        if how:
            for seq in range(1, 8):
                say(task, context, planner.instance, seq, "A LIE")
            check(texts(task)[1]["status"]["state"] == "TASK_STATE_WORKING", "a durable task is not touched", texts(task))
        open(gate, "w").close()
        check(call.wait() == 0 and "A LIE" not in " ".join(call.out) and "did gate" in " ".join(call.out), "its caller gets what the agent said", call.out)
        if how:
            ended = until(lambda task=task: (lambda t: t[1]["status"]["state"] == "TASK_STATE_COMPLETED" and t)(texts(task)), "it ends")
            say(task, context, planner.instance, 1, "A LIE")
            check(texts(task)[0] == ended[0] == [f"did gate {gate}"], "nor when it has ended", ended)
    lines = mesh.ann("ask", "--events", "planner", "the truth").ok().lines()
    task, context = next((line["statusUpdate"]["taskId"], line["statusUpdate"]["contextId"]) for line in lines if "statusUpdate" in line)
    before = until(lambda: (lambda t: t[1]["status"]["state"] == "TASK_STATE_COMPLETED" and t)(texts(task)), "it is kept")
    for seq in (1, len(lines) + 1):
        say(task, context, planner.instance, seq, "A LIE")
    check(texts(task)[0] == before[0] == ["did the truth"], "a direct call that has ended is not touched", texts(task))
    say("t-made-up", "c-made-up", "i-nobody", 1, "A LIE")
    check(texts("t-made-up")[0] == ["A LIE"], "but a call can be made up: the page says so")


REFUSED = {  # by user: what it may not subscribe to, where it may not publish
    "planner": (("amp.req.writer.>", "amp.req.*.*", "amp.skill.write.*", "amp.skill.>", "amp.env.*.*", "amp.hb.*.*", "amp.evt.>", "amp.fence.env", "_INBOX.>", "_INBOX.*.>", "_INBOX.writer.>", "_INBOX.cli-ann.>", "_INBOX.env.>", "$SRV.>", "$JS.>", ">"),
                ("amp.req.writer.writer", "amp.req.writer.cli-ann", "amp.req.writer.i-1.env", "amp.skill.write.writer", "amp.env.submit.cli-ann", "amp.env.submit.env", "amp.hb.writer.i-1", "amp.blob.i-1.writer", "amp.fence.env", "amp.canary.env", "amp.whoall", "$JS.API.STREAM.DELETE.AMP_EVT")),
    "ann": (("amp.req.>", "amp.req.planner.*", "amp.skill.>", "amp.ctl.*.*", "amp.env.*.*", "amp.hb.*.*", "amp.evt.*.*", "amp.fence.env", "_INBOX.>", "_INBOX.cli-bob.>", "_INBOX.planner.>", "_INBOX.env.>", ">"),
            ("amp.req.planner.cli-bob", "amp.req.planner.env", "amp.skill.plan.cli-bob", "amp.env.submit.cli-bob", "amp.env.submit.planner", "amp.hb.planner.i-1", "amp.evt.c-1.t-1", "amp.blob.i-1.env", "amp.fence.env", "amp.whoall", "$JS.API.STREAM.DELETE.AMP_EVT")),
    "env": (("amp.req.>", "amp.ctl.*.*", "amp.skill.>", "amp.blob.*.*", "_INBOX.>", "_INBOX.planner.>", "_INBOX.cli-ann.>", ">"),
            ("amp.req.planner.cli-ann", "amp.env.submit.cli-ann", "amp.hb.planner.i-1", "amp.blob.i-1.planner", "$JS.API.STREAM.DELETE.AMP_EVT", "$JS.API.STREAM.CREATE.OTHER")),
}


def refused(nats):
    with Permitted(nats) as mesh:
        for user, (subscribe, publish) in REFUSED.items():
            for kind, subjects in (("Subscription", subscribe), ("Publish", publish)):
                for subject in subjects:
                    peer = Nats(mesh.url(user))
                    if kind == "Publish":
                        peer.pub(subject, b"x")
                    else:
                        peer.sub(subject)
                    peer.flush()
                    check(any("Permissions Violation for " + kind in e for e in peer.errors), f"{user}: {kind} to {subject} is refused", peer.errors)
                    peer.sock.close()
        for args, subject in ((("tap",), "amp.evt"), (("ls", "--watch"), "amp.hb")):
            r = mesh.ann(*args)
            check(r.status == 5 and "AMESH-2006" in r.err and subject in r.err, f"{args} says that it would see nothing", r)
        r = mesh.run("run", "--name", "writer", "--", "cat", env=mesh.be("planner"))
        check(r.status == 5 and "AMESH-2006" in r.err and "amp.req.writer" in r.err, "an agent under another's name", r.err)
        r = mesh.run("ask", "planner", "x", env=dict(mesh.be("bob"), USER="ann"))
        check(r.status == 5 and "AMESH-2006" in r.err, "a caller under another's name", r.err)


def two_of_a_name():
    """Users with agents of one name: what AMESH_INBOX is for."""
    found = lists()["agent"]
    own = [[s.replace("_INBOX.planner.>", f"_INBOX.planner-{n}.>") for s in found[1]] for n in (1, 2)]
    with Bus(lambda _: "authorization { users = [ " + ", ".join(f"{{user: p{n}, password: x, permissions: {{publish: {json.dumps(found[0])}, subscribe: {json.dumps(own[n - 1])}}}}}" for n in (1, 2)) + " ] }\n") as bus:
        agents = [bus.agent(f"p{n}:x@", "planner", options=("--skill", "plan"), AMESH_INBOX=f"_INBOX.planner-{n}") for n in (1, 2)]
        r = bus.amesh("p1:x@", "ask", "planner", "x", AMESH_AGENT="planner", AMESH_INBOX="_INBOX.planner-1")
        check(r.returncode == 0 and r.stdout.strip() == "X", "its own prefix", r)
        r = bus.amesh("p1:x@", "ask", "planner", "x", AMESH_AGENT="planner", AMESH_INBOX="_INBOX.planner-2")
        check(r.returncode == 5 and "AMESH-2006" in r.stderr and "_INBOX.planner-2" in r.stderr, "another's prefix", r.stderr)
        r = bus.amesh("p1:x@", "ask", "planner", "x", AMESH_INBOX="amp.evt")
        check(r.returncode == 2 and "AMESH_INBOX" in r.stderr and "amp.evt" in r.stderr, "no prefix of inboxes", r.stderr)
        for agent in agents:
            agent.stop()


tap.run("users and permissions: in, or told at once", with_users)
tap.run("credentials files of an operator's account: in, or told at once", with_creds)
tap.run("TLS and tokens: in, or told at once", with_tls)
for server_name, server in [("Debian's nats-server", NATS)] + ([("a current nats-server", os.environ["AMESH_TEST_NATS_NEW"])] if os.environ.get("AMESH_TEST_NATS_NEW") else []):
    for claim, claimed in (("direct, durable, by skill, streams, an agent's own calls", calls), ("ls, show, watch, explain", views), ("direct calls are kept while the environment is away", kept), ("questions and answers", questions),
                           ("files, direct and durable", files), ("another instance takes over", failover), ("turns", turns), ("forged events", forged)):
        tap.run(f"{server_name}, the lists of the page: {claim}", permitted, server, claimed)
    tap.run(f"{server_name}, the lists of the page: nobody may be somebody else, or read what is another's", refused, server)
tap.run("two users with agents of one name, each with its own prefix of inboxes", two_of_a_name)
tap.done()
