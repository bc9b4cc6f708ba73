/* amesh task show: what happened in one task. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/blobs.h"
#include "base/clock.h"
#include "base/loop.h"
#include "cli/agents.h"
#include "cli/error.h"
#include "cli/event.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/save.h"
#include "cli/task.h"
#include "cli/timeline.h"

#define DEATHS_AGENTS_MAX 4u /* whose death reports are asked for */

enum show_mode { SHOW_TIMELINE, SHOW_EVENTS };

struct show {
    struct cli cli;
    enum show_mode mode;
    bool is_tree;
    struct timeline *timeline;
    struct amp_arena arena; /* of the event in hand */
    struct task_tree *tree; /* or NULL */
    uint32_t shown;         /* children in the timeline */
    bool is_cut;            /* there are more than TASK_TREE_MAX */
    uint32_t n_events;      /* printed */
    bool is_begun, has_more; /* pages of events */
    const char *output;      /* where its files go, or NULL */
    struct amp_fold *fold;   /* for them */
    int save_status;
};

static void print_field(const struct cli *cli, const char *name, const char *text)
{
    if (text == NULL || *text == '\0')
        return;
    char *line = print_line(text, 0);
    printf("%s%-10s%s %s\n", print_on(&cli->out, PRINT_DIM), name, print_off(&cli->out), line);
    free(line);
}

static void print_time(const struct cli *cli, const char *name, int64_t ms)
{
    char text[PRINT_SHORT_SIZE];
    print_duration(ms, text);
    print_field(cli, name, text);
}

/* Of all its attempts together; what lies between two of them is a wait. */
static void print_times(const struct cli *cli, const Amp__TaskRecord *record)
{
    const Amp__Task *task = record->task;
    cJSON *metadata = NULL;
    const cJSON *item = NULL;
    int64_t waited_ms = 0, ran_ms = 0;
    if (task->metadata == NULL || amp_json_parse((struct amp_bytes){task->metadata->text.data, task->metadata->text.len}, &metadata, NULL) != AMP_OK)
        return;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(metadata, "amp/attempts")) {
        int64_t ready = json_time_of(item, "readyAt"), started = json_time_of(item, "startedAt"), ended = json_time_of(item, "endedAt");
        waited_ms += started > ready ? started - ready : 0;
        ran_ms += started > 0 && ended > started ? ended - started : 0;
    }
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(metadata, "amp/waits"))
        waited_ms += json_time_of(item, "to") - json_time_of(item, "from");
    cJSON_Delete(metadata);
    if (record->started != NULL || waited_ms > 0)
        print_time(cli, "waited", waited_ms);
    if (record->started != NULL && record->ended != NULL)
        print_time(cli, "ran", ran_ms);
}

/* What the mesh knows of it besides: members of the metadata, a text each or a document. */
static void print_known(const struct cli *cli, const Amp__Task *task)
{
    static const struct {
        const char *key, *name;
    } known[] = {{"amp/deadline", "deadline"}, {"amp/schedule", "schedule"}, {"amp/retryOf", "retry of"}, {"amp/forkedFrom", "forked"}};
    cJSON *metadata = NULL;
    if (task->metadata == NULL || amp_json_parse((struct amp_bytes){task->metadata->text.data, task->metadata->text.len}, &metadata, NULL) != AMP_OK)
        return;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(metadata, known[i].key);
        const cJSON *from = cJSON_GetObjectItemCaseSensitive(item, "task"), *seq = cJSON_GetObjectItemCaseSensitive(item, "seq");
        char *whole = item == NULL || cJSON_IsString(item)              ? NULL
                      : cJSON_IsString(from) && cJSON_IsNumber(seq) ? xasprintf("from %s, event %.0f", from->valuestring, seq->valuedouble)
                                                                    : cJSON_PrintUnformatted(item);
        print_field(cli, known[i].name, whole != NULL ? whole : cJSON_GetStringValue(item));
        cJSON_free(whole);
    }
    cJSON_Delete(metadata);
}

static void print_head(const struct show *show, const Amp__TaskRecord *record)
{
    const struct cli *cli = &show->cli;
    const char *state = amp_task_state_short(cli_task_state(record));
    char target[96];
    task_target(record, target, sizeof target);
    printf("%s%s%s  %s%s%s%s\n", print_on(&cli->out, PRINT_BOLD), record->task->id, print_off(&cli->out),
           print_on(&cli->out, print_state_color(state)), state, print_off(&cli->out), record->durable ? "  durable" : "");
    print_field(cli, "agent", target);
    print_field(cli, "from", record->from);
    print_field(cli, "context", record->task->context_id);
    print_field(cli, "parent", record->parent);
    print_known(cli, record->task);
    print_field(cli, "waits", record->waiting);
    print_times(cli, record);
    char *text = task_request_text(record, 200);
    print_field(cli, "asked", text);
    free(text);
    if (record->incomplete)
        print_field(cli, "note", record->durable ? "events are missing: the journal was damaged" : "events are missing: this call was seen in part");
}

static void print_events(struct show *show, const Amp__TaskRecord *record)
{
    if (record->n_events > 0 && show->n_events == 0 && !show->cli.is_json)
        putchar('\n');
    for (size_t i = 0; i < record->n_events; i++) {
        Amp__StreamResponse *body = NULL;
        const Amp__Event *event = record->events[i];
        amp_arena_reset(&show->arena);
        bool is_readable = event_decode(event, &show->arena, &body, NULL) == AMP_OK;
        struct event_head head = {.seq = ++show->n_events, .unix_ms = event->time != NULL ? event->time->unix_ms : 0};
        if (is_readable && show->cli.is_json)
            event_print_json(stdout, &head, body);
        else if (is_readable)
            event_print_line(stdout, &show->cli.out, &head, body);
    }
    if (show->has_more || show->cli.is_json || record->error == NULL || record->error->code == AMP_OK)
        return;
    struct amp_error err = {0};
    amp_error_from_wire(&err, record->error);
    putchar('\n');
    error_print_plain(stdout, &show->cli.out, &err, record->error);
}

/* ---- the timeline ------------------------------------------------------------------------------------ */

static int on_child(void *ctx, const Amp__EnvReply *reply)
{
    struct show *show = ctx;
    for (size_t i = reply->n_tasks; i-- > 0;)
        timeline_child(show->timeline, reply->tasks[i]);
    show->shown += (uint32_t)reply->n_tasks;
    show->is_cut = show->shown >= TASK_TREE_MAX && reply->next_page_token != NULL;
    return show->shown >= TASK_TREE_MAX ? CLI_ENOUGH : 0;
}

static int add_children(struct show *show, const char *parent)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.parent = (char *)parent;
    query.has_page_size = true;
    query.page_size = 100;
    request.verb_case = AMP__ENV_REQUEST__VERB_LIST;
    request.list = &query;
    return cli_request_pages(&show->cli, &request, on_child, show);
}

static int on_deaths(void *ctx, const Amp__EnvReply *reply)
{
    struct show *show = ctx;
    for (size_t i = 0; i < reply->n_agents; i++)
        for (size_t k = 0; k < reply->agents[i]->n_deaths; k++)
            timeline_death(show->timeline, reply->agents[i]->deaths[k]);
    return 0;
}

/* What the processes said last whose attempts ended badly. An agent that is forgotten has none: no error. */
static void add_deaths(struct show *show)
{
    const char *agents[DEATHS_AGENTS_MAX];
    size_t count = timeline_agents(show->timeline, agents, DEATHS_AGENTS_MAX);
    for (size_t i = 0; i < count; i++) {
        Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        struct amp_error err;
        query.name = (char *)agents[i];
        query.has_deaths = query.deaths = true;
        request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
        request.agents = &query;
        (void)cli_ask_pages(&show->cli, &request, on_deaths, show, &err);
    }
}

static void add_events(struct show *show, const Amp__TaskRecord *record)
{
    for (size_t i = 0; i < record->n_events; i++) {
        Amp__StreamResponse *body = NULL;
        const Amp__Event *event = record->events[i];
        amp_arena_reset(&show->arena);
        uint32_t seq = ++show->n_events;
        if (event_decode(event, &show->arena, &body, NULL) == AMP_OK)
            timeline_event(show->timeline, seq, event->time != NULL ? event->time->unix_ms : 0, body);
    }
}

/* ---- show -------------------------------------------------------------------------------------------- */

static void print_error(const struct show *show, const Amp__TaskRecord *record)
{
    struct amp_error err = {0};
    if (record->error == NULL || record->error->code == AMP_OK)
        return;
    amp_error_from_wire(&err, record->error);
    print_field(&show->cli, "error", err.message);
    if (err.hint[0] != '\0')
        print_field(&show->cli, "hint", err.hint);
}

/* ---- its files --------------------------------------------------------------------------------------- */

static void fold_events(struct show *show, const Amp__TaskRecord *record)
{
    if (show->fold == NULL)
        show->fold = amp_fold_new(record->task->id, record->task->context_id != NULL ? record->task->context_id : "", AMP_FOLD_BYTES_MAX);
    for (size_t i = 0; show->fold != NULL && i < record->n_events; i++) {
        const ProtobufCBinaryData *body = &record->events[i]->body->text;
        (void)amp_fold_apply(show->fold, (struct amp_bytes){body->data, body->len}, NULL);
    }
}

static void on_wrote(void *ctx, const char *path, long long bytes)
{
    const struct show *show = ctx;
    char *line = print_line(path, 0);
    fprintf(stderr, "%swrote %s (%lld bytes)%s\n", print_on(&show->cli.err, PRINT_DIM), line, bytes, print_off(&show->cli.err));
    free(line);
}

static void on_saved(void *ctx, int status)
{
    struct show *show = ctx;
    show->save_status = status;
    loop_stop(show->cli.loop, 0);
}

static int save_files(struct show *show)
{
    char holder[AMP_ID_SIZE];
    size_t elsewhere;
    const Amp__Task *task = show->fold != NULL ? amp_fold_task(show->fold) : NULL;
    if (task == NULL || save_count(task, &elsewhere) == 0) {
        fprintf(stderr, "the answer has no files\n");
        return 0;
    }
    fflush(stdout);
    amp_id_new('i', clock_unix_ms(), holder);
    struct blobs *blobs = blobs_new(show->cli.loop, show->cli.bus, &(struct blobs_options){.home = show->cli.home.path, .holder = holder, .from = show->cli.from});
    struct save *save = save_new(&(struct save_options){.cli = &show->cli, .blobs = blobs, .directory = show->output, .on_wrote = on_wrote, .on_done = on_saved, .ctx = show});
    save_add(save, task);
    show->save_status = -1;
    save_start(save);
    if (show->save_status < 0) /* else nothing had to be fetched, and the loop is told to stop before it begins */
        loop_run(show->cli.loop);
    save_free(save);
    blobs_free(blobs);
    return show->save_status;
}

static int on_task(void *ctx, const Amp__EnvReply *reply)
{
    struct show *show = ctx;
    struct cli *cli = &show->cli;
    bool is_first = !show->is_begun;
    if (reply->n_tasks == 0)
        return cli_fail_with(cli, AMP_NO_SUCH_TASK, "there is no task %s", cli->args->rest[0]);
    const Amp__TaskRecord *record = reply->tasks[0];
    show->is_begun = true;
    show->has_more = reply->next_page_token != NULL;
    if (show->output != NULL)
        fold_events(show, record);
    if (is_first && !cli->is_json)
        print_head(show, record);
    if (is_first && !cli->is_json && show->mode == SHOW_TIMELINE)
        print_error(show, record);
    if (is_first && show->mode == SHOW_TIMELINE)
        timeline_record(show->timeline, record);
    if (show->mode == SHOW_TIMELINE)
        add_events(show, record);
    else
        print_events(show, record);
    return output_is_lost() ? CLI_ENOUGH : 0;
}

/* The A2A Task, and the timeline behind what its metadata say. */
static int on_document(void *ctx, const Amp__EnvReply *reply)
{
    struct show *show = ctx;
    if (reply->n_tasks == 0)
        return cli_fail_with(&show->cli, AMP_NO_SUCH_TASK, "there is no task %s", show->cli.args->rest[0]);
    Amp__Task *task = reply->tasks[0]->task;
    cJSON *timeline = timeline_json(show->timeline);
    char *lines = cJSON_PrintUnformatted(timeline);
    const Amp__Json *said = task->metadata;
    size_t kept = said != NULL && said->text.len > 2 ? said->text.len - 1 : 0;
    cJSON *tree = show->tree != NULL ? task_tree_json(show->tree) : NULL;
    char *branches = tree != NULL ? cJSON_PrintUnformatted(tree) : NULL;
    char *text = xasprintf("%.*s%s\"amp/timeline\":%s%s%s}", (int)kept, kept > 0 ? (const char *)said->text.data : "", kept > 0 ? "," : "{", lines != NULL ? lines : "[]",
                           branches != NULL ? ",\"amp/tree\":" : "", branches != NULL ? branches : "");
    Amp__Json metadata = AMP__JSON__INIT;
    metadata.text = (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
    task->metadata = &metadata;
    bool is_ok = output_message(stdout, &task->base);
    task->metadata = (Amp__Json *)said;
    free(text);
    cJSON_free(lines);
    cJSON_free(branches);
    cJSON_Delete(timeline);
    cJSON_Delete(tree);
    return is_ok ? 0 : cli_fail_with(&show->cli, AMP_TOO_LARGE, "the task is too large to be shown");
}

static int print_document(struct show *show, const char *id)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.id = (char *)id;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    return cli_request(&show->cli, &request, on_document, show);
}

static int show_task(struct show *show, const char *id)
{
    int status = show->is_tree ? task_tree_read(&show->cli, id, &show->tree) : 0;
    if (status == 0 && show->is_tree && !show->cli.is_json) {
        task_tree_print(show->tree);
        return 0;
    }
    if (status == 0)
        status = cli_request_task(&show->cli, id, on_task, show);
    if (status == 0 && show->mode == SHOW_TIMELINE)
        status = add_children(show, id);
    if (status == 0 && show->mode == SHOW_TIMELINE)
        add_deaths(show);
    if (status == 0 && show->mode == SHOW_TIMELINE && show->cli.is_json)
        return print_document(show, id);
    if (status == 0 && show->mode == SHOW_TIMELINE) {
        putchar('\n');
        timeline_print(stdout, &show->cli.out, show->timeline);
    }
    return status == CLI_ENOUGH ? 0 : status;
}

static int read_mode(struct show *show)
{
    bool is_tree = command_flag(show->cli.command, show->cli.args, "tree"), is_events = command_flag(show->cli.command, show->cli.args, "events");
    if (is_tree && is_events)
        return cli_usage(&show->cli, "--tree or --events, not both");
    show->output = command_value(show->cli.command, show->cli.args, "output");
    if (is_tree && show->output != NULL)
        return cli_usage(&show->cli, "--tree or --output, not both: the files of one task are written");
    show->is_tree = is_tree;
    show->mode = is_events ? SHOW_EVENTS : SHOW_TIMELINE;
    return 0;
}

int task_run_show(const struct command *command, struct command_args *args)
{
    struct show show = {0};
    int status = cli_init(&show.cli, command, args);
    if (status == 0)
        status = cli_operands(&show.cli, 1, 1);
    if (status == 0)
        status = cli_id(&show.cli, "the task", args->rest[0]);
    if (status == 0)
        status = read_mode(&show);
    if (status == 0)
        status = save_prepare(&show.cli, show.output);
    if (status == 0)
        status = cli_connect(&show.cli);
    if (status == 0) {
        amp_arena_init(&show.arena, AMP_ARENA_BYTES_MAX);
        show.timeline = timeline_new();
        status = show_task(&show, args->rest[0]);
        if (show.is_cut)
            fprintf(stderr, "only %u child tasks are shown\n", TASK_TREE_MAX);
        if (status == 0 && show.output != NULL)
            status = save_files(&show);
        amp_fold_free(show.fold);
        task_tree_free(show.tree);
        timeline_free(show.timeline);
        amp_arena_done(&show.arena);
    }
    cli_done(&show.cli);
    return status;
}
