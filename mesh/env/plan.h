/* plan.c: tasks whose time has not come. A part of env_private.h. */
#pragma once
#include <amp/amp.h>

struct alarm;
struct env;
struct etask;

/* What is wrong with the times of a submit? */
AMP_MUST_USE enum amp_code plan_check(const Amp__Submit *submit, int64_t now_unix_ms, struct amp_error *err);
/* Its plan, if it has one, and its time limit: of a new task, of one of the journal. Before the engine's first step. */
void plan_begin(struct etask *task, const Amp__Submit *submit);
void plan_load(struct etask *task, const Amp__Submit *submit);
void plan_free(struct etask *task); /* NULL is fine */
void plan_follow(struct etask *task); /* after each step of the engine */
void plan_begun(struct etask *task);  /* its time has come: its events say so */
/* The times of its submit as the journal keeps them; `ret` is what they point to. */
struct plan_times {
    Amp__Timestamp not_before, planned;
};
void plan_fill(const struct etask *task, Amp__Submit *kept, struct plan_times *ret);
/* Since when it could have been worked on, or when it will. */
int64_t plan_ready_unix_ms(const struct etask *task);
/* Why it waits, in `arena`; NULL: not because of its time. */
char *plan_waiting(const struct etask *task, struct amp_arena *arena);
void plan_on_alarm(void *ctx); /* of the env; the timer */
void plan_set_alarm(struct env *env, struct alarm *alarm, int64_t due_unix_ms);
