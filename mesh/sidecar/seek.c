/* A slot that became free: who is next? While calls wait for it, the environment is asked before the instance joins its queue groups again, so that nobody who comes
 * later is before them (amp.md 10.14). Without an environment, or one that does not answer at once, it joins: then callers find it by themselves. */
#include "sidecar_private.h"

#include "base/bus.h"
#include "base/counters.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "base/seeded.h"

#define ANSWER_MS 100u /* an environment that takes longer is done without */
#define ALONE_MS 1000  /* so long */
#define KEEP_MS 50u    /* how long a slot is kept for a caller that was told to come */

static void on_kept(void *ctx)
{
    struct sidecar *sidecar = ctx;
    sidecar->seek.kept = 0;
    sidecar_touch(sidecar);
}

void seek_init(struct sidecar *sidecar)
{
    sidecar->seek = (struct seek){.is_new = true, .timer = loop_timer_new(sidecar->loop, on_kept, sidecar)};
}

void seek_stop(struct sidecar *sidecar)
{
    env_call_cancel(sidecar->seek.call);
    sidecar->seek.call = NULL;
    sidecar->seek.kept = 0;
    sidecar->seek.is_new = true;
    loop_timer_stop(sidecar->seek.timer);
}

void seek_done(struct sidecar *sidecar)
{
    seek_stop(sidecar);
    loop_timer_free(sidecar->seek.timer);
    sidecar->seek.timer = NULL;
}

static void on_next(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct sidecar *sidecar = ctx;
    struct seek *seek = &sidecar->seek;
    seek->call = NULL;
    if (SEEDED_BUG("asks-on") && err->code != AMP_OK) {
        seek->is_contended = true;
    } else if (err->code != AMP_OK) {
        seek->alone_until_ms = loop_now_ms(sidecar->loop) + ALONE_MS;
        seek->is_contended = false;
        seek->is_new = true;
    } else {
        uint32_t turns = reply->turns < seek->asked ? reply->turns : seek->asked;
        seek->is_contended = turns > 0 || reply->waiting > 0;
        seek->is_last = !seek->is_joined && turns < seek->asked; /* nobody of those who wait is for the rest: it is for whoever comes */
        seek->kept += turns > seek->early ? turns - seek->early : 0;
        if (turns > 0)
            loop_timer_set(seek->timer, KEEP_MS);
    }
    sidecar_touch(sidecar);
}

static void ask(struct sidecar *sidecar, uint32_t slots, bool is_joined)
{
    struct seek *seek = &sidecar->seek;
    Amp__Next next = AMP__NEXT__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    next.instance = sidecar->instance;
    next.has_free = true;
    next.free = slots;
    next.has_joined = is_joined;
    next.joined = is_joined;
    request.verb_case = AMP__ENV_REQUEST__VERB_NEXT;
    request.next = &next;
    seek->asked = slots;
    seek->early = 0;
    seek->is_joined = is_joined;
    seek->is_last = seek->is_new = false;
    if (env_call(sidecar->loop, sidecar->bus, sidecar->agent, &request, ANSWER_MS, on_next, sidecar, &seek->call) != AMP_OK)
        seek->call = NULL;
}

bool seek_may_join(struct sidecar *sidecar, uint32_t free_slots)
{
    struct seek *seek = &sidecar->seek;
    if (loop_now_ms(sidecar->loop) < seek->alone_until_ms)
        return true;
    if (seek->call || free_slots <= seek->kept)
        return false;
    if (!seek->is_contended || seek->is_last)
        return true;
    ask(sidecar, free_slots - seek->kept, false);
    return seek->call == NULL;
}

void seek_joined(struct sidecar *sidecar, uint32_t free_slots)
{
    struct seek *seek = &sidecar->seek;
    bool was_asking = seek->is_last;
    seek->is_last = false;
    if ((was_asking || seek->is_new) && !seek->call && free_slots > seek->kept && loop_now_ms(sidecar->loop) >= seek->alone_until_ms)
        ask(sidecar, free_slots - seek->kept, true);
}

uint32_t seek_promised(const struct sidecar *sidecar)
{
    const struct seek *seek = &sidecar->seek;
    return seek->kept + (seek->call && !seek->is_joined ? seek->asked : 0);
}

void seek_found(struct sidecar *sidecar)
{
    struct seek *seek = &sidecar->seek;
    if (seek->call)
        seek->early++;
    else if (seek->kept > 0)
        seek->kept--;
    seek->is_contended = true;
}
