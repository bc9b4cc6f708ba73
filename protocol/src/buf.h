/* What the encoders need from the growable buffer beyond amp.h. */
#pragma once

#include <amp/amp.h>

#include <string.h>

/* Makes room for `len` more bytes behind buf->data + buf->len. Codes and `is_full` as for amp_buf_append. */
AMP_MUST_USE enum amp_code buf_reserve(struct amp_buf *buf, size_t len);
/* Bytes that are there already, behind what was written. */
static inline size_t buf_room(const struct amp_buf *buf)
{
    return buf->is_full ? 0 : buf->cap - buf->len;
}

/* amp_buf_append for the few bytes of a literal, of which there are many. */
static inline enum amp_code buf_put(struct amp_buf *buf, const char *data, size_t len)
{
    if (len > buf_room(buf))
        return amp_buf_append(buf, data, len);
    memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    return AMP_OK;
}

/* amp_arena_alloc without the zeroes, for memory that is filled at once. */
void *arena_alloc_raw(struct amp_arena *arena, size_t size);
/* amp_arena_reset that keeps no more than so many bytes. */
void arena_trim(struct amp_arena *arena, size_t kept_max);
/* Why the last allocation failed, as the code to return: AMP_TOO_LARGE past the maximum, else AMP_NO_MEMORY. */
enum amp_code arena_refusal(const struct amp_arena *arena, struct amp_error *reterr);
