/* What people see: colours, columns, sanitised text. Pure but for writing to the stream that is given. */
#pragma once
#include <amp/amp.h>
#include <stdio.h>

/* What one stream may show. Text from agents is data: on a terminal it never carries control characters. */
struct print_style {
    bool is_terminal;
    bool has_color; /* NO_COLOR, FORCE_COLOR, TERM=dumb and --no-color are honoured */
    bool has_utf8;  /* the locale's character set; else ASCII stands for symbols */
    unsigned width; /* columns of the terminal; 0: no limit */
};

/* The environment's say in it, so that tests may give their own. Members may be NULL. */
struct print_env {
    const char *no_color, *force_color, *term, *lang; /* lang: LC_ALL, else LC_CTYPE, else LANG */
};
struct print_env print_env_get(void);
struct print_style print_style_of(bool is_terminal, bool no_color_option, const struct print_env *env);

enum print_color { PRINT_PLAIN, PRINT_BOLD, PRINT_DIM, PRINT_RED, PRINT_GREEN, PRINT_YELLOW, PRINT_CYAN };
/* Escape sequences that begin and end a colour; "" without colours. */
const char *print_on(const struct print_style *style, enum print_color color);
const char *print_off(const struct print_style *style);
enum print_color print_state_color(const char *state); /* of a task's or an instance's state, by its short name */

/* Text as it is, or sanitised (amp_text_sanitize) if the style is a terminal's. */
void print_text(FILE *to, const struct print_style *style, struct amp_bytes text);
/* Always sanitised, on one line, at most `max` characters wide (0: no limit), "…" at the cut. The result is the caller's. */
char *print_line(const char *text, size_t max);
size_t print_width(const char *text); /* characters */

/* A table: header, then rows; columns as wide as their widest cell. The last column is not padded. Where the style's width does not do, the last column is cut
 * ("…" at the cut), and where that would leave less than PRINT_LAST_MIN of it, each row becomes a block of lines "COLUMN  cell": nothing is dropped. */
#define PRINT_LAST_MIN 12u
#define PRINT_COLUMNS_MAX 10
#define PRINT_ROWS_MAX 100000
struct print_table {
    size_t n_columns, n_rows, cap;
    char **cells; /* the header's cells first */
};
void print_table_init(struct print_table *table, const char *const *columns, size_t n_columns);
/* Copies n_columns texts, sanitised to one line; NULL prints as "-". False past PRINT_ROWS_MAX. */
bool print_table_add(struct print_table *table, const char *const *cells);
/* `color_column` is painted by print_state_color; -1: none. */
void print_table_write(FILE *to, const struct print_style *style, const struct print_table *table, int color_column);
void print_table_done(struct print_table *table);

/* Short forms in a caller's buffer: "3 m 12 s", "512 MiB", "12:30:01.250" (local time), "'it'\''s'" for a shell. */
#define PRINT_SHORT_SIZE 32
void print_duration(int64_t ms, char ret[PRINT_SHORT_SIZE]);
void print_bytes(uint64_t bytes, char ret[PRINT_SHORT_SIZE]);
void print_clock(int64_t unix_ms, char ret[PRINT_SHORT_SIZE]);
char *print_quoted(const char *text); /* the caller's; unchanged if no quoting is needed */
