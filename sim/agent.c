/* The program behind a simulated sidecar, in place of worker_exec.c, worker_link.c and local.c: it answers in pieces, fails, dies and is started again. */
#include "sim.h"

#include "base/alloc.h"
#include "base/loop.h"
#include "sidecar/local.h"
#include "sidecar/sidecar.h"
#include "sidecar/spawn.h"
#include "sidecar/task.h"
#include "sidecar/worker.h"

#include <stdlib.h>
#include <string.h>

bool agents_are_calm;

struct job {
    struct job *next;
    struct sim_worker *worker;
    struct task *task;
    struct loop_timer *timer;
    char text[128], answer[256];
    size_t sent;
    bool will_die, is_canceled;
};

struct sim_worker {
    struct worker base;
    const struct agent_habits *habits;
    struct job *jobs;
    struct loop_timer *start;
};

/* Long enough for several events; tells whose it is. */
void agent_answer(const char *text, char *ret, size_t size)
{
    uint32_t hash = 2166136261u;
    for (const char *c = text; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    snprintf(ret, size, "answer to <%s> is %08x, and twice that is %08x", text, hash, 2 * hash);
}

static void job_free(struct job *job)
{
    struct job **at = &job->worker->jobs;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    loop_timer_free(job->timer);
    free(job);
}

static void finish(struct job *job, Amp__TaskState state, const char *reason)
{
    struct task *task = job->task;
    struct task_outcome outcome = {.state = state, .reason = reason};
    job_free(job);
    task_finish(task, &outcome);
}

static void die(struct sim_worker *worker)
{
    struct task *tasks[64];
    size_t n = 0;
    for (struct job *job = worker->jobs; job && n < 64; job = job->next)
        tasks[n++] = job->task;
    while (worker->jobs)
        job_free(worker->jobs);
    static char last_words[] = "simulated end", *lines[] = {last_words};
    const struct spawn_exit exit = {.pid = 4711, .is_signal = true, .signal = 9, .stderr_lines = lines, .n_stderr_lines = 1};
    sidecar_set_slots(worker->base.sidecar, 0);
    const Amp__Death *death = sidecar_agent_died(worker->base.sidecar, &exit, tasks, n);
    for (size_t i = 0; i < n; i++) {
        struct task_outcome outcome = {.state = AMP__TASK_STATE__TASK_STATE_FAILED, .death = death};
        amp_error_set(&outcome.error, AMP_AGENT_DIED, "", "the agent's process was killed by signal 9 (SIGKILL)");
        task_finish(tasks[i], &outcome);
    }
    loop_timer_set(worker->start, world_between(1, 2000));
}

static void on_progress(void *ctx)
{
    struct job *job = ctx;
    struct sim_worker *worker = job->worker;
    size_t len = strlen(job->answer), piece = 1 + world_below(20);
    if (job->is_canceled) {
        finish(job, AMP__TASK_STATE__TASK_STATE_CANCELED, NULL);
    } else if (job->will_die && job->sent > len / 3) {
        die(worker);
    } else if (strncmp(job->text, "fail", 4) == 0) {
        finish(job, AMP__TASK_STATE__TASK_STATE_FAILED, "failed as asked");
    } else if (job->sent == len) {
        finish(job, AMP__TASK_STATE__TASK_STATE_COMPLETED, NULL);
    } else {
        if (piece > len - job->sent)
            piece = len - job->sent;
        if (task_text(job->task, (struct amp_bytes){(const uint8_t *)job->answer + job->sent, piece}, NULL) != AMP_OK)
            world_trace("an event of %s was refused", task_id(job->task));
        job->sent += piece;
        loop_timer_set(job->timer, world_below(worker->habits->work_most_ms / 8 + 2));
    }
}

static void sim_run(struct worker *base, struct task *task)
{
    struct sim_worker *worker = (struct sim_worker *)base;
    struct job *job = xcalloc(1, sizeof *job);
    struct amp_buf text;
    *job = (struct job){.next = worker->jobs, .worker = worker, .task = task};
    worker->jobs = job;
    amp_buf_init(&text, 4096);
    (void)amp_message_text(task_request(task)->message, &text);
    snprintf(job->text, sizeof job->text, "%.*s", (int)text.len, text.len ? (const char *)text.data : "");
    amp_buf_done(&text);
    agent_answer(job->text, job->answer, sizeof job->answer);
    job->will_die = strncmp(job->text, "poison", 6) == 0 || (!agents_are_calm && world_chance(worker->habits->die_percent));
    job->timer = loop_timer_new(sidecar_loop(base->sidecar), on_progress, job);
    task_set_data(task, job);
    world_trace("%s works on %s (attempt %u): %s", sidecar_instance(base->sidecar), task_id(task), task_attempt(task), job->text);
    loop_timer_set(job->timer, world_below(worker->habits->work_most_ms + 1));
}

static void sim_cancel(struct worker *base, struct task *task, const char *reason)
{
    struct job *job = task_data(task);
    for (struct job *known = ((struct sim_worker *)base)->jobs; known; known = known->next)
        if (known == job)
            job->is_canceled = world_chance(70); /* or it goes on as if nothing had been said */
}

static void sim_drain(struct worker *base) {}
static void sim_stop(struct worker *base, void (*on_stopped)(void *ctx), void *ctx) { on_stopped(ctx); }

static void sim_free(struct worker *base)
{
    struct sim_worker *worker = (struct sim_worker *)base;
    while (worker->jobs)
        job_free(worker->jobs);
    loop_timer_free(worker->start);
    free(worker);
}

static void on_start(void *ctx)
{
    struct sim_worker *worker = ctx;
    sidecar_set_slots(worker->base.sidecar, worker->habits->slots);
}

struct worker *worker_exec_new(struct sidecar *sidecar, char *const *argv)
{
    static const struct worker_ops ops = {.run = sim_run, .cancel = sim_cancel, .drain = sim_drain, .stop = sim_stop, .free = sim_free};
    struct sim_worker *worker = xcalloc(1, sizeof *worker);
    *worker = (struct sim_worker){.base = {.ops = &ops, .sidecar = sidecar}, .habits = (const struct agent_habits *)(const void *)argv};
    worker->start = loop_timer_new(sidecar_loop(sidecar), on_start, worker);
    loop_timer_set(worker->start, 1);
    return &worker->base;
}

struct worker *worker_link_new(struct sidecar *sidecar, enum worker_link_mode mode, char *const *argv) { return worker_exec_new(sidecar, argv); }

/* ---- sidecar/local.h: nobody dials ------------------------------------------------------------------------------ */

enum amp_code local_new(struct sidecar *sidecar, const char *path, struct local **ret, struct amp_error *reterr)
{
    *ret = NULL;
    return AMP_OK;
}

void local_free(struct local *local) {}
