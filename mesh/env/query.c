/* get, list, history, ping: what is known of tasks, from memory where it is newer than the journal. Replies are cut to what one
 * message on this bus carries; the rest is asked for with the token: "<submitted>:<task>" behind the last record, which what is
 * submitted in between does not move, or the number of the next event. */
#include "env_private.h"

#include "base/seeded.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_DEFAULT 50u
#define TOKEN_SIZE 96

/* ---- many tasks ---------------------------------------------------------------------------------------------------------- */

struct page { /* records being gathered */
    const struct ask *ask;
    struct amp_arena *arena;
    Amp__TaskRecord *records[ENV_PAGE_MAX];
    int64_t at_unix_ms[ENV_PAGE_MAX];
    size_t n_records, max, bytes, room;
    int flags;
    bool is_cut;
    char unreadable[AMP_NAME_MAX + 1]; /* a task that stands in the way, if there is one */
};

static bool add_row(void *ctx, const struct journal_row *row)
{
    struct page *page = ctx;
    page->is_cut = page->n_records == page->max;
    if (page->is_cut)
        return false;
    if (row->is_damaged && !amp_id_is_valid(row->task))
        return true; /* no answer can name it; the log does */
    Amp__TaskRecord *record = row->is_damaged ? view_damaged(row, journal_read_error(page->ask->env->journal), page->arena)
                                              : view_row(page->ask->env, row, page->arena, page->flags);
    if (!record) {
        page->is_cut = true; /* for the next page, if this one has any */
        etask_strcpy(page->unreadable, row->task);
        return false;
    }
    page->bytes += amp__task_record__get_packed_size(record);
    page->is_cut = page->bytes > page->room && page->n_records > 0;
    if (page->is_cut)
        return false;
    page->at_unix_ms[page->n_records] = row->at_unix_ms;
    page->records[page->n_records++] = record;
    return true;
}

/* As many as fit: JSON may be larger than what was measured. */
static void answer_page(struct page *page, uint32_t total)
{
    const struct ask *ask = page->ask;
    char token[TOKEN_SIZE];
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    answer.n_tasks = page->n_records;
    answer.tasks = page->records;
    answer.has_total = true;
    answer.total = total;
    for (;;) {
        size_t count = answer.n_tasks;
        if (count && (page->is_cut || count < page->n_records)) {
            snprintf(token, sizeof token, "%" PRId64 ":%s", page->at_unix_ms[count - 1], page->records[count - 1]->task->id);
            answer.next_page_token = token;
        }
        if (count <= 1) {
            env_answer_record(ask->env, ask->reply, ask->encoding, &answer);
            return;
        }
        if (env_answer(ask->env, ask->reply, ask->encoding, &answer) != AMP_TOO_LARGE)
            return;
        answer.n_tasks = count / 2;
    }
}

static bool parse_token(const char *token, struct journal_query *query)
{
    char *end;
    if (!token || !*token)
        return true;
    query->from_unix_ms = strtoll(token, &end, 10);
    query->from_task = end + 1;
    return end != token && *end == ':' && amp_id_is_valid(end + 1);
}

static void query_page(const struct ask *ask, const Amp__TaskQuery *wanted, bool is_history)
{
    struct journal_query query = {.task = wanted->id,
                                  .context = wanted->context_id,
                                  .agent = wanted->agent,
                                  .parent = wanted->parent,
                                  .state = wanted->has_state ? (int32_t)wanted->state : 0,
                                  .only_open = wanted->has_open && wanted->open,
                                  .only_dead = wanted->has_dead && wanted->dead,
                                  .oldest_first = is_history,
                                  .with_damaged = true};
    struct page page = {.ask = ask, .arena = env_answer_arena(ask->env), .flags = is_history ? VIEW_ALL : 0};
    struct amp_error err = {0};
    uint32_t total = 0;
    page.max = wanted->page_size == 0 ? PAGE_DEFAULT : wanted->page_size > ENV_PAGE_MAX ? ENV_PAGE_MAX : wanted->page_size;
    page.room = env_payload_max(ask->env);
    query.limit = (uint32_t)page.max + 1;
    if (!parse_token(wanted->page_token, &query)) {
        env_refuse_code(ask, AMP_INVALID, "pageToken", "this is not a page token of ours");
        return;
    }
    if (journal_tasks(ask->env->journal, &query, add_row, &page, &total, &err) != AMP_OK) {
        env_refuse(ask->env, ask->reply, ask->encoding, &err);
    } else if (is_history && total == 0) {
        env_refuse_missing(ask, &(struct env_missing){AMP_NOT_FOUND, "contextId", "conversation", "amesh task show ID names the context of a task"}, wanted->context_id ? wanted->context_id : "");
    } else if (page.n_records == 0 && page.unreadable[0]) {
        amp_error_set(&err, AMP_JOURNAL, "", "the record of task %s cannot be read, or is too large to be", page.unreadable);
        env_refuse(ask->env, ask->reply, ask->encoding, &err);
    } else {
        answer_page(&page, total);
    }
}

void query_list(const struct ask *ask)
{
    query_page(ask, ask->request->list, false);
}

void query_history(const struct ask *ask)
{
    query_page(ask, ask->request->history, true);
}

/* ---- one task ---------------------------------------------------------------------------------------------------------- */

struct events { /* of the record, from a number on */
    struct amp_arena *arena;
    Amp__TaskRecord *record;
    uint32_t next;
    size_t bytes, room, cap;
    bool is_cut, is_broken;
};

static bool add_events(void *ctx, const struct journal_row *row)
{
    struct events *events = ctx;
    Amp__Frame *frame = amp__frame__unpack(&events->arena->allocator, row->body.len, row->body.data);
    events->is_broken = !frame;
    if (row->seq > events->next && !events->record->incomplete)
        return false; /* is_short says which is missing */
    for (size_t i = 0; frame && i < frame->n_events; i++) {
        if (row->seq + i < events->next)
            continue;
        events->bytes += frame->events[i]->body->text.len + 64;
        events->is_cut = events->record->n_events == events->cap || (events->bytes > events->room && events->record->n_events);
        if (events->is_cut)
            return false;
        events->record->events[events->record->n_events++] = frame->events[i];
        events->next = row->seq + (uint32_t)i + 1;
    }
    return !events->is_broken;
}

/* Those that are committed, as many as one message carries. */
static enum amp_code read_events(struct env *env, struct events *events)
{
    uint32_t before = 0;
    events->record->events = amp_arena_alloc(events->arena, events->cap * sizeof *events->record->events);
    while (events->record->events && !events->is_cut && before != events->next) {
        before = events->next;
        enum amp_code code = journal_events(env->journal, events->record->task->id, events->next, add_events, events, NULL);
        if (code != AMP_OK || events->is_broken)
            return AMP_JOURNAL;
    }
    return events->record->events ? AMP_OK : AMP_NO_MEMORY;
}

/* A row that the index leads to no more is an error to nobody but who counts. */
static bool is_short(const struct env *env, const struct events *events)
{
    struct etask *task;
    const char *id = events->record->task->id;
    HASH_FIND_STR(env->tasks, id, task);
    return !events->is_cut && !events->record->incomplete && events->next <= (task ? task->n_committed : events->record->events_count);
}

static void refuse_short(const struct ask *ask, const struct events *events)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_CORRUPT, "", "the journal is damaged: event %u of task %s is missing", events->next, events->record->task->id);
    amp_error_hint(&err, JOURNAL_CORRUPT_HINT);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

/* With events the reply may lack artifacts and history, which the events have too: it says so. */
static void answer_one(const struct ask *ask, Amp__TaskRecord *record)
{
    const Amp__TaskQuery *wanted = ask->request->get;
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    char token[TOKEN_SIZE];
    answer.n_tasks = 1;
    answer.tasks = &record;
    answer.has_total = true;
    answer.total = 1;
    if (wanted->has_events && wanted->events) {
        static const int less[] = {VIEW_ARTIFACTS, VIEW_ALL};
        size_t used = amp__task_record__get_packed_size(record), room = env_payload_max(ask->env) / 2;
        for (size_t i = 0; i < sizeof less / sizeof less[0] && used > room / 2; i++) { /* the events have them */
            view_omit(record, less[i], &ask->env->answer);
            used = amp__task_record__get_packed_size(record);
        }
        uint32_t from = wanted->page_token ? (uint32_t)strtoul(wanted->page_token, NULL, 10) : 1;
        struct events events = {.arena = &ask->env->answer, .record = record, .next = from ? from : 1, .cap = JOURNAL_READ_MAX,
                                .room = used < room ? room - used : 0};
        enum amp_code code = read_events(ask->env, &events);
        if (code != AMP_OK) {
            env_refuse_unread(ask->env, ask->reply, ask->encoding);
            return;
        }
        if (is_short(ask->env, &events)) {
            refuse_short(ask, &events);
            return;
        }
        snprintf(token, sizeof token, "%" PRIu32, events.next);
        answer.next_page_token = events.is_cut ? token : NULL;
    }
    env_answer_record(ask->env, ask->reply, ask->encoding, &answer);
}

struct found {
    const struct ask *ask;
    Amp__TaskRecord *record;
    bool is_known;
};

static bool on_found(void *ctx, const struct journal_row *row)
{
    struct found *found = ctx;
    found->is_known = true;
    found->record = view_row(found->ask->env, row, &found->ask->env->answer, VIEW_ALL);
    return false;
}

void query_get(const struct ask *ask)
{
    struct env *env = ask->env;
    struct found found = {.ask = ask};
    struct amp_error err = {0};
    struct journal_query query = {.task = ask->request->get->id, .limit = 1};
    (void)env_answer_arena(env);
    if (journal_tasks(env->journal, &query, on_found, &found, NULL, &err) != AMP_OK)
        env_refuse(env, ask->reply, ask->encoding, &err);
    else if (!found.is_known)
        env_refuse_no_task(ask, query.task); /* one that is not written down was not accepted */
    else if (!found.record)
        env_refuse_code(ask, AMP_JOURNAL, "", "the record of the task cannot be read, or is too large to be");
    else
        answer_one(ask, found.record);
}

void query_ping(const struct ask *ask)
{
    struct env *env = ask->env;
    struct journal_counts counts = {0};
    Amp__EnvInfo info = AMP__ENV_INFO__INIT;
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    const char *failure = journal_failure(env->journal);
    if (journal_count(env->journal, &counts) != AMP_OK && !failure)
        failure = journal_read_error(env->journal)->message;
    info.version = (char *)amp_version();
    info.has_tasks = info.has_tasks_open = info.has_pid = true;
    info.tasks = counts.tasks;
    info.tasks_open = counts.tasks_open;
    info.journal = (char *)(failure && !SEEDED_BUG("failure-unsaid") ? failure : "ok");
    info.damage = (char *)journal_damage(env->journal);
    info.pid = (int32_t)getpid();
    info.instance = env->instance;
    load_fill_info(env, env_answer_arena(env), &info);
    evtstream_info(env, &info);
    answer.info = &info;
    (void)env_answer(env, ask->reply, ask->encoding, &answer);
}
