/* One seed: some instances of some agents, an environment, callers, and everything that may go wrong, each kind switched on or off by the seed. Then all is mended, and what was
 * promised must be true. */
#include "hold.h"

#include "base/bus.h"
#include "base/counters.h"
#include "base/loop.h"
#include "env/env_private.h"

#include <string.h>

#define LOOK_EVERY_US 500000
#define ASKED_BEFORE_US 1500
#define HURRIES_BEFORE_US 1500
#define HANGS_BEFORE_US 1000000

struct scenario scenario;
static bool is_settled;

static bool has_settled(void) { return is_settled; }

static void look(void *ctx)
{
    struct journal_counts counts = {0};
    bool are_told = hold_look();
    if (nodes.env && witness_has_quota())
        witness_count(nodes.env->journal);
    world_at(world_now_us() + LOOK_EVERY_US, NULL, look, NULL);
    if (!scenario.is_healing || !nodes.env || nodes.env->later || journal_waiting(nodes.env->journal) > 0 || evtstream_is_holding(nodes.env) || !are_told)
        return;
    for (size_t i = 0; i < scenario.n_jobs; i++)
        if (!job_is_settled(&scenario.jobs[i]))
            return;
    is_settled = journal_count(nodes.env->journal, &counts) == AMP_OK && counts.tasks_open == 0 && routines_are_settled(nodes.env->journal);
}

static void heal(void *ctx)
{
    scenario.is_healing = true;
    fault_heal();
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
            world_fail("P2: %s %s (%s, %s) is not settled %u s after all was mended: %s", job->wish->is_durable ? "task" : "direct call", job->task, job->key, job->wish->text, QUIET_MAX_S,
                       !job->wish->is_durable ? "it has not ended" : !job->is_accepted ? "not accepted" : job->asking ? "still asking" : "its watch has not ended");
    }
    if (counts.tasks_open > 0)
        world_fail("P2: %u tasks are open in the journal %u s after all was mended", counts.tasks_open, QUIET_MAX_S);
    world_fail("P2: not everything has come to rest %u s after all was mended", QUIET_MAX_S);
}

/* ---- a run ------------------------------------------------------------------------------------------------------------------------ */

static void hurry(void *ctx)
{
    human_hurry();
    routines_hurry();
}

static void hang_disk(void *ctx) { disk_slow(100); }
static void free_disk(void *ctx) { disk_slow(0); }

/* The environment is about to die: what it says last must be true, also when its disk does not keep up. */
static void foresee(const struct mishap *mishap, int64_t at_us)
{
    world_at(at_us - HURRIES_BEFORE_US, NULL, hurry, NULL);
    world_at(at_us - ASKED_BEFORE_US, NULL, witness_ask, NULL);
    if (mishap->amount % 3 == 0)
        return;
    world_at(at_us - HANGS_BEFORE_US, NULL, hang_disk, NULL);
    world_at(at_us, NULL, free_disk, NULL);
}

static void begin_item(struct item *item)
{
    int64_t at_us = world_now_us() + (int64_t)item->at_ms * 1000;
    if (item->kind == ITEM_INSTANCE) {
        struct instance *instance = &nodes.instances[nodes.n_instances++];
        if (!item->is_off)
            instance_make(instance, &item->habits);
    } else if (item->kind == ITEM_FAULT) {
        if (!item->is_off && (item->mishap.fault == FAULT_KILL_ENV || item->mishap.fault == FAULT_CUT_POWER))
            foresee(&item->mishap, at_us);
        if (!item->is_off)
            world_at(at_us, NULL, fault_happen, item);
    } else if (item->kind == ITEM_ROT) {
        return; /* when all is over */
    } else if (item->kind == ITEM_SCHEDULE) {
        struct routine *routine = &scenario.routines[scenario.n_routines];
        if (item->is_off)
            return;
        routine_make(routine, &item->timetable, (unsigned)scenario.n_routines++);
        world_at(at_us, routine->client->loop, routine_start, routine);
    } else if (!item->is_off) {
        struct job *job = &scenario.jobs[scenario.n_jobs];
        job_make(job, &item->wish, (unsigned)scenario.n_jobs++);
        world_at(at_us, job->client->loop, job_start, job);
    }
}

static void begin(const bool *only)
{
    is_settled = scenario.is_healing = scenario.may_lack_frames = scenario.may_lose_instance = scenario.has_jumped = scenario.has_doubled = agents_are_calm = false;
    scenario.n_jobs = scenario.n_routines = 0;
    weather = (struct weather){0};
    nodes_begin();
    crash_begin();
    hold_forget_all();
    server_begin();
    disk_begin();
    if (!scenario.script.is_fresh)
        disk_lay_out(nodes.journal_path);
    nodes_start_env(NULL);
    for (size_t i = 0; i < scenario.script.n_clients; i++)
        client_begin(&scenario.clients[i], i);
    client_begin(&scenario.clients[CLIENTS_MAX], CLIENTS_MAX);
    witness_begin(&scenario.clients[CLIENTS_MAX]);
    for (size_t i = 0; i < scenario.script.n_items; i++) {
        scenario.script.items[i].is_off = only && !only[i];
        begin_item(&scenario.script.items[i]);
    }
    world_at(world_now_us() + FAULTS_S * INT64_C(1000000), NULL, heal, NULL);
    wait_begin();
    look(NULL);
}

static void end(void)
{
    witness_end();
    for (size_t i = 0; i < scenario.script.n_clients; i++)
        client_end(&scenario.clients[i]);
    client_end(&scenario.clients[CLIENTS_MAX]);
    nodes_end();
    ledger_end(); /* the last verdicts have come */
    server_end();
    world_end();
    disk_end();
}

void scenario_run(uint64_t seed, uint64_t salt, const bool *only, bool is_traced)
{
    int64_t start_us;
    uint64_t lapsed = counter_get(COUNTER_leases_lapsed);
    world_begin(seed, is_traced);
    scenario.script.seed = seed;
    scenario.script.salt = salt;
    plan_make(&scenario.script);
    world_salt(salt);
    start_us = world_now_us();
    begin(only);
    if (!world_run(start_us + (FAULTS_S + QUIET_MAX_S) * INT64_C(1000000), has_settled))
        world_fail("P2: too much happens in no time");
    if (!world_failure() && !is_settled)
        say_open();
    if (!world_failure())
        check_all(nodes.env->journal);
    for (size_t i = 0; !world_failure() && i < scenario.script.n_items; i++)
        if (scenario.script.items[i].kind == ITEM_ROT && !scenario.script.items[i].is_off && nodes.env)
            rot_check(&scenario.script.items[i].rot);
    stat_add(STAT_seeds, 1);
    stat_add(STAT_leases_lapsed, counter_get(COUNTER_leases_lapsed) - lapsed);
    stat_add(STAT_steps, world_steps());
    stat_add(STAT_virtual_ms, (uint64_t)(world_now_us() - start_us) / 1000);
    end();
}
