/* Calls that wait for a free slot, one queue per agent or skill that is asked for (amp.md 10.14). Pure: time is an argument, nothing is sent. Everything is bounded.
 *
 * What decides is one number, when a call counts as having come: the moment it began to wait; later, for a sender that has far more than its share of those that wait, by
 * a fair share of the time behind its last one, so that it does not hold up who sends little; earlier or later by its priority, a fixed time, so that whatever waits long enough is first some day. */
#pragma once
#include <amp/amp.h>

#define TURNS_MAX 100000u           /* calls that wait, of all */
#define TURNS_QUEUE_MAX 10000u      /* for one agent or skill */
#define TURNS_SENDER_MAX 2500u      /* of them of one sender */
#define TURNS_BURST 16u             /* calls of one sender that wait in the order in which they came, whatever its share */
#define TURNS_PRIORITY_MS 10000     /* high counts as having come so much earlier, low so much later */
#define TURNS_RENEW_MAX_MS 5000u    /* who has not said for so long that it waits, waits no more */
#define TURNS_GIVEN_MS 2000u        /* whose turn it was, and who was not taken all the same, is first again for so long */
#define TURNS_GAPS_MIN 8u           /* turns measured before anything is said about how long it takes */

struct turns;

struct turn_call { /* all borrowed */
    const char *task, *from;   /* `from` of turns_next ends with a space */
    const char *agent, *skill; /* one of them */
    const char *reply;         /* where it is told */
    enum amp_encoding encoding;
    Amp__Priority priority;
    uint32_t timeout_ms;       /* 0: none */
};

struct turn_place {
    uint32_t position; /* from 1 */
    uint32_t about_ms; /* until its turn; 0: not known */
};

struct turns *turns_new(void);
void turns_free(struct turns *turns);

/* It waits, or goes on to (then only its place is told). AMP_OVERLOADED: no room; AMP_QUOTA: its sender has its share; AMP_DEADLINE: its turn will not come in its time.
 * All with retry_after_ms where it is known. */
AMP_MUST_USE enum amp_code turns_wait(struct turns *turns, const struct turn_call *call, int64_t now_ms, struct turn_place *ret, struct amp_error *reterr);
int64_t turns_waited_ms(const struct turns *turns, const char *from, const char *task, int64_t now_ms); /* since it came; 0: it is not known */
bool turns_has(const struct turns *turns, const char *from, const char *task);
/* False: it did not wait. */
bool turns_withdraw(struct turns *turns, const char *from, const char *task);

struct turn_seeker { /* who has a slot */
    const char *agent;
    const Amp__AgentCard *card; /* NULL: no skills are known */
};
/* Since when the first for this seeker counts as waiting; INT64_MAX: nobody waits. */
int64_t turns_first_ms(const struct turns *turns, const struct turn_seeker *seeker);
uint32_t turns_waiting(const struct turns *turns, const struct turn_seeker *seeker);
/* It is the turn of the first one, which waits no more; what `ret` points to lives until the next sweep. False: nobody waits. */
bool turns_next(struct turns *turns, const struct turn_seeker *seeker, int64_t now_ms, struct turn_call *ret);
/* Nobody waited for it a moment ago, and it listens: so many calls that come now need not wait (they found nobody just before). */
void turns_idle(struct turns *turns, const struct turn_seeker *seeker, uint32_t slots, int64_t now_ms);
/* An instance has taken a call: one that was free is not any more. */
void turns_taken(struct turns *turns, const struct turn_seeker *seeker);
/* Such a slot for this call? No other one is sent for it, unless it becomes free again. */
bool turns_take_idle(struct turns *turns, const char *agent, const char *skill, int64_t now_ms);
/* An instance asks itself whenever it has a slot, until it says that it has joined its groups again (or has not asked for a while): nobody is sent there unasked. */
void turns_asked(struct turns *turns, const char *instance, bool is_joined, int64_t now_ms);
bool turns_asks(const struct turns *turns, const char *instance, int64_t now_ms);
/* Forgets who did not renew. */
void turns_sweep(struct turns *turns, int64_t now_ms);
size_t turns_count(const struct turns *turns); /* that wait */
