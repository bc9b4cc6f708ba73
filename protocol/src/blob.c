/* Parts whose bytes are elsewhere (amp.md 15): how they are written, read and checked. */
#include <amp/amp.h>

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "model.h"

#define SCHEME "amp-blob:"
#define HASH_NAME "sha256-"
#define MEMBER "amp/blob"

bool amp_blob_digest_is_valid(const char *digest)
{
    size_t name_len = sizeof(HASH_NAME) - 1;
    return digest && strlen(digest) == AMP_BLOB_DIGEST_SIZE - 1 && strncmp(digest, HASH_NAME, name_len) == 0 &&
           strspn(digest + name_len, "0123456789abcdef") == AMP_BLOB_DIGEST_SIZE - 1 - name_len;
}

void amp_blob_digest_format(const uint8_t hash[AMP_BLOB_HASH_SIZE], char ret[AMP_BLOB_DIGEST_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    char *at = stpcpy(ret, HASH_NAME);
    for (size_t i = 0; i < AMP_BLOB_HASH_SIZE; i++) {
        *at++ = digits[hash[i] >> 4];
        *at++ = digits[hash[i] & 15];
    }
    *at = '\0';
}

bool amp_part_is_blob(const Amp__Part *part)
{
    return part->url && strncmp(part->url, SCHEME, sizeof(SCHEME) - 1) == 0;
}

static enum amp_code read_size(const cJSON *size, struct amp_blob_ref *ref, struct amp_error *reterr)
{
    if (!cJSON_IsNumber(size) || !(size->valuedouble >= 0) || size->valuedouble > 9e15 || size->valuedouble != (double)(uint64_t)size->valuedouble)
        return amp_error_set(reterr, AMP_INVALID, "metadata", "a blob needs a \"size\" in \"" MEMBER "\", a number of bytes");
    if (size->valuedouble > AMP_BLOB_BYTES_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "metadata", "the blob has %.0f bytes; at most %u are allowed", size->valuedouble, AMP_BLOB_BYTES_MAX);
    ref->size = (uint64_t)size->valuedouble;
    return AMP_OK;
}

enum amp_code amp_part_blob(const Amp__Part *part, struct amp_blob_ref *ret, struct amp_error *reterr)
{
    struct amp_blob_ref ref = {.size = 0};
    cJSON *metadata = NULL;
    const char *digest = amp_part_is_blob(part) ? part->url + sizeof(SCHEME) - 1 : NULL;
    if (!amp_blob_digest_is_valid(digest))
        return amp_error_set(reterr, AMP_INVALID, "url", "not " SCHEME HASH_NAME " and 64 hexadecimal digits");
    memcpy(ref.digest, digest, sizeof(ref.digest));
    if (!part->metadata || amp_json_parse((struct amp_bytes){part->metadata->text.data, part->metadata->text.len}, &metadata, NULL) != AMP_OK)
        return amp_error_set(reterr, AMP_INVALID, "metadata", "a blob needs \"" MEMBER "\" with its size and holder");
    const cJSON *said = cJSON_GetObjectItemCaseSensitive(metadata, MEMBER);
    const char *holder = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(said, "holder"));
    holder = holder ? holder : "";
    ref.is_text = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(said, "text"));
    enum amp_code code = read_size(cJSON_GetObjectItemCaseSensitive(said, "size"), &ref, reterr);
    if (code == AMP_OK && !amp_id_is_valid(holder))
        code = amp_error_set(reterr, AMP_INVALID, "metadata", "a blob needs a \"holder\" in \"" MEMBER "\", an id");
    if (code == AMP_OK)
        memcpy(ref.holder, holder, strlen(holder) + 1);
    cJSON_Delete(metadata);
    if (code == AMP_OK)
        *ret = ref;
    return code;
}

void amp_blob_ref_json(const struct amp_blob_ref *ref, struct cJSON *part)
{
    char url[sizeof(SCHEME) + AMP_BLOB_DIGEST_SIZE];
    (void)snprintf(url, sizeof(url), SCHEME "%s", ref->digest);
    static const char *const contents[] = {"text", "raw", "data", "url"};
    for (size_t i = 0; i < sizeof(contents) / sizeof(*contents); i++)
        cJSON_DeleteItemFromObjectCaseSensitive(part, contents[i]);
    cJSON_AddStringToObject(part, "url", url);
    cJSON *metadata = cJSON_GetObjectItemCaseSensitive(part, "metadata");
    if (!cJSON_IsObject(metadata)) {
        cJSON_DeleteItemFromObjectCaseSensitive(part, "metadata");
        metadata = cJSON_AddObjectToObject(part, "metadata");
    }
    cJSON_DeleteItemFromObjectCaseSensitive(metadata, MEMBER);
    cJSON *said = cJSON_AddObjectToObject(metadata, MEMBER);
    cJSON_AddNumberToObject(said, "size", (double)ref->size);
    cJSON_AddStringToObject(said, "holder", ref->holder);
    if (ref->is_text)
        cJSON_AddTrueToObject(said, "text");
}

enum amp_code amp_part_set_blob(Amp__Part *part, const struct amp_blob_ref *ref, struct amp_arena *arena)
{
    cJSON *json = cJSON_CreateObject(), *metadata = NULL;
    if (part->metadata && amp_json_parse((struct amp_bytes){part->metadata->text.data, part->metadata->text.len}, &metadata, NULL) == AMP_OK)
        cJSON_AddItemToObject(json, "metadata", metadata);
    amp_blob_ref_json(ref, json);
    char *text = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(json, "metadata"));
    const char *url = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "url"));
    Amp__Json *kept = amp_arena_alloc(arena, sizeof(*kept));
    char *kept_text = text ? amp_arena_strdup(arena, amp_bytes_of(text)) : NULL, *kept_url = url ? amp_arena_strdup(arena, amp_bytes_of(url)) : NULL;
    bool is_made = kept && kept_text && kept_url;
    if (is_made) {
        amp__json__init(kept);
        kept->text = (ProtobufCBinaryData){strlen(kept_text), (uint8_t *)kept_text};
        part->metadata = kept;
        part->url = kept_url;
        part->text = NULL;
        part->has_raw = 0;
        part->raw = (ProtobufCBinaryData){0, NULL};
        part->data = NULL;
    }
    cJSON_free(text);
    cJSON_Delete(json);
    return is_made ? AMP_OK : AMP_NO_MEMORY;
}

bool amp_message_has_blob(const Amp__Message *message)
{
    for (size_t i = 0; message && i < message->n_parts; i++) {
        if (amp_part_is_blob(message->parts[i]))
            return true;
    }
    return false;
}
