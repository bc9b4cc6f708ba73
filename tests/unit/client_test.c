/* The mesh client by its bytes: the connection, tasks, what is said in them, how they end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client_world.h"

/* ---- the connection ------------------------------------------------------------------------------------------------- */

static void test_hello_says_what_the_program_is(void **state)
{
    struct client_world *world = client_world_new(&(struct amesh_options){.concurrency = 3, .card_json = "{\"name\":\n\"x\"}"});
    expect_said(world, "\"method\":\"hello\",\"params\":{\"proto\":1,\"role\":\"worker\",\"concurrency\":3,\"framework\":\"c\",\"card\":{\"name\": \"x\"}}}\n");
    assert_string_equal(amesh_agent(world->mesh), "me");
    assert_string_equal(amesh_instance(world->mesh), "i-1");
    client_world_free(world);
}

static void test_skills_become_a_card(void **state)
{
    struct client_world *world = client_world_new(&(struct amesh_options){.skills = (const char *const[]){"paint", "mix:two \"cans\"", NULL}});
    expect_said(world, "\"card\":{\"skills\":[{\"id\":\"paint\"},{\"id\":\"mix\",\"description\":\"two \\\"cans\\\"\"}]}}}\n");
    client_world_free(world);
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
    assert_int_equal(send(fds[0], CLIENT_WORLD_HELLO, strlen(CLIENT_WORLD_HELLO), 0), (ssize_t)strlen(CLIENT_WORLD_HELLO));
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

static void test_a_task_brings_what_is_known_of_it_and_ends_with_its_handler(void **state)
{
    struct client_world *world = client_world_new(NULL);
    client_world_put_task(world, 7, "t-1", "do");
    assert_int_equal(client_world_step(world, client_world_note), AMP_OK);
    assert_string_equal(world->seen, "t-1 c-1 do you 2 t-up -");
    expect_said(world, "{\"id\":7,\"result\":null}\n");
    client_world_free(world);
}

static void look(struct amesh_task *task, void *ctx)
{
    assert_int_equal(amesh_task_require_input(task, "%s %s %s?", task->resume, amesh_task_meta_json(task), amesh_task_message_json(task)), AMP_OK);
    assert_int_equal(amesh_task_fail(task, "twice"), AMP_TASK_ENDED);
    assert_int_equal(amesh_task_write(task, "late"), AMP_TASK_ENDED);
}

static void test_an_answer_after_input_required_is_at_hand(void **state)
{
    struct client_world *world = client_world_new(NULL);
    client_world_put(world, "{\"id\":\"a b\",\"method\":\"task.run\",\"params\":{\"taskId\":\"t-1\",\"text\":\"x\",\"resume\":{\"text\":\"blue\"},\"meta\":{\"k\":1}}}\n");
    assert_int_equal(client_world_step(world, look), AMP_OK);
    expect_said(world, "{\"id\":\"a b\",\"result\":{\"state\":\"input-required\",\"message\":\"blue {\\\"k\\\":1} {}?\"}}\n");
    client_world_free(world);
}

static void say_all(struct amesh_task *task, void *ctx)
{
    struct client_world *world = ctx;
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
    struct client_world *world = client_world_new(NULL);
    client_world_put_task(world, 7, "t-1", "do");
    assert_int_equal(client_world_step(world, say_all), AMP_OK);
    assert_int_equal(world->n_tasks, 1);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        expect_said(world, wanted[i]);
    for (char *line = strtok(world->said, "\n"); line; line = strtok(NULL, "\n")) {
        cJSON *json = NULL;
        assert_int_equal(amp_json_parse(amp_bytes_of(line), &json, NULL), AMP_OK);
        cJSON_Delete(json);
    }
    client_world_free(world);
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
    struct client_world *world = client_world_new(NULL);
    client_world_forget(world);
    client_world_put_task(world, 7, "t-1", "do");
    assert_int_equal(client_world_step(world, too_large), AMP_OK);
    assert_string_equal(client_world_said(world), "{\"id\":7,\"result\":{\"data\":1}}\n");
    client_world_free(world);
}

static void long_text(struct amesh_task *task, void *ctx)
{
    struct client_world *world = ctx;
    char text[60001];
    for (size_t i = 0; i < 60000; i += 3)
        memcpy(text + i, "\xe4\xb8\x96", 3);
    text[60000] = '\0';
    world->code = amesh_task_complete(task, text);
}

static void test_a_long_text_is_cut_between_characters(void **state)
{
    struct client_world *world = client_world_new(NULL);
    client_world_forget(world);
    client_world_put_task(world, 7, "t-1", "do");
    assert_int_equal(client_world_step(world, long_text), AMP_OK);
    assert_int_equal(world->code, AMP_OK);
    assert_null(strstr(client_world_said(world), "\xef\xbf\xbd"));
    size_t lines = 0;
    for (const char *at = world->said; (at = strchr(at, '\n')); at++)
        lines++;
    assert_int_equal(lines, 3);
    expect_said(world, "{\"id\":7,\"result\":null}\n");
    client_world_free(world);
}

/* ---- cancel ------------------------------------------------------------------------------------------------------------- */

static void test_a_task_that_waits_for_its_turn_is_cancelled_without_its_handler(void **state)
{
    struct client_world *world = client_world_new(NULL);
    client_world_put_task(world, 7, "t-1", "do");
    client_world_put(world, "{\"method\":\"task.cancel\",\"params\":{\"taskId\":\"t-1\"}}\n");
    assert_int_equal(client_world_step(world, client_world_note), AMP_OK);
    assert_int_equal(world->n_tasks, 0);
    expect_said(world, "{\"id\":7,\"result\":{\"state\":\"canceled\"}}\n");
    client_world_free(world);
}

static void send_while_canceled(struct amesh_task *task, void *ctx)
{
    struct client_world *world = ctx;
    struct amesh_answer answer;
    char *text;
    assert_false(amesh_task_is_canceled(task));
    client_world_put(world, "{\"method\":\"task.cancel\",\"params\":{\"taskId\":\"t-other\"}}\n{\"method\":\"task.cancel\",\"params\":{\"taskId\":\"t-1\"}}\n");
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
    struct client_world *world = client_world_new(NULL);
    client_world_put_task(world, 7, "t-1", "do");
    assert_int_equal(client_world_step(world, send_while_canceled), AMP_OK);
    assert_int_equal(world->code, AMP_CANCELED);
    expect_said(world, "{\"id\":2,\"method\":\"send\",\"params\":{\"taskId\":\"t-1\",\"to\":\"you\",\"text\":\"x\"}}\n");
    expect_said(world, "{\"method\":\"send.cancel\",\"params\":{\"id\":2}}\n");
    expect_said(world, "{\"id\":7,\"result\":{\"state\":\"canceled\"}}\n");
    /* The late reply has nobody who waits for it. */
    client_world_put(world, "{\"id\":2,\"error\":{\"code\":-32800,\"message\":\"x\"}}\n");
    assert_int_equal(client_world_step(world, client_world_note), AMP_OK);
    client_world_free(world);
}

static void keep(struct amesh_task *task, void *ctx)
{
    struct client_world *world = ctx;
    world->n_tasks++;
    world->kept = task;
    amesh_task_keep(task);
}

static void test_a_kept_task_outlives_its_handler_and_hears_of_its_cancel(void **state)
{
    struct client_world *world = client_world_new(&(struct amesh_options){.concurrency = 2});
    client_world_put_task(world, 7, "t-1", "do");
    client_world_put_task(world, 8, "t-2", "do");
    client_world_put_task(world, 9, "t-3", "one too many");
    assert_int_equal(client_world_step(world, keep), AMP_OK);
    assert_int_equal(world->n_tasks, 2);
    expect_said(world, "{\"id\":9,\"error\":{");
    assert_int_equal(amesh_task_complete(world->kept, "done"), AMP_OK);
    expect_said(world, "{\"id\":8,\"result\":\"done\"}\n");
    client_world_put(world, "{\"method\":\"task.cancel\",\"params\":{\"taskId\":\"t-1\"}}\n");
    assert_int_equal(client_world_step(world, keep), AMP_OK);
    assert_int_equal(world->n_cancels, 1);
    expect_said(world, "{\"id\":7,\"result\":{\"state\":\"canceled\",\"message\":\"as told\"}}\n");
    client_world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_says_what_the_program_is),
        cmocka_unit_test(test_skills_become_a_card),
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
