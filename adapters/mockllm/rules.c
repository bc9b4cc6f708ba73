#include "mockllm/rules.h"

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/command.h"
#include "base/document.h"

#define FILE_MAX (4u << 20)
#define FILLED_MAX (16u << 20)

const char *const mock_api_names[] = {"chat", "responses", "embeddings", NULL};

/* ---- the file ------------------------------------------------------------------------------------------------ */

enum kind { TEXT, NUMBER, COUNT, DURATION, EXPRESSION, API, FINISH, CALL, FAIL, USAGE, WHEN };

struct member {
    const char *name;
    enum kind kind;
    size_t offset;
};

struct place { /* where in the file */
    char path[40];
    struct amp_error *reterr;
};

#define AT(member) offsetof(struct mock_rule, member)
static const struct member when_members[] = {
    {"api", API, AT(api)},          {"model", EXPRESSION, AT(model)}, {"result", EXPRESSION, AT(result)}, {"system", EXPRESSION, AT(system)},
    {"tool", EXPRESSION, AT(tool)}, {"turn", NUMBER, AT(turn)},       {"user", EXPRESSION, AT(user)},     {0},
};
static const struct member rule_members[] = {
    {"call", CALL, AT(call)},   {"chunk", NUMBER, AT(chunk)}, {"cut", COUNT, AT(cut)},       {"delay", DURATION, AT(delay_ms)}, {"fail", FAIL, AT(fail)},   {"finish", FINISH, AT(finish)}, {"name", TEXT, AT(name)},
    {"pace", DURATION, AT(pace_ms)}, {"say", TEXT, AT(say)},  {"stall", COUNT, AT(stall)},   {"think", TEXT, AT(think)},        {"times", NUMBER, AT(times)}, {"usage", USAGE, AT(usage)},   {"when", WHEN, 0},
    {0},
};

static const char *const finishes[] = {"stop", "length", "content_filter", "tool_calls", NULL};

static enum amp_code refuse(const struct place *place, const char *name, const char *what)
{
    char field[sizeof place->reterr->field];
    snprintf(field, sizeof field, "%s%s%.40s", place->path, *place->path && *name ? "." : "", name);
    return amp_error_set(place->reterr, AMP_INVALID, field, "%s", what);
}

static enum amp_code refuse_member(const struct place *place, const char *name, const struct member *members)
{
    const char *names[16];
    size_t count = 0;
    while (members[count].name) {
        names[count] = members[count].name;
        count++;
    }
    enum amp_code code = refuse(place, name, members == when_members ? "`when` has no such member" : "a rule has no such member");
    const char *guess = command_guess(name, names, count);
    if (guess)
        amp_error_hint(place->reterr, "did you mean %s?", guess);
    return code;
}

static bool is_one_of(const char *text, const char *const *words)
{
    while (*words && strcmp(*words, text) != 0)
        words++;
    return *words;
}

static bool is_uint(const cJSON *value)
{
    return cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble <= 1e9 && value->valuedouble == (double)(uint32_t)value->valuedouble;
}

static enum amp_code check_call(const cJSON *call, const struct place *place)
{
    const cJSON *arguments = cJSON_GetObjectItemCaseSensitive(call, "arguments");
    if (!cJSON_IsString(cJSON_GetObjectItemCaseSensitive(call, "name")))
        return refuse(place, "call", "each call is a mapping with the name of a tool, and its arguments");
    if (arguments && !cJSON_IsObject(arguments) && !cJSON_IsString(arguments))
        return refuse(place, "call", "arguments are a mapping, or a text that is sent as it stands");
    return AMP_OK;
}

static enum amp_code check_calls(const cJSON *value, const struct place *place)
{
    const cJSON *call;
    enum amp_code code = AMP_OK;
    if (!cJSON_IsArray(value))
        return check_call(value, place);
    cJSON_ArrayForEach(call, value)
        code = code == AMP_OK ? check_call(call, place) : code;
    return code;
}

static enum amp_code check_fail(const cJSON *value, const struct place *place)
{
    const cJSON *status = cJSON_GetObjectItemCaseSensitive(value, "status");
    if (!is_uint(status) || status->valueint < 400 || status->valueint > 599)
        return refuse(place, "fail", "a failure is a mapping with a status from 400 to 599, and may have message, type, code and retryAfter (seconds)");
    return AMP_OK;
}

static enum amp_code check_usage(const cJSON *value, const struct place *place)
{
    if (!is_uint(cJSON_GetObjectItemCaseSensitive(value, "in")) || !is_uint(cJSON_GetObjectItemCaseSensitive(value, "out")))
        return refuse(place, "usage", "usage is a mapping of in and out, numbers of tokens");
    return AMP_OK;
}

static enum amp_code read_expression(const cJSON *value, const struct place *place, regex_t **ret)
{
    char why[128];
    if (!cJSON_IsString(value))
        return refuse(place, value->string, "an extended regular expression is wanted here, as a text");
    regex_t *made = xcalloc(1, sizeof *made);
    int lines = strcmp(value->string, "tool") == 0 ? REG_NEWLINE : 0; /* a name each */
    int status = regcomp(made, value->valuestring, REG_EXTENDED | lines);
    if (status == 0) {
        *ret = made;
        return AMP_OK;
    }
    regerror(status, made, why, sizeof why);
    free(made);
    return refuse(place, value->string, why);
}

static enum amp_code read_duration(const cJSON *value, const struct place *place, uint32_t *ret)
{
    char number[32];
    unsigned ms;
    if (cJSON_IsNumber(value))
        snprintf(number, sizeof number, "%.6g", value->valuedouble);
    if ((!cJSON_IsNumber(value) && !cJSON_IsString(value)) || !command_duration_ms(cJSON_IsNumber(value) ? number : value->valuestring, &ms))
        return refuse(place, value->string, "a duration is wanted here, such as 200ms or 1.5s");
    *ret = ms;
    return AMP_OK;
}

static enum amp_code read_text(const cJSON *value, const struct place *place, const char *const *words, char **ret)
{
    if (!cJSON_IsString(value))
        return refuse(place, value->string, "a text is wanted here; put it in quotes");
    if (words && !is_one_of(value->valuestring, words))
        return refuse(place, value->string, words == finishes ? "a finish is stop, length, content_filter or tool_calls" : "an api is chat, responses or embeddings");
    *ret = xstrdup(value->valuestring);
    return AMP_OK;
}

static enum amp_code read_number(const cJSON *value, const struct place *place, uint32_t *ret)
{
    if (!is_uint(value) || value->valuedouble == 0)
        return refuse(place, value->string, "a whole number above 0 is wanted here");
    *ret = (uint32_t)value->valuedouble;
    return AMP_OK;
}

/* One more than it says. */
static enum amp_code read_count(const cJSON *value, const struct place *place, uint32_t *ret)
{
    if (!is_uint(value))
        return refuse(place, value->string, "a whole number is wanted here: of the pieces before it");
    *ret = (uint32_t)value->valuedouble + 1;
    return AMP_OK;
}

static enum amp_code read_members(const cJSON *object, const struct member *members, const struct place *place, struct mock_rule *rule);

static enum amp_code read_tree(const cJSON *value, enum amp_code (*check)(const cJSON *, const struct place *), const struct place *place, const cJSON **ret)
{
    *ret = value;
    return check(value, place);
}

static enum amp_code read_member(const cJSON *value, const struct member *member, const struct place *place, struct mock_rule *rule)
{
    void *at = (char *)rule + member->offset;
    switch (member->kind) {
    case TEXT: return read_text(value, place, NULL, at);
    case API: return read_text(value, place, mock_api_names, at);
    case FINISH: return read_text(value, place, finishes, at);
    case NUMBER: return read_number(value, place, at);
    case COUNT: return read_count(value, place, at);
    case DURATION: return read_duration(value, place, at);
    case EXPRESSION: return read_expression(value, place, at);
    case CALL: return read_tree(value, check_calls, place, at);
    case FAIL: return read_tree(value, check_fail, place, at);
    case USAGE: return read_tree(value, check_usage, place, at);
    default: break;
    }
    struct place within = *place;
    snprintf(within.path + strlen(within.path), sizeof within.path - strlen(within.path), ".when");
    return read_members(value, when_members, &within, rule);
}

static enum amp_code read_members(const cJSON *object, const struct member *members, const struct place *place, struct mock_rule *rule)
{
    const cJSON *value;
    if (!cJSON_IsObject(object))
        return refuse(place, "", "a mapping is wanted here");
    cJSON_ArrayForEach(value, object)
    {
        const struct member *member = members;
        while (member->name && strcmp(member->name, value->string) != 0)
            member++;
        enum amp_code code = member->name ? read_member(value, member, place, rule) : refuse_member(place, value->string, members);
        if (code != AMP_OK)
            return code;
    }
    return AMP_OK;
}

static enum amp_code read_rule(const cJSON *object, size_t i, struct mock_rule *rule, struct amp_error *reterr)
{
    struct place place = {.reterr = reterr};
    snprintf(place.path, sizeof place.path, "rules[%zu]", i);
    enum amp_code code = read_members(object, rule_members, &place, rule);
    if (code != AMP_OK)
        return code;
    if (!rule->say && !rule->call && !rule->fail && !rule->stall && !rule->think)
        return refuse(&place, "", "a rule says, calls, thinks, fails or stalls");
    if (rule->fail && (rule->say || rule->call || rule->think))
        return refuse(&place, "fail", "a rule that fails says, calls and thinks nothing");
    if (rule->api && strcmp(rule->api, mock_api_names[MOCK_EMBEDDINGS]) == 0 && !rule->fail && !rule->stall)
        return refuse(&place, "", "embeddings are computed: a rule for them fails or stalls");
    return AMP_OK;
}

static enum amp_code check_models(const cJSON *models, struct amp_error *reterr)
{
    const cJSON *model;
    const struct place place = {.reterr = reterr};
    bool is_good = cJSON_IsArray(models) && cJSON_GetArraySize(models) > 0;
    cJSON_ArrayForEach(model, models)
        is_good &= cJSON_IsString(model);
    return is_good ? AMP_OK : refuse(&place, "models", "models is a list of names");
}

static enum amp_code read_all(const cJSON *json, struct mock_rules *ret, struct amp_error *reterr)
{
    const cJSON *member, *rules = cJSON_GetObjectItemCaseSensitive(json, "rules");
    const struct place place = {.reterr = reterr};
    if (!cJSON_IsArray(rules) || cJSON_GetArraySize(rules) == 0)
        return refuse(&place, "rules", "the file is a mapping with a list of rules");
    cJSON_ArrayForEach(member, json)
    {
        if (strcmp(member->string, "rules") != 0 && strcmp(member->string, "models") != 0)
            return refuse(&place, member->string, "the file has no such member: it has rules and models");
    }
    ret->models = cJSON_GetObjectItemCaseSensitive(json, "models");
    enum amp_code code = ret->models ? check_models(ret->models, reterr) : AMP_OK;
    ret->rules = xcalloc((size_t)cJSON_GetArraySize(rules), sizeof *ret->rules);
    cJSON_ArrayForEach(member, rules)
    {
        if (code == AMP_OK) {
            code = read_rule(member, ret->count, &ret->rules[ret->count], reterr);
            ret->count++;
        }
    }
    return code;
}

enum amp_code mock_rules_read(const char *path, struct mock_rules *ret, struct amp_error *reterr)
{
    *ret = (struct mock_rules){0};
    enum amp_code code = document_read(path, FILE_MAX, &ret->document, reterr);
    if (code != AMP_OK)
        return code;
    code = read_all(document_json(ret->document), ret, reterr);
    if (code != AMP_OK)
        document_place(ret->document, reterr);
    return code;
}

static void expression_free(regex_t *expression)
{
    if (expression)
        regfree(expression);
    free(expression);
}

void mock_rules_done(struct mock_rules *rules)
{
    for (size_t i = 0; i < rules->count; i++) {
        struct mock_rule *rule = &rules->rules[i];
        regex_t *const expressions[] = {rule->system, rule->user, rule->model, rule->tool, rule->result};
        for (size_t j = 0; j < sizeof expressions / sizeof *expressions; j++)
            expression_free(expressions[j]);
        free(rule->name);
        free(rule->api);
        free(rule->say);
        free(rule->think);
        free(rule->finish);
    }
    free(rules->rules);
    document_free(rules->document);
    *rules = (struct mock_rules){0};
}

/* ---- which one ------------------------------------------------------------------------------------------------ */

static bool fits(const regex_t *expression, const char *text)
{
    return !expression || regexec(expression, text, 0, NULL, 0) == 0;
}

static bool has_condition(const struct mock_rule *rule)
{
    return rule->system || rule->user || rule->model || rule->turn || rule->api;
}

/* Any of the lines, whole or in part. */
static bool fits_tool(const struct mock_rule *rule, const struct mock_ask *ask)
{
    if (!*ask->tool)
        return !rule->tool && !rule->result;
    /* Else a rule that calls a tool when the user says so would call it again when it has answered. */
    if (!rule->tool && !rule->result)
        return !has_condition(rule) && !rule->call;
    return fits(rule->tool, ask->tool) && fits(rule->result, ask->result);
}

static bool fits_api(const struct mock_rule *rule, enum mock_api api)
{
    return rule->api ? strcmp(rule->api, mock_api_names[api]) == 0 : api != MOCK_EMBEDDINGS;
}

static bool rule_fits(const struct mock_rule *rule, const struct mock_ask *ask)
{
    return (rule->times == 0 || rule->used < rule->times) && (rule->turn == 0 || rule->turn == ask->turn) && fits_api(rule, ask->api) && fits_tool(rule, ask) && fits(rule->model, ask->model) &&
           fits(rule->system, ask->system) && fits(rule->user, ask->user);
}

static void catch_groups(const struct mock_rule *rule, const struct mock_ask *ask, char *ret[MOCK_GROUPS])
{
    const struct {
        const regex_t *expression;
        const char *text;
    } all[] = {{rule->user, ask->user}, {rule->result, ask->result}, {rule->system, ask->system}};
    regmatch_t found[MOCK_GROUPS];
    size_t at = 0;
    while (at < 2 && (!all[at].expression || all[at].expression->re_nsub == 0))
        at++;
    if (!all[at].expression || regexec(all[at].expression, all[at].text, MOCK_GROUPS, found, 0) != 0)
        return;
    for (size_t i = 0; i < MOCK_GROUPS; i++) {
        if (found[i].rm_so >= 0)
            ret[i] = xstrndup(all[at].text + found[i].rm_so, (size_t)(found[i].rm_eo - found[i].rm_so));
    }
}

struct mock_rule *mock_rules_find(struct mock_rules *rules, const struct mock_ask *ask, char *ret_groups[MOCK_GROUPS])
{
    memset(ret_groups, 0, MOCK_GROUPS * sizeof *ret_groups);
    for (size_t i = 0; i < rules->count; i++) {
        struct mock_rule *rule = &rules->rules[i];
        if (rule_fits(rule, ask)) {
            catch_groups(rule, ask, ret_groups);
            rule->used++;
            return rule;
        }
    }
    return NULL;
}

void mock_groups_done(char *groups[MOCK_GROUPS])
{
    for (size_t i = 0; i < MOCK_GROUPS; i++)
        free(groups[i]);
}

bool mock_rules_has_model(const struct mock_rules *rules, const char *model)
{
    const cJSON *name;
    cJSON_ArrayForEach(name, rules->models)
    {
        if (strcmp(name->valuestring, model) == 0)
            return true;
    }
    return !rules->models;
}

/* ---- texts ---------------------------------------------------------------------------------------------------- */

/* What stands for {{name}}; NULL: nothing does, and it stays as it is. */
static const char *value_of(const char *name, size_t len, const struct mock_ask *ask, char *const groups[MOCK_GROUPS])
{
    const struct {
        const char *name, *value;
    } values[] = {{"user", ask->user}, {"system", ask->system}, {"tool", ask->tool}, {"result", ask->result}, {"model", ask->model}};
    if (len == 1 && name[0] >= '0' && name[0] <= '9')
        return groups[name[0] - '0'] ? groups[name[0] - '0'] : "";
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        if (strlen(values[i].name) == len && memcmp(values[i].name, name, len) == 0)
            return values[i].value;
    }
    return NULL;
}

char *mock_fill(const char *text, const struct mock_ask *ask, char *const groups[MOCK_GROUPS])
{
    struct amp_buf out;
    char turn[16];
    amp_buf_init(&out, FILLED_MAX);
    snprintf(turn, sizeof turn, "%u", ask->turn);
    while (*text) {
        const char *open = strstr(text, "{{"), *close = open ? strstr(open, "}}") : NULL;
        if (!close) {
            amp_buf_append(&out, text, strlen(text));
            break;
        }
        size_t len = (size_t)(close - open) - 2;
        const char *value = len == 4 && memcmp(open + 2, "turn", 4) == 0 ? turn : value_of(open + 2, len, ask, groups);
        amp_buf_append(&out, text, (size_t)(open - text));
        if (value)
            amp_buf_append(&out, value, strlen(value));
        else
            amp_buf_append(&out, open, len + 4);
        text = close + 2;
    }
    char *filled = out.len ? xstrndup((const char *)out.data, out.len) : xstrdup("");
    amp_buf_done(&out);
    return filled;
}

void mock_ask_done(struct mock_ask *ask)
{
    free(ask->model);
    free(ask->system);
    free(ask->user);
    free(ask->tool);
    free(ask->result);
}
