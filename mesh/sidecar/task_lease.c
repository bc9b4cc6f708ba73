/* A task on lease: its caller is an environment, which may give it to another instance when it does not hear of this one. So this one does not go on without hearing
 * of the environment: it asks, and stops the agent when the lease is over. Without any environment on the bus nobody can have given the task away: then it goes on, and
 * the next environment finds it. What the environment has not confirmed as written down is kept for it. amp.md 10.7 */
#include "task_private.h"

#include "base/bus.h"
#include "base/counters.h"
#include "base/envcall.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/seeded.h"

#define ASK_MIN_MS 100u
#define GIVEN_AWAY "the task was given to another instance"
#define ALONE_MAX_MS 600000u   /* without any environment */
#define NO_BUS_MAX_MS 60000u   /* without a bus, when its server has ended the connection */

bool task_is_leased(const struct task *task)
{
    return task->lease.ms > 0;
}

static int64_t quiet_ms(const struct task *task)
{
    return loop_now_ms(task->sidecar->loop) - task->heard_ms;
}

/* Two thirds of the lease: the answer still comes in time. */
static uint32_t ask_ms(const struct task *task)
{
    return task->lease.ms - task->lease.ms / 3;
}

static void rearm(struct task *task, int64_t in_ms)
{
    loop_timer_set(task->lease.timer, in_ms < ASK_MIN_MS ? ASK_MIN_MS : (uint32_t)in_ms);
}

/* ---- the end of a lease ------------------------------------------------------------------------------------------ */

/* Not ours any more: no frame of it counts. What became of it is still told to the environment, once. */
static void become_stale(struct task *task, const char *why)
{
    task->lease.is_stale = true;
    task_stream_give_up(task);
    log_event(LOG_WARN, "task.lease_lost", "task", task_id(task), "instance", task->sidecar->instance, NULL);
    if (!task->stream.is_ended)
        task_cancel(task, why);
}

void task_lease_revoke(struct task *task, const char *reason)
{
    if (!task->lease.is_stale)
        become_stale(task, reason);
}

static void lapse(struct task *task)
{
    struct amp_error err;
    counter_add(COUNTER_leases_lapsed, 1);
    log_event(LOG_WARN, "task.lease_lapsed", "task", task_id(task), "instance", task->sidecar->instance, NULL);
    (void)amp_error_set(&err, AMP_INSTANCE_LOST, "", "instance %s did not hear of the environment for %u ms: its lease was over, and it stopped the agent", task->sidecar->instance,
                        task->lease.ms);
    (void)task_fail(task, &err, NULL);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static uint32_t wait_ms(const struct task *task)
{
    return task->lease.ms / 3 < ASK_MIN_MS ? ASK_MIN_MS : task->lease.ms / 3;
}

static void on_report(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err);

static void report(struct task *task)
{
    struct sidecar *sidecar = task->sidecar;
    char answer[TASK_ANSWER_SIZE];
    Amp__Report report = AMP__REPORT__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    report.task_id = task->request->task_id;
    report.epoch = task->request->epoch;
    report.has_attempt = true;
    report.attempt = task_attempt(task);
    report.instance = sidecar->instance;
    report.has_state = true;
    report.state = task->stream.is_ended ? task->state : AMP__TASK_STATE__TASK_STATE_WORKING;
    if (task->stream.is_ended) {
        task_stream_answer(task, answer);
        report.answer = answer;
    }
    request.verb_case = AMP__ENV_REQUEST__VERB_REPORT;
    request.report = &report;
    task->lease.asked_ms = loop_now_ms(sidecar->loop);
    task->lease.is_end_told = task->stream.is_ended;
    if (env_call(sidecar->loop, sidecar->bus, sidecar->agent, &request, wait_ms(task), on_report, task, &task->lease.report) != AMP_OK)
        task->lease.report = NULL;
    rearm(task, wait_ms(task));
}

static void forget(struct task *task)
{
    task->lease.is_over = true;
    loop_timer_stop(task->lease.timer);
    task_mark_dirty(task);
}

/* One that has ended is in nobody's way. That it may be forgotten was said already (be it before the environment asked for the frames again), or is on its way; or the environment
 * gave it up before the end came, and has not taken it: the report tells. */
void task_lease_supersede(struct task *task)
{
    if (task->stream.is_ended && !task->lease.is_stale && (task->lease.is_over || task_stream_is_sent(task))) {
        if (!task->lease.is_over && !task->lease.report)
            report(task);
        if (!task->is_running)
            task_retire(task);
        task_mark_dirty(task);
        task_flush_dirty(task->sidecar);
    } else if (!task->lease.is_stale) {
        become_stale(task, GIVEN_AWAY);
        if (task->stream.is_ended && !task->lease.report)
            report(task);
    }
}

/* No environment is there, or none has a bus: so none has given the task away. */
static bool may_stay_alone(struct task *task, uint32_t max_ms)
{
    int64_t now = loop_now_ms(task->sidecar->loop);
    if (!task->lease.alone_ms)
        task->lease.alone_ms = now;
    if (now - task->lease.alone_ms >= max_ms)
        return false;
    task->heard_ms = now;
    return true;
}

static void stay_alone(struct task *task)
{
    if (may_stay_alone(task, ALONE_MAX_MS))
        rearm(task, ask_ms(task));
    else if (!task->stream.is_ended)
        lapse(task);
    else
        forget(task);
}

static void go_on_or_lapse(struct task *task)
{
    if (!task->stream.is_ended && quiet_ms(task) >= task->lease.ms)
        lapse(task);
    rearm(task, task->stream.is_ended ? task->lease.ms : task->lease.ms - quiet_ms(task));
}

static void on_lost(struct task *task)
{
    if (task->stream.is_ended && task->lease.is_end_told) {
        forget(task);
        return;
    }
    if (!task->lease.is_stale)
        become_stale(task, GIVEN_AWAY);
    if (task->stream.is_ended && !task->lease.report)
        report(task); /* with what it claims */
}

static void on_report(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct task *task = ctx;
    bool is_timeout = err->code == AMP_NO_ENV && loop_now_ms(task->sidecar->loop) - task->lease.asked_ms >= wait_ms(task);
    (void)reply;
    task->lease.report = NULL;
    switch (err->code) {
    case AMP_OK:
        task->heard_ms = loop_now_ms(task->sidecar->loop);
        task->lease.alone_ms = 0;
        rearm(task, ask_ms(task));
        break;
    case AMP_TASK_ENDED:
    case AMP_STALE_LEASE:
    case AMP_NO_SUCH_TASK: on_lost(task); break;
    case AMP_NO_ENV:
    case AMP_JOURNAL:
    case AMP_STOPPING:
        if (is_timeout)
            go_on_or_lapse(task);
        else
            stay_alone(task);
        break;
    default: go_on_or_lapse(task);
    }
}

static void on_due(void *ctx)
{
    struct task *task = ctx;
    int64_t quiet = quiet_ms(task);
    if (task->lease.is_over || task->lease.report || SEEDED_BUG("endless-lease"))
        return;
    if (bus_was_ended(task->sidecar->bus) && !task->lease.is_stale && may_stay_alone(task, NO_BUS_MAX_MS))
        rearm(task, 0); /* and asks as soon as the bus is back */
    else if (quiet < ask_ms(task) && !task->lease.is_stale && !task->lease.alone_ms)
        rearm(task, ask_ms(task) - quiet);
    else if (bus_is_up(task->sidecar->bus))
        report(task);
    else
        go_on_or_lapse(task);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

void task_lease_begin(struct task *task)
{
    const Amp__Request *request = task->request;
    if (!request->has_epoch || !request->has_lease_ms || request->lease_ms == 0)
        return;
    task->lease.ms = request->lease_ms < SIDECAR_LEASE_MIN_MS ? SIDECAR_LEASE_MIN_MS : request->lease_ms > SIDECAR_LEASE_MAX_MS ? SIDECAR_LEASE_MAX_MS : request->lease_ms;
    if (!task->lease.timer)
        task->lease.timer = loop_timer_new(task->sidecar->loop, on_due, task);
    rearm(task, ask_ms(task));
}

void task_lease_heard(struct task *task, const Amp__Ping *ping)
{
    if (!task_is_leased(task))
        return;
    task->lease.alone_ms = 0;
    if (!ping)
        return;
    if (ping->has_committed && ping->committed > task->lease.committed && ping->committed <= task->stream.count) {
        task->lease.committed = ping->committed;
        task_mark_dirty(task);
    }
    /* One that is worked on, and was not told to stop, is a later attempt than the one that this is about: it came late, or twice. */
    if (ping->has_done && ping->done && (task->stream.is_ended || task->is_canceled))
        forget(task);
}

void task_lease_ended(struct task *task)
{
    if (task->lease.is_stale && !task->lease.report)
        report(task);
}

enum amp_code task_lease_attach(struct task *task, const Amp__Attach *attach, const struct task_reader *reader, struct amp_error *reterr)
{
    if (!task_is_leased(task) || attach->epoch != task->request->epoch || task->lease.is_stale)
        return amp_error_set(reterr, AMP_STALE_LEASE, "control.attach.epoch", "instance %s has task %s under another lease", task->sidecar->instance, task_id(task));
    enum amp_code code = task_stream_reopen(task, attach, reader, reterr);
    if (code != AMP_OK)
        return code;
    task->lease.alone_ms = 0;
    /* What is before it the reader has, but not on its disk: the next one may ask for that again. Only a Ping says what need not be kept. */
    if (SEEDED_BUG("attach-confirms") && attach->from_seq - 1 > task->lease.committed)
        task->lease.committed = attach->from_seq - 1;
    rearm(task, ask_ms(task));
    task_mark_dirty(task);
    return AMP_OK;
}

void task_lease_stop(struct task *task)
{
    if (task->lease.timer)
        loop_timer_stop(task->lease.timer);
    env_call_cancel(task->lease.report);
    task->lease = (struct task_lease){.timer = task->lease.timer};
}

void task_lease_free(struct task *task)
{
    task_lease_stop(task);
    loop_timer_free(task->lease.timer);
    task->lease.timer = NULL;
}
