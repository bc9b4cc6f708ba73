/* amesh env verify: everything against everything. Each row against its seal, its seal against the newest chain entry that has its
 * key, the chain's hashes, each key of the chain against the tables (a row that is gone is seen there), the numbers of events, and
 * SQLite's own structures. Reads one state of the file, in one read transaction; an environment may write on meanwhile. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_KEYS 4000000u   /* keys of the chain that are held at once: of a larger journal it is read several times */
#define PROGRESS_ROWS 100000u
#define FINDINGS_MAX 1000u

struct slot { /* of one key, what the newest entry that has it says */
    uint8_t key[CHAIN_SEAL_SIZE], seal[CHAIN_SEAL_SIZE];
    uint64_t entry;
    uint8_t kind; /* 0: free */
    bool is_seen;
};

struct verify {
    sqlite3 *db;
    const char *path;
    const struct journal_verify_handlers *handlers;
    void *ctx;
    struct journal_report *report;
    struct slot *slots;
    size_t n_slots, cap_slots; /* cap: a power of two */
    unsigned part, n_parts;
    uint64_t n_done;
    bool has_head; /* then something was committed */
};

static void AMP_PRINTF(5, 6) find(struct verify *verify, const char *table, const char *row, uint64_t entry, const char *fmt, ...)
{
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct journal_finding finding = {.table = table, .row = row, .entry = entry, .text = text};
    if (verify->report->findings++ < FINDINGS_MAX && verify->handlers->on_finding)
        verify->handlers->on_finding(verify->ctx, &finding);
}

static void progress(struct verify *verify)
{
    if (++verify->n_done % PROGRESS_ROWS == 0 && verify->handlers->on_progress)
        verify->handlers->on_progress(verify->ctx, verify->n_done, verify->report->rows * verify->n_parts);
}

static bool prepare(struct verify *verify, const char *sql, sqlite3_stmt **ret)
{
    if (sqlite3_prepare_v2(verify->db, sql, -1, ret, NULL) == SQLITE_OK)
        return true;
    find(verify, "", "", 0, "it cannot be read: %s", sqlite3_errmsg(verify->db));
    return false;
}

/* The end of a statement that reads. */
static void finish(struct verify *verify, sqlite3_stmt *statement, int status, const char *table)
{
    if (status != SQLITE_DONE)
        find(verify, table, "", 0, "it cannot be read to its end: %s", sqlite3_errmsg(verify->db));
    sqlite3_finalize(statement);
}

/* ---- the chain -------------------------------------------------------------------------------------------------------- */

static struct slot *slot_of(struct verify *verify, uint8_t kind, const uint8_t *key)
{
    size_t at;
    memcpy(&at, key, sizeof at);
    for (at &= verify->cap_slots - 1;; at = (at + 1) & (verify->cap_slots - 1)) {
        struct slot *slot = &verify->slots[at];
        if (!slot->kind || (slot->kind == kind && memcmp(slot->key, key, CHAIN_SEAL_SIZE) == 0))
            return slot;
    }
}

static void grow(struct verify *verify)
{
    struct slot *old = verify->slots;
    size_t count = verify->cap_slots;
    verify->cap_slots = count ? 2 * count : 4096;
    verify->slots = xcalloc(verify->cap_slots, sizeof *verify->slots);
    for (size_t i = 0; i < count; i++)
        if (old[i].kind)
            *slot_of(verify, old[i].kind, old[i].key) = old[i];
    free(old);
}

static bool is_of_part(const struct verify *verify, const uint8_t *key)
{
    return key[CHAIN_SEAL_SIZE - 1] % verify->n_parts == verify->part;
}

static void note_rows(struct verify *verify, const struct chain_entry *entry)
{
    for (size_t at = 0; at + CHAIN_ROW_SIZE <= entry->rows.len; at += CHAIN_ROW_SIZE) {
        const uint8_t *row = entry->rows.data + at;
        if (!is_of_part(verify, row + 1))
            continue;
        if (2 * verify->n_slots >= verify->cap_slots)
            grow(verify);
        struct slot *slot = slot_of(verify, row[0], row + 1);
        verify->n_slots += !slot->kind;
        slot->kind = row[0];
        slot->entry = entry->n;
        memcpy(slot->key, row + 1, CHAIN_SEAL_SIZE);
        memcpy(slot->seal, row + 1 + CHAIN_SEAL_SIZE, CHAIN_SEAL_SIZE);
    }
}

static void check_entry(struct verify *verify, const struct chain_entry *entry, uint64_t n_before, const uint8_t before[CHAIN_HASH_SIZE])
{
    uint8_t wanted[CHAIN_HASH_SIZE];
    chain_hash(entry, before, wanted);
    if (entry->n != n_before + 1)
        find(verify, "chain", "", entry->n, "entries from %llu to %llu are missing", (unsigned long long)n_before + 1, (unsigned long long)entry->n - 1);
    else if (memcmp(wanted, entry->hash, sizeof wanted) != 0 || entry->rows.len % CHAIN_ROW_SIZE != 0)
        find(verify, "chain", "", entry->n, "the entry is not what was written, or the one before it is not");
}

static void read_chain(struct verify *verify)
{
    sqlite3_stmt *statement = NULL;
    struct chain_entry entry;
    uint64_t n = 0;
    uint8_t before[CHAIN_HASH_SIZE];
    int status;
    if (!chain_base(verify->db, &n, before))
        find(verify, "meta", "setting base", 0, "where the chain begins cannot be read");
    if (!prepare(verify, "SELECT n, at, rows, hash FROM chain ORDER BY n", &statement))
        return;
    while ((status = chain_read(statement, &entry)) == SQLITE_ROW) {
        if (verify->part == 0) {
            check_entry(verify, &entry, n, before);
            verify->report->entries++;
        }
        note_rows(verify, &entry);
        n = entry.n;
        memcpy(before, entry.hash, sizeof before);
    }
    finish(verify, statement, status, "chain");
}

/* ---- rows -------------------------------------------------------------------------------------------------------------- */

static bool is_equal(sqlite3_stmt *statement, int at, const uint8_t seal[CHAIN_SEAL_SIZE])
{
    const void *data = sqlite3_column_blob(statement, at);
    return data && sqlite3_column_bytes(statement, at) == CHAIN_SEAL_SIZE && memcmp(data, seal, CHAIN_SEAL_SIZE) == 0;
}

static void check_row(struct verify *verify, sqlite3_stmt *statement, int kind)
{
    static const uint8_t gone[CHAIN_SEAL_SIZE];
    uint8_t key[CHAIN_SEAL_SIZE], seal[CHAIN_SEAL_SIZE];
    const char *table = chain_tables[kind].name, *row = (const char *)sqlite3_column_text(statement, 4);
    uint64_t entry = (uint64_t)sqlite3_column_int64(statement, 3);
    memcpy(key, sqlite3_column_blob(statement, 0), sizeof key);
    memcpy(seal, sqlite3_column_blob(statement, 1), sizeof seal);
    if (!is_of_part(verify, key))
        return;
    progress(verify);
    struct slot *slot = verify->cap_slots ? slot_of(verify, (uint8_t)kind, key) : NULL;
    if (!is_equal(statement, 2, seal))
        find(verify, table, row, entry, "its content is not what was written");
    else if (!slot || !slot->kind)
        find(verify, table, row, entry, "no chain entry knows it");
    else if (memcmp(slot->seal, gone, sizeof gone) == 0)
        find(verify, table, row, slot->entry, "it was removed and is there again");
    else if (memcmp(slot->seal, seal, sizeof seal) != 0)
        find(verify, table, row, slot->entry, "it is an older state: the one that this entry wrote is lost");
    else if (slot->entry != entry)
        find(verify, table, row, slot->entry, "it names entry %llu as its own", (unsigned long long)entry);
    if (slot)
        slot->is_seen = true;
}

static void read_table(struct verify *verify, int kind)
{
    const struct chain_table *table = &chain_tables[kind];
    char sql[1024], keys[64] = "";
    sqlite3_stmt *statement = NULL;
    const char *end = table->columns;
    for (unsigned i = 0; i < table->n_key; i++)
        end += strcspn(end + (i > 0), ",") + (i > 0);
    snprintf(keys, sizeof keys, "%.*s", (int)(end - table->columns), table->columns);
    snprintf(sql, sizeof sql, "SELECT row_key(%d, %s), row_seal(%d, %s), seal, entry, %s FROM %s NOT INDEXED", kind, keys, kind, table->columns, table->text, table->name);
    if (!prepare(verify, sql, &statement))
        return;
    int status;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW)
        check_row(verify, statement, kind);
    finish(verify, statement, status, table->name);
}

static void report_missing(struct verify *verify)
{
    static const uint8_t gone[CHAIN_SEAL_SIZE];
    for (size_t i = 0; i < verify->cap_slots; i++) {
        const struct slot *slot = &verify->slots[i];
        if (!slot->kind || slot->is_seen || memcmp(slot->seal, gone, sizeof gone) == 0)
            continue;
        const char *table = slot->kind < CHAIN_KINDS && chain_tables[slot->kind].name ? chain_tables[slot->kind].name : "";
        find(verify, table, "", slot->entry, "a row that this entry wrote is missing");
    }
}

static void check_rows(struct verify *verify)
{
    verify->n_parts = (unsigned)(verify->report->rows / PART_KEYS) + 1;
    if (verify->n_parts > 256)
        verify->n_parts = 256;
    for (verify->part = 0; verify->part < verify->n_parts; verify->part++) {
        verify->n_slots = 0;
        free(verify->slots);
        verify->slots = NULL;
        verify->cap_slots = 0;
        read_chain(verify);
        for (int kind = 1; kind < CHAIN_KINDS; kind++)
            read_table(verify, kind);
        report_missing(verify);
    }
}

/* ---- what rows say together ------------------------------------------------------------------------------------------- */

/* Events are numbered without a gap, and a task's summary knows how many there are. Of a direct task seen in part some may be missing. */
static void check_events(struct verify *verify)
{
    static const char sql[] = "SELECT e.task, e.seq, lag(e.seq + e.count, 1, 1) OVER (PARTITION BY e.task ORDER BY e.seq), e.entry FROM events e";
    static const char counts[] = "SELECT t.id, t.events, t.entry, (SELECT e.seq + e.count - 1 FROM events e WHERE e.task = t.id ORDER BY e.seq DESC LIMIT 1)"
                                 " FROM tasks t";
    sqlite3_stmt *statement = NULL;
    int status = SQLITE_DONE;
    if (!prepare(verify, sql, &statement))
        return;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        if (sqlite3_column_int64(statement, 1) != sqlite3_column_int64(statement, 2))
            find(verify, "events", (const char *)sqlite3_column_text(statement, 0), (uint64_t)sqlite3_column_int64(statement, 3),
                 "events of this task go on with %lld where %lld is next", sqlite3_column_int64(statement, 1), sqlite3_column_int64(statement, 2));
    }
    finish(verify, statement, status, "events");
    if (!prepare(verify, counts, &statement))
        return;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        if (sqlite3_column_int64(statement, 1) != sqlite3_column_int64(statement, 3))
            find(verify, "tasks", (const char *)sqlite3_column_text(statement, 0), (uint64_t)sqlite3_column_int64(statement, 2),
                 "it has %lld events, but the last one that is there is %lld", sqlite3_column_int64(statement, 1), sqlite3_column_int64(statement, 3));
    }
    finish(verify, statement, status, "tasks");
}

/* A damaged index would let readers miss rows. */
static void check_structure(struct verify *verify)
{
    sqlite3_stmt *statement = NULL;
    if (!prepare(verify, "PRAGMA integrity_check(100)", &statement))
        return;
    int status;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        if (text && strcmp(text, "ok") != 0)
            find(verify, "", "", 0, "%s", text);
    }
    finish(verify, statement, status, "");
}

/* The schema's text is in the file too: against that of a new journal. */
static void check_schema(struct verify *verify)
{
    static const char sql[] = "SELECT type || ' ' || name || ' ' || tbl_name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
    struct store made = {0};
    sqlite3_stmt *here = NULL, *wanted = NULL;
    int version = 0;
    chain_init(&made.chain);
    if (sqlite3_open_v2(":memory:", &made.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, "unix") == SQLITE_OK && chain_functions(made.db, &made.chain) == SQLITE_OK &&
        schema_upgrade(&made, &version, 0) == SQLITE_OK && sqlite3_prepare_v2(made.db, sql, -1, &wanted, NULL) == SQLITE_OK && prepare(verify, sql, &here)) {
        int status, status_wanted;
        bool is_same = true;
        do {
            status = sqlite3_step(here);
            status_wanted = sqlite3_step(wanted);
            is_same = status == status_wanted &&
                      (status != SQLITE_ROW || strcmp((const char *)sqlite3_column_text(here, 0), (const char *)sqlite3_column_text(wanted, 0)) == 0);
        } while (is_same && status == SQLITE_ROW);
        if (!is_same)
            find(verify, "sqlite_schema", "", 0, "its tables are not those of a journal of version %d", SCHEMA_VERSION);
    }
    sqlite3_finalize(here);
    sqlite3_finalize(wanted);
    sqlite3_finalize(made.chain.insert);
    sqlite3_close(made.db);
    chain_done(&made.chain);
}

static void count_rows(struct verify *verify)
{
    for (int kind = 1; kind < CHAIN_KINDS; kind++) {
        char sql[96];
        sqlite3_stmt *statement = NULL;
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", chain_tables[kind].name);
        if (prepare(verify, sql, &statement) && sqlite3_step(statement) == SQLITE_ROW)
            verify->report->rows += (uint64_t)sqlite3_column_int64(statement, 0);
        sqlite3_finalize(statement);
    }
}

static void count_incomplete(struct verify *verify)
{
    sqlite3_stmt *statement = NULL;
    if (prepare(verify, "SELECT count(*) FROM tasks WHERE incomplete = 1", &statement) && sqlite3_step(statement) == SQLITE_ROW)
        verify->report->incomplete = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------- */

bool journal_is_running(const char *path)
{
    char *name = xasprintf("%s.lock", path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    bool is_running = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    free(name);
    return is_running;
}

/* SQLite would throw such a log away. */
static bool is_log_alone(const struct verify *verify)
{
    struct stat log;
    char *name = xasprintf("%s-wal", verify->path);
    bool is_alone = verify->report->bytes == 0 && stat(name, &log) == 0 && log.st_size > 0;
    free(name);
    return is_alone;
}

static void check_log(struct verify *verify)
{
    struct wal_scan wal;
    if (verify->report->is_running) /* it is being written */
        return;
    wal_scan(verify->path, &wal);
    verify->report->frames_cut = wal.frames_cut;
    uint32_t missing = wal_missing(verify->path, &wal);
    if (is_log_alone(verify))
        find(verify, "", "", 0, "it is empty, but its log (-wal) is not");
    else if (missing > 0)
        find(verify, "", "", 0, "it was cut: page %u of %u stands neither in it nor in its log (-wal)", missing, wal.pages);
    if (wal.commits_behind > 1)
        find(verify, "", "", 0, "frame %u of its log (-wal) is not what was written, and %u transactions stand behind it", wal.first_bad, wal.commits_behind);
}

static void check_all(struct verify *verify, const struct head *head)
{
    struct journal_report *report = verify->report;
    struct amp_error err = {0};
    struct chain chain = {0};
    if (chain_check_end(verify->db, verify->path, head, &chain, &err) != AMP_OK)
        find(verify, "chain", "", chain.n, "%s", err.message);
    snprintf(report->id, sizeof report->id, "%s", chain.id);
    report->n = chain.n;
    sodium_bin2hex(report->hash, sizeof report->hash, chain.hash, sizeof chain.hash);
    report->has_head = head->state == HEAD_READ && strcmp(head->id, chain.id) == 0;
    check_schema(verify);
    check_structure(verify);
    count_rows(verify);
    count_incomplete(verify);
    check_rows(verify);
    check_events(verify);
}

/* One that says that it is older than chains, and is not. */
static bool has_chain(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    bool is_there = sqlite3_prepare_v2(db, "SELECT 1 FROM sqlite_schema WHERE name = 'chain'", -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW;
    sqlite3_finalize(statement);
    return is_there;
}

/* Without a version, and without a table that would have one. */
static bool is_empty(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    bool has_none = sqlite3_prepare_v2(db, "SELECT 1 FROM sqlite_schema", -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_DONE;
    sqlite3_finalize(statement);
    return has_none;
}

static enum amp_code open_file(struct verify *verify, struct amp_error *reterr)
{
    int version = 0;
    int status = journal_open_file(verify->path, &verify->db);
    if (status == SQLITE_OK)
        status = chain_functions(verify->db, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_exec(verify->db, "PRAGMA cache_size = -65536; BEGIN", NULL, NULL, NULL);
    if (status == SQLITE_OK)
        status = schema_version(verify->db, &version);
    if (schema_is_damage(status)) {
        find(verify, "", "", 0, "it is no journal any more: %s", sqlite3_errmsg(verify->db));
        return AMP_CORRUPT;
    }
    if (status != SQLITE_OK) {
        amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s cannot be read: %s", verify->path, verify->db ? sqlite3_errmsg(verify->db) : "out of memory");
        amp_error_hint(reterr, JOURNAL_UNREAD_HINT);
        return AMP_JOURNAL;
    }
    if (version > 0 && version < SCHEMA_CHAINED && !has_chain(verify->db)) {
        amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s is of version %d, which has no chain", verify->path, version);
        amp_error_hint(reterr, "start this version's environment on it once, which makes one");
        return AMP_JOURNAL;
    }
    verify->report->is_empty = version == 0 && !verify->has_head && verify->report->findings == 0 && is_empty(verify->db);
    if (version != SCHEMA_VERSION && !verify->report->is_empty) {
        find(verify, "", "", 0, "it says that its version is %d, this program knows %d", version, SCHEMA_VERSION);
        return AMP_CORRUPT;
    }
    return AMP_OK;
}

enum amp_code journal_verify(const char *path, const struct journal_verify_handlers *handlers, void *ctx, struct journal_report *ret, struct amp_error *reterr)
{
    struct verify verify = {.path = path, .handlers = handlers, .ctx = ctx, .report = ret};
    struct stat info;
    struct head head;
    *ret = (struct journal_report){0};
    enum amp_code code = restore_settle(path, reterr);
    if (code != AMP_OK)
        return code;
    if ((code = head_check_there(path, reterr)) != AMP_OK) {
        find(&verify, "", "", 0, "%s", reterr->message);
        return code;
    }
    if (stat(path, &info) != 0) {
        amp_error_set(reterr, AMP_NOT_FOUND, "", "there is no journal %s: %s", path, strerror(errno));
        amp_error_hint(reterr, "name it: --journal FILE, or its home: --home DIR");
        return AMP_NOT_FOUND;
    }
    ret->bytes = (uint64_t)info.st_size;
    ret->is_running = journal_is_running(path);
    head_read(path, &head); /* before the state that is read: it may be older than that, never newer */
    verify.has_head = head.state != HEAD_NONE;
    check_log(&verify);
    code = open_file(&verify, reterr);
    if (code == AMP_OK && !ret->is_empty)
        check_all(&verify, &head);
    journal_close_file(path, verify.db);
    free(verify.slots);
    if (code != AMP_OK && code != AMP_CORRUPT)
        return code;
    if (ret->findings == 0)
        return AMP_OK;
    amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is damaged: %llu finding%s", path, (unsigned long long)ret->findings, ret->findings == 1 ? "" : "s");
    amp_error_hint(reterr, JOURNAL_CORRUPT_HINT);
    return AMP_CORRUPT;
}
