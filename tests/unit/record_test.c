#include "env/env_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bus.h"
#include "base/log.h"
#include "base/loop.h"
#include "env/again.h"
#include "env/turns.h"
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

/* The same with JetStream, in a directory of its own. */
static int begin_stream(void **state)
{
    struct env_world *world = *state = calloc(1, sizeof *world);
    static char dir[64];
    char config[128];
    snprintf(dir, sizeof dir, "/tmp/amesh-js-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(config, sizeof config, "jetstream { store_dir: \"%s\" }", dir);
    env_world_begin(world, config);
    setenv("RECORD_TEST_DIR", dir, 1);
    while (!evtstream_is_whole(world->env))
        (void)env_world_ping(world);
    return 0;
}

static int end_stream(void **state)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", getenv("RECORD_TEST_DIR"));
    int status = end(state);
    assert_int_equal(system(command), 0);
    return status;
}

static void tell_from(struct env_world *world, const char *instance, uint32_t seq, uint32_t n, int64_t end_count)
{
    struct world_frame frame = {.task = "t-1", .agent = "up", .instance = instance, .seq = seq, .n = n, .end_count = end_count};
    world_send_frame(world->world.near, "amp.evt.c-1.t-1", &frame);
    world_settle(&world->world, world->world.near);
}

static void tell(struct env_world *world, uint32_t seq, uint32_t n, int64_t end_count)
{
    tell_from(world, "i-1", seq, n, end_count);
}

/* Until the record is as wanted: what is told on the bus is written down a moment later. */
static const Amp__TaskRecord *wait_for(struct env_world *world, const char *state, uint32_t events)
{
    do {
        (void)env_world_get(world, "t-1");
    } while (world->err.code != AMP_OK || strcmp(env_world_state(world, 0), state) != 0 || world->reply->tasks[0]->events_count < events);
    return world->reply->tasks[0];
}

static void test_what_is_told_on_the_bus_is_history(void **state)
{
    struct env_world *world = *state;
    tell(world, 1, 3, -1);
    const Amp__TaskRecord *record = wait_for(world, "working", 3);
    assert_false(record->durable);
    assert_false(record->incomplete);
    assert_string_equal(record->agent, "up");
    tell(world, 4, 2, 5);
    record = wait_for(world, "failed", 6); /* an end without a terminal state */
    assert_false(record->incomplete);
    assert_non_null(record->ended);
}

static void test_a_gap_is_said(void **state)
{
    struct env_world *world = *state;
    tell(world, 1, 3, -1);
    tell(world, 10, 2, -1);
    assert_true(wait_for(world, "working", 5)->incomplete);
}

static void test_nobody_but_its_instance_adds_to_a_task(void **state)
{
    struct env_world *world = *state;
    tell(world, 1, 3, -1);
    tell_from(world, "i-2", 4, 2, 5);
    tell_from(world, NULL, 4, 2, 5);
    tell(world, 4, 1, -1);
    const Amp__TaskRecord *record = wait_for(world, "working", 4);
    assert_int_equal(record->events_count, 4);
    assert_false(record->incomplete);
}

/* The bus was away when it ended: its instance lives, and its beats do not name it. Said, not hidden. */
static void test_an_end_that_was_missed_is_said(void **state)
{
    static const char *const tasks[] = {"t-1", NULL};
    struct env_world *world = *state;
    env_world_beat(world, "up", "i-1", 1, NULL);
    tell(world, 1, 3, -1);
    (void)wait_for(world, "working", 3);
    struct etask *task = etask_find(world->env, "t-1");
    task->heard_ms -= 10000; /* long ago */
    env_world_beat(world, "up", "i-1", 0, tasks);
    record_sweep(world->env);
    assert_int_equal(task->orphaned_ms, 0); /* at work on it */
    env_world_beat(world, "up", "i-1", 1, NULL);
    record_sweep(world->env);
    assert_int_not_equal(task->orphaned_ms, 0);
    task->orphaned_ms -= ENV_GONE_GRACE_MS + 1000;
    record_sweep(world->env);
    const Amp__TaskRecord *record = wait_for(world, "failed", 4);
    assert_true(record->incomplete);
    assert_int_equal(record->error->code, AMP_FRAMES_LOST);
}

/* An attempt that ended before this environment began, or while it did not listen, is no end of a task whose caller waits for its turn to go on. */
static void test_a_task_whose_caller_waits_for_its_turn_has_not_ended(void **state)
{
    struct env_world *world = *state;
    struct turn_place place;
    struct amp_error err;
    env_world_beat(world, "up", "i-1", 1, NULL);
    tell(world, 1, 3, -1);
    (void)wait_for(world, "working", 3);
    struct etask *task = etask_find(world->env, "t-1");
    const struct turn_call call = {.task = "t-1", .from = task->from, .agent = "up", .reply = "_INBOX.x"};
    assert_int_equal(turns_wait(world->env->turns, &call, loop_now_ms(world->env->loop), &place, &err), AMP_OK);
    again_free(task); /* what the environment before knew of it */
    task->heard_ms -= 10000;
    record_sweep(world->env);
    assert_int_not_equal(task->orphaned_ms, 0);
    task->orphaned_ms -= ENV_GONE_GRACE_MS + 1000;
    record_sweep(world->env);
    assert_int_equal(etask_state(task), AMP__TASK_STATE__TASK_STATE_WORKING);
    assert_true(turns_withdraw(world->env->turns, task->from, "t-1"));
    record_sweep(world->env);
    assert_int_equal(wait_for(world, "failed", 4)->error->code, AMP_FRAMES_LOST);
}

/* Being deaf is no sign of anybody's death. */
static void test_what_was_not_heard_while_the_bus_was_away_does_not_count(void **state)
{
    struct env_world *world = *state;
    env_world_beat(world, "up", "i-1", 1, NULL);
    tell(world, 1, 3, -1);
    (void)wait_for(world, "working", 3);
    struct etask *task = etask_find(world->env, "t-1");
    struct registry_instance *instance = (struct registry_instance *)registry_instance(&world->env->registry, "up", "i-1");
    instance->seen_ms -= 60000;
    task->orphaned_ms = 1;
    env_bus_up(world->env);
    beats_look(world->env);
    assert_true(registry_is_live(instance));
    assert_int_equal(task->orphaned_ms, 0);
    instance->seen_ms -= 60000;
    beats_look(world->env);
    assert_false(registry_is_live(instance));
}

static void test_open_tasks_go_on_after_a_restart(void **state)
{
    struct env_world *world = *state;
    tell(world, 1, 3, -1);
    (void)wait_for(world, "working", 3);
    env_world_restart(world);
    tell(world, 4, 2, -1);
    const Amp__TaskRecord *record = wait_for(world, "working", 5);
    assert_false(record->incomplete);
    tell(world, 8, 1, 8); /* 6 and 7 were told while nobody listened */
    assert_true(wait_for(world, "failed", 6)->incomplete);
}

/* Everybody is asked again and again only if somebody's card never comes, and less and less often. */
static void test_a_card_that_never_comes_is_asked_for_less_and_less(void **state)
{
    struct env_world *world = *state;
    uint32_t before = world->env->ask_gap_ms;
    for (int i = 0; i < 10; i++) {
        world->env->asked_ms -= world->env->asked_ms > (int64_t)world->env->ask_gap_ms ? world->env->ask_gap_ms : 0;
        env_world_beat(world, "cardless", "i-1", 1, NULL);
        assert_true(world->env->ask_gap_ms >= before && world->env->ask_gap_ms <= ENV_ASK_MAX_MS);
        before = world->env->ask_gap_ms;
    }
    assert_true(before > ENV_SWEEP_MS);
}

static void test_what_was_said_while_nobody_listened_is_history(void **state)
{
    struct env_world *world = *state;
    tell(world, 1, 3, -1);
    (void)wait_for(world, "working", 3);
    env_free(world->env);
    world->env = NULL;
    tell(world, 4, 2, -1);
    tell(world, 6, 1, 6);
    env_world_open(world);
    assert_int_equal(env_world_get(world, "t-1"), AMP_OK); /* the first answer has it all: it waited for that */
    const Amp__TaskRecord *record = world->reply->tasks[0];
    assert_int_equal(record->events_count, 7); /* and the state that an end without one makes */
    assert_false(record->incomplete);
}

static void test_a_number_that_is_missing_is_looked_for_in_the_stream(void **state)
{
    struct env_world *world = *state;
    tell(world, 1, 3, -1);
    (void)wait_for(world, "working", 3);
    bus_unsubscribe(world->env->subs[1], false);
    world_settle(&world->world, world->world.far);
    tell(world, 4, 2, -1); /* not heard */
    world->env->subs[1] = bus_subscribe(world->world.far, "amp.evt.*.*", NULL, evtstream_on_msg, world->env);
    world_settle(&world->world, world->world.far);
    tell(world, 6, 1, -1);
    assert_false(wait_for(world, "working", 6)->incomplete);
}

/* An instance that is gone said no end; what it said is there. */
static void test_a_task_whose_instance_is_gone_is_whole(void **state)
{
    struct env_world *world = *state;
    tell(world, 1, 3, -1);
    (void)wait_for(world, "working", 3);
    record_sweep(world->env);
    etask_find(world->env, "t-1")->orphaned_ms -= ENV_GONE_GRACE_MS + 1000;
    record_sweep(world->env);
    const Amp__TaskRecord *record = wait_for(world, "failed", 4);
    assert_int_equal(record->error->code, AMP_INSTANCE_LOST);
    assert_false(record->incomplete);
}

struct heard {
    struct env *env;
    unsigned n, n_at_once, n_in_the_end;
};

static void hear(void *ctx, const struct bus_msg *msg)
{
    struct heard *heard = ctx;
    evtstream_on_msg(heard->env, msg);
    const struct etask *task = etask_find(heard->env, "t-1");
    heard->n++;
    heard->n_at_once = task ? task->count : 0;
    evtstream_catch_up(heard->env);
    task = etask_find(heard->env, "t-1");
    heard->n_in_the_end = task ? task->count : 0;
}

/* To take up each message for itself costs twice as much, and takes the processor from whoever is called next. */
static void test_what_is_heard_is_taken_up_together_but_before_anybody_looks(void **state)
{
    struct env_world *world = *state;
    struct heard heard = {.env = world->env};
    bus_unsubscribe(world->env->subs[1], false);
    world->env->subs[1] = bus_subscribe(world->world.far, "amp.evt.*.*", NULL, hear, &heard);
    world_settle(&world->world, world->world.far);
    tell(world, 1, 3, -1);
    assert_int_equal(wait_for(world, "working", 3)->events_count, 3);
    assert_int_equal(heard.n, 1);
    assert_int_equal(heard.n_at_once, 0);
    assert_int_equal(heard.n_in_the_end, 3);
    world->env->n_watchers++; /* somebody waits for each word */
    tell(world, 4, 2, -1);
    assert_int_equal(wait_for(world, "working", 5)->events_count, 5);
    world->env->n_watchers--;
    assert_int_equal(heard.n, 2);
    assert_int_equal(heard.n_at_once, 5);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define STREAM(name) cmocka_unit_test_setup_teardown(name, begin_stream, end_stream)
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_told_on_the_bus_is_history),
        TEST(test_a_gap_is_said),
        TEST(test_nobody_but_its_instance_adds_to_a_task),
        TEST(test_an_end_that_was_missed_is_said),
        TEST(test_a_task_whose_caller_waits_for_its_turn_has_not_ended),
        TEST(test_what_was_not_heard_while_the_bus_was_away_does_not_count),
        TEST(test_open_tasks_go_on_after_a_restart),
        TEST(test_a_card_that_never_comes_is_asked_for_less_and_less),
        STREAM(test_what_was_said_while_nobody_listened_is_history),
        STREAM(test_a_number_that_is_missing_is_looked_for_in_the_stream),
        STREAM(test_a_task_whose_instance_is_gone_is_whole),
        STREAM(test_what_is_heard_is_taken_up_together_but_before_anybody_looks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
