/* Inside of the machine of a call: call_fsm.c (up to the moment when somebody takes it, and the table of events), call_fsm_taken.c (from then on). */
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
