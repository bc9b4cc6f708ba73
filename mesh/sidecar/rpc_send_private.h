/* What the files rpc_send*.c share. */
#pragma once
#include "base/blob_fetch.h"
#include "sidecar/rpc_private.h"

#include <sys/queue.h>

struct call;
struct env_submit;
struct env_watch;

struct sent {
    struct rpc *rpc;
    struct call *call;         /* direct */
    struct env_submit *submit; /* durable, until accepted */
    struct env_watch *watch;   /* durable, afterwards */
    struct amp_fold *fold;
    char task_id[AMP_NAME_MAX + 1], context_id[AMP_NAME_MAX + 1], parent[AMP_NAME_MAX + 1];
    char agent[AMP_NAME_MAX + 1], instance[AMP_NAME_MAX + 1];
    bool is_stream, is_durable, is_detached, is_dropped;
    uint32_t from_seq;         /* the first event that its sender wants */
    bool is_orphan;            /* its parent has ended, and it was told */
    struct blob_held held;     /* files of its message and of its answer */
    struct blob_fetch *fetch;  /* of the latter */
    Amp__Message *message;     /* in `arena`, for the history of a durable task */
    struct amp_arena *arena;
    LIST_ENTRY(sent) entry;
};

/* Starts it. `held`: the files of the message, which are the send's from now on; or NULL. */
void rpc_send_now(struct rpc *rpc, const struct cJSON *json, struct blob_held *held);
/* The task as it is, with what the mesh says of it (rpc_text_of). */
const struct cJSON *rpc_sent_text(struct sent *sent, const Amp__Error *wire, struct amp_error *reterr);
/* The end of it. `task` is copied by whoever asked before the rpc is gone. */
void rpc_sent_answer(struct sent *sent, const struct cJSON *task, const struct amp_error *err);
/* The answer has blobs: they are pulled first, and rpc_sent_answer follows. False: it has none. */
bool rpc_sent_fetch(struct sent *sent);
