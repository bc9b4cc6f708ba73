/* Cron expressions: when they run next. Pure. (amp.md 10.9.7)
 *
 * Five fields: minute, hour, day of the month, month, day of the week; each a list of numbers, ranges and steps; months and weekdays by their English names too; 7 is Sunday. If both
 * days are restricted (neither begins with "*"), either of them does. "@hourly" and the like stand for the whole.
 *
 * Where the clocks are changed: an expression for every hour runs whenever the clocks show a time of it, in both of two equal hours too. Any other runs once for each time of its own: of a
 * time that comes twice at the first one, of one that the clocks skip at the moment at which they do. */
#pragma once
#include <amp/amp.h>

struct zone;

struct cron {
    uint64_t minutes;  /* bits */
    uint32_t hours, days, months; /* days and months from bit 1 */
    uint8_t weekdays;  /* 0: Sunday */
    bool is_any_day, is_any_weekday; /* the field begins with "*" */
};

/* AMP_INVALID: what is wrong with which field. An expression that never runs is none. */
AMP_MUST_USE enum amp_code cron_parse(const char *text, struct cron *ret, struct amp_error *reterr);
/* The first time behind `after_s` (seconds since 1970) at which it runs by the clocks of `zone`; INT64_MAX: not before the year 9999. */
int64_t cron_next(const struct cron *cron, const struct zone *zone, int64_t after_s);
