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
/* SIGINT ends the loop with status 130: for commands that run until then, ctrl-C is their good end. Free with loop_signal_free. */
struct loop_signal *output_stop_on_sigint(struct loop *loop);

/* From here on stdout holds up nobody: what its reader does not take waits in memory, and the loop goes on (a loop that stands still is a lost bus connection).
 * on_full(ctx, true) when more than OUTPUT_FULL_BYTES wait, (ctx, false) when none do. What is fflushed counts. One at a time. */
void output_queue_begin(struct loop *loop, void (*on_full)(void *ctx, bool is_full), void *ctx);
/* Writes the rest, however long its reader takes (an interrupt ends the program), and gives stdout back. */
void output_queue_end(void);
