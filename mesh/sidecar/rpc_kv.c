/* What the environment keeps for an agent: memory, and who is there. */
#include "sidecar/rpc_private.h"

#include "base/agent_record.h"
#include "sidecar/sidecar.h"
#include "sidecar/task.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---------------------------------------------------------------------------------------------- */

static enum amp_code context_of(struct rpc *rpc, const cJSON *params, const char **ret, struct amp_error *reterr)
{
    const char *task_name;
    struct task *task;
    enum amp_code code = rpc_id(params, "contextId", ret, reterr);
    if (code != AMP_OK || *ret)
        return code;
    code = rpc_id(params, "taskId", &task_name, reterr);
    if (code != AMP_OK)
        return code;
    if (!task_name)
        return amp_error_set(reterr, AMP_INVALID, "contextId", "scope context needs contextId, or taskId of a task of this agent");
    code = rpc_task(rpc, params, &task, reterr);
    if (code == AMP_OK)
        *ret = task_context(task);
    return code;
}

static enum amp_code read_scope(struct rpc *rpc, const cJSON *params, Amp__Kv *kv, struct amp_error *reterr)
{
    const char *scope, *owner = "";
    enum amp_code code = rpc_string(params, "scope", &scope, reterr);
    if (code != AMP_OK)
        return code;
    if (!scope || !strcmp(scope, "context")) {
        kv->scope = AMP__KV_SCOPE__KV_CONTEXT;
        code = context_of(rpc, params, &owner, reterr);
    } else if (!strcmp(scope, "agent")) {
        kv->scope = AMP__KV_SCOPE__KV_AGENT;
        owner = sidecar_agent(rpc->sidecar);
    } else if (!strcmp(scope, "shared")) {
        kv->scope = AMP__KV_SCOPE__KV_SHARED;
    } else {
        code = amp_error_set(reterr, AMP_INVALID, "scope", "scope is context, agent or shared");
    }
    kv->owner = (char *)owner;
    return code;
}

static enum amp_code read_kv(struct rpc *rpc, const cJSON *params, Amp__Kv *kv, struct amp_error *reterr)
{
    const char *key;
    enum amp_code code = read_scope(rpc, params, kv, reterr);
    if (code == AMP_OK)
        code = rpc_string(params, "key", &key, reterr);
    if (code != AMP_OK)
        return code;
    if (kv->op != AMP__KV_OP__KV_LIST && (!key || !*key))
        return amp_error_set(reterr, AMP_INVALID, "key", "key is missing");
    if (key && strlen(key) > AMP_KV_KEY_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "key", "a key may have %u bytes", AMP_KV_KEY_MAX);
    kv->key = (char *)(key ? key : "");
    kv->has_if_version = cJSON_GetObjectItemCaseSensitive(params, "ifVersion") != NULL;
    return rpc_number(params, "ifVersion", 0, &kv->if_version, reterr);
}

static cJSON *entry_json(const Amp__KvEntry *entry)
{
    cJSON *json = cJSON_CreateObject();
    cJSON *value = entry->value ? cJSON_ParseWithLength((const char *)entry->value->text.data, entry->value->text.len) : NULL;
    cJSON_AddStringToObject(json, "key", entry->key ? entry->key : "");
    cJSON_AddItemToObject(json, "value", value ? value : cJSON_CreateNull());
    cJSON_AddNumberToObject(json, "version", entry->version);
    return json;
}

static void on_entry(struct rpc *rpc, const Amp__EnvReply *reply)
{
    if (reply->n_entries == 0) {
        rpc_fail_with(rpc, AMP_NOT_FOUND, "key", "there is no such key");
        return;
    }
    cJSON *result = entry_json(reply->entries[0]);
    rpc_done(rpc, result);
    cJSON_Delete(result);
}

static void on_deleted(struct rpc *rpc, const Amp__EnvReply *reply)
{
    cJSON *result = reply->n_entries ? entry_json(reply->entries[0]) : cJSON_CreateObject();
    rpc_done(rpc, result);
    cJSON_Delete(result);
}

static void on_entries(struct rpc *rpc, const Amp__EnvReply *reply)
{
    cJSON *result = cJSON_CreateObject();
    cJSON *entries = cJSON_AddArrayToObject(result, "entries");
    for (size_t i = 0; i < reply->n_entries; i++)
        cJSON_AddItemToArray(entries, entry_json(reply->entries[i]));
    rpc_done(rpc, result);
    cJSON_Delete(result);
}

static void start_kv(struct rpc *rpc, const cJSON *params, Amp__KvOp op, Amp__Json *value, void (*on_reply)(struct rpc *rpc, const Amp__EnvReply *reply))
{
    struct amp_error err = {0};
    Amp__Kv kv = AMP__KV__INIT;
    kv.op = op;
    kv.value = value;
    if (read_kv(rpc, params, &kv, &err) != AMP_OK) {
        rpc_fail(rpc, &err);
        return;
    }
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    request.verb_case = AMP__ENV_REQUEST__VERB_KV;
    request.kv = &kv;
    rpc_env_call(rpc, &request, on_reply);
}

void rpc_kv_get(struct rpc *rpc, const cJSON *params)
{
    start_kv(rpc, params, AMP__KV_OP__KV_GET, NULL, on_entry);
}

void rpc_kv_del(struct rpc *rpc, const cJSON *params)
{
    start_kv(rpc, params, AMP__KV_OP__KV_DELETE, NULL, on_deleted);
}

void rpc_kv_list(struct rpc *rpc, const cJSON *params)
{
    start_kv(rpc, params, AMP__KV_OP__KV_LIST, NULL, on_entries);
}

void rpc_kv_put(struct rpc *rpc, const cJSON *params)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(params, "value");
    if (!value) {
        rpc_fail_with(rpc, AMP_INVALID, "value", "value is missing");
        return;
    }
    char *text = cJSON_PrintUnformatted(value);
    if (!text) {
        rpc_fail_with(rpc, AMP_NO_MEMORY, "value", "out of memory");
        return;
    }
    Amp__Json json = AMP__JSON__INIT;
    json.text = (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
    if (json.text.len > AMP_KV_VALUE_MAX)
        rpc_fail_with(rpc, AMP_TOO_LARGE, "value", "a value may have %u bytes", AMP_KV_VALUE_MAX);
    else
        start_kv(rpc, params, AMP__KV_OP__KV_PUT, &json, on_entry);
    free(text);
}

/* ---- agents ------------------------------------------------------------------------------------------------ */

static void on_agents(struct rpc *rpc, const Amp__EnvReply *reply)
{
    cJSON *result = cJSON_CreateObject();
    cJSON *agents = cJSON_AddArrayToObject(result, "agents");
    for (size_t i = 0; i < reply->n_agents; i++)
        cJSON_AddItemToArray(agents, agent_record_json(reply->agents[i]));
    rpc_done(rpc, result);
    cJSON_Delete(result);
}

void rpc_agents_list(struct rpc *rpc, const cJSON *params)
{
    struct amp_error err = {0};
    const char *name, *skill;
    if (rpc_id(params, "name", &name, &err) != AMP_OK || rpc_id(params, "skill", &skill, &err) != AMP_OK) {
        rpc_fail(rpc, &err);
        return;
    }
    Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.name = (char *)name;
    query.skill = (char *)skill;
    request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
    request.agents = &query;
    rpc_env_call(rpc, &request, on_agents);
}
