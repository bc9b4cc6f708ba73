/* One strict pull tokenizer for JSON: RFC 8259 plus I-JSON (RFC 7493). amp_json_check runs it over a whole text, the
 * mapper reads messages with it. No allocation while fewer than STRICT_KEYS_INLINE keys are open. (amp.md 3.2) */
#pragma once

#include <amp/amp.h>

#define STRICT_DEPTH_CAP 64u /* whatever the limits say */
#define STRICT_KEYS_INLINE 64u

enum strict_token {
    STRICT_ERROR, /* strict.code says which; stays */
    STRICT_END,   /* the value is over and nothing follows */
    STRICT_OBJECT,
    STRICT_OBJECT_END,
    STRICT_ARRAY,
    STRICT_ARRAY_END,
    STRICT_KEY,
    STRICT_STRING,
    STRICT_NUMBER,
    STRICT_TRUE,
    STRICT_FALSE,
    STRICT_NULL,
};

/* A key of an open object. */
struct strict_key {
    uint32_t at, len, text_len;
};

struct strict_frame {
    uint32_t n_members;
    uint32_t first_key; /* its keys are keys[first_key…n_keys) while it is the innermost object */
    bool is_object;
};

enum strict_expect { EXPECT_VALUE, EXPECT_FIRST_VALUE, EXPECT_FIRST_KEY, EXPECT_MORE, EXPECT_END, EXPECT_NOTHING };

struct strict {
    const uint8_t *text, *end;
    const uint8_t *p;     /* behind the current token (a key's includes its colon) */
    const uint8_t *begin; /* of the current token */
    const uint8_t *data;  /* STRING, KEY: between the quotes, escapes as written; NUMBER: its characters */
    size_t len;           /* of data */
    size_t text_len;      /* STRING, KEY: length with the escapes resolved; equal to `len` if there are none */
    size_t n_spaces;      /* white space between tokens so far */
    enum strict_expect expect;
    unsigned depth;
    struct amp_json_limits limits;
    struct amp_error *err;
    enum amp_code code;
    struct strict_key *keys;
    size_t n_keys, keys_cap;
    struct strict_frame frames[STRICT_DEPTH_CAP];
    struct strict_key keys_inline[STRICT_KEYS_INLINE];
};

/* `text` is borrowed until strict_done; `err` may be NULL and is written once, by the token that is wrong. */
void strict_init(struct strict *s, struct amp_bytes text, const struct amp_json_limits *limits, struct amp_error *err);
void strict_done(struct strict *s);
enum strict_token strict_next(struct strict *s);
/* Having read `first`, the first token of a value, reads the rest of it. False: STRICT_ERROR came. */
bool strict_skip(struct strict *s, enum strict_token first);
/* Resolves the escapes of a checked string. `ret` has room for text_len bytes; returns text_len. */
size_t strict_unescape(const uint8_t *data, size_t len, uint8_t *ret);
/* amp_json_check that also tells how much white space there is between the tokens. */
enum amp_code strict_check(struct amp_bytes text, const struct amp_json_limits *limits, size_t *ret_n_spaces,
                           struct amp_error *reterr);
/* Copies checked JSON without the white space between tokens. `ret` has room for len bytes; returns what it took. */
size_t strict_compact(const uint8_t *json, size_t len, uint8_t *ret);
/* For people: "a string", "an object" … */
const char *strict_token_name(enum strict_token token);
