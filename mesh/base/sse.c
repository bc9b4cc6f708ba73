#include "base/sse.h"

#include <stdio.h>
#include <string.h>

void sse_init(struct sse *sse, size_t event_max, bool (*on_event)(void *ctx, const struct sse_event *event), void *ctx)
{
    *sse = (struct sse){.event_max = event_max, .on_event = on_event, .ctx = ctx};
    amp_buf_init(&sse->line, event_max + 1); /* and a NUL */
    amp_buf_init(&sse->data, event_max + 1);
}

void sse_done(struct sse *sse)
{
    amp_buf_done(&sse->line);
    amp_buf_done(&sse->data);
}

/* False: enough. */
static bool dispatch(struct sse *sse)
{
    bool goes_on = true;
    if (sse->has_data) {
        amp_buf_append(&sse->data, "", 1);
        const struct sse_event event = {.name = *sse->name ? sse->name : "message", .data = (const char *)sse->data.data, .id = sse->id};
        goes_on = sse->on_event(sse->ctx, &event);
    }
    amp_buf_reset(&sse->data);
    sse->name[0] = '\0';
    sse->has_data = false;
    return goes_on;
}

static void take_field(struct sse *sse, const char *name, const char *value)
{
    if (strcmp(name, "data") == 0) {
        if (sse->has_data)
            amp_buf_append(&sse->data, "\n", 1);
        amp_buf_append(&sse->data, value, strlen(value));
        sse->has_data = true;
    } else if (strcmp(name, "event") == 0) {
        (void)snprintf(sse->name, sizeof sse->name, "%s", value);
    } else if (strcmp(name, "id") == 0) {
        (void)snprintf(sse->id, sizeof sse->id, "%s", value);
    }
}

static enum amp_code take_line(struct sse *sse, bool *ret_goes_on, struct amp_error *reterr)
{
    static const char mark[] = "\xEF\xBB\xBF";
    struct amp_bytes text = amp_buf_bytes(&sse->line);
    if (!sse->is_begun && text.len >= 3 && memcmp(text.data, mark, 3) == 0)
        text = (struct amp_bytes){text.data + 3, text.len - 3};
    sse->is_begun = true;
    *ret_goes_on = true;
    if (text.len == 0) {
        *ret_goes_on = dispatch(sse);
        return AMP_OK;
    }
    if (!amp_utf8_is_valid(text) || memchr(text.data, '\0', text.len))
        return amp_error_set(reterr, AMP_BAD_ANSWER, "", "an event is not UTF-8");
    amp_buf_append(&sse->line, "", 1);
    char *line = (char *)sse->line.data + (sse->line.len - 1 - text.len), *colon = strchr(line, ':');
    if (colon != line) { /* else a comment */
        const char *value = colon ? colon + 1 + (colon[1] == ' ') : "";
        if (colon)
            *colon = '\0';
        take_field(sse, line, value);
    }
    return sse->data.is_full || sse->data.len > sse->event_max ? amp_error_set(reterr, AMP_TOO_LARGE, "", "an event is larger than %zu bytes", sse->event_max) : AMP_OK;
}

enum amp_code sse_feed(struct sse *sse, struct amp_bytes data, struct amp_error *reterr)
{
    enum amp_code code = AMP_OK;
    bool goes_on = true;
    for (size_t at = 0; at < data.len && code == AMP_OK && goes_on;) {
        if (sse->was_cr && data.data[at] == '\n') { /* the second half of an end of line */
            sse->was_cr = false;
            at++;
            continue;
        }
        sse->was_cr = false;
        size_t len = 0;
        while (at + len < data.len && data.data[at + len] != '\n' && data.data[at + len] != '\r')
            len++;
        if (amp_buf_append(&sse->line, data.data + at, len) != AMP_OK || sse->line.len > sse->event_max)
            return amp_error_set(reterr, AMP_TOO_LARGE, "", "a line is longer than %zu bytes", sse->event_max);
        at += len;
        if (at == data.len)
            break;
        sse->was_cr = data.data[at++] == '\r';
        code = take_line(sse, &goes_on, reterr);
        amp_buf_reset(&sse->line);
    }
    return code;
}
