"""What a campaign makes on this machine (folders, mounts, network namespaces, processes) lies under one folder per campaign and carries its path in the environment
(AMESH_CHAOS=…), so that a campaign that was killed can be cleaned up after by the next one: sweep() ends and removes what belongs to campaigns that no longer run."""
import contextlib
import os
import shutil
import signal
import subprocess
import threading

ROOT = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"amesh-chaos-{os.getuid()}")


def new_base():
    """→ this campaign's folder"""
    base = os.path.join(ROOT, str(os.getpid()))
    os.makedirs(base, mode=0o700, exist_ok=True)
    return base


def netns_prefix(base):
    return f"amc{os.path.basename(base)}n"


def marked(base):
    """Processes that were started with AMESH_CHAOS=base."""
    mark = f"AMESH_CHAOS={base}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/environ", "rb") as f:
                if mark in f.read().split(b"\0"):
                    yield int(pid)


def end_processes(base):
    for _ in range(50):
        pids = [pid for pid in marked(base) if pid != os.getpid()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            return
        threading.Event().wait(0.02)


def mounts_under(path):
    with open("/proc/self/mounts") as f:
        points = [line.split()[1].replace("\\040", " ") for line in f]
    return sorted((p for p in points if p == path or p.startswith(path + "/")), reverse=True)


def unmount(path):
    for point in mounts_under(path):
        subprocess.run(["umount", "-l", point], capture_output=True)


def clean(base):
    end_processes(base)
    unmount(base)
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout if shutil.which("ip") else ""
    for line in listed.splitlines():
        if line.startswith(netns_prefix(base)):
            subprocess.run(["ip", "netns", "del", line.split()[0]], capture_output=True)
    shutil.rmtree(base, ignore_errors=True)


def is_running(base):
    with contextlib.suppress(OSError):
        with open(f"/proc/{os.path.basename(base)}/cmdline", "rb") as f:
            return b"chaos" in f.read()
    return False


def sweep():
    """Cleans up after campaigns that were killed. → their folders"""
    gone = []
    for name in os.listdir(ROOT) if os.path.isdir(ROOT) else ():
        base = os.path.join(ROOT, name)
        if name.isdigit() and not is_running(base):
            clean(base)
            gone.append(base)
    return gone
