/* Message → canonical JSON: members in field order, no white space, nothing that is unset. (amp.md 3.3) */
#include "json.h"

#include "buf.h"
#include "strict.h"
#include "utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

struct writer {
    struct amp_bytes own;
    struct amp_buf *out;
    struct amp_error *err;
};

/* A2A requires these lists, so an empty one is written. */
static const struct {
    const ProtobufCMessageDescriptor *type;
    const char *field;
} required_lists[] = {
    {&amp__agent_card__descriptor, "supported_interfaces"},
    {&amp__agent_card__descriptor, "default_input_modes"},
    {&amp__agent_card__descriptor, "default_output_modes"},
    {&amp__agent_card__descriptor, "skills"},
    {&amp__agent_skill__descriptor, "tags"},
    {&amp__message__descriptor, "parts"},
    {&amp__artifact__descriptor, "parts"},
};

static bool is_required_list(const ProtobufCMessageDescriptor *type, const char *field)
{
    for (size_t i = 0; i < sizeof(required_lists) / sizeof(required_lists[0]); i++)
        if (required_lists[i].type == type && strcmp(required_lists[i].field, field) == 0)
            return true;
    return false;
}

size_t field_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    default:
        assert(field->type == PROTOBUF_C_TYPE_INT32 || field->type == PROTOBUF_C_TYPE_UINT32 ||
               field->type == PROTOBUF_C_TYPE_ENUM);
        return sizeof(uint32_t);
    }
}

bool field_is_set(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)field_quantifier(field, message) > 0;
    if (field_is_oneof(field) && *(const uint32_t *)field_quantifier(field, message) != field->id)
        return false;
    if (field_is_pointer(field))
        return *(void *const *)field_at(field, message) != NULL;
    return field->label == PROTOBUF_C_LABEL_REQUIRED || field_is_oneof(field) ||
           *(const protobuf_c_boolean *)field_quantifier(field, message);
}

/* The replacement of a byte inside a JSON string, NULL if it may stand. */
static const char *escape_of(uint8_t byte, char ret[8])
{
    switch (byte) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    case '\0': /* no JSON of ours has a NUL, escaped or not */
        return UTF8_REPLACEMENT;
    default:
        if (byte >= 0x20)
            return NULL;
        snprintf(ret, 8, "\\u%04x", byte);
        return ret;
    }
}

/* Nothing in it is to be escaped, as in most strings. */
static enum amp_code append_plain(struct amp_buf *out, struct amp_bytes text)
{
    enum amp_code code = text.len < SIZE_MAX - 2 ? buf_reserve(out, text.len + 2) : AMP_TOO_LARGE;
    if (code != AMP_OK)
        return code;
    uint8_t *q = out->data + out->len;
    *q++ = '"';
    memcpy(q, text.data, text.len);
    q[text.len] = '"';
    out->len += text.len + 2;
    return AMP_OK;
}

enum amp_code amp_json_append_string(struct amp_buf *out, struct amp_bytes text)
{
    if (text.len == 0)
        return buf_put(out, "\"\"", 2);
    const uint8_t *run = text.data, *end = run + text.len, *p = utf8_skip_plain(run, end);
    if (p == end)
        return append_plain(out, text);
    enum amp_code code = buf_put(out, "\"", 1);
    while (code == AMP_OK && p < end) {
        p = utf8_skip_plain(p, end);
        if (p == end)
            break;
        char scratch[8];
        uint32_t code_point;
        const char *escape = *p < 0x80 ? escape_of(*p, scratch) : NULL;
        size_t len = escape ? 1 : utf8_read(p, end, &code_point);
        if (!escape && len > 0) {
            p += len;
            continue;
        }
        if (!escape) {
            escape = UTF8_REPLACEMENT;
            len = utf8_skip_invalid(p, end);
        }
        code = amp_buf_append(out, run, (size_t)(p - run));
        if (code == AMP_OK)
            code = amp_buf_append(out, escape, strlen(escape));
        p += len;
        run = p;
    }
    if (code == AMP_OK)
        code = amp_buf_append(out, run, (size_t)(end - run));
    return code == AMP_OK ? buf_put(out, "\"", 1) : code;
}

static enum amp_code write_base64(struct amp_buf *out, const ProtobufCBinaryData *bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (bytes->len > SIZE_MAX / 4 * 3 - 8)
        return AMP_TOO_LARGE;
    enum amp_code code = buf_reserve(out, (bytes->len + 2) / 3 * 4 + 2);
    if (code != AMP_OK)
        return code;
    uint8_t *q = out->data + out->len;
    *q++ = '"';
    for (size_t i = 0; i < bytes->len; i += 3) {
        size_t left = bytes->len - i;
        const uint8_t *p = bytes->data + i;
        uint32_t word = (uint32_t)p[0] << 16 | (left > 1 ? (uint32_t)p[1] << 8 : 0) | (left > 2 ? p[2] : 0u);
        *q++ = (uint8_t)digits[word >> 18];
        *q++ = (uint8_t)digits[word >> 12 & 63];
        *q++ = left > 1 ? (uint8_t)digits[word >> 6 & 63] : '=';
        *q++ = left > 2 ? (uint8_t)digits[word & 63] : '=';
    }
    *q++ = '"';
    out->len = (size_t)(q - out->data);
    return AMP_OK;
}

/* Checked, because what is no JSON would make the whole document none. */
static enum amp_code write_json(struct writer *w, const Amp__Json *json, const struct path *path)
{
    struct amp_bytes text = {.data = json->text.data, .len = json->text.len};
    size_t at = (uintptr_t)text.data - (uintptr_t)w->own.data;
    if (w->own.len > 0 && at < w->own.len && text.len <= w->own.len - at)
        return amp_buf_append(w->out, text.data, text.len);
    size_t n_spaces;
    enum amp_code code = strict_check(text, &amp_json_limits_default, &n_spaces, w->err);
    if (code != AMP_OK)
        return path_blame(w->err, code, path);
    if (n_spaces == 0)
        return amp_buf_append(w->out, text.data, text.len);
    code = buf_reserve(w->out, text.len);
    if (code == AMP_OK)
        w->out->len += strict_compact(text.data, text.len, w->out->data + w->out->len);
    return code;
}

static enum amp_code write_enum(struct writer *w, const ProtobufCEnumDescriptor *type, int value)
{
    const ProtobufCEnumValue *row = protobuf_c_enum_descriptor_get_value(type, value);
    return row ? amp_json_append_string(w->out, amp_bytes_of(row->name)) : amp_buf_printf(w->out, "%d", value);
}

static enum amp_code write_number(struct amp_buf *out, uint64_t magnitude, bool is_negative, bool is_quoted)
{
    char text[24];
    size_t at = sizeof(text);
    if (is_quoted)
        text[--at] = '"';
    do
        text[--at] = (char)('0' + magnitude % 10);
    while ((magnitude /= 10) > 0);
    if (is_negative)
        text[--at] = '-';
    if (is_quoted)
        text[--at] = '"';
    return amp_buf_append(out, text + at, sizeof(text) - at);
}

static enum amp_code write_message(struct writer *w, const ProtobufCMessage *message, const struct path *path);

static enum amp_code write_value(struct writer *w, const ProtobufCFieldDescriptor *field, const void *value,
                                 const struct path *path)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return amp_json_append_string(w->out, amp_bytes_of(*(const char *const *)value));
    case PROTOBUF_C_TYPE_MESSAGE:
        return write_message(w, *(const ProtobufCMessage *const *)value, path);
    case PROTOBUF_C_TYPE_BYTES:
        return write_base64(w->out, value);
    case PROTOBUF_C_TYPE_BOOL:
        return *(const protobuf_c_boolean *)value ? buf_put(w->out, "true", 4) : buf_put(w->out, "false", 5);
    case PROTOBUF_C_TYPE_ENUM:
        return write_enum(w, field->descriptor, *(const int *)value);
    case PROTOBUF_C_TYPE_UINT32:
        return write_number(w->out, *(const uint32_t *)value, false, false);
    case PROTOBUF_C_TYPE_UINT64:
        return write_number(w->out, *(const uint64_t *)value, false, true);
    case PROTOBUF_C_TYPE_INT32: {
        int64_t number = *(const int32_t *)value;
        return write_number(w->out, (uint64_t)(number < 0 ? -number : number), number < 0, false);
    }
    default: {
        assert(field->type == PROTOBUF_C_TYPE_INT64);
        int64_t number = *(const int64_t *)value;
        return write_number(w->out, number < 0 ? -(uint64_t)number : (uint64_t)number, number < 0, true);
    }
    }
}

static enum amp_code write_list(struct writer *w, const ProtobufCFieldDescriptor *field,
                                const ProtobufCMessage *message, struct path *path)
{
    size_t n = *(const size_t *)field_quantifier(field, message), size = field_size(field);
    const char *elements = *(const char *const *)field_at(field, message);
    enum amp_code code = buf_put(w->out, "[", 1);
    for (size_t i = 0; i < n && code == AMP_OK; i++) {
        path->index = i;
        code = i > 0 ? buf_put(w->out, ",", 1) : AMP_OK;
        if (code == AMP_OK)
            code = write_value(w, field, elements + i * size, path);
    }
    return code == AMP_OK ? buf_put(w->out, "]", 1) : code;
}

static enum amp_code write_field(struct writer *w, const ProtobufCFieldDescriptor *field,
                                 const ProtobufCMessage *message, bool is_first, const struct path *up)
{
    char own[AMP_NAME_MAX + 8], *name = buf_room(w->out) >= sizeof(own) ? (char *)w->out->data + w->out->len : own; /* mostly in its place */
    size_t len = 0;
    if (!is_first)
        name[len++] = ',';
    name[len++] = '"';
    len += path_json_name(field->name, name + len, AMP_NAME_MAX);
    name[len++] = '"';
    name[len++] = ':';
    enum amp_code code = AMP_OK;
    if (name == own)
        code = amp_buf_append(w->out, own, len);
    else
        w->out->len += len;
    struct path path = {.up = up, .name = field->name, .index = PATH_NO_INDEX};
    if (code != AMP_OK)
        return code;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return write_list(w, field, message, &path);
    return write_value(w, field, field_at(field, message), &path);
}

static enum amp_code write_message(struct writer *w, const ProtobufCMessage *message, const struct path *path)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    if (type == &amp__json__descriptor)
        return write_json(w, (const Amp__Json *)message, path);
    if (type == &amp__timestamp__descriptor) {
        char text[AMP_TIME_SIZE];
        amp_time_format(((const Amp__Timestamp *)message)->unix_ms, text);
        return amp_json_append_string(w->out, amp_bytes_of(text));
    }
    enum amp_code code = buf_put(w->out, "{", 1);
    bool is_first = true;
    for (unsigned i = 0; i < type->n_fields && code == AMP_OK; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (!field_is_set(field, message)) {
            if (field->label == PROTOBUF_C_LABEL_REQUIRED)
                return path_error(w->err, AMP_INVALID, &(struct path){path, field->name, PATH_NO_INDEX},
                                  "a required field is not set");
            if (field->label != PROTOBUF_C_LABEL_REPEATED || !is_required_list(type, field->name))
                continue;
        }
        code = write_field(w, field, message, is_first, path);
        is_first = false;
    }
    return code == AMP_OK ? buf_put(w->out, "}", 1) : code;
}

enum amp_code json_write(const ProtobufCMessage *message, struct amp_bytes own, struct amp_buf *out,
                         struct amp_error *reterr)
{
    struct writer w = {.own = own, .out = out, .err = reterr};
    return write_message(&w, message, NULL);
}
