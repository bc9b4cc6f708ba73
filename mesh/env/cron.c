#include "cron.h"

#include "base/civil.h"
#include "base/zone.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DAY_S 86400
#define EVERY_HOUR 0xFFFFFFu
#define YEAR_MAX 9999

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static const char *const months[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekdays[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

static const struct field {
    const char *name;
    int min, max;
    const char *const *names; /* of min and what follows */
} fields[] = {
    {"minute", 0, 59, NULL}, {"hour", 0, 23, NULL}, {"day of the month", 1, 31, NULL}, {"month", 1, 12, months}, {"day of the week", 0, 7, weekdays},
};
enum { FIELDS = sizeof fields / sizeof *fields, DAY_FIELD = 2, WEEKDAY_FIELD = 4 };

static const struct {
    const char *name, *text;
} short_forms[] = {
    {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"}, {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"}, {"@midnight", "0 0 * * *"}, {"@hourly", "0 * * * *"},
};

static bool take_digits(const char **p, int *ret)
{
    const char *begin = *p;
    *ret = 0;
    while (isdigit((unsigned char)**p) && *p - begin < 4)
        *ret = *ret * 10 + (*(*p)++ - '0');
    return *p > begin;
}

/* A number or a name; one that is longer than three letters is none. What is none is left where it stands. */
static bool take_value(const char **p, const struct field *field, int *ret)
{
    const char *begin = *p;
    for (int i = 0; field->names && field->names[i]; i++) {
        if (strncasecmp(*p, field->names[i], 3) == 0 && !isalpha((unsigned char)(*p)[3])) {
            *p += 3;
            *ret = field->min + i;
            return true;
        }
    }
    if (take_digits(p, ret) && !isalnum((unsigned char)**p) && *ret >= field->min && *ret <= field->max)
        return true;
    *p = begin;
    return false;
}

static const char no_value[] = "has a value that is none"; /* cron_parse says which */

/* "*", "5", "5-20", each with "/step" (5/15: from 5 on). NULL, or what is wrong. */
static const char *take_range(const char **p, const struct field *field, uint64_t *bits)
{
    int from = field->min, to = field->max, step = 1;
    bool is_one = false;
    if (**p == '*') {
        ++*p;
        to = field->names == weekdays ? 6 : to;
    } else {
        if (!take_value(p, field, &from))
            return no_value;
        is_one = **p != '-';
        to = from;
        if (!is_one && (++*p, !take_value(p, field, &to)))
            return isalnum((unsigned char)**p) ? no_value : "has a range without an end";
        if (to == 0 && from > 0 && field->names == weekdays)
            to = 7; /* fri-sun */
        if (to < from)
            return "has a range that ends before it begins";
    }
    if (**p == '/') {
        ++*p;
        if (!take_digits(p, &step) || step < 1 || step > field->max)
            return "has a step that is none";
        to = is_one ? field->max : to;
    }
    assert(from >= 0 && to < 64);
    for (int i = from; i <= to; i += step)
        *bits |= UINT64_C(1) << i;
    return NULL;
}

static const char *take_field(const char **p, const struct field *field, uint64_t *bits)
{
    const char *wrong;
    *bits = 0;
    do {
        wrong = take_range(p, field, bits);
    } while (!wrong && **p == ',' && *++*p);
    if (!wrong && **p && **p != ' ' && **p != '\t')
        wrong = "has something in it that does not belong there";
    return wrong;
}

static const char *skip_space(const char *p)
{
    return p + strspn(p, " \t");
}

/* Is there any day for it, in a leap year? */
static bool has_day(const struct cron *cron)
{
    if (!cron->is_any_day && !cron->is_any_weekday)
        return true;
    for (int month = 1; month <= 12; month++)
        if (cron->months >> month & 1 && cron->days & ((UINT64_C(2) << civil_month_days(2000, month)) - 1))
            return true;
    return false;
}

static enum amp_code refuse(struct amp_error *reterr, const char *text, const char *field, const char *wrong)
{
    amp_error_set(reterr, AMP_INVALID, "cron", "\"%.100s\": %s%s%s", text, field, *field ? " " : "", wrong);
    amp_error_hint(reterr, "five fields: minute hour day-of-month month day-of-week, such as \"*/15 9-17 * * mon-fri\"; or @hourly @daily @weekly @monthly @yearly");
    return AMP_INVALID;
}

/* `value` is where it stands. */
static enum amp_code refuse_value(struct amp_error *reterr, const char *text, const struct field *field, const char *value)
{
    char from[40], wrong[120], names[24] = "";
    size_t len = strcspn(value, " \t,/");
    if (len == 0)
        snprintf(wrong, sizeof wrong, "has nothing where a value belongs");
    if (field->names)
        snprintf(names, sizeof names, ", or %s to %s", field->names[0], field->names[field->names == weekdays ? 6 : field->max - field->min]);
    if (len > 0)
        snprintf(wrong, sizeof wrong, "goes from %d to %d%s: %.*s is none of it", field->min, field->max, names, (int)(len > 20 ? 20 : len), value);
    snprintf(from, sizeof from, "the %s", field->name);
    return refuse(reterr, text, from, wrong);
}

enum amp_code cron_parse(const char *text, struct cron *ret, struct amp_error *reterr)
{
    const char *p = skip_space(text);
    uint64_t bits[FIELDS];
    bool is_star[FIELDS];
    for (size_t i = 0; i < sizeof short_forms / sizeof *short_forms; i++)
        if (strcasecmp(p, short_forms[i].name) == 0)
            p = short_forms[i].text;
    if (*p == '@')
        return refuse(reterr, text, "", "is not known");
    for (size_t i = 0; i < FIELDS; i++) {
        is_star[i] = *p == '*';
        if (!*p)
            return refuse(reterr, text, "there is no field for the", fields[i].name);
        const char *wrong = take_field(&p, &fields[i], &bits[i]);
        if (wrong == no_value)
            return refuse_value(reterr, text, &fields[i], p);
        if (wrong) {
            char field[40];
            snprintf(field, sizeof field, "the %s", fields[i].name);
            return refuse(reterr, text, field, wrong);
        }
        p = skip_space(p);
    }
    if (*p)
        return refuse(reterr, text, "", "has more than five fields");
    *ret = (struct cron){.minutes = bits[0], .hours = (uint32_t)bits[1], .days = (uint32_t)bits[2], .months = (uint32_t)bits[3],
                         .weekdays = (uint8_t)((bits[4] | bits[4] >> 7) & 0x7F), .is_any_day = is_star[DAY_FIELD], .is_any_weekday = is_star[WEEKDAY_FIELD]};
    return has_day(ret) ? AMP_OK : refuse(reterr, text, "", "never comes: there is no such day");
}

/* ---- local times ------------------------------------------------------------------------------------------------------- */

static bool is_day(const struct cron *cron, const struct civil *civil)
{
    bool is_month_day = cron->days >> civil->day & 1, is_weekday = cron->weekdays >> civil->weekday & 1;
    return cron->is_any_day || cron->is_any_weekday ? is_month_day && is_weekday : is_month_day || is_weekday;
}

/* The first minute of a day that is one of its times and not before this one; −1: none is. */
static int next_minute(const struct cron *cron, int minute_of_day)
{
    for (int hour = minute_of_day / 60, minute = minute_of_day % 60; hour < 24; hour++, minute = 0) {
        uint64_t left = cron->hours >> hour & 1 ? cron->minutes >> minute : 0;
        if (left)
            return hour * 60 + minute + __builtin_ctzll(left);
    }
    return -1;
}

/* The first local time that is one of its times, from `from` on and before `to`; INT64_MAX: none is. */
static int64_t next_local(const struct cron *cron, int64_t from, int64_t to)
{
    from += (60 - (from % 60 + 60) % 60) % 60;
    while (from < to) {
        struct civil civil = civil_of(from);
        int minute = -1;
        if (civil.year > YEAR_MAX)
            return INT64_MAX;
        if (!(cron->months >> civil.month & 1)) {
            from = (civil_days(civil.year, civil.month, 1) + civil_month_days(civil.year, civil.month)) * DAY_S;
            continue;
        }
        int64_t day = civil_days(civil.year, civil.month, civil.day);
        if (is_day(cron, &civil))
            minute = next_minute(cron, civil.hour * 60 + civil.minute);
        from = minute < 0 ? (day + 1) * DAY_S : day * DAY_S + (int64_t)minute * 60;
        if (minute >= 0)
            return from < to ? from : INT64_MAX;
    }
    return INT64_MAX;
}

/* ---- moments ----------------------------------------------------------------------------------------------------------- */

static int64_t local_end(const struct zone_span *span)
{
    return span->to == INT64_MAX ? INT64_MAX : span->to + span->offset_s;
}

int64_t cron_next(const struct cron *cron, const struct zone *zone, int64_t after_s)
{
    bool is_every_hour = cron->hours == EVERY_HOUR;
    struct zone_span span = zone_span(zone, after_s);
    int64_t from = after_s + 1 + span.offset_s;
    if (!is_every_hour && span.from != INT64_MIN) { /* what the clocks showed before they were set back was run then */
        int64_t shown = span.from + zone_span(zone, span.from - 1).offset_s;
        from = shown > from ? shown : from;
    }
    for (;;) {
        int64_t found = next_local(cron, from, local_end(&span));
        if (found != INT64_MAX)
            return found - span.offset_s;
        if (span.to == INT64_MAX || civil_of(span.to).year > YEAR_MAX)
            return INT64_MAX;
        int64_t shown = local_end(&span);
        span = zone_span(zone, span.to);
        int64_t begin = span.from + span.offset_s;
        if (!is_every_hour && next_local(cron, shown, begin) != INT64_MAX)
            return span.from; /* skipped by the clocks */
        from = !is_every_hour && shown > begin ? shown : begin;
    }
}
