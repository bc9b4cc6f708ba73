/* amesh task show --tree: all tasks of the tree that one stands in, from the outermost one down. Its root is named by each task (amp.md 5.4.3); where that is not so, or not
 * known here, the way up goes from parent to parent. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/task.h"

struct node {
    char id[AMP_NAME_MAX + 1], parent[AMP_NAME_MAX + 1], root[AMP_NAME_MAX + 1];
    char target[96];
    Amp__TaskState state;
    bool is_durable, is_detached, is_asked;
    bool is_cut_off;          /* what is between it and the root is not known here */
    int64_t submitted_unix_ms, ended_unix_ms;
    char *text;
    uint32_t n_more;          /* children that are not shown, older than those */
    struct node *first, *next; /* children, oldest first */
};

struct task_tree {
    struct cli *cli;
    const char *asked;
    uint32_t count;
    struct node *top;
};

static struct node *node_new(struct task_tree *tree, const Amp__TaskRecord *record)
{
    const Amp__Json *metadata = record->task->metadata;
    struct node *node = xcalloc(1, sizeof *node);
    snprintf(node->id, sizeof node->id, "%s", record->task->id);
    snprintf(node->parent, sizeof node->parent, "%s", record->parent != NULL ? record->parent : "");
    snprintf(node->root, sizeof node->root, "%s", record->root != NULL ? record->root : "");
    task_target(record, node->target, sizeof node->target);
    node->state = cli_task_state(record);
    node->is_durable = record->durable;
    node->is_detached = metadata != NULL && memmem(metadata->text.data, metadata->text.len, "\"amp/detached\":true", 19) != NULL;
    node->is_asked = strcmp(node->id, tree->asked) == 0;
    node->submitted_unix_ms = record->submitted != NULL ? record->submitted->unix_ms : 0;
    node->ended_unix_ms = record->ended != NULL ? record->ended->unix_ms : 0;
    node->text = task_request_text(record, 60);
    tree->count++;
    return node;
}

static void node_free(struct node *node)
{
    for (struct node *child = node != NULL ? node->first : NULL, *next; child != NULL; child = next) {
        next = child->next;
        node_free(child);
    }
    if (node != NULL)
        free(node->text);
    free(node);
}

/* ---- reading ------------------------------------------------------------------------------------------- */

struct taken {
    struct task_tree *tree;
    struct node *node;
};

static int on_one(void *ctx, const Amp__EnvReply *reply)
{
    struct taken *taken = ctx;
    if (reply->n_tasks > 0)
        taken->node = node_new(taken->tree, reply->tasks[0]);
    return 0;
}

/* NULL: it is not known here, or *reterr. */
static struct node *read_one(struct task_tree *tree, const char *id, struct amp_error *reterr)
{
    struct taken taken = {.tree = tree};
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.id = (char *)id;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    (void)cli_ask_env(tree->cli, &request, on_one, &taken, reterr);
    return taken.node;
}

/* Newest first on the wire, oldest first for people. */
static int on_children(void *ctx, const Amp__EnvReply *reply)
{
    struct taken *taken = ctx;
    struct node *node = taken->node;
    uint32_t count = 0;
    for (const struct node *child = node->first; child != NULL; child = child->next)
        count++;
    for (size_t i = 0; i < reply->n_tasks; i++) {
        if (count == TASK_TREE_CHILDREN_MAX || taken->tree->count >= TASK_TREE_MAX) {
            node->n_more = reply->has_total && reply->total > count ? reply->total - count : 1;
            return CLI_ENOUGH;
        }
        struct node *child = node_new(taken->tree, reply->tasks[i]);
        child->next = node->first;
        node->first = child;
        count++;
    }
    return 0;
}

static int read_children(struct task_tree *tree, struct node *node, unsigned depth)
{
    struct taken taken = {.tree = tree, .node = node};
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.parent = node->id;
    query.has_page_size = true;
    query.page_size = TASK_TREE_CHILDREN_MAX;
    request.verb_case = AMP__ENV_REQUEST__VERB_LIST;
    request.list = &query;
    int status = cli_request_pages(tree->cli, &request, on_children, &taken);
    for (struct node *child = node->first; status == 0 && child != NULL && depth < AMP_HOPS_MAX; child = child->next)
        status = read_children(tree, child, depth + 1);
    return status;
}

static bool holds(const struct node *node, const char *id)
{
    bool is_here = strcmp(node->id, id) == 0;
    for (const struct node *child = node->first; child != NULL && !is_here; child = child->next)
        is_here = holds(child, id);
    return is_here;
}

/* From parent to parent, as far as they are known. Takes `node` over. */
static struct node *climb(struct task_tree *tree, struct node *node)
{
    struct amp_error err = {0};
    for (unsigned i = 0; i <= AMP_HOPS_MAX && node->parent[0] != '\0'; i++) {
        struct node *above = read_one(tree, node->parent, &err);
        if (above == NULL)
            break;
        node_free(node);
        node = above;
    }
    return node;
}

/* A part whose way up ends before the root hangs there all the same. */
static int add_part(struct task_tree *tree, struct node *asked)
{
    struct node *part = climb(tree, asked);
    if (holds(tree->top, part->id)) { /* it is there, but one of too many */
        node_free(part);
        return 0;
    }
    part->is_cut_off = true;
    part->next = tree->top->first;
    tree->top->first = part;
    return read_children(tree, part, 1);
}

int task_tree_read(struct cli *cli, const char *id, struct task_tree **ret)
{
    struct task_tree *tree = xcalloc(1, sizeof *tree);
    struct amp_error err = {0};
    *tree = (struct task_tree){.cli = cli, .asked = id};
    *ret = tree;
    struct node *asked = read_one(tree, id, &err);
    if (asked == NULL)
        return err.code != AMP_OK ? cli_fail(cli, &err, NULL) : cli_fail_with(cli, AMP_NO_SUCH_TASK, "there is no task %s", id);
    tree->top = asked->root[0] != '\0' ? read_one(tree, asked->root, &err) : NULL;
    bool is_rooted = tree->top != NULL;
    if (!is_rooted)
        tree->top = climb(tree, asked);
    tree->count = 1;
    int status = read_children(tree, tree->top, 0);
    if (is_rooted && (status != 0 || holds(tree->top, id)))
        node_free(asked);
    else if (is_rooted)
        status = add_part(tree, asked);
    return status;
}

void task_tree_free(struct task_tree *tree)
{
    if (tree != NULL)
        node_free(tree->top);
    free(tree);
}

/* ---- for people ------------------------------------------------------------------------------------------- */

static void print_node(const struct task_tree *tree, const struct node *node)
{
    const struct print_style *out = &tree->cli->out;
    const char *state = amp_task_state_short(node->state);
    char took[PRINT_SHORT_SIZE] = "";
    if (node->submitted_unix_ms > 0)
        print_duration((node->ended_unix_ms > 0 ? node->ended_unix_ms : clock_unix_ms()) - node->submitted_unix_ms, took);
    printf("%s%s%s  %s%s%s  %s  %s%s  %s%s%s%s%s\n", print_on(out, PRINT_BOLD), node->target, print_off(out), print_on(out, print_state_color(state)), state, print_off(out), took,
           node->is_durable ? "durable" : "direct", node->is_detached ? ", detached" : "", node->id, node->text[0] != '\0' ? "  " : "", node->text,
           node->is_cut_off ? "  (what is between is not known)" : "", node->is_asked && node != tree->top ? "  <-" : "");
}

static void print_below(const struct task_tree *tree, const struct node *node, const char *indent)
{
    bool has_utf8 = tree->cli->out.has_utf8;
    if (node->n_more > 0)
        printf("%s%s%s %u more\n", indent, has_utf8 ? (node->first != NULL ? "├─ " : "└─ ") : (node->first != NULL ? "|- " : "`- "), has_utf8 ? "…" : "...", (unsigned)node->n_more);
    for (const struct node *child = node->first; child != NULL; child = child->next) {
        bool is_last = child->next == NULL;
        printf("%s%s", indent, has_utf8 ? (is_last ? "└─ " : "├─ ") : (is_last ? "`- " : "|- "));
        print_node(tree, child);
        char *deeper = xasprintf("%s%s", indent, is_last ? "   " : has_utf8 ? "│  " : "|  ");
        print_below(tree, child, deeper);
        free(deeper);
    }
}

void task_tree_print(const struct task_tree *tree)
{
    print_node(tree, tree->top);
    print_below(tree, tree->top, "");
}

/* ---- for programs ------------------------------------------------------------------------------------------- */

static cJSON *node_json(const struct node *node)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", node->id);
    cJSON_AddStringToObject(json, "agent", node->target);
    cJSON_AddStringToObject(json, "state", amp_task_state_short(node->state));
    cJSON_AddBoolToObject(json, "durable", node->is_durable);
    if (node->is_detached)
        cJSON_AddTrueToObject(json, "detached");
    if (node->is_cut_off)
        cJSON_AddTrueToObject(json, "cutOff");
    json_add_time(json, "submitted", node->submitted_unix_ms);
    json_add_time(json, "ended", node->ended_unix_ms);
    if (node->text[0] != '\0')
        cJSON_AddStringToObject(json, "asked", node->text);
    if (node->n_more > 0)
        cJSON_AddNumberToObject(json, "more", node->n_more);
    cJSON *children = node->first != NULL ? cJSON_AddArrayToObject(json, "children") : NULL;
    for (const struct node *child = node->first; child != NULL; child = child->next)
        cJSON_AddItemToArray(children, node_json(child));
    return json;
}

cJSON *task_tree_json(const struct task_tree *tree)
{
    return node_json(tree->top);
}
