/* Agents that stand still: their process is stopped (somebody sent SIGSTOP, or a terminal did), or they say nothing for longer than the operator allows. Nothing else
 * tells: the process lives, and its sidecar answers for it. The attempt ends as `hung`, the agent is told to stop and then killed. amp.md 10.7.7 */
#include "task_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/seeded.h"

#define LOOK_MS 1000u
#define LOOK_MIN_MS 50u
#define STOPPED_MS 3000u /* of a task without a lease */

/* "T" in /proc/<pid>/stat. One that a debugger holds ("t") is looked at by somebody. */
static bool is_stopped(pid_t pid)
{
    char path[32], text[256];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t len = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[len > 0 ? len : 0] = '\0';
    const char *name_end = strrchr(text, ')');
    return name_end && strncmp(name_end, ") T", 3) == 0;
}

static uint32_t look_ms(const struct sidecar *sidecar)
{
    uint32_t quarter = sidecar->options.progress_timeout_ms / 4;
    if (quarter == 0 || quarter > LOOK_MS)
        return LOOK_MS;
    return quarter < LOOK_MIN_MS ? LOOK_MIN_MS : quarter;
}

static void hung(struct task *task, const char *what, int64_t for_ms)
{
    struct amp_error err;
    (void)amp_error_set(&err, AMP_HUNG, "", "%s of instance %s %s for %lld ms while it worked on task %s", task->sidecar->agent, task->sidecar->instance, what, (long long)for_ms,
                        task_id(task));
    (void)task_fail(task, &err, NULL);
}

/* Its process, which was looked at already for another task of it. */
static void look_at(struct task *task, bool is_process_stopped, int64_t now)
{
    uint32_t most_ms = task_is_leased(task) ? task->lease.ms : STOPPED_MS, silence_ms = task->sidecar->options.progress_timeout_ms;
    if (!is_process_stopped)
        task->stopped_ms = 0;
    else if (task->stopped_ms == 0)
        task->stopped_ms = now;
    if (task->n_questions > 0 || task->is_blocked || task_files_is_busy(task))
        task->progress_ms = now; /* it waits for somebody else */
    if (task->stopped_ms && now - task->stopped_ms >= most_ms)
        hung(task, "has been stopped", now - task->stopped_ms);
    else if (silence_ms && !SEEDED_BUG("unseen-hang") && now - task->progress_ms >= silence_ms)
        hung(task, "has said nothing", now - task->progress_ms);
}

/* Nothing that it is given now would be worked on: others are to have it. */
static void set_stuck(struct sidecar *sidecar, bool is_stuck)
{
    if (is_stuck == (sidecar->stuck != NULL))
        return;
    sidecar->stuck = is_stuck ? "its agent's process is stopped" : NULL;
    if (is_stuck)
        counter_add(COUNTER_instance_stuck, 1);
    log_event(is_stuck ? LOG_WARN : LOG_INFO, is_stuck ? "agent.stuck" : "agent.moves", "agent", sidecar->agent, "instance", sidecar->instance, NULL);
    sidecar_touch(sidecar);
}

/* Of a program per task only that task stands still. */
static pid_t own_process(const struct sidecar *sidecar)
{
    return sidecar->worker && !sidecar->worker->ops->pid ? sidecar->agent_pid : 0;
}

static void on_look(void *ctx)
{
    struct sidecar *sidecar = ctx;
    struct task *task, *next;
    struct worker *worker = sidecar->worker;
    pid_t own = own_process(sidecar), last = own;
    bool is_last_stopped = own > 0 && is_stopped(own), is_any = own > 0;
    int64_t now = loop_now_ms(sidecar->loop);
    set_stuck(sidecar, is_last_stopped);
    HASH_ITER(hh, sidecar->tasks.by_id, task, next) {
        if (!worker || !task->is_running || task->is_canceled || task->stream.is_ended)
            continue;
        pid_t pid = worker->ops->pid ? worker->ops->pid(worker, task) : sidecar->agent_pid;
        if (pid != last)
            is_last_stopped = pid > 0 && is_stopped(pid);
        last = pid;
        is_any = true;
        look_at(task, is_last_stopped, now);
    }
    if (is_any)
        loop_timer_set(sidecar->tasks.look, look_ms(sidecar));
}

void task_hung_init(struct sidecar *sidecar)
{
    sidecar->tasks.look = loop_timer_new(sidecar->loop, on_look, sidecar);
}

void task_hung_look(struct sidecar *sidecar)
{
    if (!loop_timer_is_set(sidecar->tasks.look))
        loop_timer_set(sidecar->tasks.look, look_ms(sidecar));
}

void task_hung_watch(struct task *task)
{
    struct sidecar *sidecar = task->sidecar;
    task->progress_ms = loop_now_ms(sidecar->loop);
    task->stopped_ms = 0;
    task_hung_look(sidecar);
}

void task_hung_done(struct sidecar *sidecar)
{
    loop_timer_free(sidecar->tasks.look);
}
