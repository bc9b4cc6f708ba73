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

enum amp_code journal_open_to_read(const char *path, sqlite3 **ret, struct amp_error *reterr)
{
    int version = 0;
    *ret = NULL;
    enum amp_code code = restore_settle(path, reterr);
    if (code != AMP_OK)
        return code;
    if ((code = head_check_there(path, reterr)) != AMP_OK)
        return code;
    if (access(path, R_OK) != 0) {
        amp_error_set(reterr, AMP_NOT_FOUND, "", "there is no journal %s that can be read: %s", path, strerror(errno));
        amp_error_hint(reterr, "name it: --journal FILE, or its home: --home DIR");
        return AMP_NOT_FOUND;
    }
    int status = journal_open_file(path, ret);
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
        code = schema_is_damage(status) ? AMP_CORRUPT : AMP_JOURNAL;
        amp_error_set(reterr, code, "", "the journal %s cannot be read: %s", path, *ret ? sqlite3_errmsg(*ret) : "out of memory");
        amp_error_hint(reterr, code == AMP_CORRUPT ? JOURNAL_CORRUPT_HINT : JOURNAL_UNREAD_HINT);
    }
    journal_close_file(path, *ret);
    *ret = NULL;
    return status == SQLITE_OK ? AMP_JOURNAL : code;
}

enum amp_code journal_copy_failed(const char *path, const char *why, struct amp_error *reterr)
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
    enum amp_code code = status == SQLITE_DONE ? AMP_OK : journal_copy_failed(path, to ? sqlite3_errmsg(to) : "out of memory", reterr);
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
        code = journal_copy_failed(path, sqlite3_errmsg(store.db), reterr);
    store_close(&store);
    return code;
}

void journal_remove_beside(const char *path, const char *suffix)
{
    char *name = xasprintf("%s%s", path, suffix);
    (void)unlink(name);
    free(name);
}

bool journal_sync_directory(const char *path)
{
    char *copy = xstrdup(path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_synced = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    free(copy);
    return is_synced;
}

bool journal_sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is_synced = fd >= 0 && fsync(fd) == 0 && journal_sync_directory(path);
    if (fd >= 0)
        close(fd);
    return is_synced;
}

bool journal_is_one_file(const char *path)
{
    char *name = xasprintf("%s-wal", path);
    struct stat info;
    bool has_log = stat(name, &info) == 0 && info.st_size > 0;
    free(name);
    return !has_log;
}

enum amp_code journal_copy(const char *path, const char *to, const struct journal_copy_options *options, struct journal_report *ret, struct amp_error *reterr)
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
        code = copy_pages(from, to, options->handlers, options->ctx, reterr);
        if (code == AMP_OK)
            code = give_id(to, options->now_unix_ms, reterr);
        if (code == AMP_OK && !journal_is_one_file(to))
            code = journal_copy_failed(to, "its log (-wal) stays", reterr);
        if (code == AMP_OK && !journal_sync_file(to))
            code = journal_copy_failed(to, strerror(errno), reterr);
        if (code == AMP_OK)
            code = journal_verify(to, options->handlers, options->ctx, ret, reterr);
        if (code == AMP_OK && options->has_files)
            code = journal_copy_files(path, to, to, reterr);
        journal_remove_beside(to, "-head"); /* a copy is moved about as one file */
        if (code != AMP_OK && code != AMP_CORRUPT)
            (void)unlink(to);
    }
    journal_close_file(path, from);
    return code;
}

enum amp_code journal_backup(const char *path, const char *to, int64_t now_unix_ms, const struct journal_verify_handlers *handlers, void *ctx,
                             struct journal_report *ret, struct amp_error *reterr)
{
    const struct journal_copy_options options = {.now_unix_ms = now_unix_ms, .has_files = true, .handlers = handlers, .ctx = ctx};
    enum amp_code code = journal_copy(path, to, &options, ret, reterr);
    if (code != AMP_OK || ret->is_empty)
        return code;
    return journal_verify_files(to, handlers, ctx, ret, reterr);
}
