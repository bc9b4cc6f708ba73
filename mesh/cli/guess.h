/* What was perhaps meant by a name that nobody has. Asked only when something went wrong already, and not for long. */
#pragma once
#include "cli/context.h"

/* Prints `err` (nobody has the name `agent`, or, if that is NULL, the skill `skill`) with "did you mean …?" where the environment knows a name like it. Exit code. */
int guess_fail(struct cli *cli, struct amp_error *err, const char *agent, const char *skill);
