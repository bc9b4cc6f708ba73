#include "mockllm/answer.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define CHARS_PER_TOKEN 4u
#define DIMENSIONS 256u
#define DIMENSIONS_MAX 4096u
#define INPUTS_MAX 2048

/* ---- what is said ------------------------------------------------------------------------------------------------ */

static uint32_t tokens_of(size_t n_chars)
{
    return (uint32_t)((n_chars + CHARS_PER_TOKEN - 1) / CHARS_PER_TOKEN);
}

static void fill_tree(cJSON *tree, const struct mock_making *making)
{
    cJSON *member;
    if (cJSON_IsString(tree)) {
        char *text = mock_fill(tree->valuestring, making->ask, making->groups);
        cJSON_SetValuestring(tree, text);
        free(text);
    }
    cJSON_ArrayForEach(member, tree)
        fill_tree(member, making);
}

static char *arguments_of(const cJSON *call, const struct mock_making *making)
{
    const cJSON *arguments = cJSON_GetObjectItemCaseSensitive(call, "arguments");
    if (cJSON_IsString(arguments))
        return mock_fill(arguments->valuestring, making->ask, making->groups);
    cJSON *filled = arguments ? cJSON_Duplicate(arguments, true) : cJSON_CreateObject();
    fill_tree(filled, making);
    char *printed = cJSON_PrintUnformatted(filled), *text = xstrdup(printed);
    cJSON_free(printed);
    cJSON_Delete(filled);
    return text;
}

static void add_call(cJSON *calls, const cJSON *call, const struct mock_making *making)
{
    cJSON *made = cJSON_CreateObject();
    char *name = mock_fill(cJSON_GetObjectItemCaseSensitive(call, "name")->valuestring, making->ask, making->groups), *arguments = arguments_of(call, making);
    char *id = xasprintf("call_%lu_%d", making->number, cJSON_GetArraySize(calls) + 1);
    cJSON_AddStringToObject(made, "id", id);
    cJSON_AddStringToObject(made, "name", name);
    cJSON_AddStringToObject(made, "arguments", arguments);
    cJSON_AddItemToArray(calls, made);
    free(id);
    free(name);
    free(arguments);
}

static uint32_t usage_of(const struct mock_rule *rule, const char *name, size_t n_chars)
{
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(rule->usage, name);
    return given ? (uint32_t)given->valuedouble : tokens_of(n_chars);
}

void mock_content_make(const struct mock_making *making, struct mock_content *ret)
{
    const struct mock_rule *rule = making->rule;
    const cJSON *call;
    size_t n_chars = 0;
    *ret = (struct mock_content){.finish = rule->finish ? rule->finish : rule->call ? "tool_calls" : "stop"};
    ret->say = rule->say ? mock_fill(rule->say, making->ask, making->groups) : NULL;
    ret->think = rule->think ? mock_fill(rule->think, making->ask, making->groups) : NULL;
    ret->calls = rule->call ? cJSON_CreateArray() : NULL;
    if (cJSON_IsObject(rule->call))
        add_call(ret->calls, rule->call, making);
    else
        cJSON_ArrayForEach(call, rule->call)
            add_call(ret->calls, call, making);
    n_chars += ret->say ? strlen(ret->say) : 0;
    n_chars += ret->think ? strlen(ret->think) : 0;
    cJSON_ArrayForEach(call, ret->calls)
        n_chars += strlen(cJSON_GetObjectItemCaseSensitive(call, "arguments")->valuestring);
    ret->n_in = usage_of(rule, "in", making->ask->n_chars);
    ret->n_out = usage_of(rule, "out", n_chars);
}

void mock_content_done(struct mock_content *content)
{
    free(content->say);
    free(content->think);
    cJSON_Delete(content->calls);
}

size_t mock_piece(const struct mock_rule *rule, const char *text)
{
    size_t len = strlen(text);
    if (rule->chunk == 0) {
        size_t word = strcspn(text, " \n");
        return word + strspn(text + word, " \n");
    }
    size_t piece = amp_utf8_cut((struct amp_bytes){(const uint8_t *)text, len}, rule->chunk);
    while (piece == 0 || (piece < len && ((unsigned char)text[piece] & 0xC0) == 0x80))
        piece++; /* a character that is longer than a piece */
    return piece < len ? piece : len;
}

void mock_answer_add(struct mock_answer *answer, bool is_piece, char *text)
{
    if (answer->n_frames == answer->cap) {
        answer->cap = answer->cap ? 2 * answer->cap : 16;
        answer->frames = xrealloc(answer->frames, answer->cap * sizeof *answer->frames);
    }
    struct mock_frame *frame = &answer->frames[answer->n_frames++];
    frame->text = text;
    frame->is_piece = is_piece;
    answer->n_pieces += is_piece;
}

void mock_answer_done(struct mock_answer *answer)
{
    for (size_t i = 0; i < answer->n_frames; i++)
        free(answer->frames[i].text);
    free(answer->frames);
    free(answer->body);
    cJSON_Delete(answer->output);
    *answer = (struct mock_answer){0};
}

/* ---- embeddings -------------------------------------------------------------------------------------------------- */

static void add_word(const char *word, size_t len, float *vector, uint32_t dimensions)
{
    static const unsigned char key[crypto_shorthash_KEYBYTES];
    unsigned char small[64];
    uint64_t hash;
    len = len < sizeof small ? len : sizeof small;
    for (size_t i = 0; i < len; i++)
        small[i] = word[i] >= 'A' && word[i] <= 'Z' ? (unsigned char)(word[i] + 32) : (unsigned char)word[i];
    crypto_shorthash((unsigned char *)&hash, small, len, key);
    vector[hash % dimensions] += hash >> 63 ? 1.0F : -1.0F;
}

static void embed(const char *text, float *vector, uint32_t dimensions)
{
    static const char *const gaps = " \t\r\n.,;:!?\"'()[]{}";
    float length = 0;
    for (const char *at = text + strspn(text, gaps); *at;) {
        size_t len = strcspn(at, gaps);
        add_word(at, len, vector, dimensions);
        at += len;
        at += strspn(at, gaps);
    }
    for (uint32_t i = 0; i < dimensions; i++)
        length += vector[i] * vector[i];
    if (length == 0)
        vector[0] = length = 1;
    for (uint32_t i = 0; i < dimensions; i++)
        vector[i] /= sqrtf(length);
}

static cJSON *vector_json(const float *vector, uint32_t dimensions, bool is_base64)
{
    if (!is_base64)
        return cJSON_CreateFloatArray(vector, (int)dimensions);
    size_t size = sodium_base64_ENCODED_LEN(dimensions * sizeof *vector, sodium_base64_VARIANT_ORIGINAL);
    char *text = xcalloc(1, size);
    sodium_bin2base64(text, size, (const unsigned char *)vector, dimensions * sizeof *vector, sodium_base64_VARIANT_ORIGINAL);
    cJSON *json = cJSON_CreateString(text);
    free(text);
    return json;
}

static void add_embedding(cJSON *data, const cJSON *input, uint32_t dimensions, bool is_base64)
{
    cJSON *one = cJSON_CreateObject();
    char *printed = cJSON_IsString(input) ? NULL : cJSON_PrintUnformatted(input); /* numbers of tokens */
    float *vector = xcalloc(dimensions, sizeof *vector);
    embed(printed ? printed : input->valuestring, vector, dimensions);
    cJSON_AddStringToObject(one, "object", "embedding");
    cJSON_AddNumberToObject(one, "index", cJSON_GetArraySize(data));
    cJSON_AddItemToObject(one, "embedding", vector_json(vector, dimensions, is_base64));
    cJSON_AddItemToArray(data, one);
    free(vector);
    cJSON_free(printed);
}

char *mock_answer_embeddings(const struct mock_ask *ask, const cJSON *body, struct amp_error *reterr)
{
    const cJSON *input = cJSON_GetObjectItemCaseSensitive(body, "input"), *wanted = cJSON_GetObjectItemCaseSensitive(body, "dimensions"), *text;
    const cJSON *encoding = cJSON_GetObjectItemCaseSensitive(body, "encoding_format");
    bool is_base64 = cJSON_IsString(encoding) && strcmp(encoding->valuestring, "base64") == 0, is_one = !cJSON_IsArray(input) || cJSON_IsNumber(input->child);
    if (wanted && (!cJSON_IsNumber(wanted) || wanted->valuedouble < 1 || wanted->valuedouble > DIMENSIONS_MAX)) {
        amp_error_set(reterr, AMP_INVALID, "dimensions", "dimensions: 1 to %u", DIMENSIONS_MAX);
        return NULL;
    }
    if (!is_one && cJSON_GetArraySize(input) > INPUTS_MAX) {
        amp_error_set(reterr, AMP_INVALID, "input", "input: at most %d texts", INPUTS_MAX);
        return NULL;
    }
    uint32_t dimensions = wanted ? (uint32_t)wanted->valuedouble : DIMENSIONS;
    cJSON *answer = cJSON_CreateObject(), *data = cJSON_CreateArray(), *usage = cJSON_CreateObject();
    if (is_one)
        add_embedding(data, input, dimensions, is_base64);
    else
        cJSON_ArrayForEach(text, input)
            add_embedding(data, text, dimensions, is_base64);
    cJSON_AddStringToObject(answer, "object", "list");
    cJSON_AddStringToObject(answer, "model", ask->model);
    cJSON_AddItemToObject(answer, "data", data);
    cJSON_AddNumberToObject(usage, "prompt_tokens", tokens_of(ask->n_chars));
    cJSON_AddNumberToObject(usage, "total_tokens", tokens_of(ask->n_chars));
    cJSON_AddItemToObject(answer, "usage", usage);
    char *printed = cJSON_PrintUnformatted(answer), *made = xstrdup(printed);
    cJSON_free(printed);
    cJSON_Delete(answer);
    return made;
}
