#!/usr/bin/env python3
"""A short campaign (make chaos makes the long one): the checker bites, then each quick fault once, with a seed that is printed. Kills, power cuts and overload on the release, named points on
the build that has them."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
os.environ["AMESH_CHAOS_BINARY"] = os.environ.get("AMESH_RELEASE", os.path.join(TOP, "build/release/amesh"))
sys.path[:0] = [os.path.join(TOP, "tests/chaos"), os.path.join(TOP, "tests/support")]
import faults_disk  # noqa: E402
import faults_kill  # noqa: E402
import faults_load  # noqa: E402
import faults_sidecar  # noqa: E402
import sweep  # noqa: E402
from meshtest import Failed, Tap, check  # noqa: E402
from world import clean_base  # noqa: E402

SEED = int(os.environ.get("SEED", "20261128"))
tap = Tap()


def checker():
    done = subprocess.run([sys.executable, os.path.join(TOP, "tests/chaos/checker_test.py")], capture_output=True, text=True)
    check(done.returncode == 0, "its own tests", done.stdout)


def shipped():
    with open(os.environ["AMESH_CHAOS_BINARY"], "rb") as f:
        check(b"AMESH_CRASH_AT" not in f.read(), "the release does not know the variable")


def lying_disk(base):
    """The same power cuts under a library that never syncs: what was acknowledged is lost, and that is found."""
    library = os.path.join(os.path.dirname(os.environ["AMESH_CHAOS_BINARY"]), "tests/chaos/chaos_nosync.so")
    try:
        faults_disk.power_cuts(4, {"LD_PRELOAD": library})(base, SEED)
    except Failed as e:
        check("acknowledged tasks are lost" in str(e) or "no line 'ready" in str(e) or "ended without the line" in str(e), "for this reason", e)
        print("#", str(e).splitlines()[0], flush=True)
        return
    raise Failed("nothing was lost on a disk that lies")


def one(base, fault):
    print("#", fault.name, fault.run(base, SEED), flush=True)


def points(base):
    """Some of the named points, on the build that has them, as a program of its own."""
    asan = os.path.join(os.environ.get("AMESH_BUILD", os.path.join(TOP, "build/asan")), "amesh")
    code = f"import sys; sys.path[:0]={sys.path[:2]!r}; import faults_kill as k; [print('#', n, k.at_point(n, r)({base!r}, {SEED})) for n, r in {SHORT_POINTS!r}]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ, AMESH_CHAOS_BINARY=asan))
    print(done.stdout, end="")
    check(done.returncode == 0, "what was acknowledged is there, and ends once", done.stdout[-500:], done.stderr[-3000:])


SHORT_POINTS = [("env_written", "env"), ("env_committed", "env"), ("sidecar_done", "sidecar"), ("sidecar_ended", "sidecar")]
SHORT = [
    faults_kill.Fault("K", "25 random kills of agent, sidecar, environment and nats-server under load: nothing lost, nothing doubled", "", faults_kill.storm(faults_kill.ROLES, 25, (20, 200))),
    faults_kill.Fault("F5", "3 power cuts: what was acknowledged is there", "", faults_disk.power_cuts(3)),
    *(fault for fault in faults_sidecar.FAULTS + faults_load.FAULTS if fault.is_quick),
]

base = clean_base()
print(f"# seed {SEED}")
try:
    tap.run("the checker finds what is broken on purpose", checker)
    tap.run("no environment variable ends a shipped program", shipped)
    for fault in SHORT:
        tap.run(fault.name, one, base, fault)
    tap.run("a power cut under a library that never syncs is found to lose what was acknowledged", lying_disk, base)
    tap.run("ended at named points: between journal and commit, between commit and answer, around an agent's last word", points, base)
finally:
    sweep.clean(base)
tap.done()
