/* What parsing (command.c) and its errors and help (command_help.c) share. */
#pragma once
#include "base/command.h"

#define COMMAND_OPTIONS_MAX 64u

/* The command's own options, then the common ones. Returns how many; ret has room for COMMAND_OPTIONS_MAX. */
size_t command_options(const struct command *command, const struct command_option **ret);

/* Prints a usage error on stderr and returns its exit code. `word` is what was not understood, `guess` what may have been meant (or NULL),
 * `command` the row it was about (or NULL). */
int command_usage_error(bool is_json, const struct command *command, const char *what, const char *word, const char *guess);
