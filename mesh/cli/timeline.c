#include "cli/timeline.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/error.h"
#include "cli/event.h"
#include "cli/json.h"
#include "cli/task.h"
#include "cli/timeline_private.h"

/* ---- items ----------------------------------------------------------------------------------------------- */

struct timeline *timeline_new(void)
{
    struct timeline *timeline = xcalloc(1, sizeof *timeline);
    timeline->last_kind = TIMELINE_KINDS;
    return timeline;
}

static void item_done(struct item *item)
{
    free(item->text);
    free(item->key);
    for (size_t i = 0; i < item->n_details; i++)
        free(item->details[i]);
}

void timeline_free(struct timeline *timeline)
{
    if (timeline == NULL)
        return;
    for (size_t i = 0; i < timeline->count; i++)
        item_done(&timeline->items[i]);
    free(timeline->items);
    free(timeline);
}

struct item *timeline_add(struct timeline *timeline, enum timeline_kind kind, int64_t unix_ms, char *text)
{
    if (timeline->count == timeline->cap) {
        timeline->cap = timeline->cap != 0 ? timeline->cap * 2 : 32;
        timeline->items = xrealloc(timeline->items, timeline->cap * sizeof *timeline->items);
    }
    struct item *item = &timeline->items[timeline->count++];
    *item = (struct item){.kind = kind, .at_unix_ms = unix_ms, .order = (uint32_t)timeline->count, .count = 1};
    item->text = text;
    return item;
}

/* Is there room for one more of its own, or is it counted with others of its kind? */
static bool is_folded(struct timeline *timeline, enum timeline_kind kind)
{
    timeline->run = timeline->last_kind == kind ? timeline->run + 1 : 1;
    timeline->last_kind = kind;
    timeline->kinds[kind]++;
    bool is_told = kind == TIMELINE_QUESTION || kind == TIMELINE_ANSWER || kind == TIMELINE_CLOSED || kind == TIMELINE_RETRY;
    return timeline->count >= TIMELINE_ITEMS_MAX || (!is_told && (timeline->run > TIMELINE_RUN_MAX || timeline->kinds[kind] > TIMELINE_KIND_MAX));
}

/* What is one of too many: the last line of its kind counts it. NULL: it was folded. Takes the text over. */
struct item *timeline_add_or_fold(struct timeline *timeline, enum timeline_kind kind, int64_t unix_ms, char *text)
{
    if (!is_folded(timeline, kind))
        return timeline_add(timeline, kind, unix_ms, text);
    for (size_t i = timeline->count; i > 0; i--) {
        struct item *item = &timeline->items[i - 1];
        if (item->kind != kind)
            continue;
        item->n_more++;
        item->more_until_unix_ms = unix_ms;
        break;
    }
    free(text);
    return NULL;
}

struct item *timeline_find(struct timeline *timeline, enum timeline_kind kind, const char *key)
{
    for (size_t i = timeline->count; i > 0 && *key != '\0'; i--) {
        struct item *item = &timeline->items[i - 1];
        if (item->kind == kind && item->key != NULL && item->until_unix_ms == 0 && strcmp(item->key, key) == 0)
            return item;
    }
    return NULL;
}

/* ---- the record -------------------------------------------------------------------------------------------- */

/* Before the attempt `slot`. */
static void add_waits(struct timeline *timeline, const cJSON *waits, uint32_t slot, bool is_now)
{
    const cJSON *wait = NULL;
    struct item *item = NULL;
    cJSON_ArrayForEach(wait, waits) {
        int64_t from = json_time_of(wait, "from");
        const char *reason = json_text_of(wait, "reason");
        if (item == NULL || strcmp(item->text, reason) != 0 || from - item->until_unix_ms > TIMELINE_SAME_MS) /* else the same wait, looked at again in between */
            item = timeline_add(timeline, TIMELINE_WAIT, from, xstrdup(reason));
        item->until_unix_ms = json_time_of(wait, "to");
        item->slot = slot;
        item->is_open = is_now && wait->next == NULL;
    }
}

static void add_aways(struct timeline *timeline, const cJSON *aways, uint32_t slot)
{
    const cJSON *away = NULL;
    cJSON_ArrayForEach(away, aways) {
        struct item *item = timeline_add(timeline, TIMELINE_AWAY, json_time_of(away, "from"), xstrdup(json_text_of(away, "reason")));
        item->until_unix_ms = json_time_of(away, "to");
        item->slot = slot;
    }
}

/* Who had it; how it ended is the line's own place in time if it did not end the task well. */
static void add_attempt(struct timeline *timeline, const cJSON *attempt)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(attempt, "attempt");
    const char *instance = json_text_of(attempt, "instance"), *host = json_text_of(attempt, "host"), *outcome = json_text_of(attempt, "outcome");
    int64_t started = json_time_of(attempt, "startedAt"), ended = json_time_of(attempt, "endedAt");
    uint32_t slot = ++timeline->n_attempts;
    if (slot == 1)
        timeline->first_number = cJSON_IsNumber(number) ? number->valueint : 0;
    add_waits(timeline, cJSON_GetObjectItemCaseSensitive(attempt, "waits"), slot, false);
    if (started != 0) {
        timeline->n_begun = slot;
        struct item *item = timeline_add(timeline, TIMELINE_ATTEMPT, started, xasprintf("%s%s%s", instance, *host != '\0' ? " on " : "", host));
        item->number = cJSON_IsNumber(number) ? number->valueint : 0;
        item->until_unix_ms = ended;
        item->slot = slot;
        item->is_open = ended == 0;
        add_aways(timeline, cJSON_GetObjectItemCaseSensitive(attempt, "away"), slot);
    }
    if (json_time_of(attempt, "canceledAt") != 0)
        timeline_add(timeline, TIMELINE_CANCEL, json_time_of(attempt, "canceledAt"), xstrdup("its end was asked for"));
    if (started == 0 && (!cJSON_IsNumber(number) || number->valueint == 0))
        return; /* journals of before have attempts that nobody had */
    if (ended == 0 || strcmp(outcome, "completed") == 0)
        return;
    const char *reason = json_text_of(attempt, "reason");
    bool is_canceled = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(attempt, "canceled"));
    struct item *item = timeline_add(timeline, TIMELINE_ATTEMPT_END, ended, xasprintf("%s%s%s%s", outcome, *reason != '\0' ? ": " : "", reason, is_canceled ? " (its cancel was asked for)" : ""));
    item->number = cJSON_IsNumber(number) ? number->valueint : 0;
    item->slot = slot;
    item->key = xstrdup(instance);
    snprintf(item->agent, sizeof item->agent, "%s", json_text_of(attempt, "agent"));
    item->is_bad = true;
}

static void add_ignored(struct timeline *timeline, const cJSON *ignored)
{
    const char *state = json_text_of(ignored, "state"), *answer = json_text_of(ignored, "answer");
    int64_t at = json_time_of(ignored, "at");
    char *text = xasprintf("%s came too late, its lease was over; it says %s%s%s", json_text_of(ignored, "instance"), state, *answer != '\0' ? ": " : "", answer);
    timeline_add(timeline, TIMELINE_IGNORED, at != 0 ? at : timeline->start_unix_ms, text);
}

void timeline_record(struct timeline *timeline, const Amp__TaskRecord *record)
{
    const Amp__Task *task = record->task;
    cJSON *metadata = NULL;
    const cJSON *item = NULL;
    snprintf(timeline->task, sizeof timeline->task, "%s", task->id);
    timeline->start_unix_ms = record->submitted != NULL ? record->submitted->unix_ms : record->started != NULL ? record->started->unix_ms : 0;
    timeline->end_unix_ms = record->ended != NULL ? record->ended->unix_ms : 0;
    timeline_add(timeline, TIMELINE_ACCEPTED, timeline->start_unix_ms, xasprintf("%s%s%s", record->durable ? "on the disk" : "a direct call", record->from != NULL ? ", asked by " : "", record->from != NULL ? record->from : ""));
    if (task->metadata == NULL || amp_json_parse((struct amp_bytes){task->metadata->text.data, task->metadata->text.len}, &metadata, NULL) != AMP_OK)
        return;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(metadata, "amp/attempts")) {
        add_attempt(timeline, item);
        const cJSON *ignored = NULL;
        cJSON_ArrayForEach(ignored, cJSON_GetObjectItemCaseSensitive(item, "ignored"))
            add_ignored(timeline, ignored);
    }
    add_waits(timeline, cJSON_GetObjectItemCaseSensitive(metadata, "amp/waits"), timeline->n_begun + 1, record->ended == NULL);
    cJSON_Delete(metadata);
}

void timeline_child(struct timeline *timeline, const Amp__TaskRecord *child)
{
    char target[96];
    task_target(child, target, sizeof target);
    char *asked = task_request_text(child, 60);
    char *text = xasprintf("%s %s  %s%s%s", target, amp_task_state_short(cli_task_state(child)), child->task->id, *asked != '\0' ? "  " : "", asked);
    free(asked);
    struct item *item = timeline_add_or_fold(timeline, TIMELINE_CHILD, child->submitted != NULL ? child->submitted->unix_ms : timeline->start_unix_ms, text);
    if (item == NULL)
        return;
    item->key = xstrdup(child->task->id);
    item->until_unix_ms = child->ended != NULL ? child->ended->unix_ms : 0;
    item->is_open = child->ended == NULL;
    item->is_bad = cli_task_state(child) == AMP__TASK_STATE__TASK_STATE_FAILED || cli_task_state(child) == AMP__TASK_STATE__TASK_STATE_REJECTED;
}

/* ---- deaths ------------------------------------------------------------------------------------------------- */

size_t timeline_agents(const struct timeline *timeline, const char **ret, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < timeline->count && count < max; i++) {
        const struct item *item = &timeline->items[i];
        bool is_known = item->kind != TIMELINE_ATTEMPT_END || item->agent[0] == '\0';
        for (size_t k = 0; k < count && !is_known; k++)
            is_known = strcmp(ret[k], item->agent) == 0;
        if (!is_known)
            ret[count++] = item->agent;
    }
    return count;
}

void timeline_death(struct timeline *timeline, const Amp__Death *death)
{
    bool is_ours = false;
    for (size_t i = 0; i < death->n_tasks && !is_ours; i++)
        is_ours = strcmp(death->tasks[i], timeline->task) == 0;
    /* One instance may die more than once under a task: the report belongs to the attempt that ended then. */
    struct item *best = NULL;
    int64_t best_ms = 5000;
    for (size_t i = 0; is_ours && death->at != NULL && death->instance != NULL && i < timeline->count; i++) {
        struct item *item = &timeline->items[i];
        int64_t apart_ms = llabs(item->at_unix_ms - death->at->unix_ms);
        if (item->kind != TIMELINE_ATTEMPT_END || item->n_details > 0 || strcmp(item->key, death->instance) != 0 || apart_ms > best_ms)
            continue;
        best = item;
        best_ms = apart_ms;
    }
    size_t first = death->n_stderr > TIMELINE_DETAILS_MAX - 1 ? death->n_stderr - (TIMELINE_DETAILS_MAX - 1) : 0;
    if (best == NULL)
        return;
    char cause[96];
    error_death_cause(death, cause, sizeof cause);
    if (strstr(best->text, cause) == NULL)
        best->details[best->n_details++] = xstrdup(cause);
    for (size_t i = first; i < death->n_stderr && best->n_details < TIMELINE_DETAILS_MAX; i++)
        best->details[best->n_details++] = xasprintf("stderr: %s", death->stderr[i]);
}
