#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#define STATE(name) AMP__TASK_STATE__TASK_STATE_##name

/* amp.md 4.3, written once more by hand: rows are "from", letters are what may follow.
 * S submitted, W working, C completed, F failed, X canceled, I input, R rejected, A auth. */
static const char letters[] = "?SWCFXIRA";
static const char *const moves[] = {
    "SWCFXIRA", "SWCFXIRA", "WCFXIRA", "", "", "", "WCFXIRA", "", "WCFXIRA",
};

static void test_the_moves_are_those_of_the_document(void **state)
{
    for (int from = 0; from < 9; from++) {
        for (int to = 0; to < 9; to++) {
            bool expected = to != 0 && strchr(moves[from], letters[to]) != NULL;
            assert_int_equal(amp_task_may_move((Amp__TaskState)from, (Amp__TaskState)to), expected);
        }
    }
}

static void test_nothing_leaves_a_terminal_state_and_nothing_goes_back_to_submitted(void **state)
{
    for (int s = 0; s < 9; s++) {
        for (int from = 0; from < 9; from++) {
            if (amp_task_is_terminal((Amp__TaskState)from))
                assert_false(amp_task_may_move((Amp__TaskState)from, (Amp__TaskState)s));
        }
        if (s != STATE(SUBMITTED) && s != STATE(UNSPECIFIED))
            assert_false(amp_task_may_move((Amp__TaskState)s, STATE(SUBMITTED)));
    }
}

static void test_numbers_that_are_no_state_move_nowhere(void **state)
{
    assert_false(amp_task_may_move((Amp__TaskState)77, STATE(WORKING)));
    assert_false(amp_task_may_move(STATE(WORKING), (Amp__TaskState)-1));
    assert_string_equal(amp_task_state_name((Amp__TaskState)77), "TASK_STATE_UNSPECIFIED");
    assert_string_equal(amp_task_state_short((Amp__TaskState)-1), "unspecified");
}

static void test_waiting_is_for_input_or_auth(void **state)
{
    for (int s = 0; s < 9; s++)
        assert_int_equal(amp_task_is_waiting((Amp__TaskState)s),
                         s == STATE(INPUT_REQUIRED) || s == STATE(AUTH_REQUIRED));
}

static void test_both_names_are_read_back_in_any_case(void **state)
{
    for (int s = 1; s < 9; s++) {
        assert_int_equal(amp_task_state_parse(amp_task_state_name((Amp__TaskState)s)), s);
        assert_int_equal(amp_task_state_parse(amp_task_state_short((Amp__TaskState)s)), s);
        assert_string_equal(amp_task_state_name((Amp__TaskState)s),
                            protobuf_c_enum_descriptor_get_value(&amp__task_state__descriptor, s)->name);
    }
    assert_int_equal(amp_task_state_parse("Input_Required"), STATE(INPUT_REQUIRED));
    assert_int_equal(amp_task_state_parse("task_state_working"), STATE(WORKING));
    assert_int_equal(amp_task_state_parse(""), STATE(UNSPECIFIED));
    assert_int_equal(amp_task_state_parse(NULL), STATE(UNSPECIFIED));
    assert_int_equal(amp_task_state_parse("workin"), STATE(UNSPECIFIED));
    assert_int_equal(amp_task_state_parse("workingx"), STATE(UNSPECIFIED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_moves_are_those_of_the_document),
        cmocka_unit_test(test_nothing_leaves_a_terminal_state_and_nothing_goes_back_to_submitted),
        cmocka_unit_test(test_numbers_that_are_no_state_move_nowhere),
        cmocka_unit_test(test_waiting_is_for_input_or_auth),
        cmocka_unit_test(test_both_names_are_read_back_in_any_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
