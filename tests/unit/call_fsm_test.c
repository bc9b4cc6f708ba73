/* The machine of a call, by tables and by random walks: no clock, no bus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "call_machine.h"

/* ---- one table: from a phase, an event, what is done ------------------------------------------------------ */

enum start { FRESH, SENT, ASKING, WAITING, TAKEN, QUEUING, QUEUED, CALLED };

static void bring_to(struct machine *machine, enum start start, uint32_t timeout_ms, bool is_impatient)
{
    machine_begin(machine, timeout_ms, is_impatient);
    if (start >= QUEUING) {
        call_fsm_queue(&machine->fsm);
    }
    if (start >= SENT) {
        machine_say(machine, CALL_EV_START);
    }
    if (start == ASKING || start == WAITING || start >= QUEUING) {
        machine_say(machine, CALL_EV_NO_RESPONDERS);
    }
    if (start == WAITING) {
        machine_say(machine, CALL_EV_WHO_THERE);
    }
    if (start >= QUEUED) {
        machine_say(machine, CALL_EV_QUEUED);
    }
    if (start == CALLED) {
        machine_say(machine, CALL_EV_TURN);
    }
    if (start == TAKEN) {
        machine_say_frame(machine, false);
    }
}

#define DOES(kind) (1u << (CALL_DO_##kind))

static const struct row {
    const char *claim;
    enum start start;
    bool is_impatient;
    struct call_event event;
    unsigned actions; /* without SET_TIMER */
    enum call_phase phase;
    enum call_why why;
} rows[] = {
    {"the start sends", FRESH, false, {.kind = CALL_EV_START}, DOES(PUBLISH_REQUEST), CALL_SENT, 0},
    {"nobody listens: who is there?", SENT, false, {.kind = CALL_EV_NO_RESPONDERS}, DOES(PUBLISH_WHO), CALL_ASKING, 0},
    {"a full instance: again at once", SENT, false, {.kind = CALL_EV_BOUNCED}, DOES(PUBLISH_REQUEST), CALL_SENT, 0},
    {"a refusal ends", SENT, false, {.kind = CALL_EV_REPLY_ERROR}, DOES(END), CALL_ENDED, CALL_WHY_REPLY},
    {"denied ends", SENT, false, {.kind = CALL_EV_DENIED}, DOES(END), CALL_ENDED, CALL_WHY_DENIED},
    {"garbage ends", SENT, false, {.kind = CALL_EV_BAD_ANSWER}, DOES(END), CALL_ENDED, CALL_WHY_BAD_ANSWER},
    {"the first frame is somebody", SENT, false, {.kind = CALL_EV_FRAME}, DOES(TAKEN) | DOES(DELIVER), CALL_TAKEN, 0},
    {"the first frame may be the last", SENT, false, {.kind = CALL_EV_FRAME, .is_last = true}, DOES(TAKEN) | DOES(DELIVER) | DOES(END), CALL_ENDED, CALL_WHY_STREAM},
    {"what is missing before the first frame is asked for", SENT, false, {.kind = CALL_EV_FRAME_GAP}, DOES(TAKEN) | DOES(PUBLISH_ATTACH), CALL_TAKEN, 0},
    {"too large ends", SENT, false, {.kind = CALL_EV_NOT_PUBLISHED, .action = CALL_DO_PUBLISH_REQUEST, .code = AMP_TOO_LARGE}, DOES(END), CALL_ENDED, CALL_WHY_REFUSED},
    {"a full output is waited for", SENT, false, {.kind = CALL_EV_NOT_PUBLISHED, .action = CALL_DO_PUBLISH_REQUEST, .code = AMP_OVERLOADED}, 0, CALL_WAITING, 0},
    {"an absent bus is waited for", SENT, false, {.kind = CALL_EV_NOT_PUBLISHED, .action = CALL_DO_PUBLISH_REQUEST, .code = AMP_NO_BUS}, DOES(SAY_WAITING), CALL_WAITING, 0},
    {"a cancel waits for the first answer", SENT, false, {.kind = CALL_EV_CANCEL}, 0, CALL_SENT, 0},
    {"nobody of that name", ASKING, false, {.kind = CALL_EV_WHO_NONE}, DOES(END), CALL_ENDED, CALL_WHY_NOBODY},
    {"somebody, but busy: wait", ASKING, false, {.kind = CALL_EV_WHO_THERE}, DOES(SAY_WAITING), CALL_WAITING, 0},
    {"somebody, but busy, no patience", ASKING, true, {.kind = CALL_EV_WHO_THERE}, DOES(END), CALL_ENDED, CALL_WHY_BUSY},
    {"a frame of an earlier try is an answer", ASKING, false, {.kind = CALL_EV_FRAME}, DOES(TAKEN) | DOES(DELIVER), CALL_TAKEN, 0},
    {"a cancel while asking ends", ASKING, false, {.kind = CALL_EV_CANCEL}, DOES(END), CALL_ENDED, CALL_WHY_CANCELED},
    {"the bus goes with the question: to be sent again", ASKING, false, {.kind = CALL_EV_BUS_DOWN}, DOES(SAY_WAITING), CALL_WAITING, 0},
    {"a cancel while waiting ends", WAITING, false, {.kind = CALL_EV_CANCEL}, DOES(END), CALL_ENDED, CALL_WHY_CANCELED},
    {"frames are delivered", TAKEN, false, {.kind = CALL_EV_FRAME}, DOES(DELIVER), CALL_TAKEN, 0},
    {"the last frame ends", TAKEN, false, {.kind = CALL_EV_FRAME, .is_last = true}, DOES(DELIVER) | DOES(END), CALL_ENDED, CALL_WHY_STREAM},
    {"what is missing is asked for", TAKEN, false, {.kind = CALL_EV_FRAME_GAP}, DOES(PUBLISH_ATTACH), CALL_TAKEN, 0},
    {"taken: no responders mean nothing", TAKEN, false, {.kind = CALL_EV_NO_RESPONDERS}, 0, CALL_TAKEN, 0},
    {"taken: a bounce means nothing", TAKEN, false, {.kind = CALL_EV_BOUNCED}, 0, CALL_TAKEN, 0},
    {"taken: a refusal means nothing", TAKEN, false, {.kind = CALL_EV_REPLY_ERROR}, 0, CALL_TAKEN, 0},
    {"the callee lives", TAKEN, false, {.kind = CALL_EV_PONG}, 0, CALL_TAKEN, 0},
    {"the callee is gone", TAKEN, false, {.kind = CALL_EV_PONG_NONE}, DOES(END), CALL_ENDED, CALL_WHY_GONE},
    {"the callee was started anew", TAKEN, false, {.kind = CALL_EV_PONG_UNKNOWN}, DOES(END), CALL_ENDED, CALL_WHY_UNKNOWN},
    {"it waits for its turn", QUEUING, false, {.kind = CALL_EV_QUEUED}, DOES(SAY_WAITING), CALL_WAITING, 0},
    {"it is its turn already", QUEUING, false, {.kind = CALL_EV_TURN}, DOES(PUBLISH_REQUEST), CALL_SENT, 0},
    {"no environment: who is there?", QUEUING, false, {.kind = CALL_EV_NO_TURNS}, DOES(PUBLISH_WHO), CALL_ASKING, 0},
    {"no room to wait", QUEUING, false, {.kind = CALL_EV_TURN_REFUSED}, DOES(END), CALL_ENDED, CALL_WHY_REPLY},
    {"a cancel while it asks for a turn", QUEUING, false, {.kind = CALL_EV_CANCEL}, DOES(END), CALL_ENDED, CALL_WHY_CANCELED},
    {"the bus goes meanwhile", QUEUING, false, {.kind = CALL_EV_BUS_DOWN}, DOES(SAY_WAITING), CALL_WAITING, 0},
    {"its turn", QUEUED, false, {.kind = CALL_EV_TURN}, DOES(PUBLISH_REQUEST), CALL_SENT, 0},
    {"it is told twice where it is", QUEUED, false, {.kind = CALL_EV_QUEUED}, 0, CALL_WAITING, 0},
    {"a turn that nobody is there for any more", CALLED, false, {.kind = CALL_EV_NO_RESPONDERS}, DOES(PUBLISH_WAIT), CALL_QUEUING, 0},
    {"somebody else has the slot", CALLED, false, {.kind = CALL_EV_BOUNCED}, DOES(PUBLISH_WAIT), CALL_QUEUING, 0},
    {"another turn while the request is out", CALLED, false, {.kind = CALL_EV_TURN}, 0, CALL_SENT, 0},
    {"taken: a turn means nothing", TAKEN, false, {.kind = CALL_EV_TURN}, 0, CALL_TAKEN, 0},
    {"a cancel is passed on", TAKEN, false, {.kind = CALL_EV_CANCEL}, DOES(PUBLISH_CANCEL), CALL_TAKEN, 0},
};

static void test_each_event_does_what_the_table_says(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct machine machine;
        bring_to(&machine, rows[i].start, 0, rows[i].is_impatient);
        machine_feed(&machine, rows[i].event);
        unsigned actions = 0;
        for (size_t j = 0; j < machine.count; j++) {
            actions |= 1u << machine.actions[j].kind;
        }
        actions &= ~DOES(SET_TIMER);
        if (actions != rows[i].actions || machine.fsm.phase != rows[i].phase) {
            fail_msg("%s: actions %x (want %x), phase %d (want %d)", rows[i].claim, actions, rows[i].actions, machine.fsm.phase, rows[i].phase);
        }
        if (rows[i].phase == CALL_ENDED) {
            assert_ends(&machine, rows[i].why);
        }
    }
}

static void test_a_turn_that_comes_while_the_request_is_out_is_used_when_that_was_in_vain(void **state)
{
    struct machine machine;
    bring_to(&machine, CALLED, 0, false);
    machine_say(&machine, CALL_EV_TURN);
    machine_say(&machine, CALL_EV_NO_RESPONDERS);
    assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
    assert_true(machine.fsm.is_turn);
    machine_say(&machine, CALL_EV_NO_RESPONDERS);
    assert_does(&machine, CALL_DO_PUBLISH_WAIT); /* once */
}

static void test_who_waits_for_its_turn_tries_by_itself_each_second_and_says_that_it_waits(void **state)
{
    struct machine machine;
    bring_to(&machine, QUEUED, 0, false);
    for (int i = 0; i < 5; i++) {
        int64_t before = machine.now;
        machine_wait_for_timer(&machine);
        assert_int_equal(machine.now - before, CALL_TURN_MS);
        assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
        assert_false(machine.fsm.is_turn);
        machine_say(&machine, CALL_EV_NO_RESPONDERS);
        assert_does(&machine, CALL_DO_PUBLISH_WAIT);
        machine_say(&machine, CALL_EV_QUEUED);
        assert_does_not(&machine, CALL_DO_SAY_WAITING);
    }
}

static void test_an_environment_that_does_not_answer_is_done_without_for_a_while(void **state)
{
    struct machine machine;
    bring_to(&machine, QUEUING, 0, false);
    machine_wait_for_timer(&machine);
    assert_int_equal(machine.now - MACHINE_NOW, CALL_TURN_SILENCE_MS);
    assert_does(&machine, CALL_DO_PUBLISH_WHO);
    machine_say(&machine, CALL_EV_WHO_THERE);
    while (machine.now - MACHINE_NOW < CALL_TURN_SILENCE_MS + CALL_ALONE_MS) {
        machine_wait_for_timer(&machine);
        machine_say(&machine, CALL_EV_NO_RESPONDERS);
        if (machine.fsm.phase == CALL_ASKING)
            machine_say(&machine, CALL_EV_WHO_THERE);
    }
    assert_int_equal(machine.fsm.phase, CALL_QUEUING);
}

static void test_an_impatient_call_never_waits_for_a_turn(void **state)
{
    struct machine machine;
    bring_to(&machine, FRESH, 0, true);
    call_fsm_queue(&machine.fsm);
    machine_say(&machine, CALL_EV_START);
    machine_say(&machine, CALL_EV_NO_RESPONDERS);
    machine_say(&machine, CALL_EV_WHO_THERE);
    assert_ends(&machine, CALL_WHY_BUSY);
}

/* ---- over time -------------------------------------------------------------------------------------------- */

static void test_a_busy_agent_is_tried_again_sooner_at_first_and_at_most_every_quarter_second(void **state)
{
    struct machine machine;
    bring_to(&machine, WAITING, 0, false);
    int64_t first = machine.fsm.retry_at - machine.now;
    assert_in_range(first, 1, CALL_BACKOFF_MIN_MS + 1);
    for (int i = 0; i < 20; i++) {
        machine_wait_for_timer(&machine);
        assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
        machine_say(&machine, CALL_EV_NO_RESPONDERS);
        if (machine.fsm.phase == CALL_ASKING) {
            machine_say(&machine, CALL_EV_WHO_THERE);
        }
        assert_does_not(&machine, CALL_DO_SAY_WAITING); /* said once */
        assert_int_equal(machine.fsm.phase, CALL_WAITING);
        assert_in_range(machine.fsm.retry_at - machine.now, 1, CALL_BACKOFF_MAX_MS + 1);
    }
    assert_true(machine.fsm.retry_at - machine.now >= CALL_BACKOFF_MAX_MS / 2);
}

static void test_an_agent_that_leaves_while_it_is_waited_for_is_noticed_within_a_second_and_a_quarter(void **state)
{
    struct machine machine;
    bring_to(&machine, WAITING, 0, false);
    while (machine.fsm.phase != CALL_ENDED) {
        machine_wait_for_timer(&machine);
        machine_say(&machine, CALL_EV_NO_RESPONDERS);
        if (machine.fsm.phase == CALL_ASKING) {
            machine_say(&machine, CALL_EV_WHO_NONE);
        }
        assert_true(machine.now - MACHINE_NOW <= CALL_WHO_EVERY_MS + CALL_BACKOFF_MAX_MS + 1);
    }
    assert_ends(&machine, CALL_WHY_NOBODY);
}

static void test_more_than_a_few_full_instances_count_as_busy(void **state)
{
    struct machine machine;
    bring_to(&machine, SENT, 0, true);
    for (unsigned i = 0; i < CALL_BOUNCES_MAX; i++) {
        machine_say(&machine, CALL_EV_BOUNCED);
        assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
    }
    machine_say(&machine, CALL_EV_BOUNCED);
    assert_ends(&machine, CALL_WHY_BUSY);
}

static void test_a_request_without_answer_is_never_sent_again_by_itself(void **state)
{
    struct machine machine;
    bring_to(&machine, SENT, 0, false);
    machine_wait_for_timer(&machine);
    assert_int_equal(machine.now - MACHINE_NOW, CALL_SILENCE_MS);
    assert_ends(&machine, CALL_WHY_NO_ACK);
}

static void test_silence_of_the_callee_is_pinged_each_second_and_frames_put_it_off(void **state)
{
    struct machine machine;
    bring_to(&machine, TAKEN, 0, false);
    machine.now += CALL_PING_EVERY_MS - 1;
    machine_say(&machine, CALL_EV_TIMER);
    assert_does_not(&machine, CALL_DO_PUBLISH_PING);
    machine_say_frame(&machine, false);
    for (int i = 0; i < 50; i++) {
        machine_wait_for_timer(&machine);
        assert_does(&machine, CALL_DO_PUBLISH_PING);
        assert_int_equal(machine_find(&machine, CALL_DO_SET_TIMER)->in_ms, CALL_PING_EVERY_MS);
        machine_say(&machine, CALL_EV_PONG);
    }
}

static void test_a_sidecar_that_hangs_is_given_up_after_ten_pings(void **state)
{
    struct machine machine;
    bring_to(&machine, TAKEN, 0, false);
    for (unsigned i = 0; i < CALL_PINGS_OPEN_MAX; i++) {
        machine_wait_for_timer(&machine);
        assert_does(&machine, CALL_DO_PUBLISH_PING);
    }
    machine_wait_for_timer(&machine);
    assert_ends(&machine, CALL_WHY_HUNG);
}

static void test_the_deadline_is_kept_in_every_phase_and_says_which_it_was(void **state)
{
    static const enum call_phase phases[] = {[SENT] = CALL_SENT, [ASKING] = CALL_ASKING, [WAITING] = CALL_WAITING, [TAKEN] = CALL_TAKEN};
    for (enum start start = SENT; start <= TAKEN; start++) {
        struct machine machine;
        bring_to(&machine, start, 500, false);
        machine.now = MACHINE_NOW + 500;
        machine_say(&machine, CALL_EV_TIMER);
        assert_ends(&machine, CALL_WHY_DEADLINE);
        assert_int_equal(machine_find(&machine, CALL_DO_END)->phase, phases[start]);
        assert_int_equal(machine_find(&machine, CALL_DO_PUBLISH_CANCEL) != NULL, start == TAKEN);
    }
}

static void test_a_cancel_that_comes_before_the_first_frame_reaches_whoever_took_it(void **state)
{
    struct machine machine;
    bring_to(&machine, SENT, 0, false);
    machine_say(&machine, CALL_EV_CANCEL);
    machine_say_frame(&machine, false);
    assert_does(&machine, CALL_DO_TAKEN);
    assert_does(&machine, CALL_DO_PUBLISH_CANCEL);
    bring_to(&machine, SENT, 0, false);
    machine_say(&machine, CALL_EV_CANCEL);
    machine_say(&machine, CALL_EV_BOUNCED);
    assert_ends(&machine, CALL_WHY_CANCELED);
}

static void test_a_cancelled_task_that_does_not_end_is_let_go_after_ten_seconds(void **state)
{
    struct machine machine;
    bring_to(&machine, TAKEN, 0, false);
    machine_say(&machine, CALL_EV_CANCEL);
    while (machine.fsm.phase != CALL_ENDED) {
        machine_wait_for_timer(&machine);
        machine_say(&machine, machine.fsm.phase == CALL_ENDED ? CALL_EV_TIMER : CALL_EV_PONG);
        if (machine.now - MACHINE_NOW >= CALL_CANCEL_MAX_MS) {
            break;
        }
    }
    assert_int_equal(machine.now - MACHINE_NOW, CALL_CANCEL_MAX_MS);
    assert_int_equal(machine.fsm.phase, CALL_ENDED);
}

static void test_a_short_loss_of_the_bus_is_survived_and_a_long_one_is_an_error(void **state)
{
    struct machine machine;
    bring_to(&machine, TAKEN, 0, false);
    machine_say(&machine, CALL_EV_BUS_DOWN);
    assert_does(&machine, CALL_DO_SAY_WAITING);
    machine.now += CALL_DOWN_MAX_MS - 1;
    machine_say(&machine, CALL_EV_TIMER);
    assert_does_not(&machine, CALL_DO_PUBLISH_PING);
    machine_say(&machine, CALL_EV_BUS_UP);
    assert_does(&machine, CALL_DO_PUBLISH_ATTACH);
    machine_say_frame(&machine, true);
    assert_ends(&machine, CALL_WHY_STREAM);

    bring_to(&machine, TAKEN, 0, false);
    machine_say(&machine, CALL_EV_BUS_DOWN);
    machine.now += CALL_DOWN_MAX_MS;
    machine_say(&machine, CALL_EV_TIMER);
    assert_ends(&machine, CALL_WHY_NO_BUS);
}

static void test_a_task_that_ended_while_the_bus_was_away_is_lost_frames_and_no_lost_instance(void **state)
{
    struct machine machine;
    bring_to(&machine, TAKEN, 0, false);
    machine_say(&machine, CALL_EV_BUS_DOWN);
    machine_say(&machine, CALL_EV_BUS_UP);
    machine_say(&machine, CALL_EV_PONG_UNKNOWN);
    assert_ends(&machine, CALL_WHY_MISSED_END);
}

static void test_absence_right_after_the_bus_came_back_is_not_believed(void **state)
{
    struct machine machine;
    bring_to(&machine, TAKEN, 0, false);
    machine_say(&machine, CALL_EV_BUS_DOWN);
    machine_say(&machine, CALL_EV_BUS_UP);
    int64_t back = machine.now;
    while (machine.fsm.phase != CALL_ENDED) {
        assert_true(machine.now - back < CALL_RETURN_MS + CALL_PING_EVERY_MS);
        machine_wait_for_timer(&machine);
        machine_say(&machine, CALL_EV_PONG_NONE);
    }
    assert_ends(&machine, CALL_WHY_GONE);
    assert_true(machine.now - back >= CALL_RETURN_MS);

    bring_to(&machine, ASKING, 0, false);
    machine_say(&machine, CALL_EV_BUS_DOWN);
    machine_say(&machine, CALL_EV_BUS_UP);
    machine_say(&machine, CALL_EV_NO_RESPONDERS);
    machine.now += CALL_WHO_EVERY_MS;
    machine_say(&machine, CALL_EV_TIMER);
    if (machine.fsm.phase == CALL_SENT) {
        machine_say(&machine, CALL_EV_NO_RESPONDERS);
    }
    assert_int_equal(machine.fsm.phase, CALL_ASKING);
    machine_say(&machine, CALL_EV_WHO_NONE);
    assert_int_equal(machine.fsm.phase, CALL_WAITING);
}

static void test_an_ended_task_whose_end_marker_stays_out_is_lost_frames(void **state)
{
    struct machine machine;
    bring_to(&machine, TAKEN, 0, false);
    machine_say(&machine, CALL_EV_PONG_ENDED); /* the marker may be right behind */
    assert_int_equal(machine.fsm.phase, CALL_TAKEN);
    machine_say(&machine, CALL_EV_PONG_ENDED);
    assert_does(&machine, CALL_DO_PUBLISH_ATTACH);
    machine_feed(&machine, (struct call_event){.kind = CALL_EV_REPLY_ERROR, .code = AMP_NO_SUCH_TASK}); /* not kept any more */
    assert_ends(&machine, CALL_WHY_MISSED_END);
}

static void test_a_request_that_nobody_took_goes_out_when_the_bus_is_back(void **state)
{
    struct machine machine;
    bring_to(&machine, SENT, 0, false);
    machine_feed(&machine, (struct call_event){.kind = CALL_EV_NOT_PUBLISHED, .action = CALL_DO_PUBLISH_REQUEST, .code = AMP_NO_BUS});
    machine.now += 300;
    machine_say(&machine, CALL_EV_TIMER);
    assert_does_not(&machine, CALL_DO_PUBLISH_REQUEST);
    machine_say(&machine, CALL_EV_BUS_UP);
    assert_does(&machine, CALL_DO_PUBLISH_REQUEST);
}

/* ---- whatever the order ----------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

static struct call_event random_event(void)
{
    static const enum amp_code codes[] = {AMP_NO_BUS, AMP_OVERLOADED, AMP_TOO_LARGE, AMP_INVALID};
    return (struct call_event){
        .kind = draw(3) == 0 ? CALL_EV_TIMER : (enum call_event_kind)draw(CALL_EV_KINDS),
        .action = (enum call_action_kind)draw(CALL_DO_PUBLISH_CANCEL + 1),
        .code = codes[draw(4)],
        .is_last = draw(8) == 0,
        .is_shown = draw(4) == 0,
        .may_retry = draw(2),
        .is_broken = draw(3) == 0,
        .is_load = draw(4) == 0,
        .is_conflict = draw(2),
        .is_named = draw(2),
        .who = (enum call_who)draw(CALL_WHO_AVOIDED + 1),
        .is_once = draw(2),
    };
}

/* What the frames and answers so far have said. */
struct told {
    bool may_retry, is_shown, is_allowed;
    unsigned attempts, loads;
};

/* Is the request possibly with somebody? After it was sent until an answer says that nobody took it, or another attempt begins: only where everybody allowed one, and nothing was shown. */
static void check_step(const struct machine *machine, struct told *told, const struct call_event *event, bool *is_out, bool *was_taken, unsigned *ends)
{
    assert_true(machine->count <= CALL_ACTIONS_MAX);
    for (size_t i = 0; i < machine->count; i++) {
        enum call_action_kind kind = machine->actions[i].kind;
        assert_int_equal(*ends, 0); /* nothing after the end, within the step and later */
        if (kind == CALL_DO_RETRY) {
            bool is_unanswered = machine->actions[i].why == CALL_WHY_NO_ACK;
            assert_true(told->is_allowed && !told->is_shown);
            assert_true(is_unanswered ? !event->is_once : told->may_retry && *was_taken);
            told->attempts++;
            told->loads += event->kind == CALL_EV_FRAME;
            told->may_retry = false;
            *was_taken = *is_out = false;
        }
        if (kind == CALL_DO_DELIVER && machine->actions[i].why != CALL_WHY_BROKEN)
            told->is_shown |= event->is_shown;
        if (kind == CALL_DO_PUBLISH_REQUEST) {
            assert_false(*was_taken);
            assert_false(*is_out);
            *is_out = true;
        }
        *was_taken |= kind == CALL_DO_TAKEN || kind == CALL_DO_DELIVER;
        *ends += kind == CALL_DO_END;
    }
}

static void test_random_events_never_send_a_taken_request_again_nor_act_after_the_one_end(void **state)
{
    for (unsigned seed = 1; seed <= 4000; seed++) {
        random_state = seed;
        struct machine machine = {.now = MACHINE_NOW};
        call_fsm_init(&machine.fsm, draw(2) ? draw(30000) : 0, draw(2), seed, machine.now);
        struct told told = {.attempts = 1, .is_allowed = draw(2)};
        if (told.is_allowed)
            call_fsm_retry(&machine.fsm);
        else
            call_fsm_lease(&machine.fsm, draw(2) ? 300 + draw(3000) : 0);
        if (draw(4) == 0)
            call_fsm_wary(&machine.fsm);
        if (draw(2))
            call_fsm_queue(&machine.fsm);
        bool is_out = false, was_taken = false;
        unsigned ends = 0;
        struct call_event event = {.kind = CALL_EV_START};
        for (unsigned i = 0; i < 200; i++) {
            bool is_answer = event.kind == CALL_EV_NO_RESPONDERS || event.kind == CALL_EV_BOUNCED ||
                             (event.kind == CALL_EV_NOT_PUBLISHED && event.action == CALL_DO_PUBLISH_REQUEST);
            is_out = is_out && !is_answer;
            told.may_retry |= event.kind == CALL_EV_FRAME && event.may_retry;
            machine_feed(&machine, event);
            check_step(&machine, &told, &event, &is_out, &was_taken, &ends);
            assert_true(told.attempts - told.loads <= CALL_ATTEMPTS_MAX);
            assert_int_equal(ends, machine.fsm.phase == CALL_ENDED);
            assert_true(ends || machine.fsm.phase == CALL_IDLE || machine_find(&machine, CALL_DO_SET_TIMER));
            machine.now += draw(400);
            event = random_event();
        }
    }
}

static void test_every_call_with_a_deadline_ends_by_its_timers_alone(void **state)
{
    for (unsigned seed = 1; seed <= 500; seed++) {
        random_state = seed;
        struct machine machine;
        machine_begin(&machine, 5000, false);
        if (draw(2))
            call_fsm_queue(&machine.fsm);
        if (draw(2))
            call_fsm_retry(&machine.fsm);
        machine_say(&machine, CALL_EV_START);
        for (unsigned i = draw(10); i > 0 && machine.fsm.phase != CALL_ENDED; i--) {
            machine_feed(&machine, random_event());
        }
        for (unsigned i = 0; i < 1000 && machine.fsm.phase != CALL_ENDED; i++) {
            machine_wait_for_timer(&machine);
        }
        assert_int_equal(machine.fsm.phase, CALL_ENDED);
        assert_true(machine.now - MACHINE_NOW <= 5000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_event_does_what_the_table_says),
        cmocka_unit_test(test_a_turn_that_comes_while_the_request_is_out_is_used_when_that_was_in_vain),
        cmocka_unit_test(test_who_waits_for_its_turn_tries_by_itself_each_second_and_says_that_it_waits),
        cmocka_unit_test(test_an_environment_that_does_not_answer_is_done_without_for_a_while),
        cmocka_unit_test(test_an_impatient_call_never_waits_for_a_turn),
        cmocka_unit_test(test_a_busy_agent_is_tried_again_sooner_at_first_and_at_most_every_quarter_second),
        cmocka_unit_test(test_an_agent_that_leaves_while_it_is_waited_for_is_noticed_within_a_second_and_a_quarter),
        cmocka_unit_test(test_more_than_a_few_full_instances_count_as_busy),
        cmocka_unit_test(test_a_request_without_answer_is_never_sent_again_by_itself),
        cmocka_unit_test(test_silence_of_the_callee_is_pinged_each_second_and_frames_put_it_off),
        cmocka_unit_test(test_a_sidecar_that_hangs_is_given_up_after_ten_pings),
        cmocka_unit_test(test_the_deadline_is_kept_in_every_phase_and_says_which_it_was),
        cmocka_unit_test(test_a_cancel_that_comes_before_the_first_frame_reaches_whoever_took_it),
        cmocka_unit_test(test_a_cancelled_task_that_does_not_end_is_let_go_after_ten_seconds),
        cmocka_unit_test(test_a_short_loss_of_the_bus_is_survived_and_a_long_one_is_an_error),
        cmocka_unit_test(test_a_task_that_ended_while_the_bus_was_away_is_lost_frames_and_no_lost_instance),
        cmocka_unit_test(test_absence_right_after_the_bus_came_back_is_not_believed),
        cmocka_unit_test(test_an_ended_task_whose_end_marker_stays_out_is_lost_frames),
        cmocka_unit_test(test_a_request_that_nobody_took_goes_out_when_the_bus_is_back),
        cmocka_unit_test(test_random_events_never_send_a_taken_request_again_nor_act_after_the_one_end),
        cmocka_unit_test(test_every_call_with_a_deadline_ends_by_its_timers_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
