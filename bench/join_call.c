/* Callers that want to call an agent before it is there. For each line `AGENT FORK_NS` on stdin every caller calls AGENT again and again, one call at a time and a millisecond after the one before failed, until one is answered; then a line of
 * JSON: from the agent's joining, and from FORK_NS, to the first and to the last caller's first answer. FORK_NS is on the monotonic clock.
 *   join_call SOCKET... */
#include "measure.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CALLERS_MAX 16
#define GIVE_UP_NS 10000000000LL
#define AGAIN_NS 1000000 /* without a pause the callers would be all that the machine does */

struct caller {
    int fd;
    char in[1 << 16];
    size_t len;
    int64_t again_ns; /* 0: a call is under way, or was answered */
};

static struct caller callers[CALLERS_MAX];
static size_t n_callers, n_answered, n_calls;
static char agent[64];
static int64_t joined_ns, first_ns, last_ns;

static void dial(struct caller *caller, const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    caller->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(caller->fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("join_call: connect");
        exit(1);
    }
    dprintf(caller->fd, "{\"jsonrpc\":\"2.0\",\"id\":\"hello\",\"method\":\"hello\",\"params\":{\"proto\":1,\"role\":\"caller\"}}\n");
}

static void call(struct caller *caller)
{
    n_calls++;
    caller->again_ns = 0;
    dprintf(caller->fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"send\",\"params\":{\"to\":\"%s\",\"text\":\"there?\"}}\n", agent);
}

static void take_line(struct caller *caller, const char *line)
{
    if (!strstr(line, "\"id\":1"))
        return;
    const char *text = strstr(line, "\"@");
    if (!strstr(line, "TASK_STATE_COMPLETED") || !text) {
        caller->again_ns = measure_now_ns() + AGAIN_NS; /* not yet */
        return;
    }
    joined_ns = strtol(text + 2, NULL, 10);
    last_ns = measure_now_ns();
    if (n_answered++ == 0)
        first_ns = last_ns;
}

static void receive(struct caller *caller)
{
    ssize_t n = read(caller->fd, caller->in + caller->len, sizeof caller->in - caller->len);
    if (n <= 0) {
        fprintf(stderr, "join_call: a sidecar closed\n");
        exit(1);
    }
    caller->len += (size_t)n;
    char *line = caller->in, *end;
    while ((end = memchr(line, '\n', caller->len - (size_t)(line - caller->in)))) {
        *end = 0;
        take_line(caller, line);
        line = end + 1;
    }
    caller->len -= (size_t)(line - caller->in);
    memmove(caller->in, line, caller->len);
}

static void until_answered(void)
{
    struct pollfd fds[CALLERS_MAX];
    int64_t began_ns = measure_now_ns();
    while (n_answered < n_callers && measure_now_ns() - began_ns < GIVE_UP_NS) {
        int64_t now = measure_now_ns(), next = now + 100000000;
        for (size_t i = 0; i < n_callers; i++) {
            fds[i] = (struct pollfd){.fd = callers[i].fd, .events = POLLIN};
            if (callers[i].again_ns && callers[i].again_ns <= now)
                call(&callers[i]);
            else if (callers[i].again_ns && callers[i].again_ns < next)
                next = callers[i].again_ns;
        }
        struct timespec left = {.tv_nsec = next - now};
        if (ppoll(fds, n_callers, &left, NULL) <= 0)
            continue;
        for (size_t i = 0; i < n_callers; i++)
            if (fds[i].revents)
                receive(&callers[i]);
    }
}

int main(int argc, char **argv)
{
    char line[128];
    long fork_ns;
    for (int i = 1; i < argc && i <= CALLERS_MAX; i++)
        dial(&callers[n_callers++], argv[i]);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%63s %ld", agent, &fork_ns) == 2) {
        n_answered = n_calls = 0;
        for (size_t i = 0; i < n_callers; i++)
            call(&callers[i]);
        until_answered();
        if (n_answered < n_callers)
            return 1;
        printf("{\"first_us\":%.1f,\"last_us\":%.1f,\"fork_us\":%.1f,\"calls\":%zu}\n", (double)(first_ns - joined_ns) / 1e3, (double)(last_ns - joined_ns) / 1e3, (double)(last_ns - fork_ns) / 1e3,
               n_calls);
        fflush(stdout);
    }
    return 0;
}
