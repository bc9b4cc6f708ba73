/* watch: the events of a task from a number on, each once, whatever was missed is read again from the journal (amp.md 10.1). A watcher
 * gets what is committed, never more. It is found gone by the server's word that nobody listens at its inbox. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

#define BEHIND_MS 20u /* until one that the bus had no room for gets more */

struct watcher {
    struct env *env;
    struct etask *task; /* NULL: gone; the watcher ends by itself */
    struct watcher *next_of_task, *next, *prev;
    struct bus_inbox *inbox; /* where the server says that nobody listens */
    enum amp_encoding encoding;
    uint32_t wanted; /* the next number to send */
    char reply[];
};

static void watcher_free(struct watcher *watcher)
{
    struct env *env = watcher->env;
    for (struct watcher **link = watcher->task ? &watcher->task->watchers : NULL; link && *link; link = &(*link)->next_of_task) {
        if (*link == watcher) {
            *link = watcher->next_of_task;
            break;
        }
    }
    if (watcher->prev)
        watcher->prev->next = watcher->next;
    else
        env->watchers = watcher->next;
    if (watcher->next)
        watcher->next->prev = watcher->prev;
    env->n_watchers--;
    if (watcher->inbox)
        bus_inbox_free(watcher->inbox);
    free(watcher);
}

static void on_vanished(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct watcher *watcher = ctx;
    if (kind != BUS_INBOX_NO_RESPONDERS)
        return;
    struct etask *task = watcher->task;
    watcher_free(watcher);
    if (task)
        etask_release(task);
}

static enum amp_code send_frame(struct watcher *watcher, Amp__Frame *frame)
{
    struct env *env = watcher->env;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = env->name;
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = frame;
    amp_buf_reset(&env->out);
    enum amp_code code = amp_encode(&envelope.base, watcher->encoding, &env->out, NULL);
    if (code == AMP_OK && watcher->inbox)
        code = bus_inbox_request(watcher->inbox, watcher->reply, amp_buf_bytes(&env->out));
    else if (code == AMP_OK)
        code = bus_publish(env->bus, watcher->reply, NULL, amp_buf_bytes(&env->out));
    if (code == AMP_OK)
        watcher->wanted = frame->seq + (uint32_t)frame->n_events;
    return code;
}

struct replay {
    struct watcher *watcher;
    const char *task, *context;
    enum amp_code code;
};

static bool replay_row(void *ctx, const struct journal_row *row)
{
    struct replay *replay = ctx;
    struct watcher *watcher = replay->watcher;
    struct amp_arena *arena = &watcher->env->scratch;
    amp_arena_reset(arena);
    Amp__Frame *kept = amp__frame__unpack(&arena->allocator, row->body.len, row->body.data);
    if (!kept) {
        replay->code = AMP_JOURNAL;
        return false;
    }
    size_t skip = watcher->wanted > row->seq ? watcher->wanted - row->seq : 0;
    if (skip >= kept->n_events)
        return true;
    kept->task_id = (char *)replay->task;
    kept->context_id = (char *)replay->context;
    kept->seq = row->seq + (uint32_t)skip;
    kept->events += skip;
    kept->n_events -= skip;
    replay->code = send_frame(watcher, kept);
    return replay->code == AMP_OK;
}

/* Sends what the journal has, up to number `last`. */
static enum amp_code replay_to(struct watcher *watcher, const char *task, const char *context, uint32_t last)
{
    struct replay replay = {.watcher = watcher, .task = task, .context = context};
    uint32_t before = 0;
    while (watcher->wanted <= last && watcher->wanted != before && replay.code == AMP_OK) {
        before = watcher->wanted;
        if (journal_events(watcher->env->journal, task, watcher->wanted, replay_row, &replay, NULL) != AMP_OK)
            return AMP_JOURNAL;
    }
    return replay.code;
}

static enum amp_code send_end(struct watcher *watcher, const char *task, const char *context, uint32_t count, Amp__Error *error)
{
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__End end = AMP__END__INIT;
    frame.task_id = (char *)task;
    frame.context_id = (char *)context;
    frame.seq = count + 1;
    end.count = count;
    end.error = error;
    frame.end = &end;
    return send_frame(watcher, &frame);
}

static bool is_over(const struct etask *task)
{
    return task->is_ended && task->n_committed == task->count && task->n_in_journal == 0 && task->n_refs == 0;
}

/* Brings it up to what is committed. True: it has the end, and is gone. */
static bool pump(struct watcher *watcher)
{
    struct etask *task = watcher->task;
    if (replay_to(watcher, task->id, task->context, task->n_committed) != AMP_OK) {
        loop_timer_set(watcher->env->keepalive, BEHIND_MS);
        return false;
    }
    if (!is_over(task))
        return false;
    amp_arena_reset(&watcher->env->scratch);
    Amp__Error *error = task->error ? amp__error__unpack(&watcher->env->scratch.allocator, task->error_len, task->error) : NULL;
    if (send_end(watcher, task->id, task->context, task->count, error) != AMP_OK) {
        loop_timer_set(watcher->env->keepalive, BEHIND_MS);
        return false;
    }
    watcher_free(watcher);
    return true;
}

void watch_committed(struct etask *task, const Amp__Frame *frame)
{
    struct watcher *next;
    for (struct watcher *watcher = task->watchers; watcher; watcher = next) {
        next = watcher->next_of_task;
        Amp__Frame copy = *frame;
        if (watcher->wanted == frame->seq && send_frame(watcher, &copy) == AMP_OK) {
            if (frame->end)
                watcher_free(watcher);
        } else if (watcher->wanted <= frame->seq + frame->n_events) {
            (void)pump(watcher);
        }
    }
}

void watch_task_gone(struct etask *task)
{
    while (task->watchers)
        watcher_free(task->watchers);
}

void watch_keepalive(void *ctx)
{
    struct env *env = ctx;
    struct watcher *next;
    loop_timer_set(env->keepalive, ENV_KEEPALIVE_MS);
    for (struct watcher *watcher = env->watchers; watcher; watcher = next) {
        next = watcher->next;
        struct etask *task = watcher->task;
        if (watcher->wanted <= task->n_committed || is_over(task)) {
            if (pump(watcher))
                etask_release(task);
            continue;
        }
        Amp__Frame frame = AMP__FRAME__INIT;
        frame.task_id = task->id;
        frame.context_id = task->context;
        frame.seq = watcher->wanted;
        (void)send_frame(watcher, &frame);
    }
}

static struct watcher *watcher_new(const struct ask *ask, uint32_t from_seq)
{
    size_t size = strlen(ask->reply) + 1;
    struct watcher *watcher = xcalloc(1, sizeof *watcher + size);
    struct env *env = ask->env;
    watcher->env = env;
    watcher->encoding = ask->encoding;
    watcher->wanted = from_seq ? from_seq : 1;
    memcpy(watcher->reply, ask->reply, size);
    watcher->next = env->watchers;
    if (env->watchers)
        env->watchers->prev = watcher;
    env->watchers = watcher;
    env->n_watchers++;
    return watcher;
}

/* A task that only the journal has: all at once. What the bus does not take is asked for again by the watcher (amp.md 10.1). */
static bool send_closed(void *ctx, const struct journal_row *row)
{
    const struct ask *ask = ctx;
    struct watcher *watcher = watcher_new(ask, ask->request->watch->from_seq);
    char task[AMP_NAME_MAX + 1], context[AMP_NAME_MAX + 1];
    etask_strcpy(task, row->task);
    etask_strcpy(context, row->context);
    uint32_t count = row->count;
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__TaskRecord *record = row->body.len ? amp__task_record__unpack(&arena.allocator, row->body.len, row->body.data) : NULL;
    if (replay_to(watcher, task, context, count) == AMP_OK && !row->is_open)
        (void)send_end(watcher, task, context, count, record ? record->error : NULL);
    amp_arena_done(&arena);
    watcher_free(watcher);
    return false;
}

struct found {
    const struct ask *ask;
    bool is_found;
};

static bool on_found(void *ctx, const struct journal_row *row)
{
    struct found *found = ctx;
    found->is_found = true;
    return send_closed((void *)found->ask, row);
}

void watch_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    const Amp__Watch *wanted = ask->request->watch;
    struct etask *task = etask_find(env, wanted->id);
    if (env->n_watchers >= ENV_WATCHERS_MAX) {
        env_refuse_code(ask, AMP_OVERLOADED, "", "too many watch");
        return;
    }
    if (!task) {
        struct found found = {.ask = ask};
        struct journal_query query = {.task = wanted->id, .limit = 1};
        (void)journal_tasks(env->journal, &query, on_found, &found, NULL, NULL);
        if (!found.is_found)
            env_refuse_code(ask, AMP_NO_SUCH_TASK, "id", NULL);
        return;
    }
    struct watcher *watcher = watcher_new(ask, wanted->from_seq);
    watcher->inbox = bus_inbox_new(env->bus, on_vanished, watcher);
    watcher->task = task;
    watcher->next_of_task = task->watchers;
    task->watchers = watcher;
    Amp__Frame first = AMP__FRAME__INIT; /* says at once that the watch stands */
    first.task_id = task->id;
    first.context_id = task->context;
    first.seq = watcher->wanted;
    (void)send_frame(watcher, &first);
    if (pump(watcher))
        etask_release(task);
    else if (!loop_timer_is_set(env->keepalive))
        loop_timer_set(env->keepalive, ENV_KEEPALIVE_MS);
}

void watch_done(struct env *env)
{
    while (env->watchers)
        watcher_free(env->watchers);
}
