/* nats.c does not tell the server's version. The server greets every connection with one line, INFO {…}, before any authentication: a
 * connection of our own to the same address reads it, beside the loop's other work. A server that wants TLS first says nothing: then the
 * version stays "". */
#include "base/bus_private.h"

#include "base/alloc.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INFO_BYTES_MAX (32u << 10)
#define PROBE_MS 2000

struct bus_probe {
    struct bus *bus;
    int fd;
    struct loop_io *io;
    struct loop_timer *deadline;
    char line[INFO_BYTES_MAX];
    size_t len;
};

/* The server's JSON has no white space, and a quote inside of a string is escaped: the pattern cannot be part of a value. */
static const char *find(const char *line, const char *pattern)
{
    const char *at = strstr(line, pattern);
    return at ? at + strlen(pattern) : NULL;
}

static void take_info(struct bus_info *info, const char *line)
{
    const char *version = find(line, "\"version\":\"");
    size_t len = version ? strcspn(version, "\"\\") : 0;
    if (!version || len >= sizeof info->version)
        return;
    memcpy(info->version, version, len);
    info->version[len] = '\0';
    if (sscanf(info->version, "%d.%d.%d", &info->major, &info->minor, &info->patch) < 3)
        info->major = info->minor = info->patch = 0;
    info->has_jetstream = find(line, "\"jetstream\":true") != NULL;
}

void bus_info_stop(struct bus *bus)
{
    struct bus_probe *probe = bus->probe;
    if (!probe)
        return;
    bus->probe = NULL;
    loop_io_free(probe->io);
    loop_timer_free(probe->deadline);
    close(probe->fd);
    free(probe);
}

static void on_ready(void *ctx, int events)
{
    struct bus_probe *probe = ctx;
    ssize_t n = recv(probe->fd, probe->line + probe->len, sizeof probe->line - 1 - probe->len, MSG_DONTWAIT);
    if (n <= 0) { /* Closed, refused, or an answer without end. */
        bus_info_stop(probe->bus);
        return;
    }
    probe->len += (size_t)n;
    if (!memchr(probe->line, '\n', probe->len))
        return;
    if (strncmp(probe->line, "INFO ", 5) == 0)
        take_info(&probe->bus->info, probe->line);
    bus_info_stop(probe->bus);
}

static void on_deadline(void *ctx)
{
    struct bus_probe *probe = ctx;
    bus_info_stop(probe->bus);
}

static void probe_start(struct bus *bus)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    if (getpeername(bus->link->fd, (struct sockaddr *)&peer, &len) != 0)
        return;
    int fd = socket(peer.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    /* EINPROGRESS; a failure shows when it is read. */
    (void)!connect(fd, (struct sockaddr *)&peer, len);
    struct bus_probe *probe = xcalloc(1, sizeof *probe);
    probe->bus = bus;
    probe->fd = fd;
    probe->io = loop_io_new(bus->loop, fd, on_ready, probe);
    probe->deadline = loop_timer_new(bus->loop, on_deadline, probe);
    loop_io_want(probe->io, LOOP_READ);
    loop_timer_set(probe->deadline, PROBE_MS);
    bus->probe = probe;
}

/* "nats://user:password@host:4222" → "nats://host:4222" */
static void copy_url(const char *url, char *ret, size_t size)
{
    const char *scheme_end = strstr(url, "://");
    const char *host = scheme_end ? scheme_end + 3 : url;
    const char *at = strrchr(host, '@');
    if (snprintf(ret, size, "%.*s%s", (int)(host - url), url, at ? at + 1 : host) >= (int)size)
        ret[0] = '\0'; /* for people; none is better than half of one */
}

void bus_info_start(struct bus *bus)
{
    bus_info_stop(bus);
    bus->info = (struct bus_info){0};
    int64_t payload_max = natsConnection_GetMaxPayload(bus->link->nats);
    bus->info.payload_max = payload_max > 0 ? (size_t)payload_max : 0;
    char url[512];
    if (natsConnection_GetConnectedUrl(bus->link->nats, url, sizeof url) == NATS_OK)
        copy_url(url, bus->info.url, sizeof bus->info.url);
    probe_start(bus);
}
