/* The journal: what "accepted" rests on. An interface; SQLite is the first form (journal_sqlite.c). Writes go to the worker thread in a bounded mailbox, are committed in groups
 * with fsync, and `on_commit` comes back on the loop. Reads happen on the loop from a second, read-only connection (WAL: readers never wait for the writer) and are bounded. */
#pragma once
#include <amp/amp.h>

struct loop;
struct journal;

enum journal_row_kind {
    JOURNAL_TASK,       /* insert or replace the summary of a task */
    JOURNAL_EVENT,      /* append one event; (task, seq) is unique */
    JOURNAL_KV,         /* put or delete */
    JOURNAL_DEATH,
    JOURNAL_KEY,        /* idempotency key → task, with the digest of the request */
};

/* One row. All pointers are owned by the batch's arena. Which members count depends on `kind`. */
struct journal_row {
    enum journal_row_kind kind;
    const char *task, *context, *agent, *skill, *from, *parent;
    int32_t state;
    bool is_durable, is_open;
    int64_t at_unix_ms;             /* event time; task: submitted */
    int64_t started_unix_ms, ended_unix_ms;
    uint32_t seq, attempt;
    struct amp_bytes body;          /* event: StreamResponse JSON; task: packed Amp__TaskRecord without events; kv: value; death: packed Amp__Death; key: digest */
    const char *scope, *owner, *key;
    uint32_t version;               /* kv; 0 with empty body: delete */
};

struct journal_batch; /* the rows that one decision of the environment writes: all or nothing */
struct journal_batch *journal_batch_new(struct journal *journal);
struct amp_arena *journal_batch_arena(struct journal_batch *batch);
struct journal_row *journal_batch_add(struct journal_batch *batch, enum journal_row_kind kind); /* zeroed */
void journal_batch_free(struct journal_batch *batch); /* only if it was not handed to journal_write */

/* Opens or makes <path>; takes its lock. AMP_RUNNING: another environment has it; AMP_JOURNAL: not usable (the message says why and what to do). */
AMP_MUST_USE enum amp_code journal_open(struct loop *loop, const char *path, struct journal **ret, struct amp_error *reterr);
void journal_close(struct journal *journal); /* commits what waits */
/* Takes the batch over on AMP_OK. on_commit once, on the loop: AMP_OK means durable. After the first failure every write is refused with AMP_JOURNAL for good. AMP_OVERLOADED when the queue is full. */
AMP_MUST_USE enum amp_code journal_write(struct journal *journal, struct journal_batch *batch, void (*on_commit)(void *ctx, enum amp_code code), void *ctx);
const char *journal_failure(const struct journal *journal); /* NULL, or why it refuses */

/* Reads. Rows are borrowed during the callback; return false to stop. */
struct journal_query {
    const char *task, *context, *agent, *parent;
    int32_t state;      /* 0: any */
    bool only_open, only_durable;
    uint32_t limit;     /* at most 1000 */
    int64_t before_unix_ms; /* paging: (submitted, id) strictly below; 0: from the newest */
    const char *before_task;
};
AMP_MUST_USE enum amp_code journal_tasks(struct journal *journal, const struct journal_query *query, bool (*on_row)(void *ctx, const struct journal_row *row), void *ctx, uint32_t *ret_total,
                                         struct amp_error *reterr);
AMP_MUST_USE enum amp_code journal_events(struct journal *journal, const char *task, uint32_t from_seq, uint32_t limit, bool (*on_row)(void *ctx, const struct journal_row *row), void *ctx,
                                          struct amp_error *reterr);
AMP_MUST_USE enum amp_code journal_deaths(struct journal *journal, const char *agent, uint32_t limit, bool (*on_row)(void *ctx, const struct journal_row *row), void *ctx, struct amp_error *reterr);
/* AMP_NOT_FOUND if there is none. */
AMP_MUST_USE enum amp_code journal_key(struct journal *journal, const char *from, const char *key, bool (*on_row)(void *ctx, const struct journal_row *row), void *ctx);
AMP_MUST_USE enum amp_code journal_kv(struct journal *journal, const char *scope, const char *owner, const char *key_prefix, bool is_exact, bool (*on_row)(void *ctx, const struct journal_row *row), void *ctx);
