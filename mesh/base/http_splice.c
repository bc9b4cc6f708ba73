/* evhttp in libevent 2.1 cannot adopt a socket that somebody else accepted, so it gets its own listener and our connections are carried there. */
#include "base/http_splice.h"

#include "base/alloc.h"
#include "base/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIPE_SIZE = 64 << 10, LINGER_MS = 2000, STALL_MS = 60000 };
enum { CLIENT, SERVER };

struct pipe { /* what was read from one end and is not yet written to the other */
    unsigned char data[PIPE_SIZE];
    size_t start, len;
    bool is_eof;   /* nothing more will be read */
    bool is_shut;  /* the other end knows */
};

struct splice {
    int fd[2];
    struct loop_io *io[2];
    struct pipe pipe[2]; /* by the end it is read from */
    struct loop_timer *linger;
    void (*on_closed)(void *ctx, struct splice *splice);
    void *ctx;
};

static void fill(struct pipe *pipe, int fd)
{
    if (pipe->is_eof || pipe->len)
        return;
    ssize_t n = recv(fd, pipe->data, sizeof pipe->data, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    pipe->start = 0;
    pipe->len = n > 0 ? (size_t)n : 0;
    pipe->is_eof = n <= 0; /* an error ends this direction as well: what came before it has been read */
}

static bool drain(struct pipe *pipe, int fd)
{
    while (pipe->len) {
        ssize_t n = send(fd, pipe->data + pipe->start, pipe->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        pipe->start += (size_t)n;
        pipe->len -= (size_t)n;
    }
    if (pipe->is_eof && !pipe->is_shut) {
        shutdown(fd, SHUT_WR);
        pipe->is_shut = true;
    }
    return true;
}

static void want(struct splice *splice, int end)
{
    const struct pipe *in = &splice->pipe[end], *out = &splice->pipe[!end];
    loop_io_want(splice->io[end], (!in->is_eof && !in->len ? LOOP_READ : 0) | (out->len ? LOOP_WRITE : 0));
}

/* A client that reads nothing is not waited for for ever. When the server is done it gets a moment to read the rest, and what it still sends is read too: closing over
 * unread bytes would reset the connection and with it destroy the answer. */
static void limit(struct splice *splice, bool has_progress)
{
    const struct pipe *down = &splice->pipe[SERVER];
    bool is_needed = down->is_eof || down->len;
    if (!is_needed)
        loop_timer_stop(splice->linger);
    else if (has_progress || !loop_timer_is_set(splice->linger))
        loop_timer_set(splice->linger, down->is_eof ? LINGER_MS : STALL_MS);
}

static void on_linger(void *ctx)
{
    struct splice *splice = ctx;
    splice->on_closed(splice->ctx, splice);
}

/* Not only done with writing (half-closed, it still reads): nobody is there any more. Over TCP both look the same until something is written; no HTTP client half-closes there, and all of them leave. */
static bool is_away(int fd)
{
    struct pollfd end = {.fd = fd};
    struct sockaddr_storage own = {0};
    socklen_t len = sizeof own;
    if (getsockname(fd, (struct sockaddr *)&own, &len) == 0 && own.ss_family != AF_UNIX)
        return true;
    return poll(&end, 1, 0) > 0 && (end.revents & (POLLHUP | POLLERR));
}

static void move(struct splice *splice)
{
    struct pipe *up = &splice->pipe[CLIENT], *down = &splice->pipe[SERVER];
    fill(up, splice->fd[CLIENT]);
    if (!drain(up, splice->fd[SERVER]))
        up->len = 0; /* the server reads no more; what it answered is still to be delivered */
    fill(down, splice->fd[SERVER]);
    size_t left = down->len;
    bool is_good = drain(down, splice->fd[CLIENT]);
    if (!is_good || (up->is_eof && (down->is_shut || is_away(splice->fd[CLIENT])))) {
        splice->on_closed(splice->ctx, splice);
        return;
    }
    limit(splice, down->len < left);
    want(splice, CLIENT);
    want(splice, SERVER);
}

static void on_ready(void *ctx, int events)
{
    move(ctx);
}

struct splice *splice_new(struct loop *loop, int fd_a, int fd_b, void (*on_closed)(void *ctx, struct splice *splice), void *ctx)
{
    struct splice *splice = xcalloc(1, sizeof *splice);
    splice->fd[0] = fd_a;
    splice->fd[1] = fd_b;
    splice->on_closed = on_closed;
    splice->ctx = ctx;
    splice->linger = loop_timer_new(loop, on_linger, splice);
    for (int i = 0; i < 2; i++) {
        splice->io[i] = loop_io_new(loop, splice->fd[i], on_ready, splice);
        want(splice, i);
    }
    return splice;
}

void splice_free(struct splice *splice)
{
    if (!splice)
        return;
    for (int i = 0; i < 2; i++) {
        loop_io_free(splice->io[i]);
        close(splice->fd[i]);
    }
    loop_timer_free(splice->linger);
    free(splice);
}
