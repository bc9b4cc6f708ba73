#include "env/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

static void first_task(const struct env_world *world, char ret[AMP_ID_SIZE])
{
    assert_non_null(world->reply);
    snprintf(ret, AMP_ID_SIZE, "%s", world->reply->tasks[0]->task->id);
}

static void test_what_was_accepted_is_there_after_a_restart(void **state)
{
    struct env_world *world = *state;
    char task[AMP_ID_SIZE];
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.text = "work"}), AMP_OK);
    first_task(world, task);
    env_world_restart(world);
    assert_int_equal(env_world_get(world, task), AMP_OK);
    assert_string_equal(env_world_state(world, 0), "submitted");
    assert_non_null(world->reply->tasks[0]->waiting);
}

/* An empty key is no key: it must not be written down as one, or the second would break the journal. */
static void test_an_empty_key_is_no_key(void **state)
{
    struct env_world *world = *state;
    struct env_world_submit submit = {.key = ""};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(env_world_submit(world, &submit), AMP_OK);
        assert_false(world->reply->duplicate);
    }
    assert_int_equal(env_world_ping(world), AMP_OK);
    assert_string_equal(world->reply->info->journal, "ok");
}

static void test_a_key_means_the_same_task_also_after_a_restart(void **state)
{
    struct env_world *world = *state;
    struct env_world_submit submit = {.key = "k-1"};
    char first[AMP_ID_SIZE], again[AMP_ID_SIZE];
    assert_int_equal(env_world_submit(world, &submit), AMP_OK);
    first_task(world, first);
    assert_int_equal(env_world_submit(world, &submit), AMP_OK);
    first_task(world, again);
    assert_string_equal(first, again);
    assert_true(world->reply->duplicate);
    env_world_restart(world);
    assert_int_equal(env_world_submit(world, &submit), AMP_OK);
    first_task(world, again);
    assert_string_equal(first, again);
    assert_true(world->reply->duplicate);
    submit.text = "something else";
    assert_int_equal(env_world_submit(world, &submit), AMP_CONFLICT);
    assert_non_null(strstr(world->err.message, first));
}

/* Both come in one turn, before the first is committed: one task, two answers, of which one says duplicate. */
static void test_two_submits_at_once_with_one_key_are_one_task(void **state)
{
    struct env_world *world = *state;
    struct env_world_submit submit = {.key = "k-1"};
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    world->replies = 0;
    for (int i = 0; i < 20; i++)
        env_world_send_submit(world, &submit);
    env_world_wait(world, 20);
    assert_int_equal(world->err.code, AMP_OK);
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &query), AMP_OK);
    assert_int_equal(world->reply->total, 1);
}

static void test_an_id_that_is_taken_is_refused(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "mine"}), AMP_OK);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "mine"}), AMP_CONFLICT);
    env_world_restart(world);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "mine"}), AMP_CONFLICT);
}

/* What a request carries comes back in the reply as far as one message on this bus holds it. */
static void test_a_submit_as_large_as_the_bus_allows_is_answered(void **state)
{
    struct env_world *world = *state;
    struct env_world_submit submit = {.key = "large", .text_len = 1048576 - 150};
    assert_int_equal(env_world_submit(world, &submit), AMP_OK);
    assert_int_equal(world->reply->n_tasks, 1);
    assert_non_null(strstr((const char *)world->reply->tasks[0]->task->metadata->text.data, "\"amp/omitted\":[\"history\"]"));
    assert_int_equal(env_world_submit(world, &submit), AMP_OK);
    assert_true(world->reply->duplicate);
}

/* Nothing is accepted that is not on the disk, and the refusal says why and what to do. */
static void test_with_a_broken_disk_nothing_is_accepted_and_everybody_is_told(void **state)
{
    struct env_world *world = *state;
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "before"}), AMP_OK);
    env_world_break_disk(true);
    world->replies = 0;
    for (int i = 0; i < 3; i++)
        env_world_send_submit(world, &(struct env_world_submit){.key = "k-1"});
    env_world_wait(world, 3);
    env_world_break_disk(false);
    assert_int_equal(world->err.code, AMP_JOURNAL);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.text = "late"}), AMP_JOURNAL);
    assert_non_null(strstr(world->err.message, "disk"));
    assert_true(world->err.hint[0] != '\0');
    assert_int_equal(env_world_ping(world), AMP_OK);
    assert_string_not_equal(world->reply->info->journal, "ok");
    assert_int_equal(env_world_get(world, "before"), AMP_OK);
    assert_string_equal(env_world_state(world, 0), "submitted");
    assert_false(env_is_ready(world->env));
    env_world_restart(world);
    assert_true(env_is_ready(world->env));
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &query), AMP_OK);
    assert_int_equal(world->reply->total, 1);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.key = "k-1"}), AMP_OK);
    assert_false(world->reply->duplicate);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_what_was_accepted_is_there_after_a_restart),
        TEST(test_an_empty_key_is_no_key),
        TEST(test_a_key_means_the_same_task_also_after_a_restart),
        TEST(test_two_submits_at_once_with_one_key_are_one_task),
        TEST(test_an_id_that_is_taken_is_refused),
        TEST(test_a_submit_as_large_as_the_bus_allows_is_answered),
        TEST(test_with_a_broken_disk_nothing_is_accepted_and_everybody_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
