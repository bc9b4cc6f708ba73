/* Parts of the observing commands. */
#pragma once
#include "cli/context.h"

int observe_run_tap(const struct command *command, struct command_args *args);
int observe_run_check(const struct command *command, struct command_args *args);
