"""What a fault of the campaign is."""
import threading
import time


class Fault:
    """`run(base, seed)` makes the fault once, in a mesh of its own, and checks the promise: → what was seen, a dict of numbers and texts; raises Failed or Skipped.
    `unit`: what is counted as done (a key of what is seen); `wanted`: how many of them a long campaign makes at least."""

    def __init__(self, number, name, promise, run, **more):
        self.number, self.name, self.promise, self.run = number, name, promise, run
        self.unit, self.wanted, self.is_quick = more.get("unit"), more.get("wanted", 0), more.get("is_quick", False)


def pause(seconds):
    threading.Event().wait(seconds)


class Watch:
    """A stopwatch: ms()"""

    def __init__(self):
        self.began = time.monotonic()

    def ms(self):
        return round((time.monotonic() - self.began) * 1e3, 1)


def summary(values):
    """Of milliseconds: → {"p50_ms", "max_ms"}"""
    ordered = sorted(values)
    return {"p50_ms": ordered[len(ordered) // 2], "max_ms": ordered[-1]} if ordered else {}
