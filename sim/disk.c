/* SQLite's files in memory. A process that is killed loses nothing that it wrote; a power cut keeps of what was not synced each sector or not, so that writes are torn and out of
 * order. One database at a time, its connections on one thread: so locks are counters. */
#include "sim.h"

#include "base/alloc.h"
#include "base/seeded.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u
#define FILES_MAX 8
#define SHM_REGIONS_MAX 64
#define SHM_REGION 32768

struct content {
    char name[128];
    uint8_t *now, *synced;
    size_t len, synced_len, cap;
    uint8_t *dirty; /* per sector */
    size_t dirty_from, dirty_to; /* sectors outside of these are not */
    size_t used; /* what lies behind is zero, in both */
    int shared;     /* locks */
    bool is_reserved, is_exclusive;
};

struct handle { /* sqlite3_file first */
    sqlite3_file base;
    struct content *content;
    char name[128];
    int level;
    uint8_t shm_shared, shm_exclusive; /* this connection's, by slot */
    bool has_shm, is_temporary;
};

static struct {
    struct content files[FILES_MAX];
    enum disk_fault fault;
    bool is_frozen, is_registered, is_laid_out;
    uint32_t slow_percent;
    void *shm[SHM_REGIONS_MAX];
    int shm_shared[SQLITE_SHM_NLOCK];
    bool shm_exclusive[SQLITE_SHM_NLOCK];
    int shm_users;
} disk;

static struct { /* a journal without tasks, of which most seeds begin: to make one takes longer than the rest */
    uint8_t *data;
    size_t len;
} image;

static bool is_lost(void) { return disk.is_frozen; }

/* ---- contents --------------------------------------------------------------------------------------------------- */

static struct content *find(const char *name, bool create)
{
    struct content *free_one = NULL;
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (strcmp(disk.files[i].name, name) == 0)
            return &disk.files[i];
        if (!disk.files[i].name[0] && !free_one)
            free_one = &disk.files[i];
    }
    if (!create || !free_one)
        return NULL;
    snprintf(free_one->name, sizeof free_one->name, "%s", name);
    return free_one;
}

/* The room is kept for the next file of this slot. */
static void content_clear(struct content *content)
{
    if (content->used) {
        memset(content->now, 0, content->used);
        memset(content->synced, 0, content->used);
        memset(content->dirty, 0, content->used / SECTOR + 1);
    }
    *content = (struct content){.now = content->now, .synced = content->synced, .dirty = content->dirty, .cap = content->cap};
}

static void reserve(struct content *content, size_t len)
{
    size_t cap = content->cap ? content->cap : 65536;
    if (content->used < len)
        content->used = len;
    while (cap < len)
        cap *= 2;
    if (cap == content->cap)
        return;
    content->now = xrealloc(content->now, cap);
    content->synced = xrealloc(content->synced, cap);
    content->dirty = xrealloc(content->dirty, cap / SECTOR + 1);
    memset(content->now + content->cap, 0, cap - content->cap);
    memset(content->synced + content->cap, 0, cap - content->cap);
    memset(content->dirty + content->cap / SECTOR, 0, (cap - content->cap) / SECTOR + 1);
    content->cap = cap;
}

static void make_dirty(struct content *content, size_t at, size_t len)
{
    size_t from = at / SECTOR, to = (at + len + SECTOR - 1) / SECTOR;
    if (len == 0)
        return;
    memset(content->dirty + from, 1, to - from);
    if (content->dirty_to == 0 || from < content->dirty_from)
        content->dirty_from = from;
    if (to > content->dirty_to)
        content->dirty_to = to;
}

static void make_clean(struct content *content)
{
    content->dirty_from = content->dirty_to = 0;
}

/* What the kernel could not write is clean to it from then on: the next sync says that all is well, and a power cut shows that it was not. */
static void forget_dirty(struct content *content)
{
    for (size_t i = content->dirty_from; i < content->dirty_to; i++)
        content->dirty[i] = 0;
    make_clean(content);
}

static void content_sync(struct content *content)
{
    for (size_t i = content->dirty_from; i < content->dirty_to; i++) {
        if (content->dirty[i])
            memcpy(content->synced + i * SECTOR, content->now + i * SECTOR, SECTOR);
        content->dirty[i] = 0;
    }
    make_clean(content);
    if (content->len < content->synced_len)
        memset(content->synced + content->len, 0, content->synced_len - content->len);
    content->synced_len = content->len;
}

static void cut_sector(struct content *content, size_t i, uint32_t kept_percent)
{
    bool is_kept = world_chance(kept_percent), is_torn = is_kept && world_chance(10);
    if (is_kept)
        memcpy(content->synced + i * SECTOR, content->now + i * SECTOR, is_torn ? world_below(SECTOR) : SECTOR);
    stat_add(is_torn ? STAT_sectors_torn : STAT_sectors_lost, is_torn || !is_kept);
}

static void content_cut(struct content *content, uint32_t kept_percent)
{
    size_t len = world_chance(kept_percent) ? content->len : content->synced_len;
    for (size_t i = content->dirty_from; i < content->dirty_to; i++) {
        if (content->dirty[i])
            cut_sector(content, i, kept_percent);
        content->dirty[i] = 0;
    }
    make_clean(content);
    if (len < content->used) /* what was written behind its end is nowhere: it must not come back when the file grows again */
        memset(content->synced + len, 0, content->used - len);
    if (content->used)
        memcpy(content->now, content->synced, content->used);
    content->len = content->synced_len = len;
}

/* ---- a file -------------------------------------------------------------------------------------------------------- */

static int file_close(sqlite3_file *file)
{
    struct handle *handle = (struct handle *)file;
    file->pMethods->xUnlock(file, SQLITE_LOCK_NONE);
    if (handle->is_temporary)
        content_clear(handle->content);
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *buf, int amount, sqlite3_int64 at)
{
    const struct content *content = ((struct handle *)file)->content;
    size_t there = (size_t)at < content->len ? content->len - (size_t)at : 0;
    size_t n = there < (size_t)amount ? there : (size_t)amount;
    if (n)
        memcpy(buf, content->now + at, n);
    memset((uint8_t *)buf + n, 0, (size_t)amount - n);
    return n == (size_t)amount ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *buf, int amount, sqlite3_int64 at)
{
    struct content *content = ((struct handle *)file)->content;
    size_t end = (size_t)at + (size_t)amount;
    if (!is_lost())
        point_pass(POINT_WRITE, NULL); /* the dead die no more */
    if (is_lost() || disk.fault == DISK_BROKEN)
        return SQLITE_IOERR_WRITE;
    if (disk.fault == DISK_FULL)
        return SQLITE_FULL;
    reserve(content, end);
    memcpy(content->now + at, buf, (size_t)amount);
    make_dirty(content, (size_t)at, (size_t)amount);
    if (content->len < end)
        content->len = end;
    return SQLITE_OK;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct content *content = ((struct handle *)file)->content;
    if (is_lost() || disk.fault == DISK_BROKEN)
        return SQLITE_IOERR_TRUNCATE;
    reserve(content, (size_t)size);
    if ((size_t)size < content->len)
        memset(content->now + size, 0, content->len - (size_t)size);
    content->len = (size_t)size;
    return SQLITE_OK;
}

static int file_sync(sqlite3_file *file, int flags)
{
    struct content *content = ((struct handle *)file)->content;
    if (!is_lost())
        point_pass(POINT_SYNC, NULL);
    if (disk.fault == DISK_LIES && !is_lost()) {
        forget_dirty(content);
        disk.fault = DISK_SOUND;
        return SQLITE_IOERR_FSYNC;
    }
    if (is_lost() || disk.fault == DISK_BROKEN)
        return SQLITE_IOERR_FSYNC;
    if (SEEDED_BUG("lost-sync"))
        return SQLITE_OK;
    content_sync(content);
    return SQLITE_OK;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *ret)
{
    *ret = (sqlite3_int64)((struct handle *)file)->content->len;
    return SQLITE_OK;
}

/* ---- locks ---------------------------------------------------------------------------------------------------------- */

static int file_lock(sqlite3_file *file, int level)
{
    struct handle *handle = (struct handle *)file;
    struct content *content = handle->content;
    if (level <= handle->level)
        return SQLITE_OK;
    if (handle->level < SQLITE_LOCK_SHARED) {
        if (content->is_exclusive)
            return SQLITE_BUSY;
        content->shared++;
        handle->level = SQLITE_LOCK_SHARED;
    }
    if (level >= SQLITE_LOCK_RESERVED && handle->level < SQLITE_LOCK_RESERVED) {
        if (content->is_reserved)
            return SQLITE_BUSY;
        content->is_reserved = true;
        handle->level = SQLITE_LOCK_RESERVED;
    }
    if (level == SQLITE_LOCK_EXCLUSIVE) {
        if (content->shared > 1)
            return SQLITE_BUSY;
        content->is_exclusive = true;
        handle->level = SQLITE_LOCK_EXCLUSIVE;
    }
    return SQLITE_OK;
}

static int file_unlock(sqlite3_file *file, int level)
{
    struct handle *handle = (struct handle *)file;
    struct content *content = handle->content;
    if (handle->level >= SQLITE_LOCK_EXCLUSIVE && level < SQLITE_LOCK_EXCLUSIVE)
        content->is_exclusive = false;
    if (handle->level >= SQLITE_LOCK_RESERVED && level < SQLITE_LOCK_RESERVED)
        content->is_reserved = false;
    if (handle->level >= SQLITE_LOCK_SHARED && level < SQLITE_LOCK_SHARED)
        content->shared--;
    if (level < handle->level)
        handle->level = level;
    return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *file, int *ret)
{
    *ret = ((struct handle *)file)->content->is_reserved;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *file, int op, void *arg) { return SQLITE_NOTFOUND; }
static int file_sector_size(sqlite3_file *file) { return SECTOR; }
static int file_characteristics(sqlite3_file *file) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; } /* as SQLite takes for granted on Unix */

/* ---- shared memory of the write-ahead log ------------------------------------------------------------------------------- */

static int shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **ret)
{
    struct handle *handle = (struct handle *)file;
    *ret = NULL;
    if (region >= SHM_REGIONS_MAX || size != SHM_REGION)
        return SQLITE_IOERR_SHMMAP;
    if (!handle->has_shm)
        disk.shm_users++;
    handle->has_shm = true;
    if (!disk.shm[region] && extend)
        disk.shm[region] = xcalloc(1, (size_t)size);
    *ret = disk.shm[region];
    return SQLITE_OK;
}

static void shm_release(struct handle *handle, int slot)
{
    if (handle->shm_shared & 1u << slot)
        disk.shm_shared[slot]--;
    if (handle->shm_exclusive & 1u << slot)
        disk.shm_exclusive[slot] = false;
    handle->shm_shared &= (uint8_t)~(1u << slot);
    handle->shm_exclusive &= (uint8_t)~(1u << slot);
}

static int shm_lock(sqlite3_file *file, int first, int n, int flags)
{
    struct handle *handle = (struct handle *)file;
    for (int slot = first; slot < first + n; slot++) {
        if (flags & SQLITE_SHM_UNLOCK) {
            shm_release(handle, slot);
            continue;
        }
        int others = disk.shm_shared[slot] - !!(handle->shm_shared & 1u << slot);
        bool is_theirs = disk.shm_exclusive[slot] && !(handle->shm_exclusive & 1u << slot);
        if (is_theirs || (flags & SQLITE_SHM_EXCLUSIVE && others > 0)) {
            while (--slot >= first)
                shm_release(handle, slot);
            return SQLITE_BUSY;
        }
        if (flags & SQLITE_SHM_EXCLUSIVE) {
            shm_release(handle, slot);
            disk.shm_exclusive[slot] = true;
            handle->shm_exclusive |= (uint8_t)(1u << slot);
        } else if (!(handle->shm_shared & 1u << slot)) {
            disk.shm_shared[slot]++;
            handle->shm_shared |= (uint8_t)(1u << slot);
        }
    }
    return SQLITE_OK;
}

static void shm_barrier(sqlite3_file *file) {}

static void shm_clear(void)
{
    for (size_t i = 0; i < SHM_REGIONS_MAX && disk.shm[i]; i++)
        memset(disk.shm[i], 0, SHM_REGION); /* connections that are kept still look there */
    memset(disk.shm_shared, 0, sizeof disk.shm_shared);
    memset(disk.shm_exclusive, 0, sizeof disk.shm_exclusive);
    disk.shm_users = 0;
}

static int shm_unmap(sqlite3_file *file, int is_deleted)
{
    struct handle *handle = (struct handle *)file;
    for (int slot = 0; slot < SQLITE_SHM_NLOCK; slot++)
        shm_release(handle, slot);
    if (handle->has_shm && disk.shm_users > 0 && --disk.shm_users == 0)
        shm_clear();
    handle->has_shm = false;
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, .xClose = file_close, .xRead = file_read, .xWrite = file_write, .xTruncate = file_truncate, .xSync = file_sync, .xFileSize = file_size, .xLock = file_lock,
    .xUnlock = file_unlock, .xCheckReservedLock = file_check_reserved, .xFileControl = file_control, .xSectorSize = file_sector_size, .xDeviceCharacteristics = file_characteristics,
    .xShmMap = shm_map, .xShmLock = shm_lock, .xShmBarrier = shm_barrier, .xShmUnmap = shm_unmap,
};

/* ---- the file system -------------------------------------------------------------------------------------------------------- */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    static unsigned n_temporary;
    struct handle *handle = (struct handle *)file;
    char temporary[32];
    memset(handle, 0, sizeof *handle);
    if (!name) {
        snprintf(temporary, sizeof temporary, "temporary-%u", n_temporary++);
        name = temporary;
        handle->is_temporary = true;
    }
    struct content *content = find(name, (flags & SQLITE_OPEN_CREATE) != 0 || flags & SQLITE_OPEN_WAL);
    if (!content)
        return SQLITE_CANTOPEN;
    handle->content = content;
    snprintf(handle->name, sizeof handle->name, "%s", name);
    handle->base.pMethods = &methods;
    if (ret_flags)
        *ret_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int is_synced)
{
    struct content *content = find(name, false);
    if (is_lost())
        return SQLITE_IOERR_DELETE;
    if (content)
        content_clear(content);
    return SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
    const struct content *content = find(name, false);
    *ret = content && content->len > 0;
    return SQLITE_OK;
}

static int vfs_full(sqlite3_vfs *vfs, const char *name, int size, char *ret)
{
    snprintf(ret, (size_t)size, "%s", name);
    return SQLITE_OK;
}

static int vfs_random(sqlite3_vfs *vfs, int size, char *ret)
{
    for (int i = 0; i < size; i++)
        ret[i] = (char)world_random();
    return size;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us) { return us; }
static int vfs_time(sqlite3_vfs *vfs, double *ret) { *ret = 2461000.5; return SQLITE_OK; }
static int vfs_error(sqlite3_vfs *vfs, int size, char *ret) { return 0; }

static sqlite3_vfs vfs = {
    .iVersion = 1, .szOsFile = sizeof(struct handle), .mxPathname = 120, .zName = "sim", .xOpen = vfs_open, .xDelete = vfs_delete, .xAccess = vfs_access, .xFullPathname = vfs_full,
    .xRandomness = vfs_random, .xSleep = vfs_sleep, .xCurrentTime = vfs_time, .xGetLastError = vfs_error,
};

/* ---- what the scenario does ---------------------------------------------------------------------------------------------------- */

void disk_begin(void)
{
    if (!disk.is_registered)
        sqlite3_vfs_register(&vfs, 1);
    disk.is_registered = true;
    sqlite3_randomness(0, NULL); /* draws its seed anew, from ours */
    disk.fault = DISK_SOUND;
    disk.is_frozen = false;
    disk.slow_percent = 0;
    disk.is_laid_out = false;
}

void disk_end(void)
{
    for (size_t i = 0; i < FILES_MAX; i++)
        content_clear(&disk.files[i]);
    shm_clear();
}

void disk_small_pages(const char *path)
{
    sqlite3 *db;
    if (sqlite3_open(path, &db) != SQLITE_OK || sqlite3_exec(db, "PRAGMA page_size = 1024; PRAGMA user_version = 0", NULL, NULL, NULL) != SQLITE_OK)
        abort();
    sqlite3_close(db);
}

void disk_keep(const char *path)
{
    const struct content *content = find(path, false);
    if (!content || content->len == 0)
        abort();
    image.data = xcalloc(1, content->len);
    image.len = content->len;
    memcpy(image.data, content->now, content->len);
}

void disk_lay_out(const char *path)
{
    struct content *content = find(path, true);
    reserve(content, image.len);
    memcpy(content->now, image.data, image.len);
    memcpy(content->synced, image.data, image.len);
    content->len = content->synced_len = image.len;
    disk.is_laid_out = true;
}

/* ---- for connections that outlive their process (sqlite.c) ---------------------------------------------------------------------- */

bool disk_is_laid_out(void) { return disk.is_laid_out; }

static bool is_let_go(const struct handle *handle)
{
    return handle && handle->base.pMethods == &methods && handle->level <= SQLITE_LOCK_SHARED && !handle->shm_shared && !handle->shm_exclusive;
}

bool disk_may_keep(const struct sqlite3_file *file, const struct sqlite3_file *log)
{
    static const uint8_t first[4];
    const struct handle *handles[] = {(const struct handle *)file, (const struct handle *)log};
    if (!disk.is_laid_out || !is_let_go(handles[0]) || !is_let_go(handles[1]))
        return false;
    return handles[1]->content->len == 0 || memcmp(handles[1]->content->now + 12, first, sizeof first) == 0; /* a log that was begun again has another number, which a connection keeps */
}

void disk_open_again(struct sqlite3_file *file, struct sqlite3_file *log)
{
    struct handle *handles[] = {(struct handle *)file, (struct handle *)log};
    for (int i = 0; i < 2; i++) {
        handles[i]->content = find(handles[i]->name, true);
        handles[i]->content->shared += handles[i]->level == SQLITE_LOCK_SHARED;
        disk.shm_users += handles[i]->has_shm;
    }
}

bool disk_flip(bool is_log, uint32_t where, unsigned bit)
{
    for (struct content *content = disk.files; content < disk.files + FILES_MAX; content++) {
        size_t len = strlen(content->name);
        bool has_ending = len > 4 && strcmp(content->name + len - 4, "-wal") == 0;
        if (!content->len || !len || has_ending != is_log || strncmp(content->name, "temporary", 9) == 0)
            continue;
        size_t at = where % content->len;
        content->now[at] ^= (uint8_t)(1u << bit % 8);
        content->synced[at] = content->now[at];
        return true;
    }
    return false;
}

void disk_fault(enum disk_fault fault) { disk.fault = fault; }
void disk_slow(uint32_t percent) { disk.slow_percent = percent; }
bool disk_is_frozen(void) { return disk.is_frozen; }
void disk_freeze(void) { disk.is_frozen = true; }

void disk_thaw(bool is_power_cut)
{
    static const uint32_t kept[] = {0, 50, 90, 100};
    uint32_t percent = kept[world_below(4)];
    disk.is_frozen = false;
    shm_clear();
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct content *content = &disk.files[i];
        if (content->name[0] && is_power_cut)
            content_cut(content, percent);
        content->shared = 0;
        content->is_reserved = content->is_exclusive = false;
    }
}

uint32_t disk_sync_ms(void)
{
    return world_chance(disk.slow_percent) ? world_between(20, 2000) : world_chance(30) ? world_between(1, 12) : 0;
}
