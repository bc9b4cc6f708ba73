/* The agent of the join benchmark: its answer is the moment at which it joined, that is, at which its sidecar said so to its hello. */
#include "measure.h"

#include <amesh/client.h>

static void on_task(struct amesh_task *task, void *ctx)
{
    (void)amesh_task_printf(task, "@%ld", *(const int64_t *)ctx);
}

int main(void)
{
    struct amesh *mesh;
    struct amp_error err;
    if (amesh_connect(&(struct amesh_options){.concurrency = 64}, &mesh, &err) != AMP_OK) {
        fprintf(stderr, "join_agent: %s\n", err.message);
        return 1;
    }
    int64_t joined_ns = measure_now_ns();
    if (amesh_serve(mesh, on_task, &joined_ns, &err) != AMP_OK) {
        fprintf(stderr, "join_agent: %s\n", err.message);
        return 1;
    }
    amesh_free(mesh);
    return 0;
}
