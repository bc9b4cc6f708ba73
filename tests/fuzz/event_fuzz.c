/* What an agent says: whatever it is, each event that comes out is strict JSON, is an event that a task's fold takes,
 * and is in the canonical form. */
#include <amp/amp.h>

#include <assert.h>
#include <cjson/cJSON.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum amp_code emit(void *ctx, struct amp_bytes json)
{
    struct amp_error err;
    struct amp_arena arena;
    struct amp_buf again;
    ProtobufCMessage *message;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    amp_buf_init(&again, AMP_JSON_BYTES_MAX);
    enum amp_code code = amp_decode(&amp__stream_response__descriptor, json, &arena, &message, &err);
    assert(code == AMP_OK);
    code = amp_encode(message, AMP_JSON, &again, &err);
    assert(code == AMP_OK);
    assert(again.len == json.len && memcmp(again.data, json.data, json.len) == 0);
    amp_buf_done(&again);
    amp_arena_done(&arena);
    code = amp_fold_apply(ctx, json, &err);
    assert(code == AMP_OK || code == AMP_TOO_LARGE);
    return AMP_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amp_error err;
    struct cJSON *local;
    struct amp_fold *fold = amp_fold_new("t-1", "c-1", AMP_FOLD_BYTES_MAX);
    if (!fold)
        return 0;
    struct amp_event_sink sink = {emit, fold};
    struct amp_event_source source = {"t-1", "c-1", 1795600000000, false};
    enum amp_code code = amp_event_text(&source, (struct amp_bytes){data, size}, false, &sink);
    assert(code == AMP_OK);
    if (amp_json_parse((struct amp_bytes){data, size}, &local, &err) == AMP_OK) {
        err.field[0] = '\0';
        code = amp_event_project(&source, local, &sink, &err);
        assert(code == AMP_OK || strncmp(err.field, "event", 5) == 0);
        cJSON_Delete(local);
    }
    amp_fold_free(fold);
    return 0;
}
