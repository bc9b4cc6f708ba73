/* How a task ended in the agent's words (local-api.md 3.2) → the last events and the verdict. */
#include "task_private.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hook.h"

static const char *member_text(const struct cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static enum amp_code bad(struct amp_error *err, const char *field, const char *what)
{
    return amp_error_set(err, AMP_BAD_ANSWER, field, "the agent's outcome: %s", what);
}

static enum amp_code put_text(struct task *task, const char *text, bool is_last, struct amp_error *err)
{
    struct amp_error ignored;
    struct amp_bytes rest = amp_bytes_of(text);
    size_t most = task_stream_text_max(task);
    do {
        struct amp_event_sink sink = task_stream_sink(task);
        struct amp_bytes head = {.data = rest.data, .len = amp_utf8_cut(rest, most)};
        rest.data += head.len;
        rest.len -= head.len;
        enum amp_code code = amp_event_text(&task->source, head, is_last && rest.len == 0, &sink);
        if (code != AMP_OK)
            return amp_error_set(err ? err : &ignored, code, "result.text", "the answer cannot be sent: %s", amp_code_info(code)->text);
    } while (rest.len > 0);
    return AMP_OK;
}

void task_outcome_close_text(struct task *task)
{
    (void)put_text(task, "", true, NULL);
}

/* {"type":"artifact", …} through the one projection. Takes `local` over. */
static enum amp_code put_artifact(struct task *task, struct cJSON *local, struct amp_error *err)
{
    if (!cJSON_GetObjectItemCaseSensitive(local, "type"))
        cJSON_AddStringToObject(local, "type", "artifact");
    if (!cJSON_GetObjectItemCaseSensitive(local, "last"))
        cJSON_AddTrueToObject(local, "last");
    struct amp_event_sink sink = task_stream_sink(task);
    enum amp_code code = amp_event_project(&task->source, local, &sink, err);
    if (code == AMP_TOO_LARGE)
        (void)amp_error_set(err, code, "result", "an artifact of the answer has %zu bytes, more than one message on this bus may have", task->stream.refused_len);
    cJSON_Delete(local);
    return code;
}

/* text, parts and data are one artifact, `response`; text that was streamed is not repeated. */
static enum amp_code put_response(struct task *task, const struct cJSON *result, struct amp_error *err)
{
    const struct cJSON *text = cJSON_GetObjectItemCaseSensitive(result, "text");
    const struct cJSON *parts = cJSON_GetObjectItemCaseSensitive(result, "parts");
    const struct cJSON *data = cJSON_GetObjectItemCaseSensitive(result, "data");
    bool has_more = parts || data;
    bool was_streamed = task->source.is_text_started;
    if (text && !cJSON_IsString(text) && !cJSON_IsNull(text))
        return bad(err, "result.text", "`text` is not a string");
    if (text && cJSON_IsString(text) && !was_streamed) {
        enum amp_code code = put_text(task, text->valuestring, !has_more, err);
        if (code != AMP_OK || !has_more)
            return code;
    } else if (was_streamed && !has_more) {
        return put_text(task, "", true, err);
    }
    if (!has_more)
        return AMP_OK;
    for (int i = 0; i < 2; i++) {
        const struct cJSON *value = i == 0 ? parts : data;
        if (!value)
            continue;
        struct cJSON *local = cJSON_CreateObject();
        cJSON_AddStringToObject(local, "artifactId", "response");
        cJSON_AddItemToObject(local, i == 0 ? "parts" : "data", cJSON_Duplicate(value, true));
        if (task->source.is_text_started || (i == 1 && parts))
            cJSON_AddTrueToObject(local, "append");
        cJSON_AddBoolToObject(local, "last", i == 1 || !data);
        enum amp_code code = put_artifact(task, local, err);
        if (code != AMP_OK)
            return code;
    }
    return AMP_OK;
}

static enum amp_code put_artifacts(struct task *task, const struct cJSON *artifacts, struct amp_error *err)
{
    const struct cJSON *artifact;
    if (!artifacts || cJSON_IsNull(artifacts))
        return AMP_OK;
    if (!cJSON_IsArray(artifacts))
        return bad(err, "result.artifacts", "`artifacts` is not an array");
    cJSON_ArrayForEach(artifact, artifacts)
    {
        if (!cJSON_IsObject(artifact))
            return bad(err, "result.artifacts", "an artifact is not an object");
        enum amp_code code = put_artifact(task, cJSON_Duplicate(artifact, true), err);
        if (code != AMP_OK)
            return code;
    }
    return AMP_OK;
}

static void take_busy(const struct cJSON *result, struct task_verdict *verdict)
{
    const struct cJSON *after = cJSON_GetObjectItemCaseSensitive(result, "retryAfterMs");
    const char *message = member_text(result, "message");
    verdict->state = AMP__TASK_STATE__TASK_STATE_FAILED;
    (void)amp_error_set(&verdict->error, AMP_BUSY, "", "the agent can take nothing now%s%s", message ? ": " : "", message ? message : "");
    verdict->error.retry_after_ms = cJSON_IsNumber(after) && after->valuedouble > 0 && after->valuedouble < UINT32_MAX ? (uint32_t)after->valuedouble : 0;
}

static enum amp_code take_state(const struct cJSON *result, struct task_verdict *verdict, struct amp_error *err)
{
    const char *state = member_text(result, "state");
    if (!state)
        return AMP_OK;
    if (strcmp(state, "busy") == 0) {
        take_busy(result, verdict);
        return AMP_OK;
    }
    Amp__TaskState parsed = amp_task_state_parse(state);
    if (!amp_task_is_terminal(parsed) && parsed != AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED)
        return bad(err, "result.state", "`state` is none of completed, failed, rejected, canceled, input-required, busy");
    verdict->state = parsed;
    return AMP_OK;
}

/* `message`: a text, or an A2A message whose text parts count. */
static void take_message(const struct cJSON *result, struct task_verdict *verdict)
{
    const struct cJSON *message = cJSON_GetObjectItemCaseSensitive(result, "message");
    const struct cJSON *part;
    if (cJSON_IsString(message))
        verdict->text = xstrdup(message->valuestring);
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(message, "parts"))
    {
        const char *text = member_text(part, "text");
        char *longer = text ? xasprintf("%s%s", verdict->text ? verdict->text : "", text) : NULL;
        if (!longer)
            continue;
        free(verdict->text);
        verdict->text = longer;
    }
    if (verdict->text)
        verdict->reason = verdict->text;
}

static enum amp_code apply_object(struct task *task, const struct cJSON *result, struct task_verdict *verdict, struct amp_error *err)
{
    enum amp_code code = take_state(result, verdict, err);
    if (code != AMP_OK)
        return code;
    take_message(result, verdict);
    code = put_response(task, result, err);
    return code == AMP_OK ? put_artifacts(task, cJSON_GetObjectItemCaseSensitive(result, "artifacts"), err) : code;
}

void task_outcome_apply(struct task *task, const struct cJSON *result, struct task_verdict *verdict)
{
    struct amp_error err = {.code = AMP_OK};
    enum amp_code code;
    hook_at(HOOK_sidecar_done);
    if (cJSON_IsString(result)) {
        code = put_text(task, task->source.is_text_started ? "" : result->valuestring, true, &err);
    } else if (cJSON_IsNull(result)) {
        code = task->source.is_text_started ? put_text(task, "", true, &err) : AMP_OK;
    } else if (cJSON_IsObject(result)) {
        code = apply_object(task, result, verdict, &err);
    } else {
        code = bad(&err, "result", "it is neither a string, null nor an object");
    }
    if (code == AMP_OK)
        return;
    verdict->state = AMP__TASK_STATE__TASK_STATE_FAILED;
    verdict->reason = NULL;
    verdict->error = err;
    if (verdict->error.code != AMP_TOO_LARGE)
        verdict->error.code = AMP_BAD_ANSWER;
}

/* ---- questions and answers ---------------------------------------------------------------------------------------- */

const Amp__Message *task_message_copy(struct task *task, const Amp__Message *message)
{
    size_t size = amp__message__get_packed_size(message);
    uint8_t *packed = xcalloc(1, size + 1);
    (void)amp__message__pack(message, packed);
    const Amp__Message *copy = amp__message__unpack(&task->arena.allocator, size, packed);
    free(packed);
    return copy;
}
