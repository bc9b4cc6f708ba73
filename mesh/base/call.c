#include "base/call_private.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/call_wary.h"
#include "base/counters.h"
#include "base/loop.h"
#include "base/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- life ----------------------------------------------------------------------------------------------- */

#define WIRE_KEPT_MAX 4096u /* bytes of one */

static struct spares calls, wires; /* wires: struct amp_buf, each with its memory */

void call_wire_new(struct call *call)
{
    call->wire = spares_take(&wires);
    if (call->wire)
        return;
    call->wire = xcalloc(1, sizeof *call->wire);
    amp_buf_init(call->wire, AMP_WIRE_BYTES_MAX);
}

void call_wire_free(struct call *call)
{
    struct amp_buf *wire = call->wire;
    call->wire = NULL;
    if (!wire)
        return;
    amp_buf_reset(wire);
    if (wire->cap <= WIRE_KEPT_MAX && spares_give(&wires, wire))
        return;
    amp_buf_done(wire);
    free(wire);
}

static void release(struct call *call)
{
    free(call->cause);
    free(call->broken);
    spares_free(&calls, call);
}

void call_free(struct call *call)
{
    if (!call || call->is_dead) {
        return;
    }
    call->is_dead = true;
    call_io_close(call);
    if (call->in_callback == 0) {
        release(call);
    }
}

void call_enter(struct call *call)
{
    call->in_callback++;
}

void call_leave(struct call *call)
{
    if (--call->in_callback == 0 && call->is_dead) {
        release(call);
    }
}

/* ---- start ---------------------------------------------------------------------------------------------- */

static enum amp_code check(const struct call_options *options, struct amp_error *reterr)
{
    if (!options->agent == !options->skill) {
        return amp_error_set(reterr, AMP_INVALID, "agent", "a call goes to an agent or to a skill");
    }
    if (options->instance && !options->agent) {
        return amp_error_set(reterr, AMP_INVALID, "instance", "an instance is named together with its agent");
    }
    if (options->is_skill_first) {
        return amp_error_set(reterr, AMP_INVALID, "is_skill_first", "is reserved");
    }
    enum amp_code code = call_check_path(options->agent, options->hops, options->path, options->n_path, reterr);
    if (code != AMP_OK) {
        return code;
    }
    if (options->attach_seq && (!options->instance || !options->lease_ms)) {
        return amp_error_set(reterr, AMP_INVALID, "instance", "only a lease of a named instance can be gone on with");
    }
    return options->attach_seq ? AMP_OK : amp_message_check(options->message, "message", reterr);
}

static enum amp_code build_subjects(struct call *call, const struct call_options *options, struct amp_error *reterr)
{
    const char *name = options->skill ? options->skill : options->agent;
    if (!amp_id_is_valid(name) || !amp_id_is_valid(options->from) || !amp_id_is_valid(options->task_id) || !amp_id_is_valid(options->context_id) ||
        (options->instance && !amp_id_is_valid(options->instance))) {
        return amp_error_set(reterr, AMP_INVALID, "", "%s, %s, %s, %s: not all of them are ids ([a-z0-9_-], at most %u)", name, options->from,
                             options->task_id, options->context_id, AMP_NAME_MAX);
    }
    enum amp_code code, code_who;
    if (options->skill) {
        code = amp_subject_build(AMP_SUBJECT_SKILL, name, options->from, NULL, call->subject, reterr);
        code_who = amp_subject_build(AMP_SUBJECT_WHO_SKILL, name, NULL, NULL, call->who_subject, reterr);
    } else if (options->instance) {
        code = amp_subject_build(AMP_SUBJECT_REQ_INST, name, options->instance, options->from, call->subject, reterr);
        code_who = amp_subject_build(AMP_SUBJECT_CTL, options->instance, options->task_id, NULL, call->who_subject, reterr);
    } else {
        code = amp_subject_build(AMP_SUBJECT_REQ, name, options->from, NULL, call->subject, reterr);
        code_who = amp_subject_build(AMP_SUBJECT_WHO, name, NULL, NULL, call->who_subject, reterr);
    }
    return code != AMP_OK ? code : code_who;
}

static enum amp_code encode_request(struct call *call, const struct call_options *options, struct amp_error *reterr)
{
    Amp__Request request = AMP__REQUEST__INIT;
    request.task_id = (char *)options->task_id;
    request.context_id = (char *)options->context_id;
    request.message = (Amp__Message *)options->message;
    request.parent = (char *)options->parent;
    request.root = (char *)options->root;
    request.has_timeout_ms = options->timeout_ms > 0;
    request.timeout_ms = options->timeout_ms;
    request.given_ms = options->given_ms ? options->given_ms : options->timeout_ms;
    request.has_given_ms = request.has_timeout_ms && request.given_ms != request.timeout_ms;
    request.has_attempt = true;
    request.attempt = options->attempt ? options->attempt : 1;
    request.has_may_retry = request.may_retry = call->may_retry;
    request.has_retry_safe = request.retry_safe = call->is_retry_safe;
    request.has_hops = true;
    request.hops = options->hops;
    request.path = options->path;
    request.n_path = options->n_path;
    request.has_journalled = request.journalled = options->is_journalled;
    request.skill = (char *)options->skill;
    request.has_ack_ms = true;
    request.ack_ms = CALL_ACK_MS;
    request.has_epoch = request.has_lease_ms = options->lease_ms > 0;
    request.epoch = options->epoch;
    request.lease_ms = options->lease_ms;
    request.has_window_bytes = true;
    request.window_bytes = call->window_bytes;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = (char *)options->from;
    envelope.body_case = AMP__ENVELOPE__BODY_REQUEST;
    envelope.request = &request;
    enum amp_code code = amp_encode(&envelope.base, AMP_PROTOBUF, call->wire, reterr);
    size_t max = bus_info(call->bus)->payload_max;
    if (code == AMP_OK && max && call->wire->len > max) {
        code = amp_error_set(reterr, AMP_TOO_LARGE, "message", "the request has %zu bytes; this bus takes %zu", call->wire->len, max);
        amp_error_hint(reterr, "put large content where the agent can fetch it, and send its URL");
    }
    return code;
}

/* Task ids are random, so jitter made from them differs between callers. */
static uint32_t seed_of(const char *task_id, uint32_t attempt)
{
    uint32_t hash = 2166136261u ^ attempt;
    for (const char *at = task_id; *at; at++) {
        hash = (hash ^ (uint8_t)*at) * 16777619u;
    }
    return hash;
}

static char *copy(char room[AMP_NAME_MAX + 1], const char *id)
{
    if (!id)
        return NULL;
    name_copy(room, id);
    return room;
}

static void take_over(struct call *call, const struct call_options *options)
{
    call->stream.next = options->attach_seq;
    call->committed = options->attach_seq - 1;
    snprintf(call->taken_agent, sizeof call->taken_agent, "%s", options->agent);
    snprintf(call->taken_instance, sizeof call->taken_instance, "%s", options->instance);
    snprintf(call->ctl_subject, sizeof call->ctl_subject, "%s", call->who_subject); /* a named instance is asked there */
    call_fsm_attach(&call->fsm);
}

enum amp_code call_start(struct loop *loop, struct bus *bus, const struct call_options *options, const struct call_handlers *handlers, void *ctx,
                         struct call **ret, struct amp_error *reterr)
{
    enum amp_code code = check(options, reterr);
    if (code != AMP_OK) {
        return code;
    }
    struct call *call = spares_calloc(&calls, sizeof *call);
    call->loop = loop;
    call->bus = bus;
    call->handlers = *handlers;
    call->ctx = ctx;
    call->timeout_ms = options->timeout_ms;
    call->lease_ms = options->lease_ms;
    call->epoch = options->epoch;
    call->window_bytes = options->window_bytes ? options->window_bytes : CALL_WINDOW_BYTES;
    call->given_ms = options->given_ms ? options->given_ms : options->timeout_ms;
    call->may_retry = options->may_retry && !options->instance && !options->lease_ms && !options->is_journalled && options->attempt <= 1;
    call->is_retry_safe = call->may_retry && options->is_retry_safe;
    call_wire_new(call);
    code = build_subjects(call, options, reterr);
    if (code == AMP_OK && !options->attach_seq) {
        code = encode_request(call, options, reterr);
    }
    if (code != AMP_OK) {
        call_wire_free(call);
        spares_free(&calls, call);
        return code;
    }
    call->agent = copy(call->names.agent, options->agent);
    call->skill = copy(call->names.skill, options->skill);
    call->instance = copy(call->names.instance, options->instance);
    call->from = copy(call->names.from, options->from);
    call->task_id = copy(call->names.task_id, options->task_id);
    call->context_id = copy(call->names.context_id, options->context_id);
    call_io_open(call);
    amp_stream_init(&call->stream);
    call_fsm_init(&call->fsm, options->timeout_ms, options->is_impatient, seed_of(options->task_id, options->attempt), loop_now_ms(loop));
    call_fsm_lease(&call->fsm, options->lease_ms);
    call->priority = options->priority;
    if (options->may_queue && !options->instance) {
        call_fsm_queue(&call->fsm);
    }
    if (options->attach_seq) {
        take_over(call, options);
    }
    if (call->may_retry) {
        call_fsm_retry(&call->fsm);
    }
    if (!options->instance && !options->lease_ms && wary_is(bus, options->skill ? options->skill : options->agent, options->skill != NULL, loop_now_ms(loop))) {
        call_fsm_wary(&call->fsm);
    }
    counter_add(COUNTER_calls_started, 1);
    *ret = call;
    call->in_api++;
    call_feed(call, CALL_EV_START);
    call->in_api--;
    return AMP_OK;
}

bool call_priority(const char *text, Amp__Priority *ret)
{
    static const char *const names[] = {[AMP__PRIORITY__PRIORITY_NORMAL] = "normal", [AMP__PRIORITY__PRIORITY_HIGH] = "high", [AMP__PRIORITY__PRIORITY_LOW] = "low"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (Amp__Priority)i;
            return true;
        }
    }
    return false;
}

void call_cancel(struct call *call, const char *reason)
{
    if (call->is_dead || call->fsm.phase == CALL_ENDED) {
        return;
    }
    if (!call->fsm.is_cancelling) {
        struct amp_bytes text = amp_bytes_of(reason ? reason : "");
        snprintf(call->cancel_reason, sizeof call->cancel_reason, "%.*s", (int)amp_utf8_cut(text, sizeof call->cancel_reason - 1), (const char *)text.data);
    }
    call->in_api++;
    call_feed(call, CALL_EV_CANCEL);
    call->in_api--;
}

void call_give_up(struct call *call, const char *reason)
{
    call->is_given_up = true;
    call_cancel(call, reason);
}

void call_hold(struct call *call, bool is_held)
{
    call->is_held = is_held;
    if (!call->is_dead && call->fsm.phase == CALL_TAKEN)
        call_io_confirm(call);
}

void call_committed(struct call *call, uint32_t count)
{
    if (count > call->committed)
        call->committed = count;
}

void call_heard(struct call *call, bool is_ended)
{
    if (call->is_dead || call->fsm.phase == CALL_ENDED)
        return;
    call->in_api++;
    call_feed(call, is_ended ? CALL_EV_LOST_TRACK : CALL_EV_HEARD);
    call->in_api--;
}

void call_forget(struct bus *bus, const char *from, const char *instance, const char *task_id, uint64_t epoch)
{
    char subject[AMP_SUBJECT_SIZE];
    Amp__Ping ping = AMP__PING__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    control.kind_case = AMP__CONTROL__KIND_PING;
    control.ping = &ping;
    ping.has_done = ping.done = true;
    ping.has_epoch = true;
    ping.epoch = epoch;
    if (amp_subject_build(AMP_SUBJECT_CTL, instance, task_id, NULL, subject, NULL) == AMP_OK)
        (void)bus_control_publish(bus, subject, from, &control); /* lost: the callee asks about it */
}

enum amp_code call_answer(struct call *call, const char *input_id, const Amp__Message *message, struct amp_error *reterr)
{
    if (call->is_dead || call->fsm.phase == CALL_ENDED) {
        return amp_error_set(reterr, AMP_TASK_ENDED, "", "task %s has already ended", call->task_id);
    }
    if (call->fsm.phase != CALL_TAKEN) {
        return amp_error_set(reterr, AMP_NO_QUESTION, "", "task %s has not been taken by an agent yet", call->task_id);
    }
    Amp__Answer answer = AMP__ANSWER__INIT;
    answer.input_id = (char *)input_id;
    answer.message = (Amp__Message *)message;
    Amp__Control control = AMP__CONTROL__INIT;
    control.kind_case = AMP__CONTROL__KIND_ANSWER;
    control.answer = &answer;
    enum amp_code code = bus_control_request(call_ctl_inbox(call), call->ctl_subject, call->from, &control);
    if (code != AMP_OK) {
        amp_error_set(reterr, code, "", "the answer to task %s was not sent: %s", call->task_id, amp_code_info(code)->text);
    }
    return code;
}

const char *call_instance(const struct call *call)
{
    return call->fsm.phase == CALL_TAKEN || call->fsm.phase == CALL_ENDED ? call->taken_instance : "";
}
