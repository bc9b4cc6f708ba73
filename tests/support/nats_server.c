#include "nats_server.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS 10000

struct nats_server {
    LIST_ENTRY(nats_server) entry;
    char dir[64], url[64], binary[256];
    int port, pid;
};

/* Those of tests that failed in their middle are stopped at exit, but not by a child of the test. */
static LIST_HEAD(, nats_server) running = LIST_HEAD_INITIALIZER(running);
static int owner_pid;

static void stop_all(void)
{
    while (getpid() == owner_pid && !LIST_EMPTY(&running))
        nats_server_stop(LIST_FIRST(&running));
}

static void die(const char *what)
{
    fprintf(stderr, "nats_server: %s: %s\n", what, strerror(errno));
    exit(99);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, len) != 0 || getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        die("no free port");
    close(fd);
    return ntohs(address.sin_port);
}

/* The server greets with INFO when it is ready. */
static bool answers(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(port);
    char line[4];
    bool is_ready = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                    recv(fd, line, sizeof line, MSG_WAITALL) == sizeof line && memcmp(line, "INFO", sizeof line) == 0;
    close(fd);
    return is_ready;
}

static void wait_ready(struct nats_server *server)
{
    long until = now_ms() + START_MS;
    while (!answers(server->port)) {
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid || now_ms() > until) {
            char log[128];
            snprintf(log, sizeof log, "cat %s/log >&2", server->dir);
            (void)!system(log);
            die("it does not start");
        }
        poll(NULL, 0, 2); /* nothing to wait on until it listens */
    }
}

static void spawn(struct nats_server *server)
{
    char config[96], log[96];
    snprintf(config, sizeof config, "%s/config", server->dir);
    snprintf(log, sizeof log, "%s/log", server->dir);
    int parent = getpid();
    server->pid = fork();
    if (server->pid < 0)
        die("fork");
    if (server->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execlp(server->binary, server->binary, "-c", config, (char *)NULL);
        _exit(127);
    }
    wait_ready(server);
}

struct nats_server *nats_server_start(const char *binary, const char *config)
{
    struct nats_server *server = calloc(1, sizeof *server);
    if (!binary)
        binary = access("/usr/sbin/nats-server", X_OK) == 0 ? "/usr/sbin/nats-server" : "nats-server";
    snprintf(server->binary, sizeof server->binary, "%s", binary);
    snprintf(server->dir, sizeof server->dir, "/tmp/amesh-nats-XXXXXX");
    if (!mkdtemp(server->dir))
        die("mkdtemp");
    if (!owner_pid)
        atexit(stop_all);
    owner_pid = getpid();
    LIST_INSERT_HEAD(&running, server, entry);
    server->port = free_port();
    snprintf(server->url, sizeof server->url, "nats://127.0.0.1:%d", server->port);
    char path[96];
    snprintf(path, sizeof path, "%s/config", server->dir);
    FILE *file = fopen(path, "w");
    if (!file)
        die(path);
    fprintf(file, "listen: 127.0.0.1:%d\n%s\n", server->port, config ? config : "");
    fclose(file);
    spawn(server);
    return server;
}

void nats_server_kill(struct nats_server *server)
{
    if (server->pid <= 0)
        return;
    kill(server->pid, SIGKILL);
    while (waitpid(server->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    server->pid = 0;
}

void nats_server_restart(struct nats_server *server)
{
    nats_server_kill(server);
    spawn(server);
}

void nats_server_stop(struct nats_server *server)
{
    if (!server)
        return;
    LIST_REMOVE(server, entry);
    nats_server_kill(server);
    char remove[128];
    snprintf(remove, sizeof remove, "rm -rf '%s'", server->dir);
    (void)!system(remove);
    free(server);
}

void nats_server_signal(struct nats_server *server, int signo)
{
    kill(server->pid, signo);
}

const char *nats_server_url(const struct nats_server *server)
{
    return server->url;
}

int nats_server_port(const struct nats_server *server)
{
    return server->port;
}

int nats_server_pid(const struct nats_server *server)
{
    return server->pid;
}
