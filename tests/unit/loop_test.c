#include "base/loop.h"

#include "base/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct log {
    struct loop *loop;
    struct loop_tick *tick;
    struct loop_timer *timer;
    struct loop_io *io;
    int fd;
    unsigned ticks, dues, reads, signals, stop_at;
    int64_t due_ms;
    char order[32];
};

static void note(struct log *log, const char *what)
{
    strcat(log->order, what);
}

static void on_tick(void *ctx)
{
    struct log *log = ctx;
    log->ticks++;
    note(log, "t");
    if (log->ticks == log->stop_at)
        loop_stop(log->loop, 7);
}

static void on_tick_again(void *ctx)
{
    struct log *log = ctx;
    on_tick(log);
    if (log->ticks < log->stop_at)
        loop_tick_request(log->tick);
}

static void on_due(void *ctx)
{
    struct log *log = ctx;
    log->dues++;
    note(log, "d");
    log->due_ms = clock_mono_us();
    loop_stop(log->loop, 0);
}

static void test_a_tick_asked_for_before_the_loop_runs_is_not_missed(void **state)
{
    struct log log = {.loop = loop_new(), .stop_at = 1};
    log.tick = loop_tick_new(log.loop, on_tick, &log);
    loop_tick_request(log.tick);
    loop_tick_request(log.tick);
    assert_int_equal(loop_run(log.loop), 7);
    assert_int_equal(log.ticks, 1);
    loop_tick_free(log.tick);
    loop_free(log.loop);
}

static void test_a_tick_may_ask_for_itself_and_runs_before_the_loop_waits(void **state)
{
    struct log log = {.loop = loop_new(), .stop_at = 5};
    log.tick = loop_tick_new(log.loop, on_tick_again, &log);
    loop_tick_request(log.tick);
    assert_int_equal(loop_run(log.loop), 7); /* nothing else would ever wake it */
    assert_int_equal(log.ticks, 5);
    loop_tick_free(log.tick);
    loop_free(log.loop);
}

static void on_read(void *ctx, int events)
{
    struct log *log = ctx;
    char byte;
    assert_int_equal(events, LOOP_READ);
    assert_int_equal(read(log->fd, &byte, 1), 1);
    log->reads++;
    note(log, "r");
    loop_tick_request(log->tick);
}

static void test_ticks_run_once_at_the_end_of_the_turn_that_asked(void **state)
{
    int a[2], b[2];
    assert_int_equal(pipe(a) | pipe(b), 0);
    struct log log = {.loop = loop_new(), .stop_at = 1, .fd = a[0]};
    log.tick = loop_tick_new(log.loop, on_tick, &log);
    log.io = loop_io_new(log.loop, a[0], on_read, &log);
    loop_io_want(log.io, LOOP_READ);
    assert_int_equal(write(a[1], "xy", 2), 2);
    loop_run(log.loop);
    assert_string_equal(log.order, "rt");
    log.stop_at = 2;
    loop_run(log.loop);
    assert_string_equal(log.order, "rtrt");
    loop_io_free(log.io);
    loop_tick_free(log.tick);
    loop_free(log.loop);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

static void on_endless(void *ctx, int events)
{
    struct log *log = ctx;
    if (++log->reads == 1000)
        loop_io_want(log->io, 0);
}

static void test_a_descriptor_that_is_always_ready_does_not_hold_up_ticks(void **state)
{
    int a[2];
    assert_int_equal(pipe(a), 0);
    struct log log = {.loop = loop_new(), .stop_at = 5};
    log.tick = loop_tick_new(log.loop, on_tick_again, &log);
    log.io = loop_io_new(log.loop, a[0], on_endless, &log);
    loop_io_want(log.io, LOOP_READ);
    assert_int_equal(write(a[1], "x", 1), 1);
    loop_tick_request(log.tick);
    assert_int_equal(loop_run(log.loop), 7);
    assert_in_range(log.reads, 4, 5);
    loop_io_free(log.io);
    loop_tick_free(log.tick);
    loop_free(log.loop);
    close(a[0]);
    close(a[1]);
}

static void test_a_timer_is_never_early_and_can_be_stopped_and_set_again(void **state)
{
    struct log log = {.loop = loop_new()};
    log.timer = loop_timer_new(log.loop, on_due, &log);
    loop_timer_set(log.timer, 1);
    assert_true(loop_timer_is_set(log.timer));
    loop_timer_stop(log.timer);
    assert_false(loop_timer_is_set(log.timer));
    for (unsigned us = 100; us < 5000; us = us * 2 + 1) {
        int64_t start = clock_mono_us();
        loop_timer_set_us(log.timer, us);
        loop_run(log.loop);
        assert_true(log.due_ms - start >= us);
        assert_false(loop_timer_is_set(log.timer));
    }
    unsigned before = log.dues;
    loop_timer_set(log.timer, 0);
    loop_run(log.loop);
    assert_int_equal(log.dues, before + 1);
    loop_timer_free(log.timer);
    loop_free(log.loop);
}

enum { CROWD = 400 };

struct crowd {
    struct loop *loop;
    unsigned left;
    int64_t last_us;
    struct member {
        struct crowd *crowd;
        struct loop_timer *timer;
        int64_t from_us, to_us; /* it is due in between */
        bool is_stopped;
    } members[CROWD];
};

static void on_member(void *ctx)
{
    struct member *member = ctx;
    struct crowd *crowd = member->crowd;
    assert_false(member->is_stopped);
    assert_true(clock_mono_us() >= member->from_us);
    assert_true(member->to_us >= crowd->last_us);
    crowd->last_us = member->from_us > crowd->last_us ? member->from_us : crowd->last_us;
    if (--crowd->left == 0)
        loop_stop(crowd->loop, 0);
}

static void test_many_timers_come_in_the_order_in_which_they_are_due(void **state)
{
    static struct crowd crowd;
    uint32_t draw = 1;
    crowd.loop = loop_new();
    for (size_t i = 0; i < CROWD; i++) {
        struct member *member = &crowd.members[i];
        *member = (struct member){.crowd = &crowd, .timer = loop_timer_new(crowd.loop, on_member, member)};
        for (int again = 0; again < 2; again++) { /* the second time replaces the first */
            draw = draw * 1103515245 + 12345;
            uint64_t in_us = 1000 + (draw >> 16) % 20 * 1000;
            member->from_us = clock_mono_us() + (int64_t)in_us;
            loop_timer_set_us(member->timer, in_us);
            member->to_us = clock_mono_us() + (int64_t)in_us;
        }
        member->is_stopped = i % 3 == 0;
        crowd.left += !member->is_stopped;
    }
    for (size_t i = 0; i < CROWD; i += 3)
        loop_timer_stop(crowd.members[i].timer);
    loop_run(crowd.loop);
    for (size_t i = 0; i < CROWD; i++)
        loop_timer_free(crowd.members[i].timer);
    loop_free(crowd.loop);
}

static void on_signal(void *ctx, int signo)
{
    struct log *log = ctx;
    log->signals++;
    loop_stop(log->loop, signo);
}

static void test_a_signal_is_an_event_of_the_loop(void **state)
{
    struct log log = {.loop = loop_new()};
    struct loop_signal *term = loop_signal_new(log.loop, SIGTERM, on_signal, &log);
    raise(SIGTERM);
    assert_int_equal(loop_run(log.loop), SIGTERM);
    assert_int_equal(log.signals, 1);
    loop_signal_free(term);
    loop_free(log.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tick_asked_for_before_the_loop_runs_is_not_missed),
        cmocka_unit_test(test_a_tick_may_ask_for_itself_and_runs_before_the_loop_waits),
        cmocka_unit_test(test_ticks_run_once_at_the_end_of_the_turn_that_asked),
        cmocka_unit_test(test_a_descriptor_that_is_always_ready_does_not_hold_up_ticks),
        cmocka_unit_test(test_a_timer_is_never_early_and_can_be_stopped_and_set_again),
        cmocka_unit_test(test_many_timers_come_in_the_order_in_which_they_are_due),
        cmocka_unit_test(test_a_signal_is_an_event_of_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
