/* Artifacts of a task that is folded: each is one piece of memory as it came, and what streams into it afterwards is malloc's. */
#include "fold_private.h"

#include <stdlib.h>
#include <string.h>

#include "model.h"

/* What holds the text of a part as it came: the artifact, or the part itself, if it was added later. */
static void *holder_of(Amp__Artifact *artifact, Amp__Part *part)
{
    return fold_piece_holds(artifact, part) ? (void *)artifact : (void *)part;
}

/* Texts that grew and lists that got longer are malloc's. */
static void artifact_drop(Amp__Artifact *artifact)
{
    for (size_t i = 0; i < artifact->n_parts; i++) {
        Amp__Part *part = artifact->parts[i];
        void *holder = holder_of(artifact, part);
        if (!fold_piece_holds(holder, part->text))
            free(part->text);
        if (holder == part)
            fold_piece_free(part);
    }
    if (!fold_piece_holds(artifact, artifact->parts))
        free(artifact->parts);
    fold_piece_free(artifact);
}

void fold_artifacts_drop(struct amp_fold *fold)
{
    for (size_t i = 0; i < fold->task.n_artifacts; i++) {
        fold->bytes -= fold->infos[i].cost;
        artifact_drop(fold->task.artifacts[i]);
    }
    fold->task.n_artifacts = 0;
    fold->hot = 0;
}

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

/* Memory of an artifact that grows, out of its piece when that has it so far; NULL (and all as it was) if memory is gone. */
static void *grow(const void *piece, void *old, size_t len, size_t size)
{
    if (!fold_piece_holds(piece, old))
        return realloc(old, size);
    void *grown = malloc(size);
    return grown ? memcpy(grown, old, len) : NULL;
}

static enum amp_code text_append(struct amp_fold *fold, size_t at, const char *text, struct amp_error *reterr)
{
    Amp__Artifact *artifact = fold->task.artifacts[at];
    struct fold_artifact *info = &fold->infos[at];
    Amp__Part *part = artifact->parts[artifact->n_parts - 1];
    size_t len = strlen(text);
    enum amp_code code = fold_room_check(fold, len, reterr);
    if (code != AMP_OK)
        return code;
    if (info->text_cap == 0) {
        info->text_len = strlen(part->text);
        info->text_cap = info->text_len + 1;
    }
    size_t want = info->text_len + len + 1;
    if (want > info->text_cap) {
        size_t cap = want + want / 4;
        char *grown = grow(holder_of(artifact, part), part->text, info->text_len, cap);
        if (!grown)
            return fold_no_memory(reterr);
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
    size_t len = artifact->n_parts * sizeof(Amp__Part *);
    Amp__Part **grown = grow(artifact, artifact->parts, len, len + n * sizeof(*grown));
    if (!grown)
        return fold_no_memory(reterr);
    artifact->parts = grown;
    for (size_t i = 0; i < n; i++) {
        size_t cost = fold_cost(&parts[i]->base);
        Amp__Part *copy = fold_clone(&parts[i]->base, &fold->room);
        if (!copy)
            return fold_no_memory(reterr);
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
        cost += i < first ? strlen(chunk->parts[i]->text) : fold_cost(&chunk->parts[i]->base);
    enum amp_code code = fold_room_check(fold, cost, reterr);
    if (code == AMP_OK && joins)
        code = text_append(fold, at, chunk->parts[0]->text, reterr);
    if (code == AMP_OK)
        code = parts_append(fold, at, chunk->parts + first, chunk->n_parts - first, reterr);
    return code;
}

/* Index of the artifact, or the number of artifacts. */
size_t fold_artifact_find(struct amp_fold *fold, const char *id)
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
    struct fold_artifact *infos = fold_list_reserve(fold->infos, &infos_cap, want, sizeof(*infos));
    if (!infos)
        return false;
    fold->infos = infos;
    Amp__Artifact **artifacts = fold_list_reserve(fold->task.artifacts, &fold->artifacts_cap, want, sizeof(*artifacts));
    if (!artifacts)
        return false;
    fold->task.artifacts = artifacts;
    return true;
}

/* Puts a copy at `at`, which is an artifact to replace or the end of the list. */
enum amp_code fold_artifact_put(struct amp_fold *fold, size_t at, const Amp__Artifact *artifact,
                                  struct amp_error *reterr)
{
    bool is_new = at == fold->task.n_artifacts;
    size_t cost = fold_cost(&artifact->base) + artifact->n_parts * ITEM_COST, freed = is_new ? 0 : fold->infos[at].cost;
    enum amp_code code = cost > freed ? fold_room_check(fold, cost - freed, reterr) : AMP_OK;
    if (code != AMP_OK)
        return code;
    if (at == AMP_ARTIFACTS_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "task.artifacts", "more than %u artifacts", AMP_ARTIFACTS_MAX);
    if (!artifacts_reserve(fold, at + 1))
        return fold_no_memory(reterr);
    Amp__Artifact *copy = fold_clone(&artifact->base, &fold->room);
    if (!copy)
        return fold_no_memory(reterr);
    if (is_new)
        fold->task.n_artifacts++;
    else
        artifact_drop(fold->task.artifacts[at]);
    fold->task.artifacts[at] = copy;
    fold->infos[at] = (struct fold_artifact){.cost = cost};
    fold->bytes = fold->bytes - freed + cost;
    return AMP_OK;
}

enum amp_code fold_artifact_apply(struct amp_fold *fold, const Amp__TaskArtifactUpdateEvent *update,
                                    struct amp_error *reterr)
{
    enum amp_code code = fold_owner_check(fold, update->task_id, "artifactUpdate.taskId", reterr);
    if (code == AMP_OK)
        code = fold_open_check(fold, "artifactUpdate", reterr);
    if (code != AMP_OK)
        return code;
    if (!update->artifact)
        return amp_error_set(reterr, AMP_INVALID, "artifactUpdate.artifact", "is missing");
    code = foreign_id_check(update->artifact->artifact_id, "artifactUpdate.artifact.artifactId", reterr);
    if (code == AMP_OK)
        code = parts_check(update->artifact->parts, update->artifact->n_parts, "artifactUpdate.artifact.parts", reterr);
    if (code != AMP_OK)
        return code;
    size_t at = fold_artifact_find(fold, update->artifact->artifact_id);
    if (update->append && at < fold->task.n_artifacts)
        return artifact_append(fold, at, update->artifact, reterr);
    return fold_artifact_put(fold, at, update->artifact, reterr);
}
