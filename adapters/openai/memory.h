/* What was said in each context (`id`), as long as there is room: the last turns of the contexts that were used last. Pure. */
#pragma once
#include <stddef.h>

#define OPENAI_CONTEXTS_MAX 1000u
#define OPENAI_CONTEXT_BYTES_MAX (256u << 10) /* of one: beyond it the oldest turns are forgotten */

struct cJSON;
struct openai_memory;

struct openai_memory *openai_memory_new(void);
void openai_memory_free(struct openai_memory *memory);
void openai_memory_add(struct openai_memory *memory, const char *id, const char *asked, const char *answered);
void openai_memory_write(const struct openai_memory *memory, const char *id, struct cJSON *messages); /* appends all turns, oldest first */
void openai_message_add(struct cJSON *messages, const char *role, const char *text);
