/* A message made from what the user typed and attached. */
#pragma once
#include <amp/amp.h>

#define MESSAGE_FILES_MAX 32u
#define MESSAGE_BYTES_MAX AMP_WIRE_BYTES_MAX /* text and files together */

struct message_large { /* a part without a content yet: the file's bytes travel beside the message */
    Amp__Part *part;
    const char *path;
};

struct message_source {
    const char *text;   /* "-": standard input; NULL: none */
    const char **files; /* NULL-ended, or NULL */
    const char *task_id, *context_id; /* or NULL */
    size_t inline_max;                /* files above it are large; 0: none is */
    struct message_large large[MESSAGE_FILES_MAX]; /* made by message_make */
    size_t n_large;
};

/* Reads the files and makes the message in `arena`. Errors name the file. */
AMP_MUST_USE enum amp_code message_make(struct message_source *source, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr);
