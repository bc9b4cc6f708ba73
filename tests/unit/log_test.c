#include "base/log.h"

#include <amp/amp.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int64_t ahead_ms; /* of the clock */
int64_t __real_clock_mono_ms(void);
int64_t __wrap_clock_mono_ms(void);
int64_t __wrap_clock_mono_ms(void) { return __real_clock_mono_ms() + ahead_ms; }

static int real_stderr;
static FILE *sink;

static void capture(void)
{
    fflush(stderr);
    real_stderr = dup(2);
    sink = tmpfile();
    dup2(fileno(sink), 2);
}

static const char *captured(void)
{
    static char text[2 << 20];
    rewind(sink);
    text[fread(text, 1, sizeof text - 1, sink)] = '\0';
    dup2(real_stderr, 2);
    close(real_stderr);
    fclose(sink);
    return text;
}

static void test_a_line_is_one_json_document_and_numbers_are_numbers(void **state)
{
    log_init(LOG_INFO, "test");
    capture();
    log_event(LOG_WARN, "some.event", "text", "say \"hi\"\n\x1b[31m", "n", log_int(-42), NULL);
    const char *line = captured();
    size_t len = strlen(line);
    assert_int_equal(line[len - 1], '\n');
    assert_ptr_equal(strchr(line, '\n'), line + len - 1);
    struct amp_error error = {0};
    assert_int_equal(amp_json_check((struct amp_bytes){(const uint8_t *)line, len}, &amp_json_limits_default, &error), AMP_OK);
    assert_non_null(strstr(line, "\"level\":\"warn\",\"program\":\"test\",\"event\":\"some.event\""));
    assert_non_null(strstr(line, "\"n\":-42"));
    assert_null(strchr(line, '\x1b'));
}

static void test_secrets_do_not_reach_the_log(void **state)
{
    log_init(LOG_INFO, "test");
    capture();
    log_event(LOG_INFO, "e", "token", "s3cret", "Password", "s3cret", "creds", "s3cret", "secret", "s3cret", "authorization", "s3cret", NULL);
    log_event(LOG_INFO, "e", "url", "nats://user:s3cret@host:4222,nats://s3cret@other", "why", "cannot reach 'tls://u:s3/cret@h/' now", "who",
              "me@example.org", NULL);
    log_event(LOG_INFO, "e", "url", "u:s3cret@host", NULL);
    const char *lines = captured();
    assert_null(strstr(lines, "s3"));
    assert_non_null(strstr(lines, "nats://***@host:4222,nats://***@other"));
    assert_non_null(strstr(lines, "me@example.org"));
}

static void test_less_than_the_level_is_not_said(void **state)
{
    log_init(LOG_WARN, "test");
    capture();
    log_event(LOG_INFO, "quiet", NULL);
    log_event(LOG_ERROR, "loud", NULL);
    const char *lines = captured();
    assert_null(strstr(lines, "quiet"));
    assert_non_null(strstr(lines, "loud"));
}

static void test_repeats_of_one_call_site_are_limited_and_others_are_not(void **state)
{
    log_init(LOG_INFO, "test");
    capture();
    for (int i = 0; i < 1000; i++)
        log_event(LOG_INFO, "flood", "i", log_int(i), NULL);
    log_event(LOG_INFO, "other", NULL);
    const char *lines = captured();
    int said = 0;
    for (const char *at = lines; (at = strstr(at, "\"event\":\"flood\"")); at++)
        said++;
    assert_in_range(said, 20, 40); /* 40: when a second ended in between */
    assert_non_null(strstr(lines, "\"event\":\"other\""));
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

static void steady(int i)
{
    log_event(LOG_INFO, "steady", "i", log_int(i), NULL);
}

/* Whoever sends a line's cause for hours fills no disk; the first of it, and how much there was, is said all the same. */
static void test_what_goes_on_repeating_is_said_less_and_less(void **state)
{
    log_init(LOG_INFO, "test");
    capture();
    for (int i = 0; i < 3600 * 100; i++, ahead_ms += 10)
        steady(i);
    const char *lines = captured();
    unsigned said = count(lines, "\"event\":\"steady\""), summed = count(lines, "\"event\":\"log.left_out\"");
    assert_in_range(said, 1000, 3000);
    assert_in_range(summed, said / 20 - 1, said / 20 + 1);
    ahead_ms += 120000;
    capture();
    for (int second = 0; second < 60; second++, ahead_ms += 1000)
        for (int i = 0; i < 15; i++)
            steady(i);
    assert_in_range(count(captured(), "\"event\":\"steady\""), 60 * 15, 60 * 15); /* after a while without it is new again */
}

static void test_a_long_value_is_cut_and_the_line_stays_whole(void **state)
{
    log_init(LOG_INFO, "test");
    char *value = malloc(100001);
    memset(value, 'x', 100000);
    value[100000] = '\0';
    capture();
    log_event(LOG_INFO, "long", "a", value, "b", value, "c", value, "d", value, "e", value, "f", "short", NULL);
    const char *line = captured();
    free(value);
    struct amp_error error = {0};
    assert_int_equal(amp_json_check(amp_bytes_of(line), &amp_json_limits_default, &error), AMP_OK);
    assert_true(strlen(line) <= (16 << 10) + 2);
}

static void test_the_level_comes_from_the_environment(void **state)
{
    unsetenv("AMESH_LOG");
    assert_int_equal(log_level_from_env(LOG_WARN), LOG_WARN);
    setenv("AMESH_LOG", "debug", 1);
    assert_int_equal(log_level_from_env(LOG_WARN), LOG_DEBUG);
    setenv("AMESH_LOG", "nonsense", 1);
    assert_int_equal(log_level_from_env(LOG_WARN), LOG_WARN);
    unsetenv("AMESH_LOG");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_is_one_json_document_and_numbers_are_numbers),
        cmocka_unit_test(test_secrets_do_not_reach_the_log),
        cmocka_unit_test(test_less_than_the_level_is_not_said),
        cmocka_unit_test(test_repeats_of_one_call_site_are_limited_and_others_are_not),
        cmocka_unit_test(test_what_goes_on_repeating_is_said_less_and_less),
        cmocka_unit_test(test_a_long_value_is_cut_and_the_line_stays_whole),
        cmocka_unit_test(test_the_level_comes_from_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
