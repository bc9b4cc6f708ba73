/* What the stream has and was not heard: read in bounded batches, while what is heard is held. The journal's pace is the reading's: a batch is asked for when the
 * one before is nearly written. */
#include "evtstream.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/seeded.h"

#include <stdlib.h>
#include <string.h>

#define WAITING_MAX 2000u /* batches that wait for the journal */

/* ---- held --------------------------------------------------------------------------------------------------------- */

void evt_drop_held(struct evtstream *evt)
{
    while (evt->held) {
        struct evt_held *held = evt->held;
        evt->held = held->next;
        free(held->subject);
        free(held);
    }
    evt->held_last = NULL;
    evt->held_bytes = 0;
    evt->n_held = 0;
}

/* No room: all of it goes, since the stream has it; that is read once more. */
void evt_hold(struct evtstream *evt, const struct bus_msg *msg)
{
    if (evt->n_held == EVT_HELD_MAX || evt->held_bytes + msg->data.len > EVT_HELD_BYTES_MAX) {
        counter_add(COUNTER_stream_unheld, evt->n_held);
        evt_drop_held(evt);
        evt->has_overflowed = true;
    }
    struct evt_held *held = xcalloc(1, sizeof *held + msg->data.len);
    held->subject = xstrdup(msg->subject);
    held->len = msg->data.len;
    if (held->len)
        memcpy(held->data, msg->data.data, held->len);
    *(evt->held_last ? &evt->held_last->next : &evt->held) = held;
    evt->held_last = held;
    evt->held_bytes += held->len;
    evt->n_held++;
}

void evt_release(struct evtstream *evt)
{
    for (struct evt_held *held = evt->held; held; held = held->next) {
        struct bus_msg msg = {.subject = held->subject, .data = {.data = held->data, .len = held->len}};
        record_take(evt->env, &msg, false);
    }
    evt_drop_held(evt);
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

static void on_message(void *ctx, uint64_t seq, const char *subject, struct amp_bytes data)
{
    struct evtstream *evt = ctx;
    struct bus_msg msg = {.subject = subject, .data = data};
    (void)seq;
    counter_add(COUNTER_stream_read, 1);
    record_take(evt->env, &msg, false);
}

void evt_read_step(struct evtstream *evt)
{
    struct env *env = evt->env;
    if (env->unwritten_bytes > EVT_READ_UNWRITTEN_MAX || journal_waiting(env->journal) > WAITING_MAX)
        loop_timer_set(evt->timer, EVT_READ_PAUSE_MS);
    else
        js_read_more(evt->read);
}

static void on_batch(void *ctx, uint64_t left)
{
    struct evtstream *evt = ctx;
    evt->left = left;
    evt_read_step(evt);
}

static void on_end(void *ctx, enum js_outcome outcome, const char *text)
{
    struct evtstream *evt = ctx;
    evt->read = NULL;
    if (outcome != JS_OK) {
        evt_off_by(evt, outcome, text);
        return;
    }
    evt->left = 0;
    evt->mark.seq = evt->now.last_seq;
    if (evt->has_overflowed)
        evt_check(evt); /* from here on once more */
    else
        evt_live(evt);
}

/* What the stream had to give up before it was read is missing from history, and nothing else shows that. Of what stands before the last canary but canaries, which we
 * remove, all was heard. */
static void note_missed(struct evtstream *evt)
{
    uint64_t from = (evt->mark.anchor > evt->mark.seq ? evt->mark.anchor : evt->mark.seq) + 1;
    if (from == 1 || evt->now.first_seq <= from)
        return;
    uint64_t n = evt->now.first_seq - from;
    evt->n_missed += n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
    counter_add(COUNTER_stream_missed, n);
    log_event(LOG_WARN, "stream.missed", "stream", EVT_STREAM, "messages", log_int((long long)n), "hint",
              "the environment was away for longer than the stream keeps: direct tasks of that time are not in history", NULL);
}

void evt_read(struct evtstream *evt)
{
    static const struct js_read_handlers handlers = {.on_message = on_message, .on_batch = on_batch, .on_end = on_end};
    const struct js_stream *now = &evt->now;
    note_missed(evt);
    evt->has_overflowed = false;
    evt->phase = EVT_READING;
    if (evt->mark.seq < now->last_seq && now->messages > 0 && !SEEDED_BUG("unread-stream")) {
        struct js_range range = {.stream = EVT_STREAM, .filter = evt->subject, .from_seq = evt->mark.seq + 1, .until_seq = now->last_seq};
        evt->left = now->last_seq - evt->mark.seq;
        evt->read = js_read_start(evt->env->loop, evt->env->bus, &range, &handlers, evt);
        return;
    }
    on_end(evt, JS_OK, "");
}
