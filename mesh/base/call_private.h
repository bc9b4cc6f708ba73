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
    struct amp_buf *wire; /* the request, until it was taken; then NULL */
    uint32_t timeout_ms, given_ms;
    uint32_t lease_ms, committed, window_bytes;
    uint64_t epoch;
    uint64_t received_bytes, confirmed_bytes; /* of frames, since the last Attach */
    uint32_t n_attached;                      /* how many were sent */
    bool was_sent, is_held, is_given_up;

    char *agent, *skill, *instance; /* asked for */
    char *from, *task_id, *context_id;
    struct {
        char agent[AMP_NAME_MAX + 1], skill[AMP_NAME_MAX + 1], instance[AMP_NAME_MAX + 1], from[AMP_NAME_MAX + 1], task_id[AMP_NAME_MAX + 1], context_id[AMP_NAME_MAX + 1];
    } names; /* where those lie */
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

    /* call_failover.c decides, call_again.c does it */
    bool is_retry_safe;
    bool may_retry, is_renewed;     /* the request is to be made anew before it is sent */
    struct {
        char instance[AMP_NAME_MAX + 1];
        int64_t refused_ms;         /* when it still had a former attempt; 0: it had not */
    } avoid[CALL_ATTEMPTS_MAX];     /* had the task */
    size_t n_avoid;
    char named[AMP_NAME_MAX + 1];   /* the instance that was named last */
    uint32_t shown, seq_base;       /* events that were shown, and of them by former attempts */
    uint8_t *cause, *broken;        /* packed: the Error that ended the last attempt; the Frame, if it was one */
    size_t cause_len, broken_len;

    bool is_end_due; /* an END that was reached inside of a function of call.h: told from the timer */
    enum call_why waiting_due; /* likewise a SAY_WAITING; or CALL_WHY_NONE */
    struct call_action end;
    unsigned in_api, in_callback;
    bool is_dead;
};

void call_feed_event(struct call *call, struct call_event event);
void call_feed(struct call *call, enum call_event_kind kind);
void call_wire_new(struct call *call);
void call_wire_free(struct call *call);
void call_io_open(struct call *call);  /* its timer and its inbox */
void call_io_renew(struct call *call); /* what was asked so far is answered to nobody */
void call_io_close(struct call *call); /* nothing is called back any more */
void call_io_confirm(struct call *call); /* what was received, when enough of it is not confirmed */
struct bus_inbox *call_ctl_inbox(struct call *call);

struct call_names;
struct call_names call_names_of(const struct call *call);

/* ---- call_again.c ---- */
void call_again_broken(struct call *call, enum call_why why);
void call_again_begin(struct call *call);
void call_again_refused(struct call *call);
/* Into the request that goes out next. */
void call_again_fill(const struct call *call, Amp__Request *request, struct amp_arena *arena);
/* Somebody answered that he is there: may he have it? */
void call_again_who(struct call *call, const Amp__Beat *beat, struct call_event *event);
/* The end that was kept, as there was nobody else: its event is shown, and *ret is its error, in `arena`. */
void call_again_end(struct call *call, const struct call_action *end, struct amp_arena *arena, const Amp__Error **ret);

/* Between enter and leave the call may be freed by its owner; its memory stays until the last leave. */
void call_enter(struct call *call);
void call_leave(struct call *call);
