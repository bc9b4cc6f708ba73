#!/usr/bin/env python3
"""Retention by size on a real environment: what goes, in which order, and what stays whatever it costs. Tasks of two hours ago are made by an environment whose wall clock is behind."""
import contextlib
import json
import os
import sqlite3
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from clocked import HOUR, LIBRARY, Clocked  # noqa: E402
from journaltest import path, verify  # noqa: E402
from lib_nats import Nats  # noqa: E402
from meshtest import Failed, Tap, check, until  # noqa: E402

OLD = 150  # tasks that ended long ago: more than are removed at once
ANSWER = "import sys,json\nfor line in sys.stdin:\n f=json.loads(line)\n if f.get('method')=='task.run': print(json.dumps({'id':f['id'],'result':f['params']['text']+'.'*20000}),flush=True)"
tap = Tap()


class Old(Clocked):
    SET_BY = -2 * HOUR

    def submit(self, agent, names):
        """Durable tasks, one after the other; → their ids"""
        nats, ids = Nats(self.bus), []
        for name in names:
            message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": name}]}
            body = {"version": 1, "from": "tester", "envRequest": {"submit": {"agent": agent, "key": name, "request": {"taskId": "", "contextId": "", "message": message}}}}
            reply = json.loads(nats.request("amp.env.submit.tester", json.dumps(body).encode())[3])["envReply"]
            check("error" not in reply, f"{name} is accepted", reply)
            ids.append(reply["tasks"][0]["task"]["id"])
        nats.sock.close()
        return ids

    def all_ended(self, n_open):
        until(lambda: len(self.listed("--open")) == n_open, f"all but {n_open} have ended")

    def listed(self, *which):
        return [task["id"] for task in self.run("task", "ls", "--limit", "1000", "--json", *which).ok().json()["tasks"]]

    def used(self):
        """Bytes of the journal that hold something, as retention counts them."""
        with contextlib.closing(sqlite3.connect(f"file:{path(self)}?mode=ro", uri=True)) as db:
            pages, free, size = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def stop_env(self):
        self.up.stop()


def fill(mesh):
    mesh.agent("answers", "--mode", "jsonl", "--", sys.executable, "-c", ANSWER)
    mesh.agent("dies", "--", "sh", "-c", "kill -9 $$")
    mesh.run("kv", "put", "--shared", "kept", "1").ok()
    mesh.always = mesh.submit("nobody-there", ["waits"]) + mesh.submit("dies", ["poison"])
    mesh.all_ended(1)
    mesh.old = mesh.submit("answers", [f"old-{i}" for i in range(OLD)])
    mesh.all_ended(1)


def check_kept(mesh, *more):
    """What is never removed is there, and of the others the newest."""
    there = set(mesh.listed())
    check(set(mesh.always) <= there and set(mesh.always[1:]) == set(mesh.listed("--dead")), "the open one and the dead letter, the oldest of all, stay", there)
    check(mesh.run("kv", "get", "--shared", "kept").ok().out.strip() == "1", "and memory")
    left = [task for task in mesh.old if task in there]
    check(left == mesh.old[len(mesh.old) - len(left):], "of what has ended the oldest went", len(left))
    check(there == {*mesh.always, *left, *more}, "nothing else did", there)
    check(verify(mesh).ok().json()["sound"], "the journal is sound")
    return len(left)


def by_itself(mesh):
    bound = mesh.used() // 2
    mesh.stop_env()
    mesh.set(2 * HOUR)
    mesh.start_env("--retain-bytes", str(bound))
    fresh = mesh.submit("answers", [f"fresh-{i}" for i in range(3)])
    until(lambda: mesh.used() <= bound, "the journal uses no more than it may")
    mesh.all_ended(1)
    left = check_kept(mesh, *fresh)
    check(0 < left < OLD, "and no more went than had to", left)
    again = mesh.submit("answers", ["old-0"])
    check(again[0] != mesh.old[0] and mesh.submit("answers", [f"old-{OLD - 1}"]) == mesh.old[-1:], "a key goes with its task, and stays with it")
    mesh.all_ended(1)
    mesh.stop_env()
    mesh.start_env("--retain-bytes", "1")
    until(lambda: not set(mesh.listed()) & set(mesh.old), "with less room all that ended long ago goes")
    check_kept(mesh, *fresh, *again)
    mesh.restart_env()
    check_kept(mesh, *fresh, *again)
    mesh.fresh = fresh + again


def by_hand(mesh):
    """env prune does not wait for an hour to pass."""
    mesh.old = mesh.fresh + mesh.submit("answers", [f"new-{i}" for i in range(OLD)])
    mesh.all_ended(1)
    before = mesh.used()
    refused = mesh.run("env", "prune", "--retain-bytes", "1K")
    check(refused.status == 8 and "Try:" in refused.err and "--retain-bytes" in refused.err, "not while an environment runs", refused.status, refused.err)
    mesh.stop_env()
    rest = mesh.run("env", "prune", "--retain-bytes", "1T", "--json").ok().json()
    check(rest["tasks"] == 0, "nothing goes where there is room", rest)
    half = mesh.run("env", "prune", "--retain-bytes", f"{before // 2048}K", "--json").ok().json()
    check(0 < half["tasks"] < len(mesh.old) and half["bytes"] <= before // 2048 * 1024 < half["bytesBefore"], "the file is as small as it was to be", half, before)
    check(verify(mesh).ok().json()["sound"], "and sound")
    mesh.start_env()
    check(check_kept(mesh) == len(mesh.old) - half["tasks"], "it says how many went", half)
    mesh.stop_env()
    mesh.run("env", "prune", "--retain-bytes", "1").ok()
    mesh.start_env()
    check(check_kept(mesh) == 0, "with less room all that has ended goes")


def no_sizes(mesh):
    mesh.stop_env()
    for text in ("", "0", "-1", "10X", "10 G", "10g", "0x10", "1e3", "inf", "2000000T"):
        for command in (("env", "prune"), ("env",), ("up",)):
            r = mesh.run(*command, f"--retain-bytes={text}")
            check(r.status == 2 and f'--retain-bytes: "{text}" is no size' in r.err and "Try: such as 500M, 10G" in r.err, f"{command} {text!r} is refused", r.status, r.err)
    for text in ("500M", "1.5G", "10GB", "10GiB", "1T", "2000000000"):
        check(mesh.run("env", "prune", f"--retain-bytes={text}", "--json").ok().json()["tasks"] == 0, f"{text} is one")
    mesh.start_env()
    check_kept(mesh)


def main():
    claims = (("a journal that is larger than it may be loses what ended first, by itself; what is open, fresh, dead letters and memory stay", by_itself),
              ("amesh env prune --retain-bytes does so by hand, and the file is smaller then", by_hand), ("what is no size is refused, and nothing goes", no_sizes))
    if not LIBRARY:
        for claim, _ in claims:
            tap.skip(claim, "libfaketime is not here")
        tap.done()
    try:
        with Old() as mesh:
            fill(mesh)
            for claim, function in claims:
                tap.run(claim, function, mesh)
    except Failed as e:
        tap.run("the mesh of these tests", lambda: (_ for _ in ()).throw(e))
    tap.done()


main()
