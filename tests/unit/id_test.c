#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

static void test_a_new_id_is_valid_and_says_its_kind(void **state)
{
    char id[AMP_ID_SIZE];
    amp_id_new('t', 1795600000000, id);
    assert_true(amp_id_is_valid(id));
    assert_int_equal(strlen(id), 28);
    assert_memory_equal(id, "t-", 2);
}

static void test_ids_sort_by_time(void **state)
{
    static const int64_t times_ms[] = {0, 1, 31, 32, 1000, 1795600000000, 1795600000001, (INT64_C(1) << 48) - 1};
    char last[AMP_ID_SIZE], id[AMP_ID_SIZE];
    amp_id_new('t', times_ms[0], last);
    for (size_t i = 1; i < sizeof(times_ms) / sizeof(times_ms[0]); i++) {
        amp_id_new('t', times_ms[i], id);
        assert_true(strcmp(last, id) < 0);
        memcpy(last, id, sizeof(id));
    }
}

static void test_ids_of_one_moment_differ(void **state)
{
    char ids[64][AMP_ID_SIZE];
    for (size_t i = 0; i < 64; i++) {
        amp_id_new('m', 1795600000000, ids[i]);
        assert_memory_equal(ids[i], ids[0], 12); /* the time */
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(ids[i], ids[k]);
    }
}

static void test_only_short_plain_names_are_ids(void **state)
{
    static const char *const good[] = {"a", "0", "_x", "my-agent_2", "a-", "t-01ke"};
    static const char *const bad[] = {"",  "-a",  "A",     "a.b",      "a b", "a*",    ">",
                                      "*", "a\n", "a\r\n", "\xc3\xa4", "a/b", "a\x7f", "a\x1b"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(amp_id_is_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(amp_id_is_valid(bad[i]));
    assert_false(amp_id_is_valid(NULL));
}

static void test_an_id_has_at_most_63_characters(void **state)
{
    char name[AMP_NAME_MAX + 2];
    memset(name, 'a', sizeof(name));
    name[AMP_NAME_MAX] = '\0';
    assert_true(amp_id_is_valid(name));
    name[AMP_NAME_MAX] = 'a';
    name[AMP_NAME_MAX + 1] = '\0';
    assert_false(amp_id_is_valid(name));
}

static void test_any_text_becomes_an_id(void **state)
{
    static const struct {
        const char *text, *id;
    } rows[] = {{"My Agent.py", "my-agent-py"},
                {"", "agent"},
                {"---", "agent"},
                {"  x  ", "x"},
                {"a...b", "a-b"},
                {"\xc3\xa4", "agent"},
                {"a_B-c", "a_b-c"},
                {"../../etc/passwd", "etc-passwd"},
                {"\x1b[2J", "2j"}};
    char id[AMP_NAME_MAX + 1];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        amp_id_from_text(rows[i].text, id);
        assert_string_equal(id, rows[i].id);
        assert_true(amp_id_is_valid(id));
    }
    amp_id_from_text(NULL, id);
    assert_string_equal(id, "agent");
}

static void test_a_long_text_is_cut_to_a_valid_id(void **state)
{
    char text[300], id[AMP_NAME_MAX + 1];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    text[62] = '.'; /* the cut falls behind a dash */
    amp_id_from_text(text, id);
    assert_int_equal(strlen(id), 62);
    assert_true(amp_id_is_valid(id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_id_is_valid_and_says_its_kind),
        cmocka_unit_test(test_ids_sort_by_time),
        cmocka_unit_test(test_ids_of_one_moment_differ),
        cmocka_unit_test(test_only_short_plain_names_are_ids),
        cmocka_unit_test(test_an_id_has_at_most_63_characters),
        cmocka_unit_test(test_any_text_becomes_an_id),
        cmocka_unit_test(test_a_long_text_is_cut_to_a_valid_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
