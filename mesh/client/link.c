/* Lines in and out of one socket. The descriptor's own flags are left alone, because it may be shared with who started us; each call says MSG_DONTWAIT for itself. A line
 * goes out whole or the connection is over. */
#include "client_private.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 64 << 10 };

int64_t amesh_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void amesh_link_init(struct amesh_link *link, int fd)
{
    *link = (struct amesh_link){.fd = fd};
    amp_buf_init(&link->in, AMESH_FRAME_MAX + READ_SIZE);
    amp_buf_init(&link->out, AMP_LINE_MAX + 1);
}

void amesh_link_done(struct amesh_link *link)
{
    amp_buf_done(&link->in);
    amp_buf_done(&link->out);
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
}

enum amp_code amesh_link_break(struct amesh_link *link, enum amp_code code, const char *text)
{
    link->is_broken = true;
    if (link->error.code == AMP_OK) /* else the sidecar has said why */
        amp_error_set(&link->error, code, "", "%s", text);
    return link->error.code;
}

static enum amp_code break_errno(struct amesh_link *link, const char *what)
{
    struct amp_error err;
    amp_error_set(&err, AMP_NO_SIDECAR, "", "%s: %s", what, strerror(errno));
    return amesh_link_break(link, AMP_NO_SIDECAR, err.message);
}

/* ---- in --------------------------------------------------------------------------------------------------------- */

static void forget_taken(struct amesh_link *link)
{
    if (link->in_start == 0)
        return;
    size_t left = link->in.len - link->in_start;
    memmove(link->in.data, link->in.data + link->in_start, left);
    link->in.len = left;
    link->in_seen -= link->in_start;
    link->in_start = 0;
    if (left == 0 && link->in.cap > (size_t)4 * READ_SIZE)
        amp_buf_done(&link->in);
}

enum amp_code amesh_link_read(struct amesh_link *link, int timeout_ms)
{
    char piece[READ_SIZE];
    if (link->is_broken)
        return link->error.code;
    struct pollfd poll_fd = {.fd = link->fd, .events = POLLIN};
    int ready = timeout_ms == 0 ? 1 : poll(&poll_fd, 1, timeout_ms);
    if (ready == 0 || (ready < 0 && errno == EINTR))
        return AMP_OK;
    ssize_t n = ready < 0 ? -1 : recv(link->fd, piece, sizeof piece, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return AMP_OK;
    if (n < 0)
        return break_errno(link, "the connection to the sidecar broke");
    if (n == 0)
        return amesh_link_break(link, AMP_NO_SIDECAR, link->in.len > link->in_start ? "the sidecar closed the connection in the middle of a line" : "the sidecar closed the connection");
    forget_taken(link);
    enum amp_code code = amp_buf_append(&link->in, piece, (size_t)n);
    if (code == AMP_TOO_LARGE)
        return amesh_link_break(link, AMP_TOO_LARGE, "the sidecar sent a line that is longer than 17 MiB");
    return code == AMP_OK ? AMP_OK : amesh_link_break(link, code, "out of memory");
}

bool amesh_link_line(struct amesh_link *link, struct amp_bytes *ret)
{
    if (link->in_seen == link->in.len)
        return false;
    const uint8_t *end = memchr(link->in.data + link->in_seen, '\n', link->in.len - link->in_seen);
    if (!end) {
        link->in_seen = link->in.len;
        return false;
    }
    *ret = (struct amp_bytes){link->in.data + link->in_start, (size_t)(end - link->in.data) - link->in_start};
    link->in_start = link->in_seen = (size_t)(end - link->in.data) + 1;
    return true;
}

/* ---- out -------------------------------------------------------------------------------------------------------- */

struct amp_buf *amesh_link_begin(struct amesh_link *link)
{
    amp_buf_reset(&link->out);
    return &link->out;
}

/* As long as it takes: a sidecar holds an agent back whose reader is slow. One that ends is seen as a broken connection. */
static enum amp_code wait_writable(struct amesh_link *link)
{
    struct pollfd poll_fd = {.fd = link->fd, .events = POLLOUT};
    if (poll(&poll_fd, 1, -1) < 0 && errno != EINTR)
        return break_errno(link, "the connection to the sidecar broke");
    return AMP_OK;
}

static enum amp_code send_all(struct amesh_link *link)
{
    enum amp_code code = AMP_OK;
    for (size_t done = 0; code == AMP_OK && done < link->out.len;) {
        ssize_t n = send(link->fd, link->out.data + done, link->out.len - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            code = wait_writable(link);
        else if (errno != EINTR)
            code = break_errno(link, "the connection to the sidecar broke");
    }
    return code;
}

enum amp_code amesh_link_send(struct amesh_link *link)
{
    if (link->is_broken)
        return link->error.code;
    amp_buf_append(&link->out, "\n", 1);
    if (link->out.is_full)
        return AMP_TOO_LARGE;
    return send_all(link);
}

/* ---- members ---------------------------------------------------------------------------------------------------- */

static void put_name(struct amp_buf *out, const char *name)
{
    bool is_first = out->len == 0 || out->data[out->len - 1] == '{';
    amp_buf_printf(out, "%s\"%s\":", is_first ? "" : ",", name);
}

void amesh_put_bytes(struct amp_buf *out, const char *name, struct amp_bytes text)
{
    put_name(out, name);
    amp_json_append_string(out, text);
}

void amesh_put_string(struct amp_buf *out, const char *name, const char *value)
{
    if (value)
        amesh_put_bytes(out, name, amp_bytes_of(value));
}

void amesh_put_number(struct amp_buf *out, const char *name, uint64_t value)
{
    put_name(out, name);
    amp_buf_printf(out, "%llu", (unsigned long long)value);
}

void amesh_put_true(struct amp_buf *out, const char *name, bool is_true)
{
    if (!is_true)
        return;
    put_name(out, name);
    amp_buf_printf(out, "true");
}

void amesh_put_open(struct amp_buf *out, const char *name)
{
    put_name(out, name);
    amp_buf_append(out, "{", 1);
}

void amesh_put_close(struct amp_buf *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        amp_buf_append(out, "}", 1);
}

enum amp_code amesh_put_json(struct amp_buf *out, const char *name, const char *json, struct amp_error *reterr)
{
    if (!json)
        return AMP_OK;
    struct amp_bytes text = amp_bytes_of(json);
    enum amp_code code = amp_json_check(text, &amp_json_limits_default, reterr);
    if (code != AMP_OK)
        return code;
    put_name(out, name);
    size_t at = out->len;
    amp_buf_append(out, text.data, text.len);
    for (; at < out->len; at++) /* white space between tokens; inside of a string it would have been refused */
        if (out->data[at] == '\n' || out->data[at] == '\r')
            out->data[at] = ' ';
    return AMP_OK;
}
