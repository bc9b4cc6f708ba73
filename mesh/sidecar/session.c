/* A line is parsed only when it is whole, so half lines cost memory up to AMP_LINE_MAX and nothing else. Output is collected and leaves once per
 * turn. Callbacks may free the session: `depth` keeps the memory until the last frame of ours has returned. */
#include "sidecar/session.h"

#include "base/alloc.h"
#include "base/counters.h"
#include "base/json_room.h"
#include "base/loop.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OUT_MAX = 16 << 20,    /* bytes that may wait for a reader that does not read */
    STREAMS_MAX = 64 << 20, /* the same with streams that are held back already, but had something on its way */
    READ_SIZE = 64 << 10,  /* per turn, so that one peer cannot starve the others */
    BAD_LINES_MAX = 32,    /* in a row (local-api.md 1.4) */
    RPC_PARSE = -32700, RPC_FRAME = -32600, RPC_PARAMS = -32602,
};

struct session {
    struct loop *loop;
    int fd_in, fd_out; /* -1: fed */
    struct loop_io *in, *out;
    struct loop_tick *flush;
    struct loop_timer *closing; /* session_close reports from the loop, not from inside its caller */
    struct session_handlers handlers;
    enum amp_code (*write)(void *ctx, struct amp_bytes data);
    void *ctx;
    struct amp_buf line, queue;
    size_t queue_start; /* bytes of `queue` already written */
    char *reason;
    uint64_t next_number;
    unsigned bad_lines, depth;
    bool allows_text, is_skipping, is_closed, is_freed;
};

/* ---- life ------------------------------------------------------------------------------------------ */

static void destroy(struct session *session)
{
    amp_buf_done(&session->line);
    amp_buf_done(&session->queue);
    free(session->reason);
    free(session);
}

static void enter(struct session *session)
{
    session->depth++;
}

static void leave(struct session *session)
{
    if (--session->depth == 0 && session->is_freed)
        destroy(session);
}

static void release_descriptors(struct session *session)
{
    loop_io_free(session->in);
    loop_io_free(session->out);
    session->in = session->out = NULL;
    if (session->fd_out >= 0 && session->fd_out != session->fd_in)
        close(session->fd_out);
    if (session->fd_in >= 0)
        close(session->fd_in);
    session->fd_in = session->fd_out = -1;
}

static void finish(struct session *session, const char *reason)
{
    if (session->is_closed)
        return;
    session->is_closed = true;
    loop_tick_free(session->flush);
    loop_timer_free(session->closing);
    session->flush = NULL;
    session->closing = NULL;
    release_descriptors(session);
    enter(session);
    session->handlers.on_closed(session->ctx, reason);
    leave(session);
}

static void on_closing(void *ctx)
{
    struct session *session = ctx;
    finish(session, session->reason);
}

void session_close(struct session *session, const char *reason)
{
    if (session->is_closed || loop_timer_is_set(session->closing))
        return;
    session->reason = xstrdup(reason);
    /* Ticks run in the order in which they were asked for: what is queued goes first. */
    loop_timer_set(session->closing, 0);
}

/* ---- output ----------------------------------------------------------------------------------------- */

static bool write_descriptor(struct session *session)
{
    while (session->queue_start < session->queue.len) {
        ssize_t n = write(session->fd_out, session->queue.data + session->queue_start, session->queue.len - session->queue_start);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        session->queue_start += (size_t)n;
    }
    return true;
}

static bool write_queue(struct session *session)
{
    if (session->queue.len == session->queue_start)
        return true;
    if (!session->write)
        return write_descriptor(session);
    session->queue_start = session->queue.len;
    return session->write(session->ctx, amp_buf_bytes(&session->queue)) == AMP_OK;
}

static void compact_queue(struct session *session)
{
    size_t left = session->queue.len - session->queue_start;
    if (left && session->queue_start < session->queue.len / 2)
        return;
    if (left)
        memmove(session->queue.data, session->queue.data + session->queue_start, left);
    session->queue.len = left;
    session->queue_start = 0;
    if (!left && session->queue.cap > READ_SIZE)
        amp_buf_done(&session->queue), amp_buf_init(&session->queue, STREAMS_MAX);
}

static void on_flush(void *ctx)
{
    struct session *session = ctx;
    bool is_good = write_queue(session);
    compact_queue(session);
    if (!is_good) {
        finish(session, session->write ? "the agent does not read its input" : "the connection broke while writing");
        return;
    }
    if (session->out)
        loop_io_want(session->out, session->queue.len > session->queue_start ? LOOP_WRITE : 0);
    if (session_waiting(session) == 0 && session->handlers.on_drained)
        session->handlers.on_drained(session->ctx);
}

size_t session_waiting(const struct session *session)
{
    return session->queue.len - session->queue_start;
}

static void on_writable(void *ctx, int events)
{
    on_flush(ctx);
}

/* One line of these pieces; a line is never cut in two. */
static enum amp_code push(struct session *session, const struct amp_bytes *pieces, size_t n, size_t most)
{
    struct amp_buf *queue = &session->queue;
    size_t len = 1;
    if (session->is_closed)
        return AMP_NO_SIDECAR;
    for (size_t i = 0; i < n; i++)
        len += pieces[i].len;
    if (len > most || session_waiting(session) > most - len)
        return AMP_OVERLOADED;
    if (len > STREAMS_MAX - queue->len) { /* the written part is still in front */
        memmove(queue->data, queue->data + session->queue_start, queue->len - session->queue_start);
        queue->len -= session->queue_start;
        session->queue_start = 0;
    }
    size_t start = queue->len;
    enum amp_code code = AMP_OK;
    for (size_t i = 0; i < n && code == AMP_OK; i++)
        code = amp_buf_append(queue, pieces[i].data, pieces[i].len);
    if (code == AMP_OK)
        code = amp_buf_append(queue, "\n", 1);
    if (code == AMP_OK)
        loop_tick_request(session->flush);
    else
        queue->len = start, queue->is_full = false;
    return code;
}

/* Text that is part of a line. */
#define PIECE(text) ((struct amp_bytes){(const uint8_t *)(text), sizeof(text) - 1})
#define FRAME_HEAD "{\"jsonrpc\":\"2.0\","

static struct amp_bytes or_empty(struct amp_bytes params)
{
    return params.len ? params : PIECE("{}");
}

enum amp_code session_request(struct session *session, const char *method, struct amp_bytes params, uint64_t *ret_number)
{
    char head[64];
    uint64_t number = ++session->next_number;
    int len = snprintf(head, sizeof head, FRAME_HEAD "\"id\":%" PRIu64 ",\"method\":\"", number);
    const struct amp_bytes pieces[] = {{(const uint8_t *)head, (size_t)len}, amp_bytes_of(method), PIECE("\",\"params\":"), or_empty(params), PIECE("}")};
    *ret_number = number;
    return push(session, pieces, sizeof pieces / sizeof *pieces, OUT_MAX);
}

enum amp_code session_notify(struct session *session, const char *method, struct amp_bytes params)
{
    const struct amp_bytes pieces[] = {PIECE(FRAME_HEAD "\"method\":\""), amp_bytes_of(method), PIECE("\",\"params\":"), or_empty(params), PIECE("}")};
    return push(session, pieces, sizeof pieces / sizeof *pieces, OUT_MAX);
}

enum amp_code session_stream(struct session *session, const char *method, const struct amp_bytes *params, size_t n_params)
{
    struct amp_bytes pieces[SESSION_PIECES_MAX + 4] = {PIECE(FRAME_HEAD "\"method\":\""), amp_bytes_of(method), PIECE("\",\"params\":")};
    size_t n = 3;
    for (size_t i = 0; i < n_params && i < SESSION_PIECES_MAX; i++)
        pieces[n++] = params[i];
    pieces[n++] = PIECE("}");
    return push(session, pieces, n, STREAMS_MAX);
}

char *session_id_text(const struct cJSON *id, char room[SESSION_ID_ROOM])
{
    bool is_whole = cJSON_IsNumber(id) && id->valuedouble == (double)id->valueint;
    if (id && !is_whole)
        return cJSON_PrintUnformatted(id);
    if (id)
        snprintf(room, SESSION_ID_ROOM, "%d", id->valueint);
    else
        memcpy(room, "null", sizeof "null");
    return room;
}

enum amp_code session_reply(struct session *session, const struct cJSON *id, struct amp_bytes result)
{
    char room[SESSION_ID_ROOM];
    char *text = session_id_text(id, room);
    if (!text)
        return AMP_NO_MEMORY;
    const struct amp_bytes pieces[] = {PIECE(FRAME_HEAD "\"id\":"), amp_bytes_of(text), PIECE(",\"result\":"), result.len ? result : PIECE("null"), PIECE("}")};
    enum amp_code code = push(session, pieces, sizeof pieces / sizeof *pieces, OUT_MAX);
    if (text != room)
        free(text);
    return code;
}

enum amp_code session_error(struct session *session, const struct cJSON *id, int number, const struct amp_error *err)
{
    cJSON *frame = cJSON_CreateObject();
    cJSON_AddStringToObject(frame, "jsonrpc", "2.0");
    cJSON_AddItemToObject(frame, "id", id ? cJSON_Duplicate(id, true) : cJSON_CreateNull());
    cJSON *error = cJSON_AddObjectToObject(frame, "error");
    cJSON_AddNumberToObject(error, "code", number);
    cJSON_AddStringToObject(error, "message", err->message[0] ? err->message : amp_code_info(err->code)->text);
    cJSON *data = cJSON_AddObjectToObject(error, "data");
    char code[16];
    snprintf(code, sizeof code, "AMESH-%u", (unsigned)err->code);
    cJSON_AddStringToObject(data, "code", code);
    cJSON_AddStringToObject(data, "name", amp_code_info(err->code)->name);
    if (err->hint[0])
        cJSON_AddStringToObject(data, "hint", err->hint);
    if (err->retry_after_ms)
        cJSON_AddNumberToObject(data, "retryAfterMs", err->retry_after_ms);
    char *text = cJSON_PrintUnformatted(frame);
    struct amp_bytes line = amp_bytes_of(text);
    enum amp_code pushed = text ? push(session, &line, 1, OUT_MAX) : AMP_NO_MEMORY;
    free(text);
    cJSON_Delete(frame);
    return pushed;
}

/* ---- input ------------------------------------------------------------------------------------------ */

static void refuse_line(struct session *session, const cJSON *id, int number, const struct amp_error *err)
{
    counter_add(COUNTER_local_bad_lines, 1);
    /* A peer that sends garbage and reads nothing fills the queue; then there is nobody to tell. */
    if (session_error(session, id, number, err) != AMP_OK)
        session_close(session, "the peer does not read its answers");
    else if (++session->bad_lines >= BAD_LINES_MAX)
        session_close(session, "too many lines in a row that were not frames");
}

static bool id_is_good(const cJSON *id)
{
    return cJSON_IsNumber(id) || (cJSON_IsString(id) && strlen(id->valuestring) <= SESSION_ID_MAX);
}

static void take_call(struct session *session, const cJSON *frame, const cJSON *method)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(frame, "id");
    const cJSON *params = cJSON_GetObjectItemCaseSensitive(frame, "params");
    struct amp_error err = {0};
    if (id && !id_is_good(id)) {
        amp_error_set(&err, AMP_INVALID, "id", "an id is a number or a string of at most %d bytes", SESSION_ID_MAX);
        refuse_line(session, NULL, RPC_FRAME, &err);
    } else if (params && !cJSON_IsObject(params)) {
        amp_error_set(&err, AMP_INVALID, "params", "params must be an object");
        refuse_line(session, id, RPC_PARAMS, &err);
    } else {
        session->bad_lines = 0;
        session->handlers.on_request(session->ctx, method->valuestring, params, id);
    }
}

static bool take_reply(struct session *session, const cJSON *frame)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(frame, "id");
    const cJSON *result = cJSON_GetObjectItemCaseSensitive(frame, "result");
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(frame, "error");
    if (!cJSON_IsNumber(id) || id->valuedouble < 1 || id->valuedouble > 9007199254740992.0)
        return cJSON_IsNull(id) && error; /* the peer could not read a line of ours: nothing to match it with */
    if (error && !cJSON_IsObject(error))
        return false;
    if (!result && !error)
        return false;
    session->bad_lines = 0;
    session->handlers.on_reply(session->ctx, (uint64_t)id->valuedouble, error ? NULL : result, error);
    return true;
}

static void lost_line(struct session *session, struct amp_bytes line, const struct amp_error *err)
{
    if (session->handlers.on_bad_line && !session->is_freed)
        session->handlers.on_bad_line(session->ctx, line, err);
}

static size_t skip_string(struct amp_bytes line, size_t at)
{
    while (at < line.len && line.data[at] != '"')
        at += line.data[at] == '\\' ? 2 : 1;
    return at < line.len ? at : line.len;
}

/* The value of a member of the outermost object, to its end or the line's, in a line that is not taken: how deep or large its other values are does not matter. */
static struct amp_bytes find_member(struct amp_bytes line, const char *name)
{
    size_t depth = 0, len = strlen(name);
    for (size_t i = 0; i < line.len; i++) {
        uint8_t c = line.data[i];
        depth += c == '{' || c == '[';
        depth -= depth > 0 && (c == '}' || c == ']');
        if (c != '"')
            continue;
        size_t start = i + 1, end = skip_string(line, start), at = end + 1;
        while (at < line.len && line.data[at] == ' ')
            at++;
        if (depth == 1 && at < line.len && line.data[at] == ':' && end - start == len && memcmp(line.data + start, name, len) == 0)
            return (struct amp_bytes){line.data + at + 1, line.len - at - 1};
        i = end;
    }
    return (struct amp_bytes){0};
}

/* A request that is refused for what is in it is answered under its own id: who waits for that answer would wait for ever. The caller's to delete; NULL: it is no request, or has none. */
static cJSON *find_id(struct amp_bytes line)
{
    struct amp_bytes value = find_member(line, "id");
    cJSON *id = NULL;
    size_t start = 0, end;
    while (start < value.len && value.data[start] == ' ')
        start++;
    if (start == value.len || !find_member(line, "method").data)
        return NULL;
    if (value.data[start] == '"')
        end = skip_string(value, start + 1) + 1;
    else
        for (end = start; end < value.len && strchr("+-.0123456789eE", value.data[end]) && value.data[end];)
            end++;
    if (end > value.len || amp_json_parse((struct amp_bytes){value.data + start, end - start}, &id, NULL) != AMP_OK || !id_is_good(id)) {
        cJSON_Delete(id);
        return NULL;
    }
    return id;
}

static void refuse_unread(struct session *session, struct amp_bytes line, const struct amp_error *err)
{
    cJSON *id = find_id(line);
    refuse_line(session, id, RPC_PARSE, err);
    cJSON_Delete(id);
    lost_line(session, line, err);
}

static void take_line(struct session *session, struct amp_bytes line)
{
    size_t start = 0;
    while (line.len && (line.data[line.len - 1] == '\r' || line.data[line.len - 1] == ' '))
        line.len--;
    while (start < line.len && (line.data[start] == ' ' || line.data[start] == '\t'))
        start++;
    if (start == line.len)
        return;
    if (session->allows_text && line.data[start] != '{') {
        if (session->handlers.on_text)
            session->handlers.on_text(session->ctx, line);
        return;
    }
    struct amp_error err = {0};
    cJSON *frame = NULL;
    if (json_room_parse(line, &frame, &err) != AMP_OK) {
        refuse_unread(session, line, &err);
        return;
    }
    const cJSON *method = cJSON_GetObjectItemCaseSensitive(frame, "method");
    if (cJSON_IsString(method)) {
        take_call(session, frame, method);
    } else if (!take_reply(session, frame)) {
        amp_error_set(&err, AMP_MALFORMED, "", "the line is JSON but neither a request nor a reply of JSON-RPC");
        refuse_line(session, NULL, RPC_FRAME, &err);
        lost_line(session, line, &err);
    }
    json_room_free(frame);
}

static void refuse_long_line(struct session *session, struct amp_bytes piece)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_TOO_LARGE, "", "a line may have %u bytes", AMP_LINE_MAX);
    session->is_skipping = true;
    refuse_line(session, NULL, RPC_PARSE, &err);
    lost_line(session, session->line.len ? amp_buf_bytes(&session->line) : piece, &err);
    if (!session->is_freed)
        amp_buf_reset(&session->line);
}

/* One piece up to a line's end (`is_end`) or to the end of what came. */
static void take_piece(struct session *session, struct amp_bytes piece, bool is_end)
{
    if (!session->is_skipping && session->line.len + piece.len > AMP_LINE_MAX)
        refuse_long_line(session, piece);
    if (session->is_skipping) {
        session->is_skipping = !is_end;
        return;
    }
    if (is_end && session->line.len == 0) { /* whole line in one read: no copy */
        take_line(session, piece);
        return;
    }
    if (amp_buf_append(&session->line, piece.data, piece.len) != AMP_OK)
        abort();
    if (!is_end)
        return;
    struct amp_buf line = session->line;
    amp_buf_init(&session->line, AMP_LINE_MAX + 1);
    take_line(session, amp_buf_bytes(&line));
    if (session->line.len == 0 && !session->line.data && line.cap <= READ_SIZE) {
        session->line = line;
        amp_buf_reset(&session->line);
    } else {
        amp_buf_done(&line);
    }
}

static bool is_over(const struct session *session)
{
    return session->is_closed || session->is_freed || session->reason;
}

void session_feed(struct session *session, struct amp_bytes data)
{
    if (is_over(session))
        return;
    enter(session);
    if (data.len == 0)
        finish(session, session->line.len ? "the connection closed in the middle of a line" : "the connection closed");
    while (data.len && !is_over(session)) {
        const uint8_t *end = memchr(data.data, '\n', data.len);
        size_t len = end ? (size_t)(end - data.data) : data.len;
        take_piece(session, (struct amp_bytes){data.data, len}, end != NULL);
        len += end ? 1 : 0;
        data.data += len;
        data.len -= len;
    }
    leave(session);
}

static void on_readable(void *ctx, int events)
{
    struct session *session = ctx;
    uint8_t buffer[READ_SIZE];
    ssize_t n = read(session->fd_in, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n < 0) {
        char reason[96];
        snprintf(reason, sizeof reason, "the connection broke: %s", strerror(errno));
        finish(session, reason);
        return;
    }
    session_feed(session, (struct amp_bytes){buffer, (size_t)n});
}

void session_pause(struct session *session, bool is_paused)
{
    if (session->in)
        loop_io_want(session->in, is_paused ? 0 : LOOP_READ);
}

void session_pump(struct session *session)
{
    struct pollfd poll_fd = {.fd = session->fd_in, .events = POLLIN};
    enter(session);
    /* Bounded: what a socket holds, not what a writer that still lives may add. */
    for (size_t i = 0; i < OUT_MAX / READ_SIZE && !is_over(session) && poll(&poll_fd, 1, 0) > 0; i++)
        on_readable(session, LOOP_READ);
    leave(session);
}

/* ---- constructors ------------------------------------------------------------------------------------ */

static struct session *make(struct loop *loop, bool allows_text, const struct session_handlers *handlers, void *ctx)
{
    struct session *session = xcalloc(1, sizeof *session);
    session->loop = loop;
    session->allows_text = allows_text;
    session->handlers = *handlers;
    session->ctx = ctx;
    session->fd_in = session->fd_out = -1;
    amp_buf_init(&session->line, AMP_LINE_MAX + 1);
    amp_buf_init(&session->queue, STREAMS_MAX);
    session->flush = loop_tick_new(loop, on_flush, session);
    session->closing = loop_timer_new(loop, on_closing, session);
    return session;
}

struct session *session_new(struct loop *loop, int fd_in, int fd_out, bool allows_text, const struct session_handlers *handlers, void *ctx)
{
    struct session *session = make(loop, allows_text, handlers, ctx);
    session->fd_in = fd_in;
    session->fd_out = fd_out;
    fcntl(fd_in, F_SETFL, fcntl(fd_in, F_GETFL) | O_NONBLOCK);
    fcntl(fd_out, F_SETFL, fcntl(fd_out, F_GETFL) | O_NONBLOCK);
    session->in = loop_io_new(loop, fd_in, on_readable, session);
    /* Two events of one descriptor are fine with libevent. */
    session->out = loop_io_new(loop, fd_out, on_writable, session);
    loop_io_want(session->in, LOOP_READ);
    return session;
}

struct session *session_new_fed(struct loop *loop, bool allows_text, const struct session_handlers *handlers,
                                enum amp_code (*write)(void *ctx, struct amp_bytes data), void *ctx)
{
    struct session *session = make(loop, allows_text, handlers, ctx);
    session->write = write;
    return session;
}

void session_free(struct session *session)
{
    if (!session || session->is_freed)
        return;
    if (!session->is_closed) {
        (void)write_queue(session); /* the last words, if the socket takes them */
        session->is_closed = true;
        loop_tick_free(session->flush);
        loop_timer_free(session->closing);
        release_descriptors(session);
    }
    session->is_freed = true;
    if (session->depth == 0)
        destroy(session);
}
