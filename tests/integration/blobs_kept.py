#!/usr/bin/env python3
"""Files of durable tasks as they are kept (amp.md 15.6): full disks, limits, retention, verify, backup, export; and what else has them: forks, schedules."""
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support"), HERE]
import meshtest  # noqa: E402
from blobtest import BIG, COPY, GIVE, MEDIUM, SMALL, digest, ended, fetched, fill, has_begun, one, parts_of, store, stored  # noqa: E402
from meshtest import Bus, Skipped, Tap, check, until  # noqa: E402

tap = Tap()
RELEASE = os.environ.get("AMESH_RELEASE")
GRACE = {"AMESH_ENV_SPOOL_GRACE": "100ms"}

# ---- the disk ---------------------------------------------------------------------------------------------------------------


def shim(mesh):
    cc, path = shutil.which("cc"), os.path.join(mesh.home, "fail_io.so")
    if not RELEASE or not cc:
        raise Skipped("needs a release build and a C compiler")
    if not os.path.exists(path):
        subprocess.run([cc, "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", path, os.path.join(HERE, "fail_io.c"), "-ldl"], check=True)
    return path


def failing(mesh, call, at=1, number=errno.ENOSPC, file="journal.db-blobs"):
    return {"LD_PRELOAD": shim(mesh), "AMESH_FAIL_CALL": call, "AMESH_FAIL_FILE": file, "AMESH_FAIL_AT": str(at), "AMESH_FAIL_ERRNO": str(number)}


def full_disk(mesh):
    """Of a submit: it is refused and nothing stays; of an answer: it waits for room, and the task ends well."""
    for call, at in (("write", 1), ("write", 3), ("fsync", 1), ("fsync", 2)):
        path = fill(os.path.join(mesh.home, f"full-{call}-{at}.bin"), 1 << 20)
        mesh.restart_env(env=failing(mesh, call, at))
        r = mesh.run("ask", "--durable", "cat", "x", "--file", path)
        check(r.status == 7 and "No space left" in r.err and "AMESH-4004" in r.err, "it says so", call, at, r.status, r.err)
        check("sha256-" + digest(path) not in stored(mesh) and not has_begun(mesh), "nothing stays", stored(mesh))
        r = mesh.run("ask", "--durable", "cat", "x", "--file", path)
        check(r.status == 0, "with room it goes through: the journal was not hurt", r.err)
    mesh.restart_env(env=failing(mesh, "write", 5))
    mesh.agent("wide", "--", "sh", "-c", GIVE)
    task = mesh.run("ask", "--detach", "wide", "x").ok().out.strip()
    shown = ended(mesh, task)
    check(len(shown["metadata"]["amp/attempts"]) == 1 and len(parts_of(shown)) == 1, "the work is not done again", shown["metadata"]["amp/attempts"])
    mesh.restart_env()


def killed_everywhere(mesh):
    """kill -9 of the environment before each call that changes a file of the store: the next one is asked again, and the task is done once, with the file as it was."""
    for at in range(1, 8):
        path, out = fill(os.path.join(mesh.home, f"kill-{at}.bin"), 400 << 10), os.path.join(mesh.home, f"out-kill-{at}")
        mesh.restart_env(env=failing(mesh, "kill", at))
        caller = mesh.spawn("ask", "--durable", "cp", "x", "--file", path, "--output", out)
        until(lambda: mesh.up.child.poll() is not None or caller.child.poll() is not None, "killed, or done before")
        if mesh.up.child.poll() is not None:
            mesh.start_env()
        check(caller.wait(120) == 0 and digest(one(out)) == digest(path), "whole", at, caller.err)
        check(mesh.run("env", "verify").status == 0, "and sound")
    mesh.restart_env()


def limits(mesh):
    mesh.restart_env(env={"AMESH_ENV_SPOOL_BYTES": "1000000"})
    mesh.run("ask", "--durable", "cat", "x", "--file", mesh.small)  # if there is room: it is used up
    r = mesh.run("ask", "--durable", "cat", "x", "--file", mesh.medium)
    check(r.status == 2 and "AMESH-1003" in r.err and "AMESH_ENV_SPOOL_BYTES" in r.err, "larger than it may ever be", r.status, r.err)
    r = mesh.run("ask", "--durable", "cat", "x", "--file", fill(os.path.join(mesh.home, "new.bin"), 400 << 10))
    check(r.status == 7 and "AMESH-4004" in r.err and "AMESH_ENV_SPOOL_BYTES" in r.err, "no room now", r.status, r.err)
    mesh.run("ask", "--durable", "cat", "without a file").ok()
    mesh.restart_env()


def waits_for_room(mesh):
    """An answer for which there is no room waits, over several leases, until there is: the agent's work is not done again."""
    with Bus() as own:
        own.restart_env("--retain-age", "8s", env={"AMESH_ENV_SPOOL_BYTES": str(MEDIUM + (1 << 20)), **GRACE})
        own.agent("gives", "--", "sh", "-c", f'head -c {MEDIUM} /dev/urandom > "$AMESH_OUT/z"')
        first = own.run("ask", "--detach", "gives", "x").ok().out.strip()
        ended(own, first)
        task = own.run("ask", "--detach", "gives", "x").ok().out.strip()
        until(lambda: any("env.files_full" in line for line in own.up.err), "it says that it is full")
        own.run("ask", "--durable", "gives", "y", "--no-wait", "--timeout", "100ms")  # whoever else
        until(lambda: own.run("task", "show", first).status == 4, "the first one is removed")
        shown = ended(own, task)
        check(len(shown["metadata"]["amp/attempts"]) == 1 and len(parts_of(shown)) == 1, "one attempt", shown["metadata"]["amp/attempts"])


def shares(mesh):
    """On a mesh of its own: one sender has half of the room at most, another one the rest."""
    with Bus() as own:
        own.restart_env(env={"AMESH_ENV_SPOOL_BYTES": "3000000", **GRACE})
        own.agent("cat", "--", "cat")
        one_, two, three = (fill(os.path.join(own.home, f"{n}.bin"), 1 << 20) for n in (1, 2, 3))
        own.run("ask", "--durable", "cat", "x", "--file", one_).ok()
        for restart in (False, True):  # it counts on
            if restart:
                own.restart_env(env={"AMESH_ENV_SPOOL_BYTES": "3000000", **GRACE})
                own.run("ask", "--durable", "cat", "x").ok()
            r = own.run("ask", "--durable", "cat", "x", "--file", two)
            check(r.status == 7 and "of one sender" in r.err, "its part is used up", restart, r.status, r.err)
        own.run("ask", "--durable", "cat", "x", "--file", two, env={"AMESH_AGENT": "somebody"}).ok()
        r = own.run("ask", "--durable", "cat", "x", "--file", three, env={"AMESH_AGENT": "third"})
        check(r.status == 7 and "no room" in r.err, "all of it", r.status, r.err)


# ---- kept, looked at, moved -------------------------------------------------------------------------------------------------------


def go_with_their_tasks(mesh):
    """Two tasks with one file, one of which is removed; then the other."""
    with Bus() as own:
        own.agent("cat", "--", "cat")
        shared = fill(os.path.join(own.home, "shared.bin"), MEDIUM)
        first = own.run("ask", "--detach", "cat", "x", "--file", shared).ok().out.strip()
        ended(own, first)
        check(stored(own) == ["sha256-" + digest(shared)], "it is there", stored(own))
        own.restart_env(env=GRACE)
        second = own.run("ask", "--detach", "nobody-yet", "x", "--file", shared).ok().out.strip()
        own.restart_env("--retain-age", "100ms", env=GRACE)
        until(lambda: own.run("task", "show", first).status == 4, "the first one is removed")
        lone = own.run("ask", "--detach", "cat", "x", "--file", fill(os.path.join(own.home, "lone.bin"), MEDIUM)).ok().out.strip()
        until(lambda: own.run("task", "show", lone).status == 4, "one with a file of its own is removed")
        until(lambda: stored(own) == ["sha256-" + digest(shared)], "with its file; that of the open one stays")
        own.agent("nobody-yet", "--", "sh", "-c", COPY)
        until(lambda: own.run("task", "show", second).status == 4, "the second one ends, and is removed")
        until(lambda: not stored(own), "and the file with it")


def left_behind(mesh):
    """What nothing refers to goes at the start; what is not ours stays."""
    mesh.run("ask", "--durable", "cat", "x", "--file", mesh.medium).ok()
    stray = os.path.join(store(mesh), "sha256-" + "0" * 64)
    for name, data in ((stray, b"x"), (os.path.join(store(mesh), "in-7"), b"half"), (os.path.join(store(mesh), "README"), b"mine")):
        with open(name, "wb") as f:
            f.write(data)
    known = set(stored(mesh)) - {os.path.basename(stray), "in-7"}
    mesh.restart_env()
    until(lambda: not os.path.exists(stray), "it goes")
    check(known <= set(stored(mesh)) | {"README"} and "in-7" not in stored(mesh) and "README" in stored(mesh), "and nothing else", known - set(stored(mesh)))
    os.remove(os.path.join(store(mesh), "README"))


def verify(mesh):
    """A file that is missing, cut or changed is named, with its task; who asks for it is told."""
    tasks, names = [], []
    for n in range(3):
        path = fill(os.path.join(mesh.home, f"v{n}.bin"), 1 << 20)
        names.append("sha256-" + digest(path))
        tasks.append(mesh.run("ask", "--detach", f"waits-{n}", "x", "--file", path).ok().out.strip())
    r = mesh.run("env", "verify", "--json").ok().json()
    check(r["sound"] and r["files"] >= 3 and r["fileBytes"] >= 3 << 20, "sound, and how many", r)
    paths = [os.path.join(store(mesh), name) for name in names]
    kept = [open(p, "rb").read() for p in paths]
    os.remove(paths[0])
    for path, data in ((paths[1], kept[1][:-1]), (paths[2], bytes([kept[2][0] ^ 1]) + kept[2][1:])):
        os.chmod(path, 0o600)
        with open(path, "wb") as f:
            f.write(data)
    r = mesh.run("env", "verify")
    for task, name, why in zip(tasks, names, ("it is missing", "it has 1048575 bytes", "its bytes are not those")):
        line = next((line for line in r.out.splitlines() if name in line), "")
        check(task in line and why in line, "named", name, why, r.out)
    check(r.status == 3 and "journal.db-blobs" in r.err, "and what to do", r.status, r.err)
    for n in range(3):
        mesh.agent(f"waits-{n}", "--", "cat")
        shown = ended(mesh, tasks[n], "TASK_STATE_FAILED")
        said = json.dumps(shown)
        check(names[n] in said and ("not_found" in said or "AMESH-2004" in said or "2004" in said), "the task says which", n, said[-1500:])
    r = mesh.run("task", "retry", tasks[0])
    check(r.status == 4 and names[0] in r.err and "verify" in r.err, "so does who wants to try again", r.status, r.err)
    for path, data in zip(paths, kept):
        if os.path.exists(path):
            os.remove(path)
        with open(path, "wb") as f:
            f.write(data)
    mesh.run("env", "verify").ok()
    mesh.restart_env()
    again = mesh.run("task", "retry", tasks[0])
    check(again.status == 0 and ended(mesh, again.out.strip()), "put back, it can be tried again", again.err)


def backup(mesh):
    """A copy has the files; back from it, they are all there, on another disk too; and those of what was replaced are kept with it."""
    with Bus() as own:
        own.agent("cp", "--", "sh", "-c", COPY)
        path = fill(os.path.join(own.home, "kept.bin"), MEDIUM)
        task = own.run("ask", "--detach", "cp", "x", "--file", path).ok().out.strip()
        ended(own, task)
        elsewhere = tempfile.mkdtemp(prefix="amt-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        try:
            copies = [os.path.join(own.home, "copy.db"), os.path.join(elsewhere, "copy.db")]
            for copy in copies:
                check("its files: 1 of" in own.run("env", "backup", copy).ok().out, "with its files")
                check(os.listdir(copy + "-blobs") == ["sha256-" + digest(path)], "beside it", os.listdir(copy + "-blobs"))
            later = own.run("ask", "--detach", "cp", "x", "--file", fill(os.path.join(own.home, "later.bin"), MEDIUM)).ok().out.strip()
            ended(own, later)
            own.up.stop()
            shutil.rmtree(store(own))
            check(own.run("env", "verify").status == 3, "they are gone")
            own.run("env", "restore", copies[1]).ok()
            own.run("env", "verify").ok()
            own.start_env()
            check(digest(one(fetched(own, task, "out-restored"))) == digest(path) and own.run("task", "show", later).status == 4, "as it was")
            own.up.stop()
            own.run("env", "restore", copies[0]).ok()
            aside = [n for n in os.listdir(own.home) if n.startswith("journal.db.1") and n.endswith("-blobs")]
            check(len(aside) == 1 and os.listdir(os.path.join(own.home, aside[0])) == ["sha256-" + digest(path)], "what was replaced keeps its own", aside)
            shutil.rmtree(copies[1] + "-blobs")
            shutil.rmtree(store(own))
            r = own.run("env", "restore", copies[1])
            check(r.status == 0 and digest(path) in r.out and "missing" in r.out, "a copy without its files is the journal, and says what is missing", r.status, r.out, r.err)
        finally:
            shutil.rmtree(elsewhere)


def exported(mesh):
    """Another home gets tasks and files; one that is missing is named; a part has its own files only; what was cut or changed is refused as a whole."""
    with Bus() as own:
        own.agent("cp", "--", "sh", "-c", COPY)
        tasks, paths = [], [fill(os.path.join(own.home, f"e{n}.bin"), MEDIUM) for n in range(3)]
        for path in paths:
            tasks.append(own.run("ask", "--detach", "cp", "x", "--file", path).ok().out.strip())
            ended(own, tasks[-1])
        context = own.show(tasks[1])["contextId"]
        os.remove(os.path.join(store(own), "sha256-" + digest(paths[2])))
        whole, part = (os.path.join(own.home, n) for n in ("whole.jsonl", "part.jsonl"))
        r = own.run("env", "export", whole)
        check(r.status == 0 and f"left out: file sha256-{digest(paths[2])} of {tasks[2]}: it is missing" in r.err and f"2 files of {2 * MEDIUM} bytes" in r.err, "what is left out, by name", r.status, r.err)
        check("1 files" in own.run("env", "export", "--context", context, part).ok().err, "of one conversation its own")
        lines = open(whole, "rb").read().splitlines(keepends=True)
        pieces = [i for i, line in enumerate(lines) if line.startswith(b'{"file"')]
        wrong = {"cut": lines[:pieces[1]], "without one": lines[:pieces[0]] + lines[pieces[0] + 1:], "twice": lines[:pieces[1]] + lines[pieces[0]:], "changed": [*lines[:pieces[0]], lines[pieces[0]].replace(b'"base64":"', b'"base64":"AAAA', 1), *lines[pieces[0] + 1:]],
                 "a path": [*lines[:pieces[0]], lines[pieces[0]].replace(b"sha256-", b"../../x", 1), *lines[pieces[0] + 1:]]}
        other = os.path.join(own.home, "other.db")
        for name, these in wrong.items():
            bad = os.path.join(own.home, "bad.jsonl")
            with open(bad, "wb") as f:
                f.writelines(these)
            r = own.run("env", "import", "--journal", other, bad)
            check(r.status != 0 and "AMESH-1" in r.err, "refused", name, r.status, r.err)
            check(not os.path.exists(other + "-blobs"), "and leaves no files", name)
            check(not os.path.exists(other) or own.run("env", "verify", "--journal", other, "--json").json()["rows"] < 10, "with all of it", name)
        check("2 files" in own.run("env", "import", "--journal", other, whole).ok().out, "imported")
        r = own.run("env", "verify", "--journal", other)
        check(r.status == 3 and digest(paths[2]) in r.out and digest(paths[0]) not in r.out, "with all that there was", r.out)
        own.run("env", "import", "--journal", other, whole).ok()
        own.up.stop()
        shutil.rmtree(store(own))
        for name in os.listdir(own.home):
            if name.startswith("journal.db"):
                os.remove(os.path.join(own.home, name))
        for suffix in ("", "-head"):
            os.rename(other + suffix, os.path.join(own.home, "journal.db" + suffix))
        os.rename(other + "-blobs", store(own))
        own.start_env()
        for n in (0, 1):
            check(digest(one(fetched(own, tasks[n], f"out-imported-{n}"))) == digest(paths[n]), "whole, there")
        r = own.run("task", "show", tasks[2], "--output", os.path.join(own.home, "out-none"))
        check(r.status == 4 and digest(paths[2]) in r.err and "--output" in r.err, "the missing one is told by name", r.status, r.err)


def forked(mesh):
    """What a task has is also its fork's, and stays when the first one is gone. One that is tried again has it, too."""
    with Bus() as own:
        own.agent("cp", "--", "sh", "-c", COPY)
        path = fill(os.path.join(own.home, "forked.bin"), MEDIUM)
        first = own.run("ask", "--detach", "cp", "x", "--file", path).ok().out.strip()
        n = ended(own, first) and len(own.run("task", "show", first, "--events", "--json").ok().lines())
        fork = own.run("task", "fork", first, "--from", str(n - 1), "--agent", "nobody-yet", "--text", "once more").ok().out.strip()
        own.restart_env("--retain-age", "100ms", env=GRACE)
        until(lambda: own.run("task", "show", first).status == 4, "the first one is removed")
        check(stored(own) == ["sha256-" + digest(path)], "its file stays", stored(own))
        check(digest(one(fetched(own, fork, "out-fork"))) == digest(path), "and is the fork's")
        own.run("task", "cancel", fork).ok()
        until(lambda: not stored(own), "as long as that is there")
        failing_one = own.agent("fails", "--", "false")
        own.restart_env()
        lost = own.run("ask", "--detach", "fails", "x", "--file", path).ok().out.strip()
        until(lambda: own.state(lost) == "TASK_STATE_FAILED", "it fails")
        failing_one.stop()
        own.agent("fails", "--", "sh", "-c", COPY)
        again = own.run("task", "retry", lost).ok().out.strip()
        ended(own, again)
        check(digest(one(fetched(own, again, "out-again"))) == digest(path), "tried again with its file")


def scheduled(mesh):
    """A schedule has its file from when it is made: who made it is gone, the environment is killed, each run has it; it goes with the schedule."""
    with Bus() as own:
        own.restart_env(env=GRACE)
        own.agent("cp", "--", "sh", "-c", COPY)
        path = fill(os.path.join(own.home, "again.bin"), BIG)
        made = own.run("ask", "--every", "1s", "--key", "k-s", "cp", "x", "--file", path).ok().out.strip()
        check(own.run("ask", "--every", "1s", "--key", "k-s", "cp", "x", "--file", path).ok().out.strip() == made, "the same file from somebody else is the same schedule")
        own.restart_env("--retain-age", "100ms", env=GRACE)
        seen = set()

        def runs():
            for task in own.run("task", "ls", "--schedule", made, "--json").ok().json()["tasks"]:
                if task["status"]["state"] == "TASK_STATE_COMPLETED" and task["id"] not in seen:
                    r = own.run("task", "show", task["id"], "--output", os.path.join(own.home, "run-" + task["id"]))
                    if r.status == 0:
                        check(digest(one(os.path.join(own.home, "run-" + task["id"]))) == digest(path), "each run has it")
                        seen.add(task["id"])
            return len(seen) >= 2
        until(runs, "two runs")
        own.run("schedule", "rm", made).ok()
        until(lambda: not stored(own), "it goes with the schedule and its tasks")
        later = own.run("ask", "--at", "+1s", "cp", "x", "--file", path).ok().out.strip()
        own.restart_env()
        ended(own, later)
        check(digest(one(fetched(own, later, "out-later"))) == digest(path), "a task for later has it then")


def main():
    meshtest.AMESH = RELEASE or meshtest.AMESH
    with Bus() as mesh:
        mesh.medium, mesh.small = (fill(os.path.join(mesh.home, name + ".bin"), size) for name, size in (("medium", MEDIUM), ("small", SMALL)))
        mesh.agent("cp", "--", "sh", "-c", COPY)
        mesh.agent("cat", "--", "cat")
        tap.run("a full disk refuses a submit and holds up an answer; the journal is not hurt", full_disk, mesh)
        tap.run("kill -9 of the environment before each call that changes a file of the store", killed_everywhere, mesh)
        tap.run("no room, and more than there ever is", limits, mesh)
        tap.run("an answer waits for room, over its leases", waits_for_room, mesh)
        tap.run("a sender has half of the room at most, also after a restart", shares, mesh)
        tap.run("files go with the last task that has them", go_with_their_tasks, mesh)
        tap.run("what nothing refers to goes at the start", left_behind, mesh)
        tap.run("verify names files that are missing, cut or changed; who needs them is told", verify, mesh)
        tap.run("backup and restore have the files", backup, mesh)
        tap.run("export and import have the files; what is missing is named, what was cut or changed is refused", exported, mesh)
        tap.run("a fork and a task that is tried again have the files of the first one", forked, mesh)
        tap.run("a schedule and a task for later have their files", scheduled, mesh)
    tap.done()


main()
