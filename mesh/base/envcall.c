/* One question to the environment, one reply. The watch, which is many replies, is in envwatch.c. */
#include "base/envcall.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/counters.h"
#include "base/envcall_private.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

#define ENV_TIMEOUT_MS 10000u /* when the caller gives none: a question to the environment is never open for ever */

struct env_call {
    struct loop_timer *timer;
    struct bus_inbox *inbox;
    char subject[AMP_SUBJECT_SIZE];
    uint32_t timeout_ms;
    void (*on_reply)(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err);
    void *ctx;
};

static const char *verb_of(const Amp__EnvRequest *request)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(&amp__env_request__descriptor, (unsigned)request->verb_case);
    return field ? field->name : NULL;
}

enum amp_code env_request_publish(struct bus_inbox *inbox, const char *from, const Amp__EnvRequest *request, char ret_subject[AMP_SUBJECT_SIZE])
{
    const char *verb = verb_of(request);
    if (!verb || !amp_id_is_valid(from)) {
        return AMP_INVALID;
    }
    enum amp_code code = amp_subject_build(AMP_SUBJECT_ENV, verb, from, NULL, ret_subject, NULL);
    if (code != AMP_OK) {
        return code;
    }
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = (char *)from;
    envelope.body_case = AMP__ENVELOPE__BODY_ENV_REQUEST;
    envelope.env_request = (Amp__EnvRequest *)request;
    return bus_envelope_request(inbox, ret_subject, &envelope);
}

void env_error_none(struct amp_error *err)
{
    amp_error_set(err, AMP_NO_ENV, "", "no environment answers on this bus");
    amp_error_hint(err, "`amesh up` starts a mesh with one; `amesh env` starts one alone");
}

void env_error_denied(struct amp_error *err, const char *subject, const char *text)
{
    amp_error_set(err, AMP_DENIED, "", "the bus does not allow a publish on %s: %s", subject, text ? text : "permission denied");
    amp_error_hint(err, "the permissions of these credentials lack this subject");
}

/* The last thing that happens to a call; `reply` may live in an arena of the caller's. */
static void finish(struct env_call *call, const Amp__EnvReply *reply, const struct amp_error *err)
{
    void (*on_reply)(void *, const Amp__EnvReply *, const struct amp_error *) = call->on_reply;
    void *ctx = call->ctx;
    env_call_cancel(call);
    on_reply(ctx, reply, err);
}

static void take_reply(struct env_call *call, const struct bus_msg *msg)
{
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    struct amp_error err = {.code = AMP_OK}, malformed;
    const Amp__EnvReply *reply = NULL;
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_ENV_REPLY, &arena, &envelope, &encoding, &malformed) != AMP_OK) {
        counter_add(COUNTER_malformed_refused, 1);
        amp_error_set(&err, AMP_BAD_ANSWER, "", "the environment's answer is none: %s: %s", malformed.field, malformed.message);
    } else if (envelope->env_reply->error) {
        amp_error_from_wire(&err, envelope->env_reply->error);
    } else {
        reply = envelope->env_reply;
    }
    finish(call, reply, &err);
    amp_arena_done(&arena);
}

static void on_inbox(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct env_call *call = ctx;
    struct amp_error err = {.code = AMP_OK};
    switch (kind) {
    case BUS_INBOX_MSG:
        take_reply(call, msg);
        return;
    case BUS_INBOX_NO_RESPONDERS:
        env_error_none(&err);
        break;
    case BUS_INBOX_DENIED:
        env_error_denied(&err, call->subject, text);
        break;
    case BUS_INBOX_DOWN:
        amp_error_set(&err, AMP_NO_BUS, "", "the bus was lost before the environment answered on %s", call->subject);
        amp_error_hint(&err, "it may have acted all the same: ask it what it did, or send again with the same key");
        break;
    }
    finish(call, NULL, &err);
}

static void on_timeout(void *ctx)
{
    struct env_call *call = ctx;
    struct amp_error err = {.code = AMP_OK};
    amp_error_set(&err, AMP_NO_ENV, "", "the environment did not answer on %s within %u ms", call->subject, (unsigned)call->timeout_ms);
    amp_error_hint(&err, "amesh check says how it is; it may have acted all the same");
    finish(call, NULL, &err);
}

enum amp_code env_call(struct loop *loop, struct bus *bus, const char *from, const Amp__EnvRequest *request, uint32_t timeout_ms,
                       void (*on_reply)(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err), void *ctx, struct env_call **ret)
{
    struct env_call *call = xcalloc(1, sizeof *call);
    call->inbox = bus_inbox_new(bus, on_inbox, call);
    call->timeout_ms = timeout_ms ? timeout_ms : ENV_TIMEOUT_MS;
    call->on_reply = on_reply;
    call->ctx = ctx;
    enum amp_code code = env_request_publish(call->inbox, from, request, call->subject);
    if (code != AMP_OK) {
        env_call_cancel(call);
        return code;
    }
    call->timer = loop_timer_new(loop, on_timeout, call);
    loop_timer_set(call->timer, call->timeout_ms);
    if (ret) {
        *ret = call;
    }
    return AMP_OK;
}

void env_call_cancel(struct env_call *call)
{
    if (!call) {
        return;
    }
    bus_inbox_free(call->inbox);
    loop_timer_free(call->timer);
    free(call);
}
