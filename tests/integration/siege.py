#!/usr/bin/env python3
"""An attacker, or bad luck, on the host itself: the local socket, the home, files that are none, few descriptors, processes that stand still."""
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from meshtest import AMESH, DEADLINE, Mesh, Tap, check, until  # noqa: E402

tap = Tap()


def steady_lives(mesh):
    check(mesh.run("ask", "--timeout", "20s", "steady", "still here?").ok().out == "still here?", "the agent answers")


def dial(mesh):
    s = socket.socket(socket.AF_UNIX)
    s.connect(mesh.sock)
    s.settimeout(DEADLINE)
    return s


def read_all(s):
    out = b""
    try:
        while piece := s.recv(65536):
            out += piece
    except ConnectionError:
        pass
    return out


def http(mesh, raw, ends=False):
    """→ what is answered to these bytes until the end, "" if the connection is just closed"""
    s = dial(mesh)
    try:
        s.sendall(raw)
        if ends:
            s.shutdown(socket.SHUT_WR)
    except ConnectionError:
        pass
    out = read_all(s)
    s.close()
    return out.decode("latin-1")


def descriptors(mesh):
    return len(os.listdir(f"/proc/{mesh.steady.child.pid}/fd"))


# ---- the local socket ------------------------------------------------------------------------------------------------------


def crowd(mesh):
    """Everybody who is connected says nothing, or half of something."""
    before = descriptors(mesh)
    beginnings = [b"", b'{"jsonrpc"', b"GET /v1/health HT", b"POST /v1/send/steady HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf"]
    idle = [dial(mesh) for _ in range(400)]
    for i, s in enumerate(idle):
        try:
            s.sendall(beginnings[i % len(beginnings)])
        except ConnectionError:
            pass  # refused: there are too many
    steady_lives(mesh)
    told = 0
    for s in idle:
        ready, _, _ = select.select([s], [], [], 0)
        told += bool(ready and b"too many connections" in s.recv(4096))
    check(told > 0, "those above the limit are told")
    for s in idle:
        s.close()
    until(lambda: descriptors(mesh) <= before + 1, "their descriptors are given back")
    check('"state":"up"' in http(mesh, b"GET /v1/health HTTP/1.0\r\n\r\n"), "and the next one is served")


def http_tricks(mesh):
    line = "GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    post = "POST /v1/send/steady HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    refused = {
        "a length of letters": post + "Content-Length: ten\r\n\r\nx",
        "a length below zero": post + "Content-Length: -1\r\n\r\nx",
        "a length that no number holds": post + "Content-Length: 99999999999999999999\r\n\r\nx",
        "a length above the limit": post + f"Content-Length: {(1 << 20) + 1}\r\n\r\nx",
        "two lengths": post + "Content-Length: 1\r\nContent-Length: 30\r\n\r\nx",
        "a length and chunks": post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "a chunk larger than all": post + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nx",
        "a chunk of letters": post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\nx\r\n",
        "chunks above the limit": post + "Transfer-Encoding: chunked\r\n\r\n" + ("10000\r\n" + "x" * 65536 + "\r\n") * 17 + "0\r\n\r\n",
        "one long header": line + "X: " + "x" * 70000 + "\r\n\r\n",
        "many headers": line + "".join(f"X{i}: y\r\n" for i in range(10000)) + "\r\n",
        "a long line": "GET /v1/" + "x" * 70000 + " HTTP/1.1\r\n\r\n",
        "a path upwards": line.replace("/v1/health", "/v1/../../etc/passwd") + "\r\n",
        "a NUL in a key": line.replace("/v1/health", "/v1/kv/shared/%00") + "\r\n",
        "bytes that are no text in a key": line.replace("/v1/health", "/v1/kv/shared/%ff%fe") + "\r\n",
        "half a percent": line.replace("/v1/health", "/v1/kv/shared/%f") + "\r\n",
        "somebody else's URL": line.replace("/v1/health", "http://example.com/") + "\r\n",
        "a tunnel": "CONNECT example.com:443 HTTP/1.1\r\nConnection: close\r\n\r\n",
        "a method of nobody": line.replace("GET", "BREW") + "\r\n",
        "a wait that is none": line.replace("/v1/health", "/v1/work?wait=NaN") + "\r\n",
        "a wait below zero": line.replace("/v1/health", "/v1/work?wait=-1") + "\r\n",
        "a wait that no number holds": line.replace("/v1/health", "/v1/work?wait=99999999999999999999") + "\r\n",
        "a task with a name that is none": post.replace("/v1/send/steady", "/v1/tasks/..%2f..%2fx/result") + "Content-Length: 1\r\n\r\nx",
        "an agent with wildcards": post.replace("/v1/send/steady", "/v1/send/*.>") + "Content-Length: 1\r\n\r\nx",
    }
    for what, raw in refused.items():
        answer = http(mesh, raw.encode("latin-1"), ends=True)
        status = answer.split(" ", 2)[1] if answer else "closed"
        check(status == "closed" or status[0] in "45", what + " is refused", status, answer[:300])
        check("root:" not in answer, what + " shows nothing of the host", answer[:300])
    smuggled = (post.replace("Connection: close\r\n", "") + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + line + "\r\n").encode()
    check(http(mesh, smuggled, ends=True).count("HTTP/1.") <= 1, "no second request in the body of the first")
    many = http(mesh, b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n" * 200 + (line + "\r\n").encode())
    check(many.count('"state":"up"') == 201, "two hundred requests in one go are answered", many.count('"state":"up"'))
    steady_lives(mesh)


def never_reads(mesh):
    """It asks and asks and takes no answer: it is held back or closed, not collected for."""
    ask = b'{"jsonrpc":"2.0","id":1,"method":"kv.list","params":{"scope":"shared","prefix":"' + b"p" * 200 + b'"}}\n'
    get = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
    for what, piece in (("JSON-RPC", ask * 500), ("HTTP", get * 2000)):
        s, sent, limit = dial(mesh), 0, 256 << 20
        s.setblocking(False)
        try:
            while sent < limit and select.select([], [s], [], 3)[1]:
                sent += s.send(piece)
        except ConnectionError:
            pass
        check(sent < limit, f"{what}: who does not read is not read from for ever", sent)
        steady_lives(mesh)
        s.close()


def worker_tricks(mesh):
    """Results for tasks of others, twice, for nobody; ids of every JSON type; lines that end in the middle."""
    s = dial(mesh)
    f = s.makefile("rwb")
    deep = []
    for _ in range(200):
        deep = [deep]
    lines = [
        {"jsonrpc": "2.0", "id": i, "method": m, "params": p}
        for i, (m, p) in enumerate([("task.complete", {"taskId": "t-nobody"}), ("task.emit", {"taskId": "t-nobody", "text": "x"}), ("task.fail", {"taskId": ["x"]}), ("hello", {"role": "king"}),
                                    ("hello", {"card": "x" * 1000}), ("send", {"agent": "steady", "text": 7}), ("send", {"agent": {"a": 1}, "text": "x"}), ("kv.put", {"scope": "shared", "key": "a" * 300, "value": 1}), ("__proto__", {}),
                                    ("kv.put", {"key": "k", "value": deep}), ("kv.put", {"key": "k", "value": [0] * 5000}), ("send", {"to": "steady", "text": "a\0b"}), ("kv.put", {"key": "k", "value": 10 ** 400})])]
    for line in lines:
        f.write(json.dumps(line).encode() + b"\n")
    f.flush()
    for line in lines:
        answer = json.loads(f.readline())
        check("error" in answer and answer["error"]["message"] and answer["id"] == line["id"], f"{line['method']} {str(line['params'])[:60]} is refused with words, under its id", answer)
    for ident in ("true", "[1]", '{"a":1}', "1e400", "-0.5", '"' + "i" * 5000 + '"'):
        f.write(b'{"jsonrpc":"2.0","id":%s,"method":"nothing"}\n' % ident.encode())
    f.write(b'{"jsonrpc":"2.0","id":"end","method":"nothing"}\n')
    f.flush()
    while json.loads(f.readline()).get("id") != "end":
        pass
    f.write(b'{"jsonrpc":"2.0","id":9,"method":"send","params":{"agent":"steady","te')
    f.flush()
    f.close()
    s.close()
    steady_lives(mesh)


# ---- the home --------------------------------------------------------------------------------------------------------------


def one_error(r, what):
    check(r.status not in (0, 130) and r.status > 0, what + " is refused", r.status, r.out, r.err)
    lines = [l for l in r.err.splitlines() if l.startswith("error: ")]
    check(len(lines) == 1 and "AMESH-5001" not in lines[0], what + ": one error that is no defect of ours", r.err)
    check("Sanitizer" not in r.err, what, r.err)


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def homes(mesh):
    def at(make):
        home = tempfile.mkdtemp(prefix="home-", dir=mesh.home)
        return make(home) or home

    def open_to_all(home):
        os.chmod(home, 0o777)

    def a_file(home):
        os.rmdir(home)
        write(home, b"x")

    def dangling(home):
        os.rmdir(home)
        os.symlink(mesh.home + "/nowhere", home)

    refused = {
        "a home that everybody may write": open_to_all,
        "a home that is a file": a_file,
        "a home that is a link to nowhere": dangling,
        "a home below a file": lambda home: write(home + "/f", b"") or home + "/f/x",
        "a home with a line break": lambda home: home + "/a\nb",
        "a home with escapes": lambda home: home + "/\x1b[31m",
        "a home with quotes": lambda home: home + '/" include "/etc/passwd',
        "a home with too long a path": lambda home: home + "/" + "x" * 300,
        "a lock that is a FIFO": lambda home: os.mkfifo(home + "/lock"),
        "a lock that is a link": lambda home: os.symlink("/etc/hostname", home + "/lock"),
        "a lock that is a directory": lambda home: os.mkdir(home + "/lock"),
        "a journal that is a directory": lambda home: os.mkdir(home + "/journal.db"),
        "a journal that is none": lambda home: write(home + "/journal.db", b"not SQLite at all, and long enough to be looked at" * 100),
    }
    for what, make in refused.items():
        home = at(make)
        r = mesh.run("up", "--detach", env={"AMESH_HOME": home})
        if r.status == 0:
            mesh.run("down", env={"AMESH_HOME": home})
        one_error(r, what)
        check(not any(ord(c) < 32 for c in r.err.replace("\n", "")), what + ": shown without control characters", r.err)
    fifo = at(lambda home: os.mkfifo(home + "/mesh.json"))
    zero = at(lambda home: os.symlink("/dev/zero", home + "/mesh.json"))
    for home in (fifo, zero):
        r = mesh.run("ls", env={"AMESH_HOME": home})
        check(r.status == 7 and "no mesh runs" in r.err, "a mesh.json that is no file says that no mesh runs", r.status, r.err)


def files(mesh):
    """What is named on the command line need not be a file, nor small."""
    place = tempfile.mkdtemp(prefix="files-", dir=mesh.home)
    big, bomb, deep = place + "/big", place + "/bomb.yaml", place + "/deep.json"
    write(big, b"")
    os.truncate(big, 10 << 30)
    rows = [b"a: &a [x,x,x,x,x,x,x,x,x]"] + [b"%c: &%c [%s]" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(12)]
    write(bomb, b"\n".join(rows) + b"\n")
    write(deep, b"[" * 100000)
    for f in ("/dev/zero", place, big, bomb, deep, place + "/none", "/dev/null", "/proc/self/mem"):
        r = mesh.run("run", "--name", "c", "--card", f, "--", "cat")
        one_error(r, f"--card {f}")
        check(f in r.err, "with the file's name", r.err)
    for f in ("/dev/zero", place, big, place + "/none", "/proc/self/mem"):
        r = mesh.run("ask", "--file", f, "steady", "x")
        one_error(r, f"--file {f}")
        check(f in r.err, "with the file's name", r.err)
    os.mkfifo(place + "/fifo")
    for f in ("/dev/zero", place, big, "/dev/null", place + "/none", place + "/fifo", deep):
        r = mesh.run("ls", env={"AMESH_CREDS": f})
        one_error(r, f"AMESH_CREDS={f}")
        check("AMESH_CREDS" in r.err or f in r.err, "with its name", r.err)


def few_descriptors(mesh):
    def limited(n, *args):
        return subprocess.run(["bash", "-c", f'ulimit -n {n}; exec "$@"', "bash", AMESH, *args], env=mesh.env, capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)

    for args in (("run", "--name", "few", "--", "cat"), ("up",), ("env",)):
        r = limited(24, *args)
        check(r.returncode == 2 and "24 files" in r.stderr and "ulimit" in r.stderr, f"{args[0]} says that it may open too few files", r.returncode, r.stderr)
    check(limited(24, "ask", "steady", "hi").stdout == "hi", "a caller needs few")
    path = os.path.join(mesh.home, "few.sock")
    script = 'ulimit -n 64; exec "$@"'
    few = subprocess.Popen(["bash", "-c", script, "bash", AMESH, "run", "--name", "few", "--sock", path, "--", "cat"], env=mesh.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        check(few.stdout.readline().startswith("ready few "), "64 are enough")
        idle = []
        for _ in range(100):
            idle.append(socket.socket(socket.AF_UNIX))
            idle[-1].connect(path)
        r = mesh.run("ask", "--timeout", "20s", "few", "x")
        check(r.status == 0 or "Too many open files" in r.err, "a call meanwhile is answered, or says why not", r.status, r.err)
        ticks = lambda: sum(int(n) for n in open(f"/proc/{few.pid}/stat").read().rsplit(")", 1)[1].split()[11:13])  # noqa: E731
        before = ticks()
        select.select([], [], [], 1)
        check(ticks() - before < os.sysconf("SC_CLK_TCK") // 2, "it does not spin where no connection can be accepted", ticks() - before)
        for s in idle:
            s.close()
        until(lambda: mesh.run("ask", "--timeout", "20s", "few", "y").out == "y", "and goes on when they are gone")
    finally:
        few.terminate()
        check(few.wait(DEADLINE) == 0, "it leaves in good order")


# ---- what stands still -------------------------------------------------------------------------------------------------------


def stopped_agent(mesh):
    program = os.path.join(mesh.home, "echo.py")
    write(program, b"import json, sys\nfor line in sys.stdin:\n    m = json.loads(line)\n    if m.get('method') == 'task.run':\n        print(json.dumps({'jsonrpc': '2.0', 'id': m['id'], 'result': m['params']['text']}), flush=True)\n")
    mesh.agent("frozen", "--mode", "jsonl", "--", sys.executable, program)
    check(mesh.run("ask", "frozen", "a").ok().out == "a", "it answers")
    pid = mesh.run("show", "frozen", "--json").ok().json()["instances"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    r = mesh.run("ask", "--timeout", "1s", "frozen", "b")
    check(r.status == 6 and "1000 ms" in r.err and "frozen" in r.err, "an agent that stands still meets the deadline, with its name", r.status, r.err)
    os.kill(pid, signal.SIGCONT)
    until(lambda: mesh.run("ask", "--timeout", "5s", "frozen", "c").out == "c", "and is good again, or was started anew")


def stopped_sidecar(mesh):
    mesh.still = mesh.agent("still", "--", "cat")
    mesh.still.signal(signal.SIGSTOP)
    r = mesh.run("ask", "--timeout", "1s", "still", "x")
    check(r.status == 6 and "still" in r.err, "a direct call", r.status, r.err)
    r = mesh.run("ask", "--durable", "--timeout", "2s", "still", "x")
    check(r.status == 6 and "2000 ms" in r.err, "a durable one says the time that it was given", r.status, r.err)
    twin = mesh.agent("still", "--", "cat")
    r = mesh.run("ask", "--durable", "--timeout", "60s", "still", "to the twin").ok()
    check(r.out == "to the twin", "a durable task finds the twin that lives", r.out, r.err)
    until(lambda: any(i["state"] == "lost" for i in mesh.run("show", "still", "--json").ok().json()["instances"]), "it is shown as lost")
    mesh.still.signal(signal.SIGCONT)
    until(lambda: [i["state"] for i in mesh.run("show", "still", "--json").ok().json()["instances"]] == ["up", "up"], "and as up when it goes on")
    twin.stop()
    until(lambda: mesh.run("ask", "--timeout", "5s", "still", "y").out == "y", "it works")


def stopped_environment(mesh):
    mesh.up.signal(signal.SIGSTOP)
    check(mesh.run("ask", "--context", "c-frozen", "steady", "direct").ok().out == "direct", "direct calls need no environment")
    r = mesh.run("ask", "--durable", "--timeout", "1s", "steady", "never accepted")
    check(r.status == 7 and "did not answer" in r.err and "amesh check" in r.err, "durable ones say that it does not answer, in the time that was given", r.status, r.err)
    check("within 1000 ms" in r.err, "in that time", r.err)
    r = mesh.run("check")
    check(r.status == 3 and "✗ environment" in r.out, "check names it", r.out)
    mesh.up.signal(signal.SIGCONT)
    check(mesh.run("ask", "--durable", "steady", "again").ok().out == "again", "it goes on")
    check("direct" in mesh.run("history", "c-frozen").ok().out, "and has recorded what happened meanwhile")


def secrets(mesh):
    """A password in the URL of the bus stands in no process list, log or answer of ours."""
    url = mesh.bus.replace("nats://", "nats://somebody:s3cret-pass@")
    env = {"AMESH_BUS": url}
    texts = []
    for args in (("ls",), ("show", "steady"), ("check",), ("check", "--json"), ("ask", "steady", "x"), ("ask", "--verbose", "nobody-there", "x"), ("task", "ls", "--json"), ("tap", "--count", "0")):
        r = mesh.run(*args, env=env)
        texts.append(r.out + r.err)
    wrong = {"AMESH_BUS": "nats://somebody:s3cret-pass@127.0.0.1:1"}
    for args in (("ls",), ("check",), ("run", "--", "cat"), ("up", "--bus", wrong["AMESH_BUS"], "--home", mesh.home + "/other")):
        process = mesh.spawn(*args, env=wrong)
        until(lambda: process.err or process.out, f"{args} says something")
        with open(f"/proc/{process.child.pid}/cmdline") as f:
            check("s3cret" not in f.read() or "--bus" in args, "nothing is put on a command line")
        process.stop()
        texts.append("\n".join(process.out + process.err))
    agent = mesh.agent("hush", "--", "cat", env=env)
    mesh.run("ask", "hush", "x").ok()
    texts += ["\n".join(agent.err + agent.out), mesh.run("show", "hush", "--json").ok().out]
    for text in texts:
        check("s3cret" not in text, "no password is shown", text[:600])


def main():
    with Mesh() as mesh:
        mesh.sock = os.path.join(mesh.home, "steady.sock")
        mesh.steady = mesh.agent("steady", "--concurrency", "4", "--sock", mesh.sock, "--", "cat")
        tap.run("local socket: 400 connections that say nothing, or half of something", crowd, mesh)
        tap.run("local socket: HTTP that is meant to confuse", http_tricks, mesh)
        tap.run("local socket: who asks and never reads", never_reads, mesh)
        tap.run("local socket: what a worker may not say", worker_tricks, mesh)
        tap.run("homes that are traps", homes, mesh)
        tap.run("files that are none, or endless", files, mesh)
        tap.run("few descriptors", few_descriptors, mesh)
        tap.run("an agent that stands still", stopped_agent, mesh)
        tap.run("a sidecar that stands still", stopped_sidecar, mesh)
        tap.run("an environment that stands still", stopped_environment, mesh)
        tap.run("secrets", secrets, mesh)


main()
tap.done()
