/* Direct tasks of which an attempt has failed, and which their caller gives to another instance (amp.md 5.6, 6.6.3): until that is heard of, or cannot come any more, they are open. */
#pragma once
#include "env/env_private.h"

#define AGAIN_MS 5000u /* from an attempt that failed to the first frame of the next one, if the caller does not wait for its turn */

/* Is it a frame of a later attempt than the one that is followed? */
bool again_is_next(const struct etask *task, const Amp__Frame *frame);
/* Of an earlier one? */
bool again_is_past(const struct etask *task, const Amp__Frame *frame);
/* The later one begins. */
void again_begin(struct etask *task, const Amp__Frame *frame);
/* The first that is heard of a task is not its first attempt. */
void again_begin_first(struct etask *task, const Amp__Frame *frame);
/* Each frame, before it is taken: may the task be given to another instance as long as no more than this was said? */
void again_heard(struct etask *task, const Amp__Frame *frame);
/* The end of an attempt, which is kept: its last events, so many, are not to be taken. False: it is the end of the task. */
bool again_keep(struct etask *task, const Amp__Frame *frame, size_t *ret_n_kept);
/* With an end that was kept: is it not the task's yet? */
bool again_is_awaited(const struct etask *task);
/* Without: its instance is gone; may the caller have gone on? */
bool again_may_come(const struct etask *task);
bool again_is_kept(const struct etask *task); /* nothing more of that attempt counts */
/* The end that was kept, in `arena`; NULL: none was. */
const Amp__Frame *again_end(const struct etask *task, struct amp_arena *arena);
void again_free(struct etask *task);
