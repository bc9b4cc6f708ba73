#include "env/fence.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SILENCE_MS 250u /* a connection that was killed may still be in the server's books: nobody answers there */
#define SILENCES_MAX 3u
#define EVERY_MS 1000u  /* while it serves */

struct fence {
    struct loop *loop;
    struct bus *bus;
    const struct fence_handlers *handlers;
    void *ctx;
    char name[AMP_NAME_MAX + 1], instance[AMP_ID_SIZE], host[65], subject[AMP_SUBJECT_SIZE];
    int64_t since_unix_ms;
    struct bus_sub *sub; /* NULL: not clear yet */
    struct bus_inbox *asking;
    struct loop_timer *timer;
    unsigned silences;
    bool is_nobody;       /* what the timer is to act upon */
    struct amp_error rival;
};

static void answer(void *ctx, const struct bus_msg *msg)
{
    struct fence *fence = ctx;
    Amp__Beat beat = AMP__BEAT__INIT;
    Amp__Reply reply = AMP__REPLY__INIT;
    Amp__Timestamp since = AMP__TIMESTAMP__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    struct amp_buf wire;
    if (!msg->reply || !amp_subject_is_inbox(msg->reply)) {
        counter_add(COUNTER_malformed_refused, 1);
        return;
    }
    since.unix_ms = fence->since_unix_ms;
    beat.agent = fence->name;
    beat.instance = fence->instance;
    beat.host = fence->host;
    beat.since = &since;
    beat.has_sidecar_pid = true;
    beat.sidecar_pid = (int32_t)getpid();
    reply.beat = &beat;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.body_case = AMP__ENVELOPE__BODY_REPLY;
    envelope.reply = &reply;
    amp_buf_init(&wire, 4096);
    if (amp_encode(&envelope.base, AMP_PROTOBUF, &wire, NULL) == AMP_OK)
        (void)bus_publish(fence->bus, msg->reply, NULL, amp_buf_bytes(&wire)); /* not sent: it asks again */
    amp_buf_done(&wire);
}

static void clear(struct fence *fence)
{
    bus_inbox_free(fence->asking);
    fence->asking = NULL;
    fence->sub = bus_subscribe(fence->bus, fence->subject, NULL, answer, fence);
    loop_timer_set(fence->timer, EVERY_MS);
    fence->handlers->on_clear(fence->ctx);
}

/* Whoever is there before we are has the bus; of two that are, the one that began earlier. */
static bool must_leave(const struct fence *fence, const Amp__Beat *beat)
{
    int64_t since = beat->since ? beat->since->unix_ms : 0;
    if (strcmp(beat->instance, fence->instance) == 0)
        return false;
    if (!fence->sub || since != fence->since_unix_ms)
        return !fence->sub || since < fence->since_unix_ms;
    return strcmp(beat->instance, fence->instance) < 0;
}

/* Acted upon from the timer: who is told may close the bus, which may not be done under its callback. */
static void leave(struct fence *fence, const Amp__Beat *beat)
{
    amp_error_set(&fence->rival, AMP_RUNNING, "", "another environment serves this bus: pid %d on %s (%s)", (int)beat->sidecar_pid, beat->host ? beat->host : "an unknown host", beat->instance);
    amp_error_hint(&fence->rival, "a bus has one environment: stop that one first, or use a bus of your own (amesh up)");
    loop_timer_set(fence->timer, 0);
}

static void on_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct fence *fence = ctx;
    struct amp_arena arena;
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    (void)text;
    /* Forbidden by the server's permissions: then nobody could answer either. */
    if (!fence->sub && (kind == BUS_INBOX_NO_RESPONDERS || kind == BUS_INBOX_DENIED)) {
        fence->is_nobody = true;
        loop_timer_set(fence->timer, 0);
    }
    if (kind != BUS_INBOX_MSG)
        return;
    amp_arena_init(&arena, 1 << 20);
    if (amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_REPLY, &arena, &envelope, &encoding, NULL) != AMP_OK || !envelope->reply->beat)
        counter_add(COUNTER_malformed_refused, 1);
    else if (must_leave(fence, envelope->reply->beat))
        leave(fence, envelope->reply->beat);
    amp_arena_done(&arena);
}

static void ask(struct fence *fence)
{
    Amp__Ping ping = AMP__PING__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = fence->name;
    envelope.body_case = AMP__ENVELOPE__BODY_PING;
    envelope.ping = &ping;
    if (!fence->asking)
        fence->asking = bus_inbox_new(fence->bus, on_reply, fence);
    if (bus_envelope_request(fence->asking, fence->subject, &envelope) != AMP_OK)
        fence->silences = 0; /* the bus is away */
}

static void on_timer(void *ctx)
{
    struct fence *fence = ctx;
    if (fence->rival.code != AMP_OK) {
        struct amp_error err = fence->rival; /* it may be freed there */
        fence->handlers->on_rival(fence->ctx, &err);
    } else if (!fence->sub && (fence->is_nobody || fence->silences++ == SILENCES_MAX)) {
        clear(fence);
    } else {
        ask(fence);
        loop_timer_set(fence->timer, fence->sub ? EVERY_MS : SILENCE_MS);
    }
}

struct fence *fence_new(struct loop *loop, struct bus *bus, const char *name, const struct fence_handlers *handlers, void *ctx)
{
    struct fence *fence = xcalloc(1, sizeof *fence);
    fence->loop = loop;
    fence->bus = bus;
    fence->handlers = handlers;
    fence->ctx = ctx;
    fence->since_unix_ms = clock_unix_ms();
    amp_id_new('i', fence->since_unix_ms, fence->instance);
    memcpy(fence->name, name, strnlen(name, AMP_NAME_MAX));
    if (gethostname(fence->host, sizeof fence->host - 1) != 0)
        memcpy(fence->host, "unknown", sizeof "unknown");
    if (amp_subject_build(AMP_SUBJECT_FENCE, name, NULL, NULL, fence->subject, NULL) != AMP_OK)
        abort(); /* the name is an id */
    fence->timer = loop_timer_new(loop, on_timer, fence);
    loop_timer_set(fence->timer, 0);
    return fence;
}

void fence_free(struct fence *fence)
{
    if (!fence)
        return;
    bus_unsubscribe(fence->sub, false);
    bus_inbox_free(fence->asking);
    loop_timer_free(fence->timer);
    free(fence);
}
