/* The link worker, for the connections that carry it: peers (NDJSON) and long polls (HTTP). All functions are fine with a sidecar whose worker is of another kind. Loop thread only. */
#pragma once
#include <amp/amp.h>

struct cJSON;
struct lease_poll;
struct peer;
struct sidecar;
struct task;

/* A peer said hello as a worker. AMP_UNSUPPORTED: this agent is not attached that way. A second hello changes the slots. */
AMP_MUST_USE enum amp_code worker_link_hello(struct sidecar *sidecar, struct peer *peer, uint32_t slots, struct amp_error *reterr);
void worker_link_greeted(struct sidecar *sidecar, struct peer *peer); /* after the reply: tasks may come now */
/* A reply to one of our requests: the outcome of a task, or nonsense (counted and logged). */
void worker_link_reply(struct sidecar *sidecar, struct peer *peer, uint64_t number, const struct cJSON *result, const struct cJSON *error);
/* A line of a peer that is no frame (session.h): if it may have been the outcome of a task, that task fails, and does not wait for it for ever. */
void worker_link_bad_line(struct sidecar *sidecar, struct peer *peer, struct amp_bytes line, const struct amp_error *err);
/* A dialled peer's connection is over, before peer_free: its tasks fail. */
void worker_link_closed(struct sidecar *sidecar, struct peer *peer, const char *reason);

/* ---- long-polling workers (GET /v1/work) ------------------------------------------------------------------ */

struct lease_poll_handlers {
    /* Once: the params of task.run (borrowed), or NULL when nothing came in time. The poll is gone after it. */
    void (*on_work)(void *ctx, const struct cJSON *params);
};
AMP_MUST_USE enum amp_code worker_poll(struct sidecar *sidecar, uint32_t wait_ms, uint32_t lease_ms, const struct lease_poll_handlers *handlers, void *ctx, struct lease_poll **ret,
                                       struct amp_error *reterr);
void worker_poll_cancel(struct lease_poll *poll); /* the client went away; no callback. NULL is fine */
/* The worker of a leased task was heard. False: the task is not leased. */
bool worker_lease_touch(struct sidecar *sidecar, const char *task_id);
/* Its worker waits for a human: no limit until the next touch. */
void worker_lease_hold(struct sidecar *sidecar, const char *task_name);
/* The outcome of a leased task (local-api.md 3.2). AMP_NO_SUCH_TASK: none of this id is leased. */
AMP_MUST_USE enum amp_code worker_lease_result(struct sidecar *sidecar, const char *task_id, const struct cJSON *result, struct amp_error *reterr);
