/* Queues of durable tasks, one per agent or skill that is asked for, and when somebody is free. In a queue each sender has a lane, and they take turns: who has much
 * waiting there does not hold up who has little. Which of them runs is decided here; what becomes of it then, in dispatch.c. */
#include "turns_verb.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- queues ----------------------------------------------------------------------------------------------------------------- */

void target_mark(struct target *target)
{
    if (target->is_runnable)
        return;
    struct env *env = target->env;
    target->is_runnable = true;
    target->next_runnable = NULL;
    *(env->runnable ? &env->runnable_last->next_runnable : &env->runnable) = target;
    env->runnable_last = target;
    env_request_tick(env);
}

static struct target *find_target(const struct env *env, char kind, const char *name)
{
    char key[sizeof((struct target *)0)->key] = {kind, ':'};
    struct target *target;
    etask_strcpy(key + 2, name);
    HASH_FIND_STR(env->targets, key, target);
    return target;
}

void target_join(struct etask *task)
{
    if (task->target)
        return;
    char kind = task->skill[0] ? 's' : 'a';
    const char *name = task->skill[0] ? task->skill : task->agent;
    struct target *target = find_target(task->env, kind, name);
    if (!target) {
        target = xcalloc(1, sizeof *target);
        target->env = task->env;
        snprintf(target->key, sizeof target->key, "%c:%s", kind, name);
        HASH_ADD_STR(task->env->targets, key, target);
    }
    task->target = target;
    target->n_tasks++;
}

static void round_join(struct target *target, struct lane *lane, bool is_first)
{
    struct lane *before = is_first ? NULL : target->last;
    lane->prev = before;
    lane->next = before ? NULL : target->first;
    *(before ? &before->next : &target->first) = lane;
    *(lane->next ? &lane->next->prev : &target->last) = lane;
}

static void round_leave(struct target *target, struct lane *lane)
{
    *(lane->prev ? &lane->prev->next : &target->first) = lane->next;
    *(lane->next ? &lane->next->prev : &target->last) = lane->prev;
    lane->prev = lane->next = NULL;
}

static struct lane *lane_of(const struct etask *task, bool is_first)
{
    struct target *target = task->target;
    char key[sizeof((struct lane *)0)->key];
    snprintf(key, sizeof key, "%s %s", task->from, target->key);
    struct lane *lane;
    HASH_FIND_STR(target->env->lanes, key, lane);
    if (lane && !is_first)
        return lane;
    if (lane) {
        round_leave(target, lane);
    } else {
        lane = xcalloc(1, sizeof *lane);
        memcpy(lane->key, key, strlen(key) + 1);
        HASH_ADD_STR(target->env->lanes, key, lane);
    }
    round_join(target, lane, is_first);
    return lane;
}

void target_queue(struct etask *task, bool is_first)
{
    struct lane *lane = lane_of(task, is_first);
    struct etask *before = is_first ? NULL : lane->last;
    task->queue_prev = before;
    task->queue_next = before ? NULL : lane->first;
    *(before ? &before->queue_next : &lane->first) = task;
    *(task->queue_next ? &task->queue_next->queue_prev : &lane->last) = task;
    task->lane = lane;
    task->target->n_queued++;
}

void target_unqueue(struct etask *task)
{
    struct lane *lane = task->lane;
    if (!lane)
        return;
    *(task->queue_prev ? &task->queue_prev->queue_next : &lane->first) = task->queue_next;
    *(task->queue_next ? &task->queue_next->queue_prev : &lane->last) = task->queue_prev;
    task->queue_prev = task->queue_next = NULL;
    task->lane = NULL;
    task->target->n_queued--;
    if (lane->first)
        return;
    round_leave(task->target, lane);
    HASH_DEL(task->env->lanes, lane);
    free(lane);
}

struct etask *target_next(struct target *target)
{
    struct lane *lane = target->first;
    if (!lane)
        return NULL;
    struct etask *task = lane->first;
    round_leave(target, lane);
    round_join(target, lane, false);
    target_unqueue(task);
    return task;
}

static void target_free(struct target *target)
{
    free(target->reasons);
    free(target);
}

/* A name nobody waits for any more is forgotten: senders may ask for any number of names. */
static void release_target(struct target *target)
{
    if (target->n_tasks || target->n_untaken || target->is_runnable)
        return;
    HASH_DEL(target->env->targets, target);
    waits_forget(target);
    target_free(target);
}

void target_part(struct etask *task)
{
    if (!task->target)
        return;
    target_unqueue(task);
    task->target->n_tasks--;
    target_mark(task->target); /* the tick forgets it if it is the last */
    task->target = NULL;
}

const char *target_waiting(const struct etask *task)
{
    if (!task->lane)
        return task->engine.phase == ENGINE_BACKOFF ? "the last attempt failed; the next one starts soon" : NULL;
    return task->target->waiting[0] ? task->target->waiting : "its turn has not come yet";
}

struct registry_slots target_slots(const struct target *target)
{
    bool is_skill = target->key[0] == 's';
    return registry_slots(&target->env->registry, is_skill ? NULL : target->key + 2, is_skill ? target->key + 2 : NULL);
}

void target_say_waiting(struct target *target, const struct registry_slots *slots)
{
    bool is_skill = target->key[0] == 's';
    if (!bus_is_up(target->env->bus))
        snprintf(target->waiting, sizeof target->waiting, "the bus is away");
    else if (slots->instances == 0)
        snprintf(target->waiting, sizeof target->waiting,
                 is_skill ? "no agent with the skill %s is on the mesh" : "no instance of %s is on the mesh", target->key + 2);
    else if (slots->restarting == slots->instances)
        snprintf(target->waiting, sizeof target->waiting, is_skill ? "every agent with skill %s restarts (instances: %u)" : "every instance of %s restarts its agent (instances: %u)",
                 target->key + 2, slots->instances);
    else if (slots->starting == slots->instances)
        snprintf(target->waiting, sizeof target->waiting, is_skill ? "every agent with skill %s is starting (instances: %u)" : "every instance of %s is starting (instances: %u)", target->key + 2,
                 slots->instances);
    else
        snprintf(target->waiting, sizeof target->waiting, is_skill ? "every agent with skill %s is busy (instances: %u)" : "every instance of %s is busy (instances: %u)", target->key + 2, slots->instances);
    waits_note(target);
}

static void say_nothing_waits(struct target *target)
{
    target->waiting[0] = '\0';
    waits_note(target);
}

/* ---- when somebody is free ----------------------------------------------------------------------------------------------------------- */

static void wake_target(struct target *target, bool has_room)
{
    if (!target || !target->n_queued)
        return;
    if (has_room)
        target->refused_ms = target->probe_gap_ms = 0;
    target_mark(target);
}

void targets_wake(struct env *env, const struct registry_agent *agent, bool has_room)
{
    wake_target(find_target(env, 'a', agent->name), has_room);
    for (size_t i = 0; agent->card && i < agent->card->n_skills; i++) {
        const char *skill = agent->card->skills[i]->id;
        if (skill && amp_id_is_valid(skill))
            wake_target(find_target(env, 's', skill), has_room);
    }
}

static int64_t first_unix_ms(const struct target *target)
{
    return target && target->first ? target->first->first->queued_unix_ms : INT64_MAX;
}

int64_t targets_first_unix_ms(const struct env *env, const char *agent, const Amp__AgentCard *card)
{
    int64_t first = first_unix_ms(find_target(env, 'a', agent));
    for (size_t i = 0; card && i < card->n_skills; i++) {
        const char *skill = card->skills[i]->id;
        int64_t unix_ms = skill && amp_id_is_valid(skill) ? first_unix_ms(find_target(env, 's', skill)) : INT64_MAX;
        first = unix_ms < first ? unix_ms : first;
    }
    return first;
}

/* Starts what the free slots allow; with is_probe one more, whatever the registry thinks. */
static uint32_t run_target(struct target *target, uint32_t starts_max, bool is_probe)
{
    struct engine_event start = {.kind = ENGINE_EV_START};
    uint32_t started = 0;
    struct registry_slots slots = target_slots(target);
    bool may_run = bus_is_up(target->env->bus) && lease_may_begin(target->env) && (is_probe || !target->refused_ms);
    while (may_run && target->first && started < starts_max) {
        if (slots.free <= target->n_untaken && !(is_probe && target->n_untaken == 0))
            break;
        dispatch_event(target_next(target), &start);
        started++;
        is_probe = false;
        may_run = !target->refused_ms;
    }
    if (target->first && started < starts_max && !target->refused_ms)
        target_say_waiting(target, &slots);
    else if (!target->first)
        say_nothing_waits(target);
    return started;
}

/* In turn, each a few: what is asked of one does not hold up what is asked of others. */
void targets_run(struct env *env)
{
    struct target *target = env->runnable, *last = env->runnable_last;
    bool may_start = !env->is_stopping && !journal_failure(env->journal);
    uint32_t left = may_start ? ENV_STARTS_MAX : 0;
    env->runnable = env->runnable_last = NULL;
    while (target && (left || !may_start)) {
        struct target *next = target->next_runnable;
        uint32_t most = left < ENV_TARGET_STARTS_MAX ? left : ENV_TARGET_STARTS_MAX;
        target->is_runnable = false;
        uint32_t started = run_target(target, most, false);
        left -= started;
        if (started && started == most && target->first)
            target_mark(target); /* behind the others */
        release_target(target);
        target = next;
    }
    if (!target)
        return;
    last->next_runnable = env->runnable; /* these had no turn yet: they are first in the next one */
    env->runnable_last = env->runnable ? env->runnable_last : last;
    env->runnable = target;
    env_request_tick(env);
}

/* The registry may be wrong: one task of each target is tried all the same, less and less often. */
void targets_sweep(struct env *env)
{
    struct target *target, *next;
    int64_t now = loop_now_ms(env->loop);
    uint32_t left = ENV_STARTS_MAX;
    if (env->is_stopping || journal_failure(env->journal))
        return;
    HASH_ITER(hh, env->targets, target, next) {
        if (!target->first || target->n_untaken || left == 0 || now - target->tried_ms < (int64_t)ENV_SLOW_MS + target->probe_gap_ms)
            continue;
        target->probe_gap_ms = target->probe_gap_ms ? target->probe_gap_ms * 2 : ENV_SLOW_MS;
        if (target->probe_gap_ms > ENV_PROBE_MAX_MS)
            target->probe_gap_ms = ENV_PROBE_MAX_MS;
        target->tried_ms = now;
        target->refused_ms = 0;
        left -= run_target(target, 1, true);
    }
}

void targets_done(struct env *env)
{
    struct target *target, *next;
    HASH_ITER(hh, env->targets, target, next) {
        HASH_DEL(env->targets, target);
        target_free(target);
    }
    env->runnable = env->runnable_last = NULL;
}
