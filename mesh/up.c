#include "up.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bus.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/home.h"
#include "base/log.h"
#include "base/loop.h"
#include "cli/context.h"
#include "cli/nats_server.h"
#include "env/commands.h"
#include "env/env.h"
#include "env/fence.h"

#define READY_PROBE_MS 5u
#define DOWN_MAX_MS 15000
#define STOP_MAX_MS 10000u /* for the orderly end; then this process ends as it is */

struct up {
    struct cli cli;
    int64_t since_unix_ms; /* it was ready */
    int lock_fd;
    struct nats_server *nats; /* NULL: the bus is somebody else's */
    struct env *env;
    struct fence *fence; /* is another environment on this bus? */
    struct env_options env_options;
    struct loop_timer *timer; /* asks whether a task would be accepted; while stopping: the end of patience */
    struct loop_signal *on_int, *on_term;
    char url[512];
    bool is_ready, is_stopping, is_detached;
    int status;
};

/* ---- the end -------------------------------------------------------------------------------------------- */

static void finish(struct up *up)
{
    home_mesh_remove(&up->cli.home);
    loop_stop(up->cli.loop, up->status);
}

static void on_nats_stopped(void *ctx)
{
    finish(ctx);
}

static void stop_bus(struct up *up)
{
    fence_free(up->fence);
    up->fence = NULL;
    bus_free(up->cli.bus);
    up->cli.bus = NULL;
    if (up->nats != NULL)
        nats_server_stop(up->nats);
    else
        finish(up);
}

static void on_env_stopped(void *ctx)
{
    struct up *up = ctx;
    env_free(up->env);
    up->env = NULL;
    stop_bus(up);
}

static void stop(struct up *up, int status)
{
    if (up->is_stopping)
        return;
    up->is_stopping = true;
    up->status = status;
    loop_timer_set(up->timer, STOP_MAX_MS);
    if (up->env != NULL)
        env_stop(up->env, on_env_stopped, up);
    else
        stop_bus(up);
}

static void on_stop_signal(void *ctx, int signo)
{
    struct up *up = ctx;
    if (up->is_stopping) { /* the second one: at once */
        finish(up);
        return;
    }
    if (up->is_ready)
        log_event(LOG_INFO, "up.stopping", "signal", signo == SIGINT ? "SIGINT" : "SIGTERM", NULL);
    stop(up, up->is_ready ? 0 : 130);
}

static void fail(struct up *up, const struct amp_error *err)
{
    stop(up, cli_fail(&up->cli, err, NULL));
}

/* ---- the beginning -------------------------------------------------------------------------------------- */

/* What was said until now went to the one who started us; from here on to the log. */
static void leave_terminal(const struct up *up)
{
    char path[512];
    snprintf(path, sizeof path, "%s/up.log", up->cli.home.path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null_fd, STDIN_FILENO);
    dup2(fd >= 0 ? fd : null_fd, STDOUT_FILENO);
    dup2(fd >= 0 ? fd : null_fd, STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
    if (null_fd > STDERR_FILENO)
        close(null_fd);
}

static enum amp_code write_mesh(const struct up *up, struct amp_error *reterr)
{
    struct home_mesh mesh = {.pid = (int)getpid(), .nats_pid = up->nats != NULL ? nats_server_pid(up->nats) : 0, .since_unix_ms = up->since_unix_ms};
    snprintf(mesh.bus, sizeof mesh.bus, "%s", up->url);
    snprintf(mesh.version, sizeof mesh.version, "%s", amp_version());
    return home_mesh_write(&up->cli.home, &mesh, reterr);
}

static void be_ready(struct up *up)
{
    struct amp_error err = {0};
    up->since_unix_ms = clock_unix_ms();
    if (write_mesh(up, &err) != AMP_OK) {
        fail(up, &err);
        return;
    }
    up->is_ready = true;
    if (up->cli.is_json)
        printf("{\"ready\":true,\"bus\":\"%s\",\"home\":\"%s\",\"pid\":%d}\n", up->url, up->cli.home.path, (int)getpid());
    else
        printf("ready %s\n", up->url);
    fflush(stdout);
    if (up->is_detached)
        leave_terminal(up);
}

static void on_nats_pid(void *ctx)
{
    const struct up *up = ctx;
    struct amp_error err = {0};
    if (up->is_ready && !up->is_stopping && write_mesh(up, &err) != AMP_OK)
        log_event(LOG_WARN, "up.mesh", "error", err.message, NULL);
}

static void on_timer(void *ctx)
{
    struct up *up = ctx;
    if (up->is_stopping) {
        log_event(LOG_ERROR, "up.stop", "error", "the orderly stop took too long", NULL);
        finish(up);
    } else if (up->env != NULL && env_is_ready(up->env)) {
        be_ready(up);
    } else {
        loop_timer_set(up->timer, READY_PROBE_MS);
    }
}

static void on_bus_up(void *ctx)
{
    struct up *up = ctx;
    if (up->env != NULL)
        env_bus_up(up->env);
}

static void on_bus_down(void *ctx)
{
    struct up *up = ctx;
    if (up->env != NULL)
        env_bus_down(up->env);
}

static void on_clear(void *ctx)
{
    struct up *up = ctx;
    struct amp_error err = {0};
    char journal[512];
    if (up->is_stopping)
        return;
    snprintf(journal, sizeof journal, "%s/journal.db", up->cli.home.path);
    up->env_options.journal_path = journal;
    up->env_options.name = "env";
    up->env_options.quotas = command_values(up->cli.command, up->cli.args, "quota");
    if (env_new(up->cli.loop, up->cli.bus, &up->env_options, &up->env, &err) != AMP_OK) {
        up->env = NULL;
        fail(up, &err);
    } else {
        loop_timer_set(up->timer, 0);
    }
}

static void on_rival(void *ctx, const struct amp_error *err)
{
    if (((struct up *)ctx)->is_ready)
        log_event(LOG_ERROR, "env.rival", "reason", err->message, "hint", err->hint, NULL);
    fail(ctx, err);
}

static void start_env(struct up *up)
{
    static const struct fence_handlers handlers = {.on_clear = on_clear, .on_rival = on_rival};
    struct cli *cli = &up->cli;
    struct amp_error err = {0};
    struct bus_options bus_options = {.url = up->url,
                                      .creds = cli->home.creds[0] == '\0' ? NULL : cli->home.creds,
                                      .name = "amesh-up",
                                      .owner = "env",
                                      .inbox = cli->home.inbox,
                                      .no_echo = true,
                                      .on_up = on_bus_up,
                                      .on_down = on_bus_down,
                                      .ctx = up};
    if (bus_new(cli->loop, &bus_options, &cli->bus, &err) != AMP_OK) {
        cli->bus = NULL;
        fail(up, &err);
    } else {
        up->fence = fence_new(cli->loop, cli->bus, "env", &handlers, up);
    }
}

static void on_nats_up(void *ctx, const char *url)
{
    struct up *up = ctx;
    if (up->is_stopping)
        return;
    snprintf(up->url, sizeof up->url, "%s", url);
    start_env(up);
}

static void on_nats_failed(void *ctx, const struct amp_error *err)
{
    fail(ctx, err);
}

static void start(struct up *up)
{
    static const struct nats_server_handlers handlers = {.on_up = on_nats_up, .on_failed = on_nats_failed, .on_pid = on_nats_pid, .on_stopped = on_nats_stopped};
    const char *url = command_value(up->cli.command, up->cli.args, "bus");
    struct amp_error err = {0};
    if (url != NULL) {
        snprintf(up->url, sizeof up->url, "%s", up->cli.home.bus);
        start_env(up);
    } else if (nats_server_new(up->cli.loop, &up->cli.home, &handlers, up, &up->nats, &err) != AMP_OK) {
        up->nats = NULL;
        fail(up, &err);
    }
}

static int run(struct up *up)
{
    up->cli.loop = loop_new();
    up->timer = loop_timer_new(up->cli.loop, on_timer, up);
    up->on_int = loop_signal_new(up->cli.loop, SIGINT, on_stop_signal, up);
    up->on_term = loop_signal_new(up->cli.loop, SIGTERM, on_stop_signal, up);
    start(up);
    int status = loop_run(up->cli.loop);
    env_free(up->env);
    fence_free(up->fence);
    bus_free(up->cli.bus);
    up->cli.bus = NULL;
    nats_server_free(up->nats);
    loop_signal_free(up->on_int);
    loop_signal_free(up->on_term);
    loop_timer_free(up->timer);
    return status;
}

/* ---- up ------------------------------------------------------------------------------------------------- */

/* Waits for what the child says first: its ready line, or its end. */
static int wait_for_child(pid_t pid, int fd)
{
    char line[1024];
    size_t len = 0;
    while (len < sizeof line - 1 && memchr(line, '\n', len) == NULL) {
        ssize_t n = read(fd, line + len, sizeof line - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    line[len] = '\0';
    if (memchr(line, '\n', len) != NULL) {
        fputs(line, stdout);
        fflush(stdout);
        return 0;
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Forks before there is a loop or a thread. Returns -1 in the child, the exit code in the parent. */
static int detach(struct up *up)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return cli_fail_with(&up->cli, AMP_INTERNAL, "no pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return cli_fail_with(&up->cli, AMP_INTERNAL, "cannot fork: %s", strerror(errno));
    if (pid > 0) {
        close(fds[1]);
        int status = wait_for_child(pid, fds[0]);
        close(fds[0]);
        return status;
    }
    setsid();
    dup2(fds[1], STDOUT_FILENO);
    close(fds[0]);
    close(fds[1]);
    return -1;
}

static int lock(struct up *up)
{
    struct amp_error err = {0};
    struct home_mesh mesh;
    if (home_lock(&up->cli.home, &up->lock_fd, &err) == AMP_OK)
        return 0;
    up->lock_fd = -1;
    if (err.code == AMP_RUNNING && home_mesh_read(&up->cli.home, &mesh, NULL) == AMP_OK) {
        amp_error_set(&err, AMP_RUNNING, "", "a mesh already runs in %s: pid %d, bus %s", up->cli.home.path, mesh.pid, mesh.bus);
        amp_error_hint(&err, "use it, or amesh down, or another AMESH_HOME");
    }
    return cli_fail(&up->cli, &err, NULL);
}

static int run_up(const struct command *command, struct command_args *args)
{
    struct up up = {.lock_fd = -1};
    struct amp_error err = {0};
    int status = cli_init(&up.cli, command, args);
    if (status == 0)
        status = cli_operands(&up.cli, 0, 0);
    if (status == 0 && (file_check_limit(&err) != AMP_OK || home_open(&up.cli.home, command_value(command, args, "home"), command_value(command, args, "bus"), true, &err) != AMP_OK))
        status = cli_fail(&up.cli, &err, NULL);
    if (status == 0 && env_retain_parse(&up.env_options, command_value(command, args, "retain-age"), command_value(command, args, "retain-bytes"), &err) != AMP_OK)
        status = cli_fail(&up.cli, &err, NULL);
    if (status == 0 && env_quotas_check(command_values(command, args, "quota"), &err) != AMP_OK)
        status = cli_fail(&up.cli, &err, NULL);
    if (status == 0 && env_files_check(&err) != AMP_OK)
        status = cli_fail(&up.cli, &err, NULL);
    up.is_detached = status == 0 && command_flag(command, args, "detach");
    if (up.is_detached) {
        status = detach(&up);
        if (status >= 0) {
            cli_done(&up.cli);
            return status;
        }
        status = 0;
    }
    log_init(log_level_from_env(LOG_INFO), "amesh-up");
    if (status == 0)
        status = lock(&up);
    if (status == 0)
        status = run(&up);
    cli_done(&up.cli);
    if (up.lock_fd >= 0)
        close(up.lock_fd);
    return status;
}

/* ---- down ----------------------------------------------------------------------------------------------- */

/* By descriptor, so that a pid that was given to another process in between is never hit. */
static int end_process(const struct cli *cli, int pid, int fd)
{
    struct home_mesh mesh;
    struct amp_error err = {0};
    if (home_mesh_read(&cli->home, &mesh, &err) != AMP_OK || mesh.pid != pid)
        return 0; /* it ended by itself while we looked */
    if (pidfd_send_signal(fd, SIGTERM, NULL, 0) != 0 && errno != ESRCH)
        return cli_fail_with(cli, AMP_DENIED, "process %d cannot be stopped: %s", pid, strerror(errno));
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    int n = 0;
    int64_t end = clock_mono_ms() + DOWN_MAX_MS;
    do {
        int64_t left = end - clock_mono_ms();
        n = poll(&wait, 1, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0)
        return 0;
    amp_error_set(&err, AMP_STOPPING, "", "process %d still runs after %d s", pid, DOWN_MAX_MS / 1000);
    amp_error_hint(&err, "kill -9 %d; what was accepted stays in the journal", pid);
    return cli_fail(cli, &err, NULL);
}

static int run_down(const struct command *command, struct command_args *args)
{
    struct cli cli;
    struct home_mesh mesh;
    struct amp_error err = {0};
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 0, 0);
    if (status == 0 && home_mesh_read(&cli.home, &mesh, &err) != AMP_OK) {
        if (err.code == AMP_NOT_FOUND) {
            amp_error_set(&err, AMP_NOT_FOUND, "", "no mesh runs in %s", cli.home.path);
            amp_error_hint(&err, "amesh up, or name another home with AMESH_HOME");
        }
        status = cli_fail(&cli, &err, NULL);
    } else if (status == 0) {
        int fd = pidfd_open(mesh.pid, 0);
        if (fd >= 0)
            status = end_process(&cli, mesh.pid, fd);
        else if (errno != ESRCH)
            status = cli_fail_with(&cli, AMP_INTERNAL, "process %d: %s", mesh.pid, strerror(errno));
        if (fd >= 0)
            close(fd);
        if (status == 0 && cli.is_json)
            printf("{\"stopped\":%d}\n", mesh.pid);
        else if (status == 0)
            fprintf(stderr, "stopped the mesh in %s\n", cli.home.path);
    }
    cli_done(&cli);
    return status;
}

static const struct command_option up_options[] = {
    ENV_RETAIN_OPTIONS,
    {.name = "detach", .letter = 'd', .help = "return when it is ready; its log is up.log in the home"},
    {.name = "quota", .arg = "SENDER=LIMITS", .help = ENV_QUOTA_HELP, .is_repeatable = true},
    {0},
};
static const struct command_option no_options[] = {{0}};

const struct command up_commands[] = {
    {.name = "up",
     .operands = "",
     .summary = "start what one host needs: bus and environment",
     .details = "Starts nats-server as its child, with JetStream on a private store in the home and a free port of 127.0.0.1, and the environment; prints \"ready <bus url>\" when a "
                "task would be accepted and runs until interrupted. With --bus URL it uses that bus instead.\n\nnats-server is looked for in PATH; AMESH_NATS_SERVER names "
                "another. A second one in the same home exits with 8.\n\nExamples:\n  amesh up\n  amesh up --detach\n  amesh up --bus nats://bus.example:4222",
     .options = up_options,
     .run = run_up},
    {.name = "down",
     .operands = "",
     .summary = "stop the mesh of this home",
     .details = "Waits until it has ended, at most 15 s. Exit code 4 if none runs.\n\nExamples:\n  amesh down",
     .options = no_options,
     .run = run_down},
    {0},
};
