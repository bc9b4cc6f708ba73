/* What the encoders need from the growable buffer beyond amp.h. */
#pragma once

#include <amp/amp.h>

/* Makes room for `len` more bytes behind buf->data + buf->len. Codes and `is_full` as for amp_buf_append. */
AMP_MUST_USE enum amp_code buf_reserve(struct amp_buf *buf, size_t len);
/* amp_arena_alloc without the zeroes, for memory that is filled at once. */
void *arena_alloc_raw(struct amp_arena *arena, size_t size);
/* amp_arena_reset that keeps no more than so many bytes. */
void arena_trim(struct amp_arena *arena, size_t kept_max);
/* Why the last allocation failed, as the code to return: AMP_TOO_LARGE past the maximum, else AMP_NO_MEMORY. */
enum amp_code arena_refusal(const struct amp_arena *arena, struct amp_error *reterr);
