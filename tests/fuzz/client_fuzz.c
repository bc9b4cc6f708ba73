/* Any bytes as what a sidecar sends, to a client that greets, serves and calls. The first byte chooses what it does with a task. */
#include <amesh/client.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INPUT_MAX = 64 << 10, DO_ASK = 1, DO_SEND = 2, DO_KEEP = 4, DO_LIST = 8, DO_WAIT = 16 };

static unsigned todo;

static void on_value(void *ctx, const struct amesh_value *value)
{
    if (!value->key || !value->json)
        abort();
}

static void on_event(void *ctx, uint32_t seq, const char *event_json)
{
    if (amp_json_check(amp_bytes_of(event_json), &amp_json_limits_default, NULL) == AMP_MALFORMED)
        abort();
}

static void on_text(void *ctx, const char *text)
{
    if (!*text)
        abort();
}

static void on_task(struct amesh_task *task, void *ctx)
{
    if (!amp_id_is_valid(task->id) || !task->text || !task->from || !task->context_id || task->attempt == 0)
        abort();
    (void)amesh_task_message_json(task);
    (void)amesh_task_meta_json(task);
    if (todo & DO_KEEP)
        amesh_task_keep(task);
    if (todo & DO_ASK) {
        char *text;
        (void)amesh_ask(task, &(struct amesh_question){.prompt = "?"}, &text, NULL);
        free(text);
    }
    if (todo & DO_SEND) {
        struct amesh_answer answer;
        enum amp_code code = amesh_send(task->mesh, task, &(struct amesh_call){.agent = "a", .text = "x", .on_event = on_event, .on_text = on_text}, &answer, NULL);
        if (code == AMP_OK && (!answer.text || !answer.task_id))
            abort();
        amesh_answer_done(&answer);
    }
    if (todo & DO_LIST)
        (void)amesh_kv_list(task->mesh, &(struct amesh_place){.scope = AMESH_SHARED}, on_value, NULL, NULL);
    if (todo & DO_WAIT)
        (void)amesh_task_wait(task, -1);
}

static void on_cancel(struct amesh_task *task, void *ctx)
{
    (void)amesh_task_complete(task, "x");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2];
    struct amesh *mesh;
    if (size == 0 || size > INPUT_MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
        return 0;
    todo = data[0];
    if (send(fds[0], data + 1, size - 1, MSG_NOSIGNAL) != (ssize_t)size - 1)
        abort();
    shutdown(fds[0], SHUT_WR); /* so that nothing is waited for that cannot come */
    if (amesh_adopt(fds[1], &(struct amesh_options){.concurrency = 3}, &mesh, NULL) == AMP_OK) {
        amesh_set_handlers(mesh, &(struct amesh_handlers){.on_task = on_task, .on_cancel = on_cancel}, NULL);
        while (amesh_step(mesh, -1, NULL) == AMP_OK)
            ;
        amesh_free(mesh);
    }
    close(fds[0]);
    return 0;
}
