/* The moments that RFC 3339 can write. (Not named time.h: that is libc's.) */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TIME_MIN_MS INT64_C(-62135596800000) /* 0001-01-01T00:00:00.000Z */
#define TIME_MAX_MS INT64_C(253402300799999) /* 9999-12-31T23:59:59.999Z */

bool time_is_in_range(int64_t unix_ms);
