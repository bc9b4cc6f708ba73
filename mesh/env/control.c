/* command: cancel or answer a task. A durable one through the environment's own call, a direct one by a control message to the
 * instance that has it. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/call.h"
#include "base/counters.h"

#include <stdlib.h>
#include <string.h>

#define FORWARD_MS 5000u
#define FORWARDS_MAX 10000u

static uint32_t n_forwards_of(struct env *env)
{
    return env->n_forwards;
}

struct forward { /* a control message under way to a direct task's instance */
    struct forward *prev, *next;
    struct env *env;
    enum amp_encoding encoding;
    char task[AMP_NAME_MAX + 1];
    char reply[];
};

static void answer_done(struct env *env, const char *reply, enum amp_encoding encoding, const char *id)
{
    struct etask *task = etask_find(env, id);
    amp_arena_reset(&env->scratch);
    Amp__TaskRecord *record = task ? view_task(task, &env->scratch, VIEW_ALL) : NULL;
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    answer.n_tasks = record ? 1 : 0;
    answer.tasks = &record;
    if (env_answer(env, reply, encoding, &answer) == AMP_TOO_LARGE) {
        answer.n_tasks = 0; /* done all the same */
        (void)env_answer(env, reply, encoding, &answer);
    }
}

static void forward_free(struct forward *forward)
{
    *(forward->prev ? &forward->prev->next : &forward->env->forwards) = forward->next;
    if (forward->next)
        forward->next->prev = forward->prev;
    forward->env->n_forwards--;
    free(forward);
}

static void on_forwarded(void *ctx, const struct amp_error *err)
{
    struct forward *forward = ctx;
    if (forward->is_dead) {
        free(forward);
        return;
    }
    if (err->code != AMP_OK)
        env_refuse(forward->env, forward->reply, forward->encoding, err);
    else
        answer_done(forward->env, forward->reply, forward->encoding, forward->task);
    forward_free(forward);
}
