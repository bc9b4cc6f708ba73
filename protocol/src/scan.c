/* The look before unpacking. protobuf-c 1.4 accepts invalid UTF-8 and NUL in strings, cuts integers off, and overflows
 * the stack on deep nesting; and it leaves to us what depends on our limits. Recursion is bounded by AMP_DEPTH_MAX. */
#include "scan.h"

#include "json.h"
#include "rfc3339.h"

#include <assert.h>
#include <string.h>

#define VARINT_BYTES_MAX 10u
#define TAG_MAX ((1u << 29) - 1)

struct scan {
    struct amp_error *err;
};

struct cursor {
    const uint8_t *p, *end;
};

/* One field as it stands in the bytes. */
struct wire_field {
    uint32_t tag;
    unsigned wire_type;
    uint64_t value;         /* VARINT */
    struct amp_bytes bytes; /* LENGTH_PREFIXED */
};

static bool read_varint(struct cursor *c, uint64_t *ret)
{
    if (c->p < c->end && *c->p < 0x80) {
        *ret = *c->p++;
        return true;
    }
    uint64_t value = 0;
    for (unsigned i = 0; i < VARINT_BYTES_MAX && c->p < c->end; i++) {
        uint8_t byte = *c->p++;
        if (i == VARINT_BYTES_MAX - 1 && byte > 1)
            return false;
        value |= (uint64_t)(byte & 0x7F) << (7 * i);
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
    }
    return false;
}

/* What is wrong with the next field, NULL if nothing. */
static const char *read_wire_field(struct cursor *c, struct wire_field *ret)
{
    uint64_t key, len;
    if (!read_varint(c, &key) || key >> 3 == 0 || key >> 3 > TAG_MAX)
        return "no field number";
    *ret = (struct wire_field){.tag = (uint32_t)(key >> 3), .wire_type = key & 7};
    size_t left;
    switch (ret->wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return read_varint(c, &ret->value) ? NULL : "no varint";
    case PROTOBUF_C_WIRE_TYPE_64BIT:
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        len = ret->wire_type == PROTOBUF_C_WIRE_TYPE_64BIT ? 8 : 4;
        left = (size_t)(c->end - c->p);
        if (left < len)
            return "a number that is cut off";
        c->p += len;
        return NULL;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!read_varint(c, &len))
            return "no length";
        left = (size_t)(c->end - c->p);
        if (len > left)
            return "a length past the end";
        ret->bytes = (struct amp_bytes){.data = c->p, .len = (size_t)len};
        c->p += len;
        return NULL;
    default:
        return "a wire type that is not used here";
    }
}

static unsigned wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

static bool is_in_range(const ProtobufCFieldDescriptor *field, uint64_t value)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_BOOL:
        return value <= 1;
    case PROTOBUF_C_TYPE_UINT32:
        return value <= UINT32_MAX;
    case PROTOBUF_C_TYPE_INT32:
        return (int64_t)value >= INT32_MIN && (int64_t)value <= INT32_MAX;
    case PROTOBUF_C_TYPE_ENUM:
        return value <= INT32_MAX && protobuf_c_enum_descriptor_get_value(field->descriptor, (int)value);
    default:
        assert(field->type == PROTOBUF_C_TYPE_INT64 || field->type == PROTOBUF_C_TYPE_UINT64);
        return true;
    }
}

static enum amp_code scan_message(struct scan *scan, const ProtobufCMessageDescriptor *type, struct amp_bytes wire,
                                  unsigned depth, const struct path *up);

static enum amp_code scan_json(struct scan *scan, struct amp_bytes text, unsigned depth, const struct path *path)
{
    struct amp_json_limits limits = amp_json_limits_default;
    limits.depth_max -= depth;
    enum amp_code code = amp_json_check(text, &limits, scan->err);
    return code == AMP_OK ? AMP_OK : path_blame(scan->err, code, path);
}

/* One known value. `depth`: of the message it belongs to. */
static enum amp_code scan_value(struct scan *scan, const ProtobufCFieldDescriptor *field,
                                const struct wire_field *value, unsigned depth, const struct path *path)
{
    if (value->wire_type != wire_type_of(field->type))
        return path_error(scan->err, AMP_MALFORMED, path, "the wire type is not the field's");
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        if (value->bytes.len > 0 && memchr(value->bytes.data, '\0', value->bytes.len))
            return path_error(scan->err, AMP_MALFORMED, path, "a NUL in a string");
        if (!amp_utf8_is_valid(value->bytes))
            return path_error(scan->err, AMP_MALFORMED, path, "invalid UTF-8");
        return AMP_OK;
    case PROTOBUF_C_TYPE_BYTES:
        return AMP_OK;
    case PROTOBUF_C_TYPE_MESSAGE:
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            depth++;
        return scan_message(scan, field->descriptor, value->bytes, depth, path);
    default:
        if (!is_in_range(field, value->value))
            return path_error(scan->err, AMP_INVALID, path, "this value is out of range");
        return AMP_OK;
    }
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *type, uint32_t tag, unsigned hint)
{
    for (unsigned i = hint; i < hint + 2 && i < type->n_fields; i++)
        if (type->fields[i].id == tag)
            return &type->fields[i];
    return protobuf_c_message_descriptor_get_field(type, tag);
}

/* The members of a choice share the place of their case. */
static bool is_choice_made(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field,
                           const uint16_t *counts)
{
    for (unsigned i = 0; i < type->n_fields; i++)
        if (counts[i] > 0 && field_is_oneof(&type->fields[i]) &&
            type->fields[i].quantifier_offset == field->quantifier_offset)
            return true;
    return false;
}

static enum amp_code count_field(struct scan *scan, const ProtobufCMessageDescriptor *type, unsigned i,
                                 uint16_t *counts, const struct path *path)
{
    const ProtobufCFieldDescriptor *field = &type->fields[i];
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        if (counts[i] >= AMP_MEMBERS_MAX)
            return path_error(scan->err, AMP_TOO_LARGE, path, "more than %u elements", AMP_MEMBERS_MAX);
    } else if (counts[i] > 0) {
        return path_error(scan->err, AMP_MALFORMED, path, "this field is there twice");
    } else if (field_is_oneof(field) && is_choice_made(type, field, counts)) {
        return path_error(scan->err, AMP_INVALID, path, "only one of the fields of this choice may be set");
    }
    counts[i]++;
    return AMP_OK;
}

static enum amp_code check_required(struct scan *scan, const ProtobufCMessageDescriptor *type, const uint16_t *counts,
                                    const struct path *up)
{
    for (unsigned i = 0; i < type->n_fields; i++)
        if (type->fields[i].label == PROTOBUF_C_LABEL_REQUIRED && counts[i] == 0)
            return path_error(scan->err, AMP_INVALID, &(struct path){up, type->fields[i].name, PATH_NO_INDEX},
                              "this field is required");
    return AMP_OK;
}

/* What the descriptor cannot say of the two types that are no objects in JSON. `depth`: levels around the value. */
static enum amp_code scan_special(struct scan *scan, const ProtobufCMessageDescriptor *type,
                                  const struct wire_field *value, unsigned depth, const struct path *path)
{
    if (type == &amp__json__descriptor)
        return scan_json(scan, value->bytes, depth, path);
    if (type == &amp__timestamp__descriptor && !time_is_in_range((int64_t)value->value))
        return path_error(scan->err, AMP_INVALID, path, "this time is outside of the years 1 to 9999");
    return AMP_OK;
}

/* `depth`: levels of JSON around this message. */
static enum amp_code scan_message(struct scan *scan, const ProtobufCMessageDescriptor *type, struct amp_bytes wire,
                                  unsigned depth, const struct path *up)
{
    bool is_object = type != &amp__json__descriptor && type != &amp__timestamp__descriptor;
    if (depth + is_object > AMP_DEPTH_MAX)
        return path_error(scan->err, AMP_TOO_DEEP, up, "more than %u levels", AMP_DEPTH_MAX);
    assert(type->n_fields <= JSON_FIELDS_MAX);
    uint16_t counts[JSON_FIELDS_MAX];
    memset(counts, 0, type->n_fields * sizeof(counts[0]));
    unsigned n_unknown = 0, hint = 0;
    struct cursor c = {.p = wire.data, .end = wire.data + wire.len};
    while (c.p < c.end) {
        struct wire_field value;
        const char *wrong = read_wire_field(&c, &value);
        if (wrong)
            return path_error(scan->err, AMP_MALFORMED, up, "%s", wrong);
        const ProtobufCFieldDescriptor *field = find_field(type, value.tag, hint);
        if (!field) {
            if (++n_unknown > AMP_MEMBERS_MAX)
                return path_error(scan->err, AMP_TOO_LARGE, up, "more than %u unknown fields", AMP_MEMBERS_MAX);
            continue;
        }
        hint = (unsigned)(field - type->fields);
        struct path path = {up, field->name, PATH_NO_INDEX};
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            path.index = counts[hint];
        enum amp_code code = count_field(scan, type, hint, counts, &path);
        if (code == AMP_OK)
            code = scan_value(scan, field, &value, depth + is_object, &path);
        if (code == AMP_OK && !is_object)
            code = scan_special(scan, type, &value, depth, up);
        if (code != AMP_OK)
            return code;
    }
    return check_required(scan, type, counts, up);
}

enum amp_code scan_protobuf(const ProtobufCMessageDescriptor *type, struct amp_bytes wire, struct amp_error *reterr)
{
    struct scan scan = {.err = reterr};
    return scan_message(&scan, type, wire, 0, NULL);
}

bool scan_may_begin(const ProtobufCMessageDescriptor *type, uint8_t byte)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, byte >> 3);
    return field && (byte & 7u) == wire_type_of(field->type);
}
