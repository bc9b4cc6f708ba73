/* Seats are connections that take tasks, jobs are the tasks in hand. A job is pending until a seat or a long poll takes it; it ends by the agent's reply, by a limit, or with
 * its seat. Nothing here finishes a task from inside run(): what fails at once ends at the turn's end. */
#include "sidecar/worker_link_private.h"

#include "base/alloc.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "sidecar/peer.h"
#include "sidecar/rpc_private.h"
#include "sidecar/session.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RPC_CANCELED = -32800, PARAMS_KEPT_MAX = 64 << 10 };

/* ---- jobs ------------------------------------------------------------------------------------------------------ */

static struct task *job_take_off(struct job *job)
{
    struct link *link = job->link;
    struct task *task = job->task;
    TAILQ_REMOVE(&link->jobs, job, entry);
    if (job->seat)
        job->seat->n_jobs--;
    task_set_data(task, NULL);
    loop_timer_free(job->limit);
    if (job->lease_ms)
        link_lease_ended(link);
    spares_free(&link->spare_jobs, job);
    return task;
}

void link_job_end(struct job *job, const struct task_outcome *outcome)
{
    struct link *link = job->link;
    task_finish(job_take_off(job), outcome);
    link_assign(link);
}

void link_job_fail(struct job *job, const struct amp_error *err, const Amp__Death *death)
{
    struct amp_error own = *err; /* `err` may be the job's */
    struct task_outcome outcome = {.state = AMP__TASK_STATE__TASK_STATE_FAILED, .reason = own.message, .error = own, .death = death};
    link_job_end(job, &outcome);
}

static void on_limit(void *ctx)
{
    struct job *job = ctx;
    if (!job->is_canceled || !job->seat) {
        link_job_fail(job, &job->error, NULL);
        return;
    }
    log_event(LOG_WARN, "agent.ignores_cancel", "agent", sidecar_agent(job->link->base.sidecar), "task", task_id(job->task), NULL);
    if (job->seat->is_spawned)
        link_process_kill(job->link);
    else
        session_close(peer_session(job->seat->peer), "a cancelled task was not given back in time");
}

void link_job_limit(struct job *job, uint32_t in_ms, const struct amp_error *err)
{
    if (err)
        job->error = *err;
    loop_timer_set(job->limit, in_ms);
}

static void fail_soon(struct job *job, enum amp_code code, const char *text)
{
    struct amp_error err = {0};
    amp_error_set(&err, code, "", "%s", text);
    link_job_limit(job, 0, &err);
}

static void put_name(struct amp_buf *out, const char *name)
{
    (void)amp_buf_append(out, ",\"", 2);
    (void)amp_buf_append(out, name, strlen(name));
    (void)amp_buf_append(out, "\":", 2);
}

static void put_text(struct amp_buf *out, const char *name, const char *text)
{
    if (!text)
        return;
    put_name(out, name);
    (void)amp_json_append_string(out, amp_bytes_of(text));
}

static void put_json(struct amp_buf *out, const char *name, const ProtobufCMessage *message)
{
    put_name(out, name);
    if (amp_encode(message, AMP_JSON, out, NULL) != AMP_OK)
        (void)amp_buf_append(out, "null", 4);
}

/* "text" and "message". The text of a single part need not be put together. */
static void put_message(struct amp_buf *out, const Amp__Message *message)
{
    struct amp_buf whole;
    struct amp_bytes text = amp_bytes_of(message->n_parts == 1 ? message->parts[0]->text : NULL);
    amp_buf_init(&whole, AMP_WIRE_BYTES_MAX);
    if (message->n_parts > 1 && amp_message_text(message, &whole) == AMP_OK)
        text = amp_buf_bytes(&whole);
    (void)amp_buf_append(out, "\"text\":", 7);
    (void)amp_json_append_string(out, text);
    put_json(out, "message", &message->base);
    amp_buf_done(&whole);
}

/* A task may be larger than what an agent may send, so the message is not measured here; the session bounds what waits. The buffer remembers a failure, so its end is the only check. */
enum amp_code link_run_params(const struct task *task, struct amp_buf *out)
{
    const Amp__Request *request = task_request(task);
    const Amp__Message *resume = task_resume(task);
    uint32_t left_ms;
    amp_buf_reset(out);
    (void)amp_buf_append(out, "{\"taskId\":", 10);
    (void)amp_json_append_string(out, amp_bytes_of(task_id(task)));
    put_text(out, "contextId", task_context(task));
    (void)amp_buf_append(out, ",", 1);
    put_message(out, task_message(task));
    (void)amp_buf_printf(out, ",\"attempt\":%u", task_attempt(task));
    put_text(out, "from", task_from(task));
    put_text(out, "skill", request->skill);
    put_text(out, "parent", request->parent);
    if (task_left_ms(task, &left_ms))
        (void)amp_buf_printf(out, ",\"timeoutMs\":%u", left_ms);
    if (request->metadata)
        put_json(out, "meta", &request->metadata->base); /* not its text: there may be line ends in it */
    if (resume) {
        (void)amp_buf_append(out, ",\"resume\":{", 11);
        put_message(out, resume);
        (void)amp_buf_append(out, "}", 1);
    }
    return amp_buf_append(out, "}", 1);
}

void link_params_trim(struct link *link)
{
    if (link->params.cap <= PARAMS_KEPT_MAX)
        return;
    amp_buf_done(&link->params);
    amp_buf_init(&link->params, AMP_FOLD_BYTES_MAX);
}

void link_job_outcome(struct job *job, const cJSON *result, const cJSON *error)
{
    struct task_outcome outcome = {.state = AMP__TASK_STATE__TASK_STATE_COMPLETED, .result = result};
    const cJSON *code = cJSON_GetObjectItemCaseSensitive(error, "code");
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(error, "message");
    if (error) {
        bool is_canceled = cJSON_IsNumber(code) && code->valueint == RPC_CANCELED;
        outcome.state = is_canceled ? AMP__TASK_STATE__TASK_STATE_CANCELED : AMP__TASK_STATE__TASK_STATE_FAILED;
        outcome.reason = cJSON_IsString(message) && *message->valuestring ? message->valuestring : is_canceled ? NULL : "the agent reported an error without a text";
    }
    link_job_end(job, &outcome);
}

/* ---- seats ------------------------------------------------------------------------------------------------------- */

struct seat *link_seat_add(struct link *link, struct peer *peer, uint32_t slots, bool is_spawned)
{
    struct seat *seat = xcalloc(1, sizeof *seat);
    seat->link = link;
    seat->peer = peer;
    seat->slots = slots;
    seat->is_spawned = is_spawned;
    peer_set_seat(peer, seat);
    TAILQ_INSERT_TAIL(&link->seats, seat, entry);
    return seat;
}

void link_seat_remove(struct seat *seat)
{
    struct link *link = seat->link;
    struct job *job;
    TAILQ_FOREACH(job, &link->jobs, entry) {
        if (job->seat != seat)
            continue;
        job->seat = NULL;
        job->is_orphan = true;
    }
    peer_set_seat(seat->peer, NULL);
    TAILQ_REMOVE(&link->seats, seat, entry);
    free(seat);
    link_slots_changed(link);
}

void link_slots_changed(struct link *link)
{
    uint64_t slots = link_lease_slots(link);
    const struct seat *seat;
    TAILQ_FOREACH(seat, &link->seats, entry)
        slots += seat->is_ready ? seat->slots : 0;
    link->was_ready = link->was_ready || slots > 0;
    sidecar_set_slots(link->base.sidecar, slots < UINT32_MAX ? (uint32_t)slots : UINT32_MAX);
}

static struct seat *freest(struct link *link)
{
    struct seat *seat, *best = NULL;
    TAILQ_FOREACH(seat, &link->seats, entry)
        if (seat->is_ready && seat->n_jobs < seat->slots && (!best || seat->slots - seat->n_jobs > best->slots - best->n_jobs))
            best = seat;
    return best;
}

static bool assign(struct link *link, struct job *job)
{
    struct seat *seat = freest(link);
    if (!seat)
        return link_lease_assign(link, job);
    loop_timer_stop(job->limit);
    enum amp_code code = link_run_params(job->task, &link->params);
    if (code == AMP_OK)
        code = session_request(peer_session(seat->peer), "task.run", amp_buf_bytes(&link->params), &job->number);
    link_params_trim(link);
    if (code != AMP_OK) {
        fail_soon(job, code, "the agent does not read what it is sent");
        return true;
    }
    job->seat = seat;
    seat->n_jobs++;
    return true;
}

void link_assign(struct link *link)
{
    struct job *job;
    TAILQ_FOREACH(job, &link->jobs, entry) {
        bool is_pending = !job->seat && !job->lease_ms && !job->is_orphan && !job->is_canceled;
        if (is_pending && !assign(link, job))
            return;
    }
}

/* ---- what peers say ------------------------------------------------------------------------------------------------ */

enum amp_code worker_link_hello(struct sidecar *sidecar, struct peer *peer, uint32_t slots, struct amp_error *reterr)
{
    struct link *link = link_of(sidecar);
    uint32_t most = sidecar_options(sidecar)->slots;
    struct seat *seat = peer_seat(peer);
    if (!link || (link->mode != WORKER_DIAL && peer != link->own)) {
        amp_error_hint(reterr, "say \"role\":\"caller\", or start the agent with --mode dial");
        return amp_error_set(reterr, AMP_UNSUPPORTED, "role", "this agent does not take its tasks over a dialled connection");
    }
    if (link->is_stopping || link->is_draining)
        return amp_error_set(reterr, AMP_STOPPING, "", "this instance is leaving the mesh");
    if (!seat)
        seat = link_seat_add(link, peer, 1, link_process_owns(link, peer));
    seat->slots = slots < most ? slots : most;
    return AMP_OK;
}

void worker_link_greeted(struct sidecar *sidecar, struct peer *peer)
{
    struct seat *seat = peer_seat(peer);
    if (!seat)
        return; /* a caller */
    seat->is_ready = true;
    link_slots_changed(seat->link);
    link_assign(seat->link);
}

static void refuse_reply(struct sidecar *sidecar, uint64_t number)
{
    counter_add(COUNTER_agent_bad_replies, 1);
    log_event(LOG_WARN, "agent.bad_reply", "agent", sidecar_agent(sidecar), "id", log_int((long long)number), "why", "no task waits for this reply", NULL);
}

void worker_link_reply(struct sidecar *sidecar, struct peer *peer, uint64_t number, const cJSON *result, const cJSON *error)
{
    struct seat *seat = peer_seat(peer);
    struct job *job = NULL;
    if (seat)
        TAILQ_FOREACH(job, &seat->link->jobs, entry)
            if (job->seat == seat && job->number == number)
                break;
    if (job)
        link_job_outcome(job, result, error);
    else
        refuse_reply(sidecar, number);
}

/* The number behind the first `"id":` of what may be a reply; 0: none. */
static uint64_t guess_number(struct amp_bytes line)
{
    static const char name[] = "\"id\"";
    const uint8_t *end = line.data + line.len, *at = memmem(line.data, line.len, name, sizeof name - 1);
    uint64_t number = 0;
    for (at = at ? at + sizeof name - 1 : end; at < end && (*at == ' ' || *at == ':'); at++)
        continue;
    for (; at < end && *at >= '0' && *at <= '9' && number < UINT32_MAX; at++)
        number = number * 10 + (uint64_t)(*at - '0');
    return number;
}

static bool has(struct amp_bytes line, const char *text)
{
    return memmem(line.data, line.len, text, strlen(text)) != NULL;
}

/* Which task may have lost its outcome with that line? Without a number it is the one that is open, if the line looks like a result and not like
 * something that was merely printed. */
static struct job *job_of_line(struct seat *seat, struct amp_bytes line, bool is_too_long)
{
    struct amp_bytes head = {line.data, line.len < 256 ? line.len : 256};
    uint64_t number = guess_number(line);
    bool may_be_any = seat->n_jobs == 1 && (is_too_long || has(head, "\"result\""));
    struct job *job;
    if (has(head, "\"method\""))
        return NULL; /* a request or an event: its sender was told */
    TAILQ_FOREACH(job, &seat->link->jobs, entry)
        if (job->seat == seat && (number ? job->number == number : may_be_any))
            return job;
    return NULL;
}

void worker_link_bad_line(struct sidecar *sidecar, struct peer *peer, struct amp_bytes line, const struct amp_error *err)
{
    struct seat *seat = peer_seat(peer);
    if (!seat)
        return;
    struct job *job = job_of_line(seat, line, err->code == AMP_TOO_LARGE);
    log_event(LOG_WARN, "agent.bad_line", "agent", sidecar_agent(sidecar), "why", err->message, "task", job ? task_id(job->task) : "", NULL);
    if (!job)
        return;
    struct amp_error lost = {0};
    amp_error_set(&lost, AMP_BAD_ANSWER, err->field, "the agent's answer cannot be read: %s", err->message);
    if (err->code == AMP_TOO_LARGE)
        amp_error_hint(&lost, "stream a long answer in pieces (task.event), or attach it as an artifact in pieces");
    link_job_limit(job, 0, &lost);
}

static void fail_orphans(struct link *link, const char *reason)
{
    struct amp_error err = {0};
    struct job *job, *next;
    amp_error_set(&err, AMP_AGENT_DIED, "", "the agent's connection ended while it worked on the task: %s", reason);
    for (job = TAILQ_FIRST(&link->jobs); job; job = next) {
        next = TAILQ_NEXT(job, entry);
        if (job->is_orphan)
            link_job_limit(job, 0, &err); /* ends at the turn's end: one finish can start the next task */
    }
}

void worker_link_closed(struct sidecar *sidecar, struct peer *peer, const char *reason)
{
    struct seat *seat = peer_seat(peer);
    if (!seat || !link_of(sidecar))
        return;
    struct link *link = seat->link;
    bool is_spawned = seat->is_spawned, has_jobs = seat->n_jobs > 0;
    log_event(has_jobs ? LOG_WARN : LOG_INFO, "agent.detached", "agent", sidecar_agent(sidecar), "reason", reason, "tasks", log_int(seat->n_jobs), NULL);
    link_seat_remove(seat);
    if (!is_spawned)
        fail_orphans(link, reason);
    else if (!link->is_exiting && (has_jobs || peer == link->own))
        link_process_broken(link);
}

/* ---- worker_ops ------------------------------------------------------------------------------------------------------ */

static void run(struct worker *worker, struct task *task)
{
    struct link *link = (struct link *)worker;
    struct job *job = spares_calloc(&link->spare_jobs, sizeof *job);
    job->link = link;
    job->task = task;
    job->limit = loop_timer_new(sidecar_loop(worker->sidecar), on_limit, job);
    task_set_data(task, job);
    TAILQ_INSERT_TAIL(&link->jobs, job, entry);
    if (assign(link, job))
        return;
    fail_soon(job, AMP_AGENT_DIED, "no agent is attached any more that could take the task");
    loop_timer_set(job->limit, LINK_PENDING_MS);
}

static void cancel(struct worker *worker, struct task *task, const char *reason)
{
    struct job *job = task_data(task);
    if (!job || job->is_canceled)
        return;
    job->is_canceled = true;
    struct amp_error err = {0};
    amp_error_set(&err, AMP_CANCELED, "", "the task was cancelled");
    link_job_limit(job, job->seat || job->lease_ms || job->is_orphan ? LINK_CANCEL_MS : 0, &err);
    if (!job->seat)
        return;
    struct amp_buf params;
    amp_buf_init(&params, AMP_LINE_MAX);
    (void)amp_buf_append(&params, "{\"taskId\":", 10);
    (void)amp_json_append_string(&params, amp_bytes_of(task_id(task)));
    put_text(&params, "reason", reason && *reason ? reason : NULL);
    if (amp_buf_append(&params, "}", 1) != AMP_OK || session_notify(peer_session(job->seat->peer), "task.cancel", amp_buf_bytes(&params)) != AMP_OK)
        link_job_limit(job, 0, NULL); /* it reads nothing: no use in waiting */
    amp_buf_done(&params);
}

static void drain(struct worker *worker)
{
    struct link *link = (struct link *)worker;
    struct seat *seat;
    link->is_draining = true;
    TAILQ_FOREACH(seat, &link->seats, entry)
        if (session_notify(peer_session(seat->peer), "drain", (struct amp_bytes){0}) != AMP_OK)
            log_event(LOG_WARN, "agent.not_told", "agent", sidecar_agent(worker->sidecar), "method", "drain", NULL);
    link_lease_done(link);
}

static void stop(struct worker *worker, void (*on_stopped)(void *ctx), void *ctx)
{
    struct link *link = (struct link *)worker;
    link->is_stopping = true;
    link->on_stopped = on_stopped;
    link->stopped_ctx = ctx;
    link_lease_done(link);
    link_process_stop(link);
}

static void link_free(struct worker *worker)
{
    struct link *link = (struct link *)worker;
    link->is_stopping = true;
    link_lease_done(link);
    while (!TAILQ_EMPTY(&link->jobs))
        job_take_off(TAILQ_FIRST(&link->jobs)); /* the tasks are the sidecar's to end */
    while (!TAILQ_EMPTY(&link->seats)) {
        struct seat *seat = TAILQ_FIRST(&link->seats);
        peer_set_seat(seat->peer, NULL);
        TAILQ_REMOVE(&link->seats, seat, entry);
        free(seat);
    }
    link_process_done(link);
    loop_timer_free(link->grace);
    amp_buf_done(&link->params);
    spares_done(&link->spare_jobs);
    free(link);
}

static const struct worker_ops link_ops = {.run = run, .cancel = cancel, .drain = drain, .stop = stop, .free = link_free};

struct link *link_of(struct sidecar *sidecar)
{
    struct worker *worker = sidecar_worker(sidecar);
    return worker && worker->ops == &link_ops ? (struct link *)worker : NULL;
}

struct worker *worker_link_new(struct sidecar *sidecar, enum worker_link_mode mode, char *const *argv)
{
    struct link *link = xcalloc(1, sizeof *link);
    link->base = (struct worker){.ops = &link_ops, .sidecar = sidecar};
    link->mode = mode;
    amp_buf_init(&link->params, AMP_FOLD_BYTES_MAX);
    TAILQ_INIT(&link->seats);
    TAILQ_INIT(&link->jobs);
    link_lease_init(link);
    link_process_init(link, argv);
    return &link->base;
}
