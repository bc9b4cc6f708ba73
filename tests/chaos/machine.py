"""What a campaign ran on, for its report: program, commit, nats-servers, SQLite, machine."""
import ctypes
import os
import platform
import re
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def said(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def commit():
    """With -dirty if files differ from it; that of the files here, of which the program was built."""
    found = said("git", "-C", TOP, "describe", "--always", "--dirty", "--exclude=*")
    return f"commit {found}" if found else "commit unknown"


def servers(current):
    """Of the one that every fault takes, and of the current one that some take."""
    versions = [said(path, "--version").rpartition(" ")[2].removeprefix("v") for path in (os.environ.get("AMESH_NATS_SERVER", "nats-server"), current) if path]
    return "nats-server " + " and ".join(dict.fromkeys(filter(None, versions)))


def sqlite(program):
    """Of the library that the program loads."""
    library = re.search(r"libsqlite3\S* => (\S+)", said("ldd", program))
    if not library:
        return "SQLite linked in"
    version = ctypes.CDLL(library[1]).sqlite3_libversion
    version.restype = ctypes.c_char_p
    return f"SQLite {version().decode()}"


def hardware():
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release().split('-')[0]}"


def known(program, current=None):
    """→ what each run is written down with"""
    return {"version": said(program, "--version").splitlines()[0], "commit": commit(), "nats_server": servers(current), "sqlite": sqlite(program), "machine": hardware()}
