/* The smallest agent that does anything: its answer is what it was asked. Any number of tasks at once. */
#include <amesh/client.h>
#include <stdio.h>

static void on_task(struct amesh_task *task, void *ctx)
{
    (void)amesh_task_complete(task, task->text);
}

int main(void)
{
    struct amesh *mesh;
    struct amp_error err;
    if (amesh_connect(&(struct amesh_options){.concurrency = 10000}, &mesh, &err) != AMP_OK || amesh_serve(mesh, on_task, NULL, &err) != AMP_OK) {
        fprintf(stderr, "echo_agent: %s\n", err.message);
        return 1;
    }
    amesh_free(mesh);
    return 0;
}
