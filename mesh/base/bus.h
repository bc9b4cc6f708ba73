/* The bus: nats.c in event-loop mode behind our types. bus*.c are the only users of nats.h.
 *
 * One connection per program. Subscriptions are polled on the loop right after its socket was read; publishes of one loop turn leave in
 * one write at its end. Reconnects for ever with full jitter (50 ms … 2 s), pings every second, two missed = reconnect. While the bus is
 * away publishes are refused with AMP_NO_BUS: nothing is buffered that could be lost unseen. All functions on the loop thread; callbacks
 * run on it, and may subscribe, unsubscribe, publish, open and close inboxes. */
#pragma once
#include <amp/amp.h>

struct loop;
struct bus;
struct bus_sub;
struct bus_inbox;

struct bus_options {
    const char *url;   /* one or several, comma separated */
    const char *creds; /* path of a NATS credentials file, or NULL */
    const char *name;  /* shown by the server's monitoring */
    const char *owner; /* an id: its inboxes are below `_INBOX.<owner>`, which permissions may give to one user alone. NULL: `name`, if that is an id; else they are below `_INBOX` */
    const char *inbox; /* below this prefix instead (bus_inbox_prefix_is_valid). NULL or "": as above */
    bool no_echo;      /* what this connection publishes does not come back to its own subscriptions */
    bool wait_first;   /* true: a bus that is not there yet is waited for (on_up comes later); false: bus_new fails with AMP_NO_BUS */
    void (*on_up)(void *ctx);   /* connected or connected again; subscriptions are restored already. From the loop, never from inside bus_new. May be NULL */
    void (*on_down)(void *ctx); /* connection lost. May be NULL */
    void (*on_denied)(void *ctx, const char *subject); /* the server's permissions forbid a subscription of ours: nothing will come on it. May be NULL */
    void *ctx;
};

struct bus_info {
    char version[32];   /* nats-server's, e.g. "2.9.10"; "" until known */
    int major, minor, patch;
    bool has_jetstream;
    size_t payload_max; /* headers and body */
    char url[256];      /* without user and password */
};

struct bus_msg {
    const char *subject;
    const char *reply; /* NULL: none */
    struct amp_bytes data;
};

/* A URL, or several with commas, that can name a bus: nats:// or tls:// or no scheme, a host, a port or none. Else AMP_INVALID, which begins with `who` ("--bus") and has no password in it. */
AMP_MUST_USE enum amp_code bus_url_check(const char *urls, const char *who, struct amp_error *reterr);
/* Connects. The initial connect may block for at most 2 s. */
AMP_MUST_USE enum amp_code bus_new(struct loop *loop, const struct bus_options *options, struct bus **ret, struct amp_error *reterr);
/* Flushes what is pending (at most 500 ms) and closes. All subscriptions and inboxes must be gone. NULL is fine. */
void bus_free(struct bus *bus);
bool bus_is_up(const struct bus *bus);
/* It is away because the server ended the connection: most often that restarts, and nobody has a bus. False while it is up, and when it went silent: others may still have one. */
bool bus_was_ended(const struct bus *bus);
/* What calls over this connection remember of those whom they met (base/call_wary.h). Given back by bus_free with free(). */
void **bus_memory(struct bus *bus);
const struct bus_info *bus_info(const struct bus *bus); /* filled anew after each reconnect */

/* queue: NULL for a plain subscription. `on_msg` borrows the message. Aborts only on a subject that amp_subject_build did not make valid. */
struct bus_sub *bus_subscribe(struct bus *bus, const char *subject, const char *queue, void (*on_msg)(void *ctx, const struct bus_msg *msg), void *ctx);
/* Tells the server at the end of this turn; the handle is gone on return. NULL is fine.
 * deliver_pending false: `on_msg` is not called again; what was on its way is dropped and counted (bus_dropped).
 * deliver_pending true: nothing that the server gave to this subscription is lost. `on_msg` may still be called, from later turns, until the server has
 * confirmed (one round trip) or the connection is lost: `ctx` must live that long (bus_is_leaving), or until bus_free, which calls nobody and drops and
 * counts what still comes. Whoever leaves a queue group must be ready to refuse such a message. Beyond one server (cluster, leaf): what another server
 * sent to ours for the group while we, its last member here, left is lost between the servers. */
void bus_unsubscribe(struct bus_sub *sub, bool deliver_pending);
/* May messages still come for subscriptions with this `ctx` (NULL: any) that were left with deliver_pending? */
bool bus_is_leaving(const struct bus *bus, const void *ctx);

/* Publishes at the end of this turn. AMP_INVALID for a subject or reply with white space in it (a peer's text must not become a command), AMP_TOO_LARGE over the server's limit, AMP_NO_BUS when it is away,
 * AMP_OVERLOADED when over 64 MiB wait to be written; the last 8 of them are for messages of at most 16 KiB. */
AMP_MUST_USE enum amp_code bus_publish(struct bus *bus, const char *subject, const char *reply, struct amp_bytes data);

/* About how many bytes wait to be written: more than a few MiB, and the server or the network is slower than we are. */
size_t bus_waiting_bytes(const struct bus *bus);
/* About how many bytes were ever to be written: what was handed over when this was `n` has left when it is more than `n` + the waiting ones. */
uint64_t bus_handed_bytes(const struct bus *bus);

/* May AMESH_INBOX be this? `_INBOX`, `_INBOX.…` or `_INBOX_<token>`, of tokens that a reply subject may have (amp.md 2.4.1), at most BUS_INBOX_PREFIX_MAX characters. */
#define BUS_INBOX_PREFIX_MAX 100u
bool bus_inbox_prefix_is_valid(const char *prefix);

/* An inbox receives the replies to one request: any number of them, until closed. Its subject is under this connection's own prefix
 * (`_INBOX.<owner>.<conn>.<token>`): the token cannot be guessed, and the server is asked for this subject alone, so that only who was asked, and the server, can
 * answer, also with "no responders". What comes late for an inbox that was freed is dropped. */
enum bus_inbox_kind {
    BUS_INBOX_MSG,           /* `msg` is set. Its subject is the inbox's, but for a stream's messages, which keep their own */
    BUS_INBOX_NO_RESPONDERS, /* nobody listens on the subject that was asked */
    BUS_INBOX_DENIED,        /* the server's permissions forbid the publish on that subject; `text` is its message */
    BUS_INBOX_DOWN,          /* the connection was lost: an answer may have been missed. The inbox stays open */
};
struct bus_inbox *bus_inbox_new(struct bus *bus, void (*on_reply)(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text), void *ctx);
const char *bus_inbox_subject(const struct bus_inbox *inbox);
/* Publishes with this inbox as reply and remembers the subject, so that "denied" and "no responders" find back. */
AMP_MUST_USE enum amp_code bus_inbox_request(struct bus_inbox *inbox, const char *subject, struct amp_bytes data);
void bus_inbox_free(struct bus_inbox *inbox); /* later replies are dropped. NULL is fine; allowed inside on_reply */

/* JetStream and `$SRV` talk is plain requests over these calls. */
