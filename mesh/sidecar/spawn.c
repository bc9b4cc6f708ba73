/* One child from start to its last word. SIGCHLD wakes the loop; the exit is looked at without reaping (WNOWAIT), so that the pid stays ours until the group was killed. Then
 * stdout and stderr are read to their end, or 200 ms long if a grandchild holds them open, the group is killed, the child is reaped, and on_exit says what was. */
#include "spawn_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/loop.h"

#define READ_BYTES (64u << 10)
#define STDIN_BYTES_MAX (64u << 20)
#define LINGER_MS 200u

struct spawn {
    struct loop *loop;
    struct spawn_handlers handlers;
    void *ctx;
    pid_t pid;
    struct loop_signal *sigchld;
    struct loop_timer *linger;
    int fd_in, fd_out, fd_err;     /* -1: closed */
    struct loop_io *io_in, *io_out, *io_err;
    struct amp_buf in;             /* waits for its stdin */
    size_t in_done;
    struct spawn_lines lines;
    struct spawn_oom oom;
    int64_t started_ms;
    bool echoes_stderr, closes_stdin, is_paused, has_exited, is_over;
    uint64_t signals_sent; /* by spawn_kill: one bit each */
};

/* ---- the end ------------------------------------------------------------------------------------------- */

bool spawn_reap(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        (void)poll(&wait, 1, 100);
        (void)close(fd);
    }
    return waitpid(pid, NULL, WNOHANG) == pid;
}

static void close_stream(int *fd, struct loop_io **io)
{
    if (*io)
        loop_io_free(*io);
    *io = NULL;
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static uint32_t ms_of(const struct timeval *time)
{
    return (uint32_t)(time->tv_sec * 1000 + time->tv_usec / 1000);
}

static void write_line(const char *line)
{
    struct amp_buf out;
    amp_buf_init(&out, AMP_STDERR_LINE_MAX + 2);
    (void)amp_buf_printf(&out, "%s\n", line);
    if (write(STDERR_FILENO, out.data, out.len) < 0) {
        /* nobody reads our stderr: nothing to be done */
    }
    amp_buf_done(&out);
}

static void (*line_sink(const struct spawn *spawn))(const char *line)
{
    return spawn->echoes_stderr ? write_line : NULL;
}

static void over(struct spawn *spawn)
{
    struct rusage usage;
    int status = 0;
    char *lines[AMP_STDERR_LINES_MAX];
    spawn->is_over = true;
    loop_timer_stop(spawn->linger);
    close_stream(&spawn->fd_in, &spawn->io_in);
    close_stream(&spawn->fd_out, &spawn->io_out);
    close_stream(&spawn->fd_err, &spawn->io_err);
    (void)kill(-spawn->pid, SIGKILL); /* what it left behind */
    pid_t got = wait4(spawn->pid, &status, 0, &usage);
    assert(got == spawn->pid); /* it is a zombie, and nobody else waits for our children */
    spawn_lines_end(&spawn->lines, line_sink(spawn));
    struct spawn_exit exit = {.pid = spawn->pid, .is_signal = WIFSIGNALED(status), .stderr_lines = lines};
    exit.n_stderr_lines = spawn_lines_list(&spawn->lines, lines);
    exit.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    exit.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    exit.is_ours = exit.is_signal && spawn->signals_sent >> exit.signal & 1;
    if (exit.is_signal && exit.signal == SIGKILL && !exit.is_ours) {
        struct spawn_oom now;
        spawn_oom_read(&now);
        exit.is_oom = spawn_oom_rose(&spawn->oom, &now);
    }
    exit.rss_max_bytes = (uint64_t)usage.ru_maxrss * 1024;
    exit.cpu_ms = ms_of(&usage.ru_utime) + ms_of(&usage.ru_stime);
    exit.uptime_ms = (uint32_t)(clock_mono_ms() - spawn->started_ms);
    spawn->handlers.on_exit(spawn->ctx, &exit);
}

static void look_over(struct spawn *spawn)
{
    if (spawn->has_exited && !spawn->is_over && spawn->fd_out < 0 && spawn->fd_err < 0)
        loop_timer_set(spawn->linger, 0); /* from the loop: we may be inside on_stdout */
}

/* ---- streams --------------------------------------------------------------------------------------------- */

/* False: the stream is over. */
static bool read_some(struct spawn *spawn, int fd, bool is_stdout)
{
    uint8_t data[READ_BYTES];
    ssize_t got = read(fd, data, sizeof(data));
    if (got < 0)
        return errno == EINTR || errno == EAGAIN;
    if (got == 0)
        return false;
    struct amp_bytes bytes = {.data = data, .len = (size_t)got};
    if (is_stdout)
        spawn->handlers.on_stdout(spawn->ctx, bytes);
    else
        spawn_lines_feed(&spawn->lines, bytes, line_sink(spawn));
    return true;
}

static void on_stdout(void *ctx, int events)
{
    struct spawn *spawn = ctx;
    if (read_some(spawn, spawn->fd_out, true))
        return;
    close_stream(&spawn->fd_out, &spawn->io_out);
    look_over(spawn);
    spawn->handlers.on_stdout(spawn->ctx, (struct amp_bytes){0});
}

static void on_stderr(void *ctx, int events)
{
    struct spawn *spawn = ctx;
    if (read_some(spawn, spawn->fd_err, false))
        return;
    close_stream(&spawn->fd_err, &spawn->io_err);
    look_over(spawn);
}

static void stdin_push(struct spawn *spawn)
{
    while (spawn->fd_in >= 0 && spawn->in_done < spawn->in.len) {
        ssize_t sent = write(spawn->fd_in, spawn->in.data + spawn->in_done, spawn->in.len - spawn->in_done);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN) {
            loop_io_want(spawn->io_in, LOOP_WRITE);
            return;
        }
        if (sent < 0) { /* it does not read any more, which is its right */
            close_stream(&spawn->fd_in, &spawn->io_in);
            break;
        }
        spawn->in_done += (size_t)sent;
    }
    amp_buf_reset(&spawn->in);
    spawn->in_done = 0;
    if (spawn->closes_stdin)
        close_stream(&spawn->fd_in, &spawn->io_in);
    else if (spawn->io_in)
        loop_io_want(spawn->io_in, 0);
}

static void on_stdin(void *ctx, int events)
{
    struct spawn *spawn = ctx;
    stdin_push(spawn);
    if (spawn_waiting(spawn) == 0 && spawn->handlers.on_stdin_free)
        spawn->handlers.on_stdin_free(spawn->ctx);
}

size_t spawn_waiting(const struct spawn *spawn)
{
    return spawn->in.len - spawn->in_done;
}

/* What it has read goes, also of a process that is always a little behind. */
static void stdin_compact(struct spawn *spawn)
{
    size_t left = spawn_waiting(spawn);
    if (spawn->in_done < spawn->in.len / 2)
        return;
    if (left > 0)
        memmove(spawn->in.data, spawn->in.data + spawn->in_done, left);
    spawn->in.len = left;
    spawn->in_done = 0;
}

enum amp_code spawn_write(struct spawn *spawn, struct amp_bytes data)
{
    if (spawn->fd_in < 0 || spawn->closes_stdin)
        return AMP_OK; /* like a pipe nobody reads */
    stdin_compact(spawn);
    if (amp_buf_append(&spawn->in, data.data, data.len) != AMP_OK) {
        spawn->in.is_full = false; /* only this one was refused */
        return AMP_OVERLOADED;
    }
    stdin_push(spawn);
    return AMP_OK;
}

void spawn_close_stdin(struct spawn *spawn)
{
    spawn->closes_stdin = true;
    stdin_push(spawn);
}

void spawn_pause(struct spawn *spawn, bool is_paused)
{
    spawn->is_paused = is_paused;
    if (spawn->io_out)
        loop_io_want(spawn->io_out, is_paused ? 0 : LOOP_READ);
    if (!is_paused && spawn->has_exited && !spawn->is_over)
        loop_timer_set(spawn->linger, LINGER_MS);
}

/* ---- signals ------------------------------------------------------------------------------------------------- */

static void on_sigchld(void *ctx, int signo)
{
    struct spawn *spawn = ctx;
    siginfo_t info = {0};
    if (spawn->has_exited || waitid(P_PID, (id_t)spawn->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != spawn->pid)
        return;
    spawn->has_exited = true;
    loop_timer_set(spawn->linger, spawn->fd_out < 0 && spawn->fd_err < 0 ? 0 : LINGER_MS);
}

/* The streams are over, or 200 ms have passed and somebody else holds them. Paused, what is in the pipe is still the agent's answer: it waits. */
static void on_linger(void *ctx)
{
    struct spawn *spawn = ctx;
    if (spawn->is_paused && spawn->fd_out >= 0)
        return;
    over(spawn);
}

void spawn_kill(struct spawn *spawn, int signo)
{
    if (spawn->is_over)
        return;
    if (!spawn->has_exited)
        spawn->signals_sent |= UINT64_C(1) << signo;
    (void)kill(-spawn->pid, signo);
}

pid_t spawn_pid(const struct spawn *spawn)
{
    return spawn->pid;
}

/* ---- the beginning --------------------------------------------------------------------------------------------- */

struct ends { /* of pipes: theirs and ours */
    int in[2], out[2], err[2];
};

static void ends_close(struct ends *ends)
{
    int *all[] = {&ends->in[0], &ends->in[1], &ends->out[0], &ends->out[1], &ends->err[0], &ends->err[1]};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (*all[i] >= 0)
            (void)close(*all[i]);
}

static enum amp_code ends_open(const struct spawn_options *options, struct ends *ends, struct amp_error *reterr)
{
    *ends = (struct ends){{-1, -1}, {-1, -1}, {-1, -1}};
    bool ok = pipe2(ends->err, O_CLOEXEC) == 0;
    if (ok && options->pipe_stdio)
        ok = pipe2(ends->in, O_CLOEXEC) == 0 && pipe2(ends->out, O_CLOEXEC) == 0;
    else if (ok)
        ok = (ends->in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;
    if (ok)
        return AMP_OK;
    enum amp_code code = amp_error_set(reterr, AMP_OVERLOADED, "", "no descriptors for a child process: %s", strerror(errno));
    ends_close(ends);
    return code;
}

static struct loop_io *watch(struct spawn *spawn, int fd, void (*on_ready)(void *ctx, int events), int events)
{
    if (fd < 0)
        return NULL;
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    struct loop_io *io = loop_io_new(spawn->loop, fd, on_ready, spawn);
    loop_io_want(io, events);
    return io;
}

enum amp_code spawn_start(struct loop *loop, const struct spawn_options *options, const struct spawn_handlers *handlers, void *ctx, struct spawn **ret,
                          struct amp_error *reterr)
{
    struct ends ends;
    enum amp_code code = ends_open(options, &ends, reterr);
    if (code != AMP_OK)
        return code;
    struct spawn *spawn = xcalloc(1, sizeof *spawn);
    *spawn = (struct spawn){.loop = loop, .handlers = *handlers, .ctx = ctx, .fd_in = -1, .fd_out = -1, .fd_err = -1, .echoes_stderr = options->echo_stderr,
                            .started_ms = clock_mono_ms()};
    amp_buf_init(&spawn->in, STDIN_BYTES_MAX);
    spawn->linger = loop_timer_new(loop, on_linger, spawn);
    spawn->sigchld = loop_signal_new(loop, SIGCHLD, on_sigchld, spawn);
    spawn_oom_read(&spawn->oom);
    const int stdio[3] = {ends.in[0], options->pipe_stdio ? ends.out[1] : STDERR_FILENO, ends.err[1]};
    code = spawn_child(options, stdio, &spawn->pid, reterr);
    if (code != AMP_OK) {
        ends_close(&ends);
        spawn->is_over = true;
        spawn_free(spawn);
        return code;
    }
    spawn->fd_in = ends.in[1];
    spawn->fd_out = ends.out[0];
    spawn->fd_err = ends.err[0];
    ends.in[1] = ends.out[0] = ends.err[0] = -1;
    ends_close(&ends);
    spawn->io_in = watch(spawn, spawn->fd_in, on_stdin, 0);
    spawn->io_out = watch(spawn, spawn->fd_out, on_stdout, LOOP_READ);
    spawn->io_err = watch(spawn, spawn->fd_err, on_stderr, LOOP_READ);
    *ret = spawn;
    return AMP_OK;
}

void spawn_free(struct spawn *spawn)
{
    if (!spawn)
        return;
    if (!spawn->is_over) {
        (void)kill(-spawn->pid, SIGKILL);
        (void)spawn_reap(spawn->pid);
    }
    close_stream(&spawn->fd_in, &spawn->io_in);
    close_stream(&spawn->fd_out, &spawn->io_out);
    close_stream(&spawn->fd_err, &spawn->io_err);
    loop_signal_free(spawn->sigchld);
    loop_timer_free(spawn->linger);
    amp_buf_done(&spawn->in);
    spawn_lines_done(&spawn->lines);
    free(spawn);
}
