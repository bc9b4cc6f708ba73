/* The rules of each body of an envelope: one sound example, and what makes it unsound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#include <stdio.h>

#define MESSAGE "{\"parts\":[{\"text\":\"hi\"}]}"

static enum amp_code decode(const char *json, uint32_t allowed, struct amp_error *err)
{
    struct amp_arena arena;
    Amp__Envelope *envelope;
    enum amp_encoding encoding;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    enum amp_code code = amp_envelope_decode(amp_bytes_of(json), allowed, &arena, &envelope, &encoding, err);
    if (code == AMP_OK) {
        struct amp_buf packed;
        assert_int_equal(encoding, AMP_JSON);
        amp_buf_init(&packed, AMP_WIRE_BYTES_MAX);
        assert_int_equal(amp_encode(&envelope->base, AMP_PROTOBUF, &packed, err), AMP_OK);
        assert_int_equal(amp_envelope_decode(amp_buf_bytes(&packed), allowed, &arena, &envelope, &encoding, err),
                         AMP_OK);
        assert_int_equal(encoding, AMP_PROTOBUF);
        amp_buf_done(&packed);
    }
    amp_arena_done(&arena);
    return code;
}

static void test_sound_envelopes_are_taken_in_both_encodings(void **state)
{
    static const char *const bodies[] = {
        "\"ping\":{}",
        "\"request\":{\"taskId\":\"t\",\"contextId\":\"c\",\"message\":" MESSAGE
        ",\"hops\":16,\"path\":[\"a\",\"b\"],\"metadata\":{}}",
        "\"frame\":{\"taskId\":\"t\",\"seq\":1,\"events\":[{\"body\":{}}],\"end\":{\"count\":1,\"error\":{\"code\":"
        "3004,\"death\":{\"stderr\":[\"x\"]}}}}",
        "\"control\":{\"cancel\":{\"reason\":\"two\\nlines\"}}",
        "\"control\":{\"answer\":{\"inputId\":\"q\",\"message\":" MESSAGE "}}",
        "\"control\":{\"ping\":{}}",
        "\"reply\":{}",
        "\"beat\":{\"agent\":\"a\",\"instance\":\"i\",\"retry\":\"never\",\"tags\":[\"gpu=1\"],\"tasks\":[\"t\"]}",
        "\"envRequest\":{\"submit\":{\"agent\":\"a\",\"request\":{\"taskId\":\"\",\"contextId\":\"\","
        "\"message\":" MESSAGE "}}}",
        "\"envRequest\":{\"get\":{\"id\":\"t\"}}",
        "\"envRequest\":{\"list\":{}}",
        "\"envRequest\":{\"watch\":{\"id\":\"t\",\"fromSeq\":1}}",
        "\"envRequest\":{\"command\":{\"id\":\"t\",\"control\":{\"cancel\":{}}}}",
        "\"envRequest\":{\"history\":{\"contextId\":\"c\"}}",
        "\"envRequest\":{\"kv\":{\"op\":\"KV_PUT\",\"scope\":\"KV_AGENT\",\"owner\":\"a\",\"key\":\"k\",\"value\":null}"
        "}",
        "\"envRequest\":{\"kv\":{\"op\":\"KV_LIST\",\"scope\":\"KV_SHARED\"}}",
        "\"envRequest\":{\"agents\":{}}",
        "\"envReply\":{\"tasks\":[{\"task\":{\"id\":\"t\"},\"events\":[{\"body\":{}}]}],\"agents\":[{\"name\":\"a\","
        "\"instances\":[{\"beat\":{\"agent\":\"a\",\"instance\":\"i\"}}]}]}",
    };
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        char json[1024];
        struct amp_error err = {.code = AMP_OK};
        snprintf(json, sizeof(json), "{\"version\":1,\"from\":\"cli\",%s}", bodies[i]);
        if (decode(json, 0, &err) != AMP_OK)
            fail_msg("%s: %s: %s", bodies[i], err.field, err.message);
    }
}

static void test_what_makes_no_sense_is_refused_by_name(void **state)
{
    static const struct {
        const char *body;
        enum amp_code code;
        const char *field;
    } cases[] = {
        {"\"x\":1", AMP_INVALID, ""},
        {"\"from\":\"A b\",\"ping\":{}", AMP_INVALID, "from"},
        {"\"from\":\"\",\"ping\":{}", AMP_INVALID, "from"},
        {"\"traceparent\":\"00-\\u001b[31m\",\"ping\":{}", AMP_INVALID, "traceparent"},
        {"\"request\":{\"taskId\":\"\",\"contextId\":\"c\",\"message\":" MESSAGE "}", AMP_INVALID, "request.taskId"},
        {"\"request\":{\"taskId\":\"t\",\"contextId\":\"c.*\",\"message\":" MESSAGE "}", AMP_INVALID,
         "request.contextId"},
        {"\"request\":{\"taskId\":\"t\",\"contextId\":\"c\",\"message\":{}}", AMP_INVALID, "request.message.parts"},
        {"\"request\":{\"taskId\":\"t\",\"contextId\":\"c\",\"message\":" MESSAGE ",\"hops\":17}", AMP_HOPS,
         "request.hops"},
        {"\"request\":{\"taskId\":\"t\",\"contextId\":\"c\",\"message\":" MESSAGE ",\"path\":[\"a\",\"B\"]}",
         AMP_INVALID, "request.path[1]"},
        {"\"request\":{\"taskId\":\"t\",\"contextId\":\"c\",\"message\":" MESSAGE ",\"metadata\":[]}", AMP_INVALID,
         "request.metadata"},
        {"\"frame\":{\"taskId\":\"t\",\"seq\":0}", AMP_INVALID, "frame.seq"},
        {"\"frame\":{\"taskId\":\"t\",\"seq\":4294967295,\"events\":[{\"body\":{}}]}", AMP_INVALID, "frame.seq"},
        {"\"frame\":{\"taskId\":\">\",\"seq\":1}", AMP_INVALID, "frame.taskId"},
        {"\"frame\":{\"taskId\":\"t\",\"seq\":1,\"events\":[{\"body\":{}},{\"body\":1}]}", AMP_INVALID,
         "frame.events[1].body"},
        {"\"control\":{}", AMP_INVALID, "control"},
        {"\"control\":{\"answer\":{\"message\":{}}}", AMP_INVALID, "control.answer.message.parts"},
        {"\"control\":{\"answer\":{\"inputId\":\"a\\nb\",\"message\":" MESSAGE "}}", AMP_INVALID,
         "control.answer.inputId"},
        {"\"beat\":{\"agent\":\"a\",\"instance\":\"\"}", AMP_INVALID, "beat.instance"},
        {"\"beat\":{\"agent\":\"a\",\"instance\":\"i\",\"retry\":\"maybe\"}", AMP_INVALID, "beat.retry"},
        {"\"beat\":{\"agent\":\"a\",\"instance\":\"i\",\"host\":\"\\u001b\"}", AMP_INVALID, "beat.host"},
        {"\"reply\":{\"beat\":{\"agent\":\"a\",\"instance\":\"i\",\"death\":{\"tasks\":[\"\"]}}}", AMP_INVALID,
         "reply.beat.death.tasks[0]"},
        {"\"envRequest\":{}", AMP_INVALID, "envRequest"},
        {"\"envRequest\":{\"submit\":{\"request\":{\"taskId\":\"\",\"contextId\":\"\",\"message\":" MESSAGE "}}}",
         AMP_INVALID, "envRequest.submit"},
        {"\"envRequest\":{\"get\":{}}", AMP_INVALID, "envRequest.get.id"},
        {"\"envRequest\":{\"history\":{\"id\":\"t\"}}", AMP_INVALID, "envRequest.history.contextId"},
        {"\"envRequest\":{\"watch\":{\"id\":\"t\",\"fromSeq\":0}}", AMP_INVALID, "envRequest.watch.fromSeq"},
        {"\"envRequest\":{\"command\":{\"id\":\"t\"}}", AMP_INVALID, "envRequest.command.control"},
        {"\"envRequest\":{\"kv\":{\"op\":\"KV_GET\",\"scope\":\"KV_SHARED\"}}", AMP_INVALID, "envRequest.kv.key"},
        {"\"envRequest\":{\"kv\":{\"op\":\"KV_PUT\",\"scope\":\"KV_SHARED\",\"key\":\"k\"}}", AMP_INVALID,
         "envRequest.kv.value"},
        {"\"envRequest\":{\"kv\":{\"op\":\"KV_GET\",\"scope\":\"KV_AGENT\",\"key\":\"k\"}}", AMP_INVALID,
         "envRequest.kv.owner"},
        {"\"envReply\":{\"tasks\":[{\"task\":{\"id\":\"\"}}]}", AMP_INVALID, "envReply.tasks[0].task.id"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char json[1024];
        struct amp_error err = {.code = AMP_OK};
        snprintf(json, sizeof(json), "{\"version\":1,%s}", cases[i].body);
        enum amp_code code = decode(json, 0, &err);
        if (code != cases[i].code || strcmp(err.field, cases[i].field) != 0)
            fail_msg("%s: %d at '%s': %s", cases[i].body, (int)code, err.field, err.message);
    }
}

static void test_another_version_and_another_body_are_refused(void **state)
{
    struct amp_error err;
    assert_int_equal(decode("{\"version\":2,\"ping\":{}}", 0, &err), AMP_VERSION);
    assert_int_equal(decode("{\"version\":1,\"ping\":{}}", 1u << AMP__ENVELOPE__BODY_PING, &err), AMP_OK);
    assert_int_equal(decode("{\"version\":1,\"ping\":{}}", 1u << AMP__ENVELOPE__BODY_FRAME, &err), AMP_INVALID);
}

static void test_lists_of_a_body_have_maxima(void **state)
{
    static const struct {
        const char *begin, *element, *end, *field;
        unsigned max;
    } cases[] = {
        {"\"request\":{\"taskId\":\"t\",\"contextId\":\"c\",\"message\":" MESSAGE ",\"path\":[", "\"a\"", "]}",
         "request.path", AMP_HOPS_MAX},
        {"\"beat\":{\"agent\":\"a\",\"instance\":\"i\",\"tags\":[", "\"k=v\"", "]}", "beat.tags", AMP_TAGS_MAX},
        {"\"beat\":{\"agent\":\"a\",\"instance\":\"i\",\"tasks\":[", "\"t\"", "]}", "beat.tasks",
         AMP_INFLIGHT_TASKS_REPORTED},
        {"\"reply\":{\"error\":{\"code\":1,\"death\":{\"stderr\":[", "\"line\"", "]}}}", "reply.error.death.stderr",
         AMP_STDERR_LINES_MAX},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (unsigned extra = 0; extra < 2; extra++) {
            struct amp_buf json;
            struct amp_error err = {.code = AMP_OK};
            amp_buf_init(&json, 1 << 20);
            (void)amp_buf_printf(&json, "{\"version\":1,%s", cases[i].begin);
            for (unsigned k = 0; k < cases[i].max + extra; k++)
                (void)amp_buf_printf(&json, "%s%s", k ? "," : "", cases[i].element);
            (void)amp_buf_printf(&json, "%s}", cases[i].end);
            assert_int_equal(amp_buf_append(&json, "", 1), AMP_OK);
            assert_int_equal(decode((const char *)json.data, 0, &err), extra ? AMP_INVALID : AMP_OK);
            assert_string_equal(err.field, extra ? cases[i].field : "");
            amp_buf_done(&json);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound_envelopes_are_taken_in_both_encodings),
        cmocka_unit_test(test_what_makes_no_sense_is_refused_by_name),
        cmocka_unit_test(test_another_version_and_another_body_are_refused),
        cmocka_unit_test(test_lists_of_a_body_have_maxima),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
