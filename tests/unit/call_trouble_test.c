/* Calls over a real bus: what breaks them, and what their owner does to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bus.h"
#include "base/counters.h"
#include "base/loop.h"
#include "caller.h"
#include "nats_server.h"

/* ---- bad ways ------------------------------------------------------------------------------------------------------ */

static void leave_a_gap(struct caller *caller, const Amp__Request *request)
{
    caller_send_frame(caller, 1, 2, -1);
    caller_send_frame(caller, 5, 1, -1);
}

static void test_what_is_missing_and_not_kept_is_an_error_that_names_the_missing_numbers_and_stops_the_callee(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = leave_a_gap;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_FRAMES_LOST);
    assert_int_equal(caller.events, 2);
    assert_non_null(strstr(caller.err.message, "events 3 to 4"));
    world_wait(&caller.world, &caller.controls, 2);
    assert_int_equal(caller.last_control, AMP__CONTROL__KIND_CANCEL);
    caller_end(&caller);
}

static void send_again(struct caller *caller, const Amp__Attach *attach)
{
    assert_int_equal(attach->epoch, 0);
    assert_int_equal(attach->from_seq, 3);
    assert_false(attach->has_unread_bytes);
    caller_send_frame(caller, 6, 1, -1); /* was on its way before it was asked */
    caller_send_frame(caller, 1, 2, -1); /* comes twice */
    caller_send_frame(caller, 3, 4, 6);
}

static void test_what_is_missing_is_asked_for_and_each_event_comes_once(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = leave_a_gap;
    caller.on_attach = send_again;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_OK);
    assert_int_equal(caller.events, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(caller.seqs[i], i + 1);
    assert_int_equal(caller.controls, 1);
    caller_end(&caller);
}

static void send_end(struct caller *caller, const Amp__Attach *attach)
{
    assert_true(attach->has_unread_bytes);
    assert_true(attach->unread_bytes > 0);
    caller_send_frame(caller, 3, 3, 5);
}

static void test_what_was_received_is_counted_anew_but_for_what_is_held_back(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = leave_a_gap;
    caller.on_attach = send_end;
    caller_start(&caller, &options);
    call_hold(caller.call, true);
    caller_wait_end(&caller, AMP_OK);
    assert_int_equal(caller.events, 5);
    caller_end(&caller);
}

static void answer_with_garbage(struct caller *caller, const Amp__Request *request)
{
    assert_int_equal(bus_publish(caller->world.far, caller->inbox, NULL, amp_bytes_of("{\"version\":1,")), AMP_OK);
}

static void test_garbage_is_a_bad_answer_and_counted(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    uint64_t refused = counter_get(COUNTER_malformed_refused);
    caller_begin(&caller, true);
    caller.on_request = answer_with_garbage;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_BAD_ANSWER);
    assert_int_equal(counter_get(COUNTER_malformed_refused) - refused, 1);
    caller_end(&caller);
}

static void answer_as_another(struct caller *caller, const Amp__Request *request)
{
    struct world_frame frame = {.task = TASK, .agent = "up", .instance = "i-2", .seq = 1, .n = 1, .end_count = 1};
    caller_send_frame(caller, 1, 1, -1);
    world_send_frame(caller->world.far, caller->inbox, &frame);
    caller_send_frame(caller, 2, 1, 2);
}

static void test_frames_of_another_instance_are_not_mixed_in(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = answer_as_another;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_OK);
    assert_int_equal(caller.events, 2);
    caller_end(&caller);
}

static void fail_it(struct caller *caller, const Amp__Request *request)
{
    struct world_frame frame = {.task = TASK, .agent = "up", .instance = "i-1", .seq = 1, .n = 1, .end_count = 1, .end_error = AMP_AGENT_DIED};
    world_send_frame(caller->world.far, caller->inbox, &frame);
}

static void test_the_error_in_the_end_marker_is_the_calls_error(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = fail_it;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_AGENT_DIED);
    assert_int_equal(caller.events, 1);
    assert_true(caller.has_wire);
    caller_end(&caller);
}

static void test_a_callee_that_vanishes_is_noticed_by_the_first_ping(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = caller_take;
    caller_start(&caller, &options);
    world_wait(&caller.world, &caller.taken, 1);
    int64_t from = loop_now_ms(caller.world.loop);
    bus_unsubscribe(caller.ctl, false);
    caller.ctl = NULL;
    caller_wait_end(&caller, AMP_INSTANCE_LOST);
    assert_non_null(strstr(caller.err.message, "sidecar i-1 of agent up is gone"));
    assert_in_range(loop_now_ms(caller.world.loop) - from, 900, 2000);
    caller_end(&caller);
}

static void test_a_callee_that_was_started_anew_is_noticed(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = caller_take;
    caller.pong = AMP_NO_SUCH_TASK;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_INSTANCE_LOST);
    assert_non_null(strstr(caller.err.message, "started anew"));
    caller_end(&caller);
}

static void test_a_request_that_was_swallowed_is_lost_and_not_repeated(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_INSTANCE_LOST);
    assert_non_null(strstr(caller.err.message, "unknown whether it ran"));
    assert_int_equal(caller.requests, 1);
    caller_end(&caller);
}

static void test_the_deadline_cancels_the_callee_and_says_that_it_was_working(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = caller_take;
    options.timeout_ms = 100;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_DEADLINE);
    assert_non_null(strstr(caller.err.message, "still working"));
    world_wait(&caller.world, &caller.controls, 1);
    assert_string_equal(caller.cancel_reason, "deadline");
    caller_end(&caller);
}

static void test_the_deadline_of_one_that_waits_says_so(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, false);
    options.timeout_ms = 100;
    caller_start(&caller, &options);
    caller_wait_end(&caller, AMP_DEADLINE);
    assert_non_null(strstr(caller.err.message, "waited for a free instance"));
    caller_end(&caller);
}

static void test_frames_missed_while_the_bus_was_away_are_lost_frames(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = caller_take;
    caller_start(&caller, &options);
    world_wait(&caller.world, &caller.taken, 1);
    nats_server_kill(caller.world.server);
    world_wait(&caller.world, &caller.waits, 1);
    nats_server_restart(caller.world.server);
    world_wait(&caller.world, &caller.controls, 1); /* a ping: it goes on */
    assert_int_equal(caller.ends, 0);
    caller_send_frame(&caller, 2, 1, -1);
    caller_wait_end(&caller, AMP_FRAMES_LOST);
    caller_end(&caller);
}

static void test_a_call_made_while_the_bus_is_away_goes_out_when_it_is_back(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = caller_finish;
    nats_server_kill(caller.world.server);
    world_wait_down(&caller.world);
    caller_start(&caller, &options);
    assert_int_equal(caller.waits, 0); /* nothing from inside */
    world_wait(&caller.world, &caller.waits, 1);
    assert_non_null(strstr(caller.reason, "the bus is away"));
    nats_server_restart(caller.world.server);
    caller_wait_end(&caller, AMP_OK);
    caller_end(&caller);
}

/* ---- the caller's own doing -------------------------------------------------------------------------------------------- */

static void test_what_can_be_known_at_once_is_said_at_once(void **state)
{
    struct caller caller;
    char *path[] = {(char *)"lead", (char *)"up"};
    struct call_options options = caller_options();
    struct amp_error err = {.code = AMP_OK};
    caller_begin(&caller, false);
    struct loop *loop = caller.world.loop;
    struct bus *bus = caller.world.near;
    options.path = path;
    options.n_path = 2;
    assert_int_equal(call_start(loop, bus, &options, &caller_handlers, &caller, &caller.call, &err), AMP_LOOP);
    options = caller_options();
    options.hops = AMP_HOPS_MAX + 1;
    assert_int_equal(call_start(loop, bus, &options, &caller_handlers, &caller, &caller.call, &err), AMP_HOPS);
    options = caller_options();
    options.skill = "both";
    assert_int_equal(call_start(loop, bus, &options, &caller_handlers, &caller, &caller.call, &err), AMP_INVALID);
    options = caller_options();
    options.agent = "Not An Id";
    assert_int_equal(call_start(loop, bus, &options, &caller_handlers, &caller, &caller.call, &err), AMP_INVALID);
    options = caller_options();
    char *large = malloc((2 << 20) + 1);
    memset(large, 'x', 2 << 20);
    large[2 << 20] = '\0';
    options.message->parts[0]->text = large;
    assert_int_equal(call_start(loop, bus, &options, &caller_handlers, &caller, &caller.call, &err), AMP_TOO_LARGE);
    free(large);
    assert_null(caller.call);
    caller_end(&caller);
}

static void test_nothing_is_called_back_from_inside_start_or_cancel(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, false);
    caller_start(&caller, &options);
    world_wait(&caller.world, &caller.waits, 1);
    call_cancel(caller.call, NULL);
    assert_int_equal(caller.ends, 0);
    caller_wait_end(&caller, AMP_CANCELED);
    caller_end(&caller);
}

static void answer_in_two_frames(struct caller *caller, const Amp__Request *request)
{
    caller_send_frame(caller, 1, 3, -1);
    caller_send_frame(caller, 4, 1, 4);
}

static void test_a_call_may_be_freed_inside_of_its_own_event(void **state)
{
    struct caller caller;
    struct call_options options = caller_options();
    caller_begin(&caller, true);
    caller.on_request = answer_in_two_frames;
    caller.is_freed_in_event = true;
    caller_start(&caller, &options);
    world_wait(&caller.world, &caller.events, 1);
    world_settle(&caller.world, caller.world.near);
    assert_int_equal(caller.events, 1);
    assert_int_equal(caller.ends, 0);
    caller_end(&caller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_missing_and_not_kept_is_an_error_that_names_the_missing_numbers_and_stops_the_callee),
        cmocka_unit_test(test_what_is_missing_is_asked_for_and_each_event_comes_once),
        cmocka_unit_test(test_what_was_received_is_counted_anew_but_for_what_is_held_back),
        cmocka_unit_test(test_garbage_is_a_bad_answer_and_counted),
        cmocka_unit_test(test_frames_of_another_instance_are_not_mixed_in),
        cmocka_unit_test(test_the_error_in_the_end_marker_is_the_calls_error),
        cmocka_unit_test(test_a_callee_that_vanishes_is_noticed_by_the_first_ping),
        cmocka_unit_test(test_a_callee_that_was_started_anew_is_noticed),
        cmocka_unit_test(test_a_request_that_was_swallowed_is_lost_and_not_repeated),
        cmocka_unit_test(test_the_deadline_cancels_the_callee_and_says_that_it_was_working),
        cmocka_unit_test(test_the_deadline_of_one_that_waits_says_so),
        cmocka_unit_test(test_frames_missed_while_the_bus_was_away_are_lost_frames),
        cmocka_unit_test(test_a_call_made_while_the_bus_is_away_goes_out_when_it_is_back),
        cmocka_unit_test(test_what_can_be_known_at_once_is_said_at_once),
        cmocka_unit_test(test_nothing_is_called_back_from_inside_start_or_cancel),
        cmocka_unit_test(test_a_call_may_be_freed_inside_of_its_own_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
