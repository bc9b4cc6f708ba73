/* A mesh client at one end of a socket, the test at the other. A reply is put into the socket before it is asked for (requests count from 1, and 1 is hello), so that one
 * thread plays both sides. */
#pragma once
#include <amesh/client.h>

#define CLIENT_WORLD_HELLO "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"proto\":1,\"agent\":\"me\",\"instance\":\"i-1\",\"version\":\"0\",\"slots\":8}}\n"

struct client_world {
    int fd; /* the sidecar's end; -1: closed by the test */
    struct amesh *mesh;
    char said[1 << 16]; /* what the client sent, lines; NUL at the end */
    size_t len;
    /* what a handler saw */
    char seen[512];
    unsigned n_tasks, n_cancels;
    struct amesh_task *kept;
    enum amp_code code;
    struct amp_error err;
};

struct client_world *client_world_new(const struct amesh_options *options);
void client_world_free(struct client_world *world);
void client_world_put(struct client_world *world, const char *lines);
/* A task.run, attempt 2, from "you", below t-up. */
void client_world_put_task(struct client_world *world, unsigned id, const char *task, const char *text);
const char *client_world_said(struct client_world *world); /* what has come out of the client by now */
void client_world_forget(struct client_world *world);
/* One step without waiting, in which `on_task` runs. A kept task that is cancelled ends as told. */
enum amp_code client_world_step(struct client_world *world, amesh_task_handler *on_task);
void client_world_note(struct amesh_task *task, void *ctx); /* a handler: `seen` is what the task brings */

#define expect_said(world, text) \
    do { \
        if (!strstr(client_world_said(world), text)) \
            fail_msg("%s\nwanted: %s", (world)->said, text); \
    } while (0)
