/* Direct calls wait only for a slot: while an instance that could take one is free and both can be reached, it is taken soon, whatever becomes of the environment, which keeps
 * whose turn it is (amp.md 10.14). */
#include "bus_private.h"
#include "scenario.h"

#include "base/call_private.h"
#include "base/loop.h"
#include "sidecar/sidecar_private.h"
#include "sidecar/task_private.h"

#include <string.h>

#define LOOK_US 100000
#define WAIT_MAX_US 3000000
#define STILL_MAX_US 5000000 /* a caller that hears nothing asks after a second, and once more when that was lost */
#define SENT_MAX_US 500000 /* a request without an answer for so long is with somebody who cannot say anything: its caller does not wait for a slot */

static bool can_talk(const struct bus *bus)
{
    const struct link *link = bus->link;
    int64_t now_us = world_now_us();
    bool is_calm = !weather.lost_percent && !weather.jitter_us;
    return is_calm && link && link->is_known && !bus->is_dead && !link->is_silent && link->up.stalled_until_us <= now_us && link->down.stalled_until_us <= now_us;
}

static bool is_free(const struct instance *instance)
{
    const struct sidecar *sidecar = instance->is_up ? instance->sidecar : NULL;
    return sidecar && sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_UP && sidecar_free_slots(sidecar) > 0 && can_talk(instance->bus) && loop_frozen_until_us(instance->loop) <= world_now_us();
}

static bool is_waiting(const struct job *job)
{
    const struct call_fsm *fsm = job->call ? &job->call->fsm : NULL;
    if (!fsm || fsm->is_cancelling || fsm->is_down || !can_talk(job->client->bus))
        return false;
    if (fsm->phase == CALL_SENT)
        return loop_now_ms(job->client->loop) - fsm->sent_at < SENT_MAX_US / 1000;
    return fsm->phase == CALL_ASKING || fsm->phase == CALL_QUEUING || fsm->phase == CALL_WAITING;
}

/* When it last said that it has the task still, from an attempt before: that one may take long to stop. 0: it has not said so */
static int64_t refused_at_us(const struct job *job, const struct instance *instance)
{
    for (size_t i = 0; i < job->call->n_avoid; i++)
        if (job->call->avoid[i].refused_ms && strcmp(job->call->avoid[i].instance, sidecar_instance(instance->sidecar)) == 0)
            return world_now_us() - (loop_now_ms(job->client->loop) - job->call->avoid[i].refused_ms) * 1000;
    return 0;
}

/* → since when one that could take it has been free; INT64_MAX: none is */
static int64_t free_since_us(const struct job *job)
{
    int64_t least_us = INT64_MAX;
    for (const struct instance *instance = nodes.instances; instance < nodes.instances + nodes.n_instances; instance++) {
        int64_t since_us = instance->free_us, refused_us = since_us ? refused_at_us(job, instance) : 0;
        since_us = refused_us > since_us ? refused_us : since_us;
        if (since_us && since_us < least_us && (job->wish->is_skill || strcmp(instance->plan->agent, job->wish->agent) == 0))
            least_us = since_us;
    }
    return least_us;
}

static void look_at(struct job *job)
{
    int64_t now_us = world_now_us();
    if (!is_waiting(job)) {
        job->waits_us = 0;
        return;
    }
    if (!job->waits_us)
        job->waits_us = now_us;
    int64_t free_us = free_since_us(job), since_us = free_us > job->waits_us ? free_us : job->waits_us;
    stat_add(STAT_wait_looks, 1);
    stat_add(STAT_wait_free, free_us != INT64_MAX);
    if (free_us != INT64_MAX && now_us - since_us > WAIT_MAX_US)
        world_fail("PW: the direct call %s waits, and for %u ms there has been somebody free", job->task, (unsigned)((now_us - since_us) / 1000));
}

/* → the instance that works on it, when both can say what they want to */
static const struct instance *worker_of(const struct job *job)
{
    if (!job->call || job->call->fsm.phase != CALL_TAKEN || job->call->fsm.is_cancelling || !can_talk(job->client->bus))
        return NULL;
    for (const struct instance *instance = nodes.instances; instance < nodes.instances + nodes.n_instances; instance++)
        if (instance->is_up && strcmp(sidecar_instance(instance->sidecar), job->call->taken_instance) == 0)
            return can_talk(instance->bus) && loop_frozen_until_us(instance->loop) <= world_now_us() ? instance : NULL;
    return NULL;
}

/* What an agent has said is shown: its instance does not wait for a caller that waits for it. */
static void look_at_flow(struct job *job)
{
    int64_t now_us = world_now_us();
    const struct instance *instance = worker_of(job);
    const struct task *task = instance ? task_lookup(instance->sidecar, job->task) : NULL;
    bool has_more = task && (task_stream_is_waiting(task) || task->is_blocked);
    if (!has_more || job->still_shown != job->n_shown)
        job->still_us = 0;
    job->still_shown = job->n_shown;
    stat_add(STAT_flow_held, has_more);
    if (has_more && !job->still_us)
        job->still_us = now_us;
    if (has_more && now_us - job->still_us > STILL_MAX_US)
        world_fail("PW: the direct call %s stands still: its instance waits for its caller, which has had %u events for %u ms", job->task, job->n_shown, (unsigned)((now_us - job->still_us) / 1000));
}

static void look(void *ctx)
{
    for (struct instance *instance = nodes.instances; instance < nodes.instances + nodes.n_instances; instance++) {
        if (!is_free(instance))
            instance->free_us = 0;
        else if (!instance->free_us)
            instance->free_us = world_now_us();
    }
    for (struct job *job = scenario.jobs; job < scenario.jobs + scenario.n_jobs; job++)
        if (!job->wish->is_durable) {
            look_at(job);
            look_at_flow(job);
        }
    world_at(world_now_us() + LOOK_US, NULL, look, NULL);
}

void wait_begin(void) { look(NULL); }

/* It was allowed to go elsewhere, had shown nothing, had the time to look, and somebody who had not had it was there. */
void wait_failed(const struct job *job, enum amp_code code)
{
    const struct call_fsm *fsm = &job->call->fsm;
    int64_t now_us = world_now_us();
    bool is_failure = code == AMP_AGENT_DIED || code == AMP_INSTANCE_LOST || code == AMP_HUNG;
    bool may_retry = !job->wish->is_never_retried && fsm->may_retry && !fsm->is_shown && fsm->retries > 0 && !fsm->is_cancelling;
    bool is_over = loop_now_ms(job->client->loop) >= fsm->deadline_at;
    if (!is_failure || is_over || !may_retry || job->wish->is_skill || !can_talk(job->client->bus))
        return;
    for (const struct instance *instance = nodes.instances; instance < nodes.instances + nodes.n_instances; instance++) {
        bool is_other = instance->is_up && instance->free_us && strcmp(instance->plan->agent, job->wish->agent) == 0;
        for (size_t i = 0; is_other && i < job->call->n_avoid; i++)
            is_other = strcmp(job->call->avoid[i].instance, sidecar_instance(instance->sidecar)) != 0;
        if (is_other && is_free(instance) && now_us - instance->free_us > WAIT_MAX_US)
            world_fail("PR: the direct call %s has failed with its instance, and another one has been free", job->task);
    }
}

void wait_begun(const struct sidecar *sidecar)
{
    for (struct instance *instance = nodes.instances; instance < nodes.instances + nodes.n_instances; instance++)
        if (instance->sidecar == sidecar && sidecar_free_slots(sidecar) == 0)
            instance->free_us = 0;
}
