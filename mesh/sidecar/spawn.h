/* A child process: its own process group, stdin/stdout as pipes or not, the last lines of its stderr, and how it ended, known within
 * a loop turn of the kernel knowing (SIGCHLD on the loop). Nothing of it survives spawn_free: the whole group is killed. Loop thread only. */
#pragma once
#include <amp/amp.h>
#include <sys/types.h>

struct loop;
struct spawn;

struct spawn_exit {
    pid_t pid;
    bool is_signal;
    int exit_code; /* when !is_signal */
    int signal;    /* when is_signal */
    bool is_ours;  /* the signal was spawn_kill's */
    bool is_oom;   /* killed by the kernel for memory (cgroup's or the host's oom_kill counter rose) */
    char **stderr_lines; /* last AMP_STDERR_LINES_MAX lines, sanitised, oldest first; borrowed during on_exit */
    size_t n_stderr_lines;
    uint64_t rss_max_bytes;
    uint32_t cpu_ms, uptime_ms;
};

#define SPAWN_INHERITED_FD 3 /* low, as some runtimes take no number that they do not know to be free */

struct spawn_options {
    char *const *argv;
    char *const *env_add;   /* "K=V" added to or replacing ours; NULL-ended; may be NULL. Names ending in the value of nothing ("K=") unset */
    bool pipe_stdio;        /* stdin and stdout as pipes; else stdin is /dev/null and stdout goes to our stderr */
    int inherit_fd;         /* becomes SPAWN_INHERITED_FD in the child; -1: none. Everything else is closed */
    bool echo_stderr;       /* also pass stderr lines through to ours (sanitised) */
};

struct spawn_handlers {
    void (*on_stdout)(void *ctx, struct amp_bytes data); /* len 0: end of file */
    void (*on_stdin_free)(void *ctx); /* what waited has been written: from the loop, not inside of spawn_write. May be NULL */
    void (*on_exit)(void *ctx, const struct spawn_exit *exit); /* once, after stdout and stderr have been read to their end or 200 ms after the exit (a
                                                                  grandchild may hold them open); spawn_free may be called here */
};

#define SPAWN_PATH_MAX 4096
/* Where a program is, by PATH unless it has a slash: AMP_NOT_FOUND or AMP_DENIED, with a hint. What spawn_start would do, ahead of time. */
AMP_MUST_USE enum amp_code spawn_find(const char *program, char ret[SPAWN_PATH_MAX], struct amp_error *reterr);
/* AMP_NOT_FOUND: no such program (found before fork where possible, else from the child through a pipe), AMP_DENIED: not executable. */
AMP_MUST_USE enum amp_code spawn_start(struct loop *loop, const struct spawn_options *options, const struct spawn_handlers *handlers, void *ctx, struct spawn **ret,
                                       struct amp_error *reterr);
pid_t spawn_pid(const struct spawn *spawn);
/* Queues for its stdin. AMP_OVERLOADED over 64 MiB waiting. */
AMP_MUST_USE enum amp_code spawn_write(struct spawn *spawn, struct amp_bytes data);
size_t spawn_waiting(const struct spawn *spawn); /* bytes that it has not read */
void spawn_close_stdin(struct spawn *spawn); /* after what is queued */
void spawn_pause(struct spawn *spawn, bool is_paused); /* stop reading its stdout: it will block, which is the only honest brake */
void spawn_kill(struct spawn *spawn, int signo); /* the process group */
void spawn_free(struct spawn *spawn); /* SIGKILL to the group if it still runs; no callback after this. NULL is fine */
