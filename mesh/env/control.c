/* command: cancel or answer a task. Durable ones are in our hands; to a direct one the message is passed on. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/call.h"
#include "base/clock.h"
#include "env/files.h"
#include "env/inbox.h"
#include "env/tree.h"

#include <stdlib.h>
#include <string.h>

struct passed { /* a control message on its way to an instance */
    struct passed *prev, *next;
    struct env *env;
    struct control *control;
    enum amp_encoding encoding;
    char task[AMP_NAME_MAX + 1], from[AMP_NAME_MAX + 1];
    char reply[]; /* "": nobody waits for an answer */
};

static void answer_with_task(struct env *env, struct etask *task, const char *reply, enum amp_encoding encoding)
{
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    struct amp_arena *arena = env_answer_arena(env);
    Amp__TaskRecord *record = task ? view_task(task, arena, 0) : NULL;
    answer.n_tasks = record ? 1 : 0;
    answer.tasks = &record;
    env_answer_record(env, reply, encoding, &answer);
}

static void on_passed(void *ctx, const struct amp_error *err)
{
    struct passed *passed = ctx;
    struct env *env = passed->env;
    struct reads_hand before = reads_answer(env, passed->from);
    if (passed->reply[0] && err->code == AMP_OK)
        answer_with_task(env, etask_find(env, passed->task), passed->reply, passed->encoding);
    else if (passed->reply[0])
        env_refuse(env, passed->reply, passed->encoding, err);
    reads_answered(env, before);
    *(passed->prev ? &passed->prev->next : &env->passed) = passed->next;
    if (passed->next)
        passed->next->prev = passed->prev;
    env->n_passed--;
    free(passed);
}

/* ask: who waits for an answer, or NULL. */
static enum amp_code pass(struct etask *task, const char *instance, const Amp__Control *control, const struct ask *ask)
{
    struct env *env = task->env;
    const char *reply = ask ? ask->reply : "";
    if (env->n_passed >= ENV_PASSED_MAX)
        return AMP_OVERLOADED;
    size_t size = strlen(reply) + 1;
    struct passed *passed = xcalloc(1, sizeof *passed + size);
    passed->env = env;
    passed->encoding = ask ? ask->encoding : AMP_PROTOBUF;
    etask_strcpy(passed->from, ask ? ask->from : "");
    etask_strcpy(passed->task, task->id);
    memcpy(passed->reply, reply, size);
    enum amp_code code = control_send(env->loop, env->bus, instance, task->id, control, ENV_CONTROL_MS, on_passed, passed, &passed->control);
    if (code != AMP_OK) {
        free(passed);
        return code;
    }
    env->n_passed++;
    passed->next = env->passed;
    if (env->passed)
        env->passed->prev = passed;
    env->passed = passed;
    return AMP_OK;
}

static void pass_on(const struct ask *ask, struct etask *task, const Amp__Control *control)
{
    enum amp_code code = pass(task, task->instance, control, ask);
    if (code == AMP_OVERLOADED)
        load_refuse(ask, "too many control messages are on their way");
    else if (code != AMP_OK)
        env_refuse_code(ask, code, "", NULL);
}

void control_stop_old(struct etask *task, const char *instance, const char *why)
{
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__Cancel cancel = AMP__CANCEL__INIT;
    cancel.reason = (char *)why;
    cancel.has_epoch = true; /* late or twice, it must not end the attempt that comes next */
    cancel.epoch = lease_next(task->env);
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &cancel;
    (void)pass(task, instance, &control, NULL); /* if it does not come through, its instance answers the next attempt with a conflict */
}

void control_done(struct env *env)
{
    for (struct passed *passed = env->passed, *next; passed; passed = next) {
        next = passed->next;
        control_cancel(passed->control);
        free(passed);
    }
    env->passed = NULL;
    env->n_passed = 0;
}

/* Its caller may see to it as well; the second word is refused. */
static void pass_cancel(struct etask *task, const char *reason)
{
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__Cancel cancel = AMP__CANCEL__INIT;
    cancel.reason = (char *)reason;
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &cancel;
    if (task->instance[0])
        (void)pass(task, task->instance, &control, NULL);
}

void control_end(struct etask *task, const char *reason)
{
    struct engine_event event = {.kind = ENGINE_EV_CANCEL};
    if (!task->is_durable) {
        pass_cancel(task, reason);
        return;
    }
    if (reason && reason[0] && !task->cancel_reason)
        task->cancel_reason = xstrndup(reason, amp_utf8_cut(amp_bytes_of(reason), AMP_LABEL_MAX));
    struct attempt *last = task->n_attempts ? &task->attempts[task->n_attempts - 1] : NULL;
    if (last && !last->ended_unix_ms) {
        last->canceled_unix_ms = last->is_canceled ? last->canceled_unix_ms : clock_unix_ms();
        last->is_canceled = true;
    }
    dispatch_event(task, &event);
    etask_changed(task); /* also when the callee must be told first */
}

/* Done when it is written down, so that a new environment does not start again what was cancelled. */
static void cancel(const struct ask *ask, struct etask *task)
{
    etask_reply_later(task, ask, false);
    control_end(task, ask->request->command->control->cancel->reason);
}

struct located {
    struct env *env;
    struct etask *task;
    bool is_known;
};

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct located *located = ctx;
    located->is_known = true;
    located->task = record_resume(located->env, row);
    return false;
}

/* The question that the command answers; NULL: it does not, or names none. */
static const char *asked_for(const struct ask *ask)
{
    const Amp__Control *control = ask->request->command->control;
    return control->kind_case == AMP__CONTROL__KIND_ANSWER ? control->answer->input_id : NULL;
}

/* The open task of that id; answers if there is none. */
static struct etask *locate(const struct ask *ask, const char *id)
{
    struct env *env = ask->env;
    struct located located = {.env = env, .task = etask_find(env, id)};
    struct journal_query query = {.task = id, .limit = 1};
    struct amp_error err = {0};
    located.is_known = located.task != NULL;
    if (!located.task && journal_tasks(env->journal, &query, on_row, &located, NULL, &err) != AMP_OK) {
        env_refuse(env, ask->reply, ask->encoding, &err);
        return NULL;
    }
    if (located.task && !located.task->is_ended)
        return located.task;
    if (located.is_known && journal_failure(env->journal))
        env_refuse_journal(env, ask->reply, ask->encoding); /* it may be open there, but nothing can become of it here */
    else if (!located.is_known)
        env_refuse_no_task(ask, id);
    else if (!inbox_refuse_over(ask, asked_for(ask)))
        env_refuse_ended(ask, id);
    return NULL;
}

void control_verb(const struct ask *ask)
{
    const Amp__TaskCommand *command = ask->request->command;
    struct etask *task = locate(ask, command->id);
    Amp__Control__KindCase kind = command->control->kind_case; /* there is one: amp.md 3.6.2 */
    if (!task)
        return;
    if (task->is_durable && kind == AMP__CONTROL__KIND_CANCEL)
        cancel(ask, task);
    else if (task->is_durable && kind == AMP__CONTROL__KIND_ANSWER && inbox_answer(ask, task))
        return;
    else if (task->instance[0] && (kind != AMP__CONTROL__KIND_ANSWER || inbox_files_here(ask)))
        pass_on(ask, task, command->control); /* the callee's own word on it is the answer */
    else if (task->instance[0])
        return; /* asked again by itself when they are here */
    else if (kind == AMP__CONTROL__KIND_ANSWER)
        env_refuse_code(ask, AMP_NO_QUESTION, "id", "the task is not with an agent now; nobody waits for an answer");
    else
        answer_with_task(ask->env, task, ask->reply, ask->encoding);
}
