/* Whose turn it is among those who wait for one agent: the real queues, without a bus; tasks are letters (the sender) and digits. */
#include "env/env_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/loop.h"

#define TASKS_MAX 16

struct queue {
    struct env env;
    struct etask tasks[TASKS_MAX];
    size_t count;
    char order[128];
};

static void on_tick(void *ctx)
{
    (void)ctx;
}

static struct etask *task_of(struct queue *queue, const char *name)
{
    for (size_t i = 0; i < queue->count; i++)
        if (strcmp(queue->tasks[i].id, name) == 0)
            return &queue->tasks[i];
    assert_true(queue->count < TASKS_MAX);
    struct etask *task = &queue->tasks[queue->count++];
    snprintf(task->id, sizeof task->id, "%s", name);
    snprintf(task->from, sizeof task->from, "%.1s", name);
    snprintf(task->agent, sizeof task->agent, "up");
    task->env = &queue->env;
    target_join(task);
    return task;
}

static void take_one(struct queue *queue)
{
    struct etask *task = queue->count ? target_next(queue->tasks[0].target) : NULL;
    size_t len = strlen(queue->order);
    snprintf(queue->order + len, sizeof queue->order - len, "%s%s", len ? " " : "", task ? task->id : "-");
}

/* "a1": it is queued; "^a1": at its old place; "-a1": cancelled; "!": one begins. At the end all that are left. */
static void play(struct queue *queue, const char *moves)
{
    char copy[256], *state = NULL;
    snprintf(copy, sizeof copy, "%s", moves);
    for (char *move = strtok_r(copy, " ", &state); move; move = strtok_r(NULL, " ", &state)) {
        if (*move == '!')
            take_one(queue);
        else if (*move == '-')
            target_unqueue(task_of(queue, move + 1));
        else
            target_queue(task_of(queue, *move == '^' ? move + 1 : move), *move == '^');
    }
    while (queue->count && queue->tasks[0].target->n_queued)
        take_one(queue);
}

static void test_senders_take_turns_and_each_keeps_its_order(void **state)
{
    static const struct {
        const char *moves, *order;
    } rows[] = {
        {"a1 a2 a3 a4", "a1 a2 a3 a4"},
        {"a1 a2 a3 a4 b1", "a1 b1 a2 a3 a4"},
        {"a1 a2 a3 b1 b2 c1", "a1 b1 c1 a2 b2 a3"},
        {"a1 a2 a3 ! b1", "a1 a2 b1 a3"},             /* who comes is behind those who wait, but not behind all that they have */
        {"a1 a2 b1 b2 ! ! c1", "a1 b1 a2 b2 c1"},
        {"a1 b1 ! a2 a3", "a1 b1 a2 a3"},             /* who had a turn and comes again is behind who has had none */
        {"a1 a2 b1 ! ^a1", "a1 a1 b1 a2"},            /* nobody took it: it keeps its place, and the turn */
        {"a1 a2 b1 b2 -a1 -b1", "a2 b2"},
        {"a1 b1 c1 -b1", "a1 c1"},
        {"a1 -a1 ! b1 a2", "- b1 a2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct queue *queue = calloc(1, sizeof *queue);
        queue->env.loop = loop_new();
        queue->env.tick = loop_tick_new(queue->env.loop, on_tick, NULL);
        play(queue, rows[i].moves);
        if (strcmp(queue->order, rows[i].order) != 0)
            fail_msg("%s: %s, not %s", rows[i].moves, queue->order, rows[i].order);
        assert_null(queue->env.lanes); /* nothing is kept of who has nothing there */
        for (size_t k = 0; k < queue->count; k++)
            target_part(&queue->tasks[k]);
        targets_done(&queue->env);
        loop_tick_free(queue->env.tick);
        loop_free(queue->env.loop);
        free(queue);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_senders_take_turns_and_each_keeps_its_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
