/* agents: the registry, for `amesh ls` and `amesh show`, by name. In pages for who sends a token, "" for the first; the token is the last
 * name of a page. Who sends none gets all, or is told that it is too much. */
#include "env_private.h"

#include <stdlib.h>
#include <string.h>

#define AGENTS_MAX AMP_MEMBERS_MAX    /* in one reply */
#define INSTANCES_MAX AMP_MEMBERS_MAX /* in one record */

static bool has_tag(const struct registry_agent *agent, const char *tag)
{
    for (const struct registry_instance *i = agent->instances; i; i = i->hh.next) {
        for (size_t k = 0; registry_is_live(i) && k < i->beat->n_tags; k++) {
            if (strcmp(i->beat->tags[k], tag) == 0)
                return true;
        }
    }
    return false;
}

static bool is_wanted(const struct registry_agent *agent, const Amp__AgentQuery *wanted)
{
    for (size_t t = 0; t < wanted->n_tags; t++) {
        if (!has_tag(agent, wanted->tags[t]))
            return false;
    }
    return (!wanted->name || !*wanted->name || strcmp(wanted->name, agent->name) == 0) &&
           (!wanted->skill || !*wanted->skill || registry_has_skill(agent, wanted->skill));
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
    if (!registry_is_live(from)) { /* its last beat is no news any more: what it had is with others, or waits for them */
        beat->free = beat->inflight = beat->queued = 0;
        beat->n_tasks = 0;
        beat->stuck = NULL;
    }
    amp__timestamp__init(seen);
    seen->unix_ms = from->seen_unix_ms;
    instance->beat = beat;
    instance->seen = seen;
    return instance;
}

/* Those that live first, so that they are what is left when there are more than a message holds. */
static bool view_instances(const struct registry_agent *agent, Amp__AgentRecord *record, struct amp_arena *arena)
{
    size_t count = HASH_COUNT(agent->instances);
    record->instances = amp_arena_alloc(arena, (count + 1) * sizeof *record->instances);
    for (int live = 1; record->instances && live >= 0; live--) {
        for (struct registry_instance *i = agent->instances; i && record->n_instances < INSTANCES_MAX; i = i->hh.next) {
            if (registry_is_live(i) != (live == 1))
                continue;
            Amp__Instance *instance = view_instance(i, arena);
            if (!instance)
                return false;
            record->instances[record->n_instances++] = instance;
        }
    }
    record->has_instances_count = record->n_instances < count;
    record->instances_count = (uint32_t)count;
    return record->instances != NULL;
}

static Amp__AgentRecord *view_agent(const struct registry_agent *agent, const Amp__AgentQuery *wanted, struct amp_arena *arena)
{
    Amp__AgentRecord *record = amp_arena_alloc(arena, sizeof *record);
    if (!record)
        return NULL;
    amp__agent_record__init(record);
    record->name = (char *)agent->name;
    record->card = agent->card;
    if (!view_instances(agent, record, arena))
        return NULL;
    if (wanted->has_deaths && wanted->deaths) {
        record->n_deaths = agent->n_deaths;
        record->deaths = (Amp__Death **)agent->deaths;
    }
    return record;
}

static int by_name(const void *a, const void *b)
{
    const struct registry_agent *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* As many as fit; a single one that is too large is cut in half until it fits, and says how many instances it has. */
static void answer_agents(const struct ask *ask, Amp__EnvReply *answer, bool is_cut)
{
    size_t all = answer->n_agents;
    for (;;) {
        size_t count = answer->n_agents;
        Amp__AgentRecord *first = count ? answer->agents[0] : NULL;
        if (!ask->request->agents->page_token && (is_cut || count < all)) {
            env_refuse_code(ask, AMP_TOO_LARGE, "", "there are more agents than one message on this bus can name; ask by name, skill or tag, or in pages");
            return;
        }
        answer->next_page_token = count && (is_cut || count < all) ? answer->agents[count - 1]->name : NULL;
        if (env_answer(ask->env, ask->reply, ask->encoding, answer) != AMP_TOO_LARGE)
            return;
        if (count > 1) {
            answer->n_agents = count / 2;
        } else if (first && first->n_instances > 1) {
            if (!first->has_instances_count)
                first->instances_count = (uint32_t)first->n_instances;
            first->has_instances_count = true;
            first->n_instances /= 2;
        } else if (first && first->n_deaths > 1) {
            first->n_deaths /= 2; /* the oldest of them; the journal has them all */
        } else {
            env_refuse_code(ask, AMP_TOO_LARGE, "", "the record of one agent is larger than one message on this bus");
            return;
        }
    }
}

/* Those that match, sorted, behind the token. */
static size_t gather(const struct ask *ask, const struct registry_agent **found, uint32_t *ret_total)
{
    const Amp__AgentQuery *wanted = ask->request->agents;
    const char *after = wanted->page_token ? wanted->page_token : "";
    size_t count = 0;
    for (struct registry_agent *agent = ask->env->registry.agents; agent; agent = agent->hh.next) {
        if (!is_wanted(agent, wanted))
            continue;
        ++*ret_total;
        if (strcmp(agent->name, after) > 0)
            found[count++] = agent;
    }
    qsort(found, count, sizeof *found, by_name);
    return count;
}

void agents_verb(const struct ask *ask)
{
    struct env *env = ask->env;
    const Amp__AgentQuery *wanted = ask->request->agents;
    struct amp_arena *arena = env_answer_arena(env);
    Amp__EnvReply answer = AMP__ENV_REPLY__INIT;
    size_t all = HASH_COUNT(env->registry.agents) + 1, bytes = 0, room = env_payload_max(env);
    const struct registry_agent **found = amp_arena_alloc(arena, all * sizeof *found);
    answer.agents = amp_arena_alloc(arena, all * sizeof *answer.agents);
    if (!found || !answer.agents) {
        env_refuse_code(ask, AMP_NO_MEMORY, "", NULL);
        return;
    }
    size_t count = gather(ask, found, &answer.total);
    answer.has_total = true;
    while (answer.n_agents < count && answer.n_agents < AGENTS_MAX && bytes <= room) {
        Amp__AgentRecord *record = view_agent(found[answer.n_agents], wanted, arena);
        if (!record)
            break; /* for the next page */
        bytes += amp__agent_record__get_packed_size(record);
        answer.agents[answer.n_agents++] = record;
    }
    if (wanted->name && *wanted->name && answer.total == 0)
        env_refuse_code(ask, AMP_NO_SUCH_AGENT, "name", NULL);
    else if (answer.n_agents == 0 && count > 0)
        env_refuse_code(ask, AMP_NO_MEMORY, "", "the record of one agent is larger than what may be made of it here");
    else
        answer_agents(ask, &answer, answer.n_agents < count);
}
