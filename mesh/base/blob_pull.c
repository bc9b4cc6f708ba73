#include "base/blob_pull.h"

#include <inttypes.h>
#include <string.h>

void blob_pull_init(struct blob_pull *pull, const struct amp_blob_ref *ref, int64_t now_ms)
{
    *pull = (struct blob_pull){.ref = *ref, .chunk = AMP_BLOB_CHUNK_MAX, .begun_ms = now_ms, .progress_ms = now_ms, .asked_ms = now_ms};
}

bool blob_pull_is_complete(const struct blob_pull *pull)
{
    return pull->received == pull->ref.size;
}

bool blob_pull_next(struct blob_pull *pull, int64_t now_ms, struct blob_pull_read *ret)
{
    uint64_t window = pull->is_size_known ? (uint64_t)BLOB_WINDOW * pull->chunk : pull->chunk;
    if (pull->asked >= pull->ref.size || pull->asked - pull->received >= window || now_ms < pull->held_until_ms)
        return false;
    uint64_t left = pull->ref.size - pull->asked;
    *ret = (struct blob_pull_read){.offset = pull->asked, .length = left < pull->chunk ? (uint32_t)left : pull->chunk};
    pull->asked += ret->length;
    pull->asked_ms = now_ms;
    return true;
}

void blob_pull_restart(struct blob_pull *pull, int64_t now_ms)
{
    pull->asked = pull->received;
    pull->asked_ms = now_ms;
}

static enum amp_code take_error(struct blob_pull *pull, const Amp__Error *error, int64_t now_ms, struct amp_error *reterr)
{
    struct amp_error said = {.code = AMP_OK};
    amp_error_from_wire(&said, error);
    if (said.code != AMP_OVERLOADED)
        return amp_error_set(reterr, said.code == AMP_OK ? AMP_BAD_ANSWER : said.code, "", "blob %s cannot be had from %s: %s", pull->ref.digest, pull->ref.holder, said.message);
    pull->held_until_ms = now_ms + (said.retry_after_ms > 0 && said.retry_after_ms < BLOB_AGAIN_MS ? said.retry_after_ms : BLOB_AGAIN_MS);
    blob_pull_restart(pull, now_ms);
    return AMP_OK;
}

static enum amp_code bad(const struct blob_pull *pull, struct amp_error *reterr, const char *what)
{
    return amp_error_set(reterr, AMP_BAD_ANSWER, "", "%s answered with something that is not a piece of %s: %s", pull->ref.holder, pull->ref.digest, what);
}

/* The first answer tells how much fits into one message there. */
static void learn_chunk(struct blob_pull *pull, size_t len)
{
    if (pull->is_size_known)
        return;
    pull->is_size_known = true;
    if (len < pull->chunk)
        pull->chunk = (uint32_t)len;
    pull->asked = pull->received;
}

enum amp_code blob_pull_take(struct blob_pull *pull, const Amp__Blob *answer, int64_t now_ms, struct amp_bytes *ret, struct amp_error *reterr)
{
    *ret = (struct amp_bytes){.data = (const uint8_t *)"", .len = 0};
    if (answer->error)
        return take_error(pull, answer->error, now_ms, reterr);
    if (!answer->digest || strcmp(answer->digest, pull->ref.digest) != 0)
        return bad(pull, reterr, "it names another digest");
    if (!answer->has_size || answer->size != pull->ref.size)
        return bad(pull, reterr, "its size is not the one that was said");
    size_t len = answer->has_data ? answer->data.len : 0;
    uint64_t offset = answer->has_offset ? answer->offset : 0;
    if (offset != pull->received || offset >= pull->asked)
        return AMP_OK; /* late, early, or never asked for */
    if (len == 0 || len > pull->asked - offset || len > pull->ref.size - offset)
        return bad(pull, reterr, len == 0 ? "there is nothing in it" : "there is more in it than was asked for");
    ret->data = answer->data.data;
    ret->len = len;
    pull->received += len;
    pull->progress_ms = now_ms;
    if (pull->is_size_known && len < pull->chunk && pull->received < pull->ref.size)
        blob_pull_restart(pull, now_ms); /* shorter than the others: what was asked for behind it does not join */
    learn_chunk(pull, len);
    return AMP_OK;
}

enum amp_code blob_pull_look(struct blob_pull *pull, int64_t now_ms, struct amp_error *reterr)
{
    if (now_ms - pull->progress_ms >= BLOB_IDLE_MS)
        return amp_error_set(reterr, AMP_INSTANCE_LOST, "", "%s sent nothing of blob %s for %d s; %" PRIu64 " of %" PRIu64 " bytes had come", pull->ref.holder, pull->ref.digest, BLOB_IDLE_MS / 1000,
                             pull->received, pull->ref.size);
    int64_t slow_ms = now_ms - pull->begun_ms - BLOB_SLOW_MS;
    if (slow_ms > 0 && pull->received < (uint64_t)slow_ms * BLOB_SLOW_BYTES_PER_MS)
        return amp_error_set(reterr, AMP_INSTANCE_LOST, "", "%s sends blob %s too slowly: %" PRIu64 " of %" PRIu64 " bytes in %lld s", pull->ref.holder, pull->ref.digest, pull->received, pull->ref.size,
                             (long long)(now_ms - pull->begun_ms) / 1000);
    if (pull->asked > pull->received && now_ms - pull->asked_ms >= BLOB_AGAIN_MS && now_ms - pull->progress_ms >= BLOB_AGAIN_MS)
        blob_pull_restart(pull, now_ms);
    return AMP_OK;
}
