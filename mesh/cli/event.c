#include "cli/event.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/json.h"
#include "cli/print.h"

#define SUMMARY_MAX 160 /* characters of a line's text */

enum amp_code event_decode(const Amp__Event *event, struct amp_arena *arena, Amp__StreamResponse **ret, struct amp_error *reterr)
{
    struct amp_bytes bytes = {event->body->text.data, event->body->text.len};
    ProtobufCMessage *message = NULL;
    struct amp_error err = {0};
    if (amp_decode(&amp__stream_response__descriptor, bytes, arena, &message, &err) != AMP_OK)
        return amp_error_set(reterr, AMP_BAD_ANSWER, err.field, "an event is not an A2A StreamResponse: %s", err.message);
    *ret = (Amp__StreamResponse *)message;
    return AMP_OK;
}

static void append_member(struct amp_buf *out, const char *name, const char *value)
{
    if (value == NULL || *value == '\0')
        return;
    amp_buf_printf(out, "\"%s\":", name);
    amp_json_append_string(out, amp_bytes_of(value));
    amp_buf_append(out, ",", 1);
}

void event_print_json(FILE *to, const struct event_head *head, const Amp__StreamResponse *body)
{
    struct amp_buf out, json;
    amp_buf_init(&out, (size_t)2 * AMP_JSON_BYTES_MAX);
    amp_buf_init(&json, (size_t)2 * AMP_JSON_BYTES_MAX);
    char time[AMP_TIME_SIZE] = "";
    if (head->unix_ms > 0)
        amp_time_format(head->unix_ms, time);
    amp_buf_printf(&out, "{\"seq\":%u,", head->seq);
    append_member(&out, "time", time);
    append_member(&out, "agent", head->agent);
    append_member(&out, "instance", head->instance);
    append_member(&out, "taskId", head->task_id);
    append_member(&out, "contextId", head->context_id);
    if (head->attempt > 0)
        amp_buf_printf(&out, "\"attempt\":%u,", head->attempt);
    if (amp_encode(&body->base, AMP_JSON, &json, NULL) == AMP_OK && json.len > 2)
        amp_buf_append(&out, json.data + 1, json.len - 1); /* the members, and the closing brace */
    else
        out.data[out.len - 1] = '}';
    if (!out.is_full) {
        fwrite(out.data, 1, out.len, to);
        fputc('\n', to);
        fflush(to);
    }
    amp_buf_done(&json);
    amp_buf_done(&out);
}

char *event_message_text(const Amp__Message *message)
{
    struct amp_buf text;
    amp_buf_init(&text, AMP_WIRE_BYTES_MAX);
    if (message != NULL && amp_message_text(message, &text) != AMP_OK)
        amp_buf_reset(&text);
    char *copy = xstrndup(text.len > 0 ? (const char *)text.data : "", text.len);
    amp_buf_done(&text);
    return copy;
}

const Amp__TaskArtifactUpdateEvent *event_response(const Amp__StreamResponse *body)
{
    if (body->payload_case != AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE)
        return NULL;
    const Amp__TaskArtifactUpdateEvent *update = body->artifact_update;
    bool is_response = update->artifact != NULL && update->artifact->artifact_id != NULL &&
                       strcmp(update->artifact->artifact_id, "response") == 0;
    return is_response ? update : NULL;
}

Amp__TaskState event_state(const Amp__StreamResponse *body, const Amp__Message **ret_message)
{
    const Amp__TaskStatus *status = NULL;
    if (ret_message != NULL)
        *ret_message = NULL;
    if (body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE)
        status = body->status_update->status;
    else if (body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_TASK)
        status = body->task->status;
    if (status == NULL || !status->has_state)
        return AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
    if (ret_message != NULL)
        *ret_message = status->message;
    return status->state;
}

cJSON *event_metadata(const Amp__StreamResponse *body)
{
    const Amp__Json *metadata = NULL;
    if (body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE)
        metadata = body->status_update->metadata;
    else if (body->payload_case == AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE)
        metadata = body->artifact_update->metadata;
    cJSON *json = NULL;
    if (metadata == NULL || amp_json_parse((struct amp_bytes){metadata->text.data, metadata->text.len}, &json, NULL) != AMP_OK)
        return NULL;
    return json;
}

static char *tool_summary(const cJSON *tool, const char *value_name, const char *fmt)
{
    char *value = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(tool, value_name));
    const char *name = json_text_of(tool, "name");
    char *line = xasprintf("tool %s%s%s%s", *name != '\0' ? name : json_text_of(tool, "callId"), fmt, value != NULL ? value : "",
                           *fmt == '(' ? ")" : "");
    cJSON_free(value);
    return line;
}

/* A tool call, a step, a log line … as the agent named it ("amp/<kind>", amp.md 6.3); NULL if the metadata say nothing of the kind. */
static char *local_summary(const cJSON *metadata)
{
    static const char *const kinds[] = {"tool_call", "tool_result", "step", "log", "reasoning", "usage", "custom"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char key[32];
        snprintf(key, sizeof key, "amp/%s", kinds[i]);
        const cJSON *said = cJSON_GetObjectItemCaseSensitive(metadata, key);
        if (!cJSON_IsObject(said))
            continue;
        if (i == 0)
            return tool_summary(said, "args", "(");
        if (i == 1)
            return tool_summary(said, "output", " = ");
        if (i == 2)
            return xasprintf("step %s %s", json_text_of(said, "name"), json_text_of(said, "phase"));
        if (i == 3)
            return xasprintf("log %s: %s", json_text_of(said, "level"), json_text_of(said, "text"));
        if (i == 4)
            return xasprintf("reasoning: %s", json_text_of(said, "text"));
        char *whole = cJSON_PrintUnformatted(said);
        char *line = xasprintf("%s %s", kinds[i], whole != NULL ? whole : "");
        cJSON_free(whole);
        return line;
    }
    return NULL;
}

bool event_is_note(const Amp__StreamResponse *body)
{
    cJSON *metadata = event_metadata(body);
    char *line = metadata != NULL ? local_summary(metadata) : NULL;
    bool is_note = line != NULL;
    free(line);
    cJSON_Delete(metadata);
    return is_note;
}

static char *value_text(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    char *json = value != NULL && !cJSON_IsString(value) ? cJSON_PrintUnformatted(value) : NULL;
    char *text = xstrdup(json != NULL ? json : json_text_of(object, name));
    cJSON_free(json);
    return text;
}

/* What became of a question; the status beside it tells of the others, if there are any. NULL: it is about none, or one is asked. */
static char *outcome_summary(const cJSON *metadata)
{
    const cJSON *answer = cJSON_GetObjectItemCaseSensitive(metadata, "amp/answer"), *closed = cJSON_GetObjectItemCaseSensitive(metadata, "amp/question_closed");
    const cJSON *said = answer != NULL ? answer : closed;
    char *line = NULL;
    if (!cJSON_IsObject(said))
        return NULL;
    const char *id = json_text_of(said, "id"), *by = json_text_of(said, "by"), *why = json_text_of(said, "why");
    const char *before = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(said, "again")) ? " before, told again" : "";
    char *text = value_text(said, answer == NULL ? "default" : cJSON_HasObjectItem(answer, "text") ? "text" : "value");
    if (answer != NULL)
        line = xasprintf("answered%s%s%s: %s  (%s)", before, *by != '\0' ? " by " : "", by, text, id);
    else
        line = xasprintf("question %s%s%s%s  (%s)", *why != '\0' ? why : "closed", before, *text != '\0' ? ", default taken: " : "", text, id);
    free(text);
    return line;
}

static char *state_summary(Amp__TaskState state, const Amp__Message *message, const char *asked)
{
    if (state == AMP__TASK_STATE__TASK_STATE_UNSPECIFIED)
        return xstrdup("status");
    char *text = event_message_text(message);
    char *line = xasprintf("%s%s%s%s", amp_task_state_short(state), *text != '\0' ? ": " : "", text, asked);
    free(text);
    return line;
}

static char *status_summary(const Amp__StreamResponse *body)
{
    const Amp__Message *message = NULL;
    Amp__TaskState state = event_state(body, &message);
    cJSON *metadata = event_metadata(body);
    char *line = metadata != NULL ? local_summary(metadata) : NULL;
    if (line == NULL && metadata != NULL && !amp_task_is_terminal(state))
        line = outcome_summary(metadata);
    const char *id = json_text_of(cJSON_GetObjectItemCaseSensitive(metadata, "amp/question"), "id");
    char *asked = *id != '\0' ? xasprintf("  (%s)", id) : xstrdup("");
    cJSON_Delete(metadata);
    if (line == NULL)
        line = state_summary(state, message, asked);
    free(asked);
    return line;
}

char *event_blob_summary(const Amp__Part *part)
{
    struct amp_blob_ref ref;
    const char *name = part->filename != NULL ? part->filename : "a file";
    if (amp_part_blob(part, &ref, NULL) != AMP_OK)
        return xstrdup(name);
    return xasprintf("%s (%s, %llu bytes)", name, part->media_type != NULL ? part->media_type : "bytes", (unsigned long long)ref.size);
}

static char *artifact_summary(const Amp__TaskArtifactUpdateEvent *update)
{
    const Amp__Artifact *artifact = update->artifact;
    if (artifact == NULL)
        return xstrdup("artifact");
    const char *id = artifact->artifact_id != NULL ? artifact->artifact_id : "?";
    bool is_response = strcmp(id, "response") == 0;
    const Amp__Part *part = artifact->n_parts > 0 ? artifact->parts[0] : NULL;
    const char *end = update->has_last_chunk && update->last_chunk ? " (end)" : "";
    if (part == NULL)
        return xasprintf("%s%s%s", is_response ? "text" : "artifact ", is_response ? "" : id, end);
    if (part->text != NULL && is_response)
        return xasprintf("text \"%s\"%s", part->text, end);
    const char *name = artifact->name != NULL ? artifact->name : part->filename != NULL ? part->filename : id;
    if (amp_part_is_blob(part)) {
        char *blob = event_blob_summary(part);
        char *line = xasprintf("artifact %s%s", blob, end);
        free(blob);
        return line;
    }
    if (part->has_raw)
        return xasprintf("artifact %s (%s, %zu bytes)%s", name, part->media_type != NULL ? part->media_type : "bytes", part->raw.len, end);
    if (part->data != NULL)
        return xasprintf("artifact %s %.*s%s", name, (int)part->data->text.len, (const char *)part->data->text.data, end);
    return xasprintf("artifact %s %s%s", name, part->text != NULL ? part->text : part->url != NULL ? part->url : "", end);
}

char *event_summary(const Amp__StreamResponse *body)
{
    switch (body->payload_case) {
    case AMP__STREAM_RESPONSE__PAYLOAD_TASK:
    case AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE:
        return status_summary(body);
    case AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE:
        return artifact_summary(body->artifact_update);
    case AMP__STREAM_RESPONSE__PAYLOAD_MESSAGE: {
        char *text = event_message_text(body->message);
        char *line = xasprintf("message \"%s\"", text);
        free(text);
        return line;
    }
    default:
        return xstrdup("?");
    }
}

void event_print_line(FILE *to, const struct print_style *style, const struct event_head *head, const Amp__StreamResponse *body)
{
    char clock[PRINT_SHORT_SIZE];
    print_clock(head->unix_ms, clock);
    char *summary = event_summary(body);
    char *line = print_line(summary, SUMMARY_MAX);
    fprintf(to, "%s%s%s  ", print_on(style, PRINT_DIM), clock, print_off(style));
    if (head->agent != NULL)
        fprintf(to, "%s%s%s  ", print_on(style, PRINT_BOLD), head->agent, print_off(style));
    if (head->task_id != NULL)
        fprintf(to, "%s  ", head->task_id);
    fprintf(to, "%4u  ", head->seq);
    Amp__TaskState state = event_state(body, NULL);
    enum print_color color = state == AMP__TASK_STATE__TASK_STATE_UNSPECIFIED ? PRINT_PLAIN : print_state_color(amp_task_state_short(state));
    fprintf(to, "%s%s%s\n", color == PRINT_PLAIN ? "" : print_on(style, color), line, color == PRINT_PLAIN ? "" : print_off(style));
    fflush(to);
    free(line);
    free(summary);
}
