#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

static const struct {
    enum amp_subject_kind kind;
    const char *a, *b, *c, *subject;
} rows[] = {
    {AMP_SUBJECT_REQ, "echo", "me", NULL, "amp.req.echo.me"},
    {AMP_SUBJECT_REQ_INST, "echo", "i-1", "me", "amp.req.echo.i-1.me"},
    {AMP_SUBJECT_SKILL, "sum", "me", NULL, "amp.skill.sum.me"},
    {AMP_SUBJECT_CTL, "i-1", "t-1", NULL, "amp.ctl.i-1.t-1"},
    {AMP_SUBJECT_HB, "echo", "i-1", NULL, "amp.hb.echo.i-1"},
    {AMP_SUBJECT_EVT, "c-1", "t-1", NULL, "amp.evt.c-1.t-1"},
    {AMP_SUBJECT_ENV, "submit", "me", NULL, "amp.env.submit.me"},
    {AMP_SUBJECT_WHO, "echo", NULL, NULL, "amp.who.echo"},
    {AMP_SUBJECT_WHO_SKILL, "sum", NULL, NULL, "amp.whoskill.sum"},
    {AMP_SUBJECT_WHO_ALL, NULL, NULL, NULL, "amp.whoall"},
    {AMP_SUBJECT_CANARY, "env", NULL, NULL, "amp.canary.env"},
    {AMP_SUBJECT_FENCE, "env", NULL, NULL, "amp.fence.env"},
    {AMP_SUBJECT_BLOB, "i-1", "me", NULL, "amp.blob.i-1.me"},
};

static void test_a_subject_is_built_and_taken_apart_again(void **state)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char subject[AMP_SUBJECT_SIZE];
        struct amp_subject parsed;
        assert_int_equal(amp_subject_build(rows[i].kind, rows[i].a, rows[i].b, rows[i].c, subject, NULL), AMP_OK);
        assert_string_equal(subject, rows[i].subject);
        assert_int_equal(amp_subject_parse(subject, &parsed, NULL), AMP_OK);
        assert_int_equal(parsed.kind, rows[i].kind);
        assert_string_equal(parsed.a, rows[i].a ? rows[i].a : "");
        assert_string_equal(parsed.b, rows[i].b ? rows[i].b : "");
        assert_string_equal(parsed.c, rows[i].c ? rows[i].c : "");
    }
}

static void test_wildcards_make_subscriptions(void **state)
{
    char subject[AMP_SUBJECT_SIZE];
    assert_int_equal(amp_subject_build(AMP_SUBJECT_REQ, "echo", "*", NULL, subject, NULL), AMP_OK);
    assert_string_equal(subject, "amp.req.echo.*");
    assert_int_equal(amp_subject_build(AMP_SUBJECT_HB, ">", NULL, NULL, subject, NULL), AMP_OK);
    assert_string_equal(subject, "amp.hb.>");
    assert_int_equal(amp_subject_build(AMP_SUBJECT_EVT, "c-1", ">", NULL, subject, NULL), AMP_OK);
    assert_string_equal(subject, "amp.evt.c-1.>");
    assert_int_equal(amp_subject_build(AMP_SUBJECT_HB, ">", "x", NULL, subject, NULL), AMP_INVALID);
    assert_string_equal(subject, "");
}

static void test_a_token_that_is_no_id_is_named(void **state)
{
    static const char *const bad[] = {"a.b", "a b", "", "A", "a*", "a>", ">x", "a\r\nPUB x 0", "-a", "\xc3\xa4", NULL};
    char subject[AMP_SUBJECT_SIZE];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct amp_error err = {0};
        assert_int_equal(amp_subject_build(AMP_SUBJECT_REQ, "echo", bad[i], NULL, subject, &err), AMP_INVALID);
        assert_string_equal(err.field, "from");
        assert_null(strpbrk(err.message, "\r\n"));
        assert_true(err.hint[0]);
    }
}

static void test_too_many_tokens_are_refused(void **state)
{
    char subject[AMP_SUBJECT_SIZE];
    assert_int_equal(amp_subject_build(AMP_SUBJECT_WHO, "echo", "x", NULL, subject, NULL), AMP_INVALID);
    assert_int_equal(amp_subject_build(AMP_SUBJECT_WHO_ALL, "echo", NULL, NULL, subject, NULL), AMP_INVALID);
    assert_int_equal(amp_subject_build((enum amp_subject_kind)99, "a", NULL, NULL, subject, NULL), AMP_INVALID);
}

static void test_the_longest_tokens_fit(void **state)
{
    char name[AMP_NAME_MAX + 1], subject[AMP_SUBJECT_SIZE];
    struct amp_subject parsed;
    memset(name, 'z', AMP_NAME_MAX);
    name[AMP_NAME_MAX] = '\0';
    assert_int_equal(amp_subject_build(AMP_SUBJECT_REQ_INST, name, name, name, subject, NULL), AMP_OK);
    assert_int_equal(amp_subject_parse(subject, &parsed, NULL), AMP_OK);
    assert_string_equal(parsed.c, name);
}

static void test_what_is_not_ours_is_malformed(void **state)
{
    static const char *const bad[] = {"",
                                      "amp",
                                      "amp.",
                                      ".",
                                      "amp.req",
                                      "amp.req.a",
                                      "amp.req.a.",
                                      "amp.req..a",
                                      "amp.req.a.b.c.d",
                                      "amp.req.a.*",
                                      "amp.req.a.>",
                                      "amp.req.A.b",
                                      "amp.req.a.b ",
                                      "Amp.req.a.b",
                                      "ampx.req.a.b",
                                      "amp.nope.a.b",
                                      "amp.whoall.x",
                                      "amp.who",
                                      "amp.hb.a.b.c",
                                      " amp.req.a.b",
                                      "amp.req.a.b\r\n",
                                      "$SRV.PING"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct amp_subject parsed = {.kind = AMP_SUBJECT_WHO_ALL, .a = "kept"};
        struct amp_error err = {0};
        assert_int_equal(amp_subject_parse(bad[i], &parsed, &err), AMP_MALFORMED);
        assert_string_equal(parsed.a, "kept");
    }
}

static void test_an_endless_subject_is_malformed(void **state)
{
    char text[5000];
    struct amp_subject parsed;
    memset(text, 'a', sizeof(text) - 1);
    memcpy(text, "amp.req.", 8);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(amp_subject_parse(text, &parsed, NULL), AMP_MALFORMED);
}

static void test_the_inboxes_of_the_clients_of_nats_are_inboxes(void **state)
{
    static const char *const good[] = {
        "_INBOX.cGtiNTTCgVZfdS3PuAyQeE.1",                      /* nats.c */
        "_INBOX.cGtiNTTCgVZfdS3PuAyQeE",                        /* nats.c, old style */
        "_INBOX.9ZZ2FtnUVYBLAXNGVMB7yY.9ZZ2FtnUVYBLAXNGVMB7zQ", /* nats-py */
        "_INBOX.L9QPVBEFBDL0RAQLF5XZD3.L9QPVBEFBDL0RAQLF5XZD6", /* nats.js */
        "_INBOX.Hq9TtvNPKTyDYQ6MGYMLK9.HLAv8XnV",               /* nats CLI, Go */
        "_INBOX.agents.cGtiNTTCgVZfdS3PuAyQeE.7",
        "_INBOX_i-01ke.t-01ke", /* ours */
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(amp_subject_is_inbox(good[i]));
}

static void test_nothing_else_is_an_inbox(void **state)
{
    static const char *const bad[] = {
        "",           "_INBOX",       "_INBOX.",    "_INBOX_",         "_INBOX_a",    "_INBOX_.a",
        "_INBOX.a.",  "_INBOX..a",    "_INBOX.*",   "_INBOX.>",        "_INBOX.a b",  "_INBOX.a\r\nPUB x",
        "_INBOX.a\t", "_INBOXX.a",    "_inbox.a",   "amp.req.a.b",     "$SYS.REQ",    "$JS.API.STREAM.DELETE.X",
        " _INBOX.a",  "_INBOX.a.*.b", "_INBOX_*.a", "_INBOX.\xc3\xa4", "_INBOX.a\x7f"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(amp_subject_is_inbox(bad[i]));
    assert_false(amp_subject_is_inbox(NULL));
    char text[400];
    memset(text, 'a', sizeof(text) - 1);
    memcpy(text, "_INBOX.", 7);
    text[255] = '\0';
    assert_true(amp_subject_is_inbox(text));
    text[255] = 'a';
    text[256] = '\0';
    assert_false(amp_subject_is_inbox(text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_subject_is_built_and_taken_apart_again),
        cmocka_unit_test(test_wildcards_make_subscriptions),
        cmocka_unit_test(test_a_token_that_is_no_id_is_named),
        cmocka_unit_test(test_too_many_tokens_are_refused),
        cmocka_unit_test(test_the_longest_tokens_fit),
        cmocka_unit_test(test_what_is_not_ours_is_malformed),
        cmocka_unit_test(test_an_endless_subject_is_malformed),
        cmocka_unit_test(test_the_inboxes_of_the_clients_of_nats_are_inboxes),
        cmocka_unit_test(test_nothing_else_is_an_inbox),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
