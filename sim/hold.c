/* What the agents see of leases: who works on which task, under which epoch, and what became of those who came too late. Nothing here is forgotten while a seed runs, whatever dies. */
#include "hold.h"

#include "base/bus.h"
#include "base/loop.h"
#include "env/env_private.h"
#include "sidecar/sidecar.h"
#include "sidecar/task_private.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define HELD_MAX 1024
#define TOLD_MAX_US 7000000   /* a lease, and as long again for messages that come twice and late */
#define HUNG_MAX_US 3000000   /* behind the time after which an agent counts as hung: how often one looks, and a bus that is slow */
#define KEPT_AFTER_US 1000000 /* what the environment was told is on its disk by then */

struct held { /* an attempt that an agent has begun */
    char task[AMP_ID_SIZE], instance[AMP_NAME_MAX + 1];
    uint64_t epoch;
    uint32_t attempt;
    bool is_late, is_excused; /* it ended when another one had the task; and that need not be known */
    int64_t told_us;          /* since when its sidecar has nothing more to tell of it */
};

static LIST_HEAD(, hold) everywhere;
static struct held known[HELD_MAX];
static size_t n_known;

void hold_forget_all(void)
{
    LIST_INIT(&everywhere);
    n_known = 0;
}

static struct held *find(const char *task, uint64_t epoch, const char *instance)
{
    for (size_t i = 0; i < n_known; i++)
        if (known[i].epoch == epoch && strcmp(known[i].task, task) == 0 && (!instance || strcmp(known[i].instance, instance) == 0))
            return &known[i];
    return NULL;
}

/* ---- while they work ------------------------------------------------------------------------------------------------------ */

static bool is_same(const struct hold *a, const struct hold *b) { return a != b && strcmp(task_id(a->task), task_id(b->task)) == 0; }
static uint64_t epoch_of(const struct hold *hold) { return task_request(hold->task)->epoch; }

static void know(const struct hold *hold)
{
    const struct held *before = find(task_id(hold->task), epoch_of(hold), NULL);
    if (before && before->attempt != task_attempt(hold->task))
        world_fail("P9: attempts %u and %u of task %s have the same epoch", before->attempt, task_attempt(hold->task), before->task);
    if (n_known == HELD_MAX || find(task_id(hold->task), epoch_of(hold), sidecar_instance(hold->sidecar)))
        return;
    struct held *held = &known[n_known++];
    *held = (struct held){.epoch = epoch_of(hold), .attempt = task_attempt(hold->task)};
    snprintf(held->task, sizeof held->task, "%s", task_id(hold->task));
    snprintf(held->instance, sizeof held->instance, "%s", sidecar_instance(hold->sidecar));
}

void hold_begin(struct hold *hold, struct task *task, struct sidecar *sidecar)
{
    struct hold *other;
    unsigned n_older = 0;
    *hold = (struct hold){.task = task, .sidecar = sidecar, .n_starts = nodes.n_starts, .progress_us = world_now_us()};
    LIST_FOREACH(other, &everywhere, entry) {
        if (!is_same(hold, other) || epoch_of(other) >= epoch_of(hold))
            continue;
        n_older++;
        if (!other->superseded_us)
            other->superseded_us = world_now_us();
    }
    LIST_INSERT_HEAD(&everywhere, hold, entry);
    stat_add(STAT_together, n_older > 0);
    if (!task_request(task)->has_epoch)
        return;
    stat_add(STAT_leases, 1);
    know(hold);
}

/* It is at work, and was not told to stop: then its sidecar keeps of it what the environment may still ask for. */
static void check_kept(const struct hold *hold)
{
    const struct etask *task = nodes.env && !hold->was_told ? etask_find(nodes.env, task_id(hold->task)) : NULL;
    for (size_t i = 0; task && i < task->n_attempts; i++)
        if (task->attempts[i].epoch == epoch_of(hold) && task->attempts[i].ended_unix_ms && strstr(task->attempts[i].reason, "cannot go on with"))
            world_fail("PE: attempt %u of task %s was given up, and its agent works on it: %s", task_attempt(hold->task), task->id, task->attempts[i].reason);
}

void hold_end(struct hold *hold) { LIST_REMOVE(hold, entry); }

void hold_told(struct hold *hold)
{
    check_kept(hold);
    hold->was_told = true;
}

static int64_t later_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* From when on nothing kept it from hearing that it is not the holder any more; INT64_MAX: something does. */
static int64_t hindered_until_us(const struct hold *hold)
{
    if (!nodes.env || journal_failure(nodes.env->journal))
        return INT64_MAX;
    int64_t frozen_us = later_of(loop_frozen_until_us(nodes.loop), loop_frozen_until_us(sidecar_loop(hold->sidecar)));
    return later_of(later_of(nodes.started_us, hold->alone_us), frozen_us);
}

void hold_step(struct hold *hold)
{
    int64_t free_us = hindered_until_us(hold), now_us = world_now_us();
    uint32_t silence_ms = sidecar_options(hold->sidecar)->progress_timeout_ms;
    int64_t silent_us = later_of(hold->progress_us, loop_frozen_until_us(sidecar_loop(hold->sidecar)));
    if (!hold->was_told && hold->superseded_us && free_us != INT64_MAX && now_us - later_of(hold->superseded_us, free_us) > TOLD_MAX_US)
        world_fail("P9: attempt %u of task %s goes on, though another one has the lease", task_attempt(hold->task), task_id(hold->task));
    if (!hold->was_told && silence_ms && !hold->is_waiting && now_us - silent_us > (int64_t)silence_ms * 1000 + HUNG_MAX_US)
        world_fail("P9: the agent of attempt %u of task %s hung, and was left alone", task_attempt(hold->task), task_id(hold->task));
    hold->progress_us = now_us;
}

void hold_result(const struct hold *hold)
{
    const struct hold *other;
    bool is_late = false;
    LIST_FOREACH(other, &everywhere, entry)
        is_late |= is_same(hold, other) && epoch_of(other) > epoch_of(hold);
    struct held *held = find(task_id(hold->task), epoch_of(hold), sidecar_instance(hold->sidecar));
    for (size_t i = 0; held && i < n_known; i++)
        is_late |= known[i].epoch > held->epoch && strcmp(known[i].task, held->task) == 0;
    stat_add(STAT_zombie_results, is_late);
    stat_add(STAT_attached, !is_late && !hold->was_told && task_request(hold->task)->has_epoch && nodes.n_starts > hold->n_starts);
    if (held)
        held->is_late = is_late && (!hold->was_told || hold->task->lease.is_stale); /* else the attempt had ended before */
}

bool hold_pick(uint32_t chance, char ret_subject[AMP_SUBJECT_SIZE], uint64_t *ret_epoch)
{
    const struct hold *hold;
    uint32_t n = 0, n_again = 0;
    LIST_FOREACH(hold, &everywhere, entry)
        n_again += task_attempt(hold->task) > 1 && task_request(hold->task)->has_epoch && !hold->was_told;
    if (n_again == 0)
        return false;
    LIST_FOREACH(hold, &everywhere, entry)
        if (task_attempt(hold->task) > 1 && task_request(hold->task)->has_epoch && !hold->was_told && n++ == chance % n_again)
            break;
    snprintf(ret_subject, AMP_SUBJECT_SIZE, "amp.ctl.%s.%s", sidecar_instance(hold->sidecar), task_id(hold->task));
    *ret_epoch = epoch_of(hold);
    return true;
}

/* ---- what the environment was told ------------------------------------------------------------------------------------------- */

static struct sidecar *sidecar_of(const struct held *held)
{
    for (size_t i = 0; i < nodes.n_instances; i++)
        if (nodes.instances[i].is_up && strcmp(sidecar_instance(nodes.instances[i].sidecar), held->instance) == 0)
            return nodes.instances[i].sidecar;
    return NULL;
}

static const struct task *kept_of(const struct held *held)
{
    struct sidecar *sidecar = sidecar_of(held);
    const struct task *task = sidecar ? task_lookup(sidecar, held->task) : NULL;
    if (!sidecar || (task && task_epoch(task) == held->epoch))
        return task;
    LIST_FOREACH(task, &sidecar->tasks.retired, retired)
        if (strcmp(task_id(task), held->task) == 0 && task_epoch(task) == held->epoch)
            return task;
    return NULL;
}

/* Has its sidecar anything to tell of it yet, or to hear? Its agent may still be at work: one that hangs does not hear that it was over long ago. */
static const struct task *open_of(const struct held *held)
{
    const struct task *task = kept_of(held);
    return task && !task->lease.is_over ? task : NULL;
}

/* One that was superseded may be the holder again: with its environment died what that had not written down. */
static void find_holders(void)
{
    struct hold *hold;
    LIST_FOREACH(hold, &everywhere, entry) {
        check_kept(hold);
        const struct etask *task = nodes.env && hold->superseded_us ? etask_find(nodes.env, task_id(hold->task)) : NULL;
        if (task && task->call && task->epoch == epoch_of(hold))
            hold->superseded_us = 0;
    }
}

/* Whose events are held back does not hang, be it for the moment in which they are sent again and not confirmed yet; who lost the bus by the server's own doing works on for a while, and is told when it is back (amp.md 10.7.3). */
static void find_hindered(void)
{
    struct hold *hold;
    LIST_FOREACH(hold, &everywhere, entry) {
        uint32_t attached = hold->task->stream.lanes[LANE_CALLER].attached;
        if (hold->task->is_blocked || attached != hold->attached)
            hold->progress_us = world_now_us();
        hold->attached = attached;
        if (bus_was_ended(hold->sidecar->bus))
            hold->alone_us = world_now_us();
    }
}

bool hold_look(void)
{
    bool is_told = true;
    find_holders();
    find_hindered();
    for (struct held *held = known; held < known + n_known; held++) {
        if (held->told_us)
            continue;
        if (!sidecar_of(held))
            held->is_excused = true;
        if (!open_of(held))
            held->told_us = world_now_us();
        else
            is_told &= !held->is_late;
    }
    return is_told;
}

void hold_env_stops(void)
{
    bool is_writing = journal_failure(nodes.env->journal) || journal_waiting(nodes.env->journal) > 0;
    (void)hold_look();
    for (struct held *held = known; held < known + n_known; held++) {
        const struct task *open = open_of(held); /* with a report that may have come, and whose answer may come yet */
        bool is_asking = open && open->lease.report && (held->is_late || open->lease.is_end_told);
        held->is_excused |= held->told_us ? world_now_us() - held->told_us < KEPT_AFTER_US || is_writing : is_asking;
    }
}

/* ---- at the end ------------------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

static uint64_t number_of(const char *epoch)
{
    const char *dot = strchr(epoch, '.');
    return dot ? strtoull(epoch, NULL, 10) << 32 | strtoull(dot + 1, NULL, 10) : 0;
}

/* The environment gave it up: it did not end by what its holder said, a lease that ran out at the holder included. */
static bool is_given_up(const cJSON *attempt)
{
    const char *outcome = text_of(attempt, "outcome");
    if (strcmp(outcome, "instance_lost") == 0)
        return !strstr(text_of(attempt, "reason"), "did not hear of the environment");
    return strcmp(outcome, "stale_lease") == 0 || strcmp(outcome, "frames_lost") == 0 || strcmp(outcome, "interrupted") == 0;
}

static void check_attempt(const char *task, const cJSON *attempt)
{
    const struct held *held = find(task, number_of(text_of(attempt, "epoch")), text_of(attempt, "instance"));
    const cJSON *late = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(attempt, "ignored"), 0);
    bool is_shown = late && strcmp(text_of(late, "state"), "working") != 0;
    stat_add(STAT_ignored_shown, is_shown);
    stat_add(STAT_hung, strcmp(text_of(attempt, "outcome"), "hung") == 0);
    bool is_last = !attempt->next; /* the one that came after it died with its environment, unwritten: this one was gone on with, and is not late */
    stat_add(STAT_late_due, held && held->is_late && !held->is_excused && !is_last && is_given_up(attempt));
    if (held && held->is_late && !held->is_excused && !is_shown && !is_last && is_given_up(attempt) && !cJSON_GetObjectItemCaseSensitive(attempt, "canceled"))
        world_fail("P9: the late result of %s for task %s is not shown as an ignored attempt", held->instance, task);
}

void hold_check(const char *task, const char *attempts)
{
    world_trace("attempts of %s: %s", task, attempts ? attempts : "");
    cJSON *all = cJSON_Parse(attempts ? attempts : "[]");
    const cJSON *attempt;
    uint64_t last = 0;
    cJSON_ArrayForEach(attempt, all) {
        uint64_t epoch = number_of(text_of(attempt, "epoch"));
        if (epoch && epoch <= last)
            world_fail("P9: an attempt of task %s has the epoch %u.%u, after %u.%u", task, (unsigned)(epoch >> 32), (unsigned)epoch, (unsigned)(last >> 32), (unsigned)last);
        last = epoch ? epoch : last;
        check_attempt(task, attempt);
    }
    cJSON_Delete(all);
}
