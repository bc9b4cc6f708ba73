/* Accepts, checks the user, peeks. An accepted connection is `waiting` until its first byte is seen, then a peer (NDJSON) or the HTTP server's. */
#include "sidecar/local.h"

#include "base/alloc.h"
#include "base/counters.h"
#include "base/http.h"
#include "base/log.h"
#include "base/loop.h"
#include "sidecar/local_blob.h"
#include "sidecar/local_http.h"
#include "sidecar/peer.h"
#include "sidecar/sidecar.h"
#include "sidecar/worker_link.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 256, FIRST_BYTE_MS = 10000, ACCEPTS_PER_TURN = 64, ACCEPT_PAUSE_MS = 100 };

struct connection {
    struct local *local;
    int fd;
    pid_t pid;
    struct loop_io *io;         /* until the first byte */
    struct loop_timer *timer;
    struct peer *peer;          /* afterwards */
    LIST_ENTRY(connection) entry;
};

struct local {
    struct sidecar *sidecar;
    char *path;
    int fd;
    struct loop_io *io;
    struct loop_timer *pause; /* after accept failed for lack of descriptors */
    struct http_server *http;
    struct local_blobs *blobs;
    LIST_HEAD(, connection) connections;
    unsigned n_connections;
};

/* ---- a connection ---------------------------------------------------------------------------------------------- */

static void stop_peeking(struct connection *connection)
{
    loop_io_free(connection->io);
    loop_timer_free(connection->timer);
    connection->io = NULL;
    connection->timer = NULL;
}

static void connection_free(struct connection *connection)
{
    LIST_REMOVE(connection, entry);
    connection->local->n_connections--;
    stop_peeking(connection);
    peer_free(connection->peer);
    if (connection->fd >= 0)
        close(connection->fd);
    free(connection);
}

static void say(int fd, const char *line)
{
    (void)!send(fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void refuse(struct connection *connection, const char *line)
{
    char rest[4096];
    counter_add(COUNTER_local_refused, 1);
    (void)!recv(connection->fd, rest, sizeof rest, MSG_DONTWAIT); /* closing over unread bytes would reset, and the line be lost */
    say(connection->fd, line);
    connection_free(connection);
}

static void on_peer_closed(void *ctx, struct peer *peer, const char *reason)
{
    struct connection *connection = ctx;
    log_event(LOG_DEBUG, "local.closed", "reason", reason, "pid", log_int(connection->pid), NULL);
    worker_link_closed(connection->local->sidecar, peer, reason);
    connection_free(connection);
}

static void start_peer(struct connection *connection)
{
    static const struct peer_handlers handlers = {.on_closed = on_peer_closed};
    stop_peeking(connection);
    int fd = connection->fd;
    connection->fd = -1;
    connection->peer = peer_new(connection->local->sidecar, fd, connection->pid, &handlers, connection);
}

static void start_http(struct connection *connection)
{
    struct local *local = connection->local;
    int fd = connection->fd;
    connection->fd = -1;
    connection_free(connection);
    if (http_server_adopt(local->http, fd) != AMP_OK)
        counter_add(COUNTER_local_refused, 1);
}

static void start_upload(struct connection *connection)
{
    struct local *local = connection->local;
    int fd = connection->fd;
    connection->fd = -1;
    connection_free(connection);
    local_blobs_upload(local->blobs, fd);
}

static void on_first_byte(void *ctx, int events)
{
    struct connection *connection = ctx;
    char first[16];
    ssize_t n = recv(connection->fd, first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
    unsigned char byte = n > 0 ? (unsigned char)first[0] : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        connection_free(connection);
    else if (byte == '{')
        start_peer(connection);
    else if (local_blobs_is_upload(first, (unsigned long)n))
        start_upload(connection);
    else if (byte < 128 && isalpha(byte))
        start_http(connection);
    else
        refuse(connection, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"the first byte must be { (JSON-RPC) or a letter (HTTP)\"}}\n");
}

static void on_no_byte(void *ctx)
{
    refuse(ctx, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"nothing came for 10 seconds\"}}\n");
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

static bool is_allowed(int fd, pid_t *ret_pid)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return false;
    *ret_pid = peer.pid;
    return peer.uid == geteuid() || peer.uid == 0;
}

static void take(struct local *local, int fd)
{
    pid_t pid = 0;
    const char *line = NULL;
    counter_add(COUNTER_local_connections, 1);
    if (!is_allowed(fd, &pid))
        line = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"this socket belongs to another user\",\"data\":{\"code\":\"AMESH-2006\",\"name\":\"denied\"}}}\n";
    else if (local->n_connections >= CONNECTIONS_MAX)
        line = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"too many connections\",\"data\":{\"code\":\"AMESH-4004\",\"name\":\"overloaded\"}}}\n";
    if (line) {
        counter_add(COUNTER_local_refused, 1);
        say(fd, line);
        close(fd);
        return;
    }
    struct loop *loop = sidecar_loop(local->sidecar);
    struct connection *connection = xcalloc(1, sizeof *connection);
    connection->local = local;
    connection->fd = fd;
    connection->pid = pid;
    connection->io = loop_io_new(loop, fd, on_first_byte, connection);
    connection->timer = loop_timer_new(loop, on_no_byte, connection);
    loop_io_want(connection->io, LOOP_READ);
    loop_timer_set(connection->timer, FIRST_BYTE_MS);
    LIST_INSERT_HEAD(&local->connections, connection, entry);
    local->n_connections++;
}

static void on_pause_over(void *ctx)
{
    struct local *local = ctx;
    loop_io_want(local->io, LOOP_READ);
}

static void on_accept(void *ctx, int events)
{
    struct local *local = ctx;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(local->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            /* No descriptor or no memory: the connection stays in the queue, so the loop would spin. */
            log_event(LOG_WARN, "local.accept_failed", "error", strerror(errno), NULL);
            loop_io_want(local->io, 0);
            loop_timer_set(local->pause, ACCEPT_PAUSE_MS);
        }
        if (fd < 0)
            return;
        take(local, fd);
    }
}

/* ---- the socket ---------------------------------------------------------------------------------------------------- */

/* A socket file that nobody listens on is what a killed process left. */
static bool is_stale(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool is_refused = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
    close(fd);
    return is_refused;
}

static enum amp_code make_directory(const char *path, struct amp_error *reterr)
{
    char *dir = xstrdup(path);
    char *slash = strrchr(dir, '/');
    enum amp_code code = AMP_OK;
    if (slash && slash != dir) {
        *slash = '\0';
        if (mkdir(dir, 0700) != 0 && errno != EEXIST)
            code = amp_error_set(reterr, AMP_INVALID, "socket", "the directory %s cannot be made: %s", dir, strerror(errno));
    }
    free(dir);
    return code;
}

static enum amp_code listen_at(struct local *local, struct amp_error *reterr)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(local->path) >= sizeof address.sun_path)
        return amp_error_set(reterr, AMP_TOO_LARGE, "socket", "the path of the local socket is too long: %s", local->path);
    memcpy(address.sun_path, local->path, strlen(local->path) + 1);
    enum amp_code code = make_directory(local->path, reterr);
    if (code != AMP_OK)
        return code;
    local->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (local->fd < 0)
        return amp_error_set(reterr, AMP_INTERNAL, "socket", "no socket: %s", strerror(errno));
    /* Between bind and chmod the mask keeps others out. */
    mode_t mask = umask(0177);
    int result = bind(local->fd, (struct sockaddr *)&address, sizeof address);
    if (result != 0 && errno == EADDRINUSE && is_stale(&address) && unlink(local->path) == 0)
        result = bind(local->fd, (struct sockaddr *)&address, sizeof address);
    int error = errno;
    umask(mask);
    if (result == 0 && listen(local->fd, 128) == 0)
        return AMP_OK;
    close(local->fd);
    local->fd = -1;
    if (result != 0 && error == EADDRINUSE)
        return amp_error_set(reterr, AMP_RUNNING, "socket", "another process listens on %s", local->path);
    return amp_error_set(reterr, AMP_INVALID, "socket", "%s cannot be listened on: %s", local->path, strerror(error));
}

static enum amp_code start(struct local *local, struct amp_error *reterr)
{
    enum amp_code code = listen_at(local, reterr);
    if (code != AMP_OK)
        return code;
    /* "<instance>.sock" → "<instance>.http", in the same private directory. */
    const char *dot = strrchr(local->path, '.');
    const char *slash = strrchr(local->path, '/');
    size_t stem = dot && dot > slash ? (size_t)(dot - local->path) : strlen(local->path);
    char *private_path = xasprintf("%s%.*s.http", slash ? "" : "./", (int)stem, local->path);
    code = local_http_new(local->sidecar, private_path, &local->http, reterr);
    free(private_path);
    if (code != AMP_OK)
        return code;
    local->io = loop_io_new(sidecar_loop(local->sidecar), local->fd, on_accept, local);
    loop_io_want(local->io, LOOP_READ);
    return AMP_OK;
}

enum amp_code local_new(struct sidecar *sidecar, const char *path, struct local **ret, struct amp_error *reterr)
{
    struct local *local = xcalloc(1, sizeof *local);
    local->sidecar = sidecar;
    local->path = xstrdup(path);
    local->fd = -1;
    local->blobs = local_blobs_new(sidecar);
    local->pause = loop_timer_new(sidecar_loop(sidecar), on_pause_over, local);
    LIST_INIT(&local->connections);
    enum amp_code code = start(local, reterr);
    if (code == AMP_OK)
        *ret = local;
    else
        local_free(local);
    return code;
}

void local_free(struct local *local)
{
    if (!local)
        return;
    loop_io_free(local->io);
    loop_timer_free(local->pause);
    if (local->fd >= 0) {
        close(local->fd);
        unlink(local->path);
    }
    while (!LIST_EMPTY(&local->connections)) {
        struct connection *connection = LIST_FIRST(&local->connections);
        if (connection->peer)
            worker_link_closed(local->sidecar, connection->peer, "the sidecar leaves");
        connection_free(connection);
    }
    http_server_free(local->http);
    local_blobs_free(local->blobs);
    free(local->path);
    free(local);
}
