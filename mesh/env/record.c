/* Direct tasks: nobody handed them to us; what we know of them we hear on amp.evt (amp.md 6.6). Followed in memory while they are open,
 * within bounds: the one silent longest gives way; its rows stay. What we did not hear is said: `incomplete`. One that its instance has not
 * any more is closed with the reason: the instance left, or its beats do not name the task (its end was missed while the bus or we were
 * away). What was said while nobody listened comes later, from the stream, if there is one (evtstream.h). */
#include "env_private.h"
#include "again.h"
#include "turns_verb.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/call_retry.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"
#include "env/inbox.h"

#include <stdlib.h>
#include <string.h>

static void lru_remove(struct etask *task)
{
    struct env *env = task->env;
    if (!task->lru_prev && !task->lru_next && env->lru_first != task)
        return;
    if (task->lru_prev)
        task->lru_prev->lru_next = task->lru_next;
    else
        env->lru_first = task->lru_next;
    if (task->lru_next)
        task->lru_next->lru_prev = task->lru_prev;
    else
        env->lru_last = task->lru_prev;
    task->lru_prev = task->lru_next = NULL;
    env->n_direct--;
}

static void lru_append(struct etask *task)
{
    struct env *env = task->env;
    task->lru_prev = env->lru_last;
    if (env->lru_last)
        env->lru_last->lru_next = task;
    else
        env->lru_first = task;
    env->lru_last = task;
    env->n_direct++;
}

void record_forget(struct etask *task)
{
    lru_remove(task);
    task->env->direct_bytes -= task->bytes;
    task->bytes = 0;
}

/* Its rows stay in the journal as they are; what comes later makes it anew from there. */
static void make_room(struct env *env, const struct etask *keep)
{
    struct etask *next;
    for (struct etask *task = env->lru_first; task && (env->n_direct > ENV_DIRECT_MAX || env->direct_bytes > ENV_DIRECT_BYTES_MAX); task = next) {
        next = task->lru_next;
        if (task != keep && task->n_in_journal == 0 && task->n_refs == 0 && !task->wants_row && !task->watchers && !task->replies)
            etask_free(task);
    }
}

void record_adopt(struct etask *task)
{
    task->stream.next = task->count + 1 - (task->n_attempts ? task->attempts[task->n_attempts - 1].base : 0); /* as its instance counts */
    task->heard_ms = loop_now_ms(task->env->loop);
    lru_append(task);
    make_room(task->env, task);
}

static void keep_request(struct etask *task, const Amp__Frame *frame)
{
    Amp__Submit submit = AMP__SUBMIT__INIT;
    Amp__Request request = AMP__REQUEST__INIT;
    request.task_id = task->id;
    request.context_id = task->context;
    request.message = frame->request;
    request.root = frame->root;
    submit.agent = task->agent;
    submit.request = &request;
    task->submit_len = amp__submit__get_packed_size(&submit);
    task->submit = xcalloc(1, task->submit_len);
    amp__submit__pack(&submit, task->submit);
}

static void begin_attempt(struct etask *task, const Amp__Frame *frame)
{
    task->attempts = xcalloc(1, sizeof *task->attempts);
    task->n_attempts = 1;
    task->attempts[0].number = frame->has_attempt ? frame->attempt : 1;
    etask_strcpy(task->attempts[0].agent, task->agent);
    etask_strcpy(task->attempts[0].instance, task->instance);
    task->attempts[0].ready_unix_ms = task->attempts[0].started_unix_ms = task->started_unix_ms;
}

static struct etask *begin(struct env *env, const struct amp_subject *subject, const Amp__Frame *frame)
{
    struct etask *task = etask_new(env, subject->b, subject->a);
    etask_strcpy(task->agent, frame->agent);
    etask_strcpy(task->instance, frame->instance);
    etask_strcpy(task->from, frame->from);
    etask_strcpy(task->parent, frame->parent);
    task->root = frame->parent && frame->root ? xstrdup(frame->root) : NULL;
    const Amp__Timestamp *time = frame->n_events ? frame->events[0]->time : NULL;
    task->submitted_unix_ms = task->started_unix_ms = time ? time->unix_ms : clock_unix_ms();
    if (frame->request)
        keep_request(task, frame);
    task->fold = frame->request ? amp_fold_new(task->id, task->context, AMP_FOLD_BYTES_MAX) : NULL;
    if (task->fold) /* from the message at hand; etask_fold would have to unpack what was kept just now */
        (void)amp_fold_message(task->fold, frame->request);
    begin_attempt(task, frame);
    waits_direct(task, turns_waited_ms(env->turns, task->from, task->id, loop_now_ms(env->loop)));
    if (frame->cause && frame->has_attempt && frame->attempt > 1)
        again_begin_first(task, frame);
    lru_append(task);
    make_room(env, task);
    turns_begun(env, task->agent);
    return task;
}

struct etask *record_resume(struct env *env, const struct journal_row *row)
{
    if (!row->is_open || row->is_durable || journal_failure(env->journal))
        return NULL;
    struct etask *task = etask_load(env, row);
    inbox_load_task(task);
    record_adopt(task);
    return task;
}

struct loaded {
    struct env *env;
    struct etask *task;
    bool is_known;
};

static bool load(void *ctx, const struct journal_row *row)
{
    struct loaded *loaded = ctx;
    loaded->is_known = true;
    loaded->task = record_resume(loaded->env, row);
    return false;
}

/* The task of a frame, in memory or in the journal; NULL: there is none, or with *ret_is_known, one that has ended or is not to be followed from here. */
static struct etask *find(struct env *env, const struct amp_subject *subject, bool *ret_is_known)
{
    struct etask *task = etask_find(env, subject->b);
    struct loaded loaded = {.env = env};
    struct journal_query query = {.task = subject->b, .limit = 1};
    *ret_is_known = task != NULL;
    if (task)
        return task;
    /* A first frame too: an id used twice must not write over the numbers that are in the journal. */
    *ret_is_known = journal_tasks(env->journal, &query, load, &loaded, NULL, NULL) != AMP_OK || loaded.is_known;
    return loaded.task;
}

static void finish(struct etask *task, const Amp__Error *error, int64_t ended_unix_ms)
{
    Amp__TaskState state = etask_state(task);
    if (!amp_task_is_terminal(state)) {
        const char *text = error && error->message ? error->message : amp_code_info(AMP_TASK_FAILED)->text;
        if (etask_emit_status(task, AMP__TASK_STATE__TASK_STATE_FAILED, text, NULL) != AMP_OK)
            task->is_incomplete = true;
        state = AMP__TASK_STATE__TASK_STATE_FAILED;
    }
    if (task->n_attempts) {
        struct attempt *attempt = &task->attempts[task->n_attempts - 1];
        attempt->ended_unix_ms = ended_unix_ms;
        attempt->outcome = error ? amp_code_info((enum amp_code)error->code)->code : AMP_OK;
        attempt->state = state;
    }
    etask_end(task, error);
    task->ended_unix_ms = ended_unix_ms;
    record_forget(task);
}

static void take_events(struct etask *task, const Amp__Frame *frame, size_t skip, size_t n)
{
    for (size_t i = skip; i < n; i++) {
        const ProtobufCBinaryData *body = &frame->events[i]->body->text;
        int64_t time = frame->events[i]->time ? frame->events[i]->time->unix_ms : clock_unix_ms();
        enum amp_code code = etask_emit(task, time, (struct amp_bytes){.data = body->data, .len = body->len});
        if (code != AMP_OK) {
            task->is_incomplete = true;
            continue;
        }
        task->said_unix_ms = time;
        task->bytes += body->len;
        task->env->direct_bytes += body->len;
    }
}

/* The next frame of its task, or one before or behind it. */
static void take_frame(struct etask *task, const Amp__Frame *frame)
{
    struct env *env = task->env;
    uint32_t skip = 0;
    size_t n = frame->n_events;
    task->heard_ms = loop_now_ms(env->loop);
    lru_remove(task);
    lru_append(task);
    if (amp_stream_take(&task->stream, frame, &skip, NULL) != AMP_OK) {
        task->is_incomplete = true;
        skip = 0;
        if (frame->seq < task->stream.next)
            return;
        task->stream.next = frame->seq + (uint32_t)frame->n_events;
    }
    again_heard(task, frame);
    bool is_kept = again_keep(task, frame, &n);
    if (env->unwritten_bytes > ENV_FLOOD_BYTES_MAX) {
        task->is_incomplete = true; /* history has a hole rather than the environment an end */
        counter_add(COUNTER_journal_refused, 1);
    } else {
        take_events(task, frame, skip, n);
    }
    task->orphaned_ms = 0;
    if (frame->end)
        turns_freed(env, task->agent, task->instance);
    if (frame->end && !is_kept)
        finish(task, frame->end->error, task->said_unix_ms ? task->said_unix_ms : clock_unix_ms()); /* which may be long ago */
}

static void route(struct env *env, const struct amp_subject *subject, const Amp__Frame *frame, const struct bus_msg *may_fill)
{
    bool is_known;
    struct etask *task = find(env, subject, &is_known);
    if (is_known && (!task || task->is_durable || task->is_ended || strcmp(task->context, subject->a) != 0))
        return;
    bool is_next = task && again_is_next(task, frame);
    /* The first word of who has it counts: nobody else may add to it. */
    if (task && !is_next && strcmp(task->instance, frame->instance) != 0) {
        counter_add(COUNTER_malformed_refused, 1);
        return;
    }
    if (task && (again_is_past(task, frame) || (!is_next && again_is_kept(task))))
        return; /* said twice, or read again after a restart */
    if (may_fill && frame->seq > (task && !is_next ? task->stream.next : 1) && evtstream_fill(env, may_fill))
        return;
    if (is_next)
        again_begin(task, frame);
    take_frame(task ? task : begin(env, subject, frame), frame);
}

/* Of what the journal has already nobody's word counts. */
static bool is_durable(struct env *env, const char *id)
{
    const struct etask *task = etask_find(env, id);
    return task && task->is_durable;
}

void record_take(struct env *env, const struct bus_msg *msg, bool may_fill)
{
    struct amp_subject subject;
    Amp__Envelope *envelope = NULL;
    enum amp_encoding encoding;
    bool is_event = amp_subject_parse(msg->subject, &subject, NULL) == AMP_OK && subject.kind == AMP_SUBJECT_EVT;
    if (is_event && is_durable(env, subject.b))
        return;
    amp_arena_reset(&env->arena);
    if (!is_event || amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_FRAME, &env->arena, &envelope, &encoding, NULL) != AMP_OK ||
        strcmp(envelope->frame->task_id, subject.b) != 0 ||
        !(envelope->frame->journalled || (envelope->frame->agent && envelope->frame->instance))) {
        counter_add(COUNTER_malformed_refused, 1);
        return;
    }
    const Amp__Frame *frame = envelope->frame;
    if (!(frame->has_journalled && frame->journalled) && !env->is_stopping && !journal_failure(env->journal))
        route(env, &subject, frame, may_fill ? msg : NULL);
}

/* Does its instance still have it? Beats name what is in flight there, but only so many. One from before its last frame says nothing. */
static bool is_held(const struct etask *task)
{
    const struct registry_instance *instance = registry_instance(&task->env->registry, task->agent, task->instance);
    if (!registry_is_live(instance))
        return false;
    const Amp__Beat *beat = instance->beat;
    if (instance->seen_ms <= task->heard_ms || !beat->has_inflight || beat->inflight > beat->n_tasks)
        return true;
    for (size_t i = 0; i < beat->n_tasks; i++) {
        if (strcmp(beat->tasks[i], task->id) == 0)
            return true;
    }
    return false;
}

static void finish_orphan(struct etask *task)
{
    struct amp_error err = {0};
    Amp__Error wire;
    bool is_live = registry_is_live(registry_instance(&task->env->registry, task->agent, task->instance));
    /* An instance that is there has said an end that we do not have. One that has gone said none, if the stream kept all that it said. */
    if (is_live || !evtstream_is_whole(task->env))
        task->is_incomplete = true;
    if (amp_task_is_terminal(etask_state(task))) {
        finish(task, NULL, clock_unix_ms());
        return;
    }
    if (is_live)
        amp_error_set(&err, AMP_FRAMES_LOST, "", "the end of the task was missed: its instance has it no more, and goes on");
    else
        amp_error_set(&err, AMP_INSTANCE_LOST, "", "the instance that had this task left the mesh without an end");
    amp_error_to_wire(&err, &wire);
    finish(task, &wire, clock_unix_ms());
}

/* Nobody has taken it over: what ended its last attempt is its end. */
static void finish_kept(struct etask *task, const Amp__Frame *frame)
{
    size_t n = retry_n_kept(frame);
    take_events(task, frame, n, frame->n_events);
    again_free(task);
    finish(task, frame->end->error, task->said_unix_ms ? task->said_unix_ms : clock_unix_ms());
}

static void look_after(struct etask *task, int64_t now)
{
    if (again_is_kept(task)) {
        if (!again_is_awaited(task))
            finish_kept(task, again_end(task, &task->env->arena));
    } else if (is_held(task)) {
        task->orphaned_ms = 0;
    } else if (task->orphaned_ms == 0) {
        task->orphaned_ms = now ? now : 1;
    } else if (now - task->orphaned_ms > ENV_GONE_GRACE_MS && !again_may_come(task)) {
        finish_orphan(task);
    }
}

void record_sweep(struct env *env)
{
    int64_t now = loop_now_ms(env->loop);
    struct etask *next;
    for (struct etask *task = env->lru_first; task; task = next) {
        next = task->lru_next;
        look_after(task, now);
    }
}

void record_bus_up(struct env *env)
{
    for (struct etask *task = env->lru_first; task; task = task->lru_next)
        task->orphaned_ms = 0; /* what was not heard while we were deaf does not count */
}
