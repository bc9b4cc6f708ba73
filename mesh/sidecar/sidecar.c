/* One agent instance on the mesh. This file holds what all parts share: the state of the instance, its slots, the end of each turn, and how it
 * comes (open → probe → ready) and goes (drain → worker stopped → goodbye). architecture.md 3.2 */
#include "sidecar_private.h"

#include <errno.h>
#include <stdio.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/blobs.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/home.h"
#include "base/log.h"
#include "base/loop.h"

/* ---- state and slots ---------------------------------------------------------------------------------- */

uint32_t sidecar_free_slots(const struct sidecar *sidecar)
{
    return sidecar->slots > sidecar->inflight && !sidecar->stuck && !pause_left_ms(sidecar) ? sidecar->slots - sidecar->inflight : 0;
}

void sidecar_touch(struct sidecar *sidecar)
{
    loop_tick_request(sidecar->tick);
}

void sidecar_slot_take(struct sidecar *sidecar)
{
    sidecar->inflight++;
    sidecar_touch(sidecar);
}

void sidecar_slot_release(struct sidecar *sidecar)
{
    sidecar->inflight--;
    sidecar_touch(sidecar);
}

static void state_set(struct sidecar *sidecar, Amp__InstanceState state)
{
    if (sidecar->state == state)
        return;
    sidecar->state = state;
    log_event(LOG_INFO, "sidecar.state", "agent", sidecar->agent, "instance", sidecar->instance, "state", sidecar_state(sidecar), NULL);
    sidecar_touch(sidecar);
}

void sidecar_set_slots(struct sidecar *sidecar, uint32_t slots)
{
    sidecar->slots = slots < sidecar->options.slots ? slots : sidecar->options.slots;
    sidecar_touch(sidecar);
    if (sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING || sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_GONE)
        return;
    if (sidecar->slots > 0) {
        sidecar->was_up = true;
        state_set(sidecar, AMP__INSTANCE_STATE__INSTANCE_STATE_UP);
    } else if (sidecar->was_up) {
        state_set(sidecar, AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING);
    }
}

void sidecar_set_agent_pid(struct sidecar *sidecar, pid_t pid)
{
    sidecar->agent_pid = pid;
    if (pid > 0)
        task_hung_look(sidecar);
}

enum amp_code sidecar_state_check(const struct sidecar *sidecar, struct amp_error *reterr)
{
    if (sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING || sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_GONE)
        return amp_error_set(reterr, AMP_STOPPING, "", "instance %s of %s is leaving the mesh", sidecar->instance, sidecar->agent);
    if (sidecar_free_slots(sidecar) == 0) {
        uint32_t pause_ms = pause_left_ms(sidecar);
        enum amp_code code = pause_ms ? amp_error_set(reterr, AMP_BUSY, "", "the agent of instance %s said that it can take nothing now", sidecar->instance)
                               : sidecar->stuck ? amp_error_set(reterr, AMP_BUSY, "", "instance %s stands still: %s", sidecar->instance, sidecar->stuck)
                                      : amp_error_set(reterr, AMP_BUSY, "", "all %u slots of instance %s are taken", sidecar->slots, sidecar->instance);
        if (reterr)
            reterr->retry_after_ms = pause_ms ? pause_ms : SIDECAR_BUSY_RETRY_MS;
        return code;
    }
    return AMP_OK;
}

/* ---- to the bus -------------------------------------------------------------------------------------------- */

void sidecar_id_new(struct sidecar *sidecar, char kind, char ret[AMP_ID_SIZE])
{
    if (sidecar->n_random < AMP_ID_RANDOM) {
        randombytes_buf(sidecar->random, sizeof sidecar->random);
        sidecar->n_random = sizeof sidecar->random;
    }
    sidecar->n_random -= AMP_ID_RANDOM;
    uint8_t *random = sidecar->random + sidecar->n_random;
    amp_id_make(kind, clock_unix_ms(), random, ret);
    sodium_memzero(random, AMP_ID_RANDOM);
}

static enum amp_code encode(struct sidecar *sidecar, enum amp_encoding encoding, Amp__Envelope *envelope, struct amp_bytes own)
{
    envelope->version = AMP_PROTOCOL_VERSION;
    envelope->from = sidecar->agent;
    amp_buf_reset(&sidecar->out);
    if (encoding == AMP_JSON)
        return amp_encode_own(&envelope->base, own, &sidecar->out, NULL);
    return amp_encode(&envelope->base, encoding, &sidecar->out, NULL);
}

enum amp_code sidecar_encode(struct sidecar *sidecar, enum amp_encoding encoding, Amp__Envelope *envelope)
{
    return encode(sidecar, encoding, envelope, (struct amp_bytes){0});
}

enum amp_code sidecar_publish_own(struct sidecar *sidecar, const char *subject, enum amp_encoding encoding, Amp__Envelope *envelope, struct amp_bytes own)
{
    enum amp_code code = encode(sidecar, encoding, envelope, own);
    if (code != AMP_OK)
        return code;
    return bus_publish(sidecar->bus, subject, NULL, amp_buf_bytes(&sidecar->out));
}

enum amp_code sidecar_publish(struct sidecar *sidecar, const char *subject, enum amp_encoding encoding, Amp__Envelope *envelope)
{
    return sidecar_publish_own(sidecar, subject, encoding, envelope, (struct amp_bytes){0});
}

/* ---- coming -------------------------------------------------------------------------------------------------- */

void sidecar_hopeless(struct sidecar *sidecar, const struct amp_error *err)
{
    log_event(LOG_ERROR, "agent.hopeless", "agent", sidecar->agent, "error", err->message, "hint", err->hint, NULL);
    if (sidecar->options.on_hopeless)
        sidecar->options.on_hopeless(sidecar->ctx, err);
}

static void ready(struct sidecar *sidecar)
{
    bus_inbox_free(sidecar->probe);
    sidecar->probe = NULL;
    if (sidecar->is_ready)
        return;
    sidecar->is_ready = true;
    if (sidecar->on_ready)
        sidecar->on_ready(sidecar->ctx);
}

/* Our own message came back, so the server has seen every subscription made before it. A server that forbids it has seen them as well. */
static void probe_reply(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct sidecar *sidecar = ctx;
    if (kind == BUS_INBOX_DOWN || sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING) {
        bus_inbox_free(sidecar->probe);
        sidecar->probe = NULL;
        sidecar_touch(sidecar);
        return;
    }
    ready(sidecar);
}

/* False: there is no need to wait for the answer. */
static bool probe_ask(struct sidecar *sidecar)
{
    sidecar->probe = bus_inbox_new(sidecar->bus, probe_reply, sidecar);
    if (bus_inbox_request(sidecar->probe, bus_inbox_subject(sidecar->probe), amp_bytes_of("{}")) == AMP_OK)
        return true;
    bus_inbox_free(sidecar->probe);
    sidecar->probe = NULL;
    return false;
}

static void probe_send(struct sidecar *sidecar)
{
    if (sidecar->is_ready || sidecar->probe || !sidecar->member.is_member || sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING)
        return;
    (void)!probe_ask(sidecar);
}

/* Whoever got an answer with files fetches them now (amp.md 15.4): not longer than the grace. */
static uint32_t files_wanted_ms(const struct sidecar *sidecar)
{
    bool has_time = sidecar->inflight == 0 && loop_now_ms(sidecar->loop) < sidecar->grace_until_ms;
    return has_time && sidecar->blobs ? blobs_wanted_ms(sidecar->blobs) : 0;
}

/* The last task of a leaving instance ended, and what the server gave it before it left its groups was answered: no need to wait for the grace to be over. */
static void drain_look(struct sidecar *sidecar)
{
    if (sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING && sidecar->inflight == 0 && !sidecar->probe && loop_timer_is_set(sidecar->grace))
        loop_timer_set(sidecar->grace, files_wanted_ms(sidecar));
}

static void sidecar_turn(void *ctx)
{
    struct sidecar *sidecar = ctx;
    task_resume_waiting(sidecar);
    if (sidecar->is_open)
        member_update(sidecar);
    task_flush_dirty(sidecar);
    drain_look(sidecar);
    if (sidecar->is_open) {
        beat_update(sidecar);
        probe_send(sidecar);
    }
}

void sidecar_bus_up(struct sidecar *sidecar)
{
    if (sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_GONE)
        return;
    sidecar->up_ms = loop_now_ms(sidecar->loop);
    if (!sidecar->is_open) {
        sidecar->is_open = true;
        member_open(sidecar);
        micro_open(sidecar);
        beat_open(sidecar);
    } else {
        beat_send(sidecar, true, NULL);
        task_flush_all(sidecar);
    }
    sidecar_touch(sidecar);
}

void sidecar_bus_down(struct sidecar *sidecar)
{
    bus_inbox_free(sidecar->probe);
    sidecar->probe = NULL;
    seek_stop(sidecar);
    sidecar_touch(sidecar);
}

/* ---- going ------------------------------------------------------------------------------------------------------ */

static void stopped(struct sidecar *sidecar, int status)
{
    if (sidecar->is_stopped)
        return;
    sidecar->is_stopped = true;
    loop_timer_stop(sidecar->grace);
    struct amp_error err = {.code = AMP_OK};
    (void)amp_error_set(&err, AMP_STOPPING, "", "instance %s of %s left the mesh", sidecar->instance, sidecar->agent);
    task_close_all(sidecar, false, &err);
    task_flush_dirty(sidecar);
    sidecar->state = AMP__INSTANCE_STATE__INSTANCE_STATE_GONE;
    if (sidecar->is_open)
        beat_send(sidecar, false, NULL);
    sidecar->on_stopped(sidecar->ctx, status);
}

static void worker_stopped(void *ctx)
{
    stopped(ctx, 0);
}

static void stop_worker(struct sidecar *sidecar)
{
    loop_timer_stop(sidecar->grace);
    sidecar->worker->ops->stop(sidecar->worker, worker_stopped, sidecar);
}

static void grace_over(void *ctx)
{
    struct sidecar *sidecar = ctx;
    uint32_t wanted_ms = files_wanted_ms(sidecar);
    if (wanted_ms > 0) {
        loop_timer_set(sidecar->grace, wanted_ms);
        return;
    }
    if (sidecar->inflight > 0)
        log_event(LOG_WARN, "sidecar.grace_over", "instance", sidecar->instance, "tasks", log_int(sidecar->inflight), NULL);
    struct amp_error err;
    (void)amp_error_set(&err, AMP_STOPPING, "", "instance %s of %s left the mesh before the task was done", sidecar->instance, sidecar->agent);
    task_close_all(sidecar, false, &err);
    stop_worker(sidecar);
}

void sidecar_drain(struct sidecar *sidecar, uint32_t grace_ms)
{
    if (sidecar->is_stopped)
        return;
    if (sidecar->state == AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING) {
        stopped(sidecar, amp_code_info(AMP_INTERRUPTED)->exit);
        return;
    }
    state_set(sidecar, AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING);
    micro_close(sidecar);
    member_leave(sidecar);
    if (sidecar->is_open)
        beat_send(sidecar, false, NULL);
    sidecar_bus_down(sidecar); /* a probe from the time before we left says nothing */
    bool is_leaving = sidecar->is_open && probe_ask(sidecar);
    sidecar->grace_until_ms = loop_now_ms(sidecar->loop) + grace_ms;
    loop_timer_set(sidecar->grace, sidecar->inflight > 0 || is_leaving ? grace_ms : 0);
    sidecar->worker->ops->drain(sidecar->worker);
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static enum amp_code choose_socket(struct sidecar *sidecar, struct amp_error *reterr)
{
    if (!sidecar->options.socket)
        return home_socket_path(sidecar->home, sidecar->instance, sidecar->socket, reterr);
    int len = snprintf(sidecar->socket, sizeof(sidecar->socket), "%s", sidecar->options.socket);
    if (len < 0 || (size_t)len >= sizeof(sidecar->socket)) {
        enum amp_code code = amp_error_set(reterr, AMP_INVALID, "sock", "the socket's path has %d bytes; the system allows 107", len);
        amp_error_hint(reterr, "choose a shorter path");
        return code;
    }
    return AMP_OK;
}

/* NULL: *reterr. */
static struct worker *worker_make(struct sidecar *sidecar, struct amp_error *reterr)
{
    switch (sidecar->options.mode) {
    case SIDECAR_EXEC: return worker_exec_new(sidecar, sidecar->options.argv);
    case SIDECAR_JSONL: return worker_link_new(sidecar, WORKER_JSONL, sidecar->options.argv);
    case SIDECAR_DIAL: return worker_link_new(sidecar, WORKER_DIAL, sidecar->options.argv);
    case SIDECAR_SHIM: return worker_link_new(sidecar, WORKER_SHIM, sidecar->options.argv);
    case SIDECAR_ADAPTER: return sidecar->options.worker_new(sidecar, reterr);
    }
    abort();
}

enum amp_code sidecar_new(struct loop *loop, struct bus *bus, const struct home *home, const struct sidecar_options *options, void (*on_ready)(void *ctx),
                          void (*on_stopped)(void *ctx, int status), void *ctx, struct sidecar **ret, struct amp_error *reterr)
{
    enum amp_code code = amp_card_check(options->card, reterr);
    if (code != AMP_OK)
        return code;
    if (!amp_id_is_valid(options->card->name))
        return amp_error_set(reterr, AMP_INVALID, "card.name", "\"%s\" cannot be the name of an agent on the bus: a-z, 0-9, _ and -, at most 63", options->card->name);
    struct sidecar *sidecar = xcalloc(1, sizeof *sidecar);
    *sidecar = (struct sidecar){.loop = loop, .bus = bus, .home = home, .options = *options, .state = AMP__INSTANCE_STATE__INSTANCE_STATE_STARTING,
                                .on_ready = on_ready, .on_stopped = on_stopped, .ctx = ctx};
    if (sidecar->options.slots == 0)
        sidecar->options.slots = 1;
    (void)snprintf(sidecar->agent, sizeof(sidecar->agent), "%s", options->card->name);
    amp_id_new('i', clock_unix_ms(), sidecar->instance);
    sidecar->last_progress_unix_ms = clock_unix_ms();
    amp_buf_init(&sidecar->out, AMP_WIRE_BYTES_MAX);
    sidecar->tick = loop_tick_new(loop, sidecar_turn, sidecar);
    sidecar->grace = loop_timer_new(loop, grace_over, sidecar);
    if (home)
        sidecar->blobs = blobs_new(loop, bus, &(struct blobs_options){.home = home->path, .holder = sidecar->instance, .from = sidecar->agent});
    task_table_init(sidecar);
    member_init(sidecar);
    seek_init(sidecar);
    pause_init(sidecar);
    beat_init(sidecar);
    death_init(sidecar);
    code = choose_socket(sidecar, reterr);
    if (code == AMP_OK)
        code = local_new(sidecar, sidecar->socket, &sidecar->local, reterr);
    if (code == AMP_OK) {
        sidecar->worker = worker_make(sidecar, reterr);
        code = sidecar->worker ? AMP_OK : reterr->code;
    }
    if (code != AMP_OK) {
        sidecar_free(sidecar);
        return code;
    }
    if (bus_is_up(bus))
        sidecar_bus_up(sidecar);
    *ret = sidecar;
    return AMP_OK;
}

void sidecar_free(struct sidecar *sidecar)
{
    if (!sidecar)
        return;
    sidecar->is_freeing = true;
    if (sidecar->worker)
        sidecar->worker->ops->free(sidecar->worker);
    sidecar->worker = NULL;
    local_free(sidecar->local);
    bus_inbox_free(sidecar->probe);
    task_table_done(sidecar);
    blobs_free(sidecar->blobs);
    micro_close(sidecar);
    member_done(sidecar);
    seek_done(sidecar);
    pause_done(sidecar);
    beat_done(sidecar);
    death_done(sidecar);
    loop_timer_free(sidecar->grace);
    loop_tick_free(sidecar->tick);
    amp_buf_done(&sidecar->out);
    amp_arena_done(&sidecar->hello_card);
    free(sidecar);
}

/* ---- what the parts ask ------------------------------------------------------------------------------------------ */

struct loop *sidecar_loop(struct sidecar *sidecar) { return sidecar->loop; }
struct bus *sidecar_bus(struct sidecar *sidecar) { return sidecar->bus; }
struct blobs *sidecar_blobs(struct sidecar *sidecar) { return sidecar->blobs; }
struct worker *sidecar_worker(struct sidecar *sidecar) { return sidecar->worker; }
const struct home *sidecar_home(struct sidecar *sidecar) { return sidecar->home; }
const struct sidecar_options *sidecar_options(struct sidecar *sidecar) { return &sidecar->options; }
const char *sidecar_agent(struct sidecar *sidecar) { return sidecar->agent; }
const char *sidecar_instance(struct sidecar *sidecar) { return sidecar->instance; }
const char *sidecar_socket(struct sidecar *sidecar) { return sidecar->socket; }

const char *sidecar_state(struct sidecar *sidecar)
{
    switch (sidecar->state) {
    case AMP__INSTANCE_STATE__INSTANCE_STATE_UP: return "up";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING: return "draining";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING: return "restarting";
    case AMP__INSTANCE_STATE__INSTANCE_STATE_GONE: return "gone";
    default: return "starting";
    }
}

/* The agents above what a task's program will call, outermost first: circles are seen where they begin, also by an agent whose only slot is taken by the call above. */
static char *path_below(const struct sidecar *sidecar, const struct task *task)
{
    const Amp__Request *request = task_request(task);
    struct amp_buf path;
    amp_buf_init(&path, (size_t)(AMP_HOPS_MAX + 1) * (AMP_NAME_MAX + 1) + sizeof "AMESH_PATH=");
    (void)amp_buf_printf(&path, "AMESH_PATH=");
    for (size_t i = 0; i < request->n_path; i++)
        (void)amp_buf_printf(&path, "%s,", request->path[i]);
    (void)amp_buf_printf(&path, "%s", sidecar->agent);
    char *text = xstrndup((const char *)path.data, path.len);
    amp_buf_done(&path);
    return text;
}

char **sidecar_env_new(struct sidecar *sidecar, const struct task *task)
{
    uint32_t left_ms;
    char **env = xcalloc(SIDECAR_ENV_OUT + 2, sizeof *env);
    env[0] = xasprintf("AMESH_SOCK=%s", sidecar->socket);
    env[1] = xasprintf("AMESH_AGENT=%s", sidecar->agent);
    /* A sidecar that was itself started inside a task must not pass that task on to its agent. */
    env[2] = task ? xasprintf("AMESH_TASK=%s", task_id(task)) : xstrdup("AMESH_TASK=");
    env[3] = task ? xasprintf("AMESH_CONTEXT=%s", task_context(task)) : xstrdup("AMESH_CONTEXT=");
    env[4] = task ? xasprintf("AMESH_ATTEMPT=%u", task_attempt(task)) : xstrdup("AMESH_ATTEMPT=");
    env[5] = task ? path_below(sidecar, task) : xstrdup("AMESH_PATH=");
    env[6] = task ? xasprintf("AMESH_ROOT=%s", task_root(task)) : xstrdup("AMESH_ROOT=");
    env[7] = task && task_left_ms(task, &left_ms) ? xasprintf("AMESH_DEADLINE=%lld", (long long)clock_unix_ms() + left_ms) : xstrdup("AMESH_DEADLINE=");
    env[SIDECAR_ENV_IN] = xstrdup("AMESH_IN="); /* worker_exec_files.c */
    env[SIDECAR_ENV_OUT] = xstrdup("AMESH_OUT=");
    return env;
}

void sidecar_env_free(char **env)
{
    if (!env)
        return;
    for (char **entry = env; *entry; entry++)
        free(*entry);
    free(env);
}

uint32_t sidecar_restart_delay_ms(uint32_t failures, uint32_t random)
{
    const uint32_t least_ms = 100, most_ms = 30000;
    if (failures == 0)
        return 0;
    uint32_t ceiling_ms = failures > 9 ? most_ms : least_ms << failures;
    if (ceiling_ms > most_ms)
        ceiling_ms = most_ms;
    return least_ms + random % (ceiling_ms - least_ms + 1);
}
