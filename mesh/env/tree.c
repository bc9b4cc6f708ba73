/* Child tasks end with their parent, unless it is completed, or they were detached from it (amp.md 5.4.4). What counts is an end that is on the disk: a parent that is tried
 * again keeps its children, and a crash leaves none behind. A child whose submit was under way when its parent ended is looked at when it is committed, and so are all
 * that a new environment finds. */
#include "env/tree.h"

#include "env_private.h"

#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

#define PAGE 64u /* children that are looked up at once */

static bool ends_children(Amp__TaskState state)
{
    return amp_task_is_terminal(state) && state != AMP__TASK_STATE__TASK_STATE_COMPLETED;
}

static void end_child(struct etask *child, const char *parent, Amp__TaskState state)
{
    char reason[AMP_NAME_MAX + 96];
    const char *how = state == AMP__TASK_STATE__TASK_STATE_CANCELED ? "was cancelled" : state == AMP__TASK_STATE__TASK_STATE_REJECTED ? "was rejected" : "has failed";
    snprintf(reason, sizeof reason, "its parent %s %s", parent, how);
    control_end(child, reason);
}

struct page {
    char ids[PAGE][AMP_NAME_MAX + 1];
    size_t count;
    int64_t last_unix_ms;
};

static bool on_child(void *ctx, const struct journal_row *row)
{
    struct page *page = ctx;
    etask_strcpy(page->ids[page->count++], row->task);
    page->last_unix_ms = row->at_unix_ms;
    return page->count < PAGE;
}

void tree_ended(struct etask *task)
{
    struct env *env = task->env;
    struct page page = {.count = PAGE};
    char last[AMP_NAME_MAX + 1] = "";
    if (task->is_tree_told || !ends_children(task->state))
        return;
    task->is_tree_told = true;
    while (page.count == PAGE) {
        struct journal_query query = {.parent = task->id, .only_open = true, .oldest_first = true, .limit = PAGE, .from_unix_ms = page.last_unix_ms, .from_task = last};
        page.count = 0;
        if (journal_tasks(env->journal, &query, on_child, &page, NULL, NULL) != AMP_OK)
            return; /* the journal says so to everybody else */
        for (size_t i = 0; i < page.count; i++) {
            struct etask *child = etask_find(env, page.ids[i]);
            if (child && !child->is_ended && !child->is_detached)
                end_child(child, task->id, task->state);
        }
        if (page.count > 0)
            etask_strcpy(last, page.ids[page.count - 1]);
    }
}

struct parent {
    Amp__TaskState state;
    bool is_over;
};

static bool on_parent(void *ctx, const struct journal_row *row)
{
    struct parent *parent = ctx;
    parent->state = (Amp__TaskState)row->state;
    parent->is_over = !row->is_open;
    return false;
}

void tree_check(struct etask *task)
{
    struct parent parent = {0};
    struct journal_query query = {.task = task->parent, .limit = 1};
    bool has_parent = task->parent[0] && !task->is_detached && !task->retry_of && !(task->plan && task->plan->schedule[0]);
    const struct etask *above = has_parent ? etask_find(task->env, task->parent) : NULL;
    if (!has_parent || task->is_ended || (above && !above->is_ended))
        return;
    if (journal_tasks(task->env->journal, &query, on_parent, &parent, NULL, NULL) == AMP_OK && parent.is_over && ends_children(parent.state))
        end_child(task, task->parent, parent.state);
}
