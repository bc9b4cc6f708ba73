/* Laws of the two encodings over every message type of amp.proto, and what is refused before anything is unpacked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#include "gen.h"

#define ROUNDS 60u

struct fixture {
    struct amp_arena made, read;
    struct amp_buf first, second;
    struct amp_error err;
};

static int setup(void **state)
{
    static struct fixture f;
    amp_arena_init(&f.made, AMP_ARENA_BYTES_MAX);
    amp_arena_init(&f.read, AMP_ARENA_BYTES_MAX);
    amp_buf_init(&f.first, AMP_WIRE_BYTES_MAX);
    amp_buf_init(&f.second, AMP_WIRE_BYTES_MAX);
    memset(&f.err, 0, sizeof(f.err));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    amp_arena_done(&f->made);
    amp_arena_done(&f->read);
    amp_buf_done(&f->first);
    amp_buf_done(&f->second);
    return 0;
}

static void reset(struct fixture *f)
{
    amp_arena_reset(&f->made);
    amp_arena_reset(&f->read);
    amp_buf_reset(&f->first);
    amp_buf_reset(&f->second);
}

static void assert_ok(struct fixture *f, enum amp_code code)
{
    if (code != AMP_OK)
        fail_msg("%d: %s: %s", (int)code, f->err.field, f->err.message);
}

static void assert_same(const struct amp_buf *a, const struct amp_buf *b)
{
    assert_int_equal(a->len, b->len);
    if (a->len > 0)
        assert_memory_equal(a->data, b->data, a->len);
}

/* Calls `law` with many messages of every type. */
static void for_all(struct fixture *f, void (*law)(struct fixture *f, struct gen *gen, const ProtobufCMessage *message))
{
    for (size_t i = 0; i < gen_types_count; i++)
        for (uint32_t seed = 0; seed < ROUNDS; seed++) {
            struct gen gen = {.state = seed * 1000 + i, .arena = &f->made};
            reset(f);
            law(f, &gen, gen_message(&gen, gen_types[i]));
        }
}

static void law_protobuf(struct fixture *f, struct gen *gen, const ProtobufCMessage *message)
{
    ProtobufCMessage *again;
    assert_ok(f, amp_encode(message, AMP_PROTOBUF, &f->first, &f->err));
    if (f->first.len == 0) /* nothing set: not a message on the wire */
        return;
    assert_ok(f, amp_decode(message->descriptor, amp_buf_bytes(&f->first), &f->read, &again, &f->err));
    assert_ok(f, amp_encode(again, AMP_PROTOBUF, &f->second, &f->err));
    assert_same(&f->first, &f->second);
}

static void test_protobuf_decodes_to_what_was_encoded(void **state)
{
    for_all(*state, law_protobuf);
}

static void law_json(struct fixture *f, struct gen *gen, const ProtobufCMessage *message)
{
    ProtobufCMessage *again;
    struct amp_buf json;
    amp_buf_init(&json, AMP_WIRE_BYTES_MAX);
    assert_ok(f, amp_encode(message, AMP_JSON, &json, &f->err));
    assert_ok(f, amp_json_check(amp_buf_bytes(&json), &amp_json_limits_default, &f->err));
    assert_ok(f, amp_decode_json(message->descriptor, amp_buf_bytes(&json), &f->read, &again, &f->err));
    assert_ok(f, amp_encode(again, AMP_PROTOBUF, &f->second, &f->err));
    assert_ok(f, amp_encode(message, AMP_PROTOBUF, &f->first, &f->err));
    amp_buf_done(&json);
    assert_same(&f->first, &f->second);
}

static void test_json_decodes_to_what_was_encoded(void **state)
{
    for_all(*state, law_json);
}

/* Whatever one byte is made of: refused, or a message that both encodings can say. */
static void law_mutation(struct fixture *f, struct gen *gen, const ProtobufCMessage *message)
{
    ProtobufCMessage *again;
    enum amp_encoding encoding = gen_below(gen, 2) ? AMP_JSON : AMP_PROTOBUF;
    assert_ok(f, amp_encode(message, encoding, &f->first, &f->err));
    for (int i = 0; i < 20 && f->first.len > 0; i++) {
        uint8_t *byte = &f->first.data[gen_below(gen, (uint32_t)f->first.len)], old = *byte;
        *byte = (uint8_t)gen_below(gen, 256);
        amp_arena_reset(&f->read);
        amp_buf_reset(&f->second);
        if (amp_decode(message->descriptor, amp_buf_bytes(&f->first), &f->read, &again, &f->err) == AMP_OK) {
            assert_ok(f, amp_encode(again, AMP_JSON, &f->second, &f->err));
            assert_ok(f, amp_encode(again, AMP_PROTOBUF, &f->second, &f->err));
        }
        *byte = old;
    }
}

static void test_a_changed_byte_is_refused_or_makes_a_sound_message(void **state)
{
    for_all(*state, law_mutation);
}

/* With any amount of memory: the message, or a refusal that says why. */
static void law_memory(struct fixture *f, struct gen *gen, const ProtobufCMessage *message)
{
    ProtobufCMessage *again;
    enum amp_encoding encoding = gen_below(gen, 2) ? AMP_JSON : AMP_PROTOBUF;
    assert_ok(f, amp_encode(message, encoding, &f->first, &f->err));
    if (f->first.len == 0 || (encoding == AMP_JSON && f->first.data[0] != '{'))
        return;
    for (size_t max = 0;; max += 16) {
        struct amp_arena arena;
        amp_arena_init(&arena, max);
        enum amp_code code = amp_decode(message->descriptor, amp_buf_bytes(&f->first), &arena, &again, &f->err);
        assert_true(arena.used <= max);
        amp_arena_done(&arena);
        if (code == AMP_OK)
            return;
        assert_int_equal(code, AMP_TOO_LARGE);
        assert_true(max < 1 << 20);
        max += max / 16 / 16 * 16;
    }
}

static void test_any_lack_of_memory_is_a_refusal(void **state)
{
    for_all(*state, law_memory);
}

static void assert_refused(struct fixture *f, const ProtobufCMessageDescriptor *type, const char *wire, size_t len,
                           enum amp_code code, const char *field)
{
    ProtobufCMessage *message;
    reset(f);
    memset(&f->err, 0, sizeof(f->err));
    assert_int_equal(amp_decode(type, (struct amp_bytes){(const uint8_t *)wire, len}, &f->read, &message, &f->err),
                     code);
    assert_string_equal(f->err.field, field);
    assert_true(f->err.message[0] != '\0');
}
#define REFUSED(type, wire, code, field)                                                                               \
    assert_refused(f, &amp__##type##__descriptor, wire, sizeof(wire) - 1, code, field)

static void test_protobuf_that_could_mean_two_things_is_refused(void **state)
{
    struct fixture *f = *state;
    REFUSED(part, "", AMP_MALFORMED, "");
    REFUSED(part,
            "\x0a\x05"
            "ab",
            AMP_MALFORMED, ""); /* length past the end */
    REFUSED(part,
            "\x0a\x03"
            "a\0b",
            AMP_MALFORMED, "text");                           /* NUL */
    REFUSED(part, "\x0a\x02\xC0\x80", AMP_MALFORMED, "text"); /* overlong UTF-8 */
    REFUSED(part,
            "\x0a\x01"
            "a\x0a\x01"
            "b",
            AMP_MALFORMED, "text");                                    /* twice */
    REFUSED(part, "\x08\x01", AMP_MALFORMED, "text");                  /* wrong wire type */
    REFUSED(part, "\x0b\x0c", AMP_MALFORMED, "");                      /* a group */
    REFUSED(part, "\x02\x00", AMP_MALFORMED, "");                      /* field 0 */
    REFUSED(part, "\x22\x03\x0a\x01{", AMP_MALFORMED, "data");         /* Json that is none */
    REFUSED(part, "\x22\x00", AMP_INVALID, "data.text");               /* required field missing */
    REFUSED(stream_response, "\x12\x00\x0a\x00", AMP_INVALID, "task"); /* two of one choice */
    REFUSED(message, "\x20\x09", AMP_INVALID, "role");                 /* unknown role */
    REFUSED(error, "\x08\xff\xff\xff\xff\x1f", AMP_INVALID, "code");   /* more than 32 bits */
    REFUSED(error, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", AMP_MALFORMED, "");
    REFUSED(timestamp, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f", AMP_INVALID, ""); /* year 292 million */
    REFUSED(envelope,
            "\x08\x01\x22\x12\x0a\x01t\x12\x01"
            "c\x1a\x0a\x2a\x08\x22\x06\x0a\x04\"\\u0",
            AMP_MALFORMED, "request.message.parts[0].data");
}

static void test_levels_are_counted_through_messages_and_json_together(void **state)
{
    struct fixture *f = *state;
    char text[128];
    for (unsigned levels = AMP_DEPTH_MAX - 3; levels < AMP_DEPTH_MAX; levels++) {
        memset(text, '[', levels);
        memset(text + levels, ']', levels);
        Amp__Json json = AMP__JSON__INIT;
        json.text = (ProtobufCBinaryData){.data = (uint8_t *)text, .len = 2 * levels};
        Amp__Part part = AMP__PART__INIT;
        Amp__Part *parts[] = {&part};
        part.data = &json;
        Amp__Message message = AMP__MESSAGE__INIT;
        message.parts = parts;
        message.n_parts = 1;
        for (int encoding = AMP_PROTOBUF; encoding <= AMP_JSON; encoding++) {
            ProtobufCMessage *again;
            reset(f);
            assert_ok(f, amp_encode(&message.base, (enum amp_encoding)encoding, &f->first, &f->err));
            enum amp_code code =
                amp_decode(&amp__message__descriptor, amp_buf_bytes(&f->first), &f->read, &again, &f->err);
            /* the message, its list and the part are three */
            assert_int_equal(code, levels + 3 <= AMP_DEPTH_MAX ? AMP_OK : AMP_TOO_DEEP);
        }
    }
}

static void test_more_elements_than_allowed_are_refused_in_both_encodings(void **state)
{
    struct fixture *f = *state;
    char text[] = "x", *strings[AMP_MEMBERS_MAX + 1];
    for (size_t i = 0; i < AMP_MEMBERS_MAX + 1; i++)
        strings[i] = text;
    for (int encoding = AMP_PROTOBUF; encoding <= AMP_JSON; encoding++)
        for (unsigned extra = 0; extra < 2; extra++) {
            ProtobufCMessage *again;
            Amp__Message message = AMP__MESSAGE__INIT;
            message.extensions = strings;
            message.n_extensions = AMP_MEMBERS_MAX + extra;
            reset(f);
            assert_ok(f, amp_encode(&message.base, (enum amp_encoding)encoding, &f->first, &f->err));
            enum amp_code code =
                amp_decode(&amp__message__descriptor, amp_buf_bytes(&f->first), &f->read, &again, &f->err);
            assert_int_equal(code, extra ? AMP_TOO_LARGE : AMP_OK);
        }
}

static void test_unknown_protobuf_fields_survive(void **state)
{
    struct fixture *f = *state;
    static const char wire[] = "\x0a\x02hi\xfa\x7f\x03xyz\xf8\x3f\x07";
    ProtobufCMessage *message;
    assert_ok(f, amp_decode(&amp__part__descriptor, (struct amp_bytes){(const uint8_t *)wire, sizeof(wire) - 1},
                            &f->read, &message, &f->err));
    assert_ok(f, amp_encode(message, AMP_PROTOBUF, &f->first, &f->err));
    assert_int_equal(f->first.len, sizeof(wire) - 1);
    assert_memory_equal(f->first.data, wire, sizeof(wire) - 1);
}

static void test_white_space_is_json_only_where_it_is_no_tag(void **state)
{
    struct fixture *f = *state;
    ProtobufCMessage *message;
    assert_ok(f, amp_decode(&amp__envelope__descriptor, amp_bytes_of("\n {\"version\":1,\"ping\":{}}"), &f->read,
                            &message, &f->err));
    assert_int_equal(((Amp__Envelope *)message)->body_case, AMP__ENVELOPE__BODY_PING);
    static const char wire[] = "\n\x01{";
    assert_ok(f, amp_decode(&amp__part__descriptor, amp_bytes_of(wire), &f->read, &message, &f->err));
    assert_string_equal(((Amp__Part *)message)->text, "{");
}

static void test_a_failed_encode_appends_nothing(void **state)
{
    struct fixture *f = *state;
    Amp__Json json = AMP__JSON__INIT;
    json.text = (ProtobufCBinaryData){.data = (uint8_t[]){"{\"a\":1}}"}, .len = 8};
    Amp__Part part = AMP__PART__INIT;
    part.data = &json;
    assert_int_equal(amp_encode(&part.base, AMP_JSON, &f->first, &f->err), AMP_MALFORMED);
    assert_string_equal(f->err.field, "data");
    assert_int_equal(f->first.len, 0);
    part.data = NULL;
    part.text = (char[]){"long text"};
    for (size_t max = 0; max < 8; max++)
        for (int encoding = AMP_PROTOBUF; encoding <= AMP_JSON; encoding++) {
            struct amp_buf out;
            amp_buf_init(&out, max);
            assert_int_equal(amp_encode(&part.base, (enum amp_encoding)encoding, &out, &f->err), AMP_TOO_LARGE);
            assert_int_equal(out.len, 0);
            amp_buf_done(&out);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_protobuf_decodes_to_what_was_encoded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json_decodes_to_what_was_encoded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_changed_byte_is_refused_or_makes_a_sound_message, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_lack_of_memory_is_a_refusal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_protobuf_that_could_mean_two_things_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels_are_counted_through_messages_and_json_together, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_elements_than_allowed_are_refused_in_both_encodings, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_protobuf_fields_survive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_white_space_is_json_only_where_it_is_no_tag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_encode_appends_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
