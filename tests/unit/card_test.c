#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

static struct amp_arena arena;

static Amp__AgentCard *card_of(const char *json)
{
    ProtobufCMessage *made;
    struct amp_error err;
    amp_arena_reset(&arena);
    if (amp_decode(&amp__agent_card__descriptor, amp_bytes_of(json), &arena, &made, &err) != AMP_OK)
        fail_msg("%s: %s", err.field, err.message);
    return (Amp__AgentCard *)made;
}

static void test_an_empty_card_is_completed_to_a_good_one(void **state)
{
    Amp__AgentCard *card = card_of("{}");
    assert_int_not_equal(amp_card_check(card, NULL), AMP_OK);
    assert_int_equal(amp_card_complete(card, "my-agent", &arena), AMP_OK);
    assert_int_equal(amp_card_check(card, NULL), AMP_OK);
    assert_string_equal(card->name, "my-agent");
    assert_string_equal(card->version, "0.0.0");
    assert_string_equal(card->default_input_modes[0], "text/plain");
    assert_string_equal(card->default_output_modes[0], "text/plain");
    assert_true(card->capabilities->streaming);
    assert_int_equal(card->n_skills, 1);
    assert_string_equal(card->skills[0]->id, "my-agent");
    assert_int_equal(card->skills[0]->n_tags, 1);
}

static void test_completing_keeps_what_is_there(void **state)
{
    Amp__AgentCard *card =
        card_of("{\"name\":\"My Agent\",\"description\":\"does\",\"version\":\"2.1\",\"defaultInputModes\":[\"a/b\"],"
                "\"capabilities\":{\"streaming\":false},\"skills\":[{\"id\":\"sum\",\"description\":\"adds\"}]}");
    assert_int_equal(amp_card_complete(card, "other", &arena), AMP_OK);
    assert_string_equal(card->name, "My Agent");
    assert_string_equal(card->version, "2.1");
    assert_string_equal(card->default_input_modes[0], "a/b");
    assert_false(card->capabilities->streaming);
    assert_int_equal(card->n_skills, 1);
    assert_string_equal(card->skills[0]->name, "sum");
    assert_string_equal(card->skills[0]->description, "adds");
}

static void test_completing_says_when_memory_is_gone(void **state)
{
    struct amp_arena small;
    Amp__AgentCard card = AMP__AGENT_CARD__INIT;
    amp_arena_init(&small, 16);
    assert_int_equal(amp_card_complete(&card, "a-long-name-that-does-not-fit", &small), AMP_NO_MEMORY);
    amp_arena_done(&small);
}

static void test_what_is_wrong_with_a_card_is_named(void **state)
{
    static const struct {
        const char *json, *field;
    } rows[] = {
        {"{\"version\":\"1\"}", "card.name"},
        {"{\"name\":\"a\\u001b[31m\",\"version\":\"1\"}", "card.name"},
        {"{\"name\":\"a\\u202eb\",\"version\":\"1\"}", "card.name"},
        {"{\"name\":\"a\\nb\",\"version\":\"1\"}", "card.name"},
        {"{\"name\":\"a\"}", "card.version"},
        {"{\"name\":\"a\",\"version\":\"1\",\"description\":\"\\u2066x\"}", "card.description"},
        {"{\"name\":\"a\",\"version\":\"1\",\"skills\":[{}]}", "card.skills[0].id"},
        {"{\"name\":\"a\",\"version\":\"1\",\"skills\":[{\"id\":\"a.b\"}]}", "card.skills[0].id"},
        {"{\"name\":\"a\",\"version\":\"1\",\"skills\":[{\"id\":\"a\"},{\"id\":\"b\"},{\"id\":\"a\"}]}",
         "card.skills[2].id"},
        {"{\"name\":\"a\",\"version\":\"1\",\"skills\":[{\"id\":\"a\",\"tags\":[\"x\",\"\"]}]}",
         "card.skills[0].tags[1]"},
        {"{\"name\":\"a\",\"version\":\"1\",\"skills\":[{\"id\":\"a\",\"description\":\"\\u0007\"}]}",
         "card.skills[0].description"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct amp_error err = {0};
        assert_int_equal(amp_card_check(card_of(rows[i].json), &err), AMP_INVALID);
        assert_string_equal(err.field, rows[i].field);
    }
}

static void test_a_description_may_have_lines_and_any_script(void **state)
{
    assert_int_equal(
        amp_card_check(card_of("{\"name\":\"\\u00c4gent \\ud83e\\udd16\",\"version\":\"1\",\"description\":"
                               "\"one\\n\\ttwo \\u4e2d\"}"),
                       NULL),
        AMP_OK);
}

static void test_the_lists_of_a_card_are_bounded(void **state)
{
    Amp__AgentCard *card = card_of("{\"name\":\"a\",\"version\":\"1\"}");
    Amp__AgentSkill skills[AMP_SKILLS_MAX + 1], *list[AMP_SKILLS_MAX + 1];
    char ids[AMP_SKILLS_MAX + 1][16];
    for (size_t i = 0; i <= AMP_SKILLS_MAX; i++) {
        amp__agent_skill__init(&skills[i]);
        (void)snprintf(ids[i], sizeof(ids[i]), "s-%zu", i);
        skills[i].id = ids[i];
        list[i] = &skills[i];
    }
    card->skills = list;
    card->n_skills = AMP_SKILLS_MAX;
    assert_int_equal(amp_card_check(card, NULL), AMP_OK);
    card->n_skills++;
    assert_int_equal(amp_card_check(card, NULL), AMP_INVALID);
    char *tags[AMP_TAGS_MAX + 1];
    for (size_t i = 0; i <= AMP_TAGS_MAX; i++)
        tags[i] = (char *)"t";
    card->n_skills = 1;
    skills[0].tags = tags;
    skills[0].n_tags = AMP_TAGS_MAX;
    assert_int_equal(amp_card_check(card, NULL), AMP_OK);
    skills[0].n_tags++;
    assert_int_equal(amp_card_check(card, NULL), AMP_INVALID);
    skills[0].n_tags = 0;
    char text[AMP_DESCRIPTION_MAX + 2];
    memset(text, 'x', sizeof(text));
    text[AMP_DESCRIPTION_MAX] = '\0';
    card->description = text;
    assert_int_equal(amp_card_check(card, NULL), AMP_OK);
    text[AMP_DESCRIPTION_MAX] = 'x';
    text[AMP_DESCRIPTION_MAX + 1] = '\0';
    assert_int_equal(amp_card_check(card, NULL), AMP_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_card_is_completed_to_a_good_one),
        cmocka_unit_test(test_completing_keeps_what_is_there),
        cmocka_unit_test(test_completing_says_when_memory_is_gone),
        cmocka_unit_test(test_what_is_wrong_with_a_card_is_named),
        cmocka_unit_test(test_a_description_may_have_lines_and_any_script),
        cmocka_unit_test(test_the_lists_of_a_card_are_bounded),
    };
    amp_arena_init(&arena, 1u << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    amp_arena_done(&arena);
    return failed;
}
