#include "env/journal_files.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

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

static void put(struct journal_world *world, const char *scope, const char *key, uint32_t version)
{
    struct journal_batch *batch = journal_batch_new(world->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    row->scope = scope;
    row->owner = "";
    row->key = key;
    row->version = version;
    row->at_unix_ms = 100;
    row->body = amp_bytes_of("{}");
    journal_world_write(world, batch);
}

static unsigned count_kv(struct journal_world *world, const char *scope)
{
    unsigned count = 0;
    struct journal_kv_query query = {.scope = scope, .owner = "", .key = "", .is_prefix = true};
    (void)journal_kv(world->journal, &query, count_row, &count);
    return count;
}

static void test_questions_go_with_their_task_and_memory_stays(void **state)
{
    struct journal_world *world = *state;
    journal_world_write_task(world, "t-old", 100);
    end_task(world, "t-old", 100, 200, false);
    journal_world_write_task(world, "t-old2", 110);
    for (const char *const *key = (const char *const[]){"t-old:q-1", "t-old:q-2", "t-old2:q-1", "t-ol:q-1", NULL}; *key; key++)
        put(world, JOURNAL_SCOPE_QUESTION, *key, 1);
    put(world, "shared", "t-old:q-1", 1);
    assert_int_equal(prune(world, (struct journal_row){.at_unix_ms = 500, .count = 3}), 1);
    assert_int_equal(count_kv(world, JOURNAL_SCOPE_QUESTION), 2);
    assert_int_equal(count_kv(world, "shared"), 1);
    assert_int_equal(verify(world), AMP_OK);
}

static void put_file(struct journal_world *world, const char *digest, const char *task)
{
    struct journal_batch *batch = journal_batch_new(world->journal);
    for (int i = 0; i < 2; i++) {
        struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
        row->scope = i ? JOURNAL_SCOPE_BLOBS_OF : JOURNAL_SCOPE_BLOB;
        row->owner = i ? task : digest;
        row->key = i ? digest : task;
        row->version = 1;
        row->at_unix_ms = 100;
        row->body = amp_bytes_of("{}");
    }
    journal_world_write(world, batch);
}

static uint32_t count_of(struct journal_world *world, const char *scope, const char *owner)
{
    uint32_t count = 0;
    assert_int_equal(journal_count_keys(world->journal, scope, owner, &count), AMP_OK);
    return count;
}

static void test_a_file_is_referred_to_until_the_last_task_that_has_it_is_gone(void **state)
{
    struct journal_world *world = *state;
    journal_world_write_task(world, "t-one", 100);
    journal_world_write_task(world, "t-two", 110);
    put_file(world, "sha256-a", "t-one");
    put_file(world, "sha256-a", "t-two");
    put_file(world, "sha256-b", "t-one");
    end_task(world, "t-one", 100, 200, false);
    assert_int_equal(prune(world, (struct journal_row){.at_unix_ms = 500, .count = 3}), 1);
    assert_int_equal(count_of(world, JOURNAL_SCOPE_BLOB, "sha256-a"), 1);
    assert_int_equal(count_of(world, JOURNAL_SCOPE_BLOB, "sha256-b"), 0);
    assert_int_equal(count_of(world, JOURNAL_SCOPE_BLOBS_OF, "t-one"), 0);
    assert_int_equal(count_of(world, JOURNAL_SCOPE_BLOBS_OF, "t-two"), 1);
    end_task(world, "t-two", 110, 200, false);
    assert_int_equal(prune(world, (struct journal_row){.at_unix_ms = 500, .count = 3}), 1);
    assert_int_equal(count_of(world, JOURNAL_SCOPE_BLOB, "sha256-a"), 0);
    assert_int_equal(verify(world), AMP_OK);
}

static enum amp_code prune_file(struct journal_world *world, struct journal_prune_counts *counts)
{
    struct amp_error err = {0};
    const struct journal_prune_options options = {.now_unix_ms = 2000, .before_unix_ms = 500};
    enum amp_code code = journal_prune(world->path, &options, counts, &err);
    if (code == AMP_CORRUPT)
        assert_non_null(strstr(err.message, "is damaged"));
    return code;
}

static void fill(struct journal_world *world)
{
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "t-%d", i);
        journal_world_write_task(world, id, 100 + i);
        end_task(world, id, 100 + i, i < 18 ? 200 : 900, false);
    }
    journal_world_close(world);
}

static void run_sql(const struct journal_world *world, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(world->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* What is left is chained behind the old end; it goes on, and what is damaged afterwards is named as ever. */
static void test_a_chain_of_what_is_gone_is_made_anew_and_still_knows_damage(void **state)
{
    struct journal_world *world = *state;
    struct journal_prune_counts counts;
    struct journal_counts left;
    fill(world);
    assert_int_equal(prune_file(world, &counts), AMP_OK);
    assert_int_equal(counts.tasks, 18);
    assert_true(counts.chain_before > 80 && counts.chain_after < 20);
    assert_int_equal(verify(world), AMP_OK);
    assert_int_equal(prune_file(world, &counts), AMP_OK); /* not again for nothing */
    assert_int_equal(counts.chain_before, counts.chain_after);
    journal_world_must_open(world);
    journal_world_write_task(world, "t-more", 1000);
    assert_int_equal(journal_count(world->journal, &left), AMP_OK);
    assert_int_equal(left.tasks, 3);
    assert_int_equal(verify(world), AMP_OK);
    journal_world_close(world);
    run_sql(world, "UPDATE tasks SET agent = 'mallory' WHERE id = 't-19'");
    assert_int_equal(verify(world), AMP_CORRUPT);
    run_sql(world, "DELETE FROM tasks WHERE id = 't-19'; DELETE FROM keys WHERE task = 't-19'");
    assert_int_equal(verify(world), AMP_CORRUPT);
}

/* It would be sealed as it is: nothing is chained anew of a journal that is not sound. */
static void test_the_chain_of_a_damaged_journal_stays(void **state)
{
    struct journal_world *world = *state;
    struct journal_prune_counts counts;
    fill(world);
    run_sql(world, "UPDATE tasks SET agent = 'mallory' WHERE id = 't-19'");
    assert_int_equal(prune_file(world, &counts), AMP_CORRUPT);
    assert_int_equal(verify(world), AMP_CORRUPT);
}

/* A power cut behind the commit and before the new head: the old one names the base. */
static void test_a_head_of_before_the_new_chain_is_taken(void **state)
{
    struct journal_world *world = *state;
    struct journal_prune_counts counts;
    char command[256];
    fill(world);
    snprintf(command, sizeof command, "cp %s-head %s.kept", world->path, world->path);
    assert_int_equal(system(command), 0);
    assert_int_equal(prune_file(world, &counts), AMP_OK);
    snprintf(command, sizeof command, "cp %s.kept %s-head", world->path, world->path);
    assert_int_equal(system(command), 0);
    assert_int_equal(verify(world), AMP_OK);
    journal_world_must_open(world);
    journal_world_write_task(world, "t-more", 1000);
    assert_int_equal(verify(world), AMP_OK);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_questions_go_with_their_task_and_memory_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_is_referred_to_until_the_last_task_that_has_it_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_chain_of_what_is_gone_is_made_anew_and_still_knows_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_chain_of_a_damaged_journal_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_head_of_before_the_new_chain_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_what_ended_long_ago_is_pruned_in_batches_and_the_chain_knows, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
