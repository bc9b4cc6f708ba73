/* The campaign's agent in C: a pure function, SHA-256 of what it was asked in hex, after the milliseconds that the text names. Any number of tasks at once.
 *   "NAME work MS"    the digest       "NAME poison MS"  kill -9 of itself
 * Each run is noted in the file RUNS (one write a line, which a kill -9 of this program leaves whole): begin|end TASK ATTEMPT INSTANCE MONOTONIC-NS. */
#include <amesh/client.h>

#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct job {
    struct amesh_task *task;
    int64_t due_ns;
    struct job *next;
};

static struct job *jobs;
static int runs_fd = -1;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void note(const char *what, const struct amesh_task *task)
{
    char line[256];
    int len = snprintf(line, sizeof line, "%s %s %u %s %lld\n", what, task->id, task->attempt, amesh_instance(task->mesh), (long long)now_ns());
    if (runs_fd >= 0 && write(runs_fd, line, (size_t)len) != len)
        perror("chaos_agent");
}

static void finish(struct amesh_task *task)
{
    unsigned char digest[crypto_hash_sha256_BYTES];
    char hex[2 * sizeof digest + 1];
    crypto_hash_sha256(digest, (const unsigned char *)task->text, strlen(task->text));
    note("end", task);
    (void)amesh_task_complete(task, sodium_bin2hex(hex, sizeof hex, digest, sizeof digest)); /* refused: it was taken back, or the sidecar is gone */
}

static void on_task(struct amesh_task *task, void *ctx)
{
    (void)ctx;
    char word[16] = "";
    unsigned ms = 0;
    note("begin", task);
    (void)sscanf(task->text, "%*s %15s %u", word, &ms);
    if (strcmp(word, "poison") == 0)
        (void)kill(getpid(), SIGKILL);
    (void)amesh_task_status(task, "begun");
    if (ms == 0) {
        finish(task);
        return;
    }
    struct job *job = malloc(sizeof *job);
    *job = (struct job){.task = task, .due_ns = now_ns() + ms * 1000000LL, .next = jobs};
    jobs = job;
    amesh_task_keep(task);
}

static void drop(struct amesh_task *task)
{
    for (struct job **at = &jobs; *at; at = &(*at)->next)
        if ((*at)->task == task) {
            struct job *job = *at;
            *at = job->next;
            free(job);
            return;
        }
}

static void on_cancel(struct amesh_task *task, void *ctx)
{
    (void)ctx;
    drop(task);
    note("cancel", task);
    (void)amesh_task_cancel(task, "told to stop");
}

/* → ms until the next one, -1: none */
static int finish_due(void)
{
    int64_t now = now_ns(), first = -1;
    for (struct job **at = &jobs; *at;) {
        struct job *job = *at;
        if (job->due_ns <= now) {
            *at = job->next;
            finish(job->task);
            free(job);
        } else {
            first = first < 0 || job->due_ns < first ? job->due_ns : first;
            at = &job->next;
        }
    }
    return first < 0 ? -1 : (int)((first - now) / 1000000) + 1;
}

int main(int argc, char **argv)
{
    struct amesh *mesh;
    struct amp_error err;
    enum amp_code code;
    runs_fd = argc > 1 ? open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (amesh_connect(&(struct amesh_options){.concurrency = 10000}, &mesh, &err) != AMP_OK) {
        fprintf(stderr, "chaos_agent: %s\n", err.message);
        return 1;
    }
    amesh_set_handlers(mesh, &(struct amesh_handlers){.on_task = on_task, .on_cancel = on_cancel}, NULL);
    do
        code = amesh_step(mesh, finish_due(), &err);
    while (code == AMP_OK);
    if (code != AMP_STOPPING)
        fprintf(stderr, "chaos_agent: %s\n", err.message);
    amesh_free(mesh);
    return code == AMP_STOPPING ? 0 : 1;
}
