/* amesh man: the manual page in mdoc, from the tables. */
#include <stdlib.h>
#include <string.h>

#include "cli/help.h"

#define FILL_WIDTH 76

static void print_escaped(char c)
{
    if (c == '\\')
        fputs("\\e", stdout);
    else if (c == '-')
        fputs("\\-", stdout);
    else if (c == '`')
        fputs("\\(ga", stdout);
    else if (c == '~')
        fputs("\\(ti", stdout);
    else if (c == '^')
        fputs("\\(ha", stdout);
    else
        putchar(c);
}

/* A text of a table as mdoc text: no line of it is taken for a macro, no backslash for an escape. */
static void print_words(const char *text, size_t len)
{
    if (len > 0 && (text[0] == '.' || text[0] == '\''))
        fputs("\\&", stdout);
    for (size_t i = 0; i < len; i++)
        print_escaped(text[i]);
}

/* The same as prose: short lines, and each sentence begins one, as mdoc wants it. */
static void print_prose(const char *text, size_t len)
{
    size_t column = 0;
    while (len > 0) {
        size_t word = 0;
        while (word < len && text[word] != ' ')
            word++;
        print_words(text, word);
        column += word + 1;
        bool is_end = word > 0 && (text[word - 1] == '.' || text[word - 1] == '?') && word < len;
        text += word;
        len -= word;
        if (len == 0)
            break;
        text++;
        len--;
        size_t next = 0;
        while (next < len && text[next] != ' ')
            next++;
        if (is_end || column + next > FILL_WIDTH) {
            putchar('\n');
            column = 0;
        } else {
            putchar(' ');
        }
    }
}

/* Paragraphs, and lines that begin with two blanks as they are. */
static void print_details(const char *text)
{
    bool is_literal = false, is_blank = false, is_first = true;
    for (const char *line = text; line != NULL && *line != '\0';) {
        size_t len = strcspn(line, "\n");
        bool wants_literal = strncmp(line, "  ", 2) == 0;
        if (len == 0) {
            is_blank = true;
        } else {
            if (is_literal && !wants_literal)
                puts(".Ed");
            if (wants_literal && !is_literal)
                puts(".Bd -literal -offset indent");
            else if (is_blank && !is_first && !wants_literal && !is_literal)
                puts(".Pp");
            else if (is_literal && !wants_literal)
                puts(".Pp");
            is_literal = wants_literal;
            if (wants_literal)
                print_words(line + 2, len - 2);
            else
                print_prose(line, len);
            putchar('\n');
            is_blank = false;
            is_first = false;
        }
        line += len;
        line += *line == '\n';
    }
    if (is_literal)
        puts(".Ed");
}

static void print_options(const struct command_option *options)
{
    if (options == NULL || options->name == NULL)
        return;
    puts(".Bl -tag -width Ds");
    for (const struct command_option *option = options; option->name != NULL; option++) {
        fputs(".It ", stdout);
        if (option->letter != 0)
            printf("Fl %c , ", option->letter);
        fputs("Fl \\-", stdout);
        print_words(option->name, strlen(option->name));
        if (option->arg != NULL)
            printf(" Ar %s", option->arg);
        putchar('\n');
        print_prose(option->help, strlen(option->help));
        puts(option->is_repeatable ? "; may be repeated" : "");
    }
    puts(".El");
}

static void print_command(const struct command *row)
{
    fputs(".Ss amesh ", stdout);
    print_words(row->name, strlen(row->name));
    if (row->operands != NULL && *row->operands != '\0') {
        putchar(' ');
        print_words(row->operands, strlen(row->operands));
    }
    putchar('\n');
    putchar(row->summary[0] >= 'a' && row->summary[0] <= 'z' ? row->summary[0] - 'a' + 'A' : row->summary[0]);
    print_prose(row->summary + 1, strlen(row->summary + 1));
    puts(".");
    if (row->details != NULL && *row->details != '\0') {
        if (strncmp(row->details, "  ", 2) != 0)
            puts(".Pp");
        print_details(row->details);
    }
    print_options(row->options);
}

static void print_tail(void)
{
    static const char *const variables[][2] = {
        {"AMESH_HOME", "State of one mesh on this host; default $XDG_STATE_HOME/amesh."},
        {"AMESH_BUS", "NATS URL of the bus; else the mesh that runs in AMESH_HOME."},
        {"AMESH_CREDS", "NATS credentials file."},
        {"AMESH_INBOX", "Prefix of the inboxes in which answers come, instead of _INBOX. and the name."},
        {"AMESH_NATS_SERVER", "The nats\\-server that up starts."},
        {"AMESH_SOCK", "The local API, set for every agent."},
        {"AMESH_AGENT , AMESH_TASK , AMESH_CONTEXT , AMESH_ATTEMPT", "Set for a program that is run once per task."},
        {"NO_COLOR , FORCE_COLOR", "Without or with colours, whatever the terminal."},
    };
    static const char *const codes[][2] = {
        {"0", "ok"},          {"1", "the task failed, was rejected or cancelled"},
        {"2", "usage"},       {"3", "check found problems"},
        {"4", "not found"},   {"5", "denied"},
        {"6", "deadline"},    {"7", "unavailable: no bus, no environment, all busy"},
        {"8", "conflict"},    {"9", "input required"},
        {"130", "interrupted"},
    };
    puts(".Sh ENVIRONMENT\n.Bl -tag -width Ds");
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        printf(".It Ev %s\n%s\n", variables[i][0], variables[i][1]);
    puts(".El\n.Sh EXIT STATUS\n.Bl -tag -width Ds");
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        printf(".It %s\n%s\n", codes[i][0], codes[i][1]);
    puts(".El\n.Sh EXAMPLES\n.Bd -literal -offset indent\namesh up \\-\\-detach\namesh run \\-\\-name up \\-\\- tr a\\-z A\\-Z &\namesh ask up hello\n.Ed\n.Sh SEE ALSO\n.Xr nats-server 8");
}

int help_run_man(const struct command *command, struct command_args *args)
{
    const struct command *commands[HELP_COMMANDS_MAX];
    struct cli cli;
    int status = cli_init(&cli, command, args);
    size_t count = help_commands_list(commands, HELP_COMMANDS_MAX);
    if (status == 0) {
        puts(".Dd November 24, 2026\n.Dt AMESH 1\n.Os\n.Sh NAME\n.Nm amesh\n.Nd service mesh for AI agents\n.Sh SYNOPSIS\n.Nm\n.Ar command\n.Op Ar options\n.Op Ar operands\n"
             ".Sh DESCRIPTION\n.Nm\nputs agents on a NATS bus, lets anybody call them by name or by skill,\nand keeps their tasks.\n.Sh COMMANDS");
        for (size_t i = 0; i < count; i++)
            print_command(commands[i]);
        puts(".Ss Options of all commands");
        print_options(command_common_options());
        print_tail();
    }
    cli_done(&cli);
    return status;
}
