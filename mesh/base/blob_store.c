#include "base/blob_store_private.h"

#include "base/alloc.h"
#include "base/blob_files.h"
#include "base/counters.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SEAL_BACK_S 2 /* more than the grain of a file's time */

enum amp_code blob_refuse(enum amp_code code)
{
    counter_add(COUNTER_blobs_refused, 1);
    return code;
}

/* ---- the directory ------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint64_t bytes;
} maxima[] = {{"AMESH_SPOOL_BYTES", BLOB_STORE_BYTES_MAX}, {"AMESH_ENV_SPOOL_BYTES", BLOB_KEPT_BYTES_MAX}}; /* of a store, and of one that is kept */

/* 0: it is there and no number of bytes. */
static uint64_t bytes_max_from_env(bool is_kept)
{
    const char *text = getenv(maxima[is_kept].name);
    char *end = NULL;
    if (!text || *text == '\0')
        return maxima[is_kept].bytes;
    errno = 0;
    unsigned long long given = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    return end && *end == '\0' && errno == 0 && given <= INT64_MAX ? given : 0;
}

enum amp_code blob_store_check_env(struct amp_error *reterr)
{
    for (size_t i = 0; i < sizeof maxima / sizeof *maxima; i++) {
        if (bytes_max_from_env(i > 0) > 0)
            continue;
        (void)amp_error_set(reterr, AMP_INVALID, "", "%s is a number of bytes above 0, such as 8589934592, not \"%.60s\"", maxima[i].name, getenv(maxima[i].name));
        amp_error_hint(reterr, "unset it for %" PRIu64, maxima[i].bytes);
        return AMP_INVALID;
    }
    return AMP_OK;
}

struct blob_store *blob_store_make(const char *holder, uint64_t bytes_max, bool is_kept)
{
    struct blob_store *store = xcalloc(1, sizeof *store);
    assert(amp_id_is_valid(holder));
    (void)snprintf(store->holder, sizeof store->holder, "%s", holder);
    store->is_kept = is_kept;
    store->bytes_max = bytes_max ? bytes_max : bytes_max_from_env(is_kept);
    store->bytes_max = store->bytes_max ? store->bytes_max : maxima[is_kept].bytes;
    store->lock = -1;
    return store;
}

struct blob_store *blob_store_new(const char *home, const char *holder, uint64_t bytes_max)
{
    struct blob_store *store = blob_store_make(holder, bytes_max, false);
    (void)snprintf(store->root, sizeof store->root, "%.300s/spool", home);
    (void)snprintf(store->directory, sizeof store->directory, "%.320s/%s", store->root, holder);
    blob_files_sweep(store->root);
    return store;
}

static enum amp_code directory_make(struct blob_store *store, struct amp_error *reterr)
{
    if (store->is_kept)
        return blob_files_make_kept(store->directory, reterr);
    return store->lock >= 0 ? AMP_OK : blob_files_make(store->root, store->directory, &store->lock, reterr);
}

const char *blob_store_holder(const struct blob_store *store) { return store->holder; }
uint64_t blob_store_bytes(const struct blob_store *store) { return store->bytes; }
uint64_t blob_store_bytes_max(const struct blob_store *store) { return store->bytes_max; }

void blob_store_path_of(const struct blob_store *store, const char *digest, char ret[BLOB_PATH_SIZE])
{
    (void)snprintf(ret, BLOB_PATH_SIZE, "%.400s/%s", store->directory, digest);
}

void blob_store_forget(struct blob_store *store, struct kept *kept)
{
    char path[BLOB_PATH_SIZE];
    blob_store_path_of(store, kept->blob.digest, path);
    if (!kept->is_lost) {
        (void)unlink(path);
        store->bytes -= kept->blob.size;
    }
    HASH_DEL(store->by_digest, kept);
    free(kept);
}

void blob_store_free(struct blob_store *store)
{
    if (!store)
        return;
    assert(store->n_intakes == 0);
    struct kept *kept, *next;
    HASH_ITER(hh, store->by_digest, kept, next)
    {
        kept->is_lost |= store->is_kept; /* its file stays */
        blob_store_forget(store, kept);
    }
    if (store->lock >= 0) {
        blob_files_remove(store->directory);
        (void)close(store->lock);
    }
    free(store);
}

enum amp_code blob_store_directory(struct blob_store *store, const char *name, char ret[BLOB_PATH_SIZE], struct amp_error *reterr)
{
    enum amp_code code = directory_make(store, reterr);
    if (code != AMP_OK)
        return code;
    (void)snprintf(ret, BLOB_PATH_SIZE, "%.400s/%.90s", store->directory, name);
    if (mkdir(ret, 0700) == 0 || errno == EEXIST)
        return AMP_OK;
    return amp_error_set(reterr, errno == ENOSPC ? AMP_OVERLOADED : AMP_INTERNAL, "", "cannot make %.300s: %s", ret, strerror(errno));
}

void blob_store_remove_directory(struct blob_store *store, const char *name)
{
    char path[BLOB_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%.400s/%.90s", store->directory, name);
    blob_files_remove(path);
}

/* ---- what comes in -------------------------------------------------------------------------------------------- */

/* What fills the disk of the journal stops the environment. */
static enum amp_code check_disk(const struct blob_store *store, uint64_t size, struct amp_error *reterr)
{
    struct statvfs disk;
    if (!store->is_kept || statvfs(store->directory, &disk) != 0)
        return AMP_OK; /* what it is about is seen when it is written */
    uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (free_bytes >= store->coming + size + BLOB_DISK_ROOM)
        return AMP_OK;
    (void)amp_error_set(reterr, AMP_OVERLOADED, "", "the disk of %.200s has %" PRIu64 " bytes left, %" PRIu64 " of them for files that come already: no room for %" PRIu64 " more beside the journal", store->directory,
                        free_bytes, store->coming, size);
    amp_error_hint(reterr, "make room on that disk");
    return AMP_OVERLOADED;
}

static enum amp_code check_room(struct blob_store *store, uint64_t size, struct amp_error *reterr)
{
    if (size > AMP_BLOB_BYTES_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "", "a file of %" PRIu64 " bytes; at most %u are allowed", size, AMP_BLOB_BYTES_MAX);
    if (store->bytes + size > store->bytes_max) {
        enum amp_code code = store->is_kept && size > store->bytes_max ? AMP_TOO_LARGE : AMP_OVERLOADED;
        (void)amp_error_set(reterr, code, "", "the spool %.200s has %" PRIu64 " of at most %" PRIu64 " bytes: no room for %" PRIu64 " more", store->directory, store->bytes, store->bytes_max, size);
        amp_error_hint(reterr, store->is_kept ? "files go with their tasks (amesh up --retain-age AGE); AMESH_ENV_SPOOL_BYTES, where the environment starts, sets the limit"
                                              : "files that nobody uses go after 10 minutes; AMESH_SPOOL_BYTES sets the limit");
        return code;
    }
    unsigned count_max = store->is_kept ? BLOB_KEPT_COUNT_MAX : BLOB_STORE_COUNT_MAX;
    if (HASH_COUNT(store->by_digest) + store->n_intakes >= count_max)
        return amp_error_set(reterr, AMP_OVERLOADED, "", "the spool %.200s has %u files already", store->directory, count_max);
    return check_disk(store, size, reterr);
}

enum amp_code blob_intake_begin(struct blob_store *store, uint64_t size_max, struct blob_intake **ret, struct amp_error *reterr)
{
    enum amp_code code = check_room(store, size_max, reterr);
    if (code == AMP_OK)
        code = directory_make(store, reterr);
    if (code != AMP_OK)
        return blob_refuse(code);
    struct blob_intake *intake = xcalloc(1, sizeof *intake);
    intake->store = store;
    intake->size_max = size_max;
    (void)snprintf(intake->path, sizeof intake->path, "%.400s/in-%u", store->directory, store->next++);
    intake->fd = open(intake->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (intake->fd < 0) {
        code = amp_error_set(reterr, errno == ENOSPC || errno == EMFILE || errno == EDQUOT ? AMP_OVERLOADED : AMP_INTERNAL, "", "cannot write %.300s: %s", intake->path, strerror(errno));
        free(intake);
        return blob_refuse(code);
    }
    (void)crypto_hash_sha256_init(&intake->hash);
    store->bytes += size_max;
    store->coming += size_max;
    store->n_intakes++;
    *ret = intake;
    return AMP_OK;
}

enum amp_code blob_intake_write(struct blob_intake *intake, struct amp_bytes data, struct amp_error *reterr)
{
    if (intake->size + data.len > intake->size_max)
        return blob_refuse(amp_error_set(reterr, AMP_TOO_LARGE, "", "more than the %" PRIu64 " bytes that were said", intake->size_max));
    (void)crypto_hash_sha256_update(&intake->hash, data.data, data.len);
    intake->size += data.len;
    while (data.len > 0) {
        ssize_t n = write(intake->fd, data.data, data.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            bool is_full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
            return blob_refuse(amp_error_set(reterr, is_full ? AMP_OVERLOADED : AMP_INTERNAL, "", "cannot write %.300s: %s", intake->path, strerror(errno)));
        }
        data.data += n;
        data.len -= (size_t)n;
    }
    return AMP_OK;
}

/* What it had reserved and does not need is free again. */
static void intake_free(struct blob_intake *intake, uint64_t kept_bytes)
{
    intake->store->bytes -= intake->size_max - kept_bytes;
    intake->store->coming -= intake->size_max;
    intake->store->n_intakes--;
    free(intake);
}

void blob_intake_abort(struct blob_intake *intake)
{
    if (!intake)
        return;
    if (intake->fd >= 0)
        (void)close(intake->fd);
    (void)unlink(intake->path);
    intake_free(intake, 0);
}

/* From now on nobody is to write to it. Who does so all the same (root; an agent through the link it was given) is known by the file's time, which is set back so far that no write to come
 * can have the same. */
bool blob_intake_seal(struct blob_intake *intake, struct seal *ret)
{
    int fd = intake->fd;
    struct stat info;
    if (fchmod(fd, 0400) != 0 || fstat(fd, &info) != 0)
        return false;
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = info.st_mtim.tv_sec - SEAL_BACK_S}};
    if (futimens(fd, times) != 0 || fstat(fd, &info) != 0)
        return false;
    *ret = (struct seal){.inode = info.st_ino, .written = info.st_mtim};
    return true;
}

struct kept *blob_store_kept_find(const struct blob_store *store, const char *digest)
{
    struct kept *kept = NULL;
    if (amp_blob_digest_is_valid(digest))
        HASH_FIND(hh, store->by_digest, digest, AMP_BLOB_DIGEST_SIZE - 1, kept);
    return kept;
}

/* Is it what it was when it was whole? One that is not is thrown away; those who hold it hold nothing until it is brought again. */
static bool look(struct blob_store *store, struct kept *kept)
{
    char path[BLOB_PATH_SIZE];
    struct stat info;
    if (kept->is_lost)
        return false;
    blob_store_path_of(store, kept->blob.digest, path);
    if (lstat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_ino == kept->seal.inode && (uint64_t)info.st_size == kept->blob.size &&
        info.st_mtim.tv_sec == kept->seal.written.tv_sec && info.st_mtim.tv_nsec == kept->seal.written.tv_nsec)
        return true;
    counter_add(COUNTER_blobs_refused, 1);
    if (!store->is_kept) /* there it is evidence, and perhaps the last copy that somebody can repair */
        (void)unlink(path);
    store->bytes -= kept->blob.size;
    kept->is_lost = true;
    return false;
}

struct kept *blob_store_sound_find(struct blob_store *store, const char *digest)
{
    struct kept *kept = blob_store_kept_find(store, digest);
    return kept && look(store, kept) ? kept : NULL;
}

struct kept *blob_intake_enter(struct blob_intake *intake, const char *digest, const struct seal *seal)
{
    struct blob_store *store = intake->store;
    struct kept *kept = blob_store_kept_find(store, digest);
    if (!kept) {
        kept = xcalloc(1, sizeof *kept);
        memcpy(kept->blob.digest, digest, AMP_BLOB_DIGEST_SIZE);
        kept->is_lost = true;
        HASH_ADD(hh, store->by_digest, blob.digest, AMP_BLOB_DIGEST_SIZE - 1, kept);
    }
    uint64_t more = kept->is_lost ? intake->size : 0; /* else two of the same came at once, and the second one took the place of the first */
    kept->blob.size = intake->size;
    kept->seal = *seal;
    kept->is_lost = false;
    intake_free(intake, more);
    return kept;
}

/* NULL: *reterr. The intake is gone in both cases. */
static struct kept *keep(struct blob_intake *intake, const char *digest, struct amp_error *reterr)
{
    struct blob_store *store = intake->store;
    char path[BLOB_PATH_SIZE];
    struct seal seal;
    blob_store_path_of(store, digest, path);
    bool is_sealed = blob_intake_seal(intake, &seal);
    if (close(intake->fd) != 0 || !is_sealed || rename(intake->path, path) != 0) {
        (void)amp_error_set(reterr, AMP_INTERNAL, "", "cannot write %.300s: %s", path, strerror(errno));
        (void)unlink(intake->path);
        intake_free(intake, 0);
        return NULL;
    }
    return blob_intake_enter(intake, digest, &seal);
}

enum amp_code blob_intake_hash(struct blob_intake *intake, const char *wanted, char ret[AMP_BLOB_DIGEST_SIZE], struct amp_error *reterr)
{
    uint8_t hash[AMP_BLOB_HASH_SIZE];
    (void)crypto_hash_sha256_final(&intake->hash, hash);
    amp_blob_digest_format(hash, ret);
    if (!wanted || strcmp(wanted, ret) == 0)
        return AMP_OK;
    enum amp_code code = amp_error_set(reterr, AMP_BAD_ANSWER, "", "the bytes are not those of %s: theirs is %s", wanted, ret); /* ret may be the intake's own */
    blob_intake_abort(intake);
    return blob_refuse(code);
}

enum amp_code blob_intake_end(struct blob_intake *intake, const char *wanted, struct blob *ret, struct amp_error *reterr)
{
    struct blob_store *store = intake->store;
    char digest[AMP_BLOB_DIGEST_SIZE];
    assert(!store->is_kept);
    enum amp_code code = blob_intake_hash(intake, wanted, digest, reterr);
    if (code != AMP_OK)
        return code;
    struct kept *kept = blob_store_sound_find(store, digest);
    if (kept) /* the same bytes are there already */
        blob_intake_abort(intake);
    else
        kept = keep(intake, digest, reterr);
    if (!kept)
        return blob_refuse(AMP_INTERNAL);
    kept->holds++;
    *ret = kept->blob;
    return AMP_OK;
}

/* ---- what is there --------------------------------------------------------------------------------------------- */

bool blob_store_find(struct blob_store *store, const char *digest, struct blob *ret)
{
    struct kept *kept = blob_store_sound_find(store, digest);
    if (kept)
        *ret = kept->blob;
    return kept != NULL;
}

void blob_store_offer(struct blob_store *store, const char *digest)
{
    struct kept *kept = blob_store_kept_find(store, digest);
    if (kept)
        kept->is_offered = true;
}

bool blob_store_is_offered(const struct blob_store *store, const char *digest)
{
    const struct kept *kept = blob_store_kept_find(store, digest);
    return kept && kept->is_offered;
}

bool blob_store_hold(struct blob_store *store, const char *digest, int64_t now_ms)
{
    struct kept *kept = blob_store_kept_find(store, digest);
    if (!kept)
        return false;
    kept->holds++;
    kept->used_ms = now_ms;
    return true;
}

void blob_store_release(struct blob_store *store, const char *digest, int64_t now_ms)
{
    struct kept *kept = blob_store_kept_find(store, digest);
    if (!kept)
        return;
    assert(kept->holds > 0);
    kept->holds--;
    kept->used_ms = now_ms;
}

ssize_t blob_store_read(struct blob_store *store, const char *digest, uint64_t offset, void *ret, size_t size, int64_t now_ms, struct amp_error *reterr)
{
    char path[BLOB_PATH_SIZE];
    struct kept *kept = blob_store_kept_find(store, digest);
    if (!kept) {
        (void)amp_error_set(reterr, AMP_NOT_FOUND, "", "%s has no blob %.80s, or not any more", store->holder, digest);
        return -1;
    }
    if (!look(store, kept)) {
        (void)amp_error_set(reterr, AMP_NOT_FOUND, "", "%s has blob %.80s no more: its file in the spool was changed or removed", store->holder, digest);
        return -1;
    }
    kept->used_ms = now_ms;
    blob_store_path_of(store, digest, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : pread(fd, ret, offset < kept->blob.size ? size : 0, (off_t)offset);
    if (n < 0)
        (void)amp_error_set(reterr, AMP_NOT_FOUND, "", "the file of blob %.80s cannot be read: %s", digest, strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    return n;
}

bool blob_store_path(struct blob_store *store, const char *digest, char ret[BLOB_PATH_SIZE])
{
    if (!blob_store_sound_find(store, digest)) {
        errno = ENOENT;
        return false;
    }
    blob_store_path_of(store, digest, ret);
    return true;
}

const char *blob_store_digest_of(const struct blob_store *store, const char *path)
{
    size_t len = strlen(store->directory);
    if (strncmp(path, store->directory, len) != 0 || path[len] != '/' || !blob_store_kept_find(store, path + len + 1))
        return NULL;
    return path + len + 1;
}

void blob_store_expire(struct blob_store *store, int64_t now_ms)
{
    struct kept *kept, *next;
    HASH_ITER(hh, store->by_digest, kept, next) {
        if (!store->is_kept && kept->holds == 0 && now_ms - kept->used_ms >= BLOB_EXPIRY_MS)
            blob_store_forget(store, kept);
    }
}
