#include "cli/ask.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/blob_store.h"
#include "base/call.h"
#include "base/clock.h"
#include "cli/commands.h"
#include "cli/message.h"

#define ENV_WAIT_MIN_MS 1000u /* for an answer of the environment, however short the time for the task is */

static const struct command_option ask_options[] = {
    {.name = "skill", .letter = 's', .arg = "S", .help = "ask whoever has this skill, instead of an agent by name", .complete = "skills"},
    {.name = "file", .letter = 'f', .arg = "F", .help = "attach a file", .is_repeatable = true, .complete = "files"},
    {.name = "output", .letter = 'o', .arg = "DIR", .help = "write the files of the answer there; the directory is made", .complete = "files"},
    {.name = "context", .letter = 'c', .arg = "C", .help = "conversation that the task belongs to", .complete = "contexts"},
    {.name = "task", .letter = 't', .arg = "T", .help = "answer this task, which waits for input", .complete = "tasks"},
    {.name = "durable", .letter = 'd', .help = "through the environment: journalled, retried, survives this command"},
    {.name = "detach", .help = "durable; print the task's id and return"},
    {.name = "key", .arg = "K", .help = "durable; the same key again gives the same task"},
    {.name = "retry", .arg = "HOW", .help = "when the instance that works on it is lost: safe (another one tries again; without --durable only as long as nothing was said) or never (default: durable tasks are tried again, direct calls where the agent says --retry safe)", .complete = "safe|never"},
    {.name = "at", .arg = "TIME", .help = "durable; start then: 09:00, \"2026-12-01 09:00\", 2026-12-01T09:00:00Z or +90s; prints the task's id and returns"},
    {.name = "in", .arg = "TIME", .help = "the same as a time from now, such as 5m"},
    {.name = "every", .arg = "TIME", .help = "again and again, this often (at least 1s), first after that time or at --at; prints the schedule's id"},
    {.name = "cron", .arg = "EXPR", .help = "again and again, as \"*/15 9-17 * * mon-fri\" or @daily say; prints the schedule's id"},
    {.name = "tz", .arg = "ZONE", .help = "of --at and --cron, such as Europe/Berlin or UTC; else --at goes by this machine's clocks, --cron by the environment's"},
    {.name = "overlap", .arg = "HOW", .help = "when the run before has not ended: skip (default), queue or allow", .complete = "skip|queue|allow"},
    {.name = "count", .arg = "N", .help = "with --every or --cron: at most N runs"},
    {.name = "until", .arg = "TIME", .help = "with --every or --cron: none after that, written as for --at"},
    {.name = "timeout", .arg = "TIME", .help = "time for the whole task, such as 30s"},
    {.name = "no-wait", .help = "do not wait for a free instance (durable, also with --at and --in: for room in the environment): exit 7"},
    {.name = "priority", .arg = "P", .help = "before or behind others that wait for a free instance: high, normal or low", .complete = "high|normal|low"},
    {.name = "events", .letter = 'e', .help = "print each event as one JSON line"},
    {.name = "verbose", .letter = 'v', .help = "tell tool calls, steps and who took the task, on stderr"},
    {0},
};

static bool has(const struct ask *ask, const char *option)
{
    return command_flag(ask->cli.command, ask->cli.args, option);
}

static const char *value(const struct ask *ask, const char *option)
{
    return command_value(ask->cli.command, ask->cli.args, option);
}

/* Inside a task of an agent the call belongs to that task: parent, context and the agents above, so that circles are seen. */
static void read_surroundings(struct ask *ask)
{
    const char *parent = getenv("AMESH_TASK"), *above = getenv("AMESH_PATH"), *agent = getenv("AMESH_AGENT"), *root = getenv("AMESH_ROOT");
    if (parent == NULL || !amp_id_is_valid(parent))
        return;
    ask->parent = parent;
    ask->root = root != NULL && amp_id_is_valid(root) ? root : parent;
    if (above == NULL || *above == '\0')
        above = agent;
    if (above == NULL)
        return;
    char *rest = amp_arena_strdup(&ask->arena, amp_bytes_of(above)), *state = NULL;
    ask->path = amp_arena_alloc(&ask->arena, (AMP_HOPS_MAX + 1) * sizeof *ask->path);
    for (char *name = strtok_r(rest, ",", &state); name != NULL && ask->n_path <= AMP_HOPS_MAX; name = strtok_r(NULL, ",", &state)) {
        if (amp_id_is_valid(name))
            ask->path[ask->n_path++] = name;
    }
    ask->hops = (uint32_t)ask->n_path;
}

/* A call inside of a task has no more time than is left of that; what goes on without it has its own. */
static int read_deadline(struct ask *ask)
{
    const char *text = getenv("AMESH_DEADLINE");
    char *end = NULL;
    int64_t until_unix_ms = text != NULL && *text != '\0' ? strtoll(text, &end, 10) : 0;
    if (ask->parent == NULL || ask->is_apart || ask->answered_task != NULL || end == NULL || *end != '\0')
        return 0;
    int64_t left_ms = until_unix_ms - clock_unix_ms();
    if (left_ms <= 0)
        return cli_fail_with(&ask->cli, AMP_DEADLINE, "nothing is left of the time of task %s, inside of which this is asked", ask->parent);
    if (left_ms < UINT32_MAX && (ask->timeout_ms == 0 || left_ms < ask->timeout_ms))
        ask->timeout_ms = (uint32_t)left_ms;
    return 0;
}

static int read_context(struct ask *ask)
{
    const char *context = value(ask, "context");
    if (context == NULL && ask->parent != NULL)
        context = getenv("AMESH_CONTEXT");
    if (context == NULL && ask_is_schedule(ask))
        return 0; /* each run has one of its own */
    if (context != NULL) {
        int status = cli_id(&ask->cli, "the context", context);
        if (status != 0)
            return status;
        snprintf(ask->context_id, sizeof ask->context_id, "%s", context);
    } else {
        amp_id_new('c', clock_unix_ms(), ask->context_id);
    }
    amp_id_new('t', clock_unix_ms(), ask->task_id);
    return 0;
}

static int read_target(struct ask *ask)
{
    const char **rest = ask->cli.args->rest;
    bool has_target = ask->skill != NULL || ask->answered_task != NULL;
    size_t texts = ask->files != NULL ? 0 : 1;
    /* The task has its agent already; scripts that name it all the same mean no harm. */
    size_t names = !has_target || (ask->answered_task != NULL && ask->cli.args->n_rest == 2) ? 1 : 0;
    if (ask->skill != NULL && ask->answered_task != NULL)
        return cli_usage(&ask->cli, "--skill and --task exclude each other: the task already has its agent");
    if (ask->cli.args->n_rest == 0 && names + texts > 0)
        return cli_usage(&ask->cli, has_target ? "the text is missing" : "the agent and the text are missing");
    if (ask->cli.args->n_rest < names + texts)
        return cli_usage(&ask->cli, "the text for \"%s\" is missing (- reads standard input)", rest[0]);
    int status = cli_operands(&ask->cli, names + texts, names + 1);
    if (status != 0)
        return status;
    if (names == 1)
        ask->agent = rest[0];
    ask->text = rest[names];
    if (ask->agent != NULL)
        status = cli_id(&ask->cli, "the agent", ask->agent);
    if (status == 0 && ask->skill != NULL)
        status = cli_id(&ask->cli, "the skill", ask->skill);
    if (status == 0 && ask->answered_task != NULL)
        status = cli_id(&ask->cli, "the task", ask->answered_task);
    return status;
}

static int read_priority(struct ask *ask)
{
    const char *text = value(ask, "priority");
    if (text == NULL || call_priority(text, &ask->priority))
        return 0;
    return cli_usage(&ask->cli, "--priority is high, normal or low, not \"%s\"", text);
}

/* What does not go together. */
static int check_options(const struct ask *ask)
{
    if (ask_is_schedule(ask) && ask->is_impatient)
        return cli_usage(&ask->cli, "--no-wait does not go with --every and --cron: whether an instance is free is seen when a run begins; --overlap says what happens then");
    if (ask->retry != NULL && strcmp(ask->retry, "safe") != 0 && strcmp(ask->retry, "never") != 0)
        return cli_usage(&ask->cli, "--retry must be safe or never, not \"%s\"", ask->retry);
    if (ask->retry != NULL && ask->answered_task != NULL)
        return cli_usage(&ask->cli, "--retry belongs to a new task, not to the answer of one");
    if (ask->is_durable && value(ask, "priority") != NULL)
        return cli_usage(&ask->cli, "--priority is of direct calls: durable tasks wait in the order in which they were accepted");
    if (ask->key != NULL && (*ask->key == '\0' || strlen(ask->key) > AMP_KEY_MAX))
        return cli_usage(&ask->cli, "--key must have 1 to %u bytes", AMP_KEY_MAX);
    return 0;
}

static int read_options(struct ask *ask)
{
    ask->skill = value(ask, "skill");
    ask->answered_task = value(ask, "task");
    ask->key = value(ask, "key");
    ask->retry = value(ask, "retry");
    ask->files = command_values(ask->cli.command, ask->cli.args, "file");
    ask->output = value(ask, "output");
    ask->is_detached = has(ask, "detach");
    ask->is_impatient = has(ask, "no-wait");
    ask->is_verbose = has(ask, "verbose");
    int status = read_priority(ask);
    status = status != 0 ? status : ask_read_when(ask);
    bool is_later = ask->when.at.unix_ms > 0 || ask_is_schedule(ask);
    ask->form = has(ask, "events") ? ANSWER_EVENTS : ask->cli.is_json ? ANSWER_JSON : ANSWER_TEXT;
    ask->is_detached |= is_later && ask->form != ANSWER_EVENTS && !ask->is_verbose;
    ask->is_durable = has(ask, "durable") || ask->is_detached || ask->key != NULL || is_later;
    ask->is_apart = ask->is_detached || is_later;
    read_surroundings(ask);
    status = status != 0 ? status : check_options(ask);
    status = status != 0 ? status : cli_duration(&ask->cli, "timeout", &ask->timeout_ms);
    status = status != 0 ? status : read_deadline(ask);
    if (ask->timeout_ms > 0 && ask->timeout_ms < ask->cli.timeout_ms)
        ask->cli.timeout_ms = ask->timeout_ms > ENV_WAIT_MIN_MS ? ask->timeout_ms : ENV_WAIT_MIN_MS;
    if (status == 0)
        status = read_target(ask);
    return status == 0 ? read_context(ask) : status;
}

/* Those of an answer stand in the message. */
static bool takes_large_files(const struct ask *ask)
{
    return ask->answered_task == NULL;
}

static int make_message(struct ask *ask)
{
    ask->source = (struct message_source){.text = ask->text, .files = ask->files};
    struct message_source *source = &ask->source;
    struct amp_error err = {0};
    if (takes_large_files(ask))
        source->inline_max = ASK_INLINE_MAX;
    if (ask->answered_task == NULL && !ask_is_schedule(ask)) {
        source->task_id = ask->task_id;
        source->context_id = ask->context_id;
    }
    enum amp_code code = message_make(source, &ask->arena, &ask->message, &err);
    if (code == AMP_TOO_LARGE && ask->files != NULL && !takes_large_files(ask))
        amp_error_hint(&err, "a task of its own, without --task, takes files of any size");
    if (code != AMP_OK)
        return cli_fail(&ask->cli, &err, NULL);
    return 0;
}

static int run_ask(const struct command *command, struct command_args *args)
{
    struct ask ask = {0};
    struct amp_error err = {.code = AMP_OK};
    amp_arena_init(&ask.arena, AMP_ARENA_BYTES_MAX);
    int status = cli_init(&ask.cli, command, args);
    if (status == 0)
        status = read_options(&ask);
    if (status == 0 && blob_store_check_env(&err) != AMP_OK)
        status = cli_fail(&ask.cli, &err, NULL);
    if (status == 0)
        status = ask_files_prepare(&ask);
    if (status == 0)
        status = make_message(&ask);
    if (status == 0)
        status = cli_connect(&ask.cli);
    if (status == 0)
        status = ask_files_begin(&ask);
    if (status == 0)
        status = ask_is_schedule(&ask) ? ask_schedule(&ask) : ask.answered_task != NULL ? ask_answer(&ask) : ask.is_durable ? ask_durable(&ask) : ask_direct(&ask);
    ask_files_end(&ask);
    cli_done(&ask.cli);
    amp_arena_done(&ask.arena);
    return status;
}

const struct command ask_commands[] = {
    {.name = "ask",
     .operands = "AGENT TEXT",
     .summary = "ask an agent and print its answer while it comes",
     .details = "The answer's text goes to stdout, notices go to stderr. TEXT \"-\" reads standard input. With --skill or --task there is no AGENT.\n"
                "\n"
                "Files of any size go along with --file, and those of the answer are written with --output (a name that is there already gets a number). Those of a durable task are "
                "the environment's when it is accepted; amesh task show TASK --output DIR writes those of its answer later. An answer (--task) takes as much as one message does.\n"
                "\n"
                "A question of the agent is asked and answered in place on a terminal. Otherwise it goes to stderr with the command that answers it, and the "
                "exit code is 9.\n"
                "\n"
                "Interrupted (ctrl-C), a direct call is cancelled; a durable task goes on, and how to watch it is said.\n"
                "\n"
                "Examples:\n"
                "  amesh ask up \"hello\"\n"
                "  amesh ask --skill translate --file letter.txt \"into French\"\n"
                "  amesh ask --file film.mp4 --output . shrink \"to 720p\"\n"
                "  echo hello | amesh ask up -\n"
                "  amesh ask --durable --key order-7 billing \"invoice order 7\"\n"
                "  amesh ask --task t-01hq3c yes\n"
                "  amesh ask --at 09:00 up \"good morning\"\n"
                "  amesh ask --cron \"*/15 9-17 * * mon-fri\" watcher \"anything new?\"",
     .options = ask_options,
     .run = run_ask,
     .complete = "agents"},
    {0},
};
