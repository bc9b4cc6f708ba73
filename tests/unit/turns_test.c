/* Calls that wait for a free slot: whose turn it is, by tables. */
#include "env/turns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct turns *turns;
static int64_t now;

static int begin(void **state)
{
    turns = turns_new();
    now = 1000000;
    return 0;
}

static int end(void **state)
{
    turns_free(turns);
    return 0;
}

static const struct turn_seeker echo = {.agent = "echo"};

static struct turn_call call_of(const char *from, const char *task)
{
    return (struct turn_call){.task = task, .from = from, .agent = "echo", .reply = "_INBOX_a.1.x"};
}

static enum amp_code wait_as(const struct turn_call *call, struct turn_place *ret)
{
    struct amp_error err = {0};
    struct turn_place place;
    enum amp_code code = turns_wait(turns, call, now, ret ? ret : &place, &err);
    assert_int_equal(code, err.code);
    if (code != AMP_OK)
        assert_true(err.retry_after_ms > 0 && err.message[0] && err.hint[0]);
    return code;
}

static void waits(const char *from, const char *task)
{
    struct turn_call call = call_of(from, task);
    assert_int_equal(wait_as(&call, NULL), AMP_OK);
}

static void assert_next(const char *task)
{
    struct turn_call call;
    if (!turns_next(turns, &echo, now, &call))
        fail_msg("nobody waits; it should be %s", task);
    assert_string_equal(call.task, task);
}

static void assert_none(void)
{
    struct turn_call call;
    assert_false(turns_next(turns, &echo, now, &call));
}

static void test_who_came_first_is_first(void **state)
{
    static const char *const tasks[] = {"t-a", "t-b", "t-c", "t-d", "t-e", "t-f", "t-g"};
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++, now++) {
        char from[8];
        snprintf(from, sizeof from, "f%zu", i);
        waits(from, tasks[i]);
    }
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        assert_next(tasks[i]);
    assert_none();
    assert_int_equal(turns_count(turns), 0);
}

/* Ten turns, 10 ms apart, while calls wait: so that it knows how long one takes. */
static void measure(void)
{
    char task[16];
    for (int i = 0; i < 12; i++) {
        snprintf(task, sizeof task, "t-m%d", i);
        struct turn_call call = call_of("m", task);
        assert_int_equal(wait_as(&call, NULL), AMP_OK);
    }
    for (int i = 0; i < 12; i++, now += 10) {
        struct turn_call call;
        assert_true(turns_next(turns, &echo, now, &call));
    }
}

static void test_a_sender_with_much_does_not_hold_up_one_with_little(void **state)
{
    char task[16];
    struct turn_call call;
    measure();
    for (int i = 0; i < 100; i++) {
        snprintf(task, sizeof task, "t-%d", i);
        waits("greedy", task);
    }
    now += 1;
    waits("modest", "t-mine");
    int before = 0;
    while (turns_next(turns, &echo, now, &call) && strcmp(call.task, "t-mine") != 0)
        before++;
    assert_true(before <= (int)TURNS_BURST + 1);
}

static void test_priority_counts_and_whatever_waits_long_enough_is_first_all_the_same(void **state)
{
    struct turn_call low = call_of("a", "t-low"), high = call_of("b", "t-high");
    low.priority = AMP__PRIORITY__PRIORITY_LOW;
    high.priority = AMP__PRIORITY__PRIORITY_HIGH;
    assert_int_equal(wait_as(&low, NULL), AMP_OK);
    waits("c", "t-normal");
    now += 5000;
    assert_int_equal(wait_as(&high, NULL), AMP_OK);
    assert_next("t-high");
    assert_next("t-normal");
    assert_next("t-low");
    assert_int_equal(wait_as(&low, NULL), AMP_OK);
    now += 2 * TURNS_PRIORITY_MS + 1;
    high.task = "t-high2";
    assert_int_equal(wait_as(&high, NULL), AMP_OK);
    assert_next("t-low");
}

static void test_who_was_not_taken_where_its_turn_was_is_first_again(void **state)
{
    struct turn_place place;
    struct turn_call first = call_of("a", "t-1");
    waits("a", "t-1");
    now++;
    waits("b", "t-2");
    now++;
    assert_next("t-1");
    waits("c", "t-3");
    now += 100;
    assert_int_equal(wait_as(&first, &place), AMP_OK);
    assert_int_equal(place.position, 1);
    assert_next("t-1");
    assert_next("t-2");
    assert_next("t-3");
    now += TURNS_GIVEN_MS;
    turns_sweep(turns, now);
    waits("b", "t-2");
    now++;
    assert_int_equal(wait_as(&first, &place), AMP_OK);
    assert_int_equal(place.position, 2); /* that was too long ago */
}

static void test_who_does_not_say_that_it_waits_is_forgotten_and_who_withdraws(void **state)
{
    waits("a", "t-1");
    waits("b", "t-2");
    waits("c", "t-3");
    now += TURNS_RENEW_MAX_MS - 1;
    waits("b", "t-2");
    assert_true(turns_withdraw(turns, "c", "t-3"));
    assert_false(turns_withdraw(turns, "c", "t-3"));
    assert_false(turns_withdraw(turns, "a", "t-2")); /* another's */
    now += 1;
    turns_sweep(turns, now);
    assert_int_equal(turns_count(turns), 1);
    assert_next("t-2");
    assert_none();
}

static void test_a_place_says_how_many_are_before_it_and_how_long_that_takes(void **state)
{
    struct turn_place place;
    struct turn_call call = call_of("a", "t-1");
    assert_int_equal(wait_as(&call, &place), AMP_OK);
    assert_int_equal(place.position, 1);
    assert_int_equal(place.about_ms, 0); /* nothing was measured */
    assert_next("t-1");
    measure();
    for (int i = 0; i < 9; i++) {
        char from[8], task[8];
        snprintf(from, sizeof from, "s%d", i);
        snprintf(task, sizeof task, "t-s%d", i);
        waits(from, task);
    }
    now++;
    call = call_of("z", "t-z");
    assert_int_equal(wait_as(&call, &place), AMP_OK);
    assert_int_equal(place.position, 10);
    assert_in_range(place.about_ms, 90, 110);
}

static void test_who_cannot_have_its_turn_in_time_is_told_at_once(void **state)
{
    struct turn_call call = call_of("z", "t-z");
    measure();
    for (int i = 0; i < 9; i++) {
        char from[8], task[8];
        snprintf(from, sizeof from, "s%d", i);
        snprintf(task, sizeof task, "t-s%d", i);
        waits(from, task);
    }
    call.timeout_ms = 50;
    assert_int_equal(wait_as(&call, NULL), AMP_DEADLINE);
    call.timeout_ms = 500;
    assert_int_equal(wait_as(&call, NULL), AMP_OK);
    assert_int_equal(turns_count(turns), 10);
}

static void test_there_is_room_for_so_many_of_one_sender_and_so_many_in_all(void **state)
{
    char from[16], task[16] = "";
    struct turn_call call = call_of("greedy", task);
    for (unsigned i = 0; i < TURNS_SENDER_MAX; i++) {
        snprintf(task, sizeof task, "t-%u", i);
        assert_int_equal(wait_as(&call, NULL), AMP_OK);
    }
    snprintf(task, sizeof task, "t-x");
    assert_int_equal(wait_as(&call, NULL), AMP_QUOTA);
    for (unsigned i = TURNS_SENDER_MAX; i < TURNS_QUEUE_MAX; i++) {
        snprintf(from, sizeof from, "f%u", i / 100);
        snprintf(task, sizeof task, "t-%u", i);
        waits(from, task);
    }
    struct turn_place place;
    call = call_of("f50", "t-5050");
    assert_int_equal(wait_as(&call, &place), AMP_OK); /* it waits already; of so many its place is known about */
    assert_in_range(place.position, 4000, 6100);
    call = call_of("late", "t-late");
    assert_int_equal(wait_as(&call, NULL), AMP_OVERLOADED);
    assert_int_equal(turns_count(turns), TURNS_QUEUE_MAX);
}

static void test_an_instance_serves_its_name_and_its_skills_oldest_first(void **state)
{
    Amp__AgentSkill sum = AMP__AGENT_SKILL__INIT, nameless = AMP__AGENT_SKILL__INIT, *skills[] = {&nameless, &sum};
    Amp__AgentCard card = AMP__AGENT_CARD__INIT;
    sum.id = (char *)"sum";
    card.n_skills = 2;
    card.skills = skills;
    const struct turn_seeker able = {.agent = "echo", .card = &card};
    struct turn_call by_skill = {.task = "t-skill", .from = "a", .skill = "sum", .reply = "_INBOX_a.1.x"}, call;
    assert_int_equal(wait_as(&by_skill, NULL), AMP_OK);
    now++;
    waits("b", "t-name");
    assert_int_equal(turns_waiting(turns, &able), 2);
    assert_int_equal(turns_waiting(turns, &echo), 1);
    assert_int_equal(turns_first_ms(turns, &able), now - 1);
    assert_true(turns_next(turns, &able, now, &call));
    assert_string_equal(call.task, "t-skill");
    assert_string_equal(call.skill, "sum");
    assert_null(call.agent);
    assert_true(turns_next(turns, &able, now, &call));
    assert_string_equal(call.task, "t-name");
    assert_int_equal(turns_first_ms(turns, &able), INT64_MAX);
}

static void test_a_slot_that_became_free_meanwhile_is_used_once_and_soon(void **state)
{
    turns_idle(turns, &echo, 1, now);
    assert_true(turns_take_idle(turns, "echo", NULL, now));
    assert_false(turns_take_idle(turns, "echo", NULL, now));
    turns_idle(turns, &echo, 2, now);
    assert_false(turns_take_idle(turns, "other", NULL, now));
    now += 1000;
    assert_false(turns_take_idle(turns, "echo", NULL, now));
}

static void test_nobody_is_sent_unasked_to_an_instance_that_asks_by_itself(void **state)
{
    assert_false(turns_asks(turns, "i-1", now));
    turns_asked(turns, "i-1", false, now);
    assert_true(turns_asks(turns, "i-1", now));
    assert_false(turns_asks(turns, "i-2", now));
    turns_asked(turns, "i-1", true, now);
    assert_false(turns_asks(turns, "i-1", now));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_who_came_first_is_first, begin, end),
        cmocka_unit_test_setup_teardown(test_a_sender_with_much_does_not_hold_up_one_with_little, begin, end),
        cmocka_unit_test_setup_teardown(test_priority_counts_and_whatever_waits_long_enough_is_first_all_the_same, begin, end),
        cmocka_unit_test_setup_teardown(test_who_was_not_taken_where_its_turn_was_is_first_again, begin, end),
        cmocka_unit_test_setup_teardown(test_who_does_not_say_that_it_waits_is_forgotten_and_who_withdraws, begin, end),
        cmocka_unit_test_setup_teardown(test_a_place_says_how_many_are_before_it_and_how_long_that_takes, begin, end),
        cmocka_unit_test_setup_teardown(test_who_cannot_have_its_turn_in_time_is_told_at_once, begin, end),
        cmocka_unit_test_setup_teardown(test_there_is_room_for_so_many_of_one_sender_and_so_many_in_all, begin, end),
        cmocka_unit_test_setup_teardown(test_an_instance_serves_its_name_and_its_skills_oldest_first, begin, end),
        cmocka_unit_test_setup_teardown(test_a_slot_that_became_free_meanwhile_is_used_once_and_soon, begin, end),
        cmocka_unit_test_setup_teardown(test_nobody_is_sent_unasked_to_an_instance_that_asks_by_itself, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
