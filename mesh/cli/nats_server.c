#include "cli/nats_server.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/home.h"
#include "base/log.h"
#include "base/loop.h"
#include "cli/context.h"

#define START_MAX_MS 15000u  /* until it must take connections */
#define PROBE_MS 5u          /* between two looks for its ports file */
#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 5000u
#define STEADY_MS 10000      /* after this long a restart counts as the first again */
#define TERM_MS 5000u
#define PORTS_FILE_MAX 4096u
#define STORE_MIN ((uint64_t)1 << 20)

struct nats_server {
    struct loop *loop;
    struct nats_server_handlers handlers;
    void *ctx;
    char program[512];
    char home[256];
    pid_t pid;
    int port;              /* -1: the server chooses */
    bool is_known, is_stopping, was_port_kept;
    uint32_t failures;
    int64_t started_ms;
    struct loop_signal *on_child;
    struct loop_timer *timer; /* probe, restart or kill, whichever is next */
};

static bool find_program(char *ret, size_t size)
{
    const char *named = getenv("AMESH_NATS_SERVER"), *path = getenv("PATH");
    if (named != NULL && *named != '\0') {
        snprintf(ret, size, "%s", named);
        return access(ret, X_OK) == 0;
    }
    /* Debian installs it in /usr/sbin, which a user's PATH may lack */
    char *copy = xasprintf("%s:/usr/local/sbin:/usr/sbin", path != NULL ? path : "/usr/local/bin:/usr/bin"), *state = NULL;
    bool is_found = false;
    for (char *dir = strtok_r(copy, ":", &state); dir != NULL && !is_found; dir = strtok_r(NULL, ":", &state)) {
        snprintf(ret, size, "%s/nats-server", dir);
        is_found = access(ret, X_OK) == 0;
    }
    free(copy);
    return is_found;
}

static void path_in(const struct nats_server *server, const char *name, char ret[512])
{
    snprintf(ret, 512, "%s/%s", server->home, name);
}

static int kept_port(const struct nats_server *server)
{
    char path[512];
    struct amp_buf text;
    int port = -1;
    path_in(server, "nats.port", path);
    if (file_read(path, 16, &text, NULL) == AMP_OK && amp_buf_append(&text, "", 1) == AMP_OK)
        port = atoi((const char *)text.data);
    amp_buf_done(&text);
    return port > 0 && port < 65536 ? port : -1;
}

static enum amp_code write_file(const char *path, const char *text, struct amp_error *reterr)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t len = strlen(text);
    bool is_ok = fd >= 0 && fchmod(fd, 0600) == 0 && write(fd, text, len) == (ssize_t)len;
    if (fd >= 0 && close(fd) != 0)
        is_ok = false;
    return is_ok ? AMP_OK : amp_error_set(reterr, AMP_INVALID, "", "cannot write %s: %s", path, strerror(errno));
}

/* A string of the server's configuration. */
static char *config_string(const char *text)
{
    struct amp_buf out;
    amp_buf_init(&out, 4096);
    (void)amp_json_append_string(&out, amp_bytes_of(text));
    char *copy = xstrndup(out.len > 0 ? (const char *)out.data : "\"\"", out.len > 0 ? out.len : 2);
    amp_buf_done(&out);
    return copy;
}

static uint64_t bytes_below(const char *path)
{
    char *paths[] = {(char *)path, NULL};
    uint64_t bytes = 0;
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
    for (FTSENT *entry; tree != NULL && (entry = fts_read(tree)) != NULL;)
        if (entry->fts_info == FTS_F)
            bytes += (uint64_t)entry->fts_statp->st_blocks * 512;
    if (tree != NULL)
        fts_close(tree);
    return bytes;
}

/* A store whose limit is beyond the disk acknowledges nothing and says nothing when that is full; one that reaches its limit says so. The journal is on the same disk:
 * half of what is free is for the store. */
static uint64_t store_max(const char *store)
{
    struct statvfs disk;
    uint64_t free_bytes = statvfs(store, &disk) == 0 ? (uint64_t)disk.f_bavail * disk.f_frsize : 0, max = bytes_below(store) + free_bytes / 2;
    return max > STORE_MIN ? max : STORE_MIN;
}

static enum amp_code write_config(const struct nats_server *server, struct amp_error *reterr)
{
    char path[512], store[512], ports[512];
    path_in(server, "nats.conf", path);
    path_in(server, "nats", store);
    path_in(server, "nats-ports", ports);
    if ((mkdir(store, 0700) != 0 && errno != EEXIST) || (mkdir(ports, 0700) != 0 && errno != EEXIST))
        return amp_error_set(reterr, AMP_INVALID, "", "cannot make %s: %s", store, strerror(errno));
    char *store_text = config_string(store), *ports_text = config_string(ports);
    char *text = xasprintf("# written by amesh up\nhost: \"127.0.0.1\"\nport: %d\nserver_name: \"amesh-%d\"\nmax_payload: %u\n"
                           "ports_file_dir: %s\njetstream { store_dir: %s, max_file_store: %" PRIu64 " }\n",
                           server->port, (int)getpid(), AMP_WIRE_BYTES_MAX, ports_text, store_text, store_max(store));
    enum amp_code code = write_file(path, text, reterr);
    free(text);
    free(store_text);
    free(ports_text);
    return code;
}

/* Files of servers that were killed would be taken for the new one's if a pid comes back. */
static void clean_ports(const struct nats_server *server)
{
    char dir_path[512], path[1024];
    path_in(server, "nats-ports", dir_path);
    DIR *dir = opendir(dir_path);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        if (strstr(entry->d_name, ".ports") == NULL)
            continue;
        snprintf(path, sizeof path, "%s/%s", dir_path, entry->d_name);
        unlink(path);
    }
    if (dir != NULL)
        closedir(dir);
}

/* In the child, between fork and exec: only calls that are safe there. */
static void run_child(const struct nats_server *server, const char *config, int log_fd, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    setpgid(0, 0); /* ctrl-C is for `up`, which ends it in good order */
    int null_fd = open("/dev/null", O_RDONLY);
    dup2(null_fd, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    execl(server->program, "nats-server", "-c", config, (char *)NULL);
    _exit(127);
}

static enum amp_code start(struct nats_server *server, struct amp_error *reterr)
{
    char config[512], log[512];
    path_in(server, "nats.conf", config);
    path_in(server, "nats.log", log);
    enum amp_code code = write_config(server, reterr);
    if (code != AMP_OK)
        return code;
    clean_ports(server);
    int log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return amp_error_set(reterr, AMP_INVALID, "", "cannot write %s: %s", log, strerror(errno));
    pid_t parent = getpid();
    server->started_ms = clock_mono_ms();
    server->pid = fork();
    if (server->pid == 0)
        run_child(server, config, log_fd, parent);
    close(log_fd);
    if (server->pid < 0) {
        server->pid = 0;
        return amp_error_set(reterr, AMP_INTERNAL, "", "cannot fork: %s", strerror(errno));
    }
    loop_timer_set(server->timer, PROBE_MS);
    return AMP_OK;
}

/* {"nats":["nats://127.0.0.1:40001"]} in <dir>/nats-server_<pid>.ports, written when it takes connections. */
static bool read_ports(struct nats_server *server, char *ret_url, size_t size)
{
    char path[512];
    struct amp_buf text;
    cJSON *json = NULL;
    snprintf(path, sizeof path, "%s/nats-ports/nats-server_%d.ports", server->home, (int)server->pid);
    bool is_read = file_read(path, PORTS_FILE_MAX, &text, NULL) == AMP_OK && amp_json_parse(amp_buf_bytes(&text), &json, NULL) == AMP_OK;
    amp_buf_done(&text);
    const cJSON *url = is_read ? cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "nats"), 0) : NULL;
    const char *colon = url != NULL && cJSON_IsString(url) ? strrchr(url->valuestring, ':') : NULL;
    int port = colon != NULL ? atoi(colon + 1) : 0;
    if (port > 0) {
        server->port = port;
        snprintf(ret_url, size, "nats://127.0.0.1:%d", port);
    }
    cJSON_Delete(json);
    return port > 0;
}

static void fail(struct nats_server *server, const char *what)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_NO_BUS, "", "nats-server (%s) %s", server->program, what);
    amp_error_hint(&err, "read %s/nats.log", server->home);
    server->handlers.on_failed(server->ctx, &err);
}

static void schedule_restart(struct nats_server *server)
{
    uint32_t delay = BACKOFF_MIN_MS << (server->failures < 6 ? server->failures : 6);
    server->failures++;
    loop_timer_set(server->timer, delay < BACKOFF_MAX_MS ? delay : BACKOFF_MAX_MS);
}

static void on_timer(void *ctx)
{
    struct nats_server *server = ctx;
    struct amp_error err = {0};
    char url[64], path[512], port[16];
    if (server->is_stopping) {
        if (server->pid > 0)
            kill(server->pid, SIGKILL);
        else
            server->handlers.on_stopped(server->ctx);
        return;
    }
    if (server->pid == 0) {
        if (start(server, &err) != AMP_OK) {
            log_event(LOG_ERROR, "nats.start", "error", err.message, NULL);
            schedule_restart(server);
        } else if (server->is_known) {
            server->handlers.on_pid(server->ctx);
        }
        return;
    }
    if (server->is_known)
        return; /* it was restarted on the port that everybody knows */
    if (!read_ports(server, url, sizeof url)) {
        if (clock_mono_ms() - server->started_ms > START_MAX_MS)
            fail(server, "does not take connections after 15 s");
        else
            loop_timer_set(server->timer, PROBE_MS);
        return;
    }
    server->is_known = true;
    path_in(server, "nats.port", path);
    snprintf(port, sizeof port, "%d\n", server->port);
    if (write_file(path, port, &err) != AMP_OK)
        log_event(LOG_WARN, "nats.port", "error", err.message, NULL);
    server->handlers.on_up(server->ctx, url);
}

static void on_exit_of(struct nats_server *server, int status)
{
    struct amp_error err = {0};
    server->pid = 0;
    if (server->is_stopping) {
        loop_timer_set(server->timer, 0);
        return;
    }
    if (!server->is_known) {
        if (server->was_port_kept) { /* somebody else has the port of last time */
            server->was_port_kept = false;
            server->port = -1;
            if (start(server, &err) == AMP_OK)
                return;
        }
        fail(server, WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "cannot be run" : "ended while it was starting");
        return;
    }
    if (clock_mono_ms() - server->started_ms > STEADY_MS)
        server->failures = 0;
    log_event(LOG_ERROR, "nats.died", WIFSIGNALED(status) ? "signal" : "exit", log_int(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)), NULL);
    schedule_restart(server);
    server->handlers.on_pid(server->ctx); /* it may be a stranger's soon */
}

static void on_child(void *ctx, int signo)
{
    struct nats_server *server = ctx;
    int status = 0;
    if (server->pid > 0 && waitpid(server->pid, &status, WNOHANG) == server->pid)
        on_exit_of(server, status);
}

enum amp_code nats_server_new(struct loop *loop, const struct home *home, const struct nats_server_handlers *handlers, void *ctx,
                              struct nats_server **ret, struct amp_error *reterr)
{
    struct nats_server *server = xcalloc(1, sizeof *server);
    *server = (struct nats_server){.loop = loop, .handlers = *handlers, .ctx = ctx};
    snprintf(server->home, sizeof server->home, "%s", home->path);
    if (!find_program(server->program, sizeof server->program)) {
        const char *named = getenv("AMESH_NATS_SERVER");
        amp_error_set(reterr, AMP_NOT_FOUND, "", "there is no nats-server %s%s", named != NULL ? "at " : "in PATH", named != NULL ? named : "");
        amp_error_hint(reterr, "sudo apt-get install nats-server, or name one with AMESH_NATS_SERVER, or use a running bus: amesh up --bus URL");
        free(server);
        return AMP_NOT_FOUND;
    }
    server->port = kept_port(server);
    server->was_port_kept = server->port > 0;
    server->timer = loop_timer_new(loop, on_timer, server);
    server->on_child = loop_signal_new(loop, SIGCHLD, on_child, server);
    enum amp_code code = start(server, reterr);
    if (code != AMP_OK) {
        nats_server_free(server);
        return code;
    }
    *ret = server;
    return AMP_OK;
}

int nats_server_pid(const struct nats_server *server)
{
    return server->pid;
}

void nats_server_stop(struct nats_server *server)
{
    if (server->is_stopping)
        return;
    server->is_stopping = true;
    if (server->pid > 0) {
        kill(server->pid, SIGTERM);
        loop_timer_set(server->timer, TERM_MS);
    } else {
        loop_timer_set(server->timer, 0);
    }
}

void nats_server_free(struct nats_server *server)
{
    if (server == NULL)
        return;
    if (server->pid > 0) {
        kill(server->pid, SIGKILL);
        waitpid(server->pid, NULL, 0);
    }
    loop_signal_free(server->on_child);
    loop_timer_free(server->timer);
    free(server);
}
