/* How an agent is attached: exec, link (jsonl on stdio, a spawned shim on a descriptor, any process that dials). sidecar.c knows only this. */
#pragma once
#include <amp/amp.h>
#include <sys/types.h>

struct sidecar;
struct task;
struct spawn_exit;

struct worker;
struct worker_ops {
    /* A task for the agent; never more at once than the slots announced with sidecar_set_slots. */
    void (*run)(struct worker *worker, struct task *task);
    /* The task should end soon: task_finish follows within 5 s, or the worker's process is killed by the worker itself. */
    void (*cancel)(struct worker *worker, struct task *task, const char *reason);
    /* The process that works on it, 0: none is known. NULL: the agent's one process does. */
    pid_t (*pid)(struct worker *worker, const struct task *task);
    void (*drain)(struct worker *worker); /* tell the agent that nothing more comes */
    /* Stop for good: ends what it spawned (SIGTERM, 5 s, SIGKILL). on_stopped once, possibly at once. */
    void (*stop)(struct worker *worker, void (*on_stopped)(void *ctx), void *ctx);
    void (*free)(struct worker *worker);
};
struct worker { /* first member of each kind */
    const struct worker_ops *ops;
    struct sidecar *sidecar;
};

/* mode exec: one process per task (worker_exec.c) */
struct worker *worker_exec_new(struct sidecar *sidecar, char *const *argv);
/* modes jsonl, dial and shims: sessions speak local-api.md 2 (worker_link.c). argv NULL: nothing is spawned, somebody dials. */
enum worker_link_mode { WORKER_JSONL, WORKER_DIAL, WORKER_SHIM };
struct worker *worker_link_new(struct sidecar *sidecar, enum worker_link_mode mode, char *const *argv);
/* mode adapter: the agent is elsewhere and speaks a protocol of its own (worker_adapter.c). NULL: *reterr. */
struct worker *worker_adapter_new(struct sidecar *sidecar, struct amp_error *reterr);
