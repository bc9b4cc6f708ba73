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
    return sealed_bytes([line.encode() for line in lines])


def sealed_bytes(lines):
    data = b"".join(line + b"\n" for line in lines)
    end = {"end": True, "rows": len(lines) - 1, "skipped": 0, "hash": hashlib.blake2b(data, digest_size=32).hexdigest()}
    return data + json.dumps(end).encode() + b"\n"


def task_ids(file):
    with sqlite3.connect(file) as db:
        return {row[0] for row in db.execute("SELECT id FROM tasks")}


def seal(kind, row):
    """What stands beside a row of the journal (journal_chain.c)."""
    data = bytes([kind])
    for value in row:
        if value is None:
            data += bytes([5]) + bytes(8)
        elif isinstance(value, int):
            data += bytes([1]) + value.to_bytes(8, "little")
        else:
            value, type_of = (value.encode(), 3) if isinstance(value, str) else (value, 4)
            data += bytes([type_of]) + len(value).to_bytes(8, "little") + value
    return hashlib.blake2b(data, digest_size=16).digest()
