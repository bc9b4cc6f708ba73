/* Responses that can be asked for again: the newest MOCK_KEPT_MAX. */
#pragma once
#include "mockllm/answer.h"

#include <sys/queue.h>

#define MOCK_KEPT_MAX 1000u

struct mock_kept;
struct mock_store {
    TAILQ_HEAD(mock_kept_list, mock_kept) list; /* oldest first */
    unsigned count;
};

void mock_store_init(struct mock_store *store);
void mock_store_done(struct mock_store *store);
/* Copies what it needs. `begun_ms`: of one in the background, which takes as long as its rule says; 0: it is over. */
struct mock_kept *mock_store_put(struct mock_store *store, const struct mock_making *making, const struct mock_answer *answer, int64_t begun_ms);
struct mock_kept *mock_store_find(struct mock_store *store, const char *id); /* NULL: there is none */
void mock_store_drop(struct mock_store *store, struct mock_kept *kept);
/* All items of the conversation up to and with this response, a list; NULL: there is no such response. Lives as long as the response. */
const struct cJSON *mock_store_items(struct mock_store *store, const char *id);

char *mock_kept_text(const struct mock_kept *kept, int64_t now_ms); /* as it is now; the caller's */
struct mock_answer mock_kept_frames(const struct mock_kept *kept, size_t from); /* its events from that number on; the caller's */
bool mock_kept_cancel(struct mock_kept *kept, int64_t now_ms); /* false: it was never in the background, or is over */
