#!/usr/bin/env python3
"""Time as users meet it: tasks that start later, schedules, a wall clock that jumps by an hour while tasks run, an environment that is killed around the times of its schedules."""
import datetime
import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support")]
from clocked import HOUR, LIBRARY, Clocked  # noqa: E402
from meshtest import Failed, Tap, check, until  # noqa: E402

SEED = int(os.environ.get("SEED", "20261128"))
tap = Tap()


class Timers(Clocked):
    def ask(self, *args):
        return self.run("ask", *args).ok().out.strip()

    def schedule(self, name):
        return self.run("schedule", "show", name, "--json").ok().json()

    def runs(self, name):
        return self.run("task", "ls", "--schedule", name, "--limit", "1000", "--json").ok().json()["tasks"]


def ended(mesh, task):
    return until(lambda: mesh.state(task) == "TASK_STATE_COMPLETED" and mesh.show(task), f"{task} is completed", 20)


def what_runs_does_not_see_the_clock(mesh):
    gate = os.path.join(mesh.home, "gate")
    os.mkfifo(gate)
    mesh.agent("gated", "--concurrency", "4", "--", "sh", "-c", f"read line < {gate}; echo done")
    limited = mesh.ask("--detach", "--timeout", "30m", "gated", "with a limit")
    until(lambda: mesh.state(limited) == "TASK_STATE_WORKING", "it runs")
    late = mesh.ask("--in", "2s", "up", "two seconds later")
    for jump in (HOUR, -2 * HOUR, HOUR, -24 * HOUR, 24 * HOUR):
        mesh.set(jump)
        check(limited in mesh.run("task", "ls", "--open").ok().out, f"it is open at {jump:+d} s")
    ended(mesh, late)
    mesh.set(-HOUR)
    with open(gate, "w") as f:
        f.write("go\n")
    task = ended(mesh, limited)
    mesh.set(HOUR)
    attempts = task["metadata"]["amp/attempts"]
    check(len(attempts) == 1 and attempts[0]["outcome"] == "completed", "one attempt, whose lease held", attempts)


def at_a_time_goes_by_the_clock(mesh):
    at = (mesh.now() + datetime.timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    task = mesh.ask("--at", at, "--timeout", "20s", "up", "at a time")
    check(f"starts at {at}" in mesh.run("task", "ls", "--open").ok().out, "it says when it starts")
    mesh.kill_env()
    mesh.start_env()
    check(mesh.state(task) == "TASK_STATE_SUBMITTED", "it waits on after a kill -9")
    mesh.set(HOUR)
    done = ended(mesh, task)
    mesh.set(-HOUR)
    check(done["metadata"]["amp/notBefore"].startswith(at[:-1]), "its metadata say when it was to start", done)


def schedules_and_a_clock_that_is_set(mesh):
    cron = mesh.ask("--cron", "* * * * *", "--tz", "UTC", "--overlap", "allow", "up", "each minute")
    every = mesh.ask("--every", "1s", "up", "each second")
    mesh.set(10 * 60)
    first = until(lambda: mesh.schedule(cron).get("runs") == 1 and mesh.schedule(cron), "one run stands for all minutes that were skipped", 20)
    check(8 <= first["missed"] <= 10, "and says how many", first)
    mesh.set(-HOUR)
    before = mesh.schedule(every)["runs"]
    until(lambda: mesh.schedule(every)["runs"] >= before + 2, "an interval goes on when the clock is set back", 20)
    check(mesh.schedule(cron)["runs"] == 1, "no minute is run twice", mesh.schedule(cron))
    mesh.set(HOUR + 60)
    until(lambda: mesh.schedule(cron)["runs"] == 2, "it goes on behind the last one", 20)
    for name in (cron, every):
        mesh.run("schedule", "rm", name).ok()


def kills_around_the_times_of_schedules(mesh):
    rng = random.Random(SEED)
    names = [mesh.ask("--every", "1s", "--overlap", how, "up", how) for how in ("allow", "skip", "queue")]
    for _ in range(8):
        until(lambda: mesh.run("schedule", "ls").status == 0, "it answers")
        end = datetime.datetime.now() + datetime.timedelta(seconds=rng.uniform(0.2, 1.4))
        until(lambda: datetime.datetime.now() > end, "a moment passes")
        mesh.kill_env()
        mesh.start_env()
    for name in names:
        mesh.run("schedule", "pause", name).ok()
        until(lambda: mesh.schedule(name)["open"] == 0 and not mesh.schedule(name).get("queued"), f"{name} has ended what it began", 30)
        seen, runs = mesh.schedule(name), mesh.runs(name)
        planned = [task["metadata"]["amp/planned"] for task in runs]
        check(len(runs) == seen["runs"] > 0, "each run that it counts is a task, and no other is", seen, len(runs))
        check(len(set(planned)) == len(planned), "no time was run twice", planned)
        check(all(task["status"]["state"] == "TASK_STATE_COMPLETED" for task in runs), "all of them ended", runs)
    check(mesh.run("env", "verify").status == 0, "the journal is sound")


def shapes_of_documents(mesh):
    made = json.loads(mesh.ask("--cron", "0 9 * * mon-fri", "--tz", "UTC", "--key", "k", "--json", "up", "work"))
    again = json.loads(mesh.ask("--cron", "0 9 * * mon-fri", "--tz", "UTC", "--key", "k", "--json", "up", "work"))
    check(made["id"] == again["id"] and made["state"] == "active" and made["overlap"] == "skip", "a key means the same schedule", made, again)
    other = mesh.run("ask", "--cron", "0 8 * * mon-fri", "--tz", "UTC", "--key", "k", "up", "work")
    check(other.status == 8 and "AMESH-4005" in other.err, "and no other one", other.err)
    listed = mesh.run("schedule", "ls", "--json").ok().json()["schedules"]
    check(made["id"] in [s["id"] for s in listed], "ls lists it", listed)
    task = mesh.run("schedule", "run", made["id"], "--json").ok().json()
    check(ended(mesh, task["id"])["metadata"]["amp/schedule"] == made["id"], "a run names its schedule", task)
    words = mesh.run("__complete", "--", "schedule", "show", "").ok().out
    check(made["id"] in words, "the shell completes its id", words)
    check(mesh.run("schedule", "rm", made["id"], "--json").ok().json() == {"id": made["id"]}, "rm says what went")
    check(mesh.run("schedule", "show", made["id"]).status == 4, "it is gone")
    said = mesh.run("ask", "--cron", "61 * * * *", "up", "work")
    check("the minute goes from 0 to 59: 61 is none of it" in said.err, "which value is wrong, and what is right", said.err)
    done = mesh.ask("--every", "1s", "--count", "1", "up", "work")
    until(lambda: mesh.schedule(done)["state"] == "done", "its only run is made", 20)
    for verb in ("pause", "resume"):
        over = mesh.run("schedule", verb, done)
        check(over.status == 8 and f"schedule {done} is done" in over.err and "AMESH-4005" in over.err and f"amesh schedule show {done}" in over.err, f"{verb} of one that is done", over.status, over.err)
    for wrong in (("--at", "25:00"), ("--at", "2020-01-01T00:00:00Z"), ("--cron", "61 * * * *"), ("--cron", "@daily", "--tz", "Mars/Olympus"), ("--every", "10ms"), ("--every", "1s", "--cron", "@daily"),
                  ("--count", "2"), ("--at", "09:00", "--in", "1s"), ("--every", "1s", "--overlap", "maybe")):
        said = mesh.run("ask", *wrong, "up", "work")
        check(said.status == 2 and "Try: " in said.err and not said.out, f"{wrong} is refused with what to do", said.err)


def main():
    try:
        with Timers() as mesh:
            mesh.agent("up", "--concurrency", "8", "--", "cat")
            tap.run("documents, keys, exit codes and refusals of schedules", shapes_of_documents, mesh)
            if LIBRARY:
                tap.run("deadlines, leases, delays and running tasks do not see the wall clock jump", what_runs_does_not_see_the_clock, mesh)
                tap.run("a task at a time starts when the clock shows it", at_a_time_goes_by_the_clock, mesh)
                tap.run("schedules and a clock that is set: nothing twice, one run for what was missed, intervals go on", schedules_and_a_clock_that_is_set, mesh)
            else:
                tap.skip("a wall clock that jumps", "libfaketime is not here")
            tap.run("kill -9 around the times of schedules: no run twice, none forgotten", kills_around_the_times_of_schedules, mesh)
    except Failed as e:
        tap.run("the mesh of these tests", lambda: (_ for _ in ()).throw(e))
    tap.done()


main()
