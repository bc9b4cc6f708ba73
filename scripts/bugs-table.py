#!/usr/bin/env python3
"""The table of faults made on purpose in docs/reliability.md: `amesh-sim-bugs --table` counts (in so many processes as the argument says), and the version stands over it. `--check` counts nothing: it fails if the page has
other faults, promises or texts than sim/bugs.def, or the numbers of another version, if a promise of sim/README.md has no fault, or a fault has no place in the code."""
import glob
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(os.environ.get("BUILD", os.path.join(TOP, "build/release")), "amesh-sim-bugs")
PAGE = os.path.join(TOP, "docs/reliability.md")
BEGIN, END = "<!-- faults: made by scripts/bugs-table.py -->\n", "<!-- /faults -->"


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as f:
        return f.read()


def version():
    return re.search(r"^project\([\w-]+ VERSION ([0-9.]+)", read("CMakeLists.txt"), re.M)[1]


def faults():
    """→ (name, promises, text) of each, in order"""
    return re.findall(r'^BUG\("([^"]+)", "([^"]+)", "([^"]+)"\)$', read("sim/bugs.def"), re.M)


def on_page(page):
    """→ the version, and the same of each row"""
    part = page[page.index(BEGIN):page.index(END)]
    found = re.search(r"^Counted with ([0-9.]+) \(\w+\):$", part, re.M)
    return found and found[1], [(name, promises, text) for name, text, promises in re.findall(r"^\| `([^`]+)`: (.*?) \| ([\w, ]+) \| \d+ \| [1-9]\d* \| [1-9]\d* items \|$", part, re.M)]


def in_code():
    files = [f for where in ("mesh", "sim") for f in glob.glob(os.path.join(TOP, where, "**/*.c"), recursive=True)]
    return {name for f in files for name in re.findall(r'SEEDED_BUG\("([^"]+)"\)', read(f))}


def complaints(page):
    made_with, rows = on_page(page)
    known = {promise for _, promises, _ in faults() for promise in promises.split("|")}
    promised = set(re.findall(r"^\| (P\w) \|", read("sim/README.md"), re.M))
    names = {name for name, _, _ in faults()}
    if rows != [(name, promises.replace("|", ", "), text) for name, promises, text in faults()]:
        yield "the rows of docs/reliability.md are not those of sim/bugs.def, or one was found in no seed"
    if made_with != version():
        yield f"the numbers of docs/reliability.md are those of {made_with}, this is {version()}"
    if known != promised:
        yield f"sim/README.md and sim/bugs.def have not the same promises: {', '.join(sorted(known ^ promised))}"
    if in_code() != names:
        yield f"sim/bugs.def and SEEDED_BUG in the code have not the same names: {', '.join(sorted(in_code() ^ names))}"


def counted(jobs):
    commit = subprocess.run(["git", "-C", TOP, "rev-parse", "--short=7", "HEAD"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    table = subprocess.run([PROGRAM, "--table", "--jobs", jobs], stdout=subprocess.PIPE, text=True, check=False)
    if table.returncode != 0:
        sys.exit(f"{PROGRAM} --table: a fault was found in no seed\n{table.stdout}")
    rows = re.sub(r"(?<= )P\w(?:\|P\w)+(?= )", lambda found: found[0].replace("|", ", "), table.stdout)
    return f"Counted with {version()} ({commit}):\n\n{rows}"


def main():
    page = read(PAGE)
    if BEGIN not in page or END not in page or len(faults()) < 20:
        sys.exit(f"{PAGE}: there is no place for the table, or sim/bugs.def could not be read")
    if sys.argv[1:] == ["--check"]:
        wrong = list(complaints(page))
        if wrong:
            sys.exit("\n".join(wrong) + "\nmake build, then scripts/bugs-table.py counts anew")
        return
    part = BEGIN + counted(sys.argv[1] if len(sys.argv) > 1 else "1")
    page = read(PAGE)  # it may have been edited meanwhile
    new = page[:page.index(BEGIN)] + part + page[page.index(END):]
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(new)


main()
