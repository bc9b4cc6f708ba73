/* Mode exec: one process per task (local-api.md 6). The prompt on stdin, stdout is the answer while it is written, the exit status is the outcome. A process that is
 * too fast for the bus is not read for a while: its write blocks, which is the only honest brake. */
#include "sidecar_private.h"
#include "worker_exec_files.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/alloc.h"
#include "base/loop.h"

#define REASON_LINES 10u   /* of stderr in the reason of a failure */
#define READ_MAX (64u << 10)

struct worker_exec;
struct job {
    struct job *next;
    struct worker_exec *worker;
    struct task *task;
    struct spawn *spawn;
    struct loop_timer *kill;
    struct task_room room;  /* waits while the process is not read */
    struct exec_utf8 utf8;
    size_t bytes;
    char *out;              /* AMESH_OUT; "": there is none */
};

struct worker_exec {
    struct worker base;
    char *const *argv;
    struct job *jobs;
    struct amp_buf text;   /* a piece of stdout, made valid */
    bool is_stopping;
    void (*on_stopped)(void *ctx);
    void *ctx;
};

/* ---- text ------------------------------------------------------------------------------------------------ */

/* Length of the character that begins with `lead`; 0: nothing begins so. */
static size_t utf8_len(uint8_t lead)
{
    return lead == 0 ? 0 : lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

/* Can these 1…3 bytes be the beginning of a character? */
static bool utf8_may_begin(const uint8_t *data, size_t len)
{
    if (utf8_len(data[0]) <= len)
        return false;
    if (len > 1) {
        uint8_t low = data[0] == 0xE0 ? 0xA0 : data[0] == 0xF0 ? 0x90 : 0x80;
        uint8_t high = data[0] == 0xED ? 0x9F : data[0] == 0xF4 ? 0x8F : 0xBF;
        if (data[1] < low || data[1] > high)
            return false;
    }
    return len < 3 || (data[2] & 0xC0) == 0x80;
}

static void utf8_walk(struct exec_utf8 *state, struct amp_bytes data, bool is_end, struct amp_buf *out)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    size_t i = 0, good = 0; /* data[good…i) is valid and not yet appended */
    while (i < data.len) {
        size_t len = utf8_len(data.data[i]), left = data.len - i;
        if (len > 0 && len <= left && (len == 1 || amp_utf8_is_valid((struct amp_bytes){.data = data.data + i, .len = len}))) {
            i += len;
            continue;
        }
        (void)amp_buf_append(out, data.data + good, i - good);
        if (!is_end && len > left && utf8_may_begin(data.data + i, left)) {
            memcpy(state->tail, data.data + i, left);
            state->n = left;
            return;
        }
        (void)amp_buf_append(out, replacement, 3);
        good = ++i;
    }
    (void)amp_buf_append(out, data.data + good, i - good);
}

void exec_utf8_feed(struct exec_utf8 *state, struct amp_bytes data, bool is_end, struct amp_buf *out)
{
    /* A held beginning and enough bytes for its rest go first, as a piece of their own. */
    while (state->n > 0 && (data.len > 0 || is_end)) {
        uint8_t piece[4];
        size_t n = state->n, need = utf8_len(state->tail[0]);
        memcpy(piece, state->tail, n);
        while (n < need && data.len > 0 && (data.data[0] & 0xC0) == 0x80) {
            piece[n++] = *data.data++;
            data.len--;
        }
        state->n = 0;
        utf8_walk(state, (struct amp_bytes){.data = piece, .len = n}, is_end || data.len > 0, out);
    }
    if (data.len > 0)
        utf8_walk(state, data, is_end, out);
}

/* ---- one process --------------------------------------------------------------------------------------------- */

static void job_free(struct job *job)
{
    struct worker_exec *worker = job->worker;
    struct job **at = &worker->jobs;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    spawn_free(job->spawn);
    loop_timer_free(job->kill);
    task_room_cancel(&job->room);
    free(job->out);
    free(job);
    sidecar_set_agent_pid(worker->base.sidecar, worker->jobs ? spawn_pid(worker->jobs->spawn) : 0);
}

static void job_terminate(struct job *job)
{
    spawn_kill(job->spawn, SIGTERM);
    spawn_pause(job->spawn, false);
    task_room_cancel(&job->room);
    if (!loop_timer_is_set(job->kill))
        loop_timer_set(job->kill, SIDECAR_CANCEL_MS);
}

static void job_text(struct job *job, struct amp_bytes data, bool is_end)
{
    struct amp_buf *text = &job->worker->text;
    struct amp_error err;
    amp_buf_reset(text);
    exec_utf8_feed(&job->utf8, data, is_end, text);
    if (text->len > 0 && !task_is_over(job->task) && !task_is_canceled(job->task) && task_text(job->task, amp_buf_bytes(text), &err) != AMP_OK)
        job_terminate(job); /* the refusal has ended the task */
}

static void on_stdout(void *ctx, struct amp_bytes data)
{
    struct job *job = ctx;
    struct amp_error err;
    job->bytes += data.len;
    if (job->bytes > AMP_FOLD_BYTES_MAX && !task_is_over(job->task)) {
        (void)amp_error_set(&err, AMP_TOO_LARGE, "stdout", "the answer is over %u bytes long", AMP_FOLD_BYTES_MAX);
        task_close(job->task, AMP__TASK_STATE__TASK_STATE_FAILED, &err);
        spawn_kill(job->spawn, SIGKILL);
    }
    job_text(job, data, data.len == 0);
    if (task_is_full(job->task) && !job->room.task) {
        spawn_pause(job->spawn, true);
        task_room_wait(job->task, &job->room);
    }
}

static void on_room(void *ctx)
{
    struct job *job = ctx;
    spawn_pause(job->spawn, false);
}

static void on_kill(void *ctx)
{
    struct job *job = ctx;
    spawn_kill(job->spawn, SIGKILL);
}

/* "last lines\n(exit status 3)"; the caller frees it. */
static char *reason_make(const struct spawn_exit *exit)
{
    struct amp_buf out;
    amp_buf_init(&out, (REASON_LINES + 1) * (AMP_STDERR_LINE_MAX + 1) + 64);
    size_t first = exit->n_stderr_lines > REASON_LINES ? exit->n_stderr_lines - REASON_LINES : 0;
    for (size_t i = first; i < exit->n_stderr_lines; i++)
        (void)amp_buf_printf(&out, "%s\n", exit->stderr_lines[i]);
    (void)amp_buf_printf(&out, "(exit status %d%s)", exit->exit_code, exit->n_stderr_lines == 0 ? ", nothing on stderr" : "");
    char *text = xstrndup((const char *)out.data, out.len);
    amp_buf_done(&out);
    return text;
}

static void finish_killed(struct job *job, const struct spawn_exit *exit)
{
    struct task_outcome outcome = {.state = AMP__TASK_STATE__TASK_STATE_FAILED};
    const char *name = sigabbrev_np(exit->signal);
    outcome.death = sidecar_agent_died(job->worker->base.sidecar, exit, &job->task, 1);
    (void)amp_error_set(&outcome.error, AMP_AGENT_DIED, "", "the agent's process %d was killed by signal %d (SIG%s)%s%s%s", exit->pid, exit->signal, name ? name : "?",
                        exit->is_oom ? ": the kernel was out of memory" : exit->is_ours ? " by its sidecar" : "", exit->n_stderr_lines > 0 ? "; its last words: " : "",
                        exit->n_stderr_lines > 0 ? exit->stderr_lines[exit->n_stderr_lines - 1] : "");
    task_finish(job->task, &outcome);
}

static void finish(struct job *job, const struct spawn_exit *exit)
{
    struct task_outcome outcome = {.state = AMP__TASK_STATE__TASK_STATE_COMPLETED};
    char *reason = NULL;
    if (task_is_canceled(job->task) || task_is_over(job->task)) {
        outcome.state = AMP__TASK_STATE__TASK_STATE_CANCELED;
    } else if (exit->is_signal) {
        finish_killed(job, exit);
        return;
    } else if (exit->exit_code == EX_TEMPFAIL && job->bytes == 0) {
        outcome.state = AMP__TASK_STATE__TASK_STATE_FAILED;
        (void)amp_error_set(&outcome.error, AMP_BUSY, "", "the agent can take nothing now%s%s", exit->n_stderr_lines > 0 ? ": " : "", exit->n_stderr_lines > 0 ? exit->stderr_lines[exit->n_stderr_lines - 1] : " (exit status 75)");
    } else if (exit->exit_code != 0) {
        outcome.state = AMP__TASK_STATE__TASK_STATE_FAILED;
        outcome.reason = reason = reason_make(exit);
    } else if (exec_files_give(job->task, job->out, &outcome.error) != AMP_OK) {
        outcome.state = AMP__TASK_STATE__TASK_STATE_FAILED;
    }
    task_finish(job->task, &outcome);
    free(reason);
}

static void stopped(struct worker_exec *worker)
{
    if (worker->is_stopping && !worker->jobs && worker->on_stopped) {
        void (*on_stopped)(void *ctx) = worker->on_stopped;
        worker->on_stopped = NULL;
        on_stopped(worker->ctx);
    }
}

static void on_exited(void *ctx, const struct spawn_exit *exit)
{
    struct job *job = ctx;
    struct worker_exec *worker = job->worker;
    job_text(job, (struct amp_bytes){0}, true);
    finish(job, exit);
    job_free(job);
    stopped(worker);
}

/* ---- what the sidecar asks -------------------------------------------------------------------------------------- */

static enum amp_code job_start(struct job *job, struct amp_error *reterr)
{
    static const struct spawn_handlers handlers = {.on_stdout = on_stdout, .on_exit = on_exited};
    struct sidecar *sidecar = job->worker->base.sidecar;
    char **env = sidecar_env_new(sidecar, job->task);
    const struct spawn_options options = {.argv = job->worker->argv, .env_add = env, .pipe_stdio = true, .inherit_fd = -1, .echo_stderr = true};
    enum amp_code code = exec_files_begin(sidecar, job->task, &env[SIDECAR_ENV_IN], &env[SIDECAR_ENV_OUT], reterr);
    job->out = xstrdup(strchr(env[SIDECAR_ENV_OUT], '=') + 1);
    if (code == AMP_OK)
        code = spawn_start(sidecar_loop(sidecar), &options, &handlers, job, &job->spawn, reterr);
    sidecar_env_free(env);
    if (code != AMP_OK)
        return code;
    struct amp_buf prompt;
    amp_buf_init(&prompt, AMP_WIRE_BYTES_MAX);
    code = amp_message_text(task_message(job->task), &prompt);
    if (code == AMP_OK)
        code = spawn_write(job->spawn, amp_buf_bytes(&prompt));
    amp_buf_done(&prompt);
    if (code != AMP_OK)
        return amp_error_set(reterr, code, "message", "the task's text does not fit on the program's stdin");
    spawn_close_stdin(job->spawn);
    sidecar_set_agent_pid(sidecar, spawn_pid(job->spawn));
    return AMP_OK;
}

static void exec_run(struct worker *base, struct task *task)
{
    struct worker_exec *worker = (struct worker_exec *)base;
    struct loop *loop = sidecar_loop(base->sidecar);
    struct job *job = xcalloc(1, sizeof *job);
    *job = (struct job){.next = worker->jobs, .worker = worker, .task = task};
    job->kill = loop_timer_new(loop, on_kill, job);
    job->room = (struct task_room){.on_room = on_room, .ctx = job};
    worker->jobs = job;
    task_set_data(task, job);
    struct task_outcome outcome = {.state = AMP__TASK_STATE__TASK_STATE_FAILED};
    if (job_start(job, &outcome.error) == AMP_OK)
        return;
    task_finish(task, &outcome);
    job_free(job);
}

static void exec_cancel(struct worker *base, struct task *task, const char *reason)
{
    struct job *job = task_data(task);
    if (job && job->spawn)
        job_terminate(job);
}

static void exec_drain(struct worker *base)
{
    /* each process knows one task only */
}

static void exec_stop(struct worker *base, void (*on_stopped)(void *ctx), void *ctx)
{
    struct worker_exec *worker = (struct worker_exec *)base;
    worker->is_stopping = true;
    worker->on_stopped = on_stopped;
    worker->ctx = ctx;
    for (struct job *job = worker->jobs; job; job = job->next)
        job_terminate(job);
    stopped(worker);
}

static void exec_free(struct worker *base)
{
    struct worker_exec *worker = (struct worker_exec *)base;
    while (worker->jobs)
        job_free(worker->jobs);
    amp_buf_done(&worker->text);
    free(worker);
}

static pid_t exec_pid(struct worker *base, const struct task *task)
{
    const struct job *job = task_data((struct task *)task);
    (void)base;
    return job && job->spawn ? spawn_pid(job->spawn) : 0;
}

static const struct worker_ops exec_ops = {.run = exec_run, .cancel = exec_cancel, .pid = exec_pid, .drain = exec_drain, .stop = exec_stop, .free = exec_free};

struct worker *worker_exec_new(struct sidecar *sidecar, char *const *argv)
{
    struct worker_exec *worker = xcalloc(1, sizeof *worker);
    worker->base = (struct worker){.ops = &exec_ops, .sidecar = sidecar};
    worker->argv = argv;
    amp_buf_init(&worker->text, 3 * READ_MAX + 16); /* each byte becomes at most three */
    sidecar_set_slots(sidecar, sidecar_options(sidecar)->slots);
    return &worker->base;
}
