/* One door in and one out for both encodings. (amp.md 3.1) */
#include "buf.h"
#include "json.h"
#include "scan.h"

#include <string.h>

/* No protobuf message of ours begins with '{' (it would be a group). White space may: then it is a tag of this type. */
bool codec_is_json(const ProtobufCMessageDescriptor *type, uint8_t first)
{
    if (first == '{')
        return true;
    return (first == ' ' || first == '\n' || first == '\r' || first == '\t') && !scan_may_begin(type, first);
}

enum amp_code amp_decode_json(const ProtobufCMessageDescriptor *type, struct amp_bytes json, struct amp_arena *arena,
                              ProtobufCMessage **ret, struct amp_error *reterr)
{
    return json_read(type, json, arena, ret, reterr);
}

enum amp_code amp_decode(const ProtobufCMessageDescriptor *type, struct amp_bytes wire, struct amp_arena *arena,
                         ProtobufCMessage **ret, struct amp_error *reterr)
{
    if (wire.len == 0)
        return amp_error_set(reterr, AMP_MALFORMED, "", "the message is empty");
    if (wire.len > AMP_WIRE_BYTES_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "", "a message of %zu bytes; at most %u are allowed", wire.len,
                             AMP_WIRE_BYTES_MAX);
    if (codec_is_json(type, wire.data[0]))
        return json_read(type, wire, arena, ret, reterr);
    enum amp_code code = scan_protobuf(type, wire, reterr);
    if (code != AMP_OK)
        return code;
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &arena->allocator, wire.len, wire.data);
    if (!message)
        return arena_refusal(arena, reterr);
    *ret = message;
    return AMP_OK;
}

static enum amp_code encode_protobuf(const ProtobufCMessage *message, struct amp_buf *out)
{
    enum amp_code code = buf_reserve(out, protobuf_c_message_get_packed_size(message));
    if (code == AMP_OK)
        out->len += protobuf_c_message_pack(message, out->data + out->len);
    return code;
}

/* What was appended before an error is taken back. */
static enum amp_code encoded(enum amp_code code, size_t len, const struct amp_error *err, struct amp_buf *out,
                             struct amp_error *reterr)
{
    if (code == AMP_OK)
        return AMP_OK;
    out->len = len;
    if (err->code != AMP_OK) {
        if (reterr)
            *reterr = *err;
        return code;
    }
    if (code == AMP_TOO_LARGE)
        return amp_error_set(reterr, code, "", "the message is larger than %zu bytes", out->max);
    return amp_error_set(reterr, code, "", "out of memory");
}

enum amp_code amp_encode_own(const ProtobufCMessage *message, struct amp_bytes own, struct amp_buf *out,
                             struct amp_error *reterr)
{
    size_t len = out->len;
    struct amp_error err;
    err.code = AMP_OK;
    return encoded(json_write(message, own, out, &err), len, &err, out, reterr);
}

enum amp_code amp_encode(const ProtobufCMessage *message, enum amp_encoding encoding, struct amp_buf *out,
                         struct amp_error *reterr)
{
    static const struct amp_error none;
    size_t len = out->len;
    if (encoding == AMP_JSON)
        return amp_encode_own(message, (struct amp_bytes){0}, out, reterr);
    return encoded(encode_protobuf(message, out), len, &none, out, reterr);
}
