/* What the simulated bus is made of (bus.c). */
#pragma once
#include "base/bus.h"

#include <sys/queue.h>

struct remote_sub { /* the server's view */
    uint64_t sid;
    char *subject, *queue;
    size_t plain; /* of the subject: what stands before its first wildcard */
    LIST_ENTRY(remote_sub) entry;
};

struct link { /* one connection; lives as long as something of it is on its way */
    struct bus *bus;           /* NULL: the client has left it */
    bool is_known;             /* to the server */
    bool is_silent;            /* for so long that it is noticed */
    uint32_t refs;
    char prefix[24];
    struct lane {
        int64_t last_us;          /* when its last message arrives */
        int64_t stalled_until_us;
    } up, down;
    LIST_HEAD(, remote_sub) subs;
    LIST_ENTRY(link) entry;
};

enum kind { OP_SUB, OP_UNSUB, OP_PUB, OP_MSG, OP_FENCE, OP_NOBODY };
struct op { /* on a lane */
    enum kind kind;
    struct link *link;
    uint64_t sid;
    char *subject, *other; /* reply or queue */
    char *via;             /* the inbox that a stream's message goes to; NULL: it goes to its subject */
    uint8_t *data;
    size_t len;
};

struct bus_sub {
    struct bus *bus;
    uint64_t sid;
    char *subject, *queue;
    void (*on_msg)(void *ctx, const struct bus_msg *msg);
    void *ctx;
    bool is_leaving;
    TAILQ_ENTRY(bus_sub) entry;
};

struct bus_inbox {
    struct bus *bus;
    char subject[64];
    void (*on_reply)(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text);
    void *ctx;
    bool is_freed;
    TAILQ_ENTRY(bus_inbox) entry;
};

struct bus {
    struct loop *loop;
    struct bus_options options;
    struct bus_info info;
    struct link *link;
    struct loop_timer *retry, *said;
    void *memory;
    bool is_dead, is_calling, was_silent;
    TAILQ_HEAD(, bus_sub) subs;
    TAILQ_HEAD(inboxes, bus_inbox) inboxes;
    char prefix[24]; /* of its inboxes, over all its connections */
};
