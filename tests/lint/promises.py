#!/usr/bin/env python3
"""What docs/reliability.md promises is shown by what it names: each row has a claim of a test, word for word, and its faults, rules and promises of the simulator are there."""
import ast
import glob
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(TOP, "tests/support")]
from meshtest import Tap, check  # noqa: E402

TEXT_MIN = 12  # letters that a claim made from a pattern has for sure
PARTS = re.compile(r'`(?P<file>\w+\.py)`: (?P<claims>"[^"]+"(?:, "[^"]+")*)|campaign (?P<faults>\w+(?:, \w+)*)|rules? (?P<rules>`\w+`(?:(?:, | and )`\w+`)*)|simulator (?P<promises>P\w(?:, P\w)*)')
tap = Tap()


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as f:
        return f.read()


def pattern(node):
    """Of a text, or of an f-string: whatever its parts may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        texts = [v.value if isinstance(v, ast.Constant) else None for v in node.values]
        if sum(len(t or "") for t in texts) >= TEXT_MIN:
            return "".join(".+" if t is None else re.escape(t) for t in texts)
    return None


def claims_of(source):
    """→ patterns: what is given to tap.run() and Fault(), or stands first in a row of a table of claims"""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            at = {"run": 0, "Fault": 1}.get(name)
            found = node.args[at] if at is not None and len(node.args) > at else None
        else:
            found = node.elts[0] if isinstance(node, ast.Tuple) and node.elts else None
        if found is not None and pattern(found):
            yield pattern(found)


def known():
    """→ {file: its claims as one pattern}, faults, rules, promises of the simulator"""
    faults = [read(path) for path in sorted(glob.glob(os.path.join(TOP, "tests/chaos/faults_*.py")))]
    files = {os.path.basename(path): list(claims_of(read(path))) for path in glob.glob(os.path.join(TOP, "tests/integration/*.py"))}
    files["chaos.py"] += [claim for text in faults for claim in claims_of(text)]
    return ({name: re.compile("|".join(claims)) for name, claims in files.items() if claims}, set(re.findall(r'Fault\("(\w+)"', "\n".join(faults))),
            set(re.findall(r"^  (\w+) {2,}", read("tests/chaos/checker.py").split('"""')[1], re.M)), set(re.findall(r"^\| (P\w) \|", read("sim/README.md"), re.M)))


def rows(page):
    part = page[page.index("## What is promised"):page.index("## What is not promised")]
    return re.findall(r"^\| (\*\*.*?) \| (.*) \|$", part, re.M)


def complaints(page):
    files, faults, rules, promises = known()
    for promise, shown in rows(page):
        named = 0
        for part in PARTS.finditer(shown):
            claims = re.findall(r'"([^"]+)"', part["claims"] or "")
            named += len(claims)
            yield from (f"{part['file']} has no claim {claim!r}" for claim in claims if part["file"] not in files or not files[part["file"]].fullmatch(claim))
            yield from (f"the campaign has no {name}" for name in (part["faults"] or "").split(", ") if name and name not in faults)
            yield from (f"the checker has no rule {name}" for name in re.findall(r"\w+", (part["rules"] or "").replace(" and ", ",")) if name not in rules)
            yield from (f"the simulator has no {name}" for name in (part["promises"] or "").split(", ") if name and name not in promises)
        if not named:
            yield f"no claim shows: {promise}"
        rest = PARTS.sub("", shown)
        if re.search(r"\.py|simulator|campaign|\"", rest):
            yield f"not exact: {rest}"


def found(page):
    return list(complaints(page))


def exact(page):
    check(len(rows(page)) >= 15, "the table is read", len(rows(page)))
    check(found(page) == [], "all of it is there", *found(page))


def seeded(page):
    for right, wrong, words in (("kill -9 in the middle of submits", "kill -9 in the middle of everything", "no claim"), ("rule `ended`", "rule `endless`", "no rule endless"), ("F5, K", "F5, Z", "no Z"),
                                ("simulator P1", "simulator P0", "no P0"), ('`timers.py`: "', '`timer.py`: "', "timer.py"), ("simulator P9", "simulator", "not exact")):
        check(right in page, "the page has it", right)
        check(any(words in line for line in found(page.replace(right, wrong, 1))), f"{wrong} is found", found(page.replace(right, wrong, 1)))
    row = rows(page)[0]
    check(any("no claim shows" in line for line in found(page.replace(row[1], "campaign F4", 1))), "so is a row without a claim")


text = read("docs/reliability.md")
tap.run("each promise of docs/reliability.md names the claims that show it, and they are those of the tests", exact, text)
tap.run("and names that are wrong are found", seeded, text)
tap.done()
