/* amesh help, amesh version, and the table of the commands that come from the tables. */
#include "cli/help.h"

#include <cjson/cJSON.h>
#include <string.h>

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

static cJSON *summary_json(const struct command *row)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", row->name);
    cJSON_AddStringToObject(object, "operands", row->operands != NULL ? row->operands : "");
    cJSON_AddStringToObject(object, "summary", row->summary);
    return object;
}

static void add_options(cJSON *array, const struct command_option *option)
{
    for (; option != NULL && option->name != NULL; option++) {
        char name[64], letter[3] = {'-', option->letter, '\0'};
        cJSON *object = cJSON_CreateObject();
        snprintf(name, sizeof name, "--%s", option->name);
        cJSON_AddStringToObject(object, "name", name);
        if (option->letter != 0)
            cJSON_AddStringToObject(object, "letter", letter);
        if (option->arg != NULL)
            cJSON_AddStringToObject(object, "argument", option->arg);
        cJSON_AddStringToObject(object, "help", option->help);
        cJSON_AddBoolToObject(object, "repeatable", option->is_repeatable);
        cJSON_AddItemToArray(array, object);
    }
}

/* All commands (NULL), or those that begin with the name of a group. */
static void add_commands(cJSON *json, const struct command *group)
{
    const struct command *commands[HELP_COMMANDS_MAX];
    size_t count = help_commands_list(commands, HELP_COMMANDS_MAX), len = group != NULL ? strlen(group->name) : 0;
    cJSON *array = cJSON_AddArrayToObject(json, "commands");
    for (size_t i = 0; i < count; i++) {
        if (group == NULL || (strncmp(commands[i]->name, group->name, len) == 0 && commands[i]->name[len] == ' '))
            cJSON_AddItemToArray(array, summary_json(commands[i]));
    }
}

static void print_json(const struct command *row)
{
    cJSON *json = row != NULL ? summary_json(row) : cJSON_CreateObject();
    if (row != NULL) {
        cJSON_AddStringToObject(json, "details", row->details != NULL ? row->details : "");
        cJSON *options = cJSON_AddArrayToObject(json, "options");
        add_options(options, row->options);
        add_options(options, command_common_options());
    }
    if (row == NULL || command_is_group(row))
        add_commands(json, row);
    output_json(stdout, json);
}

/* `help X` is `X --help`, `help` is `amesh --help`: one text. */
static int run_help(const struct command *command, struct command_args *args)
{
    struct cli cli;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 0, 2);
    cli_done(&cli);
    const struct command *row = status == 0 && args->n_rest > 0 ? command_named(args->rest, args->n_rest, cli.is_json, &status) : NULL;
    if (status == 0 && cli.is_json)
        print_json(row);
    else if (status == 0)
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
     .operands = "[NAME…]",
     .summary = "explain a command, or list them",
     .details = "With --json as a document: options and examples too.\n\nExamples:\n  amesh help ask\n  amesh help task show --json",
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
