#include "base/civil.h"
#include "base/moment.h"
#include "base/zone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"

static struct zone *zone_of(const char *name)
{
    struct zone *zone = NULL;
    struct amp_error err = {0};
    if (zone_open(name, &zone, &err) != AMP_OK)
        fail_msg("%s: %s", name, err.message);
    return zone;
}

static void test_the_calendar_agrees_with_libc_and_comes_back(void **state)
{
    srand(1);
    for (int i = 0; i < 200000; i++) {
        int64_t seconds = ((int64_t)rand() << 8 ^ rand()) % 253402300800 * (i % 5 == 0 ? -1 : 1) / (i % 3 + 1);
        time_t t = (time_t)seconds;
        struct tm tm;
        struct civil civil = civil_of(seconds);
        assert_non_null(gmtime_r(&t, &tm));
        if (civil.year != tm.tm_year + 1900 || civil.month != tm.tm_mon + 1 || civil.day != tm.tm_mday || civil.hour != tm.tm_hour || civil.minute != tm.tm_min ||
            civil.second != tm.tm_sec || civil.weekday != tm.tm_wday)
            fail_msg("%lld is not %lld-%d-%d", (long long)seconds, (long long)civil.year, civil.month, civil.day);
        assert_int_equal(civil_seconds(&civil), seconds);
        assert_in_range(civil.day, 1, civil_month_days(civil.year, civil.month));
    }
}

/* Each zone at many moments of a hundred years, and around each change that is met. */
static void check_against_libc(const char *name, int64_t from)
{
    struct zone *zone = zone_of(name);
    setenv("TZ", name, 1);
    tzset();
    for (int64_t t = from; t < INT64_C(4000000000); t += 275003) {
        struct zone_span span = zone_span(zone, t);
        const int64_t around[] = {t, span.from == INT64_MIN ? t : span.from, span.from == INT64_MIN ? t : span.from - 1, span.to == INT64_MAX ? t : span.to - 1};
        for (size_t i = 0; i < 4; i++) {
            time_t moment = (time_t)around[i];
            struct tm tm;
            assert_non_null(localtime_r(&moment, &tm));
            if (zone_span(zone, around[i]).offset_s != tm.tm_gmtoff)
                fail_msg("%s at %lld: %d instead of %ld", name, (long long)around[i], zone_span(zone, around[i]).offset_s, tm.tm_gmtoff);
        }
        assert_true(span.from <= t && t < span.to);
    }
    zone_free(zone);
}

static void test_zones_agree_with_libc(void **state)
{
    static const char *const rules[] = {"UTC0", BERLIN, "EST5EDT,M3.2.0,M11.1.0", "AEST-10AEDT,M10.1.0,M4.1.0/3", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "XXX3:30", "AAA1BBB,J60,J300", "AAA1BBB,59,299/4"};
    static const char *const names[] = {"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo", "Africa/Casablanca", "Pacific/Apia", "Europe/Dublin", "America/Nuuk"};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        check_against_libc(rules[i], 2 * 31536000); /* libc knows no summer of rules before 1970 */
    for (size_t i = 0; i < sizeof names / sizeof *names && access("/usr/share/zoneinfo/Europe/Berlin", R_OK) == 0; i++)
        check_against_libc(names[i], -INT64_C(1500000000));
    unsetenv("TZ");
    tzset();
}

static int64_t local(const char *text)
{
    int64_t unix_ms = 0;
    char full[48];
    snprintf(full, sizeof full, "%sZ", text);
    assert_int_equal(amp_time_parse(full, &unix_ms), AMP_OK);
    return unix_ms / 1000;
}

static void test_a_time_that_the_clocks_skip_is_the_skip_and_of_two_it_is_the_first(void **state)
{
    struct zone *zone = zone_of(BERLIN);
    assert_int_equal(zone_to_unix(zone, local("2026-03-29T01:59:59")), local("2026-03-29T00:59:59"));
    assert_int_equal(zone_to_unix(zone, local("2026-03-29T02:00:00")), local("2026-03-29T01:00:00"));
    assert_int_equal(zone_to_unix(zone, local("2026-03-29T02:30:00")), local("2026-03-29T01:00:00"));
    assert_int_equal(zone_to_unix(zone, local("2026-03-29T03:00:00")), local("2026-03-29T01:00:00"));
    assert_int_equal(zone_to_unix(zone, local("2026-10-25T02:30:00")), local("2026-10-25T00:30:00"));
    assert_int_equal(zone_to_unix(zone, local("2026-10-25T03:00:00")), local("2026-10-25T02:00:00"));
    zone_free(zone);
}

static void test_what_is_no_zone_is_refused_with_what_to_write(void **state)
{
    static const char *const names[] = {"Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "CET-1CEST,M3.5.0", "CET-1CEST,M13.5.0,M10.5.0", "A1", "UTC0 ", "CET-1CEST,M3.5.0,M10.5.0/3x",
                                        "-", "<+03-3", "CET-200"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct zone *zone = NULL;
        struct amp_error err = {0};
        if (zone_open(names[i], &zone, &err) != AMP_INVALID)
            fail_msg("\"%s\" was taken", names[i]);
        assert_non_null(strstr(err.message, names[i]));
        assert_true(err.hint[0] != '\0');
    }
}

struct example {
    const char *text, *becomes; /* NULL: refused */
};

static void test_moments_are_read_as_people_write_them(void **state)
{
    static const struct example examples[] = {
        {"2026-12-01T09:00:00Z", "2026-12-01T09:00:00.000Z"},
        {"2026-12-01T09:00:00+05:30", "2026-12-01T03:30:00.000Z"},
        {"2026-12-01 09:00", "2026-12-01T08:00:00.000Z"},
        {"2026-12-01T09:00:30", "2026-12-01T08:00:30.000Z"},
        {"2027-03-28 02:30", "2027-03-28T01:00:00.000Z"}, /* skipped by the clocks */
        {"13:01", "2026-11-28T12:01:00.000Z"},             /* it is 13:00 */
        {"13:00", "2026-11-29T12:00:00.000Z"},
        {"13:00:01", "2026-11-28T12:00:01.000Z"},
        {"09:00", "2026-11-29T08:00:00.000Z"},
        {"+90s", "2026-11-28T12:01:30.000Z"},
        {"+1.5h", "2026-11-28T13:30:00.000Z"},
        {"in 2d", "2026-11-30T12:00:00.000Z"},
        {"2026-11-28T12:00:00Z", NULL}, /* now */
        {"2026-11-28 12:59", NULL},
        {"2026-02-29 09:00", NULL},
        {"24:00", NULL},
        {"9:00", NULL},
        {"09:00 ", NULL},
        {"+0s", NULL},
        {"+-5s", NULL},
        {"-5m", NULL},
        {"in", NULL},
        {"", NULL},
        {"tomorrow", NULL},
        {"2026-12-01", NULL},
        {"2026-12-01 09", NULL},
    };
    struct zone *zone = zone_of(BERLIN);
    int64_t now = local("2026-11-28T12:00:00") * 1000;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        struct moment moment;
        struct amp_error err = {0};
        char text[AMP_TIME_SIZE] = "";
        enum amp_code code = moment_parse(examples[i].text, now, zone, &moment, &err);
        if (code == AMP_OK)
            amp_time_format(moment.unix_ms, text);
        if (strcmp(text, examples[i].becomes ? examples[i].becomes : "") != 0)
            fail_msg("\"%s\" is %s (%s)", examples[i].text, text, err.message);
        if (code == AMP_OK)
            assert_int_equal(moment.in_ms != 0, examples[i].text[0] == '+' || examples[i].text[0] == 'i');
    }
    zone_free(zone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_calendar_agrees_with_libc_and_comes_back),
        cmocka_unit_test(test_zones_agree_with_libc),
        cmocka_unit_test(test_a_time_that_the_clocks_skip_is_the_skip_and_of_two_it_is_the_first),
        cmocka_unit_test(test_what_is_no_zone_is_refused_with_what_to_write),
        cmocka_unit_test(test_moments_are_read_as_people_write_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
