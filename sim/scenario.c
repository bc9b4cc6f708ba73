/* One seed: some instances of some agents, an environment, callers, and everything that may go wrong, each kind switched on or off by the seed. Then all is mended, and what was
 * promised must be true. */
#include "scenario.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/loop.h"
#include "env/env_private.h"
#include "sidecar/sidecar.h"

#include <stdlib.h>
#include <string.h>

#define SIDECARS_MAX 6
#define QUIET_MAX_S 900   /* after which everything must have ended */
#define FAULTS_S 20       /* how long things go wrong */

enum fault { KILL_ENV, CUT_POWER, KILL_SIDECAR, STOP_SERVER, RESET_LINK, STALL_LINK, BREAK_DISK, SLOW_DISK, JUMP_CLOCK, DRAIN_SIDECAR, FAULTS };
static const char *const fault_names[FAULTS] = {"kill -9 of the environment", "power cut at the environment", "kill -9 of a sidecar", "restart of the server", "a connection is reset", "a connection stands still",
                                                "the journal's disk fails", "the journal's disk is slow", "the clock jumps", "a sidecar leaves"};

struct instance {
    char agent[16];
    struct loop *loop;
    struct bus *bus;
    struct sidecar *sidecar;
    struct amp_arena arena;
    Amp__AgentCard card;
    struct agent_habits habits;
    bool is_up;
};

static struct {
    const char *journal_path;
    struct loop *loop;
    struct bus *bus;
    struct env *env;
    struct instance instances[SIDECARS_MAX];
    size_t n_instances;
    bool has_fault[FAULTS];
    bool is_settled;
} nodes;

struct scenario scenario;

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

static void start_env(void *ctx)
{
    const struct bus_options options = {.url = "sim", .name = "env", .wait_first = true, .on_up = env_is_up, .on_down = env_is_down};
    const struct env_options env_options = {.journal_path = nodes.journal_path, .name = "env"};
    struct amp_error err = {0};
    if (nodes.env)
        return;
    nodes.loop = loop_new();
    if (bus_new(nodes.loop, &options, &nodes.bus, &err) != AMP_OK)
        abort();
    if (env_new(nodes.loop, nodes.bus, &env_options, &nodes.env, &err) == AMP_OK) {
        world_trace("the environment is started");
        return;
    }
    world_trace("the environment cannot be started: %s", err.message);
    nodes.env = NULL;
    bus_kill(nodes.bus, true);
    bus_free(nodes.bus);
    loop_free(nodes.loop);
    world_at(world_now_us() + 300000, NULL, start_env, NULL);
}

static void stop_env(bool is_power_cut)
{
    if (!nodes.env)
        return;
    struct env *env = nodes.env;
    nodes.env = NULL;
    bus_kill(nodes.bus, !is_power_cut);
    disk_freeze();
    env_free(env);
    bus_free(nodes.bus);
    loop_free(nodes.loop);
    disk_thaw(is_power_cut);
    world_at(world_now_us() + (int64_t)world_between(5, 4000) * 1000, NULL, start_env, NULL);
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
static void stop_instance(struct instance *instance, bool is_noticed);
static void on_gone(void *ctx) { stop_instance(ctx, true); }
static void on_stopped(void *ctx, int status) { world_at(world_now_us() + 1000, NULL, on_gone, ctx); }

static void start_instance(void *ctx)
{
    struct instance *instance = ctx;
    const struct bus_options options = {.url = "sim", .name = instance->agent, .wait_first = true, .on_up = instance_is_up, .on_down = instance_is_down, .ctx = instance};
    struct sidecar_options how = {.mode = SIDECAR_EXEC, .card = &instance->card, .slots = instance->habits.slots, .retry_safe = true, .socket = "/simulated",
                                  .argv = (char *const *)(const void *)&instance->habits};
    struct amp_error err = {0};
    if (instance->is_up)
        return;
    instance->is_up = true;
    instance->loop = loop_new();
    instance->sidecar = NULL;
    if (bus_new(instance->loop, &options, &instance->bus, &err) != AMP_OK ||
        sidecar_new(instance->loop, instance->bus, NULL, &how, on_ready, on_stopped, instance, &instance->sidecar, &err) != AMP_OK) {
        fprintf(stderr, "sim: a sidecar cannot be made: %s\n", err.message);
        abort();
    }
    world_trace("sidecar %s of %s is started", sidecar_instance(instance->sidecar), instance->agent);
}

static void stop_instance(struct instance *instance, bool is_noticed)
{
    if (!instance->is_up)
        return;
    world_trace("sidecar %s of %s ends", sidecar_instance(instance->sidecar), instance->agent);
    struct sidecar *sidecar = instance->sidecar;
    instance->is_up = false;
    instance->sidecar = NULL;
    bus_kill(instance->bus, is_noticed);
    sidecar_free(sidecar);
    bus_free(instance->bus);
    loop_free(instance->loop);
    world_at(world_now_us() + (int64_t)world_between(5, 6000) * 1000, NULL, start_instance, instance);
}

static void make_instance(size_t n, uint32_t n_names)
{
    struct instance *instance = &nodes.instances[n];
    memset(instance, 0, sizeof *instance);
    snprintf(instance->agent, sizeof instance->agent, "agent-%u", (unsigned)n % n_names & 7u);
    amp_arena_init(&instance->arena, 1 << 20);
    amp__agent_card__init(&instance->card);
    static Amp__AgentSkill skill, *skills[] = {&skill};
    static char work[] = "work", *tags[] = {work};
    amp__agent_skill__init(&skill);
    skill.id = skill.name = skill.description = tags[0];
    skill.n_tags = 1;
    skill.tags = tags;
    instance->card.n_skills = 1;
    instance->card.skills = skills;
    if (amp_card_complete(&instance->card, instance->agent, &instance->arena) != AMP_OK)
        abort();
    instance->habits = (struct agent_habits){.slots = world_between(1, 3), .work_most_ms = world_between(1, 1500), .die_percent = world_chance(50) ? world_below(25) : 0};
    start_instance(instance);
}

/* ---- what goes wrong ---------------------------------------------------------------------------------------------------- */

static struct bus *any_bus(void)
{
    size_t at = world_below((uint32_t)(1 + nodes.n_instances + scenario.n_clients));
    if (at == 0)
        return nodes.env ? nodes.bus : NULL;
    if (at <= nodes.n_instances)
        return nodes.instances[at - 1].is_up ? nodes.instances[at - 1].bus : NULL;
    return scenario.clients[at - 1 - nodes.n_instances].bus;
}

static void server_again(void *ctx) { server_start(); }

static void disk_again(void *ctx)
{
    disk_fault(DISK_SOUND);
    stop_env(false); /* the operator made room and restarts it: the manual says so */
}

static void do_fault(enum fault fault)
{
    struct instance *instance = &nodes.instances[world_below((uint32_t)nodes.n_instances)];
    struct bus *bus = any_bus();
    world_trace("fault: %s", fault_names[fault]);
    scenario.may_lack_frames |= fault == KILL_SIDECAR || fault == STOP_SERVER || ((fault == RESET_LINK || fault == STALL_LINK) && bus && bus != nodes.bus);
    switch (fault) {
    case KILL_ENV:
    case CUT_POWER:
        stop_env(fault == CUT_POWER);
        return;
    case KILL_SIDECAR:
        stop_instance(instance, world_chance(70));
        return;
    case DRAIN_SIDECAR:
        if (instance->is_up)
            sidecar_drain(instance->sidecar, world_below(3000));
        return;
    case STOP_SERVER:
        server_stop();
        world_at(world_now_us() + (int64_t)world_between(10, 6000) * 1000, NULL, server_again, NULL);
        return;
    case RESET_LINK:
        if (bus)
            bus_reset(bus);
        return;
    case STALL_LINK:
        if (bus)
            bus_stall(bus, world_between(50, 6000));
        return;
    case BREAK_DISK:
        disk_fault(world_chance(50) ? DISK_FULL : DISK_BROKEN);
        world_at(world_now_us() + (int64_t)world_between(50, 3000) * 1000, NULL, disk_again, NULL);
        return;
    case SLOW_DISK:
        disk_slow(world_below(40));
        return;
    case JUMP_CLOCK:
        world_set_wall_offset_ms((int64_t)world_below(7200000) - 3600000);
        return;
    case FAULTS:
        break;
    }
}

static void next_fault(void *ctx)
{
    if (scenario.is_healing)
        return;
    enum fault fault = (enum fault)world_below(FAULTS);
    if (nodes.has_fault[fault])
        do_fault(fault);
    world_at(world_now_us() + (int64_t)world_between(20, 1200) * 1000, NULL, next_fault, NULL);
}

static void heal(void *ctx)
{
    world_trace("everything is mended");
    scenario.is_healing = agents_are_calm = true;
    server_start();
    disk_fault(DISK_SOUND);
    disk_slow(0);
    stop_env(false);
    for (size_t i = 0; i < nodes.n_instances; i++)
        start_instance(&nodes.instances[i]);
}

/* ---- what is asked for ------------------------------------------------------------------------------------------------------ */

static void start_job(void *ctx) { job_start(ctx); }

static void make_job(unsigned n, uint32_t n_names)
{
    static const char *const kinds[] = {"plain", "plain", "plain", "plain", "plain", "plain", "fail", "poison"};
    struct job *job = &scenario.jobs[n];
    memset(job, 0, sizeof *job);
    job->n = n;
    job->client = &scenario.clients[world_below((uint32_t)scenario.n_clients)];
    job->is_durable = world_chance(75);
    job->is_skill = world_chance(30);
    job->wants_watch = job->is_durable && world_chance(60);
    job->wants_cancel = job->is_durable && world_chance(15);
    job->is_never_retried = job->is_durable && world_chance(10);
    job->timeout_ms = !job->is_durable ? world_between(500, 30000) : world_chance(15) ? world_between(200, 60000) : 0;
    snprintf(job->text, sizeof job->text, "%s %u", kinds[world_below(8)], n);
    snprintf(job->key, sizeof job->key, "key-%u", n);
    snprintf(job->agent, sizeof job->agent, "%s", "work");
    if (!job->is_skill)
        snprintf(job->agent, sizeof job->agent, "agent-%u", world_below(n_names));
    amp_id_new('c', clock_unix_ms(), job->context);
    world_at(world_now_us() + (int64_t)world_below((FAULTS_S - 1) * 1000) * 1000, job->client->loop, start_job, job);
}

static bool is_settled(void) { return nodes.is_settled; }

static void look(void *ctx)
{
    struct journal_counts counts = {0};
    world_at(world_now_us() + 500000, NULL, look, NULL);
    if (!scenario.is_healing || !nodes.env || nodes.env->later || journal_waiting(nodes.env->journal) > 0 || evtstream_is_holding(nodes.env) || journal_count(nodes.env->journal, &counts) != AMP_OK || counts.tasks_open > 0)
        return;
    for (size_t i = 0; i < scenario.n_jobs; i++)
        if (!job_is_settled(&scenario.jobs[i]))
            return;
    nodes.is_settled = true;
}

static void say_open(void)
{
    struct journal_counts counts = {0};
    if (!nodes.env) {
        world_fail("P6: the environment did not come up again");
        return;
    }
    (void)!journal_count(nodes.env->journal, &counts);
    for (size_t i = 0; i < scenario.n_jobs; i++) {
        const struct job *job = &scenario.jobs[i];
        if (!job_is_settled(job))
            world_fail("P2: %s %s (%s, %s) is not settled %u s after all was mended: %s", job->is_durable ? "task" : "direct call", job->task, job->key, job->text, QUIET_MAX_S,
                       !job->is_durable ? "it has not ended" : !job->is_accepted ? "not accepted" : job->asking ? "still asking" : "its watch has not ended");
    }
    if (counts.tasks_open > 0)
        world_fail("P2: %u tasks are open in the journal %u s after all was mended", counts.tasks_open, QUIET_MAX_S);
}

/* ---- a run ------------------------------------------------------------------------------------------------------------------------ */

static void begin(void)
{
    uint32_t n_names = world_between(1, 3);
    memset(&scenario, 0, sizeof scenario);
    agents_are_calm = false;
    nodes.is_settled = false;
    nodes.env = NULL;
    server_begin();
    disk_begin();
    if (!world_chance(5))
        disk_lay_out(nodes.journal_path);
    for (size_t i = 0; i < FAULTS; i++)
        nodes.has_fault[i] = world_chance(50);
    start_env(NULL);
    nodes.n_instances = world_between(n_names, SIDECARS_MAX);
    for (size_t i = 0; i < nodes.n_instances; i++)
        make_instance(i, n_names);
    scenario.n_clients = world_between(1, 4);
    for (size_t i = 0; i < scenario.n_clients; i++)
        client_begin(&scenario.clients[i], i);
    scenario.n_jobs = world_chance(70) ? world_between(2, 10) : world_chance(80) ? world_between(8, 20) : world_between(20, JOBS_MAX);
    for (unsigned i = 0; i < scenario.n_jobs; i++)
        make_job(i, n_names);
    world_at(world_now_us() + 300000, NULL, next_fault, NULL);
    world_at(world_now_us() + FAULTS_S * 1000000ll, NULL, heal, NULL);
    look(NULL);
}

static void end(void)
{
    for (size_t i = 0; i < scenario.n_clients; i++)
        client_end(&scenario.clients[i]);
    for (size_t i = 0; i < nodes.n_instances; i++) {
        stop_instance(&nodes.instances[i], true);
        amp_arena_done(&nodes.instances[i].arena);
    }
    stop_env(false);
    server_end();
    world_end();
    disk_end();
}

void scenario_prepare(const char *journal_path)
{
    struct journal *journal;
    struct amp_error err = {0};
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

void scenario_run(uint64_t seed, bool is_traced, const char *journal_path)
{
    nodes.journal_path = journal_path;
    world_begin(seed, is_traced);
    begin();
    if (!world_run(world_now_us() + (FAULTS_S + QUIET_MAX_S) * 1000000ll, is_settled))
        world_fail("P6: too much happens in no time");
    if (!world_failure() && !nodes.is_settled)
        say_open();
    if (!world_failure())
        check_all(nodes.env->journal);
    end();
}
