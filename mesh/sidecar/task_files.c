/* Files of a task (amp.md 15): those of its request are here before its agent begins; those that the agent gives are taken in before the event that names them goes out, and what the agent says
 * meanwhile waits behind them, its outcome too. A task without files has none of this. */
#include "task_private.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/blob_fetch.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "sidecar/files.h"

#define SAID_MAX 4096u                       /* events that wait behind a file */
#define TEXT_BLOB_MAX (AMP_WIRE_BYTES_MAX / 2) /* a text part that came as a blob and is handed to the agent as text */
#define ARRAYS_MAX (AMP_ARTIFACTS_MAX + 1u)  /* of parts, in one outcome */

struct said {
    STAILQ_ENTRY(said) entry;
    cJSON *local;
    bool is_ready; /* its files are taken in */
    bool has_file; /* whoever said it was not asked to wait for what becomes of it */
};

struct task_files {
    struct task *task;
    struct blob_held held;
    struct blob_fetch *fetch; /* of the request, or of an answer; NULL: nothing is fetched */
    struct files_job *job;    /* of the first of `said`, or of the outcome */
    STAILQ_HEAD(, said) said;
    size_t n_said;
    bool has_outcome;         /* the worker is done with the task */
    bool is_finishing;        /* with that, whose files are in */
    struct task_outcome outcome;
    cJSON *result;            /* its own */
    char *reason;
    struct loop_timer *stop;  /* set: it ends with this turn, as cancelled */
    char *directory;          /* in the spool, or NULL */
};

static struct task_files *files_of(struct task *task);

bool task_files_is_busy(const struct task *task)
{
    const struct task_files *files = task->files;
    return files && (files->fetch || files->job || files->n_said > 0 || files->has_outcome);
}

/* ---- what comes with a request ------------------------------------------------------------------------------------- */

static Amp__Message *message_for_agent(struct task *task, const Amp__Message *message)
{
    Amp__Message *copy = amp_arena_alloc(&task->arena, sizeof *copy);
    Amp__Part **parts = amp_arena_alloc(&task->arena, message->n_parts * sizeof *parts);
    if (!copy || !parts)
        return NULL;
    *copy = *message;
    copy->parts = parts;
    for (size_t i = 0; i < message->n_parts; i++) {
        parts[i] = amp_arena_alloc(&task->arena, sizeof **parts);
        if (!parts[i])
            return NULL;
        *parts[i] = *message->parts[i];
    }
    return copy;
}

/* A text that was too long for a message is a text again. */
static bool read_text(struct task *task, Amp__Part *part, const struct amp_blob_ref *ref)
{
    struct blob_store *store = blobs_store(task->sidecar->blobs);
    char *text = ref->size <= TEXT_BLOB_MAX ? amp_arena_alloc(&task->arena, ref->size + 1) : NULL;
    int64_t now_ms = loop_now_ms(task->sidecar->loop);
    size_t have = 0;
    while (text && have < ref->size) {
        ssize_t n = blob_store_read(store, ref->digest, have, text + have, ref->size - have, now_ms, NULL);
        if (n <= 0)
            return false;
        have += (size_t)n;
    }
    if (!text || !amp_utf8_is_valid((struct amp_bytes){(const uint8_t *)text, have}) || strlen(text) != have)
        return false;
    part->text = text;
    part->url = NULL;
    part->metadata = NULL;
    return true;
}

enum amp_code task_files_show(struct task *task, const Amp__Message **message)
{
    Amp__Message *shown = message_for_agent(task, *message);
    for (size_t i = 0; shown && i < shown->n_parts; i++) {
        struct amp_blob_ref ref;
        Amp__Part *part = shown->parts[i];
        if (!amp_part_is_blob(part) || amp_part_blob(part, &ref, NULL) != AMP_OK || (ref.is_text && read_text(task, part, &ref)))
            continue;
        if (files_show(task->sidecar, part, &task->arena) != AMP_OK)
            return AMP_TOO_LARGE;
    }
    *message = shown ? shown : *message;
    return shown ? AMP_OK : AMP_TOO_LARGE;
}

static void fail_now(struct task_files *files, const struct amp_error *err)
{
    struct task_outcome outcome = {.state = AMP__TASK_STATE__TASK_STATE_FAILED, .error = *err};
    task_finish(files->task, &outcome);
}

static void on_fetched(void *ctx, const struct amp_error *err)
{
    struct task_files *files = ctx;
    struct task *task = files->task;
    struct amp_error own = *err;
    files->fetch = NULL;
    if (own.code == AMP_OK && task->resume && amp_message_has_blob(task->resume) && task_files_show(task, &task->resume) != AMP_OK)
        (void)amp_error_set(&own, AMP_TOO_LARGE, "message", "the message with its files is too large");
    if (own.code == AMP_OK && task_files_show(task, &task->given) != AMP_OK)
        (void)amp_error_set(&own, AMP_TOO_LARGE, "message", "the message with its files is too large");
    if (own.code != AMP_OK)
        fail_now(files, &own);
    else
        task_run(task);
}

bool task_files_fetch(struct task *task)
{
    struct amp_blob_ref *refs = NULL;
    size_t n = 0;
    const Amp__Message *asked = task->request->message, *resume = task->resume;
    bool is_first = task->given == asked;
    if (!(is_first && amp_message_has_blob(asked)) && !amp_message_has_blob(resume))
        return false;
    if (!task->sidecar->blobs)
        return false;
    if (is_first)
        blob_refs_add(asked->parts, asked->n_parts, &refs, &n);
    if (resume)
        blob_refs_add(resume->parts, resume->n_parts, &refs, &n);
    struct task_files *files = files_of(task);
    files->fetch = blob_fetch_start(task->sidecar->blobs, refs, n, &files->held, on_fetched, files);
    free(refs);
    return true;
}

/* ---- what the agent gives -------------------------------------------------------------------------------------------- */

/* {"file":"/path", …} as an artifact is one with that part. */
static void spread(cJSON *artifact)
{
    static const char *const members[] = {"file", "filename", "mediaType"};
    if (!cJSON_GetObjectItemCaseSensitive(artifact, "file"))
        return;
    cJSON *part = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        cJSON *member = cJSON_DetachItemFromObjectCaseSensitive(artifact, members[i]);
        if (member)
            cJSON_AddItemToObject(part, members[i], member);
    }
    cJSON *parts = cJSON_GetObjectItemCaseSensitive(artifact, "parts");
    if (!cJSON_IsArray(parts))
        parts = cJSON_AddArrayToObject(artifact, "parts");
    cJSON_AddItemToArray(parts, part);
}

static bool artifact_has_file(const struct task *task, const cJSON *artifact)
{
    return cJSON_GetObjectItemCaseSensitive(artifact, "file") || files_any(task->sidecar, cJSON_GetObjectItemCaseSensitive(artifact, "parts"));
}

static bool event_has_file(const struct task *task, const cJSON *local)
{
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(local, "type"));
    return type && strcmp(type, "artifact") == 0 && artifact_has_file(task, local);
}

static bool outcome_has_file(const struct task *task, const cJSON *result)
{
    const cJSON *artifact;
    if (!cJSON_IsObject(result))
        return false;
    if (files_any(task->sidecar, cJSON_GetObjectItemCaseSensitive(result, "parts")))
        return true;
    cJSON_ArrayForEach(artifact, cJSON_GetObjectItemCaseSensitive(result, "artifacts")) if (artifact_has_file(task, artifact))
        return true;
    return false;
}

/* The arrays of parts of an event or an outcome. */
static size_t arrays_of(cJSON *value, cJSON **ret)
{
    size_t n = 0;
    cJSON *artifact, *parts;
    spread(value);
    if ((parts = cJSON_GetObjectItemCaseSensitive(value, "parts")))
        ret[n++] = parts;
    cJSON_ArrayForEach(artifact, cJSON_GetObjectItemCaseSensitive(value, "artifacts"))
    {
        spread(artifact);
        if (n < ARRAYS_MAX && (parts = cJSON_GetObjectItemCaseSensitive(artifact, "parts")))
            ret[n++] = parts;
    }
    return n;
}

static void said_pop(struct task_files *files)
{
    struct said *said = STAILQ_FIRST(&files->said);
    STAILQ_REMOVE_HEAD(&files->said, entry);
    files->n_said--;
    cJSON_Delete(said->local);
    free(said);
}

static void on_taken(void *ctx, const struct amp_error *err);

static void take(struct task_files *files, cJSON *value)
{
    cJSON *arrays[ARRAYS_MAX];
    size_t n = arrays_of(value, arrays);
    files->job = files_start(files->task->sidecar, arrays, n, &files->held, on_taken, files);
    if (files->task->request->journalled)
        files_make_durable(files->job);
}

static void finish(struct task_files *files)
{
    struct task_outcome outcome = files->outcome;
    cJSON *result = files->result;
    char *reason = files->reason;
    files->has_outcome = false;
    files->result = NULL;
    files->reason = NULL;
    outcome.result = result;
    outcome.reason = reason;
    files->is_finishing = true;
    task_finish(files->task, &outcome);
    cJSON_Delete(result);
    free(reason);
}

/* An answer without one of its files is not the answer. `said`: NULL: it was in the outcome. */
static void fail_file(struct task *task, const struct said *said, const struct amp_error *why)
{
    struct amp_error err;
    const char *name = said ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(said->local, "name")) : NULL;
    enum amp_code code = why->code == AMP_INVALID ? AMP_BAD_ANSWER : why->code; /* whoever asked did nothing wrong */
    (void)amp_error_set(&err, code, why->field, "a file of the agent's answer%s%.256s%s: %s", name ? ", artifact \"" : "", name ? name : "", name ? "\"" : "", why->message);
    amp_error_hint(&err, "%s", why->hint);
    (void)task_fail(task, &err, NULL);
}

/* One after the other, until something has to be taken in first. */
static void go_on(struct task_files *files)
{
    struct task *task = files->task;
    struct amp_error err;
    while (!STAILQ_EMPTY(&files->said) && !task->stream.is_ended) {
        struct said *said = STAILQ_FIRST(&files->said);
        if (!said->is_ready) {
            take(files, said->local);
            return;
        }
        bool is_said = task_event_now(task, said->local, &err) == AMP_OK;
        if (!is_said && !STAILQ_EMPTY(&files->said) && said->has_file) {
            fail_file(task, said, &err);
            return;
        }
        if (!is_said)
            log_event(LOG_WARN, "agent.event_refused", "task", task_id(task), "field", err.field, "reason", err.message, NULL);
        if (!STAILQ_EMPTY(&files->said)) /* else the refusal has ended the task, and this with it */
            said_pop(files);
    }
    if (!files->has_outcome || loop_timer_is_set(files->stop))
        task_mark_dirty(task); /* whoever waits for room is told */
    else if (outcome_has_file(task, files->result))
        take(files, files->result);
    else
        finish(files);
}

/* The files of what is next are in, or one of them cannot be had. */
static void on_taken(void *ctx, const struct amp_error *err)
{
    struct task_files *files = ctx;
    struct task *task = files->task;
    struct said *said = STAILQ_FIRST(&files->said);
    files->job = NULL;
    task->progress_ms = loop_now_ms(task->sidecar->loop);
    if (err->code != AMP_OK) {
        counter_add(COUNTER_events_refused, 1);
        fail_file(task, said, err);
    } else if (said) {
        said->is_ready = true;
        go_on(files);
    } else {
        finish(files);
    }
}

bool task_files_keep(struct task *task, const cJSON *local, enum amp_code *ret, struct amp_error *reterr)
{
    bool has_file = event_has_file(task, local);
    *ret = AMP_OK;
    if (!has_file && !task_files_is_busy(task))
        return false;
    struct task_files *files = files_of(task);
    if (files->has_outcome) {
        *ret = amp_error_set(reterr, AMP_TASK_ENDED, "", "task %s has ended", task_id(task));
        return true;
    }
    if (files->n_said >= SAID_MAX) {
        struct amp_error err;
        (void)amp_error_set(&err, AMP_OVERLOADED, "", "%u events wait for a file to be taken in", SAID_MAX);
        *ret = task_fail(task, &err, reterr);
        return true;
    }
    struct said *said = xcalloc(1, sizeof *said);
    said->local = cJSON_Duplicate(local, true);
    said->has_file = has_file;
    said->is_ready = !has_file;
    STAILQ_INSERT_TAIL(&files->said, said, entry);
    if (files->n_said++ == 0)
        go_on(files);
    return true;
}

bool task_files_keep_text(struct task *task, struct amp_bytes text, enum amp_code *ret, struct amp_error *reterr)
{
    if (!task_files_is_busy(task))
        return false;
    cJSON *local = cJSON_CreateObject();
    char *copy = xstrndup((const char *)text.data, text.len);
    cJSON_AddStringToObject(local, "type", "text");
    cJSON_AddStringToObject(local, "text", copy);
    bool is_kept = task_files_keep(task, local, ret, reterr);
    cJSON_Delete(local);
    free(copy);
    return is_kept;
}

static const Amp__Death *death_copy(struct task *task, const Amp__Death *death)
{
    size_t size = death ? amp__death__get_packed_size(death) : 0;
    uint8_t *packed = death ? xcalloc(1, size + 1) : NULL;
    if (!death)
        return NULL;
    (void)amp__death__pack(death, packed);
    const Amp__Death *copy = amp__death__unpack(&task->arena.allocator, size, packed);
    free(packed);
    return copy;
}

bool task_files_finish(struct task *task, const struct task_outcome *outcome)
{
    if (task->files && task->files->is_finishing) {
        task->files->is_finishing = false;
        return false;
    }
    bool has_file = !task->stream.is_ended && !task->is_canceled && outcome_has_file(task, outcome->result);
    if (!has_file && !(task->files && task->files->n_said > 0))
        return false;
    struct task_files *files = files_of(task);
    files->has_outcome = true;
    files->outcome = *outcome;
    files->outcome.death = death_copy(task, outcome->death);
    files->result = cJSON_Duplicate(outcome->result, true);
    files->reason = outcome->reason ? xstrdup(outcome->reason) : NULL;
    task->data = NULL; /* its worker knows nothing of it any more */
    if (files->n_said == 0)
        take(files, files->result);
    return true;
}

/* ---- the end ------------------------------------------------------------------------------------------------------------ */

static void on_stop(void *ctx)
{
    struct task_files *files = ctx;
    struct task_outcome outcome = {.state = AMP__TASK_STATE__TASK_STATE_CANCELED};
    files->has_outcome = false;
    cJSON_Delete(files->result);
    free(files->reason);
    files->result = NULL;
    files->reason = NULL;
    task_finish(files->task, &outcome);
}

bool task_files_stop(struct task *task)
{
    struct task_files *files = task->files;
    if (!files)
        return false;
    bool is_ours = files->fetch || files->has_outcome; /* the worker does not have it */
    blob_fetch_cancel(files->fetch);
    files_cancel(files->job);
    files->fetch = NULL;
    files->job = NULL;
    while (!STAILQ_EMPTY(&files->said))
        said_pop(files);
    if (is_ours)
        loop_timer_set(files->stop, 0);
    return is_ours;
}

void task_files_done(struct task *task)
{
    struct task_files *files = task->files;
    if (!files)
        return;
    (void)task_files_stop(task);
    blob_held_release(&files->held, task->sidecar->blobs);
    if (files->directory)
        blob_store_remove_directory(blobs_store(task->sidecar->blobs), files->directory);
    loop_timer_free(files->stop);
    cJSON_Delete(files->result);
    free(files->reason);
    free(files->directory);
    free(files);
    task->files = NULL;
}

struct blob_held *task_files_held(struct task *task)
{
    return &files_of(task)->held;
}

static struct task_files *files_of(struct task *task)
{
    if (task->files)
        return task->files;
    struct task_files *files = xcalloc(1, sizeof *files);
    files->task = task;
    files->stop = loop_timer_new(task->sidecar->loop, on_stop, files);
    STAILQ_INIT(&files->said);
    task->files = files;
    return files;
}

bool task_files_directory(struct task *task, char ret[BLOB_PATH_SIZE])
{
    static unsigned n_made;
    struct amp_error err;
    if (!task->sidecar->blobs)
        return false;
    struct task_files *files = files_of(task);
    free(files->directory);
    files->directory = xasprintf("%s.%u", task_id(task), n_made++);
    if (blob_store_directory(blobs_store(task->sidecar->blobs), files->directory, ret, &err) == AMP_OK)
        return true;
    log_event(LOG_WARN, "task.no_directory", "task", task_id(task), "reason", err.message, NULL);
    return false;
}
