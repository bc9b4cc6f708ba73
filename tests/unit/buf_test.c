/* The growable buffer and the arena: their maxima, and what reset keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#include "buf.h"

static void test_a_buffer_never_grows_past_its_maximum(void **state)
{
    for (size_t max = 0; max < 600; max += 7) {
        struct amp_buf buf;
        amp_buf_init(&buf, max);
        for (size_t i = 0; i < max; i++)
            assert_int_equal(amp_buf_append(&buf, "x", 1), AMP_OK);
        assert_int_equal(amp_buf_append(&buf, "x", 1), AMP_TOO_LARGE);
        assert_int_equal(buf.len, max);
        amp_buf_done(&buf);
    }
}

static void test_reserving_nothing_still_gives_a_place(void **state)
{
    for (size_t max = 0; max < 2; max++) {
        struct amp_buf buf;
        amp_buf_init(&buf, max);
        assert_int_equal(buf_reserve(&buf, 0), AMP_OK);
        assert_non_null(buf.data);
        amp_buf_done(&buf);
    }
}

static void test_after_one_refusal_every_append_fails_until_reset(void **state)
{
    struct amp_buf buf;
    amp_buf_init(&buf, 4);
    assert_int_equal(amp_buf_append(&buf, "12345", 5), AMP_TOO_LARGE);
    assert_int_equal(amp_buf_append(&buf, "1", 1), AMP_TOO_LARGE);
    assert_int_equal(amp_buf_printf(&buf, "%d", 1), AMP_TOO_LARGE);
    assert_true(buf.is_full);
    amp_buf_reset(&buf);
    assert_int_equal(amp_buf_printf(&buf, "%d", 1234), AMP_OK);
    assert_memory_equal(buf.data, "1234", 4);
    assert_int_equal(amp_buf_printf(&buf, "x"), AMP_TOO_LARGE);
    amp_buf_done(&buf);
}

static void test_an_arena_hands_out_aligned_zeroed_memory_up_to_its_maximum(void **state)
{
    struct amp_arena arena;
    amp_arena_init(&arena, 100000);
    size_t total = 0;
    for (size_t size = 1;; size = size * 5 / 4 + 1) {
        uint8_t *data = amp_arena_alloc(&arena, size);
        if (!data)
            break;
        assert_int_equal((uintptr_t)data % 16, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(data[i], 0);
        memset(data, 0xAA, size);
        total += size;
    }
    assert_true(arena.is_full);
    assert_true(total <= arena.used && arena.used <= 100000);
    assert_null(amp_arena_alloc(&arena, 1));
    assert_null(amp_arena_alloc(&arena, SIZE_MAX));
    amp_arena_reset(&arena);
    uint8_t *again = amp_arena_alloc(&arena, 64);
    assert_int_equal(again[0] | again[63], 0);
    assert_null(amp_arena_alloc(&arena, SIZE_MAX - 8));
    amp_arena_done(&arena);
}

static void test_a_reset_arena_uses_its_blocks_again(void **state)
{
    struct amp_arena arena;
    amp_arena_init(&arena, 1 << 20);
    void *first[100];
    for (unsigned round = 0; round < 5; round++) {
        amp_arena_reset(&arena);
        for (size_t i = 0; i < 100; i++) {
            void *data = amp_arena_alloc(&arena, 1000);
            assert_non_null(data);
            if (round == 0)
                first[i] = data;
            assert_ptr_equal(data, first[i]);
        }
    }
    amp_arena_done(&arena);
}

static void test_strdup_ends_the_text_with_a_nul(void **state)
{
    struct amp_arena arena;
    amp_arena_init(&arena, 64);
    assert_string_equal(amp_arena_strdup(&arena, (struct amp_bytes){(const uint8_t *)"abcdef", 3}), "abc");
    assert_string_equal(amp_arena_strdup(&arena, amp_bytes_of(NULL)), "");
    amp_arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_buffer_never_grows_past_its_maximum),
        cmocka_unit_test(test_reserving_nothing_still_gives_a_place),
        cmocka_unit_test(test_after_one_refusal_every_append_fails_until_reset),
        cmocka_unit_test(test_an_arena_hands_out_aligned_zeroed_memory_up_to_its_maximum),
        cmocka_unit_test(test_a_reset_arena_uses_its_blocks_again),
        cmocka_unit_test(test_strdup_ends_the_text_with_a_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
