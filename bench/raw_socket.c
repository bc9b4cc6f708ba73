/* Control: the floor. NATS's text protocol by hand on one blocking socket at each end, nothing allocated, nothing parsed that is not needed.
 *   raw_socket respond HOST PORT [SUBJECT]
 *   raw_socket request HOST PORT COUNT WINDOW [SUBJECT]
 * HOST may be the path of a raw_pipe's socket. */
#include "measure.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { PAYLOAD = 128, BUFFER = 1 << 20 };
static char in[BUFFER];
static size_t in_len, in_at;
static int fd;

static void send_all(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n <= 0) {
            perror("raw_socket: write");
            exit(1);
        }
        data += n;
        len -= (size_t)n;
    }
}

static void fill(void)
{
    if (in_at > 0) {
        memmove(in, in + in_at, in_len - in_at);
        in_len -= in_at;
        in_at = 0;
    }
    ssize_t n = read(fd, in + in_len, BUFFER - in_len);
    if (n <= 0) {
        fprintf(stderr, "raw_socket: the server closed\n");
        exit(1);
    }
    in_len += (size_t)n;
}

/* Next message; false when more bytes must be read first. `reply` gets the reply subject or "". */
static bool next(char *subject, char *reply)
{
    for (;;) {
        char *line = in + in_at, *end = memmem(line, in_len - in_at, "\r\n", 2);
        if (!end)
            return false;
        if (strncmp(line, "MSG ", 4) != 0) {
            if (strncmp(line, "PING", 4) == 0)
                send_all("PONG\r\n", 6);
            in_at = (size_t)(end + 2 - in);
            continue;
        }
        char a[128], sid[16], b[128], c[128];
        *end = 0;
        int fields = sscanf(line, "MSG %127s %15s %127s %127s", a, sid, b, c);
        *end = '\r';
        size_t len = strtoul(fields == 4 ? c : b, NULL, 10), total = (size_t)(end + 2 - line) + len + 2;
        if (in_len - in_at < total)
            return false;
        strcpy(subject, a);
        strcpy(reply, fields == 4 ? b : "");
        in_at += total;
        return true;
    }
}

static void dial_tcp(const char *host, const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, host, &to.sin_addr);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("raw_socket: connect");
        exit(1);
    }
}

static void dial_unix(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("raw_socket: connect");
        exit(1);
    }
}

static void greet(void)
{
    const char *hello = "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1,\"headers\":true,\"no_responders\":false}\r\nPING\r\n";
    send_all(hello, strlen(hello));
    while (!memmem(in, in_len, "PONG\r\n", 6))
        fill();
    in_at = in_len = 0;
}

static size_t put(char *out, const char *subject, const char *reply)
{
    static const char payload[PAYLOAD] = "echo";
    size_t n = (size_t)sprintf(out, *reply ? "PUB %s %s %d\r\n" : "PUB %s%s %d\r\n", subject, reply, PAYLOAD);
    memcpy(out + n, payload, PAYLOAD);
    memcpy(out + n + PAYLOAD, "\r\n", 2);
    return n + PAYLOAD + 2;
}

static void respond(const char *asked)
{
    static char out[BUFFER];
    char subject[128], reply[128];
    char line[96];
    send_all(line, (size_t)snprintf(line, sizeof line, "SUB %s 1\r\nPING\r\n", asked));
    while (!memmem(in, in_len, "PONG\r\n", 6))
        fill();
    in_at = in_len = 0;
    puts("ready");
    fflush(stdout);
    for (;;) {
        size_t len = 0;
        fill();
        while (len < BUFFER - 1024 && next(subject, reply))
            len += put(out + len, reply, "");
        if (len > 0)
            send_all(out, len);
    }
}

static void request(size_t count, size_t window, const char *asked)
{
    static struct measure m;
    static int64_t began[1024];
    static char out[BUFFER];
    char prefix[64], line[96], subject[128], reply[128];
    snprintf(prefix, sizeof prefix, "_INBOX.%d", (int)getpid());
    snprintf(line, sizeof line, "SUB %s.* 1\r\n", prefix);
    send_all(line, strlen(line));
    size_t sent = 0, received = 0, warm = 200;
    while (received < count + warm) {
        size_t len = 0;
        for (; sent < count + warm && sent - received < window; sent++) {
            snprintf(line, sizeof line, "%s.%zu", prefix, sent % 1024);
            began[sent % 1024] = measure_now_ns();
            len += put(out + len, asked, line);
        }
        if (len > 0)
            send_all(out, len);
        fill();
        while (next(subject, reply)) {
            if (++received == warm)
                measure_start(&m, count);
            else if (received > warm)
                measure_add(&m, began[(size_t)atoi(strrchr(subject, '.') + 1) % 1024]);
        }
    }
    measure_report(&m, "raw sockets");
}

int main(int argc, char **argv)
{
    bool is_responder = argc > 3 && strcmp(argv[1], "respond") == 0;
    int rest = is_responder ? 4 : 6;
    if (argc < rest)
        return 2;
    const char *asked = argc > rest ? argv[rest] : "bench.sock";
    if (argv[2][0] == '/')
        dial_unix(argv[2]);
    else
        dial_tcp(argv[2], argv[3]);
    greet();
    if (is_responder)
        respond(asked);
    request(strtoul(argv[4], NULL, 10), strtoul(argv[5], NULL, 10), asked);
    return 0;
}
