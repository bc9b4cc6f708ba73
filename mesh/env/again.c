#include "env/again.h"

#include "base/alloc.h"
#include "base/call_retry.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"
#include "base/seeded.h"
#include "env/turns_verb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEARD_ALL_MS (2 * (int64_t)REGISTRY_INTERVAL_MS) /* from its start until an environment knows of all instances: two of their beats */

struct again {
    int64_t kept_ms; /* since when an end is kept; 0: none is */
    uint8_t *end;    /* packed Amp__Frame */
    size_t end_len;
};

void again_free(struct etask *task)
{
    if (task->again)
        free(task->again->end);
    free(task->again);
    task->again = NULL;
}

static struct attempt *last_attempt(const struct etask *task)
{
    return task->n_attempts ? &task->attempts[task->n_attempts - 1] : NULL;
}

bool again_is_next(const struct etask *task, const Amp__Frame *frame)
{
    const struct attempt *last = last_attempt(task);
    bool is_of_caller = !frame->from || strcmp(frame->from, task->from) == 0;
    bool may_come = task->again || !task->said_unix_ms; /* of what was heard by a former environment it is not known */
    return last && may_come && frame->has_attempt && frame->attempt > last->number && is_of_caller;
}

bool again_is_past(const struct etask *task, const Amp__Frame *frame)
{
    const struct attempt *last = last_attempt(task);
    return last && frame->has_attempt && frame->attempt < last->number;
}

/* ---- the next attempt ------------------------------------------------------------------------------------------- */

static struct attempt *add_attempt(struct etask *task)
{
    if (task->n_attempts == ENV_ATTEMPTS_KEPT) {
        etask_drop_attempt(&task->attempts[0]);
        memmove(task->attempts, task->attempts + 1, --task->n_attempts * sizeof *task->attempts);
    }
    task->attempts = xrealloc(task->attempts, (task->n_attempts + 1) * sizeof *task->attempts);
    struct attempt *attempt = &task->attempts[task->n_attempts++];
    *attempt = (struct attempt){.number = 0};
    return attempt;
}

/* `cause` as its caller says, or as its end said; NULL: it was not heard. */
static void end_attempt(struct attempt *attempt, const Amp__Error *cause, int64_t at_unix_ms)
{
    if (attempt->ended_unix_ms)
        return;
    attempt->ended_unix_ms = at_unix_ms;
    attempt->outcome = cause ? amp_code_info((enum amp_code)cause->code)->code : AMP_INSTANCE_LOST;
    snprintf(attempt->reason, sizeof attempt->reason, "%s", cause && cause->message ? cause->message : "");
}

static void tell(struct etask *task, const Amp__Error *cause, uint32_t attempt)
{
    char text[RETRY_TEXT_SIZE], metadata[RETRY_METADATA_SIZE];
    retry_tell(cause ? (enum amp_code)cause->code : AMP_INSTANCE_LOST, cause ? cause->death : NULL, attempt, text, metadata);
    if (etask_emit_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, text, metadata) != AMP_OK)
        counter_add(COUNTER_events_refused, 1);
}

static int64_t time_of(const Amp__Event *event)
{
    return event && event->time ? event->time->unix_ms : clock_unix_ms();
}

static const Amp__Event *first_of(const Amp__Frame *frame)
{
    return frame->n_events ? frame->events[0] : NULL;
}

static const Amp__Event *last_of(const Amp__Frame *frame)
{
    return frame->n_events ? frame->events[frame->n_events - 1] : NULL;
}

static void begin(struct etask *task, const Amp__Frame *frame)
{
    struct attempt *attempt = add_attempt(task);
    attempt->number = frame->attempt;
    attempt->base = task->count;
    attempt->started_unix_ms = time_of(first_of(frame));
    attempt->ready_unix_ms = task->n_attempts > 1 && attempt[-1].ended_unix_ms ? attempt[-1].ended_unix_ms : attempt->started_unix_ms;
    etask_strcpy(attempt->agent, frame->agent);
    etask_strcpy(attempt->instance, frame->instance);
    etask_strcpy(task->agent, frame->agent);
    etask_strcpy(task->instance, frame->instance);
    amp_stream_init(&task->stream);
    etask_changed(task);
}

void again_begin(struct etask *task, const Amp__Frame *frame)
{
    struct attempt *last = last_attempt(task);
    const Amp__Frame *end = again_end(task, &task->env->scratch);
    const Amp__Error *cause = frame->cause ? frame->cause : end && end->end ? end->end->error : NULL;
    end_attempt(last, cause, time_of(end && end->n_events ? last_of(end) : first_of(frame)));
    tell(task, cause, frame->attempt);
    again_free(task);
    begin(task, frame);
    turns_begun(task->env, task->agent);
}

/* Who was given it before never said anything. */
void again_begin_first(struct etask *task, const Amp__Frame *frame)
{
    struct attempt *lost = last_attempt(task);
    lost->number = frame->attempt - 1;
    *lost->instance = '\0';
    end_attempt(lost, frame->cause, lost->started_unix_ms);
    tell(task, frame->cause, frame->attempt);
    begin(task, frame);
}

/* ---- an attempt that failed ---------------------------------------------------------------------------------------- */

/* Could any other one have it? Whoever was asked by a skill may have been of another agent. Who has just begun has not heard of them yet. */
static bool has_other(const struct etask *task)
{
    const struct registry *registry = &task->env->registry;
    if (loop_now_ms(task->env->loop) - task->env->began_ms < HEARD_ALL_MS)
        return true;
    const struct registry_instance *own = registry_instance(registry, task->agent, task->instance);
    const struct registry_agent *agent = registry_agent(registry, task->agent);
    uint32_t n_own = registry_is_live(own) ? 1 : 0;
    if (registry_slots(registry, task->agent, NULL).instances > n_own)
        return true;
    for (size_t i = 0; agent && agent->card && i < agent->card->n_skills; i++)
        if (registry_slots(registry, NULL, agent->card->skills[i]->id).instances > n_own)
            return true;
    return false;
}

void again_heard(struct etask *task, const Amp__Frame *frame)
{
    bool may = frame->may_retry && !SEEDED_BUG("closed-between");
    for (size_t i = 0; may && !frame->end && i < frame->n_events; i++)
        may = retry_is_quiet(frame->events[i]);
    if (may && !task->again)
        task->again = xcalloc(1, sizeof *task->again);
    else if (!may)
        again_free(task);
}

bool again_keep(struct etask *task, const Amp__Frame *frame, size_t *ret_n_kept)
{
    enum retry_kind kind = frame->end && task->again ? retry_kind_of(frame) : RETRY_NONE;
    if (kind == RETRY_NONE || (kind == RETRY_BROKEN && !has_other(task)))
        return false;
    struct again *again = task->again;
    free(again->end);
    again->end_len = amp__frame__get_packed_size(frame);
    again->end = xcalloc(1, again->end_len + 1);
    amp__frame__pack(frame, again->end);
    again->kept_ms = loop_now_ms(task->env->loop);
    *ret_n_kept = retry_n_kept(frame);
    return true;
}

static bool is_waiting(const struct etask *task)
{
    return turns_has(task->env->turns, task->from, task->id);
}

bool again_is_awaited(const struct etask *task)
{
    const struct again *again = task->again;
    return again && again->kept_ms && (loop_now_ms(task->env->loop) - again->kept_ms < AGAIN_MS || is_waiting(task));
}

bool again_may_come(const struct etask *task)
{
    /* Who waits for its turn goes on, whatever is known of the attempt before: it may have ended while nobody listened, or before we began. */
    return is_waiting(task) || (task->again && has_other(task) && loop_now_ms(task->env->loop) - task->orphaned_ms < AGAIN_MS);
}

bool again_is_kept(const struct etask *task)
{
    return task->again && task->again->kept_ms;
}

const Amp__Frame *again_end(const struct etask *task, struct amp_arena *arena)
{
    amp_arena_reset(arena);
    return again_is_kept(task) ? amp__frame__unpack(&arena->allocator, task->again->end_len, task->again->end) : NULL;
}
