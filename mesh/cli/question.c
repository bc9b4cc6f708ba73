#include "cli/question.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/form.h"
#include "cli/message.h"

#define SCHEMA_DEPTH 3u             /* of the short form; what is deeper is named by its type */
#define SHORT_BYTES_MAX (64u << 10) /* what is longer is left out */

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

cJSON *question_form(const Amp__Question *question)
{
    cJSON *json = question->form != NULL ? cJSON_ParseWithLength((const char *)question->form->text.data, question->form->text.len) : NULL;
    cJSON *form = json != NULL ? form_copy(json, NULL) : NULL;
    cJSON_Delete(json);
    return form;
}

static void append_schema(struct amp_buf *out, const cJSON *schema, unsigned depth);

void question_print(FILE *to, const struct print_style *style, const cJSON *form)
{
    const char *label, *prompt = cJSON_GetStringValue(member(form, "prompt"));
    const cJSON *value;
    print_text(to, style, amp_bytes_of(prompt != NULL ? prompt : ""));
    for (size_t i = 0; (value = form_option(form, i, &label)) != NULL; i++) {
        char *text = form_text(value), *line = print_line(text, 0), *name = label != NULL ? print_line(label, 0) : NULL;
        fprintf(to, "\n  %zu) %s%s%s%s%s", i + 1, line, name != NULL ? "  " : "", print_on(style, PRINT_DIM), name != NULL ? name : "", print_off(style));
        free(text);
        free(line);
        free(name);
    }
    const cJSON *fallback = member(form, "default"), *schema = member(form, "schema");
    if (cJSON_IsObject(schema)) {
        struct amp_buf out;
        amp_buf_init(&out, SHORT_BYTES_MAX);
        append_schema(&out, schema, 0);
        char *text = xstrndup(out.len > 0 ? (const char *)out.data : "", out.len), *line = print_line(text, 0);
        fprintf(to, "\n  %s(%s)%s", print_on(style, PRINT_DIM), line, print_off(style));
        amp_buf_done(&out);
        free(text);
        free(line);
    }
    if (fallback != NULL) {
        char *text = form_text(fallback), *line = print_line(text, 0);
        fprintf(to, "\n  %s(without an answer: %s)%s", print_on(style, PRINT_DIM), line, print_off(style));
        free(text);
        free(line);
    }
}

/* Its own, and put into `out`. */
static void append_value(struct amp_buf *out, const cJSON *value)
{
    char *text = form_text(value);
    (void)amp_buf_printf(out, "%s", text);
    free(text);
}

/* "{count: integer 1.., name?: string}" */
static void append_properties(struct amp_buf *out, const cJSON *schema, unsigned depth)
{
    const cJSON *each, *name;
    (void)amp_buf_printf(out, "{");
    cJSON_ArrayForEach(each, member(schema, "properties")) {
        bool is_required = false;
        cJSON_ArrayForEach(name, member(schema, "required")) is_required |= cJSON_IsString(name) && strcmp(name->valuestring, each->string) == 0;
        (void)amp_buf_printf(out, "%s%s%s: ", each != member(schema, "properties")->child ? ", " : "", each->string, is_required ? "" : "?");
        append_schema(out, each, depth + 1);
    }
    (void)amp_buf_printf(out, "}");
}

static void append_bounds(struct amp_buf *out, const cJSON *schema)
{
    const cJSON *min = member(schema, "minimum"), *max = member(schema, "maximum");
    if (!cJSON_IsNumber(min) && !cJSON_IsNumber(max))
        return;
    (void)amp_buf_printf(out, " ");
    if (cJSON_IsNumber(min))
        (void)amp_buf_printf(out, "%.15g", min->valuedouble);
    (void)amp_buf_printf(out, "..");
    if (cJSON_IsNumber(max))
        (void)amp_buf_printf(out, "%.15g", max->valuedouble);
}

static void append_schema(struct amp_buf *out, const cJSON *schema, unsigned depth)
{
    const char *type = cJSON_GetStringValue(member(schema, "type"));
    const cJSON *each, *values = member(schema, "enum");
    if (cJSON_IsArray(values)) {
        cJSON_ArrayForEach(each, values) {
            (void)amp_buf_printf(out, "%s", each != values->child ? "|" : "");
            append_value(out, each);
        }
    } else if (cJSON_IsObject(member(schema, "properties")) && depth < SCHEMA_DEPTH) {
        append_properties(out, schema, depth);
    } else if (cJSON_IsObject(member(schema, "items")) && depth < SCHEMA_DEPTH) {
        (void)amp_buf_printf(out, "list of ");
        append_schema(out, member(schema, "items"), depth + 1);
    } else {
        (void)amp_buf_printf(out, "%s", type != NULL ? type : "any JSON");
        append_bounds(out, schema);
    }
}

static void append_options(struct amp_buf *out, const cJSON *form)
{
    const cJSON *value;
    const char *label;
    for (size_t i = 0; (value = form_option(form, i, &label)) != NULL; i++) {
        (void)amp_buf_printf(out, "%s", i == 0 ? " [" : "|");
        append_value(out, value);
        if (label != NULL)
            (void)amp_buf_printf(out, " (%s)", label);
    }
    (void)amp_buf_printf(out, "%s%s", form_option(form, 0, NULL) != NULL ? "]" : "", cJSON_IsTrue(member(form, "multiple")) ? " several" : "");
    if (cJSON_IsTrue(member(form, "other")) && form_option(form, 0, NULL) != NULL)
        (void)amp_buf_printf(out, " or another text");
}

char *question_short(const cJSON *form)
{
    const cJSON *schema = member(form, "schema"), *fallback = member(form, "default");
    struct amp_buf out;
    amp_buf_init(&out, SHORT_BYTES_MAX);
    append_options(&out, form);
    if (cJSON_IsObject(schema)) {
        (void)amp_buf_printf(&out, " ");
        append_schema(&out, schema, 0);
    }
    if (fallback != NULL) {
        (void)amp_buf_printf(&out, ", default: ");
        append_value(&out, fallback);
    }
    char *text = xstrndup(out.len > 0 ? (const char *)out.data : "", amp_utf8_cut(amp_buf_bytes(&out), out.len));
    amp_buf_done(&out);
    return text;
}

/* ---- messages ------------------------------------------------------------------------------------------ */

static enum amp_code checked(const cJSON *form, Amp__Message *message, Amp__Message **ret, struct amp_error *reterr)
{
    cJSON *value = NULL;
    enum amp_code code = form != NULL ? form_read(form, message, &value, reterr) : AMP_OK;
    cJSON_Delete(value);
    *ret = message;
    return code;
}

enum amp_code question_json(const cJSON *form, const char *json, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr)
{
    struct message_source source = {.text = ""};
    struct amp_error err = {0};
    Amp__Json *data = amp_arena_alloc(arena, sizeof *data);
    char *copy = amp_arena_strdup(arena, amp_bytes_of(json));
    if (amp_json_check(amp_bytes_of(json), &amp_json_limits_default, &err) != AMP_OK)
        return amp_error_set(reterr, AMP_INVALID, "answer", "the value is not JSON: %s", err.message);
    enum amp_code code = message_make(&source, arena, ret, reterr);
    if (code != AMP_OK || data == NULL || copy == NULL)
        return code != AMP_OK ? code : amp_error_set(reterr, AMP_TOO_LARGE, "answer", "the value is too large");
    amp__json__init(data);
    data->text = (ProtobufCBinaryData){.data = (uint8_t *)copy, .len = strlen(copy)};
    (*ret)->parts[0]->text = NULL;
    (*ret)->parts[0]->data = data;
    return checked(form, *ret, ret, reterr);
}

/* The option of this number, unless one is called so. */
static const cJSON *by_number(const cJSON *form, const char *name)
{
    const cJSON *value;
    const char *label;
    char *end;
    if (!isdigit((unsigned char)*name))
        return NULL;
    for (size_t i = 0; (value = form_option(form, i, &label)) != NULL; i++) {
        char *text = form_text(value);
        bool is_name = strcmp(text, name) == 0 || (label != NULL && strcmp(label, name) == 0);
        free(text);
        if (is_name)
            return value;
    }
    unsigned long number = strtoul(name, &end, 10);
    return *end == '\0' && number > 0 ? form_option(form, number - 1, NULL) : NULL;
}

static enum amp_code send_value(const cJSON *form, const cJSON *value, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr)
{
    char *json = cJSON_PrintUnformatted(value);
    enum amp_code code = question_json(form, json != NULL ? json : "null", arena, ret, reterr);
    cJSON_free(json);
    return code;
}

enum amp_code question_chosen(const cJSON *form, const char *const *names, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr)
{
    if (form_option(form, 0, NULL) == NULL)
        return amp_error_set(reterr, AMP_INVALID, "answer", "the question has no options to choose from");
    cJSON *list = cJSON_CreateArray();
    enum amp_code code = AMP_OK;
    for (size_t i = 0; names[i] != NULL && code == AMP_OK; i++) {
        const cJSON *value = by_number(form, names[i]);
        Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
        Amp__Message named = AMP__MESSAGE__INIT;
        cJSON *found = value != NULL ? cJSON_Duplicate(value, true) : NULL;
        part.text = (char *)names[i];
        named.n_parts = 1;
        named.parts = parts;
        if (found == NULL)
            code = form_read(form, &named, &found, reterr);
        if (code == AMP_OK && cJSON_IsArray(found)) { /* of a list of one */
            cJSON *only = cJSON_DetachItemFromArray(found, 0);
            cJSON_Delete(found);
            found = only;
        }
        if (code == AMP_OK && found != NULL)
            cJSON_AddItemToArray(list, found);
    }
    bool is_multiple = cJSON_IsTrue(member(form, "multiple"));
    if (code == AMP_OK && !is_multiple && cJSON_GetArraySize(list) != 1)
        code = amp_error_set(reterr, AMP_INVALID, "answer", "only one option may be chosen");
    if (code == AMP_OK)
        code = send_value(form, is_multiple ? list : cJSON_GetArrayItem(list, 0), arena, ret, reterr);
    cJSON_Delete(list);
    return code;
}

/* "1, 3": numbers of options and nothing else. The names are in `arena`; NULL: it is something else. */
static const char **numbers_of(const cJSON *form, const char *text, struct amp_arena *arena)
{
    char *copy = amp_arena_strdup(arena, amp_bytes_of(text)), *state = NULL;
    const char **names = amp_arena_alloc(arena, (FORM_OPTIONS_MAX + 1) * sizeof *names);
    size_t count = 0;
    if (copy == NULL || names == NULL || form_option(form, 0, NULL) == NULL)
        return NULL;
    for (char *name = strtok_r(copy, ", \t", &state); name != NULL; name = strtok_r(NULL, ", \t", &state)) {
        if (count == FORM_OPTIONS_MAX || by_number(form, name) == NULL)
            return NULL;
        names[count++] = name;
    }
    names[count] = NULL;
    return count > 0 ? names : NULL;
}

enum amp_code question_typed(const cJSON *form, const char *text, struct amp_arena *arena, Amp__Message **ret, struct amp_error *reterr)
{
    struct message_source source = {.text = text};
    const char **numbers = form != NULL && strcmp(text, "-") != 0 ? numbers_of(form, text, arena) : NULL;
    if (numbers != NULL)
        return question_chosen(form, numbers, arena, ret, reterr);
    enum amp_code code = message_make(&source, arena, ret, reterr);
    return code == AMP_OK ? checked(form, *ret, ret, reterr) : code;
}
