#!/usr/bin/env python3
"""A bus with users, tokens, permissions and TLS: who may in is in, who may not is told at once why, and never by a timeout."""
import base64
import binascii
import json
import os
import shutil
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

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


tap.run("users and permissions: in, or told at once", with_users)
tap.run("credentials files of an operator's account: in, or told at once", with_creds)
tap.run("TLS and tokens: in, or told at once", with_tls)
tap.done()
