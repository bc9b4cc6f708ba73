#include "env/alarm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MANY 500

static void test_alarms_ring_in_order_whatever_was_set_and_stopped(void **state)
{
    struct alarms alarms = {0};
    struct alarm many[MANY] = {0};
    srand(7);
    for (int round = 0; round < 20000; round++) {
        struct alarm *alarm = &many[rand() % MANY];
        if (rand() % 3)
            alarm_set(&alarms, alarm, rand() % 1000);
        else
            alarm_stop(&alarms, alarm);
    }
    size_t left = 0;
    for (size_t i = 0; i < MANY; i++)
        left += alarm_is_set(&many[i]);
    assert_int_equal(alarms.count, left);
    int64_t last = -1;
    for (struct alarm *alarm; (alarm = alarm_take(&alarms, 1000)) != NULL; left--) {
        assert_true(alarm->due_unix_ms >= last);
        assert_false(alarm_is_set(alarm));
        last = alarm->due_unix_ms;
    }
    assert_int_equal(left, 0);
    alarms_done(&alarms);
}

/* Set forward: what is due by the new time rings at the next look, a second later at most. Set back: it waits until the clock says so. */
static void test_the_clock_is_looked_at_again_every_second(void **state)
{
    struct alarms alarms = {0};
    struct alarm alarm = {0};
    assert_int_equal(alarm_wait_ms(&alarms, 0), UINT32_MAX);
    alarm_set(&alarms, &alarm, 10000);
    assert_int_equal(alarm_wait_ms(&alarms, 0), ALARM_LOOK_MS);
    assert_int_equal(alarm_wait_ms(&alarms, 9400), 600);
    assert_int_equal(alarm_wait_ms(&alarms, 10000), 0);
    assert_int_equal(alarm_wait_ms(&alarms, 99999), 0);
    assert_null(alarm_take(&alarms, 9999));
    assert_ptr_equal(alarm_take(&alarms, 10000), &alarm);
    assert_null(alarm_take(&alarms, 10000));
    alarms_done(&alarms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alarms_ring_in_order_whatever_was_set_and_stopped),
        cmocka_unit_test(test_the_clock_is_looked_at_again_every_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
