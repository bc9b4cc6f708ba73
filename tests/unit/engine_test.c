#include "env/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FAILED AMP__TASK_STATE__TASK_STATE_FAILED
#define COMPLETED AMP__TASK_STATE__TASK_STATE_COMPLETED
#define CANCELED AMP__TASK_STATE__TASK_STATE_CANCELED
#define NONE AMP__TASK_STATE__TASK_STATE_UNSPECIFIED

struct run {
    struct engine engine;
    struct engine_action actions[ENGINE_ACTIONS_MAX];
    size_t count;
    int64_t now;
    uint32_t random;
};

static void step(struct run *run, enum engine_event_kind kind, enum amp_code code, Amp__TaskState state)
{
    struct engine_event event = {.kind = kind, .code = code, .state = state};
    run->count = engine_step(&run->engine, &event, run->now, run->random, run->actions);
}

static struct run begin(bool is_safe)
{
    struct run run = {.now = 1000, .random = UINT32_MAX};
    engine_init(&run.engine, is_safe, ENGINE_NEVER);
    step(&run, ENGINE_EV_COMMITTED, AMP_OK, NONE);
    return run;
}

static struct run begin_taken(bool is_safe)
{
    struct run run = begin(is_safe);
    step(&run, ENGINE_EV_START, AMP_OK, NONE);
    step(&run, ENGINE_EV_TAKEN, AMP_OK, NONE);
    return run;
}

/* At its second attempt. */
static struct run begin_failed_once(void)
{
    struct run run = begin_taken(true);
    step(&run, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
    step(&run, ENGINE_EV_START, AMP_OK, NONE);
    step(&run, ENGINE_EV_TAKEN, AMP_OK, NONE);
    return run;
}

static void test_a_task_is_called_only_after_its_commit(void **state)
{
    struct run run = {.now = 1};
    engine_init(&run.engine, true, ENGINE_NEVER);
    step(&run, ENGINE_EV_START, AMP_OK, NONE);
    assert_int_equal(run.count, 0);
    step(&run, ENGINE_EV_COMMITTED, AMP_OK, NONE);
    assert_int_equal(run.count, 1);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_QUEUE);
    step(&run, ENGINE_EV_START, AMP_OK, NONE);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_CALL);
    assert_int_equal(run.engine.attempt, 1);
}

/* What the end of a call makes of a task that an instance had taken. */
struct verdict {
    enum amp_code code;
    Amp__TaskState said; /* by the callee */
    bool is_safe;
    enum engine_action_kind action;
    Amp__TaskState state;
    enum amp_code why;
};

static const struct verdict verdicts[] = {
    {AMP_OK, COMPLETED, true, ENGINE_DO_KEEP_END, COMPLETED, AMP_OK},
    {AMP_OK, FAILED, true, ENGINE_DO_KEEP_END, FAILED, AMP_OK},
    {AMP_OK, NONE, true, ENGINE_DO_END, FAILED, AMP_BAD_ANSWER},
    {AMP_AGENT_DIED, NONE, true, ENGINE_DO_RETRY, NONE, AMP_AGENT_DIED},
    {AMP_AGENT_DIED, FAILED, true, ENGINE_DO_RETRY, NONE, AMP_AGENT_DIED},
    {AMP_AGENT_DIED, FAILED, false, ENGINE_DO_KEEP_END, FAILED, AMP_AGENT_DIED},
    {AMP_AGENT_DIED, NONE, false, ENGINE_DO_END, FAILED, AMP_AGENT_DIED},
    {AMP_AGENT_DIED, COMPLETED, true, ENGINE_DO_KEEP_END, COMPLETED, AMP_AGENT_DIED},
    {AMP_INSTANCE_LOST, NONE, true, ENGINE_DO_RETRY, NONE, AMP_INSTANCE_LOST},
    {AMP_INSTANCE_LOST, NONE, false, ENGINE_DO_END, FAILED, AMP_INSTANCE_LOST},
    {AMP_FRAMES_LOST, NONE, true, ENGINE_DO_RETRY, NONE, AMP_FRAMES_LOST},
    {AMP_NO_BUS, NONE, true, ENGINE_DO_RETRY, NONE, AMP_NO_BUS},
    {AMP_HUNG, FAILED, true, ENGINE_DO_RETRY, NONE, AMP_HUNG},
    {AMP_HUNG, FAILED, false, ENGINE_DO_KEEP_END, FAILED, AMP_HUNG},
    {AMP_TASK_FAILED, FAILED, true, ENGINE_DO_KEEP_END, FAILED, AMP_TASK_FAILED},
    {AMP_TASK_FAILED, NONE, true, ENGINE_DO_END, FAILED, AMP_TASK_FAILED},
    {AMP_REJECTED, NONE, true, ENGINE_DO_END, AMP__TASK_STATE__TASK_STATE_REJECTED, AMP_REJECTED},
    {AMP_CANCELED, NONE, true, ENGINE_DO_END, CANCELED, AMP_CANCELED},
    {AMP_DEADLINE, NONE, true, ENGINE_DO_END, FAILED, AMP_DEADLINE},
    {AMP_DENIED, NONE, true, ENGINE_DO_END, FAILED, AMP_DENIED},
    {AMP_LOOP, NONE, true, ENGINE_DO_END, FAILED, AMP_LOOP},
    {AMP_BAD_ANSWER, NONE, true, ENGINE_DO_END, FAILED, AMP_BAD_ANSWER},
};

static void test_the_end_of_a_call_decides_by_the_table(void **state)
{
    for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++) {
        const struct verdict *row = &verdicts[i];
        struct run run = begin_taken(row->is_safe);
        step(&run, ENGINE_EV_CALL_ENDED, row->code, row->said);
        bool is_retry = row->action == ENGINE_DO_RETRY;
        if (run.count != (is_retry ? 2 : 1) || run.actions[0].kind != row->action || run.actions[0].state != row->state || run.actions[0].code != row->why)
            fail_msg("row %zu: %zu actions, kind %d, state %d, code %d", i, run.count, run.actions[0].kind, run.actions[0].state, run.actions[0].code);
        assert_int_equal(run.engine.phase, is_retry ? ENGINE_QUEUED : ENGINE_ENDED);
    }
}

static void test_a_call_that_nobody_took_is_no_attempt(void **state)
{
    static const enum amp_code codes[] = {AMP_BUSY, AMP_NO_SUCH_AGENT, AMP_NO_SUCH_SKILL, AMP_STOPPING, AMP_NO_BUS, AMP_OVERLOADED};
    struct run run = begin(false);
    for (size_t i = 0; i < 10 * sizeof codes / sizeof codes[0]; i++) {
        enum amp_code code = codes[i % (sizeof codes / sizeof codes[0])];
        step(&run, ENGINE_EV_START, AMP_OK, NONE);
        assert_int_equal(run.engine.attempt, 1);
        step(&run, ENGINE_EV_CALL_ENDED, code, NONE);
        assert_int_equal(run.count, 1);
        assert_int_equal(run.actions[0].kind, ENGINE_DO_QUEUE);
        assert_int_equal(run.actions[0].code, code);
    }
    assert_int_equal(run.engine.failures, 0);
}

static void test_attempts_are_numbered_and_end_after_the_fifth_failure(void **state)
{
    struct run run = begin(true);
    for (uint32_t n = 1; n <= ENGINE_FAILURES_MAX; n++) {
        step(&run, ENGINE_EV_START, AMP_OK, NONE);
        assert_int_equal(run.engine.attempt, n);
        step(&run, ENGINE_EV_TAKEN, AMP_OK, NONE);
        step(&run, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
        assert_int_equal(run.count, n == 1 ? 2 : 1);
        if (n == ENGINE_FAILURES_MAX)
            break;
        assert_int_equal(run.actions[0].kind, ENGINE_DO_RETRY);
        if (run.engine.phase == ENGINE_QUEUED) /* the first time, at once */
            continue;
        run.now = engine_due(&run.engine);
        step(&run, ENGINE_EV_TIMER, AMP_OK, NONE);
        assert_int_equal(run.actions[0].kind, ENGINE_DO_QUEUE);
    }
    assert_int_equal(run.actions[0].kind, ENGINE_DO_END);
    assert_int_equal(run.actions[0].code, AMP_ATTEMPTS);
    assert_int_equal(run.actions[0].state, FAILED);
}

static void test_the_wait_before_another_attempt_is_drawn_below_a_growing_limit(void **state)
{
    uint32_t limit = ENGINE_BACKOFF_MS * 4;
    struct run run = begin_failed_once();
    for (uint32_t n = 2; n < ENGINE_FAILURES_MAX; n++, limit *= 4) {
        for (uint32_t random = 0; random <= limit; random += limit / 4) {
            struct run once = run;
            once.random = random;
            step(&once, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
            assert_int_equal(once.engine.retry_at - once.now, random);
        }
        run.random = limit + 1; /* one more than the limit is 0 again */
        step(&run, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
        assert_int_equal(run.engine.retry_at, run.now);
        step(&run, ENGINE_EV_TIMER, AMP_OK, NONE);
        step(&run, ENGINE_EV_START, AMP_OK, NONE);
        step(&run, ENGINE_EV_TAKEN, AMP_OK, NONE);
    }
}

static void test_a_timer_that_rings_early_does_nothing(void **state)
{
    struct run run = begin_failed_once();
    run.random = 10;
    step(&run, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
    run.now += 9;
    step(&run, ENGINE_EV_TIMER, AMP_OK, NONE);
    assert_int_equal(run.count, 0);
    assert_int_equal(engine_due(&run.engine), run.now + 1);
}

/* It may be cancelled by who chose its id, before it is known whether there will be a task at all. */
static void test_a_cancel_before_the_commit_is_not_forgotten(void **state)
{
    struct run run = {.now = 1};
    engine_init(&run.engine, true, ENGINE_NEVER);
    step(&run, ENGINE_EV_CANCEL, AMP_OK, NONE);
    assert_int_equal(run.count, 0);
    step(&run, ENGINE_EV_COMMITTED, AMP_OK, NONE);
    assert_int_equal(run.count, 1);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_END);
    assert_int_equal(run.actions[0].state, CANCELED);
}

/* What the old environment knew of it counts: a cancel, and failures. */
static void test_a_restarted_environment_remembers_cancels_and_failures(void **state)
{
    struct run run = {.now = 1};
    engine_init(&run.engine, true, ENGINE_NEVER);
    run.engine.attempt = 1;
    run.engine.is_canceling = true;
    step(&run, ENGINE_EV_RELOADED, AMP_OK, NONE);
    assert_int_equal(run.count, 1);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_END);
    assert_int_equal(run.actions[0].state, CANCELED);
    engine_init(&run.engine, true, ENGINE_NEVER);
    run.engine.attempt = run.engine.failures = ENGINE_FAILURES_MAX;
    step(&run, ENGINE_EV_RELOADED, AMP_OK, NONE);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_END);
    assert_int_equal(run.actions[0].code, AMP_ATTEMPTS);
}

/* An instance that still works on an attempt that was given up: it is as good as busy. */
static void test_a_conflict_is_waited_for(void **state)
{
    struct run run = begin(true);
    step(&run, ENGINE_EV_START, AMP_OK, NONE);
    step(&run, ENGINE_EV_CALL_ENDED, AMP_CONFLICT, NONE);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_QUEUE);
    assert_int_equal(run.actions[0].code, AMP_CONFLICT);
}

static void test_cancel_ends_what_waits_and_asks_who_works(void **state)
{
    struct run run = begin(true);
    step(&run, ENGINE_EV_CANCEL, AMP_OK, NONE);
    assert_int_equal(run.count, 2);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_UNQUEUE);
    assert_int_equal(run.actions[1].kind, ENGINE_DO_END);
    assert_int_equal(run.actions[1].state, CANCELED);

    run = begin_failed_once();
    step(&run, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
    step(&run, ENGINE_EV_CANCEL, AMP_OK, NONE);
    assert_int_equal(run.count, 1);
    assert_int_equal(run.actions[0].state, CANCELED);

    run = begin_taken(true);
    step(&run, ENGINE_EV_CANCEL, AMP_OK, NONE);
    assert_int_equal(run.count, 1);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_CANCEL_CALL);
    step(&run, ENGINE_EV_CANCEL, AMP_OK, NONE);
    assert_int_equal(run.count, 0);
    struct run quicker = run;
    step(&quicker, ENGINE_EV_CALL_ENDED, AMP_OK, COMPLETED);
    assert_int_equal(quicker.actions[0].kind, ENGINE_DO_KEEP_END);
    step(&run, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_END);
    assert_int_equal(run.actions[0].state, CANCELED);
}

static void test_the_deadline_ends_a_task_in_every_phase(void **state)
{
    for (int phase = 0; phase < 3; phase++) {
        struct run run = begin(true);
        run.engine.deadline_at = 5000;
        if (phase > 0) {
            step(&run, ENGINE_EV_START, AMP_OK, NONE);
            step(&run, ENGINE_EV_TAKEN, AMP_OK, NONE);
        }
        if (phase > 1)
            step(&run, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
        run.now = 5000;
        step(&run, ENGINE_EV_TIMER, AMP_OK, NONE);
        assert_true(run.count > 0);
        const struct engine_action *last = &run.actions[run.count - 1];
        assert_int_equal(last->kind, ENGINE_DO_END);
        assert_int_equal(last->code, AMP_DEADLINE);
        if (phase == 1)
            assert_int_equal(run.actions[0].kind, ENGINE_DO_CANCEL_CALL);
        assert_int_equal(engine_due(&run.engine), ENGINE_NEVER);
        step(&run, ENGINE_EV_CALL_ENDED, AMP_OK, COMPLETED); /* too late */
        assert_int_equal(run.count, 0);
    }
}

static void test_a_restarted_environment_goes_on_with_the_next_attempt(void **state)
{
    struct run run = {.now = 1};
    engine_init(&run.engine, true, ENGINE_NEVER);
    run.engine.attempt = 2;
    const struct engine_event is_open = {.kind = ENGINE_EV_RELOADED, .is_open = true};
    run.count = engine_step(&run.engine, &is_open, run.now, 0, run.actions);
    assert_int_equal(run.count, 2);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_RETRY);
    assert_int_equal(run.actions[0].code, AMP_INTERRUPTED);
    assert_int_equal(run.actions[1].kind, ENGINE_DO_QUEUE);
    step(&run, ENGINE_EV_START, AMP_OK, NONE);
    assert_int_equal(run.engine.attempt, 3);

    for (int is_taken = 0; is_taken < 2; is_taken++) { /* the attempt has ended, or nobody is known to have had it: nothing is to be told */
        engine_init(&run.engine, true, ENGINE_NEVER);
        run.engine.attempt = 2;
        run.engine.is_taken = is_taken;
        step(&run, ENGINE_EV_RELOADED, AMP_OK, NONE);
        assert_int_equal(run.count, 1);
        assert_int_equal(run.actions[0].kind, ENGINE_DO_QUEUE);
        step(&run, ENGINE_EV_START, AMP_OK, NONE);
        assert_int_equal(run.engine.attempt, is_taken ? 3 : 2);
    }

    engine_init(&run.engine, false, ENGINE_NEVER); /* begun and may not be repeated */
    run.engine.attempt = 1;
    step(&run, ENGINE_EV_RELOADED, AMP_OK, NONE);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_END);
    assert_int_equal(run.actions[0].code, AMP_INTERRUPTED);

    engine_init(&run.engine, false, ENGINE_NEVER); /* never begun */
    step(&run, ENGINE_EV_RELOADED, AMP_OK, NONE);
    assert_int_equal(run.count, 1);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_QUEUE);
}

static void test_a_delayed_task_starts_at_its_time_and_its_deadline_counts_from_then(void **state)
{
    for (int by_alarm = 0; by_alarm < 2; by_alarm++) {
        struct run run = {.now = 1000};
        engine_init(&run.engine, true, ENGINE_NEVER);
        engine_delay(&run.engine, by_alarm ? ENGINE_NEVER : 5000, 300);
        step(&run, ENGINE_EV_DUE, AMP_OK, NONE); /* before the commit there is nothing to begin */
        assert_int_equal(run.count, 0);
        step(&run, ENGINE_EV_COMMITTED, AMP_OK, NONE);
        assert_int_equal(run.count, 0);
        assert_int_equal(run.engine.phase, ENGINE_DELAYED);
        assert_int_equal(engine_due(&run.engine), by_alarm ? ENGINE_NEVER : 5000);
        run.now = 4999;
        step(&run, ENGINE_EV_TIMER, AMP_OK, NONE);
        step(&run, ENGINE_EV_START, AMP_OK, NONE);
        assert_int_equal(run.count, 0);
        run.now = 7000; /* late: it still has all of its time */
        step(&run, by_alarm ? ENGINE_EV_DUE : ENGINE_EV_TIMER, AMP_OK, NONE);
        assert_int_equal(run.count, 2);
        assert_int_equal(run.actions[0].kind, ENGINE_DO_BEGIN);
        assert_int_equal(run.actions[1].kind, ENGINE_DO_QUEUE);
        assert_int_equal(engine_due(&run.engine), 7300);
        step(&run, ENGINE_EV_DUE, AMP_OK, NONE);
        assert_int_equal(run.count, 0);
    }
}

static void test_a_delayed_task_can_be_cancelled_and_is_found_again_as_one(void **state)
{
    struct run run = {.now = 1000};
    engine_init(&run.engine, true, ENGINE_NEVER);
    engine_delay(&run.engine, 5000, 0);
    struct run found = run;
    step(&run, ENGINE_EV_COMMITTED, AMP_OK, NONE);
    step(&run, ENGINE_EV_CANCEL, AMP_OK, NONE);
    assert_int_equal(run.count, 1);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_END);
    assert_int_equal(run.actions[0].state, CANCELED);
    step(&found, ENGINE_EV_RELOADED, AMP_OK, NONE);
    assert_int_equal(found.count, 0);
    assert_int_equal(engine_due(&found.engine), 5000);
}

static void test_a_request_that_may_have_run_is_not_sent_again_if_it_must_run_once(void **state)
{
    for (int is_safe = 0; is_safe < 2; is_safe++) {
        struct run run = begin(is_safe);
        step(&run, ENGINE_EV_START, AMP_OK, NONE);
        step(&run, ENGINE_EV_CALL_ENDED, AMP_INSTANCE_LOST, NONE);
        assert_int_equal(run.actions[0].kind, is_safe ? ENGINE_DO_QUEUE : ENGINE_DO_END);
        run = begin(is_safe);
        step(&run, ENGINE_EV_START, AMP_OK, NONE);
        step(&run, ENGINE_EV_CALL_ENDED, AMP_BUSY, NONE); /* nobody took it */
        assert_int_equal(run.actions[0].kind, ENGINE_DO_QUEUE);
    }
}

/* Nothing says that a first failure is the task's fault: another instance gets it at once. */
static void test_after_a_first_failure_nobody_waits(void **state)
{
    struct run run = begin_taken(true);
    step(&run, ENGINE_EV_CALL_ENDED, AMP_AGENT_DIED, NONE);
    assert_int_equal(run.count, 2);
    assert_int_equal(run.actions[0].kind, ENGINE_DO_RETRY);
    assert_int_equal(run.actions[1].kind, ENGINE_DO_QUEUE);
    assert_int_equal(run.actions[1].code, AMP_OK);
}

static void test_a_restarted_environment_goes_on_with_an_attempt_that_is_held(void **state)
{
    struct run run = {.now = 1};
    struct engine_event held = {.kind = ENGINE_EV_RELOADED, .is_held = true};
    for (int is_safe = 0; is_safe < 2; is_safe++) {
        engine_init(&run.engine, is_safe, ENGINE_NEVER);
        run.engine.attempt = 2;
        run.count = engine_step(&run.engine, &held, run.now, 0, run.actions);
        assert_int_equal(run.count, 1);
        assert_int_equal(run.actions[0].kind, ENGINE_DO_ATTACH);
        assert_int_equal(run.engine.attempt, 2);
        assert_int_equal(run.engine.failures, 0);
        step(&run, ENGINE_EV_CALL_ENDED, AMP_INSTANCE_LOST, NONE); /* the holder is not there any more */
        assert_int_equal(run.actions[0].kind, is_safe ? ENGINE_DO_RETRY : ENGINE_DO_END);
        assert_int_equal(run.actions[0].code, AMP_INSTANCE_LOST);
    }
}

/* Any events in any order: one end, never two; after it silence; attempts never go back. */
static void test_random_sequences_end_at_most_once(void **state)
{
    static const enum amp_code codes[] = {AMP_OK, AMP_BUSY, AMP_AGENT_DIED, AMP_INSTANCE_LOST, AMP_TASK_FAILED, AMP_NO_SUCH_AGENT, AMP_CANCELED, AMP_DEADLINE};
    static const Amp__TaskState states[] = {NONE, NONE, COMPLETED, FAILED, CANCELED};
    srand(7);
    for (int i = 0; i < 20000; i++) {
        struct run run = {.now = 1};
        engine_init(&run.engine, rand() % 2, rand() % 2 ? ENGINE_NEVER : rand() % 300);
        if (rand() % 4 == 0)
            engine_delay(&run.engine, rand() % 2 ? ENGINE_NEVER : rand() % 100, (uint32_t)rand() % 300);
        unsigned ends = 0;
        uint32_t attempt = 0;
        for (int k = 0; k < 40; k++) {
            run.now += rand() % 20;
            run.random = (uint32_t)rand();
            enum engine_event_kind kind = (enum engine_event_kind)(rand() % (ENGINE_EV_TIMER + 1));
            step(&run, kind, codes[rand() % 8], states[rand() % 5]);
            assert_true(ends == 0 || run.count == 0);
            for (size_t a = 0; a < run.count; a++)
                ends += run.actions[a].kind == ENGINE_DO_END || run.actions[a].kind == ENGINE_DO_KEEP_END;
            assert_true(run.engine.attempt >= attempt && run.engine.attempt <= attempt + 1);
            attempt = run.engine.attempt;
            assert_true(run.engine.failures <= ENGINE_FAILURES_MAX);
            assert_int_equal(ends, run.engine.phase == ENGINE_ENDED);
            assert_true(run.engine.phase != ENGINE_BACKOFF || engine_due(&run.engine) != ENGINE_NEVER);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_task_is_called_only_after_its_commit),
        cmocka_unit_test(test_the_end_of_a_call_decides_by_the_table),
        cmocka_unit_test(test_a_call_that_nobody_took_is_no_attempt),
        cmocka_unit_test(test_after_a_first_failure_nobody_waits),
        cmocka_unit_test(test_a_request_that_may_have_run_is_not_sent_again_if_it_must_run_once),
        cmocka_unit_test(test_a_restarted_environment_goes_on_with_an_attempt_that_is_held),
        cmocka_unit_test(test_attempts_are_numbered_and_end_after_the_fifth_failure),
        cmocka_unit_test(test_the_wait_before_another_attempt_is_drawn_below_a_growing_limit),
        cmocka_unit_test(test_a_timer_that_rings_early_does_nothing),
        cmocka_unit_test(test_a_cancel_before_the_commit_is_not_forgotten),
        cmocka_unit_test(test_a_restarted_environment_remembers_cancels_and_failures),
        cmocka_unit_test(test_a_conflict_is_waited_for),
        cmocka_unit_test(test_cancel_ends_what_waits_and_asks_who_works),
        cmocka_unit_test(test_the_deadline_ends_a_task_in_every_phase),
        cmocka_unit_test(test_a_restarted_environment_goes_on_with_the_next_attempt),
        cmocka_unit_test(test_a_delayed_task_starts_at_its_time_and_its_deadline_counts_from_then),
        cmocka_unit_test(test_a_delayed_task_can_be_cancelled_and_is_found_again_as_one),
        cmocka_unit_test(test_random_sequences_end_at_most_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
