/* Which fault made on purpose is found in how many seeds, and how short the schedule is that shows it. */
#include "main.h"

#include <sys/wait.h>
#include <stdlib.h>
#include <unistd.h>

static const struct {
    const char *name, *promise, *text;
} bugs[] = {
#define BUG(name, promise, text) {name, promise, text},
#include "bugs.def"
#undef BUG
};

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

int table(const struct options *options)
{
    int status = 0;
    printf("| fault made on purpose | breaks | found in, of %llu seeds | first seed | shortest schedule |\n| --- | --- | --- | --- | --- |\n", (unsigned long long)(options->to - options->from + 1));
    for (size_t i = 0; i < sizeof bugs / sizeof *bugs; i++) {
        struct result result;
        chosen_bug = bugs[i].name;
        campaign_run(options, bugs[i].promise, true, &result);
        printf("| `%s`: %s | %s | %llu | %llu | ", bugs[i].name, bugs[i].text, bugs[i].promise, (unsigned long long)result.failed, (unsigned long long)result.first_failed);
        printf("%d items |\n", result.first_failed ? shortest(result.first_failed) : 0);
        if (!result.failed)
            status = 1;
    }
    return status;
}
