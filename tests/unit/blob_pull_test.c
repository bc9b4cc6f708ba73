/* The machine that reads a blob: what it asks for, and what it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/blob_pull.h"

#define DIGEST "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define CHUNK AMP_BLOB_CHUNK_MAX

static const struct amp_blob_ref whole = {.digest = DIGEST, .holder = "i-1", .size = 20 * (uint64_t)CHUNK + 5};
static uint8_t bytes[CHUNK];

static Amp__Blob piece(uint64_t offset, size_t len)
{
    Amp__Blob blob = AMP__BLOB__INIT;
    blob.digest = DIGEST;
    blob.has_size = blob.has_offset = blob.has_data = 1;
    blob.size = whole.size;
    blob.offset = offset;
    blob.data = (ProtobufCBinaryData){len, bytes};
    return blob;
}

static size_t take(struct blob_pull *pull, uint64_t offset, size_t len, int64_t now_ms)
{
    struct amp_bytes got;
    Amp__Blob blob = piece(offset, len);
    assert_int_equal(blob_pull_take(pull, &blob, now_ms, &got, NULL), AMP_OK);
    return got.len;
}

static unsigned ask_all(struct blob_pull *pull, int64_t now_ms, uint64_t *ret_first)
{
    struct blob_pull_read read;
    unsigned n = 0;
    for (; blob_pull_next(pull, now_ms, &read); n++)
        if (n == 0 && ret_first)
            *ret_first = read.offset;
    return n;
}

static void test_one_read_goes_out_first_and_then_a_window(void **state)
{
    struct blob_pull pull;
    blob_pull_init(&pull, &whole, 0);
    assert_int_equal(ask_all(&pull, 0, NULL), 1);
    assert_int_equal(take(&pull, 0, CHUNK, 1), CHUNK);
    assert_int_equal(ask_all(&pull, 1, NULL), BLOB_WINDOW);
    assert_int_equal(take(&pull, CHUNK, CHUNK, 2), CHUNK);
    assert_int_equal(ask_all(&pull, 2, NULL), 1);
}

static void test_a_holder_with_small_messages_is_asked_for_as_much_as_it_sends(void **state)
{
    struct blob_pull pull;
    struct blob_pull_read read;
    blob_pull_init(&pull, &whole, 0);
    assert_int_equal(ask_all(&pull, 0, NULL), 1);
    assert_int_equal(take(&pull, 0, 1000, 1), 1000);
    assert_true(blob_pull_next(&pull, 1, &read));
    assert_int_equal(read.offset, 1000);
    assert_int_equal(read.length, 1000);
}

static void test_a_whole_blob_comes_in_order_to_its_last_byte(void **state)
{
    struct blob_pull pull;
    struct blob_pull_read read;
    uint64_t got = 0;
    blob_pull_init(&pull, &whole, 0);
    while (!blob_pull_is_complete(&pull)) {
        assert_true(blob_pull_next(&pull, 0, &read));
        got += take(&pull, read.offset, read.length, 0);
    }
    assert_int_equal(got, whole.size);
    assert_false(blob_pull_next(&pull, 0, &read));
}

static void test_what_is_lost_is_asked_for_again_and_what_comes_twice_is_not_taken_twice(void **state)
{
    struct blob_pull pull;
    uint64_t first = 0;
    blob_pull_init(&pull, &whole, 0);
    (void)ask_all(&pull, 0, NULL);
    (void)take(&pull, 0, CHUNK, 0);
    assert_int_equal(take(&pull, 0, CHUNK, 0), 0);
    (void)ask_all(&pull, 0, NULL);
    assert_int_equal(take(&pull, 2 * (uint64_t)CHUNK, CHUNK, 1), 0); /* a gap */
    assert_int_equal(ask_all(&pull, 1, NULL), 0);
    assert_int_equal(blob_pull_look(&pull, BLOB_AGAIN_MS + 1, NULL), AMP_OK);
    assert_int_equal(ask_all(&pull, BLOB_AGAIN_MS + 1, &first), BLOB_WINDOW);
    assert_int_equal(first, CHUNK);
}

static void test_a_holder_that_stays_silent_is_given_up_with_its_name_and_the_digest(void **state)
{
    struct blob_pull pull;
    struct amp_error err = {0};
    blob_pull_init(&pull, &whole, 0);
    (void)ask_all(&pull, 0, NULL);
    assert_int_equal(blob_pull_look(&pull, BLOB_IDLE_MS - 1, &err), AMP_OK);
    assert_int_equal(blob_pull_look(&pull, BLOB_IDLE_MS, &err), AMP_INSTANCE_LOST);
    assert_non_null(strstr(err.message, "i-1"));
    assert_non_null(strstr(err.message, DIGEST));
}

static void test_a_holder_that_sends_a_byte_now_and_then_is_given_up(void **state)
{
    struct blob_pull pull;
    struct amp_error err = {0};
    int64_t now_ms = 0;
    blob_pull_init(&pull, &whole, 0);
    for (; now_ms < BLOB_SLOW_MS; now_ms += BLOB_IDLE_MS / 2) {
        (void)ask_all(&pull, now_ms, NULL);
        assert_int_equal(take(&pull, pull.received, 1, now_ms), 1);
        assert_int_equal(blob_pull_look(&pull, now_ms, &err), AMP_OK);
    }
    assert_int_equal(blob_pull_look(&pull, now_ms + 1, &err), AMP_INSTANCE_LOST);
    assert_non_null(strstr(err.message, "too slowly"));
}

static void test_an_overloaded_holder_is_left_alone_for_as_long_as_it_says(void **state)
{
    struct blob_pull pull;
    struct amp_bytes got;
    blob_pull_init(&pull, &whole, 0);
    (void)ask_all(&pull, 0, NULL);
    Amp__Error error = AMP__ERROR__INIT;
    error.code = AMP_OVERLOADED;
    error.has_retry_after_ms = 1;
    error.retry_after_ms = 50;
    Amp__Blob blob = AMP__BLOB__INIT;
    blob.error = &error;
    assert_int_equal(blob_pull_take(&pull, &blob, 10, &got, NULL), AMP_OK);
    assert_int_equal(ask_all(&pull, 59, NULL), 0);
    assert_int_equal(ask_all(&pull, 60, NULL), 1);
}

static void test_answers_that_are_not_of_this_blob_end_it(void **state)
{
    struct blob_pull pull;
    struct amp_bytes got;
    Amp__Blob wrong[4];
    for (size_t i = 0; i < 4; i++)
        wrong[i] = piece(0, CHUNK);
    wrong[0].digest = "sha256-ffff456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    wrong[1].size++;
    wrong[2].data.len = 0;
    wrong[3].data.len = CHUNK + 1;
    for (size_t i = 0; i < 4; i++) {
        blob_pull_init(&pull, &whole, 0);
        (void)ask_all(&pull, 0, NULL);
        assert_int_equal(blob_pull_take(&pull, &wrong[i], 1, &got, NULL), AMP_BAD_ANSWER);
    }
    Amp__Error error = AMP__ERROR__INIT;
    error.code = AMP_NOT_FOUND;
    Amp__Blob blob = AMP__BLOB__INIT;
    blob.error = &error;
    blob_pull_init(&pull, &whole, 0);
    assert_int_equal(blob_pull_take(&pull, &blob, 1, &got, NULL), AMP_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_read_goes_out_first_and_then_a_window),
        cmocka_unit_test(test_a_holder_with_small_messages_is_asked_for_as_much_as_it_sends),
        cmocka_unit_test(test_a_whole_blob_comes_in_order_to_its_last_byte),
        cmocka_unit_test(test_what_is_lost_is_asked_for_again_and_what_comes_twice_is_not_taken_twice),
        cmocka_unit_test(test_a_holder_that_stays_silent_is_given_up_with_its_name_and_the_digest),
        cmocka_unit_test(test_a_holder_that_sends_a_byte_now_and_then_is_given_up),
        cmocka_unit_test(test_an_overloaded_holder_is_left_alone_for_as_long_as_it_says),
        cmocka_unit_test(test_answers_that_are_not_of_this_blob_end_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
