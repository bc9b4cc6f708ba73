/* Parts of `amesh task …`: task.c has the commands, task_show.c one task with all that happened in it, task_tree.c the tree it stands in. */
#pragma once
#include "cli/context.h"

#define TASK_TREE_MAX 500u          /* tasks of a tree that are shown, and */
#define TASK_TREE_CHILDREN_MAX 100u /* of one parent */

struct cJSON;
/* The whole tree in which a task stands. Exit code; *ret is to be freed in any case. */
struct task_tree;
int task_tree_read(struct cli *cli, const char *id, struct task_tree **ret);
void task_tree_free(struct task_tree *tree);
void task_tree_print(const struct task_tree *tree);
struct cJSON *task_tree_json(const struct task_tree *tree); /* the caller's */

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
