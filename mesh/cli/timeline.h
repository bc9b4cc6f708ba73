/* What happened to one task, as one line per thing that happened: waits, attempts, tool calls, questions, child tasks, the end. Built from its record, its events in
 * order, its child tasks and its agents' deaths; printed, or given as JSON (amp.md 10.12.4). Bounded however many events there are: runs of one kind are folded. */
#pragma once
#include <amp/amp.h>
#include <stdio.h>

struct cJSON;
struct print_style;

#define TIMELINE_ITEMS_MAX 2000u /* then only the end is added, and what is left out is counted */
#define TIMELINE_RUN_MAX 8u      /* of one kind in a row, and */
#define TIMELINE_KIND_MAX 200u   /* of one kind in all, that are shown one by one */
#define TIMELINE_DETAILS_MAX 5u  /* lines of a death report */
#define TIMELINE_SAME_MS 50      /* between two waits of one reason, which are one */

struct timeline;
struct timeline *timeline_new(void);
void timeline_free(struct timeline *timeline);

/* Once, first: who asked, the waits, the attempts. Borrowed until the call returns, like all that follows. */
void timeline_record(struct timeline *timeline, const Amp__TaskRecord *record);
void timeline_event(struct timeline *timeline, uint32_t seq, int64_t unix_ms, const Amp__StreamResponse *body);
void timeline_child(struct timeline *timeline, const Amp__TaskRecord *child);
/* The attempt that it ended gets its lines. Nothing if it ended none of this task. */
void timeline_death(struct timeline *timeline, const Amp__Death *death);

/* In the order in which it happened. Text of agents is sanitised and cut to the style's width. */
void timeline_print(FILE *to, const struct print_style *style, struct timeline *timeline);
/* [{"at","what","text","durationMs","seq","count", …}]. The caller's. */
struct cJSON *timeline_json(struct timeline *timeline);
/* Agents whose deaths matter here: of attempts that ended badly, each once. At most `max` names, borrowed. */
size_t timeline_agents(const struct timeline *timeline, const char **ret, size_t max);
