/* The storm's agent: a task takes as long as its text says, without using the CPU. (storm.h)
 *   storm_agent LOG SLOW_FROM_MS SLOW_FACTOR BUSY_FROM_MS BUSY_UNTIL_MS */
#include "storm.h"

#include <amesh/client.h>

static void on_task(struct amesh_task *task, void *ctx)
{
    struct storm_agent *agent = ctx;
    size_t id;
    int64_t until_ns = storm_begin(agent, task->text, &id);
    if (until_ns <= 0) {
        (void)(until_ns == 0 ? amesh_task_busy(task, STORM_BUSY) : amesh_task_reject(task, "no task of the storm: %s", task->text));
        return;
    }
    struct pollfd pfd = {.fd = amesh_fd(task->mesh), .events = POLLIN};
    for (;;) {
        struct timespec left = storm_left(until_ns);
        if (ppoll(&pfd, 1, &left, NULL) <= 0)
            break;
        if (amesh_task_is_canceled(task)) {
            storm_log(agent, 'c', id);
            (void)amesh_task_cancel(task, "cancelled");
            return;
        }
    }
    storm_log(agent, 'd', id);
    (void)amesh_task_complete(task, "done");
}

int main(int argc, char **argv)
{
    if (argc != STORM_AGENT_ARGS + 1)
        return 2;
    struct storm_agent agent;
    storm_agent_init(&agent, argv + 1);
    struct amesh *mesh;
    struct amp_error err;
    if (amesh_connect(NULL, &mesh, &err) != AMP_OK || amesh_serve(mesh, on_task, &agent, &err) != AMP_OK) {
        fprintf(stderr, "storm_agent: %s\n", err.message);
        return 1;
    }
    amesh_free(mesh);
    return 0;
}
