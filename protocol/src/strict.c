/* The tokenizer. (amp.md 3.2)
 *
 * Duplicate keys: the keys of all open objects lie on one stack. An object with few keys compares each new key with
 * the others; one with many sorts them when it closes. Both are bounded whatever the keys are (a hash table could be
 * flooded). Keys are compared with their escapes resolved. */
#include "strict.h"

#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>

#define KEYS_COMPARED 16u /* up to so many keys are compared one by one */

const struct amp_json_limits amp_json_limits_default = {
    .bytes_max = AMP_JSON_BYTES_MAX,
    .depth_max = AMP_DEPTH_MAX,
    .members_max = AMP_MEMBERS_MAX,
};

void strict_init(struct strict *s, struct amp_bytes text, const struct amp_json_limits *limits, struct amp_error *err)
{
    static const uint8_t nothing[1];
    s->text = text.len > 0 ? text.data : nothing;
    s->end = s->text + text.len;
    s->p = s->begin = s->text;
    s->data = NULL;
    s->len = s->text_len = s->n_spaces = 0;
    s->expect = EXPECT_VALUE;
    s->depth = 0;
    s->limits = *limits;
    if (s->limits.depth_max > STRICT_DEPTH_CAP)
        s->limits.depth_max = STRICT_DEPTH_CAP;
    if (s->limits.bytes_max > UINT32_MAX)
        s->limits.bytes_max = UINT32_MAX;
    s->err = err;
    s->code = AMP_OK;
    s->keys = s->keys_inline;
    s->n_keys = 0;
    s->keys_cap = STRICT_KEYS_INLINE;
}

void strict_done(struct strict *s)
{
    if (s->keys != s->keys_inline)
        free(s->keys);
    s->keys = s->keys_inline;
}

static enum strict_token fail_at(struct strict *s, enum amp_code code, const uint8_t *at, const char *what)
{
    s->expect = EXPECT_NOTHING;
    s->code = amp_error_set(s->err, code, "", "%s at byte %zu of the JSON", what, (size_t)(at - s->text));
    return STRICT_ERROR;
}

static enum strict_token fail(struct strict *s, const char *what)
{
    return fail_at(s, AMP_MALFORMED, s->p, s->p < s->end ? what : "unexpected end");
}

static void skip_space(struct strict *s)
{
    const uint8_t *p = s->p;
    while (p < s->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    s->n_spaces += (size_t)(p - s->p);
    s->p = p;
}

/* ---- strings ---- */

static bool read_hex4(const uint8_t *p, const uint8_t *end, uint32_t *ret)
{
    if (end - p < 4)
        return false;
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t digit;
        if (p[i] >= '0' && p[i] <= '9')
            digit = p[i] - '0';
        else if ((p[i] | 0x20) >= 'a' && (p[i] | 0x20) <= 'f')
            digit = (p[i] | 0x20u) - 'a' + 10;
        else
            return false;
        value = value << 4 | digit;
    }
    *ret = value;
    return true;
}

/* Reads the escape at *p (its backslash). Writes the UTF-8 it stands for and returns its length; 0 if it is none, or
 * a lone surrogate, or U+0000. */
static size_t read_escape(const uint8_t **p, const uint8_t *end, uint8_t ret[4])
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const uint8_t *q = *p + 1;
    if (q >= end)
        return 0;
    if (*q != 'u') {
        const char *letter = *q ? strchr(letters, *q) : NULL;
        if (!letter)
            return 0;
        ret[0] = (uint8_t)values[letter - letters];
        *p = q + 1;
        return 1;
    }
    uint32_t high, low;
    if (!read_hex4(q + 1, end, &high) || high == 0)
        return 0;
    q += 5;
    if (high >= 0xD800 && high <= 0xDFFF) {
        if (high > 0xDBFF || end - q < 6 || q[0] != '\\' || q[1] != 'u' || !read_hex4(q + 2, end, &low) ||
            low < 0xDC00 || low > 0xDFFF)
            return 0;
        high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
        q += 6;
    }
    *p = q;
    return utf8_write(high, ret);
}

/* At an opening quote. */
static bool read_string(struct strict *s)
{
    const uint8_t *p = s->p + 1;
    size_t saved = 0;
    s->data = p;
    for (;;) {
        p = utf8_skip_plain(p, s->end);
        if (p >= s->end || *p == '"')
            break;
        const uint8_t *from = p;
        uint8_t utf8[4];
        uint32_t unused;
        size_t len = *p == '\\' ? read_escape(&p, s->end, utf8) : *p < 0x20 ? 0 : utf8_read(p, s->end, &unused);
        if (len == 0) {
            fail_at(s, AMP_MALFORMED, p,
                    *p == '\\'  ? "an escape that is none (or a lone surrogate, or U+0000)"
                    : *p < 0x20 ? "a control character in a string"
                                : "invalid UTF-8");
            return false;
        }
        if (p > from)
            saved += (size_t)(p - from) - len;
        else
            p += len;
    }
    if (p >= s->end) {
        fail_at(s, AMP_MALFORMED, p, "unexpected end");
        return false;
    }
    s->len = (size_t)(p - s->data);
    s->text_len = s->len - saved;
    s->p = p + 1;
    return true;
}

size_t strict_unescape(const uint8_t *data, size_t len, uint8_t *ret)
{
    const uint8_t *p = data, *end = data + len;
    uint8_t *out = ret;
    while (p < end) {
        const uint8_t *escape = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((escape ? escape : end) - p);
        memcpy(out, p, plain);
        out += plain;
        p += plain;
        if (p < end) {
            uint8_t utf8[4];
            size_t n = read_escape(&p, end, utf8);
            if (n == 0) /* not a checked string */
                break;
            memcpy(out, utf8, n);
            out += n;
        }
    }
    return (size_t)(out - ret);
}

/* ---- duplicate keys ---- */

struct key_reader {
    const uint8_t *p, *end;
    uint8_t utf8[4];
    size_t n, i;
};

static uint8_t next_key_byte(struct key_reader *reader)
{
    if (reader->i < reader->n)
        return reader->utf8[reader->i++];
    if (*reader->p != '\\')
        return *reader->p++;
    reader->n = read_escape(&reader->p, reader->end, reader->utf8);
    reader->i = 1;
    return reader->utf8[0];
}

/* A total order of keys by what they mean; 0 = the same key. */
static int compare_keys(const struct strict *s, const struct strict_key *a, const struct strict_key *b)
{
    if (a->text_len != b->text_len)
        return a->text_len < b->text_len ? -1 : 1;
    if (a->len == a->text_len && b->len == b->text_len)
        return memcmp(s->text + a->at, s->text + b->at, a->len);
    struct key_reader x = {.p = s->text + a->at, .end = s->text + a->at + a->len};
    struct key_reader y = {.p = s->text + b->at, .end = s->text + b->at + b->len};
    for (uint32_t i = 0; i < a->text_len; i++) {
        int difference = (int)next_key_byte(&x) - (int)next_key_byte(&y);
        if (difference != 0)
            return difference;
    }
    return 0;
}

static void sift_down(const struct strict *s, struct strict_key *keys, size_t i, size_t n)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && compare_keys(s, &keys[child], &keys[child + 1]) < 0)
            child++;
        if (compare_keys(s, &keys[i], &keys[child]) >= 0)
            return;
        struct strict_key swapped = keys[i];
        keys[i] = keys[child];
        keys[child] = swapped;
    }
}

/* Heap sort: in place and n log n for every input. */
static const struct strict_key *find_duplicate(const struct strict *s, struct strict_key *keys, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(s, keys, i, n);
    for (size_t last = n - 1; last > 0; last--) {
        struct strict_key swapped = keys[0];
        keys[0] = keys[last];
        keys[last] = swapped;
        sift_down(s, keys, 0, last);
    }
    for (size_t i = 1; i < n; i++)
        if (compare_keys(s, &keys[i - 1], &keys[i]) == 0)
            return keys[i - 1].at > keys[i].at ? &keys[i - 1] : &keys[i];
    return NULL;
}

static bool grow_keys(struct strict *s)
{
    size_t cap = s->keys_cap * 4;
    struct strict_key *old = s->keys == s->keys_inline ? NULL : s->keys;
    struct strict_key *keys = realloc(old, cap * sizeof(*keys));
    if (!keys)
        return false;
    if (!old)
        memcpy(keys, s->keys_inline, sizeof(s->keys_inline));
    s->keys = keys;
    s->keys_cap = cap;
    return true;
}

static bool push_key(struct strict *s, const struct strict_frame *frame)
{
    if (s->n_keys == s->keys_cap && !grow_keys(s)) {
        fail_at(s, AMP_NO_MEMORY, s->begin, "out of memory");
        return false;
    }
    struct strict_key *key = &s->keys[s->n_keys];
    *key = (struct strict_key){
        .at = (uint32_t)(s->data - s->text), .len = (uint32_t)s->len, .text_len = (uint32_t)s->text_len};
    if (frame->n_members <= KEYS_COMPARED)
        for (const struct strict_key *other = s->keys + frame->first_key; other < key; other++)
            if (compare_keys(s, other, key) == 0) {
                fail_at(s, AMP_MALFORMED, s->begin, "a key for the second time");
                return false;
            }
    s->n_keys++;
    return true;
}

/* ---- structure ---- */

static enum strict_token value_done(struct strict *s, enum strict_token token)
{
    s->expect = s->depth == 0 ? EXPECT_END : EXPECT_MORE;
    return token;
}

static enum strict_token open_frame(struct strict *s, bool is_object)
{
    if (s->depth >= s->limits.depth_max)
        return fail_at(s, AMP_TOO_DEEP, s->p, "too many levels");
    s->frames[s->depth++] = (struct strict_frame){.is_object = is_object, .first_key = (uint32_t)s->n_keys};
    s->p++;
    s->expect = is_object ? EXPECT_FIRST_KEY : EXPECT_FIRST_VALUE;
    return is_object ? STRICT_OBJECT : STRICT_ARRAY;
}

static enum strict_token close_frame(struct strict *s)
{
    const struct strict_frame *frame = &s->frames[s->depth - 1];
    if (frame->is_object) {
        if (frame->n_members > KEYS_COMPARED) {
            const struct strict_key *twice =
                find_duplicate(s, s->keys + frame->first_key, s->n_keys - frame->first_key);
            if (twice)
                return fail_at(s, AMP_MALFORMED, s->text + twice->at - 1, "a key for the second time");
        }
        s->n_keys = frame->first_key;
    }
    s->p++;
    s->depth--;
    return value_done(s, frame->is_object ? STRICT_OBJECT_END : STRICT_ARRAY_END);
}

static enum strict_token read_word(struct strict *s, const char *word, size_t len, enum strict_token token)
{
    if ((size_t)(s->end - s->p) < len || memcmp(s->p, word, len) != 0)
        return fail(s, "a word that is not true, false or null");
    s->p += len;
    return value_done(s, token);
}

static const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

/* Would strtod make infinity of it? Asked only for numbers with an exponent or very many digits. The digits are given
 * to strtod without a point, because the point is the locale's. */
static bool is_infinite(const uint8_t *p, const uint8_t *end)
{
    char digits[64];
    size_t n = 0;
    long exponent = 0, shift = 0;
    bool is_fraction = false;
    for (; p < end && (*p | 0x20) != 'e'; p++) {
        if (*p == '.')
            is_fraction = true;
        if (*p < '0' || *p > '9')
            continue;
        bool is_kept = (n > 0 || *p != '0') && n < 40;
        if (is_kept)
            digits[n++] = (char)*p;
        shift += is_fraction ? (is_kept || n == 0 ? -1 : 0) : (is_kept || n == 0 ? 0 : 1);
    }
    if (n == 0)
        return false;
    bool is_negative = p + 1 < end && p[1] == '-';
    for (p++; p < end; p++)
        if (*p >= '0' && *p <= '9' && exponent < 100000000)
            exponent = exponent * 10 + (*p - '0');
    exponent = (is_negative ? -exponent : exponent) + shift;
    digits[n] = '\0';
    char number[96];
    snprintf(number, sizeof(number), "%se%ld", digits, exponent);
    return strtod(number, NULL) > 1.7976931348623157e308;
}

static enum strict_token read_number(struct strict *s)
{
    const uint8_t *p = s->p, *end = s->end, *begin = p;
    if (p < end && *p == '-')
        p++;
    const uint8_t *digits = p;
    p = skip_digits(p, end);
    bool is_bad = p == digits || (*digits == '0' && p - digits > 1), has_exponent = false;
    if (!is_bad && p < end && *p == '.') {
        const uint8_t *fraction = ++p;
        p = skip_digits(p, end);
        is_bad = p == fraction;
    }
    if (!is_bad && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        const uint8_t *exponent = p;
        p = skip_digits(p, end);
        is_bad = p == exponent;
        has_exponent = true;
    }
    if (is_bad)
        return fail_at(s, AMP_MALFORMED, p, p < end ? "a number that is none" : "unexpected end");
    if ((has_exponent || p - begin > 300) && is_infinite(digits, p))
        return fail_at(s, AMP_MALFORMED, begin, "a number outside of the range of doubles");
    s->data = begin;
    s->len = (size_t)(p - begin);
    s->p = p;
    return value_done(s, STRICT_NUMBER);
}

static enum strict_token read_value(struct strict *s)
{
    if (s->depth > 0) {
        struct strict_frame *frame = &s->frames[s->depth - 1];
        if (!frame->is_object && ++frame->n_members > s->limits.members_max)
            return fail_at(s, AMP_TOO_LARGE, s->p, "too many elements");
    }
    s->begin = s->p;
    switch (s->p < s->end ? *s->p : '\0') {
    case '{':
        return open_frame(s, true);
    case '[':
        return open_frame(s, false);
    case '"':
        return read_string(s) ? value_done(s, STRICT_STRING) : STRICT_ERROR;
    case 't':
        return read_word(s, "true", 4, STRICT_TRUE);
    case 'f':
        return read_word(s, "false", 5, STRICT_FALSE);
    case 'n':
        return read_word(s, "null", 4, STRICT_NULL);
    default:
        return s->p < s->end && (*s->p == '-' || (*s->p >= '0' && *s->p <= '9')) ? read_number(s) : fail(s, "no value");
    }
}

static enum strict_token read_key(struct strict *s)
{
    struct strict_frame *frame = &s->frames[s->depth - 1];
    s->begin = s->p;
    if (s->p >= s->end || *s->p != '"')
        return fail(s, "no key");
    if (++frame->n_members > s->limits.members_max)
        return fail_at(s, AMP_TOO_LARGE, s->p, "too many members");
    if (!read_string(s) || !push_key(s, frame))
        return STRICT_ERROR;
    skip_space(s);
    if (s->p >= s->end || *s->p != ':')
        return fail(s, "no colon");
    s->p++;
    s->expect = EXPECT_VALUE;
    return STRICT_KEY;
}

static enum strict_token read_more(struct strict *s)
{
    bool is_object = s->frames[s->depth - 1].is_object;
    uint8_t byte = s->p < s->end ? *s->p : '\0';
    if (byte == (is_object ? '}' : ']'))
        return close_frame(s);
    if (byte != ',')
        return fail(s, is_object ? "neither ',' nor '}'" : "neither ',' nor ']'");
    s->p++;
    skip_space(s);
    return is_object ? read_key(s) : read_value(s);
}

enum strict_token strict_next(struct strict *s)
{
    if (s->p == s->text && (size_t)(s->end - s->text) > s->limits.bytes_max)
        return fail_at(s, AMP_TOO_LARGE, s->p, "more bytes than allowed");
    skip_space(s);
    uint8_t byte = s->p < s->end ? *s->p : '\0';
    switch (s->expect) {
    case EXPECT_VALUE:
        return read_value(s);
    case EXPECT_FIRST_VALUE:
        return byte == ']' ? close_frame(s) : read_value(s);
    case EXPECT_FIRST_KEY:
        return byte == '}' ? close_frame(s) : read_key(s);
    case EXPECT_MORE:
        return read_more(s);
    case EXPECT_END:
        return s->p == s->end ? STRICT_END : fail(s, "something after the value");
    case EXPECT_NOTHING:
        break;
    }
    return STRICT_ERROR;
}

bool strict_skip(struct strict *s, enum strict_token token)
{
    if (token != STRICT_OBJECT && token != STRICT_ARRAY)
        return token != STRICT_ERROR;
    for (unsigned outside = s->depth - 1; s->depth > outside;)
        if (strict_next(s) == STRICT_ERROR)
            return false;
    return true;
}

size_t strict_compact(const uint8_t *json, size_t len, uint8_t *ret)
{
    const uint8_t *p = json, *end = json + len;
    uint8_t *out = ret;
    while (p < end) {
        if (*p != '"') {
            if (*p != ' ' && *p != '\n' && *p != '\r' && *p != '\t')
                *out++ = *p;
            p++;
            continue;
        }
        const uint8_t *from = p++;
        while (p < end && *p != '"')
            p += *p == '\\' ? 2 : 1;
        p = p < end ? p + 1 : end;
        memcpy(out, from, (size_t)(p - from));
        out += p - from;
    }
    return (size_t)(out - ret);
}

const char *strict_token_name(enum strict_token token)
{
    static const char *const names[] = {"an error", "the end",        "an object", "an object's end",
                                        "an array", "an array's end", "a key",     "a string",
                                        "a number", "true",           "false",     "null"};
    return names[token];
}

enum amp_code strict_check(struct amp_bytes text, const struct amp_json_limits *limits, size_t *ret_n_spaces,
                           struct amp_error *reterr)
{
    struct strict s;
    strict_init(&s, text, limits, reterr);
    enum strict_token token;
    do
        token = strict_next(&s);
    while (token != STRICT_END && token != STRICT_ERROR);
    strict_done(&s);
    *ret_n_spaces = s.n_spaces;
    return s.code;
}

enum amp_code amp_json_check(struct amp_bytes text, const struct amp_json_limits *limits, struct amp_error *reterr)
{
    size_t unused;
    return strict_check(text, limits, &unused, reterr);
}
