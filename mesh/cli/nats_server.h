/* nats-server as a child: started on a private store, supervised, ended. Loop thread only. */
#pragma once
#include <amp/amp.h>

struct loop;
struct home;
struct nats_server;

struct nats_server_handlers {
    void (*on_up)(void *ctx, const char *url);               /* once, when it takes connections */
    void (*on_failed)(void *ctx, const struct amp_error *err); /* it cannot be started; only before on_up */
    void (*on_pid)(void *ctx); /* once it is up: nats_server_pid is another now, or 0 until it is started again */
    void (*on_stopped)(void *ctx);                           /* after nats_server_stop */
};

/* Finds nats-server (AMESH_NATS_SERVER, else PATH) and starts it on <home>/nats with a port of 127.0.0.1: that of last time if it is free, so that agents find the bus again. Its log is
 * <home>/nats.log. It dies with this process. When it ends by itself it is started again on the same port and store, after 100 ms … 5 s. The caller reaps nothing else with
 * SIGCHLD while it lives. AMP_NOT_FOUND: there is no nats-server here. */
AMP_MUST_USE enum amp_code nats_server_new(struct loop *loop, const struct home *home, const struct nats_server_handlers *handlers, void *ctx,
                                           struct nats_server **ret, struct amp_error *reterr);
int nats_server_pid(const struct nats_server *server); /* 0: not running now */
/* SIGTERM, after 5 s SIGKILL, then on_stopped (never from inside). */
void nats_server_stop(struct nats_server *server);
void nats_server_free(struct nats_server *server); /* kills it if it still runs. NULL is fine */
