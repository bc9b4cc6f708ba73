/* UTF-8: validity, cutting, and text made fit for a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#include "utf8.h"

static void test_exactly_the_characters_of_rfc_3629_are_valid(void **state)
{
    static const char *const good[] = {"",
                                       "a",
                                       "\x7f",
                                       "\xC2\x80",
                                       "\xDF\xBF",
                                       "\xE0\xA0\x80",
                                       "\xED\x9F\xBF",
                                       "\xEE\x80\x80",
                                       "\xEF\xBF\xBF",
                                       "\xF0\x90\x80\x80",
                                       "\xF4\x8F\xBF\xBF",
                                       "eight by€te boundary é"};
    static const char *const bad[] = {"\x80",     "\xC0\x80",         "\xC1\xBF",         "\xC2",
                                      "\xC2x",    "\xE0\x9F\xBF",     "\xED\xA0\x80",     "\xED\xBF\xBF",
                                      "\xE2\x82", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                                      "\xFF",     "12345678\xFE"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(amp_utf8_is_valid(amp_bytes_of(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(amp_utf8_is_valid(amp_bytes_of(bad[i])));
}

static void test_a_cut_never_splits_a_character(void **state)
{
    struct amp_bytes text = amp_bytes_of("aé€😀z");
    static const size_t expected[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11, 11};
    for (size_t max = 0; max < sizeof(expected) / sizeof(expected[0]); max++)
        assert_int_equal(amp_utf8_cut(text, max), expected[max]);
}

/* Each length and each place, in memory that ends where the text does: it is read 16 bytes at a time. */
static void test_plain_bytes_are_skipped_up_to_the_first_special_one(void **state)
{
    static const char special[] = {'"', '\\', 0x1F, '\0', (char)0x80, (char)0xFF};
    for (size_t len = 1; len <= 70; len++) {
        uint8_t *text = malloc(len);
        assert_non_null(text);
        memset(text, 0x7F, len);
        assert_ptr_equal(utf8_skip_plain(text, text + len), text + len);
        for (size_t at = 0; at < len; at++) {
            for (size_t k = 0; k < sizeof(special); k++) {
                text[at] = (uint8_t)special[k];
                assert_ptr_equal(utf8_skip_plain(text, text + len), text + at);
            }
            text[at] = ' ';
        }
        free(text);
    }
}

static void assert_sanitized(const char *text, bool one_line, const char *expected)
{
    struct amp_buf out;
    amp_buf_init(&out, 1000);
    assert_int_equal(amp_text_sanitize(&out, amp_bytes_of(text), one_line), AMP_OK);
    assert_int_equal(out.len, strlen(expected));
    if (out.len > 0)
        assert_memory_equal(out.data, expected, out.len);
    amp_buf_done(&out);
}

static void test_what_changes_a_terminal_becomes_visible(void **state)
{
    assert_sanitized("", true, "");
    assert_sanitized("plain é€😀", true, "plain é€😀");
    assert_sanitized("\x1b[31mred\x07", true, "\\u{1B}[31mred\\u{7}");
    assert_sanitized("a\nb\tc\rd", false, "a\nb\tc\\u{D}d");
    assert_sanitized("a\nb\tc", true, "a\\u{A}b\\u{9}c");
    assert_sanitized("\x7f\xC2\x9B", false, "\\u{7F}\\u{9B}");
    assert_sanitized("\xE2\x80\xAEgpj.exe", false, "\\u{202E}gpj.exe");
    assert_sanitized("\xE2\x80\xA8\xE2\x81\xA6\xD8\x9C", false, "\\u{2028}\\u{2066}\\u{61C}");
    assert_sanitized("a\xFF\xFE"
                     "b\xE2\x82",
                     false,
                     "a\xEF\xBF\xBD\xEF\xBF\xBD"
                     "b\xEF\xBF\xBD");
}

static void test_a_full_buffer_stops_the_text(void **state)
{
    struct amp_buf out;
    amp_buf_init(&out, 5);
    assert_int_equal(amp_text_sanitize(&out,
                                       amp_bytes_of("ab\x1b"
                                                    "cd"),
                                       true),
                     AMP_TOO_LARGE);
    assert_true(out.len <= 5);
    amp_buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_bytes_are_skipped_up_to_the_first_special_one),
        cmocka_unit_test(test_exactly_the_characters_of_rfc_3629_are_valid),
        cmocka_unit_test(test_a_cut_never_splits_a_character),
        cmocka_unit_test(test_what_changes_a_terminal_becomes_visible),
        cmocka_unit_test(test_a_full_buffer_stops_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
