/* Files in what an agent gives: parts that name a file of this host (local-api.md 7) become bytes in place, or blobs. Loop thread only. */
#pragma once
#include "base/blob_fetch.h"

struct cJSON;
struct files_job;
struct sidecar;

#define FILES_INLINE_MAX (64u << 10)        /* a file up to here stands in its part; above it is a blob */
#define FILES_DURABLE_INLINE_MAX (3u << 20) /* of what is durable, if a message holds it: what stands in the journal needs no file beside it */

/* Does one of the parts name a file ("file":"/path", "url":"file://…") or a blob (amp-blob:…), or is its `raw` too long for a message on this bus? NULL: none. */
bool files_any(const struct sidecar *sidecar, const struct cJSON *parts);

/* Makes each of those what it is on the mesh, in place: `raw`, or the url of a blob that this instance holds and offers, with `filename` if there was none. One after the other, in pieces;
 * what is held is in `held` also after an error. `parts` (arrays of parts, `n` of them) must live as long as the job. on_done once, never from inside. */
struct files_job *files_start(struct sidecar *sidecar, struct cJSON *const *parts, size_t n, struct blob_held *held, void (*on_done)(void *ctx, const struct amp_error *err), void *ctx);
/* Right after files_start: it is for something durable, so as much as one message holds stands in the parts. */
void files_make_durable(struct files_job *job);
void files_cancel(struct files_job *job); /* no on_done. NULL is fine */

/* Blobs that are here become files of this host in a part that an agent gets: `url` is file://<path>. What is not here stays as it is. */
AMP_MUST_USE enum amp_code files_show(struct sidecar *sidecar, Amp__Part *part, struct amp_arena *arena);
