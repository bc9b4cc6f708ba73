#include "base/counters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_counters_start_at_zero_and_add_up(void **state)
{
    assert_int_equal(counter_get(COUNTER_bus_dropped), 0);
    counter_add(COUNTER_bus_dropped, 2);
    counter_add(COUNTER_bus_dropped, 3);
    assert_int_equal(counter_get(COUNTER_bus_dropped), 5);
    assert_int_equal(counter_get(COUNTER_bus_denied), 0);
}

static void test_every_counter_has_its_own_name_and_a_help(void **state)
{
    for (int i = 0; i < COUNTERS; i++) {
        assert_true(strlen(counter_help((enum counter)i)) > 0);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(counter_name((enum counter)i), counter_name((enum counter)j));
    }
    assert_string_equal(counter_name(COUNTER_bus_messages_in), "bus_messages_in");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters_start_at_zero_and_add_up),
        cmocka_unit_test(test_every_counter_has_its_own_name_and_a_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
