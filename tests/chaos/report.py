#!/usr/bin/env python3
"""build/chaos/runs.jsonl → report.md and report.json. Reports of several campaigns are merged by giving their runs.jsonl:
    report.py [--markdown] RUNS.jsonl…
"""
import json
import os
import sys

SUMS = ("kills", "cuts", "acknowledged", "tasks", "completed", "failed", "again", "ignored", "sent", "submitted_again", "duplicates")


def read(paths):
    runs = []
    for path in paths:
        with open(path) as f:
            runs += [json.loads(line) for line in f if line.strip()]
    return runs


def merge(runs):
    """→ [{"fault", "name", "promise", "runs", "failed", "skipped", "seeds", "seen"}], in order of appearance"""
    rows = {}
    for run in runs:
        row = rows.setdefault((run["fault"], run["name"]), {"fault": run["fault"], "name": run["name"], "promise": run["promise"], "runs": 0, "broken": 0, "skipped": "", "seeds": [],
                                                            "seen": {}, "findings": []})
        if run["result"] == "skipped":
            row["skipped"] = run["why"]
            continue
        row["runs"] += 1
        row["seeds"].append(run["seed"])
        if run["result"] != "kept":
            row["broken"] += 1
            row["findings"].append({"seed": run["seed"], "why": run["why"], "again": run["again"]})
        for key, value in run.get("seen", {}).items():
            add(row["seen"], key, value)
    return sorted(rows.values(), key=lambda row: (row["fault"][0] != "F", int(row["fault"][1:] or 0) if row["fault"][1:].isdigit() else 0))


def add(seen, key, value):
    if key in SUMS or key.startswith("kills_"):
        seen[key] = seen.get(key, 0) + value
    elif key.endswith("_p50_ms") or key.endswith("_p99_ms") or not isinstance(value, (int, float)):
        seen.setdefault(key, value) if not isinstance(value, (int, float)) else seen.__setitem__(key, max(seen.get(key, value), value))
    else:
        seen[key] = max(seen.get(key, value), value)


def text_of(row):
    if row["skipped"] and not row["runs"]:
        return f"skipped: {row['skipped']}"
    return ", ".join(f"{key.replace('_', ' ')} {value:,}" if isinstance(value, (int, float)) else f"{key.replace('_', ' ')}: {value}" for key, value in row["seen"].items())


def markdown(rows, about):
    total = {key: sum(row["seen"].get(key, 0) for row in rows) for key in ("kills", "cuts", "acknowledged", "tasks")}
    lines = [f"{about}", "",
             f"{sum(row['runs'] for row in rows)} runs, {total['kills']:,} kills, {total['cuts']:,} power cuts, {total['acknowledged']:,} acknowledged tasks; "
             f"{sum(row['broken'] for row in rows)} runs broke a promise.", "",
             "| fault | what is done | promise | runs | kept | seen |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        lines.append(f"| {row['fault']} | {row['name']} | {row['promise']} | {row['runs']} | {row['runs'] - row['broken'] if row['runs'] else '–'} | {text_of(row)} |")
    for row in rows:
        for finding in row["findings"]:
            lines += ["", f"**{row['fault']} {row['name']}**, again with `{finding['again']}`:", "", "```", finding["why"][:4000], "```"]
    return "\n".join(lines) + "\n"


def about(runs):
    seconds, seeds = sum(run["seconds"] for run in runs), sorted({run["campaign"] for run in runs})
    return f"Seeds {', '.join(map(str, seeds))}; {seconds:,.0f} s; {runs[0]['version'] if runs else ''}; {runs[0]['machine'] if runs else ''}."


def write(folder, runs):
    rows = merge(runs)
    with open(os.path.join(folder, "report.json"), "w") as f:
        json.dump({"about": about(runs), "faults": rows}, f, indent=1)
    with open(os.path.join(folder, "report.md"), "w") as f:
        f.write("# Campaign\n\n" + markdown(rows, about(runs)))
    return rows


if __name__ == "__main__":
    files = [a for a in sys.argv[1:] if not a.startswith("-")] or [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/chaos/runs.jsonl")]
    every = read(files)
    if "--markdown" in sys.argv:
        print(markdown(merge(every), about(every)), end="")
    else:
        write(os.path.dirname(os.path.abspath(files[0])), every)
