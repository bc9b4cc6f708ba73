/* command: cancel or answer a task. Durable ones are in our hands; to a direct one the message is passed on. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/call.h"

#include <stdlib.h>
#include <string.h>

struct passed { /* a control message on its way to an instance */
    struct env *env;
    enum amp_encoding encoding;
    char task[AMP_NAME_MAX + 1];
    char reply[];
};

static void answer_with_task(struct env *env, struct etask *task, const char *reply, enum amp_encoding encoding)
{
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    amp_arena_reset(&env->scratch);
    Amp__TaskRecord *record = task ? view_task(task, &env->scratch, 0) : NULL;
    answer.n_tasks = record ? 1 : 0;
    answer.tasks = &record;
    (void)env_answer(env, reply, encoding, &answer);
}

static void on_passed(void *ctx, const struct amp_error *err)
{
    struct passed *passed = ctx;
    if (err->code == AMP_OK)
        answer_with_task(passed->env, etask_find(passed->env, passed->task), passed->reply, passed->encoding);
    else
        env_refuse(passed->env, passed->reply, passed->encoding, err);
    passed->env->n_passed--;
    free(passed);
}

static void pass_on(const struct ask *ask, struct etask *task, const Amp__Control *control)
{
    struct env *env = ask->env;
    if (env->n_passed >= ENV_PASSED_MAX) {
        env_refuse_code(ask, AMP_OVERLOADED, "", "too many control messages are on their way");
        return;
    }
    size_t size = strlen(ask->reply) + 1;
    struct passed *passed = xcalloc(1, sizeof *passed + size);
    passed->env = env;
    passed->encoding = ask->encoding;
    etask_strcpy(passed->task, task->id);
    memcpy(passed->reply, ask->reply, size);
    enum amp_code code = control_send(env->loop, env->bus, task->instance, task->id, control, ENV_CONTROL_MS, on_passed, passed);
    if (code == AMP_OK) {
        env->n_passed++;
    } else {
        env_refuse_code(ask, code, "", NULL);
        free(passed);
    }
}

static void cancel(const struct ask *ask, struct etask *task)
{
    struct engine_event event = {.kind = ENGINE_EV_CANCEL};
    etask_reply_later(task, ask->reply, ask->encoding, false);
    dispatch_event(task, &event);
    etask_changed(task); /* so that the reply leaves, also when the callee must be told first */
}

static bool is_there(void *ctx, const struct journal_row *row)
{
    *(bool *)ctx = true;
    return false;
}

void control_verb(const struct ask *ask)
{
    const Amp__TaskCommand *command = ask->request->command;
    struct etask *task = etask_find(ask->env, command->id);
    bool is_known = false;
    if (!command->control || command->control->kind_case == AMP__CONTROL__KIND__NOT_SET) {
        env_refuse_code(ask, AMP_INVALID, "command.control", "a command needs a control message");
        return;
    }
    if (!task || task->is_ended) {
        struct journal_query query = {.task = command->id, .limit = 1};
        (void)journal_tasks(ask->env->journal, &query, is_there, &is_known, NULL, NULL);
        env_refuse_code(ask, task || is_known ? AMP_TASK_ENDED : AMP_NO_SUCH_TASK, "id", NULL);
    } else if (task->is_durable && command->control->kind_case == AMP__CONTROL__KIND_CANCEL) {
        cancel(ask, task);
    } else if (!task->is_durable || task->instance[0]) {
        pass_on(ask, task, command->control); /* the callee's own word on it is the answer */
    } else if (command->control->kind_case == AMP__CONTROL__KIND_ANSWER) {
        env_refuse_code(ask, AMP_NO_QUESTION, "id", "the task is not with an agent now; nobody waits for an answer");
    } else {
        answer_with_task(ask->env, task, ask->reply, ask->encoding);
    }
}
