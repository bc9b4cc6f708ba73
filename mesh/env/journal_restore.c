/* amesh env restore: a backup becomes the journal, or everything stays as it was, wherever that is cut short. The new journal is made and checked beside the old one. With its
 * second name, -restored, it is the journal: whoever wants to use that next, after a kill or a power cut too, puts it into its place first. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define START_MS 100 /* nobody starts an environment more often for long */
#define MAKING "-restoring"
#define MADE "-restored"

/* Renames <path><from> to <path><to>; what is not there was renamed before. */
static enum amp_code move(const char *path, const char *from, const char *to, struct amp_error *reterr)
{
    char *old = xasprintf("%s%s", path, from), *new = xasprintf("%s%s", path, to);
    enum amp_code code = AMP_OK;
    if (rename(old, new) != 0 && errno != ENOENT) {
        code = amp_error_set(reterr, AMP_JOURNAL, "", "%s cannot be renamed to %s: %s", old, new, strerror(errno));
        amp_error_hint(reterr, "check that its directory can be written; amesh env restore goes on where it stopped");
    }
    free(old);
    free(new);
    return code;
}

/* ---- the new one into its place ------------------------------------------------------------------------------------------ */

static int64_t made_unix_ms(const char *path)
{
    char *name = xasprintf("%s" MADE, path);
    struct stat info;
    bool is_there = stat(name, &info) == 0;
    free(name);
    return is_there ? (int64_t)info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1000000 : 0;
}

/* Each step may be done already: what is moved aside gets the same names again. */
enum amp_code restore_finish(const char *path, struct amp_error *reterr)
{
    static const char *const suffixes[] = {"-head", "-wal", ""};
    int64_t at_unix_ms = made_unix_ms(path);
    enum amp_code code = AMP_OK;
    if (at_unix_ms == 0)
        return AMP_OK;
    for (size_t i = 0; code == AMP_OK && i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char *aside = xasprintf(".%lld%s", (long long)at_unix_ms, suffixes[i]);
        code = move(path, suffixes[i], aside, reterr);
        free(aside);
    }
    journal_remove_beside(path, "-shm");
    if (code == AMP_OK && !journal_sync_directory(path)) /* the old log must not be found beside the new file */
        code = journal_copy_failed(path, strerror(errno), reterr);
    if (code == AMP_OK)
        code = move(path, MADE, "", reterr);
    if (code == AMP_OK)
        code = move(path, MADE "-head", "-head", reterr); /* one without a head is sound, too */
    if (code == AMP_OK && !journal_sync_directory(path))
        code = journal_copy_failed(path, strerror(errno), reterr);
    return code;
}

enum amp_code restore_settle(const char *path, struct amp_error *reterr)
{
    int lock_fd = -1;
    enum amp_code code = made_unix_ms(path) > 0 ? journal_lock(path, &lock_fd, reterr) : AMP_OK;
    if (code == AMP_RUNNING) {
        amp_error_set(reterr, code, "", "the journal %s is being restored", path);
        amp_error_hint(reterr, "try again in a moment");
    }
    if (lock_fd >= 0)
        close(lock_fd);
    return code;
}

/* ---- made beside the old one --------------------------------------------------------------------------------------------- */

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
        journal_close_file(paths[i], db);
    }
    return newest > JOURNAL_BOOT_MAX ? JOURNAL_BOOT_MAX : (uint32_t)newest;
}

struct boot_change {
    uint32_t boot;
    int64_t now_unix_ms;
};

static bool raise_boot(struct store *store, void *ctx)
{
    const struct boot_change *change = ctx;
    return boot_raise(store, change->boot, change->now_unix_ms);
}

static enum amp_code make_head(const char *path, uint32_t boot, int64_t now_unix_ms, struct amp_error *reterr)
{
    struct store store;
    enum amp_code code = store_open(&store, path, now_unix_ms, reterr);
    if (code != AMP_OK)
        return code;
    struct boot_change change = {.boot = boot, .now_unix_ms = now_unix_ms};
    if (!store_change(&store, raise_boot, &change, now_unix_ms))
        code = journal_copy_failed(path, sqlite3_errmsg(store.db), reterr);
    store_close(&store);
    return code;
}

static void remove_making(const char *path)
{
    static const char *const suffixes[] = {MAKING, MAKING "-journal", MAKING "-wal", MAKING "-shm", MAKING "-head", MADE "-head"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        journal_remove_beside(path, suffixes[i]);
}

/* Those of the old journal stay with it, under the name that it will have; those of the new one are there before it is. What is too much goes at the next start. */
static enum amp_code bring_files(const char *path, const char *from, const char *making, struct amp_error *reterr)
{
    struct stat info;
    if (stat(making, &info) != 0)
        return journal_copy_failed(making, strerror(errno), reterr);
    char *aside = xasprintf("%s.%lld", path, (long long)info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1000000);
    enum amp_code code = journal_link_files(path, aside, reterr);
    if (code == AMP_OK)
        code = journal_copy_files(from, making, path, reterr);
    free(aside);
    return code;
}

/* The lock is held: what a restore before this one left is nobody's. */
static enum amp_code make(const char *path, const char *from, int64_t now_unix_ms, struct journal_report *ret, struct amp_error *reterr)
{
    static const struct journal_verify_handlers none = {0};
    char *making = xasprintf("%s" MAKING, path);
    uint32_t boot = find_boot(path, from, now_unix_ms);
    remove_making(path);
    enum amp_code code = journal_copy(from, making, &(struct journal_copy_options){.now_unix_ms = now_unix_ms, .handlers = &none}, ret, reterr);
    if (code == AMP_OK)
        code = make_head(making, boot, now_unix_ms, reterr);
    if (code == AMP_OK && !journal_is_one_file(making))
        code = journal_copy_failed(making, "its log (-wal) stays", reterr);
    if (code == AMP_OK && !journal_sync_file(making))
        code = journal_copy_failed(making, strerror(errno), reterr);
    if (code == AMP_OK)
        code = bring_files(path, from, making, reterr);
    if (code == AMP_OK)
        code = move(path, MAKING "-head", MADE "-head", reterr);
    if (code == AMP_OK)
        code = move(path, MAKING, MADE, reterr);
    if (code != AMP_OK)
        remove_making(path);
    else if (!journal_sync_directory(path))
        code = journal_copy_failed(path, strerror(errno), reterr);
    free(making);
    return code;
}

/* The two are easily mixed up at night, and an export is no damaged backup. */
static enum amp_code check_no_export(const char *from, struct amp_error *reterr)
{
    static const char begin[] = "{\"format\":\"amesh-journal\"";
    char text[sizeof begin - 1];
    struct stat info;
    int fd = stat(from, &info) == 0 && S_ISREG(info.st_mode) ? open(from, O_RDONLY | O_CLOEXEC) : -1;
    bool is_export = fd >= 0 && read(fd, text, sizeof text) == (ssize_t)sizeof text && memcmp(text, begin, sizeof text) == 0;
    if (fd >= 0)
        close(fd);
    if (!is_export)
        return AMP_OK;
    amp_error_set(reterr, AMP_INVALID, "", "%s is an export, not a backup", from);
    amp_error_hint(reterr, "amesh env import --continue %.300s", from);
    return AMP_INVALID;
}

enum amp_code journal_restore(const char *path, const char *from, int64_t now_unix_ms, struct journal_report *ret, struct amp_error *reterr)
{
    static const struct journal_verify_handlers none = {0};
    int lock_fd = -1;
    enum amp_code code = check_no_export(from, reterr);
    if (code == AMP_OK)
        code = journal_verify(from, &none, NULL, ret, reterr);
    if (code == AMP_OK)
        code = journal_lock(path, &lock_fd, reterr);
    if (code == AMP_OK)
        code = make(path, from, now_unix_ms, ret, reterr);
    if (code == AMP_OK)
        code = restore_finish(path, reterr);
    if (lock_fd >= 0)
        close(lock_fd);
    return code;
}
