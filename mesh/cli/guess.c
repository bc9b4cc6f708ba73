#include "cli/guess.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/agents.h"

#define GUESS_MS 300u
#define GUESS_NAMES_MAX 10000u

struct names {
    bool is_skill;
    char **list;
    size_t count;
};

static void add(struct names *names, const char *name)
{
    if (name == NULL || !amp_id_is_valid(name))
        return;
    names->list = xrealloc(names->list, (names->count + 1) * sizeof *names->list);
    names->list[names->count++] = xstrdup(name);
}

static int on_agents(void *ctx, const Amp__EnvReply *reply)
{
    struct names *names = ctx;
    for (size_t i = 0; i < reply->n_agents; i++) {
        const Amp__AgentRecord *record = reply->agents[i];
        if (agents_load(record).instances == 0)
            continue; /* it is not there either */
        if (!names->is_skill)
            add(names, record->name);
        for (size_t j = 0; names->is_skill && record->card != NULL && j < record->card->n_skills; j++)
            add(names, record->card->skills[j]->id);
    }
    return names->count < GUESS_NAMES_MAX ? 0 : CLI_ENOUGH;
}

int guess_fail(struct cli *cli, struct amp_error *err, const char *agent, const char *skill)
{
    Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    struct amp_error ignored = {0};
    struct names names = {.is_skill = agent == NULL};
    uint32_t timeout_ms = cli->timeout_ms;
    request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
    request.agents = &query;
    cli->timeout_ms = GUESS_MS;
    (void)cli_ask_pages(cli, &request, on_agents, &names, &ignored);
    cli->timeout_ms = timeout_ms;
    const char *guess = command_guess(agent != NULL ? agent : skill, (const char *const *)names.list, names.count);
    if (guess != NULL) {
        struct amp_error with = *err;
        amp_error_set(&with, err->code, err->field, "%s; did you mean %s?", err->message, guess);
        amp_error_hint(&with, "%s", err->hint);
        *err = with;
    }
    for (size_t i = 0; i < names.count; i++)
        free(names.list[i]);
    free(names.list);
    return cli_fail(cli, err, NULL);
}
