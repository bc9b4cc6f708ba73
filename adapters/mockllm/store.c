#include "mockllm/store.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct mock_kept {
    TAILQ_ENTRY(mock_kept) entry;
    char *id;
    cJSON *response, *items;
    struct mock_answer events; /* the frames alone */
    int64_t due_ms; /* it is over then */
    bool is_background, is_cancelled;
};

void mock_store_init(struct mock_store *store)
{
    *store = (struct mock_store){0};
    TAILQ_INIT(&store->list);
}

void mock_store_done(struct mock_store *store)
{
    while (!TAILQ_EMPTY(&store->list))
        mock_store_drop(store, TAILQ_FIRST(&store->list));
}

void mock_store_drop(struct mock_store *store, struct mock_kept *kept)
{
    TAILQ_REMOVE(&store->list, kept, entry);
    store->count--;
    mock_answer_done(&kept->events);
    cJSON_Delete(kept->response);
    cJSON_Delete(kept->items);
    free(kept->id);
    free(kept);
}

struct mock_kept *mock_store_find(struct mock_store *store, const char *id)
{
    struct mock_kept *kept;
    TAILQ_FOREACH(kept, &store->list, entry)
        if (strcmp(kept->id, id) == 0)
            return kept;
    return NULL;
}

const cJSON *mock_store_items(struct mock_store *store, const char *id)
{
    const struct mock_kept *kept = mock_store_find(store, id);
    return kept ? kept->items : NULL;
}

static void add_copies(cJSON *to, const cJSON *from)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, from)
        cJSON_AddItemToArray(to, cJSON_Duplicate(item, true));
}

/* What was before, what was asked, what was answered. */
static cJSON *items_of(struct mock_store *store, const struct mock_making *making, const struct mock_answer *answer)
{
    const cJSON *previous = cJSON_GetObjectItemCaseSensitive(making->body, "previous_response_id"), *input = cJSON_GetObjectItemCaseSensitive(making->body, "input");
    cJSON *all = cJSON_CreateArray();
    if (cJSON_IsString(previous))
        add_copies(all, mock_store_items(store, previous->valuestring));
    if (cJSON_IsString(input)) {
        cJSON *asked = cJSON_CreateObject();
        cJSON_AddStringToObject(asked, "role", "user");
        cJSON_AddStringToObject(asked, "content", input->valuestring);
        cJSON_AddItemToArray(all, asked);
    } else {
        add_copies(all, input);
    }
    add_copies(all, answer->output);
    return all;
}

struct mock_kept *mock_store_put(struct mock_store *store, const struct mock_making *making, const struct mock_answer *answer, int64_t begun_ms)
{
    struct mock_kept *kept = xcalloc(1, sizeof *kept);
    kept->id = xstrdup(making->id);
    kept->response = cJSON_Parse(answer->body);
    kept->items = items_of(store, making, answer);
    kept->is_background = begun_ms != 0;
    kept->due_ms = begun_ms + making->rule->delay_ms + (int64_t)making->rule->pace_ms * answer->n_pieces;
    for (size_t i = 0; i < answer->n_frames; i++)
        mock_answer_add(&kept->events, false, xstrdup(answer->frames[i].text));
    if (store->count == MOCK_KEPT_MAX)
        mock_store_drop(store, TAILQ_FIRST(&store->list));
    TAILQ_INSERT_TAIL(&store->list, kept, entry);
    store->count++;
    return kept;
}

char *mock_kept_text(const struct mock_kept *kept, int64_t now_ms)
{
    cJSON *response = cJSON_Duplicate(kept->response, true);
    if (kept->is_cancelled || (kept->is_background && now_ms < kept->due_ms)) {
        cJSON_ReplaceItemInObjectCaseSensitive(response, "status", cJSON_CreateString(kept->is_cancelled ? "cancelled" : "in_progress"));
        cJSON_ReplaceItemInObjectCaseSensitive(response, "output", cJSON_CreateArray());
        cJSON_DeleteItemFromObjectCaseSensitive(response, "usage");
    }
    char *printed = cJSON_PrintUnformatted(response), *text = xstrdup(printed);
    cJSON_free(printed);
    cJSON_Delete(response);
    return text;
}

struct mock_answer mock_kept_frames(const struct mock_kept *kept, size_t from)
{
    struct mock_answer answer = {0};
    for (size_t i = from; i < kept->events.n_frames; i++)
        mock_answer_add(&answer, false, xstrdup(kept->events.frames[i].text));
    return answer;
}

bool mock_kept_cancel(struct mock_kept *kept, int64_t now_ms)
{
    if (!kept->is_background || kept->is_cancelled || now_ms >= kept->due_ms)
        return false;
    kept->is_cancelled = true;
    return true;
}
