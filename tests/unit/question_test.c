/* The questions of one task through attempts, answers and time, without an environment. */
#include "env/question.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
    struct questions questions;
    struct question_action actions[QUESTION_ACTIONS_MAX];
    size_t count;
    int64_t now;
};

static void step(struct fixture *f, struct question_event event)
{
    event.now_unix_ms = 1000000 + f->now;
    f->count = questions_step(&f->questions, &event, f->now, f->actions);
}

static bool did(const struct fixture *f, enum question_action_kind kind)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->actions[i].kind == kind)
            return true;
    return false;
}

static void ask(struct fixture *f, const char *id, int64_t in_ms)
{
    cJSON *form = cJSON_Parse("{\"prompt\":\"?\"}");
    step(f, (struct question_event){.kind = QUESTION_EV_ASKED, .id = id, .form = form, .expires_unix_ms = in_ms ? 1000000 + f->now + in_ms : 0});
    cJSON_Delete(form);
}

static void attempt(struct fixture *f, uint32_t number)
{
    step(f, (struct question_event){.kind = QUESTION_EV_LOST});
    step(f, (struct question_event){.kind = QUESTION_EV_ATTEMPT, .attempt = number});
}

static void answer(struct fixture *f, const char *id)
{
    struct question *question = NULL;
    assert_int_equal(question_pick(&f->questions, id, &question, NULL), AMP_OK);
    step(f, (struct question_event){.kind = QUESTION_EV_ANSWER, .question = question, .answer = {.data = (const uint8_t *)"abc", .len = 3}, .by = "me"});
}

static void test_an_answer_counts_once_and_is_told_to_the_attempt_that_waits(void **state)
{
    struct fixture f = {.questions = {.attempt = 1}};
    struct question *question;
    struct amp_error err = {0};
    ask(&f, "q-1", 0);
    assert_true(did(&f, QUESTION_DO_SAY_ASKED));
    answer(&f, "q-1");
    assert_true(did(&f, QUESTION_DO_SAY_ANSWERED));
    assert_true(f.questions.first->is_due);
    assert_int_equal(question_pick(&f.questions, "q-1", &question, &err), AMP_CONFLICT);
    assert_non_null(strstr(err.message, "answered already, by me"));
    step(&f, (struct question_event){.kind = QUESTION_EV_TOLD, .id = "q-1"});
    assert_false(f.questions.first->is_due);
    questions_done(&f.questions);
}

static void test_the_next_attempt_gets_what_was_answered_and_nobody_is_asked_again(void **state)
{
    struct fixture f = {.questions = {.attempt = 1}};
    ask(&f, "q-1", 0);
    attempt(&f, 2);
    assert_int_equal(f.questions.n_open, 1);
    answer(&f, NULL);
    assert_false(f.questions.first->is_due); /* nobody waits for it now */
    ask(&f, "q-1", 0);
    assert_true(did(&f, QUESTION_DO_SAY_AGAIN));
    assert_false(did(&f, QUESTION_DO_SAY_ASKED));
    assert_true(f.questions.first->is_due);
    questions_done(&f.questions);
}

static void test_what_the_next_attempt_does_not_ask_is_withdrawn_after_a_while(void **state)
{
    struct fixture f = {.questions = {.attempt = 1}};
    ask(&f, "q-1", 0);
    ask(&f, "q-2", 0);
    attempt(&f, 2);
    ask(&f, "q-3", 0);
    ask(&f, "q-2", 0); /* in time */
    f.now = questions_due(&f.questions);
    assert_int_equal(f.now, QUESTION_GRACE_MS);
    step(&f, (struct question_event){.kind = QUESTION_EV_TIMER});
    assert_int_equal(question_find(&f.questions, "q-1")->state, QUESTION_WITHDRAWN);
    assert_int_equal(question_find(&f.questions, "q-2")->state, QUESTION_OPEN);
    questions_done(&f.questions);
}

static void test_a_question_that_its_attempt_lets_go_of_waits_for_the_next_one(void **state)
{
    struct fixture f = {.questions = {.attempt = 1}};
    ask(&f, "q-1", 0);
    step(&f, (struct question_event){.kind = QUESTION_EV_CLOSED, .id = "q-1"}); /* the connection of an agent that dies closes first */
    assert_int_equal(f.questions.n_open, 1);
    attempt(&f, 2);
    assert_int_equal(questions_due(&f.questions), QUESTION_NEVER);
    questions_done(&f.questions);
}

static void test_time_runs_out_also_while_nobody_asks(void **state)
{
    struct fixture f = {.questions = {.attempt = 1}};
    ask(&f, "q-1", 100);
    attempt(&f, 2);
    f.now = 100;
    step(&f, (struct question_event){.kind = QUESTION_EV_TIMER});
    assert_true(did(&f, QUESTION_DO_SAY_EXPIRED));
    ask(&f, "q-1", 100);
    assert_true(did(&f, QUESTION_DO_SAY_AGAIN));
    questions_done(&f.questions);
}

static void test_a_row_brings_everything_back(void **state)
{
    struct fixture f = {.questions = {.attempt = 3}};
    struct questions other = {.attempt = 3};
    ask(&f, "q-1", 500);
    char *open = question_save(f.questions.first);
    answer(&f, "q-1");
    char *answered = question_save(f.questions.first);
    assert_non_null(question_load(&other, amp_bytes_of(open), 7000, 1000100));
    assert_int_equal(other.first->due_at, 7000 + 400);
    assert_int_equal(other.n_open, 1);
    questions_done(&other);
    assert_non_null(question_load(&other, amp_bytes_of(answered), 7000, 1000100));
    assert_int_equal(other.first->state, QUESTION_ANSWERED);
    assert_int_equal(other.first->answer_len, 3);
    assert_memory_equal(other.first->answer, "abc", 3);
    assert_string_equal(other.first->by, "me");
    assert_null(question_load(&other, amp_bytes_of("{\"id\":\"q-2\"}"), 0, 0));
    questions_done(&other);
    questions_done(&f.questions);
    free(open);
    free(answered);
}

static void test_a_flood_is_bounded_and_the_oldest_ended_ones_give_way(void **state)
{
    struct fixture f = {.questions = {.attempt = 1}};
    char id[32];
    for (unsigned i = 0; i < AMP_QUESTIONS_MAX; i++) {
        (void)snprintf(id, sizeof id, "q-%u", i);
        ask(&f, id, 0);
    }
    ask(&f, "q-more", 0);
    assert_true(did(&f, QUESTION_DO_REFUSE));
    for (unsigned i = 0; i < 2 * QUESTIONS_KEPT_MAX; i++) {
        struct question *first = f.questions.first;
        while (first->state != QUESTION_OPEN)
            first = first->next;
        answer(&f, first->id);
        step(&f, (struct question_event){.kind = QUESTION_EV_TOLD, .id = first->id});
        (void)snprintf(id, sizeof id, "r-%u", i);
        ask(&f, id, 0);
        assert_false(did(&f, QUESTION_DO_REFUSE));
        questions_sweep(&f.questions);
    }
    assert_true(f.questions.n_kept <= QUESTIONS_KEPT_MAX);
    assert_int_equal(f.questions.n_open, AMP_QUESTIONS_MAX);
    step(&f, (struct question_event){.kind = QUESTION_EV_ENDED});
    assert_int_equal(f.questions.n_open, 0);
    questions_sweep(&f.questions);
    assert_null(f.questions.first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_counts_once_and_is_told_to_the_attempt_that_waits),
        cmocka_unit_test(test_the_next_attempt_gets_what_was_answered_and_nobody_is_asked_again),
        cmocka_unit_test(test_what_the_next_attempt_does_not_ask_is_withdrawn_after_a_while),
        cmocka_unit_test(test_a_question_that_its_attempt_lets_go_of_waits_for_the_next_one),
        cmocka_unit_test(test_time_runs_out_also_while_nobody_asks),
        cmocka_unit_test(test_a_row_brings_everything_back),
        cmocka_unit_test(test_a_flood_is_bounded_and_the_oldest_ended_ones_give_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
