/* The numbers of environments, which stand in epochs (amp.md 10.7.1), where journals are put together or put back: none is given out again.
 * And the scopes that belong to one journal only. */
#include "journal_private.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

bool journal_is_private(const char *scope)
{
    static const char *const scopes[] = JOURNAL_PRIVATE_SCOPES;
    for (size_t i = 0; scope && i < sizeof scopes / sizeof scopes[0]; i++)
        if (strcmp(scopes[i], scope) == 0)
            return true;
    return false;
}

static bool raise_by_epoch(const char *epoch, uint32_t *boot)
{
    unsigned long long number = 0, lease = 0;
    if (!epoch)
        return true;
    if (strspn(epoch, "0123456789.") != strlen(epoch) || strlen(epoch) > 21 || sscanf(epoch, "%llu.%llu", &number, &lease) != 2 || number > JOURNAL_BOOT_MAX || lease > UINT32_MAX)
        return false;
    *boot = number > *boot ? (uint32_t)number : *boot;
    return true;
}

bool boot_of_attempts(const char *attempts, uint32_t *boot)
{
    if (!attempts || !strstr(attempts, "\"epoch\""))
        return true;
    cJSON *array = cJSON_Parse(attempts);
    const cJSON *attempt;
    bool is_right = cJSON_IsArray(array);
    cJSON_ArrayForEach(attempt, array)
        is_right &= raise_by_epoch(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(attempt, "epoch")), boot);
    cJSON_Delete(array);
    return is_right;
}

#define WHERE_BOOT " FROM kv WHERE scope = '" JOURNAL_SCOPE_BOOT "' AND owner = '' AND key = '" JOURNAL_KEY_BOOT "'"

uint32_t boot_known(sqlite3 *db, int64_t *ret_unix_ms)
{
    sqlite3_stmt *statement = NULL;
    uint32_t boot = 0;
    *ret_unix_ms = 0;
    if (sqlite3_prepare_v2(db, "SELECT version, at" WHERE_BOOT, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        sqlite3_int64 number = sqlite3_column_int64(statement, 0);
        boot = number > 0 && number <= (sqlite3_int64)JOURNAL_BOOT_MAX ? (uint32_t)number : 0;
        *ret_unix_ms = sqlite3_column_int64(statement, 1);
    }
    sqlite3_finalize(statement);
    statement = NULL;
    if (sqlite3_prepare_v2(db, "SELECT attempts FROM tasks WHERE instr(attempts, '\"epoch\"')", -1, &statement, NULL) == SQLITE_OK)
        while (sqlite3_step(statement) == SQLITE_ROW)
            (void)boot_of_attempts((const char *)sqlite3_column_text(statement, 0), &boot);
    sqlite3_finalize(statement);
    return boot;
}

bool boot_raise(struct store *store, uint32_t boot, int64_t now_unix_ms)
{
    static const char sql[] = "INSERT INTO kv (" COLUMNS_KV ", entry, seal) SELECT ?1, '', ?2, ?3, ?4, x'7b7d', chain_entry(), row_seal(5, ?1, '', ?2, ?3, ?4, x'7b7d')"
                              " WHERE NOT EXISTS (SELECT 1" WHERE_BOOT " AND version >= ?3) ON CONFLICT (scope, owner, key) DO UPDATE SET version = excluded.version,"
                              " at = excluded.at, value = excluded.value, entry = excluded.entry, seal = excluded.seal";
    sqlite3_stmt *statement = NULL;
    if (boot == 0)
        return true;
    bool is_done = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) == SQLITE_OK;
    if (is_done) {
        sqlite3_bind_text(statement, 1, JOURNAL_SCOPE_BOOT, -1, SQLITE_STATIC);
        sqlite3_bind_text(statement, 2, JOURNAL_KEY_BOOT, -1, SQLITE_STATIC);
        sqlite3_bind_int64(statement, 3, boot);
        sqlite3_bind_int64(statement, 4, now_unix_ms);
        store->chain.is_noted = false;
        is_done = sqlite3_step(statement) == SQLITE_DONE && (sqlite3_changes(store->db) == 0 || chain_take(&store->chain));
    }
    sqlite3_finalize(statement);
    return is_done;
}
