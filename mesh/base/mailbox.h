/* A bounded hand-over from any thread to one consumer: the only place with a mutex. Items are passed by pointer; a posted item belongs
 * to the consumer. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct loop;
struct mailbox;

/* Consumer on the loop: `on_items` runs on the loop thread with all items that came since. */
struct mailbox *mailbox_new_loop(struct loop *loop, size_t max, void (*on_items)(void *ctx, void **items, size_t count), void *ctx);
/* Consumer is a thread that calls mailbox_wait. */
struct mailbox *mailbox_new_thread(size_t max);
void mailbox_free(struct mailbox *box); /* items still inside are the caller's to drain first (mailbox_drain) */

/* Any thread. False when `max` items wait: the item stays the caller's, and the refusal is counted. */
bool mailbox_post(struct mailbox *box, void *item);
/* Consumer thread: waits until there is an item or the box is closed; takes up to `max` in order; 0 = closed and empty. */
size_t mailbox_wait(struct mailbox *box, void **items, size_t max);
void mailbox_close(struct mailbox *box);
size_t mailbox_drain(struct mailbox *box, void **items, size_t max); /* without waiting */
unsigned long mailbox_refused(struct mailbox *box);
