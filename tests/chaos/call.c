/* A caller on a sidecar's socket by the client library, which lives longer than the sidecar: durable calls with keys, one after the other; on a broken connection it connects again as
 * soon as somebody listens and asks the same once more.
 *   chaos_call SOCKET AGENT COUNT PREFIX      a line per answer: TASK ANSWER TEXT; then: broken N, longest MS (from the break until it was told) */
#include <amesh/client.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { AGAIN_MS = 20, TRIES_MAX = 1500 };

static struct amesh *connect_again(const char *path)
{
    struct amesh_options options = {.socket = path, .is_caller = true};
    struct amesh *mesh;
    struct amp_error err = {0};
    for (int i = 0; i < TRIES_MAX; i++) {
        if (amesh_connect(&options, &mesh, &err) == AMP_OK)
            return mesh;
        (void)poll(NULL, 0, AGAIN_MS);
    }
    fprintf(stderr, "chaos_call: %s\n", err.message);
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    struct amesh *mesh = connect_again(argv[1]);
    int count = atoi(argv[3]), broken = 0;
    for (int i = 0; i < count;) {
        char text[128], key[64];
        struct amesh_answer answer;
        struct amp_error err = {0};
        snprintf(text, sizeof text, "%s-%d work 20", argv[4], i);
        snprintf(key, sizeof key, "%s-%d", argv[4], i);
        enum amp_code code = amesh_send(mesh, NULL, &(struct amesh_call){.agent = argv[2], .text = text, .key = key, .is_durable = true, .timeout_ms = 30000}, &answer, &err);
        if (code == AMP_OK) {
            printf("%s %s %s\n", answer.task_id, answer.text, text);
            i++;
        } else if (code == AMP_NO_SIDECAR) {
            broken++;
            amesh_free(mesh);
            mesh = connect_again(argv[1]);
        } else if (!amp_code_info(code)->is_retryable) {
            fprintf(stderr, "chaos_call: %s: %s\n", text, err.message);
            return 1;
        }
        amesh_answer_done(&answer);
    }
    amesh_free(mesh);
    printf("broken %d\n", broken);
    return 0;
}
