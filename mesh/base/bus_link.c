/* One nats.c connection in event-loop mode, and the thread that makes a new one. nats.c calls read, write, detach and its error and closed
 * handlers on its own threads (timer, asynchronous callbacks): there they only post a notice to the loop. */
#include "base/bus_private.h"

#include "base/alloc.h"
#include "base/loop.h"
#include "base/mailbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- nats.c's callbacks ----------------------------------------------------------------------------- */

static void post(struct bus_link *link, const char *text)
{
    struct mailbox *box = atomic_load(&link->box);
    if (!box)
        return; /* not adopted yet: the loop looks when it adopts */
    struct bus_notice *notice = xcalloc(1, sizeof *notice);
    snprintf(notice->text, sizeof notice->text, "%s", text);
    if (!mailbox_post(box, notice))
        free(notice); /* the loop has enough to look at, and looks at everything then */
}

/* The link needs a look: bytes to write, or it was closed. */
static void look(struct bus_link *link)
{
    if (!pthread_equal(pthread_self(), link->loop_thread))
        post(link, "");
    else if (link->tick)
        loop_tick_request(link->tick);
}

static natsStatus on_attach(void **data, void *loop, natsConnection *nats, natsSock fd)
{
    struct bus_link *link = loop;
    /* nats.c leaves it open for children; and it closes it on its timer thread, while the loop polls. */
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    link->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    *data = link;
    return link->fd < 0 ? NATS_ERR : NATS_OK;
}

static natsStatus on_read(void *data, bool add)
{
    look(data);
    return NATS_OK;
}

/* That all is written (`add` false) is known on the loop, where it is written; and bus_io.c lets what has time wait for the next write. */
static natsStatus on_write(void *data, bool add)
{
    struct bus_link *link = data;
    if (!pthread_equal(pthread_self(), link->loop_thread) || (add && !link->is_patient))
        look(link);
    return NATS_OK;
}

static natsStatus on_detach(void *data)
{
    look(data);
    return NATS_OK;
}

static void on_error(natsConnection *nats, natsSubscription *sub, natsStatus status, void *ctx)
{
    /* nats.c sets this thread's last error just for this call; the connection's would be that of the newest error. */
    const char *text = nats_GetLastError(NULL);
    if (status == NATS_NOT_PERMITTED && text)
        post(ctx, text);
}

static void on_closed(natsConnection *nats, void *ctx)
{
    struct bus_link *link = ctx;
    sem_post(&link->is_closed);
}

/* ---- connecting -------------------------------------------------------------------------------------- */

static struct bus_link *link_new(pthread_t loop_thread)
{
    struct bus_link *link = xcalloc(1, sizeof *link);
    link->fd = -1;
    link->loop_thread = loop_thread;
    sem_init(&link->is_closed, 0, 0);
    return link;
}

static void link_destroy(struct bus_link *link)
{
    if (link->fd >= 0)
        close(link->fd);
    sem_destroy(&link->is_closed);
    free(link);
}

static natsStatus set_options(natsOptions *nats, struct bus_link *link, const struct bus_options *options,
                              const char *prefix, char **servers, int n_servers)
{
    const natsStatus results[] = {
        natsOptions_SetServers(nats, (const char **)servers, n_servers),
        options->name ? natsOptions_SetName(nats, options->name) : NATS_OK,
        options->creds ? natsOptions_SetUserCredentialsFromFiles(nats, options->creds, NULL) : NATS_OK,
        natsOptions_SetCustomInboxPrefix(nats, prefix),
        natsOptions_SetTimeout(nats, BUS_CONNECT_MS / n_servers),
        natsOptions_SetPingInterval(nats, 1000),
        natsOptions_SetMaxPingsOut(nats, 2),
        natsOptions_SetAllowReconnect(nats, false),
        natsOptions_SetSendAsap(nats, true),
        natsOptions_SetNoEcho(nats, options->no_echo),
        natsOptions_SetErrorHandler(nats, on_error, link),
        natsOptions_SetClosedCB(nats, on_closed, link),
        natsOptions_SetEventLoop(nats, link, on_attach, on_read, on_write, on_detach),
    };
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (results[i] != NATS_OK)
            return results[i];
    return NATS_OK;
}

struct bus_link *bus_link_connect(const struct bus_options *options, const char *prefix, char **servers, int n_servers,
                                  pthread_t loop_thread, struct amp_error *reterr)
{
    /* The library's threads inherit this: signals are the loop's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);

    struct bus_link *link = link_new(loop_thread);
    natsOptions *nats = NULL;
    natsStatus status = natsOptions_Create(&nats);
    if (status == NATS_OK)
        status = set_options(nats, link, options, prefix, servers, n_servers);
    if (status == NATS_OK)
        status = natsConnection_Connect(&link->nats, nats);
    if (status != NATS_OK) {
        const char *text = nats_GetLastError(NULL), *place = text ? strstr(text, "): ") : NULL;
        if (place && text[0] == '(')
            text = place + 3; /* "(conn.c:2088): …" is of no use to an operator */
        amp_error_set(reterr, AMP_NO_BUS, "", "%s", text && *text ? text : natsStatus_GetText(status));
    }
    natsOptions_Destroy(nats);
    pthread_sigmask(SIG_SETMASK, &before, NULL);

    if (status == NATS_OK)
        return link;
    link_destroy(link);
    return NULL;
}

void bus_link_adopt(struct bus_link *link, struct mailbox *box, struct loop_tick *tick)
{
    link->tick = tick;
    atomic_store(&link->box, box);
}

bool bus_link_was_silent(const struct bus_link *link)
{
    const char *text;
    return natsConnection_GetLastError(link->nats, &text) == NATS_STALE_CONNECTION;
}

void bus_link_close(struct bus_link *link)
{
    /* Otherwise nats.c would wait for the answer to a ping that only this thread could read. */
    shutdown(link->fd, SHUT_RDWR);
    if (!natsConnection_IsClosed(link->nats))
        natsConnection_ProcessReadEvent(link->nats);
    natsConnection_Destroy(link->nats);
    link->nats = NULL;
    link->tick = NULL;
}

bool bus_link_free(struct bus_link *link, int wait_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    until.tv_sec += wait_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    int result;
    while ((result = sem_timedwait(&link->is_closed, &until)) != 0 && errno == EINTR)
        ;
    if (result != 0)
        return false;
    link_destroy(link);
    return true;
}

/* ---- the connector ------------------------------------------------------------------------------------ */

enum { RUNNING, DONE, ABANDONED };

/* Shared by the loop and the thread; whoever lets go last frees it. */
struct connector {
    atomic_int refs;
    atomic_int state;
    int wake_fd;
    struct bus_options options; /* copies */
    char prefix[BUS_PREFIX_SIZE];
    char **servers;
    int n_servers;
    pthread_t loop_thread;
    struct bus_link *link;
    struct amp_error error;

    struct bus *bus; /* the rest is the loop's */
    struct loop_io *io;
    void (*on_done)(struct bus *bus, struct bus_link *link, const struct amp_error *err);
};

static void connector_unref(struct connector *connector)
{
    if (atomic_fetch_sub(&connector->refs, 1) != 1)
        return;
    close(connector->wake_fd);
    for (int i = 0; i < connector->n_servers; i++)
        free(connector->servers[i]);
    free(connector->servers);
    free((char *)connector->options.name);
    free((char *)connector->options.creds);
    free(connector);
}

static void discard(struct bus_link *link)
{
    if (!link)
        return;
    bus_link_close(link);
    /* A library that never says "closed" is left its closure rather than given freed memory. */
    (void)!bus_link_free(link, 1000);
}

static void *connector_main(void *ctx)
{
    struct connector *connector = ctx;
    connector->link = bus_link_connect(&connector->options, connector->prefix, connector->servers, connector->n_servers,
                                       connector->loop_thread, &connector->error);
    if (atomic_exchange(&connector->state, DONE) == ABANDONED)
        discard(connector->link);
    else
        (void)!write(connector->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    nats_ReleaseThreadMemory();
    connector_unref(connector);
    return NULL;
}

static void on_connected(void *ctx, int events)
{
    struct connector *connector = ctx;
    struct bus *bus = connector->bus;
    if (atomic_load(&connector->state) != DONE) /* orders the thread's writes before our reads */
        return;
    bus->connector = NULL;
    loop_io_free(connector->io);
    connector->on_done(bus, connector->link, &connector->error);
    connector_unref(connector);
}

static void start_thread(struct connector *connector)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 512 << 10);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int result = pthread_create(&thread, &attr, connector_main, connector);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (result == 0)
        return;
    /* No thread to be had: that attempt failed. */
    amp_error_set(&connector->error, AMP_NO_BUS, "", "no thread to connect with: %s", strerror(result));
    atomic_store(&connector->state, DONE);
    (void)!write(connector->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    connector_unref(connector);
}

struct connector *connector_start(struct bus *bus, char **servers, int n_servers,
                                  void (*on_done)(struct bus *bus, struct bus_link *link, const struct amp_error *err))
{
    struct connector *connector = xcalloc(1, sizeof *connector);
    atomic_init(&connector->refs, 2);
    atomic_init(&connector->state, RUNNING);
    connector->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (connector->wake_fd < 0)
        abort();
    connector->options.name = bus->options.name ? xstrdup(bus->options.name) : NULL;
    connector->options.no_echo = bus->options.no_echo;
    connector->options.creds = bus->options.creds ? xstrdup(bus->options.creds) : NULL;
    memcpy(connector->prefix, bus->prefix, sizeof connector->prefix);
    connector->servers = xcalloc((size_t)n_servers, sizeof *servers);
    connector->n_servers = n_servers;
    for (int i = 0; i < n_servers; i++)
        connector->servers[i] = xstrdup(servers[i]);
    connector->loop_thread = pthread_self();
    connector->bus = bus;
    connector->on_done = on_done;
    connector->io = loop_io_new(bus->loop, connector->wake_fd, on_connected, connector);
    loop_io_want(connector->io, LOOP_READ);
    start_thread(connector);
    return connector;
}

void connector_free(struct connector *connector)
{
    if (!connector)
        return;
    loop_io_free(connector->io);
    if (atomic_exchange(&connector->state, ABANDONED) == DONE)
        discard(connector->link);
    connector_unref(connector);
}
