/* zone.c: files and questions; zone_rule.c: rules. */
#pragma once
#include "base/zone.h"

struct zone_date { /* of a change within a year */
    char kind; /* 'M': month, week (5: last) and weekday; 'J': day 1…365 without leap days; 'N': day 0…365 */
    int month, week, day;
    int32_t time_s; /* after midnight, by the clocks before the change */
};

struct zone_rule {
    bool has_summer;
    int32_t winter_s, summer_s; /* offsets */
    struct zone_date begin, end; /* of summer time */
};

struct zone {
    bool has_rule;
    struct zone_rule rule; /* for what comes after the last change */
    size_t n_changes;
    int64_t *at;        /* n_changes */
    int32_t *offsets_s; /* from there on */
    int32_t first_s;    /* before the first change */
};

/* Reads up to `end`, which must be the end of the rule. */
bool zone_rule_parse(const char *text, struct zone_rule *ret);
struct zone_span zone_rule_span(const struct zone_rule *rule, int64_t unix_s);
