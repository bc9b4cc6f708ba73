/* Events out of bytes, however they are cut. */
#include "base/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

struct seen {
    char text[512];
    int n, enough_after;
};

static bool on_event(void *ctx, const struct sse_event *event)
{
    struct seen *seen = ctx;
    size_t len = strlen(seen->text);
    snprintf(seen->text + len, sizeof seen->text - len, "%s|%s|%s;", event->name, event->data, event->id);
    return ++seen->n != seen->enough_after;
}

static enum amp_code feed(const char *text, size_t len, size_t piece, struct seen *seen, size_t max)
{
    struct sse sse;
    struct amp_error err = {0};
    enum amp_code code = AMP_OK;
    sse_init(&sse, max, on_event, seen);
    for (size_t at = 0; at < len && code == AMP_OK; at += piece)
        code = sse_feed(&sse, (struct amp_bytes){(const uint8_t *)text + at, len - at < piece ? len - at : piece}, &err);
    sse_done(&sse);
    assert_int_equal(code, err.code);
    return code;
}

static void test_events_are_the_same_in_pieces_of_any_size(void **state)
{
    static const struct {
        const char *text, *wanted;
    } rows[] = {
        {"data: one\n\n", "message|one|;"},
        {"data:one\ndata: two\n\ndata\n\n", "message|one\ntwo|;message||;"},
        {"event: add\ndata: 1\n\ndata: 2\n\n", "add|1|;message|2|;"},
        {"id: 7\ndata: a\r\n\r\ndata: b\r\rid\ndata: c\n\n", "message|a|7;message|b|7;message|c|;"},
        {"\xEF\xBB\xBF: comment\n\nretry: 5\nunknown: x\nevent: only\n\ndata:  spaced\n\n", "message| spaced|;"},
        {"data: never ended\n", ""},
        {"data: \xC3\xA4\n\n", "message|\xC3\xA4|;"},
        {"data: x:y:z\n\n", "message|x:y:z|;"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t piece = 1; piece <= strlen(rows[i].text); piece++) {
            struct seen seen = {.text = ""};
            assert_int_equal(feed(rows[i].text, strlen(rows[i].text), piece, &seen, 1000), AMP_OK);
            assert_string_equal(seen.text, rows[i].wanted);
        }
    }
}

static void test_what_is_too_large_or_no_text_is_refused(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        enum amp_code code;
    } rows[] = {
        {"data: 0123456789\n\n", 18, AMP_OK},
        {"data: 0123456789x\n\n", 19, AMP_TOO_LARGE},
        {"data: 01234\ndata: 56789\n\n", 25, AMP_TOO_LARGE},
        {"data: 0\ndata: 5\n\n", 17, AMP_OK},
        {": a comment of any length is a line, too\n", 41, AMP_TOO_LARGE},
        {"data: \xFF\n\n", 9, AMP_BAD_ANSWER},
        {"data: \0\n\n", 9, AMP_BAD_ANSWER},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t piece = 1; piece <= rows[i].len; piece++) {
            struct seen seen = {.text = ""};
            enum amp_code code = feed(rows[i].text, rows[i].len, piece, &seen, i == 2 ? 10 : 16);
            if (i == 2)
                assert_int_equal(code, AMP_TOO_LARGE);
            else
                assert_int_equal(code, rows[i].code);
        }
    }
}

static void test_who_has_enough_gets_no_more(void **state)
{
    struct seen seen = {.text = "", .enough_after = 2};
    static const char text[] = "data: 1\n\ndata: 2\n\ndata: 3\n\n";
    assert_int_equal(feed(text, sizeof text - 1, sizeof text, &seen, 100), AMP_OK);
    assert_string_equal(seen.text, "message|1|;message|2|;");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_are_the_same_in_pieces_of_any_size),
        cmocka_unit_test(test_what_is_too_large_or_no_text_is_refused),
        cmocka_unit_test(test_who_has_enough_gets_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
