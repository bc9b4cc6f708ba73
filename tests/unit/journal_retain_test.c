#include "env/journal_files.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/loop.h"
#include "journal_world.h"

static int setup(void **state)
{
    journal_world_begin(*state = calloc(1, sizeof(struct journal_world)));
    return 0;
}

static int teardown(void **state)
{
    journal_world_end(*state);
    free(*state);
    return 0;
}

static bool count_row(void *ctx, const struct journal_row *row)
{
    ++*(unsigned *)ctx;
    return true;
}

static enum amp_code verify(struct journal_world *world)
{
    static const struct journal_verify_handlers none = {0};
    struct journal_report report;
    return journal_verify(world->path, &none, NULL, &report, NULL);
}

static uint32_t prune(struct journal_world *world, struct journal_row wanted)
{
    uint32_t count = 99;
    struct journal_batch *batch = journal_batch_new(world->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_PRUNE), *next = row->next;
    *row = wanted;
    row->kind = JOURNAL_PRUNE;
    row->next = next;
    row->ret_count = &count;
    journal_world_write(world, batch);
    return count;
}

static void end_task(struct journal_world *world, const char *id, int64_t at, int64_t ended, bool is_dead)
{
    struct journal_batch *batch = journal_batch_new(world->journal);
    struct journal_row *row = journal_world_add_task(batch, id, at, 0);
    row->is_open = false;
    row->is_dead = is_dead;
    row->ended_unix_ms = ended;
    journal_world_write(world, batch);
}

static void test_only_what_ended_long_ago_is_pruned_in_batches_and_the_chain_knows(void **state)
{
    struct journal_world *world = *state;
    struct journal_counts counts;
    unsigned keys = 0;
    journal_world_write_task(world, "t-open", 100);
    journal_world_write_task(world, "t-dead", 110);
    end_task(world, "t-dead", 110, 120, true);
    for (int i = 0; i < 5; i++) {
        char id[16];
        snprintf(id, sizeof id, "t-old-%d", i);
        journal_world_write_task(world, id, 200 + i);
        end_task(world, id, 200 + i, 300, false);
    }
    journal_world_write_task(world, "t-new", 400);
    end_task(world, "t-new", 400, 900, false);
    const struct journal_row age = {.at_unix_ms = 500, .count = 3};
    assert_int_equal(prune(world, age), 3);
    assert_int_equal(prune(world, age), 2);
    assert_int_equal(prune(world, age), 0);
    assert_int_equal(journal_count(world->journal, &counts), AMP_OK);
    assert_int_equal(counts.tasks, 3);
    assert_int_equal(journal_key(world->journal, "me", "t-old-1", count_row, &keys), AMP_NOT_FOUND);
    assert_int_equal(journal_key(world->journal, "me", "t-open", count_row, &keys), AMP_OK);
    assert_int_equal(verify(world), AMP_OK);
    assert_int_equal(prune(world, (struct journal_row){.ended_unix_ms = 1000, .bytes_max = 1ull << 40, .count = 3}), 0);
    assert_int_equal(prune(world, (struct journal_row){.ended_unix_ms = 800, .bytes_max = 1, .count = 3}), 0);
    assert_int_equal(prune(world, (struct journal_row){.ended_unix_ms = 1000, .bytes_max = 1, .count = 3}), 1);
    assert_int_equal(verify(world), AMP_OK);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_what_ended_long_ago_is_pruned_in_batches_and_the_chain_knows, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
