/* Rules as POSIX has them for TZ, with the longer times of RFC 8536: "<+03>-3", "CET-1CEST,M3.5.0,M10.5.0/3". */
#include "base/zone_private.h"

#include "base/civil.h"

#include <ctype.h>
#include <string.h>

#define DAY_S 86400
#define HOURS_MAX 167 /* RFC 8536, 3.3.1 */
#define YEAR_MAX 9999

static bool take(const char **p, char c)
{
    if (**p != c)
        return false;
    ++*p;
    return true;
}

static bool take_number(const char **p, int min, int max, int *ret)
{
    const char *begin = *p;
    int value = 0;
    while (isdigit((unsigned char)**p) && *p - begin < 4)
        value = value * 10 + (*(*p)++ - '0');
    *ret = value;
    return *p > begin && value >= min && value <= max;
}

static bool take_name(const char **p)
{
    bool is_quoted = take(p, '<');
    const char *begin = *p;
    while (isalpha((unsigned char)**p) || (is_quoted && **p && strchr("0123456789+-", **p)))
        ++*p;
    return *p - begin >= 3 && (!is_quoted || take(p, '>'));
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(const char **p, int hours_max, int32_t *ret_s)
{
    int hours, minutes = 0, seconds = 0;
    int sign = take(p, '-') ? -1 : 1;
    if (sign > 0)
        (void)take(p, '+');
    if (!take_number(p, 0, hours_max, &hours) || (take(p, ':') && (!take_number(p, 0, 59, &minutes) || (take(p, ':') && !take_number(p, 0, 59, &seconds)))))
        return false;
    *ret_s = sign * (hours * 3600 + minutes * 60 + seconds);
    return true;
}

static bool take_date(const char **p, struct zone_date *ret)
{
    *ret = (struct zone_date){.kind = 'N', .time_s = 2 * 3600};
    bool is_good;
    if (take(p, 'M')) {
        ret->kind = 'M';
        is_good = take_number(p, 1, 12, &ret->month) && take(p, '.') && take_number(p, 1, 5, &ret->week) && take(p, '.') && take_number(p, 0, 6, &ret->day);
    } else if (take(p, 'J')) {
        ret->kind = 'J';
        is_good = take_number(p, 1, 365, &ret->day);
    } else {
        is_good = take_number(p, 0, 365, &ret->day);
    }
    return is_good && (!take(p, '/') || take_time(p, HOURS_MAX, &ret->time_s));
}

bool zone_rule_parse(const char *text, struct zone_rule *ret)
{
    const char *p = text;
    *ret = (struct zone_rule){0};
    if (!take_name(&p) || !take_time(&p, 24, &ret->winter_s))
        return false;
    ret->winter_s = -ret->winter_s; /* POSIX counts westwards */
    if (!*p)
        return true;
    ret->has_summer = true;
    ret->summer_s = ret->winter_s + 3600;
    if (!take_name(&p))
        return false;
    if (*p && *p != ',') {
        if (!take_time(&p, 24, &ret->summer_s))
            return false;
        ret->summer_s = -ret->summer_s;
    }
    const char *dates = *p ? p : ",M3.2.0,M11.1.0";
    return take(&dates, ',') && take_date(&dates, &ret->begin) && take(&dates, ',') && take_date(&dates, &ret->end) && !*dates;
}

/* The day in this year, since 1970. */
static int64_t day_of(const struct zone_date *date, int64_t year)
{
    int64_t first = civil_days(year, 1, 1);
    if (date->kind == 'N')
        return first + date->day;
    if (date->kind == 'J')
        return first + date->day - 1 + (date->day > 59 && civil_month_days(year, 2) == 29);
    int64_t month = civil_days(year, date->month, 1);
    int weekday = civil_of(month * DAY_S).weekday;
    int64_t day = month + (date->day - weekday + 7) % 7 + (int64_t)(date->week - 1) * 7;
    return day < month + civil_month_days(year, date->month) ? day : day - 7;
}

struct change {
    int64_t at;
    int32_t offset_s;
};

static void add_change(struct change changes[6], size_t *count, int64_t at, int32_t offset_s)
{
    size_t i = (*count)++;
    for (; i > 0 && changes[i - 1].at > at; i--)
        changes[i] = changes[i - 1];
    changes[i] = (struct change){at, offset_s};
}

struct zone_span zone_rule_span(const struct zone_rule *rule, int64_t unix_s)
{
    struct zone_span span = {.from = INT64_MIN, .to = INT64_MAX, .offset_s = rule->winter_s};
    int64_t year = civil_of(unix_s).year;
    if (!rule->has_summer || year > YEAR_MAX || year < -YEAR_MAX)
        return span;
    struct change changes[6]; /* of this year and its neighbours */
    size_t count = 0;
    for (int64_t y = year - 1; y <= year + 1; y++) {
        add_change(changes, &count, day_of(&rule->begin, y) * DAY_S + rule->begin.time_s - rule->winter_s, rule->summer_s);
        add_change(changes, &count, day_of(&rule->end, y) * DAY_S + rule->end.time_s - rule->summer_s, rule->winter_s);
    }
    for (size_t i = 0; i < count && changes[i].at <= unix_s; i++) {
        span.from = changes[i].at;
        span.offset_s = changes[i].offset_s;
    }
    for (size_t i = count; i-- > 0 && changes[i].at > unix_s;)
        span.to = changes[i].at;
    return span;
}
