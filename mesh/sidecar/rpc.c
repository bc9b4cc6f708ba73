/* The table of methods and what they share. */
#include "sidecar/rpc_private.h"

#include "base/alloc.h"
#include "base/envcall.h"
#include "base/log.h"
#include "sidecar/sidecar.h"
#include "sidecar/task.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENV_TIMEOUT_MS = 10000, LOG_TEXT_MAX = 4096, TEXT_KEPT_MAX = 64 << 10 };

void rpc_done(struct rpc *rpc, const cJSON *result)
{
    rpc->is_done = true;
    rpc->handlers->on_done(rpc->ctx, result, NULL);
}

void rpc_done_empty(struct rpc *rpc)
{
    static const cJSON nothing = {.type = cJSON_Object};
    rpc_done(rpc, &nothing);
}

void rpc_fail(struct rpc *rpc, const struct amp_error *err)
{
    rpc->is_done = true;
    rpc->handlers->on_done(rpc->ctx, NULL, err);
}

void rpc_fail_with(struct rpc *rpc, enum amp_code code, const char *field, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct amp_error err = {0};
    amp_error_set(&err, code, field, "%s", text);
    rpc_fail(rpc, &err);
}

/* ---- params ------------------------------------------------------------------------------------------ */

enum amp_code rpc_string(const cJSON *params, const char *name, const char **ret, struct amp_error *reterr)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(params, name);
    *ret = NULL;
    if (!item || cJSON_IsNull(item))
        return AMP_OK;
    if (!cJSON_IsString(item))
        return amp_error_set(reterr, AMP_INVALID, name, "%s must be a string", name);
    *ret = item->valuestring;
    return AMP_OK;
}

enum amp_code rpc_id(const cJSON *params, const char *name, const char **ret, struct amp_error *reterr)
{
    enum amp_code code = rpc_string(params, name, ret, reterr);
    if (code == AMP_OK && *ret && !amp_id_is_valid(*ret))
        return amp_error_set(reterr, AMP_INVALID, name, "%s must have 1 to 63 characters of a-z 0-9 _ - and not start with -", name);
    return code;
}

enum amp_code rpc_number(const cJSON *params, const char *name, uint32_t fallback, uint32_t *ret, struct amp_error *reterr)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(params, name);
    *ret = fallback;
    if (!item || cJSON_IsNull(item))
        return AMP_OK;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= UINT32_MAX) || item->valuedouble != floor(item->valuedouble))
        return amp_error_set(reterr, AMP_INVALID, name, "%s must be a whole number from 0 to %u", name, UINT32_MAX);
    *ret = (uint32_t)item->valuedouble;
    return AMP_OK;
}

enum amp_code rpc_task(struct rpc *rpc, const cJSON *params, struct task **ret, struct amp_error *reterr)
{
    const char *id;
    enum amp_code code = rpc_id(params, "taskId", &id, reterr);
    if (code != AMP_OK)
        return code;
    if (!id)
        return amp_error_set(reterr, AMP_INVALID, "taskId", "taskId is missing");
    *ret = task_find(rpc->sidecar, id);
    if (!*ret)
        return amp_error_set(reterr, AMP_NO_SUCH_TASK, "taskId", "this instance does not work on task %s", id);
    return AMP_OK;
}

cJSON *rpc_json_of(const ProtobufCMessage *message, struct amp_error *reterr)
{
    struct amp_buf buf;
    cJSON *json = NULL;
    amp_buf_init(&buf, AMP_FOLD_BYTES_MAX);
    if (amp_encode(message, AMP_JSON, &buf, reterr) == AMP_OK) {
        /* Our own text: cJSON's limits are enough, and a task may be larger than one message from a peer. */
        json = cJSON_ParseWithLength((const char *)buf.data, buf.len);
        if (!json)
            amp_error_set(reterr, AMP_INTERNAL, "", "a message of ours is not JSON");
    }
    amp_buf_done(&buf);
    return json;
}

const cJSON *rpc_text_of(const ProtobufCMessage *message, struct amp_bytes own, struct amp_error *reterr)
{
    static struct amp_buf text; /* one for all: an answer is copied before the next one is made */
    static cJSON raw;
    if (text.cap > TEXT_KEPT_MAX || !text.max) {
        amp_buf_done(&text);
        amp_buf_init(&text, AMP_FOLD_BYTES_MAX);
    }
    amp_buf_reset(&text);
    if (amp_encode_own(message, own, &text, reterr) != AMP_OK)
        return NULL;
    if (amp_buf_append(&text, "", 1) != AMP_OK) {
        amp_error_set(reterr, AMP_TOO_LARGE, "", "the answer is larger than %u bytes", AMP_FOLD_BYTES_MAX);
        return NULL;
    }
    raw = (cJSON){.type = cJSON_Raw, .valuestring = (char *)text.data};
    return &raw;
}

enum amp_code rpc_message_of(const cJSON *json, const ProtobufCMessageDescriptor *type, struct amp_arena *arena, ProtobufCMessage **ret, struct amp_error *reterr)
{
    if (!cJSON_IsObject(json))
        return amp_error_set(reterr, AMP_INVALID, "message", "message must be an object");
    char *text = cJSON_PrintUnformatted(json);
    if (!text)
        return amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
    enum amp_code code = amp_decode(type, amp_bytes_of(text), arena, ret, reterr);
    free(text);
    return code;
}

/* ---- the environment ---------------------------------------------------------------------------------- */

struct asking {
    struct rpc *rpc;
    struct env_call *call;
    void (*on_reply)(struct rpc *rpc, const Amp__EnvReply *reply);
};

static void on_env_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct asking *asking = ctx;
    struct rpc *rpc = asking->rpc;
    void (*on_reply)(struct rpc *rpc, const Amp__EnvReply *reply) = asking->on_reply;
    free(asking);
    rpc->state = NULL;
    rpc->cancel = NULL;
    if (err && err->code != AMP_OK)
        rpc_fail(rpc, err);
    else
        on_reply(rpc, reply);
}

static void cancel_env_call(struct rpc *rpc)
{
    struct asking *asking = rpc->state;
    env_call_cancel(asking->call);
    free(asking);
}

void rpc_env_call(struct rpc *rpc, const Amp__EnvRequest *request, void (*on_reply)(struct rpc *rpc, const Amp__EnvReply *reply))
{
    struct asking *asking = xcalloc(1, sizeof *asking);
    asking->rpc = rpc;
    asking->on_reply = on_reply;
    enum amp_code code = env_call(sidecar_loop(rpc->sidecar), sidecar_bus(rpc->sidecar), sidecar_agent(rpc->sidecar), request, ENV_TIMEOUT_MS, on_env_reply, asking, &asking->call);
    if (code != AMP_OK) {
        free(asking);
        rpc_fail_with(rpc, code, "", "the environment cannot be asked: %s", amp_code_info(code)->text);
        return;
    }
    rpc->state = asking;
    rpc->cancel = cancel_env_call;
}

/* ---- small methods -------------------------------------------------------------------------------------- */

static void method_ping(struct rpc *rpc, const cJSON *params)
{
    rpc_done_empty(rpc);
}

static bool level_of(const char *name, enum log_level *ret)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; i < 4; i++) {
        if (!strcmp(names[i], name)) {
            *ret = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static void method_log(struct rpc *rpc, const cJSON *params)
{
    const char *text, *name, *task;
    enum log_level level = LOG_INFO;
    struct amp_error err = {0};
    if (rpc_string(params, "text", &text, &err) != AMP_OK || rpc_string(params, "level", &name, &err) != AMP_OK || rpc_id(params, "taskId", &task, &err) != AMP_OK) {
        rpc_fail(rpc, &err);
        return;
    }
    if (!text || (name && !level_of(name, &level))) {
        rpc_fail_with(rpc, AMP_INVALID, text ? "level" : "text", text ? "level is debug, info, warn or error" : "text is missing");
        return;
    }
    char *cut = xstrndup(text, amp_utf8_cut(amp_bytes_of(text), LOG_TEXT_MAX));
    log_event(level, "agent.log", "agent", sidecar_agent(rpc->sidecar), "task", task ? task : "", "text", cut, NULL);
    free(cut);
    method_ping(rpc, params);
}

static const struct {
    const char *name;
    void (*start)(struct rpc *rpc, const cJSON *params);
} methods[] = {
    {"task.event", rpc_task_event}, {"task.ask", rpc_task_ask}, {"task.get", rpc_task_get}, {"task.stop", rpc_task_stop},
    {"send", rpc_send},             {"kv.get", rpc_kv_get},     {"kv.put", rpc_kv_put},     {"kv.del", rpc_kv_del},
    {"kv.list", rpc_kv_list},       {"agents.list", rpc_agents_list}, {"log", method_log},  {"ping", method_ping},
};

static struct spares rpcs;

struct rpc *rpc_start(struct sidecar *sidecar, const char *method, const cJSON *params, const struct rpc_handlers *handlers, void *ctx)
{
    struct rpc *rpc = spares_calloc(&rpcs, sizeof *rpc);
    rpc->sidecar = sidecar;
    rpc->handlers = handlers;
    rpc->ctx = ctx;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (!strcmp(methods[i].name, method)) {
            methods[i].start(rpc, params);
            return rpc;
        }
    }
    rpc_fail_with(rpc, AMP_UNSUPPORTED, "method", "there is no method %.64s", method);
    return rpc;
}

void rpc_hold(struct rpc *rpc, bool is_held)
{
    if (!rpc || rpc->is_held == is_held)
        return;
    rpc->is_held = is_held;
    if (rpc->hold && rpc->state)
        rpc->hold(rpc);
}

void rpc_free(struct rpc *rpc)
{
    if (!rpc)
        return;
    if (rpc->cancel)
        rpc->cancel(rpc);
    spares_free(&rpcs, rpc);
}
