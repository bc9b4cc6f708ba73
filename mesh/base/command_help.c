/* What a person reads about a command: help from the tables, and what was wrong with a command line. */
#include "base/command_private.h"

#include <amp/amp.h>

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_DEFAULT 80u
#define COLUMNS_MIN 20u
#define COLUMNS_MAX 100u /* of text: longer lines read badly */
#define COLUMNS_NARROW 60u /* below, what explains stands under what it explains */
#define WORD_MAX 64u /* of a word that is compared */
#define LEFT_MAX 26u /* an option or command wider than this has a line of its own */

/* ---- did you mean --------------------------------------------------------------------------------------- */

static unsigned smallest(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Edits from one word to the other, two neighbours in the wrong order counting as one. */
static unsigned distance(const char *from, const char *to)
{
    size_t n = strlen(from), m = strlen(to);
    unsigned rows[3][WORD_MAX + 1];
    for (size_t j = 0; j <= m; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= n; i++) {
        unsigned *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            now[j] = smallest(now[j - 1] + 1, last[j] + 1, last[j - 1] + (from[i - 1] != to[j - 1]));
            if (i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] && before[j - 2] + 1 < now[j]) {
                now[j] = before[j - 2] + 1;
            }
        }
    }
    return rows[n % 3][m];
}

const char *command_guess(const char *word, const char *const *words, size_t count)
{
    const char *best = NULL;
    unsigned best_edits = 3;
    if (strlen(word) > WORD_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (strlen(words[i]) > WORD_MAX) {
            continue;
        }
        unsigned edits = distance(word, words[i]);
        /* Of two that are as close the one with the same first letter: fingers slip later in a word. */
        bool is_closer = edits < best_edits || (best && edits == best_edits && *best != *word && *words[i] == *word);
        if (is_closer && (size_t)edits * 2 <= strlen(words[i])) {
            best = words[i];
            best_edits = edits;
        }
    }
    return best;
}

/* ---- errors ---------------------------------------------------------------------------------------------- */

int command_fail(bool is_json, const struct amp_error *err)
{
    const struct amp_code_info *info = amp_code_info(err->code);
    struct amp_buf out;
    amp_buf_init(&out, 65536);
    if (is_json) {
        amp_buf_printf(&out, "{\"error\":{\"code\":\"AMESH-%04d\",\"name\":\"%s\",\"message\":", (int)err->code, info->name);
        amp_json_append_string(&out, amp_bytes_of(err->message));
        amp_buf_printf(&out, ",\"hint\":");
        amp_json_append_string(&out, amp_bytes_of(err->hint));
        amp_buf_printf(&out, "}}\n");
    } else {
        amp_buf_printf(&out, "error: %s (AMESH-%04d).%s%s\n", err->message, (int)err->code, err->hint[0] ? " Try: " : "", err->hint);
    }
    fflush(stdout);
    fwrite(out.data, 1, out.len, stderr);
    amp_buf_done(&out);
    return info->exit;
}

int command_usage_error(bool is_json, const struct command *command, const char *what, const char *word, const char *guess)
{
    struct amp_buf clean;
    struct amp_error err = {0};
    amp_buf_init(&clean, 4096);
    amp_text_sanitize(&clean, (struct amp_bytes){.data = (const uint8_t *)word, .len = amp_utf8_cut(amp_bytes_of(word), 200)}, true);
    struct amp_bytes shown = amp_buf_bytes(&clean);
    (void)amp_error_set(&err, AMP_INVALID, "", "%s %.*s%s%s%s", what, (int)shown.len, shown.data ? (const char *)shown.data : "", guess ? "; did you mean " : "",
                        guess ? guess : "", guess ? "?" : "");
    amp_error_hint(&err, "amesh %s%s--help", command ? command->name : "", command ? " " : "");
    amp_buf_done(&clean);
    return command_fail(is_json, &err);
}

/* ---- help ----------------------------------------------------------------------------------------------- */

/* Characters, as far as a terminal's columns are concerned: our own texts are Latin. */
static size_t width(const char *text, size_t len)
{
    size_t columns = 0;
    for (size_t i = 0; i < len; i++) {
        columns += ((unsigned char)text[i] & 0xC0) != 0x80;
    }
    return columns;
}

unsigned command_columns(int fd)
{
    const char *told = getenv("COLUMNS");
    char *end = NULL;
    unsigned long columns = told && *told ? strtoul(told, &end, 10) : 0;
    struct winsize size;
    if (isatty(fd) != 1) {
        return 0;
    }
    if (columns > 0 && columns < 10000 && *end == '\0') {
        return (unsigned)columns;
    }
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

static size_t columns_of(FILE *to)
{
    int fd = fileno(to); /* -1: memory */
    unsigned columns = fd >= 0 ? command_columns(fd) : 0;
    return columns == 0 ? COLUMNS_DEFAULT : columns < COLUMNS_MIN ? COLUMNS_MIN : columns > COLUMNS_MAX ? COLUMNS_MAX : columns;
}

/* Words of one line's text, filled; the first line goes on at column `at`, the others begin at `indent`. */
static void fill(FILE *to, const char *text, size_t len, size_t at, size_t indent)
{
    const char *stop = text + len;
    size_t limit = columns_of(to);
    bool is_first = true;
    while (text < stop) {
        const char *word_end = memchr(text, ' ', (size_t)(stop - text));
        size_t word_len = (size_t)((word_end ? word_end : stop) - text);
        size_t columns = width(text, word_len);
        if (!is_first && at + 1 + columns > limit) {
            fprintf(to, "\n%*s", (int)indent, "");
            at = indent;
        } else if (!is_first) {
            putc(' ', to);
            at++;
        }
        fwrite(text, 1, word_len, to);
        at += columns;
        is_first = false;
        text += word_len + 1;
    }
    putc('\n', to);
}

static void print_details(FILE *to, const char *details)
{
    while (*details) {
        size_t len = strcspn(details, "\n");
        if (*details == ' ') {
            fprintf(to, "%.*s\n", (int)len, details);
        } else {
            fill(to, details, len, 0, 0);
        }
        details += len + (details[len] == '\n');
    }
}

static void print_pair(FILE *to, const char *left, const char *right)
{
    size_t columns = width(left, strlen(left));
    bool is_narrow = columns_of(to) < COLUMNS_NARROW;
    size_t indent = is_narrow ? 8 : LEFT_MAX + 4;
    fprintf(to, "  %s", left);
    if (is_narrow || columns > LEFT_MAX) {
        fprintf(to, "\n%*s", (int)indent, "");
    } else {
        fprintf(to, "%*s", (int)(LEFT_MAX + 2 - columns), "");
    }
    fill(to, right, strlen(right), indent, indent);
}

static void print_option(FILE *to, const struct command_option *option)
{
    char letter[8] = "    ";
    if (option->letter) {
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    }
    char *left = xasprintf("%s--%s%s%s%s", letter, option->name, option->arg ? " " : "", option->arg ? option->arg : "",
                           option->is_repeatable ? " …" : "");
    print_pair(to, left, option->help ? option->help : "");
    free(left);
}

/* Rows whose name begins with `prefix`; NULL: all. */
static void print_rows(FILE *to, const char *prefix)
{
    const struct command *const *tables = command_tables();
    for (size_t i = 0; tables && tables[i]; i++) {
        for (const struct command *row = tables[i]; row->name; row++) {
            if (row->is_hidden || (prefix ? strncmp(row->name, prefix, strlen(prefix)) != 0 : command_is_group(row))) {
                continue;
            }
            char *left = xasprintf("%s%s%s", row->name, row->operands && *row->operands ? " " : "", row->operands ? row->operands : "");
            print_pair(to, left, row->summary ? row->summary : "");
            free(left);
        }
    }
}

void command_print_help(FILE *to, const struct command *command)
{
    const struct command_option *options[COMMAND_OPTIONS_MAX];
    size_t n_common = command_options(NULL, options);
    size_t count = command_options(command, options);
    if (!command) {
        fprintf(to, "Usage: amesh COMMAND [OPTION…] …\n\nCommands:\n");
        print_rows(to, NULL);
    } else {
        fprintf(to, "Usage: amesh %s [OPTION…]%s%s\n\n", command->name, command->operands && *command->operands ? " " : "",
                command->operands ? command->operands : "");
        fill(to, command->summary ? command->summary : "", command->summary ? strlen(command->summary) : 0, 0, 0);
        if (command->details && *command->details) {
            putc('\n', to);
            print_details(to, command->details);
        }
        if (command_is_group(command)) {
            char *prefix = xasprintf("%s ", command->name);
            fprintf(to, "\nCommands:\n");
            print_rows(to, prefix);
            free(prefix);
        }
        if (count > n_common) {
            fprintf(to, "\nOptions:\n");
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (i == count - n_common) {
            fprintf(to, "\nEverywhere:\n");
        }
        print_option(to, options[i]);
    }
}
