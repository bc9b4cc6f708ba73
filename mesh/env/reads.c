#include "env_private.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TURN_US 10000                        /* of each turn of the loop; twice, as much may be read while messages are taken in */
#define READER_OUT_BYTES_MAX ((size_t)2 << 20) /* of one sender, on their way out */
#define BATCH_BYTES_MAX ((size_t)512 << 10) /* that the server takes before there is more */
#define SLOW_US 200000 /* until it has: somebody does not read, and it waits for him */
#define SWIFT_US 20000 /* he reads again */
#define REST 4         /* times that long he gets nothing */
#define REST_MAX_US 10000000
#define WARY 8u        /* batches of one sender each, after one of several was slow */
#define OUT_WAIT_MS 20u                      /* until what waits for room there is looked at again */
#define MARK_BYTES_MIN 512u                  /* bounds the marks */

struct out_mark { /* bytes that have left when the bus has written as far as this */
    struct out_mark *next;
    struct reader *reader;
    size_t len;
    uint64_t end;
};

/* ---- requests that wait -------------------------------------------------------------------------------------------------- */

struct parked *parked_new(struct env *env, const struct bus_msg *msg)
{
    struct parked *held = xcalloc(1, sizeof *held + msg->data.len);
    *held = (struct parked){.env = env, .subject = xstrdup(msg->subject), .reply = xstrdup(msg->reply), .len = msg->data.len};
    memcpy(held->data, msg->data.data, msg->data.len);
    env->n_held++;
    env->held_bytes += held->len;
    return held;
}

void parked_free(struct parked *held)
{
    held->env->n_held--;
    held->env->held_bytes -= held->len;
    free(held->subject);
    free(held->reply);
    free(held);
}

/* ---- senders ------------------------------------------------------------------------------------------------------------- */

struct reader *reads_reader(struct env *env, const char *name)
{
    struct reader *reader;
    HASH_FIND_STR(env->reads.readers, name, reader);
    if (reader)
        return reader;
    reader = xcalloc(1, sizeof *reader);
    etask_strcpy(reader->name, name);
    HASH_ADD_STR(env->reads.readers, name, reader);
    return reader;
}

void reads_release(struct env *env, struct reader *reader)
{
    if (reader->n_held || reader->n_watchers || reader->out_bytes || reader->is_in_round || reader == env->reads.at_hand || reader == env->reads.batch)
        return;
    assert(env->reads.readers);
    HASH_DEL(env->reads.readers, reader);
    free(reader);
}

bool reads_is_greedy(uint32_t mine, uint32_t all, uint32_t max)
{
    return all >= max || mine > 2 * (max - all);
}

/* ---- the way out --------------------------------------------------------------------------------------------------------- */

void reads_made(struct env *env, struct reader *reader, size_t len)
{
    reader->out_bytes += len;
    env->reads.out_bytes += len;
}

void reads_unmade(struct env *env, struct reader *reader, size_t len)
{
    reader->out_bytes -= len;
    env->reads.out_bytes -= len;
    reads_release(env, reader);
}

static void join_batch(struct env *env, struct reader *reader, size_t len)
{
    struct reads *reads = &env->reads;
    if (!reads->batch) {
        reads->batch = reader;
        env_request_tick(env);
    }
    reads->is_mixed |= reads->batch != reader;
    reads->batch_bytes += len;
}

void reads_sent(struct env *env, struct reader *reader, size_t len)
{
    struct out_mark *last = env->reads.marks_last;
    len = len < MARK_BYTES_MIN ? MARK_BYTES_MIN : len;
    reads_made(env, reader, len);
    if (!last || last->reader != reader) {
        struct out_mark *mark = xcalloc(1, sizeof *mark);
        mark->reader = reader;
        *(last ? &last->next : &env->reads.marks) = mark;
        env->reads.marks_last = last = mark;
    }
    last->len += len;
    last->end = bus_handed_bytes(env->bus);
    join_batch(env, reader, len);
}

static void drop_mark(struct env *env)
{
    struct out_mark *mark = env->reads.marks;
    env->reads.marks = mark->next;
    if (!mark->next)
        env->reads.marks_last = NULL;
    reads_unmade(env, mark->reader, mark->len);
    free(mark);
}

static void settle(struct env *env)
{
    uint64_t left = bus_handed_bytes(env->bus) - bus_waiting_bytes(env->bus);
    while (env->reads.marks && env->reads.marks->end <= left)
        drop_mark(env);
}

static bool may_join(const struct reads *reads, const struct reader *reader)
{
    if (!reads->batch)
        return true;
    bool is_alone = reader->is_slow || reads->batch->is_slow || (reads->n_wary > 0 && reads->batch != reader);
    return !is_alone && reads->batch_bytes < BATCH_BYTES_MAX;
}

bool reads_has_room(struct env *env, const struct reader *reader)
{
    const struct reads *reads = &env->reads;
    return reads->out_bytes < ENV_READ_BYTES_MAX && reader->out_bytes < READER_OUT_BYTES_MAX && reads->echo_us == 0 && may_join(reads, reader) &&
           (reader->rest_until_us == 0 || clock_mono_us() >= reader->rest_until_us);
}

/* ---- what the server has taken ------------------------------------------------------------------------------------------- */

static void judge(struct reads *reads, int64_t now_us)
{
    struct reader *reader = reads->batch;
    int64_t took_us = now_us - reads->echo_us;
    reads->n_wary -= reads->n_wary > 0;
    if (reads->is_mixed) {
        reads->n_wary = took_us >= SLOW_US ? WARY : reads->n_wary;
        return;
    }
    if (took_us < SWIFT_US)
        reader->is_slow = false;
    else if (took_us >= SLOW_US)
        reader->is_slow = true;
    int64_t rest_us = took_us * REST < REST_MAX_US ? took_us * REST : REST_MAX_US;
    reader->rest_until_us = reader->is_slow ? now_us + rest_us : 0;
}

static void end_batch(struct env *env)
{
    struct reader *reader = env->reads.batch;
    env->reads.batch = NULL;
    env->reads.is_mixed = false;
    env->reads.batch_bytes = 0;
    env->reads.echo_us = 0;
    if (reader)
        reads_release(env, reader);
    env_request_tick(env);
}

static void on_echo(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct env *env = ctx;
    (void)msg, (void)text;
    if (env->reads.echo_us == 0)
        return;
    if (kind == BUS_INBOX_MSG || kind == BUS_INBOX_NO_RESPONDERS)
        judge(&env->reads, clock_mono_us());
    end_batch(env);
}

/* The server handles what one connection sends in order, and waits a while for a subscriber that does not read: then everybody waits who is told something behind it. */
static void ask_echo(struct env *env)
{
    struct reads *reads = &env->reads;
    if (!reads->batch || reads->echo_us != 0)
        return;
    if (!reads->echo)
        reads->echo = bus_inbox_new(env->bus, on_echo, env);
    reads->echo_us = clock_mono_us();
    if (bus_inbox_request(reads->echo, bus_inbox_subject(reads->echo), amp_bytes_of("")) != AMP_OK)
        end_batch(env);
}

/* ---- turns --------------------------------------------------------------------------------------------------------------- */

static void enter(struct env *env, struct reader *reader)
{
    struct reads *reads = &env->reads;
    reader->is_in_round = true;
    reader->round_next = NULL;
    *(reads->round ? &reads->round_last->round_next : &reads->round) = reader;
    reads->round_last = reader;
    reads->n_round++;
}

void reads_enter(struct env *env, struct reader *reader)
{
    if (!reader->is_in_round)
        enter(env, reader);
    env_request_tick(env);
}

static struct reader *leave(struct env *env)
{
    struct reads *reads = &env->reads;
    struct reader *reader = reads->round;
    reads->round = reader->round_next;
    reader->is_in_round = false;
    reads->n_round--;
    return reader;
}

static void wait_for_turn(const struct ask *ask, struct reader *reader)
{
    struct env *env = ask->env;
    if (reads_is_greedy(reader->n_held, env->n_held, ENV_HELD_MAX) || env->held_bytes + ask->msg->data.len > ENV_HELD_BYTES_MAX) {
        load_refuse(ask, "too many wait to read");
        reads_release(env, reader);
        return;
    }
    struct parked *held = parked_new(env, ask->msg);
    *(reader->first ? &reader->last->next : &reader->first) = held;
    reader->last = held;
    reader->n_held++;
    reads_enter(env, reader);
}

bool reads_put_off(const struct ask *ask)
{
    struct env *env = ask->env;
    settle(env);
    struct reader *reader = reads_reader(env, ask->from);
    bool is_turn = env->reads.spent_us < TURN_US && !reader->first && reads_has_room(env, reader);
    if (is_turn)
        reads_release(env, reader);
    else
        wait_for_turn(ask, reader);
    return !is_turn;
}

int64_t reads_begin(const struct ask *ask)
{
    ask->env->reads.at_hand = reads_reader(ask->env, ask->from);
    return clock_mono_us();
}

void reads_end(struct env *env, int64_t begun_us)
{
    struct reader *reader = env->reads.at_hand;
    env->reads.at_hand = NULL;
    env->reads.spent_us += clock_mono_us() - begun_us;
    if (env->reads.spent_us >= TURN_US)
        env_request_tick(env); /* where the next turn begins */
    reads_release(env, reader);
}

/* False: nothing could leave. */
static bool serve(struct env *env, struct reader *reader)
{
    struct parked *held = reader->first;
    int64_t begun_us = clock_mono_us();
    bool has_moved = reader->behind && watch_step(reader);
    env->reads.spent_us += clock_mono_us() - begun_us;
    if (!held || !reads_has_room(env, reader))
        return has_moved;
    reader->first = held->next;
    reader->n_held--;
    verbs_turn(env, held);
    parked_free(held);
    return true;
}

void reads_run(struct env *env)
{
    struct reads *reads = &env->reads;
    uint32_t n_stuck = 0;
    settle(env);
    for (reads->spent_us = 0; reads->round && bus_is_up(env->bus) && reads->spent_us < TURN_US && n_stuck < reads->n_round;) {
        struct reader *reader = leave(env);
        reader->n_held++; /* it stays while it is served */
        bool has_moved = reads_has_room(env, reader) && serve(env, reader);
        reader->n_held--;
        n_stuck = has_moved ? 0 : n_stuck + 1;
        if (reader->is_in_round)
            continue; /* what it asked for entered it */
        if (reader->first || reader->behind)
            enter(env, reader);
        else
            reads_release(env, reader);
    }
    ask_echo(env);
    bool is_stuck = reads->round && n_stuck >= reads->n_round;
    reads->spent_us = 0;
    if (is_stuck && !loop_timer_is_set(env->behind))
        loop_timer_set(env->behind, OUT_WAIT_MS);
    else if (reads->round && !is_stuck && bus_is_up(env->bus)) /* a bus that is away: env_bus_up */
        env_request_tick(env);
}

void reads_on_timer(void *ctx)
{
    env_request_tick(ctx);
}

void reads_stop(struct env *env)
{
    struct reader *reader, *next;
    HASH_ITER(hh, env->reads.readers, reader, next) {
        while (reader->first) {
            struct parked *held = reader->first;
            reader->first = held->next;
            reader->n_held--;
            parked_free(held);
        }
    }
}

void reads_done(struct env *env)
{
    bus_inbox_free(env->reads.echo);
    env->reads.echo_us = 0;
    env->reads.echo = NULL;
    while (env->reads.marks)
        drop_mark(env);
    while (env->reads.round)
        reads_release(env, leave(env));
    if (env->reads.batch)
        end_batch(env);
}
