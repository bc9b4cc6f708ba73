/* The machine of a call on lease: kept, lapsed, gone on with. No clock, no bus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "call_machine.h"

/* ---- on lease ------------------------------------------------------------------------------------------------ */

#define LEASE_MS 3000u

static void begin_leased(struct machine *machine)
{
    machine_begin(machine, 0, true);
    call_fsm_lease(&machine->fsm, LEASE_MS);
    machine_say(machine, CALL_EV_START);
    machine_say_frame(machine, false);
}

static void begin_attached(struct machine *machine)
{
    machine_begin(machine, 0, true);
    call_fsm_lease(&machine->fsm, LEASE_MS);
    call_fsm_attach(&machine->fsm);
    machine_say(machine, CALL_EV_START);
}

static void test_a_lease_is_kept_by_pings_also_while_frames_come(void **state)
{
    struct machine machine;
    unsigned pings = 0;
    begin_leased(&machine);
    for (unsigned i = 0; i < 100; i++) { /* ten seconds, a frame each 100 ms */
        machine.now += 100;
        machine_say(&machine, CALL_EV_TIMER);
        pings += machine_find(&machine, CALL_DO_PUBLISH_PING) != NULL;
        machine_say_frame(&machine, false);
    }
    assert_int_equal(pings, 10);
}

static void test_a_lease_lapses_when_nothing_is_heard_and_nobody_is_told(void **state)
{
    struct machine machine;
    begin_leased(&machine);
    for (int64_t heard = machine.now; machine.fsm.phase != CALL_ENDED;) {
        machine_wait_for_timer(&machine);
        assert_true(machine.now - heard <= LEASE_MS + CALL_LEASE_GRACE_MS);
    }
    assert_int_equal(machine.now, MACHINE_NOW + LEASE_MS + CALL_LEASE_GRACE_MS);
    assert_ends(&machine, CALL_WHY_LAPSED);
    assert_does_not(&machine, CALL_DO_PUBLISH_CANCEL);
}

static void test_a_caller_that_stood_still_itself_asks_before_it_lets_a_lease_lapse(void **state)
{
    struct machine machine;
    begin_leased(&machine);
    machine.now += 10 * LEASE_MS;
    machine_say(&machine, CALL_EV_TIMER);
    assert_int_equal(machine.fsm.phase, CALL_TAKEN);
    assert_does(&machine, CALL_DO_PUBLISH_PING);
}

static void test_frames_pongs_and_reports_keep_a_lease(void **state)
{
    static const enum call_event_kind kinds[] = {CALL_EV_FRAME, CALL_EV_PONG, CALL_EV_HEARD};
    struct machine machine;
    begin_leased(&machine);
    for (size_t i = 0; i < 9; i++) {
        machine.now += LEASE_MS;
        machine_say(&machine, kinds[i % 3]);
        machine_say(&machine, CALL_EV_TIMER);
        assert_int_equal(machine.fsm.phase, CALL_TAKEN);
    }
}

static void test_what_did_not_arrive_of_a_lease_is_asked_for(void **state)
{
    static const enum call_event_kind kinds[] = {CALL_EV_FRAME_GAP, CALL_EV_LOST_TRACK, CALL_EV_PONG_ENDED, CALL_EV_PONG_BEHIND};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct machine machine;
        begin_leased(&machine);
        if (kinds[i] == CALL_EV_PONG_ENDED || kinds[i] == CALL_EV_PONG_BEHIND)
            machine_say(&machine, kinds[i]); /* once, its end may be on its way */
        machine_say(&machine, kinds[i]);
        assert_does(&machine, CALL_DO_PUBLISH_ATTACH);
        machine_say_frame(&machine, true);
        assert_ends(&machine, CALL_WHY_STREAM);
    }
}

static void test_gaps_that_do_not_heal_end_the_call(void **state)
{
    struct machine machine;
    begin_leased(&machine);
    while (machine.fsm.phase != CALL_ENDED) { /* it is asked, and what comes is not what is missing */
        assert_true(machine.now - MACHINE_NOW <= CALL_GAP_MAX_MS + CALL_ATTACH_EVERY_MS);
        machine_say(&machine, CALL_EV_FRAME_GAP);
        machine_wait_for_timer(&machine);
    }
    assert_ends(&machine, CALL_WHY_GAP);
    assert_true(machine.now - MACHINE_NOW >= CALL_GAP_MAX_MS);
}

static void test_a_bus_that_is_back_is_asked_for_what_was_missed(void **state)
{
    struct machine machine;
    begin_leased(&machine);
    machine_say(&machine, CALL_EV_BUS_DOWN);
    machine.now += LEASE_MS + 2 * CALL_LEASE_GRACE_MS; /* silence of a bus that is away says nothing of the holder */
    machine_say(&machine, CALL_EV_TIMER);
    assert_int_equal(machine.fsm.phase, CALL_TAKEN);
    machine_say(&machine, CALL_EV_BUS_UP);
    assert_does(&machine, CALL_DO_PUBLISH_ATTACH);
}

static void test_a_call_that_is_gone_on_with_asks_its_holder_and_nobody_else(void **state)
{
    struct machine machine;
    begin_attached(&machine);
    assert_does(&machine, CALL_DO_PUBLISH_ATTACH);
    assert_does_not(&machine, CALL_DO_PUBLISH_REQUEST);
    machine_say_frame(&machine, false);
    assert_does(&machine, CALL_DO_DELIVER);
    assert_does_not(&machine, CALL_DO_TAKEN);

    begin_attached(&machine);
    machine_say(&machine, CALL_EV_REPLY_ERROR); /* it has it not, or not these events */
    assert_ends(&machine, CALL_WHY_NOT_KEPT);

    begin_attached(&machine); /* nobody there: it may still be on its way back to the bus */
    for (machine_say(&machine, CALL_EV_NO_RESPONDERS); machine.fsm.phase != CALL_ENDED; machine_say(&machine, CALL_EV_NO_RESPONDERS))
        machine_wait_for_timer(&machine);
    assert_ends(&machine, CALL_WHY_GONE);
    assert_in_range(machine.now - MACHINE_NOW, CALL_ATTACH_LEASED_MS, CALL_ATTACH_LEASED_MS + CALL_ATTACH_EVERY_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lease_is_kept_by_pings_also_while_frames_come),
        cmocka_unit_test(test_a_lease_lapses_when_nothing_is_heard_and_nobody_is_told),
        cmocka_unit_test(test_a_caller_that_stood_still_itself_asks_before_it_lets_a_lease_lapse),
        cmocka_unit_test(test_frames_pongs_and_reports_keep_a_lease),
        cmocka_unit_test(test_what_did_not_arrive_of_a_lease_is_asked_for),
        cmocka_unit_test(test_gaps_that_do_not_heal_end_the_call),
        cmocka_unit_test(test_a_bus_that_is_back_is_asked_for_what_was_missed),
        cmocka_unit_test(test_a_call_that_is_gone_on_with_asks_its_holder_and_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
