/* The spool: blobs (amp.md 15) as files of one process, named by their digest, under <home>/spool/<holder>/. Bounded in bytes and in number, gone at the end of the
 * process; what a process that died left behind is removed by the next one that starts. Nothing is made on disk before it is needed.
 *
 * A store that is kept (blob_store_open) is the environment's: a directory of its own, whose files outlive the process and every crash. A file has its name there only when it is on the disk
 * as a whole, directory included; nothing expires, who owns the store removes what nobody refers to.
 *
 * A file is not to be changed once it is whole: its mode is 0400, and before each use it is looked at (inode, size, time of the last write). One that was changed is not there any more, for
 * any of the functions below, until it is brought again.
 *
 * Time is an argument. File access is blocking, in pieces of at most BLOB_PIECE: into the page cache, on the loop. */
#pragma once
#include <amp/amp.h>
#include <sys/types.h>

struct blob_store;
struct blob_intake;

#define BLOB_PIECE (256u << 10)
#define BLOB_STORE_BYTES_MAX ((uint64_t)8 << 30) /* of all blobs of one process; AMESH_SPOOL_BYTES says less or more */
#define BLOB_STORE_COUNT_MAX 4096u
#define BLOB_EXPIRY_MS ((int64_t)10 * 60 * 1000) /* after the last use, and not while it is held */
#define BLOB_PATH_SIZE 512
#define BLOB_KEPT_BYTES_MAX ((uint64_t)32 << 30) /* of a store that is kept; AMESH_ENV_SPOOL_BYTES says less or more */
#define BLOB_KEPT_COUNT_MAX 65536u
#define BLOB_DISK_ROOM ((uint64_t)64 << 20) /* that such a store leaves free on its disk, for the journal beside it */

struct blob {
    char digest[AMP_BLOB_DIGEST_SIZE];
    uint64_t size;
};

/* AMP_INVALID: AMESH_SPOOL_BYTES or AMESH_ENV_SPOOL_BYTES is there and no number of bytes above 0. For the start of programs. */
AMP_MUST_USE enum amp_code blob_store_check_env(struct amp_error *reterr);
/* `holder` is a valid id and nobody else's. Removes what the dead have left in `home`. `bytes_max` 0: AMESH_SPOOL_BYTES or BLOB_STORE_BYTES_MAX. */
struct blob_store *blob_store_new(const char *home, const char *holder, uint64_t bytes_max);
/* A store that is kept, in `directory`, which need not be there yet: nobody else may use it. What is in it is there; what was half written is removed. `bytes_max` 0: AMESH_ENV_SPOOL_BYTES
 * or BLOB_KEPT_BYTES_MAX. */
struct blob_store *blob_store_open(const char *directory, const char *holder, uint64_t bytes_max);
bool blob_store_is_kept(const struct blob_store *store);
void blob_store_free(struct blob_store *store); /* and its files, unless it is kept; every intake must have ended. NULL is fine */
const char *blob_store_holder(const struct blob_store *store);
uint64_t blob_store_bytes(const struct blob_store *store); /* kept or coming in */
uint64_t blob_store_bytes_max(const struct blob_store *store);

/* ---- what comes in ------------------------------------------------------------------------------------------ */

/* Begins a blob of at most `size_max` bytes, for which there must be room. AMP_TOO_LARGE: over AMP_BLOB_BYTES_MAX. AMP_OVERLOADED: the spool is full; AMP_INTERNAL:
 * its directory cannot be made. */
AMP_MUST_USE enum amp_code blob_intake_begin(struct blob_store *store, uint64_t size_max, struct blob_intake **ret, struct amp_error *reterr);
/* AMP_TOO_LARGE: more than size_max. AMP_OVERLOADED: the disk is full. */
AMP_MUST_USE enum amp_code blob_intake_write(struct blob_intake *intake, struct amp_bytes data, struct amp_error *reterr);
/* The blob is there and held once more (blob_store_release). With `wanted` it must have that digest: AMP_BAD_ANSWER. The intake is gone in any case. Not of a store that is kept. */
AMP_MUST_USE enum amp_code blob_intake_end(struct blob_intake *intake, const char *wanted, struct blob *ret, struct amp_error *reterr);
void blob_intake_abort(struct blob_intake *intake); /* NULL is fine */
/* The same of a store that is kept, in three steps, of which only the second one waits for the disk: it may run on another thread and touches nothing but what blob_intake_check has filled in.
 * Check: AMP_BAD_ANSWER (the intake is gone). With *ret_is_there the same blob is there already, held once more in *ret, and the intake is gone. */
struct blob_sync {
    int fd; /* of the file; closed by blob_sync_run */
    int error; /* errno, or 0 */
    char from[BLOB_PATH_SIZE], to[BLOB_PATH_SIZE], directory[BLOB_PATH_SIZE];
};
AMP_MUST_USE enum amp_code blob_intake_check(struct blob_intake *intake, const char *wanted, struct blob_sync *sync, bool *ret_is_there, struct blob *ret, struct amp_error *reterr);
void blob_sync_run(struct blob_sync *sync);
struct blob_store *blob_intake_store(const struct blob_intake *intake);
/* AMP_OVERLOADED: the disk is full; AMP_INTERNAL. The intake is gone. */
AMP_MUST_USE enum amp_code blob_intake_synced(struct blob_intake *intake, const struct blob_sync *sync, struct blob *ret, struct amp_error *reterr);

/* ---- what is there ------------------------------------------------------------------------------------------- */

/* Others may read it (amp.md 15.5). */
void blob_store_offer(struct blob_store *store, const char *digest);
bool blob_store_is_offered(const struct blob_store *store, const char *digest);
bool blob_store_find(struct blob_store *store, const char *digest, struct blob *ret);
/* One more or one less needs it. A blob that nobody holds goes when it was not used for BLOB_EXPIRY_MS. Hold: false, if it is not there. */
bool blob_store_hold(struct blob_store *store, const char *digest, int64_t now_ms);
void blob_store_release(struct blob_store *store, const char *digest, int64_t now_ms);
/* Reads at most `size` bytes from `offset` on; it counts as a use. -1: not there (*reterr). */
ssize_t blob_store_read(struct blob_store *store, const char *digest, uint64_t offset, void *ret, size_t size, int64_t now_ms, struct amp_error *reterr);
/* Where its file is. False: not there (errno). */
bool blob_store_path(struct blob_store *store, const char *digest, char ret[BLOB_PATH_SIZE]);
/* The digest that a path of this store stands for; NULL: it is not one of ours. Valid as long as `path`. */
const char *blob_store_digest_of(const struct blob_store *store, const char *path);
/* A directory beside the blobs, for files of one task: <spool>/<name>. Made with its parents. */
AMP_MUST_USE enum amp_code blob_store_directory(struct blob_store *store, const char *name, char ret[BLOB_PATH_SIZE], struct amp_error *reterr);
void blob_store_remove_directory(struct blob_store *store, const char *name); /* with everything in it */
/* Of a store that is kept: each blob that is there, as long as `visit` returns true; it may remove the one that it is given. */
void blob_store_each(struct blob_store *store, bool (*visit)(void *ctx, const struct blob *blob, unsigned holds), void *ctx);
/* Nobody needs it any more; one that is held stays: false. */
bool blob_store_remove(struct blob_store *store, const char *digest);
unsigned blob_store_count(const struct blob_store *store);
/* Removes what has expired. */
void blob_store_expire(struct blob_store *store, int64_t now_ms);
