#!/usr/bin/env python3
"""The simulator (sim/): promises hold over many seeds, the same seed is the same run in every build, and a disk that lies is found out."""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support")]
from meshtest import BUILD, TOP, Tap, check  # noqa: E402

SANITIZED, FAST, BUGGY = os.path.join(BUILD, "amesh-sim"), os.path.join(TOP, "build/release/amesh-sim"), os.path.join(TOP, "build/release/amesh-sim-bugs")
tap = Tap()


def run(program, *args):
    r = subprocess.run([program, *args], capture_output=True, text=True, timeout=540, check=False)
    check("Sanitizer" not in r.stderr and r.returncode in (0, 1), f"{args} ends in good order", r.returncode, r.stderr[-3000:])
    return r


def holds(program, seeds):
    r = run(program, "--seeds", seeds, "--jobs", str(os.cpu_count() or 1))
    check(r.returncode == 0 and r.stdout.endswith("seeds, 0 failed\n"), "every promise holds", r.stdout[-3000:])


def same(seed):
    told = [run(program, "--seed", seed).stdout for program in (SANITIZED, FAST, FAST)]
    check(len(told[0].splitlines()) > 20 and told[0] == told[1] == told[2], "word for word", *[t[-500:] for t in told])


# Each breaks a promise on purpose (mesh/base/seeded.h); what the simulator then says begins with one of these.
BUGS = {
    "lost-sync": "P1",             # the disk says that it has synced, and has not
    "early-answer": "P1",          # accepted before it is written
    "early-publish": "P1|P4",      # shown before it is written
    "forgotten-at-restart": "P2",  # what was given away is not taken up again
    "tried-for-ever": "P2",        # poison has no end
    "lost-key": "P3",              # the key is not written
    "two-ends": "P3",
    "half-answer": "P3",           # completed, with what was said after the cancel left out
    "lost-event": "P4",
    "unread-stream": "P7",         # what was said while nobody listened is not read
    "unsafe-retry": "P5",          # tried again although that was forbidden
}


def bites(bug, promise):
    r = run(BUGGY, "--seeds", "200", "--bug", bug, "--jobs", str(os.cpu_count() or 1))
    said = re.findall(rf"^seed \d+: at [0-9.]+ s: ({promise}): ", r.stdout, re.M)
    check(r.returncode == 1 and said, f"{bug} breaks {promise}", r.stdout[-1500:])
    print(f"# {bug}: {promise} is broken in {len(said)} of 200 seeds")


tap.run("2000 seeds", holds, FAST, "2000")
tap.run("200 seeds under the sanitizers", holds, SANITIZED, "2001-2200")
for n in ("5", "47"):
    tap.run(f"seed {n} is the same run in each build", same, n)
for name, broken in BUGS.items():
    tap.run(f"the checks bite: {name} breaks {broken}", bites, name, broken)
tap.done()
