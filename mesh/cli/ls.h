/* What `amesh ls` shows, once or again after each change (ls_watch.c). */
#pragma once
#include "cli/context.h"
#include "cli/print.h"

struct cJSON;

struct ls_list { /* being made: one of the two */
    struct cJSON *agents;
    struct print_table table;
};

void ls_list_begin(struct ls_list *list);
void ls_list_add(struct ls_list *list, const struct cli *cli, const Amp__AgentRecord *record);
/* And ends it. is_of_a_kind: there may be others, which were not asked for. */
void ls_list_print(struct ls_list *list, const struct cli *cli, bool is_of_a_kind);
bool ls_is_of_a_kind(const Amp__AgentQuery *query);

/* Connects, and shows who matches until it is interrupted. Returns the exit status. `query` is written to meanwhile: name and page_token. */
int ls_watch(struct cli *cli, Amp__AgentQuery *query);
