/* The Gregorian calendar as arithmetic on seconds: no zone, no leap seconds, no libc. Seconds are since 1970-01-01 00:00:00 of whatever clock is meant. Pure. */
#pragma once
#include <stdint.h>

struct civil {
    int64_t year;
    int month, day; /* from 1 */
    int hour, minute, second;
    int weekday; /* 0: Sunday; civil_seconds does not look at it */
};

struct civil civil_of(int64_t seconds);
int64_t civil_seconds(const struct civil *civil); /* a day past the end of its month is one of the next month */
int64_t civil_days(int64_t year, int month, int day); /* since 1970-01-01 */
int civil_month_days(int64_t year, int month);
