/* Schedules on a real journal and a real bus, with clocks that the test sets (as in plan_test.c). Nobody works on their tasks but the test, which cancels them.
 * The wall clock stands, so that a minute that ends while a test is slow makes no run that the test does not know of. */
#include "env/schedules.h"

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

#define MINUTE_MS INT64_C(60000)

static int begin(void **state)
{
    struct env_world *world = *state = calloc(1, sizeof *world);
    set_clock_ms = set_clock_stands_ms = 0;
    set_clock_stands_ms = clock_unix_ms() / MINUTE_MS * MINUTE_MS + MINUTE_MS / 2;
    env_world_begin(world, NULL);
    return 0;
}

static int end(void **state)
{
    env_world_end(*state);
    free(*state);
    return 0;
}

struct wanted { /* of a schedule */
    const char *id, *cron, *overlap, *key, *text, *zone;
    uint32_t every_ms, count;
    bool has_no_runs; /* a count that is given, and is 0 */
};

static enum amp_code add(struct env_world *world, const struct wanted *wanted)
{
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    Amp__Request asked = AMP__REQUEST__INIT;
    Amp__Submit submit = AMP__SUBMIT__INIT;
    Amp__Schedule schedule = AMP__SCHEDULE__INIT;
    Amp__ScheduleCommand command = AMP__SCHEDULE_COMMAND__INIT;
    part.text = (char *)(wanted->text ? wanted->text : "hello");
    message.message_id = (char *)"m-1";
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    asked.task_id = asked.context_id = (char *)"";
    asked.message = &message;
    submit.agent = (char *)"nobody";
    submit.key = (char *)wanted->key;
    submit.request = &asked;
    schedule.id = (char *)wanted->id;
    schedule.cron = (char *)wanted->cron;
    schedule.zone = (char *)(wanted->zone ? wanted->zone : wanted->cron ? "UTC" : NULL);
    schedule.overlap = (char *)wanted->overlap;
    schedule.has_every_ms = wanted->every_ms > 0;
    schedule.every_ms = wanted->every_ms;
    schedule.has_count = wanted->count > 0 || wanted->has_no_runs;
    schedule.count = wanted->count;
    schedule.submit = &submit;
    command.op = AMP__SCHEDULE_OP__SCHEDULE_ADD;
    command.schedule = &schedule;
    return env_world_ask(world, AMP__ENV_REQUEST__VERB_SCHEDULE, &command);
}

static enum amp_code op(struct env_world *world, const char *id, Amp__ScheduleOp what)
{
    Amp__ScheduleCommand command = AMP__SCHEDULE_COMMAND__INIT;
    command.op = what;
    command.id = (char *)id;
    return env_world_ask(world, AMP__ENV_REQUEST__VERB_SCHEDULE, &command);
}

static const Amp__Schedule *get(struct env_world *world, const char *id)
{
    assert_int_equal(op(world, id, AMP__SCHEDULE_OP__SCHEDULE_GET), AMP_OK);
    assert_int_equal(world->reply->n_schedules, 1);
    return world->reply->schedules[0];
}

static void wait_runs(struct env_world *world, const char *id, uint32_t runs)
{
    int64_t until_ms = clock_mono_ms() + 15000;
    while (get(world, id)->runs < runs)
        if (clock_mono_ms() > until_ms)
            fail_msg("%s has %u runs", id, world->reply->schedules[0]->runs);
}

/* Its tasks, newest first, in world->reply. */
static size_t tasks(struct env_world *world, const char *id)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    query.parent = (char *)id;
    assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_LIST, &query), AMP_OK);
    return world->reply->n_tasks;
}

static bool says(const struct env_world *world, size_t task, const char *text)
{
    const ProtobufCBinaryData *metadata = &world->reply->tasks[task]->task->metadata->text;
    return memmem(metadata->data, metadata->len, text, strlen(text)) != NULL;
}

static void test_each_run_is_a_task_that_names_its_schedule(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(add(world, &(struct wanted){.id = "s-1", .every_ms = 1000, .overlap = "allow", .count = 2}), AMP_OK);
    wait_runs(world, "s-1", 2);
    assert_string_equal(world->reply->schedules[0]->state, "done");
    assert_int_equal(world->reply->schedules[0]->open, 2);
    assert_int_equal(tasks(world, "s-1"), 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(world->reply->tasks[i]->schedule, "s-1");
        assert_string_equal(world->reply->tasks[i]->from, "me");
        assert_true(says(world, i, "\"amp/schedule\":\"s-1\""));
        assert_true(says(world, i, "\"amp/planned\":\""));
    }
    assert_string_not_equal(world->reply->tasks[0]->task->context_id, world->reply->tasks[1]->task->context_id);
}

static void test_no_restart_makes_a_run_twice_or_forgets_one(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(add(world, &(struct wanted){.id = "s-1", .cron = "* * * * *", .overlap = "allow"}), AMP_OK);
    int64_t first = get(world, "s-1")->next->unix_ms;
    for (int i = 0; i < 5; i++) {
        set_clock_ms += MINUTE_MS; /* the next one is due now */
        if (i % 2) /* found due by a new environment, or made by the old one and then found */
            env_world_restart(world);
        wait_runs(world, "s-1", (uint32_t)i + 1);
        env_world_restart(world);
        const Amp__Schedule *schedule = get(world, "s-1");
        assert_int_equal(schedule->runs, i + 1);
        assert_int_equal(schedule->open, i + 1);
        assert_int_equal(schedule->last->unix_ms, first + i * MINUTE_MS);
        assert_int_equal(tasks(world, "s-1"), i + 1);
    }
}

static void test_what_was_missed_is_one_run_that_says_how_many(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(add(world, &(struct wanted){.id = "s-1", .cron = "* * * * *"}), AMP_OK);
    set_clock_ms += 10 * MINUTE_MS;
    env_world_restart(world);
    wait_runs(world, "s-1", 1);
    uint32_t missed = world->reply->schedules[0]->missed;
    assert_int_equal(missed, 9);
    assert_non_null(strstr(world->reply->schedules[0]->note, "missed"));
    char text[48];
    snprintf(text, sizeof text, "\"amp/missed\":%u", missed);
    assert_int_equal(tasks(world, "s-1"), 1);
    assert_true(says(world, 0, text));
}

static void test_a_clock_set_back_runs_nothing_again(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(add(world, &(struct wanted){.id = "s-1", .cron = "* * * * *", .overlap = "allow"}), AMP_OK);
    assert_int_equal(add(world, &(struct wanted){.id = "s-2", .every_ms = 1000, .overlap = "allow"}), AMP_OK);
    set_clock_ms += MINUTE_MS;
    wait_runs(world, "s-1", 1);
    set_clock_ms -= 30 * MINUTE_MS;
    wait_runs(world, "s-2", get(world, "s-2")->runs + 2); /* an interval goes on */
    assert_int_equal(get(world, "s-1")->runs, 1);
    set_clock_ms += 31 * MINUTE_MS;
    wait_runs(world, "s-1", 2);
    assert_int_equal(world->reply->schedules[0]->missed, 0);
}

static void test_overlaps_are_skipped_or_queued_and_that_is_said(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(add(world, &(struct wanted){.id = "skip", .cron = "* * * * *"}), AMP_OK);
    assert_int_equal(add(world, &(struct wanted){.id = "queue", .cron = "* * * * *", .overlap = "queue"}), AMP_OK);
    for (int i = 0; i < 3; i++) {
        set_clock_ms += MINUTE_MS;
        int64_t until_ms = clock_mono_ms() + 15000;
        for (const Amp__Schedule *schedule = get(world, "queue"); schedule->runs + schedule->n_queued < (size_t)i + 1 && clock_mono_ms() < until_ms;)
            schedule = get(world, "queue");
    }
    const Amp__Schedule *schedule = get(world, "skip");
    assert_int_equal(schedule->runs, 1);
    assert_int_equal(schedule->skipped, 2);
    assert_non_null(strstr(schedule->note, "skipped: task t-"));
    assert_int_equal(get(world, "queue")->n_queued, 2);
    env_world_restart(world); /* which forgets neither */
    char last[AMP_NAME_MAX + 1];
    for (int left = 2; left >= 0; left--) {
        schedule = get(world, "queue");
        assert_int_equal(schedule->n_queued, left);
        assert_int_equal(schedule->runs, 3 - left);
        snprintf(last, sizeof last, "%s", schedule->last_task);
        assert_int_equal(env_world_cancel(world, last), AMP_OK);
        if (left)
            wait_runs(world, "queue", 4 - (uint32_t)left);
    }
    assert_int_equal(get(world, "skip")->skipped, 2);
}

static void test_the_same_again_is_the_same_schedule(void **state)
{
    struct env_world *world = *state;
    const struct wanted nightly = {.cron = "0 3 * * *", .key = "nightly"};
    char id[AMP_NAME_MAX + 1];
    assert_int_equal(add(world, &nightly), AMP_OK);
    snprintf(id, sizeof id, "%s", world->reply->schedules[0]->id);
    assert_memory_equal(id, "s-", 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(add(world, &nightly), AMP_OK);
        assert_string_equal(world->reply->schedules[0]->id, id);
        assert_int_equal(add(world, &(struct wanted){.id = id, .cron = "0 3 * * *", .key = "nightly"}), AMP_OK);
        assert_string_equal(world->reply->schedules[0]->id, id);
        assert_int_equal(add(world, &(struct wanted){.cron = "0 4 * * *", .key = "nightly"}), AMP_CONFLICT);
        assert_int_equal(add(world, &(struct wanted){.id = id, .cron = "0 3 * * *", .key = "nightly", .text = "else"}), AMP_CONFLICT);
        assert_non_null(strstr(world->err.message, id));
        env_world_restart(world);
    }
    assert_int_equal(op(world, NULL, AMP__SCHEDULE_OP__SCHEDULE_LIST), AMP_OK);
    assert_int_equal(world->reply->n_schedules, 1);
}

static void test_it_can_be_held_run_and_removed(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(add(world, &(struct wanted){.id = "s-1", .every_ms = 1000}), AMP_OK);
    assert_int_equal(op(world, "s-1", AMP__SCHEDULE_OP__SCHEDULE_PAUSE), AMP_OK);
    assert_string_equal(world->reply->schedules[0]->state, "paused");
    assert_null(world->reply->schedules[0]->next);
    env_world_restart(world);
    assert_int_equal(op(world, "s-1", AMP__SCHEDULE_OP__SCHEDULE_RUN), AMP_OK);
    assert_string_equal(world->reply->tasks[0]->schedule, "s-1");
    assert_int_equal(get(world, "s-1")->runs, 1);
    assert_int_equal(op(world, "s-1", AMP__SCHEDULE_OP__SCHEDULE_RESUME), AMP_OK);
    assert_non_null(world->reply->schedules[0]->next);
    assert_int_equal(op(world, "s-1", AMP__SCHEDULE_OP__SCHEDULE_REMOVE), AMP_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(op(world, "s-1", AMP__SCHEDULE_OP__SCHEDULE_GET), AMP_NOT_FOUND);
        assert_int_equal(tasks(world, "s-1"), 1);
        assert_string_equal(env_world_state(world, 0), "submitted"); /* it goes on */
        env_world_restart(world);
    }
}

static void test_what_cannot_be_meant_is_refused(void **state)
{
    static const struct wanted wrong[] = {
        {.every_ms = 999}, {.cron = "* * * *"}, {.cron = "* * * * *", .every_ms = 1000}, {0}, {.cron = "@daily", .zone = "Mars/Olympus"}, {.every_ms = 1000, .zone = "UTC"},
        {.every_ms = 1000, .overlap = "maybe"}, {.cron = "0 0 30 2 *"}, {.every_ms = 1000, .has_no_runs = true},
    };
    struct env_world *world = *state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (add(world, &wrong[i]) != AMP_INVALID)
            fail_msg("number %zu was taken", i);
    assert_int_equal(op(world, NULL, AMP__SCHEDULE_OP__SCHEDULE_LIST), AMP_OK);
    assert_int_equal(world->reply->n_schedules, 0);
    assert_int_equal(op(world, "s-none", AMP__SCHEDULE_OP__SCHEDULE_PAUSE), AMP_NOT_FOUND);
}

static void test_there_are_so_many_and_no_more_and_lists_come_in_pages(void **state)
{
    struct env_world *world = *state;
    char id[32], token[AMP_NAME_MAX + 1] = "";
    size_t seen = 0;
    for (unsigned i = 0; i < SCHEDULES_SENDER_MAX; i++) {
        snprintf(id, sizeof id, "s-%06u", i * 7919 % 100003);
        assert_int_equal(add(world, &(struct wanted){.id = id, .cron = "@yearly"}), AMP_OK);
    }
    assert_int_equal(add(world, &(struct wanted){.cron = "@yearly"}), AMP_OVERLOADED);
    assert_true(world->err.hint[0] != '\0');
    env_world_restart(world);
    do {
        Amp__ScheduleCommand command = AMP__SCHEDULE_COMMAND__INIT;
        command.op = AMP__SCHEDULE_OP__SCHEDULE_LIST;
        command.page_token = *token ? token : NULL;
        assert_int_equal(env_world_ask(world, AMP__ENV_REQUEST__VERB_SCHEDULE, &command), AMP_OK);
        for (size_t i = 0; i < world->reply->n_schedules; i++, seen++) {
            assert_true(strcmp(world->reply->schedules[i]->id, token) > 0);
            snprintf(token, sizeof token, "%s", world->reply->schedules[i]->id);
        }
        assert_int_equal(world->reply->total, SCHEDULES_SENDER_MAX);
    } while (world->reply->next_page_token);
    assert_int_equal(seen, SCHEDULES_SENDER_MAX);
}

static void test_with_a_broken_disk_no_run_is_lost(void **state)
{
    struct env_world *world = *state;
    assert_int_equal(add(world, &(struct wanted){.id = "s-1", .cron = "* * * * *"}), AMP_OK);
    env_world_break_disk(true);
    assert_int_equal(op(world, "s-1", AMP__SCHEDULE_OP__SCHEDULE_PAUSE), AMP_JOURNAL);
    set_clock_ms += MINUTE_MS;
    env_world_break_disk(false);
    assert_int_equal(add(world, &(struct wanted){.id = "s-2", .cron = "* * * * *"}), AMP_JOURNAL);
    env_world_restart(world);
    wait_runs(world, "s-1", 1);
    assert_string_equal(world->reply->schedules[0]->state, "active"); /* nobody was told otherwise */
    assert_int_equal(tasks(world, "s-1"), 1);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_each_run_is_a_task_that_names_its_schedule),
        TEST(test_no_restart_makes_a_run_twice_or_forgets_one),
        TEST(test_what_was_missed_is_one_run_that_says_how_many),
        TEST(test_a_clock_set_back_runs_nothing_again),
        TEST(test_overlaps_are_skipped_or_queued_and_that_is_said),
        TEST(test_the_same_again_is_the_same_schedule),
        TEST(test_it_can_be_held_run_and_removed),
        TEST(test_what_cannot_be_meant_is_refused),
        TEST(test_there_are_so_many_and_no_more_and_lists_come_in_pages),
        TEST(test_with_a_broken_disk_no_run_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
