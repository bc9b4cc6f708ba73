#!/usr/bin/env python3
"""The simulator (sim/): promises hold over many seeds, the same seed is the same run in every build, and a disk that lies is found out."""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support")]
from meshtest import BUILD, TOP, Tap, check  # noqa: E402

SANITIZED, FAST = os.path.join(BUILD, "amesh-sim"), os.path.join(TOP, "build/release/amesh-sim")
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


def bites():
    r = run(FAST, "--seeds", "100", "--bug", "lose-sync", "--jobs", "2")
    failed = int(re.search(r"(\d+) failed", r.stdout).group(1))
    check(failed >= 10 and "P1: task" in r.stdout, "accepted tasks are missed", r.stdout[-500:])


tap.run("2000 seeds", holds, FAST, "2000")
tap.run("200 seeds under the sanitizers", holds, SANITIZED, "2001-2200")
for n in ("5", "47"):
    tap.run(f"seed {n} is the same run in each build", same, n)
tap.run("a disk that only says that it has synced breaks the first promise", bites)
tap.done()
