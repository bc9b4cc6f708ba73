/* Several blobs, one after the other, and which of them somebody holds. */
#pragma once
#include "base/blobs.h"

struct blob_fetch;

/* Digests that are held for somebody; all zero: none. */
struct blob_held {
    char (*digests)[AMP_BLOB_DIGEST_SIZE];
    size_t n;
};
void blob_held_add(struct blob_held *held, const char *digest);
void blob_held_release(struct blob_held *held, struct blobs *blobs); /* all of them; it can be used again. `blobs` may be NULL if there are none */

/* The blobs of `parts`, which were checked (amp.md 15.1): appended to *refs, of which *n are there. The caller frees *refs. */
void blob_refs_add(Amp__Part *const *parts, size_t n_parts, struct amp_blob_ref **refs, size_t *n);

/* Pulls them; what has come is in `held` also after an error. on_done once, never from inside; its `err` has AMP_OK or why not. `refs` are copied. */
struct blob_fetch *blob_fetch_start(struct blobs *blobs, const struct amp_blob_ref *refs, size_t n, struct blob_held *held, void (*on_done)(void *ctx, const struct amp_error *err), void *ctx);
void blob_fetch_cancel(struct blob_fetch *fetch); /* no on_done. NULL is fine */
