/* What is old enough to be removed is told by the time that has passed, not by a clock that somebody sets. */
#include "env/env_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_passes),
        cmocka_unit_test(test_a_clock_that_is_set_forward_makes_nothing_old),
        cmocka_unit_test(test_a_clock_that_is_set_back_is_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
