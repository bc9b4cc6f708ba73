/* What history loses: tasks that ended long ago, oldest first, few at a time, so that what is accepted meanwhile does not wait.
 * Removed rows stand in the chain as gone. The pages that they leave are used again: the file stops growing, it does not shrink. */
#include "journal_private.h"

#include <stdio.h>
#include <string.h>

static uint64_t pragma(struct store *store, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    uint64_t value = 0;
    if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
        value = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static uint64_t bytes_used(struct store *store)
{
    return (pragma(store, "PRAGMA page_count") - pragma(store, "PRAGMA freelist_count")) * pragma(store, "PRAGMA page_size");
}

static bool remove_task(struct store *store, const char *id)
{
    static const enum store_statement parts[] = {STORE_PRUNE_EVENTS, STORE_PRUNE_KEYS, STORE_PRUNE_TASK};
    bool is_done = true;
    for (size_t i = 0; is_done && i < sizeof parts / sizeof parts[0]; i++) {
        sqlite3_stmt *statement = store->statements[parts[i]];
        sqlite3_bind_text(statement, 1, id, -1, SQLITE_STATIC);
        is_done = store_step(statement);
    }
    return is_done;
}

bool store_prune(struct store *store, const struct journal_row *row)
{
    sqlite3_stmt *find = store->statements[STORE_PRUNE_FIND];
    int64_t before = row->at_unix_ms;
    if (row->bytes_max && row->ended_unix_ms > before && bytes_used(store) > row->bytes_max)
        before = row->ended_unix_ms;
    char ids[JOURNAL_PRUNE_MAX][AMP_NAME_MAX + 1];
    uint32_t most = row->count < JOURNAL_PRUNE_MAX ? row->count : JOURNAL_PRUNE_MAX, count = 0;
    sqlite3_bind_int64(find, 1, store->prune_unix_ms);
    sqlite3_bind_text(find, 2, store->prune_task, -1, SQLITE_STATIC);
    sqlite3_bind_int64(find, 3, before);
    sqlite3_bind_int64(find, 4, most);
    int status;
    int64_t last_unix_ms = 0;
    while ((status = sqlite3_step(find)) == SQLITE_ROW && count < most) {
        snprintf(ids[count++], sizeof ids[0], "%s", (const char *)sqlite3_column_text(find, 0));
        last_unix_ms = sqlite3_column_int64(find, 1);
    }
    sqlite3_reset(find);
    bool is_done = status == SQLITE_DONE;
    for (uint32_t i = 0; is_done && i < count; i++)
        is_done = remove_task(store, ids[i]);
    /* At the end of what is old: from the oldest again, as some have ended since. */
    store->prune_unix_ms = count == most ? last_unix_ms : 0;
    snprintf(store->prune_task, sizeof store->prune_task, "%s", count == most ? ids[count - 1] : "");
    *row->ret_count = count;
    return is_done;
}
