/* What the programs of the storm share: the trace, which every caller replays on one clock, what an agent does with one of its tasks, and the agents' logs. bench/storm.py makes the
 * trace and counts. A trace is a text file with a line `ARRIVAL_NS CALLER SERVICE_NS` per task, by arrival. */
#pragma once
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/prctl.h>

#include "measure.h"

#define STORM_CALLERS_MAX 16u
#define STORM_QUIET_NS 10000000000LL /* nothing ended for so long after the last arrival: what is missing is lost */
#define STORM_BACKOFF_MIN_NS 5000000LL /* of a caller that was told 429 */
#define STORM_BACKOFF_MAX_NS 250000000LL
#define STORM_BUSY "429"

/* ---- callers -------------------------------------------------------------------------------------------------- */

enum storm_state { STORM_COMING, STORM_SENT, STORM_WAITING, STORM_DONE, STORM_FAILED };

struct storm_task {
    int64_t arrival_ns, service_ns; /* arrival: on the trace's clock */
    unsigned caller;
    enum storm_state state;
    unsigned retries, server;
    int64_t due_ns, backoff_ns; /* WAITING, on the machine's clock */
    int64_t ended_ns;
};

struct storm {
    struct storm_task *tasks;
    size_t n, n_callers, n_arrived, n_waiting, n_ended;
    int64_t start_ns, last_ns; /* when the trace began; when something happened last */
};

static inline void storm_read(struct storm *storm, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        exit(1);
    }
    size_t max = 0;
    struct storm_task task = {.backoff_ns = STORM_BACKOFF_MIN_NS};
    while (fscanf(file, "%ld %u %ld", &task.arrival_ns, &task.caller, &task.service_ns) == 3 && task.caller < STORM_CALLERS_MAX) {
        if (storm->n == max)
            storm->tasks = realloc(storm->tasks, (max = max ? max * 2 : 1024) * sizeof *storm->tasks);
        storm->tasks[storm->n++] = task;
        if (storm->n_callers <= task.caller)
            storm->n_callers = task.caller + 1;
    }
    fclose(file);
}

/* The trace begins a moment after its reader is ready. */
static inline void storm_start(struct storm *storm)
{
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    storm->start_ns = storm->last_ns = measure_now_ns() + 20000000;
    printf("started %ld\n", storm->start_ns);
    fflush(stdout);
}

static inline size_t storm_text(const struct storm *storm, size_t id, char *out, size_t size)
{
    return (size_t)snprintf(out, size, "%zu %ld %ld", id, storm->tasks[id].service_ns, storm->start_ns);
}

static inline void storm_end(struct storm *storm, size_t id, enum storm_state state)
{
    struct storm_task *task = &storm->tasks[id];
    if (id >= storm->n || task->state == STORM_DONE || task->state == STORM_FAILED)
        return;
    task->state = state;
    task->ended_ns = storm->last_ns = measure_now_ns();
    storm->n_ended++;
}

/* The callee said 429, or is not there: again a little later, with a wait that doubles. */
static inline void storm_again(struct storm *storm, size_t id, bool is_at_once)
{
    struct storm_task *task = &storm->tasks[id];
    if (id >= storm->n || task->state != STORM_SENT)
        return;
    task->state = STORM_WAITING;
    task->retries++;
    storm->n_waiting++;
    task->due_ns = measure_now_ns();
    if (is_at_once)
        return;
    task->due_ns += task->backoff_ns;
    if (task->backoff_ns < STORM_BACKOFF_MAX_NS)
        task->backoff_ns *= 2;
}

/* Sends what is due with `send` and returns when the next one is; 0: it is all over. */
static inline int64_t storm_step(struct storm *storm, void (*send)(struct storm *storm, size_t id))
{
    int64_t now = measure_now_ns(), next = INT64_MAX;
    for (; storm->n_arrived < storm->n && storm->start_ns + storm->tasks[storm->n_arrived].arrival_ns <= now; storm->n_arrived++) {
        storm->tasks[storm->n_arrived].state = STORM_SENT;
        storm->last_ns = now;
        send(storm, storm->n_arrived);
    }
    if (storm->n_arrived < storm->n)
        next = storm->start_ns + storm->tasks[storm->n_arrived].arrival_ns;
    for (size_t i = 0, left = storm->n_waiting; left > 0 && i < storm->n_arrived; i++) {
        struct storm_task *task = &storm->tasks[i];
        if (task->state != STORM_WAITING)
            continue;
        left--;
        if (task->due_ns <= now) {
            task->state = STORM_SENT;
            storm->n_waiting--;
            send(storm, i);
        } else if (task->due_ns < next) {
            next = task->due_ns;
        }
    }
    if (storm->n_ended == storm->n || now - storm->last_ns > STORM_QUIET_NS)
        return 0;
    return next < now + STORM_QUIET_NS / 10 ? next : now + STORM_QUIET_NS / 10;
}

/* A line per task: `d|f|l COMPLETION_NS RETRIES`, done, failed or lost. */
static inline void storm_write(const struct storm *storm, const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
        exit(1);
    }
    for (size_t i = 0; i < storm->n; i++) {
        const struct storm_task *task = &storm->tasks[i];
        fprintf(file, "%c %ld %u\n", task->state == STORM_DONE ? 'd' : task->state == STORM_FAILED ? 'f' : 'l', task->ended_ns - storm->start_ns - task->arrival_ns, task->retries);
    }
    fclose(file);
}

/* ---- agents --------------------------------------------------------------------------------------------------- */

/* LOG SLOW_FROM_MS SLOW_FACTOR BUSY_FROM_MS BUSY_UNTIL_MS: on the trace's clock, -1 for never. */
#define STORM_AGENT_ARGS 5

struct storm_agent {
    int log_fd;
    int64_t start_ns; /* of the trace, once a task has said so */
    int64_t slow_from_ns, slow_factor, busy_from_ns, busy_until_ns;
};

static inline void storm_agent_init(struct storm_agent *agent, char **args)
{
    int64_t numbers[4];
    for (int i = 0; i < 4; i++)
        numbers[i] = strtol(args[i + 1], NULL, 10);
    *agent = (struct storm_agent){
        .log_fd = open(args[0], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600),
        .slow_from_ns = numbers[0] < 0 ? INT64_MAX : numbers[0] * 1000000,
        .slow_factor = numbers[1],
        .busy_from_ns = numbers[2] < 0 ? INT64_MAX : numbers[2] * 1000000,
        .busy_until_ns = numbers[3] * 1000000,
    };
    if (agent->log_fd < 0) {
        perror(args[0]);
        exit(1);
    }
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
}

/* What happened to a task, and when: b (busy, not taken), s (begun), c (cancelled), d (done). One write: it stands in the file also if this process is killed in the next moment. */
static inline void storm_log(const struct storm_agent *agent, char what, size_t id)
{
    char line[64];
    int len = snprintf(line, sizeof line, "%c %zu %ld\n", what, id, measure_now_ns() - agent->start_ns);
    if (write(agent->log_fd, line, (size_t)len) != len)
        perror("log");
}

/* When the task is done; 0: this agent is busy and does not take it; -1: it is none of ours. */
static inline int64_t storm_begin(struct storm_agent *agent, const char *text, size_t *ret_id)
{
    int64_t service_ns, start_ns, now = measure_now_ns();
    if (sscanf(text, "%zu %ld %ld", ret_id, &service_ns, &start_ns) != 3)
        return -1;
    agent->start_ns = start_ns;
    if (now - start_ns >= agent->busy_from_ns && now - start_ns < agent->busy_until_ns) {
        storm_log(agent, 'b', *ret_id);
        return 0;
    }
    storm_log(agent, 's', *ret_id);
    return now + service_ns * (now - start_ns >= agent->slow_from_ns ? agent->slow_factor : 1);
}

/* What is left until then, for ppoll. */
static inline struct timespec storm_left(int64_t until_ns)
{
    int64_t left = until_ns - measure_now_ns();
    if (left < 0)
        left = 0;
    return (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
}
