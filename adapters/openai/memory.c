#include "openai/memory.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

#include "base/alloc.h"

struct turn {
    STAILQ_ENTRY(turn) entry;
    char *asked, *answered;
    size_t bytes;
};

struct context {
    UT_hash_handle hh; /* in the order of their last use: the oldest first */
    STAILQ_HEAD(, turn) turns;
    size_t bytes;
    char id[];
};

struct openai_memory {
    struct context *contexts;
};

struct openai_memory *openai_memory_new(void)
{
    return xcalloc(1, sizeof(struct openai_memory));
}

static void drop_turn(struct context *context)
{
    struct turn *turn = STAILQ_FIRST(&context->turns);
    STAILQ_REMOVE_HEAD(&context->turns, entry);
    context->bytes -= turn->bytes;
    free(turn->asked);
    free(turn->answered);
    free(turn);
}

static void drop_context(struct openai_memory *memory, struct context *context)
{
    HASH_DEL(memory->contexts, context);
    while (!STAILQ_EMPTY(&context->turns))
        drop_turn(context);
    free(context);
}

void openai_memory_free(struct openai_memory *memory)
{
    while (memory->contexts)
        drop_context(memory, memory->contexts);
    free(memory);
}

/* Moved to the end: it is the newest. */
static struct context *use(struct openai_memory *memory, const char *id)
{
    struct context *context;
    size_t size = strlen(id) + 1;
    HASH_FIND_STR(memory->contexts, id, context);
    if (context) {
        HASH_DEL(memory->contexts, context);
    } else {
        if (HASH_COUNT(memory->contexts) >= OPENAI_CONTEXTS_MAX)
            drop_context(memory, memory->contexts);
        context = xcalloc(1, sizeof *context + size);
        memcpy(context->id, id, size);
        STAILQ_INIT(&context->turns);
    }
    HASH_ADD_STR(memory->contexts, id, context);
    return context;
}

void openai_memory_add(struct openai_memory *memory, const char *id, const char *asked, const char *answered)
{
    struct context *context = use(memory, id);
    struct turn *turn = xcalloc(1, sizeof *turn);
    *turn = (struct turn){.asked = xstrdup(asked), .answered = xstrdup(answered), .bytes = strlen(asked) + strlen(answered)};
    STAILQ_INSERT_TAIL(&context->turns, turn, entry);
    context->bytes += turn->bytes;
    while (context->bytes > OPENAI_CONTEXT_BYTES_MAX)
        drop_turn(context);
}

void openai_message_add(cJSON *messages, const char *role, const char *text)
{
    cJSON *message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "role", role);
    cJSON_AddStringToObject(message, "content", text);
    cJSON_AddItemToArray(messages, message);
}

void openai_memory_write(const struct openai_memory *memory, const char *id, cJSON *messages)
{
    const struct context *context;
    const struct turn *turn;
    HASH_FIND_STR(memory->contexts, id, context);
    if (!context)
        return;
    STAILQ_FOREACH(turn, &context->turns, entry)
    {
        openai_message_add(messages, "user", turn->asked);
        openai_message_add(messages, "assistant", turn->answered);
    }
}
