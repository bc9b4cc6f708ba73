"""make bench ONLY=storm: how close the mesh comes to one queue with n servers, beside plain NATS in the same run. Method: bench/README.md."""
import collections
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import threading
import time

from common import PROGRAM, save, table
from meshtest import Mesh, Process, check
import storm_trace as traces

ROUNDS = int(os.environ.get("ROUNDS", "3"))
COUNT = int(os.environ.get("TRACE", "4000"))
WARM = min(400, COUNT // 5)
LOADS = [int(x) for x in os.environ.get("LOADS", "50,80,90").split(",")]
CALM_ONLY = {50, 90} if "LOADS" not in os.environ else set()  # without being asked the other variants run at 80 % only
VARIANTS = [v for v in os.environ.get("VARIANTS", ",".join(traces.VARIANTS)).split(",")]
BEFORE = os.environ.get("BEFORE")  # another version's build folder, to be measured in the same rounds
GIVE_UP_S = 300


def number(ns):
    """For an argument: ms, -1 for never."""
    return "-1" if ns == traces.NEVER else str(round(ns / 1e6))


class Run:
    """One variant at one load with one scheduler, once."""

    def __init__(self, mesh, folder, trace, who):
        self.mesh, self.folder, self.trace, self.who = mesh, folder, trace, who
        self.trace_path = os.path.join(folder, "trace")
        with open(self.trace_path, "w") as f:
            f.writelines(f"{at} {caller} {service}\n" for at, caller, service in trace)
        self.result = os.path.join(folder, "result")
        self.instances, self.logs, self.over = {}, {}, threading.Event()

    def agent_args(self, i):
        role = self.who[i]
        log = os.path.join(self.folder, f"log{i}")
        self.logs[i] = log
        return [log, number(role.slow_from), str(traces.SLOW_FACTOR), number(role.busy_from), number(role.busy_until)]

    def happen(self, start_ns):
        """Kills and joins at their times, unless it is over before."""
        todo = [(role.killed_at, self.kill, i) for i, role in self.who.items()] + [(role.joined_at, self.join, i) for i, role in self.who.items() if role.joined_at]
        for at, act, i in sorted((t for t in todo if t[0] < traces.NEVER), key=lambda t: t[0]):
            if self.over.wait(max(0, (start_ns + at - time.monotonic_ns()) / 1e9)):
                return
            act(i)

    def kill(self, i):
        pids = children(self.instances[i].child.pid)
        for pid in [self.instances[i].child.pid, *pids]:
            os.kill(pid, signal.SIGKILL)

    def callers(self):
        """Runs the trace. → what its callers complained about."""
        program = Process([PROGRAM + self.program[0], *self.program[1:]], os.environ, self.program[0])
        try:
            start_ns = int(program.wait_line("started ").split()[1])
            happens = threading.Thread(target=self.happen, args=(start_ns,))
            happens.start()
            status = program.wait(GIVE_UP_S)
            self.over.set()
            happens.join()
        finally:
            self.over.set()
            program.stop()
        check(status == 0, f"{self.program[0]} ended with {status}", *program.err[-10:])
        return program.err

    def execute(self):
        first = [i for i, role in self.who.items() if role.joined_at == 0]
        try:
            for i in first:
                self.join(i)
            self.ready(len(first))
            said = self.callers()
        finally:
            for instance in self.instances.values():
                instance.stop()
        return self.count(said)


    def agents_logs(self):
        """→ {instance: [(ns, what, task)]}"""
        logs = {}
        for i, path in self.logs.items():
            if os.path.exists(path):
                with open(path) as f:
                    logs[i] = [(int(ns), what, int(task)) for what, task, ns in map(str.split, f)]
        return logs

    def count(self, said):
        """What became of the tasks that count, by the callers and by the agents' own logs."""
        with open(self.result) as f:
            rows = [line.split() for line in f][WARM:]
        logs = self.agents_logs()
        times = {what: collections.Counter(n for log in logs.values() for _, w, n in log if w == what and n >= WARM) for what in "sd"}
        idle_ms, gaps = traces.idleness(self.trace, self.who, {i: [e for e in log if e[1] in "sd"] for i, log in logs.items()}, WARM) if logs else (0, [])
        ms = sorted(int(ns) / 1e6 for state, ns, _ in rows if state == "d")
        check(ms, "no task was completed", *said[:10])
        return {
            "lost": sum(state == "l" for state, _, _ in rows), "failed": sum(state == "f" for state, _, _ in rows), "twice": sum(n > 1 for n in times["d"].values()),
            "begun_again": sum(n > 1 for n in times["s"].values()), "retries": sum(int(r) for _, _, r in rows),
            "idle_ms": idle_ms, "hand_over_ms": traces.quantile(gaps, 0.5) if gaps else 0, "hand_overs": len(gaps),
            "overtaken": traces.overtaken(self.trace, logs, WARM),
            "p50_ms": traces.quantile(ms, 0.5), "p99_ms": traces.quantile(ms, 0.99), "ms": ms, "said": said[:3],
        }


class OnMesh(Run):
    """Real sidecars, one slot each; caller K speaks with a sidecar of its own."""

    def __init__(self, *args, mode="direct"):
        super().__init__(*args)
        sockets = [os.path.join(self.mesh.home, f"caller{k}.sock") for k in range(traces.CALLERS)]
        self.program = ["storm_call", self.trace_path, self.result, "storm", mode, *sockets]

    def join(self, i):
        self.instances[i] = self.mesh.spawn("run", "--name", "storm", "--concurrency", "1", "--retry", "safe", "--mode", "dial", "--", PROGRAM + "storm_agent", *self.agent_args(i))

    def ready(self, _):
        for instance in self.instances.values():
            instance.wait_line("ready ")


class OnMeshDurable(OnMesh):
    """Each call through the journal."""

    def __init__(self, *args):
        super().__init__(*args, mode="durable")


class Older(Mesh):
    """The same mesh of another version."""

    def spawn(self, *args, **_):
        process = Process([os.path.join(BEFORE, "amesh"), *args], self.env, "amesh of before")
        self.processes.append(process)
        return process


class OnMeshBefore(OnMesh):
    """Another version, with an environment of its own."""

    def __init__(self, _, *args):
        self.own = Older().__enter__()
        start_callers(self.own)
        super().__init__(self.own, *args)

    def execute(self):
        with contextlib.ExitStack() as stack:
            stack.push(self.own)
            return super().execute()


class OnNats(Run):
    """A queue group; each responder has a queue of its own."""

    def __init__(self, *args):
        super().__init__(*args)
        self.program = ["storm_nats", "queue", self.trace_path, self.result, self.mesh.bus, "storm"]

    def join(self, i):
        self.instances[i] = Process([PROGRAM + "storm_server", self.mesh.bus, *self.place(i), str(i), *self.agent_args(i)], os.environ, "storm_server")

    def place(self, _):
        return ["storm", "all"]

    def ready(self, _):
        for instance in self.instances.values():
            instance.wait_line("ready")


class OnNatsLeast(OnNats):
    """Callers that choose for themselves, by what they have outstanding."""

    def place(self, i):
        return [f"storm.{i}", "-"]

    def ready(self, n):
        super().ready(n)
        self.program = ["storm_nats", "least", self.trace_path, self.result, self.mesh.bus, "storm", str(n)]


class Slept(Run):
    """The ideal queue itself, in one process that sleeps: what this machine's clock and load add."""

    def execute(self):
        who = [",".join(number(at) for at in (r.slow_from, r.busy_from, r.busy_until, r.killed_at, r.joined_at)) for r in self.who.values()]
        self.program = ["storm_ideal", self.trace_path, self.result, str(traces.SLOW_FACTOR), *who]
        return self.count(self.callers())

    def happen(self, _):
        pass


KINDS = {"ideal slept": Slept, "mesh": OnMesh, **({"mesh before": OnMeshBefore} if BEFORE else {}), "least outstanding": OnNatsLeast, "queue group": OnNats}
MORE_KINDS = {"mesh durable": OnMeshDurable}  # when asked for


def start_callers(mesh):
    for k in range(traces.CALLERS):
        mesh.agent(f"caller{k}", "--mode", "dial", "--sock", os.path.join(mesh.home, f"caller{k}.sock"), "--", PROGRAM + "echo_agent")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(x) for x in f.read().split()]


def curve(ms):
    """A distribution in a few numbers: its quantiles, denser towards the end."""
    return [[q, round(traces.quantile(ms, q), 2)] for q in [i / 50 for i in range(45)] + [1 - 10 ** (-1 - i / 10) for i in range(26)]]


def one_round(variant, load, rows):
    trace = traces.make(COUNT + WARM, load / 100)
    who = traces.roles(variant, trace[-1][0])
    kinds = [k for k in os.environ.get("KINDS", ",".join(KINDS)).split(",")]
    with Mesh() as mesh:
        if "mesh" in kinds or "mesh durable" in kinds:
            start_callers(mesh)
        for kind in kinds:
            with tempfile.TemporaryDirectory() as own:
                rows.setdefault(kind, []).append({**{**KINDS, **MORE_KINDS}[kind](mesh, own, trace, who).execute(), "machine_load": os.getloadavg()[0]})


def summary(rows, best):
    ratios = [r["p99_ms"] / best["p99_ms"] for r in rows]
    middle = sorted(rows, key=lambda r: r["p99_ms"])[len(rows) // 2]
    return {
        **{k: max(r[k] for r in rows) for k in ("lost", "failed", "twice", "begun_again")}, "p50_ms": statistics.median(r["p50_ms"] for r in rows),
        "p99_ms": statistics.median(r["p99_ms"] for r in rows), **{k: statistics.median(r[k] for r in rows) for k in ("idle_ms", "hand_over_ms", "overtaken")}, "ratio": statistics.median(ratios), "ratios": ratios, "curve": curve(middle["ms"]),
        "retries": middle["retries"], "machine_load": [r["machine_load"] for r in rows], "said": [s for r in rows for s in r["said"]][:3],
    }


def summaries(rows):
    data = []
    for (variant, load), kinds in rows.items():
        trace = traces.make(COUNT + WARM, load / 100)
        best = traces.ideal(trace, traces.roles(variant, trace[-1][0]), WARM)
        best["curve"] = curve(best.pop("ms"))
        data.append({"variant": variant, "load": load, "tells": traces.TELL[variant], "ideal": best, "kinds": {kind: summary(r, best) for kind, r in kinds.items()}})
    return data


def show(variant, load, best, results):
    lines = [["ideal, computed", "", "", "", f"{best['p50_ms']:.1f}", f"{best['p99_ms']:.1f}", "1.00", "{:.2f}–{:.2f}".format(*best["spread"]), "0", "0", "0", ""]]
    for kind, r in results.items():
        lines.append([kind, r["lost"], r["failed"], r["twice"], f"{r['p50_ms']:.1f}", f"{r['p99_ms']:.1f}", f"{r['ratio']:.2f}", f"{min(r['ratios']):.2f}–{max(r['ratios']):.2f}",
                      f"{r['idle_ms']:.2f}", f"{r['hand_over_ms']:.2f}", f"{100 * r['overtaken']:.0f} %", f"{statistics.median(r['machine_load']):.1f}"])
    table(f"storm, {variant} at {load} %: {traces.TELL[variant]}", ["", "lost", "failed", "twice", "p50 ms", "p99 ms", "p99 ÷ ideal", "of the rounds", "idle ms/task", "hand-over ms", "overtaken", "machine's load"], lines)
    for kind, r in results.items():
        for line in r["said"]:
            print(f"  {kind}: {line[:300]}")


def bench_storm():
    """One trace, eight instances with one slot each: completion times against an ideal queue, a NATS queue group and least-outstanding callers."""
    cases = [(v, load) for v in VARIANTS for load in LOADS if v == "calm" or load not in CALM_ONLY]
    rows = {case: {} for case in cases}
    for n in range(ROUNDS):
        for variant, load in cases:
            print(f"# storm: round {n + 1} of {ROUNDS}, {variant} at {load} %", file=sys.stderr, flush=True)
            one_round(variant, load, rows[variant, load])
        data = summaries(rows)
        save("storm", {"tasks": COUNT, "warm": WARM, "servers": traces.SERVERS, "callers": traces.CALLERS, "mean_ms": traces.MEAN_MS, "cv": traces.CV, "seed": traces.SEED, "storm_rounds": n + 1, "rows": data})
    for row in data:
        show(row["variant"], row["load"], row["ideal"], row["kinds"])
