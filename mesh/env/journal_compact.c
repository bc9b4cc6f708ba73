/* The chain keeps 33 bytes of each row that was ever written. Once most of them are of rows that are gone or were written again, it is made anew: of the rows that are there,
 * behind the newest entry, whose number and hash become the base from which the new ones follow. One transaction: cut short, the old chain stands. A head that was not written any
 * more names the base. Only of a journal that is sound as a whole: what is damaged would be sealed as it is. */
#include "journal_private.h"
#include "journal_files.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define COMPACT_FACTOR 2u /* so many times the rows that are there, or it is not worth it */

static bool number_of(struct store *store, const char *sql, uint64_t *sum)
{
    sqlite3_stmt *statement = NULL;
    bool is_read = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW;
    if (is_read)
        *sum += (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return is_read;
}

static bool count_rows(struct store *store, uint64_t *ret)
{
    bool is_read = true;
    *ret = 0;
    for (int kind = 1; is_read && kind < CHAIN_KINDS; kind++) {
        char sql[96];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", chain_tables[kind].name);
        is_read = number_of(store, sql, ret);
    }
    return is_read;
}

static bool count_chain(struct store *store, uint64_t *ret)
{
    *ret = 0;
    bool is_read = number_of(store, "SELECT coalesce(sum(length(rows)), 0) FROM chain", ret);
    *ret /= CHAIN_ROW_SIZE;
    return is_read;
}

static bool set_base(struct store *store)
{
    char sql[256], hex[2 * CHAIN_HASH_SIZE + 1];
    sodium_bin2hex(hex, sizeof hex, store->chain.hash, sizeof store->chain.hash);
    snprintf(sql, sizeof sql, "INSERT INTO meta (name, value) VALUES ('base', '%llu %s') ON CONFLICT (name) DO UPDATE SET value = excluded.value", (unsigned long long)store->chain.n, hex);
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static bool drop_old(struct store *store)
{
    char sql[64];
    snprintf(sql, sizeof sql, "DELETE FROM chain WHERE n <= %llu", (unsigned long long)store->chain.n);
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static bool make_anew(struct store *store, void *ctx)
{
    uint64_t rows = 0;
    (void)ctx;
    return set_base(store) && count_rows(store, &rows) && schema_chain_all(store) == SQLITE_OK && store->chain.rows.len == rows * CHAIN_ROW_SIZE && drop_old(store);
}

static bool compact(struct store *store, int64_t now_unix_ms)
{
    if (!store_change(store, make_anew, NULL, now_unix_ms))
        return false;
    store_checkpoint(store, false);
    return true;
}

static enum amp_code check_sound(struct store *store, struct amp_error *reterr)
{
    static const struct journal_verify_handlers none = {0};
    struct journal_report report;
    enum amp_code code = journal_verify(store->path, &none, NULL, &report, reterr);
    if (code == AMP_CORRUPT) {
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is damaged (%llu findings), so its chain was not made shorter", store->path, (unsigned long long)report.findings);
        amp_error_hint(reterr, JOURNAL_CORRUPT_HINT);
    }
    return code;
}

enum amp_code store_compact(struct store *store, int64_t now_unix_ms, uint64_t *ret_before, uint64_t *ret_after, struct amp_error *reterr)
{
    uint64_t rows = 0;
    enum amp_code code = AMP_OK;
    bool is_read = count_rows(store, &rows) && count_chain(store, ret_before);
    bool is_wanted = is_read && *ret_before > COMPACT_FACTOR * rows && rows < CHAIN_BULK_ROWS_MAX;
    if (is_wanted)
        code = check_sound(store, reterr);
    if (code != AMP_OK)
        return code;
    if (!is_read || (is_wanted && !compact(store, now_unix_ms)) || !count_chain(store, ret_after))
        return amp_error_set(reterr, AMP_JOURNAL, "", "the journal cannot be written: %s", sqlite3_errmsg(store->db));
    return AMP_OK;
}
