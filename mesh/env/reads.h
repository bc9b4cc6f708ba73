/* Whose turn it is to read, and how much of what was read is on its way out (amp.md 10.13.7). What is large, a read or a watcher that is behind, has a part of each turn of the loop and of what waits to
 * be written; beyond that it waits, and senders have their turns one after the other. So a peer that asks for more than it takes makes nobody wait but himself. */
#pragma once
#include <amp/amp.h>
#include <uthash.h>

struct ask;
struct bus_msg;
struct env;
struct out_mark;
struct watcher;

#define ENV_READ_BYTES_MAX ((size_t)8 << 20) /* of what was read, on their way out: beyond it readers and watchers wait */

struct parked { /* a request that waits */
    struct env *env;
    struct parked *next;
    char *subject, *reply;
    size_t len;
    uint8_t data[];
};

struct reader { /* a sender, as long as something of it waits, is watched or is on its way out */
    UT_hash_handle hh; /* by name */
    char name[AMP_NAME_MAX + 1];
    struct parked *first, *last; /* its requests, oldest first */
    struct watcher *behind, *behind_last; /* watch.c */
    uint32_t n_held, n_watchers;
    size_t out_bytes;
    int64_t rest_until_us; /* nothing goes to it before that: */
    bool is_slow;          /* the server was held up by what it does not take */
    bool is_in_round;
    struct reader *round_next;
};

struct reads { /* of the environment */
    struct reader *readers, *at_hand;  /* who has something here; who reads just now */
    struct reader *round, *round_last; /* whose requests or watchers wait */
    uint32_t n_round;
    struct out_mark *marks, *marks_last; /* what is on its way out, in this order */
    size_t out_bytes;
    int64_t spent_us; /* in this turn of the loop */
    struct bus_inbox *echo; /* asked behind each batch: when the server has taken it */
    int64_t echo_us;        /* since when; 0: not under way */
    struct reader *batch;   /* whose messages are in the batch; NULL: there are none */
    bool is_mixed;          /* other senders' too */
    size_t batch_bytes;
    uint32_t n_wary;        /* so many further ones are of one sender each, to know whose are slow */
};

struct parked *parked_new(struct env *env, const struct bus_msg *msg); /* counted among the readers */
void parked_free(struct parked *held);

/* A read that has come. False: it is to be carried out now. True: it waits for its turn, or was refused. */
bool reads_put_off(const struct ask *ask);
/* A read is carried out: the time that it takes, and its answer, are its sender's. */
int64_t reads_begin(const struct ask *ask);
void reads_end(struct env *env, int64_t begun_us);
/* Of who reads just now (NULL: nobody does). */
struct reader *reads_reader(struct env *env, const char *name);
void reads_release(struct env *env, struct reader *reader); /* unless something is left of it */
bool reads_has_room(struct env *env, const struct reader *reader); /* on the way out */
bool reads_is_greedy(uint32_t mine, uint32_t all, uint32_t max);   /* more than twice as many as are still free */
void reads_enter(struct env *env, struct reader *reader);          /* it has something that waits */
/* Bytes that were made, and that go with what was handed to the bus last. */
void reads_made(struct env *env, struct reader *reader, size_t len);
void reads_sent(struct env *env, struct reader *reader, size_t len);
void reads_unmade(struct env *env, struct reader *reader, size_t len); /* they go nowhere */
void verbs_turn(struct env *env, const struct parked *held); /* verbs.c: a read whose turn it is */
/* watch.c: gives one watcher of this sender that is behind some of what it lacks. False: nothing could leave. */
bool watch_step(struct reader *reader);
void reads_run(struct env *env); /* the tick */
void reads_on_timer(void *ctx);  /* of the env */
void reads_stop(struct env *env); /* requests that wait are dropped */
void reads_done(struct env *env);
