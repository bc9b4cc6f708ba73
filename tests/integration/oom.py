#!/usr/bin/env python3
"""The kernel kills an agent for its memory: the death report says so. A control group of our own, so that nobody else is hit; that needs root."""
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from meshtest import AMESH, Mesh, Process, Tap, check, until  # noqa: E402

LIMIT = 256 << 20
HOG = """import sys
text = sys.stdin.read()
kept = []
while "eat" in text:
    kept.append(bytearray(b"x") * (8 << 20))
print("ate nothing")
"""
tap = Tap()


class Group:
    """A group of ours with LIMIT bytes of memory and no swap (v1 or v2), below the one that we are in."""

    def __init__(self):
        with open("/proc/self/cgroup") as f:
            mine = {line.split(":")[1]: line.strip().split(":", 2)[2] for line in f}
        name = f"amesh-test-{os.getpid()}"
        v1, v2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
        if os.path.exists(v1 + "/memory.limit_in_bytes"):
            below, files = v1 + mine.get("memory", ""), (("memory.limit_in_bytes", LIMIT), ("memory.memsw.limit_in_bytes", LIMIT))
            below = below if os.path.isdir(below) else v1
        else:
            below, files = v2 + mine.get("", ""), (("memory.max", LIMIT), ("memory.swap.max", 0))
            below = below if os.path.isdir(below) else v2
        while os.path.exists(os.path.join(below, name)):
            name += "-2"
        self.path = os.path.join(below, name)
        os.mkdir(self.path)
        try:
            for i, (file, value) in enumerate(files):
                if i == 0 or os.path.exists(os.path.join(self.path, file)):
                    with open(os.path.join(self.path, file), "w") as f:
                        f.write(str(value))
        except OSError:
            os.rmdir(self.path)
            raise

    def join(self):
        return "echo $$ > " + os.path.join(self.path, "cgroup.procs")

    def done(self):
        os.rmdir(self.path)


def agent(mesh, group, name, *command):
    run = Process(["sh", "-c", group.join() + " && exec \"$@\"", "sh", AMESH, "run", "--name", name, *command], mesh.env, name)
    mesh.processes.append(run)
    run.wait_line("ready ")


def killed_for_memory(group, elsewhere):
    with Mesh() as mesh:
        agent(mesh, elsewhere, "bystander", "--mode", "jsonl", "--", sys.executable, "-c", "import sys\nfor line in sys.stdin: pass")
        with open(os.path.join(mesh.home, "hog.py"), "w") as f:
            f.write(HOG)
        # Sanitizers take memory of their own: the agent is what grows, so the agent is what the kernel picks.
        agent(mesh, group, "hog", "--", sys.executable, mesh.home + "/hog.py")
        r = mesh.run("ask", "hog", "nothing").ok()
        check(r.out.strip() == "ate nothing", "it works as long as it is modest", r.out)
        r = mesh.run("ask", "hog", "eat", "--json")
        error = r.err.splitlines()[-1]
        check(r.status == 1 and '"AMESH-3004"' in error and '"oom":true' in error and '"signal":9' in error, "the caller is told", r.status, r.err)
        r = mesh.run("ask", "hog", "eat")
        check("memory" in r.err, "in words too", r.err)
        deaths = mesh.run("show", "hog", "--json").ok().json()["deaths"]
        check(len(deaths) == 2 and all(d["oom"] for d in deaths), "show has it", deaths)
        check("out of memory" in mesh.run("show", "hog").ok().out, "in words too")
        r = mesh.run("ask", "hog", "nothing").ok()
        check(r.out.strip() == "ate nothing", "the sidecar lives, and so does the next task", r.out)
        os.kill(mesh.run("show", "bystander", "--json").ok().json()["instances"][0]["pid"], signal.SIGKILL)
        death = until(lambda: mesh.run("show", "bystander", "--json").ok().json()["deaths"], "the other one's death is reported")[0]
        check(death["signal"] == 9 and not death["oom"], "one that was killed otherwise meanwhile, in another group, was not killed for memory", death)


CLAIM = "killed for memory by the kernel: the caller, show and history say so"
groups = []
try:
    groups += [Group()]
    groups += [Group()]
    tap.run(CLAIM, killed_for_memory, *groups)
except OSError as e:
    tap.skip(CLAIM, f"allowed: no control group for memory can be made here: {e}")
finally:
    for group in groups:
        group.done()
tap.done()
