/* When an attempt has failed: may there be another, and at which instance? The bus picks without knowing who failed, or stands still and does not answer; so whoever answers "I am here,
 * and have room" is named. amp.md 5.6 */
#include "base/call_fsm_private.h"

#include "base/seeded.h"

void call_fsm_retry(struct call_fsm *fsm)
{
    fsm->retries = CALL_ATTEMPTS_MAX - 1;
}

void call_fsm_wary(struct call_fsm *fsm)
{
    fsm->is_wary = true;
}

bool call_fsm_may_retry(const struct call_fsm *fsm)
{
    return fsm->retries > 0 && !fsm->is_shown && !fsm->is_cancelling && !SEEDED_BUG("left-alone");
}

void failover_seek(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    fsm->phase = CALL_SEEKING;
    fsm->asked_at = step->now;
    fsm->seek_by = step->now + CALL_SEEK_MAX_MS;
    fsm->seeks = fsm->fulls = 0;
    call_step_push(step, CALL_DO_PUBLISH_WHO, CALL_WHY_NONE);
}

/* Silence says nothing about who has it, nor whether he would allow it: that is asked first (failover_who). */
static bool begin(struct step *step, enum call_why why)
{
    struct call_fsm *fsm = step->fsm;
    if (!call_fsm_may_retry(fsm) || (why != CALL_WHY_NO_ACK && !fsm->may_retry && !SEEDED_BUG("retried-once")))
        return false;
    fsm->is_broken = fsm->is_wary = true;
    fsm->broken = why;
    call_step_push(step, CALL_DO_BROKEN, why);
    failover_seek(step);
    return true;
}

void failover_or_end(struct step *step, enum call_why why)
{
    if (!begin(step, why))
        call_step_end(step, why);
}

/* Of one that only did not answer nobody knows. */
bool failover_is_past(const struct call_fsm *fsm)
{
    return fsm->phase == CALL_SEEKING && fsm->is_broken && fsm->broken != CALL_WHY_NO_ACK;
}

static void next_attempt(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (!fsm->is_broken)
        return;
    fsm->retries -= !step->event->is_load; /* an agent that is busy may be so for long */
    fsm->is_broken = fsm->may_retry = fsm->was_down = fsm->has_turn = fsm->is_attaching = false;
    fsm->gap_since = INT64_MAX;
    fsm->attach_ms = CALL_ATTACH_EVERY_MS;
    fsm->pings_open = fsm->ended_pongs = fsm->bounces = 0;
    fsm->attempt++;
    call_step_push(step, CALL_DO_RETRY, fsm->broken);
}

bool failover_frame(struct step *step, bool is_first)
{
    struct call_fsm *fsm = step->fsm;
    const struct call_event *event = step->event;
    bool may_follow = call_fsm_may_retry(fsm) && !event->is_shown && fsm->may_retry && !(event->is_load && fsm->is_impatient);
    if (!may_follow || !(event->is_broken || event->is_load))
        return false;
    if (is_first)
        call_step_push(step, CALL_DO_TAKEN, CALL_WHY_NONE);
    call_step_push(step, CALL_DO_DELIVER, CALL_WHY_BROKEN);
    if (event->is_broken)
        return begin(step, CALL_WHY_BROKEN);
    /* It is load, and no failure: as if it had been said before the first frame. */
    call_step_push(step, CALL_DO_BROKEN, CALL_WHY_BUSY);
    uint32_t bounces = fsm->bounces;
    fsm->is_broken = true;
    fsm->broken = CALL_WHY_BROKEN;
    next_attempt(step);
    fsm->bounces = bounces;
    step_send_again(step);
    return true;
}

static void ask_again(struct step *step)
{
    step->fsm->asked_at = step->now;
    call_step_push(step, CALL_DO_PUBLISH_WHO, CALL_WHY_NONE);
}

/* Nobody can have it: what broke the last attempt is the end. */
static void give_up(struct step *step, enum call_why otherwise)
{
    struct call_fsm *fsm = step->fsm;
    call_step_end(step, fsm->broken != CALL_WHY_NONE ? fsm->broken : otherwise);
}

static void take_full(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (++fsm->fulls < CALL_SEEKS_FULL_MAX) {
        ask_again(step);
    } else if (fsm->is_impatient) {
        give_up(step, CALL_WHY_BUSY);
    } else {
        next_attempt(step);
        if (step_may_queue(step))
            step_queue(step);
        else
            step_wait_busy(step);
    }
}

static void take_other(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (++fsm->seeks < CALL_SEEKS_MAX)
        ask_again(step);
    else if (fsm->broken != CALL_WHY_NONE)
        call_step_end(step, fsm->broken);
    else
        step_publish(step, false);
}

void failover_who(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    const struct call_event *event = step->event;
    if (event->kind == CALL_EV_WHO_NONE) {
        if (!call_step_is_just_back(step))
            give_up(step, CALL_WHY_NOBODY);
    } else if (event->is_once && fsm->is_broken && fsm->broken == CALL_WHY_NO_ACK && !SEEDED_BUG("retried-once")) {
        call_step_end(step, CALL_WHY_NO_ACK); /* it may have run there, and must not run twice */
    } else if (event->who == CALL_WHO_FREE) {
        next_attempt(step);
        step_publish(step, true);
    } else if (event->who == CALL_WHO_FULL) {
        take_full(step);
    } else {
        take_other(step);
    }
}

void failover_timer(struct step *step)
{
    struct call_fsm *fsm = step->fsm;
    if (step->now < fsm->seek_by) {
        if (step->now - fsm->asked_at >= CALL_SEEK_EVERY_MS)
            ask_again(step);
    } else if (fsm->broken != CALL_WHY_NONE) {
        call_step_end(step, fsm->broken);
    } else {
        step_publish(step, false); /* they are slow: as if nothing were known */
    }
}

void failover_conflict(struct step *step)
{
    call_step_push(step, CALL_DO_REFUSED, CALL_WHY_NONE);
    failover_seek(step);
}

void failover_turn(struct step *step)
{
    if (!step->fsm->is_broken && step->event->is_named)
        step_publish(step, true);
}

void failover_denied(struct step *step)
{
    give_up(step, CALL_WHY_DENIED);
}
