/* JSON → message, straight from the strict tokenizer into the arena. (amp.md 3.3, 3.4)
 *
 * Unknown members are skipped; a member twice (in any spelling), two members of one choice, a missing required member
 * and a value of the wrong kind are errors that name the field. `null` leaves a field unset, but is the value of a
 * Json. */
#include "json.h"

#include "buf.h"
#include "rfc3339.h"
#include "strict.h"

#include <assert.h>
#include <string.h>

#define EXACT_MAX (INT64_C(1) << 53) /* a JSON number is exact up to here */
#define KEY_SIZE 64u

struct reader {
    struct strict s;
    struct amp_arena *arena;
    struct amp_error *err;
};

static enum amp_code read_message(struct reader *r, const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret,
                                  const struct path *path);

static enum amp_code wrong_kind(struct reader *r, const struct path *path, const char *wanted, enum strict_token got)
{
    if (got == STRICT_ERROR)
        return path_blame(r->err, r->s.code, path);
    return path_error(r->err, AMP_INVALID, path, "%s is needed, not %s", wanted, strict_token_name(got));
}

static enum amp_code no_memory(struct reader *r, const struct path *path)
{
    return path_blame(r->err, arena_refusal(r->arena, r->err), path);
}

/* The current STRING with its escapes resolved and a NUL behind it. */
static enum amp_code copy_string(struct reader *r, const struct path *path, char **ret)
{
    const struct strict *s = &r->s;
    char *text = arena_alloc_raw(r->arena, s->text_len + 1);
    if (!text)
        return no_memory(r, path);
    if (s->text_len == s->len)
        memcpy(text, s->data, s->len);
    else
        strict_unescape(s->data, s->len, (uint8_t *)text);
    text[s->text_len] = '\0';
    *ret = text;
    return AMP_OK;
}

static int base64_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

/* In place. Both alphabets, with padding or without; the unused bits must be zero, so that bytes have one spelling. */
static bool decode_base64(uint8_t *text, size_t len, size_t *ret_len)
{
    size_t digits = len;
    while (digits > 0 && len - digits < 2 && text[digits - 1] == '=')
        digits--;
    if (digits % 4 == 1 || (digits < len && len % 4 != 0))
        return false;
    uint32_t word = 0;
    unsigned bits = 0;
    uint8_t *out = text;
    for (size_t i = 0; i < digits; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0)
            return false;
        word = word << 6 | (uint32_t)digit;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *out++ = (uint8_t)(word >> bits);
            word &= (1u << bits) - 1;
        }
    }
    *ret_len = (size_t)(out - text);
    return word == 0;
}

static enum amp_code read_bytes(struct reader *r, enum strict_token token, ProtobufCBinaryData *ret,
                                const struct path *path)
{
    if (token != STRICT_STRING)
        return wrong_kind(r, path, "a base64 string", token);
    char *text = NULL;
    enum amp_code code = copy_string(r, path, &text);
    if (code != AMP_OK || !text)
        return code;
    ret->data = (uint8_t *)text;
    if (!decode_base64(ret->data, r->s.text_len, &ret->len))
        return path_error(r->err, AMP_INVALID, path, "this is not base64");
    return AMP_OK;
}

/* -?(0|[1-9][0-9]*) with a magnitude that fits 64 bits. */
static bool parse_integer(const uint8_t *p, size_t len, bool *ret_is_negative, uint64_t *ret_magnitude)
{
    const uint8_t *end = p + len;
    *ret_is_negative = p < end && *p == '-';
    p += *ret_is_negative;
    if (p == end || (*p == '0' && end - p > 1))
        return false;
    uint64_t value = 0;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
    }
    *ret_magnitude = value;
    return true;
}

static enum amp_code read_integer(struct reader *r, enum strict_token token, const ProtobufCFieldDescriptor *field,
                                  void *ret, const struct path *path)
{
    bool is_signed = field->type == PROTOBUF_C_TYPE_INT32 || field->type == PROTOBUF_C_TYPE_INT64 ||
                     field->type == PROTOBUF_C_TYPE_ENUM;
    bool is_wide = field->type == PROTOBUF_C_TYPE_INT64 || field->type == PROTOBUF_C_TYPE_UINT64;
    if (token != STRICT_NUMBER && token != STRICT_STRING)
        return wrong_kind(r, path, "an integer", token);
    bool is_negative;
    uint64_t magnitude;
    if (!parse_integer(r->s.data, r->s.len, &is_negative, &magnitude))
        return path_error(r->err, AMP_INVALID, path, "this is not an integer of 64 bits");
    if (token == STRICT_NUMBER && magnitude > EXACT_MAX)
        return path_error(r->err, AMP_INVALID, path, "a number beyond 2^53 must be written as a string");
    uint64_t max = is_wide ? UINT64_MAX : UINT32_MAX;
    if (is_signed)
        max = max / 2 + is_negative;
    else if (is_negative && magnitude > 0)
        return path_error(r->err, AMP_INVALID, path, "this number may not be negative");
    if (magnitude > max)
        return path_error(r->err, AMP_INVALID, path, "this number is out of range");
    uint64_t value = is_negative ? -magnitude : magnitude;
    if (is_wide)
        *(uint64_t *)ret = value;
    else
        *(uint32_t *)ret = (uint32_t)value;
    return AMP_OK;
}

static enum amp_code read_enum(struct reader *r, enum strict_token token, const ProtobufCFieldDescriptor *field,
                               int *ret, const struct path *path)
{
    const ProtobufCEnumDescriptor *type = field->descriptor;
    const ProtobufCEnumValue *row = NULL;
    if (token == STRICT_NUMBER) {
        enum amp_code code = read_integer(r, token, field, ret, path);
        if (code != AMP_OK)
            return code;
        row = protobuf_c_enum_descriptor_get_value(type, *ret);
    } else if (token == STRICT_STRING && r->s.text_len < KEY_SIZE) {
        char name[KEY_SIZE];
        name[strict_unescape(r->s.data, r->s.len, (uint8_t *)name)] = '\0';
        row = protobuf_c_enum_descriptor_get_value_by_name(type, name);
    } else if (token != STRICT_STRING) {
        return wrong_kind(r, path, "a name", token);
    }
    if (!row)
        return path_error(r->err, AMP_INVALID, path, "this is no value of %s", type->short_name);
    *ret = row->value;
    return AMP_OK;
}

/* The source text of a whole value, without the white space between its tokens. */
static enum amp_code read_json(struct reader *r, enum strict_token token, Amp__Json *ret, const struct path *path)
{
    struct strict *s = &r->s;
    const uint8_t *begin = s->begin;
    size_t n_spaces = s->n_spaces;
    if (!strict_skip(s, token))
        return path_blame(r->err, s->code, path);
    size_t len = (size_t)(s->p - begin);
    ret->text.data = arena_alloc_raw(r->arena, len);
    if (!ret->text.data)
        return no_memory(r, path);
    ret->text.len = len;
    if (s->n_spaces != n_spaces)
        ret->text.len = strict_compact(begin, len, ret->text.data);
    else
        memcpy(ret->text.data, begin, len);
    return AMP_OK;
}

static enum amp_code read_timestamp(struct reader *r, enum strict_token token, Amp__Timestamp *ret,
                                    const struct path *path)
{
    char text[KEY_SIZE];
    if (token != STRICT_STRING)
        return wrong_kind(r, path, "a time", token);
    size_t len = r->s.text_len < sizeof(text) ? strict_unescape(r->s.data, r->s.len, (uint8_t *)text) : 0;
    text[len] = '\0';
    if (amp_time_parse(text, &ret->unix_ms) != AMP_OK)
        return path_error(r->err, AMP_INVALID, path, "this is no time as RFC 3339 writes it");
    return AMP_OK;
}

/* Takes the value that begins with `token` as a message, which may be one of the two that are no JSON objects. */
static enum amp_code read_any_message(struct reader *r, enum strict_token token, const ProtobufCMessageDescriptor *type,
                                      ProtobufCMessage **ret, const struct path *path)
{
    bool is_json = type == &amp__json__descriptor, is_time = type == &amp__timestamp__descriptor;
    if (!is_json && !is_time && token != STRICT_OBJECT)
        return wrong_kind(r, path, "an object", token);
    ProtobufCMessage *message = arena_alloc_raw(r->arena, type->sizeof_message);
    if (!message)
        return no_memory(r, path);
    protobuf_c_message_init(type, message);
    *ret = message;
    if (is_json)
        return read_json(r, token, (Amp__Json *)message, path);
    if (is_time)
        return read_timestamp(r, token, (Amp__Timestamp *)message, path);
    return read_message(r, type, ret, path);
}

static enum amp_code read_value(struct reader *r, enum strict_token token, const ProtobufCFieldDescriptor *field,
                                void *ret, const struct path *path)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return token == STRICT_STRING ? copy_string(r, path, ret) : wrong_kind(r, path, "a string", token);
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_any_message(r, token, field->descriptor, ret, path);
    case PROTOBUF_C_TYPE_BYTES:
        return read_bytes(r, token, ret, path);
    case PROTOBUF_C_TYPE_BOOL:
        if (token != STRICT_TRUE && token != STRICT_FALSE)
            return wrong_kind(r, path, "true or false", token);
        *(protobuf_c_boolean *)ret = token == STRICT_TRUE;
        return AMP_OK;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(r, token, field, ret, path);
    default:
        return read_integer(r, token, field, ret, path);
    }
}

static enum amp_code read_list(struct reader *r, const ProtobufCFieldDescriptor *field, ProtobufCMessage *message,
                               struct path *path)
{
    size_t size = field_size(field), n = 0, cap = 0;
    char *elements = NULL;
    for (enum strict_token token; (token = strict_next(&r->s)) != STRICT_ARRAY_END; n++) {
        path->index = n;
        if (token == STRICT_ERROR)
            return wrong_kind(r, path, "a value", token);
        if (n == cap) {
            cap = cap ? cap * 2 : 4;
            char *grown = arena_alloc_raw(r->arena, cap * size);
            if (!grown)
                return no_memory(r, path);
            if (n > 0)
                memcpy(grown, elements, n * size);
            elements = grown;
        }
        enum amp_code code = read_value(r, token, field, elements + n * size, path);
        if (code != AMP_OK)
            return code;
    }
    *(size_t *)field_quantifier(field, message) = n;
    *(char **)field_at(field, message) = elements;
    return AMP_OK;
}

/* *ret_is_set: was it anything but null? */
static enum amp_code read_field(struct reader *r, const ProtobufCFieldDescriptor *field, ProtobufCMessage *message,
                                const struct path *up, bool *ret_is_set)
{
    struct path path = {.up = up, .name = field->name, .index = PATH_NO_INDEX};
    enum strict_token token = strict_next(&r->s);
    bool is_list = field->label == PROTOBUF_C_LABEL_REPEATED;
    *ret_is_set = token != STRICT_NULL || (field_is_json(field) && !is_list);
    if (!*ret_is_set)
        return AMP_OK;
    if (is_list)
        return token == STRICT_ARRAY ? read_list(r, field, message, &path) : wrong_kind(r, &path, "a list", token);
    if (field_is_oneof(field)) {
        uint32_t *chosen = field_quantifier(field, message);
        if (*chosen != 0)
            return path_error(r->err, AMP_INVALID, &path, "only one of the fields of this choice may be set");
        *chosen = field->id;
    } else if (field->label == PROTOBUF_C_LABEL_OPTIONAL && !field_is_pointer(field)) {
        *(protobuf_c_boolean *)field_quantifier(field, message) = true;
    }
    return read_value(r, token, field, field_at(field, message), &path);
}

/* Is `key` the field's name, as in the .proto or in lowerCamelCase? */
static bool is_named(const char *name, const char *key, size_t len)
{
    if (name[0] != key[0])
        return false;
    if (strncmp(name, key, len) == 0 && name[len] == '\0')
        return true;
    size_t i = 0;
    for (; *name && i < len; name++, i++) {
        bool is_upper = *name == '_' && name[1] >= 'a' && name[1] <= 'z';
        if (key[i] != (is_upper ? *++name - 'a' + 'A' : *name))
            return false;
    }
    return *name == '\0' && i == len;
}

/* Index of the field that the current KEY names, n_fields if it is unknown. `hint`: where to look first. */
static unsigned find_field(const struct strict *s, const ProtobufCMessageDescriptor *type, unsigned hint)
{
    char unescaped[KEY_SIZE];
    const char *key = (const char *)s->data;
    if (s->text_len == 0 || s->text_len >= KEY_SIZE)
        return type->n_fields;
    if (s->text_len != s->len) {
        strict_unescape(s->data, s->len, (uint8_t *)unescaped);
        key = unescaped;
    }
    for (unsigned i = 0; i < type->n_fields; i++) {
        unsigned at = hint + i < type->n_fields ? hint + i : hint + i - type->n_fields;
        if (is_named(type->fields[at].name, key, s->text_len))
            return at;
    }
    return type->n_fields;
}

static enum amp_code check_required(struct reader *r, const ProtobufCMessageDescriptor *type,
                                    const ProtobufCMessage *message, uint64_t seen, const struct path *up)
{
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (field->label != PROTOBUF_C_LABEL_REQUIRED || (seen >> i & 1))
            continue;
        struct path path = {.up = up, .name = field->name, .index = PATH_NO_INDEX};
        return path_error(r->err, AMP_INVALID, &path, "this field is required");
    }
    return AMP_OK;
}

/* Behind the opening brace; *ret is initialised. */
static enum amp_code read_message(struct reader *r, const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret,
                                  const struct path *path)
{
    assert(type->n_fields <= JSON_FIELDS_MAX);
    uint64_t named = 0, seen = 0;
    unsigned hint = 0;
    for (enum strict_token token; (token = strict_next(&r->s)) != STRICT_OBJECT_END;) {
        if (token != STRICT_KEY)
            return wrong_kind(r, path, "a member", token);
        unsigned i = find_field(&r->s, type, hint);
        if (i == type->n_fields) {
            if (!strict_skip(&r->s, strict_next(&r->s)))
                return path_blame(r->err, r->s.code, path);
            continue;
        }
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        struct path field_path = {.up = path, .name = field->name, .index = PATH_NO_INDEX};
        if (named >> i & 1)
            return path_error(r->err, AMP_MALFORMED, &field_path, "this member is there twice");
        named |= UINT64_C(1) << i;
        bool is_set;
        enum amp_code code = read_field(r, field, *ret, path, &is_set);
        if (code != AMP_OK)
            return code;
        seen |= (uint64_t)is_set << i;
        hint = i + 1 < type->n_fields ? i + 1 : 0;
    }
    return check_required(r, type, *ret, seen, path);
}

enum amp_code json_read(const ProtobufCMessageDescriptor *type, struct amp_bytes json, struct amp_arena *arena,
                        ProtobufCMessage **ret, struct amp_error *reterr)
{
    struct reader r;
    r.arena = arena;
    r.err = reterr;
    strict_init(&r.s, json, &amp_json_limits_default, reterr);
    enum amp_code code = read_any_message(&r, strict_next(&r.s), type, ret, NULL);
    if (code == AMP_OK && strict_next(&r.s) != STRICT_END)
        code = r.s.code;
    strict_done(&r.s);
    return code;
}
