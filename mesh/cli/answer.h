/* The answer of a task as it comes: text to stdout, notices to stderr, the task as a fold of its events. No bus in it. */
#pragma once
#include <amp/amp.h>

#include "cli/print.h"

struct cJSON;
enum answer_form { ANSWER_TEXT, ANSWER_JSON, ANSWER_EVENTS };

struct answer {
    enum answer_form form;
    bool is_verbose;
    struct print_style out_style, err_style;
    FILE *out, *err;
    struct amp_fold *fold;
    struct amp_arena arena;   /* of the event in hand */
    uint32_t seq;             /* of the last event */
    uint32_t taken;           /* how often an instance took it */
    bool has_text;            /* of the answer, on stdout */
    bool ends_line;           /* the last byte of it was a newline */
    Amp__TaskState state;     /* after the last event */
    char agent[AMP_NAME_MAX + 1], instance[AMP_NAME_MAX + 1];
    struct amp_error missed;  /* the first event with a file that was refused; its text, if any, was printed all the same */
    char *status_text;        /* of the last status that had one: reason or question */
    struct cJSON *question;   /* its form (base/form.h), if the last status asked one that is understood */
    char question_id[AMP_NAME_MAX + 1]; /* "": it has none */
    int64_t ready_unix_ms, taken_unix_ms, ended_unix_ms; /* of the attempt, for the document; set by the caller, 0: not known */
};

/* Streams and styles are set by the caller afterwards if they are not stdout, stderr and plain. */
void answer_init(struct answer *answer, const char *task_id, const char *context_id, enum answer_form form);
void answer_done(struct answer *answer);
/* Prints what the event brings and folds it. AMP_BAD_ANSWER: it is not an event. */
AMP_MUST_USE enum amp_code answer_take(struct answer *answer, uint32_t seq, const Amp__Event *event, struct amp_error *reterr);
void answer_taken(struct answer *answer, const char *agent, const char *instance);
void answer_notice(struct answer *answer, const char *fmt, ...) AMP_PRINTF(2, 3);
/* Ends the line of text on a terminal. */
void answer_end_text(struct answer *answer);
/* The task as one document, as an environment would record it. `parent` may be NULL; `err` (NULL or AMP_OK: none) is why the call ended without the task. */
void answer_print_task(struct answer *answer, const char *parent, const struct amp_error *err);
/* What the state says: AMP_OK, TASK_FAILED (with the reason), REJECTED, CANCELED, INPUT_REQUIRED; AMP_BAD_ANSWER if the task has not ended. */
enum amp_code answer_outcome(const struct answer *answer, struct amp_error *reterr);
