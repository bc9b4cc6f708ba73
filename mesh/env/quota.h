/* How much each sender may have here: submits per second, open tasks, bytes of requests that wait (amp.md 10.13). Pure: time is an argument. One sender that floods is
 * told when to come back, and takes nothing from the others: what it may have is a number of its own, and never more than twice what is still free for all. */
#pragma once
#include <amp/amp.h>
#include <uthash.h>

#define QUOTA_SENDERS_MAX 10000u /* known at once; those beyond them share one */
#define QUOTA_RULES_MAX 64u
#define QUOTA_RATE 50000u              /* submits/s, unless a rule says otherwise */
#define QUOTA_OPEN 120000u             /* open tasks */
#define QUOTA_BYTES ((uint64_t)1 << 30) /* of their requests */
#define QUOTA_WAIT_MIN_MS 20u          /* told to who is refused, at least and */
#define QUOTA_WAIT_MAX_MS 30000u       /* at most */
#define QUOTA_SHARE 2u                 /* times what is free */

struct quota_limits {
    uint32_t rate;  /* per second; a second's worth may come at once */
    uint32_t open;
    uint64_t bytes;
};

struct quota_rule {
    char sender[AMP_NAME_MAX + 1]; /* "*": everybody who has no rule */
    struct quota_limits limits;
};

struct quota_sender {
    UT_hash_handle hh;
    char name[AMP_NAME_MAX + 1];
    struct quota_limits limits;
    uint32_t open;
    uint64_t bytes;
    int64_t tokens_milli;  /* of a submit's thousandth */
    int64_t filled_ms;     /* as of when */
    int64_t promised_ms;   /* the last one who was refused was told to come then */
    double ends_per_s;     /* of its tasks, as of late */
    int64_t ended_ms;
    uint64_t n_refused;
};

struct quota {
    struct quota_rule rules[QUOTA_RULES_MAX];
    size_t n_rules;
    struct quota_sender *senders;
    struct quota_sender others; /* of all who did not fit */
    struct quota_sender all;    /* ends of everybody, for what everybody waits for */
    uint32_t open_max, open;
    uint64_t n_refused;
};

void quota_init(struct quota *quota, uint32_t open_max);
void quota_done(struct quota *quota);
/* "SENDER=RATE/s,OPEN[,BYTES]", each number may be "-": as it is. SENDER "*" is everybody else. A later rule for the same sender replaces the first. */
AMP_MUST_USE enum amp_code quota_rule(struct quota *quota, const char *text, struct amp_error *reterr);

/* May `sender` submit one more, of `bytes`? AMP_OK; AMP_QUOTA: it has as much as it may; AMP_OVERLOADED: everybody together has. reterr says which, and when there is
 * likely to be room: those who are refused one after the other are told one time after the other. Takes nothing but its token. */
AMP_MUST_USE enum amp_code quota_check(struct quota *quota, const char *sender, uint64_t bytes, int64_t now_ms, struct amp_error *reterr);
/* It has one more, was it checked or found in the journal. */
void quota_add(struct quota *quota, const char *name, uint64_t bytes, int64_t now_ms);
void quota_remove(struct quota *quota, const char *name, uint64_t bytes, int64_t now_ms);
/* Forgets who has nothing here and has not asked for a while. */
void quota_tick(struct quota *quota, int64_t now_ms);
/* When there is room for the next one, if `per_s` find room in a second: those who ask one after the other are told one time after the other. */
uint32_t quota_promise(struct quota_sender *sender, double per_s, int64_t now_ms);
/* Fullest first: who is nearest to a limit of his own. At most `max`. */
size_t quota_fullest(const struct quota *quota, const struct quota_sender **ret, size_t max);
double quota_fill(const struct quota_sender *sender); /* 0 … 1 */
