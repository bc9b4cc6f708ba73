#include "base/call_text.h"

#include <stdio.h>
#include <string.h>

static const char *kind_of(const struct call_names *names)
{
    return names->skill ? "skill" : "agent";
}

static const char *name_of(const struct call_names *names)
{
    return names->skill ? names->skill : names->agent;
}

void call_text_waiting(enum call_why why, const struct call_names *names, char *ret, size_t size)
{
    const char *open = *names->load ? " (" : "", *close = *names->load ? ")" : "";
    const char *how = strstr(names->load, ", starting") ? "is busy or starting" : "is busy"; /* its load is that of one of them */
    if (why == CALL_WHY_NO_BUS) {
        snprintf(ret, size, "the bus is away; waiting for it");
    } else if (names->instance) {
        snprintf(ret, size, "instance %s of agent %s %s%s%s%s", names->instance, names->agent, how, open, names->load, close);
    } else if (names->skill) {
        snprintf(ret, size, "every agent with skill %s %s%s%s%s", names->skill, how, open, names->load, close);
    } else {
        snprintf(ret, size, "every instance of %s %s%s%s%s", names->agent, how, open, names->load, close);
    }
}

static void nobody(const struct call_names *names, struct amp_error *err)
{
    if (names->instance) {
        amp_error_set(err, AMP_INSTANCE_LOST, "", "instance %s of agent %s is not on the mesh", names->instance, names->agent);
        amp_error_hint(err, "`amesh show %s` lists the instances of %s", names->agent, names->agent);
    } else if (names->skill) {
        amp_error_set(err, AMP_NO_SUCH_SKILL, "", "no agent on the mesh has skill %s", names->skill);
        amp_error_hint(err, "`amesh ls` shows who is there and what they can do");
    } else {
        amp_error_set(err, AMP_NO_SUCH_AGENT, "", "no instance of agent %s is on the mesh", names->agent);
        amp_error_hint(err, "`amesh ls` shows who is there; `amesh run --name %s -- COMMAND` starts one", names->agent);
    }
}

static void deadline(enum call_phase phase, const struct call_names *names, struct amp_error *err)
{
    unsigned ms = names->given_ms;
    if (phase == CALL_TAKEN) {
        amp_error_set(err, AMP_DEADLINE, "", "the %u ms for task %s are over; agent %s (%s) was still working on it and was told to stop", ms,
                      names->task_id, names->taken_agent, names->taken_instance);
        amp_error_hint(err, "give it more time with --timeout");
    } else if (phase == CALL_SENT) {
        amp_error_set(err, AMP_DEADLINE, "", "the %u ms for task %s are over; it was sent to %s %s, which had not answered yet", ms, names->task_id,
                      kind_of(names), name_of(names));
    } else {
        char reason[200];
        call_text_waiting(CALL_WHY_BUSY, names, reason, sizeof reason);
        amp_error_set(err, AMP_DEADLINE, "", "the %u ms for task %s are over while it waited for a free instance: %s", ms, names->task_id, reason);
        amp_error_hint(err, names->lease_ms ? "start another instance, or give it more time with --timeout" : "start another instance, or submit it with --durable");
    }
}

static void busy(const struct call_names *names, struct amp_error *err)
{
    char reason[200];
    call_text_waiting(CALL_WHY_BUSY, names, reason, sizeof reason);
    amp_error_set(err, AMP_BUSY, "", "%s", reason);
    if (names->lease_ms)
        amp_error_hint(err, "it waits for one that is free; another instance helps"); /* a durable task's */
    else
        amp_error_hint(err, "try again, start another instance, or submit it with --durable");
    err->retry_after_ms = 250;
}

static void lost(enum call_why why, const struct call_names *names, struct amp_error *err)
{
    const char *agent = names->taken_agent, *instance = names->taken_instance;
    if (why == CALL_WHY_NO_ACK) {
        amp_error_set(err, AMP_INSTANCE_LOST, "", "task %s was sent to %s %s and nothing came back for %u ms: it is unknown whether it ran", names->task_id,
                      kind_of(names), name_of(names), CALL_SILENCE_MS);
        amp_error_hint(err, "look at `amesh task show %s` before you send it again", names->task_id);
    } else if (why == CALL_WHY_GONE) {
        amp_error_set(err, AMP_INSTANCE_LOST, "", "sidecar %s of agent %s is gone; it was working on task %s", instance, agent, names->task_id);
    } else if (why == CALL_WHY_UNKNOWN) {
        amp_error_set(err, AMP_INSTANCE_LOST, "", "sidecar %s of agent %s no longer knows task %s: it was started anew", instance, agent,
                      names->task_id);
    } else if (why == CALL_WHY_HUNG) {
        amp_error_set(err, AMP_INSTANCE_LOST, "", "sidecar %s of agent %s has not answered for %u s while it worked on task %s", instance, agent,
                      (unsigned)(names->silent_ms / 1000), names->task_id);
    } else if (why == CALL_WHY_LAPSED) {
        amp_error_set(err, AMP_INSTANCE_LOST, "", "nothing was heard of instance %s of agent %s for %u ms while it worked on task %s: it is cut off or stopped, and its lease is over",
                      instance, agent, (unsigned)(names->lease_ms + CALL_LEASE_GRACE_MS), names->task_id);
    } else if (why == CALL_WHY_NOT_KEPT) {
        amp_error_set(err, AMP_INSTANCE_LOST, "", "instance %s of agent %s cannot go on with task %s: %s", instance, agent, names->task_id, names->detail);
    } else {
        amp_error_set(err, AMP_FRAMES_LOST, "", "task %s ended on %s, but its last events did not arrive", names->task_id, instance);
        amp_error_hint(err, "look at `amesh task show %s`", names->task_id);
    }
}

void call_text_end(const struct call_action *end, const struct call_names *names, struct amp_error *err)
{
    switch (end->why) {
    case CALL_WHY_NOBODY:
        nobody(names, err);
        return;
    case CALL_WHY_BUSY:
        busy(names, err);
        return;
    case CALL_WHY_DEADLINE:
        deadline(end->phase, names, err);
        return;
    case CALL_WHY_NO_ACK:
    case CALL_WHY_GONE:
    case CALL_WHY_UNKNOWN:
    case CALL_WHY_HUNG:
    case CALL_WHY_LAPSED:
    case CALL_WHY_NOT_KEPT:
    case CALL_WHY_MISSED_END:
        lost(end->why, names, err);
        return;
    case CALL_WHY_GAP:
        if (!*names->detail) {
            lost(CALL_WHY_MISSED_END, names, err);
            return;
        }
        amp_error_set(err, AMP_FRAMES_LOST, "", "events of task %s from %s are missing: %s", names->task_id, names->taken_instance, names->detail);
        return;
    case CALL_WHY_BAD_ANSWER:
        amp_error_set(err, AMP_BAD_ANSWER, "", "the answer of %s %s to task %s is none: %s", kind_of(names), name_of(names), names->task_id, names->detail);
        return;
    case CALL_WHY_DENIED:
        amp_error_set(err, AMP_DENIED, "", "the bus does not allow a publish on %s: %s", names->subject, names->detail);
        amp_error_hint(err, "the permissions of these credentials lack this subject");
        return;
    case CALL_WHY_REFUSED:
        amp_error_set(err, end->code, "", "task %s cannot be sent: %s", names->task_id, amp_code_info(end->code)->text);
        return;
    case CALL_WHY_NO_BUS:
        amp_error_set(err, AMP_NO_BUS, "", "the bus was away for %u s while task %s %s", CALL_DOWN_MAX_MS / 1000, names->task_id,
                      end->phase == CALL_TAKEN ? "was worked on" : "was being sent");
        return;
    case CALL_WHY_CANCELED:
        amp_error_set(err, AMP_CANCELED, "", end->phase == CALL_TAKEN ? "task %s was cancelled; its agent has not confirmed it" : "task %s was cancelled before an agent took it",
                      names->task_id);
        return;
    case CALL_WHY_NONE:
    case CALL_WHY_BROKEN:
    case CALL_WHY_STREAM:
    case CALL_WHY_REPLY:
        break;
    }
    amp_error_set(err, AMP_INTERNAL, "", "task %s ended without a reason", names->task_id);
}
