/* <journal>-head: the end of the chain, written after each commit and before anybody is told of it. SQLite cuts its log at the
 * first frame that is not whole and says nothing: a chain that ends before its head has lost what was committed.
 *
 * It is not synced: after a power cut it may be older than the chain, or torn. It can never be newer, as it is written only when
 * the commit's own sync is over. One line of text, of a fixed length. */
#include "journal_private.h"

#include "base/alloc.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_SIZE 256
#define SUM_SIZE 16u

/* As a log file is opened: with the journal's permissions, without locks. NULL: it is not there, or cannot be opened. */
sqlite3_file *side_open(const char *journal_path, const char *suffix, bool is_written, char **ret_name)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    int is_there = 0;
    /* SQLite's own names are ended twice. */
    size_t size = strlen(journal_path) + strlen(suffix) + 2;
    char *name = xcalloc(1, size);
    snprintf(name, size, "%s%s", journal_path, suffix);
    int flags = SQLITE_OPEN_WAL | (is_written ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY);
    sqlite3_file *file = NULL;
    if (is_written || (vfs->xAccess(vfs, name, SQLITE_ACCESS_EXISTS, &is_there) == SQLITE_OK && is_there)) {
        file = xcalloc(1, (size_t)vfs->szOsFile);
        if (vfs->xOpen(vfs, name, file, flags, NULL) != SQLITE_OK) {
            free(file);
            file = NULL;
        }
    }
    *ret_name = name;
    return file;
}

void side_close(sqlite3_file *file, char *name)
{
    if (file && file->pMethods)
        file->pMethods->xClose(file);
    free(file);
    free(name);
}

static void sum_of(const char *text, size_t len, char ret[2 * SUM_SIZE + 1])
{
    uint8_t sum[SUM_SIZE];
    crypto_generichash(sum, sizeof sum, (const uint8_t *)text, len, NULL, 0);
    sodium_bin2hex(ret, 2 * SUM_SIZE + 1, sum, sizeof sum);
}

bool head_write(struct store *store)
{
    char line[HEAD_SIZE], hash[2 * CHAIN_HASH_SIZE + 1], sum[2 * SUM_SIZE + 1];
    const struct chain *chain = &store->chain;
    if (!store->head)
        store->head = side_open(store->path, "-head", true, &store->head_name);
    if (!store->head)
        return false;
    sodium_bin2hex(hash, sizeof hash, chain->hash, CHAIN_HASH_SIZE);
    int len = snprintf(line, sizeof line, "amesh-journal-head 1 %s %020llu %s ", chain->id, (unsigned long long)chain->n, hash);
    sum_of(line, (size_t)len, sum);
    len += snprintf(line + len, sizeof line - (size_t)len, "%s\n", sum);
    return store->head->pMethods->xWrite(store->head, line, len, 0) == SQLITE_OK;
}

static bool parse_head(char *line, struct head *ret)
{
    char hash[2 * CHAIN_HASH_SIZE + 1], sum[2 * SUM_SIZE + 1], wanted[2 * SUM_SIZE + 1];
    unsigned long long n;
    char *last = strrchr(line, ' ');
    _Static_assert(AMP_ID_SIZE == 32, "the width below");
    if (!last || sscanf(line, "amesh-journal-head 1 %31s %20llu %64s %32s", ret->id, &n, hash, sum) != 4)
        return false;
    sum_of(line, (size_t)(last + 1 - line), wanted);
    ret->n = n;
    return strcmp(sum, wanted) == 0 && sodium_hex2bin(ret->hash, sizeof ret->hash, hash, strlen(hash), NULL, NULL, NULL) == 0;
}

void head_read(const char *journal_path, struct head *ret)
{
    char line[HEAD_SIZE] = "", *name = NULL;
    sqlite3_int64 size = 0;
    *ret = (struct head){.state = HEAD_NONE};
    sqlite3_file *file = side_open(journal_path, "-head", false, &name);
    if (file && file->pMethods->xFileSize(file, &size) == SQLITE_OK && size > 0) {
        int len = size < HEAD_SIZE - 1 ? (int)size : HEAD_SIZE - 1;
        ret->state = file->pMethods->xRead(file, line, len, 0) == SQLITE_OK && parse_head(line, ret) ? HEAD_READ : HEAD_GARBLED;
    }
    side_close(file, name);
}

/* ---- a journal that is not there --------------------------------------------------------------------------------------- */

#define LEFT_SIZE 32u

/* The ends of those names beside the journal that show that there was one. False: there is none. */
static bool find_left(const char *path, char ret[LEFT_SIZE])
{
    static const char *const suffixes[] = {"-head", "-wal", "-shm"};
    size_t len = 0;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char *name = xasprintf("%s%s", path, suffixes[i]);
        struct stat info;
        if (stat(name, &info) == 0 && info.st_size > 0)
            len += (size_t)snprintf(ret + len, LEFT_SIZE - len, "%s%s", len ? ", " : "", suffixes[i]);
        free(name);
    }
    return len > 0;
}

/* Without SQLite, which opens nothing beside a journal that is missing. */
static void read_left(const char *path, struct head *ret)
{
    char line[HEAD_SIZE] = "", *name = xasprintf("%s-head", path);
    FILE *file = fopen(name, "re");
    *ret = (struct head){.state = HEAD_NONE};
    if (file && fgets(line, sizeof line, file))
        ret->state = parse_head(line, ret) ? HEAD_READ : HEAD_GARBLED;
    if (file)
        fclose(file);
    free(name);
}

/* Before anything is opened: a pipe in its place would stop us for ever. */
static enum amp_code check_kinds(const char *path, struct amp_error *reterr)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-head", ".lock"};
    struct stat info;
    enum amp_code code = AMP_OK;
    for (size_t i = 0; code == AMP_OK && i < sizeof suffixes / sizeof *suffixes; i++) {
        char *name = xasprintf("%s%s", path, suffixes[i]);
        if (stat(name, &info) == 0 && !S_ISREG(info.st_mode)) {
            code = amp_error_set(reterr, AMP_JOURNAL, "", "the journal cannot be used: %s is no file, but a %s", name, S_ISDIR(info.st_mode) ? "directory" : S_ISFIFO(info.st_mode) ? "named pipe" : "device");
            amp_error_hint(reterr, "put the file back that was there, or restore a backup: amesh env restore FILE");
        }
        free(name);
    }
    return code;
}

enum amp_code head_check_there(const char *path, struct amp_error *reterr)
{
    struct head head;
    char left[LEFT_SIZE] = "";
    enum amp_code code = check_kinds(path, reterr);
    if (code != AMP_OK)
        return code;
    if (access(path, F_OK) == 0 || !find_left(path, left))
        return AMP_OK;
    read_left(path, &head);
    if (head.state == HEAD_READ)
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is missing, but %s-head knows of %llu committed entries", path, path, (unsigned long long)head.n);
    else
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is missing, but files that were made beside it are there: %s", path, left);
    amp_error_hint(reterr, "put it back, or restore a backup: amesh env restore FILE; to begin anew without what it had, or to import, remove %.120s%s", path, left);
    return AMP_CORRUPT;
}

/* ---- the chain's end against it ------------------------------------------------------------------------------------- */

static enum amp_code AMP_PRINTF(3, 4) damaged(struct amp_error *reterr, const char *path, const char *fmt, ...)
{
    char text[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is damaged: %s", path, text);
    amp_error_hint(reterr, JOURNAL_CORRUPT_HINT);
    return AMP_CORRUPT;
}

/* The last entry must follow from the one before it, or from the base. */
static bool read_end(sqlite3 *db, struct chain *chain, bool *ret_is_sound)
{
    sqlite3_stmt *statement = NULL;
    uint64_t base_n = 0;
    uint8_t before[CHAIN_HASH_SIZE], wanted[CHAIN_HASH_SIZE];
    struct chain_entry entry, last = {0};
    struct amp_buf rows;
    amp_buf_init(&rows, SIZE_MAX / 2);
    bool is_read = chain_base(db, &base_n, before) &&
                   sqlite3_prepare_v2(db, "SELECT n, at, rows, hash FROM chain ORDER BY n DESC LIMIT 2", -1, &statement, NULL) == SQLITE_OK;
    int status = is_read ? chain_read(statement, &entry) : SQLITE_ERROR;
    if (status == SQLITE_ROW) {
        last = entry;
        is_read = amp_buf_append(&rows, entry.rows.data, entry.rows.len) == AMP_OK;
        last.rows = amp_buf_bytes(&rows);
        status = chain_read(statement, &entry);
        if (status == SQLITE_ROW)
            memcpy(before, entry.hash, sizeof before);
    }
    chain_hash(&last, before, wanted);
    bool follows = status == SQLITE_ROW ? entry.n + 1 == last.n : last.n == base_n + 1;
    *ret_is_sound = last.n > 0 && follows && memcmp(wanted, last.hash, sizeof wanted) == 0;
    chain->n = last.n;
    memcpy(chain->hash, last.hash, sizeof chain->hash);
    sqlite3_finalize(statement);
    amp_buf_done(&rows);
    return is_read && (status == SQLITE_ROW || status == SQLITE_DONE);
}

static bool read_id(sqlite3 *db, char ret[AMP_ID_SIZE])
{
    sqlite3_stmt *statement = NULL;
    static const char sql[] = "SELECT value FROM meta WHERE name = 'id' AND seal = row_seal(1, name, value)";
    bool is_read = sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW;
    const char *id = is_read ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    bool is_id = id && amp_id_is_valid(id) && strlen(id) < AMP_ID_SIZE;
    snprintf(ret, AMP_ID_SIZE, "%s", is_id ? id : "");
    sqlite3_finalize(statement);
    return is_id;
}

/* Is the entry that the head names what it says? */
static bool is_entry_of_head(sqlite3 *db, const struct head *head)
{
    sqlite3_stmt *statement = NULL;
    uint64_t base_n = 0;
    uint8_t base[CHAIN_HASH_SIZE];
    if (!chain_base(db, &base_n, base))
        return false;
    if (head->n <= base_n) /* older than what is kept */
        return head->n < base_n || memcmp(base, head->hash, sizeof base) == 0;
    bool is_same = sqlite3_prepare_v2(db, "SELECT hash FROM chain WHERE n = ?1", -1, &statement, NULL) == SQLITE_OK &&
                   sqlite3_bind_int64(statement, 1, (int64_t)head->n) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW &&
                   sqlite3_column_bytes(statement, 0) == CHAIN_HASH_SIZE &&
                   memcmp(sqlite3_column_blob(statement, 0), head->hash, CHAIN_HASH_SIZE) == 0;
    sqlite3_finalize(statement);
    return is_same;
}

enum amp_code chain_check_end(sqlite3 *db, const char *path, const struct head *head, struct chain *chain, struct amp_error *reterr)
{
    bool is_sound = false;
    if (!read_end(db, chain, &is_sound))
        return amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s is damaged: its chain cannot be read: %s", path, sqlite3_errmsg(db));
    if (!is_sound)
        return damaged(reterr, path, "chain entry %llu does not follow from the one before it", (unsigned long long)chain->n);
    if (!read_id(db, chain->id))
        return damaged(reterr, path, "its id is not what was written");
    if (head->state != HEAD_READ || strcmp(head->id, chain->id) != 0)
        return AMP_OK;
    if (head->n > chain->n)
        return damaged(reterr, path, "chain entries from %llu to %llu were committed and are lost", (unsigned long long)chain->n + 1, (unsigned long long)head->n);
    if (!is_entry_of_head(db, head))
        return damaged(reterr, path, "chain entry %llu is not the one that was committed", (unsigned long long)head->n);
    return AMP_OK;
}
