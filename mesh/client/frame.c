/* What the sidecar sends is checked like foreign input: strictly, with limits, before cJSON sees it. */
#include "client_private.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { RPC_CANCELED = -32800, RPC_METHOD = -32601 };

static const double number_max = 9007199254740992.0; /* 2^53 */

static enum amp_code take_call(struct amesh_frame *frame, struct amp_error *reterr)
{
    const cJSON *params = cJSON_GetObjectItemCaseSensitive(frame->json, "params");
    frame->id = cJSON_GetObjectItemCaseSensitive(frame->json, "id");
    if (frame->id && !cJSON_IsNumber(frame->id) && !cJSON_IsString(frame->id))
        return amp_error_set(reterr, AMP_MALFORMED, "id", "the sidecar sent a request whose id is neither a number nor a string");
    if (params && !cJSON_IsObject(params))
        return amp_error_set(reterr, AMP_MALFORMED, "params", "the sidecar sent params that are no object");
    frame->params = params;
    return AMP_OK;
}

static enum amp_code take_reply(struct amesh_frame *frame, struct amp_error *reterr)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(frame->json, "id");
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(frame->json, "error");
    const cJSON *result = cJSON_GetObjectItemCaseSensitive(frame->json, "result");
    bool has_number = cJSON_IsNumber(id) && id->valuedouble >= 1 && id->valuedouble <= number_max;
    if (!has_number && !(cJSON_IsNull(id) && error))
        return amp_error_set(reterr, AMP_MALFORMED, "id", "the sidecar sent a line that is neither a request nor a reply");
    if (!error == !result || (error && !cJSON_IsObject(error)))
        return amp_error_set(reterr, AMP_MALFORMED, "result", "the sidecar sent a reply without one of result and error");
    frame->number = has_number ? (uint64_t)id->valuedouble : 0;
    frame->result = result;
    frame->error = error;
    return AMP_OK;
}

enum amp_code amesh_frame_decode(struct amp_bytes line, struct amesh_frame *ret, struct amp_error *reterr)
{
    static const struct amp_json_limits limits = {.bytes_max = AMESH_FRAME_MAX, .depth_max = AMESH_FRAME_DEPTH, .members_max = AMESH_FRAME_MEMBERS};
    *ret = (struct amesh_frame){0};
    enum amp_code code = amp_json_check(line, &limits, reterr);
    if (code != AMP_OK)
        return code;
    ret->json = cJSON_ParseWithLength((const char *)line.data, line.len);
    if (!ret->json)
        return amp_error_set(reterr, AMP_NO_MEMORY, "", "out of memory");
    if (!cJSON_IsObject(ret->json))
        return amp_error_set(reterr, AMP_MALFORMED, "", "the sidecar sent JSON that is no object");
    ret->method = amesh_json_string(ret->json, "method");
    return ret->method ? take_call(ret, reterr) : take_reply(ret, reterr);
}

void amesh_frame_done(struct amesh_frame *frame)
{
    cJSON_Delete(frame->json);
    *frame = (struct amesh_frame){0};
}

enum amp_code amesh_frame_error(const cJSON *error, struct amp_error *ret)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(error, "code"), *data = cJSON_GetObjectItemCaseSensitive(error, "data");
    const char *message = amesh_json_string(error, "message"), *wire = amesh_json_string(data, "code"), *hint = amesh_json_string(data, "hint");
    enum amp_code code = AMP_INTERNAL;
    if (wire && !strncmp(wire, "AMESH-", 6))
        code = amp_code_info((enum amp_code)strtoul(wire + 6, NULL, 10))->code;
    else if (cJSON_IsNumber(number) && number->valuedouble == RPC_CANCELED)
        code = AMP_CANCELED;
    else if (cJSON_IsNumber(number) && number->valuedouble == RPC_METHOD)
        code = AMP_UNSUPPORTED;
    if (code == AMP_OK)
        code = AMP_INTERNAL;
    amp_error_set(ret, code, "", "%s", message && *message ? message : amp_code_info(code)->text);
    if (ret && hint)
        amp_error_hint(ret, "%s", hint);
    if (ret)
        ret->retry_after_ms = amesh_json_number(data, "retryAfterMs");
    return code;
}

const char *amesh_json_string(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

uint32_t amesh_json_number(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble <= UINT32_MAX ? (uint32_t)item->valuedouble : 0;
}

char *amesh_json_print(const cJSON *item)
{
    return item ? cJSON_PrintUnformatted(item) : NULL;
}
