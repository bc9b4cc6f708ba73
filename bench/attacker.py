#!/usr/bin/env python3
"""Sends what should not be sent, RATE times a second for SECONDS, and says how much it was:
  attacker.py bus URL KIND RATE SECONDS AGENT INSTANCE      KIND: environment, sidecars, control (harmless, to nobody)
  attacker.py lines SOCKET RATE SECONDS                     lines that are no JSON-RPC, on eight connections
  attacker.py requests SOCKET RATE SECONDS                  HTTP that is none, a connection each
  attacker.py drips SOCKET CONNECTIONS SECONDS              so many HTTP clients that send a byte a second and never end"""
import glob
import json
import os
import random
import select
import socket
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests/integration"))
from lib_nats import Nats  # noqa: E402

VARIANTS = 4096
TICK_S = 0.01
CONNECTIONS = 8
PAYLOAD_MAX = 4096
VERBS = ("submit", "get", "list", "history", "watch", "cancel", "answer", "inbox", "agents", "wait", "next", "report", "fork", "retry", "kv", "ping", "zzz")


def seeds(*folders):
    found = []
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(TOP, "tests/fuzz/corpus", folder, "*"))):
            with open(path, "rb") as f:
                found.append(f.read()[:PAYLOAD_MAX])
    return found


def broken(rng, data):
    """One of the ways in which bytes break: cut, doubled, flipped, something foreign put in, a number made huge, all noise."""
    data = bytearray(data or b"{}")
    at = rng.randrange(len(data))
    way = rng.randrange(7)
    if way == 0:
        del data[at:]
    elif way == 1:
        data[at:at] = data[at:at + rng.randrange(1, 64)] * rng.randrange(1, 8)
    elif way == 2:
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == 3:
        data[at:at] = rng.choice((b"\0", b"\xff\xfe", b'"', b"[" * 300, b"{" * 300, b'{"a":', b"\\ud800", b"\r\n", b"\x80" * 20))
    elif way == 4:
        data[at:at] = b"9" * rng.randrange(1, 400)
    elif way == 5:
        data = bytearray(rng.randbytes(rng.randrange(1, 512)))
    else:
        data += data[:at]
    return bytes(data[:PAYLOAD_MAX])


def paced(rate, seconds, send):
    """send(n) so often that it is `rate` a second. → how many"""
    begin = time.monotonic()
    sent = 0
    while (now := time.monotonic()) - begin < seconds:
        due = int((now - begin + TICK_S) * rate) - sent
        if due > 0:
            send(due)
            sent += due
        select.select([], [], [], TICK_S)
    return sent, time.monotonic() - begin


def subjects(kind, agent, instance):
    if kind == "control":
        return ["bench.nobody"]
    if kind == "environment":
        return [*(f"amp.env.{verb}.evil" for verb in VERBS), "amp.evt.c-evil.t-evil", f"amp.hb.{agent}.{instance}", "amp.hb.evil.i-evil"]
    return [f"amp.req.{agent}.evil", f"amp.req.{agent}.{instance}.evil", f"amp.ctl.{instance}.t-evil", f"amp.who.{agent}", "amp.whoall", f"amp.blob.{instance}.evil", "$SRV.PING", f"$SRV.INFO.{agent}"]


def attack_bus(url, kind, rate, seconds, agent, instance):
    rng, nats = random.Random(1), Nats(url)
    nats.sub("_INBOX.evil.*")
    to, corpus = subjects(kind, agent, instance), seeds("envelope", "protobuf", "json_message", "event")
    messages = []
    for i in range(VARIANTS):
        data = b"x" * 128 if kind == "control" else broken(rng, rng.choice(corpus))
        reply = "" if kind == "control" or i % 3 == 0 else f" _INBOX.evil.{i}"
        messages.append(f"PUB {to[i % len(to)]}{reply} {len(data)}\r\n".encode() + data + b"\r\n")
    at = 0

    def send(n):
        nonlocal at
        nats.sock.sendall(b"".join(messages[(at + k) % VARIANTS] for k in range(n)))
        at += n
        while select.select([nats.sock], [], [], 0)[0]:
            if b"PING" in nats.sock.recv(1 << 20):
                nats.sock.sendall(b"PONG\r\n")
    return paced(rate, seconds, send)


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(1)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def push(sock, data):
    """→ False: the other side has closed"""
    try:
        while sock.recv(1 << 16):
            pass
        return False
    except BlockingIOError:
        pass
    except OSError:
        return False
    try:
        sock.send(data)
    except BlockingIOError:
        pass  # it does not read for now
    except OSError:
        return False
    return True


def attack_lines(path, rate, seconds):
    rng, corpus = random.Random(2), seeds("session", "client")
    lines = [broken(rng, rng.choice(corpus)).replace(b"\n", b" ") + b"\n" for _ in range(VARIANTS)]
    socks, at = [None] * CONNECTIONS, 0

    def send(n):
        nonlocal at
        each = max(1, n // CONNECTIONS)
        for k in range(CONNECTIONS):
            socks[k] = socks[k] or connect(path)
            if socks[k] and not push(socks[k], b"".join(lines[(at + i) % VARIANTS] for i in range(each))):
                socks[k].close()
                socks[k] = None
            at += each
    return paced(rate, seconds, send)


def attack_requests(path, rate, seconds):
    rng, corpus = random.Random(3), seeds("http_first_byte") + [b"POST /v1/send/x HTTP/1.1\r\nHost: mesh\r\nContent-Length: 5\r\n\r\nhello", b"GET /v1/agents HTTP/1.1\r\nHost: mesh\r\n\r\n"]
    requests = [broken(rng, rng.choice(corpus)) for _ in range(VARIANTS)]
    at = 0

    def send(n):
        nonlocal at
        for _ in range(n):
            sock = connect(path)
            if sock:
                push(sock, requests[at % VARIANTS])
                sock.close()
            at += 1
    return paced(rate, seconds, send)


def attack_drips(path, count, seconds):
    head = b"POST /v1/send/steady HTTP/1.1\r\nHost: mesh\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n" + b"x" * 10000
    socks, sent, begin, at = [None] * count, 0, time.monotonic(), 0
    positions = [0] * count
    while time.monotonic() - begin < seconds:
        for _ in range(max(1, count // 100)):  # each once a second
            k = at % count
            at += 1
            if socks[k] is None:
                socks[k], positions[k] = connect(path), 0
            if socks[k] and push(socks[k], head[positions[k]:positions[k] + 1]):
                positions[k] += 1
                sent += 1
            elif socks[k]:
                socks[k].close()
                socks[k] = None
        select.select([], [], [], TICK_S)
    return sent, time.monotonic() - begin


def main():
    kind, args = sys.argv[1], sys.argv[2:]
    if kind == "bus":
        sent, took = attack_bus(args[0], args[1], int(args[2]), float(args[3]), args[4], args[5])
    else:
        sent, took = {"lines": attack_lines, "requests": attack_requests, "drips": attack_drips}[kind](args[0], int(args[1]), float(args[2]))
    print(json.dumps({"sent": sent, "per_s": sent / took}))


main()
