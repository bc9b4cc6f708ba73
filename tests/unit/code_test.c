#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

static void test_every_number_and_every_name_is_there_once(void **state)
{
    size_t n;
    const struct amp_code_info *table = amp_code_table(&n);
    assert_true(n > 30);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(table[i].code, table[k].code);
            assert_string_not_equal(table[i].name, table[k].name);
        }
    }
}

static void test_exit_codes_http_statuses_and_texts_are_usable(void **state)
{
    size_t n;
    const struct amp_code_info *table = amp_code_table(&n);
    for (size_t i = 0; i < n; i++) {
        bool is_exit = (table[i].exit >= 0 && table[i].exit <= 9) || table[i].exit == 130;
        assert_true(is_exit);
        assert_in_range(table[i].http, 200, 599);
        assert_true(strlen(table[i].text) > 3);
        assert_int_equal(strspn(table[i].name, "abcdefghijklmnopqrstuvwxyz_"), strlen(table[i].name));
        if (table[i].code != AMP_OK) {
            assert_in_range(table[i].code, 1001, 5999);
            assert_int_not_equal(table[i].exit, 0);
        }
        if (table[i].code / 1000 == 1)
            assert_false(table[i].is_retryable);
    }
}

static void test_a_code_knows_its_row(void **state)
{
    assert_string_equal(amp_code_info(AMP_NO_SUCH_AGENT)->name, "no_such_agent");
    assert_int_equal(amp_code_info(AMP_NO_SUCH_AGENT)->exit, 4);
    assert_string_equal(amp_code_info(AMP_OK)->name, "ok");
    assert_string_equal(amp_code_info(AMP_INPUT_REQUIRED)->name, "input_required");
}

static void test_an_unknown_number_is_internal(void **state)
{
    assert_int_equal(amp_code_info((enum amp_code)1234567)->code, AMP_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_number_and_every_name_is_there_once),
        cmocka_unit_test(test_exit_codes_http_statuses_and_texts_are_usable),
        cmocka_unit_test(test_a_code_knows_its_row),
        cmocka_unit_test(test_an_unknown_number_is_internal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
