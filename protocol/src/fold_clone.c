/* To pack and unpack a message copies it too, but measures it and reads it again: half of what a fold cost; and each string of it would be a piece of malloc's. The same walk measures first, and
 * then copies. */
#include "fold_clone.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "json.h"

#define PIECE_ALIGN 16u

struct piece {
    size_t size;
    bool is_in_room;
    _Alignas(PIECE_ALIGN) uint8_t data[];
};

static struct piece *piece_of(const void *data)
{
    return (struct piece *)(void *)((uint8_t *)data - offsetof(struct piece, data));
}

void *fold_piece(struct amp_arena *room, size_t size)
{
    struct piece *piece = arena_alloc_raw(room, sizeof(*piece) + size);
    bool is_in_room = piece != NULL;
    if (!piece)
        piece = malloc(sizeof(*piece) + size);
    if (!piece)
        return NULL;
    piece->size = size;
    piece->is_in_room = is_in_room;
    return piece->data;
}

void fold_piece_free(void *piece)
{
    if (piece && !piece_of(piece)->is_in_room)
        free(piece_of(piece));
}

bool fold_piece_holds(const void *piece, const void *at)
{
    return (uintptr_t)at - (uintptr_t)piece < piece_of(piece)->size;
}

char *fold_clone_text(const char *text, struct amp_arena *room)
{
    size_t size = strlen(text) + 1;
    char *copy = fold_piece(room, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

struct copy {
    uint8_t *to; /* NULL: it is only measured */
    size_t used;
};

static void *put(struct copy *copy, const void *data, size_t size)
{
    uint8_t *at = copy->to ? copy->to + copy->used : NULL;
    if (at && size > 0)
        memcpy(at, data, size);
    copy->used += (size + PIECE_ALIGN - 1) & ~(size_t)(PIECE_ALIGN - 1);
    return at;
}

static void *put_message(struct copy *copy, const ProtobufCMessage *message);

/* `made` is the place of the value in the copy, which has the bytes of `value` so far; NULL when it is measured. */
static void put_value(struct copy *copy, const ProtobufCFieldDescriptor *field, const void *value, void *made)
{
    void *at;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)value;
        at = text ? put(copy, text, strlen(text) + 1) : NULL;
        break;
    }
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *message = *(ProtobufCMessage *const *)value;
        at = message ? put_message(copy, message) : NULL;
        break;
    }
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *bytes = value;
        at = put(copy, bytes->data, bytes->len);
        made = made ? &((ProtobufCBinaryData *)made)->data : NULL;
        break;
    }
    default:
        return;
    }
    if (made)
        memcpy(made, &at, sizeof(at));
}

static void put_list(struct copy *copy, const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message, ProtobufCMessage *made)
{
    size_t count = *(const size_t *)field_quantifier(field, message), size = field_size(field);
    const char *from = *(char *const *)field_at(field, message);
    char *list = count > 0 ? put(copy, from, count * size) : NULL;
    for (size_t i = 0; i < count; i++)
        put_value(copy, field, from + i * size, list ? list + i * size : NULL);
    if (made)
        memcpy(field_at(field, made), &list, sizeof(list));
}

static void put_field(struct copy *copy, const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message, ProtobufCMessage *made)
{
    void *at = made ? field_at(field, made) : NULL;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        put_list(copy, field, message, made);
    else if (field_is_set(field, message))
        put_value(copy, field, field_at(field, message), at);
    else if (made && field->type == PROTOBUF_C_TYPE_BYTES && !field_is_oneof(field))
        memset(at, 0, sizeof(ProtobufCBinaryData)); /* of a choice that is not made the place belongs to another field */
}

static void *put_message(struct copy *copy, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    const ProtobufCMessageUnknownField *unknown = message->unknown_fields;
    unsigned n_unknown = message->n_unknown_fields;
    ProtobufCMessage *made = put(copy, message, type->sizeof_message);
    ProtobufCMessageUnknownField *fields = n_unknown > 0 ? put(copy, unknown, n_unknown * sizeof(*unknown)) : NULL;
    for (unsigned i = 0; i < n_unknown; i++) {
        uint8_t *data = put(copy, unknown[i].data, unknown[i].len);
        if (fields)
            fields[i].data = data;
    }
    if (made)
        made->unknown_fields = fields;
    for (unsigned i = 0; i < type->n_fields; i++)
        put_field(copy, &type->fields[i], message, made);
    return made;
}

void *fold_clone(const ProtobufCMessage *message, struct amp_arena *room)
{
    struct copy copy = {0};
    (void)put_message(&copy, message);
    size_t size = copy.used;
    copy = (struct copy){.to = fold_piece(room, size)};
    if (!copy.to)
        return NULL;
    void *made = put_message(&copy, message);
    assert(copy.used == size);
    return made;
}
