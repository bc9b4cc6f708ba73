/* POST /v1/send: the one answer that is made while it is sent, as text, as SSE, or whole. */
#include "sidecar/local_http_private.h"

#include "base/http.h"
#include "base/loop.h"
#include "sidecar/sidecar.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { COMMENT_MS = 15000, FULL_BYTES = 1 << 20 /* that wait to be read, until the stream is held back */ };

static void write_sse(struct exchange *exchange, uint32_t seq, struct amp_bytes event)
{
    struct amp_buf out;
    amp_buf_init(&out, AMP_WIRE_BYTES_MAX + 64);
    if (amp_buf_printf(&out, "id: %u\ndata: ", seq) == AMP_OK && amp_buf_append(&out, event.data, event.len) == AMP_OK && amp_buf_append(&out, "\n\n", 2) == AMP_OK)
        (void)!http_stream_write(exchange->request, amp_buf_bytes(&out)); /* too slow a reader: closed by the server, on_gone follows */
    amp_buf_done(&out);
}

static void on_drained(void *ctx)
{
    struct exchange *exchange = ctx;
    rpc_hold(exchange->rpc, false);
}

static void start_stream(struct exchange *exchange, const char *type)
{
    if (!exchange->is_started)
        http_stream_start(exchange->request, 200, type);
    exchange->is_started = true;
}

static void write_answer_text(struct exchange *exchange, struct amp_bytes event)
{
    cJSON *json = cJSON_ParseWithLength((const char *)event.data, event.len);
    const cJSON *artifact = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "artifactUpdate"), "artifact");
    const char *id = local_text_of(artifact, "artifactId");
    const cJSON *part;
    if (id && !strcmp(id, "response")) {
        cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(artifact, "parts")) {
            const char *text = local_text_of(part, "text");
            if (!text || !*text)
                continue;
            start_stream(exchange, "text/plain; charset=utf-8");
            (void)!http_stream_write(exchange->request, amp_bytes_of(text));
        }
    }
    cJSON_Delete(json);
}

static void on_send_event(void *ctx, uint32_t seq, struct amp_bytes event)
{
    struct exchange *exchange = ctx;
    if (exchange->form == FORM_TEXT) {
        write_answer_text(exchange, event);
    } else {
        start_stream(exchange, "text/event-stream");
        write_sse(exchange, seq, event);
    }
    if (exchange->is_started && http_stream_waiting(exchange->request) > FULL_BYTES)
        rpc_hold(exchange->rpc, true);
}

/* Why a task that ended is not an answer; false if it is one. */
static bool has_failed(const cJSON *task, struct amp_error *err)
{
    const cJSON *status = cJSON_GetObjectItemCaseSensitive(task, "status");
    const char *name = local_text_of(status, "state");
    Amp__TaskState state = name ? amp_task_state_parse(name) : AMP__TASK_STATE__TASK_STATE_UNSPECIFIED;
    const cJSON *parts = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(status, "message"), "parts");
    const char *reason = local_text_of(cJSON_GetArrayItem(parts, 0), "text");
    const cJSON *wire = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(task, "metadata"), "amp/error");
    const cJSON *code = cJSON_GetObjectItemCaseSensitive(wire, "code");
    if (state == AMP__TASK_STATE__TASK_STATE_COMPLETED)
        return false;
    enum amp_code own = state == AMP__TASK_STATE__TASK_STATE_CANCELED ? AMP_CANCELED : state == AMP__TASK_STATE__TASK_STATE_REJECTED ? AMP_REJECTED : AMP_TASK_FAILED;
    if (cJSON_IsNumber(code))
        own = amp_code_info((enum amp_code)code->valueint)->code;
    amp_error_set(err, own, "", "%s", reason ? reason : amp_code_info(own)->text);
    return true;
}

static void end_sse(struct exchange *exchange, const cJSON *task, const struct amp_error *err)
{
    struct amp_buf out;
    amp_buf_init(&out, 4096);
    start_stream(exchange, "text/event-stream");
    if (err && err->code != AMP_OK) {
        (void)amp_buf_printf(&out, "event: error\ndata: {\"code\":\"AMESH-%u\",\"name\":\"%s\",\"message\":", (unsigned)err->code, amp_code_info(err->code)->name);
        (void)amp_json_append_string(&out, amp_bytes_of(err->message));
        (void)amp_buf_append(&out, "}\n\n", 3);
    } else {
        const char *state = local_text_of(cJSON_GetObjectItemCaseSensitive(task, "status"), "state");
        (void)amp_buf_printf(&out, "event: end\ndata: {\"state\":\"%s\"}\n\n", state ? state : "");
    }
    (void)!http_stream_write(exchange->request, amp_buf_bytes(&out));
    amp_buf_done(&out);
    http_stream_end(exchange->request);
}

static void end_text(struct exchange *exchange, const cJSON *task, const struct amp_error *err)
{
    struct amp_error own = {0};
    bool is_bad = err && err->code != AMP_OK;
    if (is_bad)
        own = *err;
    else
        is_bad = has_failed(task, &own);
    if (!is_bad) {
        start_stream(exchange, "text/plain; charset=utf-8");
        http_stream_end(exchange->request);
    } else if (exchange->is_started) {
        http_stream_abort(exchange->request);
    } else {
        http_reply_error(exchange->request, &own);
    }
}

static void on_send_done(void *ctx, const cJSON *task, const struct amp_error *err)
{
    struct exchange *exchange = ctx;
    bool is_early_error = err && err->code != AMP_OK && !exchange->is_started;
    cJSON *read = cJSON_IsRaw(task) && exchange->form != FORM_JSON ? cJSON_Parse(task->valuestring) : NULL;
    if (is_early_error)
        http_reply_error(exchange->request, err);
    else if (exchange->form == FORM_SSE)
        end_sse(exchange, read ? read : task, err);
    else if (exchange->form == FORM_TEXT)
        end_text(exchange, read ? read : task, err);
    else
        local_reply_json(exchange->request, 200, task);
    cJSON_Delete(read);
    local_exchange_end(exchange);
}

static void on_comment(void *ctx)
{
    struct exchange *exchange = ctx;
    loop_timer_set(exchange->comment, COMMENT_MS);
    if (exchange->is_started)
        (void)!http_stream_write(exchange->request, amp_bytes_of(": \n\n"));
}

/* What an SSE client says that was cut off: the number of the last event that it has. False: answered already. */
static bool take_last_event(struct http_request *request, cJSON *params)
{
    const char *last = http_header(request, "Last-Event-ID");
    char *end;
    if (!last || !*last)
        return true;
    unsigned long number = strtoul(last, &end, 10);
    if (*end || *last < '0' || *last > '9' || number >= UINT32_MAX) {
        local_reply_error(request, AMP_INVALID, "Last-Event-ID", "it is not the number of an event");
        return false;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(params, "fromSeq");
    cJSON_AddNumberToObject(params, "fromSeq", (double)number + 1);
    return true;
}

static void start_send(struct sidecar *sidecar, struct http_request *request, const char *to, const char *skill)
{
    static const struct rpc_handlers handlers = {.on_done = on_send_done, .on_event = on_send_event};
    enum local_form form = http_accepts(request, "text/plain") ? FORM_TEXT : http_accepts(request, "text/event-stream") ? FORM_SSE : FORM_JSON;
    unsigned long timeout_ms = 0;
    if (!local_take_number(request, "timeout", UINT32_MAX, &timeout_ms))
        return;
    cJSON *params = local_read_params(request, "text");
    if (!params)
        return;
    const char *durable = http_query(request, "durable");
    local_set_text(params, "to", to);
    local_set_text(params, "skill", skill);
    local_set_text(params, "contextId", http_query(request, "context"));
    local_set_text(params, "taskId", http_query(request, "task"));
    local_set_text(params, "key", http_query(request, "key"));
    if (timeout_ms) {
        cJSON_DeleteItemFromObjectCaseSensitive(params, "timeoutMs");
        cJSON_AddNumberToObject(params, "timeoutMs", (double)timeout_ms);
    }
    if (durable && strcmp(durable, "0") != 0) {
        cJSON_DeleteItemFromObjectCaseSensitive(params, "durable");
        cJSON_AddTrueToObject(params, "durable");
    }
    const char *detach = http_query(request, "detach");
    if (detach && strcmp(detach, "0") != 0) {
        cJSON_DeleteItemFromObjectCaseSensitive(params, "detach");
        cJSON_AddTrueToObject(params, "detach");
    }
    cJSON_DeleteItemFromObjectCaseSensitive(params, "stream");
    cJSON_AddBoolToObject(params, "stream", form != FORM_JSON);
    if (form == FORM_SSE && !take_last_event(request, params)) {
        cJSON_Delete(params);
        return;
    }
    struct exchange *exchange = local_exchange_new(sidecar, request, form);
    http_on_drained(request, on_drained);
    if (form == FORM_SSE) {
        exchange->comment = loop_timer_new(sidecar_loop(sidecar), on_comment, exchange);
        loop_timer_set(exchange->comment, COMMENT_MS);
    }
    local_exchange_run(exchange, "send", params, &handlers);
}

void local_post_send(void *ctx, struct http_request *request)
{
    start_send(ctx, request, http_segment(request, 0), NULL);
}

void local_post_send_skill(void *ctx, struct http_request *request)
{
    const char *skill = http_query(request, "skill");
    if (skill)
        start_send(ctx, request, NULL, skill);
    else
        local_reply_error(request, AMP_INVALID, "skill", "name an agent in the path (/v1/send/NAME) or a skill in the query (?skill=S)");
}
