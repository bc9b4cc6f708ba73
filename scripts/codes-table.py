#!/usr/bin/env python3
"""The table of errors in docs/operations.md, made from spec/codes.def. `--check`: fails if the page says something else."""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROW = re.compile(r'^AMP_CODE\((\w+),\s*(\d+),\s*(\d+),\s*(\d+),\s*(true|false),\s*"([^"]*)"\)', re.M)
BEGIN, END = "<!-- errors: made by scripts/codes-table.py -->\n", "<!-- /errors -->"
page = os.path.join(TOP, "docs/operations.md")

with open(os.path.join(TOP, "spec/codes.def"), encoding="utf-8") as f:
    rows = ROW.findall(f.read())
table = "| code | name | exit | HTTP | again? | what it says |\n| --- | --- | --- | --- | --- | --- |\n"
for name, number, status, http, retry, text in rows:
    if number != "0":
        table += f"| AMESH-{int(number):04d} | `{name.lower()}` | {status} | {http} | {'yes' if retry == 'true' else ''} | {text} |\n"
with open(page, encoding="utf-8") as f:
    old = f.read()
new = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: BEGIN + table + END, old, flags=re.S)
if BEGIN not in old or len(rows) < 20:
    sys.exit(f"{page}: there is no place for the table, or spec/codes.def could not be read")
if sys.argv[1:] == ["--check"]:
    if new != old:
        sys.exit("docs/operations.md does not say what spec/codes.def says: run scripts/codes-table.py")
else:
    with open(page, "w", encoding="utf-8") as f:
        f.write(new)
