/* What an agent may ask of its sidecar, over NDJSON: python3 dials as a caller, the sidecar runs a program per task. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent_world.h"
#include "base/alloc.h"
#include "base/bus.h"
#include "base/call.h"
#include "base/counters.h"
#include "base/loop.h"

/* call(method, **params) → reply frame; notifications that came meanwhile are in `events`. */
static const char client[] =
    "import os, sys, json, socket\n"
    "s = socket.socket(socket.AF_UNIX); s.connect(os.environ['AMESH_SOCK']); s.settimeout(20)\n"
    "r, w = s.makefile('r'), s.makefile('w'); n = 0; events = []; replies = {}\n"
    "def start(method, **p):\n"
    "    global n\n"
    "    n += 1; w.write(json.dumps({'id': n, 'method': method, 'params': p}) + '\\n'); w.flush(); return n\n"
    "def wait(i):\n"
    "    while i not in replies:\n"
    "        f = json.loads(r.readline())\n"
    "        if 'method' in f: events.append(f)\n"
    "        else: replies[f['id']] = f\n"
    "    return replies.pop(i)\n"
    "def call(method, **p): return wait(start(method, **p))\n"
    "def name(f): return f['error']['data']['name']\n"
    "def text(t): return ''.join(p.get('text', '') for a in t['artifacts'] for p in a['parts'])\n";

static struct agent_world *world_new(const char *script)
{
    static char *argv[] = {(char *)"sh", (char *)"-c", NULL, NULL}; /* borrowed for the sidecar's life */
    argv[2] = (char *)script;
    const struct sidecar_options options = {.mode = SIDECAR_EXEC, .argv = argv, .slots = 4};
    struct agent_world *world = agent_world_new(&options);
    agent_world_ready(world);
    return world;
}

static struct agent_program *python(struct agent_world *world, const char *script)
{
    char *whole = xasprintf("%s%s", client, script);
    char *argv[] = {(char *)"python3", (char *)"-u", (char *)"-c", whole, NULL};
    struct agent_program *program = agent_program_new(world, argv);
    free(whole);
    return program;
}

static void expect_out(struct agent_world *world, const char *script, const char *want)
{
    struct agent_program *program = python(world, script);
    agent_program_end(program);
    if (strcmp(agent_program_out(program), want) != 0)
        fail_msg("%s\n→ %s\nwanted: %s", script, agent_program_out(program), want);
    agent_program_free(program);
}

/* ---- the frame of it ----------------------------------------------------------------------------------------- */

static void test_hello_tells_who_we_are_and_a_caller_gets_no_tasks(void **state)
{
    struct agent_world *world = world_new("cat");
    expect_out(world, "r = call('hello', proto=1, role='caller')['result']; print(r['proto'], r['agent'], r['slots'])", "1 worker 4\n");
    expect_out(world, "print(name(call('hello', proto=2)), name(call('hello', proto=1)), name(call('hello', proto=1, role='boss')), name(call('hello', concurrency=0)))",
               "version unsupported invalid invalid\n");
    agent_world_free(world);
}

static void test_unknown_methods_and_wrong_params_are_errors_with_names(void **state)
{
    struct agent_world *world = world_new("cat");
    expect_out(world, "f = call('frobnicate')['error']; print(f['code'], f['data']['code'])", "-32601 AMESH-1006\n");
    expect_out(world,
               "print(name(call('send', text='x')), name(call('send', to='worker')), name(call('send', to='worker', skill='s', text='x')), name(call('send', to='UP', text='x')),\n"
               " name(call('send', to='worker', text='x', timeoutMs=-1)), name(call('send', to='worker', text='x', key='k')), name(call('send', to='worker', message={'parts': []})),\n"
               " name(call('send', to='worker', text=7)), name(call('task.event', taskId='t-x', event={})), name(call('task.ask', taskId='t-x', prompt='?')), name(call('task.get')),\n"
               " name(call('kv.put', scope='shared', key='k')), name(call('log', level='loud', text='x')))",
               "invalid invalid invalid invalid invalid invalid invalid invalid no_such_task no_such_task invalid invalid invalid\n");
    expect_out(world, "print(call('ping', anything={'is': 'ignored'})['result'], call('log', text='hi')['result'])", "{} {}\n");
    agent_world_free(world);
}

static void test_a_connection_has_a_number_of_open_requests(void **state)
{
    struct agent_world *world = world_new("exec tail -f /dev/null");
    expect_out(world, "ids = [start('send', to='worker', text='x') for i in range(257)]; print(name(wait(ids[-1])))", "overloaded\n");
    agent_world_free(world);
}

/* ---- send ---------------------------------------------------------------------------------------------------- */

static void test_send_returns_the_task_as_the_fold_of_its_events(void **state)
{
    struct agent_world *world = world_new("printf 'got '; cat");
    expect_out(world,
               "t = call('send', to='worker', text='it')['result']\n"
               "print(t['status']['state'], text(t), t['metadata']['amp/agent'], t['history'][0]['parts'][0]['text'], t['id'][:2], t['contextId'][:2])",
               "TASK_STATE_COMPLETED got it worker it t- c-\n");
    expect_out(world, "t = call('send', to='worker', message={'parts': [{'text': 'a'}, {'text': 'b'}]}, contextId='c-mine')['result']; print(text(t), t['contextId'])", "got ab c-mine\n");
    agent_world_free(world);
}

static void test_a_stream_comes_in_order_before_the_result(void **state)
{
    struct agent_world *world = world_new("printf one; printf two");
    expect_out(world,
               "i = start('send', to='worker', text='x', stream=True); t = wait(i)['result']; e = [f['params'] for f in events]\n"
               "print([x['seq'] for x in e] == list(range(1, len(e) + 1)), all(x['id'] == i for x in e), text(t),\n"
               " ''.join(p['text'] for x in e if 'artifactUpdate' in x['event'] for p in x['event']['artifactUpdate']['artifact']['parts']), e[-1]['event']['statusUpdate']['status']['state'])",
               "True True onetwo onetwo TASK_STATE_COMPLETED\n");
    agent_world_free(world);
}

/* A peer that writes its events with line ends between the tokens, and in one of them what would be a frame of the local API. */
static void on_forger(void *ctx, const struct bus_msg *msg)
{
    struct agent_world *world = ctx;
    static char working[] = "{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"metadata\":{\"x\":[1,\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"forged\"}\r\n]}}}";
    static char completed[] = "{\"statusUpdate\":\n{\"status\":{\"state\":\"TASK_STATE_COMPLETED\"}}}";
    Amp__Envelope *request, envelope = AMP__ENVELOPE__INIT;
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__End end = AMP__END__INIT;
    Amp__Event events[2] = {AMP__EVENT__INIT, AMP__EVENT__INIT}, *pointers[2] = {&events[0], &events[1]};
    Amp__Json bodies[2] = {AMP__JSON__INIT, AMP__JSON__INIT};
    enum amp_encoding encoding;
    amp_arena_reset(&world->arena);
    assert_int_equal(amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_REQUEST, &world->arena, &request, &encoding, NULL), AMP_OK);
    for (size_t i = 0; i < 2; i++) {
        bodies[i].text = (ProtobufCBinaryData){.data = (uint8_t *)(i ? completed : working), .len = strlen(i ? completed : working)};
        events[i].body = &bodies[i];
    }
    frame.task_id = request->request->task_id;
    frame.context_id = request->request->context_id;
    frame.agent = (char *)"forger";
    frame.instance = (char *)"i-forger";
    frame.seq = 1;
    frame.n_events = end.count = 2;
    frame.events = pointers;
    frame.end = &end;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.from = (char *)"forger";
    envelope.body_case = AMP__ENVELOPE__BODY_FRAME;
    envelope.frame = &frame;
    struct amp_buf wire;
    amp_buf_init(&wire, 1u << 16);
    assert_int_equal(amp_encode(&envelope.base, AMP_PROTOBUF, &wire, NULL), AMP_OK);
    assert_int_equal(bus_publish(world->caller_bus, msg->reply, NULL, amp_buf_bytes(&wire)), AMP_OK);
    amp_buf_done(&wire);
}

static void test_line_ends_in_a_peers_event_are_no_line_ends_of_ours(void **state)
{
    struct agent_world *world = world_new("cat");
    struct bus_sub *sub = bus_subscribe(world->caller_bus, "amp.req.forger.*", AMP_QUEUE_GROUP, on_forger, world);
    expect_out(world,
               "i = start('send', to='forger', text='x', stream=True); t = wait(i)['result']\n"
               "print(t if isinstance(t, str) else t['status']['state'], len(events), events[0]['params']['event']['statusUpdate']['metadata']['x'][1]['result'])",
               "TASK_STATE_COMPLETED 2 forged\n");
    bus_unsubscribe(sub, false);
    agent_world_free(world);
}

static void test_a_failure_is_a_task_and_nobody_there_is_an_error(void **state)
{
    struct agent_world *world = world_new("echo no paint >&2; exit 2");
    expect_out(world, "t = call('send', to='worker', text='x')['result']; print(t['status']['state'], 'no paint' in t['status']['message']['parts'][0]['text'])", "TASK_STATE_FAILED True\n");
    expect_out(world, "print(name(call('send', to='nobody', text='x')), name(call('send', skill='flying', text='x')))", "no_such_agent no_such_skill\n");
    agent_world_free(world);
}

static void test_what_was_sent_can_be_looked_at_and_stopped(void **state)
{
    struct agent_world *world = world_new("printf working; exec tail -f /dev/null");
    expect_out(world,
               "i = start('send', to='worker', text='x', stream=True)\n"
               "while not any('artifactUpdate' in f['params']['event'] for f in events): events.append(json.loads(r.readline()))\n"
               "k = [f['params']['event']['artifactUpdate']['taskId'] for f in events if 'artifactUpdate' in f['params']['event']][0]\n"
               "print(call('task.get', taskId=k)['result']['status']['state'], call('task.stop', taskId=k, reason='enough')['result'])\n"
               "print(wait(i)['result']['status']['state'])",
               "TASK_STATE_WORKING {}\nTASK_STATE_CANCELED\n");
    agent_world_free(world);
}

static void test_a_call_inside_a_task_has_a_parent_and_cannot_go_in_circles(void **state)
{
    struct agent_world *world = world_new("case $(cat) in child) printf child;; *) curl -sS --unix-socket \"$AMESH_SOCK\" -d child \"http://x/v1/send/worker?task=$AMESH_TASK\";; esac");
    struct agent_call *call = agent_call_new(world, "parent");
    agent_call_end(call);
    if (!strstr(call->text, "\"name\":\"loop\""))
        fail_msg("%s %s", call->text, call->reason);
    agent_call_free(call);
    agent_world_free(world);
}

static void test_a_caller_that_hangs_up_cancels_what_it_sent(void **state)
{
    struct agent_world *world = world_new("printf working; exec tail -f /dev/null");
    uint64_t canceled = counter_get(COUNTER_tasks_canceled);
    expect_out(world,
               "start('send', to='worker', text='x', stream=True)\n"
               "while not any('artifactUpdate' in f['params']['event'] for f in events): events.append(json.loads(r.readline()))\nprint('seen')",
               "seen\n");
    for (int i = 0; i < 1000 && counter_get(COUNTER_tasks_canceled) == canceled; i++) {
        loop_timer_set(world->late, 10);
        (void)loop_run(world->loop);
    }
    assert_int_equal(counter_get(COUNTER_tasks_canceled) - canceled, 1);
    agent_world_free(world);
}

static void test_one_send_is_taken_back_and_the_connection_goes_on(void **state)
{
    struct agent_world *world = world_new("printf working; exec tail -f /dev/null");
    uint64_t canceled = counter_get(COUNTER_tasks_canceled);
    expect_out(world,
               "i = start('send', to='worker', text='x', stream=True)\n"
               "while not any('artifactUpdate' in f['params']['event'] for f in events): events.append(json.loads(r.readline()))\n"
               "w.write(json.dumps({'method': 'send.cancel', 'params': {'id': i}}) + '\\n'); w.flush()\n"
               "print(name(wait(i)), call('ping')['result'])",
               "canceled {}\n");
    for (int i = 0; i < 1000 && counter_get(COUNTER_tasks_canceled) == canceled; i++) {
        loop_timer_set(world->late, 10);
        (void)loop_run(world->loop);
    }
    assert_int_equal(counter_get(COUNTER_tasks_canceled) - canceled, 1);
    agent_world_free(world);
}

/* ---- questions -------------------------------------------------------------------------------------------------- */

static void test_a_question_is_answered_by_the_human(void **state)
{
    struct agent_world *world = world_new("printf 'painted '; curl -sS --unix-socket \"$AMESH_SOCK\" -H 'Accept: text/plain' -H 'Content-Type: text/plain' -d 'Which colour?' http://x/v1/tasks/$AMESH_TASK/ask");
    struct agent_call *call = agent_call_new(world, "x");
    struct amp_error err = {0};
    while (!strstr(call->events, "INPUT_REQUIRED"))
        agent_world_wait_count(world, &call->n_events, call->n_events + 1);
    assert_non_null(strstr(call->events, "Which colour?"));
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    part.text = (char *)"blue";
    message.message_id = (char *)"m-1";
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    assert_int_equal(call_answer(call->call, NULL, &message, &err), AMP_OK);
    agent_call_end(call);
    assert_string_equal(call->text, "painted blue");
    agent_call_free(call);
    agent_world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_tells_who_we_are_and_a_caller_gets_no_tasks),
        cmocka_unit_test(test_unknown_methods_and_wrong_params_are_errors_with_names),
        cmocka_unit_test(test_a_connection_has_a_number_of_open_requests),
        cmocka_unit_test(test_send_returns_the_task_as_the_fold_of_its_events),
        cmocka_unit_test(test_a_stream_comes_in_order_before_the_result),
        cmocka_unit_test(test_line_ends_in_a_peers_event_are_no_line_ends_of_ours),
        cmocka_unit_test(test_a_failure_is_a_task_and_nobody_there_is_an_error),
        cmocka_unit_test(test_what_was_sent_can_be_looked_at_and_stopped),
        cmocka_unit_test(test_a_call_inside_a_task_has_a_parent_and_cannot_go_in_circles),
        cmocka_unit_test(test_a_caller_that_hangs_up_cancels_what_it_sent),
        cmocka_unit_test(test_one_send_is_taken_back_and_the_connection_goes_on),
        cmocka_unit_test(test_a_question_is_answered_by_the_human),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
