#include "engine.h"

#include "base/seeded.h"

#include <assert.h>

#define STATE(name) AMP__TASK_STATE__TASK_STATE_##name

struct step {
    struct engine *engine;
    const struct engine_event *event;
    int64_t now;
    uint32_t random;
    struct engine_action *actions;
    size_t count;
};

void engine_init(struct engine *engine, bool is_retry_safe, int64_t deadline_at)
{
    *engine = (struct engine){.is_retry_safe = is_retry_safe, .deadline_at = deadline_at, .retry_at = ENGINE_NEVER};
}

void engine_delay(struct engine *engine, int64_t start_at, uint32_t timeout_ms)
{
    engine->is_delayed = true;
    engine->start_at = start_at;
    engine->timeout_ms = timeout_ms;
    engine->deadline_at = ENGINE_NEVER;
}

static void push(struct step *step, enum engine_action_kind kind, enum amp_code code, Amp__TaskState state)
{
    assert(step->count < ENGINE_ACTIONS_MAX);
    step->actions[step->count++] = (struct engine_action){.kind = kind, .code = code, .state = state};
}

static void end(struct step *step, Amp__TaskState state, enum amp_code code)
{
    step->engine->phase = ENGINE_ENDED;
    push(step, ENGINE_DO_END, code, state);
}

static void keep_end(struct step *step)
{
    step->engine->phase = ENGINE_ENDED;
    push(step, ENGINE_DO_KEEP_END, step->event->code, step->event->state);
}

static void queue(struct step *step, enum amp_code why)
{
    step->engine->phase = ENGINE_QUEUED;
    push(step, ENGINE_DO_QUEUE, why, STATE(UNSPECIFIED));
}

/* Did it end because of who worked on it, and not because of what it is? Then another one may do it. */
bool engine_is_failure(enum amp_code code)
{
    return code == AMP_AGENT_DIED || code == AMP_INSTANCE_LOST || code == AMP_FRAMES_LOST || code == AMP_STOPPING ||
           code == AMP_NO_BUS || code == AMP_OVERLOADED || code == AMP_HUNG;
}

/* A request that was sent and not answered may have run. */
static bool may_have_run(enum amp_code code)
{
    return code == AMP_INSTANCE_LOST;
}

bool engine_is_untaken(enum amp_code code)
{
    return code == AMP_BUSY || code == AMP_NO_SUCH_AGENT || code == AMP_NO_SUCH_SKILL || code == AMP_STOPPING ||
           code == AMP_NO_BUS || code == AMP_OVERLOADED || code == AMP_INSTANCE_LOST ||
           code == AMP_CONFLICT; /* it is still at an attempt that was given up */
}

/* Full jitter: those that failed together do not come back together. */
static uint32_t backoff_ms(uint32_t failures, uint32_t random)
{
    uint32_t most = ENGINE_BACKOFF_MS;
    for (uint32_t i = 1; i < failures && most < ENGINE_BACKOFF_MAX_MS; i++)
        most *= 4;
    if (most > ENGINE_BACKOFF_MAX_MS)
        most = ENGINE_BACKOFF_MAX_MS;
    return random % (most + 1);
}

static void retry(struct step *step)
{
    struct engine *engine = step->engine;
    engine->failures++;
    if (engine->failures >= ENGINE_FAILURES_MAX && !SEEDED_BUG("tried-for-ever")) {
        end(step, STATE(FAILED), AMP_ATTEMPTS);
        return;
    }
    engine->phase = ENGINE_BACKOFF;
    engine->retry_at = step->now + backoff_ms(engine->failures, step->random);
    push(step, ENGINE_DO_RETRY, step->event->code, STATE(UNSPECIFIED));
    if (engine->failures == 1) { /* a first failure says nothing about the task: nobody waits for it */
        engine->retry_at = ENGINE_NEVER;
        queue(step, AMP_OK);
    }
}

static void on_call_ended(struct step *step)
{
    struct engine *engine = step->engine;
    enum amp_code code = step->event->code;
    Amp__TaskState state = step->event->state;
    bool has_end = amp_task_is_terminal(state);
    if (engine->phase != ENGINE_RUNNING)
        return;
    if (has_end && (code == AMP_OK || engine->is_canceling || state != STATE(FAILED))) {
        keep_end(step);
    } else if (engine->is_canceling || code == AMP_CANCELED) {
        end(step, STATE(CANCELED), AMP_CANCELED);
    } else if (code == AMP_OK) {
        end(step, STATE(FAILED), AMP_BAD_ANSWER);
    } else if (!engine->is_taken && engine_is_untaken(code) && (engine->is_retry_safe || !may_have_run(code))) {
        queue(step, code);
    } else if (engine_is_failure(code) && (engine->is_retry_safe || SEEDED_BUG("unsafe-retry"))) {
        retry(step);
    } else if (has_end) {
        keep_end(step);
    } else if (code == AMP_REJECTED) {
        end(step, STATE(REJECTED), code);
    } else {
        end(step, STATE(FAILED), code);
    }
}

static void on_committed(struct step *step)
{
    if (step->engine->is_canceling)
        end(step, STATE(CANCELED), AMP_CANCELED);
    else if (step->engine->is_delayed)
        step->engine->phase = ENGINE_DELAYED;
    else
        queue(step, AMP_OK);
}

static void on_due(struct step *step)
{
    struct engine *engine = step->engine;
    if (engine->phase != ENGINE_DELAYED)
        return;
    engine->is_delayed = false;
    if (engine->timeout_ms)
        engine->deadline_at = step->now + engine->timeout_ms;
    push(step, ENGINE_DO_BEGIN, AMP_OK, STATE(UNSPECIFIED));
    queue(step, AMP_OK);
}

static void on_reloaded(struct step *step)
{
    struct engine *engine = step->engine;
    if (engine->is_canceling) {
        end(step, STATE(CANCELED), AMP_CANCELED);
        return;
    }
    if (engine->failures >= ENGINE_FAILURES_MAX) {
        end(step, STATE(FAILED), AMP_ATTEMPTS);
        return;
    }
    if (engine->attempt > 0 && step->event->is_held) {
        engine->is_taken = true;
        engine->phase = ENGINE_RUNNING;
        push(step, ENGINE_DO_ATTACH, AMP_OK, STATE(UNSPECIFIED));
        return;
    }
    if (engine->attempt > 0 && !engine->is_retry_safe) {
        end(step, STATE(FAILED), AMP_INTERRUPTED);
        return;
    }
    if (engine->attempt > 0 && SEEDED_BUG("forgotten-at-restart"))
        return;
    if (step->event->is_open) { /* of one that has ended it was told already that there is another */
        engine->is_taken = true;
        push(step, ENGINE_DO_RETRY, AMP_INTERRUPTED, STATE(UNSPECIFIED));
    } else if (engine->attempt == 0 && engine->is_delayed && !SEEDED_BUG("early-start")) {
        engine->phase = ENGINE_DELAYED;
        return;
    }
    queue(step, AMP_OK);
}

static void on_start(struct step *step)
{
    struct engine *engine = step->engine;
    if (engine->phase != ENGINE_QUEUED)
        return;
    if (engine->attempt == 0 || engine->is_taken)
        engine->attempt++;
    engine->is_taken = false;
    engine->phase = ENGINE_RUNNING;
    push(step, ENGINE_DO_CALL, AMP_OK, STATE(UNSPECIFIED));
}

static void leave_phase(struct step *step)
{
    if (step->engine->phase == ENGINE_RUNNING)
        push(step, ENGINE_DO_CANCEL_CALL, step->event->code, STATE(UNSPECIFIED));
    else if (step->engine->phase == ENGINE_QUEUED)
        push(step, ENGINE_DO_UNQUEUE, AMP_OK, STATE(UNSPECIFIED));
}

static void on_cancel(struct step *step)
{
    struct engine *engine = step->engine;
    if (engine->phase == ENGINE_ENDED || engine->is_canceling)
        return;
    engine->is_canceling = true;
    if (engine->phase == ENGINE_NEW)
        return; /* as soon as it is known whether there is a task at all */
    leave_phase(step);
    /* A callee at work may still be quicker: the call's end decides. */
    if (engine->phase != ENGINE_RUNNING)
        end(step, STATE(CANCELED), AMP_CANCELED);
}

static void on_timer(struct step *step)
{
    struct engine *engine = step->engine;
    if (engine->phase == ENGINE_NEW || engine->phase == ENGINE_ENDED)
        return;
    if (engine->phase == ENGINE_DELAYED) {
        if (step->now >= engine->start_at)
            on_due(step);
    } else if (step->now >= engine->deadline_at) {
        leave_phase(step);
        end(step, STATE(FAILED), AMP_DEADLINE);
    } else if (engine->phase == ENGINE_BACKOFF && step->now >= engine->retry_at) {
        engine->retry_at = ENGINE_NEVER;
        queue(step, AMP_OK);
    }
}

size_t engine_step(struct engine *engine, const struct engine_event *event, int64_t now_ms, uint32_t random,
                   struct engine_action ret[ENGINE_ACTIONS_MAX])
{
    struct step step = {.engine = engine, .event = event, .now = now_ms, .random = random, .actions = ret};
    switch (event->kind) {
    case ENGINE_EV_COMMITTED:
        if (engine->phase == ENGINE_NEW)
            on_committed(&step);
        break;
    case ENGINE_EV_RELOADED:
        if (engine->phase == ENGINE_NEW)
            on_reloaded(&step);
        break;
    case ENGINE_EV_DUE:
        on_due(&step);
        break;
    case ENGINE_EV_START:
        on_start(&step);
        break;
    case ENGINE_EV_TAKEN:
        if (engine->phase == ENGINE_RUNNING)
            engine->is_taken = true;
        break;
    case ENGINE_EV_CALL_ENDED:
        on_call_ended(&step);
        break;
    case ENGINE_EV_CANCEL:
        on_cancel(&step);
        break;
    case ENGINE_EV_TIMER:
        on_timer(&step);
        break;
    }
    return step.count;
}

int64_t engine_due(const struct engine *engine)
{
    if (engine->phase == ENGINE_NEW || engine->phase == ENGINE_ENDED)
        return ENGINE_NEVER;
    if (engine->phase == ENGINE_DELAYED)
        return engine->start_at;
    if (engine->phase == ENGINE_BACKOFF && engine->retry_at < engine->deadline_at)
        return engine->retry_at;
    return engine->deadline_at;
}
