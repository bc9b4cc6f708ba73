/* The JSON of JetStream's API and its reply subjects. Pure. */
#include "base/jetstream.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static enum js_outcome outcome_of(int err_code, int code)
{
    static const struct {
        int err_code;
        enum js_outcome outcome;
    } known[] = {
        {10039, JS_MISSING},   /* not enabled for this account */
        {10076, JS_MISSING},   /* not enabled */
        {10035, JS_MISSING},   /* the same of a newer server */
        {10059, JS_NO_STREAM}, {10037, JS_NO_MESSAGE},
        {10047, JS_NO_ROOM},   /* storage promised to others */
        {10028, JS_NO_ROOM},   /* memory promised to others */
        {10023, JS_NO_ROOM},   /* insufficient resources */
        {10002, JS_NO_ROOM},   /* resource limits of the account */
        {10122, JS_NO_ROOM},   /* of one stream of the account */
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].err_code == err_code)
            return known[i].outcome;
    return err_code == 0 && code == 503 ? JS_MISSING : JS_REFUSED;
}

static int int_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valueint : 0;
}

static void take_error(const cJSON *error, struct js_reply *ret)
{
    const char *words = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "description"));
    ret->code = int_of(error, "err_code");
    ret->outcome = outcome_of(ret->code, int_of(error, "code"));
    snprintf(ret->text, sizeof ret->text, "%.160s (JetStream %d)", words ? words : "refused", ret->code ? ret->code : int_of(error, "code"));
}

void js_reply_parse(struct amp_bytes data, struct js_reply *ret, struct cJSON **ret_json)
{
    cJSON *json = NULL;
    *ret = (struct js_reply){.outcome = JS_MALFORMED};
    *ret_json = NULL;
    snprintf(ret->text, sizeof ret->text, "the answer is not one of JetStream");
    if (data.len > JS_REPLY_BYTES_MAX || amp_json_parse(data, &json, NULL) != AMP_OK)
        return;
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(json, "error");
    if (cJSON_IsObject(error)) {
        take_error(error, ret);
    } else if (cJSON_IsObject(json)) {
        ret->outcome = JS_OK;
        ret->text[0] = '\0';
        ret->json = *ret_json = json;
        return;
    }
    cJSON_Delete(json);
}

/* ---- streams ------------------------------------------------------------------------------------------------------- */

enum amp_code js_stream_config_append(struct amp_buf *out, const struct js_stream_config *config)
{
    (void)amp_buf_printf(out, "{\"name\":\"%s\",\"subjects\":[", config->name);
    for (size_t i = 0; i < JS_SUBJECTS_MAX && config->subjects[i]; i++) {
        (void)amp_buf_printf(out, "%s", i ? "," : "");
        (void)amp_json_append_string(out, amp_bytes_of(config->subjects[i]));
    }
    return amp_buf_printf(out,
                          "],\"retention\":\"limits\",\"storage\":\"%s\",\"discard\":\"old\",\"num_replicas\":1,\"max_consumers\":-1,\"max_msg_size\":%u,"
                          "\"max_msgs\":%" PRIu64 ",\"max_bytes\":%" PRIu64 ",\"max_age\":%" PRId64 "000000}",
                          config->is_in_memory ? "memory" : "file", config->message_max, config->messages_max, config->bytes_max, config->age_max_ms);
}

static bool take_number(const cJSON *object, const char *name, uint64_t *ret)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= -1 && item->valuedouble <= JS_SEQ_MAX))
        return false;
    *ret = item->valuedouble < 0 ? 0 : (uint64_t)item->valuedouble;
    return true;
}

static bool is_text(const cJSON *object, const char *name, const char *wanted)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text && strcmp(text, wanted) == 0;
}

static uint32_t find_subjects(const cJSON *list, const struct js_stream_config *config)
{
    uint32_t found = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
        for (size_t i = 0; i < JS_SUBJECTS_MAX && config->subjects[i]; i++)
            if (cJSON_IsString(item) && strcmp(item->valuestring, config->subjects[i]) == 0)
                found |= 1u << i;
    return found;
}

enum js_outcome js_stream_read(const struct cJSON *json, const struct js_stream_config *config, struct js_stream *ret)
{
    const cJSON *echo = cJSON_GetObjectItemCaseSensitive(json, "config"), *state = cJSON_GetObjectItemCaseSensitive(json, "state");
    const char *created = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "created"));
    *ret = (struct js_stream){0};
    if (!created || strlen(created) >= sizeof ret->created || !is_text(echo, "name", config->name) || !take_number(state, "first_seq", &ret->first_seq) ||
        !take_number(state, "last_seq", &ret->last_seq) || !take_number(state, "messages", &ret->messages) || !take_number(state, "bytes", &ret->bytes))
        return JS_MALFORMED;
    snprintf(ret->created, sizeof ret->created, "%s", created);
    (void)take_number(echo, "max_bytes", &ret->bytes_max);
    ret->has_subjects = find_subjects(cJSON_GetObjectItemCaseSensitive(echo, "subjects"), config);
    ret->is_limits = is_text(echo, "retention", "limits");
    ret->is_in_memory = is_text(echo, "storage", "memory");
    return JS_OK;
}

/* ---- messages --------------------------------------------------------------------------------------------------------- */

#define ACK_TOKENS_MAX 12
#define ACK_OLD 9  /* 2.9: $JS ACK stream consumer delivered seq consumer_seq time pending */
#define ACK_NEW 11 /* with domain and account hash before the stream, and perhaps a token at the end */

static bool number_of(const char *text, uint64_t *ret)
{
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len > 16 || (text[len] != '.' && text[len] != '\0'))
        return false;
    *ret = strtoull(text, NULL, 10);
    return true;
}

bool js_delivery_parse(const char *reply, struct js_delivery *ret)
{
    const char *tokens[ACK_TOKENS_MAX];
    size_t n = 0;
    if (!reply || strncmp(reply, "$JS.ACK.", 8) != 0)
        return false;
    for (const char *at = reply; at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL) {
        if (n == ACK_TOKENS_MAX)
            return false;
        tokens[n++] = at;
    }
    if (n != ACK_OLD && n < ACK_NEW)
        return false;
    size_t shift = n == ACK_OLD ? 0 : ACK_NEW - ACK_OLD;
    return number_of(tokens[5 + shift], &ret->seq) && number_of(tokens[6 + shift], &ret->nth) && number_of(tokens[8 + shift], &ret->pending) && ret->seq > 0 && ret->nth > 0;
}

bool js_ack_read(const struct cJSON *json, const char *stream, uint64_t *ret_seq)
{
    return is_text(json, "stream", stream) && take_number(json, "seq", ret_seq) && *ret_seq > 0;
}
