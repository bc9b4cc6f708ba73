/* A growing array behind a mutex, read from `head`. A loop consumer is woken by an eventfd, once for all posts since it last
 * looked, and takes everything by swapping arrays, so that its callback runs without the lock. */
#include "base/mailbox.h"

#include "base/alloc.h"
#include "base/loop.h"

#include <assert.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct slots {
    void **items;
    size_t head, count, cap; /* waiting: items[head … head + count) */
};

struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* thread consumer */
    struct slots waiting;
    size_t max;
    unsigned long refused;
    bool is_closed;

    /* Loop consumer; touched by the loop thread only. */
    int wake_fd; /* -1: a thread consumes */
    struct loop_io *wake_io;
    struct slots spare;
    void (*on_items)(void *ctx, void **items, size_t count);
    void *ctx;
};

static void slots_push(struct slots *slots, void *item)
{
    if (slots->head + slots->count == slots->cap) {
        if (slots->head > slots->cap / 2) {
            memmove(slots->items, slots->items + slots->head, slots->count * sizeof *slots->items);
            slots->head = 0;
        } else {
            slots->cap = slots->cap ? slots->cap * 2 : 16;
            slots->items = xrealloc(slots->items, slots->cap * sizeof *slots->items);
        }
    }
    slots->items[slots->head + slots->count++] = item;
}

static size_t slots_take(struct slots *slots, void **items, size_t max)
{
    size_t n = slots->count < max ? slots->count : max;
    if (n)
        memcpy(items, slots->items + slots->head, n * sizeof *items);
    slots->count -= n;
    slots->head = slots->count ? slots->head + n : 0;
    return n;
}

static void on_wake(void *ctx, int events)
{
    struct mailbox *box = ctx;
    uint64_t posts;
    /* Emptied before the items are taken: a post after that wakes us again. EAGAIN is harmless. */
    (void)!read(box->wake_fd, &posts, sizeof posts);

    struct slots batch = box->spare;
    pthread_mutex_lock(&box->lock);
    box->spare = box->waiting;
    box->waiting = batch;
    pthread_mutex_unlock(&box->lock);

    batch = box->spare;
    box->spare = (struct slots){0};
    if (batch.count)
        box->on_items(box->ctx, batch.items + batch.head, batch.count);
    box->spare = (struct slots){.items = batch.items, .cap = batch.cap};
}

static struct mailbox *mailbox_new(size_t max)
{
    assert(max > 0);
    struct mailbox *box = xcalloc(1, sizeof *box);
    pthread_mutex_init(&box->lock, NULL);
    pthread_cond_init(&box->changed, NULL);
    box->max = max;
    box->wake_fd = -1;
    return box;
}

struct mailbox *mailbox_new_loop(struct loop *loop, size_t max, void (*on_items)(void *ctx, void **items, size_t count),
                                 void *ctx)
{
    struct mailbox *box = mailbox_new(max);
    box->on_items = on_items;
    box->ctx = ctx;
    box->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert(box->wake_fd >= 0);
    box->wake_io = loop_io_new(loop, box->wake_fd, on_wake, box);
    loop_io_want(box->wake_io, LOOP_READ);
    return box;
}

struct mailbox *mailbox_new_thread(size_t max)
{
    return mailbox_new(max);
}

void mailbox_free(struct mailbox *box)
{
    if (!box)
        return;
    assert(box->waiting.count == 0);
    loop_io_free(box->wake_io);
    if (box->wake_fd >= 0)
        close(box->wake_fd);
    free(box->waiting.items);
    free(box->spare.items);
    pthread_cond_destroy(&box->changed);
    pthread_mutex_destroy(&box->lock);
    free(box);
}

bool mailbox_post(struct mailbox *box, void *item)
{
    pthread_mutex_lock(&box->lock);
    bool is_taken = !box->is_closed && box->waiting.count < box->max;
    if (is_taken) {
        slots_push(&box->waiting, item);
        /* Woken under the lock: mailbox_free after the last item was seen may then not overtake this call. */
        if (box->waiting.count == 1) {
            if (box->wake_fd < 0)
                pthread_cond_signal(&box->changed);
            else
                (void)!write(box->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
        }
    } else {
        box->refused++;
    }
    pthread_mutex_unlock(&box->lock);
    return is_taken;
}

size_t mailbox_wait(struct mailbox *box, void **items, size_t max)
{
    pthread_mutex_lock(&box->lock);
    while (box->waiting.count == 0 && !box->is_closed)
        pthread_cond_wait(&box->changed, &box->lock);
    size_t n = slots_take(&box->waiting, items, max);
    pthread_mutex_unlock(&box->lock);
    return n;
}

void mailbox_close(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->is_closed = true;
    pthread_cond_broadcast(&box->changed);
    pthread_mutex_unlock(&box->lock);
}

size_t mailbox_drain(struct mailbox *box, void **items, size_t max)
{
    pthread_mutex_lock(&box->lock);
    size_t n = slots_take(&box->waiting, items, max);
    pthread_mutex_unlock(&box->lock);
    return n;
}

unsigned long mailbox_refused(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    unsigned long refused = box->refused;
    pthread_mutex_unlock(&box->lock);
    return refused;
}
