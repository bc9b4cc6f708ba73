/* amesh explain: what follows from what is known of a task. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/call.h"
#include "cli/explain.h"

static struct explain explain;
static struct explain_span spans[8];
static struct explain_instance instances[3];

/* A durable task for `painter`, accepted at 1 s, over at 11 s. */
static int begin(void **state)
{
    explain = (struct explain){.id = "t-1", .agent = "painter", .state = AMP__TASK_STATE__TASK_STATE_COMPLETED, .is_durable = true, .is_over = true,
                               .now_unix_ms = 20000, .submitted_unix_ms = 1000, .ended_unix_ms = 11000, .spans = spans, .instances = instances};
    memset(spans, 0, sizeof spans);
    memset(instances, 0, sizeof instances);
    return 0;
}

static struct explain_span *span(enum explain_kind kind, int64_t from, int64_t to)
{
    struct explain_span *span = &spans[explain.n_spans++];
    *span = (struct explain_span){.kind = kind, .from_unix_ms = from, .to_unix_ms = to};
    return span;
}

static void instance(const char *name, int64_t since)
{
    struct explain_instance *instance = &instances[explain.n_instances++];
    *instance = (struct explain_instance){.state = AMP__INSTANCE_STATE__INSTANCE_STATE_UP, .slots = 1, .since_unix_ms = since, .is_known = true};
    snprintf(instance->name, sizeof instance->name, "%s", name);
}

static struct explain_attempt *attempt(const char *name, int64_t ready, int64_t started)
{
    struct explain_attempt *attempt = &explain.attempts[explain.n_attempts++];
    attempt->number = (int)explain.n_attempts;
    attempt->ready_unix_ms = ready;
    attempt->started_unix_ms = started;
    snprintf(attempt->instance, sizeof attempt->instance, "%s", name);
    return attempt;
}

static void still_runs(void)
{
    explain.is_over = false;
    explain.ended_unix_ms = 0;
    explain.state = AMP__TASK_STATE__TASK_STATE_SUBMITTED;
}

static void test_each_moment_counts_once_and_all_of_them_are_the_whole(void **state)
{
    (void)span(EXPLAIN_QUEUE, 1000, 3000);
    (void)span(EXPLAIN_LOST, 2900, 4000);     /* while it still waits: the wait */
    (void)span(EXPLAIN_WORK, 4000, 11000);
    (void)span(EXPLAIN_CHILD, 5000, 9000);
    (void)span(EXPLAIN_CHILD, 6000, 30000);   /* two at once, and one that outlives it */
    (void)span(EXPLAIN_QUESTION, 8000, 8500); /* while children ran: the question */
    explain_conclude(&explain);
    assert_int_equal(explain.total_ms, 10000);
    assert_int_equal(explain.spent_ms[EXPLAIN_QUEUE], 2000);
    assert_int_equal(explain.spent_ms[EXPLAIN_LOST], 1000);
    assert_int_equal(explain.spent_ms[EXPLAIN_QUESTION], 500);
    assert_int_equal(explain.spent_ms[EXPLAIN_CHILD], 5500);
    assert_int_equal(explain.spent_ms[EXPLAIN_WORK], 1000);
    assert_int_equal(explain.spent_ms[EXPLAIN_REST], 0);
    assert_string_equal(explain.verdict, "completed after 10.0 s, 55 % of it while child tasks ran");
}

static void test_a_clock_that_was_set_back_makes_no_time(void **state)
{
    explain.ended_unix_ms = 500;
    (void)span(EXPLAIN_WORK, 1000, 900);
    explain_conclude(&explain);
    assert_int_equal(explain.total_ms, 0);
    assert_int_equal(explain.spent_ms[EXPLAIN_WORK], 0);
}

static void test_an_attempt_says_why_it_was_there(void **state)
{
    instance("i-a", 100);
    instance("i-b", 2500);
    snprintf(attempt("i-a", 1000, 2000)->waited_for, 160, "every instance of painter is busy (instances: 1)");
    snprintf(explain.attempts[0].outcome, sizeof explain.attempts[0].outcome, "agent_died");
    (void)attempt("i-b", 3000, 3000);
    explain_conclude(&explain);
    assert_string_equal(explain.attempts[0].why, "the only instance there: a slot of it became free, and it was this task's turn");
    assert_string_equal(explain.attempts[1].why, "tried again elsewhere, as attempt 1 ended with agent_died; one of 2 that were there: it had a free slot");
}

static void test_one_that_came_while_the_task_waited_has_it_because_it_came(void **state)
{
    instance("i-a", 1900);
    snprintf(attempt("i-a", 1000, 2000)->waited_for, 160, "no instance of painter is on the mesh");
    explain_conclude(&explain);
    assert_string_equal(explain.attempts[0].why, "the only instance there: it came to the mesh, with a free slot");
}

static void test_what_waits_for_an_instance_says_what_would_help(void **state)
{
    still_runs();
    span(EXPLAIN_QUEUE, 5000, 20000)->is_open = true;
    snprintf(explain.waiting, sizeof explain.waiting, "no instance of painter is on the mesh");
    explain_conclude(&explain);
    assert_string_equal(explain.now, "waits for 15.0 s: no instance of painter is on the mesh");
    assert_int_equal(explain.n_help, 1);
    assert_string_equal(explain.help[0], "amesh run --name painter -- COMMAND starts one");
}

static void test_a_busy_instance_is_named_with_what_keeps_it(void **state)
{
    still_runs();
    instance("i-a", 100);
    snprintf(instances[0].tasks[instances[0].n_tasks++], sizeof instances[0].tasks[0], "t-9");
    snprintf(explain.waiting, sizeof explain.waiting, "every instance of painter is busy (instances: 1)");
    explain_conclude(&explain);
    assert_string_equal(explain.help[0], "amesh explain t-9 tells what keeps i-a");
    assert_non_null(strstr(explain.help[1], "amesh run --name painter"));
}

static void test_a_question_comes_before_all_else(void **state)
{
    still_runs();
    struct explain_span *question = span(EXPLAIN_QUESTION, 18000, 20000);
    question->is_open = true;
    snprintf(question->text, sizeof question->text, "which colour?");
    explain_conclude(&explain);
    assert_string_equal(explain.now, "waits for 2.0 s for an answer: which colour?");
    assert_string_equal(explain.help[0], "amesh ask --task t-1 TEXT, or amesh inbox");
}

static void test_a_path_is_cut_in_its_middle(void **state)
{
    char names[17][AMP_NAME_MAX + 1], *path[17], text[CALL_PATH_SIZE];
    struct amp_error err = {0};
    for (size_t i = 0; i < 17; i++) {
        snprintf(names[i], sizeof names[i], "%060zu", i);
        path[i] = names[i];
    }
    call_path_text(path, 2, "z", text);
    assert_memory_equal(text + 60, " -> ", 4);
    assert_string_equal(text + 124, " -> z");
    call_path_text(path, 17, "z", text);
    assert_non_null(strstr(text, " -> ... -> "));
    assert_string_equal(text + strlen(text) - 5, " -> z");
    assert_int_equal(call_check_path("z", 16, path, 16, &err), AMP_OK);
    assert_int_equal(call_check_path("z", 17, path, 17, &err), AMP_HOPS);
    assert_int_equal(call_check_path(names[3], 4, path, 4, &err), AMP_LOOP);
    assert_non_null(strstr(err.message, names[3]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_each_moment_counts_once_and_all_of_them_are_the_whole, begin),
        cmocka_unit_test_setup(test_a_clock_that_was_set_back_makes_no_time, begin),
        cmocka_unit_test_setup(test_an_attempt_says_why_it_was_there, begin),
        cmocka_unit_test_setup(test_one_that_came_while_the_task_waited_has_it_because_it_came, begin),
        cmocka_unit_test_setup(test_what_waits_for_an_instance_says_what_would_help, begin),
        cmocka_unit_test_setup(test_a_busy_instance_is_named_with_what_keeps_it, begin),
        cmocka_unit_test_setup(test_a_question_comes_before_all_else, begin),
        cmocka_unit_test_setup(test_a_path_is_cut_in_its_middle, begin),
    };
    return cmocka_run_group_tests_name("explain", tests, NULL, NULL);
}
