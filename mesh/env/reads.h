/* Whose turn it is to be told something, and how much of that is on its way out (amp.md 10.13.7). What is large, a read or a watcher that is behind, has a part of each turn of the loop and of what waits to
 * be written; beyond that it waits, and senders have their turns one after the other. What is short leaves at once, until its sender was told much in a short time: from then on it gets a few answers, and
 * no more before the server has taken those. So a peer that asks for more than it takes makes nobody wait but himself. Who it is, is the name in the subject, which the server guards. */
#pragma once
#include <amp/amp.h>
#include <uthash.h>

struct ask;
struct bus_msg;
struct env;
struct out_mark;
struct watcher;

#define ENV_READ_BYTES_MAX ((size_t)8 << 20) /* of what was read, on their way out: beyond it readers and watchers wait */
#define ENV_UNTOLD_BYTES_MAX ((size_t)8 << 20) /* of answers that wait for their senders to take those before */

struct parked { /* a request that waits */
    struct env *env;
    struct parked *next;
    char *subject, *reply;
    bool is_short; /* its answer */
    size_t len;
    uint8_t data[];
};

struct told { /* an answer that waits: for the disk, or until its sender has taken those before it */
    struct env *env;
    struct told *next;
    enum amp_encoding encoding;
    bool is_large;
    struct reader *reader; /* or NULL */
    char *reply;
    size_t len;
    uint8_t data[];
};

struct reader { /* a sender, as long as something of it waits, is watched or is on its way out */
    UT_hash_handle hh; /* by name */
    char name[AMP_NAME_MAX + 1];
    struct parked *first, *last; /* its requests, oldest first */
    struct watcher *behind, *behind_last; /* watch.c */
    struct told *untold, *untold_last; /* answers that wait for him, oldest first */
    size_t untold_bytes;
    uint32_t n_held, n_watchers, n_short; /* n_short: of n_held */
    uint32_t n_hands; /* that answer him just now */
    size_t out_bytes;
    size_t lately_bytes;   /* that he was told; fades */
    int64_t rest_until_us; /* nothing goes to it before that: */
    bool is_slow;          /* the server was held up by what it does not take */
    bool is_suspect;       /* or by what one of several does not take, of which it is one */
    bool is_in_round, is_in_batch;
    struct reader *round_next, *batch_next;
};

struct reads_hand { /* who is answered just now (NULL: nobody), and may that be large? */
    struct reader *reader;
    bool is_large;
};

struct reads { /* of the environment */
    struct reader *readers;            /* who has something here */
    struct reads_hand hand;
    struct reader *round, *round_last; /* whose requests or watchers wait */
    uint32_t n_round;
    struct out_mark *marks, *marks_last; /* what is on its way out, in this order */
    size_t out_bytes, untold_bytes;
    int64_t spent_us; /* in this turn of the loop */
    struct bus_inbox *echo; /* asked behind each batch: when the server has taken it */
    int64_t echo_us;        /* since when; 0: not under way */
    int64_t usual_us;       /* that an echo takes */
    struct reader *batch, *batch_last; /* whose messages are in the batch; NULL: there are none */
    bool is_batch_large;    /* what may be large is among them */
    size_t batch_bytes;
    uint32_t n_paced;       /* of its messages, those to who was told much lately */
};

struct parked *parked_new(struct env *env, const struct bus_msg *msg); /* counted among the readers */
void parked_free(struct parked *held);

/* What is said from here on, until `reads_answered` gets back what this returns, is told to this sender. */
struct reads_hand reads_answer(struct env *env, const char *name);
struct reads_hand reads_answer_reader(struct env *env, struct reader *reader);
void reads_answered(struct env *env, struct reads_hand before);
/* A request that has come, of the sender who is answered. False: it is to be carried out now. True: it waits for its turn, or was refused. */
bool reads_put_off(const struct ask *ask, bool is_large);
/* A read is carried out: the time that it takes, and its answer, are its sender's. */
int64_t reads_begin(struct env *env);
void reads_end(struct env *env, int64_t begun_us);
struct reader *reads_reader(struct env *env, const char *name);
void reads_release(struct env *env, struct reader *reader); /* unless something is left of it */
bool reads_has_room(struct env *env, const struct reader *reader); /* on the way out */
bool reads_is_greedy(uint32_t mine, uint32_t all, uint32_t max);   /* more than twice as many as are still free */
void reads_enter(struct env *env, struct reader *reader);          /* it has something that waits */
/* Bytes that were made, and that go with what was handed to the bus last. */
void reads_made(struct env *env, struct reader *reader, size_t len);
void reads_sent(struct env *env, struct reader *reader, size_t len);
void reads_told(struct env *env, struct reader *reader, size_t len); /* the same of something short */
bool reads_may_tell(struct env *env, const struct reader *reader);   /* something short, now */
/* It waits for its turn. False: as much waits as may, and it is the caller's still. */
bool reads_keep(struct told *told);
bool reads_is_resting(struct env *env, const char *name); /* he takes nothing, and gets nothing for a while */
void reads_sweep(struct env *env); /* each ENV_SWEEP_MS */
void reads_unmade(struct env *env, struct reader *reader, size_t len); /* they go nowhere */
void verbs_turn(struct env *env, const struct parked *held); /* verbs.c: a request whose turn it is */
void verbs_tell(struct told *told);                          /* an answer; it is gone afterwards */
void verbs_told_free(struct told *told);
/* watch.c: gives one watcher of this sender that is behind some of what it lacks. False: nothing could leave. */
bool watch_step(struct reader *reader);
void reads_run(struct env *env); /* the tick */
void reads_on_timer(void *ctx);  /* of the env */
void reads_flush(struct env *env); /* answers that wait go now, but to who does not read */
void reads_stop(struct env *env); /* requests that wait are dropped */
void reads_done(struct env *env);
