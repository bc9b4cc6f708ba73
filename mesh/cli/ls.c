/* amesh ls, amesh show. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cli/agents.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/error.h"
#include "cli/guess.h"
#include "cli/ls.h"
#include "cli/output.h"

#define NO_VERSION "0.0.0" /* of a card that tells none */

/* What was made from the name because nobody said anything says nothing. */
static bool is_telling(const char *text, const char *name)
{
    return text != NULL && *text != '\0' && strcmp(text, name) != 0;
}

/* Has it skills of its own? A card that has none is given one of the agent's name and description. */
static bool has_skills(const Amp__AgentRecord *record)
{
    const Amp__AgentCard *card = record->card;
    if (card == NULL || card->n_skills != 1)
        return card != NULL && card->n_skills > 1;
    const Amp__AgentSkill *only = card->skills[0];
    bool is_described = is_telling(only->description, record->name) && is_telling(only->description, card->description != NULL ? card->description : "");
    return is_telling(only->id, record->name) || is_described;
}

static char *skills_text(const Amp__AgentRecord *record)
{
    char *text = xstrdup("");
    for (size_t i = 0; has_skills(record) && i < record->card->n_skills; i++) {
        const char *id = record->card->skills[i]->id != NULL ? record->card->skills[i]->id : "?";
        char *longer = xasprintf("%s%s%s", text, i > 0 ? "," : "", id);
        free(text);
        text = longer;
    }
    return text;
}

static void add_row(struct print_table *table, const Amp__AgentRecord *record)
{
    struct agents_load load = agents_load(record);
    char numbers[4][16];
    const uint32_t values[] = {load.instances, load.slots, load.free, load.inflight};
    for (int j = 0; j < 4; j++)
        snprintf(numbers[j], sizeof numbers[j], "%u", values[j]);
    char *skills = skills_text(record);
    const char *told = record->card != NULL && is_telling(record->card->description, record->name) ? record->card->description : "";
    char *description = print_line(told, 60);
    const char *cells[] = {record->name, agents_state(record), numbers[0], numbers[1], numbers[2], numbers[3], skills, description};
    print_table_add(table, cells);
    free(skills);
    free(description);
}

void ls_list_begin(struct ls_list *list)
{
    static const char *const columns[] = {"NAME", "STATE", "INSTANCES", "SLOTS", "FREE", "INFLIGHT", "SKILLS", "DESCRIPTION"};
    print_table_init(&list->table, columns, 8);
    list->agents = cJSON_CreateArray();
}

void ls_list_add(struct ls_list *list, const struct cli *cli, const Amp__AgentRecord *record)
{
    if (cli->is_json)
        cJSON_AddItemToArray(list->agents, agents_json(record, true));
    else
        add_row(&list->table, record);
}

void ls_list_print(struct ls_list *list, const struct cli *cli, bool is_of_a_kind)
{
    if (cli->is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddItemToObject(json, "agents", list->agents);
        list->agents = NULL;
        output_json(stdout, json);
    } else if (list->table.n_rows == 0) {
        fprintf(stderr, "no agents%s. Put one on the mesh: amesh run --name up -- tr a-z A-Z\n", is_of_a_kind ? " of this kind" : "");
    } else {
        print_table_write(stdout, &cli->out, &list->table, 1);
    }
    cJSON_Delete(list->agents);
    list->agents = NULL;
    print_table_done(&list->table);
}

struct listing {
    const struct cli *cli;
    struct ls_list list;
};

static int on_agents(void *ctx, const Amp__EnvReply *reply)
{
    struct listing *listing = ctx;
    for (size_t i = 0; i < reply->n_agents; i++)
        ls_list_add(&listing->list, listing->cli, reply->agents[i]);
    return 0;
}

static int list_agents(struct cli *cli, Amp__EnvRequest *request)
{
    struct listing listing = {.cli = cli};
    ls_list_begin(&listing.list);
    int status = cli_request_pages(cli, request, on_agents, &listing);
    if (status == 0) {
        ls_list_print(&listing.list, cli, ls_is_of_a_kind(request->agents));
    } else {
        cJSON_Delete(listing.list.agents);
        print_table_done(&listing.list.table);
    }
    return status;
}

bool ls_is_of_a_kind(const Amp__AgentQuery *query)
{
    return query->skill != NULL || query->n_tags > 0;
}

static int run_ls(const struct command *command, struct command_args *args)
{
    struct cli cli;
    Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 0, 0);
    query.skill = (char *)command_value(command, args, "skill");
    if (status == 0 && query.skill != NULL)
        status = cli_id(&cli, "the skill", query.skill);
    if (status == 0) {
        query.tags = (char **)command_values(command, args, "tag");
        while (query.tags != NULL && query.tags[query.n_tags] != NULL)
            query.n_tags++;
        request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
        request.agents = &query;
        if (command_flag(command, args, "watch"))
            status = ls_watch(&cli, &query);
        else if ((status = cli_connect(&cli)) == 0)
            status = list_agents(&cli, &request);
    }
    cli_done(&cli);
    return status;
}

/* ---- show ------------------------------------------------------------------------------------------- */

static void print_card(const struct cli *cli, const Amp__AgentRecord *record)
{
    const Amp__AgentCard *card = record->card;
    const char *state = agents_state(record);
    printf("%s%s%s  %s%s%s\n", print_on(&cli->out, PRINT_BOLD), record->name, print_off(&cli->out), print_on(&cli->out, print_state_color(state)),
           state, print_off(&cli->out));
    if (card == NULL)
        return;
    if (is_telling(card->description, record->name)) {
        char *line = print_line(card->description, 0);
        printf("%s\n", line);
        free(line);
    }
    if (card->version != NULL && strcmp(card->version, NO_VERSION) != 0) {
        char *line = print_line(card->version, 40);
        printf("version %s\n", line);
        free(line);
    }
    for (size_t i = 0; has_skills(record) && i < card->n_skills; i++) {
        const char *skill = card->skills[i]->id != NULL ? card->skills[i]->id : "?", *told = card->skills[i]->description;
        char *id = print_line(skill, 64);
        char *text = print_line(is_telling(told, skill) ? told : "", 100);
        printf("skill %s%s%s\n", id, *text != '\0' ? ": " : "", text);
        free(id);
        free(text);
    }
}

static void print_stuck(const Amp__AgentRecord *record)
{
    for (size_t i = 0; i < record->n_instances; i++) {
        const Amp__Beat *beat = record->instances[i]->beat;
        char *why = print_line(beat->stuck != NULL ? beat->stuck : "", 100);
        if (*why != '\0')
            printf("\n%s takes nothing: %s\n", beat->instance, why);
        free(why);
    }
}

/* One that is not there any more was up until it was last seen. */
static int64_t up_until(const Amp__Instance *instance)
{
    Amp__InstanceState state = instance->beat->state;
    bool is_over = state == AMP__INSTANCE_STATE__INSTANCE_STATE_GONE || state == AMP__INSTANCE_STATE__INSTANCE_STATE_LOST;
    return is_over && instance->seen != NULL ? instance->seen->unix_ms : clock_unix_ms();
}

static void print_instances(const struct cli *cli, const Amp__AgentRecord *record)
{
    static const char *const columns[] = {"INSTANCE", "STATE", "HOST", "PID", "SIDECAR", "SLOTS", "FREE", "INFLIGHT", "UP FOR"};
    struct print_table table;
    print_table_init(&table, columns, 9);
    for (size_t i = 0; i < record->n_instances; i++) {
        const Amp__Beat *beat = record->instances[i]->beat;
        char pid[16] = "", sidecar[16] = "", slots[16], free_slots[16], inflight[16], since[PRINT_SHORT_SIZE] = "";
        if (beat->has_pid && beat->pid > 0)
            snprintf(pid, sizeof pid, "%d", (int)beat->pid);
        if (beat->has_sidecar_pid)
            snprintf(sidecar, sizeof sidecar, "%d", (int)beat->sidecar_pid);
        snprintf(slots, sizeof slots, "%u", beat->slots);
        snprintf(free_slots, sizeof free_slots, "%u", beat->free);
        snprintf(inflight, sizeof inflight, "%u", beat->inflight);
        if (beat->since != NULL)
            print_duration(up_until(record->instances[i]) - beat->since->unix_ms, since);
        const char *cells[] = {beat->instance, agents_beat_state(beat), beat->host, pid, sidecar, slots, free_slots, inflight, since};
        print_table_add(&table, cells);
    }
    printf("\n");
    if (record->n_instances == 0)
        printf("no instances\n");
    else
        print_table_write(stdout, &cli->out, &table, 1);
    print_table_done(&table);
    print_stuck(record);
}

static int on_agent(void *ctx, const Amp__EnvReply *reply)
{
    struct cli *cli = ctx;
    const char *name = cli->args->rest[0];
    const Amp__AgentRecord *record = NULL;
    for (size_t i = 0; i < reply->n_agents; i++) {
        if (strcmp(reply->agents[i]->name, name) == 0)
            record = reply->agents[i];
    }
    if (record == NULL)
        return -1; /* the caller says it: it may guess what was meant */
    if (cli->is_json) {
        output_json(stdout, agents_json(record, false));
        return 0;
    }
    print_card(cli, record);
    print_instances(cli, record);
    if (record->n_deaths > 0)
        printf("\ndeaths, newest first\n");
    for (size_t i = 0; i < record->n_deaths; i++)
        error_print_death(stdout, &cli->out, record->deaths[i], "  ");
    return 0;
}

static int run_show(const struct command *command, struct command_args *args)
{
    struct cli cli;
    int status = cli_init(&cli, command, args);
    if (status == 0)
        status = cli_operands(&cli, 1, 1);
    if (status == 0)
        status = cli_id(&cli, "the agent", args->rest[0]);
    if (status == 0)
        status = cli_connect(&cli);
    if (status == 0) {
        Amp__AgentQuery query = AMP__AGENT_QUERY__INIT;
        Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
        query.name = (char *)args->rest[0];
        query.has_deaths = query.deaths = true;
        request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
        request.agents = &query;
        struct amp_error err = {0};
        status = cli_ask_env(&cli, &request, on_agent, &cli, &err);
        if (status < 0 || err.code == AMP_NO_SUCH_AGENT) {
            amp_error_set(&err, AMP_NO_SUCH_AGENT, "", "agent %s is not on the mesh and was not seen before", args->rest[0]);
            status = guess_fail(&cli, &err, args->rest[0], NULL);
        } else if (err.code != AMP_OK) {
            status = cli_fail(&cli, &err, NULL);
        }
    }
    cli_done(&cli);
    return status;
}

static const struct command_option ls_options[] = {
    {.name = "skill", .letter = 's', .arg = "S", .help = "only agents with this skill", .complete = "skills"},
    {.name = "tag", .arg = "K=V", .help = "only agents with this tag", .is_repeatable = true},
    {.name = "watch", .letter = 'w', .help = "show it again after each change, until interrupted; with --json one document per line"},
    {0},
};
static const struct command_option show_options[] = {{0}};

const struct command agent_commands[] = {
    {.name = "ls",
     .operands = "",
     .summary = "list the agents on the mesh",
     .details = "One line per agent: state, instances, slots, free slots, tasks in flight, skills.\n\nExamples:\n  amesh ls --skill translate\n  amesh ls --watch",
     .options = ls_options,
     .run = run_ls},
    {.name = "show",
     .operands = "AGENT",
     .summary = "show an agent: card, instances, deaths",
     .details = "Deaths say why each process of the agent ended: exit code or signal, out of memory or not, its last lines of stderr, what it used, "
                "and the tasks it was working on.\n\nExamples:\n  amesh show up\n  amesh show up --json",
     .options = show_options,
     .run = run_show,
     .complete = "agents"},
    {0},
};
