/* The journal's tables: what each row is made of, how it is named to people, and how a file came to be what it is. */
#include "journal_private.h"

#include <stdio.h>
#include <string.h>

const struct chain_table chain_tables[CHAIN_KINDS] = {
    [CHAIN_META] = {"meta", COLUMNS_META, "'setting ' || name", 1, 2},
    [CHAIN_TASK] = {"tasks", COLUMNS_TASKS, "'task ' || id", 1, 20},
    [CHAIN_EVENT] = {"events", COLUMNS_EVENTS, "'events from ' || seq || ' of task ' || task", 2, 5},
    [CHAIN_KEY] = {"keys", COLUMNS_KEYS, "'idempotency key ' || key || ' of ' || sender", 2, 4},
    [CHAIN_KV] = {"kv", COLUMNS_KV, "'value ' || scope || '/' || owner || '/' || key", 3, 6},
    [CHAIN_DEATH] = {"deaths", COLUMNS_DEATHS, "'death ' || n || ' of ' || agent", 1, 5},
};

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

#define ADD_LINK(table) \
    "ALTER TABLE " table " ADD COLUMN entry INTEGER NOT NULL DEFAULT 0;" \
    "ALTER TABLE " table " ADD COLUMN seal BLOB NOT NULL DEFAULT x'';"

/* What each version has that the one before had not, from 2 on. A new file is made as version 1 and goes the same way. */
static const char *const upgrades[] = {
    "ALTER TABLE tasks ADD COLUMN dead INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX tasks_dead ON tasks (submitted, id) WHERE dead = 1;",

    "CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT;"
    "CREATE TABLE chain (n INTEGER PRIMARY KEY, at INTEGER NOT NULL, rows BLOB NOT NULL, hash BLOB NOT NULL) STRICT;"
    ADD_LINK("meta") ADD_LINK("tasks") ADD_LINK("events") ADD_LINK("keys") ADD_LINK("kv") ADD_LINK("deaths")
    "CREATE INDEX keys_by_task ON keys (task);",
};
_Static_assert(sizeof upgrades / sizeof *upgrades == SCHEMA_VERSION - 1, "a version without its upgrade");

int schema_chain_all(struct store *store)
{
    char sql[1024];
    int status = SQLITE_OK;
    store->chain.is_bulk = true;
    for (int kind = 0; status == SQLITE_OK && kind < CHAIN_KINDS; kind++) {
        if (!chain_tables[kind].name)
            continue;
        snprintf(sql, sizeof sql, "UPDATE %s SET entry = chain_entry(), seal = row_seal(%d, %s)", chain_tables[kind].name, kind, chain_tables[kind].columns);
        status = sqlite3_exec(store->db, sql, NULL, NULL, NULL);
    }
    store->chain.is_bulk = false;
    return status;
}

/* The first chain there is: of the rows that were written before there was one. */
static int chain_what_is_there(struct store *store, int64_t now_unix_ms)
{
    char id[AMP_ID_SIZE], sql[128];
    amp_id_new('j', now_unix_ms, id);
    chain_begin(&store->chain);
    snprintf(sql, sizeof sql, "INSERT INTO meta (name, value) VALUES ('id', '%s')", id);
    int status = sqlite3_exec(store->db, sql, NULL, NULL, NULL);
    if (status == SQLITE_OK)
        status = schema_chain_all(store);
    return status == SQLITE_OK && chain_add(store, now_unix_ms) ? SQLITE_OK : status == SQLITE_OK ? SQLITE_ERROR : status;
}

static int upgrade(struct store *store, int version, int64_t now_unix_ms)
{
    char sql[64];
    int status = sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_exec(store->db, version == 0 ? schema : upgrades[version - 1], NULL, NULL, NULL);
    if (status == SQLITE_OK && version == SCHEMA_CHAINED - 1)
        status = chain_what_is_there(store, now_unix_ms);
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d", version + 1);
    if (status == SQLITE_OK)
        status = sqlite3_exec(store->db, sql, NULL, NULL, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL);
    if (status == SQLITE_OK)
        chain_committed(&store->chain);
    else if (!sqlite3_get_autocommit(store->db))
        (void)sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

static int read_version(void *ctx, int count, char **values, char **names)
{
    int *version = ctx;
    return count == 1 && values[0] && sscanf(values[0], "%d", version) == 1 ? 0 : 1;
}

bool schema_is_damage(int status)
{
    return (status & 0xff) == SQLITE_CORRUPT || (status & 0xff) == SQLITE_NOTADB || (status & 0xff) == SQLITE_ERROR;
}

int schema_version(sqlite3 *db, int *ret)
{
    return sqlite3_exec(db, "PRAGMA user_version", read_version, ret, NULL);
}

int schema_upgrade(struct store *store, int *version, int64_t now_unix_ms)
{
    int status = SQLITE_OK;
    while (status == SQLITE_OK && *version >= 0 && *version < SCHEMA_VERSION) {
        status = upgrade(store, *version, now_unix_ms);
        ++*version;
    }
    return status;
}
