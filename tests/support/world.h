/* A nats-server, one loop and connections on it, and envelopes by hand: for tests that play one side of the protocol. */
#pragma once
#include <amp/amp.h>

struct bus;
struct bus_inbox;
struct loop;
struct loop_timer;
struct nats_server;

struct world {
    struct nats_server *server;
    struct loop *loop;
    struct bus *near, *far; /* caller and callee */
    struct loop_timer *guard;
    unsigned downs; /* of near */
};

/* config: as nats_server_start. Users "near" and "far" (password "x") are used if the configuration has them. */
void world_begin(struct world *world, const char *config);
void world_end(struct world *world);
/* Runs the loop until *flag is not 0 (world_touch is called after each change); fails the test after 20 s. */
void world_wait(struct world *world, const unsigned *flag, unsigned at_least);
void world_touch(struct world *world);
/* Until everything that was published by `bus` has been read by the server and everything subscribed is known to it. */
void world_settle(struct world *world, struct bus *bus);

/* Until `near` knows that the server is gone. */
void world_wait_down(struct world *world);

/* Publishes an envelope to a subject. */
void world_send(struct bus *bus, const char *subject, const Amp__Envelope *envelope);
void world_send_reply(struct bus *bus, const char *subject, enum amp_code code, const char *message);
/* Text of a "beat" with these slots. */
void world_send_beat(struct bus *bus, const char *subject, const char *agent, const char *instance, uint32_t slots, uint32_t free_slots);

/* A frame of `n` status events from `seq` on. end_count < 0: no end marker. end_error 0: a good end. */
struct world_frame {
    const char *task, *agent, *instance;
    uint32_t seq, n;
    int64_t end_count;
    enum amp_code end_error;
};
void world_send_frame(struct bus *bus, const char *subject, const struct world_frame *frame);
/* The envelope, decoded into `arena`; fails the test if it is none. */
Amp__Envelope *world_decode(struct amp_bytes data, struct amp_arena *arena);
