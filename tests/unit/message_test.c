#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

static struct amp_arena arena;

static const Amp__Message *message_of(const char *json)
{
    ProtobufCMessage *made;
    struct amp_error err;
    amp_arena_reset(&arena);
    if (amp_decode(&amp__message__descriptor, amp_bytes_of(json), &arena, &made, &err) != AMP_OK)
        fail_msg("%s: %s", err.field, err.message);
    return (const Amp__Message *)made;
}

static void test_a_message_with_any_one_content_per_part_is_good(void **state)
{
    const Amp__Message *message = message_of(
        "{\"messageId\":\"8F1E-x\",\"contextId\":\"c-1\",\"taskId\":\"t-1\",\"role\":\"ROLE_USER\",\"parts\":["
        "{\"text\":\"\"},{\"raw\":\"AA==\",\"filename\":\"a.bin\",\"mediaType\":\"application/octet-stream\"},"
        "{\"url\":\"https://x/y\"},{\"data\":{\"a\":[1]}}]}");
    assert_int_equal(amp_message_check(message, "message", NULL), AMP_OK);
}

static void test_ids_and_role_may_be_left_to_the_sidecar(void **state)
{
    assert_int_equal(amp_message_check(message_of("{\"parts\":[{\"text\":\"hi\"}]}"), "message", NULL), AMP_OK);
}

static void test_what_is_wrong_is_named_by_its_path(void **state)
{
    static const struct {
        const char *json, *field;
    } rows[] = {
        {"{\"messageId\":\"x\"}", "request.message.parts"},
        {"{\"parts\":[{\"text\":\"a\"},{\"filename\":\"f\"}]}", "request.message.parts[1]"},
        {"{\"parts\":[{\"url\":\"\"}]}", "request.message.parts[0].url"},
        {"{\"parts\":[{\"text\":\"a\",\"filename\":\"a\\r\\nb\"}]}", "request.message.parts[0].filename"},
        {"{\"parts\":[{\"text\":\"a\",\"mediaType\":\"\\u001b[2J\"}]}", "request.message.parts[0].mediaType"},
        {"{\"contextId\":\"a.b\",\"parts\":[{\"text\":\"a\"}]}", "request.message.contextId"},
        {"{\"taskId\":\">\",\"parts\":[{\"text\":\"a\"}]}", "request.message.taskId"},
        {"{\"messageId\":\"a\\nb\",\"parts\":[{\"text\":\"a\"}]}", "request.message.messageId"},
        {"{\"role\":\"ROLE_UNSPECIFIED\",\"parts\":[{\"text\":\"a\"}]}", "request.message.role"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct amp_error err = {0};
        assert_int_equal(amp_message_check(message_of(rows[i].json), "request.message", &err), AMP_INVALID);
        assert_string_equal(err.field, rows[i].field);
    }
}

static void test_a_part_with_two_contents_is_refused(void **state)
{
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    struct amp_error err;
    message.parts = parts;
    message.n_parts = 1;
    part.text = (char *)"a";
    part.url = (char *)"b";
    assert_int_equal(amp_message_check(&message, "m", &err), AMP_INVALID);
    assert_string_equal(err.field, "m.parts[0]");
}

static void test_parts_are_counted(void **state)
{
    Amp__Part part = AMP__PART__INIT, *parts[AMP_PARTS_MAX + 1];
    Amp__Message message = AMP__MESSAGE__INIT;
    part.text = (char *)"a";
    for (size_t i = 0; i <= AMP_PARTS_MAX; i++)
        parts[i] = &part;
    message.parts = parts;
    message.n_parts = AMP_PARTS_MAX;
    assert_int_equal(amp_message_check(&message, "m", NULL), AMP_OK);
    message.n_parts++;
    assert_int_equal(amp_message_check(&message, "m", NULL), AMP_INVALID);
}

static void test_the_text_of_a_message_is_that_of_its_text_parts(void **state)
{
    struct amp_buf buf;
    amp_buf_init(&buf, 8);
    const Amp__Message *message =
        message_of("{\"parts\":[{\"text\":\"ab\"},{\"data\":1},{\"text\":\"\"},{\"text\":\"cd\"}]}");
    assert_int_equal(amp_message_text(message, &buf), AMP_OK);
    assert_int_equal(buf.len, 4);
    assert_memory_equal(buf.data, "abcd", 4);
    assert_int_equal(amp_message_text(message_of("{\"parts\":[{\"text\":\"too long\"}]}"), &buf), AMP_TOO_LARGE);
    amp_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_with_any_one_content_per_part_is_good),
        cmocka_unit_test(test_ids_and_role_may_be_left_to_the_sidecar),
        cmocka_unit_test(test_what_is_wrong_is_named_by_its_path),
        cmocka_unit_test(test_a_part_with_two_contents_is_refused),
        cmocka_unit_test(test_parts_are_counted),
        cmocka_unit_test(test_the_text_of_a_message_is_that_of_its_text_parts),
    };
    amp_arena_init(&arena, 1u << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    amp_arena_done(&arena);
    return failed;
}
