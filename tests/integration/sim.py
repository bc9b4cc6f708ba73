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
JOBS = str(os.cpu_count() or 1)
tap = Tap()


def run(program, *args):
    r = subprocess.run([program, *args], capture_output=True, text=True, timeout=540, check=False)
    check("Sanitizer" not in r.stderr and r.returncode in (0, 1), f"{args} ends in good order", r.returncode, r.stderr[-3000:])
    return r


def holds(program, seeds):
    r = run(program, "--seeds", seeds, "--jobs", JOBS)
    check(r.returncode == 0 and r.stdout.endswith("seeds, 0 failed\n"), "every promise holds", r.stdout[-3000:])


# Each found a fault in a campaign of a million; their schedules change when the simulator does, so they are worth little more than other seeds then.
FOUND = (3577, 7665, 13718, 34953, 38269, 66944, 67785, 100236, 104860, 107060, 144717, 199200, 208123, 259016, 294721, 322145, 379516, 552748, 701185, 709038, 943660)


def hold_now():
    for seed in FOUND:
        holds(FAST, f"{seed}-{seed}")


def same_words(seed):
    told = [re.sub(r"/amesh-sim-\w+/", "/", run(program, "--seed", seed).stdout) for program in (SANITIZED, FAST, FAST)]  # its folder is its own
    check(len(told[0].splitlines()) > 20 and told[0] == told[1] == told[2], "word for word", *[t[-500:] for t in told])


def same_way(seeds):
    told = [re.search(r"^digest \w+$", run(program, "--seeds", seeds, "--digest", "--jobs", JOBS).stdout, re.M).group() for program in (SANITIZED, FAST, BUGGY)]
    check(told[0] == told[1] == told[2], "the same way", *told)


# Each breaks a promise on purpose (mesh/base/seeded.h, sim/bugs.def); what the simulator then says begins with one of these.
with open(os.path.join(TOP, "sim/bugs.def"), encoding="utf-8") as f:
    BUGS = re.findall(r'^BUG\("([^"]+)", "([^"]+)", "[^"]+"\)', f.read(), re.M)


# Where they were seen when the page was made; when one is not there any more, it is looked for.
with open(os.path.join(TOP, "docs/reliability.md"), encoding="utf-8") as f:
    SEEN = {name: f"{seed}-{seed}" for name, seed in re.findall(r"^\| `([a-z-]+)`: .* \| (\d+) \| \d+ items \|$", f.read(), re.M)}


def bites(bug, promise):
    for seeds in (*([SEEN[bug]] if bug in SEEN else []), "1-100", "101-1000", "1001-4000"):
        r = run(BUGGY, "--seeds", seeds, "--bug", bug, "--jobs", JOBS)
        said = re.findall(rf"^seed (\d+): at [0-9.]+ s: (?:{promise}): ", r.stdout, re.M)
        if said:
            break
        print(f"# {bug}: not in the seeds {seeds}" + (", where docs/reliability.md has it first: scripts/bugs-table.py counts anew" if seeds == SEEN.get(bug) else ""))
    check(r.returncode == 1 and said, f"{bug} breaks {promise}", r.stdout[-1500:])
    print(f"# {bug}: {promise} is broken in {len(said)} of the seeds {seeds}")
    return said[0]


def no_such_bug():
    r = subprocess.run([BUGGY, "--seed", "2", "--bug", "nosuch"], capture_output=True, text=True, timeout=60, check=False)
    check(r.returncode == 2 and not r.stdout, "a usage error, and nothing is run", r.returncode, r.stdout)
    check('"nosuch"' in r.stderr and all(name in r.stderr for name, _ in BUGS), "it names those that there are", r.stderr)


def is_made_shorter():
    seed = bites("early-answer", "P1")
    shorter = run(BUGGY, "--seed", seed, "--bug", "early-answer").stdout
    again = re.search(r"^the shortest failing schedule found: (\d+) of (\d+) items.*?^then (at .*?)$.*?^again: amesh-sim (.*?)$", shorter, re.M | re.S)
    check(again and int(again[1]) < int(again[2]), "fewer items fail too", shorter[-1500:])
    replayed = run(BUGGY, *again[4].split(), "--bug", "early-answer").stdout
    check(f"seed {seed}: {again[3]}\n" in replayed, "the line that it gives fails in the same way", again[0], replayed[-500:])


tap.run("2000 seeds", holds, FAST, "2000")
tap.run("100 seeds under the sanitizers", holds, SANITIZED, "2001-2100")
tap.run("the seeds that found faults", hold_now)
tap.run("seed 5 is the same run in each build, word for word", same_words, "5")
tap.run("40 seeds take the same way in each build", same_way, "40")
tap.run("a seed that fails is made shorter, and what is left fails again", is_made_shorter)
tap.run("a fault that there is none of is a usage error", no_such_bug)
for name, broken in BUGS:
    tap.run(f"the checks bite: {name} breaks {broken}", bites, name, broken)
tap.done()
