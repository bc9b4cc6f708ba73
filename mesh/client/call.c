/* Asking a human and giving tasks to other agents: requests whose answer is waited for. */
#include "client_private.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

/* ---- ask ---------------------------------------------------------------------------------------------------------------- */

static enum amp_code put_question(struct amesh_task *task, const struct amesh_question *question, struct amesh_wait *wait, struct amp_error *reterr)
{
    struct amp_buf *out = amesh_request_begin(task->mesh, wait, "task.ask", task);
    amesh_put_string(out, "prompt", question->prompt);
    if (question->expires_ms)
        amesh_put_number(out, "expiresMs", question->expires_ms);
    amesh_put_true(out, "multiple", question->is_multiple);
    amesh_put_true(out, "other", question->has_other);
    enum amp_code code = amesh_put_json(out, "options", question->options_json, reterr);
    if (code == AMP_OK)
        code = amesh_put_json(out, "schema", question->schema_json, reterr);
    if (code == AMP_OK)
        code = amesh_put_json(out, "default", question->default_json, reterr);
    return code;
}

static enum amp_code take_reply(const struct amesh_wait *wait, struct amesh_reply *ret)
{
    const char *text = amesh_json_string(wait->reply.result, "text");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(wait->reply.result, "value");
    ret->text = strdup(text ? text : "");
    ret->value_json = value ? amesh_json_print(value) : NULL;
    ret->is_expired = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(wait->reply.result, "expired"));
    return ret->text && (!value || ret->value_json) ? AMP_OK : amp_error_set(&ret->error, AMP_NO_MEMORY, "", "out of memory");
}

void amesh_replies_done(struct amesh_reply *replies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(replies[i].text);
        free(replies[i].value_json);
        replies[i] = (struct amesh_reply){.error = {.code = AMP_OK}};
    }
}

enum amp_code amesh_ask_all(struct amesh_task *task, const struct amesh_question *questions, size_t count, struct amesh_reply *ret, struct amp_error *reterr)
{
    struct amesh_wait waits[AMESH_ASK_MAX];
    size_t sent = 0;
    memset(ret, 0, count * sizeof *ret);
    if (count > AMESH_ASK_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "count", "%zu questions at once; at most %u are allowed", count, AMESH_ASK_MAX);
    enum amp_code code = amesh_may_wait(task->mesh, task, reterr);
    for (; sent < count && code == AMP_OK; sent += code == AMP_OK) {
        code = put_question(task, &questions[sent], &waits[sent], reterr);
        if (code == AMP_OK)
            code = amesh_request_send(task->mesh, &waits[sent], reterr);
    }
    for (size_t i = 0; i < sent && code == AMP_OK; i++) {
        enum amp_code own = amesh_request_reply(task->mesh, &waits[i], task, &ret[i].error);
        if (own == AMP_OK)
            (void)take_reply(&waits[i], &ret[i]); /* what is wrong with it stands there */
        else if (!waits[i].is_done) /* the task was cancelled, or the connection is lost: so for all */
            code = own;
        if (code != AMP_OK && reterr)
            *reterr = ret[i].error;
    }
    for (size_t i = 0; i < sent; i++) {
        amesh_request_drop(&waits[i]);
        amesh_frame_done(&waits[i].reply);
    }
    return code;
}

enum amp_code amesh_ask(struct amesh_task *task, const struct amesh_question *question, char **ret_text, struct amp_error *reterr)
{
    struct amesh_reply reply;
    enum amp_code code = amesh_ask_all(task, question, 1, &reply, reterr);
    *ret_text = NULL;
    if (code == AMP_OK && reply.error.code != AMP_OK) {
        code = reply.error.code;
        if (reterr)
            *reterr = reply.error;
    } else if (code == AMP_OK) {
        *ret_text = reply.text;
        reply.text = NULL;
    }
    amesh_replies_done(&reply, 1);
    return code;
}

/* ---- send --------------------------------------------------------------------------------------------------------------- */

static void put_texts(const cJSON *parts, struct amp_buf *out)
{
    const cJSON *part;
    cJSON_ArrayForEach(part, parts) {
        const char *text = amesh_json_string(part, "text");
        if (text)
            amp_buf_append(out, text, strlen(text));
    }
}

/* All text of the artifact `response`, or of the status' message when the task did not complete. Takes the buffer's memory. */
static char *text_of(const cJSON *task, bool is_completed)
{
    struct amp_buf text;
    const cJSON *artifact, *status = cJSON_GetObjectItemCaseSensitive(task, "status");
    amp_buf_init(&text, AMESH_FRAME_MAX);
    if (is_completed) {
        cJSON_ArrayForEach(artifact, cJSON_GetObjectItemCaseSensitive(task, "artifacts")) {
            const char *id = amesh_json_string(artifact, "artifactId");
            if (id && !strcmp(id, "response"))
                put_texts(cJSON_GetObjectItemCaseSensitive(artifact, "parts"), &text);
        }
    } else {
        put_texts(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(status, "message"), "parts"), &text);
    }
    if (amp_buf_append(&text, "", 1) == AMP_OK)
        return (char *)text.data;
    amp_buf_done(&text);
    return NULL;
}

/* Why a task did not complete. */
static enum amp_code code_of(const cJSON *task, const struct amesh_answer *answer, struct amp_error *reterr)
{
    const cJSON *wire = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(task, "metadata"), "amp/error");
    const char *message = amesh_json_string(wire, "message"), *hint = amesh_json_string(wire, "hint");
    enum amp_code code = amp_code_info((enum amp_code)amesh_json_number(wire, "code"))->code;
    if (!wire || code == AMP_OK)
        code = answer->state == AMP__TASK_STATE__TASK_STATE_FAILED     ? AMP_TASK_FAILED
               : answer->state == AMP__TASK_STATE__TASK_STATE_REJECTED ? AMP_REJECTED
               : answer->state == AMP__TASK_STATE__TASK_STATE_CANCELED ? AMP_CANCELED
                                                                       : AMP_BAD_ANSWER;
    amp_error_set(reterr, code, "", "%s", *answer->text ? answer->text : message ? message : amp_code_info(code)->text);
    if (hint)
        amp_error_hint(reterr, "%s", hint);
    return code;
}

static enum amp_code fill_answer(const cJSON *task, struct amesh_answer *ret, struct amp_error *reterr)
{
    const char *id = amesh_json_string(task, "id"), *context = amesh_json_string(task, "contextId");
    const char *state = amesh_json_string(cJSON_GetObjectItemCaseSensitive(task, "status"), "state");
    if (!id || !state)
        return amp_error_set(reterr, AMP_BAD_ANSWER, "", "the sidecar answered with something that is no task");
    ret->state = amp_task_state_parse(state);
    bool is_completed = ret->state == AMP__TASK_STATE__TASK_STATE_COMPLETED;
    ret->task_id = strdup(id);
    ret->context_id = strdup(context ? context : "");
    ret->task_json = amesh_json_print(task);
    ret->text = text_of(task, is_completed);
    if (!ret->task_id || !ret->context_id || !ret->task_json || !ret->text)
        return amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
    return is_completed ? AMP_OK : code_of(task, ret, reterr);
}

static enum amp_code put_call(struct amp_buf *out, const struct amesh_call *call, struct amp_error *reterr)
{
    amesh_put_string(out, "to", call->agent);
    amesh_put_string(out, "skill", call->skill);
    amesh_put_string(out, "text", call->text);
    amesh_put_string(out, "contextId", call->context_id);
    amesh_put_string(out, "key", call->key);
    amesh_put_true(out, "durable", call->is_durable);
    amesh_put_true(out, "stream", call->on_event || call->on_text);
    if (call->timeout_ms)
        amesh_put_number(out, "timeoutMs", call->timeout_ms);
    return amesh_put_json(out, "message", call->message_json, reterr);
}

static void take_back(struct amesh *mesh, const struct amesh_wait *wait)
{
    struct amp_buf *out = amesh_link_begin(&mesh->link);
    amp_buf_printf(out, "{\"method\":\"send.cancel\"");
    amesh_put_open(out, "params");
    amesh_put_number(out, "id", wait->number);
    amesh_put_close(out, 2);
    (void)amesh_link_send(&mesh->link); /* if it breaks, everything of ours is taken back */
}

enum amp_code amesh_send(struct amesh *mesh, struct amesh_task *task, const struct amesh_call *call, struct amesh_answer *ret, struct amp_error *reterr)
{
    struct amesh_wait wait;
    *ret = (struct amesh_answer){0};
    enum amp_code code = amesh_may_wait(mesh, task, reterr);
    if (code == AMP_OK) {
        struct amp_buf *out = amesh_request_begin(mesh, &wait, "send", task);
        wait.call = call;
        code = put_call(out, call, reterr);
        if (code == AMP_OK)
            code = amesh_request_wait(mesh, &wait, task, reterr);
        if (code == AMP_CANCELED && !wait.is_done && !mesh->link.is_broken)
            take_back(mesh, &wait);
        if (code == AMP_OK)
            code = fill_answer(wait.reply.result, ret, reterr);
        amesh_frame_done(&wait.reply);
    }
    if (!ret->text)
        ret->text = strdup("");
    return code;
}

void amesh_answer_done(struct amesh_answer *answer)
{
    free(answer->text);
    free(answer->task_json);
    free(answer->task_id);
    free(answer->context_id);
    *answer = (struct amesh_answer){0};
}
