/* The commands of this layer. Ended by a row without name. */
#pragma once
#include "base/command.h"

extern const struct command env_commands[];
