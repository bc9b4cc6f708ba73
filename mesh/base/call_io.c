#include "base/call_private.h"

#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/call_retry.h"
#include "base/call_text.h"
#include "base/call_turn.h"
#include "base/counters.h"
#include "base/loop.h"
#include "base/name.h"
#include "base/scratch.h"

#include <stdio.h>
#include <string.h>

static void on_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text);
static void on_timer(void *ctx);

void call_io_open(struct call *call)
{
    call->timer = loop_timer_new(call->loop, on_timer, call);
    call->inbox = bus_inbox_new(call->bus, on_reply, call);
}

void call_io_renew(struct call *call)
{
    bus_inbox_free(call->inbox);
    bus_inbox_free(call->ctl);
    call->ctl = NULL;
    call->inbox = bus_inbox_new(call->bus, on_reply, call);
}

void call_io_close(struct call *call)
{
    call_turn_close(call);
    bus_inbox_free(call->inbox);
    bus_inbox_free(call->who);
    bus_inbox_free(call->ctl);
    call->inbox = call->who = call->ctl = NULL;
    loop_timer_free(call->timer);
    call->timer = NULL;
    call_wire_free(call);
}

struct call_names call_names_of(const struct call *call)
{
    return (struct call_names){
        .agent = call->agent,
        .skill = call->skill,
        .instance = call->instance,
        .task_id = call->task_id,
        .taken_agent = call->taken_agent,
        .taken_instance = call->taken_instance,
        .load = call->load,
        .detail = call->detail,
        .subject = call->denied ? call->denied : "",
        .given_ms = call->given_ms,
        .silent_ms = loop_now_ms(call->loop) - call->fsm.heard_at,
        .lease_ms = call->lease_ms,
    };
}

/* ---- actions -------------------------------------------------------------------------------------------- */

/* What is left of the caller's time shrinks while it waits for an instance; another attempt says that it is one. */
static enum amp_code renew_request(struct call *call)
{
    struct amp_arena *arena = scratch_take();
    ProtobufCMessage *message;
    enum amp_code code = amp_decode(&amp__envelope__descriptor, amp_buf_bytes(call->wire), arena, &message, NULL);
    if (code == AMP_OK) {
        int64_t left = call->fsm.deadline_at - loop_now_ms(call->loop);
        Amp__Request *request = ((Amp__Envelope *)message)->request;
        request->timeout_ms = !call->timeout_ms ? 0 : left > 0 ? (uint32_t)left : 1;
        request->given_ms = call->given_ms;
        request->has_given_ms = call->timeout_ms && request->given_ms != request->timeout_ms;
        call_again_fill(call, request, arena);
        amp_buf_reset(call->wire);
        code = amp_encode(message, AMP_PROTOBUF, call->wire, NULL);
    }
    scratch_give(arena);
    return code;
}

static enum amp_code publish_request(struct call *call)
{
    if (!call->wire)
        return AMP_INTERNAL; /* whoever has taken it has it */
    if ((call->was_sent && call->timeout_ms) || call->is_renewed) {
        enum amp_code code = renew_request(call);
        if (code != AMP_OK) {
            return code;
        }
    }
    call->was_sent = true;
    call->is_renewed = false;
    bool is_sent_there = call->fsm.is_turn && *call->turn_subject;
    return bus_inbox_request(call->inbox, is_sent_there ? call->turn_subject : call->subject, amp_buf_bytes(call->wire));
}

static void fill_ping(const struct call *call, Amp__Ping *ping)
{
    amp__ping__init(ping);
    ping->has_received_bytes = call->received_bytes > 0;
    ping->received_bytes = call->is_held ? call->confirmed_bytes : call->received_bytes;
    ping->committed = call->lease_ms ? call->committed : call->stream.next - 1; /* what came is ours to keep, or the environment's once it is written down */
    ping->has_committed = ping->committed > 0;
    ping->has_attached = call->n_attached > 0;
    ping->attached = call->n_attached;
    ping->has_epoch = call->epoch != 0;
    ping->epoch = call->epoch;
}

static enum amp_code publish_ping(struct call *call, struct bus_inbox *inbox, const char *subject)
{
    Amp__Ping ping;
    fill_ping(call, &ping);
    Amp__Control control = AMP__CONTROL__INIT;
    control.kind_case = AMP__CONTROL__KIND_PING;
    control.ping = &ping;
    return bus_control_request(inbox, subject, call->from, &control);
}

static void on_who_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text);
static void on_ctl_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text);

/* A named instance is asked itself: others of its agent would say "there", whether it is or not. */
static enum amp_code publish_who(struct call *call)
{
    if (!call->who) {
        call->who = bus_inbox_new(call->bus, on_who_reply, call);
    }
    if (call->instance) {
        return publish_ping(call, call->who, call->who_subject);
    }
    Amp__Ping ping = AMP__PING__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = call->from;
    envelope.body_case = AMP__ENVELOPE__BODY_PING;
    envelope.ping = &ping;
    return bus_envelope_request(call->who, call->who_subject, &envelope);
}

struct bus_inbox *call_ctl_inbox(struct call *call)
{
    if (!call->ctl) {
        call->ctl = bus_inbox_new(call->bus, on_ctl_reply, call);
    }
    return call->ctl;
}

static enum amp_code publish_cancel(struct call *call, enum call_why why)
{
    Amp__Cancel cancel = AMP__CANCEL__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &cancel;
    cancel.has_epoch = call->epoch != 0; /* late or twice, it must not end the attempt that comes next */
    cancel.epoch = why == CALL_WHY_CANCELED && !call->is_given_up ? call->epoch : call->epoch + 1; /* the task, or only this attempt of it */
    if (why == CALL_WHY_DEADLINE) {
        cancel.reason = (char *)"deadline";
    } else if (why == CALL_WHY_CANCELED) {
        cancel.reason = *call->cancel_reason ? call->cancel_reason : NULL;
    } else {
        cancel.reason = (char *)"the caller lost track of the task";
    }
    return bus_control_request(call_ctl_inbox(call), call->ctl_subject, call->from, &control);
}

/* The callee counts what it sends anew from here, and what was not confirmed as it was not dealt with goes on to count. */
static enum amp_code publish_attach(struct call *call)
{
    Amp__Attach attach = AMP__ATTACH__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    attach.epoch = call->epoch;
    attach.from_seq = call->stream.next;
    control.kind_case = AMP__CONTROL__KIND_ATTACH;
    control.attach = &attach;
    call->received_bytes = call->is_held ? call->received_bytes - call->confirmed_bytes : 0;
    call->confirmed_bytes = 0;
    attach.has_number = true;
    attach.number = ++call->n_attached;
    attach.has_unread_bytes = call->received_bytes > 0;
    attach.unread_bytes = call->received_bytes;
    counter_add(COUNTER_streams_resumed, 1);
    return bus_control_request(call->inbox, call->ctl_subject, call->from, &control);
}

void call_io_confirm(struct call *call)
{
    if (call->is_held || call->received_bytes - call->confirmed_bytes < call->window_bytes / 4)
        return;
    Amp__Ping ping;
    Amp__Control control = AMP__CONTROL__INIT;
    control.kind_case = AMP__CONTROL__KIND_PING;
    control.ping = &ping;
    fill_ping(call, &ping);
    if (bus_control_publish(call->bus, call->ctl_subject, call->from, &control) == AMP_OK)
        call->confirmed_bytes = call->received_bytes; /* else with the next frame or ping */
}

static void say_taken(struct call *call)
{
    call_turn_close(call);
    if (!call_fsm_may_retry(&call->fsm))
        call_wire_free(call); /* it is never sent again */
    if (call->handlers.on_taken) {
        call->handlers.on_taken(call->ctx, call->taken_agent, call->taken_instance);
    }
}

static void say_waiting(struct call *call, enum call_why why)
{
    if (!call->handlers.on_waiting) {
        return;
    }
    if (call->in_api > 0) {
        call->waiting_due = why;
        return;
    }
    call->waiting_due = CALL_WHY_NONE;
    struct call_names names = call_names_of(call);
    char reason[256];
    call_text_waiting(why, &names, reason, sizeof reason);
    call->handlers.on_waiting(call->ctx, reason);
}

static void deliver(struct call *call, bool is_broken)
{
    const Amp__Frame *frame = call->frame;
    size_t n = is_broken ? retry_n_kept(frame) : frame->n_events;
    for (size_t i = call->skip; i < n && !call->is_dead; i++) {
        call->shown = call->seq_base + frame->seq + (uint32_t)i;
        call->handlers.on_event(call->ctx, call->shown, frame->events[i]);
    }
    if (!call->is_dead && call->fsm.is_shown)
        call_wire_free(call);
}

static void finish(struct call *call, const struct call_action *end)
{
    struct amp_error err = {.code = AMP_OK};
    const Amp__Error *wire = NULL;
    struct amp_arena *arena = scratch_take();
    call_enter(call);
    if (end->why == CALL_WHY_STREAM || end->why == CALL_WHY_REPLY) {
        wire = call->error;
    } else {
        call_again_end(call, end, arena, &wire);
    }
    if (wire) {
        amp_error_from_wire(&err, wire);
    } else if (end->why != CALL_WHY_STREAM && end->why != CALL_WHY_REPLY) {
        struct call_names names = call_names_of(call);
        call_text_end(end, &names, &err);
    }
    if (err.code != AMP_OK && err.code != AMP_CANCELED) {
        counter_add(COUNTER_calls_failed, 1);
    }
    call_io_close(call);
    if (!call->is_dead)
        call->handlers.on_end(call->ctx, &err, wire);
    call_leave(call);
    scratch_give(arena);
}

static void end_call(struct call *call, const struct call_action *end)
{
    if (call->in_api == 0) {
        finish(call, end);
        return;
    }
    call->is_end_due = true;
    call->end = *end;
    loop_timer_set(call->timer, 0);
}

static enum amp_code carry_out(struct call *call, const struct call_action *action)
{
    switch (action->kind) {
    case CALL_DO_PUBLISH_REQUEST:
        return publish_request(call);
    case CALL_DO_PUBLISH_WHO:
        return publish_who(call);
    case CALL_DO_PUBLISH_WAIT:
        return call_turn_publish(call);
    case CALL_DO_PUBLISH_PING:
        return publish_ping(call, call_ctl_inbox(call), call->ctl_subject);
    case CALL_DO_PUBLISH_CANCEL:
        return publish_cancel(call, action->why);
    case CALL_DO_PUBLISH_ATTACH:
        return publish_attach(call);
    case CALL_DO_TAKEN:
        say_taken(call);
        break;
    case CALL_DO_DELIVER:
        deliver(call, action->why == CALL_WHY_BROKEN);
        break;
    case CALL_DO_BROKEN:
        call_again_broken(call, action->why);
        break;
    case CALL_DO_RETRY:
        call_again_begin(call);
        break;
    case CALL_DO_REFUSED:
        call_again_refused(call);
        break;
    case CALL_DO_SAY_WAITING:
        say_waiting(call, action->why);
        break;
    case CALL_DO_SET_TIMER:
        if (!call->is_end_due) {
            loop_timer_set(call->timer, action->in_ms);
        }
        break;
    case CALL_DO_END:
        end_call(call, action);
        break;
    }
    return AMP_OK;
}

void call_feed_event(struct call *call, struct call_event event)
{
    struct call_action actions[CALL_ACTIONS_MAX];
    size_t count = call_fsm_step(&call->fsm, &event, loop_now_ms(call->loop), actions);
    struct call_event failed = {.kind = CALL_EV_NOT_PUBLISHED};
    call_enter(call);
    for (size_t i = 0; i < count && !call->is_dead; i++) {
        enum amp_code code = carry_out(call, &actions[i]);
        if (code != AMP_OK) {
            failed.action = actions[i].kind;
            failed.code = code;
        }
    }
    /* After the loop: its timer must not replace the one that follows from the failure. */
    if (failed.code != AMP_OK && !call->is_dead) {
        call_feed_event(call, failed);
    }
    call_leave(call);
}

void call_feed(struct call *call, enum call_event_kind kind)
{
    call_feed_event(call, (struct call_event){.kind = kind});
}

/* ---- what the bus says ---------------------------------------------------------------------------------- */

static void bad_answer(struct call *call, const char *why)
{
    counter_add(COUNTER_malformed_refused, 1);
    snprintf(call->detail, sizeof call->detail, "%s", why);
    call_feed(call, CALL_EV_BAD_ANSWER);
}

/* Remembers who took it; false (and told) if this cannot be the answer to our request. */
static bool take_names(struct call *call, const Amp__Frame *frame)
{
    if (!frame->agent || !frame->instance || !amp_id_is_valid(frame->agent) || !amp_id_is_valid(frame->instance)) {
        bad_answer(call, "the first frame does not name its agent and instance");
        return false;
    }
    if ((call->agent && strcmp(call->agent, frame->agent) != 0) || (call->instance && strcmp(call->instance, frame->instance) != 0)) {
        bad_answer(call, "it came from another agent or instance");
        return false;
    }
    if (amp_subject_build(AMP_SUBJECT_CTL, frame->instance, call->task_id, NULL, call->ctl_subject, NULL) != AMP_OK) {
        bad_answer(call, "its instance has no subject");
        return false;
    }
    name_copy(call->taken_agent, frame->agent);
    name_copy(call->taken_instance, frame->instance);
    return true;
}

static struct call_event frame_event(const struct call *call, const Amp__Frame *frame)
{
    struct call_event event = {.kind = CALL_EV_FRAME, .is_last = call->stream.is_ended, .may_retry = frame->may_retry,
                               .is_old = frame->n_events > 0 && call->skip == frame->n_events && !frame->end};
    if (!call->may_retry || call->fsm.is_shown)
        return event;
    enum retry_kind kind = retry_kind_of(frame);
    event.is_broken = kind == RETRY_BROKEN;
    event.is_load = kind == RETRY_LOAD;
    for (size_t i = call->skip; kind == RETRY_NONE && i < frame->n_events; i++)
        event.is_shown |= !retry_is_quiet(frame->events[i]);
    return event;
}

static void take_frame(struct call *call, const Amp__Frame *frame, size_t size)
{
    if (strcmp(frame->task_id, call->task_id) != 0) {
        bad_answer(call, "a frame of another task");
        return;
    }
    bool is_stale = call->may_retry && frame->has_attempt && frame->attempt != call->fsm.attempt;
    if (is_stale || (call->epoch && frame->has_epoch && frame->epoch != call->epoch)) {
        counter_add(COUNTER_stale_frames, 1);
        return;
    }
    if (!*call->taken_instance) {
        if (!take_names(call, frame)) {
            return;
        }
    } else if (frame->instance && strcmp(frame->instance, call->taken_instance) != 0) {
        counter_add(COUNTER_malformed_refused, 1); /* not the one that works for us */
        return;
    }
    struct amp_error err = {.code = AMP_OK};
    enum amp_code code = amp_stream_take(&call->stream, frame, &call->skip, &err);
    if (code == AMP_OK) {
        call->frame = frame;
        call->error = frame->end ? frame->end->error : NULL;
        call->received_bytes += frame->n_events > 0 ? size : 0; /* amp.md 6.2.3 */
        call->detail[0] = '\0';
        call_feed_event(call, frame_event(call, frame));
        if (!call->is_dead && call->fsm.phase == CALL_TAKEN)
            call_io_confirm(call);
    } else if (code != AMP_TASK_ENDED) {
        snprintf(call->detail, sizeof call->detail, "%s", err.message);
        call_feed(call, CALL_EV_FRAME_GAP);
    }
}

static void take_reply(struct call *call, const Amp__Reply *reply)
{
    if (!reply->error) {
        bad_answer(call, "neither a frame nor an error");
    } else if (reply->error->code == AMP_BUSY || (reply->error->code == AMP_STOPPING && !call->instance)) {
        counter_add(COUNTER_calls_bounced, 1);
        call_feed(call, CALL_EV_BOUNCED);
    } else {
        call->error = reply->error;
        if (call->fsm.gap_since == INT64_MAX || !*call->detail) /* else it says what is missing */
            snprintf(call->detail, sizeof call->detail, "%s", reply->error->message ? reply->error->message : "");
        call_feed_event(call, (struct call_event){.kind = CALL_EV_REPLY_ERROR, .code = (enum amp_code)reply->error->code, .is_conflict = reply->error->code == AMP_CONFLICT});
    }
}

/* What all three inboxes have in common. True if it was that. */
static bool take_trouble(struct call *call, enum bus_inbox_kind kind, const char *subject, const char *text)
{
    if (kind == BUS_INBOX_DOWN) {
        call_feed(call, CALL_EV_BUS_DOWN);
        return true;
    }
    if (kind == BUS_INBOX_DENIED) {
        call->denied = subject;
        snprintf(call->detail, sizeof call->detail, "%s", text ? text : "permission denied");
        call_feed(call, CALL_EV_DENIED);
        return true;
    }
    return false;
}

static void on_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct call *call = ctx;
    if (take_trouble(call, kind, call->subject, text)) {
        return;
    }
    if (kind == BUS_INBOX_NO_RESPONDERS) {
        call_feed(call, CALL_EV_NO_RESPONDERS);
        return;
    }
    struct amp_arena *arena = scratch_take();
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    struct amp_error err = {.code = AMP_OK};
    call_enter(call);
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_FRAME | 1u << AMP__ENVELOPE__BODY_REPLY, arena, &envelope, &encoding, &err) != AMP_OK) {
        bad_answer(call, err.message);
    } else if (envelope->body_case == AMP__ENVELOPE__BODY_FRAME) {
        take_frame(call, envelope->frame, msg->data.len);
    } else {
        take_reply(call, envelope->reply);
    }
    call->frame = NULL;
    call->error = NULL;
    call_leave(call);
    scratch_give(arena);
}

static const char *state_text(Amp__InstanceState state)
{
    switch (state) {
    case AMP__INSTANCE_STATE__INSTANCE_STATE_STARTING:
        return ", starting";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING:
        return ", leaving";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING:
        return ", its agent is being restarted";
    default:
        return "";
    }
}

static void note_load(struct call *call, const Amp__Beat *beat)
{
    uint32_t free_slots = beat->free < beat->slots ? beat->free : beat->slots;
    snprintf(call->load, sizeof call->load, "%.30s: %u of %u slots taken%s", beat->instance, (unsigned)(beat->slots - free_slots),
             (unsigned)beat->slots, state_text(beat->state));
}

static void on_who_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct call *call = ctx;
    if (take_trouble(call, kind, call->who_subject, text)) {
        return;
    }
    if (kind == BUS_INBOX_NO_RESPONDERS) {
        call_feed(call, CALL_EV_WHO_NONE);
        return;
    }
    struct amp_arena *arena = scratch_take();
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    struct call_event event = {.kind = CALL_EV_WHO_THERE};
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_REPLY, arena, &envelope, &encoding, NULL) != AMP_OK) {
        counter_add(COUNTER_malformed_refused, 1); /* somebody is there all the same */
    } else if (envelope->reply->beat) {
        note_load(call, envelope->reply->beat);
        if (call->fsm.phase == CALL_SEEKING)
            call_again_who(call, envelope->reply->beat, &event);
    }
    scratch_give(arena);
    call_feed_event(call, event);
}

/* Pings and cancels are refused only as the task is gone, so this was an answer. */
static void say_refused(struct call *call, const Amp__Error *wire)
{
    struct amp_error err = {.code = AMP_OK};
    amp_error_from_wire(&err, wire);
    if (call->handlers.on_refused) {
        call->handlers.on_refused(call->ctx, &err);
    }
}

static void on_ctl_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct call *call = ctx;
    if (take_trouble(call, kind, call->ctl_subject, text)) {
        return;
    }
    if (kind == BUS_INBOX_NO_RESPONDERS) {
        call_feed(call, CALL_EV_PONG_NONE);
        return;
    }
    struct amp_arena *arena = scratch_take();
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    enum call_event_kind event = CALL_EV_PONG;
    call_enter(call);
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_REPLY, arena, &envelope, &encoding, NULL) != AMP_OK) {
        counter_add(COUNTER_malformed_refused, 1);
    } else if (envelope->reply->error) {
        uint32_t code = envelope->reply->error->code;
        event = code == AMP_NO_SUCH_TASK ? CALL_EV_PONG_UNKNOWN : code == AMP_TASK_ENDED ? CALL_EV_PONG_ENDED : CALL_EV_PONG;
        if (event == CALL_EV_PONG && code != AMP_OK)
            say_refused(call, envelope->reply->error);
    } else if (envelope->reply->has_sent && envelope->reply->sent >= call->stream.next) {
        event = CALL_EV_PONG_BEHIND;
    }
    scratch_give(arena);
    if (!call->is_dead)
        call_feed(call, event);
    call_leave(call);
}

static void on_timer(void *ctx)
{
    struct call *call = ctx;
    call_enter(call);
    if (call->is_end_due) {
        call->is_end_due = false;
        finish(call, &call->end);
    } else {
        if (call->waiting_due != CALL_WHY_NONE && call->fsm.phase == CALL_WAITING && !bus_is_up(call->bus)) {
            say_waiting(call, call->waiting_due);
        }
        if (!call->is_dead && call->fsm.is_down && bus_is_up(call->bus)) {
            call_feed(call, CALL_EV_BUS_UP);
        }
        if (!call->is_dead) {
            call_feed(call, CALL_EV_TIMER);
        }
    }
    call_leave(call);
}
