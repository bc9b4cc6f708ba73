/* What makes events: shared by event.c and project.c. */
#pragma once

#include <amp/amp.h>

#define RESPONSE_ID "response"

/* What the sink said, with an error for the agent if it refused: sinks have a code only. */
enum amp_code event_taken(enum amp_code code, struct amp_error *reterr);

/* Encodes the event and hands it to the sink. */
enum amp_code event_emit(const Amp__StreamResponse *event, const struct amp_event_sink *sink, struct amp_error *reterr);

/* One statusUpdate. `text` and `metadata` may be NULL; `metadata` is a checked JSON object. */
struct event_status {
    Amp__TaskState state;
    const char *text;
    const Amp__Json *metadata;
};
enum amp_code event_emit_status(const struct amp_event_source *source, const struct event_status *from,
                                const struct amp_event_sink *sink, struct amp_error *reterr);
