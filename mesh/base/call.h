/* One call of an agent, seen from the caller: the only code that knows how (amp.md 5). Used by the sidecar's `send`, the environment's dispatch and the
 * command line. Handles: no responders → who → "busy" (waits and tries again) or "no such agent"; bounced by a full instance; frames in
 * order; gaps; end marker; deadline; death of the callee's sidecar (ping each second after silence → no responders); cancel; answers. */
#pragma once
#include <amp/amp.h>

struct loop;
struct bus;
struct call;

#define CALL_WINDOW_BYTES (1u << 20) /* of frames that may be on their way, if the caller does not say otherwise */

struct call_options {
    const char *agent;    /* one of agent, skill */
    const char *skill;
    const char *instance; /* with agent: only that one; or NULL */
    const char *from;     /* sender: a valid id */
    const char *task_id, *context_id; /* valid ids; made by the caller */
    const char *parent;   /* or NULL */
    const char *root;     /* of its tree, if there is a parent; or NULL */
    const Amp__Message *message; /* borrowed until call_start returns */
    uint32_t timeout_ms;  /* 0: none */
    uint32_t given_ms;    /* what people were promised of which timeout_ms is left, for the words of a missed deadline; 0: timeout_ms */
    uint32_t attempt;     /* from 1 */
    uint32_t hops;        /* of the call above plus one; 0 at the top */
    char **path;          /* agents above */
    size_t n_path;
    bool is_journalled;   /* the caller journals the events itself */
    bool is_impatient;    /* busy is an error at once instead of a wait */
    bool is_skill_first;  /* reserved for routing by both; must be false */
    bool may_queue;       /* when nobody is free, the environment is asked for a turn, if there is one */
    Amp__Priority priority; /* among those that wait so */
    uint32_t lease_ms;    /* 0: none. Else the callee stops by itself when it does not hear of us for so long, and keeps what is not committed (amp.md 10.7) */
    uint64_t epoch;       /* of the lease; the one after it is never that of another */
    bool is_retry_safe;   /* with may_retry: also at instances of whom nobody has said that (amp.md 5.6.1) */
    bool may_retry;       /* a direct call that fails with its instance, before it has shown anything, goes to another one (amp.md 5.6). Not for an `instance`, nor for a lease */
    uint32_t window_bytes; /* of frames that may be on their way to us (amp.md 6.2.3); 0: CALL_WINDOW_BYTES */
    uint32_t attach_seq;  /* 0: a new call. Else the call of a former caller, at `instance` under `epoch`, is gone on with from this event on: it begins as taken,
                             without on_taken; `message` may be NULL */
};

struct call_handlers {
    /* One event in order, each number once; also over attempts, each of which begins with an event that tells why (amp.md 10.5.6). `event` is borrowed. */
    void (*on_event)(void *ctx, uint32_t seq, const Amp__Event *event);
    /* Who took it (first frame of each attempt). */
    void (*on_taken)(void *ctx, const char *agent, const char *instance);
    /* Waiting, with the reason ("every instance of up is busy"); for people. May be NULL. */
    void (*on_waiting)(void *ctx, const char *reason);
    /* An answer (call_answer) was not taken, with the reason: AMP_NO_QUESTION, AMP_TOO_LARGE … The task goes on. May be NULL. */
    void (*on_refused)(void *ctx, const struct amp_error *err);
    /* The last callback; `err->code` is AMP_OK when the stream ended in good order (whatever the task's state), else what broke it. `wire` is the error as it
     * came from the other side, with the death report in it, or NULL. The call may be freed here. */
    void (*on_end)(void *ctx, const struct amp_error *err, const Amp__Error *wire);
};

/* "high", "normal", "low". False: none of them. */
bool call_priority(const char *text, Amp__Priority *ret);
#define CALL_PATH_SIZE 384u
/* "a -> b -> c", `last` (or NULL) behind the others; in the middle of a long one names are left out. */
void call_path_text(char *const *path, size_t n_path, const char *last, char ret[CALL_PATH_SIZE]);
/* Where a call stands, for whoever makes one: AMP_HOPS if too many are above it, AMP_LOOP if `agent` (may be NULL) is; the error names the path, "a -> b -> a". (amp.md 5.4.1) */
AMP_MUST_USE enum amp_code call_check_path(const char *agent, uint32_t hops, char *const *path, size_t n_path, struct amp_error *reterr);
/* Starts it. Errors at once: AMP_INVALID, AMP_HOPS, AMP_LOOP (callee is in path), AMP_TOO_LARGE. Everything else comes through on_end, never from inside call_start. */
AMP_MUST_USE enum amp_code call_start(struct loop *loop, struct bus *bus, const struct call_options *options, const struct call_handlers *handlers, void *ctx,
                                      struct call **ret, struct amp_error *reterr);
/* Holds the callee back: nothing more is confirmed (amp.md 6.2.3), so that no more than the window still comes, until it is called with false. */
void call_hold(struct call *call, bool is_held);
/* Asks the callee to cancel; the stream goes on to its end (CANCELED, or what was reached first). Before it was taken: ends with AMP_CANCELED; right after
 * the request went out, as soon as the first answer says whether there is anybody to tell. After 10 s without an end: AMP_CANCELED. */
void call_cancel(struct call *call, const char *reason);
/* The same for an attempt on lease that does not count any more, while its task goes on or has ended otherwise: nobody goes on with it (amp.md 10.7.8). */
void call_give_up(struct call *call, const char *reason);
/* Answers a question. input_id NULL: the only one open. AMP_NO_QUESTION before it was taken. What the callee says to it is not told: who needs that uses control_send. */
AMP_MUST_USE enum amp_code call_answer(struct call *call, const char *input_id, const Amp__Message *message, struct amp_error *reterr);
/* Of a call on lease. Committed: so many events of it need not be kept by the callee any more; it is told with the next ping. */
void call_committed(struct call *call, uint32_t count);
/* The callee was heard of elsewhere; with is_ended it has ended, which we may have missed. */
void call_heard(struct call *call, bool is_ended);
/* To the callee of a call on lease that is over: nothing of what it did under this epoch need be kept. */
void call_forget(struct bus *bus, const char *from, const char *instance, const char *task_id, uint64_t epoch);
const char *call_instance(const struct call *call); /* "" until taken */
void call_free(struct call *call); /* no callback after this; the callee is not told. NULL is fine */

/* A control message to an instance's task outside of a call (environment, `--task`). timeout_ms 0: 5 s. Errors at once: AMP_INVALID and those of bus_publish. on_done once, not from
 * inside: AMP_OK, NO_SUCH_TASK, INSTANCE_LOST (no responders), DEADLINE, or what the reply says. *ret (ret may be NULL) may be used to cancel until then. */
struct control;
AMP_MUST_USE enum amp_code control_send(struct loop *loop, struct bus *bus, const char *instance, const char *task_id, const Amp__Control *control, uint32_t timeout_ms,
                                        void (*on_done)(void *ctx, const struct amp_error *err), void *ctx, struct control **ret);
void control_cancel(struct control *control); /* no callback after this; the message may have left. NULL is fine */
