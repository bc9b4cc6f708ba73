/* An HTTP/1.1 server for a few routes: libevent's evhttp behind our types (http.c is the only user of <event2/http.h>). Loop thread only.
 *
 * Sockets are accepted by the caller and handed over with http_server_adopt. A request is the handler's until it is answered (http_reply, http_stream_end,
 * http_stream_abort) or gone: exactly one of the two happens, and the request is dead after it. */
#pragma once
#include <amp/amp.h>

struct loop;
struct http_server;
struct http_request;

struct http_options {
    const char *private_path; /* a socket of the server's own, in a directory that only this user may enter (evhttp cannot adopt sockets, so they are carried there);
                                 its last component at most 71 bytes */
    size_t body_max;    /* 413 above it */
    size_t headers_max;
    size_t out_max;     /* bytes that may wait for a slow reader; above it the connection is closed */
    unsigned idle_s;    /* an idle connection, or one that does not finish its request, is closed after it */
    unsigned connections_max;
    void (*on_overflow)(void *ctx); /* a slow reader was closed; for counters. May be NULL */
};

enum http_method { HTTP_GET = 1, HTTP_POST = 2, HTTP_PUT = 4, HTTP_DELETE = 8 };

struct http_route {
    enum http_method method;
    const char *path; /* "/v1/tasks/{}/events": {} stands for one non-empty segment, given decoded */
    void (*handle)(void *ctx, struct http_request *request);
};

/* `routes` ends with a row without path. A path that no row knows gets 404, a method 405 with `Allow`, an `Origin` header 403: no web page may speak to this server. */
AMP_MUST_USE enum amp_code http_server_new(struct loop *loop, const struct http_options *options, const struct http_route *routes, void *ctx, struct http_server **ret,
                                           struct amp_error *reterr);
/* Every open request is gone (on_gone is called). NULL is fine. */
void http_server_free(struct http_server *server);
/* Takes a connected stream socket over. A client that closes its half of a TCP connection counts as gone. AMP_OVERLOADED over connections_max: the socket is closed. */
AMP_MUST_USE enum amp_code http_server_adopt(struct http_server *server, int fd);

/* ---- the request ------------------------------------------------------------------------------------------ */

const char *http_segment(const struct http_request *request, size_t index); /* what the index-th {} matched */
const char *http_query(const struct http_request *request, const char *name);  /* decoded value, NULL if absent */
const char *http_header(const struct http_request *request, const char *name); /* NULL if absent */
bool http_accepts(const struct http_request *request, const char *type);       /* does Accept name it before anything else? */
bool http_is_type(const struct http_request *request, const char *type);       /* is Content-Type that, whatever its parameters? */
struct amp_bytes http_body(const struct http_request *request);
/* Called when the client is away before the answer is complete; the request is dead after it. */
void http_on_gone(struct http_request *request, void (*on_gone)(void *ctx), void *ctx);

/* ---- the answer -------------------------------------------------------------------------------------------- */

/* A header of the answer, before its start. */
void http_set_header(struct http_request *request, const char *name, const char *value);
void http_reply(struct http_request *request, int status, const char *type, struct amp_bytes body);
/* `size` bytes of a file, which are not read into memory. Takes `fd` over. */
void http_reply_file(struct http_request *request, const char *type, int fd, uint64_t size);
/* {"error":{code,name,message,hint}} with the status of codes.def. */
void http_reply_error(struct http_request *request, const struct amp_error *err);
/* Chunked. */
void http_stream_start(struct http_request *request, int status, const char *type);
/* AMP_OVERLOADED: the reader is too slow; the connection will be closed at the end of this turn (on_gone). */
AMP_MUST_USE enum amp_code http_stream_write(struct http_request *request, struct amp_bytes data);
/* Bytes that were written and have not left; called when there are none any more. */
size_t http_stream_waiting(const struct http_request *request);
void http_on_drained(struct http_request *request, void (*on_drained)(void *ctx)); /* with the ctx of http_on_gone */
void http_stream_end(struct http_request *request);
void http_stream_abort(struct http_request *request); /* without the last chunk: the client sees that something is missing. Not from inside the handler */
