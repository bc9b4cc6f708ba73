#include "alarm.h"

#include "base/alloc.h"

#include <stdlib.h>

static void put(struct alarms *alarms, size_t place, struct alarm *alarm)
{
    alarms->heap[place - 1] = alarm;
    alarm->place = place;
}

static void move_up(struct alarms *alarms, size_t place, struct alarm *alarm)
{
    for (; place > 1 && alarms->heap[place / 2 - 1]->due_unix_ms > alarm->due_unix_ms; place /= 2)
        put(alarms, place, alarms->heap[place / 2 - 1]);
    put(alarms, place, alarm);
}

static void move_down(struct alarms *alarms, size_t place, struct alarm *alarm)
{
    for (size_t child = place * 2; child <= alarms->count; place = child, child *= 2) {
        if (child < alarms->count && alarms->heap[child]->due_unix_ms < alarms->heap[child - 1]->due_unix_ms)
            child++;
        if (alarms->heap[child - 1]->due_unix_ms >= alarm->due_unix_ms)
            break;
        put(alarms, place, alarms->heap[child - 1]);
    }
    put(alarms, place, alarm);
}

bool alarm_is_set(const struct alarm *alarm)
{
    return alarm->place > 0;
}

void alarm_stop(struct alarms *alarms, struct alarm *alarm)
{
    size_t place = alarm->place;
    if (!place)
        return;
    struct alarm *last = alarms->heap[--alarms->count];
    alarm->place = 0;
    if (last == alarm)
        return;
    if (place > 1 && alarms->heap[place / 2 - 1]->due_unix_ms > last->due_unix_ms)
        move_up(alarms, place, last);
    else
        move_down(alarms, place, last);
}

void alarm_set(struct alarms *alarms, struct alarm *alarm, int64_t due_unix_ms)
{
    alarm_stop(alarms, alarm);
    if (alarms->count == alarms->cap) {
        alarms->cap = alarms->cap ? alarms->cap * 2 : 16;
        alarms->heap = xrealloc(alarms->heap, alarms->cap * sizeof *alarms->heap);
    }
    alarm->due_unix_ms = due_unix_ms;
    move_up(alarms, ++alarms->count, alarm);
}

struct alarm *alarm_take(struct alarms *alarms, int64_t now_unix_ms)
{
    struct alarm *first = alarms->count ? alarms->heap[0] : NULL;
    if (!first || first->due_unix_ms > now_unix_ms)
        return NULL;
    alarm_stop(alarms, first);
    return first;
}

uint32_t alarm_wait_ms(const struct alarms *alarms, int64_t now_unix_ms)
{
    if (!alarms->count)
        return UINT32_MAX;
    int64_t left_ms = alarms->heap[0]->due_unix_ms - now_unix_ms;
    return left_ms <= 0 ? 0 : left_ms < ALARM_LOOK_MS ? (uint32_t)left_ms : ALARM_LOOK_MS;
}

void alarms_done(struct alarms *alarms)
{
    free(alarms->heap);
    *alarms = (struct alarms){0};
}
