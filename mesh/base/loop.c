/* libevent has no hook for the end of a turn, so a turn is one event_base_loop(EVLOOP_ONCE) and then the ticks. Timers of 0 ms are
 * ticks too. While ticks wait the turn polls without sleeping: a tick that asks for itself again starves nobody.
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
    int64_t now_ms; /* 0: not read in this turn */
    bool is_stopped;
    int status;
};

struct loop_timer {
    struct event *event;
    struct loop_tick tick; /* for 0 ms */
    int64_t due_us;
    bool is_set;
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

struct loop *loop_new(void)
{
    signal(SIGPIPE, SIG_IGN);
    struct loop *loop = xcalloc(1, sizeof *loop);
    TAILQ_INIT(&loop->asked);
    TAILQ_INIT(&loop->running);
    TAILQ_INIT(&loop->later);
    struct event_config *config = require(event_config_new());
    /* Without it libevent reads a coarse clock (4 ms) and sleeps whole milliseconds. */
    event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    event_config_require_features(config, EV_FEATURE_O1);
    loop->base = require(event_base_new_with_config(config));
    event_config_free(config);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    assert(TAILQ_EMPTY(&loop->asked));
    event_base_free(loop->base);
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

static void timer_fire(void *ctx)
{
    struct loop_timer *timer = ctx;
    timer->is_set = false;
    timer->on_due(timer->ctx);
}

static void timer_arm(struct loop_timer *timer, int64_t in_us)
{
    struct timeval wait = {.tv_sec = in_us / 1000000, .tv_usec = in_us % 1000000};
    event_add(timer->event, &wait);
}

static void on_timeout(evutil_socket_t fd, short what, void *ctx)
{
    struct loop_timer *timer = ctx;
    /* libevent counts from the time of the turn's start, so after a long callback it is early. */
    int64_t left_us = timer->due_us - clock_mono_us();
    if (left_us > 0)
        timer_arm(timer, left_us);
    else
        timer_fire(timer);
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*on_due)(void *ctx), void *ctx)
{
    struct loop_timer *timer = xcalloc(1, sizeof *timer);
    timer->on_due = on_due;
    timer->ctx = ctx;
    timer->event = require(evtimer_new(loop->base, on_timeout, timer));
    tick_init(&timer->tick, loop, timer_fire, timer);
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
    timer->due_us = clock_mono_us() + (int64_t)in_us;
    timer_arm(timer, (int64_t)in_us);
}

void loop_timer_stop(struct loop_timer *timer)
{
    if (!timer->is_set)
        return;
    timer->is_set = false;
    event_del(timer->event);
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
    event_free(timer->event);
    free(timer);
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
