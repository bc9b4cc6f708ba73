/* Small things that several commands do with their output. */
#pragma once
#define OUTPUT_FULL_BYTES (256u << 10)
#include <amp/amp.h>
#include <stdio.h>

struct cJSON;
struct loop;
struct loop_signal;

/* One document on one line; deletes it. */
void output_json(FILE *to, struct cJSON *json);
/* A message as canonical JSON, one line. False if it cannot be encoded. */
bool output_message(FILE *to, const ProtobufCMessage *message);
/* For commands that print until they are ended: SIGINT stops the loop with status 130, and so does a reader of stdout that goes away (output_finish says what that is). */
struct output_until {
    struct loop_signal *on_sigint;
    struct loop_io *reader; /* NULL: stdout is no pipe */
};
void output_until_begin(struct loop *loop, struct output_until *ret);
void output_until_end(struct output_until *until);

/* Is what was printed lost, because the reader went away or the disk is full? Flushes. */
bool output_is_lost(void);
/* The program's exit code: `status`, unless something that was printed is lost. Then 1 with an error on stderr; of a reader that went away the program dies as others do, by SIGPIPE. */
int output_finish(int status);

enum output_event { OUTPUT_FREE, OUTPUT_FULL, OUTPUT_LOST };
/* From here on stdout holds up nobody: what its reader does not take waits in memory, and the loop goes on (a loop that stands still is a lost bus connection).
 * on_change: FULL when more than OUTPUT_FULL_BYTES wait, FREE when none do, LOST once when nothing more can be written. What is fflushed counts. One at a time. */
void output_queue_begin(struct loop *loop, void (*on_change)(void *ctx, enum output_event event), void *ctx);
/* Writes the rest, however long its reader takes (an interrupt ends the program), and gives stdout back. */
void output_queue_end(void);
