/* What the agents see of leases (amp.md 10.7), for agent.c and for the checks. */
#pragma once
#include "scenario.h"

#include <sys/queue.h>

struct task;

struct hold { /* an agent at work on one attempt; the agent's memory */
    struct task *task;
    struct sidecar *sidecar;
    bool was_told;         /* to stop */
    bool is_waiting;       /* for an answer: it does not hang */
    uint32_t n_starts;     /* of the environment, when it was begun */
    int64_t superseded_us; /* since when another attempt is worked on; 0: none is */
    int64_t progress_us;   /* when it did something */
    uint32_t attached;     /* the last Attach of its caller that its sidecar is known to have had */
    int64_t alone_us;      /* when it was last seen without a bus that the server had ended; 0: never */
    LIST_ENTRY(hold) entry;
};
void hold_forget_all(void);
void hold_begin(struct hold *hold, struct task *task, struct sidecar *sidecar);
void hold_end(struct hold *hold);
void hold_told(struct hold *hold);
void hold_step(struct hold *hold);         /* it does something now: may it still? */
void hold_result(const struct hold *hold); /* it is about to say how it ended */

/* One that works on a further attempt: where it hears controls, and its epoch. False: nobody does. */
bool hold_pick(uint32_t chance, char ret_subject[AMP_SUBJECT_SIZE], uint64_t *ret_epoch);

bool hold_look(void); /* now and then: has the environment heard of all that came too late? */
void hold_env_stops(void);
void hold_check(const char *task, const char *attempts); /* what history says of them */
