#!/usr/bin/env python3
"""The checker bites: each rule is broken on purpose in a history that is otherwise right, and is found, and nothing else is."""
import copy
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../support")]
import checker  # noqa: E402
from meshtest import Tap, check  # noqa: E402

tap = Tap()


def event(state=None, artifact=None):
    return {"body": {"artifactUpdate": {"artifact": artifact}} if artifact else {"statusUpdate": {"status": {"state": state}}}}


def history(n=3):
    """→ acks, records of n tasks that were done as promised."""
    acks, records = [], {}
    for i in range(n):
        task, text = f"t-{i}", f"c0-{i} work 1"
        acks.append({"from": "c0", "text": text, "task": task, "key": f"k-{i}"})
        records[task] = {"task": {"id": task, "status": {"state": "TASK_STATE_COMPLETED"}, "history": [{"parts": [{"text": text}]}],
                                  "artifacts": [{"artifactId": "response", "parts": [{"text": checker.digest(text)}]}],
                                  "metadata": {"amp/attempts": [{"attempt": 1, "startedAt": "T1", "endedAt": "T2"}]}},
                         "from": "c0", "durable": True, "eventsCount": 4,
                         "events": [event("TASK_STATE_SUBMITTED"), event("TASK_STATE_WORKING"), event(artifact={}), event("TASK_STATE_COMPLETED")]}
    return acks, records


def lost(acks, records):
    del records["t-1"]


def another_text(acks, records):
    records["t-1"]["task"]["history"][0]["parts"][0]["text"] = "c0-1 work 2"
    records["t-1"]["task"]["artifacts"][0]["parts"][0]["text"] = checker.digest("c0-1 work 2")


def two_tasks_of_one_key(acks, records):
    acks.append(dict(acks[1], task="t-2", text="c0-2 work 1"))


def two_tasks_of_one_text(acks, records):
    records["t-9"] = copy.deepcopy(records["t-1"])


def never_ended(acks, records):
    records["t-1"]["events"].pop()
    records["t-1"]["eventsCount"] = 3
    records["t-1"]["task"]["status"]["state"] = "TASK_STATE_WORKING"


def doubled_end(acks, records):
    records["t-1"]["events"].append(event("TASK_STATE_COMPLETED"))
    records["t-1"]["eventsCount"] = 5


def event_after_the_end(acks, records):
    records["t-1"]["events"].append(event(artifact={}))
    records["t-1"]["eventsCount"] = 5


def another_end(acks, records):
    records["t-1"]["events"][-1] = event("TASK_STATE_FAILED")


def a_gap(acks, records):
    del records["t-1"]["events"][2]


def wrong_answer(acks, records):
    records["t-1"]["task"]["artifacts"][0]["parts"][0]["text"] = checker.digest("something else")


def no_answer(acks, records):
    records["t-1"]["task"]["artifacts"] = []


def failed_for_nothing(acks, records):
    records["t-1"]["task"]["status"]["state"] = "TASK_STATE_FAILED"
    records["t-1"]["events"][-1] = event("TASK_STATE_FAILED")


def two_attempts_at_once(acks, records):
    records["t-1"]["task"]["metadata"]["amp/attempts"] = [{"attempt": 1, "startedAt": "T1", "endedAt": "T5"}, {"attempt": 2, "startedAt": "T4", "endedAt": "T6"}]


def an_attempt_twice(acks, records):
    records["t-1"]["task"]["metadata"]["amp/attempts"] *= 2


def an_epoch_that_does_not_rise(acks, records):
    records["t-1"]["task"]["metadata"]["amp/attempts"] = [{"attempt": 1, "startedAt": "T1", "endedAt": "T2", "epoch": "2.9"}, {"attempt": 2, "startedAt": "T3", "endedAt": "T4", "epoch": "2.9"}]


BROKEN = [("lost", lost), ("lost", another_text), ("doubled", two_tasks_of_one_key), ("doubled", two_tasks_of_one_text), ("ended", never_ended), ("ended", doubled_end),
          ("ended", event_after_the_end), ("ended", another_end), ("gap", a_gap), ("answer", wrong_answer), ("answer", no_answer), ("answer", failed_for_nothing),
          ("attempts", two_attempts_at_once), ("attempts", an_attempt_twice), ("attempts", an_epoch_that_does_not_rise)]


def right():
    acks, records = history()
    check(checker.check(acks, records) == [], "nothing is found in a history that is right", checker.check(acks, records))
    check(checker.count(acks, records) == {"acknowledged": 3, "tasks": 3, "completed": 3, "failed": 0, "again": 0, "ignored": 0}, "counted", checker.count(acks, records))


def bites(rule, seed):
    acks, records = history()
    seed(acks, records)
    found = checker.check(acks, records)
    check({f["rule"] for f in found} == {rule} and found[0]["task"] in ("t-1", "t-2", "t-9"), f"{rule} is found, and nothing else", found)


def strays():
    acks, records = history()
    records["t-1"]["task"]["metadata"]["amp/attempts"].insert(0, {"attempt": 1, "outcome": "stale_lease", "endedAt": "T9", "epoch": "1.5", "ignored": [{"state": "completed"}]})
    check(checker.check(acks, records) == [] and checker.count(acks, records)["ignored"] == 1, "it is kept and is no attempt")


def waits():
    acks, records = history()
    never_ended(acks, records)
    records["t-1"]["waiting"] = "no instance of work"
    check(checker.check(acks, records, may_wait=True) == [], "a task that waits and says for what")
    del records["t-1"]["waiting"]
    check(checker.check(acks, records, may_wait=True), "one that does not say it")


def watched():
    acks, records = history()
    check(checker.check(acks, records, watches={"t-1": [1, 2, 3, 4, None]}) == [], "all of it, in order")
    for numbers in ([1, 2, 4, None], [1, 2, 2, 3, 4, None], [2, 1, 3, 4, None], [1, 2, 3, None]):
        found = checker.check(acks, records, watches={"t-1": numbers})
        check([f["rule"] for f in found] == ["watch"], f"{numbers} is found", found)


def jumps():
    """Where clocks were set only the moments of attempts are not looked at."""
    for broken, rules in ((two_attempts_at_once, set()), (an_attempt_twice, {"attempts"}), (an_epoch_that_does_not_rise, {"attempts"})):
        acks, records = history()
        broken(acks, records)
        found = checker.check(acks, records, are_moments_right=False)
        check({f["rule"] for f in found} == rules, broken.__name__, found)


def pages():
    acks, records = history(1)
    record = records["t-0"]
    first, second = copy.deepcopy(record), copy.deepcopy(record)
    first["events"], second["events"] = record["events"][:2], record["events"][2:]
    whole = checker.merge([{"from": 1, "record": first}, {"from": 3, "record": second}, {"missing": "t-7"}])
    check(checker.check(acks, whole) == [], "two pages are one history", whole)
    first["events"] = record["events"][:1]
    check([f["rule"] for f in checker.check(acks, checker.merge([{"from": 1, "record": first}, {"from": 3, "record": second}]))] == ["gap"], "a hole between pages is a gap")


if __name__ == "__main__":
    tap.run("a history that is right has no findings", right)
    for rule, seed in BROKEN:
        tap.run(f"{seed.__name__.replace('_', ' ')} is found as {rule}", bites, rule, seed)
    tap.run("the late word of one that holds no lease is no attempt", strays)
    tap.run("a task may wait only where it says for what", waits)
    tap.run("a watcher's gap, repetition, disorder and early end are found", watched)
    tap.run("where clocks were set, numbers and epochs of attempts are checked all the same", jumps)
    tap.run("events come in pages", pages)
    tap.done()
