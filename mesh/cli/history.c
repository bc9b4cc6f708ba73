/* amesh history: what was asked and answered in one conversation. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/agents.h"
#include "cli/event.h"
#include "cli/output.h"
#include "cli/task.h"

#define HISTORY_PAGE 100u
#define HISTORY_LIMIT_MAX 100000u

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
    uint32_t count, total, limit; /* limit: 0: all */
    cJSON *tasks;
};

/* Oldest first; with a limit the last ones. */
static int on_history(void *ctx, const Amp__EnvReply *reply)
{
    struct history *history = ctx;
    history->total = reply->has_total ? reply->total : history->count + (uint32_t)reply->n_tasks;
    uint32_t skip = history->limit > 0 && history->total > history->limit ? history->total - history->limit : 0;
    for (size_t i = 0; i < reply->n_tasks; i++) {
        if (history->count++ < skip)
            continue;
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
        cJSON_AddNumberToObject(json, "totalSize", history->count);
        output_json(stdout, json);
    } else if (history->limit > 0 && history->count > history->limit) {
        fprintf(stderr, "the last %u of %u tasks. More: --limit N\n", history->limit, history->count);
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
        status = cli_number(&history.cli, "limit", 1, HISTORY_LIMIT_MAX, &history.limit);
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
