/* An agent that dies under each task, and those who watch: what they get while the environment tries again. */
#include "env/env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bus.h"
#include "base/envcall.h"
#include "base/log.h"
#include "world.h"

#define TASKS 40u

struct fixture {
    struct world world;
    struct env *env;
    struct env_watch *watches[TASKS];
    char dir[64];
    unsigned submitted, ended, calls;
    enum amp_code last;
};

static void beat(struct fixture *fixture)
{
    Amp__Beat beat = AMP__BEAT__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    beat.agent = (char *)"up";
    beat.instance = (char *)"i-1";
    beat.has_slots = beat.has_free = true;
    beat.slots = beat.free = TASKS;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.body_case = AMP__ENVELOPE__BODY_BEAT;
    envelope.beat = &beat;
    world_send(fixture->world.near, "amp.hb.up.i-1", &envelope);
}

/* The agent: takes what comes and is dead at once. */
static void on_request(void *ctx, const struct bus_msg *msg)
{
    struct fixture *fixture = ctx;
    struct amp_arena arena;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Envelope *envelope = world_decode(msg->data, &arena);
    struct world_frame taken = {.task = envelope->request->task_id, .agent = "up", .instance = "i-1", .seq = 1, .end_count = -1};
    world_send_frame(fixture->world.near, msg->reply, &taken);
    struct world_frame death = {.task = taken.task, .agent = "up", .instance = "i-1", .seq = 1, .end_error = AMP_AGENT_DIED};
    world_send_frame(fixture->world.near, msg->reply, &death);
    beat(fixture);
    fixture->calls++;
    amp_arena_done(&arena);
}

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    (void)ctx, (void)seq, (void)event;
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct fixture *fixture = ctx;
    (void)wire;
    fixture->last = err->code;
    if (err->code != AMP_ATTEMPTS)
        fail_msg("the watch ended with %s: %s", amp_code_info(err->code)->name, err->message);
    fixture->ended++;
    world_touch(&fixture->world);
}

static void on_accepted(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    static const struct env_watch_handlers handlers = {.on_event = on_event, .on_end = on_end};
    struct fixture *fixture = ctx;
    assert_int_equal(err->code, AMP_OK);
    assert_int_equal(env_watch_start(fixture->world.loop, fixture->world.near, "me", reply->tasks[0]->task->id, 1, 0, &handlers, fixture,
                                     &fixture->watches[fixture->submitted]),
                     AMP_OK);
    fixture->submitted++;
    world_touch(&fixture->world);
}

static void submit_one(struct fixture *fixture)
{
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    Amp__Request asked = AMP__REQUEST__INIT;
    Amp__Submit submit = AMP__SUBMIT__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    part.text = (char *)"hello";
    message.message_id = (char *)"m-1";
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    asked.task_id = asked.context_id = (char *)"";
    asked.message = &message;
    submit.agent = (char *)"up";
    submit.request = &asked;
    request.verb_case = AMP__ENV_REQUEST__VERB_SUBMIT;
    request.submit = &submit;
    assert_int_equal(env_call(fixture->world.loop, fixture->world.near, "me", &request, 0, on_accepted, fixture, NULL), AMP_OK);
}

/* A frame waits for its commit; what it says must not change with the task meanwhile. */
static void test_whoever_watches_a_task_that_is_tried_again_gets_whole_frames(void **state)
{
    struct fixture fixture = {.dir = "/tmp/amesh-retry-XXXXXX"};
    char path[96], command[96];
    struct env_options options = {.journal_path = path, .name = "env"};
    struct amp_error err = {0};
    assert_non_null(mkdtemp(fixture.dir));
    snprintf(path, sizeof path, "%s/journal.db", fixture.dir);
    world_begin(&fixture.world, NULL);
    if (env_new(fixture.world.loop, fixture.world.far, &options, &fixture.env, &err) != AMP_OK)
        fail_msg("%s", err.message);
    world_settle(&fixture.world, fixture.world.far);
    struct bus_sub *sub = bus_subscribe(fixture.world.near, "amp.req.up.*", NULL, on_request, &fixture);
    beat(&fixture);
    world_settle(&fixture.world, fixture.world.near);
    for (unsigned i = 0; i < TASKS; i++)
        submit_one(&fixture);
    world_wait(&fixture.world, &fixture.ended, TASKS);
    assert_true(fixture.calls >= 2 * TASKS);
    for (unsigned i = 0; i < TASKS; i++)
        env_watch_free(fixture.watches[i]);
    bus_unsubscribe(sub, false);
    env_free(fixture.env);
    world_end(&fixture.world);
    snprintf(command, sizeof command, "rm -rf %s", fixture.dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whoever_watches_a_task_that_is_tried_again_gets_whole_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
