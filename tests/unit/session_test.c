/* A connection of the local API by its bytes: what is a frame, what is not, what is too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json_room.h"
#include "base/loop.h"
#include "sidecar/session.h"

struct world {
    struct loop *loop;
    struct loop_tick *tick;
    struct session *session;
    int fd; /* our end, for a session on a socket */
    unsigned turns;
    struct amp_buf out; /* what a fed session wrote */
    char method[64], id[64], text[64], reason[128], error[128];
    unsigned n_requests, n_notifications, n_replies, n_texts, n_closed;
    uint64_t number;
    bool refuses_writes, frees_on_request;
};

static void on_request(void *ctx, const char *method, const cJSON *params, const cJSON *id)
{
    struct world *world = ctx;
    (void)snprintf(world->method, sizeof(world->method), "%s", method);
    if (id)
        world->n_requests++;
    else
        world->n_notifications++;
    if (!id)
        return;
    char *text = cJSON_PrintUnformatted(id);
    (void)snprintf(world->id, sizeof(world->id), "%s", text);
    free(text);
    if (world->frees_on_request) {
        session_free(world->session);
        world->session = NULL;
        return;
    }
    assert_int_equal(session_reply(world->session, id, amp_bytes_of("\"done\"")), AMP_OK);
}

static void on_reply(void *ctx, uint64_t number, const cJSON *result, const cJSON *error)
{
    struct world *world = ctx;
    assert_true(!result != !error);
    world->n_replies++;
    world->number = number;
    const char *message = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "message"));
    (void)snprintf(world->error, sizeof(world->error), "%s", message ? message : "");
}

static void on_text(void *ctx, struct amp_bytes line)
{
    struct world *world = ctx;
    world->n_texts++;
    (void)snprintf(world->text, sizeof(world->text), "%.*s", (int)line.len, (const char *)line.data);
}

static void on_closed(void *ctx, const char *reason)
{
    struct world *world = ctx;
    world->n_closed++;
    (void)snprintf(world->reason, sizeof(world->reason), "%s", reason);
}

static enum amp_code write_fed(void *ctx, struct amp_bytes data)
{
    struct world *world = ctx;
    return world->refuses_writes ? AMP_OVERLOADED : amp_buf_append(&world->out, data.data, data.len);
}

static void on_tick(void *ctx)
{
    struct world *world = ctx;
    if (--world->turns == 0)
        loop_stop(world->loop, 0);
    else
        loop_tick_request(world->tick);
}

/* What is ready now is done within a few turns of the loop. */
static void turn(struct world *world, unsigned turns)
{
    world->turns = turns;
    loop_tick_request(world->tick);
    (void)loop_run(world->loop);
}

static const struct session_handlers handlers = {.on_request = on_request, .on_reply = on_reply, .on_text = on_text, .on_closed = on_closed};

static struct world *world_new(bool allows_text)
{
    struct world *world = xcalloc(1, sizeof *world);
    world->loop = loop_new();
    world->tick = loop_tick_new(world->loop, on_tick, world);
    world->fd = -1;
    amp_buf_init(&world->out, 32u << 20);
    world->session = session_new_fed(world->loop, allows_text, &handlers, write_fed, world);
    return world;
}

static struct world *world_new_socket(void)
{
    int fds[2];
    struct world *world = world_new(false);
    session_free(world->session);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    world->fd = fds[0];
    world->session = session_new(world->loop, fds[1], fds[1], false, &handlers, world);
    return world;
}

static void world_free(struct world *world)
{
    session_free(world->session);
    if (world->fd >= 0)
        close(world->fd);
    amp_buf_done(&world->out);
    loop_tick_free(world->tick);
    loop_free(world->loop);
    free(world);
}

static void feed(struct world *world, const char *text)
{
    session_feed(world->session, amp_bytes_of(text));
    turn(world, 3);
}

static const char *written(struct world *world)
{
    assert_int_equal(amp_buf_append(&world->out, "", 1), AMP_OK);
    world->out.len--;
    return (const char *)world->out.data;
}

/* ---- frames ------------------------------------------------------------------------------------------------ */

static void test_a_request_is_answered_under_its_own_id(void **state)
{
    struct world *world = world_new(false);
    feed(world, "{\"jsonrpc\":\"2.0\",\"id\":\"a-7\",\"method\":\"ping\",\"params\":{}}\n{\"id\":7,\"method\":\"ping\"}\n");
    assert_int_equal(world->n_requests, 2);
    assert_string_equal(written(world), "{\"jsonrpc\":\"2.0\",\"id\":\"a-7\",\"result\":\"done\"}\n{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"done\"}\n");
    world_free(world);
}

static void test_a_frame_without_id_is_a_notification_and_gets_no_answer(void **state)
{
    struct world *world = world_new(false);
    feed(world, "{\"method\":\"log\",\"params\":{\"text\":\"x\"}}\n");
    assert_int_equal(world->n_notifications, 1);
    assert_int_equal(world->out.len, 0);
    world_free(world);
}

static void test_our_requests_are_numbered_and_replies_carry_the_number(void **state)
{
    struct world *world = world_new(false);
    uint64_t first, second;
    assert_int_equal(session_request(world->session, "task.run", (struct amp_bytes){0}, &first), AMP_OK);
    assert_int_equal(session_request(world->session, "task.run", (struct amp_bytes){0}, &second), AMP_OK);
    assert_true(second == first + 1);
    feed(world, "{\"id\":2,\"result\":null}\n");
    assert_int_equal(world->number, second);
    feed(world, "{\"id\":1,\"error\":{\"code\":1,\"message\":\"no\"}}\n");
    assert_int_equal(world->number, first);
    assert_string_equal(world->error, "no");
    world_free(world);
}

static void test_half_lines_wait_for_their_other_half(void **state)
{
    struct world *world = world_new(false);
    const char *line = "{\"id\":1,\"method\":\"ping\"}\n";
    for (const char *byte = line; *byte; byte++) {
        assert_int_equal(world->n_requests, 0);
        session_feed(world->session, (struct amp_bytes){(const uint8_t *)byte, 1});
    }
    assert_int_equal(world->n_requests, 1);
    feed(world, "{\"id\":2,\"meth");
    feed(world, "od\":\"ping\"}\r\n\r\n  \n");
    assert_int_equal(world->n_requests, 2);
    assert_int_equal(world->n_closed, 0);
    world_free(world);
}

/* ---- garbage ------------------------------------------------------------------------------------------------ */

static void test_a_bad_line_gets_an_error_with_id_null_and_the_connection_lives(void **state)
{
    static const char *const lines[] = {
        "garbage\n", "{\n", "{\"id\":1,\"id\":1}\n", "[1]\n", "{}\n", "{\"id\":1}\n", "{\"method\":7,\"id\":1}\n", "{\"id\":\"x\",\"result\":1}\n",
        "{\"id\":-1,\"result\":1}\n", "{\"id\":1,\"error\":\"text\"}\n", "{\"method\":\"\xff\"}\n", "{\"params\":{\"id\":1},\"method\":\"a\\u0000b\"}\n", "{\"id\":{},\"method\":\"x\"}\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct world *world = world_new(false);
        feed(world, lines[i]);
        if (!strstr(written(world), "\"id\":null,\"error\""))
            fail_msg("%s → %s", lines[i], written(world));
        feed(world, "{\"id\":1,\"method\":\"ping\"}\n");
        assert_int_equal(world->n_requests, 1);
        assert_int_equal(world->n_replies, 0);
        assert_int_equal(world->n_closed, 0);
        world_free(world);
    }
}

static void test_params_that_are_no_object_are_refused_under_the_requests_id(void **state)
{
    struct world *world = world_new(false);
    feed(world, "{\"id\":5,\"method\":\"send\",\"params\":[1]}\n");
    assert_non_null(strstr(written(world), "\"id\":5,\"error\":{\"code\":-32602"));
    assert_int_equal(world->n_requests, 0);
    world_free(world);
}

static void test_an_id_of_many_bytes_is_refused(void **state)
{
    struct world *world = world_new(false);
    char line[512];
    (void)snprintf(line, sizeof line, "{\"id\":\"%0200d\",\"method\":\"x\"}\n", 0);
    feed(world, line);
    assert_int_equal(world->n_requests, 0);
    assert_non_null(strstr(written(world), "-32600"));
    world_free(world);
}

static void test_thirty_two_bad_lines_in_a_row_close_and_a_good_one_starts_anew(void **state)
{
    struct world *world = world_new(false);
    for (int i = 0; i < 31; i++)
        feed(world, "x\n");
    feed(world, "{\"id\":1,\"method\":\"ping\"}\n");
    for (int i = 0; i < 31; i++)
        feed(world, "x\n");
    assert_int_equal(world->n_closed, 0);
    feed(world, "x\n");
    assert_int_equal(world->n_closed, 1);
    assert_non_null(strstr(world->reason, "too many lines"));
    feed(world, "{\"id\":1,\"method\":\"ping\"}\n");
    assert_int_equal(world->n_requests, 1);
    world_free(world);
}

static void test_a_request_that_is_refused_for_what_is_in_it_is_answered_under_its_id(void **state)
{
    static const char *const lines[] = {
        "{\"id\":7,\"id\":7,\"method\":\"x\"}\n", "{\"id\":7,\"method\":\"\xff\"}\n", "{\"method\":\"a\\u0000b\",\"params\":{\"id\":1,\"a\":\"\\\"id\\\":2\"}, \"id\" : 7}\n",
        "{\"params\":[[{\"id\":1}],1e999],\"method\":\"x\",\"id\":7}\n", "{\"id\":7,\"method\":\"x\",\"params\":{\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct world *world = world_new(false);
        feed(world, lines[i]);
        if (!strstr(written(world), "\"id\":7,\"error\":{\"code\":-32700"))
            fail_msg("%s → %s", lines[i], written(world));
        assert_int_equal(world->n_requests, 0);
        world_free(world);
    }
}

static void test_json_nested_too_deep_is_refused_under_its_id(void **state)
{
    struct world *world = world_new(false);
    struct amp_buf line;
    amp_buf_init(&line, 1u << 20);
    assert_int_equal(amp_buf_printf(&line, "{\"method\":\"x\",\"params\":{\"a\":"), AMP_OK);
    for (int i = 0; i < 200000; i++)
        assert_int_equal(amp_buf_append(&line, i < 100000 ? "[" : "]", 1), AMP_OK);
    assert_int_equal(amp_buf_printf(&line, "},\"id\":\"seven\"}\n"), AMP_OK);
    session_feed(world->session, amp_buf_bytes(&line));
    turn(world, 3);
    assert_int_equal(world->n_requests, 0);
    assert_non_null(strstr(written(world), "\"id\":\"seven\",\"error\""));
    assert_non_null(strstr(written(world), "too_deep"));
    amp_buf_done(&line);
    world_free(world);
}

static void test_a_line_over_a_mebibyte_is_one_bad_line_and_the_next_one_counts(void **state)
{
    struct world *world = world_new(false);
    char *chunk = xcalloc(1, 65537);
    memset(chunk, 'a', 65536);
    for (int i = 0; i < 64; i++)
        session_feed(world->session, amp_bytes_of(chunk));
    feed(world, "\n{\"id\":1,\"method\":\"ping\"}\n");
    assert_int_equal(world->n_requests, 1);
    assert_non_null(strstr(written(world), "AMESH-1003"));
    assert_null(strstr(strstr(written(world), "AMESH-1003") + 1, "AMESH-1003"));
    free(chunk);
    world_free(world);
}

static void test_a_line_of_exactly_a_mebibyte_is_taken(void **state)
{
    struct world *world = world_new(false);
    struct amp_buf line;
    amp_buf_init(&line, AMP_LINE_MAX + 1);
    assert_int_equal(amp_buf_printf(&line, "{\"id\":1,\"method\":\"x\",\"params\":{\"a\":\""), AMP_OK);
    while (line.len < AMP_LINE_MAX - 3)
        assert_int_equal(amp_buf_append(&line, "b", 1), AMP_OK);
    assert_int_equal(amp_buf_append(&line, "\"}}\n", 4), AMP_OK);
    session_feed(world->session, amp_buf_bytes(&line));
    assert_int_equal(world->n_requests, 1);
    amp_buf_done(&line);
    world_free(world);
}

static void test_in_jsonl_other_lines_are_text_and_never_bad(void **state)
{
    struct world *world = world_new(true);
    for (int i = 0; i < 100; i++)
        feed(world, "Loading the model …\n");
    assert_int_equal(world->n_texts, 100);
    assert_string_equal(world->text, "Loading the model …");
    assert_int_equal(world->n_closed, 0);
    feed(world, "  {\"id\":1,\"method\":\"ping\"}\n");
    assert_int_equal(world->n_requests, 1);
    world_free(world);
}

/* ---- ends ---------------------------------------------------------------------------------------------------- */

static void test_the_end_in_mid_line_says_so(void **state)
{
    struct world *world = world_new(false);
    feed(world, "{\"id\":1,");
    session_feed(world->session, (struct amp_bytes){NULL, 0});
    assert_int_equal(world->n_closed, 1);
    assert_non_null(strstr(world->reason, "middle of a line"));
    uint64_t number;
    assert_int_not_equal(session_request(world->session, "x", (struct amp_bytes){0}, &number), AMP_OK);
    world_free(world);
}

static void test_a_session_may_be_freed_inside_its_callback(void **state)
{
    struct world *world = world_new(false);
    world->frees_on_request = true;
    session_feed(world->session, amp_bytes_of("{\"id\":1,\"method\":\"a\"}\n{\"id\":2,\"method\":\"b\"}\n"));
    assert_string_equal(world->method, "a");
    assert_null(world->session);
    world_free(world);
}

static void test_an_agent_that_does_not_read_is_told_by_overloaded(void **state)
{
    struct world *world = world_new_socket();
    char *big = xcalloc(1, 1u << 20);
    memset(big, 'x', (1u << 20) - 1);
    big[0] = big[(1u << 20) - 2] = '"';
    enum amp_code code = AMP_OK;
    int n = 0;
    for (; n < 64 && code == AMP_OK; n++) {
        code = session_notify(world->session, "task.cancel", amp_bytes_of(big));
        turn(world, 2);
    }
    assert_int_equal(code, AMP_OVERLOADED);
    assert_true(n >= 15 && n <= 20);
    assert_int_equal(world->n_closed, 0);
    free(big);
    world_free(world);
}

static void test_streams_that_are_held_back_have_more_room(void **state)
{
    struct world *world = world_new_socket();
    char *big = xcalloc(1, 1u << 20);
    memset(big, 'x', (1u << 20) - 1);
    big[0] = big[(1u << 20) - 2] = '"';
    int n = 0;
    while (n < 80 && session_stream(world->session, "send.event", &(struct amp_bytes){(const uint8_t *)big, (1u << 20) - 1}, 1) == AMP_OK)
        n++;
    assert_true(n >= 60 && n <= 64);
    assert_int_equal(session_notify(world->session, "task.cancel", (struct amp_bytes){0}), AMP_OVERLOADED);
    assert_true(session_waiting(world->session) > (size_t)n << 20);
    free(big);
    world_free(world);
}

static void test_a_fed_agent_that_refuses_bytes_ends_the_session(void **state)
{
    struct world *world = world_new(false);
    world->refuses_writes = true;
    feed(world, "{\"id\":1,\"method\":\"ping\"}\n");
    assert_int_equal(world->n_closed, 1);
    assert_non_null(strstr(world->reason, "does not read"));
    world_free(world);
}

/* ---- sockets --------------------------------------------------------------------------------------------------- */

static void test_what_is_said_in_one_turn_leaves_in_order(void **state)
{
    struct world *world = world_new_socket();
    char buffer[4096] = "";
    uint64_t number;
    for (int i = 0; i < 10; i++)
        assert_int_equal(session_request(world->session, "m", (struct amp_bytes){0}, &number), AMP_OK);
    turn(world, 2);
    ssize_t n = recv(world->fd, buffer, sizeof buffer - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    const char *at = buffer;
    for (int i = 1; i <= 10; i++) {
        char want[32];
        (void)snprintf(want, sizeof want, "\"id\":%d,", i);
        at = strstr(at, want);
        assert_non_null(at);
    }
    world_free(world);
}

static void test_a_hangup_is_reported_once_after_the_last_line(void **state)
{
    struct world *world = world_new_socket();
    const char *line = "{\"id\":1,\"method\":\"ping\"}\n";
    assert_int_equal(write(world->fd, line, strlen(line)), (int)strlen(line));
    close(world->fd);
    world->fd = -1;
    turn(world, 6);
    assert_int_equal(world->n_requests, 1);
    assert_int_equal(world->n_closed, 1);
    world_free(world);
}

static void test_close_reports_its_reason_and_lets_the_last_words_out(void **state)
{
    struct world *world = world_new_socket();
    char buffer[256] = "";
    assert_int_equal(session_notify(world->session, "drain", (struct amp_bytes){0}), AMP_OK);
    session_close(world->session, "enough");
    assert_int_equal(world->n_closed, 0);
    turn(world, 3);
    assert_int_equal(world->n_closed, 1);
    assert_string_equal(world->reason, "enough");
    assert_true(recv(world->fd, buffer, sizeof buffer - 1, 0) > 0);
    assert_non_null(strstr(buffer, "drain"));
    assert_int_equal(recv(world->fd, buffer, sizeof buffer, 0), 0);
    world_free(world);
}

static void test_pump_reads_what_came_before_the_end(void **state)
{
    struct world *world = world_new_socket();
    const char *line = "{\"id\":1,\"result\":\"last words\"}\n";
    assert_int_equal(write(world->fd, line, strlen(line)), (int)strlen(line));
    close(world->fd);
    world->fd = -1;
    session_pump(world->session);
    assert_int_equal(world->n_replies, 1);
    assert_int_equal(world->n_closed, 1);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_answered_under_its_own_id),
        cmocka_unit_test(test_a_frame_without_id_is_a_notification_and_gets_no_answer),
        cmocka_unit_test(test_our_requests_are_numbered_and_replies_carry_the_number),
        cmocka_unit_test(test_half_lines_wait_for_their_other_half),
        cmocka_unit_test(test_a_bad_line_gets_an_error_with_id_null_and_the_connection_lives),
        cmocka_unit_test(test_params_that_are_no_object_are_refused_under_the_requests_id),
        cmocka_unit_test(test_an_id_of_many_bytes_is_refused),
        cmocka_unit_test(test_thirty_two_bad_lines_in_a_row_close_and_a_good_one_starts_anew),
        cmocka_unit_test(test_a_request_that_is_refused_for_what_is_in_it_is_answered_under_its_id),
        cmocka_unit_test(test_json_nested_too_deep_is_refused_under_its_id),
        cmocka_unit_test(test_a_line_over_a_mebibyte_is_one_bad_line_and_the_next_one_counts),
        cmocka_unit_test(test_a_line_of_exactly_a_mebibyte_is_taken),
        cmocka_unit_test(test_in_jsonl_other_lines_are_text_and_never_bad),
        cmocka_unit_test(test_the_end_in_mid_line_says_so),
        cmocka_unit_test(test_a_session_may_be_freed_inside_its_callback),
        cmocka_unit_test(test_an_agent_that_does_not_read_is_told_by_overloaded),
        cmocka_unit_test(test_streams_that_are_held_back_have_more_room),
        cmocka_unit_test(test_a_fed_agent_that_refuses_bytes_ends_the_session),
        cmocka_unit_test(test_what_is_said_in_one_turn_leaves_in_order),
        cmocka_unit_test(test_a_hangup_is_reported_once_after_the_last_line),
        cmocka_unit_test(test_close_reports_its_reason_and_lets_the_last_words_out),
        cmocka_unit_test(test_pump_reads_what_came_before_the_end),
    };
    json_room_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
