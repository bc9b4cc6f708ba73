#!/usr/bin/env python3
"""make performance: writes the tables and plots of docs/performance.md from build/bench/*.json. What stands outside of its markers is left alone; a section without results stays as it is."""
import json
import os
import re
import statistics
import sys

import plot
import storm_trace as traces

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(TOP, "docs/performance.md")
PLOTS = "performance"  # beside the page
STORM_NAMES = [("ideal slept", "ideal"), ("mesh", "mesh"), ("mesh before", "fourth"), ("mesh durable", "fourth"), ("least outstanding", "second"), ("queue group", "third")]
MAIN_LOAD = 80


def markdown(header, rows):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [header, ["---"] + ["---:"] * (len(header) - 1), *rows]]
    return "\n".join(lines)


def ran_on(data):
    m = data["machine"]
    more = [f"{m['cores']} cores of {m['cpu']}", f"Linux {m['kernel'].split('-')[0]}", "nats-server " + m["nats_server"].removeprefix("nats-server: ")]
    more += [f"nats.c {m['nats_c']}"] if "nats_c" in m else []
    more += [f"commit `{m['amesh']}`"] if "amesh" in m else []
    more += [f"scheduler: {m['scheduler']}, load of the machine before: {m['load']}"] if "load" in m else []
    return f"<sub>{', '.join(more)}, {data.get('storm_rounds', data['rounds'])} rounds</sub>"


def picture(name, svg, about):
    os.makedirs(os.path.join(TOP, "docs", PLOTS), exist_ok=True)
    with open(os.path.join(TOP, "docs", PLOTS, name + ".svg"), "w") as f:
        f.write(svg)
    return f"![{about}]({PLOTS}/{name}.svg)"


# ---- the storm --------------------------------------------------------------------------------------------------


def names_in(rows):
    return [(name, plot.COLOURS[colour]) for name, colour in STORM_NAMES if any(name in row["kinds"] for row in rows)]


def storm_table(rows):
    lines = []
    for row in rows:
        best = row["ideal"]
        lines.append([f"**{row['variant']}, {row['load']} %**", "ideal, computed", "", "", "", f"{best['p50_ms']:.1f}", f"{best['p99_ms']:.0f}", "1.00", "{:.2f} – {:.2f}".format(*best["spread"]), "0", "0", "0"])
        for kind, r in row["kinds"].items():
            lines.append(["", kind, r["lost"], r["failed"], r["twice"], f"{r['p50_ms']:.1f}", f"{r['p99_ms']:.0f}", f"**{r['ratio']:.2f}**" if kind == "mesh" else f"{r['ratio']:.2f}",
                          f"{min(r['ratios']):.2f} – {max(r['ratios']):.2f}", f"{r['idle_ms']:.2f}", f"{r['hand_over_ms']:.2f}", f"{100 * r['overtaken']:.0f} %"])
    return markdown(["", "", "lost", "failed", "twice", "p50 ms", "p99 ms", "p99 ÷ ideal", "of the rounds", "idle ms/task", "hand-over ms", "overtaken"], lines)


def storm_distributions(rows):
    """Completion times of each variant at one load."""
    charts = []
    for row in rows:
        series = [("ideal", plot.COLOURS["ideal"], row["ideal"]["curve"])] + [(n, c, row["kinds"][n]["curve"]) for n, c in names_in([row]) if n != "ideal slept"]
        series = [(n, c, [p for p in points if p[0] <= 0.999]) for n, c, points in series]
        values = [ms for _, _, points in series for _, ms in points]
        charts.append((f"{row['variant']}, {row['load']} %: ms", plot.nines(), plot.log_scale(values, 2), "of the tasks", series[::-1]))
    names = [("ideal", plot.COLOURS["ideal"])] + [n for n in names_in(rows) if n[0] != "ideal slept"]
    return picture("storm-completion", plot.panels(charts, names, "completion time by quantile, per scheduler"), "Completion time by quantile, per scheduler and variant")


def storm_loads(rows):
    """The ratio against the load, for each variant that was measured at more than one."""
    charts, names = [], names_in(rows)
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = sorted((r for r in rows if r["variant"] == variant), key=lambda r: r["load"])
        if len(own) < 2:
            continue
        series = [(n, c, [(r["load"], r["kinds"][n]["ratio"]) for r in own if n in r["kinds"]]) for n, c in names]
        values = [v for _, _, points in series for _, v in points]
        loads = [r["load"] for r in own]
        charts.append((variant, plot.Scale(loads[0] - 4, loads[-1] + 4, [(x, f"{x} %") for x in loads]), plot.log_scale(values, 0.9), "load", series[::-1]))
    return picture("storm-load", plot.panels(charts, names, "p99 by the ideal's, against load"), "p99 ÷ the ideal's p99 against load") if charts else ""


def hand_overs(data):
    """What a hand-over may cost: computed, from the same traces."""
    costs = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0)
    cases = [(v, load) for v, load in (("calm", 80), ("calm", 90), ("slow", 80), ("storm", 80)) if any((r["variant"], r["load"]) == (v, load) for r in data["rows"])]
    lines = [[f"{v}, {load} %", *(f"{traces.with_hand_over(data['tasks'], data['warm'], v, load, ms):.2f}" for ms in costs)] for v, load in cases]
    return markdown(["p99 ÷ ideal, if a hand-over cost", *(f"{ms} ms" for ms in costs)], lines) if cases else ""


def storm(data):
    rows = data["rows"]
    main = [r for r in rows if r["load"] == MAIN_LOAD] or rows
    ratios = [(f"{r['variant']}, {r['load']} %", {k: v["ratio"] for k, v in r["kinds"].items()}) for r in rows]
    dots = picture("storm-ratio", plot.dots(ratios, names_in(rows), "p99 ÷ p99 of the ideal queue (1 is the best there can be)", "p99 by the ideal's, per variant"), "p99 ÷ the ideal's p99, per variant")
    tells = "\n".join(f"- **{v}**: {t}" for v, t in dict((r["variant"], r["tells"]) for r in rows).items())
    head = f"{data['tasks']:,} tasks after {data['warm']} of warm-up, {data['callers']} callers, {data['servers']} instances with one slot each, mean {data['mean_ms']:.0f} ms, cv {data['cv']}, seed {data['seed']}."
    return "\n\n".join(x for x in (head, tells, dots, storm_loads(rows), storm_distributions(main), storm_table(rows), hand_overs(data), ran_on(data)) if x)


# ---- the others -------------------------------------------------------------------------------------------------


def call(data):
    tables = []
    for mode, window in dict.fromkeys((r["mode"], r["window"]) for r in data["rows"]):
        own = [r for r in data["rows"] if (r["mode"], r["window"]) == (mode, window)]
        base = next(r for r in own if r.get("kind") == "nats.c")
        rows = [[r["kind"], f"{r['p50_us']:.0f}", f"{r['p99_us']:.0f}", f"{r['rate']:,.0f}", f"{r['p50_ratio']:.2f}", f"{r['p50_us'] - base['p50_us']:+.0f}"] for r in own if "kind" in r]
        used = next(r["cpu_us_per_call"] for r in own if "cpu_us_per_call" in r)
        tables.append(markdown([f"{mode}, {window} in flight", "p50 µs", "p99 µs", "calls/s", "p50 ÷ nats.c", "p50 − nats.c"], rows))
        tables.append("CPU per call: " + ", ".join(f"{name} {us:.0f} µs" for name, us in used.items()) + ".")
    return "\n\n".join([*tables, ran_on(data)])


def submit(data):
    control = data["fdatasync_us"]
    rows = [[r["window"], f"{r['p50_us'] / 1e3:.2f}", f"{r['p99_us'] / 1e3:.2f}", f"{r['rate']:,}", f"{r['p50_us'] / control:.1f}"] for r in data["rows"]]
    return markdown(["in flight", "p50 ms", "p99 ms", "submits/s", "p50 ÷ control"], rows) + f"\n\nControl: a write and `fdatasync` of 512 bytes on the same disk, {control / 1e3:.2f} ms.\n\n" + ran_on(data)


def stampede(data):
    rows = [[r["name"], f"{r['accepted']:,}", r["failed"], f"{r['repeated']:,}", f"{r['seconds']:.2f}", f"{r['idle_mib']:.0f}", f"{r['peak_mib']:.0f}"] for r in data["rows"]]
    return markdown(["50 clients at once", "accepted", "failed", "told to come back", "seconds", "idle MiB", "peak MiB"], rows) + "\n\n" + ran_on(data)


def start(data):
    return markdown(["", "started ms", "RSS MiB", "private dirty MiB"], data["rows"]) + "\n\n" + ran_on(data)


def restart(data):
    return markdown(["in the journal", "median ms", "max ms", "CPU ms", "peak RSS MiB"], data["rows"]) + "\n\n" + ran_on(data)


def quantiles(ms):
    ms = sorted(ms)
    return [f"{x:.1f}" for x in (statistics.median(ms), ms[min(len(ms) - 1, int(len(ms) * 0.99))], ms[-1])]


def failover(data):
    rows = [["kill → waitpid of a bare parent", len(data["control_ms"]), *quantiles(data["control_ms"])]] + [[r["what"], len(r["ms"]), *quantiles(r["ms"])] for r in data["rows"]]
    return markdown(["", "kills", "p50 ms", "p99 ms", "max ms"], rows) + "\n\n" + ran_on(data)


def stream(data):
    rates = [[r["kind"], f"{r['rate']:,.0f}", f"{r['ratio']:.2f}", r["lost"], r["out_of_order"]] for r in data["throughput"]]
    stopped = data["stopped"]
    others = [[r["tells"], f"{r['p50_us'] / 1e3:.2f}", f"{r['p99_us'] / 1e3:.2f}", f"{r['added_us'] / 1e3:+.2f}"] for r in stopped["rows"]]
    said = f"One reader stops for a while; of all five streams {stopped['lost']} records were lost and {stopped['out_of_order']} came out of order."
    return "\n\n".join([markdown([f"{data['records']:,} records of 64 bytes", "records/s", "÷ no credit", "lost", "out of order"], rates), said,
                        markdown(["the others' time from agent to reader", "p50 ms", "p99 ms", "p99 − alone"], others), ran_on(data)])


def join(data):
    return markdown([f"{data['joins']} joins, {data['callers']} callers", "p50 ms", "p99 ms", "max ms"], [[r["what"], *(f"{x:.2f}" for x in r["ms"])] for r in data["rows"]]) + "\n\n" + ran_on(data)


def cost(data):
    tables = []
    for window in dict.fromkeys(r["window"] for r in data["rows"]):
        own = [r for r in data["rows"] if r["window"] == window]
        rows = [[r["party"], f"{r['instructions']:,.0f}" if r["instructions"] else "", f"{r['allocations']['own']:.1f}", f"{r['allocations']['nats.c']:.1f}", f"{sum(r['system_calls'].values()):.1f}",
                 f"{r['switches']:.2f}", ", ".join(f"{k} {v:.1f}" for k, v in sorted(r["system_calls"].items(), key=lambda x: -x[1]) if v >= 0.1)] for r in own if "party" in r]
        tables.append(markdown([f"per call, {window} in flight", "instructions", "allocations, own", "of nats.c", "system calls", "waits", "which"], rows))
        bus = next(r for r in own if "bus" in r)
        tables.append("On the bus: {0[messages]:.1f} messages, {0[bytes]:,.0f} bytes of payload; nats.c: {1[messages]:.1f} messages, {1[bytes]:,.0f} bytes.".format(bus["bus"], bus["bus_nats_c"]))
    return "\n\n".join([*tables, ran_on(data).rsplit(", ", 1)[0] + f", {data['calls']:,} calls</sub>"])


def events(data):
    """What a record of a stream costs; the third table is made of the first two kinds."""
    tables = []
    for kind in dict.fromkeys(r["kind"] for r in data["rows"]):
        own = [r for r in data["rows"] if r["kind"] == kind]
        rows = [[r["party"], f"{r['instructions']:,.0f}" if r["instructions"] else "", f"{r['allocations']['own']:.2f}", f"{r['allocations']['nats.c']:.2f}", f"{r['switches']:.2f}", f"{r['cpu_us']:.1f}"]
                for r in own if "party" in r]
        bus = next(r["bus"] for r in own if "bus" in r)
        tables.append(markdown([f"per record, {kind}", "instructions", "allocations, own", "of nats.c", "waits", "CPU µs"], rows))
        tables.append(f"On the bus: {bus.get('messages', 0):.2f} messages, {bus.get('bytes', 0):,.0f} bytes of payload.")
    return "\n\n".join([*tables, ran_on(data)])


# ---- what was aimed at ------------------------------------------------------------------------------------------

# what, results, (results → value), format, aim, (value → is it reached)
AIMS = [
    ("storm, {} at {} %: p99 ÷ ideal".format(*case), "storm", lambda d, case=case: in_storm(d, *case)["ratio"], "{:.2f}", f"≤ {most:.2f}", lambda v, most=most: round(v, 2) <= most)
    for case, most in {("calm", 80): 1.05, ("calm", 90): 1.08, ("slow", 80): 1.10, ("storm", 80): 1.20}.items()
] + [
    ("storm, all variants: lost or failed", "storm", lambda d: sum(in_kinds(r, "lost") + in_kinds(r, "failed") for r in d["rows"]), "{}", "0", lambda v: v == 0),
    ("storm, all variants: done twice", "storm", lambda d: sum(in_kinds(r, "twice") for r in d["rows"]), "{}", "0", lambda v: v == 0),
    ("call through two sidecars, pinned: p50 − nats.c", "call", lambda d: in_call(d, 1, "mesh (two sidecars)", "p50_us") - in_call(d, 1, "nats.c", "p50_us"), "{:.0f} µs", "≤ 40 µs", lambda v: v <= 40),
    ("64 calls in flight, pinned: rate ÷ that of two pipes", "call", lambda d: in_call(d, 64, "mesh (two sidecars)", "rate") / in_call(d, 64, "sockets through two pipes", "rate"), "{:.2f}", "≥ 0.60", lambda v: v >= 0.6),
    ("64 calls in flight, pinned: CPU of the caller's sidecar per call", "call", lambda d: in_cpu(d, "caller's sidecar"), "{:.0f} µs", "≤ 10 µs", lambda v: v <= 10),
    ("64 calls in flight, pinned: CPU of the callee's sidecar per call", "call", lambda d: in_cpu(d, "callee's sidecar"), "{:.0f} µs", "≤ 10 µs", lambda v: v <= 10),
    ("a call: allocations of the caller's sidecar beyond nats.c's", "cost", lambda d: in_cost(d, "caller's sidecar"), "{:.0f}", "0", lambda v: v < 0.5),
    ("a call: allocations of the callee's sidecar beyond nats.c's", "cost", lambda d: in_cost(d, "callee's sidecar"), "{:.0f}", "0", lambda v: v < 0.5),
    ("stream by hand: rate with credit ÷ without", "stream", lambda d: in_stream(d, "by hand on the bus, credit"), "{:.2f}", "≥ 0.70", lambda v: v >= 0.7),
    ("stream through two sidecars: rate ÷ by hand without credit", "stream", lambda d: in_stream(d, "mesh (two sidecars)"), "{:.2f}", "≥ 0.70", lambda v: v >= 0.7),
    ("a stopped reader: records lost", "stream", lambda d: d["stopped"]["lost"], "{}", "0", lambda v: v == 0),
    ("a stopped reader: the others' p99 − alone", "stream", lambda d: max(r["added_us"] for r in d["stopped"]["rows"]) / 1e3, "{:+.2f} ms", "≤ +1 ms", lambda v: v <= 1),
    ("under attack, the worst: calls' p99 ÷ that of a mesh without", "hostile", lambda d: in_hostile(d), "{:.2f}", "< 2", lambda v: v < 2),
    ("joined → callable by everybody: p99", "join", lambda d: d["rows"][2]["ms"][1], "{:.1f} ms", "≤ 10 ms", lambda v: v <= 10),
    ("durable submit, one client: p50", "submit", lambda d: d["rows"][0]["p50_us"] / 1e3, "{:.2f} ms", "< 1 ms", lambda v: v < 1),
    ("durable submit, 64 in flight", "submit", lambda d: d["rows"][1]["rate"], "{:,.0f}/s", "≥ 20,000/s", lambda v: v >= 20000),
    ("agent killed → running elsewhere: p99", "failover", lambda d: float(quantiles(d["rows"][1]["ms"])[1]), "{:.1f} ms", "≤ 50 ms", lambda v: v <= 50),
    ("environment killed, 100,000 tasks open → a submit is accepted: median", "restart", lambda d: int(d["rows"][-1][1]), "{} ms", "< 1,000 ms", lambda v: v < 1000),
]


def in_storm(data, variant, load):
    return next(r for r in data["rows"] if (r["variant"], r["load"]) == (variant, load))["kinds"]["mesh"]


def in_kinds(row, key):
    return row["kinds"]["mesh"][key]


def in_call(data, window, kind, key):
    return next(r for r in data["rows"] if r["mode"] == "pinned" and r["window"] == window and r.get("kind") == kind)[key]


def in_cpu(data, process):
    return next(r["cpu_us_per_call"] for r in data["rows"] if r["mode"] == "pinned" and r["window"] == 64 and "cpu_us_per_call" in r)[process]


def in_cost(data, party):
    return next(r for r in data["rows"] if r["window"] == 1 and r.get("party") == party)["allocations"]["own"]


def in_stream(data, kind):
    return next(r for r in data["throughput"] if r["kind"] == kind)["ratio"]


def aims(results, page):
    """What was not measured this time stays as it stands on the page."""
    kept = {m[1].strip(): m[0] for m in re.finditer(r"^\| ([^|\n]+) \|.*$", page, re.M)}
    lines = markdown(["", "measured", "aim", ""], []).splitlines()
    for what, name, value_of, form, aim, is_reached in AIMS:
        try:
            value = value_of(results[name])
            lines.append("| " + " | ".join([what, form.format(value), aim, "reached" if is_reached(value) else "**not reached**"]) + " |")
        except (KeyError, StopIteration):
            lines += [kept[what]] if what in kept else []
    return "\n".join(lines) if len(lines) > 2 else "Nothing has been measured yet: `make bench`."


def fleet(data):
    header = ["agents", "instances", "beats/s", "environment, CPU of a core", "MiB", "nats-server, CPU", "MiB", "`ls --json` ms", "KiB", "a change is shown by `ls --watch` after ms", "its CPU", "a call's p50 µs"]
    rows = [[f"{r['agents']:,}", f"{r['instances']:,}", f"{r['instances'] * 1000 / r['interval_ms']:,.0f}", f"{r['cpu_percent']['environment']:.1f} %", f"{r['rss_mib']['environment']:.0f}",
             f"{r['cpu_percent']['nats-server']:.1f} %", f"{r['rss_mib']['nats-server']:.0f}", f"{r['ls_ms']:.0f}", f"{r['ls_bytes'] / 1024:,.0f}", f"{r['watch_ms']:.0f}", f"{r['watch_cpu_percent']:.1f} %", f"{r['call_p50_us']:.0f}"]
            for r in data["rows"]]
    return markdown(header, rows) + "\n\n" + ran_on(data)


def hostile(data):
    base, control = data["rows"][0]["p99_us"], data["rows"][1]["p99_us"]
    header = [f"{data['seconds']:.0f} s each", "per s", "p50 µs", "p99 µs", "p99 ÷ nothing else", "p99 ÷ control", "log lines/s", "grown MiB"]
    rows = [[r["what"], f"{r['per_s']:,.0f}", f"{r['p50_us']:.0f}", f"{r['p99_us']:.0f}", f"{r['p99_us'] / base:.2f}", f"{r['p99_us'] / control:.2f}",
             ", ".join(f"{v:.1f}" for v in r["log_per_s"].values()), ", ".join(f"{v:.0f}" for v in r["grown_mib"].values())] for r in data["rows"]]
    return markdown(header, rows) + "\n\n" + ran_on(data)


def in_hostile(data):
    return max(r["p99_us"] for r in data["rows"][2:-1]) / data["rows"][0]["p99_us"]


SECTIONS = {"storm": storm, "call": call, "cost": cost, "events": events, "stream": stream, "join": join, "fleet": fleet, "hostile": hostile, "submit": submit, "stampede": stampede, "start": start, "restart": restart, "failover": failover}


def fill(page, name, text):
    """What stands between the markers of a section becomes `text`."""
    pattern = re.compile(rf"(<!-- {name}: made by make performance -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
    page, n = pattern.subn(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page)
    if n != 1:
        sys.exit(f"docs/performance.md: {n} places for `{name}`; there must be one `<!-- {name}: made by make performance -->` with `<!-- {name}: end -->` behind it")
    return page


def main():
    with open(PAGE) as f:
        page = f.read()
    results = {}
    for name, section in SECTIONS.items():
        path = os.path.join(TOP, f"build/bench/{name}.json")
        if os.path.exists(path):
            with open(path) as f:
                results[name] = json.load(f)
            page = fill(page, name, section(results[name]))
            print(f"{name}: written")
        else:
            print(f"{name}: left as it is, there is no build/bench/{name}.json (make bench ONLY={name})")
    page = fill(page, "aims", aims(results, page))
    with open(PAGE, "w") as f:
        f.write(page)


if __name__ == "__main__":
    main()
