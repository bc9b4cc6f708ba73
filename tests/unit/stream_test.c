#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

struct take {
    uint32_t seq;
    size_t n;
    bool has_end;
    uint32_t count;
};

static enum amp_code take(struct amp_stream *stream, struct take from, uint32_t *skip, struct amp_error *err)
{
    Amp__Frame frame = AMP__FRAME__INIT;
    Amp__End end = AMP__END__INIT;
    frame.seq = from.seq;
    frame.n_events = from.n;
    end.count = from.count;
    frame.end = from.has_end ? &end : NULL;
    return amp_stream_take(stream, &frame, skip, err);
}

static void test_frames_in_order_are_taken_whole(void **state)
{
    struct amp_stream stream;
    uint32_t skip;
    amp_stream_init(&stream);
    assert_int_equal(take(&stream, (struct take){1, 2, false, 0}, &skip, NULL), AMP_OK);
    assert_int_equal(skip, 0);
    assert_int_equal(take(&stream, (struct take){3, 0, false, 0}, &skip, NULL), AMP_OK); /* a sign of life */
    assert_int_equal(take(&stream, (struct take){3, 1, true, 3}, &skip, NULL), AMP_OK);
    assert_int_equal(skip, 0);
    assert_true(stream.is_ended);
    assert_int_equal(stream.next, 4);
}

static void test_a_gap_is_an_error_that_names_the_missing_numbers(void **state)
{
    struct amp_stream stream;
    struct amp_error err;
    uint32_t skip;
    amp_stream_init(&stream);
    assert_int_equal(take(&stream, (struct take){1, 4, false, 0}, &skip, NULL), AMP_OK);
    assert_int_equal(take(&stream, (struct take){8, 1, false, 0}, &skip, &err), AMP_FRAMES_LOST);
    assert_string_equal(err.message, "events 5 to 7 are missing");
    assert_int_equal(take(&stream, (struct take){6, 1, false, 0}, &skip, &err), AMP_FRAMES_LOST);
    assert_string_equal(err.message, "event 5 is missing");
    assert_int_equal(stream.next, 5);
    assert_int_equal(take(&stream, (struct take){6, 0, false, 0}, &skip, &err), AMP_FRAMES_LOST);
}

static void test_an_end_that_counts_more_than_came_names_what_is_missing(void **state)
{
    struct amp_stream stream;
    struct amp_error err;
    uint32_t skip;
    amp_stream_init(&stream);
    assert_int_equal(take(&stream, (struct take){1, 1, true, 3}, &skip, &err), AMP_FRAMES_LOST);
    assert_string_equal(err.message, "events 2 to 3 are missing");
    assert_false(stream.is_ended);
}

static void test_an_end_that_counts_less_than_came_is_an_error(void **state)
{
    struct amp_stream stream;
    struct amp_error err;
    uint32_t skip;
    amp_stream_init(&stream);
    assert_int_equal(take(&stream, (struct take){1, 5, true, 3}, &skip, &err), AMP_FRAMES_LOST);
    assert_string_equal(err.message, "the end says 3 events, but 5 came");
}

static void test_what_was_seen_before_is_skipped(void **state)
{
    struct amp_stream stream;
    uint32_t skip;
    amp_stream_init(&stream);
    assert_int_equal(take(&stream, (struct take){1, 3, false, 0}, &skip, NULL), AMP_OK);
    assert_int_equal(take(&stream, (struct take){1, 3, false, 0}, &skip, NULL), AMP_OK);
    assert_int_equal(skip, 3);
    assert_int_equal(take(&stream, (struct take){2, 4, false, 0}, &skip, NULL), AMP_OK);
    assert_int_equal(skip, 2);
    assert_int_equal(stream.next, 6);
    assert_int_equal(take(&stream, (struct take){1, 1, false, 0}, &skip, NULL), AMP_OK);
    assert_int_equal(skip, 1);
    assert_int_equal(stream.next, 6);
}

static void test_nothing_is_taken_after_the_end(void **state)
{
    struct amp_stream stream;
    uint32_t skip;
    amp_stream_init(&stream);
    assert_int_equal(take(&stream, (struct take){1, 0, true, 0}, &skip, NULL), AMP_OK);
    assert_int_equal(take(&stream, (struct take){1, 1, false, 0}, &skip, NULL), AMP_TASK_ENDED);
    assert_int_equal(take(&stream, (struct take){1, 0, true, 0}, &skip, NULL), AMP_TASK_ENDED);
}

static void test_numbers_that_cannot_be_are_malformed(void **state)
{
    struct amp_stream stream;
    uint32_t skip;
    amp_stream_init(&stream);
    assert_int_equal(take(&stream, (struct take){0, 1, false, 0}, &skip, NULL), AMP_MALFORMED);
    stream.next = UINT32_MAX - 1;
    assert_int_equal(take(&stream, (struct take){UINT32_MAX - 1, 2, false, 0}, &skip, NULL), AMP_MALFORMED);
    assert_int_equal(take(&stream, (struct take){UINT32_MAX - 1, 1, false, 0}, &skip, NULL), AMP_OK);
    assert_int_equal(stream.next, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_in_order_are_taken_whole),
        cmocka_unit_test(test_a_gap_is_an_error_that_names_the_missing_numbers),
        cmocka_unit_test(test_an_end_that_counts_more_than_came_names_what_is_missing),
        cmocka_unit_test(test_an_end_that_counts_less_than_came_is_an_error),
        cmocka_unit_test(test_what_was_seen_before_is_skipped),
        cmocka_unit_test(test_nothing_is_taken_after_the_end),
        cmocka_unit_test(test_numbers_that_cannot_be_are_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
