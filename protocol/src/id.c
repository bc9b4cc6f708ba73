/* Ids (amp.md 2.1): 48 bits of time, then 80 random bits, in Crockford's base32, so that ids sort by time as text and
 * the random part cannot be guessed from ids seen before. */
#include <amp/amp.h>

#include <sodium.h>
#include <string.h>

#include "model.h"

#define TIME_CHARS 10
#define RANDOM_CHARS AMP_ID_RANDOM

static const char base32[] = "0123456789abcdefghjkmnpqrstvwxyz";

void amp_id_make(char kind, int64_t now_unix_ms, const uint8_t random[AMP_ID_RANDOM], char ret[AMP_ID_SIZE])
{
    uint64_t time = (uint64_t)now_unix_ms & ((UINT64_C(1) << 48) - 1);
    char *at = ret;
    *at++ = kind;
    *at++ = '-';
    for (int shift = (TIME_CHARS - 1) * 5; shift >= 0; shift -= 5)
        *at++ = base32[(time >> shift) & 31];
    /* A character takes five bits of its own byte: sixteen bytes drawn for eighty bits used, and no bit shuffling. */
    for (size_t i = 0; i < RANDOM_CHARS; i++)
        *at++ = base32[random[i] & 31];
    *at = '\0';
}

void amp_id_new(char kind, int64_t now_unix_ms, char ret[AMP_ID_SIZE])
{
    uint8_t random[AMP_ID_RANDOM];
    randombytes_buf(random, sizeof(random));
    amp_id_make(kind, now_unix_ms, random, ret);
}

static bool id_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

bool amp_id_is_valid(const char *id)
{
    if (!id || !id[0] || id[0] == '-')
        return false;
    size_t len = 0;
    for (; id[len]; len++) {
        if (len == AMP_NAME_MAX || !id_char(id[len]))
            return false;
    }
    return true;
}

void amp_id_from_text(const char *text, char ret[AMP_NAME_MAX + 1])
{
    size_t len = 0;
    for (const char *at = text ? text : ""; *at && len < AMP_NAME_MAX; at++) {
        char c = (char)(*at >= 'A' && *at <= 'Z' ? *at - 'A' + 'a' : *at);
        if (!id_char(c))
            c = '-';
        /* One dash for a run of strangers, none at the start. */
        if (c == '-' && (len == 0 || ret[len - 1] == '-'))
            continue;
        ret[len++] = c;
    }
    while (len > 0 && ret[len - 1] == '-')
        len--;
    ret[len] = '\0';
    if (len == 0)
        memcpy(ret, "agent", sizeof("agent"));
}

enum amp_code id_check(const char *id, const char *field, struct amp_error *reterr)
{
    if (amp_id_is_valid(id))
        return AMP_OK;
    enum amp_code code = amp_error_set(reterr, AMP_INVALID, field, "'%.80s' is not an id", id ? id : "");
    amp_error_hint(reterr, "ids are 1 to %u characters of a-z 0-9 _ - and do not start with -", AMP_NAME_MAX);
    return code;
}
