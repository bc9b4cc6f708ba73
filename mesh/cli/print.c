#include "cli/print.h"

#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/alloc.h"

struct print_env print_env_get(void)
{
    const char *lang = getenv("LC_ALL");
    if (lang == NULL || *lang == '\0')
        lang = getenv("LC_CTYPE");
    if (lang == NULL || *lang == '\0')
        lang = getenv("LANG");
    return (struct print_env){getenv("NO_COLOR"), getenv("FORCE_COLOR"), getenv("TERM"), lang};
}

static bool is_set(const char *value)
{
    return value != NULL && *value != '\0';
}

static bool is_utf8_locale(const char *lang)
{
    if (lang == NULL)
        return false;
    const char *dot = strchr(lang, '.');
    return dot != NULL && (strncasecmp(dot, ".utf-8", 6) == 0 || strncasecmp(dot, ".utf8", 5) == 0);
}

struct print_style print_style_of(bool is_terminal, bool no_color_option, const struct print_env *env)
{
    struct print_style style = {.is_terminal = is_terminal, .has_utf8 = is_utf8_locale(env->lang)};
    bool is_dumb = !is_set(env->term) || strcmp(env->term, "dumb") == 0;
    if (no_color_option || is_set(env->no_color))
        style.has_color = false;
    else if (is_set(env->force_color))
        style.has_color = strcmp(env->force_color, "0") != 0;
    else
        style.has_color = is_terminal && !is_dumb;
    return style;
}

const char *print_on(const struct print_style *style, enum print_color color)
{
    static const char *const codes[] = {
        [PRINT_PLAIN] = "",          [PRINT_BOLD] = "\x1b[1m",    [PRINT_DIM] = "\x1b[2m",   [PRINT_RED] = "\x1b[31m",
        [PRINT_GREEN] = "\x1b[32m", [PRINT_YELLOW] = "\x1b[33m", [PRINT_CYAN] = "\x1b[36m",
    };
    return style->has_color ? codes[color] : "";
}

const char *print_off(const struct print_style *style)
{
    return style->has_color ? "\x1b[0m" : "";
}

enum print_color print_state_color(const char *state)
{
    static const struct {
        const char *state;
        enum print_color color;
    } table[] = {
        {"up", PRINT_GREEN},          {"completed", PRINT_GREEN},       {"working", PRINT_CYAN},     {"submitted", PRINT_CYAN},
        {"starting", PRINT_CYAN},     {"failed", PRINT_RED},            {"rejected", PRINT_RED},     {"lost", PRINT_RED},
        {"canceled", PRINT_YELLOW},   {"restarting", PRINT_YELLOW},     {"draining", PRINT_YELLOW},  {"down", PRINT_RED},
        {"input-required", PRINT_YELLOW}, {"auth-required", PRINT_YELLOW}, {"gone", PRINT_DIM},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(state, table[i].state) == 0)
            return table[i].color;
    }
    return PRINT_PLAIN;
}

void print_text(FILE *to, const struct print_style *style, struct amp_bytes text)
{
    if (text.len == 0)
        return;
    if (!style->is_terminal) {
        fwrite(text.data, 1, text.len, to);
        return;
    }
    struct amp_buf clean;
    /* one byte becomes at most nine: "\u{10FFFF}" stands for four */
    amp_buf_init(&clean, text.len * 10 + 16);
    if (amp_text_sanitize(&clean, text, false) == AMP_OK)
        fwrite(clean.data, 1, clean.len, to);
    amp_buf_done(&clean);
}

size_t print_width(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

/* Bytes of the first `max` characters. */
static size_t prefix_of(const char *text, size_t max)
{
    size_t i = 0;
    for (size_t width = 0; text[i] != '\0'; i++) {
        if (((unsigned char)text[i] & 0xc0) != 0x80 && width++ == max)
            break;
    }
    return i;
}

char *print_line(const char *text, size_t max)
{
    struct amp_buf clean;
    amp_buf_init(&clean, strlen(text) * 10 + 16);
    if (amp_text_sanitize(&clean, amp_bytes_of(text), true) != AMP_OK)
        amp_buf_reset(&clean);
    char *line = xstrndup(clean.len > 0 ? (const char *)clean.data : "", clean.len);
    amp_buf_done(&clean);
    if (max > 0 && print_width(line) > max) {
        char *cut = xasprintf("%.*s…", (int)prefix_of(line, max - 1), line);
        free(line);
        line = cut;
    }
    return line;
}

void print_table_init(struct print_table *table, const char *const *columns, size_t n_columns)
{
    *table = (struct print_table){.n_columns = n_columns};
    print_table_add(table, columns);
    table->n_rows = 0; /* the header does not count */
}

bool print_table_add(struct print_table *table, const char *const *cells)
{
    if (table->n_rows >= PRINT_ROWS_MAX)
        return false;
    size_t at = table->cells == NULL ? 0 : (table->n_rows + 1) * table->n_columns;
    if (table->cells == NULL || at + table->n_columns > table->cap) {
        table->cap = table->cap == 0 ? 16 * table->n_columns : table->cap * 2;
        table->cells = xrealloc(table->cells, table->cap * sizeof *table->cells);
    }
    for (size_t i = 0; i < table->n_columns; i++)
        table->cells[at + i] = print_line(cells[i] != NULL && *cells[i] != '\0' ? cells[i] : "-", 100);
    table->n_rows++;
    return true;
}

static size_t column_widths(const struct print_table *table, size_t widths[PRINT_COLUMNS_MAX])
{
    size_t sum = 2 * (table->n_columns - 1);
    memset(widths, 0, PRINT_COLUMNS_MAX * sizeof *widths);
    for (size_t i = 0; i < (table->n_rows + 1) * table->n_columns; i++) {
        size_t width = print_width(table->cells[i]), column = i % table->n_columns;
        if (width > widths[column])
            widths[column] = width;
    }
    for (size_t i = 0; i < table->n_columns; i++)
        sum += widths[i];
    return sum;
}

static void write_cell(FILE *to, const struct print_style *style, const char *cell, enum print_color color)
{
    bool is_plain = color == PRINT_PLAIN;
    fprintf(to, "%s%s%s", is_plain ? "" : print_on(style, color), cell, is_plain ? "" : print_off(style));
}

/* Each row as lines of its own. */
static void write_blocks(FILE *to, const struct print_style *style, const struct print_table *table, int color_column)
{
    size_t names[PRINT_COLUMNS_MAX], widest = 0;
    for (size_t i = 0; i < table->n_columns; i++) {
        names[i] = print_width(table->cells[i]);
        widest = names[i] > widest ? names[i] : widest;
    }
    for (size_t row = 1; row <= table->n_rows; row++) {
        if (row > 1)
            fputc('\n', to);
        for (size_t i = 0; i < table->n_columns; i++) {
            const char *cell = table->cells[row * table->n_columns + i];
            write_cell(to, style, table->cells[i], PRINT_BOLD);
            fprintf(to, "%*s", (int)(widest - names[i]) + 2, "");
            write_cell(to, style, cell, (int)i == color_column ? print_state_color(cell) : PRINT_PLAIN);
            fputc('\n', to);
        }
    }
}

void print_table_write(FILE *to, const struct print_style *style, const struct print_table *table, int color_column)
{
    size_t widths[PRINT_COLUMNS_MAX], last = table->n_columns - 1, sum = column_widths(table, widths), room = 0;
    if (style->width > 0 && sum > style->width) {
        size_t others = sum - widths[last];
        room = style->width > others ? style->width - others : 0;
        if (room < PRINT_LAST_MIN) {
            write_blocks(to, style, table, color_column);
            return;
        }
    }
    for (size_t row = 0; row <= table->n_rows; row++) {
        for (size_t i = 0; i < table->n_columns; i++) {
            const char *cell = table->cells[row * table->n_columns + i];
            enum print_color color = row == 0 ? PRINT_BOLD : (int)i == color_column ? print_state_color(cell) : PRINT_PLAIN;
            char *cut = i == last ? print_line(cell, room) : NULL;
            write_cell(to, style, cut != NULL ? cut : cell, color);
            if (i != last)
                fprintf(to, "%*s", (int)(widths[i] - print_width(cell)) + 2, "");
            free(cut);
        }
        fputc('\n', to);
    }
}

void print_table_done(struct print_table *table)
{
    for (size_t i = 0; table->cells != NULL && i < (table->n_rows + 1) * table->n_columns; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct print_table){0};
}

void print_duration(int64_t ms, char ret[PRINT_SHORT_SIZE])
{
    if (ms < 0)
        ms = 0;
    long long s = ms / 1000;
    if (ms < 1000)
        snprintf(ret, PRINT_SHORT_SIZE, "%lld ms", (long long)ms);
    else if (s < 60)
        snprintf(ret, PRINT_SHORT_SIZE, "%lld.%lld s", s, (long long)(ms % 1000 / 100));
    else if (s < 3600)
        snprintf(ret, PRINT_SHORT_SIZE, "%lld m %lld s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(ret, PRINT_SHORT_SIZE, "%lld h %lld m", s / 3600, s % 3600 / 60);
    else
        snprintf(ret, PRINT_SHORT_SIZE, "%lld d %lld h", s / 86400, s % 86400 / 3600);
}

void print_bytes(uint64_t bytes, char ret[PRINT_SHORT_SIZE])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(ret, PRINT_SHORT_SIZE, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

void print_clock(int64_t unix_ms, char ret[PRINT_SHORT_SIZE])
{
    time_t seconds = unix_ms / 1000;
    struct tm parts;
    if (unix_ms <= 0 || localtime_r(&seconds, &parts) == NULL) {
        snprintf(ret, PRINT_SHORT_SIZE, "--:--:--.---");
        return;
    }
    size_t len = strftime(ret, PRINT_SHORT_SIZE, "%H:%M:%S", &parts);
    snprintf(ret + len, PRINT_SHORT_SIZE - len, ".%03d", (int)(unix_ms % 1000));
}

char *print_quoted(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+=,";
    if (*text != '\0' && text[strspn(text, plain)] == '\0')
        return xstrdup(text);
    char *quoted = xcalloc(strlen(text) * 4 + 3, 1), *to = quoted;
    *to++ = '\'';
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            memcpy(to, "'\\''", 4);
            to += 4;
        } else {
            *to++ = *text;
        }
    }
    *to = '\'';
    return quoted;
}
