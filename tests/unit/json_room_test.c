/* Trees of JSON that live for one line: where they lie, and that nothing else lies there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_room.h"

static cJSON *parse(const char *text)
{
    cJSON *tree = NULL;
    assert_int_equal(json_room_parse(amp_bytes_of(text), &tree, NULL), AMP_OK);
    return tree;
}

static const char *text_of(const cJSON *tree, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, name));
}

static void test_the_room_is_used_again_when_the_last_tree_is_freed(void **state)
{
    cJSON *first = parse("{\"a\":\"one\"}"), *second = parse("{\"a\":\"two\"}");
    assert_true((uintptr_t)second - (uintptr_t)first < 4096); /* behind each other */
    assert_string_equal(text_of(first, "a"), "one");
    json_room_free(first);
    assert_string_equal(text_of(second, "a"), "two");
    cJSON *third = parse("{\"a\":\"three\"}");
    assert_true((uintptr_t)third > (uintptr_t)second);
    json_room_free(second);
    json_room_free(third);
    cJSON *again = parse("{\"a\":\"four\"}");
    assert_ptr_equal(again, first);
    json_room_free(again);
}

static void test_text_that_is_none_leaves_nothing_behind(void **state)
{
    cJSON *tree = parse("{}"), *before = tree;
    json_room_free(tree);
    tree = NULL;
    assert_int_equal(json_room_parse(amp_bytes_of("{\"a\":[1,2,"), &tree, NULL), AMP_MALFORMED);
    assert_null(tree);
    tree = parse("{}");
    assert_ptr_equal(tree, before);
    json_room_free(tree);
    json_room_free(NULL);
}

/* The sanitizers' build sees what is not given back, or is given back to the wrong one. */
static void test_a_tree_larger_than_the_room_is_whole(void **state)
{
    enum { COUNT = 2000 };
    char text[16 * COUNT] = "[";
    for (int i = 0; i < COUNT; i++)
        strcat(text, i ? ",\"value\"" : "\"value\"");
    strcat(text, "]");
    cJSON *tree = parse(text), *item;
    int n = 0;
    cJSON_ArrayForEach(item, tree)
    {
        assert_string_equal(item->valuestring, "value");
        n++;
    }
    assert_int_equal(n, COUNT);
    json_room_free(tree);
}

static void test_what_is_made_from_a_tree_may_be_kept(void **state)
{
    cJSON *tree = parse("{\"id\":\"x\",\"params\":{\"a\":1}}");
    cJSON *copy = cJSON_Duplicate(tree, true);
    json_room_free(tree);
    tree = parse("{\"zz\":\"y\",\"others\":{\"b\":2}}");
    char *text = cJSON_PrintUnformatted(copy);
    assert_string_equal(text, "{\"id\":\"x\",\"params\":{\"a\":1}}");
    free(text);
    cJSON_Delete(copy);
    json_room_free(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_room_is_used_again_when_the_last_tree_is_freed),
        cmocka_unit_test(test_text_that_is_none_leaves_nothing_behind),
        cmocka_unit_test(test_a_tree_larger_than_the_room_is_whole),
        cmocka_unit_test(test_what_is_made_from_a_tree_may_be_kept),
    };
    json_room_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
