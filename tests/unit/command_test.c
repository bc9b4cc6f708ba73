#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cjson/cJSON.h>
#include <unistd.h>

#include "base/command.h"

/* ---- commands that note what they were given ------------------------------------------------------------------ */

static struct {
    unsigned runs;
    char name[32], timeout[32], files[128], rest[256], bus[64];
    bool is_verbose, is_durable, is_json, has_dashes;
    size_t n_rest, n_before;
} seen;

static void join(char *ret, size_t size, const char *const *words)
{
    *ret = '\0';
    for (; words && *words; words++) {
        size_t len = strlen(ret);
        snprintf(ret + len, size - len, "%s%s", len ? "|" : "", *words);
    }
}

static const char *or_none(const char *text)
{
    return text ? text : "(none)";
}

static int run_ask(const struct command *command, struct command_args *args)
{
    seen.runs++;
    snprintf(seen.name, sizeof seen.name, "%s", command->name);
    snprintf(seen.timeout, sizeof seen.timeout, "%s", or_none(command_value(command, args, "timeout")));
    snprintf(seen.bus, sizeof seen.bus, "%s", or_none(command_value(command, args, "bus")));
    join(seen.files, sizeof seen.files, command_values(command, args, "file"));
    join(seen.rest, sizeof seen.rest, args->rest);
    seen.is_verbose = command_flag(command, args, "verbose");
    seen.is_durable = command_flag(command, args, "durable");
    seen.is_json = command_flag(command, args, "json");
    seen.has_dashes = args->has_dashes;
    seen.n_rest = args->n_rest;
    seen.n_before = args->n_before;
    return 42;
}

static const struct command_option options[] = {
    {.name = "timeout", .letter = 't', .arg = "TIME", .help = "time for the whole task"},
    {.name = "file", .letter = 'f', .arg = "F", .help = "attach a file", .is_repeatable = true},
    {.name = "verbose", .letter = 'v', .help = "tell more than the answer, which is a text so long that it has to be continued on the next line of the help"},
    {.name = "durable", .letter = 'd', .help = "journalled"},
    {0},
};

static const struct command first[] = {
    {.name = "ask", .operands = "AGENT TEXT", .summary = "ask an agent", .details = "Some detail.\n\n  verbatim   spaces", .options = options, .run = run_ask},
    {.name = "run", .operands = "[--] COMMAND…", .summary = "run an agent", .options = options, .run = run_ask},
    {0},
};
static const struct command second[] = {
    {.name = "task", .operands = "COMMAND", .summary = "tasks", .options = options, .run = run_ask},
    {.name = "task ls", .operands = "", .summary = "list tasks", .options = options, .run = run_ask},
    {.name = "task show", .operands = "ID", .summary = "show a task", .options = options, .run = run_ask},
    {.name = "secret", .operands = "", .summary = "not for people", .options = options, .run = run_ask, .is_hidden = true},
    {0},
};
static const struct command *const tables[] = {first, second, NULL};

/* ---- running with both outputs caught --------------------------------------------------------------------------- */

static char out[16384], err[4096];

static void slurp(FILE *file, char *ret, size_t size)
{
    rewind(file);
    ret[fread(ret, 1, size - 1, file)] = '\0';
    fclose(file);
}

static int run_words(int argc, char **argv)
{
    FILE *files[2] = {tmpfile(), tmpfile()};
    int saved[2] = {dup(1), dup(2)};
    memset(&seen, 0, sizeof seen);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dup2(fileno(files[i]), i + 1), i + 1);
    }
    int status = command_main(tables, argc, argv);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], i + 1);
        close(saved[i]);
    }
    slurp(files[0], out, sizeof out);
    slurp(files[1], err, sizeof err);
    return status;
}

#define RUN(...) run_words((int)(sizeof((const char *[]){"amesh", __VA_ARGS__}) / sizeof(char *)), (char **)(const char *[]){"amesh", __VA_ARGS__, NULL})

/* ---- what is understood ------------------------------------------------------------------------------------------ */

static void test_values_may_stand_apart_behind_an_equals_sign_or_at_the_letter(void **state)
{
    assert_int_equal(RUN("ask", "--timeout", "1s", "up", "hi"), 42);
    assert_string_equal(seen.timeout, "1s");
    assert_int_equal(RUN("ask", "--timeout=2s", "up"), 42);
    assert_string_equal(seen.timeout, "2s");
    assert_int_equal(RUN("ask", "-t", "3s", "up"), 42);
    assert_string_equal(seen.timeout, "3s");
    assert_int_equal(RUN("ask", "-t4s", "up"), 42);
    assert_string_equal(seen.timeout, "4s");
    assert_int_equal(RUN("ask", "--timeout=", "up"), 42);
    assert_string_equal(seen.timeout, "");
    assert_int_equal(RUN("ask", "-t", "-1", "--timeout", "--verbose"), 42); /* whatever follows is the value; the last one wins */
    assert_string_equal(seen.timeout, "--verbose");
    assert_false(seen.is_verbose);
}

static void test_flags_may_be_grouped_and_end_with_one_that_takes_a_value(void **state)
{
    assert_int_equal(RUN("ask", "-vdt5s", "up"), 42);
    assert_true(seen.is_verbose && seen.is_durable);
    assert_string_equal(seen.timeout, "5s");
    assert_int_equal(RUN("ask", "-v"), 42);
    assert_true(seen.is_verbose);
    assert_false(seen.is_durable);
}

static void test_a_repeated_option_keeps_all_its_values_in_order(void **state)
{
    assert_int_equal(RUN("ask", "-f", "a", "up", "--file=b", "-fc"), 42);
    assert_string_equal(seen.files, "a|b|c");
    assert_int_equal(RUN("ask", "up"), 42);
    assert_string_equal(seen.files, "");
}

static void test_options_may_follow_operands_and_a_lone_dash_is_an_operand(void **state)
{
    assert_int_equal(RUN("ask", "up", "-", "-v"), 42);
    assert_true(seen.is_verbose);
    assert_string_equal(seen.rest, "up|-");
}

static void test_two_dashes_end_the_options_once(void **state)
{
    assert_int_equal(RUN("ask", "up", "--", "-v", "--", "--nonsense"), 42);
    assert_false(seen.is_verbose);
    assert_true(seen.has_dashes);
    assert_string_equal(seen.rest, "up|-v|--|--nonsense");
    assert_int_equal(seen.n_before, 1);
    assert_int_equal(RUN("ask", "up"), 42);
    assert_false(seen.has_dashes);
    assert_int_equal(seen.n_before, 1);
}

static void test_a_command_line_of_somebody_else_is_left_untouched(void **state)
{
    assert_int_equal(RUN("run", "-v", "--", "python3", "-d", "x.py"), 42);
    assert_true(seen.is_verbose);
    assert_false(seen.is_durable);
    assert_string_equal(seen.rest, "python3|-d|x.py");
    assert_int_equal(seen.n_before, 0);
    assert_int_equal(RUN("run", "-v", "python3", "-d", "x.py"), 42);
    assert_false(seen.is_durable);
    assert_string_equal(seen.rest, "python3|-d|x.py");
}

static void test_the_longest_name_wins_and_common_options_may_come_first(void **state)
{
    assert_int_equal(RUN("task", "ls", "-v"), 42);
    assert_string_equal(seen.name, "task ls");
    assert_int_equal(RUN("--json", "--bus=nats://b", "task", "show", "t-1", "-v"), 42);
    assert_string_equal(seen.name, "task show");
    assert_string_equal(seen.rest, "t-1");
    assert_string_equal(seen.bus, "nats://b");
    assert_true(seen.is_json && seen.is_verbose);
    assert_int_equal(RUN("--home", "ask", "ask", "up"), 42); /* the value of --home is no command */
    assert_string_equal(seen.name, "ask");
    assert_string_equal(seen.rest, "up");
}

/* ---- what is not --------------------------------------------------------------------------------------------------- */

static void test_what_is_not_understood_is_a_usage_error_that_guesses(void **state)
{
    static const struct {
        const char *words[4];
        const char *message, *guess;
    } rows[] = {
        {{"aks"}, "unknown command aks", "did you mean ask?"},
        {{"tsk"}, "unknown command tsk", "did you mean task?"},
        {{"frobnicate"}, "unknown command frobnicate", NULL},
        {{"task", "lss"}, "unknown command task lss", "did you mean task ls?"},
        {{"task"}, "missing", NULL},
        {{"secre"}, "unknown command", NULL},
        {{"ask", "--timout", "1s"}, "unknown option --timout", "did you mean --timeout?"},
        {{"ask", "--timout=1s"}, "unknown option --timout", "did you mean --timeout?"},
        {{"ask", "--jsno"}, "unknown option --jsno", "did you mean --json?"},
        {{"ask", "-x"}, "unknown option -x", NULL},
        {{"ask", "-vx"}, "unknown option -x", NULL},
        {{"ask", "--timeout"}, "needs a value: --timeout", NULL},
        {{"ask", "-t"}, "needs a value: -t", NULL},
        {{"ask", "--verbose=1"}, "takes no value: --verbose", NULL},
        {{"--frob", "ask"}, "unknown option --frob", NULL},
        {{"ask", "---"}, "unknown option ---", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *argv[8] = {(char *)"amesh"};
        int argc = 1;
        for (int j = 0; j < 4 && rows[i].words[j]; j++) {
            argv[argc++] = (char *)rows[i].words[j];
        }
        int status = run_words(argc, argv);
        if (status != 2 || seen.runs != 0 || *out || !strstr(err, rows[i].message) || !strstr(err, "AMESH-1001") || !strstr(err, "--help") ||
            (rows[i].guess ? !strstr(err, rows[i].guess) : !!strstr(err, "did you mean"))) {
            fail_msg("row %zu: status %d, said: %s", i, status, err);
        }
    }
}

static void test_with_json_a_usage_error_is_the_error_document(void **state)
{
    assert_int_equal(RUN("ask", "--timout", "1s", "--json"), 2);
    cJSON *document = cJSON_ParseWithOpts(err, NULL, false);
    const cJSON *error = cJSON_GetObjectItem(document, "error");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(error, "code")), "AMESH-1001");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(error, "name")), "invalid");
    assert_non_null(strstr(cJSON_GetStringValue(cJSON_GetObjectItem(error, "message")), "--timeout"));
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(error, "hint")), "amesh ask --help");
    cJSON_Delete(document);
    assert_int_equal(RUN("ask", "--timout", "--", "--json"), 2); /* not ours any more */
    assert_int_not_equal(err[0], '{');
}

static void test_a_command_line_cannot_write_control_characters_to_the_terminal(void **state)
{
    assert_int_equal(RUN("\033[31m\nred\xff"), 2);
    assert_null(strchr(err, '\033'));
    assert_ptr_equal(strchr(err, '\n'), err + strlen(err) - 1);
    char large[100000];
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = '\0';
    assert_int_equal(RUN(large), 2);
    assert_true(strlen(err) < 500);
}

/* ---- help ------------------------------------------------------------------------------------------------------------ */

static void assert_narrow(void)
{
    for (const char *line = out; *line; line += strcspn(line, "\n") + 1) {
        assert_in_range(strcspn(line, "\n"), 0, 84); /* 80 columns; "…" has three bytes */
    }
}

static void test_help_comes_from_the_row_and_runs_nothing(void **state)
{
    assert_int_equal(RUN("ask", "up", "--help"), 0);
    assert_int_equal(seen.runs, 0);
    assert_non_null(strstr(out, "Usage: amesh ask [OPTION…] AGENT TEXT\n"));
    assert_non_null(strstr(out, "\n  verbatim   spaces\n"));
    assert_non_null(strstr(out, "  -t, --timeout TIME "));
    assert_non_null(strstr(out, "--file F …"));
    assert_non_null(strstr(out, "  -h, --help "));
    assert_string_equal(err, "");
    assert_narrow();
    assert_int_equal(RUN("ask", "-h"), 0);
    assert_non_null(strstr(out, "Usage: amesh ask"));
}

static void test_help_of_a_group_lists_its_commands_and_that_of_nothing_all_of_them(void **state)
{
    assert_int_equal(RUN("task", "--help"), 0);
    assert_non_null(strstr(out, "task show ID"));
    assert_null(strstr(out, "run an agent"));
    assert_int_equal(RUN("--help"), 0);
    assert_non_null(strstr(out, "ask AGENT TEXT"));
    assert_non_null(strstr(out, "task show ID"));
    assert_null(strstr(out, "secret"));
    assert_narrow();
}

static void test_without_any_command_the_list_goes_to_stderr_and_is_a_usage_error(void **state)
{
    assert_int_equal(run_words(1, (char *[]){(char *)"amesh", NULL}), 2);
    assert_string_equal(out, "");
    assert_non_null(strstr(err, "ask AGENT TEXT"));
}

static void test_rows_are_found_by_name(void **state)
{
    assert_int_equal(RUN("ask"), 42);
    assert_ptr_equal(command_find("task ls"), &second[1]);
    assert_null(command_find("task nothing"));
    assert_ptr_equal(command_tables(), tables);
}

/* ---- durations --------------------------------------------------------------------------------------------------------- */

static void test_durations_have_a_unit_or_are_seconds(void **state)
{
    static const struct {
        const char *text;
        bool is_good;
        unsigned ms;
    } rows[] = {
        {"30s", true, 30000}, {"500ms", true, 500}, {"2m", true, 120000}, {"1h", true, 3600000}, {"1.5s", true, 1500}, {"7", true, 7000},
        {"0.25", true, 250}, {"0", true, 0}, {"1176h", true, 4233600000u}, {"1177h", false, 0}, {"4294967296", false, 0},
        {"99999999999999999999s", false, 0}, {"", false, 0}, {"s", false, 0}, {"-1s", false, 0}, {"+1s", false, 0}, {" 1s", false, 0},
        {"1 s", false, 0}, {"1s ", false, 0}, {".5s", false, 0}, {"1.s", false, 0}, {"1e3", false, 0}, {"0x10", false, 0}, {"inf", false, 0},
        {"nan", false, 0}, {"1d", true, 86400000}, {"50d", false, 0}, {"1w", false, 0}, {"soon", false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned ms = 0;
        if (command_duration_ms(rows[i].text, &ms) != rows[i].is_good || ms != rows[i].ms) {
            fail_msg("\"%s\": %u", rows[i].text, ms);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_may_stand_apart_behind_an_equals_sign_or_at_the_letter),
        cmocka_unit_test(test_flags_may_be_grouped_and_end_with_one_that_takes_a_value),
        cmocka_unit_test(test_a_repeated_option_keeps_all_its_values_in_order),
        cmocka_unit_test(test_options_may_follow_operands_and_a_lone_dash_is_an_operand),
        cmocka_unit_test(test_two_dashes_end_the_options_once),
        cmocka_unit_test(test_a_command_line_of_somebody_else_is_left_untouched),
        cmocka_unit_test(test_the_longest_name_wins_and_common_options_may_come_first),
        cmocka_unit_test(test_what_is_not_understood_is_a_usage_error_that_guesses),
        cmocka_unit_test(test_with_json_a_usage_error_is_the_error_document),
        cmocka_unit_test(test_a_command_line_cannot_write_control_characters_to_the_terminal),
        cmocka_unit_test(test_help_comes_from_the_row_and_runs_nothing),
        cmocka_unit_test(test_help_of_a_group_lists_its_commands_and_that_of_nothing_all_of_them),
        cmocka_unit_test(test_without_any_command_the_list_goes_to_stderr_and_is_a_usage_error),
        cmocka_unit_test(test_rows_are_found_by_name),
        cmocka_unit_test(test_durations_have_a_unit_or_are_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
