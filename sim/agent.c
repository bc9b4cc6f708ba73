/* The program behind a simulated sidecar, in place of worker_exec.c, worker_link.c and local.c: it answers in pieces, fails, dies and is started again. */
#include "hold.h"

#include "base/alloc.h"
#include "base/loop.h"
#include "sidecar/local.h"
#include "sidecar/sidecar.h"
#include "sidecar/spawn.h"
#include "sidecar/task.h"
#include "sidecar/worker.h"

#include <stdlib.h>
#include <string.h>

#define SLOW_PAUSE_MS 2800u /* at most, between two pieces of a task that takes long */

bool agents_are_calm;

struct work {
    struct work *next;
    struct sim_worker *worker;
    struct task *task;
    struct loop_timer *timer;
    char text[128], answer[256];
    size_t sent;
    bool will_die, is_canceled, is_slow, has_asked;
    struct query *query; /* it waits for answers; NULL: it does not */
    struct hold hold;
};

struct sim_worker {
    struct worker base;
    struct agent_habits *habits;
    struct work *works;
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

static void work_free(struct work *work)
{
    struct work **at = &work->worker->works;
    while (*at != work)
        at = &(*at)->next;
    *at = work->next;
    hold_end(&work->hold);
    query_free(work->query);
    loop_timer_free(work->timer);
    free(work);
}

static void finish(struct work *work, Amp__TaskState state, const char *reason)
{
    hold_result(&work->hold);
    struct task *task = work->task;
    struct task_outcome outcome = {.state = state, .reason = reason};
    work_free(work);
    task_finish(task, &outcome);
}

static void die(struct sim_worker *worker)
{
    struct task *tasks[64];
    size_t n = 0;
    stat_add(STAT_agent_deaths, 1);
    for (struct work *work = worker->works; work && n < 64; work = work->next)
        tasks[n++] = work->task;
    while (worker->works)
        work_free(worker->works);
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

static void on_answered(void *ctx)
{
    struct work *work = ctx;
    query_free(work->query);
    work->query = NULL;
    work->hold.is_waiting = false;
    work->hold.progress_us = world_now_us();
    loop_timer_set(work->timer, 1);
}

/* Once in its life, and not as the first thing that it does. */
static bool asks(struct work *work)
{
    if (work->has_asked || work->sent == 0)
        return false;
    work->has_asked = true;
    work->query = query_new(work->task, work->text, on_answered, work);
    work->hold.is_waiting = work->query != NULL;
    return work->query != NULL;
}

static void on_progress(void *ctx)
{
    struct work *work = ctx;
    struct sim_worker *worker = work->worker;
    size_t len = strlen(work->answer), piece = 1 + world_below(20);
    hold_step(&work->hold);
    if (worker->habits->hangs_until_us > world_now_us()) {
        loop_timer_set_us(work->timer, (uint64_t)(worker->habits->hangs_until_us - world_now_us()));
    } else if (worker->habits->wants_death) {
        worker->habits->wants_death = false;
        die(worker);
    } else if (work->is_canceled) {
        finish(work, AMP__TASK_STATE__TASK_STATE_CANCELED, NULL);
    } else if (work->will_die && work->sent > len / 3) {
        die(worker);
    } else if (work->query || asks(work)) {
        return; /* on_answered goes on */
    } else if (strncmp(work->text, "fail", 4) == 0) {
        finish(work, AMP__TASK_STATE__TASK_STATE_FAILED, "failed as asked");
    } else if (work->sent == len) {
        finish(work, AMP__TASK_STATE__TASK_STATE_COMPLETED, NULL);
    } else {
        if (piece > len - work->sent)
            piece = len - work->sent;
        if (task_text(work->task, (struct amp_bytes){(const uint8_t *)work->answer + work->sent, piece}, NULL) != AMP_OK)
            world_trace("an event of %s was refused", task_id(work->task));
        work->sent += piece;
        loop_timer_set(work->timer, world_below(work->is_slow ? SLOW_PAUSE_MS : worker->habits->work_most_ms / 8 + 2));
    }
}

static void sim_run(struct worker *base, struct task *task)
{
    struct sim_worker *worker = (struct sim_worker *)base;
    struct work *work = xcalloc(1, sizeof *work);
    struct amp_buf text;
    *work = (struct work){.next = worker->works, .worker = worker, .task = task};
    worker->works = work;
    amp_buf_init(&text, 4096);
    (void)amp_message_text(task_request(task)->message, &text);
    snprintf(work->text, sizeof work->text, "%.*s", (int)text.len, text.len ? (const char *)text.data : "");
    amp_buf_done(&text);
    agent_answer(work->text, work->answer, sizeof work->answer);
    work->will_die = strncmp(work->text, "poison", 6) == 0 || (!agents_are_calm && world_chance(worker->habits->die_percent));
    work->timer = loop_timer_new(sidecar_loop(base->sidecar), on_progress, work);
    task_set_data(task, work);
    work->is_slow = strncmp(work->text, "slow", 4) == 0;
    hold_begin(&work->hold, task, base->sidecar);
    job_begun(work->text, base->sidecar);
    wait_begun(base->sidecar);
    world_trace("%s works on %s (attempt %u): %s", sidecar_instance(base->sidecar), task_id(task), task_attempt(task), work->text);
    loop_timer_set(work->timer, world_below(worker->habits->work_most_ms + 1));
}

static void sim_cancel(struct worker *base, struct task *task, const char *reason)
{
    struct work *work = task_data(task);
    for (struct work *known = ((struct sim_worker *)base)->works; known; known = known->next)
        if (known == work) {
            hold_told(&work->hold);
            work->is_canceled = work->query || world_chance(70); /* or it goes on as if nothing had been said */
            if (work->query)
                loop_timer_set(work->timer, 1);
        }
}

static void sim_drain(struct worker *base) {}
static void sim_stop(struct worker *base, void (*on_stopped)(void *ctx), void *ctx) { on_stopped(ctx); }

static void sim_free(struct worker *base)
{
    struct sim_worker *worker = (struct sim_worker *)base;
    while (worker->works)
        work_free(worker->works);
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
    *worker = (struct sim_worker){.base = {.ops = &ops, .sidecar = sidecar}, .habits = (struct agent_habits *)(void *)argv};
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
