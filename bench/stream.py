"""make bench ONLY=stream: what credit costs a stream, and what a reader that stops costs the others. Method: bench/README.md."""
import os
import statistics

from common import PROGRAM, ROUNDS, measured, median, save, table
from meshtest import Mesh

COUNT = int(os.environ.get("RECORDS", "100000"))
SECONDS = 3
WINDOW = 1 << 20


def throughput(mesh, socket):
    kinds = {
        "nats.c, no credit": ["stream_nats", mesh.bus],
        "by hand on the bus, no credit": ["stream_bus", mesh.bus, "bench-stream"],
        "by hand on the bus, credit": ["stream_bus", mesh.bus, "bench-stream"],
        "mesh (two sidecars)": ["stream_call", "one", socket, "bench-stream"],
    }
    more = {"by hand on the bus, no credit": ["0"], "by hand on the bus, credit": [str(WINDOW)]}
    rows = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, argv in kinds.items():
            rows[kind].append(measured([PROGRAM + argv[0], *argv[1:], str(COUNT), *more.get(kind, [])]))
    base = median(rows["by hand on the bus, no credit"], "rate")
    data = [{"kind": kind, "rate": median(r, "rate"), "ratio": median(r, "rate") / base, "lost": max(x["lost"] for x in r), "out_of_order": max(x["out_of_order"] for x in r)} for kind, r in rows.items()]
    table(f"a stream of {COUNT:,} records of 64 bytes", ["", "records/s", "÷ no credit", "lost", "out of order"],
          [[r["kind"], f"{r['rate']:,.0f}", f"{r['ratio']:.2f}", r["lost"], r["out_of_order"]] for r in data])
    return data


def stopped(socket):
    rows = [measured([PROGRAM + "stream_call", "stopped", socket, "bench-stream", str(SECONDS)]) for _ in range(ROUNDS)]
    tell = {"alone": "four slow streams alone", "beside": "beside a fast one that is read", "stopped": "while the reader of the fast one does not read", "going_on": "while it reads again"}
    data = [{"phase": phase, "tells": text, "p50_us": statistics.median(r[phase]["p50_us"] for r in rows), "p99_us": statistics.median(r[phase]["p99_us"] for r in rows)} for phase, text in tell.items()]
    for row in data:
        row["added_us"] = row["p99_us"] - data[0]["p99_us"]
    lost, disorder = max(r["lost"] for r in rows), max(r["out_of_order"] for r in rows)
    table(f"one reader stops for {SECONDS} s: the other streams of the same sidecars (lost of all: {lost}, out of order: {disorder})", ["", "p50 µs", "p99 µs", "p99 − alone"],
          [[r["tells"], f"{r['p50_us']:.0f}", f"{r['p99_us']:.0f}", f"{r['added_us']:+.0f}"] for r in data])
    return {"lost": lost, "out_of_order": disorder, "rows": data}


def bench_stream():
    """Streams through two sidecars: their rate with and without credit, and readers that stop."""
    with Mesh() as mesh:
        socket = os.path.join(mesh.home, "caller.sock")
        mesh.agent("bench-stream", "--concurrency", "8", "--mode", "dial", "--", PROGRAM + "stream_agent")
        mesh.agent("bench-caller", "--mode", "dial", "--sock", socket, "--", PROGRAM + "echo_agent")
        save("stream", {"records": COUNT, "throughput": throughput(mesh, socket), "stopped": stopped(socket)})
