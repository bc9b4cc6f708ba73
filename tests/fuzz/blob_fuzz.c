/* Anything as the answers to a blob's reads: each record of the input is a length byte and an envelope. Whatever comes, no more is kept than was asked for, in order, and no more than the blob has. */
#include "base/blob_pull.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amp_blob_ref ref = {.digest = "sha256-0000000000000000000000000000000000000000000000000000000000000000", .holder = "i-1", .size = size > 0 ? data[0] : 0};
    struct blob_pull pull;
    struct blob_pull_read read;
    struct amp_arena arena;
    struct amp_error err;
    int64_t now_ms = 0;
    uint64_t kept = 0;
    blob_pull_init(&pull, &ref, now_ms);
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    for (size_t at = 1; at < size;) {
        size_t len = data[at++];
        len = len < size - at ? len : size - at;
        Amp__Envelope *envelope;
        struct amp_bytes piece;
        while (blob_pull_next(&pull, now_ms, &read))
            assert(read.length > 0 && read.offset + read.length <= ref.size);
        amp_arena_reset(&arena);
        if (amp_envelope_decode((struct amp_bytes){data + at, len}, 1u << AMP__ENVELOPE__BODY_BLOB, &arena, &envelope, NULL, &err) == AMP_OK) {
            if (blob_pull_take(&pull, envelope->blob, now_ms, &piece, &err) != AMP_OK)
                break;
            kept += piece.len;
        }
        assert(kept == pull.received && kept <= ref.size && pull.received <= pull.asked && pull.asked <= ref.size);
        at += len;
        now_ms += 300;
        if (blob_pull_look(&pull, now_ms, &err) != AMP_OK)
            break;
    }
    amp_arena_done(&arena);
    return 0;
}
