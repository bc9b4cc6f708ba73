/* Colours, columns, short forms: what people see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/print.h"

static const struct print_env plain_env = {.term = "xterm-256color", .lang = "C.UTF-8"};

static void test_a_terminal_has_colours_and_a_pipe_has_none(void **state)
{
    assert_true(print_style_of(true, false, &plain_env).has_color);
    assert_false(print_style_of(false, false, &plain_env).has_color);
}

static void test_no_color_the_option_and_a_dumb_terminal_turn_colours_off(void **state)
{
    struct print_env no_color = plain_env, dumb = plain_env, empty = plain_env;
    no_color.no_color = "1";
    no_color.force_color = "1";
    dumb.term = "dumb";
    empty.no_color = "";
    assert_false(print_style_of(true, false, &no_color).has_color);
    assert_false(print_style_of(true, true, &plain_env).has_color);
    assert_false(print_style_of(true, false, &dumb).has_color);
    assert_true(print_style_of(true, false, &empty).has_color);
}

static void test_force_color_colours_a_pipe(void **state)
{
    struct print_env force = plain_env, zero = plain_env;
    force.force_color = "1";
    zero.force_color = "0";
    assert_true(print_style_of(false, false, &force).has_color);
    assert_false(print_style_of(true, false, &zero).has_color);
}

static void test_symbols_need_a_utf8_locale(void **state)
{
    struct print_env posix = plain_env;
    posix.lang = "C";
    assert_true(print_style_of(true, false, &plain_env).has_utf8);
    assert_false(print_style_of(true, false, &posix).has_utf8);
}

static char *written(void (*write)(FILE *to, const void *arg), const void *arg)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    write(to, arg);
    fclose(to);
    return text;
}

static void write_hostile(FILE *to, const void *style)
{
    print_text(to, style, amp_bytes_of("a\x1b]52;c;ZXZpbA==\x07" "b\r\xe2\x80\xae" "c\n"));
}

static void test_text_of_agents_cannot_move_a_terminal(void **state)
{
    struct print_style terminal = {.is_terminal = true};
    char *text = written(write_hostile, &terminal);
    assert_null(strchr(text, '\x1b'));
    assert_null(strchr(text, '\x07'));
    assert_null(strchr(text, '\r'));
    assert_null(strstr(text, "\xe2\x80\xae"));
    assert_non_null(strchr(text, '\n'));
    free(text);
}

static void test_text_into_a_pipe_stays_as_it_is(void **state)
{
    struct print_style pipe = {0};
    char *text = written(write_hostile, &pipe);
    assert_string_equal(text, "a\x1b]52;c;ZXZpbA==\x07" "b\r\xe2\x80\xae" "c\n");
    free(text);
}

static void test_a_line_is_cut_at_characters_not_at_bytes(void **state)
{
    char *line = print_line("ääää", 3);
    assert_string_equal(line, "ää…");
    free(line);
    line = print_line("", 3);
    assert_string_equal(line, "");
    free(line);
}

static void write_table(FILE *to, const void *arg)
{
    static const char *const columns[] = {"NAME", "STATE"}, *const first[] = {"ä", "up"}, *const second[] = {"long\nname", NULL};
    struct print_table table;
    print_table_init(&table, columns, 2);
    assert_true(print_table_add(&table, first));
    assert_true(print_table_add(&table, second));
    print_table_write(to, arg, &table, 1);
    print_table_done(&table);
}

static void test_columns_line_up_by_characters_and_a_cell_is_one_line(void **state)
{
    struct print_style style = {0};
    char *text = written(write_table, &style);
    assert_string_equal(text, "NAME           STATE\n"
                              "ä              up\n"
                              "long\\u{A}name  -\n");
    free(text);
}

static void write_three(FILE *to, const void *arg)
{
    static const char *const columns[] = {"NAME", "STATE", "TEXT"}, *const row[] = {"shout", "up", "makes what it is told loud"},
                            *const other[] = {"x", "gone", NULL};
    struct print_table table;
    print_table_init(&table, columns, 3);
    assert_true(print_table_add(&table, row));
    assert_true(print_table_add(&table, other));
    print_table_write(to, arg, &table, -1);
    print_table_done(&table);
}

static void test_where_columns_are_few_the_last_cell_is_cut_visibly(void **state)
{
    struct print_style style = {.width = 30};
    char *text = written(write_three, &style);
    assert_string_equal(text, "NAME   STATE  TEXT\n"
                              "shout  up     makes what it i…\n"
                              "x      gone   -\n");
    free(text);
}

static void test_where_they_are_too_few_each_row_is_a_block_with_all_of_it(void **state)
{
    struct print_style style = {.width = 20};
    char *text = written(write_three, &style);
    assert_string_equal(text, "NAME   shout\n"
                              "STATE  up\n"
                              "TEXT   makes what it is told loud\n"
                              "\n"
                              "NAME   x\n"
                              "STATE  gone\n"
                              "TEXT   -\n");
    free(text);
}

static void test_a_table_grows_past_its_first_block(void **state)
{
    static const char *const columns[] = {"A", "B", "C"};
    struct print_table table;
    print_table_init(&table, columns, 3);
    for (int i = 0; i < 1000; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        const char *cells[] = {number, "x", "y"};
        assert_true(print_table_add(&table, cells));
    }
    assert_int_equal(table.n_rows, 1000);
    assert_string_equal(table.cells[1000 * 3], "999");
    print_table_done(&table);
}

static void test_short_forms(void **state)
{
    char text[PRINT_SHORT_SIZE];
    static const struct {
        int64_t ms;
        const char *text;
    } durations[] = {{-5, "0 ms"}, {999, "999 ms"}, {1500, "1.5 s"}, {61000, "1 m 1 s"}, {3661000, "1 h 1 m"}, {90000000, "1 d 1 h"}};
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        print_duration(durations[i].ms, text);
        assert_string_equal(text, durations[i].text);
    }
    print_bytes(512, text);
    assert_string_equal(text, "512 B");
    print_bytes(1536, text);
    assert_string_equal(text, "1.5 KiB");
    print_bytes(UINT64_MAX, text);
    assert_string_equal(text, "16777216 TiB");
    print_clock(0, text);
    assert_string_equal(text, "--:--:--.---");
}

static void test_a_command_to_paste_is_quoted(void **state)
{
    char *text = print_quoted("t-01.x");
    assert_string_equal(text, "t-01.x");
    free(text);
    text = print_quoted("it's");
    assert_string_equal(text, "'it'\\''s'");
    free(text);
    text = print_quoted("");
    assert_string_equal(text, "''");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_terminal_has_colours_and_a_pipe_has_none),
        cmocka_unit_test(test_no_color_the_option_and_a_dumb_terminal_turn_colours_off),
        cmocka_unit_test(test_force_color_colours_a_pipe),
        cmocka_unit_test(test_symbols_need_a_utf8_locale),
        cmocka_unit_test(test_text_of_agents_cannot_move_a_terminal),
        cmocka_unit_test(test_text_into_a_pipe_stays_as_it_is),
        cmocka_unit_test(test_a_line_is_cut_at_characters_not_at_bytes),
        cmocka_unit_test(test_columns_line_up_by_characters_and_a_cell_is_one_line),
        cmocka_unit_test(test_where_columns_are_few_the_last_cell_is_cut_visibly),
        cmocka_unit_test(test_where_they_are_too_few_each_row_is_a_block_with_all_of_it),
        cmocka_unit_test(test_a_table_grows_past_its_first_block),
        cmocka_unit_test(test_short_forms),
        cmocka_unit_test(test_a_command_to_paste_is_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
