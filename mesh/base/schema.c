#include "base/schema.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 160u /* bytes of what an error lists */

struct where { /* a place in a schema or value, innermost first; made into a text only for an error */
    const struct where *up;
    const char *name;
    int index; /* -1: `name` counts */
};

static void where_append(const struct where *where, char *ret, size_t size)
{
    size_t len;
    if (where->up)
        where_append(where->up, ret, size);
    len = strlen(ret);
    if (!where->up)
        (void)snprintf(ret, size, "%s", where->name);
    else if (where->index >= 0)
        (void)snprintf(ret + len, size - len, "[%d]", where->index);
    else
        (void)snprintf(ret + len, size - len, ".%.64s", where->name);
}

static enum amp_code wrong(struct amp_error *err, enum amp_code code, const struct where *where, const char *text)
{
    char field[200] = "";
    where_append(where, field, sizeof field);
    (void)amp_error_set(err, code, field, "%s: %s", field, text);
    return code;
}

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

/* ---- types ------------------------------------------------------------------------------------------------------ */

static bool is_integer(const cJSON *value)
{
    return cJSON_IsNumber(value) && floor(value->valuedouble) == value->valuedouble;
}

static bool is_bool(const cJSON *value) { return cJSON_IsBool(value); }
static bool is_null(const cJSON *value) { return cJSON_IsNull(value); }
static bool is_number(const cJSON *value) { return cJSON_IsNumber(value); }
static bool is_string(const cJSON *value) { return cJSON_IsString(value); }
static bool is_array(const cJSON *value) { return cJSON_IsArray(value); }
static bool is_object(const cJSON *value) { return cJSON_IsObject(value); }

static const struct {
    const char *name, *text;
    bool (*is)(const cJSON *value);
} kinds[] = {
    {"string", "a string", is_string},   {"integer", "an integer", is_integer}, {"number", "a number", is_number}, {"boolean", "a boolean", is_bool},
    {"array", "an array", is_array},     {"object", "an object", is_object},    {"null", "null", is_null},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static size_t kind_of(const char *name)
{
    size_t i = 0;
    while (i < KINDS && strcmp(kinds[i].name, name) != 0)
        i++;
    return i;
}

static const char *text_of(const cJSON *value)
{
    for (size_t i = 0; i < KINDS; i++)
        if (kinds[i].is(value))
            return kinds[i].text;
    return "nothing";
}

static bool has_type(const cJSON *type, const cJSON *value)
{
    const cJSON *each;
    if (cJSON_IsString(type))
        return kinds[kind_of(type->valuestring)].is(value);
    cJSON_ArrayForEach(each, type) if (kinds[kind_of(each->valuestring)].is(value)) return true;
    return false;
}

bool schema_allows(const struct cJSON *schema, const char *name)
{
    const cJSON *type = member(schema, "type"), *each;
    if (!type)
        return true;
    if (cJSON_IsString(type))
        return strcmp(type->valuestring, name) == 0;
    cJSON_ArrayForEach(each, type) if (strcmp(each->valuestring, name) == 0) return true;
    return false;
}

/* ---- is it a schema? ---------------------------------------------------------------------------------------------- */

struct check {
    struct amp_error *err;
    unsigned nodes;
};

static enum amp_code check_schema(struct check *check, const cJSON *schema, const struct where *where, unsigned depth);

static enum amp_code check_type(struct check *check, const cJSON *type, const struct where *where)
{
    const cJSON *each;
    bool is_good = cJSON_IsString(type) ? kind_of(type->valuestring) < KINDS : cJSON_IsArray(type) && cJSON_GetArraySize(type) > 0;
    if (cJSON_IsArray(type))
        cJSON_ArrayForEach(each, type) is_good = is_good && cJSON_IsString(each) && kind_of(each->valuestring) < KINDS;
    return is_good ? AMP_OK : wrong(check->err, AMP_INVALID, where, "a type is string, integer, number, boolean, array, object or null, or a list of these");
}

/* Deep values take their time to compare, and whoever asks chooses them. */
bool schema_is_scalar(const struct cJSON *value)
{
    return value && !cJSON_IsArray(value) && !cJSON_IsObject(value);
}

static enum amp_code not_scalar(struct check *check, const struct where *where)
{
    return wrong(check->err, AMP_INVALID, where, "only texts, numbers, true, false and null can be listed here");
}

static enum amp_code check_const(struct check *check, const cJSON *value, const struct where *where)
{
    return schema_is_scalar(value) ? AMP_OK : not_scalar(check, where);
}

static enum amp_code check_enum(struct check *check, const cJSON *list, const struct where *where)
{
    const cJSON *each;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (n == 0)
        return wrong(check->err, AMP_INVALID, where, "an enum is a list of at least one value");
    cJSON_ArrayForEach(each, list) if (!schema_is_scalar(each)) return not_scalar(check, where);
    return (unsigned)n <= SCHEMA_ENUM_MAX ? AMP_OK : wrong(check->err, AMP_TOO_LARGE, where, "an enum has at most 1024 values");
}

static enum amp_code check_count(struct check *check, const cJSON *count, const struct where *where)
{
    return is_integer(count) && count->valuedouble >= 0 ? AMP_OK : wrong(check->err, AMP_INVALID, where, "this must be a whole number from 0 on");
}

static enum amp_code check_number(struct check *check, const cJSON *number, const struct where *where)
{
    return cJSON_IsNumber(number) ? AMP_OK : wrong(check->err, AMP_INVALID, where, "this must be a number");
}

static enum amp_code check_names(struct check *check, const cJSON *names, const struct where *where)
{
    const cJSON *each;
    bool is_good = cJSON_IsArray(names) && (unsigned)cJSON_GetArraySize(names) <= SCHEMA_NODES_MAX;
    if (is_good)
        cJSON_ArrayForEach(each, names) is_good = is_good && cJSON_IsString(each);
    return is_good ? AMP_OK : wrong(check->err, AMP_INVALID, where, "this must be a list of at most 256 names");
}

static enum amp_code check_flag(struct check *check, const cJSON *flag, const struct where *where)
{
    return cJSON_IsBool(flag) ? AMP_OK : wrong(check->err, AMP_INVALID, where, "only true and false are understood here");
}

static enum amp_code check_any(struct check *check, const cJSON *value, const struct where *where)
{
    (void)check, (void)value, (void)where;
    return AMP_OK;
}

static const struct {
    const char *name;
    enum amp_code (*check)(struct check *check, const cJSON *value, const struct where *where);
} keywords[] = {
    {"type", check_type},         {"enum", check_enum},       {"const", check_const},        {"required", check_names}, {"additionalProperties", check_flag},
    {"minimum", check_number},    {"maximum", check_number},  {"minLength", check_count},    {"maxLength", check_count}, {"minItems", check_count},
    {"maxItems", check_count},    {"title", check_any},       {"description", check_any},    {"default", check_any},    {"examples", check_any},
    {"format", check_any},        {"$schema", check_any},     {"$comment", check_any},
};

static enum amp_code check_keyword(struct check *check, const cJSON *keyword, const struct where *where)
{
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        if (strcmp(keywords[i].name, keyword->string) == 0)
            return keywords[i].check(check, keyword, where);
    return wrong(check->err, AMP_INVALID, where,
                 "this keyword is not understood; there are type, enum, const, properties, required, additionalProperties, items, minItems, maxItems, minimum, maximum, minLength, "
                 "maxLength");
}

static enum amp_code check_properties(struct check *check, const cJSON *properties, const struct where *where, unsigned depth)
{
    const cJSON *each;
    enum amp_code code = cJSON_IsObject(properties) ? AMP_OK : wrong(check->err, AMP_INVALID, where, "this must be an object of schemas");
    if (code == AMP_OK)
        cJSON_ArrayForEach(each, properties)
        {
            code = check_schema(check, each, &(struct where){where, each->string, -1}, depth + 1);
            if (code != AMP_OK)
                break;
        }
    return code;
}

static enum amp_code check_schema(struct check *check, const cJSON *schema, const struct where *where, unsigned depth)
{
    const cJSON *each;
    enum amp_code code = AMP_OK;
    if (!cJSON_IsObject(schema))
        return wrong(check->err, AMP_INVALID, where, "a schema is an object");
    if (depth > SCHEMA_DEPTH_MAX)
        return wrong(check->err, AMP_TOO_DEEP, where, "schemas are nested at most 8 deep");
    if (++check->nodes > SCHEMA_NODES_MAX)
        return wrong(check->err, AMP_TOO_LARGE, where, "a schema holds at most 256 schemas");
    cJSON_ArrayForEach(each, schema)
    {
        struct where at = {where, each->string, -1};
        if (strcmp(each->string, "properties") == 0)
            code = check_properties(check, each, &at, depth);
        else if (strcmp(each->string, "items") == 0)
            code = check_schema(check, each, &at, depth + 1);
        else
            code = check_keyword(check, each, &at);
        if (code != AMP_OK)
            break;
    }
    return code;
}

enum amp_code schema_check(const struct cJSON *schema, const char *path, struct amp_error *reterr)
{
    struct amp_error ignored;
    struct check check = {.err = reterr ? reterr : &ignored};
    return check_schema(&check, schema, &(struct where){NULL, path, -1}, 1);
}

/* ---- does the value fit? --------------------------------------------------------------------------------------------- */

struct fit {
    struct amp_error *err;
};

static enum amp_code fit_value(const struct fit *fit, const cJSON *schema, const cJSON *value, const struct where *where);

static void list_values(const cJSON *list, char *ret, size_t size)
{
    const cJSON *each;
    size_t len = 0;
    cJSON_ArrayForEach(each, list)
    {
        char *text = cJSON_PrintUnformatted(each);
        bool fits = text && len + strlen(text) + 8 < size;
        if (!fits) {
            (void)snprintf(ret + len, size - len, ", …");
            cJSON_free(text);
            return;
        }
        len += (size_t)snprintf(ret + len, size - len, "%s%s", len ? ", " : "", text);
        cJSON_free(text);
    }
}

static enum amp_code not_of_type(const struct fit *fit, const cJSON *type, const cJSON *value, const struct where *where)
{
    char wanted[NAMES_MAX] = "", text[NAMES_MAX + 64];
    const cJSON *each;
    if (cJSON_IsString(type))
        (void)snprintf(wanted, sizeof wanted, "%s", kinds[kind_of(type->valuestring)].text);
    cJSON_ArrayForEach(each, type)
    {
        size_t len = strlen(wanted);
        (void)snprintf(wanted + len, sizeof wanted - len, "%s%s", len ? " or " : "", kinds[kind_of(each->valuestring)].text);
    }
    (void)snprintf(text, sizeof text, "%s is wanted, not %s", wanted, text_of(value));
    return wrong(fit->err, AMP_INVALID, where, text);
}

static enum amp_code fit_enum(const struct fit *fit, const cJSON *list, const cJSON *value, const struct where *where)
{
    char values[NAMES_MAX] = "", text[NAMES_MAX + 64];
    const cJSON *each;
    cJSON_ArrayForEach(each, list) if (cJSON_Compare(each, value, true)) return AMP_OK;
    list_values(list, values, sizeof values);
    (void)snprintf(text, sizeof text, "one of %s is wanted", values);
    return wrong(fit->err, AMP_INVALID, where, text);
}

static size_t characters(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xC0) != 0x80;
    return count;
}

static const char *measured(const cJSON *keyword)
{
    return strstr(keyword->string, "Length") ? "its length" : strstr(keyword->string, "Items") ? "its number of items" : "this";
}

/* Numbers, lengths and counts within their limits. */
static enum amp_code fit_range(const struct fit *fit, const cJSON *low, const cJSON *high, double number, const struct where *where)
{
    char text[96];
    bool is_low = low && number < low->valuedouble;
    const cJSON *broken = is_low ? low : high && number > high->valuedouble ? high : NULL;
    if (!broken)
        return AMP_OK;
    (void)snprintf(text, sizeof text, "%s is %g; it must be %g or %s", measured(broken), number, broken->valuedouble, is_low ? "more" : "less");
    return wrong(fit->err, AMP_INVALID, where, text);
}

static bool is_named(const cJSON *schema, const char *name)
{
    return member(member(schema, "properties"), name) != NULL;
}

static enum amp_code fit_object(const struct fit *fit, const cJSON *schema, const cJSON *value, const struct where *where)
{
    const cJSON *each, *found;
    enum amp_code code = AMP_OK;
    cJSON_ArrayForEach(each, member(schema, "required"))
    {
        if (!member(value, each->valuestring))
            return wrong(fit->err, AMP_INVALID, &(struct where){where, each->valuestring, -1}, "this is required and missing");
    }
    if (cJSON_IsFalse(member(schema, "additionalProperties")))
        cJSON_ArrayForEach(each, value) if (!is_named(schema, each->string))
            return wrong(fit->err, AMP_INVALID, &(struct where){where, each->string, -1}, "there is no property of this name");
    cJSON_ArrayForEach(each, member(schema, "properties"))
    {
        found = member(value, each->string);
        code = found ? fit_value(fit, each, found, &(struct where){where, each->string, -1}) : AMP_OK;
        if (code != AMP_OK)
            break;
    }
    return code;
}

static enum amp_code fit_array(const struct fit *fit, const cJSON *schema, const cJSON *value, const struct where *where)
{
    const cJSON *items = member(schema, "items"), *each;
    enum amp_code code = fit_range(fit, member(schema, "minItems"), member(schema, "maxItems"), cJSON_GetArraySize(value), where);
    int index = 0;
    if (code == AMP_OK && items)
        cJSON_ArrayForEach(each, value)
        {
            code = fit_value(fit, items, each, &(struct where){where, NULL, index++});
            if (code != AMP_OK)
                break;
        }
    return code;
}

static enum amp_code fit_value(const struct fit *fit, const cJSON *schema, const cJSON *value, const struct where *where)
{
    const cJSON *type = member(schema, "type"), *list = member(schema, "enum"), *only = member(schema, "const");
    enum amp_code code = AMP_OK;
    if (type && !has_type(type, value))
        return not_of_type(fit, type, value, where);
    if (list)
        code = fit_enum(fit, list, value, where);
    if (code == AMP_OK && only && !cJSON_Compare(only, value, true))
        code = wrong(fit->err, AMP_INVALID, where, "only one value is allowed here, and this is another");
    if (code != AMP_OK)
        return code;
    if (cJSON_IsNumber(value))
        return fit_range(fit, member(schema, "minimum"), member(schema, "maximum"), value->valuedouble, where);
    if (cJSON_IsString(value))
        return fit_range(fit, member(schema, "minLength"), member(schema, "maxLength"), (double)characters(value->valuestring), where);
    if (cJSON_IsArray(value))
        return fit_array(fit, schema, value, where);
    return cJSON_IsObject(value) ? fit_object(fit, schema, value, where) : AMP_OK;
}

enum amp_code schema_validate(const struct cJSON *schema, const struct cJSON *value, const char *path, struct amp_error *reterr)
{
    struct amp_error ignored;
    struct fit fit = {.err = reterr ? reterr : &ignored};
    return fit_value(&fit, schema, value, &(struct where){NULL, path, -1});
}
