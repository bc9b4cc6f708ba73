/* Inside of the machine of a call: call_fsm.c (up to the moment when somebody takes it, and the table of events), call_fsm_taken.c (from then on), call_wait.c (nobody was free),
 * call_failover.c (what comes after an attempt that failed). */
#pragma once
#include "base/call_fsm.h"

/* One step at work: the actions so far. */
struct step {
    struct call_fsm *fsm;
    const struct call_event *event;
    int64_t now;
    struct call_action *actions;
    size_t count;
};

struct call_action *call_step_push(struct step *step, enum call_action_kind kind, enum call_why why);
void call_step_end(struct step *step, enum call_why why);
/* A bus that was started anew is found again by everybody in their own time. */
bool call_step_is_just_back(const struct step *step);

void call_taken_attach(struct step *step);
void call_taken_frame(struct step *step);
void call_taken_gap(struct step *step);
void call_taken_not_attached(struct step *step);
void call_taken_pong(struct step *step);
void call_taken_heard(struct step *step);
void call_taken_timer(struct step *step);
int64_t call_taken_lapses_at(const struct call_fsm *fsm); /* INT64_MAX: never */
/* Nobody will read what the callee still does. */
void call_taken_break_off(struct step *step, enum call_why why);

void step_publish(struct step *step, bool is_turn);
void step_send(struct step *step);      /* to whoever is free */

bool step_may_queue(const struct step *step);
void step_queue(struct step *step);
void step_ask(struct step *step);
void step_back_off(struct step *step);
void step_wait_busy(struct step *step);
void step_send_again(struct step *step); /* after an instance that could not take it */
void wait_queued(struct step *step);
void wait_turn(struct step *step);
void wait_no_turns(struct step *step);
void wait_go_there(struct step *step, bool is_named); /* it is our turn */

/* The attempt is over by `why`: an instance is looked for that can have the next one, if there may be one. */
void failover_or_end(struct step *step, enum call_why why);
bool failover_is_past(const struct call_fsm *fsm); /* this attempt has failed, whatever is still said of it */
/* The same for a last frame that says so. False: it is to be delivered as it is. */
bool failover_frame(struct step *step, bool is_first);
void failover_seek(struct step *step);
void failover_who(struct step *step);
void failover_timer(struct step *step);
void failover_conflict(struct step *step);
void failover_turn(struct step *step);
void failover_denied(struct step *step);
