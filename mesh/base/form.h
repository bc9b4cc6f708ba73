/* The form of a question: what is asked, what may be answered, and what an answer says. Both who asks (a sidecar) and who answers for it (an environment) read it, so that a
 * wrong answer is refused before it reaches the agent. In JSON, as `amp/question` has it (amp.md 6.3.1, 10.10):
 *
 *     {prompt, schema?, options?: ["red", {"value": …, "label"?, "description"?}], multiple?, other?, default?}
 *
 * options: the answer is one of their values, with `multiple` a list of them; with `other` also any other text. schema: schema.h. default: what the agent gets when nobody has
 * answered in time. Pure but for memory. */
#pragma once
#include <amp/amp.h>

struct cJSON;

#define FORM_BYTES_MAX (64u << 10)   /* of a form as JSON */
#define FORM_OPTIONS_MAX 256u
#define FORM_ANSWER_MAX (256u << 10) /* of an answer's message, packed */
#define FORM_DIGEST_SIZE 16u

struct form_spec { /* what an agent says; everything is borrowed */
    const char *prompt;
    const struct cJSON *schema, *options, *fallback; /* or NULL; fallback: `default` */
    bool is_multiple, has_other;
};

/* Checks it and makes the form: the caller's (cJSON_Delete). NULL: *reterr says which member is wrong. */
struct cJSON *form_new(const struct form_spec *spec, struct amp_error *reterr);
/* A form that somebody else made, out of `amp/question`; the same checks. NULL: it is none. */
struct cJSON *form_copy(const struct cJSON *question, struct amp_error *reterr);

/* The same question has the same digest, whenever it is asked: of prompt, schema, options, multiple, other; not of its default. */
void form_digest(const struct cJSON *form, uint8_t ret[FORM_DIGEST_SIZE]);
/* The id of the `nth` question (from 1) of this digest that an attempt at the task asks: "q-…". Another attempt that asks the same gets the same. */
void form_id(const char *task_id, uint32_t nth, const uint8_t digest[FORM_DIGEST_SIZE], char ret[AMP_ID_SIZE]);

/* What the message says. *ret_value (the caller's) stays NULL if the form asks for text only. A part with `data` is the value as it is; else the text is: an option's value or
 * label (without regard to case if that is not ambiguous), with `multiple` several with commas between them; a JSON value; yes or no; or a string where the schema
 * wants one. AMP_INVALID with field and reason; AMP_TOO_LARGE, AMP_TOO_DEEP. */
AMP_MUST_USE enum amp_code form_read(const struct cJSON *form, const Amp__Message *answer, struct cJSON **ret_value, struct amp_error *reterr);
/* A value as text: a string as it is, anything else as JSON. The caller's. */
char *form_text(const struct cJSON *value);
/* The value of option `n` (from 0): borrowed; NULL if there is none. *ret_label (may be NULL): how it is shown, NULL if it has no label of its own. */
const struct cJSON *form_option(const struct cJSON *form, size_t n, const char **ret_label);

/* ---- form_event.c: what history says about a question (amp.md 6.3.1, 10.10.3) ------------------------------------------------
 * Each returns the metadata of a statusUpdate, the caller's (free); NULL where an event cannot carry it. */

/* {"amp/question":{id, …form, expiresAt?, turn?}} */
char *form_say_question(const char *id, const struct cJSON *form, int64_t expires_unix_ms, bool is_turn);
struct form_answer {
    const char *id, *by;          /* by: who answered, NULL: not known */
    const char *text;             /* or NULL */
    const struct cJSON *value;    /* or NULL */
    uint64_t file_bytes;          /* of blobs that came with it (form_answer_file_bytes) */
    bool is_again;                /* given to a further attempt */
};
/* {"amp/answer":{id, by?, text?, value?, again?}}; a text or value over AMP_TEXT_EVENT_MAX is left out, and `bytes` says so, as it does of files. */
char *form_say_answer(const struct form_answer *answer);
/* {"amp/question_closed":{id, why, default?, again?}}; why: "expired", "withdrawn"; again: told to a further attempt */
char *form_say_closed(const char *id, const char *why, const struct cJSON *fallback, bool is_again);
/* How many bytes the blobs of an answer (NULL has none) have. */
uint64_t form_answer_file_bytes(const Amp__Message *answer);
/* The text of an answer: its value's, else that of its message. The caller's. */
char *form_answer_text(const Amp__Message *answer, const struct cJSON *value);
