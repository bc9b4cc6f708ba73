/* Counters of this process, from one table (counters.def): the metrics list, `--json` and docs come from it. Loop thread only. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum counter {
#define COUNTER(name, help) COUNTER_##name,
#include "base/counters.def"
#undef COUNTER
    COUNTERS
};

void counter_add(enum counter counter, uint64_t n);
uint64_t counter_get(enum counter counter);
const char *counter_name(enum counter counter);
const char *counter_help(enum counter counter);
