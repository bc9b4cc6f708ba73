/* SQLite's log, read before SQLite reads it. It takes the frames up to the first one whose checksum is wrong, and forgets those
 * behind it. A transaction that was being written when the power went looks like that; but two that are whole behind the first
 * wrong frame cannot be: the first of them was synced before the second was begun. */
#include "journal_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define WAL_HEADER 32u
#define FRAME_HEADER 24u
#define LOCK_BYTE 0x40000000u /* the page with this byte is never written: SQLite's locks are there */
#define WAL_MAGIC 0x377f0682u /* | 1: checksums over big-endian words */

static uint32_t be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint32_t le32(const uint8_t *at)
{
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

static void add_sum(bool is_big, const uint8_t *data, size_t len, uint32_t sum[2])
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        sum[0] += (is_big ? be32(data + i) : le32(data + i)) + sum[1];
        sum[1] += (is_big ? be32(data + i + 4) : le32(data + i + 4)) + sum[0];
    }
}

struct wal {
    sqlite3_file *file;
    sqlite3_int64 size;
    uint8_t header[WAL_HEADER];
    uint32_t page, sum[2];
    bool is_big;
};

static bool read_header(struct wal *wal)
{
    const uint8_t *header = wal->header;
    if (wal->file->pMethods->xFileSize(wal->file, &wal->size) != SQLITE_OK || wal->size < WAL_HEADER ||
        wal->file->pMethods->xRead(wal->file, wal->header, WAL_HEADER, 0) != SQLITE_OK)
        return false;
    wal->page = be32(header + 8);
    wal->is_big = be32(header) & 1;
    if ((be32(header) & ~1u) != WAL_MAGIC || wal->page < 512 || wal->page > 65536 || wal->page & (wal->page - 1))
        return false;
    add_sum(wal->is_big, header, 24, wal->sum);
    return wal->sum[0] == be32(header + 24) && wal->sum[1] == be32(header + 28);
}

static void read_frames(struct wal *wal, struct wal_scan *ret)
{
    size_t size = FRAME_HEADER + wal->page;
    uint8_t *frame = xcalloc(1, size);
    uint32_t since_commit = 0, number = 0;
    bool is_whole = true;
    for (sqlite3_int64 at = WAL_HEADER; at + (sqlite3_int64)size <= wal->size; at += (sqlite3_int64)size) {
        number++;
        /* Of those behind the end only the header counts: a log that was begun anew has the old one's frames there, mostly more than its own. */
        if (wal->file->pMethods->xRead(wal->file, frame, is_whole ? (int)size : (int)FRAME_HEADER, at) != SQLITE_OK)
            break;
        if (memcmp(frame + 8, wal->header + 16, 8) != 0) { /* of the log that was here before, or not whole */
            is_whole = false;
            continue;
        }
        if (is_whole) {
            add_sum(wal->is_big, frame, 8, wal->sum);
            add_sum(wal->is_big, frame + FRAME_HEADER, wal->page, wal->sum);
            is_whole = wal->sum[0] == be32(frame + 16) && wal->sum[1] == be32(frame + 20) && be32(frame) != 0;
        }
        bool is_commit = be32(frame + 4) != 0;
        if (!is_whole && ret->first_bad == 0)
            ret->first_bad = number;
        since_commit = is_whole && is_commit ? 0 : since_commit + 1;
        ret->commits += is_whole && is_commit;
        if (is_whole && is_commit) {
            ret->whole = at + (sqlite3_int64)size;
            ret->pages = be32(frame + 4);
        }
        ret->commits_behind += !is_whole && is_commit;
    }
    ret->frames_cut = since_commit;
    free(frame);
}

/* What the file lacks must stand in the log: a checkpoint that was killed leaves that. Else the file was cut, which SQLite does not see when the log tells
 * it the number of pages: it would read zeros. */
static uint32_t find_missing(struct wal *wal, uint32_t there, const struct wal_scan *scan)
{
    uint32_t count = scan->pages > there ? scan->pages - there : 0, missing = 0;
    uint8_t *seen = xcalloc(1, count + 1u), header[FRAME_HEADER];
    for (sqlite3_int64 at = WAL_HEADER; count > 0 && at < scan->whole; at += (sqlite3_int64)(FRAME_HEADER + wal->page)) {
        uint32_t number = wal->file->pMethods->xRead(wal->file, header, FRAME_HEADER, at) == SQLITE_OK ? be32(header) : 0;
        if (number > there && number <= scan->pages)
            seen[number - there - 1] = 1;
    }
    for (uint32_t i = 0; i < count && missing == 0; i++)
        if (!seen[i] && there + i != LOCK_BYTE / wal->page)
            missing = there + i + 1;
    free(seen);
    return missing;
}

uint32_t wal_missing(const char *journal_path, const struct wal_scan *scan)
{
    char *name = NULL, *file_name = NULL;
    struct wal wal = {.file = side_open(journal_path, "-wal", false, &name)};
    sqlite3_file *file = side_open(journal_path, "", false, &file_name);
    sqlite3_int64 size = 0;
    uint32_t missing = 0;
    if (scan->pages > 0 && wal.file && read_header(&wal) && file && file->pMethods->xFileSize(file, &size) == SQLITE_OK)
        missing = find_missing(&wal, (uint32_t)(size / wal.page), scan);
    side_close(file, file_name);
    side_close(wal.file, name);
    return missing;
}

void wal_scan(const char *journal_path, struct wal_scan *ret)
{
    char *name = NULL;
    struct wal wal = {.file = side_open(journal_path, "-wal", false, &name)};
    *ret = (struct wal_scan){0};
    if (wal.file && read_header(&wal)) {
        ret->whole = WAL_HEADER;
        read_frames(&wal, ret);
    }
    side_close(wal.file, name);
}
