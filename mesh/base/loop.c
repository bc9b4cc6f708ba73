/* libevent has no hook for the end of a turn, so a turn is one event_base_loop(EVLOOP_ONCE) and then the ticks. Timers of 0 ms are
 * ticks too. While ticks wait the turn polls without sleeping: a tick that asks for itself again starves nobody.
 *
 * Timers are ours, in a heap behind one timerfd. libevent's read either a coarse clock (4 ms), or cost a system call in every turn. Ours cost one when the earliest
 * gets earlier, and one when it is due: most are stopped before (the limits of a call), and then the descriptor stays armed for nothing, at most once.
 *
 * There are no locks in the base (evthread is not used): other threads reach the loop only through an eventfd (mailbox.c, bus_io.c). */
#include "base/loop.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <assert.h>
#include <event2/event.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define ROUNDS_MAX 3 /* of ticks in one turn */

struct loop_tick {
    struct loop *loop;
    void (*on_tick)(void *ctx);
    void *ctx;
    bool is_asked;
    TAILQ_ENTRY(loop_tick) entry; /* in loop->asked or, while ticks run, in loop->running */
    struct tick_list *list;
};
TAILQ_HEAD(tick_list, loop_tick);

struct loop {
    struct event_base *base;
    struct tick_list asked, running, later; /* later: asked for by themselves while they ran */
    struct loop_tick *current;
    struct loop_timer **heap; /* the earliest first */
    size_t n_heap, cap_heap;
    struct spares timers;
    struct event *clock;
    int clock_fd;
    int64_t armed_us; /* when clock_fd is due; INT64_MAX: never */
    bool is_firing;
    int64_t now_ms; /* 0: not read in this turn */
    bool is_stopped;
    int status;
};

struct loop_timer {
    struct loop *loop;
    struct loop_tick tick; /* for 0 ms */
    int64_t due_us;
    size_t at; /* in the heap, if it is there */
    bool is_set, is_in_heap;
    void (*on_due)(void *ctx);
    void *ctx;
};

struct loop_io {
    struct loop *loop;
    struct event *event;
    int fd, wanted;
    void (*on_ready)(void *ctx, int events);
    void *ctx;
};

struct loop_signal {
    struct event *event;
    void (*on_signal)(void *ctx, int signo);
    void *ctx;
};

static void *require(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

static void clock_open(struct loop *loop);

struct loop *loop_new(void)
{
    signal(SIGPIPE, SIG_IGN);
    struct loop *loop = xcalloc(1, sizeof *loop);
    TAILQ_INIT(&loop->asked);
    TAILQ_INIT(&loop->running);
    TAILQ_INIT(&loop->later);
    struct event_config *config = require(event_config_new());
    event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    event_config_require_features(config, EV_FEATURE_O1);
    loop->base = require(event_base_new_with_config(config));
    event_config_free(config);
    clock_open(loop);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    assert(TAILQ_EMPTY(&loop->asked) && loop->n_heap == 0);
    event_free(loop->clock);
    close(loop->clock_fd);
    event_base_free(loop->base);
    spares_done(&loop->timers);
    free(loop->heap);
    free(loop);
}

static void run_round(struct loop *loop)
{
    /* Only those asked for so far. */
    TAILQ_CONCAT(&loop->running, &loop->asked, entry);
    struct loop_tick *tick;
    TAILQ_FOREACH(tick, &loop->running, entry)
        tick->list = &loop->running;
    while ((tick = TAILQ_FIRST(&loop->running))) {
        TAILQ_REMOVE(&loop->running, tick, entry);
        tick->is_asked = false;
        loop->current = tick;
        tick->on_tick(tick->ctx);
    }
    loop->current = NULL;
}

/* One tick asks for another (an agent's answer becomes a frame, which is to be written): a few rounds save a poll for each. What then still asks,
 * and who asks for itself again, comes after the next poll. */
static void run_ticks(struct loop *loop)
{
    for (int round = 0; round < ROUNDS_MAX && !TAILQ_EMPTY(&loop->asked); round++)
        run_round(loop);
    struct loop_tick *tick;
    TAILQ_FOREACH(tick, &loop->later, entry)
        tick->list = &loop->asked;
    TAILQ_CONCAT(&loop->asked, &loop->later, entry);
}

int loop_run(struct loop *loop)
{
    while (!loop->is_stopped) {
        int flags = TAILQ_EMPTY(&loop->asked) ? EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY : EVLOOP_ONCE | EVLOOP_NONBLOCK;
        loop->now_ms = 0;
        int result = event_base_loop(loop->base, flags);
        assert(result >= 0);
        run_ticks(loop);
    }
    loop->is_stopped = false;
    return loop->status;
}

void loop_stop(struct loop *loop, int status)
{
    loop->is_stopped = true;
    loop->status = status;
}

int64_t loop_now_ms(struct loop *loop)
{
    if (loop->now_ms == 0)
        loop->now_ms = clock_mono_ms();
    return loop->now_ms;
}

struct event_base *loop_base(struct loop *loop)
{
    return loop->base;
}

/* ---- ticks ---------------------------------------------------------------------------------------- */

static void tick_init(struct loop_tick *tick, struct loop *loop, void (*on_tick)(void *ctx), void *ctx)
{
    *tick = (struct loop_tick){.loop = loop, .on_tick = on_tick, .ctx = ctx};
}

static void tick_withdraw(struct loop_tick *tick)
{
    if (tick->is_asked)
        TAILQ_REMOVE(tick->list, tick, entry);
    tick->is_asked = false;
}

struct loop_tick *loop_tick_new(struct loop *loop, void (*on_tick)(void *ctx), void *ctx)
{
    struct loop_tick *tick = xcalloc(1, sizeof *tick);
    tick_init(tick, loop, on_tick, ctx);
    return tick;
}

void loop_tick_request(struct loop_tick *tick)
{
    if (tick->is_asked)
        return;
    tick->is_asked = true;
    tick->list = tick == tick->loop->current ? &tick->loop->later : &tick->loop->asked;
    TAILQ_INSERT_TAIL(tick->list, tick, entry);
}

void loop_tick_free(struct loop_tick *tick)
{
    if (!tick)
        return;
    tick_withdraw(tick);
    free(tick);
}

/* ---- timers --------------------------------------------------------------------------------------- */

static void heap_put(struct loop *loop, size_t at, struct loop_timer *timer)
{
    loop->heap[at] = timer;
    timer->at = at;
}

static void heap_rise(struct loop *loop, size_t at, struct loop_timer *timer)
{
    for (; at > 0 && loop->heap[(at - 1) / 2]->due_us > timer->due_us; at = (at - 1) / 2)
        heap_put(loop, at, loop->heap[(at - 1) / 2]);
    heap_put(loop, at, timer);
}

static void heap_sink(struct loop *loop, size_t at, struct loop_timer *timer)
{
    for (size_t child; (child = 2 * at + 1) < loop->n_heap; at = child) {
        if (child + 1 < loop->n_heap && loop->heap[child + 1]->due_us < loop->heap[child]->due_us)
            child++;
        if (loop->heap[child]->due_us >= timer->due_us)
            break;
        heap_put(loop, at, loop->heap[child]);
    }
    heap_put(loop, at, timer);
}

static void heap_add(struct loop *loop, struct loop_timer *timer)
{
    if (loop->n_heap == loop->cap_heap) {
        loop->cap_heap = loop->cap_heap ? loop->cap_heap * 2 : 64;
        loop->heap = xrealloc(loop->heap, loop->cap_heap * sizeof(struct loop_timer *));
    }
    timer->is_in_heap = true;
    heap_rise(loop, loop->n_heap++, timer);
}

static void heap_remove(struct loop *loop, struct loop_timer *timer)
{
    struct loop_timer *last = loop->heap[--loop->n_heap];
    size_t at = timer->at;
    timer->is_in_heap = false;
    if (last == timer)
        return;
    if (at > 0 && loop->heap[(at - 1) / 2]->due_us > last->due_us)
        heap_rise(loop, at, last);
    else
        heap_sink(loop, at, last);
}

/* Also takes back that the descriptor is readable. By what is left, as a point in time would be read by whoever fakes the clock for a test. */
static void clock_arm(struct loop *loop, int64_t due_us)
{
    struct itimerspec when = {0};
    if (due_us != INT64_MAX) {
        int64_t left_us = due_us - clock_mono_us();
        if (left_us <= 0)
            left_us = 1; /* 0 is never */
        when.it_value.tv_sec = left_us / 1000000;
        when.it_value.tv_nsec = left_us % 1000000 * 1000;
    }
    loop->armed_us = due_us;
    if (timerfd_settime(loop->clock_fd, 0, &when, NULL) != 0)
        abort();
}

static void on_clock(evutil_socket_t fd, short what, void *ctx)
{
    struct loop *loop = ctx;
    int64_t now_us = clock_mono_us(); /* what is set meanwhile comes later */
    loop->is_firing = true;
    while (loop->n_heap > 0 && loop->heap[0]->due_us <= now_us) {
        struct loop_timer *timer = loop->heap[0];
        heap_remove(loop, timer);
        timer->is_set = false;
        timer->on_due(timer->ctx);
    }
    loop->is_firing = false;
    clock_arm(loop, loop->n_heap > 0 ? loop->heap[0]->due_us : INT64_MAX);
}

static void clock_open(struct loop *loop)
{
    loop->clock_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (loop->clock_fd < 0)
        abort();
    loop->armed_us = INT64_MAX;
    loop->clock = require(event_new(loop->base, loop->clock_fd, EV_READ | EV_PERSIST, on_clock, loop));
    event_add(loop->clock, NULL);
}

static void on_turn_end(void *ctx)
{
    struct loop_timer *timer = ctx;
    timer->is_set = false;
    timer->on_due(timer->ctx);
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*on_due)(void *ctx), void *ctx)
{
    struct loop_timer *timer = spares_calloc(&loop->timers, sizeof *timer);
    timer->loop = loop;
    timer->on_due = on_due;
    timer->ctx = ctx;
    tick_init(&timer->tick, loop, on_turn_end, timer);
    return timer;
}

void loop_timer_set(struct loop_timer *timer, uint32_t in_ms)
{
    loop_timer_set_us(timer, (uint64_t)in_ms * 1000);
}

void loop_timer_set_us(struct loop_timer *timer, uint64_t in_us)
{
    loop_timer_stop(timer);
    timer->is_set = true;
    if (in_us == 0) {
        loop_tick_request(&timer->tick);
        return;
    }
    struct loop *loop = timer->loop;
    timer->due_us = clock_mono_us() + (int64_t)in_us;
    heap_add(loop, timer);
    if (timer->due_us < loop->armed_us && !loop->is_firing)
        clock_arm(loop, timer->due_us);
}

void loop_timer_stop(struct loop_timer *timer)
{
    if (!timer->is_set)
        return;
    timer->is_set = false;
    if (timer->is_in_heap)
        heap_remove(timer->loop, timer);
    tick_withdraw(&timer->tick);
}

bool loop_timer_is_set(const struct loop_timer *timer)
{
    return timer->is_set;
}

void loop_timer_free(struct loop_timer *timer)
{
    if (!timer)
        return;
    loop_timer_stop(timer);
    spares_free(&timer->loop->timers, timer);
}

/* ---- descriptors ---------------------------------------------------------------------------------- */

static void on_io(evutil_socket_t fd, short what, void *ctx)
{
    struct loop_io *io = ctx;
    io->on_ready(io->ctx, (what & EV_READ ? LOOP_READ : 0) | (what & EV_WRITE ? LOOP_WRITE : 0));
}

struct loop_io *loop_io_new(struct loop *loop, int fd, void (*on_ready)(void *ctx, int events), void *ctx)
{
    struct loop_io *io = xcalloc(1, sizeof *io);
    *io = (struct loop_io){.loop = loop, .fd = fd, .on_ready = on_ready, .ctx = ctx};
    io->event = require(event_new(loop->base, fd, EV_PERSIST, on_io, io));
    return io;
}

void loop_io_want(struct loop_io *io, int events)
{
    if (io->wanted == events)
        return;
    if (io->wanted)
        event_del(io->event);
    io->wanted = events;
    if (!events)
        return;
    short what = (short)(EV_PERSIST | (events & LOOP_READ ? EV_READ : 0) | (events & LOOP_WRITE ? EV_WRITE : 0));
    event_assign(io->event, io->loop->base, io->fd, what, on_io, io);
    event_add(io->event, NULL);
}

void loop_io_free(struct loop_io *io)
{
    if (!io)
        return;
    event_free(io->event);
    free(io);
}

/* ---- signals -------------------------------------------------------------------------------------- */

static void on_signal_event(evutil_socket_t signo, short what, void *ctx)
{
    struct loop_signal *signal = ctx;
    signal->on_signal(signal->ctx, (int)signo);
}

struct loop_signal *loop_signal_new(struct loop *loop, int signo, void (*on_signal)(void *ctx, int signo), void *ctx)
{
    struct loop_signal *signal = xcalloc(1, sizeof *signal);
    signal->on_signal = on_signal;
    signal->ctx = ctx;
    signal->event = require(evsignal_new(loop->base, signo, on_signal_event, signal));
    event_add(signal->event, NULL);
    return signal;
}

void loop_signal_free(struct loop_signal *signal)
{
    if (!signal)
        return;
    event_free(signal->event);
    free(signal);
}
