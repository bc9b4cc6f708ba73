/* What history loses: tasks that ended long ago, oldest first, few at a time, so that what is accepted meanwhile does not wait.
 * Removed rows stand in the chain as gone. The pages that they leave are used again: the file stops growing, it does not shrink. */
#include "journal_private.h"
#include "journal_files.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

bool store_remove_task(struct store *store, const char *id)
{
    static const enum store_statement parts[] = {STORE_PRUNE_EVENTS, STORE_PRUNE_KEYS, STORE_PRUNE_QUESTIONS, STORE_PRUNE_BLOBS, STORE_PRUNE_BLOBS_OF, STORE_PRUNE_TASK};
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
        is_done = store_remove_task(store, ids[i]);
    /* At the end of what is old: from the oldest again, as some have ended since. */
    store->prune_unix_ms = count == most ? last_unix_ms : 0;
    snprintf(store->prune_task, sizeof store->prune_task, "%s", count == most ? ids[count - 1] : "");
    *row->ret_count = count;
    return is_done;
}

/* ---- without an environment --------------------------------------------------------------------------------------------- */

static bool prune(struct store *store, void *ctx)
{
    return store_prune(store, ctx);
}

static bool prune_once(struct store *store, struct journal_row *row, int64_t now_unix_ms)
{
    if (!store_change(store, prune, row, now_unix_ms))
        return false;
    store_checkpoint(store, false);
    return true;
}

static bool prune_all(struct store *store, const struct journal_prune_options *options, struct journal_prune_counts *ret)
{
    uint32_t count = 0;
    struct journal_row row = {.kind = JOURNAL_PRUNE, .at_unix_ms = options->before_unix_ms, .ended_unix_ms = options->now_unix_ms, .bytes_max = options->bytes_max,
                              .count = JOURNAL_PRUNE_MAX, .ret_count = &count};
    do {
        if (!prune_once(store, &row, options->now_unix_ms))
            return false;
        ret->tasks += count;
    } while (count > 0);
    return true;
}

/* Before anything is removed: with a damaged row would go what shows that it was damaged. */
static enum amp_code check_sound(struct store *store, struct amp_error *reterr)
{
    static const struct journal_verify_handlers none = {0};
    struct journal_report report;
    enum amp_code code = journal_verify(store->path, &none, NULL, &report, reterr);
    if (code == AMP_CORRUPT) {
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is damaged (%llu findings), so nothing was removed from it", store->path, (unsigned long long)report.findings);
        amp_error_hint(reterr, JOURNAL_CORRUPT_HINT);
    }
    return code;
}

static enum amp_code prune_store(struct store *store, const struct journal_prune_options *options, struct journal_prune_counts *ret, struct amp_error *reterr)
{
    ret->bytes_before = pragma(store, "PRAGMA page_count") * pragma(store, "PRAGMA page_size");
    enum amp_code code = check_sound(store, reterr);
    if (code == AMP_OK && !prune_all(store, options, ret))
        code = amp_error_set(reterr, AMP_JOURNAL, "", "the journal cannot be written: %s", sqlite3_errmsg(store->db));
    if (code == AMP_OK)
        ret->file_bytes = journal_sweep_files(store->db, store->path);
    if (code == AMP_OK)
        code = store_compact(store, options->now_unix_ms, &ret->chain_before, &ret->chain_after, reterr);
    if (code == AMP_OK && sqlite3_exec(store->db, "VACUUM", NULL, NULL, NULL) != SQLITE_OK)
        code = amp_error_set(reterr, AMP_JOURNAL, "", "the journal cannot be written: %s", sqlite3_errmsg(store->db));
    ret->bytes_after = pragma(store, "PRAGMA page_count") * pragma(store, "PRAGMA page_size");
    return code;
}

enum amp_code journal_prune(const char *path, const struct journal_prune_options *options, struct journal_prune_counts *ret, struct amp_error *reterr)
{
    struct store store;
    int lock_fd = -1;
    *ret = (struct journal_prune_counts){0};
    enum amp_code code = restore_settle(path, reterr);
    if (code == AMP_OK)
        code = head_check_there(path, reterr);
    if (code == AMP_OK && access(path, F_OK) != 0)
        code = amp_error_set(reterr, AMP_NOT_FOUND, "", "there is no journal %s", path);
    if (code == AMP_OK)
        code = journal_lock(path, &lock_fd, reterr);
    if (code == AMP_RUNNING)
        amp_error_hint(reterr, "an environment prunes its own journal: amesh up --retain-age AGE --retain-bytes SIZE");
    if (code == AMP_OK)
        code = store_open(&store, path, options->now_unix_ms, reterr);
    if (code == AMP_OK) {
        code = prune_store(&store, options, ret, reterr);
        store_close(&store);
    }
    if (lock_fd >= 0)
        close(lock_fd);
    return code;
}
