"""Environments of real packages for tests: one per list of pins, made outside the tree, kept between runs, shared by copies that run at once."""
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

from meshtest import Skipped

CACHE = os.environ.get("AMESH_TEST_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "amesh-test")
INSTALL_S = 600


def _make(path, pins):
    shutil.rmtree(path, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", path], check=True, capture_output=True, timeout=INSTALL_S)
    pip = subprocess.run([os.path.join(path, "bin", "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *pins], capture_output=True, text=True, timeout=INSTALL_S)
    if pip.returncode != 0:
        last = (pip.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise Skipped(f"{' '.join(pins)} cannot be installed: {last}")


def python_with(*pins):
    """→ the python of an environment that has exactly these packages ("name==version")"""
    name = "-".join(pin.split("==")[0] for pin in pins[:2]) + "-" + hashlib.sha256(repr((sys.version_info[:2], pins)).encode()).hexdigest()[:12]
    path = os.path.join(CACHE, name)
    os.makedirs(CACHE, exist_ok=True)
    with open(path + ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(path, "ready")):
            _make(path, pins)
            with open(os.path.join(path, "ready"), "w", encoding="utf-8") as f:
                f.write("\n".join(pins) + "\n")
    return os.path.join(path, "bin", "python")
