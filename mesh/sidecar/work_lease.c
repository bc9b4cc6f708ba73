/* Workers that fetch their tasks by long polls. A poll that waits is a slot, so is a leased task. Between two polls a worker is given a little grace, so that the instance does not leave
 * its queue groups each time; a task that comes then waits for the next poll. */
#include "sidecar/worker_link_private.h"

#include "base/alloc.h"
#include "base/loop.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { POLLS_MAX = 256, GRACE_MS = 5000 };

struct lease_poll {
    struct link *link;
    struct lease_poll_handlers handlers;
    void *ctx;
    uint32_t lease_ms;
    struct loop_timer *timer;
    TAILQ_ENTRY(lease_poll) entry;
};

uint32_t link_lease_slots(const struct link *link)
{
    return link->n_polls + link->n_leased + link->n_grace;
}

static void on_grace(void *ctx)
{
    struct link *link = ctx;
    link->n_grace = 0;
    link_slots_changed(link);
}

void link_lease_init(struct link *link)
{
    TAILQ_INIT(&link->polls);
    link->grace = loop_timer_new(sidecar_loop(link->base.sidecar), on_grace, link);
}

static void expect_again(struct link *link)
{
    if (link->is_draining || link->is_stopping)
        return;
    if (link->n_grace < POLLS_MAX)
        link->n_grace++;
    loop_timer_set(link->grace, GRACE_MS);
}

static void poll_free(struct lease_poll *poll)
{
    TAILQ_REMOVE(&poll->link->polls, poll, entry);
    poll->link->n_polls--;
    loop_timer_free(poll->timer);
    free(poll);
}

static void poll_end(struct lease_poll *poll, const cJSON *params)
{
    void (*on_work)(void *ctx, const cJSON *params) = poll->handlers.on_work;
    void *ctx = poll->ctx;
    poll_free(poll);
    on_work(ctx, params);
}

static void on_nothing(void *ctx)
{
    struct lease_poll *poll = ctx;
    struct link *link = poll->link;
    expect_again(link);
    poll_end(poll, NULL);
    link_slots_changed(link);
}

void link_lease_done(struct link *link)
{
    loop_timer_stop(link->grace);
    link->n_grace = 0;
    while (!TAILQ_EMPTY(&link->polls))
        poll_end(TAILQ_FIRST(&link->polls), NULL);
}

void link_lease_ended(struct link *link)
{
    link->n_leased--;
    expect_again(link);
}

static void start_lease(struct job *job)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_AGENT_DIED, "", "the worker that took the task was not heard of for %u s", job->lease_ms / 1000);
    link_job_limit(job, job->lease_ms, &err);
}

bool link_lease_assign(struct link *link, struct job *job)
{
    struct lease_poll *poll = TAILQ_FIRST(&link->polls);
    if (!poll)
        return false;
    job->lease_ms = poll->lease_ms;
    link->n_leased++;
    start_lease(job);
    cJSON params = {.type = cJSON_Raw};
    if (link_run_params(job->task, &link->params) == AMP_OK && amp_buf_append(&link->params, "", 1) == AMP_OK)
        params.valuestring = (char *)link->params.data;
    poll_end(poll, params.valuestring ? &params : NULL);
    if (!params.valuestring) {
        struct amp_error err = {0};
        amp_error_set(&err, AMP_TOO_LARGE, "", "what is asked is larger than an agent can be told");
        link_job_limit(job, 0, &err);
    }
    link_params_trim(link);
    return true;
}

/* ---- for the HTTP side -------------------------------------------------------------------------------------------- */

enum amp_code worker_poll(struct sidecar *sidecar, uint32_t wait_ms, uint32_t lease_ms, const struct lease_poll_handlers *handlers, void *ctx, struct lease_poll **ret,
                          struct amp_error *reterr)
{
    struct link *link = link_of(sidecar);
    if (!link || link->mode != WORKER_DIAL)
        return amp_error_set(reterr, AMP_UNSUPPORTED, "", "this agent does not fetch its tasks: it was not started with --mode dial");
    if (link->is_draining || link->is_stopping)
        return amp_error_set(reterr, AMP_STOPPING, "", "this instance is leaving the mesh");
    if (link->n_polls >= POLLS_MAX)
        return amp_error_set(reterr, AMP_OVERLOADED, "", "%d workers wait already", POLLS_MAX);
    struct lease_poll *poll = xcalloc(1, sizeof *poll);
    poll->link = link;
    poll->handlers = *handlers;
    poll->ctx = ctx;
    poll->lease_ms = lease_ms;
    poll->timer = loop_timer_new(sidecar_loop(sidecar), on_nothing, poll);
    loop_timer_set(poll->timer, wait_ms ? wait_ms : 1);
    TAILQ_INSERT_TAIL(&link->polls, poll, entry);
    link->n_polls++;
    if (link->n_grace > 0)
        link->n_grace--;
    *ret = poll;
    link_slots_changed(link);
    link_assign(link); /* may answer at once: *ret is dead then, and on_work was called */
    return AMP_OK;
}

void worker_poll_cancel(struct lease_poll *poll)
{
    if (!poll)
        return;
    struct link *link = poll->link;
    poll_free(poll);
    link_slots_changed(link);
}

static struct job *leased(struct sidecar *sidecar, const char *task_name)
{
    struct link *link = link_of(sidecar);
    struct job *job;
    if (!link)
        return NULL;
    TAILQ_FOREACH(job, &link->jobs, entry)
        if (job->lease_ms && !strcmp(task_id(job->task), task_name))
            return job;
    return NULL;
}

bool worker_lease_touch(struct sidecar *sidecar, const char *task_name)
{
    struct job *job = leased(sidecar, task_name);
    if (job && !job->is_canceled)
        start_lease(job);
    return job != NULL;
}

void worker_lease_hold(struct sidecar *sidecar, const char *task_name)
{
    struct job *job = leased(sidecar, task_name);
    if (job && !job->is_canceled)
        loop_timer_stop(job->limit);
}

enum amp_code worker_lease_result(struct sidecar *sidecar, const char *task_name, const cJSON *result, struct amp_error *reterr)
{
    struct job *job = leased(sidecar, task_name);
    if (!job)
        return amp_error_set(reterr, AMP_NO_SUCH_TASK, "id", "task %s is not leased to a worker", task_name);
    link_job_outcome(job, result, NULL);
    return AMP_OK;
}
