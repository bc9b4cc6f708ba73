/* The agent of the stream benchmark: "COUNT RATE [SIZE]" is answered with COUNT records of SIZE bytes as text events, RATE a second, 0 for as fast as it may. Eight processes, each with a connection of its own, so that
 * one that is held back holds back no other. */
#include "stream.h"

#include <amesh/client.h>
#include <sys/wait.h>

#define WORKERS 8

static void on_task(struct amesh_task *task, void *ctx)
{
    size_t count = 0, rate = 0, size = RECORD_SIZE;
    if (sscanf(task->text, "%zu %zu %zu", &count, &rate, &size) < 2 || size < RECORD_HEAD || size > RECORD_SIZE_MAX) {
        (void)amesh_task_reject(task, "not COUNT RATE [SIZE]");
        return;
    }
    int64_t start_ns = measure_now_ns();
    for (size_t i = 0; i < count; i++) {
        static char record[RECORD_SIZE_MAX + 1];
        if (rate > 0) {
            int64_t at = start_ns + (int64_t)(i * 1000000000 / rate);
            struct timespec until = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
            while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
                ;
        }
        record_write(record, i, size);
        if (amesh_task_write(task, record) != AMP_OK || (i % 256 == 0 && amesh_task_is_canceled(task)))
            return;
    }
}

static int work(void)
{
    struct amesh *mesh;
    struct amp_error err;
    if (amesh_connect(NULL, &mesh, &err) != AMP_OK || amesh_serve(mesh, on_task, NULL, &err) != AMP_OK) {
        fprintf(stderr, "stream_agent: %s\n", err.message);
        return 1;
    }
    amesh_free(mesh);
    return 0;
}

int main(void)
{
    unsetenv("AMESH_FD");
    for (int i = 0; i < WORKERS; i++)
        if (fork() == 0)
            return work();
    while (wait(NULL) > 0)
        ;
    return 0;
}
