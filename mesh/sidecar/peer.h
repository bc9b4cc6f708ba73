/* One agent (or a program of its) that speaks the NDJSON form of the local API: a session whose requests are answered by rpc.h. Dialled ones belong to local.c,
 * those of a spawned process to worker_link.c. Loop thread only. */
#pragma once
#include <amp/amp.h>
#include <sys/types.h>

struct cJSON;
struct peer;
struct session;
struct session_handlers;
struct sidecar;

#define PEER_REQUESTS_MAX 256u /* requests of one connection that are open at once */

struct peer_handlers {
    /* Once, after everything else; peer_free may be called here. */
    void (*on_closed)(void *ctx, struct peer *peer, const char *reason);
    void (*on_text)(void *ctx, struct amp_bytes line); /* jsonl: a line of its log; or NULL */
    /* jsonl: feed no more until it is called with false, as a task of this peer waits for its caller; or NULL */
    void (*on_pause)(void *ctx, bool is_paused);
    size_t (*waiting)(void *ctx); /* jsonl: bytes that were given to `write` and have not been read; or NULL */
};

/* Takes the descriptor over. `pid`: who is at the other end, 0 if unknown. */
struct peer *peer_new(struct sidecar *sidecar, int fd, pid_t pid, const struct peer_handlers *handlers, void *ctx);
/* jsonl: bytes come through session_feed(peer_session()). */
struct peer *peer_new_fed(struct sidecar *sidecar, enum amp_code (*write)(void *ctx, struct amp_bytes data), pid_t pid, const struct peer_handlers *handlers, void *ctx);
/* Cancels what it has asked for. The worker is not told: the owner does that first. NULL is fine. */
void peer_free(struct peer *peer);
struct session *peer_session(struct peer *peer);
/* jsonl: what waited has been read. */
void peer_drained(struct peer *peer);
pid_t peer_pid(const struct peer *peer);
/* The worker's own data: set while tasks are given to this peer. */
void peer_set_seat(struct peer *peer, void *seat);
void *peer_seat(const struct peer *peer);
