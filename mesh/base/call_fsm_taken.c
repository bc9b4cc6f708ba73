/* A call that an instance works on: frames come, or are missed and asked for again; is it still there? */
#include "base/call_fsm_private.h"

/* Nothing is lost that the callee still keeps: it is asked for what comes next. */
void call_taken_attach(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    fsm->is_attaching = true;
    fsm->ended_pongs = 0;
    fsm->attach_at = step->now + fsm->attach_ms;
    if (!fsm->lease_ms && fsm->attach_ms < CALL_ATTACH_SLOW_MS) {
        fsm->attach_ms *= 2;
    }
    call_step_push(step, CALL_DO_PUBLISH_ATTACH, CALL_WHY_NONE);
}

static uint32_t ping_every_ms(const struct call_fsm *fsm)
{
    uint32_t third = fsm->lease_ms / 3;
    return third && third < CALL_PING_EVERY_MS ? third : CALL_PING_EVERY_MS;
}

static bool is_silent(const struct step *step)
{
    return step->now - step->fsm->heard_at >= CALL_GAP_SILENT_MS;
}

/* Who stood still could not send what is missing: there is time to ask again. */
static void heard(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    int64_t since = step->now - CALL_GAP_MAX_MS + CALL_GAP_SILENT_MS;
    if (fsm->gap_since != INT64_MAX && is_silent(step) && fsm->gap_since < since) {
        fsm->gap_since = since;
    }
    fsm->heard_at = step->now;
}

void call_taken_frame(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    bool is_first = fsm->phase != CALL_TAKEN;
    if (failover_is_past(fsm)) {
        return; /* who has failed is not gone back to */
    }
    fsm->is_broken = false; /* it was slow, and has it */
    fsm->phase = CALL_TAKEN;
    heard(step);
    if (!step->event->is_old) { /* else it may have been sent before it was asked for what is missing */
        fsm->is_attaching = false;
        fsm->gap_since = INT64_MAX;
        fsm->attach_ms = CALL_ATTACH_EVERY_MS;
    }
    if (is_first || !fsm->lease_ms) {
        fsm->ping_at = step->now + ping_every_ms(fsm);
    }
    fsm->pings_open = fsm->ended_pongs = 0;
    fsm->was_down = fsm->is_down;
    fsm->may_retry |= step->event->may_retry;
    if (step->event->is_last && failover_frame(step, is_first)) {
        return;
    }
    fsm->is_shown |= step->event->is_shown;
    if (is_first) {
        call_step_push(step, CALL_DO_TAKEN, CALL_WHY_NONE);
    }
    call_step_push(step, CALL_DO_DELIVER, CALL_WHY_NONE);
    if (step->event->is_last) {
        call_step_end(step, CALL_WHY_STREAM);
    } else if (is_first && fsm->is_cancelling) {
        fsm->cancel_by = step->now + CALL_CANCEL_MAX_MS;
        call_step_push(step, CALL_DO_PUBLISH_CANCEL, CALL_WHY_CANCELED);
    }
}

/* Nobody will read what the callee still does. */
void call_taken_break_off(struct step *step, enum call_why why)
{
    if (step->fsm->phase == CALL_TAKEN && !step->fsm->is_cancelling) {
        call_step_push(step, CALL_DO_PUBLISH_CANCEL, why);
    }
    call_step_end(step, why);
}

/* Also as the first frame: somebody took it. While it is asked for what is missing, more may come that was sent before. */
void call_taken_gap(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (failover_is_past(fsm)) {
        return;
    }
    heard(step);
    fsm->is_broken = false;
    if (fsm->gap_since == INT64_MAX) {
        fsm->gap_since = step->now;
    }
    if (fsm->phase != CALL_TAKEN) {
        fsm->phase = CALL_TAKEN;
        call_step_push(step, CALL_DO_TAKEN, CALL_WHY_NONE);
    }
    if (!fsm->is_attaching) {
        call_taken_attach(step);
    }
}

/* A callee that does not know how to send again is no loss as long as nothing is missing. */
static void on_not_kept(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    bool is_missing = fsm->gap_since != INT64_MAX;
    if (fsm->lease_ms) {
        call_step_end(step, fsm->is_cancelling ? CALL_WHY_CANCELED : CALL_WHY_NOT_KEPT);
    } else if (step->event->code == AMP_NO_SUCH_TASK) {
        if (fsm->was_down || is_missing) {
            call_step_end(step, CALL_WHY_MISSED_END);
        } else {
            failover_or_end(step, CALL_WHY_UNKNOWN);
        }
    } else if (step->event->code == AMP_FRAMES_LOST || is_missing) {
        call_taken_break_off(step, CALL_WHY_GAP);
    } else {
        fsm->is_attaching = false;
        fsm->ping_at = step->now;
    }
}

void call_taken_not_attached(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    uint32_t most_ms = fsm->lease_ms ? CALL_ATTACH_LEASED_MS : CALL_ATTACH_MAX_MS;
    if (step->event->kind != CALL_EV_NO_RESPONDERS) {
        on_not_kept(step);
    } else if (!call_step_is_just_back(step) && step->now - fsm->heard_at >= most_ms) {
        failover_or_end(step, CALL_WHY_GONE);
    }
}

void call_taken_pong(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (fsm->phase != CALL_TAKEN) {
        return;
    }
    if (step->event->kind == CALL_EV_PONG_NONE && call_step_is_just_back(step)) {
        return; /* as if it had not answered */
    }
    fsm->pings_open = 0;
    heard(step);
    if (step->event->kind == CALL_EV_PONG_NONE) {
        failover_or_end(step, CALL_WHY_GONE);
    } else if (step->event->kind == CALL_EV_PONG_UNKNOWN && fsm->was_down) {
        call_step_end(step, CALL_WHY_MISSED_END);
    } else if (step->event->kind == CALL_EV_PONG_UNKNOWN) {
        failover_or_end(step, CALL_WHY_UNKNOWN);
    } else if (step->event->kind == CALL_EV_PONG) {
        fsm->ended_pongs = 0;
    } else if ((step->event->kind == CALL_EV_PONG_ENDED || fsm->lease_ms) && ++fsm->ended_pongs >= CALL_ENDED_PONGS_MAX && !fsm->is_attaching) {
        if (!fsm->lease_ms && fsm->gap_since == INT64_MAX) {
            fsm->gap_since = step->now; /* the end itself */
        }
        call_taken_attach(step);
    }
}

/* The holder of the lease said something elsewhere. */
void call_taken_heard(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (fsm->phase != CALL_TAKEN) {
        return;
    }
    fsm->heard_at = step->now;
    if (step->event->kind == CALL_EV_LOST_TRACK && !fsm->is_attaching) {
        call_taken_attach(step);
    }
}

/* Right after the bus came back the callee may still be on its way there. */
static bool is_hung(const struct step *step)
{
    const struct call_fsm *fsm = step->fsm;
    uint32_t most = call_fsm_may_retry(fsm) && fsm->may_retry && !(fsm->is_attaching && call_step_is_just_back(step)) ? CALL_PINGS_RETRY : CALL_PINGS_OPEN_MAX;
    return fsm->pings_open >= most && !fsm->lease_ms;
}

static void ping(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (is_hung(step)) {
        failover_or_end(step, CALL_WHY_HUNG);
        return;
    }
    fsm->pings_open++;
    fsm->ping_at = step->now + ping_every_ms(fsm);
    call_step_push(step, CALL_DO_PUBLISH_PING, CALL_WHY_NONE);
}

int64_t call_taken_lapses_at(const struct call_fsm *fsm)
{
    return fsm->phase == CALL_TAKEN && fsm->lease_ms ? fsm->heard_at + fsm->lease_ms + CALL_LEASE_GRACE_MS : INT64_MAX;
}

/* Nobody is told to stop when a lease has lapsed: its holder hears nothing, or asks before it goes on. */
void call_taken_timer(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (fsm->lease_ms && step->now - fsm->timer_at >= CALL_STALL_MS) {
        fsm->heard_at = step->now; /* what the holder said meanwhile is not read yet */
    }
    if (step->now >= call_taken_lapses_at(fsm)) {
        call_step_end(step, fsm->is_cancelling ? CALL_WHY_CANCELED : CALL_WHY_LAPSED);
    } else if (fsm->gap_since != INT64_MAX && step->now - fsm->gap_since >= CALL_GAP_MAX_MS && (fsm->lease_ms || !is_silent(step))) {
        call_taken_break_off(step, CALL_WHY_GAP);
    } else if (fsm->is_attaching && step->now >= fsm->attach_at && is_hung(step)) {
        failover_or_end(step, CALL_WHY_HUNG);
    } else if (fsm->is_attaching && step->now >= fsm->attach_at) {
        fsm->pings_open++;
        call_taken_attach(step);
    } else if (!fsm->is_attaching && step->now >= fsm->ping_at) {
        ping(step);
    }
}
