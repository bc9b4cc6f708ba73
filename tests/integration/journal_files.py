#!/usr/bin/env python3
"""The journal's files, and what is done to them from outside while nobody or somebody uses them. Real processes."""
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from journaltest import path, tasks  # noqa: E402
from meshtest import Mesh, Skipped, Tap, check  # noqa: E402

tap = Tap()


def accept(mesh, text):
    return mesh.run("ask", "--durable", "--detach", "nobody", text)


def taken_away():
    """The journal, or its log, is removed or replaced while the environment uses it: nothing is accepted into a file that nobody will find."""
    for suffix, how in (("", os.unlink), ("-wal", os.unlink), ("", lambda p: os.rename(p, p + ".away")), ("", lambda p: os.replace(shutil.copy(p, p + ".copy"), p))):
        with Mesh() as mesh:
            accept(mesh, "before").ok()
            how(path(mesh, suffix))
            r = accept(mesh, "after")
            check(r.status == 7 and "AMESH-4003" in r.err and "removed or replaced" in r.err, f"the next one is refused ({suffix or 'the journal'})", r.status, r.err)
            check(mesh.run("check").status == 3, "and the check is red")


def no_files(mesh):
    """Where one of the journal's files should be, there is something else: refused at once, by name."""
    accept(mesh, "kept").ok()
    mesh.up.stop()
    for suffix in ("", "-wal", "-shm", "-head"):
        name = path(mesh, suffix)
        if os.path.exists(name):
            os.rename(name, name + ".kept")
        for make, what in ((os.mkfifo, "named pipe"), (os.mkdir, "directory"), (lambda n: os.symlink("/dev/zero", n), "device")):
            make(name)
            for args in (("up", "--detach"), ("env", "verify"), ("env", "export"), ("env", "backup", os.path.join(mesh.home, "copy.db"))):
                r = mesh.run(*args)
                check(r.status in (3, 7) and "AMESH-4003" in r.err and what in r.err and name in r.err, f"amesh {' '.join(args)} refuses a {what} as {suffix}", r.status, r.err)
            os.rmdir(name) if what == "directory" else os.unlink(name)
        if os.path.exists(name + ".kept"):
            os.rename(name + ".kept", name)
    mesh.start_up()
    check(len(tasks(mesh)) == 1, "nothing is lost by that")


def copy_files(mesh, folder, names):
    for name in names:
        if os.path.exists(path(mesh, name)):
            shutil.copy(path(mesh, name), folder)


def read_only(mesh):
    """On a disk that cannot be written, or is full, a journal is read whatever stands beside it: nothing about it is damaged. What would write says why it cannot."""
    place = tempfile.mkdtemp(prefix="ro-", dir=mesh.home)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode != 0:
        raise Skipped("nothing can be mounted here")
    try:
        read_only_in(mesh, os.path.join(place, "a%41?#b"))
    finally:
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        subprocess.run(["umount", place], check=True)


def read_only_in(mesh, folder):
    os.mkdir(folder)
    place = os.path.dirname(folder)
    accept(mesh, "in the file").ok()
    mesh.up.stop()
    kept = tempfile.mkdtemp(dir=mesh.home)
    copy_files(mesh, kept, ("", "-head"))
    mesh.start_up()
    accept(mesh, "in the log").ok()
    os.kill(mesh.up.child.pid, 9)
    mesh.up.wait()
    rows = {"ended well": 1, "killed": 2, "killed, without the index": 2}
    states = {"ended well": None, "killed": ("", "-head", "-wal", "-shm"), "killed, without the index": ("", "-head", "-wal")}
    for state, names in states.items():
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        if names:
            copy_files(mesh, folder, names)
        else:
            for name in os.listdir(kept):
                shutil.copy(os.path.join(kept, name), folder)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        reads_all(mesh, os.path.join(folder, "journal.db"), rows[state], state + ", read-only")
        r = mesh.run("env", "prune", "--retain-age", "1s", "--journal", os.path.join(folder, "journal.db"))
        check(r.status == 7 and "AMESH-4003" in r.err and "Read-only file system" in r.err, "a prune says why it cannot", r.status, r.err)
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        with open(os.path.join(place, "ballast"), "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass
        reads_all(mesh, os.path.join(folder, "journal.db"), rows[state], state + ", full")
        os.unlink(os.path.join(place, "ballast"))


def reads_all(mesh, journal, tasks_there, state):
    r = mesh.run("env", "verify", "--json", "--journal", journal)
    check(r.status == 0 and r.json()["sound"] and "empty" not in r.json() and r.json()["rows"] > 0, f"{state}: verify", r.status, r.out, r.err)
    r = mesh.run("env", "export", "--journal", journal)
    check(r.status == 0 and r.out.count('"table":"tasks"') == tasks_there, f"{state}: export", r.status, r.out, r.err)
    copy = os.path.join(mesh.home, "copy.of.it")
    r = mesh.run("env", "backup", "--journal", journal, copy)
    check(r.status == 0 and r.out.startswith("sound: "), f"{state}: backup", r.status, r.out, r.err)
    os.unlink(copy)


def not_ours(mesh):
    """A journal of which nothing can be read is not called sound."""
    accept(mesh, "theirs").ok()
    mesh.up.stop()
    with open(path(mesh), "r+b") as f:
        f.write(b"no journal at all")
    copy = os.path.join(mesh.home, "copy.of.none")
    r = mesh.run("env", "backup", copy)
    check(r.status == 3 and "AMESH-4010" in r.err and "sound" not in r.out and copy not in r.err and not os.path.exists(copy), "a backup of it says so, and names no copy", r.status, r.out, r.err)


def mixed_up(mesh):
    """A backup is one file, whatever read it while it was made; who gives one kind of copy where another one belongs is told so, and nothing is called damaged."""
    accept(mesh, "kept").ok()
    copy, export, cut = (os.path.join(mesh.home, name) for name in ("b.db", "e.jsonl", "cut.jsonl"))
    mesh.run("env", "backup", copy).ok()
    check([name for name in os.listdir(mesh.home) if name.startswith("b.db")] == ["b.db"], "nothing stands beside it", os.listdir(mesh.home))
    mesh.run("env", "export", export).ok()
    with open(export, "rb") as f:
        whole = f.read()
    with open(cut, "wb") as f:
        f.write(whole[: whole.index(b"\n") + 40])
    other = os.path.join(mesh.home, "other.db")
    for args, wanted in ((("restore", "--journal", other, export), ("is an export, not a backup", "amesh env import")), (("import", "--journal", other, copy), ("not an export", "amesh env restore")),
                         (("import", "--journal", other, cut), ("in the middle of a line: it was cut",)), (("import", "--journal", other, __file__), ("no export of a journal",))):
        r = mesh.run("env", *args)
        check(r.status == 2 and all(w in r.err for w in wanted) and "damaged" not in r.err and "amesh help env" not in r.err, f"env {args[0]}: what it is, and what to do", r.status, r.err)
    check(not os.path.exists(other), "and no journal is made")


def nothing_left(mesh):
    """What is only read stays as it was, and so does what stands beside it: a backup, the journal of a home in which nothing runs, and one whose log somebody reads just now."""
    accept(mesh, "kept").ok()
    copy, place = os.path.join(mesh.home, "b.db"), os.path.join(mesh.home, "clean")
    mesh.run("env", "backup", copy).ok()
    os.mkdir(place)
    os.rename(copy, os.path.join(place, "b.db"))
    copy = os.path.join(place, "b.db")
    for args in (("verify", "--journal", copy), ("export", "--journal", copy), ("backup", "--journal", copy, os.path.join(mesh.home, "c.db")), ("restore", "--journal", os.path.join(mesh.home, "other.db"), copy)):
        mesh.run("env", *args).ok()
        check(os.listdir(place) == ["b.db"], f"env {args[0]} leaves nothing beside a backup", os.listdir(place))
    mesh.up.stop()
    before = sorted(os.listdir(mesh.home))
    for args in (("verify",), ("export",), ("backup", os.path.join(place, "d.db"))):
        mesh.run("env", *args).ok()
        check(sorted(os.listdir(mesh.home)) == before, f"nor env {args[0]} beside a journal that is at rest", before, os.listdir(mesh.home))
    other = sqlite3.connect(f"file:{path(mesh)}?mode=ro", uri=True)
    rows = other.execute("SELECT count(*) FROM tasks").fetchone()
    mesh.run("env", "verify").ok()
    check(os.path.exists(path(mesh, "-shm")) and other.execute("SELECT count(*) FROM tasks").fetchone() == rows, "what another reader uses stays")
    other.close()
    mesh.run("env", "verify").ok()
    check(sorted(os.listdir(mesh.home)) == before, "until that has ended", os.listdir(mesh.home))
    mesh.start_up()
    accept(mesh, "in the log").ok()
    os.kill(mesh.up.child.pid, 9)
    mesh.up.wait()
    copy_files(mesh, place, ("", "-wal"))
    copied, there = os.path.join(place, "journal.db"), sorted(os.listdir(place))
    r = mesh.run("env", "export", "--journal", copied).ok()
    check(r.out.count('"table":"tasks"') == 2 and mesh.run("env", "verify", "--json", "--journal", copied).ok().json()["sound"], "the log of a copy is read", r.out)
    check(sorted(os.listdir(place)) == there, "and nothing is left beside it", os.listdir(place))


tap.run("a journal that is taken away while it is used takes nothing any more", taken_away)
with Mesh() as odd:
    tap.run("a pipe, a directory or a device in the place of one of its files is refused", no_files, odd)
with Mesh() as disk:
    tap.run("a journal on a disk that cannot be written, or is full, is read", read_only, disk)
with Mesh() as none:
    tap.run("a backup of what cannot be read says nothing of sound", not_ours, none)
with Mesh() as mixed:
    tap.run("a backup is one file; a backup is no export, and an export no backup", mixed_up, mixed)
with Mesh() as clean:
    tap.run("reading a backup or a journal at rest leaves nothing beside it", nothing_left, clean)
tap.done()
