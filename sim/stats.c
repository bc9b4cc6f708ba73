#include "sim.h"

uint64_t *stats; /* of this process: main.c */

const struct stat_row stat_rows[STATS] = {
#define STAT(name, text) {#name, text},
#include "stats.def"
#undef STAT
};

void stat_add(enum stat_name stat, uint64_t n)
{
    if (stats)
        stats[stat] += n;
}
