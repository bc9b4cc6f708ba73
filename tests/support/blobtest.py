"""What the tests of files share: files, what a program used at most, the environment's store, durable tasks and their files."""
import hashlib
import json
import os

from meshtest import check, until

BIG, MEDIUM, SMALL = 100 << 20, 5 << 20, 300 << 10  # MEDIUM does not fit a message
COPY = 'for f in "$AMESH_IN"/*; do cat "$f" > "$AMESH_OUT/copy-${f##*/}"; done; cat'
GIVE = 'head -c 100000000 /dev/urandom > "$AMESH_OUT/z"; sha256sum "$AMESH_OUT/z" | cut -c1-64'


def fill(path, size):
    with open(path, "wb") as f:
        for _ in range(max(1, size >> 20)):
            f.write(os.urandom(min(size, 1 << 20)))
    return path


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            h.update(piece)
    return h.hexdigest()


def peak_kb(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def one(directory):
    names = sorted(os.listdir(directory))
    check(len(names) == 1, "one file", names)
    return os.path.join(directory, names[0])


def store(mesh):
    return os.path.join(mesh.home, "journal.db-blobs")


def stored(mesh):
    return sorted(n for n in os.listdir(store(mesh))) if os.path.isdir(store(mesh)) else []


def has_begun(mesh):
    """Bytes come in, and not all of them are there."""
    return [n for n in stored(mesh) if n.startswith("in-") and os.path.getsize(os.path.join(store(mesh), n))]


def ended(mesh, task, state="TASK_STATE_COMPLETED"):
    until(lambda: mesh.state(task) not in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"), f"the end of {task}")
    shown = mesh.show(task)
    check(shown["status"]["state"] == state, "its state", json.dumps(shown)[:1500])
    return shown


def parts_of(task):
    return [p for a in task.get("artifacts", []) for p in a["parts"] if "url" in p]


def fetched(mesh, task, name):
    """The files of a task that has ended, as somebody gets them who was not there."""
    out = os.path.join(mesh.home, name)
    r = mesh.run("task", "show", task, "--output", out)
    check(r.status == 0, "they are had", r.status, r.out[-500:], r.err)
    return out
