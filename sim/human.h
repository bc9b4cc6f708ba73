/* Questions (amp.md 10.10): agents that ask several at once, people who answer them through the inbox, and what both remember. For agent.c, client.c and the checks. */
#pragma once
#include <amp/amp.h>
#include <stdbool.h>
#include <stdint.h>

struct job;
struct task;
struct env_call;
struct journal;

#define ASKED_MAX 4 /* questions of one task */
#define ANSWER_SIZE 48

struct question_plan { /* part of a wish */
    uint32_t n, expires_ms, lazy_ms; /* n 0: nothing is asked; expires_ms 0: never; lazy_ms: how long the person does nothing */
    bool has_default;
};

struct asked { /* a question as people and agents know it */
    char id[AMP_ID_SIZE]; /* "": nobody has seen it in the inbox */
    char acked[ANSWER_SIZE], told[ANSWER_SIZE]; /* the answer that was confirmed; what the first agent that heard was told ("!": that its time is over). "": none yet */
    uint32_t n_sent;
    int64_t asked_us; /* for the first time */
    int64_t seen_us;  /* open in the inbox for the first time, of the environment `seen_starts` */
    uint32_t seen_starts;
};

struct human { /* of one job */
    int64_t lazy_until_us; /* until then one looks, and answers nothing */
    struct env_call *asking, *answering[2];
    uint32_t sent[2]; /* which answer that is */
    size_t at[2];     /* to which question */
    struct asked asked[ASKED_MAX];
};

/* The agent's side. The text of the task says what is to be asked: "ask 7 questions 3 expire 5000 default 1". */
void human_text(const struct question_plan *plan, unsigned n, char *ret, size_t size);
/* Asks everything; on_all once, when each has ended, unless the query is freed before. NULL: this text asks nothing. */
struct query;
struct query *query_new(struct task *task, const char *text, void (*on_all)(void *ctx), void *ctx);
void query_free(struct query *query); /* NULL is fine */

/* The person's side. */
void human_begin(struct job *job);
void human_heard(struct job *job, struct amp_bytes body); /* an event, by the caller of a direct call, who answers what is asked */
void human_hurry(void); /* what is seen to be open is answered now */
void human_end(struct job *job);
void human_check(struct journal *journal, const struct job *job); /* against history */
