/* The commands of this layer. Ended by a row without name. */
#pragma once
#include "base/command.h"

extern const struct command env_commands[];
extern const struct command journal_commands[]; /* env verify … */
