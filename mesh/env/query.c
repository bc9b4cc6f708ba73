/* get, list, history, ping. Answers fit the bus: a page that is too large is halved until it does, a single record too large
 * says so. Page tokens are ours: "<submitted>.<task>" behind the last record, "e<seq>" for the next event of a get. */
#include "env_private.h"

#include "base/bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_DEFAULT 50u
#define EVENTS_MAX 4096u       /* of one record in one reply */
#define EVENTS_BYTES_MAX (4u << 20)
#define HISTORY_EVENTS_BYTES_MAX (512u << 10)

/* ---- events of a record ------------------------------------------------------------------------------------------------ */

struct event_page {
    struct amp_arena *arena;
    Amp__Event **events;
    size_t count, bytes, bytes_max;
    uint32_t next; /* number of the next event wanted */
};

static bool add_row_events(void *ctx, const struct journal_row *row)
{
    struct event_page *page = ctx;
    Amp__Frame *frame = amp__frame__unpack(&page->arena->allocator, row->body.len, row->body.data);
    if (!frame || row->seq > page->next)
        return false;
    for (size_t i = page->next - row->seq; i < frame->n_events; i++) {
        page->bytes += frame->events[i]->body->text.len + 64;
        if (page->count == EVENTS_MAX || (page->count && page->bytes > page->bytes_max))
            return false;
        page->events[page->count++] = frame->events[i];
        page->next++;
    }
    return true;
}

/* Events from `from` on, as far as they go. Only what is committed: an event that is not may still not have been. */
static bool add_events(struct env *env, Amp__TaskRecord *record, uint32_t from, size_t bytes_max, struct amp_arena *arena)
{
    struct event_page page = {.arena = arena, .bytes_max = bytes_max, .next = from};
    page.events = amp_arena_alloc(arena, EVENTS_MAX * sizeof *page.events);
    if (!page.events || journal_events(env->journal, record->task->id, from, add_row_events, &page, NULL) != AMP_OK)
        return false;
    record->events = page.events;
    record->n_events = page.count;
    return true;
}

/* ---- get ------------------------------------------------------------------------------------------------------------------ */

struct record_found {
    struct env *env;
    Amp__TaskRecord *record;
    int flags;
};

static bool on_record(void *ctx, const struct journal_row *row)
{
    struct record_found *found = ctx;
    found->record = view_row(found->env, row, &found->env->arena, found->flags);
    return false;
}

static void refuse_large(const struct ask *ask, const char *what)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_TOO_LARGE, "", "%s is larger than the %zu bytes that a message on this bus may have", what,
                  env_payload_max(ask->env));
    amp_error_hint(&err, "watch the task instead, or raise max_payload of the server");
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
}

/* With events: as many as fit; the token says where to go on. */
static void answer_get(const struct ask *ask, Amp__TaskRecord *record, uint32_t from)
{
    Amp__EnvReply reply = AMP__ENV_REPLY__INIT;
    char token[32];
    reply.n_tasks = 1;
    reply.tasks = &record;
    for (;;) {
        uint32_t next = from + (uint32_t)record->n_events;
        bool has_more = record->n_events && next <= record->events_count;
        snprintf(token, sizeof token, "e%u", next);
        reply.next_page_token = has_more ? token : NULL;
        if (env_answer(ask->env, ask->reply, ask->encoding, &reply) != AMP_TOO_LARGE)
            return;
        if (record->n_events > 1) {
            record->n_events /= 2;
        } else if (record->n_events && record->task->n_artifacts) {
            record->task->n_artifacts = 0; /* the events have them */
            record->task->n_history = 0;
        } else {
            refuse_large(ask, "the record of this task");
            return;
        }
    }
}

void query_get(const struct ask *ask)
{
    struct env *env = ask->env;
    const Amp__TaskQuery *query = ask->request->get;
    uint32_t from = 1;
    struct record_found found = {.env = env, .flags = VIEW_ALL};
    if (query->page_token && sscanf(query->page_token, "e%u", &from) != 1) {
        env_refuse_code(ask, AMP_INVALID, "get.page_token", "this token is none of ours");
        return;
    }
    struct etask *task = etask_find(env, query->id);
    struct journal_query rows = {.task = query->id, .limit = 1};
    bool is_visible = task && task->n_committed; /* what is not committed was not accepted */
    if (is_visible)
        found.record = view_task(task, &env->arena, found.flags);
    else if (!task && journal_tasks(env->journal, &rows, on_record, &found, NULL, NULL) != AMP_OK)
        is_visible = true;
    if (!found.record) {
        env_refuse_code(ask, is_visible ? AMP_JOURNAL : AMP_NO_SUCH_TASK, "get.id",
                        is_visible ? "the journal cannot be read" : "the environment does not know this task");
        return;
    }
    if (query->has_events && query->events && !add_events(env, found.record, from ? from : 1, EVENTS_BYTES_MAX, &env->arena)) {
        env_refuse_code(ask, AMP_JOURNAL, "", "the journal cannot be read");
        return;
    }
    answer_get(ask, found.record, from ? from : 1);
}

/* ---- list and history -------------------------------------------------------------------------------------------------------- */

struct task_page {
    struct env *env;
    int flags;
    Amp__TaskRecord *records[ENV_PAGE_MAX];
    int64_t at[ENV_PAGE_MAX];
    size_t count, count_max;
    bool has_more;
};

static bool add_record(void *ctx, const struct journal_row *row)
{
    struct task_page *page = ctx;
    if (page->count == page->count_max) {
        page->has_more = true;
        return false;
    }
    Amp__TaskRecord *record = view_row(page->env, row, &page->env->arena, page->flags);
    if (!record) { /* the arena is full: the rest is for the next page */
        page->has_more = true;
        return false;
    }
    page->at[page->count] = row->at_unix_ms;
    page->records[page->count++] = record;
    return true;
}

static bool parse_token(const char *token, struct journal_query *rows)
{
    char *end;
    if (!token || !*token)
        return true;
    rows->from_unix_ms = strtoll(token, &end, 10);
    rows->from_task = end + 1;
    return *end == '.' && amp_id_is_valid(end + 1);
}

static void answer_page(const struct ask *ask, struct task_page *page, uint32_t total)
{
    char token[AMP_NAME_MAX + 32];
    Amp__EnvReply reply = AMP__ENV_REPLY__INIT;
    reply.tasks = page->records;
    reply.n_tasks = page->count;
    reply.has_total = true;
    reply.total = total;
    for (;;) {
        size_t count = reply.n_tasks;
        if (count && (page->has_more || count < page->count)) {
            snprintf(token, sizeof token, "%lld.%s", (long long)page->at[count - 1], page->records[count - 1]->task->id);
            reply.next_page_token = token;
        }
        if (env_answer(ask->env, ask->reply, ask->encoding, &reply) != AMP_TOO_LARGE)
            return;
        if (count > 1) {
            reply.n_tasks = count / 2;
        } else if (count && page->records[0]->n_events) {
            page->records[0]->n_events = 0; /* `get` pages through them; events_count says that they are there */
        } else if (count && page->records[0]->task->n_artifacts + page->records[0]->task->n_history) {
            page->records[0]->task->n_artifacts = page->records[0]->task->n_history = 0;
        } else {
            refuse_large(ask, "a single record");
            return;
        }
    }
}

static void read_page(const struct ask *ask, const Amp__TaskQuery *query, struct task_page *page, bool is_history)
{
    struct journal_query rows = {
        .task = query->id,
        .context = query->context_id,
        .agent = query->agent,
        .parent = query->parent,
        .state = query->has_state ? (int32_t)query->state : 0,
        .only_open = query->has_open && query->open,
        .oldest_first = is_history,
    };
    uint32_t total = 0;
    if (!parse_token(query->page_token, &rows)) {
        env_refuse_code(ask, AMP_INVALID, "page_token", "this token is none of ours");
        return;
    }
    uint32_t size = query->has_page_size && query->page_size ? query->page_size : PAGE_DEFAULT;
    page->count_max = size < ENV_PAGE_MAX ? size : ENV_PAGE_MAX;
    rows.limit = (uint32_t)page->count_max + 1;
    struct amp_error err = {0};
    if (journal_tasks(ask->env->journal, &rows, add_record, page, &total, &err) != AMP_OK) {
        env_refuse(ask->env, ask->reply, ask->encoding, &err);
        return;
    }
    bool wants_events = is_history || (query->has_events && query->events);
    for (size_t i = 0; wants_events && i < page->count; i++)
        (void)add_events(ask->env, page->records[i], 1, HISTORY_EVENTS_BYTES_MAX, &ask->env->arena);
    answer_page(ask, page, total);
}

/* What was asked and where it stands; what came of it is for `get`. */
void query_list(const struct ask *ask)
{
    struct task_page page = {.env = ask->env, .flags = VIEW_HISTORY};
    read_page(ask, ask->request->list, &page, false);
}

void query_history(const struct ask *ask)
{
    struct task_page page = {.env = ask->env, .flags = VIEW_ALL};
    read_page(ask, ask->request->history, &page, true);
}

/* ---- ping ---------------------------------------------------------------------------------------------------------------------- */

void query_ping(const struct ask *ask)
{
    struct env *env = ask->env;
    struct journal_counts counts = {0};
    const char *failure = journal_failure(env->journal);
    if (journal_count(env->journal, &counts) != AMP_OK && !failure)
        failure = "it cannot be read";
    Amp__EnvInfo info = AMP__ENV_INFO__INIT;
    info.version = (char *)amp_version();
    info.has_tasks = info.has_tasks_open = info.has_pid = true;
    info.tasks = counts.tasks;
    info.tasks_open = counts.tasks_open;
    info.pid = getpid();
    info.journal = (char *)(failure ? failure : "ok");
    info.instance = env->instance;
    Amp__EnvReply reply = AMP__ENV_REPLY__INIT;
    reply.info = &info;
    (void)env_answer(env, ask->reply, ask->encoding, &reply);
}
