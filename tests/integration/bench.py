#!/usr/bin/env python3
"""What the benchmarks count and compare with is right: the storm's ideal queue, its lost and its doubled tasks, what a call asks of malloc, and the page that is made of the results. No speed is tested here."""
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../../bench"), os.path.join(HERE, "../support")]
os.environ.update(TRACE="120", ROUNDS="1")
import cost  # noqa: E402
import page  # noqa: E402
import storm  # noqa: E402
import storm_trace as traces  # noqa: E402
from meshtest import Tap, check  # noqa: E402

MS = 10**6
ALWAYS = traces.Role()


def ideal(trace, who):
    return [ns // MS for ns in traces.Ideal([(at * MS, 0, service * MS) for at, service in trace], who, random.Random(1)).run()]


def test_the_ideal_serves_in_order_and_never_idles():
    check(ideal([(0, 10), (1, 10), (2, 10)], {0: ALWAYS}) == [10, 19, 28], "one server: one after the other")
    check(ideal([(0, 10), (1, 30), (2, 5), (3, 5)], {0: ALWAYS, 1: ALWAYS}) == [10, 30, 13, 17], "two servers: whoever is free takes the oldest")


def test_the_ideal_knows_what_happens_to_servers():
    check(ideal([(0, 10), (20, 10)], {0: traces.Role(slow_from=15 * MS)}) == [10, 10 * traces.SLOW_FACTOR], "slow from a moment on")
    check(ideal([(0, 10), (20, 10)], {0: traces.Role(busy_from=15 * MS, busy_until=40 * MS)}) == [10, 30], "busy for a while")
    check(ideal([(0, 10), (1, 10)], {0: traces.Role(killed_at=5 * MS), 1: traces.Role(joined_at=8 * MS)}) == [18, 27], "a killed server's task begins again, first")


def test_a_trace_has_the_load_it_is_asked_for():
    trace = traces.make(4000, 0.8)
    work, length = sum(service for _, _, service in trace), trace[-1][0]
    check(abs(work / traces.SERVERS / length - 0.8) < 1e-4, "load", work, length)
    check(trace == traces.make(4000, 0.8), "the same trace again")
    check([service for _, _, service in traces.make(4000, 0.5)] == [service for _, _, service in trace], "the same tasks at another load")


def test_idle_time_and_overtaking_are_counted():
    trace, who = [(0, 0, 10 * MS), (2 * MS, 0, 10 * MS), (4 * MS, 0, 10 * MS)], {0: ALWAYS}
    fifo = {0: [(0, "s", 0), (10 * MS, "d", 0), (10 * MS, "s", 1), (20 * MS, "d", 1), (20 * MS, "s", 2), (30 * MS, "d", 2)]}
    check((traces.idleness(trace, who, fifo, 0), traces.overtaken(trace, fifo, 0)) == ((0, [0, 0]), 0), "FIFO has neither")
    late = {0: [(0, "s", 0), (10 * MS, "d", 0), (13 * MS, "s", 2), (23 * MS, "d", 2), (23 * MS, "s", 1), (33 * MS, "d", 1)]}
    check(traces.idleness(trace, who, late, 0) == (1, [0, 3]), "3 ms of three tasks, and between two of them", traces.idleness(trace, who, late, 0))
    check(abs(traces.overtaken(trace, late, 0) - 1 / 3) < 1e-9, "one of three")


def test_a_short_storm_on_a_real_mesh_does_every_task_once():
    rows = {}
    os.environ["KINDS"] = "mesh,queue group,least outstanding,ideal slept"
    storm.one_round("calm", 50, rows)
    for kind, (r,) in rows.items():
        check((r["lost"], r["failed"], r["twice"], len(r["ms"])) == (0, 0, 0, storm.COUNT), kind, {k: v for k, v in r.items() if k != "ms"})


def test_a_killed_instance_costs_the_queue_group_what_it_had_and_is_counted():
    rows = {}
    os.environ["KINDS"] = "queue group"
    storm.one_round("killed", 90, rows)
    (r,) = rows["queue group"]
    check(r["lost"] + len(r["ms"]) == storm.COUNT and r["twice"] == 0, "lost and done are all there are", r["lost"], len(r["ms"]))


def test_a_direct_call_asks_nothing_of_malloc_in_the_steady_state():
    for window in (1, 64):
        rows, _ = cost.count_plain("mesh", window)
        for party in ("caller's sidecar", "callee's sidecar"):
            made = rows[party]["allocations"]
            check(made["own"] < 1, f"{party}, {window} in flight: {made['own']:.1f} allocations a call", rows[party]["by_module"])  # below 1: beats, and queue groups that are left and joined
            check(made["nats.c"] >= 0.9, f"{party}: the counter sees nothing, as nats.c allocates each message", made)


def test_the_page_is_filled_between_its_markers_only():
    text = "before\n<!-- call: made by make performance -->\nold\n<!-- call: end -->\nafter\n"
    check(page.fill(text, "call", "new") == "before\n<!-- call: made by make performance -->\n\nnew\n\n<!-- call: end -->\nafter\n", "filled", page.fill(text, "call", "new"))
    try:
        page.fill(text, "storm", "new")
    except SystemExit as e:
        check("0 places for `storm`" in str(e), "says what is missing", e)
    else:
        check(False, "a page without the place is refused")
    with open(page.PAGE) as f:
        whole = f.read()
    for name in page.SECTIONS:
        whole = page.fill(whole, name, "x")


tap = Tap()
for name, test in [(k, v) for k, v in globals().items() if k.startswith("test_")]:
    tap.run(name.removeprefix("test_").replace("_", " "), test)
tap.done()
