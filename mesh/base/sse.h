/* Server-sent events (the WHATWG's text/event-stream): bytes in, events out. Pure. What comes is hostile: lines and events are bounded, and what is no UTF-8 is refused. */
#pragma once
#include <amp/amp.h>

struct sse_event {
    const char *name; /* "message", unless it has one */
    const char *data; /* lines joined by \n */
    const char *id;   /* the last one that came; "": none */
};

struct sse {
    struct amp_buf line, data;
    char name[64], id[256];
    size_t event_max;
    bool is_begun, has_data, was_cr;
    /* False: enough, nothing more comes from this. */
    bool (*on_event)(void *ctx, const struct sse_event *event);
    void *ctx;
};

void sse_init(struct sse *sse, size_t event_max, bool (*on_event)(void *ctx, const struct sse_event *event), void *ctx);
void sse_done(struct sse *sse);
/* AMP_TOO_LARGE: an event is larger than that; AMP_BAD_ANSWER: it is no UTF-8, or has a NUL. Nothing may follow then. An event that no empty line ends never was. */
AMP_MUST_USE enum amp_code sse_feed(struct sse *sse, struct amp_bytes data, struct amp_error *reterr);
