#include "agent_world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "nats_server.h"
#include "sidecar/spawn.h"

enum { LATE_MS = 30000 };

static void must(bool is_true, const char *what, const char *why)
{
    if (is_true)
        return;
    (void)fprintf(stderr, "agent_world: %s: %s\n", what, why);
    abort();
}

static void on_late(void *ctx)
{
    struct agent_world *world = ctx;
    world->is_late = true;
    loop_stop(world->loop, 0);
}

void agent_world_wait(struct agent_world *world, const bool *flag)
{
    world->is_late = false;
    loop_timer_set(world->late, LATE_MS);
    while (!*flag && !world->is_late)
        (void)loop_run(world->loop);
    loop_timer_stop(world->late);
    must(*flag, "wait", "what was waited for did not happen");
}

void agent_world_wait_count(struct agent_world *world, const uint32_t *count, uint32_t least)
{
    world->is_late = false;
    loop_timer_set(world->late, LATE_MS);
    while (*count < least && !world->is_late)
        (void)loop_run(world->loop);
    loop_timer_stop(world->late);
    must(*count >= least, "wait", "the number waited for was not reached");
}

static void on_ready(void *ctx)
{
    struct agent_world *world = ctx;
    world->is_ready = true;
    loop_stop(world->loop, 0);
}

static void on_stopped(void *ctx, int status)
{
    struct agent_world *world = ctx;
    world->is_stopped = true;
    loop_stop(world->loop, 0);
}

static void on_up(void *ctx)
{
    struct agent_world *world = ctx;
    if (world->sidecar)
        sidecar_bus_up(world->sidecar);
}

static void on_down(void *ctx)
{
    struct agent_world *world = ctx;
    if (world->sidecar)
        sidecar_bus_down(world->sidecar);
}

struct agent_world *agent_world_new(const struct sidecar_options *options)
{
    struct agent_world *world = xcalloc(1, sizeof *world);
    struct amp_error err = {0};
    struct sidecar_options own = *options;
    log_init(log_level_from_env(LOG_WARN), "test");
    world->server = nats_server_start(NULL, NULL);
    world->loop = loop_new();
    world->late = loop_timer_new(world->loop, on_late, world);
    const struct bus_options bus = {.url = nats_server_url(world->server), .name = "test", .on_up = on_up, .on_down = on_down, .ctx = world};
    const struct bus_options caller = {.url = nats_server_url(world->server), .name = "caller"};
    must(bus_new(world->loop, &bus, &world->bus, &err) == AMP_OK, "bus", err.message);
    must(bus_new(world->loop, &caller, &world->caller_bus, &err) == AMP_OK, "bus", err.message);
    amp_arena_init(&world->arena, 1u << 20);
    amp__agent_card__init(&world->card);
    must(amp_card_complete(&world->card, "worker", &world->arena) == AMP_OK, "card", "");
    (void)snprintf(world->dir, sizeof(world->dir), "/tmp/amesh-test-XXXXXX");
    must(mkdtemp(world->dir) != NULL, "mkdtemp", "");
    (void)snprintf(world->socket, sizeof(world->socket), "%s/i.sock", world->dir);
    (void)snprintf(world->home.path, sizeof(world->home.path), "%s/home", world->dir);
    own.card = &world->card;
    own.socket = world->socket;
    must(sidecar_new(world->loop, world->bus, &world->home, &own, on_ready, on_stopped, world, &world->sidecar, &err) == AMP_OK, "sidecar", err.message);
    return world;
}

void agent_world_ready(struct agent_world *world)
{
    agent_world_wait(world, &world->is_ready);
}

void agent_world_free(struct agent_world *world)
{
    char command[96];
    sidecar_free(world->sidecar);
    bus_free(world->bus);
    bus_free(world->caller_bus);
    loop_timer_free(world->late);
    loop_free(world->loop);
    nats_server_stop(world->server);
    amp_arena_done(&world->arena);
    (void)snprintf(command, sizeof command, "rm -rf %s", world->dir);
    (void)!system(command);
    free(world);
}

/* ---- a call ----------------------------------------------------------------------------------------------- */

static void on_event(void *ctx, uint32_t seq, const Amp__Event *event)
{
    struct agent_call *call = ctx;
    struct amp_error err = {0};
    must(seq == ++call->n_events, "event", "not in order");
    struct amp_bytes body = {event->body->text.data, event->body->text.len};
    must(amp_fold_apply(call->fold, body, &err) == AMP_OK, "event", err.message);
    size_t used = strlen(call->events);
    (void)snprintf(call->events + used, sizeof(call->events) - used, "%.*s\n", (int)body.len, (const char *)body.data);
    loop_stop(call->world->loop, 0);
}

static void on_taken(void *ctx, const char *agent, const char *instance)
{
}

static void take_task(struct agent_call *call)
{
    const Amp__Task *task = amp_fold_task(call->fold);
    struct amp_buf text;
    amp_buf_init(&text, 64u << 20);
    call->state = amp_fold_state(call->fold);
    if (task->status && task->status->message)
        (void)amp_message_text(task->status->message, &text);
    (void)snprintf(call->reason, sizeof(call->reason), "%.*s", (int)text.len, text.len ? (const char *)text.data : "");
    amp_buf_done(&text);
    for (size_t i = 0; i < task->n_artifacts; i++) {
        const Amp__Artifact *artifact = task->artifacts[i];
        for (size_t j = 0; !strcmp(artifact->artifact_id, "response") && j < artifact->n_parts; j++) {
            size_t used = strlen(call->text);
            (void)snprintf(call->text + used, sizeof(call->text) - used, "%s", artifact->parts[j]->text ? artifact->parts[j]->text : "");
        }
    }
}

static void on_end(void *ctx, const struct amp_error *err, const Amp__Error *wire)
{
    struct agent_call *call = ctx;
    call->err = *err;
    call->is_ended = true;
    call->has_death = wire && wire->death;
    if (call->has_death) {
        call->death_signal = wire->death->signal;
        call->death_exit_code = wire->death->exit_code;
        call->death_stderr = wire->death->n_stderr;
    }
    take_task(call);
    loop_stop(call->world->loop, 0);
}

struct agent_call *agent_call_new_skill(struct agent_world *world, const char *skill, const char *text)
{
    static const struct call_handlers handlers = {.on_event = on_event, .on_taken = on_taken, .on_end = on_end};
    struct agent_call *call = xcalloc(1, sizeof *call);
    struct amp_error err = {0};
    call->world = world;
    amp_id_new('t', clock_unix_ms(), call->task);
    amp_id_new('c', clock_unix_ms(), call->context);
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    part.text = (char *)text;
    message.message_id = call->task;
    message.has_role = true;
    message.role = AMP__ROLE__ROLE_USER;
    message.n_parts = 1;
    message.parts = parts;
    call->fold = amp_fold_new(call->task, call->context, 8u << 20);
    const struct call_options options = {.agent = skill ? NULL : "worker", .skill = skill, .from = "caller", .task_id = call->task, .context_id = call->context, .message = &message, .attempt = 1};
    must(call_start(world->loop, world->caller_bus, &options, &handlers, call, &call->call, &err) == AMP_OK, "call", err.message);
    return call;
}

struct agent_call *agent_call_new(struct agent_world *world, const char *text)
{
    return agent_call_new_skill(world, NULL, text);
}

void agent_call_end(struct agent_call *call)
{
    agent_world_wait(call->world, &call->is_ended);
}

void agent_call_free(struct agent_call *call)
{
    call_free(call->call);
    amp_fold_free(call->fold);
    free(call);
}

/* ---- a program ------------------------------------------------------------------------------------------------ */

static void on_stdout(void *ctx, struct amp_bytes data)
{
    struct agent_program *program = ctx;
    (void)amp_buf_append(&program->out, data.data, data.len);
    program->n_out += (uint32_t)data.len;
    loop_stop(program->world->loop, 0);
}

static void on_exit_seen(void *ctx, const struct spawn_exit *exit)
{
    struct agent_program *program = ctx;
    program->is_over = true;
    program->status = exit->is_signal ? 128 + exit->signal : exit->exit_code;
    loop_stop(program->world->loop, 0);
}

struct agent_program *agent_program_new(struct agent_world *world, char *const *argv)
{
    static const struct spawn_handlers handlers = {.on_stdout = on_stdout, .on_exit = on_exit_seen};
    struct agent_program *program = xcalloc(1, sizeof *program);
    struct amp_error err = {0};
    char **env = sidecar_env_new(world->sidecar, NULL);
    const struct spawn_options options = {.argv = argv, .env_add = env, .pipe_stdio = true, .inherit_fd = -1, .echo_stderr = true};
    program->world = world;
    amp_buf_init(&program->out, 16u << 20);
    must(spawn_start(world->loop, &options, &handlers, program, &program->spawn, &err) == AMP_OK, "spawn", err.message);
    sidecar_env_free(env);
    spawn_close_stdin(program->spawn);
    return program;
}

void agent_program_end(struct agent_program *program)
{
    agent_world_wait(program->world, &program->is_over);
}

const char *agent_program_out(struct agent_program *program)
{
    (void)amp_buf_append(&program->out, "", 1);
    program->out.len--;
    return (const char *)program->out.data;
}

void agent_program_free(struct agent_program *program)
{
    spawn_free(program->spawn);
    amp_buf_done(&program->out);
    free(program);
}
