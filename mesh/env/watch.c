/* watch: the events of a task from a number on, each once and in order (amp.md 10.1, 10.2). A watcher gets what is committed, never more.
 *
 * A watcher is behind or live. Behind: it is given rows of the journal, a few when it is its turn (reads.h), until it has what is committed; so one of a long
 * task does not hold up the others. Live: each committed frame goes to it as it is. It falls behind again when there is no room for a
 * frame. It is found gone by the server's word that nobody listens at its inbox; one that cannot be served further is told why. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

#define PUMP_FRAMES_MAX 64u /* to one watcher in one turn */

struct watcher {
    struct env *env;
    struct etask *task;                    /* NULL: it has ended, the journal has it */
    struct watcher *task_prev, *task_next; /* of the task */
    struct watcher *prev, *next;           /* of the environment */
    struct reader *reader;                 /* who watches */
    struct watcher *behind_prev, *behind_next; /* of his */
    struct bus_inbox *inbox;               /* where the server says that nobody listens */
    enum amp_encoding encoding;
    char id[AMP_NAME_MAX + 1], context[AMP_NAME_MAX + 1];
    uint32_t wanted;    /* the next number to send */
    uint32_t count;     /* of a task in the journal only */
    uint8_t *error;     /* its packed error */
    size_t error_len;
    uint32_t n_sent;    /* in this turn */
    bool is_behind, is_over;
    bool is_listed; /* among his that are behind */
    bool lacks_keepalive; /* there was no room for it */
    bool has_row; /* the journal has its next event */
    bool is_open; /* not ended, and nobody follows it: the journal has failed */
    char reply[];
};

static void list_behind(struct watcher *watcher)
{
    struct reader *reader = watcher->reader;
    watcher->is_listed = true;
    watcher->behind_next = NULL;
    watcher->behind_prev = reader->behind ? reader->behind_last : NULL;
    *(reader->behind ? &reader->behind_last->behind_next : &reader->behind) = watcher;
    reader->behind_last = watcher;
}

static void unlist(struct watcher *watcher)
{
    struct reader *reader = watcher->reader;
    if (!watcher->is_listed)
        return;
    watcher->is_listed = false;
    *(watcher->behind_prev ? &watcher->behind_prev->behind_next : &reader->behind) = watcher->behind_next;
    *(watcher->behind_next ? &watcher->behind_next->behind_prev : &reader->behind_last) = watcher->behind_prev;
}

static void watcher_free(struct watcher *watcher)
{
    struct env *env = watcher->env;
    struct etask *task = watcher->task;
    unlist(watcher);
    watcher->reader->n_watchers--;
    reads_release(env, watcher->reader);
    if (task)
        *(watcher->task_prev ? &watcher->task_prev->task_next : &task->watchers) = watcher->task_next;
    if (task && watcher->task_next)
        watcher->task_next->task_prev = watcher->task_prev;
    *(watcher->prev ? &watcher->prev->next : &env->watchers) = watcher->next;
    if (watcher->next)
        watcher->next->prev = watcher->prev;
    env->n_watchers--;
    bus_inbox_free(watcher->inbox);
    free(watcher->error);
    free(watcher);
}

/* Its task may be given up with its last watcher. */
static void end_watcher(struct watcher *watcher)
{
    struct etask *task = watcher->task;
    watcher_free(watcher);
    if (task)
        etask_release(task);
}

/* ---- to the watcher ---------------------------------------------------------------------------------------------------- */

static void head_frame(const struct watcher *watcher, Amp__Frame *frame)
{
    frame->task_id = (char *)watcher->id;
    frame->context_id = (char *)watcher->context;
}

static enum amp_code send_frame(struct watcher *watcher, Amp__Frame *frame)
{
    struct env *env = watcher->env;
    if (!reads_has_room(env, watcher->reader))
        return AMP_OVERLOADED;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = env->name;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = frame;
    amp_buf_reset(&env->out);
    enum amp_code code = amp_encode(&envelope.base, watcher->encoding, &env->out, NULL);
    if (code == AMP_OK && env->out.len > env_payload_max(env))
        code = AMP_TOO_LARGE;
    if (code == AMP_OK)
        code = bus_inbox_request(watcher->inbox, watcher->reply, amp_buf_bytes(&env->out));
    if (code != AMP_OK)
        return code;
    reads_sent(env, watcher->reader, env->out.len);
    watcher->wanted = frame->seq + (uint32_t)frame->n_events;
    watcher->is_over = frame->end != NULL;
    return AMP_OK;
}

/* A frame that was made for another bus, or another encoding: one event at a time. */
static enum amp_code send_events(struct watcher *watcher, Amp__Frame *frame)
{
    enum amp_code code = send_frame(watcher, frame);
    for (size_t i = 0, n = frame->n_events; code == AMP_TOO_LARGE && n > 1 && i < n; i++) {
        Amp__Frame one = *frame;
        one.seq = frame->seq + (uint32_t)i;
        one.events = frame->events + i;
        one.n_events = 1;
        one.end = i + 1 == n ? frame->end : NULL;
        enum amp_code sent = send_frame(watcher, &one);
        if (sent != AMP_OK || i + 1 == n)
            return sent;
    }
    return code;
}

static void refuse(struct watcher *watcher, enum amp_code code, const char *why)
{
    struct amp_error err = {0};
    if (code == AMP_JOURNAL && journal_failure(watcher->env->journal))
        env_error_journal(watcher->env, &err);
    else
        amp_error_set(&err, code, "", "task %s cannot be watched further: %s", watcher->id, why);
    struct reads_hand before = reads_answer_reader(watcher->env, watcher->reader);
    env_refuse(watcher->env, watcher->reply, watcher->encoding, &err);
    reads_answered(watcher->env, before);
    watcher->is_over = true;
}

static void refuse_unread(struct watcher *watcher)
{
    struct reads_hand before = reads_answer_reader(watcher->env, watcher->reader);
    env_refuse_unread(watcher->env, watcher->reply, watcher->encoding);
    reads_answered(watcher->env, before);
    watcher->is_over = true;
}

/* ---- behind ------------------------------------------------------------------------------------------------------------ */

static void fall_behind(struct watcher *watcher)
{
    watcher->is_behind = true;
    if (!watcher->is_listed)
        list_behind(watcher);
    reads_enter(watcher->env, watcher->reader);
}

static uint32_t committed(const struct watcher *watcher)
{
    return watcher->task ? watcher->task->n_committed : watcher->count;
}

static bool replay_row(void *ctx, const struct journal_row *row)
{
    struct watcher *watcher = ctx;
    struct amp_arena *arena = &watcher->env->scratch;
    amp_arena_reset(arena);
    Amp__Frame *kept = amp__frame__unpack(&arena->allocator, row->body.len, row->body.data);
    if (!kept || row->seq > watcher->wanted) {
        refuse(watcher, AMP_FRAMES_LOST, "the journal does not have all of its events");
        return false;
    }
    size_t skip = watcher->wanted - row->seq;
    if (skip >= kept->n_events)
        return true;
    watcher->has_row = true;
    head_frame(watcher, kept);
    kept->seq = watcher->wanted;
    kept->events += skip;
    kept->n_events -= skip;
    enum amp_code code = send_events(watcher, kept);
    if (code == AMP_TOO_LARGE)
        refuse(watcher, code, "one of its events is larger than a message on this bus");
    return code == AMP_OK && ++watcher->n_sent < PUMP_FRAMES_MAX;
}

static enum amp_code send_end(struct watcher *watcher)
{
    struct amp_arena *arena = &watcher->env->scratch;
    const uint8_t *error = watcher->task ? watcher->task->error : watcher->error;
    size_t error_len = watcher->task ? watcher->task->error_len : watcher->error_len;
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__End end = AMP__END__INIT;
    amp_arena_reset(arena);
    head_frame(watcher, &frame);
    frame.seq = committed(watcher) + 1;
    frame.end = &end;
    end.count = committed(watcher);
    end.error = error ? amp__error__unpack(&arena->allocator, error_len, error) : NULL;
    return send_frame(watcher, &frame);
}

/* A frame without events: I am here, and this is the next number. */
static enum amp_code send_keepalive(struct watcher *watcher)
{
    Amp__Frame frame = AMP__FRAME__INIT;
    head_frame(watcher, &frame);
    frame.seq = watcher->wanted;
    enum amp_code code = send_frame(watcher, &frame);
    watcher->lacks_keepalive = code == AMP_OVERLOADED;
    return code;
}

/* Nothing more is committed than it has: is that all? */
static void catch_end(struct watcher *watcher)
{
    if (watcher->task && !etask_is_over(watcher->task))
        watcher->is_behind = watcher->lacks_keepalive && send_keepalive(watcher) == AMP_OVERLOADED;
    else if (watcher->is_open)
        refuse(watcher, AMP_JOURNAL, "nothing more of it is written down");
    else if (watcher->wanted > committed(watcher) + 1)
        refuse(watcher, AMP_INVALID, "it has ended, and has no event of the number that was asked for");
    else
        (void)send_end(watcher); /* what the bus does not take now is tried again */
}

static void catch_up(struct watcher *watcher)
{
    bool is_behind = watcher->wanted <= committed(watcher);
    watcher->n_sent = 0;
    watcher->has_row = false;
    if (is_behind && journal_events(watcher->env->journal, watcher->id, watcher->wanted, replay_row, watcher, NULL) != AMP_OK)
        refuse_unread(watcher);
    else if (is_behind && !watcher->has_row)
        refuse(watcher, AMP_FRAMES_LOST, "the journal does not have all of its events");
    if (!watcher->is_over && watcher->wanted > committed(watcher))
        catch_end(watcher);
}

bool watch_step(struct reader *reader)
{
    struct watcher *watcher = reader->behind;
    uint32_t before = watcher->wanted;
    unlist(watcher);
    catch_up(watcher);
    bool has_moved = watcher->is_over || !watcher->is_behind || watcher->wanted > before;
    if (watcher->is_over)
        end_watcher(watcher);
    else if (watcher->is_behind)
        list_behind(watcher); /* more when it is its turn again */
    return has_moved;
}

/* ---- live -------------------------------------------------------------------------------------------------------------- */

void watch_committed(struct etask *task, const Amp__Frame *frame)
{
    struct watcher *next;
    for (struct watcher *watcher = task->watchers; watcher; watcher = next) {
        next = watcher->task_next;
        if (watcher->is_behind)
            continue;
        Amp__Frame copy = *frame;
        /* From within this frame, from beyond it, or not taken by the bus: the journal has it. */
        if (watcher->wanted != frame->seq || send_frame(watcher, &copy) != AMP_OK)
            fall_behind(watcher);
        if (watcher->is_over)
            watcher_free(watcher); /* who commits releases the task */
    }
}

void watch_task_gone(struct etask *task)
{
    while (task->watchers) {
        refuse(task->watchers, journal_failure(task->env->journal) ? AMP_JOURNAL : AMP_STOPPING, "the environment gives it up");
        watcher_free(task->watchers);
    }
}

void watch_keepalive(void *ctx)
{
    struct env *env = ctx;
    for (struct watcher *watcher = env->watchers; watcher; watcher = watcher->next) {
        if (!watcher->is_behind && send_keepalive(watcher) == AMP_OVERLOADED)
            fall_behind(watcher); /* until it is its turn */
    }
    if (env->watchers)
        loop_timer_set(env->keepalive, ENV_KEEPALIVE_MS);
}

/* ---- the verb ---------------------------------------------------------------------------------------------------------- */

static void on_inbox(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    if (kind == BUS_INBOX_NO_RESPONDERS || kind == BUS_INBOX_DENIED)
        end_watcher(ctx);
}

static struct watcher *watcher_new(const struct ask *ask, struct etask *task)
{
    size_t size = strlen(ask->reply) + 1;
    struct env *env = ask->env;
    struct watcher *watcher = xcalloc(1, sizeof *watcher + size);
    watcher->env = env;
    watcher->encoding = ask->encoding;
    watcher->wanted = ask->request->watch->from_seq ? ask->request->watch->from_seq : 1;
    memcpy(watcher->reply, ask->reply, size);
    etask_strcpy(watcher->id, ask->request->watch->id);
    watcher->inbox = bus_inbox_new(env->bus, on_inbox, watcher);
    watcher->reader = reads_reader(env, ask->from);
    watcher->reader->n_watchers++;
    watcher->next = env->watchers;
    if (env->watchers)
        env->watchers->prev = watcher;
    env->watchers = watcher;
    env->n_watchers++;
    if (task) {
        etask_strcpy(watcher->context, task->context);
        watcher->task = task;
        watcher->task_next = task->watchers;
        if (task->watchers)
            task->watchers->task_prev = watcher;
        task->watchers = watcher;
    }
    return watcher;
}

struct found {
    const struct ask *ask;
    struct watcher *watcher;
};

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct found *found = ctx;
    struct env *env = found->ask->env;
    struct etask *task = record_resume(env, row);
    struct watcher *watcher = found->watcher = watcher_new(found->ask, task);
    etask_strcpy(watcher->context, row->context);
    watcher->count = row->count;
    watcher->is_open = !task && row->is_open;
    struct amp_arena *arena = env_answer_arena(env);
    Amp__TaskRecord *record = !task && row->body.len ? amp__task_record__unpack(&arena->allocator, row->body.len, row->body.data) : NULL;
    if (record && record->error) {
        watcher->error_len = amp__error__get_packed_size(record->error);
        watcher->error = xcalloc(1, watcher->error_len);
        amp__error__pack(record->error, watcher->error);
    }
    return false;
}

void watch_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    struct etask *task = etask_find(env, ask->request->watch->id);
    struct found found = {.ask = ask};
    struct journal_query query = {.task = ask->request->watch->id, .limit = 1};
    struct amp_error err = {0};
    if (reads_is_greedy(env->reads.hand.reader->n_watchers, env->n_watchers, ENV_WATCHERS_MAX)) {
        load_refuse(ask, "as many watch as may");
        return;
    }
    if (task) {
        found.watcher = watcher_new(ask, task);
    } else if (journal_tasks(env->journal, &query, on_row, &found, NULL, &err) != AMP_OK) {
        env_refuse(env, ask->reply, ask->encoding, &err);
        return;
    }
    if (!found.watcher) {
        env_refuse_no_task(ask, ask->request->watch->id);
        return;
    }
    (void)send_keepalive(found.watcher); /* says at once that the watch stands */
    fall_behind(found.watcher);
    if (!loop_timer_is_set(env->keepalive))
        loop_timer_set(env->keepalive, ENV_KEEPALIVE_MS);
}

void watch_done(struct env *env)
{
    while (env->watchers)
        watcher_free(env->watchers);
}
