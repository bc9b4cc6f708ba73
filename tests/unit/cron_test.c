#include "env/cron.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/civil.h"
#include "base/zone.h"

#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"
#define LORD_HOWE "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0" /* half an hour */

static struct zone *zone_of(const char *name)
{
    struct zone *zone = NULL;
    assert_int_equal(zone_open(name, &zone, NULL), AMP_OK);
    return zone;
}

static int64_t utc(const char *text)
{
    int64_t unix_ms = 0;
    char full[48];
    snprintf(full, sizeof full, "%sZ", text);
    if (amp_time_parse(full, &unix_ms) != AMP_OK)
        fail_msg("%s", text);
    return unix_ms / 1000;
}

/* After a moment (UTC) the next runs are these (UTC). */
struct example {
    const char *cron, *zone, *after;
    const char *runs[6];
};

static const struct example examples[] = {
    {"*/15 9-17 * * mon-fri", "UTC", "2026-11-27T17:31:00", {"2026-11-27T17:45:00", "2026-11-30T09:00:00", "2026-11-30T09:15:00"}},
    {"0 9 * * *", "UTC", "2026-11-27T09:00:00", {"2026-11-28T09:00:00"}},
    {"0 9 * * *", "UTC", "2026-11-27T08:59:59", {"2026-11-27T09:00:00"}},
    {"5/20 * * * *", "UTC", "2026-01-01T00:00:00", {"2026-01-01T00:05:00", "2026-01-01T00:25:00", "2026-01-01T00:45:00", "2026-01-01T01:05:00"}},
    {"0 0 1,15 * *", "UTC", "2026-01-02T00:00:00", {"2026-01-15T00:00:00", "2026-02-01T00:00:00"}},
    {"0 0 13 * fri", "UTC", "2026-11-01T00:00:00", {"2026-11-06T00:00:00", "2026-11-13T00:00:00", "2026-11-20T00:00:00", "2026-11-27T00:00:00", "2026-12-04T00:00:00", "2026-12-11T00:00:00"}},
    {"0 0 */2 * mon", "UTC", "2026-11-01T00:00:00", {"2026-11-09T00:00:00", "2026-11-23T00:00:00", "2026-12-07T00:00:00"}}, /* both: one begins with a star */
    {"0 0 29 feb *", "UTC", "2026-01-01T00:00:00", {"2028-02-29T00:00:00", "2032-02-29T00:00:00"}},
    {"0 0 29 2 *", "UTC", "2096-03-01T00:00:00", {"2104-02-29T00:00:00"}}, /* 2100 is no leap year */
    {"0 0 31 * *", "UTC", "2026-01-31T00:00:00", {"2026-03-31T00:00:00", "2026-05-31T00:00:00", "2026-07-31T00:00:00", "2026-08-31T00:00:00"}},
    {"0 12 * * fri-sun", "UTC", "2026-11-26T00:00:00", {"2026-11-27T12:00:00", "2026-11-28T12:00:00", "2026-11-29T12:00:00", "2026-12-04T12:00:00"}},
    {"0 12 * * 7", "UTC", "2026-11-26T00:00:00", {"2026-11-29T12:00:00", "2026-12-06T12:00:00"}},
    {"@hourly", "UTC", "2026-11-26T22:30:00", {"2026-11-26T23:00:00", "2026-11-27T00:00:00"}},
    {"@daily", "UTC", "2026-12-31T00:00:00", {"2027-01-01T00:00:00"}},
    {"@weekly", "UTC", "2026-11-26T00:00:00", {"2026-11-29T00:00:00", "2026-12-06T00:00:00"}},
    {"@monthly", "UTC", "2026-11-26T00:00:00", {"2026-12-01T00:00:00", "2027-01-01T00:00:00"}},
    {"@yearly", "UTC", "2026-11-26T00:00:00", {"2027-01-01T00:00:00", "2028-01-01T00:00:00"}},
    {"0 9 * JAN,Mar MON", BERLIN, "2026-01-26T12:00:00", {"2026-03-02T08:00:00", "2026-03-09T08:00:00"}},
    /* Clocks forward, 02:00 to 03:00 on 2026-03-29 at 01:00 UTC. */
    {"30 2 * * *", BERLIN, "2026-03-28T12:00:00", {"2026-03-29T01:00:00", "2026-03-30T00:30:00"}},
    {"0,30 2 * * *", BERLIN, "2026-03-28T12:00:00", {"2026-03-29T01:00:00", "2026-03-30T00:00:00"}}, /* once, not once for each */
    {"0 2,3 * * *", BERLIN, "2026-03-28T12:00:00", {"2026-03-29T01:00:00", "2026-03-30T00:00:00"}},
    {"59 1 * * *", BERLIN, "2026-03-29T00:00:00", {"2026-03-29T00:59:00", "2026-03-29T23:59:00"}},
    {"30 * * * *", BERLIN, "2026-03-29T00:00:00", {"2026-03-29T00:30:00", "2026-03-29T01:30:00", "2026-03-29T02:30:00"}},
    /* Clocks back, 03:00 to 02:00 on 2026-10-25 at 01:00 UTC. */
    {"30 2 * * *", BERLIN, "2026-10-24T12:00:00", {"2026-10-25T00:30:00", "2026-10-26T01:30:00"}},
    {"30 2 * * *", BERLIN, "2026-10-25T01:10:00", {"2026-10-26T01:30:00"}}, /* asked within the second of the two hours */
    {"0 3 * * *", BERLIN, "2026-10-25T00:00:00", {"2026-10-25T02:00:00"}},
    {"30 * * * *", BERLIN, "2026-10-25T00:00:00", {"2026-10-25T00:30:00", "2026-10-25T01:30:00", "2026-10-25T02:30:00"}},
    {"45 1 * * *", LORD_HOWE, "2026-04-04T00:00:00", {"2026-04-04T14:45:00", "2026-04-05T15:15:00"}},
};

static void test_the_next_runs_are_as_cron_has_them(void **state)
{
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const struct example *example = &examples[i];
        struct zone *zone = zone_of(example->zone);
        struct cron cron;
        struct amp_error err = {0};
        if (cron_parse(example->cron, &cron, &err) != AMP_OK)
            fail_msg("%s", err.message);
        int64_t at = utc(example->after);
        for (size_t k = 0; k < 6 && example->runs[k]; k++) {
            char text[AMP_TIME_SIZE];
            at = cron_next(&cron, zone, at);
            amp_time_format(at == INT64_MAX ? 0 : at * 1000, text);
            if (at != utc(example->runs[k]))
                fail_msg("%s in %s after %s: run %zu is at %s, not at %s", example->cron, example->zone, example->after, k + 1, text, example->runs[k]);
        }
        zone_free(zone);
    }
}

static void test_what_is_no_expression_is_refused_with_the_field(void **state)
{
    static const char *const wrong[][2] = {
        {"", "minute"}, {"* * * *", "day of the week"}, {"* * * * * *", "more than five"}, {"60 * * * *", "minute"}, {"* 24 * * *", "hour"}, {"* * 0 * *", "day of the month"},
        {"* * 32 * *", "day of the month"}, {"* * * 13 *", "month"}, {"* * * * 8", "day of the week"}, {"5-1 * * * *", "ends before"}, {"*/0 * * * *", "step"}, {"*/60 * * * *", "step"},
        {"61 * * * *", "the minute goes from 0 to 59: 61 is none of it"}, {"0 0-24 * * *", "the hour goes from 0 to 23: 24 is none of it"},
        {"* * * foo,13 *", "the month goes from 1 to 12, or jan to dec: foo is none of it"}, {"* * * * fry", "the day of the week goes from 0 to 7, or sun to sat: fry is none of it"},
        {"*,-5 * * * *", "the minute goes from 0 to 59: -5 is none of it"}, {"5m * * * *", "5m is none of it"}, {",5 * * * *", "nothing where a value belongs"}, {"5- * * * *", "range without an end"},
        {"1, * * * *", "minute"}, {",1 * * * *", "minute"}, {"1-* * * * *", "range"}, {"* * * janu *", "month"}, {"* * * * monday", "day of the week"}, {"x * * * *", "minute"},
        {"-1 * * * *", "minute"}, {"* * 30 2 *", "never"}, {"* * 31 4,6,9,11 *", "never"}, {"@reboot", "not known"}, {"@daily x", "not known"}, {"1;2 * * * *", "minute"}, {"99999 * * * *", "minute"},
        {"* * * * tue-mon", "ends before"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct cron cron;
        struct amp_error err = {0};
        if (cron_parse(wrong[i][0], &cron, &err) != AMP_INVALID)
            fail_msg("\"%s\" was taken", wrong[i][0]);
        if (!strstr(err.message, wrong[i][1]) || !err.hint[0])
            fail_msg("\"%s\": %s (%s)", wrong[i][0], err.message, err.hint);
    }
}

/* ---- by brute force -------------------------------------------------------------------------------------------- */

static bool is_shown(const struct cron *cron, int64_t local_s)
{
    struct civil civil = civil_of(local_s);
    bool is_month_day = cron->days >> civil.day & 1, is_weekday = cron->weekdays >> civil.weekday & 1;
    bool is_day = cron->is_any_day || cron->is_any_weekday ? is_month_day && is_weekday : is_month_day || is_weekday;
    return civil.second == 0 && cron->minutes >> civil.minute & 1 && cron->hours >> civil.hour & 1 && cron->months >> civil.month & 1 && is_day;
}

/* Does it run at this full minute? Each local time is looked at on its own; zone_to_unix says when it counts. */
static bool is_run(const struct cron *cron, const struct zone *zone, int64_t at)
{
    int64_t local = at + zone_span(zone, at).offset_s, before = at - 1 + zone_span(zone, at - 1).offset_s;
    if (cron->hours == 0xFFFFFF)
        return is_shown(cron, local);
    for (int64_t skipped = before + 1; skipped < local; skipped += 60)
        if (is_shown(cron, skipped))
            return true;
    return is_shown(cron, local) && zone_to_unix(zone, local) == at;
}

static void append_field(char *text, size_t size, int min, int max)
{
    size_t len = strlen(text);
    int a = min + rand() % (max - min + 1), b = a + rand() % (max - a + 1);
    switch (rand() % 5) {
    case 0: snprintf(text + len, size - len, "%d ", a); break;
    case 1: snprintf(text + len, size - len, "%d-%d ", a, b); break;
    case 2: snprintf(text + len, size - len, "*/%d ", 1 + rand() % (max < 30 ? max : 30)); break;
    case 3: snprintf(text + len, size - len, "%d,%d ", a, b); break;
    default: snprintf(text + len, size - len, "* "); break;
    }
}

static void test_the_next_run_is_behind_and_nothing_is_between(void **state)
{
    static const char *const zones[] = {"UTC", BERLIN, LORD_HOWE, "EST5EDT,M3.2.0,M11.1.0", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0"};
    static const char *const begins[] = {"2026-03-28T12:00:00", "2026-10-24T12:00:00", "2028-02-27T20:00:00", "2026-04-03T12:00:00", "2026-10-02T20:00:00", "2026-03-07T12:00:00", "2026-10-31T12:00:00", "2026-12-30T12:00:00"};
    srand(11);
    for (int i = 0; i < 600; i++) {
        struct zone *zone = zone_of(zones[rand() % 5]);
        char text[128] = "";
        struct cron cron;
        append_field(text, sizeof text, 0, 59);
        append_field(text, sizeof text, 0, rand() % 2 ? 4 : 23); /* near the changes, mostly */
        append_field(text, sizeof text, 1, 31);
        append_field(text, sizeof text, 1, 12);
        append_field(text, sizeof text, 0, 7);
        if (cron_parse(text, &cron, NULL) == AMP_OK) {
            int64_t after = utc(begins[rand() % 8]) + rand() % 7200, at = after + 1 + (60 - (after + 1) % 60) % 60, end = after + 3 * 86400;
            while (at < end && !is_run(&cron, zone, at))
                at += 60;
            int64_t next = cron_next(&cron, zone, after);
            if (at < end ? next != at : next < end)
                fail_msg("\"%s\" after %lld: %lld, not %lld", text, (long long)after, (long long)next, (long long)at);
        }
        zone_free(zone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_next_runs_are_as_cron_has_them),
        cmocka_unit_test(test_what_is_no_expression_is_refused_with_the_field),
        cmocka_unit_test(test_the_next_run_is_behind_and_nothing_is_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
