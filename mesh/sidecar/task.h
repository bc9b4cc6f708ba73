/* One task in this sidecar, between the bus and the worker. It numbers and batches its events (one frame per loop turn), sends them to the
 * caller's inbox and, unless the caller journals, to amp.evt; keeps the state machine; holds open questions. Loop thread only. */
#pragma once
#include <amp/amp.h>
#include <sys/queue.h>

#include "base/blob_store.h"

struct cJSON;
struct sidecar;
struct task;

struct task_outcome {
    Amp__TaskState state;          /* COMPLETED, FAILED, REJECTED, CANCELED or INPUT_REQUIRED */
    const struct cJSON *result;    /* the local outcome (local-api.md 3.2) or NULL; borrowed */
    const char *reason;            /* for the status message when there is none in `result`; may be NULL */
    struct amp_error error;        /* code AMP_OK, or why it failed in the mesh's terms (AMP_AGENT_DIED …) */
    const Amp__Death *death;       /* or NULL */
};

/* What the worker may know of a task. */
const char *task_id(const struct task *task);
const char *task_context(const struct task *task);
const char *task_from(const struct task *task);
uint32_t task_attempt(const struct task *task);
Amp__TaskState task_state(const struct task *task);
const Amp__Request *task_request(const struct task *task);
const char *task_root(const struct task *task); /* of its tree: itself, if nothing is above it */
/* What was asked: as in the request, but blobs are files of this host (local-api.md 7). */
const Amp__Message *task_message(const struct task *task);
/* Files that it gives are being taken in, or those of its request fetched: it is full until then. */
bool task_files_is_busy(const struct task *task);
/* A directory of its own for files, gone with it. False: it cannot be made. */
bool task_files_directory(struct task *task, char ret[BLOB_PATH_SIZE]);
/* What is left of its time, which is all that a call inside of it may have; false: it has no limit. 0: it is over. */
bool task_left_ms(const struct task *task, uint32_t *ret_ms);
/* After an outcome INPUT_REQUIRED was answered, run() comes again and this is the answer; else NULL. */
const Amp__Message *task_resume(const struct task *task);
bool task_is_canceled(const struct task *task); /* cancel was asked for; the worker has been told */
void task_has_child(struct task *task); /* a direct call was made inside of it: it is to be told of its end */
void task_set_data(struct task *task, void *data); /* the worker's own */
void *task_data(const struct task *task);

/* ---- the worker tells ---------------------------------------------------------------------------- */

/* A local event (local-api.md 4). An invalid one is counted, and *reterr says why; the task goes on. After cancel or end: AMP_TASK_ENDED. */
AMP_MUST_USE enum amp_code task_event(struct task *task, const struct cJSON *local, struct amp_error *reterr);
AMP_MUST_USE enum amp_code task_text(struct task *task, struct amp_bytes text, struct amp_error *reterr);

/* Too much of this task waits for the caller or the bus: whoever brings its events should be read no further until there is room. */
bool task_is_full(const struct task *task);
struct task_room {                /* one who waits for room; memory is the waiter's */
    void (*on_room)(void *ctx);   /* once: there is room, or the task is over. From the end of a turn; may wait again */
    void *ctx;
    struct task *task;            /* NULL: does not wait */
    LIST_ENTRY(task_room) entry;
};
void task_room_wait(struct task *task, struct task_room *room);
void task_room_cancel(struct task_room *room); /* fine for one that does not wait */

struct task_question {
    const char *prompt;
    const struct cJSON *schema, *options, *fallback; /* or NULL; fallback: the `default` (base/form.h) */
    bool is_multiple, has_other;
    uint32_t expires_ms; /* 0: never */
};
struct task_answer {
    enum amp_code code;          /* AMP_OK; AMP_CANCELED; AMP_EXPIRED: nobody answered in time, and there is no default */
    const Amp__Message *message; /* NULL: the default */
    const struct cJSON *value;   /* what it says, if the question has a schema or options, or is the default; else NULL */
};
/* Asks the human. on_answer exactly once, unless withdrawn; its pointers are borrowed. Several may be open. AMP_INVALID: a member of the question is wrong. */
AMP_MUST_USE enum amp_code task_ask(struct task *task, const struct task_question *question, void (*on_answer)(void *ctx, const struct task_answer *answer), void *ctx,
                                    struct amp_error *reterr);
/* The question asked with this `ctx`, if it is open: nobody waits for its answer any more. No on_answer. */
void task_ask_withdraw(struct task *task, const void *ctx);
/* The end (or, for INPUT_REQUIRED, the turn's end). `task` is gone after this, except for INPUT_REQUIRED. */
void task_finish(struct task *task, const struct task_outcome *outcome);

/* ---- the sidecar's side ----------------------------------------------------------------------------- */

struct task_table; /* all tasks of this sidecar */
struct task *task_find(struct sidecar *sidecar, const char *id);
