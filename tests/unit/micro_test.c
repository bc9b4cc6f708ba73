/* ADR-32 answers, to the byte. That the stock tools take them is tested with a server elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "sidecar/sidecar_private.h"

static const struct endpoint endpoints[] = {
    {.name = "call", .subject = "amp.req.up.*", .n_requests = 4, .n_errors = 1, .busy_ns = 10000, .last_error = "3004:the \"agent\" died"},
    {.name = "shout", .subject = "amp.skill.shout.*"},
};
static const struct micro_service service = {
    .name = "up", .id = "i-1", .version = "1.2", .description = "says \"UP\"", .skills = "shout", .started_unix_ms = 1700000000123, .endpoints = endpoints, .n_endpoints = 2};

static void assert_written(enum micro_verb verb, const char *text)
{
    struct amp_buf out;
    amp_buf_init(&out, 1u << 16);
    assert_int_equal(micro_write(verb, &service, &out), AMP_OK);
    assert_int_equal(amp_json_check(amp_buf_bytes(&out), &amp_json_limits_default, NULL), AMP_OK);
    (void)amp_buf_append(&out, "", 1);
    assert_string_equal((const char *)out.data, text);
    amp_buf_done(&out);
}

static void test_ping_info_and_stats_have_the_fields_of_adr_32(void **state)
{
    assert_written(MICRO_PING, "{\"type\":\"io.nats.micro.v1.ping_response\",\"name\":\"up\",\"id\":\"i-1\",\"version\":\"0.0.0\",\"metadata\":{\"amp\":\"1\",\"skills\":\"shout\"}}");
    assert_written(MICRO_INFO, "{\"type\":\"io.nats.micro.v1.info_response\",\"name\":\"up\",\"id\":\"i-1\",\"version\":\"0.0.0\",\"metadata\":{\"amp\":\"1\",\"skills\":\"shout\"},"
                               "\"description\":\"says \\\"UP\\\"\",\"endpoints\":[{\"name\":\"call\",\"subject\":\"amp.req.up.*\",\"queue_group\":\"amp\",\"metadata\":{}},"
                               "{\"name\":\"shout\",\"subject\":\"amp.skill.shout.*\",\"queue_group\":\"amp\",\"metadata\":{}}]}");
    assert_written(MICRO_STATS, "{\"type\":\"io.nats.micro.v1.stats_response\",\"name\":\"up\",\"id\":\"i-1\",\"version\":\"0.0.0\",\"metadata\":{\"amp\":\"1\",\"skills\":\"shout\"},"
                                "\"started\":\"2023-11-14T22:13:20.123Z\",\"endpoints\":[{\"name\":\"call\",\"subject\":\"amp.req.up.*\",\"queue_group\":\"amp\",\"num_requests\":4,"
                                "\"num_errors\":1,\"last_error\":\"3004:the \\\"agent\\\" died\",\"processing_time\":10000,\"average_processing_time\":2500},"
                                "{\"name\":\"shout\",\"subject\":\"amp.skill.shout.*\",\"queue_group\":\"amp\",\"num_requests\":0,\"num_errors\":0,\"last_error\":\"\","
                                "\"processing_time\":0,\"average_processing_time\":0}]}");
}

static void test_only_strict_semver_is_a_version(void **state)
{
    static const char *const good[] = {"0.0.0", "1.2.3", "10.20.30", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-0a.x-y", "1.0.0+001", "1.0.0-rc.1+build.5"};
    static const char *const bad[] = {"", "1", "1.2", "1.2.3.4", "01.2.3", "1.02.3", "v1.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.3-a..b", "1.2.3 ", "1.2.3-\xC3\xA4", "1.2.x"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_string_equal(micro_version(good[i]), good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_string_equal(micro_version(bad[i]), "0.0.0");
    assert_string_equal(micro_version(NULL), "0.0.0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ping_info_and_stats_have_the_fields_of_adr_32),
        cmocka_unit_test(test_only_strict_semver_is_a_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
