/* To pack and unpack a message copies it too, but measures it and reads it again: half of what a fold cost. */
#include "fold_clone.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"

static void *copy_bytes(const void *data, size_t len)
{
    void *copy = calloc(1, len ? len : 1);
    if (copy && len > 0)
        memcpy(copy, data, len);
    return copy;
}

/* The value has the other message's pointer: it is replaced by a copy, or by NULL when memory is gone. */
static bool clone_value(const ProtobufCFieldDescriptor *field, void *value)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING: {
        char **text = value;
        *text = *text ? strdup(*text) : NULL;
        return *text != NULL;
    }
    case PROTOBUF_C_TYPE_MESSAGE: {
        ProtobufCMessage **message = value;
        *message = *message ? fold_clone(*message) : NULL;
        return *message != NULL;
    }
    case PROTOBUF_C_TYPE_BYTES: {
        ProtobufCBinaryData *bytes = value;
        bytes->data = copy_bytes(bytes->data, bytes->len);
        bytes->len = bytes->data ? bytes->len : 0;
        return bytes->data != NULL;
    }
    default:
        return true;
    }
}

static bool clone_list(const ProtobufCFieldDescriptor *field, ProtobufCMessage *made)
{
    size_t *n = field_quantifier(field, made), size = field_size(field), count = *n;
    char **list = field_at(field, made);
    *n = 0;
    *list = count > 0 ? copy_bytes(*list, count * size) : NULL;
    if (!*list)
        return count == 0;
    while (*n < count && clone_value(field, *list + *n * size))
        (*n)++;
    return *n == count;
}

/* Of a choice that is not made the place belongs to another field. */
static void clear(const ProtobufCFieldDescriptor *field, ProtobufCMessage *made)
{
    if (field_is_oneof(field) && !field_is_set(field, made))
        return;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        *(size_t *)field_quantifier(field, made) = 0;
        *(void **)field_at(field, made) = NULL;
    } else if (field_is_pointer(field)) {
        *(void **)field_at(field, made) = NULL;
    } else if (field->type == PROTOBUF_C_TYPE_BYTES) {
        *(ProtobufCBinaryData *)field_at(field, made) = (ProtobufCBinaryData){0};
    }
}

static bool clone_field(const ProtobufCFieldDescriptor *field, ProtobufCMessage *made)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return clone_list(field, made);
    if (field_is_set(field, made))
        return clone_value(field, field_at(field, made));
    clear(field, made);
    return true;
}

static bool clone_unknown(ProtobufCMessage *made)
{
    unsigned count = made->n_unknown_fields;
    const ProtobufCMessageUnknownField *from = made->unknown_fields;
    made->n_unknown_fields = 0;
    made->unknown_fields = count > 0 ? copy_bytes(from, count * sizeof(*from)) : NULL;
    if (!made->unknown_fields)
        return count == 0;
    for (unsigned i = 0; i < count; i++) {
        made->unknown_fields[i].data = copy_bytes(from[i].data, from[i].len);
        if (!made->unknown_fields[i].data)
            return false;
        made->n_unknown_fields = i + 1;
    }
    return true;
}

void *fold_clone(const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    ProtobufCMessage *made = copy_bytes(message, type->sizeof_message);
    if (!made)
        return NULL;
    bool is_whole = clone_unknown(made);
    for (unsigned i = 0; i < type->n_fields; i++) {
        if (is_whole)
            is_whole = clone_field(&type->fields[i], made);
        else
            clear(&type->fields[i], made);
    }
    if (is_whole)
        return made;
    protobuf_c_message_free_unpacked(made, NULL);
    return NULL;
}
