#include "journal_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/loop.h"

enum amp_code journal_world_open(struct journal_world *world, struct amp_error *err)
{
    world->journal = NULL;
    return journal_open(world->loop, world->path, &world->journal, err);
}

void journal_world_must_open(struct journal_world *world)
{
    struct amp_error err = {0};
    if (journal_world_open(world, &err) != AMP_OK)
        fail_msg("%s", err.message);
}

void journal_world_close(struct journal_world *world)
{
    journal_close(world->journal);
    world->journal = NULL;
}

void journal_world_begin(struct journal_world *world)
{
    snprintf(world->dir, sizeof world->dir, "%s/amesh-journal-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(world->dir));
    snprintf(world->path, sizeof world->path, "%s/journal.db", world->dir);
    world->loop = loop_new();
    journal_world_must_open(world);
}

void journal_world_end(struct journal_world *world)
{
    char command[96];
    journal_world_close(world);
    loop_free(world->loop);
    snprintf(command, sizeof command, "rm -rf %s", world->dir);
    assert_int_equal(system(command), 0);
}

static void on_commit(void *ctx, enum amp_code code)
{
    struct journal_world *world = ctx;
    assert_int_equal(code, AMP_OK);
    loop_stop(world->loop, 0);
}

void journal_world_write(struct journal_world *world, struct journal_batch *batch)
{
    assert_int_equal(journal_write(world->journal, batch, on_commit, world), AMP_OK);
    (void)loop_run(world->loop);
}

struct journal_row *journal_world_add_task(struct journal_batch *batch, const char *id, int64_t at, uint32_t events)
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

void journal_world_write_task(struct journal_world *world, const char *id, int64_t at)
{
    struct journal_batch *batch = journal_batch_new(world->journal);
    journal_world_add_task(batch, id, at, 0)->request = amp_bytes_of("the request, word for word");
    struct journal_row *key = journal_batch_add(batch, JOURNAL_KEY);
    key->scope = "me";
    key->key = journal_batch_text(batch, id);
    key->task = key->key;
    key->body = amp_bytes_of("digest");
    journal_world_write(world, batch);
}
