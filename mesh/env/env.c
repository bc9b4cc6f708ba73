/* Owns and wires the parts of the environment. */
#include "schedules.h"
#include "turns_verb.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "env/files.h"
#include "env/inbox.h"
#include "env/tree.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define STOP_POLL_MS 10u

uint32_t env_random(struct env *env)
{
    if (env->n_random == 0) {
        randombytes_buf(env->random, sizeof env->random); /* a system call for each would be a tenth of a start with 100,000 tasks */
        env->n_random = sizeof env->random / sizeof *env->random;
    }
    return env->random[--env->n_random];
}

void env_request_tick(struct env *env)
{
    loop_tick_request(env->tick);
}

/* What is in memory is ahead of the disk now, and would be believed. Who waits is told; the rest is for the next environment, which also finds what agents are at. */
static void give_up(struct env *env)
{
    struct etask *task, *next;
    if (env->is_given_up || !journal_failure(env->journal) || journal_waiting(env->journal) > 0)
        return;
    env->is_given_up = true;
    log_event(LOG_ERROR, "env.read_only", "reason", journal_failure(env->journal), "tasks", log_int((long long)HASH_COUNT(env->tasks)), "hint",
              "make room on its disk, or repair it, and restart the environment", NULL);
    HASH_ITER(hh, env->tasks, task, next)
        etask_free(task);
    /* Those of the disk, to be looked at: none of them runs any more. */
    struct amp_error err = {0};
    schedules_done(env);
    if (schedules_load(env, &err) != AMP_OK)
        log_event(LOG_ERROR, "schedules.unread", "reason", err.message, NULL);
}

static void on_tick(void *ctx)
{
    struct env *env = ctx;
    give_up(env);
    targets_run(env);
    etask_flush_all(env);
    reads_run(env);
}

static void on_sweep(void *ctx)
{
    struct env *env = ctx;
    loop_timer_set(env->sweep, ENV_SWEEP_MS);
    evtstream_catch_up(env);
    load_sweep(env);
    reads_sweep(env);
    waits_sweep(env);
    if (bus_is_up(env->bus)) { /* silence means something only while we listen */
        beats_sweep(env);
        if (!evtstream_is_holding(env))
            record_sweep(env);
        targets_sweep(env);
        turns_sweep_all(env);
    }
    env_request_tick(env);
}

static void on_backlog(void *ctx)
{
    etask_flush_later(ctx);
}

/* ---- what the journal has -------------------------------------------------------------------------------------------- */

struct load {
    struct env *env;
    uint32_t rows;
    int64_t last_unix_ms;
    char last[AMP_NAME_MAX + 1];
    enum amp_code code;
    struct amp_error *reterr;
};

static void take_up_durable(struct etask *task, const struct journal_row *row)
{
    struct env *env = task->env;
    amp_arena_reset(&env->scratch);
    Amp__Submit *submit = row->request.len ? amp__submit__unpack(&env->scratch.allocator, row->request.len, row->request.data) : NULL;
    plan_load(task, submit);
    if (submit && submit->retry_of)
        task->retry_of = xstrdup(submit->retry_of);
    if (submit && submit->fork_of)
        task->fork_of = xstrdup(submit->fork_of);
    task->fork_seq = submit ? submit->fork_seq : 0;
    task->engine.attempt = row->attempt; /* of a call that nobody is known to have taken: the next one has its number, if none has begun before */
    task->is_reloaded = true;
    for (size_t i = 0; i < task->n_attempts; i++) {
        if (task->attempts[i].started_unix_ms) {
            task->engine.attempt = task->attempts[i].number;
            task->engine.is_taken = true;
        }
        task->engine.failures += task->attempts[i].ended_unix_ms && engine_is_failure(task->attempts[i].outcome);
        task->engine.is_canceling |= task->attempts[i].is_canceled;
        task->engine.is_retry_safe &= !task->attempts[i].is_only_once;
    }
}

/* When all that belongs to it is in memory: one that ends at once withdraws its questions. */
static void go_on(struct etask *task)
{
    struct engine_event event = {.kind = ENGINE_EV_RELOADED};
    const struct attempt *last = task->n_attempts ? &task->attempts[task->n_attempts - 1] : NULL;
    event.is_open = last && last->started_unix_ms && !last->ended_unix_ms;
    event.is_held = !task->engine.is_canceling && lease_is_held(task, &task->taken_seq);
    if (event.is_held)
        waits_away(task);
    if (task->instance[0] && !event.is_held)
        control_stop_old(task, task->instance, "the environment was restarted; this attempt does not count any more");
    dispatch_event(task, &event);
    tree_check(task);
}

static bool load_row(void *ctx, const struct journal_row *row)
{
    struct load *load = ctx;
    load->rows++;
    load->last_unix_ms = row->at_unix_ms;
    etask_strcpy(load->last, row->task);
    struct etask *task = etask_load(load->env, row);
    /* Before anything is decided about it: what was committed and is lost is no reason to begin it again, or to end it. */
    load->code = etask_check(task, load->reterr);
    if (load->code != AMP_OK)
        return false;
    if (row->is_durable)
        take_up_durable(task, row);
    else
        record_adopt(task);
    return load->env->n_durable < ENV_OPEN_MAX;
}

static enum amp_code load_open(struct env *env, struct amp_error *reterr)
{
    struct load load = {.env = env, .reterr = reterr};
    enum amp_code code = AMP_OK;
    do {
        struct journal_query query = {.only_open = true, .oldest_first = true, .from_unix_ms = load.last_unix_ms, .from_task = load.last};
        load.rows = 0;
        code = journal_tasks(env->journal, &query, load_row, &load, NULL, reterr);
        if (code == AMP_OK)
            code = load.code;
    } while (code == AMP_OK && load.rows == JOURNAL_READ_MAX);
    if (code == AMP_OK && HASH_COUNT(env->tasks) > 0)
        log_event(LOG_INFO, "env.resumed", "open_tasks", log_int((long long)HASH_COUNT(env->tasks)), NULL);
    return code;
}

static void go_on_with_all(struct env *env)
{
    struct etask *task, *next;
    inbox_load(env);
    HASH_ITER(hh, env->tasks, task, next)
        if (task->is_durable)
            go_on(task);
    inbox_resume(env);
    waits_load(env);
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

enum amp_code env_quotas_check(const char *const *quotas, struct amp_error *reterr)
{
    struct quota quota = {0};
    enum amp_code code = AMP_OK;
    quota_init(&quota, ENV_OPEN_MAX);
    for (size_t i = 0; quotas && quotas[i] && code == AMP_OK; i++)
        code = quota_rule(&quota, quotas[i], reterr);
    quota_done(&quota);
    return code;
}

enum amp_code env_new(struct loop *loop, struct bus *bus, const struct env_options *options, struct env **ret, struct amp_error *reterr)
{
    if (!amp_id_is_valid(options->name))
        return amp_error_set(reterr, AMP_INVALID, "name", "\"%s\" is not a valid name", options->name);
    struct env *env = xcalloc(1, sizeof *env);
    env->loop = loop;
    env->bus = bus;
    etask_strcpy(env->name, options->name);
    amp_id_new('i', clock_unix_ms(), env->instance);
    amp_arena_init(&env->arena, AMP_ARENA_BYTES_MAX);
    amp_arena_init(&env->scratch, (size_t)2 * AMP_ARENA_BYTES_MAX);
    amp_arena_init(&env->answer, (size_t)2 * AMP_ARENA_BYTES_MAX);
    amp_buf_init(&env->out, (size_t)2 * AMP_WIRE_BYTES_MAX);
    registry_init(&env->registry);
    env->turns = turns_new();
    quota_init(&env->quota, ENV_OPEN_MAX);
    env->commits_per_s = ENV_COMMITS_PER_S;
    env->tick = loop_tick_new(loop, on_tick, env);
    env->sweep = loop_timer_new(loop, on_sweep, env);
    env->backlog = loop_timer_new(loop, on_backlog, env);
    env->keepalive = loop_timer_new(loop, watch_keepalive, env);
    env->behind = loop_timer_new(loop, reads_on_timer, env);
    env->alarm_timer = loop_timer_new(loop, plan_on_alarm, env);
    beats_init(env);
    enum amp_code code = AMP_OK;
    for (size_t i = 0; options->quotas && options->quotas[i] && code == AMP_OK; i++)
        code = quota_rule(&env->quota, options->quotas[i], reterr);
    if (code == AMP_OK)
        code = journal_open(loop, options->journal_path, &env->journal, reterr);
    env->lease_ms = options->lease_ms ? options->lease_ms : ENV_LEASE_MS;
    if (code == AMP_OK) {
        lease_init(env);
        evtstream_new(env);
        beats_load(env);
        code = schedules_load(env, reterr);
    }
    if (code == AMP_OK)
        files_begin(env, options->journal_path);
    if (code == AMP_OK)
        code = load_open(env, reterr);
    if (code == AMP_OK)
        go_on_with_all(env);
    if (code != AMP_OK) {
        env_free(env);
        return code;
    }
    retain_begin(env, options);
    schedules_start(env);
    loop_timer_set(env->sweep, ENV_SWEEP_MS);
    if (bus_is_up(bus))
        env_bus_up(env);
    *ret = env;
    return AMP_OK;
}

bool env_is_ready(const struct env *env)
{
    return env->is_open && env->is_settled && !env->is_stopping && bus_is_up(env->bus) && !journal_failure(env->journal);
}

static void on_settled(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct env *env = ctx;
    (void)msg, (void)text;
    env->is_settled = env->is_settled || kind != BUS_INBOX_DOWN;
}

/* A server handles what one connection sends in order: when it has answered this (that nobody is there, mostly), it knows the subscriptions. */
static void settle(struct env *env)
{
    char subject[AMP_SUBJECT_SIZE];
    bus_inbox_free(env->settle);
    env->settle = bus_inbox_new(env->bus, on_settled, env);
    if (amp_subject_build(AMP_SUBJECT_WHO, env->name, NULL, NULL, subject, NULL) == AMP_OK)
        (void)bus_inbox_request(env->settle, subject, amp_bytes_of("")); /* a bus that is away: with the next env_bus_up */
}

void env_bus_up(struct env *env)
{
    static const struct {
        enum amp_subject_kind kind;
        const char *queue;
        void (*on_msg)(void *ctx, const struct bus_msg *msg);
    } subs[ENV_SUBS] = {{AMP_SUBJECT_HB, NULL, beats_on_msg}, {AMP_SUBJECT_EVT, NULL, evtstream_on_msg}, {AMP_SUBJECT_ENV, AMP_QUEUE_GROUP_ENV, verbs_on_msg}};
    char subject[AMP_SUBJECT_SIZE];
    for (size_t i = 0; i < ENV_SUBS && !env->is_open && !env->is_stopping; i++)
        if (amp_subject_build(subs[i].kind, "*", "*", NULL, subject, NULL) == AMP_OK)
            env->subs[i] = bus_subscribe(env->bus, subject, subs[i].queue, subs[i].on_msg, env);
    env->is_open = !env->is_stopping;
    if (env->is_open && !env->is_settled)
        settle(env);
    beats_bus_up(env);
    record_bus_up(env);
    evtstream_bus_up(env);
    env_request_tick(env);
}

void env_bus_down(struct env *env)
{
    evtstream_bus_down(env); /* calls, watchers and beats each see it for themselves */
}

static void close_subs(struct env *env)
{
    for (size_t i = 0; i < ENV_SUBS; i++) {
        bus_unsubscribe(env->subs[i], false);
        env->subs[i] = NULL;
    }
    env->is_open = false;
}

static void on_stop_poll(void *ctx)
{
    struct env *env = ctx;
    if (journal_waiting(env->journal) > 0 || env->n_passed > 0) {
        loop_timer_set(env->stop_timer, STOP_POLL_MS);
        return;
    }
    env->on_stopped(env->stopped_ctx);
}

void env_stop(struct env *env, void (*on_stopped)(void *ctx), void *ctx)
{
    evtstream_catch_up(env);
    env->is_stopping = true;
    env->on_stopped = on_stopped;
    env->stopped_ctx = ctx;
    close_subs(env);
    files_submit_done(env); /* who waits is told; what answers bring goes on, and is served */
    evtstream_stop(env);
    waits_stop(env);
    etask_flush_later(env);
    reads_flush(env);
    if (!env->stop_timer)
        env->stop_timer = loop_timer_new(env->loop, on_stop_poll, env);
    loop_timer_set(env->stop_timer, 0);
}

void env_free(struct env *env)
{
    struct etask *task, *next;
    if (!env)
        return;
    env->is_stopping = true;
    close_subs(env);
    bus_inbox_free(env->settle);
    env->settle = NULL;
    if (env->evt)
        evtstream_stop(env);
    verbs_done(env);
    reads_stop(env);
    files_submit_done(env);
    journal_close(env->journal); /* gives the last verdicts: tasks must still be there */
    env->journal = NULL;
    evtstream_free(env);
    watch_done(env);
    HASH_ITER(hh, env->tasks, task, next)
        etask_free(task);
    files_done(env);
    targets_done(env);
    turns_done(env);
    kv_done(env);
    control_done(env);
    reads_done(env); /* nobody is told anything from here on */
    inbox_done(env);
    beats_done(env);
    registry_done(&env->registry);
    retain_done(env);
    quota_done(&env->quota);
    loop_timer_free(env->sweep);
    loop_timer_free(env->backlog);
    loop_timer_free(env->keepalive);
    loop_timer_free(env->behind);
    schedules_done(env);
    loop_timer_free(env->alarm_timer);
    alarms_done(&env->alarms);
    loop_timer_free(env->stop_timer);
    loop_tick_free(env->tick);
    amp_arena_done(&env->arena);
    amp_arena_done(&env->scratch);
    amp_arena_done(&env->answer);
    amp_buf_done(&env->out);
    free(env);
}
