/* Questions to the environment and watching a task, over a real bus: this program plays the environment. And control messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bus.h"
#include "base/call.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "nats_server.h"
#include "world.h"

#define TASK "t-1"

struct asker {
    struct world world;
    unsigned done, events, ends;
    uint32_t seqs[64];
    uint32_t total; /* of the reply */
    struct amp_error err;
    struct env_watch *watch;
    unsigned aways, backs;
    char why[64];

    struct bus_sub *env;
    unsigned requests;
    char verb[64], inbox[128], id[64];
    uint32_t retry_after_ms; /* in a refusal */
    char tasks[8][AMP_NAME_MAX + 1]; /* ids in submits */
    struct env_submit *submit;
    uint32_t from_seqs[8];
    void (*on_request)(struct asker *asker);
};

static void on_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct asker *asker = ctx;
    asker->done++;
    asker->err = *err;
    asker->total = reply ? reply->total : 0;
    assert_int_equal(reply == NULL, err->code != AMP_OK);
    world_touch(&asker->world);
}

static void on_done(void *ctx, const struct amp_error *err)
{
    struct asker *asker = ctx;
    asker->done++;
    asker->err = *err;
    world_touch(&asker->world);
}

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct asker *asker = ctx;
    assert_true(asker->events < 64);
    asker->seqs[asker->events++] = seq;
    world_touch(&asker->world);
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct asker *asker = ctx;
    asker->ends++;
    asker->err = *err;
    world_touch(&asker->world);
}

static void on_away(void *ctx, const char *why)
{
    struct asker *asker = ctx;
    assert_int_equal(asker->aways++, asker->backs); /* in turns */
    snprintf(asker->why, sizeof asker->why, "%s", why);
    world_touch(&asker->world);
}

static void on_back(void *ctx)
{
    struct asker *asker = ctx;
    assert_int_equal(++asker->backs, asker->aways);
    world_touch(&asker->world);
}

static const struct env_watch_handlers handlers = {.on_event = on_event, .on_end = on_end, .on_away = on_away, .on_back = on_back};

/* ---- the environment ---------------------------------------------------------------------------------------- */

static void on_request(void *ctx, const struct bus_msg *msg)
{
    struct asker *asker = ctx;
    struct amp_arena arena;
    struct amp_subject subject;
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    Amp__Envelope *envelope = world_decode(msg->data, &arena);
    assert_int_equal(amp_subject_parse(msg->subject, &subject, NULL), AMP_OK);
    assert_int_equal(envelope->body_case, AMP__ENVELOPE__BODY_ENV_REQUEST);
    assert_string_equal(envelope->from, subject.b);
    snprintf(asker->verb, sizeof asker->verb, "%s", subject.a);
    snprintf(asker->inbox, sizeof asker->inbox, "%s", msg->reply);
    if (envelope->env_request->verb_case == AMP__ENV_REQUEST__VERB_WATCH && asker->requests < 8) {
        asker->from_seqs[asker->requests] = envelope->env_request->watch->from_seq;
    }
    if (envelope->env_request->verb_case == AMP__ENV_REQUEST__VERB_SUBMIT && asker->requests < 8)
        snprintf(asker->tasks[asker->requests], sizeof asker->tasks[0], "%s", envelope->env_request->submit->request->task_id);
    asker->requests++;
    if (asker->on_request) {
        asker->on_request(asker);
    }
    amp_arena_done(&arena);
    world_touch(&asker->world);
}

static void send_env_reply(struct asker *asker, uint32_t total, enum amp_code code)
{
    Amp__EnvReply reply = AMP__ENV_REPLY__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    Amp__Error error;
    struct amp_error err = {.code = AMP_OK};
    amp_error_set(&err, code, "", "said the environment");
    err.retry_after_ms = asker->retry_after_ms;
    amp_error_to_wire(&err, &error);
    reply.error = code == AMP_OK ? NULL : &error;
    reply.has_total = true;
    reply.total = total;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.body_case = AMP__ENVELOPE__BODY_ENV_REPLY;
    envelope.env_reply = &reply;
    world_send(asker->world.far, asker->inbox, &envelope);
}

static void send_frame(struct asker *asker, uint32_t seq, uint32_t n, int64_t end_count)
{
    struct world_frame frame = {.task = TASK, .agent = "up", .instance = "i-1", .seq = seq, .n = n, .end_count = end_count};
    world_send_frame(asker->world.far, asker->inbox, &frame);
}

static void listen_env(struct asker *asker)
{
    asker->env = bus_subscribe(asker->world.far, "amp.env.*.*", AMP_QUEUE_GROUP_ENV, on_request, asker);
    world_settle(&asker->world, asker->world.far);
}

static void begin(struct asker *asker, bool has_env)
{
    memset(asker, 0, sizeof *asker);
    world_begin(&asker->world, NULL);
    if (has_env) {
        listen_env(asker);
    }
}

static void end(struct asker *asker)
{
    env_watch_free(asker->watch);
    bus_unsubscribe(asker->env, false);
    world_settle(&asker->world, asker->world.far);
    world_end(&asker->world);
}

/* ---- env_call ------------------------------------------------------------------------------------------------ */

static struct env_call *ask(struct asker *asker, uint32_t timeout_ms)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct env_call *call = NULL;
    request.verb_case = AMP__ENV_REQUEST__VERB_LIST;
    request.list = &query;
    assert_int_equal(env_call(asker->world.loop, asker->world.near, "tester", &request, timeout_ms, on_reply, asker, &call), AMP_OK);
    assert_int_equal(asker->done, 0);
    return call;
}

static void reply_seven(struct asker *asker)
{
    send_env_reply(asker, 7, AMP_OK);
    send_env_reply(asker, 8, AMP_OK); /* a second one is nobody's */
}

static void test_a_question_goes_to_the_subject_of_its_verb_and_is_answered_once(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = reply_seven;
    ask(&asker, 5000);
    world_wait(&asker.world, &asker.done, 1);
    world_settle(&asker.world, asker.world.near);
    assert_string_equal(asker.verb, "list");
    assert_int_equal(asker.err.code, AMP_OK);
    assert_int_equal(asker.total, 7);
    assert_int_equal(asker.done, 1);
    end(&asker);
}

static void test_without_an_environment_the_answer_is_no_env_at_once(void **state)
{
    struct asker asker;
    begin(&asker, false);
    int64_t from = loop_now_ms(asker.world.loop);
    ask(&asker, 5000);
    world_wait(&asker.world, &asker.done, 1);
    assert_int_equal(asker.err.code, AMP_NO_ENV);
    assert_true(loop_now_ms(asker.world.loop) - from < 1000);
    end(&asker);
}

static void refuse(struct asker *asker)
{
    send_env_reply(asker, 0, AMP_JOURNAL);
}

static void test_an_error_in_the_reply_is_the_error(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = refuse;
    ask(&asker, 5000);
    world_wait(&asker.world, &asker.done, 1);
    assert_int_equal(asker.err.code, AMP_JOURNAL);
    assert_string_equal(asker.err.message, "said the environment");
    end(&asker);
}

static void test_a_silent_environment_is_none(void **state)
{
    struct asker asker;
    begin(&asker, true);
    ask(&asker, 50);
    world_wait(&asker.world, &asker.done, 1);
    assert_int_equal(asker.err.code, AMP_NO_ENV);
    end(&asker);
}

static void test_a_cancelled_question_is_not_answered(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = reply_seven;
    env_call_cancel(ask(&asker, 5000));
    world_wait(&asker.world, &asker.requests, 1);
    world_settle(&asker.world, asker.world.far);
    world_settle(&asker.world, asker.world.near);
    assert_int_equal(asker.done, 0);
    end(&asker);
}

static void test_a_forbidden_verb_is_denied_by_name(void **state)
{
    struct asker asker;
    memset(&asker, 0, sizeof asker);
    world_begin(&asker.world, "authorization { users = [ {user: near, password: x, permissions: {publish: {deny: [\"amp.env.>\"]}}},\n"
                              "  {user: far, password: x} ] }\n");
    ask(&asker, 5000);
    world_wait(&asker.world, &asker.done, 1);
    assert_int_equal(asker.err.code, AMP_DENIED);
    assert_non_null(strstr(asker.err.message, "amp.env.list.tester"));
    end(&asker);
}

/* ---- env_submit ----------------------------------------------------------------------------------------------- */

static void submit(struct asker *asker, uint32_t answer_ms, uint32_t patience_ms)
{
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    Amp__Request request = AMP__REQUEST__INIT;
    Amp__Submit what = AMP__SUBMIT__INIT;
    struct env_submit_options options = {.answer_ms = answer_ms, .patience_ms = patience_ms};
    part.text = (char *)"x";
    message.n_parts = 1;
    message.parts = parts;
    request.task_id = request.context_id = (char *)"";
    request.message = &message;
    what.agent = (char *)"up";
    what.request = &request;
    assert_int_equal(env_submit(asker->world.loop, asker->world.near, "tester", &what, &options, on_reply, asker, &asker->submit), AMP_OK);
}

static void refuse_twice(struct asker *asker)
{
    asker->retry_after_ms = 30;
    send_env_reply(asker, asker->requests, asker->requests > 2 ? AMP_OK : asker->requests == 1 ? AMP_OVERLOADED : AMP_QUOTA);
}

static void test_a_submit_that_is_refused_for_now_is_sent_again_when_it_was_told(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = refuse_twice;
    int64_t from = loop_now_ms(asker.world.loop);
    submit(&asker, 5000, 10000);
    world_wait(&asker.world, &asker.done, 1);
    assert_int_equal(asker.err.code, AMP_OK);
    assert_int_equal(asker.requests, 3);
    assert_true(loop_now_ms(asker.world.loop) - from >= 60);
    assert_string_equal(asker.tasks[0], asker.tasks[2]);
    end(&asker);
}

static void refuse_long(struct asker *asker)
{
    asker->retry_after_ms = 20000;
    send_env_reply(asker, 0, AMP_QUOTA);
}

static void test_nobody_waits_longer_than_he_has_time(void **state)
{
    for (uint32_t patience_ms = 0; patience_ms <= 10000; patience_ms += 10000) {
        struct asker asker;
        begin(&asker, true);
        asker.on_request = refuse_long;
        submit(&asker, 5000, patience_ms);
        world_wait(&asker.world, &asker.done, 1);
        assert_int_equal(asker.err.code, AMP_QUOTA);
        assert_int_equal(asker.err.retry_after_ms, 20000);
        assert_int_equal(asker.requests, 1);
        end(&asker);
    }
}

static void accept_in_silence(struct asker *asker)
{
    if (asker->requests == 2)
        send_env_reply(asker, 0, AMP_CONFLICT);
    else if (asker->requests == 3)
        send_env_reply(asker, 7, AMP_OK); /* get */
}

static void test_an_answer_that_was_lost_is_found_again_and_nothing_is_accepted_twice(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = accept_in_silence;
    submit(&asker, 600, 20000);
    world_wait(&asker.world, &asker.done, 1);
    assert_int_equal(asker.err.code, AMP_OK);
    assert_int_equal(asker.total, 7);
    assert_int_equal(asker.requests, 3);
    assert_string_equal(asker.verb, "get");
    assert_true(asker.tasks[0][0] != '\0');
    assert_string_equal(asker.tasks[0], asker.tasks[1]);
    end(&asker);
}

static void refuse_other(struct asker *asker)
{
    send_env_reply(asker, 0, AMP_CONFLICT);
}

static void test_other_refusals_and_nobody_there_are_told_at_once(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = refuse_other;
    submit(&asker, 5000, 10000);
    world_wait(&asker.world, &asker.done, 1);
    assert_int_equal(asker.err.code, AMP_CONFLICT);
    end(&asker);
    begin(&asker, false);
    submit(&asker, 5000, 10000);
    world_wait(&asker.world, &asker.done, 1);
    assert_int_equal(asker.err.code, AMP_NO_ENV);
    end(&asker);
}

static void test_a_submit_that_is_taken_back_is_not_answered(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = refuse_twice;
    submit(&asker, 5000, 10000);
    world_wait(&asker.world, &asker.requests, 2);
    env_submit_cancel(asker.submit);
    world_settle(&asker.world, asker.world.near);
    assert_int_equal(asker.done, 0);
    end(&asker);
}

/* ---- env_watch ------------------------------------------------------------------------------------------------ */

static void watch_from(struct asker *asker, uint32_t from_seq, uint32_t timeout_ms)
{
    assert_int_equal(env_watch_start(asker->world.loop, asker->world.near, "tester", TASK, from_seq, timeout_ms, &handlers, asker, &asker->watch), AMP_OK);
}

static void tell_five(struct asker *asker)
{
    send_frame(asker, 2, 2, -1);
    send_frame(asker, 4, 0, -1); /* keep-alive */
    send_frame(asker, 3, 2, -1); /* 3 again */
    send_frame(asker, 5, 1, 5);
}

static void test_a_watch_delivers_each_event_once_from_the_number_asked_for(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = tell_five;
    watch_from(&asker, 2, 0);
    world_wait(&asker.world, &asker.ends, 1);
    assert_int_equal(asker.err.code, AMP_OK);
    assert_int_equal(asker.events, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(asker.seqs[i], i + 2);
    }
    end(&asker);
}

static void lose_the_second(struct asker *asker)
{
    if (asker->requests == 1) {
        send_frame(asker, 1, 1, -1);
        send_frame(asker, 3, 1, 3);
    } else {
        send_frame(asker, 2, 2, 3);
    }
}

static void test_a_gap_is_filled_by_asking_again_from_the_missing_number(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = lose_the_second;
    watch_from(&asker, 1, 0);
    world_wait(&asker.world, &asker.ends, 1);
    assert_int_equal(asker.err.code, AMP_OK);
    assert_int_equal(asker.events, 3);
    assert_int_equal(asker.requests, 2);
    assert_int_equal(asker.from_seqs[1], 2);
    end(&asker);
}

static void tell_one_then_the_rest(struct asker *asker)
{
    if (asker->requests == 1) {
        send_frame(asker, 1, 1, -1);
    } else {
        send_frame(asker, 2, 1, 2);
    }
}

static void test_a_lost_bus_is_survived_without_losing_or_repeating_an_event(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = tell_one_then_the_rest;
    watch_from(&asker, 1, 0);
    world_wait(&asker.world, &asker.events, 1);
    assert_int_equal(asker.aways, 0);
    nats_server_kill(asker.world.server);
    world_wait(&asker.world, &asker.aways, 1);
    assert_string_equal(asker.why, "the bus is away");
    nats_server_restart(asker.world.server);
    world_wait(&asker.world, &asker.ends, 1);
    assert_int_equal(asker.err.code, AMP_OK);
    assert_int_equal(asker.events, 2);
    assert_int_equal(asker.from_seqs[asker.requests - 1], 2);
    assert_int_equal(asker.aways, 1); /* however often it was tried */
    assert_int_equal(asker.backs, 1);
    end(&asker);
}

static void tell_all(struct asker *asker)
{
    send_frame(asker, 1, 2, 2);
}

static void test_an_environment_that_comes_later_is_waited_for(void **state)
{
    struct asker asker;
    begin(&asker, false);
    asker.on_request = tell_all;
    watch_from(&asker, 1, 0);
    world_wait(&asker.world, &asker.aways, 1); /* nobody listened */
    assert_string_equal(asker.why, "no environment is there");
    listen_env(&asker);
    world_wait(&asker.world, &asker.ends, 1);
    assert_int_equal(asker.err.code, AMP_OK);
    assert_int_equal(asker.events, 2);
    assert_int_equal(asker.aways, 1);
    assert_int_equal(asker.backs, 1);
    end(&asker);
}

static void test_too_long_without_an_environment_is_no_env(void **state)
{
    struct asker asker;
    begin(&asker, false);
    watch_from(&asker, 1, 150);
    world_wait(&asker.world, &asker.ends, 1);
    assert_int_equal(asker.err.code, AMP_NO_ENV);
    assert_non_null(strstr(asker.err.hint, "--from 1"));
    end(&asker);
}

static void deny_task(struct asker *asker)
{
    send_env_reply(asker, 0, AMP_NO_SUCH_TASK);
}

static void test_an_error_of_the_environment_ends_the_watch(void **state)
{
    struct asker asker;
    begin(&asker, true);
    asker.on_request = deny_task;
    watch_from(&asker, 1, 0);
    world_wait(&asker.world, &asker.ends, 1);
    assert_int_equal(asker.err.code, AMP_NO_SUCH_TASK);
    end(&asker);
}

/* ---- control_send ---------------------------------------------------------------------------------------------- */

static void on_control(void *ctx, const struct bus_msg *msg)
{
    struct asker *asker = ctx;
    asker->requests++;
    if (strcmp(msg->subject, "amp.ctl.i-1.t-1") == 0) {
        world_send_reply(asker->world.far, msg->reply, AMP_OK, NULL);
    } else if (strcmp(msg->subject, "amp.ctl.i-1.t-2") == 0) {
        world_send_reply(asker->world.far, msg->reply, AMP_NO_SUCH_TASK, "no such task");
    }
}

static enum amp_code control(struct asker *asker, const char *instance, const char *task_id)
{
    Amp__Ping ping = AMP__PING__INIT;
    Amp__Control message = AMP__CONTROL__INIT;
    message.kind_case = AMP__CONTROL__KIND_PING;
    message.ping = &ping;
    asker->done = 0;
    assert_int_equal(control_send(asker->world.loop, asker->world.near, instance, task_id, &message, 100, on_done, asker, NULL), AMP_OK);
    assert_int_equal(asker->done, 0);
    world_wait(&asker->world, &asker->done, 1);
    return asker->err.code;
}

static void test_a_control_message_ends_with_what_the_instance_says_or_why_it_does_not(void **state)
{
    struct asker asker;
    begin(&asker, false);
    struct bus_sub *sub = bus_subscribe(asker.world.far, "amp.ctl.i-1.*", NULL, on_control, &asker);
    world_settle(&asker.world, asker.world.far);
    assert_int_equal(control(&asker, "i-1", "t-1"), AMP_OK);
    assert_int_equal(control(&asker, "i-1", "t-2"), AMP_NO_SUCH_TASK);
    assert_int_equal(control(&asker, "i-1", "t-3"), AMP_DEADLINE);
    assert_int_equal(control(&asker, "i-2", "t-1"), AMP_INSTANCE_LOST);
    bus_unsubscribe(sub, false);
    world_settle(&asker.world, asker.world.far);
    end(&asker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_question_goes_to_the_subject_of_its_verb_and_is_answered_once),
        cmocka_unit_test(test_without_an_environment_the_answer_is_no_env_at_once),
        cmocka_unit_test(test_an_error_in_the_reply_is_the_error),
        cmocka_unit_test(test_a_silent_environment_is_none),
        cmocka_unit_test(test_a_cancelled_question_is_not_answered),
        cmocka_unit_test(test_a_forbidden_verb_is_denied_by_name),
        cmocka_unit_test(test_a_submit_that_is_refused_for_now_is_sent_again_when_it_was_told),
        cmocka_unit_test(test_nobody_waits_longer_than_he_has_time),
        cmocka_unit_test(test_an_answer_that_was_lost_is_found_again_and_nothing_is_accepted_twice),
        cmocka_unit_test(test_other_refusals_and_nobody_there_are_told_at_once),
        cmocka_unit_test(test_a_submit_that_is_taken_back_is_not_answered),
        cmocka_unit_test(test_a_watch_delivers_each_event_once_from_the_number_asked_for),
        cmocka_unit_test(test_a_gap_is_filled_by_asking_again_from_the_missing_number),
        cmocka_unit_test(test_a_lost_bus_is_survived_without_losing_or_repeating_an_event),
        cmocka_unit_test(test_an_environment_that_comes_later_is_waited_for),
        cmocka_unit_test(test_too_long_without_an_environment_is_no_env),
        cmocka_unit_test(test_an_error_of_the_environment_ends_the_watch),
        cmocka_unit_test(test_a_control_message_ends_with_what_the_instance_says_or_why_it_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
