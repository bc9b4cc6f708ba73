/* amesh completion: a script per shell; and what all of them ask while one types: `amesh __complete -- WORD…`, whose last word is the one being typed. It answers
 * from the tables and the mesh with lines "word<TAB>what it is", and with the line ":files" where file names may stand. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/help.h"

#define NAMES_TIMEOUT_MS 1000u
#define NAMES_MAX 2000u
#define TASKS_MAX 50u /* nobody reads more while typing */

struct typing {
    const char *word;   /* what is typed so far */
    size_t skip;        /* of "--option=val": bytes before "val" */
    struct command_args *args;
    const struct command *command; /* __complete itself: its options reach the mesh */
    const char *what;   /* kind of names that is asked for */
    size_t count;
};

static void offer_len(struct typing *typing, const char *word, size_t len, const char *about)
{
    const char *typed = typing->word + typing->skip;
    if (strncmp(word, typed, strlen(typed) < len ? strlen(typed) : len) != 0 || strlen(typed) > len)
        return;
    char *line = print_line(about != NULL ? about : "", 60);
    printf("%.*s%.*s%s%s\n", (int)typing->skip, typing->word, (int)len, word, *line != '\0' ? "\t" : "", line);
    free(line);
    typing->count++;
}

static void offer(struct typing *typing, const char *word, const char *about)
{
    offer_len(typing, word, strlen(word), about);
}

/* ---- names from the mesh --------------------------------------------------------------------------------- */

static int on_agents(void *ctx, const Amp__EnvReply *reply)
{
    struct typing *typing = ctx;
    for (size_t i = 0; i < reply->n_agents; i++) {
        const Amp__AgentRecord *record = reply->agents[i];
        const Amp__AgentCard *card = record->card;
        if (strcmp(typing->what, "agents") == 0)
            offer(typing, record->name, card != NULL && card->description != NULL && strcmp(card->description, record->name) != 0 ? card->description : "");
        for (size_t j = 0; strcmp(typing->what, "skills") == 0 && card != NULL && j < card->n_skills; j++) {
            if (card->skills[j]->id != NULL && amp_id_is_valid(card->skills[j]->id))
                offer(typing, card->skills[j]->id, record->name);
        }
    }
    return typing->count < NAMES_MAX ? 0 : CLI_ENOUGH;
}

static int on_tasks(void *ctx, const Amp__EnvReply *reply)
{
    struct typing *typing = ctx;
    bool is_task = strcmp(typing->what, "tasks") == 0;
    for (size_t i = 0; i < reply->n_tasks; i++) {
        const Amp__TaskRecord *record = reply->tasks[i];
        const char *id = is_task ? record->task->id : record->task->context_id;
        if (id != NULL && amp_id_is_valid(id))
            offer(typing, id, record->asked);
    }
    return CLI_ENOUGH;
}

static int on_schedules(void *ctx, const Amp__EnvReply *reply)
{
    struct typing *typing = ctx;
    for (size_t i = 0; i < reply->n_schedules; i++) {
        const Amp__Schedule *schedule = reply->schedules[i];
        if (schedule->id != NULL && amp_id_is_valid(schedule->id))
            offer(typing, schedule->id, schedule->cron != NULL ? schedule->cron : schedule->state);
    }
    return typing->count < NAMES_MAX ? 0 : CLI_ENOUGH;
}

/* While somebody types no failure matters, and nothing is said about it. */
static void offer_names(struct typing *typing, const char *what)
{
    struct cli cli;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    Amp__AgentQuery agents = AMP__AGENT_QUERY__INIT;
    Amp__TaskQuery tasks = AMP__TASK_QUERY__INIT;
    Amp__ScheduleCommand schedules = AMP__SCHEDULE_COMMAND__INIT;
    struct amp_error err = {0};
    bool is_about_schedules = strcmp(what, "schedules") == 0;
    bool is_about_tasks = strcmp(what, "tasks") == 0 || strcmp(what, "contexts") == 0;
    typing->what = what;
    if (freopen("/dev/null", "w", stderr) == NULL)
        return;
    if (cli_open(&cli, typing->command, typing->args) == 0) {
        cli.timeout_ms = NAMES_TIMEOUT_MS;
        tasks.has_page_size = true;
        tasks.page_size = TASKS_MAX;
        request.verb_case = is_about_schedules ? AMP__ENV_REQUEST__VERB_SCHEDULE : is_about_tasks ? AMP__ENV_REQUEST__VERB_LIST : AMP__ENV_REQUEST__VERB_AGENTS;
        schedules.op = AMP__SCHEDULE_OP__SCHEDULE_LIST;
        if (is_about_schedules)
            request.schedule = &schedules;
        else if (is_about_tasks)
            request.list = &tasks;
        else
            request.agents = &agents;
        (void)cli_ask_pages(&cli, &request, is_about_schedules ? on_schedules : is_about_tasks ? on_tasks : on_agents, typing, &err);
    }
    cli_done(&cli);
}

/* ---- names from the tables ------------------------------------------------------------------------------- */

/* First words, each once: "task ls" and "task show" give "task". Of a group (`group` is its name): the second ones. */
static void offer_commands(struct typing *typing, const char *group)
{
    const struct command *commands[HELP_COMMANDS_MAX];
    size_t count = help_commands_list(commands, HELP_COMMANDS_MAX), len = group != NULL ? strlen(group) : 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = commands[i]->name;
        if (group != NULL && strncmp(name, group, len) == 0 && name[len] == ' ')
            offer(typing, name + len + 1, commands[i]->summary);
        else if (group == NULL && strchr(name, ' ') == NULL)
            offer(typing, name, commands[i]->summary);
    }
}

static void offer_options_of(struct typing *typing, const struct command_option *option)
{
    for (; option != NULL && option->name != NULL; option++) {
        char *word = xasprintf("--%s", option->name);
        offer(typing, word, option->help);
        free(word);
    }
}

/* "a|b|c" */
static void offer_choices(struct typing *typing, const char *choices)
{
    while (*choices != '\0') {
        size_t len = strcspn(choices, "|");
        offer_len(typing, choices, len, NULL);
        choices += len + (choices[len] == '|');
    }
}

static void offer_kind(struct typing *typing, const char *kind)
{
    if (kind == NULL)
        return;
    if (strcmp(kind, "files") == 0)
        puts(":files");
    else if (strcmp(kind, "commands") == 0)
        offer_commands(typing, NULL);
    else if (strchr(kind, '|') != NULL)
        offer_choices(typing, kind);
    else
        offer_names(typing, kind);
}

/* ---- where in the command line are we? ------------------------------------------------------------------- */

struct place {
    const struct command *row;           /* NULL: the command is still to be named */
    const struct command_option *wanted; /* the option whose value is being typed */
    const char *first;                   /* operand */
    size_t n_operands;
    bool is_foreign;                     /* behind "--" or in somebody else's command line */
};

static const struct command_option *find_option(const struct command *row, const char *word)
{
    const struct command_option *tables[] = {row != NULL ? row->options : NULL, command_common_options()};
    for (size_t i = 0; i < 2; i++) {
        for (const struct command_option *option = tables[i]; option != NULL && option->name != NULL; option++) {
            bool is_long = strncmp(word, "--", 2) == 0 && strncmp(word + 2, option->name, strcspn(word + 2, "=")) == 0 &&
                           option->name[strcspn(word + 2, "=")] == '\0';
            if (is_long || (option->letter != 0 && word[0] == '-' && word[1] == option->letter && word[2] == '\0'))
                return option;
        }
    }
    return NULL;
}

static void take_operand(struct place *place, const char *word)
{
    const struct command *row = NULL;
    if (place->row == NULL || (command_is_group(place->row) && place->n_operands == 0)) {
        char *name = place->row != NULL ? xasprintf("%s %s", place->row->name, word) : xstrdup(word);
        row = command_find(name);
        free(name);
    }
    if (row != NULL) {
        place->row = row;
        return;
    }
    if (place->n_operands++ == 0)
        place->first = word;
    bool is_run = place->row != NULL && !command_is_group(place->row) && place->row->operands != NULL && strstr(place->row->operands, "COMMAND") != NULL;
    place->is_foreign = place->is_foreign || (is_run && strcmp(place->row->name, "help") != 0);
}

/* All words but the last, which is the one being typed. Bash gives "--option=value" as three words. */
static struct place find_place(const char **words, size_t count)
{
    struct place place = {0};
    for (size_t i = 0; i + 1 < count; i++) {
        const char *word = words[i];
        const struct command_option *wanted = place.wanted;
        bool is_split = wanted != NULL && strcmp(word, "=") == 0;
        place.wanted = is_split ? wanted : NULL;
        if (wanted != NULL || place.is_foreign)
            continue;
        if (strcmp(word, "--") == 0) {
            place.is_foreign = true;
        } else if (word[0] == '-' && word[1] != '\0') {
            const struct command_option *option = find_option(place.row, word);
            place.wanted = option != NULL && option->arg != NULL && strchr(word, '=') == NULL ? option : NULL;
        } else {
            take_operand(&place, word);
        }
    }
    return place;
}

static void offer_operands(struct typing *typing, const struct place *place)
{
    const struct command *row = place->row;
    const struct command *named = place->first != NULL ? command_find(place->first) : NULL;
    if (row == NULL && place->n_operands == 0)
        offer_commands(typing, NULL);
    else if (row == NULL)
        return;
    else if (command_is_group(row) && place->n_operands == 0)
        offer_commands(typing, row->name);
    else if (place->n_operands == 0)
        offer_kind(typing, row->complete);
    else if (place->n_operands == 1 && row->complete != NULL && strcmp(row->complete, "commands") == 0 && named != NULL && command_is_group(named))
        offer_commands(typing, named->name);
}

int help_run_complete(const struct command *command, struct command_args *args)
{
    const char *word = args->n_rest > 0 ? args->rest[args->n_rest - 1] : "";
    struct place place = find_place(args->rest, args->n_rest);
    struct typing typing = {.word = word, .args = args, .command = command};
    const char *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    const struct command_option *option = equals != NULL && !place.is_foreign ? find_option(place.row, word) : NULL;
    if (place.wanted != NULL) {
        typing.word = strcmp(word, "=") == 0 ? "" : word;
        offer_kind(&typing, place.wanted->complete);
    } else if (place.is_foreign) {
        puts(":files");
    } else if (option != NULL) {
        typing.skip = (size_t)(equals - word) + 1;
        offer_kind(&typing, option->complete);
    } else if (word[0] == '-') {
        offer_options_of(&typing, place.row != NULL ? place.row->options : NULL);
        offer_options_of(&typing, command_common_options());
    } else {
        offer_operands(&typing, &place);
    }
    return 0;
}

/* ---- the scripts ----------------------------------------------------------------------------------------- */

static const struct {
    const char *shell, *script;
} scripts[] = {
    {"bash", "# bash completion of amesh; made by: amesh completion bash\n"
             "_amesh() {\n"
             "    local line cur=${COMP_WORDS[COMP_CWORD]}\n"
             "    [ \"$cur\" = = ] && cur=\n"
             "    COMPREPLY=()\n"
             "    while IFS= read -r line; do\n"
             "        if [ \"$line\" = :files ]; then\n"
             "            compopt -o filenames 2>/dev/null\n"
             "            while IFS= read -r line; do COMPREPLY+=(\"$line\"); done < <(compgen -f -- \"$cur\")\n"
             "        else\n"
             "            COMPREPLY+=(\"${line%%$'\\t'*}\")\n"
             "        fi\n"
             "    done < <(\"${1:-amesh}\" __complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
             "}\n"
             "complete -F _amesh amesh\n"},
    {"zsh", "#compdef amesh\n"
            "# zsh completion of amesh; made by: amesh completion zsh\n"
            "_amesh() {\n"
            "    local line files=0\n"
            "    local -a names\n"
            "    while IFS= read -r line; do\n"
            "        if [[ $line == :files ]]; then\n"
            "            files=1\n"
            "        else\n"
            "            names+=(\"${${line%%$'\\t'*}//:/\\\\:}:${${line#*$'\\t'}##${line%%$'\\t'*}}\")\n"
            "        fi\n"
            "    done < <(${(Q)words[1]} __complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
            "    (( ${#names} )) && _describe amesh names\n"
            "    if (( files )); then compset -P '--*='; _files; fi\n"
            "}\n"
            "if [ \"$funcstack[1]\" = _amesh ]; then _amesh \"$@\"; else compdef _amesh amesh; fi\n"},
    {"fish", "# fish completion of amesh; made by: amesh completion fish\n"
             "function __amesh_complete\n"
             "    set -l words (commandline -opc)\n"
             "    set -l word (commandline -ct)\n"
             "    for line in ($words[1] __complete -- $words[2..-1] \"$word\" 2>/dev/null)\n"
             "        if test \"$line\" = :files\n"
             "            __fish_complete_path (string replace -r -- '^--[^=]*=' '' \"$word\")\n"
             "        else\n"
             "            printf '%s\\n' $line\n"
             "        end\n"
             "    end\n"
             "end\n"
             "complete -c amesh -f -a '(__amesh_complete)'\n"},
};

int help_run_completion(const struct command *command, struct command_args *args)
{
    struct cli cli;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 1, 1);
    if (status == 0) {
        status = -1;
        for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
            if (strcmp(args->rest[0], scripts[i].shell) == 0) {
                fputs(scripts[i].script, stdout);
                status = 0;
            }
        }
    }
    if (status < 0)
        status = cli_usage(&cli, "there is no completion for \"%s\": bash, zsh or fish", args->rest[0]);
    cli_done(&cli);
    return status;
}
