/* Commands and their options as tables: parsing, --help, `amesh help`, completions and man pages all come from them (one name, one place). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct amp_error;

struct command_option {
    const char *name;  /* long name without "--" */
    char letter;       /* or 0 */
    const char *arg;   /* name of its argument in help, or NULL for a flag */
    const char *help;
    bool is_repeatable;
    const char *complete; /* what completes its argument: "agents", "tasks", "skills", "contexts", "schedules", "files", "exec|jsonl|dial", or NULL */
};

struct command_args {
    /* Value of an option, last one wins; "" for a flag; NULL if not given. */
    const char **values;      /* parallel to the command's options */
    const char ***repeated;   /* per option: NULL-ended list of all values, NULL if none */
    const char **rest;        /* operands, NULL-ended */
    size_t n_rest;
    bool has_dashes;          /* was there a "--"? operands before it: n_before */
    size_t n_before;
};

struct command {
    const char *name;      /* "task ls" has its own row */
    const char *operands;  /* "AGENT TEXT"; "": none, one that is given is a usage error */
    const char *summary;   /* one line */
    const char *details;   /* paragraphs for help and man; examples */
    const struct command_option *options; /* ended by a row without name; the common ones (--json --bus --home --help --no-color) are added to all */
    int (*run)(const struct command *command, struct command_args *args); /* → exit code */
    const char *complete;  /* of its first operand */
    bool is_hidden;
};

/* Value of option `name` ("timeout") or NULL. Aborts if the command has no such option: a typo in our code. */
const char *command_value(const struct command *command, const struct command_args *args, const char *name);
const char **command_values(const struct command *command, const struct command_args *args, const char *name); /* NULL-ended, or NULL */
bool command_flag(const struct command *command, const struct command_args *args, const char *name);

/* Options: `--name VALUE`, `--name=VALUE`, `-n VALUE`, `-nVALUE`, grouped flags, `--` ends them. They may follow operands, but not in a command whose
 * `operands` contain "COMMAND" ("[--] COMMAND…"): there the first operand ends them, as what follows may be somebody else's. The common ones may also stand before the command.
 * A row of the kind "task" whose operands are "COMMAND" only is a group: an operand that is none of its commands is a usage error, no operand prints its help.
 *
 * Splits argv, finds the row (longest name first: "task ls" before "task"), prints usage errors (stderr, "did you mean", exit 2), runs it. `tables` is a NULL-ended list of tables, each ended by a
 * row without name. */
int command_main(const struct command *const *tables, int argc, char **argv);
/* For help, completion, man. */
const struct command *command_find(const char *name);
const struct command *const *command_tables(void);
const struct command_option *command_common_options(void); /* ended by a row without name */

bool command_is_group(const struct command *command); /* such as "task" */
/* The row that `n_words` words of a command line name, or NULL with the usage error printed and *ret_status set. One word more than a name has is an error. */
const struct command *command_named(const char *const *words, size_t n_words, bool is_json, int *ret_status);

/* Help made from the row; NULL: the list of all commands. Lines are filled to the columns of `to`, at most 100, 80 if it has none; lines of `details` that begin
 * with a space are kept. */
void command_print_help(FILE *to, const struct command *command);
/* Columns of the terminal: COLUMNS, else what the terminal says; 0: `fd` is no terminal, or it is not known. */
unsigned command_columns(int fd);
/* Prints the error on stderr, for people or as the error document, and returns its exit code. */
int command_fail(bool is_json, const struct amp_error *err);
/* Closest of the words (at most two edits away, and less than half of the word), or NULL. */
const char *command_guess(const char *word, const char *const *words, size_t count);

#define COMMAND_DURATION_DAYS_MAX 49u /* as many whole ones as 32 bits of milliseconds hold */
/* "30s", "500ms", "2m", "1h", "1.5s", "2d", plain number = seconds. False if it is none or over 49 days. */
bool command_duration_ms(const char *text, unsigned *ret_ms);
