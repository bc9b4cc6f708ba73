/* What becomes of one durable task: wait, call, wait again after a failure, end. Pure: (state, event, now, random) → actions.
 * The environment does the actions and reports back; it never decides. Times are monotonic milliseconds. (amp.md 10.3) */
#pragma once
#include <amp/amp.h>

#define ENGINE_FAILURES_MAX 5u       /* attempts that may end in the callee's death, then ATTEMPTS */
#define ENGINE_BACKOFF_MS 20u        /* none after the first; at most four times as much after the second, and so on */
#define ENGINE_BACKOFF_MAX_MS 10000u
#define ENGINE_ACTIONS_MAX 4u
#define ENGINE_NEVER INT64_MAX

enum engine_phase {
    ENGINE_NEW,     /* not durable yet */
    ENGINE_DELAYED, /* durable; its time has not come */
    ENGINE_QUEUED,  /* may be called as soon as somebody is free */
    ENGINE_BACKOFF, /* an attempt failed, the next one waits for its time */
    ENGINE_RUNNING, /* a call is open */
    ENGINE_ENDED,
};

enum engine_event_kind {
    ENGINE_EV_COMMITTED,  /* the submit is durable */
    ENGINE_EV_RELOADED,   /* found in the journal by a new environment; attempt, is_taken, failures and is_canceling as they were */
    ENGINE_EV_DUE,        /* its time has come */
    ENGINE_EV_START,      /* its turn: somebody is free */
    ENGINE_EV_TAKEN,      /* an instance has it */
    ENGINE_EV_CALL_ENDED, /* with code and state */
    ENGINE_EV_CANCEL,
    ENGINE_EV_TIMER,
};

struct engine_event {
    enum engine_event_kind kind;
    enum amp_code code;      /* CALL_ENDED: as call.h's on_end says */
    Amp__TaskState state;    /* CALL_ENDED: terminal state that the callee reported, or UNSPECIFIED */
    bool is_held;            /* RELOADED: an instance may still be at it, under its lease */
    bool is_open;            /* RELOADED: the attempt has begun, and nobody knows how it ended */
};

enum engine_action_kind {
    ENGINE_DO_BEGIN,       /* it was delayed and is no more */
    ENGINE_DO_QUEUE,       /* into the queue of its target; code: AMP_OK, or why it was not taken */
    ENGINE_DO_UNQUEUE,
    ENGINE_DO_CALL,        /* attempt number in engine.attempt */
    ENGINE_DO_ATTACH,      /* go on with the call of a former environment */
    ENGINE_DO_CANCEL_CALL, /* tell the callee; what it still says does not count once the task has ended */
    ENGINE_DO_RETRY,       /* say so: the attempt that just failed, code = cause */
    ENGINE_DO_KEEP_END,    /* the callee's terminal event is the task's end */
    ENGINE_DO_END,         /* end it with `state` and `code` */
};

struct engine_action {
    enum engine_action_kind kind;
    enum amp_code code;
    Amp__TaskState state;
};

struct engine {
    enum engine_phase phase;
    bool is_retry_safe;
    bool is_taken;      /* the attempt of this number has begun: the next call has another */
    bool is_canceling;
    uint32_t attempt;   /* 0: none yet */
    uint32_t failures;
    int64_t deadline_at, retry_at;
    bool is_delayed;
    int64_t start_at;    /* while it is delayed; ENGINE_NEVER: ENGINE_EV_DUE says when */
    uint32_t timeout_ms; /* from its start on, if it is delayed; 0: none */
};

void engine_init(struct engine *engine, bool is_retry_safe, int64_t deadline_at);
/* Before the first step: it does not start before `start_at` or ENGINE_EV_DUE, and its time counts from then on. */
void engine_delay(struct engine *engine, int64_t start_at, uint32_t timeout_ms);
/* Returns the number of actions, to be done in order. An event that makes no sense in this phase does nothing. */
AMP_MUST_USE size_t engine_step(struct engine *engine, const struct engine_event *event, int64_t now_ms, uint32_t random,
                                struct engine_action ret[ENGINE_ACTIONS_MAX]);
/* When the next ENGINE_EV_TIMER is due; ENGINE_NEVER if nothing waits for time. */
int64_t engine_due(const struct engine *engine);
/* Does this code say that it ended because of who worked on it? Then it counts, and another one may do it. */
bool engine_is_failure(enum amp_code code);
/* Does this code say that nobody took the call? Then it was no attempt. */
bool engine_is_untaken(enum amp_code code);
