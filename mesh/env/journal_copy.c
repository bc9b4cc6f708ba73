/* amesh env backup: a copy of one state of the journal, while an environment writes on. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_PAGES 1024
#define START_MS 100 /* nobody starts an environment more often for long */

enum amp_code journal_open_to_read(const char *path, sqlite3 **ret, struct amp_error *reterr)
{
    int version = 0;
    *ret = NULL;
    if (access(path, R_OK) != 0) {
        amp_error_set(reterr, AMP_NOT_FOUND, "", "there is no journal %s that can be read: %s", path, strerror(errno));
        amp_error_hint(reterr, "name it: --journal FILE, or its home: --home DIR");
        return AMP_NOT_FOUND;
    }
    int status = sqlite3_open_v2(path, ret, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (*ret)
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (status == SQLITE_OK)
        status = chain_functions(*ret, NULL);
    if (status == SQLITE_OK) /* one state, whatever is written meanwhile */
        status = sqlite3_exec(*ret, "BEGIN; SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (status == SQLITE_OK)
        status = schema_version(*ret, &version);
    if (status == SQLITE_OK && version == SCHEMA_VERSION)
        return AMP_OK;
    if (status == SQLITE_OK) {
        amp_error_set(reterr, AMP_JOURNAL, "", "the journal %s is of version %d, this program reads %d", path, version, SCHEMA_VERSION);
        amp_error_hint(reterr, "start this version's environment on it once");
    } else {
        amp_error_set(reterr, AMP_CORRUPT, "", "the journal %s cannot be read: %s", path, *ret ? sqlite3_errmsg(*ret) : "out of memory");
        amp_error_hint(reterr, JOURNAL_CORRUPT_HINT);
    }
    sqlite3_close(*ret);
    *ret = NULL;
    return status == SQLITE_OK ? AMP_JOURNAL : AMP_CORRUPT;
}

static enum amp_code failed(const char *path, const char *why, struct amp_error *reterr)
{
    amp_error_set(reterr, AMP_JOURNAL, "", "the copy %s cannot be written: %s", path, why);
    amp_error_hint(reterr, "check that its directory can be written and has space");
    return AMP_JOURNAL;
}

static enum amp_code copy_pages(sqlite3 *from, const char *path, const struct journal_verify_handlers *handlers, void *ctx, struct amp_error *reterr)
{
    sqlite3 *to = NULL;
    int status = sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    sqlite3_backup *backup = status == SQLITE_OK ? sqlite3_backup_init(to, "main", from, "main") : NULL;
    while (backup && (status = sqlite3_backup_step(backup, STEP_PAGES)) == SQLITE_OK) {
        if (handlers->on_progress)
            handlers->on_progress(ctx, (uint64_t)(sqlite3_backup_pagecount(backup) - sqlite3_backup_remaining(backup)), (uint64_t)sqlite3_backup_pagecount(backup));
    }
    (void)sqlite3_backup_finish(backup);
    enum amp_code code = status == SQLITE_DONE ? AMP_OK : failed(path, to ? sqlite3_errmsg(to) : "out of memory", reterr);
    sqlite3_close(to);
    return code;
}

/* A journal of its own: the head of the one that it replaces some day does not speak of it. */
static enum amp_code give_id(const char *path, int64_t now_unix_ms, struct amp_error *reterr)
{
    struct store store;
    char id[AMP_ID_SIZE], sql[200];
    enum amp_code code = store_open(&store, path, now_unix_ms, reterr);
    if (code != AMP_OK)
        return code;
    amp_id_new('j', now_unix_ms, id);
    snprintf(sql, sizeof sql, "UPDATE meta SET value = '%s', entry = chain_entry(), seal = row_seal(1, name, '%s') WHERE name = 'id'", id, id);
    chain_begin(&store.chain);
    store.chain.is_bulk = true;
    bool is_done = sqlite3_exec(store.db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK && sqlite3_exec(store.db, sql, NULL, NULL, NULL) == SQLITE_OK &&
                   chain_add(&store, now_unix_ms) && sqlite3_exec(store.db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
    if (!is_done)
        code = failed(path, sqlite3_errmsg(store.db), reterr);
    store_close(&store);
    return code;
}

static void remove_beside(const char *path, const char *suffix)
{
    char *name = xasprintf("%s%s", path, suffix);
    (void)unlink(name);
    free(name);
}

/* The file and its name, on the disk. */
static bool sync_file(const char *path)
{
    char *copy = xstrdup(path);
    int fd = open(path, O_RDONLY | O_CLOEXEC), dir_fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_synced = fd >= 0 && dir_fd >= 0 && fsync(fd) == 0 && fsync(dir_fd) == 0;
    if (fd >= 0)
        close(fd);
    if (dir_fd >= 0)
        close(dir_fd);
    free(copy);
    return is_synced;
}

enum amp_code journal_backup(const char *path, const char *to, int64_t now_unix_ms, const struct journal_verify_handlers *handlers, void *ctx,
                             struct journal_report *ret, struct amp_error *reterr)
{
    sqlite3 *from = NULL;
    enum amp_code code = journal_open_to_read(path, &from, reterr);
    if (code != AMP_OK)
        return code;
    int fd = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        code = errno == EEXIST ? AMP_CONFLICT : AMP_JOURNAL;
        amp_error_set(reterr, code, "", "%s cannot be made: %s", to, strerror(errno));
        amp_error_hint(reterr, "name a file that is not there yet, in a directory that can be written");
    } else {
        close(fd);
        code = copy_pages(from, to, handlers, ctx, reterr);
        if (code == AMP_OK)
            code = give_id(to, now_unix_ms, reterr);
        if (code == AMP_OK && !sync_file(to))
            code = failed(to, strerror(errno), reterr);
        if (code == AMP_OK)
            code = journal_verify(to, handlers, ctx, ret, reterr);
        remove_beside(to, "-head"); /* a copy is moved about as one file */
        remove_beside(to, "-wal"); /* empty: reading it made them */
        remove_beside(to, "-shm");
        if (code != AMP_OK && code != AMP_CORRUPT)
            (void)unlink(to);
    }
    sqlite3_close(from);
    return code;
}

/* ---- and back ----------------------------------------------------------------------------------------------------------- */

static enum amp_code move_aside(const char *path, int64_t now_unix_ms, struct amp_error *reterr)
{
    static const char *const suffixes[] = {"-wal", "-head", ""}; /* the file last: until then a start refuses, and does not begin anew */
    enum amp_code code = AMP_OK;
    for (size_t i = 0; code == AMP_OK && i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char *from = xasprintf("%s%s", path, suffixes[i]), *to = xasprintf("%s.%lld%s", path, (long long)now_unix_ms, suffixes[i]);
        if (rename(from, to) != 0 && errno != ENOENT)
            code = amp_error_set(reterr, AMP_JOURNAL, "", "%s cannot be moved aside: %s", from, strerror(errno));
        free(from);
        free(to);
    }
    remove_beside(path, "-shm");
    return code;
}

/* The number of the newest environment that can have leased anything. What was started after the backup was made is not in it, and the journal that is replaced may be lost
 * or unreadable: as many numbers are left out as there can have been starts. */
static uint32_t find_boot(const char *path, const char *from, int64_t now_unix_ms)
{
    const char *const paths[] = {path, from};
    int64_t newest = 0;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        sqlite3 *db = NULL;
        int64_t at_unix_ms = 0;
        if (journal_open_to_read(paths[i], &db, NULL) != AMP_OK)
            continue;
        int64_t boot = boot_known(db, &at_unix_ms);
        if (i == 1 && at_unix_ms > 0 && at_unix_ms < now_unix_ms)
            boot += (now_unix_ms - at_unix_ms) / START_MS + 1;
        newest = boot > newest ? boot : newest;
        sqlite3_close(db);
    }
    return newest > JOURNAL_BOOT_MAX ? JOURNAL_BOOT_MAX : (uint32_t)newest;
}

static enum amp_code make_head(const char *path, uint32_t boot, int64_t now_unix_ms, struct amp_error *reterr)
{
    struct store store;
    enum amp_code code = store_open(&store, path, now_unix_ms, reterr);
    if (code != AMP_OK)
        return code;
    chain_begin(&store.chain);
    bool is_done = sqlite3_exec(store.db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK && boot_raise(&store, boot, now_unix_ms) && chain_add(&store, now_unix_ms) &&
                   sqlite3_exec(store.db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
    if (is_done)
        chain_committed(&store.chain);
    if (!is_done || !head_write(&store))
        code = failed(path, sqlite3_errmsg(store.db), reterr);
    store_close(&store);
    return code;
}

enum amp_code journal_restore(const char *path, const char *from, int64_t now_unix_ms, struct journal_report *ret, struct amp_error *reterr)
{
    static const struct journal_verify_handlers none = {0};
    int lock_fd = -1;
    enum amp_code code = journal_verify(from, &none, NULL, ret, reterr);
    if (code == AMP_OK)
        code = journal_lock(path, &lock_fd, reterr);
    uint32_t boot = code == AMP_OK ? find_boot(path, from, now_unix_ms) : 0;
    if (code == AMP_OK)
        code = move_aside(path, now_unix_ms, reterr);
    if (code == AMP_OK)
        code = journal_backup(from, path, now_unix_ms, &none, NULL, ret, reterr);
    if (code == AMP_OK)
        code = make_head(path, boot, now_unix_ms, reterr);
    if (lock_fd >= 0)
        close(lock_fd);
    return code;
}
