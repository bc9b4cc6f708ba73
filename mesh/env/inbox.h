/* Questions of tasks: inbox.c runs them, inbox_list.c keeps them findable, in the journal and for the verb `inbox`. (amp.md 10.10) */
#pragma once
#include "env/question.h"

struct ask;
struct env;
struct etask;
struct journal_batch;
struct loop_timer;

struct inbox { /* of one task */
    struct questions questions;
    struct loop_timer *timer;
    int64_t again_at; /* what did not come through is told again; 0, QUESTION_NEVER: nothing waits for that */
};

/* ---- hooks, each fine for a task without questions ----------------------------------------------------------------- */

/* Of a fork: this was answered (`amp/answer`) before it began, and is answered so when it is asked. */
void inbox_answered_before(struct etask *task, const char *id, const struct cJSON *form, const struct cJSON *said);
/* An event of an attempt (or of a direct task). True: it was about a question, and what is to be in a durable task's history about it is there. */
bool inbox_take(struct etask *task, int64_t time_unix_ms, struct amp_bytes body);
void inbox_attempt(struct etask *task);   /* an instance has the attempt engine.attempt */
void inbox_lost(struct etask *task);      /* that attempt is over, another follows */
void inbox_closing(struct etask *task);   /* the next event is the last */
void inbox_ended(struct etask *task);
void inbox_committed(struct etask *task); /* more is on the disk */
void inbox_forget(struct etask *task);
uint32_t inbox_count(const struct etask *task); /* open ones */
/* A person's answer to a durable task: answered, now or when it is written down. False: it is about no question that is known here. */
bool inbox_answer(const struct ask *ask, struct etask *task);
/* Has the answer no files, or are they here? False: it was refused, or comes again by itself (files_gate). */
bool inbox_files_here(const struct ask *ask);
void inbox_done(struct env *env);

#define INBOX_OVER_MAX 1024u /* questions of tasks that have ended, of which it is known what became of them; 140 KiB */

/* ---- inbox_list.c ----------------------------------------------------------------------------------------------------- */

struct inbox *inbox_of(struct etask *task); /* made if need be */
/* Into the list, out of it: by its state. */
void inbox_index(struct etask *task, struct question *question);
void inbox_unindex(struct env *env, struct question *question);
/* What has changed, into the batch; and when that was taken. */
void inbox_add_rows(struct etask *task, struct journal_batch *batch);
void inbox_rows_written(struct etask *task);
/* All that the journal has, at start; and of one task that comes back into memory. */
void inbox_load(struct env *env);
void inbox_resume(struct env *env); /* it is decided now what becomes of each of these tasks */
void inbox_load_task(struct etask *task);

/* A page of them, as it is made. */
struct inbox_page {
    const struct ask *ask;
    struct amp_arena *arena;
    Amp__Question *questions[ENV_PAGE_MAX];
    size_t count, max, bytes;
};
struct inbox_token { /* the last question of the page before */
    const char *id; /* NULL: there was none */
    int64_t asked_unix_ms;
};
Amp__Question *inbox_view(const struct question *question, struct amp_arena *arena); /* without what its task has to say; NULL: no room */
bool inbox_page_add(struct inbox_page *page, Amp__Question *question); /* false: not on this page; NULL is none */
void inbox_page_answer(struct inbox_page *page, bool is_cut, uint32_t total);
void inbox_refuse_past(const struct ask *ask, const char *id); /* `id` is no open task, nor an open question: why nobody waits any more */

bool inbox_refuse_over(const struct ask *ask, const char *id); /* what became of that question, if it is one of the last that were closed; NULL is none */

/* ---- inbox_left.c: what is open by the disk, of an environment whose memory is gone (is_given_up) ------------------------- */

void inbox_left_list(struct inbox_page *page, const Amp__InboxQuery *query, const struct inbox_token *token);
void inbox_left_done(struct env *env);
