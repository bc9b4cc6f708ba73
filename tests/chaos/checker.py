"""What clients had acknowledged against what history says. Pure: acknowledgements and records in, findings out; nothing here asks a mesh.

A finding is {"rule": …, "task": …, "what": …}. The rules are the promises of docs/reliability.md:
  lost      what was acknowledged is in history, with the text that was asked
  doubled   one key, one task; one text, one task
  ended     exactly one terminal event, the last one, that of the task's state; or it waits and says for what
  gap       events 1…n, as many as the record says
  answer    a completed task has the digest of its text, and only a task that no agent survives does not complete
  attempts  numbered upwards from 1, with epochs that rise, one at a time
  watch     a watcher saw every number once, in order, and the same end
"""
import hashlib
import json

TERMINAL = {"TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED"}
ATTEMPTS_CODE = 3009  # spec/codes.def: attempts


def digest(text):
    """f of the campaign's agents."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_lines(path):
    """The lines of a file that a kill may have cut: what is not whole was never synced, so it is no acknowledgement."""
    with open(path, "rb") as f:
        for raw in f.read().split(b"\n")[:-1]:
            yield json.loads(raw)


def merge(pages):
    """Lines of chaos_export → {task: record}; the events of several pages are put together, a hole between them stays one (None)."""
    records = {}
    for page in pages:
        if "missing" in page:
            continue
        record, first = page["record"], page["from"]
        known = records.setdefault(record["task"]["id"], record)
        if known is not record:
            events = known.setdefault("events", [])
            events.extend([None] * (first - 1 - len(events)))
            events[first - 1:] = record.get("events", [])
    return records


def text_of(record):
    return "".join(p.get("text", "") for m in record["task"].get("history", [])[:1] for p in m["parts"])


def answer_of(record):
    return "".join(p.get("text", "") for a in record["task"].get("artifacts", []) if a["artifactId"] == "response" for p in a["parts"])


def state_of_event(event):
    body = event["body"]
    return body.get("statusUpdate", body.get("task", {})).get("status", {}).get("state")


def check_acks(acks, records):
    by_key = {}
    for ack in acks:
        record = records.get(ack["task"])
        if record is None:
            yield "lost", ack["task"], f"acknowledged to {ack['from']} as key {ack['key']}, and history does not have it"
        elif text_of(record) != ack["text"]:
            yield "lost", ack["task"], f"asked {ack['text']!r}, history says {text_of(record)!r}"
        first = by_key.setdefault((ack["from"], ack["key"]), ack["task"])
        if first != ack["task"]:
            yield "doubled", ack["task"], f"key {ack['key']} of {ack['from']} is task {first} too"


def check_texts(records):
    by_text = {}
    for task, record in records.items():
        if record.get("durable"):
            first = by_text.setdefault((record.get("from"), text_of(record)), task)
            if first != task:
                yield "doubled", task, f"the same text {text_of(record)!r} is task {first} too"


def check_events(task, record):
    events = record.get("events", [])
    state, count = record["task"]["status"]["state"], record.get("eventsCount", 0)
    holes = [i + 1 for i, event in enumerate(events) if event is None]
    if holes or len(events) != count:
        yield "gap", task, f"{len(events)} events of {count}, missing {holes[:10]}"
        return
    ends = [(i + 1, state_of_event(event)) for i, event in enumerate(events) if state_of_event(event) in TERMINAL]
    if state in TERMINAL and ends != [(count, state)]:
        yield "ended", task, f"state {state}, {count} events, terminal ones {ends}"
    elif state not in TERMINAL and ends:
        yield "ended", task, f"state {state} after the terminal events {ends}"


def check_end(task, record, may_wait):
    state = record["task"]["status"]["state"]
    if state not in TERMINAL:
        if not may_wait or not record.get("waiting"):
            yield "ended", task, f"{state} and waiting for {record.get('waiting')!r} after everything had come to rest"
        return
    text, error = text_of(record), record.get("error", {})
    if state == "TASK_STATE_COMPLETED":
        if answer_of(record) != digest(text):
            yield "answer", task, f"{text!r} was answered with {answer_of(record)[:100]!r}"
    elif state != "TASK_STATE_FAILED" or error.get("code") != ATTEMPTS_CODE or " poison " not in text:
        yield "answer", task, f"{text!r} ended {state}: {error.get('code')} {error.get('message')!r}"


def attempts_of(record):
    return record["task"].get("metadata", {}).get("amp/attempts", [])


def is_stray(attempt):
    """The late word of one that held no lease (any more): kept, and no attempt of the task (amp.md 10.7.4)."""
    return attempt.get("outcome") == "stale_lease"


def epoch_of(attempt):
    return [int(n) for n in attempt["epoch"].split(".")] if "epoch" in attempt else []


def check_attempts(task, record, are_moments_right=True):
    before, last_end, last_epoch = 0, "", []
    for attempt in attempts_of(record):
        number = attempt.get("attempt", 0)
        if not number or is_stray(attempt):
            continue
        if number <= before:
            yield "attempts", task, f"attempt {number} after {before}"
        if are_moments_right and attempt.get("startedAt", "~") < last_end:
            yield "attempts", task, f"attempt {number} began {attempt['startedAt']}, before {last_end}, the end of the one before"
        if epoch_of(attempt) and epoch_of(attempt) <= last_epoch:
            yield "attempts", task, f"attempt {number} has epoch {attempt['epoch']}, not above {last_epoch}"
        before, last_end, last_epoch = number, attempt.get("endedAt", "~"), epoch_of(attempt) or last_epoch


def check_watches(watches, records):
    """watches: {task: [numbers, in order of arrival, None for the end]}"""
    for task, numbers in watches.items():
        if None not in numbers:
            continue  # it was still being watched when its client was stopped
        seen, count = numbers[:numbers.index(None)], records.get(task, {}).get("eventsCount")
        if seen != list(range(1, len(seen) + 1)) or len(seen) != count:
            yield "watch", task, f"a watcher saw {seen[:50]}, history has {count}"


def check(acks, records, may_wait=False, watches=None, are_moments_right=True):
    """→ findings; acks: [{"from","text","task","key"}], records: {task: TaskRecord as JSON}. may_wait: a fault after which a task may visibly wait. are_moments_right: no wall clock was set, so
    that moments have an order."""
    found = list(check_acks(acks, records)) + list(check_texts(records)) + list(check_watches(watches or {}, records))
    for task, record in records.items():
        found += check_events(task, record)
        found += check_attempts(task, record, are_moments_right)
        if record.get("durable"):
            found += check_end(task, record, may_wait)
    return [{"rule": rule, "task": task, "what": what} for rule, task, what in found]


def count(acks, records):
    """What the report says beside the findings."""
    durable = [r for r in records.values() if r.get("durable")]
    states = [r["task"]["status"]["state"] for r in durable]
    return {"acknowledged": len({a["task"] for a in acks}), "tasks": len(durable), "completed": states.count("TASK_STATE_COMPLETED"),
            "failed": states.count("TASK_STATE_FAILED"),
            "again": sum(1 for r in durable if any(a.get("attempt", 0) > 1 for a in attempts_of(r))),
            "ignored": sum(1 for r in durable for a in attempts_of(r) if a.get("ignored"))}
