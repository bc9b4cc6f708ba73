/* What is not obvious about evhttp 2.1:
 * - When the client leaves while we hold its request, evhttp takes the request off the connection and forgets it (its connection is then NULL): we free it.
 *   When the server is freed the request still hangs on its connection and dies with it.
 * - Its read timeout also runs while a handler thinks, so it is taken away for the time of an answer. A write timeout stays: it runs only while bytes wait.
 * - Its listener needs a name. An abstract one could be connected to by every user of the host, without a limit that evhttp knows; so it is a
 *   file in the caller's private directory, reached through the directory's descriptor (no path is too long that way). */
#include "base/http.h"

#include "base/alloc.h"
#include "base/http_splice.h"
#include "base/loop.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { SEGMENTS_MAX = 4, SEGMENT_SIZE = 520, WRITE_TIMEOUT_S = 60, NAME_MAX_HERE = 71, FLUSH_PIECES = 64, READ_AHEAD_MAX = 256 << 10 };

struct carried {
    struct http_server *server;
    struct sockaddr_un name; /* of our end, by which evhttp's end finds back */
    socklen_t name_len;
    struct splice *splice;
    LIST_ENTRY(carried) entry;
};

struct http_server {
    struct loop *loop;
    struct http_options options;
    const struct http_route *routes;
    void *ctx;
    struct evhttp *evhttp;
    int dir_fd;
    char name[72];
    struct sockaddr_un address;
    LIST_HEAD(, carried) carried;
    LIST_HEAD(, http_request) requests;
    unsigned n_carried;
};

struct http_request {
    struct http_server *server;
    struct evhttp_request *ev;
    struct evkeyvalq query;
    char segments[SEGMENTS_MAX][SEGMENT_SIZE];
    size_t n_segments;
    void (*on_gone)(void *ctx);
    void (*on_drained)(void *ctx);
    void *ctx;
    struct loop_timer *overflow; /* closes a reader that is too slow */
    bool is_streaming;
    LIST_ENTRY(http_request) entry;
};

/* ---- life of a request ----------------------------------------------------------------------------------------- */

static void request_free(struct http_request *request)
{
    LIST_REMOVE(request, entry);
    evhttp_clear_headers(&request->query);
    loop_timer_free(request->overflow);
    free(request);
}

static void on_connection_closed(struct evhttp_connection *connection, void *ctx)
{
    struct http_request *request = ctx;
    if (request->on_gone)
        request->on_gone(request->ctx);
    if (!evhttp_request_get_connection(request->ev))
        evhttp_request_free(request->ev);
    request_free(request);
}

static void set_timeouts(struct evhttp_connection *connection, unsigned read_s)
{
    struct timeval reading = {.tv_sec = read_s}, writing = {.tv_sec = WRITE_TIMEOUT_S};
    bufferevent_set_timeouts(evhttp_connection_get_bufferevent(connection), read_s ? &reading : NULL, &writing);
}

/* From here on evhttp finishes the exchange alone. */
static struct evhttp_request *let_go(struct http_request *request)
{
    struct evhttp_request *ev = request->ev;
    struct evhttp_connection *connection = evhttp_request_get_connection(ev);
    if (connection) {
        evhttp_connection_set_closecb(connection, NULL, NULL);
        set_timeouts(connection, request->server->options.idle_s);
    }
    return ev;
}

static void drop_carried(struct carried *carried)
{
    LIST_REMOVE(carried, entry);
    carried->server->n_carried--;
    splice_free(carried->splice);
    free(carried);
}

/* What carries this request; NULL: its client is away. */
static struct carried *carried_of(const struct http_request *request)
{
    struct sockaddr_un name;
    socklen_t len = sizeof name;
    struct carried *carried;
    int fd = bufferevent_getfd(evhttp_connection_get_bufferevent(evhttp_request_get_connection(request->ev)));
    if (getpeername(fd, (struct sockaddr *)&name, &len) != 0)
        return NULL;
    LIST_FOREACH(carried, &request->server->carried, entry)
        if (carried->name_len == len && !memcmp(&carried->name, &name, len))
            return carried;
    return NULL;
}

/* So that the client sees the end although it does not read. */
static void cut(struct http_request *request)
{
    struct carried *carried = carried_of(request);
    if (carried)
        drop_carried(carried);
}

static void on_overflow(void *ctx)
{
    struct http_request *request = ctx;
    if (request->server->options.on_overflow && carried_of(request))
        request->server->options.on_overflow(request->server->ctx);
    cut(request);
    evhttp_connection_free(evhttp_request_get_connection(request->ev)); /* → on_connection_closed */
}

/* ---- routing --------------------------------------------------------------------------------------------------------- */

/* Decodes one segment of a path. False: empty, too long, or with a NUL in it. */
static bool take_segment(struct http_request *request, const char *start, size_t len)
{
    char *raw = xstrndup(start, len);
    size_t decoded_len = 0;
    char *decoded = evhttp_uridecode(raw, 0, &decoded_len);
    free(raw);
    bool is_good = decoded && len > 0 && decoded_len < SEGMENT_SIZE && strlen(decoded) == decoded_len && request->n_segments < SEGMENTS_MAX;
    if (is_good)
        memcpy(request->segments[request->n_segments++], decoded, decoded_len + 1);
    free(decoded);
    return is_good;
}

static bool matches(struct http_request *request, const char *pattern, const char *path)
{
    request->n_segments = 0;
    while (*pattern) {
        if (pattern[0] == '{') {
            size_t len = strcspn(path, "/");
            if (!take_segment(request, path, len))
                return false;
            pattern += 2;
            path += len;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return *path == '\0';
}

static enum http_method method_of(struct evhttp_request *ev)
{
    switch (evhttp_request_get_command(ev)) {
    case EVHTTP_REQ_GET: return HTTP_GET;
    case EVHTTP_REQ_POST: return HTTP_POST;
    case EVHTTP_REQ_PUT: return HTTP_PUT;
    case EVHTTP_REQ_DELETE: return HTTP_DELETE;
    default: return 0;
    }
}

static void refuse(struct http_request *request, int status, enum amp_code code, const char *text)
{
    cJSON *json = cJSON_CreateObject();
    cJSON *error = cJSON_AddObjectToObject(json, "error");
    char number[16];
    snprintf(number, sizeof number, "AMESH-%u", (unsigned)code);
    cJSON_AddStringToObject(error, "code", number);
    cJSON_AddStringToObject(error, "name", amp_code_info(code)->name);
    cJSON_AddStringToObject(error, "message", text);
    char *body = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    http_reply(request, status, "application/json", amp_bytes_of(body));
    free(body);
}

static const struct http_route *find_route(struct http_request *request, const char *path, unsigned *ret_methods)
{
    enum http_method method = method_of(request->ev);
    *ret_methods = 0;
    for (const struct http_route *route = request->server->routes; route->path; route++) {
        if (!matches(request, route->path, path))
            continue;
        *ret_methods |= route->method;
        if (route->method == method)
            return route;
    }
    return NULL;
}

static void refuse_method(struct http_request *request, unsigned methods)
{
    static const char *const names[] = {"GET", "POST", "PUT", "DELETE"}; /* by bit of enum http_method */
    char allow[32] = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (methods & 1u << i)
            snprintf(allow + strlen(allow), sizeof allow - strlen(allow), "%s%s", *allow ? ", " : "", names[i]);
    http_set_header(request, "Allow", allow);
    refuse(request, 405, AMP_UNSUPPORTED, "this address does not take this method");
}

/* Two lengths are two opinions on where the next request begins. evhttp takes the first that it likes. */
static bool has_one_length(const struct http_request *request)
{
    const struct evkeyval *header;
    unsigned lengths = 0, encodings = 0;
    TAILQ_FOREACH(header, evhttp_request_get_input_headers(request->ev), next)
    {
        lengths += strcasecmp(header->key, "Content-Length") == 0;
        encodings += strcasecmp(header->key, "Transfer-Encoding") == 0;
    }
    return lengths + encodings <= 1;
}

static void dispatch(struct http_request *request)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request->ev);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    const char *query = uri ? evhttp_uri_get_query(uri) : NULL;
    unsigned methods;
    if (http_header(request, "Origin")) {
        refuse(request, 403, AMP_DENIED, "web pages may not speak to this socket");
    } else if (!has_one_length(request)) {
        http_set_header(request, "Connection", "close");
        refuse(request, 400, AMP_MALFORMED, "the body's length is given more than once");
    } else if (!path || (query && evhttp_parse_query_str(query, &request->query) != 0)) {
        refuse(request, 400, AMP_INVALID, "the request's address cannot be read");
    } else {
        const struct http_route *route = find_route(request, path, &methods);
        if (route)
            route->handle(request->server->ctx, request);
        else if (methods)
            refuse_method(request, methods);
        else
            refuse(request, 404, AMP_NOT_FOUND, "there is nothing at this address");
    }
}

static void on_request(struct evhttp_request *ev, void *ctx)
{
    struct http_server *server = ctx;
    struct http_request *request = xcalloc(1, sizeof *request);
    struct evhttp_connection *connection = evhttp_request_get_connection(ev);
    request->server = server;
    request->ev = ev;
    TAILQ_INIT(&request->query);
    request->overflow = loop_timer_new(server->loop, on_overflow, request);
    evhttp_connection_set_closecb(connection, on_connection_closed, request);
    set_timeouts(connection, 0);
    LIST_INSERT_HEAD(&server->requests, request, entry);
    bool is_away = !carried_of(request);
    dispatch(request);
    if (is_away && LIST_FIRST(&server->requests) == request) /* not answered at once */
        loop_timer_set(request->overflow, 0);
}

/* While an answer waits evhttp goes on reading what the client sends after it, for ever. */
static struct bufferevent *new_bufferevent(struct event_base *base, void *ctx)
{
    struct bufferevent *made = bufferevent_socket_new(base, -1, 0);
    if (made)
        bufferevent_setwatermark(made, EV_READ, 0, READ_AHEAD_MAX);
    return made;
}

/* ---- the server ------------------------------------------------------------------------------------------------------ */

/* The socket's address through the descriptor of its directory. */
static bool resolve(struct http_server *server, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash || strlen(slash + 1) > NAME_MAX_HERE)
        return false;
    char *dir = xstrndup(path, (size_t)(slash - path) + 1);
    server->dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    free(dir);
    if (server->dir_fd < 0)
        return false;
    snprintf(server->name, sizeof server->name, "%s", slash + 1);
    server->address.sun_family = AF_UNIX;
    snprintf(server->address.sun_path, sizeof server->address.sun_path, "/proc/self/fd/%d/%s", server->dir_fd, server->name);
    return true;
}

static bool listen_private(struct http_server *server, const char *path)
{
    if (!resolve(server, path))
        return false;
    unlinkat(server->dir_fd, server->name, 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    if (bind(fd, (struct sockaddr *)&server->address, sizeof server->address) == 0 && fchmodat(server->dir_fd, server->name, 0600, 0) == 0 && listen(fd, 128) == 0 &&
        evhttp_accept_socket(server->evhttp, fd) == 0)
        return true;
    close(fd);
    return false;
}

enum amp_code http_server_new(struct loop *loop, const struct http_options *options, const struct http_route *routes, void *ctx, struct http_server **ret,
                              struct amp_error *reterr)
{
    struct http_server *server = xcalloc(1, sizeof *server);
    server->loop = loop;
    server->options = *options;
    server->routes = routes;
    server->ctx = ctx;
    LIST_INIT(&server->carried);
    LIST_INIT(&server->requests);
    server->evhttp = evhttp_new(loop_base(loop));
    if (!server->evhttp)
        abort();
    evhttp_set_max_headers_size(server->evhttp, (ev_ssize_t)options->headers_max);
    evhttp_set_max_body_size(server->evhttp, (ev_ssize_t)options->body_max);
    evhttp_set_timeout(server->evhttp, (int)options->idle_s);
    evhttp_set_allowed_methods(server->evhttp, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | EVHTTP_REQ_HEAD | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE | EVHTTP_REQ_PATCH);
    evhttp_set_default_content_type(server->evhttp, NULL);
    evhttp_set_bevcb(server->evhttp, new_bufferevent, NULL);
    evhttp_set_gencb(server->evhttp, on_request, server);
    server->dir_fd = -1;
    if (!listen_private(server, options->private_path)) {
        enum amp_code code = amp_error_set(reterr, AMP_INTERNAL, "", "a private socket cannot be made: %s", strerror(errno));
        http_server_free(server);
        return code;
    }
    *ret = server;
    return AMP_OK;
}

void http_server_free(struct http_server *server)
{
    if (!server)
        return;
    evhttp_free(server->evhttp); /* closes its listener; every open request goes through on_connection_closed */
    while (!LIST_EMPTY(&server->carried))
        drop_carried(LIST_FIRST(&server->carried));
    if (server->dir_fd >= 0) {
        unlinkat(server->dir_fd, server->name, 0);
        close(server->dir_fd);
    }
    free(server);
}

/* evhttp looks for a client that goes away only once it writes. */
static void on_splice_closed(void *ctx, struct splice *splice)
{
    struct carried *carried = ctx;
    struct http_request *request;
    LIST_FOREACH(request, &carried->server->requests, entry)
        if (evhttp_request_get_connection(request->ev) && carried_of(request) == carried)
            break;
    drop_carried(carried);
    if (request)
        evhttp_connection_free(evhttp_request_get_connection(request->ev)); /* → on_connection_closed */
}

enum amp_code http_server_adopt(struct http_server *server, int fd)
{
    int own = server->n_carried < server->options.connections_max ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t name_len = sizeof name;
    /* The kernel picks the name. Nobody can connect to it: the socket does not listen. */
    bool is_connected = own >= 0 && bind(own, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0 && getsockname(own, (struct sockaddr *)&name, &name_len) == 0 &&
                        connect(own, (struct sockaddr *)&server->address, sizeof server->address) == 0;
    if (!is_connected) {
        close(fd);
        if (own >= 0)
            close(own);
        return AMP_OVERLOADED;
    }
    struct carried *carried = xcalloc(1, sizeof *carried);
    carried->server = server;
    carried->name = name;
    carried->name_len = name_len;
    LIST_INSERT_HEAD(&server->carried, carried, entry);
    server->n_carried++;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    carried->splice = splice_new(server->loop, fd, own, on_splice_closed, carried);
    return AMP_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

const char *http_segment(const struct http_request *request, size_t index)
{
    return index < request->n_segments ? request->segments[index] : "";
}

const char *http_query(const struct http_request *request, const char *name)
{
    return evhttp_find_header(&request->query, name);
}

const char *http_header(const struct http_request *request, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(request->ev), name);
}

static bool starts_with_type(const char *value, const char *type)
{
    size_t len = strlen(type);
    value += strspn(value, " \t");
    return strncasecmp(value, type, len) == 0 && (value[len] == '\0' || strchr(" \t;,", value[len]));
}

bool http_accepts(const struct http_request *request, const char *type)
{
    const char *accept = http_header(request, "Accept");
    return accept && starts_with_type(accept, type);
}

bool http_is_type(const struct http_request *request, const char *type)
{
    const char *value = http_header(request, "Content-Type");
    return value && starts_with_type(value, type);
}

struct amp_bytes http_body(const struct http_request *request)
{
    struct evbuffer *body = evhttp_request_get_input_buffer(request->ev);
    size_t len = evbuffer_get_length(body);
    return (struct amp_bytes){len ? evbuffer_pullup(body, -1) : (const uint8_t *)"", len};
}

void http_on_gone(struct http_request *request, void (*gone)(void *ctx), void *ctx)
{
    request->on_gone = gone;
    request->ctx = ctx;
}

/* ---- answering ----------------------------------------------------------------------------------------------------------- */

void http_set_header(struct http_request *request, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(request->ev), name, value);
}

static void set_common_headers(struct http_request *request, const char *type)
{
    if (type)
        http_set_header(request, "Content-Type", type);
    http_set_header(request, "Cache-Control", "no-store");
    http_set_header(request, "X-Content-Type-Options", "nosniff");
}

void http_reply(struct http_request *request, int status, const char *type, struct amp_bytes body)
{
    set_common_headers(request, type);
    struct evbuffer *buffer = evbuffer_new();
    if (!buffer || evbuffer_add(buffer, body.data, body.len) != 0)
        abort();
    struct evhttp_request *ev = let_go(request);
    evhttp_send_reply(ev, status, NULL, buffer);
    evbuffer_free(buffer);
    request_free(request);
}

void http_reply_file(struct http_request *request, const char *type, int fd, uint64_t size)
{
    set_common_headers(request, type);
    struct evbuffer *buffer = evbuffer_new();
    if (!buffer || evbuffer_set_flags(buffer, EVBUFFER_FLAG_DRAINS_TO_FD) != 0) /* else it would be mapped into memory */
        abort();
    if (size == 0)
        (void)close(fd);
    else if (evbuffer_add_file(buffer, fd, 0, (ev_off_t)size) != 0)
        abort();
    struct evhttp_request *ev = let_go(request);
    evhttp_send_reply(ev, 200, NULL, buffer);
    evbuffer_free(buffer);
    request_free(request);
}

void http_reply_error(struct http_request *request, const struct amp_error *err)
{
    const struct amp_code_info *info = amp_code_info(err->code);
    cJSON *json = cJSON_CreateObject();
    cJSON *error = cJSON_AddObjectToObject(json, "error");
    char text[24];
    snprintf(text, sizeof text, "AMESH-%u", (unsigned)err->code);
    cJSON_AddStringToObject(error, "code", text);
    cJSON_AddStringToObject(error, "name", info->name);
    cJSON_AddStringToObject(error, "message", err->message[0] ? err->message : info->text);
    if (err->hint[0])
        cJSON_AddStringToObject(error, "hint", err->hint);
    if (err->retry_after_ms) {
        snprintf(text, sizeof text, "%u", (err->retry_after_ms + 999) / 1000);
        http_set_header(request, "Retry-After", text);
    }
    char *body = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    http_reply(request, info->http, "application/json", amp_bytes_of(body));
    free(body);
}

void http_stream_start(struct http_request *request, int status, const char *type)
{
    set_common_headers(request, type);
    request->is_streaming = true;
    evhttp_send_reply_start(request->ev, status, NULL);
}

void http_on_drained(struct http_request *request, void (*on_drained)(void *ctx))
{
    request->on_drained = on_drained;
}

size_t http_stream_waiting(const struct http_request *request)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request->ev);
    return connection ? evbuffer_get_length(bufferevent_get_output(evhttp_connection_get_bufferevent(connection))) : 0;
}

static void on_chunks_out(struct evhttp_connection *connection, void *ctx)
{
    struct http_request *request = ctx;
    if (request->on_drained)
        request->on_drained(request->ctx);
}

enum amp_code http_stream_write(struct http_request *request, struct amp_bytes data)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request->ev);
    if (!connection || loop_timer_is_set(request->overflow))
        return AMP_OVERLOADED;
    if (http_stream_waiting(request) + data.len > request->server->options.out_max) {
        loop_timer_set(request->overflow, 0);
        return AMP_OVERLOADED;
    }
    if (data.len == 0)
        return AMP_OK;
    struct evbuffer *chunk = evbuffer_new();
    if (!chunk || evbuffer_add(chunk, data.data, data.len) != 0)
        abort();
    evhttp_send_reply_chunk_with_cb(request->ev, chunk, on_chunks_out, request); /* let_go has another one put in its place */
    evbuffer_free(chunk);
    return AMP_OK;
}

void http_stream_end(struct http_request *request)
{
    if (loop_timer_is_set(request->overflow)) { /* what did not fit is missing: this is no good end */
        request->on_gone = NULL;
        on_overflow(request);
        return;
    }
    struct evhttp_request *ev = let_go(request);
    evhttp_send_reply_end(ev);
    request_free(request);
}

/* What was written so far, as much as the socket takes: evhttp_connection_free throws it away. */
static void flush_now(struct evhttp_connection *connection)
{
    struct bufferevent *bev = evhttp_connection_get_bufferevent(connection);
    struct evbuffer_iovec pieces[FLUSH_PIECES];
    int n = evbuffer_peek(bufferevent_get_output(bev), -1, NULL, pieces, FLUSH_PIECES);
    for (int i = 0; i < n && i < FLUSH_PIECES; i++)
        if (send(bufferevent_getfd(bev), pieces[i].iov_base, pieces[i].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)pieces[i].iov_len)
            return;
}

void http_stream_abort(struct http_request *request)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request->ev);
    flush_now(connection);
    request->on_gone = NULL;
    evhttp_connection_free(connection); /* → on_connection_closed, which frees the request */
}
