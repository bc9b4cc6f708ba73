/* amesh task show, amesh history: what happened in one task, in one conversation. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/agents.h"
#include "cli/error.h"
#include "cli/event.h"
#include "cli/output.h"
#include "cli/task.h"

#define TREE_TASKS_MAX 500u
#define HISTORY_PAGE 100u

struct show {
    struct cli cli;
    struct amp_arena arena; /* of the event in hand */
    uint32_t shown;         /* tasks of the tree */
    bool is_cut;            /* there are more than TREE_TASKS_MAX */
    uint32_t n_events;      /* printed */
    char token[AMP_KV_KEY_MAX + 1]; /* of the next page of events; "": that was all */
};

static void print_field(const struct cli *cli, const char *name, const char *text)
{
    if (text == NULL || *text == '\0')
        return;
    char *line = print_line(text, 0);
    printf("%s%-10s%s %s\n", print_on(&cli->out, PRINT_DIM), name, print_off(&cli->out), line);
    free(line);
}

static void print_span(const struct cli *cli, const char *name, const Amp__Timestamp *from, const Amp__Timestamp *to)
{
    char text[PRINT_SHORT_SIZE];
    if (from == NULL || to == NULL)
        return;
    print_duration(to->unix_ms - from->unix_ms, text);
    print_field(cli, name, text);
}

static const char *member(const cJSON *attempt, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(attempt, name));
    return text != NULL ? text : "";
}

/* "i-01… agent_died after 3 ms, having waited 53 ms: the process was killed" */
static void print_attempt(const struct cli *cli, const cJSON *attempt)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(attempt, "attempt"), *ran = cJSON_GetObjectItemCaseSensitive(attempt, "runMs");
    const cJSON *waited = cJSON_GetObjectItemCaseSensitive(attempt, "waitMs");
    const char *reason = member(attempt, "reason"), *outcome = member(attempt, "outcome"), *instance = member(attempt, "instance");
    char name[24], wait_text[PRINT_SHORT_SIZE] = "0 ms", run_text[PRINT_SHORT_SIZE] = "";
    snprintf(name, sizeof name, "attempt %d", cJSON_IsNumber(number) ? number->valueint : 0);
    if (cJSON_IsNumber(waited))
        print_duration((int64_t)waited->valuedouble, wait_text);
    if (cJSON_IsNumber(ran))
        print_duration((int64_t)ran->valuedouble, run_text);
    char *text = xasprintf("%s %s%s%s, having waited %s%s%s", *instance != '\0' ? instance : "nobody took it:", *outcome != '\0' ? outcome : "running",
                           *run_text != '\0' ? " after " : "", run_text, wait_text, *reason != '\0' ? ": " : "", reason);
    print_field(cli, name, text);
    free(text);
}

static void print_attempts(const struct cli *cli, const Amp__Task *task)
{
    cJSON *metadata = NULL, *attempt = NULL;
    if (task->metadata == NULL ||
        amp_json_parse((struct amp_bytes){task->metadata->text.data, task->metadata->text.len}, &metadata, NULL) != AMP_OK)
        return;
    cJSON_ArrayForEach(attempt, cJSON_GetObjectItemCaseSensitive(metadata, "amp/attempts"))
        print_attempt(cli, attempt);
    cJSON_Delete(metadata);
}

static void print_head(const struct show *show, const Amp__TaskRecord *record)
{
    const struct cli *cli = &show->cli;
    const char *state = amp_task_state_short(cli_task_state(record));
    char target[96];
    task_target(record, target, sizeof target);
    printf("%s%s%s  %s%s%s%s\n", print_on(&cli->out, PRINT_BOLD), record->task->id, print_off(&cli->out),
           print_on(&cli->out, print_state_color(state)), state, print_off(&cli->out), record->durable ? "  durable" : "");
    print_field(cli, "agent", target);
    print_field(cli, "from", record->from);
    print_field(cli, "context", record->task->context_id);
    print_field(cli, "parent", record->parent);
    print_field(cli, "waits", record->waiting);
    print_span(cli, "waited", record->submitted, record->started);
    print_span(cli, "ran", record->started, record->ended);
    char *text = task_request_text(record, 200);
    print_field(cli, "asked", text);
    free(text);
    if (record->incomplete)
        print_field(cli, "note", "events are missing: this call was seen in part");
    print_attempts(cli, record->task);
}

static void print_events(struct show *show, const Amp__TaskRecord *record)
{
    if (record->n_events > 0 && show->n_events == 0)
        putchar('\n');
    for (size_t i = 0; i < record->n_events; i++) {
        Amp__StreamResponse *body = NULL;
        const Amp__Event *event = record->events[i];
        amp_arena_reset(&show->arena);
        bool is_readable = event_decode(event, &show->arena, &body, NULL) == AMP_OK;
        struct event_head head = {.seq = ++show->n_events, .unix_ms = event->time != NULL ? event->time->unix_ms : 0};
        if (is_readable)
            event_print_line(stdout, &show->cli.out, &head, body);
    }
    if (show->token[0] != '\0' || record->error == NULL || record->error->code == AMP_OK)
        return;
    struct amp_error err = {0};
    amp_error_from_wire(&err, record->error);
    putchar('\n');
    error_print_plain(stdout, &show->cli.out, &err, record->error);
}

/* ---- the tree of child tasks ------------------------------------------------------------------------- */

struct node {
    char id[AMP_NAME_MAX + 1];
    char *line;
};
struct nodes {
    struct node *items;
    size_t count;
};

static char *tree_line(const struct cli *cli, const Amp__TaskRecord *record)
{
    char target[96], took[PRINT_SHORT_SIZE] = "";
    const char *state = amp_task_state_short(cli_task_state(record));
    task_target(record, target, sizeof target);
    int64_t end = record->ended != NULL ? record->ended->unix_ms : clock_unix_ms();
    if (record->submitted != NULL)
        print_duration(end - record->submitted->unix_ms, took);
    char *text = task_request_text(record, 60);
    char *line = xasprintf("%s%s%s  %s%s%s  %s  %s%s%s", print_on(&cli->out, PRINT_BOLD), target, print_off(&cli->out),
                           print_on(&cli->out, print_state_color(state)), state, print_off(&cli->out), took, record->task->id,
                           *text != '\0' ? "  " : "", text);
    free(text);
    return line;
}

struct children {
    const struct cli *cli;
    struct nodes nodes;
};

static int on_children(void *ctx, const Amp__EnvReply *reply)
{
    struct children *children = ctx;
    struct nodes *nodes = &children->nodes;
    if (nodes->count >= TREE_TASKS_MAX)
        return CLI_ENOUGH; /* more are never shown */
    nodes->items = xrealloc(nodes->items, (nodes->count + reply->n_tasks + 1) * sizeof *nodes->items);
    for (size_t i = 0; i < reply->n_tasks; i++) {
        struct node *node = &nodes->items[nodes->count++];
        snprintf(node->id, sizeof node->id, "%s", reply->tasks[i]->task->id);
        node->line = tree_line(children->cli, reply->tasks[i]);
    }
    return 0;
}

static int print_children(struct show *show, const char *parent, const char *indent, unsigned depth)
{
    struct children children = {.cli = &show->cli};
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.parent = (char *)parent;
    query.has_page_size = true;
    query.page_size = 100;
    request.verb_case = AMP__ENV_REQUEST__VERB_LIST;
    request.list = &query;
    int status = cli_request_pages(&show->cli, &request, on_children, &children);
    bool has_utf8 = show->cli.out.has_utf8;
    for (size_t i = children.nodes.count; i-- > 0;) { /* newest first on the wire, oldest first for people */
        struct node *node = &children.nodes.items[i];
        bool is_last = i == 0;
        if (show->shown == TREE_TASKS_MAX)
            show->is_cut = true;
        if (status == 0 && show->shown < TREE_TASKS_MAX) {
            show->shown++;
            printf("%s%s%s\n", indent, has_utf8 ? (is_last ? "└─ " : "├─ ") : (is_last ? "`- " : "|- "), node->line);
            char *deeper = xasprintf("%s%s", indent, is_last ? "   " : has_utf8 ? "│  " : "|  ");
            if (depth < AMP_HOPS_MAX)
                status = print_children(show, node->id, deeper, depth + 1);
            free(deeper);
        }
        free(node->line);
    }
    free(children.nodes.items);
    return status;
}

/* ---- show -------------------------------------------------------------------------------------------- */

static int on_task(void *ctx, const Amp__EnvReply *reply)
{
    struct show *show = ctx;
    struct cli *cli = &show->cli;
    if (reply->n_tasks == 0)
        return cli_fail_with(cli, AMP_NO_SUCH_TASK, "there is no task %s", cli->args->rest[0]);
    const Amp__TaskRecord *record = reply->tasks[0];
    if (cli->is_json)
        return output_message(stdout, &record->task->base) ? 0 : cli_fail_with(cli, AMP_TOO_LARGE, "the task is too large to be shown");
    if (command_flag(cli->command, cli->args, "tree")) {
        char *line = tree_line(cli, record);
        printf("%s\n", line);
        free(line);
        return 0;
    }
    snprintf(show->token, sizeof show->token, "%s", reply->next_page_token != NULL ? reply->next_page_token : "");
    if (show->n_events == 0)
        print_head(show, record);
    print_events(show, record);
    return 0;
}

int task_run_show(const struct command *command, struct command_args *args)
{
    struct show show = {0};
    int status = cli_init(&show.cli, command, args);
    if (status == 0)
        status = cli_operands(&show.cli, 1, 1);
    if (status == 0)
        status = cli_id(&show.cli, "the task", args->rest[0]);
    if (status == 0)
        status = cli_connect(&show.cli);
    if (status == 0) {
        Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        query.id = (char *)args->rest[0];
        query.has_events = query.events = !show.cli.is_json;
        request.verb_case = AMP__ENV_REQUEST__VERB_GET;
        request.get = &query;
        amp_arena_init(&show.arena, AMP_ARENA_BYTES_MAX);
        status = cli_request(&show.cli, &request, on_task, &show);
        while (status == 0 && show.token[0] != '\0') {
            query.page_token = show.token;
            status = cli_request(&show.cli, &request, on_task, &show);
        }
        if (status == 0 && !show.cli.is_json)
            status = print_children(&show, args->rest[0], command_flag(command, args, "tree") ? "" : "  ", 1);
        if (show.is_cut)
            fprintf(stderr, "only %u child tasks are shown\n", TREE_TASKS_MAX);
        amp_arena_done(&show.arena);
    }
    cli_done(&show.cli);
    return status;
}

/* ---- history ----------------------------------------------------------------------------------------- */

static void print_said(const struct cli *cli, const char *who, const char *text)
{
    if (*text == '\0')
        return;
    printf("%s%s:%s ", print_on(&cli->out, PRINT_BOLD), who, print_off(&cli->out));
    print_text(stdout, &cli->out, amp_bytes_of(text));
    if (text[strlen(text) - 1] != '\n')
        putchar('\n');
}

static void print_exchange(const struct cli *cli, const Amp__TaskRecord *record)
{
    const Amp__Task *task = record->task;
    const char *state = amp_task_state_short(cli_task_state(record));
    char target[96], clock[PRINT_SHORT_SIZE];
    task_target(record, target, sizeof target);
    print_clock(record->submitted != NULL ? record->submitted->unix_ms : 0, clock);
    printf("%s%s  %s  %s%s\n", print_on(&cli->out, PRINT_DIM), clock, task->id, state, print_off(&cli->out));
    for (size_t i = 0; i < task->n_history; i++) {
        char *text = event_message_text(task->history[i]);
        bool is_user = task->history[i]->role == AMP__ROLE__ROLE_USER;
        print_said(cli, is_user ? (record->from != NULL ? record->from : "user") : target, text);
        free(text);
    }
    for (size_t i = 0; i < task->n_artifacts; i++) {
        const Amp__Artifact *artifact = task->artifacts[i];
        Amp__Message message = AMP__MESSAGE__INIT;
        message.n_parts = artifact->n_parts;
        message.parts = artifact->parts;
        char *text = event_message_text(&message);
        print_said(cli, target, text);
        free(text);
    }
    if (cli_task_state(record) != AMP__TASK_STATE__TASK_STATE_COMPLETED && task->status != NULL && task->status->message != NULL) {
        char *text = event_message_text(task->status->message);
        print_said(cli, target, text);
        free(text);
    }
}

struct history {
    struct cli cli;
    size_t count;
    cJSON *tasks;
};

static int on_history(void *ctx, const Amp__EnvReply *reply)
{
    struct history *history = ctx;
    history->count += reply->n_tasks;
    for (size_t i = 0; i < reply->n_tasks; i++) {
        if (history->cli.is_json)
            cJSON_AddItemToArray(history->tasks, agents_message_json(&reply->tasks[i]->task->base));
        else
            print_exchange(&history->cli, reply->tasks[i]);
    }
    return output_is_lost() ? CLI_ENOUGH : 0;
}

static int end_history(struct history *history, const char *context)
{
    if (history->count == 0) {
        struct amp_error err = {0};
        amp_error_set(&err, AMP_NOT_FOUND, "", "no task belongs to a conversation %s", context);
        amp_error_hint(&err, "amesh task show ID names the context of a task");
        return cli_fail(&history->cli, &err, NULL);
    }
    if (history->cli.is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddStringToObject(json, "contextId", context);
        cJSON_AddItemToObject(json, "tasks", history->tasks);
        history->tasks = NULL;
        output_json(stdout, json);
    }
    return 0;
}

int task_run_history(const struct command *command, struct command_args *args)
{
    struct history history = {0};
    int status = cli_init(&history.cli, command, args);
    if (status == 0)
        status = cli_operands(&history.cli, 1, 1);
    if (status == 0)
        status = cli_id(&history.cli, "the context", args->rest[0]);
    if (status == 0)
        status = cli_connect(&history.cli);
    if (status == 0) {
        Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        query.context_id = (char *)args->rest[0];
        query.has_page_size = true;
        query.page_size = HISTORY_PAGE;
        request.verb_case = AMP__ENV_REQUEST__VERB_HISTORY;
        request.history = &query;
        history.tasks = cJSON_CreateArray();
        status = cli_request_pages(&history.cli, &request, on_history, &history);
        if (status == 0)
            status = end_history(&history, args->rest[0]);
        cJSON_Delete(history.tasks);
    }
    cli_done(&history.cli);
    return status;
}
