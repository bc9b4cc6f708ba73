#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/agents.h"
#include "cli/explain.h"
#include "cli/json.h"

#define INSTANCES_SHOWN 12u
#define WAITS_SHOWN 12u
#define CHILDREN_SHOWN 12u
#define AT_ONCE_MS 50

/* ---- for people ------------------------------------------------------------------------------------------ */

static void heading(const struct cli *cli, const char *text)
{
    printf("\n%s%s%s\n", print_on(&cli->out, PRINT_BOLD), text, print_off(&cli->out));
}

/* One line, sanitised, after a name that is as wide as all others. */
static AMP_PRINTF(3, 4) void line(const struct cli *cli, const char *name, const char *fmt, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    char *clean = print_line(len >= 0 ? text : "", 0);
    printf("%s%-10s%s %s\n", print_on(&cli->out, PRINT_DIM), name, print_off(&cli->out), clean);
    free(clean);
    free(text);
}

static void print_head(const struct cli *cli, const struct explain *explain)
{
    const char *state = amp_task_state_short(explain->state);
    printf("%s%s%s  %s%s%s\n", print_on(&cli->out, PRINT_BOLD), explain->id, print_off(&cli->out), print_on(&cli->out, print_state_color(state)), explain->verdict, print_off(&cli->out));
    line(cli, "asked", "%s %s%s, by %s, %s%s%s", explain->skill[0] != '\0' ? "whoever has the skill" : "of", explain->skill[0] != '\0' ? explain->skill : explain->agent,
         explain->is_durable ? ", durable" : ", as a direct call", explain->from[0] != '\0' ? explain->from : "?", explain->text[0] != '\0' ? "\"" : "", explain->text,
         explain->text[0] != '\0' ? "\"" : "no text");
    if (explain->error[0] != '\0' && explain->is_over)
        line(cli, "because", "%s", explain->error);
    if (explain->now[0] != '\0')
        line(cli, "now", "%s", explain->now);
    for (size_t i = 0; i < explain->n_help; i++)
        line(cli, i == 0 ? "what helps" : "", "%s", explain->help[i]);
}

static void print_time(const struct cli *cli, const struct explain *explain)
{
    if (explain->total_ms > 0)
        heading(cli, "where the time went");
    for (enum explain_kind kind = EXPLAIN_PLANNED; explain->total_ms > 0 && kind < EXPLAIN_KINDS; kind++) {
        char took[PRINT_SHORT_SIZE];
        if (100 * explain->spent_ms[kind] < explain->total_ms)
            continue; /* less than 1 % */
        print_duration(explain->spent_ms[kind], took);
        printf("%10s  %3d %%  %s\n", took, (int)(100 * explain->spent_ms[kind] / explain->total_ms), explain_kind_text(kind));
    }
}

static void print_waits(const struct cli *cli, const struct explain *explain)
{
    uint32_t shown = 0;
    for (size_t i = 0; i < explain->n_spans; i++) {
        const struct explain_span *span = &explain->spans[i];
        char took[PRINT_SHORT_SIZE];
        if (span->kind != EXPLAIN_QUEUE && span->kind != EXPLAIN_PAUSE && span->kind != EXPLAIN_PLANNED && span->kind != EXPLAIN_QUESTION)
            continue;
        if (shown++ == 0)
            heading(cli, "what it waited for");
        if (shown > WAITS_SHOWN)
            continue;
        print_duration(span->to_unix_ms - span->from_unix_ms, took);
        char *text = print_line(span->text, 0);
        printf("%10s  %s%s%s%s\n", took, span->kind == EXPLAIN_QUESTION ? "an answer to: " : "", text, span->id[0] != '\0' ? "  " : "", span->id);
        free(text);
    }
    if (shown > WAITS_SHOWN)
        printf("%10s  %u more\n", cli->out.has_utf8 ? "…" : "...", shown - WAITS_SHOWN);
}

/* "attempt 1, 2" */
static char *attempts_of(const struct explain *explain, const char *instance)
{
    char *text = xstrdup("");
    for (size_t i = 0; i < explain->n_attempts; i++) {
        if (strcmp(explain->attempts[i].instance, instance) != 0)
            continue;
        char *longer = xasprintf("%s%s%d", text, *text != '\0' ? ", " : "had attempt ", explain->attempts[i].number);
        free(text);
        text = longer;
    }
    return text;
}

static void print_instance(const struct explain *explain, const struct explain_instance *instance)
{
    char *had = attempts_of(explain, instance->name);
    bool is_late = explain_is_there(instance) && instance->since_unix_ms > explain->submitted_unix_ms;
    printf("  %s  %s  ", instance->name, instance->host[0] != '\0' ? instance->host : "?");
    if (explain->skill[0] != '\0')
        printf("%s  ", instance->agent);
    if (!instance->is_known)
        printf("not there any more");
    else if (explain_is_there(instance))
        printf("%s, %u of %u slots free", agents_state_name(instance->state), instance->free, instance->slots);
    else
        printf("%s", agents_state_name(instance->state));
    printf("%s%s%s", is_late ? "; came later than the task" : "", *had != '\0' ? "; " : "", had);
    if (explain_is_there(instance) && instance->n_tasks > 0 && !explain->is_over && *had == '\0')
        printf("; works on %s%s", instance->tasks[0], instance->n_tasks > 1 ? " and others" : "");
    putchar('\n');
    free(had);
}

static void print_instances(const struct cli *cli, const struct explain *explain)
{
    heading(cli, "who can do it, as of now");
    for (size_t i = 0; i < explain->n_instances && i < INSTANCES_SHOWN; i++)
        print_instance(explain, &explain->instances[i]);
    if (explain->n_instances > INSTANCES_SHOWN)
        printf("  %s %zu more\n", cli->out.has_utf8 ? "…" : "...", explain->n_instances - INSTANCES_SHOWN);
    if (explain->n_instances == 0)
        printf("  nobody\n");
}

static void print_attempts(const struct cli *cli, const struct explain *explain)
{
    if (explain->n_attempts > 0)
        heading(cli, "who had it, and why");
    for (size_t i = 0; i < explain->n_attempts; i++) {
        const struct explain_attempt *attempt = &explain->attempts[i];
        char waited[PRINT_SHORT_SIZE] = "", ran[PRINT_SHORT_SIZE] = "";
        int64_t waited_ms = attempt->ready_unix_ms > 0 ? attempt->started_unix_ms - attempt->ready_unix_ms : 0;
        if (waited_ms >= AT_ONCE_MS)
            print_duration(waited_ms, waited);
        print_duration((attempt->ended_unix_ms > 0 ? attempt->ended_unix_ms : explain->now_unix_ms) - attempt->started_unix_ms, ran);
        char *reason = print_line(attempt->reason, 0);
        printf("  attempt %d  %s%s%s  %s%s: %s\n", attempt->number, attempt->instance, attempt->host[0] != '\0' ? " on " : "", attempt->host,
               waited_ms >= AT_ONCE_MS ? waited : explain->is_durable ? "at once" : "taken", waited_ms >= AT_ONCE_MS ? " later" : "", attempt->why);
        printf("             %s %s %s\n", attempt->outcome[0] != '\0' ? attempt->outcome : "at work", attempt->outcome[0] != '\0' ? "after" : "for", ran);
        if (*reason != '\0')
            printf("             %s\n", reason);
        free(reason);
    }
}

static void print_children(const struct cli *cli, const struct explain *explain)
{
    uint32_t shown = 0;
    for (size_t i = 0; i < explain->n_spans; i++) {
        const struct explain_span *span = &explain->spans[i];
        char took[PRINT_SHORT_SIZE];
        if (span->kind != EXPLAIN_CHILD)
            continue;
        if (shown++ == 0)
            heading(cli, "child tasks");
        if (shown > CHILDREN_SHOWN)
            continue;
        print_duration(span->to_unix_ms - span->from_unix_ms, took);
        printf("%10s  %s  %s  %s\n", took, span->text, amp_task_state_short(span->state), span->id);
    }
    if (shown > CHILDREN_SHOWN)
        printf("%10s  %u more: amesh task show %s --tree\n", cli->out.has_utf8 ? "…" : "...", shown - CHILDREN_SHOWN, explain->id);
}

/* At the environment, which then knows it. */
static bool has_waited(const struct explain *explain)
{
    bool is_known = false;
    for (size_t i = 0; i < explain->n_spans; i++)
        is_known |= explain->spans[i].kind == EXPLAIN_QUEUE;
    return is_known;
}

void explain_print(const struct cli *cli, const struct explain *explain)
{
    print_head(cli, explain);
    print_time(cli, explain);
    print_waits(cli, explain);
    if (!explain->is_durable && !has_waited(explain))
        printf("\nWhat a direct call waited for before it was taken is known to its caller only.\n");
    print_attempts(cli, explain);
    print_children(cli, explain);
    print_instances(cli, explain);
    if (explain->is_cut)
        fprintf(stderr, "there is more to it than was looked at: amesh task show %s\n", explain->id);
}

/* ---- for programs ----------------------------------------------------------------------------------------- */

static void add_text(cJSON *json, const char *name, const char *text)
{
    if (*text != '\0')
        cJSON_AddStringToObject(json, name, text);
}

static cJSON *span_json(const struct explain_span *span)
{
    cJSON *json = cJSON_CreateObject();
    if (span->kind == EXPLAIN_CHILD) {
        cJSON_AddStringToObject(json, "id", span->id);
        cJSON_AddStringToObject(json, "agent", span->text);
        cJSON_AddStringToObject(json, "state", amp_task_state_short(span->state));
    } else {
        cJSON_AddStringToObject(json, "what", explain_kind_name(span->kind));
        cJSON_AddStringToObject(json, "reason", span->text);
        add_text(json, "id", span->id);
    }
    json_add_time(json, "from", span->from_unix_ms);
    if (!span->is_open)
        json_add_time(json, "to", span->to_unix_ms);
    cJSON_AddNumberToObject(json, "ms", (double)(span->to_unix_ms - span->from_unix_ms));
    return json;
}

static cJSON *attempt_json(const struct explain_attempt *attempt)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "attempt", attempt->number);
    add_text(json, "agent", attempt->agent);
    add_text(json, "instance", attempt->instance);
    add_text(json, "host", attempt->host);
    json_add_time(json, "startedAt", attempt->started_unix_ms);
    json_add_time(json, "endedAt", attempt->ended_unix_ms);
    cJSON_AddNumberToObject(json, "waitMs", (double)(attempt->ready_unix_ms > 0 ? attempt->started_unix_ms - attempt->ready_unix_ms : 0));
    add_text(json, "why", attempt->why);
    add_text(json, "outcome", attempt->outcome);
    add_text(json, "reason", attempt->reason);
    return json;
}

static cJSON *instance_json(const struct explain *explain, const struct explain_instance *instance)
{
    cJSON *json = cJSON_CreateObject(), *had = cJSON_CreateArray(), *tasks = cJSON_CreateArray();
    add_text(json, "instance", instance->name);
    add_text(json, "agent", instance->agent);
    add_text(json, "host", instance->host);
    cJSON_AddStringToObject(json, "state", instance->is_known ? agents_state_name(instance->state) : "gone");
    cJSON_AddNumberToObject(json, "slots", instance->slots);
    cJSON_AddNumberToObject(json, "free", instance->free);
    json_add_time(json, "since", instance->since_unix_ms);
    for (size_t i = 0; i < explain->n_attempts; i++)
        if (strcmp(explain->attempts[i].instance, instance->name) == 0)
            cJSON_AddItemToArray(had, cJSON_CreateNumber(explain->attempts[i].number));
    for (size_t i = 0; i < instance->n_tasks; i++)
        cJSON_AddItemToArray(tasks, cJSON_CreateString(instance->tasks[i]));
    cJSON_AddItemToObject(json, "attempts", had);
    cJSON_AddItemToObject(json, "tasks", tasks);
    return json;
}

static cJSON *time_json(const struct explain *explain)
{
    cJSON *array = cJSON_CreateArray();
    for (enum explain_kind kind = EXPLAIN_PLANNED; kind < EXPLAIN_KINDS; kind++) {
        if (explain->spent_ms[kind] == 0)
            continue;
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "what", explain_kind_name(kind));
        cJSON_AddNumberToObject(item, "ms", (double)explain->spent_ms[kind]);
        cJSON_AddItemToArray(array, item);
    }
    return array;
}

static void add_now(cJSON *json, const struct explain *explain)
{
    cJSON *helps = cJSON_CreateArray();
    for (size_t i = 0; i < explain->n_help; i++)
        cJSON_AddItemToArray(helps, cJSON_CreateString(explain->help[i]));
    add_text(json, "now", explain->now);
    add_text(json, "waiting", explain->is_over ? "" : explain->waiting);
    cJSON_AddItemToObject(json, "help", helps);
}

cJSON *explain_json(const struct explain *explain)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", explain->id);
    cJSON_AddStringToObject(json, "state", amp_task_state_short(explain->state));
    cJSON_AddBoolToObject(json, "durable", explain->is_durable);
    add_text(json, "agent", explain->agent);
    add_text(json, "skill", explain->skill);
    add_text(json, "from", explain->from);
    add_text(json, "asked", explain->text);
    json_add_time(json, "submitted", explain->submitted_unix_ms);
    json_add_time(json, "ended", explain->ended_unix_ms);
    cJSON_AddNumberToObject(json, "totalMs", (double)explain->total_ms);
    cJSON_AddStringToObject(json, "verdict", explain->verdict);
    add_text(json, "error", explain->is_over ? explain->error : "");
    add_now(json, explain);
    cJSON_AddItemToObject(json, "time", time_json(explain));
    cJSON *waits = cJSON_AddArrayToObject(json, "waits"), *children = cJSON_AddArrayToObject(json, "children");
    for (size_t i = 0; i < explain->n_spans; i++) {
        const struct explain_span *span = &explain->spans[i];
        if (span->kind != EXPLAIN_WORK && span->kind != EXPLAIN_LOST)
            cJSON_AddItemToArray(span->kind == EXPLAIN_CHILD ? children : waits, span_json(span));
    }
    cJSON *attempts = cJSON_AddArrayToObject(json, "attempts"), *instances = cJSON_AddArrayToObject(json, "instances");
    for (size_t i = 0; i < explain->n_attempts; i++)
        cJSON_AddItemToArray(attempts, attempt_json(&explain->attempts[i]));
    for (size_t i = 0; i < explain->n_instances; i++)
        cJSON_AddItemToArray(instances, instance_json(explain, &explain->instances[i]));
    if (explain->is_cut)
        cJSON_AddTrueToObject(json, "cut");
    return json;
}
