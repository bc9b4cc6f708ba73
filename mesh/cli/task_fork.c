/* amesh task fork: a new task that goes on from an event of another one. */
#include <string.h>

#include "cli/agents.h"
#include "cli/message.h"
#include "cli/output.h"
#include "cli/task.h"

#define RETRIES 5

static int read_message(struct cli *cli, struct amp_arena *arena, Amp__Message **ret)
{
    struct message_source source = {.text = command_value(cli->command, cli->args, "text")};
    struct amp_error err = {0};
    if (source.text == NULL || message_make(&source, arena, ret, &err) == AMP_OK)
        return 0;
    return cli_fail(cli, &err, NULL);
}

static int read_fork(struct cli *cli, struct amp_arena *arena, Amp__Fork *fork)
{
    int status = cli_operands(cli, 1, 1);
    if (status == 0)
        status = cli_id(cli, "the task", cli->args->rest[0]);
    if (status == 0 && command_value(cli->command, cli->args, "from") == NULL)
        return cli_usage(cli, "--from SEQ is missing: the last event that the new task has in common with this one (amesh task show ID --events)");
    if (status == 0)
        status = cli_number(cli, "from", 1, UINT32_MAX, &fork->seq);
    fork->id = (char *)cli->args->rest[0];
    fork->agent = (char *)command_value(cli->command, cli->args, "agent");
    fork->has_same_context = fork->same_context = command_flag(cli->command, cli->args, "same-context");
    if (status == 0 && fork->agent != NULL)
        status = cli_id(cli, "the agent", fork->agent);
    return status != 0 ? status : read_message(cli, arena, &fork->message);
}

/* Who is told to come back does, a few times. */
static int request_fork(struct cli *cli, Amp__Fork *fork)
{
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct amp_error err;
    request.verb_case = AMP__ENV_REQUEST__VERB_FORK;
    request.fork = fork;
    int status = cli_ask_env(cli, &request, task_on_accepted, cli, &err);
    for (int i = 0; i < RETRIES && err.code == AMP_OVERLOADED && err.retry_after_ms > 0; i++) {
        cli_pause(cli, err.retry_after_ms);
        status = cli_ask_env(cli, &request, task_on_accepted, cli, &err);
    }
    return err.code == AMP_OK ? status : cli_fail(cli, &err, NULL);
}

int task_run_fork(const struct command *command, struct command_args *args)
{
    struct cli cli;
    struct amp_arena arena;
    Amp__Fork fork = AMP__FORK__INIT;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = read_fork(&cli, &arena, &fork);
    if (status == 0)
        status = cli_connect(&cli);
    if (status == 0)
        status = request_fork(&cli, &fork);
    cli_done(&cli);
    amp_arena_done(&arena);
    return status;
}
