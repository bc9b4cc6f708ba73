/* Which fault made on purpose is found in how many seeds, and how short the schedule is that shows it. */
#include "main.h"

#include <sys/wait.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name, *promise, *text;
} bugs[] = {
#define BUG(name, promise, text) {name, promise, text},
#include "bugs.def"
#undef BUG
};

#define BUGS (sizeof bugs / sizeof *bugs)
#define FURTHER_MAX 4000u /* seeds, for those that are found in none of the first ones */

bool table_has(const char *bug)
{
    for (size_t i = 0; i < BUGS; i++)
        if (strcmp(bugs[i].name, bug) == 0)
            return true;
    return false;
}

void table_print_names(FILE *to)
{
    for (size_t i = 0; i < BUGS; i++)
        fprintf(to, "%s%s", bugs[i].name, i + 1 < BUGS ? ", " : "\n");
}

/* In a process of its own, as all runs are. */
static int shortest(uint64_t seed)
{
    int status = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        char path[PATH_ROOM];
        campaign_open(path);
        size_t n = shrink(seed, false);
        campaign_close(path);
        _exit(n > 255 ? 255 : (int)n);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The first seed behind those that were counted; 0: none. */
static uint64_t look_further(const struct options *counted, const char *promise)
{
    struct options options = *counted;
    struct result result = {0};
    while (!result.first_failed && options.to < FURTHER_MAX) {
        options.from = options.to + 1;
        options.to = options.to * 2 < FURTHER_MAX ? options.to * 2 : FURTHER_MAX;
        campaign_run(&options, promise, true, &result);
    }
    return result.first_failed;
}

int table(const struct options *options)
{
    int status = 0;
    uint64_t count = options->to - options->from + 1;
    printf("| fault made on purpose | breaks | found in, of %llu seeds | first seed | shortest schedule |\n| --- | --- | --- | --- | --- |\n", (unsigned long long)count);
    for (size_t i = 0; i < BUGS; i++) {
        struct result result;
        chosen_bug = bugs[i].name;
        campaign_run(options, bugs[i].promise, true, &result);
        uint64_t first = result.first_failed ? result.first_failed : look_further(options, bugs[i].promise);
        printf("| `%s`: %s | %s | %llu | %llu | ", bugs[i].name, bugs[i].text, bugs[i].promise, (unsigned long long)result.failed, (unsigned long long)first);
        printf("%d items |\n", first ? shortest(first) : 0);
        if (!first)
            status = 1;
    }
    return status;
}
