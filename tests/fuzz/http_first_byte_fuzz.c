/* Any bytes to the HTTP server behind the local socket: they go through the carrying socket, evhttp, the routes and a handler that reads everything a handler can. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/http.h"
#include "base/loop.h"

static struct loop *loop;
static struct http_server *server;
static struct loop_tick *tick;
static unsigned turns;
static char dir[64];

static void on_tick(void *ctx)
{
    if (--turns == 0)
        loop_stop(loop, 0);
    else
        loop_tick_request(tick);
}

static void turn(unsigned n)
{
    turns = n;
    loop_tick_request(tick);
    (void)loop_run(loop);
}

static void handle(void *ctx, struct http_request *request)
{
    struct amp_bytes body = http_body(request);
    (void)http_query(request, "wait");
    (void)http_is_type(request, "text/plain");
    if (strchr(http_segment(request, 0), '\n') && body.len > (1u << 16))
        abort(); /* body_max */
    if (http_accepts(request, "text/event-stream")) {
        http_stream_start(request, 200, "text/event-stream");
        if (http_stream_write(request, body) == AMP_OK)
            http_stream_end(request);
        else
            http_stream_abort(request);
    } else {
        http_reply(request, 200, "text/plain", body);
    }
}

static const struct http_route routes[] = {
    {HTTP_GET, "/v1/{}", handle}, {HTTP_POST, "/v1/tasks/{}/events", handle}, {HTTP_PUT, "/v1/kv/{}/{}", handle}, {HTTP_DELETE, "/v1/kv/{}/{}", handle}, {0, NULL, NULL},
};

static void stop(void)
{
    http_server_free(server);
    loop_tick_free(tick);
    loop_free(loop);
    rmdir(dir);
}

static void start(void)
{
    char path[96];
    struct amp_error err = {0};
    (void)snprintf(dir, sizeof dir, "/tmp/amesh-fuzz-XXXXXX");
    if (!mkdtemp(dir))
        abort();
    (void)snprintf(path, sizeof path, "%s/h", dir);
    const struct http_options options = {.private_path = path, .body_max = 1 << 16, .headers_max = 4096, .out_max = 1 << 17, .idle_s = 60, .connections_max = 8};
    loop = loop_new();
    tick = loop_tick_new(loop, on_tick, NULL);
    if (http_server_new(loop, &options, routes, NULL, &server, &err) != AMP_OK)
        abort();
    atexit(stop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    char answer[4096];
    if (!loop)
        start();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
        abort();
    if (http_server_adopt(server, fds[1]) != AMP_OK)
        abort();
    (void)!write(fds[0], data, size);
    turn(6);
    while (read(fds[0], answer, sizeof answer) > 0)
        turn(1);
    close(fds[0]);
    turn(8);
    return 0;
}
