/* Control: a process between an agent and the bus in which nothing happens. Bytes from a unix socket to nats-server and back: what two more hops cost
 * before a sidecar does anything in them.
 *   raw_pipe PATH HOST PORT */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int listen_at(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 1) != 0)
        die("raw_pipe: listen");
    return fd;
}

static int dial(const char *host, const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, host, &to.sin_addr);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        die("raw_pipe: connect");
    return fd;
}

/* False: the end. */
static int forward(int from, int to)
{
    static char data[1 << 16];
    ssize_t n = read(from, data, sizeof data);
    for (ssize_t at = 0, m; at < n; at += m)
        if ((m = write(to, data + at, (size_t)(n - at))) <= 0)
            die("raw_pipe: write");
    return n > 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int listener = listen_at(argv[1]);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int near = accept(listener, NULL, NULL), far = dial(argv[2], argv[3]), is_open = near >= 0;
        struct pollfd fds[2] = {{.fd = near, .events = POLLIN}, {.fd = far, .events = POLLIN}};
        while (is_open && poll(fds, 2, -1) > 0) {
            if (fds[0].revents)
                is_open = forward(near, far);
            if (is_open && fds[1].revents)
                is_open = forward(far, near);
        }
        close(near);
        close(far);
    }
}
