/* What comes after an attempt that failed: by tables, no clock, no bus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/call_retry.h"
#include "call_machine.h"

static void begin(struct machine *machine)
{
    machine_begin(machine, 0, false);
    call_fsm_retry(&machine->fsm);
    machine_say(machine, CALL_EV_START);
}

static void taken(struct machine *machine, bool may_retry)
{
    machine_feed(machine, (struct call_event){.kind = CALL_EV_FRAME, .may_retry = may_retry});
}

static void answer(struct machine *machine, enum call_who who)
{
    machine_feed(machine, (struct call_event){.kind = CALL_EV_WHO_THERE, .who = who});
}

static const struct call_event broken = {.kind = CALL_EV_FRAME, .is_last = true, .is_broken = true, .may_retry = true};
static const struct call_event load = {.kind = CALL_EV_FRAME, .is_last = true, .is_load = true, .may_retry = true};

static void test_an_end_by_a_failure_of_the_instance_is_not_shown_and_goes_to_another_one(void **state)
{
    struct machine machine;
    begin(&machine);
    taken(&machine, true);
    machine_feed(&machine, broken);
    assert_int_equal(machine_find(&machine, CALL_DO_DELIVER)->why, CALL_WHY_BROKEN);
    assert_does(&machine, CALL_DO_PUBLISH_WHO);
    assert_does_not(&machine, CALL_DO_END);
    answer(&machine, CALL_WHO_FREE);
    assert_does(&machine, CALL_DO_RETRY);
    assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
    assert_true(machine.fsm.is_turn); /* named */
    assert_int_equal(machine.fsm.attempt, 2);
    machine_say_frame(&machine, true);
    assert_ends(&machine, CALL_WHY_STREAM);
}

static void test_nothing_is_tried_again_that_was_shown_or_forbidden_or_cancelled(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct machine machine;
        machine_begin(&machine, 0, false);
        if (i != 0)
            call_fsm_retry(&machine.fsm);
        machine_say(&machine, CALL_EV_START);
        taken(&machine, i != 1);
        if (i == 2)
            machine_feed(&machine, (struct call_event){.kind = CALL_EV_FRAME, .is_shown = true});
        if (i == 3)
            machine_say(&machine, CALL_EV_CANCEL);
        struct call_event end = broken;
        end.may_retry = i != 1;
        machine_feed(&machine, end);
        assert_ends(&machine, CALL_WHY_STREAM);
        assert_int_equal(machine_find(&machine, CALL_DO_DELIVER)->why, CALL_WHY_NONE);
    }
}

static void test_where_there_is_no_other_instance_the_failure_is_the_end(void **state)
{
    struct machine machine;
    begin(&machine);
    taken(&machine, true);
    machine_feed(&machine, broken);
    for (unsigned i = 1; i < CALL_SEEKS_MAX; i++) {
        answer(&machine, CALL_WHO_AVOIDED);
        assert_does(&machine, CALL_DO_PUBLISH_WHO);
    }
    answer(&machine, CALL_WHO_AVOIDED);
    assert_ends(&machine, CALL_WHY_BROKEN);
    begin(&machine);
    taken(&machine, true);
    machine_feed(&machine, broken);
    machine_say(&machine, CALL_EV_WHO_NONE);
    assert_ends(&machine, CALL_WHY_BROKEN);
}

static void test_who_does_not_answer_is_asked_again_and_at_last_done_without(void **state)
{
    struct machine machine;
    begin(&machine);
    taken(&machine, true);
    machine_say(&machine, CALL_EV_PONG_NONE);
    int64_t begun = machine.now;
    unsigned asked = 0;
    while (machine.fsm.phase != CALL_ENDED) {
        machine_wait_for_timer(&machine);
        asked += machine_find(&machine, CALL_DO_PUBLISH_WHO) != NULL;
    }
    assert_ends(&machine, CALL_WHY_GONE);
    assert_int_equal(machine.now - begun, CALL_SEEK_MAX_MS);
    assert_int_equal(asked, CALL_SEEK_MAX_MS / CALL_SEEK_EVERY_MS - 1);
}

static void test_of_a_request_without_answer_it_is_asked_whether_it_may_be_done_twice(void **state)
{
    struct machine machine;
    begin(&machine);
    machine_wait_for_timer(&machine);
    assert_int_equal(machine.fsm.phase, CALL_SEEKING);
    assert_does_not(&machine, CALL_DO_RETRY);
    machine_feed(&machine, (struct call_event){.kind = CALL_EV_WHO_THERE, .who = CALL_WHO_FREE, .is_once = true});
    assert_ends(&machine, CALL_WHY_NO_ACK);
    begin(&machine);
    machine_wait_for_timer(&machine);
    taken(&machine, true); /* it was slow: nothing goes to anybody else */
    assert_does(&machine, CALL_DO_TAKEN);
    answer(&machine, CALL_WHO_FREE);
    assert_does_not(&machine, CALL_DO_PUBLISH_REQUEST);
}

static void test_a_caller_that_stood_still_reads_first_what_came_meanwhile(void **state)
{
    struct machine machine;
    begin(&machine);
    machine.now += CALL_SILENCE_MS + CALL_STALL_MS;
    machine_say(&machine, CALL_EV_TIMER);
    assert_int_equal(machine.fsm.phase, CALL_SENT);
    machine_wait_for_timer(&machine);
    assert_int_equal(machine.fsm.phase, CALL_SEEKING);
}

static void test_three_unanswered_pings_are_enough_where_another_instance_may_have_it(void **state)
{
    struct machine machine;
    begin(&machine);
    taken(&machine, true);
    for (unsigned i = 0; i < CALL_PINGS_RETRY; i++) {
        machine_wait_for_timer(&machine);
        assert_does(&machine, CALL_DO_PUBLISH_PING);
    }
    machine_wait_for_timer(&machine);
    assert_int_equal(machine.fsm.phase, CALL_SEEKING);
    taken(&machine, true); /* who has failed is not gone back to */
    assert_int_equal(machine.fsm.phase, CALL_SEEKING);
    assert_does_not(&machine, CALL_DO_DELIVER);
}

static void test_three_attempts_and_no_more(void **state)
{
    struct machine machine;
    begin(&machine);
    for (unsigned i = 1; i <= CALL_ATTEMPTS_MAX; i++) {
        taken(&machine, true);
        machine_feed(&machine, broken);
        if (i < CALL_ATTEMPTS_MAX)
            answer(&machine, CALL_WHO_FREE);
    }
    assert_ends(&machine, CALL_WHY_STREAM);
    assert_int_equal(machine.fsm.attempt, CALL_ATTEMPTS_MAX);
}

static void test_an_agent_that_is_busy_after_all_is_no_failure_and_not_counted_as_one(void **state)
{
    struct machine machine;
    machine_begin(&machine, 0, false);
    call_fsm_retry(&machine.fsm);
    call_fsm_queue(&machine.fsm);
    machine_say(&machine, CALL_EV_START);
    for (unsigned i = 1; i <= 10; i++) {
        taken(&machine, false);
        machine_feed(&machine, load);
        assert_does(&machine, CALL_DO_RETRY);
        assert_int_equal(machine.fsm.attempt, i + 1);
        if (machine_find(&machine, CALL_DO_PUBLISH_WAIT))
            machine_feed(&machine, (struct call_event){.kind = CALL_EV_TURN, .is_named = true});
        assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
    }
    machine_say_frame(&machine, true);
    assert_ends(&machine, CALL_WHY_STREAM);
}

static void test_full_instances_are_waited_for_and_named_when_it_is_the_turn(void **state)
{
    struct machine machine;
    machine_begin(&machine, 0, false);
    call_fsm_retry(&machine.fsm);
    call_fsm_queue(&machine.fsm);
    machine_say(&machine, CALL_EV_START);
    taken(&machine, true);
    machine_feed(&machine, broken);
    for (unsigned i = 1; i < CALL_SEEKS_FULL_MAX; i++)
        answer(&machine, CALL_WHO_FULL);
    answer(&machine, CALL_WHO_FULL);
    assert_does(&machine, CALL_DO_RETRY);
    assert_does(&machine, CALL_DO_PUBLISH_WAIT);
    machine_say(&machine, CALL_EV_QUEUED);
    machine_say(&machine, CALL_EV_TURN); /* somebody has become free, whoever that is */
    assert_int_equal(machine.fsm.phase, CALL_SEEKING);
    answer(&machine, CALL_WHO_FREE);
    assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
    assert_does_not(&machine, CALL_DO_RETRY); /* it is one already */
}

static void test_an_instance_that_has_the_former_attempt_is_left_alone(void **state)
{
    struct machine machine;
    begin(&machine);
    machine_wait_for_timer(&machine);
    answer(&machine, CALL_WHO_FREE);
    machine_feed(&machine, (struct call_event){.kind = CALL_EV_REPLY_ERROR, .is_conflict = true});
    assert_does(&machine, CALL_DO_REFUSED);
    machine_say(&machine, CALL_EV_WHO_NONE);
    assert_ends(&machine, CALL_WHY_NO_ACK);
}

static void test_a_wary_call_names_an_instance_from_the_beginning_and_goes_on_without_if_none_answers(void **state)
{
    struct machine machine;
    machine_begin(&machine, 0, false);
    call_fsm_wary(&machine.fsm);
    machine_say(&machine, CALL_EV_START);
    assert_does_not(&machine, CALL_DO_PUBLISH_REQUEST);
    answer(&machine, CALL_WHO_FREE);
    assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
    machine_begin(&machine, 0, false);
    call_fsm_wary(&machine.fsm);
    machine_say(&machine, CALL_EV_START);
    while (machine.fsm.phase == CALL_SEEKING)
        machine_wait_for_timer(&machine);
    assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
    machine_begin(&machine, 0, false);
    call_fsm_wary(&machine.fsm);
    machine_say(&machine, CALL_EV_START);
    machine_say(&machine, CALL_EV_WHO_NONE);
    assert_ends(&machine, CALL_WHY_NOBODY);
}

/* ---- what may be taken back ------------------------------------------------------------------------------------------ */

#define STATUS(state, more) "{\"statusUpdate\":{\"taskId\":\"t\",\"contextId\":\"c\",\"status\":{\"state\":\"TASK_STATE_" state "\"" more "}}}"

static const struct {
    const char *body;
    bool is_quiet;
} bodies[] = {
    {STATUS("WORKING", ""), true},
    {STATUS("WORKING", ",\"timestamp\":\"2026-01-01T00:00:00.000Z\""), true},
    {STATUS("WORKING", ",\"message\":{\"role\":\"ROLE_AGENT\"}"), false},
    {"{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"metadata\":{\"amp/step\":{}}}}", false},
    {STATUS("INPUT_REQUIRED", ""), false},
    {STATUS("COMPLETED", ""), false},
    {"{\"artifactUpdate\":{\"artifact\":{\"parts\":[{\"text\":\"\\\"state\\\":\\\"TASK_STATE_WORKING\\\"\"}]}}}", false},
    {" {\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_WORKING\"}}}", false}, /* not as anybody of ours writes it */
    {"{}", false},
    {"", false},
};

static void make_event(const char *body, Amp__Event *event, Amp__Json *json)
{
    amp__event__init(event);
    amp__json__init(json);
    json->text = (ProtobufCBinaryData){.data = (uint8_t *)body, .len = strlen(body)};
    event->body = json;
}

static void test_only_that_it_is_worked_on_may_be_taken_back(void **state)
{
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        Amp__Event event;
        Amp__Json json;
        make_event(bodies[i].body, &event, &json);
        if (retry_is_quiet(&event) != bodies[i].is_quiet)
            fail_msg("%s", bodies[i].body);
    }
}

static enum retry_kind kind_of(const char *first, const char *last, enum amp_code code, size_t *ret_n_kept)
{
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__End end = AMP__END__INIT;
    Amp__Error error = AMP__ERROR__INIT;
    Amp__Event events[2], *pointers[2] = {&events[0], &events[1]};
    Amp__Json json[2];
    make_event(first, &events[0], &json[0]);
    make_event(last, &events[1], &json[1]);
    error.code = code;
    end.error = code == AMP_OK ? NULL : &error;
    frame.end = &end;
    frame.events = pointers;
    frame.n_events = 2;
    *ret_n_kept = retry_n_kept(&frame);
    return retry_kind_of(&frame);
}

static void test_an_end_calls_for_another_attempt_only_by_what_broke_the_instance(void **state)
{
    size_t n;
    assert_int_equal(kind_of(STATUS("WORKING", ""), STATUS("FAILED", ""), AMP_AGENT_DIED, &n), RETRY_BROKEN);
    assert_int_equal(n, 1);
    assert_int_equal(kind_of(STATUS("WORKING", ""), STATUS("FAILED", ""), AMP_BUSY, &n), RETRY_LOAD);
    assert_int_equal(kind_of(STATUS("WORKING", ""), STATUS("FAILED", ""), AMP_OK, &n), RETRY_NONE);
    assert_int_equal(kind_of(STATUS("WORKING", ""), STATUS("FAILED", ""), AMP_DEADLINE, &n), RETRY_NONE);
    assert_int_equal(kind_of("{\"artifactUpdate\":{}}", STATUS("FAILED", ""), AMP_AGENT_DIED, &n), RETRY_NONE);
    assert_int_equal(kind_of(STATUS("WORKING", ""), STATUS("COMPLETED", ""), AMP_AGENT_DIED, &n), RETRY_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_end_by_a_failure_of_the_instance_is_not_shown_and_goes_to_another_one),
        cmocka_unit_test(test_nothing_is_tried_again_that_was_shown_or_forbidden_or_cancelled),
        cmocka_unit_test(test_where_there_is_no_other_instance_the_failure_is_the_end),
        cmocka_unit_test(test_who_does_not_answer_is_asked_again_and_at_last_done_without),
        cmocka_unit_test(test_of_a_request_without_answer_it_is_asked_whether_it_may_be_done_twice),
        cmocka_unit_test(test_a_caller_that_stood_still_reads_first_what_came_meanwhile),
        cmocka_unit_test(test_three_unanswered_pings_are_enough_where_another_instance_may_have_it),
        cmocka_unit_test(test_three_attempts_and_no_more),
        cmocka_unit_test(test_an_agent_that_is_busy_after_all_is_no_failure_and_not_counted_as_one),
        cmocka_unit_test(test_full_instances_are_waited_for_and_named_when_it_is_the_turn),
        cmocka_unit_test(test_an_instance_that_has_the_former_attempt_is_left_alone),
        cmocka_unit_test(test_a_wary_call_names_an_instance_from_the_beginning_and_goes_on_without_if_none_answers),
        cmocka_unit_test(test_only_that_it_is_worked_on_may_be_taken_back),
        cmocka_unit_test(test_an_end_calls_for_another_attempt_only_by_what_broke_the_instance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
