#include "base/counters.h"

#include <assert.h>

static uint64_t values[COUNTERS];

static const struct {
    const char *name, *help;
} rows[COUNTERS] = {
#define COUNTER(name, help) [COUNTER_##name] = {#name, help},
#include "base/counters.def"
#undef COUNTER
};

void counter_add(enum counter counter, uint64_t n)
{
    assert(counter < COUNTERS);
    values[counter] += n;
}

uint64_t counter_get(enum counter counter)
{
    assert(counter < COUNTERS);
    return values[counter];
}

const char *counter_name(enum counter counter)
{
    assert(counter < COUNTERS);
    return rows[counter].name;
}

const char *counter_help(enum counter counter)
{
    assert(counter < COUNTERS);
    return rows[counter].help;
}
