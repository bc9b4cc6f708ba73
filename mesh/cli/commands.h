/* The commands of this layer, each table ended by a row without a name. */
#pragma once
#include "base/command.h"

extern const struct command ask_commands[];
extern const struct command agent_commands[];   /* ls, show */
extern const struct command task_commands[];    /* task …, history */
extern const struct command schedule_commands[];
extern const struct command inbox_commands[];   /* inbox, answer */
extern const struct command inside_commands[];  /* task emit, task ask */
extern const struct command observe_commands[]; /* tap, check */
extern const struct command kv_commands[];
extern const struct command help_commands[];    /* help, man, completion, version */
