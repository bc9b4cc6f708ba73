/* Parts of the commands that come from the table of commands: help.c, man.c, completion.c. */
#pragma once
#include "cli/context.h"

/* Every command that is shown, in order of the tables. */
size_t help_commands_list(const struct command **ret, size_t max);
#define HELP_COMMANDS_MAX 64

int help_run_man(const struct command *command, struct command_args *args);
int help_run_completion(const struct command *command, struct command_args *args);
int help_run_complete(const struct command *command, struct command_args *args); /* hidden: names for the scripts */
