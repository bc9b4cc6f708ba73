"""One mesh of real processes for one fault: nats-server, environment, sidecars with agents, clients that note what was acknowledged. All of it in one folder; the bus's store
and the environment's home may lie elsewhere (on an image that loses its power)."""
import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time

import checker
import sweep
from meshtest import Failed, Skipped, check, free_port, until  # noqa: F401 (for the faults)

AMESH = os.environ.get("AMESH_CHAOS_BINARY", os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/chaos/amesh")))
PROGRAM = os.path.join(os.path.dirname(AMESH), "tests/chaos/chaos_")
AGENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "agents")
READY_S = 30.0


class Child:
    """A process in a session of its own; stdout is ours to read lines from, stderr goes into its log."""

    def __init__(self, world, name, argv, env=None, ready=None, netns=None):
        self.world, self.name, self.argv, self.buffer = world, name, argv, b""
        self.log = os.path.join(world.folder, "logs", f"{name}.log")
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(world.wrap(argv, netns), env=dict(world.env, **(env or {})), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        self.pid = self.child.pid
        self.line = self.wait_line(ready) if ready else ""

    def wait_line(self, start, deadline=READY_S):
        end = time.monotonic() + deadline
        while True:
            while b"\n" in self.buffer:
                line, self.buffer = self.buffer.split(b"\n", 1)
                if line.startswith(start.encode()):
                    return line.decode()
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.child.stdout], [], [], left)[0]:
                raise Failed(f"{self.name}: no line {start!r} within {deadline} s", self.tail())
            data = os.read(self.child.stdout.fileno(), 65536)
            if not data:
                raise Failed(f"{self.name}: ended without the line {start!r}, status {self.child.wait()}\n    {self.tail()}")
            self.buffer += data

    def tail(self, n=12):
        with open(self.log, errors="replace") as f:
            return "\n    ".join(f.read().splitlines()[-n:])

    def is_alive(self):
        return self.child.poll() is None

    def signal(self, signo):
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signo)

    def kill(self):
        """kill -9 of this process alone; who was started by it lives on."""
        self.signal(signal.SIGKILL)
        self.child.wait()
        self.child.stdout.close()

    def kill_all(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.child.wait()
        self.child.stdout.close()

    def wait(self, deadline=READY_S):
        try:
            return self.child.wait(deadline)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: still runs after {deadline} s\n    {self.tail()}") from None

    def rest(self):
        """stdout until its end"""
        data = self.buffer + self.child.stdout.read()
        self.buffer = b""
        return data.decode()


class Load:
    """A client that submits, and the file of what was acknowledged to it."""

    def __init__(self, world, name, agents, file=None, **options):
        self.world, self.name, self.acks = world, name, os.path.join(world.folder, f"{file or name}.acks")
        argv = [PROGRAM + "load"]
        for option, value in options.items():
            argv += [f"--{option}"] if value is True else [f"--{option}", str(value)]
        self.child = Child(world, name, argv + [world.bus, name, self.acks, *agents])

    def acked(self):
        if not os.path.exists(self.acks):
            return []
        return [dict(ack, **{"from": self.name}) for ack in checker.read_lines(self.acks) if "key" in ack]

    def n_acked(self):
        """Without reading them: lines."""
        with contextlib.suppress(OSError), open(self.acks, "rb") as f:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: f.read(1 << 20), b""))
        return 0

    def stop(self):
        """→ what it counted"""
        self.child.signal(signal.SIGTERM)
        return self.finish()

    def finish(self, deadline=60):
        status = self.child.wait(deadline)
        if status != 0:
            raise Failed(f"{self.name} ended with {status}\n    {self.child.tail()}")
        return json.loads(self.child.rest().splitlines()[-1])


class World:
    """with World(base, seed) as world: … `home` and `store` are folders that the environment and nats-server write to."""

    serial = 0

    def __init__(self, base, seed, netns=None, address="127.0.0.1"):
        World.serial += 1
        self.folder = os.path.join(base, f"w{World.serial}")
        self.base, self.random, self.netns, self.address = base, random.Random(seed), netns, address
        os.makedirs(os.path.join(self.folder, "logs"))
        self.home, self.store = os.path.join(self.folder, "home"), os.path.join(self.folder, "nats")
        self.port, self.children, self.loads, self.sidecars = free_port(), [], [], []
        self.bus = f"nats://{address}:{self.port}"
        self.nats = self.env_process = None
        self.nats_extra = self.nats_top = ""
        self.nats_program = os.environ.get("AMESH_NATS_SERVER", "nats-server")
        self.runs = os.path.join(self.folder, "runs")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AMESH_")}
        self.env.update(AMESH_CHAOS=base, AMESH_HOME=self.home, AMESH_BUS=self.bus, NO_COLOR="1", AMESH=AMESH, PATH=os.path.dirname(AMESH) + ":" + self.env.get("PATH", ""),
                        ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0")

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        self.stop_all()
        sweep.unmount(self.folder)
        if kind is None:
            self.check_sanitizers()
            subprocess.run(["rm", "-rf", self.folder], check=False)

    def wrap(self, argv, netns=None):
        netns = netns or self.netns
        return ["ip", "netns", "exec", netns, *argv] if netns else argv

    def child(self, name, argv, **options):
        child = Child(self, name, argv, **options)
        self.children = [c for c in self.children if c.is_alive()] + [child]
        return child

    def stop_all(self):
        for child in self.children:
            child.kill_all()
        for load in self.loads:
            load.child.kill_all()

    def check_sanitizers(self):
        for name in os.listdir(os.path.join(self.folder, "logs")):
            with open(os.path.join(self.folder, "logs", name), errors="replace") as f:
                text = f.read()
            if "ERROR: AddressSanitizer" in text or "runtime error:" in text:
                raise Failed(f"sanitizer, in {name}:\n    " + text[-3000:].replace("\n", "\n    "))

    # ---- the four roles -------------------------------------------------------------------------------------

    def start_nats(self):
        config = os.path.join(self.folder, "nats.conf")
        jetstream = "" if self.store is None else f'jetstream {{ store_dir: "{self.store}", {self.nats_extra} }}\n'
        with open(config, "w") as f:
            f.write(f"{self.nats_top}host: {self.address}\nport: {self.port}\nmax_payload: 8388608\nserver_name: chaos-{os.getpid()}-{World.serial}\n{jetstream}")
        self.nats = self.child("nats-server", [self.nats_program, "-c", config, "-l", os.path.join(self.folder, "logs", "nats.log")])
        return self.nats

    def start_env(self, env=None, wait=True, netns=None):
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        self.env_process = self.child("env", [AMESH, "env"], env=env, ready="ready " if wait else None, netns=netns)
        return self.env_process

    def start(self):
        self.start_nats()
        self.start_env()
        return self

    def sidecar(self, name, *argv, kind="c", concurrency=64, env=None, wait=True, netns=None):
        """A sidecar with one of the campaign's agents: all of them answer with the digest of what they were asked."""
        modes = {"c": ["--mode", "dial", "--", PROGRAM + "agent", self.runs], "exec": ["--", os.path.join(AGENTS, "exec.sh")],
                 "jsonl": ["--mode", "jsonl", "--", sys.executable, os.path.join(AGENTS, "jsonl.py"), self.runs],
                 "http": ["--mode", "dial", "--", sys.executable, os.path.join(AGENTS, "poll.py"), self.runs],
                 "dial": ["--mode", "dial", "--", sys.executable, os.path.join(AGENTS, "dial.py"), self.runs],
                 "python": [os.path.join(AGENTS, "function.py") + ":agent"], "idle": ["--mode", "dial", "--", "tail", "-f", "/dev/null"], "js": [os.path.join(AGENTS, "function.mjs") + ":agent"]}
        command = [AMESH, "run", "--name", name, "--concurrency", str(concurrency), *argv, *modes[kind]]
        sidecar = self.child(f"run-{name}", command, env=env, ready="ready " if wait else None, netns=netns)
        sidecar.instance = sidecar.line.split()[-1] if wait else None
        sidecar.agent, sidecar.again = name, lambda: self.again(sidecar, command, env)
        self.sidecars.append(sidecar)
        return sidecar

    def again(self, old, command, env=None, wait=False):
        new = self.child(old.name, command, env=env, ready="ready " if wait else None)
        new.agent, new.again = old.agent, lambda: self.again(new, command, env)
        self.sidecars[self.sidecars.index(old)] = new
        return new

    def load(self, name, *agents, **options):
        load = Load(self, name, agents, **options)
        self.loads.append(load)
        return load

    # ---- looking ---------------------------------------------------------------------------------------------

    def run(self, *args, deadline=30):
        """amesh ARGS → status, stdout, stderr"""
        done = subprocess.run(self.wrap([AMESH, *args]), env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=deadline)
        return done.returncode, done.stdout, done.stderr

    def json(self, *args):
        status, out, err = self.run(*args, "--json")
        check(status == 0, f"amesh {' '.join(args)} ended with {status}", err)
        return json.loads(out)

    def n_open(self):
        status, out, _ = self.run("task", "ls", "--open", "--json")
        return json.loads(out)["totalSize"] if status == 0 else -1

    def settle(self, deadline=60, n=0):
        """Until no task is open any more (or n of them)."""
        until(lambda: 0 <= self.n_open() <= n, f"all tasks but {n} have ended ({self.n_open()} are open)", deadline)

    def export(self, *ids):
        done = subprocess.run(self.wrap([PROGRAM + "export", self.bus, *ids]), env=self.env, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise Failed(f"history cannot be read: {done.stderr}")
        return checker.merge(map(json.loads, done.stdout.splitlines()))

    def acked(self):
        return [ack for load in self.loads for ack in load.acked()]

    def verify(self, may_wait=False, more=(), clock_jumps=False):
        """→ counts; raises Failed with what was found. more: acknowledgements that no Load has written down"""
        acks, records = [*self.acked(), *more], self.export()
        found = checker.check(acks, records, may_wait, are_moments_right=not clock_jumps)
        if found:
            raise Failed(f"{len(found)} findings:\n    " + "\n    ".join(f"{f['rule']}: {f['task']}: {f['what']}" for f in found[:20]))
        return checker.count(acks, records)


def agent_pid(sidecar):
    """The process that a sidecar supervises."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children") as f:
            children = f.read().split()
        return int(children[0]) if children else None
    return None


def clean_base():
    sweep.sweep()
    return sweep.new_base()
