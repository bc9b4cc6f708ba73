/* The inbox of an environment whose journal has failed: memory, which was ahead of the disk, is gone, and what is open by the disk is read once more, when somebody asks; it does not change any more. Nobody can
 * answer it before the next environment, which takes it up. */
#include "env_private.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/loop.h"
#include "env/inbox.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct left_task {
    struct left_task *next;
    char id[AMP_NAME_MAX + 1], context[AMP_NAME_MAX + 1], agent[AMP_NAME_MAX + 1];
    bool is_open, is_durable;
};

struct inbox_left {
    struct questions questions; /* of all tasks, oldest first; entry: their left_task */
    struct left_task *tasks;    /* newest first */
    uint32_t n_rows;            /* of the read at hand */
    char last[2 * AMP_NAME_MAX + 2];
    enum amp_code code;
    struct env *env;
};

/* ---- from the disk --------------------------------------------------------------------------------------------------------- */

static bool on_task(void *ctx, const struct journal_row *row)
{
    struct left_task *task = ctx;
    etask_strcpy(task->context, row->context);
    etask_strcpy(task->agent, row->agent);
    task->is_open = row->is_open;
    task->is_durable = row->is_durable;
    return false;
}

/* Rows of one task follow one another. NULL: it cannot be read, left->code. */
static struct left_task *task_of(struct inbox_left *left, const char *id)
{
    const struct journal_query query = {.task = id, .limit = 1};
    if (left->tasks && strcmp(left->tasks->id, id) == 0)
        return left->tasks;
    struct left_task *task = xcalloc(1, sizeof *task);
    etask_strcpy(task->id, id);
    task->next = left->tasks;
    left->tasks = task;
    left->code = journal_tasks(left->env->journal, &query, on_task, task, NULL, NULL);
    if (left->code == AMP_CORRUPT) /* that row: who reads the task is told, and the questions of others go on */
        left->code = AMP_OK;
    return left->code == AMP_OK ? task : NULL;
}

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct inbox_left *left = ctx;
    char id[AMP_NAME_MAX + 1];
    size_t len = strcspn(row->key, ":");
    left->n_rows++;
    snprintf(left->last, sizeof left->last, "%s", row->key);
    if (len > AMP_NAME_MAX)
        return true;
    snprintf(id, sizeof id, "%.*s", (int)len, row->key);
    struct left_task *task = task_of(left, id);
    if (!task)
        return false;
    struct question *question = task->is_open ? question_load(&left->questions, row->body, loop_now_ms(left->env->loop), clock_unix_ms()) : NULL;
    if (question)
        question->entry = task;
    return true;
}

static void left_free(struct inbox_left *left)
{
    while (left->tasks) {
        struct left_task *task = left->tasks;
        left->tasks = task->next;
        free(task);
    }
    questions_done(&left->questions);
    free(left);
}

/* NULL: it cannot be read, as journal_read_error says. */
static struct inbox_left *load(struct env *env)
{
    struct inbox_left *left = xcalloc(1, sizeof *left);
    left->env = env;
    do {
        struct journal_kv_query query = {.scope = JOURNAL_SCOPE_QUESTION, .owner = "", .key = "", .after = left->last[0] ? left->last : NULL, .is_prefix = true};
        left->n_rows = 0;
        enum amp_code code = journal_kv(env->journal, &query, on_row, left);
        if (left->code == AMP_OK && code != AMP_NOT_FOUND) /* none, or none any more */
            left->code = code;
    } while (left->code == AMP_OK && left->n_rows == JOURNAL_READ_MAX);
    if (left->code == AMP_OK)
        return left;
    left_free(left);
    return NULL;
}

void inbox_left_done(struct env *env)
{
    if (env->inbox_left)
        left_free(env->inbox_left);
    env->inbox_left = NULL;
}

/* ---- the verb -------------------------------------------------------------------------------------------------------------- */

struct shown {
    struct env *env;
    struct amp_arena *arena;
    Amp__TaskRecord *record;
};

static bool on_shown(void *ctx, const struct journal_row *row)
{
    struct shown *shown = ctx;
    shown->record = view_row(shown->env, row, shown->arena, 0);
    return false;
}

static Amp__Question *view(const struct inbox_page *page, const struct question *question)
{
    const struct left_task *task = question->entry;
    const struct journal_query query = {.task = task->id, .limit = 1};
    struct shown shown = {.env = page->ask->env, .arena = page->arena};
    Amp__Question *ret = inbox_view(question, page->arena);
    if (!ret)
        return NULL;
    ret->task_id = (char *)task->id;
    ret->context_id = (char *)task->context;
    ret->agent = task->agent[0] ? (char *)task->agent : NULL;
    ret->has_durable = true;
    ret->durable = task->is_durable;
    ret->has_away = ret->away = task->is_durable;
    if (journal_tasks(shown.env->journal, &query, on_shown, &shown, NULL, NULL) == AMP_OK && shown.record) {
        ret->from = shown.record->from;
        ret->request = shown.record->asked;
    }
    return ret;
}

static bool is_open(const struct question *question, int64_t now_ms)
{
    return question->state == QUESTION_OPEN && question->due_at > now_ms; /* at its time it expires, be it that nobody can write that down */
}

static bool is_wanted(const Amp__InboxQuery *query, const struct question *question)
{
    const struct left_task *task = question->entry;
    return (!query->agent || strcmp(query->agent, task->agent) == 0) && (!query->context_id || strcmp(query->context_id, task->context) == 0) &&
           (!query->id || strcmp(query->id, question->id) == 0 || strcmp(query->id, task->id) == 0);
}

/* Does `id` name something of which the inbox can speak, though it is empty? An open task; else it is refused, with what became of it. */
static bool check_id(const struct inbox_page *page, const struct questions *questions, const char *id)
{
    struct left_task task = {0};
    const struct journal_query query = {.task = id, .limit = 1};
    struct amp_error err = {0};
    for (const struct question *each = questions->first; each; each = each->next) {
        if (strcmp(each->id, id) != 0 || each->state == QUESTION_OPEN)
            continue;
        const struct question_over over = question_over(each);
        (void)question_refuse(&over, &err);
        env_refuse(page->ask->env, page->ask->reply, page->ask->encoding, &err);
        return false;
    }
    if (journal_tasks(page->ask->env->journal, &query, on_task, &task, NULL, NULL) == AMP_OK && task.is_open)
        return true;
    inbox_refuse_past(page->ask, id);
    return false;
}

/* Behind the question of the token: by its time, if that is not open any more. */
static bool is_behind(const struct question *question, const struct inbox_token *token, bool *has_passed)
{
    if (!token->id || *has_passed)
        return true;
    *has_passed = strcmp(question->id, token->id) == 0;
    return question->asked_unix_ms > token->asked_unix_ms;
}

void inbox_left_list(struct inbox_page *page, const Amp__InboxQuery *query, const struct inbox_token *token)
{
    struct env *env = page->ask->env;
    int64_t now_ms = loop_now_ms(env->loop);
    bool is_cut = false, has_passed = false;
    uint32_t total = 0;
    if (!env->inbox_left && !(env->inbox_left = load(env))) {
        env_refuse_unread(env, page->ask->reply, page->ask->encoding);
        return;
    }
    const struct questions *questions = &env->inbox_left->questions;
    for (const struct question *each = questions->first; each; each = each->next) {
        if (!is_open(each, now_ms) || !is_wanted(query, each))
            continue;
        total++;
        bool is_next = is_behind(each, token, &has_passed);
        is_cut = is_cut || (is_next && !inbox_page_add(page, page->count < page->max ? view(page, each) : NULL));
    }
    if (total > 0 || !query->id || check_id(page, questions, query->id))
        inbox_page_answer(page, is_cut, total);
}
