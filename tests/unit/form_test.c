/* Forms of questions and their schemas: what is refused and where, what an answer says. */
#include "base/form.h"
#include "base/schema.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void test_a_schema_with_what_is_not_checked_is_refused_with_its_place(void **state)
{
    static const struct {
        const char *schema, *field;
        enum amp_code code;
    } rows[] = {
        {"{\"type\":\"string\",\"pattern\":\"(a+)+$\"}", "schema.pattern", AMP_INVALID},
        {"{\"$ref\":\"#\"}", "schema.$ref", AMP_INVALID},
        {"{\"type\":\"text\"}", "schema.type", AMP_INVALID},
        {"{\"properties\":{\"a\":{\"minLength\":-1}}}", "schema.properties.a.minLength", AMP_INVALID},
        {"{\"items\":[{}]}", "schema.items", AMP_INVALID},
        {"{\"enum\":[]}", "schema.enum", AMP_INVALID},
        {"{\"enum\":[1,{\"b\":1}]}", "schema.enum", AMP_INVALID},
        {"{\"const\":[1]}", "schema.const", AMP_INVALID},
        {"{\"required\":[1]}", "schema.required", AMP_INVALID},
        {"{\"additionalProperties\":{}}", "schema.additionalProperties", AMP_INVALID},
        {"{\"items\":{\"items\":{\"items\":{\"items\":{\"items\":{\"items\":{\"items\":{\"items\":{}}}}}}}}}", "schema.items.items.items.items.items.items.items.items", AMP_TOO_DEEP},
        {"true", "schema", AMP_INVALID},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct amp_error err = {0};
        cJSON *schema = cJSON_Parse(rows[i].schema);
        assert_int_equal(schema_check(schema, "schema", &err), rows[i].code);
        assert_string_equal(err.field, rows[i].field);
        cJSON_Delete(schema);
    }
}

static void test_a_value_fits_or_the_error_says_what_and_where(void **state)
{
    static const struct {
        const char *schema, *value, *field; /* field NULL: it fits */
    } rows[] = {
        {"{\"type\":\"integer\",\"minimum\":1,\"maximum\":3}", "3", NULL},
        {"{\"type\":\"integer\"}", "1.5", "answer"},
        {"{\"type\":[\"string\",\"null\"]}", "null", NULL},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":2}", "\"\u00e4\u00f6\"", NULL},
        {"{\"type\":\"string\",\"maxLength\":1}", "\"ab\"", "answer"},
        {"{\"enum\":[1,\"a\",null]}", "null", NULL},
        {"{\"enum\":[1]}", "2", "answer"},
        {"{\"const\":true}", "false", "answer"},
        {"{\"properties\":{\"a\":{\"items\":{\"type\":\"number\"}}}}", "{\"a\":[1,2,\"x\"]}", "answer.a[2]"},
        {"{\"required\":[\"a\"]}", "{}", "answer.a"},
        {"{\"additionalProperties\":false,\"properties\":{\"a\":{}}}", "{\"b\":1}", "answer.b"},
        {"{\"minItems\":2}", "[1]", "answer"},
        {"{\"maxItems\":1}", "[1,2]", "answer"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct amp_error err = {0};
        cJSON *schema = cJSON_Parse(rows[i].schema), *value = cJSON_Parse(rows[i].value);
        assert_int_equal(schema_check(schema, "schema", &err), AMP_OK);
        assert_int_equal(schema_validate(schema, value, "answer", &err), rows[i].field ? AMP_INVALID : AMP_OK);
        assert_string_equal(err.field, rows[i].field ? rows[i].field : "");
        cJSON_Delete(schema);
        cJSON_Delete(value);
    }
}

static void test_an_answer_in_words_becomes_the_value_that_is_meant(void **state)
{
    static const struct {
        const char *form, *text, *value; /* value NULL: refused */
    } rows[] = {
        {"{\"prompt\":\"?\",\"options\":[\"red\",{\"value\":2,\"label\":\"Two\"}]}", "red", "\"red\""},
        {"{\"prompt\":\"?\",\"options\":[\"red\",{\"value\":2,\"label\":\"Two\"}]}", " two ", "2"},
        {"{\"prompt\":\"?\",\"options\":[\"red\"]}", "green", NULL},
        {"{\"prompt\":\"?\",\"options\":[\"Red\",\"red\"]}", "RED", NULL},
        {"{\"prompt\":\"?\",\"options\":[\"red\"],\"other\":true}", "green", "\"green\""},
        {"{\"prompt\":\"?\",\"options\":[\"a\",\"b\"],\"multiple\":true}", "b, a", "[\"b\",\"a\"]"},
        {"{\"prompt\":\"?\",\"options\":[\"a\",\"b\"],\"multiple\":true}", "a,c", NULL},
        {"{\"prompt\":\"?\",\"schema\":{\"type\":\"boolean\"}}", "Yes", "true"},
        {"{\"prompt\":\"?\",\"schema\":{\"type\":\"string\"}}", "42", "\"42\""},
        {"{\"prompt\":\"?\",\"schema\":{\"type\":\"integer\"}}", "42", "42"},
        {"{\"prompt\":\"?\",\"schema\":{\"type\":\"integer\"}}", "many", NULL},
        {"{\"prompt\":\"?\",\"schema\":{\"enum\":[\"a\",1]}}", "a", "\"a\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct amp_error err = {0};
        Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
        Amp__Message message = AMP__MESSAGE__INIT;
        cJSON *given = cJSON_Parse(rows[i].form), *form = form_copy(given, &err), *value = NULL;
        part.text = (char *)rows[i].text;
        message.n_parts = 1;
        message.parts = parts;
        assert_non_null(form);
        assert_int_equal(form_read(form, &message, &value, &err), rows[i].value ? AMP_OK : AMP_INVALID);
        char *text = value ? cJSON_PrintUnformatted(value) : NULL;
        if (rows[i].value)
            assert_string_equal(text, rows[i].value);
        cJSON_free(text);
        cJSON_Delete(value);
        cJSON_Delete(form);
        cJSON_Delete(given);
    }
}

static void test_a_form_that_contradicts_itself_is_refused(void **state)
{
    static const struct {
        const char *form, *field;
    } rows[] = {
        {"{\"prompt\":\"\"}", "prompt"},
        {"{\"prompt\":\"?\",\"options\":[]}", "options"},
        {"{\"prompt\":\"?\",\"options\":[{\"label\":\"x\"}]}", "options"},
        {"{\"prompt\":\"?\",\"multiple\":true}", "options"},
        {"{\"prompt\":\"?\",\"options\":[\"a\"],\"default\":\"b\"}", "default"},
        {"{\"prompt\":\"?\",\"schema\":{\"type\":\"integer\"},\"default\":\"b\"}", "default"},
        {"{\"prompt\":\"?\",\"default\":1}", "default"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct amp_error err = {0};
        cJSON *given = cJSON_Parse(rows[i].form);
        assert_null(form_copy(given, &err));
        assert_string_equal(err.field, rows[i].field);
        cJSON_Delete(given);
    }
}

static void test_the_same_question_has_the_same_id_and_another_has_not(void **state)
{
    static const char *const forms[] = {"{\"prompt\":\"a\",\"default\":\"x\"}", "{\"prompt\":\"a\"}", "{\"prompt\":\"a\",\"options\":[\"x\"]}"};
    char ids[3][AMP_ID_SIZE], again[AMP_ID_SIZE], second[AMP_ID_SIZE];
    uint8_t digest[FORM_DIGEST_SIZE];
    for (size_t i = 0; i < 3; i++) {
        cJSON *form = cJSON_Parse(forms[i]);
        form_digest(form, digest);
        form_id("t-1", 1, digest, ids[i]);
        form_id("t-1", 2, digest, second);
        form_id("t-2", 1, digest, again);
        assert_true(amp_id_is_valid(ids[i]));
        assert_string_not_equal(ids[i], second);
        assert_string_not_equal(ids[i], again);
        cJSON_Delete(form);
    }
    assert_string_equal(ids[0], ids[1]);
    assert_string_not_equal(ids[1], ids[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_schema_with_what_is_not_checked_is_refused_with_its_place),
        cmocka_unit_test(test_a_value_fits_or_the_error_says_what_and_where),
        cmocka_unit_test(test_an_answer_in_words_becomes_the_value_that_is_meant),
        cmocka_unit_test(test_a_form_that_contradicts_itself_is_refused),
        cmocka_unit_test(test_the_same_question_has_the_same_id_and_another_has_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
