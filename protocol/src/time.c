/* RFC 3339 ↔ milliseconds since 1970, without libc's time zones and locale. (amp.md 3.5) */
#include "rfc3339.h"

#include <amp/amp.h>

#define DAY_MS INT64_C(86400000)

/* Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March, so that the leap day is the
 * last day of its year. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400, year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

bool time_is_in_range(int64_t unix_ms)
{
    return unix_ms >= TIME_MIN_MS && unix_ms <= TIME_MAX_MS;
}

static inline char *put_number(char *p, uint32_t value, int digits, char after)
{
    for (int k = digits - 1; k >= 0; k--, value /= 10)
        p[k] = (char)('0' + value % 10);
    p[digits] = after;
    return p + digits + 1;
}

void amp_time_format(int64_t unix_ms, char ret[AMP_TIME_SIZE])
{
    if (!time_is_in_range(unix_ms))
        unix_ms = unix_ms < 0 ? TIME_MIN_MS : TIME_MAX_MS;
    int64_t days = unix_ms / DAY_MS, ms = unix_ms % DAY_MS;
    if (ms < 0) {
        days--;
        ms += DAY_MS;
    }
    days += 719468;
    int64_t era = days / 146097, day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153, day = day_of_year - (153 * month + 2) / 5 + 1;
    month += month < 10 ? 3 : -9;
    int64_t year = year_of_era + era * 400 + (month <= 2);
    const uint32_t in_day = (uint32_t)ms;
    char *p = ret;
    p = put_number(p, (uint32_t)year, 4, '-');
    p = put_number(p, (uint32_t)month, 2, '-');
    p = put_number(p, (uint32_t)day, 2, 'T');
    p = put_number(p, in_day / 3600000, 2, ':');
    p = put_number(p, in_day / 60000 % 60, 2, ':');
    p = put_number(p, in_day / 1000 % 60, 2, '.');
    p = put_number(p, in_day % 1000, 3, 'Z');
    *p = '\0';
}

/* Takes exactly `digits` digits with a value in [min, max]. */
static bool take_number(const char **p, int digits, int64_t min, int64_t max, int64_t *ret)
{
    int64_t value = 0;
    for (int i = 0; i < digits; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        value = value * 10 + (**p - '0');
    }
    *ret = value;
    return value >= min && value <= max;
}

static bool take_char(const char **p, const char *any_of)
{
    for (; *any_of; any_of++)
        if (**p == *any_of) {
            (*p)++;
            return true;
        }
    return false;
}

/* Milliseconds of the fraction; digits after the third are cut off. */
static bool take_fraction(const char **p, int64_t *ret_ms)
{
    *ret_ms = 0;
    if (!take_char(p, "."))
        return true;
    int64_t scale = 100;
    const char *begin = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++, scale /= 10)
        *ret_ms += (**p - '0') * scale;
    return *p > begin;
}

static bool take_zone(const char **p, int64_t *ret_ms)
{
    *ret_ms = 0;
    if (take_char(p, "Zz"))
        return true;
    int64_t sign = **p == '-' ? -1 : 1, hours, minutes;
    if (!take_char(p, "+-") || !take_number(p, 2, 0, 23, &hours) || !take_char(p, ":") ||
        !take_number(p, 2, 0, 59, &minutes))
        return false;
    *ret_ms = sign * (hours * 60 + minutes) * 60000;
    return true;
}

enum amp_code amp_time_parse(const char *text, int64_t *ret_unix_ms)
{
    const char *p = text;
    int64_t year, month, day, hour, minute, second, ms, zone_ms;
    if (!take_number(&p, 4, 1, 9999, &year) || !take_char(&p, "-") || !take_number(&p, 2, 1, 12, &month) ||
        !take_char(&p, "-") || !take_number(&p, 2, 1, 31, &day) || !take_char(&p, "Tt ") ||
        !take_number(&p, 2, 0, 23, &hour) || !take_char(&p, ":") || !take_number(&p, 2, 0, 59, &minute) ||
        !take_char(&p, ":") || !take_number(&p, 2, 0, 59, &second) || !take_fraction(&p, &ms) ||
        !take_zone(&p, &zone_ms) || *p)
        return AMP_INVALID;
    int64_t first = days_of(year, month, 1);
    int64_t next = month == 12 ? days_of(year + 1, 1, 1) : days_of(year, month + 1, 1);
    if (day > next - first)
        return AMP_INVALID;
    int64_t unix_ms = (first + day - 1) * DAY_MS + hour * 3600000 + minute * 60000 + second * 1000 + ms - zone_ms;
    if (!time_is_in_range(unix_ms))
        return AMP_INVALID;
    *ret_unix_ms = unix_ms;
    return AMP_OK;
}
