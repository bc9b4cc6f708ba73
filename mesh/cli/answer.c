#include "cli/answer.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/form.h"
#include "cli/event.h"
#include "cli/json.h"
#include "cli/output.h"

void answer_init(struct answer *answer, const char *task_id, const char *context_id, enum answer_form form)
{
    *answer = (struct answer){.form = form, .out = stdout, .err = stderr, .ends_line = true};
    answer->fold = amp_fold_new(task_id, context_id, AMP_FOLD_BYTES_MAX);
    if (answer->fold == NULL)
        abort();
    amp_arena_init(&answer->arena, AMP_ARENA_BYTES_MAX);
    answer->state = AMP__TASK_STATE__TASK_STATE_SUBMITTED;
}

void answer_done(struct answer *answer)
{
    amp_fold_free(answer->fold);
    amp_arena_done(&answer->arena);
    free(answer->status_text);
    cJSON_Delete(answer->question);
    *answer = (struct answer){0};
}

void answer_notice(struct answer *answer, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    answer_end_text(answer);
    char *line = print_line(text, 0);
    fprintf(answer->err, "%s%s%s\n", print_on(&answer->err_style, PRINT_DIM), line, print_off(&answer->err_style));
    fflush(answer->err);
    free(line);
}

void answer_end_text(struct answer *answer)
{
    if (answer->form != ANSWER_TEXT || !answer->out_style.is_terminal || answer->ends_line)
        return;
    fputc('\n', answer->out);
    fflush(answer->out);
    answer->ends_line = true;
}

void answer_taken(struct answer *answer, const char *agent, const char *instance)
{
    snprintf(answer->agent, sizeof answer->agent, "%s", agent);
    snprintf(answer->instance, sizeof answer->instance, "%s", instance);
    answer->taken++;
    if (answer->is_verbose)
        answer_notice(answer, "taken by %s %s", agent, instance);
}

static void text_out(struct answer *answer, struct amp_bytes text)
{
    if (text.len == 0)
        return;
    print_text(answer->out, &answer->out_style, text);
    fflush(answer->out);
    answer->has_text = true;
    answer->ends_line = text.data[text.len - 1] == '\n';
}

static void blob_out(struct answer *answer, const Amp__Part *part)
{
    char *summary = event_blob_summary(part);
    answer_notice(answer, "answered with %s", summary);
    free(summary);
}

static void parts_out(struct answer *answer, Amp__Part *const *parts, size_t n_parts)
{
    for (size_t i = 0; i < n_parts; i++) {
        const Amp__Part *part = parts[i];
        if (part->text != NULL)
            text_out(answer, amp_bytes_of(part->text));
        else if (part->data != NULL)
            text_out(answer, (struct amp_bytes){part->data->text.data, part->data->text.len});
        else if (amp_part_is_blob(part))
            blob_out(answer, part);
        else if (part->url != NULL)
            text_out(answer, amp_bytes_of(part->url));
        else if (part->has_raw)
            answer_notice(answer, "answered with %zu bytes of %s: --json shows them", part->raw.len,
                          part->media_type != NULL ? part->media_type : "unknown type");
    }
}

static void artifact_out(struct answer *answer, const Amp__TaskArtifactUpdateEvent *update, const Amp__StreamResponse *body)
{
    if (event_response(body) == NULL) {
        bool is_first = !(update->has_append && update->append);
        if (is_first || answer->is_verbose) {
            char *summary = event_summary(body);
            answer_notice(answer, "%.200s", summary);
            free(summary);
        }
        return;
    }
    bool starts_over = answer->has_text && !(update->has_append && update->append);
    if (starts_over) {
        answer_notice(answer, "the answer starts over (the task was tried again)");
        if (!answer->ends_line)
            text_out(answer, amp_bytes_of("\n"));
    }
    parts_out(answer, update->artifact->parts, update->artifact->n_parts);
}

static void status_out(struct answer *answer, const Amp__StreamResponse *body, const char *text)
{
    if (event_is_note(body)) {
        if (answer->is_verbose) {
            char *summary = event_summary(body);
            answer_notice(answer, "%.900s", summary);
            free(summary);
        }
        return;
    }
    bool is_progress = answer->state == AMP__TASK_STATE__TASK_STATE_WORKING || answer->state == AMP__TASK_STATE__TASK_STATE_SUBMITTED;
    if (is_progress && *text != '\0')
        answer_notice(answer, "%.900s", text);
}

/* Only what the last status asked can be asked here: of several that are open the others are for the inbox. */
static void question_take(struct answer *answer, const Amp__StreamResponse *body)
{
    cJSON *metadata = amp_task_is_waiting(answer->state) ? event_metadata(body) : NULL;
    const cJSON *question = cJSON_GetObjectItemCaseSensitive(metadata, "amp/question");
    const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(question, "id"));
    cJSON_Delete(answer->question);
    answer->question = question != NULL ? form_copy(question, NULL) : NULL;
    snprintf(answer->question_id, sizeof answer->question_id, "%s", answer->question != NULL && id != NULL && amp_id_is_valid(id) ? id : "");
    cJSON_Delete(metadata);
}

static void state_take(struct answer *answer, const Amp__StreamResponse *body)
{
    const Amp__Message *message = NULL;
    Amp__TaskState state = event_state(body, &message);
    if (state == AMP__TASK_STATE__TASK_STATE_UNSPECIFIED)
        return;
    answer->state = state;
    question_take(answer, body);
    char *text = event_message_text(message);
    if (answer->form == ANSWER_TEXT)
        status_out(answer, body, text);
    free(answer->status_text);
    answer->status_text = text;
}

/* The text of an answer may be longer than what is kept of it: it was printed. A file that is not kept is lost. */
static void miss(struct answer *answer, const Amp__StreamResponse *body, const struct amp_error *err)
{
    const Amp__Artifact *artifact = body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE ? body->artifact_update->artifact : NULL;
    const char *name = NULL;
    bool has_file = false;
    for (size_t i = 0; artifact != NULL && i < artifact->n_parts; i++) {
        const Amp__Part *part = artifact->parts[i];
        has_file |= part->has_raw || part->url != NULL || part->filename != NULL;
        name = name == NULL && part->url != NULL ? part->filename : name;
    }
    if (!has_file || answer->missed.code != AMP_OK)
        return;
    name = name != NULL ? name : artifact->name != NULL ? artifact->name : artifact->artifact_id != NULL ? artifact->artifact_id : "a file";
    (void)amp_error_set(&answer->missed, err->code == AMP_INVALID ? AMP_BAD_ANSWER : err->code, err->field, "%.120s of the answer is not taken: %.100s: %s", name, err->field, err->message);
}

enum amp_code answer_take(struct answer *answer, uint32_t seq, const Amp__Event *event, struct amp_error *reterr)
{
    Amp__StreamResponse *body = NULL;
    amp_arena_reset(&answer->arena);
    enum amp_code code = event_decode(event, &answer->arena, &body, reterr);
    if (code != AMP_OK)
        return code;
    struct amp_error err = {0};
    code = amp_fold_apply(answer->fold, (struct amp_bytes){event->body->text.data, event->body->text.len}, &err);
    if (code == AMP_CONFLICT)
        return amp_error_set(reterr, AMP_BAD_ANSWER, err.field, "event %u: %s", seq, err.message);
    if (code != AMP_OK && answer->form == ANSWER_JSON)
        return amp_error_set(reterr, code, err.field, "event %u: %s", seq, err.message);
    if (code != AMP_OK)
        miss(answer, body, &err);
    answer->seq = seq;
    if (answer->form == ANSWER_EVENTS) {
        struct event_head head = {.seq = seq, .unix_ms = event->time != NULL ? event->time->unix_ms : 0};
        event_print_json(answer->out, &head, body);
    }
    if (body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE && body->artifact_update->artifact != NULL &&
        answer->form == ANSWER_TEXT)
        artifact_out(answer, body->artifact_update, body);
    if (body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_MESSAGE) {
        answer->state = AMP__TASK_STATE__TASK_STATE_COMPLETED;
        if (answer->form == ANSWER_TEXT)
            parts_out(answer, body->message->parts, body->message->n_parts);
    }
    state_take(answer, body);
    return AMP_OK;
}

/* As in the environment's records (`amesh task show --json`). */
static cJSON *attempt_json(const struct answer *answer, const struct amp_error *err)
{
    cJSON *attempt = cJSON_CreateObject();
    cJSON_AddNumberToObject(attempt, "attempt", 1);
    cJSON_AddStringToObject(attempt, "agent", answer->agent);
    cJSON_AddStringToObject(attempt, "instance", answer->instance);
    json_add_time(attempt, "readyAt", answer->ready_unix_ms);
    json_add_time(attempt, "startedAt", answer->taken_unix_ms);
    json_add_time(attempt, "endedAt", answer->ended_unix_ms);
    if (answer->ready_unix_ms != 0 && answer->taken_unix_ms != 0)
        cJSON_AddNumberToObject(attempt, "waitMs", (double)(answer->taken_unix_ms - answer->ready_unix_ms));
    if (answer->taken_unix_ms != 0 && answer->ended_unix_ms != 0)
        cJSON_AddNumberToObject(attempt, "runMs", (double)(answer->ended_unix_ms - answer->taken_unix_ms));
    if (err != NULL)
        cJSON_AddStringToObject(attempt, "outcome", amp_code_info(err->code)->name);
    else if (answer->ended_unix_ms != 0)
        cJSON_AddStringToObject(attempt, "outcome", amp_task_state_short(answer->state));
    return attempt;
}

static cJSON *metadata_json(const struct answer *answer, const char *parent, const struct amp_error *err)
{
    cJSON *metadata = cJSON_CreateObject();
    if (answer->agent[0] != '\0')
        cJSON_AddStringToObject(metadata, "amp/agent", answer->agent);
    if (answer->instance[0] != '\0')
        cJSON_AddItemToArray(cJSON_AddArrayToObject(metadata, "amp/attempts"), attempt_json(answer, err));
    if (parent != NULL)
        cJSON_AddStringToObject(metadata, "amp/parent", parent);
    if (err != NULL) {
        cJSON *error = cJSON_AddObjectToObject(metadata, "amp/error");
        cJSON_AddNumberToObject(error, "code", (double)err->code);
        cJSON_AddStringToObject(error, "name", amp_code_info(err->code)->name);
        cJSON_AddStringToObject(error, "message", err->message);
    }
    return metadata;
}

void answer_print_task(struct answer *answer, const char *parent, const struct amp_error *err)
{
    Amp__Task task = *amp_fold_task(answer->fold); /* shallow: only the metadata are ours */
    cJSON *metadata = metadata_json(answer, parent, err != NULL && err->code != AMP_OK ? err : NULL);
    char *text = cJSON_PrintUnformatted(metadata);
    Amp__Json json = AMP__JSON__INIT;
    json.text = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
    task.metadata = &json;
    (void)output_message(answer->out, &task.base);
    fflush(answer->out);
    cJSON_free(text);
    cJSON_Delete(metadata);
}

enum amp_code answer_outcome(const struct answer *answer, struct amp_error *reterr)
{
    const char *text = answer->status_text != NULL ? answer->status_text : "";
    const char *colon = *text != '\0' ? ": " : "";
    const char *agent = answer->agent[0] != '\0' ? answer->agent : "the agent";
    char line[256]; /* an error is one line: the caller shows the others */
    snprintf(line, sizeof line, "%.*s", (int)strcspn(text, "\n"), text);
    text = line;
    if (answer->state == AMP__TASK_STATE__TASK_STATE_CANCELED && strcmp(text, amp_code_info(AMP_CANCELED)->text) == 0)
        colon = text = ""; /* no reason was given */
    switch (answer->state) {
    case AMP__TASK_STATE__TASK_STATE_COMPLETED:
        return AMP_OK;
    case AMP__TASK_STATE__TASK_STATE_FAILED:
        return amp_error_set(reterr, AMP_TASK_FAILED, "", "%s failed%s%s", agent, colon, text);
    case AMP__TASK_STATE__TASK_STATE_REJECTED:
        return amp_error_set(reterr, AMP_REJECTED, "", "%s refused the task%s%s", agent, colon, text);
    case AMP__TASK_STATE__TASK_STATE_CANCELED:
        /* who had no reason to tell says just that */
        return amp_error_set(reterr, AMP_CANCELED, "", "the task was cancelled%s%s", strcmp(text, "the task was cancelled") == 0 ? "" : colon,
                             strcmp(text, "the task was cancelled") == 0 ? "" : text);
    case AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED:
    case AMP__TASK_STATE__TASK_STATE_AUTH_REQUIRED:
        return amp_error_set(reterr, AMP_INPUT_REQUIRED, "", "%s asks%s%s", agent, colon, text);
    default:
        return amp_error_set(reterr, AMP_BAD_ANSWER, "", "the stream ended while the task was %s", amp_task_state_short(answer->state));
    }
}
