#include "base/call_turn.h"

#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/counters.h"
#include "base/envcall_private.h"
#include "base/loop.h"

#include <stdio.h>

static void fill(const struct call *call, Amp__Wait *wait)
{
    amp__wait__init(wait);
    int64_t left = call->fsm.deadline_at == INT64_MAX ? 0 : call->fsm.deadline_at - loop_now_ms(call->loop);
    wait->task_id = call->task_id;
    wait->agent = call->skill ? NULL : call->agent;
    wait->skill = call->skill;
    wait->has_priority = call->priority != AMP__PRIORITY__PRIORITY_NORMAL;
    wait->priority = call->priority;
    wait->has_timeout_ms = left > 0;
    wait->timeout_ms = left > 0 ? (uint32_t)left : 0;
}

/* False: it is no turn of ours. */
static bool take_place(struct call *call, const Amp__Turn *turn)
{
    if (!turn->instance) {
        *call->turn_subject = *call->named = '\0';
        return true;
    }
    snprintf(call->named, sizeof call->named, "%.*s", AMP_NAME_MAX, turn->instance);
    return turn->agent && amp_subject_build(AMP_SUBJECT_REQ_INST, turn->agent, turn->instance, call->from, call->turn_subject, NULL) == AMP_OK;
}

static enum call_event_kind take_turn(struct call *call, const Amp__EnvReply *reply)
{
    const Amp__Turn *turn = reply->turn;
    if (!turn)
        return CALL_EV_NO_TURNS;
    if (turn->has_position) {
        call->is_queued = true;
        if (turn->has_about_ms)
            snprintf(call->load, sizeof call->load, "%u before it, about %u.%u s", (unsigned)turn->position - 1, (unsigned)turn->about_ms / 1000, (unsigned)turn->about_ms / 100 % 10);
        else
            snprintf(call->load, sizeof call->load, "%u before it", (unsigned)turn->position - 1);
        return CALL_EV_QUEUED;
    }
    call->is_queued = false;
    return take_place(call, turn) ? CALL_EV_TURN : CALL_EV_NO_TURNS;
}

static bool is_refusal(uint32_t code)
{
    return code == AMP_OVERLOADED || code == AMP_QUOTA || code == AMP_DEADLINE;
}

static void on_turn(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct call *call = ctx;
    (void)text; /* what the bus does not permit is done without */
    if (kind != BUS_INBOX_MSG) {
        call_feed(call, kind == BUS_INBOX_DOWN ? CALL_EV_BUS_DOWN : CALL_EV_NO_TURNS);
        return;
    }
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    enum call_event_kind event = CALL_EV_NO_TURNS;
    call_enter(call);
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_ENV_REPLY, &arena, &envelope, &encoding, NULL) != AMP_OK) {
        counter_add(COUNTER_malformed_refused, 1);
    } else if (envelope->env_reply->error) {
        call->error = envelope->env_reply->error;
        event = is_refusal(call->error->code) ? CALL_EV_TURN_REFUSED : CALL_EV_NO_TURNS;
    } else {
        event = take_turn(call, envelope->env_reply);
    }
    call_feed_event(call, (struct call_event){.kind = event, .is_named = *call->turn_subject != '\0'});
    call->error = NULL;
    call_leave(call);
    amp_arena_done(&arena);
}

enum amp_code call_turn_publish(struct call *call)
{
    Amp__Wait wait;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    if (!call->turn)
        call->turn = bus_inbox_new(call->bus, on_turn, call);
    fill(call, &wait);
    request.verb_case = AMP__ENV_REQUEST__VERB_WAIT;
    request.wait = &wait;
    return env_request_publish(call->turn, call->from, &request, call->wait_subject);
}

void call_turn_close(struct call *call)
{
    if (!call->turn)
        return;
    if (call->is_queued) {
        Amp__Wait wait;
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        fill(call, &wait);
        wait.has_withdraw = wait.withdraw = true;
        request.verb_case = AMP__ENV_REQUEST__VERB_WAIT;
        request.wait = &wait;
        (void)env_request_publish(call->turn, call->from, &request, call->wait_subject); /* lost: it is forgotten after a while */
    }
    call->is_queued = false;
    bus_inbox_free(call->turn);
    call->turn = NULL;
}
