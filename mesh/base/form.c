#include "base/form.h"

#include "base/alloc.h"
#include "base/schema.h"

#include <cjson/cJSON.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool is_true(const cJSON *form, const char *name)
{
    return cJSON_IsTrue(member(form, name));
}

static unsigned depth_of(const cJSON *value)
{
    unsigned depth = 0;
    const cJSON *each;
    cJSON_ArrayForEach(each, value)
    {
        unsigned below = depth_of(each);
        depth = below > depth ? below : depth;
    }
    return depth + (cJSON_IsArray(value) || cJSON_IsObject(value));
}

/* ---- options ------------------------------------------------------------------------------------------------------ */

const struct cJSON *form_option(const struct cJSON *form, size_t n, const char **ret_label)
{
    const cJSON *options = member(form, "options");
    const cJSON *option = n < FORM_OPTIONS_MAX ? cJSON_GetArrayItem(options, (int)n) : NULL;
    const char *label = cJSON_IsObject(option) ? cJSON_GetStringValue(member(option, "label")) : NULL;
    if (ret_label)
        *ret_label = label;
    return cJSON_IsObject(option) ? member(option, "value") : option;
}

static bool is_option(const cJSON *form, const cJSON *value)
{
    const cJSON *each;
    for (size_t i = 0; (each = form_option(form, i, NULL)); i++)
        if (cJSON_Compare(each, value, true))
            return true;
    return false;
}

/* The option that is called so; NULL if none is, or only without regard to case and more than one. */
static const cJSON *option_named(const cJSON *form, const char *name)
{
    const cJSON *value, *near = NULL;
    const char *label;
    unsigned n_near = 0;
    for (size_t i = 0; (value = form_option(form, i, &label)); i++) {
        char *text = form_text(value);
        bool is_it = strcmp(text, name) == 0 || (label && strcmp(label, name) == 0);
        bool is_near = strcasecmp(text, name) == 0 || (label && strcasecmp(label, name) == 0);
        free(text);
        if (is_it)
            return value;
        near = is_near ? value : near;
        n_near += is_near;
    }
    return n_near == 1 ? near : NULL;
}

static enum amp_code check_options(const cJSON *options, struct amp_error *err)
{
    const cJSON *each;
    int n = cJSON_IsArray(options) ? cJSON_GetArraySize(options) : 0;
    if (n == 0)
        return amp_error_set(err, AMP_INVALID, "options", "options is a list of at least one value");
    if ((unsigned)n > FORM_OPTIONS_MAX)
        return amp_error_set(err, AMP_TOO_LARGE, "options", "%d options; at most %u are allowed", n, FORM_OPTIONS_MAX);
    cJSON_ArrayForEach(each, options)
    {
        const cJSON *label = member(each, "label"), *description = member(each, "description");
        const cJSON *value = cJSON_IsObject(each) ? member(each, "value") : each;
        if (!schema_is_scalar(value) || cJSON_IsNull(each))
            return amp_error_set(err, AMP_INVALID, "options", "an option is a text, a number, a boolean, or an object with such a value and perhaps a label");
        if ((label && !cJSON_IsString(label)) || (description && !cJSON_IsString(description)))
            return amp_error_set(err, AMP_INVALID, "options", "the label and the description of an option are texts");
    }
    return AMP_OK;
}

static void refuse_option(const cJSON *form, const char *got, const char *field, struct amp_error *err)
{
    const cJSON *value;
    const char *label;
    char names[240] = "";
    size_t len = 0;
    for (size_t i = 0; (value = form_option(form, i, &label)) && len < sizeof names; i++) {
        char *text = form_text(value);
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%.40s", i ? ", " : "", text);
        free(text);
    }
    (void)amp_error_set(err, AMP_INVALID, field, "%s: \"%.80s\" is none of the options: %.*s", field, got, (int)amp_utf8_cut(amp_bytes_of(names), 230), names);
}

/* ---- the form ------------------------------------------------------------------------------------------------------- */

static enum amp_code check_value(const cJSON *form, const cJSON *value, const char *field, struct amp_error *err)
{
    const cJSON *schema = member(form, "schema"), *each;
    bool is_multiple = is_true(form, "multiple");
    if (depth_of(value) > AMP_DATA_DEPTH_MAX)
        return amp_error_set(err, AMP_TOO_DEEP, field, "%s is nested deeper than %u", field, AMP_DATA_DEPTH_MAX);
    if (is_multiple && !cJSON_IsArray(value))
        return amp_error_set(err, AMP_INVALID, field, "%s: a list is wanted, as several options may be chosen", field);
    if (member(form, "options") && !is_true(form, "other")) {
        bool is_good = true;
        if (is_multiple)
            cJSON_ArrayForEach(each, value) is_good = is_good && is_option(form, each);
        else
            is_good = is_option(form, value);
        char *text = is_good ? NULL : form_text(value);
        if (!is_good)
            refuse_option(form, text, field, err);
        free(text);
        if (!is_good)
            return AMP_INVALID;
    }
    return schema ? schema_validate(schema, value, field, err) : AMP_OK;
}

static enum amp_code check_form(const cJSON *form, struct amp_error *err)
{
    const cJSON *schema = member(form, "schema"), *options = member(form, "options"), *fallback = member(form, "default");
    enum amp_code code = AMP_OK;
    if (depth_of(form) > AMP_DATA_DEPTH_MAX)
        return amp_error_set(err, AMP_TOO_DEEP, "", "a question is nested at most %u deep", AMP_DATA_DEPTH_MAX);
    if (schema)
        code = schema_check(schema, "schema", err);
    if (code == AMP_OK && options)
        code = check_options(options, err);
    if (code == AMP_OK && !options && (member(form, "multiple") || member(form, "other")))
        code = amp_error_set(err, AMP_INVALID, "options", "multiple and other say something about options, and there are none");
    if (code == AMP_OK && fallback && !schema && !options && !cJSON_IsString(fallback))
        code = amp_error_set(err, AMP_INVALID, "default", "without a schema or options the default is a text");
    if (code == AMP_OK && fallback)
        code = check_value(form, fallback, "default", err);
    return code;
}

static void add_copy(cJSON *form, const char *name, const cJSON *value)
{
    if (value && !cJSON_IsNull(value))
        cJSON_AddItemToObject(form, name, cJSON_Duplicate(value, true));
}

struct cJSON *form_new(const struct form_spec *spec, struct amp_error *reterr)
{
    if (!spec->prompt || !spec->prompt[0]) {
        (void)amp_error_set(reterr, AMP_INVALID, "prompt", "a question needs a text");
        return NULL;
    }
    cJSON *form = cJSON_CreateObject();
    cJSON_AddStringToObject(form, "prompt", spec->prompt);
    add_copy(form, "schema", spec->schema);
    add_copy(form, "options", spec->options);
    if (spec->is_multiple)
        cJSON_AddTrueToObject(form, "multiple");
    if (spec->has_other)
        cJSON_AddTrueToObject(form, "other");
    if (spec->fallback)
        cJSON_AddItemToObject(form, "default", cJSON_Duplicate(spec->fallback, true));
    enum amp_code code = check_form(form, reterr);
    char *text = code == AMP_OK ? cJSON_PrintUnformatted(form) : NULL;
    if (code == AMP_OK && (!text || strlen(text) > FORM_BYTES_MAX))
        code = amp_error_set(reterr, AMP_TOO_LARGE, "prompt", "a question with its schema and options has at most %u bytes", FORM_BYTES_MAX);
    cJSON_free(text);
    if (code == AMP_OK)
        return form;
    cJSON_Delete(form);
    return NULL;
}

struct cJSON *form_copy(const struct cJSON *question, struct amp_error *reterr)
{
    const struct form_spec spec = {
        .prompt = cJSON_GetStringValue(member(question, "prompt")),
        .schema = member(question, "schema"),
        .options = member(question, "options"),
        .fallback = member(question, "default"),
        .is_multiple = is_true(question, "multiple"),
        .has_other = is_true(question, "other"),
    };
    return form_new(&spec, reterr);
}

/* ---- which question it is --------------------------------------------------------------------------------------------- */

void form_digest(const struct cJSON *form, uint8_t ret[FORM_DIGEST_SIZE])
{
    static const char *const names[] = {"prompt", "schema", "options", "multiple", "other"};
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, FORM_DIGEST_SIZE);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *text = cJSON_PrintUnformatted(member(form, names[i]));
        const char *part = text ? text : "";
        (void)crypto_generichash_update(&state, (const uint8_t *)part, strlen(part) + 1);
        cJSON_free(text);
    }
    (void)crypto_generichash_final(&state, ret, FORM_DIGEST_SIZE);
}

void form_id(const char *task_id, uint32_t nth, const uint8_t digest[FORM_DIGEST_SIZE], char ret[AMP_ID_SIZE])
{
    static const char base32[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t hash[26], number[4] = {(uint8_t)nth, (uint8_t)(nth >> 8), (uint8_t)(nth >> 16), (uint8_t)(nth >> 24)};
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, sizeof hash);
    (void)crypto_generichash_update(&state, (const uint8_t *)task_id, strlen(task_id) + 1);
    (void)crypto_generichash_update(&state, number, sizeof number);
    (void)crypto_generichash_update(&state, digest, FORM_DIGEST_SIZE);
    (void)crypto_generichash_final(&state, hash, sizeof hash);
    ret[0] = 'q';
    ret[1] = '-';
    for (size_t i = 0; i < sizeof hash; i++) /* five bits of each byte */
        ret[2 + i] = base32[hash[i] & 31];
    ret[2 + sizeof hash] = '\0';
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

char *form_text(const struct cJSON *value)
{
    const char *string = cJSON_GetStringValue(value);
    if (string)
        return xstrdup(string);
    char *json = cJSON_PrintUnformatted(value), *text = xstrdup(json ? json : "");
    cJSON_free(json);
    return text;
}

static char *trimmed(const char *text, size_t len)
{
    while (len > 0 && strchr(" \t\r\n", text[len - 1]))
        len--;
    while (len > 0 && strchr(" \t\r\n", *text))
        text++, len--;
    return xstrndup(text, len);
}

/* One choice in words. NULL: it is none, and *err says so. */
static cJSON *read_choice(const cJSON *form, const char *text, size_t len, struct amp_error *err)
{
    char *name = trimmed(text, len);
    const cJSON *value = option_named(form, name);
    cJSON *ret = value ? cJSON_Duplicate(value, true) : is_true(form, "other") && name[0] ? cJSON_CreateString(name) : NULL;
    if (!ret)
        refuse_option(form, name, "answer", err);
    free(name);
    return ret;
}

static cJSON *read_choices(const cJSON *form, const char *text, struct amp_error *err)
{
    cJSON *json = NULL;
    if (amp_json_parse(amp_bytes_of(text), &json, NULL) == AMP_OK && cJSON_IsArray(json))
        return json;
    cJSON_Delete(json);
    cJSON *list = cJSON_CreateArray();
    while (*text) {
        size_t len = strcspn(text, ",\n");
        cJSON *choice = read_choice(form, text, len, err);
        if (!choice) {
            cJSON_Delete(list);
            return NULL;
        }
        cJSON_AddItemToArray(list, choice);
        text += len;
        text += *text != '\0';
    }
    return list;
}

static cJSON *read_word(const char *text)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"yes", true}, {"y", true}, {"no", false}, {"n", false}};
    char *word = trimmed(text, strlen(text));
    cJSON *json = NULL;
    for (size_t i = 0; i < sizeof words / sizeof words[0] && !json; i++)
        if (strcasecmp(words[i].word, word) == 0)
            json = cJSON_CreateBool(words[i].value);
    if (!json && amp_json_parse(amp_bytes_of(word), &json, NULL) != AMP_OK)
        json = NULL;
    free(word);
    return json;
}

/* Where a string will do, "42" and "yes" are strings; elsewhere what they mean. */
static cJSON *read_by_schema(const cJSON *schema, const char *text)
{
    cJSON *string = cJSON_CreateString(text);
    bool wants_string = member(schema, "type") && schema_allows(schema, "string");
    bool is_string = schema_validate(schema, string, "answer", NULL) == AMP_OK;
    cJSON *json = wants_string && is_string ? NULL : read_word(text);
    bool is_json = json && (schema_validate(schema, json, "answer", NULL) == AMP_OK || (!is_string && !wants_string));
    cJSON_Delete(is_json ? string : json);
    return is_json ? json : string;
}

static enum amp_code read_text(const cJSON *form, const char *text, cJSON **ret, struct amp_error *err)
{
    const cJSON *schema = member(form, "schema");
    if (!member(form, "options")) {
        *ret = read_by_schema(schema, text);
        return AMP_OK;
    }
    *ret = is_true(form, "multiple") ? read_choices(form, text, err) : read_choice(form, text, strlen(text), err);
    return *ret ? AMP_OK : AMP_INVALID;
}

static const Amp__Json *data_of(const Amp__Message *answer)
{
    for (size_t i = 0; i < answer->n_parts; i++)
        if (answer->parts[i]->data)
            return answer->parts[i]->data;
    return NULL;
}

/* What would have been right, as the question has it. */
static void hint_wanted(const cJSON *form, struct amp_error *err)
{
    const cJSON *options = member(form, "options");
    char *wanted = cJSON_PrintUnformatted(options ? options : member(form, "schema"));
    if (wanted && err)
        amp_error_hint(err, "%s %.*s", options ? (is_true(form, "multiple") ? "some of" : "one of") : "what fits the schema", (int)amp_utf8_cut(amp_bytes_of(wanted), 180), wanted);
    cJSON_free(wanted);
}

enum amp_code form_read(const struct cJSON *form, const Amp__Message *answer, struct cJSON **ret_value, struct amp_error *reterr)
{
    const Amp__Json *data = data_of(answer);
    struct amp_buf text;
    *ret_value = NULL;
    if (amp__message__get_packed_size(answer) > FORM_ANSWER_MAX)
        return amp_error_set(reterr, AMP_TOO_LARGE, "answer", "an answer has at most %u bytes", FORM_ANSWER_MAX);
    if (!member(form, "schema") && !member(form, "options"))
        return AMP_OK;
    enum amp_code code = AMP_OK;
    if (data) {
        code = amp_json_parse((struct amp_bytes){.data = data->text.data, .len = data->text.len}, ret_value, reterr);
    } else {
        amp_buf_init(&text, FORM_ANSWER_MAX + 1);
        code = amp_message_text(answer, &text);
        if (code == AMP_OK)
            code = amp_buf_append(&text, "", 1);
        code = code != AMP_OK ? amp_error_set(reterr, code, "answer", "the answer cannot be read as a text") : read_text(form, (const char *)text.data, ret_value, reterr);
        amp_buf_done(&text);
    }
    if (code == AMP_OK)
        code = check_value(form, *ret_value, "answer", reterr);
    if (code != AMP_OK) {
        hint_wanted(form, reterr);
        cJSON_Delete(*ret_value);
        *ret_value = NULL;
    }
    return code;
}
