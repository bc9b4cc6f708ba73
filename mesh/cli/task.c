/* amesh task ls, watch, cancel. */
#include "cli/task.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "cli/agents.h"
#include "cli/answer.h"
#include "cli/away.h"
#include "cli/commands.h"
#include "cli/damage.h"
#include "cli/event.h"
#include "cli/explain.h"
#include "cli/output.h"

#define LIMIT_DEFAULT 50u
#define LIMIT_MAX 10000u

void task_target(const Amp__TaskRecord *record, char *ret, size_t size)
{
    if (record->agent != NULL && *record->agent != '\0')
        snprintf(ret, size, "%s", record->agent);
    else if (record->skill != NULL && *record->skill != '\0')
        snprintf(ret, size, "skill %s", record->skill);
    else
        snprintf(ret, size, "?");
}

Amp__TaskState cli_task_state(const Amp__TaskRecord *record)
{
    return record->task->status != NULL ? record->task->status->state : AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
}

char *task_request_text(const Amp__TaskRecord *record, size_t max)
{
    for (size_t i = 0; record->asked == NULL && i < record->task->n_history; i++) { /* an environment that does not say it */
        if (record->task->history[i]->role != AMP__ROLE__ROLE_USER)
            continue;
        char *text = event_message_text(record->task->history[i]);
        char *line = print_line(text, max);
        free(text);
        return line;
    }
    return print_line(record->asked != NULL ? record->asked : "", max);
}

/* ---- ls ---------------------------------------------------------------------------------------------- */

struct list {
    struct cli cli;
    Amp__TaskQuery query;
    uint32_t limit, shown, total;
    int64_t since_unix_ms; /* 0: ever */
    bool has_more;
    cJSON *tasks;
    struct damage damage;
    struct print_table table;
};

/* "paint the door  (every instance of painter is busy)" */
static char *request_and_reason(const Amp__TaskRecord *record)
{
    bool is_waiting = record->waiting != NULL && *record->waiting != '\0';
    char *text = task_request_text(record, is_waiting ? 30 : 60);
    if (!is_waiting)
        return text;
    char *both = xasprintf("%s%s(%s)", text, *text != '\0' ? "  " : "", record->waiting);
    free(text);
    return both;
}

static void add_row(struct list *list, const Amp__TaskRecord *record, int64_t now)
{
    char target[96], age[PRINT_SHORT_SIZE] = "", took[PRINT_SHORT_SIZE] = "";
    task_target(record, target, sizeof target);
    if (record->submitted != NULL)
        print_duration(now - record->submitted->unix_ms, age);
    if (record->submitted != NULL && record->ended != NULL)
        print_duration(record->ended->unix_ms - record->submitted->unix_ms, took);
    char *text = NULL;
    if (list->query.dead && record->error != NULL && record->error->message != NULL)
        text = print_line(record->error->message, 0);
    else
        text = request_and_reason(record);
    const char *cells[] = {record->task->id, amp_task_state_short(cli_task_state(record)), target, record->from, age, took, text};
    print_table_add(&list->table, cells);
    free(text);
}

static void add_damaged_row(struct list *list, const Amp__TaskRecord *record)
{
    const char *cells[] = {record->task->id, "damaged", "?", "", "", "", ""};
    print_table_add(&list->table, cells);
}

static int on_list(void *ctx, const Amp__EnvReply *reply)
{
    struct list *list = ctx;
    int64_t now = clock_unix_ms();
    list->total = reply->has_total ? reply->total : list->shown + (uint32_t)reply->n_tasks;
    for (size_t i = 0; i < reply->n_tasks; i++) {
        const Amp__TaskRecord *record = reply->tasks[i];
        if (record->submitted != NULL && record->submitted->unix_ms < list->since_unix_ms)
            return CLI_ENOUGH; /* newest first: the rest is older */
        if (list->shown == list->limit) {
            list->has_more = true;
            return CLI_ENOUGH;
        }
        list->shown++;
        if (damage_note(&list->damage, record))
            add_damaged_row(list, record);
        else if (list->cli.is_json)
            cJSON_AddItemToArray(list->tasks, agents_message_json(&record->task->base));
        else
            add_row(list, record, now);
    }
    bool is_cut = reply->next_page_token != NULL && *reply->next_page_token != '\0';
    list->has_more = is_cut && list->shown == list->limit;
    return list->has_more ? CLI_ENOUGH : 0;
}

static bool is_filtered(const Amp__TaskQuery *query)
{
    return query->agent != NULL || query->context_id != NULL || query->parent != NULL || query->has_state || query->open || query->dead;
}

static void print_list(struct list *list)
{
    if (list->cli.is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddItemToObject(json, "tasks", list->tasks);
        list->tasks = NULL;
        damage_add_json(&list->damage, json);
        cJSON_AddNumberToObject(json, "totalSize", list->since_unix_ms > 0 && !list->has_more ? list->shown : list->total);
        output_json(stdout, json);
        return;
    }
    if (list->shown == 0)
        fprintf(stderr, "no tasks%s\n", list->total == 0 && !is_filtered(&list->query) ? ". Ask something: amesh ask AGENT TEXT" : " of this kind");
    else
        print_table_write(stdout, &list->cli.out, &list->table, 1);
    if (list->has_more && list->since_unix_ms > 0)
        fprintf(stderr, "the newest %u tasks. More: --limit N\n", list->shown);
    else if (list->has_more)
        fprintf(stderr, "%u of %u tasks. More: --limit N\n", list->shown, list->total);
}

static int read_limits(struct list *list)
{
    uint32_t since_ms = 0;
    int status = cli_duration(&list->cli, "since", &since_ms);
    list->limit = since_ms > 0 ? LIMIT_MAX : LIMIT_DEFAULT;
    list->since_unix_ms = since_ms > 0 ? clock_unix_ms() - since_ms : 0;
    if (status == 0)
        status = cli_number(&list->cli, "limit", 1, LIMIT_MAX, &list->limit);
    list->query.has_page_size = true;
    list->query.page_size = list->limit; /* the environment gives what fits a message */
    return status;
}

static int read_query(struct list *list)
{
    const struct cli *cli = &list->cli;
    const struct command *command = cli->command;
    Amp__TaskQuery *query = &list->query;
    const char *state = command_value(command, cli->args, "state");
    query->agent = (char *)command_value(command, cli->args, "agent");
    query->context_id = (char *)command_value(command, cli->args, "context");
    const char *schedule = command_value(command, cli->args, "schedule"), *parent = command_value(command, cli->args, "parent");
    query->parent = (char *)(parent != NULL ? parent : schedule); /* amp.md 10.9.6 */
    query->has_open = query->open = command_flag(command, cli->args, "open");
    query->has_dead = query->dead = command_flag(command, cli->args, "dead");
    int status = read_limits(list);
    if (status == 0 && query->agent != NULL)
        status = cli_id(cli, "the agent", query->agent);
    if (status == 0 && query->context_id != NULL)
        status = cli_id(cli, "the context", query->context_id);
    if (status == 0 && query->parent != NULL)
        status = cli_id(cli, parent != NULL ? "the parent" : "the schedule", query->parent);
    if (status == 0 && parent != NULL && schedule != NULL)
        return cli_usage(cli, "--parent or --schedule, not both: a run of a schedule was made inside of no task");
    if (status != 0 || state == NULL)
        return status;
    query->has_state = true;
    query->state = amp_task_state_parse(state);
    if (query->state == AMP__TASK_STATE__TASK_STATE_UNSPECIFIED)
        return cli_usage(cli, "--state must be submitted, working, input-required, auth-required, completed, failed, canceled or rejected, not \"%s\"",
                         state);
    return 0;
}

static int run_list(const struct command *command, struct command_args *args)
{
    static const char *const columns[] = {"TASK", "STATE", "AGENT", "FROM", "AGE", "TOOK", "TEXT"};
    struct list list = {.query = AMP__TASK_QUERY__INIT};
    int status = cli_init(&list.cli, command, args);
    if (status == 0)
        status = cli_operands(&list.cli, 0, 0);
    if (status == 0)
        status = read_query(&list);
    if (status == 0)
        status = cli_connect(&list.cli);
    if (status == 0) {
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        request.verb_case = AMP__ENV_REQUEST__VERB_LIST;
        request.list = &list.query;
        print_table_init(&list.table, columns, 7);
        list.tasks = cJSON_CreateArray();
        status = cli_request_pages(&list.cli, &request, on_list, &list);
        if (status == 0)
            print_list(&list);
        int damaged = damage_end(&list.cli, &list.damage);
        status = status == 0 ? damaged : status;
        cJSON_Delete(list.tasks);
        print_table_done(&list.table);
    }
    cli_done(&list.cli);
    return status;
}

/* ---- watch -------------------------------------------------------------------------------------------- */

struct watch {
    struct cli cli;
    struct env_watch *watch;
    struct away away;
    struct amp_arena arena;
    Amp__TaskState state;
    int status;
};

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct watch *watch = ctx;
    Amp__StreamResponse *body = NULL;
    struct amp_error err = {0};
    away_back(&watch->away, NULL);
    amp_arena_reset(&watch->arena);
    if (event_decode(event, &watch->arena, &body, &err) != AMP_OK) {
        cli_fail(&watch->cli, &err, NULL); /* the others may be fine: go on */
        return;
    }
    struct event_head head = {.seq = seq, .unix_ms = event->time != NULL ? event->time->unix_ms : 0};
    if (watch->cli.is_json)
        event_print_json(stdout, &head, body);
    else
        event_print_line(stdout, &watch->cli.out, &head, body);
    Amp__TaskState state = event_state(body, NULL);
    if (state != AMP__TASK_STATE__TASK_STATE_UNSPECIFIED)
        watch->state = state;
    if (output_is_lost())
        loop_stop(watch->cli.loop, amp_code_info(AMP_INTERRUPTED)->exit);
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct watch *watch = ctx;
    /* the task's own failure is what was watched, not a failure of watching */
    bool is_tasks = err->code >= 3000 && err->code < 4000 && err->code != AMP_FRAMES_LOST && err->code != AMP_DEADLINE;
    if (err->code != AMP_OK && !is_tasks)
        watch->status = cli_fail(&watch->cli, err, wire);
    else if (wire != NULL && wire->death != NULL)
        cli_fail(&watch->cli, err, wire);
    loop_stop(watch->cli.loop, 0);
}

static void on_away(void *ctx, const char *why)
{
    away_lost(&((struct watch *)ctx)->away, why);
}

static void on_back(void *ctx)
{
    away_back(&((struct watch *)ctx)->away, NULL);
}

static int watch_task(struct watch *watch, const char *task, uint32_t from)
{
    static const struct env_watch_handlers handlers = {.on_event = on_event, .on_end = on_end, .on_away = on_away, .on_back = on_back};
    struct cli *cli = &watch->cli;
    away_init(&watch->away, cli, "no event will be missing");
    enum amp_code code = env_watch_start(cli->loop, cli->bus, cli->from, task, from, 0, &handlers, watch, &watch->watch);
    if (code != AMP_OK)
        return cli_fail_with(cli, code, "the task %s cannot be watched: %s", task, amp_code_info(code)->text);
    struct output_until until;
    output_until_begin(cli->loop, &until);
    int status = loop_run(cli->loop);
    output_until_end(&until);
    env_watch_free(watch->watch);
    return status != 0 ? status : watch->status;
}

static int run_watch(const struct command *command, struct command_args *args)
{
    struct watch watch = {0};
    uint32_t from = 1;
    int status = cli_init(&watch.cli, command, args);
    if (status == 0)
        status = cli_operands(&watch.cli, 1, 1);
    if (status == 0)
        status = cli_id(&watch.cli, "the task", args->rest[0]);
    if (status == 0)
        status = cli_number(&watch.cli, "from", 1, UINT32_MAX, &from);
    if (status == 0)
        status = cli_connect(&watch.cli);
    if (status == 0) {
        amp_arena_init(&watch.arena, AMP_ARENA_BYTES_MAX);
        status = watch_task(&watch, args->rest[0], from);
        amp_arena_done(&watch.arena);
    }
    cli_done(&watch.cli);
    return status;
}

/* ---- cancel ------------------------------------------------------------------------------------------- */

static int on_cancelled(void *ctx, const Amp__EnvReply *reply)
{
    struct cli *cli = ctx;
    if (cli->is_json && reply->n_tasks > 0)
        output_message(stdout, &reply->tasks[0]->task->base);
    else if (cli->is_json)
        printf("{\"id\":\"%s\"}\n", cli->args->rest[0]);
    else
        fprintf(stderr, "cancel of %s was asked for\n", cli->args->rest[0]);
    return 0;
}

static int run_cancel(const struct command *command, struct command_args *args)
{
    struct cli cli;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 1, 1);
    if (status == 0)
        status = cli_id(&cli, "the task", args->rest[0]);
    if (status == 0)
        status = cli_connect(&cli);
    if (status == 0) {
        Amp__Cancel cancel = AMP__CANCEL__INIT;
        Amp__Control control = AMP__CONTROL__INIT;
        Amp__TaskCommand task = AMP__TASK_COMMAND__INIT;
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        cancel.reason = (char *)command_value(command, args, "reason");
        control.kind_case = AMP__CONTROL__KIND_CANCEL;
        control.cancel = &cancel;
        task.id = (char *)args->rest[0];
        task.control = &control;
        request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
        request.command = &task;
        status = cli_request(&cli, &request, on_cancelled, &cli);
    }
    cli_done(&cli);
    return status;
}

/* ---- retry -------------------------------------------------------------------------------------------- */

int task_on_accepted(void *ctx, const Amp__EnvReply *reply)
{
    const struct cli *cli = ctx;
    if (reply->n_tasks == 0)
        return cli_fail_with(cli, AMP_BAD_ANSWER, "the environment accepted it, but does not say as which task");
    if (cli->is_json)
        output_message(stdout, &reply->tasks[0]->task->base);
    else
        printf("%s\n", reply->tasks[0]->task->id);
    return 0;
}

static int run_retry(const struct command *command, struct command_args *args)
{
    struct cli cli;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 1, 1);
    if (status == 0)
        status = cli_id(&cli, "the task", args->rest[0]);
    if (status == 0)
        status = cli_connect(&cli);
    if (status == 0) {
        Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        query.id = (char *)args->rest[0];
        request.verb_case = AMP__ENV_REQUEST__VERB_RETRY;
        request.retry = &query;
        status = cli_request(&cli, &request, task_on_accepted, &cli);
    }
    cli_done(&cli);
    return status;
}

static const struct command_option list_options[] = {
    {.name = "state", .arg = "STATE", .help = "only tasks in this state", .complete = "submitted|working|input-required|completed|failed|canceled|rejected"},
    {.name = "agent", .letter = 'a', .arg = "A", .help = "only tasks of this agent", .complete = "agents"},
    {.name = "context", .letter = 'c', .arg = "C", .help = "only tasks of this conversation", .complete = "contexts"},
    {.name = "schedule", .arg = "S", .help = "only runs of this schedule", .complete = "schedules"},
    {.name = "parent", .arg = "T", .help = "only tasks that were made inside of this one", .complete = "tasks"},
    {.name = "open", .letter = 'o', .help = "only tasks that have not ended"},
    {.name = "dead", .help = "only dead letters: tasks given up after too many tries, with the reason, until they are tried again"},
    {.name = "since", .arg = "TIME", .help = "only tasks that were submitted within the last TIME, such as 1h"},
    {.name = "limit", .letter = 'n', .arg = "N", .help = "at most N tasks, newest first (default 50, with --since 10000; at most 10000)"},
    {0},
};
static const struct command_option show_options[] = {
    {.name = "events", .letter = 'e', .help = "every event as it came, one by line"},
    {.name = "output", .arg = "DIR", .help = "write the files of its answer into this directory, made if it is not there", .complete = "files"},
    {.name = "tree", .help = "the whole tree that the task stands in, from the outermost task down; with --json under amp/tree"},
    {0},
};
static const struct command_option watch_options[] = {
    {.name = "from", .arg = "SEQ", .help = "first event wanted (default 1)"},
    {0},
};
static const struct command_option cancel_options[] = {
    {.name = "reason", .arg = "TEXT", .help = "told to the agent"},
    {0},
};
static const struct command_option fork_options[] = {
    {.name = "from", .arg = "SEQ", .help = "the last event that both have in common; needed"},
    {.name = "agent", .letter = 'a', .arg = "A", .help = "ask this agent, instead of the one that was asked", .complete = "agents"},
    {.name = "text", .arg = "TEXT", .help = "ask this, instead of what was asked (- reads standard input)"},
    {.name = "same-context", .help = "in the same conversation, instead of one of its own"},
    {0},
};
static const struct command_option history_options[] = {
    {.name = "limit", .letter = 'n', .arg = "N", .help = "only the last N tasks (default: all)"},
    {0},
};
static const struct command_option no_options[] = {{0}};

const struct command task_commands[] = {
    {.name = "task",
     .operands = "COMMAND",
     .summary = "tasks: ls, show, watch, cancel; emit and ask inside of one",
     .details = "Examples:\n  amesh task ls --open\n  amesh task show t-01hq3c\n  amesh help task watch",
     .options = no_options},
    {.name = "task ls",
     .operands = "",
     .summary = "list tasks, newest first",
     .details = "Durable tasks and direct calls that the environment saw.\n\nExamples:\n  amesh task ls --open\n  amesh task ls --agent up --state failed --since 1h --json",
     .options = list_options,
     .run = run_list},
    {.name = "task show",
     .operands = "ID",
     .summary = "show a task as a timeline: waits, attempts, tool calls, questions, child tasks, its end",
     .details = "Times count from when it was accepted. Many lines of one kind are folded; --events has them all.\n\n"
                "With --json the A2A Task; attempts and their waits stand in its metadata under amp/attempts, the timeline under amp/timeline, the parent under amp/parent. With --events --json one "
                "line per event.\n\nWith --output the files of its answer are written, also long after it has ended: those of a durable task are kept with it. A name that is there already gets a number.\n\n"
                "Examples:\n  amesh task show t-01hq3c\n  amesh task show t-01hq3c --output results\n  amesh task show t-01hq3c --events\n  amesh task show t-01hq3c --tree",
     .options = show_options,
     .run = task_run_show,
     .complete = "tasks"},
    {.name = "task watch",
     .operands = "ID",
     .summary = "print the events of a task, from the first one on, until it ends",
     .details = "With --json one JSON line per event: an A2A StreamResponse and its seq.\n\nA bus or an environment that is away is waited for, without an end: stderr says once that the connection is\nlost, and once that it is back. No event is missing then, and none comes twice.\n\nExamples:\n  amesh task watch t-01hq3c\n  amesh task watch t-01hq3c --from 17 --json",
     .options = watch_options,
     .run = run_watch,
     .complete = "tasks"},
    {.name = "task cancel",
     .operands = "ID",
     .summary = "cancel a task",
     .details = "Exit code 8 if it has already ended.\n\nExamples:\n  amesh task cancel t-01hq3c --reason \"no longer needed\"",
     .options = cancel_options,
     .run = run_cancel,
     .complete = "tasks"},
    {.name = "task retry",
     .operands = "ID",
     .summary = "try a durable task again that failed, was rejected or cancelled; prints the new task's id",
     .details = "What was asked is asked again, in the same conversation, as a new task; its metadata names the old one (amp/retryOf), which is no dead letter any more "
                "(amesh task ls --dead).\n\nExit code 8 if it has not ended, is completed, or was tried again before: the error names that task, which may be tried again in its turn.\n\nExamples:\n  amesh task retry t-01hq3c\n  amesh task watch $(amesh task retry t-01hq3c)",
     .options = no_options,
     .run = run_retry,
     .complete = "tasks"},
    {.name = "task fork",
     .operands = "ID",
     .summary = "go on from an event of a task, as a new one; prints the new task's id",
     .details = "The new task begins with what there was by event SEQ: messages, answers, artifacts (amesh task show ID --events has the numbers). Its agent is called with the same request, "
                "or with --text, whose metadata say where it comes from (amp/forkedFrom); what had been answered by then is answered again in the same way. The task itself stays as it is, "
                "and may be open still.\n\nExit code 4 if there is no such task, 2 if it has no event SEQ.\n\nExamples:\n  amesh task fork t-01hq3c --from 12\n"
                "  amesh task fork t-01hq3c --from 12 --agent other --text \"the same, but in blue\"",
     .options = fork_options,
     .run = task_run_fork,
     .complete = "tasks"},
    {.name = "explain",
     .operands = "TASK",
     .summary = "why a task took as long as it did: who could have taken it, who did and why, what it waited for",
     .details = "Of a task that is not over: what it waits for now, and what would help. Who can do it is told as of now; instances that left more than a minute ago are known only "
                "if they had it.\n\nWith --json one document: `verdict`, `now`, `help`, `time` (ms by kind: planned, queue, pause, lost, questions, children, work, rest), `waits`, "
                "`attempts` with `why`, `children`, `instances`.\n\nExamples:\n  amesh explain t-01hq3c\n  amesh explain t-01hq3c --json",
     .options = no_options,
     .run = explain_run,
     .complete = "tasks"},
    {.name = "history",
     .operands = "CONTEXT",
     .summary = "show a conversation: what was asked and answered in it",
     .details = "Examples:\n  amesh history c-01hq3b\n  amesh history c-01hq3b --limit 3\n  amesh history c-01hq3b --json",
     .options = history_options,
     .run = task_run_history,
     .complete = "contexts"},
    {0},
};
