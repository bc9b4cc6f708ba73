/* The program `amesh`: the only place that sees every layer. */
#include <stddef.h>

#include "base/command.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "env/commands.h"
#include "mockllm/mockllm.h"
#include "sidecar/commands.h"
#include "up.h"

int main(int argc, char **argv)
{
    static const struct command *const tables[] = {
        up_commands,       sidecar_commands, env_commands,     journal_commands, ask_commands,  agent_commands, task_commands,
        schedule_commands, kv_commands,      observe_commands, inside_commands,  help_commands, inbox_commands, mockllm_commands,
        NULL,
    };
    return output_finish(command_main(tables, argc, argv));
}
