/* The link worker's parts: worker_link.c (seats and jobs), worker_process.c (the process it spawned), work_lease.c (long polls). Loop thread only. */
#pragma once
#include <amp/amp.h>
#include <sys/queue.h>

#include "base/alloc.h"
#include "sidecar/sidecar.h"
#include "sidecar/task.h"
#include "sidecar/worker.h"
#include "sidecar/worker_link.h"

struct cJSON;
struct link;
struct loop_timer;
struct peer;
struct spawn;
struct spawn_exit;

enum {
    LINK_CANCEL_MS = 5000,  /* between task.cancel and the end of the connection or process */
    LINK_PENDING_MS = 5000, /* a task waits that long for a worker that was there a moment ago */
    LINK_BROKEN_MS = 1000,  /* a process whose connection broke has that long to end by itself, so that its end tells the cause */
    LINK_STOP_MS = 5000,    /* between SIGTERM and SIGKILL */
};

struct seat { /* a connection that takes tasks */
    struct link *link;
    struct peer *peer;
    uint32_t slots, n_jobs;
    bool is_spawned; /* at the other end is (a child of) the process we spawned */
    bool is_read_out; /* the process has ended, and what it had said was taken */
    bool is_ready;
    TAILQ_ENTRY(seat) entry;
};

struct job { /* a task in hand */
    struct link *link;
    struct task *task;
    struct seat *seat;        /* NULL: pending, leased or orphaned */
    uint64_t number;          /* of our request on the seat's session */
    uint32_t lease_ms;        /* leased to a long-polling worker, with that limit; else 0 */
    bool is_orphan;           /* its seat broke; why is to be known soon */
    bool is_canceled;
    struct loop_timer *limit;
    struct amp_error error;   /* what `limit` ends it with */
    TAILQ_ENTRY(job) entry;
};

struct link {
    struct worker base;
    enum worker_link_mode mode;
    TAILQ_HEAD(, seat) seats;
    TAILQ_HEAD(, job) jobs;
    struct amp_buf params; /* of the task.run under way */
    struct spares spare_jobs;
    /* worker_process.c */
    char **argv;               /* owned copy; NULL: nothing is spawned */
    struct spawn *spawn;
    struct peer *own;          /* its connection, but for DIAL */
    struct loop_timer *restart, *kill;
    struct loop_timer *hello;  /* a process that should dial has not */
    uint32_t failures;
    bool was_ready;            /* once: then it is started again for ever */
    bool is_exiting, is_draining, is_stopping;
    void (*on_stopped)(void *ctx);
    void *stopped_ctx;
    /* work_lease.c */
    TAILQ_HEAD(, lease_poll) polls;
    uint32_t n_polls, n_leased, n_grace;
    struct loop_timer *grace;
};

struct link *link_of(struct sidecar *sidecar); /* NULL: the sidecar's worker is of another kind */

/* ---- worker_link.c ------------------------------------------------------------------------------------------ */

struct seat *link_seat_add(struct link *link, struct peer *peer, uint32_t slots, bool is_spawned);
void link_seat_remove(struct seat *seat); /* its jobs become orphans */
void link_slots_changed(struct link *link);
void link_assign(struct link *link); /* pending jobs to whoever has room */
/* Takes the job off the books and finishes its task. */
void link_job_end(struct job *job, const struct task_outcome *outcome);
void link_job_fail(struct job *job, const struct amp_error *err, const Amp__Death *death);
/* Ends it with `err` in `in_ms`, unless it ends before. */
void link_job_limit(struct job *job, uint32_t in_ms, const struct amp_error *err);
/* What an agent said as the end of a task: result or error of task.run. */
void link_job_outcome(struct job *job, const struct cJSON *result, const struct cJSON *error);
/* The params of task.run as JSON, in place of what is in `out`. AMP_TOO_LARGE when it has no room for them. */
AMP_MUST_USE enum amp_code link_run_params(const struct task *task, struct amp_buf *out);
void link_params_trim(struct link *link); /* gives back what one huge task took */

/* ---- worker_process.c ---------------------------------------------------------------------------------------- */

void link_process_init(struct link *link, char *const *argv);
void link_process_done(struct link *link);
void link_process_stop(struct link *link); /* on_stopped follows */
/* A spawned seat broke while the process still runs. */
void link_process_broken(struct link *link);
void link_process_kill(struct link *link);
bool link_process_owns(const struct link *link, const struct peer *peer);

/* ---- work_lease.c ---------------------------------------------------------------------------------------------- */

void link_lease_init(struct link *link);
void link_lease_done(struct link *link); /* polls end with nothing */
uint32_t link_lease_slots(const struct link *link);
bool link_lease_assign(struct link *link, struct job *job); /* to the poll that waits longest; false: none */
void link_lease_ended(struct link *link);                   /* a leased job is over: its worker will come back */
