/* amesh up, amesh down: what one host needs, in one process. They see several layers, so they live beside main.c. */
#pragma once
#include "base/command.h"

extern const struct command up_commands[];
