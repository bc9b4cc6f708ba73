/* The commands of this layer. Ended by a row without name. */
#pragma once
#include "base/command.h"

/* Of what runs an environment. */
#define ENV_RETAIN_OPTIONS \
    {.name = "retain-age", .arg = "AGE", .help = "tasks that ended longer ago are removed from history, e.g. 30d (default: never)"}, \
    {.name = "retain-bytes", .arg = "SIZE", .help = "and the oldest ended ones while the journal uses more, e.g. 10G (default: no bound)"}

extern const struct command env_commands[];
extern const struct command journal_commands[]; /* env verify … */
