/* A journal in a directory of its own, for tests of the journal alone. Failures end the test with a message. */
#pragma once
#include "env/journal.h"

struct loop;

struct journal_world {
    struct loop *loop;
    struct journal *journal; /* NULL: closed, or not opened */
    char dir[64], path[96];
};

/* In memory (/dev/shm) where that is possible; opens it. */
void journal_world_begin(struct journal_world *world);
void journal_world_end(struct journal_world *world); /* closes it and removes the directory */
AMP_MUST_USE enum amp_code journal_world_open(struct journal_world *world, struct amp_error *err);
void journal_world_must_open(struct journal_world *world);
void journal_world_close(struct journal_world *world);
void journal_world_write(struct journal_world *world, struct journal_batch *batch); /* waits for the commit, which must be good */
/* The row of an open durable task of agent `up` in context c-1. */
struct journal_row *journal_world_add_task(struct journal_batch *batch, const char *id, int64_t at, uint32_t events);
/* Such a task with its request and its key. */
void journal_world_write_task(struct journal_world *world, const char *id, int64_t at);
