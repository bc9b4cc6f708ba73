/* Questions as people see them, and what they type as messages. No bus in it. */
#pragma once
#include <amp/amp.h>

#include "cli/print.h"

struct cJSON;

/* The form (base/form.h) of a question of the environment; the caller's. NULL: it has none that is understood. */
struct cJSON *question_form(const Amp__Question *question);
/* The prompt, then each option on a line with its number, for a terminal. */
void question_print(FILE *to, const struct print_style *style, const struct cJSON *form);
/* " [yes|no (Not now)], default: no", " {count: integer 1.., name?: string}": what may be answered, in short; "" for any text. The caller's. */
char *question_short(const struct cJSON *form);
/* What is typed at a question, as the message that answers it, in `arena`: the number of an option stands for it. `form` NULL: text. The answer is checked as the environment will. */
AMP_MUST_USE enum amp_code question_typed(const struct cJSON *form, const char *text, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr);
/* A JSON value as the message. */
AMP_MUST_USE enum amp_code question_json(const struct cJSON *form, const char *json, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr);
/* The options that are named, by number (from 1), value or label. */
AMP_MUST_USE enum amp_code question_chosen(const struct cJSON *form, const char *const *names, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr);
