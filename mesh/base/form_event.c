#include "base/form.h"

#include "base/alloc.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

/* {"<name>":about}; takes `about` over. */
static char *metadata_of(const char *name, cJSON *about)
{
    cJSON *metadata = cJSON_CreateObject();
    cJSON_AddItemToObject(metadata, name, about);
    char *json = cJSON_PrintUnformatted(metadata), *text = json ? xstrdup(json) : NULL;
    cJSON_free(json);
    cJSON_Delete(metadata);
    return text;
}

char *form_say_question(const char *id, const struct cJSON *form, int64_t expires_unix_ms, bool is_turn)
{
    cJSON *about = cJSON_CreateObject();
    const cJSON *each;
    cJSON_AddStringToObject(about, "id", id);
    cJSON_ArrayForEach(each, form) cJSON_AddItemToObject(about, each->string, cJSON_Duplicate(each, true));
    if (expires_unix_ms > 0) {
        char time[AMP_TIME_SIZE];
        amp_time_format(expires_unix_ms, time);
        cJSON_AddStringToObject(about, "expiresAt", time);
    }
    if (is_turn)
        cJSON_AddTrueToObject(about, "turn");
    return metadata_of("amp/question", about);
}

char *form_say_answer(const struct form_answer *answer)
{
    cJSON *about = cJSON_CreateObject();
    char *value = answer->value ? cJSON_PrintUnformatted(answer->value) : NULL;
    size_t text_len = answer->text ? strlen(answer->text) : 0, value_len = value ? strlen(value) : 0;
    cJSON_AddStringToObject(about, "id", answer->id);
    if (answer->by)
        cJSON_AddStringToObject(about, "by", answer->by);
    if (text_len + value_len > AMP_TEXT_EVENT_MAX) {
        cJSON_AddNumberToObject(about, "bytes", (double)((text_len > value_len ? text_len : value_len) + answer->file_bytes));
    } else {
        if (answer->file_bytes > 0)
            cJSON_AddNumberToObject(about, "bytes", (double)answer->file_bytes);
        if (answer->text && (text_len > 0 || answer->file_bytes == 0))
            cJSON_AddStringToObject(about, "text", answer->text);
        if (answer->value)
            cJSON_AddItemToObject(about, "value", cJSON_Duplicate(answer->value, true));
    }
    if (answer->is_again)
        cJSON_AddTrueToObject(about, "again");
    cJSON_free(value);
    return metadata_of("amp/answer", about);
}

char *form_say_closed(const char *id, const char *why, const struct cJSON *fallback, bool is_again)
{
    cJSON *about = cJSON_CreateObject();
    cJSON_AddStringToObject(about, "id", id);
    cJSON_AddStringToObject(about, "why", why);
    if (fallback)
        cJSON_AddItemToObject(about, "default", cJSON_Duplicate(fallback, true));
    if (is_again)
        cJSON_AddTrueToObject(about, "again");
    return metadata_of("amp/question_closed", about);
}

uint64_t form_answer_file_bytes(const Amp__Message *answer)
{
    uint64_t bytes = 0;
    struct amp_blob_ref ref;
    for (size_t i = 0; answer && i < answer->n_parts; i++)
        if (amp_part_is_blob(answer->parts[i]) && amp_part_blob(answer->parts[i], &ref, NULL) == AMP_OK)
            bytes += ref.size;
    return bytes;
}

char *form_answer_text(const Amp__Message *answer, const struct cJSON *value)
{
    struct amp_buf text;
    if (value)
        return form_text(value);
    amp_buf_init(&text, AMP_WIRE_BYTES_MAX);
    char *ret = answer && amp_message_text(answer, &text) == AMP_OK && text.len > 0 ? xstrndup((const char *)text.data, text.len) : xstrdup("");
    amp_buf_done(&text);
    return ret;
}
