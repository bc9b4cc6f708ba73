#include "env/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/bus.h"
#include "base/envcall.h"
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

/* A direct task, as the environment hears of it on the bus. */
static void tell(struct env_world *world, uint32_t seq, uint32_t n, int64_t end_count)
{
    struct world_frame frame = {.task = "t-1", .agent = "up", .instance = "i-1", .seq = seq, .n = n, .end_count = end_count};
    world_send_frame(world->world.near, "amp.evt.c-1.t-1", &frame);
}

static void tell_all(struct env_world *world, uint32_t count)
{
    for (uint32_t seq = 1; seq <= count; seq += 50)
        tell(world, seq, 50, seq + 50 > count ? (int64_t)count : -1);
    world_settle(&world->world, world->world.near);
    do {
        (void)env_world_get(world, "t-1");
    } while (world->err.code != AMP_OK || strcmp(env_world_state(world, 0), "failed") != 0);
}

/* Much more than one turn sends. One event more than told: the environment's own word that it ended without a terminal state. */
static void test_a_task_that_has_ended_is_replayed_to_its_end(void **state)
{
    struct env_world *world = *state;
    tell_all(world, 5000);
    assert_int_equal(env_world_watch(world, "t-1", 0), AMP_OK);
    assert_int_equal(world->events, 5001);
    env_world_restart(world);
    assert_int_equal(env_world_watch(world, "t-1", 4990), AMP_OK);
    assert_int_equal(world->events, 12);
    assert_int_equal(env_world_watch(world, "t-1", 5002), AMP_OK);
    assert_int_equal(world->events, 0);
}

static void test_a_number_behind_the_end_is_refused(void **state)
{
    struct env_world *world = *state;
    tell_all(world, 50);
    assert_int_equal(env_world_watch(world, "t-1", 100), AMP_INVALID);
    assert_int_equal(env_world_watch(world, "t-none", 1), AMP_NO_SUCH_TASK);
}

/* Somebody took the last row out of the file: its watcher is told, not left waiting for ever. */
static void test_a_hole_in_the_journal_is_said_to_the_watcher(void **state)
{
    struct env_world *world = *state;
    sqlite3 *db;
    tell_all(world, 200);
    assert_int_equal(sqlite3_open(world->journal, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(env_world_watch(world, "t-1", 1), AMP_FRAMES_LOST);
}

struct watching {
    struct env_world *world;
    struct env_watch *watch;
    uint32_t next;
    bool is_ended;
};

static unsigned n_ended;

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct watching *watching = ctx;
    (void)event;
    if (seq != watching->next)
        fail_msg("event %u came, %u was next", seq, watching->next);
    watching->next++;
    watching->world->events++;
    world_touch(&watching->world->world);
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct watching *watching = ctx;
    (void)wire;
    watching->is_ended = true;
    watching->world->end_code = err->code;
    n_ended++;
    world_touch(&watching->world->world);
}

static void start(struct env_world *world, struct watching *watching, const char *task, uint32_t from)
{
    static const struct env_watch_handlers handlers = {.on_event = on_event, .on_end = on_end};
    *watching = (struct watching){.world = world, .next = from};
    assert_int_equal(env_watch_start(world->world.loop, world->world.near, "me", task, from, 0, &handlers, watching, &watching->watch), AMP_OK);
}

/* Begun before, in the middle of, and behind what is there, while events go on coming: each sees every number from its own on, once. */
static void test_from_the_journal_to_live_nothing_is_missed_and_nothing_comes_twice(void **state)
{
    struct env_world *world = *state;
    struct watching watching[30];
    uint32_t seq = 1;
    n_ended = 0;
    tell(world, seq, 20, -1);
    seq += 20;
    do {
        (void)env_world_get(world, "t-1");
    } while (world->err.code != AMP_OK);
    for (int i = 0; i < 30; i++) {
        start(world, &watching[i], "t-1", (uint32_t)(i % 3 == 0 ? 1 : i % 3 == 1 ? 7 : seq + 5));
        for (int k = 0; k < 5; k++, seq += 10)
            tell(world, seq, 10, -1);
    }
    tell(world, seq, 10, (int64_t)seq + 9);
    world_wait(&world->world, &n_ended, 30);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(watching[i].next, seq + 11);
        env_watch_free(watching[i].watch);
    }
}

static void test_a_watcher_that_vanished_is_forgotten(void **state)
{
    struct env_world *world = *state;
    struct watching watching;
    tell(world, 1, 10, -1);
    do {
        (void)env_world_get(world, "t-1");
    } while (world->err.code != AMP_OK);
    world->events = 0;
    start(world, &watching, "t-1", 1);
    world_wait(&world->world, &world->events, 10);
    env_watch_free(watching.watch);
    tell(world, 11, 10, -1); /* to which the server says that nobody listens */
    tell(world, 21, 10, 30);
    world_settle(&world->world, world->world.near);
    assert_int_equal(env_world_watch(world, "t-1", 1), AMP_OK);
    assert_int_equal(world->events, 31);
}

/* The disk breaks while somebody watches: no silence, and no end marker for what has not ended. */
static void test_with_a_broken_disk_watchers_are_told(void **state)
{
    struct env_world *world = *state;
    struct watching watching;
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "t-2"}), AMP_OK);
    n_ended = 0;
    world->events = 0;
    start(world, &watching, "t-2", 1);
    world_wait(&world->world, &world->events, 1);
    env_world_break_disk(true);
    assert_int_equal(env_world_submit(world, &(struct env_world_submit){.task = "t-3"}), AMP_JOURNAL);
    world_wait(&world->world, &n_ended, 1);
    env_world_break_disk(false);
    assert_int_equal(world->end_code, AMP_JOURNAL);
    env_watch_free(watching.watch);
    assert_int_equal(env_world_watch(world, "t-2", 1), AMP_JOURNAL);
    assert_int_equal(world->events, 1);
    assert_int_equal(env_world_watch(world, "t-3", 1), AMP_NO_SUCH_TASK);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_a_task_that_has_ended_is_replayed_to_its_end),
        TEST(test_a_number_behind_the_end_is_refused),
        TEST(test_a_hole_in_the_journal_is_said_to_the_watcher),
        TEST(test_from_the_journal_to_live_nothing_is_missed_and_nothing_comes_twice),
        TEST(test_a_watcher_that_vanished_is_forgotten),
        TEST(test_with_a_broken_disk_watchers_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
