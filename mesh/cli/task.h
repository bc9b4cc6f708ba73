/* Parts of `amesh task …`: task.c has the commands, task_show.c one task with all that happened in it. */
#pragma once
#include "cli/context.h"

int task_run_show(const struct command *command, struct command_args *args);
int task_run_fork(const struct command *command, struct command_args *args);
int task_run_history(const struct command *command, struct command_args *args);
/* For cli_request, whose ctx is the cli: tells the new task that was accepted. */
int task_on_accepted(void *ctx, const Amp__EnvReply *reply);
/* "agent up", "skill shout", "?" in a caller's buffer. */
void task_target(const Amp__TaskRecord *record, char *ret, size_t size);
Amp__TaskState cli_task_state(const Amp__TaskRecord *record);
/* What was asked, on one line. The caller's. */
char *task_request_text(const Amp__TaskRecord *record, size_t max);
