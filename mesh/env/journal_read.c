/* Reading the journal, on the loop, through a connection that cannot write. Statements are made from the query's shape (never
 * from its values) and kept. */
#include "journal_private.h"

#include "base/alloc.h"
#include "base/counters.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum amp_code reader_open(struct reader *reader, const char *path, struct amp_error *reterr)
{
    *reader = (struct reader){0};
    if (sqlite3_open_v2(path, &reader->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK &&
        sqlite3_exec(reader->db, "PRAGMA cache_size = -8192; PRAGMA query_only = 1; SELECT count(*) FROM sqlite_master", NULL, NULL,
                     NULL) == SQLITE_OK &&
        chain_functions(reader->db, NULL) == SQLITE_OK)
        return AMP_OK;
    amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s cannot be read: %s", path,
                  reader->db ? sqlite3_errmsg(reader->db) : "out of memory");
    reader_close(reader);
    return AMP_JOURNAL;
}

void reader_close(struct reader *reader)
{
    for (size_t i = 0; i < reader->n_cache; i++) {
        sqlite3_finalize(reader->cache[i].statement);
        free(reader->cache[i].sql);
    }
    sqlite3_close(reader->db);
    *reader = (struct reader){0};
}

static sqlite3_stmt *reader_prepare(struct reader *reader, const char *sql, struct amp_error *reterr)
{
    for (size_t i = 0; i < reader->n_cache; i++) {
        /* One that is being stepped belongs to a read further up the stack. */
        if (strcmp(reader->cache[i].sql, sql) == 0 && !sqlite3_stmt_busy(reader->cache[i].statement))
            return reader->cache[i].statement;
    }
    if (reader->n_cache == READER_STATEMENTS_MAX) {
        size_t victim = 0;
        while (victim < reader->n_cache && sqlite3_stmt_busy(reader->cache[victim].statement))
            victim++;
        if (victim == reader->n_cache) {
            amp_error_set(reterr, AMP_OVERLOADED, "", "too many reads at once");
            return NULL;
        }
        sqlite3_finalize(reader->cache[victim].statement);
        free(reader->cache[victim].sql);
        reader->cache[victim] = reader->cache[--reader->n_cache];
    }
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v3(reader->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) {
        amp_error_set(reterr, AMP_JOURNAL, "", "the journal cannot be read: %s", sqlite3_errmsg(reader->db));
        return NULL;
    }
    reader->cache[reader->n_cache].sql = xstrdup(sql);
    reader->cache[reader->n_cache++].statement = statement;
    return statement;
}

static void bind(sqlite3_stmt *statement, const char *name, const char *text)
{
    int at = sqlite3_bind_parameter_index(statement, name);
    if (at)
        sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
}

static void bind_int(sqlite3_stmt *statement, const char *name, int64_t value)
{
    int at = sqlite3_bind_parameter_index(statement, name);
    if (at)
        sqlite3_bind_int64(statement, at, value);
}

static const char *text_at(sqlite3_stmt *statement, int at)
{
    const unsigned char *text = sqlite3_column_text(statement, at);
    return text ? (const char *)text : "";
}

static struct amp_bytes bytes_at(sqlite3_stmt *statement, int at)
{
    const void *data = sqlite3_column_blob(statement, at);
    return (struct amp_bytes){.data = data, .len = data ? (size_t)sqlite3_column_bytes(statement, at) : 0};
}

/* Behind a row's own columns: its name if it is not what was written or not what was asked for, and the entry that wrote it. SQLite does not look again at what led it to a row: a damaged page of an index
 * leads it to sound rows of somebody else. */
#define CHECKED(kind, columns, asked, text) ", CASE WHEN seal = row_seal(" kind ", " columns ") AND " asked " THEN NULL ELSE " text " END, entry"
#define CHECKED_EVENTS CHECKED("3", COLUMNS_EVENTS, "task = :task", "'events from ' || seq || ' of task ' || task")
#define CHECKED_KEY CHECKED("4", COLUMNS_KEYS, "sender = :from AND key = :key", "'idempotency key ' || key || ' of ' || sender")
#define CHECKED_KV CHECKED("5", COLUMNS_KV, "scope = :scope AND owner = :owner AND key >= :key", "'value ' || scope || '/' || owner || '/' || key")
#define CHECKED_DEATH(asked) CHECKED("6", COLUMNS_DEATHS, asked, "'death ' || n || ' of ' || agent")

void reader_found(struct reader *reader, const char *what)
{
    counter_add(COUNTER_journal_corrupt, 1);
    snprintf(reader->damage, sizeof reader->damage, "%.*s", JOURNAL_FAILURE_SIZE - 1, what);
}

static enum amp_code corrupt(struct reader *reader, const char *what, int64_t entry)
{
    amp_error_set(&reader->error, AMP_CORRUPT, "", "the journal is damaged: %.200s (chain entry %lld) is not what was written", what, (long long)entry);
    amp_error_hint(&reader->error, JOURNAL_CORRUPT_HINT);
    reader_found(reader, reader->error.message);
    log_event(LOG_ERROR, "journal.corrupt", "row", what, "entry", log_int(entry), NULL);
    return AMP_CORRUPT;
}

static enum amp_code unreadable(struct reader *reader, int status)
{
    enum amp_code code = schema_is_damage(status) ? AMP_CORRUPT : AMP_JOURNAL;
    if (code != AMP_CORRUPT)
        return amp_error_set(&reader->error, code, "", "the journal cannot be read: %s", sqlite3_errmsg(reader->db));
    amp_error_set(&reader->error, code, "", "the journal is damaged, and cannot be read: %s", sqlite3_errmsg(reader->db));
    amp_error_hint(&reader->error, JOURNAL_CORRUPT_HINT);
    reader_found(reader, reader->error.message);
    log_event(LOG_ERROR, "journal.corrupt", "reason", sqlite3_errmsg(reader->db), NULL);
    return code;
}

/* Its name, if it is not what was written. Tasks are sealed over the columns that were fetched, not over the row again: at a start there are 100,000 of them. */
static const char *broken_row(sqlite3_stmt *statement, int at, char name[AMP_NAME_MAX + 8])
{
    if (strcmp(sqlite3_column_name(statement, at), "seal") != 0)
        return (const char *)sqlite3_column_text(statement, at);
    if (chain_is_sealed(statement, CHAIN_TASK))
        return NULL;
    snprintf(name, AMP_NAME_MAX + 8, "task %s", text_at(statement, 0));
    return name;
}

static void fill_damaged(sqlite3_stmt *statement, struct journal_row *row)
{
    row->kind = JOURNAL_TASK;
    row->is_damaged = true;
    row->task = text_at(statement, 0);
    row->at_unix_ms = sqlite3_column_int64(statement, 11);
}

/* Steps through the rows; `fill` makes one from the columns. */
static enum amp_code read_rows(struct reader *reader, sqlite3_stmt *statement,
                               void (*fill)(sqlite3_stmt *statement, struct journal_row *row), journal_on_row *on_row, void *ctx,
                               struct amp_error *reterr)
{
    int status;
    int broken = sqlite3_column_count(statement) - 2;
    enum amp_code code = AMP_OK;
    bool gives_damaged = reader->gives_damaged; /* `on_row` may read, too */
    reader->gives_damaged = false;
    reader->error.code = AMP_OK;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        struct journal_row row = {0};
        char name[AMP_NAME_MAX + 8];
        const char *what = broken_row(statement, broken, name);
        if (what)
            code = corrupt(reader, what, sqlite3_column_int64(statement, broken + 1));
        if (what && !gives_damaged)
            break;
        code = AMP_OK;
        (what ? fill_damaged : fill)(statement, &row);
        if (!on_row(ctx, &row))
            break;
    }
    if (status != SQLITE_DONE && status != SQLITE_ROW)
        code = unreadable(reader, status);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    if (code != AMP_OK && reterr)
        *reterr = reader->error;
    if (code == AMP_OK)
        reader->error.code = AMP_OK;
    return code;
}

static void fill_task(sqlite3_stmt *statement, struct journal_row *row)
{
    row->kind = JOURNAL_TASK;
    row->task = text_at(statement, 0);
    row->context = text_at(statement, 1);
    row->agent = text_at(statement, 2);
    row->skill = text_at(statement, 3);
    row->from = text_at(statement, 4);
    row->parent = text_at(statement, 5);
    row->instance = text_at(statement, 6);
    row->state = sqlite3_column_int(statement, 7);
    row->is_durable = sqlite3_column_int(statement, 8);
    row->is_open = sqlite3_column_int(statement, 9);
    row->is_incomplete = sqlite3_column_int(statement, 10);
    row->at_unix_ms = sqlite3_column_int64(statement, 11);
    row->started_unix_ms = sqlite3_column_int64(statement, 12);
    row->ended_unix_ms = sqlite3_column_int64(statement, 13);
    row->attempt = (uint32_t)sqlite3_column_int64(statement, 14);
    row->count = (uint32_t)sqlite3_column_int64(statement, 15);
    row->attempts = text_at(statement, 16);
    row->request = bytes_at(statement, 17);
    row->body = bytes_at(statement, 18);
}

/* A NULL or "" is no condition. */
static bool is_asked(const char *text)
{
    return text && *text;
}

static void write_conditions(const struct journal_query *query, struct amp_buf *sql)
{
    (void)amp_buf_printf(sql, " FROM tasks WHERE 1%s%s%s%s%s%s%s%s", is_asked(query->task) ? " AND id = :task" : "",
                         is_asked(query->context) ? " AND context = :context" : "", is_asked(query->agent) ? " AND agent = :agent" : "",
                         is_asked(query->parent) ? " AND parent = :parent" : "", query->state ? " AND state = :state" : "",
                         query->only_open ? " AND open = 1" : "", query->only_durable ? " AND durable = 1" : "", query->only_dead ? " AND dead = 1" : "");
}

static void bind_conditions(sqlite3_stmt *statement, const struct journal_query *query)
{
    bind(statement, ":task", query->task);
    bind(statement, ":context", query->context);
    bind(statement, ":agent", query->agent);
    bind(statement, ":parent", query->parent);
    bind_int(statement, ":state", query->state);
}

static uint32_t bounded(uint32_t limit)
{
    return limit && limit < JOURNAL_READ_MAX ? limit : JOURNAL_READ_MAX;
}

static enum amp_code count_rows(struct reader *reader, const char *sql, void (*bind_all)(sqlite3_stmt *, const void *), const void *ctx,
                                uint32_t *ret)
{
    sqlite3_stmt *statement = reader_prepare(reader, sql, &reader->error);
    if (!statement)
        return reader->error.code;
    if (bind_all)
        bind_all(statement, ctx);
    int status = sqlite3_step(statement);
    enum amp_code code = status == SQLITE_ROW ? AMP_OK : unreadable(reader, status);
    *ret = code == AMP_OK ? (uint32_t)sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return code;
}

static void bind_query(sqlite3_stmt *statement, const void *query)
{
    bind_conditions(statement, query);
}

/* Asked for with each direct task that begins, so its text is not made each time. */
static enum amp_code read_task(struct reader *reader, const struct journal_query *query, journal_on_row *on_row, void *ctx, struct amp_error *reterr)
{
    sqlite3_stmt *statement = reader_prepare(reader, "SELECT " COLUMNS_TASKS ", seal, entry FROM tasks WHERE id = :task", reterr);
    if (!statement)
        return AMP_JOURNAL;
    bind(statement, ":task", query->task);
    reader->gives_damaged = query->with_damaged;
    return read_rows(reader, statement, fill_task, on_row, ctx, reterr);
}

/* One task by its id and nothing else? */
static bool is_one(const struct journal_query *query)
{
    return is_asked(query->task) && !is_asked(query->context) && !is_asked(query->agent) && !is_asked(query->parent) && !query->state && !query->only_open &&
           !query->only_durable && !query->only_dead && !query->from_task;
}

enum amp_code journal_tasks(struct journal *journal, const struct journal_query *query, journal_on_row *on_row, void *ctx,
                            uint32_t *ret_total, struct amp_error *reterr)
{
    struct reader *reader = journal_reader(journal);
    if (is_one(query) && !ret_total)
        return read_task(reader, query, on_row, ctx, reterr);
    struct amp_buf sql;
    amp_buf_init(&sql, 4096);
    enum amp_code code = AMP_OK;
    if (ret_total) {
        (void)amp_buf_printf(&sql, "SELECT count(*)");
        write_conditions(query, &sql);
        (void)amp_buf_append(&sql, "", 1);
        code = count_rows(reader, (const char *)sql.data, bind_query, query, ret_total);
        amp_buf_reset(&sql);
        if (code != AMP_OK && reterr)
            *reterr = reader->error;
    }
    (void)amp_buf_printf(&sql, "SELECT " COLUMNS_TASKS ", seal, entry");
    write_conditions(query, &sql);
    const char *order = query->oldest_first ? "ASC" : "DESC";
    if (query->from_task)
        (void)amp_buf_printf(&sql, " AND (submitted, id) %s (:from_ms, :from_task)", query->oldest_first ? ">" : "<");
    (void)amp_buf_printf(&sql, " ORDER BY submitted %s, id %s LIMIT :limit", order, order);
    (void)amp_buf_append(&sql, "", 1);
    sqlite3_stmt *statement = code == AMP_OK ? reader_prepare(reader, (const char *)sql.data, reterr) : NULL;
    amp_buf_done(&sql);
    if (!statement)
        return code == AMP_OK ? AMP_JOURNAL : code;
    bind_conditions(statement, query);
    reader->gives_damaged = query->with_damaged;
    bind_int(statement, ":from_ms", query->from_unix_ms);
    bind(statement, ":from_task", query->from_task);
    bind_int(statement, ":limit", bounded(query->limit));
    return read_rows(reader, statement, fill_task, on_row, ctx, reterr);
}

static void fill_event(sqlite3_stmt *statement, struct journal_row *row)
{
    row->kind = JOURNAL_EVENT;
    row->seq = (uint32_t)sqlite3_column_int64(statement, 0);
    row->count = (uint32_t)sqlite3_column_int64(statement, 1);
    row->at_unix_ms = sqlite3_column_int64(statement, 2);
    row->body = bytes_at(statement, 3);
}

struct in_order {
    journal_on_row *on_row;
    void *ctx;
    uint32_t next, stray; /* stray: a row that came once more, or too late; 0: none */
};

static bool take_in_order(void *ctx, const struct journal_row *row)
{
    struct in_order *order = ctx;
    if (row->seq < order->next) {
        order->stray = row->seq;
        return false;
    }
    order->next = row->seq + row->count;
    return order->on_row(order->ctx, row);
}

enum amp_code journal_events(struct journal *journal, const char *task, uint32_t from_seq, journal_on_row *on_row, void *ctx,
                             struct amp_error *reterr)
{
    struct reader *reader = journal_reader(journal);
    sqlite3_stmt *statement = reader_prepare(reader,
                                             "SELECT seq, count, at, body" CHECKED_EVENTS " FROM events WHERE task = :task AND seq >= coalesce((SELECT"
                                             " max(seq) FROM events WHERE task = :task AND seq <= :from), 0) AND seq + count > :from"
                                             " ORDER BY seq LIMIT :limit",
                                             reterr);
    if (!statement)
        return AMP_JOURNAL;
    bind(statement, ":task", task);
    bind_int(statement, ":from", from_seq);
    bind_int(statement, ":limit", JOURNAL_READ_MAX);
    struct in_order order = {.on_row = on_row, .ctx = ctx};
    enum amp_code code = read_rows(reader, statement, fill_event, take_in_order, &order, reterr);
    if (code != AMP_OK || !order.stray)
        return code;
    char what[AMP_NAME_MAX + 64];
    (void)snprintf(what, sizeof what, "events from %u of task %s, out of their order", order.stray, task);
    code = corrupt(reader, what, 0);
    if (reterr)
        *reterr = reader->error;
    return code;
}

enum amp_code journal_missing(struct journal *journal, const char *task, uint32_t seq, struct amp_error *reterr)
{
    struct amp_error *error = &journal_reader(journal)->error;
    amp_error_set(error, AMP_CORRUPT, "", "the journal is damaged: event %u of task %s is missing", seq, task);
    amp_error_hint(error, JOURNAL_CORRUPT_HINT);
    reader_found(journal_reader(journal), error->message);
    log_event(LOG_ERROR, "journal.corrupt", "row", "an event is missing", "task", task, "event", log_int(seq), NULL);
    if (reterr)
        *reterr = *error;
    return AMP_CORRUPT;
}

static void fill_death(sqlite3_stmt *statement, struct journal_row *row)
{
    row->kind = JOURNAL_DEATH;
    row->agent = text_at(statement, 0);
    row->instance = text_at(statement, 1);
    row->at_unix_ms = sqlite3_column_int64(statement, 2);
    row->body = bytes_at(statement, 3);
}

enum amp_code journal_deaths(struct journal *journal, const char *agent, uint32_t limit, journal_on_row *on_row, void *ctx,
                             struct amp_error *reterr)
{
    struct reader *reader = journal_reader(journal);
    sqlite3_stmt *statement = reader_prepare(reader,
                                             is_asked(agent) ? "SELECT agent, instance, at, body" CHECKED_DEATH("agent = :agent") " FROM deaths WHERE agent = :agent"
                                                               " ORDER BY n DESC LIMIT :limit"
                                                             : "SELECT agent, instance, at, body" CHECKED_DEATH("1") " FROM deaths ORDER BY n DESC LIMIT :limit",
                                             reterr);
    if (!statement)
        return AMP_JOURNAL;
    bind(statement, ":agent", agent);
    bind_int(statement, ":limit", bounded(limit));
    return read_rows(reader, statement, fill_death, on_row, ctx, reterr);
}

/* Was there a row? */
struct found {
    journal_on_row *on_row;
    void *ctx;
    bool is_found;
};

static bool note_row(void *ctx, const struct journal_row *row)
{
    struct found *found = ctx;
    found->is_found = true;
    return found->on_row(found->ctx, row);
}

static void fill_key(sqlite3_stmt *statement, struct journal_row *row)
{
    row->kind = JOURNAL_KEY;
    row->task = text_at(statement, 0);
    row->body = bytes_at(statement, 1);
}

enum amp_code journal_key(struct journal *journal, const char *from, const char *key, journal_on_row *on_row, void *ctx)
{
    struct reader *reader = journal_reader(journal);
    sqlite3_stmt *statement = reader_prepare(reader, "SELECT task, digest" CHECKED_KEY " FROM keys WHERE sender = :from AND key = :key", NULL);
    if (!statement)
        return AMP_JOURNAL;
    bind(statement, ":from", from);
    bind(statement, ":key", key);
    struct found found = {.on_row = on_row, .ctx = ctx};
    enum amp_code code = read_rows(reader, statement, fill_key, note_row, &found, NULL);
    return code == AMP_OK && !found.is_found ? AMP_NOT_FOUND : code;
}

static void fill_kv(sqlite3_stmt *statement, struct journal_row *row)
{
    row->kind = JOURNAL_KV;
    row->key = text_at(statement, 0);
    row->version = (uint32_t)sqlite3_column_int64(statement, 1);
    row->at_unix_ms = sqlite3_column_int64(statement, 2);
    row->body = bytes_at(statement, 3);
}

enum amp_code journal_kv(struct journal *journal, const struct journal_kv_query *query, journal_on_row *on_row, void *ctx)
{
    struct reader *reader = journal_reader(journal);
    /* Keys with a prefix are those between it and it followed by the greatest character. */
    static const char one[] = "SELECT key, version, at, value" CHECKED_KV " FROM kv WHERE scope = :scope AND owner = :owner AND key = :key";
    static const char all[] = "SELECT key, version, at, value" CHECKED_KV " FROM kv WHERE scope = :scope AND owner = :owner AND key >= :key"
                              " AND key < :key || char(1114111) AND key > :after ORDER BY key LIMIT :limit";
    sqlite3_stmt *statement = reader_prepare(reader, query->is_prefix ? all : one, NULL);
    if (!statement)
        return AMP_JOURNAL;
    bind(statement, ":scope", query->scope);
    bind(statement, ":owner", query->owner ? query->owner : "");
    bind(statement, ":key", query->key ? query->key : "");
    bind(statement, ":after", query->after ? query->after : "");
    bind_int(statement, ":limit", JOURNAL_READ_MAX);
    struct found found = {.on_row = on_row, .ctx = ctx};
    enum amp_code code = read_rows(reader, statement, fill_kv, note_row, &found, NULL);
    return code == AMP_OK && !found.is_found ? AMP_NOT_FOUND : code;
}

enum amp_code journal_count(struct journal *journal, struct journal_counts *ret)
{
    struct reader *reader = journal_reader(journal);
    enum amp_code code = count_rows(reader, "SELECT count(*) FROM tasks", NULL, NULL, &ret->tasks);
    if (code == AMP_OK)
        code = count_rows(reader, "SELECT count(*) FROM tasks WHERE open = 1", NULL, NULL, &ret->tasks_open);
    return code;
}

struct kv_place {
    const char *scope, *owner;
};

static void bind_place(sqlite3_stmt *statement, const void *ctx)
{
    const struct kv_place *place = ctx;
    bind(statement, ":scope", place->scope);
    bind(statement, ":owner", place->owner);
}

enum amp_code journal_count_keys(struct journal *journal, const char *scope, const char *owner, uint32_t *ret)
{
    struct kv_place place = {.scope = scope, .owner = owner ? owner : ""};
    return count_rows(journal_reader(journal), "SELECT count(*) FROM kv WHERE scope = :scope AND owner = :owner", bind_place, &place, ret);
}
