/* A task goes to an adapter (adapters/adapter.h), and what that tells goes to the task. There is no process: the agent is somewhere else, and speaks a protocol of its own. */
#include "sidecar_private.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "adapter.h"
#include "base/alloc.h"
#include "base/fetch.h"
#include "base/loop.h"

struct worker_adapter;

struct held { /* a task in the adapter's hands */
    LIST_ENTRY(held) entry;
    struct adapter_job job;
    struct worker_adapter *worker;
    struct task *task;
    struct task_room room;
    bool is_telling; /* the adapter is told by the answer to that, if the task ends now */
};

struct worker_adapter {
    struct worker base;
    const struct adapter_kind *kind;
    struct adapter *adapter;
    struct fetcher *fetcher;
    LIST_HEAD(, held) held;
    bool is_stopping;
    void (*on_stopped)(void *ctx);
    void *ctx;
};

/* ---- what the adapter tells ---------------------------------------------------------------------------------------- */

static struct held *held_of(struct adapter_job *job)
{
    return (struct held *)((char *)job - offsetof(struct held, job));
}

static bool is_over(const struct held *held)
{
    return task_is_over(held->task) || task_is_canceled(held->task);
}

static bool host_text(struct adapter_job *job, struct amp_bytes text)
{
    struct held *held = held_of(job);
    struct amp_error err;
    if (is_over(held))
        return false;
    held->is_telling = true;
    enum amp_code code = task_text(held->task, text, &err);
    held->is_telling = false;
    return code == AMP_OK; /* a refusal has ended the task */
}

static bool host_event(struct adapter_job *job, const struct cJSON *event)
{
    struct held *held = held_of(job);
    struct amp_error err;
    if (is_over(held))
        return false;
    held->is_telling = true;
    (void)!task_event(held->task, event, &err); /* an invalid one is counted, and the task goes on */
    held->is_telling = false;
    return !is_over(held);
}

static bool host_is_full(struct adapter_job *job)
{
    struct held *held = held_of(job);
    if (!task_is_full(held->task))
        return false;
    if (!held->room.task)
        task_room_wait(held->task, &held->room);
    return true;
}

static void stopped(struct worker_adapter *worker)
{
    if (worker->is_stopping && LIST_EMPTY(&worker->held) && worker->on_stopped) {
        void (*on_stopped)(void *ctx) = worker->on_stopped;
        worker->on_stopped = NULL;
        on_stopped(worker->ctx);
    }
}

static void host_finish(struct adapter_job *job, const struct adapter_result *result)
{
    struct held *held = held_of(job);
    struct worker_adapter *worker = held->worker;
    struct task *task = held->task;
    struct task_outcome outcome = {.state = result->state, .reason = result->reason, .error = result->error};
    if (is_over(held))
        outcome = (struct task_outcome){.state = AMP__TASK_STATE__TASK_STATE_CANCELED};
    LIST_REMOVE(held, entry);
    task_room_cancel(&held->room);
    task_set_data(task, NULL);
    free(held);
    task_finish(task, &outcome);
    stopped(worker);
}

static const struct adapter_host host = {.text = host_text, .event = host_event, .is_full = host_is_full, .finish = host_finish};

static void on_room(void *ctx)
{
    struct held *held = ctx;
    held->worker->kind->resume(held->worker->adapter, &held->job);
}

/* ---- what the sidecar asks ------------------------------------------------------------------------------------------- */

static void adapter_run(struct worker *base, struct task *task)
{
    struct worker_adapter *worker = (struct worker_adapter *)base;
    struct held *held = xcalloc(1, sizeof *held);
    *held = (struct held){.worker = worker, .task = task, .room = {.on_room = on_room, .ctx = held}};
    held->job = (struct adapter_job){.host = &host,
                                     .adapter = worker->adapter,
                                     .task_id = task_id(task),
                                     .context_id = task_context(task),
                                     .message = task_resume(task) ? task_resume(task) : task_message(task)};
    LIST_INSERT_HEAD(&worker->held, held, entry);
    task_set_data(task, held);
    worker->kind->run(worker->adapter, &held->job);
}

static void adapter_cancel(struct worker *base, struct task *task, const char *reason)
{
    struct worker_adapter *worker = (struct worker_adapter *)base;
    struct held *held = task_data(task);
    (void)reason;
    if (held && !held->is_telling)
        worker->kind->cancel(worker->adapter, &held->job);
}

static void adapter_drain(struct worker *base)
{
    (void)base; /* it waits for nothing but its tasks */
}

static void adapter_stop(struct worker *base, void (*on_stopped)(void *ctx), void *ctx)
{
    struct worker_adapter *worker = (struct worker_adapter *)base;
    struct held *next;
    worker->is_stopping = true;
    worker->on_stopped = on_stopped;
    worker->ctx = ctx;
    for (struct held *held = LIST_FIRST(&worker->held); held; held = next) {
        next = LIST_NEXT(held, entry);
        worker->kind->cancel(worker->adapter, &held->job);
    }
    stopped(worker);
}

static void adapter_free(struct worker *base)
{
    struct worker_adapter *worker = (struct worker_adapter *)base;
    struct held *held;
    while ((held = LIST_FIRST(&worker->held)) != NULL) {
        LIST_REMOVE(held, entry);
        task_room_cancel(&held->room);
        free(held);
    }
    worker->kind->close(worker->adapter);
    fetcher_free(worker->fetcher);
    free(worker);
}

/* The other side's process, if it is one, is no child of ours. */
static pid_t adapter_pid(struct worker *base, const struct task *task)
{
    (void)base, (void)task;
    return 0;
}

static const struct worker_ops adapter_worker_ops = {.run = adapter_run, .cancel = adapter_cancel, .pid = adapter_pid, .drain = adapter_drain, .stop = adapter_stop, .free = adapter_free};

struct worker *worker_adapter_new(struct sidecar *sidecar, struct amp_error *reterr)
{
    struct worker_adapter *worker = xcalloc(1, sizeof *worker);
    const struct adapter_kind *kind = sidecar_options(sidecar)->adapter;
    struct adapter_options with = *sidecar_options(sidecar)->adapter_options;
    worker->base = (struct worker){.ops = &adapter_worker_ops, .sidecar = sidecar};
    worker->kind = kind;
    with.loop = sidecar_loop(sidecar);
    if (fetcher_new(with.loop, &worker->fetcher, reterr) != AMP_OK) {
        free(worker);
        return NULL;
    }
    with.fetcher = worker->fetcher;
    if (kind->open(&with, &worker->adapter, reterr) != AMP_OK) {
        fetcher_free(worker->fetcher);
        free(worker);
        return NULL;
    }
    sidecar_set_slots(sidecar, sidecar_options(sidecar)->slots);
    return &worker->base;
}
