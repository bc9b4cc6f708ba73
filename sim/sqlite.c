/* SQLite's connections live longer than the processes that open them: the next one is given the connection of the one that was killed, with its schema and its prepared statements, which
 * took a third of a run to make. What a connection knows of its file it is made to forget: its pages are dropped here, the index of the log is found empty (disk.c), and so the log is read
 * again. What is closed while its process lives, is locked, or is not over a copy of the file that was laid out, is closed as it would be. A seed is the same run with all of this or none.
 *
 * These stand in for SQLite's functions wherever mesh/ calls them (the linker's --wrap). */
#include "base/alloc.h"
#include "env/journal_private.h"
#include "sim.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS_MAX 4
#define STATEMENTS_MAX 96
#define FUNCTIONS_MAX 8

struct kept_statement {
    char *sql; /* as much of it as one statement takes */
    size_t len;
    sqlite3_stmt *statement;
    bool is_used;
};

struct function { /* what SQLite knows as the function's context */
    const char *name;
    void *ctx;
};

static struct connection {
    sqlite3 *db; /* NULL: free */
    char *path;
    int flags;
    bool is_parked, was_parked;
    bool is_left; /* SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, which SQLite is told when it is closed */
    struct kept_statement statements[STATEMENTS_MAX];
    size_t n_statements;
    struct function functions[FUNCTIONS_MAX];
    size_t n_functions;
} connections[CONNECTIONS_MAX];

/* The linker's names: those of SQLite's own, and those of what stands in for them. */
#define REAL(name) __asm__("__real_sqlite3_" name)
#define WRAP(name) __asm__("__wrap_sqlite3_" name)
typedef int on_sql_row(void *ctx, int count, char **values, char **names);
typedef void on_sql_call(sqlite3_context *context, int count, sqlite3_value **values);
int real_open(const char *path, sqlite3 **ret, int flags, const char *vfs) REAL("open_v2");
int real_close(sqlite3 *db) REAL("close");
int real_prepare(sqlite3 *db, const char *sql, int len, unsigned flags, sqlite3_stmt **ret, const char **tail) REAL("prepare_v3");
int real_config(sqlite3 *db, int what, ...) REAL("db_config");
int real_finalize(sqlite3_stmt *statement) REAL("finalize");
int real_exec(sqlite3 *db, const char *sql, on_sql_row *on_row, void *ctx, char **message) REAL("exec");
void *real_user_data(sqlite3_context *context) REAL("user_data");
int kept_open(const char *path, sqlite3 **ret, int flags, const char *vfs) WRAP("open_v2");
int kept_close(sqlite3 *db) WRAP("close");
int kept_prepare_v2(sqlite3 *db, const char *sql, int len, sqlite3_stmt **ret, const char **tail) WRAP("prepare_v2");
int kept_prepare_v3(sqlite3 *db, const char *sql, int len, unsigned flags, sqlite3_stmt **ret, const char **tail) WRAP("prepare_v3");
int kept_config(sqlite3 *db, int what, ...) WRAP("db_config");
int kept_finalize(sqlite3_stmt *statement) WRAP("finalize");
int kept_exec(sqlite3 *db, const char *sql, on_sql_row *on_row, void *ctx, char **message) WRAP("exec");
int kept_function(sqlite3 *db, const char *name, int n_args, int text, void *ctx, on_sql_call *call, on_sql_call *step, void (*final)(sqlite3_context *)) WRAP("create_function");
void *kept_user_data(sqlite3_context *context) WRAP("user_data");

static struct connection *find(const sqlite3 *db)
{
    for (struct connection *c = connections; db && c < connections + CONNECTIONS_MAX; c++)
        if (c->db == db)
            return c;
    return NULL;
}

/* ---- opened and closed --------------------------------------------------------------------------------------------------- */

static int close_really(struct connection *c)
{
    for (size_t i = 0; i < c->n_statements; i++) {
        real_finalize(c->statements[i].statement);
        free(c->statements[i].sql);
    }
    sqlite3 *db = c->db;
    free(c->path);
    (void)real_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, (int)c->is_left, NULL);
    int status = real_close(db);
    *c = (struct connection){0};
    return status;
}

static bool is_at_rest(const struct connection *c)
{
    sqlite3_file *file = NULL, *log = NULL;
    for (size_t i = 0; i < c->n_statements; i++)
        if (c->statements[i].is_used)
            return false;
    return disk_is_frozen() && sqlite3_get_autocommit(c->db) &&
           sqlite3_file_control(c->db, "main", SQLITE_FCNTL_FILE_POINTER, &file) == SQLITE_OK && sqlite3_file_control(c->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log) == SQLITE_OK &&
           disk_may_keep(file, journal_vfs_below(log));
}

int kept_close(sqlite3 *db)
{
    struct connection *c = find(db);
    if (!c)
        return real_close(db);
    if (!is_at_rest(c))
        return close_really(c);
    sqlite3_wal_hook(db, NULL, NULL);
    sqlite3_db_release_memory(db); /* its pages */
    c->is_parked = true;
    return SQLITE_OK;
}

static void unpark(struct connection *c)
{
    sqlite3_file *file = NULL, *log = NULL;
    (void)sqlite3_file_control(c->db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    (void)sqlite3_file_control(c->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    disk_open_again(file, journal_vfs_below(log));
    c->is_parked = c->is_left = false;
    c->was_parked = true;
}

int kept_open(const char *path, sqlite3 **ret, int flags, const char *vfs)
{
    struct connection *c = connections;
    while (c < connections + CONNECTIONS_MAX && !(disk_is_laid_out() && c->is_parked && c->flags == flags && strcmp(c->path, path) == 0))
        c++;
    if (c < connections + CONNECTIONS_MAX) {
        *ret = c->db;
        unpark(c);
        return SQLITE_OK;
    }
    int status = real_open(path, ret, flags, vfs);
    for (c = connections; c < connections + CONNECTIONS_MAX && c->db;)
        c++;
    if (status == SQLITE_OK && c < connections + CONNECTIONS_MAX)
        *c = (struct connection){.db = *ret, .path = xstrdup(path), .flags = flags};
    return status;
}

/* The one thing that the journal configures; for a change of it SQLite prepares all statements anew. */
int kept_config(sqlite3 *db, int what, ...)
{
    struct connection *c = find(db);
    va_list args;
    va_start(args, what);
    int is_on = va_arg(args, int);
    va_end(args);
    if (what != SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        abort();
    if (!c)
        return real_config(db, what, is_on, NULL);
    c->is_left = is_on;
    return SQLITE_OK;
}

/* ---- statements -------------------------------------------------------------------------------------------------------------- */

static struct kept_statement *find_statement(struct connection *c, const char *sql)
{
    for (struct kept_statement *s = c->statements; s < c->statements + c->n_statements; s++)
        if (!s->is_used && strncmp(s->sql, sql, s->len) == 0 && (s->sql[s->len - 1] == ';' || !sql[s->len]))
            return s;
    return NULL;
}

static int prepare(struct connection *c, const char *sql, unsigned flags, sqlite3_stmt **ret, const char **tail)
{
    const char *end;
    struct kept_statement *kept = find_statement(c, sql);
    if (kept) {
        kept->is_used = true;
        *ret = kept->statement;
        *tail = sql + kept->len;
        return SQLITE_OK;
    }
    int status = real_prepare(c->db, sql, -1, flags, ret, &end);
    *tail = end;
    if (status != SQLITE_OK || !*ret || c->n_statements == STATEMENTS_MAX)
        return status;
    size_t len = (size_t)(end - sql);
    c->statements[c->n_statements++] = (struct kept_statement){.sql = xstrndup(sql, len), .len = len, .statement = *ret, .is_used = true};
    return status;
}

int kept_prepare_v3(sqlite3 *db, const char *sql, int len, unsigned flags, sqlite3_stmt **ret, const char **tail)
{
    const char *end;
    struct connection *c = find(db);
    return c && len < 0 ? prepare(c, sql, flags, ret, tail ? tail : &end) : real_prepare(db, sql, len, flags, ret, tail);
}

int kept_prepare_v2(sqlite3 *db, const char *sql, int len, sqlite3_stmt **ret, const char **tail)
{
    return kept_prepare_v3(db, sql, len, 0, ret, tail);
}

int kept_finalize(sqlite3_stmt *statement)
{
    struct connection *c = statement ? find(sqlite3_db_handle(statement)) : NULL;
    for (size_t i = 0; c && i < c->n_statements; i++)
        if (c->statements[i].statement == statement) {
            c->statements[i].is_used = false;
            sqlite3_clear_bindings(statement);
            return sqlite3_reset(statement);
        }
    return real_finalize(statement);
}

/* One that a connection keeps; said again, it would have all statements prepared anew. */
static size_t setting(const char *sql)
{
    static const char text[] = " PRAGMA query_only = 1;";
    return strncmp(sql, text, sizeof text - 1) == 0 ? sizeof text - 1 : 0;
}

static int run(sqlite3_stmt *statement, on_sql_row *on_row, void *ctx)
{
    bool is_wanted = true;
    while (is_wanted && sqlite3_step(statement) == SQLITE_ROW)
        if (on_row) { /* what the journal asks for so has one column */
            char *value = (char *)(void *)sqlite3_column_text(statement, 0), *name = (char *)(void *)sqlite3_column_name(statement, 0);
            is_wanted = on_row(ctx, 1, &value, &name) == 0;
        }
    int status = kept_finalize(statement); /* of what happened */
    return is_wanted ? status : SQLITE_ABORT;
}

int kept_exec(sqlite3 *db, const char *sql, on_sql_row *on_row, void *ctx, char **message)
{
    struct connection *c = find(db);
    if (!c || message)
        return real_exec(db, sql, on_row, ctx, message);
    int status = SQLITE_OK;
    while (status == SQLITE_OK && *sql) {
        sqlite3_stmt *statement = NULL;
        if (c->was_parked)
            sql += setting(sql);
        status = prepare(c, sql, 0, &statement, &sql);
        if (statement)
            status = run(statement, on_row, ctx);
    }
    return status;
}

/* ---- functions: made once, of another context each time ------------------------------------------------------------------------- */

int kept_function(sqlite3 *db, const char *name, int n_args, int text, void *ctx, on_sql_call *call, on_sql_call *step, void (*final)(sqlite3_context *))
{
    struct connection *c = find(db);
    for (size_t i = 0; c && i < c->n_functions; i++)
        if (strcmp(c->functions[i].name, name) == 0) {
            c->functions[i].ctx = ctx;
            return SQLITE_OK;
        }
    bool is_kept = c && c->n_functions < FUNCTIONS_MAX;
    struct function *function = is_kept ? &c->functions[c->n_functions++] : xcalloc(1, sizeof *function);
    *function = (struct function){.name = name, .ctx = ctx};
    return sqlite3_create_function_v2(db, name, n_args, text, function, call, step, final, is_kept ? NULL : free);
}

void *kept_user_data(sqlite3_context *context) { return ((struct function *)real_user_data(context))->ctx; }
