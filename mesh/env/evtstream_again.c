/* After the stream lost what it held, what the journal has of open tasks is published again, so that whoever reads the stream finds each of them from its first event
 * on. Without a Nats-Msg-Id, which would need headers: doubles are known by task and number, as everywhere (amp.md 10.8). A few frames a turn. */
#include "evtstream.h"

#include "base/bus.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <string.h>

#define STEP_FRAMES_MAX 64u
#define STEP_MS 5u
#define BEGIN_MS 1000u /* an environment that starts has others to serve first */

static const char *copy(struct evtstream *evt, const char *text)
{
    return text ? amp_arena_strdup(&evt->again.arena, amp_bytes_of(text)) : NULL;
}

static bool take_task(void *ctx, const struct journal_row *row)
{
    struct evtstream *evt = ctx;
    struct evt_again *again = &evt->again;
    amp_arena_reset(&again->arena);
    again->at = (struct journal_row){.at_unix_ms = row->at_unix_ms};
    again->at.task = copy(evt, row->task);
    again->at.context = copy(evt, row->context);
    again->at.agent = copy(evt, row->agent);
    again->at.instance = copy(evt, row->instance);
    again->at.from = copy(evt, row->from);
    again->at.parent = copy(evt, row->parent);
    again->at.request.data = (const uint8_t *)amp_arena_strdup(&again->arena, row->request);
    again->at.request.len = row->request.len;
    again->has_task = again->at.task && again->at.context;
    again->next_seq = 1;
    return false;
}

static char *given(const char *text)
{
    return text && *text ? (char *)text : NULL;
}

static void add_request(struct evtstream *evt, Amp__Frame *frame)
{
    const struct journal_row *at = &evt->again.at;
    struct amp_arena *arena = &evt->env->scratch;
    Amp__Submit *submit = at->request.len ? amp__submit__unpack(&arena->allocator, at->request.len, at->request.data) : NULL;
    frame->from = given(at->from);
    frame->parent = given(at->parent);
    frame->request = submit && submit->request ? submit->request->message : NULL;
    frame->root = submit && submit->request ? submit->request->root : NULL;
}

static enum amp_code publish(struct evtstream *evt, Amp__Frame *frame)
{
    char subject[AMP_SUBJECT_SIZE];
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.from = evt->env->name;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = frame;
    enum amp_code code = amp_subject_build(AMP_SUBJECT_EVT, frame->context_id, frame->task_id, NULL, subject, NULL);
    return code == AMP_OK ? env_publish(evt->env, subject, AMP_JSON, &envelope) : code;
}

/* A frame that was made for a bus with larger messages goes out event by event; an event that is too large even so cannot be said there. */
static enum amp_code publish_parts(struct evtstream *evt, Amp__Frame *frame)
{
    enum amp_code code = publish(evt, frame);
    for (size_t i = 0; code == AMP_TOO_LARGE && i < frame->n_events; i++) {
        Amp__Frame one = *frame;
        one.seq = frame->seq + (uint32_t)i;
        one.events = frame->events + i;
        one.n_events = 1;
        enum amp_code sent = publish(evt, &one);
        if (sent != AMP_OK && sent != AMP_TOO_LARGE)
            return sent;
    }
    return code == AMP_TOO_LARGE ? AMP_OK : code;
}

static bool take_frame(void *ctx, const struct journal_row *row)
{
    struct evtstream *evt = ctx;
    struct evt_again *again = &evt->again;
    struct amp_arena *arena = &evt->env->scratch;
    amp_arena_reset(arena);
    Amp__Frame *frame = amp__frame__unpack(&arena->allocator, row->body.len, row->body.data);
    if (!frame)
        return true; /* `env verify` says more */
    frame->context_id = (char *)again->at.context;
    frame->agent = given(again->at.agent);
    frame->instance = given(again->at.instance);
    frame->has_journalled = frame->journalled = true;
    if (frame->seq == 1)
        add_request(evt, frame);
    if (publish_parts(evt, frame) != AMP_OK)
        again->n_step = STEP_FRAMES_MAX; /* the bus has no room: the next step begins here */
    else
        again->next_seq = row->seq + row->count;
    again->n_frames++;
    again->n_step++;
    counter_add(COUNTER_stream_republished, 1);
    return again->n_step < STEP_FRAMES_MAX;
}

static bool next_task(struct evtstream *evt)
{
    struct evt_again *again = &evt->again;
    char after[AMP_NAME_MAX + 1];
    etask_strcpy(after, again->at.task);
    struct journal_query query = {.only_open = true, .oldest_first = true, .limit = 1, .from_unix_ms = again->at.at_unix_ms, .from_task = after};
    again->has_task = false;
    if (journal_tasks(evt->env->journal, &query, take_task, evt, NULL, NULL) != AMP_OK || !again->has_task)
        return false;
    again->n_tasks++;
    return true;
}

static void on_step(void *ctx)
{
    struct evtstream *evt = ctx;
    struct evt_again *again = &evt->again;
    again->n_step = 0;
    while (again->n_step < STEP_FRAMES_MAX && bus_is_up(evt->env->bus)) {
        if (!again->has_task && !next_task(evt)) {
            again->is_on = false;
            log_event(LOG_INFO, "stream.republished", "tasks", log_int(again->n_tasks), "frames", log_int(again->n_frames), NULL);
            return;
        }
        uint32_t before = again->next_seq;
        (void)journal_events(evt->env->journal, again->at.task, again->next_seq, take_frame, evt, NULL);
        again->has_task = again->n_step >= STEP_FRAMES_MAX || again->next_seq != before;
    }
    if (bus_is_up(evt->env->bus))
        loop_timer_set(again->timer, STEP_MS);
}

void evt_again_start(struct evtstream *evt)
{
    struct evt_again *again = &evt->again;
    if (!again->timer) {
        again->timer = loop_timer_new(evt->env->loop, on_step, evt);
        amp_arena_init(&again->arena, (size_t)2 * AMP_WIRE_BYTES_MAX);
    }
    again->is_on = true;
    again->has_task = false;
    again->n_tasks = again->n_frames = 0;
    again->at = (struct journal_row){0};
    loop_timer_set(again->timer, BEGIN_MS);
}

void evt_again_bus_up(struct evtstream *evt)
{
    if (evt->again.is_on)
        loop_timer_set(evt->again.timer, BEGIN_MS);
}

void evt_again_done(struct evtstream *evt)
{
    if (!evt->again.timer)
        return;
    loop_timer_free(evt->again.timer);
    amp_arena_done(&evt->again.arena);
}
