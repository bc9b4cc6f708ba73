/* The report of an agent's end: from what the kernel said (spawn.h) to the wire form that goes to the callers, to every observer in a beat at once, and into the log. amp.md 9.3 */
#include "sidecar_private.h"

#include <string.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"

#define DEATH_BYTES_MAX (256u << 10)

void death_init(struct sidecar *sidecar)
{
    amp_arena_init(&sidecar->death.arena, DEATH_BYTES_MAX);
}

void death_done(struct sidecar *sidecar)
{
    amp_arena_done(&sidecar->death.arena);
}

static char **texts_copy(struct amp_arena *arena, const char *const *texts, size_t n, size_t *ret_n)
{
    char **copy = amp_arena_alloc(arena, (n + 1) * sizeof *copy);
    *ret_n = 0;
    for (size_t i = 0; copy && i < n; i++) {
        copy[*ret_n] = amp_arena_strdup(arena, amp_bytes_of(texts[i]));
        if (copy[*ret_n])
            ++*ret_n;
    }
    return copy;
}

static void fill(struct sidecar *sidecar, const struct spawn_exit *exit, Amp__Death *death)
{
    struct amp_arena *arena = &sidecar->death.arena;
    death->agent = sidecar->agent;
    death->instance = sidecar->instance;
    death->at = amp_arena_alloc(arena, sizeof *death->at);
    amp__timestamp__init(death->at);
    death->at->unix_ms = clock_unix_ms();
    death->has_exit_code = !exit->is_signal;
    death->exit_code = exit->exit_code;
    death->has_signal = exit->is_signal;
    death->signal = exit->signal;
    death->has_oom = death->oom = exit->is_oom;
    death->has_by_sidecar = death->by_sidecar = exit->is_ours;
    death->has_rss_max_bytes = death->has_cpu_ms = death->has_pid = death->has_uptime_ms = true;
    death->rss_max_bytes = exit->rss_max_bytes;
    death->cpu_ms = exit->cpu_ms;
    death->pid = exit->pid;
    death->uptime_ms = exit->uptime_ms;
}

static void tell(struct sidecar *sidecar, const struct spawn_exit *exit, size_t n_tasks)
{
    const char *last = exit->n_stderr_lines > 0 ? exit->stderr_lines[exit->n_stderr_lines - 1] : "";
    log_event(LOG_ERROR, "agent.died", "agent", sidecar->agent, "instance", sidecar->instance, "pid", log_int(exit->pid),
              exit->is_signal ? "signal" : "exit_code", log_int(exit->is_signal ? exit->signal : exit->exit_code), "oom", exit->is_oom ? "true" : "false",
              "by_sidecar", exit->is_ours ? "true" : "false", "tasks", log_int((long long)n_tasks), "stderr", last, NULL);
}

const Amp__Death *sidecar_agent_died(struct sidecar *sidecar, const struct spawn_exit *exit, struct task *const *tasks, size_t n_tasks)
{
    struct amp_arena *arena = &sidecar->death.arena;
    amp_arena_reset(arena);
    Amp__Death *death = amp_arena_alloc(arena, sizeof *death);
    const char *ids[AMP_INFLIGHT_TASKS_REPORTED];
    size_t n_ids = 0;
    amp__death__init(death);
    fill(sidecar, exit, death);
    for (size_t i = 0; i < n_tasks && n_ids < AMP_INFLIGHT_TASKS_REPORTED; i++)
        ids[n_ids++] = task_id(tasks[i]);
    death->stderr = texts_copy(arena, (const char *const *)exit->stderr_lines, exit->n_stderr_lines, &death->n_stderr);
    death->tasks = texts_copy(arena, ids, n_ids, &death->n_tasks);
    counter_add(COUNTER_agent_deaths, 1);
    tell(sidecar, exit, n_tasks);
    if (sidecar->is_open)
        beat_send(sidecar, false, death);
    return death;
}
