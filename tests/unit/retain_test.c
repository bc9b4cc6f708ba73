/* What is old enough to be removed is told by the time that has passed, not by a clock that somebody sets. */
#include "env/env_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HOUR_MS INT64_C(3600000)
#define UNIX_MS INT64_C(1764374400000)

static const struct retain begun = {.begun_ms = 5000, .begun_unix_ms = UNIX_MS};

static void test_time_passes(void **state)
{
    (void)state;
    assert_int_equal(retain_now(&begun, 5000, UNIX_MS), UNIX_MS);
    assert_int_equal(retain_now(&begun, 5000 + HOUR_MS, UNIX_MS + HOUR_MS), UNIX_MS + HOUR_MS);
}

static void test_a_clock_that_is_set_forward_makes_nothing_old(void **state)
{
    (void)state;
    assert_int_equal(retain_now(&begun, 6000, UNIX_MS + 1000 + 400 * 24 * HOUR_MS), UNIX_MS + 1000);
}

static void test_a_clock_that_is_set_back_is_believed(void **state)
{
    (void)state;
    assert_int_equal(retain_now(&begun, 6000, UNIX_MS - HOUR_MS), UNIX_MS - HOUR_MS);
}

static void test_sizes_have_units_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"1", 1}, {"65536", 65536}, {"1K", 1024}, {"1KB", 1024}, {"1KiB", 1024}, {"500M", 500ull << 20}, {"10G", 10ull << 30}, {"1.5G", 3ull << 29}, {"2T", 2ull << 40}};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct env_options options = {0};
        struct amp_error err = {0};
        assert_int_equal(env_retain_parse(&options, NULL, sizes[i].text, &err), AMP_OK);
        assert_int_equal(options.retain_bytes, sizes[i].bytes);
        assert_int_equal(options.retain_age_ms, 0);
    }
}

static void test_what_is_no_size_is_refused_by_its_text(void **state)
{
    static const char *const none[] = {"", "0", "0K", "-1", "-1G", "G", "x", "10X", "10 G", "10Gx", "10GiBs", "10g", "0.5", "nan", "inf", "1e30", "2000000T", "0x10", " 1", "+1", "1,5G", "1e3"};
    (void)state;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        struct env_options options = {0};
        struct amp_error err = {0};
        assert_int_equal(env_retain_parse(&options, NULL, none[i], &err), AMP_INVALID);
        assert_non_null(strstr(err.message, none[i]));
        assert_string_not_equal(err.hint, "");
    }
}

static void test_an_age_is_a_number_with_a_unit(void **state)
{
    static const char *const none[] = {"", "0d", "-1d", "d", " 30d", "+30d", "0x1ed", "1e2d", "infd", "nand", "30 d", "30dd", "36501d"};
    struct env_options options = {0};
    struct amp_error err = {0};
    (void)state;
    assert_int_equal(env_retain_parse(&options, "30d", NULL, &err), AMP_OK);
    assert_int_equal(options.retain_age_ms, 720 * HOUR_MS);
    assert_int_equal(env_retain_parse(&options, "1.5d", NULL, &err), AMP_OK);
    assert_int_equal(options.retain_age_ms, 36 * HOUR_MS);
    assert_int_equal(env_retain_parse(&options, "12h", NULL, &err), AMP_OK);
    assert_int_equal(options.retain_age_ms, 12 * HOUR_MS);
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_int_equal(env_retain_parse(&options, none[i], NULL, &err), AMP_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_passes),
        cmocka_unit_test(test_a_clock_that_is_set_forward_makes_nothing_old),
        cmocka_unit_test(test_a_clock_that_is_set_back_is_believed),
        cmocka_unit_test(test_sizes_have_units_of_1024),
        cmocka_unit_test(test_what_is_no_size_is_refused_by_its_text),
        cmocka_unit_test(test_an_age_is_a_number_with_a_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
