/* The machine of a call with its time at hand, for tests: no clock, no bus. A failure ends the test. */
#pragma once
#include "base/call_fsm.h"

#define MACHINE_NOW 1000000

struct machine {
    struct call_fsm fsm;
    struct call_action actions[CALL_ACTIONS_MAX];
    size_t count;
    int64_t now;
};

void machine_begin(struct machine *machine, uint32_t timeout_ms, bool is_impatient);
void machine_feed(struct machine *machine, struct call_event event);
void machine_say(struct machine *machine, enum call_event_kind kind);
void machine_say_frame(struct machine *machine, bool is_last);
/* Of the last step; NULL: it was not done. */
const struct call_action *machine_find(const struct machine *machine, enum call_action_kind kind);
void assert_does(const struct machine *machine, enum call_action_kind kind);
void assert_does_not(const struct machine *machine, enum call_action_kind kind);
void assert_ends(const struct machine *machine, enum call_why why);
/* Lets the time of its own timer pass. */
void machine_wait_for_timer(struct machine *machine);
