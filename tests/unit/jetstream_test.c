/* What is made for JetStream's API and read from it; and the requests against a real server. */
#include "bus_world.h"

#include "base/jetstream.h"

#include <cjson/cJSON.h>
#include <inttypes.h>

static const struct js_stream_config config = {
    .name = "S", .subjects = {"s.>", "t.*"}, .bytes_max = 1 << 20, .messages_max = 1000, .message_max = 100000, .age_max_ms = 60000, .is_in_memory = true};

/* ---- pure ------------------------------------------------------------------------------------------------------------ */

static void test_answers_are_told_apart(void **state)
{
    static const struct {
        const char *text;
        enum js_outcome outcome;
    } rows[] = {
        {"{\"type\":\"x\"}", JS_OK},
        {"{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}", JS_NO_STREAM},
        {"{\"error\":{\"code\":404,\"err_code\":10037,\"description\":\"no message found\"}}", JS_NO_MESSAGE},
        {"{\"error\":{\"code\":503,\"err_code\":10039,\"description\":\"JetStream not enabled for account\"}}", JS_MISSING},
        {"{\"error\":{\"code\":503,\"description\":\"not enabled\"}}", JS_MISSING},
        {"{\"error\":{\"code\":500,\"err_code\":10047,\"description\":\"insufficient storage\"}}", JS_NO_ROOM},
        {"{\"error\":{\"code\":503,\"err_code\":10077,\"description\":\"no space left on device\"},\"seq\":0}", JS_REFUSED},
        {"{\"error\":{}}", JS_REFUSED},
        {"[]", JS_MALFORMED},
        {"", JS_MALFORMED},
        {"+OK", JS_MALFORMED},
        {"{\"a\":1,\"a\":2}", JS_MALFORMED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct js_reply reply;
        cJSON *json = NULL;
        js_reply_parse(amp_bytes_of(rows[i].text), &reply, &json);
        if (reply.outcome != rows[i].outcome || (reply.outcome == JS_OK) != (json != NULL) || (reply.outcome == JS_OK) != (reply.text[0] == '\0'))
            fail_msg("%s: outcome %d, \"%s\"", rows[i].text, (int)reply.outcome, reply.text);
        cJSON_Delete(json);
    }
}

static void test_a_delivery_says_where_it_stands_and_what_follows(void **state)
{
    static const struct {
        const char *reply;
        uint64_t seq, pending, nth; /* seq 0: it is none */
    } rows[] = {
        {"$JS.ACK.S.C.1.22.3.1795865784502870742.4", 22, 4, 3},
        {"$JS.ACK.S.C.1.9007199254740991.3.1.0", 9007199254740991, 0, 3},
        {"$JS.ACK._.hash.S.C.1.22.3.17.4", 22, 4, 3},
        {"$JS.ACK.hub.hash.S.C.1.22.5.17.4.token", 22, 4, 5},
        {"$JS.ACK.S.C.1.22.0.17.4", 0, 0, 0},
        {"$JS.ACK.S.C.1.22.x.17.4", 0, 0, 0},
        {"$JS.ACK.S.C.1.22.3.17", 0, 0, 0},
        {"$JS.ACK.S.C.1.0.3.17.4", 0, 0, 0},
        {"$JS.ACK.S.C.1.x.3.17.4", 0, 0, 0},
        {"$JS.ACK.S.C.1.22.3.17.-4", 0, 0, 0},
        {"$JS.ACK.S.C.1.22.3.17.", 0, 0, 0},
        {"$JS.ACK.a.b.c.d.e.f.g.h.i.j.k", 0, 0, 0},
        {"$JS.ACK.S.C.1.99999999999999999999.3.17.4", 0, 0, 0},
        {"_INBOX.x", 0, 0, 0},
        {"", 0, 0, 0},
        {NULL, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct js_delivery at = {0};
        bool is_one = js_delivery_parse(rows[i].reply, &at);
        if (is_one != (rows[i].seq > 0) || (is_one && (at.seq != rows[i].seq || at.pending != rows[i].pending || at.nth != rows[i].nth)))
            fail_msg("%s: %d %" PRIu64 " %" PRIu64 " %" PRIu64, rows[i].reply, is_one, at.seq, at.pending, at.nth);
    }
}

static enum js_outcome read_stream(const char *text, struct js_stream *ret)
{
    struct js_reply reply;
    cJSON *json = NULL;
    js_reply_parse(amp_bytes_of(text), &reply, &json);
    enum js_outcome outcome = reply.outcome == JS_OK ? js_stream_read(json, &config, ret) : reply.outcome;
    cJSON_Delete(json);
    return outcome;
}

static void test_an_echo_that_lacks_what_was_asked_for_is_seen(void **state)
{
    struct js_stream stream;
#define STATE "\"state\":{\"messages\":3,\"bytes\":300,\"first_seq\":5,\"last_seq\":7}"
    assert_int_equal(read_stream("{\"config\":{\"name\":\"S\",\"subjects\":[\"t.*\",\"x\",\"s.>\"],\"retention\":\"limits\",\"storage\":\"file\",\"max_bytes\":-1},\"created\":\"c\"," STATE "}", &stream), JS_OK);
    assert_int_equal(stream.has_subjects, 3);
    assert_true(stream.is_limits && !stream.is_in_memory && stream.first_seq == 5 && stream.last_seq == 7 && stream.messages == 3 && stream.bytes_max == 0);
    assert_int_equal(read_stream("{\"config\":{\"name\":\"S\",\"subjects\":[\"s.>\"],\"retention\":\"workqueue\",\"storage\":\"memory\"},\"created\":\"c\"," STATE "}", &stream), JS_OK);
    assert_true(stream.has_subjects == 1 && !stream.is_limits && stream.is_in_memory);
    assert_int_equal(read_stream("{\"config\":{\"name\":\"other\"},\"created\":\"c\"," STATE "}", &stream), JS_MALFORMED);
    assert_int_equal(read_stream("{\"config\":{\"name\":\"S\"}," STATE "}", &stream), JS_MALFORMED);
    assert_int_equal(read_stream("{\"config\":{\"name\":\"S\"},\"created\":\"c\",\"state\":{\"messages\":3,\"bytes\":300,\"first_seq\":5,\"last_seq\":1e300}}", &stream), JS_MALFORMED);
}

/* ---- against a server -------------------------------------------------------------------------------------------------- */

struct asker {
    struct bus_world w;
    char dir[64];
    unsigned answers, messages, ends;
    enum js_outcome outcome;
    struct js_canary_result canary;
    uint64_t last_seq;
    struct js_read *read;
};

static void begin_world(struct asker *asker)
{
    char text[128];
    memset(asker, 0, sizeof *asker);
    strcpy(asker->dir, "/tmp/amesh-js-XXXXXX");
    assert_non_null(mkdtemp(asker->dir));
    snprintf(text, sizeof text, "jetstream { store_dir: \"%s\" }", asker->dir);
    bus_world_begin_with(&asker->w, text, "");
}

static void end_world(struct asker *asker)
{
    char command[96];
    bus_world_end(&asker->w);
    snprintf(command, sizeof command, "rm -rf %s", asker->dir);
    assert_int_equal(system(command), 0);
}

static void on_reply(void *ctx, const struct js_reply *reply)
{
    struct asker *asker = ctx;
    struct js_stream stream;
    asker->outcome = reply->outcome;
    if (reply->outcome == JS_OK && js_stream_read(reply->json, &config, &stream) == JS_OK)
        asker->last_seq = stream.last_seq;
    asker->answers++;
    bus_world_touch(&asker->w);
}

static enum js_outcome ask(struct asker *asker, const char *verb, struct amp_bytes body)
{
    asker->answers = 0;
    (void)js_api(asker->w.loop, asker->w.bus, verb, "S", body, on_reply, asker);
    bus_world_until(&asker->w, &asker->answers, 1);
    return asker->outcome;
}

static void make_stream(struct asker *asker)
{
    struct amp_buf body;
    amp_buf_init(&body, 2048);
    assert_int_equal(js_stream_config_append(&body, &config), AMP_OK);
    assert_int_equal(ask(asker, "STREAM.CREATE", amp_buf_bytes(&body)), JS_OK);
    amp_buf_done(&body);
}

static void on_canary(void *ctx, const struct js_canary_result *result)
{
    struct asker *asker = ctx;
    asker->canary = *result;
    asker->ends++;
    bus_world_touch(&asker->w);
}

static enum js_outcome send_canary(struct asker *asker)
{
    asker->ends = 0;
    (void)js_canary_start(asker->w.loop, asker->w.bus, "S", "t.canary", "k-1", on_canary, asker);
    bus_world_until(&asker->w, &asker->ends, 1);
    return asker->canary.outcome;
}

static void test_a_canary_is_stored_read_back_and_missed_when_it_is_gone(void **state)
{
    struct asker asker;
    begin_world(&asker);
    assert_int_equal(ask(&asker, "STREAM.INFO", amp_bytes_of("")), JS_NO_STREAM);
    assert_int_equal(send_canary(&asker), JS_MISSING);
    make_stream(&asker);
    assert_int_equal(send_canary(&asker), JS_OK);
    assert_int_equal(asker.canary.seq, 1);
    asker.ends = 0;
    (void)js_canary_look(asker.w.loop, asker.w.bus, "S", 1, "k-2", on_canary, &asker);
    bus_world_until(&asker.w, &asker.ends, 1);
    assert_int_equal(asker.canary.outcome, JS_NO_MESSAGE); /* another one stands there */
    js_canary_remove(asker.w.bus, "S", 1);
    asker.ends = 0;
    (void)js_canary_look(asker.w.loop, asker.w.bus, "S", 1, "k-1", on_canary, &asker);
    bus_world_until(&asker.w, &asker.ends, 1);
    assert_int_equal(asker.canary.outcome, JS_NO_MESSAGE);
    end_world(&asker);
}

static void on_message(void *ctx, uint64_t seq, const char *subject, struct amp_bytes data)
{
    struct asker *asker = ctx;
    assert_string_equal(subject, "s.x");
    assert_true(seq > asker->last_seq);
    asker->last_seq = seq;
    asker->messages++;
    assert_int_equal(data.len > 0, 1);
}

static void on_batch(void *ctx, uint64_t left)
{
    struct asker *asker = ctx;
    assert_true(left > 0);
    js_read_more(asker->read);
}

static void on_end(void *ctx, enum js_outcome outcome, const char *text)
{
    struct asker *asker = ctx;
    asker->outcome = outcome;
    asker->ends++;
    bus_world_touch(&asker->w);
}

static void read_range(struct asker *asker, uint64_t from, uint64_t until)
{
    static const struct js_read_handlers handlers = {.on_message = on_message, .on_batch = on_batch, .on_end = on_end};
    struct js_range range = {.stream = "S", .filter = "s.>", .from_seq = from, .until_seq = until};
    asker->ends = asker->messages = 0;
    asker->last_seq = 0;
    asker->read = js_read_start(asker->w.loop, asker->w.bus, &range, &handlers, asker);
    bus_world_until(&asker->w, &asker->ends, 1);
    assert_int_equal(asker->outcome, JS_OK);
}

static void test_a_range_is_read_whole_in_order_in_batches(void **state)
{
    struct asker asker;
    begin_world(&asker);
    make_stream(&asker);
    for (unsigned i = 0; i < 2 * JS_BATCH + 10; i++)
        assert_int_equal(bus_publish(asker.w.bus, i % 8 == 7 ? "t.x" : "s.x", NULL, amp_bytes_of("frame")), AMP_OK);
    do { /* the server stores them when it comes to it */
        assert_int_equal(ask(&asker, "STREAM.INFO", amp_bytes_of("")), JS_OK);
    } while (asker.last_seq < 2 * JS_BATCH + 10);
    assert_int_equal(asker.last_seq, 2 * JS_BATCH + 10);
    read_range(&asker, 1, 2 * JS_BATCH + 10);
    assert_int_equal(asker.messages, 2 * JS_BATCH + 10 - (2 * JS_BATCH + 10) / 8);
    read_range(&asker, 11, 20);
    assert_true(asker.last_seq >= 20 && asker.messages >= 9);
    read_range(&asker, 100000, 100001);
    assert_int_equal(asker.messages, 0);
    end_world(&asker);
}

/* The server cuts a pull short when its messages are many bytes: it goes on with the next. */
static void test_large_messages_make_smaller_batches(void **state)
{
    static const struct js_stream_config large = {.name = "S", .subjects = {"s.>", "t.*"}, .bytes_max = 64 << 20, .messages_max = 1000, .message_max = 1 << 20, .age_max_ms = 60000, .is_in_memory = true};
    struct asker asker;
    struct amp_buf body;
    char *data = calloc(1, 1000000);
    begin_world(&asker);
    amp_buf_init(&body, 2048);
    assert_int_equal(js_stream_config_append(&body, &large), AMP_OK);
    assert_int_equal(ask(&asker, "STREAM.CREATE", amp_buf_bytes(&body)), JS_OK);
    amp_buf_done(&body);
    memset(data, 'x', 1000000);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(bus_publish(asker.w.bus, "s.x", NULL, (struct amp_bytes){(const uint8_t *)data, 1000000}), AMP_OK);
    free(data);
    assert_int_equal(ask(&asker, "STREAM.INFO", amp_bytes_of("")), JS_OK);
    read_range(&asker, 1, 40);
    assert_int_equal(asker.messages, 40);
    end_world(&asker);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_canary_is_stored_read_back_and_missed_when_it_is_gone),
        cmocka_unit_test(test_a_range_is_read_whole_in_order_in_batches),
        cmocka_unit_test(test_large_messages_make_smaller_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest pure[] = {
        cmocka_unit_test(test_answers_are_told_apart),
        cmocka_unit_test(test_a_delivery_says_where_it_stands_and_what_follows),
        cmocka_unit_test(test_an_echo_that_lacks_what_was_asked_for_is_seen),
    };
    return cmocka_run_group_tests(pure, NULL, NULL) + bus_world_on_both(run);
}
