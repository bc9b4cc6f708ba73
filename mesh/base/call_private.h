/* Inside of a call: call.c (call.h: checks, life), call_io.c (carries out what call_fsm decides, and tells it what the bus says). */
#pragma once
#include "base/call.h"
#include "base/call_fsm.h"

struct bus_inbox;
struct loop_timer;

struct call {
    struct loop *loop;
    struct bus *bus;
    struct call_handlers handlers;
    void *ctx;
    struct call_fsm fsm;
    struct amp_stream stream;
    struct loop_timer *timer;
    struct bus_inbox *inbox, *who, *turn, *ctl;
    struct amp_buf wire; /* the request, until it was taken */
    uint32_t timeout_ms, given_ms;
    uint32_t lease_ms, committed;
    uint64_t epoch;
    uint64_t received_bytes, confirmed_bytes; /* of frames */
    bool was_sent, is_held, is_given_up;

    char *agent, *skill, *instance; /* asked for */
    char *from, *task_id;
    char subject[AMP_SUBJECT_SIZE], who_subject[AMP_SUBJECT_SIZE], ctl_subject[AMP_SUBJECT_SIZE];
    char taken_agent[AMP_NAME_MAX + 1], taken_instance[AMP_NAME_MAX + 1];
    char load[96];
    char turn_subject[AMP_SUBJECT_SIZE]; /* where it is our turn; "": at whoever is free */
    char wait_subject[AMP_SUBJECT_SIZE];
    Amp__Priority priority;
    bool is_queued; /* as far as we know, there */
    char cancel_reason[128];

    /* The message at hand; only inside of on_reply. */
    const Amp__Frame *frame;
    const Amp__Error *error;
    uint32_t skip;
    const char *denied; /* a subject of ours */
    char detail[512];

    bool is_end_due; /* an END that was reached inside of a function of call.h: told from the timer */
    enum call_why waiting_due; /* likewise a SAY_WAITING; or CALL_WHY_NONE */
    struct call_action end;
    unsigned in_api, in_callback;
    bool is_dead;
};

void call_feed(struct call *call, enum call_event_kind kind);
void call_io_open(struct call *call);  /* its timer and its inbox */
void call_io_close(struct call *call); /* nothing is called back any more */
void call_io_confirm(struct call *call); /* what was received, when enough of it is not confirmed */
struct bus_inbox *call_ctl_inbox(struct call *call);

/* Between enter and leave the call may be freed by its owner; its memory stays until the last leave. */
void call_enter(struct call *call);
void call_leave(struct call *call);
