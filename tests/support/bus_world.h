/* One bus on a nats-server of its own, and subscribers and inboxes that count: for the tests of the bus. */
#pragma once
#include "nats_server.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/counters.h"
#include "base/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct bus_world {
    struct nats_server *server;
    struct loop *loop;
    struct loop_timer *deadline;
    struct bus *bus;
    const unsigned *watched; /* run_until stops when it has reached `wanted` */
    unsigned wanted;
    unsigned ups, downs;
};

/* A subscriber that counts. */
struct ear {
    struct bus_world *w;
    unsigned count;
    char last[64];
    struct bus *answers; /* answers requests there with "pong" */
};

/* An inbox that counts by kind. */
struct mouth {
    struct bus_world *w;
    struct bus_inbox *inbox;
    unsigned kinds[4];
    char text[256];
    bool frees_itself;
};

extern const char bus_world_permissions[]; /* user u, password p: may publish to open.> and nobody.>, not subscribe to closed.> */
extern const char *bus_world_server; /* NULL: the system's */

void bus_world_until(struct bus_world *w, const unsigned *watched, unsigned wanted);
void bus_world_touch(struct bus_world *w);
struct bus *bus_world_connect(struct bus_world *w, const char *url, bool wait_first);
void bus_world_begin_with(struct bus_world *w, const char *config, const char *user);
void bus_world_begin(struct bus_world *w);
void bus_world_end(struct bus_world *w);
void bus_world_settle(struct bus_world *w);
void mouth_open(struct mouth *mouth, struct bus_world *w);
void ear_on_msg(void *ctx, const struct bus_msg *msg);

/* Runs `run` on the system's server and, when AMESH_TEST_NATS_NEW names its binary, on the newest. */
int bus_world_on_both(int (*run)(void));
