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
#include "cli/guess.h"
#include "cli/output.h"
#include "cli/question.h"

#define ANSWER_LINE_MAX 65536u /* of what is typed at a question */

void ask_stop(struct ask *ask, int status)
{
    ask->status = status;
    loop_stop(ask->cli.loop, 0);
}

/* ---- questions ---------------------------------------------------------------------------------- */

void ask_on_answered(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct ask *ask = ctx;
    ask->answer_call = NULL;
    if (err->code != AMP_OK) {
        ask->is_left = true;
        ask_stop(ask, cli_fail(&ask->cli, err, NULL));
    }
}

static void read_answer(struct ask *ask);

/* What is no answer to the question is told, and asked for again. */
static void answer_with(struct ask *ask, const char *text)
{
    Amp__Message *message = NULL;
    struct amp_error err = {0};
    amp_arena_reset(&ask->typed);
    enum amp_code code = amp_utf8_is_valid(amp_bytes_of(text)) ? question_typed(ask->answer.question, strcmp(text, "-") == 0 ? "- " : text, &ask->typed, &message, &err)
                                                               : amp_error_set(&err, AMP_INVALID, "", "the answer is not UTF-8");
    if (code == AMP_INVALID && ask->answer.question != NULL) {
        char *line = print_line(err.message, 0);
        fprintf(stderr, "%s\n> ", line);
        free(line);
        read_answer(ask);
        return;
    }
    if (code == AMP_OK && message != NULL) {
        const char *question = ask->answer.question_id[0] != '\0' ? ask->answer.question_id : NULL;
        message->task_id = ask->task_id;
        code = ask->call != NULL ? call_answer(ask->call, question, message, &err) : ask_send_answer(ask, question, message, &err);
    }
    if (code == AMP_OK)
        return;
    ask->is_left = true;
    ask_stop(ask, cli_fail(&ask->cli, &err, NULL));
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
        ask_stop(ask, amp_code_info(AMP_INPUT_REQUIRED)->exit);
        return;
    }
    line[n] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    answer_with(ask, line);
}

static void read_answer(struct ask *ask)
{
    if (ask->input == NULL)
        ask->input = loop_io_new(ask->cli.loop, STDIN_FILENO, on_typed, ask);
    loop_io_want(ask->input, LOOP_READ);
}

/* With the numbers of its options only where they can be typed. */
static void print_question(struct ask *ask, bool is_asked_here)
{
    const char *question = ask->answer.status_text != NULL ? ask->answer.status_text : "";
    answer_end_text(&ask->answer);
    fprintf(stderr, "%s?%s ", print_on(&ask->cli.err, PRINT_YELLOW), print_off(&ask->cli.err));
    if (is_asked_here && ask->answer.question != NULL) {
        question_print(stderr, &ask->cli.err, ask->answer.question);
        return;
    }
    print_text(stderr, &(struct print_style){.is_terminal = true}, amp_bytes_of(*question != '\0' ? question : "the agent waits for input"));
    if (ask->answer.question != NULL) {
        char *text = question_short(ask->answer.question), *line = print_line(text, 0);
        fputs(line, stderr);
        free(text);
        free(line);
    }
}

static void on_question(struct ask *ask)
{
    bool can_ask = ask->form == ANSWER_TEXT && isatty(STDIN_FILENO) == 1 && ask->cli.err.is_terminal;
    if (can_ask) {
        print_question(ask, true);
        fputs("\n> ", stderr);
        read_answer(ask);
        return;
    }
    ask->is_left = true;
    ask_stop(ask, amp_code_info(AMP_INPUT_REQUIRED)->exit);
}

void ask_explain_question(struct ask *ask)
{
    if (ask->cli.is_json) {
        struct amp_error err = {0};
        (void)answer_outcome(&ask->answer, &err);
        amp_error_hint(&err, "amesh ask --task %s TEXT", ask->task_id);
        cli_fail(&ask->cli, &err, NULL);
        return;
    }
    print_question(ask, false);
    fprintf(stderr, "\nAnswer with: amesh ask --task %s TEXT\n", ask->task_id);
}

/* ---- what comes --------------------------------------------------------------------------------- */

void ask_on_event(void *ctx, uint32_t seq, const Amp__Event *event)
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
        ask_stop(ask, cli_fail(&ask->cli, &err, NULL));
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

void ask_on_taken(void *ctx, const char *agent, const char *instance)
{
    struct ask *ask = ctx;
    ask->answer.taken_unix_ms = clock_unix_ms();
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
    if (ask->call != NULL && (err->code == AMP_NO_SUCH_AGENT || err->code == AMP_NO_SUCH_SKILL)) {
        ask->missing = *err;
        return amp_code_info(err->code)->exit;
    }
    if (err->code != AMP_OK) {
        outcome = *err;
        ask_files_explain(ask, &outcome);
        bool is_gone = outcome.code == AMP_AGENT_DIED || outcome.code == AMP_INSTANCE_LOST;
        if (is_gone && ask->answer.agent[0] != '\0' && outcome.hint[0] == '\0')
            amp_error_hint(&outcome, "amesh show %s for its %s%s", ask->answer.agent, err->code == AMP_AGENT_DIED ? "deaths" : "instances",
                           ask->call != NULL ? "; --durable retries on another instance" : "");
        if (err->code == AMP_ATTEMPTS && outcome.hint[0] == '\0')
            amp_error_hint(&outcome, "amesh task show %s for what happened; amesh task retry %s once that is mended", ask->task_id, ask->task_id);
        return cli_fail(&ask->cli, &outcome, wire);
    }
    if (answer_outcome(&ask->answer, &outcome) == AMP_OK)
        return 0;
    if (outcome.code == AMP_INPUT_REQUIRED) {
        ask_explain_question(ask);
        return amp_code_info(AMP_INPUT_REQUIRED)->exit;
    }
    amp_error_hint(&outcome, "amesh task show %s", ask->task_id);
    if (wire != NULL && wire->hint != NULL)
        amp_error_hint(&outcome, "%s", wire->hint);
    int status = cli_fail(&ask->cli, &outcome, wire);
    print_more_lines(ask);
    return status;
}

static void end(struct ask *ask, const struct amp_error *err, const Amp__Error *wire)
{
    /* of a durable task the environment's record is printed: it knows the attempts */
    if (ask->form == ANSWER_JSON && ask->call != NULL && ask->answer.seq > 0) {
        ask_files_name(ask, true);
        answer_print_task(&ask->answer, ask->parent, err);
        ask_files_name(ask, false);
    }
    ask_stop(ask, end_status(ask, err, wire));
}

static void on_files(struct ask *ask, int status)
{
    struct amp_error ok = {.code = AMP_OK};
    end(ask, &ok, NULL);
    if (status != 0)
        ask_stop(ask, status);
}

void ask_on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct ask *ask = ctx;
    if (ask->is_left || ask->is_ended)
        return;
    ask->is_ended = true;
    ask->answer.ended_unix_ms = clock_unix_ms();
    answer_end_text(&ask->answer);
    bool is_good = err->code == AMP_OK && ask->answer.state == AMP__TASK_STATE__TASK_STATE_COMPLETED && !ask->is_interrupted;
    if (is_good && ask_files_receive(ask, on_files))
        return;
    if (is_good)
        ask_files_tell(ask);
    end(ask, err, wire);
}

/* Nobody wants the answer any more: a direct call is cancelled and its end awaited, a durable task goes on without us. */
static void interrupt(struct ask *ask, const char *notice, const char *reason)
{
    bool is_second = ask->is_interrupted;
    ask->is_interrupted = true;
    if (ask->is_ended) { /* its files are being fetched */
        ask_stop(ask, amp_code_info(AMP_INTERRUPTED)->exit);
        return;
    }
    if (ask->call != NULL && !is_second) {
        answer_notice(&ask->answer, "%s: cancelling", notice);
        call_cancel(ask->call, reason);
        return;
    }
    ask->is_left = true;
    ask_stop(ask, amp_code_info(AMP_INTERRUPTED)->exit);
    if (ask->call == NULL)
        answer_notice(&ask->answer, "detached; the task goes on. Reattach: amesh task watch %s · cancel: amesh task cancel %s", ask->task_id,
                      ask->task_id);
}

/* SIGTERM is how a task's program is told that the task was cancelled. */
static void on_signal(void *ctx, int signo)
{
    const struct ask *ask = ctx;
    char reason[AMP_NAME_MAX + 64] = "interrupted by its caller";
    if (signo == SIGTERM && ask->parent != NULL)
        snprintf(reason, sizeof reason, "its parent %s was told to stop", ask->parent);
    interrupt(ctx, "interrupted", reason);
}

/* ---- runs ---------------------------------------------------------------------------------------- */

static void on_output(void *ctx, enum output_event event)
{
    struct ask *ask = ctx;
    if (event == OUTPUT_LOST && !ask->is_ended && !ask->is_left)
        interrupt(ask, "nobody reads the answer", "its caller reads no further");
    else if (ask->call != NULL && event != OUTPUT_LOST)
        call_hold(ask->call, event == OUTPUT_FULL); /* the reader is slow: hold the agent back */
}

void ask_begin(struct ask *ask)
{
    output_queue_begin(ask->cli.loop, on_output, ask);
    amp_arena_init(&ask->typed, AMP_ARENA_BYTES_MAX);
    answer_init(&ask->answer, ask->task_id, ask->context_id, ask->form);
    ask->answer.is_verbose = ask->is_verbose;
    ask->answer.out_style = ask->cli.out;
    ask->answer.err_style = ask->cli.err;
    ask->answer.ready_unix_ms = clock_unix_ms();
    ask->on_sigint = loop_signal_new(ask->cli.loop, SIGINT, on_signal, ask);
    ask->on_sigterm = loop_signal_new(ask->cli.loop, SIGTERM, on_signal, ask);
}

void ask_end(struct ask *ask)
{
    loop_io_free(ask->input);
    loop_timer_free(ask->look);
    env_call_cancel(ask->look_call);
    env_call_cancel(ask->answer_call);
    env_watch_free(ask->watch);
    call_free(ask->call);
    loop_signal_free(ask->on_sigint);
    loop_signal_free(ask->on_sigterm);
    output_queue_end();
    amp_arena_done(&ask->typed);
    answer_done(&ask->answer);
}

int ask_direct(struct ask *ask)
{
    struct call_options options = {
        .agent = ask->agent,       .skill = ask->skill,       .from = ask->cli.from,     .task_id = ask->task_id,
        .context_id = ask->context_id, .parent = ask->parent, .message = ask->message,   .timeout_ms = ask->timeout_ms,
        .root = ask->root,
        .attempt = 1,              .hops = ask->hops,         .path = ask->path,         .n_path = ask->n_path,
        .is_impatient = ask->is_impatient,
        .may_queue = true,
        .may_retry = ask->retry == NULL || strcmp(ask->retry, "never") != 0,
        .is_retry_safe = ask->retry != NULL && strcmp(ask->retry, "safe") == 0,
        .priority = ask->priority,
    };
    static const struct call_handlers handlers = {.on_event = ask_on_event, .on_taken = ask_on_taken, .on_waiting = on_waiting, .on_refused = on_refused, .on_end = ask_on_end};
    struct amp_error err = {0};
    ask_begin(ask);
    (void)amp_fold_message(ask->answer.fold, ask->message); /* the document begins with what was asked; without room for it, with the answer */
    if (call_start(ask->cli.loop, ask->cli.bus, &options, &handlers, ask, &ask->call, &err) != AMP_OK) {
        ask->call = NULL;
        ask->status = cli_fail(&ask->cli, &err, NULL);
    } else {
        loop_run(ask->cli.loop);
    }
    if (ask->missing.code != AMP_OK)
        ask->status = guess_fail(&ask->cli, &ask->missing, ask->agent, ask->skill);
    if (ask->is_left && ask->status == amp_code_info(AMP_INPUT_REQUIRED)->exit) {
        if (ask->form == ANSWER_JSON)
            answer_print_task(&ask->answer, ask->parent, NULL);
        ask_explain_question(ask);
    }
    ask_end(ask);
    return ask->status;
}
