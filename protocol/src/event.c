/* Events that the mesh itself writes (amp.md 6.3): text, which is on the hot path and is written without a message in
 * between, and changes of state. What agents say in the local form is in project.c. */
#include <amp/amp.h>

#include <string.h>

#include "event.h"
#include "model.h"

/* What stands around a text, ids at their longest. */
#define TEXT_FRAME_MAX 512
/* A byte becomes at most "\u00XX". */
#define ESCAPED_MAX 6
/* Chunks up to this many bytes, which is what models stream, are written on the stack. */
#define TEXT_SMALL_MAX 1024
#define EVENT_SMALL_MAX 1024

static enum amp_code put(struct amp_buf *out, const char *text)
{
    return amp_buf_append(out, text, strlen(text));
}

/* The canonical JSON of an artifactUpdate of `response`. The buffer remembers a failure, so its end is the only check.
 */
static enum amp_code text_write(const struct amp_event_source *source, struct amp_bytes text, bool last,
                                struct amp_buf *out)
{
    (void)put(out, "{\"artifactUpdate\":{\"taskId\":");
    (void)amp_json_append_string(out, amp_bytes_of(source->task_id));
    (void)put(out, ",\"contextId\":");
    (void)amp_json_append_string(out, amp_bytes_of(source->context_id));
    (void)put(out, ",\"artifact\":{\"artifactId\":\"" RESPONSE_ID "\",\"parts\":[{\"text\":");
    (void)amp_json_append_string(out, text);
    (void)put(out, "}]}");
    if (source->is_text_started)
        (void)put(out, ",\"append\":true");
    if (last)
        (void)put(out, ",\"lastChunk\":true");
    return put(out, "}}");
}

static enum amp_code text_emit(struct amp_event_source *source, struct amp_bytes text, bool last,
                               const struct amp_event_sink *sink)
{
    uint8_t room[TEXT_FRAME_MAX + TEXT_SMALL_MAX * ESCAPED_MAX];
    struct amp_buf buf;
    bool is_small = text.len <= TEXT_SMALL_MAX;
    if (is_small) /* cap == max: the buffer is never grown and may live on the stack */
        buf = (struct amp_buf){.data = room, .cap = sizeof(room), .max = sizeof(room)};
    else
        amp_buf_init(&buf, TEXT_FRAME_MAX + text.len * ESCAPED_MAX);
    enum amp_code code = text_write(source, text, last, &buf);
    if (code == AMP_OK)
        code = sink->emit(sink->ctx, amp_buf_bytes(&buf));
    if (code == AMP_OK)
        source->is_text_started = true;
    if (!is_small)
        amp_buf_done(&buf);
    return code;
}

enum amp_code amp_event_text(struct amp_event_source *source, struct amp_bytes text, bool last,
                             const struct amp_event_sink *sink)
{
    enum amp_code code = AMP_OK;
    while (text.len > AMP_TEXT_EVENT_MAX && code == AMP_OK) {
        size_t len = amp_utf8_cut(text, AMP_TEXT_EVENT_MAX);
        if (len == 0) /* no character of valid UTF-8 is that long: garbage is cut anywhere */
            len = AMP_TEXT_EVENT_MAX;
        code = text_emit(source, (struct amp_bytes){text.data, len}, false, sink);
        text.data += len;
        text.len -= len;
    }
    if (code == AMP_OK && (text.len > 0 || last))
        code = text_emit(source, text, last, sink);
    return code;
}

enum amp_code event_taken(enum amp_code code, struct amp_error *reterr)
{
    return code == AMP_OK ? AMP_OK : amp_error_set(reterr, code, "event", "%s", amp_code_info(code)->text);
}

enum amp_code event_emit(const Amp__StreamResponse *event, const struct amp_event_sink *sink, struct amp_error *reterr)
{
    uint8_t room[EVENT_SMALL_MAX];
    struct amp_buf small = {.data = room, .cap = sizeof(room), .max = sizeof(room)}; /* cap == max: it is never grown */
    struct amp_buf buf;
    amp_buf_init(&buf, AMP_JSON_BYTES_MAX);
    bool is_small = amp_encode(&event->base, AMP_JSON, &small, NULL) == AMP_OK;
    enum amp_code code = is_small ? AMP_OK : amp_encode(&event->base, AMP_JSON, &buf, reterr);
    if (code == AMP_OK)
        code = event_taken(sink->emit(sink->ctx, amp_buf_bytes(is_small ? &small : &buf)), reterr);
    amp_buf_done(&buf);
    return code;
}

enum amp_code event_emit_status(const struct amp_event_source *source, const struct event_status *from,
                                const struct amp_event_sink *sink, struct amp_error *reterr)
{
    char message_id[AMP_ID_SIZE];
    Amp__Timestamp timestamp = AMP__TIMESTAMP__INIT;
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    Amp__TaskStatus status = AMP__TASK_STATUS__INIT;
    Amp__TaskStatusUpdateEvent update = AMP__TASK_STATUS_UPDATE_EVENT__INIT;
    Amp__StreamResponse event = AMP__STREAM_RESPONSE__INIT;

    timestamp.unix_ms = source->now_unix_ms;
    status.has_state = true;
    status.state = from->state;
    status.timestamp = &timestamp;
    if (from->text) {
        amp_id_new('m', source->now_unix_ms, message_id);
        part.text = (char *)from->text;
        message.message_id = message_id;
        message.context_id = (char *)source->context_id;
        message.task_id = (char *)source->task_id;
        message.has_role = true;
        message.role = AMP__ROLE__ROLE_AGENT;
        message.n_parts = 1;
        message.parts = parts;
        status.message = &message;
    }
    update.task_id = (char *)source->task_id;
    update.context_id = (char *)source->context_id;
    update.status = &status;
    update.metadata = (Amp__Json *)from->metadata;
    event.payload_case = AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE;
    event.status_update = &update;
    return event_emit(&event, sink, reterr);
}

enum amp_code amp_event_status(struct amp_event_source *source, Amp__TaskState state, const char *text,
                               const char *metadata_json, const struct amp_event_sink *sink)
{
    Amp__Json metadata = AMP__JSON__INIT;
    if (metadata_json) {
        struct amp_bytes json = amp_bytes_of(metadata_json);
        enum amp_code code = amp_json_check(json, &amp_json_limits_default, NULL);
        if (code != AMP_OK)
            return code;
        if (json.len == 0 || json.data[0] != '{')
            return AMP_INVALID;
        metadata.text = (ProtobufCBinaryData){json.len, (uint8_t *)metadata_json};
    }
    struct event_status status = {state, text, metadata_json ? &metadata : NULL};
    return event_emit_status(source, &status, sink, NULL);
}
