/* amesh history: what was asked and answered in one conversation. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/agents.h"
#include "cli/damage.h"
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

/* Its texts, and its data as JSON, each on a line of its own: the caller's. */
static char *said_text(Amp__Part *const *parts, size_t n_parts)
{
    struct amp_buf out;
    amp_buf_init(&out, AMP_WIRE_BYTES_MAX);
    for (size_t i = 0; i < n_parts; i++) {
        const Amp__Json *data = parts[i]->data;
        if (parts[i]->text)
            (void)amp_buf_append(&out, parts[i]->text, strlen(parts[i]->text));
        if (data)
            (void)amp_buf_printf(&out, "%s%.*s\n", out.len && out.data[out.len - 1] != '\n' ? "\n" : "", (int)data->text.len, (const char *)data->text.data);
    }
    char *text = xstrndup(out.len ? (const char *)out.data : "", out.len);
    amp_buf_done(&out);
    return text;
}

/* Who answered a question, and how long an answer was that no event had room for; NULL, 0: not said. */
static cJSON *answer_of(const Amp__Message *message)
{
    cJSON *json = NULL;
    if (!message->metadata || amp_json_parse((struct amp_bytes){message->metadata->text.data, message->metadata->text.len}, &json, NULL) != AMP_OK)
        return NULL;
    cJSON *about = cJSON_DetachItemFromObjectCaseSensitive(json, "amp/answer");
    cJSON_Delete(json);
    return about;
}

static void print_message(const struct cli *cli, const Amp__TaskRecord *record, const Amp__Message *message, const char *target)
{
    cJSON *answer = answer_of(message);
    const char *by = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "by"));
    const char *from = answer ? (by ? by : "user") : record->from ? record->from : "user";
    const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(answer, "bytes");
    char *text = said_text(message->parts, message->n_parts);
    if (!*text && cJSON_IsNumber(bytes)) {
        char size[64];
        snprintf(size, sizeof size, "(an answer of %.0f bytes: too long for history)", bytes->valuedouble);
        print_said(cli, from, size);
    } else {
        print_said(cli, message->role == AMP__ROLE__ROLE_USER ? from : target, text);
    }
    free(text);
    cJSON_Delete(answer);
}

static void print_artifacts(const struct cli *cli, const Amp__Task *task, const char *target)
{
    for (size_t i = 0; i < task->n_artifacts; i++) {
        char *text = said_text(task->artifacts[i]->parts, task->artifacts[i]->n_parts);
        print_said(cli, target, text);
        free(text);
    }
}

/* What its state says beside its messages; an open question is one of them. */
static const Amp__Message *last_word(const Amp__Task *task, Amp__TaskState state)
{
    const Amp__Message *last = task->status ? task->status->message : NULL;
    for (size_t i = 0; last && i < task->n_history; i++)
        if (last->message_id && task->history[i]->message_id && strcmp(last->message_id, task->history[i]->message_id) == 0)
            return NULL;
    bool is_asked = task->n_history > 0 && amp_task_is_waiting(state); /* once more, or of a further attempt */
    return state == AMP__TASK_STATE__TASK_STATE_COMPLETED || is_asked ? NULL : last;
}

static void print_exchange(const struct cli *cli, const Amp__TaskRecord *record)
{
    const Amp__Task *task = record->task;
    Amp__TaskState state = cli_task_state(record);
    char target[96], clock[PRINT_SHORT_SIZE];
    task_target(record, target, sizeof target);
    print_clock(record->submitted != NULL ? record->submitted->unix_ms : 0, clock);
    printf("%s%s  %s  %s%s\n", print_on(&cli->out, PRINT_DIM), clock, task->id, amp_task_state_short(state), print_off(&cli->out));
    for (size_t i = 0; i < task->n_history; i++)
        print_message(cli, record, task->history[i], target);
    print_artifacts(cli, task, target);
    const Amp__Message *last = last_word(task, state);
    if (last) {
        char *text = said_text(last->parts, last->n_parts);
        print_said(cli, target, text);
        free(text);
    }
}

struct history {
    struct cli cli;
    uint32_t count, total, limit; /* limit: 0: all */
    cJSON *tasks;
    struct damage damage;
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
        if (damage_note(&history->damage, reply->tasks[i])) {
            if (!history->cli.is_json)
                printf("%s  damaged\n", reply->tasks[i]->task->id);
        } else if (history->cli.is_json)
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
        damage_add_json(&history->damage, json);
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
        int damaged = damage_end(&history.cli, &history.damage);
        status = status == 0 ? damaged : status;
        cJSON_Delete(history.tasks);
    }
    cli_done(&history.cli);
    return status;
}
