/* Chat completions of OpenAI and of whoever speaks like it, as an agent: each task is one completion, streamed. What was said in a context before is sent along, as the API itself keeps nothing.
 *
 * Not told by the API and so not ours: questions (a model asks in its text), artifacts. Tools: none are offered; a call that comes all the same is told as an event and ends the task as failed. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter.h"
#include "base/alloc.h"
#include "base/fetch.h"
#include "base/sse.h"
#include "openai/memory.h"

enum { CONNECT_MS = 10000, RETRY_MS_MAX = 60000 };
#define EVENT_MAX (1u << 20)
#define ERROR_MAX (64u << 10)
#define ANSWER_MAX (8u << 20) /* no model says as much */

struct adapter { /* one model */
    struct adapter_options options;
    char *url;
    struct openai_memory *memory;
};

struct call { /* one completion */
    struct adapter *adapter;
    struct adapter_job *job;
    struct fetch *fetch;
    struct sse sse;
    struct amp_buf body;   /* of an answer that is no stream */
    struct amp_buf answer; /* so far */
    char *asked;           /* for the memory */
    char *finish, *model;
    double n_in, n_out;
    bool is_stream, has_usage, is_done, is_over; /* is_done: [DONE]; is_over: the job is finished */
    struct amp_error error;
};

/* ---- the end -------------------------------------------------------------------------------------------------------- */

static void call_free(struct call *call)
{
    fetch_free(call->fetch);
    sse_done(&call->sse);
    amp_buf_done(&call->body);
    amp_buf_done(&call->answer);
    free(call->asked);
    free(call->finish);
    free(call->model);
    free(call);
}

static void finish(struct call *call, const struct adapter_result *result)
{
    struct adapter_job *job = call->job;
    job->data = NULL;
    call_free(call);
    job->host->finish(job, result);
}

static void fail(struct call *call, const struct amp_error *err)
{
    const struct adapter_result result = {.state = AMP__TASK_STATE__TASK_STATE_FAILED, .error = *err};
    finish(call, &result);
}

static void tell_usage(struct call *call)
{
    if (!call->has_usage)
        return;
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "type", "usage");
    cJSON_AddStringToObject(event, "model", call->model ? call->model : call->adapter->options.model);
    cJSON_AddNumberToObject(event, "inputTokens", call->n_in);
    cJSON_AddNumberToObject(event, "outputTokens", call->n_out);
    (void)call->job->host->event(call->job, event);
    cJSON_Delete(event);
}

static void complete(struct call *call)
{
    struct adapter_result result = {.state = AMP__TASK_STATE__TASK_STATE_COMPLETED};
    tell_usage(call);
    amp_buf_append(&call->answer, "", 1);
    if (call->finish && strcmp(call->finish, "content_filter") == 0) {
        result = (struct adapter_result){.state = AMP__TASK_STATE__TASK_STATE_REJECTED, .reason = "the model's filter withheld the answer (finish_reason content_filter)"};
    } else if (call->finish && (strcmp(call->finish, "tool_calls") == 0 || strcmp(call->finish, "function_call") == 0)) {
        result.state = AMP__TASK_STATE__TASK_STATE_FAILED;
        amp_error_set(&result.error, AMP_BAD_ANSWER, "", "the model called a tool, and was offered none");
    } else {
        openai_memory_add(call->adapter->memory, call->job->context_id, call->asked, (const char *)call->answer.data);
        if (call->finish && strcmp(call->finish, "length") == 0)
            result.reason = "the answer was cut off: the model's limit of tokens (finish_reason length)";
    }
    finish(call, &result);
}

/* ---- what comes ------------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static bool tell(struct call *call, const char *type, const char *name, const char *text)
{
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "type", type);
    cJSON_AddStringToObject(event, name, text);
    bool is_good = call->job->host->event(call->job, event);
    cJSON_Delete(event);
    return is_good;
}

static bool take_text(struct call *call, const char *text)
{
    if (!*text)
        return true;
    if (amp_buf_append(&call->answer, text, strlen(text)) != AMP_OK || call->answer.len > ANSWER_MAX) {
        amp_error_set(&call->error, AMP_TOO_LARGE, "", "the model's answer is longer than %u bytes", ANSWER_MAX);
        return false;
    }
    return call->job->host->text(call->job, amp_bytes_of(text));
}

static bool take_calls(struct call *call, const cJSON *calls)
{
    const cJSON *one;
    bool is_good = true;
    cJSON_ArrayForEach(one, calls)
    {
        const char *name = text_of(cJSON_GetObjectItemCaseSensitive(one, "function"), "name");
        cJSON *event = *name ? cJSON_CreateObject() : NULL; /* else a piece of arguments */
        if (!event)
            continue;
        cJSON_AddStringToObject(event, "type", "tool_call");
        cJSON_AddStringToObject(event, "callId", *text_of(one, "id") ? text_of(one, "id") : "call");
        cJSON_AddStringToObject(event, "name", name);
        cJSON_AddObjectToObject(event, "args");
        is_good &= call->job->host->event(call->job, event);
        cJSON_Delete(event);
    }
    return is_good;
}

static void take_usage(struct call *call, const cJSON *usage)
{
    const cJSON *in = cJSON_GetObjectItemCaseSensitive(usage, "prompt_tokens"), *out = cJSON_GetObjectItemCaseSensitive(usage, "completion_tokens");
    if (!cJSON_IsNumber(in) || !cJSON_IsNumber(out))
        return;
    call->has_usage = true;
    call->n_in = in->valuedouble;
    call->n_out = out->valuedouble;
}

/* An error in the middle of a stream, or with status 200. */
static bool take_error(struct call *call, const cJSON *error)
{
    amp_error_set(&call->error, AMP_TASK_FAILED, "", "the model's server says: %.300s", cJSON_IsString(error) ? error->valuestring : *text_of(error, "message") ? text_of(error, "message") : "an error without a message");
    return false;
}

/* A chunk, or a whole answer. False: no further. */
static bool take_chunk(struct call *call, const cJSON *chunk)
{
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(chunk, "error"), *choices = cJSON_GetObjectItemCaseSensitive(chunk, "choices");
    if (error && !cJSON_IsNull(error))
        return take_error(call, error);
    take_usage(call, cJSON_GetObjectItemCaseSensitive(chunk, "usage"));
    if (!call->model && *text_of(chunk, "model"))
        call->model = xstrdup(text_of(chunk, "model"));
    const cJSON *choice = cJSON_IsArray(choices) ? choices->child : NULL;
    if (!choice)
        return true;
    const cJSON *delta = cJSON_GetObjectItemCaseSensitive(choice, "delta");
    delta = delta ? delta : cJSON_GetObjectItemCaseSensitive(choice, "message");
    if (*text_of(choice, "finish_reason")) {
        free(call->finish);
        call->finish = xstrdup(text_of(choice, "finish_reason"));
    }
    const char *thought = text_of(delta, "reasoning_content");
    if (*thought && !tell(call, "reasoning", "text", thought))
        return false;
    return take_text(call, text_of(delta, "content")) && take_calls(call, cJSON_GetObjectItemCaseSensitive(delta, "tool_calls"));
}

static bool on_event(void *ctx, const struct sse_event *event)
{
    struct call *call = ctx;
    struct amp_error err = {0};
    cJSON *chunk = NULL;
    if (strcmp(event->data, "[DONE]") == 0) {
        call->is_done = true;
        return false;
    }
    if (amp_json_parse(amp_bytes_of(event->data), &chunk, &err) != AMP_OK || !cJSON_IsObject(chunk)) {
        cJSON_Delete(chunk);
        amp_error_set(&call->error, AMP_BAD_ANSWER, "", "the model's server sent an event that is no JSON object");
        return false;
    }
    bool goes_on = take_chunk(call, chunk);
    cJSON_Delete(chunk);
    call->is_over = !goes_on;
    return goes_on;
}

/* ---- the answer -------------------------------------------------------------------------------------------------------- */

static void on_head(void *ctx)
{
    struct call *call = ctx;
    const char *type = fetch_header(call->fetch, "Content-Type");
    call->is_stream = fetch_status(call->fetch) == 200 && type && strncmp(type, "text/event-stream", 17) == 0;
}

static void stop_reading(struct call *call)
{
    struct adapter_result canceled = {.state = AMP__TASK_STATE__TASK_STATE_CANCELED};
    if (call->error.code != AMP_OK)
        fail(call, &call->error);
    else
        finish(call, &canceled); /* the task is over, or was cancelled */
}

static void on_data(void *ctx, struct amp_bytes data)
{
    struct call *call = ctx;
    struct adapter_job *job = call->job;
    if (!call->is_stream) {
        if (amp_buf_append(&call->body, data.data, data.len) != AMP_OK) {
            amp_error_set(&call->error, AMP_BAD_ANSWER, "", "the model's server answered with more than %zu bytes", call->body.max);
            fail(call, &call->error);
        }
        return;
    }
    struct amp_error err = {0};
    if (!call->is_done && sse_feed(&call->sse, data, &err) != AMP_OK) {
        fail(call, &err);
    } else if (call->is_done) {
        complete(call);
    } else if (call->is_over || call->error.code != AMP_OK) {
        stop_reading(call);
    } else if (job->host->is_full(job)) {
        fetch_pause(call->fetch, true);
    }
}

static uint32_t retry_after_ms(const struct call *call)
{
    const char *text = fetch_header(call->fetch, "Retry-After");
    double seconds = text ? strtod(text, NULL) : 0;
    return seconds > 0 && seconds < RETRY_MS_MAX / 1000.0 ? (uint32_t)(seconds * 1000) : seconds > 0 ? RETRY_MS_MAX : 0;
}

/* Status and message of what is no 200. */
static void refuse(struct call *call)
{
    int status = fetch_status(call->fetch);
    struct adapter_result result = {.state = AMP__TASK_STATE__TASK_STATE_FAILED};
    struct amp_error ignored = {0};
    cJSON *body = NULL;
    char message[256];
    (void)!amp_json_parse(amp_buf_bytes(&call->body), &body, &ignored);
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(body, "error");
    const char *said = cJSON_IsString(error) ? error->valuestring : *text_of(error, "message") ? text_of(error, "message") : text_of(body, "message");
    struct amp_buf clean;
    amp_buf_init(&clean, sizeof message - 1);
    amp_text_sanitize(&clean, amp_bytes_of(said), true);
    (void)snprintf(message, sizeof message, "%d%s%.*s", status, clean.len ? ": " : "", (int)clean.len, clean.len ? (const char *)clean.data : "");
    amp_buf_done(&clean);
    cJSON_Delete(body);
    if (status == 429 || status == 503 || status == 529) {
        amp_error_set(&result.error, AMP_BUSY, "", "the model's server can take nothing now (%s)", message);
        result.error.retry_after_ms = retry_after_ms(call);
    } else if (status == 401 || status == 403) {
        amp_error_set(&result.error, AMP_DENIED, "", "the model's server refuses the key (%s)", message);
        amp_error_hint(&result.error, "--key-file FILE, or OPENAI_API_KEY");
    } else if (status == 400 || status == 413 || status == 422) {
        result = (struct adapter_result){.state = AMP__TASK_STATE__TASK_STATE_REJECTED, .reason = message};
    } else if (status == 404) {
        amp_error_set(&result.error, AMP_NOT_FOUND, "", "the model's server knows no such model or path (%s)", message);
    } else if (status >= 300 && status < 400) {
        amp_error_set(&result.error, AMP_BAD_ANSWER, "", "the model's server is elsewhere (%s)", message);
        amp_error_hint(&result.error, "redirects are not followed: give the URL itself");
    } else {
        amp_error_set(&result.error, AMP_TASK_FAILED, "", "the model's server failed (%s)", message);
    }
    finish(call, &result);
}

static void take_whole(struct call *call)
{
    struct amp_error err = {0};
    cJSON *body = NULL;
    if (amp_json_parse(amp_buf_bytes(&call->body), &body, &err) != AMP_OK || !cJSON_IsObject(body)) {
        cJSON_Delete(body);
        amp_error_set(&err, AMP_BAD_ANSWER, "", "the model's server answered with something that is no JSON object");
        fail(call, &err);
        return;
    }
    bool is_good = take_chunk(call, body);
    cJSON_Delete(body);
    if (is_good)
        complete(call);
    else
        stop_reading(call);
}

static void on_end(void *ctx, const struct fetch_end *end)
{
    struct call *call = ctx;
    struct amp_error err = end->error;
    if (err.code != AMP_OK) {
        fail(call, &err);
    } else if (fetch_status(call->fetch) != 200) {
        refuse(call);
    } else if (!call->is_stream) {
        take_whole(call);
    } else if (call->finish) {
        complete(call); /* some never say [DONE] */
    } else {
        amp_error_set(&err, AMP_BAD_ANSWER, "", "the model's answer ended in the middle");
        fail(call, &err);
    }
}

/* ---- what the sidecar asks ------------------------------------------------------------------------------------------------ */

static char *request_of(const struct adapter *adapter, const struct call *call)
{
    cJSON *body = cJSON_CreateObject(), *messages = cJSON_CreateArray();
    cJSON_AddStringToObject(body, "model", adapter->options.model);
    if (adapter->options.system)
        openai_message_add(messages, "system", adapter->options.system);
    openai_memory_write(adapter->memory, call->job->context_id, messages);
    openai_message_add(messages, "user", call->asked);
    cJSON_AddItemToObject(body, "messages", messages);
    cJSON_AddTrueToObject(body, "stream");
    cJSON_AddTrueToObject(cJSON_AddObjectToObject(body, "stream_options"), "include_usage");
    char *printed = cJSON_PrintUnformatted(body), *text = xstrdup(printed);
    cJSON_free(printed);
    cJSON_Delete(body);
    return text;
}

static void openai_run(struct adapter *adapter, struct adapter_job *job)
{
    static const char *const headers[] = {"Content-Type: application/json", "Accept: text/event-stream, application/json", NULL};
    struct call *call = xcalloc(1, sizeof *call);
    struct amp_buf text;
    *call = (struct call){.adapter = adapter, .job = job};
    job->data = call;
    sse_init(&call->sse, EVENT_MAX, on_event, call);
    amp_buf_init(&call->body, ANSWER_MAX);
    amp_buf_init(&call->answer, ANSWER_MAX + 1); /* and a NUL */
    amp_buf_init(&text, AMP_WIRE_BYTES_MAX);
    enum amp_code code = amp_message_text(job->message, &text);
    call->asked = text.len ? xstrndup((const char *)text.data, text.len) : xstrdup("");
    amp_buf_done(&text);
    if (code != AMP_OK || !*call->asked) {
        const struct adapter_result result = {.state = AMP__TASK_STATE__TASK_STATE_REJECTED, .reason = "a model is asked in text, and there is none in this message"};
        finish(call, &result);
        return;
    }
    char *body = request_of(adapter, call);
    call->fetch = fetch_start(adapter->options.fetcher, &(struct fetch_options){.method = "POST", .url = adapter->url, .headers = headers, .key = adapter->options.key, .body = amp_bytes_of(body),
                                                                               .connect_ms = CONNECT_MS, .idle_ms = adapter->options.idle_ms, .on_head = on_head, .on_data = on_data, .on_end = on_end, .ctx = call});
    free(body);
}

static void openai_cancel(struct adapter *adapter, struct adapter_job *job)
{
    const struct adapter_result result = {.state = AMP__TASK_STATE__TASK_STATE_CANCELED};
    (void)adapter;
    finish(job->data, &result); /* closing the connection is all the cancel that the API has */
}

static void openai_resume(struct adapter *adapter, struct adapter_job *job)
{
    struct call *call = job->data;
    (void)adapter;
    if (call && call->fetch)
        fetch_pause(call->fetch, false);
}

static enum amp_code openai_open(const struct adapter_options *options, struct adapter **ret, struct amp_error *reterr)
{
    const char *url = options->target;
    size_t len = strlen(url);
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return amp_error_set(reterr, AMP_INVALID, "openai", "--openai wants the base URL of a server: http://127.0.0.1:8000/v1, https://api.openai.com/v1");
    if (!options->model || !*options->model)
        return amp_error_set(reterr, AMP_INVALID, "model", "--openai: which model? --model NAME");
    while (len > 0 && url[len - 1] == '/')
        len--;
    struct adapter *adapter = xcalloc(1, sizeof *adapter);
    adapter->options = *options;
    adapter->url = xasprintf("%.*s/chat/completions", (int)len, url);
    adapter->memory = openai_memory_new();
    *ret = adapter;
    return AMP_OK;
}

static void openai_close(struct adapter *adapter)
{
    openai_memory_free(adapter->memory);
    free(adapter->url);
    free(adapter);
}

const struct adapter_kind adapter_openai = {
    .option = "openai", .key_env = "OPENAI_API_KEY", .open = openai_open, .run = openai_run, .cancel = openai_cancel, .resume = openai_resume, .close = openai_close};
