/* SQLite writes its log in two small pieces per page, and the system call costs more than what it writes. This VFS lies before the default one and gathers what is
 * written to a log one behind the other; it is written when that is full, and before anything else is done with the file: before it is synced above all, so that a
 * commit is as durable as it was, and before others are told of it, as SQLite tells of a commit only when it is synced. All other files are the default one's. */
#include "journal_private.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

#define GATHER_MAX (128 << 10)
#define NAME "amesh-journal"

struct log_file {
    sqlite3_file base; /* SQLite's: first */
    sqlite3_file *inner;
    sqlite3_int64 at; /* where the gathered bytes belong */
    int len;
    uint8_t *data;
};

static sqlite3_vfs vfs;

static int flush(struct log_file *log)
{
    int len = log->len;
    log->len = 0; /* what cannot be written is not tried again: the commit fails by it */
    return len ? log->inner->pMethods->xWrite(log->inner, log->data, len, log->at) : SQLITE_OK;
}

static int log_close(sqlite3_file *file)
{
    struct log_file *log = (struct log_file *)file;
    int status = flush(log), closed = log->inner->pMethods->xClose(log->inner);
    free(log->data);
    return status == SQLITE_OK ? closed : status;
}

static int log_read(sqlite3_file *file, void *data, int len, sqlite3_int64 at)
{
    struct log_file *log = (struct log_file *)file;
    int status = flush(log);
    return status == SQLITE_OK ? log->inner->pMethods->xRead(log->inner, data, len, at) : status;
}

static int log_write(sqlite3_file *file, const void *data, int len, sqlite3_int64 at)
{
    struct log_file *log = (struct log_file *)file;
    if (log->len > 0 && (at != log->at + log->len || len > GATHER_MAX - log->len)) {
        int status = flush(log);
        if (status != SQLITE_OK)
            return status;
    }
    if (len > GATHER_MAX)
        return log->inner->pMethods->xWrite(log->inner, data, len, at);
    if (log->len == 0)
        log->at = at;
    memcpy(log->data + log->len, data, (size_t)len);
    log->len += len;
    return SQLITE_OK;
}

static int log_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct log_file *log = (struct log_file *)file;
    int status = flush(log);
    return status == SQLITE_OK ? log->inner->pMethods->xTruncate(log->inner, size) : status;
}

static int log_sync(sqlite3_file *file, int flags)
{
    struct log_file *log = (struct log_file *)file;
    int status = flush(log);
    return status == SQLITE_OK ? log->inner->pMethods->xSync(log->inner, flags) : status;
}

static int log_size(sqlite3_file *file, sqlite3_int64 *ret)
{
    struct log_file *log = (struct log_file *)file;
    int status = flush(log);
    return status == SQLITE_OK ? log->inner->pMethods->xFileSize(log->inner, ret) : status;
}

/* A log is never locked: its journal is. */
static int log_lock(sqlite3_file *file, int level)
{
    return SQLITE_OK;
}

static int log_is_reserved(sqlite3_file *file, int *ret)
{
    *ret = 0;
    return SQLITE_OK;
}

static int log_control(sqlite3_file *file, int op, void *arg)
{
    struct log_file *log = (struct log_file *)file;
    return log->inner->pMethods->xFileControl(log->inner, op, arg);
}

static int log_sector(sqlite3_file *file)
{
    struct log_file *log = (struct log_file *)file;
    return log->inner->pMethods->xSectorSize(log->inner);
}

static int log_characteristics(sqlite3_file *file)
{
    struct log_file *log = (struct log_file *)file;
    return log->inner->pMethods->xDeviceCharacteristics(log->inner);
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = log_close,
    .xRead = log_read,
    .xWrite = log_write,
    .xTruncate = log_truncate,
    .xSync = log_sync,
    .xFileSize = log_size,
    .xLock = log_lock,
    .xUnlock = log_lock,
    .xCheckReservedLock = log_is_reserved,
    .xFileControl = log_control,
    .xSectorSize = log_sector,
    .xDeviceCharacteristics = log_characteristics,
};

struct sqlite3_file *journal_vfs_below(struct sqlite3_file *log)
{
    if (!log || log->pMethods != &methods)
        return log;
    ((struct log_file *)log)->len = 0;
    return ((struct log_file *)log)->inner;
}

static int vfs_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    sqlite3_vfs *below = self->pAppData;
    struct log_file *log = (struct log_file *)file;
    if (!(flags & SQLITE_OPEN_WAL))
        return below->xOpen(below, name, file, flags, ret_flags);
    log->base.pMethods = NULL; /* nothing to close if it fails */
    log->inner = (sqlite3_file *)(void *)((char *)file + sizeof *log);
    log->at = log->len = 0;
    int status = below->xOpen(below, name, log->inner, flags, ret_flags);
    if (status != SQLITE_OK) {
        if (log->inner->pMethods)
            log->inner->pMethods->xClose(log->inner);
        return status;
    }
    log->data = xcalloc(1, GATHER_MAX);
    log->base.pMethods = &methods;
    return SQLITE_OK;
}

const char *journal_vfs(void)
{
    sqlite3_vfs *below = sqlite3_vfs_find(NULL);
    if (!below)
        return NULL;
    if (vfs.pAppData) /* the default one may be another by now */
        (void)sqlite3_vfs_unregister(&vfs);
    vfs = *below; /* what it does with names is as it was */
    vfs.zName = NAME;
    vfs.pNext = NULL;
    vfs.pAppData = below;
    vfs.szOsFile = (int)sizeof(struct log_file) + below->szOsFile;
    vfs.xOpen = vfs_open;
    return sqlite3_vfs_register(&vfs, 0) == SQLITE_OK ? NAME : NULL;
}
