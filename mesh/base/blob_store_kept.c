/* A store whose files outlive the process (blob_store.h). A file gets its name when its bytes are on the disk, and counts as there when its name is, too. */
#include "base/blob_store_private.h"

#include "base/alloc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum amp_code blob_intake_check(struct blob_intake *intake, const char *wanted, struct blob_sync *sync, bool *ret_is_there, struct blob *ret, struct amp_error *reterr)
{
    struct blob_store *store = intake->store;
    enum amp_code code = blob_intake_hash(intake, wanted, intake->digest, reterr);
    if (code != AMP_OK)
        return code;
    struct kept *kept = blob_store_sound_find(store, intake->digest);
    *ret_is_there = kept != NULL;
    if (kept) {
        kept->holds++;
        *ret = kept->blob;
        blob_intake_abort(intake);
        return AMP_OK;
    }
    if (!blob_intake_seal(intake, &intake->seal)) {
        code = amp_error_set(reterr, AMP_INTERNAL, "", "cannot write %.300s: %s", intake->path, strerror(errno));
        blob_intake_abort(intake);
        return blob_refuse(code);
    }
    *sync = (struct blob_sync){.fd = intake->fd};
    memcpy(sync->from, intake->path, sizeof sync->from);
    memcpy(sync->directory, store->directory, sizeof sync->directory);
    blob_store_path_of(store, intake->digest, sync->to);
    intake->fd = -1;
    return AMP_OK;
}

/* The name comes after the bytes: a file that has it is whole, whatever happens. */
void blob_sync_run(struct blob_sync *sync)
{
    sync->error = fsync(sync->fd) == 0 ? 0 : errno;
    if (close(sync->fd) != 0 && sync->error == 0)
        sync->error = errno;
    if (sync->error == 0 && rename(sync->from, sync->to) != 0)
        sync->error = errno;
    int directory = sync->error == 0 ? open(sync->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (sync->error == 0 && (directory < 0 || fsync(directory) != 0))
        sync->error = errno;
    if (directory >= 0)
        (void)close(directory);
}

enum amp_code blob_intake_synced(struct blob_intake *intake, const struct blob_sync *sync, struct blob *ret, struct amp_error *reterr)
{
    char digest[AMP_BLOB_DIGEST_SIZE];
    if (sync->error != 0) {
        bool is_full = sync->error == ENOSPC || sync->error == EDQUOT;
        enum amp_code code = amp_error_set(reterr, is_full ? AMP_OVERLOADED : AMP_INTERNAL, "", "cannot write %.300s to the disk: %s", sync->to, strerror(sync->error));
        if (!blob_store_kept_find(intake->store, intake->digest))
            (void)unlink(sync->to); /* if only its directory could not be written */
        blob_intake_abort(intake);
        return blob_refuse(code);
    }
    memcpy(digest, intake->digest, sizeof digest);
    struct seal seal = intake->seal;
    struct kept *kept = blob_intake_enter(intake, digest, &seal);
    kept->holds++;
    *ret = kept->blob;
    return AMP_OK;
}

struct blob_store *blob_intake_store(const struct blob_intake *intake)
{
    return intake->store;
}

/* What is there has its name, and so was whole once. */
static void take_up(struct blob_store *store, const char *name)
{
    char path[BLOB_PATH_SIZE];
    struct stat info;
    blob_store_path_of(store, name, path);
    if (!amp_blob_digest_is_valid(name)) {
        if (strncmp(name, "in-", 3) == 0)
            (void)unlink(path);
        return;
    }
    if (lstat(path, &info) != 0 || !S_ISREG(info.st_mode))
        return;
    struct kept *kept = xcalloc(1, sizeof *kept);
    memcpy(kept->blob.digest, name, AMP_BLOB_DIGEST_SIZE);
    kept->blob.size = (uint64_t)info.st_size;
    kept->seal = (struct seal){.inode = info.st_ino, .written = info.st_mtim};
    kept->is_offered = true;
    store->bytes += kept->blob.size;
    HASH_ADD(hh, store->by_digest, blob.digest, AMP_BLOB_DIGEST_SIZE - 1, kept);
}

struct blob_store *blob_store_open(const char *directory, const char *holder, uint64_t bytes_max)
{
    struct blob_store *store = blob_store_make(holder, bytes_max, true);
    (void)snprintf(store->directory, sizeof store->directory, "%.400s", directory);
    DIR *entries = opendir(directory);
    const struct dirent *entry;
    while (entries && (entry = readdir(entries)))
        take_up(store, entry->d_name);
    if (entries)
        (void)closedir(entries);
    return store;
}

bool blob_store_is_kept(const struct blob_store *store) { return store->is_kept; }
unsigned blob_store_count(const struct blob_store *store) { return HASH_COUNT(store->by_digest); }

void blob_store_each(struct blob_store *store, bool (*visit)(void *ctx, const struct blob *blob, unsigned holds), void *ctx)
{
    struct kept *kept, *next;
    HASH_ITER(hh, store->by_digest, kept, next)
    {
        if (!visit(ctx, &kept->blob, kept->holds))
            return;
    }
}

bool blob_store_remove(struct blob_store *store, const char *digest)
{
    struct kept *kept = blob_store_kept_find(store, digest);
    char path[BLOB_PATH_SIZE];
    if (!kept)
        return true;
    if (kept->holds > 0)
        return false;
    blob_store_path_of(store, digest, path);
    (void)unlink(path); /* also of one that was changed */
    blob_store_forget(store, kept);
    return true;
}
