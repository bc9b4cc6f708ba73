/* The parts of the environment, seen by each other. env.c owns and wires them; each part's functions stand under its own
 * heading. Loop thread only.
 *
 * The way of an event: emitted (folded, given its number, held in the task) → at the end of the turn one row of the journal per
 * task → committed → published on amp.evt and given to watchers. What people see is never ahead of the disk. */
#pragma once
#include <amp/amp.h>
#include <uthash.h>

#include "base/blob_fetch.h"
#include "env/alarm.h"
#include "env/engine.h"
#include "env/env.h"
#include "env/journal.h"
#include "env/plan.h"
#include "env/quota.h"
#include "env/reads.h"
#include "env/registry.h"
#include "env/turns.h"

struct bus;
struct bus_inbox;
struct bus_msg;
struct bus_sub;
struct call;
struct loop;
struct loop_tick;
struct loop_timer;

#define ENV_OPEN_MAX 200000u           /* open durable tasks */
#define ENV_DIRECT_MAX 10000u          /* open direct tasks that are followed */
#define ENV_DIRECT_BYTES_MAX (256u << 20) /* of their events */
#define ENV_FLOOD_BYTES_MAX (64u << 20)   /* events of all tasks that are not committed yet */
#define ENV_WATCHERS_MAX 10000u
#define ENV_LATE_WRITES_MAX 256u       /* rows under way to which what came late is added */
#define ENV_ATTEMPTS_KEPT 32u          /* attempts shown of one task: the last ones */
#define ENV_WAITS_KEPT 16u             /* waits told of one attempt */
#define ENV_REPLIES_MAX 64u            /* who wait for one task's commit */
#define ENV_PAGE_MAX 200u              /* records in one reply */
#define ENV_KV_KEYS_MAX 10000u         /* keys of one owner */
#define ENV_KV_PENDING_MAX 10000u      /* keys whose write is under way */
#define ENV_ASK_MAX_MS 60000u         /* between two requests for everybody's beat: somebody may never send a card */
#define ENV_KEEPALIVE_MS 5000u
#define ENV_SLOW_MS 2000u              /* a target that waits is tried anyway */
#define ENV_SWEEP_MS 1000u
#define ENV_LOST_GAP_MS 10             /* at least, between two looks for who was silent too long */
#define ENV_LOST_LATE_MS 250           /* a look that comes later than this: the environment itself was held up */
#define ENV_PROBES_MAX 256u            /* silent instances asked in one sweep whether they are there */
#define ENV_GONE_GRACE_MS 2000u        /* between an instance's goodbye and the end of its open direct tasks: frames may be on the way */
#define ENV_LATER_MS 50u               /* what is recorded of direct tasks is written together, so often */
#define ENV_LATER_MAX 512u             /* tasks, or */
#define ENV_LATER_BYTES_MAX ((size_t)1 << 20) /* bytes of events that bring it forward */
#define ENV_HELD_MAX 4096u             /* readers that wait for their turn, until they see what was written before them, and until what they see is written */
#define ENV_HELD_BYTES_MAX (16u << 20) /* of their requests */
#define ENV_FAT_MAX 1024u              /* open durable tasks; of more, those that wait keep only what is short in memory */
#define ENV_FAT_BYTES_MAX ((size_t)16 << 20) /* of what was asked of them; of more the same */
#define ENV_SUBMIT_KEPT_MAX 1024u      /* bytes of a request that is kept then */
#define ENV_COMMITS_PER_S 5000         /* as long as none was measured */
#define ENV_BACKLOG_MS 20u             /* until a write that the journal had no room for is tried again */
#define ENV_PASSED_MAX 1000u           /* control messages on their way to direct tasks */
#define ENV_CONTROL_MS 5000u
#define ENV_STARTS_MAX 256u            /* calls started in one turn */
#define ENV_TARGET_STARTS_MAX 32u      /* of them for one agent or skill, while others wait */
#define ENV_AHEAD_MAX_MS (INT64_C(3653) * 86400000) /* of a task's start: ten years, or somebody counts in other units */
#define ENV_ALARMS_MAX 1000u            /* that ring in one turn */
#define ENV_PROBE_MAX_MS 30000u        /* between two tries at an agent that is not there, as far as is known */

/* ---- etask.c: a task in memory -------------------------------------------------------------------------- */

#define ENV_REASON_SIZE 128

struct wait {
    int64_t from_unix_ms, to_unix_ms;
    char reason[ENV_REASON_SIZE];
};

struct waits { /* what is kept of them is cut behind the last one */
    size_t count;
    struct wait items[ENV_WAITS_KEPT];
};

#define ENV_LATE_ANSWER 200u /* bytes of a refused answer that are kept */
struct late { /* what a holder that had lost its lease said when it came back */
    int64_t at_unix_ms;
    Amp__TaskState state; /* that it claimed */
    char answer[ENV_LATE_ANSWER + 1];
};

struct attempt {
    uint32_t number, base; /* base: events of the task before it, if it is a direct one */
    uint64_t epoch; /* of its lease; 0: none */
    struct late *late; /* or NULL */
    bool is_only_once; /* its instance was started with --retry never */
    char agent[AMP_NAME_MAX + 1], instance[AMP_NAME_MAX + 1];
    int64_t ready_unix_ms, started_unix_ms, ended_unix_ms, canceled_unix_ms; /* canceled: 0: it was not, or nobody noted when */
    enum amp_code outcome; /* counts when ended */
    Amp__TaskState state;
    char reason[256]; /* why it ended, for people */
    char host[AMP_NAME_MAX + 1]; /* of the instance, "": not known */
    struct waits *waits; /* before it began; NULL: none. Its own */
    struct waits *aways; /* while it went on no environment was there; NULL: never. Its own */
    bool is_told; /* it ended by what its holder said; in memory only */
    bool is_canceled; /* somebody asked for its end: also a new environment must know */
};

struct event_ref {
    size_t at, len;
    int64_t time_unix_ms;
};

struct waiting_reply {
    struct waiting_reply *next;
    enum amp_encoding encoding;
    bool is_duplicate;
    char *from, subject[]; /* from: behind the subject */
};

struct watcher;
struct target;
struct pending_key;
struct files_answer;

struct plan { /* of a task that does not start at once, or that a schedule made */
    struct alarm alarm;
    struct etask *task;
    int64_t not_before_unix_ms; /* 0: at once */
    int64_t begun_unix_ms;      /* when its time had come; 0: not yet */
    bool is_in;                 /* it was given as a time from now: no wall clock has a say in it */
    char schedule[AMP_NAME_MAX + 1];
    int64_t planned_unix_ms;
    uint32_t missed;
    struct schedule_entry *writes; /* goes to the disk with its submit; NULL afterwards */
};
struct inbox;
struct inbox_entry;

struct etask {
    UT_hash_handle hh;
    struct env *env;
    char id[AMP_NAME_MAX + 1], context[AMP_NAME_MAX + 1];
    char agent[AMP_NAME_MAX + 1], skill[AMP_NAME_MAX + 1]; /* agent: asked for, or who has it */
    char from[AMP_NAME_MAX + 1], parent[AMP_NAME_MAX + 1];
    char instance[AMP_NAME_MAX + 1];
    bool is_durable, is_incomplete;
    bool is_ended;      /* the last event was emitted */
    bool is_dead;       /* it ended because it was tried as often as allowed */
    bool is_skill_only; /* `agent` is who has it, not what was asked for */
    uint8_t *submit;    /* packed Amp__Submit; NULL: direct, or only in the journal: etask_submit */
    size_t submit_len;
    const Amp__Submit *parsed; /* of the batch that was committed just now, while it is told; else NULL */
    int64_t submitted_unix_ms, started_unix_ms, ended_unix_ms;
    uint32_t timeout_ms; /* of a durable task, from when it was accepted or began; 0: none */
    struct plan *plan;  /* or NULL */
    struct pending_key *key; /* on its way to the disk, or NULL */
    char *retry_of;     /* the task that this one tries again, or NULL */
    char *fork_of;      /* the task that it goes on from, or NULL */
    char *root;         /* the outermost task of its tree, or NULL */
    struct again *again; /* again.h, or NULL */
    bool is_detached, is_tree_told; /* it does not end with its parent; its children were told of its end */
    uint32_t fork_seq;
    uint8_t *error;     /* packed Amp__Error, when it ended by one */
    size_t error_len;

    struct amp_fold *fold; /* NULL: nothing but the submit so far, or in the journal only: etask_fold makes it */
    Amp__TaskState state;  /* when it was folded last, or as its row said: what is left if the journal cannot be folded any more */
    uint32_t count;        /* events emitted */
    uint32_t n_written;    /* handed to the journal */
    uint32_t n_committed;
    struct amp_buf bodies; /* of events not handed to the journal yet */
    struct event_ref *refs;
    size_t n_refs, cap_refs;
    char *cancel_reason; /* or NULL */
    bool is_dirty, wants_row, wants_request;
    bool is_unwritten; /* the journal refused some of it: what is here is more than anybody may be told */
    struct etask *next_dirty; /* in env->dirty or, if is_later, in env->later */
    bool is_later;
    uint32_t n_in_journal; /* batches under way */
    size_t bytes;          /* of a direct task's events */
    struct waiting_reply *replies;
    uint32_t n_replies;
    struct watcher *watchers;

    struct inbox *inbox; /* its questions, or NULL */
    struct blob_held files;   /* that it has, held as long as it is in memory: files.h */
    size_t n_files_written;   /* of them, those that the journal knows of */
    struct files_answer *answer; /* what waits for files; NULL: nothing */

    /* durable tasks: dispatch.c */
    struct engine engine;
    struct attempt *attempts;
    size_t n_attempts;
    struct call *call;
    uint64_t epoch;        /* of the lease under which the task is called */
    uint32_t taken_seq;    /* of that attempt's own numbers: the last event that was taken in */
    uint32_t held_seq;     /* and that of `held` */
    bool wants_done;       /* the holder keeps its answer until this is committed */
    struct loop_timer *timer;
    char *held;            /* the callee's terminal event, until its call has ended in good order */
    size_t held_len;
    int64_t held_unix_ms;
    Amp__TaskState held_state;
    struct target *target;
    struct lane *lane; /* in which it waits; NULL: it does not */
    struct etask *queue_prev, *queue_next;
    bool is_reloaded;       /* this environment found it in the journal, and nobody has begun it since */
    int64_t queued_unix_ms; /* since when it may be called; 0: not yet */
    int64_t called_unix_ms; /* the last call */
    struct waits *waits;    /* at its end, if it ended while it waited */

    /* direct tasks: record.c */
    struct amp_stream stream;
    struct etask *lru_prev, *lru_next;
    int64_t heard_ms, said_unix_ms; /* its last frame; its last event, by the instance's clock, 0: none since it is in memory */
    int64_t orphaned_ms;   /* since when its instance does not have it; 0: it does */
};

struct etask *etask_new(struct env *env, const char *id, const char *context);
struct etask *etask_find(struct env *env, const char *id);
/* Has it ended, and is all of that on the disk? */
bool etask_is_over(const struct etask *task);
/* Gives it up if nothing holds it any more: ended, all committed, no call. */
void etask_release(struct etask *task);
void etask_drop_attempt(struct attempt *attempt); /* what it owns */
void etask_free(struct etask *task); /* no more callbacks; watchers are told that it is gone */
/* What was asked for, in `arena`: from memory or from the journal. NULL: it cannot be read, or it is a direct task. */
const Amp__Submit *etask_submit(const struct etask *task, struct amp_arena *arena);
bool etask_is_crowded(const struct env *env); /* open durable tasks hold as much memory as they may */
/* It waits, with many others: what the journal has too is given back. */
void etask_slim(struct etask *task);
/* Nothing has happened to it since it was accepted: its fold need not be made. */
bool etask_is_new(const struct etask *task);
/* The task so far; NULL if it cannot be had (journal not readable). */
struct amp_fold *etask_fold(struct etask *task);
/* Are all of its events in the journal, each as it was written? AMP_CORRUPT names the one that is not. */
AMP_MUST_USE enum amp_code etask_check(struct etask *task, struct amp_error *reterr);
Amp__TaskState etask_state(struct etask *task);
/* Adds one event. AMP_CONFLICT: the state machine forbids it (nothing was added). */
AMP_MUST_USE enum amp_code etask_emit(struct etask *task, int64_t time_unix_ms, struct amp_bytes body);
/* A statusUpdate of our own. */
AMP_MUST_USE enum amp_code etask_emit_status(struct etask *task, Amp__TaskState state, const char *text, const char *metadata_json);
/* No event comes after this one. `error` (may be NULL) is copied. */
void etask_end(struct etask *task, const Amp__Error *error);
void etask_changed(struct etask *task); /* its summary in the journal is to be written */
/* An answer that leaves when everything emitted so far is durable. */
void etask_reply_later(struct etask *task, const struct ask *ask, bool is_duplicate);
void etask_flush_all(struct env *env); /* the tick */
void etask_flush_later(struct env *env); /* and what was recorded of direct tasks, before its time */
void etask_strcpy(char ret[AMP_NAME_MAX + 1], const char *id);
/* Makes a task of what the journal has: open durable ones at start, open direct ones. */
struct etask *etask_load(struct env *env, const struct journal_row *row);

/* ---- commit.c: from memory to the journal and out ---------------------------------------------------------- */

/* AMP_OK: everything emitted is on its way to the disk. */
AMP_MUST_USE enum amp_code commit_flush(struct etask *task);
/* The submit's own batch, with its key. On failure nothing was taken. */
AMP_MUST_USE enum amp_code commit_submit(struct etask *task, const char *key, struct amp_bytes digest);

/* ---- record_view.c: a task as Amp__TaskRecord --------------------------------------------------------------- */

enum view_flags { VIEW_ARTIFACTS = 1, VIEW_HISTORY = 2, VIEW_ALL = 3 };
/* In `arena`; parts are borrowed from the task until the next event. NULL if the task cannot be had. */
Amp__TaskRecord *view_task(struct etask *task, struct amp_arena *arena, int flags);
/* The same of a row of the journal, which may be of a task in memory: then memory wins, but for an end that is not on the disk yet. */
Amp__TaskRecord *view_row(struct env *env, const struct journal_row *row, struct amp_arena *arena, int flags);
/* Of a row that is not what was written: its id and `err`, and no status (amp.md 10.1.2). */
Amp__TaskRecord *view_damaged(const struct journal_row *row, const struct amp_error *err, struct amp_arena *arena);
/* Leaves these out of the record, whose metadata then says so: "amp/omitted". */
void view_omit(Amp__TaskRecord *record, int flags, struct amp_arena *arena);
/* JSON array of the attempts, NUL-ended, in `arena`. */
char *view_attempts(const struct etask *task, struct amp_arena *arena);
/* How what was asked begins, in `arena`; NULL: it cannot be had, or is no text. */
char *view_asked(struct etask *task, struct amp_arena *arena);
void view_load_attempts(struct etask *task, const char *json);

/* ---- verbs.c: requests and replies ---------------------------------------------------------------------------- */

struct fork;
struct ask { /* a request that is being answered */
    struct env *env;
    char from[AMP_NAME_MAX + 1];
    const char *reply;
    enum amp_encoding encoding;
    const struct bus_msg *msg;      /* as it came */
    const Amp__EnvRequest *request; /* in env->arena */
    struct fork *fork; /* or NULL: what the task that is to be made begins with */
};

void verbs_on_msg(void *ctx, const struct bus_msg *msg);
/* AMP_TOO_LARGE: it does not fit on this bus; nothing was sent. */
AMP_MUST_USE enum amp_code env_answer(struct env *env, const char *reply, enum amp_encoding encoding, const Amp__EnvReply *answer);
/* The same into env->out, unsent. */
AMP_MUST_USE enum amp_code env_encode_reply(struct env *env, enum amp_encoding encoding, const Amp__EnvReply *answer);
/* An answer with one record (or none): it leaves out of it what does not fit, and says so. */
void env_answer_record(struct env *env, const char *reply, enum amp_encoding encoding, Amp__EnvReply *answer);
/* Emptied: for what the answer at hand is made of. Nothing else is kept there. */
struct amp_arena *env_answer_arena(struct env *env);
void env_refuse(struct env *env, const char *reply, enum amp_encoding encoding, const struct amp_error *err);
/* With the journal's cause, and what to do. */
void env_error_journal(const struct env *env, struct amp_error *err);
void env_refuse_journal(struct env *env, const char *reply, enum amp_encoding encoding);
/* With why the journal could not be read just now. */
void env_refuse_unread(struct env *env, const char *reply, enum amp_encoding encoding);
void env_refuse_code(const struct ask *ask, enum amp_code code, const char *field, const char *text);
/* "there is no such <what>: <name>", and where to look for those that there are. */
struct env_missing {
    enum amp_code code;
    const char *field, *what, *hint; /* hint may be NULL */
};
void env_refuse_missing(const struct ask *ask, const struct env_missing *missing, const char *name);
void env_refuse_no_task(const struct ask *ask, const char *id);
void env_refuse_ended(const struct ask *ask, const char *id);
/* AMP_TOO_LARGE, AMP_NO_BUS, AMP_OVERLOADED as bus_publish. */
AMP_MUST_USE enum amp_code env_publish(struct env *env, const char *subject, enum amp_encoding encoding, Amp__Envelope *envelope);
size_t env_payload_max(const struct env *env);

void verbs_again(struct env *env, const struct bus_msg *msg); /* a request that waited */
void verbs_release_late(struct env *env); /* readers that waited for the stream are served */
void verbs_done(struct env *env);

void submit_verb(const struct ask *ask);              /* submit.c */
void submit_retry_verb(const struct ask *ask);
void submit_accept(const struct ask *ask, const Amp__Submit *submit, Amp__Message *given); /* one without a key, of our own making; `given`: what of it the asker has sent, or NULL */
void fork_verb(const struct ask *ask);                /* fork.c */
/* Says the first event of a task that is a fork, and knows what was answered before. */
AMP_MUST_USE enum amp_code fork_first_event(struct etask *task, struct fork *fork, const struct amp_event_sink *sink);
#define SUBMIT_RETRY_SCOPE "retry of" /* no sender's id: whose keys are the ids of tasks that were tried again */
const char *submit_key_scope(const struct etask *task); /* whose key it has */
void submit_done(struct etask *task, enum amp_code code);
struct submit_run { /* of a schedule */
    const char *from, *key;
    const Amp__Submit *submit;
    struct schedule_entry *entry;
};
/* Accepts it as by submit_verb, in one batch with the schedule's own row. AMP_CONFLICT: the key is known. On failure nothing was done. */
AMP_MUST_USE enum amp_code submit_scheduled(struct env *env, const struct submit_run *run, struct etask **ret, struct amp_error *err);
/* What is asked of whom, whoever asks and when. */
#define SUBMIT_DIGEST_SIZE 32
void submit_digest(const Amp__Submit *submit, struct amp_arena *arena, uint8_t ret[SUBMIT_DIGEST_SIZE]);

/* ---- other verbs ------------------------------------------------------------------------------------------------- */

void query_get(const struct ask *ask);                /* query.c */
void query_list(const struct ask *ask);
void query_history(const struct ask *ask);
void query_ping(const struct ask *ask);
void agents_verb(const struct ask *ask);              /* agents.c */
void watch_verb(const struct ask *ask);               /* watch.c */
void control_verb(const struct ask *ask);             /* control.c */
void kv_verb(const struct ask *ask);                  /* kv.c */
void inbox_verb(const struct ask *ask);               /* inbox_list.c */

/* ---- load.c: how full it is ----------------------------------------------------------------------------------------- */

/* May this much more of a sender's requests come in? err says when there will be room. (amp.md 10.13) */
AMP_MUST_USE enum amp_code load_check_submit(struct env *env, const char *from, size_t bytes, struct amp_error *err);
/* Everything that grows with what others send: the fullest first, and who has most. In `arena`. */
void load_fill_info(struct env *env, struct amp_arena *arena, Amp__EnvInfo *info);
void load_refuse(const struct ask *ask, const char *what); /* overloaded, a few milliseconds */
void load_dropped(struct env *env); /* an answer that there was no room for */
void load_sweep(struct env *env);

/* ---- control.c ------------------------------------------------------------------------------------------------------- */

/* Tells an instance that has an earlier attempt to leave off; what it still says does not count. */
void control_stop_old(struct etask *task, const char *instance, const char *why);
void control_done(struct env *env);

/* ---- watch.c --------------------------------------------------------------------------------------------------- */

void watch_done(struct env *env);
/* `frame` was committed: to those who wait for just these numbers. */
void watch_committed(struct etask *task, const Amp__Frame *frame);
void watch_task_gone(struct etask *task);
void watch_keepalive(void *ctx); /* of the env; the timer */

/* ---- target.c: whose turn it is ----------------------------------------------------------------------------------- */

struct reason {
    int64_t since_unix_ms;
    char text[ENV_REASON_SIZE]; /* "": none */
};

struct lane { /* what one sender has waiting there, oldest first; gone with the last of it */
    UT_hash_handle hh;            /* of the environment's */
    char key[2 * AMP_NAME_MAX + 4]; /* "<sender> <target's key>" */
    struct etask *first, *last;
    struct lane *prev, *next;     /* in the target's round */
};

struct target { /* an agent or a skill for which tasks wait */
    UT_hash_handle hh;
    char key[AMP_NAME_MAX + 3]; /* "a:<agent>" or "s:<skill>" */
    struct env *env;
    struct lane *first, *last;    /* senders in turn: whose turn it is first */
    uint32_t n_tasks;             /* tasks that point here */
    uint32_t n_queued, n_untaken; /* of them: waiting; called and not taken yet */
    char waiting[ENV_REASON_SIZE]; /* why they wait; "" if they do not */
    struct reason *reasons;       /* the last ones, oldest first: waits.c */
    uint32_t n_reasons;
    int64_t kept_unix_ms, known_unix_ms; /* the beginning of the last one that the journal has, 0: it has none; before known_unix_ms others may have come and gone */
    bool is_runnable;
    struct target *next_runnable;
    int64_t tried_ms;             /* the last probe */
    uint32_t probe_gap_ms;        /* beyond ENV_SLOW_MS, until the next */
    int64_t refused_ms;           /* since when the registry's free slots are not believed; 0: they are */
};

void target_join(struct etask *task); /* gives it its target; nothing if it has one */
void target_part(struct etask *task); /* out of its queue and target; nothing if it has none */
/* In its sender's lane. is_first: it keeps its place, and its sender the turn. */
void target_queue(struct etask *task, bool is_first);
void target_unqueue(struct etask *task);
/* Whose turn it is, out of the queue; its sender's next one comes when the other senders had theirs. NULL: nobody waits. */
struct etask *target_next(struct target *target);
void target_mark(struct target *target); /* it is looked at in the next tick */
struct registry_slots target_slots(const struct target *target);
void target_say_waiting(struct target *target, const struct registry_slots *slots);
/* Somebody may be free: agent's queue and those of its skills. */
void targets_wake(struct env *env, const struct registry_agent *agent, bool has_room);
void targets_run(struct env *env); /* the tick */
void targets_sweep(struct env *env);
void targets_done(struct env *env);
const char *target_waiting(const struct etask *task); /* NULL if it does not wait */

/* ---- waits.c: what tasks waited for ------------------------------------------------------------------------------------- */

void waits_load(struct env *env);          /* at start: what its tasks waited for before, and that nobody was there */
void waits_sweep(struct env *env);         /* each ENV_SWEEP_MS: a reason that lasts goes into the journal */
void waits_stop(struct env *env);          /* as all others do now */
void waits_forget(struct target *target), waits_note(struct target *target); /* nobody waits there any more; what it says of why its tasks wait may have changed */
bool waits_now(const struct etask *task);
void waits_of(const struct etask *task, struct waits *ret); /* since the last attempt, or since it was accepted, until now */
void waits_taken(struct etask *task, struct attempt *attempt); /* the attempt begins now */
void waits_direct(struct etask *task, int64_t waited_ms); /* a direct task begins, for which its caller waited here */
void waits_ended(struct etask *task);                          /* it ends now, and nobody may have begun */
void waits_away(struct etask *task); /* its open attempt outlived the environment before, and the time without one */

/* ---- dispatch.c: calls and attempts ---------------------------------------------------------------------------------- */

void dispatch_event(struct etask *task, const struct engine_event *event);
/* What waited for files (files_answer.c): an event; the end of the call, after which the task may be gone. */
void dispatch_take_event(struct etask *task, uint32_t seq, int64_t time_unix_ms, struct amp_bytes body);
void dispatch_take_end(struct etask *task, const struct amp_error *err, const Amp__Error *wire);
/* The attempt has failed by what came of it, if its call has ended or not. The task may be gone afterwards. */
void dispatch_lose(struct etask *task, const struct amp_error *err, bool has_ended);
/* Its call, timer and place in a queue are given up. */
void dispatch_drop(struct etask *task);

/* ---- lease.c: epochs, holders, late results (amp.md 10.7) ------------------------------------------------------------ */

#define ENV_LEASE_MS 3000u

void lease_init(struct env *env); /* counts the environments of this journal; nothing is leased before that is written down */
uint64_t lease_next(struct env *env); /* above all before, and never the one after the last */
bool lease_may_begin(const struct env *env);
/* An attempt was open when the last environment ended. True: its holder is asked to go on; ret_seq: from which event. */
bool lease_is_held(struct etask *task, uint32_t *ret_seq);
/* A batch that was made under this lease is on the disk. */
void lease_committed(struct etask *task, uint64_t epoch, uint32_t taken);
void lease_report_verb(const struct ask *ask);

/* ---- record.c: direct tasks ----------------------------------------------------------------------------------------- */

/* Takes a frame of amp.evt in. may_fill: a missing number may be looked for in the stream; the frame comes again then. */
void record_take(struct env *env, const struct bus_msg *msg, bool may_fill);
void record_sweep(struct env *env);  /* while the bus is up, and nothing is held */
void record_bus_up(struct env *env);
void record_adopt(struct etask *task); /* found in the journal */
/* A row of an open direct task that memory had let go: into memory again. NULL: it is not one. */
struct etask *record_resume(struct env *env, const struct journal_row *row);
void record_forget(struct etask *task);

/* ---- evtstream*.c: what is said on amp.evt while nobody listens (evtstream.h) ------------------------------------------- */

struct evtstream;
void evtstream_new(struct env *env); /* the journal is open */
void evtstream_free(struct env *env);
void evtstream_bus_up(struct env *env);
void evtstream_bus_down(struct env *env);
void evtstream_stop(struct env *env);
void evtstream_on_msg(void *ctx, const struct bus_msg *msg);
void evtstream_catch_up(struct env *env); /* before direct tasks are looked at: takes up what was heard of them just now */
void evtstream_said(struct env *env); /* an event of a durable task was published */
bool evtstream_is_holding(const struct env *env); /* the stream is being read: what is heard waits */
bool evtstream_is_awaited(const struct env *env); /* readers wait for the end of that */
bool evtstream_is_whole(const struct env *env);   /* nothing that was said is missing, as far as a stream can tell */
bool evtstream_fill(struct env *env, const struct bus_msg *msg); /* a number is missing before `msg`: it is held, and the stream read; false: it cannot help, or did just now */
void evtstream_info(const struct env *env, Amp__EnvInfo *info);

/* ---- beats.c ---------------------------------------------------------------------------------------------------------- */

void beats_init(struct env *env);
void beats_on_msg(void *ctx, const struct bus_msg *msg);
void beats_sweep(struct env *env);
void beats_look(void *ctx); /* of the env; the timer: who was silent for three intervals is lost */
void beats_done(struct env *env);
void beats_load(struct env *env); /* old deaths */
void beats_bus_up(struct env *env); /* asks everybody to beat */

/* ---- kv.c --------------------------------------------------------------------------------------------------------------- */

struct kv_pending;
void kv_done(struct env *env);
size_t kv_waiting(const struct env *env); /* keys whose write is under way */

/* ---- retain.c: what history loses with time ------------------------------------------------------------------------------ */

struct retain {
    struct loop_timer *timer;
    int64_t age_ms;
    uint64_t bytes;
    uint32_t n_gone; /* by the batch under way */
    bool is_under_way;
    int64_t begun_ms, begun_unix_ms; /* the start, by both clocks */
};
/* The time by which things are old: pure. */
int64_t retain_now(const struct retain *retain, int64_t mono_ms, int64_t unix_ms);
void retain_begin(struct env *env, const struct env_options *options);
void retain_done(struct env *env);

/* ---- env.c ---------------------------------------------------------------------------------------------------------------- */

#define ENV_SUBS 3

struct env {
    struct loop *loop;
    struct bus *bus;
    char name[AMP_NAME_MAX + 1], instance[AMP_ID_SIZE];
    struct journal *journal;
    struct registry registry;
    struct bus_sub *subs[ENV_SUBS];
    bool is_open;     /* subscribed */
    struct bus_inbox *settle; /* asks the server something behind the subscriptions, or NULL */
    bool is_settled;  /* it has answered: they are known there */
    bool is_stopping;
    bool is_given_up; /* the journal has failed: nothing is in memory any more, reading goes on */
    void (*on_stopped)(void *ctx);
    void *stopped_ctx;
    uint32_t boot, n_leases, lease_ms; /* boot 0: not written down yet */
    struct late_write *late_writes; /* lease.c */
    uint32_t n_late_writes;
    int64_t fork_from_us; /* before it no fork is begun: fork.c */
    struct loop_tick *tick;
    struct loop_timer *sweep, *backlog, *stop_timer;
    struct amp_arena arena;   /* of the message at hand */
    struct amp_arena scratch; /* of one function: reset by who begins to use it */
    uint32_t random[64];      /* env_random: of them n_random are not used yet */
    size_t n_random;
    struct amp_arena answer;  /* of the answer at hand */
    struct amp_buf out;
    struct etask *tasks, *dirty, *later;
    uint32_t n_later, n_held;
    bool is_reading;  /* the answer at hand says what tasks are: not before the disk says it too */
    uint32_t n_durable, n_direct;
    size_t fat_bytes; /* of what was asked of durable tasks, in memory */
    size_t direct_bytes, unwritten_bytes, held_bytes;
    struct etask *lru_first, *lru_last;
    struct pending_key *keys;
    struct alarms alarms;
    struct loop_timer *alarm_timer;
    struct schedule_entry *schedules;
    size_t schedules_bytes;
    struct target *targets, *runnable, *runnable_last;
    struct lane *lanes; /* by key; no more than tasks that wait */
    struct quota quota;
    struct quota_sender room;  /* of the journal: what was promised to those who found none */
    double commits_per_s;
    uint32_t commits_now;      /* since the last sweep */
    struct watcher *watchers;
    struct loop_timer *keepalive, *behind;
    struct reads reads;
    uint32_t n_watchers, n_dropped; /* n_dropped: answers since the last sweep */
    struct kv_pending *kv;
    struct files *files;            /* files.h */
    struct incoming *incoming, *here; /* messages whose files come; the one whose files are here, while it is asked again */
    struct retain retain;
    struct inbox_entry *inbox, *inbox_first, *inbox_last; /* questions: by id; the open ones, oldest first */
    uint32_t n_questions;     /* of them */
    struct inbox_over *inbox_over; /* NULL: none yet */
    struct inbox_left *inbox_left; /* NULL: nobody has asked, or memory has them */
    uint64_t n_asked;                 /* the order of questions that are asked in the same millisecond */
    int64_t began_ms, deaf_from_unix_ms; /* the start, and when the environment before was there last */
    struct delivery *deliveries; /* answers on their way to attempts */
    struct passed *passed; /* control messages on their way */
    uint32_t n_passed;
    struct evtstream *evt;
    struct parked *late, *late_last; /* readers that wait until the stream has been read */
    struct probe *probes; /* of the last sweep */
    struct turns *turns;  /* direct calls that wait for a free slot */
    struct offers { struct offer *now, *before; uint32_t count; } offers; /* turns_verb.c */
    struct loop_timer *lost_timer; /* at the next end of three intervals without a beat */
    int64_t lost_due_ms;
    bool is_lost_late; /* the last look came late, and was put off */
    int64_t asked_ms; /* when everybody was asked to beat; 0: not yet */
    uint32_t ask_gap_ms; /* until they may be asked again */
};

void env_request_tick(struct env *env);
uint32_t env_random(struct env *env);
