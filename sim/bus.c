/* base/bus.h without a network: one server, and per client a link of two ordered lanes. What a lane carries arrives in order, late, or, when the link breaks, not at all:
 * as over TCP. The server routes when a message arrives, by the subscriptions that it knows then; a queue group's member is chosen by chance. */
#include "bus_private.h"

#include "base/alloc.h"
#include "base/loop.h"
#include "sim.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define PAYLOAD_MAX (1u << 20)
#define LATENCY_LEAST_US 20u
#define LATENCY_MOST_US 400u
#define NOTICE_US 2500000      /* two pings without an answer */
#define RETRY_MOST_MS 2000u
#define FLUSH_US 500000        /* as BUS_FLUSH_MS */

static struct {
    bool is_up;
    uint64_t next;
    int64_t latest_us; /* arrival of all that is on its way */
    LIST_HEAD(, link) links;
} server;
/* ---- lanes -------------------------------------------------------------------------------------------------------- */

static void unref(struct link *link)
{
    if (--link->refs == 0 && !link->is_known && !link->bus)
        free(link);
}

static void op_free(struct op *op)
{
    unref(op->link);
    free(op->subject);
    free(op->other);
    free(op->via);
    free(op->data);
    free(op);
}

static struct op *op_new(enum kind kind, struct link *link, uint64_t sid, const char *subject, const char *other)
{
    struct op *op = xcalloc(1, sizeof *op);
    *op = (struct op){.kind = kind, .link = link, .sid = sid, .subject = subject ? xstrdup(subject) : NULL, .other = other ? xstrdup(other) : NULL};
    link->refs++;
    return op;
}

static void op_set_data(struct op *op, struct amp_bytes data)
{
    op->data = xcalloc(1, data.len + 1);
    if (data.len)
        memcpy(op->data, data.data, data.len);
    op->len = data.len;
}

struct weather weather;

static int64_t arrival(struct lane *lane)
{
    int64_t at_us = world_now_us() + world_between(LATENCY_LEAST_US, LATENCY_MOST_US);
    if (world_chance(2))
        at_us += world_below(20000);
    if (weather.jitter_us)
        at_us += world_below(weather.jitter_us);
    if (at_us < lane->stalled_until_us)
        at_us = lane->stalled_until_us + world_below(1000);
    if (at_us <= lane->last_us)
        at_us = lane->last_us + 1;
    if (at_us < server.latest_us)
        stat_add(STAT_reordered, 1);
    else
        server.latest_us = at_us;
    return lane->last_us = at_us;
}

static void at_server(void *ctx);
static void at_client(void *ctx);

static void op_drop(void *ctx) { op_free(ctx); }
static void send_up(struct op *op) { world_at_or_drop(arrival(&op->link->up), at_server, op_drop, op); }
static void send_down(struct op *op) { world_at_or_drop(arrival(&op->link->down), at_client, op_drop, op); }

/* ---- the server ------------------------------------------------------------------------------------------------------ */

static void remote_sub_free(struct remote_sub *sub)
{
    LIST_REMOVE(sub, entry);
    free(sub->subject);
    free(sub->queue);
    free(sub);
}

/* The server forgets a connection. */
static void link_forget(struct link *link)
{
    if (!link->is_known)
        return;
    while (!LIST_EMPTY(&link->subs))
        remote_sub_free(LIST_FIRST(&link->subs));
    LIST_REMOVE(link, entry);
    link->is_known = false;
    link->refs++;
    unref(link);
}

static void deliver(struct link *link, uint64_t sid, const struct op *from)
{
    bool is_doubled = world_chance(weather.doubled_percent);
    if (world_chance(weather.lost_percent)) {
        stat_add(STAT_messages_lost, 1);
        return;
    }
    for (int i = 0; i < 1 + is_doubled; i++) {
        struct op *op = op_new(OP_MSG, link, sid, from->subject, from->other);
        op_set_data(op, (struct amp_bytes){from->data, from->len});
        op->via = from->via ? xstrdup(from->via) : NULL;
        if (i == 0 || world_chance(50))
            send_down(op);
        else /* from some other place than the first */
            world_at_or_drop(world_now_us() + world_below(3000000), at_client, op_drop, op);
    }
    stat_add(STAT_messages_doubled, is_doubled);
}

/* One member of each group that matches; `seen` has the names of those that were served. */
static size_t route_group(const struct op *op, const char *queue)
{
    struct { struct link *link; uint64_t sid; } members[64];
    size_t n = 0;
    struct link *link;
    struct remote_sub *sub;
    LIST_FOREACH(link, &server.links, entry)
        LIST_FOREACH(sub, &link->subs, entry)
            if (sub->queue && n < 64 && strcmp(sub->queue, queue) == 0 && subject_matches(sub->subject, op->subject)) {
                members[n].link = link;
                members[n++].sid = sub->sid;
            }
    if (n == 0)
        return 0;
    size_t chosen = world_below((uint32_t)n);
    deliver(members[chosen].link, members[chosen].sid, op);
    return n;
}

/* Nearly all that are asked differ at the end of what stands before the first wildcard. */
static bool is_for(const struct remote_sub *sub, const char *subject, size_t len)
{
    return sub->plain <= len && (sub->plain == 0 || sub->subject[sub->plain - 1] == subject[sub->plain - 1]) && subject_matches(sub->subject, subject);
}

static size_t route(const struct op *op)
{
    const char *queues[16];
    size_t n = 0, n_queues = 0, len = strlen(op->subject);
    struct link *link;
    struct remote_sub *sub;
    LIST_FOREACH(link, &server.links, entry) {
        if (strncmp(op->subject, link->prefix, strlen(link->prefix)) == 0) {
            deliver(link, 0, op);
            n++;
        }
        bool is_echo = link == op->link && link->bus && link->bus->options.no_echo;
        LIST_FOREACH(sub, &link->subs, entry) {
            if (is_echo || !is_for(sub, op->subject, len))
                continue;
            size_t q = 0;
            while (sub->queue && q < n_queues && strcmp(queues[q], sub->queue) != 0)
                q++;
            if (!sub->queue)
                deliver(link, sub->sid, op);
            else if (q == n_queues && n_queues < 16)
                queues[n_queues++] = sub->queue;
            n++;
        }
    }
    for (size_t q = 0; q < n_queues; q++)
        (void)route_group(op, queues[q]);
    return n;
}

void server_say(const char *subject, const char *reply, const char *to, struct amp_bytes data)
{
    struct link *link;
    struct op op = {.kind = OP_PUB, .subject = (char *)subject, .other = (char *)reply, .via = strcmp(subject, to) == 0 ? NULL : (char *)to, .data = (uint8_t *)data.data, .len = data.len};
    LIST_FOREACH(link, &server.links, entry)
        if (strncmp(to, link->prefix, strlen(link->prefix)) == 0)
            deliver(link, 0, &op);
}

static void serve(struct op *op)
{
    struct remote_sub *sub;
    switch (op->kind) {
    case OP_SUB:
        sub = xcalloc(1, sizeof *sub);
        *sub = (struct remote_sub){.sid = op->sid, .subject = xstrdup(op->subject), .queue = op->other ? xstrdup(op->other) : NULL, .plain = strcspn(op->subject, "*>")};
        LIST_INSERT_HEAD(&op->link->subs, sub, entry);
        break;
    case OP_UNSUB:
        LIST_FOREACH(sub, &op->link->subs, entry)
            if (sub->sid == op->sid)
                break;
        if (sub)
            remote_sub_free(sub);
        send_down(op_new(OP_FENCE, op->link, op->sid, NULL, NULL));
        break;
    default:
        if (route(op) + stream_take(op->subject, op->other, (struct amp_bytes){op->data, op->len}) == 0 && op->other)
            send_down(op_new(OP_NOBODY, op->link, 0, op->other, NULL));
    }
}

static void at_server(void *ctx)
{
    struct op *op = ctx;
    if (server.is_up && op->link->is_known)
        serve(op);
    op_free(op);
}

/* ---- the client -------------------------------------------------------------------------------------------------------- */

static struct bus_sub *find_sub(struct bus *bus, uint64_t sid)
{
    struct bus_sub *sub;
    TAILQ_FOREACH(sub, &bus->subs, entry)
        if (sub->sid == sid)
            return sub;
    return NULL;
}

static void sub_free(struct bus_sub *sub)
{
    TAILQ_REMOVE(&sub->bus->subs, sub, entry);
    free(sub->subject);
    free(sub->queue);
    free(sub);
}

static struct bus_inbox *find_inbox(struct bus *bus, const char *subject)
{
    struct bus_inbox *inbox;
    TAILQ_FOREACH(inbox, &bus->inboxes, entry)
        if (strcmp(inbox->subject, subject) == 0)
            return inbox;
    return NULL;
}

static void hear(struct bus *bus, const struct op *op)
{
    struct bus_msg msg = {.subject = op->subject, .reply = op->other, .data = {op->data, op->len}};
    struct bus_sub *sub = op->sid ? find_sub(bus, op->sid) : NULL;
    struct bus_inbox *inbox = op->sid ? NULL : find_inbox(bus, op->via ? op->via : op->subject);
    if (op->kind == OP_FENCE && sub && sub->is_leaving)
        sub_free(sub);
    else if (op->kind == OP_MSG && sub && sub->on_msg)
        sub->on_msg(sub->ctx, &msg);
    else if (op->kind == OP_MSG && inbox)
        inbox->on_reply(inbox->ctx, BUS_INBOX_MSG, &msg, NULL);
    else if (op->kind == OP_NOBODY && inbox)
        inbox->on_reply(inbox->ctx, BUS_INBOX_NO_RESPONDERS, NULL, NULL);
}

static void at_client(void *ctx)
{
    struct op *op = ctx;
    struct bus *bus = op->link->bus;
    if (bus && loop_frozen_until_us(bus->loop) > world_now_us()) {
        world_postpone(loop_frozen_until_us(bus->loop));
        return;
    }
    if (bus && bus->link == op->link && !bus->is_dead) {
        struct loop *loop = bus->loop;
        stat_add(STAT_messages, 1);
        world_mix(op->len);
        point_pass(POINT_RECEIVE, loop);
    }
    if (bus && bus->link == op->link && !bus->is_dead) {
        struct loop *loop = bus->loop;
        hear(bus, op);
        op_free(op);
        loop_turn(loop);
        return;
    }
    op_free(op);
}

static void tell_server(struct bus *bus, enum kind kind, const struct bus_sub *sub)
{
    if (bus->link && !bus->is_dead)
        send_up(op_new(kind, bus->link, sub->sid, sub->subject, sub->queue));
}

static bool connect_now(struct bus *bus)
{
    if (!server.is_up)
        return false;
    struct link *link = xcalloc(1, sizeof *link);
    *link = (struct link){.bus = bus, .is_known = true};
    memcpy(link->prefix, bus->prefix, sizeof link->prefix);
    LIST_INIT(&link->subs);
    LIST_INSERT_HEAD(&server.links, link, entry);
    bus->link = link;
    struct bus_sub *sub;
    TAILQ_FOREACH(sub, &bus->subs, entry)
        tell_server(bus, OP_SUB, sub);
    loop_timer_set_us(bus->said, 1);
    return true;
}

static void on_said(void *ctx)
{
    struct bus *bus = ctx;
    if (bus->link && bus->options.on_up)
        bus->options.on_up(bus->options.ctx);
}

static void on_retry(void *ctx)
{
    struct bus *bus = ctx;
    if (!bus->link && !connect_now(bus))
        loop_timer_set(bus->retry, world_between(50, RETRY_MOST_MS));
}

/* The client has noticed that its connection is lost. */
static void lose(struct bus *bus)
{
    struct link *link = bus->link;
    bool was_said = !loop_timer_is_set(bus->said);
    bus->link = NULL;
    bus->was_silent = link->is_silent;
    link->bus = NULL;
    link->refs++;
    unref(link);
    loop_timer_stop(bus->said);
    for (struct bus_sub *sub = TAILQ_FIRST(&bus->subs), *next; sub; sub = next) {
        next = TAILQ_NEXT(sub, entry);
        if (sub->is_leaving)
            sub_free(sub);
    }
    /* Callbacks may open and free inboxes: those that are there now are told, freed ones stay until the end. */
    bus->is_calling = true;
    struct bus_inbox *last = TAILQ_LAST(&bus->inboxes, inboxes), *inbox, *next;
    for (inbox = TAILQ_FIRST(&bus->inboxes); inbox; inbox = inbox == last ? NULL : TAILQ_NEXT(inbox, entry))
        if (!inbox->is_freed)
            inbox->on_reply(inbox->ctx, BUS_INBOX_DOWN, NULL, NULL);
    bus->is_calling = false;
    for (inbox = TAILQ_FIRST(&bus->inboxes); inbox; inbox = next) {
        next = TAILQ_NEXT(inbox, entry);
        if (inbox->is_freed) {
            TAILQ_REMOVE(&bus->inboxes, inbox, entry);
            free(inbox);
        }
    }
    if (was_said && bus->options.on_down)
        bus->options.on_down(bus->options.ctx);
    loop_timer_set(bus->retry, world_between(1, 50));
    loop_turn(bus->loop);
}

/* ---- what goes wrong ------------------------------------------------------------------------------------------------------ */

struct later { /* something that happens to a link, if it is still there */
    struct link *link;
};

static void on_forget(void *ctx)
{
    struct later *later = ctx;
    link_forget(later->link);
    unref(later->link);
    free(later);
}

static void on_lose(void *ctx)
{
    struct later *later = ctx;
    struct bus *bus = later->link->bus;
    if (bus && loop_frozen_until_us(bus->loop) > world_now_us()) {
        world_postpone(loop_frozen_until_us(bus->loop));
        return;
    }
    if (bus && bus->link == later->link && !bus->is_dead)
        lose(bus);
    unref(later->link);
    free(later);
}

static void later_drop(void *ctx)
{
    struct later *later = ctx;
    unref(later->link);
    free(later);
}

static void later(struct link *link, int64_t in_us, void (*on_due)(void *ctx))
{
    struct later *later = xcalloc(1, sizeof *later);
    later->link = link;
    link->refs++;
    world_at_or_drop(world_now_us() + in_us, on_due, later_drop, later);
}

void bus_kill(struct bus *bus, bool is_noticed)
{
    bus->is_dead = true;
    if (bus->link)
        later(bus->link, is_noticed ? 300 : (int64_t)world_between(1, 10) * 1000000, on_forget);
}

int64_t bus_settled_us(const struct bus *bus)
{
    int64_t now_us = world_now_us(), seen_us = bus->link ? bus->link->up.last_us + 1 : 0;
    return seen_us < now_us + 1000 ? now_us + 1000 : seen_us > now_us + FLUSH_US ? now_us + FLUSH_US : seen_us;
}

/* One way is as bad as both: pings are not answered, whether they or their answers are lost. But what was said the other way arrives. */
void bus_stall(struct bus *bus, enum way way, uint32_t for_ms)
{
    struct link *link = bus->link;
    int64_t for_us = (int64_t)for_ms * 1000;
    if (!link)
        return;
    if (for_us >= NOTICE_US) {
        link->is_silent = true;
        later(link, NOTICE_US + world_below(500000), on_lose);
        later(link, NOTICE_US + world_below(8000000), on_forget);
        for_us += 600000000; /* what is in it never arrives */
    }
    if (way != WAY_DOWN)
        link->up.stalled_until_us = world_now_us() + for_us;
    if (way != WAY_UP)
        link->down.stalled_until_us = world_now_us() + for_us;
}

void bus_freeze(struct bus *bus, uint32_t for_ms)
{
    int64_t forgets_us = NOTICE_US + world_below(8000000);
    if (!bus->link || forgets_us >= (int64_t)for_ms * 1000)
        return;
    later(bus->link, forgets_us, on_forget);
    later(bus->link, (int64_t)for_ms * 1000 + world_below(2000), on_lose);
}

void bus_reset(struct bus *bus)
{
    if (!bus->link)
        return;
    link_forget(bus->link);
    later(bus->link, world_below(2000), on_lose);
}

void server_begin(void)
{
    memset(&server, 0, sizeof server);
    LIST_INIT(&server.links);
    stream_forget();
    server.is_up = true;
}

void server_stop(void)
{
    struct link *link;
    server.is_up = false;
    stream_forget();
    while ((link = LIST_FIRST(&server.links))) {
        if (link->bus)
            later(link, world_below(2000), on_lose);
        link_forget(link);
    }
}

void server_start(void) { server.is_up = true; }
void server_end(void)
{
    stream_forget();
    while (!LIST_EMPTY(&server.links))
        link_forget(LIST_FIRST(&server.links));
}

/* ---- base/bus.h ------------------------------------------------------------------------------------------------------------- */

enum amp_code bus_new(struct loop *loop, const struct bus_options *options, struct bus **ret, struct amp_error *reterr)
{
    struct bus *bus = xcalloc(1, sizeof *bus);
    *bus = (struct bus){.loop = loop, .options = *options, .info = {.version = "2.9.10", .major = 2, .minor = 9, .patch = 10, .has_jetstream = true, .payload_max = PAYLOAD_MAX, .url = "sim"}};
    TAILQ_INIT(&bus->subs);
    TAILQ_INIT(&bus->inboxes);
    snprintf(bus->prefix, sizeof bus->prefix, "_INBOX_%llu.", (unsigned long long)++server.next);
    bus->retry = loop_timer_new(loop, on_retry, bus);
    bus->said = loop_timer_new(loop, on_said, bus);
    if (!connect_now(bus))
        loop_timer_set(bus->retry, world_between(1, RETRY_MOST_MS));
    *ret = bus;
    return AMP_OK;
}

void bus_free(struct bus *bus)
{
    if (!bus)
        return;
    if (bus->link) {
        struct link *link = bus->link;
        if (!bus->is_dead)
            later(link, 300, on_forget);
        link->bus = NULL;
        link->refs++;
        unref(link);
    }
    while (!TAILQ_EMPTY(&bus->subs))
        sub_free(TAILQ_FIRST(&bus->subs));
    for (struct bus_inbox *inbox, *next = TAILQ_FIRST(&bus->inboxes); (inbox = next); free(inbox))
        next = TAILQ_NEXT(inbox, entry);
    loop_timer_free(bus->retry);
    loop_timer_free(bus->said);
    free(bus->memory);
    free(bus);
}

bool bus_is_up(const struct bus *bus) { return bus->link && !bus->is_dead; }
bool bus_was_ended(const struct bus *bus) { return !bus->link && !bus->was_silent; }
void **bus_memory(struct bus *bus) { return &bus->memory; }
const struct bus_info *bus_info(const struct bus *bus) { return &bus->info; }
size_t bus_waiting_bytes(const struct bus *bus) { return 0; }
uint64_t bus_handed_bytes(const struct bus *bus) { return 0; } /* it all leaves at once */
struct bus_sub *bus_subscribe(struct bus *bus, const char *subject, const char *queue, void (*on_msg)(void *ctx, const struct bus_msg *msg), void *ctx)
{
    struct bus_sub *sub = xcalloc(1, sizeof *sub);
    *sub = (struct bus_sub){.bus = bus, .sid = ++server.next, .subject = xstrdup(subject), .queue = queue ? xstrdup(queue) : NULL, .on_msg = on_msg, .ctx = ctx};
    TAILQ_INSERT_TAIL(&bus->subs, sub, entry);
    tell_server(bus, OP_SUB, sub);
    return sub;
}

void bus_unsubscribe(struct bus_sub *sub, bool deliver_pending)
{
    if (!sub)
        return;
    tell_server(sub->bus, OP_UNSUB, sub);
    sub->is_leaving = true;
    if (!deliver_pending || !bus_is_up(sub->bus))
        sub_free(sub);
}

bool bus_is_leaving(const struct bus *bus, const void *ctx)
{
    const struct bus_sub *sub;
    TAILQ_FOREACH(sub, &bus->subs, entry)
        if (sub->is_leaving && (!ctx || sub->ctx == ctx))
            return true;
    return false;
}

enum amp_code bus_publish(struct bus *bus, const char *subject, const char *reply, struct amp_bytes data)
{
    if (!*subject || strpbrk(subject, " \t\r\n") || (reply && (!*reply || strpbrk(reply, " \t\r\n"))))
        return AMP_INVALID;
    if (!bus_is_up(bus))
        return AMP_NO_BUS;
    if (data.len > PAYLOAD_MAX)
        return AMP_TOO_LARGE;
    point_pass(POINT_SEND, bus->loop);
    if (bus->is_dead)
        return AMP_NO_BUS;
    struct op *op = op_new(OP_PUB, bus->link, 0, subject, reply);
    op_set_data(op, data);
    send_up(op);
    return AMP_OK;
}

struct bus_inbox *bus_inbox_new(struct bus *bus, void (*on_reply)(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text), void *ctx)
{
    struct bus_inbox *inbox = xcalloc(1, sizeof *inbox);
    *inbox = (struct bus_inbox){.bus = bus, .on_reply = on_reply, .ctx = ctx};
    snprintf(inbox->subject, sizeof inbox->subject, "%s%llu", bus->prefix, (unsigned long long)++server.next);
    TAILQ_INSERT_TAIL(&bus->inboxes, inbox, entry);
    return inbox;
}

const char *bus_inbox_subject(const struct bus_inbox *inbox) { return inbox->subject; }

enum amp_code bus_inbox_request(struct bus_inbox *inbox, const char *subject, struct amp_bytes data)
{
    return bus_publish(inbox->bus, subject, inbox->subject, data);
}

void bus_inbox_free(struct bus_inbox *inbox)
{
    if (!inbox)
        return;
    inbox->is_freed = true;
    if (inbox->bus->is_calling)
        return;
    TAILQ_REMOVE(&inbox->bus->inboxes, inbox, entry);
    free(inbox);
}
