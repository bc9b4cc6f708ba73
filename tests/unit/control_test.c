#include "env/env_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/log.h"
#include "env_world.h"

static int begin(void **state)
{
    struct env_world *world = *state = calloc(1, sizeof *world);
    env_world_begin(world, NULL);
    return 0;
}

static int end(void **state)
{
    env_world_end(*state);
    free(*state);
    return 0;
}

static enum amp_code answer(struct env_world *world, const char *task)
{
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    Amp__Answer body = AMP__ANSWER__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    part.text = (char *)"yes";
    message.message_id = (char *)"m-2";
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    body.message = &message;
    control.kind_case = AMP__CONTROL__KIND_ANSWER;
    control.answer = &body;
    command.id = (char *)task;
    command.control = &control;
    return env_world_ask(world, AMP__ENV_REQUEST__VERB_COMMAND, &command);
}

static void assert_canceled(struct env_world *world, const char *task)
{
    assert_int_equal(env_world_get(world, task), AMP_OK);
    assert_string_equal(env_world_state(world, 0), "canceled");
}

static void test_one_that_waits_is_cancelled_at_once_and_for_good(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "t-1"}), AMP_OK);
    assert_int_equal(env_world_cancel(world, "t-1"), AMP_OK);
    assert_canceled(world, "t-1");
    env_world_restart(world);
    assert_canceled(world, "t-1");
    assert_int_equal(env_world_cancel(world, "t-1"), AMP_TASK_ENDED);
}

/* By who chose its id: the cancel comes before the commit, in the same turn. */
static void test_one_that_is_not_committed_yet_is_cancelled_too(void **state)
{
    struct env_world *world = *state;
    Amp__Cancel cancel = AMP__CANCEL__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &cancel;
    command.id = (char *)"t-1";
    command.control = &control;
    world->replies = 0;
    env_world_send_submit(world, &(struct env_world_submit){.task = "t-1"});
    env_world_send(world, AMP__ENV_REQUEST__VERB_COMMAND, &command);
    env_world_wait(world, 2);
    assert_int_equal(world->err.code, AMP_OK);
    do {
        assert_int_equal(env_world_get(world, "t-1"), AMP_OK);
    } while (strcmp(env_world_state(world, 0), "submitted") == 0);
    assert_canceled(world, "t-1");
}

static void test_what_is_not_there_or_over_is_said(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(env_world_cancel(world, "t-none"), AMP_NO_SUCH_TASK);
    assert_int_equal(answer(world, "t-none"), AMP_NO_SUCH_TASK);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "t-1"}), AMP_OK);
    assert_int_equal(answer(world, "t-1"), AMP_NO_QUESTION);
    assert_int_equal(env_world_cancel(world, "t-1"), AMP_OK);
    assert_int_equal(answer(world, "t-1"), AMP_TASK_ENDED);
}

/* The instance of a direct task is gone: the server says so, at once. */
static void test_a_direct_task_is_cancelled_where_it_is(void **state)
{
    struct env_world *world = *state;
    struct world_frame frame = {.task = "t-1", .agent = "up", .instance = "i-1", .seq = 1, .n = 1, .end_count = -1};
    world_send_frame(world->world.near, "amp.evt.c-1.t-1", &frame);
    do {
        (void)env_world_get(world, "t-1");
    } while (world->err.code != AMP_OK);
    assert_int_equal(env_world_cancel(world, "t-1"), AMP_INSTANCE_LOST);
}

static void on_control(void *ctx, const struct bus_msg *msg)
{
    struct env_world *world = ctx;
    world_send_reply(world->world.near, msg->reply, AMP_OK, NULL);
    world->events++;
    world_touch(&world->world);
}

/* Memory had let it go; it is open all the same, and somebody has it. */
static void test_a_direct_task_that_memory_let_go_is_cancelled_too(void **state)
{
    struct env_world *world = *state;
    struct world_frame frame = {.task = "t-1", .agent = "up", .instance = "i-1", .seq = 1, .n = 1, .end_count = -1};
    struct bus_sub *sub = bus_subscribe(world->world.near, "amp.ctl.i-1.*", NULL, on_control, world);
    world_send_frame(world->world.near, "amp.evt.c-1.t-1", &frame);
    do {
        (void)env_world_get(world, "t-1");
    } while (world->err.code != AMP_OK);
    etask_free(etask_find(world->env, "t-1"));
    world->events = 0;
    assert_int_equal(env_world_cancel(world, "t-1"), AMP_OK);
    assert_int_equal(world->events, 1);
    bus_unsubscribe(sub, false);
}

/* A new environment tells whoever had the task to leave off, before it starts it again. */
static void test_after_a_restart_the_old_attempt_is_stopped(void **state)
{
    struct env_world *world = *state;
    struct bus_sub *sub = bus_subscribe(world->world.near, "amp.ctl.i-1.*", NULL, on_control, world);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "t-1"}), AMP_OK);
    struct etask *task = etask_find(world->env, "t-1");
    etask_strcpy(task->instance, "i-1"); /* as if it had been taken */
    task->engine.attempt = task->n_attempts = 1;
    task->attempts = xcalloc(1, sizeof *task->attempts);
    task->attempts[0].number = 1;
    task->attempts[0].started_unix_ms = task->submitted_unix_ms;
    etask_changed(task);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "t-2"}), AMP_OK); /* a commit behind it */
    world->events = 0;
    env_world_restart(world);
    world_wait(&world->world, &world->events, 1);
    assert_int_equal(env_world_get(world, "t-1"), AMP_OK);
    assert_string_equal(env_world_state(world, 0), "working");
    bus_unsubscribe(sub, false);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_one_that_waits_is_cancelled_at_once_and_for_good),
        TEST(test_one_that_is_not_committed_yet_is_cancelled_too),
        TEST(test_what_is_not_there_or_over_is_said),
        TEST(test_a_direct_task_is_cancelled_where_it_is),
        TEST(test_a_direct_task_that_memory_let_go_is_cancelled_too),
        TEST(test_after_a_restart_the_old_attempt_is_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
