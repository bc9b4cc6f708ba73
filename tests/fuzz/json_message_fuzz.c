/* JSON → message → canonical JSON → message → the same canonical JSON, through both encodings. The first byte picks the
 * type. */
#include <amp/amp.h>
#include <stdlib.h>
#include <string.h>

static const ProtobufCMessageDescriptor *const types[] = {
    &amp__envelope__descriptor,   &amp__stream_response__descriptor, &amp__task__descriptor,
    &amp__agent_card__descriptor, &amp__env_reply__descriptor,       &amp__request__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const ProtobufCMessageDescriptor *type = types[data[0] % (sizeof(types) / sizeof(types[0]))];
    struct amp_error err;
    struct amp_arena arena;
    struct amp_buf first, second, packed;
    ProtobufCMessage *message;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    amp_buf_init(&first, SIZE_MAX / 2);
    amp_buf_init(&second, SIZE_MAX / 2);
    amp_buf_init(&packed, SIZE_MAX / 2);
    if (amp_decode_json(type, (struct amp_bytes){data + 1, size - 1}, &arena, &message, &err) == AMP_OK) {
        if (amp_encode(message, AMP_JSON, &first, &err) != AMP_OK ||
            amp_encode(message, AMP_PROTOBUF, &packed, &err) != AMP_OK)
            abort();
        if (packed.len > 0 && amp_decode(type, amp_buf_bytes(&packed), &arena, &message, &err) != AMP_OK)
            abort();
        if (amp_encode(message, AMP_JSON, &second, &err) != AMP_OK || first.len != second.len ||
            memcmp(first.data, second.data, first.len) != 0)
            abort();
        amp_buf_reset(&second);
        if (amp_decode_json(type, amp_buf_bytes(&first), &arena, &message, &err) != AMP_OK ||
            amp_encode(message, AMP_JSON, &second, &err) != AMP_OK || first.len != second.len ||
            memcmp(first.data, second.data, first.len) != 0)
            abort();
    }
    amp_buf_done(&first);
    amp_buf_done(&second);
    amp_buf_done(&packed);
    amp_arena_done(&arena);
    return 0;
}
