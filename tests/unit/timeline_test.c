/* The timeline of a task: built from a record and events, folded, in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <cjson/cJSON.h>

#include "cli/event.h"
#include "cli/print.h"
#include "cli/timeline.h"

static struct timeline *timeline;
static struct amp_arena arena;
static uint32_t seq;

static int begin(void **state)
{
    amp_arena_init(&arena, AMP_ARENA_BYTES_MAX);
    timeline = timeline_new();
    seq = 0;
    return 0;
}

static int end(void **state)
{
    timeline_free(timeline);
    amp_arena_done(&arena);
    return 0;
}

/* A task accepted at 1 s of 1970, with this metadata. */
static void record(const char *metadata)
{
    Amp__TaskRecord record = AMP__TASK_RECORD__INIT;
    Amp__Task task = AMP__TASK__INIT;
    Amp__Timestamp at = {.unix_ms = 1000};
    Amp__Json json = AMP__JSON__INIT;
    amp__timestamp__init(&at);
    at.unix_ms = 1000;
    json.text = (ProtobufCBinaryData){.data = (uint8_t *)metadata, .len = strlen(metadata)};
    task.id = (char *)"t-1";
    task.metadata = &json;
    record.task = &task;
    record.submitted = &at;
    record.from = (char *)"me";
    timeline_record(timeline, &record);
}

static void event(int64_t unix_ms, const char *text)
{
    Amp__StreamResponse *body = NULL;
    Amp__Event event = AMP__EVENT__INIT;
    Amp__Json json = AMP__JSON__INIT;
    json.text = (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
    event.body = &json;
    amp_arena_reset(&arena);
    assert_int_equal(event_decode(&event, &arena, &body, NULL), AMP_OK);
    timeline_event(timeline, ++seq, unix_ms, body);
}

static void status(int64_t unix_ms, const char *state, const char *metadata)
{
    char text[512];
    snprintf(text, sizeof text, "{\"statusUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_%s\"}%s%s}}", state, *metadata != '\0' ? ",\"metadata\":" : "", metadata);
    event(unix_ms, text);
}

static char *printed(unsigned width)
{
    char *text = NULL;
    size_t len = 0;
    struct print_style style = {.has_utf8 = true, .width = width};
    FILE *to = open_memstream(&text, &len);
    timeline_print(to, &style, timeline);
    fclose(to);
    return text;
}

static void test_waits_and_attempts_stand_in_their_time(void **state)
{
    record("{\"amp/attempts\":[{\"attempt\":1,\"agent\":\"up\",\"instance\":\"i-1\",\"host\":\"vm\",\"startedAt\":\"1970-01-01T00:00:03.100Z\",\"endedAt\":\"1970-01-01T00:00:04.000Z\",\"outcome\":\"agent_died\","
           "\"reason\":\"killed\",\"waits\":[{\"from\":\"1970-01-01T00:00:01.000Z\",\"to\":\"1970-01-01T00:00:03.100Z\",\"reason\":\"every instance of up is busy\"}]},"
           "{\"attempt\":2,\"agent\":\"up\",\"instance\":\"i-2\",\"startedAt\":\"1970-01-01T00:00:05.000Z\"}]}");
    char *text = printed(0);
    assert_non_null(strstr(text, "    +0 ms  accepted   a direct call, asked by me\n    +0 ms  waited     2.1 s: every instance of up is busy\n   +2.1 s  attempt 1  i-1 on vm  (900 ms)\n   +3.0 s  attempt 1  agent_died: killed\n   +4.0 s  attempt 2  i-2  (not over)\n"));
    free(text);
}

/* The agent went on, and what it said meanwhile is between what it said before and after. */
static void test_a_time_without_an_environment_stands_between_the_events_of_the_attempt(void **state)
{
    record("{\"amp/attempts\":[{\"attempt\":1,\"agent\":\"up\",\"instance\":\"i-1\",\"startedAt\":\"1970-01-01T00:00:01.005Z\",\"endedAt\":\"1970-01-01T00:00:09.000Z\",\"outcome\":\"completed\","
           "\"away\":[{\"from\":\"1970-01-01T00:00:02.500Z\",\"to\":\"1970-01-01T00:00:05.500Z\",\"reason\":\"the environment was away\"}]}]}");
    status(2000, "WORKING", "{\"amp/log\":{\"level\":\"info\",\"text\":\"before\"}}");
    status(6000, "WORKING", "{\"amp/log\":{\"level\":\"info\",\"text\":\"after\"}}");
    char *text = printed(0);
    const char *before = strstr(text, "before\n"), *away = strstr(text, "   +1.5 s  away       3.0 s: the environment was away\n"), *after = strstr(text, "after\n");
    assert_true(before && away && after && before < away && away < after);
    free(text);
}

static void test_what_comes_too_late_stands_in_its_time_also_behind_the_end(void **state)
{
    record("{\"amp/attempts\":[{\"attempt\":1,\"instance\":\"i-1\",\"startedAt\":\"1970-01-01T00:00:01.005Z\",\"endedAt\":\"1970-01-01T00:00:03.000Z\",\"outcome\":\"instance_lost\","
           "\"ignored\":[{\"instance\":\"i-1\",\"at\":\"1970-01-01T00:00:09.000Z\",\"state\":\"completed\"}]},"
           "{\"attempt\":2,\"instance\":\"i-2\",\"startedAt\":\"1970-01-01T00:00:04.000Z\",\"endedAt\":\"1970-01-01T00:00:08.000Z\",\"outcome\":\"completed\","
           "\"ignored\":[{\"instance\":\"i-2\",\"at\":\"1970-01-01T00:00:05.000Z\",\"state\":\"failed\"}]}]}");
    status(3500, "WORKING", "{\"amp/retry\":{\"attempt\":2}}");
    status(8000, "COMPLETED", "");
    char *text = printed(0);
    const char *early = strstr(text, "i-2 came too late"), *over = strstr(text, "s  completed"), *late = strstr(text, "i-1 came too late");
    if (!early || !over || !late || early > over || over > late)
        fail_msg("%s", text);
    free(text);
}

/* All within a millisecond, and the retry told a little later than the wait began: the order is that of cause and effect. */
static void test_a_death_its_retry_the_wait_and_the_next_attempt_stand_in_this_order(void **state)
{
    record("{\"amp/attempts\":[{\"attempt\":1,\"instance\":\"i-1\",\"startedAt\":\"1970-01-01T00:00:01.005Z\",\"endedAt\":\"1970-01-01T00:00:01.013Z\",\"outcome\":\"agent_died\"},"
           "{\"attempt\":2,\"instance\":\"i-2\",\"startedAt\":\"1970-01-01T00:00:01.026Z\",\"endedAt\":\"1970-01-01T00:00:01.026Z\",\"outcome\":\"agent_died\","
           "\"waits\":[{\"from\":\"1970-01-01T00:00:01.013Z\",\"to\":\"1970-01-01T00:00:01.026Z\",\"reason\":\"one\"}]},"
           "{\"attempt\":3,\"instance\":\"i-3\",\"startedAt\":\"1970-01-01T00:00:01.109Z\","
           "\"waits\":[{\"from\":\"1970-01-01T00:00:01.026Z\",\"to\":\"1970-01-01T00:00:01.109Z\",\"reason\":\"two\"}]}]}");
    status(1014, "WORKING", "{\"amp/retry\":{\"attempt\":2}}");
    status(1026, "WORKING", "{\"amp/retry\":{\"attempt\":3}}");
    status(1108, "WORKING", "{\"amp/log\":{\"level\":\"info\",\"text\":\"x\"}}");
    static const char *const wanted[] = {"accepted", "attempt", "attemptEnd", "retrying", "waited", "attempt", "attemptEnd", "retrying", "waited", "attempt", "log"};
    cJSON *json = timeline_json(timeline);
    assert_int_equal(cJSON_GetArraySize(json), 11);
    const char *before = "";
    for (int i = 0; i < 11; i++) {
        const char *at = cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetArrayItem(json, i), "at"));
        assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetArrayItem(json, i), "what")), wanted[i]);
        assert_true(strcmp(before, at) <= 0);
        before = at;
    }
    cJSON_Delete(json);
}

/* The environment told it while nobody had the task: no attempt began by it. */
static void test_an_answer_while_nobody_has_the_task_begins_no_attempt(void **state)
{
    record("{\"amp/attempts\":[{\"attempt\":1,\"instance\":\"i-1\",\"startedAt\":\"1970-01-01T00:00:01.005Z\",\"endedAt\":\"1970-01-01T00:00:02.000Z\",\"outcome\":\"instance_lost\"},"
           "{\"attempt\":2,\"instance\":\"i-2\",\"startedAt\":\"1970-01-01T00:00:09.000Z\","
           "\"waits\":[{\"from\":\"1970-01-01T00:00:02.000Z\",\"to\":\"1970-01-01T00:00:09.000Z\",\"reason\":\"nobody\"}]}]}");
    status(2000, "WORKING", "{\"amp/retry\":{\"attempt\":2}}");
    status(5000, "WORKING", "{\"amp/answer\":{\"id\":\"q-1\",\"text\":\"yes\"}}");
    char *text = printed(0);
    const char *wait = strstr(text, "+1.0 s  waited"), *answer = strstr(text, "+4.0 s  answer"), *attempt = strstr(text, "+8.0 s  attempt 2");
    assert_true(wait != NULL && answer > wait && attempt > answer);
    free(text);
}

/* Two are asked at once: what becomes of one is not the other asked again, and the next attempt gets what was there. */
static void test_what_became_of_questions_is_told(void **state)
{
    record("{}");
    status(1000, "INPUT_REQUIRED", "{\"amp/question\":{\"id\":\"q-1\",\"prompt\":\"Go?\",\"default\":\"no\"}}");
    status(1000, "INPUT_REQUIRED", "{\"amp/question\":{\"id\":\"q-2\",\"prompt\":\"How many?\"}}");
    status(3000, "INPUT_REQUIRED", "{\"amp/question_closed\":{\"id\":\"q-1\",\"why\":\"expired\",\"default\":\"no\"}}");
    status(4000, "WORKING", "{\"amp/retry\":{\"attempt\":2}}");
    status(4001, "WORKING", "{\"amp/question_closed\":{\"id\":\"q-1\",\"why\":\"expired\",\"default\":\"no\",\"again\":true}}");
    status(4002, "INPUT_REQUIRED", "{\"amp/question\":{\"id\":\"q-2\",\"prompt\":\"How many?\"}}");
    status(5000, "WORKING", "{\"amp/answer\":{\"id\":\"q-2\",\"value\":3,\"by\":\"me\"}}");
    status(6000, "WORKING", "{\"amp/answer\":{\"id\":\"q-2\",\"text\":\"3\",\"by\":\"me\",\"again\":true}}");
    static const char *const wanted[] = {
        "+0 ms  question   Go?  q-1  (2.0 s)\n", "+0 ms  question   How many?  q-2  (4.0 s)\n", "+2.0 s  expired    nobody answered in time, its default counts: no  q-1\n",
        "+3.0 s  replayed   as before: nobody answered in time, its default counts: no  q-1\n", "+3.0 s  question   asked again: How many?  q-2\n",
        "+4.0 s  answer     3  by me, q-2\n", "+5.0 s  replayed   3  answered before by me, q-2\n",
    };
    char *text = printed(0);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (strstr(text, wanted[i]) == NULL)
            fail_msg("no line \"%s\" in\n%s", wanted[i], text);
    assert_null(strstr(text, "says"));
    free(text);
}

static void test_the_last_words_stand_with_the_attempt_that_they_ended(void **state)
{
    char *lines[] = {(char *)"out of luck"}, *tasks[] = {(char *)"t-1"}, *others[] = {(char *)"t-2"};
    Amp__Death death = AMP__DEATH__INIT;
    Amp__Timestamp at;
    amp__timestamp__init(&at);
    at.unix_ms = 4001;
    death.at = &at;
    death.instance = (char *)"i-1";
    death.n_stderr = death.n_tasks = 1;
    death.stderr = lines;
    death.has_signal = true;
    death.signal = 9;
    record("{\"amp/attempts\":[{\"attempt\":1,\"agent\":\"up\",\"instance\":\"i-1\",\"startedAt\":\"1970-01-01T00:00:03.100Z\",\"endedAt\":\"1970-01-01T00:00:04.000Z\",\"outcome\":\"agent_died\"}]}");
    const char *agents[2];
    assert_int_equal(timeline_agents(timeline, agents, 2), 1);
    assert_string_equal(agents[0], "up");
    death.tasks = others;
    timeline_death(timeline, &death);
    death.tasks = tasks;
    timeline_death(timeline, &death);
    char *text = printed(0);
    assert_non_null(strstr(text, "agent_died\n                      killed by SIGKILL\n                      stderr: out of luck\n"));
    free(text);
}

static void test_a_tool_call_and_its_result_are_one_line(void **state)
{
    record("{}");
    status(1000, "WORKING", "{\"amp/tool_call\":{\"callId\":\"a\",\"name\":\"search\",\"args\":{\"q\":1}}}");
    status(1010, "WORKING", "{\"amp/tool_call\":{\"callId\":\"b\",\"name\":\"wait\",\"args\":{}}}");
    status(1250, "WORKING", "{\"amp/tool_result\":{\"callId\":\"a\",\"output\":\"x\"}}");
    char *text = printed(0);
    assert_non_null(strstr(text, "+0 ms  tool       search({\"q\":1}) = x  (250 ms)\n"));
    assert_non_null(strstr(text, "+10 ms  tool       wait({})  (not over)\n"));
    free(text);
}

static void test_pieces_of_text_are_one_line_and_runs_of_one_kind_are_folded(void **state)
{
    record("{}");
    for (int i = 0; i < 1234; i++)
        event(1000 + i, "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"artifact\":{\"artifactId\":\"response\",\"parts\":[{\"text\":\"abc \"}]},\"append\":true}}");
    for (int i = 0; i < 1000; i++)
        status(3000 + i, "WORKING", "{\"amp/log\":{\"level\":\"info\",\"text\":\"l\"}}");
    status(5000, "COMPLETED", "");
    char *text = printed(0);
    assert_non_null(strstr(text, "(1,234 pieces, 4.8 KiB, 1.2 s)\n"));
    assert_non_null(strstr(text, "… 992 more log lines"));
    assert_non_null(strstr(text, "+4.0 s  completed"));
    size_t lines = 0;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines, 1 + 1 + 8 + 1 + 1);
    free(text);
}

static void test_however_much_happens_it_stays_bounded_and_the_end_is_shown(void **state)
{
    record("{}");
    for (int i = 0; i < 20000; i++) {
        status(1000, "WORKING", i % 2 ? "{\"amp/log\":{\"level\":\"info\",\"text\":\"l\"}}" : "{\"amp/custom\":{\"name\":\"n\",\"value\":1}}");
        status(1000, "WORKING", "{\"amp/tool_call\":{\"callId\":\"x\",\"name\":\"t\"}}");
    }
    status(2000, "FAILED", "");
    cJSON *json = timeline_json(timeline);
    assert_true(cJSON_GetArraySize(json) <= (int)TIMELINE_ITEMS_MAX + 2);
    cJSON *last = cJSON_GetArrayItem(json, cJSON_GetArraySize(json) - 1);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(last, "state")), "failed");
    double more = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, json) {
        const cJSON *folded = cJSON_GetObjectItem(item, "more");
        more += 1 + (folded != NULL ? folded->valuedouble : 0);
    }
    assert_true(more == 40000 + 2);
    cJSON_Delete(json);
}

static void test_a_narrow_terminal_cuts_the_text_and_nothing_else(void **state)
{
    record("{}");
    status(1000, "WORKING", "{\"amp/custom\":{\"name\":\"a-name-that-is-much-longer-than-the-terminal-is-wide\",\"value\":1}}");
    char *text = printed(50);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        assert_true(print_width(line) <= 50);
    free(text);
}

static void test_clocks_of_hosts_that_differ_do_not_turn_events_around(void **state)
{
    record("{}");
    status(5000, "WORKING", "{\"amp/log\":{\"level\":\"info\",\"text\":\"first\"}}");
    status(2000, "WORKING", "{\"amp/custom\":{\"name\":\"second\"}}");
    status(100, "COMPLETED", "");
    char *text = printed(0);
    assert_true(strstr(text, "first") < strstr(text, "second"));
    assert_true(strstr(text, "second") < strstr(text, "completed"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_waits_and_attempts_stand_in_their_time, begin, end),
        cmocka_unit_test_setup_teardown(test_a_time_without_an_environment_stands_between_the_events_of_the_attempt, begin, end),
        cmocka_unit_test_setup_teardown(test_what_comes_too_late_stands_in_its_time_also_behind_the_end, begin, end),
        cmocka_unit_test_setup_teardown(test_a_death_its_retry_the_wait_and_the_next_attempt_stand_in_this_order, begin, end),
        cmocka_unit_test_setup_teardown(test_an_answer_while_nobody_has_the_task_begins_no_attempt, begin, end),
        cmocka_unit_test_setup_teardown(test_what_became_of_questions_is_told, begin, end),
        cmocka_unit_test_setup_teardown(test_the_last_words_stand_with_the_attempt_that_they_ended, begin, end),
        cmocka_unit_test_setup_teardown(test_a_tool_call_and_its_result_are_one_line, begin, end),
        cmocka_unit_test_setup_teardown(test_pieces_of_text_are_one_line_and_runs_of_one_kind_are_folded, begin, end),
        cmocka_unit_test_setup_teardown(test_however_much_happens_it_stays_bounded_and_the_end_is_shown, begin, end),
        cmocka_unit_test_setup_teardown(test_a_narrow_terminal_cuts_the_text_and_nothing_else, begin, end),
        cmocka_unit_test_setup_teardown(test_clocks_of_hosts_that_differ_do_not_turn_events_around, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
