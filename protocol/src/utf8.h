/* UTF-8, one character at a time. */
#pragma once

#include <amp/amp.h>
#include <endian.h>
#include <string.h>

/* Length of the character at `p` (1…4) and its code point; 0 if it is none by RFC 3629 (overlong, surrogate, past
 * U+10FFFF, cut off at `end`). p < end. */
size_t utf8_read(const uint8_t *p, const uint8_t *end, uint32_t *ret_code_point);
/* Writes the UTF-8 of a code point (no surrogate, ≤ U+10FFFF) and returns its length. */
size_t utf8_write(uint32_t code_point, uint8_t ret[4]);
/* How many bytes at `data` are no part of a valid character: at least 1. One U+FFFD stands for all of them. */
size_t utf8_skip_invalid(const uint8_t *p, const uint8_t *end);

/* The first byte that cannot stand in a JSON string as it is or is not ASCII: a quote, a backslash, a control, the
 * start of a longer character; or `end`. */
const uint8_t *utf8_skip_plain(const uint8_t *p, const uint8_t *end);

#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

/* Eight bytes as a number whose lowest byte is the first. */
static inline uint64_t load_8(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return le64toh(word);
}
