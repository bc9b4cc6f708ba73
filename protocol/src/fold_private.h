/* Inside of a fold: fold.c (life, status, history, snapshots), fold_artifact.c, fold_clone.c (copies), fold_talk.c (questions and answers). */
#pragma once

#include <amp/amp.h>

#include "fold_clone.h"

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
    struct amp_arena arena, room;
    Amp__TaskStatus submitted; /* the first status */
    bool is_reused;
};

size_t fold_cost(const ProtobufCMessage *message);
enum amp_code fold_room_check(const struct amp_fold *fold, size_t cost, struct amp_error *reterr);
enum amp_code fold_no_memory(struct amp_error *reterr);
/* The list with room for `want` items; NULL (and the list as it was) if memory is gone. */
void *fold_list_reserve(void *list, size_t *cap, size_t want, size_t size);
enum amp_code fold_open_check(const struct amp_fold *fold, const char *field, struct amp_error *reterr);
/* Is the event about this task? A fold that was made without an id takes the first it hears. */
enum amp_code fold_owner_check(struct amp_fold *fold, const char *task_id, const char *field, struct amp_error *reterr);

void fold_artifacts_drop(struct amp_fold *fold);
/* Index of the artifact, or the number of artifacts. */
size_t fold_artifact_find(struct amp_fold *fold, const char *id);
/* Puts a copy at `at`, which is an artifact to replace or the end of the list. */
enum amp_code fold_artifact_put(struct amp_fold *fold, size_t at, const Amp__Artifact *artifact, struct amp_error *reterr);
enum amp_code fold_artifact_apply(struct amp_fold *fold, const Amp__TaskArtifactUpdateEvent *update, struct amp_error *reterr);
