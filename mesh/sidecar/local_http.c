/* Each request becomes params of a method (rpc.h) and its result an answer; only `send` streams and only `work` waits for something else. */
#include "sidecar/local_http.h"

#include "base/alloc.h"
#include "base/counters.h"
#include "base/http.h"
#include "base/loop.h"
#include "sidecar/local_blob.h"
#include "sidecar/local_http_private.h"
#include "sidecar/sidecar.h"
#include "sidecar/task.h"
#include "sidecar/worker_link.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_MAX = 1 << 20, HEADERS_MAX = 16 << 10, OUT_MAX = 16 << 20, IDLE_S = 60, CONNECTIONS_MAX = 256, WAIT_MAX_S = 600, LEASE_MAX_S = 86400, EVENTS_MAX = 1024 };

/* ---- answers ----------------------------------------------------------------------------------------------------- */

void local_reply_json(struct http_request *request, int status, const cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);
    http_reply(request, status, "application/json", amp_bytes_of(text ? text : "null"));
    free(text);
}

void local_reply_error(struct http_request *request, enum amp_code code, const char *field, const char *text)
{
    struct amp_error err = {0};
    amp_error_set(&err, code, field, "%s", text);
    http_reply_error(request, &err);
}

static void exchange_free(struct exchange *exchange)
{
    rpc_free(exchange->rpc);
    task_room_cancel(&exchange->room);
    worker_poll_cancel(exchange->poll);
    loop_timer_free(exchange->comment);
    free(exchange);
}

static void on_gone(void *ctx)
{
    struct exchange *exchange = ctx;
    if (exchange->task[0])
        worker_lease_touch(exchange->sidecar, exchange->task);
    exchange_free(exchange);
}

struct exchange *local_exchange_new(struct sidecar *sidecar, struct http_request *request, enum local_form form)
{
    struct exchange *exchange = xcalloc(1, sizeof *exchange);
    exchange->sidecar = sidecar;
    exchange->request = request;
    exchange->form = form;
    http_on_gone(request, on_gone, exchange);
    return exchange;
}

/* The answer is out: the exchange goes as soon as nobody holds it. */
void local_exchange_end(struct exchange *exchange)
{
    exchange->is_done = true;
    if (exchange->rpc)
        exchange_free(exchange);
}

const char *local_text_of(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

/* ---- plain methods --------------------------------------------------------------------------------------------------- */

static void on_plain_done(void *ctx, const cJSON *result, const struct amp_error *err)
{
    struct exchange *exchange = ctx;
    if (exchange->task[0])
        worker_lease_touch(exchange->sidecar, exchange->task);
    if (err && err->code != AMP_OK)
        http_reply_error(exchange->request, err);
    else if (exchange->form == FORM_TEXT && local_text_of(result, "text"))
        http_reply(exchange->request, 200, "text/plain; charset=utf-8", amp_bytes_of(local_text_of(result, "text")));
    else
        local_reply_json(exchange->request, 200, result);
    local_exchange_end(exchange);
}

static const struct rpc_handlers plain_handlers = {.on_done = on_plain_done};

void local_exchange_run(struct exchange *exchange, const char *method, cJSON *params, const struct rpc_handlers *handlers)
{
    struct rpc *rpc = rpc_start(exchange->sidecar, method, params, handlers, exchange);
    cJSON_Delete(params);
    exchange->rpc = rpc;
    if (exchange->is_done)
        exchange_free(exchange);
}

static void run_plain(struct sidecar *sidecar, struct http_request *request, const char *method, cJSON *params)
{
    local_exchange_run(local_exchange_new(sidecar, request, FORM_JSON), method, params, &plain_handlers);
}

/* The body as an object of params, or as {<name>: text} when it is text/plain. NULL: answered already. */
cJSON *local_read_params(struct http_request *request, const char *text_name)
{
    struct amp_bytes body = http_body(request);
    struct amp_error err = {0};
    cJSON *params = NULL;
    /* curl -d says "form"; nobody means a form here, so what is not an object is text. */
    bool is_json = !http_is_type(request, "text/plain") && body.len && body.data[0] == '{';
    if (!is_json && text_name) {
        if (!amp_utf8_is_valid(body) || memchr(body.data, '\0', body.len)) {
            local_reply_error(request, AMP_INVALID, "body", "the text is not UTF-8");
            return NULL;
        }
        params = cJSON_CreateObject();
        char *text = xstrndup((const char *)body.data, body.len);
        cJSON_AddStringToObject(params, text_name, text);
        free(text);
        return params;
    }
    if (amp_json_parse(body, &params, &err) != AMP_OK || !cJSON_IsObject(params)) {
        if (err.code == AMP_OK)
            amp_error_set(&err, AMP_INVALID, "body", "the body must be a JSON object");
        http_reply_error(request, &err);
        cJSON_Delete(params);
        return NULL;
    }
    return params;
}

void local_set_text(cJSON *params, const char *name, const char *value)
{
    if (!value)
        return;
    cJSON_DeleteItemFromObjectCaseSensitive(params, name);
    cJSON_AddStringToObject(params, name, value);
}

/* Query parameter as a number. False: answered already. */
bool local_take_number(struct http_request *request, const char *name, unsigned long most, unsigned long *ret)
{
    const char *value = http_query(request, name);
    char *end;
    if (!value)
        return true;
    unsigned long number = strtoul(value, &end, 10);
    if (*end || *value < '0' || *value > '9' || number > most) {
        local_reply_error(request, AMP_INVALID, name, "a number in the address is not a number or too large");
        return false;
    }
    *ret = number;
    return true;
}

/* ---- work ----------------------------------------------------------------------------------------------------------------- */

static void on_work(void *ctx, const cJSON *params)
{
    struct exchange *exchange = ctx;
    exchange->poll = NULL;
    exchange->is_done = true;
    if (params)
        local_reply_json(exchange->request, 200, params);
    else
        http_reply(exchange->request, 204, NULL, (struct amp_bytes){(const uint8_t *)"", 0});
    if (exchange->is_started) /* else worker_poll has not returned yet */
        exchange_free(exchange);
}

static void get_work(void *ctx, struct http_request *request)
{
    static const struct lease_poll_handlers handlers = {.on_work = on_work};
    unsigned long wait_s = 30, lease_s = 60;
    struct lease_poll *poll = NULL;
    struct amp_error err = {0};
    if (!local_take_number(request, "wait", WAIT_MAX_S, &wait_s) || !local_take_number(request, "lease", LEASE_MAX_S, &lease_s))
        return;
    if (lease_s == 0)
        lease_s = 1;
    struct exchange *exchange = local_exchange_new(ctx, request, FORM_JSON);
    if (worker_poll(ctx, (uint32_t)wait_s * 1000, (uint32_t)lease_s * 1000, &handlers, exchange, &poll, &err) != AMP_OK) {
        http_reply_error(request, &err);
        exchange->is_done = true;
    }
    exchange->is_started = true;
    if (exchange->is_done)
        exchange_free(exchange);
    else
        exchange->poll = poll;
}

/* ---- tasks ----------------------------------------------------------------------------------------------------------------- */

/* NDJSON → array. NULL: *reterr. */
static cJSON *parse_lines(struct amp_bytes body, struct amp_error *reterr)
{
    cJSON *events = cJSON_CreateArray();
    int n = 0;
    while (body.len) {
        const uint8_t *end = memchr(body.data, '\n', body.len);
        struct amp_bytes line = {body.data, end ? (size_t)(end - body.data) : body.len};
        size_t used = line.len + (end ? 1 : 0);
        cJSON *event = NULL;
        body.data += used;
        body.len -= used;
        if (line.len == 0 || (line.len == 1 && line.data[0] == '\r'))
            continue;
        if (++n > EVENTS_MAX)
            amp_error_set(reterr, AMP_TOO_LARGE, "body", "at most %d events at once", EVENTS_MAX);
        if (n > EVENTS_MAX || amp_json_parse(line, &event, reterr) != AMP_OK) {
            cJSON_Delete(events);
            return NULL;
        }
        cJSON_AddItemToArray(events, event);
    }
    return events;
}

static cJSON *read_events(struct http_request *request, struct amp_error *reterr)
{
    struct amp_bytes body = http_body(request);
    cJSON *json = NULL;
    bool is_lines = http_is_type(request, "application/x-ndjson");
    if (http_is_type(request, "text/plain") || (body.len && !strchr("{[ \t\r\n", body.data[0]))) {
        cJSON *params = local_read_params(request, "text");
        if (params)
            cJSON_AddStringToObject(params, "type", "text");
        cJSON *events = params ? cJSON_CreateArray() : NULL;
        if (events)
            cJSON_AddItemToArray(events, params);
        return events;
    }
    if (!is_lines && amp_json_parse(body, &json, NULL) == AMP_OK) {
        if (cJSON_IsArray(json))
            return json;
        cJSON *events = cJSON_CreateArray();
        cJSON_AddItemToArray(events, json);
        return events;
    }
    json = parse_lines(body, reterr);
    if (!json)
        http_reply_error(request, reterr);
    return json;
}

static void on_events_done(void *ctx, const cJSON *result, const struct amp_error *err);

static void on_room(void *ctx)
{
    on_events_done(ctx, NULL, NULL);
}

/* The answer comes when the caller has read on, so that who posts faster is held back. */
static void on_events_done(void *ctx, const cJSON *result, const struct amp_error *err)
{
    struct exchange *exchange = ctx;
    struct task *task = task_find(exchange->sidecar, exchange->task);
    bool is_canceled = (err && err->code == AMP_TASK_ENDED) || (task && task_is_canceled(task));
    worker_lease_touch(exchange->sidecar, exchange->task);
    if (task && task_is_full(task)) {
        worker_lease_hold(exchange->sidecar, exchange->task);
        exchange->room = (struct task_room){.on_room = on_room, .ctx = exchange};
        task_room_wait(task, &exchange->room);
        return;
    }
    if (err && err->code != AMP_OK && err->code != AMP_TASK_ENDED) {
        http_reply_error(exchange->request, err);
    } else {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddBoolToObject(json, "canceled", is_canceled);
        local_reply_json(exchange->request, 200, json);
        cJSON_Delete(json);
    }
    local_exchange_end(exchange);
}

static void post_events(void *ctx, struct http_request *request)
{
    static const struct rpc_handlers handlers = {.on_done = on_events_done};
    struct amp_error err = {0};
    cJSON *events = read_events(request, &err);
    if (!events)
        return;
    struct exchange *exchange = local_exchange_new(ctx, request, FORM_JSON);
    snprintf(exchange->task, sizeof exchange->task, "%s", http_segment(request, 0));
    cJSON *params = cJSON_CreateObject();
    cJSON_AddStringToObject(params, "taskId", http_segment(request, 0));
    cJSON_AddItemToObject(params, "events", events);
    local_exchange_run(exchange, "task.event", params, &handlers);
}

static void post_ask(void *ctx, struct http_request *request)
{
    cJSON *params = local_read_params(request, "prompt");
    if (!params)
        return;
    struct exchange *exchange = local_exchange_new(ctx, request, http_accepts(request, "text/plain") ? FORM_TEXT : FORM_JSON);
    snprintf(exchange->task, sizeof exchange->task, "%s", http_segment(request, 0));
    local_set_text(params, "taskId", http_segment(request, 0));
    worker_lease_hold(ctx, exchange->task); /* the human is slow, not the worker */
    local_exchange_run(exchange, "task.ask", params, &plain_handlers);
}

static void post_result(void *ctx, struct http_request *request)
{
    struct amp_error err = {0};
    struct amp_bytes body = http_body(request);
    cJSON *result = NULL;
    bool is_json = http_is_type(request, "application/json") || (!http_is_type(request, "text/plain") && body.len && body.data[0] == '{');
    if (is_json && amp_json_parse(body, &result, &err) != AMP_OK) {
        http_reply_error(request, &err);
        return;
    }
    if (!is_json && body.len) {
        result = local_read_params(request, "text");
        if (!result)
            return;
    }
    if (!result)
        result = cJSON_CreateNull();
    if (worker_lease_result(ctx, http_segment(request, 0), result, &err) == AMP_OK)
        http_reply(request, 200, "application/json", amp_bytes_of("{}"));
    else
        http_reply_error(request, &err);
    cJSON_Delete(result);
}

static cJSON *task_params(struct http_request *request)
{
    cJSON *params = cJSON_CreateObject();
    cJSON_AddStringToObject(params, "taskId", http_segment(request, 0));
    return params;
}

static void post_cancel(void *ctx, struct http_request *request)
{
    run_plain(ctx, request, "task.stop", task_params(request));
}

static void get_task(void *ctx, struct http_request *request)
{
    run_plain(ctx, request, "task.get", task_params(request));
}

/* ---- memory, agents, log, health ------------------------------------------------------------------------------------------------ */

static cJSON *kv_params(struct http_request *request)
{
    cJSON *params = cJSON_CreateObject();
    cJSON_AddStringToObject(params, "scope", http_segment(request, 0));
    local_set_text(params, "contextId", http_query(request, "context"));
    local_set_text(params, "taskId", http_query(request, "task"));
    if (*http_segment(request, 1))
        cJSON_AddStringToObject(params, "key", http_segment(request, 1));
    const char *version = http_header(request, "If-Match");
    char *end;
    if (!version)
        return params;
    version += *version == '"';
    double number = strtod(version, &end);
    bool is_number = end != version && (*end == '\0' || !strcmp(end, "\""));
    cJSON_AddItemToObject(params, "ifVersion", is_number ? cJSON_CreateNumber(number) : cJSON_CreateString(version)); /* a text is refused by name */
    return params;
}

static void get_kv(void *ctx, struct http_request *request)
{
    run_plain(ctx, request, "kv.get", kv_params(request));
}

static void delete_kv(void *ctx, struct http_request *request)
{
    run_plain(ctx, request, "kv.del", kv_params(request));
}

static void list_kv(void *ctx, struct http_request *request)
{
    cJSON *params = kv_params(request);
    local_set_text(params, "key", http_query(request, "prefix"));
    run_plain(ctx, request, "kv.list", params);
}

static void put_kv(void *ctx, struct http_request *request)
{
    struct amp_error err = {0};
    struct amp_bytes body = http_body(request);
    cJSON *value = NULL;
    if (http_is_type(request, "text/plain")) {
        cJSON *holder = local_read_params(request, "value");
        if (!holder)
            return;
        value = cJSON_DetachItemFromObjectCaseSensitive(holder, "value");
        cJSON_Delete(holder);
    } else if (amp_json_parse(body, &value, &err) != AMP_OK) {
        amp_error_hint(&err, "send JSON, or plain text with Content-Type: text/plain");
        http_reply_error(request, &err);
        return;
    }
    cJSON *params = kv_params(request);
    cJSON_AddItemToObject(params, "value", value);
    run_plain(ctx, request, "kv.put", params);
}

static void get_agents(void *ctx, struct http_request *request)
{
    cJSON *params = cJSON_CreateObject();
    local_set_text(params, "name", http_query(request, "name"));
    local_set_text(params, "skill", http_query(request, "skill"));
    run_plain(ctx, request, "agents.list", params);
}

static void post_log(void *ctx, struct http_request *request)
{
    cJSON *params = local_read_params(request, "text");
    if (params)
        run_plain(ctx, request, "log", params);
}

static void get_health(void *ctx, struct http_request *request)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "agent", sidecar_agent(ctx));
    cJSON_AddStringToObject(json, "instance", sidecar_instance(ctx));
    cJSON_AddStringToObject(json, "version", amp_version());
    cJSON_AddStringToObject(json, "state", sidecar_state(ctx));
    local_reply_json(request, 200, json);
    cJSON_Delete(json);
}

static const struct http_route routes[] = {
    {HTTP_GET, "/v1/health", get_health},
    {HTTP_GET, "/v1/agents", get_agents},
    {HTTP_POST, "/v1/send", local_post_send_skill},
    {HTTP_POST, "/v1/send/{}", local_post_send},
    {HTTP_GET, "/v1/work", get_work},
    {HTTP_POST, "/v1/tasks/{}/events", post_events},
    {HTTP_POST, "/v1/tasks/{}/ask", post_ask},
    {HTTP_POST, "/v1/tasks/{}/result", post_result},
    {HTTP_POST, "/v1/tasks/{}/cancel", post_cancel},
    {HTTP_GET, "/v1/tasks/{}", get_task},
    {HTTP_GET, "/v1/kv/{}", list_kv},
    {HTTP_GET, "/v1/kv/{}/{}", get_kv},
    {HTTP_PUT, "/v1/kv/{}/{}", put_kv},
    {HTTP_DELETE, "/v1/kv/{}/{}", delete_kv},
    {HTTP_POST, "/v1/log", post_log},
    {HTTP_GET, "/v1/blob/{}", local_get_blob},
    {HTTP_PUT, "/v1/blob", local_put_small_blob},
    {0, NULL, NULL},
};

static void on_overflow(void *ctx)
{
    counter_add(COUNTER_local_overflows, 1);
}

enum amp_code local_http_new(struct sidecar *sidecar, const char *private_path, struct http_server **ret, struct amp_error *reterr)
{
    struct http_options options = {
        .private_path = private_path, .body_max = BODY_MAX, .headers_max = HEADERS_MAX, .out_max = OUT_MAX, .idle_s = IDLE_S, .connections_max = CONNECTIONS_MAX,
        .on_overflow = on_overflow,
    };
    return http_server_new(sidecar_loop(sidecar), &options, routes, sidecar, ret, reterr);
}
