/* get, list, history, ping: what is known of tasks, from memory where it is newer than the journal. Replies are cut to what one
 * message on this bus carries; the rest is asked for with the token. */
#include "env_private.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE_DEFAULT 50u
#define TOKEN_SIZE 96

struct page { /* records being gathered */
    const struct ask *ask;
    struct amp_arena *arena;
    Amp__TaskRecord *records[ENV_PAGE_MAX];
    size_t n_records, max, bytes, room;
    int flags;
    char token[TOKEN_SIZE];
    bool is_cut;
};

static void page_init(struct page *page, const struct ask *ask, uint32_t wanted, int flags)
{
    *page = (struct page){.ask = ask, .arena = &ask->env->scratch, .flags = flags};
    page->max = wanted == 0 ? PAGE_DEFAULT : wanted > ENV_PAGE_MAX ? ENV_PAGE_MAX : wanted;
    page->room = env_payload_max(ask->env) / 2; /* JSON is larger than what we measure */
    amp_arena_reset(page->arena);
}

static bool add_row(void *ctx, const struct journal_row *row)
{
    struct page *page = ctx;
    if (page->n_records == page->max) {
        page->is_cut = true;
        return false;
    }
    Amp__TaskRecord *record = view_row(page->ask->env, row, page->arena, page->flags);
    if (!record)
        return true;
    size_t size = amp__task_record__get_packed_size(record);
    if (page->bytes + size > page->room && page->n_records > 0) {
        page->is_cut = true;
        return false;
    }
    page->bytes += size;
    page->records[page->n_records++] = record;
    snprintf(page->token, sizeof page->token, "%" PRId64 ":%s", row->at_unix_ms, row->task);
    return true;
}

static void page_answer(struct page *page, uint32_t total)
{
    const struct ask *ask = page->ask;
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    answer.n_tasks = page->n_records;
    answer.tasks = page->records;
    answer.has_total = true;
    answer.total = total;
    answer.next_page_token = page->is_cut ? page->token : NULL;
    if (env_answer(ask->env, ask->reply, ask->encoding, &answer) == AMP_TOO_LARGE)
        env_refuse_code(ask, AMP_TOO_LARGE, "", "a task is larger than one message on this bus; watch it instead");
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
                                  .oldest_first = is_history,
                                  .limit = ENV_PAGE_MAX + 1};
    struct page page;
    struct amp_error err = {0};
    uint32_t total = 0;
    page_init(&page, ask, wanted->page_size, is_history ? VIEW_ALL : 0);
    if (!parse_token(wanted->page_token, &query)) {
        env_refuse_code(ask, AMP_INVALID, "pageToken", "this is not a page token of ours");
        return;
    }
    if (journal_tasks(ask->env->journal, &query, add_row, &page, &total, &err) != AMP_OK)
        env_refuse(ask->env, ask->reply, ask->encoding, &err);
    else if (is_history && total == 0)
        env_refuse_code(ask, AMP_NOT_FOUND, "contextId", "there is no task in this context");
    else
        page_answer(&page, total);
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
    uint32_t from, next;
    size_t bytes, room, cap;
    bool is_cut;
};

static bool add_events(void *ctx, const struct journal_row *row)
{
    struct events *events = ctx;
    Amp__Frame *frame = amp__frame__unpack(&events->arena->allocator, row->body.len, row->body.data);
    for (size_t i = 0; frame && i < frame->n_events; i++) {
        if (row->seq + i < events->next)
            continue;
        size_t size = frame->events[i]->body->text.len + 64;
        if (events->record->n_events == events->cap || (events->bytes + size > events->room && events->record->n_events)) {
            events->is_cut = true;
            return false;
        }
        events->bytes += size;
        events->record->events[events->record->n_events++] = frame->events[i];
        events->next = row->seq + (uint32_t)i + 1;
    }
    return frame != NULL;
}

static bool take_row(void *ctx, const struct journal_row *row)
{
    struct page *page = ctx;
    return add_row(page, row) && false;
}

static void find_record(struct page *page, const char *id)
{
    struct env *env = page->ask->env;
    struct journal_query query = {.task = id, .limit = 1};
    struct etask *task = etask_find(env, id);
    Amp__TaskRecord *record = task ? view_task(task, page->arena, page->flags) : NULL;
    if (record)
        page->records[page->n_records++] = record;
    else
        (void)journal_tasks(env->journal, &query, take_row, page, NULL, NULL);
}

void query_get(const struct ask *ask)
{
    const Amp__TaskQuery *wanted = ask->request->get;
    struct page page;
    page_init(&page, ask, 1, VIEW_ALL);
    find_record(&page, wanted->id);
    if (page.n_records == 0) {
        env_refuse_code(ask, AMP_NO_SUCH_TASK, "id", NULL);
        return;
    }
    if (wanted->has_events && wanted->events) {
        uint32_t from = wanted->page_token ? (uint32_t)strtoul(wanted->page_token, NULL, 10) : 1;
        size_t used = amp__task_record__get_packed_size(page.records[0]);
        struct events events = {.arena = page.arena, .record = page.records[0], .next = from ? from : 1, .cap = JOURNAL_READ_MAX,
                                .room = used < page.room ? page.room - used : 0};
        events.record->events = amp_arena_alloc(page.arena, events.cap * sizeof *events.record->events);
        uint32_t before = 0;
        while (events.record->events && !events.is_cut && before != events.next) {
            before = events.next;
            if (journal_events(ask->env->journal, wanted->id, events.next, add_events, &events, NULL) != AMP_OK)
                break;
        }
        page.is_cut = events.is_cut;
        snprintf(page.token, sizeof page.token, "%" PRIu32, events.next);
    }
    page_answer(&page, 1);
}

void query_ping(const struct ask *ask)
{
    struct env *env = ask->env;
    struct journal_counts counts = {0};
    Amp__EnvInfo info = AMP__ENV_INFO__INIT;
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    const char *failure = journal_failure(env->journal);
    if (journal_count(env->journal, &counts) != AMP_OK && !failure)
        failure = "it cannot be read";
    info.version = (char *)amp_version();
    info.has_tasks = info.has_tasks_open = info.has_pid = true;
    info.tasks = counts.tasks;
    info.tasks_open = counts.tasks_open;
    info.journal = (char *)(failure ? failure : "ok");
    info.pid = (int32_t)getpid();
    info.instance = env->instance;
    answer.info = &info;
    (void)env_answer(env, ask->reply, ask->encoding, &answer);
}
