#include "call_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

void machine_begin(struct machine *machine, uint32_t timeout_ms, bool is_impatient)
{
    machine->now = MACHINE_NOW;
    call_fsm_init(&machine->fsm, timeout_ms, is_impatient, 7, machine->now);
}

void machine_feed(struct machine *machine, struct call_event event)
{
    machine->count = call_fsm_step(&machine->fsm, &event, machine->now, machine->actions);
}

void machine_say(struct machine *machine, enum call_event_kind kind)
{
    machine_feed(machine, (struct call_event){.kind = kind});
}

void machine_say_frame(struct machine *machine, bool is_last)
{
    machine_feed(machine, (struct call_event){.kind = CALL_EV_FRAME, .is_last = is_last});
}

const struct call_action *machine_find(const struct machine *machine, enum call_action_kind kind)
{
    for (size_t i = 0; i < machine->count; i++) {
        if (machine->actions[i].kind == kind) {
            return &machine->actions[i];
        }
    }
    return NULL;
}

void assert_does(const struct machine *machine, enum call_action_kind kind)
{
    assert_non_null(machine_find(machine, kind));
}

void assert_does_not(const struct machine *machine, enum call_action_kind kind)
{
    assert_null(machine_find(machine, kind));
}

void assert_ends(const struct machine *machine, enum call_why why)
{
    const struct call_action *end = machine_find(machine, CALL_DO_END);
    assert_non_null(end);
    assert_int_equal(end->why, why);
    assert_int_equal(machine->fsm.phase, CALL_ENDED);
}

void machine_wait_for_timer(struct machine *machine)
{
    const struct call_action *timer = machine_find(machine, CALL_DO_SET_TIMER);
    assert_non_null(timer);
    machine->now += timer->in_ms;
    machine_say(machine, CALL_EV_TIMER);
}
