/* One process per task, end to end: a real nats-server, a sidecar, a caller on a connection of its own, all on one loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/home.h"
#include "base/log.h"
#include "base/loop.h"
#include "nats_server.h"
#include "sidecar/sidecar.h"
#include "sidecar/sidecar_private.h"

enum { STOP_ENDED = 1, STOP_READY, STOP_LATE, STOP_STOPPED, STOP_EVENT, STOP_BEAT };

struct world {
    struct nats_server *server;
    struct loop *loop;
    struct bus *bus, *caller_bus;
    struct sidecar *sidecar;
    struct loop_timer *late;
    struct home home;
    struct amp_arena arena;
    Amp__AgentCard card;
    char dir[64];
    char socket[96];
    int stopped_status;
};

struct outcome { /* of one call */
    struct world *world;
    struct call *call;
    struct amp_fold *fold;
    struct amp_error err;
    uint32_t n_events, stop_at_event;
    size_t n_stderr;
    int signal;
    bool has_death, is_ended;
    Amp__TaskState state;
    char text[4096], reason[4096];
    size_t n_text;
};

static void on_late(void *ctx)
{
    struct world *world = ctx;
    loop_stop(world->loop, STOP_LATE);
}

/* Runs the loop until somebody stops it with `wanted`. */
static void run_until(struct world *world, int wanted)
{
    loop_timer_set(world->late, 20000);
    int status = loop_run(world->loop);
    loop_timer_stop(world->late);
    assert_int_equal(status, wanted);
}

static void on_ready(void *ctx)
{
    struct world *world = ctx;
    loop_stop(world->loop, STOP_READY);
}

static void on_stopped(void *ctx, int status)
{
    struct world *world = ctx;
    world->stopped_status = status;
    loop_stop(world->loop, STOP_STOPPED);
}

static void on_up(void *ctx)
{
    struct world *world = ctx;
    if (world->sidecar)
        sidecar_bus_up(world->sidecar);
}

static void on_down(void *ctx)
{
    struct world *world = ctx;
    if (world->sidecar)
        sidecar_bus_down(world->sidecar);
}

static struct world *world_new(char *const *argv, uint32_t slots)
{
    struct world *world = xcalloc(1, sizeof *world);
    struct amp_error err;
    log_init(LOG_DEBUG, "test");
    world->server = nats_server_start(NULL, NULL);
    world->loop = loop_new();
    world->late = loop_timer_new(world->loop, on_late, world);
    const struct bus_options options = {.url = nats_server_url(world->server), .name = "test", .on_up = on_up, .on_down = on_down, .ctx = world};
    assert_int_equal(bus_new(world->loop, &options, &world->bus, &err), AMP_OK);
    const struct bus_options caller = {.url = nats_server_url(world->server), .name = "caller"};
    assert_int_equal(bus_new(world->loop, &caller, &world->caller_bus, &err), AMP_OK);
    amp_arena_init(&world->arena, 1u << 20);
    amp__agent_card__init(&world->card);
    assert_int_equal(amp_card_complete(&world->card, "worker", &world->arena), AMP_OK);
    (void)snprintf(world->dir, sizeof(world->dir), "/tmp/amesh-exec-XXXXXX");
    assert_non_null(mkdtemp(world->dir));
    (void)snprintf(world->socket, sizeof(world->socket), "%s/s", world->dir);
    const struct sidecar_options sidecar = {.mode = SIDECAR_EXEC, .card = &world->card, .slots = slots, .argv = argv, .socket = world->socket};
    assert_int_equal(sidecar_new(world->loop, world->bus, &world->home, &sidecar, on_ready, on_stopped, world, &world->sidecar, &err), AMP_OK);
    run_until(world, STOP_READY);
    return world;
}

static void world_free(struct world *world)
{
    sidecar_free(world->sidecar);
    bus_free(world->bus);
    bus_free(world->caller_bus);
    loop_timer_free(world->late);
    loop_free(world->loop);
    nats_server_stop(world->server);
    amp_arena_done(&world->arena);
    (void)rmdir(world->dir);
    free(world);
}

/* ---- a call ----------------------------------------------------------------------------------------------- */

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct outcome *outcome = ctx;
    struct amp_error err;
    assert_int_equal(seq, ++outcome->n_events);
    struct amp_bytes body = {.data = event->body->text.data, .len = event->body->text.len};
    assert_int_equal(amp_fold_apply(outcome->fold, body, &err), AMP_OK);
    if (outcome->stop_at_event == seq)
        loop_stop(outcome->world->loop, STOP_EVENT);
}

static void on_taken(void *ctx, const char *agent, const char *instance)
{
    assert_string_equal(agent, "worker");
}

static void take_task(struct outcome *outcome)
{
    const Amp__Task *task = amp_fold_task(outcome->fold);
    struct amp_buf text;
    amp_buf_init(&text, 64u << 20);
    outcome->state = amp_fold_state(outcome->fold);
    if (task->status && task->status->message)
        (void)amp_message_text(task->status->message, &text);
    (void)snprintf(outcome->reason, sizeof(outcome->reason), "%.*s", (int)text.len, text.len ? (const char *)text.data : "");
    amp_buf_done(&text);
    for (size_t i = 0; i < task->n_artifacts; i++)
        for (size_t j = 0; j < task->artifacts[i]->n_parts; j++) {
            const char *part = task->artifacts[i]->parts[j]->text;
            outcome->n_text += strlen(part);
            (void)snprintf(outcome->text, sizeof(outcome->text), "%s", part);
        }
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct outcome *outcome = ctx;
    outcome->err = *err;
    outcome->is_ended = true;
    outcome->has_death = wire && wire->death;
    if (outcome->has_death) {
        outcome->signal = wire->death->signal;
        outcome->n_stderr = wire->death->n_stderr;
    }
    take_task(outcome);
    loop_stop(outcome->world->loop, STOP_ENDED);
}

static const struct call_handlers handlers = {.on_event = on_event, .on_taken = on_taken, .on_end = on_end};

static struct outcome *call_new(struct world *world, const char *text, uint32_t timeout_ms)
{
    struct outcome *outcome = xcalloc(1, sizeof *outcome);
    char task[AMP_ID_SIZE], context[AMP_ID_SIZE];
    struct amp_error err;
    amp_id_new('t', clock_unix_ms(), task);
    amp_id_new('c', clock_unix_ms(), context);
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    part.text = (char *)text;
    Amp__Message message = AMP__MESSAGE__INIT;
    message.message_id = task;
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    outcome->world = world;
    outcome->fold = amp_fold_new(task, context, AMP_FOLD_BYTES_MAX);
    const struct call_options options = {
        .agent = "worker", .from = "tester", .task_id = task, .context_id = context, .message = &message, .attempt = 1, .timeout_ms = timeout_ms, .is_impatient = true};
    assert_int_equal(call_start(world->loop, world->caller_bus, &options, &handlers, outcome, &outcome->call, &err), AMP_OK);
    return outcome;
}

static void call_done(struct outcome *outcome)
{
    call_free(outcome->call);
    amp_fold_free(outcome->fold);
    free(outcome);
}

static struct outcome *call_run(struct world *world, const char *text, uint32_t timeout_ms)
{
    struct outcome *outcome = call_new(world, text, timeout_ms);
    run_until(world, STOP_ENDED);
    return outcome;
}

#define SH(script) ((char *const[]){(char *)"sh", (char *)"-c", (char *)(script), NULL})

/* ---- claims -------------------------------------------------------------------------------------------------- */

static void test_stdin_is_the_prompt_and_stdout_the_answer(void **state)
{
    struct world *world = world_new(((char *const[]){(char *)"tr", (char *)"a-z", (char *)"A-Z", NULL}), 1);
    for (int i = 0; i < 3; i++) {
        struct outcome *outcome = call_run(world, "hello", 0);
        assert_int_equal(outcome->err.code, AMP_OK);
        assert_int_equal(outcome->state, AMP__TASK_STATE__TASK_STATE_COMPLETED);
        assert_string_equal(outcome->text, "HELLO");
        call_done(outcome);
    }
    world_free(world);
}

static void test_an_exit_status_is_a_failure_with_the_last_lines_of_stderr(void **state)
{
    struct world *world = world_new(SH("echo partly; echo it broke >&2; exit 3"), 1);
    struct outcome *outcome = call_run(world, "x", 0);
    assert_int_equal(outcome->err.code, AMP_OK);
    assert_int_equal(outcome->state, AMP__TASK_STATE__TASK_STATE_FAILED);
    assert_string_equal(outcome->reason, "it broke\n(exit status 3)");
    assert_string_equal(outcome->text, "partly\n");
    call_done(outcome);
    world_free(world);
}

static void test_a_killed_agent_is_a_death_with_its_cause(void **state)
{
    struct world *world = world_new(SH("echo last words >&2; kill -9 $$"), 1);
    uint64_t before = counter_get(COUNTER_agent_deaths);
    struct outcome *outcome = call_run(world, "x", 0);
    assert_int_equal(outcome->err.code, AMP_AGENT_DIED);
    assert_int_equal(outcome->state, AMP__TASK_STATE__TASK_STATE_FAILED);
    assert_true(outcome->has_death);
    assert_int_equal(outcome->signal, SIGKILL);
    assert_int_equal(outcome->n_stderr, 1);
    assert_non_null(strstr(outcome->reason, "signal 9"));
    assert_int_equal(counter_get(COUNTER_agent_deaths), before + 1);
    call_done(outcome);
    world_free(world);
}

static void test_cancel_reaches_the_process_and_the_task_is_canceled(void **state)
{
    struct world *world = world_new(SH("echo started; exec cat /dev/zero >/dev/null"), 1);
    struct outcome *outcome = call_new(world, "x", 0);
    outcome->stop_at_event = 2;
    run_until(world, STOP_EVENT);
    call_cancel(outcome->call, "enough");
    run_until(world, STOP_ENDED);
    assert_int_equal(outcome->state, AMP__TASK_STATE__TASK_STATE_CANCELED);
    call_done(outcome);
    world_free(world);
}

static void test_a_deadline_ends_the_task_and_names_itself(void **state)
{
    struct world *world = world_new(SH("exec sleep 100"), 1);
    struct outcome *outcome = call_run(world, "x", 150);
    assert_int_equal(outcome->err.code, AMP_DEADLINE);
    call_done(outcome);
    world_free(world);
}

static void test_a_full_instance_leaves_its_groups_and_comes_back(void **state)
{
    struct world *world = world_new(SH("read word; echo $word; [ $word = stay ] && exec sleep 100; :"), 1);
    struct outcome *first = call_new(world, "stay\n", 0);
    first->stop_at_event = 2;
    run_until(world, STOP_EVENT);
    assert_false(world->sidecar->member.is_member);
    struct outcome *second = call_run(world, "go\n", 0);
    assert_int_equal(second->err.code, AMP_BUSY);
    call_cancel(first->call, "enough");
    run_until(world, STOP_ENDED);
    assert_true(first->is_ended);
    struct outcome *third = call_run(world, "go\n", 0);
    assert_int_equal(third->err.code, AMP_OK);
    assert_string_equal(third->text, "go\n");
    call_done(first);
    call_done(second);
    call_done(third);
    world_free(world);
}

static void test_a_flood_arrives_whole(void **state)
{
    struct world *world = world_new(SH("head -c 20000000 /dev/zero | tr '\\0' x"), 1);
    struct outcome *outcome = call_run(world, "x", 0);
    if (outcome->err.code != AMP_OK)
        print_error("%s; DBG dropped %lu refused %lu out %lu in %lu bytes out %lu in %lu reconn %lu\n", outcome->err.message, counter_get(COUNTER_bus_dropped), counter_get(COUNTER_bus_refused), counter_get(COUNTER_bus_messages_out), counter_get(COUNTER_bus_messages_in), counter_get(COUNTER_bus_bytes_out), counter_get(COUNTER_bus_bytes_in), counter_get(COUNTER_bus_reconnects));
    assert_int_equal(outcome->err.code, AMP_OK);
    assert_int_equal(outcome->state, AMP__TASK_STATE__TASK_STATE_COMPLETED);
    assert_int_equal(outcome->n_text, 20000000);
    call_done(outcome);
    world_free(world);
}

static void test_bytes_that_are_no_text_are_replaced(void **state)
{
    struct world *world = world_new(SH("printf 'a\\377b\\000c\\303'"), 1);
    struct outcome *outcome = call_run(world, "x", 0);
    assert_int_equal(outcome->state, AMP__TASK_STATE__TASK_STATE_COMPLETED);
    assert_string_equal(outcome->text, "a\xEF\xBF\xBD" "b\xEF\xBF\xBD" "c\xEF\xBF\xBD");
    call_done(outcome);
    world_free(world);
}

/* A process that is dead, but that init has not collected yet, has no command line any more. */
static bool has_command(pid_t pid)
{
    char path[64], text[256];
    (void)snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
    FILE *file = fopen(path, "re");
    bool has = file && fread(text, 1, sizeof(text), file) > 0;
    if (file)
        (void)fclose(file);
    return has;
}

static void test_what_a_task_leaves_in_its_group_is_killed(void **state)
{
    struct world *world = world_new(SH("sleep 1000 & echo $!"), 1);
    struct outcome *outcome = call_run(world, "x", 0);
    assert_int_equal(outcome->state, AMP__TASK_STATE__TASK_STATE_COMPLETED);
    pid_t left = (pid_t)strtol(outcome->text, NULL, 10);
    assert_true(left > 1);
    while (has_command(left)) /* SIGKILL was sent to it; one that lives on meets the test's own time limit */
        (void)sched_yield();
    call_done(outcome);
    world_free(world);
}

static void test_a_leaving_instance_lets_its_task_end(void **state)
{
    struct world *world = world_new(SH("read word; echo $word; while [ ! -e $word ]; do sleep 0.01; done; echo end"), 1);
    char prompt[128];
    (void)snprintf(prompt, sizeof(prompt), "%s/go\n", world->dir);
    struct outcome *outcome = call_new(world, prompt, 0);
    outcome->stop_at_event = 2;
    run_until(world, STOP_EVENT);
    sidecar_drain(world->sidecar, 10000);
    prompt[strlen(prompt) - 1] = '\0';
    FILE *file = fopen(prompt, "we");
    assert_non_null(file);
    (void)fclose(file);
    for (int i = 0; i < 2 && !(outcome->is_ended && world->sidecar->is_stopped); i++) { /* the end and the goodbye come in either order */
        loop_timer_set(world->late, 20000);
        int status = loop_run(world->loop);
        assert_true(status == STOP_ENDED || status == STOP_STOPPED);
    }
    assert_int_equal(outcome->state, AMP__TASK_STATE__TASK_STATE_COMPLETED);
    assert_int_equal(world->stopped_status, 0);
    (void)unlink(prompt);
    call_done(outcome);
    world_free(world);
}

static void test_utf8_is_whole_however_it_is_cut(void **state)
{
    static const char text[] = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80z";
    for (size_t step = 1; step < sizeof(text); step++) {
        struct exec_utf8 utf8 = {.n = 0};
        struct amp_buf out;
        amp_buf_init(&out, 4096);
        for (size_t at = 0; at < sizeof(text) - 1; at += step) {
            size_t len = sizeof(text) - 1 - at < step ? sizeof(text) - 1 - at : step;
            exec_utf8_feed(&utf8, (struct amp_bytes){.data = (const uint8_t *)text + at, .len = len}, false, &out);
            assert_true(amp_utf8_is_valid(amp_buf_bytes(&out)));
        }
        exec_utf8_feed(&utf8, (struct amp_bytes){0}, true, &out);
        assert_int_equal(out.len, sizeof(text) - 1);
        assert_memory_equal(out.data, text, out.len);
        amp_buf_done(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_is_whole_however_it_is_cut),
        cmocka_unit_test(test_stdin_is_the_prompt_and_stdout_the_answer),
        cmocka_unit_test(test_an_exit_status_is_a_failure_with_the_last_lines_of_stderr),
        cmocka_unit_test(test_a_killed_agent_is_a_death_with_its_cause),
        cmocka_unit_test(test_cancel_reaches_the_process_and_the_task_is_canceled),
        cmocka_unit_test(test_a_deadline_ends_the_task_and_names_itself),
        cmocka_unit_test(test_a_full_instance_leaves_its_groups_and_comes_back),
        cmocka_unit_test(test_a_flood_arrives_whole),
        cmocka_unit_test(test_bytes_that_are_no_text_are_replaced),
        cmocka_unit_test(test_what_a_task_leaves_in_its_group_is_killed),
        cmocka_unit_test(test_a_leaving_instance_lets_its_task_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
