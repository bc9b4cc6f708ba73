/* What was heard of direct tasks a moment ago and is not taken up yet. Each call says something; to take that up costs more than to hear it, and nobody waits for it: so a few
 * milliseconds of it are taken up together, in the order in which they came. Whatever looks at direct tasks has it taken up first (evtstream_catch_up), so that none can tell the difference. */
#include "evtstream.h"
#include "turns_verb.h"

#include "base/bus.h"
#include "base/loop.h"

#include <string.h>

struct fresh_head {
    size_t subject_size, len;
};

static void take(struct evtstream *evt, const struct bus_msg *msg)
{
    if (evtstream_is_holding(evt->env))
        evt_hold(evt, msg);
    else
        record_take(evt->env, msg, true);
}

void evtstream_catch_up(struct env *env)
{
    struct evtstream *evt = env->evt;
    struct amp_buf *fresh = &evt->fresh;
    struct fresh_head head;
    if (fresh->len == 0 || evt->is_taking)
        return;
    evt->is_taking = true;
    for (size_t at = 0; at < fresh->len; at += sizeof head + head.subject_size + head.len) {
        memcpy(&head, fresh->data + at, sizeof head);
        const uint8_t *subject = fresh->data + at + sizeof head;
        take(evt, &(struct bus_msg){.subject = (const char *)subject, .data = {.data = subject + head.subject_size, .len = head.len}});
    }
    evt->is_taking = false;
    amp_buf_reset(fresh);
}

static void on_fresh(void *ctx)
{
    evtstream_catch_up(ctx);
}

void evt_fresh_init(struct evtstream *evt)
{
    amp_buf_init(&evt->fresh, EVT_FRESH_BYTES_MAX);
    evt->fresh_timer = loop_timer_new(evt->env->loop, on_fresh, evt->env);
}

void evt_fresh_done(struct evtstream *evt)
{
    amp_buf_done(&evt->fresh);
    loop_timer_free(evt->fresh_timer);
}

/* A call that waits for its turn, or somebody who watches. */
static bool is_awaited(const struct env *env)
{
    return env->n_watchers > 0 || turns_count(env->turns) > 0;
}

/* False: there is no room for it. */
static bool keep(struct amp_buf *fresh, const struct bus_msg *msg)
{
    struct fresh_head head = {.subject_size = strlen(msg->subject) + 1, .len = msg->data.len};
    size_t before = fresh->len;
    if (sizeof head + head.subject_size + head.len > fresh->max - fresh->len)
        return false;
    if (amp_buf_append(fresh, &head, sizeof head) == AMP_OK && amp_buf_append(fresh, msg->subject, head.subject_size) == AMP_OK && amp_buf_append(fresh, msg->data.data, head.len) == AMP_OK)
        return true;
    fresh->len = before;
    fresh->is_full = false;
    return false;
}

void evtstream_on_msg(void *ctx, const struct bus_msg *msg)
{
    struct env *env = ctx;
    struct evtstream *evt = env->evt;
    evt->has_heard = true;
    evt->n_heard++;
    if (!evtstream_is_holding(env) && !is_awaited(env) && keep(&evt->fresh, msg)) {
        if (!loop_timer_is_set(evt->fresh_timer))
            loop_timer_set(evt->fresh_timer, EVT_FRESH_MS);
        return;
    }
    evtstream_catch_up(env);
    take(evt, msg);
}
