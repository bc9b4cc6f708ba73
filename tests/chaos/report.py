#!/usr/bin/env python3
"""build/chaos/runs.jsonl → report.md and report.json. Reports of several campaigns are merged by giving their runs.jsonl:
    report.py [--markdown] RUNS.jsonl…
"""
import json
import os
import sys

GREATEST = ("_ms", "_mib")  # how numbers end that are measured: of several runs the greatest is told. All others are counted: they are added up
TEXTS_MAX = 3  # of one key


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


def is_greatest(key):
    return key.endswith(GREATEST)


def add(seen, key, value):
    if not isinstance(value, (int, float)):
        texts = seen.get(key, value).split("; ")
        seen[key] = "; ".join(texts if value in texts or len(texts) == TEXTS_MAX else [*texts, value])
    elif is_greatest(key):
        seen[key] = max(seen.get(key, value), value)
    else:
        seen[key] = seen.get(key, 0) + value


def text_of(row):
    if not row["runs"]:
        return f"skipped: {row['skipped']}"
    numbers = [(key, f"{key.replace('_', ' ')} {value:,}") for key, value in row["seen"].items() if isinstance(value, (int, float))]
    texts = [f"{key.replace('_', ' ')}: {value}" for key, value in row["seen"].items() if not isinstance(value, (int, float))]
    most = ", ".join(text for key, text in numbers if is_greatest(key))
    return "; ".join(part for part in (", ".join(text for key, text in numbers if not is_greatest(key)), most and f"at most: {most}", *texts) if part)


def not_made(rows):
    """What nobody may take for shown, with the reason, before the table."""
    rows = [row for row in rows if not row["runs"]]
    if rows:
        yield "**Not made:** " + "; ".join(f"{row['fault']} {row['name']} ({row['skipped'].removeprefix('allowed: ')})" for row in rows) + "."
        yield ""


def markdown(rows, about):
    total = {key: sum(row["seen"].get(key, 0) for row in rows) for key in ("kills", "cuts", "acknowledged", "tasks")}
    lines = [f"{about}", "",
             f"{sum(row['runs'] for row in rows)} runs, {total['kills']:,} kills, {total['cuts']:,} power cuts, {total['acknowledged']:,} acknowledged tasks; "
             f"{sum(row['broken'] for row in rows)} runs broke a promise.", "", *not_made(rows),
             "What was seen: numbers are the sums of all runs; those behind *at most* are the greatest of any run (a p50 or p99 is that of one run).", "",
             "| fault | what is done | promise | runs | kept | seen |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        lines.append(f"| {row['fault']} | {row['name']} | {row['promise']} | {row['runs']} | {row['runs'] - row['broken'] if row['runs'] else '–'} | {text_of(row)} |")
    for row in rows:
        for finding in row["findings"]:
            lines += ["", f"**{row['fault']} {row['name']}**, again with `{finding['again']}`:", "", "```", finding["why"][:4000], "```"]
    return "\n".join(lines) + "\n"


def about(runs):
    """Everything that a run knows of where it was made; runs of several builds or machines name all of them."""
    seconds, seeds = sum(run["seconds"] for run in runs), sorted({run["campaign"] for run in runs})
    known = [" and ".join(dict.fromkeys(word for run in runs if run.get(key) for word in run[key].split(" and "))) for key in ("version", "commit", "nats_server", "sqlite", "machine")]
    return "; ".join([f"Seeds {', '.join(map(str, seeds))}", f"{seconds:,.0f} s", *filter(None, known)]) + "."


def write(folder, runs):
    rows = merge(runs)
    with open(os.path.join(folder, "report.json"), "w") as f:
        json.dump({"about": about(runs), "greatest": [f"*{end}" for end in GREATEST], "faults": rows}, f, indent=1)
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
