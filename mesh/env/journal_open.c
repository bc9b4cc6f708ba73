/* How a journal is opened by those who only read it, while an environment writes or alone. SQLite reads one in WAL mode through an index of its log in a file beside it (-shm), and makes that, and a log, where there is none: on a
 * disk that is read-only or full, or in a directory of somebody else, it cannot. Nobody writes there then, so that such a journal is read without: with the index in memory, or, where it has no log, as a file that stays as it is. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define SQLITE_INDEX_HELD 128 /* UNIX_SHM_DMS of its os_unix.c, which its file format has ("WAL-Index Locks") */

/* It is about what stands beside the journal, and no word about what is in it. */
static bool is_beside(sqlite3 *db)
{
    int status = db ? sqlite3_extended_errcode(db) : SQLITE_NOMEM;
    switch (status & 0xff) {
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_FULL:
        return true;
    default:
        return status == SQLITE_IOERR_SHMOPEN || status == SQLITE_IOERR_SHMSIZE || status == SQLITE_IOERR_SHMMAP;
    }
}

static int look(const char *name, int flags, const char *vfs, const char *setup, sqlite3 **ret)
{
    int status = sqlite3_open_v2(name, ret, flags | SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, vfs);
    if (*ret)
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_exec(*ret, setup, NULL, NULL, NULL);
    return status == SQLITE_OK ? sqlite3_exec(*ret, "PRAGMA schema_version", NULL, NULL, NULL) : status; /* the first to need the log */
}

/* The log is read as it is at this moment, and nothing is locked. */
static int look_at_log(const char *path, sqlite3 **ret)
{
    return look(path, 0, "unix-none", "PRAGMA locking_mode = EXCLUSIVE", ret);
}

static int look_at_file(const char *path, sqlite3 **ret)
{
    struct amp_buf uri;
    amp_buf_init(&uri, 16384);
    (void)amp_buf_printf(&uri, "file:");
    for (const char *at = path; *at; at++)
        (void)amp_buf_printf(&uri, strchr("%?#", *at) ? "%%%02x" : "%c", (unsigned char)*at);
    (void)amp_buf_append(&uri, "?immutable=1", sizeof "?immutable=1");
    int status = uri.is_full ? SQLITE_CANTOPEN : look((const char *)uri.data, SQLITE_OPEN_URI, NULL, "", ret);
    amp_buf_done(&uri);
    return status;
}

/* Else it is the simulator's. */
static bool is_real_disk(void)
{
    const sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    return vfs && strcmp(vfs->zName, "unix") == 0;
}

static bool has_beside(const char *path, const char *suffix)
{
    char *name = xasprintf("%s%s", path, suffix);
    bool is_there = access(name, F_OK) == 0;
    free(name);
    return is_there;
}

static int look_alone(const char *path, sqlite3 **ret)
{
    return journal_is_one_file(path) ? look_at_file(path, ret) : look_at_log(path, ret);
}

/* A backup, or another copy: an environment makes its lock before it opens a journal, and whoever has one open has its index. */
static bool is_a_copy(const char *path)
{
    return !has_beside(path, ".lock") && !has_beside(path, "-shm");
}

int journal_open_file(const char *path, sqlite3 **ret)
{
    if (is_real_disk() && is_a_copy(path)) /* and nothing is left beside it */
        return look_alone(path, ret);
    int status = look(path, 0, NULL, "", ret);
    if (status == SQLITE_OK || !is_beside(*ret) || !is_real_disk() || journal_is_running(path))
        return status;
    sqlite3_close(*ret);
    *ret = NULL;
    return look_alone(path, ret);
}

/* Each connection to a journal holds this byte of its index. It is closed by then in this process, which would lose SQLite's locks by it. */
static bool is_read_by_nobody(const char *path)
{
    char *name = xasprintf("%s-shm", path);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SQLITE_INDEX_HELD, .l_len = 1};
    int fd = open(name, O_RDWR | O_CLOEXEC);
    bool is_free = fd >= 0 && fcntl(fd, F_SETLK, &lock) == 0;
    if (fd >= 0)
        close(fd);
    free(name);
    return is_free;
}

void journal_close_file(const char *path, sqlite3 *db)
{
    sqlite3_close(db);
    if (!is_real_disk() || !has_beside(path, "-shm") || !journal_is_one_file(path))
        return;
    char *name = xasprintf("%s.lock", path);
    int lock_fd = open(name, O_RDWR | O_CLOEXEC); /* no environment begins meanwhile */
    if (lock_fd >= 0 && flock(lock_fd, LOCK_EX | LOCK_NB) == 0 && is_read_by_nobody(path)) {
        journal_remove_beside(path, "-wal");
        journal_remove_beside(path, "-shm");
    }
    if (lock_fd >= 0)
        close(lock_fd);
    free(name);
}
