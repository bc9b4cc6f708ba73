/* YAML with libyaml, which reads JSON alike. Plain scalars are what YAML's JSON schema makes of them. */
#include "base/document.h"

#include "base/alloc.h"
#include "base/file.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct document {
    yaml_document_t yaml;
    cJSON *json;
    char *path;
};

struct reader {
    struct document *document;
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
        const yaml_node_t *key = yaml_document_get_node(&reader->document->yaml, pair->key);
        cJSON *value = to_json(reader, yaml_document_get_node(&reader->document->yaml, pair->value), depth + 1);
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
        cJSON *value = to_json(reader, yaml_document_get_node(&reader->document->yaml, *item), depth + 1);
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
    return yaml_parser_load(parser, &reader->document->yaml) ? AMP_OK : not_yaml(reader, parser);
}

enum amp_code document_read(const char *path, size_t max, struct document **ret, struct amp_error *reterr)
{
    struct amp_buf text;
    struct document *document = xcalloc(1, sizeof *document);
    struct reader reader = {.document = document, .path = path, .reterr = reterr};
    document->path = xstrdup(path);
    enum amp_code code = file_read(path, max, &text, reterr);
    if (code == AMP_OK)
        code = with_parser(&reader, amp_buf_bytes(&text), check_depth);
    if (code == AMP_OK)
        code = with_parser(&reader, amp_buf_bytes(&text), build);
    amp_buf_done(&text);
    if (code == AMP_OK) {
        document->json = to_json(&reader, yaml_document_get_root_node(&document->yaml), 0);
        code = document->json ? AMP_OK : reterr->code;
    }
    if (code != AMP_OK) {
        document_free(document);
        document = NULL;
    }
    *ret = document;
    return code;
}

void document_free(struct document *document)
{
    if (!document)
        return;
    cJSON_Delete(document->json);
    yaml_document_delete(&document->yaml); /* one that was never built is all zero, and nothing */
    free(document->path);
    free(document);
}

const cJSON *document_json(const struct document *document)
{
    return document->json;
}

void document_place(struct document *document, struct amp_error *err)
{
    const struct amp_error bare = *err;
    const yaml_node_t *node = node_at(&document->yaml, bare.field);
    amp_error_set(err, bare.code, bare.field, "%s:%zu: %s%s%s", document->path, node ? node->start_mark.line + 1 : 1, bare.field, *bare.field ? ": " : "", bare.message);
    amp_error_hint(err, "%s", bare.hint);
}
