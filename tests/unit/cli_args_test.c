/* The tables of the command line: whole, without contradictions; wrong use is said before anything is done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/media_type.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/help.h"
#include "cli/message.h"

static const struct command *const tables[] = {ask_commands,     agent_commands, task_commands, kv_commands,
                                               observe_commands, inside_commands, help_commands, NULL};

/* Runs a command with its output in files; *ret_out and *ret_err are the caller's. */
static char *read_back(FILE *file)
{
    long len = ftell(file);
    char *text = calloc(1, (size_t)len + 1);
    assert_non_null(text);
    rewind(file);
    assert_int_equal(fread(text, 1, (size_t)len, file), len);
    fclose(file);
    return text;
}

static int run(char *const *words, char **ret_out, char **ret_err)
{
    char *argv[16] = {(char *)"amesh"};
    int argc = 1;
    for (; words[argc - 1] != NULL; argc++)
        argv[argc] = words[argc - 1];
    FILE *out = tmpfile(), *err = tmpfile();
    fflush(NULL);
    int saved_out = dup(STDOUT_FILENO), saved_err = dup(STDERR_FILENO);
    dup2(fileno(out), STDOUT_FILENO);
    dup2(fileno(err), STDERR_FILENO);
    int status = command_main(tables, argc, argv);
    fflush(NULL);
    dup2(saved_out, STDOUT_FILENO);
    dup2(saved_err, STDERR_FILENO);
    close(saved_out);
    close(saved_err);
    fseek(out, 0, SEEK_END);
    fseek(err, 0, SEEK_END);
    *ret_out = read_back(out);
    *ret_err = read_back(err);
    return status;
}

#define RUN(...) run((char *[]){__VA_ARGS__, NULL}, &out, &err)

static void test_every_command_has_a_summary_details_and_a_way_to_run(void **state)
{
    for (size_t i = 0; tables[i] != NULL; i++) {
        for (const struct command *row = tables[i]; row->name != NULL; row++) {
            assert_non_null(row->summary);
            assert_true(row->run != NULL || command_is_group(row));
            assert_non_null(row->operands);
            assert_true(row->is_hidden || (row->details != NULL && strstr(row->details, "Examples:") != NULL));
        }
    }
}

static void test_no_two_options_of_a_command_share_a_name_or_a_letter(void **state)
{
    for (size_t i = 0; tables[i] != NULL; i++) {
        for (const struct command *row = tables[i]; row->name != NULL; row++) {
            for (const struct command_option *a = row->options; a->name != NULL; a++) {
                assert_non_null(a->help);
                for (const struct command_option *b = a + 1; b->name != NULL; b++) {
                    assert_string_not_equal(a->name, b->name);
                    assert_true(a->letter == 0 || a->letter != b->letter);
                }
                for (const struct command_option *b = command_common_options(); b->name != NULL; b++) {
                    assert_string_not_equal(a->name, b->name);
                    assert_true(a->letter == 0 || a->letter != b->letter);
                }
            }
        }
    }
}

static void test_wrong_use_exits_2_and_names_the_help(void **state)
{
    static char *const uses[][6] = {
        {"ask"},
        {"ask", "up"},
        {"ask", "up", "a", "b"},
        {"ask", "a.b", "text"},
        {"ask", "a b", "text"},
        {"ask", "a\r\nb", "text"},
        {"ask", "--timeout", "soon", "up", "x"},
        {"ask", "--skill", "s*", "x"},
        {"ask", "--key", "", "up", "x"},
        {"ls", "operand"},
        {"show"},
        {"task", "show"},
        {"task", "watch", "t-1", "--from", "minus"},
        {"task", "ls", "--state", "odd"},
        {"task", "ls", "--limit", "0"},
        {"kv", "get", "--shared", "--agent", "a", "k"},
        {"kv", "put", "--shared", "k"},
        {"tap", "--count", "none"},
        {"completion", "tcsh"},
    };
    unsetenv("AMESH_BUS");
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        char *out = NULL, *err = NULL;
        assert_int_equal(run(uses[i], &out, &err), 2);
        assert_string_equal(out, "");
        assert_non_null(strstr(err, "AMESH-1001"));
        assert_true(strstr(err, "Try: amesh help") || strstr(err, " --help"));
        assert_null(strchr(err, '\r'));
        free(out);
        free(err);
    }
}

static void test_with_json_a_usage_error_is_a_document(void **state)
{
    char *out = NULL, *err = NULL;
    assert_int_equal(RUN("ask", "--json", "up"), 2);
    assert_int_equal(strncmp(err, "{\"error\":{\"code\":\"AMESH-1001\"", 29), 0);
    free(out);
    free(err);
}

static void test_without_a_bus_the_next_step_is_up(void **state)
{
    char *out = NULL, *err = NULL;
    unsetenv("AMESH_BUS");
    assert_int_equal(RUN("ls", "--home", "/nonexistent/home"), 7);
    assert_non_null(strstr(err, "amesh up"));
    free(out);
    free(err);
}

static void test_help_of_a_command_is_its_help_option(void **state)
{
    char *out = NULL, *err = NULL, *out_option = NULL;
    assert_int_equal(RUN("help", "task", "watch"), 0);
    out_option = out;
    free(err);
    assert_int_equal(RUN("task", "watch", "--help"), 0);
    assert_string_equal(out, out_option);
    assert_non_null(strstr(out, "--from"));
    free(out);
    free(out_option);
    free(err);
}

static void test_the_manual_and_completion_name_every_command(void **state)
{
    const struct command *commands[HELP_COMMANDS_MAX];
    char *manual = NULL, *first = NULL, *out = NULL, *err = NULL;
    assert_int_equal(run((char *[]){"man", NULL}, &manual, &err), 0);
    free(err);
    assert_int_equal(run((char *[]){"__complete", "--", "", NULL}, &first, &err), 0);
    free(err);
    size_t count = help_commands_list(commands, HELP_COMMANDS_MAX);
    assert_true(count > 15);
    for (size_t i = 0; i < count; i++) {
        char group[32];
        const char *space = strchr(commands[i]->name, ' ');
        snprintf(group, sizeof group, "%.*s", (int)strcspn(commands[i]->name, " "), commands[i]->name);
        assert_non_null(strstr(manual, commands[i]->name));
        assert_non_null(strstr(first, group));
        if (space != NULL) {
            assert_int_equal(RUN("__complete", "--", group, ""), 0);
            assert_non_null(strstr(out, space + 1));
            free(out);
            free(err);
        }
    }
    free(first);
    free(manual);
}

static void test_completion_offers_what_may_stand_there_and_nothing_else(void **state)
{
    static const struct {
        char *words[6];
        const char *wanted;
    } cases[] = {
        {{"tas"}, "task\t"},
        {{"task", "w"}, "watch\t"},
        {{"task", "ls", "--li"}, "--limit\t"},
        {{"task", "ls", "-n", "3", "--li"}, "--limit\t"},
        {{"task", "ls", "--state", "wor"}, "working\n"},
        {{"task", "ls", "--state=wor"}, "--state=working\n"},
        {{"task", "ls", "--state", "=", "wor"}, "working\n"},
        {{"task", "ls", "-n", "wor"}, ""},
        {{"help", "task", "wa"}, "watch\t"},
        {{"help", "ls", ""}, ""},
        {{"ls", ""}, ""},
        {{"nothing", ""}, ""},
        {{"ask", "--file", ""}, ":files\n"},
        {{"ask", "--", "--na"}, ":files\n"},
        {{"--js"}, "--json\t"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[10] = {"__complete", "--"}, *out = NULL, *err = NULL;
        memcpy(argv + 2, cases[i].words, sizeof cases[i].words);
        assert_int_equal(run(argv, &out, &err), 0);
        if (strncmp(out, cases[i].wanted, *cases[i].wanted != '\0' ? strlen(cases[i].wanted) : 1) != 0)
            fail_msg("case %zu: %s", i, out);
        free(out);
        free(err);
    }
}

static void test_a_page_of_help_for_a_name_that_is_none_is_a_usage_error(void **state)
{
    static char *const wrong[][4] = {{"help", "task", "sho"}, {"task", "sho", "--help"}, {"help", "ask", "more"}, {"help", "nothing"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *out = NULL, *err = NULL;
        assert_int_equal(run(wrong[i], &out, &err), 2);
        assert_string_equal(out, "");
        assert_true(i > 1 || strstr(err, "did you mean task show?") != NULL);
        free(out);
        free(err);
    }
}

static void test_media_types_come_from_the_name(void **state)
{
    assert_string_equal(media_type_of("a/b.JSON"), "application/json");
    assert_string_equal(media_type_of("dir.png/file"), "application/octet-stream");
    assert_string_equal(media_type_of("x.tar.gz"), "application/gzip");
}

static void test_a_message_carries_text_and_files(void **state)
{
    char path[] = "/tmp/amesh-test-XXXXXX.txt";
    int fd = mkstemps(path, 4);
    struct amp_arena arena;
    struct amp_error err = {0};
    Amp__Message *message = NULL;
    assert_int_equal(write(fd, "a\0b", 3), 3);
    close(fd);
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    struct message_source source = {.text = "see", .files = (const char *[]){path, NULL}};
    assert_int_equal(message_make(&source, &arena, &message, &err), AMP_OK);
    assert_int_equal(message->n_parts, 2);
    assert_string_equal(message->parts[0]->text, "see");
    assert_int_equal(message->parts[1]->raw.len, 3);
    assert_string_equal(message->parts[1]->filename, strrchr(path, '/') + 1);
    assert_string_equal(message->parts[1]->media_type, "text/plain");
    unlink(path);
    assert_int_equal(message_make(&source, &arena, &message, &err), AMP_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
    source = (struct message_source){.text = "bad \xff"};
    assert_int_equal(message_make(&source, &arena, &message, &err), AMP_INVALID);
    amp_arena_done(&arena);
}

static void test_the_sender_is_the_agent_or_the_user_and_always_a_valid_id(void **state)
{
    char from[AMP_NAME_MAX + 1];
    setenv("AMESH_AGENT", "up", 1);
    cli_from(from);
    assert_string_equal(from, "up");
    setenv("AMESH_AGENT", "not valid", 1);
    setenv("USER", "J. Döe", 1);
    cli_from(from);
    assert_true(amp_id_is_valid(from));
    assert_int_equal(strncmp(from, "cli-", 4), 0);
    unsetenv("AMESH_AGENT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_command_has_a_summary_details_and_a_way_to_run),
        cmocka_unit_test(test_no_two_options_of_a_command_share_a_name_or_a_letter),
        cmocka_unit_test(test_wrong_use_exits_2_and_names_the_help),
        cmocka_unit_test(test_with_json_a_usage_error_is_a_document),
        cmocka_unit_test(test_without_a_bus_the_next_step_is_up),
        cmocka_unit_test(test_help_of_a_command_is_its_help_option),
        cmocka_unit_test(test_the_manual_and_completion_name_every_command),
        cmocka_unit_test(test_completion_offers_what_may_stand_there_and_nothing_else),
        cmocka_unit_test(test_a_page_of_help_for_a_name_that_is_none_is_a_usage_error),
        cmocka_unit_test(test_media_types_come_from_the_name),
        cmocka_unit_test(test_a_message_carries_text_and_files),
        cmocka_unit_test(test_the_sender_is_the_agent_or_the_user_and_always_a_valid_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
