/* watch: the events of a task from a number on, each once and in order (amp.md 10.1).
 *
 * A watcher is behind or live. Behind: it is given rows of the journal, a few per turn, until it has what is committed. Live:
 * each committed frame goes to it as it is. It falls behind again when the bus does not take a frame. A lost connection ends
 * all watchers: they ask again, from where they are. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

#define PUMP_FRAMES_MAX 64u /* per watcher and turn */

struct watcher {
    struct watcher *prev, *next;           /* of the environment */
    struct watcher *task_prev, *task_next; /* of the task */
    struct env *env;
    struct etask *task; /* NULL: it has ended and is in the journal only */
    char id[AMP_NAME_MAX + 1], context[AMP_NAME_MAX + 1];
    char *reply;
    enum amp_encoding encoding;
    uint32_t next_seq;
    uint32_t count;     /* of a task in the journal only */
    uint8_t *error;     /* its packed error */
    size_t error_len;
    struct bus_inbox *inbox; /* tells when nobody listens any more */
    bool is_behind, is_over;
    uint32_t n_sent;    /* this turn */
};

static void watcher_free(struct watcher *watcher)
{
    struct env *env = watcher->env;
    *(watcher->prev ? &watcher->prev->next : &env->watchers) = watcher->next;
    if (watcher->next)
        watcher->next->prev = watcher->prev;
    struct etask *task = watcher->task;
    if (task) {
        *(watcher->task_prev ? &watcher->task_prev->task_next : &task->watchers) = watcher->task_next;
        if (watcher->task_next)
            watcher->task_next->task_prev = watcher->task_prev;
    }
    env->n_watchers--;
    bus_inbox_free(watcher->inbox);
    free(watcher->reply);
    free(watcher->error);
    free(watcher);
}

static enum amp_code send_frame(struct watcher *watcher, const Amp__Frame *frame)
{
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.from = watcher->env->name;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = (Amp__Frame *)frame;
    enum amp_code code = env_publish(watcher->env, watcher->reply, watcher->encoding, &envelope);
    if (code != AMP_OK)
        return code;
    watcher->next_seq = frame->seq + (uint32_t)frame->n_events;
    watcher->is_over = frame->end != NULL;
    return AMP_OK;
}

static void refuse(struct watcher *watcher, enum amp_code code, const char *text)
{
    struct amp_error err = {0};
    amp_error_set(&err, code, "", "task %s cannot be watched further: %s", watcher->id, text);
    env_refuse(watcher->env, watcher->reply, watcher->encoding, &err);
    watcher->is_over = true;
}

/* ---- behind ------------------------------------------------------------------------------------------------------------- */

static void head_frame(const struct watcher *watcher, Amp__Frame *frame)
{
    frame->task_id = (char *)watcher->id;
    frame->context_id = watcher->context[0] ? (char *)watcher->context : NULL;
    frame->has_journalled = frame->journalled = true;
}

static bool send_row(void *ctx, const struct journal_row *row)
{
    struct watcher *watcher = ctx;
    struct amp_arena *arena = &watcher->env->scratch;
    amp_arena_reset(arena);
    Amp__Frame *frame = amp__frame__unpack(&arena->allocator, row->body.len, row->body.data);
    if (!frame || row->seq > watcher->next_seq) {
        refuse(watcher, AMP_FRAMES_LOST, "the journal does not have all of its events");
        return false;
    }
    size_t skip = watcher->next_seq - row->seq;
    if (skip >= frame->n_events)
        return true;
    frame->seq = watcher->next_seq;
    frame->events += skip;
    frame->n_events -= skip;
    head_frame(watcher, frame);
    enum amp_code code = send_frame(watcher, frame);
    if (code == AMP_TOO_LARGE)
        refuse(watcher, code, "one of its events is too large for this bus");
    return code == AMP_OK && ++watcher->n_sent < PUMP_FRAMES_MAX;
}

static uint32_t committed(const struct watcher *watcher)
{
    return watcher->task ? watcher->task->n_committed : watcher->count;
}

static bool has_ended(const struct watcher *watcher)
{
    const struct etask *task = watcher->task;
    return !task || (task->is_ended && task->n_refs == 0 && !task->wants_row && task->n_in_journal == 0);
}

static void send_end(struct watcher *watcher)
{
    struct amp_arena *arena = &watcher->env->scratch;
    amp_arena_reset(arena);
    const uint8_t *error = watcher->task ? watcher->task->error : watcher->error;
    size_t error_len = watcher->task ? watcher->task->error_len : watcher->error_len;
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__End end = AMP__END__INIT;
    head_frame(watcher, &frame);
    frame.seq = committed(watcher) + 1;
    frame.end = &end;
    end.count = committed(watcher);
    end.error = error ? amp__error__unpack(&arena->allocator, error_len, error) : NULL;
    (void)send_frame(watcher, &frame);
}

static void catch_up(struct watcher *watcher)
{
    watcher->n_sent = 0;
    if (watcher->next_seq <= committed(watcher)) {
        uint32_t before = watcher->next_seq;
        if (journal_events(watcher->env->journal, watcher->id, before, send_row, watcher, NULL) != AMP_OK)
            refuse(watcher, AMP_JOURNAL, "the journal cannot be read");
        else if (watcher->next_seq == before && !watcher->is_over && bus_is_up(watcher->env->bus) && watcher->n_sent == 0)
            loop_timer_set(watcher->env->backlog, ENV_BACKLOG_MS); /* the bus has no room now */
    }
    if (watcher->is_over || watcher->next_seq <= committed(watcher))
        return;
    watcher->is_behind = false;
    if (has_ended(watcher))
        send_end(watcher);
}

static void end_watcher(struct watcher *watcher)
{
    struct etask *task = watcher->task;
    watcher_free(watcher);
    if (task)
        etask_release(task);
}

void watch_pump(struct env *env)
{
    if (!env->is_pumping)
        return;
    env->is_pumping = false;
    struct watcher *next;
    for (struct watcher *watcher = env->watchers; watcher; watcher = next) {
        next = watcher->next;
        uint32_t before = watcher->next_seq;
        if (watcher->is_behind)
            catch_up(watcher);
        bool has_more = watcher->is_behind && watcher->next_seq > before;
        if (watcher->is_over) {
            end_watcher(watcher);
        } else if (has_more) {
            env->is_pumping = true;
            env_request_tick(env);
        } else if (watcher->is_behind) {
            env->is_pumping = true; /* with the backlog timer */
        }
    }
}

/* ---- live ---------------------------------------------------------------------------------------------------------------- */

static void fall_behind(struct watcher *watcher)
{
    watcher->is_behind = true;
    watcher->env->is_pumping = true;
    env_request_tick(watcher->env);
}

void watch_committed(struct etask *task, const Amp__Frame *frame)
{
    struct watcher *next;
    for (struct watcher *watcher = task->watchers; watcher; watcher = next) {
        next = watcher->task_next;
        if (watcher->is_behind)
            continue;
        if (watcher->next_seq > frame->seq && frame->n_events)
            fall_behind(watcher); /* it asked for a number within this frame, or beyond it */
        else if (watcher->next_seq != frame->seq || send_frame(watcher, frame) != AMP_OK)
            fall_behind(watcher);
        if (watcher->is_over)
            watcher_free(watcher); /* who commits releases the task */
    }
}

void watch_task_gone(struct etask *task)
{
    while (task->watchers)
        watcher_free(task->watchers);
}

void watch_drop_all(struct env *env)
{
    while (env->watchers)
        end_watcher(env->watchers);
}

/* ---- the verb ---------------------------------------------------------------------------------------------------------------- */

static void on_inbox(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    if (kind == BUS_INBOX_NO_RESPONDERS || kind == BUS_INBOX_DENIED)
        end_watcher(ctx);
}

/* A frame without events: here I am, and this is the next number. With a reply of ours, so that the server tells when the
 * watcher has vanished. */
static void send_keepalive(struct watcher *watcher)
{
    struct env *env = watcher->env;
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    head_frame(watcher, &frame);
    frame.seq = watcher->next_seq;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = env->name;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = &frame;
    amp_buf_reset(&env->out);
    if (amp_encode(&envelope.base, watcher->encoding, &env->out, NULL) == AMP_OK)
        (void)bus_inbox_request(watcher->inbox, watcher->reply, amp_buf_bytes(&env->out));
}

void watch_keepalive(struct env *env)
{
    for (struct watcher *watcher = env->watchers; watcher; watcher = watcher->next)
        send_keepalive(watcher);
}

static struct watcher *watcher_new(const struct ask *ask, struct etask *task)
{
    struct env *env = ask->env;
    struct watcher *watcher = xcalloc(1, sizeof *watcher);
    watcher->env = env;
    watcher->task = task;
    watcher->reply = xstrdup(ask->reply);
    watcher->encoding = ask->encoding;
    watcher->inbox = bus_inbox_new(env->bus, on_inbox, watcher);
    watcher->next_seq = ask->request->watch->has_from_seq ? ask->request->watch->from_seq : 1;
    etask_strcpy(watcher->id, ask->request->watch->id);
    watcher->next = env->watchers;
    if (env->watchers)
        env->watchers->prev = watcher;
    env->watchers = watcher;
    if (task) {
        etask_strcpy(watcher->context, task->context);
        watcher->task_next = task->watchers;
        if (task->watchers)
            task->watchers->task_prev = watcher;
        task->watchers = watcher;
    }
    env->n_watchers++;
    return watcher;
}

struct found_row {
    const struct ask *ask;
    struct watcher *watcher;
};

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct found_row *found = ctx;
    struct env *env = found->ask->env;
    struct watcher *watcher = found->watcher = watcher_new(found->ask, NULL);
    etask_strcpy(watcher->context, row->context);
    watcher->count = row->count;
    amp_arena_reset(&env->scratch);
    Amp__TaskRecord *record = row->body.len ? amp__task_record__unpack(&env->scratch.allocator, row->body.len, row->body.data) : NULL;
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
    if (env->n_watchers >= ENV_WATCHERS_MAX) {
        env_refuse_code(ask, AMP_OVERLOADED, "", "too many watch already");
        return;
    }
    struct etask *task = etask_find(env, ask->request->watch->id);
    struct found_row found = {.ask = ask};
    struct journal_query query = {.task = ask->request->watch->id, .limit = 1};
    if (task) {
        found.watcher = watcher_new(ask, task);
    } else if (journal_tasks(env->journal, &query, on_row, &found, NULL, NULL) != AMP_OK) {
        env_refuse_code(ask, AMP_JOURNAL, "", "the journal cannot be read");
        return;
    }
    if (!found.watcher) {
        env_refuse_code(ask, AMP_NO_SUCH_TASK, "watch.id", "the environment does not know this task");
        return;
    }
    if (found.watcher->next_seq > committed(found.watcher) + 1) {
        found.watcher->next_seq = committed(found.watcher) + 1;
        refuse(found.watcher, AMP_INVALID, "from_seq is beyond its last event");
        end_watcher(found.watcher);
        return;
    }
    fall_behind(found.watcher);
    send_keepalive(found.watcher);
}
