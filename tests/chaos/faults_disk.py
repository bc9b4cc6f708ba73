"""Disks that fail: power cuts."""
import os

import checker
from disk import Image
from fault import Fault, Watch, pause, summary
from world import Failed, World, until


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


def power_cuts(cuts):
    """The environment's journal and the bus's store lie on the disk; agents and clients are other hosts and live on."""
    def run(base, seed):
        with World(base, seed) as world:
            image, back, n_acked = Image(world.folder), [], 0
            world.home, world.store = os.path.join(image.path, "home"), os.path.join(image.path, "nats")
            world.env["AMESH_HOME"] = world.home
            world.start()
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
                world.start()
                back.append(watch.ms())
                n_acked += check_acked(world, load)
            world.settle(120)
            seen = dict(world.verify(), cuts=cuts, **{"ready_again_" + k: v for k, v in summary(back).items()})
            world.stop_all()
            image.done()
            return seen
    return run


FAULTS = [
    Fault("F5", "power cut of the environment's host", "what was acknowledged is there", power_cuts(10), unit="cuts", wanted=100),
]
