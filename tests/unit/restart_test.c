/* How long a worker's process that keeps failing is waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sidecar/sidecar.h"

static void test_the_first_start_waits_for_nothing(void **state)
{
    assert_int_equal(sidecar_restart_delay_ms(0, 12345), 0);
}

static void test_the_wait_is_between_its_least_and_a_ceiling_that_doubles(void **state)
{
    uint32_t ceiling_ms = 100;
    for (uint32_t failures = 1; failures < 64; failures++) {
        ceiling_ms = ceiling_ms * 2 < 30000 ? ceiling_ms * 2 : 30000;
        uint32_t most_ms = 0;
        for (uint32_t random = 0; random < 40000; random += 7) {
            uint32_t delay_ms = sidecar_restart_delay_ms(failures, random);
            assert_in_range(delay_ms, 100, ceiling_ms);
            most_ms = delay_ms > most_ms ? delay_ms : most_ms;
        }
        assert_in_range(most_ms, ceiling_ms - 8, ceiling_ms); /* the jitter is full */
    }
}

static void test_extreme_numbers_stay_within_bounds(void **state)
{
    assert_in_range(sidecar_restart_delay_ms(UINT32_MAX, UINT32_MAX), 100, 30000);
    assert_in_range(sidecar_restart_delay_ms(32, 0), 100, 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_start_waits_for_nothing),
        cmocka_unit_test(test_the_wait_is_between_its_least_and_a_ceiling_that_doubles),
        cmocka_unit_test(test_extreme_numbers_stay_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
