/* Neither argp nor getopt_long: argp knows neither two-word commands nor lists of values, both print their usage errors themselves (ours may
 * have to be a JSON document), and help, completion and man pages are to come from the very same rows. */
#include "base/command_private.h"

#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define DURATION_MAX_MS (COMMAND_DURATION_DAYS_MAX * 24ull * 3600 * 1000)
#define COMMANDS_MAX 256u

static const struct command *const *all_tables;

static const struct command_option common_options[] = {
    {.name = "json", .help = "print JSON, also errors"},
    {.name = "bus", .arg = "URL", .help = "NATS URL(s); default: AMESH_BUS, else the mesh that runs in the home"},
    {.name = "home", .arg = "DIR", .help = "state of the mesh on this host; default: AMESH_HOME", .complete = "files"},
    {.name = "no-color", .help = "no colours"},
    {.name = "help", .letter = 'h', .help = "this text"},
    {0},
};

const struct command_option *command_common_options(void)
{
    return common_options;
}

const struct command *const *command_tables(void)
{
    return all_tables;
}

size_t command_options(const struct command *command, const struct command_option **ret)
{
    size_t count = 0;
    for (const struct command_option *option = command ? command->options : NULL; option && option->name; option++) {
        assert(count < COMMAND_OPTIONS_MAX);
        ret[count++] = option;
    }
    for (const struct command_option *option = common_options; option->name; option++) {
        assert(count < COMMAND_OPTIONS_MAX);
        ret[count++] = option;
    }
    return count;
}

bool command_is_group(const struct command *command)
{
    return command->operands && strcmp(command->operands, "COMMAND") == 0;
}

/* ---- finding the row ------------------------------------------------------------------------------------ */

const struct command *command_find(const char *name)
{
    for (size_t i = 0; all_tables && all_tables[i]; i++) {
        for (const struct command *row = all_tables[i]; row->name; row++) {
            if (strcmp(row->name, name) == 0) {
                return row;
            }
        }
    }
    return NULL;
}

/* Longest name first. *ret_words: how many words of argv it took. */
static const struct command *find_row(int argc, char **argv, int *ret_words)
{
    if (argc >= 2) {
        char *both = xasprintf("%s %s", argv[0], argv[1]);
        const struct command *row = command_find(both);
        free(both);
        if (row) {
            *ret_words = 2;
            return row;
        }
    }
    *ret_words = 1;
    return argc >= 1 ? command_find(argv[0]) : NULL;
}

/* prefix "task ": only its commands; NULL: all. */
static const char *guess_command(const char *word, const char *prefix)
{
    const char *names[COMMANDS_MAX];
    size_t count = 0;
    for (size_t i = 0; all_tables[i]; i++) {
        for (const struct command *row = all_tables[i]; row->name && count < COMMANDS_MAX; row++) {
            if (!row->is_hidden && (!prefix || strncmp(row->name, prefix, strlen(prefix)) == 0)) {
                names[count++] = row->name;
            }
        }
    }
    return command_guess(word, names, count);
}

/* ---- values --------------------------------------------------------------------------------------------- */

static size_t index_of(const struct command *command, const char *name)
{
    const struct command_option *options[COMMAND_OPTIONS_MAX];
    size_t count = command_options(command, options);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(options[i]->name, name) == 0) {
            return i;
        }
    }
    fprintf(stderr, "amesh: the command `%s` has no option --%s\n", command->name, name);
    abort();
}

const char *command_value(const struct command *command, const struct command_args *args, const char *name)
{
    return args->values[index_of(command, name)];
}

const char **command_values(const struct command *command, const struct command_args *args, const char *name)
{
    return args->repeated[index_of(command, name)];
}

bool command_flag(const struct command *command, const struct command_args *args, const char *name)
{
    return command_value(command, args, name) != NULL;
}

/* ---- parsing -------------------------------------------------------------------------------------------- */

struct parser {
    const struct command *command; /* NULL while only the common options are allowed */
    const struct command_option *options[COMMAND_OPTIONS_MAX];
    size_t n_options;
    struct command_args args;
    char **argv;
    int argc, at;
    bool is_json;
};

static void args_init(struct parser *parser)
{
    size_t slots = COMMAND_OPTIONS_MAX;
    parser->args.values = xcalloc(slots, sizeof *parser->args.values);
    parser->args.repeated = xcalloc(slots, sizeof *parser->args.repeated);
    parser->args.rest = xcalloc((size_t)parser->argc + 1, sizeof *parser->args.rest);
}

static void args_done(struct command_args *args)
{
    for (size_t i = 0; i < COMMAND_OPTIONS_MAX; i++) {
        free(args->repeated[i]);
    }
    free(args->repeated);
    free(args->values);
    free(args->rest);
}

static void set_value(struct parser *parser, size_t index, const char *value)
{
    struct command_args *args = &parser->args;
    size_t count = 0;
    while (args->repeated[index] && args->repeated[index][count]) {
        count++;
    }
    args->repeated[index] = xrealloc(args->repeated[index], (count + 2) * sizeof *args->repeated[index]);
    args->repeated[index][count] = value;
    args->repeated[index][count + 1] = NULL;
    args->values[index] = value;
}

static int unknown_option(struct parser *parser, const char *word)
{
    const char *names[COMMAND_OPTIONS_MAX];
    for (size_t i = 0; i < parser->n_options; i++) {
        names[i] = parser->options[i]->name;
    }
    const char *guess = strncmp(word, "--", 2) == 0 ? command_guess(word + 2, names, parser->n_options) : NULL;
    char *full = guess ? xasprintf("--%s", guess) : NULL;
    int status = command_usage_error(parser->is_json, parser->command, "unknown option", word, full);
    free(full);
    return status;
}

static int parse_long(struct parser *parser, const char *word)
{
    const char *name = word + 2;
    size_t len = strcspn(name, "=");
    const char *value = name[len] == '=' ? name + len + 1 : NULL;
    char *written = xasprintf("--%.*s", (int)len, name);
    size_t i = 0;
    while (i < parser->n_options && strcmp(parser->options[i]->name, written + 2) != 0) {
        i++;
    }
    int status = 0;
    if (i == parser->n_options) {
        status = unknown_option(parser, written);
    } else if (!parser->options[i]->arg && value) {
        status = command_usage_error(parser->is_json, parser->command, "this option takes no value:", written, NULL);
    } else if (parser->options[i]->arg && !value && parser->at == parser->argc) {
        status = command_usage_error(parser->is_json, parser->command, "this option needs a value:", written, NULL);
    } else {
        if (parser->options[i]->arg && !value) {
            value = parser->argv[parser->at++];
        }
        set_value(parser, i, value ? value : "");
    }
    free(written);
    return status;
}

/* "-v", "-vd", "-fFILE", "-f FILE" */
static int parse_letters(struct parser *parser, const char *word)
{
    for (const char *letter = word + 1; *letter; letter++) {
        char written[3] = {'-', *letter, '\0'};
        size_t i = 0;
        while (i < parser->n_options && parser->options[i]->letter != *letter) {
            i++;
        }
        if (i == parser->n_options) {
            return unknown_option(parser, (unsigned char)*letter < 0x80 ? written : word);
        }
        if (!parser->options[i]->arg) {
            set_value(parser, i, "");
        } else if (letter[1]) {
            set_value(parser, i, letter + 1);
            return 0;
        } else if (parser->at == parser->argc) {
            return command_usage_error(parser->is_json, parser->command, "this option needs a value:", written, NULL);
        } else {
            set_value(parser, i, parser->argv[parser->at++]);
        }
    }
    return 0;
}

static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0';
}

static int parse_option(struct parser *parser)
{
    const char *word = parser->argv[parser->at++];
    return word[1] == '-' ? parse_long(parser, word) : parse_letters(parser, word);
}

/* What begins with the first operand may be somebody else's command line. */
static bool ends_at_operand(const struct command *command)
{
    return command->operands && !command_is_group(command) && strstr(command->operands, "COMMAND");
}

static void take_rest(struct parser *parser)
{
    while (parser->at < parser->argc) {
        parser->args.rest[parser->args.n_rest++] = parser->argv[parser->at++];
    }
}

static int parse(struct parser *parser)
{
    struct command_args *args = &parser->args;
    bool is_open = true;
    while (parser->at < parser->argc) {
        const char *word = parser->argv[parser->at];
        if (strcmp(word, "--") == 0 && !args->has_dashes) {
            parser->at++;
            args->has_dashes = true;
            args->n_before = args->n_rest;
            take_rest(parser);
        } else if (is_open && is_option(word)) {
            int status = parse_option(parser);
            if (status != 0) {
                return status;
            }
        } else {
            args->rest[args->n_rest++] = word;
            parser->at++;
            is_open = is_open && !ends_at_operand(parser->command) && !command_is_group(parser->command);
        }
    }
    if (!args->has_dashes) {
        args->n_before = args->n_rest;
    }
    return 0;
}

/* ---- command_main --------------------------------------------------------------------------------------- */

static bool wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            return true;
        }
    }
    return false;
}

static int unknown_in_group(const struct command *group, const char *word, bool is_json)
{
    char *full = xasprintf("%s %s", group->name, word);
    char *prefix = xasprintf("%s ", group->name);
    int status = command_usage_error(is_json, group, "unknown command", full, guess_command(full, prefix));
    free(prefix);
    free(full);
    return status;
}

/* The words after the row's name are no command of the group. */
static int run_group(struct parser *parser)
{
    if (parser->args.n_rest == 0) {
        return command_usage_error(parser->is_json, parser->command, "a command is missing after", parser->command->name, NULL);
    }
    return unknown_in_group(parser->command, parser->args.rest[0], parser->is_json);
}

/* Such as "env", which runs by itself and has "env verify" beside it. */
static bool has_commands(const struct command *command)
{
    size_t len = strlen(command->name);
    for (size_t i = 0; all_tables[i]; i++) {
        for (const struct command *row = all_tables[i]; row->name; row++) {
            if (strncmp(row->name, command->name, len) == 0 && row->name[len] == ' ') {
                return true;
            }
        }
    }
    return false;
}

const struct command *command_named(const char *const *words, size_t n_words, bool is_json, int *ret_status)
{
    int n_taken = 0;
    const struct command *row = find_row((int)n_words, (char **)words, &n_taken);
    *ret_status = 0;
    if (!row) {
        *ret_status = command_usage_error(is_json, NULL, "unknown command", words[0], guess_command(words[0], NULL));
    } else if ((size_t)n_taken < n_words && (command_is_group(row) || has_commands(row))) {
        *ret_status = unknown_in_group(row, words[n_taken], is_json);
    } else if ((size_t)n_taken < n_words) {
        *ret_status = command_usage_error(is_json, row, "this is no part of the command's name:", words[n_taken], NULL);
    }
    return *ret_status == 0 ? row : NULL;
}

static bool has_surplus(const struct parser *parser)
{
    return parser->command->operands && !*parser->command->operands && parser->args.n_rest > 0;
}

/* A word behind a command that takes none is never passed over: a typo in "env verify" would start an environment. */
static int refuse_surplus(struct parser *parser)
{
    const char *word = parser->args.rest[0];
    if (has_commands(parser->command)) {
        return unknown_in_group(parser->command, word, parser->is_json);
    }
    return command_usage_error(parser->is_json, parser->command, "this command takes no operand:", word, NULL);
}

static int run_row(struct parser *parser)
{
    int status = parse(parser);
    if (status != 0) {
        return status;
    }
    bool is_group = command_is_group(parser->command);
    if (command_flag(parser->command, &parser->args, "help") && !(is_group && parser->args.n_rest > 0)) {
        command_print_help(stdout, parser->command);
        return 0;
    }
    if (is_group) {
        return run_group(parser);
    }
    if (has_surplus(parser)) {
        return refuse_surplus(parser);
    }
    return parser->command->run(parser->command, &parser->args);
}

/* Common options that stand before the command: moved behind it. Returns the index of the first word that is none, or -1 and *ret_status. */
static int skip_common(struct parser *parser, int *ret_status)
{
    parser->n_options = command_options(NULL, parser->options);
    while (parser->at < parser->argc && is_option(parser->argv[parser->at]) && strcmp(parser->argv[parser->at], "--") != 0) {
        *ret_status = parse_option(parser);
        if (*ret_status != 0) {
            return -1;
        }
    }
    return parser->at;
}

/* argv of the command: its words are left out, the options from before it come first. Ended by NULL; the caller's. */
static char **join(char **before, int n_before, char **after, int n_after)
{
    char **argv = xcalloc((size_t)n_before + (size_t)n_after + 1, sizeof *argv);
    memcpy(argv, before, (size_t)n_before * sizeof *argv);
    memcpy(argv + n_before, after, (size_t)n_after * sizeof *argv);
    return argv;
}

static int main_without_command(struct parser *global)
{
    if (global->args.repeated[global->n_options - 1]) { /* --help is the last of the common ones */
        command_print_help(stdout, NULL);
        return 0;
    }
    if (global->at == global->argc) {
        command_print_help(stderr, NULL);
        return 2;
    }
    const char *word = global->argv[global->at];
    return command_usage_error(global->is_json, NULL, "unknown command", word, guess_command(word, NULL));
}

int command_main(const struct command *const *tables, int argc, char **argv)
{
    all_tables = tables;
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        static char version[] = "version";
        argv[1] = version;
    }
    struct parser global = {.argv = argv, .argc = argc, .at = argc > 0 ? 1 : 0, .is_json = wants_json(argc, argv)};
    args_init(&global);
    int status = 0, words = 0;
    int first = skip_common(&global, &status);
    const struct command *command = first < 0 ? NULL : find_row(argc - first, argv + first, &words);
    if (first >= 0 && !command) {
        status = main_without_command(&global);
    } else if (command) {
        struct parser parser = {.command = command, .is_json = global.is_json};
        parser.argv = join(argv + 1, first - 1, argv + first + words, argc - first - words);
        parser.argc = argc - 1 - words;
        parser.n_options = command_options(command, parser.options);
        args_init(&parser);
        status = run_row(&parser);
        args_done(&parser.args);
        free(parser.argv);
    }
    args_done(&global.args);
    return status;
}

/* ---- durations ------------------------------------------------------------------------------------------ */

bool command_duration_ms(const char *text, unsigned *ret_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    /* By hand: strtod also takes "inf", "0x1p3" and, in other locales, a comma. */
    double value = 0, place = 1;
    size_t len = strspn(text, "0123456789");
    if (len == 0 || len > 12) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        value = value * 10 + (text[i] - '0');
    }
    text += len;
    if (*text == '.') {
        len = strspn(++text, "0123456789");
        if (len == 0) {
            return false;
        }
        for (size_t i = 0; i < len; i++) {
            value += (place /= 10) * (text[i] - '0');
        }
        text += len;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(text, units[i].unit) == 0 && value * units[i].ms <= (double)DURATION_MAX_MS) {
            *ret_ms = (unsigned)(value * units[i].ms + 0.5);
            return true;
        }
    }
    return false;
}
