/* The card that an agent brings itself, with its first hello. It adds to what `amesh run` was told and overrides nothing: the operator has the last word. Taken only before
 * the instance was ever ready, so what callers have seen does not change under them, and no endpoint moves while something points at it. */
#include "rpc_private.h"
#include "sidecar_private.h"

#include <cjson/cJSON.h>
#include <string.h>

enum { CARD_BYTES_MAX = 4 << 20 };

static bool has_skill(const Amp__AgentCard *card, const char *id)
{
    for (size_t i = 0; i < card->n_skills; i++)
        if (!strcmp(card->skills[i]->id, id))
            return true;
    return false;
}

static enum amp_code merge(struct sidecar *sidecar, const Amp__AgentCard *brought, Amp__AgentCard **ret, struct amp_error *reterr)
{
    const Amp__AgentCard *told = sidecar->options.card;
    Amp__AgentCard *card = amp_arena_alloc(&sidecar->hello_card, sizeof *card);
    Amp__AgentSkill **skills = amp_arena_alloc(&sidecar->hello_card, (told->n_skills + brought->n_skills) * sizeof(Amp__AgentSkill *));
    if (!card || !skills)
        return amp_error_set(reterr, AMP_TOO_LARGE, "card", "the card is too large");
    *card = *told;
    memcpy(skills, told->skills, told->n_skills * sizeof *skills);
    card->skills = skills;
    for (size_t i = 0; i < brought->n_skills; i++)
        if (!has_skill(card, brought->skills[i]->id))
            skills[card->n_skills++] = brought->skills[i];
    if (!strcmp(told->description, told->name)) /* nobody has described it yet */
        card->description = brought->description;
    *ret = card;
    return amp_card_check(card, reterr);
}

static enum amp_code take(struct sidecar *sidecar, const cJSON *json, struct amp_error *reterr)
{
    ProtobufCMessage *decoded;
    Amp__AgentCard *brought, *card = NULL;
    enum amp_code code = rpc_message_of(json, &amp__agent_card__descriptor, &sidecar->hello_card, &decoded, reterr);
    if (code != AMP_OK)
        return code;
    brought = (Amp__AgentCard *)decoded;
    if (brought->n_skills == 0) /* else one would be made from its name */
        brought->skills = sidecar->options.card->skills, brought->n_skills = sidecar->options.card->n_skills;
    if (amp_card_complete(brought, sidecar->agent, &sidecar->hello_card) != AMP_OK)
        return amp_error_set(reterr, AMP_TOO_LARGE, "card", "the card is too large");
    code = merge(sidecar, brought, &card, reterr);
    if (code != AMP_OK)
        return code;
    sidecar->options.card = card;
    member_add_skills(sidecar);
    if (sidecar->is_open)
        beat_send(sidecar, true, NULL);
    return AMP_OK;
}

enum amp_code sidecar_take_card(struct sidecar *sidecar, const cJSON *card, struct amp_error *reterr)
{
    if (sidecar->is_ready || sidecar->member.is_member || sidecar->hello_card.max)
        return AMP_OK;
    if (!cJSON_IsObject(card))
        return amp_error_set(reterr, AMP_INVALID, "card", "card is an A2A AgentCard, an object");
    amp_arena_init(&sidecar->hello_card, CARD_BYTES_MAX);
    enum amp_code code = take(sidecar, card, reterr);
    if (code != AMP_OK) {
        amp_arena_done(&sidecar->hello_card);
        sidecar->hello_card.max = 0; /* the next hello may bring a better one */
    }
    return code;
}
