/* The spool on disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/blob_store.h"

#define OF_ABC "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static char home[64];

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    return remove(path);
}

static int begin(void **state)
{
    strcpy(home, "/tmp/blob-test-XXXXXX");
    return mkdtemp(home) ? 0 : -1;
}

static int end(void **state)
{
    return nftw(home, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static bool is_there(const char *holder)
{
    char path[256];
    struct stat info;
    snprintf(path, sizeof path, "%s/spool/%s", home, holder);
    return stat(path, &info) == 0;
}

static enum amp_code put(struct blob_store *store, const char *text, const char *wanted, struct blob *ret, struct amp_error *err)
{
    struct blob_intake *intake;
    enum amp_code code = blob_intake_begin(store, strlen(text), &intake, err);
    if (code != AMP_OK)
        return code;
    code = blob_intake_write(intake, amp_bytes_of(text), err);
    if (code == AMP_OK)
        return blob_intake_end(intake, wanted, ret, err);
    blob_intake_abort(intake);
    return code;
}

static void test_what_is_put_in_comes_out_by_its_digest_and_is_this_users_alone(void **state)
{
    struct blob blob = {.size = 0};
    char path[BLOB_PATH_SIZE], got[8] = "";
    struct stat info;
    struct blob_store *store = blob_store_new(home, "i-1", 0);
    assert_false(is_there("i-1")); /* nothing on disk before it is needed */
    assert_int_equal(put(store, "abc", OF_ABC, &blob, NULL), AMP_OK);
    assert_string_equal(blob.digest, OF_ABC);
    assert_int_equal(blob.size, 3);
    assert_int_equal(blob_store_read(store, OF_ABC, 1, got, sizeof got, 0, NULL), 2);
    assert_string_equal(got, "bc");
    assert_int_equal(blob_store_read(store, OF_ABC, 3, got, sizeof got, 0, NULL), 0);
    assert_true(blob_store_path(store, OF_ABC, path));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0400);
    assert_string_equal(blob_store_digest_of(store, path), OF_ABC);
    assert_null(blob_store_digest_of(store, "/etc/passwd"));
    blob_store_free(store);
    assert_false(is_there("i-1"));
}

static void test_the_same_bytes_are_kept_once(void **state)
{
    struct blob blob;
    struct blob_store *store = blob_store_new(home, "i-1", 0);
    assert_int_equal(put(store, "abc", NULL, &blob, NULL), AMP_OK);
    assert_int_equal(put(store, "abc", NULL, &blob, NULL), AMP_OK);
    assert_int_equal(blob_store_bytes(store), 3);
    blob_store_free(store);
}

static void test_bytes_of_another_digest_are_refused_and_leave_nothing(void **state)
{
    struct blob blob;
    struct amp_error err = {0};
    struct blob_store *store = blob_store_new(home, "i-1", 0);
    assert_int_equal(put(store, "abd", OF_ABC, &blob, &err), AMP_BAD_ANSWER);
    assert_non_null(strstr(err.message, OF_ABC));
    assert_int_equal(blob_store_bytes(store), 0);
    assert_false(blob_store_find(store, OF_ABC, &blob));
    blob_store_free(store);
}

static void test_a_full_spool_says_so_and_room_that_was_not_used_is_free_again(void **state)
{
    struct blob blob;
    struct blob_intake *intake;
    struct amp_error err = {0};
    struct blob_store *store = blob_store_new(home, "i-1", 10);
    assert_int_equal(blob_intake_begin(store, 8, &intake, &err), AMP_OK);
    assert_int_equal(put(store, "abc", NULL, &blob, &err), AMP_OVERLOADED);
    assert_non_null(strstr(err.message, "no room for 3 more"));
    assert_int_equal(blob_intake_write(intake, amp_bytes_of("ab"), NULL), AMP_OK);
    assert_int_equal(blob_intake_write(intake, amp_bytes_of("1234567"), &err), AMP_TOO_LARGE);
    blob_intake_abort(intake);
    assert_int_equal(blob_store_bytes(store), 0);
    assert_int_equal(put(store, "abc", NULL, &blob, &err), AMP_OK);
    assert_int_equal(blob_intake_begin(store, (uint64_t)AMP_BLOB_BYTES_MAX + 1, &intake, &err), AMP_TOO_LARGE);
    blob_store_free(store);
}

static void test_a_file_that_was_changed_is_not_there_until_it_is_brought_again(void **state)
{
    struct blob blob;
    char path[BLOB_PATH_SIZE], got[4] = "";
    struct amp_error err = {0};
    struct blob_store *store = blob_store_new(home, "i-1", 3); /* room for it once */
    assert_int_equal(put(store, "abc", NULL, &blob, NULL), AMP_OK);
    assert_true(blob_store_path(store, OF_ABC, path));
    assert_int_equal(chmod(path, 0600), 0);
    assert_true(blob_store_find(store, OF_ABC, &blob)); /* the bytes are the same */
    FILE *file = fopen(path, "r+"); /* at once, of the same size */
    assert_true(file && fputc('x', file) == 'x' && fclose(file) == 0);
    assert_false(blob_store_find(store, OF_ABC, &blob));
    assert_false(blob_store_path(store, OF_ABC, path));
    assert_int_equal(blob_store_read(store, OF_ABC, 0, got, 3, 0, &err), -1);
    assert_non_null(strstr(err.message, "was changed"));
    assert_int_equal(blob_store_bytes(store), 0);
    assert_int_equal(put(store, "abc", OF_ABC, &blob, &err), AMP_OK);
    assert_int_equal(blob_store_read(store, OF_ABC, 0, got, 3, 0, NULL), 3);
    assert_string_equal(got, "abc");
    blob_store_release(store, OF_ABC, 0);
    blob_store_release(store, OF_ABC, 0); /* both who had it */
    blob_store_expire(store, BLOB_EXPIRY_MS);
    assert_int_equal(blob_store_bytes(store), 0);
    blob_store_free(store);
}

static void test_what_nobody_holds_goes_some_time_after_its_last_use(void **state)
{
    struct blob blob;
    char got[4];
    struct blob_store *store = blob_store_new(home, "i-1", 0);
    assert_int_equal(put(store, "abc", NULL, &blob, NULL), AMP_OK);
    blob_store_expire(store, 10 * BLOB_EXPIRY_MS);
    assert_true(blob_store_find(store, OF_ABC, &blob)); /* held */
    blob_store_release(store, OF_ABC, 1000);
    assert_int_equal(blob_store_read(store, OF_ABC, 0, got, sizeof got, 5000, NULL), 3);
    blob_store_expire(store, 1000 + BLOB_EXPIRY_MS);
    assert_true(blob_store_find(store, OF_ABC, &blob)); /* used since */
    blob_store_expire(store, 5000 + BLOB_EXPIRY_MS);
    assert_false(blob_store_find(store, OF_ABC, &blob));
    assert_int_equal(blob_store_bytes(store), 0);
    assert_int_equal(blob_store_read(store, OF_ABC, 0, got, sizeof got, 0, NULL), -1);
    blob_store_free(store);
}

static void test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not(void **state)
{
    struct blob blob;
    struct blob_store *living = blob_store_new(home, "i-living", 0);
    assert_int_equal(put(living, "abc", NULL, &blob, NULL), AMP_OK);
    pid_t child = fork();
    if (child == 0) {
        char path[BLOB_PATH_SIZE];
        struct blob_store *store = blob_store_new(home, "i-dead", 0);
        if (put(store, "abc", NULL, &blob, NULL) == AMP_OK && blob_store_directory(store, "t-1", path, NULL) == AMP_OK)
            (void)kill(getpid(), SIGKILL);
        _exit(1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_true(is_there("i-dead"));
    struct blob_store *next = blob_store_new(home, "i-next", 0);
    assert_false(is_there("i-dead"));
    assert_true(blob_store_find(living, OF_ABC, &blob) && is_there("i-living"));
    blob_store_free(next);
    blob_store_free(living);
}

/* As blobs_job.c does it, without its thread. */
static enum amp_code put_kept(struct blob_store *store, const char *text, const char *wanted, struct blob *ret, struct amp_error *err)
{
    struct blob_intake *intake;
    struct blob_sync sync;
    bool is_there = false;
    enum amp_code code = blob_intake_begin(store, strlen(text), &intake, err);
    if (code == AMP_OK)
        code = blob_intake_write(intake, amp_bytes_of(text), err);
    if (code == AMP_OK)
        code = blob_intake_check(intake, wanted, &sync, &is_there, ret, err);
    if (code != AMP_OK || is_there)
        return code;
    blob_sync_run(&sync);
    return blob_intake_synced(intake, &sync, ret, err);
}

static const char *kept_path(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/kept/%s", home, name);
    return path;
}

static struct blob_store *open_kept(uint64_t bytes_max)
{
    char directory[128];
    snprintf(directory, sizeof directory, "%s/kept", home);
    return blob_store_open(directory, "env", bytes_max);
}

static void test_what_is_kept_is_there_after_the_process_and_half_files_are_not(void **state)
{
    struct blob blob;
    struct blob_intake *half;
    char got[4] = "";
    struct blob_store *store = open_kept(0);
    assert_int_equal(access(kept_path(""), F_OK), -1); /* not before it is needed */
    assert_int_equal(put_kept(store, "abc", OF_ABC, &blob, NULL), AMP_OK);
    assert_int_equal(put_kept(store, "abc", OF_ABC, &blob, NULL), AMP_OK);
    assert_int_equal(blob_store_bytes(store), 3);
    assert_int_equal(blob_intake_begin(store, 5, &half, NULL), AMP_OK);
    assert_int_equal(blob_intake_write(half, amp_bytes_of("ab"), NULL), AMP_OK);
    assert_int_equal(access(kept_path("in-2"), F_OK), 0);
    struct blob_store *next = open_kept(0); /* as after a kill */
    assert_int_equal(access(kept_path("in-2"), F_OK), -1);
    assert_int_equal(blob_store_bytes(next), 3);
    assert_true(blob_store_is_offered(next, OF_ABC));
    assert_int_equal(blob_store_read(next, OF_ABC, 0, got, 3, 0, NULL), 3);
    assert_string_equal(got, "abc");
    blob_store_expire(next, 10 * BLOB_EXPIRY_MS);
    assert_int_equal(blob_store_count(next), 1);
    blob_store_free(next);
    blob_intake_abort(half);
    blob_store_free(store);
    assert_int_equal(access(kept_path(OF_ABC), F_OK), 0);
}

static void test_what_is_kept_has_its_name_only_when_its_digest_is_right(void **state)
{
    struct blob blob;
    struct amp_error err = {0};
    struct blob_store *store = open_kept(0);
    assert_int_equal(put_kept(store, "abd", OF_ABC, &blob, &err), AMP_BAD_ANSWER);
    assert_int_equal(blob_store_bytes(store), 0);
    assert_int_equal(access(kept_path(OF_ABC), F_OK), -1);
    blob_store_free(store);
}

static void test_two_that_come_at_once_are_one_and_are_counted_once(void **state)
{
    struct blob blob;
    struct blob_intake *intakes[2];
    struct blob_sync syncs[2];
    bool is_there = false;
    struct blob_store *store = open_kept(0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(blob_intake_begin(store, 3, &intakes[i], NULL), AMP_OK);
        assert_int_equal(blob_intake_write(intakes[i], amp_bytes_of("abc"), NULL), AMP_OK);
        assert_int_equal(blob_intake_check(intakes[i], OF_ABC, &syncs[i], &is_there, &blob, NULL), AMP_OK);
        assert_false(is_there);
    }
    for (int i = 0; i < 2; i++)
        blob_sync_run(&syncs[i]);
    for (int i = 0; i < 2; i++)
        assert_int_equal(blob_intake_synced(intakes[i], &syncs[i], &blob, NULL), AMP_OK);
    assert_int_equal(blob_store_bytes(store), 3);
    assert_true(blob_store_find(store, OF_ABC, &blob));
    assert_false(blob_store_remove(store, OF_ABC));
    blob_store_release(store, OF_ABC, 0);
    assert_false(blob_store_remove(store, OF_ABC)); /* the other one holds it */
    blob_store_release(store, OF_ABC, 0);
    assert_true(blob_store_remove(store, OF_ABC));
    assert_int_equal(access(kept_path(OF_ABC), F_OK), -1);
    assert_int_equal(blob_store_bytes(store), 0);
    blob_store_free(store);
}

static void test_a_disk_that_fails_at_the_last_step_leaves_nothing_and_says_so(void **state)
{
    struct blob blob;
    struct blob_intake *intake;
    struct blob_sync sync;
    struct amp_error err = {0};
    bool is_there = false;
    struct blob_store *store = open_kept(0);
    assert_int_equal(blob_intake_begin(store, 3, &intake, NULL), AMP_OK);
    assert_int_equal(blob_intake_write(intake, amp_bytes_of("abc"), NULL), AMP_OK);
    assert_int_equal(blob_intake_check(intake, OF_ABC, &sync, &is_there, &blob, NULL), AMP_OK);
    blob_sync_run(&sync);
    sync.error = ENOSPC; /* what the directory's sync would have said */
    assert_int_equal(blob_intake_synced(intake, &sync, &blob, &err), AMP_OVERLOADED);
    assert_int_equal(blob_store_bytes(store), 0);
    assert_false(blob_store_find(store, OF_ABC, &blob));
    assert_int_equal(access(kept_path(OF_ABC), F_OK), -1);
    assert_int_equal(put_kept(store, "abc", OF_ABC, &blob, &err), AMP_OK); /* and the next one is fine */
    blob_store_free(store);
}

static void test_a_kept_file_that_was_changed_is_not_there_and_stays_as_it_is(void **state)
{
    struct blob blob;
    char got[4];
    struct amp_error err = {0};
    struct blob_store *store = open_kept(0);
    assert_int_equal(put_kept(store, "abc", OF_ABC, &blob, NULL), AMP_OK);
    assert_int_equal(chmod(kept_path(OF_ABC), 0600), 0);
    FILE *file = fopen(kept_path(OF_ABC), "r+");
    assert_true(file && fputc('x', file) == 'x' && fclose(file) == 0);
    assert_int_equal(blob_store_read(store, OF_ABC, 0, got, 3, 0, &err), -1);
    assert_int_equal(err.code, AMP_NOT_FOUND);
    assert_int_equal(access(kept_path(OF_ABC), F_OK), 0);
    assert_int_equal(put_kept(store, "abc", OF_ABC, &blob, NULL), AMP_OK);
    assert_int_equal(blob_store_read(store, OF_ABC, 0, got, 3, 0, NULL), 3);
    assert_int_equal(blob_store_bytes(store), 3);
    blob_store_free(store);
}

static void test_what_is_larger_than_the_whole_store_is_too_large_and_what_has_no_room_now_is_not(void **state)
{
    struct blob blob;
    struct blob_intake *intake;
    struct amp_error err = {0};
    struct blob_store *store = open_kept(4);
    assert_int_equal(put_kept(store, "abc", OF_ABC, &blob, NULL), AMP_OK);
    assert_int_equal(blob_intake_begin(store, 2, &intake, &err), AMP_OVERLOADED);
    assert_non_null(strstr(err.hint, "AMESH_ENV_SPOOL_BYTES"));
    assert_int_equal(blob_intake_begin(store, 5, &intake, &err), AMP_TOO_LARGE);
    blob_store_free(store);
}

static void test_what_is_no_file_of_ours_in_a_kept_store_is_left_alone(void **state)
{
    struct blob blob;
    struct blob_store *store = open_kept(0);
    assert_int_equal(put_kept(store, "abc", OF_ABC, &blob, NULL), AMP_OK);
    blob_store_free(store);
    assert_int_equal(symlink("/etc/passwd", kept_path("sha256-0000000000000000000000000000000000000000000000000000000000000000")), 0);
    assert_int_equal(mkdir(kept_path("sha256-1111111111111111111111111111111111111111111111111111111111111111"), 0700), 0);
    FILE *file = fopen(kept_path("README"), "w");
    assert_true(file && fclose(file) == 0);
    store = open_kept(0);
    assert_int_equal(blob_store_count(store), 1);
    blob_store_free(store);
    assert_int_equal(access(kept_path("README"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_put_in_comes_out_by_its_digest_and_is_this_users_alone, begin, end),
        cmocka_unit_test_setup_teardown(test_the_same_bytes_are_kept_once, begin, end),
        cmocka_unit_test_setup_teardown(test_bytes_of_another_digest_are_refused_and_leave_nothing, begin, end),
        cmocka_unit_test_setup_teardown(test_a_full_spool_says_so_and_room_that_was_not_used_is_free_again, begin, end),
        cmocka_unit_test_setup_teardown(test_a_file_that_was_changed_is_not_there_until_it_is_brought_again, begin, end),
        cmocka_unit_test_setup_teardown(test_what_nobody_holds_goes_some_time_after_its_last_use, begin, end),
        cmocka_unit_test_setup_teardown(test_what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not, begin, end),
        cmocka_unit_test_setup_teardown(test_what_is_kept_is_there_after_the_process_and_half_files_are_not, begin, end),
        cmocka_unit_test_setup_teardown(test_what_is_kept_has_its_name_only_when_its_digest_is_right, begin, end),
        cmocka_unit_test_setup_teardown(test_two_that_come_at_once_are_one_and_are_counted_once, begin, end),
        cmocka_unit_test_setup_teardown(test_a_disk_that_fails_at_the_last_step_leaves_nothing_and_says_so, begin, end),
        cmocka_unit_test_setup_teardown(test_a_kept_file_that_was_changed_is_not_there_and_stays_as_it_is, begin, end),
        cmocka_unit_test_setup_teardown(test_what_is_larger_than_the_whole_store_is_too_large_and_what_has_no_room_now_is_not, begin, end),
        cmocka_unit_test_setup_teardown(test_what_is_no_file_of_ours_in_a_kept_store_is_left_alone, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
