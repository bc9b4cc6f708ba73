/* Calls over a real bus: the good ways, and where nobody is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/counters.h"
#include "caller.h"

/* ---- good ways -------------------------------------------------------------------------------------------------- */

static void answer_in_three_frames(struct caller *caller, const Amp__Request *request)
{
    assert_string_equal(request->task_id, TASK);
    assert_string_equal(request->message->parts[0]->text, "hello");
    assert_int_equal(request->ack_ms, 200);
    assert_int_equal(request->hops, 2);
    assert_int_equal(request->n_path, 2);
    assert_string_equal(request->path[1], "lead");
    assert_string_equal(request->parent, "t-0");
    caller_send_frame(caller, 1, 0, -1);
    caller_send_frame(caller, 1, 3, -1);
    caller_send_frame(caller, 3, 2, 4); /* 3 was seen before */
    caller_send_frame(caller, 5, 1, -1); /* after the end */
}

static void test_a_call_delivers_each_event_once_and_ends_with_the_end_marker(void **state)
{
    struct caller caller;
    char *path[] = {(char *)"top", (char *)"lead"};
    struct call_options options = caller_options();
    options.hops = 2;
    options.path = path;
    options.n_path = 2;
    options.parent = "t-0";
    caller_begin(&caller, true);
    caller.on_request = answer_in_three_frames;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_OK);
    assert_int_equal(caller.events, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(caller.seqs[i], i + 1);
    }
    assert_int_equal(caller.taken, 1);
    assert_string_equal(caller.instance, "up/i-1");
    assert_int_equal(caller.requests, 1);
    caller_end(&caller);
}

static void test_a_busy_agent_is_waited_for_with_less_and_less_of_the_callers_time(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    options.timeout_ms = 60000;
    caller_begin(&caller, false);
    caller.on_request = caller_finish;
    caller_start(&caller, &options);
    world_wait(&caller.world, &caller.waits, 1);
    assert_string_equal(caller.reason, "every instance of up is busy (i-1: 2 of 2 slots taken)");
    caller_listen(&caller);
    caller_wait_end(&caller, AMP_OK);
    assert_int_equal(caller.requests, 1);
    assert_in_range(caller.timeouts[0], 1, 59999);
    caller_end(&caller);
}

static void test_a_call_that_meets_full_instances_is_sent_again(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    uint64_t bounced = counter_get(COUNTER_calls_bounced);
    caller_begin(&caller, true);
    caller.bounces_left = 2;
    caller.on_request = caller_finish;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_OK);
    assert_int_equal(caller.requests, 3);
    assert_int_equal(counter_get(COUNTER_calls_bounced) - bounced, 2);
    caller_end(&caller);
}

static void test_a_cancel_reaches_the_callee_and_its_end_is_the_calls_end(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = caller_take;
    caller_start(&caller, &options);
    world_wait(&caller.world, &caller.taken, 1);
    call_cancel(caller.call, "enough");
    world_wait(&caller.world, &caller.controls, 1);
    assert_int_equal(caller.last_control, AMP__CONTROL__KIND_CANCEL);
    assert_string_equal(caller.cancel_reason, "enough");
    struct world_frame frame = {.task = TASK, .agent = "up", .instance = "i-1", .seq = 1, .end_count = 0, .end_error = AMP_CANCELED};
    world_send_frame(caller.world.far, caller.inbox, &frame);
    caller_wait_end(&caller, AMP_CANCELED);
    assert_true(caller.has_wire);
    caller_end(&caller);
}

static void test_an_answer_reaches_the_callee(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    struct amp_error err;
    caller_begin(&caller, true);
    caller.on_request = caller_take;
    caller_start(&caller, &options);
    assert_int_equal(call_answer(caller.call, "q-1", options.message, &err), AMP_NO_QUESTION);
    world_wait(&caller.world, &caller.taken, 1);
    assert_int_equal(call_answer(caller.call, "q-1", options.message, &err), AMP_OK);
    world_wait(&caller.world, &caller.controls, 1);
    assert_string_equal(caller.input_id, "q-1");
    caller_end(&caller);
}

/* ---- where nobody is ---------------------------------------------------------------------------------------------- */

static void test_a_name_that_nobody_has_is_no_such_agent_with_a_hint(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, false);
    options.agent = "nobody";
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_NO_SUCH_AGENT);
    assert_non_null(strstr(caller.err.message, "nobody"));
    assert_non_null(strstr(caller.err.hint, "amesh ls"));
    caller_end(&caller);
}

static void test_a_skill_that_nobody_has_is_no_such_skill(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, false);
    options.agent = NULL;
    options.skill = "fly";
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_NO_SUCH_SKILL);
    caller_end(&caller);
}

static void test_a_named_instance_that_left_is_lost_even_when_others_of_its_agent_are_there(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    options.instance = "i-2";
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_INSTANCE_LOST);
    assert_int_equal(caller.requests, 0);
    caller_end(&caller);
}

static void test_a_named_instance_that_is_full_is_busy(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.pong = AMP_NO_SUCH_TASK;
    options.instance = "i-1";
    options.is_impatient = true;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_BUSY);
    caller_end(&caller);
}

static void test_the_impatient_get_busy_with_the_load(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, false);
    options.is_impatient = true;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_BUSY);
    assert_non_null(strstr(caller.err.message, "2 of 2 slots taken"));
    assert_int_equal(caller.waits, 0);
    caller_end(&caller);
}

static void test_a_refusal_is_passed_on_as_it_came(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.refusal = AMP_CONFLICT;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_CONFLICT);
    assert_true(caller.has_wire);
    assert_string_equal(caller.err.message, "not now");
    caller_end(&caller);
}

static void test_an_instance_that_leaves_passes_the_call_on_to_the_others(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = caller_finish;
    caller.bounces_left = 1;
    caller.bounce = AMP_STOPPING;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_OK);
    assert_int_equal(caller.requests, 2);
    caller_end(&caller);
}

static void test_a_forbidden_subject_is_denied_by_name(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    memset(&caller, 0, sizeof caller);
    world_begin(&caller.world, "authorization { users = [ {user: near, password: x, permissions: {publish: {deny: [\"amp.req.>\"]}}},\n"
                               "  {user: far, password: x} ] }\n");
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_DENIED);
    assert_non_null(strstr(caller.err.message, "amp.req.up.tester"));
    caller_end(&caller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_call_delivers_each_event_once_and_ends_with_the_end_marker),
        cmocka_unit_test(test_a_busy_agent_is_waited_for_with_less_and_less_of_the_callers_time),
        cmocka_unit_test(test_a_call_that_meets_full_instances_is_sent_again),
        cmocka_unit_test(test_a_cancel_reaches_the_callee_and_its_end_is_the_calls_end),
        cmocka_unit_test(test_an_answer_reaches_the_callee),
        cmocka_unit_test(test_a_name_that_nobody_has_is_no_such_agent_with_a_hint),
        cmocka_unit_test(test_a_skill_that_nobody_has_is_no_such_skill),
        cmocka_unit_test(test_a_named_instance_that_left_is_lost_even_when_others_of_its_agent_are_there),
        cmocka_unit_test(test_a_named_instance_that_is_full_is_busy),
        cmocka_unit_test(test_the_impatient_get_busy_with_the_load),
        cmocka_unit_test(test_a_refusal_is_passed_on_as_it_came),
        cmocka_unit_test(test_an_instance_that_leaves_passes_the_call_on_to_the_others),
        cmocka_unit_test(test_a_forbidden_subject_is_denied_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
