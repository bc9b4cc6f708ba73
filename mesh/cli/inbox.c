/* amesh inbox: every question that waits for an answer. With --watch the list is looked at again and again, and what changes is told. */
#include <assert.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/envcall.h"
#include "base/loop.h"
#include "cli/away.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/inbox.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/question.h"

#define WATCH_MS 500u

struct seen { /* a question that has been told */
    UT_hash_handle hh;
    uint64_t round; /* the last in which it was there */
    char id[];
};

struct inbox {
    struct cli cli;
    Amp__InboxQuery query;
    cJSON *questions;
    struct print_table table;
    uint32_t shown;
    /* --watch */
    struct env_call *call;
    struct loop_timer *timer;
    struct seen *seen;
    uint64_t round;
    char *token;
    struct away away;
};

/* ---- one question ------------------------------------------------------------------------------------------ */

static void add_text(cJSON *json, const char *name, const char *text)
{
    if (text != NULL)
        cJSON_AddStringToObject(json, name, text);
}

cJSON *inbox_json(const Amp__Question *question)
{
    cJSON *json = cJSON_CreateObject(), *form = question_form(question);
    const cJSON *each;
    add_text(json, "id", question->id);
    add_text(json, "taskId", question->task_id);
    add_text(json, "contextId", question->context_id);
    add_text(json, "agent", question->agent);
    add_text(json, "from", question->from);
    add_text(json, "request", question->request);
    cJSON_ArrayForEach(each, form) cJSON_AddItemToObject(json, each->string, cJSON_Duplicate(each, true));
    json_add_time(json, "askedAt", question->asked != NULL ? question->asked->unix_ms : 0);
    json_add_time(json, "expiresAt", question->expires != NULL ? question->expires->unix_ms : 0);
    cJSON_AddBoolToObject(json, "durable", question->has_durable && question->durable);
    if (question->has_attempt)
        cJSON_AddNumberToObject(json, "attempt", question->attempt);
    cJSON_AddBoolToObject(json, "away", question->has_away && question->away);
    cJSON_Delete(form);
    return json;
}

static void add_row(struct inbox *inbox, const Amp__Question *question)
{
    char age[PRINT_SHORT_SIZE] = "", left[PRINT_SHORT_SIZE] = "-";
    int64_t now = clock_unix_ms();
    cJSON *form = question_form(question);
    const char *prompt = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(form, "prompt"));
    char *options = question_short(form), *text = xasprintf("%s%s", prompt != NULL ? prompt : "", options);
    if (question->asked != NULL)
        print_duration(now - question->asked->unix_ms, age);
    if (question->expires != NULL)
        print_duration(question->expires->unix_ms > now ? question->expires->unix_ms - now : 0, left);
    const char *cells[] = {question->id, question->task_id, question->agent, question->from, age, left, text};
    print_table_add(&inbox->table, cells);
    free(options);
    free(text);
    cJSON_Delete(form);
}

/* ---- the list ------------------------------------------------------------------------------------------------ */

static int on_page(void *ctx, const Amp__EnvReply *reply)
{
    struct inbox *inbox = ctx;
    for (size_t i = 0; i < reply->n_questions; i++) {
        inbox->shown++;
        if (inbox->cli.is_json)
            cJSON_AddItemToArray(inbox->questions, inbox_json(reply->questions[i]));
        else
            add_row(inbox, reply->questions[i]);
    }
    return 0;
}

static int list(struct inbox *inbox)
{
    static const char *const columns[] = {"QUESTION", "TASK", "AGENT", "FROM", "AGE", "EXPIRES IN", "TEXT"};
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    request.verb_case = AMP__ENV_REQUEST__VERB_INBOX;
    request.inbox = &inbox->query;
    print_table_init(&inbox->table, columns, 7);
    inbox->questions = cJSON_CreateArray();
    int status = cli_request_pages(&inbox->cli, &request, on_page, inbox);
    if (status == 0 && inbox->cli.is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddItemToObject(json, "questions", inbox->questions);
        inbox->questions = NULL;
        output_json(stdout, json);
    } else if (status == 0 && inbox->shown == 0) {
        fprintf(stderr, "no questions wait for an answer\n");
    } else if (status == 0) {
        print_table_write(stdout, &inbox->cli.out, &inbox->table, -1);
        fprintf(stderr, "Answer with: amesh answer QUESTION TEXT\n");
    }
    cJSON_Delete(inbox->questions);
    print_table_done(&inbox->table);
    return status;
}

/* ---- --watch ---------------------------------------------------------------------------------------------------- */

static void ask_again(struct inbox *inbox);

static void tell_asked(struct inbox *inbox, const Amp__Question *question)
{
    cJSON *form = question_form(question);
    if (inbox->cli.is_json) {
        cJSON *json = inbox_json(question);
        cJSON_AddStringToObject(json, "event", "asked");
        output_json(stdout, json);
    } else {
        char *prompt = print_line(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(form, "prompt")), 0), *short_options = question_short(form);
        char *options = print_line(short_options, 0);
        printf("%s asks (%s): %s%s\n", question->agent != NULL ? question->agent : "an agent", question->id, prompt, options);
        free(prompt);
        free(short_options);
        free(options);
    }
    cJSON_Delete(form);
}

static void tell_closed(struct inbox *inbox, const char *id)
{
    if (inbox->cli.is_json) {
        cJSON *json = cJSON_CreateObject();
        cJSON_AddStringToObject(json, "event", "closed");
        cJSON_AddStringToObject(json, "id", id);
        output_json(stdout, json);
    } else {
        printf("closed: %s\n", id);
    }
}

static void see(struct inbox *inbox, const Amp__Question *question)
{
    struct seen *seen;
    HASH_FIND_STR(inbox->seen, question->id, seen);
    if (seen == NULL) {
        size_t len = strlen(question->id);
        seen = xcalloc(1, sizeof *seen + len + 1);
        memcpy(seen->id, question->id, len);
        HASH_ADD_KEYPTR(hh, inbox->seen, seen->id, len, seen);
        tell_asked(inbox, question);
    }
    seen->round = inbox->round;
}

static void forget_closed(struct inbox *inbox, bool is_all)
{
    struct seen *seen, *next;
    HASH_ITER(hh, inbox->seen, seen, next) {
        if (!is_all && seen->round == inbox->round)
            continue;
        if (!is_all)
            tell_closed(inbox, seen->id);
        assert(inbox->seen != NULL);
        HASH_DEL(inbox->seen, seen);
        free(seen);
    }
}

/* An environment that is away, or being restarted, comes back: watching goes on. */
static void on_watched(void *ctx, const Amp__EnvReply *reply, const struct amp_error *err)
{
    struct inbox *inbox = ctx;
    inbox->call = NULL;
    free(inbox->token);
    inbox->token = NULL;
    away_answer(&inbox->away, err);
    for (size_t i = 0; err->code == AMP_OK && i < reply->n_questions; i++)
        see(inbox, reply->questions[i]);
    if (err->code == AMP_OK && reply->next_page_token != NULL && *reply->next_page_token != '\0') {
        inbox->token = xstrdup(reply->next_page_token);
        ask_again(inbox);
        return;
    }
    if (err->code == AMP_OK)
        forget_closed(inbox, false);
    fflush(stdout);
    if (output_is_lost())
        loop_stop(inbox->cli.loop, amp_code_info(AMP_INTERRUPTED)->exit);
    loop_timer_set(inbox->timer, WATCH_MS);
}

static void ask_again(struct inbox *inbox)
{
    Amp__EnvRequest request = AMP__ENV_REQUEST__INIT;
    request.verb_case = AMP__ENV_REQUEST__VERB_INBOX;
    request.inbox = &inbox->query;
    inbox->query.page_token = inbox->token;
    enum amp_code code = env_call(inbox->cli.loop, inbox->cli.bus, inbox->cli.from, &request, inbox->cli.timeout_ms, on_watched, inbox, &inbox->call);
    if (code != AMP_OK) {
        inbox->call = NULL;
        away_answer(&inbox->away, &(struct amp_error){.code = code});
        loop_timer_set(inbox->timer, WATCH_MS);
    }
}

static void on_timer(void *ctx)
{
    struct inbox *inbox = ctx;
    inbox->round++;
    ask_again(inbox);
}

static int watch(struct inbox *inbox)
{
    struct output_until until;
    away_init(&inbox->away, &inbox->cli, "what is asked and answered meanwhile is told then");
    inbox->timer = loop_timer_new(inbox->cli.loop, on_timer, inbox);
    loop_timer_set(inbox->timer, 0);
    output_until_begin(inbox->cli.loop, &until);
    int status = loop_run(inbox->cli.loop);
    output_until_end(&until);
    env_call_cancel(inbox->call);
    loop_timer_free(inbox->timer);
    forget_closed(inbox, true);
    free(inbox->token);
    return status;
}

static int run_inbox(const struct command *command, struct command_args *args)
{
    struct inbox inbox = {.query = AMP__INBOX_QUERY__INIT};
    int status = cli_init(&inbox.cli, command, args);
    inbox.query.agent = (char *)command_value(command, args, "agent");
    inbox.query.context_id = (char *)command_value(command, args, "context");
    if (status == 0)
        status = cli_operands(&inbox.cli, 0, 0);
    if (status == 0 && inbox.query.agent != NULL)
        status = cli_id(&inbox.cli, "the agent", inbox.query.agent);
    if (status == 0 && inbox.query.context_id != NULL)
        status = cli_id(&inbox.cli, "the context", inbox.query.context_id);
    if (status == 0)
        status = cli_connect(&inbox.cli);
    if (status == 0)
        status = command_flag(command, args, "watch") ? watch(&inbox) : list(&inbox);
    cli_done(&inbox.cli);
    return status;
}

static const struct command_option inbox_options[] = {
    {.name = "agent", .letter = 'a', .arg = "A", .help = "only questions of this agent", .complete = "agents"},
    {.name = "context", .letter = 'c', .arg = "C", .help = "only questions of this conversation", .complete = "contexts"},
    {.name = "watch", .letter = 'w', .help = "go on: tell each question when it is asked, and when it is answered or closed"},
    {0},
};

const struct command inbox_commands[] = {
    {.name = "inbox",
     .operands = "",
     .summary = "list the questions of agents that wait for an answer",
     .details = "Oldest first, of durable tasks and of direct calls that the environment sees. A question of a durable task is kept through restarts of everything; the answer too.\n\nWith "
                "--json {\"questions\":[…]}; with --json --watch one line for each question, with \"event\":\"asked\", and {\"event\":\"closed\",\"id\":…}.\n\nExamples:\n  amesh inbox\n  amesh "
                "inbox --agent deployer --json\n  amesh inbox --watch",
     .options = inbox_options,
     .run = run_inbox},
    {.name = "answer",
     .operands = "QUESTION|TASK [TEXT]",
     .summary = "answer a question of an agent",
     .details = "QUESTION is an id of `amesh inbox`; of a task that asks one thing only, the task will do. TEXT may be an option, by its value, label or number, JSON where the question wants "
                "it, or - for standard input. On a terminal without a TEXT the question is asked here.\n\nThe answer to a durable task is taken when it is written down, whether its agent is "
                "there or not. Exit code 2: the answer is not what the question wants; 4: no such question; 8: it is answered already, or its time is over.\n\nExamples:\n  amesh answer "
                "q-01hq3c yes\n  amesh answer q-01hq3c --option 2\n  amesh answer q-01hq3c --json-value '{\"count\":3}'",
     .options = answer_options,
     .run = inbox_run_answer},
    {0},
};
