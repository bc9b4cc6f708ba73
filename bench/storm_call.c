/* The storm's callers on the mesh: caller K of the trace speaks the local API of the sidecar behind the Kth socket. Open loop: each call goes out at its time, whatever is outstanding.
 *   storm_call TRACE RESULT AGENT direct|durable SOCKET... */
#include "storm.h"

#include <sys/socket.h>
#include <sys/un.h>

struct caller {
    int fd;
    char *in;
    size_t in_len, in_size;
};

static struct caller callers[STORM_CALLERS_MAX];
static const char *agent;
static bool is_durable;
static unsigned n_said;

static void send_line(struct caller *caller, const char *line, size_t len)
{
    while (len > 0) {
        ssize_t n = write(caller->fd, line, len);
        if (n <= 0) {
            perror("storm_call: write");
            exit(1);
        }
        line += n;
        len -= (size_t)n;
    }
}

static void send_task(struct storm *storm, size_t id)
{
    char text[80], line[400];
    storm_text(storm, id, text, sizeof text);
    int len = snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"id\":%zu,\"method\":\"send\",\"params\":{\"to\":\"%s\",\"text\":\"%s\"%s}}\n", id + 1, agent, text,
                       is_durable ? ",\"durable\":true" : "");
    send_line(&callers[storm->tasks[id].caller], line, (size_t)len);
}

static void take_line(struct storm *storm, const char *line)
{
    const char *found = strstr(line, "\"id\":");
    size_t id = found ? strtoul(found + 5, NULL, 10) : 0;
    if (id == 0 || strstr(line, "\"method\":"))
        return; /* the answer to hello, or an event */
    if (strstr(line, "TASK_STATE_COMPLETED")) {
        storm_end(storm, id - 1, STORM_DONE);
    } else if (strstr(line, "TASK_STATE_REJECTED") && strstr(line, "\"" STORM_BUSY " busy")) {
        storm_again(storm, id - 1, false);
    } else {
        if (n_said++ < 3)
            fprintf(stderr, "storm_call: %.400s\n", line);
        storm_end(storm, id - 1, STORM_FAILED);
    }
}

static void receive(struct storm *storm, struct caller *caller)
{
    if (caller->in_size - caller->in_len < 65536)
        caller->in = realloc(caller->in, caller->in_size += 1u << 20);
    ssize_t n = read(caller->fd, caller->in + caller->in_len, caller->in_size - caller->in_len);
    if (n <= 0) {
        fprintf(stderr, "storm_call: a sidecar closed\n");
        exit(1);
    }
    caller->in_len += (size_t)n;
    char *line = caller->in, *end;
    while ((end = memchr(line, '\n', caller->in_len - (size_t)(line - caller->in)))) {
        *end = 0;
        take_line(storm, line);
        line = end + 1;
    }
    caller->in_len -= (size_t)(line - caller->in);
    memmove(caller->in, line, caller->in_len);
}

static void dial(struct caller *caller, const char *path)
{
    static const char hello[] = "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"hello\",\"params\":{\"proto\":1,\"role\":\"caller\"}}\n";
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    caller->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(caller->fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("storm_call: connect");
        exit(1);
    }
    send_line(caller, hello, sizeof hello - 1);
}

int main(int argc, char **argv)
{
    struct storm storm = {0};
    struct pollfd fds[STORM_CALLERS_MAX];
    if (argc < 6)
        return 2;
    storm_read(&storm, argv[1]);
    agent = argv[3];
    is_durable = strcmp(argv[4], "durable") == 0;
    size_t n_callers = (size_t)argc - 5;
    if (n_callers < storm.n_callers || n_callers > STORM_CALLERS_MAX)
        return 2;
    for (size_t i = 0; i < n_callers; i++) {
        dial(&callers[i], argv[i + 5]);
        fds[i] = (struct pollfd){.fd = callers[i].fd, .events = POLLIN};
    }
    storm_start(&storm);
    for (int64_t next; (next = storm_step(&storm, send_task)) > 0;) {
        struct timespec left = storm_left(next);
        if (ppoll(fds, n_callers, &left, NULL) <= 0)
            continue;
        for (size_t i = 0; i < n_callers; i++)
            if (fds[i].revents)
                receive(&storm, &callers[i]);
    }
    storm_write(&storm, argv[2]);
    return 0;
}
