/* JSON → message → JSON: spelling, presence, Json fields, and errors that name the field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#define TYPE(name) (&amp__##name##__descriptor)

/* Reads `json` as `type`; `expected` is what is written back. */
static void assert_canonical(const ProtobufCMessageDescriptor *type, const char *json, const char *expected)
{
    struct amp_arena arena;
    struct amp_buf out;
    struct amp_error err = {.code = AMP_OK};
    ProtobufCMessage *message;
    amp_arena_init(&arena, 1 << 20);
    amp_buf_init(&out, 1 << 20);
    if (amp_decode_json(type, amp_bytes_of(json), &arena, &message, &err) != AMP_OK)
        fail_msg("%s: %s: %s", json, err.field, err.message);
    assert_int_equal(amp_encode(message, AMP_JSON, &out, &err), AMP_OK);
    assert_int_equal(amp_buf_append(&out, "", 1), AMP_OK);
    assert_string_equal((const char *)out.data, expected);
    amp_buf_done(&out);
    amp_arena_done(&arena);
}

static void assert_refused(const ProtobufCMessageDescriptor *type, const char *json, enum amp_code code,
                           const char *field)
{
    struct amp_arena arena;
    struct amp_error err = {.code = AMP_OK};
    ProtobufCMessage *message;
    amp_arena_init(&arena, 1 << 20);
    enum amp_code got = amp_decode_json(type, amp_bytes_of(json), &arena, &message, &err);
    if (got != code || strcmp(err.field, field) != 0)
        fail_msg("%s: %d at '%s': %s", json, (int)got, err.field, err.message);
    amp_arena_done(&arena);
}

static void test_both_spellings_are_read_and_one_is_written(void **state)
{
    assert_canonical(TYPE(message), "{\"contextId\":\"c\",\"message_id\":\"m\"}",
                     "{\"messageId\":\"m\",\"contextId\":\"c\",\"parts\":[]}");
    assert_canonical(TYPE(message), "{\"me\\u0073sageId\":\"m\"}", "{\"messageId\":\"m\",\"parts\":[]}");
    assert_canonical(TYPE(message), "{\"message_Id\":\"unknown\",\"MessageId\":1,\"x\":{\"y\":[1]}}", "{\"parts\":[]}");
    assert_refused(TYPE(message), "{\"messageId\":\"m\",\"message_id\":\"m\"}", AMP_MALFORMED, "messageId");
    assert_refused(TYPE(message), "{\"messageId\":null,\"message_id\":\"m\"}", AMP_MALFORMED, "messageId");
}

static void test_null_is_unset_but_a_value_of_json(void **state)
{
    assert_canonical(TYPE(part), "{\"text\":null,\"url\":\"u\"}", "{\"url\":\"u\"}");
    assert_canonical(TYPE(part), "{\"data\":null}", "{\"data\":null}");
    assert_canonical(TYPE(agent_skill), "{\"securityRequirements\":[null,{}],\"examples\":null}",
                     "{\"tags\":[],\"securityRequirements\":[null,{}]}");
    assert_canonical(TYPE(agent_skill), "{\"securityRequirements\":null}", "{\"tags\":[]}");
    assert_refused(TYPE(event), "{\"time\":null}", AMP_INVALID, "body");
    assert_refused(TYPE(end), "{\"count\":null}", AMP_INVALID, "count");
    assert_refused(TYPE(answer), "{\"message\":null}", AMP_INVALID, "message");
    assert_canonical(TYPE(answer), "{\"message\":{\"metadata\":null}}",
                     "{\"message\":{\"parts\":[],\"metadata\":null}}");
}

static void test_json_fields_keep_their_text(void **state)
{
    assert_canonical(TYPE(part), "{\"data\": { \"b\" : 9007199254740993 , \"a\" : [ 1.50e+3, \"x y\\u0041\" ] } }",
                     "{\"data\":{\"b\":9007199254740993,\"a\":[1.50e+3,\"x y\\u0041\"]}}");
    assert_refused(TYPE(part), "{\"data\":{\"a\":1,\"a\":2}}", AMP_MALFORMED, "data");
}

/* What lies elsewhere is checked and made compact; a value that only begins in `own` is not in it. */
static void test_json_of_our_own_is_taken_as_it_is_and_no_other(void **state)
{
    static char own[] = "{\"a\": 1}{\"b\": 2}", foreign[] = "{\"a\": 1}", broken[] = "{";
    static const struct {
        char *text;
        size_t len, own_len;
        const char *written; /* NULL: refused */
    } cases[] = {
        {own, 8, 16, "{\"data\":{\"a\": 1}}"},        {own + 8, 8, 16, "{\"data\":{\"b\": 2}}"}, {own + 8, 8, 15, "{\"data\":{\"b\":2}}"},
        {own + 8, 8, 8, "{\"data\":{\"b\":2}}"},      {own, 8, 0, "{\"data\":{\"a\":1}}"},     {foreign, 8, 16, "{\"data\":{\"a\":1}}"},
        {broken, 1, 16, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Amp__Part part = AMP__PART__INIT;
        Amp__Json json = AMP__JSON__INIT;
        struct amp_buf out;
        amp_buf_init(&out, 1024);
        json.text = (ProtobufCBinaryData){.data = (uint8_t *)cases[i].text, .len = cases[i].len};
        part.data = &json;
        struct amp_bytes given = {(const uint8_t *)own, cases[i].own_len};
        assert_int_equal(amp_encode_own(&part.base, given, &out, NULL), cases[i].written ? AMP_OK : AMP_MALFORMED);
        assert_int_equal(out.len, cases[i].written ? strlen(cases[i].written) : 0);
        if (cases[i].written)
            assert_memory_equal(out.data, cases[i].written, out.len);
        amp_buf_done(&out);
    }
}

static void test_numbers_are_exact_or_refused(void **state)
{
    assert_canonical(TYPE(death),
                     "{\"exitCode\":-2147483648,\"cpuMs\":\"4294967295\",\"rssMaxBytes\":\"18446744073709551615\"}",
                     "{\"exitCode\":-2147483648,\"rssMaxBytes\":\"18446744073709551615\",\"cpuMs\":4294967295}");
    assert_canonical(TYPE(death), "{\"rssMaxBytes\":9007199254740992,\"pid\":-0}",
                     "{\"rssMaxBytes\":\"9007199254740992\",\"pid\":0}");
    static const char *const bad[] = {"{\"rssMaxBytes\":9007199254740993}",
                                      "{\"rssMaxBytes\":\"18446744073709551616\"}",
                                      "{\"rssMaxBytes\":-1}",
                                      "{\"rssMaxBytes\":\"\"}",
                                      "{\"rssMaxBytes\":\"01\"}",
                                      "{\"rssMaxBytes\":1.0}",
                                      "{\"rssMaxBytes\":1e3}",
                                      "{\"rssMaxBytes\":true}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_refused(TYPE(death), bad[i], AMP_INVALID, "rssMaxBytes");
    assert_refused(TYPE(death), "{\"exitCode\":2147483648}", AMP_INVALID, "exitCode");
    assert_refused(TYPE(death), "{\"exitCode\":-2147483649}", AMP_INVALID, "exitCode");
    assert_refused(TYPE(death), "{\"cpuMs\":4294967296}", AMP_INVALID, "cpuMs");
    assert_refused(TYPE(death), "{\"oom\":1}", AMP_INVALID, "oom");
}

static void test_enums_have_names(void **state)
{
    assert_canonical(TYPE(message), "{\"role\":2}", "{\"role\":\"ROLE_AGENT\",\"parts\":[]}");
    assert_canonical(TYPE(message), "{\"role\":\"ROLE_\\u0055SER\"}", "{\"role\":\"ROLE_USER\",\"parts\":[]}");
    assert_refused(TYPE(message), "{\"role\":3}", AMP_INVALID, "role");
    assert_refused(TYPE(message), "{\"role\":\"user\"}", AMP_INVALID, "role");
}

static void test_bytes_are_base64_of_either_alphabet(void **state)
{
    assert_canonical(TYPE(part), "{\"raw\":\"-_8\"}", "{\"raw\":\"+/8=\"}");
    assert_canonical(TYPE(part), "{\"raw\":\"+\\/8=\"}", "{\"raw\":\"+/8=\"}");
    assert_canonical(TYPE(part), "{\"raw\":\"\"}", "{\"raw\":\"\"}");
    assert_canonical(TYPE(part), "{\"raw\":\"AA==\"}", "{\"raw\":\"AA==\"}");
    static const char *const bad[] = {"A", "A===", "AA=", "AA===", "AB==", "A A=", "AAA=A", "A\\u00e9==", "=", "===="};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char json[64];
        snprintf(json, sizeof(json), "{\"raw\":\"%s\"}", bad[i]);
        assert_refused(TYPE(part), json, AMP_INVALID, "raw");
    }
}

static void test_times_are_written_in_one_way(void **state)
{
    assert_canonical(TYPE(task_status), "{\"timestamp\":\"2026-01-01T01:00:00+01:00\"}",
                     "{\"timestamp\":\"2026-01-01T00:00:00.000Z\"}");
    assert_refused(TYPE(task_status), "{\"timestamp\":\"yesterday\"}", AMP_INVALID, "timestamp");
    assert_refused(TYPE(task_status), "{\"timestamp\":1}", AMP_INVALID, "timestamp");
}

static void test_errors_name_the_place(void **state)
{
    assert_refused(TYPE(envelope),
                   "{\"version\":1,\"request\":{\"taskId\":\"t\",\"contextId\":\"c\",\"message\":{\"parts\":[{},{},{"
                   "\"text\":1}]}}}",
                   AMP_INVALID, "request.message.parts[2].text");
    assert_refused(TYPE(envelope), "{\"version\":1,\"request\":{\"taskId\":\"t\",\"message\":{}}}", AMP_INVALID,
                   "request.contextId");
    assert_refused(TYPE(envelope), "{\"version\":1,\"request\":{\"message\":{\"parts\":[{\"text\":\"\\ud800\"}]}}}",
                   AMP_MALFORMED, "request.message.parts[0].text");
    assert_refused(TYPE(stream_response), "{\"task\":{},\"message\":{}}", AMP_INVALID, "message");
    assert_refused(TYPE(message), "{\"parts\":{}}", AMP_INVALID, "parts");
    assert_refused(TYPE(message), "{\"parts\":[null]}", AMP_INVALID, "parts[0]");
    assert_refused(TYPE(message), "{\"parts\":[]}}", AMP_MALFORMED, "");
    assert_refused(TYPE(message), "[]", AMP_INVALID, "");
    assert_refused(TYPE(message), "", AMP_MALFORMED, "");
}

static void test_lists_that_a2a_requires_are_written_empty(void **state)
{
    assert_canonical(
        TYPE(agent_card), "{\"name\":\"a\"}",
        "{\"name\":\"a\",\"supportedInterfaces\":[],\"defaultInputModes\":[],\"defaultOutputModes\":[],\"skills\":[]}");
    assert_canonical(TYPE(artifact), "{\"artifactId\":\"a\"}", "{\"artifactId\":\"a\",\"parts\":[]}");
    assert_canonical(TYPE(message), "{}", "{\"parts\":[]}");
    assert_canonical(TYPE(task), "{\"artifacts\":[],\"history\":[]}", "{}");
}

static void test_strings_are_escaped_as_little_as_possible(void **state)
{
    assert_canonical(TYPE(part), "{\"text\":\"\\u0022\\\\\\/\\u0001\\u001f\\n\\u00e9\\u2028\\u007f\\ud83d\\ude00\"}",
                     "{\"text\":\"\\\"\\\\/\\u0001\\u001f\\né\xE2\x80\xA8\x7f😀\"}");
    struct amp_buf out;
    amp_buf_init(&out, 100);
    assert_int_equal(amp_json_append_string(&out, (struct amp_bytes){(const uint8_t *)"a\xFF\0b", 4}), AMP_OK);
    assert_memory_equal(out.data,
                        "\"a\xEF\xBF\xBD\xEF\xBF\xBD"
                        "b\"",
                        out.len);
    assert_int_equal(out.len, 10);
    amp_buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_spellings_are_read_and_one_is_written),
        cmocka_unit_test(test_null_is_unset_but_a_value_of_json),
        cmocka_unit_test(test_json_fields_keep_their_text),
        cmocka_unit_test(test_json_of_our_own_is_taken_as_it_is_and_no_other),
        cmocka_unit_test(test_numbers_are_exact_or_refused),
        cmocka_unit_test(test_enums_have_names),
        cmocka_unit_test(test_bytes_are_base64_of_either_alphabet),
        cmocka_unit_test(test_times_are_written_in_one_way),
        cmocka_unit_test(test_errors_name_the_place),
        cmocka_unit_test(test_lists_that_a2a_requires_are_written_empty),
        cmocka_unit_test(test_strings_are_escaped_as_little_as_possible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
