#!/usr/bin/env python3
"""The journal's commands on a real environment under load, damage on its disk, and a disk that fails."""
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
import meshtest  # noqa: E402
from journaltest import ask, path, sealed, task_ids, tasks, verify  # noqa: E402
from meshtest import Mesh, Skipped, Tap, check, until  # noqa: E402

tap = Tap()
RELEASE = os.environ.get("AMESH_RELEASE", os.path.join(meshtest.TOP, "build/release/amesh"))


def again(mesh):
    """The environment stops in good order and starts anew."""
    mesh.up.stop()
    mesh.start_up()


def under_load(mesh, during):
    """during() while four callers submit; every accepted task must be in the journal after."""
    accepted, stop = [], threading.Event()

    def caller():
        while not stop.is_set():
            r = mesh.run("ask", "nobody", "x", "--durable", "--detach")
            if r.status == 0:
                accepted.append(r.out.strip())
    threads = [threading.Thread(target=caller) for _ in range(4)]
    for t in threads:
        t.start()
    until(lambda: len(accepted) > 8, "submits are accepted")
    before = len(accepted)
    try:
        result = during()
    finally:
        until(lambda: len(accepted) > before + 4, "and go on being accepted")
        stop.set()
        for t in threads:
            t.join()
    return result, accepted


def backup_under_load(mesh):
    ask(mesh, "one", "--key", "k-1").ok()
    copy = os.path.join(mesh.home, "copy.db")
    r, accepted = under_load(mesh, lambda: mesh.run("env", "backup", copy))
    check(r.ok().out.startswith("sound: "), "the copy was checked", r.out)
    check(verify(mesh, "--journal", copy).ok().json()["sound"], "and is sound")
    check(mesh.run("env", "backup", copy).status == 8, "a file that is there is not written over")
    live = verify(mesh).ok().json()
    check(live["sound"] and live["running"], "so is the journal, while it is written", live)
    with sqlite3.connect(path(mesh)) as db:
        there = {row[0] for row in db.execute("SELECT id FROM tasks")}
    check(set(accepted) <= there, "what was accepted meanwhile is there", set(accepted) - there)
    check(mesh.run("env", "restore", copy).status == 8, "nothing is restored under a running environment")
    mesh.up.stop()
    mesh.run("env", "restore", copy).ok()
    mesh.start_up()
    r = ask(mesh, "one", "--key", "k-1").ok()
    check(r.out.strip() == "ONE", "the backup's task answers its key", r.out)
    check(any(n.startswith("journal.db.1") for n in os.listdir(mesh.home)), "what was there is kept", os.listdir(mesh.home))


def export_and_import(mesh):
    mesh.run("kv", "put", "--shared", "colour", '"blue"').ok()
    open_task = mesh.run("ask", "nobody", "later", "--durable", "--detach").ok().out.strip()
    file, other = os.path.join(mesh.home, "all.jsonl"), os.path.join(mesh.home, "other.db")
    mesh.run("env", "export", file).ok()
    with open(file, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    with sqlite3.connect(path(mesh)) as db:  # which the environment goes on writing
        (hashed,) = db.execute("SELECT hex(hash) FROM chain WHERE n = ?", (lines[0]["entry"],)).fetchone()
    check(lines[0]["format"] == "amesh-journal" and lines[0]["hash"] == hashed.lower(), "the first line has the chain's hash", lines[0], hashed)
    check(lines[-1]["end"] and lines[-1]["rows"] == len(lines) - 2, "the last one the number of rows", lines[-1])
    r = mesh.run("env", "import", "--journal", other, file)
    check(r.status == 8 and "has not ended" in r.err and "--continue" in r.err, "open tasks need a word", r.err)
    check(not [n for n in os.listdir(mesh.home) if n.startswith("other.db") and n != "other.db.lock"], "and leave no empty journal behind", os.listdir(mesh.home))
    typo = os.path.join(mesh.home, "typo.jsonl")
    r = mesh.run("env", "export", "--context", "c-typo", typo)
    check(r.status == 4 and '"c-typo"' in r.err and not os.path.exists(typo), "a conversation that nobody had is not exported", r.status, r.err)
    r = mesh.run("env", "import", "--journal", other, "--continue", "--json", file).ok().json()
    check(r["added"] == len(lines) - 2 and r["open"] >= 1, "all of it", r)
    r = mesh.run("env", "import", "--journal", other, "--continue", "--json", file).ok().json()
    check(r["added"] == 0 and r["there"] == len(lines) - 2, "twice is once", r)
    check(verify(mesh, "--journal", other).ok().json()["sound"], "sound")
    out = mesh.run("env", "export", "--journal", other).ok().out.splitlines()
    rows = [line for line in out if '"row"' in line]
    with open(file, encoding="utf-8") as f:
        check(sorted(rows) == sorted(line.rstrip("\n") for line in f if '"row"' in line), "and the same rows")
    task = next(line["row"] for line in lines if line.get("table") == "tasks" and line["row"]["id"] == open_task)
    one = [json.loads(line) for line in mesh.run("env", "export", "--context", task["context"]).ok().out.splitlines()]
    check({line["table"] for line in one[1:-1]} == {"tasks", "events"} and one[1]["row"]["id"] == open_task, "--context", one)
    cut = os.path.join(mesh.home, "cut.jsonl")
    with open(file, "rb") as f, open(cut, "wb") as g:
        g.write(b"".join(f.readlines()[:-2]))
    r = mesh.run("env", "import", "--journal", os.path.join(mesh.home, "third.db"), "--continue", cut)
    check(r.status == 2 and "it was cut" in r.err, "a file that was cut is seen", r.err)


def epoch(mesh, task):
    """(number of the environment, number of the lease) of its last attempt"""
    attempts = mesh.run("task", "show", task, "--json").ok().json()["metadata"]["amp/attempts"]
    return tuple(int(part) for part in attempts[-1]["epoch"].split("."))


def leased(mesh, text):
    """→ the epoch of a new task"""
    return epoch(mesh, mesh.run("ask", "up", text, "--durable", "--json").ok().json()["id"])


def merge(mesh):
    """What another home did becomes history here; no epoch that was handed out there comes again here."""
    file, here = os.path.join(mesh.home, "there.jsonl"), ask(mesh, "here", "--json").ok().json()["id"]
    with Mesh() as other:
        other.agent("up", "--", "tr", "a-z", "A-Z")
        for _ in range(3):
            again(other)
        there = ask(other, "there", "--json").ok().json()["id"]
        waits = other.run("ask", "nobody", "waits", "--durable", "--detach").ok().out.strip()
        boot = epoch(other, there)[0]
        other.up.stop()
        other.run("env", "export", file).ok()
    with open(file, encoding="utf-8") as f:
        lines = f.read().splitlines()[:-1]
    check(not [l for l in lines if '"environment"' in l or '"amesh"' in l], "what an environment has for itself stays there", lines)
    check(boot >= 4 and json.loads(lines[0])["boot"] == boot, "but how far it counted", lines[0], boot)
    mesh.up.stop()
    r = mesh.run("env", "import", "--continue", "--json", file).ok().json()
    check(r["tasks"] == 2 and r["open"] == 1, "all its tasks", r)
    check(verify(mesh).ok().json()["sound"], "into a journal that is sound")
    old = os.path.join(mesh.home, "old.jsonl")
    private = [json.dumps({"table": "kv", "row": {"scope": scope, "owner": "", "key": key, "version": n, "at": 5, "value": {"base64": "e30="}}})
               for scope, key, n in (("environment", "boot", boot + 7), ("amesh", "stream", 1))]
    with open(old, "wb") as f:
        f.write(sealed(lines + private))
    r = mesh.run("env", "import", "--continue", "--json", old).ok().json()
    check(r["added"] == 0, "an export of before, which has such rows, is read too", r)
    with open(old, "wb") as f:
        f.write(sealed(lines + [private[0].replace(str(boot + 7), "4294967295")]))
    r = mesh.run("env", "import", "--continue", old)
    check(r.status == 2 and "version" in r.err and f"line {len(lines) + 1}:" in r.err, "but not one after which nobody could count on", r.err)
    mesh.start_up()
    mesh.agent("nobody", "--", "tr", "a-z", "A-Z")
    check({here, there, waits} <= {t["id"] for t in tasks(mesh)}, "one history")
    until(lambda: mesh.run("task", "show", waits, "--json").ok().json()["status"]["state"] == "TASK_STATE_COMPLETED", "what was open goes on")
    check(epoch(mesh, waits)[0] > boot + 7, "under an epoch that nobody had", epoch(mesh, waits), boot)


def hostile_exports(mesh):
    """What is no export is refused with the line and the field; what is no file is not waited for."""
    file, other = os.path.join(mesh.home, "hostile.jsonl"), os.path.join(mesh.home, "hostile.db")
    head = '{"format":"amesh-journal","version":1}'
    row = {"scope": "shared", "owner": "", "key": "k", "version": 1, "at": 5, "value": {"base64": "MQ=="}}
    for field, text in (("version", "1e300"), ("version", "-1"), ("version", "1.5"), ("at", "1e300"), ("at", "-1"), ("version", "2147483648")):
        line = json.dumps({"table": "kv", "row": dict(row, **{field: "@"})}).replace('"@"', text)
        with open(file, "wb") as f:
            f.write(sealed([head, line]))
        r = mesh.run("env", "import", "--journal", other, file)
        check(r.status == 2 and f"line 2: {field}:" in r.err, "a number that it cannot have", text, r.status, r.err)
    for field, text in (("version", '"1"'), ("at", '"-1"'), ("key", "7"), ("value", '"MQ=="'), ("value", "7"), ("key", '{"base64":"MQ=="}')):
        with open(file, "wb") as f:
            f.write(sealed([head, json.dumps({"table": "kv", "row": dict(row, **{field: "@"})}).replace('"@"', text)]))
        r = mesh.run("env", "import", "--journal", other, file)
        check(r.status == 2 and f"line 2: {field}:" in r.err, "nor a value of another type, which SQLite would turn into its own", field, text, r.status, r.err)
    open_task = mesh.run("ask", "nobody-at-all", "open", "--durable", "--detach").ok().out.strip()
    mesh.run("env", "export", file + ".open").ok()
    with open(file + ".open", encoding="utf-8") as f:
        lines = f.read().splitlines()[:-1]
    with open(file, "wb") as f:
        f.write(sealed([line for line in lines if not (f'"{open_task}"' in line and '"table":"events"' in line)]))
    r = mesh.run("env", "import", "--journal", other, "--continue", file)
    check(r.status == 2 and open_task in r.err and "not all of its events" in r.err and "--ended" in r.err, "nor an open task without its events", r.status, r.err)
    mesh.run("task", "cancel", open_task).ok()
    for rows in ("1e300", "-1", "0.5", "null"):
        with open(file, "wb") as f:
            f.write(sealed([head]).replace(b'"rows": 0', b'"rows": ' + rows.encode()))
        r = mesh.run("env", "import", "--journal", other, file)
        check(r.status == 2 and "line 2: rows:" in r.err, "nor such a number of rows", rows, r.err)
    fifo = os.path.join(mesh.home, "fifo")
    os.mkfifo(fifo)
    for name in (fifo, "/dev/zero", mesh.home):
        r = mesh.run("env", "import", "--journal", other, name)
        check(r.status == 2 and "no regular file" in r.err, "nor what is no file", r.status, r.err)
    with open(file, "wb") as f:
        f.write(sealed([head, json.dumps({"table": "kv", "row": row})]))
    with open(file, encoding="utf-8") as f:
        mesh.run("env", "import", "--journal", other, "-", text=f.read()).ok()


def restored_epochs(mesh):
    copy = os.path.join(mesh.home, "epochs.db")
    mesh.run("env", "backup", copy).ok()
    epochs = [leased(mesh, "before")]
    for is_lost in (False, True):
        again(mesh)
        epochs.append(leased(mesh, "between"))
        mesh.up.stop()
        if is_lost:
            for name in [n for n in os.listdir(mesh.home) if n.startswith("journal.db")]:
                os.unlink(os.path.join(mesh.home, name))
        mesh.run("env", "restore", copy).ok()
        check(verify(mesh).ok().json()["sound"], "restored, and sound")
        mesh.start_up()
        epochs.append(leased(mesh, "after"))
    check(epochs == sorted(epochs) and all(a[0] < b[0] for a, b in zip(epochs, epochs[1:])), "each environment counts above all before", epochs)


def damage(mesh):
    again(mesh)
    task = json.loads(ask(mesh, "precious", "--json").ok().out.splitlines()[-1])
    task_id = task.get("id") or task["task"]["id"]
    with sqlite3.connect(path(mesh)) as db:
        db.execute("UPDATE tasks SET record = x'00' WHERE id = ?", (task_id,))
    r = mesh.run("task", "show", task_id)
    check(r.status == 3 and "AMESH-4010" in r.err and task_id in r.err and "amesh env verify" in r.err, "a reader is told which row", r.status, r.err)
    r = verify(mesh)
    found = r.json()
    check(r.status == 3 and not found["sound"] and [f["row"] for f in found["findings"]] == ["task " + task_id], "verify names it", found)
    r = mesh.run("env", "export", os.path.join(mesh.home, "x.jsonl"))
    check(r.status == 3 and "--skip-corrupt" in r.err, "an export says so", r.err)
    r = mesh.run("env", "export", "--skip-corrupt", os.path.join(mesh.home, "x.jsonl")).ok()
    check("1 damaged rows" in r.err, "or leaves it out", r.err)
    check(ask(mesh, "next").ok().out.strip() == "NEXT", "the others go on")
    lists_others(mesh, task_id)
    named_by_hints(mesh)


def named_by_hints(mesh):
    """What to do next is about the file that was looked at."""
    copy = os.path.join(mesh.home, "bad.db")
    check(mesh.run("env", "backup", copy).status == 3, "a copy of a damaged journal is damaged")
    named = f"--journal {copy}"
    r = mesh.run("env", "verify", "--journal", copy)
    check(r.status == 3 and f"amesh env export {named} --skip-corrupt" in r.err and "amesh env verify" not in r.err, "verify does not name itself, nor the home's journal", r.err)
    mesh.up.stop()
    for args in (("restore", copy), ("export", "--journal", copy, os.path.join(mesh.home, "y.jsonl"))):
        r = mesh.run("env", *args)
        check(r.status == 3 and f"amesh env verify {named} says" in r.err, f"nor does {args[0]}", r.err)
    mesh.start_up()
    empty = os.path.join(mesh.home, "empty.db")
    open(empty, "w").close()
    r = mesh.run("env", "verify", "--journal", empty).ok()
    check(r.out.startswith("empty: ") and verify(mesh, "--journal", empty).ok().json()["empty"], "an empty one, as a killed first start leaves it, is empty", r.out)


def lists_others(mesh, damaged):
    """A list is not refused for one row of it."""
    r = mesh.run("task", "ls", "--limit", "1000")
    rows = {line.split()[0]: line for line in r.out.splitlines()[1:]}
    check(r.status == 3 and len(rows) > 1 and "damaged" in rows[damaged].split() and sum("damaged" in line.split() for line in rows.values()) == 1, "a list has the others and names it", r.out)
    check("AMESH-4010" in r.err and damaged in r.err and "amesh env verify" in r.err, "with what to do", r.err)
    r = mesh.run("task", "ls", "--limit", "1000", "--json")
    doc = json.loads(r.out)
    check(r.status == 3 and [d["id"] for d in doc["damaged"]] == [damaged] and damaged not in [t["id"] for t in doc["tasks"]] and len(doc["tasks"]) == len(rows) - 1, "for programs", doc)
    with sqlite3.connect(path(mesh)) as db:
        [(context,)] = db.execute("SELECT context FROM tasks WHERE id = ?", (damaged,)).fetchall()
    second = mesh.run("ask", "up", "after it", "--context", context, "--durable").ok()
    r = mesh.run("history", context)
    check(r.status == 3 and "AFTER IT" in r.out and damaged in r.out and "AMESH-4010" in r.err and "amesh env verify" in r.err, "so does a conversation", r.out, r.err, second.out)
    r = mesh.run("check")
    check(r.status == 3 and "AMESH-4010" in r.out and damaged in r.out and "amesh env verify" in r.out, "a check says it", r.out)


def damaged_page(mesh):
    """A page of the tables that is none: damage, not a full disk."""
    for table, args in (("tasks", ("task", "ls")), ("tasks", ("ask", "up", "four", "--durable")), ("events", ("ask", "up", "four", "--durable"))):
        with Mesh() as own:
            own.agent("up", "--", "tr", "a-z", "A-Z")
            for text in ("one", "two", "three"):
                ask(own, text).ok()
            own.up.stop()
            with sqlite3.connect(path(own)) as db:
                page_size = db.execute("PRAGMA page_size").fetchone()[0]
                roots = [n for (n,) in db.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0 AND tbl_name = ?", (table,))]
            own.start_up()
            with open(path(own), "r+b") as f:
                for page in roots:
                    f.seek((page - 1) * page_size)
                    f.write(b"\xff" * page_size)
            r = own.run(*args)
            check(r.status == 3 and "AMESH-4010" in r.err and "is damaged" in r.err and "amesh env verify" in r.err and "4003" not in r.err and "room" not in r.err,
                  f"amesh {args[0]} says it of {table}", r.status, r.err)
            r = own.run("check")
            check(r.status == 3 and "AMESH-4010" in r.out and "amesh env verify" in r.out and "4003" not in r.out, "a check too", r.out)


def lost_end(mesh):
    """kill -9, and the last transaction of the log is gone."""
    ask(mesh, "the last word").ok()
    os.kill(mesh.up.child.pid, 9)
    mesh.up.wait()
    size = os.path.getsize(path(mesh, "-wal"))
    check(size > 3 * 4120, "there is a log", size)
    os.truncate(path(mesh, "-wal"), size - 2 * 4120)
    r = mesh.run("up", "--detach")
    check(r.status == 3 and "were committed and are lost" in r.err, "the environment refuses", r.status, r.err)
    check(verify(mesh).status == 3, "verify too")


def lost_event(mesh):
    """An event of an open task is gone: nothing is begun or ended on what is left of it."""
    task = mesh.run("ask", "slow", "x", "--durable", "--detach").ok().out.strip()
    until(lambda: "WORKING" in mesh.run("task", "show", task, "--json").ok().out, "it is being worked on")
    os.kill(mesh.up.child.pid, 9)
    mesh.up.wait()
    with sqlite3.connect(path(mesh)) as db:
        check(db.execute("DELETE FROM events WHERE task = ? AND seq = 2", (task,)).rowcount == 1, "there was one")
    r = mesh.run("up", "--detach")
    check(r.status == 3 and "AMESH-4010" in r.err and f"of task {task} is missing" in r.err, "the environment refuses and names it", r.status, r.err)


def cut_file(mesh):
    """The file lacks its end, which a log that tells the number of pages would hide from SQLite."""
    for i in range(20):
        ask(mesh, f"{i}" * 3000).ok()
    again(mesh)
    ask(mesh, "one more").ok()
    os.kill(mesh.up.child.pid, 9)
    mesh.up.wait()
    os.truncate(path(mesh), os.path.getsize(path(mesh)) // 2)
    r = mesh.run("up", "--detach")
    check(r.status == 3 and "AMESH-4010" in r.err and "it was cut" in r.err, "the environment refuses", r.status, r.err)
    check("it was cut" in verify(mesh).out, "verify says so too")


def prune(mesh):
    for i in range(3):
        ask(mesh, f"p{i}", "--key", f"p-{i}").ok()
    waiting = mesh.run("ask", "nobody", "waits", "--durable", "--detach").ok().out.strip()
    until(lambda: len(tasks(mesh)) == 1, "ended tasks go by themselves", 40)
    check(tasks(mesh)[0]["id"] == waiting, "the open one stays")
    check(verify(mesh).ok().json()["sound"], "and the chain knows")
    check(mesh.run("env", "prune", "--retain-age", "1s").status == 8, "not by hand while it runs")
    mesh.up.stop()
    r = mesh.run("env", "prune", "--retain-age", "1s", "--json").ok().json()
    check(r["bytes"] <= r["bytesBefore"], "room is given back", r)
    check(verify(mesh).ok().json()["sound"], "sound")


def make_shim(folder):
    cc, shim = shutil.which("cc"), os.path.join(folder, "fail_io.so")
    if not cc:
        raise Skipped("allowed: there is no C compiler")
    subprocess.run([cc, "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", shim, os.path.join(HERE, "fail_io.c"), "-ldl"], check=True)
    return shim


def killed_restores(mesh):
    """kill -9 before each call that changes a file: who comes next finds the old journal or the new one, whole, and what was replaced is kept."""
    ask(mesh, "in both", "--key", "both").ok()
    copy = os.path.join(mesh.home, "both.db")
    mesh.run("env", "backup", copy).ok()
    ask(mesh, "in the old one", "--key", "old").ok()
    there = {"old": {t["id"] for t in tasks(mesh)}, "new": task_ids(copy)}
    os.kill(mesh.up.child.pid, 9)  # a log stays
    mesh.up.wait()
    check(there["new"] < there["old"], "they differ", there)
    shim = make_shim(mesh.home)
    seen, n, status = [], 0, -9
    while status == -9:
        n += 1
        home = tempfile.mkdtemp(prefix="killed-", dir=mesh.home)
        for name in ("journal.db", "journal.db-wal", "journal.db-head"):
            shutil.copy2(os.path.join(mesh.home, name), home)
        r = subprocess.run([RELEASE, "env", "restore", copy], env=dict(mesh.env, AMESH_HOME=home, LD_PRELOAD=shim, AMESH_FAIL_CALL="kill", AMESH_FAIL_FILE=home, AMESH_FAIL_AT=str(n)), capture_output=True, text=True)
        status = r.returncode
        check(status in (-9, 0), f"killed before call {n}, or done", status, r.stderr)
        r = subprocess.run([RELEASE, "env", "verify"], env=dict(mesh.env, AMESH_HOME=home), capture_output=True, text=True)
        check(r.returncode == 0, f"killed before call {n}: sound", r.returncode, r.stdout, r.stderr)
        ids = task_ids(os.path.join(home, "journal.db"))
        seen += [which for which in there if there[which] == ids]
        check(len(seen) == n, f"killed before call {n}: one of the two", ids)
        if seen[-1] == "new":
            aside = [f for f in os.listdir(home) if f.startswith("journal.db.1") and f[-1].isdigit()]
            check(len(aside) == 1 and task_ids(os.path.join(home, aside[0])) == there["old"], f"killed before call {n}: the old one is kept, whole", aside)
    check(n > 20 and seen == sorted(seen, reverse=True) and seen[0] != seen[-1], "first the old one, from one moment on the new one", n, seen)
    check(mesh.run("env", "restore", copy, env={"AMESH_HOME": home}).ok().out.startswith("sound"), "again")
    left = [f for f in os.listdir(home) if "-resto" in f]
    check(not left, "nothing is left over", left)
    mesh.start_up()


def killed_prunes(mesh):
    """kill -9 before each call that changes a file: the journal is sound, and the next prune finishes it. In the end the chain is shorter."""
    for i in range(12):
        ask(mesh, f"gone {i}", "--key", f"gone-{i}").ok()
    kept = mesh.run("ask", "nobody", "waits", "--durable", "--detach").ok().out.strip()
    os.kill(mesh.up.child.pid, 9)  # a log stays
    mesh.up.wait()
    shim, n, status, chained = make_shim(mesh.home), 0, -9, set()
    while status == -9:
        n += 1
        home = tempfile.mkdtemp(prefix="pruned-", dir=mesh.home)
        for name in ("journal.db", "journal.db-wal", "journal.db-head"):
            shutil.copy2(os.path.join(mesh.home, name), home)
        env = dict(mesh.env, AMESH_HOME=home)
        prune = [RELEASE, "env", "prune", "--retain-age", "1ms", "--json"]
        status = subprocess.run(prune, env=dict(env, LD_PRELOAD=shim, AMESH_FAIL_CALL="kill", AMESH_FAIL_FILE=home, AMESH_FAIL_AT=str(n)), capture_output=True).returncode
        check(status in (-9, 0), f"killed before call {n}, or done", status)
        r = subprocess.run([RELEASE, "env", "verify"], env=env, capture_output=True, text=True)
        check(r.returncode == 0, f"killed before call {n}: sound", r.returncode, r.stdout, r.stderr)
        r = subprocess.run(prune, env=env, capture_output=True, text=True)
        check(r.returncode == 0, f"killed before call {n}: finished by the next", r.stdout, r.stderr)
        said = json.loads(r.stdout)
        chained.add((said["chainRowsBefore"] > said["chainRows"], said["chainRows"]))
        check(task_ids(os.path.join(home, "journal.db")) == {kept}, f"killed before call {n}: what is open stays")
    print(f"# {n - 1} kills; of the chain: {said}", flush=True)
    check(n > 20 and {c[0] for c in chained} == {True, False}, "the chain was made anew, once", n, chained)
    check(len({c[1] for c in chained}) == 1, "and is the same whenever", chained)
    mesh.start_up()


def failing_disk(call, file, at, with_schedules=False):
    """One call of the environment's disk fails: nothing more is accepted until it is started anew, reading goes on, nothing that was accepted is lost."""
    folder = tempfile.mkdtemp(prefix="amf-")
    shim = make_shim(folder)
    old, meshtest.AMESH = meshtest.AMESH, RELEASE
    mesh = Mesh()
    try:
        mesh.env.update(LD_PRELOAD=shim, AMESH_FAIL_CALL=call, AMESH_FAIL_FILE=file, AMESH_FAIL_AT=str(at))
        plain = {"LD_PRELOAD": ""}
        mesh.start_up()
        accepted, refused, schedules = [], None, []
        for i in range(40):
            if with_schedules:
                r = mesh.run("ask", "nobody", "x", "--every", f"{i + 1}h", env=plain)
                schedules += [r.out.split()[0]] if r.status == 0 else []
            if not with_schedules or (r.status == 0 and i % 2):
                r = mesh.run("ask", "nobody", "x", "--durable", "--detach", env=plain)
            if r.status != 0:
                refused = r
                break
            accepted += [r.out.strip()] if not with_schedules else []
        check(refused is not None and refused.status == 7 and "AMESH-4003" in refused.err, "a submit is refused", refused and refused.err)
        check(mesh.run("ask", "nobody", "x", "--durable", "--detach", env=plain).status == 7, "and the next: for good")
        # An answer that was on its way when it failed may tell what is not on the disk: that one is refused.
        until(lambda: mesh.run("task", "ls", "--json", env=plain).status == 0, "reading goes on")
        listed = until(lambda: (lambda r: r.status == 0 and r)(mesh.run("schedule", "ls", "--json", env=plain)), "schedules are read, too").json()["schedules"]
        check({s["id"] for s in listed} >= set(schedules), "those that were confirmed", [s["id"] for s in listed], schedules)
        check(len(tasks(mesh, env=plain)) >= len(accepted), "what was accepted is read", accepted)
        r = mesh.run("check", env=plain)
        check(r.status == 3 and "journal" in r.out + r.err, "amesh check says why", r.status, r.out, r.err)
        check(any("journal.failed" in line for line in mesh.up.err), "so does the log", mesh.up.err[-5:])
        mesh.up.stop()
        mesh.env.pop("LD_PRELOAD")
        mesh.start_up()
        again = mesh.run("schedule", "ls", "--json").ok().json()["schedules"]
        check([s["id"] for s in again] == [s["id"] for s in listed], "and none that memory alone had: the next environment has the same", again, listed)
        ids = {t["id"] for t in tasks(mesh)}
        check(set(accepted) <= ids, "nothing accepted is lost", set(accepted) - ids)
        check(mesh.run("ask", "nobody", "x", "--durable", "--detach").status == 0, "and it accepts again")
        check(verify(mesh).ok().json()["sound"], "on a sound journal")
    finally:
        mesh.__exit__(*sys.exc_info())
        meshtest.AMESH = old
        shutil.rmtree(folder, ignore_errors=True)


with Mesh() as shared:
    shared.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a backup is made and checked while tasks are accepted; restored, it is the journal", backup_under_load, shared)
    tap.run("an export has all rows and can be imported, once or twice; what was cut is refused", export_and_import, shared)
    tap.run("an export of another home is merged in, and its epochs do not come again", merge, shared)
    tap.run("what is no export is refused with line and field", hostile_exports, shared)
    tap.run("nor do those that were handed out after a backup, when that is restored", restored_epochs, shared)
    tap.run("a damaged row is named to its reader and by verify, and the rest goes on", damage, shared)
    tap.run("a damaged page is damage to who reads and who writes, and not a full disk", damaged_page, shared)
with Mesh() as killed:
    killed.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a restore that is killed leaves the old journal or the new one", killed_restores, killed)
with Mesh() as pruned:
    pruned.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a prune that is killed leaves a sound journal, and the next one finishes it", killed_prunes, pruned)
with Mesh() as lost:
    lost.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a journal whose end is lost is refused", lost_end, lost)
with Mesh() as cut:
    cut.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a file that was cut is refused", cut_file, cut)
with Mesh() as gap:
    gap.agent("slow", "--", "sleep", "100")
    tap.run("an event of an open task that is missing is refused by name", lost_event, gap)
with Mesh(up=["--retain-age", "1s"]) as short:
    short.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("what ended long ago is removed, what is open stays", prune, short)
tap.run("a failed fdatasync of the log ends acceptance until a restart", failing_disk, "fdatasync", "journal.db-wal", 14)
tap.run("so does a failed write to the log", failing_disk, "pwrite64", "journal.db-wal", 16)
tap.run("and one to the head", failing_disk, "pwrite64", "journal.db-head", 6)
tap.run("schedules that are only in memory are not listed then", failing_disk, "pwrite64", "journal.db-head", 8, True)
tap.done()
