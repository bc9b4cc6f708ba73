/* Callers. A durable one repeats its submit under the same key until it is told "accepted", as the manual says. */
#include "scenario.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/call.h"
#include "base/call_fsm.h"
#include "base/clock.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "sidecar/sidecar.h"

#include <stdlib.h>
#include <string.h>

uint64_t digest_of(struct amp_bytes data)
{
    uint64_t hash = 14695981039346656037ull;
    for (size_t i = 0; i < data.len; i++)
        hash = (hash ^ data.data[i]) * 1099511628211ull;
    return hash;
}

void client_message(const char *text, const char *id, Amp__Message *message, Amp__Part *part, Amp__Part **parts)
{
    amp__message__init(message);
    amp__part__init(part);
    part->text = (char *)text;
    parts[0] = part;
    message->message_id = (char *)id;
    message->has_role = true;
    message->role = AMP__ROLE__ROLE_USER;
    message->n_parts = 1;
    message->parts = parts;
}

/* ---- durable ---------------------------------------------------------------------------------------------------- */

static void submit(void *ctx);
static void again(struct job *job, void (*what)(void *ctx)) { world_at(world_now_us() + (int64_t)world_between(50, 1500) * 1000, job->client->loop, what, job); }

static void on_watched(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct job *job = ctx;
    stat_add(STAT_events_shown, 1);
    if (job->watch_ended)
        world_fail("P4: a watcher of %s was shown event %u after the end", job->task, seq);
    ledger_told(job->task, seq);
    uint32_t expected = job->n_seen ? job->seen[job->n_seen - 1].seq + 1 : 1;
    if (seq != expected)
        world_fail("P4: a watcher of %s was shown event %u after %u", job->task, seq, expected - 1);
    if (job->n_seen < SEEN_MAX)
        job->seen[job->n_seen++] = (struct seen){.seq = seq, .digest = digest_of((struct amp_bytes){event->body->text.data, event->body->text.len})};
}

static void watch(void *ctx);

static void on_watch_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct job *job = ctx;
    env_watch_free(job->watch);
    job->watch = NULL;
    world_trace("%s: the watch of %s ended: %s", job->client->name, job->task, err->code == AMP_OK ? "ok" : err->message);
    if (err->code == AMP_NO_SUCH_TASK)
        world_fail("P1: task %s was accepted, and the environment says that it does not know it", job->task);
    job->watch_ended = true;
    stat_add(STAT_watches, err->code == AMP_OK);
    job->code = err->code;
}

static void watch(void *ctx)
{
    static const struct env_watch_handlers handlers = {.on_event = on_watched, .on_end = on_watch_end};
    struct job *job = ctx;
    if (env_watch_start(job->client->loop, job->client->bus, job->client->name, job->task, 1, 0, &handlers, job, &job->watch) != AMP_OK)
        again(job, watch);
}

static void cancel(void *ctx);

static void on_canceled(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct job *job = ctx;
    job->asking = NULL;
    world_trace("%s: cancel of %s: %s", job->client->name, job->task, err->code == AMP_OK ? "ok" : err->message);
    if (err->code == AMP_OK)
        job->is_cancel_confirmed = true;
    else if (err->code == AMP_NO_SUCH_TASK)
        world_fail("P1: task %s was accepted, and cannot be cancelled: no such task", job->task);
    else if (err->code != AMP_TASK_ENDED && !scenario.is_healing)
        again(job, cancel);
}

static void cancel(void *ctx)
{
    struct job *job = ctx;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__Cancel wish = AMP__CANCEL__INIT;
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &wish;
    command.id = job->task;
    command.control = &control;
    request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
    request.command = &command;
    if (env_call(job->client->loop, job->client->bus, job->client->name, &request, 2000, on_canceled, job, &job->asking) != AMP_OK)
        again(job, cancel);
}

static void check_refused(const struct job *job, const struct amp_error *err)
{
    stat_add(err->code == AMP_JOURNAL ? STAT_journal_told : err->code == AMP_QUOTA ? STAT_quota_told : err->code == AMP_OVERLOADED ? STAT_overload_told : STAT_away_told, 1);
    if (err->code == AMP_CONFLICT || err->code == AMP_INVALID || err->code == AMP_MALFORMED)
        world_fail("%s, sent again under its key, is refused: %s", job->key, err->message);
    if (err->code == AMP_QUOTA && !witness_has_quota())
        world_fail("PO: %s is refused, and nobody has set a quota: %s", job->key, err->message);
    if (err->code == AMP_QUOTA && err->retry_after_ms == 0)
        world_fail("PO: %s is refused, and not told when to come back: %s", job->key, err->message);
}

static void on_submitted(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct job *job = ctx;
    job->asking = NULL;
    job->n_unheard += err->code == AMP_NO_ENV || err->code == AMP_DEADLINE || err->code == AMP_NO_BUS || err->code == AMP_JOURNAL; /* a failed sync may have written it */
    if (err->code != AMP_OK || reply->n_tasks == 0) {
        world_trace("%s: %s is not accepted: %s", job->client->name, job->key, err->message);
        check_refused(job, err);
        again(job, submit);
        return;
    }
    const char *id = reply->tasks[0]->task->id;
    if (job->is_accepted && strcmp(job->task, id) != 0)
        world_fail("P3: key %s is task %s, and was task %s", job->key, id, job->task);
    snprintf(job->task, sizeof job->task, "%s", id);
    if (branch_is_fork(job))
        snprintf(job->context, sizeof job->context, "%s", reply->tasks[0]->task->context_id);
    world_trace("%s: %s is accepted as %s%s", job->client->name, job->key, id, reply->duplicate ? " (again)" : "");
    stat_add(STAT_duplicates, reply->has_duplicate && reply->duplicate);
    if (job->is_accepted)
        return;
    job->is_accepted = true;
    ledger_told(job->task, 0);
    stat_add(STAT_accepted, 1);
    if (world_chance(20) && !branch_is_fork(job))
        again(job, submit); /* somebody who did not hear it */
    if (job->wish->wants_watch)
        watch(job);
    if (job->wish->wants_cancel)
        again(job, cancel);
    human_begin(job);
}

/* When it is to start is said once: a submit that is repeated says the same. */
static void add_delay(struct job *job, Amp__Submit *body, Amp__Timestamp *not_before)
{
    amp__timestamp__init(not_before);
    if (!job->wish->delay_ms)
        return;
    if (!job->due_us) {
        job->due_us = world_now_us() + (int64_t)job->wish->delay_ms * 1000;
        job->due_unix_ms = clock_unix_ms() + job->wish->delay_ms;
    }
    not_before->unix_ms = job->due_unix_ms;
    body->has_delay_ms = !job->wish->is_by_clock;
    body->delay_ms = job->wish->delay_ms;
    body->not_before = job->wish->is_by_clock ? not_before : NULL;
}

/* Direct calls may be given to another instance, as long as neither caller nor agent has forbidden that. */
static void check_begun(struct job *job, struct sidecar *sidecar)
{
    if (job->wish->is_durable || scenario.has_doubled)
        return;
    if (job->n_begun > (job->wish->is_never_retried ? 1 : CALL_ATTEMPTS_MAX))
        world_fail("PR: the direct call %s is worked on %u times", job->task, job->n_begun);
    if (job->was_once)
        world_fail("PR: the direct call %s is worked on again, and had begun where nothing may be begun twice", job->task);
    job->was_once = sidecar_options(sidecar)->retry == SIDECAR_RETRY_NEVER;
}

void job_begun(const char *text, struct sidecar *sidecar)
{
    for (struct job *job = scenario.jobs; job < scenario.jobs + scenario.n_jobs; job++) {
        if (strcmp(job->wish->text, text) != 0)
            continue;
        job->n_begun++;
        check_begun(job, sidecar);
        if (!job->due_us)
            continue;
        stat_add(STAT_delayed, 1);
        if (!scenario.has_jumped && world_now_us() < job->due_us - 1000)
            world_fail("PT: \"%s\" has begun %lld ms before its time", text, (long long)(job->due_us - world_now_us()) / 1000);
    }
}

/* A fork has no key: who does not hear whether it was made, and asks again, may have two. */
static void submit_fork(struct job *job)
{
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__Fork fork;
    Amp__Message message;
    Amp__Part part, *parts[1];
    client_message(job->wish->text, job->key, &message, &part, parts);
    request.verb_case = AMP__ENV_REQUEST__VERB_FORK;
    request.fork = &fork;
    if (job->asking || !branch_fill(job, &message, &fork) ||
        env_call(job->client->loop, job->client->bus, job->client->name, &request, 3000, on_submitted, job, &job->asking) != AMP_OK)
        again(job, submit);
}

static void submit(void *ctx)
{
    struct job *job = ctx;
    if (branch_is_fork(job)) {
        submit_fork(job);
        return;
    }
    Amp__Timestamp not_before;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__Submit body = AMP__SUBMIT__INIT;
    Amp__Request task = AMP__REQUEST__INIT;
    Amp__Message message;
    Amp__Part part, *parts[1];
    client_message(job->wish->text, job->key, &message, &part, parts);
    static char none[] = "";
    task.task_id = none;
    task.context_id = job->context;
    task.message = &message;
    task.has_timeout_ms = job->wish->timeout_ms > 0;
    task.timeout_ms = job->wish->timeout_ms;
    *(job->wish->is_skill ? &body.skill : &body.agent) = (char *)job->wish->agent;
    body.request = &task;
    body.key = job->key;
    if (job->wish->is_never_retried)
        body.retry = (char *)"never";
    request.verb_case = AMP__ENV_REQUEST__VERB_SUBMIT;
    request.submit = &body;
    add_delay(job, &body, &not_before);
    job->n_submits++;
    if (job->asking || env_call(job->client->loop, job->client->bus, job->client->name, &request, 3000, on_submitted, job, &job->asking) != AMP_OK)
        again(job, submit);
}

/* ---- direct --------------------------------------------------------------------------------------------------------- */

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct job *job = ctx;
    if (job->has_ended)
        world_fail("P4: an event of %s after its end", job->task);
    if (seq != ++job->n_shown)
        world_fail("PR: event %u of %s is shown after %u", seq, job->task, job->n_shown - 1);
    if (memmem(event->body->text.data, event->body->text.len, "\"amp/retry\"", 11))
        stat_add(STAT_direct_retried, 1);
    if (amp_fold_apply(job->fold, (struct amp_bytes){event->body->text.data, event->body->text.len}, NULL) != AMP_OK)
        world_fail("P4: event %u of %s is not allowed in its state", seq, job->task);
    human_heard(job, (struct amp_bytes){event->body->text.data, event->body->text.len});
}

static void on_taken(void *ctx, const char *agent, const char *instance) {}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct job *job = ctx;
    wait_failed(job, err->code);
    call_free(job->call);
    job->call = NULL;
    job->n_ends++;
    stat_add(STAT_direct_ended, 1);
    stat_add(STAT_direct_good, err->code == AMP_OK);
    stat_add(STAT_direct_lost, err->code == AMP_FRAMES_LOST);
    job->has_ended = true;
    job->is_unkept = !stream_has_been();
    job->code = err->code;
    world_trace("%s: direct call %s ended: %s", job->client->name, job->task, err->code == AMP_OK ? amp_task_state_short(amp_fold_state(job->fold)) : err->message);
}

static void call(struct job *job)
{
    static const struct call_handlers handlers = {.on_event = on_event, .on_taken = on_taken, .on_end = on_end};
    Amp__Message message;
    Amp__Part part, *parts[1];
    client_message(job->wish->text, job->key, &message, &part, parts);
    amp_id_new('t', clock_unix_ms(), job->task);
    job->fold = amp_fold_new(job->task, job->context, 1 << 20);
    const struct call_options options = {.agent = job->wish->is_skill ? NULL : job->wish->agent, .skill = job->wish->is_skill ? job->wish->agent : NULL, .from = job->client->name, .task_id = job->task,
                                         .context_id = job->context, .message = &message, .timeout_ms = job->wish->timeout_ms, .attempt = 1, .may_queue = true, .window_bytes = job->wish->window_bytes,
                                         .may_retry = !job->wish->is_never_retried};
    if (call_start(job->client->loop, job->client->bus, &options, &handlers, job, &job->call, NULL) != AMP_OK)
        world_fail("a direct call cannot be started");
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

void job_make(struct job *job, const struct wish *wish, unsigned n)
{
    memset(job, 0, offsetof(struct job, seen));
    job->wish = wish;
    job->client = &scenario.clients[wish->client];
    snprintf(job->key, sizeof job->key, "key-%u", n);
    amp_id_new('c', clock_unix_ms(), job->context);
}

void job_start(void *ctx)
{
    struct job *job = ctx;
    if (job->wish->is_durable)
        submit(job);
    else
        call(job);
}

bool job_is_settled(const struct job *job)
{
    if (!job->wish->is_durable)
        return job->has_ended;
    return job->is_accepted && !job->asking && (!job->wish->wants_watch || job->watch_ended);
}

static void nothing(void *ctx) {}

void client_begin(struct client *client, size_t n)
{
    const struct bus_options options = {.url = "sim", .name = client->name, .wait_first = true, .on_up = nothing, .on_down = nothing};
    snprintf(client->name, sizeof client->name, "client-%zu", n);
    client->loop = loop_new();
    if (bus_new(client->loop, &options, &client->bus, NULL) != AMP_OK)
        abort();
}

void client_end(struct client *client)
{
    bus_kill(client->bus, true);
    for (struct routine *routine = scenario.routines; routine < scenario.routines + scenario.n_routines; routine++)
        if (routine->client == client)
            routine_end(routine);
    for (struct job *job = scenario.jobs; job < scenario.jobs + scenario.n_jobs; job++) {
        if (job->client != client)
            continue;
        env_call_cancel(job->asking);
        human_end(job);
        env_watch_free(job->watch);
        call_free(job->call);
        amp_fold_free(job->fold);
    }
    bus_free(client->bus);
    loop_free(client->loop);
}
