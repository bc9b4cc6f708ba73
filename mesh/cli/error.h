/* Errors for people and for programs. Pure but for writing to the stream that is given. */
#pragma once
#include <amp/amp.h>
#include <stdio.h>

struct print_style;
struct cJSON;

/* error: MESSAGE (AMESH-2001). Try: HINT — then the death report's lines, if `wire` (may be NULL) has one. */
void error_print(FILE *to, const struct print_style *style, const struct amp_error *err, const Amp__Error *wire);
/* The same of an error that is history: no advice but its own. */
void error_print_plain(FILE *to, const struct print_style *style, const struct amp_error *err, const Amp__Error *wire);
/* {"error":{"code","name","message","hint",…}} and a newline. */
void error_print_json(FILE *to, const struct amp_error *err, const Amp__Error *wire);
/* What to do next, for errors that came without a hint. Never NULL. */
const char *error_default_hint(enum amp_code code);
/* "killed by SIGKILL (out of memory)", "exited with 3". */
void error_death_cause(const Amp__Death *death, char *ret, size_t size);
/* The report's lines for people. */
void error_print_death(FILE *to, const struct print_style *style, const Amp__Death *death, const char *indent);
/* As surface: instance at exit_code signal oom stderr[] tasks[] rss_max_bytes cpu_ms. The caller's. */
struct cJSON *error_death_json(const Amp__Death *death);
