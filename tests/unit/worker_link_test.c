/* Long-lived agents, end to end: a real nats-server, a sidecar, a real child that speaks the local API well or badly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent_world.h"
#include "base/call.h"
#include "base/counters.h"
#include "base/loop.h"

/* The agent of jsonl tests: reads a frame, does what its text says. */
static const char jsonl_agent[] =
    "import sys, json, os, time\n"
    "def say(f): sys.stdout.write(json.dumps(f) + '\\n'); sys.stdout.flush()\n"
    "for line in sys.stdin:\n"
    "    f = json.loads(line)\n"
    "    m, p = f.get('method'), f.get('params', {})\n"
    "    if m == 'drain': sys.exit(0)\n"
    "    if m != 'task.run': continue\n"
    "    i, t, k = f['id'], p['text'], p['taskId']\n"
    "    def event(**e): say({'method': 'task.event', 'params': {'taskId': k, 'event': e}})\n"
    "    if t == 'stream':\n"
    "        for w in ('one ', 'two ', 'three'): event(type='text', text=w)\n"
    "        say({'id': i, 'result': None})\n"
    "    elif t == 'noise': print('loading'); sys.stderr.write('warming up\\n'); say({'id': i, 'result': 'quiet'})\n"
    "    elif t == 'twice': say({'id': i, 'result': 'first'}); say({'id': i, 'result': 'second'})\n"
    "    elif t == 'unknown': say({'id': 4711, 'result': 'x'}); say({'id': i, 'result': 'known'})\n"
    "    elif t == 'garbage': print('{ not json'); print('{}'); say({'id': i, 'result': 'still here'})\n"
    "    elif t == 'error': say({'id': i, 'error': {'code': 1, 'message': 'ValueError: broken'}})\n"
    "    elif t == 'rejected': say({'id': i, 'result': {'state': 'rejected', 'message': 'not mine'}})\n"
    "    elif t == 'badstate': say({'id': i, 'result': {'state': 'confused'}})\n"
    "    elif t == 'die': sys.stderr.write('last words\\n'); sys.stderr.flush(); os._exit(7)\n"
    "    elif t == 'kill': os.kill(os.getpid(), 9)\n"
    "    elif t == 'half': sys.stdout.write('{\"id\":%d,\"res' % i); sys.stdout.flush(); os._exit(0)\n"
    "    elif t == 'answer and die': say({'id': i, 'result': 'said before the end'}); os._exit(1)\n"
    "    elif t == 'flood':\n"
    "        for n in range(100): print('{')\n"
    "        sys.stdout.flush()\n"
    "        sys.stdin.read()\n"
    "    elif t == 'badevent': event(type='nonsense'); say({'id': i, 'result': 'went on'})\n"
    "    elif t == 'hang':\n"
    "        event(type='text', text='working')\n"
    "        for l in sys.stdin:\n"
    "            if json.loads(l).get('method') == 'task.cancel': say({'id': i, 'error': {'code': -32800, 'message': 'stopped'}}); break\n"
    "    elif t == 'pid': say({'id': i, 'result': str(os.getpid())})\n"
    "    else: say({'id': i, 'result': {'text': t.upper()}})\n";

static char *jsonl_argv[] = {(char *)"python3", (char *)"-u", (char *)"-c", (char *)jsonl_agent, NULL};

static struct agent_world *jsonl_world(uint32_t slots)
{
    const struct sidecar_options options = {.mode = SIDECAR_JSONL, .argv = jsonl_argv, .slots = slots};
    struct agent_world *world = agent_world_new(&options);
    agent_world_ready(world);
    return world;
}

static struct agent_call *ask(struct agent_world *world, const char *text)
{
    struct agent_call *call = agent_call_new(world, text);
    agent_call_end(call);
    return call;
}

static void expect(struct agent_world *world, const char *text, Amp__TaskState state, const char *answer)
{
    struct agent_call *call = ask(world, text);
    if (call->state != state || strcmp(state == AMP__TASK_STATE__TASK_STATE_COMPLETED ? call->text : call->reason, answer) != 0)
        fail_msg("%s: %s, text \"%s\", reason \"%s\", error \"%s\"", text, amp_task_state_name(call->state), call->text, call->reason, call->err.message);
    agent_call_free(call);
}

#define COMPLETED AMP__TASK_STATE__TASK_STATE_COMPLETED
#define FAILED AMP__TASK_STATE__TASK_STATE_FAILED
#define REJECTED AMP__TASK_STATE__TASK_STATE_REJECTED
#define CANCELED AMP__TASK_STATE__TASK_STATE_CANCELED

/* ---- jsonl --------------------------------------------------------------------------------------------------- */

static void test_a_jsonl_agent_needs_no_hello_and_answers(void **state)
{
    struct agent_world *world = jsonl_world(1);
    expect(world, "hello", COMPLETED, "HELLO");
    expect(world, "stream", COMPLETED, "one two three");
    expect(world, "noise", COMPLETED, "quiet");
    expect(world, "error", FAILED, "ValueError: broken");
    expect(world, "rejected", REJECTED, "not mine");
    agent_world_free(world);
}

static void test_nonsense_of_the_agent_is_counted_and_it_goes_on(void **state)
{
    struct agent_world *world = jsonl_world(1);
    uint64_t replies = counter_get(COUNTER_agent_bad_replies), lines = counter_get(COUNTER_local_bad_lines);
    expect(world, "twice", COMPLETED, "first");
    expect(world, "unknown", COMPLETED, "known");
    expect(world, "garbage", COMPLETED, "still here");
    expect(world, "badevent", COMPLETED, "went on");
    struct agent_call *call = ask(world, "badstate");
    assert_int_equal(call->state, FAILED);
    agent_call_free(call);
    assert_int_equal(counter_get(COUNTER_agent_bad_replies) - replies, 2);
    assert_int_equal(counter_get(COUNTER_local_bad_lines) - lines, 2);
    expect(world, "fine", COMPLETED, "FINE");
    agent_world_free(world);
}

static void expect_death(struct agent_world *world, const char *text, int exit_code, int signo, const char *reason)
{
    struct agent_call *call = ask(world, text);
    assert_int_equal(call->state, FAILED);
    assert_int_equal(call->err.code, AMP_AGENT_DIED);
    assert_true(call->has_death);
    assert_int_equal(call->death_exit_code, exit_code);
    assert_int_equal(call->death_signal, signo);
    if (!strstr(call->reason, reason))
        fail_msg("%s: %s", text, call->reason);
    agent_call_free(call);
}

static void test_a_death_fails_the_task_with_its_cause_and_the_process_starts_again(void **state)
{
    struct agent_world *world = jsonl_world(1);
    expect_death(world, "die", 7, 0, "exit code 7");
    expect(world, "back", COMPLETED, "BACK");
    expect_death(world, "kill", 0, 9, "SIGKILL");
    expect(world, "back", COMPLETED, "BACK");
    expect_death(world, "half", 0, 0, "exit code 0");
    expect(world, "back", COMPLETED, "BACK");
    agent_world_free(world);
}

static void test_an_answer_given_just_before_the_death_counts(void **state)
{
    struct agent_world *world = jsonl_world(1);
    expect(world, "answer and die", COMPLETED, "said before the end");
    agent_world_free(world);
}

static void test_an_agent_that_floods_garbage_is_killed_and_its_task_fails(void **state)
{
    struct agent_world *world = jsonl_world(1);
    expect_death(world, "flood", 0, 9, "SIGKILL");
    expect(world, "back", COMPLETED, "BACK");
    agent_world_free(world);
}

static void test_a_cancel_reaches_the_agent(void **state)
{
    struct agent_world *world = jsonl_world(1);
    struct agent_call *call = agent_call_new(world, "hang");
    while (!strstr(call->events, "\"working\""))
        agent_world_wait_count(world, &call->n_events, call->n_events + 1);
    call_cancel(call->call, "enough");
    agent_call_end(call);
    assert_int_equal(call->state, CANCELED);
    agent_call_free(call);
    expect(world, "back", COMPLETED, "BACK");
    agent_world_free(world);
}

static void test_an_agent_that_ignores_a_cancel_is_killed(void **state)
{
    char *argv[] = {(char *)"python3", (char *)"-u", (char *)"-c", (char *)"import sys, json\nfor l in sys.stdin:\n  f = json.loads(l)\n  if f['method'] == 'task.run': print(json.dumps({'method': 'task.event', 'params': {'taskId': f['params']['taskId'], 'event': {'type': 'text', 'text': 'deaf'}}}))\n", NULL};
    const struct sidecar_options options = {.mode = SIDECAR_JSONL, .argv = argv, .slots = 1};
    struct agent_world *world = agent_world_new(&options);
    agent_world_ready(world);
    struct agent_call *call = agent_call_new(world, "x");
    while (!strstr(call->events, "deaf"))
        agent_world_wait_count(world, &call->n_events, call->n_events + 1);
    uint64_t deaths = counter_get(COUNTER_agent_deaths);
    call_cancel(call->call, NULL);
    agent_call_end(call);
    assert_int_equal(call->state, CANCELED);
    assert_int_equal(counter_get(COUNTER_agent_deaths) - deaths, 1);
    agent_call_free(call);
    agent_world_free(world);
}

/* What it says after the cancel is not taken; so "completed" would be a lie. */
static void test_an_agent_that_goes_on_after_a_cancel_is_cancelled(void **state)
{
    char *argv[] = {(char *)"python3", (char *)"-u", (char *)"-c", (char *)"import sys, json\ndef text(t): print(json.dumps({'method': 'task.event', 'params': {'taskId': task, 'event': {'type': 'text', 'text': t}}}))\nfor l in sys.stdin:\n  f = json.loads(l)\n  if f['method'] == 'task.run':\n    run, task = f['id'], f['params']['taskId']\n    text('first')\n  if f['method'] == 'task.cancel':\n    text(' second')\n    print(json.dumps({'id': run, 'result': None}))\n", NULL};
    const struct sidecar_options options = {.mode = SIDECAR_JSONL, .argv = argv, .slots = 1};
    struct agent_world *world = agent_world_new(&options);
    agent_world_ready(world);
    struct agent_call *call = agent_call_new(world, "x");
    while (!strstr(call->events, "first"))
        agent_world_wait_count(world, &call->n_events, call->n_events + 1);
    call_cancel(call->call, NULL);
    agent_call_end(call);
    assert_int_equal(call->state, CANCELED);
    agent_call_free(call);
    agent_world_free(world);
}

static void test_drain_lets_the_agent_go(void **state)
{
    struct agent_world *world = jsonl_world(2);
    expect(world, "hello", COMPLETED, "HELLO");
    uint64_t deaths = counter_get(COUNTER_agent_deaths);
    sidecar_drain(world->sidecar, 5000);
    agent_world_wait(world, &world->is_stopped);
    assert_int_equal(counter_get(COUNTER_agent_deaths), deaths);
    agent_world_free(world);
}

/* ---- dial ------------------------------------------------------------------------------------------------------- */

static const char dial_agent[] =
    "import os, sys, json, socket\n"
    "name = sys.argv[1]; slots = int(sys.argv[2])\n"
    "s = socket.socket(socket.AF_UNIX); s.connect(os.environ['AMESH_SOCK'])\n"
    "r, w = s.makefile('r'), s.makefile('w')\n"
    "def say(f): w.write(json.dumps(f) + '\\n'); w.flush()\n"
    "say({'id': 'h', 'method': 'hello', 'params': {'proto': 1, 'concurrency': slots}})\n"
    "for line in r:\n"
    "    f = json.loads(line)\n"
    "    if f.get('id') == 'h': print('greeted' if 'result' in f else f['error']['message'], flush=True)\n"
    "    if f.get('method') != 'task.run': continue\n"
    "    t = f['params']['text']\n"
    "    if t == 'close': s.shutdown(2); sys.exit(0)\n"
    "    if t == 'die': os._exit(3)\n"
    "    if t == 'wait': continue\n"
    "    say({'id': f['id'], 'result': name + ' ' + t})\n";

static struct agent_program *dial(struct agent_world *world, const char *name, const char *slots)
{
    char *argv[] = {(char *)"python3", (char *)"-u", (char *)"-c", (char *)dial_agent, (char *)name, (char *)slots, NULL};
    struct agent_program *program = agent_program_new(world, argv);
    agent_world_wait_count(world, &program->n_out, 1);
    return program;
}

static struct agent_world *dial_world(uint32_t slots)
{
    const struct sidecar_options options = {.mode = SIDECAR_DIAL, .slots = slots};
    return agent_world_new(&options);
}

static void test_anybody_may_dial_and_the_instance_is_ready_at_hello(void **state)
{
    struct agent_world *world = dial_world(4);
    struct agent_program *one = dial(world, "one", "1");
    agent_world_ready(world);
    expect(world, "hi", COMPLETED, "one hi");
    agent_program_free(one);
    agent_world_free(world);
}

static const char hello_agent[] =
    "import os, sys, json, socket\n"
    "s = socket.socket(socket.AF_UNIX); s.connect(os.environ['AMESH_SOCK']); r = s.makefile('r')\n"
    "s.sendall((json.dumps({'id': 1, 'method': 'hello', 'params': {'proto': 1, 'card': json.loads(sys.argv[1])}}) + '\\n').encode())\n"
    "f = json.loads(r.readline()); os.write(1, ((f['error']['message'] if 'error' in f else 'greeted') + '\\n').encode())\n"
    "for line in r:\n"
    "    f = json.loads(line)\n"
    "    if f['method'] == 'task.run': s.sendall((json.dumps({'id': f['id'], 'result': f['params'].get('skill', 'by name')}) + '\\n').encode())\n";

static struct agent_program *say_hello(struct agent_world *world, const char *card)
{
    char *argv[] = {(char *)"python3", (char *)"-u", (char *)"-c", (char *)hello_agent, (char *)card, NULL};
    struct agent_program *program = agent_program_new(world, argv);
    agent_world_wait_count(world, &program->n_out, 1);
    return program;
}

static void test_the_card_of_hello_adds_its_skills(void **state)
{
    struct agent_world *world = dial_world(4);
    struct agent_program *wrong = say_hello(world, "{\"skills\":[{\"id\":\"a.b\"}]}");
    assert_non_null(strstr(agent_program_out(wrong), "a.b"));
    agent_program_free(wrong);
    wrong = say_hello(world, "[1]");
    assert_non_null(strstr(agent_program_out(wrong), "AgentCard"));
    agent_program_free(wrong);
    struct agent_program *painter = say_hello(world, "{\"description\":\"paints\",\"skills\":[{\"id\":\"paint\",\"description\":\"doors\"},{\"id\":\"worker\"}]}");
    assert_string_equal(agent_program_out(painter), "greeted\n");
    agent_world_ready(world);
    const Amp__AgentCard *card = sidecar_options(world->sidecar)->card;
    assert_string_equal(card->skills[card->n_skills - 1]->id, "paint");
    struct agent_call *call = agent_call_new_skill(world, "paint", "the door");
    agent_call_end(call);
    assert_string_equal(call->text, "paint");
    agent_call_free(call);
    struct agent_program *late = say_hello(world, "{\"skills\":[{\"id\":\"late\"}]}");
    assert_string_equal(agent_program_out(late), "greeted\n");
    assert_ptr_equal(sidecar_options(world->sidecar)->card, card);
    agent_program_free(late);
    agent_program_free(painter);
    agent_world_free(world);
}

static void test_several_workers_share_the_tasks(void **state)
{
    struct agent_world *world = dial_world(8);
    struct agent_program *one = dial(world, "one", "1");
    struct agent_program *two = dial(world, "two", "1");
    agent_world_ready(world);
    struct agent_call *waiting = agent_call_new(world, "wait"); /* takes one of the two for good */
    agent_world_wait_count(world, &waiting->n_events, 1);
    struct agent_call *call = ask(world, "hi");
    assert_int_equal(call->state, COMPLETED);
    assert_non_null(strstr(call->text, " hi"));
    agent_call_free(call);
    agent_call_free(waiting);
    agent_program_free(one);
    agent_program_free(two);
    agent_world_free(world);
}

static void test_a_dialled_agent_that_closes_fails_its_task_with_words(void **state)
{
    struct agent_world *world = dial_world(1);
    struct agent_program *one = dial(world, "one", "1");
    agent_world_ready(world);
    struct agent_call *call = ask(world, "close");
    assert_int_equal(call->state, FAILED);
    assert_int_equal(call->err.code, AMP_AGENT_DIED);
    assert_non_null(strstr(call->reason, "connection"));
    agent_call_free(call);
    agent_program_free(one);
    one = dial(world, "two", "1");
    expect(world, "again", COMPLETED, "two again");
    agent_program_free(one);
    agent_world_free(world);
}

static void test_a_spawned_dialling_agent_dies_with_its_exit_code(void **state)
{
    char *argv[] = {(char *)"python3", (char *)"-u", (char *)"-c", (char *)dial_agent, (char *)"spawned", (char *)"1", NULL};
    const struct sidecar_options options = {.mode = SIDECAR_DIAL, .argv = argv, .slots = 1};
    struct agent_world *world = agent_world_new(&options);
    agent_world_ready(world);
    expect(world, "hi", COMPLETED, "spawned hi");
    expect_death(world, "die", 3, 0, "exit code 3");
    expect(world, "again", COMPLETED, "spawned again");
    agent_world_free(world);
}

static void test_a_worker_is_refused_where_tasks_go_another_way(void **state)
{
    struct agent_world *world = jsonl_world(1);
    struct agent_program *one = dial(world, "one", "1");
    while (!strchr(agent_program_out(one), '\n'))
        agent_world_wait_count(world, &one->n_out, one->n_out + 1);
    assert_non_null(strstr(agent_program_out(one), "does not take its tasks"));
    expect(world, "hello", COMPLETED, "HELLO");
    agent_program_free(one);
    agent_world_free(world);
}

/* ---- shims -------------------------------------------------------------------------------------------------------- */

/* Stands where the interpreter stands: called with the shim's path and the target, it speaks on AMESH_FD itself, so that the sidecar's side is tested without a shim. */
static const char interpreter[] =
    "#!/usr/bin/env python3\n"
    "import json, os, socket, sys\n"
    "s = socket.socket(fileno=int(os.environ['AMESH_FD'])); r, w = s.makefile('r'), s.makefile('w')\n"
    "def say(f): w.write(json.dumps(f) + '\\n'); w.flush()\n"
    "print('this is stdout and no frame')\n"
    "say({'id': 1, 'method': 'hello', 'params': {'proto': 1, 'concurrency': int(os.environ['AMESH_CONCURRENCY'])}})\n"
    "for line in r:\n"
    "    f = json.loads(line)\n"
    "    if f.get('method') != 'task.run': continue\n"
    "    if f['params']['text'] == 'die': os._exit(5)\n"
    "    if f['params']['text'] == 'hang up': s.shutdown(2); w = None; import signal; signal.pause()\n"
    "    shim, target = sys.argv[1:]\n"
    "    found = os.path.exists(shim) and os.path.exists(os.path.join(os.environ['PYTHONPATH'].split(':')[0], 'amesh.py'))\n"
    "    say({'id': f['id'], 'result': '%s %s %s' % (os.path.basename(shim), target, found)})\n";

static void test_a_shim_speaks_on_its_own_descriptor_and_finds_its_files(void **state)
{
    char path[] = "/tmp/amesh-python-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, interpreter, sizeof interpreter - 1), (int)sizeof interpreter - 1);
    assert_int_equal(fchmod(fd, 0700), 0);
    close(fd);
    const struct sidecar_options options = {.mode = SIDECAR_SHIM, .target = "dir/app.py:agent", .python = path, .slots = 2};
    struct agent_world *world = agent_world_new(&options);
    agent_world_ready(world);
    expect(world, "x", COMPLETED, "amesh_shim.py dir/app.py:agent True");
    expect_death(world, "die", 5, 0, "exit code 5");
    expect(world, "x", COMPLETED, "amesh_shim.py dir/app.py:agent True");
    expect_death(world, "hang up", 0, 9, "SIGKILL");
    expect(world, "x", COMPLETED, "amesh_shim.py dir/app.py:agent True");
    unlink(path);
    agent_world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_jsonl_agent_needs_no_hello_and_answers),
        cmocka_unit_test(test_nonsense_of_the_agent_is_counted_and_it_goes_on),
        cmocka_unit_test(test_a_death_fails_the_task_with_its_cause_and_the_process_starts_again),
        cmocka_unit_test(test_an_answer_given_just_before_the_death_counts),
        cmocka_unit_test(test_an_agent_that_floods_garbage_is_killed_and_its_task_fails),
        cmocka_unit_test(test_a_cancel_reaches_the_agent),
        cmocka_unit_test(test_an_agent_that_ignores_a_cancel_is_killed),
        cmocka_unit_test(test_an_agent_that_goes_on_after_a_cancel_is_cancelled),
        cmocka_unit_test(test_drain_lets_the_agent_go),
        cmocka_unit_test(test_anybody_may_dial_and_the_instance_is_ready_at_hello),
        cmocka_unit_test(test_the_card_of_hello_adds_its_skills),
        cmocka_unit_test(test_several_workers_share_the_tasks),
        cmocka_unit_test(test_a_dialled_agent_that_closes_fails_its_task_with_words),
        cmocka_unit_test(test_a_spawned_dialling_agent_dies_with_its_exit_code),
        cmocka_unit_test(test_a_worker_is_refused_where_tasks_go_another_way),
        cmocka_unit_test(test_a_shim_speaks_on_its_own_descriptor_and_finds_its_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
