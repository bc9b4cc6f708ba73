#include "mockllm/server.h"

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/http.h"
#include "base/loop.h"
#include "mockllm/answer.h"
#include "mockllm/ask.h"
#include "mockllm/store.h"

enum { BACKLOG = 128, CONNECTIONS_MAX = 256, IDLE_S = 300 };
#define BODY_MAX (32u << 20)
#define OUT_MAX ((size_t)64 << 20)
#define HEADERS_MAX (64u << 10)

struct mock_server {
    struct loop *loop;
    const struct mock_server_options *options;
    struct mock_rules *rules;
    struct http_server *http;
    struct loop_io *accepting;
    int fd;
    char *dir, *url;
    struct mock_store store;
    unsigned long n_asked;
};

struct exchange { /* a request that is being answered */
    struct http_request *request;
    struct loop_timer *timer;
    struct mock_answer answer;
    const struct mock_rule *rule; /* NULL: events that are kept are shown again */
    bool is_stream, is_started;
    size_t at;         /* frames that went */
    unsigned n_pieces; /* of them */
};

/* ---- answers ------------------------------------------------------------------------------------------------------- */

/* Takes `json` over. */
static void reply(struct http_request *request, int status, cJSON *json)
{
    char *text = cJSON_PrintUnformatted(json);
    http_reply(request, status, "application/json", amp_bytes_of(text));
    cJSON_free(text);
    cJSON_Delete(json);
}

static void reply_error(struct http_request *request, int status, const char *code, const char *param, const char *message)
{
    cJSON *json = cJSON_CreateObject(), *error = cJSON_AddObjectToObject(json, "error");
    cJSON_AddStringToObject(error, "message", message);
    cJSON_AddStringToObject(error, "type", status == 401 ? "authentication_error" : status == 429 ? "rate_limit_error" : status >= 500 ? "server_error" : "invalid_request_error");
    cJSON_AddItemToObject(error, "param", param && *param ? cJSON_CreateString(param) : cJSON_CreateNull());
    cJSON_AddItemToObject(error, "code", code ? cJSON_CreateString(code) : cJSON_CreateNull());
    reply(request, status, json);
}

static const char *text_or(const cJSON *object, const char *name, const char *fallback)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(value) ? value->valuestring : fallback;
}

static void reply_fail(struct http_request *request, const cJSON *fail)
{
    int status = cJSON_GetObjectItemCaseSensitive(fail, "status")->valueint;
    const cJSON *again = cJSON_GetObjectItemCaseSensitive(fail, "retryAfter");
    char seconds[32];
    if (cJSON_IsNumber(again)) {
        snprintf(seconds, sizeof seconds, "%g", again->valuedouble);
        http_set_header(request, "Retry-After", seconds);
    }
    reply_error(request, status, text_or(fail, "code", NULL), NULL, text_or(fail, "message", "the rules of this model say so"));
}

static void exchange_free(struct exchange *exchange)
{
    loop_timer_free(exchange->timer);
    mock_answer_done(&exchange->answer);
    free(exchange);
}

static void on_gone(void *ctx)
{
    exchange_free(ctx);
}

/* The end that the rules want: false, and it is over. */
static bool goes_on(struct exchange *exchange)
{
    const struct mock_rule *rule = exchange->rule;
    if (rule && rule->stall && exchange->n_pieces + 1 == rule->stall)
        return false; /* the client leaves when it has had enough */
    if (!rule || !rule->cut || exchange->n_pieces + 1 < rule->cut)
        return true;
    http_stream_abort(exchange->request);
    exchange_free(exchange);
    return false;
}

static void send_frames(struct exchange *exchange)
{
    struct mock_answer *answer = &exchange->answer;
    uint32_t pace_ms = exchange->rule ? exchange->rule->pace_ms : 0;
    while (exchange->at < answer->n_frames) {
        const struct mock_frame *frame = &answer->frames[exchange->at];
        if (!goes_on(exchange))
            return;
        exchange->at++;
        exchange->n_pieces += frame->is_piece;
        if (http_stream_write(exchange->request, amp_bytes_of(frame->text)) != AMP_OK)
            return; /* on_gone comes */
        if (frame->is_piece && pace_ms) {
            loop_timer_set(exchange->timer, pace_ms);
            return;
        }
    }
    http_stream_end(exchange->request);
    exchange_free(exchange);
}

static void answer_whole(struct exchange *exchange)
{
    const struct mock_rule *rule = exchange->rule;
    if (rule->stall)
        return;
    if (rule->cut) {
        http_stream_start(exchange->request, 200, "application/json");
        http_stream_abort(exchange->request);
    } else if (rule->fail) {
        reply_fail(exchange->request, rule->fail);
    } else {
        http_reply(exchange->request, 200, "application/json", amp_bytes_of(exchange->answer.body));
    }
    exchange_free(exchange);
}

static void on_due(void *ctx)
{
    struct exchange *exchange = ctx;
    if (!exchange->is_stream || (exchange->rule && exchange->rule->fail)) {
        answer_whole(exchange);
        return;
    }
    if (!exchange->is_started)
        http_stream_start(exchange->request, 200, "text/event-stream");
    exchange->is_started = true;
    send_frames(exchange);
}

/* Takes what `answer` has over. */
static void exchange_begin(struct mock_server *server, struct http_request *request, const struct mock_rule *rule, struct mock_answer answer, bool is_stream)
{
    struct exchange *exchange = xcalloc(1, sizeof *exchange);
    *exchange = (struct exchange){.request = request, .rule = rule, .answer = answer, .is_stream = is_stream};
    exchange->timer = loop_timer_new(server->loop, on_due, exchange);
    http_on_gone(request, on_gone, exchange);
    loop_timer_set(exchange->timer, rule ? rule->delay_ms : 0);
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

static bool is_allowed(struct mock_server *server, struct http_request *request)
{
    const char *header = http_header(request, "Authorization"), *key = server->options->key;
    if (!key || (header && strncmp(header, "Bearer ", 7) == 0 && strlen(header + 7) == strlen(key) && sodium_memcmp(header + 7, key, strlen(key)) == 0))
        return true;
    reply_error(request, 401, "invalid_api_key", NULL, "the key of the request is not the one that this model was started with");
    return false;
}

static void record(struct mock_server *server, const struct mock_ask *ask, const struct mock_rule *rule, const cJSON *body)
{
    FILE *to = server->options->record;
    if (!to)
        return;
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "n", (double)server->n_asked);
    cJSON_AddStringToObject(line, "api", mock_api_names[ask->api]);
    cJSON_AddStringToObject(line, "model", ask->model);
    cJSON_AddStringToObject(line, "system", ask->system);
    cJSON_AddStringToObject(line, "user", ask->user);
    cJSON_AddStringToObject(line, "tool", ask->tool);
    cJSON_AddStringToObject(line, "result", ask->result);
    cJSON_AddNumberToObject(line, "turn", ask->turn);
    if (rule)
        cJSON_AddNumberToObject(line, "rule", (double)(rule - server->rules->rules));
    if (rule && rule->name)
        cJSON_AddStringToObject(line, "ruleName", rule->name);
    cJSON_AddItemToObject(line, "request", cJSON_Duplicate(body, true));
    char *text = cJSON_PrintUnformatted(line);
    fprintf(to, "%s\n", text);
    fflush(to);
    cJSON_free(text);
    cJSON_Delete(line);
}

static void answer_embeddings(struct http_request *request, const struct mock_ask *ask, const cJSON *body)
{
    struct amp_error err = {0};
    char *text = mock_answer_embeddings(ask, body, &err);
    if (text)
        http_reply(request, 200, "application/json", amp_bytes_of(text));
    else
        reply_error(request, 400, NULL, err.field, err.message);
    free(text);
}

static void answer_responses(struct mock_server *server, struct http_request *request, const struct mock_making *making)
{
    struct mock_answer answer;
    bool is_stream = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(making->body, "stream")), is_background = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(making->body, "background"));
    mock_answer_responses(making, &answer);
    const cJSON *keeps = cJSON_GetObjectItemCaseSensitive(making->body, "store");
    struct mock_kept *kept = cJSON_IsFalse(keeps) ? NULL : mock_store_put(&server->store, making, &answer, is_background ? clock_mono_ms() : 0);
    if (is_background && kept && !is_stream) {
        char *text = mock_kept_text(kept, clock_mono_ms());
        http_reply(request, 200, "application/json", amp_bytes_of(text));
        free(text);
        mock_answer_done(&answer);
        return;
    }
    exchange_begin(server, request, making->rule, answer, is_stream);
}

static void answer_chat(struct mock_server *server, struct http_request *request, struct mock_making *making)
{
    struct mock_answer answer;
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(making->body, "stream_options");
    making->wants_usage = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(options, "include_usage"));
    mock_answer_chat(making, &answer);
    exchange_begin(server, request, making->rule, answer, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(making->body, "stream")));
}

static void no_rule(struct http_request *request, const struct mock_ask *ask)
{
    char *message = xasprintf("no rule of this model fits: turn %u, the user says \"%.200s\"%s%.100s", ask->turn, ask->user, *ask->tool ? ", behind the result of " : "", ask->tool);
    struct amp_buf clean;
    amp_buf_init(&clean, 4096);
    amp_text_sanitize(&clean, amp_bytes_of(message), true);
    amp_buf_append(&clean, "", 1);
    reply_error(request, 400, "no_rule", NULL, clean.data ? (const char *)clean.data : "no rule of this model fits");
    amp_buf_done(&clean);
    free(message);
}

static void answer(struct mock_server *server, struct http_request *request, const struct mock_ask *ask, const cJSON *body)
{
    char *groups[MOCK_GROUPS], *id;
    struct mock_rule *rule = mock_rules_find(server->rules, ask, groups);
    unsigned long number = ++server->n_asked;
    id = xasprintf("%s%lu", ask->api == MOCK_CHAT ? "chatcmpl-mock-" : "resp_mock_", number);
    struct mock_making making = {.ask = ask, .rule = rule, .groups = groups, .body = body, .id = id, .number = number, .unix_s = clock_unix_ms() / 1000};
    record(server, ask, rule, body);
    if (!rule && ask->api == MOCK_EMBEDDINGS)
        answer_embeddings(request, ask, body);
    else if (!rule)
        no_rule(request, ask);
    else if (rule->fail || rule->stall == 1)
        exchange_begin(server, request, rule, (struct mock_answer){0}, false);
    else if (ask->api == MOCK_CHAT)
        answer_chat(server, request, &making);
    else
        answer_responses(server, request, &making);
    mock_groups_done(groups);
    free(id);
}

static void take(struct mock_server *server, struct http_request *request, enum mock_api api)
{
    struct amp_error err = {0};
    struct mock_ask ask = {0};
    cJSON *body = NULL;
    const cJSON *before = NULL;
    if (!is_allowed(server, request))
        return;
    enum amp_code code = amp_json_parse(http_body(request), &body, &err);
    if (code == AMP_OK && !cJSON_IsObject(body))
        code = amp_error_set(&err, AMP_INVALID, "", "the body is no JSON object");
    const cJSON *previous = cJSON_GetObjectItemCaseSensitive(body, "previous_response_id");
    if (code == AMP_OK && api == MOCK_RESPONSES && cJSON_IsString(previous)) {
        before = mock_store_items(&server->store, previous->valuestring);
        if (!before)
            code = amp_error_set(&err, AMP_INVALID, "previous_response_id", "there is no response %.60s", previous->valuestring);
    }
    if (code == AMP_OK)
        code = mock_ask_read(api, body, before, &ask, &err);
    if (code != AMP_OK)
        reply_error(request, 400, NULL, err.field, err.message);
    else if (!mock_rules_has_model(server->rules, ask.model))
        reply_error(request, 404, "model_not_found", "model", "there is no such model here");
    else
        answer(server, request, &ask, body);
    mock_ask_done(&ask);
    cJSON_Delete(body);
}

static void on_chat(void *ctx, struct http_request *request)
{
    take(ctx, request, MOCK_CHAT);
}

static void on_responses(void *ctx, struct http_request *request)
{
    take(ctx, request, MOCK_RESPONSES);
}

static void on_embeddings(void *ctx, struct http_request *request)
{
    take(ctx, request, MOCK_EMBEDDINGS);
}

static void add_model(cJSON *data, const char *name)
{
    cJSON *model = cJSON_CreateObject();
    cJSON_AddStringToObject(model, "id", name);
    cJSON_AddStringToObject(model, "object", "model");
    cJSON_AddNumberToObject(model, "created", 0);
    cJSON_AddStringToObject(model, "owned_by", "amesh");
    cJSON_AddItemToArray(data, model);
}

static void on_models(void *ctx, struct http_request *request)
{
    struct mock_server *server = ctx;
    const cJSON *name;
    if (!is_allowed(server, request))
        return;
    cJSON *json = cJSON_CreateObject(), *data = cJSON_AddArrayToObject(json, "data");
    cJSON_AddStringToObject(json, "object", "list");
    cJSON_ArrayForEach(name, server->rules->models)
        add_model(data, name->valuestring);
    if (!server->rules->models)
        add_model(data, "mock"); /* any will do, and some clients want to see one */
    reply(request, 200, json);
}

/* NULL: it was refused. */
static struct mock_kept *kept_of(struct mock_server *server, struct http_request *request)
{
    if (!is_allowed(server, request))
        return NULL;
    struct mock_kept *kept = mock_store_find(&server->store, http_segment(request, 0));
    if (!kept)
        reply_error(request, 404, NULL, "response_id", "there is no such response");
    return kept;
}

static void reply_kept(struct http_request *request, struct mock_kept *kept)
{
    char *text = mock_kept_text(kept, clock_mono_ms());
    http_reply(request, 200, "application/json", amp_bytes_of(text));
    free(text);
}

static void on_response(void *ctx, struct http_request *request)
{
    struct mock_server *server = ctx;
    struct mock_kept *kept = kept_of(server, request);
    const char *stream = http_query(request, "stream"), *after = http_query(request, "starting_after");
    if (!kept)
        return;
    if (stream && strcmp(stream, "true") == 0)
        exchange_begin(server, request, NULL, mock_kept_frames(kept, after ? strtoul(after, NULL, 10) + 1 : 0), true);
    else
        reply_kept(request, kept);
}

static void on_response_cancel(void *ctx, struct http_request *request)
{
    struct mock_kept *kept = kept_of(ctx, request);
    if (!kept)
        return;
    if (mock_kept_cancel(kept, clock_mono_ms()))
        reply_kept(request, kept);
    else
        reply_error(request, 400, NULL, "response_id", "only a response that was asked for in the background can be cancelled, and only once");
}

static void on_response_delete(void *ctx, struct http_request *request)
{
    struct mock_server *server = ctx;
    struct mock_kept *kept = kept_of(server, request);
    if (!kept)
        return;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", http_segment(request, 0));
    cJSON_AddStringToObject(json, "object", "response");
    cJSON_AddTrueToObject(json, "deleted");
    mock_store_drop(&server->store, kept);
    reply(request, 200, json);
}

/* With /v1 and without: some clients have it in their base, some add it. */
#define BOTH(method, path, handle) {method, "/v1" path, handle}, {method, path, handle}
static const struct http_route routes[] = {
    BOTH(HTTP_POST, "/chat/completions", on_chat),
    BOTH(HTTP_POST, "/responses", on_responses),
    BOTH(HTTP_POST, "/embeddings", on_embeddings),
    BOTH(HTTP_GET, "/models", on_models),
    BOTH(HTTP_GET, "/responses/{}", on_response),
    BOTH(HTTP_DELETE, "/responses/{}", on_response_delete),
    BOTH(HTTP_POST, "/responses/{}/cancel", on_response_cancel),
    {0, NULL, NULL},
};

/* ---- listening ----------------------------------------------------------------------------------------------------- */

static void on_connection(void *ctx, int events)
{
    struct mock_server *server = ctx;
    (void)events;
    for (int fd; (fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;)
        (void)!http_server_adopt(server->http, fd); /* one too many is closed */
}

static enum amp_code listen_on(struct mock_server *server, struct amp_error *reterr)
{
    const char *host = server->options->host;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(server->options->port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(server->options->port)};
    bool is_six = inet_pton(AF_INET6, host, &six.sin6_addr) == 1;
    int yes = 1;
    if (!is_six && inet_pton(AF_INET, host, &four.sin_addr) != 1)
        return amp_error_set(reterr, AMP_INVALID, "host", "%.60s is no address: give one such as 127.0.0.1 or ::1", host);
    struct sockaddr *address = is_six ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    socklen_t len = is_six ? sizeof six : sizeof four;
    server->fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->fd >= 0)
        (void)setsockopt(server->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (server->fd < 0 || bind(server->fd, address, len) != 0 || listen(server->fd, BACKLOG) != 0 || getsockname(server->fd, address, &len) != 0)
        return amp_error_set(reterr, AMP_CONFLICT, "port", "cannot listen on %s, port %u: %s", host, server->options->port, strerror(errno));
    server->url = xasprintf(is_six ? "http://[%s]:%u/v1" : "http://%s:%u/v1", host, ntohs(is_six ? six.sin6_port : four.sin_port));
    return AMP_OK;
}

static enum amp_code serve(struct mock_server *server, struct amp_error *reterr)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = xasprintf("%s/amesh-mockllm-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        amp_error_set(reterr, AMP_CONFLICT, "", "cannot make %.200s: %s", dir, strerror(errno));
        free(dir);
        return reterr->code;
    }
    server->dir = dir;
    char *path = xasprintf("%s/http", dir);
    const struct http_options options = {.private_path = path, .body_max = BODY_MAX, .headers_max = HEADERS_MAX, .out_max = OUT_MAX, .idle_s = IDLE_S, .connections_max = CONNECTIONS_MAX};
    enum amp_code code = http_server_new(server->loop, &options, routes, server, &server->http, reterr);
    free(path);
    return code;
}

enum amp_code mock_server_new(struct loop *loop, const struct mock_server_options *options, struct mock_rules *rules, struct mock_server **ret, struct amp_error *reterr)
{
    struct mock_server *server = xcalloc(1, sizeof *server);
    *server = (struct mock_server){.loop = loop, .options = options, .rules = rules, .fd = -1};
    mock_store_init(&server->store);
    enum amp_code code = listen_on(server, reterr);
    if (code == AMP_OK)
        code = serve(server, reterr);
    if (code == AMP_OK) {
        server->accepting = loop_io_new(loop, server->fd, on_connection, server);
        loop_io_want(server->accepting, LOOP_READ);
    } else {
        mock_server_free(server);
        server = NULL;
    }
    *ret = server;
    return code;
}

void mock_server_free(struct mock_server *server)
{
    if (!server)
        return;
    loop_io_free(server->accepting);
    http_server_free(server->http);
    mock_store_done(&server->store);
    if (server->fd >= 0)
        close(server->fd);
    if (server->dir)
        rmdir(server->dir);
    free(server->dir);
    free(server->url);
    free(server);
}

const char *mock_server_url(const struct mock_server *server)
{
    return server->url;
}
