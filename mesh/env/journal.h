/* The journal: what "accepted" rests on. An interface; SQLite is the first form (journal_sqlite.c). Writes go to the
 * worker thread in a bounded mailbox, are committed in groups with fsync, and `on_commit` comes back on the loop. Reads
 * happen on the loop from a second, read-only connection (WAL: readers never wait for the writer) and are bounded. All
 * functions on the loop thread. */
#pragma once
#include <amp/amp.h>

struct loop;
struct journal;

#define JOURNAL_CORRUPT_HINT "amesh env verify says all that is damaged; restore a backup, or save what is sound: amesh env export --skip-corrupt"
#define JOURNAL_GROUP_MAX 512u           /* batches in one transaction */
#define JOURNAL_GROUP_BYTES_MAX ((size_t)4 << 20) /* of them; one alone may be larger */
#define JOURNAL_QUEUE_MAX 65536u         /* batches that wait for the worker */
#define JOURNAL_QUEUE_BYTES_MAX ((size_t)48 << 20) /* of them; one alone may be larger */
#define JOURNAL_BATCH_BYTES_MAX (128u << 20)
#define JOURNAL_READ_MAX 1000u           /* rows of one read */
#define JOURNAL_DEATHS_MAX 100u          /* deaths kept of one agent */
#define JOURNAL_PRUNE_MAX 64u            /* tasks removed at once */

/* Scopes of KV rows that speak of one journal alone, and of no other's: neither exported nor imported. */
#define JOURNAL_SCOPE_BOOT "environment" /* the number of the environment that opened it last (10.7.1) */
#define JOURNAL_KEY_BOOT "boot"
#define JOURNAL_SCOPE_STREAM "amesh" /* how far the stream of the bus was read (10.8) */
#define JOURNAL_SCOPE_WAITS "waits" /* what those who wait for a target wait for (waits.c) */
#define JOURNAL_SCOPE_QUESTION "question" /* keys "<task>:<question>"; they go with their task */
#define JOURNAL_SCOPE_BLOB "blob"      /* owner: digest of a file, key: a task or schedule that has it; they go with their task */
#define JOURNAL_SCOPE_BLOBS_OF "blobs of" /* the same from the other side: owner: the task, key: the digest */
#define JOURNAL_FILES "-blobs" /* the directory of those files, beside the journal: <journal>-blobs */
#define JOURNAL_PRIVATE_SCOPES {JOURNAL_SCOPE_BOOT, JOURNAL_SCOPE_STREAM, JOURNAL_SCOPE_WAITS}

enum journal_row_kind {
    JOURNAL_TASK,  /* insert the summary of a task or replace what changes in it */
    JOURNAL_EVENT, /* append `count` events, numbered from seq; (task, seq) is unique */
    JOURNAL_KV,    /* put or delete */
    JOURNAL_DEATH,
    JOURNAL_REVIVED, /* the task is no dead letter any more */
    JOURNAL_KEY, /* idempotency key → task, with the digest of the request; scope = sender */
    JOURNAL_PRUNE, /* tasks that ended long ago go, with their events and keys; open ones and dead letters never */
};

/* One row. Pointers of a row to be written live in the batch's arena (or are static); those of a row that was read, during
 * the callback. NULL text reads back as "". Which members count depends on `kind`. */
struct journal_row {
    enum journal_row_kind kind;
    struct journal_row *next; /* the batch's own */
    const char *task, *context, *agent, *skill, *from, *parent;
    const char *instance;         /* task: who has it now; death: who died */
    const char *attempts;         /* task: JSON array, kept as it was if NULL */
    int32_t state;
    bool is_durable, is_open, is_incomplete, is_dead;
    bool is_damaged; /* task: journal_query.with_damaged */
    int64_t at_unix_ms;           /* task: submitted; event, kv, death: when */
    int64_t started_unix_ms, ended_unix_ms; /* 0: not yet */
    uint32_t seq, count, attempt; /* task: count = events so far */
    struct amp_bytes body;    /* event: packed Amp__Frame with these events; task: packed Amp__TaskRecord without events (kept as
                                 it was if empty); kv: value; death: packed Amp__Death; key: digest */
    struct amp_bytes request; /* task: packed Amp__Submit; kept as it was if empty */
    const char *scope, *owner, *key;
    uint32_t version;         /* kv; 0: delete */
    /* prune: at_unix_ms: those that ended before it; ended_unix_ms: those before it too while more than bytes_max are used; count: at most so
     * many at once. *ret_count, set before on_commit: how many went. In order of their submits, from the oldest, and round again. */
    uint64_t bytes_max;
    uint32_t *ret_count;
};

struct journal_batch; /* the rows that one decision of the environment writes: all or nothing */
struct journal_batch *journal_batch_new(struct journal *journal);
struct amp_arena *journal_batch_arena(struct journal_batch *batch);
struct journal_row *journal_batch_add(struct journal_batch *batch, enum journal_row_kind kind); /* zeroed */
/* Copies into the batch; NULL stays NULL, "" becomes NULL. */
const char *journal_batch_text(struct journal_batch *batch, const char *text);
struct amp_bytes journal_batch_bytes(struct journal_batch *batch, struct amp_bytes bytes);
/* Not copied: they outlive the verdict. They count as the batch's. */
struct amp_bytes journal_batch_borrow(struct journal_batch *batch, struct amp_bytes bytes);
void journal_batch_free(struct journal_batch *batch); /* only if journal_write did not take it */

/* Opens or makes <path>; takes its lock. AMP_RUNNING: another environment has it; AMP_JOURNAL: not usable (the message says
 * why, the hint what to do). Blocks for as long as opening takes. */
AMP_MUST_USE enum amp_code journal_open(struct loop *loop, const char *path, struct journal **ret, struct amp_error *reterr);
/* Signs of life, for the next environment: when the last one was, before this one opened the journal (0: never, or not known), and one now. */
int64_t journal_lived_unix_ms(const struct journal *journal);
void journal_live(struct journal *journal);
/* Commits what waits (blocks for it), gives the verdicts, closes. NULL is fine. */
void journal_close(struct journal *journal);
/* Takes the batch over on AMP_OK. on_commit (may be NULL) once, on the loop: AMP_OK means durable. After the first failure
 * every write is refused with AMP_JOURNAL until the next journal_open. AMP_OVERLOADED when the queue is full. */
AMP_MUST_USE enum amp_code journal_write(struct journal *journal, struct journal_batch *batch,
                                         void (*on_commit)(void *ctx, enum amp_code code), void *ctx);
const char *journal_failure(const struct journal *journal); /* NULL, or why it refuses */
bool journal_is_damaged(const struct journal *journal);     /* and it refuses because of damage, which no room on the disk mends */
const char *journal_damage(const struct journal *journal);  /* NULL, or what was found damaged last, since it was opened */
size_t journal_waiting(const struct journal *journal);      /* batches without a verdict */
size_t journal_waiting_bytes(const struct journal *journal);

/* ---- reads: `on_row` returns false to stop. A row that is not what was written is never given: AMP_CORRUPT, which names it ---- */

/* Why the read before failed; AMP_OK if it did not. */
const struct amp_error *journal_read_error(const struct journal *journal);

/* Who reads knows that event `seq` of the task was committed, and it did not come: AMP_CORRUPT, as if a read had found it. */
enum amp_code journal_missing(struct journal *journal, const char *task, uint32_t seq, struct amp_error *reterr);

typedef bool journal_on_row(void *ctx, const struct journal_row *row);

struct journal_query {
    const char *task, *context, *agent, *parent;
    int32_t state; /* 0: any */
    bool only_open, only_durable, only_dead;
    bool oldest_first;
    bool with_damaged;      /* a row that is not what was written does not end the read: it is given with its id, its time and is_damaged, nothing else */
    uint32_t limit;         /* 0 or more than JOURNAL_READ_MAX: that */
    int64_t from_unix_ms;   /* paging: (submitted, id) strictly behind these in the order asked for; 0: from the start */
    const char *from_task;
};
/* ret_total (may be NULL): how many match, whatever the page. */
AMP_MUST_USE enum amp_code journal_tasks(struct journal *journal, const struct journal_query *query, journal_on_row *on_row,
                                         void *ctx, uint32_t *ret_total, struct amp_error *reterr);
/* Rows from the one that holds from_seq on; its first events may be below. */
AMP_MUST_USE enum amp_code journal_events(struct journal *journal, const char *task, uint32_t from_seq, journal_on_row *on_row,
                                          void *ctx, struct amp_error *reterr);
/* Newest first. */
AMP_MUST_USE enum amp_code journal_deaths(struct journal *journal, const char *agent, uint32_t limit, journal_on_row *on_row,
                                          void *ctx, struct amp_error *reterr);
/* AMP_NOT_FOUND if there is none. */
AMP_MUST_USE enum amp_code journal_key(struct journal *journal, const char *from, const char *key, journal_on_row *on_row,
                                       void *ctx);
/* In order of keys. `key`: the key, or with is_prefix what keys begin with. `after` (may be NULL): only keys behind it. */
struct journal_kv_query {
    const char *scope, *owner, *key, *after;
    bool is_prefix;
};
AMP_MUST_USE enum amp_code journal_kv(struct journal *journal, const struct journal_kv_query *query, journal_on_row *on_row,
                                      void *ctx);
struct journal_counts {
    uint32_t tasks, tasks_open;
};
AMP_MUST_USE enum amp_code journal_count(struct journal *journal, struct journal_counts *ret);
AMP_MUST_USE enum amp_code journal_count_keys(struct journal *journal, const char *scope, const char *owner, uint32_t *ret);
