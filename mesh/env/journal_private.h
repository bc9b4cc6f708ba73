/* Between the journal's files: journal.c (queue, verdicts), journal_worker.c (the thread), journal_sqlite.c (opening, writing), journal_schema.c,
 * journal_chain.c (entries), journal_head.c, journal_wal.c, journal_vfs.c (how the log is written), journal_read.c. */
#pragma once
#include "env/journal.h"

#include <sqlite3.h>

#define SCHEMA_VERSION 3
#define SCHEMA_CHAINED 3 /* the version from which on there is a chain */

/* ---- what rows are made of: the columns that are sealed, those of the key first. To add a column: at the end. */
#define COLUMNS_META "name, value"
#define COLUMNS_TASKS \
    "id, context, agent, skill, sender, parent, instance, state, durable, open, incomplete, submitted, started, ended, attempt," \
    " events, attempts, request, record, dead"
#define COLUMNS_EVENTS "task, seq, count, at, body"
#define COLUMNS_KEYS "sender, key, task, digest"
#define COLUMNS_KV "scope, owner, key, version, at, value"
#define COLUMNS_DEATHS "n, agent, instance, at, body"

enum chain_kind { CHAIN_META = 1, CHAIN_TASK, CHAIN_EVENT, CHAIN_KEY, CHAIN_KV, CHAIN_DEATH, CHAIN_KINDS }; /* on the disk: never renumbered */
struct chain_table {
    const char *name, *columns;
    const char *text; /* SQL: the row's name for people */
    unsigned n_key, n_columns;
};
extern const struct chain_table chain_tables[CHAIN_KINDS];

/* ---- the chain */
#define CHAIN_HASH_SIZE 32u
#define CHAIN_SEAL_SIZE 16u
#define CHAIN_ROW_SIZE (1u + 2u * CHAIN_SEAL_SIZE) /* kind, digest of the key, seal (zeros: the row is gone) */
#define CHAIN_COLUMNS_MAX 20 /* of a table */
#define CHAIN_BYTES_MAX ((size_t)1 << 30)           /* of one transaction: an upgrade chains all that is there */
#define CHAIN_BULK_ROWS_MAX (CHAIN_BYTES_MAX / CHAIN_ROW_SIZE)
#define CHAIN_ENTRY_ROWS 65536u                    /* rows of one entry; a transaction may have several */

struct chain_entry {
    uint64_t n;
    int64_t at_unix_ms;
    struct amp_bytes rows;
    uint8_t hash[CHAIN_HASH_SIZE];
};

struct chain { /* the writer's */
    char id[AMP_ID_SIZE]; /* of the journal */
    uint64_t n, next_n;   /* the newest entry; of the transaction at hand */
    uint8_t hash[CHAIN_HASH_SIZE], next_hash[CHAIN_HASH_SIZE];
    struct amp_buf rows; /* of the transaction at hand */
    uint8_t note[CHAIN_ROW_SIZE];
    bool is_noted, is_bulk; /* is_bulk: each seal is one row; else the last seal before chain_take */
    sqlite3_stmt *insert;
};

void chain_init(struct chain *chain);
void chain_done(struct chain *chain);
/* SQL functions row_seal, row_gone, row_key, chain_entry. `chain` NULL: nothing is noted. */
int chain_functions(sqlite3 *db, struct chain *chain);
/* The row at which a statement stands begins with all columns of its table, in their order, and then its seal: is it what was written? */
bool chain_is_sealed(sqlite3_stmt *statement, enum chain_kind kind);
void chain_begin(struct chain *chain);
bool chain_take(struct chain *chain); /* what was sealed last is a row of the transaction */
struct store;
bool chain_add(struct store *store, int64_t now_unix_ms); /* the entries of the transaction */
void chain_committed(struct chain *chain);
void chain_hash(const struct chain_entry *entry, const uint8_t before[CHAIN_HASH_SIZE], uint8_t ret[CHAIN_HASH_SIZE]);
/* Of "SELECT n, at, rows, hash FROM chain": SQLITE_ROW, SQLITE_DONE or an error. Rows live until the next step. */
int chain_read(sqlite3_stmt *statement, struct chain_entry *ret);
/* Where the chain begins: entries up to *ret_n are no longer kept. False: it cannot be read. */
bool chain_base(sqlite3 *db, uint64_t *ret_n, uint8_t ret_hash[CHAIN_HASH_SIZE]);

/* ---- journal_head.c: <journal>-head, and files beside the journal */
struct head {
    enum { HEAD_NONE, HEAD_GARBLED, HEAD_READ } state;
    char id[AMP_ID_SIZE];
    uint64_t n;
    uint8_t hash[CHAIN_HASH_SIZE];
};
sqlite3_file *side_open(const char *journal_path, const char *suffix, bool is_written, char **ret_name);
void side_close(sqlite3_file *file, char *name);
void head_read(const char *journal_path, struct head *ret);
/* Before anything is opened. A journal that is missing while something beside it knows of it is lost, and not one that was never there: AMP_CORRUPT, which says what to do. Something else than a file in its place,
 * or in that of a file beside it: AMP_JOURNAL. */
AMP_MUST_USE enum amp_code head_check_there(const char *journal_path, struct amp_error *reterr);
AMP_MUST_USE bool head_write(struct store *store);
/* The newest entry against the one before it and the head; fills the chain's id, n and hash. AMP_CORRUPT. */
AMP_MUST_USE enum amp_code chain_check_end(sqlite3 *db, const char *path, const struct head *head, struct chain *chain, struct amp_error *reterr);

/* ---- journal_wal.c */
struct wal_scan {
    uint32_t commits, commits_behind; /* whole transactions, and ends of others behind the first frame that is wrong */
    uint32_t first_bad, frames_cut;   /* number of that frame; frames behind the last whole transaction */
    sqlite3_int64 whole; /* bytes up to the end of the last whole transaction; 0: it has no header, and counts as empty */
    uint32_t pages;      /* that the journal has after it; 0: the log has no transaction */
};
void wal_scan(const char *journal_path, struct wal_scan *ret); /* nobody may have the journal open */
/* The first page that stands neither in the file nor in the log, by the log's number of pages; 0: none. This process must not have the file open: closing
 * it would drop SQLite's locks. */
uint32_t wal_missing(const char *journal_path, const struct wal_scan *scan);

/* journal_vfs.c: how the writing side opens its files. NULL: as everybody does. */
const char *journal_vfs(void);
/* The log's file below it, for the simulator's disk: what was gathered is lost, as it is with a process that is killed. */
struct sqlite3_file *journal_vfs_below(struct sqlite3_file *log);

/* journal.c: <journal>.lock, held until *ret_fd (which is set on failure too, -1 if there is none) is closed. AMP_RUNNING */
AMP_MUST_USE enum amp_code journal_lock(const char *path, int *ret_fd, struct amp_error *reterr);

/* ---- journal_open.c: a connection that only reads, also where nothing can be made beside the journal. A status of SQLite; *ret is to be closed whatever it is. */
int journal_open_file(const char *path, sqlite3 **ret);
/* And leaves nothing beside it that reading has made. This process has no other connection to it. db: NULL is one that was not opened. */
void journal_close_file(const char *path, sqlite3 *db);
#define JOURNAL_UNREAD_HINT "copy it, with all files beside it, to where there is room and this user may write; name the copy: --journal FILE"

/* ---- journal_copy.c: a connection in one read transaction, for journal_close_file. AMP_NOT_FOUND, AMP_JOURNAL (version), AMP_CORRUPT */
AMP_MUST_USE enum amp_code journal_open_to_read(const char *path, sqlite3 **ret, struct amp_error *reterr);

AMP_MUST_USE enum amp_code journal_copy_failed(const char *path, const char *why, struct amp_error *reterr);
void journal_remove_beside(const char *path, const char *suffix);
AMP_MUST_USE bool journal_sync_file(const char *path);      /* and its name */
AMP_MUST_USE bool journal_sync_directory(const char *path); /* the one that the file is in */
AMP_MUST_USE bool journal_is_one_file(const char *path);    /* nothing stands in a log only */

/* ---- journal_restore.c: a restore that was cut short behind its decision is finished. The lock is held; without it restore_settle. */
AMP_MUST_USE enum amp_code restore_finish(const char *path, struct amp_error *reterr);
AMP_MUST_USE enum amp_code restore_settle(const char *path, struct amp_error *reterr);

/* ---- journal_boot.c */
#define JOURNAL_BOOT_MAX 0xefffffffu /* a number above it is from nobody who counts */
bool journal_is_private(const char *scope);
/* Raises *boot to the highest number in the epochs of these attempts (JSON). False: there is an epoch that can be none. */
AMP_MUST_USE bool boot_of_attempts(const char *attempts, uint32_t *boot);
/* The highest number that the journal knows of, counted or in an epoch; *ret_unix_ms: when the last one was counted, 0: none was. */
uint32_t boot_known(sqlite3 *db, int64_t *ret_unix_ms);
/* The next environment gets a number above this one. In a transaction. */
AMP_MUST_USE bool boot_raise(struct store *store, uint32_t boot, int64_t now_unix_ms);

/* ---- journal_schema.c */
/* Of a status of SQLite: what it read is not what was written. SQLITE_ERROR too: our statements have none on a sound file ("unsupported file format", "no such table"). */
bool schema_is_damage(int status);
int schema_version(sqlite3 *db, int *ret);
int schema_upgrade(struct store *store, int *version, int64_t now_unix_ms);
/* Seals every row there is and notes it for the chain, behind chain_begin. In a transaction. */
int schema_chain_all(struct store *store);

/* ---- journal_compact.c: makes the chain anew if most of it is of rows that are gone. The lock is held. AMP_CORRUPT: damaged, nothing was done. How many rows it tells of, before and after. */
AMP_MUST_USE enum amp_code store_compact(struct store *store, int64_t now_unix_ms, uint64_t *ret_before, uint64_t *ret_after, struct amp_error *reterr);

/* ---- journal_sense.c: the row at which a statement stands begins with all columns of its table, in their order and under their names. AMP_MALFORMED: those who read the journal could not read it; the
 * message begins with the column. `arena` (SENSE_BYTES_MAX) is used, and need not be reset. */
#define SENSE_BYTES_MAX (4 * (size_t)JOURNAL_BATCH_BYTES_MAX)
AMP_MUST_USE enum amp_code row_sense(sqlite3_stmt *statement, enum chain_kind kind, struct amp_arena *arena, struct amp_error *reterr);

/* ---- journal_lost.c: fills what the tasks behind this entry of the chain lack. In a transaction. AMP_MALFORMED, AMP_TOO_LARGE, AMP_JOURNAL */
struct journal_lost_handler;
AMP_MUST_USE enum amp_code store_mend(struct store *store, uint64_t entry, const struct journal_lost_handler *handler, uint64_t *ret_events, struct amp_error *reterr);
/* SQL: ids of tasks whose events are not numbered 1 to as many as the task has. */
#define JOURNAL_BROKEN_TASKS \
    "SELECT task FROM (SELECT e.task AS task, e.seq AS seq, lag(e.seq + e.count, 1, 1) OVER (PARTITION BY e.task ORDER BY e.seq) AS next FROM events e) WHERE seq <> next UNION" \
    " SELECT n.id FROM tasks n WHERE n.events <> coalesce((SELECT e.seq + e.count - 1 FROM events e WHERE e.task = n.id ORDER BY e.seq DESC LIMIT 1), 0)"

struct journal_batch {
    struct journal *journal;
    struct amp_arena arena;
    struct journal_row *first, *last;
    void (*on_commit)(void *ctx, enum amp_code code);
    void *ctx;
    size_t bytes; /* when it was handed over */
    size_t borrowed; /* of them */
    struct journal_batch *next; /* pool */
};

#define JOURNAL_FAILURE_SIZE 200

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
    STORE_PRUNE_FIND,
    STORE_PRUNE_EVENTS,
    STORE_PRUNE_KEYS,
    STORE_PRUNE_QUESTIONS, STORE_PRUNE_BLOBS, STORE_PRUNE_BLOBS_OF,
    STORE_PRUNE_TASK,
    STORE_STATEMENTS,
};

/* The writing side. After store_open it belongs to the worker thread until that has ended. */
struct store {
    sqlite3 *db;
    char *path;
    sqlite3_stmt *statements[STORE_STATEMENTS];
    int wal_pages; /* since the last checkpoint */
    struct chain chain;
    sqlite3_file *head;
    char *head_name;
    int64_t prune_unix_ms;  /* how far pruning has come: submitted, id */
    char prune_task[AMP_NAME_MAX + 1];
    struct wal_scan wal;  /* as it was found */
    struct head old_head; /* the same */
};

/* Checks what can be checked without reading everything; upgrades. AMP_CORRUPT leaves all files as they are. */
AMP_MUST_USE enum amp_code store_open(struct store *store, const char *path, int64_t now_unix_ms, struct amp_error *reterr);
void store_close(struct store *store);
/* One transaction, one fsync. On failure nothing of it is there, and `failure` says why: AMP_JOURNAL, or AMP_CORRUPT if a page of the file is not one. */
AMP_MUST_USE enum amp_code store_commit(struct store *store, struct journal_batch *const *batches, size_t count, int64_t now_unix_ms,
                                        char failure[JOURNAL_FAILURE_SIZE]);
/* The same without an environment, for what `change` writes. False: nothing of it is there, or (rare) its head could not be written. */
AMP_MUST_USE bool store_change(struct store *store, bool (*change)(struct store *store, void *ctx), void *ctx, int64_t now_unix_ms);
/* journal_retain.c: a row of JOURNAL_PRUNE. */
AMP_MUST_USE bool store_prune(struct store *store, const struct journal_row *row);
AMP_MUST_USE bool store_remove_task(struct store *store, const char *id); /* with all that goes with it */
AMP_MUST_USE bool store_write_row(struct store *store, const struct journal_row *row); /* in a transaction */
bool store_step(sqlite3_stmt *statement); /* to its end, and reset */
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
    struct amp_error error; /* of the read before */
    bool gives_damaged;     /* the next read: journal_query.with_damaged */
    char damage[JOURNAL_FAILURE_SIZE]; /* the last that was found; "": none */
};
/* The journal is damaged, as `what` says: to the log, the counter, and journal_damage. */
void reader_found(struct reader *reader, const char *what);
AMP_MUST_USE enum amp_code reader_open(struct reader *reader, const char *path, struct amp_error *reterr);
void reader_close(struct reader *reader);
struct reader *journal_reader(struct journal *journal);

struct journal_report;
struct journal_verify_handlers;
struct journal_copy_options {
    int64_t now_unix_ms;
    bool has_files; /* they come along */
    const struct journal_verify_handlers *handlers;
    void *ctx;
};
AMP_MUST_USE enum amp_code journal_copy(const char *path, const char *to, const struct journal_copy_options *options, struct journal_report *ret, struct amp_error *reterr);

/* journal_blobs.c: files of tasks */
struct journal_blob {
    const char *digest, *owner; /* owner: one of the tasks and schedules that have it */
    uint64_t size;
};
struct journal_blobs_query { /* of which tasks; as journal_export_options */
    const char *context;
    int64_t since_unix_ms; /* 0: all */
};
/* Each digest once, as long as `visit` returns true. False: it did not, or the journal cannot be read to its end. */
bool journal_blobs_each(sqlite3 *db, const struct journal_blobs_query *query, bool (*visit)(void *ctx, const struct journal_blob *blob), void *ctx);
int journal_blob_open(const char *journal, const struct journal_blob *blob, char *ret_text, size_t size); /* -1: it is not there with its size, as ret_text says */
bool journal_blob_is_sound(const char *journal, const struct journal_blob *blob, char *ret_text, size_t size);
/* Files of the tasks of the journal `of`, from those of the journal `from` to those of `to`; what is missing is left out. And all of them. */
AMP_MUST_USE enum amp_code journal_copy_files(const char *from, const char *of, const char *to, struct amp_error *reterr);
AMP_MUST_USE enum amp_code journal_link_files(const char *from, const char *to, struct amp_error *reterr);
/* journal_import_files.c: those of an export. Lines with "file" in order; a digest's bytes are on the disk when its last piece was taken. AMP_MALFORMED, AMP_JOURNAL */
struct cJSON;
struct file_intake;
struct file_intake *file_intake_new(const char *journal);
AMP_MUST_USE enum amp_code file_intake_line(struct file_intake *intake, const struct cJSON *line, struct amp_error *reterr);
AMP_MUST_USE enum amp_code file_intake_end(struct file_intake *intake, uint64_t *ret_files, uint64_t *ret_bytes, struct amp_error *reterr); /* AMP_MALFORMED: one is not whole */
void file_intake_free(struct file_intake *intake, bool is_kept); /* else what it has brought is removed */
uint64_t journal_sweep_files(sqlite3 *db, const char *journal); /* those without a row go; bytes of them. Nobody may have the journal open */

/* journal_worker.c: the thread that calls journal_work until it returns 0. The simulator has its own. */
struct journal_worker;
struct mailbox;
struct journal_worker *journal_worker_new(struct journal *journal, struct mailbox *batches); /* NULL: no thread */
void journal_worker_free(struct journal_worker *worker); /* `batches` is closed: commits what is in there, then ends */
/* The worker's step: one group is committed and its verdict posted. is_waiting: for a group to come. 0: there is none; with is_waiting: the box is closed. */
size_t journal_work(struct journal *journal, bool is_waiting);
