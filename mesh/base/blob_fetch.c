#include "base/blob_fetch.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

struct blob_fetch {
    struct blobs *blobs;
    struct amp_blob_ref *refs;
    size_t n, next;
    struct blob_held *held;
    struct blob_job *job;
    void (*on_done)(void *ctx, const struct amp_error *err);
    void *ctx;
};

void blob_held_add(struct blob_held *held, const char *digest)
{
    held->digests = xrealloc(held->digests, (held->n + 1) * sizeof *held->digests);
    memcpy(held->digests[held->n++], digest, AMP_BLOB_DIGEST_SIZE);
}

void blob_held_release(struct blob_held *held, struct blobs *blobs)
{
    for (size_t i = 0; blobs && i < held->n; i++)
        blobs_release(blobs, held->digests[i]);
    free(held->digests);
    *held = (struct blob_held){.n = 0};
}

void blob_refs_add(Amp__Part *const *parts, size_t n_parts, struct amp_blob_ref **refs, size_t *n)
{
    for (size_t i = 0; i < n_parts; i++) {
        struct amp_blob_ref ref;
        if (!amp_part_is_blob(parts[i]) || amp_part_blob(parts[i], &ref, NULL) != AMP_OK)
            continue;
        *refs = xrealloc(*refs, (*n + 1) * sizeof **refs);
        (*refs)[(*n)++] = ref;
    }
}

void blob_fetch_cancel(struct blob_fetch *fetch)
{
    if (!fetch)
        return;
    blob_job_cancel(fetch->job);
    free(fetch->refs);
    free(fetch);
}

static void on_blob(void *ctx, const struct blob *blob, const struct amp_error *err);

static void next(struct blob_fetch *fetch)
{
    fetch->job = blobs_pull(fetch->blobs, &fetch->refs[fetch->next++], on_blob, fetch);
}

static void on_blob(void *ctx, const struct blob *blob, const struct amp_error *err)
{
    struct blob_fetch *fetch = ctx;
    fetch->job = NULL;
    if (blob)
        blob_held_add(fetch->held, blob->digest);
    if (blob && fetch->next < fetch->n) {
        next(fetch);
        return;
    }
    void (*on_done)(void *, const struct amp_error *) = fetch->on_done;
    void *done_ctx = fetch->ctx;
    struct amp_error why = err ? *err : (struct amp_error){.code = AMP_OK};
    blob_fetch_cancel(fetch);
    on_done(done_ctx, &why);
}

struct blob_fetch *blob_fetch_start(struct blobs *blobs, const struct amp_blob_ref *refs, size_t n, struct blob_held *held, void (*on_done)(void *ctx, const struct amp_error *err), void *ctx)
{
    struct blob_fetch *fetch = xcalloc(1, sizeof *fetch);
    *fetch = (struct blob_fetch){.blobs = blobs, .n = n, .held = held, .on_done = on_done, .ctx = ctx};
    fetch->refs = xcalloc(n, sizeof *refs);
    memcpy(fetch->refs, refs, n * sizeof *refs);
    next(fetch);
    return fetch;
}
