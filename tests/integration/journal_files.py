#!/usr/bin/env python3
"""The journal's files, and what is done to them from outside while nobody or somebody uses them. Real processes."""
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
from journaltest import path, tasks  # noqa: E402
from meshtest import Mesh, Tap, check  # noqa: E402

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


tap.run("a journal that is taken away while it is used takes nothing any more", taken_away)
with Mesh() as odd:
    tap.run("a pipe, a directory or a device in the place of one of its files is refused", no_files, odd)
tap.done()
