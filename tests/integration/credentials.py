#!/usr/bin/env python3
"""A bus with users, tokens, permissions and TLS: who may in is in, who may not is told at once why, and never by a timeout."""
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from meshtest import AMESH, Process, Tap, check, free_port  # noqa: E402

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

    def agent(self, who, name, scheme="nats", **more):
        process = Process([AMESH, "run", "--name", name, "--", "tr", "a-z", "A-Z"], self.environment(who, scheme, **more), "run " + name)
        process.wait_line("ready ")
        return process


def users(directory):
    return """authorization { users = [
      {user: all, password: secret}
      {user: mute, password: secret, permissions: {publish: ["none"], subscribe: [">"]}}
      {user: deaf, password: secret, permissions: {publish: [">"], subscribe: ["none"]}}
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


tap.run("users and permissions: in, or told at once", with_users)
tap.run("TLS and tokens: in, or told at once", with_tls)
tap.done()
