/* The command `amesh mockllm`. Ended by a row without name. */
#pragma once
#include "base/command.h"

extern const struct command mockllm_commands[];
