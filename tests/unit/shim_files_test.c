/* The shims in the program: what is written out is what is in adapters/, and a spoilt file is mended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/home.h"
#include "sidecar/shim_files.h"

static void free_list(char **list)
{
    for (char **each = list; *each; each++)
        free(*each);
    free(list);
}

static size_t size_of(const char *dir, const char *name, mode_t *ret_mode)
{
    struct stat info;
    char *path = xasprintf("%s/%s", dir, name);
    assert_int_equal(stat(path, &info), 0);
    free(path);
    *ret_mode = info.st_mode & 0777;
    return (size_t)info.st_size;
}

static void test_the_files_are_written_whole_and_private_and_mended(void **state)
{
    struct home home = {0};
    struct amp_error err = {0};
    char *dir, *again;
    mode_t mode;
    (void)snprintf(home.path, sizeof home.path, "/tmp/amesh-shim-XXXXXX");
    assert_non_null(mkdtemp(home.path));
    assert_int_equal(shim_files_write(&home, &dir, &err), AMP_OK);
    size_t size = size_of(dir, "amesh_shim.py", &mode);
    assert_true(size > 0);
    assert_int_equal(mode, 0600);
    (void)size_of(dir, ".", &mode);
    assert_int_equal(mode, 0700);
    char *path = xasprintf("%s/amesh_shim.py", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs("import evil\n", file);
    (void)fclose(file);
    assert_int_equal(shim_files_write(&home, &again, &err), AMP_OK);
    assert_string_equal(dir, again);
    assert_int_equal(size_of(dir, "amesh_shim.py", &mode), size);
    char *command = xasprintf("rm -rf %s", home.path);
    assert_int_equal(system(command), 0);
    free(command);
    free(path);
    free(dir);
    free(again);
}

static void test_a_home_that_cannot_be_written_is_an_error_with_a_hint(void **state)
{
    struct home home = {.path = "/proc/no/home"};
    struct amp_error err = {0};
    char *dir;
    assert_int_equal(shim_files_write(&home, &dir, &err), AMP_INTERNAL);
    assert_non_null(strstr(err.hint, "AMESH_HOME"));
}

static void test_the_ending_of_the_file_chooses_the_shim(void **state)
{
    assert_int_equal(shim_language_of("dir.d/app.py:agent"), SHIM_PYTHON);
    assert_int_equal(shim_language_of("app.py"), SHIM_PYTHON);
    assert_int_equal(shim_language_of("app.mjs:default"), SHIM_JS);
    assert_int_equal(shim_language_of("a.js"), SHIM_JS);
    assert_int_equal(shim_language_of("app.rb:x"), SHIM_NONE);
    assert_int_equal(shim_language_of("py"), SHIM_NONE);
}

static void test_the_command_prefers_the_named_interpreter_then_the_venv(void **state)
{
    unsetenv("VIRTUAL_ENV");
    char **argv = shim_command("/d", "app.py:x", "/opt/py");
    assert_string_equal(argv[0], "/opt/py");
    assert_string_equal(argv[1], "/d/amesh_shim.py");
    assert_string_equal(argv[2], "app.py:x");
    assert_null(argv[3]);
    free_list(argv);
    argv = shim_command("/d", "app.py:x", NULL);
    assert_string_equal(argv[0], "python3");
    free_list(argv);
    setenv("VIRTUAL_ENV", "/nonexistent", 1);
    argv = shim_command("/d", "app.py:x", NULL);
    assert_string_equal(argv[0], "python3");
    free_list(argv);
    unsetenv("VIRTUAL_ENV");
    argv = shim_command("/d", "app.mjs", NULL);
    assert_string_equal(argv[0], "node");
    assert_string_equal(argv[1], "/d/amesh_shim.mjs");
    free_list(argv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_files_are_written_whole_and_private_and_mended),
        cmocka_unit_test(test_a_home_that_cannot_be_written_is_an_error_with_a_hint),
        cmocka_unit_test(test_the_ending_of_the_file_chooses_the_shim),
        cmocka_unit_test(test_the_command_prefers_the_named_interpreter_then_the_venv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
