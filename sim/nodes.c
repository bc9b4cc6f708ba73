/* The environment and the sidecars: started, ended, started again. */
#include "hold.h"

#include "base/bus.h"
#include "base/clock.h"
#include "base/loop.h"
#include "env/env_private.h"
#include "sidecar/sidecar.h"

#include <stdlib.h>
#include <string.h>

struct nodes nodes;

/* ---- the environment ------------------------------------------------------------------------------------------ */

static void env_is_up(void *ctx)
{
    if (nodes.env)
        env_bus_up(nodes.env);
}

static void env_is_down(void *ctx)
{
    if (nodes.env)
        env_bus_down(nodes.env);
}

/* "*=2/s,-,300" */
static void quota_text(char *ret, size_t size)
{
    const uint32_t limits[] = {scenario.script.rate_max, scenario.script.open_max, scenario.script.bytes_max};
    int at = snprintf(ret, size, "*");
    for (size_t i = 0; i < 3; i++)
        at += limits[i] ? snprintf(ret + at, size - (size_t)at, "%c%u%s", i ? ',' : '=', limits[i], i ? "" : "/s") : snprintf(ret + at, size - (size_t)at, "%c-", i ? ',' : '=');
}

void nodes_start_env(void *nothing)
{
    const struct bus_options options = {.url = "sim", .name = "env", .no_echo = true, .wait_first = true, .on_up = env_is_up, .on_down = env_is_down};
    char rule[96];
    const char *const quotas[] = {rule, NULL};
    const struct env_options env_options = {.journal_path = nodes.journal_path, .name = "env", .quotas = witness_has_quota() ? quotas : NULL};
    quota_text(rule, sizeof rule);
    struct amp_error err = {0};
    if (nodes.env)
        return;
    nodes.loop = loop_new();
    if (bus_new(nodes.loop, &options, &nodes.bus, &err) != AMP_OK)
        abort();
    if (env_new(nodes.loop, nodes.bus, &env_options, &nodes.env, &err) == AMP_OK) {
        world_trace("the environment is started");
        stat_add(STAT_env_starts, 1);
        scenario.starts_ms[nodes.n_starts++ % STARTS_MAX] = clock_unix_ms();
        nodes.started_us = world_now_us();
        witness_start(nodes.env->journal);
        ledger_start(nodes.env->journal);
        return;
    }
    world_trace("the environment cannot be started: %s", err.message);
    nodes.env = NULL;
    bus_kill(nodes.bus, true);
    bus_free(nodes.bus);
    loop_free(nodes.loop);
    nodes.loop = NULL;
    if (disk_is_frozen())
        disk_thaw(crash_is_power_cut()); /* it died on the way */
    world_at(world_now_us() + 300000, NULL, nodes_start_env, NULL);
}

void nodes_stop_env(bool is_power_cut)
{
    if (!nodes.env)
        return;
    struct env *env = nodes.env;
    hold_env_stops();
    nodes.env = NULL;
    bus_kill(nodes.bus, !is_power_cut);
    disk_freeze();
    env_free(env);
    bus_free(nodes.bus);
    loop_free(nodes.loop);
    nodes.loop = NULL;
    disk_thaw(is_power_cut);
    stat_add(is_power_cut ? STAT_power_cuts : STAT_env_kills, 1);
    world_at(world_now_us() + (int64_t)world_between(5, 4000) * 1000, NULL, nodes_start_env, NULL);
}

/* ---- sidecars ----------------------------------------------------------------------------------------------------- */

static void instance_is_up(void *ctx)
{
    struct instance *instance = ctx;
    if (instance->sidecar)
        sidecar_bus_up(instance->sidecar);
}

static void instance_is_down(void *ctx)
{
    struct instance *instance = ctx;
    if (instance->sidecar)
        sidecar_bus_down(instance->sidecar);
}

static void on_ready(void *ctx) {}

static void on_gone(void *ctx)
{
    struct instance *instance = ctx;
    if (instance->is_leaving) /* and was not killed on the way */
        instance_stop(instance, true);
}

/* It leaves in good order: what it has said arrives. */
static void on_stopped(void *ctx, int status)
{
    struct instance *instance = ctx;
    instance->is_leaving = true;
    world_at(bus_settled_us(instance->bus), NULL, on_gone, ctx);
}


void instance_start(void *ctx)
{
    struct instance *instance = ctx;
    struct sidecar_options how = {.mode = SIDECAR_EXEC, .card = &instance->card, .slots = instance->habits.slots, .retry = instance->plan && instance->plan->is_once ? SIDECAR_RETRY_NEVER : SIDECAR_RETRY_SAFE, .progress_timeout_ms = instance->plan ? instance->plan->silence_ms : 0, .socket = "/simulated",
                                  .argv = (char *const *)(const void *)&instance->habits};
    struct amp_error err = {0};
    if (instance->is_up || !instance->plan)
        return;
    const struct bus_options options = {.url = "sim", .name = instance->plan->agent, .wait_first = true, .on_up = instance_is_up, .on_down = instance_is_down, .ctx = instance};
    instance->is_up = true;
    instance->loop = loop_new();
    instance->sidecar = NULL;
    if (bus_new(instance->loop, &options, &instance->bus, &err) != AMP_OK ||
        sidecar_new(instance->loop, instance->bus, NULL, &how, on_ready, on_stopped, instance, &instance->sidecar, &err) != AMP_OK) {
        fprintf(stderr, "sim: a sidecar cannot be made: %s\n", err.message);
        abort();
    }
    world_trace("sidecar %s of %s is started", sidecar_instance(instance->sidecar), instance->plan->agent);
}

void instance_stop(struct instance *instance, bool is_noticed)
{
    if (!instance->is_up)
        return;
    world_trace("sidecar %s of %s ends", sidecar_instance(instance->sidecar), instance->plan->agent);
    struct sidecar *sidecar = instance->sidecar;
    instance->is_up = instance->is_leaving = false;
    instance->sidecar = NULL;
    instance->habits.hangs_until_us = 0;
    instance->habits.wants_death = false;
    crash_forget(instance->loop);
    bus_kill(instance->bus, is_noticed);
    sidecar_free(sidecar);
    bus_free(instance->bus);
    loop_free(instance->loop);
    world_at(world_now_us() + (int64_t)world_between(5, 6000) * 1000, NULL, instance_start, instance);
}

void instance_make(struct instance *instance, const struct habits *habits)
{
    static Amp__AgentSkill skill, *skills[] = {&skill};
    static char work[] = "work", *tags[] = {work};
    instance->plan = habits;
    amp_arena_init(&instance->arena, 1 << 20);
    amp__agent_card__init(&instance->card);
    amp__agent_skill__init(&skill);
    skill.id = skill.name = skill.description = tags[0];
    skill.n_tags = 1;
    skill.tags = tags;
    instance->card.n_skills = 1;
    instance->card.skills = skills;
    if (amp_card_complete(&instance->card, habits->agent, &instance->arena) != AMP_OK)
        abort();
    instance->habits = (struct agent_habits){.slots = habits->slots, .work_most_ms = habits->work_most_ms, .die_percent = habits->die_percent};
    instance_start(instance);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

void nodes_prepare(const char *journal_path)
{
    struct journal *journal;
    struct amp_error err = {0};
    nodes.journal_path = journal_path;
    world_begin(0, false);
    disk_begin();
    struct loop *loop = loop_new();
    disk_small_pages(journal_path);
    if (journal_open(loop, journal_path, &journal, &err) != AMP_OK) {
        fprintf(stderr, "sim: %s\n", err.message);
        abort();
    }
    journal_close(journal);
    disk_keep(journal_path);
    loop_free(loop);
    world_end();
    disk_end();
}

void nodes_begin(void)
{
    const char *path = nodes.journal_path;
    memset(&nodes, 0, sizeof nodes);
    nodes.journal_path = path;
}

void nodes_end(void)
{
    for (size_t i = 0; i < nodes.n_instances; i++) {
        if (!nodes.instances[i].plan)
            continue;
        instance_stop(&nodes.instances[i], true);
        amp_arena_done(&nodes.instances[i].arena);
    }
    nodes_stop_env(false);
}

uint32_t nodes_env_starts(void)
{
    return nodes.n_starts;
}
