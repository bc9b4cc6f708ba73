/* Another attempt of a direct call (amp.md 5.6): what may be taken back, and how it is told. */
#pragma once
#include "base/call_fsm.h"

/* Says nothing but that the task is worked on. */
bool retry_is_quiet(const Amp__Event *event);

enum retry_kind {
    RETRY_NONE,
    RETRY_BROKEN, /* the instance failed */
    RETRY_LOAD,   /* it could take nothing, after all */
};
/* What the end of this frame, the last one, calls for, if nothing was shown before. */
enum retry_kind retry_kind_of(const Amp__Frame *frame);
/* Events of such a frame that are to be shown: all but the end. */
size_t retry_n_kept(const Amp__Frame *frame);

#define RETRY_TEXT_SIZE 160u
#define RETRY_METADATA_SIZE 192u
/* The event that tells of it (amp.md 10.5.6): "retrying (agent died: SIGKILL), attempt 2". `death` may be NULL. */
void retry_tell(enum amp_code cause, const Amp__Death *death, uint32_t attempt, char text[RETRY_TEXT_SIZE], char metadata[RETRY_METADATA_SIZE]);
