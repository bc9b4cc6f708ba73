/* What people write about time: cron expressions, moments, zones as rules and as files. The first byte says which. What is taken must give answers that keep the rules. */
#include "base/moment.h"
#include "base/zone.h"
#include "env/cron.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NOW_S INT64_C(1795867200)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_zone(struct zone *zone)
{
    static const int64_t moments[] = {-INT64_C(62135596800), -1, 0, NOW_S, INT64_C(253402300799)};
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        struct zone_span span = zone_span(zone, moments[i]);
        assert(span.from <= moments[i] && moments[i] < span.to);
        (void)zone_to_unix(zone, moments[i]);
    }
    zone_free(zone);
}

static void check_cron(const char *text, struct zone *zone)
{
    struct cron cron;
    if (cron_parse(text, &cron, NULL) != AMP_OK)
        return;
    int64_t at = NOW_S;
    for (int i = 0; i < 4 && at != INT64_MAX; i++) {
        int64_t next = cron_next(&cron, zone, at);
        assert(next > at);
        assert(next == INT64_MAX || cron_next(&cron, zone, next - 1) == next);
        at = next;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zone *zone = NULL, *berlin = NULL;
    struct moment moment;
    struct amp_error err;
    char *text = size ? malloc(size) : NULL;
    if (!text)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    if (zone_parse_rule("CET-1CEST,M3.5.0,M10.5.0/3", &berlin, NULL) != AMP_OK)
        abort();
    switch (data[0] % 4) {
    case 0:
        check_cron(text, berlin);
        break;
    case 1:
        if (moment_parse(text, NOW_S * 1000, berlin, &moment, &err) == AMP_OK)
            assert(moment.unix_ms > NOW_S * 1000);
        break;
    case 2:
        if (zone_parse_rule(text, &zone, &err) == AMP_OK) {
            check_cron("30 2 * * *", zone);
            check_zone(zone);
        }
        break;
    default:
        if (zone_parse_file((struct amp_bytes){data + 1, size - 1}, &zone, &err) == AMP_OK) {
            check_cron("30 2 * * *", zone);
            check_zone(zone);
        }
        break;
    }
    zone_free(berlin);
    free(text);
    return 0;
}
