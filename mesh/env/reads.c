#include "env_private.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TURN_US 10000                        /* of each turn of the loop; twice, as much may be read while messages are taken in */
#define READER_OUT_BYTES_MAX ((size_t)2 << 20) /* of one sender, on their way out */
#define BATCH_BYTES_MAX ((size_t)512 << 10) /* that the server takes before there is more */
#define SLOW_US 200000 /* until it has: somebody does not read, and it waits for him */
#define SHORT_SLOW_US 80000 /* longer than usual, and of what is short: nats-server 2.9 waits 100 ms or more with each message */
#define SHORT_BATCH_BYTES ((size_t)64 << 10)
#define SWIFT_US 20000 /* he reads again */
#define REST 4         /* times that long he gets nothing */
#define REST_MAX_US 10000000
#define MUCH_BYTES ((size_t)8 << 20)   /* told to one sender lately: a quarter of what nats-server keeps for one that does not read before it waits for him */
#define LATELY_BYTES_MAX (4 * MUCH_BYTES) /* so it is known for longer than the 10 s in which the server gives up who does not read */
#define FADES_BYTES ((size_t)1 << 20)  /* of that each sweep */
#define AT_ONCE 16u    /* messages to such senders, until the server has taken them: it may wait with each, and leases last 3 s */
#define ECHO_FROM 8u   /* messages to such senders, when nobody waits: one echo is for several */
#define READERS_MAX 20000u             /* further senders count as one */
#define READER_UNTOLD_BYTES ((size_t)256 << 10) /* of one sender; beyond it his requests wait, too */
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
    if (!reader && *name && HASH_COUNT(env->reads.readers) >= READERS_MAX)
        return reads_reader(env, "");
    if (reader)
        return reader;
    reader = xcalloc(1, sizeof *reader);
    etask_strcpy(reader->name, name);
    HASH_ADD_STR(env->reads.readers, name, reader);
    return reader;
}

void reads_release(struct env *env, struct reader *reader)
{
    if (reader->n_held || reader->n_watchers || reader->n_hands || reader->untold || reader->out_bytes || reader->lately_bytes || reader->is_in_round || reader->is_in_batch)
        return;
    assert(env->reads.readers);
    HASH_DEL(env->reads.readers, reader);
    free(reader);
}

bool reads_is_greedy(uint32_t mine, uint32_t all, uint32_t max)
{
    return all >= max || mine > 2 * (max - all);
}

struct reads_hand reads_answer_reader(struct env *env, struct reader *reader)
{
    struct reads_hand before = env->reads.hand;
    if (reader)
        reader->n_hands++;
    env->reads.hand = (struct reads_hand){.reader = reader};
    return before;
}

struct reads_hand reads_answer(struct env *env, const char *name)
{
    return reads_answer_reader(env, reads_reader(env, name));
}

void reads_answered(struct env *env, struct reads_hand before)
{
    struct reader *reader = env->reads.hand.reader;
    env->reads.hand = before;
    if (!reader)
        return;
    reader->n_hands--;
    reads_release(env, reader);
}

/* ---- the way out --------------------------------------------------------------------------------------------------------- */

static bool is_told_much(const struct reader *reader)
{
    return reader->lately_bytes >= MUCH_BYTES;
}

/* It gets one message at a time. */
static bool is_alone(const struct reader *reader)
{
    return reader->is_slow || reader->is_suspect;
}

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
    if (!reads->batch)
        env_request_tick(env);
    if (!reader->is_in_batch) {
        reader->is_in_batch = true;
        reader->batch_next = NULL;
        *(reads->batch ? &reads->batch_last->batch_next : &reads->batch) = reader;
        reads->batch_last = reader;
    }
    reads->batch_bytes += len;
    reads->n_paced += is_told_much(reader);
}

static void count_lately(struct reader *reader, size_t len)
{
    reader->lately_bytes += len;
    if (reader->lately_bytes > LATELY_BYTES_MAX)
        reader->lately_bytes = LATELY_BYTES_MAX;
}

static void send_marked(struct env *env, struct reader *reader, size_t len)
{
    struct out_mark *last = env->reads.marks_last;
    len = len < MARK_BYTES_MIN ? MARK_BYTES_MIN : len;
    count_lately(reader, len);
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

void reads_sent(struct env *env, struct reader *reader, size_t len)
{
    send_marked(env, reader, len);
    env->reads.is_batch_large = true;
}

void reads_told(struct env *env, struct reader *reader, size_t len)
{
    if (is_told_much(reader))
        send_marked(env, reader, len);
    else
        count_lately(reader, len < MARK_BYTES_MIN ? MARK_BYTES_MIN : len);
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
    return !is_alone(reader) && !is_alone(reads->batch) && reads->batch_bytes < BATCH_BYTES_MAX && (reads->n_paced < AT_ONCE || !is_told_much(reader));
}

bool reads_has_room(struct env *env, const struct reader *reader)
{
    const struct reads *reads = &env->reads;
    return reads->out_bytes < ENV_READ_BYTES_MAX && reader->out_bytes < READER_OUT_BYTES_MAX && reads->echo_us == 0 && may_join(reads, reader) &&
           (reader->rest_until_us == 0 || clock_mono_us() >= reader->rest_until_us);
}

bool reads_may_tell(struct env *env, const struct reader *reader)
{
    if (env->is_stopping || !is_told_much(reader))
        return true; /* nothing of what it was told can hold up the server yet */
    return !reader->untold && !env->reads.round && reads_has_room(env, reader);
}

bool reads_is_resting(struct env *env, const char *name)
{
    const struct reader *reader;
    HASH_FIND_STR(env->reads.readers, name, reader);
    return reader && reader->rest_until_us > clock_mono_us();
}

/* ---- answers that wait --------------------------------------------------------------------------------------------------- */

bool reads_keep(struct told *told)
{
    struct env *env = told->env;
    struct reader *reader = told->reader;
    size_t bytes = sizeof *told + told->len;
    if (reads_is_greedy((uint32_t)(reader->untold_bytes + bytes), (uint32_t)(env->reads.untold_bytes + bytes), ENV_UNTOLD_BYTES_MAX))
        return false;
    told->next = NULL;
    *(reader->untold ? &reader->untold_last->next : &reader->untold) = told;
    reader->untold_last = told;
    reader->untold_bytes += bytes;
    env->reads.untold_bytes += bytes;
    counter_add(COUNTER_env_answers_put_off, 1);
    reads_enter(env, reader);
    return true;
}

static struct told *pop_untold(struct reader *reader)
{
    struct told *told = reader->untold;
    size_t bytes = sizeof *told + told->len;
    reader->untold = told->next;
    reader->untold_bytes -= bytes;
    told->env->reads.untold_bytes -= bytes;
    return told;
}

/* ---- what the server has taken ------------------------------------------------------------------------------------------- */

/* Each of them is told one thing alone, and is cleared by that. */
static void suspect_all(const struct reads *reads)
{
    for (struct reader *reader = reads->batch; reader; reader = reader->batch_next)
        reader->is_suspect = true;
}

static bool is_slow_batch(const struct reads *reads, int64_t took_us)
{
    bool is_short = reads->n_paced > 0 && reads->batch_bytes <= SHORT_BATCH_BYTES;
    return is_short ? took_us >= reads->usual_us + SHORT_SLOW_US : took_us >= SLOW_US;
}

static void learn_usual(struct reads *reads, int64_t took_us)
{
    if (took_us < reads->usual_us || reads->usual_us == 0)
        reads->usual_us = took_us < SLOW_US ? took_us : reads->usual_us;
    else
        reads->usual_us += (took_us - reads->usual_us) / 16;
}

static void judge(struct reads *reads, int64_t now_us)
{
    struct reader *reader = reads->batch;
    int64_t took_us = now_us - reads->echo_us;
    bool is_slow = is_slow_batch(reads, took_us);
    if (!is_slow)
        learn_usual(reads, took_us);
    if (reader->batch_next) {
        if (is_slow)
            suspect_all(reads);
        return;
    }
    reader->is_suspect = false;
    if (is_slow)
        reader->is_slow = true;
    else if (took_us < reads->usual_us + SWIFT_US)
        reader->is_slow = false;
    int64_t rest_us = took_us * REST < REST_MAX_US ? took_us * REST : REST_MAX_US;
    reader->rest_until_us = reader->is_slow ? now_us + rest_us : 0;
}

static void end_batch(struct env *env)
{
    struct reader *next;
    for (struct reader *reader = env->reads.batch; reader; reader = next) {
        next = reader->batch_next;
        reader->is_in_batch = false;
        reads_release(env, reader);
    }
    env->reads.batch = NULL;
    env->reads.is_batch_large = false;
    env->reads.batch_bytes = 0;
    env->reads.n_paced = 0;
    env->reads.echo_us = 0;
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
    else if (kind == BUS_INBOX_DOWN)
        suspect_all(&env->reads); /* one may be why */
    end_batch(env);
}

/* The server handles what one connection sends in order, and waits a while for a subscriber that does not read: then everybody waits who is told something behind it. */
static void ask_echo(struct env *env, bool is_late)
{
    struct reads *reads = &env->reads;
    if (!reads->batch || reads->echo_us != 0)
        return;
    if (!is_late && !reads->is_batch_large && !reads->round && !is_alone(reads->batch) && reads->n_paced < ECHO_FROM)
        return; /* more may come, and is asked for together */
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

static void wait_for_turn(const struct ask *ask, struct reader *reader, bool is_large)
{
    struct env *env = ask->env;
    if (reads_is_greedy(reader->n_held, env->n_held, ENV_HELD_MAX) || env->held_bytes + ask->msg->data.len > ENV_HELD_BYTES_MAX) {
        load_refuse(ask, is_large ? "too many wait to read" : "too much that you were told waits to be read");
        return;
    }
    struct parked *held = parked_new(env, ask->msg);
    held->is_short = !is_large;
    reader->n_short += held->is_short;
    *(reader->first ? &reader->last->next : &reader->first) = held;
    reader->last = held;
    reader->n_held++;
    reads_enter(env, reader);
}

/* What is short keeps its order. */
bool reads_put_off(const struct ask *ask, bool is_large)
{
    struct env *env = ask->env;
    struct reader *reader = env->reads.hand.reader;
    if (is_large)
        settle(env);
    bool is_turn = is_large ? env->reads.spent_us < TURN_US && !reader->first && !reader->untold && reads_has_room(env, reader) : reader->n_short == 0 && reader->untold_bytes < READER_UNTOLD_BYTES;
    if (!is_turn)
        wait_for_turn(ask, reader, is_large);
    return !is_turn;
}

int64_t reads_begin(struct env *env)
{
    env->reads.hand.is_large = true;
    return clock_mono_us();
}

void reads_end(struct env *env, int64_t begun_us)
{
    env->reads.hand.is_large = false;
    env->reads.spent_us += clock_mono_us() - begun_us;
    if (env->reads.spent_us >= TURN_US)
        env_request_tick(env); /* where the next turn begins */
}

static struct parked *pop_held(struct reader *reader)
{
    struct parked *held = reader->first;
    reader->first = held->next;
    reader->n_held--;
    reader->n_short -= held->is_short;
    return held;
}

/* False: nothing could leave. */
static bool serve(struct env *env, struct reader *reader)
{
    struct parked *held = reader->first;
    int64_t begun_us = clock_mono_us();
    bool has_moved = reader->untold != NULL;
    if (reader->untold)
        verbs_tell(pop_untold(reader));
    has_moved |= reader->behind && reads_has_room(env, reader) && watch_step(reader);
    env->reads.spent_us += clock_mono_us() - begun_us;
    if (!held || reader->untold_bytes >= (held->is_short ? READER_UNTOLD_BYTES / 2 : 1) || !reads_has_room(env, reader))
        return has_moved;
    held = pop_held(reader);
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
        if (reader->untold || reader->first || reader->behind)
            enter(env, reader);
        else
            reads_release(env, reader);
    }
    ask_echo(env, false);
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

void reads_sweep(struct env *env)
{
    struct reader *reader, *next;
    HASH_ITER(hh, env->reads.readers, reader, next) {
        reader->lately_bytes -= reader->lately_bytes < FADES_BYTES ? reader->lately_bytes : FADES_BYTES;
        reads_release(env, reader);
    }
    ask_echo(env, true);
}

void reads_stop(struct env *env)
{
    struct reader *reader, *next;
    HASH_ITER(hh, env->reads.readers, reader, next)
        while (reader->first)
            parked_free(pop_held(reader));
}

void reads_flush(struct env *env)
{
    struct reader *reader, *next;
    HASH_ITER(hh, env->reads.readers, reader, next) {
        reader->n_held++; /* it stays while it is told */
        while (reader->untold && !is_alone(reader))
            verbs_tell(pop_untold(reader));
        reader->n_held--;
    }
}

static void drop_reader(struct env *env, struct reader *reader)
{
    reader->lately_bytes = 0;
    while (reader->untold)
        verbs_told_free(pop_untold(reader));
    reads_release(env, reader);
}

void reads_done(struct env *env)
{
    struct reader *reader, *next;
    bus_inbox_free(env->reads.echo);
    env->reads.echo_us = 0;
    env->reads.echo = NULL;
    while (env->reads.marks)
        drop_mark(env);
    while (env->reads.round)
        reads_release(env, leave(env));
    if (env->reads.batch)
        end_batch(env);
    HASH_ITER(hh, env->reads.readers, reader, next)
        drop_reader(env, reader);
}
