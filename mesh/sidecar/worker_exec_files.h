/* Files in and out of a program that is run once per task. */
#pragma once
#include <amp/amp.h>

struct sidecar;
struct task;

/* Makes the task's directories and replaces the two entries of its environment, "AMESH_IN=…" (one empty directory for all tasks without files; without a spool, a path that nothing can be below) and "AMESH_OUT=…". Fails only if there are files that cannot be put there. */
AMP_MUST_USE enum amp_code exec_files_begin(struct sidecar *sidecar, struct task *task, char **env_in, char **env_out, struct amp_error *reterr);
/* The program ended well: what lies in its AMESH_OUT (`directory`; "": none) becomes artifacts, in the order of the names. An error has ended the task, or is to. */
AMP_MUST_USE enum amp_code exec_files_give(struct task *task, const char *directory, struct amp_error *reterr);
