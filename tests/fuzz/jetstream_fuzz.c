/* Any bytes where JetStream's answers, acknowledgements and reply subjects are read. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/jetstream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct js_stream_config config = {.name = "AMP_EVT", .subjects = {"amp.evt.>", "amp.canary.*"}};
    struct js_reply reply;
    struct js_stream stream;
    struct js_delivery at;
    uint64_t seq = 0;
    cJSON *json = NULL;
    js_reply_parse((struct amp_bytes){data, size}, &reply, &json);
    if ((reply.outcome == JS_OK) != (json != NULL))
        abort();
    if (json && js_stream_read(json, &config, &stream) == JS_OK && (stream.created[sizeof stream.created - 1] != '\0' || stream.has_subjects > 3))
        abort();
    if (json && js_ack_read(json, "AMP_EVT", &seq) && seq == 0)
        abort();
    cJSON_Delete(json);
    char *text = calloc(1, size + 1);
    if (size)
        memcpy(text, data, size);
    if (js_delivery_parse(text, &at) && (at.seq == 0 || at.nth == 0))
        abort();
    free(text);
    return 0;
}
