/* Real processes: /bin/sh. Nothing sleeps here; the loop runs until on_exit or on_stdout says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/loop.h"
#include "sidecar/spawn_private.h"

enum { STOP_EXIT = 1, STOP_LATE, STOP_OUTPUT };

struct child {
    struct loop *loop;
    struct loop_timer *late;
    struct spawn *spawn;
    struct amp_buf out;
    size_t stop_at;
    struct spawn_exit exit;
    char lines[AMP_STDERR_LINES_MAX][AMP_STDERR_LINE_MAX + 1];
    bool is_eof;
};

static void on_stdout(void *ctx, struct amp_bytes data)
{
    struct child *child = ctx;
    assert_false(child->is_eof);
    child->is_eof = data.len == 0;
    (void)amp_buf_append(&child->out, data.data, data.len);
    if (child->stop_at > 0 && child->out.len >= child->stop_at) {
        child->stop_at = 0;
        loop_stop(child->loop, STOP_OUTPUT);
    }
}

static void on_exit_said(void *ctx, const struct spawn_exit *exit)
{
    struct child *child = ctx;
    child->exit = *exit;
    for (size_t i = 0; i < exit->n_stderr_lines; i++)
        (void)snprintf(child->lines[i], sizeof(child->lines[i]), "%s", exit->stderr_lines[i]);
    spawn_free(child->spawn);
    child->spawn = NULL;
    loop_stop(child->loop, STOP_EXIT);
}

static void on_late(void *ctx)
{
    struct child *child = ctx;
    loop_stop(child->loop, STOP_LATE);
}

static const struct spawn_handlers handlers = {.on_stdout = on_stdout, .on_exit = on_exit_said};

static int setup(void **state)
{
    struct child *child = calloc(1, sizeof *child);
    child->loop = loop_new();
    child->late = loop_timer_new(child->loop, on_late, child);
    amp_buf_init(&child->out, 64u << 20);
    *state = child;
    return 0;
}

static int teardown(void **state)
{
    struct child *child = *state;
    spawn_free(child->spawn);
    loop_timer_free(child->late);
    loop_free(child->loop);
    amp_buf_done(&child->out);
    free(child);
    return 0;
}

static enum amp_code start(struct child *child, char *const *argv, char *const *env, struct amp_error *err)
{
    const struct spawn_options options = {.argv = argv, .env_add = env, .pipe_stdio = true, .inherit_fd = -1};
    return spawn_start(child->loop, &options, &handlers, child, &child->spawn, err);
}

static void start_sh(struct child *child, const char *script)
{
    struct amp_error err;
    assert_int_equal(start(child, (char *const[]){(char *)"sh", (char *)"-c", (char *)script, NULL}, NULL, &err), AMP_OK);
}

static void run(struct child *child, int wanted)
{
    loop_timer_set(child->late, 20000);
    assert_int_equal(loop_run(child->loop), wanted);
    loop_timer_stop(child->late);
}

static void assert_output(struct child *child, const char *text)
{
    assert_int_equal(child->out.len, strlen(text));
    assert_memory_equal(child->out.data, text, child->out.len);
}

/* Gone, or a zombie that init has not collected yet. */
static bool is_dead(pid_t pid)
{
    char path[64], text[512] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return true;
    bool dead = fgets(text, sizeof(text), file) && strstr(text, ") Z ");
    (void)fclose(file);
    return dead;
}

/* SIGKILL was sent to it; a process that lives on meets the test's own time limit. */
static void await_death(pid_t pid)
{
    while (!is_dead(pid))
        (void)sched_yield();
}

/* ---- claims -------------------------------------------------------------------------------------------------- */

static void test_an_exit_status_and_all_output_are_told(void **state)
{
    struct child *child = *state;
    start_sh(child, "echo out; echo one >&2; echo two >&2; exit 7");
    run(child, STOP_EXIT);
    assert_false(child->exit.is_signal);
    assert_int_equal(child->exit.exit_code, 7);
    assert_output(child, "out\n");
    assert_true(child->is_eof);
    assert_int_equal(child->exit.n_stderr_lines, 2);
    assert_string_equal(child->lines[0], "one");
    assert_string_equal(child->lines[1], "two");
    assert_true(child->exit.rss_max_bytes > 0);
}

static void test_a_signal_is_told_and_is_not_called_out_of_memory(void **state)
{
    struct child *child = *state;
    start_sh(child, "kill -9 $$");
    run(child, STOP_EXIT);
    assert_true(child->exit.is_signal);
    assert_int_equal(child->exit.signal, SIGKILL);
    assert_false(child->exit.is_oom);
    assert_false(child->exit.is_ours);
}

static void test_a_signal_of_ours_is_told_as_ours(void **state)
{
    struct child *child = *state;
    start_sh(child, "exec sleep 60");
    spawn_kill(child->spawn, SIGTERM);
    run(child, STOP_EXIT);
    assert_int_equal(child->exit.signal, SIGTERM);
    assert_true(child->exit.is_ours);
}

static void test_stderr_keeps_its_last_lines_cut_and_harmless(void **state)
{
    struct child *child = *state;
    start_sh(child, "i=0; while [ $i -lt 120 ]; do echo line $i >&2; i=$((i+1)); done; head -c 3000 /dev/zero | tr '\\0' x >&2; echo >&2; printf 'bad \\033[31m \\377 end' >&2");
    run(child, STOP_EXIT);
    assert_int_equal(child->exit.n_stderr_lines, AMP_STDERR_LINES_MAX);
    assert_string_equal(child->lines[0], "line 72");
    assert_int_equal(strlen(child->lines[48]), AMP_STDERR_LINE_MAX);
    assert_string_equal(child->lines[49], "bad \\u{1B}[31m \xEF\xBF\xBD end");
}

static void test_stdin_arrives_whole_and_closes(void **state)
{
    struct child *child = *state;
    static char text[3 << 20];
    memset(text, 'y', sizeof(text));
    start_sh(child, "wc -c");
    assert_int_equal(spawn_write(child->spawn, (struct amp_bytes){.data = (const uint8_t *)text, .len = sizeof(text)}), AMP_OK);
    spawn_close_stdin(child->spawn);
    run(child, STOP_EXIT);
    assert_output(child, "3145728\n");
}

static void test_a_child_need_not_read_its_stdin(void **state)
{
    struct child *child = *state;
    static char text[3 << 20];
    start_sh(child, "exec <&-; echo ok");
    assert_int_equal(spawn_write(child->spawn, (struct amp_bytes){.data = (const uint8_t *)text, .len = sizeof(text)}), AMP_OK);
    spawn_close_stdin(child->spawn);
    run(child, STOP_EXIT);
    assert_int_equal(child->exit.exit_code, 0);
    assert_output(child, "ok\n");
}

static void test_too_much_for_stdin_is_refused(void **state)
{
    struct child *child = *state;
    static char text[4 << 20];
    enum amp_code code = AMP_OK;
    start_sh(child, "exec sleep 1000");
    for (int i = 0; i < 17 && code == AMP_OK; i++)
        code = spawn_write(child->spawn, (struct amp_bytes){.data = (const uint8_t *)text, .len = sizeof(text)});
    assert_int_equal(code, AMP_OVERLOADED);
    assert_true(spawn_waiting(child->spawn) <= 64u << 20);
}

/* A child that is always a little behind: what it has read does not count. */
static void test_what_was_read_of_stdin_makes_room(void **state)
{
    struct child *child = *state;
    static char text[1 << 20];
    start_sh(child, "exec cat");
    assert_int_equal(spawn_write(child->spawn, (struct amp_bytes){.data = (const uint8_t *)text, .len = sizeof(text)}), AMP_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(spawn_write(child->spawn, (struct amp_bytes){.data = (const uint8_t *)text, .len = sizeof(text)}), AMP_OK);
        child->stop_at = sizeof(text);
        run(child, STOP_OUTPUT);
        amp_buf_reset(&child->out);
        assert_true(spawn_waiting(child->spawn) > 0);
    }
}

static void test_a_grandchild_that_stays_is_killed_and_does_not_hold_the_end_up(void **state)
{
    struct child *child = *state;
    start_sh(child, "sleep 1000 & echo $!");
    run(child, STOP_EXIT);
    (void)amp_buf_append(&child->out, "", 1);
    pid_t left = (pid_t)strtol((const char *)child->out.data, NULL, 10);
    assert_true(left > 1);
    await_death(left);
    assert_true(child->exit.uptime_ms >= 200); /* it held stdout open, so it was waited for */
}

static void test_the_last_words_without_a_newline_count(void **state)
{
    struct child *child = *state;
    start_sh(child, "printf half; printf 'err half' >&2; kill -TERM $$");
    run(child, STOP_EXIT);
    assert_output(child, "half");
    assert_int_equal(child->exit.n_stderr_lines, 1);
    assert_string_equal(child->lines[0], "err half");
}

static void test_a_paused_child_loses_nothing_even_when_it_ends_meanwhile(void **state)
{
    struct child *child = *state;
    child->stop_at = 1;
    start_sh(child, "head -c 10000 /dev/zero | tr '\\0' x; exec >/dev/null; head -c 20000 /dev/zero >/dev/null");
    run(child, STOP_OUTPUT);
    spawn_pause(child->spawn, true);
    loop_timer_set(child->late, 400); /* longer than the end waits for others */
    assert_int_equal(loop_run(child->loop), STOP_LATE);
    spawn_pause(child->spawn, false);
    run(child, STOP_EXIT);
    assert_int_equal(child->out.len, 10000);
}

static void test_a_flood_is_braked_by_a_pause(void **state)
{
    struct child *child = *state;
    child->stop_at = 1;
    start_sh(child, "exec cat /dev/zero");
    run(child, STOP_OUTPUT);
    spawn_pause(child->spawn, true);
    size_t len = child->out.len;
    loop_timer_set(child->late, 100);
    assert_int_equal(loop_run(child->loop), STOP_LATE);
    assert_int_equal(child->out.len, len);
    spawn_kill(child->spawn, SIGTERM);
    spawn_pause(child->spawn, false);
    run(child, STOP_EXIT);
    assert_int_equal(child->exit.signal, SIGTERM);
}

static void test_free_kills_the_whole_group(void **state)
{
    struct child *child = *state;
    child->stop_at = 2;
    start_sh(child, "sleep 1000 & echo $!; wait");
    run(child, STOP_OUTPUT);
    (void)amp_buf_append(&child->out, "", 1);
    pid_t grandchild = (pid_t)strtol((const char *)child->out.data, NULL, 10), pid = spawn_pid(child->spawn);
    spawn_free(child->spawn);
    child->spawn = NULL;
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
    await_death(grandchild);
}

static void test_what_is_no_program_is_said_at_once(void **state)
{
    struct child *child = *state;
    struct amp_error err;
    char dir[] = "/tmp/amesh-spawn-XXXXXX", plain[64], dead[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(plain, sizeof(plain), "%s/plain", dir);
    (void)snprintf(dead, sizeof(dead), "%s/dead", dir);
    FILE *file = fopen(plain, "we");
    (void)fputs("echo from a plain file $1", file);
    (void)fclose(file);
    file = fopen(dead, "we");
    (void)fputs("#!/nonexistent/interpreter\n", file);
    (void)fclose(file);
    (void)chmod(dead, 0700);
    assert_int_equal(start(child, (char *const[]){(char *)"no-such-program-here", NULL}, NULL, &err), AMP_NOT_FOUND);
    assert_non_null(strstr(err.message, "no-such-program-here"));
    assert_int_equal(start(child, (char *const[]){plain, NULL}, NULL, &err), AMP_DENIED);
    assert_int_equal(start(child, (char *const[]){dead, NULL}, NULL, &err), AMP_NOT_FOUND);
    assert_non_null(strstr(err.message, "interpreter"));
    (void)chmod(plain, 0700); /* no "#!": run by sh, as a shell would */
    assert_int_equal(start(child, (char *const[]){plain, (char *)"arg", NULL}, NULL, &err), AMP_OK);
    run(child, STOP_EXIT);
    assert_output(child, "from a plain file arg\n");
    (void)unlink(plain);
    (void)unlink(dead);
    (void)rmdir(dir);
}

static void test_the_environment_is_added_replaced_and_taken_away(void **state)
{
    struct child *child = *state;
    struct amp_error err;
    (void)setenv("SPAWN_A", "old", 1);
    (void)setenv("SPAWN_B", "old", 1);
    char *const argv[] = {(char *)"sh", (char *)"-c", (char *)"echo $SPAWN_A ${SPAWN_B-none} $SPAWN_C", NULL};
    char *const env[] = {(char *)"SPAWN_A=new", (char *)"SPAWN_B=", (char *)"SPAWN_C=c", NULL};
    assert_int_equal(start(child, argv, env, &err), AMP_OK);
    run(child, STOP_EXIT);
    assert_output(child, "new none c\n");
}

static void test_a_child_starts_clean(void **state)
{
    struct child *child = *state;
    int leak = dup(STDERR_FILENO); /* not close-on-exec */
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGUSR1);
    (void)sigprocmask(SIG_BLOCK, &blocked, NULL);
    start_sh(child, "echo $(ls /proc/self/fd); grep -E 'SigBlk|SigIgn' /proc/self/status; ps -o pgid= -p $$ >/dev/null; echo $$; cut -d' ' -f5 /proc/$$/stat");
    run(child, STOP_EXIT);
    (void)sigprocmask(SIG_UNBLOCK, &blocked, NULL);
    (void)close(leak);
    (void)amp_buf_append(&child->out, "", 1);
    const char *out = (const char *)child->out.data;
    assert_int_equal(strncmp(out, "0 1 2 3\nSigBlk", 14), 0); /* 3 is what ls looks through */
    if (!strstr(out, "SigBlk:\t0000000000000000") || !strstr(out, "SigIgn:\t0000000000000000")) /* SIGPIPE is ignored here, not there */
        fail_msg("signals are blocked or ignored in the child: %s", out);
    char pids[64];
    const char *tail = strstr(strstr(out, "SigIgn"), "\n") + 1;
    int pid = 0, group = 1;
    (void)snprintf(pids, sizeof(pids), "%s", tail);
    assert_int_equal(sscanf(pids, "%d %d", &pid, &group), 2);
    assert_int_equal(pid, group);
}

static void test_the_inherited_descriptor_is_number_3_and_nothing_else_is_inherited(void **state)
{
    struct child *child = *state;
    struct amp_error err;
    int fds[2], high, leak = dup(STDERR_FILENO);
    assert_int_equal(pipe(fds), 0);
    high = fcntl(fds[1], F_DUPFD_CLOEXEC, 300);
    char *const argv[] = {(char *)"sh", (char *)"-c", (char *)"echo through >&3; exec ls /proc/self/fd", NULL};
    const struct spawn_options options = {.argv = argv, .pipe_stdio = true, .inherit_fd = high};
    assert_int_equal(spawn_start(child->loop, &options, &handlers, child, &child->spawn, &err), AMP_OK);
    run(child, STOP_EXIT);
    assert_output(child, "0\n1\n2\n3\n4\n"); /* 4 is what ls looks through */
    char text[16] = "";
    assert_int_equal(read(fds[0], text, sizeof(text)), 8);
    assert_string_equal(text, "through\n");
    (void)close(leak);
    (void)close(high);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void test_kills_for_memory_are_read_from_the_kernels_counters(void **state)
{
    static const char vmstat[] = "nr_free_pages 1\noom_kill_x 5\noom_kill 3\nlast 9\n";
    static const char events[] = "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 0\n";
    assert_int_equal(spawn_oom_parse(vmstat, "oom_kill"), 3);
    assert_int_equal(spawn_oom_parse(events, "oom_kill"), 1);
    assert_int_equal(spawn_oom_parse("oom_kill 8", "oom_kill"), 8);
    assert_int_equal(spawn_oom_parse("", "oom_kill"), 0);
    const struct spawn_oom before = {.host = 3, .group = 1};
    assert_false(spawn_oom_rose(&before, &before));
    assert_true(spawn_oom_rose(&before, &(struct spawn_oom){.host = 4, .group = 1}));
    assert_true(spawn_oom_rose(&before, &(struct spawn_oom){.host = 3, .group = 2}));
    assert_false(spawn_oom_rose(&before, &(struct spawn_oom){.host = 0, .group = 0})); /* not readable any more */
    assert_false(spawn_oom_rose(&(struct spawn_oom){.group = 1, .is_of_group = true}, &(struct spawn_oom){.host = 4, .group = 1}));
}

#define CLAIM(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLAIM(test_an_exit_status_and_all_output_are_told),
        CLAIM(test_a_signal_is_told_and_is_not_called_out_of_memory),
        CLAIM(test_a_signal_of_ours_is_told_as_ours),
        CLAIM(test_stderr_keeps_its_last_lines_cut_and_harmless),
        CLAIM(test_stdin_arrives_whole_and_closes),
        CLAIM(test_a_child_need_not_read_its_stdin),
        CLAIM(test_too_much_for_stdin_is_refused),
        CLAIM(test_what_was_read_of_stdin_makes_room),
        CLAIM(test_a_grandchild_that_stays_is_killed_and_does_not_hold_the_end_up),
        CLAIM(test_the_last_words_without_a_newline_count),
        CLAIM(test_a_paused_child_loses_nothing_even_when_it_ends_meanwhile),
        CLAIM(test_a_flood_is_braked_by_a_pause),
        CLAIM(test_free_kills_the_whole_group),
        CLAIM(test_what_is_no_program_is_said_at_once),
        CLAIM(test_the_environment_is_added_replaced_and_taken_away),
        CLAIM(test_a_child_starts_clean),
        CLAIM(test_the_inherited_descriptor_is_number_3_and_nothing_else_is_inherited),
        CLAIM(test_kills_for_memory_are_read_from_the_kernels_counters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
