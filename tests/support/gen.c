/* One walk over protobuf-c's descriptors makes messages of every type. */
#include "gen.h"

#include <assert.h>
#include <string.h>

const ProtobufCMessageDescriptor *const gen_types[] = {
    &amp__json__descriptor,
    &amp__timestamp__descriptor,
    &amp__part__descriptor,
    &amp__message__descriptor,
    &amp__artifact__descriptor,
    &amp__task_status__descriptor,
    &amp__task__descriptor,
    &amp__task_status_update_event__descriptor,
    &amp__task_artifact_update_event__descriptor,
    &amp__stream_response__descriptor,
    &amp__agent_interface__descriptor,
    &amp__agent_provider__descriptor,
    &amp__agent_extension__descriptor,
    &amp__agent_capabilities__descriptor,
    &amp__agent_skill__descriptor,
    &amp__agent_card_signature__descriptor,
    &amp__agent_card__descriptor,
    &amp__death__descriptor,
    &amp__error__descriptor,
    &amp__event__descriptor,
    &amp__end__descriptor,
    &amp__frame__descriptor,
    &amp__request__descriptor,
    &amp__cancel__descriptor,
    &amp__answer__descriptor,
    &amp__ping__descriptor,
    &amp__control__descriptor,
    &amp__beat__descriptor,
    &amp__reply__descriptor,
    &amp__submit__descriptor,
    &amp__task_query__descriptor,
    &amp__watch__descriptor,
    &amp__task_command__descriptor,
    &amp__kv__descriptor,
    &amp__kv_entry__descriptor,
    &amp__agent_query__descriptor,
    &amp__env_request__descriptor,
    &amp__task_record__descriptor,
    &amp__instance__descriptor,
    &amp__agent_record__descriptor,
    &amp__env_info__descriptor,
    &amp__env_reply__descriptor,
    &amp__envelope__descriptor,
};
const size_t gen_types_count = sizeof(gen_types) / sizeof(gen_types[0]);

/* splitmix64 */
static uint64_t gen_next(struct gen *gen)
{
    uint64_t z = gen->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint32_t gen_below(struct gen *gen, uint32_t n)
{
    return (uint32_t)(gen_next(gen) % n);
}

static void *gen_alloc(struct gen *gen, size_t size)
{
    void *data = amp_arena_alloc(gen->arena, size ? size : 1);
    assert(data);
    return data;
}

static char *gen_string(struct gen *gen)
{
    static const char *const atoms[] = {"a",     "Z",       "0",  " ",    "\"",
                                        "\\",    "\n",      "\t", "\x01", "\x7f",
                                        "/",     "é",       "€",  "😀",    "\xE2\x80\xA8",
                                        "hello", "\\u0041", "{",  "]",    "long text without anything special in it"};
    char *text = gen_alloc(gen, 512);
    for (uint32_t n = gen_below(gen, 9); n > 0; n--)
        strcat(text, atoms[gen_below(gen, sizeof(atoms) / sizeof(atoms[0]))]);
    return text;
}

static void gen_bytes(struct gen *gen, ProtobufCBinaryData *ret)
{
    ret->len = gen_below(gen, 20);
    ret->data = gen_alloc(gen, ret->len);
    for (size_t i = 0; i < ret->len; i++)
        ret->data[i] = (uint8_t)gen_next(gen);
}

static void gen_json(struct gen *gen, ProtobufCBinaryData *ret)
{
    static const char *const documents[] = {
        "{}",
        "[]",
        "null",
        "true",
        "0",
        "-1.5e3",
        "9007199254740993",
        "\"\"",
        "\"a b\\u0041\"",
        "{\"a\":{\"b\":[1,2,{}]}}",
        "[[],[[]],\"x y\"]",
        "{\"\":null,\"k\":\"\\\"\"}",
    };
    const char *text = documents[gen_below(gen, sizeof(documents) / sizeof(documents[0]))];
    ret->len = strlen(text);
    ret->data = gen_alloc(gen, ret->len);
    memcpy(ret->data, text, ret->len);
}

static uint64_t gen_integer(struct gen *gen)
{
    static const uint64_t edges[] = {0, 1, 127, 128, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_C(1) << 53};
    return gen_below(gen, 2) ? gen_next(gen) : edges[gen_below(gen, sizeof(edges) / sizeof(edges[0]))];
}

static void gen_value(struct gen *gen, const ProtobufCFieldDescriptor *field, void *ret)
{
    const ProtobufCEnumDescriptor *type = field->descriptor;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)ret = gen_string(gen);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        gen_bytes(gen, ret);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)ret = gen_message(gen, field->descriptor);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        *(int *)ret = type->values[gen_below(gen, type->n_values)].value;
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)ret = (protobuf_c_boolean)gen_below(gen, 2);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        *(uint64_t *)ret = gen_integer(gen);
        break;
    default:
        assert(field->type == PROTOBUF_C_TYPE_INT32 || field->type == PROTOBUF_C_TYPE_UINT32);
        *(uint32_t *)ret = (uint32_t)gen_integer(gen);
        break;
    }
}

static size_t element_size(ProtobufCType type)
{
    return type == PROTOBUF_C_TYPE_BYTES ? sizeof(ProtobufCBinaryData) : sizeof(void *);
}

static void gen_field(struct gen *gen, const ProtobufCFieldDescriptor *field, ProtobufCMessage *message)
{
    char *base = (char *)message, *at = base + field->offset, *quantifier = base + field->quantifier_offset;
    if (field->label == PROTOBUF_C_LABEL_REQUIRED) {
        gen_value(gen, field, at);
    } else if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        assert(field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE);
        size_t n = gen_below(gen, 3);
        char *elements = gen_alloc(gen, n * element_size(field->type));
        for (size_t i = 0; i < n; i++)
            gen_value(gen, field, elements + i * element_size(field->type));
        *(size_t *)quantifier = n;
        *(char **)at = n ? elements : NULL;
    } else if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        if (*(uint32_t *)quantifier == 0 && gen_below(gen, 3) == 0) {
            *(uint32_t *)quantifier = field->id;
            gen_value(gen, field, at);
        }
    } else if (gen_below(gen, 3) == 0) {
        if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
            *(protobuf_c_boolean *)quantifier = 1;
        gen_value(gen, field, at);
    }
}

ProtobufCMessage *gen_message(struct gen *gen, const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *message = gen_alloc(gen, type->sizeof_message);
    protobuf_c_message_init(type, message);
    if (type == &amp__json__descriptor)
        gen_json(gen, &((Amp__Json *)message)->text);
    else if (type == &amp__timestamp__descriptor)
        ((Amp__Timestamp *)message)->unix_ms =
            (int64_t)(gen_next(gen) % INT64_C(300000000000000)) - INT64_C(60000000000000);
    else
        for (unsigned i = 0; i < type->n_fields; i++)
            gen_field(gen, &type->fields[i], message);
    return message;
}
