/* What the files rpc*.c share. A method starts, and either finishes at once (rpc_done, rpc_fail) or leaves `state` and `cancel` behind and finishes later. */
#pragma once
#include "sidecar/rpc.h"

struct cJSON;
struct sidecar;
struct task;

struct rpc {
    struct sidecar *sidecar;
    const struct rpc_handlers *handlers;
    void *ctx;
    void *state;                     /* the method's */
    void (*cancel)(struct rpc *rpc); /* frees `state`; called by rpc_free, finished or not, if set */
    void (*hold)(struct rpc *rpc);   /* is_held has changed, while there is a `state`; or NULL */
    bool is_done, is_held;
};

/* Last calls of a method: the rpc may be gone after them. */
void rpc_done(struct rpc *rpc, const struct cJSON *result);
void rpc_done_empty(struct rpc *rpc); /* {} */
void rpc_fail(struct rpc *rpc, const struct amp_error *err);
void rpc_fail_with(struct rpc *rpc, enum amp_code code, const char *field, const char *fmt, ...) AMP_PRINTF(4, 5);

/* Member that is a string: NULL if absent. AMP_INVALID when it is something else. */
AMP_MUST_USE enum amp_code rpc_string(const struct cJSON *params, const char *name, const char **ret, struct amp_error *reterr);
/* The same for an id. */
AMP_MUST_USE enum amp_code rpc_id(const struct cJSON *params, const char *name, const char **ret, struct amp_error *reterr);
/* A number of milliseconds or a count; `fallback` if absent. */
AMP_MUST_USE enum amp_code rpc_number(const struct cJSON *params, const char *name, uint32_t fallback, uint32_t *ret, struct amp_error *reterr);
/* The task named by `taskId`. AMP_NO_SUCH_TASK when this instance does not work on it. */
AMP_MUST_USE enum amp_code rpc_task(struct rpc *rpc, const struct cJSON *params, struct task **ret, struct amp_error *reterr);
/* A message struct as a new cJSON; NULL when it cannot be encoded (then *reterr). */
struct cJSON *rpc_json_of(const ProtobufCMessage *message, struct amp_error *reterr);
/* The same as text (cJSON_IsRaw), for an answer: it stays until the next call of this. `own`: see amp_encode_own. */
const struct cJSON *rpc_text_of(const ProtobufCMessage *message, struct amp_bytes own, struct amp_error *reterr);
/* The other way: params.<name> as a message of `type` in `arena`. */
AMP_MUST_USE enum amp_code rpc_message_of(const struct cJSON *json, const ProtobufCMessageDescriptor *type, struct amp_arena *arena, ProtobufCMessage **ret,
                                          struct amp_error *reterr);

/* One request to the environment; `on_reply` finishes the rpc. */
void rpc_env_call(struct rpc *rpc, const Amp__EnvRequest *request, void (*on_reply)(struct rpc *rpc, const Amp__EnvReply *reply));

/* Methods. */
void rpc_task_event(struct rpc *rpc, const struct cJSON *params);
void rpc_task_ask(struct rpc *rpc, const struct cJSON *params);
void rpc_task_get(struct rpc *rpc, const struct cJSON *params);
void rpc_task_stop(struct rpc *rpc, const struct cJSON *params);
void rpc_send(struct rpc *rpc, const struct cJSON *json);
void rpc_agents_list(struct rpc *rpc, const struct cJSON *params);
void rpc_kv_get(struct rpc *rpc, const struct cJSON *params);
void rpc_kv_put(struct rpc *rpc, const struct cJSON *params);
void rpc_kv_del(struct rpc *rpc, const struct cJSON *params);
void rpc_kv_list(struct rpc *rpc, const struct cJSON *params);

/* Tasks that this sidecar's agent has sent and that have not ended (rpc_send.c). */
struct sent;
struct sent *rpc_sent_find(struct sidecar *sidecar, const char *task_id);
const struct cJSON *rpc_sent_task(struct sent *sent, struct amp_error *reterr); /* as rpc_text_of */
void rpc_sent_cancel(struct sent *sent, const char *reason);
