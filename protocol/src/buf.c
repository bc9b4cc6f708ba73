/* The growable buffer. Its maximum bounds `len`; the allocation may be one byte larger, for printf's NUL. */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_CAP_FIRST 256u

struct amp_bytes amp_bytes_of(const char *text)
{
    return (struct amp_bytes){.data = (const uint8_t *)text, .len = text ? strlen(text) : 0};
}

void amp_buf_init(struct amp_buf *buf, size_t max)
{
    *buf = (struct amp_buf){.max = max};
}

void amp_buf_done(struct amp_buf *buf)
{
    free(buf->data);
    *buf = (struct amp_buf){.max = buf->max};
}

void amp_buf_reset(struct amp_buf *buf)
{
    buf->len = 0;
    buf->is_full = false;
}

static enum amp_code buf_grow(struct amp_buf *buf, size_t cap_min)
{
    size_t cap = buf->cap ? buf->cap : BUF_CAP_FIRST;
    while (cap < cap_min)
        cap = cap > SIZE_MAX / 2 ? cap_min : cap * 2;
    if (cap > buf->max && cap_min <= buf->max)
        cap = buf->max ? buf->max : 1;
    uint8_t *data = realloc(buf->data, cap);
    if (!data) {
        buf->is_full = true;
        return AMP_NO_MEMORY;
    }
    buf->data = data;
    buf->cap = cap;
    return AMP_OK;
}

enum amp_code buf_reserve(struct amp_buf *buf, size_t len)
{
    if (buf->is_full || len > buf->max - buf->len) {
        buf->is_full = true;
        return AMP_TOO_LARGE;
    }
    /* an empty buffer gets memory too, so that data + len is always a place */
    return buf->data && len <= buf->cap - buf->len ? AMP_OK : buf_grow(buf, buf->len + len);
}

enum amp_code amp_buf_append(struct amp_buf *buf, const void *data, size_t len)
{
    enum amp_code code = buf_reserve(buf, len);
    if (code == AMP_OK && len > 0) {
        memcpy(buf->data + buf->len, data, len);
        buf->len += len;
    }
    return code;
}

enum amp_code amp_buf_printf(struct amp_buf *buf, const char *fmt, ...)
{
    va_list args;
    size_t room = buf->data && !buf->is_full ? buf->cap - buf->len : 0; /* mostly it fits, and is made once */
    va_start(args, fmt);
    int len = vsnprintf(room > 0 ? (char *)buf->data + buf->len : NULL, room, fmt, args);
    va_end(args);
    if (len >= 0 && (size_t)len < room && (size_t)len <= buf->max - buf->len) {
        buf->len += (size_t)len;
        return AMP_OK;
    }
    enum amp_code code = len < 0 ? AMP_INVALID : buf_reserve(buf, (size_t)len);
    if (code == AMP_OK && buf->cap - buf->len <= (size_t)len)
        code = buf_grow(buf, buf->len + (size_t)len + 1);
    if (code != AMP_OK) {
        buf->is_full = true;
        return code;
    }
    va_start(args, fmt);
    vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, fmt, args);
    va_end(args);
    buf->len += (size_t)len;
    return AMP_OK;
}

struct amp_bytes amp_buf_bytes(const struct amp_buf *buf)
{
    return (struct amp_bytes){.data = buf->data, .len = buf->len};
}
