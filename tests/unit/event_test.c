#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#include <cjson/cJSON.h>

#define NOW_MS 1795600000123

/* Keeps what came, one JSON document after another with a line feed behind each. */
struct seen {
    struct amp_buf buf;
    size_t n;
    bool refuses;
};

static enum amp_code keep(void *ctx, struct amp_bytes json)
{
    struct seen *seen = ctx;
    if (seen->refuses)
        return AMP_OVERLOADED;
    assert_int_equal(amp_json_check(json, &amp_json_limits_default, NULL), AMP_OK);
    seen->n++;
    assert_int_equal(amp_buf_append(&seen->buf, json.data, json.len), AMP_OK);
    assert_int_equal(amp_buf_append(&seen->buf, "\n", 2), AMP_OK); /* with its NUL */
    seen->buf.len--;
    return AMP_OK;
}

static struct seen seen;
static struct amp_event_sink sink = {keep, &seen};
static struct amp_event_source source;

static int setup(void **state)
{
    amp_buf_init(&seen.buf, 16u << 20);
    seen.n = 0;
    seen.refuses = false;
    source = (struct amp_event_source){"t-1", "c-1", NOW_MS, false};
    return 0;
}

static int teardown(void **state)
{
    amp_buf_done(&seen.buf);
    return 0;
}

static const char *text_seen(void)
{
    return seen.n ? (const char *)seen.buf.data : "";
}

static enum amp_code project(const char *local, struct amp_error *err)
{
    struct cJSON *json;
    assert_int_equal(amp_json_parse(amp_bytes_of(local), &json, NULL), AMP_OK);
    enum amp_code code = amp_event_project(&source, json, &sink, err);
    cJSON_Delete(json);
    return code;
}

static void test_text_begins_the_artifact_response_and_then_appends(void **state)
{
    assert_int_equal(project("{\"type\":\"text\",\"text\":\"Hel\"}", NULL), AMP_OK);
    assert_int_equal(project("{\"type\":\"text\",\"text\":\"lo \\\"\\u00e4\\\"\"}", NULL), AMP_OK);
    assert_int_equal(amp_event_text(&source, amp_bytes_of(""), true, &sink), AMP_OK);
    assert_string_equal(
        text_seen(),
        "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"artifact\":{\"artifactId\":\"response\","
        "\"parts\":[{\"text\":\"Hel\"}]}}}\n"
        "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"artifact\":{\"artifactId\":\"response\","
        "\"parts\":[{\"text\":\"lo \\\"\xc3\xa4\\\"\"}]},\"append\":true}}\n"
        "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"artifact\":{\"artifactId\":\"response\","
        "\"parts\":[{\"text\":\"\"}]},\"append\":true,\"lastChunk\":true}}\n");
}

static void test_no_text_is_no_event(void **state)
{
    assert_int_equal(project("{\"type\":\"text\",\"text\":\"\"}", NULL), AMP_OK);
    assert_int_equal(seen.n, 0);
    assert_false(source.is_text_started);
}

/* The hot path writes its JSON without the mapper; they must never differ. */
static void test_text_is_written_as_the_mapper_would(void **state)
{
    static const char *const texts[] = {"", "plain", "\x01\x1f\"\\/\n\t\r\b\f", "\xc3\xa4\xf0\x9f\xa4\x96\xe2\x80\xa8",
                                        "</script>\x7f"};
    struct amp_arena arena;
    amp_arena_init(&arena, 1u << 20);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) * 4; i++) {
        amp_buf_reset(&seen.buf);
        source.is_text_started = i & 1;
        assert_int_equal(amp_event_text(&source, amp_bytes_of(texts[i / 4]), true, &sink), AMP_OK);
        struct amp_bytes written = {seen.buf.data, seen.buf.len - 1};
        ProtobufCMessage *message;
        struct amp_buf again;
        amp_buf_init(&again, 1u << 20);
        assert_int_equal(amp_decode(&amp__stream_response__descriptor, written, &arena, &message, NULL), AMP_OK);
        assert_string_equal(((Amp__StreamResponse *)message)->artifact_update->artifact->parts[0]->text, texts[i / 4]);
        assert_int_equal(amp_encode(message, AMP_JSON, &again, NULL), AMP_OK);
        assert_int_equal(again.len, written.len);
        assert_memory_equal(again.data, written.data, written.len);
        amp_buf_done(&again);
    }
    amp_arena_done(&arena);
}

static void test_long_text_is_split_at_the_end_of_a_character(void **state)
{
    size_t len = 3 * AMP_TEXT_EVENT_MAX + 10;
    char *text = malloc(len + 1);
    text[0] = 'x'; /* so that no limit falls on a character's end */
    for (size_t i = 1; i + 3 <= len; i += 3)
        memcpy(text + i, "\xe4\xb8\xad", 3);
    len = 1 + (len - 1) / 3 * 3;
    text[len] = '\0';
    assert_int_equal(amp_event_text(&source, (struct amp_bytes){(uint8_t *)text, len}, false, &sink), AMP_OK);
    assert_int_equal(seen.n, 4);
    assert_null(strstr(text_seen(), "\xef\xbf\xbd"));
    struct amp_fold *fold = amp_fold_new("t-1", "c-1", 1u << 20);
    char *line = (char *)seen.buf.data;
    for (size_t i = 0; i < 4; i++) {
        size_t line_len = strcspn(line, "\n");
        assert_int_equal(amp_fold_apply(fold, (struct amp_bytes){(uint8_t *)line, line_len}, NULL), AMP_OK);
        line += line_len + 1;
    }
    const Amp__Task *task = amp_fold_task(fold);
    assert_int_equal(task->artifacts[0]->n_parts, 1);
    assert_string_equal(task->artifacts[0]->parts[0]->text, text);
    amp_fold_free(fold);
    free(text);
}

static void test_garbage_in_text_becomes_replacement_characters(void **state)
{
    static const uint8_t garbage[] = {'a', 0xff, 0x80, 'b'};
    assert_int_equal(amp_event_text(&source, (struct amp_bytes){garbage, sizeof(garbage)}, false, &sink), AMP_OK);
    assert_non_null(strstr(text_seen(), "\xef\xbf\xbd"));
    uint8_t *much = malloc(2 * AMP_TEXT_EVENT_MAX);
    memset(much, 0x80, 2 * AMP_TEXT_EVENT_MAX);
    assert_int_equal(amp_event_text(&source, (struct amp_bytes){much, 2 * AMP_TEXT_EVENT_MAX}, false, &sink), AMP_OK);
    free(much);
}

static void test_a_refused_event_leaves_the_source_as_it_was(void **state)
{
    seen.refuses = true;
    assert_int_equal(amp_event_text(&source, amp_bytes_of("x"), false, &sink), AMP_OVERLOADED);
    assert_false(source.is_text_started);
    struct amp_error err = {0};
    assert_int_equal(project("{\"type\":\"step\",\"name\":\"a\",\"phase\":\"end\"}", &err), AMP_OVERLOADED);
    assert_int_equal(err.code, AMP_OVERLOADED);
    err.code = AMP_OK;
    assert_int_equal(project("{\"type\":\"text\",\"text\":\"a\"}", &err), AMP_OVERLOADED);
    assert_int_equal(err.code, AMP_OVERLOADED);
    assert_string_equal(err.field, "event");
}

static void test_what_A2A_has_no_place_for_goes_into_metadata(void **state)
{
    static const struct {
        const char *local, *metadata;
    } rows[] = {
        {"{\"type\":\"tool_call\",\"callId\":\"1\",\"name\":\"web\",\"args\":{\"q\":[1,true]}}",
         "{\"amp/tool_call\":{\"callId\":\"1\",\"name\":\"web\",\"args\":{\"q\":[1,true]}}}"},
        {"{\"type\":\"tool_result\",\"callId\":\"1\",\"output\":null,\"isError\":true}",
         "{\"amp/tool_result\":{\"callId\":\"1\",\"output\":null,\"isError\":true}}"},
        {"{\"type\":\"step\",\"name\":\"plan\",\"phase\":\"start\",\"path\":[\"a\",\"b\"]}",
         "{\"amp/step\":{\"name\":\"plan\",\"phase\":\"start\",\"path\":[\"a\",\"b\"]}}"},
        {"{\"type\":\"usage\",\"model\":\"m\",\"inputTokens\":3,\"costUsd\":0.25}",
         "{\"amp/usage\":{\"model\":\"m\",\"inputTokens\":3,\"costUsd\":0.25}}"},
        {"{\"type\":\"log\",\"level\":\"warn\",\"text\":\"x\"}", "{\"amp/log\":{\"level\":\"warn\",\"text\":\"x\"}}"},
        {"{\"type\":\"custom\",\"name\":\"n\",\"value\":[]}", "{\"amp/custom\":{\"name\":\"n\",\"value\":[]}}"},
        {"{\"type\":\"reasoning\",\"text\":\"hm\"}", "{\"amp/reasoning\":{\"text\":\"hm\"}}"},
        {"{\"later\":1,\"type\":\"log\",\"level\":\"info\",\"text\":\"x\"}",
         "{\"amp/log\":{\"later\":1,\"level\":\"info\",\"text\":\"x\"}}"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char expected[512];
        (void)snprintf(expected, sizeof(expected),
                       "{\"statusUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":"
                       "\"TASK_STATE_WORKING\",\"timestamp\":\"2026-11-25T09:46:40.123Z\"},\"metadata\":%s}}\n",
                       rows[i].metadata);
        amp_buf_reset(&seen.buf);
        assert_int_equal(project(rows[i].local, NULL), AMP_OK);
        assert_string_equal(text_seen(), expected);
    }
}

static void test_a_wrong_member_is_named(void **state)
{
    static const struct {
        const char *local, *field;
        enum amp_code code;
    } rows[] = {
        {"[]", "event", AMP_INVALID},
        {"{}", "event.type", AMP_INVALID},
        {"{\"type\":1}", "event.type", AMP_INVALID},
        {"{\"type\":\"nonsense\"}", "event.type", AMP_INVALID},
        {"{\"type\":\"text\"}", "event.text", AMP_INVALID},
        {"{\"type\":\"text\",\"text\":1}", "event.text", AMP_INVALID},
        {"{\"type\":\"reasoning\"}", "event.text", AMP_INVALID},
        {"{\"type\":\"tool_call\",\"name\":\"x\"}", "event.callId", AMP_INVALID},
        {"{\"type\":\"tool_call\",\"callId\":\"1\",\"name\":\"\"}", "event.name", AMP_INVALID},
        {"{\"type\":\"tool_result\",\"callId\":\"1\",\"isError\":\"no\"}", "event.isError", AMP_INVALID},
        {"{\"type\":\"step\",\"name\":\"x\",\"phase\":\"middle\"}", "event.phase", AMP_INVALID},
        {"{\"type\":\"step\",\"name\":\"x\",\"phase\":\"end\",\"path\":[1]}", "event.path", AMP_INVALID},
        {"{\"type\":\"usage\",\"inputTokens\":-1}", "event.inputTokens", AMP_INVALID},
        {"{\"type\":\"usage\",\"costUsd\":\"1\"}", "event.costUsd", AMP_INVALID},
        {"{\"type\":\"log\",\"level\":\"loud\",\"text\":\"x\"}", "event.level", AMP_INVALID},
        {"{\"type\":\"status\"}", "event.text", AMP_INVALID},
        {"{\"type\":\"artifact\"}", "event.parts", AMP_INVALID},
        {"{\"type\":\"artifact\",\"text\":\"x\",\"data\":1}", "event.parts", AMP_INVALID},
        {"{\"type\":\"artifact\",\"parts\":[]}", "event.parts", AMP_INVALID},
        {"{\"type\":\"artifact\",\"parts\":[{}]}", "event.parts[0]", AMP_INVALID},
        {"{\"type\":\"artifact\",\"parts\":[{\"raw\":\"AA=5\"}]}", "event.parts[0].raw", AMP_INVALID},
        {"{\"type\":\"artifact\",\"text\":\"x\",\"name\":\"a\\nb\"}", "event.name", AMP_INVALID},
        {"{\"type\":\"artifact\",\"text\":\"x\",\"artifactId\":\"\"}", "event.artifactId", AMP_INVALID},
        {"{\"type\":\"artifact\",\"text\":\"x\",\"append\":1}", "event.append", AMP_INVALID},
        {"{\"type\":\"artifact\",\"text\":\"x\",\"artifactId\":\"response\",\"append\":true}", "event.append",
         AMP_INVALID},
        {"{\"type\":\"custom\",\"name\":\"x\",\"value\":[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}", "event.value",
         AMP_TOO_DEEP},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct amp_error err = {0};
        assert_int_equal(project(rows[i].local, &err), rows[i].code);
        assert_string_equal(err.field, rows[i].field);
    }
    assert_int_equal(seen.n, 0);
}

static void test_the_deepest_allowed_event_fits_into_the_deepest_reply(void **state)
{
    char local[128], wire[512];
    (void)snprintf(local, sizeof(local),
                   "{\"type\":\"custom\",\"name\":\"x\",\"value\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}");
    assert_int_equal(project(local, NULL), AMP_OK);
    (void)snprintf(wire, sizeof(wire),
                   "{\"version\":1,\"envReply\":{\"tasks\":[{\"task\":{\"id\":\"t-1\"},\"events\":[{\"body\":%s}]}]}}",
                   text_seen());
    struct amp_arena arena;
    ProtobufCMessage *message;
    struct amp_error err = {0};
    amp_arena_init(&arena, 1u << 20);
    if (amp_decode(&amp__envelope__descriptor, amp_bytes_of(wire), &arena, &message, &err) != AMP_OK)
        fail_msg("%s: %s", err.field, err.message);
    amp_arena_done(&arena);
}

static void test_an_artifact_is_an_artifact_update(void **state)
{
    assert_int_equal(project("{\"type\":\"artifact\",\"name\":\"My Plan.md\",\"text\":\"# x\",\"filename\":\"plan.md\","
                             "\"mediaType\":\"text/markdown\",\"last\":true}",
                             NULL),
                     AMP_OK);
    assert_int_equal(project("{\"type\":\"artifact\",\"data\":{\"a\":1},\"append\":true}", NULL), AMP_OK);
    assert_int_equal(
        project("{\"type\":\"artifact\",\"artifactId\":\"X 1\",\"parts\":[{\"text\":\"a\"},{\"raw\":\"AA==\"}]}", NULL),
        AMP_OK);
    assert_string_equal(
        text_seen(),
        "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"artifact\":{\"artifactId\":\"my-plan-md\","
        "\"name\":\"My Plan.md\",\"parts\":[{\"text\":\"# "
        "x\",\"filename\":\"plan.md\",\"mediaType\":\"text/markdown\"}]},"
        "\"lastChunk\":true}}\n"
        "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"artifact\":{\"artifactId\":\"artifact\","
        "\"parts\":[{\"data\":{\"a\":1}}]},\"append\":true}}\n"
        "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"contextId\":\"c-1\",\"artifact\":{\"artifactId\":\"X 1\","
        "\"parts\":[{\"text\":\"a\"},{\"raw\":\"AA==\"}]}}}\n");
}

static void test_an_agent_cannot_wipe_what_it_has_said(void **state)
{
    struct amp_error err;
    assert_int_equal(project("{\"type\":\"text\",\"text\":\"said\"}", NULL), AMP_OK);
    assert_int_equal(project("{\"type\":\"artifact\",\"name\":\"response\",\"text\":\"x\"}", &err), AMP_INVALID);
    assert_string_equal(err.field, "event.artifactId");
    assert_int_equal(project("{\"type\":\"artifact\",\"name\":\"response\",\"text\":\"x\",\"append\":true}", NULL),
                     AMP_OK);
}

static void test_an_agent_may_begin_its_answer_as_an_artifact(void **state)
{
    assert_int_equal(project("{\"type\":\"artifact\",\"artifactId\":\"response\",\"text\":\"x\"}", NULL), AMP_OK);
    assert_true(source.is_text_started);
}

static void test_a_long_artifact_text_goes_out_in_pieces(void **state)
{
    size_t len = 2 * AMP_TEXT_EVENT_MAX + 5;
    char *local = malloc(len + 100);
    int at = sprintf(local, "{\"type\":\"artifact\",\"last\":true,\"text\":\"");
    memset(local + at, 'y', len);
    memcpy(local + (size_t)at + len, "\"}", 3);
    assert_int_equal(project(local, NULL), AMP_OK);
    assert_int_equal(seen.n, 3);
    const char *last = strstr(text_seen(), "\"lastChunk\":true");
    assert_non_null(last);
    assert_string_equal(last, "\"lastChunk\":true}}\n");
    free(local);
}

static void test_a_status_is_a_note_of_the_agent(void **state)
{
    assert_int_equal(project("{\"type\":\"status\",\"text\":\"looking\"}", NULL), AMP_OK);
    const char *json = text_seen();
    assert_non_null(strstr(json, "\"status\":{\"state\":\"TASK_STATE_WORKING\",\"message\":{\"messageId\":\"m-"));
    assert_non_null(strstr(json, "\"role\":\"ROLE_AGENT\",\"parts\":[{\"text\":\"looking\"}]}"));
}

static void test_a_change_of_state_carries_its_metadata(void **state)
{
    assert_int_equal(amp_event_status(&source, AMP__TASK_STATE__TASK_STATE_INPUT_REQUIRED, "which?",
                                      "{\"amp/question\":{\"id\":\"q\"}}", &sink),
                     AMP_OK);
    assert_non_null(strstr(text_seen(), "TASK_STATE_INPUT_REQUIRED"));
    assert_non_null(strstr(text_seen(), "\"metadata\":{\"amp/question\":{\"id\":\"q\"}}}}\n"));
    assert_int_not_equal(amp_event_status(&source, AMP__TASK_STATE__TASK_STATE_WORKING, NULL, "{\"a\":", &sink),
                         AMP_OK);
    assert_int_equal(amp_event_status(&source, AMP__TASK_STATE__TASK_STATE_WORKING, NULL, "[]", &sink), AMP_INVALID);
    assert_int_equal(seen.n, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_text_begins_the_artifact_response_and_then_appends),
        T(test_no_text_is_no_event),
        T(test_text_is_written_as_the_mapper_would),
        T(test_long_text_is_split_at_the_end_of_a_character),
        T(test_garbage_in_text_becomes_replacement_characters),
        T(test_a_refused_event_leaves_the_source_as_it_was),
        T(test_what_A2A_has_no_place_for_goes_into_metadata),
        T(test_a_wrong_member_is_named),
        T(test_the_deepest_allowed_event_fits_into_the_deepest_reply),
        T(test_an_artifact_is_an_artifact_update),
        T(test_an_agent_cannot_wipe_what_it_has_said),
        T(test_an_agent_may_begin_its_answer_as_an_artifact),
        T(test_a_long_artifact_text_goes_out_in_pieces),
        T(test_a_status_is_a_note_of_the_agent),
        T(test_a_change_of_state_carries_its_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
