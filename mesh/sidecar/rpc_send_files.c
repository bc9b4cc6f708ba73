/* Files of a `send`: those of its message are taken in before it goes out, those of the answer are here before the agent gets it (amp.md 15). */
#include "sidecar/rpc_send_private.h"

#include "base/alloc.h"
#include "base/call.h"
#include "base/envcall.h"
#include "sidecar/files.h"
#include "sidecar/sidecar.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

/* ---- files in the answer ------------------------------------------------------------------------------------------- */

/* An agent gets files of this host for the blobs of its answer. */
static const cJSON *text_with_files(struct sent *sent, struct amp_error *reterr)
{
    const Amp__Task *folded = amp_fold_task(sent->fold);
    char **before = NULL;
    size_t n = 0;
    for (size_t i = 0; i < folded->n_artifacts; i++) {
        const Amp__Artifact *artifact = folded->artifacts[i];
        before = xrealloc(before, (n + artifact->n_parts + 1) * sizeof *before);
        for (size_t k = 0; k < artifact->n_parts; k++) {
            before[n++] = artifact->parts[k]->url;
            (void)!files_show(sent->rpc->sidecar, artifact->parts[k], sent->arena);
        }
    }
    const cJSON *text = rpc_sent_text(sent, NULL, reterr);
    n = 0;
    for (size_t i = 0; i < folded->n_artifacts; i++) /* the fold's own again, which it gives back */
        for (size_t k = 0; k < folded->artifacts[i]->n_parts; k++)
            folded->artifacts[i]->parts[k]->url = before[n++];
    free(before);
    return text;
}

static void on_fetched(void *ctx, const struct amp_error *err)
{
    struct sent *sent = ctx;
    struct amp_error own = *err;
    sent->fetch = NULL;
    const cJSON *task = own.code == AMP_OK ? text_with_files(sent, &own) : NULL;
    rpc_sent_answer(sent, task, &own);
}

bool rpc_sent_fetch(struct sent *sent)
{
    struct blobs *blobs = sidecar_blobs(sent->rpc->sidecar);
    const Amp__Task *folded = amp_fold_task(sent->fold);
    struct amp_blob_ref *refs = NULL;
    size_t n = 0;
    for (size_t i = 0; blobs && i < folded->n_artifacts; i++)
        blob_refs_add(folded->artifacts[i]->parts, folded->artifacts[i]->n_parts, &refs, &n);
    if (n > 0) {
        call_free(sent->call);
        env_watch_free(sent->watch);
        sent->call = NULL;
        sent->watch = NULL;
        sent->fetch = blob_fetch_start(blobs, refs, n, &sent->held, on_fetched, sent);
    }
    free(refs);
    return n > 0;
}

/* ---- files in the message ------------------------------------------------------------------------------------------ */

struct waiting { /* until they are taken in */
    struct rpc *rpc;
    struct sidecar *sidecar;
    cJSON *json;
    struct files_job *files;
    struct blob_held held;
};

static void waiting_free(struct waiting *waiting)
{
    files_cancel(waiting->files);
    blob_held_release(&waiting->held, sidecar_blobs(waiting->sidecar));
    cJSON_Delete(waiting->json);
    free(waiting);
}

static void cancel_waiting(struct rpc *rpc)
{
    waiting_free(rpc->state);
}

static void on_files(void *ctx, const struct amp_error *err)
{
    struct waiting *waiting = ctx;
    struct rpc *rpc = waiting->rpc;
    struct amp_error own = *err;
    waiting->files = NULL;
    rpc->state = NULL;
    rpc->cancel = NULL;
    if (own.code == AMP_OK)
        rpc_send_now(rpc, waiting->json, &waiting->held);
    waiting_free(waiting); /* the rpc may be gone: only its sidecar is asked */
    if (own.code != AMP_OK)
        rpc_fail(rpc, &own);
}

void rpc_send(struct rpc *rpc, const cJSON *json)
{
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(json, "message");
    if (!files_any(rpc->sidecar, cJSON_GetObjectItemCaseSensitive(message, "parts"))) {
        rpc_send_now(rpc, json, NULL);
        return;
    }
    struct waiting *waiting = xcalloc(1, sizeof *waiting);
    waiting->rpc = rpc;
    waiting->sidecar = rpc->sidecar;
    waiting->json = cJSON_Duplicate(json, true);
    rpc->state = waiting;
    rpc->cancel = cancel_waiting;
    cJSON *parts = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(waiting->json, "message"), "parts");
    waiting->files = files_start(rpc->sidecar, &parts, 1, &waiting->held, on_files, waiting);
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "durable")) || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "detach")))
        files_make_durable(waiting->files);
}
