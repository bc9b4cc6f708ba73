#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/home.h"

static char root[64];

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    return remove(path);
}

static int begin(void **state)
{
    strcpy(root, "/tmp/home-test-XXXXXX");
    static const char *const names[] = {"AMESH_HOME", "AMESH_BUS", "AMESH_CREDS", "AMESH_INBOX", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HOME"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        unsetenv(names[i]);
    }
    return mkdtemp(root) ? 0 : -1;
}

static int end(void **state)
{
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *in_root(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static void open_home(struct home *home)
{
    struct amp_error err = {.code = AMP_OK};
    if (home_open(home, in_root("h"), NULL, true, &err) != AMP_OK) {
        fail_msg("%s", err.message);
    }
}

static const struct home_mesh example = {.bus = "nats://127.0.0.1:4222", .pid = 4711, .nats_pid = 4712, .version = "0.1.0", .since_unix_ms = 1795438800123};

static void test_the_place_is_the_argument_then_amesh_home_then_xdg_then_home(void **state)
{
    struct home home;
    setenv("HOME", in_root("me"), 1);
    assert_int_equal(home_open(&home, NULL, NULL, false, NULL), AMP_OK);
    assert_string_equal(home.path, in_root("me/.local/state/amesh"));
    setenv("XDG_STATE_HOME", "relative", 1); /* to be ignored */
    assert_int_equal(home_open(&home, NULL, NULL, false, NULL), AMP_OK);
    assert_string_equal(home.path, in_root("me/.local/state/amesh"));
    setenv("XDG_STATE_HOME", in_root("state"), 1);
    assert_int_equal(home_open(&home, NULL, NULL, false, NULL), AMP_OK);
    assert_string_equal(home.path, in_root("state/amesh"));
    setenv("AMESH_HOME", in_root("own/"), 1);
    assert_int_equal(home_open(&home, NULL, NULL, false, NULL), AMP_OK);
    assert_string_equal(home.path, in_root("own"));
    assert_int_equal(home_open(&home, in_root("given"), NULL, false, NULL), AMP_OK);
    assert_string_equal(home.path, in_root("given"));
}

static void test_no_place_at_all_is_an_error_with_a_hint(void **state)
{
    struct home home;
    struct amp_error err = {.code = AMP_OK};
    assert_int_equal(home_open(&home, NULL, NULL, false, &err), AMP_INVALID);
    assert_non_null(strstr(err.hint, "AMESH_HOME"));
}

static void test_a_relative_place_becomes_absolute_and_one_that_is_too_long_is_refused(void **state)
{
    struct home home;
    assert_int_equal(chdir(root), 0);
    assert_int_equal(home_open(&home, "here", NULL, true, NULL), AMP_OK);
    assert_string_equal(home.path, in_root("here"));
    assert_int_equal(access(in_root("here"), F_OK), 0);
    assert_int_equal(chdir("/"), 0);
    char longer[400];
    memset(longer, 'x', sizeof longer);
    longer[0] = '/';
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(home_open(&home, longer, NULL, false, NULL), AMP_INVALID);
}

static void test_a_place_is_made_for_its_owner_only_with_its_parents(void **state)
{
    struct home home;
    struct stat info;
    assert_int_equal(home_open(&home, in_root("a/b/c"), NULL, true, NULL), AMP_OK);
    assert_int_equal(stat(in_root("a/b/c"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    close(open(in_root("file"), O_CREAT | O_WRONLY, 0600));
    assert_int_not_equal(home_open(&home, in_root("file"), NULL, true, NULL), AMP_OK);
    assert_int_not_equal(home_open(&home, in_root("file/below"), NULL, true, NULL), AMP_OK);
}

static void test_the_bus_is_the_argument_then_amesh_bus_then_the_mesh_that_runs(void **state)
{
    struct home home;
    int fd;
    open_home(&home);
    assert_string_equal(home.bus, "");
    assert_int_equal(home_lock(&home, &fd, NULL), AMP_OK);
    assert_int_equal(home_mesh_write(&home, &example, NULL), AMP_OK);
    open_home(&home);
    assert_string_equal(home.bus, example.bus);
    setenv("AMESH_BUS", "nats://env", 1);
    setenv("AMESH_CREDS", "/etc/passwd", 1);
    open_home(&home);
    assert_string_equal(home.bus, "nats://env");
    assert_string_equal(home.creds, "/etc/passwd");
    assert_int_equal(home_open(&home, home.path, "nats://given", false, NULL), AMP_OK);
    assert_string_equal(home.bus, "nats://given");
    assert_string_equal(home.path, in_root("h"));
    close(fd);
}

static void test_a_url_that_can_be_no_bus_is_refused_by_where_it_stands(void **state)
{
    static const char *const good[] = {"nats://h",      "h",           "h:4222",         "tls://h:4222",  "TLS://h",           "nats://u:p@h:1", "u:a:b/c@h:65535", "nats://[::1]:4222", "[::1]",
                                       "nats://a,h:1 ", " tls://a , h", "nats://h:4222/", "nats://token@h", "nats://u:x:y@h,b"};
    static const char *const bad[] = {"http://h", "http://h:4222", "ftp://h", "ws://h:1", "unix:///tmp/bus", "nats://", "nats://:4222", "h:x", "h:0", "h:65536", "h:4222x", "nats:/h", "h:99999999999999999999",
                                      "nats://[::1", "nats://u:p@", "nats://h,http://b", "https://u:secret@h", "nats://u:secret@h:x", ",", "://h"};
    struct home home;
    open_home(&home);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct amp_error err = {0};
        if (home_open(&home, in_root("h"), good[i], false, &err) != AMP_OK)
            fail_msg("%s: %s", good[i], err.message);
        assert_string_equal(home.bus, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct amp_error err = {0};
        if (home_open(&home, in_root("h"), bad[i], false, &err) != AMP_INVALID)
            fail_msg("%s", bad[i]);
        assert_int_equal(strncmp(err.message, "--bus: '", 8), 0);
        assert_null(strstr(err.message, "secret"));
        assert_non_null(strstr(err.hint, "nats://"));
    }
    struct amp_error err = {0};
    setenv("AMESH_BUS", "http://h", 1);
    assert_int_equal(home_open(&home, in_root("h"), NULL, false, &err), AMP_INVALID);
    assert_int_equal(strncmp(err.message, "AMESH_BUS: 'http://h'", 21), 0);
    assert_int_equal(home_open(&home, in_root("h"), "nats://h", false, &err), AMP_OK);
    unsetenv("AMESH_BUS");
}

static void test_amesh_inbox_is_a_prefix_of_inboxes_or_refused_by_name(void **state)
{
    struct home home;
    open_home(&home);
    assert_string_equal(home.inbox, "");
    setenv("AMESH_INBOX", "_INBOX.planner-host2", 1);
    open_home(&home);
    assert_string_equal(home.inbox, "_INBOX.planner-host2");
    static const char *const bad[] = {"planner", "_INBOX.", "_INBOX.*", "_INBOX.a b", "amp.env.x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct amp_error err = {0};
        setenv("AMESH_INBOX", bad[i], 1);
        assert_int_equal(home_open(&home, in_root("h"), NULL, true, &err), AMP_INVALID);
        assert_non_null(strstr(err.message, "AMESH_INBOX"));
        assert_non_null(strstr(err.message, bad[i]));
        assert_non_null(strstr(err.hint, "_INBOX."));
    }
}

static void test_what_was_written_is_read_and_nothing_else_is_left_behind(void **state)
{
    struct home home;
    struct home_mesh mesh;
    struct dirent *entry;
    unsigned files = 0;
    int fd;
    open_home(&home);
    assert_int_equal(home_lock(&home, &fd, NULL), AMP_OK);
    assert_int_equal(home_mesh_write(&home, &example, NULL), AMP_OK);
    assert_int_equal(home_mesh_read(&home, &mesh, NULL), AMP_OK);
    assert_memory_equal(&mesh, &example, sizeof mesh);
    DIR *dir = opendir(home.path);
    while ((entry = readdir(dir))) {
        files += entry->d_name[0] != '.';
    }
    closedir(dir);
    assert_int_equal(files, 2); /* lock, mesh.json */
    home_mesh_remove(&home);
    assert_int_equal(home_mesh_read(&home, &mesh, NULL), AMP_NOT_FOUND);
    close(fd);
}

static void test_the_file_of_a_mesh_that_was_killed_counts_for_nothing(void **state)
{
    struct home home;
    struct home_mesh mesh;
    struct amp_error err = {.code = AMP_OK};
    int status, ready[2], fd;
    char byte;
    open_home(&home);
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct home_mesh mine = example;
        mine.pid = getpid();
        bool is_good = home_lock(&home, &fd, NULL) == AMP_OK && home_mesh_write(&home, &mine, NULL) == AMP_OK;
        byte = is_good ? 'y' : 'n';
        (void)!write(ready[1], &byte, 1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    assert_int_equal(home_mesh_read(&home, &mesh, NULL), AMP_OK);
    assert_int_equal(mesh.pid, child);
    assert_int_equal(home_lock(&home, &fd, &err), AMP_RUNNING);
    assert_non_null(strstr(err.message, home.path));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    assert_int_equal(home_mesh_read(&home, &mesh, NULL), AMP_NOT_FOUND);
    assert_int_equal(home_lock(&home, &fd, NULL), AMP_OK);
    close(fd);
    close(ready[0]);
    close(ready[1]);
}

static void write_file(const char *path, const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
}

static void test_a_file_that_is_not_ours_is_malformed_and_never_trusted(void **state)
{
    static const char *const texts[] = {
        "", "{}", "[]", "{\"bus\":1,\"pid\":1,\"natsPid\":0,\"version\":\"0\",\"since\":\"2026-11-23T10:00:00.000Z\"}",
        "{\"bus\":\"b\",\"pid\":-1,\"natsPid\":0,\"version\":\"0\",\"since\":\"2026-11-23T10:00:00.000Z\"}",
        "{\"bus\":\"b\",\"pid\":1e99,\"natsPid\":0,\"version\":\"0\",\"since\":\"2026-11-23T10:00:00.000Z\"}",
        "{\"bus\":\"b\",\"pid\":1,\"natsPid\":0,\"version\":\"0123456789012345678901234567890123456789\",\"since\":\"2026-11-23T10:00:00.000Z\"}",
        "{\"bus\":\"b\",\"pid\":1,\"natsPid\":0,\"version\":\"0\",\"since\":\"yesterday\"}",
    };
    struct home home;
    struct home_mesh mesh;
    int fd;
    open_home(&home);
    assert_int_equal(home_lock(&home, &fd, NULL), AMP_OK);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_file(in_root("h/mesh.json"), texts[i], strlen(texts[i]));
        assert_int_equal(home_mesh_read(&home, &mesh, NULL), AMP_MALFORMED);
    }
    static char large[100000];
    memset(large, ' ', sizeof large);
    write_file(in_root("h/mesh.json"), large, sizeof large);
    assert_int_equal(home_mesh_read(&home, &mesh, NULL), AMP_MALFORMED);
    close(fd);
}

static void test_a_socket_stands_in_the_home_or_where_its_path_is_short_enough(void **state)
{
    struct home home;
    struct stat info;
    char path[108], deep[240];
    open_home(&home);
    assert_int_equal(home_socket_path(&home, "i-1", path, NULL), AMP_OK);
    assert_string_equal(path, in_root("h/run/i-1.sock"));
    assert_int_equal(stat(in_root("h/run"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    snprintf(deep, sizeof deep, "%s/%0100d", root, 0);
    assert_int_equal(home_open(&home, deep, NULL, true, NULL), AMP_OK);
    setenv("XDG_RUNTIME_DIR", root, 1);
    assert_int_equal(home_socket_path(&home, "i-1", path, NULL), AMP_OK);
    assert_string_equal(path, in_root("amesh/i-1.sock"));
    assert_int_equal(home_socket_path(&home, "../evil", path, NULL), AMP_INVALID);
}

static void test_a_directory_open_to_others_is_closed_and_a_link_is_refused(void **state)
{
    struct home home;
    struct stat info;
    char path[108];
    open_home(&home);
    assert_int_equal(mkdir(in_root("h/run"), 0700), 0);
    assert_int_equal(chmod(in_root("h/run"), 0777), 0);
    assert_int_equal(home_socket_path(&home, "i-1", path, NULL), AMP_OK);
    assert_int_equal(stat(in_root("h/run"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(rmdir(in_root("h/run")), 0);
    assert_int_equal(symlink("/tmp", in_root("h/run")), 0);
    assert_int_equal(home_socket_path(&home, "i-1", path, NULL), AMP_DENIED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_place_is_the_argument_then_amesh_home_then_xdg_then_home, begin, end),
        cmocka_unit_test_setup_teardown(test_no_place_at_all_is_an_error_with_a_hint, begin, end),
        cmocka_unit_test_setup_teardown(test_a_relative_place_becomes_absolute_and_one_that_is_too_long_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(test_a_place_is_made_for_its_owner_only_with_its_parents, begin, end),
        cmocka_unit_test_setup_teardown(test_the_bus_is_the_argument_then_amesh_bus_then_the_mesh_that_runs, begin, end),
        cmocka_unit_test_setup_teardown(test_a_url_that_can_be_no_bus_is_refused_by_where_it_stands, begin, end),
        cmocka_unit_test_setup_teardown(test_amesh_inbox_is_a_prefix_of_inboxes_or_refused_by_name, begin, end),
        cmocka_unit_test_setup_teardown(test_what_was_written_is_read_and_nothing_else_is_left_behind, begin, end),
        cmocka_unit_test_setup_teardown(test_the_file_of_a_mesh_that_was_killed_counts_for_nothing, begin, end),
        cmocka_unit_test_setup_teardown(test_a_file_that_is_not_ours_is_malformed_and_never_trusted, begin, end),
        cmocka_unit_test_setup_teardown(test_a_socket_stands_in_the_home_or_where_its_path_is_short_enough, begin, end),
        cmocka_unit_test_setup_teardown(test_a_directory_open_to_others_is_closed_and_a_link_is_refused, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
