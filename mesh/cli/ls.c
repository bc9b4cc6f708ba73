/* amesh ls, amesh show. */
#include <cjson/cJSON.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bus.h"
#include "base/clock.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "cli/agents.h"
#include "cli/away.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/error.h"
#include "cli/guess.h"
#include "cli/output.h"

#define NO_VERSION "0.0.0" /* of a card that tells none */
#define WATCH_SETTLE_MS 50u     /* beats that come together are shown together */
#define WATCH_AWAY_MS 500u     /* an environment that was away is asked again so soon */
#define WATCH_REFRESH_MS 5000u  /* silence is news too: instances get lost */

struct ls {
    struct cli cli;
    Amp__AgentQuery query;
    Amp__EnvRequest request;
    struct loop_timer *refresh;
    struct env_call *call;
    char *token; /* of the page that is asked for, while watching */
    cJSON *agents; /* gathered: the document's, or */
    struct print_table table;
    char *last; /* what was shown, to show only what changed */
    struct away away; /* while watching */
};

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

static void gather_begin(struct ls *ls)
{
    static const char *const columns[] = {"NAME", "STATE", "INSTANCES", "SLOTS", "FREE", "INFLIGHT", "SKILLS", "DESCRIPTION"};
    print_table_init(&ls->table, columns, 8);
    ls->agents = cJSON_CreateArray();
}

static void gather_end(struct ls *ls)
{
    cJSON_Delete(ls->agents);
    ls->agents = NULL;
    print_table_done(&ls->table);
}

static int on_agents(void *ctx, const Amp__EnvReply *reply)
{
    struct ls *ls = ctx;
    for (size_t i = 0; i < reply->n_agents; i++) {
        add_row(&ls->table, reply->agents[i]);
        cJSON_AddItemToArray(ls->agents, agents_json(reply->agents[i], true));
    }
    return 0;
}

static void print_agents(struct ls *ls)
{
    if (ls->cli.is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddItemToObject(json, "agents", ls->agents);
        ls->agents = NULL;
        output_json(stdout, json);
    } else if (ls->table.n_rows == 0) {
        fprintf(stderr, "no agents%s. Put one on the mesh: amesh run --name up -- tr a-z A-Z\n",
                ls->query.skill != NULL || ls->query.n_tags > 0 ? " of this kind" : "");
    } else {
        print_table_write(stdout, &ls->cli.out, &ls->table, 1);
    }
}

static int list_agents(struct ls *ls)
{
    gather_begin(ls);
    int status = cli_request_pages(&ls->cli, &ls->request, on_agents, ls);
    if (status == 0)
        print_agents(ls);
    gather_end(ls);
    return status;
}

/* ---- --watch ---------------------------------------------------------------------------------------- */

/* What people would call a change: not the moment of the last beat. */
static char *fingerprint(const cJSON *agents)
{
    cJSON *copy = cJSON_Duplicate(agents, true), *agent = NULL;
    cJSON_ArrayForEach(agent, copy)
    {
        cJSON *instance = NULL;
        cJSON_ArrayForEach(instance, cJSON_GetObjectItem(agent, "instances"))
        {
            cJSON_DeleteItemFromObject(instance, "seen");
            cJSON_DeleteItemFromObject(instance, "last_progress");
        }
    }
    char *text = cJSON_PrintUnformatted(copy);
    char *print = xstrdup(text != NULL ? text : "");
    cJSON_free(text);
    cJSON_Delete(copy);
    return print;
}

static void show_if_changed(struct ls *ls)
{
    char *now = fingerprint(ls->agents);
    if (ls->last != NULL && strcmp(now, ls->last) == 0) {
        free(now);
        return;
    }
    if (ls->cli.out.is_terminal && !ls->cli.is_json)
        fputs("\x1b[H\x1b[2J", stdout);
    else if (!ls->cli.is_json && ls->last != NULL)
        fputc('\n', stdout);
    print_agents(ls);
    free(ls->last);
    ls->last = now;
    if (output_is_lost())
        loop_stop(ls->cli.loop, amp_code_info(AMP_INTERRUPTED)->exit);
}

static void ask_page(struct ls *ls);

/* On a terminal what was said about the loss stands below the table: after it all is drawn anew. */
static void take_away(struct ls *ls, const struct amp_error *err)
{
    bool was_away = ls->away.is_away;
    away_answer(&ls->away, err);
    if (was_away && !ls->away.is_away && ls->cli.out.is_terminal) {
        free(ls->last);
        ls->last = NULL;
    }
}

static void on_watched(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct ls *ls = ctx;
    bool has_more = err->code == AMP_OK && reply->next_page_token != NULL && *reply->next_page_token != '\0';
    ls->call = NULL;
    free(ls->token);
    ls->token = has_more ? xstrdup(reply->next_page_token) : NULL;
    take_away(ls, err); /* the environment may come back: it is said, and goes on */
    if (err->code == AMP_OK)
        on_agents(ls, reply);
    if (has_more) {
        ask_page(ls);
        return;
    }
    if (err->code == AMP_OK)
        show_if_changed(ls);
    gather_end(ls);
    loop_timer_set(ls->refresh, ls->away.is_away ? WATCH_AWAY_MS : WATCH_REFRESH_MS);
}

static void ask_page(struct ls *ls)
{
    char first[] = "";
    ls->query.page_token = ls->token != NULL ? ls->token : first;
    enum amp_code code = env_call(ls->cli.loop, ls->cli.bus, ls->cli.from, &ls->request, ls->cli.timeout_ms, on_watched, ls, &ls->call);
    ls->query.page_token = NULL; /* it is on its way */
    if (code != AMP_OK) {
        ls->call = NULL;
        gather_end(ls);
        take_away(ls, &(struct amp_error){.code = code});
        loop_timer_set(ls->refresh, WATCH_AWAY_MS);
    }
}

static void on_refresh(void *ctx)
{
    struct ls *ls = ctx;
    if (ls->call != NULL) {
        loop_timer_set(ls->refresh, WATCH_SETTLE_MS);
        return;
    }
    gather_begin(ls);
    ask_page(ls);
}

static void on_beat(void *ctx, const struct bus_msg *msg)
{
    struct ls *ls = ctx;
    loop_timer_set(ls->refresh, WATCH_SETTLE_MS);
}

/* Beats are not waited for: nobody may have one to send. */
static void on_link(void *ctx, bool is_up)
{
    struct ls *ls = ctx;
    if (ls->refresh == NULL)
        return;
    if (!is_up)
        away_lost(&ls->away, "the bus is away");
    loop_timer_set(ls->refresh, WATCH_SETTLE_MS);
}

static int watch_agents(struct ls *ls)
{
    char subject[AMP_SUBJECT_SIZE];
    struct amp_error err = {0};
    if (amp_subject_build(AMP_SUBJECT_HB, "*", "*", NULL, subject, &err) != AMP_OK)
        return cli_fail(&ls->cli, &err, NULL);
    away_init(&ls->away, &ls->cli, "what is shown may be old");
    ls->refresh = loop_timer_new(ls->cli.loop, on_refresh, ls);
    struct bus_sub *beats = bus_subscribe(ls->cli.bus, subject, NULL, on_beat, ls);
    struct output_until until;
    output_until_begin(ls->cli.loop, &until);
    loop_timer_set(ls->refresh, 0);
    int status = loop_run(ls->cli.loop);
    output_until_end(&until);
    bus_unsubscribe(beats, false);
    if (ls->call != NULL)
        gather_end(ls);
    env_call_cancel(ls->call);
    free(ls->token);
    loop_timer_free(ls->refresh);
    ls->refresh = NULL;
    free(ls->last);
    return status;
}

static int run_ls(const struct command *command, struct command_args *args)
{
    struct ls ls = {.query = AMP__AGENT_QUERY__INIT, .request = AMP__ENV_REQUEST__INIT};
    int status = cli_init(&ls.cli, command, args);
    if (status == 0)
        status = cli_operands(&ls.cli, 0, 0);
    const char *skill = command_value(command, args, "skill");
    if (status == 0 && skill != NULL)
        status = cli_id(&ls.cli, "the skill", skill);
    ls.cli.on_link = on_link;
    ls.cli.link_ctx = &ls;
    if (status == 0)
        status = cli_connect(&ls.cli);
    if (status == 0) {
        const char **tags = command_values(command, args, "tag");
        ls.query.skill = (char *)skill;
        ls.query.tags = (char **)tags;
        while (tags != NULL && tags[ls.query.n_tags] != NULL)
            ls.query.n_tags++;
        ls.request.verb_case = AMP__ENV_REQUEST__VERB_AGENTS;
        ls.request.agents = &ls.query;
        status = command_flag(command, args, "watch") ? watch_agents(&ls) : list_agents(&ls);
    }
    cli_done(&ls.cli);
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
            print_duration(clock_unix_ms() - beat->since->unix_ms, since);
        const char *cells[] = {beat->instance, agents_state_name(beat->state), beat->host, pid, sidecar, slots, free_slots, inflight, since};
        print_table_add(&table, cells);
    }
    printf("\n");
    if (record->n_instances == 0)
        printf("no instances\n");
    else
        print_table_write(stdout, &cli->out, &table, 1);
    print_table_done(&table);
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
