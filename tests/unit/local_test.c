/* The local socket with real programs at its other end: curl for HTTP, python3 for what curl refuses to send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent_world.h"
#include "base/alloc.h"
#include "base/call.h"
#include "base/counters.h"
#include "base/loop.h"
#include "sidecar/local.h"

#define COMPLETED AMP__TASK_STATE__TASK_STATE_COMPLETED
#define FAILED AMP__TASK_STATE__TASK_STATE_FAILED
#define CANCELED AMP__TASK_STATE__TASK_STATE_CANCELED

static struct agent_world *world_of(enum sidecar_mode mode, char *const *argv, uint32_t slots)
{
    const struct sidecar_options options = {.mode = mode, .argv = argv, .slots = slots};
    return agent_world_new(&options);
}

static struct agent_world *exec_world(const char *script)
{
    static char *argv[] = {(char *)"sh", (char *)"-c", NULL, NULL}; /* borrowed for the sidecar's life */
    argv[2] = (char *)script;
    struct agent_world *world = world_of(SIDECAR_EXEC, argv, 4);
    agent_world_ready(world);
    return world;
}

static struct agent_program *shell(struct agent_world *world, const char *script)
{
    char *whole = xasprintf("api() { curl -sS --max-time 20 --unix-socket \"$AMESH_SOCK\" \"$@\"; }\n%s", script);
    char *argv[] = {(char *)"sh", (char *)"-c", whole, NULL};
    struct agent_program *program = agent_program_new(world, argv);
    free(whole);
    return program;
}

/* What the script prints. */
static void expect_out(struct agent_world *world, const char *script, const char *want)
{
    struct agent_program *program = shell(world, script);
    agent_program_end(program);
    if (!strstr(agent_program_out(program), want))
        fail_msg("%s\n→ %s\nwanted: %s", script, agent_program_out(program), want);
    agent_program_free(program);
}

/* ---- the socket -------------------------------------------------------------------------------------------- */

static void test_the_socket_is_the_users_own(void **state)
{
    struct agent_world *world = exec_world("cat");
    struct stat info;
    assert_int_equal(stat(world->socket, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    agent_world_free(world);
}

static void test_a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
    struct agent_world *world = exec_world("cat");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct amp_error err = {0};
    struct local *local = NULL;
    assert_int_equal(local_new(world->sidecar, world->socket, &local, &err), AMP_RUNNING);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/stale.sock", world->dir);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_int_equal(local_new(world->sidecar, address.sun_path, &local, &err), AMP_OK);
    local_free(local);
    assert_int_not_equal(access(address.sun_path, F_OK), 0);
    agent_world_free(world);
}

static void test_the_first_byte_decides(void **state)
{
    struct agent_world *world = exec_world("cat");
    expect_out(world, "api http://x/v1/health", "\"agent\":\"worker\"");
    expect_out(world, "python3 -c 'import socket,os; s=socket.socket(socket.AF_UNIX); s.connect(os.environ[\"AMESH_SOCK\"]); s.send(b\"\\x00\\x01\"); print(s.recv(999)); print(s.recv(9))'",
               "the first byte must be");
    expect_out(world,
               "python3 -c 'import socket,os; s=socket.socket(socket.AF_UNIX); s.connect(os.environ[\"AMESH_SOCK\"]); s.send(b\"{\\\"id\\\":1,\\\"method\\\":\\\"ping\\\"}\\n\"); print(s.recv(999))'",
               "\"id\":1,\"result\":{}");
    agent_world_free(world);
}

static void test_more_connections_than_allowed_are_told(void **state)
{
    struct agent_world *world = exec_world("cat");
    uint64_t refused = counter_get(COUNTER_local_refused);
    expect_out(world,
               "python3 -c 'import socket,os\nl=[]\nfor i in range(300):\n s=socket.socket(socket.AF_UNIX); s.connect(os.environ[\"AMESH_SOCK\"]); l.append(s)\n"
               "l[-1].settimeout(9); print(l[-1].recv(999))'",
               "too many connections");
    assert_int_equal(counter_get(COUNTER_local_refused) - refused, 44);
    expect_out(world, "api http://x/v1/health", "worker");
    agent_world_free(world);
}

/* ---- HTTP, its limits ----------------------------------------------------------------------------------------- */

static void test_web_pages_are_refused(void **state)
{
    struct agent_world *world = exec_world("cat");
    expect_out(world, "api -w '%{http_code}' -H 'Origin: http://evil.example' http://x/v1/health", "403");
    expect_out(world, "api -w '%{http_code}' -H 'Host: evil.example' http://x/v1/health", "200");
    agent_world_free(world);
}

static void test_unknown_addresses_and_methods_say_so(void **state)
{
    struct agent_world *world = exec_world("cat");
    expect_out(world, "api -w '%{http_code}' http://x/v2/health", "404");
    expect_out(world, "api -w '%{http_code}' -X POST -d x http://x/v1/health", "405");
    expect_out(world, "api -i -X OPTIONS http://x/v1/kv/shared/k", "Allow: GET, PUT, DELETE");
    expect_out(world, "api -I http://x/v1/work", "405"); /* it would take a task that nobody sees */
    expect_out(world, "api -i -X PATCH http://x/v1/health", "AMESH-1006");
    expect_out(world, "api -w '%{http_code}' http://x/v1/tasks//events", "404");
    expect_out(world, "api -w '%{http_code}' http://x/v1/work", "501");
    expect_out(world, "api -w '%{http_code}' 'http://x/v1/tasks/t-nobody/events' -d '{\"type\":\"text\",\"text\":\"x\"}'", "404");
    expect_out(world, "api -w '%{http_code}' 'http://x/v1/send/worker?timeout=abc' -d x", "400");
    agent_world_free(world);
}

static void test_bodies_and_headers_have_limits(void **state)
{
    struct agent_world *world = exec_world("cat");
    expect_out(world, "head -c 1100000 /dev/zero | tr '\\0' a | api -o /dev/null -w '%{http_code}' -H 'Expect:' --data-binary @- http://x/v1/send/worker 2>&1 || true", "413");
    expect_out(world, "h=$(head -c 40000 /dev/zero | tr '\\0' a); api -o /dev/null -w '%{http_code}' -H \"X-Big: $h\" http://x/v1/health 2>&1 || echo closed", "");
    expect_out(world, "api http://x/v1/health", "worker");
    agent_world_free(world);
}

/* ---- send -------------------------------------------------------------------------------------------------------- */

static void test_send_answers_in_the_form_that_is_wanted(void **state)
{
    struct agent_world *world = exec_world("printf 'got '; cat");
    expect_out(world, "api -H 'Accept: text/plain' -d hello http://x/v1/send/worker", "got hello");
    expect_out(world, "api -d hello http://x/v1/send/worker", "\"state\":\"TASK_STATE_COMPLETED\"");
    expect_out(world, "api -H 'Content-Type: application/json' -d '{\"text\":\"hi\"}' http://x/v1/send/worker", "\"amp/agent\":\"worker\"");
    expect_out(world, "api -H 'Accept: text/event-stream' -d hello http://x/v1/send/worker | grep -c '^id:'", "");
    expect_out(world, "api -H 'Accept: text/event-stream' -d hello http://x/v1/send/worker", "event: end\ndata: {\"state\":\"TASK_STATE_COMPLETED\"}");
    expect_out(world, "api -w '%{http_code}' -H 'Accept: text/plain' -d hello http://x/v1/send/nobody", "404");
    expect_out(world, "api -d hello http://x/v1/send/nobody", "\"name\":\"no_such_agent\"");
    expect_out(world, "api -d hello 'http://x/v1/send/worker?context=UPPER'", "invalid");
    agent_world_free(world);
}

static void test_a_failure_is_an_error_for_those_who_want_text(void **state)
{
    struct agent_world *world = exec_world("echo 'out of paint' >&2; exit 3");
    expect_out(world, "api -w '%{http_code}' -H 'Accept: text/plain' -d x http://x/v1/send/worker", "out of paint");
    expect_out(world, "api -o /dev/null -w '%{http_code}' -H 'Accept: text/plain' -d x http://x/v1/send/worker", "50");
    expect_out(world, "api -w '%{http_code}' -d x http://x/v1/send/worker", "TASK_STATE_FAILED");
    agent_world_free(world);
}

static void test_text_arrives_while_it_is_made(void **state)
{
    /* The agent goes on only when its first words were seen. */
    struct agent_world *world = exec_world("printf first; cat \"${AMESH_SOCK%/*}/go\"; printf ' second'");
    char *fifo = xasprintf("%s/go", world->dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    free(fifo);
    expect_out(world, "api -N -H 'Accept: text/plain' -d x http://x/v1/send/worker | python3 -u -c 'import os,sys\nprint(os.read(0,99)); open(os.path.dirname(os.environ[\"AMESH_SOCK\"])+\"/go\",\"w\"); print(sys.stdin.read())'",
               "b'first'\n second");
    agent_world_free(world);
}

static void test_a_failure_after_the_first_words_breaks_the_answer_off(void **state)
{
    struct agent_world *world = exec_world("printf words; exit 3");
    expect_out(world, "api -H 'Accept: text/plain' -d x http://x/v1/send/worker 2>/dev/null; echo \" exit $?\"", "words exit 18");
    expect_out(world, "api http://x/v1/health", "worker");
    agent_world_free(world);
}

static void test_a_slow_reader_has_all_of_it(void **state)
{
    struct agent_world *world = exec_world("head -c 40000000 /dev/zero | tr '\\0' z");
    uint64_t overflows = counter_get(COUNTER_local_overflows);
    expect_out(world,
               "python3 -c 'import socket,os,time; s=socket.socket(socket.AF_UNIX); s.connect(os.environ[\"AMESH_SOCK\"])\n"
               "s.sendall(b\"POST /v1/send/worker HTTP/1.1\\r\\nAccept: text/plain\\r\\nContent-Length: 1\\r\\n\\r\\nx\")\n"
               "n=0; b=s.recv(4096).partition(b\"\\r\\n\\r\\n\")[2]\n"
               "while not b.endswith(b\"\\r\\n0\\r\\n\\r\\n\"): n+=b.count(b\"z\"); b=b[-9:].replace(b\"z\", b\"\")+s.recv(4096)\nprint(n+b.count(b\"z\"))'",
               "40000000");
    assert_int_equal(counter_get(COUNTER_local_overflows) - overflows, 0);
    expect_out(world, "api http://x/v1/health", "worker");
    agent_world_free(world);
}

static void test_a_client_that_leaves_cancels_its_call(void **state)
{
    struct agent_world *world = exec_world("printf working; exec tail -f /dev/null");
    uint64_t canceled = counter_get(COUNTER_tasks_canceled);
    expect_out(world,
               "python3 -c 'import socket,os; s=socket.socket(socket.AF_UNIX); s.connect(os.environ[\"AMESH_SOCK\"])\n"
               "s.sendall(b\"POST /v1/send/worker HTTP/1.1\\r\\nAccept: text/plain\\r\\nContent-Length: 1\\r\\n\\r\\nx\")\nb=b\"\"\n"
               "while b\"working\" not in b: b+=s.recv(999)\nprint(b)'",
               "working");
    for (int i = 0; i < 1000 && counter_get(COUNTER_tasks_canceled) == canceled; i++) {
        loop_timer_set(world->late, 10);
        (void)loop_run(world->loop);
    }
    assert_int_equal(counter_get(COUNTER_tasks_canceled) - canceled, 1);
    agent_world_free(world);
}

static void test_a_program_run_per_task_speaks_with_curl(void **state)
{
    struct agent_world *world = exec_world("curl -sS --unix-socket \"$AMESH_SOCK\" -d '{\"type\":\"status\",\"text\":\"half way\"}' http://x/v1/tasks/$AMESH_TASK/events >/dev/null;"
                                           "curl -sS --unix-socket \"$AMESH_SOCK\" http://x/v1/tasks/$AMESH_TASK");
    struct agent_call *call = agent_call_new(world, "x");
    agent_call_end(call);
    assert_int_equal(call->state, COMPLETED);
    assert_non_null(strstr(call->events, "half way"));
    assert_non_null(strstr(call->text, "TASK_STATE_WORKING"));
    agent_call_free(call);
    agent_world_free(world);
}

static void test_a_question_whose_asker_went_away_is_withdrawn(void **state)
{
    struct agent_world *world = exec_world("curl -sS -m 0.3 --unix-socket \"$AMESH_SOCK\" -d 'which one?' http://x/v1/tasks/$AMESH_TASK/ask 2>/dev/null;"
                                           "until curl -sS --unix-socket \"$AMESH_SOCK\" http://x/v1/tasks/$AMESH_TASK | grep -q WORKING; do :; done; echo went on");
    struct agent_call *call = agent_call_new(world, "x");
    agent_call_end(call);
    assert_int_equal(call->state, COMPLETED);
    assert_string_equal(call->text, "went on\n");
    assert_non_null(strstr(call->events, "which one?"));
    assert_non_null(strstr(call->events, "the question was withdrawn"));
    agent_call_free(call);
    agent_world_free(world);
}

static void test_what_the_environment_does_says_that_there_is_none(void **state)
{
    struct agent_world *world = exec_world("cat");
    expect_out(world, "api http://x/v1/agents", "no_env");
    expect_out(world, "api http://x/v1/kv/shared/k", "no_env");
    expect_out(world, "api -d x 'http://x/v1/send/worker?durable=1'", "no_env");
    expect_out(world, "api http://x/v1/kv/nonsense/k", "scope is context, agent or shared");
    expect_out(world, "api http://x/v1/kv/context/k", "needs contextId");
    expect_out(world, "api -X PUT -d '{bad' http://x/v1/kv/shared/k", "malformed");
    expect_out(world, "api -d 'a line' http://x/v1/log", "{}");
    agent_world_free(world);
}

/* ---- work -------------------------------------------------------------------------------------------------------- */

static const char worker[] =
    "while w=$(api 'http://x/v1/work?wait=5&lease=2') && [ -n \"$w\" ]; do\n"
    "id=$(printf %s \"$w\" | sed 's/.*\"taskId\":\"\\([^\"]*\\).*/\\1/'); t=$(printf %s \"$w\" | sed 's/.*\"text\":\"\\([^\"]*\\)\",\"message.*/\\1/')\n"
    "case \"$t\" in\n"
    "vanish) : ;;\n"
    "hang) until api -H 'Content-Type: text/plain' -d 'w' http://x/v1/tasks/$id/events | grep -q true; do :; done; api -d '{\"state\":\"canceled\"}' http://x/v1/tasks/$id/result ;;\n"
    "events) printf '{\"type\":\"text\",\"text\":\"a\"}\\n{\"type\":\"text\",\"text\":\"b\"}\\n' | api -H 'Content-Type: application/x-ndjson' --data-binary @- http://x/v1/tasks/$id/events; api -X POST http://x/v1/tasks/$id/result ;;\n"
    "*) api -H 'Content-Type: text/plain' -d \"did $t\" http://x/v1/tasks/$id/result ;;\n"
    "esac >/dev/null; done";

static void test_a_long_polling_worker_gets_tasks_and_reports(void **state)
{
    struct agent_world *world = world_of(SIDECAR_DIAL, NULL, 1);
    struct agent_program *program = shell(world, worker);
    static const char *const pairs[][2] = {{"one", "did one"}, {"two", "did two"}, {"events", "ab"}, {"three", "did three"}};
    agent_world_ready(world);
    for (size_t i = 0; i < 4; i++) {
        struct agent_call *call = agent_call_new(world, pairs[i][0]);
        agent_call_end(call);
        if (call->state != COMPLETED || strcmp(call->text, pairs[i][1]) != 0)
            fail_msg("%s → %s \"%s\" %s", pairs[i][0], amp_task_state_name(call->state), call->text, call->reason);
        agent_call_free(call);
    }
    agent_program_free(program);
    agent_world_free(world);
}

static void test_a_worker_that_vanishes_loses_its_lease(void **state)
{
    struct agent_world *world = world_of(SIDECAR_DIAL, NULL, 1);
    struct agent_program *program = shell(world, worker);
    agent_world_ready(world);
    struct agent_call *call = agent_call_new(world, "vanish");
    agent_call_end(call);
    assert_int_equal(call->state, FAILED);
    assert_int_equal(call->err.code, AMP_AGENT_DIED);
    assert_non_null(strstr(call->reason, "not heard of"));
    agent_call_free(call);
    agent_program_free(program);
    agent_world_free(world);
}

static void test_a_polling_worker_hears_of_a_cancel_when_it_reports(void **state)
{
    struct agent_world *world = world_of(SIDECAR_DIAL, NULL, 1);
    struct agent_program *program = shell(world, worker);
    agent_world_ready(world);
    struct agent_call *call = agent_call_new(world, "hang");
    agent_world_wait_count(world, &call->n_events, 2);
    call_cancel(call->call, NULL);
    agent_call_end(call);
    assert_int_equal(call->state, CANCELED);
    agent_call_free(call);
    agent_program_free(program);
    agent_world_free(world);
}

static void test_a_poll_without_work_ends_with_204_and_drain_ends_it_at_once(void **state)
{
    struct agent_world *world = world_of(SIDECAR_DIAL, NULL, 1);
    expect_out(world, "api -w '%{http_code}' 'http://x/v1/work?wait=0'", "204");
    agent_world_free(world);
    world = world_of(SIDECAR_DIAL, NULL, 1);
    struct agent_program *program = shell(world, "api -w '%{http_code}' 'http://x/v1/work?wait=15'");
    agent_world_ready(world);
    sidecar_drain(world->sidecar, 1000);
    agent_program_end(program);
    assert_string_equal(agent_program_out(program), "204");
    agent_program_free(program);
    agent_world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_socket_is_the_users_own),
        cmocka_unit_test(test_a_stale_socket_is_replaced_and_a_live_one_is_not),
        cmocka_unit_test(test_the_first_byte_decides),
        cmocka_unit_test(test_more_connections_than_allowed_are_told),
        cmocka_unit_test(test_web_pages_are_refused),
        cmocka_unit_test(test_unknown_addresses_and_methods_say_so),
        cmocka_unit_test(test_bodies_and_headers_have_limits),
        cmocka_unit_test(test_send_answers_in_the_form_that_is_wanted),
        cmocka_unit_test(test_a_failure_is_an_error_for_those_who_want_text),
        cmocka_unit_test(test_text_arrives_while_it_is_made),
        cmocka_unit_test(test_a_failure_after_the_first_words_breaks_the_answer_off),
        cmocka_unit_test(test_a_slow_reader_has_all_of_it),
        cmocka_unit_test(test_a_client_that_leaves_cancels_its_call),
        cmocka_unit_test(test_a_program_run_per_task_speaks_with_curl),
        cmocka_unit_test(test_a_question_whose_asker_went_away_is_withdrawn),
        cmocka_unit_test(test_what_the_environment_does_says_that_there_is_none),
        cmocka_unit_test(test_a_long_polling_worker_gets_tasks_and_reports),
        cmocka_unit_test(test_a_worker_that_vanishes_loses_its_lease),
        cmocka_unit_test(test_a_polling_worker_hears_of_a_cancel_when_it_reports),
        cmocka_unit_test(test_a_poll_without_work_ends_with_204_and_drain_ends_it_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
