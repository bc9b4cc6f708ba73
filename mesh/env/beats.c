/* amp.hb: who is there, with how much room, and how somebody died. */
#include "env_private.h"
#include "turns_verb.h"

#include "base/alloc.h"
#include "base/bus.h"
#include "base/bus_envelope.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

static void keep_death(struct env *env, const Amp__Death *death)
{
    if (journal_waiting(env->journal) >= JOURNAL_QUEUE_MAX / 4) {
        counter_add(COUNTER_journal_refused, 1);
        return; /* memory has it; tasks come first */
    }
    struct journal_batch *batch = journal_batch_new(env->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_DEATH);
    size_t size = amp__death__get_packed_size(death);
    uint8_t *packed = amp_arena_alloc(journal_batch_arena(batch), size + 1);
    if (packed)
        amp__death__pack(death, packed);
    row->agent = journal_batch_text(batch, death->agent);
    row->instance = journal_batch_text(batch, death->instance);
    row->at_unix_ms = death->at ? death->at->unix_ms : clock_unix_ms();
    row->body = (struct amp_bytes){.data = packed, .len = packed ? size : 0};
    if (!packed || journal_write(env->journal, batch, NULL, NULL) != AMP_OK)
        journal_batch_free(batch);
}

/* Its names are the subject's: nobody beats for another, or reports another's death. */
static bool is_own(const struct amp_subject *subject, const Amp__Beat *beat)
{
    const Amp__Death *death = beat->death;
    return strcmp(subject->a, beat->agent) == 0 && strcmp(subject->b, beat->instance) == 0 &&
           (!death || ((!death->agent || strcmp(death->agent, beat->agent) == 0) &&
                       (!death->instance || strcmp(death->instance, beat->instance) == 0)));
}

/* Everybody answers, so the gap between two requests grows. */
static void ask_all(struct env *env)
{
    char subject[AMP_SUBJECT_SIZE];
    int64_t now = loop_now_ms(env->loop);
    Amp__Envelope envelope = AMP__ENVELOPE__INIT;
    Amp__Ping ping = AMP__PING__INIT;
    if (env->asked_ms && now - env->asked_ms < env->ask_gap_ms)
        return;
    env->ask_gap_ms = env->asked_ms && env->ask_gap_ms * 2 < ENV_ASK_MAX_MS ? env->ask_gap_ms * 2 : env->asked_ms ? ENV_ASK_MAX_MS : ENV_SWEEP_MS;
    env->asked_ms = now ? now : 1;
    envelope.from = env->name;
    envelope.body_case = AMP__ENVELOPE__BODY_PING;
    envelope.ping = &ping;
    if (amp_subject_build(AMP_SUBJECT_WHO_ALL, NULL, NULL, NULL, subject, NULL) == AMP_OK)
        (void)env_publish(env, subject, AMP_PROTOBUF, &envelope);
}

/* The end of its tasks is on its way; if it does not arrive, it is asked for. */
static void hear_of_death(struct env *env, const Amp__Beat *beat)
{
    for (size_t i = 0; i < beat->death->n_tasks; i++) {
        struct etask *task = etask_find(env, beat->death->tasks[i]);
        if (task && task->call && strcmp(task->instance, beat->instance) == 0 && strcmp(call_instance(task->call), beat->instance) == 0)
            call_heard(task->call, true);
    }
}

/* ---- silence --------------------------------------------------------------------------------------------------------- */

static void on_lost(void *ctx, const struct registry_instance *instance)
{
    struct env *env = ctx;
    log_event(LOG_WARN, "env.instance_lost", "agent", instance->agent->name, "instance", instance->name, "cause", "silence", NULL);
    env_request_tick(env);
}

static void look_at(struct env *env, int64_t due_ms)
{
    int64_t now = loop_now_ms(env->loop), left = due_ms - now;
    left = left < ENV_LOST_GAP_MS ? ENV_LOST_GAP_MS : left > ENV_SWEEP_MS ? ENV_SWEEP_MS : left;
    env->lost_due_ms = now + left;
    loop_timer_set(env->lost_timer, (uint32_t)left);
}

/* When we were held up ourselves, what came meanwhile has not been read: it is heard first, once. */
void beats_look(void *ctx)
{
    struct env *env = ctx;
    int64_t now = loop_now_ms(env->loop);
    if (!bus_is_up(env->bus))
        return; /* silence means something only while we listen; beats_bus_up goes on */
    bool was_held_up = !env->is_lost_late && now - env->lost_due_ms > ENV_LOST_LATE_MS;
    env->is_lost_late = was_held_up;
    look_at(env, was_held_up ? now + ENV_SWEEP_MS : registry_tick(&env->registry, now, on_lost, env));
}

/* ---- beats ----------------------------------------------------------------------------------------------------------- */

void beats_on_msg(void *ctx, const struct bus_msg *msg)
{
    struct env *env = ctx;
    struct amp_subject subject;
    Amp__Envelope *envelope = NULL;
    enum amp_encoding encoding;
    evtstream_catch_up(env);
    amp_arena_reset(&env->arena);
    if (amp_subject_parse(msg->subject, &subject, NULL) != AMP_OK || subject.kind != AMP_SUBJECT_HB ||
        amp_envelope_decode(msg->data, 1u << AMP__ENVELOPE__BODY_BEAT, &env->arena, &envelope, &encoding, NULL) != AMP_OK ||
        !is_own(&subject, envelope->beat)) {
        counter_add(COUNTER_malformed_refused, 1);
        return;
    }
    struct registry_change change = {0};
    Amp__Death *death = envelope->beat->death;
    if (death && !death->agent)
        death->agent = envelope->beat->agent;
    if (death && !death->instance)
        death->instance = envelope->beat->instance;
    if (registry_beat(&env->registry, envelope->beat, loop_now_ms(env->loop), clock_unix_ms(), &change) != AMP_OK)
        return; /* counted by the registry */
    if (change.has_new_death && death) {
        keep_death(env, death);
        hear_of_death(env, envelope->beat);
    }
    if (!change.agent->card)
        ask_all(env);
    if (change.is_new && registry_due_ms(change.instance) < env->lost_due_ms)
        look_at(env, registry_due_ms(change.instance));
    targets_wake(env, change.agent, change.instance->free > 0);
    if (change.instance->free > 0)
        turns_heard(env, change.agent->name, change.instance->name);
    env_request_tick(env);
}

void beats_init(struct env *env)
{
    env->lost_timer = loop_timer_new(env->loop, beats_look, env);
}

void beats_bus_up(struct env *env)
{
    look_at(env, INT64_MAX);
    registry_touch(&env->registry, loop_now_ms(env->loop));
    env->asked_ms = 0;
    env->ask_gap_ms = ENV_SWEEP_MS;
    ask_all(env);
}

/* ---- is it there? ----------------------------------------------------------------------------------------------------- */

struct probe { /* a question to one that missed a beat; lives until the next sweep */
    struct probe *next;
    struct env *env;
    struct bus_inbox *inbox;
    char agent[AMP_NAME_MAX + 1], instance[AMP_NAME_MAX + 1];
};

/* Whatever it says, it lives. That the server knows nobody of that name is all that counts: a killed sidecar's connection is closed by the kernel. */
static void on_probed(void *ctx, enum bus_inbox_kind kind, const struct bus_msg *msg, const char *text)
{
    struct probe *probe = ctx;
    struct env *env = probe->env;
    (void)msg, (void)text;
    if (kind != BUS_INBOX_NO_RESPONDERS || !registry_lost(&env->registry, probe->agent, probe->instance, loop_now_ms(env->loop)))
        return;
    log_event(LOG_WARN, "env.instance_lost", "agent", probe->agent, "instance", probe->instance, "cause", "no responders", NULL);
    env_request_tick(env);
}

static void on_silent(void *ctx, const struct registry_instance *instance)
{
    struct env *env = ctx;
    char subject[AMP_SUBJECT_SIZE];
    Amp__Ping ping = AMP__PING__INIT;
    Amp__Control control = AMP__CONTROL__INIT;
    control.kind_case = AMP__CONTROL__KIND_PING;
    control.ping = &ping;
    if (amp_subject_build(AMP_SUBJECT_CTL, instance->name, env->instance, NULL, subject, NULL) != AMP_OK)
        return;
    struct probe *probe = xcalloc(1, sizeof *probe);
    probe->env = env;
    etask_strcpy(probe->agent, instance->agent->name);
    etask_strcpy(probe->instance, instance->name);
    probe->inbox = bus_inbox_new(env->bus, on_probed, probe);
    probe->next = env->probes;
    env->probes = probe;
    (void)bus_control_request(probe->inbox, subject, env->name, &control); /* not sent: then it is lost after three beats, as ever */
}

static void drop_probes(struct env *env)
{
    while (env->probes) {
        struct probe *probe = env->probes;
        env->probes = probe->next;
        bus_inbox_free(probe->inbox);
        free(probe);
    }
}

void beats_done(struct env *env)
{
    drop_probes(env);
    loop_timer_free(env->lost_timer);
}

void beats_sweep(struct env *env)
{
    drop_probes(env);
    registry_silent(&env->registry, loop_now_ms(env->loop), ENV_PROBES_MAX, on_silent, env);
}

static bool load_death(void *ctx, const struct journal_row *row)
{
    struct env *env = ctx;
    amp_arena_reset(&env->scratch);
    Amp__Death *death = amp__death__unpack(&env->scratch.allocator, row->body.len, row->body.data);
    if (death && death->agent)
        registry_add_old_death(&env->registry, death, loop_now_ms(env->loop));
    return true;
}

void beats_load(struct env *env)
{
    (void)journal_deaths(env->journal, NULL, JOURNAL_READ_MAX, load_death, env, NULL);
}
