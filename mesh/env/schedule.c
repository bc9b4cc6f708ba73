#include "schedule.h"

#include "base/seeded.h"
#include "base/zone.h"

#include <string.h>

/* ---- when --------------------------------------------------------------------------------------------------------------- */

static int64_t next_cron(const struct schedule_rule *rule, int64_t after_unix_ms)
{
    int64_t after_s = after_unix_ms >= 0 ? after_unix_ms / 1000 : 0;
    if (rule->start_unix_ms > after_unix_ms)
        after_s = (rule->start_unix_ms - 1) / 1000;
    int64_t next_s = cron_next(&rule->cron, rule->zone, after_s);
    return next_s == INT64_MAX || next_s * 1000 > rule->until_unix_ms ? SCHEDULE_NEVER : next_s * 1000;
}

static bool has_runs_left(const struct schedule *schedule)
{
    return !schedule->rule.runs_max || schedule->runs + schedule->n_queued < schedule->rule.runs_max;
}

/* Nothing comes any more: it is done as soon as nothing waits. */
static void settle(struct schedule *schedule)
{
    if (!has_runs_left(schedule))
        schedule->next_unix_ms = SCHEDULE_NEVER;
    if (schedule->state == SCHEDULE_ACTIVE && schedule->next_unix_ms == SCHEDULE_NEVER && schedule->n_queued == 0)
        schedule->state = SCHEDULE_DONE;
}

static void set_interval(struct schedule *schedule, struct schedule_now now, int64_t left_ms)
{
    schedule->is_mono = true;
    schedule->next_ms = now.mono_ms + left_ms;
    schedule->next_unix_ms = now.unix_ms + left_ms;
    if (schedule->next_unix_ms > schedule->rule.until_unix_ms)
        schedule->next_unix_ms = SCHEDULE_NEVER;
}

/* From now on, whatever was before. */
static void plan(struct schedule *schedule, struct schedule_now now)
{
    const struct schedule_rule *rule = &schedule->rule;
    schedule->is_mono = false;
    if (rule->is_cron)
        schedule->next_unix_ms = next_cron(rule, now.unix_ms);
    else if (schedule->runs == 0 && rule->start_unix_ms > now.unix_ms)
        schedule->next_unix_ms = rule->start_unix_ms;
    else
        set_interval(schedule, now, rule->every_ms);
    settle(schedule);
}

/* The journal knows the wall clock only. One that was set back meanwhile holds up an interval by no more than its length. */
static void found(struct schedule *schedule, struct schedule_now now)
{
    const struct schedule_rule *rule = &schedule->rule;
    int64_t left_ms = schedule->next_unix_ms - now.unix_ms;
    bool is_first = schedule->runs == 0 && schedule->next_unix_ms == rule->start_unix_ms;
    schedule->is_mono = false;
    if (rule->is_cron || is_first || schedule->next_unix_ms == SCHEDULE_NEVER)
        return;
    if (left_ms < 0 && SEEDED_BUG("firing-lost"))
        left_ms = rule->every_ms;
    set_interval(schedule, now, left_ms > (int64_t)rule->every_ms ? rule->every_ms : left_ms);
}

static bool is_due(const struct schedule *schedule, struct schedule_now now)
{
    if (schedule->state != SCHEDULE_ACTIVE || schedule->next_unix_ms == SCHEDULE_NEVER)
        return false;
    return schedule->is_mono ? now.mono_ms >= schedule->next_ms : now.unix_ms >= schedule->next_unix_ms;
}

/* The last of the times that have come, and how many came before it. */
static int64_t take_cron(struct schedule *schedule, struct schedule_now now, uint32_t *ret_missed)
{
    int64_t planned = schedule->next_unix_ms, next = next_cron(&schedule->rule, planned);
    uint32_t missed = 0;
    while (next <= now.unix_ms && missed < SCHEDULE_MISSED_MAX) {
        missed++;
        planned = next;
        next = next_cron(&schedule->rule, planned);
    }
    schedule->next_unix_ms = next <= now.unix_ms ? next_cron(&schedule->rule, now.unix_ms) : next;
    *ret_missed = missed;
    return planned;
}

static int64_t take_interval(struct schedule *schedule, struct schedule_now now, uint32_t *ret_missed)
{
    int64_t every_ms = schedule->rule.every_ms, until = schedule->rule.until_unix_ms;
    int64_t late_ms = schedule->is_mono ? now.mono_ms - schedule->next_ms : now.unix_ms - schedule->next_unix_ms;
    int64_t missed = late_ms / every_ms, planned = now.unix_ms - late_ms % every_ms;
    if (planned > until && missed > 0) { /* the last one that was still wanted */
        int64_t over = (planned - until + every_ms - 1) / every_ms;
        over = over > missed ? missed : over;
        missed -= over;
        planned -= over * every_ms;
    }
    set_interval(schedule, now, every_ms - late_ms % every_ms);
    *ret_missed = missed > SCHEDULE_MISSED_MAX ? SCHEDULE_MISSED_MAX : (uint32_t)missed;
    return planned;
}

/* ---- what ----------------------------------------------------------------------------------------------------------------- */

static void run(struct schedule *schedule, int64_t planned_unix_ms, struct schedule_action *action)
{
    schedule->runs++;
    schedule->n_open++;
    schedule->last_unix_ms = planned_unix_ms;
    action->kind = SCHEDULE_DO_RUN;
    action->planned_unix_ms = planned_unix_ms;
    action->is_changed = true;
}

static void run_queued(struct schedule *schedule, struct schedule_action *action)
{
    int64_t planned_unix_ms = schedule->queued[0];
    if (schedule->state == SCHEDULE_PAUSED || schedule->n_open > 0 || schedule->n_queued == 0)
        return;
    memmove(schedule->queued, schedule->queued + 1, --schedule->n_queued * sizeof schedule->queued[0]);
    run(schedule, planned_unix_ms, action);
    settle(schedule);
}

static void look(struct schedule *schedule, struct schedule_now now, struct schedule_action *action)
{
    bool is_busy = schedule->n_open > 0 || schedule->n_queued > 0;
    if (!is_due(schedule, now)) {
        run_queued(schedule, action);
        return;
    }
    int64_t planned = schedule->rule.is_cron ? take_cron(schedule, now, &action->missed) : take_interval(schedule, now, &action->missed);
    schedule->missed += action->missed;
    action->planned_unix_ms = planned;
    action->is_changed = true;
    if (!is_busy || schedule->rule.overlap == SCHEDULE_ALLOW) {
        run(schedule, planned, action);
    } else if (schedule->rule.overlap == SCHEDULE_QUEUE && schedule->n_queued < SCHEDULE_QUEUE_MAX) {
        schedule->queued[schedule->n_queued++] = planned;
        action->kind = SCHEDULE_DO_QUEUE;
    } else {
        schedule->skipped++;
        action->kind = SCHEDULE_DO_SKIP;
    }
    settle(schedule);
}

struct schedule_action schedule_step(struct schedule *schedule, enum schedule_event event, struct schedule_now now)
{
    struct schedule_action action = {.kind = SCHEDULE_DO_NOTHING};
    switch (event) {
    case SCHEDULE_EV_BEGIN:
        plan(schedule, now);
        action.is_changed = true;
        break;
    case SCHEDULE_EV_FOUND:
        found(schedule, now);
        break;
    case SCHEDULE_EV_LOOK:
        look(schedule, now, &action);
        break;
    case SCHEDULE_EV_ENDED:
        schedule->n_open -= schedule->n_open > 0;
        break;
    case SCHEDULE_EV_RUN:
        run(schedule, now.unix_ms, &action);
        settle(schedule);
        break;
    case SCHEDULE_EV_PAUSE:
        action.is_changed = schedule->state == SCHEDULE_ACTIVE;
        schedule->state = action.is_changed ? SCHEDULE_PAUSED : schedule->state;
        break;
    case SCHEDULE_EV_RESUME:
        action.is_changed = schedule->state == SCHEDULE_PAUSED;
        if (!action.is_changed)
            break;
        schedule->state = SCHEDULE_ACTIVE;
        plan(schedule, now);
        break;
    }
    return action;
}

int64_t schedule_due(const struct schedule *schedule, bool *ret_is_mono)
{
    *ret_is_mono = false;
    if (schedule->state != SCHEDULE_PAUSED && schedule->n_queued > 0 && schedule->n_open == 0)
        return INT64_MIN; /* at once */
    if (schedule->state != SCHEDULE_ACTIVE || schedule->next_unix_ms == SCHEDULE_NEVER)
        return SCHEDULE_NEVER;
    *ret_is_mono = schedule->is_mono;
    return schedule->is_mono ? schedule->next_ms : schedule->next_unix_ms;
}
