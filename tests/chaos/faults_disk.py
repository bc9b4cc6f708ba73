"""Disks that fail: power cuts (F5), full and broken ones under the journal (F6, F12) and under the bus (F8, F11, F13)."""
import contextlib
import glob
import json
import os
import shutil

import checker
from disk import Image, Tmpfs
from fault import Fault, Watch, pause, summary
from faults_kill import begin, finish
from world import Failed, Skipped, World, check, until


def check_acked(world, load):
    """What this client had acknowledged before the cut is there after it."""
    acks = load.acked()
    records = world.export(*[ack["task"] for ack in acks]) if acks else {}
    lost = [ack for ack in acks if ack["task"] not in records]
    if lost:
        raise Failed(f"{len(lost)} of {len(acks)} acknowledged tasks are lost: {lost[:5]}")
    found = [f for f in checker.check_acks(acks, records)]
    if found:
        raise Failed(f"after the cut: {found[:5]}")
    return len(acks)


def power_cuts(cuts, env=None):
    """The environment's journal and the bus's store lie on the disk; agents and clients are other hosts and live on."""
    def run(base, seed):
        with World(base, seed) as world:
            image, back, n_acked = Image(world.folder), [], 0
            world.home, world.store = os.path.join(image.path, "home"), os.path.join(image.path, "nats")
            world.env["AMESH_HOME"] = world.home
            world.start_nats()
            world.start_env(env=env)
            for _ in range(2):
                world.sidecar("work", env={"AMESH_HOME": os.path.join(world.folder, "other")})
            for i in range(cuts):
                load = world.load(f"c{i}", "work", rate=1000, window=128, work=5)
                until(lambda: load.n_acked() > 20, "the load has begun", 20)
                pause(world.random.uniform(0.05, 0.8))
                world.env_process.kill()
                world.nats.kill()
                load.child.kill()
                image.cut(world.random)
                watch = Watch()
                world.start_nats()
                world.start_env(env=env)
                back.append(watch.ms())
                n_acked += check_acked(world, load)
            world.settle(120)
            seen = dict(world.verify(), cuts=cuts, **{"ready_again_" + k: v for k, v in summary(back).items()})
            world.stop_all()
            image.done()
            return seen
    return run


# ---- full and broken disks -----------------------------------------------------------------------------------------


def refuses(world, load):
    """Until the environment says that its journal refuses; then it must go on reading."""
    until(lambda: "env.read_only" in world.env_process.tail(50), "the environment says that its journal has failed", 60)
    line = next(l for l in world.env_process.tail(50).splitlines() if "env.read_only" in l)
    status, _, err = world.run("ask", "--durable", "work", "x work 1")
    check(status == 7 and "AMESH-4003" in err, "a submit is refused with the reason", status, err)
    check(world.run("task", "ls", "--json")[0] == 0, "what is there can be read")
    acks = load.acked()
    check(set(a["task"] for a in acks) <= set(world.export(*[a["task"] for a in acks])), "all of it")
    check(world.run("ask", "work", "direct work 1")[1].strip() == checker.digest("direct work 1"), "calls go on")
    return json.loads(line.strip())["reason"]


def no_space(base, seed):
    """The environment's home on 6 MiB."""
    with World(base, seed) as world:
        disk = Tmpfs(world.folder, "small", "6m")
        world.home = world.env["AMESH_HOME"] = os.path.join(disk.path, "home")
        world.start()
        world.sidecar("work", env={"AMESH_HOME": os.path.join(world.folder, "other")})
        load = world.load("c0", "work", rate=500, window=64, work=1)
        reason = refuses(world, load)
        disk.resize("200m")
        watch = Watch()
        world.env_process.kill()
        world.start_env()
        before = load.n_acked()
        until(lambda: load.n_acked() > before + 50, "with room and a restart submits are acknowledged again", 20)
        back = watch.ms()
        load.stop()
        world.settle()
        seen = dict(world.verify(), reason=reason, acknowledged_again_ms=back)
        world.stop_all()
        disk.done()
        return seen


def io_error(base, seed):
    """The environment's home on a device that gives errors: an image of 128 MiB on 16 MiB of memory."""
    with World(base, seed) as world:
        memory = Tmpfs(world.folder, "memory", "16m")
        image = Image(memory.path, 128, "discard,errors=remount-ro")
        world.home = world.env["AMESH_HOME"] = os.path.join(image.path, "home")
        world.start()
        world.sidecar("work", env={"AMESH_HOME": os.path.join(world.folder, "other")})
        load = world.load("c0", "work", rate=1500, window=128, work=1)
        reason = refuses(world, load)
        world.env_process.kill()
        memory.resize("256m")
        image.again()
        world.start_env()
        before = load.n_acked()
        until(lambda: load.n_acked() > before + 50, "on the repaired disk submits are acknowledged again", 20)
        load.stop()
        world.settle()
        seen = dict(world.verify(), reason=reason)
        world.stop_all()
        image.done()
        memory.done()
        return seen


# ---- the bus's store -----------------------------------------------------------------------------------------------


def lost_store(is_rolled_back):
    """The bus's store is wiped, or an old one is put in its place, while the bus is down."""
    def run(base, seed):
        with World(base, seed) as world:
            load, back = begin(world), []
            for _ in range(3):
                old = os.path.join(world.folder, "old")
                if is_rolled_back:
                    shutil.copytree(world.store, old, ignore_dangling_symlinks=True)
                pause(world.random.uniform(0.2, 0.6))
                world.nats.kill()
                shutil.rmtree(world.store)
                if is_rolled_back:
                    os.rename(old, world.store)
                world.start_nats()
                watch, before = Watch(), load.n_acked()
                until(lambda: load.n_acked() > before + 8, "submits are acknowledged again", 30)
                back.append(watch.ms())
            told = world.run("check", "--wait", "20s")
            check(told[0] == 0, "amesh check is well again", told[1], told[2])
            return dict(finish(world, load), **{"acknowledged_again_" + k: v for k, v in summary(back).items()})
    return run


def current_server():
    """A current nats-server, if scripts/fetch-nats-server.sh has fetched one, or None."""
    found = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/cache/nats-server-*/nats-server")))
    return os.path.abspath(found[-1]) if found else None


def fill(folder):
    path = os.path.join(folder, "filler")
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as f:
        while f.write(bytes(1 << 16)):
            pass
    return path


def full_store(is_current):
    """The bus's store on a disk that somebody else fills. A server that would hang its publishers is given nothing to store: there the stream is in its memory, and all is well."""
    def run(base, seed):
        if is_current and not current_server():
            raise Skipped("allowed: no current nats-server was fetched (scripts/fetch-nats-server.sh)")
        with World(base, seed) as world:
            if is_current:
                world.nats_program = current_server()
            disk = Tmpfs(world.folder, "small", "4m")
            world.store, world.nats_extra = os.path.join(disk.path, "nats"), "max_file_store: 1073741824"
            load = begin(world)
            until(lambda: "✓ stream" in world.run("check")[1], "the stream is there", 20)
            is_in_memory = "memory" in world.run("check")[1]
            filler, watch, direct, told = fill(disk.path), Watch(), 0, None
            while told is None and watch.ms() < (3000 if is_in_memory else 20000):
                direct += world.run("ask", "--timeout", "5s", "work", f"direct{direct} work 1")[0] == 0
                told = watch.ms() if "✗ stream" in world.run("check")[1] else None
            check(is_in_memory or told, "amesh check says that the bus does not store")
            check(direct > 0, "calls go on")
            os.unlink(filler)
            if not is_in_memory:
                world.nats.kill()
                world.start_nats()
            check("✓ stream" in world.run("check", "--wait", "20s")[1], "it is well again")
            return dict(finish(world, load), direct_calls_meanwhile=direct,
                        **({"stream": "in memory, not touched"} if is_in_memory else {"stream": "red, green after a restart of nats-server", "red_after_ms": told}))
    return run


def no_jetstream(base, seed):
    """A server without JetStream."""
    with World(base, seed) as world:
        world.store = None
        world.start_nats()
        env = world.start_env(wait=False)
        until(lambda: not env.is_alive() or world.run("task", "ls", "--json")[0] == 0, "the environment serves, or says why not", 20)
        status, out, err = world.run("check")
        check("jetstream" in (out + err).lower(), "amesh check names it", status, out, err)
        if not env.is_alive():
            check("jetstream" in env.tail().lower(), "and so does the environment", env.tail())
            return {"environment": "refuses"}
        world.sidecar("work")
        world.load("c0", "work", count=100, work=1).finish()
        world.settle()
        return dict(world.verify(), environment="serves durable tasks from its journal")


def flip(path, random):
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        at = random.randrange(size)
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << random.randrange(8)]))
    return f"a bit of byte {at} of {size} of {os.path.basename(path)}"


def cut_short(path, random):
    size = os.path.getsize(path)
    os.truncate(path, random.randrange(size))
    return f"{os.path.basename(path)} of {size} bytes cut to {os.path.getsize(path)}"


def after_damage(world, what):
    """→ "named" or "harmless"; a journal that has lost something without a word is a broken promise."""
    status, out, err = world.run("env", "verify")
    is_named = status == 3 and bool(out.strip() or err.strip())
    check(status == 0 or is_named, f"{what}: verify says whether it is sound", status, out, err)
    env = world.start_env(wait=False)
    until(lambda: not env.is_alive() or world.run("task", "ls", "--json")[0] == 0 or "4010" in world.run("task", "ls")[2], f"{what}: it starts, or says why not", 20)
    if not env.is_alive():
        check("corrupt" in env.tail() or "AMESH-4010" in env.tail() or "AMESH-4003" in env.tail(), f"{what}: refused by name", env.tail())
        return "refused"
    try:
        world.settle(20)
        world.verify()
    except Failed as e:
        check(any(word in str(e) for word in ("damaged", "corrupt", "malformed", "cannot be read", "is not what was written")), f"{what}: verify said {status}", str(e)[:500], out[:300])
        check(is_named, f"{what}: what cannot be read is found by verify", str(e)[:500], out)
        return "named"
    return "harmless" if status == 0 else "named"


def damage(rounds):
    """Copies of a journal after kill -9, each with one flipped bit, or cut short at some length."""
    def run(base, seed):
        with World(base, seed) as world:
            load, seen = begin(world, rate=150), {"refused": 0, "named": 0, "harmless": 0}
            until(lambda: load.n_acked() > 300, "a journal", 30)
            load.stop()
            world.settle()
            world.env_process.kill()
            sound = world.home
            for i in range(rounds):
                world.home = world.env["AMESH_HOME"] = os.path.join(world.folder, f"damaged{i}")
                os.makedirs(world.home, mode=0o700)
                for name in os.listdir(sound):
                    if name.startswith("journal.db") and not name.endswith(("-shm", ".lock")):
                        shutil.copy(os.path.join(sound, name), world.home)
                files = [n for n in ("journal.db", "journal.db-wal") if os.path.exists(os.path.join(world.home, n)) and os.path.getsize(os.path.join(world.home, n)) > 0]
                path = os.path.join(world.home, world.random.choice(files))
                what = world.random.choice([flip, flip, cut_short])(path, world.random)
                seen[after_damage(world, what)] += 1
                world.env_process.kill()
            return dict(seen, damaged=rounds)
    return run


def second_environment(base, seed):
    """Another environment on the same journal."""
    with World(base, seed) as world:
        load = begin(world)
        for _ in range(3):
            status, out, err = world.run("env", deadline=20)
            check(status == 8 and "AMESH-4006" in err, "it refuses", status, out, err)
        return finish(world, load)


FAULTS = [
    Fault("F5", "power cut of the environment's host", "what was acknowledged is there", power_cuts(10), unit="cuts", wanted=100, is_quick=True),
    Fault("F6", "a second environment on the same journal", "it refuses", second_environment),
    Fault("F6", "a bit of the journal is flipped, or its end is cut off", "what was lost is named, nothing is given out that was not written", damage(12), unit="damaged", wanted=60),
    Fault("F8", "the bus's store is wiped", "noticed and made again; nothing lost", lost_store(False)),
    Fault("F8", "the bus's store is an old one", "noticed and made again; nothing lost", lost_store(True)),
    Fault("F11", "the bus's disk is full", "nothing is lost; amesh check says it if the stream suffers", full_store(False)),
    Fault("F11", "the bus's disk is full, current nats-server", "nothing is lost; amesh check says it if the stream suffers", full_store(True)),
    Fault("F12", "no space under the journal", "submits are refused with the reason, reads go on; nothing lost after the repair", no_space),
    Fault("F12", "I/O errors under the journal", "submits are refused with the reason, reads go on; nothing lost after the repair", io_error),
    Fault("F13", "a server without JetStream", "said, with what to do", no_jetstream),
]
