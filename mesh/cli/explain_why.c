/* What follows from what is known of a task: where its time went, why each attempt was where it was, what it waits for now and what would help. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/explain.h"

#define QUIET_MS 30000

static const struct {
    const char *name, *text;
} kinds[EXPLAIN_KINDS] = {
    [EXPLAIN_PLANNED] = {"planned", "until the time at which it was to start"},
    [EXPLAIN_QUEUE] = {"queue", "waiting for an instance"},
    [EXPLAIN_PAUSE] = {"pause", "in pauses between attempts"},
    [EXPLAIN_LOST] = {"lost", "in attempts that were for nothing"},
    [EXPLAIN_QUESTION] = {"questions", "waiting for an answer"},
    [EXPLAIN_CHILD] = {"children", "while child tasks ran"},
    [EXPLAIN_WORK] = {"work", "at work"},
    [EXPLAIN_REST] = {"rest", "on the way"},
};

const char *explain_kind_name(enum explain_kind kind) { return kinds[kind].name; }
const char *explain_kind_text(enum explain_kind kind) { return kinds[kind].text; }

bool explain_is_there(const struct explain_instance *instance)
{
    return instance->is_known && (instance->state == AMP__INSTANCE_STATE__INSTANCE_STATE_UP || instance->state == AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING ||
                                  instance->state == AMP__INSTANCE_STATE__INSTANCE_STATE_STARTING);
}

struct explain_instance *explain_instance(const struct explain *explain, const char *name)
{
    for (size_t i = 0; i < explain->n_instances; i++)
        if (strcmp(explain->instances[i].name, name) == 0)
            return &explain->instances[i];
    return NULL;
}

static bool says(const char *text, const char *words)
{
    return strstr(text, words) != NULL;
}

enum explain_kind explain_wait_kind(const char *reason)
{
    bool is_planned = says(reason, "at which it was to start") || says(reason, "planned for");
    bool is_pause = says(reason, "before the next attempt") || says(reason, "next one starts soon");
    return is_planned ? EXPLAIN_PLANNED : is_pause ? EXPLAIN_PAUSE : EXPLAIN_QUEUE;
}

static const char *target(const struct explain *explain)
{
    return explain->skill[0] != '\0' ? explain->skill : explain->agent;
}

/* ---- where its time went ------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

/* Which kind covers this moment first. */
static enum explain_kind kind_at(const struct explain *explain, int64_t unix_ms)
{
    enum explain_kind kind = EXPLAIN_REST;
    for (size_t i = 0; i < explain->n_spans; i++) {
        const struct explain_span *span = &explain->spans[i];
        if (span->kind < kind && span->from_unix_ms <= unix_ms && unix_ms < span->to_unix_ms)
            kind = span->kind;
    }
    return kind;
}

static void spend(struct explain *explain)
{
    int64_t end = explain->ended_unix_ms > 0 ? explain->ended_unix_ms : explain->now_unix_ms;
    int64_t *marks = calloc(2 * explain->n_spans + 2, sizeof *marks);
    size_t count = 0;
    explain->total_ms = end > explain->submitted_unix_ms ? end - explain->submitted_unix_ms : 0;
    if (marks == NULL)
        return;
    marks[count++] = explain->submitted_unix_ms;
    marks[count++] = end;
    for (size_t i = 0; i < explain->n_spans; i++) {
        marks[count++] = explain->spans[i].from_unix_ms;
        marks[count++] = explain->spans[i].to_unix_ms;
    }
    qsort(marks, count, sizeof *marks, by_time);
    for (size_t i = 0; i + 1 < count; i++) {
        int64_t from = marks[i] > explain->submitted_unix_ms ? marks[i] : explain->submitted_unix_ms, to = marks[i + 1] < end ? marks[i + 1] : end;
        if (to > from)
            explain->spent_ms[kind_at(explain, from)] += to - from;
    }
    free(marks);
}

/* "completed in 7.4 s: 68 % of it waiting for an instance" */
static void find_verdict(struct explain *explain)
{
    char took[PRINT_SHORT_SIZE];
    enum explain_kind most = EXPLAIN_PLANNED;
    for (enum explain_kind kind = EXPLAIN_PLANNED; kind < EXPLAIN_KINDS; kind++)
        if (explain->spent_ms[kind] > explain->spent_ms[most])
            most = kind;
    print_duration(explain->total_ms, took);
    int percent = explain->total_ms > 0 ? (int)(100 * explain->spent_ms[most] / explain->total_ms) : 0;
    snprintf(explain->verdict, sizeof explain->verdict, "%s %s %s", amp_task_state_short(explain->state), explain->is_over ? "after" : "for", took);
    size_t len = strlen(explain->verdict);
    if (explain->total_ms > 0)
        snprintf(explain->verdict + len, sizeof explain->verdict - len, ", %d %% of it %s", percent, kinds[most].text);
}

/* ---- why there ------------------------------------------------------------------------------------------- */

/* How many were there then, as far as is known: those who left long ago are forgotten. */
static size_t there_with(const struct explain *explain, const struct explain_attempt *attempt)
{
    size_t count = 0;
    for (size_t i = 0; i < explain->n_instances; i++) {
        const struct explain_instance *instance = &explain->instances[i];
        count += strcmp(instance->name, attempt->instance) == 0 || (explain_is_there(instance) && instance->since_unix_ms <= attempt->started_unix_ms);
    }
    return count;
}

static const char *chance(const char *waited_for)
{
    static const struct {
        const char *words, *then;
    } chances[] = {
        {"is busy", "a slot of it became free, and it was this task's turn"},
        {"is on the mesh", "it joined the mesh"},
        {"restarts", "its agent was back"},
        {"is starting", "its agent had started"},
        {"at which it was to start", "the time at which it was to start had come, and it had a free slot"},
        {"planned for", "the time that it was planned for had come, and it had a free slot"},
        {"turn had not come", "it was this task's turn there"},
        {"environment was started", "the environment was back, and it had a free slot"},
        {"bus is away", "the bus was back, and it had a free slot"},
    };
    for (size_t i = 0; i < sizeof chances / sizeof *chances; i++)
        if (says(waited_for, chances[i].words))
            return chances[i].then;
    return "it had a free slot";
}

static void find_why(const struct explain *explain, size_t at)
{
    struct explain_attempt *attempt = (struct explain_attempt *)&explain->attempts[at];
    const struct explain_attempt *before = at > 0 ? &explain->attempts[at - 1] : NULL;
    size_t count = there_with(explain, attempt);
    const struct explain_instance *taker = explain_instance(explain, attempt->instance);
    bool has_come = taker != NULL && taker->since_unix_ms > attempt->ready_unix_ms && taker->since_unix_ms <= attempt->started_unix_ms;
    const char *then = attempt->waited_for[0] == '\0' ? "it had a free slot" : has_come ? "it came to the mesh, with a free slot" : chance(attempt->waited_for);
    char who[160] = "";
    if (count == 1)
        snprintf(who, sizeof who, "the only instance there: ");
    else
        snprintf(who, sizeof who, "one of %zu that were there: ", count);
    if (before != NULL && before->outcome[0] != '\0')
        snprintf(attempt->why, sizeof attempt->why, "tried again %s, as attempt %d ended with %s; %s%s", strcmp(before->instance, attempt->instance) == 0 ? "at the same one" : "elsewhere",
                 before->number, before->outcome, who, then);
    else
        snprintf(attempt->why, sizeof attempt->why, "%s%s", who, then);
}

/* ---- now -------------------------------------------------------------------------------------------------- */

static AMP_PRINTF(2, 3) void help(struct explain *explain, const char *fmt, ...)
{
    va_list args;
    if (explain->n_help == sizeof explain->help / sizeof *explain->help)
        return;
    va_start(args, fmt);
    vsnprintf(explain->help[explain->n_help++], sizeof *explain->help, fmt, args);
    va_end(args);
}

static const struct explain_span *open_span(const struct explain *explain, enum explain_kind kind)
{
    const struct explain_span *found = NULL;
    for (size_t i = 0; i < explain->n_spans && found == NULL; i++)
        if (explain->spans[i].kind == kind && explain->spans[i].is_open)
            found = &explain->spans[i];
    return found;
}

static void since(const struct explain *explain, int64_t from_unix_ms, char ret[PRINT_SHORT_SIZE])
{
    print_duration(explain->now_unix_ms > from_unix_ms ? explain->now_unix_ms - from_unix_ms : 0, ret);
}

static void waits_for_instance(struct explain *explain)
{
    char ago[PRINT_SHORT_SIZE] = "";
    const struct explain_span *wait = open_span(explain, EXPLAIN_QUEUE);
    if (wait == NULL)
        wait = open_span(explain, EXPLAIN_PAUSE);
    since(explain, wait != NULL ? wait->from_unix_ms : explain->submitted_unix_ms, ago);
    snprintf(explain->now, sizeof explain->now, "waits for %s: %s", ago, explain->waiting);
    bool is_skill = explain->skill[0] != '\0';
    if (says(explain->waiting, "is on the mesh"))
        help(explain, is_skill ? "amesh run --name NAME --skill %s -- COMMAND starts one that can" : "amesh run --name %s -- COMMAND starts one", target(explain));
    else if (says(explain->waiting, "restarts"))
        help(explain, "amesh show %s tells how its agent died", explain->agent[0] != '\0' ? explain->agent : "AGENT");
    else if (says(explain->waiting, "is starting"))
        help(explain, "nothing is wrong: an agent that does not come tells why on the terminal of its amesh run");
    else if (says(explain->waiting, "bus is away"))
        help(explain, "amesh check tells what is wrong with the bus");
    else if (says(explain->waiting, "starts at"))
        help(explain, "nothing is wrong: its time has not come");
    for (size_t i = 0; says(explain->waiting, "is busy") && i < explain->n_instances && explain->n_help < 2; i++)
        if (explain_is_there(&explain->instances[i]) && explain->instances[i].n_tasks > 0)
            help(explain, "amesh explain %s tells what keeps %s", explain->instances[i].tasks[0], explain->instances[i].name);
    if (says(explain->waiting, "is busy"))
        help(explain, is_skill ? "another instance takes it at once: amesh run --name NAME --skill %s -- COMMAND" : "another instance takes it at once: amesh run --name %s -- COMMAND", target(explain));
}

static void is_worked_on(struct explain *explain)
{
    const struct explain_attempt *last = explain->n_attempts > 0 ? &explain->attempts[explain->n_attempts - 1] : NULL;
    const struct explain_instance *holder = last != NULL ? explain_instance(explain, last->instance) : NULL;
    const struct explain_span *child = open_span(explain, EXPLAIN_CHILD);
    char ago[PRINT_SHORT_SIZE] = "", quiet[PRINT_SHORT_SIZE] = "";
    if (last == NULL)
        return;
    since(explain, last->started_unix_ms, ago);
    snprintf(explain->now, sizeof explain->now, "%s works on it for %s", last->instance, ago);
    size_t len = strlen(explain->now);
    if (child != NULL) {
        snprintf(explain->now + len, sizeof explain->now - len, ", and %s is not over: %s", child->text, child->id);
        help(explain, "amesh explain %s tells what that one waits for", child->id);
        return;
    }
    if (holder == NULL || holder->progress_unix_ms == 0)
        return;
    since(explain, holder->progress_unix_ms > last->started_unix_ms ? holder->progress_unix_ms : last->started_unix_ms, quiet);
    snprintf(explain->now + len, sizeof explain->now - len, "; its agent said something %s ago", quiet);
    if (explain->now_unix_ms - holder->progress_unix_ms > QUIET_MS)
        help(explain, "amesh task watch %s shows whether it goes on; amesh task cancel %s ends it", explain->id, explain->id);
}

static void find_now(struct explain *explain)
{
    const struct explain_span *question = open_span(explain, EXPLAIN_QUESTION);
    char ago[PRINT_SHORT_SIZE];
    if (explain->is_over)
        return;
    if (question != NULL) {
        since(explain, question->from_unix_ms, ago);
        snprintf(explain->now, sizeof explain->now, "waits for %s for an answer: %s", ago, question->text);
        help(explain, "amesh ask --task %s TEXT, or amesh inbox", explain->id);
    } else if (explain->waiting[0] != '\0') {
        waits_for_instance(explain);
    } else {
        is_worked_on(explain);
    }
}

static int by_begin(const void *a, const void *b)
{
    const struct explain_span *left = a, *right = b;
    return left->from_unix_ms < right->from_unix_ms ? -1 : left->from_unix_ms > right->from_unix_ms;
}

void explain_conclude(struct explain *explain)
{
    if (explain->n_spans > 0)
        qsort(explain->spans, explain->n_spans, sizeof *explain->spans, by_begin);
    spend(explain);
    find_verdict(explain);
    for (size_t i = 0; i < explain->n_attempts; i++)
        find_why(explain, i);
    find_now(explain);
}
