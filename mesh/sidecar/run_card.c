/* YAML → JSON text → the same mapper and the same checks as a card from the wire. */
#include "run_card.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "base/document.h"

#define CARD_FILE_MAX (1u << 20)

/* Members by their JSON names; what is not among them is a slip of the pen. `where`: the path of the object. */
static enum amp_code check_names(const cJSON *object, const char *const *known, const char *what, const char *where, struct amp_error *reterr)
{
    const cJSON *member;
    cJSON_ArrayForEach(member, object)
    {
        char field[sizeof reterr->field];
        size_t i = 0;
        while (known[i] && strcmp(known[i], member->string) != 0)
            i++;
        snprintf(field, sizeof field, "%s%.60s", where, member->string);
        if (!known[i])
            return amp_error_set(reterr, AMP_INVALID, field, "a %s has no such member", what);
    }
    return AMP_OK;
}

static enum amp_code check_members(const cJSON *json, struct amp_error *reterr)
{
    static const char *const known[] = {"name", "description", "supportedInterfaces", "provider", "version", "documentationUrl", "capabilities", "securitySchemes",
                                        "securityRequirements", "defaultInputModes", "defaultOutputModes", "skills", "signatures", "iconUrl", NULL};
    static const char *const known_of_skill[] = {"id", "name", "description", "tags", "examples", "inputModes", "outputModes", "securityRequirements", NULL};
    const cJSON *skill;
    unsigned i = 0;
    if (!cJSON_IsObject(json))
        return amp_error_set(reterr, AMP_MALFORMED, "", "a card is a mapping");
    enum amp_code code = check_names(json, known, "card", "", reterr);
    cJSON_ArrayForEach(skill, cJSON_GetObjectItemCaseSensitive(json, "skills"))
    {
        char where[32];
        snprintf(where, sizeof where, "skills[%u].", i++);
        if (code == AMP_OK)
            code = check_names(skill, known_of_skill, "skill", where, reterr);
    }
    return code;
}

static enum amp_code map_card(const cJSON *json, struct amp_arena *arena, Amp__AgentCard **ret, struct amp_error *reterr)
{
    enum amp_code code = check_members(json, reterr);
    char *text = code == AMP_OK ? cJSON_PrintUnformatted(json) : NULL;
    ProtobufCMessage *message = NULL;
    if (text)
        code = amp_decode_json(&amp__agent_card__descriptor, amp_bytes_of(text), arena, &message, reterr);
    cJSON_free(text);
    *ret = (Amp__AgentCard *)message;
    return code;
}

/* "card.yaml:7: skills[0].id: …" instead of the bare reason. */
static void place(struct document *document, struct amp_error *err)
{
    struct amp_error in_file = *err;
    if (strncmp(err->field, "card.", 5) == 0)
        memmove(in_file.field, err->field + 5, strlen(err->field + 5) + 1);
    document_place(document, &in_file);
    *err = in_file;
}

enum amp_code run_card_read(const char *path, struct amp_arena *arena, Amp__AgentCard **ret, struct amp_error *reterr)
{
    struct document *document;
    enum amp_code code = document_read(path, CARD_FILE_MAX, &document, reterr);
    if (code != AMP_OK)
        return code;
    code = map_card(document_json(document), arena, ret, reterr);
    if (code != AMP_OK)
        place(document, reterr);
    document_free(document);
    return code;
}

void run_card_place(const char *path, struct amp_error *err)
{
    struct amp_error ignored;
    struct document *document;
    if (document_read(path, CARD_FILE_MAX, &document, &ignored) != AMP_OK)
        return;
    place(document, err);
    document_free(document);
}

enum amp_code run_card_skills(Amp__AgentCard *card, const char **skills, struct amp_arena *arena, struct amp_error *reterr)
{
    size_t count = 0;
    while (skills && skills[count])
        count++;
    if (count == 0)
        return AMP_OK;
    Amp__AgentSkill **all = amp_arena_alloc(arena, (card->n_skills + count) * sizeof(Amp__AgentSkill *));
    if (!all)
        return AMP_NO_MEMORY;
    if (card->n_skills)
        memcpy(all, card->skills, card->n_skills * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        const char *colon = strchr(skills[i], ':');
        struct amp_bytes id = {.data = (const uint8_t *)skills[i], .len = colon ? (size_t)(colon - skills[i]) : strlen(skills[i])};
        Amp__AgentSkill *skill = amp_arena_alloc(arena, sizeof *skill);
        if (!skill)
            return AMP_NO_MEMORY;
        amp__agent_skill__init(skill);
        skill->id = skill->name = amp_arena_strdup(arena, id);
        if (!skill->id || !amp_id_is_valid(skill->id)) {
            amp_error_set(reterr, AMP_INVALID, "skill", "\"%.60s\" is no name of a skill", skills[i]);
            amp_error_hint(reterr, "use a-z, 0-9, _ and -, at most 63 of them");
            return AMP_INVALID;
        }
        skill->description = amp_arena_strdup(arena, amp_bytes_of(colon ? colon + 1 : skill->id));
        skill->n_tags = 1;
        skill->tags = amp_arena_alloc(arena, sizeof *skill->tags);
        if (!skill->description || !skill->tags)
            return AMP_NO_MEMORY;
        skill->tags[0] = skill->id;
        all[card->n_skills + i] = skill;
    }
    card->skills = all;
    card->n_skills += count;
    return AMP_OK;
}
