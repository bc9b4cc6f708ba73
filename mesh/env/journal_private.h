/* Between the journal's files: journal.c (queue, verdicts), journal_worker.c (the thread), journal_sqlite.c (schema, writing), journal_read.c. */
#pragma once
#include "env/journal.h"

#include <sqlite3.h>

struct journal_batch {
    struct journal *journal;
    struct amp_arena arena;
    struct journal_row *first, *last;
    void (*on_commit)(void *ctx, enum amp_code code);
    void *ctx;
    struct journal_batch *next; /* pool */
};

enum store_statement {
    STORE_BEGIN,
    STORE_COMMIT,
    STORE_ROLLBACK,
    STORE_TASK,
    STORE_EVENT,
    STORE_KV_PUT,
    STORE_KV_DELETE,
    STORE_DEATH,
    STORE_DEATH_TRIM,
    STORE_REVIVED,
    STORE_KEY,
    STORE_STATEMENTS,
};

/* The writing side. After store_open it belongs to the worker thread until that has ended. */
struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[STORE_STATEMENTS];
    int wal_pages; /* since the last checkpoint */
};

AMP_MUST_USE enum amp_code store_open(struct store *store, const char *path, struct amp_error *reterr);
void store_close(struct store *store);
/* One transaction, one fsync. On failure nothing of it is there, and `failure` says why. */
AMP_MUST_USE enum amp_code store_commit(struct store *store, struct journal_batch *const *batches, size_t count, char *failure,
                                        size_t failure_size);
/* Moves the log into the file if it has grown; with is_idle already when it is worth it. */
void store_checkpoint(struct store *store, bool is_idle);

/* The reading side. Statements are made when first used and kept, by shape of the query. */
#define READER_STATEMENTS_MAX 32u
struct reader {
    sqlite3 *db;
    struct {
        char *sql;
        sqlite3_stmt *statement;
    } cache[READER_STATEMENTS_MAX];
    size_t n_cache;
};
AMP_MUST_USE enum amp_code reader_open(struct reader *reader, const char *path, struct amp_error *reterr);
void reader_close(struct reader *reader);
struct reader *journal_reader(struct journal *journal);

/* journal_worker.c: the thread that calls journal_work until it returns 0. The simulator has its own. */
struct journal_worker;
struct mailbox;
struct journal_worker *journal_worker_new(struct journal *journal, struct mailbox *batches); /* NULL: no thread */
void journal_worker_free(struct journal_worker *worker); /* `batches` is closed: commits what is in there, then ends */
/* The worker's step: one group is committed and its verdict posted. is_waiting: for a group to come. 0: there is none; with is_waiting: the box is closed. */
size_t journal_work(struct journal *journal, bool is_waiting);
