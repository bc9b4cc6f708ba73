/* evhttp in libevent 2.1 cannot adopt a socket that somebody else accepted, so it gets its own listener and our connections are carried there. */
#include "base/http_splice.h"

#include "base/alloc.h"
#include "base/loop.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIPE_SIZE = 64 << 10 };

struct pipe { /* from end `from` to the other */
    unsigned char data[PIPE_SIZE];
    size_t start, len;
    bool is_eof, is_shut;
};

struct splice {
    int fd[2];
    struct loop_io *io[2];
    struct pipe pipe[2]; /* pipe[i]: read from fd[i] */
    void (*on_closed)(void *ctx, struct splice *splice);
    void *ctx;
};

static bool fill(struct pipe *pipe, int fd)
{
    if (pipe->is_eof || pipe->len)
        return true;
    ssize_t n = recv(fd, pipe->data, sizeof pipe->data, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    pipe->start = 0;
    pipe->len = (size_t)n;
    pipe->is_eof = n == 0;
    return true;
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

static void move(struct splice *splice)
{
    bool is_good = true;
    for (int i = 0; i < 2 && is_good; i++)
        is_good = fill(&splice->pipe[i], splice->fd[i]) && drain(&splice->pipe[i], splice->fd[!i]);
    /* The server's side has closed for good once it has said everything: what the client may still send has no reader. */
    if (!is_good || splice->pipe[1].is_shut) {
        splice->on_closed(splice->ctx, splice);
        return;
    }
    want(splice, 0);
    want(splice, 1);
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
    free(splice);
}
