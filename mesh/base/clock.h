/* The only reader of clocks. Durations come from clock_mono_*, moments that people see from clock_unix_ms. */
#pragma once
#include <stdint.h>

int64_t clock_mono_ms(void);
int64_t clock_mono_us(void);
int64_t clock_unix_ms(void);
