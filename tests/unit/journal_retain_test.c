#include "env/journal.h"
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

struct fixture {
    struct loop *loop;
    struct journal *journal;
    char dir[64], path[96];
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct amp_error err = {0};
    strcpy(fixture->dir, "/tmp/amesh-retain-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    snprintf(fixture->path, sizeof fixture->path, "%s/journal.db", fixture->dir);
    fixture->loop = loop_new();
    if (journal_open(fixture->loop, fixture->path, &fixture->journal, &err) != AMP_OK)
        fail_msg("%s", err.message);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    char command[96];
    journal_close(fixture->journal);
    loop_free(fixture->loop);
    snprintf(command, sizeof command, "rm -rf %s", fixture->dir);
    assert_int_equal(system(command), 0);
    free(fixture);
    return 0;
}

static void on_commit(void *ctx, enum amp_code code)
{
    struct fixture *fixture = ctx;
    assert_int_equal(code, AMP_OK);
    loop_stop(fixture->loop, 0);
}

static void write_now(struct fixture *fixture, struct journal_batch *batch)
{
    assert_int_equal(journal_write(fixture->journal, batch, on_commit, fixture), AMP_OK);
    (void)loop_run(fixture->loop);
}

static struct journal_row *add_task(struct journal_batch *batch, const char *id, int64_t at, uint32_t events)
{
    struct journal_row *row = journal_batch_add(batch, JOURNAL_TASK);
    row->task = journal_batch_text(batch, id);
    row->context = "c-1";
    row->agent = "up";
    row->state = AMP__TASK_STATE__TASK_STATE_WORKING;
    row->is_durable = row->is_open = true;
    row->at_unix_ms = at;
    row->count = events;
    return row;
}

static void write_task(struct fixture *fixture, const char *id, int64_t at)
{
    struct journal_batch *batch = journal_batch_new(fixture->journal);
    add_task(batch, id, at, 0)->request = amp_bytes_of("the request, word for word");
    struct journal_row *key = journal_batch_add(batch, JOURNAL_KEY);
    key->scope = "me";
    key->key = journal_batch_text(batch, id);
    key->task = key->key;
    key->body = amp_bytes_of("digest");
    write_now(fixture, batch);
}

static bool count_row(void *ctx, const struct journal_row *row)
{
    ++*(unsigned *)ctx;
    return true;
}

static enum amp_code verify(struct fixture *fixture)
{
    static const struct journal_verify_handlers none = {0};
    struct journal_report report;
    return journal_verify(fixture->path, &none, NULL, &report, NULL);
}

static uint32_t prune(struct fixture *fixture, struct journal_row wanted)
{
    uint32_t count = 99;
    struct journal_batch *batch = journal_batch_new(fixture->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_PRUNE), *next = row->next;
    *row = wanted;
    row->kind = JOURNAL_PRUNE;
    row->next = next;
    row->ret_count = &count;
    write_now(fixture, batch);
    return count;
}

static void end_task(struct fixture *fixture, const char *id, int64_t at, int64_t ended, bool is_dead)
{
    struct journal_batch *batch = journal_batch_new(fixture->journal);
    struct journal_row *row = add_task(batch, id, at, 0);
    row->is_open = false;
    row->is_dead = is_dead;
    row->ended_unix_ms = ended;
    write_now(fixture, batch);
}

static void test_only_what_ended_long_ago_is_pruned_in_batches_and_the_chain_knows(void **state)
{
    struct fixture *fixture = *state;
    struct journal_counts counts;
    unsigned keys = 0;
    write_task(fixture, "t-open", 100);
    write_task(fixture, "t-dead", 110);
    end_task(fixture, "t-dead", 110, 120, true);
    for (int i = 0; i < 5; i++) {
        char id[16];
        snprintf(id, sizeof id, "t-old-%d", i);
        write_task(fixture, id, 200 + i);
        end_task(fixture, id, 200 + i, 300, false);
    }
    write_task(fixture, "t-new", 400);
    end_task(fixture, "t-new", 400, 900, false);
    const struct journal_row age = {.at_unix_ms = 500, .count = 3};
    assert_int_equal(prune(fixture, age), 3);
    assert_int_equal(prune(fixture, age), 2);
    assert_int_equal(prune(fixture, age), 0);
    assert_int_equal(journal_count(fixture->journal, &counts), AMP_OK);
    assert_int_equal(counts.tasks, 3);
    assert_int_equal(journal_key(fixture->journal, "me", "t-old-1", count_row, &keys), AMP_NOT_FOUND);
    assert_int_equal(journal_key(fixture->journal, "me", "t-open", count_row, &keys), AMP_OK);
    assert_int_equal(verify(fixture), AMP_OK);
    assert_int_equal(prune(fixture, (struct journal_row){.ended_unix_ms = 1000, .bytes_max = 1ull << 40, .count = 3}), 0);
    assert_int_equal(prune(fixture, (struct journal_row){.ended_unix_ms = 800, .bytes_max = 1, .count = 3}), 0);
    assert_int_equal(prune(fixture, (struct journal_row){.ended_unix_ms = 1000, .bytes_max = 1, .count = 3}), 1);
    assert_int_equal(verify(fixture), AMP_OK);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_what_ended_long_ago_is_pruned_in_batches_and_the_chain_knows, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
