/* agents: the registry, for `amesh ls` and `amesh show`. */
#include "env_private.h"

#include <string.h>

static bool has_tags(const struct registry_agent *agent, const Amp__AgentQuery *wanted)
{
    for (size_t t = 0; t < wanted->n_tags; t++) {
        bool is_found = false;
        for (struct registry_instance *i = agent->instances; i && !is_found; i = i->hh.next)
            for (size_t k = 0; i->beat && k < i->beat->n_tags && !is_found; k++)
                is_found = strcmp(i->beat->tags[k], wanted->tags[t]) == 0;
        if (!is_found)
            return false;
    }
    return true;
}

static bool is_wanted(const struct registry_agent *agent, const Amp__AgentQuery *wanted)
{
    return (!wanted->name || !*wanted->name || strcmp(wanted->name, agent->name) == 0) &&
           (!wanted->skill || !*wanted->skill || registry_has_skill(agent, wanted->skill)) && has_tags(agent, wanted);
}

static Amp__Instance *view_instance(const struct registry_instance *from, struct amp_arena *arena)
{
    Amp__Instance *instance = amp_arena_alloc(arena, sizeof *instance);
    Amp__Beat *beat = amp_arena_alloc(arena, sizeof *beat);
    Amp__Timestamp *seen = amp_arena_alloc(arena, sizeof *seen);
    if (!instance || !beat || !seen)
        return NULL;
    amp__instance__init(instance);
    *beat = *from->beat;
    beat->has_state = true;
    beat->state = from->state;
    amp__timestamp__init(seen);
    seen->unix_ms = from->seen_unix_ms;
    instance->beat = beat;
    instance->seen = seen;
    return instance;
}

static Amp__AgentRecord *view_agent(const struct registry_agent *agent, const Amp__AgentQuery *wanted, struct amp_arena *arena)
{
    Amp__AgentRecord *record = amp_arena_alloc(arena, sizeof *record);
    if (!record)
        return NULL;
    amp__agent_record__init(record);
    record->name = (char *)agent->name;
    record->card = agent->card;
    record->instances = amp_arena_alloc(arena, (HASH_COUNT(agent->instances) + 1) * sizeof *record->instances);
    for (struct registry_instance *i = agent->instances; i && record->instances; i = i->hh.next) {
        Amp__Instance *instance = i->beat ? view_instance(i, arena) : NULL;
        if (instance)
            record->instances[record->n_instances++] = instance;
    }
    if (wanted->has_deaths && wanted->deaths) {
        record->n_deaths = agent->n_deaths;
        record->deaths = (Amp__Death **)agent->deaths;
    }
    return record;
}

void agents_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    const Amp__AgentQuery *wanted = ask->request->agents;
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    amp_arena_reset(&env->scratch);
    answer.agents = amp_arena_alloc(&env->scratch, (HASH_COUNT(env->registry.agents) + 1) * sizeof *answer.agents);
    for (struct registry_agent *agent = env->registry.agents; agent && answer.agents; agent = agent->hh.next) {
        Amp__AgentRecord *record = is_wanted(agent, wanted) ? view_agent(agent, wanted, &env->scratch) : NULL;
        if (record)
            answer.agents[answer.n_agents++] = record;
    }
    if (wanted->name && *wanted->name && answer.n_agents == 0)
        env_refuse_code(ask, AMP_NO_SUCH_AGENT, "name", NULL);
    else if (env_answer(env, ask->reply, ask->encoding, &answer) == AMP_TOO_LARGE)
        env_refuse_code(ask, AMP_TOO_LARGE, "", "there are more agents than one message on this bus can name; ask by name, skill or tag");
}
