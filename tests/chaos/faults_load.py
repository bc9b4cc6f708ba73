"""What comes from those who use the mesh: duplicates (F14), poison (F20), stampedes (F21), loops (F24), the order to stop (F27), zombies (F2) and wrong clocks (F16)."""
import json
import os
import shutil
import signal
import socket
import threading

import checker
from fault import Fault, Watch, pause
from world import Failed, Load, Skipped, World, agent_pid, check, free_port, until

# ---- duplicates ----------------------------------------------------------------------------------------------------


class Doubler:
    """Between a NATS client and its server: what the client publishes arrives twice."""

    def __init__(self, port):
        self.to, self.port = port, free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.url, self.n = f"nats://127.0.0.1:{self.port}", 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self.forward, args=(server, client), daemon=True).start()
            threading.Thread(target=self.double, args=(client, server), daemon=True).start()

    def forward(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        sink.close()

    def double(self, client, server):
        lines = client.makefile("rb")
        try:
            while line := lines.readline():
                body = b""
                if line[:4] in (b"PUB ", b"HPUB"):
                    body = lines.read(int(line.split()[-1]) + 2)
                    self.n += 1
                    server.sendall(line + body)
                server.sendall(line + body)
        except (OSError, ValueError):
            pass
        server.close()

    def done(self):
        self.listener.close()


def listens(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def every_message_twice(base, seed):
    """The environment's, the sidecars' and the clients' messages, all of them."""
    with World(base, seed) as world:
        world.start_nats()
        doubler = Doubler(world.port)
        until(lambda: listens(world.port), "the server listens")
        world.bus = world.env["AMESH_BUS"] = doubler.url
        world.start_env()
        for kind in ("c", "jsonl"):
            world.sidecar("work", kind=kind, concurrency=8)
        load = world.load("c0", "work", rate=80, window=64, work=10, count=400)
        told = load.finish(90)
        world.settle(90)
        seen = world.verify()
        check(seen["tasks"] == 400 and seen["again"] == 0, "400 tasks, each tried once", seen)
        doubler.done()
        return dict(seen, sent=told["sent"], messages_twice=doubler.n)


def again_with_the_same_key(base, seed):
    """At once, a while later, after a kill -9 of the environment: the first task is the answer."""
    with World(base, seed) as world:
        world.start()
        world.sidecar("work")
        world.load("c0", "work", window=64, work=1, count=500, twice=True).finish()
        world.settle()
        world.env_process.kill()
        world.start_env()
        second = Load(world, "c0", ["work"], window=64, work=1, count=500, file="again")
        world.loads.append(second)
        told = second.finish()
        check(told["duplicates"] == 500, "all of them were known", told)
        seen = world.verify()
        check(seen["tasks"] == 500, "no new task", seen)
        return dict(seen, duplicates=told["duplicates"])


# ---- poison, stampede ----------------------------------------------------------------------------------------------


def poison(base, seed):
    """Every thousandth task kills the agent that takes it."""
    with World(base, seed) as world:
        world.start()
        for _ in range(4):
            world.sidecar("work", concurrency=16)
        load = world.load("c0", "work", rate=300, window=128, work=5, count=3000, poison=1000)
        load.finish(120)
        world.settle(180)
        seen = world.verify()
        dead = world.json("task", "ls", "--dead")["tasks"]
        check(seen["failed"] == 3 and len(dead) == 3, "the three end as dead letters, nobody else", seen, len(dead))
        return seen


def peak_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return round(next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024, 1)


def stampede(base, seed):
    """50 clients, 200 submits each, at once, and nobody to do them; then somebody comes."""
    with World(base, seed) as world:
        world.start()
        watch = Watch()
        loads = [world.load(f"c{i}", "work", window=200, count=200) for i in range(50)]
        told = [load.finish(120) for load in loads]
        took = watch.ms()
        world.sidecar("work")
        world.settle(120)
        seen = world.verify()
        check(seen["tasks"] == 10000, "10,000 tasks", seen)
        return dict(seen, accepted_in_ms=took, told_to_come_back=sum(t["again"] for t in told), environment_peak_mib=peak_mib(world.env_process.pid))


# ---- loops, orders to stop -----------------------------------------------------------------------------------------

INTERRUPTED = 130  # exit status of who was told to stop twice


def loop(base, seed):
    """a asks b asks a."""
    with World(base, seed) as world:
        world.start()
        for name, other in (("a", "b"), ("b", "a")):
            child = world.child(f"run-{name}", [world.env["AMESH"], "run", "--name", name, "--", "sh", "-c", f"amesh ask {other} go"], ready="ready ")
            child.agent = name
        watch = Watch()
        status, out, err = world.run("ask", "a", "go", deadline=60)
        check(status == 1 and "AMESH-2007" in err, "the loop is named", status, out, err)
        status, out, err = world.run("ask", "--durable", "a", "go", deadline=60)
        check(status == 1 and "AMESH-2007" in err, "for a durable call too", status, out, err)
        tasks = world.json("task", "ls")["tasks"]
        return {"tasks": len(tasks), "refused_in_ms": watch.ms()}


def stop_agents(base, seed):
    """SIGTERM of sidecars under load, one after the other; each finishes what it has in hand or gives it back."""
    with World(base, seed) as world:
        world.start()
        for _ in range(2):
            world.sidecar("work", concurrency=16)
        load, took = world.load("c0", "work", rate=100, window=128, work=200), []
        until(lambda: load.n_acked() > 20, "the load has begun", 20)
        for _ in range(6):
            pause(world.random.uniform(0.1, 0.4))
            victim = world.random.choice(world.sidecars)
            watch = Watch()
            victim.signal(signal.SIGTERM)
            check(victim.wait(15) == 0, "it leaves with 0", victim.tail())
            took.append(watch.ms())
            victim.again()
        load.stop()
        world.settle()
        seen = world.verify()
        check(seen["again"] == 0, "what was in hand was finished, or given back before it had begun", seen)
        return dict(seen, stops=6, left_after_max_ms=max(took))


def stop_long(base, seed):
    """A task of 14 s is given back, and somebody else has it, within the time that an order to stop may take. The second SIGTERM ends at once."""
    with World(base, seed) as world:
        world.start()
        first = world.sidecar("work")
        world.load("c0", "work", count=1, work=14000).finish()
        until(lambda: any(t["status"]["state"] == "TASK_STATE_WORKING" for t in world.json("task", "ls", "--open")["tasks"]), "somebody has it")
        world.sidecar("work")
        watch = Watch()
        first.signal(signal.SIGTERM)
        check(first.wait(15) == 0, "it leaves with 0", first.tail())
        gave = watch.ms()
        check(gave < 10000, "within 10 s", gave)
        world.settle(60)
        seen = world.verify()
        second = world.sidecar("work")
        world.load("c1", "work", count=6, work=14000).finish()
        until(lambda: len([t for t in world.json("task", "ls", "--open")["tasks"] if t["status"]["state"] == "TASK_STATE_WORKING"]) == 6, "they run")
        second.signal(signal.SIGTERM)
        pause(0.3)
        watch = Watch()
        second.signal(signal.SIGTERM)
        check(second.wait(15) == INTERRUPTED, "told again it ends, and finishes nothing", second.child.returncode, second.tail())
        check(watch.ms() < 8000, "without the time that one order gives", watch.ms())
        return dict(seen, given_back_after_ms=gave, second_order_after_ms=watch.ms())


def stop_mesh(base, seed):
    """SIGTERM of the environment under submits, again and again: exit 0, and what was acknowledged is there."""
    with World(base, seed) as world:
        world.start()
        world.sidecar("work")
        load, took = world.load("c0", "work", rate=300, window=128, work=20), []
        for _ in range(5):
            before = load.n_acked()
            until(lambda: load.n_acked() > before + 20, "the load goes on", 20)
            watch = Watch()
            world.env_process.signal(signal.SIGTERM)
            check(world.env_process.wait(15) == 0, "exit 0", world.env_process.tail())
            took.append(watch.ms())
            world.start_env()
        load.stop()
        world.settle()
        return dict(world.verify(), stops=5, stopped_after_max_ms=max(took))


# ---- zombies, clocks -----------------------------------------------------------------------------------------------


def zombies(base, seed):
    """A sidecar or its agent stands still for a while (SIGSTOP) and goes on as if nothing had been."""
    with World(base, seed) as world:
        world.start()
        for _ in range(3):
            world.sidecar("work")
        load = world.load("c0", "work", rate=100, window=256, work=50)
        for _ in range(3):
            until(lambda: load.n_acked() > 20, "the load has begun", 20)
            victim = world.random.choice(world.sidecars)
            pid = world.random.choice([victim.pid, agent_pid(victim)]) or victim.pid
            os.kill(pid, signal.SIGSTOP)
            pause(world.random.uniform(1, 8))
            os.kill(pid, signal.SIGCONT)
            pause(1)
        load.stop()
        world.settle(120)
        return dict(world.verify(), stops=3)


def clocks(base, seed):
    """The environment's and the sidecars' wall clocks jump an hour forth and back while tasks run."""
    library = next((p for p in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1") if os.path.exists(p)), None)
    if not library:
        raise Skipped("allowed: libfaketime is not here")
    with World(base, seed) as world:
        path = os.path.join(world.folder, "clock")

        def clock(text):
            with open(path + ".new", "w") as f:
                f.write(text + "\n")
            os.rename(path + ".new", path)
        clock("+0")
        fake = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": path, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        world.start_nats()
        world.start_env(env=fake)
        world.sidecar("work", env=fake)
        load = world.load("c0", "work", rate=200, window=128, work=50)
        for jump in ("+3600", "-3600", "+0", "-86400", "+3600"):
            before = load.n_acked()
            clock(jump)
            until(lambda: load.n_acked() > before + 50, f"submits are acknowledged at {jump}", 20)
            pause(world.random.uniform(0.1, 0.6))
        world.env_process.kill()
        world.start_env(env=fake)
        load.stop()
        world.settle()
        seen = world.verify(clock_jumps=True)
        check(seen["failed"] == 0, "nothing ran out of time", seen)
        return dict(seen, jumps=5)


FAULTS = [
    Fault("F2", "a sidecar or an agent stands still and goes on as a zombie", "what it says late changes nothing", zombies),
    Fault("F14", "every message of everybody arrives twice", "one task, one answer, one attempt", every_message_twice, is_quick=True),
    Fault("F14", "submits again with the same key, also after a restart", "the same task and the same answer", again_with_the_same_key, is_quick=True),
    Fault("F16", "wall clocks jump by an hour and a day", "only durations count", clocks),
    Fault("F20", "1 task in 1,000 kills every agent", "it ends as a dead letter with its reason; nobody else is touched", poison),
    Fault("F21", "10,000 submits at once", "each is accepted or told when to come back; memory is bounded", stampede),
    Fault("F24", "a asks b asks a", "refused at once, by name", loop, is_quick=True),
    Fault("F27", "SIGTERM of sidecars under load", "what is in hand is finished; exit 0", stop_agents),
    Fault("F27", "SIGTERM with a task of 14 s in hand", "given back within 10 s; the second SIGTERM ends at once", stop_long),
    Fault("F27", "SIGTERM of the environment under submits", "exit 0; what was acknowledged is there", stop_mesh),
]
