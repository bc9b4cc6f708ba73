/* Documents and errors that scripts rely on, and the answer of a task as it comes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "cli/agents.h"
#include "cli/answer.h"
#include "cli/error.h"

/* ---- errors ------------------------------------------------------------------------------------------ */

struct printed {
    struct amp_error err;
    const Amp__Error *wire;
    bool is_json;
};

static char *error_text(const struct printed *what)
{
    struct print_style style = {0};
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (what->is_json)
        error_print_json(to, &what->err, what->wire);
    else
        error_print(to, &style, &what->err, what->wire);
    fclose(to);
    return text;
}

static void test_an_error_names_cause_code_and_next_step(void **state)
{
    struct printed what = {0};
    amp_error_set(&what.err, AMP_NO_SUCH_AGENT, "", "agent \"x\" is not on the mesh");
    char *text = error_text(&what);
    assert_string_equal(text, "error: agent \"x\" is not on the mesh (AMESH-2001). Try: amesh ls\n");
    free(text);
}

static void test_every_code_has_a_next_step(void **state)
{
    size_t count = 0;
    const struct amp_code_info *table = amp_code_table(&count);
    for (size_t i = 0; i < count; i++)
        assert_true(strlen(error_default_hint(table[i].code)) > 0);
}

static void test_the_error_document_has_code_name_message_and_hint(void **state)
{
    struct printed what = {.is_json = true};
    amp_error_set(&what.err, AMP_NO_BUS, "", "nobody \"listens\"");
    amp_error_hint(&what.err, "amesh up");
    char *text = error_text(&what);
    cJSON *json = cJSON_Parse(text), *error = cJSON_GetObjectItem(json, "error");
    assert_string_equal(cJSON_GetObjectItem(error, "code")->valuestring, "AMESH-4001");
    assert_string_equal(cJSON_GetObjectItem(error, "name")->valuestring, "no_bus");
    assert_string_equal(cJSON_GetObjectItem(error, "message")->valuestring, "nobody \"listens\"");
    assert_string_equal(cJSON_GetObjectItem(error, "hint")->valuestring, "amesh up");
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    cJSON_Delete(json);
    free(text);
}

static void death_init(Amp__Death *death, char **lines)
{
    amp__death__init(death);
    death->instance = (char *)"i-1";
    death->has_signal = true;
    death->signal = 9;
    death->has_oom = death->oom = true;
    death->stderr = lines;
    death->n_stderr = 2;
}

static void test_a_death_report_is_shown_with_its_cause_and_its_lines_without_escapes(void **state)
{
    char first[] = "line one", second[] = "\x1b[31mred";
    char *lines[] = {first, second};
    Amp__Death death;
    Amp__Error wire = AMP__ERROR__INIT;
    struct printed what = {.wire = &wire};
    death_init(&death, lines);
    wire.death = &death;
    amp_error_set(&what.err, AMP_AGENT_DIED, "", "the agent died");
    char *text = error_text(&what);
    assert_non_null(strstr(text, "killed by SIGKILL (out of memory)"));
    assert_non_null(strstr(text, "| line one\n"));
    assert_null(strchr(text, '\x1b'));
    free(text);
}

static void test_a_death_in_json_has_all_members_and_null_for_what_did_not_happen(void **state)
{
    char first[] = "a", second[] = "b";
    char *lines[] = {first, second};
    Amp__Death death;
    death_init(&death, lines);
    cJSON *json = error_death_json(&death);
    static const char *const members[] = {"instance", "exit_code", "signal", "oom", "stderr", "tasks", "rss_max_bytes", "cpu_ms"};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        assert_true(cJSON_HasObjectItem(json, members[i]));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "exit_code")));
    assert_int_equal(cJSON_GetObjectItem(json, "signal")->valueint, 9);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "stderr")), 2);
    cJSON_Delete(json);
}

/* ---- agents ------------------------------------------------------------------------------------------- */

static void test_an_agent_document_has_the_promised_members(void **state)
{
    Amp__Beat beat = AMP__BEAT__INIT, lost = AMP__BEAT__INIT;
    Amp__Instance first = AMP__INSTANCE__INIT, second = AMP__INSTANCE__INIT, *instances[] = {&second, &first};
    Amp__AgentCard card = AMP__AGENT_CARD__INIT;
    Amp__AgentRecord record = AMP__AGENT_RECORD__INIT;
    beat.agent = lost.agent = record.name = card.name = (char *)"up";
    beat.instance = (char *)"i-1";
    lost.instance = (char *)"i-2";
    beat.state = AMP__INSTANCE_STATE__INSTANCE_STATE_UP;
    lost.state = AMP__INSTANCE_STATE__INSTANCE_STATE_LOST;
    beat.slots = lost.slots = 2;
    beat.free = 1;
    first.beat = &beat;
    second.beat = &lost;
    record.card = &card;
    record.instances = instances;
    record.n_instances = 2;
    cJSON *json = agents_json(&record, false);
    assert_string_equal(cJSON_GetObjectItem(json, "state")->valuestring, "up");
    assert_int_equal(cJSON_GetObjectItem(json, "slots")->valueint, 2); /* a lost instance offers nothing */
    assert_string_equal(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "card"), "name")->valuestring, "up");
    assert_true(cJSON_IsArray(cJSON_GetObjectItem(json, "deaths")));
    cJSON *instance = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "instances"), 1);
    static const char *const members[] = {"id", "host", "pid", "sidecar_pid", "state", "slots", "free", "inflight", "since", "last_progress"};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        assert_true(cJSON_HasObjectItem(instance, members[i]));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(instance, "pid")));
    cJSON_Delete(json);
}

/* ---- the answer --------------------------------------------------------------------------------------- */

struct fixture {
    struct answer answer;
    char *out, *err;
    size_t out_len, err_len;
    uint32_t seq;
};

static struct fixture *fixture_new(enum answer_form form)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    answer_init(&fixture->answer, "t-1", "c-1", form);
    fixture->answer.out = open_memstream(&fixture->out, &fixture->out_len);
    fixture->answer.err = open_memstream(&fixture->err, &fixture->err_len);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    fclose(fixture->answer.out);
    fclose(fixture->answer.err);
    answer_done(&fixture->answer);
}

static void fixture_free(struct fixture *fixture)
{
    free(fixture->out);
    free(fixture->err);
    free(fixture);
}

static enum amp_code take(struct fixture *fixture, const char *body)
{
    Amp__Json json = AMP__JSON__INIT;
    Amp__Event event = AMP__EVENT__INIT;
    struct amp_error err = {0};
    json.text = (ProtobufCBinaryData){strlen(body), (uint8_t *)body};
    event.body = &json;
    return answer_take(&fixture->answer, ++fixture->seq, &event, &err);
}

#define WORKING "{\"statusUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_WORKING\"}}}"
#define COMPLETED "{\"statusUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_COMPLETED\"}}}"
#define TEXT(text, more) \
    "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"artifact\":{\"artifactId\":\"response\",\"parts\":[{\"text\":\"" text "\"}]}" more "}}"

static void test_text_goes_out_as_it_comes_and_exactly_once(void **state)
{
    struct fixture *fixture = fixture_new(ANSWER_TEXT);
    struct amp_error err = {0};
    assert_int_equal(take(fixture, WORKING), AMP_OK);
    assert_int_equal(take(fixture, TEXT("Hel", "")), AMP_OK);
    assert_string_equal(fixture->out, "Hel");
    assert_int_equal(take(fixture, TEXT("lo", ",\"append\":true,\"lastChunk\":true")), AMP_OK);
    assert_int_equal(take(fixture, COMPLETED), AMP_OK);
    assert_int_equal(answer_outcome(&fixture->answer, &err), AMP_OK);
    fixture_close(fixture);
    assert_string_equal(fixture->out, "Hello");
    assert_string_equal(fixture->err, "");
    fixture_free(fixture);
}

static void test_a_terminal_gets_the_last_newline_and_a_pipe_does_not(void **state)
{
    struct fixture *fixture = fixture_new(ANSWER_TEXT);
    fixture->answer.out_style.is_terminal = true;
    assert_int_equal(take(fixture, WORKING), AMP_OK);
    assert_int_equal(take(fixture, TEXT("x", "")), AMP_OK);
    answer_end_text(&fixture->answer);
    answer_end_text(&fixture->answer);
    fixture_close(fixture);
    assert_string_equal(fixture->out, "x\n");
    fixture_free(fixture);
}

static void test_events_are_lines_of_a_stream_response_with_its_number(void **state)
{
    struct fixture *fixture = fixture_new(ANSWER_EVENTS);
    assert_int_equal(take(fixture, WORKING), AMP_OK);
    assert_int_equal(take(fixture, TEXT("a\\nb", "")), AMP_OK);
    fixture_close(fixture);
    char *second = strchr(fixture->out, '\n') + 1;
    cJSON *json = cJSON_Parse(second);
    assert_int_equal(cJSON_GetObjectItem(json, "seq")->valueint, 2);
    assert_true(cJSON_HasObjectItem(json, "artifactUpdate"));
    assert_ptr_equal(strchr(second, '\n'), second + strlen(second) - 1);
    cJSON_Delete(json);
    fixture_free(fixture);
}

static void test_a_failure_says_the_reason_of_the_agent(void **state)
{
    struct fixture *fixture = fixture_new(ANSWER_TEXT);
    struct amp_error err = {0};
    assert_int_equal(take(fixture, WORKING), AMP_OK);
    assert_int_equal(take(fixture, "{\"statusUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_FAILED\",\"message\":{\"messageId\":\"m-1\","
                                   "\"role\":\"ROLE_AGENT\",\"parts\":[{\"text\":\"no such file\\nsecond line\"}]}}}}"),
                     AMP_OK);
    assert_int_equal(answer_outcome(&fixture->answer, &err), AMP_TASK_FAILED);
    assert_string_equal(err.message, "the agent failed: no such file");
    fixture_close(fixture);
    fixture_free(fixture);
}

static void test_a_stream_that_ends_in_the_middle_is_an_error(void **state)
{
    struct fixture *fixture = fixture_new(ANSWER_TEXT);
    struct amp_error err = {0};
    assert_int_equal(take(fixture, WORKING), AMP_OK);
    assert_int_equal(answer_outcome(&fixture->answer, &err), AMP_BAD_ANSWER);
    fixture_close(fixture);
    fixture_free(fixture);
}

static void test_what_is_not_an_event_is_refused(void **state)
{
    struct fixture *fixture = fixture_new(ANSWER_TEXT);
    assert_int_equal(take(fixture, "{\"artifactUpdate\":7}"), AMP_BAD_ANSWER);
    assert_int_equal(take(fixture, "nonsense"), AMP_BAD_ANSWER);
    fixture_close(fixture);
    fixture_free(fixture);
}

static void test_tool_calls_are_told_only_when_asked_for(void **state)
{
    static const char call[] = "{\"statusUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"metadata\":{\"amp/tool_call\":"
                               "{\"callId\":\"1\",\"name\":\"search\",\"args\":{\"q\":1}}}}}";
    for (int verbose = 0; verbose < 2; verbose++) {
        struct fixture *fixture = fixture_new(ANSWER_TEXT);
        fixture->answer.is_verbose = verbose;
        assert_int_equal(take(fixture, WORKING), AMP_OK);
        assert_int_equal(take(fixture, call), AMP_OK);
        fixture_close(fixture);
        assert_string_equal(fixture->err, verbose ? "tool search({\"q\":1})\n" : "");
        fixture_free(fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_error_names_cause_code_and_next_step),
        cmocka_unit_test(test_every_code_has_a_next_step),
        cmocka_unit_test(test_the_error_document_has_code_name_message_and_hint),
        cmocka_unit_test(test_a_death_report_is_shown_with_its_cause_and_its_lines_without_escapes),
        cmocka_unit_test(test_a_death_in_json_has_all_members_and_null_for_what_did_not_happen),
        cmocka_unit_test(test_an_agent_document_has_the_promised_members),
        cmocka_unit_test(test_text_goes_out_as_it_comes_and_exactly_once),
        cmocka_unit_test(test_a_terminal_gets_the_last_newline_and_a_pipe_does_not),
        cmocka_unit_test(test_events_are_lines_of_a_stream_response_with_its_number),
        cmocka_unit_test(test_a_failure_says_the_reason_of_the_agent),
        cmocka_unit_test(test_a_stream_that_ends_in_the_middle_is_an_error),
        cmocka_unit_test(test_what_is_not_an_event_is_refused),
        cmocka_unit_test(test_tool_calls_are_told_only_when_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
