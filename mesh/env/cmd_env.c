/* amesh env: the environment alone, on a bus that somebody else runs. */
#include "commands.h"
#include "env/env.h"
#include "env/fence.h"

#include "base/bus.h"
#include "base/file.h"
#include "base/home.h"
#include "base/log.h"
#include "base/loop.h"

#include <signal.h>
#include <stdio.h>

struct alone {
    struct loop_timer *timer; /* until it is ready */
    struct loop *loop;
    struct bus *bus;
    struct env *env;
    struct fence *fence;
    struct env_options options;
    char journal[512];
    bool is_json, is_ready, is_stopping;
};

#define READY_PROBE_MS 5u

static void say_ready(struct alone *alone)
{
    if (alone->is_ready || !alone->env)
        return;
    if (!env_is_ready(alone->env)) {
        loop_timer_set(alone->timer, READY_PROBE_MS);
        return;
    }
    alone->is_ready = true;
    if (alone->is_json)
        printf("{\"ready\":true,\"bus\":\"%s\"}\n", bus_info(alone->bus)->url);
    else
        printf("ready %s\n", bus_info(alone->bus)->url);
    fflush(stdout);
}

static void on_timer(void *ctx)
{
    say_ready(ctx);
}

static void on_up(void *ctx)
{
    struct alone *alone = ctx;
    if (alone->env)
        env_bus_up(alone->env);
    say_ready(alone);
}

static void on_down(void *ctx)
{
    struct alone *alone = ctx;
    if (alone->env)
        env_bus_down(alone->env);
}

static void on_stopped(void *ctx)
{
    struct alone *alone = ctx;
    loop_stop(alone->loop, 0);
}

static void on_signal(void *ctx, int signo)
{
    struct alone *alone = ctx;
    if (alone->is_stopping || !alone->env)
        loop_stop(alone->loop, 0);
    else
        env_stop(alone->env, on_stopped, alone);
    alone->is_stopping = true;
}

static void fail(struct alone *alone, const struct amp_error *err)
{
    loop_stop(alone->loop, command_fail(alone->is_json, err));
}

static void on_clear(void *ctx)
{
    struct alone *alone = ctx;
    struct amp_error err = {0};
    if (alone->is_stopping)
        return;
    if (env_new(alone->loop, alone->bus, &alone->options, &alone->env, &err) != AMP_OK) {
        alone->env = NULL;
        fail(alone, &err);
    } else {
        say_ready(alone);
    }
}

static void on_rival(void *ctx, const struct amp_error *err)
{
    struct alone *alone = ctx;
    if (alone->is_ready)
        log_event(LOG_ERROR, "env.rival", "reason", err->message, "hint", err->hint, NULL);
    fail(alone, err);
}

static int run_alone(struct alone *alone, const struct home *home, const char *const *quotas)
{
    static const struct fence_handlers handlers = {.on_clear = on_clear, .on_rival = on_rival};
    struct amp_error err = {0};
    struct bus_options bus = {.url = home->bus, .creds = home->creds[0] ? home->creds : NULL, .name = "amesh-env", .owner = "env", .inbox = home->inbox, .no_echo = true, .wait_first = true, .on_up = on_up, .on_down = on_down, .ctx = alone};
    alone->options.journal_path = alone->journal;
    alone->options.name = "env";
    alone->options.quotas = quotas;
    snprintf(alone->journal, sizeof alone->journal, "%s/journal.db", home->path);
    if (bus_new(alone->loop, &bus, &alone->bus, &err) != AMP_OK)
        return command_fail(alone->is_json, &err);
    alone->fence = fence_new(alone->loop, alone->bus, alone->options.name, &handlers, alone);
    struct loop_signal *on_term = loop_signal_new(alone->loop, SIGTERM, on_signal, alone);
    struct loop_signal *on_int = loop_signal_new(alone->loop, SIGINT, on_signal, alone);
    int status = loop_run(alone->loop);
    loop_signal_free(on_term);
    loop_signal_free(on_int);
    return status;
}

static int run_env(const struct command *command, struct command_args *args)
{
    struct home home;
    struct amp_error err = {0};
    struct alone alone = {.is_json = command_flag(command, args, "json")};
    log_init(log_level_from_env(LOG_INFO), "env");
    if (file_check_limit(&err) != AMP_OK || home_open(&home, command_value(command, args, "home"), command_value(command, args, "bus"), true, &err) != AMP_OK)
        return command_fail(alone.is_json, &err);
    if (env_retain_parse(&alone.options, command_value(command, args, "retain-age"), command_value(command, args, "retain-bytes"), &err) != AMP_OK ||
        env_quotas_check(command_values(command, args, "quota"), &err) != AMP_OK || env_files_check(&err) != AMP_OK)
        return command_fail(alone.is_json, &err);
    if (!home.bus[0]) {
        amp_error_set(&err, AMP_NO_BUS, "", "there is no bus");
        amp_error_hint(&err, "--bus URL, AMESH_BUS, or amesh up");
        return command_fail(alone.is_json, &err);
    }
    alone.loop = loop_new();
    alone.timer = loop_timer_new(alone.loop, on_timer, &alone);
    int status = run_alone(&alone, &home, command_values(command, args, "quota"));
    env_free(alone.env);
    fence_free(alone.fence);
    bus_free(alone.bus);
    loop_timer_free(alone.timer);
    loop_free(alone.loop);
    return status;
}

static const struct command_option env_options[] = {
    ENV_RETAIN_OPTIONS,
    {.name = "quota", .arg = "SENDER=LIMITS", .help = ENV_QUOTA_HELP, .is_repeatable = true},
    {0},
};

const struct command env_commands[] = {
    {.name = "env",
     .operands = "",
     .summary = "run the environment alone, on the bus of --bus or AMESH_BUS",
     .details = "The environment keeps durable tasks, history, memory and the list of agents. `amesh up` runs one; this is for a bus that runs elsewhere. "
                "Its journal is journal.db in AMESH_HOME; a second environment on the same journal refuses.\n\nPrints `ready <bus url>` when a task would be accepted; SIGTERM ends it in good order.\n\nA sender that has as much here as it may is refused with AMESH-4009 and told when to come back; amesh ask waits that long.\n\n"
                "Examples:\n  amesh env --bus nats://bus.example:4222\n  amesh env --quota ci=200/s,5000 --quota '*=1000/s,20000,256M'",
     .options = env_options,
     .run = run_env},
    {0},
};
