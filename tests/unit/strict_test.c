/* The strict tokenizer against cases that lax parsers take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include <amp/amp.h>

#include "strict.h"

static enum amp_code check(const char *text, struct amp_error *err)
{
    /* a copy that is exactly as long, so that the sanitizer sees a read past it */
    size_t len = strlen(text);
    uint8_t *copy = malloc(len + 1);
    memcpy(copy, text, len);
    uint8_t *exact = realloc(copy, len ? len : 1);
    enum amp_code code = amp_json_check((struct amp_bytes){exact, len}, &amp_json_limits_default, err);
    free(exact);
    return code;
}

static void test_every_json_value_is_taken(void **state)
{
    static const char *const texts[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1.5",
        "1e5",
        "1E+5",
        "-1.25e-3",
        "1e308",
        "0e99999999999",
        "1e-999",
        "0.0001e310",
        "\"\"",
        "\"a\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\"",
        "\"\\ud83d\\ude00\"",
        "\"é€😀\"",
        "\"\x7f\"",
        "[]",
        "{}",
        " \t\r\n[ 1 , 2 ] \n",
        "{\"a\":{\"a\":1},\"b\":{\"a\":2}}",
        "{\"\":1}",
        "[[],{},[[]]]",
        "{\"a\":1,\"A\":2,\"a \":3}",
        "\"\\ufeff\"",
        "\"\\uFFFF\"",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct amp_error err = {.code = AMP_OK};
        if (check(texts[i], &err) != AMP_OK)
            fail_msg("%s: %s", texts[i], err.message);
    }
}

static void test_everything_else_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "nul",
        "nullx",
        "True",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "1e309",
        "-1e999",
        "123456789e301",
        "\"",
        "\"\\\"",
        "\"\n\"",
        "\"\x1f\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u123g\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud800x\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xe2\x82\"",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "{1:2}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "{'a':1}",
        "[1}",
        "{\"a\":1]",
        "{} {}",
        "1 2",
        "[] x",
        "/**/1",
        "\xef\xbb\xbf{}",
        "{\"a\":1,\"a\":1}",
        "{\"a\":1,\"\\u0061\":1}",
        "{\"\\u00e9\":1,\"é\":1}",
        "{\"😀\":1,\"\\ud83d\\ude00\":2}",
        "{\"x\":{\"a\":1,\"b\":[],\"a\":2}}",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct amp_error err = {.code = AMP_OK};
        if (check(texts[i], &err) != AMP_MALFORMED)
            fail_msg("taken: %s", texts[i]);
        assert_non_null(strstr(err.message, "at byte "));
    }
}

static void test_a_key_twice_is_found_among_many(void **state)
{
    for (unsigned n = 2; n < 400; n += 7)
        for (unsigned twice = 0; twice < 2; twice++) {
            struct amp_buf text;
            amp_buf_init(&text, 1 << 20);
            for (unsigned i = 0; i < n; i++)
                assert_int_equal(amp_buf_printf(&text, "%c\"key%u\":{\"key0\":[]}", i ? ',' : '{', i * 7919 % 1000 % n),
                                 AMP_OK);
            /* the keys are a permutation only if n divides nothing; ask a plain loop */
            bool is_twice = false, seen[400] = {false};
            for (unsigned i = 0; i < n; i++) {
                unsigned key = i * 7919 % 1000 % n;
                is_twice |= seen[key];
                seen[key] = true;
            }
            if (twice) {
                is_twice = true;
                assert_int_equal(amp_buf_printf(&text, ",\"k\\u0065y%u\":0", n / 2 * 7919 % 1000 % n), AMP_OK);
            }
            assert_int_equal(amp_buf_append(&text, "}", 1), AMP_OK);
            assert_int_equal(amp_json_check(amp_buf_bytes(&text), &amp_json_limits_default, NULL),
                             is_twice ? AMP_MALFORMED : AMP_OK);
            amp_buf_done(&text);
        }
}

static void test_limits_hold_at_their_edge(void **state)
{
    struct amp_json_limits limits = {.bytes_max = 20, .depth_max = 3, .members_max = 2};
    assert_int_equal(amp_json_check(amp_bytes_of("[[[1,2]]]"), &limits, NULL), AMP_OK);
    assert_int_equal(amp_json_check(amp_bytes_of("[[[[]]]]"), &limits, NULL), AMP_TOO_DEEP);
    assert_int_equal(amp_json_check(amp_bytes_of("[1,2,3]"), &limits, NULL), AMP_TOO_LARGE);
    assert_int_equal(amp_json_check(amp_bytes_of("{\"a\":1,\"b\":2}"), &limits, NULL), AMP_OK);
    assert_int_equal(amp_json_check(amp_bytes_of("{\"a\":1,\"b\":2,\"c\":3}"), &limits, NULL), AMP_TOO_LARGE);
    assert_int_equal(amp_json_check(amp_bytes_of("1                   "), &limits, NULL), AMP_OK);
    assert_int_equal(amp_json_check(amp_bytes_of("1                    "), &limits, NULL), AMP_TOO_LARGE);
    limits.depth_max = 0;
    assert_int_equal(amp_json_check(amp_bytes_of("1"), &limits, NULL), AMP_OK);
    assert_int_equal(amp_json_check(amp_bytes_of("[]"), &limits, NULL), AMP_TOO_DEEP);
}

static void test_depth_is_bounded_whatever_the_caller_allows(void **state)
{
    static char text[20000];
    memset(text, '[', sizeof(text));
    struct amp_json_limits limits = {.bytes_max = sizeof(text), .depth_max = 1u << 30, .members_max = 10};
    assert_int_equal(amp_json_check((struct amp_bytes){(uint8_t *)text, sizeof(text)}, &limits, NULL), AMP_TOO_DEEP);
}

static void test_compacting_keeps_white_space_in_strings(void **state)
{
    static const char text[] = " { \"a \\\" b\" : [ 1 ,\n\"\\\\\" , \" \" ] } ";
    uint8_t compact[sizeof(text)];
    size_t len = strict_compact((const uint8_t *)text, strlen(text), compact);
    static const char expected[] = "{\"a \\\" b\":[1,\"\\\\\",\" \"]}";
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(compact, expected, len);
}

static void test_parse_gives_the_tree_of_what_it_checked(void **state)
{
    struct cJSON *json;
    assert_int_equal(amp_json_parse(amp_bytes_of("{\"a\":[1]}"), &json, NULL), AMP_OK);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(json, "a")), 1);
    cJSON_Delete(json);
    assert_int_equal(amp_json_parse(amp_bytes_of("{\"a\":[1]},"), &json, NULL), AMP_MALFORMED);
}

static void assert_same(const cJSON *own, const cJSON *other)
{
    for (; own && other; own = own->next, other = other->next) {
        assert_int_equal(own->type, other->type);
        assert_int_equal(own->valueint, other->valueint);
        assert_memory_equal(&own->valuedouble, &other->valuedouble, sizeof own->valuedouble);
        assert_true(!own->valuestring == !other->valuestring && !own->string == !other->string);
        if (own->valuestring)
            assert_string_equal(own->valuestring, other->valuestring);
        if (own->string)
            assert_string_equal(own->string, other->string);
        assert_true(!own->prev == !other->prev);
        assert_same(own->child, other->child);
    }
    assert_true(!own && !other);
}

static void test_the_tree_is_that_of_cjson(void **state)
{
    static const char *const texts[] = {
        "null", " true ", "false", "0", "-0", "12", "-1.25e-3", "1e308", "123456789012345678", "-9999999999", "0.1", "2147483647", "2147483648", "-2147483649", "\"\"", "\"plain\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\ud83d\\ude00\"", "\"\xc3\xa4\xf0\x9f\x98\x80\"", "[]", "{}", "[[],{},[1,[2,[3]]]]", "{\"\":0,\"a\\n\":{\"b\":[true,false,null,\"x\"]},\"c\":-1}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct cJSON *json, *other = cJSON_Parse(texts[i]);
        assert_int_equal(amp_json_parse(amp_bytes_of(texts[i]), &json, NULL), AMP_OK);
        assert_same(json, other);
        cJSON_Delete(json);
        cJSON_Delete(other);
    }
}

static void test_a_tree_that_breaks_off_is_gone(void **state)
{
    static const char *const texts[] = {"{\"a\":[1,{\"b\":\"c\",\"d\":", "[1,2", "{\"a\"", "{\"a\":1,\"a\":2}", "[\"\xff\"]", "", "[1]]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct cJSON *json = NULL;
        assert_int_equal(amp_json_parse(amp_bytes_of(texts[i]), &json, NULL), AMP_MALFORMED);
        assert_null(json);
    }
}

static void test_a_long_number_is_a_number(void **state)
{
    char text[200];
    struct cJSON *json;
    memset(text, '1', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(amp_json_parse(amp_bytes_of(text), &json, NULL), AMP_OK);
    assert_true(json->valuedouble > 1e197 && json->valuedouble < 1e199);
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_json_value_is_taken),
        cmocka_unit_test(test_everything_else_is_refused),
        cmocka_unit_test(test_a_key_twice_is_found_among_many),
        cmocka_unit_test(test_limits_hold_at_their_edge),
        cmocka_unit_test(test_depth_is_bounded_whatever_the_caller_allows),
        cmocka_unit_test(test_compacting_keeps_white_space_in_strings),
        cmocka_unit_test(test_parse_gives_the_tree_of_what_it_checked),
        cmocka_unit_test(test_the_tree_is_that_of_cjson),
        cmocka_unit_test(test_a_tree_that_breaks_off_is_gone),
        cmocka_unit_test(test_a_long_number_is_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
