/* The questions of one task: what is asked by whichever attempt, what was answered, by whom, what became of it. Pure: (questions, event, now) → actions; the
 * environment (inbox.c) does them. A question is known by its id, which every attempt that asks the same makes the same (base/form.h); so what was answered before an attempt was
 * lost is given to the next one, and nobody is asked twice. Times: `now_ms` and due times are monotonic, _unix_ms is for people and for a new environment. (amp.md 10.10) */
#pragma once
#include <amp/amp.h>

struct cJSON;

#define QUESTIONS_KEPT_MAX 256u     /* of one task, open ones included; the oldest that have ended give way */
#define QUESTIONS_BYTES_MAX (8u << 20) /* of their forms and answers */
#define QUESTION_GRACE_MS 5000u     /* a question that its attempt may not want any more waits so long for being asked again */
#define QUESTION_NEVER INT64_MAX
#define QUESTION_ACTIONS_MAX 160u   /* of one step: two for each open question, and a few */

enum question_state { QUESTION_OPEN, QUESTION_ANSWERED, QUESTION_EXPIRED, QUESTION_WITHDRAWN };

struct question {
    struct question *prev, *next; /* in the order of asking */
    char id[AMP_NAME_MAX + 1];
    enum question_state state;
    uint32_t attempt;             /* the last that asked it */
    bool is_asked;                /* that attempt waits for it now */
    bool is_turn;                 /* asked by the end of a turn */
    bool is_due;                  /* what became of it is to be told to the attempt */
    bool has_row, is_changed;     /* in the journal; and not as it is there */
    bool is_gone;                 /* gave way to newer ones: not found any more, and over when its row is deleted */
    struct cJSON *form;
    uint8_t *answer;              /* packed Amp__Answer, once answered */
    size_t answer_len;
    char by[AMP_NAME_MAX + 1];
    int64_t asked_unix_ms, expires_unix_ms; /* expires: 0: never */
    uint64_t order;               /* of those that were asked in the same millisecond */
    int64_t due_at, withdraw_at;  /* QUESTION_NEVER */
    uint32_t seq;                 /* the event that ended it: told to the attempt when that is committed */
    size_t bytes;
    void *entry;                  /* the index's (inbox.c) */
};

struct question_over { /* what is kept of one that nobody waits for any more */
    char id[AMP_NAME_MAX + 1], by[AMP_NAME_MAX + 1];
    enum question_state state;
};

struct questions {
    struct question *first, *last;
    uint32_t n_open, n_kept; /* kept: those that are not gone */
    size_t bytes;
    uint32_t attempt; /* the one at hand */
    bool is_observed; /* a direct task: its sidecar decides, this only keeps the list */
};

enum question_event_kind {
    QUESTION_EV_ASKED,     /* by the attempt: id, form, is_turn, expires_unix_ms */
    QUESTION_EV_TOLD,      /* the attempt says that it has the answer: id */
    QUESTION_EV_CLOSED,    /* the attempt says that it does not want it any more (withdrawn, or expired by its own clock): id, is_expired */
    QUESTION_EV_ANSWER,    /* a person's answer, checked: question, answer, by */
    QUESTION_EV_ATTEMPT,   /* another attempt begins: attempt */
    QUESTION_EV_LOST,      /* the attempt at hand is over without an end of the task */
    QUESTION_EV_TIMER,
    QUESTION_EV_ENDED,     /* the task has ended */
};

struct question_event {
    enum question_event_kind kind;
    const char *id;
    const struct cJSON *form; /* ASKED: checked by form_copy; borrowed */
    bool is_turn, is_expired;
    int64_t now_unix_ms, expires_unix_ms;
    int64_t asked_unix_ms;    /* ASKED: when, if that was before now; 0: now */
    uint64_t order;           /* ASKED: more than of any that was asked before */
    uint32_t attempt;
    struct question *question; /* ANSWER */
    struct amp_bytes answer;   /* ANSWER: packed Amp__Answer */
    const char *by;
};

enum question_action_kind {
    QUESTION_DO_SAY_ASKED,     /* into history, as INPUT_REQUIRED; the question is in the inbox */
    QUESTION_DO_SAY_ANSWERED,
    QUESTION_DO_SAY_AGAIN,     /* a further attempt asked what was answered (or expired) before, and gets that */
    QUESTION_DO_SAY_EXPIRED,
    QUESTION_DO_SAY_WITHDRAWN,
    QUESTION_DO_INDEX,         /* into the inbox, or out of it: by question->state and is_gone */
    QUESTION_DO_REFUSE,        /* not taken: this task has as many as it may; the attempt is to be told */
};

struct question_action {
    enum question_action_kind kind;
    struct question *question; /* REFUSE: NULL */
};

/* Does the event in the order of the actions. Those that say something are to set question->seq if they end one. */
AMP_MUST_USE size_t questions_step(struct questions *questions, const struct question_event *event, int64_t now_ms, struct question_action ret[QUESTION_ACTIONS_MAX]);
/* When the next QUESTION_EV_TIMER is due. */
int64_t questions_due(const struct questions *questions);
struct question *question_find(const struct questions *questions, const char *id);
/* The one that is meant by an answer: AMP_OK; AMP_CONFLICT: answered, expired or withdrawn already; AMP_NO_QUESTION. `id` may be NULL: the only one open. */
AMP_MUST_USE enum amp_code question_pick(const struct questions *questions, const char *id, struct question **ret, struct amp_error *reterr);
/* One that the attempt waits for, other than `but`; NULL: it works. */
struct question_over question_over(const struct question *question);
/* AMP_CONFLICT, with what became of it. */
enum amp_code question_refuse(const struct question_over *over, struct amp_error *reterr);
const struct question *questions_asked(const struct questions *questions, const struct question *but);
/* Was `a` asked before `b`? */
bool question_is_older(const struct question *a, const struct question *b);
const char *question_prompt(const struct question *question);
/* As a row of the journal: JSON, the caller's (free). */
char *question_save(const struct question *question);
/* And back: behind those that are older, not indexed. NULL: it is none. now_ms and now_unix_ms are the same moment. */
struct question *question_load(struct questions *questions, struct amp_bytes json, int64_t now_ms, int64_t now_unix_ms);
/* Those that are gone and have no row any more. */
void questions_sweep(struct questions *questions);
void questions_done(struct questions *questions);
