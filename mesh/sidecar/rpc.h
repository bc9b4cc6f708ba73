/* What an agent may ask of its sidecar, once for both forms of the local API (NDJSON and HTTP): each operation takes cJSON params (local-api.md 3) and answers by callback
 * with a cJSON result or an error. `struct rpc` is one asker (a session or an HTTP request); freeing it cancels what is open. */
#pragma once
#include <amp/amp.h>

struct cJSON;
struct sidecar;
struct rpc;

struct rpc_handlers {
    /* Exactly once per rpc_start, possibly before it returns. `result` is borrowed; of send and task.get it may be JSON that is text already (cJSON_IsRaw). */
    void (*on_done)(void *ctx, const struct cJSON *result, const struct amp_error *err);
    /* send with stream: one event, before on_done. `stream_response` is JSON. May be NULL. */
    void (*on_event)(void *ctx, uint32_t seq, struct amp_bytes stream_response);
};

/* method: "task.event", "task.ask", "task.get", "task.stop", "send", "agents.list", "kv.get" …, "log", "ping". Unknown: AMP_UNSUPPORTED through on_done. */
struct rpc *rpc_start(struct sidecar *sidecar, const char *method, const struct cJSON *params, const struct rpc_handlers *handlers, void *ctx);
/* Who gets its events cannot take more: the callee of a send with `stream` is held back until it is called with false. Nothing of the rpc is called back from inside. NULL is fine. */
void rpc_hold(struct rpc *rpc, bool is_held);
/* Cancels a send (the callee is told) or a question; no callback after this. NULL is fine. */
void rpc_free(struct rpc *rpc);
/* The task `parent` was cancelled, or has ended without an answer: the direct calls made inside of it end with it (amp.md 5.4.4). `how`: "was cancelled", for people. */
void rpc_parent_ended(struct sidecar *sidecar, const char *parent, const char *how);
