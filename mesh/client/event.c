/* What happens in a task, as local events (local-api.md 4). They are notifications: nothing answers them. */
#include "client_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum amp_code begin(struct amesh_task *task, const char *type, struct amp_buf **ret)
{
    if (amesh_job_of(task)->is_finished)
        return AMP_TASK_ENDED;
    struct amp_buf *out = amesh_link_begin(&task->mesh->link);
    amp_buf_printf(out, "{\"method\":\"task.event\"");
    amesh_put_open(out, "params");
    amesh_put_string(out, "taskId", task->id);
    amesh_put_open(out, "event");
    amesh_put_string(out, "type", type);
    *ret = out;
    return AMP_OK;
}

static enum amp_code finish(struct amesh_task *task)
{
    amesh_put_close(&task->mesh->link.out, 3);
    return amesh_link_send(&task->mesh->link);
}

static enum amp_code finish_with(struct amesh_task *task, enum amp_code code, struct amp_error *reterr)
{
    if (code != AMP_OK) /* put_json has said why */
        return code;
    code = finish(task);
    return code == AMP_OK ? code : amp_error_set(reterr, code, "", "the event was not sent: %s", amp_code_info(code)->text);
}

static enum amp_code ended(enum amp_code code, struct amp_error *reterr)
{
    return amp_error_set(reterr, code, "", "the task is finished already");
}

/* The next piece of a text: at most AMESH_TEXT_PIECE bytes, cut between characters if it is UTF-8. */
static size_t piece_of(const char *text, size_t len)
{
    size_t cut = AMESH_TEXT_PIECE;
    if (len <= cut)
        return len;
    while (cut > AMESH_TEXT_PIECE - 4 && ((unsigned char)text[cut] & 0xC0) == 0x80)
        cut--;
    return cut;
}

/* ---- texts ------------------------------------------------------------------------------------------------------------- */

enum amp_code amesh_job_text(struct amesh_job *job, const char *type, const char *text, size_t len)
{
    enum amp_code code = job->is_finished ? AMP_TASK_ENDED : AMP_OK;
    while (code == AMP_OK && len > 0) {
        struct amp_buf *out;
        size_t piece = piece_of(text, len);
        code = begin(&job->task, type, &out);
        if (code != AMP_OK)
            return code;
        amesh_put_bytes(out, "text", (struct amp_bytes){(const uint8_t *)text, piece});
        code = finish(&job->task);
        text += piece;
        len -= piece;
    }
    return code;
}

enum amp_code amesh_task_write(struct amesh_task *task, const char *text)
{
    amesh_job_of(task)->is_text_written |= *text != '\0';
    return amesh_job_text(amesh_job_of(task), "text", text, strlen(text));
}

enum amp_code amesh_task_printf(struct amesh_task *task, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len < 0)
        return AMP_NO_MEMORY;
    enum amp_code code = amesh_task_write(task, text);
    free(text);
    return code;
}

enum amp_code amesh_task_reasoning(struct amesh_task *task, const char *text)
{
    return amesh_job_text(amesh_job_of(task), "reasoning", text, strlen(text));
}

static enum amp_code two_strings(struct amesh_task *task, const char *type, const char *const pairs[4])
{
    struct amp_buf *out;
    enum amp_code code = begin(task, type, &out);
    if (code != AMP_OK)
        return code;
    for (size_t i = 0; i < 4 && pairs[i]; i += 2)
        amesh_put_string(out, pairs[i], pairs[i + 1]);
    return finish(task);
}

enum amp_code amesh_task_status(struct amesh_task *task, const char *text)
{
    return two_strings(task, "status", (const char *[4]){"text", text});
}

enum amp_code amesh_task_log(struct amesh_task *task, const char *level, const char *text)
{
    return two_strings(task, "log", (const char *[4]){"level", level, "text", text});
}

enum amp_code amesh_task_step_start(struct amesh_task *task, const char *name)
{
    return two_strings(task, "step", (const char *[4]){"name", name, "phase", "start"});
}

enum amp_code amesh_task_step_end(struct amesh_task *task, const char *name)
{
    return two_strings(task, "step", (const char *[4]){"name", name, "phase", "end"});
}

/* ---- tools and the rest -------------------------------------------------------------------------------------------------- */

enum amp_code amesh_task_tool_call(struct amesh_task *task, const char *call_id, const char *name, const char *args_json, struct amp_error *reterr)
{
    struct amp_buf *out;
    enum amp_code code = begin(task, "tool_call", &out);
    if (code != AMP_OK)
        return ended(code, reterr);
    amesh_put_string(out, "callId", call_id);
    amesh_put_string(out, "name", name);
    return finish_with(task, amesh_put_json(out, "args", args_json ? args_json : "{}", reterr), reterr);
}

enum amp_code amesh_task_tool_result(struct amesh_task *task, const char *call_id, const char *output_json, bool is_error, struct amp_error *reterr)
{
    struct amp_buf *out;
    enum amp_code code = begin(task, "tool_result", &out);
    if (code != AMP_OK)
        return ended(code, reterr);
    amesh_put_string(out, "callId", call_id);
    amesh_put_true(out, "isError", is_error);
    return finish_with(task, amesh_put_json(out, "output", output_json ? output_json : "null", reterr), reterr);
}

enum amp_code amesh_task_custom(struct amesh_task *task, const char *name, const char *value_json, struct amp_error *reterr)
{
    struct amp_buf *out;
    enum amp_code code = begin(task, "custom", &out);
    if (code != AMP_OK)
        return ended(code, reterr);
    amesh_put_string(out, "name", name);
    return finish_with(task, amesh_put_json(out, "value", value_json ? value_json : "null", reterr), reterr);
}

enum amp_code amesh_task_usage(struct amesh_task *task, const struct amesh_usage *usage)
{
    struct amp_buf *out;
    enum amp_code code = begin(task, "usage", &out);
    if (code != AMP_OK)
        return code;
    amesh_put_string(out, "model", usage->model);
    amesh_put_number(out, "inputTokens", usage->input_tokens);
    amesh_put_number(out, "outputTokens", usage->output_tokens);
    if (usage->cost_usd > 0 && usage->cost_usd < 1e15) { /* by hand: printf would use the host's decimal point */
        uint64_t nano = (uint64_t)(usage->cost_usd * 1e9 + 0.5) % 1000000000u;
        amp_buf_printf(out, ",\"costUsd\":%llu.%09llu", (unsigned long long)(usage->cost_usd + 0.5e-9), (unsigned long long)nano);
    }
    return finish(task);
}

/* ---- artifacts ------------------------------------------------------------------------------------------------------------ */

static void put_base64(struct amp_buf *out, struct amp_bytes bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.len && !out->is_full; i += 3) {
        size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
        uint32_t group = (uint32_t)bytes.data[i] << 16 | (n > 1 ? (uint32_t)bytes.data[i + 1] << 8 : 0) | (n > 2 ? bytes.data[i + 2] : 0);
        char four[4];
        for (size_t k = 0; k < 4; k++)
            four[k] = (char)(k <= n ? digits[group >> (18 - 6 * k) & 63] : '=');
        amp_buf_append(out, four, sizeof four);
    }
}

static enum amp_code begin_artifact(struct amesh_task *task, const struct amesh_artifact *artifact, struct amp_buf **ret)
{
    enum amp_code code = begin(task, "artifact", ret);
    if (code != AMP_OK)
        return code;
    amesh_put_string(*ret, "artifactId", artifact->id ? artifact->id : artifact->name);
    amesh_put_string(*ret, "name", artifact->name);
    amesh_put_string(*ret, "description", artifact->description);
    return AMP_OK;
}

static void put_about(struct amp_buf *out, const struct amesh_artifact *artifact)
{
    amesh_put_string(out, "filename", artifact->filename);
    amesh_put_string(out, "mediaType", artifact->media_type);
}

static enum amp_code send_text(struct amesh_task *task, const struct amesh_artifact *artifact)
{
    const char *text = artifact->text;
    size_t len = strlen(text);
    bool is_more;
    enum amp_code code;
    do {
        struct amp_buf *out;
        size_t piece = piece_of(text, len);
        is_more = piece < len;
        code = begin_artifact(task, artifact, &out);
        if (code != AMP_OK)
            return code;
        put_about(out, artifact);
        amesh_put_bytes(out, "text", (struct amp_bytes){(const uint8_t *)text, piece});
        amesh_put_true(out, "append", text != artifact->text);
        amesh_put_true(out, "last", !is_more);
        code = finish(task);
        text += piece;
        len -= piece;
    } while (code == AMP_OK && is_more);
    return code;
}

enum amp_code amesh_task_artifact(struct amesh_task *task, const struct amesh_artifact *artifact, struct amp_error *reterr)
{
    struct amp_buf *out;
    if (!artifact->name || (artifact->text != NULL) + (artifact->data_json != NULL) + (artifact->bytes.data != NULL) != 1)
        return amp_error_set(reterr, AMP_INVALID, "artifact", "an artifact has a name and exactly one of text, data and bytes");
    if (artifact->text) {
        enum amp_code code = send_text(task, artifact);
        return code == AMP_OK ? code : amp_error_set(reterr, code, "artifact", "%s", amp_code_info(code)->text);
    }
    enum amp_code code = begin_artifact(task, artifact, &out);
    if (code != AMP_OK)
        return ended(code, reterr);
    if (artifact->data_json) {
        put_about(out, artifact);
        code = amesh_put_json(out, "data", artifact->data_json, reterr);
    } else {
        amp_buf_printf(out, ",\"parts\":[{\"raw\":\"");
        put_base64(out, artifact->bytes);
        amp_buf_printf(out, "\"");
        put_about(out, artifact);
        amp_buf_printf(out, "}]");
    }
    amesh_put_true(out, "last", true);
    return finish_with(task, code, reterr);
}
