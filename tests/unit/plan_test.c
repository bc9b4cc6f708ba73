/* Tasks that start later, and clocks that are set. The clocks of this program are its own (as in the simulator), so that it can set them; the environment, its journal and the bus are real. */
#include "env/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "env_world.h"
#include "set_clock.h"

#define HOUR_MS INT64_C(3600000)

static int begin(void **state)
{
    struct env_world *world = *state = calloc(1, sizeof *world);
    set_clock_ms = 0;
    env_world_begin(world, NULL);
    return 0;
}

static int end(void **state)
{
    env_world_end(*state);
    free(*state);
    return 0;
}

static void submit(struct env_world *world, const struct env_world_submit *asked)
{
    assert_int_equal(env_world_submit(world, asked), AMP_OK);
    assert_string_equal(world->reply->tasks[0]->task->id, asked->task);
    if (asked->in_ms) /* the answer says it already */
        assert_memory_equal(world->reply->tasks[0]->waiting, "starts at ", 10);
}

static bool has_begun(struct env_world *world, const char *task)
{
    assert_int_equal(env_world_get(world, task), AMP_OK);
    assert_non_null(world->reply->tasks[0]->waiting);
    return strncmp(world->reply->tasks[0]->waiting, "starts at ", 10) != 0;
}

/* How long it takes until it has begun. */
static int64_t wait_begun(struct env_world *world, const char *task)
{
    int64_t from_ms = clock_mono_ms();
    while (!has_begun(world, task))
        if (clock_mono_ms() - from_ms > 10000)
            fail_msg("%s: %s", task, world->reply->tasks[0]->waiting);
    return clock_mono_ms() - from_ms;
}

static void test_it_waits_and_says_until_when_also_after_a_restart(void **state)
{
    struct env_world *world = *state;
    char text[AMP_TIME_SIZE];
    int64_t at = clock_unix_ms() / 1000 * 1000 + 3 * HOUR_MS;
    submit(world, &(struct env_world_submit){.task = "at", .at_unix_ms = at});
    submit(world, &(struct env_world_submit){.task = "in", .in_ms = 3 * HOUR_MS});
    amp_time_format(at, text);
    for (int i = 0; i < 2; i++) {
        assert_false(has_begun(world, "in"));
        assert_non_null(strstr(world->reply->tasks[0]->waiting, "(in 3 h)"));
        assert_false(has_begun(world, "at"));
        assert_memory_equal(world->reply->tasks[0]->waiting + strlen("starts at "), text, 19);
        assert_string_equal(env_world_state(world, 0), "submitted");
        assert_int_equal(world->reply->tasks[0]->not_before->unix_ms, at);
        env_world_restart(world);
    }
    assert_int_equal(env_world_cancel(world, "at"), AMP_OK);
    assert_int_equal(env_world_watch(world, "at", 1), AMP_CANCELED);
    assert_int_equal(world->events, 2);
}

static void test_it_starts_when_its_time_has_come(void **state)
{
    struct env_world *world = *state;
    int64_t at = clock_unix_ms() + 400;
    submit(world, &(struct env_world_submit){.task = "at", .at_unix_ms = at});
    submit(world, &(struct env_world_submit){.task = "in", .in_ms = 400});
    env_world_restart(world);
    assert_false(has_begun(world, "in"));
    assert_false(has_begun(world, "at"));
    wait_begun(world, "at");
    assert_true(clock_unix_ms() >= at);
    wait_begun(world, "in");
    assert_int_equal(world->reply->tasks[0]->events_count, 2);
    assert_non_null(strstr(world->reply->tasks[0]->waiting, "no instance of nobody"));
}

static void test_a_clock_set_forward_starts_what_is_at_a_time_and_not_what_is_in_some_time(void **state)
{
    struct env_world *world = *state;
    submit(world, &(struct env_world_submit){.task = "at", .at_unix_ms = clock_unix_ms() + HOUR_MS / 2});
    submit(world, &(struct env_world_submit){.task = "in", .in_ms = HOUR_MS / 2});
    set_clock_ms = HOUR_MS;
    assert_true(wait_begun(world, "at") < 5000);
    assert_false(has_begun(world, "in"));
    assert_non_null(strstr(world->reply->tasks[0]->waiting, "(in 30 min)"));
}

static void test_a_clock_set_back_holds_what_is_at_a_time_and_not_what_is_in_some_time(void **state)
{
    struct env_world *world = *state;
    submit(world, &(struct env_world_submit){.task = "at", .at_unix_ms = clock_unix_ms() + 300});
    submit(world, &(struct env_world_submit){.task = "in", .in_ms = 600});
    set_clock_ms = -HOUR_MS;
    wait_begun(world, "in");
    assert_false(has_begun(world, "at"));
    assert_non_null(strstr(world->reply->tasks[0]->waiting, "(in 60 min)"));
}

static void test_its_time_limit_counts_from_its_start(void **state)
{
    struct env_world *world = *state;
    int64_t from_ms = clock_mono_ms();
    submit(world, &(struct env_world_submit){.task = "in", .in_ms = 300, .timeout_ms = 200});
    assert_int_equal(env_world_watch(world, "in", 1), AMP_DEADLINE);
    assert_true(clock_mono_ms() - from_ms >= 500);
    assert_int_equal(world->events, 3);
    from_ms = clock_mono_ms(); /* also for an environment that finds it begun */
    submit(world, &(struct env_world_submit){.task = "found", .in_ms = 300, .timeout_ms = 900});
    wait_begun(world, "found");
    env_world_restart(world);
    assert_int_equal(env_world_watch(world, "found", 1), AMP_DEADLINE);
    assert_true(clock_mono_ms() - from_ms >= 1150);
    assert_int_equal(env_world_get(world, "found"), AMP_OK);
    const ProtobufCBinaryData *metadata = &world->reply->tasks[0]->task->metadata->text;
    assert_non_null(memmem(metadata->data, metadata->len, "for the time at which it was to start", 37));
}

/* The journal knows the wall clock only. Set while nobody ran: a task ends early, or has all of its time once more, and no more than that. */
static void test_a_clock_that_was_set_meanwhile_does_bounded_damage(void **state)
{
    struct env_world *world = *state;
    submit(world, &(struct env_world_submit){.task = "limited", .timeout_ms = 700});
    submit(world, &(struct env_world_submit){.task = "in", .in_ms = 700});
    set_clock_ms = -HOUR_MS;
    env_world_restart(world);
    int64_t from_ms = clock_mono_ms();
    assert_int_equal(env_world_watch(world, "limited", 1), AMP_DEADLINE);
    wait_begun(world, "in");
    assert_in_range(clock_mono_ms() - from_ms, 500, 5000);
    set_clock_ms = 0;
    submit(world, &(struct env_world_submit){.task = "early", .timeout_ms = HOUR_MS / 2});
    submit(world, &(struct env_world_submit){.task = "soon", .in_ms = HOUR_MS / 2, .timeout_ms = HOUR_MS / 2});
    set_clock_ms = HOUR_MS;
    env_world_restart(world);
    assert_int_equal(env_world_watch(world, "early", 1), AMP_DEADLINE);
    wait_begun(world, "soon");
    assert_string_equal(env_world_state(world, 0), "submitted");
}

static void test_a_clock_that_is_set_moves_no_deadline(void **state)
{
    struct env_world *world = *state;
    int64_t from_ms = clock_mono_ms();
    submit(world, &(struct env_world_submit){.task = "limited", .timeout_ms = 500});
    set_clock_ms = HOUR_MS;
    assert_int_equal(env_world_get(world, "limited"), AMP_OK);
    set_clock_ms = -HOUR_MS;
    assert_int_equal(env_world_watch(world, "limited", 1), AMP_DEADLINE);
    assert_in_range(clock_mono_ms() - from_ms, 500, 5000);
}

/* "in a minute" is another moment when it is said again: the key still means the first one. */
static void test_when_is_no_part_of_what_a_key_stands_for(void **state)
{
    struct env_world *world = *state;
    submit(world, &(struct env_world_submit){.task = "first", .key = "k", .in_ms = 60000});
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.key = "k", .in_ms = 61000}), AMP_OK);
    assert_true(world->reply->duplicate);
    assert_string_equal(world->reply->tasks[0]->task->id, "first");
}

static void test_times_that_cannot_be_meant_are_refused(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.at_unix_ms = clock_unix_ms() + 20 * 365 * 24 * HOUR_MS}), AMP_INVALID);
    assert_non_null(strstr(world->err.field, "not_before"));
    assert_true(world->err.hint[0] != '\0');
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.at_unix_ms = clock_unix_ms() + 1000, .in_ms = 1000}), AMP_INVALID);
    submit(world, &(struct env_world_submit){.task = "past", .at_unix_ms = clock_unix_ms() - HOUR_MS}); /* by another clock it was not */
    assert_true(has_begun(world, "past"));
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_it_waits_and_says_until_when_also_after_a_restart),
        TEST(test_it_starts_when_its_time_has_come),
        TEST(test_a_clock_set_forward_starts_what_is_at_a_time_and_not_what_is_in_some_time),
        TEST(test_a_clock_set_back_holds_what_is_at_a_time_and_not_what_is_in_some_time),
        TEST(test_its_time_limit_counts_from_its_start),
        TEST(test_a_clock_that_was_set_meanwhile_does_bounded_damage),
        TEST(test_a_clock_that_is_set_moves_no_deadline),
        TEST(test_when_is_no_part_of_what_a_key_stands_for),
        TEST(test_times_that_cannot_be_meant_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
