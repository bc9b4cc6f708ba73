/* Two tables: agents by name with their instances, and skills by name with the agents whose card has them. */
#include "registry.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

struct registry_skill {
    UT_hash_handle hh;
    char name[AMP_NAME_MAX + 1];
    struct registry_agent **agents;
    size_t n_agents, cap;
};

void registry_init(struct registry *registry)
{
    *registry = (struct registry){0};
}

static size_t size_of(const void *message)
{
    return message ? protobuf_c_message_get_packed_size(message) : 0;
}

static void drop(struct registry *registry, void *message)
{
    if (!message)
        return;
    registry->bytes -= size_of(message);
    protobuf_c_message_free_unpacked(message, NULL);
}

/* A copy on the heap of what lives in somebody's arena. */
static void *clone(struct registry *registry, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = xcalloc(1, size);
    protobuf_c_message_pack(message, packed);
    void *copy = protobuf_c_message_unpack(message->descriptor, NULL, size, packed);
    free(packed);
    registry->bytes += size_of(copy);
    return copy;
}

static bool has_room(const struct registry *registry, const void *message)
{
    return registry->bytes + size_of(message) <= REGISTRY_BYTES_MAX;
}

/* ---- skills -------------------------------------------------------------------------------------------------- */

static void skill_join(struct registry *registry, const char *name, struct registry_agent *agent)
{
    struct registry_skill *skill;
    HASH_FIND_STR(registry->skills, name, skill);
    if (!skill) {
        skill = xcalloc(1, sizeof *skill);
        memcpy(skill->name, name, strlen(name) + 1);
        HASH_ADD_STR(registry->skills, name, skill);
    }
    for (size_t i = 0; i < skill->n_agents; i++) {
        if (skill->agents[i] == agent)
            return; /* twice in one card */
    }
    if (skill->n_agents == skill->cap) {
        skill->cap = skill->cap ? skill->cap * 2 : 2;
        skill->agents = xrealloc(skill->agents, skill->cap * sizeof *skill->agents);
    }
    skill->agents[skill->n_agents++] = agent;
}

static void skill_leave(struct registry *registry, const char *name, struct registry_agent *agent)
{
    struct registry_skill *skill;
    HASH_FIND_STR(registry->skills, name, skill);
    if (!skill)
        return;
    for (size_t i = 0; i < skill->n_agents; i++) {
        if (skill->agents[i] == agent)
            skill->agents[i--] = skill->agents[--skill->n_agents];
    }
    if (skill->n_agents == 0) {
        HASH_DEL(registry->skills, skill);
        free(skill->agents);
        free(skill);
    }
}

static void set_card(struct registry *registry, struct registry_agent *agent, const Amp__AgentCard *card)
{
    if (card && !has_room(registry, card)) {
        registry->n_refused++;
        return;
    }
    for (size_t i = 0; agent->card && i < agent->card->n_skills; i++) {
        const char *id = agent->card->skills[i]->id;
        if (id && amp_id_is_valid(id))
            skill_leave(registry, id, agent);
    }
    drop(registry, agent->card);
    agent->card = card ? clone(registry, &card->base) : NULL;
    for (size_t i = 0; agent->card && i < agent->card->n_skills && i < AMP_SKILLS_MAX; i++) {
        const char *id = agent->card->skills[i]->id;
        if (id && amp_id_is_valid(id))
            skill_join(registry, id, agent);
    }
}

bool registry_has_skill(const struct registry_agent *agent, const char *skill)
{
    for (size_t i = 0; agent->card && i < agent->card->n_skills; i++) {
        if (agent->card->skills[i]->id && strcmp(agent->card->skills[i]->id, skill) == 0)
            return true;
    }
    return false;
}

/* ---- agents and instances ---------------------------------------------------------------------------------------- */

static void instance_free(struct registry *registry, struct registry_instance *instance)
{
    HASH_DEL(instance->agent->instances, instance);
    drop(registry, instance->beat);
    free(instance);
    registry->n_instances--;
    registry->is_full = false;
}

static void agent_free(struct registry *registry, struct registry_agent *agent)
{
    struct registry_instance *instance, *next;
    HASH_ITER(hh, agent->instances, instance, next)
        instance_free(registry, instance);
    set_card(registry, agent, NULL);
    for (size_t i = 0; i < agent->n_deaths; i++)
        drop(registry, agent->deaths[i]);
    HASH_DEL(registry->agents, agent);
    free(agent);
}

void registry_done(struct registry *registry)
{
    struct registry_agent *agent, *next;
    HASH_ITER(hh, registry->agents, agent, next)
        agent_free(registry, agent);
    *registry = (struct registry){0};
}

struct registry_agent *registry_agent(const struct registry *registry, const char *name)
{
    struct registry_agent *agent;
    HASH_FIND_STR(registry->agents, name, agent);
    return agent;
}

static struct registry_instance *find_instance(const struct registry *registry, const char *agent_name, const char *name)
{
    struct registry_agent *agent = registry_agent(registry, agent_name);
    struct registry_instance *instance = NULL;
    if (agent)
        HASH_FIND_STR(agent->instances, name, instance);
    return instance;
}

const struct registry_instance *registry_instance(const struct registry *registry, const char *agent, const char *instance)
{
    return find_instance(registry, agent, instance);
}

bool registry_is_live(const struct registry_instance *instance)
{
    return instance && instance->state != AMP__INSTANCE_STATE__INSTANCE_STATE_GONE &&
           instance->state != AMP__INSTANCE_STATE__INSTANCE_STATE_LOST;
}

/* Room for one more agent: the one without instances that was silent longest gives way. */
static bool agents_have_room(struct registry *registry)
{
    if (HASH_COUNT(registry->agents) < REGISTRY_AGENTS_MAX)
        return true;
    if (registry->is_full)
        return false; /* a flood of names must not cost a search each */
    struct registry_agent *victim = NULL;
    for (struct registry_agent *agent = registry->agents; agent; agent = agent->hh.next) {
        if (!agent->instances && (!victim || agent->seen_ms < victim->seen_ms))
            victim = agent;
    }
    registry->is_full = !victim;
    if (!victim)
        return false;
    agent_free(registry, victim);
    return true;
}

static struct registry_agent *make_agent(struct registry *registry, const char *name, int64_t now_ms)
{
    struct registry_agent *agent = registry_agent(registry, name);
    if (agent || !agents_have_room(registry))
        return agent;
    agent = xcalloc(1, sizeof *agent);
    memcpy(agent->name, name, strlen(name) + 1);
    agent->seen_ms = now_ms;
    HASH_ADD_STR(registry->agents, name, agent);
    return agent;
}

static bool same_death(const Amp__Death *a, const Amp__Death *b)
{
    int64_t at_a = a->at ? a->at->unix_ms : 0, at_b = b->at ? b->at->unix_ms : 0;
    return at_a == at_b && strcmp(a->instance ? a->instance : "", b->instance ? b->instance : "") == 0;
}

static bool add_death(struct registry *registry, struct registry_agent *agent, const Amp__Death *death, bool is_newest)
{
    for (size_t i = 0; i < agent->n_deaths; i++) {
        if (same_death(agent->deaths[i], death))
            return false;
    }
    size_t max = has_room(registry, death) ? REGISTRY_DEATHS_MAX : 1;
    if (agent->n_deaths >= max && !is_newest)
        return false;
    while (agent->n_deaths >= max)
        drop(registry, agent->deaths[--agent->n_deaths]);
    size_t at = is_newest ? 0 : agent->n_deaths;
    memmove(&agent->deaths[at + 1], &agent->deaths[at], (agent->n_deaths - at) * sizeof agent->deaths[0]);
    agent->deaths[at] = clone(registry, &death->base);
    agent->n_deaths++;
    return true;
}

void registry_add_old_death(struct registry *registry, const Amp__Death *death, int64_t now_ms)
{
    struct registry_agent *agent = death->agent && amp_id_is_valid(death->agent) ? make_agent(registry, death->agent, now_ms) : NULL;
    if (agent)
        (void)add_death(registry, agent, death, false);
}

static struct registry_instance *make_instance(struct registry *registry, struct registry_agent *agent, const char *name)
{
    struct registry_instance *instance = xcalloc(1, sizeof *instance);
    memcpy(instance->name, name, strlen(name) + 1);
    instance->agent = agent;
    HASH_ADD_STR(agent->instances, name, instance);
    registry->n_instances++;
    return instance;
}

static void keep_beat(struct registry *registry, struct registry_instance *instance, const Amp__Beat *beat)
{
    Amp__Beat slim = *beat;
    slim.card = NULL;
    slim.death = NULL;
    drop(registry, instance->beat);
    if (!has_room(registry, &slim)) {
        slim.n_tags = slim.n_tasks = 0;
        registry->n_refused++;
    }
    instance->beat = clone(registry, &slim.base);
    instance->state = beat->has_state ? beat->state : AMP__INSTANCE_STATE__INSTANCE_STATE_UP;
    instance->free = instance->state == AMP__INSTANCE_STATE__INSTANCE_STATE_UP ? beat->free : 0;
}

enum amp_code registry_beat(struct registry *registry, const Amp__Beat *beat, int64_t now_ms, int64_t now_unix_ms,
                            struct registry_change *ret)
{
    *ret = (struct registry_change){0};
    if (!beat->agent || !amp_id_is_valid(beat->agent) || !beat->instance || !amp_id_is_valid(beat->instance))
        return AMP_INVALID;
    struct registry_instance *instance = find_instance(registry, beat->agent, beat->instance);
    if (!instance) {
        struct registry_agent *agent =
            registry->n_instances < REGISTRY_INSTANCES_MAX ? make_agent(registry, beat->agent, now_ms) : NULL;
        if (!agent) {
            registry->n_refused++;
            return AMP_OVERLOADED;
        }
        instance = make_instance(registry, agent, beat->instance);
        ret->is_new = true;
    }
    bool was_live = !ret->is_new && registry_is_live(instance);
    keep_beat(registry, instance, beat);
    instance->seen_ms = instance->agent->seen_ms = now_ms;
    instance->is_named = false;
    instance->seen_unix_ms = now_unix_ms;
    if (!registry_is_live(instance) && (was_live || ret->is_new)) {
        instance->over_ms = now_ms;
        ret->has_left = true;
    }
    if (beat->card)
        set_card(registry, instance->agent, beat->card);
    if (beat->death)
        ret->has_new_death = add_death(registry, instance->agent, beat->death, true);
    ret->agent = instance->agent;
    ret->instance = instance;
    return AMP_OK;
}

static uint32_t interval_ms(const struct registry_instance *instance)
{
    uint32_t interval = instance->beat->has_interval_ms ? instance->beat->interval_ms : REGISTRY_INTERVAL_MS;
    if (interval < REGISTRY_INTERVAL_MIN_MS)
        return REGISTRY_INTERVAL_MIN_MS;
    return interval > REGISTRY_INTERVAL_MAX_MS ? REGISTRY_INTERVAL_MAX_MS : interval;
}

int64_t registry_due_ms(const struct registry_instance *instance)
{
    return instance->seen_ms + (int64_t)interval_ms(instance) * REGISTRY_MISSED_MAX;
}

static void set_lost(struct registry_instance *instance, int64_t now_ms)
{
    instance->state = AMP__INSTANCE_STATE__INSTANCE_STATE_LOST;
    instance->free = 0;
    instance->over_ms = now_ms;
}

bool registry_lost(struct registry *registry, const char *agent, const char *name, int64_t now_ms)
{
    struct registry_instance *instance = find_instance(registry, agent, name);
    if (!registry_is_live(instance))
        return false;
    set_lost(instance, now_ms);
    return true;
}

void registry_silent(struct registry *registry, int64_t now_ms, uint32_t max, void (*on_silent)(void *ctx, const struct registry_instance *instance), void *ctx)
{
    for (struct registry_agent *agent = registry->agents; agent; agent = agent->hh.next) {
        for (struct registry_instance *instance = agent->instances; instance && max > 0; instance = instance->hh.next) {
            uint32_t interval = interval_ms(instance);
            if (instance->is_named || !registry_is_live(instance) || now_ms - instance->seen_ms <= (int64_t)interval + interval / 4)
                continue;
            instance->is_named = true;
            max--;
            on_silent(ctx, instance);
        }
    }
}

void registry_touch(struct registry *registry, int64_t now_ms)
{
    for (struct registry_agent *agent = registry->agents; agent; agent = agent->hh.next) {
        for (struct registry_instance *instance = agent->instances; instance; instance = instance->hh.next)
            instance->seen_ms = registry_is_live(instance) ? now_ms : instance->seen_ms;
    }
}

int64_t registry_tick(struct registry *registry, int64_t now_ms, void (*on_lost)(void *ctx, const struct registry_instance *instance),
                      void *ctx)
{
    struct registry_agent *agent, *next_agent;
    int64_t due = INT64_MAX;
    registry->is_full = false;
    HASH_ITER(hh, registry->agents, agent, next_agent) {
        struct registry_instance *instance, *next;
        HASH_ITER(hh, agent->instances, instance, next) {
            if (registry_is_live(instance)) {
                int64_t due_ms = registry_due_ms(instance);
                if (now_ms < due_ms) {
                    due = due_ms < due ? due_ms : due;
                    continue;
                }
                set_lost(instance, now_ms);
                if (on_lost)
                    on_lost(ctx, instance);
            } else if (now_ms - instance->over_ms > REGISTRY_GONE_KEPT_MS) {
                instance_free(registry, instance);
            }
        }
        if (!agent->instances && now_ms - agent->seen_ms > REGISTRY_SILENT_KEPT_MS)
            agent_free(registry, agent);
    }
    return due;
}

/* ---- slots --------------------------------------------------------------------------------------------------------- */

static void add_slots(const struct registry_agent *agent, struct registry_slots *slots)
{
    for (const struct registry_instance *instance = agent->instances; instance; instance = instance->hh.next) {
        if (!registry_is_live(instance))
            continue;
        slots->instances++;
        slots->restarting += instance->state == AMP__INSTANCE_STATE__INSTANCE_STATE_RESTARTING;
        slots->starting += instance->state == AMP__INSTANCE_STATE__INSTANCE_STATE_STARTING;
        slots->free = slots->free + instance->free < slots->free ? UINT32_MAX : slots->free + instance->free;
    }
}

struct registry_slots registry_slots(const struct registry *registry, const char *agent_name, const char *skill_name)
{
    struct registry_slots slots = {0};
    if (!skill_name || !*skill_name) {
        const struct registry_agent *agent = registry_agent(registry, agent_name);
        if (agent)
            add_slots(agent, &slots);
        return slots;
    }
    const struct registry_skill *skill;
    HASH_FIND_STR(registry->skills, skill_name, skill);
    for (size_t i = 0; skill && i < skill->n_agents; i++)
        add_slots(skill->agents[i], &slots);
    return slots;
}

void registry_taken(struct registry *registry, const char *agent, const char *name)
{
    struct registry_instance *instance = find_instance(registry, agent, name);
    if (instance && instance->free > 0)
        instance->free--;
}

void registry_freed(struct registry *registry, const char *agent, const char *name)
{
    struct registry_instance *instance = find_instance(registry, agent, name);
    if (instance && instance->state == AMP__INSTANCE_STATE__INSTANCE_STATE_UP && instance->free < instance->beat->slots)
        instance->free++;
}

static const struct registry_instance *holder_of(const struct registry_agent *agent, const char *task)
{
    for (const struct registry_instance *instance = agent->instances; instance; instance = instance->hh.next) {
        for (size_t i = 0; registry_is_live(instance) && i < instance->beat->n_tasks; i++) {
            if (strcmp(instance->beat->tasks[i], task) == 0)
                return instance;
        }
    }
    return NULL;
}

const struct registry_instance *registry_holder(const struct registry *registry, const char *agent_name, const char *skill_name, const char *task)
{
    const struct registry_instance *holder = NULL;
    if (!skill_name || !*skill_name) {
        const struct registry_agent *agent = registry_agent(registry, agent_name);
        return agent ? holder_of(agent, task) : NULL;
    }
    const struct registry_skill *skill;
    HASH_FIND_STR(registry->skills, skill_name, skill);
    for (size_t i = 0; skill && i < skill->n_agents && !holder; i++)
        holder = holder_of(skill->agents[i], task);
    return holder;
}
