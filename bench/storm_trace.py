"""The storm's trace, what happens to its instances, and the queue that nothing can beat: one FIFO queue before all servers, at no cost."""
import collections
import heapq
import itertools
import math
import random
import statistics

SERVERS, CALLERS, MEAN_MS, CV = 8, 4, 20.0, 1.3
SEED = 20261128
SLOW_FACTOR = 10
NEVER = math.inf
IDEAL_DRAWS = 15  # which of several idle servers takes a task is drawn; so often, and the median counts

Role = collections.namedtuple("Role", "slow_from busy_from busy_until killed_at joined_at", defaults=(NEVER, NEVER, NEVER, NEVER, 0))

# When what happens, as shares of the trace's length. The first SERVERS instances are there from the start, one more may join.
VARIANTS = {
    "calm": {},
    "slow": {0: {"slow_from": 1 / 3}},
    "killed": {2: {"killed_at": 1 / 3}, SERVERS: {"joined_at": 2 / 3}},
    "busy": {1: {"busy_from": 1 / 3, "busy_until": 1 / 2}},
    "storm": {0: {"slow_from": 1 / 3}, 1: {"busy_from": 0.4, "busy_until": 0.55}, 2: {"killed_at": 0.5}, SERVERS: {"joined_at": 0.65}},
}
TELL = {
    "calm": "nothing happens",
    "slow": f"one instance is {SLOW_FACTOR} times slower from a third on",
    "killed": "one instance is killed with -9 after a third, another one joins after two thirds",
    "busy": "one instance answers 429 from a third to a half",
    "storm": "all of it: slow from 0.33 on, 429 from 0.40 to 0.55, killed at 0.50, another one at 0.65",
}


def make(count, load):
    """→ [(arrival ns, caller, service ns)]: Poisson arrivals, lognormal service times. For every load the same tasks in the same order, and exactly the mean and the load it is asked for: with a few
    thousand tasks the luck of the draw would move the load by 2 %."""
    draw = random.Random(SEED)
    sigma = math.sqrt(math.log(1 + CV * CV))
    services = [math.exp(draw.gauss(0, sigma)) for _ in range(count)]
    gaps = [draw.expovariate(1) for _ in range(count)]
    callers = [draw.randrange(CALLERS) for _ in range(count)]
    by_service = MEAN_MS * 1e6 * count / sum(services)
    by_gap = MEAN_MS * 1e6 / SERVERS / load * count / sum(gaps)
    arrivals = itertools.accumulate(gap * by_gap for gap in gaps)
    return [(int(at), caller, int(service * by_service)) for at, caller, service in zip(arrivals, callers, services)]


def roles(variant, length_ns):
    """→ {instance: Role}, times in ns on the trace's clock, whole milliseconds; all instances that are ever there."""
    happens = VARIANTS[variant]
    return {i: Role(**{k: round(share * length_ns / 1e6) * 10**6 for k, share in happens.get(i, {}).items()}) for i in range(SERVERS + 1) if i < SERVERS or i in happens}


class Ideal:
    """Work-conserving FIFO: a task that comes, or waits longest, goes to an idle server at once. A killed server's task goes to the head of the queue in that moment."""

    def __init__(self, trace, who, draw):
        self.trace, self.who, self.draw = trace, who, draw
        self.queue, self.ended, self.works_on = collections.deque(), [0] * len(trace), {}
        self.idle = [i for i, role in who.items() if role.joined_at == 0]
        self.events = [(at, 0, "arrives", n) for n, (at, _, _) in enumerate(trace)]
        for i, role in who.items():
            for what, at in (("joins", role.joined_at), ("dies", role.killed_at), ("wakes", role.busy_until)):
                if 0 < at < NEVER:
                    self.events.append((at, 1, what, i))
        heapq.heapify(self.events)

    def run(self):
        """→ [ns from arrival to completion]"""
        while self.events:
            now, _, what, n = heapq.heappop(self.events)
            if what == "arrives":
                self.queue.append(n)
            elif what == "joins":
                self.idle.append(n)
            elif what == "dies":
                self.die(n)
            elif what == "done":
                self.done(n, now)
            self.start(now)
        return [end - at for end, (at, _, _) in zip(self.ended, self.trace)]

    def die(self, server):
        if server in self.works_on:
            self.queue.appendleft(self.works_on.pop(server)[0])
        else:
            self.idle.remove(server)

    def done(self, server, now):
        if server in self.works_on and self.works_on[server][1] == now:
            self.ended[self.works_on.pop(server)[0]] = now
            self.idle.append(server)

    def start(self, now):
        while self.queue:
            able = [i for i in self.idle if not self.who[i].busy_from <= now < self.who[i].busy_until]
            if not able:
                return
            server, task = self.draw.choice(able), self.queue.popleft()
            end = now + self.trace[task][2] * (SLOW_FACTOR if now >= self.who[server].slow_from else 1)
            self.idle.remove(server)
            self.works_on[server] = (task, end)
            heapq.heappush(self.events, (end, -1, "done", server))


def quantile(ordered, q):
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


def ideal(trace, who, warm):
    """→ {"p50_ms", "p99_ms", "spread": p99 of the luckiest and the unluckiest draw by the middling one, "ms": sorted completions of the middling one}; the first `warm` tasks do not
    count."""
    runs = [sorted(ns / 1e6 for ns in Ideal(trace, who, random.Random(seed)).run()[warm:]) for seed in range(IDEAL_DRAWS)]
    runs.sort(key=lambda ms: quantile(ms, 0.99))
    p99s = [quantile(ms, 0.99) for ms in runs]
    middle = IDEAL_DRAWS // 2
    return {"p50_ms": statistics.median(quantile(ms, 0.5) for ms in runs), "p99_ms": p99s[middle], "spread": [p99s[0] / p99s[middle], p99s[-1] / p99s[middle]], "ms": runs[middle]}


def idleness(trace, who, log, warm):
    """→ how long instances that could have worked stood idle while tasks waited, in ms per task, and what lay between two tasks of an instance when another one waited already as the first one ended, in
    ms, sorted. The ideal has 0 and nothing but 0. log: {instance: [(ns, "s" or "d", task)]}."""
    steps = [(at, "waits", None, n) for n, (at, _, _) in enumerate(trace)]
    for i, role in who.items():
        steps += [(at, "begins" if what == "s" else "ends", i, n) for at, what, n in log.get(i, [])]
        steps += [(at, what, i, None) for what, at in (("joins", role.joined_at), ("dies", role.killed_at), ("naps", role.busy_from), ("wakes", role.busy_until)) if at < NEVER]
    waiting, able, works, naps, ended, gaps, lost_ns, last = set(), set(), {}, set(), {}, [], 0, 0
    from_ns = trace[warm][0]
    for at, what, i, n in sorted(steps, key=lambda s: s[0]):
        lost_ns += max(0, at - max(last, from_ns)) * min(sum(1 for k in able if k not in works and k not in naps), len(waiting))
        last = at
        if what == "waits":
            waiting.add(n)
        elif what == "begins":
            waiting.discard(n)
            works[i] = n
            if i in ended and at >= from_ns:
                gaps.append((at - ended[i]) / 1e6)
            ended.pop(i, None)
        elif what == "ends":
            works.pop(i, None)
            if waiting:
                ended[i] = at
        elif what == "dies":
            waiting |= {works.pop(i)} if i in works else set()
            able.discard(i)
        elif what == "joins":
            able.add(i)
        else:
            (naps.add if what == "naps" else naps.discard)(i)
            ended.pop(i, None)
    return lost_ns / 1e6 / (len(trace) - warm), sorted(gaps)


def overtaken(trace, log, warm):
    """The share of tasks that began later than one that came after them (by more than a millisecond); a FIFO queue has 0."""
    began = {}
    for at, what, n in sorted(e for events in log.values() for e in events):
        if what == "s":
            began.setdefault(n, at)
    order = sorted(n for n in began if n >= warm)
    earliest, count, later = NEVER, 0, len(order)
    for n in reversed(order):
        while later > 0 and trace[order[later - 1]][0] > trace[n][0] + 1e6:
            later -= 1
            earliest = min(earliest, began[order[later]])
        count += earliest < began[n]
    return count / max(1, len(order))


def with_hand_over(count, warm, variant, load, ms):
    """The ideal's p99 when `ms` lie between two tasks of an instance, by its p99 when nothing does."""
    trace = make(count + warm, load / 100)
    who = roles(variant, trace[-1][0])
    slower = [(at, caller, service + int(ms * 1e6)) for at, caller, service in trace]
    return ideal(slower, who, warm)["p99_ms"] / ideal(trace, who, warm)["p99_ms"]
