/* amesh completion: scripts for three shells from the tables; and the names that they ask for while one types. */
#include <stdlib.h>
#include <string.h>

#include "cli/help.h"

/* ---- names ----------------------------------------------------------------------------------------------- */

struct names {
    struct cli *cli;
    const char *what;
};

static int on_agents(void *ctx, const Amp__EnvReply *reply)
{
    struct names *names = ctx;
    for (size_t i = 0; i < reply->n_agents; i++) {
        const Amp__AgentRecord *record = reply->agents[i];
        if (strcmp(names->what, "agents") == 0)
            puts(record->name);
        for (size_t j = 0; strcmp(names->what, "skills") == 0 && record->card != NULL && j < record->card->n_skills; j++) {
            if (record->card->skills[j]->id != NULL && amp_id_is_valid(record->card->skills[j]->id))
                puts(record->card->skills[j]->id);
        }
    }
    return 0;
}

static int on_tasks(void *ctx, const Amp__EnvReply *reply)
{
    struct names *names = ctx;
    bool is_task = strcmp(names->what, "tasks") == 0;
    for (size_t i = 0; i < reply->n_tasks; i++) {
        const char *id = is_task ? reply->tasks[i]->task->id : reply->tasks[i]->task->context_id;
        if (id != NULL && amp_id_is_valid(id))
            puts(id);
    }
    return 0;
}

/* While somebody types nothing may be said on stderr, and no failure matters. */
int help_run_complete(const struct command *command, struct command_args *args)
{
    struct cli cli;
    struct names names = {.cli = &cli, .what = args->n_rest > 0 ? args->rest[0] : ""};
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__AgentQuery agents = AMP__AGENT_QUERY__INIT;
    Amp__TaskQuery tasks = AMP__TASK_QUERY__INIT;
    struct amp_error err = {0};
    bool is_about_tasks = strcmp(names.what, "tasks") == 0 || strcmp(names.what, "contexts") == 0;
    if (strcmp(names.what, "commands") == 0) {
        const struct command *commands[HELP_COMMANDS_MAX];
        size_t count = help_commands_list(commands, HELP_COMMANDS_MAX);
        for (size_t i = 0; i < count; i++)
            puts(commands[i]->name);
        return 0;
    }
    if (freopen("/dev/null", "w", stderr) == NULL)
        return 0;
    if (cli_open(&cli, command, args) == 0) {
        cli.timeout_ms = 1000;
        tasks.has_page_size = true;
        tasks.page_size = 50;
        request.verb_case = is_about_tasks ? AMP__ENV_REQUEST__VERB_LIST : AMP__ENV_REQUEST__VERB_AGENTS;
        if (is_about_tasks)
            request.list = &tasks;
        else
            request.agents = &agents;
        (void)cli_ask_env(&cli, &request, is_about_tasks ? on_tasks : on_agents, &names, &err);
    }
    cli_done(&cli);
    return 0;
}

/* ---- what the scripts share ------------------------------------------------------------------------------- */

static bool is_dynamic(const char *complete)
{
    return complete != NULL && (strcmp(complete, "agents") == 0 || strcmp(complete, "tasks") == 0 || strcmp(complete, "skills") == 0 ||
                                strcmp(complete, "contexts") == 0 || strcmp(complete, "commands") == 0);
}

/* Words "a|b|c" with blanks between. */
static void print_choices(const char *choices)
{
    for (; *choices != '\0'; choices++)
        putchar(*choices == '|' ? ' ' : *choices);
}

static bool is_choice(const char *complete)
{
    return complete != NULL && strchr(complete, '|') != NULL;
}

/* First words, each once: "task ls" and "task show" give "task". */
static void print_first_words(const struct command *const *commands, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t len = strcspn(commands[i]->name, " ");
        bool is_known = false;
        for (size_t j = 0; j < i; j++)
            is_known = is_known || (strncmp(commands[j]->name, commands[i]->name, len) == 0 && strcspn(commands[j]->name, " ") == len);
        if (!is_known)
            printf("%.*s ", (int)len, commands[i]->name);
    }
}

static void each_option(const struct command *row, void (*print)(const struct command *row, const struct command_option *option))
{
    for (const struct command_option *option = row->options; option != NULL && option->name != NULL; option++)
        print(row, option);
    for (const struct command_option *option = command_common_options(); option->name != NULL; option++)
        print(row, option);
}

static void print_words_of_option(const struct command *row, const struct command_option *option)
{
    printf("--%s ", option->name);
}

/* ---- bash ------------------------------------------------------------------------------------------------- */

static void bash_option_case(const struct command *row, const struct command_option *option)
{
    if (option->arg == NULL)
        return;
    printf("        '%s --%s'", row->name, option->name);
    if (option->letter != 0)
        printf("|'%s -%c'", row->name, option->letter);
    fputs(") ", stdout);
    if (option->complete != NULL && strcmp(option->complete, "files") == 0) {
        fputs("COMPREPLY=($(compgen -f -- \"$cur\"))", stdout);
    } else if (is_dynamic(option->complete)) {
        printf("COMPREPLY=($(compgen -W \"$(amesh __complete %s 2>/dev/null)\" -- \"$cur\"))", option->complete);
    } else if (is_choice(option->complete)) {
        fputs("COMPREPLY=($(compgen -W '", stdout);
        print_choices(option->complete);
        fputs("' -- \"$cur\"))", stdout);
    } else {
        fputs("COMPREPLY=()", stdout);
    }
    puts("; return ;;");
}

static void bash_operands(const struct command *row)
{
    printf("        '%s') words='", row->name);
    if (is_choice(row->complete))
        print_choices(row->complete);
    fputs("'", stdout);
    if (is_dynamic(row->complete))
        printf("; words=$(amesh __complete %s 2>/dev/null)", row->complete);
    fputs("; options='", stdout);
    each_option(row, print_words_of_option);
    puts("' ;;");
}

static void print_second_words(const struct command *const *commands, size_t count, const char *first)
{
    size_t len = strlen(first);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(commands[i]->name, first, len) == 0 && commands[i]->name[len] == ' ')
            printf("%s ", commands[i]->name + len + 1);
    }
}

static bool is_group(const struct command *const *commands, size_t count, const struct command *row)
{
    size_t len = strlen(row->name);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(commands[i]->name, row->name, len) == 0 && commands[i]->name[len] == ' ')
            return true;
    }
    return false;
}

static void print_bash(const struct command *const *commands, size_t count)
{
    puts("# bash completion of amesh; made by: amesh completion bash\n_amesh() {\n    local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\" cmd= words= "
         "options=\n    COMPREPLY=()");
    fputs("    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W '", stdout);
    print_first_words(commands, count);
    puts("' -- \"$cur\"))\n        return\n    fi\n    cmd=\"${COMP_WORDS[1]}\"\n    case \"$cmd\" in");
    for (size_t i = 0; i < count; i++) {
        if (!is_group(commands, count, commands[i]))
            continue;
        printf("        %s)\n            if [ \"$COMP_CWORD\" -eq 2 ]; then COMPREPLY=($(compgen -W '", commands[i]->name);
        print_second_words(commands, count, commands[i]->name);
        puts("' -- \"$cur\")); return; fi\n            cmd=\"$cmd ${COMP_WORDS[2]}\" ;;");
    }
    puts("    esac\n    case \"$cmd $prev\" in");
    for (size_t i = 0; i < count; i++)
        each_option(commands[i], bash_option_case);
    puts("    esac\n    case \"$cmd\" in");
    for (size_t i = 0; i < count; i++)
        bash_operands(commands[i]);
    puts("    esac\n    case \"$cur\" in\n        -*) COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")) ;;\n        *) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n    "
         "esac\n}\ncomplete -o default -F _amesh amesh");
}

/* ---- zsh -------------------------------------------------------------------------------------------------- */

/* A text inside of '…[…]…' of _arguments. */
static void print_zsh_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (*text == '[' || *text == ']' || *text == ':')
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void print_zsh_action(const char *name, const char *complete)
{
    printf(":%s:", name);
    if (complete != NULL && strcmp(complete, "files") == 0) {
        fputs("_files", stdout);
    } else if (is_dynamic(complete)) {
        printf("{compadd -- ${(f)\"$(amesh __complete %s 2>/dev/null)\"}}", complete);
    } else if (is_choice(complete)) {
        fputs("(", stdout);
        print_choices(complete);
        fputs(")", stdout);
    }
}

static void zsh_option(const struct command *row, const struct command_option *option)
{
    printf(" '%s--%s[", option->is_repeatable ? "*" : "", option->name);
    print_zsh_text(option->help);
    fputs("]", stdout);
    if (option->arg != NULL)
        print_zsh_action(option->arg, option->complete);
    fputs("'", stdout);
}

static void print_zsh(const struct command *const *commands, size_t count)
{
    puts("#compdef amesh\n# zsh completion of amesh; made by: amesh completion zsh\n_amesh() {\n    local cmd=${words[2]}");
    fputs("    if (( CURRENT == 2 )); then\n        compadd -- ", stdout);
    print_first_words(commands, count);
    puts("\n        return\n    fi\n    case $cmd in");
    for (size_t i = 0; i < count; i++) {
        if (!is_group(commands, count, commands[i]))
            continue;
        printf("        %s)\n            if (( CURRENT == 3 )); then compadd -- ", commands[i]->name);
        print_second_words(commands, count, commands[i]->name);
        puts("; return; fi\n            cmd=\"$cmd ${words[3]}\"; shift words; (( CURRENT-- )) ;;");
    }
    puts("    esac\n    shift words; (( CURRENT-- ))\n    case $cmd in");
    for (size_t i = 0; i < count; i++) {
        printf("        '%s') _arguments", commands[i]->name);
        each_option(commands[i], zsh_option);
        if (commands[i]->complete != NULL) {
            fputs(" '", stdout);
            print_zsh_action("operand", commands[i]->complete);
            fputs("'", stdout);
        }
        puts(" ;;");
    }
    puts("    esac\n}\nif [ \"$funcstack[1]\" = _amesh ]; then _amesh \"$@\"; else compdef _amesh amesh; fi");
}

/* ---- fish ------------------------------------------------------------------------------------------------- */

static void print_fish_text(const char *text)
{
    putchar('\'');
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('\'');
}

/* Is the command line that of `row`? */
static void print_fish_condition(const struct command *row)
{
    const char *space = strchr(row->name, ' ');
    printf("complete -c amesh -n '__fish_seen_subcommand_from %.*s", (int)strcspn(row->name, " "), row->name);
    if (space != NULL)
        printf("; and __fish_seen_subcommand_from %s", space + 1);
    fputs("'", stdout);
}

static void print_fish_argument(const char *complete)
{
    if (is_dynamic(complete)) {
        printf(" -xa '(amesh __complete %s 2>/dev/null)'", complete);
    } else if (is_choice(complete)) {
        fputs(" -xa '", stdout);
        print_choices(complete);
        fputs("'", stdout);
    }
}

static void fish_option(const struct command *row, const struct command_option *option)
{
    print_fish_condition(row);
    printf(" -l %s", option->name);
    if (option->letter != 0)
        printf(" -s %c", option->letter);
    if (option->arg != NULL)
        fputs(" -r", stdout);
    print_fish_argument(option->complete);
    fputs(" -d ", stdout);
    print_fish_text(option->help);
    putchar('\n');
}

static void print_fish(const struct command *const *commands, size_t count)
{
    puts("# fish completion of amesh; made by: amesh completion fish\ncomplete -c amesh -f");
    for (size_t i = 0; i < count; i++) {
        const char *space = strchr(commands[i]->name, ' ');
        if (space == NULL)
            printf("complete -c amesh -n __fish_use_subcommand -a %s", commands[i]->name);
        else
            printf("complete -c amesh -n '__fish_seen_subcommand_from %.*s' -a %s", (int)(space - commands[i]->name), commands[i]->name, space + 1);
        fputs(" -d ", stdout);
        print_fish_text(commands[i]->summary);
        putchar('\n');
        if (commands[i]->complete != NULL) {
            print_fish_condition(commands[i]);
            print_fish_argument(commands[i]->complete);
            putchar('\n');
        }
        each_option(commands[i], fish_option);
    }
}

int help_run_completion(const struct command *command, struct command_args *args)
{
    const struct command *commands[HELP_COMMANDS_MAX];
    struct cli cli;
    int status = cli_init(&cli, command, args);
    size_t count = help_commands_list(commands, HELP_COMMANDS_MAX);
    if (status == 0)
        status = cli_operands(&cli, 1, 1);
    if (status == 0 && strcmp(args->rest[0], "bash") == 0)
        print_bash(commands, count);
    else if (status == 0 && strcmp(args->rest[0], "zsh") == 0)
        print_zsh(commands, count);
    else if (status == 0 && strcmp(args->rest[0], "fish") == 0)
        print_fish(commands, count);
    else if (status == 0)
        status = cli_usage(&cli, "there is no completion for \"%s\": bash, zsh or fish", args->rest[0]);
    cli_done(&cli);
    return status;
}
