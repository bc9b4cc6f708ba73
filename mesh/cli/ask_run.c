#include "cli/ask.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "cli/event.h"
#include "cli/output.h"

#define ANSWER_LINE_MAX 65536u /* of what is typed at a question */

static void stop(struct ask *ask, int status)
{
    ask->status = status;
    loop_stop(ask->cli.loop, 0);
}

/* ---- questions ---------------------------------------------------------------------------------- */

static void on_answered(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct ask *ask = ctx;
    ask->answer_call = NULL;
    if (err->code != AMP_OK) {
        ask->is_left = true;
        stop(ask, cli_fail(&ask->cli, err, NULL));
    }
}

/* Hands the answer on: into the call, or through the environment. */
static enum amp_code send_answer(struct ask *ask, Amp__Message *message, struct amp_error *reterr)
{
    if (ask->call != NULL)
        return call_answer(ask->call, NULL, message, reterr);
    Amp__Answer answer = AMP__ANSWER__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    answer.message = message;
    control.kind_case = AMP__CONTROL__KIND_ANSWER;
    control.answer = &answer;
    command.id = ask->task_id;
    command.control = &control;
    request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
    request.command = &command;
    enum amp_code code =
        env_call(ask->cli.loop, ask->cli.bus, ask->cli.from, &request, ask->cli.timeout_ms, on_answered, ask, &ask->answer_call);
    if (code != AMP_OK)
        amp_error_set(reterr, code, "", "the answer could not be sent: %s", amp_code_info(code)->text);
    return code;
}

static void answer_with(struct ask *ask, char *text)
{
    char id[AMP_ID_SIZE];
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    struct amp_error err = {0};
    amp_id_new('m', clock_unix_ms(), id);
    part.text = text;
    message.message_id = id;
    message.task_id = ask->task_id;
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    if (!amp_utf8_is_valid(amp_bytes_of(text)))
        amp_error_set(&err, AMP_INVALID, "", "the answer is not UTF-8");
    else if (send_answer(ask, &message, &err) == AMP_OK)
        return;
    ask->is_left = true;
    stop(ask, cli_fail(&ask->cli, &err, NULL));
}

static void on_typed(void *ctx, int events)
{
    struct ask *ask = ctx;
    char line[ANSWER_LINE_MAX];
    ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    loop_io_free(ask->input);
    ask->input = NULL;
    if (n <= 0) { /* ctrl-D: no answer now */
        ask->is_left = true;
        stop(ask, amp_code_info(AMP_INPUT_REQUIRED)->exit);
        return;
    }
    line[n] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    answer_with(ask, line);
}

static void print_question(struct ask *ask)
{
    const char *question = ask->answer.status_text != NULL ? ask->answer.status_text : "";
    answer_end_text(&ask->answer);
    fprintf(stderr, "%s?%s ", print_on(&ask->cli.err, PRINT_YELLOW), print_off(&ask->cli.err));
    print_text(stderr, &(struct print_style){.is_terminal = true}, amp_bytes_of(*question != '\0' ? question : "the agent waits for input"));
}

static void on_question(struct ask *ask)
{
    bool can_ask = ask->form == ANSWER_TEXT && isatty(STDIN_FILENO) == 1 && ask->cli.err.is_terminal;
    if (can_ask) {
        print_question(ask);
        fputs("\n> ", stderr);
        if (ask->input == NULL)
            ask->input = loop_io_new(ask->cli.loop, STDIN_FILENO, on_typed, ask);
        loop_io_want(ask->input, LOOP_READ);
        return;
    }
    ask->is_left = true;
    stop(ask, amp_code_info(AMP_INPUT_REQUIRED)->exit);
}

/* The run ended at a question that nobody could be asked here. */
static void explain_question(struct ask *ask)
{
    if (ask->form != ANSWER_TEXT || ask->cli.is_json) {
        struct amp_error err = {0};
        (void)answer_outcome(&ask->answer, &err);
        amp_error_hint(&err, "amesh ask --task %s TEXT", ask->task_id);
        cli_fail(&ask->cli, &err, NULL);
        return;
    }
    print_question(ask);
    fprintf(stderr, "\nAnswer with: amesh ask --task %s TEXT\n", ask->task_id);
}

/* ---- what comes --------------------------------------------------------------------------------- */

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct ask *ask = ctx;
    struct amp_error err = {0};
    enum answer_form form = ask->answer.form;
    bool is_old = seq <= ask->mute_until;
    if (ask->is_left || ask->is_ended)
        return;
    if (is_old)
        ask->answer.form = ANSWER_JSON; /* folded, not printed */
    enum amp_code code = answer_take(&ask->answer, seq, event, &err);
    ask->answer.form = form;
    if (code != AMP_OK) {
        if (ask->call != NULL)
            call_cancel(ask->call, "the caller does not understand an event");
        ask->is_left = true;
        stop(ask, cli_fail(&ask->cli, &err, NULL));
        return;
    }
    if (amp_task_is_waiting(ask->answer.state)) {
        if (!is_old && !ask->is_interrupted)
            on_question(ask);
    } else if (ask->input != NULL) { /* answered elsewhere, or over */
        loop_io_free(ask->input);
        ask->input = NULL;
    }
}

static void on_taken(void *ctx, const char *agent, const char *instance)
{
    struct ask *ask = ctx;
    answer_taken(&ask->answer, agent, instance);
}

static void on_waiting(void *ctx, const char *reason)
{
    struct ask *ask = ctx;
    answer_notice(&ask->answer, "waiting: %s", reason);
}

static void on_refused(void *ctx, const struct amp_error *err)
{
    struct ask *ask = ctx;
    answer_notice(&ask->answer, "the answer was not taken: %s", err->message);
}

/* The reason's further lines: the error line shows only the first. */
static void print_more_lines(const struct ask *ask)
{
    const char *line = ask->answer.status_text != NULL ? strchr(ask->answer.status_text, '\n') : NULL;
    if (line == NULL || ask->cli.is_json)
        return;
    for (line++; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        char *copy = xstrndup(line, strcspn(line, "\n"));
        char *clean = print_line(copy, 0);
        fprintf(stderr, "  %s|%s %s\n", print_on(&ask->cli.err, PRINT_DIM), print_off(&ask->cli.err), clean);
        free(clean);
        free(copy);
    }
}

static int end_status(struct ask *ask, const struct amp_error *err, const Amp__Error *wire)
{
    struct amp_error outcome = {0};
    if (ask->is_interrupted)
        return amp_code_info(AMP_INTERRUPTED)->exit;
    if (err->code != AMP_OK)
        return cli_fail(&ask->cli, err, wire);
    if (answer_outcome(&ask->answer, &outcome) == AMP_OK)
        return 0;
    if (outcome.code == AMP_INPUT_REQUIRED) {
        explain_question(ask);
        return amp_code_info(AMP_INPUT_REQUIRED)->exit;
    }
    amp_error_hint(&outcome, "amesh task show %s", ask->task_id);
    if (wire != NULL && wire->hint != NULL)
        amp_error_hint(&outcome, "%s", wire->hint);
    int status = cli_fail(&ask->cli, &outcome, wire);
    print_more_lines(ask);
    return status;
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct ask *ask = ctx;
    if (ask->is_left || ask->is_ended)
        return;
    ask->is_ended = true;
    answer_end_text(&ask->answer);
    /* of a durable task the environment's record is printed: it knows the attempts */
    if (ask->form == ANSWER_JSON && ask->call != NULL && ask->answer.seq > 0)
        answer_print_task(&ask->answer, ask->parent);
    stop(ask, end_status(ask, err, wire));
}

static void on_sigint(void *ctx, int signo)
{
    struct ask *ask = ctx;
    bool is_second = ask->is_interrupted;
    ask->is_interrupted = true;
    if (ask->call != NULL && !is_second) {
        answer_notice(&ask->answer, "interrupted: cancelling");
        call_cancel(ask->call, "interrupted by its caller");
        return;
    }
    ask->is_left = true;
    stop(ask, amp_code_info(AMP_INTERRUPTED)->exit);
    if (ask->call == NULL)
        answer_notice(&ask->answer, "detached; the task goes on. Reattach: amesh task watch %s · cancel: amesh task cancel %s", ask->task_id,
                      ask->task_id);
}

/* ---- runs ---------------------------------------------------------------------------------------- */

/* The reader of our stdout is slow: hold the agent back. */
static void on_output_full(void *ctx, bool is_full)
{
    struct ask *ask = ctx;
    if (ask->call != NULL)
        call_hold(ask->call, is_full);
}

static void run_init(struct ask *ask)
{
    output_queue_begin(ask->cli.loop, on_output_full, ask);
    answer_init(&ask->answer, ask->task_id, ask->context_id, ask->form);
    ask->answer.is_verbose = ask->is_verbose;
    ask->answer.out_style = ask->cli.out;
    ask->answer.err_style = ask->cli.err;
    ask->on_sigint = loop_signal_new(ask->cli.loop, SIGINT, on_sigint, ask);
}

static void run_done(struct ask *ask)
{
    loop_io_free(ask->input);
    env_call_cancel(ask->answer_call);
    env_watch_free(ask->watch);
    call_free(ask->call);
    loop_signal_free(ask->on_sigint);
    output_queue_end();
    answer_done(&ask->answer);
}

int ask_direct(struct ask *ask)
{
    struct call_options options = {
        .agent = ask->agent,       .skill = ask->skill,       .from = ask->cli.from,     .task_id = ask->task_id,
        .context_id = ask->context_id, .parent = ask->parent, .message = ask->message,   .timeout_ms = ask->timeout_ms,
        .attempt = 1,              .hops = ask->hops,         .path = ask->path,         .n_path = ask->n_path,
        .is_impatient = ask->is_impatient,
    };
    static const struct call_handlers handlers = {.on_event = on_event, .on_taken = on_taken, .on_waiting = on_waiting, .on_refused = on_refused, .on_end = on_end};
    struct amp_error err = {0};
    run_init(ask);
    if (call_start(ask->cli.loop, ask->cli.bus, &options, &handlers, ask, &ask->call, &err) != AMP_OK) {
        ask->call = NULL;
        ask->status = cli_fail(&ask->cli, &err, NULL);
    } else {
        loop_run(ask->cli.loop);
        if (ask->is_left && ask->status == amp_code_info(AMP_INPUT_REQUIRED)->exit)
            explain_question(ask);
    }
    run_done(ask);
    return ask->status;
}

/* 1: it is not whole, as one message could not carry it. */
static int print_record(void *ctx, const Amp__EnvReply *reply)
{
    const Amp__Json *metadata = reply->n_tasks > 0 ? reply->tasks[0]->task->metadata : NULL;
    if (metadata != NULL && memmem(metadata->text.data, metadata->text.len, "\"amp/omitted\"", 13) != NULL)
        return 1;
    struct amp_buf out;
    amp_buf_init(&out, 2 * (size_t)AMP_FOLD_BYTES_MAX);
    if (reply->n_tasks > 0 && amp_encode(&reply->tasks[0]->task->base, AMP_JSON, &out, NULL) == AMP_OK) {
        fwrite(out.data, 1, out.len, stdout);
        fputc('\n', stdout);
    }
    amp_buf_done(&out);
    return 0;
}

/* With --json the document is the environment's record, or what was seen here where that does not fit a message. */
static void print_final(struct ask *ask)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct amp_error err = {0};
    query.id = ask->task_id;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    int status = cli_ask_env(&ask->cli, &request, print_record, NULL, &err);
    if (err.code != AMP_OK || status != 0)
        answer_print_task(&ask->answer, ask->parent);
}

static void watch(struct ask *ask)
{
    static const struct env_watch_handlers handlers = {.on_event = on_event, .on_end = on_end};
    enum amp_code code = env_watch_start(ask->cli.loop, ask->cli.bus, ask->cli.from, ask->task_id, 1, 0, &handlers, ask, &ask->watch);
    if (code != AMP_OK) {
        ask->watch = NULL;
        ask->status = cli_fail_with(&ask->cli, code, "the task %s cannot be watched: %s", ask->task_id, amp_code_info(code)->text);
        return;
    }
    loop_run(ask->cli.loop);
    if (ask->is_left && ask->status == amp_code_info(AMP_INPUT_REQUIRED)->exit)
        explain_question(ask);
    if (ask->form == ANSWER_JSON && ask->is_ended)
        print_final(ask);
}

static int on_submitted(void *ctx, const Amp__EnvReply *reply)
{
    struct ask *ask = ctx;
    if (reply->n_tasks == 0 || reply->tasks[0]->task->id == NULL)
        return cli_fail_with(&ask->cli, AMP_INTERNAL, "the environment accepted the task but did not name it");
    snprintf(ask->task_id, sizeof ask->task_id, "%s", reply->tasks[0]->task->id);
    if (reply->tasks[0]->agent != NULL)
        snprintf(ask->answer.agent, sizeof ask->answer.agent, "%s", reply->tasks[0]->agent);
    if (!ask->is_detached) {
        if (ask->is_verbose)
            answer_notice(&ask->answer, "accepted as %s", ask->task_id);
        return 0;
    }
    if (ask->cli.is_json)
        return print_record(NULL, reply);
    printf("%s\n", ask->task_id);
    return 0;
}

int ask_durable(struct ask *ask)
{
    Amp__Request task = AMP__REQUEST__INIT;
    Amp__Submit submit = AMP__SUBMIT__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    task.task_id = ask->task_id;
    task.context_id = ask->context_id;
    task.message = ask->message;
    task.parent = (char *)ask->parent;
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
    request.verb_case = AMP__ENV_REQUEST__VERB_SUBMIT;
    request.submit = &submit;
    run_init(ask);
    ask->status = cli_request(&ask->cli, &request, on_submitted, ask);
    if (ask->status == 0 && !ask->is_detached)
        watch(ask);
    run_done(ask);
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
    run_init(ask);
    snprintf(ask->answer.agent, sizeof ask->answer.agent, "%s", agent);
    ask->status = send_to_task(ask);
    if (ask->status == 0 && !ask->is_detached)
        watch(ask);
    run_done(ask);
    return ask->status;
}
