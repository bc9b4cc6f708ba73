/* Schedules: each due time makes one task, over kills, power cuts and jumps of the clock; none comes early; a time that made none is counted. The schedule's row and its tasks are held
 * against each other, and, where no clock was set, against the time that has gone. */
#include "scenario.h"

#include "base/envcall.h"
#include "base/loop.h"
#include "env/journal.h"

#include <string.h>

#define RUNS_MAX 16
#define DRIFT_MS 1000 /* of an interval: it is looked for each second at the latest */

static void add(void *ctx);
static void again(struct routine *routine) { world_at(world_now_us() + (int64_t)world_between(50, 1500) * 1000, routine->client->loop, add, routine); }

/* → was it accepted? */
static bool hold_added(struct routine *routine, const Amp__EnvReply *reply, const struct amp_error *err)
{
    if (err->code == AMP_CONFLICT || err->code == AMP_INVALID || err->code == AMP_MALFORMED)
        world_fail("PT: schedule %s, sent again under its key, is refused: %s", routine->key, err->message);
    if (err->code != AMP_OK || reply->n_schedules == 0) {
        world_trace("%s: schedule %s is not accepted: %s", routine->client->name, routine->key, err->message);
        return false;
    }
    if (routine->id[0] && strcmp(routine->id, reply->schedules[0]->id) != 0)
        world_fail("PT: key %s is schedule %s, and was %s", routine->key, reply->schedules[0]->id, routine->id);
    bool is_first = !routine->id[0];
    snprintf(routine->id, sizeof routine->id, "%s", reply->schedules[0]->id);
    world_trace("%s: schedule %s is accepted as %s", routine->client->name, routine->key, routine->id);
    stat_add(STAT_schedules, is_first);
    return true;
}

static void on_added(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct routine *routine = ctx;
    bool was_known = routine->id[0];
    routine->asking = NULL;
    if (!hold_added(routine, reply, err) || (!was_known && world_chance(20)))
        again(routine); /* somebody who did not hear it */
}

static void on_hurried(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct routine *routine = ctx;
    routine->hurrying = NULL;
    if (!hold_added(routine, reply, err))
        return;
    env_call_cancel(routine->asking); /* it knows enough */
    routine->asking = NULL;
}

static bool send(struct routine *routine, void (*on_reply)(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err), struct env_call **ret)
{
    static const char *const overlaps[] = {"skip", "queue", "allow"};
    const struct timetable *plan = routine->plan;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__ScheduleCommand command = AMP__SCHEDULE_COMMAND__INIT;
    Amp__Schedule schedule = AMP__SCHEDULE__INIT;
    Amp__Submit submit = AMP__SUBMIT__INIT;
    Amp__Request task = AMP__REQUEST__INIT;
    Amp__Message message;
    Amp__Part part, *parts[1];
    static char none[] = "", minutely[] = "* * * * *", utc[] = "UTC";
    client_message(plan->text, routine->key, &message, &part, parts);
    task.task_id = task.context_id = none;
    task.message = &message;
    submit.agent = (char *)plan->agent;
    submit.request = &task;
    submit.key = routine->key;
    schedule.has_every_ms = plan->every_ms > 0;
    schedule.every_ms = plan->every_ms;
    schedule.cron = plan->every_ms ? NULL : minutely;
    schedule.zone = plan->every_ms ? NULL : utc;
    schedule.overlap = (char *)overlaps[plan->overlap % 3];
    schedule.has_count = true;
    schedule.count = plan->count;
    schedule.submit = &submit;
    command.op = AMP__SCHEDULE_OP__SCHEDULE_ADD;
    command.schedule = &schedule;
    request.verb_case = AMP__ENV_REQUEST__VERB_SCHEDULE;
    request.schedule = &command;
    if (!routine->first_sent_us)
        routine->first_sent_us = world_now_us();
    return env_call(routine->client->loop, routine->client->bus, routine->client->name, &request, 3000, on_reply, routine, ret) == AMP_OK;
}

static void add(void *ctx)
{
    struct routine *routine = ctx;
    if (routine->asking || !send(routine, on_added, &routine->asking))
        again(routine);
}

void routine_make(struct routine *routine, const struct timetable *plan, unsigned n)
{
    *routine = (struct routine){.plan = plan, .client = &scenario.clients[plan->client]};
    snprintf(routine->key, sizeof routine->key, "routine-%u", n);
}

void routine_start(void *ctx) { add(ctx); }

void routines_hurry(void)
{
    for (struct routine *routine = scenario.routines; routine < scenario.routines + scenario.n_routines; routine++)
        if (routine->asking && !routine->hurrying)
            send(routine, on_hurried, &routine->hurrying);
}

void routine_end(struct routine *routine)
{
    env_call_cancel(routine->asking);
    env_call_cancel(routine->hurrying);
}

/* ---- what became of it ----------------------------------------------------------------------------------------------------- */

struct record { /* the schedule's row */
    bool is_there, is_done;
    uint32_t runs, skipped, missed;
    int64_t created_ms, last_ms;
};

static bool on_record(void *ctx, const struct journal_row *row)
{
    struct record *record = ctx;
    struct amp_arena arena;
    amp_arena_init(&arena, 1 << 20);
    const Amp__Schedule *schedule = amp__schedule__unpack(&arena.allocator, row->body.len, row->body.data);
    record->is_there = schedule != NULL;
    if (schedule)
        *record = (struct record){.is_there = true, .is_done = schedule->state && strcmp(schedule->state, "done") == 0, .runs = schedule->runs, .skipped = schedule->skipped,
                                  .missed = schedule->missed, .created_ms = schedule->created ? schedule->created->unix_ms : 0, .last_ms = schedule->last ? schedule->last->unix_ms : 0};
    amp_arena_done(&arena);
    return false;
}

static void read_record(struct journal *journal, const struct routine *routine, struct record *ret)
{
    const struct journal_kv_query query = {.scope = "schedule", .owner = "", .key = routine->id};
    memset(ret, 0, sizeof *ret);
    (void)!journal_kv(journal, &query, on_record, ret);
}

bool routines_are_settled(struct journal *journal)
{
    for (const struct routine *routine = scenario.routines; routine < scenario.routines + scenario.n_routines; routine++) {
        struct record record;
        if (!routine->id[0] || routine->asking)
            return false;
        read_record(journal, routine, &record);
        if (record.is_there && !record.is_done)
            return false;
    }
    return true;
}

struct runs {
    const struct routine *routine;
    size_t n;
    int64_t planned_ms[RUNS_MAX];
};

static bool on_run(void *ctx, const struct journal_row *row)
{
    struct runs *runs = ctx;
    struct amp_arena arena;
    amp_arena_init(&arena, 1 << 20);
    const Amp__Submit *submit = amp__submit__unpack(&arena.allocator, row->request.len, row->request.data);
    int64_t planned_ms = submit && submit->planned ? submit->planned->unix_ms : 0;
    for (size_t i = 0; i < runs->n; i++)
        if (runs->planned_ms[i] == planned_ms)
            world_fail("PT: schedule %s has two tasks for one time; %s is the second", runs->routine->id, row->task);
    if (row->is_open)
        world_fail("P2: task %s of schedule %s has no end", row->task, runs->routine->id);
    if (!scenario.has_jumped && row->at_unix_ms < planned_ms)
        world_fail("PT: task %s of schedule %s was made %lld ms before its time", row->task, runs->routine->id, (long long)(planned_ms - row->at_unix_ms));
    if (runs->n < RUNS_MAX)
        runs->planned_ms[runs->n++] = planned_ms;
    amp_arena_done(&arena);
    return true;
}

/* An interval whose clock nobody set: as many times as have gone are accounted for, as a run, as skipped or as missed. */
static void check_interval(const struct routine *routine, const struct record *record)
{
    int64_t every_ms = routine->plan->every_ms, expected_ms = record->created_ms + every_ms * (int64_t)(record->runs + record->skipped + record->missed);
    if (routine->plan->overlap % 3 == 1 || record->runs == 0) /* queued ones are run for a time that is over */
        return;
    if (record->last_ms < expected_ms - DRIFT_MS)
        world_fail("PT: schedule %s ran %lld ms too early", routine->id, (long long)(expected_ms - record->last_ms));
    if (record->last_ms > expected_ms + DRIFT_MS)
        world_fail("PT: schedule %s has lost a time: %u runs, %u skipped, %u missed, and the last was %lld ms later than that", routine->id, record->runs, record->skipped, record->missed,
                   (long long)(record->last_ms - expected_ms));
}

void routine_check(struct journal *journal, const struct routine *routine)
{
    struct record record;
    struct runs runs = {.routine = routine};
    const struct journal_query query = {.parent = routine->id, .limit = JOURNAL_READ_MAX};
    read_record(journal, routine, &record);
    if (!record.is_there) {
        world_fail("P1: schedule %s was accepted and is not in the journal", routine->id);
        return;
    }
    if (journal_tasks(journal, &query, on_run, &runs, NULL, NULL) != AMP_OK)
        world_fail("P1: the tasks of schedule %s cannot be read", routine->id);
    stat_add(STAT_schedule_runs, runs.n);
    stat_add(STAT_schedule_missed, record.missed);
    stat_add(STAT_schedule_skipped, record.skipped);
    if (!record.is_done || record.runs != routine->plan->count || runs.n != record.runs)
        world_fail("PT: schedule %s should have run %u times; its row says %u, and there are %zu tasks", routine->id, routine->plan->count, record.runs, runs.n);
    if (!scenario.has_jumped && routine->plan->every_ms)
        check_interval(routine, &record);
}
