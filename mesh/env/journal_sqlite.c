/* The journal as an SQLite file: schema, and the one place that writes it.
 *
 * WAL with synchronous=FULL: a commit is one append to the log and one fsync. Checkpoints (which sync the file too) are taken
 * out of the commit's way: the worker makes them when it is idle, or when the log has grown past CHECKPOINT_FORCED_PAGES.
 * Task ids sort by time, so the indexes grow at their right edge. Blobs stand last in a row: a list reads none of them. */
#include "journal_private.h"

#include "base/hook.h"
#include "base/seeded.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCHEMA_VERSION 2
#define CHECKPOINT_IDLE_PAGES 2048
#define CHECKPOINT_FORCED_PAGES 16384

static const char schema[] =
    "CREATE TABLE tasks (id TEXT NOT NULL PRIMARY KEY, context TEXT NOT NULL, agent TEXT, skill TEXT, sender TEXT, parent TEXT,"
    " instance TEXT, state INTEGER NOT NULL, durable INTEGER NOT NULL, open INTEGER NOT NULL, incomplete INTEGER NOT NULL,"
    " submitted INTEGER NOT NULL, started INTEGER NOT NULL, ended INTEGER NOT NULL, attempt INTEGER NOT NULL,"
    " events INTEGER NOT NULL, attempts TEXT, request BLOB, record BLOB) STRICT;"
    "CREATE INDEX tasks_by_time ON tasks (submitted, id);"
    "CREATE INDEX tasks_by_context ON tasks (context, submitted, id);"
    "CREATE INDEX tasks_by_agent ON tasks (agent, submitted, id) WHERE agent IS NOT NULL;"
    "CREATE INDEX tasks_by_parent ON tasks (parent, submitted, id) WHERE parent IS NOT NULL;"
    "CREATE INDEX tasks_open ON tasks (submitted, id) WHERE open = 1;"
    "CREATE TABLE events (task TEXT NOT NULL, seq INTEGER NOT NULL, count INTEGER NOT NULL, at INTEGER NOT NULL,"
    " body BLOB NOT NULL, PRIMARY KEY (task, seq)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE keys (sender TEXT NOT NULL, key TEXT NOT NULL, task TEXT NOT NULL, digest BLOB NOT NULL,"
    " PRIMARY KEY (sender, key)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE kv (scope TEXT NOT NULL, owner TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL,"
    " value BLOB NOT NULL, PRIMARY KEY (scope, owner, key)) STRICT;"
    "CREATE TABLE deaths (n INTEGER PRIMARY KEY, agent TEXT NOT NULL, instance TEXT NOT NULL, at INTEGER NOT NULL,"
    " body BLOB NOT NULL) STRICT;"
    "CREATE INDEX deaths_by_agent ON deaths (agent, n);";

/* What each version has that the one before had not, from 2 on. A new file is made as version 1 and goes the same way. */
static const char *const upgrades[] = {
    "ALTER TABLE tasks ADD COLUMN dead INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX tasks_dead ON tasks (submitted, id) WHERE dead = 1;",
};
_Static_assert(sizeof upgrades / sizeof *upgrades == SCHEMA_VERSION - 1, "a version without its upgrade");

static const char *const statement_sql[STORE_STATEMENTS] = {
    [STORE_BEGIN] = "BEGIN IMMEDIATE",
    [STORE_COMMIT] = "COMMIT",
    [STORE_ROLLBACK] = "ROLLBACK",
    /* What a task is stays; what becomes of it is replaced. */
    [STORE_TASK] = "INSERT INTO tasks (id, context, agent, skill, sender, parent, instance, state, durable, open, incomplete,"
                   " submitted, started, ended, attempt, events, attempts, request, record, dead)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)"
                   " ON CONFLICT (id) DO UPDATE SET agent = excluded.agent, instance = excluded.instance, state = excluded.state,"
                   " open = excluded.open, incomplete = excluded.incomplete, started = excluded.started, ended = excluded.ended,"
                   " attempt = excluded.attempt, events = excluded.events, attempts = coalesce(excluded.attempts, attempts),"
                   " request = coalesce(excluded.request, request), record = coalesce(excluded.record, record),"
                   " dead = excluded.dead",
    [STORE_EVENT] = "INSERT INTO events (task, seq, count, at, body) VALUES (?1, ?2, ?3, ?4, ?5)",
    [STORE_KV_PUT] = "INSERT INTO kv (scope, owner, key, version, at, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
                     " ON CONFLICT (scope, owner, key) DO UPDATE SET version = excluded.version, at = excluded.at,"
                     " value = excluded.value",
    [STORE_KV_DELETE] = "DELETE FROM kv WHERE scope = ?1 AND owner = ?2 AND key = ?3",
    [STORE_DEATH] = "INSERT INTO deaths (agent, instance, at, body) VALUES (?1, ?2, ?3, ?4)",
    [STORE_DEATH_TRIM] = "DELETE FROM deaths WHERE agent = ?1 AND n <= (SELECT n FROM deaths WHERE agent = ?1"
                         " ORDER BY n DESC LIMIT 1 OFFSET ?2)",
    [STORE_REVIVED] = "UPDATE tasks SET dead = 0 WHERE id = ?1",
    [STORE_KEY] = "INSERT INTO keys (sender, key, task, digest) VALUES (?1, ?2, ?3, ?4)",
};

static enum amp_code unusable(struct store *store, const char *path, struct amp_error *reterr)
{
    amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s cannot be used: %s", path,
                  store->db ? sqlite3_errmsg(store->db) : "out of memory");
    amp_error_hint(reterr, "check that its directory can be written and has space; a damaged file can be moved away");
    store_close(store);
    return AMP_JOURNAL;
}

static int on_wal(void *ctx, sqlite3 *db, const char *name, int pages)
{
    struct store *store = ctx;
    store->wal_pages = pages;
    return SQLITE_OK;
}

static int read_version(void *ctx, int count, char **values, char **names)
{
    int *version = ctx;
    return count == 1 && values[0] && sscanf(values[0], "%d", version) == 1 ? 0 : 1;
}

static int make_schema(struct store *store, int *version)
{
    int status = sqlite3_exec(store->db, "PRAGMA user_version", read_version, version, NULL);
    while (status == SQLITE_OK && *version >= 0 && *version < SCHEMA_VERSION) {
        char sql[sizeof schema + 128];
        snprintf(sql, sizeof sql, "BEGIN IMMEDIATE;%s PRAGMA user_version = %d; COMMIT;", *version == 0 ? schema : upgrades[*version - 1], *version + 1);
        status = sqlite3_exec(store->db, sql, NULL, NULL, NULL);
        ++*version;
    }
    return status;
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

/* What a log says may stand in the kernel's memory only: when a sync fails, what it should have written counts as written from then on, and no later sync writes it. Behind such a
 * log nothing is durable. So the log found at the start is written anew, into the file, and one begins that has nothing in common with it: a transaction of its own does that, as
 * the old log counts until the new one's first frame is on the disk. */
static bool settle(struct store *store, int version)
{
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d", version);
    return SEEDED_BUG("trusted-log") || (sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) == SQLITE_OK &&
                                         sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK);
}

enum amp_code store_open(struct store *store, const char *path, struct amp_error *reterr)
{
    *store = (struct store){0};
    if (!make_private(path)) {
        amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s cannot be made private to its user: %s", path, strerror(errno));
        amp_error_hint(reterr, "check that its directory exists and can be written, and whose file it is");
        return AMP_JOURNAL;
    }
    if (sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return unusable(store, path, reterr);
    /* Another writer is an error here, not something to wait for: the lock file is ours. */
    static const char setup[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;"
                                "PRAGMA cache_size = -8192; PRAGMA journal_size_limit = 67108864;";
    int version = 0;
    if (sqlite3_exec(store->db, setup, NULL, NULL, NULL) != SQLITE_OK || make_schema(store, &version) != SQLITE_OK)
        return unusable(store, path, reterr);
    if (version != SCHEMA_VERSION) {
        amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s has schema %d, this program knows %d", path, version, SCHEMA_VERSION);
        amp_error_hint(reterr, "start it with the version of amesh that made it");
        store_close(store);
        return AMP_JOURNAL;
    }
    if (!settle(store, version))
        return unusable(store, path, reterr);
    for (size_t i = 0; i < STORE_STATEMENTS; i++) {
        if (sqlite3_prepare_v3(store->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &store->statements[i], NULL) != SQLITE_OK)
            return unusable(store, path, reterr);
    }
    sqlite3_wal_hook(store->db, on_wal, store);
    return AMP_OK;
}

void store_close(struct store *store)
{
    for (size_t i = 0; i < STORE_STATEMENTS; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->db);
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

static bool step(sqlite3_stmt *statement)
{
    int status = sqlite3_step(statement);
    sqlite3_reset(statement);
    return status == SQLITE_DONE;
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
    return step(statement);
}

static bool write_event(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[STORE_EVENT];
    bind_name(statement, 1, row->task);
    sqlite3_bind_int64(statement, 2, row->seq);
    sqlite3_bind_int64(statement, 3, row->count);
    sqlite3_bind_int64(statement, 4, row->at_unix_ms);
    bind_bytes(statement, 5, row->body);
    return step(statement);
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
    return step(statement);
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
    return step(statement) && step(trim);
}

static bool write_revived(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[STORE_REVIVED];
    bind_name(statement, 1, row->task);
    return step(statement);
}

static bool write_key(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *statement = store->statements[STORE_KEY];
    bind_name(statement, 1, row->scope);
    bind_name(statement, 2, row->key);
    bind_name(statement, 3, row->task);
    bind_bytes(statement, 4, row->body);
    return step(statement);
}

static bool write_row(struct store *store, const struct journal_row *row)
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
    }
    return false;
}

enum amp_code store_commit(struct store *store, struct journal_batch *const *batches, size_t count, char *failure,
                           size_t failure_size)
{
    bool is_done = step(store->statements[STORE_BEGIN]);
    for (size_t i = 0; is_done && i < count; i++) {
        for (const struct journal_row *row = batches[i]->first; is_done && row; row = row->next)
            is_done = write_row(store, row);
    }
    hook_at(HOOK_env_written);
    if (is_done && step(store->statements[STORE_COMMIT])) {
        hook_at(HOOK_env_committed);
        return AMP_OK;
    }
    snprintf(failure, failure_size, "%s", sqlite3_errmsg(store->db));
    if (!sqlite3_get_autocommit(store->db))
        (void)step(store->statements[STORE_ROLLBACK]);
    return AMP_JOURNAL;
}
