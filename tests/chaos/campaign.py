#!/usr/bin/env python3
"""The campaign: real processes, real faults, and a checker that reads what clients had acknowledged and what history says (make chaos).

    campaign.py [--seconds N] [--seed N] [--only TEXT] [--once] [--quick] [--resume] [--list]

Every fault is made once, then random ones until the time is over; those of which a long campaign wants a number come first. The time is looked at before each fault (with --once it is
not): those that it was over for, and those that this machine cannot make, are named as not made. Each run is a line of build/chaos/runs.jsonl as soon as it is done, report.md and
report.json are made of all lines; --resume adds to them, those that were never made first. Exit 1: a promise was broken; the report says how to repeat that run.
"""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, "tests/support")]
import faults_disk  # noqa: E402
import faults_kill  # noqa: E402
import faults_load  # noqa: E402
import faults_net  # noqa: E402
import faults_sidecar  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402
import sweep  # noqa: E402
from meshtest import Failed, Skipped  # noqa: E402
from world import AMESH, clean_base  # noqa: E402

FAULTS = [*faults_kill.FAULTS, *faults_sidecar.FAULTS, *faults_disk.FAULTS, *faults_load.FAULTS, *faults_net.FAULTS]
OUT = os.environ.get("CHAOS_OUT", os.path.join(TOP, "build/chaos"))


class Campaign:
    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        self.base = clean_base()
        self.ends = time.monotonic() + options.seconds
        self.done, self.broken = {}, 0
        os.makedirs(OUT, exist_ok=True)
        self.runs_path = os.path.join(OUT, "runs.jsonl")
        if not options.resume and os.path.exists(self.runs_path):
            os.unlink(self.runs_path)
        for run in report.read([self.runs_path]) if os.path.exists(self.runs_path) else ():
            self.count(run)
        self.where = machine.known(AMESH, faults_disk.current_server())

    def count(self, run):
        if run["result"] != "skipped":
            self.done[run["name"]] = self.done.get(run["name"], 0) + run.get("seen", {}).get(run.get("unit"), 1)

    def one(self, fault, seed):
        began, why, seen, result = time.monotonic(), "", {}, "kept"
        try:
            seen = fault.run(self.base, seed)
        except Skipped as e:
            result, why = "skipped", str(e)
        except Failed as e:
            result, why = "broken", str(e)
        except Exception:
            result, why = "broken", traceback.format_exc()
        return self.write(fault, seed, round(time.monotonic() - began, 1), result, why, seen)

    def write(self, fault, seed, seconds, *outcome):
        result, why, seen = outcome
        again = f"make chaos ONLY='{fault.name}' SEED={seed} ONCE=1"
        run = {"fault": fault.number, "name": fault.name, "promise": fault.promise, "seed": seed, "campaign": self.options.seed, "result": result, "why": why, "seen": seen, "unit": fault.unit,
               "again": again, "seconds": seconds, **self.where}
        with open(self.runs_path, "a") as f:
            f.write(json.dumps(run) + "\n")
        self.count(run)
        self.broken += result == "broken"
        print(f"{result:8} {fault.number:4} {fault.name:50} seed {seed:<10} {run['seconds']:6.1f} s  "
              + (why.splitlines()[0] if why else ", ".join(f"{k} {v}" for k, v in seen.items())), flush=True)
        if result == "broken":
            print("\n".join(f"    | {line}" for line in why.splitlines()[:40]) + f"\n    again: {again}", flush=True)
        return run

    def next_fault(self, faults):
        """One of those that lack the most of what is wanted; else any."""
        lacking = [f for f in faults if f.wanted and self.done.get(f.name, 0) < f.wanted]
        return self.random.choice(lacking or faults)

    def run(self):
        faults = [f for f in FAULTS if self.options.only in (f.number, f.name, "")]
        faults = [f for f in faults if f.is_quick or not self.options.quick]
        if not faults:
            raise SystemExit(f"no fault is called {self.options.only!r}")
        faults.sort(key=lambda f: f.name in self.done)
        possible = []
        for fault in faults:
            seed = self.options.seed if self.options.once else self.random.randrange(1 << 31)
            if self.is_over():
                self.write(fault, seed, 0.0, "skipped", f"the {self.options.seconds:.0f} s were over", {})
            elif self.one(fault, seed)["result"] != "skipped":
                possible.append(fault)
        while possible and not self.options.once and not self.is_over():
            self.one(self.next_fault(possible), self.random.randrange(1 << 31))

    def is_over(self):
        return not self.options.once and time.monotonic() >= self.ends


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--only", default="")
    for flag in ("--once", "--quick", "--resume", "--list"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


def main():
    given = options()
    if given.list:
        print("\n".join(f"{f.number:4} {f.name}: {f.promise}" for f in FAULTS))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"campaign, seed {given.seed}, {given.seconds:.0f} s, {AMESH}", flush=True)
    campaign = Campaign(given)
    try:
        campaign.run()
    finally:
        sweep.clean(campaign.base)
        if os.path.exists(campaign.runs_path):
            rows = report.write(OUT, report.read([campaign.runs_path]))
            print("\n".join(report.not_made(rows)), end="")
            print(f"{sum(r['runs'] for r in rows)} runs, {sum(r['broken'] for r in rows)} broke a promise: {os.path.join(OUT, 'report.md')}", flush=True)
    return 1 if campaign.broken else 0


if __name__ == "__main__":
    sys.exit(main())
