/* One line, one write(2). Everything it keeps between two lines (numbers' buffers, the repeats of call sites) belongs to the calling thread,
 * so that the journal's worker needs no lock. */
#include "base/log.h"

#include "base/clock.h"

#include <amp/amp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define LINE_BYTES_MAX (16u << 10)
#define VALUE_BYTES_MAX (4u << 10)
#define SITES 64
#define REPEATS_MAX 20u /* in one span */
#define SPAN_MS_MIN 1000u
#define SPAN_MS_MAX 60000u
#define NUMBERS 8
#define NUMBER_SIZE 24

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static enum log_level min_level = LOG_INFO;
static const char *program_name = "";
static bool is_terminal;

struct site {
    const void *address; /* where log_event was called */
    const char *event;
    int64_t since_ms;
    uint32_t span_ms; /* twice as long each time, while lines are left out */
    unsigned lines, left_out;
};
static _Thread_local struct site sites[SITES];
static _Thread_local char numbers[NUMBERS][NUMBER_SIZE];
static _Thread_local unsigned number_next;

void log_init(enum log_level level, const char *program)
{
    min_level = level;
    program_name = program;
    is_terminal = isatty(STDERR_FILENO);
}

enum log_level log_level_from_env(enum log_level fallback)
{
    const char *name = getenv("AMESH_LOG");
    for (int i = LOG_DEBUG; name && i <= LOG_ERROR; i++)
        if (strcasecmp(name, level_names[i]) == 0)
            return (enum log_level)i;
    return fallback;
}

const char *log_int(long long value)
{
    char *text = numbers[number_next++ % NUMBERS];
    snprintf(text, NUMBER_SIZE, "%lld", value);
    return text;
}

static bool is_number(const char *value)
{
    return (uintptr_t)value >= (uintptr_t)numbers && (uintptr_t)value < (uintptr_t)numbers + sizeof numbers;
}

/* ---- values --------------------------------------------------------------------------------------------- */

static bool is_secret(const char *key)
{
    static const char *const names[] = {"token", "creds", "password", "secret", "authorization"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(key, names[i]) == 0)
            return true;
    return false;
}

/* Appends one word of a value; what stands before the @ of something like a URL is replaced. A password may hold a '/', so the last @ of
 * the word counts as soon as there is a ':' before it. */
static void append_word(struct amp_buf *out, const char *word, size_t len)
{
    const char *scheme = memmem(word, len, "://", 3);
    const char *start = scheme ? scheme + 3 : word;
    const char *at = memrchr(start, '@', (size_t)(word + len - start));
    const char *slash = at ? memchr(start, '/', (size_t)(at - start)) : NULL;
    bool has_password = at && memchr(start, ':', (size_t)(at - start));
    if (has_password || (scheme && at && !slash)) {
        (void)amp_buf_append(out, word, (size_t)(start - word));
        (void)amp_buf_append(out, "***", 3);
        len -= (size_t)(at - word);
        word = at;
    }
    (void)amp_buf_append(out, word, len);
}

static void append_masked(struct amp_buf *out, const char *value)
{
    static const char between[] = " \t\r\n,;\"'<>()[]{}";
    while (*value) {
        size_t gap = strspn(value, between);
        (void)amp_buf_append(out, value, gap);
        value += gap;
        size_t len = strcspn(value, between);
        append_word(out, value, len);
        value += len;
    }
}

/* Masked, without control characters, and cut. */
static void clean_value(struct amp_buf *out, const char *key, const char *value)
{
    if (!value)
        value = "";
    if (is_secret(key) && *value) {
        (void)amp_buf_append(out, "***", 3);
        return;
    }
    struct amp_buf masked;
    amp_buf_init(&masked, (size_t)4 * VALUE_BYTES_MAX);
    char *cut = strndup(value, VALUE_BYTES_MAX);
    if (cut)
        append_masked(&masked, cut);
    (void)amp_text_sanitize(out, amp_buf_bytes(&masked), true);
    if (cut && strlen(cut) == VALUE_BYTES_MAX)
        (void)amp_buf_append(out, "…", strlen("…"));
    free(cut);
    amp_buf_done(&masked);
}

static void append_logfmt(struct amp_buf *line, const char *key, struct amp_bytes value)
{
    (void)amp_buf_printf(line, " %s=", key);
    bool is_quoted = value.len == 0;
    for (size_t i = 0; i < value.len && !is_quoted; i++)
        is_quoted = strchr(" =\"\\", value.data[i]) != NULL;
    if (is_quoted)
        (void)amp_json_append_string(line, value);
    else
        (void)amp_buf_append(line, value.data, value.len);
}

static void append_pair(struct amp_buf *line, const char *key, const char *value)
{
    struct amp_buf clean;
    amp_buf_init(&clean, LINE_BYTES_MAX);
    clean_value(&clean, key, value);
    struct amp_bytes bytes = amp_buf_bytes(&clean);
    /* A full line keeps what fits: each pair whole or not at all. */
    size_t before = line->len;
    if (is_terminal) {
        append_logfmt(line, key, bytes);
    } else {
        (void)amp_buf_printf(line, ",\"%s\":", key);
        if (is_number(value))
            (void)amp_buf_append(line, bytes.data, bytes.len);
        else
            (void)amp_json_append_string(line, bytes);
    }
    if (line->is_full) {
        line->len = before;
        line->is_full = false;
    }
    amp_buf_done(&clean);
}

/* ---- lines ---------------------------------------------------------------------------------------------- */

static void line_begin(struct amp_buf *line, enum log_level level, const char *event)
{
    char now[AMP_TIME_SIZE];
    amp_time_format(clock_unix_ms(), now);
    /* Two bytes are kept for its end. */
    amp_buf_init(line, LINE_BYTES_MAX);
    if (is_terminal)
        (void)amp_buf_printf(line, "%s level=%s program=%s event=%s", now, level_names[level], program_name, event);
    else
        (void)amp_buf_printf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"%s\",\"event\":\"%s\"", now, level_names[level],
                             program_name, event);
}

static void line_end(struct amp_buf *line)
{
    line->max += 2;
    (void)amp_buf_append(line, is_terminal ? "\n" : "}\n", is_terminal ? 1 : 2);
    /* A log that cannot be written has nobody to be told. */
    if (line->data)
        (void)!write(STDERR_FILENO, line->data, line->len);
    amp_buf_done(line);
}

/* ---- repeats -------------------------------------------------------------------------------------------- */

static void say_left_out(struct site *site)
{
    if (!site->left_out)
        return;
    struct amp_buf line;
    line_begin(&line, LOG_WARN, "log.left_out");
    append_pair(&line, "of", site->event);
    append_pair(&line, "lines", log_int(site->left_out));
    line_end(&line);
    site->left_out = 0;
}

static void begin_span(struct site *site, int64_t now_ms, bool was_full)
{
    bool goes_on = was_full && now_ms - site->since_ms < 2 * (int64_t)site->span_ms;
    site->span_ms = goes_on ? site->span_ms * 2 : SPAN_MS_MIN;
    if (site->span_ms > SPAN_MS_MAX)
        site->span_ms = SPAN_MS_MAX;
    site->since_ms = now_ms;
    site->lines = 0;
}

/* Also ends the span of other sites, so that the number is said even when a site falls silent. */
static struct site *find_site(const void *address, const char *event, int64_t now_ms)
{
    struct site *found = NULL, *oldest = &sites[0];
    for (struct site *site = sites; site < sites + SITES; site++) {
        if (site->address && now_ms - site->since_ms >= site->span_ms) {
            bool was_full = site->lines > REPEATS_MAX;
            say_left_out(site);
            if (site->address == address)
                begin_span(site, now_ms, was_full);
        }
        if (site->address == address)
            found = site;
        if (site->since_ms < oldest->since_ms)
            oldest = site;
    }
    if (found)
        return found;
    say_left_out(oldest);
    *oldest = (struct site){.address = address, .event = event, .since_ms = now_ms, .span_ms = SPAN_MS_MIN};
    return oldest;
}

void log_event(enum log_level level, const char *event, ...)
{
    if (level < min_level)
        return;
    struct site *site = find_site(__builtin_return_address(0), event, clock_mono_ms());
    if (site->lines++ >= REPEATS_MAX) {
        site->left_out++;
        return;
    }
    struct amp_buf line;
    line_begin(&line, level, event);
    va_list args;
    va_start(args, event);
    const char *key;
    while ((key = va_arg(args, const char *)))
        append_pair(&line, key, va_arg(args, const char *));
    va_end(args);
    line_end(&line);
}
