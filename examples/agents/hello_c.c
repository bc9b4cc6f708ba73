/* An agent in C: says hello to whom it is asked to.
 *
 *     cc hello_c.c $(pkg-config --cflags --libs libamesh-client) -o hello_c
 *     amesh run --name hello --mode dial -- ./hello_c          amesh ask hello world */
#include <amesh/client.h>
#include <stdio.h>

static void on_task(struct amesh_task *task, void *ctx)
{
    amesh_task_printf(task, "hello, %s", task->text);
}

int main(void)
{
    struct amesh *mesh;
    struct amp_error err;
    if (amesh_connect(NULL, &mesh, &err) != AMP_OK || amesh_serve(mesh, on_task, NULL, &err) != AMP_OK) {
        fprintf(stderr, "hello_c: %s\n", err.message);
        return 1;
    }
    amesh_free(mesh);
    return 0;
}
