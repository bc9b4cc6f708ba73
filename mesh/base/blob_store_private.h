/* What blob_store.c and blob_store_kept.c (stores whose files outlive the process) share. */
#pragma once
#include "base/blob_store.h"

#include <sodium.h>
#include <time.h>

#define HASH_FUNCTION(key, len, hash) HASH_SAX(key, len, hash)
#include <uthash.h>

/* What its file looked like when it was whole. */
struct seal {
    ino_t inode;
    struct timespec written;
};

struct kept {
    struct blob blob;
    struct seal seal;
    bool is_lost;  /* its file was changed and is gone: it waits for its holders to go, or to be brought again */
    int64_t used_ms;
    unsigned holds;
    bool is_offered;
    UT_hash_handle hh; /* by digest */
};

struct blob_store {
    char root[BLOB_PATH_SIZE];     /* <home>/spool */
    char directory[BLOB_PATH_SIZE];
    char holder[AMP_NAME_MAX + 1];
    uint64_t bytes, bytes_max, coming; /* coming: of `bytes`, what intakes have reserved */
    unsigned n_intakes, next;      /* next: names of what comes in */
    bool is_kept;
    int lock;                      /* -1: the directory is not made yet */
    struct kept *by_digest;
};

struct blob_intake {
    struct blob_store *store;
    crypto_hash_sha256_state hash;
    uint64_t size, size_max;
    char path[BLOB_PATH_SIZE];
    int fd;
    char digest[AMP_BLOB_DIGEST_SIZE]; /* once it is whole, and waits for the disk */
    struct seal seal;
};

struct blob_store *blob_store_make(const char *holder, uint64_t bytes_max, bool is_kept);
void blob_store_path_of(const struct blob_store *store, const char *digest, char ret[BLOB_PATH_SIZE]);
struct kept *blob_store_kept_find(const struct blob_store *store, const char *digest);
struct kept *blob_store_sound_find(struct blob_store *store, const char *digest); /* NULL also if its file was changed */
void blob_store_forget(struct blob_store *store, struct kept *kept);
enum amp_code blob_refuse(enum amp_code code); /* counted */
/* From now on nobody is to write to it. False: errno. */
bool blob_intake_seal(struct blob_intake *intake, struct seal *ret);
/* Its digest, which must be `wanted` if that is given; else the intake is gone. */
AMP_MUST_USE enum amp_code blob_intake_hash(struct blob_intake *intake, const char *wanted, char ret[AMP_BLOB_DIGEST_SIZE], struct amp_error *reterr);
/* Its file has its name. The intake is gone. */
struct kept *blob_intake_enter(struct blob_intake *intake, const char *digest, const struct seal *seal);
