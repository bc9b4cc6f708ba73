/* What nobody needs any more: each file is looked up in the journal, a few in one turn. One without a row is removed when it has had none for a while, as a backup, a reader or a submit that is
 * under way may still want it; at the start, when nothing is under way, at once. */
#include "env/files.h"

#include "base/alloc.h"
#include "base/blobs.h"
#include "base/command.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define EVERY_MS 60000u
#define SLICE 64u
#define SLICE_MS 10u

struct payer { /* a sender, and the bytes of the files that it brought first */
    UT_hash_handle hh;
    uint64_t bytes;
    unsigned n_files;
    char name[AMP_NAME_MAX + 1];
};

struct charged { /* a file */
    UT_hash_handle hh;
    struct payer *payer;
    uint64_t size;
    int64_t orphan_ms; /* since when it has no row; 0: it has, as far as is known */
    char digest[AMP_BLOB_DIGEST_SIZE];
};

struct files_sweep {
    struct env *env;
    struct loop_timer *timer;
    struct charged *charged;
    struct payer *payers;
    char (*digests)[AMP_BLOB_DIGEST_SIZE]; /* of the round */
    size_t n, next, cap;
    unsigned grace_ms;
    bool is_first; /* the first round */
};

/* ---- who has what -------------------------------------------------------------------------------------------------------- */

static struct payer *payer_of(struct files_sweep *sweep, const char *name)
{
    struct payer *payer;
    HASH_FIND_STR(sweep->payers, name, payer);
    if (payer)
        return payer;
    payer = xcalloc(1, sizeof *payer);
    etask_strcpy(payer->name, name);
    HASH_ADD_STR(sweep->payers, name, payer);
    return payer;
}

static void pay_back(struct files_sweep *sweep, struct charged *charged)
{
    struct payer *payer = charged->payer;
    payer->bytes -= charged->size;
    if (--payer->n_files == 0) {
        HASH_DEL(sweep->payers, payer);
        free(payer);
    }
    HASH_DEL(sweep->charged, charged);
    free(charged);
}

static struct charged *charged_of(struct files_sweep *sweep, const char *digest)
{
    struct charged *charged;
    HASH_FIND_STR(sweep->charged, digest, charged);
    return charged;
}

void files_sweep_charge(struct files_sweep *sweep, const char *digest, const char *sender, uint64_t size)
{
    if (charged_of(sweep, digest))
        return;
    struct charged *charged = xcalloc(1, sizeof *charged);
    memcpy(charged->digest, digest, sizeof charged->digest);
    charged->size = size;
    charged->payer = payer_of(sweep, sender);
    charged->payer->bytes += size;
    charged->payer->n_files++;
    HASH_ADD_STR(sweep->charged, digest, charged);
}

uint64_t files_sweep_charged(const struct files_sweep *sweep, const char *sender)
{
    const struct payer *payer;
    HASH_FIND_STR(sweep->payers, sender, payer);
    return payer ? payer->bytes : 0;
}

/* ---- one file -------------------------------------------------------------------------------------------------------------- */

struct row {
    bool is_there;
    char sender[AMP_NAME_MAX + 1];
};

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct row *found = ctx;
    cJSON *json = cJSON_ParseWithLength((const char *)row->body.data, row->body.len);
    found->is_there = true;
    etask_strcpy(found->sender, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "from")));
    cJSON_Delete(json);
    return false;
}

static void remove_file(struct files_sweep *sweep, struct charged *charged)
{
    struct env *env = sweep->env;
    if (!blob_store_remove(blobs_store(files_blobs(env)), charged->digest))
        return; /* somebody holds it */
    log_event(LOG_DEBUG, "env.file_removed", "digest", charged->digest, NULL);
    counter_add(COUNTER_env_files_removed, 1);
    pay_back(sweep, charged);
}

static void look_at(struct files_sweep *sweep, const char *digest)
{
    struct env *env = sweep->env;
    int64_t now_ms = loop_now_ms(env->loop);
    struct journal_kv_query query = {.scope = JOURNAL_SCOPE_BLOB, .owner = digest, .key = "", .is_prefix = true};
    struct row row = {.is_there = false};
    struct blob blob;
    enum amp_code code = journal_kv(env->journal, &query, on_row, &row);
    if (code != AMP_OK && code != AMP_NOT_FOUND)
        return; /* what cannot be read is no reason to remove anything */
    if (!charged_of(sweep, digest) && blob_store_find(blobs_store(files_blobs(env)), digest, &blob))
        files_sweep_charge(sweep, digest, row.sender, blob.size);
    struct charged *charged = charged_of(sweep, digest);
    if (!charged)
        return;
    if (row.is_there)
        charged->orphan_ms = 0;
    else if (!charged->orphan_ms && !sweep->is_first)
        charged->orphan_ms = now_ms > 0 ? now_ms : 1;
    else if (sweep->is_first || now_ms - charged->orphan_ms >= sweep->grace_ms)
        remove_file(sweep, charged);
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------------ */

static bool note(void *ctx, const struct blob *blob, unsigned holds)
{
    struct files_sweep *sweep = ctx;
    if (sweep->n == sweep->cap) {
        sweep->cap = sweep->cap ? sweep->cap * 2 : 64;
        sweep->digests = xrealloc(sweep->digests, sweep->cap * sizeof *sweep->digests);
    }
    if (holds == 0)
        memcpy(sweep->digests[sweep->n++], blob->digest, sizeof blob->digest);
    return true;
}

static void on_timer(void *ctx)
{
    struct files_sweep *sweep = ctx;
    struct env *env = sweep->env;
    unsigned every_ms = sweep->grace_ms / 2 < EVERY_MS ? sweep->grace_ms / 2 + 1 : EVERY_MS;
    if (sweep->next == sweep->n) {
        sweep->n = sweep->next = 0;
        blob_store_each(blobs_store(files_blobs(env)), note, sweep);
    }
    bool is_sound = !journal_failure(env->journal) && !journal_damage(env->journal); /* else a row that does not come says nothing */
    for (unsigned i = 0; i < SLICE && sweep->next < sweep->n && is_sound; i++)
        look_at(sweep, sweep->digests[sweep->next++]);
    bool is_round_over = sweep->next == sweep->n;
    sweep->is_first &= !is_round_over;
    loop_timer_set(sweep->timer, is_round_over || !is_sound ? every_ms : SLICE_MS);
}

struct files_sweep *files_sweep_new(struct env *env)
{
    struct files_sweep *sweep = xcalloc(1, sizeof *sweep);
    const char *text = getenv("AMESH_ENV_SPOOL_GRACE");
    sweep->env = env;
    sweep->is_first = true;
    if (!text || !*text || !command_duration_ms(text, &sweep->grace_ms))
        sweep->grace_ms = FILES_GRACE_MS;
    sweep->timer = loop_timer_new(env->loop, on_timer, sweep);
    loop_timer_set(sweep->timer, SLICE_MS);
    return sweep;
}

void files_sweep_free(struct files_sweep *sweep)
{
    if (!sweep)
        return;
    while (sweep->charged)
        pay_back(sweep, sweep->charged);
    loop_timer_free(sweep->timer);
    free(sweep->digests);
    free(sweep);
}
