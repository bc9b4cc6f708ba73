#include "base/call_fsm_private.h"

#include <assert.h>

void call_fsm_init(struct call_fsm *fsm, uint32_t timeout_ms, bool is_impatient, uint32_t seed, int64_t now_ms)
{
    *fsm = (struct call_fsm){
        .phase = CALL_IDLE,
        .is_impatient = is_impatient,
        .backoff_ms = CALL_BACKOFF_MIN_MS,
        .random = seed ? seed : 1,
        .attempt = 1,
        .deadline_at = timeout_ms ? now_ms + timeout_ms : INT64_MAX,
        .cancel_by = INT64_MAX,
        .asked_at = INT64_MIN,
        .timer_at = INT64_MAX,
        .gap_since = INT64_MAX,
        .attach_ms = CALL_ATTACH_EVERY_MS,
        .up_at = INT64_MIN,
        .alone_until = INT64_MIN,
    };
}

void call_fsm_lease(struct call_fsm *fsm, uint32_t lease_ms)
{
    fsm->lease_ms = lease_ms;
}

void call_fsm_queue(struct call_fsm *fsm)
{
    fsm->may_queue = !fsm->is_impatient;
}

void call_fsm_attach(struct call_fsm *fsm)
{
    fsm->is_attaching = true;
}

struct call_action *call_step_push(struct step *step, enum call_action_kind kind, enum call_why why)
{
    assert(step->count < CALL_ACTIONS_MAX);
    struct call_action *action = &step->actions[step->count++];
    *action = (struct call_action){.kind = kind, .why = why, .phase = step->fsm->phase};
    return action;
}

void call_step_end(struct step *step, enum call_why why)
{
    call_step_push(step, CALL_DO_END, why)->code = step->event->code;
    step->fsm->phase = CALL_ENDED;
}

void step_publish(struct step *step, bool is_turn)
{
    step->fsm->phase = CALL_SENT;
    step->fsm->sent_at = step->now;
    step->fsm->is_turn = is_turn;
    call_step_push(step, CALL_DO_PUBLISH_REQUEST, CALL_WHY_NONE);
}

void step_send(struct step *step)
{
    if (step->fsm->is_wary)
        failover_seek(step);
    else
        step_publish(step, false);
}

static void start(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (!fsm->is_attaching) {
        step_send(step);
        return;
    }
    fsm->phase = CALL_TAKEN;
    fsm->heard_at = fsm->ping_at = step->now;
    call_taken_attach(step);
}

static void go_down(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (fsm->is_down) {
        return;
    }
    fsm->is_down = fsm->was_down = true;
    fsm->down_since = step->now;
    /* A question that nobody can answer any more; the request itself was not taken, so it may go out again. */
    if (fsm->phase == CALL_ASKING || fsm->phase == CALL_QUEUING) {
        fsm->phase = CALL_WAITING;
    }
    if (!fsm->has_said_down && fsm->phase != CALL_IDLE) {
        fsm->has_said_down = true;
        call_step_push(step, CALL_DO_SAY_WAITING, CALL_WHY_NO_BUS);
    }
}

static void go_up(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (!fsm->is_down) {
        return;
    }
    fsm->is_down = false;
    /* Silence while the bus was away says nothing about the other side. */
    fsm->up_at = step->now;
    fsm->sent_at = step->now;
    fsm->ping_at = step->now;
    fsm->heard_at = step->now;
    fsm->pings_open = 0;
    fsm->attach_ms = CALL_ATTACH_EVERY_MS;
    if (fsm->gap_since != INT64_MAX) {
        fsm->gap_since = step->now;
    }
    if (fsm->phase == CALL_WAITING) {
        step_send(step);
        return;
    }
    if (fsm->phase == CALL_SEEKING) {
        failover_seek(step);
    }
    if (fsm->phase == CALL_TAKEN) {
        call_taken_attach(step);
    }
    if (fsm->phase == CALL_TAKEN && fsm->is_cancelling) {
        call_step_push(step, CALL_DO_PUBLISH_CANCEL, CALL_WHY_CANCELED);
    }
}

static void on_not_published(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    const struct call_event *event = step->event;
    if (event->action == CALL_DO_PUBLISH_REQUEST && fsm->phase == CALL_SENT) {
        if (event->code != AMP_NO_BUS && event->code != AMP_OVERLOADED) {
            call_step_end(step, CALL_WHY_REFUSED);
            return;
        }
        step_back_off(step);
    } else if (event->action == CALL_DO_PUBLISH_WHO && fsm->phase == CALL_ASKING) {
        step_back_off(step);
    } else if (event->action == CALL_DO_PUBLISH_WAIT && fsm->phase == CALL_QUEUING) {
        step_back_off(step);
    }
    if (event->code == AMP_NO_BUS) {
        go_down(step);
    }
}

/* A bus that was started anew is found again by everybody in their own time. */
bool call_step_is_just_back(const struct step *step)
{
    return step->fsm->up_at != INT64_MIN && step->now - step->fsm->up_at < CALL_RETURN_MS;
}

/* The answer to a request that nobody took: it may be sent again. */
static void on_not_taken(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (fsm->phase == CALL_TAKEN && fsm->is_attaching) {
        call_taken_not_attached(step);
    }
    if (fsm->phase != CALL_SENT) {
        return; /* said twice, or too late: somebody took it */
    }
    if (fsm->is_cancelling) {
        call_step_end(step, CALL_WHY_CANCELED);
    } else if (step->event->is_conflict && fsm->attempt > 1) {
        failover_conflict(step);
    } else if (step->event->kind == CALL_EV_REPLY_ERROR) {
        call_step_end(step, CALL_WHY_REPLY);
    } else if (fsm->has_turn) {
        fsm->has_turn = false;
        wait_go_there(step, fsm->is_turn_named);
    } else if (step->event->kind == CALL_EV_BOUNCED) {
        step_send_again(step);
    } else if (step_may_queue(step)) {
        step_queue(step);
    } else if (fsm->asked_at != INT64_MIN && step->now - fsm->asked_at < CALL_WHO_EVERY_MS) {
        step_wait_busy(step);
    } else {
        step_ask(step);
    }
}

static void on_who(struct step *step)
{
    if (step->fsm->phase == CALL_SEEKING) {
        failover_who(step);
        return;
    }
    if (step->fsm->phase != CALL_ASKING) {
        return;
    }
    if (step->event->kind == CALL_EV_WHO_NONE && call_step_is_just_back(step)) {
        step_back_off(step);
    } else if (step->event->kind == CALL_EV_WHO_NONE) {
        call_step_end(step, CALL_WHY_NOBODY);
    } else {
        step_wait_busy(step);
    }
}

static void on_cancel(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (fsm->is_cancelling) {
        return;
    }
    fsm->is_cancelling = true;
    if (fsm->phase == CALL_TAKEN) {
        fsm->cancel_by = step->now + CALL_CANCEL_MAX_MS;
        call_step_push(step, CALL_DO_PUBLISH_CANCEL, CALL_WHY_CANCELED);
    } else if (fsm->phase != CALL_SENT || fsm->is_down) {
        call_step_end(step, CALL_WHY_CANCELED);
    }
    /* CALL_SENT: somebody may be taking it right now; the first answer says whom to tell, or that there is nobody to tell. */
}

/* What came while we stood still is not read yet. */
static void on_silence(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (step->now - fsm->timer_at >= CALL_STALL_MS) {
        fsm->sent_at = step->now - CALL_SILENCE_MS + CALL_STALL_MS;
    } else if (fsm->is_cancelling) {
        call_step_end(step, CALL_WHY_CANCELED);
    } else {
        failover_or_end(step, CALL_WHY_NO_ACK);
    }
}

static void on_timer(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (step->now >= fsm->deadline_at) {
        call_taken_break_off(step, CALL_WHY_DEADLINE);
    } else if (step->now >= fsm->cancel_by) {
        call_step_end(step, CALL_WHY_CANCELED);
    } else if (fsm->is_down) {
        if (!fsm->lease_ms && step->now - fsm->down_since >= CALL_DOWN_MAX_MS) { /* of a lease the holder decides (amp.md 10.7.3) */
            call_step_end(step, CALL_WHY_NO_BUS);
        }
    } else if (fsm->phase == CALL_SENT && step->now - fsm->sent_at >= CALL_SILENCE_MS) {
        on_silence(step);
    } else if (fsm->phase == CALL_SEEKING) {
        failover_timer(step);
    } else if (fsm->phase == CALL_ASKING && step->now - fsm->asked_at >= CALL_SILENCE_MS) {
        step_wait_busy(step); /* the name is taken, its holder is slow: as good as busy */
    } else if (fsm->phase == CALL_QUEUING && step->now - fsm->asked_at >= CALL_TURN_SILENCE_MS) {
        wait_no_turns(step);
    } else if (fsm->phase == CALL_WAITING && step->now >= fsm->retry_at) {
        step_send(step);
    } else if (fsm->phase == CALL_TAKEN) {
        call_taken_timer(step);
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t next_due(const struct call_fsm *fsm, int64_t now)
{
    int64_t due = earlier(fsm->deadline_at, fsm->cancel_by);
    if (fsm->is_down) {
        return earlier(due, now + CALL_DOWN_POLL_MS);
    }
    switch (fsm->phase) {
    case CALL_SENT:
        return earlier(due, fsm->sent_at + CALL_SILENCE_MS);
    case CALL_ASKING:
        return earlier(due, fsm->asked_at + CALL_SILENCE_MS);
    case CALL_QUEUING:
        return earlier(due, fsm->asked_at + CALL_TURN_SILENCE_MS);
    case CALL_WAITING:
        return earlier(due, fsm->retry_at);
    case CALL_SEEKING:
        return earlier(earlier(due, fsm->seek_by), fsm->asked_at + CALL_SEEK_EVERY_MS);
    case CALL_TAKEN:
        return earlier(earlier(due, call_taken_lapses_at(fsm)), fsm->is_attaching ? fsm->attach_at : fsm->ping_at);
    case CALL_IDLE:
    case CALL_ENDED:
        break;
    }
    return due;
}

static void on_denied(struct step *step)
{
    if (step->fsm->phase == CALL_SEEKING)
        failover_denied(step);
    else
        call_taken_break_off(step, CALL_WHY_DENIED);
}

static void dispatch(struct step *step)
{
    switch (step->event->kind) {
    case CALL_EV_START:
        if (step->fsm->phase == CALL_IDLE) {
            start(step);
        }
        break;
    case CALL_EV_NOT_PUBLISHED:
        on_not_published(step);
        break;
    case CALL_EV_NO_RESPONDERS:
    case CALL_EV_BOUNCED:
    case CALL_EV_REPLY_ERROR:
        on_not_taken(step);
        break;
    case CALL_EV_DENIED:
        on_denied(step);
        break;
    case CALL_EV_BAD_ANSWER:
        call_taken_break_off(step, CALL_WHY_BAD_ANSWER);
        break;
    case CALL_EV_FRAME:
        call_taken_frame(step);
        break;
    case CALL_EV_FRAME_GAP:
        call_taken_gap(step);
        break;
    case CALL_EV_WHO_NONE:
    case CALL_EV_WHO_THERE:
        on_who(step);
        break;
    case CALL_EV_QUEUED:
        wait_queued(step);
        break;
    case CALL_EV_TURN:
        wait_turn(step);
        break;
    case CALL_EV_NO_TURNS:
        wait_no_turns(step);
        break;
    case CALL_EV_TURN_REFUSED:
        if (step->fsm->phase == CALL_QUEUING)
            call_step_end(step, CALL_WHY_REPLY);
        break;
    case CALL_EV_PONG:
    case CALL_EV_PONG_UNKNOWN:
    case CALL_EV_PONG_BEHIND:
    case CALL_EV_PONG_ENDED:
    case CALL_EV_PONG_NONE:
        call_taken_pong(step);
        break;
    case CALL_EV_HEARD:
    case CALL_EV_LOST_TRACK:
        call_taken_heard(step);
        break;
    case CALL_EV_BUS_DOWN:
        go_down(step);
        break;
    case CALL_EV_BUS_UP:
        go_up(step);
        break;
    case CALL_EV_TIMER:
        on_timer(step);
        break;
    case CALL_EV_CANCEL:
        on_cancel(step);
        break;
    case CALL_EV_KINDS:
        break;
    }
}

size_t call_fsm_step(struct call_fsm *fsm, const struct call_event *event, int64_t now_ms, struct call_action ret[CALL_ACTIONS_MAX])
{
    struct step step = {.fsm = fsm, .event = event, .now = now_ms, .actions = ret};
    if (fsm->phase == CALL_ENDED) {
        return 0;
    }
    dispatch(&step);
    int64_t due = next_due(fsm, now_ms);
    if (fsm->phase != CALL_ENDED && due != INT64_MAX) {
        fsm->timer_at = due > now_ms ? due : now_ms;
        int64_t in_ms = due > now_ms ? due - now_ms : 0;
        call_step_push(&step, CALL_DO_SET_TIMER, CALL_WHY_NONE)->in_ms = in_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)in_ms;
    }
    return step.count;
}
