#include "base/zone_private.h"

#include "base/alloc.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ZONE_DIR "/usr/share/zoneinfo"
#define HEADER_SIZE 44
#define OFFSET_MAX_S (26 * 3600) /* RFC 8536: −25 h to 26 h */

/* ---- files (RFC 8536) --------------------------------------------------------------------------------------------- */

static uint32_t read_32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int64_t read_64(const uint8_t *p)
{
    return (int64_t)((uint64_t)read_32(p) << 32 | read_32(p + 4));
}

struct header {
    uint32_t n_utc, n_standard, n_leaps, n_times, n_types, n_chars;
};

/* The header at `at`; false if the block that follows it is not all there. */
static bool read_header(struct amp_bytes file, size_t at, size_t time_size, struct header *ret, size_t *ret_end)
{
    if (file.len < HEADER_SIZE || at > file.len - HEADER_SIZE || memcmp(file.data + at, "TZif", 4) != 0)
        return false;
    const uint8_t *p = file.data + at + 20;
    *ret = (struct header){read_32(p), read_32(p + 4), read_32(p + 8), read_32(p + 12), read_32(p + 16), read_32(p + 20)};
    const uint32_t counts[] = {ret->n_utc, ret->n_standard, ret->n_leaps, ret->n_times, ret->n_types, ret->n_chars};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i] > ZONE_FILE_MAX)
            return false;
    size_t size = ret->n_times * (time_size + 1) + (size_t)ret->n_types * 6 + ret->n_chars + ret->n_leaps * (time_size + 4) + ret->n_standard + ret->n_utc;
    *ret_end = at + HEADER_SIZE + size;
    return *ret_end <= file.len;
}

static bool read_offset(const uint8_t *types, const struct header *header, uint8_t type, int32_t *ret_s)
{
    if (type >= header->n_types)
        return false;
    *ret_s = (int32_t)read_32(types + (size_t)type * 6);
    return *ret_s > -OFFSET_MAX_S && *ret_s < OFFSET_MAX_S;
}

static bool read_changes(const uint8_t *block, const struct header *header, struct zone *zone)
{
    const uint8_t *times = block, *indexes = times + (size_t)header->n_times * 8, *types = indexes + header->n_times;
    zone->n_changes = header->n_times;
    zone->at = xcalloc(header->n_times + 1, sizeof *zone->at);
    zone->offsets_s = xcalloc(header->n_times + 1, sizeof *zone->offsets_s);
    bool is_good = read_offset(types, header, 0, &zone->first_s);
    for (size_t i = 0; is_good && i < zone->n_changes; i++) {
        zone->at[i] = read_64(times + i * 8);
        is_good = read_offset(types, header, indexes[i], &zone->offsets_s[i]) && (i == 0 || zone->at[i] > zone->at[i - 1]);
    }
    return is_good;
}

/* "\n<rule>\n", the rule may be empty. */
static bool read_footer(const uint8_t *p, size_t len, struct zone *zone)
{
    char rule[128];
    if (len < 2 || len - 2 >= sizeof rule || p[0] != '\n' || p[len - 1] != '\n')
        return false;
    memcpy(rule, p + 1, len - 2);
    rule[len - 2] = '\0';
    zone->has_rule = rule[0] != '\0';
    return !zone->has_rule || zone_rule_parse(rule, &zone->rule);
}

enum amp_code zone_parse_file(struct amp_bytes file, struct zone **ret, struct amp_error *reterr)
{
    struct header header;
    size_t first_end, end;
    if (!read_header(file, 0, 4, &header, &first_end) || file.data[4] < '2' || !read_header(file, first_end, 8, &header, &end) || header.n_types == 0 ||
        header.n_times > ZONE_CHANGES_MAX)
        return amp_error_set(reterr, AMP_INVALID, "", "this is no file of the tz database (version 2 or later)");
    struct zone *zone = xcalloc(1, sizeof *zone);
    if (!read_changes(file.data + first_end + HEADER_SIZE, &header, zone) || !read_footer(file.data + end, file.len - end, zone)) {
        zone_free(zone);
        return amp_error_set(reterr, AMP_INVALID, "", "this file of the tz database is damaged");
    }
    *ret = zone;
    return AMP_OK;
}

enum amp_code zone_parse_rule(const char *rule, struct zone **ret, struct amp_error *reterr)
{
    struct zone_rule parsed;
    if (!zone_rule_parse(rule, &parsed))
        return amp_error_set(reterr, AMP_INVALID, "", "\"%s\" is no rule of a time zone, such as CET-1CEST,M3.5.0,M10.5.0/3", rule);
    struct zone *zone = xcalloc(1, sizeof *zone);
    zone->rule = parsed;
    zone->has_rule = true;
    zone->first_s = parsed.winter_s;
    *ret = zone;
    return AMP_OK;
}

void zone_free(struct zone *zone)
{
    if (!zone)
        return;
    free(zone->at);
    free(zone->offsets_s);
    free(zone);
}

static enum amp_code open_file(const char *path, struct zone **ret, struct amp_error *reterr)
{
    struct amp_buf file;
    enum amp_code code = file_read(path, ZONE_FILE_MAX, &file, reterr);
    if (code == AMP_OK)
        code = zone_parse_file(amp_buf_bytes(&file), ret, reterr);
    amp_buf_done(&file);
    return code;
}

/* "Europe/Berlin": nothing that leads elsewhere. */
static bool is_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/";
    return *name && strlen(name) <= ZONE_NAME_MAX && name[strspn(name, letters)] == '\0' && *name != '/' && *name != '-';
}

static enum amp_code open_named(const char *name, struct zone **ret, struct amp_error *reterr)
{
    char path[sizeof ZONE_DIR + ZONE_NAME_MAX + 2];
    struct zone_rule rule;
    if (strcmp(name, "UTC") == 0 || strcmp(name, "Z") == 0)
        return zone_parse_rule("UTC0", ret, reterr);
    if (zone_rule_parse(name, &rule))
        return zone_parse_rule(name, ret, reterr);
    snprintf(path, sizeof path, ZONE_DIR "/%s", is_name(name) ? name : "");
    if (is_name(name) && open_file(path, ret, NULL) == AMP_OK)
        return AMP_OK;
    amp_error_set(reterr, AMP_INVALID, "", "there is no time zone \"%.*s\"", (int)ZONE_NAME_MAX, name);
    amp_error_hint(reterr, access(ZONE_DIR "/Etc/UTC", R_OK) == 0 ? "a name such as Europe/Berlin (see " ZONE_DIR "), or UTC"
                                                                  : "this machine has no tz database (Debian: apt-get install tzdata); UTC and rules such as CET-1CEST,M3.5.0,M10.5.0/3 need none");
    return AMP_INVALID;
}

enum amp_code zone_open(const char *name, struct zone **ret, struct amp_error *reterr)
{
    const char *local = getenv("TZ");
    if (name && *name)
        return open_named(name, ret, reterr);
    if (local && *local)
        return open_named(*local == ':' ? local + 1 : local, ret, reterr);
    if (!local && open_file("/etc/localtime", ret, NULL) == AMP_OK)
        return AMP_OK;
    return zone_parse_rule("UTC0", ret, reterr);
}

/* ---- questions ------------------------------------------------------------------------------------------------------ */

struct zone_span zone_span(const struct zone *zone, int64_t unix_s)
{
    size_t low = 0, high = zone->n_changes; /* the first change behind the moment */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (zone->at[middle] <= unix_s)
            low = middle + 1;
        else
            high = middle;
    }
    struct zone_span span = {.from = low ? zone->at[low - 1] : INT64_MIN,
                             .to = low < zone->n_changes ? zone->at[low] : INT64_MAX,
                             .offset_s = low ? zone->offsets_s[low - 1] : zone->first_s};
    if (low < zone->n_changes || !zone->has_rule)
        return span;
    struct zone_span ruled = zone_rule_span(&zone->rule, unix_s);
    if (ruled.from < span.from)
        ruled.from = span.from;
    return ruled;
}

int64_t zone_to_unix(const struct zone *zone, int64_t local_s)
{
    /* Clocks are changed by far less than a day: begin in the span of the day before. */
    struct zone_span span = zone_span(zone, local_s - INT64_C(2) * 86400);
    while (span.to != INT64_MAX && local_s - span.offset_s >= span.to) {
        struct zone_span next = zone_span(zone, span.to);
        if (local_s - next.offset_s < span.to)
            return span.to; /* the clocks skip it */
        span = next;
    }
    return local_s - span.offset_s;
}
