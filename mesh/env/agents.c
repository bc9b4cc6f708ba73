/* agents: the registry, as much of it as fits. Deaths come from memory, which has the newest of each agent. */
#include "env_private.h"

#include <stdlib.h>
#include <string.h>

static bool has_tag(const struct registry_agent *agent, const char *tag)
{
    for (const struct registry_instance *instance = agent->instances; instance; instance = instance->hh.next) {
        for (size_t i = 0; registry_is_live(instance) && i < instance->beat->n_tags; i++) {
            if (strcmp(instance->beat->tags[i], tag) == 0)
                return true;
        }
    }
    return false;
}

static bool matches(const struct registry_agent *agent, const Amp__AgentQuery *query)
{
    if (query->name && query->name[0] && strcmp(query->name, agent->name) != 0)
        return false;
    if (query->skill && query->skill[0] && !registry_has_skill(agent, query->skill))
        return false;
    for (size_t i = 0; i < query->n_tags; i++) {
        if (!has_tag(agent, query->tags[i]))
            return false;
    }
    /* Who is not there and has left nothing is not listed, unless asked for by name. */
    return agent->instances || agent->n_deaths || (query->name && query->name[0]);
}

static Amp__Instance *make_instance(const struct registry_instance *instance, struct amp_arena *arena)
{
    Amp__Instance *made = amp_arena_alloc(arena, sizeof *made);
    Amp__Timestamp *seen = amp_arena_alloc(arena, sizeof *seen);
    if (!made || !seen)
        return NULL;
    amp__instance__init(made);
    amp__timestamp__init(seen);
    seen->unix_ms = instance->seen_unix_ms;
    made->seen = seen;
    made->beat = instance->beat;
    return made;
}

static Amp__AgentRecord *make_record(const struct registry_agent *agent, bool with_deaths, struct amp_arena *arena)
{
    Amp__AgentRecord *record = amp_arena_alloc(arena, sizeof *record);
    size_t count = HASH_COUNT(agent->instances);
    if (!record)
        return NULL;
    amp__agent_record__init(record);
    record->name = (char *)agent->name;
    record->card = agent->card;
    record->instances = amp_arena_alloc(arena, (count + 1) * sizeof *record->instances);
    for (const struct registry_instance *instance = agent->instances; record->instances && instance; instance = instance->hh.next) {
        if (record->n_instances == AMP_MEMBERS_MAX)
            break;
        record->instances[record->n_instances] = make_instance(instance, arena);
        if (!record->instances[record->n_instances])
            return NULL;
        record->n_instances++;
    }
    if (with_deaths) {
        record->n_deaths = agent->n_deaths;
        record->deaths = (Amp__Death **)agent->deaths;
    }
    return record;
}

static int by_name(const void *a, const void *b)
{
    const Amp__AgentRecord *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* All that match, by name. A registry too large for one message is cut at its end; `total` says how many there are. */
static void answer_agents(const struct ask *ask, Amp__AgentRecord **records, size_t count)
{
    Amp__EnvReply reply = AMP__ENV_REPLY__INIT;
    reply.agents = records;
    reply.n_agents = count < AMP_MEMBERS_MAX ? count : AMP_MEMBERS_MAX;
    reply.has_total = true;
    reply.total = (uint32_t)count;
    while (env_answer(ask->env, ask->reply, ask->encoding, &reply) == AMP_TOO_LARGE) {
        if (reply.n_agents > 1) {
            reply.n_agents /= 2;
        } else if (reply.n_agents && records[0]->n_instances > 1) {
            records[0]->n_instances /= 2;
        } else if (reply.n_agents && records[0]->n_deaths > 0) {
            records[0]->n_deaths /= 2;
        } else {
            env_refuse_code(ask, AMP_TOO_LARGE, "", "a single agent's record is too large for this bus");
            return;
        }
    }
}

void agents_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    const Amp__AgentQuery *query = ask->request->agents;
    bool with_deaths = query->has_deaths && query->deaths;
    size_t count = 0;
    Amp__AgentRecord **records = amp_arena_alloc(&env->arena, (HASH_COUNT(env->registry.agents) + 1) * sizeof *records);
    for (const struct registry_agent *agent = env->registry.agents; records && agent; agent = agent->hh.next) {
        if (!matches(agent, query))
            continue;
        records[count] = make_record(agent, with_deaths, &env->arena);
        if (!records[count])
            break;
        count++;
    }
    if (!records) {
        env_refuse_code(ask, AMP_TOO_LARGE, "", NULL);
        return;
    }
    qsort(records, count, sizeof *records, by_name);
    answer_agents(ask, records, count);
}
