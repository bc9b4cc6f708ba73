/* Looks at everything while it runs: a client that asks for tasks and for the environment's health at random moments, and the whole journal whenever an environment has started. */
#include "scenario.h"

#include "base/envcall.h"
#include "base/loop.h"
#include "env/env_private.h"

#include <string.h>

#define QUICK_MAX 6
#define OWN_BYTES_MAX 100 /* of the last one: ids and times that the environment puts into it */
#define SILENT_MAX_US 20000000 /* a task that neither runs nor says why it waits */

static struct witness {
    struct client *client;
    struct env_call *asking;
    struct job *job;     /* asked for; NULL: the environment's health */
    uint32_t n_starts;   /* whose health */
    bool has_failed;     /* its journal, before it was asked */
    struct quick {       /* asked for just before the environment dies */
        struct job *job;
        struct env_call *asking;
    } quick[QUICK_MAX];
} witness;

static void look(void *ctx);
static void look_again(void) { world_at(world_now_us() + (int64_t)world_between(300, 1500) * 1000, witness.client->loop, look, NULL); }

/* ---- a task ---------------------------------------------------------------------------------------------------------- */

/* Told through the bus: what was told before stays true. */
static Amp__TaskState hold_told(struct job *job, const Amp__TaskRecord *record)
{
    Amp__TaskState state = record->task->status ? record->task->status->state : AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
    if (record->events_count < job->known_events)
        world_fail("P4: task %s has %u events, and had %u", job->task, record->events_count, job->known_events);
    if (job->known_end && state != job->known_end)
        world_fail("P3: task %s is %s, and was %s", job->task, amp_task_state_short(state), amp_task_state_short(job->known_end));
    ledger_told(job->task, record->events_count);
    job->known_events = record->events_count;
    if (amp_task_is_terminal(state))
        job->known_end = state;
    return state;
}

static void hold_record(struct job *job, const Amp__TaskRecord *record)
{
    Amp__TaskState state = hold_told(job, record);
    bool is_quiet = state == AMP__TASK_STATE__TASK_STATE_SUBMITTED && !(record->waiting && *record->waiting);
    stat_add(STAT_looks, 1);
    stat_add(STAT_waiting_told, record->waiting && *record->waiting);
    if (!is_quiet) {
        job->silent_since_us = 0;
    } else if (!job->silent_since_us || job->silent_starts != witness.n_starts) { /* under the same environment: what there was between two is not known */
        job->silent_since_us = world_now_us();
        job->silent_starts = witness.n_starts;
    } else if (world_now_us() - job->silent_since_us > SILENT_MAX_US) {
        world_fail("P2: task %s neither runs nor says why it waits", job->task);
    }
}

static void on_record(const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct job *job = witness.job;
    if (err->code == AMP_NO_SUCH_TASK)
        world_fail("P1: task %s was accepted, and the environment says that it does not know it", job->task);
    else if (err->code == AMP_OK && reply->n_tasks == 1)
        hold_record(job, reply->tasks[0]);
}

/* ---- the environment's health --------------------------------------------------------------------------------------------- */

static void on_health(const Amp__EnvReply *reply, const struct amp_error *err)
{
    if (err->code != AMP_OK || !reply->info || witness.n_starts != nodes.n_starts || !nodes.env || !witness.has_failed)
        return;
    stat_add(STAT_failure_told, 1);
    if (reply->info->journal && strcmp(reply->info->journal, "ok") == 0)
        world_fail("P8: the journal has failed, and the environment says that all is well");
}

/* ---- at random moments ------------------------------------------------------------------------------------------------------ */

static void on_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    witness.asking = NULL;
    if (witness.job)
        on_record(reply, err);
    else
        on_health(reply, err);
    look_again();
}

static void look(void *ctx)
{
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__Ping ping = AMP__PING__INIT;
    struct job *job = scenario.n_jobs ? &scenario.jobs[world_below((uint32_t)scenario.n_jobs)] : NULL;
    if (scenario.is_healing && world_chance(50)) { /* less often when nothing goes wrong any more */
        look_again();
        return;
    }
    witness.job = job && job->wish->is_durable && job->is_accepted ? job : NULL;
    witness.n_starts = nodes.n_starts;
    witness.has_failed = nodes.env && journal_failure(nodes.env->journal);
    query.id = job ? job->task : NULL;
    request.verb_case = witness.job ? AMP__ENV_REQUEST__VERB_GET : AMP__ENV_REQUEST__VERB_PING;
    if (witness.job)
        request.get = &query;
    else
        request.ping = &ping;
    if (env_call(witness.client->loop, witness.client->bus, witness.client->name, &request, 3000, on_reply, NULL, &witness.asking) != AMP_OK)
        look_again();
}

static void on_quick(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct quick *quick = ctx;
    quick->asking = NULL;
    stat_add(STAT_last_words, err->code == AMP_OK);
    if (err->code == AMP_OK && reply->n_tasks == 1)
        (void)hold_told(quick->job, reply->tasks[0]);
}

void witness_ask(void *nothing)
{
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    struct quick *quick = witness.quick;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    for (struct job *job = scenario.jobs; job < scenario.jobs + scenario.n_jobs && quick < witness.quick + QUICK_MAX; job++) {
        if (!job->wish->is_durable || !job->is_accepted || job->known_end)
            continue;
        while (quick < witness.quick + QUICK_MAX && quick->asking)
            quick++;
        if (quick == witness.quick + QUICK_MAX)
            return;
        query.id = job->task;
        quick->job = job;
        if (env_call(witness.client->loop, witness.client->bus, witness.client->name, &request, 1000, on_quick, quick, &quick->asking) != AMP_OK)
            return;
        quick++;
    }
}

void witness_begin(struct client *client)
{
    witness = (struct witness){.client = client};
    look_again();
}

void witness_end(void)
{
    env_call_cancel(witness.asking);
    for (size_t i = 0; i < QUICK_MAX; i++)
        env_call_cancel(witness.quick[i].asking);
}

/* ---- the journal -------------------------------------------------------------------------------------------------------------- */

static bool on_row(void *ctx, const struct journal_row *row)
{
    bool *has = ctx;
    for (size_t i = 0; i < scenario.n_jobs; i++) {
        struct job *job = &scenario.jobs[i];
        if (!job->is_accepted || strcmp(job->task, row->task) != 0)
            continue;
        has[i] = true;
        uint32_t shown = job->n_seen ? job->seen[job->n_seen - 1].seq : 0;
        if (row->count < shown || row->count < job->known_events)
            world_fail("P1: the journal has %u events of %s, somebody was told of %u", row->count, row->task, shown > job->known_events ? shown : job->known_events);
        if (job->known_end && (row->is_open || row->state != (int32_t)job->known_end))
            world_fail("P3: the journal says that %s is %s; it was told to be %s", row->task, amp_task_state_short((Amp__TaskState)row->state), amp_task_state_short(job->known_end));
    }
    return true;
}

struct opened {
    uint32_t n;
    size_t bytes;
};

static bool on_open(void *ctx, const struct journal_row *row)
{
    struct opened *opened = ctx;
    for (size_t i = 0; row->is_durable && i < scenario.script.n_clients; i++) {
        bool is_its = strcmp(scenario.clients[i].name, row->from) == 0;
        opened[i].n += is_its;
        opened[i].bytes += is_its ? row->request.len : 0;
    }
    return true;
}

bool witness_has_quota(void) { return scenario.script.open_max || scenario.script.rate_max || scenario.script.bytes_max; }

void witness_count(struct journal *journal)
{
    struct opened opened[CLIENTS_MAX] = {0};
    const struct script *script = &scenario.script;
    const struct journal_query query = {.only_open = true, .limit = JOURNAL_READ_MAX};
    if (journal_tasks(journal, &query, on_open, opened, NULL, NULL) != AMP_OK)
        return;
    for (size_t i = 0; i < script->n_clients; i++) {
        if (script->open_max && opened[i].n > script->open_max)
            world_fail("PO: %s has %u tasks open, and may have %u", scenario.clients[i].name, opened[i].n, script->open_max);
        if (script->bytes_max && opened[i].n > 1 && opened[i].bytes > script->bytes_max + OWN_BYTES_MAX)
            world_fail("PO: the open requests of %s are %zu bytes, and may be %u", scenario.clients[i].name, opened[i].bytes, script->bytes_max);
    }
}

void witness_start(struct journal *journal)
{
    bool has[JOBS_MAX] = {false};
    const struct journal_query query = {.limit = JOURNAL_READ_MAX};
    stat_add(STAT_journal_checks, 1);
    if (journal_tasks(journal, &query, on_row, has, NULL, NULL) != AMP_OK)
        return; /* the disk does not even read */
    for (size_t i = 0; i < scenario.n_jobs; i++)
        if (scenario.jobs[i].wish->is_durable && scenario.jobs[i].is_accepted && !has[i])
            world_fail("P1: task %s was accepted and is not in the journal after a restart", scenario.jobs[i].task);
}
