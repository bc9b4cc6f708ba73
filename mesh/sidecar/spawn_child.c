/* From a command to a process. Everything that allocates is done before vfork; the child makes system calls only: own process group, death with its parent, default
 * signals, its three descriptors and nothing else, exec. vfork shares memory, so why exec failed comes back in a variable.
 *
 * PR_SET_PDEATHSIG reaches the child itself, not what it started: after a kill -9 of the sidecar grandchildren live on unless the agent takes them along. */
#include "spawn_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"

#define FD_MAX_WITHOUT_CLOSE_RANGE 4096

struct plan {
    const char *path;
    char *const *argv;
    char **argv_sh; /* for a script without "#!": /bin/sh path arguments */
    char **envp;
    const int *stdio;
    int inherit_fd;
    pid_t parent;
    volatile int failed; /* errno of exec */
};

/* ---- before --------------------------------------------------------------------------------------------- */

static enum amp_code look(const char *path, bool *is_denied)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return AMP_NOT_FOUND;
    if (S_ISREG(info.st_mode) && access(path, X_OK) == 0)
        return AMP_OK;
    *is_denied = true;
    return AMP_DENIED;
}

enum amp_code spawn_find(const char *program, char ret[SPAWN_PATH_MAX], struct amp_error *reterr)
{
    bool is_denied = false;
    const char *dirs = getenv("PATH");
    if (strlen(program) == 0 || strlen(program) >= SPAWN_PATH_MAX / 2)
        return amp_error_set(reterr, AMP_NOT_FOUND, "", "there is no program of this name");
    (void)snprintf(ret, SPAWN_PATH_MAX, "%s", program);
    if (strchr(program, '/')) {
        if (look(program, &is_denied) == AMP_OK)
            return AMP_OK;
        dirs = "";
    }
    for (const char *dir = dirs ? dirs : "/usr/local/bin:/usr/bin:/bin"; *dir;) {
        size_t len = strcspn(dir, ":");
        int n = snprintf(ret, SPAWN_PATH_MAX, "%.*s/%s", len ? (int)len : 1, len ? dir : ".", program);
        if (n > 0 && n < SPAWN_PATH_MAX && look(ret, &is_denied) == AMP_OK)
            return AMP_OK;
        dir += len + (dir[len] == ':');
    }
    if (is_denied) {
        (void)amp_error_set(reterr, AMP_DENIED, "", "\"%s\" cannot be executed", program);
        amp_error_hint(reterr, "make it executable (chmod +x), or name its interpreter");
        return AMP_DENIED;
    }
    (void)amp_error_set(reterr, AMP_NOT_FOUND, "", "there is no program \"%s\"%s", program, strchr(program, '/') ? "" : " in PATH");
    amp_error_hint(reterr, "check the name, or give the path of the program");
    return AMP_NOT_FOUND;
}

static bool same_name(const char *entry, const char *other)
{
    size_t len = strcspn(entry, "=");
    return strncmp(entry, other, len) == 0 && other[len] == '=';
}

/* Ours, with the additions in place of those of the same name; "K=" takes K away. Borrows all strings. */
static char **env_merge(char *const *add)
{
    size_t n = 0, n_add = 0, out = 0;
    while (environ && environ[n])
        n++;
    while (add && add[n_add])
        n_add++;
    char **merged = xcalloc(n + n_add + 1, sizeof *merged);
    for (size_t i = 0; i < n; i++) {
        bool is_replaced = false;
        for (size_t j = 0; j < n_add && !is_replaced; j++)
            is_replaced = same_name(add[j], environ[i]);
        if (!is_replaced)
            merged[out++] = environ[i];
    }
    for (size_t j = 0; j < n_add; j++)
        if (add[j][strcspn(add[j], "=")] == '=' && add[j][strcspn(add[j], "=") + 1] != '\0')
            merged[out++] = add[j];
    return merged;
}

static char **argv_for_sh(const char *path, char *const *argv)
{
    size_t n = 0;
    while (argv[n])
        n++;
    char **list = xcalloc(n + 2, sizeof *list);
    list[0] = (char *)"/bin/sh";
    list[1] = (char *)path;
    for (size_t i = 1; i < n; i++)
        list[i + 1] = argv[i];
    return list;
}

/* ---- in the child: system calls only -------------------------------------------------------------------------- */

static void close_between(unsigned first, unsigned last)
{
    if (first > last)
        return;
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, last, 0) == 0)
        return;
#endif
    for (unsigned fd = first; fd <= last && fd < FD_MAX_WITHOUT_CLOSE_RANGE; fd++)
        (void)close((int)fd);
}

static void child_descriptors(const struct plan *plan)
{
    int sources[] = {plan->stdio[0], plan->stdio[1], plan->stdio[2], plan->inherit_fd}, moved[4];
    int n = plan->inherit_fd >= 0 ? 4 : 3;
    for (int i = 0; i < n; i++) /* above the targets first: a source may be where a target goes */
        moved[i] = fcntl(sources[i], F_DUPFD, 16);
    for (int i = 0; i < n; i++)
        (void)dup2(moved[i], i);
    close_between((unsigned)n, ~0u);
    int flags = n > SPAWN_INHERITED_FD ? fcntl(SPAWN_INHERITED_FD, F_GETFL) : -1;
    if (flags >= 0)
        (void)fcntl(SPAWN_INHERITED_FD, F_SETFL, flags & ~O_NONBLOCK);
}

#define SIGNAL_SET_BYTES 8 /* of the kernel */

static void child_signals(void)
{
    static const unsigned long none_set[8] = {0}; /* the kernel's own form of the same */
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int signo = 1; signo < 65; signo++)
        if (sigaction(signo, &standard, NULL) != 0) /* those that the C library keeps to itself can be inherited as ignored, too */
            (void)syscall(SYS_rt_sigaction, signo, none_set, NULL, SIGNAL_SET_BYTES);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_run(struct plan *plan)
{
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan->parent)
        _exit(127); /* it died before we asked to be told */
    child_descriptors(plan);
    child_signals();
    (void)execve(plan->path, plan->argv, plan->envp);
    if (errno == ENOEXEC)
        (void)execve("/bin/sh", plan->argv_sh, plan->envp);
    plan->failed = errno;
    _exit(127);
}

/* A function of its own, so that nothing of the caller lives in registers across vfork. Signals wait meanwhile: a handler of ours must not run in the child. */
__attribute__((noinline)) static pid_t child_start(struct plan *plan)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = vfork();
    if (pid == 0)
        child_run(plan);
    int saved = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}

enum amp_code spawn_child(const struct spawn_options *options, const int stdio[3], pid_t *ret_pid, struct amp_error *reterr)
{
    char path[SPAWN_PATH_MAX];
    enum amp_code code = spawn_find(options->argv[0], path, reterr);
    if (code != AMP_OK)
        return code;
    struct plan plan = {.path = path, .argv = options->argv, .argv_sh = argv_for_sh(path, options->argv), .envp = env_merge(options->env_add), .stdio = stdio,
                        .inherit_fd = options->inherit_fd, .parent = getpid()};
    pid_t pid = child_start(&plan);
    int failed = pid < 0 ? errno : plan.failed;
    free(plan.argv_sh);
    free(plan.envp);
    if (failed == 0) {
        *ret_pid = pid;
        return AMP_OK;
    }
    if (pid > 0)
        (void)spawn_reap(pid);
    if (failed == ENOENT)
        return amp_error_set(reterr, AMP_NOT_FOUND, "", "\"%s\" cannot be started: its interpreter is missing", path);
    if (failed == EACCES)
        return amp_error_set(reterr, AMP_DENIED, "", "\"%s\" cannot be started: %s", path, strerror(failed));
    return amp_error_set(reterr, failed == E2BIG ? AMP_TOO_LARGE : AMP_INTERNAL, "", "\"%s\" cannot be started: %s", path, strerror(failed));
}
