/* amesh env export and import: rows as JSON lines.
 *
 * The first line says what it is and of which state of which journal; then one line per row, {"table":…,"row":{column:value…}} with
 * blobs as {"base64":…}; then the files of tasks in pieces, {"file":digest,"size":…,"at":…,"base64":…}; the last line has the count and a hash of all lines before: a file that was cut is seen. Generic over the
 * tables of the schema. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_PIECE ((size_t)768 << 10)

struct export {
    sqlite3 *db;
    const char *path;
    FILE *out;
    const struct journal_export_options *options;
    struct journal_export_counts *counts;
    struct amp_buf line;
    struct amp_arena arena; /* of the row at hand */
    crypto_generichash_state hash;
    bool has_failed;
};

/* Which files a task has goes with it. */
#define BLOBS_OF(tasks) \
    "(scope = '" JOURNAL_SCOPE_BLOB "' AND key IN (SELECT id FROM tasks WHERE " tasks ")) OR (scope = '" JOURNAL_SCOPE_BLOBS_OF "' AND owner IN (SELECT id FROM tasks WHERE " tasks "))"

/* Which rows: of a context, those of its tasks. Deaths and the memory of others belong to no context. */
static const struct {
    int kind;
    const char *all, *context;
} selections[] = {
    {CHAIN_TASK, "submitted >= :since", "context = :context"},
    {CHAIN_EVENT, "task IN (SELECT id FROM tasks WHERE submitted >= :since)", "task IN (SELECT id FROM tasks WHERE context = :context AND submitted >= :since)"},
    {CHAIN_KEY, "task IN (SELECT id FROM tasks WHERE submitted >= :since)", "task IN (SELECT id FROM tasks WHERE context = :context AND submitted >= :since)"},
    {CHAIN_KV, ":since = 0 OR scope NOT IN ('" JOURNAL_SCOPE_BLOB "', '" JOURNAL_SCOPE_BLOBS_OF "') OR " BLOBS_OF("submitted >= :since"),
     "(scope = 'context' AND owner = :context) OR " BLOBS_OF("context = :context AND submitted >= :since")},
    {CHAIN_DEATH, "at >= :since", "0"},
};

static void put_line(struct export *export)
{
    (void)amp_buf_append(&export->line, "\n", 1);
    crypto_generichash_update(&export->hash, export->line.data, export->line.len);
    export->has_failed |= export->line.is_full || fwrite(export->line.data, 1, export->line.len, export->out) != export->line.len;
    amp_buf_reset(&export->line);
}

static void add_blob(struct amp_buf *line, const void *data, size_t len)
{
    size_t size = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL);
    char *text = xcalloc(1, size);
    sodium_bin2base64(text, size, data ? data : (const void *)"", len, sodium_base64_VARIANT_ORIGINAL);
    (void)amp_buf_printf(line, "{\"base64\":\"");
    (void)amp_buf_append(line, text, strlen(text));
    (void)amp_buf_append(line, "\"}", 2);
    free(text);
}

static void add_row(struct export *export, sqlite3_stmt *statement, int kind)
{
    struct amp_buf *line = &export->line;
    bool is_first = true;
    (void)amp_buf_printf(line, "{\"table\":\"%s\",\"row\":{", chain_tables[kind].name);
    for (int i = 0; i < (int)chain_tables[kind].n_columns; i++) {
        int type = sqlite3_column_type(statement, i);
        if (type == SQLITE_NULL)
            continue;
        (void)amp_buf_printf(line, "%s\"%s\":", is_first ? "" : ",", sqlite3_column_name(statement, i));
        is_first = false;
        if (type == SQLITE_INTEGER)
            (void)amp_buf_printf(line, "%" PRId64, (int64_t)sqlite3_column_int64(statement, i));
        else if (type == SQLITE_TEXT)
            (void)amp_json_append_string(line, amp_bytes_of((const char *)sqlite3_column_text(statement, i)));
        else
            add_blob(line, sqlite3_column_blob(statement, i), (size_t)sqlite3_column_bytes(statement, i));
    }
    (void)amp_buf_append(line, "}}", 2);
    put_line(export);
    export->counts->rows++;
}

static void bind_selection(struct export *export, sqlite3_stmt *statement)
{
    int context = sqlite3_bind_parameter_index(statement, ":context"), since = sqlite3_bind_parameter_index(statement, ":since");
    if (context)
        sqlite3_bind_text(statement, context, export->options->context, -1, SQLITE_STATIC);
    if (since)
        sqlite3_bind_int64(statement, since, export->options->since_unix_ms);
}

/* Of this journal only. */
static bool is_private(sqlite3_stmt *statement, int kind)
{
    return kind == CHAIN_KV && journal_is_private((const char *)sqlite3_column_text(statement, 0));
}

/* As it was written, and such that an import takes it. */
static bool is_sound(struct export *export, sqlite3_stmt *statement, int kind, struct amp_error *reterr)
{
    int at = (int)chain_tables[kind].n_columns; /* behind them: is its seal right, what is it called, which entry wrote it */
    struct amp_error err = {0};
    bool is_written = sqlite3_column_int(statement, at);
    if (is_written && row_sense(statement, (enum chain_kind)kind, &export->arena, &err) == AMP_OK)
        return true;
    amp_error_set(reterr, AMP_CORRUPT, "", "the journal is damaged: %.200s (chain entry %lld) %s%.200s", sqlite3_column_text(statement, at + 1), sqlite3_column_int64(statement, at + 2),
                  is_written ? "cannot be read: " : "is not what was written", is_written ? err.message : "");
    return false;
}

static enum amp_code put_table(struct export *export, size_t at, struct amp_error *reterr)
{
    const struct chain_table *table = &chain_tables[selections[at].kind];
    char sql[2048];
    sqlite3_stmt *statement = NULL;
    enum amp_code code = AMP_OK;
    snprintf(sql, sizeof sql, "SELECT %s, seal = row_seal(%d, %s), %s, entry FROM %s WHERE %s", table->columns, selections[at].kind, table->columns, table->text, table->name,
             export->options->context ? selections[at].context : selections[at].all);
    int status = sqlite3_prepare_v2(export->db, sql, -1, &statement, NULL);
    if (status == SQLITE_OK)
        bind_selection(export, statement);
    while (status == SQLITE_OK && code == AMP_OK && (status = sqlite3_step(statement)) == SQLITE_ROW) {
        status = SQLITE_OK;
        if (is_sound(export, statement, selections[at].kind, reterr)) {
            if (!is_private(statement, selections[at].kind))
                add_row(export, statement, selections[at].kind);
        } else {
            export->counts->skipped++;
            code = export->options->skips_corrupt ? AMP_OK : AMP_CORRUPT;
        }
    }
    if (code == AMP_OK && status != SQLITE_DONE) { /* of a table that cannot be read further, what could be read is there */
        export->counts->unread++;
        code = export->options->skips_corrupt ? AMP_OK : AMP_CORRUPT;
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal's table %s cannot be read to its end: %s", table->name, sqlite3_errmsg(export->db));
    }
    if (code == AMP_CORRUPT)
        amp_error_hint(reterr, "amesh env verify says all that is damaged; --skip-corrupt writes what is sound");
    sqlite3_finalize(statement);
    return code;
}

/* ---- files ---------------------------------------------------------------------------------------------------------- */

static bool put_piece(struct export *export, const struct journal_blob *blob, uint64_t at, struct amp_bytes piece)
{
    size_t size = sodium_base64_encoded_len(piece.len, sodium_base64_VARIANT_ORIGINAL);
    char *text = xcalloc(1, size);
    sodium_bin2base64(text, size, piece.data, piece.len, sodium_base64_VARIANT_ORIGINAL);
    (void)amp_buf_printf(&export->line, "{\"file\":\"%s\",\"size\":%" PRIu64 ",\"at\":%" PRIu64 ",\"base64\":\"", blob->digest, blob->size, at);
    (void)amp_buf_append(&export->line, text, strlen(text));
    (void)amp_buf_append(&export->line, "\"}", 2);
    free(text);
    put_line(export);
    return !export->has_failed;
}

/* It was looked at as a whole before; one that changes in between ends the export. */
static bool put_bytes(struct export *export, const struct journal_blob *blob, int fd)
{
    uint8_t *piece = xcalloc(1, FILE_PIECE);
    uint64_t at = 0;
    bool goes_on = true;
    do {
        ssize_t n = pread(fd, piece, FILE_PIECE, (off_t)at);
        goes_on = n >= 0 && (n > 0 || at == blob->size) && put_piece(export, blob, at, (struct amp_bytes){piece, (size_t)n});
        at += n > 0 ? (uint64_t)n : 0;
    } while (goes_on && at < blob->size);
    free(piece);
    export->has_failed |= !goes_on;
    return goes_on;
}

static bool put_file(void *ctx, const struct journal_blob *blob)
{
    struct export *export = ctx;
    char why[200];
    int fd = journal_blob_is_sound(export->path, blob, why, sizeof why) ? journal_blob_open(export->path, blob, why, sizeof why) : -1;
    if (fd < 0) {
        export->counts->files_missing++;
        if (export->options->on_missing)
            export->options->on_missing(export->options->ctx, blob->digest, blob->owner, why);
        return true;
    }
    bool is_put = put_bytes(export, blob, fd);
    close(fd);
    export->counts->files++;
    export->counts->file_bytes += blob->size;
    return is_put;
}

static void put_head(struct export *export, int64_t now_unix_ms)
{
    sqlite3_stmt *statement = NULL;
    char time[AMP_TIME_SIZE];
    int64_t counted_unix_ms;
    uint32_t boot = boot_known(export->db, &counted_unix_ms);
    amp_time_format(now_unix_ms, time);
    (void)amp_buf_printf(&export->line, "{\"format\":\"amesh-journal\",\"version\":1,\"at\":\"%s\"", time);
    if (sqlite3_prepare_v2(export->db, "SELECT (SELECT value FROM meta WHERE name = 'id'), n, lower(hex(hash)) FROM chain ORDER BY n DESC LIMIT 1", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        (void)amp_buf_printf(&export->line, ",\"journal\":\"%s\",\"entry\":%" PRId64 ",\"hash\":\"%s\"", sqlite3_column_text(statement, 0),
                             (int64_t)sqlite3_column_int64(statement, 1), sqlite3_column_text(statement, 2));
    }
    sqlite3_finalize(statement);
    if (boot)
        (void)amp_buf_printf(&export->line, ",\"boot\":%u", (unsigned)boot);
    if (export->options->context) {
        (void)amp_buf_printf(&export->line, ",\"context\":");
        (void)amp_json_append_string(&export->line, amp_bytes_of(export->options->context));
    }
    (void)amp_buf_append(&export->line, "}", 1);
    put_line(export);
}

/* A name that nothing has is more often a slip than a conversation without tasks. */
static enum amp_code check_context(struct export *export, struct amp_error *reterr)
{
    static const char sql[] = "SELECT EXISTS (SELECT 1 FROM tasks WHERE context = :context) OR EXISTS (SELECT 1 FROM kv WHERE scope = 'context' AND owner = :context)";
    sqlite3_stmt *statement = NULL;
    if (!export->options->context || sqlite3_prepare_v2(export->db, sql, -1, &statement, NULL) != SQLITE_OK) /* what cannot be read is said of the tables */
        return AMP_OK;
    bind_selection(export, statement);
    bool is_unknown = sqlite3_step(statement) == SQLITE_ROW && !sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    if (!is_unknown)
        return AMP_OK;
    amp_error_set(reterr, AMP_NOT_FOUND, "context", "the journal has no conversation \"%.100s\"", export->options->context);
    amp_error_hint(reterr, "amesh task show ID names the context of a task");
    return AMP_NOT_FOUND;
}

/* A row that is gone leaves no damaged one behind, but its number. */
static enum amp_code check_numbers(struct export *export, struct amp_error *reterr)
{
    char sql[1024];
    sqlite3_stmt *statement = NULL;
    enum amp_code code = AMP_OK;
    if (export->options->skips_corrupt)
        return AMP_OK;
    snprintf(sql, sizeof sql, "SELECT id FROM tasks WHERE %s AND id IN (" JOURNAL_BROKEN_TASKS ") LIMIT 1", export->options->context ? selections[0].context : selections[0].all);
    if (sqlite3_prepare_v2(export->db, sql, -1, &statement, NULL) == SQLITE_OK)
        bind_selection(export, statement);
    if (statement && sqlite3_step(statement) == SQLITE_ROW) {
        code = amp_error_set(reterr, AMP_CORRUPT, "", "the journal is damaged: not all events of task %.64s are there", (const char *)sqlite3_column_text(statement, 0));
        amp_error_hint(reterr, "amesh env verify says all that is damaged; --skip-corrupt writes what is sound");
    }
    sqlite3_finalize(statement);
    return code;
}

enum amp_code journal_export(const char *path, FILE *out, int64_t now_unix_ms, const struct journal_export_options *options, struct journal_export_counts *ret,
                             struct amp_error *reterr)
{
    struct export export = {.path = path, .out = out, .options = options, .counts = ret};
    uint8_t hash[32];
    char hex[65];
    *ret = (struct journal_export_counts){0};
    enum amp_code code = journal_open_to_read(path, &export.db, reterr);
    if (code != AMP_OK)
        return code;
    code = check_context(&export, reterr);
    if (code != AMP_OK) {
        journal_close_file(path, export.db);
        return code;
    }
    amp_buf_init(&export.line, SIZE_MAX / 2);
    amp_arena_init(&export.arena, SENSE_BYTES_MAX);
    crypto_generichash_init(&export.hash, NULL, 0, sizeof hash);
    put_head(&export, now_unix_ms);
    for (size_t i = 0; code == AMP_OK && i < sizeof selections / sizeof selections[0]; i++)
        code = put_table(&export, i, reterr);
    if (code == AMP_OK)
        code = check_numbers(&export, reterr);
    if (code == AMP_OK)
        (void)journal_blobs_each(export.db, &(struct journal_blobs_query){options->context, options->since_unix_ms}, put_file, &export);
    crypto_generichash_final(&export.hash, hash, sizeof hash);
    sodium_bin2hex(hex, sizeof hex, hash, sizeof hash);
    if (code == AMP_OK) {
        (void)amp_buf_printf(&export.line, "{\"end\":true,\"rows\":%" PRIu64 ",\"skipped\":%" PRIu64 ",\"hash\":\"%s\"}", ret->rows, ret->skipped, hex);
        put_line(&export);
    }
    if (code == AMP_OK && (fflush(out) != 0 || export.has_failed))
        code = amp_error_set(reterr, AMP_JOURNAL, "", "the export cannot be written: %s", strerror(errno));
    amp_buf_done(&export.line);
    amp_arena_done(&export.arena);
    journal_close_file(path, export.db);
    return code;
}
