/* Events of a task for people (one line) and for programs (one JSON line). */
#pragma once
#include <amp/amp.h>
#include <stdio.h>

struct print_style;

/* Where an event came from. Members may be NULL or 0. */
struct event_head {
    uint32_t seq;
    int64_t unix_ms;
    const char *agent, *instance, *task_id, *context_id;
    uint32_t attempt;
};

/* Decodes the body of an event into `arena`. AMP_BAD_ANSWER: not a StreamResponse. */
AMP_MUST_USE enum amp_code event_decode(const Amp__Event *event, struct amp_arena *arena, Amp__StreamResponse **ret, struct amp_error *reterr);
/* The StreamResponse as one line, with seq, time, agent … beside it. */
void event_print_json(FILE *to, const struct event_head *head, const Amp__StreamResponse *body);
/* What happened, without the head: "working", "text "Hel"", "tool search({…})". The caller's (free). */
char *event_summary(const Amp__StreamResponse *body);
/* time seq [agent task] summary */
void event_print_line(FILE *to, const struct print_style *style, const struct event_head *head, const Amp__StreamResponse *body);

/* Is this text of the answer? Then its parts. */
const Amp__TaskArtifactUpdateEvent *event_response(const Amp__StreamResponse *body);
/* The state that the event brings; UNSPECIFIED if none. *ret_message (may be NULL) is the status message, or NULL. */
Amp__TaskState event_state(const Amp__StreamResponse *body, const Amp__Message **ret_message);
/* Metadata of the event as JSON, or NULL. The caller's (cJSON_Delete). */
struct cJSON *event_metadata(const Amp__StreamResponse *body);
/* "film.mp4 (video/mp4, 1048576 bytes)" for a part that is a blob (amp.md 15). The caller's. */
char *event_blob_summary(const Amp__Part *part);
/* Is it something the agent tells beside its answer (tool call, step, log …)? */
bool event_is_note(const Amp__StreamResponse *body);
/* All text of a message. The caller's; never NULL. */
char *event_message_text(const Amp__Message *message);
