/* Any bytes on the local API's NDJSON side: the first byte of the input chooses the kind and how the rest is cut. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "base/json_room.h"
#include "base/loop.h"
#include "sidecar/session.h"

static struct session *session;

static void on_request(void *ctx, const char *method, const cJSON *params, const cJSON *id)
{
    if (id && session_reply(session, id, (struct amp_bytes){0}) != AMP_OK)
        session_close(session, "full");
}

static void on_reply(void *ctx, uint64_t number, const cJSON *result, const cJSON *error)
{
    if (number == 0 || (!result && !error))
        abort();
}

static void on_text(void *ctx, struct amp_bytes line)
{
}

static void on_closed(void *ctx, const char *reason)
{
    if (!reason)
        abort();
}

static enum amp_code write_out(void *ctx, struct amp_bytes data)
{
    /* What leaves is whole lines. */
    if (data.len == 0 || data.data[data.len - 1] != '\n')
        abort();
    return AMP_OK;
}

static void on_tick(void *ctx)
{
    loop_stop(ctx, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct session_handlers handlers = {.on_request = on_request, .on_reply = on_reply, .on_text = on_text, .on_closed = on_closed};
    if (size == 0)
        return 0;
    json_room_install();
    struct loop *loop = loop_new();
    struct loop_tick *tick = loop_tick_new(loop, on_tick, loop);
    size_t piece = (data[0] >> 1) + 1u;
    session = session_new_fed(loop, data[0] & 1, &handlers, write_out, NULL);
    for (size_t at = 1; at < size; at += piece)
        session_feed(session, (struct amp_bytes){data + at, size - at < piece ? size - at : piece});
    loop_tick_request(tick);
    (void)loop_run(loop);
    session_feed(session, (struct amp_bytes){NULL, 0});
    session_free(session);
    loop_tick_free(tick);
    loop_free(loop);
    return 0;
}
