/* env_watch of envcall.h (amp.md 10.1): asks for the events from a number on, and asks again from the next number whenever the
 * environment falls silent, so that neither a lost connection nor a new environment loses or repeats an event. */
#include "base/envcall.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/counters.h"
#include "base/envcall_private.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WATCH_SILENCE_MS 8000u   /* a keep-alive of the environment (5 s), and so much more; who asks again for nothing disturbs nobody */
#define WATCH_FIRST_MS 3000u     /* the first frame comes at once */
#define WATCH_RETRY_MIN_MS 50u   /* nobody listens, or the bus is away */
#define WATCH_RETRY_MAX_MS 1000u

struct env_watch {
    struct loop *loop;
    struct bus *bus;
    struct loop_timer *timer;
    struct bus_inbox *inbox;
    char *from, *task_id;
    char subject[AMP_SUBJECT_SIZE];
    struct amp_stream stream;
    uint32_t timeout_ms, retry_ms;
    uint32_t attempt; /* the last that was told as taken */
    int64_t heard_ms; /* last frame, or the start */
    bool is_bus_away; /* why the last attempt failed */
    bool is_asking;   /* and nothing came yet */
    bool is_away;     /* that was told */
    bool is_held;
    struct env_watch_handlers handlers;
    void *ctx;
    unsigned in_callback;
    bool is_ended, is_dead;
};

static void on_inbox(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text);

static void enter(struct env_watch *watch)
{
    watch->in_callback++;
}

static void release(struct env_watch *watch)
{
    free(watch->from);
    free(watch->task_id);
    free(watch);
}

static void leave(struct env_watch *watch)
{
    if (--watch->in_callback == 0 && watch->is_dead) {
        release(watch);
    }
}

static void close_bus(struct env_watch *watch)
{
    bus_inbox_free(watch->inbox);
    watch->inbox = NULL;
    loop_timer_free(watch->timer);
    watch->timer = NULL;
}

void env_watch_free(struct env_watch *watch)
{
    if (!watch || watch->is_dead) {
        return;
    }
    watch->is_dead = true;
    close_bus(watch);
    if (watch->in_callback == 0) {
        release(watch);
    }
}

static void finish(struct env_watch *watch, const struct amp_error *err, const Amp__Error *wire)
{
    watch->is_ended = true;
    close_bus(watch);
    watch->handlers.on_end(watch->ctx, err, wire);
}

/* The environment learns from the server that nobody listens, and forgets it. */
static void stop_listening(struct env_watch *watch)
{
    bus_inbox_free(watch->inbox);
    watch->inbox = NULL;
    watch->is_asking = false;
    loop_timer_stop(watch->timer);
}

void env_watch_hold(struct env_watch *watch, bool is_held)
{
    if (watch->is_dead || watch->is_ended || watch->is_held == is_held) {
        return;
    }
    watch->is_held = is_held;
    watch->heard_ms = loop_now_ms(watch->loop);
    if (!is_held) {
        loop_timer_set(watch->timer, 0);
    } else if (watch->in_callback == 0) {
        stop_listening(watch);
    }
}

/* What is left of the patience for silence; UINT32_MAX: no end to it. */
static uint32_t patience(const struct env_watch *watch)
{
    if (watch->timeout_ms == 0) {
        return UINT32_MAX;
    }
    int64_t left = watch->heard_ms + watch->timeout_ms - loop_now_ms(watch->loop);
    return left > 0 ? (uint32_t)left : 0;
}

static void set_timer(struct env_watch *watch, uint32_t in_ms)
{
    uint32_t left = patience(watch);
    loop_timer_set(watch->timer, in_ms < left ? in_ms : left);
}

static void say_away(struct env_watch *watch, const char *why)
{
    if (watch->is_away)
        return;
    watch->is_away = true;
    if (watch->handlers.on_away)
        watch->handlers.on_away(watch->ctx, why);
}

static void say_back(struct env_watch *watch)
{
    if (watch->is_away && watch->handlers.on_back)
        watch->handlers.on_back(watch->ctx);
    watch->is_away = false;
}

static void say_why(struct env_watch *watch)
{
    say_away(watch, watch->is_bus_away ? "the bus is away" : "no environment is there");
}

static void retry_later(struct env_watch *watch)
{
    watch->is_asking = false;
    set_timer(watch, watch->retry_ms);
    watch->retry_ms = watch->retry_ms * 2 < WATCH_RETRY_MAX_MS ? watch->retry_ms * 2 : WATCH_RETRY_MAX_MS;
}

/* A new inbox each time: what an earlier answer still sends is not for us any more. */
static enum amp_code ask(struct env_watch *watch)
{
    bus_inbox_free(watch->inbox);
    watch->inbox = bus_inbox_new(watch->bus, on_inbox, watch);
    Amp__Watch body = AMP__WATCH__INIT;
    body.id = watch->task_id;
    body.has_from_seq = true;
    body.from_seq = watch->stream.next;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    request.verb_case = AMP__ENV_REQUEST__VERB_WATCH;
    request.watch = &body;
    enum amp_code code = env_request_publish(watch->inbox, watch->from, &request, watch->subject);
    watch->is_bus_away = code == AMP_NO_BUS;
    if (code == AMP_OK) {
        watch->is_asking = true;
        set_timer(watch, WATCH_FIRST_MS);
    } else {
        retry_later(watch);
    }
    if (watch->is_bus_away)
        say_why(watch);
    return code;
}

static void ask_or_end(struct env_watch *watch)
{
    enum amp_code code = ask(watch);
    if (code == AMP_OK || code == AMP_NO_BUS || code == AMP_OVERLOADED) {
        return;
    }
    struct amp_error err = {.code = AMP_OK};
    amp_error_set(&err, code, "", "task %s cannot be watched: %s", watch->task_id, amp_code_info(code)->text);
    finish(watch, &err, NULL);
}

static void on_timer(void *ctx)
{
    struct env_watch *watch = ctx;
    enter(watch);
    if (patience(watch) == 0) {
        struct amp_error err = {.code = AMP_OK};
        amp_error_set(&err, AMP_NO_ENV, "", "%s for %u ms while task %s was watched", watch->is_bus_away ? "the bus was away" : "no environment answered",
                      (unsigned)watch->timeout_ms, watch->task_id);
        amp_error_hint(&err, "`amesh task watch %s --from %u` goes on from here", watch->task_id, (unsigned)watch->stream.next);
        finish(watch, &err, NULL);
    } else {
        if (watch->is_asking)
            say_away(watch, "the environment does not answer");
        ask_or_end(watch);
    }
    leave(watch);
}

static void say_taken(struct env_watch *watch, const Amp__Frame *frame)
{
    bool is_taken = frame->instance != NULL && frame->instance[0] != '\0' && frame->agent != NULL;
    if (!is_taken || frame->attempt == watch->attempt)
        return;
    watch->attempt = frame->attempt;
    if (watch->handlers.on_taken)
        watch->handlers.on_taken(watch->ctx, frame->agent, frame->instance);
}

static void take_frame(struct env_watch *watch, const Amp__Frame *frame)
{
    if (strcmp(frame->task_id, watch->task_id) != 0) {
        counter_add(COUNTER_malformed_refused, 1);
        return;
    }
    uint32_t skip;
    struct amp_error err = {.code = AMP_OK};
    struct amp_stream stream = watch->stream;
    enum amp_code code = amp_stream_take(&watch->stream, frame, &skip, &err);
    if (code == AMP_FRAMES_LOST && frame->seq > stream.next) {
        watch->stream = stream; /* the environment has them: ask it again, but not as fast as it can send gaps */
        bus_inbox_free(watch->inbox);
        watch->inbox = NULL;
        retry_later(watch);
        return;
    }
    if (code != AMP_OK) {
        finish(watch, &err, NULL);
        return;
    }
    watch->heard_ms = loop_now_ms(watch->loop);
    watch->retry_ms = WATCH_RETRY_MIN_MS;
    watch->is_asking = false;
    set_timer(watch, WATCH_SILENCE_MS);
    say_back(watch);
    if (frame->n_events > skip)
        say_taken(watch, frame);
    for (size_t i = skip; i < frame->n_events && !watch->is_dead; i++) {
        watch->handlers.on_event(watch->ctx, frame->seq + (uint32_t)i, frame->events[i]);
    }
    if (watch->stream.is_ended && !watch->is_dead) {
        const Amp__Error *wire = frame->end ? frame->end->error : NULL;
        if (wire) {
            amp_error_from_wire(&err, wire);
        }
        finish(watch, &err, wire);
    }
    if (watch->is_held && !watch->is_dead && !watch->is_ended) {
        stop_listening(watch);
    }
}

static void take_message(struct env_watch *watch, const struct bus_msg *msg)
{
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    uint32_t allowed = 1u << AMP__ENVELOPE__BODY_FRAME | 1u << AMP__ENVELOPE__BODY_ENV_REPLY;
    struct amp_error err = {.code = AMP_OK}, malformed;
    if (amp_envelope_decode(msg->data, allowed, &arena, &envelope, &encoding, &malformed) != AMP_OK) {
        counter_add(COUNTER_malformed_refused, 1);
        amp_error_set(&err, AMP_BAD_ANSWER, "", "the environment's answer is none: %s: %s", malformed.field, malformed.message);
        finish(watch, &err, NULL);
    } else if (envelope->body_case == AMP__ENVELOPE__BODY_FRAME) {
        take_frame(watch, envelope->frame);
    } else if (envelope->env_reply->error) {
        amp_error_from_wire(&err, envelope->env_reply->error);
        finish(watch, &err, envelope->env_reply->error);
    } /* an EnvReply without an error: it heard us, frames follow */
    amp_arena_done(&arena);
}

static void on_inbox(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct env_watch *watch = ctx;
    struct amp_error err = {.code = AMP_OK};
    enter(watch);
    switch (kind) {
    case BUS_INBOX_MSG:
        take_message(watch, msg);
        break;
    case BUS_INBOX_DENIED:
        env_error_denied(&err, watch->subject, text);
        finish(watch, &err, NULL);
        break;
    case BUS_INBOX_NO_RESPONDERS:
        watch->is_bus_away = false;
        retry_later(watch);
        say_why(watch);
        break;
    case BUS_INBOX_DOWN:
        watch->is_bus_away = true;
        retry_later(watch);
        say_why(watch);
        break;
    }
    leave(watch);
}

enum amp_code env_watch_start(struct loop *loop, struct bus *bus, const char *from, const char *task_id, uint32_t from_seq, uint32_t timeout_ms,
                              const struct env_watch_handlers *handlers, void *ctx, struct env_watch **ret)
{
    if (!amp_id_is_valid(from) || !amp_id_is_valid(task_id)) {
        return AMP_INVALID;
    }
    struct env_watch *watch = xcalloc(1, sizeof *watch);
    watch->loop = loop;
    watch->bus = bus;
    watch->from = xstrdup(from);
    watch->task_id = xstrdup(task_id);
    watch->timeout_ms = timeout_ms;
    watch->retry_ms = WATCH_RETRY_MIN_MS;
    watch->heard_ms = loop_now_ms(loop);
    watch->handlers = *handlers;
    watch->ctx = ctx;
    amp_stream_init(&watch->stream);
    watch->stream.next = from_seq ? from_seq : 1;
    watch->timer = loop_timer_new(loop, on_timer, watch);
    enum amp_code code = ask(watch);
    if (code != AMP_OK && code != AMP_NO_BUS && code != AMP_OVERLOADED) {
        env_watch_free(watch);
        return code;
    }
    *ret = watch;
    return AMP_OK;
}
