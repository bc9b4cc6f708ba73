#include "base/moment.h"

#include "base/civil.h"
#include "base/command.h"
#include "base/zone.h"

#include <ctype.h>
#include <string.h>

#define DAY_S 86400

static bool take_number(const char **p, int digits, int min, int max, int *ret)
{
    int value = 0;
    for (int i = 0; i < digits; i++, ++*p) {
        if (!isdigit((unsigned char)**p))
            return false;
        value = value * 10 + (**p - '0');
    }
    *ret = value;
    return value >= min && value <= max;
}

static bool take(const char **p, const char *any_of)
{
    bool is_there = **p && strchr(any_of, **p) != NULL;
    *p += is_there;
    return is_there;
}

/* hh:mm[:ss], and nothing behind it. */
static bool read_clock(const char *p, struct civil *ret)
{
    if (!take_number(&p, 2, 0, 23, &ret->hour) || !take(&p, ":") || !take_number(&p, 2, 0, 59, &ret->minute))
        return false;
    if (*p && (!take(&p, ":") || !take_number(&p, 2, 0, 59, &ret->second)))
        return false;
    return *p == '\0';
}

static bool read_date(const char **p, struct civil *ret)
{
    int year;
    if (!take_number(p, 4, 1970, 9999, &year) || !take(p, "-") || !take_number(p, 2, 1, 12, &ret->month) || !take(p, "-"))
        return false;
    ret->year = year;
    return take_number(p, 2, 1, 31, &ret->day) && ret->day <= civil_month_days(year, ret->month) && take(p, "Tt ");
}

static bool read_local(const char *text, int64_t now_unix_ms, const struct zone *zone, int64_t *ret_unix_ms)
{
    int64_t now_s = now_unix_ms / 1000;
    struct civil civil = civil_of(now_s + zone_span(zone, now_s).offset_s);
    civil.second = 0;
    const char *p = text;
    bool has_date = strchr(text, '-') != NULL;
    if ((has_date && !read_date(&p, &civil)) || !read_clock(p, &civil))
        return false;
    int64_t local_s = civil_seconds(&civil), unix_s = zone_to_unix(zone, local_s);
    if (!has_date && unix_s * 1000 <= now_unix_ms)
        unix_s = zone_to_unix(zone, local_s + DAY_S);
    *ret_unix_ms = unix_s * 1000;
    return true;
}

enum amp_code moment_parse(const char *text, int64_t now_unix_ms, const struct zone *zone, struct moment *ret, struct amp_error *reterr)
{
    const char *duration = *text == '+' ? text + 1 : strncmp(text, "in ", 3) == 0 ? text + 3 : NULL;
    unsigned in_ms = 0;
    *ret = (struct moment){0};
    if (duration && command_duration_ms(duration, &in_ms) && in_ms > 0) {
        *ret = (struct moment){.unix_ms = now_unix_ms + in_ms, .in_ms = in_ms};
        return AMP_OK;
    }
    if (duration) {
        amp_error_set(reterr, AMP_INVALID, "", "\"%s\" is no time from now of at most %u days", text, COMMAND_DURATION_DAYS_MAX);
        amp_error_hint(reterr, "+90s, +12h or +2d; later than that as a date: \"2026-12-01 09:00\"");
        return AMP_INVALID;
    }
    if (amp_time_parse(text, &ret->unix_ms) != AMP_OK && !read_local(text, now_unix_ms, zone, &ret->unix_ms)) {
        amp_error_set(reterr, AMP_INVALID, "", "\"%s\" is no time", text);
        amp_error_hint(reterr, "2026-12-01T09:00:00Z, \"2026-12-01 09:00\", 09:00 or +90s");
        return AMP_INVALID;
    }
    if (ret->unix_ms <= now_unix_ms) {
        char shown[AMP_TIME_SIZE], now[AMP_TIME_SIZE];
        amp_time_format(ret->unix_ms, shown);
        amp_time_format(now_unix_ms, now);
        amp_error_set(reterr, AMP_INVALID, "", "\"%s\" (%s) is in the past: it is %s", text, shown, now);
        amp_error_hint(reterr, "a later time, or one from now on such as +90s");
        return AMP_INVALID;
    }
    return AMP_OK;
}
