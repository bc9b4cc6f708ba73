/* Death at a step: the k-th message, write, sync or timer of a process. Whatever it does behind that point reaches nobody: its connection is dead, its disk does not move. It is
 * taken away when the step is over. */
#include "scenario.h"

#include "env/env_private.h"

#include <string.h>

#define CRASHES_MAX 8

static struct crash {
    struct instance *instance; /* NULL: the environment, this one or the next */
    const struct loop *loop;   /* the instance's */
    enum point point;
    uint32_t left;
    bool is_power_cut;
} crashes[CRASHES_MAX];
static size_t n_crashes;
static bool is_cut; /* of the one that is dying */

void crash_begin(void) { n_crashes = 0; }
bool crash_is_power_cut(void) { return is_cut; }

void crash_at(enum point point, uint32_t count, struct instance *instance, bool is_power_cut)
{
    if (n_crashes == CRASHES_MAX)
        return;
    crashes[n_crashes++] = (struct crash){.loop = instance ? instance->loop : NULL, .instance = instance, .point = point, .left = count, .is_power_cut = is_power_cut};
}

void crash_forget(const struct loop *loop)
{
    size_t n = 0;
    for (size_t i = 0; i < n_crashes; i++)
        if (crashes[i].left > 0 && crashes[i].loop != loop)
            crashes[n++] = crashes[i];
    n_crashes = n;
}

static void take_env(void *ctx) { nodes_stop_env(is_cut); }
static void take_instance(void *ctx) { instance_stop(ctx, world_chance(70)); }

static void die(struct crash *crash)
{
    static const enum stat_name counted[POINTS] = {STAT_crash_send, STAT_crash_receive, STAT_crash_write, STAT_crash_sync, STAT_crash_timer};
    stat_add(counted[crash->point], 1);
    if (crash->instance) {
        world_trace("crash of a sidecar of %s", crash->instance->plan->agent);
        bus_kill(crash->instance->bus, true);
        world_at(world_now_us(), NULL, take_instance, crash->instance);
        return;
    }
    world_trace("crash of the environment");
    is_cut = crash->is_power_cut;
    bus_kill(nodes.bus, !is_cut);
    disk_freeze();
    world_at(world_now_us(), NULL, take_env, NULL);
}

void point_pass(enum point point, const struct loop *loop)
{
    for (size_t i = 0; i < n_crashes; i++) {
        struct crash *crash = &crashes[i];
        bool is_here = crash->instance ? crash->loop == loop : !loop || loop == nodes.loop;
        if (crash->point == point && is_here && crash->left > 0 && --crash->left == 0)
            die(crash);
    }
}
