/* The machine of a direct call of which frames did not arrive (amp.md 6.8). No clock, no bus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "call_machine.h"

static void begin_taken(struct machine *machine)
{
    machine_begin(machine, 0, false);
    machine_say(machine, CALL_EV_START);
    machine_say_frame(machine, false);
}

static void test_what_is_on_its_way_behind_a_gap_is_no_further_gap(void **state)
{
    struct machine machine;
    begin_taken(&machine);
    machine_say(&machine, CALL_EV_FRAME_GAP);
    for (int i = 0; i < 1000; i++) {
        machine_say(&machine, CALL_EV_FRAME_GAP);
        assert_does_not(&machine, CALL_DO_PUBLISH_ATTACH);
        assert_int_equal(machine.fsm.phase, CALL_TAKEN);
    }
    machine_say_frame(&machine, false);
    assert_does(&machine, CALL_DO_DELIVER);
    machine_say(&machine, CALL_EV_FRAME_GAP); /* the next one is */
    assert_does(&machine, CALL_DO_PUBLISH_ATTACH);
}

static void test_what_comes_twice_does_not_mend_a_gap(void **state)
{
    struct machine machine;
    begin_taken(&machine);
    machine_say(&machine, CALL_EV_FRAME_GAP);
    while (machine.fsm.phase != CALL_ENDED) {
        assert_true(machine.now - MACHINE_NOW <= CALL_GAP_MAX_MS + CALL_ATTACH_SLOW_MS);
        machine_feed(&machine, (struct call_event){.kind = CALL_EV_FRAME, .is_old = true});
        machine_wait_for_timer(&machine);
    }
    assert_ends(&machine, CALL_WHY_GAP);
    assert_does(&machine, CALL_DO_PUBLISH_CANCEL);
}

static void test_a_callee_is_asked_again_less_and_less_often_and_given_up(void **state)
{
    struct machine machine;
    unsigned asked = 0;
    begin_taken(&machine);
    machine_say(&machine, CALL_EV_BUS_DOWN);
    machine_say(&machine, CALL_EV_BUS_UP);
    for (int64_t last = 0; machine.fsm.phase != CALL_ENDED; asked++) {
        int64_t before = machine.now;
        machine_wait_for_timer(&machine);
        assert_true(machine.now - before >= last && machine.now - before <= CALL_ATTACH_SLOW_MS);
        last = machine.now - before;
    }
    assert_int_equal(asked, CALL_PINGS_OPEN_MAX + 1);
    assert_ends(&machine, CALL_WHY_HUNG);
}

static void test_what_a_refusal_to_send_again_means_depends_on_what_is_missing(void **state)
{
    static const struct {
        bool is_missing;
        enum amp_code code;
        enum call_phase phase;
        enum call_why why;
    } cases[] = {
        {false, AMP_STALE_LEASE, CALL_TAKEN, 0}, /* one that cannot do it, and nothing is known to be missing: it goes on */
        {true, AMP_STALE_LEASE, CALL_ENDED, CALL_WHY_GAP},
        {false, AMP_FRAMES_LOST, CALL_ENDED, CALL_WHY_GAP},
        {true, AMP_FRAMES_LOST, CALL_ENDED, CALL_WHY_GAP},
        {false, AMP_NO_SUCH_TASK, CALL_ENDED, CALL_WHY_MISSED_END},
        {true, AMP_NO_SUCH_TASK, CALL_ENDED, CALL_WHY_MISSED_END},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct machine machine;
        begin_taken(&machine);
        machine_say(&machine, CALL_EV_BUS_DOWN);
        machine_say(&machine, CALL_EV_BUS_UP);
        if (cases[i].is_missing) {
            machine_say(&machine, CALL_EV_FRAME_GAP);
        }
        machine_feed(&machine, (struct call_event){.kind = CALL_EV_REPLY_ERROR, .code = cases[i].code});
        assert_int_equal(machine.fsm.phase, cases[i].phase);
        if (cases[i].phase == CALL_ENDED) {
            assert_ends(&machine, cases[i].why);
        } else {
            machine_wait_for_timer(&machine);
            assert_does(&machine, CALL_DO_PUBLISH_PING);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_on_its_way_behind_a_gap_is_no_further_gap),
        cmocka_unit_test(test_what_comes_twice_does_not_mend_a_gap),
        cmocka_unit_test(test_a_callee_is_asked_again_less_and_less_often_and_given_up),
        cmocka_unit_test(test_what_a_refusal_to_send_again_means_depends_on_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
