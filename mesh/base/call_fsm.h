/* The state machine of one call (amp.md 5), without I/O: (state, event, now) → (state, actions). call.c carries the actions out and
 * turns what the bus says into events; everything that can go wrong between caller and callee is decided here, and nowhere else.
 *
 * Promises, whatever the order of events: exactly one CALL_DO_END; no action but none after it; the request is never published
 * again once somebody may have taken it (a frame came, or the answer to it is outstanding), except as another attempt (CALL_DO_RETRY). There is
 * one only of a call that may be tried again, after its instance failed, and as long as nothing was shown that could not be taken back (amp.md 5.6). */
#pragma once
#include <amp/amp.h>

#define CALL_ACK_MS 200u          /* asked of the callee: a first frame within this time */
#define CALL_SILENCE_MS 2000u     /* a request without any answer for this long is lost */
#define CALL_WHO_EVERY_MS 1000u   /* while waiting: is the agent still there? */
#define CALL_PING_EVERY_MS 1000u  /* of silence after it was taken */
#define CALL_ENDED_PONGS_MAX 2u   /* "it has ended" in a row: the end marker is not merely on its way */
#define CALL_PINGS_OPEN_MAX 10u   /* unanswered in a row: the sidecar hangs */
#define CALL_CANCEL_MAX_MS 10000u /* a cancelled task has this long to end */
#define CALL_DOWN_MAX_MS 10000u   /* the bus may be away for this long, but for a lease */
#define CALL_DOWN_POLL_MS 50u
#define CALL_TURN_MS 1000u        /* whoever waits for its turn tries by itself, and says that it waits, so often */
#define CALL_TURN_SILENCE_MS 500u /* an environment that does not answer for so long is done without */
#define CALL_ALONE_MS 2000        /* and is asked again after so long */
#define CALL_RETURN_MS 5000u      /* after the bus came back others may still be on their way: absence says nothing yet */
#define CALL_BOUNCES_MAX 3u       /* full instances met in a row before the agent counts as busy */
#define CALL_BACKOFF_MIN_MS 5u
#define CALL_BACKOFF_MAX_MS 250u
#define CALL_LEASE_GRACE_MS 1000u /* beyond the lease: its holder gives up first */
#define CALL_ATTACH_EVERY_MS 200u /* while the callee is not found, or does not answer; without a lease twice as long each time, */
#define CALL_ATTACH_SLOW_MS 1600u /* up to this: what it sends meanwhile may be on its way */
#define CALL_STALL_MS 500u        /* a timer that rings so late: it was we who stood still */
#define CALL_GAP_MAX_MS 10000u    /* what is missing must have come by then, or the call fails */
#define CALL_GAP_SILENT_MS 3200u   /* of silence: it could not send what is missing, and gets as long once it is heard again; twice CALL_ATTACH_SLOW_MS */
#define CALL_ATTACH_MAX_MS 1500u  /* nobody of its name there for this long: it is gone */
#define CALL_ATTACH_LEASED_MS 3000u /* asked for by a caller that may have begun together with the bus: its holder comes back within 2 s (bus.h), and connects */
#define CALL_ATTEMPTS_MAX 3u      /* of a call that may be tried again: one that fails three instances will fail a fourth */
#define CALL_SEEK_EVERY_MS 50u    /* who looks for another instance asks so often, and takes the first answer: one that is stopped gives none */
#define CALL_SEEK_MAX_MS 2000u    /* and for so long */
#define CALL_SEEKS_MAX 32u        /* answers of instances that may not have it, before there is no other one */
#define CALL_SEEKS_FULL_MAX 4u    /* of such that are full, before it waits for its turn */
#define CALL_PINGS_RETRY 3u       /* unanswered in a row, where another instance may have the task: as many as beats (amp.md 9.2.2) */
#define CALL_ACTIONS_MAX 6u       /* of one step */

enum call_phase {
    CALL_IDLE,
    CALL_SENT,    /* the request is out, nothing came back: it may or may not be running */
    CALL_ASKING,  /* nobody listened; asked whether the agent exists */
    CALL_QUEUING, /* nobody listened; asked the environment for a turn */
    CALL_WAITING, /* it exists and is busy (or the bus is away): to be sent again at retry_at */
    CALL_TAKEN,   /* an instance works on it */
    CALL_SEEKING, /* an instance is looked for, to be named: for another attempt, or since the last time one did not answer */
    CALL_ENDED,
};

enum call_event_kind {
    CALL_EV_START,
    CALL_EV_NOT_PUBLISHED, /* the action `action` could not be carried out: `code` */
    CALL_EV_NO_RESPONDERS, /* to the request */
    CALL_EV_BOUNCED,       /* the request met an instance that is full or leaving, which did not take it */
    CALL_EV_REPLY_ERROR,   /* the request was refused for another reason; or what was asked of the callee again: `code` */
    CALL_EV_DENIED,        /* the bus forbids a subject that this call needs */
    CALL_EV_BAD_ANSWER,    /* what came is no answer */
    CALL_EV_FRAME,         /* the next frame in order; is_last: with the end marker */
    CALL_EV_FRAME_GAP,
    CALL_EV_WHO_NONE,      /* nobody of that name */
    CALL_EV_WHO_THERE,
    CALL_EV_QUEUED,        /* the environment will tell when it is our turn */
    CALL_EV_TURN,          /* it is, at the instance that was named, or at whoever is free now */
    CALL_EV_NO_TURNS,      /* there is no environment, or it does not keep turns, or it knows nobody of that name */
    CALL_EV_TURN_REFUSED,  /* it cannot wait there, and need not try: no room, or no time */
    CALL_EV_PONG,          /* the callee knows the task */
    CALL_EV_PONG_UNKNOWN,  /* the callee does not know it (any more) */
    CALL_EV_PONG_BEHIND,   /* the callee knows it, and has sent events that did not come */
    CALL_EV_PONG_ENDED,    /* the callee says that the task has ended */
    CALL_EV_PONG_NONE,     /* the callee is gone */
    CALL_EV_HEARD,         /* the holder of the lease was heard of some other way */
    CALL_EV_LOST_TRACK,    /* what the holder says shows that frames did not arrive */
    CALL_EV_BUS_DOWN,
    CALL_EV_BUS_UP,
    CALL_EV_TIMER,
    CALL_EV_CANCEL,
    CALL_EV_KINDS
};

enum call_action_kind {
    CALL_DO_PUBLISH_REQUEST,
    CALL_DO_PUBLISH_WHO,
    CALL_DO_PUBLISH_WAIT, /* asks the environment for a turn, or says that we still wait for it */
    CALL_DO_PUBLISH_PING,
    CALL_DO_PUBLISH_CANCEL, /* `why` says for what reason */
    CALL_DO_PUBLISH_ATTACH, /* asks the callee for the events from the next one on */
    CALL_DO_TAKEN,          /* tell who took it */
    CALL_DO_DELIVER,        /* the events of the frame at hand; with CALL_WHY_BROKEN all but the end */
    CALL_DO_BROKEN,         /* keep why this attempt failed (`why`), and who had it */
    CALL_DO_RETRY,          /* what comes next is another attempt: nothing of the one before reaches it */
    CALL_DO_REFUSED,        /* who was named has the task already, from before: not that one */
    CALL_DO_SAY_WAITING,    /* tell that it waits; why: CALL_WHY_BUSY or CALL_WHY_NO_BUS */
    CALL_DO_SET_TIMER,      /* CALL_EV_TIMER in in_ms, instead of an earlier setting */
    CALL_DO_END,            /* `why`; `phase` is the one it ended in */
};

enum call_why {
    CALL_WHY_NONE,
    CALL_WHY_STREAM,     /* the end marker came: its error, or none */
    CALL_WHY_REPLY,      /* the error of the reply */
    CALL_WHY_GAP,        /* events are missing */
    CALL_WHY_MISSED_END, /* the task ended, and its end marker did not arrive */
    CALL_WHY_BAD_ANSWER,
    CALL_WHY_NOBODY,
    CALL_WHY_BUSY,
    CALL_WHY_DENIED,
    CALL_WHY_REFUSED, /* our side of the bus does not take the request: `code` */
    CALL_WHY_NO_BUS,
    CALL_WHY_DEADLINE,
    CALL_WHY_CANCELED,
    CALL_WHY_NO_ACK,  /* sent, then silence: unknown whether it ran */
    CALL_WHY_GONE,    /* the callee's sidecar left */
    CALL_WHY_UNKNOWN, /* the callee's sidecar does not know the task */
    CALL_WHY_HUNG,    /* the callee's sidecar is there and does not answer */
    CALL_WHY_LAPSED,  /* nothing was heard of the holder for its lease */
    CALL_WHY_NOT_KEPT, /* the holder cannot go on where its former caller was */
    CALL_WHY_BROKEN,   /* the end marker came, with a failure of the instance; in END: it was kept, as there was nobody else */
};

enum call_who { /* who answered */
    CALL_WHO_UNTOLD,
    CALL_WHO_FREE,
    CALL_WHO_FULL,
    CALL_WHO_AVOIDED, /* had the task already */
};

struct call_event {
    enum call_event_kind kind;
    enum call_action_kind action; /* NOT_PUBLISHED */
    enum amp_code code;           /* NOT_PUBLISHED, REPLY_ERROR */
    bool is_last, is_old;         /* FRAME; is_old: nothing in it is new */
    bool is_shown;                /* FRAME: something in it cannot be taken back */
    bool may_retry;               /* FRAME: another instance may do it */
    bool is_broken, is_load;      /* FRAME, is_last: the instance failed; or it could not take it, after all */
    bool is_conflict;             /* REPLY_ERROR: it has the task already */
    bool is_named;                /* TURN: with an instance */
    enum call_who who;            /* WHO_THERE */
    bool is_once;                 /* WHO_THERE: what was begun there must not be begun again */
};

struct call_action {
    enum call_action_kind kind;
    enum call_why why;
    enum call_phase phase; /* END */
    enum amp_code code;    /* END with CALL_WHY_REFUSED */
    uint32_t in_ms;        /* SET_TIMER */
};

struct call_fsm {
    enum call_phase phase;
    bool is_impatient, is_cancelling, is_down;
    bool has_said_busy, has_said_down; /* each is told once */
    bool was_down;                     /* since the last frame */
    bool may_queue;                    /* turns are kept by the environment */
    bool is_turn;                      /* the request that is out went where we were told to go */
    bool has_turn;                     /* we were told while one was out: to be used if that is in vain */
    bool is_turn_named;                /* told which instance */
    bool is_attaching;                 /* nothing has come yet of what the callee was asked for */
    bool is_wary;                      /* sent to named instances only */
    bool is_broken;                    /* this attempt has failed; the next one begins when an instance was found */
    bool may_retry, is_shown;          /* as the frames of this attempt say */
    enum call_why broken;              /* why the last attempt that failed did */
    uint32_t attempt, retries;         /* from 1; that are left */
    uint32_t seeks, fulls;
    int64_t seek_by;
    uint32_t lease_ms;                 /* 0: none */
    int64_t heard_at, attach_at, timer_at;
    int64_t gap_since;                 /* events are missing; INT64_MAX: none that we know of */
    uint32_t bounces, pings_open, ended_pongs, backoff_ms, attach_ms, random;
    int64_t deadline_at, cancel_by, down_since; /* INT64_MAX: none */
    int64_t sent_at, asked_at, retry_at, ping_at;
    int64_t alone_until; /* no environment before */
    int64_t up_at; /* the bus came back; INT64_MIN: was never away */
};

/* timeout_ms 0: none. `seed` makes the jitter. */
void call_fsm_init(struct call_fsm *fsm, uint32_t timeout_ms, bool is_impatient, uint32_t seed, int64_t now_ms);
/* Before the first step: the callee works on a lease. Pings go out also while frames come: they are what keeps it. */
void call_fsm_lease(struct call_fsm *fsm, uint32_t lease_ms);
/* Before the first step: when nobody is free, the environment is asked for a turn. Not for an impatient call. */
void call_fsm_queue(struct call_fsm *fsm);
/* Before the first step: a former caller's call is gone on with. It begins as taken; CALL_EV_NO_RESPONDERS and CALL_EV_REPLY_ERROR answer the attach. */
void call_fsm_attach(struct call_fsm *fsm);
/* Before the first step: the caller allows further attempts. Not for a lease, nor for a named instance. */
void call_fsm_retry(struct call_fsm *fsm);
/* Before the first step: an instance that does not answer is known there, and the bus goes on to pick it: an instance is looked for and named. */
void call_fsm_wary(struct call_fsm *fsm);
/* Would a failure of the instance lead to another attempt now, as far as the caller and this task are concerned? */
bool call_fsm_may_retry(const struct call_fsm *fsm);
/* Writes the actions in the order in which they are to be done and returns how many. Actions of one step never invalidate each other:
 * an END is the last one. */
size_t call_fsm_step(struct call_fsm *fsm, const struct call_event *event, int64_t now_ms, struct call_action ret[CALL_ACTIONS_MAX]);
