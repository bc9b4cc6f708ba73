/* YAML → JSON text → the same mapper and the same checks as a card from the wire. JSON is YAML, so both are read alike. */
#include "run_card.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"

#define CARD_FILE_MAX (1u << 20)

struct reader {
    yaml_document_t document;
    const char *path;
    unsigned nodes;
    struct amp_error *reterr;
};

static cJSON *to_json(struct reader *reader, const yaml_node_t *node, unsigned depth);

/* NULL: *reterr. */
static cJSON *scalar(struct reader *reader, const yaml_node_t *node)
{
    if (strlen((const char *)node->data.scalar.value) != node->data.scalar.length) {
        amp_error_set(reader->reterr, AMP_INVALID, "", "%s:%zu: a text has a NUL in it", reader->path, node->start_mark.line + 1);
        return NULL;
    }
    const char *text = (const char *)node->data.scalar.value;
    if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
        char *end;
        double number = strtod(text, &end);
        if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
            return cJSON_CreateBool(text[0] == 't');
        if (strcmp(text, "null") == 0 || strcmp(text, "~") == 0 || !*text)
            return cJSON_CreateNull();
        if (*end == '\0' && strspn(text, "0123456789+-.eE") == strlen(text) && strchr(text, '.') == strrchr(text, '.') && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9')))
            return cJSON_CreateNumber(number);
    }
    return cJSON_CreateString(text);
}

static cJSON *mapping(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    cJSON *object = cJSON_CreateObject();
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(&reader->document, pair->key);
        cJSON *value = to_json(reader, yaml_document_get_node(&reader->document, pair->value), depth + 1);
        if (!value || key->type != YAML_SCALAR_NODE || cJSON_GetObjectItemCaseSensitive(object, (const char *)key->data.scalar.value)) {
            if (value)
                amp_error_set(reader->reterr, AMP_MALFORMED, "", "%s:%zu: a key must be text and stand once", reader->path, key->start_mark.line + 1);
            cJSON_Delete(value);
            cJSON_Delete(object);
            return NULL;
        }
        cJSON_AddItemToObject(object, (const char *)key->data.scalar.value, value);
    }
    return object;
}

static cJSON *sequence(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    cJSON *array = cJSON_CreateArray();
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        cJSON *value = to_json(reader, yaml_document_get_node(&reader->document, *item), depth + 1);
        if (!value) {
            cJSON_Delete(array);
            return NULL;
        }
        cJSON_AddItemToArray(array, value);
    }
    return array;
}

/* Aliases can make a small file large: nodes are counted as they are visited. */
static cJSON *to_json(struct reader *reader, const yaml_node_t *node, unsigned depth)
{
    if (!node && depth == 0) {
        amp_error_set(reader->reterr, AMP_MALFORMED, "", "%s: the file is empty", reader->path);
        return NULL;
    }
    if (!node || depth > AMP_DEPTH_MAX || ++reader->nodes > 16 * AMP_MEMBERS_MAX) {
        amp_error_set(reader->reterr, AMP_TOO_DEEP, "", "%s: nested too deep, or too many values", reader->path);
        return NULL;
    }
    switch (node->type) {
    case YAML_SCALAR_NODE: return scalar(reader, node);
    case YAML_MAPPING_NODE: return mapping(reader, node, depth);
    case YAML_SEQUENCE_NODE: return sequence(reader, node, depth);
    default: return cJSON_CreateNull();
    }
}

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

/* The node at "skills[2].id", or the last one on the way there. */
static const yaml_node_t *node_at(yaml_document_t *document, const char *field)
{
    const yaml_node_t *node = yaml_document_get_root_node(document);
    while (node && *field) {
        const yaml_node_t *next = NULL;
        if (*field == '[' && node->type == YAML_SEQUENCE_NODE) {
            char *end;
            size_t index = strtoul(field + 1, &end, 10);
            if (index < (size_t)(node->data.sequence.items.top - node->data.sequence.items.start))
                next = yaml_document_get_node(document, node->data.sequence.items.start[index]);
            field = end + (*end == ']');
        } else if (node->type == YAML_MAPPING_NODE) {
            size_t len = strcspn(field, ".[");
            for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
                const yaml_node_t *key = yaml_document_get_node(document, pair->key);
                if (key->type == YAML_SCALAR_NODE && key->data.scalar.length == len && memcmp(key->data.scalar.value, field, len) == 0)
                    next = yaml_document_get_node(document, pair->value);
            }
            field += len;
        }
        if (!next)
            break;
        field += *field == '.';
        node = next;
    }
    return node;
}

/* "card.yaml:7: skills[0].id: …" instead of the bare reason. */
static void place(struct reader *reader, struct amp_error *err)
{
    const struct amp_error bare = *err;
    const char *field = strncmp(bare.field, "card.", 5) == 0 ? bare.field + 5 : bare.field;
    const yaml_node_t *node = node_at(&reader->document, field);
    amp_error_set(err, bare.code, field, "%s:%zu: %s%s%s", reader->path, node ? node->start_mark.line + 1 : 1, field, *field ? ": " : "", bare.message);
    amp_error_hint(err, "%s", bare.hint);
}

static enum amp_code not_yaml(const struct reader *reader, const yaml_parser_t *parser)
{
    return amp_error_set(reader->reterr, AMP_MALFORMED, "", "%s:%zu: %s", reader->path, parser->problem_mark.line + 1, parser->problem ? parser->problem : "not YAML");
}

/* Before the document is built: the parser's work on a deep one grows with the square of its depth. */
static enum amp_code check_depth(struct reader *reader, yaml_parser_t *parser)
{
    unsigned depth = 0;
    for (bool is_over = false; !is_over;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event))
            return not_yaml(reader, parser);
        depth += event.type == YAML_SEQUENCE_START_EVENT || event.type == YAML_MAPPING_START_EVENT;
        depth -= event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT;
        is_over = event.type == YAML_STREAM_END_EVENT;
        size_t line = event.start_mark.line + 1;
        yaml_event_delete(&event);
        if (depth > AMP_DEPTH_MAX)
            return amp_error_set(reader->reterr, AMP_TOO_DEEP, "", "%s:%zu: nested deeper than %u", reader->path, line, AMP_DEPTH_MAX);
    }
    return AMP_OK;
}

static enum amp_code with_parser(struct reader *reader, struct amp_bytes text, enum amp_code (*use)(struct reader *reader, yaml_parser_t *parser))
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return amp_error_set(reader->reterr, AMP_NO_MEMORY, "", "%s: out of memory", reader->path);
    yaml_parser_set_input_string(&parser, text.len ? text.data : (const unsigned char *)"", text.len);
    enum amp_code code = use(reader, &parser);
    yaml_parser_delete(&parser);
    return code;
}

static enum amp_code build(struct reader *reader, yaml_parser_t *parser)
{
    return yaml_parser_load(parser, &reader->document) ? AMP_OK : not_yaml(reader, parser);
}

/* The document is to be deleted after AMP_OK. */
static enum amp_code load(const char *path, struct reader *reader)
{
    struct amp_buf text;
    enum amp_code code = file_read(path, CARD_FILE_MAX, &text, reader->reterr);
    if (code == AMP_OK)
        code = with_parser(reader, amp_buf_bytes(&text), check_depth);
    if (code == AMP_OK)
        code = with_parser(reader, amp_buf_bytes(&text), build);
    amp_buf_done(&text);
    return code;
}

enum amp_code run_card_read(const char *path, struct amp_arena *arena, Amp__AgentCard **ret, struct amp_error *reterr)
{
    struct reader reader = {.path = path, .reterr = reterr};
    enum amp_code code = load(path, &reader);
    if (code != AMP_OK)
        return code;
    cJSON *json = to_json(&reader, yaml_document_get_root_node(&reader.document), 0);
    code = json ? map_card(json, arena, ret, reterr) : reterr->code;
    if (json && code != AMP_OK)
        place(&reader, reterr);
    cJSON_Delete(json);
    yaml_document_delete(&reader.document);
    return code;
}

void run_card_place(const char *path, struct amp_error *err)
{
    struct amp_error ignored;
    struct reader reader = {.path = path, .reterr = &ignored};
    if (load(path, &reader) != AMP_OK)
        return;
    place(&reader, err);
    yaml_document_delete(&reader.document);
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
