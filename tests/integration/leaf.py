#!/usr/bin/env python3
"""A nats-server per host, joined to a hub by leaf connections: calls stay on their host as long as somebody there has a slot free, go elsewhere when not, and wait in one queue when nobody has. Real
servers, real processes."""
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from lib_nats import Nats, waiting_calls  # noqa: E402
from meshtest import Bus, Process, Tap, check, free_port, until  # noqa: E402

PY = sys.executable
tap = Tap()

# Writes down by whose sidecar it was begun; waits for a gate if the last word is one.
AGENT = """
import os, sys, threading
pause = threading.Event()
text = sys.stdin.read().strip()
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(fd, (str(os.getppid()) + ' ' + text + '\\n').encode())
gate = text.split()[-1]
while gate.startswith('/') and not os.path.exists(gate):
    pause.wait(0.005)
print('done by', os.environ['HOST'])
"""


class Hosts(Bus):
    """A hub, where the environment is, and the hosts "a" and "b"."""

    def start_server(self):
        self.leaf_port, self.servers, self.buses = free_port(), {}, {"hub": self.bus}
        self.start_hub()
        for host in ("a", "b"):
            port = free_port()
            self.buses[host] = f"nats://127.0.0.1:{port}"
            conf = self.write(host + ".conf", f'port: {port}, host: "127.0.0.1"\nserver_name: {host}\nleafnodes {{ remotes: [{{ url: "nats-leaf://127.0.0.1:{self.leaf_port}" }}], reconnect: 1 }}\n')
            self.serve(host, conf)
        until(lambda: sum("Leafnode connection created" in line for line in self.servers["hub"].err) == 2, "both leaves are joined")

    def start_hub(self):
        self.serve("hub", self.write("hub.conf", f'port: {self.port}, host: "127.0.0.1"\nserver_name: hub\nleafnodes {{ listen: "127.0.0.1:{self.leaf_port}" }}\n'
                                                f'jetstream {{ store_dir: "{self.path("js")}" }}\n'))

    def serve(self, host, conf):
        self.servers[host] = Process([self.env.get("AMESH_NATS_SERVER", "nats-server"), "-c", conf], self.env, "nats-server " + host)
        self.processes.append(self.servers[host])
        self.servers[host].wait_line(lambda line: "Server is ready" in line, stream="err")

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def at(self, host):
        return {"AMESH_BUS": self.buses[host], "HOST": host}

    def instance(self, host, name, *options):
        return self.agent(name, *options, "--", PY, "-c", AGENT, self.path(name + ".log"), env=self.at(host))

    def ask(self, host, *args):
        return self.run("ask", *args, env=self.at(host), deadline=60)

    def begin_at(self, host, *args):
        return self.begin("ask", *args, env=self.at(host), deadline=60)

    def begun(self, name):
        return self.lines_of(name + ".log")


def end(thread):
    thread.join()
    return thread.result.ok().out.strip()


def local_first(mesh):
    for host in ("a", "b"):
        mesh.instance(host, "near", "--skill", "nearby")
    for host in ("a", "b"):
        for i in range(10):
            check(mesh.ask(host, "near", f"n{i}").ok().out.strip() == "done by " + host, "by name it stays on its host")
            check(mesh.ask(host, "--skill", "nearby", f"s{i}").ok().out.strip() == "done by " + host, "by skill, too")
    check(mesh.ask("hub", "near", "x").ok().out.startswith("done by "), "the hub has none, and reaches one")
    rows = mesh.run("show", "near", "--json", env=mesh.at("b")).ok().json()["instances"]
    check(len(rows) == 2, "everybody sees both", rows)


def spill(mesh):
    """One slot on each host. The second call of host a goes to b, the third waits, and has the slot that frees first, wherever that is."""
    raw, gates = Nats(mesh.bus), {host: mesh.path("gate-" + host) for host in ("a", "b")}
    for host in gates:
        mesh.instance(host, "narrow", "--skill", "thin", "--concurrency", "1")
    for by in (("narrow",), ("--skill", "thin")):
        before = len(mesh.begun("narrow"))
        first = mesh.begin_at("a", *by, "first " + gates["a"])
        until(lambda: len(mesh.begun("narrow")) == before + 1, "the first works")
        second = mesh.begin_at("a", *by, "second " + gates["b"])
        until(lambda: len(mesh.begun("narrow")) == before + 2, "the second works")
        third = mesh.begin_at("a", *by, "third")
        until(lambda: waiting_calls(raw) == 1, "the third waits")
        check(len(mesh.begun("narrow")) == before + 2, "with nobody")
        open(gates["b"], "w").close()
        check(end(third) == end(second) == "done by b", "the second went to b, and what waited has b's slot")
        open(gates["a"], "w").close()
        check(end(first) == "done by a", "the first stayed at home")
        for gate in gates.values():
            os.unlink(gate)


def once(mesh):
    """Many calls from everywhere, few slots: each is done, and once. A request that is on its way to another host while the last one there becomes full is lost between the servers; of a safe agent it is sent again."""
    for host in ("a", "b"):
        mesh.instance(host, "few", "--concurrency", "2", "--retry", "safe")
    threads = [mesh.begin_at(host, "few", f"{host}-{i}") for i in range(12) for host in ("a", "b", "hub")]
    check(all(end(t).startswith("done by") for t in threads), "all end well")
    texts = [line.split(" ", 1)[1] for line in mesh.begun("few")]
    check(len(texts) == len(set(texts)) == 36, "each was begun once", sorted(texts))


def gone(mesh):
    """What tells that somebody is not there any more works over a leaf: nobody of that name, a caller that was killed, an instance that was killed."""
    check(mesh.ask("a", "nobody", "x").status == 4, "nobody of that name")
    mesh.instance("b", "far")
    caller = mesh.spawn("ask", "far", "wait " + mesh.path("never"), env=mesh.at("a"))
    until(lambda: mesh.begun("far"), "it works")
    caller.signal(signal.SIGKILL)
    caller.wait()
    tasks = until(lambda: mesh.run("task", "ls", "--agent", "far", "--json").ok().json()["tasks"], "it is in history")
    until(lambda: mesh.state(tasks[0]["id"]) == "TASK_STATE_CANCELED", "the callee notices that its caller has gone")
    both = [mesh.instance(host, "mortal", "--retry", "safe") for host in ("a", "b")]
    gate = mesh.path("gate-mortal")
    thread = mesh.begin_at("a", "mortal", "work " + gate)
    until(lambda: mesh.begun("mortal"), "it works at home")
    both[0].signal(signal.SIGKILL)
    until(lambda: len(mesh.begun("mortal")) == 2, "it goes to the other host")
    open(gate, "w").close()
    check(end(thread) == "done by b", "and ends there")


def large(mesh):
    """A file that is larger than a message, there and back."""
    mesh.agent("copy", "--", "sh", "-c", 'cp "$AMESH_IN"/* "$AMESH_OUT"', env=mesh.at("b"))
    source = mesh.path("large.bin")
    with open(source, "wb") as f:
        f.write(os.urandom(3 << 20))
    mesh.ask("a", "copy", "copy it", "--file", source, "--output", mesh.path("out")).ok()
    with open(source, "rb") as f, open(mesh.path("out/large.bin"), "rb") as g:
        check(f.read() == g.read(), "it came back whole")


def without_hub(mesh):
    """The hub dies: calls inside of a host go on, calls to others wait or say that nobody is there; it comes back, and everything is as before, with durable tasks."""
    mesh.instance("a", "home")
    mesh.instance("b", "abroad")
    mesh.servers["hub"].signal(signal.SIGKILL)
    mesh.servers["hub"].wait()
    check(mesh.ask("a", "home", "alone").ok().out.strip() == "done by a", "a host by itself")
    mesh.start_hub()
    until(lambda: mesh.ask("a", "abroad", "again").status == 0, "the other host is reached again")
    check(mesh.ask("a", "--durable", "abroad", "kept").ok().out.strip() == "done by b", "durable tasks, too")


def main():
    with Hosts() as mesh:
        tap.run("a call stays on its host while somebody there is free", local_first, mesh)
        tap.run("it goes elsewhere when nobody at home is free, and waits for whoever is free first", spill, mesh)
        tap.run("many calls of three hosts are each done once", once, mesh)
        tap.run("who is gone is noticed across hosts", gone, mesh)
        tap.run("files cross hosts", large, mesh)
        tap.run("without the hub each host goes on by itself", without_hub, mesh)
    new = os.environ.get("AMESH_TEST_NATS_NEW")
    if not new:
        tap.skip("the same with a current nats-server", "it could not be fetched")
    else:
        with Hosts(nats=new) as mesh:
            tap.run("a current nats-server: at home first", local_first, mesh)
            tap.run("a current nats-server: elsewhere, and in one queue", spill, mesh)
    tap.done()


main()
