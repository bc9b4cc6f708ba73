/* Any bytes as a stream of events, in two kinds of pieces: what comes out is the same, valid text within its bound. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/sse.h"

enum { EVENT_MAX = 200 };

struct seen {
    uint64_t sum;
    unsigned count;
};

static void mix(uint64_t *sum, const char *text)
{
    for (; *text; text++)
        *sum = *sum * 31 + (unsigned char)*text;
    *sum = *sum * 31 + 256;
}

static bool on_event(void *ctx, const struct sse_event *event)
{
    struct seen *seen = ctx;
    assert(strlen(event->data) <= EVENT_MAX && amp_utf8_is_valid(amp_bytes_of(event->data)) && *event->name);
    mix(&seen->sum, event->name);
    mix(&seen->sum, event->data);
    mix(&seen->sum, event->id);
    return ++seen->count < 1000;
}

static struct seen run(const uint8_t *data, size_t size, size_t piece)
{
    struct sse sse;
    struct seen seen = {0};
    struct amp_error err;
    sse_init(&sse, EVENT_MAX, on_event, &seen);
    for (size_t at = 0; at < size && seen.count < 1000; at += piece)
        if (sse_feed(&sse, (struct amp_bytes){data + at, size - at < piece ? size - at : piece}, &err) != AMP_OK)
            break;
    sse_done(&sse);
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct seen whole = run(data + 1, size - 1, size), pieces = run(data + 1, size - 1, data[0] % 16 + 1u);
    assert(whole.sum == pieces.sum && whole.count == pieces.count);
    return 0;
}
