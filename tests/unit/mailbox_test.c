#include "base/mailbox.h"

#include "base/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define THREADS 4
#define EACH 20000

struct consumer {
    struct loop *loop;
    size_t count;
    uintptr_t last[THREADS];
    bool is_in_order;
};

struct producer {
    struct mailbox *box;
    uintptr_t number;
};

static void take(struct consumer *consumer, void **items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uintptr_t item = (uintptr_t)items[i], thread = item % THREADS;
        consumer->is_in_order &= item > consumer->last[thread];
        consumer->last[thread] = item;
    }
    consumer->count += count;
}

static void on_items(void *ctx, void **items, size_t count)
{
    struct consumer *consumer = ctx;
    take(consumer, items, count);
    if (consumer->count == THREADS * EACH)
        loop_stop(consumer->loop, 0);
}

static void *produce(void *ctx)
{
    struct producer *producer = ctx;
    for (uintptr_t i = 1; i <= EACH; i++)
        assert_true(mailbox_post(producer->box, (void *)(i * THREADS + producer->number)));
    return NULL;
}

static void start(pthread_t *threads, struct producer *producers, struct mailbox *box)
{
    for (uintptr_t i = 0; i < THREADS; i++) {
        producers[i] = (struct producer){.box = box, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
}

static void test_the_loop_gets_every_item_of_every_thread_in_order(void **state)
{
    struct consumer consumer = {.loop = loop_new(), .is_in_order = true};
    struct mailbox *box = mailbox_new_loop(consumer.loop, THREADS * EACH, on_items, &consumer);
    pthread_t threads[THREADS];
    struct producer producers[THREADS];
    start(threads, producers, box);
    loop_run(consumer.loop);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(consumer.count, THREADS * EACH);
    assert_true(consumer.is_in_order);
    assert_int_equal(mailbox_refused(box), 0);
    mailbox_free(box);
    loop_free(consumer.loop);
}

static void test_a_thread_gets_every_item_and_then_learns_that_the_box_is_closed(void **state)
{
    struct consumer consumer = {.is_in_order = true};
    struct mailbox *box = mailbox_new_thread(THREADS * EACH);
    pthread_t threads[THREADS];
    struct producer producers[THREADS];
    start(threads, producers, box);
    void *items[64];
    while (consumer.count < THREADS * EACH)
        take(&consumer, items, mailbox_wait(box, items, 64));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_true(consumer.is_in_order);
    mailbox_close(box);
    assert_int_equal(mailbox_wait(box, items, 64), 0);
    assert_false(mailbox_post(box, box));
    mailbox_free(box);
}

static void test_a_full_box_refuses_and_counts(void **state)
{
    struct mailbox *box = mailbox_new_thread(2);
    int item[3];
    assert_true(mailbox_post(box, &item[0]));
    assert_true(mailbox_post(box, &item[1]));
    assert_false(mailbox_post(box, &item[2]));
    assert_int_equal(mailbox_refused(box), 1);
    void *items[4];
    assert_int_equal(mailbox_drain(box, items, 1), 1);
    assert_ptr_equal(items[0], &item[0]);
    assert_true(mailbox_post(box, &item[2]));
    assert_int_equal(mailbox_drain(box, items, 4), 2);
    assert_ptr_equal(items[1], &item[2]);
    assert_int_equal(mailbox_drain(box, items, 4), 0);
    mailbox_free(box);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_loop_gets_every_item_of_every_thread_in_order),
        cmocka_unit_test(test_a_thread_gets_every_item_and_then_learns_that_the_box_is_closed),
        cmocka_unit_test(test_a_full_box_refuses_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
