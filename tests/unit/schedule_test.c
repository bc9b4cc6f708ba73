#include "env/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/zone.h"

#define MINUTE 60000
#define HOUR (60 * MINUTE)
#define NOON INT64_C(1798286400000) /* 2026-12-26T12:00:00Z */

struct run { /* a schedule and its clocks */
    struct schedule schedule;
    struct schedule_now now;
    struct zone *zone;
    struct schedule_action last;
};

static void step(struct run *run, enum schedule_event event)
{
    run->last = schedule_step(&run->schedule, event, run->now);
}

static void pass(struct run *run, int64_t ms)
{
    run->now.unix_ms += ms;
    run->now.mono_ms += ms;
}

/* Looks whenever a look is due, for so long; returns the runs. Their tasks end at once unless is_open. */
static unsigned let(struct run *run, int64_t ms, bool is_open)
{
    unsigned runs = 0;
    for (int64_t i = 0; i < ms; i += 500) {
        pass(run, 500);
        step(run, SCHEDULE_EV_LOOK);
        runs += run->last.kind == SCHEDULE_DO_RUN;
        if (run->last.kind == SCHEDULE_DO_RUN && !is_open)
            step(run, SCHEDULE_EV_ENDED);
    }
    return runs;
}

static struct run begin(const char *cron, uint32_t every_ms, const struct schedule_rule *more)
{
    struct run run = {.now = {.unix_ms = NOON, .mono_ms = 5000}};
    if (more)
        run.schedule.rule = *more;
    struct schedule_rule *rule = &run.schedule.rule;
    rule->every_ms = every_ms;
    rule->is_cron = cron != NULL;
    rule->until_unix_ms = rule->until_unix_ms ? rule->until_unix_ms : SCHEDULE_NEVER;
    assert_int_equal(zone_open("UTC", &run.zone, NULL), AMP_OK);
    rule->zone = run.zone;
    if (cron)
        assert_int_equal(cron_parse(cron, &rule->cron, NULL), AMP_OK);
    step(&run, SCHEDULE_EV_BEGIN);
    return run;
}

static void end(struct run *run)
{
    zone_free(run->zone);
}

/* The next environment, after some time by each clock. */
static void restart(struct run *run, int64_t unix_ms, int64_t mono_ms)
{
    run->now.unix_ms += unix_ms;
    run->now.mono_ms = mono_ms;
    run->schedule.next_ms = 0; /* not in the journal */
    run->schedule.is_mono = false;
    run->schedule.n_open = 0; /* counted anew */
    step(run, SCHEDULE_EV_FOUND);
}

static void test_it_runs_at_its_times(void **state)
{
    struct run run = begin("*/5 * * * *", 0, NULL);
    assert_int_equal(run.schedule.next_unix_ms, NOON + 5 * MINUTE);
    assert_int_equal(let(&run, 21 * MINUTE, false), 4);
    assert_int_equal(run.schedule.last_unix_ms, NOON + 20 * MINUTE);
    end(&run);
    run = begin(NULL, 5 * MINUTE, NULL);
    assert_int_equal(let(&run, 21 * MINUTE, false), 4);
    assert_int_equal(run.schedule.last_unix_ms, NOON + 20 * MINUTE);
    end(&run);
}

static void test_its_first_run_its_last_time_and_its_number_of_runs_may_be_given(void **state)
{
    struct run run = begin(NULL, 5 * MINUTE, &(struct schedule_rule){.start_unix_ms = NOON + 30 * MINUTE, .until_unix_ms = NOON + 40 * MINUTE});
    assert_int_equal(let(&run, 29 * MINUTE, false), 0);
    assert_int_equal(let(&run, 2 * HOUR, false), 3);
    assert_int_equal(run.schedule.last_unix_ms, NOON + 40 * MINUTE);
    assert_int_equal(run.schedule.state, SCHEDULE_DONE);
    end(&run);
    run = begin("*/5 * * * *", 0, &(struct schedule_rule){.start_unix_ms = NOON + 30 * MINUTE, .runs_max = 2});
    assert_int_equal(let(&run, 2 * HOUR, false), 2);
    assert_int_equal(run.schedule.last_unix_ms, NOON + 35 * MINUTE);
    assert_int_equal(run.schedule.state, SCHEDULE_DONE);
    end(&run);
    run = begin("0 9 * * *", 0, &(struct schedule_rule){.until_unix_ms = NOON + HOUR});
    assert_int_equal(run.schedule.state, SCHEDULE_DONE); /* it would never run */
    end(&run);
}

static void test_what_comes_while_a_run_is_open_is_skipped_queued_or_run(void **state)
{
    static const struct {
        enum schedule_overlap overlap;
        unsigned runs, skipped, queued;
    } rows[] = {{SCHEDULE_SKIP, 1, 19, 0}, {SCHEDULE_QUEUE, 1, 3, SCHEDULE_QUEUE_MAX}, {SCHEDULE_ALLOW, 20, 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct run run = begin("* * * * *", 0, &(struct schedule_rule){.overlap = rows[i].overlap});
        assert_int_equal(let(&run, 20 * MINUTE, true), rows[i].runs);
        assert_int_equal(run.schedule.skipped, rows[i].skipped);
        assert_int_equal(run.schedule.n_queued, rows[i].queued);
        end(&run);
    }
}

static void test_the_queued_follow_in_their_order_also_when_it_is_done(void **state)
{
    struct run run = begin("* * * * *", 0, &(struct schedule_rule){.overlap = SCHEDULE_QUEUE, .runs_max = 3});
    bool is_mono;
    assert_int_equal(let(&run, 10 * MINUTE, true), 1);
    assert_int_equal(run.schedule.n_queued, 2);
    assert_int_equal(run.schedule.state, SCHEDULE_ACTIVE);
    assert_int_equal(schedule_due(&run.schedule, &is_mono), SCHEDULE_NEVER);
    for (int64_t n = 2; n <= 3; n++) {
        step(&run, SCHEDULE_EV_ENDED);
        assert_int_equal(schedule_due(&run.schedule, &is_mono), INT64_MIN);
        step(&run, SCHEDULE_EV_LOOK);
        assert_int_equal(run.last.kind, SCHEDULE_DO_RUN);
        assert_int_equal(run.last.planned_unix_ms, NOON + n * MINUTE);
    }
    assert_int_equal(run.schedule.state, SCHEDULE_DONE);
    end(&run);
}

static void test_what_was_missed_is_made_up_for_by_one_run_that_counts_the_others(void **state)
{
    for (int is_cron = 0; is_cron < 2; is_cron++) {
        struct run run = begin(is_cron ? "*/5 * * * *" : NULL, is_cron ? 0 : 5 * MINUTE, NULL);
        assert_int_equal(let(&run, 6 * MINUTE, false), 1);
        restart(&run, HOUR, 77);
        step(&run, SCHEDULE_EV_LOOK);
        assert_int_equal(run.last.kind, SCHEDULE_DO_RUN);
        assert_int_equal(run.last.planned_unix_ms, NOON + HOUR + 5 * MINUTE);
        assert_int_equal(run.last.missed, 11);
        assert_int_equal(run.schedule.missed, 11);
        step(&run, SCHEDULE_EV_ENDED);
        step(&run, SCHEDULE_EV_LOOK);
        assert_int_equal(run.last.kind, SCHEDULE_DO_NOTHING);
        assert_int_equal(let(&run, 5 * MINUTE, false), 1);
        end(&run);
    }
}

static void test_years_of_missed_minutes_are_counted_up_to_a_limit(void **state)
{
    struct run run = begin("* * * * *", 0, NULL);
    restart(&run, INT64_C(3650) * 24 * HOUR, 77);
    step(&run, SCHEDULE_EV_LOOK);
    assert_int_equal(run.last.kind, SCHEDULE_DO_RUN);
    assert_int_equal(run.last.missed, SCHEDULE_MISSED_MAX);
    assert_true(run.schedule.next_unix_ms > run.now.unix_ms && run.schedule.next_unix_ms <= run.now.unix_ms + MINUTE);
    end(&run);
}

static void test_a_clock_set_forward_is_one_run_of_cron_and_none_of_an_interval(void **state)
{
    struct run run = begin("*/5 * * * *", 0, NULL);
    run.now.unix_ms += HOUR;
    step(&run, SCHEDULE_EV_LOOK);
    assert_int_equal(run.last.kind, SCHEDULE_DO_RUN);
    assert_int_equal(run.last.missed, 11);
    end(&run);
    run = begin(NULL, 5 * MINUTE, NULL);
    run.now.unix_ms += HOUR;
    step(&run, SCHEDULE_EV_LOOK);
    assert_int_equal(run.last.kind, SCHEDULE_DO_NOTHING);
    assert_int_equal(let(&run, 5 * MINUTE, false), 1);
    assert_int_equal(run.last.missed, 0);
    end(&run);
}

/* What was run is not run again when its time comes once more; an interval goes on. */
static void test_a_clock_set_back_repeats_no_run_of_cron_and_holds_up_no_interval(void **state)
{
    struct run run = begin("*/5 * * * *", 0, NULL);
    assert_int_equal(let(&run, 6 * MINUTE, false), 1);
    run.now.unix_ms -= HOUR;
    assert_int_equal(let(&run, HOUR, false), 0);
    assert_int_equal(let(&run, 5 * MINUTE, false), 1);
    assert_int_equal(run.schedule.last_unix_ms, NOON + 10 * MINUTE);
    end(&run);
    run = begin(NULL, 5 * MINUTE, NULL);
    run.now.unix_ms -= HOUR;
    assert_int_equal(let(&run, HOUR, false), 12);
    end(&run);
}

/* The journal knows the wall clock only. */
static void test_a_clock_set_back_while_nobody_ran_holds_up_an_interval_by_its_length_at_most(void **state)
{
    struct run run = begin(NULL, 5 * MINUTE, NULL);
    assert_int_equal(let(&run, 6 * MINUTE, false), 1);
    restart(&run, -24 * HOUR, 77);
    assert_int_equal(let(&run, 5 * MINUTE, false), 1);
    end(&run);
}

static void test_paused_it_runs_only_when_asked_to_and_makes_up_for_nothing(void **state)
{
    struct run run = begin("*/5 * * * *", 0, NULL);
    step(&run, SCHEDULE_EV_PAUSE);
    assert_true(run.last.is_changed);
    step(&run, SCHEDULE_EV_PAUSE);
    assert_false(run.last.is_changed);
    assert_int_equal(let(&run, HOUR, false), 0);
    step(&run, SCHEDULE_EV_RUN);
    assert_int_equal(run.last.kind, SCHEDULE_DO_RUN);
    assert_int_equal(run.last.planned_unix_ms, run.now.unix_ms);
    step(&run, SCHEDULE_EV_ENDED);
    step(&run, SCHEDULE_EV_RESUME);
    step(&run, SCHEDULE_EV_LOOK);
    assert_int_equal(run.last.kind, SCHEDULE_DO_NOTHING);
    assert_int_equal(run.schedule.next_unix_ms, NOON + HOUR + 5 * MINUTE);
    end(&run);
}

/* Any events in any order, both clocks set at will: planned times of cron only grow, counts add up, bounds hold. */
static void test_whatever_happens_no_time_of_cron_is_run_twice(void **state)
{
    srand(5);
    for (int i = 0; i < 3000; i++) {
        struct schedule_rule more = {.overlap = (enum schedule_overlap)(rand() % 3), .runs_max = rand() % 3 ? 0 : 1 + (uint32_t)rand() % 5};
        bool is_cron = rand() % 2;
        struct run run = begin(is_cron ? "*/7 * * * *" : NULL, is_cron ? 0 : 7 * MINUTE, &more);
        int64_t last = 0;
        unsigned runs = 0;
        for (int k = 0; k < 60; k++) {
            enum schedule_event event = rand() % 3 ? SCHEDULE_EV_LOOK : (enum schedule_event)(SCHEDULE_EV_LOOK + rand() % 5);
            if (rand() % 10 == 0)
                run.now.unix_ms += (rand() % 4 - 2) * HOUR;
            if (rand() % 20 == 0)
                restart(&run, rand() % HOUR, rand());
            pass(&run, rand() % (10 * MINUTE));
            step(&run, event);
            runs += run.last.kind == SCHEDULE_DO_RUN;
            if (is_cron && event == SCHEDULE_EV_LOOK && run.last.kind == SCHEDULE_DO_RUN && more.overlap != SCHEDULE_QUEUE) {
                if (run.last.planned_unix_ms <= last && last)
                    fail_msg("%lld after %lld", (long long)run.last.planned_unix_ms, (long long)last);
                last = run.last.planned_unix_ms;
            }
            if (event == SCHEDULE_EV_RESUME && run.last.is_changed)
                last = 0; /* from now on, by the clock as it is */
            assert_int_equal(run.schedule.runs, runs);
            assert_true(run.schedule.n_queued <= SCHEDULE_QUEUE_MAX);
            assert_true(run.schedule.state != SCHEDULE_DONE || run.schedule.n_queued == 0);
        }
        end(&run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_runs_at_its_times),
        cmocka_unit_test(test_its_first_run_its_last_time_and_its_number_of_runs_may_be_given),
        cmocka_unit_test(test_what_comes_while_a_run_is_open_is_skipped_queued_or_run),
        cmocka_unit_test(test_the_queued_follow_in_their_order_also_when_it_is_done),
        cmocka_unit_test(test_what_was_missed_is_made_up_for_by_one_run_that_counts_the_others),
        cmocka_unit_test(test_years_of_missed_minutes_are_counted_up_to_a_limit),
        cmocka_unit_test(test_a_clock_set_forward_is_one_run_of_cron_and_none_of_an_interval),
        cmocka_unit_test(test_a_clock_set_back_repeats_no_run_of_cron_and_holds_up_no_interval),
        cmocka_unit_test(test_a_clock_set_back_while_nobody_ran_holds_up_an_interval_by_its_length_at_most),
        cmocka_unit_test(test_paused_it_runs_only_when_asked_to_and_makes_up_for_nothing),
        cmocka_unit_test(test_whatever_happens_no_time_of_cron_is_run_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
