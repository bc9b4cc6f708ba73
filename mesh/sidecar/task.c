/* The life of one task: taken, given to the worker, asked about, cancelled, ended. One place ends a stream (conclude), and memory is given back only at the end of
 * a turn (task_flush_dirty), so that nothing here dies under a callback. Reached: running (holds a slot) → over, or → between turns (INPUT_REQUIRED, holds none) → running …
 * amp.md 4.3, 6; local-api.md 3 */
#include "task_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/seeded.h"
#include "sidecar/rpc.h"

#define SILENT_TICK_MS 1000u
#define CALLER_SILENT_MS 10000u                    /* a caller that reads on, or waits, is heard of each second (amp.md 5.5.2) */
#define OVERDUE_MS (SIDECAR_CANCEL_MS + 1000u)     /* the worker had its 5 s and a kill; the caller waits no longer */

/* ---- what the worker may know -------------------------------------------------------------------------------- */

const char *task_id(const struct task *task) { return task->request->task_id; }
const char *task_context(const struct task *task) { return task->request->context_id; }
const char *task_from(const struct task *task) { return task->from; }
uint32_t task_attempt(const struct task *task) { return task->request->has_attempt && task->request->attempt > 0 ? task->request->attempt : 1; }
uint64_t task_epoch(const struct task *task) { return task->request->epoch; }
Amp__TaskState task_state(const struct task *task) { return task->state; }
const Amp__Request *task_request(const struct task *task) { return task->request; }
const char *task_root(const struct task *task) { return task->request->root && task->request->root[0] ? task->request->root : task->request->task_id; }
const Amp__Message *task_message(const struct task *task) { return task->given; }
const Amp__Message *task_resume(const struct task *task) { return task->resume; }
bool task_is_canceled(const struct task *task) { return task->is_canceled; }
void task_has_child(struct task *task) { task->is_parent = true; }
void task_set_data(struct task *task, void *data) { task->data = data; }
void *task_data(const struct task *task) { return task->data; }
bool task_is_over(const struct task *task) { return task->stream.is_ended; }
struct amp_arena *task_arena(struct task *task) { return &task->arena; }

bool task_left_ms(const struct task *task, uint32_t *ret_ms)
{
    int64_t left_ms = task->due_ms - loop_now_ms(task->sidecar->loop);
    *ret_ms = left_ms > 0 ? (uint32_t)left_ms : 0;
    return task->due_ms != 0;
}

bool task_is_full(const struct task *task)
{
    if (task->stream.is_ended || task->is_canceled)
        return false;
    return (task->is_blocked && task_stream_unsent(task) > SIDECAR_BRAKE_BYTES) || task_files_is_busy(task);
}

void task_room_wait(struct task *task, struct task_room *room)
{
    room->task = task;
    LIST_INSERT_HEAD(&task->rooms, room, entry);
}

void task_room_cancel(struct task_room *room)
{
    if (room->task)
        LIST_REMOVE(room, entry);
    room->task = NULL;
}

void task_room_call(struct task *task)
{
    struct task_room *room;
    while ((room = LIST_FIRST(&task->rooms))) {
        task_room_cancel(room);
        room->on_room(room->ctx);
    }
}

static void listen_to_caller(struct task *task, uint32_t silent_ms)
{
    task->silent_ms = silent_ms;
    task->listened_ms = loop_now_ms(task->sidecar->loop);
    loop_timer_set(task->silent, SILENT_TICK_MS);
}

enum amp_code task_flush_now(struct task *task)
{
    enum amp_code code = task_stream_flush(task);
    task->is_blocked = code != AMP_OK;
    if (code == AMP_BUSY && !loop_timer_is_set(task->silent))
        listen_to_caller(task, 0);
    return code;
}

void task_mark_dirty(struct task *task)
{
    struct task_table *table = &task->sidecar->tasks;
    if (task->is_dirty)
        return;
    task->is_dirty = true;
    task->next_dirty = table->dirty;
    table->dirty = task;
    sidecar_touch(task->sidecar);
}

/* ---- the end ------------------------------------------------------------------------------------------------------- */

enum amp_code task_status(struct task *task, Amp__TaskState state, const char *text, const char *metadata)
{
    struct amp_event_sink sink = task_stream_sink(task);
    enum amp_code code = amp_event_status(&task->source, state, text, metadata, &sink);
    if (code == AMP_OK)
        task->state = state;
    return code;
}

static void count_end(struct task *task, Amp__TaskState state)
{
    struct endpoint *endpoint = task->endpoint;
    endpoint->n_requests++;
    endpoint->busy_ns += (uint64_t)(clock_mono_us() - task->started_us) * 1000;
    if (state == AMP__TASK_STATE__TASK_STATE_COMPLETED) {
        counter_add(COUNTER_tasks_completed, 1);
        pause_forget(task->sidecar);
    } else if (state == AMP__TASK_STATE__TASK_STATE_CANCELED) {
        counter_add(COUNTER_tasks_canceled, 1);
    } else {
        counter_add(COUNTER_tasks_failed, 1);
    }
}

/* The last event and the end marker. `err` with AMP_OK: in good order. */
static void conclude(struct task *task, Amp__TaskState state, const char *reason, const struct amp_error *err, const Amp__Death *death)
{
    if (!amp_task_may_move(task->state, state))
        (void)task_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, NULL, NULL);
    if (state == AMP__TASK_STATE__TASK_STATE_CANCELED && task->cancel_reason)
        reason = task->cancel_reason;
    if (!reason && err->code != AMP_OK)
        reason = err->message[0] ? err->message : amp_code_info(err->code)->text;
    if (task_status(task, state, reason, NULL) != AMP_OK) /* a reason too long for this bus, or no memory for it */
        (void)task_status(task, state, NULL, NULL);
    task->state = state;
    Amp__Error wire;
    amp_error_to_wire(err, &wire);
    wire.death = (Amp__Death *)death;
    task_stream_end(task, &wire);
    if (err->code != AMP_OK || state == AMP__TASK_STATE__TASK_STATE_FAILED) {
        task->endpoint->n_errors++;
        (void)snprintf(task->endpoint->last_error, sizeof(task->endpoint->last_error), "%u:%.100s", err->code, reason ? reason : "failed");
    }
    count_end(task, state);
    loop_timer_stop(task->ack);
    loop_timer_stop(task->deadline);
    loop_timer_stop(task->overdue);
    task_lease_ended(task);
    task_mark_dirty(task); /* whoever waits for room is told */
    if (state != AMP__TASK_STATE__TASK_STATE_COMPLETED && task->is_parent)
        rpc_parent_ended(task->sidecar, task_id(task), state == AMP__TASK_STATE__TASK_STATE_CANCELED ? "was cancelled" : "has failed");
}

static void leave_waiting(struct task *task)
{
    if (task->is_waiting)
        task->sidecar->tasks.n_waiting--;
    task->is_waiting = task->wants_turn = false;
}

void task_close(struct task *task, Amp__TaskState state, const struct amp_error *err)
{
    if (task->stream.is_ended)
        return;
    leave_waiting(task);
    conclude(task, state, NULL, err, NULL);
    task_questions_drop(task);
    (void)task_files_stop(task);
}

static void tell_worker(struct task *task, const char *reason)
{
    struct worker *worker = task->sidecar->worker;
    if (task->is_canceled)
        return;
    task->is_canceled = true;
    if (!task_files_stop(task) && task->is_running && worker)
        worker->ops->cancel(worker, task, reason);
}

enum amp_code task_fail(struct task *task, const struct amp_error *err, struct amp_error *reterr)
{
    enum amp_code code = err->code;
    if (reterr)
        *reterr = *err;
    task_close(task, AMP__TASK_STATE__TASK_STATE_FAILED, err);
    tell_worker(task, err->message);
    return code;
}

void task_close_all(struct sidecar *sidecar, bool only_waiting, const struct amp_error *err)
{
    struct task *task, *next;
    HASH_ITER(hh, sidecar->tasks.by_id, task, next) {
        if (!only_waiting || task->is_waiting)
            task_close(task, AMP__TASK_STATE__TASK_STATE_FAILED, err);
    }
}

static void on_ack(void *ctx)
{
    struct task *task = ctx;
    task->stream.is_held = false;
    task_mark_dirty(task);
}

static void on_deadline(void *ctx)
{
    struct task *task = ctx;
    struct amp_error err;
    const Amp__Request *request = task->request;
    unsigned given_ms = request->has_given_ms ? request->given_ms : request->timeout_ms;
    if (request->attempt > 1) /* what was given is for all attempts; this one had what was left of it */
        (void)amp_error_set(&err, AMP_DEADLINE, "", "the %u ms for the task are over: %s did not end it within the %u ms that were left for attempt %u", given_ms, task->sidecar->agent,
                            request->timeout_ms, request->attempt);
    else
        (void)amp_error_set(&err, AMP_DEADLINE, "", "%s did not end the task within %u ms", task->sidecar->agent, given_ms);
    (void)task_fail(task, &err, NULL);
}

static void on_overdue(void *ctx)
{
    struct task *task = ctx;
    struct amp_error none = {.code = AMP_OK};
    log_event(LOG_WARN, "task.cancel_ignored", "task", task_id(task), NULL);
    task_close(task, AMP__TASK_STATE__TASK_STATE_CANCELED, &none);
}

/* Nothing goes out, and the caller has not said for long that it is still there: nobody reads this any more. Time in which we stand still, or are cut off, is none in which it could be heard. */
static void on_silent(void *ctx)
{
    struct task *task = ctx;
    struct sidecar *sidecar = task->sidecar;
    struct amp_error err;
    if (!task_stream_is_waiting(task) || task_is_leased(task))
        return;
    bool is_heard = task->heard_ms >= task->listened_ms || sidecar->up_ms >= task->listened_ms || !bus_is_up(sidecar->bus);
    listen_to_caller(task, is_heard ? 0 : task->silent_ms + SILENT_TICK_MS);
    if (task->silent_ms < CALLER_SILENT_MS)
        return;
    loop_timer_stop(task->silent);
    log_event(LOG_WARN, "task.caller_lost", "task", task_id(task), "from", task->from, NULL);
    task_stream_give_up(task);
    (void)amp_error_set(&err, AMP_INSTANCE_LOST, "", "the caller took no more events and was not heard of for %u s", CALLER_SILENT_MS / 1000);
    (void)task_fail(task, &err, NULL);
    task_mark_dirty(task);
}

void task_heard(struct task *task, const Amp__Ping *ping)
{
    task->heard_ms = loop_now_ms(task->sidecar->loop);
    if (ping && (ping->has_received_bytes || ping->has_attached) && task_stream_received(task, ping))
        task_mark_dirty(task);
    task_resume_heard(task, ping);
    task_lease_heard(task, ping);
}

void task_timers_new(struct task *task)
{
    struct loop *loop = task->sidecar->loop;
    task->ack = loop_timer_new(loop, on_ack, task);
    task->deadline = loop_timer_new(loop, on_deadline, task);
    task->overdue = loop_timer_new(loop, on_overdue, task);
    task->silent = loop_timer_new(loop, on_silent, task);
}

void task_timers_stop(struct task *task)
{
    loop_timer_stop(task->ack);
    loop_timer_stop(task->deadline);
    loop_timer_stop(task->overdue);
    loop_timer_stop(task->silent);
    task_caller_stop(task);
    task_lease_stop(task);
}

void task_timers_free(struct task *task)
{
    loop_timer_free(task->ack);
    loop_timer_free(task->deadline);
    loop_timer_free(task->overdue);
    loop_timer_free(task->silent);
    task_caller_free(task);
    task_lease_free(task);
}

void task_cancel(struct task *task, const char *reason)
{
    struct amp_error none = {.code = AMP_OK};
    if (task->is_canceled || task->stream.is_ended)
        return;
    if (reason && reason[0])
        task->cancel_reason = amp_arena_strdup(&task->arena, (struct amp_bytes){(const uint8_t *)reason, amp_utf8_cut(amp_bytes_of(reason), AMP_LABEL_MAX)});
    if (!task->is_running) {
        task->is_canceled = true;
        task_close(task, AMP__TASK_STATE__TASK_STATE_CANCELED, &none);
        return;
    }
    loop_timer_set(task->overdue, OVERDUE_MS);
    task_mark_dirty(task); /* whoever waits for room is told */
    task_questions_drop(task);
    tell_worker(task, reason && reason[0] ? reason : "cancelled by the caller");
    if (task->is_parent)
        rpc_parent_ended(task->sidecar, task_id(task), "was cancelled");
}

/* ---- what the agent says --------------------------------------------------------------------------------------------- */

/* May the agent still say something, and is there room for it? */
enum amp_code task_say_check(struct task *task, struct amp_error *reterr)
{
    task->has_unsaid |= task->is_canceled;
    if (task->stream.is_ended || task->is_canceled)
        return amp_error_set(reterr, AMP_TASK_ENDED, "", "task %s %s", task_id(task), task->is_canceled ? "was cancelled" : "has ended");
    if (task_stream_unsent(task) <= SIDECAR_BRAKE_BYTES)
        return AMP_OK;
    enum amp_code code = task_flush_now(task);
    if (code == AMP_OK || task_stream_unsent(task) <= SIDECAR_UNSENT_MAX)
        return AMP_OK;
    struct amp_error err;
    counter_add(COUNTER_events_refused, 1);
    (void)amp_error_set(&err, AMP_OVERLOADED, "", "%zu bytes of events wait for the caller or the bus; at most %u may", task_stream_unsent(task), SIDECAR_UNSENT_MAX);
    return task_fail(task, &err, reterr);
}

/* An event that no frame could carry ends the task: to leave it out would be to lie to the caller. */
enum amp_code task_said(struct task *task, enum amp_code code, struct amp_error *reterr)
{
    task->sidecar->last_progress_unix_ms = task->source.now_unix_ms;
    task->progress_ms = loop_now_ms(task->sidecar->loop);
    if (code == AMP_OK)
        return AMP_OK;
    counter_add(COUNTER_events_refused, 1);
    if (code != AMP_TOO_LARGE)
        return code;
    struct amp_error err;
    (void)amp_error_set(&err, AMP_TOO_LARGE, "event", "an event of the agent has %zu bytes; one message on this bus holds %zu", task->stream.refused_len,
                        bus_info(task->sidecar->bus)->payload_max);
    amp_error_hint(&err, "send large artifacts in several parts with append");
    return task_fail(task, &err, reterr);
}

enum amp_code task_event(struct task *task, const struct cJSON *local, struct amp_error *reterr)
{
    enum amp_code code = task_say_check(task, reterr);
    if (code != AMP_OK || task_files_keep(task, local, &code, reterr))
        return code;
    return task_event_now(task, local, reterr);
}

enum amp_code task_event_now(struct task *task, const struct cJSON *local, struct amp_error *reterr)
{
    struct amp_event_sink sink = task_stream_sink(task);
    return task_said(task, amp_event_project(&task->source, local, &sink, reterr), reterr);
}

/* ---- turns -------------------------------------------------------------------------------------------------------------- */

void task_run(struct task *task)
{
    struct worker *worker = task->sidecar->worker;
    task_hung_watch(task);
    worker->ops->run(worker, task);
}

static void turn_begin(struct task *task)
{
    leave_waiting(task);
    task->is_running = true;
    sidecar_slot_take(task->sidecar);
    if (!task_files_fetch(task))
        task_run(task);
}

void task_resume_waiting(struct sidecar *sidecar)
{
    struct task *task, *next;
    if (sidecar->tasks.n_waiting == 0 || !sidecar->worker)
        return;
    HASH_ITER(hh, sidecar->tasks.by_id, task, next) {
        if (sidecar_free_slots(sidecar) == 0)
            return;
        if (task->is_waiting && task->wants_turn)
            turn_begin(task);
    }
}

void task_start(struct task *task, const struct task_origin *origin)
{
    struct sidecar *sidecar = task->sidecar;
    const Amp__Request *request = origin->envelope->request;
    task->request = request;
    task->given = request->message;
    task->from = origin->envelope->from;
    task->endpoint = origin->endpoint;
    task->state = AMP__TASK_STATE__TASK_STATE_SUBMITTED;
    task->source = (struct amp_event_source){.task_id = request->task_id, .context_id = request->context_id};
    task->started_us = clock_mono_us();
    task->heard_ms = loop_now_ms(sidecar->loop);
    task_stream_start(task, origin);
    HASH_ADD_KEYPTR(hh, sidecar->tasks.by_id, request->task_id, strlen(request->task_id), task);
    counter_add(COUNTER_tasks_taken, 1);
    if (task_status(task, AMP__TASK_STATE__TASK_STATE_WORKING, NULL, NULL) == AMP_OK)
        task->stream.is_held = true;
    uint32_t ack_ms = request->has_ack_ms ? request->ack_ms : SIDECAR_ACK_MS;
    loop_timer_set(task->ack, ack_ms);
    bool is_limited = request->has_timeout_ms && request->timeout_ms > 0;
    task->due_ms = is_limited ? loop_now_ms(sidecar->loop) + request->timeout_ms : 0;
    if (is_limited)
        loop_timer_set(task->deadline, request->timeout_ms);
    task_caller_watch(task);
    task_lease_begin(task);
    turn_begin(task);
}

static void turn_over(struct task *task)
{
    task->is_running = false;
    task->data = NULL;
    task->resume = NULL;
    task->sidecar->last_progress_unix_ms = clock_unix_ms();
    sidecar_slot_release(task->sidecar);
    task_questions_drop(task);
    task_mark_dirty(task);
}

static void wait_for_answer(struct task *task, const char *question)
{
    struct task_table *table = &task->sidecar->tasks;
    struct amp_error err;
    if (table->n_waiting >= SIDECAR_WAITING_MAX) {
        (void)amp_error_set(&err, AMP_OVERLOADED, "", "%u tasks of this instance wait for an answer already", table->n_waiting);
        conclude(task, AMP__TASK_STATE__TASK_STATE_FAILED, NULL, &err, NULL);
        return;
    }
    if (task_ask_turn(task, question) != AMP_OK) {
        (void)amp_error_set(&err, AMP_TOO_LARGE, "message", "the question is too large");
        conclude(task, AMP__TASK_STATE__TASK_STATE_FAILED, NULL, &err, NULL);
        return;
    }
    task->is_waiting = task->has_asked = true;
    table->n_waiting++;
}

/* As if it had never come: nobody has heard of it yet. False: somebody has. */
static bool give_back(struct task *task, const struct amp_error *err)
{
    if (!task_stream_drop(task, err))
        return false;
    loop_timer_stop(task->ack);
    loop_timer_stop(task->deadline);
    task_lease_stop(task);
    counter_add(COUNTER_tasks_bounced, 1);
    turn_over(task);
    return true;
}

void task_finish(struct task *task, const struct task_outcome *outcome)
{
    struct task_verdict verdict = {.state = outcome->state, .reason = outcome->reason, .error = outcome->error, .death = outcome->death};
    assert(task->is_running);
    if (task_files_finish(task, outcome))
        return;
    /* What an agent went on to say after its cancel was not taken: an answer without it would be a lie. */
    if (task->has_unsaid && !SEEDED_BUG("half-answer") && verdict.state == AMP__TASK_STATE__TASK_STATE_COMPLETED)
        verdict.state = AMP__TASK_STATE__TASK_STATE_CANCELED;
    else if (!task->stream.is_ended && outcome->result && outcome->error.code == AMP_OK)
        task_outcome_apply(task, outcome->result, &verdict);
    else if (!task->stream.is_ended && task->source.is_text_started && verdict.state == AMP__TASK_STATE__TASK_STATE_COMPLETED)
        task_outcome_close_text(task);
    if (verdict.error.code == AMP_BUSY) {
        pause_begin(task->sidecar, &verdict.error);
        if (!task->is_canceled && give_back(task, &verdict.error)) {
            free(verdict.text);
            return;
        }
    }
    turn_over(task);
    if (task->stream.is_ended) {
        free(verdict.text);
        return;
    }
    /* Asked to stop, an agent may well end by being killed: that is the cancel, not a death. */
    if (task->is_canceled && verdict.error.code != AMP_OK) {
        verdict.state = AMP__TASK_STATE__TASK_STATE_CANCELED;
        verdict.reason = NULL;
        verdict.error.code = AMP_OK;
        verdict.death = NULL;
    }
    if (verdict.state == AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED && !task->is_canceled)
        wait_for_answer(task, verdict.reason);
    else
        conclude(task, verdict.state, verdict.reason, &verdict.error, verdict.death);
    free(verdict.text);
}
