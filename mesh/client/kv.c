/* Memory that the environment keeps (local-api.md 3, kv.*). */
#include "client_private.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

static const char *const scopes[] = {[AMESH_CONTEXT] = "context", [AMESH_OWN] = "agent", [AMESH_SHARED] = "shared"};

static enum amp_code begin(struct amesh *mesh, struct amesh_wait *wait, const char *method, const struct amesh_place *place, struct amp_error *reterr)
{
    *wait = (struct amesh_wait){0};
    if ((unsigned)place->scope > AMESH_SHARED)
        return amp_error_set(reterr, AMP_INVALID, "scope", "there is no such scope");
    enum amp_code code = amesh_may_wait(mesh, NULL, reterr);
    if (code != AMP_OK)
        return code;
    struct amp_buf *out = amesh_request_begin(mesh, wait, method, place->task);
    amesh_put_string(out, "scope", scopes[place->scope]);
    amesh_put_string(out, "contextId", place->context_id);
    amesh_put_string(out, "key", place->key);
    return AMP_OK;
}

static enum amp_code fill(const cJSON *entry, struct amesh_value *ret, struct amp_error *reterr)
{
    const char *key = amesh_json_string(entry, "key"), *text = amesh_json_string(entry, "value");
    ret->version = amesh_json_number(entry, "version");
    ret->key = strdup(key ? key : "");
    ret->json = amesh_json_print(cJSON_GetObjectItemCaseSensitive(entry, "value"));
    ret->text = text ? strdup(text) : NULL;
    if (ret->key && ret->json && (ret->text || !text))
        return AMP_OK;
    amesh_value_done(ret);
    return amp_error_set(reterr, AMP_BAD_ANSWER, "", "the sidecar answered with something that is no entry, or there is no memory for it");
}

void amesh_value_done(struct amesh_value *value)
{
    free(value->key);
    free(value->json);
    free(value->text);
    *value = (struct amesh_value){0};
}

enum amp_code amesh_kv_get(struct amesh *mesh, const struct amesh_place *place, struct amesh_value *ret, struct amp_error *reterr)
{
    struct amesh_wait wait;
    *ret = (struct amesh_value){0};
    enum amp_code code = begin(mesh, &wait, "kv.get", place, reterr);
    if (code == AMP_OK)
        code = amesh_request_wait(mesh, &wait, NULL, reterr);
    if (code == AMP_OK)
        code = fill(wait.reply.result, ret, reterr);
    amesh_frame_done(&wait.reply);
    return code;
}

static enum amp_code finish(struct amesh *mesh, struct amesh_wait *wait, enum amp_code code, struct amp_error *reterr)
{
    if (code == AMP_OK)
        code = amesh_request_wait(mesh, wait, NULL, reterr);
    amesh_frame_done(&wait->reply);
    return code;
}

enum amp_code amesh_kv_put(struct amesh *mesh, const struct amesh_place *place, const char *value_json, const uint32_t *if_version, struct amp_error *reterr)
{
    struct amesh_wait wait;
    enum amp_code code = begin(mesh, &wait, "kv.put", place, reterr);
    if (code == AMP_OK && if_version)
        amesh_put_number(&mesh->link.out, "ifVersion", *if_version);
    if (code == AMP_OK)
        code = amesh_put_json(&mesh->link.out, "value", value_json ? value_json : "null", reterr);
    return finish(mesh, &wait, code, reterr);
}

enum amp_code amesh_kv_put_text(struct amesh *mesh, const struct amesh_place *place, const char *text, struct amp_error *reterr)
{
    struct amesh_wait wait;
    enum amp_code code = begin(mesh, &wait, "kv.put", place, reterr);
    if (code == AMP_OK)
        amesh_put_string(&mesh->link.out, "value", text);
    return finish(mesh, &wait, code, reterr);
}

enum amp_code amesh_kv_del(struct amesh *mesh, const struct amesh_place *place, struct amp_error *reterr)
{
    struct amesh_wait wait;
    enum amp_code code = begin(mesh, &wait, "kv.del", place, reterr);
    return finish(mesh, &wait, code, reterr);
}

enum amp_code amesh_kv_list(struct amesh *mesh, const struct amesh_place *place, void (*on_value)(void *ctx, const struct amesh_value *value), void *ctx,
                            struct amp_error *reterr)
{
    struct amesh_wait wait;
    const cJSON *entry;
    enum amp_code code = begin(mesh, &wait, "kv.list", place, reterr);
    if (code == AMP_OK)
        code = amesh_request_wait(mesh, &wait, NULL, reterr);
    if (code == AMP_OK) {
        cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(wait.reply.result, "entries")) {
            struct amesh_value value = {0};
            if (code == AMP_OK)
                code = fill(entry, &value, reterr);
            if (code == AMP_OK)
                on_value(ctx, &value);
            amesh_value_done(&value);
        }
    }
    amesh_frame_done(&wait.reply);
    return code;
}
