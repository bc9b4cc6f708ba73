/* UTF-8: validity, cutting, and text made fit for eyes. (amp.md 12.3) */
#include "utf8.h"

#include "buf.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define BYTES_OF(byte) ((uint64_t)(byte)*0x0101010101010101u)

size_t utf8_read(const uint8_t *p, const uint8_t *end, uint32_t *ret_code_point)
{
    size_t left = (size_t)(end - p);
    if (p[0] < 0x80) {
        *ret_code_point = p[0];
        return 1;
    }
    size_t len = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    if (p[0] < 0xC2 || p[0] > 0xF4 || left < len)
        return 0;
    uint32_t code_point = p[0] & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        code_point = code_point << 6 | (p[i] & 0x3Fu);
    }
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code_point < smallest[len] || code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF))
        return 0;
    *ret_code_point = code_point;
    return len;
}

size_t utf8_write(uint32_t code_point, uint8_t ret[4])
{
    if (code_point < 0x80) {
        ret[0] = (uint8_t)code_point;
        return 1;
    }
    size_t len = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        ret[i] = (uint8_t)(0x80 | (code_point & 0x3F));
        code_point >>= 6;
    }
    ret[0] = (uint8_t)((0xF00u >> len) | code_point);
    return len;
}

size_t utf8_skip_invalid(const uint8_t *p, const uint8_t *end)
{
    uint32_t unused;
    size_t len = 1;
    while (p + len < end && (p[len] & 0xC0) == 0x80 && len < 3 && !utf8_read(p + len, end, &unused))
        len++;
    return len;
}

#ifdef __SSE2__ /* of every x86-64 */
/* A bit for each of 16 bytes that is not plain. */
static inline unsigned special_16(const uint8_t *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i special = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(special, _mm_cmplt_epi8(bytes, _mm_set1_epi8(' ')))); /* signed: what is not ASCII too */
}

static const uint8_t *skip_plain_wide(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 16)
        return p;
    for (; end - p >= 16; p += 16) {
        unsigned mask = special_16(p);
        if (mask)
            return p + __builtin_ctz(mask);
    }
    unsigned mask = special_16(end - 16); /* what is left of it, once more with what was plain */
    return mask ? end - 16 + __builtin_ctz(mask) : end;
}
#else
static const uint8_t *skip_plain_wide(const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 8) {
        uint64_t word = load_8(p);
        uint64_t quote = word ^ BYTES_OF('"'), backslash = word ^ BYTES_OF('\\');
        uint64_t special = ((quote - BYTES_OF(1)) & ~quote) | ((backslash - BYTES_OF(1)) & ~backslash) |
                           (word - BYTES_OF(0x20)) | word;
        special &= BYTES_OF(0x80);
        if (special)
            return p + __builtin_ctzll(special) / 8;
        p += 8;
    }
    return p;
}
#endif

const uint8_t *utf8_skip_plain(const uint8_t *p, const uint8_t *end)
{
    p = skip_plain_wide(p, end);
    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

bool amp_utf8_is_valid(struct amp_bytes text)
{
    if (text.len == 0)
        return true;
    const uint8_t *p = text.data, *end = text.data + text.len;
    while (p < end) {
        while (end - p >= 8 && !(load_8(p) & BYTES_OF(0x80)))
            p += 8;
        uint32_t unused;
        size_t len = p < end ? utf8_read(p, end, &unused) : 0;
        if (p < end && len == 0)
            return false;
        p += len;
    }
    return true;
}

size_t amp_utf8_cut(struct amp_bytes text, size_t max)
{
    if (max >= text.len)
        return text.len;
    while (max > 0 && (text.data[max] & 0xC0) == 0x80)
        max--;
    return max;
}

struct span {
    uint32_t first, last;
};

/* What changes how the text around it is shown: controls, bidi controls, separators. */
static const struct span hidden[] = {
    {0x00, 0x1F}, {0x7F, 0x9F}, {0x061C, 0x061C}, {0x200E, 0x200F}, {0x2028, 0x202E}, {0x2066, 0x2069},
};

static bool is_hidden(uint32_t code_point, bool one_line)
{
    if (!one_line && (code_point == '\n' || code_point == '\t'))
        return false;
    for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++)
        if (code_point >= hidden[i].first && code_point <= hidden[i].last)
            return true;
    return false;
}

enum amp_code amp_text_sanitize(struct amp_buf *out, struct amp_bytes text, bool one_line)
{
    if (text.len == 0)
        return AMP_OK;
    const uint8_t *p = text.data, *end = text.data + text.len, *run = p;
    enum amp_code code = AMP_OK;
    while (p < end && code == AMP_OK) {
        uint32_t code_point = 0;
        size_t len = utf8_read(p, end, &code_point);
        if (len > 0 && !is_hidden(code_point, one_line)) {
            p += len;
            continue;
        }
        code = amp_buf_append(out, run, (size_t)(p - run));
        if (code == AMP_OK)
            code = len > 0 ? amp_buf_printf(out, "\\u{%X}", code_point) : amp_buf_append(out, UTF8_REPLACEMENT, 3);
        p += len > 0 ? len : utf8_skip_invalid(p, end);
        run = p;
    }
    return code == AMP_OK ? amp_buf_append(out, run, (size_t)(p - run)) : code;
}
