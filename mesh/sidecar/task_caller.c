/* Is the caller of a direct task still there? Nothing tells that a connection to the bus has ended but the server's "no responders": so now and then an empty
 * frame goes to the caller's inbox as a request. A task that has asked a question may be answered by anybody, so its first caller may go. amp.md 5.5.4 */
#include "task_private.h"

#include "base/bus.h"
#include "base/log.h"
#include "base/loop.h"

#define AWAY_ASK_MS 500u /* how often one that is away is looked for */
#define AWAY_MAX_MS 3000 /* and for how long: it may be on its way back to the bus, and go on (amp.md 6.8) */

static bool is_gone(struct task *task)
{
    int64_t now_ms = loop_now_ms(task->sidecar->loop);
    if (!task->away_ms || task->heard_ms >= task->away_ms)
        task->away_ms = now_ms;
    return now_ms - task->away_ms >= AWAY_MAX_MS;
}

static void on_echo(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct task *task = ctx;
    (void)msg, (void)text;
    if (kind == BUS_INBOX_DENIED)
        task_caller_stop(task); /* we may not ask: then we do not know */
    if (kind != BUS_INBOX_NO_RESPONDERS)
        return;
    if (!is_gone(task)) {
        loop_timer_set(task->caller, AWAY_ASK_MS);
        return;
    }
    task_caller_stop(task);
    log_event(LOG_WARN, "task.caller_gone", "task", task_id(task), "from", task->from, NULL);
    task_stream_give_up(task);
    task_cancel(task, "the caller has gone");
}

void task_caller_went_on(struct task *task)
{
    if (task_is_leased(task) || task->stream.is_ended || task->is_canceled)
        return;
    struct amp_error err;
    task_caller_stop(task);
    task_stream_give_up(task);
    task->is_superseded = true;
    (void)amp_error_set(&err, AMP_INSTANCE_LOST, "", "the caller gave up attempt %u at instance %s, and began another one", task_attempt(task), task->sidecar->instance);
    (void)task_fail(task, &err, NULL);
}

static void on_due(void *ctx)
{
    struct task *task = ctx;
    if (task->stream.is_ended || task->has_asked)
        return;
    if (!task->echo)
        task->echo = bus_inbox_new(task->sidecar->bus, on_echo, task);
    (void)task_stream_ask(task, task->echo); /* a bus that is away: the next time */
    loop_timer_set(task->caller, TASK_CALLER_MS);
}

void task_caller_watch(struct task *task)
{
    if (task->request->journalled)
        return; /* an environment, which a new one replaces */
    if (!task->caller)
        task->caller = loop_timer_new(task->sidecar->loop, on_due, task);
    loop_timer_set(task->caller, TASK_CALLER_MS);
}

void task_caller_stop(struct task *task)
{
    if (task->caller)
        loop_timer_stop(task->caller);
    bus_inbox_free(task->echo);
    task->echo = NULL;
    task->away_ms = 0;
}

void task_caller_free(struct task *task)
{
    task_caller_stop(task);
    loop_timer_free(task->caller);
    task->caller = NULL;
}
