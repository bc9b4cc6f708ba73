"""What the tests of the journal share: its files, tasks in it, and exports that are made by hand."""
import hashlib
import json
import os
import sqlite3


def path(mesh, suffix=""):
    return os.path.join(mesh.home, "journal.db" + suffix)


def ask(mesh, text, *args):
    return mesh.run("ask", "up", text, "--durable", *args)


def verify(mesh, *args):
    return mesh.run("env", "verify", "--json", *args)


def tasks(mesh, **how):
    return mesh.run("task", "ls", "--limit", "100", "--json", **how).ok().json()["tasks"]


def sealed(lines):
    """An export with these lines before its last one."""
    data = b"".join(line.encode() + b"\n" for line in lines)
    end = {"end": True, "rows": len(lines) - 1, "skipped": 0, "hash": hashlib.blake2b(data, digest_size=32).hexdigest()}
    return data + json.dumps(end).encode() + b"\n"


def task_ids(file):
    with sqlite3.connect(file) as db:
        return {row[0] for row in db.execute("SELECT id FROM tasks")}
