/* A task as the fold of its events (amp.md 6.7).
 *
 * The task is one tree of protobuf-c messages in malloc's memory, so that amp_fold_task costs nothing. Each event is
 * decoded into an arena that is reused; what stays is copied out. The last part of an artifact that streams text is a
 * growing string: appending is linear, and 1 MiB of text costs at most a quarter more than that. `bytes` counts what
 * stays. */
#include <amp/amp.h>

#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "fold_clone.h"
#include "fold_talk.h"
#include "model.h"

/* What the struct, its pointers and malloc take beside the bytes of the message. */
#define ITEM_COST 128

struct fold_artifact {
    size_t cost;
    size_t text_len, text_cap; /* of the last part, if it is a text that may grow; text_cap 0: not known yet */
};

struct amp_fold {
    Amp__Task task;
    struct fold_artifact *infos;
    size_t artifacts_cap, history_cap;
    size_t hot; /* artifact of the last event: streams go to one for a long time */
    size_t bytes, bytes_max;
    size_t status_cost, metadata_cost, history_cost; /* parts of bytes */
    struct amp_arena arena;
};

static size_t cost_of(const ProtobufCMessage *message)
{
    return protobuf_c_message_get_packed_size(message) + ITEM_COST;
}

static void drop(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

struct amp_fold *amp_fold_new(const char *task_id, const char *context_id, size_t bytes_max)
{
    struct amp_fold *fold = calloc(1, sizeof(*fold));
    if (!fold)
        return NULL;
    amp__task__init(&fold->task);
    amp_arena_init(&fold->arena, AMP_ARENA_BYTES_MAX);
    fold->bytes_max = bytes_max;
    Amp__TaskStatus submitted = AMP__TASK_STATUS__INIT;
    submitted.has_state = true;
    submitted.state = AMP__TASK_STATE__TASK_STATE_SUBMITTED;
    fold->task.status = fold_clone(&submitted.base);
    fold->task.id = strdup(task_id ? task_id : "");
    fold->task.context_id = strdup(context_id ? context_id : "");
    if (!fold->task.status || !fold->task.id || !fold->task.context_id) {
        amp_fold_free(fold);
        return NULL;
    }
    return fold;
}

static void artifacts_drop(struct amp_fold *fold)
{
    for (size_t i = 0; i < fold->task.n_artifacts; i++) {
        fold->bytes -= fold->infos[i].cost;
        drop(fold->task.artifacts[i]);
    }
    fold->task.n_artifacts = 0;
    fold->hot = 0;
}

static void history_drop(struct amp_fold *fold)
{
    for (size_t i = 0; i < fold->task.n_history; i++)
        drop(fold->task.history[i]);
    fold->bytes -= fold->history_cost;
    fold->history_cost = 0;
    fold->task.n_history = 0;
}

void amp_fold_free(struct amp_fold *fold)
{
    if (!fold)
        return;
    artifacts_drop(fold);
    history_drop(fold);
    drop(fold->task.status);
    drop(fold->task.metadata);
    free(fold->task.artifacts);
    free(fold->task.history);
    free(fold->task.id);
    free(fold->task.context_id);
    free(fold->infos);
    amp_arena_done(&fold->arena);
    free(fold);
}

Amp__TaskState amp_fold_state(const struct amp_fold *fold)
{
    return fold->task.status->state;
}

const Amp__Task *amp_fold_task(struct amp_fold *fold)
{
    return &fold->task;
}

static enum amp_code room_check(const struct amp_fold *fold, size_t cost, struct amp_error *reterr)
{
    if (fold->bytes + cost <= fold->bytes_max)
        return AMP_OK;
    return amp_error_set(reterr, AMP_TOO_LARGE, "task", "the task would need more than %zu bytes", fold->bytes_max);
}

static enum amp_code no_memory(struct amp_error *reterr)
{
    return amp_error_set(reterr, AMP_NO_MEMORY, "task", "out of memory");
}

/* The list with room for `want` items; NULL (and the list as it was) if memory is gone. */
static void *list_reserve(void *list, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap)
        return list;
    size_t grown = want < 4 ? 4 : want + want / 2;
    void *made = realloc(list, grown * size);
    if (made)
        *cap = grown;
    return made;
}

static enum amp_code history_add(struct amp_fold *fold, const Amp__Message *message, struct amp_error *reterr)
{
    size_t cost = cost_of(&message->base);
    enum amp_code code = room_check(fold, cost, reterr);
    if (code != AMP_OK)
        return code;
    if (fold->task.n_history == AMP_MEMBERS_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "task.history", "has %u messages", AMP_MEMBERS_MAX);
    Amp__Message **history =
        list_reserve(fold->task.history, &fold->history_cap, fold->task.n_history + 1, sizeof(*history));
    if (!history)
        return no_memory(reterr);
    fold->task.history = history;
    Amp__Message *copy = fold_clone(&message->base);
    if (!copy)
        return no_memory(reterr);
    fold->task.history[fold->task.n_history++] = copy;
    fold->bytes += cost;
    fold->history_cost += cost;
    return AMP_OK;
}

enum amp_code amp_fold_message(struct amp_fold *fold, const Amp__Message *message)
{
    return history_add(fold, message, NULL);
}

static enum amp_code move_check(const struct amp_fold *fold, const Amp__TaskStatus *status, const char *field,
                                struct amp_error *reterr)
{
    Amp__TaskState from = amp_fold_state(fold);
    if (!status || !status->has_state)
        return amp_error_set(reterr, AMP_INVALID, field, "has no state");
    if (amp_task_may_move(from, status->state))
        return AMP_OK;
    return amp_error_set(reterr, AMP_CONFLICT, field, "a task that is %s cannot become %s", amp_task_state_short(from),
                         amp_task_state_short(status->state));
}

static enum amp_code open_check(const struct amp_fold *fold, const char *field, struct amp_error *reterr)
{
    if (!amp_task_is_terminal(amp_fold_state(fold)))
        return AMP_OK;
    return amp_error_set(reterr, AMP_CONFLICT, field, "a task that is %s takes no more events",
                         amp_task_state_short(amp_fold_state(fold)));
}

/* Is the event about this task? A fold that was made without an id takes the first it hears. */
static enum amp_code owner_check(struct amp_fold *fold, const char *task_id, const char *field,
                                 struct amp_error *reterr)
{
    if (!task_id || !task_id[0] || strcmp(task_id, fold->task.id) == 0)
        return AMP_OK;
    if (fold->task.id[0])
        return amp_error_set(reterr, AMP_INVALID, field, "an event of '%.64s' in the stream of '%.64s'", task_id,
                             fold->task.id);
    char *copy = strdup(task_id);
    if (!copy)
        return no_memory(reterr);
    free(fold->task.id);
    fold->task.id = copy;
    return AMP_OK;
}

/* ---- status ---------------------------------------------------------------------------------------- */

/* A note of progress stays until another replaces it or the state changes: a tool call does not erase it. */
static void message_inherit(const struct amp_fold *fold, Amp__TaskStatus *status)
{
    if (!status->message && status->state == amp_fold_state(fold))
        status->message = fold->task.status->message;
}

/* Is there room for this status, and for its question in the history? The end of a task always finds room, or a full
 * task could never end. */
static enum amp_code status_room_check(const struct amp_fold *fold, const Amp__TaskStatus *status,
                                       const Amp__Message *question, struct amp_error *reterr)
{
    size_t cost = cost_of(&status->base) + (question ? cost_of(&question->base) : 0);
    if (amp_task_is_terminal(status->state) || cost <= fold->status_cost)
        return AMP_OK;
    return room_check(fold, cost - fold->status_cost, reterr);
}

static enum amp_code status_replace(struct amp_fold *fold, const Amp__TaskStatus *status, struct amp_error *reterr)
{
    Amp__TaskStatus *copy = fold_clone(&status->base);
    if (!copy)
        return no_memory(reterr);
    size_t cost = cost_of(&status->base);
    drop(fold->task.status);
    fold->task.status = copy;
    fold->bytes = fold->bytes - fold->status_cost + cost;
    fold->status_cost = cost;
    return AMP_OK;
}

/* A question is part of the conversation: the answer that follows it stands below it. What is asked again stands there once. */
static enum amp_code apply_talk(struct amp_fold *fold, const Amp__TaskStatusUpdateEvent *update, const struct fold_talk *talk,
                                struct amp_error *reterr)
{
    Amp__TaskStatus status = *update->status;
    Amp__Message *asked = amp_task_is_waiting(status.state) && status.message
                              ? fold_talk_question(talk, &fold->task, status.message, &fold->arena)
                              : NULL;
    Amp__Message *said = fold_talk_answer(talk, &fold->task, &fold->arena);
    message_inherit(fold, &status);
    enum amp_code code = status_room_check(fold, &status, asked, reterr);
    if (code == AMP_OK && asked)
        code = history_add(fold, asked, reterr);
    if (code == AMP_OK)
        code = status_replace(fold, &status, reterr);
    if (code == AMP_OK && said)
        (void)history_add(fold, said, NULL); /* a task that is full goes on without it */
    return code;
}

static enum amp_code apply_status(struct amp_fold *fold, const Amp__TaskStatusUpdateEvent *update,
                                  struct amp_error *reterr)
{
    struct fold_talk talk;
    enum amp_code code = owner_check(fold, update->task_id, "statusUpdate.taskId", reterr);
    if (code == AMP_OK)
        code = move_check(fold, update->status, "statusUpdate.status.state", reterr);
    if (code != AMP_OK)
        return code;
    fold_talk_read(&talk, update->metadata);
    code = apply_talk(fold, update, &talk, reterr);
    fold_talk_done(&talk);
    return code;
}

/* ---- artifacts -------------------------------------------------------------------------------------- */

static bool is_plain_text(const Amp__Part *part)
{
    return part->text && !part->metadata && part->base.n_unknown_fields == 0;
}

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

/* May the text of `next` be put at the end of that of `part`? */
static bool may_join(const Amp__Part *part, const Amp__Part *next)
{
    return is_plain_text(part) && is_plain_text(next) && same_text(part->filename, next->filename) &&
           same_text(part->media_type, next->media_type);
}

static enum amp_code text_append(struct amp_fold *fold, size_t at, const char *text, struct amp_error *reterr)
{
    Amp__Artifact *artifact = fold->task.artifacts[at];
    struct fold_artifact *info = &fold->infos[at];
    Amp__Part *part = artifact->parts[artifact->n_parts - 1];
    size_t len = strlen(text);
    enum amp_code code = room_check(fold, len, reterr);
    if (code != AMP_OK)
        return code;
    if (info->text_cap == 0) {
        info->text_len = strlen(part->text);
        info->text_cap = info->text_len + 1;
    }
    size_t want = info->text_len + len + 1;
    if (want > info->text_cap) {
        size_t cap = want + want / 4;
        char *grown = realloc(part->text, cap);
        if (!grown)
            return no_memory(reterr);
        part->text = grown;
        info->text_cap = cap;
    }
    memcpy(part->text + info->text_len, text, len + 1);
    info->text_len += len;
    info->cost += len;
    fold->bytes += len;
    return AMP_OK;
}

static enum amp_code parts_append(struct amp_fold *fold, size_t at, Amp__Part *const *parts, size_t n,
                                  struct amp_error *reterr)
{
    Amp__Artifact *artifact = fold->task.artifacts[at];
    struct fold_artifact *info = &fold->infos[at];
    if (n == 0)
        return AMP_OK;
    if (artifact->n_parts + n > AMP_PARTS_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "artifactUpdate.artifact.parts", "more than %u parts",
                             AMP_PARTS_MAX);
    Amp__Part **grown = realloc(artifact->parts, (artifact->n_parts + n) * sizeof(*grown));
    if (!grown)
        return no_memory(reterr);
    artifact->parts = grown;
    for (size_t i = 0; i < n; i++) {
        size_t cost = cost_of(&parts[i]->base);
        Amp__Part *copy = fold_clone(&parts[i]->base);
        if (!copy)
            return no_memory(reterr);
        artifact->parts[artifact->n_parts++] = copy;
        info->text_cap = 0;
        info->cost += cost;
        fold->bytes += cost;
    }
    return AMP_OK;
}

static enum amp_code artifact_append(struct amp_fold *fold, size_t at, const Amp__Artifact *chunk,
                                     struct amp_error *reterr)
{
    const Amp__Artifact *artifact = fold->task.artifacts[at];
    bool joins = chunk->n_parts > 0 && artifact->n_parts > 0 &&
                 may_join(artifact->parts[artifact->n_parts - 1], chunk->parts[0]);
    size_t first = joins ? 1 : 0;
    if (artifact->n_parts + chunk->n_parts - first > AMP_PARTS_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "artifactUpdate.artifact.parts", "more than %u parts",
                             AMP_PARTS_MAX);
    /* All or nothing: the room for the whole chunk is looked for before anything is added. */
    size_t cost = 0;
    for (size_t i = 0; i < chunk->n_parts; i++)
        cost += i < first ? strlen(chunk->parts[i]->text) : cost_of(&chunk->parts[i]->base);
    enum amp_code code = room_check(fold, cost, reterr);
    if (code == AMP_OK && joins)
        code = text_append(fold, at, chunk->parts[0]->text, reterr);
    if (code == AMP_OK)
        code = parts_append(fold, at, chunk->parts + first, chunk->n_parts - first, reterr);
    return code;
}

/* Index of the artifact, or the number of artifacts. */
static size_t artifact_find(struct amp_fold *fold, const char *id)
{
    const Amp__Task *task = &fold->task;
    if (fold->hot < task->n_artifacts && strcmp(task->artifacts[fold->hot]->artifact_id, id) == 0)
        return fold->hot;
    size_t i = 0;
    while (i < task->n_artifacts && strcmp(task->artifacts[i]->artifact_id, id) != 0)
        i++;
    fold->hot = i;
    return i;
}

static bool artifacts_reserve(struct amp_fold *fold, size_t want)
{
    size_t infos_cap = fold->artifacts_cap; /* both lists grow together */
    struct fold_artifact *infos = list_reserve(fold->infos, &infos_cap, want, sizeof(*infos));
    if (!infos)
        return false;
    fold->infos = infos;
    Amp__Artifact **artifacts = list_reserve(fold->task.artifacts, &fold->artifacts_cap, want, sizeof(*artifacts));
    if (!artifacts)
        return false;
    fold->task.artifacts = artifacts;
    return true;
}

/* Puts a copy at `at`, which is an artifact to replace or the end of the list. */
static enum amp_code artifact_put(struct amp_fold *fold, size_t at, const Amp__Artifact *artifact,
                                  struct amp_error *reterr)
{
    bool is_new = at == fold->task.n_artifacts;
    size_t cost = cost_of(&artifact->base) + artifact->n_parts * ITEM_COST, freed = is_new ? 0 : fold->infos[at].cost;
    enum amp_code code = cost > freed ? room_check(fold, cost - freed, reterr) : AMP_OK;
    if (code != AMP_OK)
        return code;
    if (at == AMP_ARTIFACTS_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "task.artifacts", "more than %u artifacts", AMP_ARTIFACTS_MAX);
    if (!artifacts_reserve(fold, at + 1))
        return no_memory(reterr);
    Amp__Artifact *copy = fold_clone(&artifact->base);
    if (!copy)
        return no_memory(reterr);
    if (is_new)
        fold->task.n_artifacts++;
    else
        drop(fold->task.artifacts[at]);
    fold->task.artifacts[at] = copy;
    fold->infos[at] = (struct fold_artifact){.cost = cost};
    fold->bytes = fold->bytes - freed + cost;
    return AMP_OK;
}

static enum amp_code apply_artifact(struct amp_fold *fold, const Amp__TaskArtifactUpdateEvent *update,
                                    struct amp_error *reterr)
{
    enum amp_code code = owner_check(fold, update->task_id, "artifactUpdate.taskId", reterr);
    if (code == AMP_OK)
        code = open_check(fold, "artifactUpdate", reterr);
    if (code != AMP_OK)
        return code;
    if (!update->artifact)
        return amp_error_set(reterr, AMP_INVALID, "artifactUpdate.artifact", "is missing");
    code = foreign_id_check(update->artifact->artifact_id, "artifactUpdate.artifact.artifactId", reterr);
    if (code == AMP_OK)
        code = parts_check(update->artifact->parts, update->artifact->n_parts, "artifactUpdate.artifact.parts", reterr);
    if (code != AMP_OK)
        return code;
    size_t at = artifact_find(fold, update->artifact->artifact_id);
    if (update->append && at < fold->task.n_artifacts)
        return artifact_append(fold, at, update->artifact, reterr);
    return artifact_put(fold, at, update->artifact, reterr);
}

/* ---- snapshot --------------------------------------------------------------------------------------- */

static enum amp_code metadata_replace(struct amp_fold *fold, const Amp__Json *metadata, struct amp_error *reterr)
{
    size_t cost = metadata ? cost_of(&metadata->base) : 0;
    Amp__Json *copy = metadata ? fold_clone(&metadata->base) : NULL;
    if (metadata && !copy)
        return no_memory(reterr);
    drop(fold->task.metadata);
    fold->task.metadata = copy;
    fold->bytes = fold->bytes - fold->metadata_cost + cost;
    fold->metadata_cost = cost;
    return AMP_OK;
}

static size_t snapshot_cost(const Amp__Task *task)
{
    size_t cost = cost_of(&task->status->base) + (task->metadata ? cost_of(&task->metadata->base) : 0);
    for (size_t i = 0; i < task->n_artifacts; i++)
        cost += cost_of(&task->artifacts[i]->base) + task->artifacts[i]->n_parts * ITEM_COST;
    for (size_t i = 0; i < task->n_history; i++)
        cost += cost_of(&task->history[i]->base);
    return cost;
}

static enum amp_code snapshot_check(struct amp_fold *fold, const Amp__Task *task, struct amp_error *reterr)
{
    enum amp_code code = owner_check(fold, task->id, "task.id", reterr);
    if (code == AMP_OK)
        code = move_check(fold, task->status, "task.status.state", reterr);
    for (size_t i = 0; i < task->n_artifacts && code == AMP_OK; i++) {
        const Amp__Artifact *artifact = task->artifacts[i];
        code = foreign_id_check(artifact->artifact_id, "task.artifacts.artifactId", reterr);
        if (code == AMP_OK)
            code = parts_check(artifact->parts, artifact->n_parts, "task.artifacts.parts", reterr);
    }
    if (code == AMP_OK && (task->n_artifacts > AMP_ARTIFACTS_MAX || task->n_history > AMP_MEMBERS_MAX))
        code = amp_error_set(reterr, AMP_TOO_LARGE, "task", "has too many artifacts or messages");
    if (code != AMP_OK)
        return code;
    /* Status and metadata are replaced last, so for a moment both stand there. */
    size_t kept = fold->status_cost + fold->metadata_cost + (task->n_history > 0 ? 0 : fold->history_cost);
    if (kept + snapshot_cost(task) > fold->bytes_max)
        return amp_error_set(reterr, AMP_TOO_LARGE, "task", "the task would need more than %zu bytes", fold->bytes_max);
    return AMP_OK;
}

/* What the fold holds is replaced by the snapshot. A history that was kept here is not lost to a snapshot without one.
 */
static enum amp_code apply_task(struct amp_fold *fold, const Amp__Task *task, struct amp_error *reterr)
{
    enum amp_code code = snapshot_check(fold, task, reterr);
    if (code != AMP_OK)
        return code;
    artifacts_drop(fold);
    if (task->n_history > 0)
        history_drop(fold);
    for (size_t i = 0; i < task->n_artifacts && code == AMP_OK; i++)
        code = artifact_put(fold, artifact_find(fold, task->artifacts[i]->artifact_id), task->artifacts[i], reterr);
    for (size_t i = 0; i < task->n_history && code == AMP_OK; i++)
        code = history_add(fold, task->history[i], reterr);
    if (code == AMP_OK)
        code = metadata_replace(fold, task->metadata, reterr);
    return code == AMP_OK ? status_replace(fold, task->status, reterr) : code;
}

enum amp_code amp_fold_apply(struct amp_fold *fold, struct amp_bytes stream_response, struct amp_error *reterr)
{
    ProtobufCMessage *decoded;
    amp_arena_reset(&fold->arena);
    enum amp_code code =
        amp_decode_json(&amp__stream_response__descriptor, stream_response, &fold->arena, &decoded, reterr);
    if (code != AMP_OK)
        return code;
    const Amp__StreamResponse *event = (const Amp__StreamResponse *)decoded;
    switch (event->payload_case) {
    case AMP__STREAM_RESPONSE__PAYLOAD_STATUS_UPDATE:
        code = apply_status(fold, event->status_update, reterr);
        break;
    case AMP__STREAM_RESPONSE__PAYLOAD_ARTIFACT_UPDATE:
        code = apply_artifact(fold, event->artifact_update, reterr);
        break;
    case AMP__STREAM_RESPONSE__PAYLOAD_TASK:
        code = apply_task(fold, event->task, reterr);
        break;
    case AMP__STREAM_RESPONSE__PAYLOAD_MESSAGE:
        code = open_check(fold, "message", reterr);
        if (code == AMP_OK)
            code = amp_message_check(event->message, "message", reterr);
        if (code == AMP_OK)
            code = history_add(fold, event->message, reterr);
        break;
    default:
        code = amp_error_set(reterr, AMP_INVALID, "",
                             "an event has one of task, message, statusUpdate and artifactUpdate");
    }
    /* Many ended tasks are kept for reading: they need no memory to decode with. */
    if (amp_task_is_terminal(amp_fold_state(fold))) {
        amp_arena_done(&fold->arena);
        amp_arena_init(&fold->arena, AMP_ARENA_BYTES_MAX);
    }
    return code;
}
