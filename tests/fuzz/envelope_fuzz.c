/* Anything as an envelope; what is taken survives a round trip in its own encoding and is taken again. */
#include <amp/amp.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amp_error err;
    struct amp_arena arena;
    struct amp_buf buf;
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    amp_buf_init(&buf, SIZE_MAX / 2);
    if (amp_envelope_decode((struct amp_bytes){data, size}, 0, &arena, &envelope, &encoding, &err) == AMP_OK) {
        if (amp_encode(&envelope->base, encoding, &buf, &err) != AMP_OK ||
            amp_envelope_decode(amp_buf_bytes(&buf), 1u << (unsigned)envelope->body_case, &arena, &envelope, &encoding,
                                &err) != AMP_OK)
            abort();
    }
    amp_buf_done(&buf);
    amp_arena_done(&arena);
    return 0;
}
