/* Cards (amp.md 4.4). A card's texts go to terminals and into prompts, its skill ids become subjects. */
#include <amp/amp.h>

#include <stdio.h>
#include <string.h>

#include "model.h"

#define VERSION_MAX 64
#define MODES_MAX 64
#define EXAMPLES_MAX 64
#define PATH_SIZE 96

static const struct text_rule label_rule = {.min = 1, .max = AMP_LABEL_MAX};
static const struct text_rule description_rule = {.max = AMP_DESCRIPTION_MAX, .is_multiline = true};

struct texts {
    char **items;
    size_t n, max;
    struct text_rule rule;
};

static enum amp_code texts_check(struct texts texts, const char *field, struct amp_error *reterr)
{
    if (texts.n > texts.max)
        return amp_error_set(reterr, AMP_INVALID, field, "has %zu entries; at most %zu are allowed", texts.n,
                             texts.max);
    for (size_t i = 0; i < texts.n; i++) {
        char path[PATH_SIZE];
        (void)snprintf(path, sizeof(path), "%.70s[%zu]", field, i);
        enum amp_code code = text_check(texts.items[i], texts.rule, path, reterr);
        if (code != AMP_OK)
            return code;
    }
    return AMP_OK;
}

static enum amp_code skill_lists_check(const Amp__AgentSkill *skill, size_t index, struct amp_error *reterr)
{
    const struct {
        const char *name;
        struct texts texts;
    } lists[] = {
        {"tags", {skill->tags, skill->n_tags, AMP_TAGS_MAX, label_rule}},
        {"examples", {skill->examples, skill->n_examples, EXAMPLES_MAX, description_rule}},
        {"inputModes", {skill->input_modes, skill->n_input_modes, MODES_MAX, label_rule}},
        {"outputModes", {skill->output_modes, skill->n_output_modes, MODES_MAX, label_rule}},
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        char path[PATH_SIZE];
        (void)snprintf(path, sizeof(path), "card.skills[%zu].%s", index, lists[i].name);
        enum amp_code code = texts_check(lists[i].texts, path, reterr);
        if (code != AMP_OK)
            return code;
    }
    return AMP_OK;
}

static enum amp_code skill_check(const Amp__AgentCard *card, size_t index, struct amp_error *reterr)
{
    const Amp__AgentSkill *skill = card->skills[index];
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "card.skills[%zu].id", index);
    enum amp_code code = id_check(skill->id, path, reterr);
    if (code != AMP_OK)
        return code;
    for (size_t i = 0; i < index; i++) {
        if (strcmp(card->skills[i]->id, skill->id) == 0)
            return amp_error_set(reterr, AMP_INVALID, path, "the skill '%s' stands here twice", skill->id);
    }
    (void)snprintf(path, sizeof(path), "card.skills[%zu].name", index);
    code = text_check(skill->name, (struct text_rule){.max = AMP_LABEL_MAX}, path, reterr);
    if (code != AMP_OK)
        return code;
    (void)snprintf(path, sizeof(path), "card.skills[%zu].description", index);
    code = text_check(skill->description, description_rule, path, reterr);
    return code == AMP_OK ? skill_lists_check(skill, index, reterr) : code;
}

enum amp_code amp_card_check(const Amp__AgentCard *card, struct amp_error *reterr)
{
    enum amp_code code = text_check(card->name, label_rule, "card.name", reterr);
    if (code == AMP_OK)
        code = text_check(card->description, description_rule, "card.description", reterr);
    if (code == AMP_OK)
        code = text_check(card->version, (struct text_rule){.min = 1, .max = VERSION_MAX}, "card.version", reterr);
    if (code == AMP_OK)
        code =
            texts_check((struct texts){card->default_input_modes, card->n_default_input_modes, MODES_MAX, label_rule},
                        "card.defaultInputModes", reterr);
    if (code == AMP_OK)
        code =
            texts_check((struct texts){card->default_output_modes, card->n_default_output_modes, MODES_MAX, label_rule},
                        "card.defaultOutputModes", reterr);
    if (code != AMP_OK)
        return code;
    if (card->n_skills > AMP_SKILLS_MAX)
        return amp_error_set(reterr, AMP_INVALID, "card.skills", "has %zu skills; at most %u are allowed",
                             card->n_skills, AMP_SKILLS_MAX);
    for (size_t i = 0; i < card->n_skills && code == AMP_OK; i++)
        code = skill_check(card, i, reterr);
    return code;
}

/* Sets *text to a copy of `value` if it has none. */
static bool text_default(char **text, const char *value, struct amp_arena *arena)
{
    if (*text && (*text)[0])
        return true;
    *text = amp_arena_strdup(arena, amp_bytes_of(value));
    return *text != NULL;
}

static bool list_default(char ***list, size_t *n, const char *value, struct amp_arena *arena)
{
    if (*n > 0)
        return true;
    char **made = amp_arena_alloc(arena, sizeof(*made));
    if (!made || !text_default(&made[0], value, arena))
        return false;
    *list = made;
    *n = 1;
    return true;
}

static bool skill_complete(Amp__AgentSkill *skill, const char *description, struct amp_arena *arena)
{
    char id[AMP_NAME_MAX + 1];
    amp_id_from_text(skill->name, id);
    return text_default(&skill->id, id, arena) && text_default(&skill->name, skill->id, arena) &&
           text_default(&skill->description, description ? description : skill->name, arena) &&
           list_default(&skill->tags, &skill->n_tags, skill->id, arena);
}

static bool skills_complete(Amp__AgentCard *card, struct amp_arena *arena)
{
    for (size_t i = 0; i < card->n_skills; i++) {
        if (!skill_complete(card->skills[i], NULL, arena))
            return false;
    }
    if (card->n_skills > 0)
        return true;
    Amp__AgentSkill **list = amp_arena_alloc(arena, sizeof(Amp__AgentSkill *));
    Amp__AgentSkill *skill = amp_arena_alloc(arena, sizeof(Amp__AgentSkill));
    if (!list || !skill)
        return false;
    amp__agent_skill__init(skill);
    skill->name = card->name;
    if (!skill_complete(skill, card->description, arena))
        return false;
    list[0] = skill;
    card->skills = list;
    card->n_skills = 1;
    return true;
}

static bool capabilities_complete(Amp__AgentCard *card, struct amp_arena *arena)
{
    if (!card->capabilities) {
        card->capabilities = amp_arena_alloc(arena, sizeof(*card->capabilities));
        if (!card->capabilities)
            return false;
        amp__agent_capabilities__init(card->capabilities);
    }
    if (!card->capabilities->has_streaming) {
        card->capabilities->has_streaming = true;
        card->capabilities->streaming = true;
    }
    return true;
}

enum amp_code amp_card_complete(Amp__AgentCard *card, const char *name, struct amp_arena *arena)
{
    bool is_done = text_default(&card->name, name, arena) && text_default(&card->description, card->name, arena) &&
                   text_default(&card->version, "0.0.0", arena) &&
                   list_default(&card->default_input_modes, &card->n_default_input_modes, "text/plain", arena) &&
                   list_default(&card->default_output_modes, &card->n_default_output_modes, "text/plain", arena) &&
                   capabilities_complete(card, arena) && skills_complete(card, arena);
    return is_done ? AMP_OK : AMP_NO_MEMORY;
}
