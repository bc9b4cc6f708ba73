#include "env_world.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/bus.h"
#include "base/envcall.h"

void env_world_open(struct env_world *world)
{
    struct env_options options = {.journal_path = world->journal, .name = "env"};
    struct amp_error err = {0};
    if (env_new(world->world.loop, world->world.far, &options, &world->env, &err) != AMP_OK)
        fail_msg("%s", err.message);
    world_settle(&world->world, world->world.far);
}

void env_world_begin(struct env_world *world, const char *config)
{
    memset(world, 0, sizeof *world);
    strcpy(world->dir, "/tmp/amesh-env-XXXXXX");
    assert_non_null(mkdtemp(world->dir));
    snprintf(world->journal, sizeof world->journal, "%s/journal.db", world->dir);
    amp_arena_init(&world->arena, AMP_ARENA_BYTES_MAX);
    world_begin(&world->world, config);
    env_world_open(world);
}

void env_world_end(struct env_world *world)
{
    char command[96];
    env_free(world->env);
    world_end(&world->world);
    amp_arena_done(&world->arena);
    snprintf(command, sizeof command, "rm -rf %s", world->dir);
    assert_int_equal(system(command), 0);
}

void env_world_restart(struct env_world *world)
{
    env_free(world->env);
    env_world_open(world);
}

static void on_reply(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct env_world *world = ctx;
    world->err = *err;
    world->reply = NULL;
    amp_arena_reset(&world->arena);
    if (reply) {
        size_t size = amp__env_reply__get_packed_size(reply);
        uint8_t *packed = amp_arena_alloc(&world->arena, size + 1);
        assert_non_null(packed);
        amp__env_reply__pack(reply, packed);
        world->reply = amp__env_reply__unpack(&world->arena.allocator, size, packed);
        assert_non_null(world->reply);
    }
    world->replies++;
    world_touch(&world->world);
}

void env_world_send(struct env_world *world, Amp__EnvRequest__VerbCase verb, void *body)
{
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    request.verb_case = verb;
    request.submit = body; /* they share the place */
    assert_int_equal(env_call(world->world.loop, world->world.near, "me", &request, 0, on_reply, world, NULL), AMP_OK);
}

void env_world_wait(struct env_world *world, unsigned replies)
{
    world_wait(&world->world, &world->replies, replies);
    world->replies = 0;
}

enum amp_code env_world_ask(struct env_world *world, Amp__EnvRequest__VerbCase verb, void *body)
{
    world->replies = 0;
    env_world_send(world, verb, body);
    env_world_wait(world, 1);
    return world->err.code;
}

void env_world_send_submit(struct env_world *world, const struct env_world_submit *from)
{
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    Amp__Request asked = AMP__REQUEST__INIT;
    Amp__Submit submit = AMP__SUBMIT__INIT;
    char *text = from->text_len ? calloc(1, from->text_len + 1) : strdup(from->text ? from->text : "hello");
    if (from->text_len)
        memset(text, 'x', from->text_len);
    part.text = text;
    message.message_id = (char *)"m-1";
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    asked.task_id = (char *)(from->task ? from->task : "");
    asked.context_id = (char *)(from->context ? from->context : "");
    asked.message = &message;
    submit.agent = (char *)(from->skill ? NULL : from->agent ? from->agent : "nobody");
    submit.skill = (char *)from->skill;
    submit.key = (char *)from->key;
    submit.retry = (char *)from->retry;
    Amp__Timestamp at = AMP__TIMESTAMP__INIT;
    at.unix_ms = from->at_unix_ms;
    submit.not_before = from->at_unix_ms ? &at : NULL;
    submit.has_delay_ms = from->in_ms > 0;
    submit.delay_ms = from->in_ms;
    asked.has_timeout_ms = from->timeout_ms > 0;
    asked.timeout_ms = from->timeout_ms;
    submit.request = &asked;
    env_world_send(world, AMP__ENV_REQUEST__VERB_SUBMIT, &submit);
    free(text);
}

enum amp_code env_world_submit(struct env_world *world, const struct env_world_submit *submit)
{
    world->replies = 0;
    env_world_send_submit(world, submit);
    env_world_wait(world, 1);
    return world->err.code;
}

enum amp_code env_world_get(struct env_world *world, const char *task)
{
    Amp__TaskQuery query = AMP__TASK_QUERY__INIT;
    query.id = (char *)task;
    return env_world_ask(world, AMP__ENV_REQUEST__VERB_GET, &query);
}

enum amp_code env_world_ping(struct env_world *world)
{
    Amp__Ping ping = AMP__PING__INIT;
    return env_world_ask(world, AMP__ENV_REQUEST__VERB_PING, &ping);
}

enum amp_code env_world_cancel(struct env_world *world, const char *task)
{
    Amp__Cancel cancel = AMP__CANCEL__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    Amp__TaskCommand command = AMP__TASK_COMMAND__INIT;
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &cancel;
    command.id = (char *)task;
    command.control = &control;
    return env_world_ask(world, AMP__ENV_REQUEST__VERB_COMMAND, &command);
}

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct env_world *world = ctx;
    (void)event;
    if (seq != world->next_seq)
        fail_msg("event %u came, %u was next", seq, world->next_seq);
    world->next_seq = seq + 1;
    world->events++;
    world_touch(&world->world);
}

static void on_watch_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct env_world *world = ctx;
    (void)wire;
    world->end_code = err->code;
    world->err = *err;
    world->ends++;
    world_touch(&world->world);
}

enum amp_code env_world_watch(struct env_world *world, const char *task, uint32_t from)
{
    static const struct env_watch_handlers handlers = {.on_event = on_event, .on_end = on_watch_end};
    struct env_watch *watch = NULL;
    world->events = world->ends = 0;
    world->next_seq = from ? from : 1;
    assert_int_equal(env_watch_start(world->world.loop, world->world.near, "me", task, from, 0, &handlers, world, &watch), AMP_OK);
    world_wait(&world->world, &world->ends, 1);
    env_watch_free(watch);
    return world->end_code;
}

const char *env_world_state(const struct env_world *world, size_t task)
{
    if (!world->reply || world->reply->n_tasks <= task)
        return "";
    return amp_task_state_short(world->reply->tasks[task]->task->status->state);
}

void env_world_beat(struct env_world *world, const char *agent, const char *instance, uint32_t free_slots, const char *const *tasks)
{
    char subject[AMP_SUBJECT_SIZE];
    Amp__Beat beat = AMP__BEAT__INIT;
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    beat.agent = (char *)agent;
    beat.instance = (char *)instance;
    beat.has_slots = beat.has_free = beat.has_inflight = true;
    beat.slots = free_slots + 1;
    beat.free = free_slots;
    beat.tasks = (char **)tasks;
    while (tasks && tasks[beat.n_tasks])
        beat.n_tasks++;
    beat.inflight = (uint32_t)beat.n_tasks;
    envelope.version = AMP_PROTOCOL_VERSION;
    envelope.body_case = AMP__ENVELOPE__BODY_BEAT;
    envelope.beat = &beat;
    assert_int_equal(amp_subject_build(AMP_SUBJECT_HB, agent, instance, NULL, subject, NULL), AMP_OK);
    world_send(world->world.near, subject, &envelope);
    world_settle(&world->world, world->world.near); /* the server has it */
    world_settle(&world->world, world->world.far);  /* the environment has it */
}

void env_world_break_disk(bool is_broken)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = is_broken ? 4096 : RLIM_INFINITY;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}
