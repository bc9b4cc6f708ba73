/* The mesh client by its bytes. A reply is put into the socket before it is asked for (requests count from 1, and 1 is hello), so that one thread plays both sides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <amesh/client.h>
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define HELLO "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"proto\":1,\"agent\":\"me\",\"instance\":\"i-1\",\"version\":\"0\",\"slots\":8}}\n"

struct world {
    int fd; /* the sidecar's end */
    struct amesh *mesh;
    char said[1 << 16]; /* what the client sent, lines; NUL at the end */
    size_t len;
    /* what a handler saw */
    char seen[512];
    unsigned n_tasks, n_cancels;
    struct amesh_task *kept;
    enum amp_code code;
    struct amp_error err;
};

static void put(struct world *world, const char *lines)
{
    assert_int_equal(send(world->fd, lines, strlen(lines), MSG_NOSIGNAL), (ssize_t)strlen(lines));
}

static void put_task(struct world *world, unsigned id, const char *task, const char *text)
{
    char line[512];
    snprintf(line, sizeof line, "{\"id\":%u,\"method\":\"task.run\",\"params\":{\"taskId\":\"%s\",\"contextId\":\"c-1\",\"text\":\"%s\",\"message\":{\"parts\":[]},\"attempt\":2,\"from\":\"you\",\"parent\":\"t-up\"}}\n",
             id, task, text);
    put(world, line);
}

/* What has come out of the client by now. */
static const char *said(struct world *world)
{
    ssize_t n;
    while (world->len < sizeof world->said - 1 && (n = recv(world->fd, world->said + world->len, sizeof world->said - 1 - world->len, MSG_DONTWAIT)) > 0)
        world->len += (size_t)n;
    world->said[world->len] = '\0';
    return world->said;
}

static void forget(struct world *world)
{
    (void)said(world);
    world->len = 0;
}

#define expect_said(world, text) \
    do { \
        if (!strstr(said(world), text)) \
            fail_msg("%s\nwanted: %s", (world)->said, text); \
    } while (0)

static struct world *world_new(const struct amesh_options *options)
{
    struct world *world = calloc(1, sizeof *world);
    int fds[2];
    assert_non_null(world);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    world->fd = fds[0];
    put(world, HELLO);
    assert_int_equal(amesh_adopt(fds[1], options, &world->mesh, &world->err), AMP_OK);
    return world;
}

static void world_free(struct world *world)
{
    amesh_free(world->mesh);
    if (world->fd >= 0)
        close(world->fd);
    free(world);
}

static void on_cancel(struct amesh_task *task, void *ctx)
{
    struct world *world = ctx;
    world->n_cancels++;
    assert_int_equal(amesh_task_cancel(task, "as told"), AMP_OK);
    if (world->kept == task)
        world->kept = NULL;
}

/* One step without waiting, in which `on_task` runs. */
static enum amp_code step(struct world *world, amesh_task_handler *on_task)
{
    amesh_set_handlers(world->mesh, &(struct amesh_handlers){.on_task = on_task, .on_cancel = on_cancel}, world);
    return amesh_step(world->mesh, 0, &world->err);
}

/* ---- the connection ------------------------------------------------------------------------------------------------- */

static void test_hello_says_what_the_program_is(void **state)
{
    struct world *world = world_new(&(struct amesh_options){.concurrency = 3, .card_json = "{\"name\":\n\"x\"}"});
    expect_said(world, "\"method\":\"hello\",\"params\":{\"proto\":1,\"role\":\"worker\",\"concurrency\":3,\"framework\":\"c\",\"card\":{\"name\": \"x\"}}}\n");
    assert_string_equal(amesh_agent(world->mesh), "me");
    assert_string_equal(amesh_instance(world->mesh), "i-1");
    world_free(world);
}

static void test_a_refused_hello_is_the_sidecars_error(void **state)
{
    int fds[2];
    struct amesh *mesh;
    struct amp_error err;
    static const char line[] = "{\"id\":1,\"error\":{\"code\":-32000,\"message\":\"not here\",\"data\":{\"code\":\"AMESH-4007\",\"name\":\"stopping\",\"hint\":\"go\"}}}\n";
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(send(fds[0], line, strlen(line), 0), (ssize_t)strlen(line));
    assert_int_equal(amesh_adopt(fds[1], NULL, &mesh, &err), AMP_STOPPING);
    assert_null(mesh);
    assert_string_equal(err.message, "not here");
    assert_string_equal(err.hint, "go");
    close(fds[0]);
}

static void test_a_sidecar_that_closes_says_why_first(void **state)
{
    int fds[2];
    struct amesh *mesh;
    struct amp_error err;
    static const char line[] = "{\"id\":null,\"error\":{\"code\":-32000,\"message\":\"too many connections\",\"data\":{\"code\":\"AMESH-4004\"}}}\n";
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(send(fds[0], line, strlen(line), 0), (ssize_t)strlen(line));
    shutdown(fds[0], SHUT_WR);
    assert_int_equal(amesh_adopt(fds[1], NULL, &mesh, &err), AMP_OVERLOADED);
    assert_string_equal(err.message, "too many connections");
    close(fds[0]);
}

static void test_without_a_sidecar_the_error_says_how_to_start(void **state)
{
    struct amesh *mesh;
    struct amp_error err;
    unsetenv("AMESH_FD");
    unsetenv("AMESH_SOCK");
    assert_int_equal(amesh_connect(NULL, &mesh, &err), AMP_NO_SIDECAR);
    assert_non_null(strstr(err.hint, "amesh run"));
    assert_int_equal(amesh_connect(&(struct amesh_options){.socket = "/nonexistent/x.sock"}, &mesh, &err), AMP_NO_SIDECAR);
    assert_non_null(strstr(err.message, "/nonexistent/x.sock"));
    setenv("AMESH_FD", "4711", 1);
    assert_int_equal(amesh_connect(NULL, &mesh, &err), AMP_INVALID);
    setenv("AMESH_FD", "0x", 1);
    assert_int_equal(amesh_connect(NULL, &mesh, &err), AMP_INVALID);
    unsetenv("AMESH_FD");
}

static void test_an_inherited_descriptor_is_taken_over(void **state)
{
    int fds[2];
    char text[16];
    struct amesh *mesh;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(send(fds[0], HELLO, strlen(HELLO), 0), (ssize_t)strlen(HELLO));
    snprintf(text, sizeof text, "%d", fds[1]);
    setenv("AMESH_FD", text, 1);
    assert_int_equal(amesh_connect(&(struct amesh_options){.is_caller = true}, &mesh, NULL), AMP_OK);
    assert_null(getenv("AMESH_FD"));
    assert_int_equal(amesh_fd(mesh), fds[1]);
    assert_int_equal(fcntl(fds[1], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    amesh_free(mesh);
    assert_int_equal(fcntl(fds[1], F_GETFD), -1);
    close(fds[0]);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------------ */

static void note(struct amesh_task *task, void *ctx)
{
    struct world *world = ctx;
    world->n_tasks++;
    snprintf(world->seen, sizeof world->seen, "%s %s %s %s %u %s %s", task->id, task->context_id, task->text, task->from, task->attempt, task->parent, task->skill ? task->skill : "-");
}

static void test_a_task_brings_what_is_known_of_it_and_ends_with_its_handler(void **state)
{
    struct world *world = world_new(NULL);
    put_task(world, 7, "t-1", "do");
    assert_int_equal(step(world, note), AMP_OK);
    assert_string_equal(world->seen, "t-1 c-1 do you 2 t-up -");
    expect_said(world, "{\"id\":7,\"result\":null}\n");
    world_free(world);
}

static void look(struct amesh_task *task, void *ctx)
{
    assert_int_equal(amesh_task_require_input(task, "%s %s %s?", task->resume, amesh_task_meta_json(task), amesh_task_message_json(task)), AMP_OK);
    assert_int_equal(amesh_task_fail(task, "twice"), AMP_TASK_ENDED);
    assert_int_equal(amesh_task_write(task, "late"), AMP_TASK_ENDED);
}

static void test_an_answer_after_input_required_is_at_hand(void **state)
{
    struct world *world = world_new(NULL);
    put(world, "{\"id\":\"a b\",\"method\":\"task.run\",\"params\":{\"taskId\":\"t-1\",\"text\":\"x\",\"resume\":{\"text\":\"blue\"},\"meta\":{\"k\":1}}}\n");
    assert_int_equal(step(world, look), AMP_OK);
    expect_said(world, "{\"id\":\"a b\",\"result\":{\"state\":\"input-required\",\"message\":\"blue {\\\"k\\\":1} {}?\"}}\n");
    world_free(world);
}

static void say_all(struct amesh_task *task, void *ctx)
{
    struct world *world = ctx;
    struct amp_error err = {0};
    static const uint8_t bytes[] = {0, 255, 1, 2};
    assert_int_equal(amesh_task_printf(task, "%d\xff%s", 1, "\n"), AMP_OK);
    assert_int_equal(amesh_task_reasoning(task, "hm"), AMP_OK);
    assert_int_equal(amesh_task_status(task, "half"), AMP_OK);
    assert_int_equal(amesh_task_log(task, "warn", "careful"), AMP_OK);
    assert_int_equal(amesh_task_step_start(task, "s"), AMP_OK);
    assert_int_equal(amesh_task_step_end(task, "s"), AMP_OK);
    assert_int_equal(amesh_task_tool_call(task, "c1", "add", "{\"a\":\n1}", &err), AMP_OK);
    assert_int_equal(amesh_task_tool_call(task, "c1", "add", "{\"a\":", &err), AMP_MALFORMED);
    assert_int_equal(amesh_task_tool_result(task, "c1", "3", true, &err), AMP_OK);
    assert_int_equal(amesh_task_custom(task, "n", "[1]", &err), AMP_OK);
    assert_int_equal(amesh_task_usage(task, &(struct amesh_usage){.model = "m", .input_tokens = 5, .output_tokens = 6, .cost_usd = 1.25}), AMP_OK);
    assert_int_equal(amesh_task_artifact(task, &(struct amesh_artifact){.name = "a", .text = "t", .filename = "a.txt"}, &err), AMP_OK);
    assert_int_equal(amesh_task_artifact(task, &(struct amesh_artifact){.name = "b", .data_json = "{}"}, &err), AMP_OK);
    assert_int_equal(amesh_task_artifact(task, &(struct amesh_artifact){.name = "c", .bytes = {bytes, 4}}, &err), AMP_OK);
    assert_int_equal(amesh_task_artifact(task, &(struct amesh_artifact){.name = "d"}, &err), AMP_INVALID);
    assert_int_equal(amesh_task_complete(task, "ignored, because something was written"), AMP_OK);
    world->n_tasks++;
}

static void test_events_are_those_of_the_local_api(void **state)
{
    static const char *const wanted[] = {
        "{\"method\":\"task.event\",\"params\":{\"taskId\":\"t-1\",\"event\":{\"type\":\"text\",\"text\":\"1\xef\xbf\xbd\\n\"}}}\n",
        "{\"type\":\"reasoning\",\"text\":\"hm\"}",
        "{\"type\":\"status\",\"text\":\"half\"}",
        "{\"type\":\"log\",\"level\":\"warn\",\"text\":\"careful\"}",
        "{\"type\":\"step\",\"name\":\"s\",\"phase\":\"start\"}",
        "{\"type\":\"step\",\"name\":\"s\",\"phase\":\"end\"}",
        "{\"type\":\"tool_call\",\"callId\":\"c1\",\"name\":\"add\",\"args\":{\"a\": 1}}",
        "{\"type\":\"tool_result\",\"callId\":\"c1\",\"isError\":true,\"output\":3}",
        "{\"type\":\"custom\",\"name\":\"n\",\"value\":[1]}",
        "{\"type\":\"usage\",\"model\":\"m\",\"inputTokens\":5,\"outputTokens\":6,\"costUsd\":1.250000000}",
        "{\"type\":\"artifact\",\"artifactId\":\"a\",\"name\":\"a\",\"filename\":\"a.txt\",\"text\":\"t\",\"last\":true}",
        "{\"type\":\"artifact\",\"artifactId\":\"b\",\"name\":\"b\",\"data\":{},\"last\":true}",
        "\"parts\":[{\"raw\":\"AP8BAg==\"}],\"last\":true}",
        "{\"id\":7,\"result\":null}\n",
    };
    struct world *world = world_new(NULL);
    put_task(world, 7, "t-1", "do");
    assert_int_equal(step(world, say_all), AMP_OK);
    assert_int_equal(world->n_tasks, 1);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        expect_said(world, wanted[i]);
    for (char *line = strtok(world->said, "\n"); line; line = strtok(NULL, "\n")) {
        cJSON *json = NULL;
        assert_int_equal(amp_json_parse(amp_bytes_of(line), &json, NULL), AMP_OK);
        cJSON_Delete(json);
    }
    world_free(world);
}

static void too_large(struct amesh_task *task, void *ctx)
{
    struct amp_error err;
    char *json = calloc(1, AMP_LINE_MAX + 3);
    memset(json, 'x', AMP_LINE_MAX + 2);
    json[0] = json[AMP_LINE_MAX + 1] = '"';
    assert_int_equal(amesh_task_custom(task, "big", json, &err), AMP_TOO_LARGE);
    assert_int_equal(amesh_task_finish_json(task, json, &err), AMP_TOO_LARGE);
    assert_int_equal(amesh_task_finish_json(task, "{\"state\":", &err), AMP_MALFORMED);
    assert_int_equal(amesh_task_finish_json(task, "{\"data\":1}", &err), AMP_OK);
    free(json);
}

static void test_what_does_not_fit_a_line_is_refused_and_the_task_goes_on(void **state)
{
    struct world *world = world_new(NULL);
    forget(world);
    put_task(world, 7, "t-1", "do");
    assert_int_equal(step(world, too_large), AMP_OK);
    assert_string_equal(said(world), "{\"id\":7,\"result\":{\"data\":1}}\n");
    world_free(world);
}

static void long_text(struct amesh_task *task, void *ctx)
{
    struct world *world = ctx;
    char text[60001];
    for (size_t i = 0; i < 60000; i += 3)
        memcpy(text + i, "\xe4\xb8\x96", 3);
    text[60000] = '\0';
    world->code = amesh_task_complete(task, text);
}

static void test_a_long_text_is_cut_between_characters(void **state)
{
    struct world *world = world_new(NULL);
    forget(world);
    put_task(world, 7, "t-1", "do");
    assert_int_equal(step(world, long_text), AMP_OK);
    assert_int_equal(world->code, AMP_OK);
    assert_null(strstr(said(world), "\xef\xbf\xbd"));
    size_t lines = 0;
    for (const char *at = world->said; (at = strchr(at, '\n')); at++)
        lines++;
    assert_int_equal(lines, 3);
    expect_said(world, "{\"id\":7,\"result\":null}\n");
    world_free(world);
}

/* ---- cancel ------------------------------------------------------------------------------------------------------------- */

static void test_a_task_that_waits_for_its_turn_is_cancelled_without_its_handler(void **state)
{
    struct world *world = world_new(NULL);
    put_task(world, 7, "t-1", "do");
    put(world, "{\"method\":\"task.cancel\",\"params\":{\"taskId\":\"t-1\"}}\n");
    assert_int_equal(step(world, note), AMP_OK);
    assert_int_equal(world->n_tasks, 0);
    expect_said(world, "{\"id\":7,\"result\":{\"state\":\"canceled\"}}\n");
    world_free(world);
}

static void send_while_canceled(struct amesh_task *task, void *ctx)
{
    struct world *world = ctx;
    struct amesh_answer answer;
    char *text;
    assert_false(amesh_task_is_canceled(task));
    put(world, "{\"method\":\"task.cancel\",\"params\":{\"taskId\":\"t-other\"}}\n{\"method\":\"task.cancel\",\"params\":{\"taskId\":\"t-1\"}}\n");
    world->code = amesh_send(task->mesh, task, &(struct amesh_call){.agent = "you", .text = "x"}, &answer, &world->err);
    assert_string_equal(answer.text, "");
    amesh_answer_done(&answer);
    assert_true(amesh_task_is_canceled(task));
    assert_int_equal(amesh_ask(task, &(struct amesh_question){.prompt = "?"}, &text, NULL), AMP_CANCELED);
    assert_int_equal(amesh_task_wait(task, -1), AMP_CANCELED);
    assert_int_equal(amesh_task_status(task, "putting away"), AMP_OK);
}

static void test_a_cancel_ends_the_wait_and_takes_the_call_back(void **state)
{
    struct world *world = world_new(NULL);
    put_task(world, 7, "t-1", "do");
    assert_int_equal(step(world, send_while_canceled), AMP_OK);
    assert_int_equal(world->code, AMP_CANCELED);
    expect_said(world, "{\"id\":2,\"method\":\"send\",\"params\":{\"taskId\":\"t-1\",\"to\":\"you\",\"text\":\"x\"}}\n");
    expect_said(world, "{\"method\":\"send.cancel\",\"params\":{\"id\":2}}\n");
    expect_said(world, "{\"id\":7,\"result\":{\"state\":\"canceled\"}}\n");
    /* The late reply has nobody who waits for it. */
    put(world, "{\"id\":2,\"error\":{\"code\":-32800,\"message\":\"x\"}}\n");
    assert_int_equal(step(world, note), AMP_OK);
    world_free(world);
}

static void keep(struct amesh_task *task, void *ctx)
{
    struct world *world = ctx;
    world->n_tasks++;
    world->kept = task;
    amesh_task_keep(task);
}

static void test_a_kept_task_outlives_its_handler_and_hears_of_its_cancel(void **state)
{
    struct world *world = world_new(&(struct amesh_options){.concurrency = 2});
    put_task(world, 7, "t-1", "do");
    put_task(world, 8, "t-2", "do");
    put_task(world, 9, "t-3", "one too many");
    assert_int_equal(step(world, keep), AMP_OK);
    assert_int_equal(world->n_tasks, 2);
    expect_said(world, "{\"id\":9,\"error\":{");
    assert_int_equal(amesh_task_complete(world->kept, "done"), AMP_OK);
    expect_said(world, "{\"id\":8,\"result\":\"done\"}\n");
    put(world, "{\"method\":\"task.cancel\",\"params\":{\"taskId\":\"t-1\"}}\n");
    assert_int_equal(step(world, keep), AMP_OK);
    assert_int_equal(world->n_cancels, 1);
    expect_said(world, "{\"id\":7,\"result\":{\"state\":\"canceled\",\"message\":\"as told\"}}\n");
    world_free(world);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------------- */

static void ask_in_traffic(struct amesh_task *task, void *ctx)
{
    struct world *world = ctx;
    char *answer;
    assert_int_equal(amesh_step(task->mesh, 0, NULL), AMP_CONFLICT);
    put(world, "{\"id\":1,\"method\":\"ping\",\"params\":{}}\n");
    put(world, "{\"id\":2,\"method\":\"frobnicate\"}\n{\"method\":\"frobnicate\"}\n\r\n");
    put_task(world, 8, "t-2", "later");
    put(world, "{\"method\":\"drain\"}\n{\"id\":2,\"result\":{\"text\":\"blue\"}}\n");
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
        note(task, ctx);
}

static void test_what_comes_while_a_question_is_open_is_handled_or_kept(void **state)
{
    struct world *world = world_new(&(struct amesh_options){.concurrency = 2});
    put_task(world, 7, "t-1", "do");
    assert_int_equal(step(world, ask_then_note), AMP_STOPPING); /* drained, and both are done */
    assert_string_equal(world->seen, "t-2 c-1 later you 2 t-up -");
    expect_said(world, "{\"id\":1,\"result\":{}}\n");
    expect_said(world, "{\"id\":2,\"error\":{\"code\":-32601");
    expect_said(world, "\"prompt\":\"Which?\",\"expiresMs\":9,\"options\":[\"a\"]}}\n");
    assert_int_equal(amesh_serve(world->mesh, note, world, &world->err), AMP_OK);
    world_free(world);
}

static void on_text(void *ctx, const char *text)
{
    struct world *world = ctx;
    struct amesh_answer answer;
    strncat(world->seen, text, sizeof world->seen - strlen(world->seen) - 1);
    assert_int_equal(amesh_send(world->mesh, NULL, &(struct amesh_call){.agent = "you", .text = "x"}, &answer, NULL), AMP_CONFLICT);
    amesh_answer_done(&answer);
    assert_int_equal(amesh_step(world->mesh, 0, NULL), AMP_CONFLICT);
}

static void on_event(void *ctx, uint32_t seq, const char *event_json)
{
    struct world *world = ctx;
    world->n_tasks += seq;
    assert_int_equal(event_json[0], '{');
}

static void test_a_caller_gets_events_and_the_task(void **state)
{
    struct world *world = world_new(&(struct amesh_options){.is_caller = true});
    struct amesh_answer answer;
    struct amesh_call call = {.skill = "paint", .text = "x", .context_id = "c-9", .key = "k", .is_durable = true, .timeout_ms = 5, .on_text = on_text, .on_event = on_event, .ctx = world};
    put(world, "{\"method\":\"send.event\",\"params\":{\"id\":2,\"seq\":1,\"event\":{\"artifactUpdate\":{\"artifact\":{\"artifactId\":\"response\",\"parts\":[{\"text\":\"one \"}]}}}}}\n"
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
    world_free(world);
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
    struct world *world = world_new(NULL);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char line[512];
        struct amesh_answer answer;
        snprintf(line, sizeof line, "{\"id\":%u,%s}\n", i + 2, rows[i].reply);
        put(world, line);
        assert_int_equal(amesh_send(world->mesh, NULL, &(struct amesh_call){.agent = "you", .text = "x"}, &answer, &world->err), rows[i].code);
        assert_string_equal(world->err.message, rows[i].message);
        amesh_answer_done(&answer);
    }
    world_free(world);
}

static void on_value(void *ctx, const struct amesh_value *each)
{
    struct world *world = ctx;
    snprintf(world->seen, sizeof world->seen, "%s=%s", each->key, each->json);
}

static void test_memory_is_read_written_and_listed(void **state)
{
    struct world *world = world_new(NULL);
    struct amesh_value value;
    struct amesh_place place = {.scope = AMESH_SHARED, .key = "k"};
    uint32_t version = 4;
    put(world, "{\"id\":2,\"result\":{\"key\":\"k\",\"value\":\"plum\",\"version\":4}}\n");
    assert_int_equal(amesh_kv_get(world->mesh, &place, &value, &world->err), AMP_OK);
    assert_string_equal(value.text, "plum");
    assert_string_equal(value.json, "\"plum\"");
    assert_int_equal(value.version, 4);
    amesh_value_done(&value);
    put(world, "{\"id\":3,\"error\":{\"code\":-32000,\"message\":\"m\",\"data\":{\"code\":\"AMESH-2004\"}}}\n");
    assert_int_equal(amesh_kv_get(world->mesh, &place, &value, &world->err), AMP_NOT_FOUND);
    amesh_value_done(&value);
    put(world, "{\"id\":4,\"result\":{}}\n");
    assert_int_equal(amesh_kv_put(world->mesh, &place, "{\"a\":1}", &version, &world->err), AMP_OK);
    put(world, "{\"id\":5,\"result\":{}}\n");
    assert_int_equal(amesh_kv_put_text(world->mesh, &place, "x", &world->err), AMP_OK);
    put(world, "{\"id\":6,\"result\":{}}\n");
    assert_int_equal(amesh_kv_del(world->mesh, &place, &world->err), AMP_OK);
    put(world, "{\"id\":7,\"result\":{\"entries\":[{\"key\":\"a\",\"value\":[1],\"version\":1}]}}\n");
    assert_int_equal(amesh_kv_list(world->mesh, &(struct amesh_place){.scope = AMESH_OWN}, on_value, world, &world->err), AMP_OK);
    assert_string_equal(world->seen, "a=[1]");
    expect_said(world, "\"method\":\"kv.put\",\"params\":{\"scope\":\"shared\",\"key\":\"k\",\"ifVersion\":4,\"value\":{\"a\":1}}}\n");
    expect_said(world, "\"method\":\"kv.list\",\"params\":{\"scope\":\"agent\"}}\n");
    world_free(world);
}

static void test_any_method_can_be_asked(void **state)
{
    struct world *world = world_new(NULL);
    char *json;
    put(world, "{\"id\":2,\"result\":{\"agents\":[]}}\n");
    assert_int_equal(amesh_request(world->mesh, "agents.list", " {\"skill\":\"x\"}\n", &json, &world->err), AMP_OK);
    assert_string_equal(json, "{\"agents\":[]}");
    free(json);
    assert_int_equal(amesh_request(world->mesh, "agents.list", "[]", &json, &world->err), AMP_INVALID);
    assert_int_equal(amesh_request(world->mesh, "agents.list", "{", &json, &world->err), AMP_MALFORMED);
    put(world, "{\"id\":5,\"result\":{}}\n");
    assert_int_equal(amesh_request(world->mesh, "ping", NULL, &json, &world->err), AMP_OK);
    free(json);
    assert_int_equal(amesh_log(world->mesh, "info", "note"), AMP_OK);
    expect_said(world, "\"method\":\"agents.list\",\"params\": {\"skill\":\"x\"}}\n");
    expect_said(world, "{\"method\":\"log\",\"params\":{\"level\":\"info\",\"text\":\"note\"}}\n");
    world_free(world);
}

/* ---- trouble ---------------------------------------------------------------------------------------------------------------- */

static void ask_the_dead(struct amesh_task *task, void *ctx)
{
    struct world *world = ctx;
    char *answer;
    close(world->fd);
    world->fd = -1;
    world->code = amesh_ask(task, &(struct amesh_question){.prompt = "?"}, &answer, &world->err);
    assert_int_equal(amesh_task_write(task, "into nothing"), AMP_NO_SIDECAR);
    assert_int_equal(amesh_task_wait(task, -1), AMP_NO_SIDECAR);
}

static void test_a_lost_connection_is_an_error_everywhere_and_no_signal(void **state)
{
    struct world *world = world_new(NULL);
    put_task(world, 7, "t-1", "do");
    assert_int_equal(step(world, ask_the_dead), AMP_NO_SIDECAR);
    assert_int_equal(world->code, AMP_NO_SIDECAR);
    assert_int_equal(amesh_serve(world->mesh, note, world, &world->err), AMP_NO_SIDECAR);
    assert_int_not_equal(world->err.message[0], '\0');
    world_free(world);
}

static void test_a_line_that_is_no_frame_ends_the_connection(void **state)
{
    static const char *const lines[] = {"hello\n", "[]\n", "{}\n", "{\"id\":0,\"result\":1}\n", "{\"id\":3}\n", "{\"id\":3,\"result\":1,\"error\":{}}\n", "{\"id\":3,\"error\":1}\n",
                                        "{\"id\":[],\"method\":\"ping\"}\n", "{\"method\":\"drain\",\"params\":3}\n", "{\"a\":1,\"a\":1}\n", "{\"method\":\"\\ud800\"}\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct world *world = world_new(NULL);
        put(world, lines[i]);
        assert_int_equal(step(world, note), AMP_MALFORMED);
        assert_int_equal(step(world, note), AMP_MALFORMED);
        world_free(world);
    }
}

static void test_a_task_without_an_id_is_refused(void **state)
{
    struct world *world = world_new(NULL);
    put(world, "{\"id\":7,\"method\":\"task.run\",\"params\":{}}\n{\"id\":8,\"method\":\"task.run\"}\n{\"id\":9,\"method\":\"task.run\",\"params\":{\"taskId\":\"../x\"}}\n{\"method\":\"task.cancel\"}\n");
    assert_int_equal(step(world, note), AMP_OK);
    assert_int_equal(world->n_tasks, 0);
    expect_said(world, "{\"id\":7,\"error\":{\"code\":-32602");
    expect_said(world, "{\"id\":9,\"error\":{\"code\":-32602");
    world_free(world);
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
    struct world *world = world_new(NULL);
    struct flood flood = {.fd = world->fd, .len = 32u << 20, .byte = 'x'};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_flood, &flood), 0);
    assert_int_equal(amesh_serve(world->mesh, note, world, &world->err), AMP_TOO_LARGE);
    amesh_free(world->mesh);
    world->mesh = NULL;
    pthread_join(thread, NULL);
    assert_true(flood.len > 0);
    world_free(world);
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
    struct world *world = world_new(NULL);
    struct sigaction action = {.sa_handler = on_alarm}, old;
    struct itimerval often = {.it_interval.tv_usec = 500, .it_value.tv_usec = 500}, never = {0};
    size_t pieces = ((4u << 20) + (48u << 10) - 1) / (48u << 10);
    struct flood reader = {.fd = world->fd, .len = pieces + 2}; /* and hello, and the result */
    pthread_t thread;
    sigaction(SIGALRM, &action, &old);
    put_task(world, 7, "t-1", "do");
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* the reader is not to be disturbed */
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, &reader), 0);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    assert_int_equal(step(world, write_much), AMP_OK);
    while (alarms < 3) /* a signal ends a step early, and is no error */
        assert_int_equal(amesh_step(world->mesh, -1, &world->err), AMP_OK);
    setitimer(ITIMER_REAL, &never, NULL);
    pthread_join(thread, NULL);
    sigaction(SIGALRM, &old, NULL);
    assert_int_equal(reader.len, pieces + 2);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_says_what_the_program_is),
        cmocka_unit_test(test_a_refused_hello_is_the_sidecars_error),
        cmocka_unit_test(test_a_sidecar_that_closes_says_why_first),
        cmocka_unit_test(test_without_a_sidecar_the_error_says_how_to_start),
        cmocka_unit_test(test_an_inherited_descriptor_is_taken_over),
        cmocka_unit_test(test_a_task_brings_what_is_known_of_it_and_ends_with_its_handler),
        cmocka_unit_test(test_an_answer_after_input_required_is_at_hand),
        cmocka_unit_test(test_events_are_those_of_the_local_api),
        cmocka_unit_test(test_what_does_not_fit_a_line_is_refused_and_the_task_goes_on),
        cmocka_unit_test(test_a_long_text_is_cut_between_characters),
        cmocka_unit_test(test_a_task_that_waits_for_its_turn_is_cancelled_without_its_handler),
        cmocka_unit_test(test_a_cancel_ends_the_wait_and_takes_the_call_back),
        cmocka_unit_test(test_a_kept_task_outlives_its_handler_and_hears_of_its_cancel),
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
