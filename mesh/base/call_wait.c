/* Nobody was free: the call asks for a turn, or tries again and again. amp.md 5.3, 10.14 */
#include "base/call_fsm_private.h"

/* xorshift32: jitter needs no more. */
static uint32_t draw(struct call_fsm *fsm, uint32_t below)
{
    fsm->random ^= fsm->random << 13;
    fsm->random ^= fsm->random >> 17;
    fsm->random ^= fsm->random << 5;
    return fsm->random % below;
}

/* Who has no environment to ask tries again and again, from time to time. */
bool step_may_queue(const struct step *step)
{
    return step->fsm->may_queue && step->now >= step->fsm->alone_until;
}

void step_queue(struct step *step)
{
    step->fsm->phase = CALL_QUEUING;
    step->fsm->asked_at = step->now;
    call_step_push(step, CALL_DO_PUBLISH_WAIT, CALL_WHY_NONE);
}

void step_ask(struct step *step)
{
    step->fsm->phase = CALL_ASKING;
    step->fsm->asked_at = step->now;
    call_step_push(step, CALL_DO_PUBLISH_WHO, CALL_WHY_NONE);
}

/* Half of the wait is fixed and half is drawn, so that callers who were refused together do not come back together. */
void step_back_off(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    fsm->phase = CALL_WAITING;
    fsm->bounces = 0;
    fsm->retry_at = step->now + fsm->backoff_ms / 2 + draw(fsm, fsm->backoff_ms / 2 + 1) + 1;
    fsm->backoff_ms = fsm->backoff_ms * 2 < CALL_BACKOFF_MAX_MS ? fsm->backoff_ms * 2 : CALL_BACKOFF_MAX_MS;
}

static void say_busy(struct step *step)
{
    if (!step->fsm->has_said_busy) {
        step->fsm->has_said_busy = true;
        call_step_push(step, CALL_DO_SAY_WAITING, CALL_WHY_BUSY);
    }
}

void step_wait_busy(struct step *step)
{
    if (step->fsm->is_impatient) {
        call_step_end(step, CALL_WHY_BUSY);
        return;
    }
    step_back_off(step);
    say_busy(step);
}

void wait_queued(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (fsm->phase != CALL_QUEUING)
        return;
    fsm->phase = CALL_WAITING;
    fsm->bounces = 0;
    fsm->retry_at = step->now + CALL_TURN_MS;
    say_busy(step);
}

void wait_go_there(struct step *step, bool is_named)
{
    if (is_named || !step->fsm->is_wary)
        step_publish(step, true);
    else
        failover_seek(step);
}

/* Told while the request is on its way anyway: it is used if that was in vain. */
void wait_turn(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (fsm->phase == CALL_QUEUING || (fsm->phase == CALL_WAITING && !fsm->is_down)) {
        wait_go_there(step, step->event->is_named);
    } else if (fsm->phase == CALL_SENT || fsm->phase == CALL_ASKING) {
        fsm->has_turn = true;
        fsm->is_turn_named = step->event->is_named;
    } else if (fsm->phase == CALL_SEEKING) {
        failover_turn(step);
    }
}

void wait_no_turns(struct step *step)
{
    if (step->fsm->phase != CALL_QUEUING)
        return;
    step->fsm->alone_until = step->now + CALL_ALONE_MS;
    if (step->fsm->is_wary)
        step_wait_busy(step); /* who is there was asked before */
    else
        step_ask(step);
}

void step_send_again(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (++fsm->bounces <= CALL_BOUNCES_MAX && !fsm->is_turn) {
        step_send(step);
    } else if (step_may_queue(step)) {
        step_queue(step);
    } else {
        step_wait_busy(step);
    }
}
