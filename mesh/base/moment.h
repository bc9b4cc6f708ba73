/* Moments as people write them. Pure. */
#pragma once
#include <amp/amp.h>

struct zone;

struct moment {
    int64_t unix_ms;
    uint32_t in_ms; /* not 0: it was given as a time from now, which is what counts */
};

/* "2026-12-01T09:00:00Z" (RFC 3339), "2026-12-01 09:00[:00]" and "09:00[:00]" by the clocks of `zone` (the next such time; one that the clocks skip is the moment at
 * which they do, of two the first), "+90s" and "in 5m". AMP_INVALID: it is none of them, or not in the future. */
AMP_MUST_USE enum amp_code moment_parse(const char *text, int64_t now_unix_ms, const struct zone *zone, struct moment *ret, struct amp_error *reterr);
