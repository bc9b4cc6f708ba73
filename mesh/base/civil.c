#include "base/civil.h"

#define DAY_S 86400

/* Years are counted from March, so that the leap day is the last day of its year. */
int64_t civil_days(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400, year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

int civil_month_days(int64_t year, int month)
{
    int64_t first = civil_days(year, month, 1);
    return (int)(month == 12 ? 31 : civil_days(year, month + 1, 1) - first);
}

struct civil civil_of(int64_t seconds)
{
    int64_t days = seconds / DAY_S, rest = seconds % DAY_S;
    if (rest < 0) {
        days--;
        rest += DAY_S;
    }
    int weekday = (int)(((days + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153;
    int day = (int)(day_of_year - (153 * month + 2) / 5 + 1);
    month += month < 10 ? 3 : -9;
    return (struct civil){.year = year_of_era + era * 400 + (month <= 2),
                          .month = (int)month,
                          .day = day,
                          .hour = (int)(rest / 3600),
                          .minute = (int)(rest / 60 % 60),
                          .second = (int)(rest % 60),
                          .weekday = weekday};
}

int64_t civil_seconds(const struct civil *civil)
{
    return civil_days(civil->year, civil->month, civil->day) * DAY_S + (int64_t)civil->hour * 3600 + (int64_t)civil->minute * 60 + civil->second;
}
