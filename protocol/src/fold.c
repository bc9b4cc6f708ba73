/* A task as the fold of its events (amp.md 6.7).
 *
 * The task is one tree of protobuf-c messages, so that amp_fold_task costs nothing. Each event is decoded into an arena
 * that is reused; what stays is copied out, every message and artifact into a piece of its own. The last part of an
 * artifact that streams text is a growing string: appending is linear, and 1 MiB of text costs at most a quarter more
 * than that. `bytes` counts what stays. */
#include <amp/amp.h>

#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "event.h"
#include "fold_private.h"
#include "fold_talk.h"
#include "model.h"

/* Of a fold that is used again: room for the pieces of an ordinary task, and what is kept of the memory to decode with. */
#define ROOM_SIZE 4096u
#define ARENA_KEPT (16u << 10)
#define LISTS_KEPT 64u /* places */

size_t fold_cost(const ProtobufCMessage *message)
{
    return protobuf_c_message_get_packed_size(message) + ITEM_COST;
}

enum amp_code fold_room_check(const struct amp_fold *fold, size_t cost, struct amp_error *reterr)
{
    if (fold->bytes + cost <= fold->bytes_max)
        return AMP_OK;
    return amp_error_set(reterr, AMP_TOO_LARGE, "task", "the task would need more than %zu bytes", fold->bytes_max);
}

enum amp_code fold_no_memory(struct amp_error *reterr)
{
    return amp_error_set(reterr, AMP_NO_MEMORY, "task", "out of memory");
}

/* The list with room for `want` items; NULL (and the list as it was) if memory is gone. */
void *fold_list_reserve(void *list, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap)
        return list;
    size_t grown = want < 4 ? 4 : want + want / 2;
    void *made = realloc(list, grown * size);
    if (made)
        *cap = grown;
    return made;
}

enum amp_code fold_open_check(const struct amp_fold *fold, const char *field, struct amp_error *reterr)
{
    if (!amp_task_is_terminal(amp_fold_state(fold)))
        return AMP_OK;
    return amp_error_set(reterr, AMP_CONFLICT, field, "a task that is %s takes no more events",
                         amp_task_state_short(amp_fold_state(fold)));
}

/* Is the event about this task? A fold that was made without an id takes the first it hears. */
enum amp_code fold_owner_check(struct amp_fold *fold, const char *task_id, const char *field,
                                 struct amp_error *reterr)
{
    if (!task_id || !task_id[0] || strcmp(task_id, fold->task.id) == 0)
        return AMP_OK;
    if (fold->task.id[0])
        return amp_error_set(reterr, AMP_INVALID, field, "an event of '%.64s' in the stream of '%.64s'", task_id,
                             fold->task.id);
    char *copy = fold_clone_text(task_id, &fold->room);
    if (!copy)
        return fold_no_memory(reterr);
    fold_piece_free(fold->task.id);
    fold->task.id = copy;
    return AMP_OK;
}

static enum amp_code begin(struct amp_fold *fold, const char *task_id, const char *context_id)
{
    amp__task__init(&fold->task);
    amp__task_status__init(&fold->submitted);
    fold->submitted.has_state = true;
    fold->submitted.state = AMP__TASK_STATE__TASK_STATE_SUBMITTED;
    fold->task.status = &fold->submitted;
    fold->task.id = fold_clone_text(task_id ? task_id : "", &fold->room);
    fold->task.context_id = fold_clone_text(context_id ? context_id : "", &fold->room);
    return fold->task.id && fold->task.context_id ? AMP_OK : AMP_NO_MEMORY;
}

struct amp_fold *amp_fold_new(const char *task_id, const char *context_id, size_t bytes_max)
{
    struct amp_fold *fold = calloc(1, sizeof(*fold));
    if (!fold)
        return NULL;
    amp_arena_init(&fold->arena, AMP_ARENA_BYTES_MAX);
    amp_arena_init(&fold->room, 0);
    fold->bytes_max = bytes_max;
    if (begin(fold, task_id, context_id) == AMP_OK)
        return fold;
    amp_fold_free(fold);
    return NULL;
}

static void status_drop(struct amp_fold *fold)
{
    if (fold->task.status != &fold->submitted)
        fold_piece_free(fold->task.status);
}

static void history_drop(struct amp_fold *fold)
{
    for (size_t i = 0; i < fold->task.n_history; i++)
        fold_piece_free(fold->task.history[i]);
    fold->bytes -= fold->history_cost;
    fold->history_cost = 0;
    fold->task.n_history = 0;
}

static void task_drop(struct amp_fold *fold)
{
    fold_artifacts_drop(fold);
    history_drop(fold);
    status_drop(fold);
    fold_piece_free(fold->task.metadata);
    fold_piece_free(fold->task.id);
    fold_piece_free(fold->task.context_id);
}

static void lists_free(struct amp_fold *fold)
{
    free(fold->task.artifacts);
    free(fold->task.history);
    free(fold->infos);
    fold->task.artifacts = NULL;
    fold->task.history = NULL;
    fold->infos = NULL;
    fold->artifacts_cap = fold->history_cap = 0;
}

void amp_fold_free(struct amp_fold *fold)
{
    if (!fold)
        return;
    task_drop(fold);
    lists_free(fold);
    amp_arena_done(&fold->arena);
    amp_arena_done(&fold->room);
    free(fold);
}

enum amp_code amp_fold_reset(struct amp_fold *fold, const char *task_id, const char *context_id)
{
    task_drop(fold);
    if (fold->artifacts_cap > LISTS_KEPT || fold->history_cap > LISTS_KEPT)
        lists_free(fold);
    if (!fold->is_reused)
        amp_arena_init(&fold->room, ROOM_SIZE);
    fold->is_reused = true;
    amp_arena_reset(&fold->room);
    arena_trim(&fold->arena, ARENA_KEPT);
    Amp__Artifact **artifacts = fold->task.artifacts;
    Amp__Message **history = fold->task.history;
    enum amp_code code = begin(fold, task_id, context_id);
    fold->task.artifacts = artifacts;
    fold->task.history = history;
    fold->bytes = fold->status_cost = fold->metadata_cost = 0; /* of the rest by task_drop */
    return code;
}

Amp__TaskState amp_fold_state(const struct amp_fold *fold)
{
    return fold->task.status->state;
}

const Amp__Task *amp_fold_task(struct amp_fold *fold)
{
    return &fold->task;
}

static enum amp_code history_add(struct amp_fold *fold, const Amp__Message *message, struct amp_error *reterr)
{
    size_t cost = fold_cost(&message->base);
    enum amp_code code = fold_room_check(fold, cost, reterr);
    if (code != AMP_OK)
        return code;
    if (fold->task.n_history == AMP_MEMBERS_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "task.history", "has %u messages", AMP_MEMBERS_MAX);
    Amp__Message **history =
        fold_list_reserve(fold->task.history, &fold->history_cap, fold->task.n_history + 1, sizeof(*history));
    if (!history)
        return fold_no_memory(reterr);
    fold->task.history = history;
    Amp__Message *copy = fold_clone(&message->base, &fold->room);
    if (!copy)
        return fold_no_memory(reterr);
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
    size_t cost = fold_cost(&status->base) + (question ? fold_cost(&question->base) : 0);
    if (amp_task_is_terminal(status->state) || cost <= fold->status_cost)
        return AMP_OK;
    return fold_room_check(fold, cost - fold->status_cost, reterr);
}

static enum amp_code status_replace(struct amp_fold *fold, const Amp__TaskStatus *status, struct amp_error *reterr)
{
    Amp__TaskStatus *copy = fold_clone(&status->base, &fold->room);
    if (!copy)
        return fold_no_memory(reterr);
    size_t cost = fold_cost(&status->base);
    status_drop(fold);
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
    enum amp_code code = fold_owner_check(fold, update->task_id, "statusUpdate.taskId", reterr);
    if (code == AMP_OK)
        code = move_check(fold, update->status, "statusUpdate.status.state", reterr);
    if (code != AMP_OK)
        return code;
    fold_talk_read(&talk, update->metadata);
    code = apply_talk(fold, update, &talk, reterr);
    fold_talk_done(&talk);
    return code;
}

/* ---- snapshot --------------------------------------------------------------------------------------- */

static enum amp_code metadata_replace(struct amp_fold *fold, const Amp__Json *metadata, struct amp_error *reterr)
{
    size_t cost = metadata ? fold_cost(&metadata->base) : 0;
    Amp__Json *copy = metadata ? fold_clone(&metadata->base, &fold->room) : NULL;
    if (metadata && !copy)
        return fold_no_memory(reterr);
    fold_piece_free(fold->task.metadata);
    fold->task.metadata = copy;
    fold->bytes = fold->bytes - fold->metadata_cost + cost;
    fold->metadata_cost = cost;
    return AMP_OK;
}

static size_t snapshot_cost(const Amp__Task *task)
{
    size_t cost = fold_cost(&task->status->base) + (task->metadata ? fold_cost(&task->metadata->base) : 0);
    for (size_t i = 0; i < task->n_artifacts; i++)
        cost += fold_cost(&task->artifacts[i]->base) + task->artifacts[i]->n_parts * ITEM_COST;
    for (size_t i = 0; i < task->n_history; i++)
        cost += fold_cost(&task->history[i]->base);
    return cost;
}

static enum amp_code snapshot_check(struct amp_fold *fold, const Amp__Task *task, struct amp_error *reterr)
{
    enum amp_code code = fold_owner_check(fold, task->id, "task.id", reterr);
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
    fold_artifacts_drop(fold);
    if (task->n_history > 0)
        history_drop(fold);
    for (size_t i = 0; i < task->n_artifacts && code == AMP_OK; i++)
        code = fold_artifact_put(fold, fold_artifact_find(fold, task->artifacts[i]->artifact_id), task->artifacts[i], reterr);
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
        code = fold_artifact_apply(fold, event->artifact_update, reterr);
        break;
    case AMP__STREAM_RESPONSE__PAYLOAD_TASK:
        code = apply_task(fold, event->task, reterr);
        break;
    case AMP__STREAM_RESPONSE__PAYLOAD_MESSAGE:
        code = fold_open_check(fold, "message", reterr);
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
    if (!fold->is_reused && amp_task_is_terminal(amp_fold_state(fold))) {
        amp_arena_done(&fold->arena);
        amp_arena_init(&fold->arena, AMP_ARENA_BYTES_MAX);
    }
    return code;
}
