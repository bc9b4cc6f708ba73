/* Both ends of a call for its tests: a caller that notes what call.h tells it, and a callee at the far end of the bus (agent "up", instance
 * "i-1") that does what the test says. */
#pragma once
#include "base/call.h"
#include "world.h"

struct bus_sub;

#define TASK "t-1"

struct caller {
    struct world world;
    struct call *call;
    unsigned events, taken, waits, ends;
    uint32_t seqs[64];
    char reason[256], instance[64];
    struct amp_error err;
    bool has_wire, is_freed_in_event;

    /* The callee's. */
    struct bus_sub *req, *who, *ctl;
    unsigned requests, asked, controls, bounces_left;
    enum amp_code refusal, bounce; /* bounce: AMP_OK = AMP_BUSY */
    char inbox[128], control_reply[128], cancel_reason[64], input_id[64];
    uint32_t timeouts[8];
    Amp__Control__KindCase last_control;
    enum amp_code pong;
    void (*on_request)(struct caller *caller, const Amp__Request *request);
    void (*on_attach)(struct caller *caller, const Amp__Attach *attach); /* NULL: nothing is kept */
};

extern const struct call_handlers caller_handlers;

/* The callee answers "who" and control messages; requests only with has_requests or after caller_listen. */
void caller_begin(struct caller *caller, bool has_requests);
void caller_end(struct caller *caller);
void caller_listen(struct caller *caller);

/* tester → up, task TASK, "hello". Borrowed until the next call. */
struct call_options caller_options(void);
void caller_start(struct caller *caller, const struct call_options *options);
void caller_wait_end(struct caller *caller, enum amp_code code);

/* The callee's frames. end_count < 0: without an end marker. */
void caller_send_frame(struct caller *caller, uint32_t seq, uint32_t n, int64_t end_count);
/* For on_request: a first frame without events; one event and the end. */
void caller_take(struct caller *caller, const Amp__Request *request);
void caller_finish(struct caller *caller, const Amp__Request *request);
