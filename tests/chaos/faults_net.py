"""The network: partitions of the environment and of a sidecar, both and one way (F9), and the storm of 200 sidecars that come back at once (F22)."""
import json
import os
import shutil
import subprocess
import urllib.request

import sweep
from fault import Fault, Watch, pause
from meshtest import free_port
from world import AMESH, Skipped, World, check, until

NET = "10.177.0"
CUTS = {"both ways": ("input", "output"), "what it hears": ("input",), "what it says": ("output",)}


def must(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"allowed: this machine has no network namespaces or no nft: {' '.join(argv)}: {done.stderr.strip()}")


class Net:
    """Hosts: a network namespace each, joined by a bridge in that of the first, which has the bus."""

    def __init__(self, base, hosts):
        if os.getuid() != 0 or not shutil.which("nft") or not shutil.which("ip"):
            raise Skipped("allowed: partitions need root, ip and nft")
        self.names = [f"{sweep.netns_prefix(base)}{h}" for h in hosts]
        self.address = {h: f"{NET}.{i + 1}" for i, h in enumerate(hosts)}
        self.of = dict(zip(hosts, self.names))
        for name in self.names:
            must("ip", "netns", "add", name)
            must("ip", "-n", name, "link", "set", "lo", "up")
        first = self.names[0]
        must("ip", "-n", first, "link", "add", "bridge0", "type", "bridge")
        must("ip", "-n", first, "addr", "add", f"{NET}.1/24", "dev", "bridge0")
        must("ip", "-n", first, "link", "set", "bridge0", "up")
        for i, name in enumerate(self.names[1:], 2):
            must("ip", "-n", first, "link", "add", f"v{i}", "type", "veth", "peer", "name", "eth", "netns", name)
            must("ip", "-n", first, "link", "set", f"v{i}", "master", "bridge0", "up")
            must("ip", "-n", name, "addr", "add", f"{NET}.{i}/24", "dev", "eth")
            must("ip", "-n", name, "link", "set", "eth", "up")

    def cut(self, host, hooks):
        for hook in hooks:
            rules = f"add table inet cut; add chain inet cut {hook} {{ type filter hook {hook} priority 0; policy accept; }}; add rule inet cut {hook} meta iifname eth drop" if hook == "input" \
                else f"add table inet cut; add chain inet cut {hook} {{ type filter hook {hook} priority 0; policy accept; }}; add rule inet cut {hook} meta oifname eth drop"
            must("ip", "netns", "exec", self.of[host], "nft", rules)

    def heal(self, host):
        must("ip", "netns", "exec", self.of[host], "nft", "delete table inet cut")

    def done(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def instances(world, agent):
    return {i["id"]: i["state"] for i in world.json("show", agent)["instances"]}


def wait_ms(probe, what, deadline):
    watch = Watch()
    until(probe, what, deadline)
    return watch.ms()


def of_sidecar(way):
    """One of two sidecars is cut off for a while with tasks in hand."""
    def run(base, seed):
        net = Net(base, ["bus", "far"])
        try:
            with World(base, seed, netns=net.of["bus"], address=f"{NET}.1") as world:
                world.start()
                world.sidecar("work")
                far = world.sidecar("work", netns=net.of["far"])
                far_id = far.instance
                load = world.load("c0", "work", rate=100, window=256, work=50)
                until(lambda: load.n_acked() > 20, "the load has begun", 20)
                net.cut("far", CUTS[way])
                seen_ms = wait_ms(lambda: instances(world, "work").get(far_id) not in ("up", "draining"), "the environment knows that it is gone", 20)
                pause(world.random.uniform(0.5, 4))
                net.heal("far")
                back_ms = wait_ms(lambda: instances(world, "work").get(far_id) == "up", "it is back", 30)
                load.stop()
                world.settle(60)
                return dict(world.verify(), noticed_after_ms=seen_ms, back_after_ms=back_ms)
        finally:
            net.done()
    return run


def of_environment(way):
    """The environment is cut off for a while under submits."""
    def run(base, seed):
        net = Net(base, ["bus", "env"])
        try:
            with World(base, seed, netns=net.of["bus"], address=f"{NET}.1") as world:
                world.start_nats()
                world.start_env(netns=net.of["env"])
                for _ in range(2):
                    world.sidecar("work")
                load = world.load("c0", "work", rate=200, window=64, work=20)
                until(lambda: load.n_acked() > 20, "the load has begun", 20)
                net.cut("env", CUTS[way])
                pause(world.random.uniform(3, 7))
                net.heal("env")
                before = load.n_acked()
                back_ms = wait_ms(lambda: load.n_acked() > before + 8, "submits are acknowledged again", 30)
                load.stop()
                world.settle(60)
                return dict(world.verify(), acknowledged_again_after_ms=back_ms)
        finally:
            net.done()
    return run


def come_back(port, n, deadline):
    """→ ms after which the first, the second … the n-th connection was seen."""
    watch, moments = Watch(), []
    while len(moments) < n:
        check(watch.ms() < deadline * 1000, f"all are back within {deadline} s", len(moments), n)
        moments += [watch.ms()] * (connections(port) - len(moments))
        pause(0.01)
    return moments[:n]


def connections(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/varz", timeout=2) as answer:
            return json.load(answer)["connections"]
    except OSError:
        return -1


def reconnect_storm(base, seed):
    """200 sidecars of one machine, and the server is killed."""
    with World(base, seed) as world:
        monitor = free_port()
        world.nats_top = f"http: 127.0.0.1:{monitor}\n"
        world.start()
        crowd = [world.child(f"run-s{i}", [AMESH, "run", "--name", f"s{i}", "--", "cat"]) for i in range(200)]
        for child in crowd:
            child.wait_line("ready ", 120)
        back = []
        check(connections(monitor) >= 201, "200 sidecars and the environment are connected", connections(monitor))
        for _ in range(3):
            world.nats.kill()
            pause(world.random.uniform(0.1, 2))
            world.start_nats()
            back += come_back(monitor, 201, 30)
            until(lambda: world.run("ask", "--timeout", "5s", f"s{world.random.randrange(200)}", "back?")[1].strip() == "back?", "calls work again")
            pause(1)
        up = until(lambda: len([a for a in world.json("ls")["agents"] if a["name"].startswith("s")]) == 200, "the environment knows all of them", 30)
        check(up, "all")
        back.sort()
        return {"restarts": 3, "back_after_p50_ms": back[len(back) // 2], "back_after_p99_ms": back[len(back) * 99 // 100], "all_back_after_max_ms": back[-1]}


FAULTS = [
    *(Fault("F9", f"a sidecar is cut off: {way}", "noticed in 3 s, its tasks go elsewhere; nothing lost, nothing doubled", of_sidecar(way)) for way in CUTS),
    *(Fault("F9", f"the environment is cut off: {way}", "submits go on after it; nothing lost, nothing doubled", of_environment(way)) for way in CUTS),
    Fault("F22", "200 sidecars come back at once after kill -9 of nats-server", "all are back, calls work", reconnect_storm),
]
