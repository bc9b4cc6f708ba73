/* From memory to the journal, and from there out: amp.evt, watchers, those who wait for an answer.
 *
 * Everything of a batch, what is to be published included, lives in the batch's arena: one decision costs no malloc in steady
 * state. */
#include "schedules.h"

#include "base/alloc.h"
#include "base/counters.h"
#include "base/hook.h"
#include "base/loop.h"
#include "base/seeded.h"
#include "env/files.h"
#include "env/inbox.h"
#include "env/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_EVENTS_MAX 256u

struct commit { /* in the batch's arena */
    struct etask *task;
    Amp__Frame *frames; /* what was written, to be published */
    size_t n_frames;
    size_t bytes; /* of its events */
    struct journal_batch *batch;
    uint64_t epoch;
    uint32_t taken;
    bool is_submit;
};

static void *take(struct journal_batch *batch, size_t size)
{
    void *data = amp_arena_alloc(journal_batch_arena(batch), size);
    if (!data) {
        fputs("out of memory\n", stderr);
        abort();
    }
    return data;
}

/* ---- after the commit ------------------------------------------------------------------------------------------------ */

static void publish_frame(struct etask *task, Amp__Frame *frame)
{
    if (task->is_durable) {
        char subject[AMP_SUBJECT_SIZE];
        Amp__Envelope envelope = AMP__ENVELOPE__INIT;
        envelope.from = task->env->name;
        envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
        envelope.frame = frame;
        /* Observers of a bus that is away see nothing; the journal has it, and watchers are given what they missed. */
        if (amp_subject_build(AMP_SUBJECT_EVT, task->context, task->id, NULL, subject, NULL) == AMP_OK && env_publish(task->env, subject, AMP_JSON, &envelope) == AMP_OK)
            evtstream_said(task->env);
    }
    watch_committed(task, frame);
}

static void answer_replies(struct etask *task, enum amp_code code)
{
    struct env *env = task->env;
    struct amp_arena *arena = env_answer_arena(env);
    Amp__TaskRecord *record = code == AMP_OK && task->replies ? view_task(task, arena, VIEW_ALL) : NULL;
    while (task->replies) {
        struct waiting_reply *reply = task->replies;
        task->replies = reply->next;
        task->n_replies--;
        struct reads_hand before = reads_answer(env, reply->from);
        if (record) {
            Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
            answer.n_tasks = 1;
            answer.tasks = &record;
            answer.has_duplicate = answer.duplicate = reply->is_duplicate;
            env_answer_record(env, reply->subject, reply->encoding, &answer);
        } else {
            env_refuse_journal(env, reply->subject, reply->encoding);
        }
        reads_answered(env, before);
        free(reply);
    }
}

/* What was asked goes out with the first event. While it waits for the disk there is one copy of it; this one goes with its batch. */
static const Amp__Submit *add_request(const struct commit *commit)
{
    struct etask *task = commit->task;
    if (commit->n_frames == 0 || commit->frames[0].seq != 1 || !task->submit)
        return NULL;
    Amp__Submit *submit = amp__submit__unpack(&journal_batch_arena(commit->batch)->allocator, task->submit_len, task->submit);
    commit->frames[0].from = task->from[0] ? task->from : NULL;
    commit->frames[0].parent = task->parent[0] ? task->parent : NULL;
    commit->frames[0].root = submit ? submit->request->root : NULL;
    commit->frames[0].request = submit ? submit->request->message : NULL;
    return submit;
}

static void on_commit(void *ctx, enum amp_code code)
{
    struct commit *commit = ctx;
    struct etask *task = commit->task;
    task->n_in_journal--;
    task->env->commits_now++;
    task->env->unwritten_bytes -= commit->bytes;
    if (code != AMP_OK) {
        task->is_unwritten = true;
        env_request_tick(task->env); /* which gives up what is in memory */
    }
    bool is_told = task->is_durable || task->watchers || task->replies; /* of a direct task mostly nobody waits */
    task->parsed = code == AMP_OK && is_told ? add_request(commit) : NULL;
    for (size_t i = 0; code == AMP_OK && i < commit->n_frames; i++) {
        task->n_committed = commit->frames[i].seq + (uint32_t)commit->frames[i].n_events - 1;
        publish_frame(task, &commit->frames[i]);
    }
    if (code == AMP_OK)
        lease_committed(task, commit->epoch, commit->taken);
    /* What changed since this batch was made (a cancel) is part of what they wait for. */
    if (task->n_in_journal == 0 && ((task->n_refs == 0 && !task->wants_row) || code != AMP_OK))
        answer_replies(task, code);
    task->parsed = NULL;
    hook_at(HOOK_env_answered);
    if (code == AMP_OK)
        inbox_committed(task);
    if (code == AMP_OK && etask_is_over(task))
        tree_ended(task);
    if (commit->is_submit)
        submit_done(task, code);
    else
        etask_release(task);
}

/* ---- frames ---------------------------------------------------------------------------------------------------------- */

static void fill_frame(struct etask *task, struct journal_batch *batch, size_t first, size_t count, Amp__Frame *frame)
{
    amp__frame__init(frame);
    frame->task_id = task->id;
    frame->context_id = task->context;
    /* Copies: the task may be another instance's, or nobody's, by the time that this is durable and published. */
    frame->agent = task->agent[0] ? (char *)journal_batch_text(batch, task->agent) : NULL;
    frame->instance = task->instance[0] ? (char *)journal_batch_text(batch, task->instance) : NULL;
    frame->has_attempt = task->engine.attempt > 0;
    frame->attempt = task->engine.attempt;
    frame->has_journalled = frame->journalled = task->is_durable;
    frame->seq = task->n_written + 1 + (uint32_t)first;
    frame->n_events = count;
    frame->events = take(batch, (count ? count : 1) * sizeof *frame->events);
    Amp__Event *events = take(batch, (count ? count : 1) * sizeof *events);
    Amp__Json *bodies = take(batch, (count ? count : 1) * sizeof *bodies);
    Amp__Timestamp *times = take(batch, (count ? count : 1) * sizeof *times);
    const struct event_ref *refs = task->refs + first;
    for (size_t i = 0; i < count; i++) {
        struct amp_bytes body =
            journal_batch_bytes(batch, (struct amp_bytes){.data = task->bodies.data + refs[i].at, .len = refs[i].len});
        amp__json__init(&bodies[i]);
        bodies[i].text = (ProtobufCBinaryData){.len = body.len, .data = (uint8_t *)body.data};
        amp__timestamp__init(&times[i]);
        times[i].unix_ms = refs[i].time_unix_ms;
        amp__event__init(&events[i]);
        events[i].time = &times[i];
        events[i].body = &bodies[i];
        frame->events[i] = &events[i];
    }
}

static void add_event_row(struct etask *task, struct journal_batch *batch, Amp__Frame *frame)
{
    Amp__Frame kept = AMP__FRAME__INIT;
    kept.task_id = task->id;
    kept.seq = frame->seq;
    kept.n_events = frame->n_events;
    kept.events = frame->events;
    kept.has_attempt = frame->has_attempt;
    kept.attempt = frame->attempt;
    kept.has_epoch = kept.has_taken = task->epoch > 0;
    kept.epoch = task->epoch;
    kept.taken = task->taken_seq;
    size_t size = amp__frame__get_packed_size(&kept);
    uint8_t *packed = take(batch, size);
    amp__frame__pack(&kept, packed);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_EVENT);
    row->task = journal_batch_text(batch, task->id);
    row->seq = frame->seq;
    row->count = (uint32_t)frame->n_events;
    row->at_unix_ms = frame->events[0]->time->unix_ms;
    row->body = (struct amp_bytes){.data = packed, .len = size};
}

/* As many events as one message on this bus carries, JSON around each included. */
static size_t events_that_fit(const struct etask *task, size_t first)
{
    size_t room = env_payload_max(task->env) / 2, used = 0, count = 0;
    while (first + count < task->n_refs && count < FRAME_EVENTS_MAX) {
        used += task->refs[first + count].len + 96;
        if (count > 0 && used > room)
            break;
        count++;
    }
    return count;
}

static void add_end(struct etask *task, struct journal_batch *batch, Amp__Frame *frame)
{
    frame->end = take(batch, sizeof *frame->end);
    amp__end__init(frame->end);
    frame->end->count = task->count;
    if (task->error)
        frame->end->error = amp__error__unpack(&journal_batch_arena(batch)->allocator, task->error_len, task->error);
}

static void add_frames(struct etask *task, struct journal_batch *batch, struct commit *commit)
{
    commit->frames = take(batch, (task->n_refs + 1) * sizeof *commit->frames);
    size_t first = 0;
    while (first < task->n_refs) {
        size_t count = events_that_fit(task, first);
        Amp__Frame *frame = &commit->frames[commit->n_frames++];
        fill_frame(task, batch, first, count, frame);
        if (!SEEDED_BUG("lost-event") || count < 2)
            add_event_row(task, batch, frame);
        first += count;
    }
    if (task->is_ended && task->wants_row) { /* the row that ends it goes with the end marker */
        if (commit->n_frames == 0)
            fill_frame(task, batch, 0, 0, &commit->frames[commit->n_frames++]);
        add_end(task, batch, &commit->frames[commit->n_frames - 1]);
    }
}

/* ---- the summary ------------------------------------------------------------------------------------------------------- */

static void add_record(struct etask *task, struct journal_batch *batch, struct journal_row *row)
{
    struct amp_arena *arena = journal_batch_arena(batch);
    Amp__TaskRecord *record = view_task(task, arena, VIEW_ALL);
    if (!record)
        return;
    size_t size = amp__task_record__get_packed_size(record);
    uint8_t *packed = take(batch, size);
    amp__task_record__pack(record, packed);
    row->body = (struct amp_bytes){.data = packed, .len = size};
}

static void add_task_row(struct etask *task, struct journal_batch *batch)
{
    struct journal_row *row = journal_batch_add(batch, JOURNAL_TASK);
    row->task = journal_batch_text(batch, task->id);
    row->context = journal_batch_text(batch, task->context);
    row->agent = journal_batch_text(batch, task->agent);
    row->skill = journal_batch_text(batch, task->skill);
    row->from = journal_batch_text(batch, task->from);
    row->parent = journal_batch_text(batch, task->parent);
    row->instance = journal_batch_text(batch, task->instance);
    row->state = (int32_t)etask_state(task);
    row->is_durable = task->is_durable;
    row->is_open = !task->is_ended;
    row->is_incomplete = task->is_incomplete;
    row->is_dead = task->is_dead;
    row->at_unix_ms = task->submitted_unix_ms;
    row->started_unix_ms = task->started_unix_ms;
    row->ended_unix_ms = task->ended_unix_ms;
    row->count = task->count;
    row->attempt = task->engine.attempt;
    if (task->attempts) /* also when there is none any more */
        row->attempts = view_attempts(task, journal_batch_arena(batch));
    if (task->n_written == 0 && task->submit)
        row->request = journal_batch_borrow(batch, (struct amp_bytes){.data = task->submit, .len = task->submit_len}); /* a task with a batch under way is not freed, nor made slim */
    if (task->is_ended)
        add_record(task, batch, row);
}

static enum amp_code write_batch(struct etask *task, struct journal_batch *batch, struct commit *commit)
{
    enum amp_code code = journal_write(task->env->journal, batch, on_commit, commit);
    if (code != AMP_OK) {
        journal_batch_free(batch);
        return code;
    }
    hook_at(HOOK_env_accepted);
    task->n_in_journal++;
    commit->epoch = task->epoch;
    /* Rows of events say how far it was taken. One without any says nothing, and the next environment asks for what was taken since once more: an answer that came to its agent, say. */
    commit->taken = task->n_refs > 0 ? task->taken_seq : 0;
    task->n_written = task->count;
    task->n_refs = 0;
    commit->bytes = task->bodies.len;
    amp_buf_reset(&task->bodies);
    task->wants_row = false;
    inbox_rows_written(task);
    files_rows_written(task);
    for (size_t i = 0; SEEDED_BUG("early-publish") && i < commit->n_frames; i++)
        publish_frame(task, &commit->frames[i]);
    return AMP_OK;
}

enum amp_code commit_flush(struct etask *task)
{
    if (task->n_refs == 0 && !task->wants_row) {
        if (task->n_in_journal == 0)
            answer_replies(task, AMP_OK);
        etask_release(task);
        return AMP_OK;
    }
    if (!task->is_durable)
        counter_add(COUNTER_env_events_recorded, task->n_refs);
    struct journal_batch *batch = journal_batch_new(task->env->journal);
    struct commit *commit = take(batch, sizeof *commit);
    commit->task = task;
    commit->batch = batch;
    add_frames(task, batch, commit);
    /* The count in the summary must not lag behind the rows: a new environment numbers on from it. */
    add_task_row(task, batch);
    inbox_add_rows(task, batch);
    files_add_rows(task, batch);
    enum amp_code code = write_batch(task, batch, commit);
    if (code == AMP_JOURNAL)
        answer_replies(task, code);
    return code;
}

enum amp_code commit_submit(struct etask *task, const char *key, struct amp_bytes digest)
{
    struct journal_batch *batch = journal_batch_new(task->env->journal);
    struct commit *commit = take(batch, sizeof *commit);
    commit->task = task;
    commit->batch = batch;
    commit->is_submit = true;
    add_frames(task, batch, commit);
    add_task_row(task, batch);
    inbox_add_rows(task, batch);
    files_add_rows(task, batch);
    if (task->retry_of)
        journal_batch_add(batch, JOURNAL_REVIVED)->task = journal_batch_text(batch, task->retry_of);
    if (task->plan && task->plan->writes)
        schedules_add_row(task->plan->writes, batch);
    if (key && !SEEDED_BUG("lost-key")) {
        struct journal_row *row = journal_batch_add(batch, JOURNAL_KEY);
        row->scope = journal_batch_text(batch, submit_key_scope(task));
        row->key = journal_batch_text(batch, key);
        row->task = journal_batch_text(batch, task->id);
        row->body = journal_batch_bytes(batch, digest);
    }
    return write_batch(task, batch, commit);
}
