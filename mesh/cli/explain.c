#include "cli/explain.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/event.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/task.h"
#include "cli/timeline_private.h"


struct reading {
    struct cli cli;
    struct explain explain;
    struct timeline *timeline; /* of the events: questions */
    struct amp_arena arena;    /* of the event in hand */
    uint32_t n_events;
    bool is_read;
};

static void put(char *ret, size_t size, const char *text)
{
    snprintf(ret, size, "%.*s", (int)amp_utf8_cut(amp_bytes_of(text != NULL ? text : ""), size - 1), text != NULL ? text : "");
}

#define PUT(array, text) put(array, sizeof(array), text)

/* What others say of themselves is data. */
static void put_host(char ret[AMP_NAME_MAX + 1], const char *host)
{
    char *clean = print_line(host != NULL ? host : "", AMP_NAME_MAX);
    put(ret, AMP_NAME_MAX + 1, clean);
    free(clean);
}

/* NULL: there are too many. A span without an end goes on to this moment. */
static struct explain_span *add_span(struct explain *explain, enum explain_kind kind, int64_t from_unix_ms, int64_t to_unix_ms)
{
    if (explain->n_spans == EXPLAIN_SPANS_MAX || from_unix_ms == 0) {
        explain->is_cut |= explain->n_spans == EXPLAIN_SPANS_MAX;
        return NULL;
    }
    bool is_open = to_unix_ms == 0 && !explain->is_over;
    int64_t end = explain->ended_unix_ms > 0 ? explain->ended_unix_ms : explain->now_unix_ms;
    explain->spans = xrealloc(explain->spans, (explain->n_spans + 1) * sizeof *explain->spans);
    struct explain_span *span = &explain->spans[explain->n_spans++];
    *span = (struct explain_span){.kind = kind, .from_unix_ms = from_unix_ms, .to_unix_ms = to_unix_ms > 0 ? to_unix_ms : end, .is_open = is_open};
    if (span->to_unix_ms < from_unix_ms)
        span->to_unix_ms = from_unix_ms;
    return span;
}

/* ---- the record -------------------------------------------------------------------------------------------- */

/* Returns the last reason. */
static const char *add_waits(struct explain *explain, const cJSON *waits, bool is_now)
{
    const cJSON *wait = NULL;
    const char *last = "";
    cJSON_ArrayForEach(wait, waits) {
        last = json_text_of(wait, "reason");
        enum explain_kind kind = explain_wait_kind(last);
        bool is_open = is_now && wait->next == NULL;
        struct explain_span *before = explain->n_spans > 0 ? &explain->spans[explain->n_spans - 1] : NULL;
        if (before != NULL && before->kind == kind && kind != EXPLAIN_PLANNED && strcmp(before->text, last) == 0 && json_time_of(wait, "from") - before->to_unix_ms <= TIMELINE_SAME_MS) {
            before->to_unix_ms = is_open ? explain->now_unix_ms : json_time_of(wait, "to");
            before->is_open = is_open;
            continue; /* the same wait, looked at again in between */
        }
        struct explain_span *span = add_span(explain, kind, json_time_of(wait, "from"), is_open ? 0 : json_time_of(wait, "to"));
        if (span != NULL)
            PUT(span->text, last);
    }
    return last;
}

static void add_attempt(struct explain *explain, const cJSON *item)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(item, "attempt");
    const char *waited_for = add_waits(explain, cJSON_GetObjectItemCaseSensitive(item, "waits"), false);
    int64_t started = json_time_of(item, "startedAt"), ended = json_time_of(item, "endedAt");
    if (started == 0)
        return; /* nobody had it */
    if (explain->n_attempts == EXPLAIN_ATTEMPTS_MAX) {
        explain->is_cut = true;
        return;
    }
    struct explain_attempt *attempt = &explain->attempts[explain->n_attempts++];
    attempt->number = cJSON_IsNumber(number) ? number->valueint : 0;
    PUT(attempt->instance, json_text_of(item, "instance"));
    PUT(attempt->agent, json_text_of(item, "agent"));
    put_host(attempt->host, json_text_of(item, "host"));
    PUT(attempt->outcome, json_text_of(item, "outcome"));
    PUT(attempt->reason, json_text_of(item, "reason"));
    PUT(attempt->waited_for, waited_for);
    attempt->ready_unix_ms = json_time_of(item, "readyAt");
    attempt->started_unix_ms = started;
    attempt->ended_unix_ms = ended;
}

/* All but the last are attempts whose work nobody got. */
static void add_works(struct explain *explain)
{
    for (size_t i = 0; i < explain->n_attempts; i++) {
        const struct explain_attempt *attempt = &explain->attempts[i];
        bool is_lost = i + 1 < explain->n_attempts || (attempt->ended_unix_ms > 0 && !explain->is_over);
        (void)add_span(explain, is_lost ? EXPLAIN_LOST : EXPLAIN_WORK, attempt->started_unix_ms, attempt->ended_unix_ms);
    }
}

static void take_record(struct explain *explain, const Amp__TaskRecord *record)
{
    const Amp__Task *task = record->task;
    cJSON *metadata = NULL;
    const cJSON *item = NULL;
    explain->state = cli_task_state(record);
    explain->is_over = amp_task_is_terminal(explain->state);
    explain->is_durable = record->durable;
    explain->submitted_unix_ms = record->submitted != NULL ? record->submitted->unix_ms : 0;
    explain->ended_unix_ms = explain->is_over && record->ended != NULL ? record->ended->unix_ms : 0;
    explain->text = task_request_text(record, 60);
    PUT(explain->id, task->id);
    PUT(explain->agent, record->agent);
    PUT(explain->skill, record->skill);
    PUT(explain->from, record->from);
    PUT(explain->waiting, record->waiting);
    PUT(explain->error, record->error != NULL ? record->error->message : "");
    if (task->metadata == NULL || amp_json_parse((struct amp_bytes){task->metadata->text.data, task->metadata->text.len}, &metadata, NULL) != AMP_OK)
        return;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(metadata, "amp/attempts"))
        add_attempt(explain, item);
    (void)add_waits(explain, cJSON_GetObjectItemCaseSensitive(metadata, "amp/waits"), !explain->is_over);
    add_works(explain);
    cJSON_Delete(metadata);
}

static int on_task(void *ctx, const Amp__EnvReply *reply)
{
    struct reading *reading = ctx;
    if (reply->n_tasks == 0)
        return cli_fail_with(&reading->cli, AMP_NO_SUCH_TASK, "there is no task %s", reading->cli.args->rest[0]);
    const Amp__TaskRecord *record = reply->tasks[0];
    if (!reading->is_read) {
        take_record(&reading->explain, record);
        timeline_record(reading->timeline, record);
    }
    reading->is_read = true;
    for (size_t i = 0; i < record->n_events; i++) {
        Amp__StreamResponse *body = NULL;
        const Amp__Event *event = record->events[i];
        amp_arena_reset(&reading->arena);
        uint32_t seq = ++reading->n_events;
        if (event_decode(event, &reading->arena, &body, NULL) == AMP_OK)
            timeline_event(reading->timeline, seq, event->time != NULL ? event->time->unix_ms : 0, body);
    }
    return 0;
}

static int read_task(struct reading *reading, const char *id)
{
    int status = cli_request_task(&reading->cli, id, on_task, reading);
    for (size_t i = 0; status == 0 && i < reading->timeline->count; i++) {
        const struct item *item = &reading->timeline->items[i];
        if (item->kind != TIMELINE_QUESTION || item->is_again)
            continue;
        struct explain_span *span = add_span(&reading->explain, EXPLAIN_QUESTION, item->at_unix_ms, item->until_unix_ms);
        if (span != NULL)
            PUT(span->text, item->text);
    }
    return status;
}

/* ---- children and instances ---------------------------------------------------------------------------------- */

static int on_children(void *ctx, const Amp__EnvReply *reply)
{
    struct explain *explain = &((struct reading *)ctx)->explain;
    size_t count = 0;
    for (size_t i = 0; i < explain->n_spans; i++)
        count += explain->spans[i].kind == EXPLAIN_CHILD;
    for (size_t i = 0; i < reply->n_tasks; i++) {
        const Amp__TaskRecord *child = reply->tasks[i];
        struct explain_span *span = count++ < EXPLAIN_CHILDREN_MAX && child->submitted != NULL
                                        ? add_span(explain, EXPLAIN_CHILD, child->submitted->unix_ms, child->ended != NULL ? child->ended->unix_ms : 0)
                                        : NULL;
        explain->is_cut |= count > EXPLAIN_CHILDREN_MAX;
        if (span == NULL)
            continue;
        task_target(child, span->text, sizeof span->text);
        PUT(span->id, child->task->id);
        span->state = cli_task_state(child);
        span->is_open = !amp_task_is_terminal(span->state); /* it may outlive its parent */
    }
    return count >= EXPLAIN_CHILDREN_MAX ? CLI_ENOUGH : 0;
}

static int read_children(struct reading *reading, const char *id)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.parent = (char *)id;
    query.has_page_size = true;
    query.page_size = EXPLAIN_CHILDREN_MAX;
    request.verb_case = AMP__ENV_REQUEST__VERB_LIST;
    request.list = &query;
    return cli_request_pages(&reading->cli, &request, on_children, reading);
}

/* NULL: there are too many. */
static struct explain_instance *add_instance(struct explain *explain, const char *agent, const char *name)
{
    if (explain->n_instances == EXPLAIN_INSTANCES_MAX) {
        explain->is_cut = true;
        return NULL;
    }
    explain->instances = xrealloc(explain->instances, (explain->n_instances + 1) * sizeof *explain->instances);
    struct explain_instance *instance = &explain->instances[explain->n_instances++];
    *instance = (struct explain_instance){0};
    PUT(instance->name, name);
    PUT(instance->agent, agent);
    return instance;
}

static int on_agents(void *ctx, const Amp__EnvReply *reply)
{
    struct reading *reading = ctx;
    for (size_t i = 0; i < reply->n_agents; i++) {
        const Amp__AgentRecord *agent = reply->agents[i];
        for (size_t k = 0; k < agent->n_instances; k++) {
            const Amp__Beat *beat = agent->instances[k]->beat;
            struct explain_instance *instance = add_instance(&reading->explain, agent->name, beat->instance);
            if (instance == NULL)
                return CLI_ENOUGH;
            put_host(instance->host, beat->host);
            instance->is_known = true;
            instance->state = beat->state;
            instance->slots = beat->slots;
            instance->free = beat->free;
            instance->since_unix_ms = beat->since != NULL ? beat->since->unix_ms : 0;
            instance->progress_unix_ms = beat->last_progress != NULL ? beat->last_progress->unix_ms : 0;
            for (size_t t = 0; t < beat->n_tasks && instance->n_tasks < EXPLAIN_BUSY_MAX; t++)
                put(instance->tasks[instance->n_tasks++], sizeof instance->tasks[0], beat->tasks[t]);
        }
    }
    return 0;
}

/* Nobody of that name is no error here: then nobody can do it. */
static void read_instances(struct reading *reading)
{
    struct explain *explain = &reading->explain;
    Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct amp_error err;
    if (explain->skill[0] != '\0')
        query.skill = explain->skill;
    else
        query.name = explain->agent;
    request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
    request.agents = &query;
    (void)cli_ask_pages(&reading->cli, &request, on_agents, reading, &err);
    for (size_t i = 0; i < explain->n_attempts; i++) {
        const struct explain_attempt *attempt = &explain->attempts[i];
        struct explain_instance *instance = explain_instance(explain, attempt->instance) == NULL ? add_instance(explain, attempt->agent, attempt->instance) : NULL;
        if (instance != NULL)
            PUT(instance->host, attempt->host);
    }
}

/* ---- the command ------------------------------------------------------------------------------------------------ */

static int explain_task(struct reading *reading, const char *id)
{
    int status = read_task(reading, id);
    if (status == 0)
        status = read_children(reading, id);
    if (status != 0)
        return status;
    read_instances(reading);
    explain_conclude(&reading->explain);
    if (reading->cli.is_json)
        output_json(stdout, explain_json(&reading->explain));
    else
        explain_print(&reading->cli, &reading->explain);
    return 0;
}

int explain_run(const struct command *command, struct command_args *args)
{
    struct reading reading = {.explain.now_unix_ms = clock_unix_ms()};
    int status = cli_init(&reading.cli, command, args);
    if (status == 0)
        status = cli_operands(&reading.cli, 1, 1);
    if (status == 0)
        status = cli_id(&reading.cli, "the task", args->rest[0]);
    if (status == 0)
        status = cli_connect(&reading.cli);
    if (status == 0) {
        amp_arena_init(&reading.arena, AMP_ARENA_BYTES_MAX);
        reading.timeline = timeline_new();
        status = explain_task(&reading, args->rest[0]);
        timeline_free(reading.timeline);
        amp_arena_done(&reading.arena);
    }
    free(reading.explain.text);
    free(reading.explain.spans);
    free(reading.explain.instances);
    cli_done(&reading.cli);
    return status;
}
