/* amesh env import: rows of an export into a journal that nobody has, in one transaction. Sealed and chained anew. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uthash.h>

#define LINE_MAX_BYTES ((size_t)512 << 20)
#define COLUMNS_MAX 32u
#define UNREADABLE_HINT "nothing was imported; amesh env export --skip-corrupt, where it comes from, leaves such rows out"

struct left_out { /* a task that is not wanted: open, or without its own row */
    UT_hash_handle hh;
    char id[];
};

struct import {
    struct store store;
    FILE *in;
    const struct journal_import_options *options;
    struct journal_import_counts *counts;
    sqlite3_stmt *insert[CHAIN_KINDS], *compare[CHAIN_KINDS], *has_task;
    char task[AMP_NAME_MAX + 1]; /* the last one that was found */
    struct left_out *left_out;
    struct file_intake *files;
    struct amp_arena arena; /* of the row at hand */
    crypto_generichash_state hash;
    uint64_t line, rows;
    uint32_t boot; /* the highest number of an environment that it tells of */
    bool has_ended;
    struct amp_error *err;
};

#define ROWS_MAX 9007199254740992.0 /* above it, a number of JSON stands for its neighbours, too */
#define TIME_MAX 253402300799999.0 /* the end of the year 9999, in ms */

static bool is_integer(const cJSON *value, double most)
{
    return cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble <= most && value->valuedouble == (double)(int64_t)value->valuedouble;
}

/* Of a column: those that are no times are counts, states and flags, which have 31 bits. */
static double most_of(const char *name)
{
    static const char *const times[] = {"at", "submitted", "started", "ended"};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        if (strcmp(times[i], name) == 0)
            return TIME_MAX;
    return INT32_MAX;
}

static enum amp_code AMP_PRINTF(3, 4) refuse(struct import *import, enum amp_code code, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args); /* NOLINT(clang-analyzer-valist.Uninitialized): it is, a line above */
    va_end(args);
    return amp_error_set(import->err, code, "", "line %" PRIu64 ": %s", import->line, text);
}

/* ---- statements ------------------------------------------------------------------------------------------------------- */

static void parameters(unsigned count, char *ret, size_t size)
{
    size_t len = 0;
    for (unsigned i = 1; i <= count; i++)
        len += (size_t)snprintf(ret + len, size - len, "%s?%u", i > 1 ? ", " : "", i);
}

static void key_condition(const struct chain_table *table, char *ret, size_t size)
{
    const char *at = table->columns;
    size_t len = 0;
    for (unsigned i = 1; i <= table->n_key; i++) {
        size_t n = strcspn(at, ",");
        len += (size_t)snprintf(ret + len, size - len, "%s%.*s = ?%u", i > 1 ? " AND " : "", (int)n, at, i);
        at += n + (at[n] ? 2 : 0);
    }
}

static bool prepare(struct import *import, int kind)
{
    const struct chain_table *table = &chain_tables[kind];
    char values[256], key[128], sql[1500];
    parameters(table->n_columns, values, sizeof values);
    key_condition(table, key, sizeof key);
    if (kind == CHAIN_DEATH) /* numbered by who has them: the same death is one of the same instance at the same time */
        snprintf(sql, sizeof sql,
                 "INSERT INTO deaths (%s, entry, seal) SELECT m, ?2, ?3, ?4, ?5, chain_entry(), row_seal(6, m, ?2, ?3, ?4, ?5) FROM (SELECT coalesce(max(n), 0) + 1 AS m"
                 " FROM deaths) WHERE NOT EXISTS (SELECT 1 FROM deaths WHERE agent = ?2 AND instance = ?3 AND at = ?4 AND body = ?5) RETURNING %s",
                 table->columns, table->columns);
    else
        snprintf(sql, sizeof sql, "INSERT INTO %s (%s, entry, seal) VALUES (%s, chain_entry(), row_seal(%d, %s)) ON CONFLICT DO NOTHING RETURNING %s", table->name, table->columns, values, kind,
                 values, table->columns);
    bool is_prepared = sqlite3_prepare_v2(import->store.db, sql, -1, &import->insert[kind], NULL) == SQLITE_OK;
    snprintf(sql, sizeof sql, "SELECT 1 FROM %s WHERE %s AND seal = row_seal(%d, %s)", table->name, kind == CHAIN_DEATH ? "?1 IS NOT NULL" : key, kind, kind == CHAIN_DEATH ? table->columns : values);
    return is_prepared && sqlite3_prepare_v2(import->store.db, sql, -1, &import->compare[kind], NULL) == SQLITE_OK;
}

static bool bind_bytes(sqlite3_stmt *statement, int at, const cJSON *value)
{
    const char *encoded = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(value, "base64"));
    if (!encoded)
        return false;
    size_t len = strlen(encoded), size = 0;
    uint8_t *data = xcalloc(1, len + 1);
    bool is_bound = sodium_base642bin(data, len + 1, encoded, len, NULL, &size, NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
                    sqlite3_bind_blob64(statement, at, data, size, SQLITE_TRANSIENT) == SQLITE_OK;
    free(data);
    return is_bound;
}

/* Only what the column has itself: SQLite would make a number of a text, and a text of a number, behind the back of the seal. */
static bool bind_value(sqlite3_stmt *statement, int at, const char *table, const char *name, const cJSON *value)
{
    const char *type = "";
    if (!value)
        return sqlite3_bind_null(statement, at) == SQLITE_OK;
    if (sqlite3_table_column_metadata(sqlite3_db_handle(statement), NULL, table, name, &type, NULL, NULL, NULL, NULL) != SQLITE_OK)
        return false;
    if (strcmp(type, "INTEGER") == 0)
        return is_integer(value, most_of(name)) && sqlite3_bind_int64(statement, at, (sqlite3_int64)value->valuedouble) == SQLITE_OK;
    if (strcmp(type, "TEXT") == 0)
        return cJSON_IsString(value) && sqlite3_bind_text(statement, at, value->valuestring, -1, SQLITE_TRANSIENT) == SQLITE_OK;
    return cJSON_IsObject(value) && bind_bytes(statement, at, value);
}

#define COLUMN_NAME_SIZE 32u

/* False: `ret` is the column whose value is wrong. */
static bool bind_row(sqlite3_stmt *statement, const struct chain_table *table, const cJSON *row, char ret[COLUMN_NAME_SIZE])
{
    const char *at = table->columns;
    for (unsigned i = 1; i <= table->n_columns; i++) {
        char *name = ret;
        size_t n = strcspn(at, ",");
        snprintf(name, COLUMN_NAME_SIZE, "%.*s", (int)n, at);
        if (!bind_value(statement, (int)i, table->name, name, cJSON_GetObjectItemCaseSensitive(row, name)))
            return false;
        at += n + (at[n] ? 2 : 0);
    }
    return true;
}

/* ---- rows -------------------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *row, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(row, name);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static const char *name_of(int kind, const cJSON *row)
{
    static const char *const names[CHAIN_KINDS] = {[CHAIN_TASK] = "id", [CHAIN_EVENT] = "task", [CHAIN_KEY] = "key", [CHAIN_KV] = "key", [CHAIN_DEATH] = "instance"};
    return names[kind] ? text_of(row, names[kind]) : "";
}

static void leave_out(struct import *import, const char *id)
{
    size_t size = strlen(id) + 1;
    struct left_out *one = xcalloc(1, sizeof *one + size);
    memcpy(one->id, id, size);
    HASH_ADD_STR(import->left_out, id, one);
}

/* Tasks stand before what belongs to them: one that is not there was damaged, or is none of these. */
static bool has_task(struct import *import, const char *id)
{
    if (strcmp(import->task, id) == 0)
        return true;
    sqlite3_bind_text(import->has_task, 1, id, -1, SQLITE_STATIC);
    bool is_there = sqlite3_step(import->has_task) == SQLITE_ROW;
    sqlite3_reset(import->has_task);
    if (is_there)
        snprintf(import->task, sizeof import->task, "%s", id);
    return is_there;
}

static void lose(void *ctx, const struct journal_lost *lost)
{
    struct import *import = ctx;
    import->counts->tasks_lost += lost->count == 0;
    if (import->options->lost.on_lost)
        import->options->lost.on_lost(import->options->lost.ctx, lost);
}

static bool raise_boot(struct import *import, const cJSON *number)
{
    if (!number)
        return true;
    if (!is_integer(number, JOURNAL_BOOT_MAX))
        return false;
    if (number->valuedouble > import->boot)
        import->boot = (uint32_t)number->valuedouble;
    return true;
}

/* What an environment had for itself alone is not wanted: but those here must count on from its numbers. */
static enum amp_code take_private(struct import *import, int kind, const cJSON *row, bool *ret)
{
    bool is_boot = kind == CHAIN_KV && strcmp(text_of(row, "scope"), JOURNAL_SCOPE_BOOT) == 0;
    *ret = kind == CHAIN_KV && journal_is_private(text_of(row, "scope"));
    if (is_boot && !raise_boot(import, cJSON_GetObjectItemCaseSensitive(row, "version")))
        return refuse(import, AMP_MALFORMED, "version: it is no number of an environment");
    if (kind == CHAIN_TASK && !boot_of_attempts(text_of(row, "attempts"), &import->boot))
        return refuse(import, AMP_MALFORMED, "attempts: task %.64s has an epoch that can be none", text_of(row, "id"));
    return AMP_OK;
}

/* Whose row it is, if need be in `buf`; "": no task's. */
static const char *task_of(int kind, const cJSON *row, char buf[AMP_NAME_MAX + 1])
{
    const char *scope = kind == CHAIN_KV ? text_of(row, "scope") : "", *key = text_of(row, "key");
    if (strcmp(scope, JOURNAL_SCOPE_QUESTION) == 0) {
        snprintf(buf, AMP_NAME_MAX + 1, "%.*s", (int)strcspn(key, ":"), key);
        return buf;
    }
    if (kind == CHAIN_KV)
        return strcmp(scope, JOURNAL_SCOPE_BLOB) == 0 ? key : strcmp(scope, JOURNAL_SCOPE_BLOBS_OF) == 0 ? text_of(row, "owner") : "";
    return kind == CHAIN_DEATH ? "" : text_of(row, kind == CHAIN_TASK ? "id" : "task");
}

/* Open tasks, by what is said of them. *ret: the row is not wanted. */
static enum amp_code sort_out(struct import *import, int kind, const cJSON *row, bool *ret)
{
    char buf[AMP_NAME_MAX + 1];
    const char *task = task_of(kind, row, buf);
    struct left_out *one = NULL;
    const cJSON *open = cJSON_GetObjectItemCaseSensitive(row, "open");
    bool is_open = kind == CHAIN_TASK && cJSON_IsNumber(open) && open->valuedouble != 0;
    *ret = false;
    if (is_open && import->options->open == JOURNAL_OPEN_REFUSED) {
        refuse(import, AMP_CONFLICT, "task %.64s has not ended: would it go on here, and run twice?", task);
        amp_error_hint(import->err, "--continue if the journal it comes from is not used any more; --ended leaves such tasks out");
        return AMP_CONFLICT;
    }
    if (is_open && import->options->open == JOURNAL_OPEN_LEFT_OUT) {
        leave_out(import, task);
        import->counts->left_out++;
    }
    if (*task)
        HASH_FIND_STR(import->left_out, task, one);
    if (*task && !one && (kind == CHAIN_EVENT || kind == CHAIN_KEY) && !has_task(import, task)) {
        leave_out(import, task);
        lose(import, &(struct journal_lost){.task = task});
        HASH_FIND_STR(import->left_out, task, one);
    }
    *ret = one != NULL;
    return AMP_OK;
}

#define TASK_INCOMPLETE 11 /* the column's place in COLUMNS_TASKS */

static enum amp_code is_there(struct import *import, int kind, const cJSON *row)
{
    sqlite3_stmt *compare = import->compare[kind];
    char column[COLUMN_NAME_SIZE];
    bool is_same = kind == CHAIN_DEATH || (bind_row(compare, &chain_tables[kind], row, column) && sqlite3_step(compare) == SQLITE_ROW);
    sqlite3_reset(compare);
    if (!is_same && kind == CHAIN_TASK) { /* imported before, when it lacked events */
        is_same = sqlite3_bind_int(compare, TASK_INCOMPLETE, 1) == SQLITE_OK && sqlite3_step(compare) == SQLITE_ROW;
        sqlite3_reset(compare);
    }
    if (is_same) {
        import->counts->there++;
        return AMP_OK;
    }
    refuse(import, AMP_CONFLICT, "%s %.100s%s%.100s is there already (or stands twice in the export), and differs", chain_tables[kind].name, name_of(kind, row),
           kind == CHAIN_KV ? " of " : "", kind == CHAIN_KV ? text_of(row, "owner") : "");
    amp_error_hint(import->err, "nothing was imported; import into a journal of its own: --journal FILE");
    return AMP_CONFLICT;
}

/* As the journal has it now. */
static enum amp_code check_row(struct import *import, int kind, const cJSON *row)
{
    struct amp_error err = {0};
    if (row_sense(import->insert[kind], (enum chain_kind)kind, &import->arena, &err) == AMP_OK)
        return AMP_OK;
    refuse(import, AMP_MALFORMED, "this row of %s (%.100s) cannot be read: %s", chain_tables[kind].name, name_of(kind, row), err.message);
    amp_error_hint(import->err, UNREADABLE_HINT);
    return AMP_MALFORMED;
}

static enum amp_code add_row(struct import *import, const cJSON *line)
{
    const char *table = text_of(line, "table");
    const cJSON *row = cJSON_GetObjectItemCaseSensitive(line, "row");
    bool is_unwanted = false;
    int kind = CHAIN_TASK;
    while (kind < CHAIN_KINDS && strcmp(chain_tables[kind].name, table) != 0)
        kind++;
    if (kind == CHAIN_KINDS || !cJSON_IsObject(row))
        return refuse(import, AMP_MALFORMED, "it is no row of a table that this program knows");
    import->rows++;
    enum amp_code code = take_private(import, kind, row, &is_unwanted);
    if (code == AMP_OK && !is_unwanted)
        code = sort_out(import, kind, row, &is_unwanted);
    if (code != AMP_OK || is_unwanted)
        return code;
    sqlite3_stmt *insert = import->insert[kind];
    import->store.chain.is_noted = false;
    char column[COLUMN_NAME_SIZE];
    int status = bind_row(insert, &chain_tables[kind], row, column) ? sqlite3_step(insert) : SQLITE_MISMATCH;
    if (status == SQLITE_ROW) {
        code = check_row(import, kind, row);
        status = sqlite3_step(insert);
    }
    sqlite3_reset(insert);
    if (code != AMP_OK)
        return code;
    if (status == SQLITE_MISMATCH)
        return refuse(import, AMP_MALFORMED, "%s: it is not what this column has: a text, bytes as base64, or a whole number in its range", column);
    if (status != SQLITE_DONE)
        return refuse(import, (status & 0xff) == SQLITE_CONSTRAINT ? AMP_MALFORMED : AMP_JOURNAL, "the row cannot be written: %s",
                      sqlite3_errmsg(import->store.db));
    if (sqlite3_changes(import->store.db) == 0)
        return is_there(import, kind, row);
    import->counts->added++;
    const cJSON *open = cJSON_GetObjectItemCaseSensitive(row, "open");
    import->counts->tasks += kind == CHAIN_TASK;
    import->counts->open += kind == CHAIN_TASK && cJSON_IsNumber(open) && open->valuedouble != 0;
    return chain_take(&import->store.chain) ? AMP_OK : refuse(import, AMP_TOO_LARGE, "too many rows for one import");
}

/* ---- lines -------------------------------------------------------------------------------------------------------------- */

static enum amp_code check_end(struct import *import, const cJSON *line)
{
    crypto_generichash_state hash = import->hash; /* of the lines before this one */
    uint8_t sum[32];
    char hex[65];
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(line, "rows");
    crypto_generichash_final(&hash, sum, sizeof sum);
    sodium_bin2hex(hex, sizeof hex, sum, sizeof sum);
    import->has_ended = true;
    if (!is_integer(rows, ROWS_MAX))
        return refuse(import, AMP_MALFORMED, "rows: it is no number of rows");
    if (strcmp(hex, text_of(line, "hash")) != 0 || (uint64_t)rows->valuedouble != import->rows)
        return refuse(import, AMP_MALFORMED, "the lines before it are not those that were exported");
    return AMP_OK;
}

static enum amp_code take_piece(struct import *import, const cJSON *line)
{
    struct amp_error err = {0};
    enum amp_code code = file_intake_line(import->files, line, &err);
    return code == AMP_OK ? AMP_OK : refuse(import, code, "%s", err.message);
}

/* cJSON lets invalid UTF-8 pass, cuts a text at its NUL, and takes the first of two members. */
static enum amp_code check_text(struct import *import, struct amp_bytes text)
{
    struct amp_error err = {0};
    const struct amp_json_limits limits = {.bytes_max = LINE_MAX_BYTES, .depth_max = AMP_DEPTH_MAX, .members_max = AMP_MEMBERS_MAX};
    if (amp_json_check(text, &limits, &err) == AMP_OK)
        return AMP_OK;
    refuse(import, AMP_MALFORMED, "it cannot be read: %s", err.message);
    amp_error_hint(import->err, UNREADABLE_HINT);
    return AMP_MALFORMED;
}

static enum amp_code refuse_line(struct import *import, const char *text, size_t len)
{
    if (import->line == 1) {
        bool is_journal = len >= 15 && memcmp(text, "SQLite format 3", 15) == 0;
        refuse(import, AMP_MALFORMED, is_journal ? "it is a journal or a backup, not an export" : "it is no export of a journal");
        amp_error_hint(import->err, is_journal ? "amesh env restore reads a backup" : "name a file that amesh env export wrote");
    } else if (text[len - 1] != '\n') {
        refuse(import, AMP_MALFORMED, "the export ends here, in the middle of a line: it was cut");
        amp_error_hint(import->err, "nothing was imported; write the export anew, where it comes from");
    } else {
        refuse(import, AMP_MALFORMED, "it is no JSON object");
        amp_error_hint(import->err, "nothing was imported; the file is not what amesh env export wrote");
    }
    return AMP_MALFORMED;
}

static enum amp_code take_line(struct import *import, const char *text, size_t len)
{
    cJSON *line = cJSON_ParseWithLength(text, len);
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(line, "version");
    enum amp_code code;
    import->line++;
    if (line && check_text(import, (struct amp_bytes){.data = (const uint8_t *)text, .len = len}) != AMP_OK)
        code = AMP_MALFORMED;
    else if (import->has_ended)
        code = refuse(import, AMP_MALFORMED, "something follows the end of the export");
    else if (!line)
        code = refuse_line(import, text, len);
    else if (import->line == 1 && (strcmp(text_of(line, "format"), "amesh-journal") != 0 || !cJSON_IsNumber(version)))
        code = refuse(import, AMP_MALFORMED, "it is no export of a journal (amesh env export)");
    else if (import->line == 1 && !raise_boot(import, cJSON_GetObjectItemCaseSensitive(line, "boot")))
        code = refuse(import, AMP_MALFORMED, "boot: it is no number of an environment");
    else if (import->line == 1)
        code = version->valuedouble == 1 ? AMP_OK : refuse(import, AMP_VERSION, "exports of version %.0f are not known here", version->valuedouble);
    else if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(line, "end")))
        code = check_end(import, line);
    else if (cJSON_GetObjectItemCaseSensitive(line, "file"))
        code = take_piece(import, line);
    else
        code = add_row(import, line);
    crypto_generichash_update(&import->hash, (const uint8_t *)text, len);
    cJSON_Delete(line);
    return code;
}

/* With its end. False: it is too long, which is known as soon as it has become so. */
static bool read_line(FILE *in, struct amp_buf *line)
{
    char piece[4096];
    size_t len;
    int c;
    amp_buf_reset(line);
    do {
        for (len = 0, c = 0; len < sizeof piece && c != '\n' && (c = getc_unlocked(in)) != EOF;)
            piece[len++] = (char)c;
        if (amp_buf_append(line, piece, len) != AMP_OK)
            return false;
    } while (len == sizeof piece && c != '\n');
    return true;
}

static enum amp_code read_lines(struct import *import)
{
    struct amp_buf line;
    enum amp_code code = AMP_OK;
    amp_buf_init(&line, LINE_MAX_BYTES);
    do {
        if (!read_line(import->in, &line))
            code = refuse(import, AMP_TOO_LARGE, "a line behind it has more than 512 MiB");
        else if (line.len > 0)
            code = take_line(import, (const char *)line.data, line.len);
    } while (code == AMP_OK && line.len > 0);
    amp_buf_done(&line);
    if (code == AMP_OK && ferror(import->in))
        code = refuse(import, AMP_INVALID, "it cannot be read: %s", strerror(errno));
    if (code == AMP_OK && !import->has_ended)
        code = refuse(import, AMP_MALFORMED, "the export ends here, without its last line: it was cut");
    return code;
}

/* On what is left of such a task no environment would begin. */
static enum amp_code check_open(struct import *import)
{
    static const char sql[] = "SELECT id FROM tasks WHERE open = 1 AND durable = 1 AND events <> (SELECT coalesce(sum(count), 0) FROM events WHERE task = tasks.id) LIMIT 1";
    sqlite3_stmt *statement = NULL;
    enum amp_code code = AMP_OK;
    int status = sqlite3_prepare_v2(import->store.db, sql, -1, &statement, NULL) == SQLITE_OK ? sqlite3_step(statement) : SQLITE_ERROR;
    if (status == SQLITE_ROW) {
        code = amp_error_set(import->err, AMP_MALFORMED, "", "task %.64s has not ended, and not all of its events are there", (const char *)sqlite3_column_text(statement, 0));
        amp_error_hint(import->err, "--ended leaves such tasks out");
    } else if (status != SQLITE_DONE) {
        code = amp_error_set(import->err, AMP_JOURNAL, "", "the journal cannot be read: %s", sqlite3_errmsg(import->store.db));
    }
    sqlite3_finalize(statement);
    return code;
}

static enum amp_code run(struct import *import, int64_t now_unix_ms)
{
    struct store *store = &import->store;
    enum amp_code code = AMP_OK;
    for (int kind = CHAIN_TASK; code == AMP_OK && kind < CHAIN_KINDS; kind++)
        code = prepare(import, kind) ? AMP_OK : AMP_INTERNAL;
    if (code == AMP_OK && sqlite3_prepare_v2(store->db, "SELECT 1 FROM tasks WHERE id = ?1", -1, &import->has_task, NULL) != SQLITE_OK)
        code = AMP_INTERNAL;
    uint64_t before = store->chain.n;
    const struct journal_lost_handler lost = {.on_lost = lose, .ctx = import};
    chain_begin(&store->chain);
    if (code != AMP_OK || sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
        return amp_error_set(import->err, code == AMP_OK ? AMP_JOURNAL : code, "", "the journal cannot be written: %s", sqlite3_errmsg(store->db));
    crypto_generichash_init(&import->hash, NULL, 0, 32);
    code = read_lines(import);
    if (code == AMP_OK)
        code = check_open(import);
    if (code == AMP_OK)
        code = store_mend(store, before, &lost, &import->counts->events_lost, import->err);
    if (code == AMP_OK)
        code = file_intake_end(import->files, &import->counts->files, &import->counts->file_bytes, import->err);
    if (code == AMP_OK && (!boot_raise(store, import->boot, now_unix_ms) || !chain_add(store, now_unix_ms) || sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK))
        code = amp_error_set(import->err, AMP_JOURNAL, "", "the journal cannot be written: %s", sqlite3_errmsg(store->db));
    if (code != AMP_OK) {
        if (!sqlite3_get_autocommit(store->db))
            (void)sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
        return code;
    }
    chain_committed(&store->chain);
    return head_write(store) ? AMP_OK : amp_error_set(import->err, AMP_JOURNAL, "", "%s-head cannot be written", store->path);
}

/* One that was made for rows which did not come. The head goes first: without its journal it would be that of a lost one. The lock stays, as it is held. */
static void remove_made(const char *path)
{
    static const char *const suffixes[] = {"-head", "-wal", "-shm", ""};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        journal_remove_beside(path, suffixes[i]);
}

enum amp_code journal_import(const char *path, FILE *in, int64_t now_unix_ms, const struct journal_import_options *options, struct journal_import_counts *ret,
                             struct amp_error *reterr)
{
    struct amp_error err = {0};
    struct import import = {.in = in, .options = options, .counts = ret, .err = reterr ? reterr : &err};
    struct left_out *one, *next;
    int lock_fd = -1;
    *ret = (struct journal_import_counts){0};
    enum amp_code code = journal_lock(path, &lock_fd, import.err);
    bool is_made = code == AMP_OK && access(path, F_OK) != 0 && head_check_there(path, NULL) == AMP_OK;
    if (code == AMP_OK)
        code = store_open(&import.store, path, now_unix_ms, import.err);
    if (code == AMP_OK) {
        import.files = file_intake_new(path);
        amp_arena_init(&import.arena, SENSE_BYTES_MAX);
        code = run(&import, now_unix_ms);
        file_intake_free(import.files, code == AMP_OK);
        for (int kind = 0; kind < CHAIN_KINDS; kind++) {
            sqlite3_finalize(import.insert[kind]);
            sqlite3_finalize(import.compare[kind]);
        }
        sqlite3_finalize(import.has_task);
        amp_arena_done(&import.arena);
        store_close(&import.store);
    }
    if (is_made && code != AMP_OK)
        remove_made(path);
    HASH_ITER(hh, import.left_out, one, next) {
        HASH_DEL(import.left_out, one);
        free(one);
    }
    if (lock_fd >= 0)
        close(lock_fd);
    return code;
}
