/* Clocks that a test sets: they take the place of base/clock.c in the one program whose one file includes this. */
#pragma once
#include "base/clock.h"

#include <time.h>

static int64_t set_clock_ms; /* how far the wall clock was set */
static int64_t set_clock_stands_ms; /* not 0: it shows this, and goes no further by itself */

int64_t clock_mono_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

int64_t clock_unix_ms(void)
{
    struct timespec now;
    if (set_clock_stands_ms)
        return set_clock_stands_ms + set_clock_ms;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 + set_clock_ms;
}
