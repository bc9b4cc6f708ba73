/* amesh schedule …: what is asked again and again. It is made by amesh ask --every and --cron. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/agents.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/event.h"
#include "cli/output.h"

struct schedules {
    struct cli cli;
    cJSON *list;
    struct print_table table;
    unsigned count;
};

/* "every 5 min", or the expression with its zone. The caller's. */
static char *rule_text(const Amp__Schedule *schedule)
{
    char every[PRINT_SHORT_SIZE];
    if (schedule->cron != NULL)
        return xasprintf("%s%s%s%s", schedule->cron, schedule->zone != NULL ? " (" : "", schedule->zone != NULL ? schedule->zone : "", schedule->zone != NULL ? ")" : "");
    print_duration(schedule->every_ms, every);
    return xasprintf("every %s", every);
}

static char *target_text(const Amp__Schedule *schedule)
{
    const Amp__Submit *submit = schedule->submit;
    if (submit == NULL)
        return xstrdup("?");
    return submit->agent != NULL ? xstrdup(submit->agent) : xasprintf("skill %s", submit->skill != NULL ? submit->skill : "?");
}

static char *asked_text(const Amp__Schedule *schedule, size_t max)
{
    if (schedule->submit == NULL)
        return xstrdup("");
    char *text = event_message_text(schedule->submit->request->message), *line = print_line(text, max);
    free(text);
    return line;
}

/* "2026-12-01 09:00:00Z (in 3 h)" */
static char *moment_text(const Amp__Timestamp *time)
{
    char text[AMP_TIME_SIZE], away[PRINT_SHORT_SIZE];
    int64_t left_ms = time->unix_ms - clock_unix_ms();
    amp_time_format(time->unix_ms, text);
    text[10] = ' ';
    print_duration(left_ms < 0 ? -left_ms : left_ms, away);
    return xasprintf("%.19sZ (%s%s%s)", text, left_ms < 0 ? "" : "in ", away, left_ms < 0 ? " ago" : "");
}

/* ---- ls ------------------------------------------------------------------------------------------------ */

static int on_list(void *ctx, const Amp__EnvReply *reply)
{
    struct schedules *schedules = ctx;
    for (size_t i = 0; i < reply->n_schedules; i++) {
        const Amp__Schedule *schedule = reply->schedules[i];
        schedules->count++;
        if (schedules->cli.is_json) {
            cJSON_AddItemToArray(schedules->list, agents_message_json(&schedule->base));
            continue;
        }
        char runs[16], skipped[16], missed[16], *rule = rule_text(schedule), *target = target_text(schedule), *text = asked_text(schedule, 60);
        char *next = schedule->next != NULL ? moment_text(schedule->next) : NULL;
        snprintf(runs, sizeof runs, "%u", schedule->runs);
        snprintf(skipped, sizeof skipped, "%u", schedule->skipped);
        snprintf(missed, sizeof missed, "%u", schedule->missed);
        const char *cells[] = {schedule->id, schedule->state, rule, target, next, runs, skipped, missed, text};
        print_table_add(&schedules->table, cells);
        free(rule);
        free(target);
        free(text);
        free(next);
    }
    return 0;
}

static int run_list(const struct command *command, struct command_args *args)
{
    static const char *const columns[] = {"SCHEDULE", "STATE", "WHEN", "AGENT", "NEXT", "RUNS", "SKIPPED", "MISSED", "TEXT"};
    struct schedules schedules = {0};
    Amp__ScheduleCommand op = AMP__SCHEDULE_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    op.op = AMP__SCHEDULE_OP__SCHEDULE_LIST;
    request.verb_case = AMP__ENV_REQUEST__VERB_SCHEDULE;
    request.schedule = &op;
    int status = cli_init(&schedules.cli, command, args);
    if (status == 0)
        status = cli_operands(&schedules.cli, 0, 0);
    if (status == 0)
        status = cli_connect(&schedules.cli);
    print_table_init(&schedules.table, columns, 9);
    schedules.list = cJSON_CreateArray();
    if (status == 0)
        status = cli_request_pages(&schedules.cli, &request, on_list, &schedules);
    if (status == 0 && schedules.cli.is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddItemToObject(json, "schedules", schedules.list);
        schedules.list = NULL;
        output_json(stdout, json);
    } else if (status == 0 && schedules.count == 0) {
        fprintf(stderr, "no schedules. Make one: amesh ask --every 5m AGENT TEXT\n");
    } else if (status == 0) {
        print_table_write(stdout, &schedules.cli.out, &schedules.table, 1);
    }
    cJSON_Delete(schedules.list);
    print_table_done(&schedules.table);
    cli_done(&schedules.cli);
    return status;
}

/* ---- one of them ----------------------------------------------------------------------------------------- */

static void print_field(const struct cli *cli, const char *name, char *text)
{
    if (text != NULL && *text != '\0') {
        char *line = print_line(text, 0);
        printf("%s%-9s%s %s\n", print_on(&cli->out, PRINT_DIM), name, print_off(&cli->out), line);
        free(line);
    }
    free(text);
}

static void print_schedule(const struct cli *cli, const Amp__Schedule *schedule)
{
    const char *state = schedule->state != NULL ? schedule->state : "?";
    printf("%s%s%s  %s%s%s\n", print_on(&cli->out, PRINT_BOLD), schedule->id, print_off(&cli->out), print_on(&cli->out, print_state_color(state)), state,
           print_off(&cli->out));
    print_field(cli, "when", rule_text(schedule));
    print_field(cli, "agent", target_text(schedule));
    print_field(cli, "from", xstrdup(schedule->from != NULL ? schedule->from : ""));
    print_field(cli, "next", schedule->next != NULL ? moment_text(schedule->next) : NULL);
    print_field(cli, "until", schedule->until != NULL ? moment_text(schedule->until) : NULL);
    print_field(cli, "last", schedule->last != NULL ? moment_text(schedule->last) : NULL);
    print_field(cli, "task", xstrdup(schedule->last_task != NULL ? schedule->last_task : ""));
    print_field(cli, "runs", schedule->count > 0 ? xasprintf("%u of %u", schedule->runs, schedule->count) : xasprintf("%u", schedule->runs));
    print_field(cli, "open", schedule->open > 0 ? xasprintf("%u", schedule->open) : NULL);
    print_field(cli, "queued", schedule->n_queued > 0 ? xasprintf("%zu", schedule->n_queued) : NULL);
    print_field(cli, "skipped", schedule->skipped > 0 ? xasprintf("%u", schedule->skipped) : NULL);
    print_field(cli, "missed", schedule->missed > 0 ? xasprintf("%u", schedule->missed) : NULL);
    print_field(cli, "overlap", xstrdup(schedule->overlap != NULL ? schedule->overlap : ""));
    print_field(cli, "note", xstrdup(schedule->note != NULL ? schedule->note : ""));
    print_field(cli, "asks", asked_text(schedule, 200));
}

static int on_shown(void *ctx, const Amp__EnvReply *reply)
{
    const struct cli *cli = ctx;
    if (reply->n_schedules == 0)
        return cli_fail_with(cli, AMP_NOT_FOUND, "there is no schedule %s", cli->args->rest[0]);
    if (cli->is_json)
        return output_message(stdout, &reply->schedules[0]->base) ? 0 : 1;
    print_schedule(cli, reply->schedules[0]);
    return 0;
}

static int on_changed(void *ctx, const Amp__EnvReply *reply)
{
    const struct cli *cli = ctx;
    if (cli->is_json && reply->n_schedules > 0)
        return output_message(stdout, &reply->schedules[0]->base) ? 0 : 1;
    if (cli->is_json)
        printf("{\"id\":\"%s\"}\n", cli->args->rest[0]);
    return 0;
}

static int on_run(void *ctx, const Amp__EnvReply *reply)
{
    const struct cli *cli = ctx;
    if (reply->n_tasks == 0)
        return cli_fail_with(cli, AMP_INTERNAL, "the environment ran it but did not name the task");
    if (cli->is_json)
        return output_message(stdout, &reply->tasks[0]->task->base) ? 0 : 1;
    printf("%s\n", reply->tasks[0]->task->id);
    return 0;
}

static int run_op(const struct command *command, struct command_args *args, Amp__ScheduleOp op, int (*on_reply)(void *ctx, const Amp__EnvReply *reply))
{
    struct cli cli;
    Amp__ScheduleCommand schedule = AMP__SCHEDULE_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 1, 1);
    if (status == 0)
        status = cli_id(&cli, "the schedule", args->rest[0]);
    if (status == 0)
        status = cli_connect(&cli);
    if (status == 0) {
        schedule.op = op;
        schedule.id = (char *)args->rest[0];
        request.verb_case = AMP__ENV_REQUEST__VERB_SCHEDULE;
        request.schedule = &schedule;
        status = cli_request(&cli, &request, on_reply, &cli);
    }
    cli_done(&cli);
    return status;
}

static int run_show(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__SCHEDULE_OP__SCHEDULE_GET, on_shown);
}

static int run_pause(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__SCHEDULE_OP__SCHEDULE_PAUSE, on_changed);
}

static int run_resume(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__SCHEDULE_OP__SCHEDULE_RESUME, on_changed);
}

static int run_rm(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__SCHEDULE_OP__SCHEDULE_REMOVE, on_changed);
}

static int run_run(const struct command *command, struct command_args *args)
{
    return run_op(command, args, AMP__SCHEDULE_OP__SCHEDULE_RUN, on_run);
}

static const struct command_option no_options[] = {{0}};

const struct command schedule_commands[] = {
    {.name = "schedule",
     .operands = "COMMAND",
     .summary = "what is asked again and again: ls, show, pause, resume, rm, run",
     .details = "A schedule is made by amesh ask with --every or --cron; each of its runs is a durable task, which amesh task ls --schedule ID lists.\n\n"
                "Times at which no environment was there are made up for by one run, whose metadata count the others (amp/missed). Times that come while the run before has not "
                "ended are skipped, and counted, unless --overlap says otherwise.\n\n"
                "Where the clocks are changed: a cron expression for every hour goes by what the clocks show; any other runs once at each of its times, also at one that comes twice, "
                "and at the change if the clocks skip it. An interval goes by no clock on the wall.\n\nExamples:\n"
                "  amesh ask --cron \"0 9 * * mon-fri\" --tz Europe/Berlin writer \"the news of the day\"\n  amesh schedule ls\n  amesh schedule pause s-01hq3c",
     .options = no_options},
    {.name = "schedule ls",
     .operands = "",
     .summary = "list schedules",
     .details = "Examples:\n  amesh schedule ls\n  amesh schedule ls --json",
     .options = no_options,
     .run = run_list},
    {.name = "schedule show",
     .operands = "ID",
     .summary = "show a schedule: when, what, how often it ran, was skipped, was missed",
     .details = "Examples:\n  amesh schedule show s-01hq3c --json",
     .options = no_options,
     .run = run_show,
     .complete = "schedules"},
    {.name = "schedule pause",
     .operands = "ID",
     .summary = "hold a schedule: no run is made until it is resumed",
     .details = "What would have run meanwhile is not made up for.\n\nExamples:\n  amesh schedule pause s-01hq3c",
     .options = no_options,
     .run = run_pause,
     .complete = "schedules"},
    {.name = "schedule resume",
     .operands = "ID",
     .summary = "let a schedule run again, from its next time on",
     .details = "Examples:\n  amesh schedule resume s-01hq3c",
     .options = no_options,
     .run = run_resume,
     .complete = "schedules"},
    {.name = "schedule rm",
     .operands = "ID",
     .summary = "remove a schedule; its tasks go on",
     .details = "Examples:\n  amesh schedule rm s-01hq3c",
     .options = no_options,
     .run = run_rm,
     .complete = "schedules"},
    {.name = "schedule run",
     .operands = "ID",
     .summary = "run a schedule once, now; prints the task's id",
     .details = "Also if it is paused, or a run of it is open; its times stay as they are.\n\nExamples:\n  amesh task watch $(amesh schedule run s-01hq3c)",
     .options = no_options,
     .run = run_run,
     .complete = "schedules"},
    {0},
};
