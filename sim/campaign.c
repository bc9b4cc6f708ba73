/* Many seeds, in several processes that count in shared memory. */
#include "main.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROGRESS_S 30

void campaign_open(char path[PATH_ROOM])
{
    char dir[] = "/tmp/amesh-sim-XXXXXX";
    if (!mkdtemp(dir))
        abort();
    snprintf(path, PATH_ROOM, "%s/journal.db", dir);
    nodes_prepare(path);
}

void campaign_close(char path[PATH_ROOM])
{
    size_t len = strlen(path);
    unlink(path);
    snprintf(path + len, PATH_ROOM - len, ".lock");
    unlink(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
}

static bool is_counted(const char *failure, const char *promise)
{
    const char *at = failure ? strstr(failure, "s: ") : NULL;
    char found[3] = "";
    if (at)
        snprintf(found, sizeof found, "%.2s", at + 3);
    return failure && (!promise || (*found && strstr(promise, found)));
}

static void run_seed(uint64_t seed, const char *promise, bool is_quiet, struct result *result)
{
    scenario_run(seed, 0, NULL, false);
    result->seeds++;
    result->digest ^= world_digest() * (2 * seed + 1);
    if (!is_counted(world_failure(), promise))
        return;
    result->failed++;
    if (!result->first_failed)
        result->first_failed = seed;
    if (!is_quiet)
        printf("seed %llu: %s\n", (unsigned long long)seed, world_failure());
}

static void run_worker(const struct options *options, unsigned worker, const char *promise, bool is_quiet, struct result *result)
{
    char path[PATH_ROOM];
    campaign_open(path);
    stats = result->stats;
    for (uint64_t seed = options->from + worker; seed <= options->to; seed += options->jobs)
        run_seed(seed, promise, is_quiet, result);
    stats = NULL;
    campaign_close(path);
}

static void add_up(const struct result *results, unsigned n, struct result *ret)
{
    memset(ret, 0, sizeof *ret);
    for (unsigned i = 0; i < n; i++) {
        ret->seeds += results[i].seeds;
        ret->failed += results[i].failed;
        ret->digest ^= results[i].digest;
        if (results[i].first_failed && (!ret->first_failed || results[i].first_failed < ret->first_failed))
            ret->first_failed = results[i].first_failed;
        for (size_t j = 0; j < STATS; j++)
            ret->stats[j] += results[i].stats[j];
    }
}

static unsigned long long n_seeds(const struct options *options) { return options->to - options->from + 1; }

static void say_progress(const struct options *options, const struct result *results, time_t start)
{
    struct result sum;
    add_up(results, options->jobs, &sum);
    double taken_s = (double)(time(NULL) - start);
    fprintf(stderr, "%llu of %llu seeds, %llu failed, %.0f a second\n", (unsigned long long)sum.seeds, n_seeds(options), (unsigned long long)sum.failed,
            taken_s > 0 ? (double)sum.seeds / taken_s : 0);
}

static volatile sig_atomic_t is_progress_due;
static void on_alarm(int signo) { is_progress_due = 1; } /* it interrupts the wait */

/* → how many of them ended badly */
static unsigned wait_all(const struct options *options, const struct result *results)
{
    unsigned n_bad = 0;
    time_t start = time(NULL);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_interval = {.tv_sec = PROGRESS_S}, .it_value = {.tv_sec = PROGRESS_S}}, NULL);
    for (unsigned n_left = options->jobs; n_left > 0;) {
        int status;
        if (wait(&status) > 0) {
            n_left--;
            n_bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        }
        if (is_progress_due)
            say_progress(options, results, start);
        is_progress_due = 0;
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    return n_bad;
}

void campaign_run(const struct options *options, const char *promise, bool is_quiet, struct result *ret)
{
    size_t size = options->jobs * sizeof(struct result);
    struct result *results = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED)
        abort();
    fflush(stdout);
    for (unsigned i = 0; i < options->jobs; i++) {
        if (fork() == 0) {
            run_worker(options, i, promise, is_quiet, &results[i]);
            exit(0);
        }
    }
    unsigned n_bad = wait_all(options, results);
    add_up(results, options->jobs, ret);
    ret->failed += n_bad; /* a crash or what a sanitizer found */
    munmap(results, size);
}

/* ---- what happened ------------------------------------------------------------------------------------------------------ */

static void print_stats(const struct result *result)
{
    for (size_t i = 0; i < STATS; i++)
        printf("%14llu  %s\n", (unsigned long long)result->stats[i], stat_rows[i].text);
}

static void print_json(const struct options *options, const struct result *result, double taken_s)
{
    printf("{\"from\": %llu, \"to\": %llu, \"failed\": %llu, \"seconds\": %.1f, \"jobs\": %u", (unsigned long long)options->from, (unsigned long long)options->to,
           (unsigned long long)result->failed, taken_s, options->jobs);
    for (size_t i = 0; i < STATS; i++)
        printf(", \"%s\": %llu", stat_rows[i].name, (unsigned long long)result->stats[i]);
    puts("}");
}

int campaign(const struct options *options)
{
    struct result result;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    campaign_run(options, NULL, false, &result);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (options->wants_stats)
        print_stats(&result);
    if (options->wants_digest)
        printf("digest %016llx\n", (unsigned long long)result.digest);
    if (options->wants_json)
        print_json(options, &result, (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    printf("%llu seeds, %llu failed\n", n_seeds(options), (unsigned long long)result.failed);
    return result.failed ? 1 : 0;
}
