#include "env/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define UP AMP__INSTANCE_STATE__INSTANCE_STATE_UP
#define GONE AMP__INSTANCE_STATE__INSTANCE_STATE_GONE
#define LOST AMP__INSTANCE_STATE__INSTANCE_STATE_LOST

static Amp__Beat beat_of(const char *agent, const char *instance, uint32_t slots, uint32_t free_slots)
{
    Amp__Beat beat = AMP__BEAT__INIT;
    beat.agent = (char *)agent;
    beat.instance = (char *)instance;
    beat.has_state = beat.has_slots = beat.has_free = beat.has_interval_ms = true;
    beat.state = UP;
    beat.slots = slots;
    beat.free = free_slots;
    beat.interval_ms = 1000;
    return beat;
}

static struct registry_change take(struct registry *registry, const Amp__Beat *beat, int64_t now_ms)
{
    struct registry_change change;
    assert_int_equal(registry_beat(registry, beat, now_ms, 1700000000000 + now_ms, &change), AMP_OK);
    return change;
}

static void take_with_skill(struct registry *registry, Amp__Beat *beat, const char *skill, int64_t now_ms)
{
    Amp__AgentSkill one = AMP__AGENT_SKILL__INIT, *skills[] = {&one};
    Amp__AgentCard card = AMP__AGENT_CARD__INIT;
    one.id = (char *)skill;
    card.n_skills = 1;
    card.skills = skills;
    beat->card = &card;
    (void)take(registry, beat, now_ms);
    beat->card = NULL;
}

static void on_lost(void *ctx, const struct registry_instance *instance)
{
    (*(unsigned *)ctx)++;
    assert_int_equal(instance->state, LOST);
}

static void test_an_instance_is_lost_after_three_missed_beats_and_comes_back_with_the_next(void **state)
{
    struct registry registry;
    unsigned lost = 0;
    registry_init(&registry);
    Amp__Beat beat = beat_of("up", "i-1", 2, 2);
    assert_true(take(&registry, &beat, 0).is_new);
    assert_int_equal(registry_tick(&registry, 2999, on_lost, &lost), 3000);
    assert_int_equal(lost, 0);
    assert_int_equal(registry_tick(&registry, 3000, on_lost, &lost), INT64_MAX);
    assert_int_equal(lost, 1);
    assert_false(registry_is_live(registry_instance(&registry, "up", "i-1")));
    assert_int_equal(registry_slots(&registry, "up", NULL).free, 0);
    registry_tick(&registry, 4000, on_lost, &lost);
    assert_int_equal(lost, 1);
    assert_false(take(&registry, &beat, 5000).is_new);
    assert_true(registry_is_live(registry_instance(&registry, "up", "i-1")));
    assert_int_equal(registry_slots(&registry, "up", NULL).free, 2);
    registry_done(&registry);
}

/* Each counts by the interval that it names; the caller learns whose end comes first. */
static void test_the_next_to_be_lost_is_the_one_whose_three_intervals_end_first(void **state)
{
    struct registry registry;
    unsigned lost = 0;
    registry_init(&registry);
    Amp__Beat slow = beat_of("slow", "i-1", 1, 1), quick = beat_of("quick", "i-1", 1, 1);
    slow.interval_ms = 5000;
    quick.interval_ms = 200;
    (void)take(&registry, &slow, 0);
    assert_int_equal(registry_tick(&registry, 0, on_lost, &lost), 15000);
    (void)take(&registry, &quick, 100);
    assert_int_equal(registry_due_ms(registry_instance(&registry, "quick", "i-1")), 700);
    assert_int_equal(registry_tick(&registry, 699, on_lost, &lost), 700);
    (void)take(&registry, &quick, 699);
    assert_int_equal(registry_tick(&registry, 700, on_lost, &lost), 1299);
    assert_int_equal(lost, 0);
    assert_int_equal(registry_tick(&registry, 1299, on_lost, &lost), 15000);
    assert_int_equal(lost, 1);
    registry_done(&registry);
}

static void on_silent(void *ctx, const struct registry_instance *instance)
{
    assert_true(registry_is_live(instance));
    ++*(unsigned *)ctx;
}

static void test_who_missed_a_beat_is_named_once_until_it_beats_again(void **state)
{
    struct registry registry;
    unsigned silent = 0;
    registry_init(&registry);
    Amp__Beat one = beat_of("up", "i-1", 1, 1), two = beat_of("up", "i-2", 1, 1);
    (void)take(&registry, &one, 0);
    (void)take(&registry, &two, 0);
    registry_silent(&registry, 1250, 10, on_silent, &silent);
    assert_int_equal(silent, 0);
    registry_silent(&registry, 1251, 1, on_silent, &silent);
    assert_int_equal(silent, 1); /* no more than asked for */
    registry_silent(&registry, 1252, 10, on_silent, &silent);
    assert_int_equal(silent, 2);
    registry_silent(&registry, 1253, 10, on_silent, &silent);
    assert_int_equal(silent, 2);
    (void)take(&registry, &one, 1300);
    registry_silent(&registry, 2600, 10, on_silent, &silent);
    assert_int_equal(silent, 3);
    assert_true(registry_lost(&registry, "up", "i-1", 2600));
    assert_false(registry_lost(&registry, "up", "i-1", 2601));
    assert_false(registry_lost(&registry, "up", "i-3", 2601));
    assert_false(registry_is_live(registry_instance(&registry, "up", "i-1")));
    assert_int_equal(registry_slots(&registry, "up", NULL).free, 1);
    (void)take(&registry, &one, 2700);
    assert_true(registry_is_live(registry_instance(&registry, "up", "i-1")));
    registry_done(&registry);
}

static void test_a_goodbye_is_told_once_and_forgotten_after_a_while(void **state)
{
    struct registry registry;
    registry_init(&registry);
    Amp__Beat beat = beat_of("up", "i-1", 1, 1);
    (void)take(&registry, &beat, 0);
    beat.state = GONE;
    assert_true(take(&registry, &beat, 10).has_left);
    assert_false(take(&registry, &beat, 20).has_left);
    registry_tick(&registry, REGISTRY_GONE_KEPT_MS, NULL, NULL);
    assert_non_null(registry_instance(&registry, "up", "i-1"));
    registry_tick(&registry, 10 + REGISTRY_GONE_KEPT_MS + 1, NULL, NULL);
    assert_null(registry_instance(&registry, "up", "i-1"));
    assert_non_null(registry_agent(&registry, "up"));
    registry_tick(&registry, 20 + (int64_t)REGISTRY_SILENT_KEPT_MS + 1, NULL, NULL);
    assert_null(registry_agent(&registry, "up"));
    assert_int_equal(registry.n_instances, 0);
    registry_done(&registry);
}

static void test_slots_count_live_instances_and_follow_what_was_taken(void **state)
{
    struct registry registry;
    registry_init(&registry);
    Amp__Beat one = beat_of("up", "i-1", 2, 2), two = beat_of("up", "i-2", 4, 1);
    (void)take(&registry, &one, 0);
    (void)take(&registry, &two, 0);
    assert_int_equal(registry_slots(&registry, "up", "").free, 3);
    assert_int_equal(registry_slots(&registry, "up", NULL).instances, 2);
    registry_taken(&registry, "up", "i-2");
    registry_taken(&registry, "up", "i-2");
    assert_int_equal(registry_slots(&registry, "up", NULL).free, 2);
    registry_freed(&registry, "up", "i-1"); /* no more than it has */
    assert_int_equal(registry_slots(&registry, "up", NULL).free, 2);
    registry_freed(&registry, "up", "i-2");
    assert_int_equal(registry_slots(&registry, "up", NULL).free, 3);
    one.free = UINT32_MAX;
    two.free = UINT32_MAX; /* a liar does not wrap the sum */
    (void)take(&registry, &one, 1);
    (void)take(&registry, &two, 1);
    assert_int_equal(registry_slots(&registry, "up", NULL).free, UINT32_MAX);
    one.state = AMP__INSTANCE_STATE__INSTANCE_STATE_DRAINING;
    (void)take(&registry, &one, 2);
    two.free = 1;
    (void)take(&registry, &two, 2);
    assert_int_equal(registry_slots(&registry, "up", NULL).free, 1);
    assert_int_equal(registry_slots(&registry, "nobody", NULL).instances, 0);
    registry_done(&registry);
}

static void test_a_skill_is_found_as_long_as_a_card_has_it(void **state)
{
    struct registry registry;
    registry_init(&registry);
    Amp__Beat one = beat_of("up", "i-1", 1, 1), two = beat_of("down", "i-2", 3, 3);
    take_with_skill(&registry, &one, "upper", 0);
    take_with_skill(&registry, &two, "upper", 0);
    assert_int_equal(registry_slots(&registry, NULL, "upper").free, 4);
    assert_int_equal(registry_slots(&registry, NULL, "upper").instances, 2);
    take_with_skill(&registry, &two, "lower", 1);
    assert_int_equal(registry_slots(&registry, NULL, "upper").free, 1);
    assert_int_equal(registry_slots(&registry, NULL, "lower").free, 3);
    (void)take(&registry, &one, 2); /* a beat without a card leaves it */
    assert_true(registry_has_skill(registry_agent(&registry, "up"), "upper"));
    registry_done(&registry);
}

static void test_the_newest_deaths_are_kept_each_once(void **state)
{
    struct registry registry;
    registry_init(&registry);
    Amp__Death death = AMP__DEATH__INIT;
    Amp__Timestamp at = AMP__TIMESTAMP__INIT;
    death.agent = (char *)"up";
    death.instance = (char *)"i-1";
    death.at = &at;
    Amp__Beat beat = beat_of("up", "i-1", 1, 1);
    beat.death = &death;
    for (int i = 1; i <= (int)REGISTRY_DEATHS_MAX + 5; i++) {
        at.unix_ms = i;
        assert_true(take(&registry, &beat, i).has_new_death);
        assert_false(take(&registry, &beat, i).has_new_death);
    }
    const struct registry_agent *agent = registry_agent(&registry, "up");
    assert_true(agent->n_deaths >= 20);
    for (size_t i = 0; i < agent->n_deaths; i++)
        assert_int_equal(agent->deaths[i]->at->unix_ms, REGISTRY_DEATHS_MAX + 5 - i);
    assert_null(registry_instance(&registry, "up", "i-1")->beat->death);
    registry_done(&registry);
}

static void test_old_deaths_line_up_behind_new_ones(void **state)
{
    struct registry registry;
    registry_init(&registry);
    Amp__Death death = AMP__DEATH__INIT;
    Amp__Timestamp at = AMP__TIMESTAMP__INIT;
    death.agent = (char *)"up";
    death.instance = (char *)"i-0";
    death.at = &at;
    for (int i = 9; i > 6; i--) { /* newest first, as the journal reads them */
        at.unix_ms = i;
        registry_add_old_death(&registry, &death, 0);
    }
    const struct registry_agent *agent = registry_agent(&registry, "up");
    assert_int_equal(agent->n_deaths, 3);
    assert_int_equal(agent->deaths[0]->at->unix_ms, 9);
    assert_int_equal(agent->deaths[2]->at->unix_ms, 7);
    death.agent = (char *)"Not An Id";
    registry_add_old_death(&registry, &death, 0);
    assert_int_equal(HASH_COUNT(registry.agents), 1);
    registry_done(&registry);
}

static void test_beats_without_valid_names_are_refused(void **state)
{
    struct registry registry;
    struct registry_change change;
    registry_init(&registry);
    Amp__Beat beat = beat_of("Up", "i-1", 1, 1);
    assert_int_equal(registry_beat(&registry, &beat, 0, 0, &change), AMP_INVALID);
    beat.agent = (char *)"up";
    beat.instance = (char *)"i.1";
    assert_int_equal(registry_beat(&registry, &beat, 0, 0, &change), AMP_INVALID);
    beat.instance = NULL;
    assert_int_equal(registry_beat(&registry, &beat, 0, 0, &change), AMP_INVALID);
    assert_int_equal(HASH_COUNT(registry.agents), 0);
    registry_done(&registry);
}

static void test_one_more_agent_than_there_is_room_for_takes_the_place_of_a_silent_one(void **state)
{
    struct registry registry;
    struct registry_change change;
    char name[32];
    registry_init(&registry);
    for (unsigned i = 0; i < REGISTRY_AGENTS_MAX; i++) {
        snprintf(name, sizeof name, "a-%u", i);
        Amp__Beat beat = beat_of(name, "i-1", 1, 1);
        (void)take(&registry, &beat, i == 7 ? 0 : 100000);
    }
    Amp__Beat more = beat_of("more", "i-1", 1, 1);
    assert_int_equal(registry_beat(&registry, &more, 100000, 0, &change), AMP_OVERLOADED);
    assert_int_equal(registry.n_refused, 1);
    Amp__Beat leaving = beat_of("a-7", "i-1", 1, 1);
    leaving.state = GONE;
    (void)take(&registry, &leaving, 100000);
    for (unsigned i = 0; i < REGISTRY_AGENTS_MAX; i++) { /* the others go on beating */
        snprintf(name, sizeof name, "a-%u", i);
        Amp__Beat beat = beat_of(name, "i-1", 1, 1);
        if (i != 7)
            (void)take(&registry, &beat, 100000 + REGISTRY_GONE_KEPT_MS);
    }
    registry_tick(&registry, 100001 + REGISTRY_GONE_KEPT_MS, NULL, NULL);
    (void)take(&registry, &more, 100001 + REGISTRY_GONE_KEPT_MS);
    assert_null(registry_agent(&registry, "a-7"));
    assert_int_equal(HASH_COUNT(registry.agents), REGISTRY_AGENTS_MAX);
    registry_done(&registry);
}

/* Whatever comes: the counts agree with the tables, and slots are those of the live. */
static void test_random_beats_keep_the_counts_right(void **state)
{
    struct registry registry;
    char agent[16], instance[16];
    int64_t now = 0;
    srand(11);
    registry_init(&registry);
    for (int i = 0; i < 20000; i++) {
        now += rand() % 50;
        snprintf(agent, sizeof agent, "a-%d", rand() % 10);
        snprintf(instance, sizeof instance, "i-%d", rand() % 5);
        Amp__Beat beat = beat_of(agent, instance, 4, (uint32_t)(rand() % 5));
        beat.state = (Amp__InstanceState)(rand() % 7);
        if (rand() % 4 == 0)
            take_with_skill(&registry, &beat, rand() % 2 ? "upper" : "lower", now);
        else
            (void)take(&registry, &beat, now);
        registry_taken(&registry, agent, instance);
        registry_tick(&registry, now, NULL, NULL);
        size_t count = 0;
        uint32_t live = 0, of_skills = 0;
        for (struct registry_agent *a = registry.agents; a; a = a->hh.next) {
            count += HASH_COUNT(a->instances);
            for (struct registry_instance *n = a->instances; n; n = n->hh.next)
                live += a->card && registry_is_live(n);
        }
        of_skills = registry_slots(&registry, NULL, "upper").instances + registry_slots(&registry, NULL, "lower").instances;
        assert_int_equal(count, registry.n_instances);
        assert_int_equal(live, of_skills); /* each card has one of the two */
    }
    registry_done(&registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_next_to_be_lost_is_the_one_whose_three_intervals_end_first),
        cmocka_unit_test(test_who_missed_a_beat_is_named_once_until_it_beats_again),
        cmocka_unit_test(test_an_instance_is_lost_after_three_missed_beats_and_comes_back_with_the_next),
        cmocka_unit_test(test_a_goodbye_is_told_once_and_forgotten_after_a_while),
        cmocka_unit_test(test_slots_count_live_instances_and_follow_what_was_taken),
        cmocka_unit_test(test_a_skill_is_found_as_long_as_a_card_has_it),
        cmocka_unit_test(test_the_newest_deaths_are_kept_each_once),
        cmocka_unit_test(test_old_deaths_line_up_behind_new_ones),
        cmocka_unit_test(test_beats_without_valid_names_are_refused),
        cmocka_unit_test(test_one_more_agent_than_there_is_room_for_takes_the_place_of_a_silent_one),
        cmocka_unit_test(test_random_beats_keep_the_counts_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
