#include "caller.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bus.h"

/* ---- the caller's side --------------------------------------------------------------------------------------- */

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct caller *caller = ctx;
    assert_true(caller->events < 64);
    assert_non_null(event->body);
    caller->seqs[caller->events++] = seq;
    if (caller->is_freed_in_event) {
        call_free(caller->call);
        caller->call = NULL;
    }
    world_touch(&caller->world);
}

static void on_taken(void *ctx, const char *agent, const char *instance)
{
    struct caller *caller = ctx;
    caller->taken++;
    snprintf(caller->instance, sizeof caller->instance, "%s/%s", agent, instance);
    world_touch(&caller->world);
}

static void on_waiting(void *ctx, const char *reason)
{
    struct caller *caller = ctx;
    caller->waits++;
    snprintf(caller->reason, sizeof caller->reason, "%s", reason);
    world_touch(&caller->world);
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct caller *caller = ctx;
    caller->ends++;
    caller->err = *err;
    caller->has_wire = wire != NULL;
    call_free(caller->call);
    caller->call = NULL;
    world_touch(&caller->world);
}

const struct call_handlers caller_handlers = {.on_event = on_event, .on_taken = on_taken, .on_waiting = on_waiting, .on_end = on_end};

struct call_options caller_options(void)
{
    static Amp__Part part;
    static Amp__Part *parts[] = {&part};
    static Amp__Message message;
    amp__part__init(&part);
    part.text = (char *)"hello";
    amp__message__init(&message);
    message.message_id = (char *)"m-1";
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.parts = parts;
    message.n_parts = 1;
    return (struct call_options){.agent = "up", .from = "tester", .task_id = TASK, .context_id = "c-1", .message = &message, .attempt = 1};
}

void caller_start(struct caller *caller, const struct call_options *options)
{
    struct amp_error err = {.code = AMP_OK};
    if (call_start(caller->world.loop, caller->world.near, options, &caller_handlers, caller, &caller->call, &err) != AMP_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(caller->ends, 0);
}

void caller_wait_end(struct caller *caller, enum amp_code code)
{
    world_wait(&caller->world, &caller->ends, 1);
    if (caller->err.code != code) {
        fail_msg("ended with %d (%s), wanted %d", caller->err.code, caller->err.message, code);
    }
}

/* ---- the callee's side ----------------------------------------------------------------------------------------- */

void caller_send_frame(struct caller *caller, uint32_t seq, uint32_t n, int64_t end_count)
{
    struct world_frame frame = {.task = TASK, .agent = "up", .instance = "i-1", .seq = seq, .n = n, .end_count = end_count};
    world_send_frame(caller->world.far, caller->inbox, &frame);
}

static void on_request(void *ctx, const struct bus_msg *msg)
{
    struct caller *caller = ctx;
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Envelope *envelope = world_decode(msg->data, &arena);
    assert_int_equal(envelope->body_case, AMP__ENVELOPE__BODY_REQUEST);
    assert_true(amp_subject_is_inbox(msg->reply));
    snprintf(caller->inbox, sizeof caller->inbox, "%s", msg->reply);
    if (caller->requests < 8) {
        caller->timeouts[caller->requests] = envelope->request->timeout_ms;
    }
    caller->requests++;
    if (caller->bounces_left > 0) {
        caller->bounces_left--;
        world_send_reply(caller->world.far, msg->reply, caller->bounce ? caller->bounce : AMP_BUSY, "full");
    } else if (caller->refusal != AMP_OK) {
        world_send_reply(caller->world.far, msg->reply, caller->refusal, "not now");
    } else if (caller->on_request) {
        caller->on_request(caller, envelope->request);
    }
    amp_arena_done(&arena);
    world_touch(&caller->world);
}

static void on_who(void *ctx, const struct bus_msg *msg)
{
    struct caller *caller = ctx;
    caller->asked++;
    world_send_beat(caller->world.far, msg->reply, "up", "i-1", 2, 0);
    world_touch(&caller->world);
}

static void on_control(void *ctx, const struct bus_msg *msg)
{
    struct caller *caller = ctx;
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    const Amp__Control *control = world_decode(msg->data, &arena)->control;
    caller->last_control = control->kind_case;
    if (control->kind_case == AMP__CONTROL__KIND_CANCEL) {
        snprintf(caller->cancel_reason, sizeof caller->cancel_reason, "%s", control->cancel->reason ? control->cancel->reason : "");
    } else if (control->kind_case == AMP__CONTROL__KIND_ANSWER) {
        snprintf(caller->input_id, sizeof caller->input_id, "%s", control->answer->input_id);
    }
    if (control->kind_case != AMP__CONTROL__KIND_ATTACH) {
        world_send_reply(caller->world.far, msg->reply, caller->pong, "no such task");
    } else if (caller->on_attach) {
        caller->on_attach(caller, control->attach);
    } else {
        world_send_reply(caller->world.far, msg->reply, AMP_FRAMES_LOST, "not kept");
    }
    amp_arena_done(&arena);
    caller->controls++;
    world_touch(&caller->world);
}

void caller_listen(struct caller *caller)
{
    caller->req = bus_subscribe(caller->world.far, "amp.req.up.*", AMP_QUEUE_GROUP, on_request, caller);
    world_settle(&caller->world, caller->world.far);
}

void caller_begin(struct caller *caller, bool has_requests)
{
    memset(caller, 0, sizeof *caller);
    world_begin(&caller->world, NULL);
    caller->who = bus_subscribe(caller->world.far, "amp.who.up", AMP_QUEUE_GROUP, on_who, caller);
    caller->ctl = bus_subscribe(caller->world.far, "amp.ctl.i-1.*", NULL, on_control, caller);
    if (has_requests) {
        caller_listen(caller);
    }
    world_settle(&caller->world, caller->world.far);
}

void caller_end(struct caller *caller)
{
    call_free(caller->call);
    bus_unsubscribe(caller->req, false);
    bus_unsubscribe(caller->who, false);
    bus_unsubscribe(caller->ctl, false);
    world_settle(&caller->world, caller->world.far);
    world_end(&caller->world);
}

void caller_take(struct caller *caller, const Amp__Request *request)
{
    caller_send_frame(caller, 1, 0, -1);
}

void caller_finish(struct caller *caller, const Amp__Request *request)
{
    caller_send_frame(caller, 1, 1, 1);
}
