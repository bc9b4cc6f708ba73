/* What goes wrong, when its moment has come; and how all is mended. */
#include "hold.h"

#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/loop.h"
#include "env/env_private.h"
#include "sidecar/sidecar.h"

static struct instance *instance_of(const struct mishap *mishap)
{
    struct instance *instance = &nodes.instances[mishap->victim % nodes.n_instances];
    return instance->is_up ? instance : NULL;
}

struct bus *fault_bus(uint32_t victim)
{
    size_t at = victim % (1 + nodes.n_instances + scenario.script.n_clients);
    if (at == 0)
        return nodes.env ? nodes.bus : NULL;
    if (at <= nodes.n_instances)
        return nodes.instances[at - 1].is_up ? nodes.instances[at - 1].bus : NULL;
    return scenario.clients[at - 1 - nodes.n_instances].bus;
}

static int64_t until_us(const struct mishap *mishap) { return world_now_us() + (int64_t)mishap->for_ms * 1000; }
static void server_again(void *ctx) { server_start(); }

/* ---- the disk ------------------------------------------------------------------------------------------------------- */

static void disk_again(void *ctx)
{
    disk_fault(DISK_SOUND);
    nodes_stop_env(false); /* the operator made room and restarts it: the manual says so */
}

static void break_disk(const struct mishap *mishap)
{
    static const enum disk_fault faults[] = {DISK_FULL, DISK_BROKEN, DISK_LIES};
    static const enum stat_name counted[] = {STAT_disk_full, STAT_disk_broken, STAT_disk_lies};
    stat_add(counted[mishap->amount % 3], 1);
    disk_fault(faults[mishap->amount % 3]);
    world_at(until_us(mishap), NULL, disk_again, NULL);
}

/* ---- the network ------------------------------------------------------------------------------------------------------- */

static void clear_up(void *ctx) { weather = (struct weather){0}; }

static void make_weather(const struct mishap *mishap)
{
    if (mishap->fault == FAULT_JITTER)
        weather.jitter_us = 1000 + mishap->amount % 400000;
    else
        *(mishap->fault == FAULT_LOSE ? &weather.lost_percent : &weather.doubled_percent) = 1 + mishap->amount % 30;
    stat_add(mishap->fault == FAULT_JITTER ? STAT_jitters : mishap->fault == FAULT_LOSE ? STAT_losses : STAT_doubles, 1);
    world_at(until_us(mishap), NULL, clear_up, NULL);
}

static void break_link(const struct mishap *mishap)
{
    struct bus *bus = fault_bus(mishap->victim);
    static const enum way ways[FAULTS] = {[FAULT_STALL_LINK] = WAY_BOTH, [FAULT_CUT_UP] = WAY_UP, [FAULT_CUT_DOWN] = WAY_DOWN};
    static const enum stat_name counted[FAULTS] = {[FAULT_STALL_LINK] = STAT_stalls, [FAULT_CUT_UP] = STAT_cuts_up, [FAULT_CUT_DOWN] = STAT_cuts_down, [FAULT_RESET_LINK] = STAT_resets};
    if (!bus)
        return;
    stat_add(counted[mishap->fault], 1);
    if (mishap->fault == FAULT_RESET_LINK)
        bus_reset(bus);
    else
        bus_stall(bus, ways[mishap->fault], mishap->for_ms);
}

/* ---- processes ------------------------------------------------------------------------------------------------------------ */

static void freeze(const struct mishap *mishap, struct loop *loop, struct bus *bus)
{
    stat_add(mishap->fault == FAULT_FREEZE_ENV ? STAT_env_freezes : STAT_sidecar_freezes, 1);
    loop_freeze(loop, until_us(mishap));
    bus_freeze(bus, mishap->for_ms);
}

static void happen_to_instance(const struct mishap *mishap, struct instance *instance)
{
    switch (mishap->fault) {
    case FAULT_KILL_SIDECAR:
        stat_add(STAT_sidecar_kills, 1);
        instance_stop(instance, mishap->amount % 10 < 7);
        break;
    case FAULT_DRAIN_SIDECAR:
        stat_add(STAT_sidecar_leaves, 1);
        sidecar_drain(instance->sidecar, mishap->for_ms);
        break;
    case FAULT_KILL_AGENT:
        instance->habits.wants_death = true;
        break;
    case FAULT_HANG_AGENT:
        stat_add(STAT_agent_hangs, 1);
        instance->habits.hangs_until_us = until_us(mishap);
        break;
    case FAULT_FREEZE_SIDECAR: /* and its agent: they are one group of processes */
        freeze(mishap, instance->loop, instance->bus);
        break;
    case FAULT_CRASH_SIDECAR:
        crash_at(mishap->point, mishap->for_ms, instance, false);
        break;
    default:
        break;
    }
}

/* As the network may do with any message: it comes long after it was sent, or once more. */
static void cancel_late(const struct mishap *mishap)
{
    char subject[AMP_SUBJECT_SIZE];
    Amp__Cancel cancel = AMP__CANCEL__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    if (!hold_pick(mishap->amount, subject, &cancel.epoch))
        return;
    cancel.has_epoch = true;
    cancel.epoch--;
    control.kind_case = AMP__CONTROL__KIND_CANCEL;
    control.cancel = &cancel;
    stat_add(STAT_late_cancels, bus_control_publish(scenario.clients[CLIENTS_MAX].bus, subject, "env", &control) == AMP_OK);
}

static void happen(const struct mishap *mishap)
{
    switch (mishap->fault) {
    case FAULT_KILL_ENV:
    case FAULT_CUT_POWER:
        nodes_stop_env(mishap->fault == FAULT_CUT_POWER);
        break;
    case FAULT_CRASH_ENV:
        crash_at(mishap->point, mishap->for_ms, NULL, mishap->amount % 2);
        break;
    case FAULT_FREEZE_ENV:
        if (nodes.env)
            freeze(mishap, nodes.loop, nodes.bus);
        break;
    case FAULT_STOP_SERVER:
        stat_add(STAT_server_stops, 1);
        server_stop();
        world_at(until_us(mishap), NULL, server_again, NULL);
        break;
    case FAULT_RESET_LINK:
    case FAULT_STALL_LINK:
    case FAULT_CUT_UP:
    case FAULT_CUT_DOWN:
        break_link(mishap);
        break;
    case FAULT_JITTER:
    case FAULT_LOSE:
    case FAULT_DOUBLE:
        scenario.has_doubled |= mishap->fault == FAULT_DOUBLE;
        make_weather(mishap);
        break;
    case FAULT_LATE_CANCEL:
        cancel_late(mishap);
        break;
    case FAULT_BREAK_DISK:
        break_disk(mishap);
        break;
    case FAULT_SLOW_DISK:
        stat_add(STAT_disk_slow, 1);
        disk_slow(mishap->amount % 40);
        break;
    case FAULT_JUMP_CLOCK:
        stat_add(STAT_clock_jumps, 1);
        scenario.has_jumped = true;
        world_set_wall_offset_ms((int64_t)mishap->amount * 7 - 3600000);
        break;
    default:
        if (instance_of(mishap))
            happen_to_instance(mishap, instance_of(mishap));
    }
}

/* Of what is published once: with whom it was on its way, or with the connection. The environment's own it gets from the stream. */
static bool loses_frames(const struct mishap *mishap)
{
    switch (mishap->fault) {
    case FAULT_KILL_SIDECAR:
    case FAULT_CRASH_SIDECAR:
    case FAULT_FREEZE_SIDECAR:
    case FAULT_STOP_SERVER:
    case FAULT_LOSE:
        return true;
    case FAULT_RESET_LINK:
    case FAULT_STALL_LINK:
    case FAULT_CUT_UP:
    case FAULT_CUT_DOWN:
        return !nodes.env || fault_bus(mishap->victim) != nodes.bus;
    default:
        return false;
    }
}

void fault_happen(void *ctx)
{
    const struct item *item = ctx;
    char text[256];
    plan_describe(item, text, sizeof text);
    world_trace("fault: %s", text);
    scenario.may_lack_frames |= loses_frames(&item->mishap);
    scenario.may_lose_instance |= item->mishap.fault == FAULT_KILL_SIDECAR || item->mishap.fault == FAULT_CRASH_SIDECAR || item->mishap.fault == FAULT_DRAIN_SIDECAR;
    happen(&item->mishap);
}

void fault_heal(void)
{
    world_trace("everything is mended");
    world_set_wall_offset_ms(0);
    agents_are_calm = true;
    clear_up(NULL);
    crash_begin();
    server_start();
    disk_fault(DISK_SOUND);
    disk_slow(0);
    nodes_stop_env(false);
    for (size_t i = 0; i < nodes.n_instances; i++) {
        nodes.instances[i].habits.hangs_until_us = 0;
        nodes.instances[i].habits.wants_death = false;
        instance_start(&nodes.instances[i]);
    }
}
