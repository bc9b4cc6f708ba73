/* The mesh client by its bytes: what is asked and waited for, and what goes wrong meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "client_world.h"

/* ---- waiting ------------------------------------------------------------------------------------------------------------- */

static void ask_in_traffic(struct amesh_task *task, void *ctx)
{
    struct client_world *world = ctx;
    char *answer;
    assert_int_equal(amesh_step(task->mesh, 0, NULL), AMP_CONFLICT);
    client_world_put(world, "{\"id\":1,\"method\":\"ping\",\"params\":{}}\n");
    client_world_put(world, "{\"id\":2,\"method\":\"frobnicate\"}\n{\"method\":\"frobnicate\"}\n\r\n");
    client_world_put_task(world, 8, "t-2", "later");
    client_world_put(world, "{\"method\":\"drain\"}\n{\"id\":2,\"result\":{\"text\":\"blue\"}}\n");
    assert_int_equal(amesh_ask(task, &(struct amesh_question){.prompt = "Which?", .options_json = "[\"a\"]", .expires_ms = 9}, &answer, &world->err), AMP_OK);
    assert_string_equal(answer, "blue");
    free(answer);
    assert_int_equal(world->n_tasks, 0);
    assert_true(amesh_is_pending(task->mesh));
}

static void ask_then_note(struct amesh_task *task, void *ctx)
{
    if (!strcmp(task->id, "t-1"))
        ask_in_traffic(task, ctx);
    else
        client_world_note(task, ctx);
}

static void test_what_comes_while_a_question_is_open_is_handled_or_kept(void **state)
{
    struct client_world *world = client_world_new(&(struct amesh_options){.concurrency = 2});
    client_world_put_task(world, 7, "t-1", "do");
    assert_int_equal(client_world_step(world, ask_then_note), AMP_STOPPING); /* drained, and both are done */
    assert_string_equal(world->seen, "t-2 c-1 later you 2 t-up -");
    expect_said(world, "{\"id\":1,\"result\":{}}\n");
    expect_said(world, "{\"id\":2,\"error\":{\"code\":-32601");
    expect_said(world, "\"prompt\":\"Which?\",\"expiresMs\":9,\"options\":[\"a\"]}}\n");
    assert_int_equal(amesh_serve(world->mesh, client_world_note, world, &world->err), AMP_OK);
    client_world_free(world);
}

static void on_text(void *ctx, const char *text)
{
    struct client_world *world = ctx;
    struct amesh_answer answer;
    strncat(world->seen, text, sizeof world->seen - strlen(world->seen) - 1);
    assert_int_equal(amesh_send(world->mesh, NULL, &(struct amesh_call){.agent = "you", .text = "x"}, &answer, NULL), AMP_CONFLICT);
    amesh_answer_done(&answer);
    assert_int_equal(amesh_step(world->mesh, 0, NULL), AMP_CONFLICT);
}

static void on_event(void *ctx, uint32_t seq, const char *event_json)
{
    struct client_world *world = ctx;
    world->n_tasks += seq;
    assert_int_equal(event_json[0], '{');
}

static void test_a_caller_gets_events_and_the_task(void **state)
{
    struct client_world *world = client_world_new(&(struct amesh_options){.is_caller = true});
    struct amesh_answer answer;
    struct amesh_call call = {.skill = "paint", .text = "x", .context_id = "c-9", .key = "k", .is_durable = true, .timeout_ms = 5, .on_text = on_text, .on_event = on_event, .ctx = world};
    client_world_put(world, "{\"method\":\"send.event\",\"params\":{\"id\":2,\"seq\":1,\"event\":{\"artifactUpdate\":{\"artifact\":{\"artifactId\":\"response\",\"parts\":[{\"text\":\"one \"}]}}}}}\n"
               "{\"method\":\"send.event\",\"params\":{\"id\":2,\"seq\":2,\"event\":{\"statusUpdate\":{}}}}\n"
               "{\"method\":\"send.event\",\"params\":{\"id\":77,\"seq\":9,\"event\":{}}}\n{\"method\":\"send.event\",\"params\":{}}\n{\"method\":\"send.event\"}\n"
               "{\"id\":2,\"result\":{\"id\":\"t-5\",\"contextId\":\"c-9\",\"status\":{\"state\":\"TASK_STATE_COMPLETED\"},\"artifacts\":[{\"artifactId\":\"log\",\"parts\":[{\"text\":\"no\"}]},"
               "{\"artifactId\":\"response\",\"parts\":[{\"text\":\"one \"},{\"data\":1},{\"text\":\"two\"}]}]}}\n");
    assert_int_equal(amesh_send(world->mesh, NULL, &call, &answer, &world->err), AMP_OK);
    assert_string_equal(answer.text, "one two");
    assert_string_equal(answer.task_id, "t-5");
    assert_string_equal(answer.context_id, "c-9");
    assert_int_equal(answer.state, AMP__TASK_STATE__TASK_STATE_COMPLETED);
    assert_non_null(strstr(answer.task_json, "\"id\":\"t-5\""));
    assert_string_equal(world->seen, "one ");
    assert_int_equal(world->n_tasks, 3);
    expect_said(world, "{\"skill\":\"paint\",\"text\":\"x\",\"contextId\":\"c-9\",\"key\":\"k\",\"durable\":true,\"stream\":true,\"timeoutMs\":5}}\n");
    amesh_answer_done(&answer);
    client_world_free(world);
}

static void test_a_call_that_did_not_complete_has_its_code_and_reason(void **state)
{
    static const struct {
        const char *reply;
        enum amp_code code;
        const char *message;
    } rows[] = {
        {"\"error\":{\"code\":-32000,\"message\":\"nobody\",\"data\":{\"code\":\"AMESH-2001\"}}", AMP_NO_SUCH_AGENT, "nobody"},
        {"\"error\":{\"code\":-32800,\"message\":\"\"}", AMP_CANCELED, "the task was cancelled"},
        {"\"error\":{\"code\":-32000,\"message\":\"odd\",\"data\":{\"code\":\"AMESH-999999\"}}", AMP_INTERNAL, "odd"},
        {"\"error\":{}", AMP_INTERNAL, "a defect in the mesh"},
        {"\"result\":{\"id\":\"t-5\",\"status\":{\"state\":\"TASK_STATE_FAILED\",\"message\":{\"parts\":[{\"text\":\"no paint\"}]}}}", AMP_TASK_FAILED, "no paint"},
        {"\"result\":{\"id\":\"t-5\",\"status\":{\"state\":\"TASK_STATE_REJECTED\"}}", AMP_REJECTED, "the agent refused the task"},
        {"\"result\":{\"id\":\"t-5\",\"status\":{\"state\":\"TASK_STATE_CANCELED\"}}", AMP_CANCELED, "the task was cancelled"},
        {"\"result\":{\"id\":\"t-5\",\"status\":{\"state\":\"TASK_STATE_FAILED\"},\"metadata\":{\"amp/error\":{\"code\":3004,\"message\":\"killed\",\"hint\":\"h\"}}}", AMP_AGENT_DIED, "killed"},
        {"\"result\":{\"id\":\"t-5\",\"status\":{\"state\":\"TASK_STATE_WORKING\"}}", AMP_BAD_ANSWER, "the agent answered with something that is not an answer"},
        {"\"result\":[]", AMP_BAD_ANSWER, "the sidecar answered with something that is no task"},
    };
    struct client_world *world = client_world_new(NULL);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char line[512];
        struct amesh_answer answer;
        snprintf(line, sizeof line, "{\"id\":%u,%s}\n", i + 2, rows[i].reply);
        client_world_put(world, line);
        assert_int_equal(amesh_send(world->mesh, NULL, &(struct amesh_call){.agent = "you", .text = "x"}, &answer, &world->err), rows[i].code);
        assert_string_equal(world->err.message, rows[i].message);
        amesh_answer_done(&answer);
    }
    client_world_free(world);
}

static void on_value(void *ctx, const struct amesh_value *each)
{
    struct client_world *world = ctx;
    snprintf(world->seen, sizeof world->seen, "%s=%s", each->key, each->json);
}

static void test_memory_is_read_written_and_listed(void **state)
{
    struct client_world *world = client_world_new(NULL);
    struct amesh_value value;
    struct amesh_place place = {.scope = AMESH_SHARED, .key = "k"};
    uint32_t version = 4;
    client_world_put(world, "{\"id\":2,\"result\":{\"key\":\"k\",\"value\":\"plum\",\"version\":4}}\n");
    assert_int_equal(amesh_kv_get(world->mesh, &place, &value, &world->err), AMP_OK);
    assert_string_equal(value.text, "plum");
    assert_string_equal(value.json, "\"plum\"");
    assert_int_equal(value.version, 4);
    amesh_value_done(&value);
    client_world_put(world, "{\"id\":3,\"error\":{\"code\":-32000,\"message\":\"m\",\"data\":{\"code\":\"AMESH-2004\"}}}\n");
    assert_int_equal(amesh_kv_get(world->mesh, &place, &value, &world->err), AMP_NOT_FOUND);
    amesh_value_done(&value);
    client_world_put(world, "{\"id\":4,\"result\":{}}\n");
    assert_int_equal(amesh_kv_put(world->mesh, &place, "{\"a\":1}", &version, &world->err), AMP_OK);
    client_world_put(world, "{\"id\":5,\"result\":{}}\n");
    assert_int_equal(amesh_kv_put_text(world->mesh, &place, "x", &world->err), AMP_OK);
    client_world_put(world, "{\"id\":6,\"result\":{}}\n");
    assert_int_equal(amesh_kv_del(world->mesh, &place, &world->err), AMP_OK);
    client_world_put(world, "{\"id\":7,\"result\":{\"entries\":[{\"key\":\"a\",\"value\":[1],\"version\":1}]}}\n");
    assert_int_equal(amesh_kv_list(world->mesh, &(struct amesh_place){.scope = AMESH_OWN}, on_value, world, &world->err), AMP_OK);
    assert_string_equal(world->seen, "a=[1]");
    expect_said(world, "\"method\":\"kv.put\",\"params\":{\"scope\":\"shared\",\"key\":\"k\",\"ifVersion\":4,\"value\":{\"a\":1}}}\n");
    expect_said(world, "\"method\":\"kv.list\",\"params\":{\"scope\":\"agent\"}}\n");
    client_world_free(world);
}

static void test_any_method_can_be_asked(void **state)
{
    struct client_world *world = client_world_new(NULL);
    char *json;
    client_world_put(world, "{\"id\":2,\"result\":{\"agents\":[]}}\n");
    assert_int_equal(amesh_request(world->mesh, "agents.list", " {\"skill\":\"x\"}\n", &json, &world->err), AMP_OK);
    assert_string_equal(json, "{\"agents\":[]}");
    free(json);
    assert_int_equal(amesh_request(world->mesh, "agents.list", "[]", &json, &world->err), AMP_INVALID);
    assert_int_equal(amesh_request(world->mesh, "agents.list", "{", &json, &world->err), AMP_MALFORMED);
    client_world_put(world, "{\"id\":5,\"result\":{}}\n");
    assert_int_equal(amesh_request(world->mesh, "ping", NULL, &json, &world->err), AMP_OK);
    free(json);
    assert_int_equal(amesh_log(world->mesh, "info", "note"), AMP_OK);
    expect_said(world, "\"method\":\"agents.list\",\"params\": {\"skill\":\"x\"}}\n");
    expect_said(world, "{\"method\":\"log\",\"params\":{\"level\":\"info\",\"text\":\"note\"}}\n");
    client_world_free(world);
}

/* ---- trouble ---------------------------------------------------------------------------------------------------------------- */

static void ask_the_dead(struct amesh_task *task, void *ctx)
{
    struct client_world *world = ctx;
    char *answer;
    close(world->fd);
    world->fd = -1;
    world->code = amesh_ask(task, &(struct amesh_question){.prompt = "?"}, &answer, &world->err);
    assert_int_equal(amesh_task_write(task, "into nothing"), AMP_NO_SIDECAR);
    assert_int_equal(amesh_task_wait(task, -1), AMP_NO_SIDECAR);
}

static void test_a_lost_connection_is_an_error_everywhere_and_no_signal(void **state)
{
    struct client_world *world = client_world_new(NULL);
    client_world_put_task(world, 7, "t-1", "do");
    assert_int_equal(client_world_step(world, ask_the_dead), AMP_NO_SIDECAR);
    assert_int_equal(world->code, AMP_NO_SIDECAR);
    assert_int_equal(amesh_serve(world->mesh, client_world_note, world, &world->err), AMP_NO_SIDECAR);
    assert_int_not_equal(world->err.message[0], '\0');
    client_world_free(world);
}

static void test_a_line_that_is_no_frame_ends_the_connection(void **state)
{
    static const char *const lines[] = {"hello\n", "[]\n", "{}\n", "{\"id\":0,\"result\":1}\n", "{\"id\":3}\n", "{\"id\":3,\"result\":1,\"error\":{}}\n", "{\"id\":3,\"error\":1}\n",
                                        "{\"id\":[],\"method\":\"ping\"}\n", "{\"method\":\"drain\",\"params\":3}\n", "{\"a\":1,\"a\":1}\n", "{\"method\":\"\\ud800\"}\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct client_world *world = client_world_new(NULL);
        client_world_put(world, lines[i]);
        assert_int_equal(client_world_step(world, client_world_note), AMP_MALFORMED);
        assert_int_equal(client_world_step(world, client_world_note), AMP_MALFORMED);
        client_world_free(world);
    }
}

static void test_a_task_without_an_id_is_refused(void **state)
{
    struct client_world *world = client_world_new(NULL);
    client_world_put(world, "{\"id\":7,\"method\":\"task.run\",\"params\":{}}\n{\"id\":8,\"method\":\"task.run\"}\n{\"id\":9,\"method\":\"task.run\",\"params\":{\"taskId\":\"../x\"}}\n{\"method\":\"task.cancel\"}\n");
    assert_int_equal(client_world_step(world, client_world_note), AMP_OK);
    assert_int_equal(world->n_tasks, 0);
    expect_said(world, "{\"id\":7,\"error\":{\"code\":-32602");
    expect_said(world, "{\"id\":9,\"error\":{\"code\":-32602");
    client_world_free(world);
}

struct flood {
    int fd;
    size_t len;
    uint8_t byte;
};

static void *write_flood(void *arg)
{
    struct flood *flood = arg;
    char piece[4096];
    memset(piece, flood->byte, sizeof piece);
    while (flood->len > 0) {
        ssize_t n = send(flood->fd, piece, flood->len < sizeof piece ? flood->len : sizeof piece, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        flood->len -= (size_t)n;
    }
    return NULL;
}

static void test_a_line_without_an_end_is_bounded(void **state)
{
    struct client_world *world = client_world_new(NULL);
    struct flood flood = {.fd = world->fd, .len = 32u << 20, .byte = 'x'};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_flood, &flood), 0);
    assert_int_equal(amesh_serve(world->mesh, client_world_note, world, &world->err), AMP_TOO_LARGE);
    amesh_free(world->mesh);
    world->mesh = NULL;
    pthread_join(thread, NULL);
    assert_true(flood.len > 0);
    client_world_free(world);
}

/* ---- signals and slow readers -------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void on_alarm(int signo)
{
    alarms = alarms + 1;
}

static void *read_slowly(void *arg)
{
    struct flood *flood = arg; /* len: to read */
    char piece[777];
    size_t lines = 0;
    while (flood->len > lines) {
        ssize_t n = recv(flood->fd, piece, sizeof piece, 0);
        for (ssize_t i = 0; i < n; i++)
            lines += piece[i] == '\n';
        if (n <= 0)
            break;
    }
    flood->len = lines;
    return NULL;
}

static void write_much(struct amesh_task *task, void *ctx)
{
    char *text = malloc((4u << 20) + 1);
    memset(text, 'y', 4u << 20);
    text[4u << 20] = '\0';
    assert_int_equal(amesh_task_write(task, text), AMP_OK);
    free(text);
}

static void test_signals_and_a_slow_reader_lose_nothing(void **state)
{
    struct client_world *world = client_world_new(NULL);
    struct sigaction action = {.sa_handler = on_alarm}, old;
    struct itimerval often = {.it_interval.tv_usec = 500, .it_value.tv_usec = 500}, never = {0};
    size_t pieces = ((4u << 20) + (48u << 10) - 1) / (48u << 10);
    struct flood reader = {.fd = world->fd, .len = pieces + 2}; /* and hello, and the result */
    pthread_t thread;
    sigaction(SIGALRM, &action, &old);
    client_world_put_task(world, 7, "t-1", "do");
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* the reader is not to be disturbed */
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, &reader), 0);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    assert_int_equal(client_world_step(world, write_much), AMP_OK);
    while (alarms < 3) /* a signal ends a step early, and is no error */
        assert_int_equal(amesh_step(world->mesh, -1, &world->err), AMP_OK);
    setitimer(ITIMER_REAL, &never, NULL);
    pthread_join(thread, NULL);
    sigaction(SIGALRM, &old, NULL);
    assert_int_equal(reader.len, pieces + 2);
    client_world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_comes_while_a_question_is_open_is_handled_or_kept),
        cmocka_unit_test(test_a_caller_gets_events_and_the_task),
        cmocka_unit_test(test_a_call_that_did_not_complete_has_its_code_and_reason),
        cmocka_unit_test(test_memory_is_read_written_and_listed),
        cmocka_unit_test(test_any_method_can_be_asked),
        cmocka_unit_test(test_a_lost_connection_is_an_error_everywhere_and_no_signal),
        cmocka_unit_test(test_a_line_that_is_no_frame_ends_the_connection),
        cmocka_unit_test(test_a_task_without_an_id_is_refused),
        cmocka_unit_test(test_a_line_without_an_end_is_bounded),
        cmocka_unit_test(test_signals_and_a_slow_reader_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
