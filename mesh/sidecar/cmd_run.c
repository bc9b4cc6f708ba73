/* amesh run: one agent instance on the mesh. */
#include "commands.h"
#include "run_card.h"
#include "sidecar/shim_files.h"
#include "sidecar/sidecar.h"
#include "sidecar/spawn.h"
#include "sidecar/worker.h"

#include "adapter.h"

#include "base/alloc.h"
#include "base/blob_store.h"
#include "base/bus.h"
#include "base/file.h"
#include "base/home.h"
#include "base/json_room.h"
#include "base/log.h"
#include "base/loop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GRACE_MS 9000u /* for what is in hand: what has not ended then is given back within the 10 s after which others kill who was asked to stop */
#define SLOTS_MAX 10000
#define ELSEWHERE_IDLE_MS 600000u /* a server that says nothing for so long is given up, unless --progress-timeout is given */

struct run {
    const struct command *command;
    struct command_args *args;
    struct home home;
    struct amp_arena arena;
    struct sidecar_options options;
    struct adapter_options adapter;
    char *key; /* of the other side */
    char name[AMP_NAME_MAX + 1];
    struct loop *loop;
    struct bus *bus;
    struct sidecar *sidecar;
    bool is_draining;
    struct amp_error hopeless; /* why the agent could not be started; code AMP_OK: it could */
};

static bool is_json(const struct run *run)
{
    return command_flag(run->command, run->args, "json");
}

static int fail(const struct run *run, const struct amp_error *err)
{
    return command_fail(is_json(run), err);
}

static int usage(const struct run *run, const char *message, const char *hint)
{
    struct amp_error err = {0};
    amp_error_set(&err, AMP_INVALID, "", "%s", message);
    amp_error_hint(&err, "%s", hint);
    return fail(run, &err);
}

/* ---- what to run ------------------------------------------------------------------------------------------------- */

static int check_program(const struct run *run, const char *program)
{
    struct amp_error err = {0};
    char path[SPAWN_PATH_MAX];
    return spawn_find(program, path, &err) == AMP_OK ? 0 : fail(run, &err);
}

static int choose_shim(struct run *run, const char *target)
{
    struct amp_error err = {0};
    const char *colon = strrchr(target, ':');
    char file[4096];
    snprintf(file, sizeof file, "%.*s", (int)(colon ? (size_t)(colon - target) : strlen(target)), target);
    if (access(file, R_OK) != 0) {
        amp_error_set(&err, AMP_NOT_FOUND, "", "there is no file %s", file);
        amp_error_hint(&err, "amesh run FILE.py:OBJECT");
        return fail(run, &err);
    }
    run->options.mode = SIDECAR_SHIM;
    run->options.target = target;
    run->options.python = command_value(run->command, run->args, "python");
    return run->options.python ? check_program(run, run->options.python) : 0;
}

static int read_key(struct run *run, const struct adapter_kind *kind)
{
    const char *file = command_value(run->command, run->args, "key-file"), *key = kind->key_env ? getenv(kind->key_env) : NULL;
    struct amp_error err = {0};
    if (file && file_read_secret(file, &run->key, &err) != AMP_OK)
        return fail(run, &err);
    if (!file && key && *key)
        run->key = xstrdup(key);
    run->adapter.key = run->key;
    return 0;
}

/* The agent is elsewhere: --openai URL and its like. */
static int choose_adapter(struct run *run, const struct adapter_kind *kind)
{
    if (run->options.adapter)
        return usage(run, "an agent speaks one protocol: two are given", "amesh help run");
    if (run->args->n_rest > 0 || command_value(run->command, run->args, "mode"))
        return usage(run, "an agent that is elsewhere has no command and no --mode", "amesh run --name NAME --openai URL --model MODEL");
    run->options.mode = SIDECAR_ADAPTER;
    run->options.worker_new = worker_adapter_new;
    run->options.adapter = kind;
    run->options.adapter_options = &run->adapter;
    run->adapter.target = command_value(run->command, run->args, kind->option);
    run->adapter.model = command_value(run->command, run->args, "model");
    run->adapter.system = command_value(run->command, run->args, "system");
    return read_key(run, kind);
}

static int choose_command(struct run *run)
{
    const struct command_args *args = run->args;
    const char *mode = command_value(run->command, args, "mode");
    bool is_shim = args->n_rest == 1 && !args->has_dashes && shim_language_of(args->rest[0]) != SHIM_NONE;
    if (is_shim && !mode)
        return choose_shim(run, args->rest[0]);
    if (!mode || strcmp(mode, "exec") == 0)
        run->options.mode = SIDECAR_EXEC;
    else if (strcmp(mode, "jsonl") == 0)
        run->options.mode = SIDECAR_JSONL;
    else if (strcmp(mode, "dial") == 0)
        run->options.mode = SIDECAR_DIAL;
    else
        return usage(run, "--mode is exec, jsonl or dial", "amesh help run");
    if (args->n_rest == 0)
        return run->options.mode == SIDECAR_DIAL ? 0 : usage(run, "there is nothing to run", "amesh run --name NAME -- COMMAND, or amesh run FILE.py:OBJECT");
    run->options.argv = (char *const *)args->rest;
    return check_program(run, args->rest[0]);
}

static int choose_mode(struct run *run)
{
    int status = 0;
    for (const struct adapter_kind *const *kind = adapter_kinds; *kind && status == 0; kind++) {
        if (command_value(run->command, run->args, (*kind)->option))
            status = choose_adapter(run, *kind);
    }
    return status || run->options.adapter ? status : choose_command(run);
}

/* ---- who it is ----------------------------------------------------------------------------------------------------- */

static int choose_name(struct run *run, const Amp__AgentCard *card)
{
    const char *given = command_value(run->command, run->args, "name");
    if (!given && card->name)
        given = card->name;
    if (given) {
        struct amp_error err = {0};
        snprintf(run->name, sizeof run->name, "%s", given);
        if (amp_id_is_valid(given))
            return 0;
        struct amp_buf clean;
        amp_buf_init(&clean, 1024);
        (void)amp_text_sanitize(&clean, (struct amp_bytes){.data = (const uint8_t *)given, .len = strnlen(given, 80)}, true);
        amp_error_set(&err, AMP_INVALID, "name", "\"%.*s\" is no name of an agent", (int)clean.len, (const char *)clean.data);
        amp_error_hint(&err, "use a-z, 0-9, _ and -, at most 63 of them");
        amp_buf_done(&clean);
        return fail(run, &err);
    }
    const char *program = run->args->n_rest ? run->args->rest[0] : run->adapter.model ? run->adapter.model : "agent", *slash = strrchr(program, '/');
    const char *object = run->options.mode == SIDECAR_SHIM ? strrchr(program, ':') : NULL;
    amp_id_from_text(object && object[1] ? object + 1 : slash ? slash + 1 : program, run->name);
    return 0;
}

static int make_card(struct run *run)
{
    struct amp_error err = {0};
    const char *file = command_value(run->command, run->args, "card"), *description = command_value(run->command, run->args, "description");
    Amp__AgentCard *card = amp_arena_alloc(&run->arena, sizeof *card);
    if (!card)
        return usage(run, "out of memory", "");
    amp__agent_card__init(card);
    if (file && run_card_read(file, &run->arena, &card, &err) != AMP_OK)
        return fail(run, &err);
    int status = choose_name(run, card);
    if (status)
        return status;
    card->name = run->name;
    if (description)
        card->description = (char *)description;
    if (run_card_skills(card, command_values(run->command, run->args, "skill"), &run->arena, &err) != AMP_OK)
        return fail(run, &err);
    if (amp_card_complete(card, run->name, &run->arena) != AMP_OK)
        return usage(run, "out of memory", "");
    if (amp_card_check(card, &err) != AMP_OK) {
        if (file)
            run_card_place(file, &err);
        return fail(run, &err);
    }
    run->options.card = card;
    return 0;
}

static int read_options(struct run *run)
{
    const char *slots = command_value(run->command, run->args, "concurrency"), *retry = command_value(run->command, run->args, "retry");
    char *end = NULL;
    long count = slots ? strtol(slots, &end, 10) : 1;
    if (count < 1 || count > SLOTS_MAX || (end && *end))
        return usage(run, "--concurrency is a number from 1 to 10000", "amesh help run");
    const char *silence = command_value(run->command, run->args, "progress-timeout");
    unsigned silence_ms = 0;
    if (silence && (!command_duration_ms(silence, &silence_ms) || silence_ms == 0))
        return usage(run, "--progress-timeout is a duration: 500ms, 30s, 5m", "amesh help run");
    run->options.progress_timeout_ms = silence_ms;
    run->adapter.idle_ms = silence_ms ? silence_ms : ELSEWHERE_IDLE_MS;
    if (retry && strcmp(retry, "safe") != 0 && strcmp(retry, "never") != 0)
        return usage(run, "--retry is safe or never", "amesh help run");
    const char **tags = command_values(run->command, run->args, "tag");
    for (size_t i = 0; tags && tags[i]; i++)
        if (!strchr(tags[i], '=') || tags[i][0] == '=' || i >= AMP_TAGS_MAX || strlen(tags[i]) > AMP_LABEL_MAX)
            return usage(run, "a tag is K=V, at most 256 bytes, at most 64 of them", "--tag team=red");
    run->options.slots = (uint32_t)count;
    run->options.retry = !retry ? SIDECAR_RETRY_UNSAID : strcmp(retry, "safe") == 0 ? SIDECAR_RETRY_SAFE : SIDECAR_RETRY_NEVER;
    run->options.tags = tags;
    run->options.socket = command_value(run->command, run->args, "sock");
    return 0;
}

/* ---- life -------------------------------------------------------------------------------------------------------------- */

static void on_ready(void *ctx)
{
    struct run *run = ctx;
    if (is_json(run))
        printf("{\"ready\":true,\"agent\":\"%s\",\"instance\":\"%s\",\"pid\":%d}\n", run->name, sidecar_instance(run->sidecar), (int)getpid());
    else
        printf("ready %s %s\n", run->name, sidecar_instance(run->sidecar));
    fflush(stdout);
}

static void on_stopped(void *ctx, int status)
{
    struct run *run = ctx;
    loop_stop(run->loop, run->hopeless.code ? fail(run, &run->hopeless) : status);
}

static void on_up(void *ctx)
{
    struct run *run = ctx;
    if (run->sidecar)
        sidecar_bus_up(run->sidecar);
}

static void on_down(void *ctx)
{
    struct run *run = ctx;
    if (run->sidecar)
        sidecar_bus_down(run->sidecar);
}

/* An instance that nobody can reach is none. That the stock services tools do not see it does no harm, nor that it can give no large files. */
static void on_denied(void *ctx, const char *subject)
{
    struct run *run = ctx;
    struct amp_error err = {0};
    if (strncmp(subject, "$SRV.", 5) == 0)
        return;
    if (strncmp(subject, "amp.blob.", 9) == 0) {
        log_event(LOG_WARN, "blobs.denied", "subject", subject, "hint", "others cannot read large files of this agent: the permissions lack this subject", NULL);
        return;
    }
    amp_error_set(&err, AMP_DENIED, "", "the bus does not allow %s to subscribe to %s", run->name, subject);
    amp_error_hint(&err, "the permissions of these credentials lack this subject");
    loop_stop(run->loop, fail(run, &err));
}

/* Not without a goodbye: others would wait for its beats. */
static void on_hopeless(void *ctx, const struct amp_error *err)
{
    struct run *run = ctx;
    run->hopeless = *err;
    run->is_draining = true;
    sidecar_drain(run->sidecar, 0);
}

static void on_signal(void *ctx, int signo)
{
    struct run *run = ctx;
    sidecar_drain(run->sidecar, run->is_draining ? 0 : GRACE_MS); /* the second one: at once */
    run->is_draining = true;
}

static int live(struct run *run)
{
    struct amp_error err = {0};
    struct bus_options options = {.url = run->home.bus, .creds = run->home.creds[0] ? run->home.creds : NULL, .name = run->name, .inbox = run->home.inbox, .on_up = on_up, .on_down = on_down, .on_denied = on_denied, .ctx = run};
    if (bus_new(run->loop, &options, &run->bus, &err) != AMP_OK)
        return fail(run, &err);
    run->options.on_hopeless = on_hopeless;
    if (sidecar_new(run->loop, run->bus, &run->home, &run->options, on_ready, on_stopped, run, &run->sidecar, &err) != AMP_OK)
        return fail(run, &err);
    struct loop_signal *on_term = loop_signal_new(run->loop, SIGTERM, on_signal, run);
    struct loop_signal *on_int = loop_signal_new(run->loop, SIGINT, on_signal, run);
    int status = loop_run(run->loop);
    loop_signal_free(on_term);
    loop_signal_free(on_int);
    return status;
}

static int run_in_home(struct run *run)
{
    struct amp_error err = {0};
    if (home_open(&run->home, command_value(run->command, run->args, "home"), command_value(run->command, run->args, "bus"), true, &err) != AMP_OK)
        return fail(run, &err);
    if (!run->home.bus[0]) {
        amp_error_set(&err, AMP_NO_BUS, "", "there is no bus: no mesh runs in %s", run->home.path);
        amp_error_hint(&err, "amesh up, or name a bus with --bus URL or AMESH_BUS");
        return fail(run, &err);
    }
    run->loop = loop_new();
    int status = live(run);
    sidecar_free(run->sidecar);
    bus_free(run->bus);
    loop_free(run->loop);
    return status;
}

static int run_agent(const struct command *command, struct command_args *args)
{
    struct run run = {.command = command, .args = args};
    struct amp_error err = {0};
    log_init(log_level_from_env(LOG_INFO), "run");
    json_room_install();
    amp_arena_init(&run.arena, AMP_ARENA_BYTES_MAX);
    int status = file_check_limit(&err) == AMP_OK && blob_store_check_env(&err) == AMP_OK ? 0 : fail(&run, &err);
    if (status == 0)
        status = choose_mode(&run);
    if (status == 0)
        status = read_options(&run);
    if (status == 0)
        status = make_card(&run);
    if (status == 0)
        status = run_in_home(&run);
    amp_arena_done(&run.arena);
    free(run.key);
    return status;
}

static const struct command_option options[] = {
    {.name = "name", .letter = 'n', .arg = "NAME", .help = "the agent's name (default: from the program)"},
    {.name = "description", .arg = "TEXT", .help = "what it does, for people and for other agents"},
    {.name = "skill", .arg = "SKILL[:TEXT]", .help = "a skill: others may call it by this name", .is_repeatable = true},
    {.name = "tag", .arg = "K=V", .help = "a tag, for search", .is_repeatable = true},
    {.name = "concurrency", .arg = "N", .help = "tasks at once (default 1)"},
    {.name = "mode", .arg = "MODE", .help = "exec: once per task (default); jsonl: JSON lines on stdin and stdout; dial: it connects to AMESH_SOCK", .complete = "exec|jsonl|dial"},
    {.name = "retry", .arg = "WHEN", .help = "may a task whose instance died be run again elsewhere? safe or never (default: durable tasks may, direct calls that have begun may not)", .complete = "safe|never"},
    {.name = "progress-timeout", .arg = "TIME", .help = "an agent that says nothing for so long while it works hangs: the task is tried elsewhere, the agent stopped (default: it may be silent)"},
    {.name = "card", .arg = "FILE", .help = "YAML or JSON of the A2A card; options override it", .complete = "files"},
    {.name = "openai", .arg = "URL", .help = "the agent is a model behind OpenAI's API, here or elsewhere: the base URL"},
    {.name = "model", .arg = "MODEL", .help = "which model (with --openai)"},
    {.name = "system", .arg = "TEXT", .help = "what the model is told first (with --openai)"},
    {.name = "key-file", .arg = "FILE", .help = "the key for the other side, one line; default: OPENAI_API_KEY", .complete = "files"},
    {.name = "python", .arg = "PROGRAM", .help = "interpreter for FILE.py:OBJECT", .complete = "files"},
    {.name = "sock", .arg = "PATH", .help = "path of the local socket (default: chosen)", .complete = "files"},
    {0},
};

const struct command sidecar_commands[] = {
    {.name = "run",
     .operands = "[--] COMMAND... | FILE.py:OBJECT | FILE.mjs:OBJECT | --openai URL",
     .summary = "put one agent instance on the mesh and supervise it",
     .details = "A COMMAND is run once per task: the text is on its stdin, what it prints is the answer, exit status 0 is success. With --mode jsonl or dial it is one long-lived process "
                "(spec/local-api.md). FILE.py:OBJECT and FILE.mjs:OBJECT are functions.\n\nPrints `ready NAME INSTANCE` when it can be called. SIGTERM: takes nothing new, finishes what is in hand, leaves.\n\n"
                "amesh run --name up -- tr a-z A-Z\n\namesh run app.py:answer",
     .options = options,
     .run = run_agent,
     .complete = "files"},
    {0},
};
