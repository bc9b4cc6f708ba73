/* amesh help, amesh version, and the table of the commands that come from the tables. */
#include "cli/help.h"

#include <cjson/cJSON.h>
#include "cli/commands.h"
#include "cli/output.h"

size_t help_commands_list(const struct command **ret, size_t max)
{
    size_t count = 0;
    for (const struct command *const *tables = command_tables(); *tables != NULL; tables++) {
        for (const struct command *row = *tables; row->name != NULL && count < max; row++) {
            if (!row->is_hidden)
                ret[count++] = row;
        }
    }
    return count;
}

static int print_list_json(void)
{
    const struct command *commands[HELP_COMMANDS_MAX];
    size_t count = help_commands_list(commands, HELP_COMMANDS_MAX);
    cJSON *json = cJSON_CreateObject(), *array = cJSON_AddArrayToObject(json, "commands");
    for (size_t i = 0; i < count; i++) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "name", commands[i]->name);
        cJSON_AddStringToObject(object, "operands", commands[i]->operands != NULL ? commands[i]->operands : "");
        cJSON_AddStringToObject(object, "summary", commands[i]->summary);
        cJSON_AddItemToArray(array, object);
    }
    output_json(stdout, json);
    return 0;
}

/* `help X` is `X --help`, `help` is `amesh --help`: one text. */
static int run_help(const struct command *command, struct command_args *args)
{
    struct cli cli;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 0, 2);
    cli_done(&cli);
    if (status == 0 && cli.is_json && args->n_rest == 0)
        return print_list_json();
    const struct command *row = status == 0 && args->n_rest > 0 ? command_named(args->rest, args->n_rest, cli.is_json, &status) : NULL;
    if (status == 0)
        command_print_help(stdout, row);
    return status;
}

static int run_version(const struct command *command, struct command_args *args)
{
    struct cli cli;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 0, 0);
    if (status == 0 && cli.is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddStringToObject(json, "version", amp_version());
        cJSON_AddNumberToObject(json, "protocol", AMP_PROTOCOL_VERSION);
        output_json(stdout, json);
    } else if (status == 0) {
        printf("amesh %s (Agent Protocol %u)\n", amp_version(), AMP_PROTOCOL_VERSION);
    }
    cli_done(&cli);
    return status;
}

static const struct command_option no_options[] = {{0}};

const struct command help_commands[] = {
    {.name = "version",
     .operands = "",
     .summary = "print the version",
     .details = "Examples:\n  amesh version --json",
     .options = no_options,
     .run = run_version},
    {.name = "completion",
     .operands = "bash|zsh|fish",
     .summary = "print the completion script of a shell",
     .details = "Examples:\n  amesh completion bash > ~/.local/share/bash-completion/completions/amesh\n  amesh completion zsh > \"${fpath[1]}/_amesh\"\n  amesh completion fish > "
                "~/.config/fish/completions/amesh.fish",
     .options = no_options,
     .run = help_run_completion,
     .complete = "bash|zsh|fish"},
    {.name = "help",
     .operands = "[COMMAND]",
     .summary = "explain a command, or list them",
     .details = "Examples:\n  amesh help ask",
     .options = no_options,
     .run = run_help,
     .complete = "commands"},
    {.name = "man", .operands = "", .summary = "print the manual page", .options = no_options, .run = help_run_man, .is_hidden = true},
    {.name = "__complete",
     .operands = "[--] WORD…",
     .summary = "print what may stand for the last word of a command line",
     .options = no_options,
     .run = help_run_complete,
     .is_hidden = true},
    {0},
};
