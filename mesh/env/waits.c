/* What tasks waited for, and how long (amp.md 10.12.2). While it waits a task keeps no list of its own: its target notes each reason once, for all who wait there, and
 * what concerns one task is cut out of that when its wait is over, or when somebody asks. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNSAID_MS 20 /* a wait without a known reason is told from here on */

void waits_note(struct target *target)
{
    const struct reason *last = target->n_reasons ? &target->reasons[target->n_reasons - 1] : NULL;
    if (last ? strcmp(last->text, target->waiting) == 0 : !target->waiting[0])
        return;
    if (target->n_reasons == ENV_WAITS_KEPT) {
        memmove(target->reasons, target->reasons + 1, --target->n_reasons * sizeof *target->reasons);
    } else {
        target->reasons = xrealloc(target->reasons, (target->n_reasons + 1) * sizeof *target->reasons);
    }
    struct reason *reason = &target->reasons[target->n_reasons++];
    reason->since_unix_ms = clock_unix_ms();
    snprintf(reason->text, sizeof reason->text, "%s", target->waiting);
}

static void add_wait(struct waits *waits, int64_t from, int64_t to, const char *text)
{
    struct wait *last = waits->count ? &waits->items[waits->count - 1] : NULL;
    if (to - from < 1)
        return;
    if (last && last->to_unix_ms == from && strcmp(last->reason, text) == 0) {
        last->to_unix_ms = to;
        return;
    }
    if (waits->count == ENV_WAITS_KEPT)
        waits->count--; /* the first ones and the newest are kept */
    struct wait *wait = &waits->items[waits->count++];
    *wait = (struct wait){.from_unix_ms = from, .to_unix_ms = to};
    snprintf(wait->reason, sizeof wait->reason, "%s", text);
}

/* What its target noted while it stood in the queue there. */
static void add_queued(struct waits *waits, const struct target *target, int64_t from, int64_t to)
{
    int64_t told = from;
    for (uint32_t i = 0; target && i < target->n_reasons; i++) {
        const struct reason *reason = &target->reasons[i];
        int64_t end = i + 1 < target->n_reasons ? target->reasons[i + 1].since_unix_ms : to;
        int64_t begin = reason->since_unix_ms > from ? reason->since_unix_ms : from;
        end = end < to ? end : to;
        if (!reason->text[0] || end <= begin)
            continue;
        if (begin - told >= UNSAID_MS)
            add_wait(waits, told, begin, "its turn had not come yet");
        add_wait(waits, begin, end, reason->text);
        told = end;
    }
    if (to - told >= UNSAID_MS)
        add_wait(waits, told, to, "its turn had not come yet");
}

static const struct attempt *last_begun(const struct etask *task)
{
    for (size_t i = task->n_attempts; i > 0; i--)
        if (task->attempts[i - 1].started_unix_ms)
            return &task->attempts[i - 1];
    return NULL;
}

static int64_t waits_from(const struct etask *task)
{
    const struct attempt *last = last_begun(task);
    return last ? last->ended_unix_ms : task->submitted_unix_ms;
}

bool waits_now(const struct etask *task)
{
    const struct attempt *last = last_begun(task);
    return task->is_durable && !task->is_ended && (!last || last->ended_unix_ms);
}

/* What comes first for one that was not to start at once. Returns where the rest begins. */
static int64_t add_delay(struct waits *waits, const struct etask *task, int64_t from, int64_t to)
{
    if (!task->plan || task->plan->not_before_unix_ms <= task->submitted_unix_ms || last_begun(task))
        return from;
    int64_t until = task->plan->begun_unix_ms && task->plan->begun_unix_ms < to ? task->plan->begun_unix_ms : to;
    add_wait(waits, from, until, "for the time at which it was to start");
    return until;
}

void waits_of(const struct etask *task, struct waits *ret)
{
    int64_t from = waits_from(task), to = task->call ? task->called_unix_ms : clock_unix_ms(); /* somebody who is called has it, mostly */
    int64_t queued = task->queued_unix_ms ? task->queued_unix_ms : to;
    ret->count = 0;
    if (from == 0 || to <= from)
        return; /* the clock was set back: nothing is known */
    from = add_delay(ret, task, from, to);
    queued = queued < from ? from : queued > to ? to : queued;
    const struct attempt *last = last_begun(task);
    int64_t ready = last ? from : plan_ready_unix_ms(task);
    ready = ready > to ? to : ready;
    if (ready > from) {
        add_wait(ret, from, ready, "until the time that it was planned for");
        from = ready;
        queued = queued < from ? from : queued;
    }
    if (task->is_reloaded && queued - from >= 1)
        add_wait(ret, from, queued, "until the environment was started again");
    else if (last && queued - from >= 1)
        add_wait(ret, from, queued, "before the next attempt, so that a trouble may pass");
    else if (queued - from >= UNSAID_MS)
        add_wait(ret, from, queued, "until it was written down");
    add_queued(ret, task->target, queued, to);
}

static struct waits *keep(const struct etask *task)
{
    struct waits waits;
    waits_of(task, &waits);
    if (waits.count == 0)
        return NULL;
    size_t size = offsetof(struct waits, items) + waits.count * sizeof waits.items[0];
    struct waits *kept = xcalloc(1, size);
    memcpy(kept, &waits, size);
    return kept;
}

void waits_taken(struct etask *task, struct attempt *attempt)
{
    if (!attempt->waits && waits_now(task))
        attempt->waits = keep(task);
    task->is_reloaded = false;
}

void waits_ended(struct etask *task)
{
    if (!task->waits && waits_now(task))
        task->waits = keep(task);
}
