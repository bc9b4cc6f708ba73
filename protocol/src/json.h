/* Messages ↔ canonical JSON by protobuf-c's descriptors, and what both directions know about a field. (amp.md 3) */
#pragma once

#include <amp/amp.h>

#include "path.h"

#define JSON_FIELDS_MAX 64u /* of one message type: they are counted in one word */

/* Appends the canonical JSON. `own`: see amp_encode_own. */
enum amp_code json_write(const ProtobufCMessage *message, struct amp_bytes own, struct amp_buf *out, struct amp_error *reterr);
/* Reads one JSON document as a message of `type` into the arena. */
enum amp_code json_read(const ProtobufCMessageDescriptor *type, struct amp_bytes json, struct amp_arena *arena,
                        ProtobufCMessage **ret, struct amp_error *reterr);

/* Does amp_decode take bytes that begin with `first` as JSON? (codec.c) */
bool codec_is_json(const ProtobufCMessageDescriptor *type, uint8_t first);

static inline void *field_at(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    return (char *)(uintptr_t)message + field->offset;
}

/* The bool of an optional scalar, the size_t of a repeated field or the case of a oneof. */
static inline void *field_quantifier(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    return (char *)(uintptr_t)message + field->quantifier_offset;
}

static inline bool field_is_oneof(const ProtobufCFieldDescriptor *field)
{
    return field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
}

/* Strings and messages are pointers, so NULL says that they are absent. */
static inline bool field_is_pointer(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE;
}

static inline bool field_is_json(const ProtobufCFieldDescriptor *field)
{
    return field->descriptor == &amp__json__descriptor;
}

/* Bytes of one element in memory. */
size_t field_size(const ProtobufCFieldDescriptor *field);
/* Is there a value (of a repeated field: at least one)? */
bool field_is_set(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message);
