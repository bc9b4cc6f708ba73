/* A task from the inside: task.c is its life, task_stream.c its way to the caller and to amp.evt. */
#pragma once
#include "sidecar_private.h"

#include <uthash.h>

struct cJSON;
struct question {
    struct question *next;
    struct task *task;
    char id[AMP_ID_SIZE];
    struct cJSON *form;        /* base/form.h */
    struct loop_timer *expiry; /* NULL: never, or the caller says when */
    bool is_turn;              /* asked by the end of a turn: the answer begins the next one */
    struct question_files *files; /* its answer is here, and its files are waited for; NULL: not */
    void (*on_answer)(void *ctx, const struct task_answer *answer);
    void *ctx;
};

struct question_files {        /* task_question_files.c */
    struct question *question;
    const Amp__Message *message; /* in the task's arena, like `by` */
    const char *by;
    struct cJSON *value;
    struct blob_fetch *fetch;
    struct loop_timer *again;
    int64_t since_ms;
};
/* The answer is put off until its files are here; the same one, said again, is taken for the one that is at hand. AMP_CONFLICT: another one is; AMP_TOO_LARGE, AMP_UNSUPPORTED */
AMP_MUST_USE enum amp_code question_files_fetch(struct question *question, const Amp__Answer *answer, struct amp_error *reterr);
void question_files_drop(struct question *question);
/* It is answered, and gone. */
void question_take(struct question *question, const Amp__Message *message, const char *by, const struct cJSON *value);

#define QUESTIONS_ASKED_MAX 4096u /* different questions of one attempt */
#define QUESTIONS_CLOSED 64u      /* ended ones that are remembered, to say what became of them */

struct questions_past { /* what this attempt has asked so far */
    struct {
        uint8_t digest[16];
        uint32_t count;
    } *asked;
    size_t n_asked, cap_asked;
    struct {
        char id[AMP_ID_SIZE];
        const char *how; /* static */
    } closed[QUESTIONS_CLOSED];
    size_t n_closed;
};

enum { LANE_CALLER, LANE_EVT, LANES };
struct task_lane {
    char subject[AMP_SUBJECT_SIZE];
    enum amp_encoding encoding;
    uint32_t sent;         /* events 1…sent are out */
    bool is_open;          /* this lane exists */
    bool wants_request;    /* the next frame carries what was asked */
    bool is_end_sent;
    bool is_deaf;          /* its reader never asks for anything again */
    uint32_t confirmed;    /* events 1…confirmed need not be kept for a reader that may ask for them again */
    uint32_t attached;     /* the number of the last Attach that we know of */
    uint64_t window;       /* bytes that may be on their way to a reader that has not confirmed them; 0: it does not confirm */
    uint64_t sent_bytes, received_bytes;
};

struct task_event_ref {
    size_t at, len;        /* in stream.bodies */
    int64_t time_unix_ms;
};

#define TASK_ANSWER_SIZE 201u /* of the beginning of an answer that is reported */

struct task_begin {
    char answer[TASK_ANSWER_SIZE]; /* the artifacts' text */
    char said[TASK_ANSWER_SIZE];   /* what was last said of the state */
};

struct task_stream {
    struct amp_buf bodies;
    struct task_event_ref *refs; /* events base+1 … count */
    size_t n_refs, cap_refs;
    uint32_t base, count;
    struct task_begin *begin;    /* of what events 1 … base had of the answer, in the task's arena; NULL: nothing */
    struct task_lane lanes[LANES];
    bool is_held;          /* only the first WORKING is there: it waits for company */
    bool is_ended;         /* the end marker follows the last event */
    size_t refused_len;    /* of the last event that was too large */
    Amp__Error *error;     /* of the end marker, in the task's arena, or NULL */
    struct amp_buf waiting; /* text without a number yet (task_text.c) */
};

struct env_call;
struct task_lease {        /* task_lease.c */
    uint32_t ms;           /* 0: none */
    uint32_t committed;    /* events 1…committed need not be kept */
    int64_t asked_ms, alone_ms; /* alone: since when no environment is there; 0: one is */
    struct loop_timer *timer;
    struct env_call *report;
    bool is_stale;         /* another instance has the task */
    bool is_over;          /* nothing of it need be kept */
    bool is_end_told;      /* with the last report */
};

struct task {
    UT_hash_handle hh;
    struct task *next_dirty, *next_pool;
    LIST_ENTRY(task) retired;
    TAILQ_ENTRY(task) ended;       /* task_resume.c */
    size_t ended_bytes;
    int64_t ended_ms; /* by the clock of the table (kept_ms) */
    struct sidecar *sidecar;
    struct amp_arena arena;
    const Amp__Request *request;
    struct endpoint *endpoint;
    const char *from;
    const char *cancel_reason;     /* in the arena; NULL: none was given */
    Amp__TaskState state;
    struct amp_event_source source;
    struct task_stream stream;
    struct question *questions;      /* oldest first */
    uint32_t n_questions;
    struct questions_past *past;     /* NULL: nothing asked yet */
    struct loop_timer *ack, *deadline;
    struct loop_timer *overdue;    /* cancel was not obeyed */
    struct loop_timer *silent;     /* the caller confirms nothing */
    int64_t progress_ms;           /* when the agent last said something */
    int64_t stopped_ms;            /* since when its process is stopped; 0: it is not */
    int64_t heard_ms;              /* when the caller last sent a control */
    int64_t listened_ms;           /* when that was last looked at, while it confirms nothing */
    uint32_t silent_ms;            /* for how long it had not been heard then */
    int64_t away_ms;               /* since when its connection is not there; 0: it is, as far as we know */
    int64_t due_ms;                /* when its time is over, by the loop's clock; 0: never */
    struct loop_timer *caller;     /* task_caller.c: when to ask, or NULL */
    struct bus_inbox *echo;        /* and what tells that nobody is there, or NULL */
    struct task_lease lease;
    LIST_HEAD(, task_room) rooms;
    int64_t started_us;
    const Amp__Message *given;     /* what the agent gets: the request's message, with files of this host for blobs */
    const Amp__Message *resume;    /* the answer that a new turn begins with, in the arena */
    struct task_files *files;      /* task_files.c; NULL: none */
    void *data;
    bool is_dirty, has_slot, is_running, is_canceled, is_blocked, is_waiting, wants_turn, is_lingering, is_retired, is_kept, has_asked, has_unsaid, is_parent, is_superseded;
};

/* ---- task.c ------------------------------------------------------------------------------------------------- */

void task_timers_new(struct task *task);
void task_timers_stop(struct task *task);
void task_timers_free(struct task *task);
/* A statusUpdate; without an error the state moves. */
enum amp_code task_status(struct task *task, Amp__TaskState state, const char *text, const char *metadata);
/* May the agent still say something, and is there room for it? */
AMP_MUST_USE enum amp_code task_say_check(struct task *task, struct amp_error *reterr);
/* The task cannot go on: the caller learns why now, the worker is told to stop. */
enum amp_code task_fail(struct task *task, const struct amp_error *err, struct amp_error *reterr);
/* task_stream_flush, with what follows from it for the brakes. */
enum amp_code task_flush_now(struct task *task);
void task_room_call(struct task *task); /* tells everybody who waits for room */

void task_run(struct task *task); /* the worker gets it */
enum amp_code task_event_now(struct task *task, const struct cJSON *local, struct amp_error *reterr);

/* ---- task_files.c --------------------------------------------------------------------------------------------- */

/* True: blobs of its request, or of the answer that it goes on with, are not here yet; task_run follows, or its end. */
bool task_files_fetch(struct task *task);
/* Blobs that are here, in a copy of *message in the task's arena, as its agent gets them. AMP_TOO_LARGE */
AMP_MUST_USE enum amp_code task_files_show(struct task *task, const Amp__Message **message);
/* What is held until the task is over. */
struct blob_held *task_files_held(struct task *task);
/* True: the event names a file, or stands behind one that does. It goes out when that is taken in. *ret is what its sender is told. */
bool task_files_keep(struct task *task, const struct cJSON *local, enum amp_code *ret, struct amp_error *reterr);
bool task_files_keep_text(struct task *task, struct amp_bytes text, enum amp_code *ret, struct amp_error *reterr);
/* The same of its outcome: task_finish comes again. */
bool task_files_finish(struct task *task, const struct task_outcome *outcome);
/* Nothing is fetched or taken in any more. True: its worker does not have it, and task_finish comes with this turn. */
bool task_files_stop(struct task *task);
void task_files_done(struct task *task);

/* ---- task_table.c ------------------------------------------------------------------------------------------- */

/* Another attempt at it comes here: it is not found by its id any more, and kept until nothing of it need be. Only one that has ended. */
void task_retire(struct task *task);

/* Out of the table, for reuse. */
void task_release(struct task *task);

/* ---- task_resume.c ------------------------------------------------------------------------------------------ */

void task_resume_init(struct sidecar *sidecar);
void task_resume_done(struct sidecar *sidecar);
/* Are the events that were sent, so many bytes, kept until they are confirmed? */
bool task_resume_keeps(const struct task *task, size_t sent_bytes);
void task_resume_heard(struct task *task, const Amp__Ping *ping);
/* It has ended, and all is sent: true if it is kept for a while, as the caller may ask for the end again. */
bool task_resume_keep(struct task *task);

/* ---- task_caller.c ------------------------------------------------------------------------------------------ */

#define TASK_CALLER_MS 3000u /* how often a caller is looked for */

void task_caller_watch(struct task *task); /* from now on; idempotent */
void task_caller_stop(struct task *task);
void task_caller_free(struct task *task);

/* ---- task_hung.c --------------------------------------------------------------------------------------------- */

void task_hung_init(struct sidecar *sidecar);
void task_hung_watch(struct task *task); /* at the beginning of a turn */
void task_hung_done(struct sidecar *sidecar);

/* ---- task_question.c --------------------------------------------------------------------------------------- */

void task_questions_drop(struct task *task);
void task_questions_forget(struct task *task); /* those that were asked before, too: of a task that is over */
/* The question with which a turn ends, as an INPUT_REQUIRED. */
AMP_MUST_USE enum amp_code task_ask_turn(struct task *task, const char *prompt);

/* ---- task_lease.c -------------------------------------------------------------------------------------------- */


void task_lease_begin(struct task *task); /* nothing if its request has no lease */
void task_lease_heard(struct task *task, const Amp__Ping *ping);
void task_lease_ended(struct task *task);
void task_lease_stop(struct task *task);
void task_lease_free(struct task *task);

/* ---- task_stream.c ---------------------------------------------------------------------------------------- */

void task_stream_init(struct task *task);
void task_stream_start(struct task *task, const struct task_origin *origin);
void task_stream_reset(struct task *task);
/* Where projections put their events. AMP_TOO_LARGE: no frame could carry it; AMP_OVERLOADED: too much waits for the bus. */
/* Text that waits is settled first: it was said before. */
struct amp_event_sink task_stream_sink(struct task *task);
void task_text_settle(struct task *task); /* text that waits becomes an event */
enum amp_code task_said(struct task *task, enum amp_code code, struct amp_error *reterr); /* `code` is of an event: one that could not be taken ends the task */
/* The longest text that surely fits into one event here. */
size_t task_stream_text_max(const struct task *task);
/* Nothing comes after. `wire` is copied. */
void task_stream_end(struct task *task, const Amp__Error *wire);
/* Sends what it can. AMP_OK: nothing is left to send now. AMP_BUSY: the caller has to confirm first (task_stream_received). AMP_NO_BUS, AMP_OVERLOADED: the bus takes nothing. */
enum amp_code task_stream_flush(struct task *task);
/* The caller has received so many bytes of frames in all. True: more may go out now. */
bool task_stream_received(struct task *task, const Amp__Ping *ping);
/* A frame without events to the caller, as a request whose answer can only be "no responders". Nothing is sent while events wait to go out. */
enum amp_code task_stream_ask(struct task *task, struct bus_inbox *echo);
/* The caller's lane begins anew. AMP_FRAMES_LOST: what is asked for is not kept any more, or never was. */
enum amp_code task_stream_reopen(struct task *task, const Amp__Attach *attach, const struct task_reader *reader, struct amp_error *reterr);
/* How the text of the answer begins, as far as it is kept. */
void task_stream_answer(const struct task *task, char ret[TASK_ANSWER_SIZE]);
bool task_stream_is_sent(const struct task *task);    /* to its caller, with the end marker */
size_t task_stream_unsent(const struct task *task);   /* bytes of events that wait for the caller or the bus */
bool task_stream_is_waiting(const struct task *task); /* for the caller's confirmation */
void task_stream_give_up(struct task *task);          /* nothing goes to the caller any more */
void task_mark_dirty(struct task *task);

/* ---- task_outcome.c ------------------------------------------------------------------------------------------ */

/* Of a task of which nobody has heard yet its caller is told that it was not taken, and there is nothing more to say. False: somebody has. */
bool task_stream_drop(struct task *task, const struct amp_error *err);
struct task_verdict { /* how the task ends, after its outcome was looked at */
    Amp__TaskState state;
    const char *reason; /* borrowed, or == text */
    char *text;         /* the caller frees it */
    struct amp_error error;
    const Amp__Death *death;
};
/* Turns the local outcome (local-api.md 3.2) into events. One that is none becomes FAILED with AMP_BAD_ANSWER. */
void task_outcome_apply(struct task *task, const struct cJSON *result, struct task_verdict *verdict);
/* Text was streamed and the task ends: the artifact `response` is complete. */
void task_outcome_close_text(struct task *task);
/* Into the task's arena; NULL when that is full. */
const Amp__Message *task_message_copy(struct task *task, const Amp__Message *message);
