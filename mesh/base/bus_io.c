/* Turns of the bus: read, deliver, write; subscriptions and inboxes.
 *
 * Leaving without loss: natsSubscription_Unsubscribe would make nats.c throw away what is on its way. So the server alone is told, and the
 * subscription is polled until a message that we sent to ourselves after the UNSUB (the fence) has come back: the server handles what one
 * connection sends in order, so nothing can follow it. One fence is under way at a time and serves all that left before it. */
#include "base/bus_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/hook.h"
#include "base/log.h"
#include "base/loop.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bus_io_silence(struct bus *bus)
{
    struct bus_sub *sub;
    TAILQ_FOREACH(sub, &bus->subs, entry)
        if (sub->is_leaving)
            sub->on_msg = NULL;
}

/* ---- writing ------------------------------------------------------------------------------------------ */

/* nats.c would pass on a line break, which is a second command to the server. */
static bool is_subject(const char *subject)
{
    size_t len = strcspn(subject, " \t\r\n");
    return len > 0 && subject[len] == '\0';
}

static enum amp_code refuse(enum amp_code code)
{
    counter_add(COUNTER_bus_refused, 1);
    return code;
}

enum amp_code bus_publish(struct bus *bus, const char *subject, const char *reply, struct amp_bytes data)
{
    if (!is_subject(subject) || (reply && !is_subject(reply)))
        return refuse(AMP_INVALID);
    if (!bus->link)
        return refuse(AMP_NO_BUS);
    if (bus->info.payload_max && data.len > bus->info.payload_max)
        return refuse(AMP_TOO_LARGE);
    if (bus->out_bytes + data.len > (data.len > BUS_SHORT_BYTES_MAX ? BUS_OUT_BYTES_MAX - BUS_OUT_KEPT : BUS_OUT_BYTES_MAX))
        return refuse(AMP_OVERLOADED);
    natsConnection *nats = bus->link->nats;
    natsStatus status = reply ? natsConnection_PublishRequest(nats, subject, reply, data.data, (int)data.len)
                              : natsConnection_Publish(nats, subject, data.data, (int)data.len);
    if (status != NATS_OK) {
        loop_tick_request(bus->tick); /* looks whether the link is alive */
        return refuse(status == NATS_MAX_PAYLOAD ? AMP_TOO_LARGE : AMP_NO_BUS);
    }
    loop_tick_request(bus->tick); /* nats.c asks for it once, and that may have been for what has time */
    size_t len = data.len + strlen(subject) + 32;
    bus->out_bytes += len;
    bus->handed_bytes += len;
    counter_add(COUNTER_bus_messages_out, 1);
    counter_add(COUNTER_bus_bytes_out, data.len);
    return AMP_OK;
}

static void send_fence(struct bus *bus)
{
    if (bus->fence_asked == bus->fence_sent || bus->fence_sent != bus->fence_seen)
        return;
    if (natsConnection_Publish(bus->link->nats, bus->fence_subject, &bus->fence_asked, sizeof bus->fence_asked) == NATS_OK)
        bus->fence_sent = bus->fence_asked;
}

void bus_io_flush(struct bus *bus)
{
    if (!bus->link)
        return;
    send_fence(bus);
    int waiting = natsConnection_Buffered(bus->link->nats);
    if (waiting > 0) {
        natsConnection_ProcessWriteEvent(bus->link->nats);
        waiting = natsConnection_Buffered(bus->link->nats);
        hook_at(HOOK_bus_flushed);
    }
    bus->out_bytes = waiting > 0 ? (size_t)waiting : 0;
    loop_io_want(bus->io, waiting > 0 ? LOOP_READ | LOOP_WRITE : LOOP_READ);
}

/* ---- subscriptions ------------------------------------------------------------------------------------ */

static natsSubscription *subscribe(struct bus *bus, const char *subject, const char *queue)
{
    natsSubscription *sub = NULL;
    natsStatus status = queue ? natsConnection_QueueSubscribeSync(&sub, bus->link->nats, subject, queue)
                              : natsConnection_SubscribeSync(&sub, bus->link->nats, subject);
    assert(status != NATS_INVALID_SUBJECT && status != NATS_NO_MEMORY);
    /* What one read brought is delivered before the next, so the list cannot grow; the limit would only drop. */
    if (sub)
        natsSubscription_SetPendingLimits(sub, -1, -1);
    loop_tick_request(bus->tick);
    return sub; /* NULL: the link is lost, which bus_check sees */
}

struct bus_sub *bus_subscribe(struct bus *bus, const char *subject, const char *queue,
                              void (*on_msg)(void *ctx, const struct bus_msg *msg), void *ctx)
{
    assert(is_subject(subject) && (!queue || is_subject(queue)));
    struct bus_sub *sub = xcalloc(1, sizeof *sub);
    sub->bus = bus;
    sub->subject = xstrdup(subject);
    sub->queue = queue ? xstrdup(queue) : NULL;
    sub->on_msg = on_msg;
    sub->ctx = ctx;
    if (bus->link)
        sub->nats = subscribe(bus, subject, queue);
    TAILQ_INSERT_TAIL(&bus->subs, sub, entry);
    return sub;
}

static void sub_free(struct bus_sub *sub)
{
    struct bus *bus = sub->bus;
    if (bus->sub_next == sub)
        bus->sub_next = TAILQ_NEXT(sub, entry);
    if (bus->polled == sub)
        bus->polled = NULL;
    TAILQ_REMOVE(&bus->subs, sub, entry);
    natsSubscription_Destroy(sub->nats);
    free(sub->subject);
    free(sub->queue);
    free(sub);
}

void bus_unsubscribe(struct bus_sub *sub, bool deliver_pending)
{
    if (!sub)
        return;
    struct bus *bus = sub->bus;
    assert(!sub->is_leaving);
    if (!deliver_pending)
        sub->on_msg = NULL;
    /* Not documented: -1 sends UNSUB and keeps the subscription. bus_test holds the library to it. */
    if (!sub->nats || natsSubscription_AutoUnsubscribe(sub->nats, -1) != NATS_OK) {
        sub_free(sub);
        return;
    }
    sub->is_leaving = true;
    sub->fence = ++bus->fence_asked;
    loop_tick_request(bus->tick);
}

bool bus_is_leaving(const struct bus *bus, const void *ctx)
{
    const struct bus_sub *sub;
    TAILQ_FOREACH(sub, &bus->subs, entry)
        if (sub->is_leaving && sub->on_msg && (!ctx || sub->ctx == ctx))
            return true;
    return false;
}

static void deliver(struct bus_sub *sub, natsMsg *nats)
{
    size_t len = (size_t)natsMsg_GetDataLength(nats);
    counter_add(COUNTER_bus_messages_in, 1);
    counter_add(COUNTER_bus_bytes_in, len);
    if (!sub->on_msg) {
        counter_add(COUNTER_bus_dropped, 1);
        return;
    }
    struct bus_msg msg = {.subject = natsMsg_GetSubject(nats),
                          .reply = natsMsg_GetReply(nats),
                          .data = {.data = (const uint8_t *)natsMsg_GetData(nats), .len = len}};
    sub->on_msg(sub->ctx, &msg);
}

/* False: nothing waits. *ret NULL: it was "no responders", of which the library keeps the subject to itself. The server sends it to the very subject that
 * the request named for its answers, but so can anybody who knows one that we are subscribed to: hence no wildcard stands for several inboxes. */
static bool pop(natsSubscription *sub, natsMsg **ret)
{
    int waiting = 0;
    *ret = NULL;
    /* NextMsg formats an error text when there is none. */
    if (!sub || natsSubscription_GetPending(sub, &waiting, NULL) != NATS_OK || waiting == 0)
        return false;
    natsStatus status = natsSubscription_NextMsg(ret, sub, 0);
    return status == NATS_OK || status == NATS_NO_RESPONDERS;
}

/* natsMsg_Destroy wakes the library's garbage thread whenever that sleeps: once for many instead of once for each message. What is kept is
 * little, and goes with the next ones or with the connection. */
static void spend(struct bus *bus, natsMsg *msg)
{
    if (!msg)
        return;
    bus->spent[bus->n_spent++] = msg;
    bus->spent_bytes += (size_t)natsMsg_GetDataLength(msg);
    if (bus->n_spent == BUS_SPENT_MAX || bus->spent_bytes > BUS_SPENT_BYTES_MAX)
        bus_io_release(bus);
}

void bus_io_release(struct bus *bus)
{
    for (unsigned i = 0; i < bus->n_spent; i++)
        natsMsg_Destroy(bus->spent[i]);
    bus->n_spent = 0;
    bus->spent_bytes = 0;
}

/* What one read brought may take long to answer. What was answered leaves meanwhile, and the socket is read for the server's word that it is there: else the library would take a busy loop
 * for a dead server, and everything under way would be lost with the connection. */
static void breathe(struct bus *bus)
{
    int64_t now = clock_mono_ms();
    if (!bus->link || now - bus->flushed_ms < BUS_BREATH_MS)
        return;
    bus_io_flush(bus);
    bus->flushed_ms = now;
    if (bus->link && now - bus->read_ms >= BUS_READ_MS && bus->n_reads < BUS_READS_MAX) {
        natsConnection_ProcessReadEvent(bus->link->nats);
        bus->read_ms = now;
        bus->n_reads++;
    }
}

static void poll_sub(struct bus_sub *sub)
{
    struct bus *bus = sub->bus;
    bus->polled = sub;
    natsMsg *msg;
    while (bus->polled && pop(sub->nats, &msg)) {
        bus->n_taken++;
        if (!msg)
            continue; /* answers only inboxes */
        deliver(sub, msg);
        spend(bus, msg);
        breathe(bus);
    }
    bus->polled = NULL;
}

static void walk_subs(struct bus *bus, void (*visit)(struct bus_sub *sub))
{
    for (struct bus_sub *sub = TAILQ_FIRST(&bus->subs); sub; sub = bus->sub_next) {
        bus->sub_next = TAILQ_NEXT(sub, entry);
        visit(sub);
    }
    bus->sub_next = NULL;
}

static void release_if_left(struct bus_sub *sub)
{
    struct bus *bus = sub->bus;
    if (!sub->is_leaving || sub->fence > bus->fence_seen)
        return;
    poll_sub(sub);
    sub_free(sub);
}

static void fence_came_back(struct bus *bus)
{
    bus->fence_seen = bus->fence_sent;
    walk_subs(bus, release_if_left);
    loop_tick_request(bus->tick); /* for the next one */
}

/* ---- inboxes ------------------------------------------------------------------------------------------ */

void bus_token(struct bus *bus, char ret[BUS_TOKEN_LEN + 1])
{
    if (bus->pool_left < BUS_TOKEN_LEN) {
        randombytes_buf(bus->pool, sizeof bus->pool);
        bus->pool_left = sizeof bus->pool;
    }
    for (int i = 0; i < BUS_TOKEN_LEN; i++)
        ret[i] = "abcdefghijklmnopqrstuvwxyz234567"[bus->pool[--bus->pool_left] & 31];
    ret[BUS_TOKEN_LEN] = '\0';
}

struct bus_inbox *bus_inbox_new(struct bus *bus,
                                void (*on_reply)(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text),
                                void *ctx)
{
    struct bus_inbox *inbox = spares_calloc(&bus->spare_inboxes, sizeof *inbox);
    char token[BUS_TOKEN_LEN + 1];
    bus_token(bus, token);
    snprintf(inbox->subject, sizeof inbox->subject, "%s.%s", bus->prefix, token);
    if (bus->link)
        inbox->nats = subscribe(bus, inbox->subject, NULL);
    inbox->bus = bus;
    inbox->serial = ++bus->inbox_serial;
    inbox->on_reply = on_reply;
    inbox->ctx = ctx;
    TAILQ_INSERT_TAIL(&bus->inboxes, inbox, entry);
    TAILQ_INSERT_HEAD(&bus->used, inbox, by_use);
    bus->n_inboxes++;
    return inbox;
}

const char *bus_inbox_subject(const struct bus_inbox *inbox)
{
    return inbox->subject;
}

static void forget_asked(struct bus_inbox *inbox)
{
    if (inbox->asked != inbox->asked_room)
        free(inbox->asked);
    inbox->asked = NULL;
}

static void remember_asked(struct bus_inbox *inbox, const char *subject)
{
    size_t size = strlen(subject) + 1;
    forget_asked(inbox);
    inbox->asked = size <= sizeof inbox->asked_room ? memcpy(inbox->asked_room, subject, size) : xstrdup(subject);
}

enum amp_code bus_inbox_request(struct bus_inbox *inbox, const char *subject, struct amp_bytes data)
{
    if (!inbox->asked || strcmp(inbox->asked, subject) != 0)
        remember_asked(inbox, subject);
    return bus_publish(inbox->bus, subject, inbox->subject, data);
}

/* Nobody waits for the server to know that an inbox is gone: its UNSUB goes with what is written next, most often the next call, instead of waking the server up for itself. */
static void destroy_patiently(struct bus *bus, natsSubscription *nats)
{
    if (bus->link)
        bus->link->is_patient = true;
    natsSubscription_Destroy(nats);
    if (!bus->link)
        return;
    bus->link->is_patient = false;
    if (!loop_timer_is_set(bus->leftovers))
        loop_timer_set(bus->leftovers, BUS_LEFTOVERS_MS);
}

void bus_inbox_free(struct bus_inbox *inbox)
{
    if (!inbox)
        return;
    struct bus *bus = inbox->bus;
    if (bus->inbox_next == inbox)
        bus->inbox_next = TAILQ_NEXT(inbox, entry);
    if (bus->inbox_polled == inbox)
        bus->inbox_polled = NULL;
    destroy_patiently(bus, inbox->nats);
    TAILQ_REMOVE(&bus->inboxes, inbox, entry);
    TAILQ_REMOVE(&bus->used, inbox, by_use);
    bus_find_lose(inbox);
    bus->n_inboxes--;
    forget_asked(inbox);
    spares_free(&bus->spare_inboxes, inbox);
}

/* Tells those that were open before, and (if `asked`) asked that subject. */
static void tell_inboxes(struct bus *bus, const char *asked, enum bus_inbox_kind kind, const char *text)
{
    uint64_t last = bus->inbox_serial;
    for (struct bus_inbox *inbox = TAILQ_FIRST(&bus->inboxes); inbox && inbox->serial <= last; inbox = bus->inbox_next) {
        bus->inbox_next = TAILQ_NEXT(inbox, entry);
        if (!asked || (inbox->asked && strcmp(inbox->asked, asked) == 0))
            inbox->on_reply(inbox->ctx, kind, NULL, text);
    }
    bus->inbox_next = NULL;
}

static void take_reply(struct bus_inbox *inbox, natsMsg *nats)
{
    counter_add(COUNTER_bus_messages_in, 1);
    if (!nats) {
        inbox->on_reply(inbox->ctx, BUS_INBOX_NO_RESPONDERS, NULL, NULL);
        return;
    }
    struct bus_msg msg = {.subject = natsMsg_GetSubject(nats),
                          .reply = natsMsg_GetReply(nats),
                          .data = {.data = (const uint8_t *)natsMsg_GetData(nats), .len = (size_t)natsMsg_GetDataLength(nats)}};
    counter_add(COUNTER_bus_bytes_in, msg.data.len);
    inbox->on_reply(inbox->ctx, BUS_INBOX_MSG, &msg, NULL);
}

static void poll_inbox(struct bus_inbox *inbox)
{
    struct bus *bus = inbox->bus;
    bus->inbox_polled = inbox;
    natsMsg *msg;
    while (bus->inbox_polled && pop(inbox->nats, &msg)) {
        bus->n_taken++;
        take_reply(inbox, msg);
        spend(bus, msg);
        breathe(bus);
    }
    bus->inbox_polled = NULL;
}

/* The oldest first, whichever had something first: what a call is told of its task comes before the answer to what it asked afterwards. */
static void poll_inboxes(struct bus *bus)
{
    struct bus_inbox *inbox;
    uint64_t n = bus_find_undelivered(bus);
    if (n > bus->n_inboxes / 8) {
        for (inbox = TAILQ_FIRST(&bus->inboxes); inbox; inbox = bus->inbox_next) {
            bus->inbox_next = TAILQ_NEXT(inbox, entry);
            poll_inbox(inbox);
        }
        bus->inbox_next = NULL;
        return;
    }
    bus_find(bus, n);
    while ((inbox = TAILQ_FIRST(&bus->found))) {
        bus_find_lose(inbox);
        TAILQ_REMOVE(&bus->used, inbox, by_use);
        TAILQ_INSERT_HEAD(&bus->used, inbox, by_use);
        poll_inbox(inbox);
    }
}

static void take_fence(struct bus *bus, natsMsg *nats)
{
    uint64_t fence;
    if (nats && natsMsg_GetDataLength(nats) == sizeof fence && memcmp(natsMsg_GetData(nats), &bus->fence_sent, sizeof fence) == 0)
        fence_came_back(bus);
}

/* ---- turns -------------------------------------------------------------------------------------------- */

static void deliver_all(struct bus *bus)
{
    walk_subs(bus, poll_sub);
    poll_inboxes(bus);
    natsMsg *msg;
    while (pop(bus->fence_sub, &msg)) {
        bus->n_taken++;
        take_fence(bus, msg);
        spend(bus, msg);
    }
}

void bus_io_read(struct bus *bus)
{
    natsConnection_ProcessReadEvent(bus->link->nats);
    bus->read_ms = bus->flushed_ms = clock_mono_ms();
    bus->n_reads = 0;
    unsigned n_reads;
    do {
        n_reads = bus->n_reads;
        deliver_all(bus);
    } while (bus->n_reads > n_reads); /* what was read meanwhile may be for those that had had their turn */
    uint64_t n_for_nobody = bus_find_undelivered(bus);
    bus->n_taken += n_for_nobody < UINT64_MAX ? n_for_nobody : 0;
}

void bus_io_up(struct bus *bus)
{
    bus->n_taken = 0;
    bus->fence_sub = subscribe(bus, bus->fence_subject, NULL);
    struct bus_sub *sub;
    TAILQ_FOREACH(sub, &bus->subs, entry)
        sub->nats = subscribe(bus, sub->subject, sub->queue);
    struct bus_inbox *inbox;
    TAILQ_FOREACH(inbox, &bus->inboxes, entry)
        inbox->nats = subscribe(bus, inbox->subject, NULL);
}

static void forget_sub(struct bus_sub *sub)
{
    natsSubscription_Destroy(sub->nats);
    sub->nats = NULL;
    sub->is_denial_said = false;
    if (sub->is_leaving)
        sub_free(sub);
}

void bus_io_drop(struct bus *bus)
{
    natsSubscription_Destroy(bus->fence_sub);
    bus->fence_sub = NULL;
    bus->fence_seen = bus->fence_sent = bus->fence_asked;
    bus->out_bytes = 0;
    walk_subs(bus, forget_sub);
    struct bus_inbox *inbox;
    TAILQ_FOREACH(inbox, &bus->inboxes, entry) {
        natsSubscription_Destroy(inbox->nats);
        inbox->nats = NULL;
    }
}

void bus_io_down(struct bus *bus)
{
    tell_inboxes(bus, NULL, BUS_INBOX_DOWN, "the connection to the bus was lost");
}

/* ---- errors of the server ------------------------------------------------------------------------------- */

/* `text` goes on with a subject, in quotes or not. */
static bool take_subject(const char *text, char *ret, size_t size)
{
    text += *text == '"';
    size_t len = strcspn(text, "\" ");
    if (len == 0 || len >= size)
        return false;
    memcpy(ret, text, len);
    ret[len] = '\0';
    return true;
}

static void denied_subscription(struct bus *bus, const char *subject, const char *text)
{
    struct bus_sub *sub;
    TAILQ_FOREACH(sub, &bus->subs, entry) {
        if (strcmp(sub->subject, subject) != 0)
            continue;
        if (sub->is_denial_said)
            return;
        sub->is_denial_said = true;
        break;
    }
    log_event(LOG_ERROR, "bus.subscription_denied", "subject", subject, "reason", text, NULL);
    if (sub && bus->options.on_denied)
        bus->options.on_denied(bus->options.ctx, subject);
}

/* An inbox on which no answer can come: whoever waits for one is told instead. */
static void deny_inbox(struct bus_inbox *inbox, const char *text)
{
    if (inbox)
        inbox->on_reply(inbox->ctx, BUS_INBOX_DENIED, NULL, text);
}

/* False: it is not an inbox of ours. */
static bool denied_inbox(struct bus *bus, const char *subject, const char *text)
{
    struct bus_inbox *inbox;
    size_t len = strlen(bus->prefix);
    if (strncmp(subject, bus->prefix, len) != 0 || subject[len] != '.')
        return false;
    TAILQ_FOREACH(inbox, &bus->inboxes, entry)
        if (strcmp(inbox->subject, subject) == 0)
            break;
    deny_inbox(inbox, text); /* NULL: it is gone by now */
    return true;
}

void bus_io_error(struct bus *bus, const char *text)
{
    static const char publish[] = "Permissions Violation for Publish to ";
    static const char reply[] = "Permissions Violation for Publish with Reply of ";
    static const char subscription[] = "Permissions Violation for Subscription to ";
    char subject[512];
    if (strncasecmp(text, publish, sizeof publish - 1) == 0 && take_subject(text + sizeof publish - 1, subject, sizeof subject)) {
        if (strcmp(subject, bus->fence_subject) == 0) {
            /* Told in its turn, like the fence itself. */
            fence_came_back(bus);
            return;
        }
        counter_add(COUNTER_bus_denied, 1);
        tell_inboxes(bus, subject, BUS_INBOX_DENIED, text);
        return;
    }
    counter_add(COUNTER_bus_denied, 1);
    if (strncasecmp(text, subscription, sizeof subscription - 1) == 0 &&
        take_subject(text + sizeof subscription - 1, subject, sizeof subject)) {
        if (!denied_inbox(bus, subject, text))
            denied_subscription(bus, subject, text);
    } else if (strncasecmp(text, reply, sizeof reply - 1) == 0 && take_subject(text + sizeof reply - 1, subject, sizeof subject)) {
        (void)denied_inbox(bus, subject, text);
    }
}
