/* A call through two sidecars: this program dials the first one's local API and sends to the agent behind the second.
 *   mesh_call SOCKET AGENT COUNT WINDOW */
#include "measure.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

static char in[1 << 20];
static size_t in_len;
static int fd;

static void dial(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("mesh_call: connect");
        exit(1);
    }
}

static size_t put(char *out, size_t size, const char *agent, size_t id)
{
    static const char filler[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    return (size_t)snprintf(out, size, "{\"jsonrpc\":\"2.0\",\"id\":%zu,\"method\":\"send\",\"params\":{\"to\":\"%s\",\"text\":\"%s\"}}\n", id, agent, filler);
}

static void send_all(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n <= 0) {
            perror("mesh_call: write");
            exit(1);
        }
        data += n;
        len -= (size_t)n;
    }
}

/* Reads what is there and calls `on_line` for each reply. */
static void receive(void (*on_reply)(size_t id))
{
    ssize_t n = read(fd, in + in_len, sizeof in - in_len);
    if (n <= 0) {
        fprintf(stderr, "mesh_call: the sidecar closed\n");
        exit(1);
    }
    in_len += (size_t)n;
    char *line = in, *end;
    while ((end = memchr(line, '\n', in_len - (size_t)(line - in)))) {
        *end = 0;
        char *id = strstr(line, "\"id\":");
        if (!id || !strstr(line, "TASK_STATE_COMPLETED")) {
            fprintf(stderr, "mesh_call: not an answer: %.300s\n", line);
            exit(1);
        }
        on_reply(strtoul(id + 5, NULL, 10));
        line = end + 1;
    }
    in_len -= (size_t)(line - in);
    memmove(in, line, in_len);
}

static struct measure m;
static int64_t began[4096];
static size_t received, warm = 200, count;

static void on_reply(size_t id)
{
    if (++received == warm)
        measure_start(&m, count);
    else if (received > warm)
        measure_add(&m, began[id % 4096]);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    dial(argv[1]);
    count = strtoul(argv[3], NULL, 10);
    size_t window = strtoul(argv[4], NULL, 10), sent = 0;
    const char *hello = "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"hello\",\"params\":{\"proto\":1,\"role\":\"caller\"}}\n";
    send_all(hello, strlen(hello));
    while (!memchr(in, '\n', in_len)) {
        ssize_t n = read(fd, in + in_len, sizeof in - in_len);
        if (n <= 0)
            return 1;
        in_len += (size_t)n;
    }
    in_len = 0;
    static char out[1 << 20];
    while (received < count + warm) {
        size_t len = 0;
        for (; sent < count + warm && sent - received < window; sent++) {
            began[(sent + 1) % 4096] = measure_now_ns();
            len += put(out + len, sizeof out - len, argv[2], sent + 1);
        }
        if (len > 0)
            send_all(out, len);
        receive(on_reply);
    }
    measure_report(&m, "two sidecars");
    return 0;
}
