/* Quotas of senders: a table of what is taken, refused, and when it says to come back. */
#include "env/quota.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct quota quota;

static int begin(void **state)
{
    quota_init(&quota, 1000);
    return 0;
}

static int end(void **state)
{
    quota_done(&quota);
    return 0;
}

static void rule(const char *text)
{
    struct amp_error err = {0};
    if (quota_rule(&quota, text, &err) != AMP_OK)
        fail_msg("%s", err.message);
}

static enum amp_code submit(const char *sender, uint64_t bytes, int64_t now_ms, uint32_t *ret_after_ms)
{
    struct amp_error err = {0};
    enum amp_code code = quota_check(&quota, sender, bytes, now_ms, &err);
    assert_int_equal(code, err.code);
    if (code == AMP_OK)
        quota_add(&quota, sender, bytes, now_ms);
    if (ret_after_ms)
        *ret_after_ms = err.retry_after_ms;
    return code;
}

static void test_rules_are_read_or_refused_with_what_they_should_be(void **state)
{
    static const struct {
        const char *text;
        struct quota_limits limits;
    } good[] = {
        {"ci=200/s,5000", {200, 5000, QUOTA_BYTES}},
        {"ci=200/s", {200, 5000, QUOTA_BYTES}}, /* a later rule changes what it names */
        {"ci=-/s,-,64M", {200, 5000, 64u << 20}},
        {"ci=-,-,64M", {200, 5000, 64u << 20}},
        {"*=1/s,2,3K", {1, 2, 3072}},
    };
    static const char *const bad[] = {"", "ci", "=1/s", "ci=", "ci=1", "ci=0/s", "ci=1/s,", "ci=1/s,0", "ci=1/s,2,3,4", "ci=1/s,2x", "ci=1000001/s", "ci=1/s,5G", "a b=1/s", "ci=1/s,2,99999999999G",
                                      "ci=-1/s", "ci=18446744073709551617/s"};
    struct amp_error err = {0};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        rule(good[i].text);
        const struct quota_limits *limits = &quota.rules[good[i].text[0] == '*'].limits;
        assert_int_equal(limits->rate, good[i].limits.rate);
        assert_int_equal(limits->open, good[i].limits.open);
        assert_int_equal(limits->bytes, good[i].limits.bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (quota_rule(&quota, bad[i], &err) != AMP_INVALID)
            fail_msg("taken: %s", bad[i]);
        assert_non_null(strstr(err.hint, "RATE/s"));
    }
}

static void test_a_rate_has_a_burst_of_a_second_and_then_tokens_in_their_time(void **state)
{
    uint32_t first = 0, second = 0, third = 0;
    rule("ci=10/s");
    for (int i = 0; i < 10; i++)
        assert_int_equal(submit("ci", 1, 1000, NULL), AMP_OK);
    assert_int_equal(submit("ci", 1, 1000, &first), AMP_QUOTA);
    assert_int_equal(submit("ci", 1, 1000, &second), AMP_QUOTA);
    assert_int_equal(submit("ci", 1, 1000, &third), AMP_QUOTA);
    assert_int_equal(first, 100);
    assert_int_equal(second, 200);
    assert_int_equal(third, 300);
    assert_int_equal(submit("ci", 1, 1099, NULL), AMP_QUOTA);
    assert_int_equal(submit("ci", 1, 1100, NULL), AMP_OK); /* who came when he was told */
    assert_int_equal(submit("ci", 1, 1100, NULL), AMP_QUOTA);
    assert_int_equal(submit("other", 1, 1100, NULL), AMP_OK);
    for (int i = 0; i < 10; i++)
        assert_int_equal(submit("ci", 1, 60000, NULL), AMP_OK); /* never more than a second's worth */
    assert_int_equal(submit("ci", 1, 60000, NULL), AMP_QUOTA);
}

static void test_open_tasks_and_bytes_are_limited_and_given_back(void **state)
{
    rule("ci=1000/s,3,100");
    assert_int_equal(submit("ci", 1000, 0, NULL), AMP_OK); /* one alone may be larger */
    assert_int_equal(submit("ci", 1, 0, NULL), AMP_QUOTA);
    quota_remove(&quota, "ci", 1000, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(submit("ci", 30, 0, NULL), AMP_OK);
    assert_int_equal(submit("ci", 1, 0, NULL), AMP_QUOTA);
    quota_remove(&quota, "ci", 30, 10);
    assert_int_equal(submit("ci", 41, 10, NULL), AMP_QUOTA);
    assert_int_equal(submit("ci", 40, 10, NULL), AMP_OK);
}

static void test_when_to_come_back_follows_how_fast_its_tasks_end(void **state)
{
    uint32_t slow = 0, fast = 0;
    rule("ci=1000/s,500");
    for (int i = 0; i < 500; i++)
        assert_int_equal(submit("ci", 1, 0, NULL), AMP_OK);
    assert_int_equal(submit("ci", 1, 0, &slow), AMP_QUOTA);
    assert_in_range(slow, 900, 1100); /* nothing is known: one a second */
    for (int i = 0; i < 400; i++) {
        quota_remove(&quota, "ci", 1, 2000 + i * 10); /* 100 a second */
        assert_int_equal(submit("ci", 1, 2000 + i * 10, NULL), AMP_OK);
    }
    assert_int_equal(submit("ci", 1, 6000, &fast), AMP_QUOTA);
    assert_in_range(fast, QUOTA_WAIT_MIN_MS, 40);
    for (int i = 0; i < 9; i++)
        assert_int_equal(submit("ci", 1, 6000, &fast), AMP_QUOTA);
    assert_in_range(fast, 70, 150); /* the tenth in ten times the time of one */
}

static void test_one_sender_cannot_take_what_is_there_for_all(void **state)
{
    uint32_t taken = 0;
    while (submit("noisy", 1, 0, NULL) == AMP_OK)
        taken++;
    assert_in_range(taken, 600, 700); /* two thirds */
    for (int i = 0; i < 100; i++)
        assert_int_equal(submit("quiet", 1, 0, NULL), AMP_OK);
    assert_int_equal(submit("noisy", 1, 0, NULL), AMP_QUOTA);
    char name[16];
    uint32_t all = taken + 100, after_ms = 0;
    for (uint32_t i = 0; all < 1000; i++, all++) {
        snprintf(name, sizeof name, "s-%u", i);
        assert_int_equal(submit(name, 1, 0, NULL), AMP_OK);
    }
    assert_int_equal(submit("last", 1, 0, &after_ms), AMP_OVERLOADED);
    assert_true(after_ms > 0);
}

static void test_senders_are_bounded_and_those_without_anything_are_forgotten(void **state)
{
    char name[16];
    for (uint32_t i = 0; i < QUOTA_SENDERS_MAX + 500; i++) {
        snprintf(name, sizeof name, "s-%u", i);
        assert_int_equal(submit(name, 1, 0, NULL), AMP_OK);
        quota_remove(&quota, name, 1, 0);
    }
    assert_int_equal(HASH_COUNT(quota.senders), QUOTA_SENDERS_MAX);
    assert_int_equal(quota.open, 0);
    assert_int_equal(quota.others.open, 0);
    quota_add(&quota, "s-7", 1, 0);
    quota_tick(&quota, 60000);
    assert_int_equal(HASH_COUNT(quota.senders), 1);
}

static void test_the_fullest_are_told_first(void **state)
{
    const struct quota_sender *fullest[2];
    rule("a=100/s,100");
    rule("b=100/s,10");
    rule("c=100/s,1000,10");
    quota_add(&quota, "a", 1, 0);
    for (int i = 0; i < 5; i++)
        quota_add(&quota, "b", 1, 0);
    quota_add(&quota, "c", 9, 0);
    assert_int_equal(quota_fullest(&quota, fullest, 2), 2);
    assert_string_equal(fullest[0]->name, "c");
    assert_string_equal(fullest[1]->name, "b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rules_are_read_or_refused_with_what_they_should_be, begin, end),
        cmocka_unit_test_setup_teardown(test_a_rate_has_a_burst_of_a_second_and_then_tokens_in_their_time, begin, end),
        cmocka_unit_test_setup_teardown(test_open_tasks_and_bytes_are_limited_and_given_back, begin, end),
        cmocka_unit_test_setup_teardown(test_when_to_come_back_follows_how_fast_its_tasks_end, begin, end),
        cmocka_unit_test_setup_teardown(test_one_sender_cannot_take_what_is_there_for_all, begin, end),
        cmocka_unit_test_setup_teardown(test_senders_are_bounded_and_those_without_anything_are_forgotten, begin, end),
        cmocka_unit_test_setup_teardown(test_the_fullest_are_told_first, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
