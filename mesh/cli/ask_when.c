/* amesh ask: --at and --in, --every and --cron. */
#include <string.h>

#include "base/clock.h"
#include "base/zone.h"
#include "cli/ask.h"
#include "cli/output.h"

static const char *value(const struct ask *ask, const char *option)
{
    return command_value(ask->cli.command, ask->cli.args, option);
}

static int read_moment(struct ask *ask, const char *option, struct moment *ret)
{
    const char *text = value(ask, option);
    struct zone *zone = NULL;
    struct amp_error err = {0}, said = {0};
    if (text == NULL)
        return 0;
    enum amp_code code = zone_open(ask->when.zone, &zone, &err);
    if (code == AMP_OK)
        code = moment_parse(text, clock_unix_ms(), zone, ret, &err);
    zone_free(zone);
    if (code == AMP_OK)
        return 0;
    amp_error_set(&said, AMP_INVALID, "", "--%s: %s", option, err.message);
    amp_error_hint(&said, "%s", err.hint);
    return cli_fail(&ask->cli, &said, NULL);
}

bool ask_is_schedule(const struct ask *ask)
{
    return ask->when.every_ms > 0 || ask->when.cron != NULL;
}

/* What cannot go together. 0, or the exit code. */
static int check(struct ask *ask)
{
    static const char *const of_schedules[] = {"overlap", "count", "until"};
    const struct ask_when *when = &ask->when;
    const struct cli *cli = &ask->cli;
    if (when->every_ms > 0 && when->cron != NULL)
        return cli_usage(cli, "--every and --cron exclude each other");
    for (size_t i = 0; i < sizeof of_schedules / sizeof *of_schedules && !ask_is_schedule(ask); i++)
        if (value(ask, of_schedules[i]) != NULL)
            return cli_usage(cli, "--%s belongs to --every or --cron", of_schedules[i]);
    if (when->zone != NULL && when->cron == NULL && value(ask, "at") == NULL && value(ask, "until") == NULL)
        return cli_usage(cli, "--tz belongs to --at, --cron or --until");
    if ((when->at.unix_ms > 0 || ask_is_schedule(ask)) && value(ask, "task") != NULL)
        return cli_usage(cli, "an answer is given at once: --at, --in, --every and --cron are for new tasks");
    return 0;
}

int ask_read_when(struct ask *ask)
{
    struct ask_when *when = &ask->when;
    struct moment until = {0};
    uint32_t in_ms = 0;
    when->zone = value(ask, "tz");
    when->cron = value(ask, "cron");
    when->overlap = value(ask, "overlap");
    if (when->zone != NULL && *when->zone == '\0') /* an empty variable of a script, which should not mean the clocks of whoever runs it */
        return cli_usage(&ask->cli, "--tz must name a time zone, such as Europe/Berlin or UTC");
    int status = read_moment(ask, "at", &when->at);
    if (status == 0)
        status = cli_duration(&ask->cli, "in", &in_ms);
    if (status == 0)
        status = cli_duration(&ask->cli, "every", &when->every_ms);
    if (status == 0)
        status = cli_number(&ask->cli, "count", 1, UINT32_MAX, &when->count);
    if (status == 0)
        status = read_moment(ask, "until", &until);
    if (status != 0)
        return status;
    when->until_unix_ms = until.unix_ms;
    if (in_ms > 0 && when->at.unix_ms > 0)
        return cli_usage(&ask->cli, "--at and --in exclude each other");
    if (in_ms > 0)
        when->at = (struct moment){.unix_ms = clock_unix_ms() + in_ms, .in_ms = in_ms};
    return check(ask);
}

int ask_fail(const struct ask *ask, const struct amp_error *err)
{
    static const struct {
        const char *field, *option;
    } fields[] = {{"every_ms", "every"}, {"everyMs", "every"}, {"cron", "cron"},   {"zone", "tz"}, {"overlap", "overlap"}, {"count", "count"}, {"until", "until"}, {"not_before", "at"}, {"notBefore", "at"},
                  {"delay_ms", "in"},    {"delayMs", "in"},    {"timeout_ms", "timeout"}, {"timeoutMs", "timeout"}, {"key", "key"}, {"retry", "retry"}, {"context_id", "context"}, {"contextId", "context"}};
    const char *last = strrchr(err->field, '.');
    struct amp_error said = *err;
    last = last != NULL ? last + 1 : err->field;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const char *given = value(ask, fields[i].option);
        if (given == NULL || strcmp(fields[i].field, last) != 0)
            continue;
        if (strstr(err->message, given) != NULL)
            amp_error_set(&said, err->code, err->field, "--%s: %.400s", fields[i].option, err->message);
        else
            amp_error_set(&said, err->code, err->field, "--%s %.60s: %.400s", fields[i].option, given, err->message);
        amp_error_hint(&said, "%s", err->hint);
        said.retry_after_ms = err->retry_after_ms;
        break;
    }
    ask_files_explain(ask, &said);
    return cli_fail(&ask->cli, &said, NULL);
}

/* ---- again and again ------------------------------------------------------------------------------------- */

static int on_made(void *ctx, const Amp__EnvReply *reply)
{
    struct ask *ask = ctx;
    if (reply->n_schedules == 0 || reply->schedules[0]->id == NULL)
        return cli_fail_with(&ask->cli, AMP_INTERNAL, "the environment made the schedule but did not name it");
    const Amp__Schedule *schedule = reply->schedules[0];
    if (ask->cli.is_json)
        return output_message(stdout, &schedule->base) ? 0 : 1;
    printf("%s\n", schedule->id);
    (void)output_is_lost(); /* flushed: the id comes first */
    if (schedule->next != NULL) {
        char next[AMP_TIME_SIZE];
        amp_time_format(schedule->next->unix_ms, next);
        fprintf(stderr, "runs first at %.19sZ. To see its runs: amesh task ls --schedule %s\n", next, schedule->id);
    }
    return 0;
}

/* With files it is told to come back while they are fetched, for as long as they come: one that does not come any more is an error. */
static int make_schedule(struct ask *ask, const Amp__EnvRequest *request, struct amp_error *reterr)
{
    int status;
    for (;;) {
        *reterr = (struct amp_error){0};
        status = cli_ask_env(&ask->cli, request, on_made, ask, reterr);
        if (reterr->code != AMP_OVERLOADED || reterr->retry_after_ms == 0 || !amp_message_has_blob(ask->message))
            return status;
        cli_pause(&ask->cli, reterr->retry_after_ms);
    }
}

int ask_schedule(struct ask *ask)
{
    const struct ask_when *when = &ask->when;
    Amp__Timestamp not_before = AMP__TIMESTAMP__INIT, until = AMP__TIMESTAMP__INIT;
    Amp__Request task = AMP__REQUEST__INIT;
    Amp__Submit submit = AMP__SUBMIT__INIT;
    Amp__Schedule schedule = AMP__SCHEDULE__INIT;
    Amp__ScheduleCommand command = AMP__SCHEDULE_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    char none[] = "";
    task.task_id = none;
    task.context_id = ask->context_id;
    task.message = ask->message;
    task.has_timeout_ms = ask->timeout_ms > 0;
    task.timeout_ms = ask->timeout_ms;
    submit.agent = (char *)ask->agent;
    submit.skill = (char *)ask->skill;
    submit.key = (char *)ask->key;
    submit.retry = (char *)ask->retry;
    submit.request = &task;
    not_before.unix_ms = when->at.unix_ms;
    until.unix_ms = when->until_unix_ms;
    schedule.cron = (char *)when->cron;
    schedule.zone = (char *)(when->cron != NULL ? when->zone : NULL);
    schedule.has_every_ms = when->every_ms > 0;
    schedule.every_ms = when->every_ms;
    schedule.overlap = (char *)when->overlap;
    schedule.has_count = when->count > 0;
    schedule.count = when->count;
    schedule.until = until.unix_ms > 0 ? &until : NULL;
    schedule.not_before = not_before.unix_ms > 0 ? &not_before : NULL;
    schedule.submit = &submit;
    command.op = AMP__SCHEDULE_OP__SCHEDULE_ADD;
    command.schedule = &schedule;
    request.verb_case = AMP__ENV_REQUEST__VERB_SCHEDULE;
    request.schedule = &command;
    char id[AMP_ID_SIZE];
    amp_id_new('s', clock_unix_ms(), id);
    schedule.id = id; /* so that it can be asked again */
    struct amp_error err = {0};
    int status = make_schedule(ask, &request, &err);
    return err.code == AMP_OK ? status : ask_fail(ask, &err);
}
