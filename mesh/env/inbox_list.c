/* Where questions are found: by their id, in the order of asking, in the journal. The verb `inbox` lists those that are open, oldest first, in pages; the token is
 * "<asked>:<id>" of the last one. Rows are JSON of the scope "question", keyed "<task>:<question>", so that one pass finds all of them at start. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"
#include "base/seeded.h"
#include "env/inbox.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCOPE JOURNAL_SCOPE_QUESTION
#define PAGE_DEFAULT 50u
#define TOKEN_SIZE 96
#define KEY_SIZE (2 * AMP_NAME_MAX + 2)

struct inbox_over {
    struct question_over questions[INBOX_OVER_MAX]; /* the last ones, in a ring */
    uint64_t count;
};

struct inbox_entry {
    UT_hash_handle hh; /* by the question's id, unless is_shadowed */
    struct inbox_entry *prev, *next;
    struct etask *task;
    struct question *question;
    bool is_listed;
    bool is_shadowed; /* another task's question has this id: this one is found by its task only */
};

/* ---- the index ------------------------------------------------------------------------------------------------------------ */

static void unlist(struct env *env, struct inbox_entry *entry)
{
    if (!entry->is_listed)
        return;
    *(entry->prev ? &entry->prev->next : &env->inbox_first) = entry->next;
    *(entry->next ? &entry->next->prev : &env->inbox_last) = entry->prev;
    entry->prev = entry->next = NULL;
    entry->is_listed = false;
    env->n_questions--;
}

/* Behind those that were asked before it; nearly always at the end. */
static void list(struct env *env, struct inbox_entry *entry)
{
    struct inbox_entry *at = env->inbox_last;
    while (at && question_is_older(entry->question, at->question))
        at = at->prev;
    entry->prev = at;
    entry->next = at ? at->next : env->inbox_first;
    *(at ? &at->next : &env->inbox_first) = entry;
    *(entry->next ? &entry->next->prev : &env->inbox_last) = entry;
    entry->is_listed = true;
    env->n_questions++;
}

static struct inbox_entry *find(const struct env *env, const char *id)
{
    struct inbox_entry *entry;
    HASH_FIND_STR(env->inbox, id, entry);
    return entry;
}

void inbox_index(struct etask *task, struct question *question)
{
    struct env *env = task->env;
    struct inbox_entry *entry = question->entry;
    if (!entry) {
        entry = question->entry = xcalloc(1, sizeof *entry);
        entry->task = task;
        entry->question = question;
        entry->is_shadowed = find(env, question->id) != NULL;
        if (!entry->is_shadowed)
            HASH_ADD_KEYPTR(hh, env->inbox, question->id, strlen(question->id), entry);
    }
    bool is_open = question->state == QUESTION_OPEN && !question->is_gone;
    if (is_open && !entry->is_listed)
        list(env, entry);
    else if (!is_open)
        unlist(env, entry);
}

/* Who answers second may come after the end of the task. */
static void remember_over(struct env *env, const struct question *question)
{
    if (!env->inbox_over)
        env->inbox_over = xcalloc(1, sizeof *env->inbox_over);
    env->inbox_over->questions[env->inbox_over->count++ % INBOX_OVER_MAX] = question_over(question);
}

static const struct question_over *find_over(const struct env *env, const char *id)
{
    const struct inbox_over *over = env->inbox_over;
    for (size_t i = 0; over && i < INBOX_OVER_MAX && i < over->count; i++)
        if (strcmp(over->questions[i].id, id) == 0)
            return &over->questions[i];
    return NULL;
}

void inbox_unindex(struct env *env, struct question *question)
{
    struct inbox_entry *entry = question->entry;
    if (!entry)
        return;
    unlist(env, entry);
    assert(env->inbox || entry->is_shadowed);
    if (!entry->is_shadowed)
        HASH_DEL(env->inbox, entry);
    if (!entry->is_shadowed && question->state != QUESTION_OPEN)
        remember_over(env, question);
    question->entry = NULL;
    free(entry);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------ */

static void add_row(const struct etask *task, const struct question *question, struct journal_batch *batch)
{
    char key[KEY_SIZE];
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    snprintf(key, sizeof key, "%s:%s", task->id, question->id);
    row->scope = SCOPE;
    row->owner = "";
    row->key = journal_batch_text(batch, key);
    row->at_unix_ms = clock_unix_ms();
    if (question->is_gone)
        return; /* version 0: it is deleted */
    char *json = question_save(question);
    row->version = 1;
    row->body = journal_batch_bytes(batch, amp_bytes_of(json));
    free(json);
}

/* Those that go first: a newer one may have the same id. */
void inbox_add_rows(struct etask *task, struct journal_batch *batch)
{
    if (!task->inbox)
        return;
    for (const struct question *each = task->inbox->questions.first; each; each = each->next)
        if (each->is_gone && each->has_row)
            add_row(task, each, batch);
    for (const struct question *each = task->inbox->questions.first; each; each = each->next)
        if (!each->is_gone && each->is_changed && !(each->state == QUESTION_ANSWERED && SEEDED_BUG("lost-answer")))
            add_row(task, each, batch);
}

void inbox_rows_written(struct etask *task)
{
    if (!task->inbox)
        return;
    for (struct question *each = task->inbox->questions.first; each; each = each->next) {
        if (each->is_changed)
            each->has_row = !each->is_gone;
        each->is_changed = false;
        if (each->is_gone && !each->has_row)
            inbox_unindex(task->env, each);
    }
    questions_sweep(&task->inbox->questions);
}

struct rows {
    struct env *env;
    struct etask *task; /* only those of this one; NULL: all */
    uint32_t count;
    char last[KEY_SIZE];
};

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct rows *rows = ctx;
    struct env *env = rows->env;
    char id[AMP_NAME_MAX + 1];
    const char *colon = strchr(row->key, ':');
    rows->count++;
    snprintf(rows->last, sizeof rows->last, "%s", row->key);
    if (!colon || (size_t)(colon - row->key) > AMP_NAME_MAX)
        return true;
    snprintf(id, sizeof id, "%.*s", (int)(colon - row->key), row->key);
    struct etask *task = rows->task ? rows->task : etask_find(env, id);
    if (!task)
        return true;
    struct inbox *inbox = inbox_of(task);
    struct question *question = question_load(&inbox->questions, row->body, loop_now_ms(env->loop), clock_unix_ms());
    if (question && question->order > env->n_asked)
        env->n_asked = question->order;
    if (question)
        inbox_index(task, question);
    return true;
}

static void load(struct rows *rows, const char *prefix)
{
    do {
        struct journal_kv_query query = {.scope = SCOPE, .owner = "", .key = prefix, .after = rows->last[0] ? rows->last : NULL, .is_prefix = true};
        rows->count = 0;
        if (journal_kv(rows->env->journal, &query, on_row, rows) != AMP_OK)
            return;
    } while (rows->count == JOURNAL_READ_MAX);
}

void inbox_load(struct env *env)
{
    struct rows rows = {.env = env};
    env->deaf_from_unix_ms = journal_lived_unix_ms(env->journal);
    env->began_ms = loop_now_ms(env->loop);
    load(&rows, "");
}

void inbox_resume(struct env *env)
{
    struct etask *task, *next;
    HASH_ITER(hh, env->tasks, task, next) {
        if (!task->inbox)
            continue;
        if (task->engine.phase == ENGINE_RUNNING) /* its attempt goes on */
            inbox_attempt(task);
        else if (task->is_ended)
            inbox_ended(task);
        else
            inbox_lost(task);
    }
}

void inbox_load_task(struct etask *task)
{
    char prefix[AMP_NAME_MAX + 2];
    struct rows rows = {.env = task->env, .task = task};
    snprintf(prefix, sizeof prefix, "%s:", task->id);
    load(&rows, prefix);
}

/* ---- the verb ---------------------------------------------------------------------------------------------------------------- */

static Amp__Timestamp *time_of(int64_t unix_ms, struct amp_arena *arena)
{
    Amp__Timestamp *time = unix_ms ? amp_arena_alloc(arena, sizeof *time) : NULL;
    if (time) {
        amp__timestamp__init(time);
        time->unix_ms = unix_ms;
    }
    return time;
}

Amp__Question *inbox_view(const struct question *question, struct amp_arena *arena)
{
    Amp__Question *ret = amp_arena_alloc(arena, sizeof *ret);
    Amp__Json *form = amp_arena_alloc(arena, sizeof *form);
    char *json = cJSON_PrintUnformatted(question->form);
    char *text = json ? amp_arena_strdup(arena, amp_bytes_of(json)) : NULL;
    cJSON_free(json);
    if (!ret || !form || !text)
        return NULL;
    amp__question__init(ret);
    amp__json__init(form);
    form->text = (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
    ret->id = (char *)question->id;
    ret->form = form;
    ret->asked = time_of(question->asked_unix_ms, arena);
    ret->expires = time_of(question->expires_unix_ms, arena);
    ret->has_attempt = question->attempt > 0;
    ret->attempt = question->attempt;
    return ret;
}

static Amp__Question *view(const struct inbox_entry *entry, struct amp_arena *arena)
{
    struct etask *task = entry->task;
    Amp__Question *ret = inbox_view(entry->question, arena);
    if (!ret)
        return NULL;
    ret->task_id = task->id;
    ret->context_id = task->context;
    ret->agent = task->agent[0] ? task->agent : NULL;
    ret->from = task->from[0] ? task->from : NULL;
    ret->request = view_asked(task, arena);
    ret->has_durable = true;
    ret->durable = task->is_durable;
    ret->has_away = ret->away = task->is_durable && !entry->question->is_asked;
    return ret;
}

bool inbox_page_add(struct inbox_page *page, Amp__Question *question)
{
    if (!question)
        return false;
    page->bytes += amp__question__get_packed_size(question);
    if (page->count > 0 && page->bytes > env_payload_max(page->ask->env) / 2)
        return false;
    page->questions[page->count++] = question;
    return true;
}

static bool page_add(struct inbox_page *page, const struct inbox_entry *entry)
{
    return inbox_page_add(page, page->count < page->max ? view(entry, page->arena) : NULL);
}

void inbox_page_answer(struct inbox_page *page, bool is_cut, uint32_t total)
{
    const struct ask *ask = page->ask;
    char token[TOKEN_SIZE];
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    answer.n_questions = page->count;
    answer.questions = page->questions;
    answer.has_total = true;
    answer.total = total;
    for (;;) {
        size_t count = answer.n_questions;
        if (count && (is_cut || count < page->count)) {
            const Amp__Question *last = page->questions[count - 1];
            snprintf(token, sizeof token, "%" PRId64 ":%s", last->asked ? last->asked->unix_ms : 0, last->id);
            answer.next_page_token = token;
        }
        if (env_answer(ask->env, ask->reply, ask->encoding, &answer) != AMP_TOO_LARGE)
            return;
        if (count <= 1)
            break;
        answer.n_questions = count / 2;
    }
    env_refuse_code(ask, AMP_TOO_LARGE, "", "a question is larger than one message on this bus");
}

static bool read_token(const char *token, struct inbox_token *ret)
{
    char *end;
    *ret = (struct inbox_token){0};
    if (!token || !*token)
        return true;
    ret->asked_unix_ms = strtoll(token, &end, 10);
    bool is_valid = end != token && *end == ':' && amp_id_is_valid(end + 1);
    ret->id = is_valid ? end + 1 : NULL;
    return is_valid;
}

/* The first behind the token. One that is answered meanwhile has left the list: then by its time. */
static struct inbox_entry *list_from(const struct env *env, const struct inbox_token *token)
{
    struct inbox_entry *entry = token->id ? find(env, token->id) : NULL;
    if (entry && entry->is_listed)
        return entry->next;
    for (entry = env->inbox_first; token->id && entry && entry->question->asked_unix_ms < token->asked_unix_ms;)
        entry = entry->next;
    return entry;
}

static bool is_wanted(const Amp__InboxQuery *query, const struct inbox_entry *entry)
{
    const struct etask *task = entry->task;
    return !entry->task->is_ended && (!query->agent || strcmp(query->agent, task->agent) == 0) && (!query->context_id || strcmp(query->context_id, task->context) == 0) &&
           (!query->id || strcmp(query->id, entry->question->id) == 0 || strcmp(query->id, task->id) == 0);
}

static void list_all(struct inbox_page *page, const Amp__InboxQuery *query, const struct inbox_token *token)
{
    bool is_cut = false, is_filtered = query->agent || query->context_id;
    struct inbox_entry *entry = list_from(page->ask->env, token);
    uint32_t total = 0;
    for (; entry && (!is_cut || is_filtered); entry = entry->next) {
        if (!is_wanted(query, entry))
            continue;
        total++;
        is_cut = is_cut || !page_add(page, entry);
    }
    inbox_page_answer(page, is_cut, is_filtered ? total : page->ask->env->n_questions);
}

static bool on_ended(void *ctx, const struct journal_row *row)
{
    bool *is_known = ctx;
    *is_known = true;
    return false;
}

/* Why nobody waits any more: of a task that has ended, and of a question of one. */
bool inbox_refuse_over(const struct ask *ask, const char *id)
{
    const struct question_over *over = id ? find_over(ask->env, id) : NULL;
    struct amp_error err = {0};
    if (!over)
        return false;
    (void)question_refuse(over, &err);
    env_refuse(ask->env, ask->reply, ask->encoding, &err);
    return true;
}

void inbox_refuse_past(const struct ask *ask, const char *id)
{
    const struct question_over *over = find_over(ask->env, id);
    const struct journal_query query = {.task = id, .limit = 1};
    struct amp_error err = {0};
    bool is_task = false;
    enum amp_code code = journal_tasks(ask->env->journal, &query, on_ended, &is_task, NULL, &err);
    if (code == AMP_OK && is_task)
        code = AMP_TASK_ENDED;
    else if (code == AMP_OK && over)
        code = question_refuse(over, &err);
    if (code == AMP_TASK_ENDED)
        env_refuse_ended(ask, id);
    else if (code != AMP_OK)
        env_refuse(ask->env, ask->reply, ask->encoding, &err);
    else
        env_refuse_missing(ask, &(struct env_missing){AMP_NOT_FOUND, "id", "open task and no such open question", "amesh inbox"}, id);
}

/* Of one task, or one question: what became of it is said. */
static void list_one(struct inbox_page *page, const char *id)
{
    struct env *env = page->ask->env;
    struct etask *task = etask_find(env, id);
    struct inbox_entry *entry = task ? NULL : find(env, id);
    struct amp_error err = {0};
    struct question *ignored;
    if (entry && !entry->is_listed) {
        (void)question_pick(&entry->task->inbox->questions, id, &ignored, &err);
        env_refuse(env, page->ask->reply, page->ask->encoding, &err);
        return;
    }
    if ((!task || task->is_ended) && !entry) {
        inbox_refuse_past(page->ask, id);
        return;
    }
    bool is_cut = entry && !page_add(page, entry);
    for (struct question *each = task && task->inbox ? task->inbox->questions.first : NULL; each && !is_cut; each = each->next)
        if (each->entry && each->state == QUESTION_OPEN && !each->is_gone)
            is_cut = !page_add(page, each->entry);
    inbox_page_answer(page, false, (uint32_t)page->count);
}

void inbox_verb(const struct ask *ask)
{
    const Amp__InboxQuery *query = ask->request->inbox;
    struct env *env = ask->env;
    struct inbox_page page = {.ask = ask, .arena = env_answer_arena(env)};
    struct inbox_token token;
    if (journal_is_damaged(env->journal) || (journal_failure(env->journal) && !env->is_given_up)) { /* memory goes at the end of this turn; from then on the disk counts */
        env_refuse_journal(env, ask->reply, ask->encoding);
        return;
    }
    page.max = query->page_size == 0 ? PAGE_DEFAULT : query->page_size > ENV_PAGE_MAX ? ENV_PAGE_MAX : query->page_size;
    if (!read_token(query->page_token, &token))
        env_refuse_code(ask, AMP_INVALID, "pageToken", "this is not a page token of ours");
    else if (env->is_given_up)
        inbox_left_list(&page, query, &token);
    else if (query->id)
        list_one(&page, query->id);
    else
        list_all(&page, query, &token);
}
