/* Life of the bus and the way back after a loss: the first connection is made here and may block; every later one is made by a
 * connector's thread, after a delay with full jitter (none, then up to 50 ms, doubling to 2 s). */
#include "base/bus_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mailbox.h"

#include <assert.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTICES_MAX 1024
#define RETRY_MS_MIN 50u
#define RETRY_MS_MAX 2000u

/* ---- servers ---------------------------------------------------------------------------------------- */

static void forget_learned(struct bus *bus)
{
    for (int i = 0; i < bus->n_learned; i++)
        free(bus->learned[i]);
    free(bus->learned);
    bus->learned = NULL;
    bus->n_learned = 0;
}

/* Servers of the same cluster, for the day when the given ones are gone. */
static void learn(struct bus *bus)
{
    char **servers = NULL;
    int count = 0;
    if (natsConnection_GetDiscoveredServers(bus->link->nats, &servers, &count) != NATS_OK)
        return;
    forget_learned(bus);
    bus->learned = servers;
    bus->n_learned = count;
}

static int list_servers(struct bus *bus, char **ret)
{
    int n = bus_url_split(bus->options.url, ret);
    for (int i = 0; i < bus->n_learned && n < BUS_SERVERS_MAX; i++)
        ret[n++] = xstrdup(bus->learned[i]);
    return n;
}

static void free_servers(char **servers, int n)
{
    for (int i = 0; i < n; i++)
        free(servers[i]);
}

/* ---- up, down and back -------------------------------------------------------------------------------- */

static void on_socket(void *ctx, int events)
{
    struct bus *bus = ctx;
    if (events & LOOP_READ)
        bus_io_read(bus);
    if (events & LOOP_WRITE)
        loop_tick_request(bus->tick);
    bus_check(bus);
}

static void free_closed(struct bus *bus, int wait_ms)
{
    struct bus_link *link = LIST_FIRST(&bus->closing);
    while (link) {
        struct bus_link *next = LIST_NEXT(link, entry);
        LIST_REMOVE(link, entry);
        if (!bus_link_free(link, wait_ms))
            LIST_INSERT_HEAD(&bus->closing, link, entry);
        link = next;
    }
}

static void up(struct bus *bus, struct bus_link *link)
{
    bus->link = link;
    bus->attempts = 0;
    bus->said[0] = '\0';
    bus_link_adopt(link, bus->box, bus->tick);
    bus->io = loop_io_new(bus->loop, link->fd, on_socket, bus);
    loop_io_want(bus->io, LOOP_READ);
    learn(bus);
    bus_io_up(bus);
    bus_info_start(bus);
    bus->is_up_due = true;
    loop_tick_request(bus->tick);
    free_closed(bus, 0);
}

static void drop_link(struct bus *bus)
{
    struct bus_link *link = bus->link;
    bus->link = NULL;
    bus_info_stop(bus);
    loop_io_free(bus->io);
    bus->io = NULL;
    bus_io_drop(bus);
    bus_link_close(link);
    LIST_INSERT_HEAD(&bus->closing, link, entry);
}

static void retry_later(struct bus *bus)
{
    uint32_t cap = RETRY_MS_MIN << (bus->attempts < 8 ? bus->attempts : 8);
    if (cap > RETRY_MS_MAX)
        cap = RETRY_MS_MAX;
    bus->attempts++;
    loop_timer_set(bus->retry, randombytes_uniform(cap + 1));
}

void bus_check(struct bus *bus)
{
    if (!bus->link || !natsConnection_IsClosed(bus->link->nats))
        return;
    bool was_said = !bus->is_up_due;
    bus->is_up_due = false;
    bus->was_silent = bus_link_was_silent(bus->link);
    bus->lost_ms = clock_mono_ms();
    log_event(LOG_WARN, "bus.lost", "url", bus->options.url, "reason", bus->was_silent ? "the server did not answer in time" : "the connection has ended", NULL);
    drop_link(bus);
    retry_later(bus);
    if (was_said && bus->options.on_down)
        bus->options.on_down(bus->options.ctx);
    bus_io_down(bus);
}

static void on_attempt(struct bus *bus, struct bus_link *link, const struct amp_error *err)
{
    if (link) {
        counter_add(COUNTER_bus_reconnects, 1);
        if (bus->lost_ms)
            log_event(LOG_INFO, "bus.reconnected", "url", bus->options.url, "after_ms", log_int(clock_mono_ms() - bus->lost_ms), NULL);
        bus->lost_ms = 0;
        up(bus, link);
        return;
    }
    /* Once per reason: it is tried for ever. */
    if (strcmp(bus->said, err->message) != 0) {
        memcpy(bus->said, err->message, sizeof bus->said);
        log_event(LOG_WARN, "bus.connect_failed", "url", bus->options.url, "reason", bus->said, NULL);
    }
    retry_later(bus);
}

static void on_retry(void *ctx)
{
    struct bus *bus = ctx;
    char *servers[BUS_SERVERS_MAX];
    int n = list_servers(bus, servers);
    bus->connector = connector_start(bus, servers, n, on_attempt);
    free_servers(servers, n);
}

static void on_notices(void *ctx, void **items, size_t count)
{
    struct bus *bus = ctx;
    for (size_t i = 0; i < count; i++) {
        struct bus_notice *notice = items[i];
        if (notice->text[0])
            bus_io_error(bus, notice->text);
        free(notice);
    }
    loop_tick_request(bus->tick);
}

static void on_leftovers(void *ctx)
{
    struct bus *bus = ctx;
    loop_tick_request(bus->tick);
}

static void on_tick(void *ctx)
{
    struct bus *bus = ctx;
    bus_check(bus);
    if (bus->is_up_due) {
        bus->is_up_due = false;
        if (bus->options.on_up)
            bus->options.on_up(bus->options.ctx);
    }
    bus_io_flush(bus);
    bus_check(bus);
}

/* ---- life --------------------------------------------------------------------------------------------- */

static struct bus *create(struct loop *loop, const struct bus_options *options)
{
    struct bus *bus = xcalloc(1, sizeof *bus);
    bus->loop = loop;
    bus->options = *options;
    bus->options.url = xstrdup(options->url);
    bus->options.creds = options->creds && *options->creds ? xstrdup(options->creds) : NULL;
    bus->options.name = options->name ? xstrdup(options->name) : NULL;
    TAILQ_INIT(&bus->subs);
    TAILQ_INIT(&bus->inboxes);
    TAILQ_INIT(&bus->used);
    TAILQ_INIT(&bus->found);
    if (natsStatistics_Create(&bus->stats) != NATS_OK)
        abort(); /* out of memory, as xcalloc */
    LIST_INIT(&bus->closing);
    char token[BUS_TOKEN_LEN + 1];
    bus_token(bus, token);
    bus_inbox_prefix(options, token, bus->prefix);
    bus_token(bus, token);
    snprintf(bus->fence_subject, sizeof bus->fence_subject, "%s.%s", bus->prefix, token);
    bus->tick = loop_tick_new(loop, on_tick, bus);
    bus->retry = loop_timer_new(loop, on_retry, bus);
    bus->leftovers = loop_timer_new(loop, on_leftovers, bus);
    bus->box = mailbox_new_loop(loop, NOTICES_MAX, on_notices, bus);
    return bus;
}

static void destroy(struct bus *bus)
{
    connector_free(bus->connector);
    free_closed(bus, 1000);
    void *item;
    while (mailbox_drain(bus->box, &item, 1))
        free(item);
    mailbox_free(bus->box);
    loop_timer_free(bus->retry);
    loop_timer_free(bus->leftovers);
    loop_tick_free(bus->tick);
    forget_learned(bus);
    bus_io_release(bus);
    free((char *)bus->options.url);
    free((char *)bus->options.creds);
    free((char *)bus->options.name);
    spares_done(&bus->spare_inboxes);
    natsStatistics_Destroy(bus->stats);
    free(bus->memory);
    free(bus);
}

enum amp_code bus_new(struct loop *loop, const struct bus_options *options, struct bus **ret, struct amp_error *reterr)
{
    if (!options->url || !options->url[strspn(options->url, ", \t")])
        return amp_error_set(reterr, AMP_INVALID, "bus", "no URL of a bus was given");
    struct bus *bus = create(loop, options);
    char *servers[BUS_SERVERS_MAX];
    int n = list_servers(bus, servers);
    struct amp_error error = {0};
    struct bus_link *link = bus_link_connect(&bus->options, bus->prefix, servers, n, pthread_self(), &error);
    free_servers(servers, n);
    if (!link && !options->wait_first) {
        destroy(bus);
        char shown[256];
        bus_url_show(options->url, sizeof shown, shown);
        amp_error_set(reterr, AMP_NO_BUS, "bus", "cannot connect to the bus at %s: %s", shown, error.message);
        amp_error_hint(reterr, "is a nats-server running there? `amesh up` starts one");
        return AMP_NO_BUS;
    }
    if (link)
        up(bus, link);
    else
        retry_later(bus);
    *ret = bus;
    return AMP_OK;
}

/* Writes what waits and waits until the server has seen it: closing with unread bytes in the socket would throw away what it has not. */
static void settle(struct bus *bus)
{
    int64_t until_ms = clock_mono_ms() + BUS_FLUSH_MS;
    uint64_t fence = ++bus->fence_asked;
    while (bus->link && bus->fence_seen < fence) {
        bus_io_flush(bus);
        struct pollfd wait = {.fd = bus->link->fd, .events = (short)(POLLIN | (bus->out_bytes ? POLLOUT : 0))};
        int64_t left_ms = until_ms - clock_mono_ms();
        if (left_ms <= 0 || poll(&wait, 1, (int)left_ms) <= 0)
            return;
        if (wait.revents & (POLLIN | POLLHUP | POLLERR))
            bus_io_read(bus);
        if (natsConnection_IsClosed(bus->link->nats))
            return;
    }
}

void bus_free(struct bus *bus)
{
    if (!bus)
        return;
    bus_io_silence(bus); /* those who left may be gone by now */
    settle(bus);
    if (bus->link)
        drop_link(bus);
    assert(TAILQ_EMPTY(&bus->subs) && TAILQ_EMPTY(&bus->inboxes));
    destroy(bus);
}

size_t bus_waiting_bytes(const struct bus *bus)
{
    return bus->out_bytes;
}

uint64_t bus_handed_bytes(const struct bus *bus)
{
    return bus->handed_bytes;
}

bool bus_is_up(const struct bus *bus)
{
    return bus->link != NULL;
}

bool bus_was_ended(const struct bus *bus)
{
    return !bus->link && !bus->was_silent;
}

void **bus_memory(struct bus *bus)
{
    return &bus->memory;
}

const struct bus_info *bus_info(const struct bus *bus)
{
    return &bus->info;
}
