#!/usr/bin/env python3
"""Exports that somebody changed and sealed anew: what no environment can have written is refused with its line, and what is in a journal already is found by its export."""
import base64
import json
import os
import sqlite3
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from journaltest import ask, path, seal, sealed_bytes, tasks, verify  # noqa: E402
from meshtest import Mesh, Tap, check, until  # noqa: E402

tap = Tap()


def exported(mesh, name="all.jsonl"):
    """→ its lines without the last one, as objects"""
    file = os.path.join(mesh.home, name)
    mesh.run("env", "export", file).ok()
    with open(file, encoding="utf-8") as f:
        return [json.loads(line) for line in f][:-1]


def imported(mesh, lines, journal, *words):
    """`lines`: objects, or bytes as they are"""
    file = os.path.join(mesh.home, "forged.jsonl")
    with open(file, "wb") as f:
        f.write(sealed_bytes([line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]))
    return mesh.run("env", "import", "--continue", "--journal", os.path.join(mesh.home, journal), *words, file)


def blob(line, column):
    return base64.b64decode(line["row"][column]["base64"])


def changed(line, **columns):
    """The same line with other columns: bytes are blobs."""
    row = {k: {"base64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for k, v in columns.items()}
    return dict(line, row=dict(line["row"], **row))


def forgeries(line):
    """(column, line) for each way in which a row cannot be read"""
    for column, value in line["row"].items():
        if isinstance(value, str) and value:
            text = json.dumps(value).encode()
            yield "invalid UTF-8", json.dumps(line).encode().replace(text, text[:2] + b"\xff" + text[3:], 1)
            yield "U+0000", json.dumps(changed(line, **{column: value[:-1] + "\0"})).encode()
        elif isinstance(value, dict) and column != "digest":
            whole = blob(line, column)
            yield column, changed(line, **{column: b"\xff\xff"})
            yield column, changed(line, **{column: b'{"task":{}}' if column == "record" else b"{\xff}"})
            for word in (b"precious", b"PRECIOUS"):
                if word in whole:
                    yield column, changed(line, **{column: whole.replace(word, b"\xff" + word[1:])})
    if line["table"] == "tasks":
        yield "id", changed(line, id="no id")
        yield "record", changed(line, id="t-another")


def unreadable(mesh):
    task = ask(mesh, "precious", "--key", "k-precious", "--json").ok().json()["id"]
    mesh.run("kv", "put", "--shared", "colour", '"precious"').ok()
    mesh.run("ask", "up", "precious", "--every", "5h").ok()
    lines = exported(mesh)
    check({line.get("table") for line in lines[1:]} == {"tasks", "events", "keys", "kv"}, "rows of all kinds", lines)
    count = 0
    for i, line in enumerate(lines[1:], 1):
        for column, forged in forgeries(line):
            count += 1
            r = imported(mesh, lines[:i] + [forged] + lines[i + 1:], "forged.db")
            said = f"line {i + 1}: " in r.err and "cannot be read: " in r.err and column in r.err
            check(r.status == 2 and said, f"row {i} of {line['table']} is refused by line and column ({column})", r.status, r.err, forged)
            check("nothing was imported" in r.err and "--skip-corrupt" in r.err, "with what to do", r.err)
            check(not os.path.exists(os.path.join(mesh.home, "forged.db")), "and nothing is left")
    check(count > 40, "there are many", count)
    imported(mesh, lines, "forged.db").ok()
    check(verify(mesh, "--journal", os.path.join(mesh.home, "forged.db")).ok().json()["sound"], "as it was, it is taken")
    check(task in {t["id"] for t in tasks(mesh)}, "the mesh is as it was")


def there_already(mesh):
    """A journal that has such a row, as older versions took it: its export names it, or leaves it out, and what it wrote is taken."""
    bad, good = (ask(mesh, text, "--json").ok().json()["id"] for text in ("precious", "fine"))
    lines = exported(mesh, "before.jsonl")
    [record] = [line for line in lines if line.get("table") == "tasks" and line["row"]["id"] == bad]
    mesh.up.stop()
    forge_row(path(mesh), bad, blob(record, "record").replace(b"PRECIOUS", b"\xffRECIOUS"))
    out = os.path.join(mesh.home, "saved.jsonl")
    r = mesh.run("env", "export", out)
    check(r.status == 3 and "AMESH-4010" in r.err and bad in r.err and "invalid UTF-8" in r.err and "--skip-corrupt" in r.err, "the export names it", r.status, r.err)
    r = mesh.run("env", "export", "--skip-corrupt", out).ok()
    check("left out: 1 damaged rows" in r.err, "or leaves it out", r.err)
    r = mesh.run("env", "import", "--journal", os.path.join(mesh.home, "saved.db"), "--json", out).ok().json()
    check({"task": bad} in r["lost"], "and its task is lost by name", r)
    with sqlite3.connect(os.path.join(mesh.home, "saved.db")) as db:
        ids = {row[0] for row in db.execute("SELECT id FROM tasks")}
    check(bad not in ids and good in ids, "the others are there", ids)


def forge_row(journal, task, record):
    """Puts this record into the row of a task, with the seal that goes with it."""
    db = sqlite3.connect(journal)
    names = [c[1] for c in db.execute("PRAGMA table_info(tasks)") if c[1] not in ("entry", "seal")]
    db.execute("UPDATE tasks SET record = ? WHERE id = ?", (record, task))
    row = db.execute(f"SELECT {', '.join(names)} FROM tasks WHERE id = ?", (task,)).fetchone()
    db.execute("UPDATE tasks SET seal = ? WHERE id = ?", (seal(2, row), task))
    db.commit()
    db.close()


def renumbered(line, seq):
    """The row and its frame say so: field 6 of it, behind the task's id and, perhaps, the attempt."""
    body = bytearray(blob(line, "body"))
    at = 2 + body[1]
    while body[at] != 0x30:
        at += 2
    body[at + 1] = seq
    return changed(line, seq=seq, body=bytes(body))


def numbers(mesh):
    """Events of a task that has not ended, with other numbers: nothing could go on from them."""
    mesh.agent("slow", "--", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; sleep 1000")
    task = mesh.run("ask", "slow", "x", "--durable", "--detach").ok().out.strip()
    until(lambda: "line 5" in mesh.run("task", "show", task).ok().out, "it has said what it says")
    lines = exported(mesh, "open.jsonl")
    places = [i for i, line in enumerate(lines) if line.get("table") == "events" and line["row"]["task"] == task]
    [own] = [i for i, line in enumerate(lines) if line.get("table") == "tasks" and line["row"]["id"] == task]
    last = lines[places[-1]]["row"]

    def replaced(**of):
        return [of.get(f"at{i}", line) for i, line in enumerate(lines)]
    shifted = {f"at{i}": renumbered(lines[i], lines[i]["row"]["seq"] + 1) for i in places}
    more = changed(lines[own], events=lines[own]["row"]["events"] + 1)
    cases = {
        "a gap at the end": replaced(**{f"at{places[-1]}": renumbered(lines[places[-1]], last["seq"] + 1)}),
        "a gap, and as many as it has": [line for i, line in enumerate(lines) if i != places[1]],
        "a number that is there twice": replaced(**{f"at{places[-1]}": renumbered(lines[places[-1]], lines[places[-2]]["row"]["seq"])}),
        "starting at 2": replaced(**shifted),
        "starting at 2, and one more": replaced(**shifted, **{f"at{own}": more}),
        "its row says more": replaced(**{f"at{own}": more}),
        "its frame says another number": replaced(**{f"at{places[-1]}": changed(lines[places[-1]], seq=last["seq"] + 1)}),
        "its frame has fewer": replaced(**{f"at{places[-1]}": changed(lines[places[-1]], count=last["count"] + 1)}),
    }
    for name, forged in cases.items():
        r = imported(mesh, forged, "numbers.db")
        check(r.status in (2, 8) and task in r.err and "Try: " in r.err and "help env" not in r.err, f"{name}: refused", r.status, r.err)
        check(not os.path.exists(os.path.join(mesh.home, "numbers.db")), "and nothing is left")
    imported(mesh, lines, "numbers.db").ok()
    check(verify(mesh, "--journal", os.path.join(mesh.home, "numbers.db")).ok().json()["sound"], "as it was, it is taken")


def one_more(mesh):
    """An event more of a task that is there already, whose own row is the same."""
    task = ask(mesh, "ended", "--json").ok().json()["id"]
    lines = exported(mesh, "ended.jsonl")
    other = os.path.join(mesh.home, "more.db")
    imported(mesh, lines, "more.db").ok()
    [own] = [line for line in lines if line.get("table") == "tasks" and line["row"]["id"] == task]
    last = [line for line in lines if line.get("table") == "events" and line["row"]["task"] == task][-1]
    r = imported(mesh, [lines[0], own, renumbered(last, last["row"]["seq"] + last["row"]["count"])], "more.db")
    check(r.status == 2 and task in r.err and "more than it has" in r.err and "nothing was imported" in r.err, "is refused", r.status, r.err)
    check(verify(mesh, "--journal", other).ok().json()["sound"], "and the journal is as it was")


with Mesh() as shared:
    shared.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("a row that nobody could read is refused by line and column", unreadable, shared)
    tap.run("events of an open task with other numbers are refused", numbers, shared)
    tap.run("an event more of a task that is there is refused", one_more, shared)
with Mesh() as old:
    old.agent("up", "--", "tr", "a-z", "A-Z")
    tap.run("what a journal has of the kind is named by its export, or left out", there_already, old)
tap.done()
