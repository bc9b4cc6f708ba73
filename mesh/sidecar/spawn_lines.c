/* A child's stderr as its last lines: bounded in number and length, made harmless for terminals before anybody keeps it. amp.md 12.3 */
#include "spawn_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static void keep(struct spawn_lines *lines, char *line)
{
    size_t at = (lines->first + lines->count) % AMP_STDERR_LINES_MAX;
    if (lines->count == AMP_STDERR_LINES_MAX) {
        free(lines->lines[lines->first]);
        lines->first = (lines->first + 1) % AMP_STDERR_LINES_MAX;
    } else {
        lines->count++;
    }
    lines->lines[at] = line;
}

static void line_over(struct spawn_lines *lines, void (*on_line)(const char *line))
{
    struct amp_buf clean;
    amp_buf_init(&clean, (size_t)8 * AMP_STDERR_LINE_MAX);
    if (lines->n_partial > 0 && lines->partial[lines->n_partial - 1] == '\r')
        lines->n_partial--;
    (void)amp_text_sanitize(&clean, (struct amp_bytes){.data = (const uint8_t *)lines->partial, .len = lines->n_partial}, true);
    char *line = xstrndup(clean.len ? (const char *)clean.data : "", amp_utf8_cut(amp_buf_bytes(&clean), AMP_STDERR_LINE_MAX));
    amp_buf_done(&clean);
    if (on_line)
        on_line(line);
    keep(lines, line);
    lines->n_partial = 0;
    lines->has_partial = false;
}

void spawn_lines_feed(struct spawn_lines *lines, struct amp_bytes data, void (*on_line)(const char *line))
{
    while (data.len > 0) {
        const uint8_t *newline = memchr(data.data, '\n', data.len);
        size_t len = newline ? (size_t)(newline - data.data) : data.len;
        size_t room = sizeof(lines->partial) - lines->n_partial;
        memcpy(lines->partial + lines->n_partial, data.data, len < room ? len : room);
        lines->n_partial += len < room ? len : room;
        lines->has_partial = true;
        if (newline)
            line_over(lines, on_line);
        data.data += len + (newline != NULL);
        data.len -= len + (newline != NULL);
    }
}

void spawn_lines_end(struct spawn_lines *lines, void (*on_line)(const char *line))
{
    if (lines->has_partial)
        line_over(lines, on_line);
}

size_t spawn_lines_list(const struct spawn_lines *lines, char *ret[AMP_STDERR_LINES_MAX])
{
    for (size_t i = 0; i < lines->count; i++)
        ret[i] = lines->lines[(lines->first + i) % AMP_STDERR_LINES_MAX];
    return lines->count;
}

void spawn_lines_done(struct spawn_lines *lines)
{
    for (size_t i = 0; i < AMP_STDERR_LINES_MAX; i++)
        free(lines->lines[i]);
    *lines = (struct spawn_lines){0};
}
