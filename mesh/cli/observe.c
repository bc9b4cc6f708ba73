/* The table of the observing commands. */
#include "cli/observe.h"

#include "cli/commands.h"

static const struct command_option tap_options[] = {
    {.name = "count", .letter = 'n', .arg = "N", .help = "end after N events"},
    {0},
};
static const struct command_option check_options[] = {
    {.name = "wait", .letter = 'w', .arg = "TIME", .help = "try again until all is well, at most this long"},
    {0},
};

const struct command observe_commands[] = {
    {.name = "tap",
     .operands = "[AGENT]",
     .summary = "print the events of all tasks, or of an agent's tasks, while they happen",
     .details = "With --json one JSON line per event: an A2A StreamResponse with seq, time, agent, instance, taskId and contextId beside it.\n\n"
                "No event is shown twice. When the bus was away stderr says so, once; events that are missing from a task that was seen before are named, history has them.\n\n"
                "Examples:\n  amesh tap\n  amesh tap up --count 10 --json",
     .options = tap_options,
     .run = observe_run_tap,
     .complete = "agents"},
    {.name = "check",
     .operands = "",
     .summary = "find out whether the mesh works, and what to do if not",
     .details = "Checks home, bus, server, JetStream, environment, journal (a value is written and read back), agents and clock. Exit code 3 if one fails.\n\n"
                "Examples:\n  amesh check\n  amesh check --wait 30s --json",
     .options = check_options,
     .run = observe_run_check},
    {0},
};
