#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <amp/amp.h>

#define STATE(name) AMP__TASK_STATE__TASK_STATE_##name

static struct amp_fold *fold;
static bool is_used; /* the tests are done again with a fold that has had another task */

static void use(void);

static int setup(void **state)
{
    fold = amp_fold_new("t-1", "c-1", AMP_FOLD_BYTES_MAX);
    if (is_used) {
        use();
        assert_int_equal(amp_fold_reset(fold, "t-1", "c-1"), AMP_OK);
    }
    return fold ? 0 : -1;
}

static int teardown(void **state)
{
    amp_fold_free(fold);
    return 0;
}

static enum amp_code apply(const char *json)
{
    return amp_fold_apply(fold, amp_bytes_of(json), NULL);
}

static enum amp_code apply_state(const char *name)
{
    char json[256];
    (void)snprintf(json, sizeof(json),
                   "{\"statusUpdate\":{\"taskId\":\"t-1\",\"status\":{\"state\":\"TASK_STATE_%s\"}}}", name);
    return apply(json);
}

static enum amp_code apply_chunk(const char *id, const char *text, bool append)
{
    char json[512];
    (void)snprintf(json, sizeof(json),
                   "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"artifact\":{\"artifactId\":\"%s\",\"parts\":[{\"text\":"
                   "\"%s\"}]}%s}}",
                   id, text, append ? ",\"append\":true" : "");
    return apply(json);
}

static void assert_task(const char *expected)
{
    struct amp_buf buf;
    amp_buf_init(&buf, AMP_JSON_BYTES_MAX);
    assert_int_equal(amp_encode(&amp_fold_task(fold)->base, AMP_JSON, &buf, NULL), AMP_OK);
    assert_int_equal(amp_buf_append(&buf, "", 1), AMP_OK);
    assert_string_equal((const char *)buf.data, expected);
    amp_buf_done(&buf);
}

static void test_a_new_task_is_submitted(void **state)
{
    assert_int_equal(amp_fold_state(fold), STATE(SUBMITTED));
    assert_task("{\"id\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_SUBMITTED\"}}");
}

static void test_streamed_text_is_one_part(void **state)
{
    assert_int_equal(apply_state("WORKING"), AMP_OK);
    assert_int_equal(apply_chunk("response", "Hel", false), AMP_OK);
    assert_int_equal(apply_chunk("other", "x", false), AMP_OK);
    assert_int_equal(apply_chunk("response", "lo", true), AMP_OK);
    assert_int_equal(apply_chunk("response", "", true), AMP_OK);
    assert_int_equal(apply_state("COMPLETED"), AMP_OK);
    assert_task("{\"id\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_COMPLETED\"},\"artifacts\":["
                "{\"artifactId\":\"response\",\"parts\":[{\"text\":\"Hello\"}]},"
                "{\"artifactId\":\"other\",\"parts\":[{\"text\":\"x\"}]}]}");
}

static void test_only_like_parts_are_joined(void **state)
{
    assert_int_equal(
        apply(
            "{\"artifactUpdate\":{\"artifact\":{\"artifactId\":\"a\",\"parts\":[{\"text\":\"1\"},{\"text\":\"2\"}]}}}"),
        AMP_OK);
    assert_int_equal(apply("{\"artifactUpdate\":{\"artifact\":{\"artifactId\":\"a\",\"parts\":[{\"text\":\"3\"},{"
                           "\"data\":4},{\"text\":"
                           "\"5\"}]},\"append\":true}}"),
                     AMP_OK);
    assert_int_equal(apply("{\"artifactUpdate\":{\"artifact\":{\"artifactId\":\"a\",\"parts\":[{\"text\":\"6\","
                           "\"mediaType\":\"x/y\"}]},"
                           "\"append\":true}}"),
                     AMP_OK);
    assert_task("{\"id\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_SUBMITTED\"},\"artifacts\":["
                "{\"artifactId\":\"a\",\"parts\":[{\"text\":\"1\"},{\"text\":\"23\"},{\"data\":4},{\"text\":\"5\"},"
                "{\"text\":\"6\",\"mediaType\":\"x/y\"}]}]}");
}

static void test_an_artifact_without_append_replaces(void **state)
{
    assert_int_equal(apply_chunk("response", "first try", false), AMP_OK);
    assert_int_equal(apply_chunk("response", " went on", true), AMP_OK);
    assert_int_equal(apply_chunk("response", "second", false), AMP_OK);
    assert_int_equal(apply_chunk("response", " try", true), AMP_OK);
    assert_string_equal(amp_fold_task(fold)->artifacts[0]->parts[0]->text, "second try");
    assert_int_equal(amp_fold_task(fold)->n_artifacts, 1);
}

static void test_a_forbidden_move_is_a_conflict_and_is_not_applied(void **state)
{
    struct amp_error err;
    assert_int_equal(apply_state("WORKING"), AMP_OK);
    assert_int_equal(apply_state("SUBMITTED"), AMP_CONFLICT);
    assert_int_equal(apply_state("COMPLETED"), AMP_OK);
    assert_int_equal(
        amp_fold_apply(fold, amp_bytes_of("{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_FAILED\"}}}"), &err),
        AMP_CONFLICT);
    assert_string_equal(err.field, "statusUpdate.status.state");
    assert_string_equal(err.message, "a task that is completed cannot become failed");
    assert_int_equal(apply_chunk("response", "late", false), AMP_CONFLICT);
    assert_int_equal(amp_fold_state(fold), STATE(COMPLETED));
    assert_int_equal(amp_fold_task(fold)->n_artifacts, 0);
}

static void test_metadata_events_change_neither_artifacts_nor_the_note(void **state)
{
    assert_int_equal(apply("{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_WORKING\",\"message\":{\"parts\":[{"
                           "\"text\":\"note\"}]}}}}"),
                     AMP_OK);
    assert_int_equal(
        apply("{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_WORKING\",\"timestamp\":\"2026-11-24T00:00:00Z\"},"
              "\"metadata\":{\"amp/log\":{\"level\":\"info\",\"text\":\"x\"}}}}"),
        AMP_OK);
    assert_task("{\"id\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_WORKING\",\"message\":{"
                "\"parts\":[{\"text\":"
                "\"note\"}]},\"timestamp\":\"2026-11-24T00:00:00.000Z\"}}");
    assert_int_equal(apply_state("COMPLETED"), AMP_OK);
    assert_null(amp_fold_task(fold)->status->message);
}

static void test_questions_and_answers_stand_in_the_history_in_order(void **state)
{
    Amp__Part part = AMP__PART__INIT, *parts[] = {&part};
    Amp__Message message = AMP__MESSAGE__INIT;
    message.parts = parts;
    message.n_parts = 1;
    part.text = (char *)"do it";
    assert_int_equal(amp_fold_message(fold, &message), AMP_OK);
    assert_int_equal(
        apply(
            "{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_INPUT_REQUIRED\",\"message\":{\"parts\":[{\"text\":"
            "\"which?\"}]}}}}"),
        AMP_OK);
    assert_string_equal(amp_fold_task(fold)->status->message->parts[0]->text, "which?");
    part.text = (char *)"that";
    assert_int_equal(amp_fold_message(fold, &message), AMP_OK);
    assert_int_equal(apply_state("WORKING"), AMP_OK);
    const Amp__Task *task = amp_fold_task(fold);
    assert_int_equal(task->n_history, 3);
    assert_string_equal(task->history[0]->parts[0]->text, "do it");
    assert_string_equal(task->history[1]->parts[0]->text, "which?");
    assert_string_equal(task->history[2]->parts[0]->text, "that");
    assert_null(task->status->message);
}

/* Two questions at once; the answer to one says which is still open, and the next attempt asks that anew. */
static void test_a_conversation_has_each_question_once_and_each_answer_with_who_gave_it(void **state)
{
#define WAITING(text, metadata)                                                                                        \
    "{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_INPUT_REQUIRED\",\"message\":{\"messageId\":\"m-1\",\"role\":"        \
    "\"ROLE_AGENT\",\"parts\":[{\"text\":\"" text "\"}]}},\"metadata\":" metadata "}}"
#define WORKING(metadata)                                                                                              \
    "{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"metadata\":" metadata "}}"
    static const char *const events[] = {
        WAITING("Which?", "{\"amp/question\":{\"id\":\"q-1\",\"prompt\":\"Which?\"}}"),
        WAITING("How many?", "{\"amp/question\":{\"id\":\"q-2\",\"prompt\":\"How many?\"}}"),
        WAITING("How many?", "{\"amp/answer\":{\"id\":\"q-1\",\"by\":\"ann\",\"text\":\"red\",\"value\":\"red\"}}"),
        WORKING("{\"amp/retry\":{\"attempt\":2}}"),
        WORKING("{\"amp/answer\":{\"id\":\"q-1\",\"by\":\"ann\",\"text\":\"red\",\"value\":\"red\",\"again\":true}}"),
        WAITING("How many?", "{\"amp/question\":{\"id\":\"q-2\",\"prompt\":\"How many?\"}}"),
        WORKING("{\"amp/answer\":{\"id\":\"q-2\",\"text\":\"{\\\"n\\\":3}\",\"value\":{\"n\":3}}}"),
        WORKING("{\"amp/answer\":{\"id\":\"q-3\",\"bytes\":70000}}"),
        WORKING("{\"amp/answer\":{\"id\":\"not an id\",\"text\":\"x\"}}"),
        WORKING("{\"amp/question_closed\":{\"id\":\"q-4\",\"why\":\"expired\"}}"),
    };
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        assert_int_equal(apply(events[i]), AMP_OK);
    assert_task("{\"id\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"history\":["
                "{\"messageId\":\"m-1\",\"role\":\"ROLE_AGENT\",\"parts\":[{\"text\":\"Which?\"}],"
                "\"metadata\":{\"amp/question\":{\"id\":\"q-1\"}}},"
                "{\"messageId\":\"m-1\",\"role\":\"ROLE_AGENT\",\"parts\":[{\"text\":\"How many?\"}],"
                "\"metadata\":{\"amp/question\":{\"id\":\"q-2\"}}},"
                "{\"messageId\":\"m-1\",\"contextId\":\"c-1\",\"taskId\":\"t-1\",\"role\":\"ROLE_USER\",\"parts\":[{\"text\":"
                "\"red\"}],\"metadata\":{\"amp/answer\":{\"id\":\"q-1\",\"by\":\"ann\"}}},"
                "{\"messageId\":\"m-2\",\"contextId\":\"c-1\",\"taskId\":\"t-1\",\"role\":\"ROLE_USER\",\"parts\":[{\"data\":"
                "{\"n\":3}}],\"metadata\":{\"amp/answer\":{\"id\":\"q-2\"}}},"
                "{\"messageId\":\"m-3\",\"contextId\":\"c-1\",\"taskId\":\"t-1\",\"role\":\"ROLE_USER\",\"parts\":[{\"text\":"
                "\"\"}],\"metadata\":{\"amp/answer\":{\"id\":\"q-3\",\"bytes\":70000}}}]}");
}

static void test_a_snapshot_replaces_what_was_there(void **state)
{
    assert_int_equal(apply_chunk("old", "x", false), AMP_OK);
    assert_int_equal(
        apply("{\"task\":{\"id\":\"t-1\",\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"artifacts\":[{\"artifactId\":"
              "\"response\",\"parts\":[{\"text\":\"Hel\"}]}],\"history\":[{\"parts\":[{\"text\":\"q\"}]}],\"metadata\":"
              "{\"k\":1}}}"),
        AMP_OK);
    assert_int_equal(apply_chunk("response", "lo", true), AMP_OK);
    assert_task("{\"id\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"artifacts\":[{"
                "\"artifactId\":"
                "\"response\",\"parts\":[{\"text\":\"Hello\"}]}],\"history\":[{\"parts\":[{\"text\":\"q\"}]}],"
                "\"metadata\":{\"k\":1}}");
}

static void test_a_message_goes_into_the_history(void **state)
{
    assert_int_equal(apply("{\"message\":{\"role\":\"ROLE_AGENT\",\"parts\":[{\"text\":\"hi\"}]}}"), AMP_OK);
    assert_int_equal(amp_fold_task(fold)->n_history, 1);
    assert_int_equal(apply("{\"message\":{}}"), AMP_INVALID);
}

static void test_what_is_no_event_of_this_task_is_refused(void **state)
{
    static const char *const bad[] = {
        "{}",
        "{\"statusUpdate\":{\"taskId\":\"t-2\",\"status\":{\"state\":\"TASK_STATE_WORKING\"}}}",
        "{\"statusUpdate\":{\"taskId\":\"t-1\"}}",
        "{\"statusUpdate\":{\"taskId\":\"t-1\",\"status\":{}}}",
        "{\"artifactUpdate\":{\"taskId\":\"t-1\"}}",
        "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"artifact\":{\"artifactId\":\"a\"}}}",
        "{\"artifactUpdate\":{\"taskId\":\"t-1\",\"artifact\":{\"parts\":[{\"text\":\"x\"}]}}}",
        "{\"artifactUpdate\":{\"taskId\":\"t-2\",\"artifact\":{\"artifactId\":\"a\",\"parts\":[{\"text\":\"x\"}]}}}",
        "{\"task\":{\"id\":\"t-1\"}}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(apply(bad[i]), AMP_INVALID);
    assert_int_not_equal(apply("{\"statusUpdate\":"), AMP_OK);
    assert_int_not_equal(apply(""), AMP_OK);
    assert_task("{\"id\":\"t-1\",\"contextId\":\"c-1\",\"status\":{\"state\":\"TASK_STATE_SUBMITTED\"}}");
}

static void test_a_fold_without_an_id_takes_the_first_it_hears(void **state)
{
    struct amp_fold *other = amp_fold_new(NULL, NULL, 1u << 20);
    const char *json = "{\"statusUpdate\":{\"taskId\":\"t-9\",\"status\":{\"state\":\"TASK_STATE_WORKING\"}}}";
    assert_int_equal(amp_fold_apply(other, amp_bytes_of(json), NULL), AMP_OK);
    assert_string_equal(amp_fold_task(other)->id, "t-9");
    amp_fold_free(other);
    amp_fold_free(NULL);
}

static void test_a_task_that_is_full_takes_no_more_but_can_end(void **state)
{
    struct amp_fold *small = amp_fold_new("t-1", "c-1", 4096);
    char json[700];
    memset(json, 0, sizeof(json));
    int at = sprintf(
        json, "{\"artifactUpdate\":{\"append\":true,\"artifact\":{\"artifactId\":\"response\",\"parts\":[{\"text\":\"");
    memset(json + at, 'x', 500);
    memcpy(json + at + 500, "\"}]}}}", 7);
    int n = 0;
    enum amp_code code;
    while ((code = amp_fold_apply(small, amp_bytes_of(json), NULL)) == AMP_OK)
        n++;
    assert_int_equal(code, AMP_TOO_LARGE);
    assert_in_range(n, 6, 8);
    assert_int_equal(strlen(amp_fold_task(small)->artifacts[0]->parts[0]->text), 500 * n);
    const char *end = "{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_FAILED\",\"message\":{\"parts\":[{"
                      "\"text\":\"full\"}]}}}}";
    assert_int_equal(amp_fold_apply(small, amp_bytes_of(end), NULL), AMP_OK);
    assert_int_equal(amp_fold_state(small), STATE(FAILED));
    amp_fold_free(small);
}

/* A question takes its room twice, as status and in the history: it is there in both or in neither. */
static void test_a_refused_question_leaves_nothing_behind(void **state)
{
    struct amp_fold *small = amp_fold_new("t-1", "c-1", 1000);
    char json[700];
    int at = sprintf(
        json,
        "{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_INPUT_REQUIRED\",\"message\":{\"parts\":[{\"text\":\"");
    memset(json + at, '?', 500);
    memcpy(json + at + 500, "\"}]}}}}", 8);
    assert_int_equal(amp_fold_apply(small, amp_bytes_of(json), NULL), AMP_TOO_LARGE);
    assert_int_equal(amp_fold_state(small), STATE(SUBMITTED));
    assert_int_equal(amp_fold_task(small)->n_history, 0);
    amp_fold_free(small);
}

static void test_a_refused_snapshot_leaves_what_was_there(void **state)
{
    struct amp_fold *small = amp_fold_new("t-1", "c-1", 1200);
    char json[900];
    const char *first = "{\"artifactUpdate\":{\"artifact\":{\"artifactId\":\"a\",\"parts\":[{\"text\":\"x\"}]}}}";
    assert_int_equal(amp_fold_apply(small, amp_bytes_of(first), NULL), AMP_OK);
    int at = sprintf(
        json,
        "{\"task\":{\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"artifacts\":[{\"artifactId\":\"b\",\"parts\":[");
    for (int i = 0; i < 10; i++)
        at += sprintf(json + at, "%s{\"text\":\"y\"}", i ? "," : "");
    (void)sprintf(json + at, "]}]}}");
    assert_int_equal(amp_fold_apply(small, amp_bytes_of(json), NULL), AMP_TOO_LARGE);
    assert_string_equal(amp_fold_task(small)->artifacts[0]->artifact_id, "a");
    amp_fold_free(small);
}

static void test_replacing_gives_the_room_back(void **state)
{
    struct amp_fold *small = amp_fold_new("t-1", "c-1", 4096);
    char json[1200];
    int at = sprintf(json, "{\"artifactUpdate\":{\"artifact\":{\"artifactId\":\"a\",\"parts\":[{\"text\":\"");
    memset(json + at, 'x', 1000);
    memcpy(json + at + 1000, "\"}]}}}", 7);
    for (int i = 0; i < 100; i++)
        assert_int_equal(amp_fold_apply(small, amp_bytes_of(json), NULL), AMP_OK);
    for (int i = 0; i < 100; i++) {
        const char *note = "{\"statusUpdate\":{\"status\":{\"state\":\"TASK_STATE_WORKING\",\"message\":{\"parts\":[{"
                           "\"text\":\"a note\"}]}}}}";
        assert_int_equal(amp_fold_apply(small, amp_bytes_of(note), NULL), AMP_OK);
    }
    amp_fold_free(small);
}

static void test_artifacts_and_parts_are_counted(void **state)
{
    char id[16];
    for (unsigned i = 0; i < AMP_ARTIFACTS_MAX; i++) {
        (void)snprintf(id, sizeof(id), "a-%u", i);
        assert_int_equal(apply_chunk(id, "x", false), AMP_OK);
    }
    assert_int_equal(apply_chunk("one-more", "x", false), AMP_TOO_LARGE);
    assert_int_equal(apply_chunk("a-7", "y", true), AMP_OK);
    enum amp_code code = AMP_OK;
    for (unsigned i = 0; i < AMP_PARTS_MAX && code == AMP_OK; i++)
        code = apply(
            "{\"artifactUpdate\":{\"append\":true,\"artifact\":{\"artifactId\":\"a-7\",\"parts\":[{\"data\":1}]}}}");
    assert_int_equal(code, AMP_TOO_LARGE);
    assert_int_equal(amp_fold_task(fold)->artifacts[7]->n_parts, AMP_PARTS_MAX);
}

/* The text moves when it grows, and it grows by a part of itself: its address may change only a few dozen times. */
static void test_appending_is_linear(void **state)
{
    assert_int_equal(apply_chunk("response", "x", false), AMP_OK);
    const char *last = NULL;
    int n_moves = 0;
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(apply_chunk("response", "0123456789", true), AMP_OK);
        const char *text = amp_fold_task(fold)->artifacts[0]->parts[0]->text;
        n_moves += text != last;
        last = text;
    }
    assert_int_equal(strlen(last), 100001);
    assert_true(n_moves < 80);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* More than the room of a fold has, of everything that a task may hold; and it ended. */
static void use(void)
{
    char json[8192], text[2048] = "";
    memset(text, 'x', sizeof(text) - 1);
    assert_int_equal(amp_fold_reset(fold, "", ""), AMP_OK);
    for (int i = 0; i < 4; i++) {
        snprintf(json, sizeof(json),
                 "{\"task\":{\"id\":\"t-0\",\"contextId\":\"c-0\",\"status\":{\"state\":\"TASK_STATE_WORKING\"},\"metadata\":{\"a\":\"%s\"},\"history\":[{\"messageId\":\"m\",\"role\":"
                 "\"ROLE_USER\",\"parts\":[{\"text\":\"%s\"}]}],\"artifacts\":[{\"artifactId\":\"a\",\"parts\":[{\"text\":\"%s\"}]}]}}",
                 text, text, text);
        assert_int_equal(apply(json), AMP_OK);
    }
    for (int i = 0; i < 8; i++) {
        snprintf(json, sizeof(json),
                 "{\"artifactUpdate\":{\"taskId\":\"t-0\",\"append\":true,\"artifact\":{\"artifactId\":\"a\",\"parts\":[{\"text\":\"%s\"},{\"raw\":\"YQ==\"},{\"text\":\"y\"}]}}}",
                 text);
        assert_int_equal(apply(json), AMP_OK);
        assert_int_equal(apply("{\"artifactUpdate\":{\"taskId\":\"t-0\",\"artifact\":{\"artifactId\":\"b\",\"parts\":[{\"text\":\"z\"}]}}}"), AMP_OK);
    }
    assert_int_equal(apply("{\"statusUpdate\":{\"taskId\":\"t-0\",\"status\":{\"state\":\"TASK_STATE_COMPLETED\"}}}"), AMP_OK);
}

static int setup_used(void **state)
{
    is_used = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_new_task_is_submitted),
        T(test_streamed_text_is_one_part),
        T(test_only_like_parts_are_joined),
        T(test_an_artifact_without_append_replaces),
        T(test_a_forbidden_move_is_a_conflict_and_is_not_applied),
        T(test_metadata_events_change_neither_artifacts_nor_the_note),
        T(test_questions_and_answers_stand_in_the_history_in_order),
        T(test_a_conversation_has_each_question_once_and_each_answer_with_who_gave_it),
        T(test_a_snapshot_replaces_what_was_there),
        T(test_a_message_goes_into_the_history),
        T(test_what_is_no_event_of_this_task_is_refused),
        T(test_a_fold_without_an_id_takes_the_first_it_hears),
        T(test_a_task_that_is_full_takes_no_more_but_can_end),
        T(test_a_refused_question_leaves_nothing_behind),
        T(test_a_refused_snapshot_leaves_what_was_there),
        T(test_replacing_gives_the_room_back),
        T(test_artifacts_and_parts_are_counted),
        T(test_appending_is_linear),
    };
    int failed = cmocka_run_group_tests_name("a new fold", tests, NULL, NULL);
    return failed + cmocka_run_group_tests_name("a fold that is used again", tests, setup_used, NULL);
}
