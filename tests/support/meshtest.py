"""What integration and contract tests share: a private mesh in a temporary home, real processes, deadlines instead of sleeps, TAP output."""
import contextlib
import json
import os
import pty
import queue
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
AMESH = os.environ.get("AMESH", os.path.join(TOP, "build/asan/amesh"))
BUILD = os.environ.get("AMESH_BUILD", os.path.join(TOP, "build/asan"))
DEADLINE = 60.0


class Failed(AssertionError):
    pass


def check(condition, message, *shown):
    if not condition:
        raise Failed(message + "".join("\n    " + str(s) for s in shown))


class Process:
    """A child with its lines at hand. `name` is for messages."""

    def __init__(self, argv, env, name, cwd=None, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE):
        self.name = name
        self.child = subprocess.Popen(argv, env=env, cwd=cwd, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True)
        self.out, self.err = [], []
        self.lines = queue.Queue()
        self.threads = [threading.Thread(target=self._read, args=(stream, kept, key), daemon=True)
                        for stream, kept, key in ((self.child.stdout, self.out, "out"), (self.child.stderr, self.err, "err")) if stream]
        for t in self.threads:
            t.start()

    def _read(self, stream, kept, key):
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            kept.append(line)
            self.lines.put((key, line))
        self.lines.put((key, None))

    def wait_line(self, wanted, deadline=DEADLINE, stream="out"):
        """The first new line for which wanted(line) is true (or that starts with the string)."""
        test = wanted if callable(wanted) else lambda line: line.startswith(wanted)
        end, closed = time.monotonic() + deadline, 0
        while True:
            try:
                key, line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise Failed(f"{self.name}: no line {wanted!r} within {deadline} s; stdout {self.out[-5:]}, stderr {self.err[-20:]}") from None
            if line is None:
                closed += 1
                if closed == 2:
                    raise Failed(f"{self.name}: ended without the line {wanted!r}; stdout {self.out[-5:]}, stderr {self.err[-20:]}")
            elif key == stream and test(line):
                return line

    def wait(self, deadline=DEADLINE):
        try:
            status = self.child.wait(deadline)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: still runs after {deadline} s; stderr {self.err[-20:]}") from None
        for t in self.threads:
            t.join(5)
        return status

    def signal(self, signo):
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signo)

    def stop(self):
        if self.child.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


class Result:
    def __init__(self, argv, status, out, err):
        self.argv, self.status, self.out, self.err = argv, status, out, err

    def json(self):
        try:
            return json.loads(self.out)
        except ValueError:
            raise Failed(f"{self.argv}: not one JSON document: {self.out[:400]!r}, stderr {self.err[-800:]!r}") from None

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines() if line]

    def ok(self):
        check(self.status == 0, f"{' '.join(self.argv)} ended with {self.status}", "stdout " + self.out[-1500:], "stderr " + self.err[-1500:])
        return self


class Mesh:
    """with Mesh() as mesh: … A private AMESH_HOME with everything of one host in it."""

    def __init__(self, nats=None, up=()):
        self.home = tempfile.mkdtemp(prefix="amt-")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AMESH_")}
        self.env.update(AMESH_HOME=self.home, NO_COLOR="1", AMESH=AMESH, PATH=os.path.dirname(AMESH) + ":" + self.env.get("PATH", ""))
        if nats:
            self.env["AMESH_NATS_SERVER"] = nats
        self.processes, self.up_args, self.up, self.bus = [], list(up), None, None

    def __enter__(self):
        self.start_up()
        return self

    def env_cut_off(self):
        """For a program whose connection is cut while it is read from: nats.c 3.4 leaks the message that was half read."""
        leaks = os.path.join(self.home, "leaks")
        with open(leaks, "w", encoding="utf-8") as f:
            f.write("leak:natsBuf_Create\n")
        return dict(self.env, LSAN_OPTIONS=f"suppressions={leaks}:print_suppressions=0")

    def start_up(self):
        self.up = self.spawn("up", *self.up_args)
        self.bus = self.up.wait_line("ready ").split()[1]
        return self.up

    def __exit__(self, *exc):
        for process in reversed(self.processes):
            process.stop()
        leaks = [line for p in self.processes for line in p.err if "ERROR: AddressSanitizer" in line or "runtime error:" in line or "ERROR: LeakSanitizer" in line]
        if leaks and exc[0] is None:
            detail = next("\n".join(p.err[-60:]) for p in self.processes if any(l in p.err for l in leaks))
            raise Failed("sanitizer: " + leaks[0] + "\n" + detail)
        if exc[0] is not None:
            for p in self.processes:
                sys.stdout.write("".join(f"# {p.name}: {line}\n" for line in p.err[-12:]))
        shutil.rmtree(self.home, ignore_errors=True)

    def spawn(self, *args, env=None, cwd=None, stdin=subprocess.DEVNULL):
        process = Process([AMESH, *args], dict(self.env, **(env or {})), "amesh " + " ".join(args[:4]), cwd, stdin)
        self.processes.append(process)
        return process

    def agent(self, name, *args, env=None, cwd=None):
        """amesh run --name NAME …, once it is callable. → Process with .agent, .instance"""
        process = self.spawn("run", "--name", name, *args, env=env, cwd=cwd)
        _, process.agent, process.instance = process.wait_line("ready ").split()
        return process

    def run(self, *args, text=None, env=None, deadline=DEADLINE, cwd=None):
        argv = [AMESH, *args]
        child = subprocess.Popen(argv, env=dict(self.env, **(env or {})), cwd=cwd, stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        try:
            out, err = child.communicate(text.encode() if isinstance(text, str) else text, timeout=deadline)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            raise Failed(f"{args} did not end within {deadline} s; stdout {out[-500:]!r}, stderr {err[-1500:]!r}") from None
        return Result(argv, child.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


    def path(self, name):
        return os.path.join(self.home, name)

    def lines_of(self, name):
        """Of a file in the home, which may not be there yet."""
        try:
            with open(self.path(name), encoding="utf-8") as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def begin(self, *args, **how):
        """As run, in the background; → thread with .result once it has ended."""
        def run():
            thread.result = self.run(*args, **how)
        thread = threading.Thread(target=run)
        thread.start()
        return thread


class Bus(Mesh):
    """A nats-server that stays, and an environment that comes and goes; `program` runs it."""
    CONFIG = ""  # of the server, beside where it listens

    def start_up(self):
        self.port = free_port()
        self.bus = self.env["AMESH_BUS"] = f"nats://127.0.0.1:{self.port}"
        self.start_server()
        self.start_env()

    def start_server(self):
        conf = os.path.join(self.home, "server.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(self.CONFIG)
        self.server = Process([self.env.get("AMESH_NATS_SERVER", "nats-server"), "-c", conf, "-a", "127.0.0.1", "-p", str(self.port)], self.env, "nats-server")
        self.processes.append(self.server)
        self.server.wait_line(lambda line: "Server is ready" in line, stream="err")

    def start_env(self, *options, program=None, env=None):
        self.up = Process([program or AMESH, "env", *options], dict(self.env, **(env or {})), "amesh env")
        self.processes.append(self.up)
        self.up.wait_line("ready ")

    def kill_env(self):
        self.up.signal(signal.SIGKILL)
        self.up.wait()

    def restart_env(self, *options, **how):
        self.kill_env()
        self.start_env(*options, **how)

    def show(self, task):
        return self.run("task", "show", task, "--json").ok().json()

    def state(self, task):
        return self.show(task)["status"]["state"]


def until(probe, message, deadline=DEADLINE):
    """Asks again and again, as a user would, until probe() gives something true. Only for states that no event announces."""
    end = time.monotonic() + deadline
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{message}: not within {deadline} s")
        select.select([], [], [], 0.05)


def process_state(pid):
    """As in ps: a letter. None: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Skipped(Exception):
    """This machine cannot show the claim; its text is the reason."""


def terminal():
    """→ (our end, its end) of a new pseudo-terminal"""
    try:
        return pty.openpty()
    except OSError as e:
        raise Skipped(f"allowed: no pseudo-terminal can be had here: {e}") from None


class Tap:
    """Runs claims and prints TAP. tap.run("claim", function, *args)"""

    def __init__(self):
        self.n = self.failed = 0

    def run(self, claim, function, *args):
        self.n += 1
        try:
            function(*args)
            print(f"ok {self.n} - {claim}", flush=True)
            return True
        except Skipped as e:
            print(f"ok {self.n} - {claim} # SKIP {e}", flush=True)
            return True
        except Exception as e:  # a test may fail in any way; all of them are "not ok"
            self.failed += 1
            print(f"not ok {self.n} - {claim}", flush=True)
            text = str(e) if isinstance(e, Failed) else traceback.format_exc()
            print("".join(f"#   {line}\n" for line in text.splitlines()), end="", flush=True)
            return False

    def skip(self, claim, reason):
        self.n += 1
        print(f"ok {self.n} - {claim} # SKIP {reason}", flush=True)

    def done(self):
        print(f"1..{self.n}", flush=True)
        sys.exit(1 if self.failed else 0)
