/* Time zones: what the clocks of a place show at a moment. From the tz database's files (RFC 8536) or a rule as TZ has it ("CET-1CEST,M3.5.0,M10.5.0/3").
 * libc's own are not used: they know one zone per process, and it is nobody's argument. Pure but for zone_open, which reads a file. A zone does not change. */
#pragma once
#include <amp/amp.h>

#define ZONE_FILE_MAX (64u << 10)
#define ZONE_CHANGES_MAX 2000u
#define ZONE_NAME_MAX 63u

struct zone;

/* "Area/City", "UTC" or a rule. NULL or "": the local zone ($TZ, else /etc/localtime, else UTC). AMP_INVALID: there is none of that name. */
AMP_MUST_USE enum amp_code zone_open(const char *name, struct zone **ret, struct amp_error *reterr);
AMP_MUST_USE enum amp_code zone_parse_file(struct amp_bytes file, struct zone **ret, struct amp_error *reterr);
AMP_MUST_USE enum amp_code zone_parse_rule(const char *rule, struct zone **ret, struct amp_error *reterr);
void zone_free(struct zone *zone); /* NULL is fine */

/* The time around a moment in which the clocks were not changed: from <= moment < to, in seconds since 1970; INT64_MIN and INT64_MAX: for ever. */
struct zone_span {
    int64_t from, to;
    int32_t offset_s; /* local = UTC + offset */
};
struct zone_span zone_span(const struct zone *zone, int64_t unix_s);
/* The first moment at which the clocks show this (seconds as civil.h has them). If they never do, the moment at which they skip it. */
int64_t zone_to_unix(const struct zone *zone, int64_t local_s);
