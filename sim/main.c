/* amesh-sim: the environment, sidecars and callers under virtual time, from one seed. --seeds N runs 1 … N (or FROM-TO, or N from --from on); --seed N runs one, tells what happened
 * and, when it fails, the shortest failing schedule that it found. */
#include "main.h"

#include "base/seeded.h"

#include <getopt.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *chosen_bug = "";

#ifdef AMESH_SEEDED_BUGS
bool seeded_bug(const char *name) { return strcmp(name, chosen_bug) == 0; }
#endif

static int usage(bool is_asked)
{
    fputs("usage: amesh-sim --seed N [--only I,J,…] [--salt N] [--bug NAME]\n"
          "       amesh-sim --seeds [FROM-]TO [--from N] [--jobs N] [--stats] [--json] [--digest] [--bug NAME]\n"
          "       amesh-sim-bugs --table [--seeds N] [--jobs N]\n"
          "\n"
          "  --seed N          one seed: tells what happens and, when it fails, the shortest failing schedule\n"
          "  --seeds [FROM-]TO those seeds, each checked against every promise (sim/README.md)\n"
          "  --from N          the first seed; --seeds says how many then\n"
          "  --jobs N          processes at once\n"
          "  --only I,J,...    of the seed's schedule only these items, as a shortest schedule names them\n"
          "  --salt N          the same schedule with other delays\n"
          "  --stats, --json   what was done in all, for people or as a document\n"
          "  --digest          a number for each seed: the same seed has the same one\n"
          "  --bug NAME        with a fault made on purpose (amesh-sim-bugs only, sim/bugs.def); --table tries all of them\n"
          "\n"
          "Exit status: 0 all held, 1 some failed, 2 usage.\n",
          is_asked ? stdout : stderr);
    return is_asked ? 0 : 2;
}

static bool read_seeds(const char *text, struct options *options)
{
    char *end;
    options->from = 1;
    options->to = strtoull(text, &end, 10);
    if (*end == '-') {
        options->from = options->to;
        options->to = strtoull(end + 1, &end, 10);
    }
    return *end == '\0' && options->to >= options->from;
}

static bool read_only(const char *text, struct options *options)
{
    options->has_only = true;
    for (char *end; *text; text = *end ? end + 1 : end) {
        unsigned long n = strtoul(text, &end, 10);
        if (end == text || n >= ITEMS_MAX || (*end && *end != ','))
            return false;
        options->only[n] = true;
    }
    return true;
}

static bool read_bug(const char *name)
{
#ifdef AMESH_SEEDED_BUGS
    chosen_bug = name;
    return true;
#else
    fputs("amesh-sim: --bug is for amesh-sim-bugs\n", stderr);
    return false;
#endif
}

static int unknown_bug(void)
{
    fprintf(stderr, "amesh-sim-bugs: no fault \"%s\" is made on purpose; these are: ", chosen_bug);
    table_print_names(stderr);
    return 2;
}

static bool read_option(struct options *options, int c, uint64_t *from)
{
    switch (c) {
    case 's':
        options->is_one = true;
        options->from = options->to = strtoull(optarg, NULL, 10);
        return true;
    case 'r':
        return read_seeds(optarg, options);
    case 'f':
        *from = strtoull(optarg, NULL, 10);
        return true;
    case 'j':
        options->jobs = (unsigned)strtoul(optarg, NULL, 10);
        return true;
    case 'o':
        return read_only(optarg, options);
    case 'a':
        options->salt = strtoull(optarg, NULL, 10);
        return true;
    case 'b':
        return read_bug(optarg);
    case 't':
        options->wants_stats = true;
        return true;
    case 'J':
        options->wants_json = true;
        return true;
    case 'd':
        options->wants_digest = true;
        return true;
    case 'T':
        options->wants_table = true;
        return true;
    case 'h':
        options->wants_help = true;
        return true;
    default:
        return false;
    }
}

static bool read_options(int argc, char **argv, struct options *options)
{
    static const struct option longs[] = {{"seed", 1, NULL, 's'}, {"seeds", 1, NULL, 'r'}, {"from", 1, NULL, 'f'}, {"jobs", 1, NULL, 'j'}, {"only", 1, NULL, 'o'},
                                          {"salt", 1, NULL, 'a'}, {"bug", 1, NULL, 'b'}, {"stats", 0, NULL, 't'}, {"json", 0, NULL, 'J'}, {"digest", 0, NULL, 'd'},
                                          {"table", 0, NULL, 'T'}, {"help", 0, NULL, 'h'}, {0}};
    uint64_t from = 0;
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        if (!read_option(options, c, &from))
            return false;
    if (options->wants_table && options->to == 0)
        options->from = 1, options->to = TABLE_SEEDS;
    if (from && options->from == 1) {
        options->to += from - 1;
        options->from = from;
    }
    return !options->wants_help && options->to > 0 && options->jobs > 0 && options->jobs <= WORKERS_MAX;
}

static void prepare(void)
{
    sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

static int run_one(const struct options *options)
{
    char path[64], failure[700];
    campaign_open(path);
    scenario_run(options->from, options->salt, options->has_only ? options->only : NULL, true);
    printf("digest %016llx\n", (unsigned long long)world_digest());
    bool has_failed = world_failure() != NULL;
    if (has_failed) {
        snprintf(failure, sizeof failure, "%s", world_failure());
        printf("seed %llu: %s\n", (unsigned long long)options->from, failure);
        if (!options->has_only)
            (void)shrink(options->from, true);
    }
    campaign_close(path);
    printf("1 seeds, %d failed\n", has_failed);
    return has_failed;
}

int main(int argc, char **argv)
{
    static struct options options = {.jobs = 1};
    if (!read_options(argc, argv, &options))
        return usage(options.wants_help);
    if (*chosen_bug && !table_has(chosen_bug))
        return unknown_bug();
    if (sodium_init() < 0)
        return 1;
    prepare();
    if (options.wants_table)
        return table(&options);
    return options.is_one ? run_one(&options) : campaign(&options);
}
