/* The process that the link worker spawned: start, connection, death, restart, stop. When it dies its last words are read first, so that what it finished counts. */
#include "sidecar/worker_link_private.h"

#include "base/alloc.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "sidecar/peer.h"
#include "sidecar/session.h"
#include "sidecar/shim_files.h"
#include "sidecar/spawn.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LIVED_MS = 10000,       /* a process that lived so long did not fail to start */
    HELLO_MS = 10000,       /* after this the operator hears of one that does not dial */
    START_FAILURES_MAX = 5, /* in a row, before it was ever ready: it never will be */
    LOG_LINE_MAX = 1000,
};

static char **copy_argv(char *const *argv)
{
    size_t n = 0;
    while (argv && argv[n])
        n++;
    if (n == 0)
        return NULL;
    char **copy = xcalloc(n + 1, sizeof *copy);
    for (size_t i = 0; i < n; i++)
        copy[i] = xstrdup(argv[i]);
    return copy;
}

static void free_argv(char **argv)
{
    for (char **each = argv; each && *each; each++)
        free(*each);
    free(argv);
}

/* ---- its connection -------------------------------------------------------------------------------------------------- */

static void on_own_closed(void *ctx, struct peer *peer, const char *reason)
{
    struct link *link = ctx;
    bool had_seat = peer_seat(peer) != NULL;
    worker_link_closed(link->base.sidecar, peer, reason);
    if (!had_seat && link->spawn && !link->is_exiting) /* a shim that never said hello */
        link_process_broken(link);
    peer_free(peer);
    link->own = NULL;
}

static void on_text(void *ctx, struct amp_bytes line)
{
    struct link *link = ctx;
    char *text = xstrndup((const char *)line.data, amp_utf8_is_valid(line) ? amp_utf8_cut(line, LOG_LINE_MAX) : line.len < LOG_LINE_MAX ? line.len : LOG_LINE_MAX);
    log_event(LOG_INFO, "agent.stdout", "agent", sidecar_agent(link->base.sidecar), "text", text, NULL);
    free(text);
}

static void on_pause(void *ctx, bool is_paused)
{
    struct link *link = ctx;
    if (link->spawn)
        spawn_pause(link->spawn, is_paused);
}

static size_t waiting(void *ctx)
{
    const struct link *link = ctx;
    return link->spawn ? spawn_waiting(link->spawn) : 0;
}

static void on_stdin_free(void *ctx)
{
    struct link *link = ctx;
    if (link->own)
        peer_drained(link->own);
}

static const struct peer_handlers own_handlers = {.on_closed = on_own_closed, .on_text = on_text};
static const struct peer_handlers fed_handlers = {.on_closed = on_own_closed, .on_text = on_text, .on_pause = on_pause, .waiting = waiting};

static enum amp_code write_stdin(void *ctx, struct amp_bytes data)
{
    struct link *link = ctx;
    return link->spawn ? spawn_write(link->spawn, data) : AMP_AGENT_DIED;
}

static void on_stdout(void *ctx, struct amp_bytes data)
{
    struct link *link = ctx;
    if (link->own)
        session_feed(peer_session(link->own), data);
}

bool link_process_owns(const struct link *link, const struct peer *peer)
{
    if (!link->spawn)
        return false;
    pid_t pid = peer_pid(peer);
    /* The process leads its group; what it forked dials on its behalf. */
    return peer == link->own || (pid > 0 && getpgid(pid) == spawn_pid(link->spawn));
}

/* ---- its end ------------------------------------------------------------------------------------------------------------ */

static struct seat *next_unread(const struct link *link)
{
    struct seat *seat;
    TAILQ_FOREACH(seat, &link->seats, entry) if (seat->is_spawned && !seat->is_read_out)
        return seat;
    return NULL;
}

/* What is read may be the end of the connection, and remove the seat. */
static void read_last_words(struct link *link)
{
    struct seat *seat, *next;
    if (link->own)
        session_pump(peer_session(link->own));
    while ((seat = next_unread(link))) {
        seat->is_read_out = true;
        if (seat->peer != link->own)
            session_pump(peer_session(seat->peer));
    }
    for (seat = TAILQ_FIRST(&link->seats); seat; seat = next) {
        next = TAILQ_NEXT(seat, entry);
        if (seat->is_spawned)
            link_seat_remove(seat);
    }
}

static void describe(const struct spawn_exit *exit, bool has_tasks, struct amp_error *err)
{
    const char *last = exit->n_stderr_lines ? exit->stderr_lines[exit->n_stderr_lines - 1] : NULL;
    if (exit->is_oom)
        amp_error_set(err, AMP_AGENT_DIED, "", "the agent's process was killed because the memory was used up");
    else if (exit->is_signal)
        amp_error_set(err, AMP_AGENT_DIED, "", "the agent's process was killed by signal %d (SIG%s)%s", exit->signal, sigabbrev_np(exit->signal) ? sigabbrev_np(exit->signal) : "?",
                      exit->is_ours ? " by its sidecar" : "");
    else
        amp_error_set(err, AMP_AGENT_DIED, "", "the agent's process ended with exit code %d%s", exit->exit_code, has_tasks ? " while it worked on the task" : "");
    if (last)
        amp_error_hint(err, "its last words: %s", last);
}

static void bury(struct link *link, const struct spawn_exit *exit)
{
    struct task **tasks = NULL;
    size_t n = 0;
    struct job *job;
    struct amp_error err = {0};
    TAILQ_FOREACH(job, &link->jobs, entry) {
        if (!job->is_orphan)
            continue;
        tasks = xrealloc(tasks, (n + 1) * sizeof *tasks);
        tasks[n++] = job->task;
    }
    bool is_clean = !exit->is_signal && exit->exit_code == 0 && n == 0;
    bool is_wanted = link->is_stopping || (link->is_draining && is_clean);
    const Amp__Death *death = is_wanted ? NULL : sidecar_agent_died(link->base.sidecar, exit, tasks, n);
    if (is_wanted)
        amp_error_set(&err, AMP_STOPPING, "", "the instance left the mesh before the task was done");
    else
        describe(exit, true, &err);
    for (size_t i = 0; i < n; i++)
        link_job_fail(task_data(tasks[i]), &err, death);
    free(tasks);
}

/* `last`: what ended the last try. */
static bool is_hopeless(struct link *link, const struct amp_error *last)
{
    struct amp_error err = {0};
    if (link->was_ready || link->failures + 1 < START_FAILURES_MAX)
        return false;
    amp_error_set(&err, AMP_AGENT_DIED, "", "%s could not be started: %u times in a row it ended before it was ready; %s", sidecar_agent(link->base.sidecar),
                  (unsigned)START_FAILURES_MAX, last->message);
    if (last->hint[0])
        amp_error_hint(&err, "%s", last->hint);
    sidecar_hopeless(link->base.sidecar, &err);
    return true;
}

static void schedule_restart(struct link *link, const struct amp_error *last)
{
    uint32_t random = 0;
    if (link->is_stopping || link->is_draining || is_hopeless(link, last))
        return;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
        random = (uint32_t)loop_now_ms(sidecar_loop(link->base.sidecar));
    link->failures++;
    uint32_t in_ms = sidecar_restart_delay_ms(link->failures, random);
    log_event(LOG_INFO, "agent.restart", "agent", sidecar_agent(link->base.sidecar), "in_ms", log_int(in_ms), NULL);
    loop_timer_set(link->restart, in_ms);
}

static void on_exit_seen(void *ctx, const struct spawn_exit *exit)
{
    struct link *link = ctx;
    link->is_exiting = true;
    loop_timer_stop(link->kill);
    read_last_words(link);
    if (link->own) { /* jsonl: its end of file came before */
        peer_free(link->own);
        link->own = NULL;
    }
    sidecar_set_agent_pid(link->base.sidecar, 0);
    bury(link, exit);
    if (exit->uptime_ms >= LIVED_MS)
        link->failures = 0;
    loop_timer_stop(link->hello);
    struct amp_error last = {0};
    describe(exit, false, &last); /* the exit is the spawn's */
    spawn_free(link->spawn);
    link->spawn = NULL;
    link->is_exiting = false;
    schedule_restart(link, &last);
    if (link->is_stopping && link->on_stopped)
        link->on_stopped(link->stopped_ctx);
}

void link_process_kill(struct link *link)
{
    if (link->spawn)
        spawn_kill(link->spawn, SIGKILL);
}

static void on_kill(void *ctx)
{
    struct link *link = ctx;
    struct amp_error err = {0};
    struct job *job, *next;
    if (link->mode != WORKER_DIAL || link->is_stopping) {
        link_process_kill(link);
        return;
    }
    /* It lives on, it only dropped the connection. */
    amp_error_set(&err, AMP_AGENT_DIED, "", "the agent closed the connection on which it worked on the task");
    for (job = TAILQ_FIRST(&link->jobs); job; job = next) {
        next = TAILQ_NEXT(job, entry);
        if (job->is_orphan)
            link_job_limit(job, 0, &err);
    }
}

void link_process_broken(struct link *link)
{
    if (!link->is_stopping && !loop_timer_is_set(link->kill))
        loop_timer_set(link->kill, LINK_BROKEN_MS);
}

/* ---- its start ------------------------------------------------------------------------------------------------------------ */

/* What every process gets, and for shims: the descriptor, the number of slots, the way to `import amesh`. */
static char **make_env(struct link *link, int fd, const char *shim_dir)
{
    char **env = sidecar_env_new(link->base.sidecar, NULL);
    size_t n = 0;
    while (env[n])
        n++;
    env = xrealloc(env, (n + 4) * sizeof *env);
    env[n++] = fd >= 0 ? xasprintf("AMESH_FD=%d", SPAWN_INHERITED_FD) : xstrdup("AMESH_FD=");
    env[n++] = xasprintf("AMESH_CONCURRENCY=%u", sidecar_options(link->base.sidecar)->slots);
    if (shim_dir) {
        const char *old = getenv("PYTHONPATH");
        env[n++] = old && *old ? xasprintf("PYTHONPATH=%s:%s", shim_dir, old) : xasprintf("PYTHONPATH=%s", shim_dir);
    }
    env[n] = NULL;
    return env;
}

static enum amp_code spawn_it(struct link *link, char *const *argv, int fd, const char *shim_dir, struct amp_error *reterr)
{
    static const struct spawn_handlers handlers = {.on_stdout = on_stdout, .on_stdin_free = on_stdin_free, .on_exit = on_exit_seen};
    char **env = make_env(link, fd, shim_dir);
    struct spawn_options options = {.argv = argv, .env_add = env, .pipe_stdio = link->mode == WORKER_JSONL, .inherit_fd = fd, .echo_stderr = true};
    enum amp_code code = spawn_start(sidecar_loop(link->base.sidecar), &options, &handlers, link, &link->spawn, reterr);
    sidecar_env_free(env);
    return code;
}

static enum amp_code start_shim(struct link *link, struct amp_error *reterr)
{
    const struct sidecar_options *options = sidecar_options(link->base.sidecar);
    char *dir;
    int fds[2];
    enum amp_code code = shim_files_write(sidecar_home(link->base.sidecar), &dir, reterr);
    if (code != AMP_OK)
        return code;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
        free(dir);
        return amp_error_set(reterr, AMP_INTERNAL, "", "no socket pair can be made");
    }
    char **argv = shim_command(dir, options->target, options->python);
    code = spawn_it(link, argv, fds[1], dir, reterr);
    close(fds[1]);
    if (code == AMP_OK)
        link->own = peer_new(link->base.sidecar, fds[0], spawn_pid(link->spawn), &own_handlers, link);
    else
        close(fds[0]);
    free_argv(argv);
    free(dir);
    return code;
}

static enum amp_code start_command(struct link *link, struct amp_error *reterr)
{
    enum amp_code code = spawn_it(link, link->argv, -1, NULL, reterr);
    if (code != AMP_OK || link->mode != WORKER_JSONL)
        return code;
    link->own = peer_new_fed(link->base.sidecar, write_stdin, spawn_pid(link->spawn), &fed_handlers, link);
    link_seat_add(link, link->own, sidecar_options(link->base.sidecar)->slots, true);
    return AMP_OK;
}

static void start(void *ctx)
{
    struct link *link = ctx;
    struct amp_error err = {0};
    enum amp_code code = link->mode == WORKER_SHIM ? start_shim(link, &err) : start_command(link, &err);
    if (code != AMP_OK) {
        log_event(LOG_ERROR, "agent.not_started", "agent", sidecar_agent(link->base.sidecar), "error", err.message, "hint", err.hint, NULL);
        schedule_restart(link, &err);
        return;
    }
    if (link->failures)
        counter_add(COUNTER_agent_restarts, 1);
    sidecar_set_agent_pid(link->base.sidecar, spawn_pid(link->spawn));
    if (link->mode == WORKER_DIAL)
        loop_timer_set(link->hello, HELLO_MS);
    if (link->mode == WORKER_JSONL)
        worker_link_greeted(link->base.sidecar, link->own); /* needs no hello */
}

static void on_no_hello(void *ctx)
{
    struct link *link = ctx;
    if (!link->was_ready)
        log_event(LOG_WARN, "agent.silent", "agent", sidecar_agent(link->base.sidecar), "after_ms", log_int(HELLO_MS), "reason",
                  "the process has not connected to AMESH_SOCK", "hint",
                  "with --mode dial it connects and says hello (or polls /v1/work); a program that is run once per task needs no --mode", NULL);
}

void link_process_init(struct link *link, char *const *argv)
{
    struct loop *loop = sidecar_loop(link->base.sidecar);
    link->argv = copy_argv(argv);
    link->restart = loop_timer_new(loop, start, link);
    link->kill = loop_timer_new(loop, on_kill, link);
    link->hello = loop_timer_new(loop, on_no_hello, link);
    if (link->argv || link->mode == WORKER_SHIM)
        loop_timer_set(link->restart, 0);
}

/* ---- stop ------------------------------------------------------------------------------------------------------------------- */

static void stop_dialled(struct link *link)
{
    struct amp_error err = {0};
    struct seat *seat;
    amp_error_set(&err, AMP_STOPPING, "", "the instance left the mesh before the task was done");
    while (!TAILQ_EMPTY(&link->jobs))
        link_job_fail(TAILQ_FIRST(&link->jobs), &err, NULL);
    TAILQ_FOREACH(seat, &link->seats, entry)
        session_close(peer_session(seat->peer), "the sidecar leaves");
    link->on_stopped(link->stopped_ctx);
}

void link_process_stop(struct link *link)
{
    loop_timer_stop(link->restart);
    if (!link->spawn) {
        stop_dialled(link);
        return;
    }
    if (link->mode == WORKER_JSONL)
        spawn_close_stdin(link->spawn);
    spawn_kill(link->spawn, SIGTERM);
    loop_timer_set(link->kill, LINK_STOP_MS);
}

void link_process_done(struct link *link)
{
    loop_timer_free(link->restart);
    loop_timer_free(link->kill);
    loop_timer_free(link->hello);
    peer_free(link->own);
    spawn_free(link->spawn);
    free_argv(link->argv);
}
