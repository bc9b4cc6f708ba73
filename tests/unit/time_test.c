/* RFC 3339 against libc's calendar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#include <stdio.h>
#include <time.h>

static void test_format_agrees_with_libc_and_parses_back(void **state)
{
    for (int64_t ms = INT64_C(-62135596800000); ms < INT64_C(253402300799999); ms += INT64_C(86399999) * 97) {
        char text[AMP_TIME_SIZE], expected[128], ending[8];
        time_t seconds = (time_t)(ms >= 0 ? ms / 1000 : -((-ms + 999) / 1000));
        struct tm tm;
        assert_non_null(gmtime_r(&seconds, &tm));
        snprintf(ending, sizeof(ending), ".%03dZ", (int)(ms - (int64_t)seconds * 1000) % 1000);
        snprintf(expected, sizeof(expected), "%04d-%02d-%02dT%02d:%02d:%02d%s", tm.tm_year + 1900, tm.tm_mon + 1,
                 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ending);
        amp_time_format(ms, text);
        assert_string_equal(text, expected);
        int64_t back;
        assert_int_equal(amp_time_parse(text, &back), AMP_OK);
        assert_true(back == ms);
    }
}

static void test_offsets_fractions_and_letters_are_taken(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t01:00:00.5+01:00", 500},
        {"1969-12-31T23:59:59.999999999z", -1},
        {"2000-02-29T12:00:00-00:30", INT64_C(951827400000)},
        {"2026-11-23 10:00:00.01Z", INT64_C(1795428000010)},
        {"9999-12-31T23:59:59.999Z", INT64_C(253402300799999)},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t ms;
        assert_int_equal(amp_time_parse(cases[i].text, &ms), AMP_OK);
        assert_true(ms == cases[i].ms);
    }
}

static void test_what_is_no_time_is_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "2026",
        "2026-11-23",
        "2026-11-23T10:00Z",
        "2026-11-23T10:00:00",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00Zx",
        "2026-01-01T00:00:00+1:00",
        "2026-01-01T00:00:00+24:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "-001-01-01T00:00:00Z",
        " 2026-01-01T00:00:00Z",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t ms;
        assert_int_equal(amp_time_parse(cases[i], &ms), AMP_INVALID);
    }
}

static void test_moments_that_cannot_be_written_become_the_nearest(void **state)
{
    char text[AMP_TIME_SIZE];
    amp_time_format(INT64_MIN, text);
    assert_string_equal(text, "0001-01-01T00:00:00.000Z");
    amp_time_format(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_agrees_with_libc_and_parses_back),
        cmocka_unit_test(test_offsets_fractions_and_letters_are_taken),
        cmocka_unit_test(test_what_is_no_time_is_refused),
        cmocka_unit_test(test_moments_that_cannot_be_written_become_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
