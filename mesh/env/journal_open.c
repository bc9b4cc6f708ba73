/* How a journal is opened by those who only read it, while an environment writes or alone. SQLite reads one in WAL mode through an index of its log in a file beside it (-shm), and makes that, and a log, where there is none: on a
 * disk that is read-only or full, or in a directory of somebody else, it cannot. Nobody writes there then, so that such a journal is read without: with the index in memory, or, where it has no log, as a file that stays as it is. */
#include "journal_private.h"
#include "journal_files.h"

#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int journal_open_file(const char *path, sqlite3 **ret)
{
    int status = look(path, 0, NULL, "", ret);
    if (status == SQLITE_OK || !is_beside(*ret) || !is_real_disk() || journal_is_running(path))
        return status;
    char *log = xasprintf("%s-wal", path);
    sqlite3_close(*ret);
    *ret = NULL;
    status = access(log, F_OK) == 0 ? look_at_log(path, ret) : look_at_file(path, ret);
    free(log);
    return status;
}
