/* Between main.c (what is wanted), campaign.c (many seeds in several processes) and table.c (which fault made on purpose is found how often). */
#pragma once
#include "scenario.h"

#define WORKERS_MAX 64u
#define PATH_ROOM 64
#define TABLE_SEEDS 200u /* for each row of --table */

struct options {
    uint64_t from, to, salt;
    unsigned jobs;
    bool is_one, has_only, wants_stats, wants_json, wants_digest, wants_table, wants_help;
    bool only[ITEMS_MAX];
};
extern const char *chosen_bug;

/* A directory for what is a real file even here: the lock. */
void campaign_open(char path[PATH_ROOM]);
void campaign_close(char path[PATH_ROOM]);

struct result { /* of many seeds */
    uint64_t seeds, failed, digest;
    uint64_t first_failed; /* the least seed that did; 0: none */
    uint64_t stats[STATS];
};
#define PROMISES_MAX 10
/* Runs them in options->jobs processes. is_quiet: failures are counted and not said; promise (may be NULL): only those that break one of "P1|P4" count. */
void campaign_run(const struct options *options, const char *promise, bool is_quiet, struct result *ret);
int campaign(const struct options *options);
int table(const struct options *options);
bool table_has(const char *bug); /* is there a fault of this name? (bugs.def) */
void table_print_names(FILE *to);
