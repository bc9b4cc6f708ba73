/* Tasks whose time has not come, and what schedules say of theirs. A task "at" a time waits for the wall clock, whoever sets it; one "in" some time waits by the monotonic
 * clock, as its engine's timer, and meets the wall clock only when it is loaded from the journal, which knows no other. Its time limit counts from its start. (amp.md 10.9) */
#include "schedules.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum amp_code plan_check(const Amp__Submit *submit, int64_t now_unix_ms, struct amp_error *err)
{
    if (submit->not_before && submit->has_delay_ms)
        return amp_error_set(err, AMP_INVALID, "submit.delay_ms", "not_before or delay_ms, not both");
    if (!submit->not_before || submit->not_before->unix_ms <= now_unix_ms + ENV_AHEAD_MAX_MS)
        return AMP_OK;
    amp_error_set(err, AMP_INVALID, "submit.not_before", "a task cannot start later than in ten years");
    amp_error_hint(err, "an earlier time; in a message it is in milliseconds since 1970");
    return AMP_INVALID;
}

static struct plan *plan_of(struct etask *task, const Amp__Submit *submit)
{
    bool is_in = submit && submit->has_delay_ms && submit->delay_ms > 0; /* one that is retried or forked keeps the number, and has it no more */
    if (!submit || (!submit->not_before && !is_in && !submit->schedule))
        return NULL;
    struct plan *plan = task->plan = xcalloc(1, sizeof *plan);
    plan->task = task;
    plan->is_in = is_in;
    plan->not_before_unix_ms = submit->not_before ? submit->not_before->unix_ms : is_in ? task->submitted_unix_ms + submit->delay_ms : 0;
    plan->planned_unix_ms = submit->planned ? submit->planned->unix_ms : 0;
    plan->missed = submit->missed;
    etask_strcpy(plan->schedule, submit->schedule);
    return plan;
}

static bool is_retry_safe(const Amp__Submit *submit)
{
    return !submit || !submit->retry || strcmp(submit->retry, "never") != 0;
}

int64_t plan_ready_unix_ms(const struct etask *task)
{
    const struct plan *plan = task->plan;
    int64_t at_unix_ms = !plan ? 0 : plan->begun_unix_ms ? plan->begun_unix_ms : plan->not_before_unix_ms;
    return at_unix_ms > task->submitted_unix_ms ? at_unix_ms : task->submitted_unix_ms;
}

static uint32_t timeout_of(const Amp__Submit *submit)
{
    return submit ? submit->request->timeout_ms : 0;
}

/* What is left of a duration that began at this moment of the wall clock. A clock that was set meanwhile takes no more than all of it, and adds nothing. */
static int64_t left_ms(int64_t duration_ms, int64_t since_unix_ms, int64_t now_unix_ms)
{
    int64_t gone_ms = now_unix_ms - since_unix_ms;
    return gone_ms < 0 ? duration_ms : gone_ms > duration_ms ? 0 : duration_ms - gone_ms;
}

void plan_begin(struct etask *task, const Amp__Submit *submit)
{
    const struct plan *plan = plan_of(task, submit);
    uint32_t timeout_ms = timeout_of(submit);
    int64_t now_ms = loop_now_ms(task->env->loop);
    task->timeout_ms = timeout_ms;
    engine_init(&task->engine, is_retry_safe(submit), timeout_ms ? now_ms + timeout_ms : ENGINE_NEVER);
    if (plan && plan->not_before_unix_ms > task->submitted_unix_ms)
        engine_delay(&task->engine, plan->is_in ? now_ms + submit->delay_ms : ENGINE_NEVER, timeout_ms);
}

static bool on_second_event(void *ctx, const struct journal_row *row)
{
    *(int64_t *)ctx = row->at_unix_ms;
    return false;
}

void plan_load(struct etask *task, const Amp__Submit *submit)
{
    struct env *env = task->env;
    struct plan *plan = plan_of(task, submit);
    uint32_t timeout_ms = timeout_of(submit);
    int64_t now_ms = loop_now_ms(env->loop), now_unix_ms = clock_unix_ms(), since_unix_ms = task->submitted_unix_ms;
    task->timeout_ms = timeout_ms;
    if (plan && plan->schedule[0])
        schedules_task_found(env, plan->schedule);
    bool was_delayed = plan && plan->not_before_unix_ms > task->submitted_unix_ms;
    if (was_delayed && task->count > 1) { /* the second event says when it began */
        plan->begun_unix_ms = plan->not_before_unix_ms;
        if (journal_events(env->journal, task->id, 2, on_second_event, &plan->begun_unix_ms, NULL) == AMP_OK)
            since_unix_ms = plan->begun_unix_ms;
    }
    engine_init(&task->engine, is_retry_safe(submit), timeout_ms ? now_ms + left_ms(timeout_ms, since_unix_ms, now_unix_ms) : ENGINE_NEVER);
    if (!was_delayed || plan->begun_unix_ms)
        return;
    int64_t start_at = ENGINE_NEVER;
    if (plan->is_in)
        start_at = now_ms + left_ms(plan->not_before_unix_ms - task->submitted_unix_ms, task->submitted_unix_ms, now_unix_ms);
    engine_delay(&task->engine, start_at, timeout_ms);
}

void plan_free(struct etask *task)
{
    if (!task->plan)
        return;
    alarm_stop(&task->env->alarms, &task->plan->alarm);
    free(task->plan);
    task->plan = NULL;
}

void plan_fill(const struct etask *task, Amp__Submit *kept, struct plan_times *ret)
{
    const struct plan *plan = task->plan;
    if (!plan)
        return;
    amp__timestamp__init(&ret->not_before);
    amp__timestamp__init(&ret->planned);
    ret->not_before.unix_ms = plan->not_before_unix_ms;
    ret->planned.unix_ms = plan->planned_unix_ms;
    kept->not_before = plan->not_before_unix_ms ? &ret->not_before : NULL;
    kept->planned = plan->planned_unix_ms ? &ret->planned : NULL;
}

/* ---- when ------------------------------------------------------------------------------------------------------------- */

static void on_due(struct alarm *alarm)
{
    struct plan *plan = (struct plan *)alarm;
    struct engine_event event = {.kind = ENGINE_EV_DUE};
    dispatch_event(plan->task, &event);
}
_Static_assert(offsetof(struct plan, alarm) == 0, "the alarm is the plan");

static void set_timer(struct env *env)
{
    uint32_t wait_ms = alarm_wait_ms(&env->alarms, clock_unix_ms());
    if (wait_ms == UINT32_MAX)
        loop_timer_stop(env->alarm_timer);
    else
        loop_timer_set(env->alarm_timer, wait_ms);
}

void plan_set_alarm(struct env *env, struct alarm *alarm, int64_t due_unix_ms)
{
    alarm_set(&env->alarms, alarm, due_unix_ms);
    if (alarm->place == 1)
        set_timer(env);
}

void plan_on_alarm(void *ctx)
{
    struct env *env = ctx;
    struct alarm *alarm;
    int64_t now_unix_ms = clock_unix_ms();
    for (unsigned i = 0; i < ENV_ALARMS_MAX && (alarm = alarm_take(&env->alarms, now_unix_ms)) != NULL; i++)
        alarm->on_due(alarm);
    set_timer(env);
}

void plan_follow(struct etask *task)
{
    struct plan *plan = task->plan;
    if (!plan)
        return;
    if (task->engine.phase != ENGINE_DELAYED) {
        alarm_stop(&task->env->alarms, &plan->alarm);
    } else if (!plan->is_in && !alarm_is_set(&plan->alarm)) {
        plan->alarm.on_due = on_due;
        plan_set_alarm(task->env, &plan->alarm, plan->not_before_unix_ms);
    }
}

void plan_begun(struct etask *task)
{
    char metadata[64], planned[AMP_TIME_SIZE];
    task->plan->begun_unix_ms = clock_unix_ms();
    amp_time_format(task->plan->not_before_unix_ms, planned);
    snprintf(metadata, sizeof metadata, "{\"amp/notBefore\":\"%s\"}", planned);
    if (etask_emit_status(task, AMP__TASK_STATE__TASK_STATE_SUBMITTED, "its time has come", metadata) != AMP_OK)
        counter_add(COUNTER_events_refused, 1);
}

/* ---- for people ---------------------------------------------------------------------------------------------------------- */

/* "45 s", "3 h", "2 d": one unit is enough to see whether it is meant so. */
static void format_left(int64_t ms, char *ret, size_t size)
{
    static const struct {
        int64_t ms;
        const char *unit;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "min"}, {1000, "s"}};
    size_t i = 0;
    while (i < 3 && ms < 2 * units[i].ms)
        i++;
    snprintf(ret, size, "%lld %s", (long long)((ms + units[i].ms / 2) / units[i].ms), units[i].unit);
}

char *plan_waiting(const struct etask *task, struct amp_arena *arena)
{
    const struct plan *plan = task->plan;
    int64_t now_unix_ms = clock_unix_ms(), at_unix_ms = plan->not_before_unix_ms;
    char at[AMP_TIME_SIZE], left[32], text[128];
    if (!task->engine.is_delayed || (task->engine.phase != ENGINE_NEW && task->engine.phase != ENGINE_DELAYED))
        return NULL;
    if (plan->is_in) /* by the clock as it is now */
        at_unix_ms = now_unix_ms + task->engine.start_at - loop_now_ms(task->env->loop);
    amp_time_format(at_unix_ms, at);
    format_left(at_unix_ms > now_unix_ms ? at_unix_ms - now_unix_ms : 0, left, sizeof left);
    snprintf(text, sizeof text, "starts at %.19sZ (in %s)", at, left);
    return amp_arena_strdup(arena, amp_bytes_of(text));
}
