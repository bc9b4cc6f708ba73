/* amesh answer: finds the question, makes what was typed into its answer, hands it to the environment. */
#include <assert.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/blob_fetch.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/form.h"
#include "base/loop.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/inbox.h"
#include "cli/message.h"
#include "cli/output.h"
#include "cli/question.h"

#define LINE_MAX_BYTES 65536u

#define FILE_INLINE_MAX (64u << 10)                 /* a file above it that is no text is a blob (amp.md 15) */
#define TEXT_INLINE_MAX (FORM_ANSWER_MAX - (8u << 10)) /* a text likewise: the message around it has its part of the bound */

struct reply {
    struct cli cli;
    struct blobs *blobs; /* of a large file, until the environment has it; or NULL */
    struct blob_held held;
    struct blob blob;
    struct amp_error file_error;
    struct amp_arena arena;
    const char *id;
    char question_id[AMP_NAME_MAX + 1], task_id[AMP_NAME_MAX + 1];
    cJSON *form;
    size_t count; /* questions of that id */
    char others[256];
};

const struct command_option answer_options[] = {
    {.name = "json-value", .arg = "JSON", .help = "the answer as a JSON value"},
    {.name = "option", .letter = 'o', .arg = "N|NAME", .help = "an option, by its number, value or label; again for several", .is_repeatable = true},
    {.name = "file", .letter = 'f', .arg = "F", .help = "the answer is what is in the file, or the file", .complete = "files"},
    {0},
};

/* ---- which question ------------------------------------------------------------------------------------------- */

static int on_found(void *ctx, const Amp__EnvReply *reply)
{
    struct reply *answer = ctx;
    answer->count = reply->n_questions;
    for (size_t i = 0; i < reply->n_questions; i++) {
        const Amp__Question *question = reply->questions[i];
        size_t len = strlen(answer->others);
        snprintf(answer->others + len, sizeof answer->others - len, "%s%s", i > 0 ? ", " : "", question->id);
        if (i > 0)
            continue;
        snprintf(answer->question_id, sizeof answer->question_id, "%s", question->id);
        snprintf(answer->task_id, sizeof answer->task_id, "%s", question->task_id);
        answer->form = question_form(question);
    }
    return 0;
}

static int find(struct reply *reply)
{
    Amp__InboxQuery query = AMP__INBOX_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct amp_error err = {0};
    query.id = (char *)reply->id;
    request.verb_case = AMP__ENV_REQUEST__VERB_INBOX;
    request.inbox = &query;
    int status = cli_request(&reply->cli, &request, on_found, reply);
    if (status != 0 || reply->count == 1)
        return status;
    if (reply->count == 0)
        return cli_fail_with(&reply->cli, AMP_NO_QUESTION, "task %s asks nothing now", reply->id);
    amp_error_set(&err, AMP_NO_QUESTION, "", "task %s asks %zu questions: %s", reply->id, reply->count, reply->others);
    amp_error_hint(&err, "say which one: amesh answer %s TEXT", reply->question_id);
    return cli_fail(&reply->cli, &err, NULL);
}

/* ---- what is answered -------------------------------------------------------------------------------------------- */

static void on_taken(void *ctx, const struct blob *blob, const struct amp_error *err)
{
    struct reply *reply = ctx;
    if (blob != NULL)
        reply->blob = *blob;
    else
        reply->file_error = *err;
    loop_stop(reply->cli.loop, 0);
}

/* Its bytes travel beside the message, to who asks for them. */
static enum amp_code offer_file(struct reply *reply, const struct message_large *large, struct amp_error *err)
{
    char holder[AMP_ID_SIZE];
    struct amp_blob_ref ref;
    amp_id_new('i', clock_unix_ms(), holder);
    reply->blobs = blobs_new(reply->cli.loop, reply->cli.bus, &(struct blobs_options){.home = reply->cli.home.path, .holder = holder, .from = reply->cli.from});
    (void)blobs_add_file(reply->blobs, large->path, on_taken, reply);
    loop_run(reply->cli.loop);
    *err = reply->file_error;
    if (err->code != AMP_OK)
        return err->code;
    blob_held_add(&reply->held, reply->blob.digest);
    blobs_offer(reply->blobs, &reply->blob, &ref);
    enum amp_code code = amp_part_set_blob(large->part, &ref, &reply->arena);
    return code == AMP_OK ? code : amp_error_set(err, code, "", "%s cannot be sent: %s", large->path, amp_code_info(code)->text);
}

static enum amp_code attach_file(struct reply *reply, const char *path, Amp__Message **ret, struct amp_error *err)
{
    struct message_source attached = {.files = (const char *[]){path, NULL}, .inline_max = FILE_INLINE_MAX};
    cJSON *value = NULL;
    enum amp_code code = message_make(&attached, &reply->arena, ret, err);
    if (code == AMP_OK && reply->form != NULL)
        code = form_read(reply->form, *ret, &value, err); /* before its bytes are looked at: a choice is no file */
    cJSON_Delete(value);
    return code == AMP_OK && attached.n_large > 0 ? offer_file(reply, &attached.large[0], err) : code;
}

/* More than a text in a message may have. */
static bool is_large(const char *path)
{
    struct stat info;
    return strcmp(path, "-") != 0 && stat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > (off_t)TEXT_INLINE_MAX;
}

static enum amp_code read_file(struct reply *reply, const char *path, Amp__Message **ret, struct amp_error *err)
{
    struct amp_buf buf;
    if (is_large(path))
        return attach_file(reply, path, ret, err);
    amp_buf_init(&buf, MESSAGE_BYTES_MAX);
    enum amp_code code = file_read(path, MESSAGE_BYTES_MAX, &buf, err);
    bool is_text = code == AMP_OK && amp_utf8_is_valid(amp_buf_bytes(&buf)) && (buf.len == 0 || memchr(buf.data, '\0', buf.len) == NULL);
    char *text = is_text ? xstrndup((const char *)buf.data, buf.len) : NULL;
    amp_buf_done(&buf);
    if (code != AMP_OK)
        return code;
    code = is_text ? question_typed(reply->form, strcmp(text, "-") == 0 ? "- " : text, &reply->arena, ret, err) : attach_file(reply, path, ret, err);
    free(text);
    return code;
}

/* Asks here until the answer fits; ctrl-D: none. */
static enum amp_code ask_here(struct reply *reply, Amp__Message **ret, struct amp_error *err)
{
    char line[LINE_MAX_BYTES];
    fprintf(stderr, "%s?%s ", print_on(&reply->cli.err, PRINT_YELLOW), print_off(&reply->cli.err));
    question_print(stderr, &reply->cli.err, reply->form);
    for (;;) {
        fputs("\n> ", stderr);
        if (fgets(line, sizeof line, stdin) == NULL)
            return amp_error_set(err, AMP_INPUT_REQUIRED, "", "question %s is not answered", reply->question_id);
        line[strcspn(line, "\r\n")] = '\0';
        enum amp_code code = question_typed(reply->form, strcmp(line, "-") == 0 ? "- " : line, &reply->arena, ret, err);
        if (code != AMP_INVALID)
            return code;
        fprintf(stderr, "%s", err->message);
    }
}

static enum amp_code make(struct reply *reply, Amp__Message **ret, struct amp_error *err)
{
    const struct command *command = reply->cli.command;
    const struct command_args *args = reply->cli.args;
    const char *json = command_value(command, args, "json-value"), *file = command_value(command, args, "file");
    const char **options = command_values(command, args, "option");
    if (json != NULL)
        return question_json(reply->form, json, &reply->arena, ret, err);
    if (options != NULL)
        return question_chosen(reply->form, options, &reply->arena, ret, err);
    if (file != NULL)
        return read_file(reply, file, ret, err);
    if (args->n_rest == 2)
        return question_typed(reply->form, args->rest[1], &reply->arena, ret, err);
    return ask_here(reply, ret, err);
}

static int on_done(void *ctx, const Amp__EnvReply *env_reply)
{
    const struct reply *reply = ctx;
    (void)env_reply;
    if (!reply->cli.is_json)
        return 0;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", reply->question_id);
    cJSON_AddStringToObject(json, "taskId", reply->task_id);
    cJSON_AddStringToObject(json, "state", "answered");
    output_json(stdout, json);
    return 0;
}

/* With a file it is told to come back while that is fetched, for as long as it comes: one that does not come any more is an error. */
static int tell(struct reply *reply, const Amp__EnvRequest *request, const Amp__Message *message)
{
    for (;;) {
        struct amp_error err = {0};
        int status = cli_ask_env(&reply->cli, request, on_done, reply, &err);
        if (err.code == AMP_OK)
            return status;
        if (err.code != AMP_OVERLOADED || err.retry_after_ms == 0 || !amp_message_has_blob(message))
            return cli_fail(&reply->cli, &err, NULL);
        cli_pause(&reply->cli, err.retry_after_ms);
    }
}

static int send(struct reply *reply)
{
    Amp__Answer answer = AMP__ANSWER__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__Message *message = NULL;
    struct amp_error err = {0};
    if (make(reply, &message, &err) != AMP_OK)
        return cli_fail(&reply->cli, &err, NULL);
    assert(message != NULL);
    message->task_id = reply->task_id;
    answer.input_id = reply->question_id;
    answer.message = message;
    control.kind_case = AMP__CONTROL__KIND_ANSWER;
    control.answer = &answer;
    command.id = reply->task_id;
    command.control = &control;
    request.verb_case = AMP__ENV_REQUEST__VERB_COMMAND;
    request.command = &command;
    return tell(reply, &request, message);
}

/* One way to say it, and only one. */
static int check_ways(const struct reply *reply)
{
    const struct command *command = reply->cli.command;
    const struct command_args *args = reply->cli.args;
    int ways = (command_value(command, args, "json-value") != NULL) + (command_value(command, args, "file") != NULL) + (command_values(command, args, "option") != NULL) +
               (args->n_rest == 2);
    if (ways > 1)
        return cli_usage(&reply->cli, "one answer: TEXT, --json-value, --option or --file");
    if (ways == 0 && isatty(STDIN_FILENO) != 1)
        return cli_usage(&reply->cli, "what is the answer? TEXT, - for standard input, --json-value, --option or --file");
    return 0;
}

int inbox_run_answer(const struct command *command, struct command_args *args)
{
    struct reply reply = {0};
    int status = cli_init(&reply.cli, command, args);
    amp_arena_init(&reply.arena, AMP_ARENA_BYTES_MAX);
    if (status == 0)
        status = cli_operands(&reply.cli, 1, 2);
    if (status == 0)
        status = check_ways(&reply);
    reply.id = args->n_rest > 0 ? args->rest[0] : "";
    if (status == 0)
        status = cli_id(&reply.cli, "the question or task", reply.id);
    if (status == 0)
        status = cli_connect(&reply.cli);
    if (status == 0)
        status = find(&reply);
    if (status == 0)
        status = send(&reply);
    if (reply.blobs != NULL)
        blob_held_release(&reply.held, reply.blobs);
    if (reply.blobs != NULL)
        blobs_free(reply.blobs);
    cJSON_Delete(reply.form);
    amp_arena_done(&reply.arena);
    cli_done(&reply.cli);
    return status;
}
