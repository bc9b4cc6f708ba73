/* amesh-sim: the environment, sidecars and callers under virtual time, from one seed. --seeds N runs 1 … N (or FROM-TO); --seed N runs one and tells what happened. */
#include "sim.h"

#include "base/seeded.h"
#include "scenario.h"

#include <getopt.h>
#include <malloc.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef AMESH_SEEDED_BUGS
static const char *chosen_bug = "";

bool seeded_bug(const char *name) { return strcmp(name, chosen_bug) == 0; }
#endif

struct options {
    uint64_t from, to;
    bool is_traced;
    unsigned jobs;
};

static int usage(void)
{
    fputs("usage: amesh-sim --seed N | --seeds [FROM-]TO [--jobs N] [--bug NAME]\n", stderr);
    return 2;
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

/* → how many seeds failed */
static unsigned run_seeds(const struct options *options, unsigned first)
{
    char dir[] = "/tmp/amesh-sim-XXXXXX", path[64];
    unsigned n_failed = 0;
    if (!mkdtemp(dir))
        abort();
    snprintf(path, sizeof path, "%s/journal.db", dir);
    scenario_prepare(path);
    for (uint64_t seed = options->from + first; seed <= options->to; seed += options->jobs) {
        scenario_run(seed, options->is_traced, path);
        if (world_failure()) {
            n_failed++;
            printf("seed %llu: %s\n", (unsigned long long)seed, world_failure());
            fflush(stdout);
        }
    }
    unlink(path);
    strcat(path, ".lock");
    unlink(path);
    rmdir(dir);
    return n_failed;
}

static unsigned run_all(const struct options *options)
{
    unsigned n_failed = 0;
    if (options->jobs == 1)
        return run_seeds(options, 0);
    for (unsigned i = 0; i < options->jobs; i++) {
        if (fork() == 0) {
            unsigned failed = run_seeds(options, i);
            exit(failed > 100 ? 100 : (int)failed);
        }
    }
    for (int status; wait(&status) > 0;)
        n_failed += WIFEXITED(status) ? (unsigned)WEXITSTATUS(status) : 1;
    return n_failed;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {{"seed", 1, NULL, 's'}, {"seeds", 1, NULL, 'r'}, {"jobs", 1, NULL, 'j'}, {"bug", 1, NULL, 'b'}, {0}};
    struct options options = {.jobs = 1};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (c == 's') {
            options.from = options.to = strtoull(optarg, NULL, 10);
            options.is_traced = true;
        } else if (c == 'j') {
            options.jobs = (unsigned)strtoul(optarg, NULL, 10);
        } else if (c == 'r' ? !read_seeds(optarg, &options) : c == 'b' ? !read_bug(optarg) : true) {
            return usage();
        }
    }
    if (options.to == 0 || options.jobs == 0 || options.jobs > 64)
        return usage();
    if (sodium_init() < 0)
        return 1;
    sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    mallopt(M_MMAP_THRESHOLD, 1 << 30); /* memory is kept: a seed's is the next one's */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 1 << 24);
    setvbuf(stdout, NULL, _IOLBF, 0);
    unsigned n_failed = run_all(&options);
    printf("%llu seeds, %u failed\n", (unsigned long long)(options.to - options.from + 1), n_failed);
    return n_failed ? 1 : 0;
}
