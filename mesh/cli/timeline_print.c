#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/print.h"
#include "cli/timeline_private.h"

#define TIME_WIDTH 9
#define LABEL_WIDTH 10
#define TEXT_MIN 20u /* on a narrow terminal: then lines are longer than it */
#define SAID_MAX 72u /* of a text that has more */

static const struct {
    const char *name;   /* in JSON */
    const char *many;   /* "… 17 more tool calls" */
    enum print_color color;
} kinds[TIMELINE_KINDS] = {
    [TIMELINE_ACCEPTED] = {"accepted", "", PRINT_CYAN},
    [TIMELINE_WAIT] = {"waited", "", PRINT_YELLOW},
    [TIMELINE_AWAY] = {"away", "", PRINT_YELLOW},
    [TIMELINE_ATTEMPT] = {"attempt", "", PRINT_CYAN},
    [TIMELINE_ATTEMPT_END] = {"attemptEnd", "", PRINT_RED},
    [TIMELINE_CANCEL] = {"cancel", "", PRINT_YELLOW},
    [TIMELINE_IGNORED] = {"ignored", "", PRINT_YELLOW},
    [TIMELINE_RETRY] = {"retrying", "retries", PRINT_YELLOW},
    [TIMELINE_QUESTION] = {"question", "questions", PRINT_YELLOW},
    [TIMELINE_ANSWER] = {"answer", "answers", PRINT_GREEN},
    [TIMELINE_CLOSED] = {"closed", "closed questions", PRINT_YELLOW},
    [TIMELINE_TOOL] = {"tool", "tool calls", PRINT_PLAIN},
    [TIMELINE_STEP] = {"step", "steps", PRINT_PLAIN},
    [TIMELINE_TEXT] = {"text", "texts", PRINT_PLAIN},
    [TIMELINE_REASONING] = {"reasoning", "reasonings", PRINT_DIM},
    [TIMELINE_ARTIFACT] = {"artifact", "artifacts", PRINT_PLAIN},
    [TIMELINE_SAYS] = {"says", "notes", PRINT_PLAIN},
    [TIMELINE_LOG] = {"log", "log lines", PRINT_DIM},
    [TIMELINE_USAGE] = {"usage", "usages", PRINT_DIM},
    [TIMELINE_CUSTOM] = {"custom", "custom events", PRINT_DIM},
    [TIMELINE_CHILD] = {"child", "child tasks", PRINT_BOLD},
    [TIMELINE_END] = {"end", "", PRINT_GREEN},
};

/* ---- the order ------------------------------------------------------------------------------------------------ */

/* Clocks of hosts differ, and much happens within a millisecond: what must have come before what is known without them. A death, the retry that it led to, what that waited
 * for, the attempt, what it told, its end. */
enum rank { RANK_RETRY, RANK_WAIT, RANK_BEGIN, RANK_EVENT, RANK_END, RANKS };
#define SAME_MOMENT_MS 100 /* such a difference is not worth telling */

static int by_rank(const void *a, const void *b)
{
    const struct item *left = a, *right = b;
    if (left->rank != right->rank)
        return left->rank < right->rank ? -1 : 1;
    if (left->at_unix_ms != right->at_unix_ms)
        return left->at_unix_ms < right->at_unix_ms ? -1 : 1;
    return left->order < right->order ? -1 : 1;
}

/* Is it known by its time only? Children, a time without an environment, and what comes from people and the environment: no attempt need be there. */
static bool is_loose(const struct item *item)
{
    return item->kind == TIMELINE_CHILD || item->kind == TIMELINE_AWAY || item->kind == TIMELINE_CANCEL || item->kind == TIMELINE_IGNORED || item->kind == TIMELINE_ANSWER || item->kind == TIMELINE_CLOSED;
}

/* The attempt that a retry announces: one that is kept, one that has not begun yet, or one that is not kept any more. */
static uint32_t slot_of_retry(const struct timeline *timeline, int number)
{
    for (size_t i = 0; i < timeline->count; i++)
        if (timeline->items[i].kind == TIMELINE_ATTEMPT && timeline->items[i].number == number)
            return timeline->items[i].slot;
    return number < timeline->first_number ? 0 : timeline->n_begun + 1;
}

static void rank_items(struct timeline *timeline)
{
    static const enum rank ranks[TIMELINE_KINDS] = {[TIMELINE_WAIT] = RANK_WAIT, [TIMELINE_ATTEMPT] = RANK_BEGIN, [TIMELINE_ATTEMPT_END] = RANK_END};
    uint32_t slot = timeline->first_number <= 1 ? 1 : 0;
    for (size_t i = 0; i < timeline->count; i++) {
        struct item *item = &timeline->items[i];
        if (item->kind == TIMELINE_RETRY)
            item->slot = slot = slot_of_retry(timeline, item->number);
        else if (item->seq != 0)
            item->slot = slot;
        item->rank = item->slot * RANKS + (item->kind == TIMELINE_RETRY ? RANK_RETRY : item->seq != 0 ? RANK_EVENT : ranks[item->kind]);
        if (item->kind == TIMELINE_END)
            item->rank = UINT32_MAX;
    }
}

/* With the last thing that had a place and was not later. */
static void rank_loose(struct timeline *timeline)
{
    for (size_t i = 0; i < timeline->count; i++) {
        struct item *item = &timeline->items[i];
        uint32_t rank = RANKS + RANK_WAIT;
        for (size_t k = 0; is_loose(item) && k < timeline->count; k++) {
            const struct item *other = &timeline->items[k];
            if (is_loose(other) || other->at_unix_ms > item->at_unix_ms || other->rank <= rank)
                continue;
            if (other->kind != TIMELINE_END)
                rank = other->rank % RANKS == RANK_BEGIN ? other->rank + 1 : other->rank;
            else if (item->kind == TIMELINE_IGNORED) /* nothing else can come behind the end */
                rank = other->rank;
        }
        if (is_loose(item))
            item->rank = rank;
    }
}

/* An instance is known to have taken a task with its first frame, which may be a little later than what it says in it. */
static void begin_with_events(struct timeline *timeline)
{
    struct item *attempt = NULL;
    for (size_t i = 0; i < timeline->count; i++) {
        const struct item *item = &timeline->items[i];
        if (item->rank % RANKS != RANK_EVENT || item->kind == TIMELINE_END || is_loose(item))
            continue;
        for (size_t k = 0; (attempt == NULL || attempt->slot != item->slot) && k < timeline->count; k++)
            if (timeline->items[k].kind == TIMELINE_ATTEMPT && timeline->items[k].slot == item->slot)
                attempt = &timeline->items[k];
        if (attempt != NULL && attempt->slot == item->slot && item->at_unix_ms < attempt->at_unix_ms)
            attempt->at_unix_ms = item->at_unix_ms;
    }
}

/* Events keep their numbers' order whatever their clocks say: hosts differ. */
static void in_order(struct timeline *timeline)
{
    int64_t latest = timeline->start_unix_ms;
    for (size_t i = 0; i < timeline->count; i++) {
        struct item *item = &timeline->items[i];
        if (item->seq == 0)
            continue;
        if (item->at_unix_ms < latest)
            item->at_unix_ms = latest;
        latest = item->at_unix_ms;
    }
    rank_items(timeline);
    begin_with_events(timeline);
    rank_loose(timeline);
    qsort(timeline->items, timeline->count, sizeof *timeline->items, by_rank);
    for (size_t i = 1; i < timeline->count; i++) {
        int64_t back_ms = timeline->items[i - 1].at_unix_ms - timeline->items[i].at_unix_ms;
        if (back_ms > 0 && back_ms <= SAME_MOMENT_MS)
            timeline->items[i].at_unix_ms += back_ms;
    }
}

/* ---- for people ------------------------------------------------------------------------------------------------ */

static const char *label_of(const struct item *item, char ret[PRINT_SHORT_SIZE])
{
    switch (item->kind) {
    case TIMELINE_ATTEMPT:
    case TIMELINE_ATTEMPT_END:
        snprintf(ret, PRINT_SHORT_SIZE, "attempt %d", item->number);
        return ret;
    case TIMELINE_WAIT:
        return item->is_open ? "waits" : "waited";
    case TIMELINE_ANSWER:
        return item->is_again ? "replayed" : "answer";
    case TIMELINE_CLOSED:
        return item->is_again ? "replayed" : strcmp(item->key, "expired") == 0 ? "expired" : strcmp(item->key, "withdrawn") == 0 ? "withdrawn" : "closed";
    case TIMELINE_END:
        return amp_task_state_short(item->state);
    default:
        return kinds[item->kind].name;
    }
}

static bool has_pieces(const struct item *item)
{
    return item->kind == TIMELINE_TEXT || item->kind == TIMELINE_REASONING || item->kind == TIMELINE_ARTIFACT;
}

static void with_thousands(uint64_t number, char ret[PRINT_SHORT_SIZE])
{
    char digits[24];
    size_t len = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)number), at = 0;
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            ret[at++] = ',';
        ret[at++] = digits[i];
    }
    ret[at] = '\0';
}

/* What stands behind the text: "(1.2 s)", "(1,234 pieces, 12 KiB, 3.2 s)". */
static char *behind(const struct item *item)
{
    char took[PRINT_SHORT_SIZE] = "", count[PRINT_SHORT_SIZE], bytes[PRINT_SHORT_SIZE] = "";
    if (item->kind == TIMELINE_WAIT || item->kind == TIMELINE_AWAY)
        return xstrdup("");
    if (item->until_unix_ms > item->at_unix_ms)
        print_duration(item->until_unix_ms - item->at_unix_ms, took);
    if (item->is_open && item->kind != TIMELINE_QUESTION)
        return xstrdup("  (not over)");
    if (item->is_open)
        return xstrdup("  (open)");
    if (has_pieces(item) && (item->count > 1 || item->kind == TIMELINE_ARTIFACT)) {
        with_thousands(item->count, count);
        print_bytes(item->bytes, bytes);
        if (item->count == 1)
            return xasprintf("  (%s)", bytes);
        return xasprintf("  (%s pieces, %s%s%s)", count, bytes, *took != '\0' ? ", " : "", took);
    }
    return *took != '\0' ? xasprintf("  (%s)", took) : xstrdup("");
}

/* One line of it: what breaks lines is a space here. */
static char *flat(const char *text)
{
    char *copy = xstrdup(text);
    size_t len = strlen(copy);
    while (len > 0 && strchr(" \t\r\n", copy[len - 1]) != NULL)
        copy[--len] = '\0';
    for (size_t i = 0; i < len; i++)
        if (copy[i] == '\n' || copy[i] == '\t' || copy[i] == '\r')
            copy[i] = ' ';
    return copy;
}

static char *text_of(const struct item *item)
{
    char took[PRINT_SHORT_SIZE];
    if (item->kind == TIMELINE_WAIT || item->kind == TIMELINE_AWAY) {
        print_duration((item->is_open ? clock_unix_ms() : item->until_unix_ms) - item->at_unix_ms, took);
        return xasprintf("%s: %s", took, item->text);
    }
    bool is_said = item->kind == TIMELINE_TEXT || item->kind == TIMELINE_REASONING;
    char *text = flat(item->text);
    if (!is_said)
        return text;
    char *line = print_line(text, SAID_MAX);
    free(text);
    char *quoted = xasprintf("\"%s%s\"", line, item->bytes > strlen(item->text) && print_width(line) < SAID_MAX ? "…" : "");
    free(line);
    return quoted;
}

static void print_details(FILE *to, const struct print_style *style, const struct item *item, size_t room)
{
    for (size_t i = 0; i < item->n_details; i++) {
        char *line = print_line(item->details[i], room);
        fprintf(to, "%*s%s%s%s\n", TIME_WIDTH + 2 + LABEL_WIDTH + 1, "", print_on(style, PRINT_DIM), line, print_off(style));
        free(line);
    }
}

static void print_more(FILE *to, const struct print_style *style, const struct item *item)
{
    char count[PRINT_SHORT_SIZE], took[PRINT_SHORT_SIZE];
    if (item->n_more == 0)
        return;
    with_thousands(item->n_more, count);
    print_duration(item->more_until_unix_ms - item->at_unix_ms, took);
    fprintf(to, "%*s%s%s %s more %s, for %s%s\n", TIME_WIDTH + 2, "", print_on(style, PRINT_DIM), style->has_utf8 ? "…" : "...", count, kinds[item->kind].many, took, print_off(style));
}

static void print_item(FILE *to, const struct print_style *style, const struct timeline *timeline, const struct item *item)
{
    char time[PRINT_SHORT_SIZE], signed_time[PRINT_SHORT_SIZE + 1], label[PRINT_SHORT_SIZE];
    int64_t since_ms = item->at_unix_ms - timeline->start_unix_ms;
    print_duration(since_ms, time);
    snprintf(signed_time, sizeof signed_time, "+%s", time);
    char *text = text_of(item), *end = behind(item);
    size_t used = TIME_WIDTH + 2 + LABEL_WIDTH + 1, end_width = print_width(end);
    size_t room = style->width == 0 ? 0 : style->width > used + end_width + TEXT_MIN ? style->width - used - end_width : TEXT_MIN;
    char *line = print_line(text, room);
    enum print_color color = item->kind == TIMELINE_END ? print_state_color(amp_task_state_short(item->state)) : item->is_bad ? PRINT_RED : kinds[item->kind].color;
    fprintf(to, "%s%*s%s  %s%-*s%s %s%s%s%s\n", print_on(style, PRINT_DIM), TIME_WIDTH, signed_time, print_off(style), print_on(style, color), LABEL_WIDTH,
            label_of(item, label), print_off(style), line, print_on(style, PRINT_DIM), end, print_off(style));
    print_details(to, style, item, style->width > used + TEXT_MIN ? style->width - used : style->width != 0 ? TEXT_MIN : 0);
    print_more(to, style, item);
    free(line);
    free(text);
    free(end);
}

void timeline_print(FILE *to, const struct print_style *style, struct timeline *timeline)
{
    in_order(timeline);
    for (size_t i = 0; i < timeline->count; i++)
        print_item(to, style, timeline, &timeline->items[i]);
}

/* ---- for programs --------------------------------------------------------------------------------------------- */

static cJSON *item_json(const struct item *item)
{
    char time[AMP_TIME_SIZE];
    cJSON *json = cJSON_CreateObject();
    amp_time_format(item->at_unix_ms, time);
    cJSON_AddStringToObject(json, "at", time);
    cJSON_AddStringToObject(json, "what", kinds[item->kind].name);
    if (item->text[0] != '\0')
        cJSON_AddStringToObject(json, "text", item->text);
    if (item->until_unix_ms > 0)
        cJSON_AddNumberToObject(json, "durationMs", (double)(item->until_unix_ms > item->at_unix_ms ? item->until_unix_ms - item->at_unix_ms : 0));
    if (item->seq > 0)
        cJSON_AddNumberToObject(json, "seq", item->seq);
    if (item->number > 0)
        cJSON_AddNumberToObject(json, "attempt", item->number);
    if (has_pieces(item)) {
        cJSON_AddNumberToObject(json, "pieces", item->count);
        cJSON_AddNumberToObject(json, "bytes", (double)item->bytes);
    }
    if (item->n_more > 0)
        cJSON_AddNumberToObject(json, "more", item->n_more);
    if (item->kind == TIMELINE_CHILD)
        cJSON_AddStringToObject(json, "taskId", item->key);
    if (item->kind == TIMELINE_END)
        cJSON_AddStringToObject(json, "state", amp_task_state_short(item->state));
    if (item->is_open)
        cJSON_AddTrueToObject(json, "open");
    if (item->is_again)
        cJSON_AddTrueToObject(json, "again");
    for (size_t i = 0; i < item->n_details; i++) {
        cJSON *details = i == 0 ? cJSON_AddArrayToObject(json, "details") : cJSON_GetObjectItemCaseSensitive(json, "details");
        cJSON_AddItemToArray(details, cJSON_CreateString(item->details[i]));
    }
    return json;
}

cJSON *timeline_json(struct timeline *timeline)
{
    cJSON *array = cJSON_CreateArray();
    in_order(timeline);
    for (size_t i = 0; i < timeline->count; i++)
        cJSON_AddItemToArray(array, item_json(&timeline->items[i]));
    return array;
}
