/* base/loop.h on virtual time. A turn is one happening and the ticks that it asked for. */
#include "base/loop.h"

#include "base/alloc.h"
#include "base/mailbox.h"
#include "env/journal_private.h"
#include "sim.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define ROUNDS_MAX 8

struct loop_tick {
    struct loop *loop;
    void (*on_tick)(void *ctx);
    void *ctx;
    bool is_asked;
    TAILQ_ENTRY(loop_tick) entry;
};

struct loop {
    TAILQ_HEAD(loop_asked, loop_tick) asked;
    struct happening *turn; /* ticks asked for from outside of a turn */
    bool is_turning;
    int64_t frozen_until_us;
};

struct loop_timer {
    struct loop *loop;
    struct loop_tick tick; /* for "this turn's end" */
    struct happening *happening;
    void (*on_due)(void *ctx);
    void *ctx;
};

struct loop *loop_new(void)
{
    struct loop *loop = xcalloc(1, sizeof *loop);
    TAILQ_INIT(&loop->asked);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    world_cancel(loop->turn);
    free(loop);
}

void loop_freeze(struct loop *loop, int64_t until_us)
{
    if (until_us > loop->frozen_until_us) /* what waits for the end of an earlier one has been put off till then */
        loop->frozen_until_us = until_us;
}

int64_t loop_frozen_until_us(const struct loop *loop) { return loop->frozen_until_us; }
int64_t loop_now_ms(struct loop *loop) { return world_now_us() / 1000; }
struct event_base *loop_base(struct loop *loop) { return NULL; }
int loop_run(struct loop *loop) { abort(); }
void loop_stop(struct loop *loop, int status) { abort(); }

/* ---- ticks -------------------------------------------------------------------------------------------------- */

static void on_turn(void *ctx)
{
    struct loop *loop = ctx;
    loop->turn = NULL;
}

static void want_turn(struct loop *loop)
{
    if (!loop->is_turning && !loop->turn)
        loop->turn = world_at(world_now_us(), loop, on_turn, loop);
}

void loop_turn(struct loop *loop)
{
    loop->is_turning = true;
    for (int round = 0; round < ROUNDS_MAX && !TAILQ_EMPTY(&loop->asked); round++) {
        struct loop_tick *last = TAILQ_LAST(&loop->asked, loop_asked), *tick; /* only those asked for so far */
        do {
            tick = TAILQ_FIRST(&loop->asked);
            TAILQ_REMOVE(&loop->asked, tick, entry);
            tick->is_asked = false;
            bool is_last = tick == last;
            tick->on_tick(tick->ctx);
            if (is_last)
                break;
        } while (!TAILQ_EMPTY(&loop->asked));
    }
    loop->is_turning = false;
    if (!TAILQ_EMPTY(&loop->asked) && !loop->turn)
        loop->turn = world_at(world_now_us() + 1, loop, on_turn, loop);
}

struct loop_tick *loop_tick_new(struct loop *loop, void (*on_tick)(void *ctx), void *ctx)
{
    struct loop_tick *tick = xcalloc(1, sizeof *tick);
    *tick = (struct loop_tick){.loop = loop, .on_tick = on_tick, .ctx = ctx};
    return tick;
}

void loop_tick_request(struct loop_tick *tick)
{
    if (tick->is_asked)
        return;
    tick->is_asked = true;
    TAILQ_INSERT_TAIL(&tick->loop->asked, tick, entry);
    want_turn(tick->loop);
}

static void tick_withdraw(struct loop_tick *tick)
{
    if (tick->is_asked)
        TAILQ_REMOVE(&tick->loop->asked, tick, entry);
    tick->is_asked = false;
}

void loop_tick_free(struct loop_tick *tick)
{
    if (tick)
        tick_withdraw(tick);
    free(tick);
}

/* ---- timers --------------------------------------------------------------------------------------------------- */

static void on_due(void *ctx)
{
    struct loop_timer *timer = ctx;
    timer->happening = NULL;
    timer->on_due(timer->ctx);
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*due)(void *ctx), void *ctx)
{
    struct loop_timer *timer = xcalloc(1, sizeof *timer);
    *timer = (struct loop_timer){.loop = loop, .on_due = due, .ctx = ctx, .tick = {.loop = loop, .on_tick = due, .ctx = ctx}};
    return timer;
}

void loop_timer_set(struct loop_timer *timer, uint32_t in_ms) { loop_timer_set_us(timer, (uint64_t)in_ms * 1000); }

void loop_timer_set_us(struct loop_timer *timer, uint64_t in_us)
{
    loop_timer_stop(timer);
    if (in_us == 0)
        loop_tick_request(&timer->tick);
    else
        timer->happening = world_at(world_now_us() + (int64_t)in_us, timer->loop, on_due, timer);
}

void loop_timer_stop(struct loop_timer *timer)
{
    world_cancel(timer->happening);
    timer->happening = NULL;
    tick_withdraw(&timer->tick);
}

bool loop_timer_is_set(const struct loop_timer *timer) { return timer->happening || timer->tick.is_asked; }

void loop_timer_free(struct loop_timer *timer)
{
    if (timer)
        loop_timer_stop(timer);
    free(timer);
}

/* ---- base/mailbox.h and the journal's worker: its thread is a happening that comes after the time of a sync -------- */

struct mailbox {
    struct loop *loop;
    size_t max, count, cap;
    unsigned long refused;
    void **items;
    void (*on_items)(void *ctx, void **items, size_t count);
    void *ctx;
    struct journal_worker *worker;
    struct happening *happening;
};

struct journal_worker {
    struct loop *loop; /* of its process */
    struct journal *journal;
    struct mailbox *batches;
    struct happening *happening;
};

static struct loop *last_loop; /* the journal makes its box of verdicts, then its worker */

struct mailbox *mailbox_new_loop(struct loop *loop, size_t max, void (*on_items)(void *ctx, void **items, size_t count), void *ctx)
{
    struct mailbox *box = xcalloc(1, sizeof *box);
    last_loop = loop ? loop : last_loop;
    *box = (struct mailbox){.loop = loop, .max = max, .on_items = on_items, .ctx = ctx};
    return box;
}

struct mailbox *mailbox_new_thread(size_t max) { return mailbox_new_loop(NULL, max, NULL, NULL); }

void mailbox_free(struct mailbox *box)
{
    if (!box)
        return;
    world_cancel(box->happening);
    free(box->items);
    free(box);
}

size_t mailbox_drain(struct mailbox *box, void **items, size_t max)
{
    size_t count = box->count < max ? box->count : max;
    if (count == 0)
        return 0;
    memcpy(items, box->items, count * sizeof *items);
    box->count -= count;
    memmove(box->items, box->items + count, box->count * sizeof *items);
    return count;
}

size_t mailbox_wait(struct mailbox *box, void **items, size_t max) { return mailbox_drain(box, items, max); }
void mailbox_close(struct mailbox *box) {}
unsigned long mailbox_refused(struct mailbox *box) { return box->refused; }

static void on_delivery(void *ctx)
{
    struct mailbox *box = ctx;
    box->happening = NULL;
    void **items = box->items;
    size_t count = box->count;
    box->items = NULL;
    box->count = box->cap = 0;
    box->on_items(box->ctx, items, count);
    free(items);
}

static void on_synced(void *ctx)
{
    struct journal_worker *worker = ctx;
    if (worker->loop->frozen_until_us > world_now_us()) {
        world_postpone(worker->loop->frozen_until_us);
        return;
    }
    worker->happening = NULL;
    (void)journal_work(worker->journal, false);
    if (worker->batches->count)
        worker->happening = world_at(world_now_us() + (int64_t)disk_sync_ms() * 1000, NULL, on_synced, worker);
}

bool mailbox_post(struct mailbox *box, void *item)
{
    if (box->count >= box->max) {
        box->refused++;
        return false;
    }
    if (box->count == box->cap) {
        box->cap = box->cap ? 2 * box->cap : 16;
        box->items = xrealloc(box->items, box->cap * sizeof *box->items);
    }
    box->items[box->count++] = item;
    if (box->on_items && !box->happening)
        box->happening = world_at(world_now_us() + 5, box->loop, on_delivery, box);
    if (box->worker && !box->worker->happening)
        box->worker->happening = world_at(world_now_us() + (int64_t)disk_sync_ms() * 1000 + 50, NULL, on_synced, box->worker);
    return true;
}

struct journal_worker *journal_worker_new(struct journal *journal, struct mailbox *batches)
{
    struct journal_worker *worker = xcalloc(1, sizeof *worker);
    *worker = (struct journal_worker){.loop = last_loop, .journal = journal, .batches = batches};
    batches->worker = worker;
    return worker;
}

void journal_worker_free(struct journal_worker *worker)
{
    if (!worker)
        return;
    world_cancel(worker->happening);
    worker->batches->worker = NULL;
    while (journal_work(worker->journal, false) > 0)
        ;
    free(worker);
}
