#!/usr/bin/env python3
"""A journal that is missing, or damaged with no backup: nothing begins anew in silence, and what is saved is a sound journal that tells what it lacks."""
import json
import os
import sqlite3
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from journaltest import ask, path, sealed, task_ids, tasks, verify  # noqa: E402
from meshtest import Mesh, Tap, check  # noqa: E402

tap = Tap()


def broken_rows(mesh, tasks_of, sql):
    mesh.up.stop()
    with sqlite3.connect(path(mesh)) as db:
        for task in tasks_of:
            check(db.execute(sql, (task,)).rowcount == 1, "a row is damaged", sql)
    db.close()
    check(verify(mesh).status == 3, "verify knows it")


def rescue(mesh, *words):
    """What the documentation says for a damaged journal without a backup. → what the import says"""
    sound, aside = os.path.join(mesh.home, "sound.jsonl"), tempfile.mkdtemp(prefix="aside-", dir=mesh.home)
    if os.path.exists(sound):
        os.unlink(sound)
    r = mesh.run("env", "export", os.path.join(mesh.home, "all.jsonl"))
    check(r.status == 3 and "--skip-corrupt" in r.err, "an export and verify agree", r.status, r.err)
    mesh.run("env", "export", "--skip-corrupt", sound).ok()
    for name in os.listdir(mesh.home):
        if name.startswith("journal.db") and os.path.isfile(os.path.join(mesh.home, name)):
            os.rename(os.path.join(mesh.home, name), os.path.join(aside, name))
    r = mesh.run("env", "import", *words, "--json", sound).ok().json()
    again = mesh.run("env", "import", *words, "--json", sound).ok().json()
    check(again["added"] == 0 and again["there"] > 0, "twice is once", again)
    found = verify(mesh)
    check(found.status == 0 and found.json()["sound"], "what was rescued is sound", found.out, found.err)
    for name in ("backup.db", "full.jsonl"):
        if os.path.exists(os.path.join(mesh.home, name)):
            os.unlink(os.path.join(mesh.home, name))
    mesh.run("env", "backup", os.path.join(mesh.home, "backup.db")).ok()
    mesh.run("env", "restore", os.path.join(mesh.home, "backup.db")).ok()
    mesh.run("env", "export", os.path.join(mesh.home, "full.jsonl")).ok()
    check(found.json()["incomplete"] >= len({l["task"] for l in r["lost"] if "from" in l}), "verify counts what lacks something", found.out)
    mesh.start_up()
    return r


def rescued(mesh):
    """Without a backup: what is sound goes on, what is lost is told where it was, and the journal is one again."""
    mesh.agent("counter", "--", "sh", "-c", "for i in 1 2 3 4 5 6; do echo line $i; sleep 0.1; done")
    other = json.loads(ask(mesh, "other", "--json").ok().out.splitlines()[-1])["id"]
    for sql, is_end in (("UPDATE events SET body = x'00' WHERE task = ?1 AND seq = (SELECT max(seq) FROM events WHERE task = ?1 AND seq < (SELECT max(seq) FROM events WHERE task = ?1))", False),
                        ("UPDATE events SET at = at + 1 WHERE task = ?1 AND seq = (SELECT max(seq) FROM events WHERE task = ?1)", True),
                        ("DELETE FROM events WHERE task = ?1 AND seq = (SELECT min(seq) FROM events WHERE task = ?1)", False)):
        task = json.loads(mesh.run("ask", "counter", "x", "--durable", "--json").ok().out.splitlines()[-1])["id"]
        events = mesh.run("task", "watch", task, "--json").ok().out.splitlines()
        broken_rows(mesh, [task], sql)
        r = rescue(mesh, "--continue")
        [lost] = [l for l in r["lost"] if l["task"] == task]
        places = range(lost["from"], lost["to"] + 1)
        check(1 <= lost["from"] <= lost["to"] <= len(events) and r["eventsLost"] >= len(places) and r["tasksLost"] == 0 and is_end == (lost["to"] == len(events)), "the import names what is lost", r, len(events))
        seen = [json.loads(line) for line in mesh.run("task", "watch", task, "--json").ok().out.splitlines()]
        check([e["seq"] for e in seen] == list(range(1, len(events) + 1)), "all numbers are there", seen)
        check({e["seq"] for e in seen if "amp/lost" in json.dumps(e)} == set(places), "those that are lost say so", lost, seen)
        check(all(json.dumps(e) == json.dumps(json.loads(events[e["seq"] - 1])) for e in seen if e["seq"] not in places), "the others are what they were", seen, events)
        shown = mesh.run("task", "show", task).ok().out
        check("events are missing: the journal was damaged" in shown and "is lost: the journal was damaged" in shown and "completed" in shown, "task show says so", shown)
        history = mesh.run("history", mesh.run("task", "show", task, "--json").ok().json()["contextId"]).ok()
        check("line 6" in history.out, "history has the answer", history.out)
    task = json.loads(ask(mesh, "rowless", "--key", "rowless", "--json").ok().out.splitlines()[-1])["id"]
    broken_rows(mesh, [task], "UPDATE tasks SET agent = 'mallory' WHERE id = ?1")
    r = rescue(mesh, "--continue")
    check(r["tasksLost"] == 1 and {"task": task} in r["lost"], "a task whose own row is lost is left out by name", r)
    check(mesh.run("task", "show", task).status == 4 and other in {t["id"] for t in tasks(mesh)}, "and the others are there")
    check(ask(mesh, "rowless", "--key", "rowless").ok().out.strip() == "ROWLESS", "its key is free")


def large_import(mesh):
    """More rows than one entry of the chain has."""
    file, other = os.path.join(mesh.home, "large.jsonl"), os.path.join(mesh.home, "large.db")
    row = {"scope": "shared", "owner": "", "version": 1, "at": 5, "value": {"base64": "MQ=="}}
    with open(file, "wb") as f:
        f.write(sealed(['{"format":"amesh-journal","version":1}'] + [json.dumps({"table": "kv", "row": dict(row, key=f"k{i}")}) for i in range(66000)]))
    mesh.run("env", "import", "--journal", other, file).ok()
    r = verify(mesh, "--journal", other)
    check(r.status == 0 and r.json()["rows"] == 66001, "sound", r.out[:500])


def missing_file(mesh):
    """journal.db is gone, and what is beside it knows of it: nothing begins anew in silence, and what the evidence is stays."""
    ask(mesh, "precious").ok()
    copy, file = os.path.join(mesh.home, "copy.db"), os.path.join(mesh.home, "all.jsonl")
    mesh.run("env", "backup", copy).ok()
    mesh.run("env", "export", file).ok()
    os.kill(mesh.up.child.pid, 9)
    mesh.up.wait()
    kept = {suffix: open(path(mesh, suffix), "rb").read() for suffix in ("-head", "-wal", "-shm")}
    n = int(kept["-head"].split()[3])
    for left in (("-head",), ("-wal",), ("-shm",), ("-head", "-wal", "-shm")):
        for suffix in ("",) + tuple(kept):
            if os.path.exists(path(mesh, suffix)):
                os.unlink(path(mesh, suffix))
        for suffix in left:
            with open(path(mesh, suffix), "wb") as f:
                f.write(kept[suffix])
        for args in (("up", "--detach"), ("env", "verify"), ("env", "export"), ("env", "backup", copy + ".2"), ("env", "prune", "--retain-age", "1s"), ("env", "import", file)):
            r = mesh.run(*args)
            check(r.status == 3 and "AMESH-4010" in r.err and "is missing" in r.err, f"amesh {' '.join(args)} refuses with {left}", r.status, r.err)
            check("amesh env restore FILE" in r.err and f"remove {path(mesh)}{', '.join(left)}" in r.err and "verify" not in r.err, "with what to do", r.err)
            check(("-head" not in left) == (f"knows of {n} committed entries" not in r.err), "and what is known of it", r.err)
        check(not os.path.exists(path(mesh)) and all(open(path(mesh, s), "rb").read() == kept[s] for s in left), "the evidence stays", os.listdir(mesh.home))
    mesh.run("env", "restore", copy).ok()
    check(verify(mesh).ok().json()["sound"], "a backup is restored over that")
    mesh.start_up()
    check(len(tasks(mesh)) == 1, "and has what it had")
    mesh.up.stop()
    for name in [n for n in os.listdir(mesh.home) if n.startswith("journal.db") and os.path.isfile(os.path.join(mesh.home, n))]:
        os.unlink(os.path.join(mesh.home, name))
    mesh.run("env", "import", file).ok()
    check(verify(mesh).ok().json()["sound"], "where nothing is left, an export is imported")
    os.unlink(path(mesh))
    r = mesh.run("up", "--detach")
    check(r.status == 3, "lost again", r.status, r.err)
    for suffix in r.err.split("remove " + path(mesh))[1].split()[0:9]:
        os.unlink(path(mesh, suffix.strip(",")))
    mesh.start_up()
    check(tasks(mesh) == [], "who removes what the error names begins anew")


def prune_damaged(mesh):
    """What is damaged is not pruned, nor anything else: the evidence would go with it."""
    task = json.loads(ask(mesh, "precious", "--json").ok().out.splitlines()[-1])["id"]
    ask(mesh, "next").ok()
    mesh.up.stop()
    with sqlite3.connect(path(mesh)) as db:
        db.execute("UPDATE events SET body = x'00' WHERE task = ? AND seq = (SELECT max(seq) FROM events WHERE task = ?)", (task, task))
    db.close()
    found = verify(mesh).json()
    check(len(found["findings"]) == 1, "verify knows it", found)
    r = mesh.run("env", "prune", "--retain-age", "1ms")
    check(r.status == 3 and "AMESH-4010" in r.err and "nothing was removed" in r.err and "amesh env verify" in r.err, "prune refuses", r.status, r.out, r.err)
    check(len(task_ids(path(mesh))) == 2 and verify(mesh).json()["findings"] == found["findings"], "and all is as it was")


with Mesh() as missing:
    missing.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a journal that is missing is refused while anything beside it knows of it", missing_file, missing)
with Mesh() as saved:
    saved.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a damaged journal without a backup is rescued: sound, and what is lost is told where it was", rescued, saved)
    tap.run("an import of more rows than an entry of the chain has is sound", large_import, saved)
with Mesh() as unpruned:
    unpruned.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a damaged journal is not pruned", prune_damaged, unpruned)
tap.done()
