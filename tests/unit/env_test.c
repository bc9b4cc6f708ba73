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

struct fixture {
    struct world world;
    struct env *env;
    char dir[64];
    unsigned replies;
    char journal[200], state[32];
    uint32_t events;
    enum amp_code code;
};

static void begin(struct fixture *fixture)
{
    char path[96];
    struct env_options options = {.journal_path = path, .name = "env"};
    struct amp_error err = {0};
    memset(fixture, 0, sizeof *fixture);
    strcpy(fixture->dir, "/tmp/amesh-env-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    snprintf(path, sizeof path, "%s/journal.db", fixture->dir);
    world_begin(&fixture->world, NULL);
    if (env_new(fixture->world.loop, fixture->world.far, &options, &fixture->env, &err) != AMP_OK)
        fail_msg("%s", err.message);
    world_settle(&fixture->world, fixture->world.far);
}

static void end(struct fixture *fixture)
{
    char command[96];
    env_free(fixture->env);
    world_end(&fixture->world);
    snprintf(command, sizeof command, "rm -rf %s", fixture->dir);
    assert_int_equal(system(command), 0);
}

static void on_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct fixture *fixture = ctx;
    fixture->code = err->code;
    if (reply && reply->info)
        snprintf(fixture->journal, sizeof fixture->journal, "%s", reply->info->journal);
    if (reply && reply->n_tasks) {
        snprintf(fixture->state, sizeof fixture->state, "%s", amp_task_state_short(reply->tasks[0]->task->status->state));
        fixture->events = reply->tasks[0]->events_count;
    }
    fixture->replies++;
    world_touch(&fixture->world);
}

static void ask(struct fixture *fixture, const Amp__EnvRequest *request)
{
    unsigned before = fixture->replies;
    assert_int_equal(env_call(fixture->world.loop, fixture->world.near, "me", request, 0, on_reply, fixture, NULL), AMP_OK);
    world_wait(&fixture->world, &fixture->replies, before + 1);
}

static void ask_ping(struct fixture *fixture)
{
    Amp__Ping ping = AMP__PING__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    request.verb_case = AMP__ENV_REQUEST__VERB_PING;
    request.ping = &ping;
    ask(fixture, &request);
}

static void ask_task(struct fixture *fixture, const char *id)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    query.id = (char *)id;
    request.verb_case = AMP__ENV_REQUEST__VERB_GET;
    request.get = &query;
    ask(fixture, &request);
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
    submit.agent = (char *)"nobody";
    submit.request = &asked;
    request.verb_case = AMP__ENV_REQUEST__VERB_SUBMIT;
    request.submit = &submit;
    ask(fixture, &request);
}

static void send_task(struct fixture *fixture)
{
    struct world_frame frame = {.task = "t-1", .agent = "up", .instance = "i-1", .seq = 1, .n = 2, .end_count = 2};
    world_send_frame(fixture->world.near, "amp.evt.c-1.t-1", &frame);
}

/* Anybody who may publish on amp.evt may use an id twice; that must not cost the environment its journal. */
static void test_a_direct_task_told_again_after_its_end_changes_nothing(void **state)
{
    struct fixture fixture;
    begin(&fixture);
    send_task(&fixture);
    do {
        ask_task(&fixture, "t-1"); /* until it is recorded */
    } while (fixture.code != AMP_OK || strcmp(fixture.state, "failed") != 0);
    uint32_t events = fixture.events;
    for (int i = 0; i < 3; i++) {
        submit_one(&fixture); /* a commit: what was recorded before it is out of memory */
        assert_int_equal(fixture.code, AMP_OK);
        send_task(&fixture);
        world_settle(&fixture.world, fixture.world.near);
    }
    submit_one(&fixture);
    assert_int_equal(fixture.code, AMP_OK);
    ask_ping(&fixture);
    assert_string_equal(fixture.journal, "ok");
    ask_task(&fixture, "t-1");
    assert_int_equal(fixture.events, events);
    end(&fixture);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_direct_task_told_again_after_its_end_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
