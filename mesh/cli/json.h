/* What several commands read from documents and write into them. */
#pragma once
#include <stdint.h>

struct cJSON;

const char *json_text_of(const struct cJSON *object, const char *name); /* "": it is no text, or not there */
int64_t json_time_of(const struct cJSON *object, const char *name);     /* ms since 1970; 0: it is no time, or not there */
void json_add_time(struct cJSON *object, const char *name, int64_t unix_ms); /* not known (0 or less): nothing */
