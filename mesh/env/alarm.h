/* Moments of the wall clock that somebody waits for: a heap. What is due is found by looking at the clock again at least every ALARM_LOOK_MS, so that a clock that is set
 * forward or back is noticed by then, and nothing counts on how long a second is. Pure: time is an argument. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ALARM_LOOK_MS 1000u

struct alarm { /* in whoever waits; zeroed: not set */
    int64_t due_unix_ms;
    size_t place; /* in the heap, from 1 */
    void (*on_due)(struct alarm *alarm);
};

struct alarms {
    struct alarm **heap;
    size_t count, cap;
};

void alarm_set(struct alarms *alarms, struct alarm *alarm, int64_t due_unix_ms); /* replaces an earlier setting */
void alarm_stop(struct alarms *alarms, struct alarm *alarm); /* nothing if it is not set */
bool alarm_is_set(const struct alarm *alarm);
/* Takes the earliest out if it is due; NULL: none is. */
struct alarm *alarm_take(struct alarms *alarms, int64_t now_unix_ms);
/* When the clock is to be looked at again; UINT32_MAX: nobody waits. */
uint32_t alarm_wait_ms(const struct alarms *alarms, int64_t now_unix_ms);
void alarms_done(struct alarms *alarms);
