/* amesh ask through the environment: submit or answer, then watch. */
#include <cjson/cJSON.h>
#include <string.h>

#include "base/call.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "cli/ask.h"
#include "cli/output.h"

#define LOOK_MIN_MS 300u /* of silence, before it is looked what the task waits for */
#define LOOK_MAX_MS 5000u

enum amp_code ask_send_answer(struct ask *ask, const char *question, Amp__Message *message, struct amp_error *reterr)
{
    Amp__Answer answer = AMP__ANSWER__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    answer.input_id = (char *)question;
    answer.message = message;
    control.kind_case = AMP__CONTROL__KIND_ANSWER;
    control.answer = &answer;
    command.id = ask->task_id;
    command.control = &control;
    request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
    request.command = &command;
    enum amp_code code =
        env_call(ask->cli.loop, ask->cli.bus, ask->cli.from, &request, ask->cli.timeout_ms, ask_on_answered, ask, &ask->answer_call);
    if (code != AMP_OK)
        amp_error_set(reterr, code, "", "the answer could not be sent: %s", amp_code_info(code)->text);
    return code;
}

/* 1: it is not whole, as one message could not carry it. */
static int print_record(void *ctx, const Amp__EnvReply *reply)
{
    const Amp__Json *metadata = reply->n_tasks > 0 ? reply->tasks[0]->task->metadata : NULL;
    if (metadata != NULL && memmem(metadata->text.data, metadata->text.len, "\"amp/omitted\"", 13) != NULL)
        return 1;
    return reply->n_tasks > 0 && output_message(stdout, &reply->tasks[0]->task->base) ? 0 : 1;
}

/* Not 0: there was no answer, or on_record said so. */
static int get_record(struct ask *ask, int (*on_record)(void *ctx, const Amp__EnvReply *reply))
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct amp_error err = {0};
    query.id = ask->task_id;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    int status = cli_ask_env(&ask->cli, &request, on_record, ask, &err);
    return err.code != AMP_OK ? 1 : status;
}

/* With --json the document is the environment's record, or what was seen here where that does not fit a message. */
static void print_final(struct ask *ask)
{
    if (get_record(ask, print_record) != 0)
        answer_print_task(&ask->answer, ask->parent, NULL);
}

/* The record has it: {"amp/attempts":[{"agent":…,"instance":…}]}. */
static int tell_taken(void *ctx, const Amp__EnvReply *reply)
{
    struct ask *ask = ctx;
    const Amp__Json *metadata = reply->n_tasks > 0 ? reply->tasks[0]->task->metadata : NULL;
    cJSON *json = NULL;
    if (metadata == NULL || amp_json_parse((struct amp_bytes){.data = metadata->text.data, .len = metadata->text.len}, &json, NULL) != AMP_OK)
        return 0;
    const cJSON *attempts = cJSON_GetObjectItemCaseSensitive(json, "amp/attempts");
    const cJSON *last = cJSON_GetArrayItem(attempts, cJSON_GetArraySize(attempts) - 1);
    const char *agent = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(last, "agent"));
    const char *instance = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(last, "instance"));
    if (agent != NULL && instance != NULL)
        answer_taken(&ask->answer, agent, instance);
    cJSON_Delete(json);
    return 0;
}

/* It was over before it could be watched. */
static void find_taken(struct ask *ask)
{
    (void)get_record(ask, tell_taken); /* nothing is told without an answer */
}

/* ---- what it waits for ----------------------------------------------------------------------------------- */

/* "starts at … (in 3 h)" and an hour later are the same. */
static bool is_same_wait(const char *text, const char *before)
{
    static const char start[] = "starts at ";
    size_t len = strcspn(text, "(");
    return strncmp(text, start, sizeof start - 1) == 0 ? strncmp(text, before, len) == 0 : strcmp(text, before) == 0;
}

/* Nothing came since the last look: it may be waiting, and nothing announces that. */
static void on_looked(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct ask *ask = ctx;
    ask->look_call = NULL;
    const char *waiting = err->code == AMP_OK && reply->n_tasks > 0 ? reply->tasks[0]->waiting : NULL;
    if (waiting != NULL && *waiting != '\0' && !is_same_wait(waiting, ask->waiting)) {
        snprintf(ask->waiting, sizeof ask->waiting, "%s", waiting);
        answer_notice(&ask->answer, "waiting: %s", waiting);
    }
    loop_timer_set(ask->look, ask->look_ms);
}

static void on_look(void *ctx)
{
    struct ask *ask = ctx;
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    bool is_quiet = ask->look_seq == ask->answer.seq;
    ask->look_seq = ask->answer.seq;
    ask->look_ms = !is_quiet ? LOOK_MIN_MS : ask->look_ms < LOOK_MAX_MS / 2 ? ask->look_ms * 2 : LOOK_MAX_MS;
    query.id = ask->task_id;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    if (!is_quiet || ask->is_ended || ask->is_left || amp_task_is_waiting(ask->answer.state) ||
        env_call(ask->cli.loop, ask->cli.bus, ask->cli.from, &request, ask->cli.timeout_ms, on_looked, ask, &ask->look_call) != AMP_OK) {
        ask->look_call = NULL;
        loop_timer_set(ask->look, ask->look_ms);
    }
}

static void on_away(void *ctx, const char *why)
{
    struct ask *ask = ctx;
    answer_end_text(&ask->answer);
    away_lost(&ask->away, why);
}

static void on_back(void *ctx)
{
    struct ask *ask = ctx;
    answer_end_text(&ask->answer);
    away_back(&ask->away, NULL);
}

static void watch(struct ask *ask)
{
    static const struct env_watch_handlers handlers = {.on_event = ask_on_event, .on_taken = ask_on_taken, .on_end = ask_on_end, .on_away = on_away, .on_back = on_back};
    away_init(&ask->away, &ask->cli, "the task is kept");
    ask->away.has_heard = true; /* it answered: it has the task */
    enum amp_code code = env_watch_start(ask->cli.loop, ask->cli.bus, ask->cli.from, ask->task_id, 1, 0, &handlers, ask, &ask->watch);
    if (code != AMP_OK) {
        ask->watch = NULL;
        ask->status = cli_fail_with(&ask->cli, code, "the task %s cannot be watched: %s", ask->task_id, amp_code_info(code)->text);
        return;
    }
    ask->look_ms = LOOK_MIN_MS;
    ask->look = loop_timer_new(ask->cli.loop, on_look, ask);
    loop_timer_set(ask->look, ask->look_ms);
    loop_run(ask->cli.loop);
    loop_timer_stop(ask->look);
    if (ask->is_verbose && ask->is_ended && ask->answer.taken == 0)
        find_taken(ask);
    bool is_asked = ask->is_left && ask->status == amp_code_info(AMP_INPUT_REQUIRED)->exit;
    if (ask->form == ANSWER_JSON && (ask->is_ended || is_asked))
        print_final(ask);
    if (is_asked)
        ask_explain_question(ask);
}

/* ---- runs ------------------------------------------------------------------------------------------------ */

static int on_submitted(void *ctx, const Amp__EnvReply *reply)
{
    struct ask *ask = ctx;
    if (reply->n_tasks == 0 || reply->tasks[0]->task->id == NULL)
        return cli_fail_with(&ask->cli, AMP_INTERNAL, "the environment accepted the task but did not name it");
    snprintf(ask->task_id, sizeof ask->task_id, "%s", reply->tasks[0]->task->id);
    if (reply->tasks[0]->task->context_id != NULL)
        snprintf(ask->context_id, sizeof ask->context_id, "%s", reply->tasks[0]->task->context_id);
    if (!ask->is_detached) { /* only now: with a key the task may be an older one */
        ask_begin(ask);
        if (reply->tasks[0]->agent != NULL)
            snprintf(ask->answer.agent, sizeof ask->answer.agent, "%s", reply->tasks[0]->agent);
        if (ask->is_verbose)
            answer_notice(&ask->answer, reply->has_duplicate && reply->duplicate ? "the key is known: this is %s" : "accepted as %s", ask->task_id);
        return 0;
    }
    const char *waiting = reply->tasks[0]->waiting;
    if (ask->cli.is_json)
        return print_record(NULL, reply);
    printf("%s\n", ask->task_id);
    (void)output_is_lost(); /* flushed: the id comes first */
    if (ask->when.at.unix_ms > 0 && waiting != NULL)
        fprintf(stderr, "%s. To see its answer: amesh task watch %s\n", waiting, ask->task_id);
    return 0;
}

struct submitted {
    struct ask *ask;
    struct amp_error err;
};

static void on_accepted(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct submitted *submitted = ctx;
    submitted->err = *err;
    if (err->code == AMP_OK)
        submitted->ask->status = on_submitted(submitted->ask, reply);
    loop_stop(submitted->ask->cli.loop, 0);
}

/* An environment that has no room now says when to come back, which is done within the time that there is. */
static int submit_task(struct ask *ask, const Amp__Submit *submit)
{
    const struct cli *cli = &ask->cli;
    struct submitted submitted = {.ask = ask};
    struct env_submit_options options = {.answer_ms = cli->timeout_ms, .patience_ms = ask->is_impatient ? 0 : ask->timeout_ms > 0 ? ask->timeout_ms : ENV_PATIENCE_MS};
    struct env_submit *pending = NULL;
    enum amp_code code = env_submit(cli->loop, cli->bus, cli->from, submit, &options, on_accepted, &submitted, &pending);
    if (code != AMP_OK)
        return cli_fail_with(cli, code, "the request to the environment could not be sent: %s", amp_code_info(code)->text);
    loop_run(cli->loop);
    return submitted.err.code == AMP_OK ? ask->status : ask_fail(ask, &submitted.err);
}

int ask_durable(struct ask *ask)
{
    Amp__Request task = AMP__REQUEST__INIT;
    Amp__Submit submit = AMP__SUBMIT__INIT;
    task.task_id = ask->task_id;
    task.context_id = ask->context_id;
    task.message = ask->message;
    task.parent = (char *)ask->parent;
    task.root = (char *)ask->root;
    task.has_timeout_ms = ask->timeout_ms > 0;
    task.timeout_ms = ask->timeout_ms;
    task.has_hops = ask->hops > 0;
    task.hops = ask->hops;
    task.n_path = ask->n_path;
    task.path = ask->path;
    submit.agent = (char *)ask->agent;
    submit.skill = (char *)ask->skill;
    submit.request = &task;
    submit.key = (char *)ask->key;
    submit.retry = (char *)ask->retry;
    submit.has_detached = submit.detached = ask->parent != NULL && ask->is_apart;
    Amp__Timestamp not_before = AMP__TIMESTAMP__INIT;
    not_before.unix_ms = ask->when.at.unix_ms;
    submit.not_before = ask->when.at.unix_ms > 0 && ask->when.at.in_ms == 0 ? &not_before : NULL;
    submit.has_delay_ms = ask->when.at.in_ms > 0;
    submit.delay_ms = ask->when.at.in_ms;
    struct amp_error err = {0};
    bool is_fine = call_check_path(ask->when.at.unix_ms > 0 ? NULL : ask->agent, ask->hops, ask->path, ask->n_path, &err) == AMP_OK;
    ask->status = is_fine ? submit_task(ask, &submit) : cli_fail(&ask->cli, &err, NULL);
    if (ask->status == 0 && !ask->is_detached) {
        watch(ask);
        ask_end(ask);
    }
    return ask->status;
}

static int on_found(void *ctx, const Amp__EnvReply *reply)
{
    struct ask *ask = ctx;
    if (reply->n_tasks == 0)
        return cli_fail_with(&ask->cli, AMP_NO_SUCH_TASK, "there is no task %s", ask->answered_task);
    const Amp__TaskRecord *record = reply->tasks[0];
    Amp__TaskState state = record->task->status != NULL ? record->task->status->state : AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
    if (amp_task_is_terminal(state))
        return cli_fail_with(&ask->cli, AMP_TASK_ENDED, "task %s has already ended: it is %s", ask->answered_task, amp_task_state_short(state));
    if (!amp_task_is_waiting(state))
        return cli_fail_with(&ask->cli, AMP_NO_QUESTION, "task %s asks nothing: it is %s", ask->answered_task, amp_task_state_short(state));
    ask->mute_until = record->events_count;
    snprintf(ask->task_id, sizeof ask->task_id, "%s", ask->answered_task);
    if (record->task->context_id != NULL)
        snprintf(ask->context_id, sizeof ask->context_id, "%s", record->task->context_id);
    if (record->agent != NULL)
        snprintf(ask->answer.agent, sizeof ask->answer.agent, "%s", record->agent);
    return 0;
}

static int send_to_task(struct ask *ask)
{
    Amp__Answer answer = AMP__ANSWER__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    answer.message = ask->message;
    control.kind_case = AMP__CONTROL__KIND_ANSWER;
    control.answer = &answer;
    command.id = ask->task_id;
    command.control = &control;
    request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
    request.command = &command;
    return cli_request(&ask->cli, &request, NULL, NULL);
}

int ask_answer(struct ask *ask)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    char agent[AMP_NAME_MAX + 1];
    query.id = (char *)ask->answered_task;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    ask->status = cli_request(&ask->cli, &request, on_found, ask);
    if (ask->status != 0)
        return ask->status;
    ask->is_durable = true;
    snprintf(agent, sizeof agent, "%s", ask->answer.agent);
    ask_begin(ask);
    snprintf(ask->answer.agent, sizeof ask->answer.agent, "%s", agent);
    ask->status = send_to_task(ask);
    if (ask->status == 0 && !ask->is_detached)
        watch(ask);
    ask_end(ask);
    return ask->status;
}
