/* amesh inbox (inbox.c) and amesh answer (reply.c). */
#pragma once
#include <amp/amp.h>

#include "base/command.h"

struct cJSON;

/* As in `amesh inbox --json`. The caller's. */
struct cJSON *inbox_json(const Amp__Question *question);
int inbox_run_answer(const struct command *command, struct command_args *args);
extern const struct command_option answer_options[];
