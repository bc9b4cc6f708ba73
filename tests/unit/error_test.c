#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

static void test_an_error_says_field_and_message_and_returns_its_code(void **state)
{
    struct amp_error err;
    assert_int_equal(amp_error_set(&err, AMP_INVALID, "a.b", "%d is odd", 3), AMP_INVALID);
    amp_error_hint(&err, "use %d", 4);
    assert_int_equal(err.code, AMP_INVALID);
    assert_string_equal(err.field, "a.b");
    assert_string_equal(err.message, "3 is odd");
    assert_string_equal(err.hint, "use 4");
}

static void test_an_error_may_be_nobodys(void **state)
{
    assert_int_equal(amp_error_set(NULL, AMP_BUSY, "x", "y"), AMP_BUSY);
    amp_error_hint(NULL, "z");
}

static void test_an_error_may_quote_itself(void **state)
{
    struct amp_error err;
    amp_error_set(&err, AMP_INVALID, "f", "inner");
    amp_error_set(&err, AMP_FRAMES_LOST, err.field, "outer: %s", err.message);
    assert_string_equal(err.message, "outer: inner");
    assert_string_equal(err.field, "f");
}

static void test_foreign_text_in_an_error_cannot_reach_a_terminal(void **state)
{
    struct amp_error err;
    amp_error_set(&err, AMP_INVALID, "f\x1b[2J", "a\x1b]0;x\x07\xff\nb");
    amp_error_hint(&err, "\xe2\x80\xae");
    for (const char *at = err.message; *at; at++)
        assert_true((unsigned char)*at >= 0x20);
    assert_null(strchr(err.field, 0x1b));
    assert_null(strstr(err.hint, "\xe2\x80\xae"));
    assert_true(amp_utf8_is_valid(amp_bytes_of(err.message)));
}

static void test_a_long_error_is_cut_at_a_characters_end(void **state)
{
    char text[2000] = "";
    for (int i = 0; i < 900; i++)
        memcpy(text + 2 * i, "\xc3\xa4", 3);
    struct amp_error err;
    amp_error_set(&err, AMP_INVALID, text, "x%s", text);
    assert_true(strlen(err.message) > 500);
    assert_true(amp_utf8_is_valid(amp_bytes_of(err.message)));
    assert_true(strlen(err.field) > 90);
    assert_true(amp_utf8_is_valid(amp_bytes_of(err.field)));
}

static void test_an_error_goes_over_the_wire_and_back(void **state)
{
    struct amp_error err, back;
    amp_error_set(&err, AMP_BUSY, "agent", "full");
    amp_error_hint(&err, "wait");
    err.retry_after_ms = 250;
    Amp__Error wire;
    amp_error_to_wire(&err, &wire);
    assert_string_equal(wire.name, "busy");
    amp_error_from_wire(&back, &wire);
    assert_memory_equal(&back.code, &err.code, sizeof(err.code));
    assert_string_equal(back.field, err.field);
    assert_string_equal(back.message, err.message);
    assert_string_equal(back.hint, err.hint);
    assert_int_equal(back.retry_after_ms, 250);
}

static void test_an_unknown_code_from_the_wire_keeps_its_text(void **state)
{
    Amp__Error wire = AMP__ERROR__INIT;
    struct amp_error err;
    wire.code = 9999;
    wire.message = (char *)"from the future";
    amp_error_from_wire(&err, &wire);
    assert_int_equal(err.code, AMP_INTERNAL);
    assert_string_equal(err.message, "from the future");
    wire.code = 0; /* an error that is none */
    amp_error_from_wire(&err, &wire);
    assert_int_equal(err.code, AMP_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_error_says_field_and_message_and_returns_its_code),
        cmocka_unit_test(test_an_error_may_be_nobodys),
        cmocka_unit_test(test_an_error_may_quote_itself),
        cmocka_unit_test(test_foreign_text_in_an_error_cannot_reach_a_terminal),
        cmocka_unit_test(test_a_long_error_is_cut_at_a_characters_end),
        cmocka_unit_test(test_an_error_goes_over_the_wire_and_back),
        cmocka_unit_test(test_an_unknown_code_from_the_wire_keeps_its_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
