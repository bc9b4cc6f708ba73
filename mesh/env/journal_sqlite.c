/* The journal as an SQLite file: how it is opened, and the one place that writes it.
 *
 * WAL with synchronous=FULL: a commit is one append to the log and one fsync. Checkpoints (which sync the file too) are taken
 * out of the commit's way: the worker makes them when it is idle, or when the log has grown past CHECKPOINT_FORCED_PAGES.
 * Task ids sort by time, so the indexes grow at their right edge. Blobs stand last in a row: a list reads none of them. */
#include "journal_private.h"

#include "base/alloc.h"
#include "base/hook.h"
#include "base/seeded.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECKPOINT_IDLE_PAGES 2048
#define CHECKPOINT_FORCED_PAGES 16384

static const char *const statement_sql[STORE_STATEMENTS] = {
    [STORE_BEGIN] = "BEGIN IMMEDIATE",
    [STORE_COMMIT] = "COMMIT",
    [STORE_ROLLBACK] = "ROLLBACK",
    /* What a task is stays; what becomes of it is replaced. */
    [STORE_TASK] = "INSERT INTO tasks (" COLUMNS_TASKS ", entry, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,"
                   " ?15, ?16, ?17, ?18, ?19, ?20, chain_entry(),"
                   " row_seal(2, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20))"
                   " ON CONFLICT (id) DO UPDATE SET agent = excluded.agent, instance = excluded.instance, state = excluded.state,"
                   " open = excluded.open, incomplete = excluded.incomplete, started = excluded.started, ended = excluded.ended,"
                   " attempt = excluded.attempt, events = excluded.events, attempts = coalesce(excluded.attempts, attempts),"
                   " request = coalesce(excluded.request, request), record = coalesce(excluded.record, record),"
                   " dead = excluded.dead, entry = excluded.entry,"
                   " seal = row_seal(2, id, context, excluded.agent, skill, sender, parent, excluded.instance, excluded.state, durable,"
                   " excluded.open, excluded.incomplete, submitted, excluded.started, excluded.ended, excluded.attempt, excluded.events,"
                   " coalesce(excluded.attempts, attempts), coalesce(excluded.request, request), coalesce(excluded.record, record),"
                   " excluded.dead)",
    [STORE_EVENT] = "INSERT INTO events (" COLUMNS_EVENTS ", entry, seal) VALUES (?1, ?2, ?3, ?4, ?5, chain_entry(), row_seal(3, ?1, ?2, ?3, ?4, ?5))",
    [STORE_KV_PUT] = "INSERT INTO kv (" COLUMNS_KV ", entry, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6, chain_entry(), row_seal(5, ?1, ?2, ?3, ?4, ?5, ?6))"
                     " ON CONFLICT (scope, owner, key) DO UPDATE SET version = excluded.version, at = excluded.at,"
                     " value = excluded.value, entry = excluded.entry, seal = row_seal(5, scope, owner, key, excluded.version, excluded.at, excluded.value)",
    [STORE_KV_DELETE] = "DELETE FROM kv WHERE scope = ?1 AND owner = ?2 AND key = ?3 RETURNING row_gone(5, scope, owner, key)",
    [STORE_DEATH] = "INSERT INTO deaths (" COLUMNS_DEATHS ", entry, seal) SELECT n, ?1, ?2, ?3, ?4, chain_entry(), row_seal(6, n, ?1, ?2, ?3, ?4)"
                    " FROM (SELECT coalesce(max(n), 0) + 1 AS n FROM deaths)",
    [STORE_DEATH_TRIM] = "DELETE FROM deaths WHERE agent = ?1 AND n <= (SELECT n FROM deaths WHERE agent = ?1"
                         " ORDER BY n DESC LIMIT 1 OFFSET ?2) RETURNING row_gone(6, n)",
    [STORE_REVIVED] = "UPDATE tasks SET dead = 0, entry = chain_entry(), seal = row_seal(2, id, context, agent, skill, sender, parent, instance, state,"
                      " durable, open, incomplete, submitted, started, ended, attempt, events, attempts, request, record, 0) WHERE id = ?1",
    [STORE_KEY] = "INSERT INTO keys (" COLUMNS_KEYS ", entry, seal) VALUES (?1, ?2, ?3, ?4, chain_entry(), row_seal(4, ?1, ?2, ?3, ?4))",
    [STORE_PRUNE_FIND] = "SELECT id, submitted FROM tasks WHERE (submitted, id) > (?1, ?2) AND open = 0 AND dead = 0 AND max(ended, submitted) < ?3"
                         " ORDER BY submitted, id LIMIT ?4",
    [STORE_PRUNE_EVENTS] = "DELETE FROM events WHERE task = ?1 RETURNING row_gone(3, task, seq)",
    [STORE_PRUNE_KEYS] = "DELETE FROM keys WHERE task = ?1 RETURNING row_gone(4, sender, key)",
    /* "<task>:<question>" */
    [STORE_PRUNE_QUESTIONS] = "DELETE FROM kv WHERE scope = '" JOURNAL_SCOPE_QUESTION "' AND owner = '' AND key >= ?1 || ':' AND key < ?1 || ';' RETURNING row_gone(5, scope, owner, key)",
    [STORE_PRUNE_BLOBS] = "DELETE FROM kv WHERE scope = '" JOURNAL_SCOPE_BLOB "' AND key = ?1 AND owner IN (SELECT key FROM kv WHERE scope = '" JOURNAL_SCOPE_BLOBS_OF "' AND owner = ?1)"
                          " RETURNING row_gone(5, scope, owner, key)",
    [STORE_PRUNE_BLOBS_OF] = "DELETE FROM kv WHERE scope = '" JOURNAL_SCOPE_BLOBS_OF "' AND owner = ?1 RETURNING row_gone(5, scope, owner, key)",
    [STORE_PRUNE_TASK] = "DELETE FROM tasks WHERE id = ?1 RETURNING row_gone(2, id)",
};

static enum amp_code unusable(struct store *store, struct amp_error *reterr)
{
    int status = store->db ? sqlite3_errcode(store->db) : SQLITE_NOMEM;
    bool is_said = status != SQLITE_OK; /* else it failed below SQLite, which knows of no error */
    bool is_damaged = schema_is_damage(status);
    amp_error_set(reterr, is_damaged ? AMP_CORRUPT : AMP_JOURNAL, "", "the journal %s %s: %s", store->path, is_damaged ? "is damaged" : "cannot be used",
                  !is_said ? "its log (-wal) cannot be written once more and synced" : store->db ? sqlite3_errmsg(store->db) : "out of memory");
    amp_error_hint(reterr, "%s", is_damaged ? JOURNAL_CORRUPT_HINT : "check that its directory can be written and has space");
    return is_damaged ? AMP_CORRUPT : AMP_JOURNAL;
}

static int on_wal(void *ctx, sqlite3 *db, const char *name, int pages)
{
    struct store *store = ctx;
    store->wal_pages = pages;
    return SQLITE_OK;
}

/* What agents were asked and said is nobody else's: SQLite gives its log the permissions of the file. */
static bool make_private(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat info;
    bool is_private = fd >= 0 && fstat(fd, &info) == 0 && ((info.st_mode & 077) == 0 || fchmod(fd, 0600) == 0);
    if (fd >= 0)
        close(fd);
    return is_private;
}

/* What the log says may stand in the kernel's memory only: when a sync fails, what it should have written counts as written from then on, and no later sync writes it. Nothing that
 * stands behind such a hole is durable. So the log found at the start is written once more, the same bytes to the same places, and synced. What stands behind its last whole transaction
 * is cut off: written over in part, and then caught by a power cut, it would look like transactions that were lost. */
static bool rewrite_log(struct store *store, bool is_as_found)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 size = 0;
    struct wal_scan scan = store->wal;
    if (sqlite3_exec(store->db, "PRAGMA schema_version", NULL, NULL, NULL) != SQLITE_OK || /* it opens the log */
        sqlite3_file_control(store->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file) != SQLITE_OK)
        return false;
    if (!file || !file->pMethods || SEEDED_BUG("trusted-log"))
        return true;
    if (!is_as_found)
        wal_scan(store->path, &scan);
    if (file->pMethods->xFileSize(file, &size) != SQLITE_OK || (scan.whole > 0 && size > scan.whole && file->pMethods->xTruncate(file, scan.whole) != SQLITE_OK))
        return false;
    size = scan.whole > 0 && size > scan.whole ? scan.whole : size;
    char buf[65536];
    for (sqlite3_int64 at = 0; at < size; at += (sqlite3_int64)sizeof buf) {
        int n = size - at < (sqlite3_int64)sizeof buf ? (int)(size - at) : (int)sizeof buf;
        if (file->pMethods->xRead(file, buf, n, at) != SQLITE_OK || file->pMethods->xWrite(file, buf, n, at) != SQLITE_OK)
            return false;
    }
    return size == 0 || file->pMethods->xSync(file, SQLITE_SYNC_FULL) == SQLITE_OK;
}

/* Before SQLite sees it: it would throw the log of an empty file away, and what stands behind the first wrong frame of a log, and read zeros where the file
 * was cut. */
static enum amp_code check_files(struct store *store, struct amp_error *reterr)
{
    struct stat file, log;
    enum amp_code code = head_check_there(store->path, reterr);
    if (code != AMP_OK)
        return code;
    char *name = xasprintf("%s-wal", store->path);
    bool is_cut = stat(store->path, &file) == 0 && file.st_size == 0 && stat(name, &log) == 0 && log.st_size > 0;
    free(name);
    head_read(store->path, &store->old_head);
    wal_scan(store->path, &store->wal);
    uint32_t missing = wal_missing(store->path, &store->wal);
    if (is_cut)
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is damaged: it is empty, but its log is not", store->path);
    else if (store->wal.commits_behind > 1)
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is damaged: frame %u of its log (-wal) is not what was written, and %u transactions stand behind it",
                      store->path, store->wal.first_bad, store->wal.commits_behind);
    else if (missing > 0)
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is damaged: it was cut; page %u of %u stands neither in it nor in its log (-wal)", store->path,
                      missing, store->wal.pages);
    else
        return AMP_OK;
    amp_error_hint(reterr, JOURNAL_CORRUPT_HINT);
    return AMP_CORRUPT;
}

static enum amp_code check_version(struct store *store, int version, struct amp_error *reterr)
{
    if (version == 0 && store->old_head.state == HEAD_GARBLED) {
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is empty, but %s-head shows that it had something", store->path, store->path);
        amp_error_hint(reterr, "restore a backup; to begin anew remove %s-head", store->path);
        return AMP_CORRUPT;
    }
    if (version == 0 && store->old_head.state == HEAD_READ && store->old_head.n > 0) {
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is empty, but %s-head knows of %llu committed entries", store->path, store->path,
                      (unsigned long long)store->old_head.n);
        amp_error_hint(reterr, "restore a backup; to begin anew remove %s-head", store->path);
        return AMP_CORRUPT;
    }
    if (version < 0 || version > SCHEMA_VERSION) {
        amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s has schema %d, this program knows %d", store->path, version, SCHEMA_VERSION);
        amp_error_hint(reterr, "start it with the version of amesh that made it");
        return AMP_JOURNAL;
    }
    return version >= SCHEMA_CHAINED ? chain_check_end(store->db, store->path, &store->old_head, &store->chain, reterr) : AMP_OK;
}

static enum amp_code open_db(struct store *store, int64_t now_unix_ms, struct amp_error *reterr)
{
    /* Another writer is an error here, not something to wait for: the lock file is ours. */
    static const char setup[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;"
                                "PRAGMA cache_size = -8192; PRAGMA journal_size_limit = 67108864;";
    int version = 0;
    if (sqlite3_open_v2(store->path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, journal_vfs()) != SQLITE_OK)
        return unusable(store, reterr);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* what is refused stays as it is */
    if (chain_functions(store->db, &store->chain) != SQLITE_OK || schema_version(store->db, &version) != SQLITE_OK)
        return unusable(store, reterr);
    enum amp_code code = check_version(store, version, reterr);
    if (code != AMP_OK)
        return code;
    bool is_as_found = version == SCHEMA_VERSION; /* nothing was written since it was read */
    if (sqlite3_exec(store->db, setup, NULL, NULL, NULL) != SQLITE_OK || schema_upgrade(store, &version, now_unix_ms) != SQLITE_OK)
        return unusable(store, reterr);
    code = chain_check_end(store->db, store->path, &(struct head){0}, &store->chain, reterr);
    if (code == AMP_OK && !rewrite_log(store, is_as_found))
        code = unusable(store, reterr);
    if (code == AMP_OK && !head_write(store)) {
        code = amp_error_set(reterr, AMP_JOURNAL, "", "%s-head cannot be written", store->path);
        amp_error_hint(reterr, "check that its directory can be written and has space");
    }
    return code;
}

static enum amp_code prepare(struct store *store, struct amp_error *reterr)
{
    for (size_t i = 0; i < STORE_STATEMENTS; i++) {
        if (sqlite3_prepare_v3(store->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &store->statements[i], NULL) != SQLITE_OK)
            return unusable(store, reterr);
    }
    sqlite3_wal_hook(store->db, on_wal, store);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return AMP_OK;
}

enum amp_code store_open(struct store *store, const char *path, int64_t now_unix_ms, struct amp_error *reterr)
{
    *store = (struct store){.path = xstrdup(path)};
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* nobody asks, and it takes a lock for each allocation; too late is harmless */
    chain_init(&store->chain);
    enum amp_code code = check_files(store, reterr);
    if (code == AMP_OK && !make_private(path)) {
        code = amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s cannot be made private to its user: %s", path, strerror(errno));
        amp_error_hint(reterr, "check that its directory exists and can be written, and whose file it is");
    }
    if (code == AMP_OK)
        code = open_db(store, now_unix_ms, reterr);
    if (code == AMP_OK)
        code = prepare(store, reterr);
    if (code != AMP_OK)
        store_close(store);
    return code;
}

void store_close(struct store *store)
{
    for (size_t i = 0; i < STORE_STATEMENTS; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_finalize(store->chain.insert);
    chain_done(&store->chain);
    sqlite3_close(store->db);
    side_close(store->head, store->head_name);
    free(store->path);
    *store = (struct store){0};
}

void store_checkpoint(struct store *store, bool is_idle)
{
    if (store->wal_pages < (is_idle ? CHECKPOINT_IDLE_PAGES : CHECKPOINT_FORCED_PAGES))
        return;
    /* A reader that holds the log back only delays it: the next turn tries again. A failure shows at the next commit. */
    (void)sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    store->wal_pages = 0;
}

static void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    if (text && *text)
        sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(statement, at);
}

/* Part of a key or NOT NULL: "" is a value. */
static void bind_name(sqlite3_stmt *statement, int at, const char *text)
{
    sqlite3_bind_text(statement, at, text ? text : "", -1, SQLITE_STATIC);
}

static void bind_bytes(sqlite3_stmt *statement, int at, struct amp_bytes bytes)
{
    if (bytes.data)
        sqlite3_bind_blob64(statement, at, bytes.data, bytes.len, SQLITE_STATIC);
    else
        sqlite3_bind_null(statement, at);
}

bool store_step(sqlite3_stmt *statement)
{
    int status;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) /* what it has removed: noted by row_gone */
        ;
    sqlite3_reset(statement);
    return status == SQLITE_DONE;
}

/* One that writes one row. */
static bool step_row(struct store *store, sqlite3_stmt *statement)
{
    return store_step(statement) && chain_take(&store->chain);
}

static bool write_task(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[STORE_TASK];
    bind_name(statement, 1, row->task);
    bind_name(statement, 2, row->context);
    bind_text(statement, 3, row->agent);
    bind_text(statement, 4, row->skill);
    bind_text(statement, 5, row->from);
    bind_text(statement, 6, row->parent);
    bind_text(statement, 7, row->instance);
    sqlite3_bind_int(statement, 8, row->state);
    sqlite3_bind_int(statement, 9, row->is_durable);
    sqlite3_bind_int(statement, 10, row->is_open);
    sqlite3_bind_int(statement, 11, row->is_incomplete);
    sqlite3_bind_int64(statement, 12, row->at_unix_ms);
    sqlite3_bind_int64(statement, 13, row->started_unix_ms);
    sqlite3_bind_int64(statement, 14, row->ended_unix_ms);
    sqlite3_bind_int64(statement, 15, row->attempt);
    sqlite3_bind_int64(statement, 16, row->count);
    bind_text(statement, 17, row->attempts);
    bind_bytes(statement, 18, row->request);
    bind_bytes(statement, 19, row->body);
    sqlite3_bind_int(statement, 20, row->is_dead);
    return step_row(store, statement);
}

static bool write_event(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[STORE_EVENT];
    bind_name(statement, 1, row->task);
    sqlite3_bind_int64(statement, 2, row->seq);
    sqlite3_bind_int64(statement, 3, row->count);
    sqlite3_bind_int64(statement, 4, row->at_unix_ms);
    bind_bytes(statement, 5, row->body);
    return step_row(store, statement);
}

static bool write_kv(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[row->version ? STORE_KV_PUT : STORE_KV_DELETE];
    bind_name(statement, 1, row->scope);
    bind_name(statement, 2, row->owner);
    bind_name(statement, 3, row->key);
    if (row->version) {
        sqlite3_bind_int64(statement, 4, row->version);
        sqlite3_bind_int64(statement, 5, row->at_unix_ms);
        bind_bytes(statement, 6, row->body);
    }
    return row->version ? step_row(store, statement) : store_step(statement);
}

static bool write_death(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[STORE_DEATH];
    bind_name(statement, 1, row->agent);
    bind_name(statement, 2, row->instance);
    sqlite3_bind_int64(statement, 3, row->at_unix_ms);
    bind_bytes(statement, 4, row->body);
    sqlite3_stmt *trim = store->statements[STORE_DEATH_TRIM];
    bind_name(trim, 1, row->agent);
    sqlite3_bind_int64(trim, 2, JOURNAL_DEATHS_MAX);
    return step_row(store, statement) && store_step(trim);
}

static bool write_revived(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[STORE_REVIVED];
    bind_name(statement, 1, row->task);
    if (!store_step(statement))
        return false;
    (void)chain_take(&store->chain); /* a task that is not there changes nothing */
    return true;
}

static bool write_key(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[STORE_KEY];
    bind_name(statement, 1, row->scope);
    bind_name(statement, 2, row->key);
    bind_name(statement, 3, row->task);
    bind_bytes(statement, 4, row->body);
    return step_row(store, statement);
}

bool store_write_row(struct store *store, const struct journal_row *row)
{
    switch (row->kind) {
    case JOURNAL_TASK:
        return write_task(store, row);
    case JOURNAL_EVENT:
        return write_event(store, row);
    case JOURNAL_KV:
        return write_kv(store, row);
    case JOURNAL_DEATH:
        return write_death(store, row);
    case JOURNAL_REVIVED:
        return write_revived(store, row);
    case JOURNAL_KEY:
        return write_key(store, row);
    case JOURNAL_PRUNE:
        return store_prune(store, row);
    }
    return false;
}

/* What is written to files that were taken away, or replaced, nobody will find. The log is there as soon as something was committed. */
static bool is_in_place(const struct store *store)
{
    sqlite3_vfs *vfs = NULL;
    int has_moved = 0, is_there = 1;
    (void)sqlite3_file_control(store->db, "main", SQLITE_FCNTL_HAS_MOVED, &has_moved);
    (void)sqlite3_file_control(store->db, "main", SQLITE_FCNTL_VFS_POINTER, &vfs);
    if (vfs)
        (void)vfs->xAccess(vfs, sqlite3_filename_wal(sqlite3_db_filename(store->db, "main")), SQLITE_ACCESS_EXISTS, &is_there);
    return !has_moved && is_there;
}

enum amp_code store_commit(struct store *store, struct journal_batch *const *batches, size_t count, int64_t now_unix_ms,
                           char failure[JOURNAL_FAILURE_SIZE])
{
    chain_begin(&store->chain);
    bool is_done = store_step(store->statements[STORE_BEGIN]);
    for (size_t i = 0; is_done && i < count; i++) {
        for (const struct journal_row *row = batches[i]->first; is_done && row; row = row->next)
            is_done = store_write_row(store, row);
    }
    hook_at(HOOK_env_written);
    if (is_done && chain_add(store, now_unix_ms) && store_step(store->statements[STORE_COMMIT])) {
        chain_committed(&store->chain);
        hook_at(HOOK_env_committed);
        bool is_here = is_in_place(store);
        if (is_here && head_write(store))
            return AMP_OK;
        snprintf(failure, JOURNAL_FAILURE_SIZE, is_here ? "%s-head cannot be written" : "%s or its log was removed or replaced while it was in use", store->path);
        return AMP_JOURNAL;
    }
    int status = sqlite3_errcode(store->db);
    snprintf(failure, JOURNAL_FAILURE_SIZE, "%s", sqlite3_errmsg(store->db));
    if (!sqlite3_get_autocommit(store->db))
        (void)store_step(store->statements[STORE_ROLLBACK]);
    return status == SQLITE_CORRUPT || status == SQLITE_NOTADB ? AMP_CORRUPT : AMP_JOURNAL;
}

bool store_change(struct store *store, bool (*change)(struct store *store, void *ctx), void *ctx, int64_t now_unix_ms)
{
    chain_begin(&store->chain);
    if (store_step(store->statements[STORE_BEGIN]) && change(store, ctx) && chain_add(store, now_unix_ms) && store_step(store->statements[STORE_COMMIT])) {
        chain_committed(&store->chain);
        return head_write(store);
    }
    if (!sqlite3_get_autocommit(store->db))
        (void)store_step(store->statements[STORE_ROLLBACK]);
    return false;
}
