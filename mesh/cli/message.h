/* A message made from what the user typed and attached. */
#pragma once
#include <amp/amp.h>

#define MESSAGE_FILES_MAX 32u
#define MESSAGE_BYTES_MAX AMP_WIRE_BYTES_MAX /* text and files together */

struct message_source {
    const char *text;   /* "-": standard input; NULL: none */
    const char **files; /* NULL-ended, or NULL */
    const char *task_id, *context_id; /* or NULL */
};

/* Reads the files and makes the message in `arena`. Errors name the file. */
AMP_MUST_USE enum amp_code message_make(const struct message_source *source, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr);
/* Guessed from the name's end; "application/octet-stream" if it says nothing. */
const char *message_media_type(const char *path);
