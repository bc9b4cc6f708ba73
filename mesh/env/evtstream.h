/* The stream of the bus that keeps what is published on amp.evt (amp.md 10.8), so that what happens while the environment is away can be read later. Seen by:
 * evtstream.c (the stream itself: is it there, is it well, how far was it read), evtstream_read.c (reading what was not heard), evtstream_again.c (open tasks published
 * again after the stream had lost them), evtstream_fresh.c (what was just heard, taken up a few milliseconds' worth at once).
 *
 * The environment hears amp.evt by a plain subscription. After each connection, and when a number is missing, what it hears is *held* while it reads the stream from
 * its mark on; then the held follows, and what came twice is known by the numbers. The mark is a place in the stream before which all is surely in the journal. It is
 * moved by canaries: when the second one is acknowledged, everything before the first one has been heard on the same connection; the rows of it go to the journal
 * before the mark does. The last canary's own text is kept with the mark: if it does not stand in the stream any more, that one was rolled back or made again by somebody.
 * On servers before 2.10 the stream is in the server's memory: whoever publishes into a stream whose disk is full loses its connection there for good (2.9.10, measured),
 * and that would be every sidecar. So it outlives the environment, but not the server.
 * Without JetStream nothing is held, and history is what was heard. */
#pragma once
#include "env_private.h"

#include "base/jetstream.h"

#define EVT_STREAM "AMP_EVT"
#define EVT_BYTES_MAX ((uint64_t)512 << 20) /* of the stream; a quarter, and so on, where the server has no room for that */
#define EVT_MEMORY_BYTES_MAX ((uint64_t)32 << 20) /* costs the server about three times as much */
#define EVT_BYTES_MIN ((uint64_t)1 << 20)
#define EVT_MESSAGES_MAX 200000u            /* each task is a subject: about 1 KiB of the memory of a server of 2.15 */
#define EVT_AGE_MAX_MS ((int64_t)3 * 24 * 3600 * 1000)
#define EVT_LOOK_MS 2000u                   /* between two canaries: red after at most this and JS_TIMEOUT_MS */
#define EVT_UNCOUNTED 32u                   /* messages that may overtake the first canary */
#define EVT_ABSENT_MS 10000u                /* between two looks for a JetStream that is not there */
#define EVT_SETTLE_MS 50u                   /* a cluster's other servers learn of the subscription */
#define EVT_MARK_MS 60000                   /* the mark is written at least so often, */
#define EVT_MARK_BUSY_MS 1000               /* and at most */
#define EVT_HELD_MAX 65536u                 /* messages held, and */
#define EVT_HELD_BYTES_MAX ((size_t)16 << 20)
#define EVT_FRESH_MS 5u                     /* what is heard is taken up together, so often, */
#define EVT_FRESH_BYTES_MAX ((size_t)32 << 10) /* and so much of it at once: the bus is not read meanwhile */
#define EVT_FILL_MS 1000                    /* between two readings because a number was missing */
#define EVT_LATE_MS 2000u                   /* so long readers wait for the end of the reading */
#define EVT_READ_UNWRITTEN_MAX ((size_t)8 << 20) /* reading waits while more is on its way to the journal */
#define EVT_READ_PAUSE_MS 5u

enum evt_phase {
    EVT_DOWN,     /* the bus is away */
    EVT_CHECKING, /* is it there, is it the one that the mark is of? Held */
    EVT_READING,  /* held */
    EVT_LIVE,
    EVT_OFF,      /* it cannot be used; `reason` */
};

struct evt_mark { /* in the journal */
    char created[48]; /* of the stream; "": there is no mark */
    uint64_t seq;     /* all up to here is in the journal */
    uint64_t anchor;  /* here stands… */
    char anchor_text[JS_CANARY_MAX];
};

struct evt_held {
    struct evt_held *next;
    char *subject;
    size_t len;
    uint8_t data[];
};

struct evt_again { /* open tasks that are being published again */
    bool is_on;
    struct loop_timer *timer;
    uint32_t n_tasks, n_frames, n_step;
    struct journal_row at; /* the task at hand; its texts are in `arena` */
    bool has_task;
    uint32_t next_seq;
    struct amp_arena arena;
};

struct evtstream {
    struct env *env;
    enum evt_phase phase;
    char subject[AMP_SUBJECT_SIZE], canary_subject[AMP_SUBJECT_SIZE], canaries[AMP_SUBJECT_SIZE];
    struct js_stream_config config;
    struct js_request *request;
    struct js_canary *canary;
    struct js_read *read;
    struct loop_timer *timer; /* the next look, or step of reading */
    struct loop_timer *late;  /* the end of the readers' patience */
    bool is_settled, is_patient, is_asked_again;
    int64_t checked_ms; /* when it was last asked for */
    struct js_stream now; /* as it was when last asked for */
    struct evt_mark mark;
    int64_t written_ms;   /* the mark, to the journal */
    uint64_t saved_anchor, saving_anchor; /* the canary that the journal's mark names, and that which it will */
    bool is_saving;
    bool has_heard;       /* something since then */
    uint64_t canary_seq;  /* of the last canary since LIVE began; 0: none yet */
    char canary_text[JS_CANARY_MAX];
    uint64_t base_seq, n_heard, n_heard_before; /* the first canary; heard since then; of it, before the last canary was sent */
    struct evt_held *held, *held_last;
    uint32_t n_held;
    size_t held_bytes;
    bool has_overflowed;
    struct amp_buf fresh; /* heard and not taken up; evtstream_fresh.c */
    struct loop_timer *fresh_timer;
    bool is_taking;
    int64_t filled_ms;
    uint64_t left; /* to be read */
    bool is_failed;
    char reason[240];
    uint32_t n_lost, n_missed;
    struct evt_again again;
};

/* ---- evtstream.c ---- */
void evt_off(struct evtstream *evt, bool is_failed, const char *reason); /* what is held is let go */
void evt_off_by(struct evtstream *evt, enum js_outcome outcome, const char *reason); /* as evt_off, but for an answer that the next one may better */
void evt_check(struct evtstream *evt);  /* from now on what is heard is held; asks for the stream */
void evt_live(struct evtstream *evt);   /* nothing is missing: from now on what is heard counts */
void evt_lost(struct evtstream *evt, const char *why);
void evt_write_mark(struct evtstream *evt);

/* ---- evtstream_read.c ---- */
void evt_read(struct evtstream *evt); /* from the mark to where the stream was when last asked */
void evt_read_step(struct evtstream *evt);
void evt_hold(struct evtstream *evt, const struct bus_msg *msg);
void evt_release(struct evtstream *evt);
void evt_drop_held(struct evtstream *evt);

/* ---- evtstream_fresh.c ---- */
void evt_fresh_init(struct evtstream *evt);
void evt_fresh_done(struct evtstream *evt);

/* ---- evtstream_again.c ---- */
void evt_again_start(struct evtstream *evt);
void evt_again_bus_up(struct evtstream *evt);
void evt_again_done(struct evtstream *evt);
