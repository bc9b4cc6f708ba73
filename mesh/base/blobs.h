/* Blobs of one process on the bus (amp.md 15): serves those that it offers, pulls those of others, takes files in. Loop thread only; what takes long goes in pieces, one a turn.
 *
 * A job ends with one on_done, never from inside the call that starts it: the blob, which is held once for who asked (blobs_release), or why not. */
#pragma once
#include "base/blob_store.h"

struct bus;
struct loop;
struct blobs;
struct blob_job;

#define BLOB_JOBS_MAX 64u                    /* pulls and intakes at once */
#define BLOB_SERVE_BYTES_MAX ((size_t)8 << 20) /* that may wait to be written to the bus; more reads are told to come back */
#define BLOB_SERVE_RETRY_MS 50u
#define BLOB_LINGER_MS 1000                  /* a holder that leaves stays so long after it was last asked */

typedef void blob_on_done(void *ctx, const struct blob *blob, const struct amp_error *err); /* exactly one of them is not NULL */

struct blobs_options {
    const char *home;   /* path; not used with `kept` */
    const char *kept;   /* a directory: the store is kept there (blob_store_open), and every pull asks the holder, as who names a blob must have its bytes. Else NULL */
    const char *holder; /* a new valid id, under which others find us */
    const char *from;   /* sender of our reads */
};
struct blobs *blobs_new(struct loop *loop, struct bus *bus, const struct blobs_options *options);
void blobs_free(struct blobs *blobs); /* jobs end without on_done; the files go. NULL is fine */
struct blob_store *blobs_store(struct blobs *blobs);

/* Others may read here what was offered, also by the process before. blobs_offer does so, too. */
void blobs_serve(struct blobs *blobs);
/* From its holder, unless it is here. */
struct blob_job *blobs_pull(struct blobs *blobs, const struct amp_blob_ref *ref, blob_on_done *on_done, void *ctx);
/* A copy of a regular file. */
struct blob_job *blobs_add_file(struct blobs *blobs, const char *path, blob_on_done *on_done, void *ctx);
void blob_job_cancel(struct blob_job *job); /* no on_done. NULL is fine */
/* A few bytes, at once; held for the caller. */
AMP_MUST_USE enum amp_code blobs_add(struct blobs *blobs, struct amp_bytes data, struct blob *ret, struct amp_error *reterr);
void blobs_release(struct blobs *blobs, const char *digest);
bool blobs_hold(struct blobs *blobs, const char *digest);
/* For so long somebody may still want what was offered here: it was offered or read less than BLOB_LINGER_MS ago. 0: nobody does. */
uint32_t blobs_wanted_ms(const struct blobs *blobs);
/* From now on others may read it here. *ret is what a part says of it. */
void blobs_offer(struct blobs *blobs, const struct blob *blob, struct amp_blob_ref *ret);
