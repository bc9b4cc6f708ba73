#include "env/files.h"

#include "base/alloc.h"
#include "base/blobs.h"
#include "base/clock.h"
#include "base/command.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

struct files_fetch {
    TAILQ_ENTRY(files_fetch) entry;
    struct files *files;
    char sender[AMP_NAME_MAX + 1];
    struct amp_blob_ref *refs;
    size_t n;
    uint64_t bytes;
    bool is_answer;
    struct amp_error error; /* known before it began */
    struct blob_held *held;
    struct blob_fetch *fetch; /* NULL: it waits for its turn */
    void (*on_done)(void *ctx, const struct amp_error *err);
    void *ctx;
};
TAILQ_HEAD(fetches, files_fetch);

struct files {
    struct env *env;
    char *directory;
    struct blobs *blobs; /* NULL: not needed yet */
    struct files_sweep *sweep;
    struct fetches waiting, going;
    unsigned n_waiting, n_going;
    struct loop_timer *turn;
};

/* ---- the store ------------------------------------------------------------------------------------------------------- */

struct blobs *files_blobs(struct env *env)
{
    struct files *files = env->files;
    if (files->blobs)
        return files->blobs;
    files->blobs = blobs_new(env->loop, env->bus, &(struct blobs_options){.kept = files->directory, .holder = env->name, .from = env->name});
    blobs_serve(files->blobs);
    files->sweep = files_sweep_new(env);
    return files->blobs;
}

static void on_turn(void *ctx);

void files_begin(struct env *env, const char *journal_path)
{
    struct files *files = xcalloc(1, sizeof *files);
    struct stat info;
    files->env = env;
    files->directory = xasprintf("%s" JOURNAL_FILES, journal_path);
    files->turn = loop_timer_new(env->loop, on_turn, files);
    TAILQ_INIT(&files->waiting);
    TAILQ_INIT(&files->going);
    env->files = files;
    if (stat(files->directory, &info) == 0)
        (void)files_blobs(env);
}

enum amp_code env_files_check(struct amp_error *reterr)
{
    unsigned ms;
    const char *text = getenv("AMESH_ENV_SPOOL_GRACE");
    if (!text || !*text || command_duration_ms(text, &ms))
        return blob_store_check_env(reterr);
    (void)amp_error_set(reterr, AMP_INVALID, "", "AMESH_ENV_SPOOL_GRACE is a duration, such as 10m, not \"%.60s\"", text);
    amp_error_hint(reterr, "unset it for %u s", FILES_GRACE_MS / 1000);
    return AMP_INVALID;
}

void files_done(struct env *env)
{
    struct files *files = env->files;
    if (!files)
        return;
    assert(files->n_waiting == 0 && files->n_going == 0); /* theirs who asked for them, and are gone */
    files_sweep_free(files->sweep);
    blobs_free(files->blobs);
    loop_timer_free(files->turn);
    free(files->directory);
    free(files);
    env->files = NULL;
}

uint64_t files_bytes(const struct env *env)
{
    return env->files && env->files->blobs ? blob_store_bytes(blobs_store(env->files->blobs)) : 0;
}

uint64_t files_bytes_max(const struct env *env)
{
    return env->files && env->files->blobs ? blob_store_bytes_max(blobs_store(env->files->blobs)) : BLOB_KEPT_BYTES_MAX;
}

uint64_t files_waiting(const struct env *env)
{
    return env->files ? env->files->n_waiting + env->files->n_going : 0;
}

/* ---- what is being pulled ---------------------------------------------------------------------------------------------- */

void files_fetch_cancel(struct files_fetch *fetch)
{
    if (!fetch)
        return;
    struct files *files = fetch->files;
    if (fetch->fetch) {
        TAILQ_REMOVE(&files->going, fetch, entry);
        files->n_going--;
    } else {
        TAILQ_REMOVE(&files->waiting, fetch, entry);
        files->n_waiting--;
    }
    blob_fetch_cancel(fetch->fetch);
    free(fetch->refs);
    free(fetch);
    if (files->n_waiting > 0)
        loop_timer_set(files->turn, 0);
}

static void finish(struct files_fetch *fetch, const struct amp_error *err)
{
    void (*on_done)(void *, const struct amp_error *) = fetch->on_done;
    void *ctx = fetch->ctx;
    struct amp_error why = *err;
    struct files *files = fetch->files;
    for (size_t i = 0; err->code == AMP_OK && i < fetch->n; i++)
        files_sweep_charge(files->sweep, fetch->refs[i].digest, fetch->sender, fetch->refs[i].size);
    files_fetch_cancel(fetch);
    on_done(ctx, &why);
}

static void on_fetched(void *ctx, const struct amp_error *err)
{
    struct files_fetch *fetch = ctx;
    struct files *files = fetch->files;
    fetch->fetch = NULL; /* it is gone; to be counted off as one that waits */
    TAILQ_REMOVE(&files->going, fetch, entry);
    files->n_going--;
    TAILQ_INSERT_TAIL(&files->waiting, fetch, entry);
    files->n_waiting++;
    finish(fetch, err);
}

static uint64_t share(const struct env *env)
{
    return files_bytes_max(env) / FILES_SHARE;
}

static enum amp_code check_share(const struct files_fetch *fetch, struct amp_error *reterr)
{
    struct files *files = fetch->files;
    uint64_t has = files_sweep_charged(files->sweep, fetch->sender), coming = 0;
    const struct files_fetch *other;
    TAILQ_FOREACH(other, &files->going, entry)
        coming += strcmp(other->sender, fetch->sender) == 0 ? other->bytes : 0;
    if (fetch->is_answer || has + coming + fetch->bytes <= share(files->env))
        return AMP_OK;
    enum amp_code code = fetch->bytes > share(files->env) ? AMP_TOO_LARGE : AMP_OVERLOADED;
    (void)amp_error_set(reterr, code, "", "%s has files of %" PRIu64 " bytes here and %" PRIu64 " on their way; of the %" PRIu64 " that there may be of one sender, %" PRIu64 " more are too many", fetch->sender,
                        has, coming, share(files->env), fetch->bytes);
    amp_error_hint(reterr, "files go with their tasks (amesh up --retain-age AGE); AMESH_ENV_SPOOL_BYTES, where the environment starts, sets the limit");
    counter_add(COUNTER_blobs_refused, 1);
    return code;
}

/* Submits of `sender`; NULL: of all. */
static unsigned going_of(const struct files *files, const char *sender)
{
    const struct files_fetch *fetch;
    unsigned count = 0;
    TAILQ_FOREACH(fetch, &files->going, entry)
        count += !fetch->is_answer && (!sender || strcmp(fetch->sender, sender) == 0);
    return count;
}

/* Answers first, as somebody has worked for them; then whoever came first and has not his part already. */
static struct files_fetch *next_of(struct files *files)
{
    struct files_fetch *fetch;
    TAILQ_FOREACH(fetch, &files->waiting, entry)
        if (fetch->is_answer)
            return fetch;
    bool is_full = going_of(files, NULL) >= FILES_SUBMITS_MAX;
    TAILQ_FOREACH(fetch, &files->waiting, entry)
        if (!is_full && going_of(files, fetch->sender) < FILES_SENDER_FETCHES_MAX)
            return fetch;
    return NULL;
}

static void begin(struct files_fetch *fetch)
{
    struct files *files = fetch->files;
    struct amp_error err = {.code = AMP_OK};
    if (check_share(fetch, &err) != AMP_OK) {
        finish(fetch, &err);
        return;
    }
    TAILQ_REMOVE(&files->waiting, fetch, entry);
    files->n_waiting--;
    TAILQ_INSERT_TAIL(&files->going, fetch, entry);
    files->n_going++;
    fetch->fetch = blob_fetch_start(files->blobs, fetch->refs, fetch->n, fetch->held, on_fetched, fetch);
}

/* One of them for each turn: what is told of a refusal may make others. */
static void on_turn(void *ctx)
{
    struct files *files = ctx;
    struct files_fetch *fetch = files->n_going < FILES_FETCHES_MAX ? next_of(files) : NULL;
    if (!fetch)
        return;
    loop_timer_set(files->turn, 0);
    begin(fetch);
}

struct files_fetch *files_fetch(struct env *env, const struct files_wanted *wanted, struct blob_held *held, void (*on_done)(void *ctx, const struct amp_error *err), void *ctx)
{
    struct files *files = env->files;
    struct files_fetch *fetch = xcalloc(1, sizeof *fetch);
    (void)files_blobs(env);
    *fetch = (struct files_fetch){.files = files, .n = wanted->n, .is_answer = wanted->is_answer, .held = held, .on_done = on_done, .ctx = ctx};
    etask_strcpy(fetch->sender, wanted->sender);
    fetch->refs = xcalloc(wanted->n, sizeof *fetch->refs);
    memcpy(fetch->refs, wanted->refs, wanted->n * sizeof *fetch->refs);
    for (size_t i = 0; i < wanted->n; i++)
        fetch->bytes += wanted->refs[i].size;
    TAILQ_INSERT_TAIL(&files->waiting, fetch, entry);
    files->n_waiting++;
    loop_timer_set(files->turn, 0);
    return fetch;
}

/* ---- parts --------------------------------------------------------------------------------------------------------------- */

enum amp_code files_hand_on(const struct env *env, Amp__Part *const *parts, size_t n_parts, struct amp_arena *arena)
{
    for (size_t i = 0; i < n_parts; i++) {
        struct amp_blob_ref ref;
        if (!amp_part_is_blob(parts[i]) || amp_part_blob(parts[i], &ref, NULL) != AMP_OK)
            continue;
        etask_strcpy(ref.holder, env->name);
        if (amp_part_set_blob(parts[i], &ref, arena) != AMP_OK)
            return AMP_TOO_LARGE;
    }
    return AMP_OK;
}

enum amp_code files_check_here(struct env *env, const Amp__Message *message, const char *field, struct amp_error *reterr)
{
    for (size_t i = 0; message && i < message->n_parts; i++) {
        struct amp_blob_ref ref;
        struct blob blob;
        if (!amp_part_is_blob(message->parts[i]) || amp_part_blob(message->parts[i], &ref, NULL) != AMP_OK || blob_store_find(blobs_store(files_blobs(env)), ref.digest, &blob))
            continue;
        (void)amp_error_set(reterr, AMP_NOT_FOUND, field, "the file %.200s (%s, %" PRIu64 " bytes) is not here any more, or was changed", message->parts[i]->filename ? message->parts[i]->filename : "", ref.digest, ref.size);
        amp_error_hint(reterr, "amesh env verify says which files are missing; submit it anew, with the file");
        return AMP_NOT_FOUND;
    }
    return AMP_OK;
}

Amp__StreamResponse *files_event(struct amp_bytes body, struct amp_arena *arena)
{
    static const char hint[] = "amp-blob:";
    ProtobufCMessage *message = NULL;
    if (!memmem(body.data, body.len, hint, sizeof hint - 1))
        return NULL;
    amp_arena_reset(arena);
    return amp_decode_json(&amp__stream_response__descriptor, body, arena, &message, NULL) == AMP_OK ? (Amp__StreamResponse *)message : NULL;
}

typedef void visit_parts(void *ctx, Amp__Part *const *parts, size_t n_parts);

static void visit_message(const Amp__Message *message, visit_parts *visit, void *ctx)
{
    if (message)
        visit(ctx, message->parts, message->n_parts);
}

static void visit_task(const Amp__Task *task, visit_parts *visit, void *ctx)
{
    for (size_t i = 0; i < task->n_artifacts; i++)
        visit(ctx, task->artifacts[i]->parts, task->artifacts[i]->n_parts);
    for (size_t i = 0; i < task->n_history; i++)
        visit_message(task->history[i], visit, ctx);
    visit_message(task->status ? task->status->message : NULL, visit, ctx);
}

void files_each_parts(const Amp__StreamResponse *event, visit_parts *visit, void *ctx)
{
    switch (event->payload_case) {
    case AMP__STREAM_RESPONSE__PAYLOAD_TASK:
        visit_task(event->task, visit, ctx);
        break;
    case AMP__STREAM_RESPONSE__PAYLOAD_MESSAGE:
        visit_message(event->message, visit, ctx);
        break;
    case AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE:
        visit_message(event->status_update->status ? event->status_update->status->message : NULL, visit, ctx);
        break;
    case AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE:
        if (event->artifact_update->artifact)
            visit(ctx, event->artifact_update->artifact->parts, event->artifact_update->artifact->n_parts);
        break;
    default:
        break;
    }
}

/* ---- whose they are -------------------------------------------------------------------------------------------------------- */

struct taking {
    struct env *env;
    struct blob_held *held;
};

static void take_parts(void *ctx, Amp__Part *const *parts, size_t n_parts)
{
    const struct taking *taking = ctx;
    struct env *env = taking->env;
    for (size_t i = 0; i < n_parts; i++) {
        struct amp_blob_ref ref;
        if (!amp_part_is_blob(parts[i]) || amp_part_blob(parts[i], &ref, NULL) != AMP_OK || strcmp(ref.holder, env->name) != 0 || !blobs_hold(files_blobs(env), ref.digest))
            continue;
        blob_store_offer(blobs_store(files_blobs(env)), ref.digest); /* not before somebody has put it into a message of ours */
        blob_held_add(taking->held, ref.digest);
    }
}

void files_hold(struct env *env, const Amp__Message *message, struct blob_held *held)
{
    struct taking taking = {env, held};
    if (amp_message_has_blob(message))
        take_parts(&taking, message->parts, message->n_parts);
}

void files_release(struct env *env, struct blob_held *held)
{
    blob_held_release(held, env->files ? env->files->blobs : NULL);
}

void files_of_message(struct etask *task, const Amp__Message *message)
{
    files_hold(task->env, message, &task->files);
}

void files_of_event(struct etask *task, struct amp_bytes body)
{
    const Amp__StreamResponse *event = files_event(body, &task->env->scratch);
    struct taking taking = {task->env, &task->files};
    if (event)
        files_each_parts(event, take_parts, &taking);
}

static void add_row(struct journal_batch *batch, const char *scope, const char *owner, const char *key, struct amp_bytes body)
{
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    row->scope = scope;
    row->owner = journal_batch_text(batch, owner);
    row->key = journal_batch_text(batch, key);
    row->version = body.data ? 1 : 0;
    row->at_unix_ms = clock_unix_ms();
    row->body = body;
}

/* From both sides: which tasks have a file, which files a task has. */
static void add_rows(const struct blob *blob, const char *owner, const char *sender, bool is_removal, struct journal_batch *batch)
{
    struct amp_buf text;
    amp_buf_init(&text, 1024);
    (void)amp_buf_printf(&text, "{\"size\":%" PRIu64 ",\"from\":", blob->size);
    (void)amp_json_append_string(&text, amp_bytes_of(sender));
    (void)amp_buf_append(&text, "}", 1);
    struct amp_bytes body = is_removal ? (struct amp_bytes){0} : journal_batch_bytes(batch, amp_buf_bytes(&text));
    add_row(batch, JOURNAL_SCOPE_BLOB, blob->digest, owner, body);
    add_row(batch, JOURNAL_SCOPE_BLOBS_OF, owner, blob->digest, body);
    amp_buf_done(&text);
}

void files_add_rows(const struct etask *task, struct journal_batch *batch)
{
    for (size_t i = task->n_files_written; i < task->files.n; i++) {
        struct blob blob;
        if (blob_store_find(blobs_store(files_blobs(task->env)), task->files.digests[i], &blob))
            add_rows(&blob, task->id, task->from, false, batch);
    }
}

void files_rows_written(struct etask *task)
{
    task->n_files_written = task->files.n;
}

void files_forget(struct etask *task)
{
    (void)files_answer_drop(task);
    files_release(task->env, &task->files);
    task->n_files_written = 0;
}

void files_add_owner(struct env *env, const char *owner, const char *sender, const Amp__Message *message, bool is_removal, struct journal_batch *batch)
{
    for (size_t i = 0; message && i < message->n_parts; i++) {
        struct amp_blob_ref ref;
        struct blob blob = {.size = 0};
        if (!amp_part_is_blob(message->parts[i]) || amp_part_blob(message->parts[i], &ref, NULL) != AMP_OK)
            continue;
        memcpy(blob.digest, ref.digest, sizeof blob.digest);
        blob.size = ref.size;
        add_rows(&blob, owner, sender, is_removal, batch);
    }
}
