/* The parts of one sidecar, seen by each other. sidecar.c owns and wires them; each part's functions stand under its own heading. Loop thread only.
 *
 * One tick serves all parts, in this order, so that a slot that became free is on the bus before the answer that freed it: membership,
 * frames, beat. */
#pragma once
#include <amp/amp.h>

#include "base/blob_store.h"
#include "sidecar/local.h"
#include "sidecar/sidecar.h"
#include "sidecar/spawn.h"
#include "sidecar/task.h"
#include "sidecar/worker.h"

struct blobs;
struct bus_inbox;
struct bus_msg;
struct bus_sub;
struct loop_tick;
struct loop_timer;

#define SIDECAR_ACK_MS 200u          /* first sign of life when the request does not say */
#define SIDECAR_BUSY_RETRY_MS 50u    /* what a bounced caller is told */
#define SIDECAR_BEAT_MS 1000u
#define SIDECAR_BEAT_GAP_MS 50u      /* at most 20 beats a second */
#define SIDECAR_WHO_JITTER_MS 50u    /* spread of the answers to amp.whoall */
#define SIDECAR_CANCEL_MS 5000u      /* between a cancel and SIGKILL */
#define SIDECAR_WAITING_MAX 256u     /* tasks between two turns (INPUT_REQUIRED), which hold no slot */
#define SIDECAR_LINGERING_MAX 256u   /* ended tasks whose last frames wait for the bus */
#define SIDECAR_KEPT_MAX 4096u       /* ended tasks on lease that the environment has not written down yet */
#define SIDECAR_KEPT_BYTES (8u << 20) /* of events of one task that are sent and not written down; when it is more they are not kept */
#define SIDECAR_RESUME_BYTES (2u << 20) /* of events of one direct task that are sent and not confirmed; when it is more they are not kept */
#define SIDECAR_ENDED_MAX 128u       /* direct tasks that have ended and are kept, as their caller may have missed the end; */
#define SIDECAR_ENDED_BYTES (8u << 20) /* so many bytes of them, */
#define SIDECAR_ENDED_MS 15000u      /* for so long in which the caller could reach us */
#define SIDECAR_LEASE_MIN_MS 300u
#define SIDECAR_LEASE_MAX_MS 60000u
#define SIDECAR_QUESTIONS_MAX AMP_QUESTIONS_MAX /* open questions of one task */
#define SIDECAR_BRAKE_BYTES (512u << 10) /* of events of one task that wait: from here on its agent is held back */
#define SIDECAR_UNSENT_MAX (16u << 20)   /* what an agent that cannot be held back in time may make wait */
#define SIDECAR_FRAME_EVENTS_MAX 64u
#define SIDECAR_POOL_MAX 64u         /* tasks kept for reuse, each with at most 3 times */
#define SIDECAR_POOL_BYTES (16u << 10)

/* ---- member.c: the queue groups ------------------------------------------------------------------------- */

struct endpoint {      /* a name under which the agent is called; also what micro.c counts */
    char name[AMP_NAME_MAX + 8];    /* of the endpoint in ADR-32 */
    char subject[AMP_SUBJECT_SIZE];
    char who[AMP_SUBJECT_SIZE];
    struct bus_sub *sub;            /* while a member */
    struct bus_sub *who_sub;
    struct sidecar *sidecar;
    uint64_t n_requests, n_errors, busy_ns;
    char last_error[128];
};

struct member {
    struct endpoint *endpoints;     /* [0] is the agent's name, then one per skill */
    size_t n_endpoints;
    struct bus_sub *direct, *control, *who_all;
    bool is_open, is_member;
};

/* Pure: does an instance in this state, with so many free slots, belong in its groups? */
bool member_wants(Amp__InstanceState state, uint32_t free_slots);
void member_init(struct sidecar *sidecar);
void member_add_skills(struct sidecar *sidecar); /* those that the card has got since; not while a member */
void member_open(struct sidecar *sidecar);   /* what is subscribed always; idempotent */
void member_update(struct sidecar *sidecar); /* joins or leaves as member_wants says */
void member_leave(struct sidecar *sidecar);  /* everything but the control subject: goodbye */
void member_done(struct sidecar *sidecar);

/* ---- seek.c: calls that wait for a free slot ----------------------------------------------------------------- */

struct env_call;
struct seek {
    struct env_call *call;     /* who is next? or NULL */
    struct loop_timer *timer;  /* while slots are kept */
    uint32_t asked, kept;      /* slots */
    uint32_t early;            /* requests that were here before we knew that they had their turn */
    bool is_joined;            /* when we asked */
    bool is_contended;         /* somebody waited when we asked last, or was sent here: we ask before we join */
    bool is_last;              /* we asked, and nobody is left: we join, and look once more */
    bool is_new;               /* nobody knows yet that there are slots here */
    int64_t alone_until_ms;    /* no environment before */
};

void seek_init(struct sidecar *sidecar);
/* May the instance join its groups? If not now, the tick comes again when it may. */
bool seek_may_join(struct sidecar *sidecar, uint32_t free_slots);
void seek_joined(struct sidecar *sidecar, uint32_t free_slots);
uint32_t seek_promised(const struct sidecar *sidecar); /* slots that are not for whoever comes */
void seek_found(struct sidecar *sidecar); /* a request came to this instance itself */
void seek_stop(struct sidecar *sidecar);  /* it leaves, or the bus is away */
void seek_done(struct sidecar *sidecar);

/* ---- pause.c: an agent that can take nothing now ------------------------------------------------------------------ */

struct pause {
    struct loop_timer *timer; /* set: it takes nothing */
    int64_t until_ms;
    uint32_t gap_ms;          /* the last one; 0: it has done something since */
};
void pause_init(struct sidecar *sidecar);
void pause_begin(struct sidecar *sidecar, struct amp_error *err); /* for err->retry_after_ms, or (0) for longer each time, which is written there */
uint32_t pause_left_ms(const struct sidecar *sidecar);            /* 0: it takes what comes */
void pause_forget(struct sidecar *sidecar);
void pause_done(struct sidecar *sidecar);

/* ---- inbound.c ------------------------------------------------------------------------------------------------ */

void inbound_request(struct sidecar *sidecar, struct endpoint *endpoint, const struct bus_msg *msg);
void inbound_control(struct sidecar *sidecar, const struct bus_msg *msg);
void inbound_who(struct sidecar *sidecar, const struct bus_msg *msg);
/* Reply{error} (err NULL or AMP_OK: done) to an inbox, in that encoding. */
void inbound_reply(struct sidecar *sidecar, const char *inbox, enum amp_encoding encoding, const struct amp_error *err);

/* ---- task.c, task_table.c, task_question.c ----------------------------------------------------------------------- */

struct task_table {
    struct task *by_id;        /* uthash */
    LIST_HEAD(, task) retired; /* task_retire */
    struct task *dirty;        /* something to send at the end of this turn */
    struct task *pool;
    struct loop_timer *retry;  /* for frames the bus would not take */
    struct loop_timer *look;   /* task_hung.c */
    TAILQ_HEAD(, task) ended;  /* task_resume.c: the oldest first */
    size_t ended_bytes;
    uint32_t n_ended;
    struct loop_timer *old;
    int64_t kept_ms;           /* the clock of ended: goes on while something is kept and its caller could reach us */
    uint32_t n_pool, n_waiting, n_lingering, n_kept;
};

void task_table_init(struct sidecar *sidecar);
void task_table_done(struct sidecar *sidecar);
/* A blank task, for the arena to decode into; then exactly one of task_discard and task_start. */
struct task *task_blank(struct sidecar *sidecar);
struct amp_arena *task_arena(struct task *task);
void task_discard(struct task *task);
struct task_origin {
    const Amp__Envelope *envelope; /* in the task's arena */
    enum amp_encoding encoding;
    const char *reply;             /* inbox of the caller */
    struct endpoint *endpoint;
};
/* Takes a slot and gives the task to the worker. */
void task_start(struct task *task, const struct task_origin *origin);
/* Any task of the table, those between turns and those that ended but were not sent yet too. */
struct task *task_lookup(struct sidecar *sidecar, const char *id);
bool task_is_over(const struct task *task);
void task_cancel(struct task *task, const char *reason);
AMP_MUST_USE enum amp_code task_answer(struct task *task, const Amp__Answer *answer, struct amp_error *reterr);
/* Sends what waits. Called by the sidecar's tick. */
void task_flush_dirty(struct sidecar *sidecar);
/* After the bus came back: everything unsent. */
void task_flush_all(struct sidecar *sidecar);
/* Gives free slots to tasks that got their answer while there was none. */
void task_resume_waiting(struct sidecar *sidecar);
/* The stream ends now with this error, whatever the worker still does; its task_finish frees the slot. */
void task_close(struct task *task, Amp__TaskState state, const struct amp_error *err);
/* Ends every open task that way. only_waiting: those between turns. */
void task_close_all(struct sidecar *sidecar, bool only_waiting, const struct amp_error *err);
/* The caller said something: it is still there, and (with `ping`) received this much. */
void task_heard(struct task *task, const Amp__Ping *ping);
/* Another attempt at a direct task has begun, and is here now: this one stops (amp.md 5.6.4). */
void task_caller_went_on(struct task *task);
/* Another attempt at it has begun: this one stops and is not told to anybody but the environment. */
void task_lease_supersede(struct task *task);
/* Its caller gave this attempt up: likewise. */
void task_lease_revoke(struct task *task, const char *reason);
uint64_t task_epoch(const struct task *task);
uint32_t task_sent(const struct task *task); /* events of the attempt, to its reader */
bool task_is_leased(const struct task *task);
bool task_is_read_at(const struct task *task, const char *inbox); /* do the frames of this attempt go there? Each attempt has an inbox of its own (amp.md 5.6.4) */
struct task_reader { /* of a task's frames */
    const char *inbox, *from;
    enum amp_encoding encoding;
};
/* A new caller: frames go to it from event attach->from_seq on, at once at least an empty one. */
AMP_MUST_USE enum amp_code task_lease_attach(struct task *task, const Amp__Attach *attach, const struct task_reader *reader, struct amp_error *reterr);
/* The caller of a direct task asks for what it has missed; only that caller. */
AMP_MUST_USE enum amp_code task_resume_attach(struct task *task, const Amp__Attach *attach, const struct task_reader *reader, struct amp_error *reterr);
/* Has its caller fewer events than were sent? */
bool task_resume_is_behind(const struct task *task, const Amp__Ping *ping);
/* A frame without events to the caller, which says how far we are. */
void task_stream_remind(struct task *task);
/* It has ended, and is kept for a caller that may have missed that. */
bool task_resume_is_kept(const struct task *task);
void task_resume_drop(struct task *task);
/* Appends the ids of at most `max` tasks in flight. */
void task_hung_look(struct sidecar *sidecar); /* its agent is one process, which may be stopped */
uint32_t task_queued(struct sidecar *sidecar); /* between two turns, and waiting for a slot */
size_t task_ids(struct sidecar *sidecar, char **ret, size_t max);

/* ---- beat.c ---------------------------------------------------------------------------------------------------- */

struct beat {
    struct loop_timer *timer;      /* every second, or sooner */
    struct loop_timer *who_timer;  /* jitter of amp.whoall */
    int64_t last_ms, since_unix_ms;
    uint32_t last_free, last_inflight;
    Amp__InstanceState last_state;
    bool wants_card, is_open;
    char host[64];
    Amp__Timestamp since, progress; /* storage of the one that is being made */
    char *tasks[AMP_INFLIGHT_TASKS_REPORTED];
};

void beat_init(struct sidecar *sidecar);
void beat_open(struct sidecar *sidecar);   /* the first one, with the card; idempotent */
void beat_update(struct sidecar *sidecar); /* at the end of a turn: a change of state or load goes out at once, together with those of the next 50 ms if one just went */
void beat_send(struct sidecar *sidecar, bool with_card, const Amp__Death *death);
void beat_who(struct sidecar *sidecar);    /* somebody asked everybody */
/* Fills *ret and what it points to; valid until the next call. */
void beat_fill(struct sidecar *sidecar, bool with_card, const Amp__Death *death, Amp__Beat *ret);
void beat_done(struct sidecar *sidecar);

/* ---- micro.c: ADR-32 ------------------------------------------------------------------------------------------- */

#define MICRO_SUBS 9
struct micro {
    struct bus_sub *subs[MICRO_SUBS];
    bool is_open;
};

enum micro_verb { MICRO_PING, MICRO_INFO, MICRO_STATS };
struct micro_service {             /* what the answers are made of */
    const char *name, *id, *version, *description, *skills; /* skills: "a,b" */
    int64_t started_unix_ms;
    const struct endpoint *endpoints;
    size_t n_endpoints;
};
/* Pure: the JSON of an answer. */
AMP_MUST_USE enum amp_code micro_write(enum micro_verb verb, const struct micro_service *service, struct amp_buf *out);
/* Pure: `version` if it is strict SemVer, else "0.0.0". */
const char *micro_version(const char *version);
void micro_open(struct sidecar *sidecar);
void micro_close(struct sidecar *sidecar);

/* ---- worker_exec.c ---------------------------------------------------------------------------------------------- */

struct exec_utf8 { /* the beginning of a character whose rest has not come yet */
    uint8_t tail[4];
    size_t n;
};
/* Pure: appends `data` to `out` as valid UTF-8 without NUL: what is neither becomes U+FFFD. is_end: nothing follows. */
void exec_utf8_feed(struct exec_utf8 *state, struct amp_bytes data, bool is_end, struct amp_buf *out);

/* ---- death.c ---------------------------------------------------------------------------------------------------- */

struct death_log {
    struct amp_arena arena; /* of the last one */
};
void death_init(struct sidecar *sidecar);
void death_done(struct sidecar *sidecar);

/* ---- the whole -------------------------------------------------------------------------------------------------- */

struct sidecar {
    struct loop *loop;
    struct bus *bus;
    const struct home *home;
    struct sidecar_options options;
    char agent[AMP_NAME_MAX + 1], instance[AMP_ID_SIZE], socket[108];
    uint8_t random[32 * AMP_ID_RANDOM]; /* drawn ahead, used once */
    size_t n_random;
    Amp__InstanceState state;
    uint32_t slots, inflight;      /* inflight: tasks that hold a slot */
    int64_t last_progress_unix_ms;
    int64_t up_ms;                 /* loop time at which the bus last came up */
    pid_t agent_pid;
    const char *stuck;             /* why it takes nothing, though it has slots (task_hung.c); NULL: it does */
    bool is_open, is_ready, was_up, is_stopped, is_freeing;
    struct loop_tick *tick;
    struct loop_timer *grace;
    int64_t grace_until_ms;
    struct bus_inbox *probe;       /* tells that the server knows our subscriptions, or that we left them */
    struct member member;
    struct seek seek;
    struct pause pause;
    struct micro micro;
    struct beat beat;
    struct death_log death;
    struct task_table tasks;
    struct blobs *blobs;           /* NULL: nothing is kept here */
    char no_files[BLOB_PATH_SIZE]; /* AMESH_IN of all tasks without files (worker_exec_files.c); "": not made yet */
    struct local *local;
    struct worker *worker;
    struct amp_buf out;            /* what is being encoded */
    struct amp_arena hello_card;   /* the card that the agent brought (hello_card.c); max 0: none */
    void (*on_ready)(void *ctx);
    void (*on_stopped)(void *ctx, int status);
    void *ctx;
};

uint32_t sidecar_free_slots(const struct sidecar *sidecar);
void sidecar_touch(struct sidecar *sidecar); /* something changed: the tick looks */
void sidecar_slot_take(struct sidecar *sidecar);
void sidecar_slot_release(struct sidecar *sidecar);
/* Into sidecar->out, with version and sender. */
AMP_MUST_USE enum amp_code sidecar_encode(struct sidecar *sidecar, enum amp_encoding encoding, Amp__Envelope *envelope);
/* Encodes the envelope and publishes it. */
AMP_MUST_USE enum amp_code sidecar_publish(struct sidecar *sidecar, const char *subject, enum amp_encoding encoding, Amp__Envelope *envelope);
/* The same for one whose values of type Json lie in `own`, as amp_encode_own has it. */
AMP_MUST_USE enum amp_code sidecar_publish_own(struct sidecar *sidecar, const char *subject, enum amp_encoding encoding, Amp__Envelope *envelope, struct amp_bytes own);
AMP_MUST_USE enum amp_code sidecar_state_check(const struct sidecar *sidecar, struct amp_error *reterr); /* may a new task come in? */
