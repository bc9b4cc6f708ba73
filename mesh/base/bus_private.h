/* Inside of the bus: bus.c (life and connection), bus_url.c (names of buses), bus_inbox.c (names of inboxes), bus_find.c (which of them has something), bus_link.c (one nats.c connection and its threads), bus_io.c (turns, subscriptions,
 * inboxes), bus_info.c (what the server says of itself). Nothing else includes this. */
#pragma once
#include "base/alloc.h"
#include "base/bus.h"

#include <nats/nats.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/queue.h>

struct loop_io;
struct loop_tick;
struct loop_timer;
struct mailbox;
struct bus_probe;
struct connector;

#define BUS_TOKEN_LEN 22                     /* 110 random bits, base32 */
#define BUS_PREFIX_SIZE (BUS_INBOX_PREFIX_MAX + BUS_TOKEN_LEN + 2u)               /* "_INBOX.<owner>.<conn>" */
#define BUS_INBOX_SIZE (BUS_PREFIX_SIZE + 1u + BUS_TOKEN_LEN) /* "<prefix>.<token>" */
#define BUS_ASKED_SIZE 128u
#define BUS_OUT_BYTES_MAX ((size_t)64 << 20) /* waiting to be written */
#define BUS_OUT_KEPT ((size_t)8 << 20)       /* of it, for what is short: answers that say no, acceptances, pings */
#define BUS_SHORT_BYTES_MAX (16u << 10)
#define BUS_CONNECT_MS 2000                  /* all servers of one attempt together */
#define BUS_FLUSH_MS 500                     /* bus_free */
#define BUS_LEFTOVERS_MS 10u                 /* how long the server may go without an UNSUB of an inbox */
#define BUS_SPENT_MAX 64u                    /* messages that were handled and not given back yet */
#define BUS_SPENT_BYTES_MAX (64u << 10)
#define BUS_SERVERS_MAX 32                   /* given and learned */

/* One nats.c connection. nats.c's own reconnecting is off: its thread holds the connection's lock while it connects, so that every call on
 * the loop would wait for a server that does not answer. Freed by the loop, after nats.c's last callback (`is_closed`). */
struct bus_link {
    natsConnection *nats;
    int fd;                         /* our duplicate of the socket: its number stays ours when a library thread closes the other one */
    pthread_t loop_thread;
    _Atomic(struct mailbox *) box;  /* NULL until the loop has adopted the link */
    struct loop_tick *tick;         /* used on the loop thread only */
    bool is_patient;                /* what nats.c is asked to write now has time: loop thread only */
    sem_t is_closed;                /* posted by nats.c's last callback */
    LIST_ENTRY(bus_link) entry;     /* in bus->closing */
};

/* What a library thread tells the loop. */
struct bus_notice {
    char text[512]; /* an error of the server, or "" = look at the link */
};

struct bus_sub {
    struct bus *bus;
    char *subject, *queue;
    void (*on_msg)(void *ctx, const struct bus_msg *msg); /* NULL: messages are dropped and counted */
    void *ctx;
    natsSubscription *nats; /* NULL while the bus is away */
    bool is_leaving;        /* the server was told; freed when `fence` has come back */
    bool is_denial_said;
    uint64_t fence;
    TAILQ_ENTRY(bus_sub) entry;
};

struct bus_inbox {
    struct bus *bus;
    natsSubscription *nats; /* to this subject alone; NULL while the bus is away */
    char subject[BUS_INBOX_SIZE];
    char *asked; /* subject of the last request, or NULL; in */
    char asked_room[BUS_ASKED_SIZE]; /* if it is short */
    uint64_t serial;
    void (*on_reply)(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text);
    void *ctx;
    TAILQ_ENTRY(bus_inbox) entry;
    TAILQ_ENTRY(bus_inbox) by_use;
    TAILQ_ENTRY(bus_inbox) found; /* if is_found */
    bool is_found;
};

TAILQ_HEAD(bus_subs, bus_sub);
TAILQ_HEAD(bus_inboxes, bus_inbox);
LIST_HEAD(bus_links, bus_link);

#define BUS_BREATH_MS 20   /* of work in one turn, then what was answered leaves */
#define BUS_READ_MS 500    /* of it, then the socket is read, at most */
#define BUS_READS_MAX 120u /* times in one turn: what they bring is kept in memory */

struct bus {
    struct loop *loop;
    struct loop_tick *tick;          /* end of turn: write */
    struct mailbox *box;             /* of struct bus_notice, from library threads */
    struct bus_options options;      /* strings are ours */
    struct bus_info info;
    struct bus_probe *probe;         /* reads INFO, or NULL */

    struct bus_link *link;           /* NULL: away */
    struct bus_links closing;
    struct loop_io *io;
    size_t out_bytes;                /* about what waits to be written */
    uint64_t handed_bytes;           /* and what ever did */
    int64_t read_ms, flushed_ms;     /* in this turn, last */
    unsigned n_reads;                /* beyond the first of this turn */
    bool is_up_due;                  /* on_up is to be called at the end of the turn */
    bool was_silent;                 /* the last link was given up for its silence */

    void *memory;                    /* bus_memory */
    struct connector *connector;     /* an attempt under way, or NULL */
    struct loop_timer *retry;
    struct loop_timer *leftovers;    /* writes what had time, if nothing else is written before */
    unsigned attempts;               /* failed since the loss */
    int64_t lost_ms;                 /* since when it is away; 0: it is not, or never was there */
    char said[512];                  /* last reason that was logged */
    char **learned;                  /* servers that the server told us of */
    int n_learned;

    struct bus_subs subs;
    struct bus_sub *sub_next;        /* where the walk over subs goes on */
    struct bus_sub *polled;          /* whose messages are being delivered; NULL when it was freed */
    char prefix[BUS_PREFIX_SIZE];    /* of its inboxes; the last token of it is random, new for each bus_new */
    char fence_subject[BUS_INBOX_SIZE];
    natsSubscription *fence_sub;
    struct bus_inboxes inboxes;      /* the oldest first */
    struct bus_inboxes used;         /* all of them, the one that had something last first */
    struct bus_inboxes found;        /* those with something to deliver, the oldest first */
    size_t n_inboxes;
    uint64_t n_taken;                /* messages of this link that were delivered */
    natsStatistics *stats;
    struct spares spare_inboxes;
    struct bus_inbox *inbox_next;    /* where the walk over inboxes goes on */
    struct bus_inbox *inbox_polled;  /* whose replies are being delivered; NULL when it was freed */
    uint64_t inbox_serial;
    uint64_t fence_asked, fence_sent, fence_seen;

    natsMsg *spent[BUS_SPENT_MAX];
    unsigned n_spent;
    size_t spent_bytes;

    uint8_t pool[512];               /* random bytes, to save system calls */
    size_t pool_left;
};

/* ---- bus_link.c ------------------------------------------------------------------------------------ */

/* Blocks up to BUS_CONNECT_MS; any thread. Takes nothing; `servers` are URLs. NULL: *reterr says why. */
struct bus_link *bus_link_connect(const struct bus_options *options, const char *prefix, char **servers, int n_servers, pthread_t loop_thread,
                                  struct amp_error *reterr);
/* From now on library threads post to `box`, and the loop thread asks for `tick`. */
void bus_link_adopt(struct bus_link *link, struct mailbox *box, struct loop_tick *tick);
bool bus_link_was_silent(const struct bus_link *link);    /* lost since the server did not answer pings, not because it ended the connection */
void bus_link_close(struct bus_link *link);               /* gives the nats.c connection up; at once if it is lost already */
bool bus_link_free(struct bus_link *link, int wait_ms);   /* after close; false: nats.c is not done with it yet */

/* Connects on a thread of its own; on_done on the loop. */
struct connector *connector_start(struct bus *bus, char **servers, int n_servers,
                                  void (*on_done)(struct bus *bus, struct bus_link *link, const struct amp_error *err));
void connector_free(struct connector *connector); /* the thread, if it still runs, cleans up behind itself. NULL is fine */

/* ---- bus_url.c --------------------------------------------------------------------------------------- */

int bus_url_split(const char *urls, char **ret); /* into at most BUS_SERVERS_MAX strings for free() */
void bus_url_show(const char *urls, size_t size, char *ret); /* what may be shown of them: no user, no password, no token */

/* ---- bus_find.c -------------------------------------------------------------------------------------- */

/* How many messages came in that were not delivered yet, those for nobody included. UINT64_MAX: that is not known, or not worth to be. */
uint64_t bus_find_undelivered(const struct bus *bus);
void bus_find(struct bus *bus, uint64_t n);   /* fills bus->found with the inboxes that `n` messages at most came for */
void bus_find_lose(struct bus_inbox *inbox);  /* takes it out of there, if it is */

/* ---- bus_io.c --------------------------------------------------------------------------------------- */

void bus_io_up(struct bus *bus);    /* bus->link is new: subscribes everything */
void bus_io_down(struct bus *bus);  /* bus->link is lost: forgets its subscriptions, tells the inboxes */
void bus_io_drop(struct bus *bus);  /* the part of it without callbacks */
void bus_io_silence(struct bus *bus); /* what comes for those that left is dropped and counted from now on */
void bus_io_flush(struct bus *bus); /* writes what waits */
void bus_io_release(struct bus *bus); /* gives back the messages that were handled */
void bus_io_read(struct bus *bus);  /* reads once and delivers */
void bus_io_error(struct bus *bus, const char *text); /* an asynchronous error of the server */
void bus_token(struct bus *bus, char ret[BUS_TOKEN_LEN + 1]);

/* ---- bus_inbox.c ------------------------------------------------------------------------------------ */

void bus_inbox_prefix(const struct bus_options *options, const char token[BUS_TOKEN_LEN + 1], char ret[BUS_PREFIX_SIZE]);

/* ---- bus.c ------------------------------------------------------------------------------------------ */

void bus_check(struct bus *bus); /* is the link still alive? If not: down, and the way back begins */

/* ---- bus_info.c --------------------------------------------------------------------------------------- */

void bus_info_start(struct bus *bus); /* fills bus->info now and, a little later, the version */
void bus_info_stop(struct bus *bus);
