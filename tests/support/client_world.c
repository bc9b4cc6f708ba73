#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void client_world_put(struct client_world *world, const char *lines)
{
    assert_int_equal(send(world->fd, lines, strlen(lines), MSG_NOSIGNAL), (ssize_t)strlen(lines));
}

void client_world_put_task(struct client_world *world, unsigned id, const char *task, const char *text)
{
    char line[512];
    snprintf(line, sizeof line, "{\"id\":%u,\"method\":\"task.run\",\"params\":{\"taskId\":\"%s\",\"contextId\":\"c-1\",\"text\":\"%s\",\"message\":{\"parts\":[]},\"attempt\":2,\"from\":\"you\",\"parent\":\"t-up\"}}\n",
             id, task, text);
    client_world_put(world, line);
}

/* What has come out of the client by now. */
const char *client_world_said(struct client_world *world)
{
    ssize_t n;
    while (world->len < sizeof world->said - 1 && (n = recv(world->fd, world->said + world->len, sizeof world->said - 1 - world->len, MSG_DONTWAIT)) > 0)
        world->len += (size_t)n;
    world->said[world->len] = '\0';
    return world->said;
}

void client_world_forget(struct client_world *world)
{
    (void)client_world_said(world);
    world->len = 0;
}

struct client_world *client_world_new(const struct amesh_options *options)
{
    struct client_world *world = calloc(1, sizeof *world);
    int fds[2];
    assert_non_null(world);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    world->fd = fds[0];
    client_world_put(world, CLIENT_WORLD_HELLO);
    assert_int_equal(amesh_adopt(fds[1], options, &world->mesh, &world->err), AMP_OK);
    return world;
}

void client_world_free(struct client_world *world)
{
    amesh_free(world->mesh);
    if (world->fd >= 0)
        close(world->fd);
    free(world);
}

static void on_cancel(struct amesh_task *task, void *ctx)
{
    struct client_world *world = ctx;
    world->n_cancels++;
    assert_int_equal(amesh_task_cancel(task, "as told"), AMP_OK);
    if (world->kept == task)
        world->kept = NULL;
}

/* One step without waiting, in which `on_task` runs. */
enum amp_code client_world_step(struct client_world *world, amesh_task_handler *on_task)
{
    amesh_set_handlers(world->mesh, &(struct amesh_handlers){.on_task = on_task, .on_cancel = on_cancel}, world);
    return amesh_step(world->mesh, 0, &world->err);
}

void client_world_note(struct amesh_task *task, void *ctx)
{
    struct client_world *world = ctx;
    world->n_tasks++;
    snprintf(world->seen, sizeof world->seen, "%s %s %s %s %u %s %s", task->id, task->context_id, task->text, task->from, task->attempt, task->parent, task->skill ? task->skill : "-");
}
