/* Carries out what call_failover.c decides: keeps how an attempt failed, and begins the next one so that nothing of the one before reaches it. */
#include "base/call_private.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/call_retry.h"
#include "base/call_text.h"
#include "base/call_wary.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSED_MS 1000 /* who still has the task, from an attempt before, has been told to stop */

static uint8_t *pack(const ProtobufCMessage *message, size_t *ret_len)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = xcalloc(1, len + 1);
    *ret_len = protobuf_c_message_pack(message, packed);
    return packed;
}

static void avoid(struct call *call, const char *instance, int64_t refused_ms)
{
    size_t i = 0;
    while (i < call->n_avoid && strcmp(call->avoid[i].instance, instance) != 0)
        i++;
    if (!*instance || i == CALL_ATTEMPTS_MAX)
        return;
    call->n_avoid += i == call->n_avoid;
    call->avoid[i].refused_ms = refused_ms;
    snprintf(call->avoid[i].instance, sizeof call->avoid[i].instance, "%s", instance);
}

void call_again_refused(struct call *call)
{
    avoid(call, call->named, loop_now_ms(call->loop));
}

/* While the others are full, who failed before is as good as they, if it is free again; who still had the task is asked again after a while. */
static bool is_avoided(const struct call *call, const char *instance)
{
    for (size_t i = 0; i < call->n_avoid; i++)
        if (strcmp(call->avoid[i].instance, instance) == 0)
            return call->fsm.is_broken || (call->avoid[i].refused_ms && loop_now_ms(call->loop) - call->avoid[i].refused_ms < REFUSED_MS);
    return false;
}

/* The report of a death goes to who asked, and not with the request to the next one: it may be long. */
static void keep_cause(struct call *call, const Amp__Error *error)
{
    Amp__Error kept = *error;
    Amp__Death death = AMP__DEATH__INIT;
    if (error->death) {
        death = *error->death;
        death.n_stderr = death.n_tasks = 0;
        kept.death = &death;
    }
    free(call->cause);
    call->cause = pack(&kept.base, &call->cause_len);
}

void call_again_broken(struct call *call, enum call_why why)
{
    if (call->frame) {
        free(call->broken);
        call->broken = pack(&call->frame->base, &call->broken_len);
        keep_cause(call, call->frame->end->error);
    } else {
        struct call_names names = call_names_of(call);
        struct call_action end = {.kind = CALL_DO_END, .why = why, .phase = call->fsm.phase};
        struct amp_error err = {.code = AMP_OK};
        Amp__Error wire;
        call_text_end(&end, &names, &err);
        amp_error_to_wire(&err, &wire);
        keep_cause(call, &wire);
    }
    if (why != CALL_WHY_BUSY)
        avoid(call, *call->taken_instance ? call->taken_instance : call->fsm.is_turn ? call->named : "", 0);
    if (why == CALL_WHY_NO_ACK || why == CALL_WHY_HUNG) {
        counter_add(COUNTER_calls_unanswered, 1);
        wary_met(call->bus, call->skill ? call->skill : call->agent, call->skill != NULL, loop_now_ms(call->loop));
    }
}

static enum amp_code show(void *ctx, struct amp_bytes body)
{
    struct call *call = ctx;
    Amp__Event event = AMP__EVENT__INIT;
    Amp__Timestamp time = AMP__TIMESTAMP__INIT;
    Amp__Json json = AMP__JSON__INIT;
    time.unix_ms = clock_unix_ms();
    json.text = (ProtobufCBinaryData){.len = body.len, .data = (uint8_t *)body.data};
    event.time = &time;
    event.body = &json;
    call->seq_base = ++call->shown;
    call->handlers.on_event(call->ctx, call->shown, &event);
    return AMP_OK;
}

static void tell(struct call *call)
{
    struct amp_event_source source = {.task_id = call->task_id, .context_id = call->context_id, .now_unix_ms = clock_unix_ms()};
    const struct amp_event_sink sink = {.emit = show, .ctx = call};
    char text[RETRY_TEXT_SIZE], metadata[RETRY_METADATA_SIZE];
    Amp__Error *cause = amp__error__unpack(NULL, call->cause_len, call->cause);
    retry_tell(cause ? (enum amp_code)cause->code : AMP_INSTANCE_LOST, cause ? cause->death : NULL, call->fsm.attempt, text, metadata);
    if (cause)
        amp__error__free_unpacked(cause, NULL);
    (void)amp_event_status(&source, AMP__TASK_STATE__TASK_STATE_WORKING, text, metadata, &sink);
}

/* Inboxes of its own: who had it before may still be there, and say something. He is told by the bus that nobody listens (amp.md 5.5.4). */
void call_again_begin(struct call *call)
{
    counter_add(COUNTER_calls_retried, 1);
    call_io_renew(call);
    amp_stream_init(&call->stream);
    call->received_bytes = call->confirmed_bytes = 0;
    *call->taken_agent = *call->taken_instance = *call->ctl_subject = '\0';
    call->is_renewed = true;
    tell(call);
}

void call_again_fill(const struct call *call, Amp__Request *request, struct amp_arena *arena)
{
    if (!call->may_retry)
        return;
    request->has_attempt = true;
    request->attempt = call->fsm.attempt;
    request->has_may_retry = request->may_retry = call->fsm.retries > 0;
    request->cause = call->cause ? amp__error__unpack(&arena->allocator, call->cause_len, call->cause) : NULL;
}

void call_again_who(struct call *call, const Amp__Beat *beat, struct call_event *event)
{
    bool is_safe = beat->retry && strcmp(beat->retry, "safe") == 0 && (beat->retry_direct || call->is_retry_safe);
    event->is_once = call->skill || !is_safe; /* for who was asked by a skill no other agent can speak */
    if (is_avoided(call, beat->instance)) {
        event->who = CALL_WHO_AVOIDED;
    } else if (beat->state != AMP__INSTANCE_STATE__INSTANCE_STATE_UP || beat->free == 0) {
        event->who = CALL_WHO_FULL;
    } else if (amp_subject_build(AMP_SUBJECT_REQ_INST, beat->agent, beat->instance, call->from, call->turn_subject, NULL) == AMP_OK) {
        event->who = CALL_WHO_FREE;
        snprintf(call->named, sizeof call->named, "%s", beat->instance);
    }
}

void call_again_end(struct call *call, const struct call_action *end, struct amp_arena *arena, const Amp__Error **ret)
{
    const Amp__Frame *frame = end->why == CALL_WHY_BROKEN ? amp__frame__unpack(&arena->allocator, call->broken_len, call->broken) : NULL;
    size_t n = frame ? retry_n_kept(frame) : 0;
    if (frame && n < frame->n_events)
        call->handlers.on_event(call->ctx, ++call->shown, frame->events[n]);
    *ret = frame && frame->end ? frame->end->error : NULL;
    if (!frame && end->phase == CALL_SEEKING && call->cause)
        *ret = amp__error__unpack(&arena->allocator, call->cause_len, call->cause);
}
