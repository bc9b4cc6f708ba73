/* The meaning of a message's fields (amp.md 4.2), and the checks that cards, artifacts and events share with it. What
 * the bytes look like (UTF-8, NUL, depth, counts) was settled by the decoder. */
#include <amp/amp.h>

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "model.h"
#include "utf8.h"

#define MEDIA_TYPE_MAX 256
#define FILENAME_MAX_BYTES 1024
#define URL_MAX 4096
#define PATH_SIZE 96

/* Characters that change how the text around them is shown, or what the next line is. */
static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x61c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

enum amp_code text_check(const char *text, struct text_rule rule, const char *field, struct amp_error *reterr)
{
    if (!text && rule.min == 0)
        return AMP_OK;
    if (!text || strlen(text) < rule.min)
        return amp_error_set(reterr, AMP_INVALID, field, "must not be empty");
    size_t len = strlen(text);
    if (len > rule.max)
        return amp_error_set(reterr, AMP_INVALID, field, "%zu bytes; at most %zu are allowed", len, rule.max);
    const uint8_t *at = (const uint8_t *)text, *end = at + len;
    while (at < end) {
        uint32_t c;
        size_t used = utf8_read(at, end, &c);
        if (used == 0)
            return amp_error_set(reterr, AMP_INVALID, field, "is not UTF-8");
        at += used;
        if (is_control(c) && !(rule.is_multiline && (c == '\n' || c == '\t')))
            return amp_error_set(reterr, AMP_INVALID, field, "has the control character U+%04X", c);
    }
    return AMP_OK;
}

static const struct text_rule foreign_id = {.min = 1, .max = AMP_KEY_MAX};

enum amp_code foreign_id_check(const char *id, const char *field, struct amp_error *reterr)
{
    return text_check(id, foreign_id, field, reterr);
}

/* A member of what is named `field`. The path is written out only when something is wrong. */
static enum amp_code member_check(const char *text, struct text_rule rule, const char *field, const char *member, struct amp_error *reterr)
{
    char path[PATH_SIZE];
    enum amp_code code = text_check(text, rule, "", NULL);
    if (code == AMP_OK || !reterr)
        return code;
    (void)snprintf(path, sizeof(path), "%.80s.%s", field, member);
    return text_check(text, rule, path, reterr);
}

static enum amp_code blob_check(const Amp__Part *part, const char *field, struct amp_error *reterr)
{
    struct amp_blob_ref ref;
    enum amp_code code = amp_part_blob(part, &ref, reterr);
    if (code == AMP_OK || !reterr)
        return code;
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%.60s.%.20s", field, reterr->field);
    memcpy(reterr->field, path, sizeof(path));
    return code;
}

/* What a path means only the host knows on which it was written: whoever got it would open a file of his own, and perhaps send it back. */
static bool is_of_a_host(const char *url)
{
    static const char scheme[] = "file:";
    return url && strncasecmp(url, scheme, sizeof(scheme) - 1) == 0;
}

static enum amp_code part_check(const Amp__Part *part, const char *field, struct amp_error *reterr)
{
    int n_contents = (part->text != NULL) + (part->has_raw != 0) + (part->url != NULL) + (part->data != NULL);
    if (n_contents != 1)
        return amp_error_set(reterr, AMP_INVALID, field, "has %d of text, raw, url and data; exactly one is needed",
                             n_contents);
    if (is_of_a_host(part->url))
        return amp_error_set(reterr, AMP_INVALID, field, "has a file: url, which means a file of one host only; send the file itself, as raw or as a blob");
    enum amp_code code = member_check(part->url, (struct text_rule){.min = part->url ? 1 : 0, .max = URL_MAX}, field, "url", reterr);
    if (code == AMP_OK)
        code = member_check(part->filename, (struct text_rule){.max = FILENAME_MAX_BYTES}, field, "filename", reterr);
    if (code == AMP_OK)
        code = member_check(part->media_type, (struct text_rule){.max = MEDIA_TYPE_MAX}, field, "mediaType", reterr);
    return code == AMP_OK && amp_part_is_blob(part) ? blob_check(part, field, reterr) : code;
}

enum amp_code parts_check(Amp__Part *const *parts, size_t n_parts, const char *field, struct amp_error *reterr)
{
    if (n_parts == 0)
        return amp_error_set(reterr, AMP_INVALID, field, "has no parts; at least one is needed");
    if (n_parts > AMP_PARTS_MAX)
        return amp_error_set(reterr, AMP_INVALID, field, "has %zu parts; at most %u are allowed", n_parts,
                             AMP_PARTS_MAX);
    for (size_t i = 0; i < n_parts; i++) {
        char path[PATH_SIZE];
        enum amp_code code = part_check(parts[i], "", NULL);
        if (code == AMP_OK)
            continue;
        if (!reterr)
            return code;
        (void)snprintf(path, sizeof(path), "%.60s[%zu]", field, i);
        return part_check(parts[i], path, reterr);
    }
    return AMP_OK;
}

static enum amp_code optional_id_check(const char *id, const char *message_field, const char *member,
                                       struct amp_error *reterr)
{
    char path[PATH_SIZE];
    if (!id || !id[0])
        return AMP_OK;
    (void)snprintf(path, sizeof(path), "%.60s.%s", message_field, member);
    return id_check(id, path, reterr);
}

enum amp_code amp_message_check(const Amp__Message *message, const char *field, struct amp_error *reterr)
{
    char path[PATH_SIZE];
    enum amp_code code = AMP_OK;
    if (message->message_id && message->message_id[0])
        code = member_check(message->message_id, foreign_id, field, "messageId", reterr);
    if (code == AMP_OK)
        code = optional_id_check(message->context_id, field, "contextId", reterr);
    if (code == AMP_OK)
        code = optional_id_check(message->task_id, field, "taskId", reterr);
    if (code != AMP_OK)
        return code;
    if (message->has_role && message->role != AMP__ROLE__ROLE_USER && message->role != AMP__ROLE__ROLE_AGENT) {
        (void)snprintf(path, sizeof(path), "%.60s.role", field);
        return amp_error_set(reterr, AMP_INVALID, path, "must be ROLE_USER or ROLE_AGENT");
    }
    code = parts_check(message->parts, message->n_parts, "", NULL);
    if (code == AMP_OK || !reterr)
        return code;
    (void)snprintf(path, sizeof(path), "%.60s.parts", field);
    return parts_check(message->parts, message->n_parts, path, reterr);
}

enum amp_code amp_message_text(const Amp__Message *message, struct amp_buf *out)
{
    for (size_t i = 0; i < message->n_parts; i++) {
        const char *text = message->parts[i]->text;
        enum amp_code code = text ? amp_buf_append(out, text, strlen(text)) : AMP_OK;
        if (code != AMP_OK)
            return code;
    }
    return AMP_OK;
}
