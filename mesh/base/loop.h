/* One thread, one loop: libevent behind our names. All functions on the loop thread, but loop_stop (from a signal handler's
 * point of view: signals are delivered as events, so there is no other thread). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_timer;
struct loop_tick;
struct loop_io;
struct loop_signal;
struct event_base;

struct loop *loop_new(void); /* aborts if the system has no epoll; ignores SIGPIPE for the process */
void loop_free(struct loop *loop); /* everything registered must be freed before */
/* Runs until loop_stop; returns its status. Each turn: wait, run what is due, then the ticks. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop, int status);
int64_t loop_now_ms(struct loop *loop); /* monotonic, read once per turn */
struct event_base *loop_base(struct loop *loop); /* for http.c, bus.c and bufferevents of session.c only */

/* One-shot timer. `on_due` may set, stop or free it. */
struct loop_timer *loop_timer_new(struct loop *loop, void (*on_due)(void *ctx), void *ctx);
void loop_timer_set(struct loop_timer *timer, uint32_t in_ms); /* replaces an earlier setting; 0: this turn's end */
void loop_timer_set_us(struct loop_timer *timer, uint64_t in_us);
void loop_timer_stop(struct loop_timer *timer);
bool loop_timer_is_set(const struct loop_timer *timer);
void loop_timer_free(struct loop_timer *timer); /* NULL is fine */

/* Runs at the end of every turn in which it was asked for (again, if another tick asks for it): batching of writes. */
struct loop_tick *loop_tick_new(struct loop *loop, void (*on_tick)(void *ctx), void *ctx);
void loop_tick_request(struct loop_tick *tick); /* also from inside a tick: it then runs before the loop waits again */
void loop_tick_free(struct loop_tick *tick);

/* A descriptor. The descriptor stays the caller's. */
enum loop_events { LOOP_READ = 1, LOOP_WRITE = 2 };
struct loop_io *loop_io_new(struct loop *loop, int fd, void (*on_ready)(void *ctx, int events), void *ctx);
void loop_io_want(struct loop_io *io, int events);
void loop_io_free(struct loop_io *io);

struct loop_signal *loop_signal_new(struct loop *loop, int signo, void (*on_signal)(void *ctx, int signo), void *ctx);
void loop_signal_free(struct loop_signal *signal);
