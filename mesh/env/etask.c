/* A task in memory: identity, fold, and the events that are not in the journal yet. */
#include "schedules.h"

#include "base/alloc.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/hook.h"
#include "base/loop.h"
#include "base/seeded.h"
#include "env/again.h"
#include "env/files.h"
#include "env/inbox.h"

#include <stdlib.h>
#include <string.h>

/* Events of one task that are not handed to the journal yet. They go there at the end of the turn, or when they are this many; more than the
 * journal takes is refused. A batch holds them twice (JOURNAL_BATCH_BYTES_MAX). */
#define TURN_BYTES_MAX ((size_t)4 << 20)
#define TURN_EVENTS_MAX 16384u
#define TASK_BYTES_MAX (TURN_BYTES_MAX + AMP_WIRE_BYTES_MAX)
#define TASK_EVENTS_MAX ((size_t)4 * TURN_EVENTS_MAX)

void etask_strcpy(char ret[AMP_NAME_MAX + 1], const char *id)
{
    size_t len = id ? strnlen(id, AMP_NAME_MAX) : 0;
    if (len)
        memcpy(ret, id, len);
    ret[len] = '\0';
}

struct etask *etask_new(struct env *env, const char *id, const char *context)
{
    struct etask *task = xcalloc(1, sizeof *task);
    task->env = env;
    etask_strcpy(task->id, id);
    etask_strcpy(task->context, context);
    amp_buf_init(&task->bodies, TASK_BYTES_MAX);
    amp_stream_init(&task->stream);
    HASH_ADD_STR(env->tasks, id, task);
    return task;
}

struct etask *etask_find(struct env *env, const char *id)
{
    struct etask *task;
    HASH_FIND_STR(env->tasks, id, task);
    return task;
}

static void drop_dirty(struct etask *task)
{
    for (struct etask **link = task->is_later ? &task->env->later : &task->env->dirty; task->is_dirty && *link; link = &(*link)->next_dirty) {
        if (*link == task) {
            *link = task->next_dirty;
            task->env->n_later -= task->is_later;
            break;
        }
    }
    task->is_dirty = false;
}

static void refuse_reply(struct env *env, const struct waiting_reply *reply)
{
    struct amp_error err = {0};
    if (env->journal && journal_failure(env->journal))
        env_error_journal(env, &err);
    else
        amp_error_set(&err, AMP_STOPPING, "", "the environment is stopping; ask the next one");
    struct reads_hand before = reads_answer(env, reply->from);
    env_refuse(env, reply->subject, reply->encoding, &err);
    reads_answered(env, before);
}

void etask_drop_attempt(struct attempt *attempt)
{
    free(attempt->waits);
    free(attempt->aways);
    free(attempt->late);
    attempt->waits = attempt->aways = NULL;
    attempt->late = NULL;
}

static void drop_submit(struct etask *task)
{
    if (task->submit && task->is_durable)
        task->env->fat_bytes -= task->submit_len;
    free(task->submit);
    task->submit = NULL;
}

void etask_free(struct etask *task)
{
    struct env *env = task->env;
    watch_task_gone(task);
    files_forget(task);
    dispatch_drop(task);
    plan_free(task);
    inbox_forget(task);
    record_forget(task);
    drop_dirty(task);
    HASH_DEL(env->tasks, task);
    if (task->is_durable) {
        env->n_durable--;
        quota_remove(&env->quota, SEEDED_BUG("quota-leak") ? "nobody" : task->from, task->submit_len, loop_now_ms(env->loop));
    }
    env->unwritten_bytes -= task->bodies.len;
    while (task->replies) {
        struct waiting_reply *reply = task->replies;
        task->replies = reply->next;
        refuse_reply(env, reply);
        free(reply);
    }
    amp_fold_free(task->fold);
    amp_buf_done(&task->bodies);
    free(task->refs);
    for (size_t i = 0; i < task->n_attempts; i++)
        etask_drop_attempt(&task->attempts[i]);
    free(task->attempts);
    free(task->waits);
    free(task->held);
    again_free(task);
    drop_submit(task);
    free(task->error);
    free(task->cancel_reason);
    free(task->retry_of);
    free(task->fork_of);
    free(task->root);
    free(task);
}

/* Ended, and nothing more is to be written or can be. */
static bool is_idle(const struct etask *task)
{
    return task->is_ended && task->n_in_journal == 0 && task->n_refs == 0 && !task->wants_row;
}

bool etask_is_over(const struct etask *task)
{
    return is_idle(task) && !task->is_unwritten;
}

void etask_release(struct etask *task)
{
    if (is_idle(task) && !task->call && !task->watchers && !task->replies)
        etask_free(task);
}

/* ---- the fold ----------------------------------------------------------------------------------------------------- */

/* A walk over a task's events in the journal. Rows follow one another; the first may begin before what was asked for. */
struct walk {
    struct etask *task;
    struct amp_fold *fold; /* NULL: they are only counted */
    uint32_t next;
};

static bool walk_row(void *ctx, const struct journal_row *row)
{
    struct walk *walk = ctx;
    ProtobufCMessage *message = NULL;
    struct amp_arena *arena = &walk->task->env->scratch;
    if (row->seq > walk->next || row->seq + row->count <= walk->next)
        return false;
    walk->next = row->seq + row->count;
    if (!walk->fold)
        return true;
    amp_arena_reset(arena);
    if (amp_decode(&amp__frame__descriptor, row->body, arena, &message, NULL) != AMP_OK) {
        walk->next = row->seq;
        return false;
    }
    const Amp__Frame *frame = (const Amp__Frame *)message;
    for (size_t i = 0; i < frame->n_events; i++) {
        const ProtobufCBinaryData *body = &frame->events[i]->body->text;
        (void)amp_fold_apply(walk->fold, (struct amp_bytes){.data = body->data, .len = body->len}, NULL);
    }
    return true;
}

/* A part of the events is no task: all up to the last committed one, or none. */
static enum amp_code walk_events(struct walk *walk, struct amp_error *reterr)
{
    struct journal *journal = walk->task->env->journal;
    enum amp_code code = AMP_OK;
    while (code == AMP_OK && walk->next <= walk->task->n_committed) {
        uint32_t from = walk->next;
        code = journal_events(journal, walk->task->id, from, walk_row, walk, reterr);
        if (code == AMP_OK && walk->next <= from)
            code = journal_missing(journal, walk->task->id, from, reterr);
    }
    return code;
}

enum amp_code etask_check(struct etask *task, struct amp_error *reterr)
{
    struct walk walk = {.task = task, .next = 1};
    return task->n_committed > 1 ? walk_events(&walk, reterr) : AMP_OK; /* the first one says nothing that its row does not */
}

struct wanted {
    struct amp_arena *arena;
    Amp__Submit *submit;
};

static bool on_submit_row(void *ctx, const struct journal_row *row)
{
    struct wanted *wanted = ctx;
    wanted->submit = row->request.len ? amp__submit__unpack(&wanted->arena->allocator, row->request.len, row->request.data) : NULL;
    return false;
}

const Amp__Submit *etask_submit(const struct etask *task, struct amp_arena *arena)
{
    struct wanted wanted = {.arena = arena};
    struct journal_query query = {.task = task->id, .limit = 1};
    if (task->parsed)
        return task->parsed;
    if (task->submit)
        return amp__submit__unpack(&arena->allocator, task->submit_len, task->submit);
    if (task->submit_len && journal_tasks(task->env->journal, &query, on_submit_row, &wanted, NULL, NULL) != AMP_OK)
        return NULL;
    return wanted.submit;
}

bool etask_is_crowded(const struct env *env)
{
    return env->n_durable > ENV_FAT_MAX || env->fat_bytes > ENV_FAT_BYTES_MAX;
}

void etask_slim(struct etask *task)
{
    if (!etask_is_new(task) || task->n_committed == 0 || task->n_refs || task->n_in_journal)
        return;
    amp_fold_free(task->fold);
    task->fold = NULL;
    amp_buf_done(&task->bodies);
    amp_buf_init(&task->bodies, TASK_BYTES_MAX);
    free(task->refs);
    task->refs = NULL;
    task->cap_refs = 0;
    if (task->submit_len <= ENV_SUBMIT_KEPT_MAX)
        return;
    drop_submit(task);
}

bool etask_is_new(const struct etask *task)
{
    return task->is_durable && task->count == 1 && !task->fork_of;
}

static void apply_request(struct etask *task)
{
    amp_arena_reset(&task->env->scratch);
    const Amp__Submit *submit = etask_submit(task, &task->env->scratch);
    if (submit && submit->request && submit->request->message)
        (void)amp_fold_message(task->fold, submit->request->message);
}

struct amp_fold *etask_fold(struct etask *task)
{
    if (task->fold)
        return task->fold;
    task->fold = amp_fold_new(task->id, task->context, AMP_FOLD_BYTES_MAX);
    if (!task->fold)
        return NULL;
    apply_request(task);
    /* The fold begins as SUBMITTED, which is all that the first event of a durable task says. */
    struct walk walk = {.task = task, .fold = task->fold, .next = task->is_durable && task->n_committed == 1 && !task->fork_of ? 2 : 1};
    if (walk_events(&walk, NULL) != AMP_OK) {
        amp_fold_free(task->fold);
        task->fold = NULL;
    }
    return task->fold;
}

Amp__TaskState etask_state(struct etask *task)
{
    if (!task->fold && task->is_durable && task->n_committed <= 1)
        return AMP__TASK_STATE__TASK_STATE_SUBMITTED;
    struct amp_fold *fold = etask_fold(task);
    return fold ? amp_fold_state(fold) : task->state;
}

/* ---- events --------------------------------------------------------------------------------------------------------- */

/* Nobody was promised that a direct task is on the disk at once, and a commit for each would cost more than the call. */
static bool may_wait(const struct etask *task)
{
    const struct env *env = task->env;
    return !task->is_durable && !task->watchers && !task->replies && env->n_later < ENV_LATER_MAX && env->unwritten_bytes < ENV_LATER_BYTES_MAX;
}

static void mark_dirty(struct etask *task)
{
    struct env *env = task->env;
    bool is_later = may_wait(task);
    if (task->is_dirty && (!task->is_later || is_later))
        return;
    drop_dirty(task);
    task->is_dirty = true;
    task->is_later = is_later;
    struct etask **list = is_later ? &env->later : &env->dirty;
    task->next_dirty = *list;
    *list = task;
    if (!is_later)
        env_request_tick(env);
    else if (++env->n_later == 1)
        loop_timer_set(env->backlog, ENV_LATER_MS);
}

void etask_changed(struct etask *task)
{
    task->wants_row = true;
    mark_dirty(task);
}

static enum amp_code keep_event(struct etask *task, int64_t time_unix_ms, struct amp_bytes body)
{
    if (task->bodies.len > TURN_BYTES_MAX || task->n_refs > TURN_EVENTS_MAX)
        (void)commit_flush(task); /* if the journal has no room, there may still be some here */
    size_t at = task->bodies.len;
    if (task->n_refs >= TASK_EVENTS_MAX || amp_buf_append(&task->bodies, body.data, body.len) != AMP_OK) {
        task->bodies.is_full = false; /* this one did not fit; a smaller one may */
        return AMP_OVERLOADED;
    }
    if (task->n_refs == task->cap_refs) {
        task->cap_refs = task->cap_refs ? task->cap_refs * 2 : 4;
        task->refs = xrealloc(task->refs, task->cap_refs * sizeof *task->refs);
    }
    task->refs[task->n_refs++] = (struct event_ref){.at = at, .len = body.len, .time_unix_ms = time_unix_ms};
    task->env->unwritten_bytes += body.len;
    task->count++;
    mark_dirty(task);
    return AMP_OK;
}

enum amp_code etask_emit(struct etask *task, int64_t time_unix_ms, struct amp_bytes body)
{
    if (task->is_ended)
        return AMP_TASK_ENDED;
    struct amp_fold *fold = etask_fold(task);
    if (!fold)
        return journal_read_error(task->env->journal)->code == AMP_CORRUPT ? AMP_CORRUPT : AMP_JOURNAL;
    Amp__TaskState before = amp_fold_state(fold);
    enum amp_code code = amp_fold_apply(fold, body, NULL);
    if (code == AMP_OK)
        code = keep_event(task, time_unix_ms, body);
    if (code == AMP_OK && SEEDED_BUG("two-ends") && amp_task_is_terminal(amp_fold_state(fold)))
        code = keep_event(task, time_unix_ms, body);
    if (code == AMP_OK && amp_fold_state(fold) != before)
        etask_changed(task);
    task->state = amp_fold_state(fold);
    if (code == AMP_OK && !task->is_durable)
        (void)inbox_take(task, time_unix_ms, body);
    return code;
}

static enum amp_code on_emit(void *ctx, struct amp_bytes body)
{
    return etask_emit(ctx, clock_unix_ms(), body);
}

enum amp_code etask_emit_status(struct etask *task, Amp__TaskState state, const char *text, const char *metadata_json)
{
    struct amp_event_source source = {.task_id = task->id, .context_id = task->context, .now_unix_ms = clock_unix_ms()};
    struct amp_event_sink sink = {.emit = on_emit, .ctx = task};
    return amp_event_status(&source, state, text, metadata_json, &sink);
}

void etask_end(struct etask *task, const Amp__Error *error)
{
    task->is_ended = true;
    task->ended_unix_ms = clock_unix_ms();
    if (task->plan && task->plan->schedule[0])
        schedules_task_ended(task->env, task->plan->schedule);
    if (error && error->code != AMP_OK) {
        task->error_len = amp__error__get_packed_size(error);
        task->error = xrealloc(task->error, task->error_len);
        amp__error__pack(error, task->error);
    }
    hook_at(HOOK_env_ended);
    inbox_ended(task);
    etask_changed(task);
}

void etask_reply_later(struct etask *task, const struct ask *ask, bool is_duplicate)
{
    if (task->n_replies >= ENV_REPLIES_MAX) {
        struct amp_error err = {0};
        amp_error_set(&err, AMP_OVERLOADED, "", "too many wait for this task's commit");
        err.retry_after_ms = 100;
        env_refuse(task->env, ask->reply, ask->encoding, &err);
        return;
    }
    size_t size = strlen(ask->reply) + 1, from_size = strlen(ask->from) + 1;
    struct waiting_reply *reply = xcalloc(1, sizeof *reply + size + from_size);
    memcpy(reply->subject, ask->reply, size);
    reply->from = memcpy(reply->subject + size, ask->from, from_size);
    reply->encoding = ask->encoding;
    reply->is_duplicate = is_duplicate;
    struct waiting_reply **last = &task->replies;
    while (*last)
        last = &(*last)->next;
    *last = reply;
    task->n_replies++;
}

void etask_flush_later(struct env *env)
{
    while (env->later) {
        struct etask *task = env->later;
        env->later = task->next_dirty;
        task->is_later = false;
        task->next_dirty = env->dirty;
        env->dirty = task;
    }
    env->n_later = 0;
    etask_flush_all(env);
}

void etask_flush_all(struct env *env)
{
    struct etask *task = env->dirty;
    env->dirty = NULL;
    while (task) {
        struct etask *next = task->next_dirty;
        task->is_dirty = false;
        enum amp_code code = commit_flush(task);
        if (code == AMP_OVERLOADED) { /* the journal's queue is full: again soon */
            task->is_dirty = true;
            task->next_dirty = env->dirty;
            env->dirty = task;
            loop_timer_set(env->backlog, ENV_BACKLOG_MS);
        }
        task = next;
    }
}

/* ---- from the journal -------------------------------------------------------------------------------------------------- */

/* What its request says of the tree that it stands in. */
static void load_tree(struct etask *task, struct amp_bytes request)
{
    struct amp_arena *arena = &task->env->scratch;
    amp_arena_reset(arena);
    const Amp__Submit *submit = amp__submit__unpack(&arena->allocator, request.len, request.data);
    if (submit && submit->request && submit->request->root)
        task->root = xstrdup(submit->request->root);
    task->is_detached = submit && submit->detached;
}

struct etask *etask_load(struct env *env, const struct journal_row *row)
{
    struct etask *task = etask_new(env, row->task, row->context);
    etask_strcpy(task->agent, row->agent);
    etask_strcpy(task->skill, row->skill);
    etask_strcpy(task->from, row->from);
    etask_strcpy(task->parent, row->parent);
    etask_strcpy(task->instance, row->instance);
    task->is_durable = row->is_durable;
    task->is_incomplete = row->is_incomplete;
    task->state = (Amp__TaskState)row->state;
    task->submitted_unix_ms = row->at_unix_ms;
    task->started_unix_ms = row->started_unix_ms;
    task->count = task->n_written = task->n_committed = row->count;
    task->submit_len = row->request.len;
    if (row->request.len && (row->request.len <= ENV_SUBMIT_KEPT_MAX || !etask_is_crowded(env))) {
        task->submit = xcalloc(1, row->request.len);
        memcpy(task->submit, row->request.data, row->request.len);
        env->fat_bytes += task->is_durable ? row->request.len : 0;
    }
    if (row->parent[0] && row->request.len)
        load_tree(task, row->request);
    view_load_attempts(task, row->attempts);
    if (task->is_durable) {
        env->n_durable++;
        quota_add(&env->quota, SEEDED_BUG("quota-forgotten") ? "nobody" : task->from, task->submit_len, loop_now_ms(env->loop));
    }
    return task;
}
