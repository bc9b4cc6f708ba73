"""kill -9 of the four roles, under load: each alone (F1, F3, F4, F7) and all of them in random order."""
import os
import re
import signal

from fault import Fault, Watch, pause, summary
from world import AMESH, Skipped, World, agent_pid, check, until

ROLES = ("agent", "sidecar", "env", "nats-server")


def kill(world, role):
    """→ whether somebody was there to be killed"""
    sidecar = world.random.choice(world.sidecars)
    if role == "agent":
        pid = agent_pid(sidecar)
        if pid:
            os.kill(pid, signal.SIGKILL)
        return pid is not None
    if role == "sidecar":
        sidecar.kill()
        sidecar.again()
    elif role == "env":
        world.env_process.kill()
        world.start_env(wait=False)
    else:
        world.nats.kill()
        world.start_nats()
    return True


def begin(world, instances=2, **load):
    world.start()
    for _ in range(instances):
        world.sidecar("work")
    world.sidecar("lines", kind="jsonl", concurrency=8)
    load = world.load("c0", "work", "work", "work", "lines", **dict({"rate": 300, "window": 128, "work": 20}, **load))
    until(lambda: load.n_acked() > 20, "the load has begun", 20)
    return load


def finish(world, load):
    told = load.stop()
    world.settle(120)
    return dict(world.verify(), sent=told["sent"], submitted_again=told["again"])


def storm(roles, kills, gap_ms, instances=4):
    """n kills at random moments, without waiting for anything to have come back."""
    def run(base, seed):
        with World(base, seed) as world:
            load, done = begin(world, instances), dict.fromkeys(roles, 0)
            while sum(done.values()) < kills:
                role = world.random.choice(roles)
                done[role] += kill(world, role)
                pause(world.random.uniform(*gap_ms) / 1000)
            return dict(finish(world, load), kills=kills, **{f"kills_{role}": n for role, n in done.items()})
    return run


def one_role(role, kills):
    """Each kill waits until submits are acknowledged again, and says how long that took."""
    def run(base, seed):
        with World(base, seed) as world:
            load, back = begin(world), []
            for _ in range(kills):
                pause(world.random.uniform(0.02, 0.3))
                check(kill(world, role), "somebody was there")
                watch = Watch()
                before = load.n_acked()
                until(lambda: load.n_acked() > before + 8, "submits are acknowledged again", 30)
                back.append(watch.ms())
            return dict(finish(world, load), kills=kills, **{"acknowledged_again_" + k: v for k, v in summary(back).items()})
    return run


def points():
    """hook.def → [(name, role, what)]; what is there for both roles is made in both."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../mesh/base/hook.def")) as f:
        rows = re.findall(r'^HOOK\((\w+),\s*"(\w+)",\s*"(.*)"\)', f.read(), re.M)
    return [(name, role, what) for name, roles, what in rows for role in (("env", "sidecar") if roles == "any" else (roles,))]


def has_hooks(world):
    """Is this a build in which the points are?"""
    with open(AMESH, "rb") as f:
        return b"AMESH_CRASH_AT" in f.read()


def at_point(name, role):
    """A process ends the n-th time that it comes to the point, twice, and is started again without it."""
    def run(base, seed):
        with World(base, seed) as world:
            if not has_hooks(world):
                raise Skipped("allowed: this build has no points (AMESH_HOOKS)")
            load, kills = begin(world, instances=1), 0
            for _ in range(2):
                crash = {"AMESH_CRASH_AT": f"{name}:{world.random.randrange(1, 40)}"}
                if role == "env":
                    world.env_process.kill()
                    victim = world.start_env(env=crash, wait=False)
                else:
                    victim = world.sidecar("work", env=crash, wait=False)
                status = victim.wait(30)
                check(status == -signal.SIGKILL, f"{victim.name} came to {name} and ended there", status, victim.tail())
                kills += 1
                world.start_env() if role == "env" else victim.again()
            return dict(finish(world, load), kills=kills)
    return run


FAULTS = [
    Fault("F1", "agent kill -9 in mid-task", "its tasks go to another run with attempt + 1, each ends once", storm(("agent",), 12, (20, 150), 6), unit="kills", wanted=200, is_quick=True),
    Fault("F3", "sidecar kill -9", "nothing lost, nothing doubled, its tasks go on elsewhere", storm(("sidecar",), 20, (50, 250)), unit="kills", wanted=100),
    Fault("F4", "environment kill -9 under submits", "what was acknowledged is there; serving again", one_role("env", 15), unit="kills", wanted=100, is_quick=True),
    Fault("F7", "nats-server kill -9", "everybody comes back by itself, nothing lost", one_role("nats-server", 8), unit="kills", wanted=50, is_quick=True),
    Fault("K", "random kill -9 of the four roles", "nothing lost, nothing doubled, everything ends", storm(ROLES, 60, (20, 250)), unit="kills", wanted=1000, is_quick=True),
    *(Fault("H", f"{role} ends at {name}", what, at_point(name, role), unit="kills", wanted=20) for name, role, what in points()),
]
