/* Copies of messages that stay, each in one piece of memory. */
#pragma once

#include <amp/amp.h>

/* `room` is where a piece is looked for first; malloc has what does not fit there. NULL when memory is gone. */
void *fold_piece(struct amp_arena *room, size_t size);
void fold_piece_free(void *piece); /* what lies in the room stays there until that is reset; NULL is fine */

/* A deep copy, unknown fields too: nothing but the piece is to be freed. Whoever puts another pointer into it has that to free. */
void *fold_clone(const ProtobufCMessage *message, struct amp_arena *room);
char *fold_clone_text(const char *text, struct amp_arena *room);
/* Does this lie in the piece? */
bool fold_piece_holds(const void *piece, const void *at);
