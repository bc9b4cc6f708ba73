/* Small things that several commands do with their output. */
#pragma once
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
